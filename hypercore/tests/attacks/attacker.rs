//! A peer that may say anything at all.

use std::{
    io::{ErrorKind, Read, Write},
    net::TcpStream,
    time::{Duration, Instant},
};

use hypercore::{
    Bytes,
    wire::{
        Body, Direction, Frame, Limits, Message, MessageStream, Open, Received, Role, SecureStream,
        SessionOptions, discovery_key,
    },
};

use crate::process::KEY;

/// How long an attacker waits for anything.
const PATIENCE: Duration = Duration::from_secs(15);

/// How soon an offence closes a connection. One that just says nothing, or has not finished its handshake, is
/// closed after ten seconds or more.
const AT_ONCE: Duration = Duration::from_secs(5);

/// The key of the log that is served.
pub(crate) fn key() -> [u8; 32] {
    hex::decode(KEY).unwrap().try_into().unwrap()
}

/// A connection on which nothing was said.
pub(crate) fn connect(address: &str) -> TcpStream {
    let tcp = TcpStream::connect(address).expect("it listens");
    tcp.set_nodelay(true).unwrap();
    tcp.set_read_timeout(Some(PATIENCE)).unwrap();
    tcp.set_write_timeout(Some(Duration::from_secs(2))).unwrap();
    tcp
}

/// Whether the remote closes the connection at once, and not only after a while, without having said more than
/// `most` bytes.
pub(crate) fn is_closed_at_once(tcp: &mut TcpStream, most: usize) -> bool {
    let started = Instant::now();
    is_closed(tcp, most) && started.elapsed() < AT_ONCE
}

/// Whether the remote closes the connection in the end, without having said more than `most` bytes.
pub(crate) fn is_closed(tcp: &mut TcpStream, most: usize) -> bool {
    let mut said = 0;
    let mut buffer = [0; 65_536];
    loop {
        match tcp.read(&mut buffer) {
            Ok(0) => return said <= most,
            Ok(count) => said += count,
            Err(error) => {
                return said <= most && error.kind() == ErrorKind::ConnectionReset;
            }
        }
    }
}

/// A peer that made a handshake.
pub(crate) struct Attacker {
    pub(crate) tcp: TcpStream,
    stream: SecureStream,
}

impl Attacker {
    pub(crate) fn new(address: &str) -> Self {
        let stream = SecureStream::new(&SessionOptions::new(Role::Initiator).unwrap()).unwrap();
        let mut attacker = Self {
            tcp: connect(address),
            stream,
        };
        attacker.flush();
        while !attacker.stream.is_handshaken() {
            assert!(attacker.read(), "the handshake is honest");
            let _ = attacker.stream.poll().unwrap();
            attacker.flush();
        }
        attacker
    }

    /// One that has opened the log as channel 1.
    pub(crate) fn reader(address: &str) -> Self {
        let mut attacker = Self::new(address);
        let capability = attacker.capability();
        attacker.open(1, discovery_key(&key()), Some(capability));
        attacker.stream.trust();
        attacker
    }

    /// The proof that we know the key.
    pub(crate) fn capability(&self) -> [u8; 32] {
        self.stream.capability(&key(), Direction::Send).unwrap()
    }

    /// The proof that the remote would send.
    pub(crate) fn expected_capability(&self) -> [u8; 32] {
        self.stream.capability(&key(), Direction::Receive).unwrap()
    }

    pub(crate) fn open(
        &mut self,
        channel: u32,
        discovery_key: [u8; 32],
        capability: Option<[u8; 32]>,
    ) {
        let body = Body::Open(Open {
            discovery_key,
            capability,
        });
        self.queue(channel, body);
        self.flush();
    }

    /// Sends a message on channel 1; false once the remote takes no more.
    pub(crate) fn send(&mut self, message: Message) -> bool {
        self.queue(1, Body::Message(message));
        self.flush()
    }

    /// Queues a message, to be sent with others.
    pub(crate) fn queue(&mut self, channel: u32, body: Body) {
        let frame = Frame { channel, body };
        let mut encode = |out: &mut _| frame.encode(out);
        self.stream
            .send(frame.encoded_length(), &mut encode)
            .unwrap();
    }

    /// Sends a frame of any bytes, which may be fewer than it announces.
    pub(crate) fn frame(&mut self, announced: usize, bytes: &[u8]) -> bool {
        let mut encode = |out: &mut bytes::BytesMut| out.extend_from_slice(bytes);
        self.stream.send(announced, &mut encode).unwrap();
        self.flush()
    }

    /// Queues keep-alives.
    pub(crate) fn ping(&mut self, count: usize) {
        (0..count).for_each(|_| self.stream.ping());
    }

    /// Sends what is queued; false once the remote takes no more.
    pub(crate) fn flush(&mut self) -> bool {
        let bytes = self.stream.outgoing();
        let (count, sent) = (bytes.len(), self.tcp.write_all(bytes).is_ok());
        self.stream.sent(count);
        sent
    }

    /// Reads and throws away all there is, without waiting.
    pub(crate) fn drain(&mut self) {
        self.tcp.set_nonblocking(true).unwrap();
        while self.read() {
            while let Ok(Some(_)) = self.stream.poll() {}
        }
        self.tcp.set_nonblocking(false).unwrap();
    }

    fn read(&mut self) -> bool {
        let read = self.tcp.read(self.stream.receive_buffer());
        match read {
            Ok(count @ 1..) => self.stream.received(count).is_ok(),
            _ => false,
        }
    }

    /// The next message of the remote; `None` once it has closed the connection or is silent.
    pub(crate) fn receive(&mut self) -> Option<Body> {
        loop {
            match self.stream.poll().ok()? {
                Some(Received::Frame(frame)) => return decode(frame),
                Some(_) => {}
                None if self.read() => {}
                None => return None,
            }
        }
    }

    /// Whether the remote closes the connection in the end, and has not sent a single frame.
    pub(crate) fn hears_nothing(&mut self) -> bool {
        self.receive().is_none() && is_closed(&mut self.tcp, usize::MAX)
    }

    /// Whether the remote closes the connection at once; what it says until then is not looked at.
    pub(crate) fn is_closed_at_once(&mut self) -> bool {
        is_closed_at_once(&mut self.tcp, usize::MAX)
    }
}

fn decode(frame: Bytes) -> Option<Body> {
    Frame::decode(frame, &Limits::default())
        .expect("an honest remote")
        .map(|frame| frame.body)
}
