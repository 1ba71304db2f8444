//! The two that read: our decoders, and Node's in a process of their own.

use hypercore::Bytes;
use hypercore::bitfield::rle;
use hypercore::wire::{
    Body, Error, Frame, Limits, Message, Received, Role, SecureStream, SessionOptions,
    StaticKeyPair,
};
use serde_json::{Value, json};

use crate::stage::{Process, Stage};

/// The most bytes of a decoded bitfield (`decode.js` has the same).
pub(super) const MAX_BITS: usize = 1 << 16;

/// What we read of a stream in clear.
#[derive(Debug, Default)]
pub(super) struct Ours {
    pub(super) messages: Vec<Value>,
    /// Why nothing more was read.
    pub(super) error: Option<Error>,
    /// The frame of each message, and the one that was refused.
    pub(super) frames: Vec<Bytes>,
}

impl Ours {
    pub(super) fn read(input: &[u8]) -> Self {
        let mut reading = Self::default();
        reading.error = reading.read_all(input).err();
        reading
    }

    fn read_all(&mut self, mut input: &[u8]) -> Result<(), Error> {
        let keys = StaticKeyPair::from_seed(&[1; 32]);
        let mut options = SessionOptions::with_keys(Role::Initiator, keys, [1; 24]);
        (options.noise, options.encrypted) = (false, false);
        let mut stream = SecureStream::new(&options)?;
        stream.trust();
        loop {
            while let Some(frame) = next(&mut stream)? {
                self.frames.push(frame.clone());
                match Frame::decode(frame, &Limits::default())? {
                    Some(frame) => self.messages.push(describe(frame)),
                    // Of a type that nobody knows: both leave it out.
                    None => drop(self.frames.pop()),
                }
            }
            if input.is_empty() {
                return Ok(());
            }
            let spare = stream.receive_buffer();
            let (now, later) = input.split_at(spare.len().min(input.len()));
            spare[..now.len()].copy_from_slice(now);
            stream.received(now.len())?;
            input = later;
        }
    }
}

/// What Node read of it.
#[derive(Debug)]
pub(super) struct Theirs {
    pub(super) messages: Vec<Value>,
    pub(super) error: Option<String>,
}

impl Theirs {
    pub(super) fn new(result: &Value) -> Self {
        Self {
            messages: result["messages"].as_array().expect("a list").clone(),
            error: result["error"].as_str().map(str::to_owned),
        }
    }
}

fn next(stream: &mut SecureStream) -> Result<Option<Bytes>, Error> {
    loop {
        match stream.poll()? {
            Some(Received::Frame(frame)) => return Ok(Some(frame)),
            Some(_) => {}
            None => return Ok(None),
        }
    }
}

/// A message as `decode.js` tells it.
fn describe(frame: Frame) -> Value {
    let (number, message) = match frame.body {
        Body::Open(open) => {
            let capability = open.capability.map(hex::encode);
            let discovery_key = hex::encode(open.discovery_key);
            (
                0,
                json!({"discoveryKey": discovery_key, "capability": capability}),
            )
        }
        Body::Close(close) => (
            10,
            json!({"discoveryKey": close.discovery_key.map(hex::encode)}),
        ),
        Body::Message(message) => (message.kind() as u8, describe_message(message)),
    };
    json!([frame.channel, number, message])
}

fn describe_message(message: Message) -> Value {
    match message {
        Message::Options(it) => json!({"extensions": it.extensions, "ack": it.ack}),
        Message::Status(it) => json!({"uploading": it.uploading, "downloading": it.downloading}),
        Message::Have(it) => json!({
            "start": it.start, "length": it.length, "bitfield": it.bitfield.map(hex::encode), "ack": it.ack,
        }),
        Message::Unhave(it) => json!({"start": it.start, "length": it.length}),
        Message::Want(it) => json!({"start": it.start, "length": it.length}),
        Message::Unwant(it) => json!({"start": it.start, "length": it.length}),
        Message::Request(it) => {
            json!({"index": it.index, "bytes": it.bytes, "hash": it.hash, "nodes": it.nodes})
        }
        Message::Cancel(it) => json!({"index": it.index, "bytes": it.bytes, "hash": it.hash}),
        Message::Data(it) => {
            let nodes: Vec<_> = it
                .nodes
                .iter()
                .map(|node| json!({"index": node.index, "hash": hex::encode(node.hash), "size": node.size}))
                .collect();
            json!({
                "index": it.index, "value": it.value.map(hex::encode), "nodes": nodes,
                "signature": it.signature.map(hex::encode),
            })
        }
        Message::Extension(it) => json!({"id": it.id, "payload": hex::encode(it.payload)}),
    }
}

/// The bits of a run-length encoding.
pub(super) fn bits(encoded: &[u8]) -> Result<Vec<u8>, hypercore::bitfield::Error> {
    rle::decode(encoded, MAX_BITS)
}

/// Node's decoders.
pub(super) struct Node {
    process: Process,
    _stage: Stage,
}

impl Node {
    pub(super) fn new() -> Self {
        let stage = Stage::new();
        let process = stage.node("decode.js", [""; 0]);
        Self {
            process,
            _stage: stage,
        }
    }

    /// What `decode.js` makes of each of these.
    pub(super) fn read(&mut self, kind: &str, inputs: &[Vec<u8>]) -> Vec<Value> {
        let cases = inputs.iter().map(|input| (kind, hex::encode(input)));
        let cases: Vec<_> = cases.collect();
        self.process.say(json!(cases).to_string() + "\n");
        let Value::Array(results) = self.process.event("decoded")["results"].take() else {
            panic!("a list of results");
        };
        assert_eq!(results.len(), inputs.len());
        results
    }
}
