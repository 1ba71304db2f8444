//! What happens to a core, for whoever wants to hear it.

use std::{
    collections::VecDeque,
    fmt,
    ops::Range,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    task::{Context, Poll, Waker},
};

use futures_lite::Stream;

/// Something that happened to a core.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// The log grew, by an append here or because a peer proved a longer log.
    Append {
        /// Its length now, in blocks.
        length: u64,
    },
    /// A block from a peer was verified and stored.
    Download {
        /// The block.
        index: u64,
        /// Its size in bytes.
        bytes: u64,
        /// The peer it came from.
        peer: PeerId,
    },
    /// A block was sent to a peer.
    Upload {
        /// The block.
        index: u64,
        /// Its size in bytes.
        bytes: u64,
        /// The peer it went to.
        peer: PeerId,
    },
    /// A peer acknowledged that it has stored a block (see `ReplicateOptions::ack`).
    Ack {
        /// The block.
        index: u64,
        /// Who stored it.
        peer: PeerId,
    },
    /// A connection to a peer that knows this core's key is up.
    PeerOpen {
        /// The peer.
        peer: PeerId,
    },
    /// That connection, or this core's part of it, has ended.
    PeerClose {
        /// The peer.
        peer: PeerId,
        /// Why, in a sentence.
        reason: String,
    },
    /// Every block of the log is stored here now.
    Sync {
        /// The length of the log.
        length: u64,
    },
    /// Blocks were dropped by `clear`.
    Clear {
        /// Which.
        blocks: Range<u64>,
    },
    /// This subscriber read too slowly, and the oldest events it had not read were dropped.
    Lagged {
        /// How many.
        missed: u64,
    },
}

/// Names one connected peer of one core, for as long as the core is open. Never used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerId(pub(crate) u64);

impl fmt::Display for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "peer-{}", self.0)
    }
}

/// How many events wait for a slow subscriber before the oldest are dropped: a minute's worth
/// of a busy download, some 5 MiB.
const CAPACITY: usize = 65_536;

/// The events of one core from the moment of [`crate::Hypercore::events`] on. Ends when the
/// core is closed.
#[derive(Debug)]
pub struct Events {
    queue: Arc<Mutex<Queue>>,
}

#[derive(Debug, Default)]
struct Queue {
    events: VecDeque<Event>,
    missed: u64,
    closed: bool,
    waker: Option<Waker>,
}

impl Stream for Events {
    type Item = Event;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Event>> {
        let mut queue = lock(&self.queue);
        if queue.missed > 0 {
            let missed = std::mem::take(&mut queue.missed);
            return Poll::Ready(Some(Event::Lagged { missed }));
        }
        if let Some(event) = queue.events.pop_front() {
            return Poll::Ready(Some(event));
        }
        if queue.closed {
            return Poll::Ready(None);
        }
        queue.waker = Some(cx.waker().clone());
        Poll::Pending
    }
}

/// The sending side: one per core.
#[derive(Debug, Default)]
pub(crate) struct Publisher {
    subscribers: Vec<Weak<Mutex<Queue>>>,
}

impl Publisher {
    pub(crate) fn subscribe(&mut self) -> Events {
        let queue = Arc::default();
        self.subscribers.push(Arc::downgrade(&queue));
        Events { queue }
    }

    pub(crate) fn emit(&mut self, event: Event) {
        self.each(|queue| {
            if queue.events.len() == CAPACITY {
                queue.events.pop_front();
                queue.missed += 1;
            }
            queue.events.push_back(event.clone());
        });
    }

    pub(crate) fn close(&mut self) {
        self.each(|queue| queue.closed = true);
    }

    fn each(&mut self, mut act: impl FnMut(&mut Queue)) {
        self.subscribers.retain(|subscriber| {
            let Some(queue) = subscriber.upgrade() else {
                return false;
            };
            let mut queue = lock(&queue);
            act(&mut queue);
            if let Some(waker) = queue.waker.take() {
                waker.wake();
            }
            true
        });
    }
}

fn lock(queue: &Mutex<Queue>) -> MutexGuard<'_, Queue> {
    // A queue has no state that a panic elsewhere could leave half changed.
    queue.lock().unwrap_or_else(PoisonError::into_inner)
}
