//! One end of a connection, driven by hand.

use std::{collections::VecDeque, iter};

use bytes::Bytes;
use futures_lite::{AsyncReadExt, AsyncWriteExt, future::poll_once};
use hypercore_wire::{
    Body, Cancel, Close, Data, DataNode, Extension, Frame, Have, Limits, MAX_BLOCKS, Message,
    MessageStream, Open, Options, Received, Request, SecureStream, SessionOptions, StaticKeyPair,
    Status, Unhave, Unwant, Want,
};

use super::{CONDITIONS, OTHER, block, number, options};
use crate::{
    Error, Hypercore, ReplicationHandle, Role,
    extension::OWN,
    log::Sought,
    runtime::simulated::{
        Runtime,
        network::{Cable, Socket},
    },
};

/// What a peer is asked about at one time.
const REGION: u64 = 1 << 20;

/// A peer that knows the key, and where it is connected.
pub(super) struct Hostile {
    core: Hypercore,
    writer: Hypercore,
    /// The other end.
    remote: ReplicationHandle,
    socket: Socket,
    stream: SecureStream,
    /// What it opened last.
    channel: u32,
    /// It reads nothing.
    is_deaf: bool,
    /// What it was asked and has not answered.
    asked: VecDeque<Request>,
    /// True answers it has given.
    told: Vec<Data>,
}

impl Hostile {
    pub(super) fn new(runtime: &Runtime, core: &Hypercore, writer: &Hypercore, acks: bool) -> Self {
        let (_, [ours, theirs]) = Cable::new(runtime, [CONDITIONS; 2]);
        let replication = core.replicate(Role::Initiator, options(acks));
        let replication = replication.expect("an open core");
        let remote = replication.handle();
        runtime.spawn(async move {
            if let Err(error) = replication.run(ours).await {
                assert!(is_fair(&error), "its own fault: {error:?}");
            }
        });
        let key_pair = StaticKeyPair::from_seed(&[1; 32]);
        let mut session = SessionOptions::with_keys(Role::Responder, key_pair, [0; 24]);
        (session.noise, session.encrypted) = (false, false);
        let mut stream = SecureStream::new(&session).expect("no randomness is needed");
        stream.trust();
        let mut hostile = Self {
            core: core.clone(),
            writer: writer.clone(),
            remote,
            socket: theirs,
            stream,
            channel: 0,
            is_deaf: false,
            asked: VecDeque::new(),
            told: Vec::new(),
        };
        hostile.open();
        hostile
    }

    pub(super) fn act(&mut self, kind: u8, a: u8, b: u8, c: u8) {
        match kind {
            11 | 25 => {
                let kind = if kind == 11 { 10 } else { 8 };
                for more in 0..4 * u64::from(c) {
                    self.say(message(kind, a, b, c, more));
                }
            }
            // Those before it are answered with the truth.
            12 | 26.. => {
                for how in iter::repeat_n(0, a.into()).chain([b]) {
                    if let Some(request) = self.asked.pop_front() {
                        self.answer(&request, how, c);
                    }
                }
            }
            13 if !self.asked.is_empty() => {
                self.asked.rotate_left(usize::from(a) % self.asked.len())
            }
            14 => self.answer(&request(number(a), b >> 4, c), b, c),
            15 => {
                if let Some(data) = self.told.get(usize::from(a)) {
                    self.say(Message::Data(data.clone()));
                }
            }
            16 => {
                if let Some(request) = self.asked.pop_front() {
                    self.say(Message::Unhave(Unhave {
                        start: request.index,
                        length: a.into(),
                    }));
                }
            }
            17 => {
                let key = Some(*self.core.discovery_key().as_bytes());
                let discovery_key = key.filter(|_| a & 1 != 0);
                self.send(Body::Close(Close { discovery_key }));
            }
            18 => self.open(),
            19 => self.is_deaf = a & 1 != 0,
            20 => self.stream.ping(),
            _ => self.say(message(kind, a, b, c, 0)),
        }
    }

