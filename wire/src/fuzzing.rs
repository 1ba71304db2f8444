//! The bodies of the fuzz targets, which the tests run too.

mod hostile;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::{Duration, Instant},
};

use arbitrary::{Arbitrary, Unstructured};
use bytes::Bytes;

use crate::{
    Body, Cancel, ChannelId, Data, DataNode, Error, Event, Frame, Have, Limits, MAX_BLOCKS,
    MAX_NUMBER, Message, MessageKind, Options, Received, Request, Role, SecureStream, Session,
    SessionOptions, StaticKeyPair, Status, Unhave, Unwant, Want, discovery_key, schema::oracle,
};

pub use hostile::wire_hostile;

/// Any bytes as a stream in clear: however they are split, the same frames come out and the same
/// error, nothing panics, and what can be decoded is stable when it is encoded again.
pub fn wire_frame(data: &[u8]) {
    let Some((&seed, data)) = data.split_first() else {
        return;
    };
    let whole = frames(data, |_| usize::MAX);
    let sizes = usize::from(seed % 16) + 1;
    assert_eq!(
        frames(data, |round| 1 + round % sizes),
        whole,
        "the split changes what is read"
    );
    for frame in whole.0 {
        let Ok(Some(frame)) = Frame::decode(frame, &Limits::default()) else {
            continue;
        };
        let mut bytes = bytes::BytesMut::new();
        frame.encode(&mut bytes);
        assert_eq!(bytes.len(), frame.encoded_length());
        assert_eq!(
            Frame::decode(bytes.freeze(), &Limits::default()),
            Ok(Some(frame))
        );
    }
}

/// One message: its type and channel in the first two bytes, then its body. What can be decoded
/// keeps to the limits, and is the same after it was encoded.
pub fn wire_message(data: &[u8]) {
    let Some((&[kind, channel], body)) = data.split_first_chunk() else {
        return;
    };
    let mut frame = bytes::BytesMut::new();
    crate::varint::write(u64::from(channel) << 4 | u64::from(kind & 15), &mut frame);
    frame.extend_from_slice(body);
    let limits = Limits::default();
    let frame = Frame::decode(frame.freeze(), &limits);
    let kind = MessageKind::from_number(kind & 15);
    if let Some(kind @ (MessageKind::Request | MessageKind::Data)) = kind {
        let body = Bytes::copy_from_slice(body);
        let by_prost = if kind == MessageKind::Data {
            oracle::data(&body, &limits).map(Message::Data)
        } else {
            oracle::request(&body, &limits).map(Message::Request)
        };
        let ours = frame.as_ref().ok().map(|frame| match frame {
            Some(Frame {
                body: Body::Message(message),
                ..
            }) => message.clone(),
            other => panic!("{other:?}"),
        });
        assert_eq!(ours, by_prost, "prost reads something else");
    }
    let Ok(Some(frame)) = frame else {
        return;
    };
    if let Body::Message(message) = &frame.body {
        check_numbers(message, &limits);
    }
    let mut bytes = bytes::BytesMut::new();
    frame.encode(&mut bytes);
    assert_eq!(bytes.len(), frame.encoded_length());
    assert_eq!(Frame::decode(bytes.freeze(), &limits), Ok(Some(frame)));
}

/// What those who handle messages rely on.
fn check_numbers(message: &Message, limits: &Limits) {
    let in_range = |start: u64, length: u64| start < MAX_BLOCKS && length <= MAX_BLOCKS - start;
    match message {
        Message::Have(have) => {
            assert!(in_range(have.start, have.length));
            assert!(have.bitfield.is_none() || have.start.is_multiple_of(8));
        }
        Message::Unhave(Unhave { start, length })
        | Message::Want(Want { start, length })
        | Message::Unwant(Unwant { start, length }) => assert!(in_range(*start, *length)),
        Message::Request(request) => {
            assert!(request.index < MAX_BLOCKS && request.bytes <= MAX_NUMBER);
        }
        Message::Cancel(cancel) => {
            assert!(cancel.index < MAX_BLOCKS && cancel.bytes <= MAX_NUMBER);
        }
        Message::Data(data) => {
            assert!(data.index < MAX_BLOCKS && data.nodes.len() <= limits.nodes);
            assert!(data.value.is_some() || !data.nodes.is_empty());
            let mut nodes = data.nodes.iter();
            assert!(nodes.all(|node| node.index.max(node.size) <= MAX_NUMBER));
        }
        Message::Options(options) => {
            assert!(options.extensions.len() <= limits.extension_names);
            let mut names = options.extensions.iter();
            assert!(names.all(|name| name.len() <= limits.extension_name));
        }
        Message::Status(_) | Message::Extension(_) => {}
    }
}

