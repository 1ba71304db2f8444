//! How fast a peer answers, and how much to ask of it at one time.

use std::{
    num::NonZeroU64,
    time::{Duration, Instant},
};

/// A peer is asked for no more than it answers in this time, or in two round trips if those take
/// longer: enough that it never waits for us, little enough that what it holds is soon here.
const HORIZON: Duration = Duration::from_millis(250);

/// But never for more than it answers in this time, however long a round trip seems to take.
const MAX_HORIZON: Duration = Duration::from_secs(2);

/// Bytes asked for and not received at one time: more than 100 MiB/s and 200 ms hold.
const MAX_BYTES: u64 = 32 * 1024 * 1024;

/// Requests in flight to a peer whose pace is not known: as many as Node's hypercore keeps.
const FIRST_REQUESTS: u64 = 16;

/// Requests in flight to the slowest peer: with one, it would wait for us between any two.
const MIN_REQUESTS: u64 = 2;

/// Requests in flight, whatever the size of the blocks.
pub(super) const MAX_REQUESTS: usize = 512;

/// What an answer costs beside its block: headers, nodes, a signature.
const OVERHEAD: NonZeroU64 = NonZeroU64::new(100).unwrap();

/// The round trip that counts is the shortest of the last 10 to 20 seconds: the present period and the one
/// before.
const ROUND_TRIP_MEMORY: Duration = Duration::from_secs(10);

/// Once in each period the window shrinks to a quarter for one round trip. With a full window every
/// answer waits behind others, and that wait would be taken for a long way.
const PROBE: u64 = 4;

/// How long the answer of a peer takes of which nothing is known.
const UNKNOWN: Duration = Duration::from_millis(500);

/// What a peer does is late if it takes twice as long as expected and this.
const LATE: Duration = Duration::from_millis(250);

/// In microseconds.
const SECOND: u64 = 1_000_000;

/// What is known when a request is sent, to learn from its answer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stamp {
    pub(super) sent: Instant,
    /// How long the answer is expected to take.
    expected: Duration,
    delivered: u64,
    /// As much was in flight as may be, so that the answer tells how fast the peer can be.
    full: bool,
    /// So little was in flight that the answer tells how long the way is.
    probe: bool,
}

impl Stamp {
    /// From when on the answer is late; `None` if no clock shows so late a time.
    pub(super) fn late_at(&self) -> Option<Instant> {
        let late = self.expected.saturating_mul(2).saturating_add(LATE);
        self.sent.checked_add(late)
    }

    /// How much longer the answer will take. What is overdue takes as long again.
    pub(super) fn remaining(&self, now: Instant) -> Duration {
        let taken = now.saturating_duration_since(self.sent);
        self.expected.abs_diff(taken)
    }
}

/// The measured pace of one peer.
///
/// The rate is that of BBR (Cardwell et al. 2016): bytes that came between a request and its
/// answer, by the time this took. As the window holds the answers of two round trips, it doubles
/// with each round trip until the rate does not grow any more.
#[derive(Debug)]
pub(crate) struct Pace {
    /// Bytes received.
    delivered: u64,
    /// Bytes per second; 0 until it is known.
    rate: u64,
    /// The shortest round trips, of the present time and the one before.
    round_trips: [Option<Duration>; 2],
    round_trips_since: Instant,
    /// The length of the way is to be measured anew.
    probing: bool,
    /// A running mean, in bytes; `None` before the first.
    block_size: Option<u64>,
    /// How many requests should be in flight, by all this.
    window: usize,
}

impl Pace {
    pub(super) const fn new(now: Instant) -> Self {
        Self {
            delivered: 0,
            rate: 0,
            round_trips: [None; 2],
            round_trips_since: now,
            probing: false,
            block_size: None,
            window: FIRST_REQUESTS as usize,
        }
    }

    /// How many requests should be in flight.
    pub(super) const fn window(&self) -> usize {
        self.window
    }

    fn measured_window(&self) -> usize {
        let requests = if self.rate == 0 {
            FIRST_REQUESTS
        } else {
            let horizon = self.round_trip().saturating_mul(2);
            let horizon = micros(horizon.clamp(HORIZON, MAX_HORIZON));
            let bytes = (self.rate.saturating_mul(horizon) / SECOND).min(MAX_BYTES);
            let requests = (bytes / self.answer_size()).max(MIN_REQUESTS);
            if self.probing {
                requests.min(MAX_REQUESTS as u64).div_ceil(PROBE)
            } else {
                requests
            }
        };
        usize::try_from(requests).map_or(MAX_REQUESTS, |requests| requests.min(MAX_REQUESTS))
    }

    /// A request is sent while `in_flight` others are.
    pub(super) fn sent(&self, in_flight: usize, now: Instant) -> Stamp {
        Stamp {
            sent: now,
            expected: self.expected(in_flight),
            delivered: self.delivered,
            full: !self.probing && in_flight.saturating_add(1) >= self.window(),
            probe: self.probing && in_flight < self.window(),
        }
    }

