//! The peer that both sides get: a script, and ears.

use std::collections::BTreeSet;

use hypercore::Bytes;
use hypercore::wire::{
    Body, Data, Direction, Error, Frame, Have, Limits, Message, MessageStream, Received, Role,
    SecureStream, SessionOptions, StaticKeyPair,
};

use super::script::{Item, Step};

/// What a side said in one step.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Said {
    /// In the order of their encoding.
    pub(super) data: Vec<Data>,
    /// Those that answer a Want or acknowledge a Data, in that order too. Others may be joined.
    pub(super) haves: Vec<Have>,
    /// The blocks that it has asked for, now or before.
    pub(super) asked: BTreeSet<u64>,
    /// Why the rest cannot be read.
    pub(super) error: Option<Error>,
}

pub(super) struct Peer {
    stream: SecureStream,
    asked: BTreeSet<u64>,
}

impl Peer {
    pub(super) fn new() -> Self {
        let keys = StaticKeyPair::from_seed(&[1; 32]);
        let options = SessionOptions::with_keys(Role::Initiator, keys, [1; 24]);
        let mut stream = SecureStream::new(&options).expect("keys that are known");
        stream.trust();
        Self {
            stream,
            asked: BTreeSet::new(),
        }
    }

    /// What it has to say.
    pub(super) fn flight(&mut self) -> Vec<u8> {
        let bytes = self.stream.outgoing().to_vec();
        self.stream.sent(bytes.len());
        bytes
    }

    /// The bytes of a step, once the handshake is over.
    pub(super) fn encode(&mut self, key: &[u8; 32], step: &Step) -> Vec<u8> {
        let capability = self.stream.capability(key, Direction::Send);
        let capability = capability.expect("the handshake is over");
        for item in step {
            match item.frame(capability) {
                Some(frame) => self
                    .stream
                    .send(frame.len(), &mut |out| out.extend_from_slice(&frame))
                    .expect("the handshake is over"),
                None => self.stream.ping(),
            }
        }
        self.flight()
    }

    /// What a side has said.
    pub(super) fn hear(&mut self, mut bytes: &[u8]) -> Said {
        let mut said = Said::default();
        while !bytes.is_empty() {
            let spare = self.stream.receive_buffer();
            let (now, later) = bytes.split_at(spare.len().min(bytes.len()));
            spare[..now.len()].copy_from_slice(now);
            self.stream.received(now.len()).expect("all is polled");
            bytes = later;
            match self.poll(&mut said) {
                Ok(()) => {}
                Err(error) => {
                    said.error = Some(error);
                    break;
                }
            }
        }
        said.data.sort_by_cached_key(|data| encoding(data.clone()));
        said.haves.sort_by_cached_key(|have| encoding(have.clone()));
        said.asked = self.asked.clone();
        said
    }

    fn poll(&mut self, said: &mut Said) -> Result<(), Error> {
        while let Some(received) = self.stream.poll()? {
            if let Received::Frame(frame) = received {
                self.note(Frame::decode(frame, &Limits::default())?, said);
            }
        }
        Ok(())
    }

    fn note(&mut self, frame: Option<Frame>, said: &mut Said) {
        match frame.map(|frame| frame.body) {
            Some(Body::Message(Message::Data(data))) => said.data.push(data),
            Some(Body::Message(Message::Have(have))) if have.bitfield.is_some() || have.ack => {
                said.haves.push(have);
            }
            Some(Body::Message(Message::Request(it))) if !it.hash && it.bytes == 0 => {
                self.asked.insert(it.index);
            }
            _ => {}
        }
    }
}

fn encoding(message: impl Into<Message>) -> Bytes {
    let body = Body::Message(message.into());
    let frame = Frame { channel: 0, body };
    Item::Frame(frame).bytes().unwrap_or_default().into()
}