    /// Opens the log, on both sides.
    fn open(&mut self) {
        // The other side may be gone.
        let _ = self.remote.add(&self.core);
        self.channel += 1;
        self.send(Body::Open(Open {
            discovery_key: *self.core.discovery_key().as_bytes(),
            capability: None,
        }));
    }

    /// Answers a request with the truth, altered as `how` says.
    fn answer(&mut self, request: &Request, how: u8, with: u8) {
        let Some(mut data) = self.truth(request) else {
            return;
        };
        self.told.push(data.clone());
        alter(&mut data, how, with);
        self.say(Message::Data(data));
    }

    fn truth(&self, request: &Request) -> Option<Data> {
        let core = self.writer.shared().lock();
        let mut index = request.index;
        if request.bytes > 0
            && let Ok(Sought::Found { index: found, .. }) = core.log.seek(request.bytes)
        {
            index = found;
        }
        let proof = core.log.prove(index, request.nodes, None, request.hash);
        let proof = proof.expect("memory does not fail")?;
        let nodes = proof.nodes.iter().map(|node| DataNode {
            index: node.index.get(),
            hash: node.hash,
            size: node.size,
        });
        let signature = proof.signature;
        Some(Data {
            index,
            value: (!request.hash).then(|| block(index)),
            nodes: nodes.collect(),
            signature: signature.map(Into::into),
        })
    }

    fn say(&mut self, message: Message) {
        self.send(Body::Message(message));
    }

    fn send(&mut self, body: Body) {
        let channel = self.channel;
        let frame = Frame { channel, body };
        let encode = &mut |out: &mut _| frame.encode(out);
        let queued = self.stream.send(frame.encoded_length(), encode);
        queued.expect("there is no handshake to wait for");
    }

    /// Sends what is queued, as far as it is taken, and takes what came.
    pub(super) async fn exchange(&mut self) {
        while !self.stream.outgoing().is_empty() {
            let sent = poll_once(self.socket.write(self.stream.outgoing())).await;
            let Some(Ok(count)) = sent else {
                break;
            };
            self.stream.sent(count);
        }
        while !self.is_deaf {
            let read = poll_once(self.socket.read(self.stream.receive_buffer())).await;
            let Some(Ok(count @ 1..)) = read else {
                break;
            };
            self.stream.received(count).expect("all is polled");
            while let Some(received) = self.stream.poll().expect("it is honest") {
                if let Received::Frame(frame) = received {
                    self.hear(frame);
                }
            }
        }
    }

    fn hear(&mut self, frame: Bytes) {
        let frame = Frame::decode(frame, &Limits::default()).expect("it is honest");
        match frame.map(|frame| frame.body) {
            Some(Body::Message(Message::Request(request))) => self.asked.push_back(request),
            Some(Body::Message(Message::Data(data))) => {
                assert!(data.value.is_none_or(|value| value == block(data.index)));
            }
            Some(Body::Message(Message::Have(have))) => {
                let is_one = have.bitfield.is_none();
                assert!(!is_one || have.start + have.length <= self.writer.length());
            }
            _ => {}
        }
    }
}

/// Whether a connection may end so whose remote lies, is silent or leaves.
fn is_fair(error: &Error) -> bool {
    use hypercore_wire::Error::{FrameTooSlow, SendStalled, TimedOut, UnexpectedEnd};
    let is_lost = matches!(
        error,
        Error::Transport(_)
            | Error::Wire(
                FrameTooSlow { .. } | TimedOut { .. } | SendStalled { .. } | UnexpectedEnd
            )
    );
    is_lost || error.is_peer_fault()
}

