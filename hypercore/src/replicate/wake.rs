//! What wakes the task of a connection.

use std::{
    collections::BTreeSet,
    sync::{Mutex, MutexGuard, PoisonError},
    task::Waker,
};

use hypercore_wire::ChannelId;

/// Wakes the task that drives a connection, from wherever something changed for it.
#[derive(Debug, Default)]
pub(crate) struct Wake {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    changed: bool,
    /// The channels that changed, so that a connection with many cores looks at no others.
    channels: BTreeSet<ChannelId>,
    waker: Option<Waker>,
}

impl Wake {
    /// Something changed.
    pub(super) fn wake(&self) {
        Self::change(self.lock());
    }

    /// Something changed on `channel`.
    pub(super) fn wake_channel(&self, channel: ChannelId) {
        let mut state = self.lock();
        state.channels.insert(channel);
        Self::change(state);
    }

    fn change(mut state: MutexGuard<'_, State>) {
        if std::mem::replace(&mut state.changed, true) {
            return;
        }
        let waker = state.waker.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Who to wake. Call it before [`Self::take`], or a change in between is missed.
    pub(super) fn register(&self, waker: &Waker) {
        match &mut self.lock().waker {
            Some(known) => known.clone_from(waker),
            none => *none = Some(waker.clone()),
        }
    }

    /// Whether something changed since the last call.
    pub(super) fn take(&self) -> bool {
        std::mem::take(&mut self.lock().changed)
    }

    /// The channels that changed since the last call.
    pub(super) fn take_channels(&self) -> BTreeSet<ChannelId> {
        std::mem::take(&mut self.lock().channels)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
