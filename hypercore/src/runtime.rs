//! All that is needed of a runtime: a clock, a timer and a thread for what blocks.

#[cfg(any(test, feature = "fuzzing"))]
#[cfg_attr(not(test), expect(dead_code, reason = "the simulator uses more of it"))]
#[allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "for tests and fuzzing alone"
)]
pub(crate) mod simulated;
#[cfg_attr(target_family = "wasm", path = "runtime/alone.rs")]
#[cfg_attr(not(target_family = "wasm"), path = "runtime/threads.rs")]
mod system;

use std::{
    hash::{BuildHasher, Hasher, RandomState},
    task::{Context, Poll},
    time::{Duration, Instant},
};

use futures_lite::future;

/// The one place that reads the clock.
pub(crate) fn now() -> Instant {
    #[cfg(any(test, feature = "fuzzing"))]
    if let Some(simulated) = simulated::current() {
        return simulated.now();
    }
    Instant::now()
}

/// A random number, for what needs no secret one.
pub(crate) fn random() -> u64 {
    #[cfg(any(test, feature = "fuzzing"))]
    if let Some(simulated) = simulated::current() {
        return simulated.below(u64::MAX);
    }
    RandomState::new().build_hasher().finish()
}

/// Runs `work`, which waits for a disk, on a thread made for that.
pub(crate) async fn unblock<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    #[cfg(any(test, feature = "fuzzing"))]
    if simulated::current().is_some() {
        return simulated::unblock(work).await;
    }
    system::unblock(work).await
}

/// Starts `work` on a thread made for what waits for a disk, and does not wait for it.
pub(crate) fn spawn_blocking(work: impl FnOnce() + Send + 'static) {
    #[cfg(any(test, feature = "fuzzing"))]
    if let Some(simulated) = simulated::current() {
        simulated.spawn(simulated::unblock(work));
        return;
    }
    system::spawn_blocking(work);
}

/// As [`spawn_blocking`], after `delay`.
pub(crate) fn spawn_blocking_after(delay: Duration, work: impl FnOnce() + Send + 'static) {
    #[cfg(any(test, feature = "fuzzing"))]
    if let Some(runtime) = simulated::current() {
        runtime.spawn(async move {
            simulated::sleep(delay).await;
            simulated::unblock(work).await;
        });
        return;
    }
    system::spawn_blocking_after(delay, work);
}

/// `future`'s output, or `None` after `limit`.
pub(crate) async fn timeout<T>(limit: Duration, work: impl Future<Output = T>) -> Option<T> {
    let at = now().checked_add(limit);
    let mut alarm = Alarm::new();
    future::or(async { Some(work.await) }, async {
        future::poll_fn(|cx| alarm.poll(cx, at)).await;
        None
    })
    .await
}

/// A timer that can be set again and again without being made anew.
///
/// A later time than before is only set once the old one has passed: with every message the time
/// moves on a little, and each time that is set wakes the thread that waits for all of them.
#[derive(Debug)]
pub(crate) struct Alarm {
    timer: system::Timer,
    /// What the timer is set to.
    set: Option<Instant>,
}

impl Alarm {
    pub(crate) fn new() -> Self {
        Self {
            timer: system::Timer::never(),
            set: None,
        }
    }

    /// Ready once `at` has passed; otherwise the task is woken then.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>, at: Option<Instant>) -> Poll<()> {
        #[cfg(any(test, feature = "fuzzing"))]
        if let Some(simulated) = simulated::current() {
            return at.map_or(Poll::Pending, |at| simulated.poll_timer(at));
        }
        let Some(at) = at else {
            return Poll::Pending;
        };
        if self.set.is_none_or(|set| at < set) {
            self.set(at);
        }
        while self.timer.poll(cx).is_ready() {
            self.set = None;
            if at <= now() {
                return Poll::Ready(());
            }
            self.set(at);
        }
        Poll::Pending
    }

    fn set(&mut self, at: Instant) {
        self.set = Some(at);
        self.timer.set(at);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    };

    use super::{simulated::Runtime, *};

    /// It was done at its real time, on a thread.
    #[test]
    fn what_is_put_off_in_a_simulation_is_done_in_virtual_time() {
        Runtime::run(0, |runtime| {
            let done = Arc::new(AtomicBool::new(false));
            let work = Arc::clone(&done);
            spawn_blocking_after(Duration::from_secs(60), move || {
                work.store(true, Ordering::Relaxed);
            });
            runtime.run_for(Duration::from_secs(59));
            assert!(!done.load(Ordering::Relaxed));
            runtime.run_for(Duration::from_secs(2));
            assert!(done.load(Ordering::Relaxed));
        });
    }
}
