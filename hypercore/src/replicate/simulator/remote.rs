//! The other end of a connection, driven by hand.

use std::time::Duration;

use bytes::Bytes;
use futures_lite::{AsyncReadExt, AsyncWriteExt, future};
use hypercore_merkle::KeyPair;
use hypercore_storage::Memory;
use hypercore_wire::{ChannelId, Event, Message, Request, Session, SessionOptions, Want};

use super::{network::Socket, open};
use crate::{Hypercore, Replication, Role, runtime, runtime::simulated::Runtime};

/// The other end of a [`Replication`], driven by hand.
pub(super) struct Remote {
    pub(super) session: Session,
    pub(super) channel: ChannelId,
    /// What [`Self::read`] has taken.
    pub(super) heard: Vec<Message>,
}

impl Remote {
    pub(super) fn new(core: &Hypercore) -> Self {
        let mut options = SessionOptions::new(Role::Responder).expect("there is randomness");
        (options.noise, options.encrypted) = (false, false);
        let mut session = Session::new(options, runtime::now()).expect("there is randomness");
        let channel = session
            .open(core.key().as_bytes())
            .expect("it is the first");
        Self {
            session,
            channel,
            heard: Vec::new(),
        }
    }

    pub(super) fn say(&mut self, message: &Message) {
        self.session
            .send(self.channel, message)
            .expect("it is open");
    }

    pub(super) fn want(&mut self, regions: std::ops::Range<u64>) {
        for region in regions {
            self.say(&Message::Want(Want {
                start: region << 20,
                length: 1 << 20,
            }));
        }
    }

    pub(super) fn request(&mut self, blocks: std::ops::Range<u64>) {
        for index in blocks {
            self.say(&Message::Request(Request {
                index,
                ..Request::default()
            }));
        }
    }

    /// Has `ours` take all that was said.
    pub(super) async fn write(&mut self, ours: &mut Replication) {
        while !self.session.outgoing().is_empty() {
            let count = ours
                .write(self.session.outgoing())
                .await
                .expect("it takes it");
            self.session.sent(runtime::now(), count);
        }
    }

    /// Takes what `ours` says until it says nothing more. Returns how many bytes.
    pub(super) async fn read(&mut self, ours: &mut Replication) -> usize {
        let mut buffer = vec![0; 1 << 16];
        let mut read = 0;
        while let Some(count) = future::poll_once(ours.read(&mut buffer)).await {
            let count = count.expect("it is well");
            assert!(count > 0, "it ended");
            self.session
                .receive(runtime::now(), &buffer[..count])
                .expect("it is honest");
            while let Some(event) = self.session.poll_event() {
                if let Event::Message { message, .. } = event {
                    self.heard.push(message);
                }
            }
            read += count;
        }
        read
    }

    pub(super) async fn read_byte(&mut self, ours: &mut Replication) {
        let mut byte = [0];
        ours.read_exact(&mut byte).await.expect("it is well");
        self.session
            .receive(runtime::now(), &byte)
            .expect("it is honest");
    }

    /// Reads a little at a time until a block comes, and tells of which core it is.
    pub(super) async fn next_block(&mut self, ours: &mut Replication) -> ChannelId {
        loop {
            if let Some(event) = self.session.poll_event() {
                if let Event::Message {
                    channel,
                    message: Message::Data(_),
                } = event
                {
                    return channel;
                }
                continue;
            }
            let mut buffer = vec![0; 1 << 14];
            let count = ours.read(&mut buffer).await.expect("it is well");
            let received = self.session.receive(runtime::now(), &buffer[..count]);
            received.expect("it is honest");
        }
    }

    /// Opens the core on both sides, over `socket`: what is said before is kept until it is open.
    pub(super) async fn open_over(&mut self, socket: &mut Socket) {
        self.write_over(socket).await;
        let mut buffer = vec![0; 1 << 12];
        let count = socket.read(&mut buffer).await.expect("it is well");
        let received = self.session.receive(runtime::now(), &buffer[..count]);
        received.expect("it is honest");
    }

    /// Has the other end of `socket` take all that was said.
    pub(super) async fn write_over(&mut self, socket: &mut Socket) {
        let outgoing = self.session.outgoing().to_vec();
        socket.write_all(&outgoing).await.expect("it is read");
        self.session.sent(runtime::now(), outgoing.len());
    }

    /// Opens the core on both sides.
    pub(super) async fn open(&mut self, ours: &mut Replication) {
        self.write(ours).await;
        self.read(ours).await;
        self.write(ours).await;
    }
}

/// A core with as many blocks of 64 KiB.
pub(super) fn origin(runtime: &Runtime, number: u8, blocks: usize) -> Hypercore {
    let blocks = (0..blocks).map(|_| vec![7; 1 << 16]);
    let core = core_with(runtime, [number; 32], blocks);
    runtime.run_for(Duration::from_secs(1));
    core
}

/// A core that has `blocks` a moment later.
pub(super) fn core_with<B: Into<Bytes>>(
    runtime: &Runtime,
    seed: [u8; 32],
    blocks: impl IntoIterator<Item = B> + 'static,
) -> Hypercore {
    let key_pair = KeyPair::from_seed(&seed);
    let core = open(&Memory::new(), key_pair.public_key(), Some(key_pair), false);
    let append = core.clone();
    runtime.spawn(async move {
        append.append_batch(blocks).await.expect("memory holds it");
    });
    core
}

/// Runs `work` to its end.
pub(super) fn finish(runtime: &Runtime, work: impl Future<Output = ()> + 'static) {
    let task = runtime.spawn(work);
    let limit = runtime.now() + Duration::from_secs(120);
    assert!(
        runtime.run_until(limit, || !runtime.is_running(task)),
        "it does not end"
    );
}
