//! What happened and was not polled yet.

use std::collections::VecDeque;

use crate::Event;

/// Events in order, each with the bytes of the frame that it keeps in memory.
#[derive(Default)]
pub(super) struct Events {
    queue: VecDeque<(Event, usize)>,
    bytes: usize,
}

impl Events {
    pub(super) fn push_back(&mut self, event: Event) {
        self.queue.push_back((event, 0));
    }

    /// The last event came in a frame of so many bytes.
    pub(super) fn charge(&mut self, frame: usize) {
        if let Some((_, bytes)) = self.queue.back_mut() {
            *bytes = bytes.saturating_add(frame);
            self.bytes = self.bytes.saturating_add(frame);
        }
    }

    pub(super) fn pop_front(&mut self) -> Option<Event> {
        let (event, bytes) = self.queue.pop_front()?;
        self.bytes = self.bytes.saturating_sub(bytes);
        Some(event)
    }

    pub(super) fn len(&self) -> usize {
        self.queue.len()
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }
}