/// The frames in `data` read in chunks, where an empty one is a keep-alive, and how it ended.
fn frames(mut data: &[u8], size: impl Fn(usize) -> usize) -> (Vec<Bytes>, Result<usize, Error>) {
    let mut options = options(Role::Initiator);
    (options.noise, options.encrypted) = (false, false);
    let mut stream = SecureStream::new(&options).expect("no randomness is needed");
    stream.trust();
    let mut frames = Vec::new();
    for round in 0.. {
        let spare = stream.receive_buffer();
        assert!(!spare.is_empty() && spare.len() <= 2 * (data.len() + MEGABYTE));
        let n = size(round).min(data.len()).min(spare.len());
        spare[..n].copy_from_slice(&data[..n]);
        data = &data[n..];
        if let Err(error) = stream.received(n) {
            return (frames, Err(error));
        }
        loop {
            match stream.poll() {
                Ok(Some(Received::Frame(frame))) => frames.push(frame),
                Ok(Some(_)) => frames.push(Bytes::new()),
                Ok(None) => break,
                Err(error) => return (frames, Err(error)),
            }
        }
        if data.is_empty() {
            break;
        }
    }
    (frames, Ok(stream.unfinished()))
}

/// Hostile bytes instead of, or mixed into, a handshake: it ends in an error or in agreement.
pub fn wire_handshake(data: &[u8]) {
    let mut input = Unstructured::new(data);
    let now = Instant::now();
    let [mut initiator, mut responder] = sessions(now, |_| {});
    let mut altered = false;
    for _ in 0..4 {
        for (from, to) in [(0, 1), (1, 0)] {
            let sides = [&mut initiator, &mut responder];
            let mut bytes = sides[from].outgoing().to_vec();
            sides[from].sent(now, bytes.len());
            altered |= alter(&mut input, &mut bytes);
            // Errors of either side are fine; using the session afterwards must be too.
            let _ = sides[to].receive(now, &bytes);
        }
    }
    if let (Some(ours), Some(theirs)) = (initiator.handshake_hash(), responder.handshake_hash()) {
        assert_eq!(ours, theirs, "a handshake that ends does so in agreement");
        let key = StaticKeyPair::from_seed(&[1; 32]).public_key();
        assert_eq!(responder.remote_public_key(), Some(key));
    } else {
        assert!(altered, "an honest handshake ends");
    }
    for side in [&initiator, &responder] {
        assert!(side.buffered() < 4096 && side.error().is_none_or(Error::is_peer_fault));
    }
}

/// Changes, cuts or extends `bytes` as the input says, and tells whether it did.
fn alter(input: &mut Unstructured<'_>, bytes: &mut Vec<u8>) -> bool {
    let before = bytes.clone();
    match input.int_in_range(0..=5u8).unwrap_or(0) {
        1 => bytes.truncate(input.choose_index(bytes.len().max(1)).unwrap_or(0)),
        2 => bytes.extend_from_slice(input.arbitrary().unwrap_or_default()),
        3 => *bytes = input.arbitrary().unwrap_or_default(),
        4 => {
            let at = input.choose_index(bytes.len().max(1)).unwrap_or(0);
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= input.arbitrary().unwrap_or(1u8);
            }
        }
        _ => {}
    }
    *bytes != before
}

/// What the two sides of [`wire_session`] do.
#[derive(Arbitrary, Debug)]
enum Operation {
    Open {
        side: bool,
        key: u8,
    },
    Close {
        side: bool,
        channel: u8,
    },
    Reject {
        side: bool,
        key: u8,
    },
    Send {
        side: bool,
        channel: u8,
        message: Kind,
    },
    Extension {
        side: bool,
        channel: Option<u8>,
        name: u8,
    },
    Declare {
        side: bool,
        names: u8,
    },
    Carry {
        side: bool,
        max: u16,
    },
    Flip {
        side: bool,
        at: u16,
        bit: u8,
    },
    Inject {
        side: bool,
        bytes: Vec<u8>,
    },
    Wait {
        side: bool,
        milliseconds: u16,
    },
    Finish {
        side: bool,
    },
    Expect {
        side: bool,
        channel: u8,
        names: u8,
    },
}

