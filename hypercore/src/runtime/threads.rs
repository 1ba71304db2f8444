//! Where there are threads. `async-io` and `blocking` bring their own, so these work under any
//! executor.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Wake, Waker},
    time::{Duration, Instant},
};

pub(crate) async fn unblock<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    blocking::unblock(work).await
}

pub(crate) fn spawn_blocking(work: impl FnOnce() + Send + 'static) {
    blocking::unblock(work).detach();
}

/// No thread waits until then: they are few, and many cores share them.
pub(crate) fn spawn_blocking_after(delay: Duration, work: impl FnOnce() + Send + 'static) {
    let later = Arc::new(Later(Mutex::new(None)));
    let waker = Waker::from(Arc::clone(&later));
    let mut timer = async_io::Timer::after(delay);
    let rang = {
        // Held until the timer has its place: it may ring before.
        let mut waiting = lock(&later.0);
        let rang = Pin::new(&mut timer).poll(&mut Context::from_waker(&waker));
        *waiting = Some((timer, Box::new(work)));
        rang.is_ready()
    };
    if rang {
        waker.wake();
    }
}

/// Work that starts when its timer rings.
struct Later(Mutex<Option<(async_io::Timer, Work)>>);

type Work = Box<dyn FnOnce() + Send>;

impl Wake for Later {
    fn wake(self: Arc<Self>) {
        let waiting = lock(&self.0).take();
        if let Some((_, work)) = waiting {
            spawn_blocking(work);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[derive(Debug)]
pub(crate) struct Timer(async_io::Timer);

impl Timer {
    pub(crate) fn never() -> Self {
        Self(async_io::Timer::never())
    }

    pub(crate) fn set(&mut self, at: Instant) {
        self.0.set_at(at);
    }

    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        Pin::new(&mut self.0).poll(cx).map(drop)
    }
}
