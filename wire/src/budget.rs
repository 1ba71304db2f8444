use std::sync::{
    Arc, LazyLock, Mutex, PoisonError,
    atomic::{AtomicUsize, Ordering},
};
use std::time::{Duration, Instant};

/// Memory that many connections share, so that a thousand remotes, each within its own limits,
/// cannot take everything together.
///
/// Nobody has to ask for memory first. Each connection says what it holds, and once all of them
/// hold more than the limit, those that hold more than an equal part have to wait: there always is
/// one. Who holds little goes on, so that remotes who hoard do not stop those who do not. Whoever came
/// early may have had a larger part; so that those who come later cannot add theirs without end, it is
/// no longer a part of the limit but of what is left of twice the limit, down to 4 KiB.
///
/// What is held of an unfinished frame is of no use before the rest comes, and all who wait may hold
/// nothing else. So one of them has a turn: it is read to the end of its frame, and then another. If
/// nothing comes in the first tenth of a second the turn is passed on; else the frame has ten seconds,
/// and longer only at [`Limits::unverified_frame_rate`](crate::Limits::unverified_frame_rate). Nobody is given up for
/// being slow or silent before it was read for a tenth of a second. A session that is not driven for a
/// second loses its turn.
///
/// So all together hold twice the limit at most, one frame more, and from each connection one read.
#[derive(Clone, Debug)]
pub struct Budget(Arc<State>);

#[derive(Debug)]
struct State {
    limit: usize,
    held: AtomicUsize,
    shares: AtomicUsize,
    /// The name of the share whose turn it is, although it is over; 0 for none.
    turn: AtomicUsize,
    /// When it last looked.
    looked: Mutex<Option<Instant>>,
    /// How many shares there ever were.
    names: AtomicUsize,
}

impl Budget {
    /// A budget of so many bytes. Its clones are the same budget.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self(Arc::new(State {
            limit,
            held: AtomicUsize::new(0),
            shares: AtomicUsize::new(0),
            turn: AtomicUsize::new(0),
            looked: Mutex::new(None),
            names: AtomicUsize::new(0),
        }))
    }

    /// The bytes that all connections hold.
    #[must_use]
    pub fn held(&self) -> usize {
        self.0.held.load(Ordering::Relaxed)
    }

    /// Whether that is more than the limit.
    #[must_use]
    pub fn is_exhausted(&self) -> bool {
        self.held() > self.0.limit
    }

    /// The budget of all that was received in this process and not yet taken: 128 MiB.
    pub(crate) fn of_received() -> Self {
        static RECEIVED: LazyLock<Budget> = LazyLock::new(|| Budget::new(128 << 20));
        RECEIVED.clone()
    }

    /// The budget of all that is on its way in this process, in and out: 256 MiB.
    pub(crate) fn of_everything() -> Self {
        static EVERYTHING: LazyLock<Budget> = LazyLock::new(|| Budget::new(256 << 20));
        EVERYTHING.clone()
    }
}

/// What one connection holds of a [`Budget`], given back when dropped.
#[derive(Debug)]
pub(crate) struct Share {
    budget: Budget,
    name: usize,
    held: usize,
}

impl Share {
    pub(crate) fn of(budget: &Budget) -> Self {
        budget.0.shares.fetch_add(1, Ordering::Relaxed);
        let names = budget.0.names.fetch_add(1, Ordering::Relaxed);
        Self {
            budget: budget.clone(),
            name: names.wrapping_add(1),
            held: 0,
        }
    }

    /// From now on the connection holds so many bytes.
    pub(crate) fn hold(&mut self, bytes: usize) {
        let held = &self.budget.0.held;
        if bytes > self.held {
            held.fetch_add(bytes.saturating_sub(self.held), Ordering::Relaxed);
        } else if bytes < self.held {
            held.fetch_sub(self.held.saturating_sub(bytes), Ordering::Relaxed);
        }
        self.held = bytes;
    }

    /// Whether the connection has to wait: it is over, and it is not its turn.
    pub(crate) fn must_wait(&self) -> bool {
        self.is_over() && !self.has_turn()
    }

