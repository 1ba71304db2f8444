//! What a [`Session`] does because time has passed, and how often a remote may do something.

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
            self.silence_deadline(),
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
        // Whoever is not read or not answered because of free space alone would keep that for ever.
        if self.received_share.is_short() || self.share.is_short() {
            self.stream.release();
        }
        self.stream.keep_outbox(self.kept_outbox());
        self.account();
        let result = self.wait_for_memory(now).and_then(|()| self.expire(now));
        // A keep-alive begins to wait, too.
        self.account();
        self.begin_wait();
        self.pass_turn(now);
        self.keep_error(result)
    }

    /// Asks for our turn if nothing may be read.
    fn wait_for_memory(&mut self, now: Instant) -> Result<(), Error> {
        let share = &self.received_share;
        let must_wait = share.must_wait();
        if must_wait {
            self.check_memory()?;
        }
        if must_wait || share.has_turn() {
            share.take_turn(now);
        }
        if must_wait || self.waits {
            self.unread = Some((now, self.bytes_received));
        }
        self.waits = share.must_wait();
        Ok(())
    }

    /// Leaves our turn to others if it is of no use: memory is short no more, or nothing comes.
    fn pass_turn(&mut self, now: Instant) {
        let Some((since, received)) = self.turn() else {
            return;
        };
        let comes = self.frame_started.is_some() && self.bytes_received > received;
        let has_been_read = now.saturating_duration_since(since) >= MEMORY_PAUSE;
        if !self.received_share.is_over() || !comes && has_been_read {
            self.received_share.pass_turn();
            self.waits = true;
            self.unread = Some((now, self.bytes_received));
        }
    }

    /// When our turn began, and the bytes received by then.
    fn turn(&self) -> Option<(Instant, u64)> {
        self.unread.filter(|_| self.received_share.has_turn())
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
        if due(self.silence_deadline()) {
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

    /// When the remote was silent for too long.
    fn silence_deadline(&self) -> Option<Instant> {
        self.once_read(self.idle_deadline?)
    }

    /// When the unfinished frame is too slow: when it falls behind the rate after the first ten
    /// seconds, or, from a stranger, at the end of its time. While others wait for us, what came before
    /// does not count.
    fn frame_deadline(&self) -> Option<Instant> {
        let started = self.frame_started?;
        let limits = &self.limits;
        let (rate, longest) = if self.mux.has_verified() {
            (limits.frame_rate, Duration::MAX)
        } else {
            let longest = limits.unverified_frame_duration;
            (limits.unverified_frame_rate, longest)
        };
        let time = frame_time(self.stream.unfinished(), rate).min(longest);
        let mut deadline = started.checked_add(time);
        if let Some((since, received)) = self.turn() {
            let came = self.bytes_received.saturating_sub(received);
            let came = usize::try_from(came).unwrap_or(usize::MAX);
            let turn = since.checked_add(frame_time(came, limits.unverified_frame_rate));
            deadline = deadline.into_iter().chain(turn).min();
        }
        self.once_read(deadline?)
    }

    /// The deadline, or the end of the time in which we read what has come while we did not.
    fn once_read(&self, deadline: Instant) -> Option<Instant> {
        let Some((since, _)) = self.unread else {
            return Some(deadline);
        };
        Some(deadline.max(since.checked_add(MEMORY_PAUSE)?))
    }

    /// When a remote that takes nothing has had its time.
    fn stall_deadline(&self) -> Option<Instant> {
        self.blocked_since?.checked_add(self.limits.send_stall)
    }

    /// When to see whether there is memory again.
    fn memory_deadline(&self) -> Option<Instant> {
        let looked = match self.unread {
            Some((looked, _)) if !self.may_receive() => looked,
            _ => self.now,
        };
        let waits = !self.may_receive() || !self.may_answer() || self.received_share.has_turn();
        waits.then(|| looked.checked_add(MEMORY_PAUSE)).flatten()
    }
}

/// The time that so many bytes of a frame have.
fn frame_time(bytes: usize, rate: usize) -> Duration {
    let paid = bytes.saturating_mul(1000).checked_div(rate);
    let paid = paid.map_or(u64::MAX, |paid| paid as u64);
    FRAME_GRACE.saturating_add(Duration::from_millis(paid))
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

/// How soon memory that was short is looked for again, and how long whoever is read again may say
/// nothing.
const MEMORY_PAUSE: Duration = Duration::from_millis(100);