#[derive(Arbitrary, Debug)]
enum Kind {
    Have {
        start: u64,
        length: u64,
    },
    Want {
        start: u64,
    },
    Request {
        index: u32,
        nodes: u64,
    },
    Data {
        index: u32,
        length: u16,
    },
    Options {
        names: u8,
        ack: bool,
    },
    Status {
        uploading: bool,
        downloading: bool,
    },
    Unhave {
        start: u64,
        length: u64,
    },
    Unwant {
        start: u64,
        length: u64,
    },
    Cancel {
        index: u32,
        bytes: u64,
        hash: bool,
    },
    Bits {
        start: u64,
        length: u16,
        ack: bool,
    },
    Proof {
        index: u64,
        nodes: u8,
        value: Option<u8>,
        signature: bool,
    },
}

/// Two sessions with known keys do anything, over a link that may flip bits and add bytes: nothing
/// panics, all queues stay bounded, and as long as nobody meddles there is no error, every message comes
/// once, as it was sent and in order, also of an extension that both know, and both sides agree on what is open.
pub fn wire_session(data: &[u8]) {
    let mut input = Unstructured::new(data);
    let operations = std::iter::from_fn(|| {
        let left = !input.is_empty();
        left.then(|| Operation::arbitrary(&mut input).ok())
            .flatten()
    });
    play(operations);
}

