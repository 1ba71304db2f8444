//! A peer driven by hand, which says whatever a test wants it to say.

use std::{net::Shutdown, time::Instant};

use async_std::{
    net::TcpStream,
    task::{self, JoinHandle},
};
use futures_lite::{AsyncReadExt, AsyncWriteExt};
use hypercore::{
    Ended, Error, Hypercore, ReplicateOptions, Role,
    wire::{ChannelId, Event, Have, Message, Options, Request, Session, SessionOptions},
};

use crate::support::tcp_pair;

/// One end of a connection: a session of the wire protocol without a core behind it.
pub(crate) struct Puppet {
    session: Session,
    stream: TcpStream,
    channel: ChannelId,
}

impl Puppet {
    /// A responder that knows the key of `core`, once both sides have opened it.
    pub(crate) async fn new(core: &Hypercore, stream: TcpStream) -> Self {
        let options = SessionOptions::new(Role::Responder).unwrap();
        let mut session = Session::new(options, Instant::now()).unwrap();
        let channel = session.open(core.key().as_bytes()).unwrap();
        let mut puppet = Self {
            session,
            stream,
            channel,
        };
        while !matches!(puppet.next().await, Some(Event::Opened { .. })) {}
        puppet
    }

    /// One that is connected to `core`, and the task of our side.
    pub(crate) async fn connect(
        core: &Hypercore,
        options: ReplicateOptions,
    ) -> (Self, JoinHandle<Result<Ended, Error>>) {
        let (ours, theirs) = tcp_pair().await;
        let replication = core.replicate(Role::Initiator, options).unwrap();
        let ours = task::spawn(replication.run(ours));
        (Self::new(core, theirs).await, ours)
    }

    /// One that is connected to `core` as a live peer, and the task of our side.
    pub(crate) async fn connect_live(core: &Hypercore) -> (Self, JoinHandle<Result<Ended, Error>>) {
        Self::connect(core, ReplicateOptions::live()).await
    }

    /// The same, of a peer that declares these extensions.
    pub(crate) async fn with_extensions(core: &Hypercore, extensions: &[&str]) -> Self {
        let (mut puppet, _) = Self::connect_live(core).await;
        let extensions = extensions.iter().map(|&name| name.to_owned()).collect();
        let options = Options {
            extensions,
            ack: false,
        };
        puppet.send(Message::Options(options)).await;
        puppet
    }

    pub(crate) async fn send(&mut self, message: Message) {
        self.session.send(self.channel, &message).unwrap();
        self.flush().await;
    }

    /// Sends several messages, which arrive together.
    pub(crate) async fn send_all(&mut self, messages: &[Message]) {
        for message in messages {
            self.session.send(self.channel, message).unwrap();
        }
        self.flush().await;
    }

    /// Sends nothing any more, as a process that was killed.
    pub(crate) fn end(&self) {
        self.stream.shutdown(Shutdown::Write).unwrap();
    }

    async fn flush(&mut self) {
        while !self.session.outgoing().is_empty() {
            // A remote that hung up is seen when it is read from.
            let Ok(count) = self.stream.write(self.session.outgoing()).await else {
                return;
            };
            self.session.sent(Instant::now(), count);
        }
    }

    /// What the other side does next; `None` once it has hung up.
    pub(crate) async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.session.poll_event() {
                self.flush().await;
                return Some(event);
            }
            self.flush().await;
            let mut bytes = [0; 4096];
            let count = self.stream.read(&mut bytes).await.ok()?;
            if count == 0 {
                return None;
            }
            self.session
                .receive(Instant::now(), &bytes[..count])
                .unwrap();
        }
    }

    /// The next message on the channel; `None` once the other side has hung up.
    pub(crate) async fn message(&mut self) -> Option<Message> {
        loop {
            if let Event::Message { message, .. } = self.next().await? {
                return Some(message);
            }
        }
    }

    /// The next request.
    pub(crate) async fn request(&mut self) -> Option<Request> {
        loop {
            if let Message::Request(request) = self.message().await? {
                return Some(request);
            }
        }
    }
}

/// A message that says these blocks are there.
pub(crate) fn have(start: u64, length: u64) -> Message {
    Message::Have(Have {
        start,
        length,
        bitfield: None,
        ack: false,
    })
}
