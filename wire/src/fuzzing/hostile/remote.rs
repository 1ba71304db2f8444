//! The other end of the connection, driven by hand.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::LazyLock,
};

use bytes::{BufMut, Bytes, BytesMut};

use super::{LIMITS, LOGS, key, name};
use crate::{
    Body, Cancel, Close, Data, DataNode, Direction, Extension, Frame, Have, Message, MessageStream,
    Open, Options, Request, Role, SecureStream, SessionOptions, StaticKeyPair, Status, Unhave,
    Unwant, Want,
};

/// Who says what it likes, and what it has said and heard.
pub(super) struct Remote {
    pub(super) stream: SecureStream,
    /// The number of its next channel, if it is honest.
    next: u32,
    /// Those of which it proved at some time to know the keys, by discovery key.
    pub(super) proven: BTreeSet<[u8; 32]>,
    /// The number of the last Open of each, and whether it proved that and is not closed.
    pub(super) last: BTreeMap<[u8; 32], (u32, bool)>,
    /// Those opened with proof and not closed since, by either side.
    pub(super) standing: BTreeSet<[u8; 32]>,
    /// What it has opened under which number; nothing if it was more than one.
    numbers: BTreeMap<u32, Option<[u8; 32]>>,
    pub(super) opens: usize,
    /// Whether it has used a number or a discovery key twice, and whether it gave no proof.
    pub(super) is_twice: bool,
    pub(super) is_wrong: bool,
    pub(super) has_closed: bool,
    pub(super) pings: u32,
    /// The messages that may still come.
    pub(super) messages: VecDeque<Message>,
    pub(super) is_invalid: bool,
    pub(super) longest: usize,
    /// Whether what it says is no sequence of frames any more.
    pub(super) is_confused: bool,
    /// The session's channels and whether they are open.
    pub(super) heard: BTreeMap<u32, bool>,
    /// Discovery keys that the session has rejected.
    pub(super) refused: Vec<[u8; 32]>,
    /// Keep-alives that the session has sent and that have not come.
    pub(super) due_pings: usize,
}

impl Remote {
    pub(super) fn key_pair() -> &'static StaticKeyPair {
        static KEY_PAIR: LazyLock<StaticKeyPair> =
            LazyLock::new(|| StaticKeyPair::from_seed(&[2; 32]));
        &KEY_PAIR
    }

    pub(super) fn new(settings: u8) -> Self {
        let role = [Role::Initiator, Role::Responder][usize::from(settings >> 1 & 1)];
        let mut options = SessionOptions::with_keys(role, Self::key_pair().duplicate(), [2; 24]);
        options.encrypted = settings & 4 == 0;
        let stream = SecureStream::with_ephemeral(&options, Some(&[4; 32]));
        Self {
            stream: stream.expect("no randomness is needed"),
            next: 100,
            proven: BTreeSet::new(),
            last: BTreeMap::new(),
            standing: BTreeSet::new(),
            numbers: BTreeMap::new(),
            opens: 0,
            is_twice: false,
            is_wrong: false,
            has_closed: false,
            pings: 0,
            messages: VecDeque::new(),
            is_invalid: false,
            longest: 0,
            is_confused: false,
            heard: BTreeMap::new(),
            refused: Vec::new(),
            due_pings: 0,
        }
    }

    pub(super) fn act(&mut self, kind: u8, a: u8, b: u8, c: u8) {
        match kind {
            0..6 => {
                let log = a % (LOGS + 2);
                let capability = self.capability(log, c);
                let number = self.number(b);
                self.open(number, name(log), capability);
            }
            6 | 7 => {
                self.has_closed = true;
                self.standing.clear();
                let discovery_key = (c & 1 == 1).then(|| name(a % (LOGS + 2)));
                let channel = self.number(b);
                let closed = self.numbers.get(&channel).copied();
                if let Some(closed) = closed.unwrap_or(discovery_key)
                    && let Some((number, is_right)) = self.last.get_mut(&closed)
                {
                    // It names the channel only if the number is of none.
                    *is_right &= *number != channel && self.numbers.contains_key(&channel);
                }
                self.say(channel, Body::Close(Close { discovery_key }));
            }
            8..13 => {
                let channel = if c & 1 == 0 {
                    self.next - 1
                } else {
                    self.number(b)
                };
                self.say(channel, Body::Message(message(a, c >> 1)));
            }
            13 => {
                for _ in 0..=a % 16 {
                    self.pings += 1;
                    self.stream.ping();
                }
            }
            14 => {
                // A type that nobody knows, and nobody minds.
                let channel = self.number(b) & 0x7ff_ffff;
                let header = u64::from(channel) << 4 | u64::from(11 + a % 4);
                let length = crate::varint::length(header) + usize::from(c);
                self.push(length, |out| {
                    crate::varint::write(header, out);
                    out.put_bytes(c, c.into());
                });
            }
            15 => {
                for index in 0..=a % 16 {
                    let number = self.next;
                    self.next += 1;
                    self.open(
                        number,
                        [b | 0x40, index].repeat(16).try_into().unwrap(),
                        None,
                    );
                }
            }
            _ => self.confuse(a, b, c),
        }
    }

    /// The proof, or what could be taken for it.
    fn capability(&self, log: u8, choice: u8) -> Option<[u8; 32]> {
        let make = |log, direction| self.stream.capability(&key(log), direction);
        let right = make(log, Direction::Send);
        match choice % 8 {
            0..3 => right,
            3 => make(log, Direction::Receive),
            4 => make(log + 1, Direction::Send),
            5 => right.map(|mut right| {
                right[usize::from(choice >> 3)] ^= 1;
                right
            }),
            _ => None,
        }
    }

    /// One that is in use, or may be; the next; or one that there cannot be.
    fn number(&mut self, choice: u8) -> u32 {
        match choice {
            0..64 => u32::from(choice % 8),
            64..128 => self.next - u32::from(choice % 8),
            128..250 => u32::from(choice),
            250 => LIMITS.channel_number,
            251 => LIMITS.channel_number + 1,
            252 => (1 << 27) - 1,
            253.. => {
                self.next += 1;
                self.next - 1
            }
        }
    }

    fn open(&mut self, number: u32, name: [u8; 32], capability: Option<[u8; 32]>) {
        let log = (0..LOGS).find(|log| self::name(*log) == name);
        let right = log.and_then(|log| self.capability(log, 0));
        let is_right = right.is_some() && right == capability;
        self.opens += 1;
        let is_used = self.numbers.contains_key(&number);
        self.numbers.insert(number, (!is_used).then_some(name));
        self.is_twice |= is_used || self.last.contains_key(&name);
        self.is_wrong |= !is_right;
        self.last.insert(name, (number, is_right));
        if is_right {
            self.proven.insert(name);
            self.standing.insert(name);
        }
        let open = Open {
            discovery_key: name,
            capability,
        };
        self.say(number, Body::Open(open));
    }

    fn say(&mut self, channel: u32, body: Body) {
        let bytes = encoded(channel, body);
        match Frame::decode(bytes.clone(), &LIMITS) {
            Ok(Some(Frame {
                body: Body::Message(message),
                ..
            })) => {
                if let Message::Extension(Extension { payload, .. }) = &message {
                    self.is_invalid |= payload.len() > LIMITS.extension_message;
                }
                self.messages.push_back(message);
            }
            Ok(_) => {}
            Err(_) => self.is_invalid = true,
        }
        self.push(bytes.len(), |out| out.put_slice(&bytes));
    }

    /// What comes after it is not where the session thinks.
    fn confuse(&mut self, a: u8, b: u8, c: u8) {
        self.is_confused = true;
        let length = usize::from(u16::from_le_bytes([b, c]));
        match a % 4 {
            // A frame without an end,
            0 => self.push(length.max(1), |out| out.put_u8(b)),
            // one with a length or with a header without an end,
            1 => self.push(0, |out| out.put_bytes(0xff, b.into())),
            2 => self.push(1, |out| out.put_u8(0x80 | b)),
            // and one that ends early.
            _ => self.push(1, |out| out.put_bytes(b, c.into())),
        }
    }

    fn push(&mut self, length: usize, write: impl Fn(&mut BytesMut)) {
        self.longest = self.longest.max(length);
        let sent = self.stream.send(length, &mut |out| write(out));
        sent.expect("the handshake is over");
    }

    /// Takes what was said from what may still come, with all that was said before.
    pub(super) fn said(&mut self, is: impl Fn(&Message) -> bool) {
        let place = self.messages.iter().position(is);
        match place {
            Some(place) => _ = self.messages.drain(..=place),
            None => assert!(self.is_confused, "nobody said that"),
        }
    }
}

