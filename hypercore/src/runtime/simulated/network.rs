//! Connections that delay, split, join, corrupt and lose what they carry.

use std::{
    cell::RefCell,
    collections::VecDeque,
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use futures_lite::{AsyncRead, AsyncWrite};

use super::Runtime;

/// What one direction of a connection is like.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Conditions {
    pub(crate) delay: Duration,
    pub(crate) bytes_per_second: u64,
    /// How much is on the way, or not read, before the sender has to wait.
    pub(crate) buffer: usize,
    /// One bit is changed in so many bytes; never, if 0.
    pub(crate) corruption: u64,
}

/// What arrives at once.
const SEGMENT: usize = 16 * 1024;

/// One direction of a connection.
pub(crate) struct Pipe {
    conditions: Conditions,
    /// Bytes, and when they arrive.
    chunks: VecDeque<(Instant, Vec<u8>)>,
    bytes: usize,
    /// When what was written has left the sender.
    sent_at: Instant,
    closed: bool,
    broken: bool,
    frozen: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

impl Pipe {
    fn new(runtime: &Runtime, conditions: Conditions) -> Rc<RefCell<Self>> {
        Rc::new(RefCell::new(Self {
            conditions,
            chunks: VecDeque::new(),
            bytes: 0,
            sent_at: runtime.now(),
            closed: false,
            broken: false,
            frozen: false,
            reader: None,
            writer: None,
        }))
    }

    /// Lets both ends see what has changed.
    fn wake(&mut self) {
        for waker in [self.reader.take(), self.writer.take()]
            .into_iter()
            .flatten()
        {
            waker.wake();
        }
    }
}

/// A connection, as whoever causes faults sees it.
#[derive(Clone)]
pub(crate) struct Cable([Rc<RefCell<Pipe>>; 2]);

impl Cable {
    /// A connection and its two ends.
    pub(crate) fn new(runtime: &Runtime, conditions: [Conditions; 2]) -> (Self, [Socket; 2]) {
        let [there, back] = conditions.map(|conditions| Pipe::new(runtime, conditions));
        let socket = |incoming: &Rc<_>, outgoing: &Rc<_>| Socket {
            runtime: runtime.clone(),
            incoming: Rc::clone(incoming),
            outgoing: Rc::clone(outgoing),
        };
        let sockets = [socket(&back, &there), socket(&there, &back)];
        (Self([there, back]), sockets)
    }

    /// Both ends fail at once.
    pub(crate) fn cut(&self) {
        self.each(|pipe| pipe.broken = true);
    }

    /// Nothing arrives any more, and nobody is told.
    pub(crate) fn freeze(&self) {
        self.each(|pipe| pipe.frozen = true);
    }

    /// Nothing arrives any more in one direction, and nobody is told.
    pub(crate) fn freeze_half(&self, direction: usize) {
        self.0[direction].borrow_mut().frozen = true;
    }

    pub(crate) fn thaw(&self) {
        self.each(|pipe| pipe.frozen = false);
    }

    fn each(&self, change: impl Fn(&mut Pipe)) {
        for pipe in &self.0 {
            let mut pipe = pipe.borrow_mut();
            change(&mut pipe);
            pipe.wake();
        }
    }
}

/// One end of a connection.
pub(crate) struct Socket {
    runtime: Runtime,
    incoming: Rc<RefCell<Pipe>>,
    outgoing: Rc<RefCell<Pipe>>,
}

impl Socket {
    /// How much of `most` bytes one call moves: all of them, or now and then a few.
    fn split(&self, most: usize) -> usize {
        match self.runtime.below(16) {
            0 => most.min(1 + self.runtime.below(4) as usize),
            1 => most.div_ceil(2),
            _ => most,
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let pipe = &mut *self.incoming.borrow_mut();
        if pipe.broken {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        pipe.reader = Some(cx.waker().clone());
        if pipe.frozen {
            return Poll::Pending;
        }
        let Some((arrives, chunk)) = pipe.chunks.front_mut() else {
            return if pipe.closed {
                Poll::Ready(Ok(0))
            } else {
                Poll::Pending
            };
        };
        if self.runtime.poll_timer(*arrives).is_pending() {
            return Poll::Pending;
        }
        let count = self.split(chunk.len().min(buffer.len()));
        buffer[..count].copy_from_slice(&chunk[..count]);
        chunk.drain(..count);
        if chunk.is_empty() {
            pipe.chunks.pop_front();
        }
        pipe.bytes -= count;
        if let Some(writer) = pipe.writer.take() {
            writer.wake();
        }
        Poll::Ready(Ok(count))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let pipe = &mut *self.outgoing.borrow_mut();
        if pipe.broken {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let room = pipe.conditions.buffer.saturating_sub(pipe.bytes);
        if room == 0 {
            pipe.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let count = self.split(bytes.len().min(room).min(SEGMENT));
        let mut chunk = bytes[..count].to_vec();
        if pipe.conditions.corruption > 0 {
            for byte in &mut chunk {
                if self.runtime.once_in(pipe.conditions.corruption) {
                    *byte ^= 1 << self.runtime.below(8);
                }
            }
        }
        let takes = Duration::from_secs(1) * count as u32
            / u32::try_from(pipe.conditions.bytes_per_second).unwrap_or(u32::MAX);
        pipe.sent_at = pipe.sent_at.max(self.runtime.now()) + takes;
        pipe.bytes += count;
        pipe.chunks
            .push_back((pipe.sent_at + pipe.conditions.delay, chunk));
        if let Some(reader) = pipe.reader.take() {
            reader.wake();
        }
        Poll::Ready(Ok(count))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut pipe = self.outgoing.borrow_mut();
        pipe.closed = true;
        pipe.wake();
        Poll::Ready(Ok(()))
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let mut outgoing = self.outgoing.borrow_mut();
        outgoing.closed = true;
        outgoing.wake();
        drop(outgoing);
        let mut incoming = self.incoming.borrow_mut();
        // Whoever still writes to a half-open connection does not learn of it.
        incoming.broken |= !incoming.frozen;
        incoming.wake();
    }
}