/// A message of a kind that needs to know nothing, of `more` blocks further on.
fn message(kind: u8, a: u8, b: u8, c: u8, more: u64) -> Message {
    let (start, length) = ((number(a) + more) % MAX_BLOCKS, number(b));
    match kind {
        5 => Message::Have(Have {
            start,
            length,
            bitfield: None,
            ack: c & 1 != 0,
        }),
        6 => {
            let bitfield = Some(bitfield(b, c >> 1));
            let length = if c & 1 == 0 { REGION } else { length };
            Message::Have(Have {
                start,
                length,
                bitfield,
                ack: false,
            })
        }
        7 => Message::Unhave(Unhave { start, length }),
        8 => {
            let length = [REGION, 0, 8192, length][usize::from(c & 3)];
            let start = if c & 4 == 0 {
                (start << 13) % MAX_BLOCKS
            } else {
                start
            };
            Message::Want(Want { start, length })
        }
        9 => Message::Unwant(Unwant { start, length }),
        21 => {
            let Request {
                index, bytes, hash, ..
            } = request(start, b, c);
            Message::Cancel(Cancel { index, bytes, hash })
        }
        22 => Message::Status(Status {
            uploading: a & 1 == 0,
            downloading: a & 2 == 0,
        }),
        23 => {
            let names = OWN.into_iter().chain([OTHER, "more"]).enumerate();
            let names = names.filter(|(place, _)| a >> place & 1 == 0);
            let extensions = names.map(|(_, name)| name.to_owned()).collect();
            Message::Options(Options {
                extensions,
                ack: b & 1 != 0,
            })
        }
        24 => {
            let payload = vec![b; usize::from(c) * 260].into();
            Message::Extension(Extension {
                id: a.into(),
                payload,
            })
        }
        _ => Message::Request(request(start, b, c)),
    }
}

fn request(index: u64, how: u8, with: u8) -> Request {
    Request {
        index,
        bytes: if how & 1 != 0 { number(with) } else { 0 },
        hash: how & 2 != 0,
        nodes: [0, 1, u64::MAX, u64::from(with)][usize::from(how >> 2 & 3)],
    }
}

/// Run-length encoded: a run, bits as they are, both, or anything.
fn bitfield(count: u8, how: u8) -> Bytes {
    let [low, high] = [0x83 | count << 2, count >> 5];
    let bytes: &[u8] = match how % 4 {
        0 => &[low, high],
        1 => &[2, count],
        2 => &[2, count, low, high],
        _ => &[count, how],
    };
    Bytes::copy_from_slice(bytes)
}

/// Makes `data` untrue, unless `how` is one of those that do not.
fn alter(data: &mut Data, how: u8, with: u8) {
    let place = usize::from(with).checked_rem(data.nodes.len());
    let node = place.and_then(|place| data.nodes.get_mut(place));
    match how % 24 {
        1 => data.value = data.value.is_none().then(|| Bytes::from(vec![with])),
        2 => {
            data.value = data
                .value
                .take()
                .map(|value| [&value[..], &[with]].concat().into())
        }
        3 => data.value = Some(block(with.into())),
        4 => data.index = number(with),
        5 => data.signature = None,
        6 => data.signature = Some([with; 64]),
        7 => data
            .signature
            .iter_mut()
            .for_each(|it| it[usize::from(with % 64)] ^= 1 << (with >> 6)),
        8 => data.nodes.clear(),
        9 => data.nodes.reverse(),
        10 => data.nodes.truncate(place.unwrap_or(0)),
        11 => {
            if let Some(place) = place {
                data.nodes.remove(place);
            }
        }
        12 => data
            .nodes
            .extend(data.nodes.clone().get(place.unwrap_or(0))),
        13 => data.nodes.push(DataNode {
            index: number(with),
            hash: [with; 32],
            size: with.into(),
        }),
        14 => node
            .into_iter()
            .for_each(|node| node.hash[usize::from(with % 32)] ^= 1),
        15 => node.into_iter().for_each(|node| node.size += 1),
        16 => node.into_iter().for_each(|node| node.size = number(with)),
        17 => node
            .into_iter()
            .for_each(|node| node.index ^= u64::from(with)),
        // Together they are as long as they were.
        18 => {
            if let [first, second, ..] = &mut data.nodes[place.unwrap_or(0)..]
                && let Some(size) = first.size.checked_sub(1)
            {
                (first.size, second.size) = (size, second.size + 1);
            }
        }
        _ => {}
    }
}
