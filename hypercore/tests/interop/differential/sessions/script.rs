//! What the peer says: the same for the same seed.

use std::fmt;

use bytes::BytesMut;
use hypercore::wire::{Body, Data, Frame, Limits, Message, Open, Want};

use super::super::random::Random;
use super::logs::{Logs, Role};
use super::writing::Writing;

/// The discovery key of a log that is not there.
pub(super) const STRANGER: [u8; 32] = [3; 32];

/// The Want that ends a script is for blocks that nobody has.
pub(super) const SENTINEL: Want = Want {
    start: 7 << 13,
    length: 8192,
};

/// What is in one frame.
#[derive(Clone)]
pub(super) enum Item {
    Open(Opening),
    Frame(Frame),
    /// A frame that may be none.
    Raw(Vec<u8>),
    KeepAlive,
}

/// An Open, whose capability depends on the connection.
#[derive(Clone, Debug)]
pub(super) struct Opening {
    pub(super) channel: u32,
    pub(super) discovery_key: [u8; 32],
    pub(super) capability: Capability,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Capability {
    True,
    False,
    None,
}

impl Item {
    /// The bytes of the frame, `capability` being the true one; `None` for a keep-alive.
    pub(super) fn frame(&self, capability: [u8; 32]) -> Option<Vec<u8>> {
        let frame = match self {
            Self::KeepAlive => return None,
            Self::Raw(bytes) => return Some(bytes.clone()),
            Self::Frame(frame) => frame.clone(),
            Self::Open(open) => Frame {
                channel: open.channel,
                body: Body::Open(Open {
                    discovery_key: open.discovery_key,
                    capability: match open.capability {
                        Capability::True => Some(capability),
                        Capability::False => Some([9; 32]),
                        Capability::None => None,
                    },
                }),
            },
        };
        let mut bytes = BytesMut::new();
        frame.encode(&mut bytes);
        Some(bytes.to_vec())
    }

    /// The same, where it does not matter what the capability is.
    pub(super) fn bytes(&self) -> Option<Vec<u8>> {
        self.frame([0; 32])
    }

    /// What we read of it, if it can be read.
    pub(super) fn read(&self) -> Option<Frame> {
        Frame::decode(self.bytes()?.into(), &Limits::default()).ok()?
    }

    /// The message in it, unless it is an Open or a Close.
    pub(super) fn message(&self) -> Option<Message> {
        match self.read()?.body {
            Body::Message(message) => Some(message),
            _ => None,
        }
    }
}

/// Short, as most of it is hashes.
impl fmt::Debug for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::KeepAlive => f.write_str("KeepAlive"),
            Self::Raw(bytes) => write!(f, "Raw({})", hex::encode(bytes)),
            Self::Open(open) => {
                let is_stranger = open.discovery_key == STRANGER;
                let Opening {
                    channel,
                    capability,
                    ..
                } = open;
                write!(
                    f,
                    "Open({channel}, {capability:?}, stranger: {is_stranger})"
                )
            }
            Self::Frame(Frame { channel, body }) => match body {
                Body::Message(Message::Data(data)) => {
                    let nodes: Vec<_> = data
                        .nodes
                        .iter()
                        .map(|node| (node.index, node.size))
                        .collect();
                    let Data {
                        index,
                        value,
                        signature,
                        ..
                    } = data;
                    let (length, signed) = (value.as_ref().map(|it| it.len()), signature.is_some());
                    write!(
                        f,
                        "{channel} Data({index}, {length:?}, {nodes:?}, signed: {signed})"
                    )
                }
                Body::Message(message) => write!(f, "{channel} {message:?}"),
                body => write!(f, "{channel} {body:?}"),
            },
        }
    }
}

/// What is sent together.
pub(super) type Step = Vec<Item>;

#[derive(Debug)]
pub(super) struct Script {
    pub(super) role: Role,
    /// The blocks that the side under test waits for.
    pub(super) gets: Vec<u64>,
    pub(super) steps: Vec<Step>,
}

impl Script {
    pub(super) fn new(seed: u64, logs: &Logs) -> Self {
        let mut random = Random::seeded(seed);
        let role = random.one_of(&Role::ALL);
        let mut missing: Vec<_> = (0..logs.length()).collect();
        missing.retain(|index| !role.blocks().contains(index));
        let gets = (0..random.below(7).min(missing.len()))
            .map(|_| missing.remove(random.below(missing.len())))
            .collect();
        let mut writing = Writing {
            logs,
            role,
            gets,
            random,
        };
        let steps = writing.steps();
        Self {
            role,
            gets: writing.gets,
            steps,
        }
    }

    /// The same with no two items in one step.
    pub(super) fn one_by_one(&self) -> Self {
        let items = self.steps.iter().flatten();
        Self {
            role: self.role,
            gets: self.gets.clone(),
            steps: items.map(|item| vec![item.clone()]).collect(),
        }
    }
}
