//! What the tests share: recorded vectors, and two sessions with a link and a clock of their own.

use std::path::Path;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use hypercore_wire::{
    Body, Close, Data, Error, Event, Frame, Limits, Message, Open, Role, Session, SessionOptions,
    StaticKeyPair, discovery_key,
};
use serde_json::{Value, json};

pub(crate) fn vectors(name: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/vectors")
        .join(name);
    let text = std::fs::read_to_string(&path).expect("the vectors are in the repository");
    serde_json::from_str(&text).expect("the vectors are JSON")
}

pub(crate) fn list(value: &Value) -> &[Value] {
    let list = value.as_array().expect("a list");
    assert!(!list.is_empty(), "an empty list proves nothing");
    list
}

pub(crate) fn text(value: &Value) -> &str {
    value
        .as_str()
        .unwrap_or_else(|| panic!("{value} is not a string"))
}

pub(crate) fn bytes(value: &Value) -> Vec<u8> {
    hex::decode(text(value)).expect("hexadecimal digits")
}

/// The first bytes of a value; JS writes some keys with their counter behind them.
pub(crate) fn array<const N: usize>(value: &Value) -> [u8; N] {
    bytes(value)[..N].try_into().expect("enough bytes")
}

/// A body as the vectors write what Node decoded.
pub(crate) fn to_json(body: &Body) -> Value {
    let hex = |bytes: &[u8]| json!({ "hex": hex::encode(bytes) });
    let option = |bytes: Option<&[u8]>| bytes.map_or(Value::Null, hex);
    match body {
        Body::Open(open) => json!({
            "discoveryKey": hex(&open.discovery_key),
            "capability": option(open.capability.as_ref().map(|bytes| &bytes[..])),
        }),
        Body::Close(close) => json!({
            "discoveryKey": option(close.discovery_key.as_ref().map(|bytes| &bytes[..])),
        }),
        Body::Message(message) => match message {
            Message::Options(m) => json!({ "extensions": m.extensions, "ack": m.ack }),
            Message::Status(m) => {
                json!({ "uploading": m.uploading, "downloading": m.downloading })
            }
            Message::Have(m) => json!({
                "start": m.start,
                "length": m.length,
                "bitfield": option(m.bitfield.as_deref()),
                "ack": m.ack,
            }),
            Message::Unhave(m) => json!({ "start": m.start, "length": m.length }),
            Message::Want(m) => json!({ "start": m.start, "length": m.length }),
            Message::Unwant(m) => json!({ "start": m.start, "length": m.length }),
            Message::Request(m) => json!({
                "index": m.index, "bytes": m.bytes, "hash": m.hash, "nodes": m.nodes,
            }),
            Message::Cancel(m) => json!({ "index": m.index, "bytes": m.bytes, "hash": m.hash }),
            Message::Data(m) => json!({
                "index": m.index,
                "value": option(m.value.as_deref()),
                "nodes": m.nodes.iter().map(|node| json!({
                    "index": node.index, "hash": hex(&node.hash), "size": node.size,
                })).collect::<Vec<_>>(),
                "signature": option(m.signature.as_ref().map(|bytes| &bytes[..])),
            }),
            Message::Extension(m) => json!({ "id": m.id, "message": hex::encode(&m.payload) }),
        },
    }
}

/// A frame with its length before it, as it goes over the wire.
pub(crate) fn framed(frame: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut length = frame.len();
    while length >= 0x80 {
        out.push(length as u8 | 0x80);
        length >>= 7;
    }
    out.push(length as u8);
    out.extend_from_slice(frame);
    out
}

pub(crate) fn encoded(channel: u32, body: Body) -> Vec<u8> {
    let mut out = BytesMut::new();
    Frame { channel, body }.encode(&mut out);
    framed(&out)
}

/// A frame of any type with a body of our choice.
pub(crate) fn raw(channel: u32, kind: u8, body: &[u8]) -> Vec<u8> {
    let mut header = u64::from(channel) << 4 | u64::from(kind);
    let mut frame = Vec::new();
    while header >= 0x80 {
        frame.push(header as u8 | 0x80);
        header >>= 7;
    }
    frame.push(header as u8);
    frame.extend_from_slice(body);
    framed(&frame)
}

pub(crate) fn open_frame(channel: u32, key: &[u8; 32]) -> Vec<u8> {
    let open = Open {
        discovery_key: discovery_key(key),
        capability: None,
    };
    encoded(channel, Body::Open(open))
}

pub(crate) fn close_frame(channel: u32, discovery_key: Option<[u8; 32]>) -> Vec<u8> {
    encoded(channel, Body::Close(Close { discovery_key }))
}

pub(crate) fn message_frame(channel: u32, message: Message) -> Vec<u8> {
    encoded(channel, Body::Message(message))
}

