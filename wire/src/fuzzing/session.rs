//! Two honest sessions, and what they do with each other.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::{Duration, Instant},
};

use arbitrary::{Arbitrary, Unstructured};
use bytes::Bytes;

use super::{MEGABYTE, carry, exchange, sessions};
use crate::{
    Cancel, ChannelId, Data, DataNode, Error, Event, Have, MAX_BLOCKS, MAX_NUMBER, Message,
    Options, Request, Session, Status, Unhave, Unwant, Want, discovery_key,
};

const MAX_OPERATIONS: usize = 500;

/// What the two sides of [`wire_session`] do.
#[derive(Arbitrary, Debug)]
pub(super) enum Operation {
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
pub(super) enum Kind {
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

pub(super) fn play(operations: impl Iterator<Item = Operation>) {
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
