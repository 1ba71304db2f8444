//! Where there is one thread and nothing that rings, as in WebAssembly: what would block is done at
//! once, and a time that has passed is noticed by whoever looks next. Nothing but giving up late
//! depends on timers.

use std::{
    task::{Context, Poll},
    time::{Duration, Instant},
};

pub(crate) async fn unblock<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    work()
}

pub(crate) fn spawn_blocking(work: impl FnOnce() + Send + 'static) {
    work();
}

/// At once: nothing would ring then.
pub(crate) fn spawn_blocking_after(_: Duration, work: impl FnOnce() + Send + 'static) {
    work();
}

#[derive(Debug)]
pub(crate) struct Timer(Option<Instant>);

impl Timer {
    pub(crate) fn never() -> Self {
        Self(None)
    }

    pub(crate) fn set(&mut self, at: Instant) {
        self.0 = Some(at);
    }

    pub(crate) fn poll(&mut self, _: &mut Context<'_>) -> Poll<()> {
        match self.0 {
            Some(at) if at <= super::now() => Poll::Ready(()),
            _ => Poll::Pending,
        }
    }
}