pub(super) fn encoded(channel: u32, body: Body) -> Bytes {
    let frame = Frame { channel, body };
    let mut bytes = BytesMut::with_capacity(frame.encoded_length());
    frame.encode(&mut bytes);
    bytes.freeze()
}

pub(super) fn names(bits: u8) -> Vec<String> {
    let set = (0..8).filter(|name| bits >> name & 1 == 1);
    set.map(|name| name.to_string()).collect()
}

/// A message of any kind, whose numbers may be too large.
pub(super) fn message(kind: u8, choice: u8) -> Message {
    let number = match choice {
        0..96 => u64::from(choice),
        96..128 => 1 << (choice - 66),
        128.. => u64::from(choice) << 10,
    };
    match kind % 10 {
        0 => Message::Options(Options {
            extensions: names(choice),
            ack: choice & 1 == 1,
        }),
        1 => Message::Status(Status {
            uploading: choice & 1 == 1,
            downloading: choice & 2 == 2,
        }),
        2 => Message::Have(Have {
            length: number,
            bitfield: (kind & 0x80 != 0).then(|| Bytes::from(vec![choice; choice.into()])),
            ack: kind & 0x40 != 0,
            ..Have::block(number)
        }),
        3 => Message::Unhave(Unhave {
            start: number,
            length: number,
        }),
        4 => Message::Want(Want {
            start: number,
            length: 1,
        }),
        5 => Message::Unwant(Unwant {
            start: number,
            length: 0,
        }),
        6 => Message::Request(Request {
            index: number,
            nodes: number,
            ..Request::default()
        }),
        7 => Message::Cancel(Cancel {
            index: number,
            ..Cancel::default()
        }),
        8 => {
            let node = DataNode {
                index: number,
                hash: [choice; 32],
                size: number,
            };
            let length = usize::from(choice) * if kind & 0x80 == 0 { 1 } else { 40 };
            Message::Data(Data {
                index: number,
                value: (kind & 0x40 == 0).then(|| Bytes::from(vec![choice; length])),
                nodes: vec![node; usize::from(choice % 5)],
                signature: (choice & 8 != 0).then_some([choice; 64]),
            })
        }
        _ => Message::Extension(Extension {
            id: (choice % 5).into(),
            payload: Bytes::from(vec![choice; usize::from(choice) * 3]),
        }),
    }
}
