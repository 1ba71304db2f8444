//! A peer that knows the key and speaks the protocol, and says what it likes.

use bytes::Bytes;
use futures_lite::{AsyncReadExt, AsyncWriteExt};
use hypercore_merkle::PublicKey;
use hypercore_wire::{
    ChannelId, Data, DataNode, Event, Have, Message, Request, Role, Session, SessionOptions,
    Status, Unhave,
};

use super::network::Socket;
use crate::{ReplicateOptions, runtime::simulated::Runtime};

/// Lies over `socket` until the remote has had enough.
pub(super) async fn lie(
    runtime: Runtime,
    key: PublicKey,
    options: ReplicateOptions,
    mut socket: Socket,
) {
    let mut session = SessionOptions::new(Role::Responder).expect("there is randomness");
    session.noise = options.noise;
    session.encrypted = options.encrypted;
    let mut session = Session::new(session, runtime.now()).expect("there is randomness");
    let Ok(channel) = session.open(key.as_bytes()) else {
        return;
    };
    let mut buffer = [0; 4096];
    loop {
        while let Some(event) = session.poll_event() {
            let lies = match event {
                Event::Opened { .. } => vec![have(&runtime)],
                Event::Message { message, .. } => answers(&runtime, &message),
                _ => Vec::new(),
            };
            for lie in lies {
                // What does not fit is not said.
                let _ = session.send(channel, &lie);
            }
            sometimes_close(&runtime, &mut session, channel);
        }
        while !session.outgoing().is_empty() {
            let Ok(count) = socket.write(session.outgoing()).await else {
                return;
            };
            session.sent(runtime.now(), count);
        }
        let Ok(count @ 1..) = socket.read(&mut buffer).await else {
            return;
        };
        if session.receive(runtime.now(), &buffer[..count]).is_err() {
            return;
        }
    }
}

fn sometimes_close(runtime: &Runtime, session: &mut Session, channel: ChannelId) {
    if runtime.once_in(200) {
        session.close(channel);
    }
}

fn answers(runtime: &Runtime, message: &Message) -> Vec<Message> {
    match message {
        Message::Want(want) if !runtime.once_in(4) => vec![Message::Have(Have {
            start: want.start,
            length: want.length,
            bitfield: Some(bytes(runtime, 1 + runtime.below(40))),
            ack: false,
        })],
        Message::Request(request) => answer(runtime, request),
        _ if runtime.once_in(8) => vec![have(runtime)],
        _ => Vec::new(),
    }
}

fn answer(runtime: &Runtime, request: &Request) -> Vec<Message> {
    let index = request.index;
    match runtime.below(8) {
        0..3 => Vec::new(),
        3 => vec![Message::Unhave(Unhave {
            start: index,
            length: 1,
        })],
        4 => vec![Message::Status(Status {
            uploading: false,
            downloading: true,
        })],
        5 => vec![data(runtime, index + 1 + runtime.below(9), true)],
        _ => vec![data(runtime, index, !request.hash)],
    }
}

/// Blocks that do not exist, or some that do, or both.
fn have(runtime: &Runtime) -> Message {
    let start = runtime.below(1 << runtime.below(45));
    Message::Have(Have {
        start: if runtime.once_in(2) { 0 } else { start },
        length: 1 + runtime.below(1 << runtime.below(45)),
        bitfield: None,
        ack: runtime.once_in(4),
    })
}

fn data(runtime: &Runtime, index: u64, with_value: bool) -> Message {
    let nodes = (0..runtime.below(6)).map(|_| DataNode {
        index: index * 2 + runtime.below(16),
        hash: std::array::from_fn(|_| runtime.below(256) as u8),
        size: runtime.below(100),
    });
    Message::Data(Data {
        index,
        nodes: nodes.collect(),
        value: with_value.then(|| bytes(runtime, runtime.below(100))),
        signature: runtime
            .once_in(2)
            .then(|| std::array::from_fn(|_| runtime.below(256) as u8)),
    })
}

fn bytes(runtime: &Runtime, count: u64) -> Bytes {
    (0..count).map(|_| runtime.below(256) as u8).collect()
}
