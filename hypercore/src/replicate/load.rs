//! What all cores of one connection hold together, and how often something is done.

use std::{
    sync::{
        Arc, LazyLock, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use super::limits::PeerLimits;

/// Requests and Wants without an answer, of all cores of a connection.
pub(super) const OUR_QUESTIONS: usize = 960;

/// What the cores of one connection hold.
#[derive(Debug, Clone, Default)]
pub(crate) struct Load {
    /// What they may hold.
    pub(crate) limits: Arc<PeerLimits>,
    /// Questions of the remote that wait for an answer.
    pub(crate) questions: Tally,
    /// Questions of ours that the remote has not answered.
    pub(crate) ours: Tally,
    /// Requests of ours for blocks that the remote does not have yet.
    pub(crate) ahead: Tally,
    /// Bytes of memory for what the remote says it has.
    pub(crate) remote_bitfields: Tally,
    /// The same of all connections.
    pub(crate) all_remote_bitfields: Tally,
    /// When a part of a long frame came last.
    long_frame: Time,
    /// When a request of ours was answered last.
    answer: Time,
}

/// From this age on a frame that is not complete is a long one, that holds up all answers behind it.
const LONG_FRAME: Duration = Duration::from_secs(1);

impl Load {
    /// That of a new connection of this process.
    pub(crate) fn new(limits: PeerLimits) -> Self {
        static ALL_REMOTE_BITFIELDS: LazyLock<Tally> = LazyLock::new(Tally::default);
        Self {
            limits: Arc::new(limits),
            all_remote_bitfields: ALL_REMOTE_BITFIELDS.clone(),
            ..Self::default()
        }
    }

    /// How many more questions we may ask.
    pub(crate) fn room(&self) -> usize {
        OUR_QUESTIONS.saturating_sub(self.ours.total())
    }

    /// A part came of a frame that began at `since`.
    pub(crate) fn heard(&self, since: Instant, now: Instant) {
        if now.saturating_duration_since(since) >= LONG_FRAME {
            self.long_frame.set(now);
        }
    }

    /// When a part of a long frame came last. Until then the remote was busy sending it, and no answer
    /// can count as late.
    pub(crate) fn last_heard(&self) -> Option<Instant> {
        self.long_frame.get()
    }

    /// A request was answered.
    pub(crate) fn answered(&self, now: Instant) {
        self.answer.set(now);
    }

    /// When one was answered last, of any core.
    pub(crate) fn last_answered(&self) -> Option<Instant> {
        self.answer.get()
    }
}

/// When something happened last, if it has, for all cores of one connection.
#[derive(Debug, Clone, Default)]
struct Time(Arc<Mutex<Option<Instant>>>);

impl Time {
    fn set(&self, now: Instant) {
        *self.lock() = Some(now);
    }

    fn get(&self) -> Option<Instant> {
        *self.lock()
    }

    fn lock(&self) -> MutexGuard<'_, Option<Instant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A sum over the cores of one connection.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tally(Arc<AtomicUsize>);

impl Tally {
    pub(crate) fn total(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    /// One core's part of the sum, 0 so far.
    pub(crate) fn part(&self) -> Part {
        Part {
            tally: self.clone(),
            amount: 0,
        }
    }
}

/// One core's part of a [`Tally`], taken back when dropped.
#[derive(Debug)]
pub(crate) struct Part {
    tally: Tally,
    amount: usize,
}

impl Part {
    /// Changes the part, and returns the sum.
    pub(crate) fn set(&mut self, amount: usize) -> usize {
        let before = std::mem::replace(&mut self.amount, amount);
        // The sum wraps around, too, so that it may become smaller.
        let change = amount.wrapping_sub(before);
        let total = self.tally.0.fetch_add(change, Ordering::Relaxed);
        total.wrapping_add(change)
    }

    pub(crate) fn total(&self) -> usize {
        self.tally.total()
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        self.set(0);
    }
}

/// So many at once, and so many per second in the long run.
///
/// Kept as the moment at which the bucket would be full again, as in the *generic cell rate
/// algorithm* of ITU-T I.371.
#[derive(Debug)]
pub(crate) struct Bucket {
    interval: Duration,
    tolerance: Duration,
    full_at: Instant,
}

impl Bucket {
    pub(crate) fn new(burst: u32, per_second: u32, now: Instant) -> Self {
        // With none in a second the next one is never.
        let interval = Duration::from_secs(1).checked_div(per_second);
        let interval = interval.unwrap_or(Duration::MAX);
        Self {
            interval,
            tolerance: interval.saturating_mul(burst.saturating_sub(1)),
            full_at: now,
        }
    }

    /// When the next one is allowed.
    pub(crate) fn ready_at(&self) -> Instant {
        self.full_at
            .checked_sub(self.tolerance)
            .unwrap_or(self.full_at)
    }

    /// Takes one if that is allowed.
    pub(crate) fn take(&mut self, now: Instant) -> bool {
        match self.full_at.max(now).checked_add(self.interval) {
            Some(full_at) if self.ready_at() <= now => {
                self.full_at = full_at;
                true
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_gives_a_burst_and_then_a_rate() {
        let start = Instant::now();
        let mut bucket = Bucket::new(32, 16, start);
        let mut taken = |after: Duration| (0..100).filter(|_| bucket.take(start + after)).count();
        let second = Duration::from_secs(1);
        assert_eq!(taken(Duration::ZERO), 32);
        assert_eq!(taken(second / 16), 1);
        assert_eq!(taken(second), 15);
        assert_eq!(taken(second * 60), 32, "no more than a burst is saved up");
    }

    #[test]
    fn parts_add_up_and_are_taken_back() {
        let tally = Tally::default();
        let (mut one, mut other) = (tally.part(), tally.part());
        assert_eq!((one.set(5), other.set(7), one.set(2)), (5, 12, 9));
        drop(other);
        assert_eq!(tally.total(), 2);
    }
}