    /// How long an answer will take that comes after `in_flight` others.
    pub(super) fn expected(&self, in_flight: usize) -> Duration {
        let answers = (in_flight as u64).saturating_add(1);
        let bytes = answers.saturating_mul(self.answer_size().get());
        let Some(micros) = bytes.saturating_mul(SECOND).checked_div(self.rate) else {
            return UNKNOWN;
        };
        self.round_trip()
            .saturating_add(Duration::from_micros(micros))
    }

    /// A request was answered, with a block of so many bytes or without one.
    pub(super) fn answered(&mut self, stamp: &Stamp, bytes: Option<u64>, now: Instant) {
        let size = OVERHEAD.saturating_add(bytes.unwrap_or(0));
        self.delivered = self.delivered.saturating_add(size.get());
        if let Some(bytes) = bytes {
            let mean = self.block_size.unwrap_or(bytes);
            self.block_size = Some(mean.saturating_mul(7).saturating_add(bytes) / 8);
        }
        let took = now.saturating_duration_since(stamp.sent);
        if now.saturating_duration_since(self.round_trips_since) >= ROUND_TRIP_MEMORY {
            self.round_trips = [None, self.round_trips[0]];
            self.round_trips_since = now;
            self.probing = true;
        }
        self.probing &= !stamp.probe;
        let shortest = &mut self.round_trips[0];
        *shortest = Some(shortest.map_or(took, |shortest| shortest.min(took)));

        let micros = NonZeroU64::new(micros(took)).unwrap_or(NonZeroU64::MIN);
        let delivered = self.delivered.saturating_sub(stamp.delivered);
        let rate = (delivered.saturating_mul(SECOND) / micros).max(1);
        if rate > self.rate {
            self.rate = rate;
        } else if stamp.full {
            let surplus = self.rate.saturating_sub(rate);
            self.rate = self.rate.saturating_sub(surplus / 8);
        }
        self.window = self.measured_window();
    }

    /// Bytes that it sends in a second; `None` until that is known.
    pub(super) fn bytes_per_second(&self) -> Option<u64> {
        (self.rate > 0).then_some(self.rate)
    }

    /// The shortest time in which it has answered of late; `None` before the first answer.
    pub(super) fn delay(&self) -> Option<Duration> {
        self.round_trips.iter().flatten().min().copied()
    }

    fn answer_size(&self) -> NonZeroU64 {
        OVERHEAD.saturating_add(self.block_size.unwrap_or(0))
    }

    fn round_trip(&self) -> Duration {
        self.delay().unwrap_or(UNKNOWN)
    }
}

/// A time in microseconds.
fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BLOCK: u64 = 1 << 16;

    /// Asks a peer that answers `per_second` blocks, each after `delay`, for `blocks`; the seconds
    /// that this takes.
    fn seconds(pace: &mut Pace, blocks: u32, per_second: u32, delay: Duration) -> f64 {
        let start = Instant::now();
        let mut now = start;
        let mut free_at = start;
        let mut in_flight = std::collections::VecDeque::new();
        let (mut asked, mut answered) = (0, 0);
        while answered < blocks {
            while asked < blocks && in_flight.len() < pace.window() {
                free_at = free_at.max(now) + Duration::from_secs(1) / per_second;
                in_flight.push_back((free_at + delay, pace.sent(in_flight.len(), now)));
                asked += 1;
            }
            let (at, stamp) = in_flight.pop_front().expect("something is asked");
            now = at;
            pace.answered(&stamp, Some(BLOCK), now);
            answered += 1;
        }
        (now - start).as_secs_f64()
    }

    #[test]
    fn a_long_fast_link_is_filled() {
        // 100 MiB/s and a round trip of 200 ms.
        let mut pace = Pace::new(Instant::now());
        let seconds = seconds(&mut pace, 16_000, 1600, Duration::from_millis(200));
        assert!(seconds < 10.0 / 0.85, "{seconds} s for what 10 s hold");
    }

    #[test]
    fn a_slow_peer_holds_few_requests() {
        let mut pace = Pace::new(Instant::now());
        seconds(&mut pace, 100, 4, Duration::from_millis(10));
        assert_eq!(pace.window(), 2);
    }

    #[test]
    fn a_peer_that_becomes_slow_is_asked_for_less() {
        let mut pace = Pace::new(Instant::now());
        seconds(&mut pace, 2000, 1000, Duration::from_millis(10));
        let before = pace.window();
        seconds(&mut pace, 600, 40, Duration::from_millis(10));
        assert!(before > 200, "{before}");
        assert!(pace.window() < before / 10, "{}", pace.window());
    }

    #[test]
    fn what_was_seldom_asked_tells_nothing_of_the_speed() {
        let mut pace = Pace::new(Instant::now());
        seconds(&mut pace, 2000, 1000, Duration::from_millis(10));
        let before = pace.window();
        for _ in 0..100 {
            let sent = Instant::now();
            let stamp = pace.sent(0, sent);
            pace.answered(&stamp, Some(BLOCK), sent + Duration::from_millis(11));
        }
        assert_eq!(pace.window(), before);
    }
}