fn play(operations: impl Iterator<Item = Operation>) {
    let mut now = Instant::now();
    let mut sides = sessions(now, |options| {
        options.limits.send_buffer = 64 << 10;
        options.limits.unmatched_channels = 4;
        options.limits.channels = 4;
    });
    let mut channels = [Vec::new(), Vec::new()];
    // Until somebody meddles or one side ends.
    let mut journal = Some(Journal::default());
    let mut honest = true;
    let mut finished = false;
    // Each message of an extension is another.
    let mut extensions = 0;
    exchange(&mut sides, now);
    for operation in operations.take(MAX_OPERATIONS) {
        match operation {
            Operation::Open { side, key } => {
                let side = usize::from(side);
                if let Ok(channel) = sides[side].open(&[key % 8; 32]) {
                    channels[side].push(channel);
                    if let Some(journal) = &mut journal {
                        journal.opened(&mut sides[side], side, channel, key % 8);
                    }
                }
            }
            Operation::Close { side, channel } => {
                let side = usize::from(side);
                if let Some(channel) = pick(&channels[side], channel) {
                    sides[side].close(channel);
                    if let Some(journal) = &mut journal {
                        journal.closed(side, channel);
                    }
                    assert!(
                        !sides[side].is_open(channel) || sides[side].error().is_some() || finished
                    );
                }
            }
            Operation::Reject { side, key } => {
                let side = usize::from(side);
                sides[side].reject(&discovery_key(&[key % 8; 32]));
                if let Some(journal) = &mut journal {
                    journal.open[side].remove(&(key % 8));
                }
            }
            Operation::Send {
                side,
                channel,
                message,
            } => {
                let side = usize::from(side);
                if let Some(channel) = pick(&channels[side], channel) {
                    let mut message = message.build();
                    let sent = sides[side].send(channel, &message);
                    if let (Some(journal), Ok(())) = (&mut journal, sent) {
                        if let Message::Options(options) = &mut message {
                            let names = &mut options.extensions;
                            names.sort_by_key(|name| name.encode_utf16().collect::<Vec<_>>());
                            let names = names.clone();
                            journal.expected[side].insert(Some(channel), names);
                        }
                        let key = journal.keys[side][&channel];
                        journal.sent(&sides[side], side, key, Content::Message(message));
                    }
                }
            }
            Operation::Extension {
                side,
                channel,
                name,
            } => {
                let side = usize::from(side);
                let channel = channel.and_then(|channel| pick(&channels[side], channel));
                let name = NAMES[usize::from(name) % NAMES.len()];
                extensions += 1;
                let payload = Bytes::from(format!("{name} {extensions}"));
                let sent = sides[side].send_extension(channel, name, payload.clone());
                if let (Some(journal), Ok(())) = (&mut journal, sent) {
                    let key = channel.map_or(STREAM, |channel| journal.keys[side][&channel]);
                    let content = Content::Extension {
                        name: name.to_owned(),
                        payload,
                    };
                    journal.sent(&sides[side], side, key, content);
                }
            }
            Operation::Declare { side, names } => {
                let side = usize::from(side);
                let declared = sides[side].declare_extensions(self::names(names));
                if let (Some(journal), Ok(())) = (&mut journal, declared) {
                    journal.expected[side].insert(None, self::names(names));
                }
            }
            Operation::Expect {
                side,
                channel,
                names,
            } => {
                let side = usize::from(side);
                if let Some(channel) = pick(&channels[side], channel) {
                    let expected = sides[side].expect_extensions(channel, self::names(names));
                    if let (Some(journal), Ok(())) = (&mut journal, expected) {
                        journal.expected[side].insert(Some(channel), self::names(names));
                    }
                }
            }
            Operation::Carry { side, max } => {
                let (from, max) = (usize::from(side), usize::from(max));
                let (count, events) = carry(&mut sides, from, max, now, |_| {});
                if let Some(journal) = &mut journal {
                    journal.arrived(from, count, events, sides[1 - from].error());
                }
            }
            Operation::Flip { side, at, bit } => {
                (honest, journal) = (false, None);
                carry(&mut sides, side.into(), usize::MAX, now, |bytes| {
                    let at = usize::from(at) % bytes.len().max(1);
                    if let Some(byte) = bytes.get_mut(at) {
                        *byte ^= 1 << (bit % 8);
                    }
                });
            }
            Operation::Inject { side, bytes } => {
                (honest, journal) = (false, None);
                carry(&mut sides, side.into(), usize::MAX, now, |all| {
                    all.extend(bytes)
                });
            }
            Operation::Wait { side, milliseconds } => {
                now += Duration::from_millis(milliseconds.into());
                let side = &mut sides[usize::from(side)];
                let due = side.poll_timeout().is_some_and(|due| due <= now);
                let before = side.buffered();
                let failed = side.handle_timeout(now).is_err();
                assert!(
                    due || !failed && side.buffered() == before,
                    "nothing happens undue"
                );
            }
            Operation::Finish { side } => {
                (finished, journal) = (true, None);
                sides[usize::from(side)].finish();
            }
        }
        for side in &mut sides {
            assert!(side.buffered() <= (64 << 10) + (70 << 10) + MEGABYTE);
            assert!(side.channels() <= 16);
            if let Some(error) = side.error().filter(|_| honest) {
                assert!(
                    !error.is_peer_fault(),
                    "an honest remote is accused: {error}"
                );
            }
        }
    }
    if let Some(mut journal) = journal
        && sides.iter().all(|side| side.error().is_none())
    {
        for from in [0, 1].into_iter().cycle() {
            if sides.iter().all(|side| side.outgoing().is_empty()) {
                break;
            }
            let (count, events) = carry(&mut sides, from, usize::MAX, now, |_| {});
            journal.arrived(from, count, events, sides[1 - from].error());
        }
        for key in 0..8 {
            let open = [0, 1].map(|side| {
                let channel = sides[side].find(&discovery_key(&[key; 32]));
                channel.is_some_and(|channel| sides[side].is_open(channel))
            });
            assert_eq!(
                open[0], open[1],
                "one side believes channel {key} to be open"
            );
        }
    }
}

impl Kind {
    fn build(self) -> Message {
        match self {
            Self::Have { start, length } => {
                let start = start % (1 << 51);
                Message::Have(Have {
                    length: length % (1 << 51),
                    ..Have::block(start)
                })
            }
            Self::Want { start } => Message::Want(Want {
                start: start % (1 << 51),
                length: 1,
            }),
            Self::Request { index, nodes } => Message::Request(Request {
                index: index.into(),
                nodes,
                ..Request::default()
            }),
            Self::Data { index, length } => {
                let value = Some(Bytes::from(vec![0; length.into()]));
                Message::Data(Data {
                    index: index.into(),
                    value,
                    ..Data::default()
                })
            }
            Self::Options { names, ack } => Message::Options(Options {
                extensions: self::names(names),
                ack,
            }),
            Self::Status {
                uploading,
                downloading,
            } => Message::Status(Status {
                uploading,
                downloading,
            }),
            Self::Unhave { start, length } => Message::Unhave(Unhave {
                start: start % (1 << 51),
                length: length % (1 << 51),
            }),
            Self::Unwant { start, length } => Message::Unwant(Unwant {
                start: start % (1 << 51),
                length: length % (1 << 51),
            }),
            Self::Cancel { index, bytes, hash } => Message::Cancel(Cancel {
                index: index.into(),
                bytes: bytes % (MAX_NUMBER + 1),
                hash,
            }),
            Self::Bits { start, length, ack } => Message::Have(Have {
                start: start % (1 << 51) / 8 * 8,
                length: length.into(),
                bitfield: Some(Bytes::from(vec![1; usize::from(length % 300)])),
                ack,
            }),
            Self::Proof {
                index,
                nodes,
                value,
                signature,
            } => {
                let node = |node| DataNode {
                    index: index.wrapping_add(node) % (MAX_NUMBER + 1),
                    hash: [node as u8; 32],
                    size: index.wrapping_mul(node) % (MAX_NUMBER + 1),
                };
                let nodes = 0..u64::from(nodes % 129).max(value.is_none().into());
                Message::Data(Data {
                    index: index % MAX_BLOCKS,
                    value: value.map(|length| Bytes::from(vec![1; length.into()])),
                    nodes: nodes.map(node).collect(),
                    signature: signature.then_some([2; 64]),
                })
            }
        }
    }
}

