//! Our side, which goes as far as it can whenever it is given something.

use std::collections::BTreeMap;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};

use futures_lite::future::{Boxed, block_on};
use futures_lite::{AsyncRead, AsyncWrite, FutureExt};
use hypercore::{Ended, Error, GetOptions, Hypercore, ReplicateOptions, Role};

use super::super::damaged::originals::Files;

pub(super) struct Ours {
    pub(super) core: Hypercore,
    pipe: Pipe,
    session: Boxed<Result<Ended, Error>>,
    gets: Vec<Boxed<()>>,
    /// How the session ended.
    pub(super) over: Option<Result<Ended, Error>>,
}

impl Ours {
    pub(super) fn new(files: &Files, gets: &[u64]) -> Self {
        let options = Hypercore::options().create_if_missing(false).sparse(true);
        let core = block_on(options.open_storage(files.in_memory())).expect("files of our own");
        let mut options = ReplicateOptions::live();
        options.timeout = None;
        let replication = core.replicate(Role::Responder, options).unwrap();
        let pipe = Pipe::default();
        let get = |&index: &u64| {
            let core = core.clone();
            async move { _ = core.get(index).await }.boxed()
        };
        let mut ours = Self {
            gets: gets.iter().map(get).collect(),
            session: replication.run(pipe.clone()).boxed(),
            core,
            pipe,
            over: None,
        };
        ours.run();
        ours
    }

    /// Takes bytes, and returns what is said to them.
    pub(super) fn receive(&mut self, bytes: &[u8]) -> Vec<u8> {
        self.pipe.0.lock().unwrap().incoming.extend(bytes);
        self.run();
        std::mem::take(&mut self.pipe.0.lock().unwrap().outgoing)
    }

    /// Goes on until nothing happens any more.
    fn run(&mut self) {
        let flag = Arc::new(Flag(AtomicBool::new(true)));
        let waker = Waker::from(Arc::clone(&flag));
        let mut cx = Context::from_waker(&waker);
        while flag.0.swap(false, Ordering::SeqCst) {
            self.gets.retain_mut(|get| get.poll(&mut cx).is_pending());
            if self.over.is_none()
                && let Poll::Ready(over) = self.session.poll(&mut cx)
            {
                self.over = Some(over);
            }
        }
    }

    /// The digests of this many blocks.
    pub(super) fn digests(&self, count: usize) -> Vec<u64> {
        (0..count as u64)
            .map(|index| self.core.digest(index))
            .collect()
    }

    /// All blocks that it has.
    pub(super) fn blocks(&self) -> BTreeMap<u64, Option<Vec<u8>>> {
        let indexes = (0..self.core.length()).filter(|&index| self.core.has(index));
        let read = |index| {
            let block = block_on(self.core.get_with(index, GetOptions::local()));
            (index, block.ok().map(|block| block.to_vec()))
        };
        indexes.map(read).collect()
    }
}

struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// A transport that is never full, and empty until something is put in.
#[derive(Clone, Default)]
struct Pipe(Arc<Mutex<Buffers>>);

#[derive(Default)]
struct Buffers {
    incoming: std::collections::VecDeque<u8>,
    outgoing: Vec<u8>,
}

impl AsyncRead for Pipe {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let incoming = &mut self.0.lock().unwrap().incoming;
        if incoming.is_empty() {
            // Whoever puts something in looks here again.
            return Poll::Pending;
        }
        Poll::Ready(io::Read::read(incoming, buffer))
    }
}

impl AsyncWrite for Pipe {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.0.lock().unwrap().outgoing.extend(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