/// Splits what a side sent in clear into its frames.
pub(crate) fn frames(mut bytes: &[u8]) -> Vec<Frame> {
    let mut frames = Vec::new();
    while !bytes.is_empty() {
        let prefix = bytes
            .iter()
            .position(|byte| *byte < 0x80)
            .expect("a whole varint")
            + 1;
        let length = bytes[..prefix].iter().rev().fold(0usize, |length, byte| {
            length << 7 | usize::from(byte & 0x7f)
        });
        let (frame, rest) = bytes[prefix..].split_at(length);
        bytes = rest;
        if length > 0 {
            let frame = Bytes::copy_from_slice(frame);
            frames.extend(Frame::decode(frame, &Limits::default()).expect("our own frame"));
        }
    }
    frames
}

pub(crate) fn options(role: Role) -> SessionOptions {
    let seed = [u8::from(role == Role::Initiator); 32];
    SessionOptions::with_keys(role, StaticKeyPair::from_seed(&seed), [seed[0] + 1; 24])
}

/// A session without Noise, to which a test can say anything.
pub(crate) fn plain(now: Instant, change: impl FnOnce(&mut SessionOptions)) -> Session {
    let mut options = options(Role::Responder);
    (options.noise, options.encrypted) = (false, false);
    change(&mut options);
    Session::new(options, now).expect("no randomness is needed")
}

/// A plain session with channel 1 open on both sides.
pub(crate) fn plain_open(now: Instant, change: impl FnOnce(&mut SessionOptions)) -> Session {
    let mut session = plain(now, change);
    let channel = session.open(&KEY).expect("the first channel");
    session
        .receive(now, &open_frame(1, &KEY))
        .expect("an honest Open");
    assert_eq!(session.poll_event(), Some(Event::Opened { channel }));
    take(&mut session, now);
    session
}

pub(crate) const KEY: [u8; 32] = [7; 32];

pub(crate) fn events(session: &mut Session) -> Vec<Event> {
    std::iter::from_fn(|| session.poll_event()).collect()
}

/// Takes all bytes a session wants to send.
pub(crate) fn take(session: &mut Session, now: Instant) -> Vec<u8> {
    let bytes = session.outgoing().to_vec();
    session.sent(now, bytes.len());
    bytes
}

/// Gives bytes to a session and polls its events: the error, whenever it shows, comes last.
pub(crate) fn give(
    session: &mut Session,
    now: Instant,
    bytes: &[u8],
) -> (Vec<Event>, Result<(), Error>) {
    let result = session.receive(now, bytes);
    let events = events(session);
    (
        events,
        result.and_then(|()| session.error().cloned().map_or(Ok(()), Err)),
    )
}

/// Two sessions, the link between them and the time there.
pub(crate) struct Pair {
    pub(crate) sides: [Session; 2],
    pub(crate) events: [Vec<Event>; 2],
    pub(crate) now: Instant,
}

impl Pair {
    pub(crate) fn new(change: impl Fn(&mut SessionOptions)) -> Self {
        let now = Instant::now();
        let side = |role| {
            let mut options = options(role);
            change(&mut options);
            let ephemeral = [3 + u8::from(role == Role::Initiator); 32];
            Session::with_fixed_ephemeral_for_testing_only(options, now, &ephemeral)
                .expect("no randomness is needed")
        };
        Self {
            sides: [Role::Initiator, Role::Responder].map(side),
            events: [vec![], vec![]],
            now,
        }
    }

    /// Carries one chunk of at most `max` bytes from a side to the other, and says how many.
    pub(crate) fn carry(&mut self, from: usize, max: usize) -> usize {
        let bytes = self.sides[from].outgoing();
        let bytes = bytes[..max.min(bytes.len())].to_vec();
        self.sides[from].sent(self.now, bytes.len());
        self.sides[1 - from]
            .receive(self.now, &bytes)
            .expect("an honest remote");
        self.poll();
        bytes.len()
    }

    pub(crate) fn poll(&mut self) {
        for (session, list) in self.sides.iter_mut().zip(&mut self.events) {
            list.extend(events(session));
        }
    }

    /// Carries everything both ways until both are silent.
    pub(crate) fn drive(&mut self) {
        while self.carry(0, usize::MAX) + self.carry(1, usize::MAX) > 0 {}
    }

    /// Lets time pass, with everything that becomes due in it.
    pub(crate) fn pass(&mut self, time: Duration) -> Result<(), Error> {
        let end = self.now + time;
        loop {
            let due = self.sides.iter().filter_map(Session::poll_timeout).min();
            let Some(due) = due.filter(|due| *due <= end) else {
                break;
            };
            self.now = self.now.max(due);
            for side in &mut self.sides {
                side.handle_timeout(self.now)?;
            }
            self.drive();
        }
        self.now = end;
        Ok(())
    }
}

/// Sends until the send buffer, of 10,000 bytes, is full. Returns how many are in it.
pub(crate) fn fill(session: &mut Session) -> usize {
    let channel = session.open(&KEY).expect("a channel");
    let value = Some(Bytes::from(vec![0; 1000]));
    let data = Message::Data(Data {
        value,
        ..Data::default()
    });
    for _ in 0..1000 {
        match session.send(channel, &data) {
            Ok(()) => {}
            Err(Error::SendBufferFull { buffered, max }) => {
                assert!(max == 10_000 && buffered > max);
                return session.buffered();
            }
            Err(error) => panic!("{error}"),
        }
    }
    panic!("the send buffer has no end");
}
