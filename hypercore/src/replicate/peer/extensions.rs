//! Messages of extensions that wait to be sent to one remote.

use std::{collections::VecDeque, sync::Arc};

use bytes::Bytes;

use crate::extension::OUTBOX;

/// Messages of extensions, which come after those of the protocol.
#[derive(Debug, Default)]
pub(super) struct ExtensionOutbox {
    queue: VecDeque<(Arc<str>, Bytes)>,
    /// The memory that they take.
    bytes: usize,
}

/// The memory of a message that waits to be sent.
const fn cost(payload: &Bytes) -> usize {
    payload.len().saturating_add(size_of::<(Arc<str>, Bytes)>())
}

impl ExtensionOutbox {
    /// Queues a message; false if too much waits already.
    pub(super) fn push(&mut self, name: &Arc<str>, payload: Bytes) -> bool {
        let waiting = self.bytes.saturating_add(cost(&payload));
        if waiting > OUTBOX {
            return false;
        }
        self.bytes = waiting;
        self.queue.push_back((Arc::clone(name), payload));
        true
    }

    /// Takes out the message that has waited longest.
    pub(super) fn pop(&mut self) -> Option<(Arc<str>, Bytes)> {
        let message = self.queue.pop_front()?;
        self.bytes = self.bytes.saturating_sub(cost(&message.1));
        Some(message)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Panics if more is held than there should ever be.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(super) fn check_bounds(&self) {
        assert!(self.bytes <= OUTBOX);
    }
}
