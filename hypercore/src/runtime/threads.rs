//! Where there are threads. `async-io` and `blocking` bring their own, so these work under any
//! executor.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::{Duration, Instant},
};

pub(crate) async fn unblock<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    blocking::unblock(work).await
}

pub(crate) fn spawn_blocking(work: impl FnOnce() + Send + 'static) {
    blocking::unblock(work).detach();
}

pub(crate) fn sleep(duration: Duration) {
    std::thread::sleep(duration);
}

#[derive(Debug)]
pub(crate) struct Timer(async_io::Timer);

impl Timer {
    pub(crate) fn never() -> Self {
        Self(async_io::Timer::never())
    }

    pub(crate) fn set(&mut self, at: Option<Instant>) {
        match at {
            Some(at) => self.0.set_at(at),
            None => *self = Self::never(),
        }
    }

    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        Pin::new(&mut self.0).poll(cx).map(drop)
    }
}