/// Names of extensions, of which the last but one comes after the last by its UTF-16 code units alone.
const NAMES: [&str; 8] = ["0", "1", "2", "3", "4", "5", "\u{fb00}", "\u{1f600}"];

fn names(bits: u8) -> Vec<String> {
    let names = NAMES.iter().enumerate();
    names
        .filter(|(bit, _)| bits >> bit & 1 == 1)
        .map(|(_, &name)| name.to_owned())
        .collect()
}

fn pick(channels: &[ChannelId], choice: u8) -> Option<ChannelId> {
    channels
        .get(usize::from(choice).checked_rem(channels.len())?)
        .copied()
}

/// What was sent between two honest sides and has not come yet.
#[derive(Default)]
struct Journal {
    /// The keys of the channels that each side has opened.
    keys: [BTreeMap<ChannelId, u8>; 2],
    /// Those that each side believes to be open.
    open: [BTreeSet<u8>; 2],
    /// Those on which each side has heard of the remote's extensions,
    heard: [BTreeSet<u8>; 2],
    /// and the names that each side takes itself, on a channel or on the stream.
    expected: [BTreeMap<Option<ChannelId>, Vec<String>>; 2],
    /// What each side has sent.
    under_way: [VecDeque<Sent>; 2],
    /// How many bytes of each side have come.
    carried: [usize; 2],
}

/// What somebody said.
struct Sent {
    /// The number of bytes with it.
    end: usize,
    key: u8,
    content: Content,
}

#[derive(Debug, PartialEq)]
enum Content {
    Open,
    Message(Message),
    Extension { name: String, payload: Bytes },
}

/// In the place of a key, for the stream itself.
const STREAM: u8 = u8::MAX;

impl Journal {
    fn opened(&mut self, session: &mut Session, side: usize, channel: ChannelId, key: u8) {
        if self.keys[side].insert(channel, key).is_some() {
            return;
        }
        self.sent(session, side, key, Content::Open);
        if session.is_open(channel) {
            // The remote was first. What it has said until now has gone by.
            self.is_open(side, key);
            assert_eq!(session.poll_event(), Some(Event::Opened { channel }));
        }
    }

    fn is_open(&mut self, side: usize, key: u8) {
        self.open[side].insert(key);
        self.heard[side].remove(&key);
    }

    fn closed(&mut self, side: usize, channel: ChannelId) {
        let key = self.keys[side][&channel];
        // What was closed before may have been opened again since.
        let mut newer = self.keys[side].range(channel..).skip(1);
        if newer.all(|(_, newer)| *newer != key) {
            self.open[side].remove(&key);
        }
    }

    fn sent(&mut self, session: &Session, side: usize, key: u8, content: Content) {
        let end = self.carried[side] + session.outgoing().len();
        self.under_way[side].push_back(Sent { end, key, content });
    }

