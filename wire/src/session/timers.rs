//! What a [`Session`] does because time has passed, and how often a remote may do something.
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects
    )
)]

use std::time::{Duration, Instant};

use super::Session;
use crate::Error;

impl Session {
    /// When to call [`Session::handle_timeout`].
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        if self.error.is_some() || self.is_wait_unnoticed() {
            return Some(self.now);
        }
        [
            self.handshake_deadline,
            self.idle_deadline,
            self.keep_alive_at,
            self.frame_deadline(),
            self.stall_deadline(),
            self.memory_deadline(),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Does what is due: a keep-alive, or the end.
    ///
    /// # Errors
    /// If the remote is too slow or silent, or the session failed before.
    pub fn handle_timeout(&mut self, now: Instant) -> Result<(), Error> {
        self.check()?;
        self.now = now;
        // Whoever is not read because of free space alone would keep that for ever.
        if self.received_share.is_short() {
            self.stream.release();
        }
        self.account();
        let result = self.expire(now);
        // A keep-alive begins to wait, too.
        self.account();
        self.begin_wait();
        self.keep_error(result)
    }

    fn expire(&mut self, now: Instant) -> Result<(), Error> {
        let due = |deadline: Option<Instant>| deadline.is_some_and(|deadline| deadline <= now);
        if due(self.handshake_deadline) {
            return Err(Error::HandshakeTimeout {
                limit: self.limits.handshake_duration,
            });
        }
        if due(self.frame_deadline()) {
            let age = now.saturating_duration_since(self.frame_started.unwrap_or(now));
            return Err(Error::FrameTooSlow { age });
        }
        if due(self.stall_deadline()) {
            let age = now.saturating_duration_since(self.blocked_since.unwrap_or(now));
            return Err(Error::SendStalled { age });
        }
        let Some(timeout) = self.timeout else {
            return Ok(());
        };
        if due(self.idle_deadline) {
            return Err(Error::TimedOut { timeout });
        }
        if due(self.keep_alive_at) {
            self.keep_alive_at = now.checked_add(half(timeout));
            // Bytes that wait keep the connection alive as well as a ping does.
            if self.stream.outgoing().is_empty() {
                self.stream.ping();
            }
        }
        Ok(())
    }

    /// When the unfinished frame is too slow: when it falls behind the rate after the first ten
    /// seconds, or, from a stranger, at the end of its time.
    fn frame_deadline(&self) -> Option<Instant> {
        let started = self.frame_started?;
        let limits = &self.limits;
        let (rate, longest) = if self.mux.has_verified() {
            (limits.frame_rate, Duration::MAX)
        } else {
            let longest = limits.unverified_frame_duration;
            (limits.unverified_frame_rate, longest)
        };
        let milliseconds = self.stream.unfinished().saturating_mul(1000);
        let paid = milliseconds.checked_div(rate);
        let paid = Duration::from_millis(paid.map_or(u64::MAX, |paid| paid as u64));
        started.checked_add(FRAME_GRACE.saturating_add(paid).min(longest))
    }

    /// When a remote that takes nothing has had its time.
    fn stall_deadline(&self) -> Option<Instant> {
        self.blocked_since?.checked_add(self.limits.send_stall)
    }

    /// When to see whether there is memory again.
    fn memory_deadline(&self) -> Option<Instant> {
        let waits = !self.may_receive() || !self.may_answer();
        waits.then(|| self.now.checked_add(MEMORY_PAUSE)).flatten()
    }
}

/// Keep-alives go out twice in the time after which silence ends a connection.
pub(super) fn half(timeout: Duration) -> Duration {
    timeout.checked_div(2).unwrap_or_default()
}

/// At most `max` within each `window`.
#[derive(Debug)]
pub(super) struct Rate {
    pub(super) max: u32,
    pub(super) window: Duration,
    started: Instant,
    count: u32,
}

impl Rate {
    pub(super) fn new(max: u32, window: Duration, now: Instant) -> Self {
        Self {
            max,
            window,
            started: now,
            count: 0,
        }
    }

    /// Counts one, and says whether it was allowed.
    pub(super) fn allows(&mut self, now: Instant) -> bool {
        if now.saturating_duration_since(self.started) >= self.window {
            (self.started, self.count) = (now, 0);
        }
        self.count = self.count.saturating_add(1);
        self.count <= self.max
    }
}

/// The time every frame has before its rate counts.
const FRAME_GRACE: Duration = Duration::from_secs(10);

/// How soon memory that was short is looked for again.
const MEMORY_PAUSE: Duration = Duration::from_millis(100);