    /// Whether the connection may go on although it is over.
    pub(crate) fn has_turn(&self) -> bool {
        self.budget.0.turn.load(Ordering::Relaxed) == self.name
    }

    /// Takes the turn, if nobody has it or whoever has it is not driven any more; or keeps it.
    pub(crate) fn take_turn(&self, now: Instant) {
        let State { turn, looked, .. } = &*self.budget.0;
        let mut looked = looked.lock().unwrap_or_else(PoisonError::into_inner);
        let is_left = looked.is_some_and(|at| now.saturating_duration_since(at) >= LEFT_ALONE);
        if is_left || [0, self.name].contains(&turn.load(Ordering::Relaxed)) {
            turn.store(self.name, Ordering::Relaxed);
            *looked = Some(now);
        }
    }

    /// It is no longer our turn.
    pub(crate) fn pass_turn(&self) {
        let State { turn, looked, .. } = &*self.budget.0;
        if self.has_turn() {
            let _looked = looked.lock().unwrap_or_else(PoisonError::into_inner);
            let _ = turn.compare_exchange(self.name, 0, Ordering::Relaxed, Ordering::Relaxed);
        }
    }

    /// Whether memory is short, and the connection holds more than it may.
    pub(crate) fn is_over(&self) -> bool {
        if !self.is_short() {
            return false;
        }
        let twice = self.budget.0.limit.saturating_mul(2);
        let left = self.equal_part(twice.saturating_sub(self.budget.held()));
        self.held > left.max(SMALL).min(self.part())
    }

    /// An equal part of the budget.
    pub(crate) fn part(&self) -> usize {
        self.equal_part(self.budget.0.limit)
    }

    fn equal_part(&self, bytes: usize) -> usize {
        let shares = self.budget.0.shares.load(Ordering::Relaxed);
        bytes.checked_div(shares).unwrap_or(bytes)
    }

    /// Whether all connections together hold more than they should.
    pub(crate) fn is_short(&self) -> bool {
        self.budget.is_exhausted()
    }
}

/// What a connection may hold however short memory is, if that is an equal part.
const SMALL: usize = 4096;

/// The time after which a turn is taken from a connection that has not looked after it.
const LEFT_ALONE: Duration = Duration::from_secs(1);

impl Drop for Share {
    fn drop(&mut self) {
        self.hold(0);
        self.pass_turn();
        self.budget.0.shares.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_holds_most_waits() {
        let budget = Budget::new(100);
        let mut shares = [0, 0, 0, 0].map(|_| Share::of(&budget));
        shares[0].hold(90);
        shares[1].hold(10);
        assert!(!shares[0].is_over(), "all of it is not more than it");
        shares[2].hold(1);
        let over = [0, 1, 2, 3].map(|index| shares[index].is_over());
        assert_eq!(over, [true, false, false, false]);
        shares[0].hold(89);
        assert!(!shares[0].is_over());
        drop(shares);
        assert_eq!(budget.held(), 0);
    }

    /// Each takes what it may and keeps it, and then another comes.
    #[test]
    fn whoever_comes_later_finds_less() {
        let budget = Budget::new(16 << 20);
        let mut shares = Vec::new();
        for _ in 0..1024 {
            let mut share = Share::of(&budget);
            while !share.is_over() && share.held < 1 << 18 {
                share.hold(share.held + 1024);
            }
            shares.push(share);
        }
        assert!(budget.held() < (32 << 20) + 1024 * (SMALL + 1024));
        assert!(shares.iter().all(|share| share.held > SMALL));
    }

    #[test]
    fn somebody_waits_whenever_memory_is_short() {
        let budget = Budget::new(100);
        for parts in [[34, 34, 34], [0, 0, 101], [1, 50, 50]] {
            let mut shares = parts.map(|_| Share::of(&budget));
            for (share, part) in shares.iter_mut().zip(parts) {
                share.hold(part);
            }
            assert!(budget.is_exhausted() && shares.iter().any(Share::is_over));
        }
    }
}