    /// So many bytes of `from` came, and that is what the other side made of them.
    fn arrived(&mut self, from: usize, count: usize, events: Vec<Event>, error: Option<&Error>) {
        self.carried[from] += count;
        let to = 1 - from;
        for event in events {
            match event {
                Event::Opened { channel } => {
                    let key = self.keys[to][&channel];
                    self.came(from, key, &Content::Open);
                    self.is_open(to, key);
                }
                Event::Closed {
                    channel: Some(channel),
                    ..
                } => self.closed(to, channel),
                Event::Message { channel, message } => {
                    let key = self.keys[to][&channel];
                    let has_names = matches!(message, Message::Options(_));
                    self.came(from, key, &Content::Message(message));
                    if has_names {
                        self.heard[to].insert(key);
                    }
                }
                Event::Extension {
                    channel,
                    name,
                    payload,
                } => {
                    let key = channel.map_or(STREAM, |channel| self.keys[to][&channel]);
                    self.came(from, key, &Content::Extension { name, payload });
                }
                _ => {}
            }
        }
        while error.is_none()
            && let Some(sent) = self.next(from)
        {
            self.is_for_nobody(to, &sent);
        }
    }

    /// This came, after what is of no interest.
    fn came(&mut self, from: usize, key: u8, content: &Content) {
        loop {
            let sent = self.next(from).expect("somebody sent it");
            if sent.key == key && sent.content == *content {
                break;
            }
            self.is_for_nobody(1 - from, &sent);
        }
    }

    /// The next of what has come.
    fn next(&mut self, from: usize) -> Option<Sent> {
        let (carried, sent) = (self.carried[from], &mut self.under_way[from]);
        let has_come = sent.front().is_some_and(|sent| sent.end <= carried);
        has_come.then(|| sent.pop_front()).flatten()
    }

    /// It is of no interest on a channel that is not open, or of an extension that is not known, and lost
    /// on another.
    fn is_for_nobody(&self, to: usize, sent: &Sent) {
        let is_open = sent.key == STREAM || self.open[to].contains(&sent.key);
        let lost = match &sent.content {
            Content::Open => false,
            Content::Message(_) => is_open,
            Content::Extension { name, .. } => is_open && self.is_known(to, sent.key, name),
        };
        assert!(!lost, "lost: {:?}", sent.content);
    }

    /// Whether a side takes messages of an extension that the other has declared.
    fn is_known(&self, side: usize, key: u8, name: &str) -> bool {
        // The stream's are declared with the first message.
        let has_heard = key == STREAM || self.heard[side].contains(&key);
        let mut channels = self.keys[side].iter().rev();
        let channel = channels.find(|(_, of)| **of == key).map(|(id, _)| *id);
        let expected = self.expected[side].get(&channel);
        has_heard && expected.is_some_and(|names| names.iter().any(|it| it == name))
    }
}

/// Carries at most `max` bytes, changed on the way. Returns how many, and the receiver's events.
fn carry(
    sides: &mut [Session; 2],
    from: usize,
    max: usize,
    now: Instant,
    change: impl FnOnce(&mut Vec<u8>),
) -> (usize, Vec<Event>) {
    let bytes = sides[from].outgoing();
    let mut bytes = bytes[..max.min(bytes.len())].to_vec();
    let sent = bytes.len();
    sides[from].sent(now, sent);
    change(&mut bytes);
    let to = &mut sides[1 - from];
    let _ = to.receive(now, &bytes);
    (sent, std::iter::from_fn(|| to.poll_event()).collect())
}

fn exchange(sides: &mut [Session; 2], now: Instant) {
    let mut carry_all = |from| carry(sides, from, usize::MAX, now, |_| {}).0;
    while carry_all(0) + carry_all(1) > 0 {}
}

fn options(role: Role) -> SessionOptions {
    let seed = u8::from(role == Role::Initiator);
    SessionOptions::with_keys(role, StaticKeyPair::from_seed(&[seed; 32]), [seed; 24])
}

fn sessions(now: Instant, change: impl Fn(&mut SessionOptions)) -> [Session; 2] {
    [Role::Initiator, Role::Responder].map(|role| {
        let mut options = options(role);
        change(&mut options);
        let ephemeral = [2 + u8::from(role == Role::Initiator); 32];
        Session::with_fixed_ephemeral_for_testing_only(options, now, &ephemeral)
            .expect("no randomness is needed")
    })
}

const MEGABYTE: usize = 1 << 20;

const MAX_OPERATIONS: usize = 500;

#[cfg(test)]
mod tests {
    use std::path::Path;

    use proptest::prelude::*;

    use super::{Kind, Operation};

    fn replay(target: &str, body: fn(&[u8])) {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../fuzz/corpus")
            .join(target);
        let mut count = 0;
        for entry in std::fs::read_dir(&corpus).expect("the corpus is in the repository") {
            let path = entry.expect("a readable directory").path();
            body(&std::fs::read(&path).expect("a readable file"));
            count += 1;
        }
        assert!(count >= 10, "only {count} files in {}", corpus.display());
    }

