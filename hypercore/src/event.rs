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

use crate::replicate::CloseReason;

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
        /// Why, in a code.
        code: CloseReason,
        /// Why, in a sentence.
        reason: String,
    },
    /// A peer has told of blocks beyond all those it told of before. Nothing of that is proven yet.
    RemoteUpdate {
        /// The peer.
        peer: PeerId,
        /// One past the last block that it says it has.
        length: u64,
    },
    /// Every block of the log is stored here now.
    Sync {
        /// The length of the log.
        length: u64,
    },
    /// A peer has proven a longer log, signed with the key of this one, which is written here: it
    /// goes on from an old copy, and takes no appends until that is resolved. See
    /// [`Hypercore::resume`](crate::Hypercore::resume).
    Behind {
        /// The length of the log here.
        ours: u64,
        /// The length that the peer has proven.
        theirs: u64,
    },
    /// A peer has proven another history, signed with the key of this log. What is here stays and
    /// is served; nothing is added to it. See
    /// [`Hypercore::fork_proof`](crate::Hypercore::fork_proof).
    Forked {
        /// The length of the longer of the two.
        length: u64,
    },
    /// Blocks were dropped by `clear`, or cut off by `truncate`.
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

impl PeerId {
    /// No peer at all: the source of what was [put](crate::Hypercore::put) by hand.
    pub const NOBODY: Self = Self(0);
}

impl fmt::Display for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "peer-{}", self.0)
    }
}

/// How many events wait for a slow subscriber before the oldest are dropped: a minute's worth
/// of a busy download, some 5 MiB.
const CAPACITY: usize = 65_536;

/// The events of one core from the moment of [`crate::Hypercore::events`] on. Ends when the
/// core is closed, or when nothing holds it any more: see [`Hypercore`](crate::Hypercore).
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
    closed: bool,
}

impl Publisher {
    pub(crate) fn subscribe(&mut self) -> Events {
        let queue = Arc::new(Mutex::new(Queue {
            closed: self.closed,
            ..Queue::default()
        }));
        // On a core where nothing happens, nobody else forgets those that went away.
        self.subscribers.retain(|it| it.strong_count() > 0);
        self.subscribers.push(Arc::downgrade(&queue));
        Events { queue }
    }

    pub(crate) fn emit(&mut self, event: Event) {
        if self.closed {
            return;
        }
        self.each(|queue| {
            if queue.events.len() == CAPACITY {
                queue.events.pop_front();
                queue.missed = queue.missed.saturating_add(1);
            }
            queue.events.push_back(event.clone());
        });
    }

    pub(crate) fn close(&mut self) {
        self.closed = true;
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

impl Drop for Publisher {
    fn drop(&mut self) {
        self.close();
    }
}

fn lock(queue: &Mutex<Queue>) -> MutexGuard<'_, Queue> {
    // A queue has no state that a panic elsewhere could leave half changed.
    queue.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use futures_lite::{StreamExt, future::block_on};

    use super::*;

    #[test]
    fn a_slow_subscriber_loses_the_oldest_events_and_hears_how_many() {
        block_on(async {
            let mut publisher = Publisher::default();
            let mut events = publisher.subscribe();
            for length in 0..CAPACITY as u64 + 5 {
                publisher.emit(Event::Append { length });
            }
            assert_eq!(events.next().await, Some(Event::Lagged { missed: 5 }));
            assert_eq!(events.next().await, Some(Event::Append { length: 5 }));
            drop(publisher);
            assert_eq!(events.count().await, CAPACITY - 1);
        });
    }

    #[test]
    fn events_end_when_the_core_closes_and_none_follow() {
        block_on(async {
            let mut publisher = Publisher::default();
            let mut early = publisher.subscribe();
            publisher.close();
            publisher.emit(Event::Append { length: 1 });
            assert_eq!(early.next().await, None);
            assert_eq!(publisher.subscribe().next().await, None);
        });
    }

    #[test]
    fn a_subscriber_that_went_away_is_forgotten() {
        let mut publisher = Publisher::default();
        drop(publisher.subscribe());
        let kept = publisher.subscribe();
        assert_eq!(publisher.subscribers.len(), 1);
        drop(kept);
        publisher.emit(Event::Append { length: 1 });
        assert_eq!(publisher.subscribers.len(), 0);
    }
}