    #[test]
    fn the_corpus_holds() {
        replay("wire_frame", super::wire_frame);
        replay("wire_message", super::wire_message);
        replay("wire_handshake", super::wire_handshake);
        replay("wire_session", super::wire_session);
        replay("wire_hostile", super::wire_hostile);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(3000))]

        #[test]
        fn generated_frames_hold(data in prop::collection::vec(any::<u8>(), 0..300)) {
            super::wire_frame(&data);
        }

        #[test]
        fn generated_messages_hold(data in prop::collection::vec(any::<u8>(), 2..200)) {
            super::wire_message(&data);
        }
    }

    fn kind() -> impl Strategy<Value = Kind> {
        // The longest is longer than what strangers may send.
        let length = prop_oneof![8 => 0..2000_u16, 1 => Just(u16::MAX - 1)];
        prop_oneof![
            any::<(u64, u64)>().prop_map(|(start, length)| Kind::Have { start, length }),
            any::<u64>().prop_map(|start| Kind::Want { start }),
            any::<(u32, u64)>().prop_map(|(index, nodes)| Kind::Request { index, nodes }),
            (any::<u32>(), length).prop_map(|(index, length)| Kind::Data {
                index,
                length: 1 + length
            }),
            any::<(u8, bool)>().prop_map(|(names, ack)| Kind::Options { names, ack }),
            any::<(bool, bool)>().prop_map(|(uploading, downloading)| Kind::Status {
                uploading,
                downloading
            }),
            any::<(u64, u64)>().prop_map(|(start, length)| Kind::Unhave { start, length }),
            any::<(u64, u64)>().prop_map(|(start, length)| Kind::Unwant { start, length }),
            any::<(u32, u64, bool)>().prop_map(|(index, bytes, hash)| Kind::Cancel {
                index,
                bytes,
                hash
            }),
            any::<(u64, u16, bool)>().prop_map(|(start, length, ack)| Kind::Bits {
                start,
                length,
                ack
            }),
            any::<(u64, u8, Option<u8>, bool)>().prop_map(|(index, nodes, value, signature)| {
                Kind::Proof {
                    index,
                    nodes,
                    value,
                    signature,
                }
            }),
        ]
    }

    /// What two honest sides do with two cores, so that both have opened one most of the time.
    fn honest_operation() -> impl Strategy<Value = Operation> {
        let options = any::<(u8, bool)>().prop_map(|(names, ack)| Kind::Options { names, ack });
        let message = (
            any::<bool>(),
            any::<u8>(),
            prop_oneof![3 => kind(), 1 => options],
        );
        let names = any::<(bool, u8)>();
        prop_oneof![
            4 => (any::<bool>(), 0..2_u8).prop_map(|(side, key)| Operation::Open { side, key }),
            1 => any::<(bool, u8)>().prop_map(|(side, channel)| Operation::Close { side, channel }),
            1 => (any::<bool>(), 0..2_u8).prop_map(|(side, key)| Operation::Reject { side, key }),
            8 => message.prop_map(|(side, channel, message)| Operation::Send { side, channel, message }),
            8 => (any::<bool>(), prop_oneof![8 => 0..300_u16, 1 => Just(u16::MAX)]).prop_map(|(side, max)| Operation::Carry { side, max }),
            4 => any::<(bool, Option<u8>, u8)>().prop_map(|(side, channel, name)| Operation::Extension {
                side,
                channel,
                name
            }),
            1 => names.prop_map(|(side, names)| Operation::Declare { side, names }),
            1 => any::<(bool, u8, u8)>().prop_map(|(side, channel, names)| Operation::Expect {
                side,
                channel,
                names
            }),
        ]
    }

    // Each of these takes some Diffie-Hellmans.
    proptest! {
        #![proptest_config(ProptestConfig::with_cases(500))]

        #[test]
        fn generated_handshakes_hold(data in prop::collection::vec(any::<u8>(), 0..40)) {
            super::wire_handshake(&data);
        }

        #[test]
        fn honest_sessions_hold(operations in prop::collection::vec(honest_operation(), 0..60)) {
            super::play(operations.into_iter());
        }

        #[test]
        fn generated_sessions_hold(data in prop::collection::vec(any::<u8>(), 0..400)) {
            super::wire_session(&data);
        }
    }
}
