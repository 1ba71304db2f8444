//! What one remote was asked, and which of its answers count.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use hypercore_merkle::RemoteTree;
use hypercore_wire::{Message, Request};

use super::Peer;
use crate::{
    error::{Error, Result},
    log::Log,
    replicate::pace::{MAX_REQUESTS, Stamp},
};

/// Beyond the window, for what somebody waits for at this moment (`urgentRequests`).
const URGENT: usize = 16;

/// Answers of no use that are forgiven, as what they may have counted on did not come: all that are
/// under way, four times.
const MAX_FORGIVEN: u64 = 4 * MAX_REQUESTS as u64;

/// A core waits no longer than so many times its time for an answer, whatever else the remote answers
/// meanwhile.
const MAX_TIMEOUTS: u32 = 6;

/// What a request asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Wanted {
    /// The block.
    Block,
    /// Only the proof: this is how the newest length is learnt.
    Proof,
    /// Only the proof, to be kept: see [`crate::replicate::hashes`].
    Hash,
    /// Only the proof, to hold it against our log: see [`crate::replicate::probe`].
    Head,
    /// The block that holds a byte; the remote answers with that block, not with the one named.
    Byte(u64),
}

impl Wanted {
    /// Whether the answer has no value.
    const fn is_hash(self) -> bool {
        matches!(self, Self::Proof | Self::Hash | Self::Head)
    }

    /// Whether it is about the block that the request names, and no other would do.
    pub(super) const fn is_of_block(self) -> bool {
        matches!(self, Self::Block | Self::Hash)
    }
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct InFlight {
    pub(crate) index: u64,
    pub(crate) wanted: Wanted,
    pub(in crate::replicate) stamp: Stamp,
    /// It was late, and others may be asked.
    offered: bool,
    /// It told the remote that we know nodes which an earlier answer was to bring. If that one did not
    /// come, this answer proves nothing, through no fault of the remote.
    pub(in crate::replicate) unsure: bool,
    /// It was sent before the remote had the block: the answer says nothing of its pace.
    ahead: bool,
}

impl Peer {
    pub(crate) fn request(
        &mut self,
        index: u64,
        wanted: Wanted,
        nodes: u64,
        now: Instant,
    ) -> Stamp {
        let stamp = self.expect(index, wanted, false, now);
        let bytes = match wanted {
            // The same byte twice in a row is answered once (`_onbytes`). If that answer was of no
            // use, the byte before it is asked for: it is in the same block or the one before.
            Wanted::Byte(offset) if offset == self.last_bytes_asked && offset > 1 => {
                offset.saturating_sub(1)
            }
            Wanted::Byte(offset) => offset,
            Wanted::Block | Wanted::Proof | Wanted::Hash | Wanted::Head => 0,
        };
        if bytes > 0 {
            self.last_bytes_asked = bytes;
        }
        self.outbox.push(Message::Request(Request {
            index,
            bytes,
            hash: wanted.is_hash(),
            nodes,
        }));
        stamp
    }

    /// The remote is going to answer a request, which was sent now or, for a block that it did not
    /// have, `ahead`.
    pub(in crate::replicate) fn expect(
        &mut self,
        index: u64,
        wanted: Wanted,
        ahead: bool,
        now: Instant,
    ) -> Stamp {
        if self.in_flight.is_empty() {
            self.last_answer = now;
        }
        let stamp = self.pace.sent(self.in_flight.len(), now);
        self.in_flight.push_back(InFlight {
            index,
            wanted,
            stamp,
            ahead,
            offered: false,
            unsure: false,
        });
        self.account_questions();
        stamp
    }

    /// Whether it keeps what it is asked for ahead, and has told of all before.
    pub(in crate::replicate) fn may_be_asked_ahead(&self) -> bool {
        self.keeps_next && self.options.live && self.heard && self.in_flight.is_empty()
    }

    /// Asks for a block. What it was asked for before will be here by then, if it answers in order.
    pub(in crate::replicate) fn request_block(
        &mut self,
        index: u64,
        log: &Log,
        now: Instant,
    ) -> Stamp {
        let digest = if self.is_exact {
            log.digest_ahead(index, &mut self.under_way)
        } else {
            log.digest(index)
        };
        self.request(index, Wanted::Block, digest, now)
    }

    /// An answer was passed over or is of no use, and those that follow may lack what it was to bring.
    pub(in crate::replicate) fn doubt_answers(&mut self) {
        if self.is_exact {
            self.under_way = RemoteTree::default();
            for request in &mut self.in_flight {
                request.unsure = true;
            }
        }
    }

    /// Forgives answers that prove nothing because what they may have counted on did not come. False if
    /// that is too many: a liar can see to that by answering in another order, so it is done for as many
    /// as were of use, and some more.
    pub(in crate::replicate) fn forgive(&mut self, useless: usize) -> bool {
        self.forgiven = self.forgiven.saturating_add(useless as u64);
        self.forgiven <= MAX_FORGIVEN.saturating_add(self.stats.downloaded_blocks)
    }

    /// How many more requests may be sent for ranges.
    pub(crate) fn window(&self) -> usize {
        let window = self.pace.window().saturating_sub(self.in_flight.len());
        window.min(self.options.load.room())
    }

    /// How many more requests may be sent for what somebody waits for.
    pub(crate) fn urgent_window(&self) -> usize {
        let most = self.pace.window().saturating_add(URGENT);
        let window = most.saturating_sub(self.in_flight.len());
        window.min(self.options.load.room())
    }

    /// Whether there may be more to ask than other cores of the connection leave room for.
    pub(crate) fn is_starved(&self) -> bool {
        self.can_download() && self.options.load.room() == 0
    }

    pub(super) fn account_questions(&mut self) {
        let wants = self.regions_asked.in_flight;
        self.our_questions
            .set(self.in_flight.len().saturating_add(wants));
    }

    /// Whether it was asked for blocks, or what it has, and has not answered.
    pub(in crate::replicate) fn owes_answers(&self) -> bool {
        let is_wanted =
            |request: &InFlight| !matches!(request.wanted, Wanted::Head | Wanted::Proof);
        self.regions_asked.in_flight > 0 || self.in_flight.iter().any(is_wanted)
    }

    /// How long the answer to one more request will take.
    pub(in crate::replicate) fn expected(&self) -> Duration {
        self.pace.expected(self.in_flight.len())
    }

    pub(in crate::replicate) fn in_flight(
        &self,
    ) -> impl DoubleEndedIterator<Item = &InFlight> + ExactSizeIterator {
        self.in_flight.iter()
    }

    pub(in crate::replicate) fn is_asked_for(&self, wanted: Wanted) -> bool {
        self.in_flight
            .iter()
            .any(|request| request.wanted == wanted)
    }

    pub(in crate::replicate) fn is_asked_for_block(&self, index: u64) -> bool {
        let asked = |request: &InFlight| request.wanted == Wanted::Block && request.index == index;
        self.in_flight.iter().any(asked)
    }

    pub(in crate::replicate) fn is_asked_for_hash(&self, index: u64) -> bool {
        let asked = |request: &InFlight| request.wanted == Wanted::Hash && request.index == index;
        self.in_flight.iter().any(asked)
    }

    /// The block that it can be asked to prove a log longer than `length` with.
    pub(in crate::replicate) fn next_proof(&self, length: u64) -> Option<u64> {
        let may_ask =
            self.can_download() && self.urgent_window() > 0 && !self.is_asked_for(Wanted::Proof);
        self.remote.next_set(length).filter(|_| may_ask)
    }

    /// Finds the request that `index` answers, with a block of so many bytes or without one, and
    /// takes it out; `None` for an answer to nothing.
    pub(crate) fn answered(
        &mut self,
        index: u64,
        bytes: Option<u64>,
        now: Instant,
    ) -> Option<InFlight> {
        let has_value = bytes.is_some();
        let is_byte = |request: &InFlight| matches!(request.wanted, Wanted::Byte(_));
        let mut requests = self.in_flight.iter();
        // Only one that looks for a byte may stay without an answer, so it comes last. The remote
        // may have found that byte in another block than the one named.
        let found = requests
            .position(|request| {
                request.index == index && request.wanted.is_hash() != has_value && !is_byte(request)
            })
            .or_else(|| {
                self.in_flight
                    .iter()
                    .position(is_byte)
                    .filter(|_| has_value)
            })?;
        self.last_answer = now;
        self.options.load.answered(now);
        let mut before = self.in_flight.iter().take(found);
        if before.any(|request| request.wanted == Wanted::Block) {
            self.doubt_answers();
        }
        let request = self.in_flight.remove(found)?;
        if self.in_flight.is_empty() {
            self.under_way = RemoteTree::default();
        }
        self.account_questions();
        if !request.ahead {
            self.pace.answered(&request.stamp, bytes, now);
        }
        Some(request)
    }

    /// Counts an answer nobody asked for, unless it was asked for once: the remote may have dropped
    /// a block and have it again.
    pub(crate) fn unrequested(&mut self) -> Result<()> {
        if let Some(fewer) = self.given_up.checked_sub(1) {
            self.given_up = fewer;
            return Ok(());
        }
        self.unrequested = self.unrequested.saturating_add(1);
        if self.unrequested > self.options.load.limits.unrequested_blocks {
            return Err(Error::UnrequestedData);
        }
        Ok(())
    }

    pub(crate) fn received(&mut self, bytes: u64) {
        self.stats.count_download(bytes);
    }

    pub(crate) fn take_in_flight(&mut self) -> Vec<InFlight> {
        self.drop_asked_ahead();
        self.give_up(|_| true)
    }

    /// Takes out the requests of which `is_out` holds.
    pub(super) fn give_up(&mut self, is_out: impl Fn(&InFlight) -> bool) -> Vec<InFlight> {
        if !self.in_flight.iter().any(&is_out) {
            return Vec::new();
        }
        let (out, left) = self.in_flight.drain(..).partition(is_out);
        self.in_flight = left;
        self.account_questions();
        self.doubt_answers();
        let out: Vec<_> = VecDeque::into(out);
        self.gave_up(out.len());
        out
    }

    /// So many requests were given up and may be answered all the same.
    pub(in crate::replicate) fn gave_up(&mut self, requests: usize) {
        // Most are refused for good, so that this would grow with every one of them.
        self.given_up = self.given_up.saturating_add(requests).min(MAX_REQUESTS);
    }

    /// When something is to be done about what the remote leaves unanswered.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let next = self.in_flight.iter().find(|request| !request.offered);
        let late = next.and_then(|request| request.stamp.late_at());
        let deadlines = [
            late,
            self.timeout_at(),
            self.byte_timeout_at(),
            self.news_deadline(),
        ];
        deadlines.into_iter().flatten().min()
    }

    /// Since when there was no answer to any request, or to any Want.
    fn silent_since(&self) -> Option<Instant> {
        let request = self.in_flight.front();
        let request = request.map(|oldest| oldest.stamp.sent.max(self.last_answer));
        let requests = [request, self.regions_asked.silent_since];
        requests.into_iter().flatten().min()
    }

    /// When a request for a byte will be given up. Unlike [`Self::timeout_at`] it is not put off by answers for
    /// other cores: this request may never be answered.
    fn byte_timeout_at(&self) -> Option<Instant> {
        let mut requests = self.in_flight.iter();
        let byte = requests.find(|request| matches!(request.wanted, Wanted::Byte(_)))?;
        let since = byte.stamp.sent.max(self.last_sign());
        since.checked_add(self.options.timeout?)
    }

    /// When the remote was last busy with us: it answered, or bytes of a long answer came.
    fn last_sign(&self) -> Instant {
        let heard = self.options.load.last_heard();
        heard.unwrap_or(self.last_answer).max(self.last_answer)
    }

    /// When a request will have waited for too long.
    fn timeout_at(&self) -> Option<Instant> {
        let timeout = self.options.timeout?;
        let load = &self.options.load;
        let since = self.silent_since()?;
        // On a slow connection with many cores each waits for long while the others are answered.
        let others = load.last_answered().unwrap_or(since).max(since);
        let most = since.checked_add(timeout.checked_mul(MAX_TIMEOUTS - 1)?)?;
        let heard = load.last_heard().unwrap_or(since);
        others.min(most).max(heard).checked_add(timeout)
    }

    /// The requests that have become late.
    pub(in crate::replicate) fn take_late(&mut self, now: Instant) -> Vec<InFlight> {
        let is_late = |stamp: &Stamp| stamp.late_at().is_some_and(|at| at <= now);
        let late = self
            .in_flight
            .iter_mut()
            .filter(|request| !request.offered && is_late(&request.stamp));
        let take = |request: &mut InFlight| {
            request.offered = true;
            *request
        };
        late.map(take).collect()
    }

    /// Gives up on requests that were left unanswered. Those for a byte are dropped in silence by
    /// Node's peers when they come twice, so they are merely forgotten.
    pub(crate) fn check_deadline(&mut self, now: Instant) -> Result<Vec<InFlight>> {
        if self.is_overrun {
            let most = self.options.load.limits.unsent_news;
            let max = most.saturating_mul(size_of::<Message>());
            let buffered = max.saturating_add(size_of::<Message>());
            return Err(hypercore_wire::Error::SendBufferFull { buffered, max }.into());
        }
        let last = self.last_sign();
        let timeout = self.options.timeout;
        let forgotten = self.give_up(|request| {
            let is_byte = matches!(request.wanted, Wanted::Byte(_));
            let since = request.stamp.sent.max(last);
            let at = timeout.and_then(|timeout| since.checked_add(timeout));
            is_byte && at.is_some_and(|at| at <= now)
        });
        if self.timeout_at().is_some_and(|at| at <= now) {
            let seconds = self
                .options
                .timeout
                .map_or(0, |timeout: Duration| timeout.as_secs());
            return Err(Error::RequestTimeout { seconds });
        }
        Ok(forgotten)
    }

    #[cfg(any(test, feature = "fuzzing"))]
    pub(super) fn check_requests(&self) {
        assert!(self.in_flight.len() <= MAX_REQUESTS + URGENT);
        assert!(self.given_up <= MAX_REQUESTS);
        let most = self.options.load.limits.unrequested_blocks;
        assert!(self.unrequested <= most.saturating_add(1));
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::Arc;

    use hypercore_wire::{Role, Session, SessionOptions, Unhave};

    use super::*;
    use crate::{
        event::PeerId,
        replicate::{load::Load, options::PeerOptions},
    };

    const TIMEOUT: Duration = Duration::from_secs(20);

    pub(in crate::replicate::peer) fn peer(now: Instant) -> Peer {
        peer_on(&Load::default(), now)
    }

    /// A peer on the connection with this load.
    pub(in crate::replicate::peer) fn peer_on(load: &Load, now: Instant) -> Peer {
        let options = SessionOptions::new(Role::Initiator).expect("there is randomness");
        let mut session = Session::new(options, now).expect("there is randomness");
        let channel = session.open(&[7; 32]).expect("it is the first");
        let options = PeerOptions {
            live: true,
            ack: false,
            download: true,
            upload: true,
            timeout: Some(TIMEOUT),
            own_extensions: true,
            extension_message: 64 << 10,
            load: load.clone(),
        };
        Peer::new(PeerId(1), options, Arc::default(), channel, now)
    }

    #[test]
    fn a_byte_that_was_not_found_is_looked_for_again() {
        let start = Instant::now();
        let mut peer = peer(start);
        peer.request(3, Wanted::Byte(100), 0, start);
        let later = start + TIMEOUT;
        let forgotten = peer.check_deadline(later).expect("it may be asked again");
        assert_eq!(forgotten.len(), 1);
        peer.request(3, Wanted::Byte(100), 0, later);
        assert_eq!(peer.timeout_at(), Some(later + TIMEOUT));
    }

    /// The peer was closed, for leaving the request for the block unanswered.
    #[test]
    fn an_answer_is_for_the_request_that_names_the_block() {
        let now = Instant::now();
        let mut peer = peer(now);
        peer.request(0, Wanted::Byte(1), 0, now);
        peer.request(0, Wanted::Block, 0, now);
        let answered = |peer: &mut Peer| peer.answered(0, Some(9), now).map(|it| it.wanted);
        assert_eq!(answered(&mut peer), Some(Wanted::Block));
        assert_eq!(answered(&mut peer), Some(Wanted::Byte(1)));
        assert_eq!(answered(&mut peer), None);
    }

    /// The peer was closed, for leaving unanswered what it had refused.
    #[test]
    fn whoever_has_no_proof_refuses_the_request_for_it() {
        let now = Instant::now();
        let mut peer = peer(now);
        let unhave = |start, length| Unhave { start, length };
        for wanted in [Wanted::Head, Wanted::Proof] {
            peer.request(7, wanted, 0, now);
            let mut refused = |unhave| peer.on_unhave(&unhave).expect("it has nothing").len();
            assert_eq!(refused(unhave(0, 100)), 0, "of blocks, not of proofs");
            assert_eq!((refused(unhave(8, 1)), refused(unhave(7, 1))), (0, 1));
        }
    }

    /// It was waited for until it was given up.
    #[test]
    fn whoever_has_no_block_to_look_in_refuses_the_byte() {
        let now = Instant::now();
        let mut peer = peer(now);
        let unhave = |start, length| Unhave { start, length };
        peer.request(7, Wanted::Byte(100), 0, now);
        let mut refused = |unhave| peer.on_unhave(&unhave).expect("it has nothing").len();
        assert_eq!(refused(unhave(0, 100)), 0, "it may be in another block");
        assert_eq!((refused(unhave(8, 1)), refused(unhave(7, 1))), (0, 1));
    }

    /// One that answers nothing else could hold up everything for ever.
    #[test]
    fn answers_for_other_cores_put_off_the_end_and_not_for_ever() {
        let (start, load) = (Instant::now(), Load::default());
        let [mut silent, mut heard] = [0, 1].map(|_| peer_on(&load, start));
        silent.request(0, Wanted::Block, 0, start);
        let mut now = start;
        while silent.check_deadline(now).is_ok() {
            assert!(now < start + 10 * TIMEOUT, "it is waited for ever");
            now += TIMEOUT / 2;
            heard.request(0, Wanted::Block, 0, now);
            heard.answered(0, Some(1), now);
        }
        assert!(now > start + 4 * TIMEOUT, "{:?}", now - start);
    }

    /// It was given up the moment it was asked for, without end.
    #[test]
    fn a_byte_waits_its_own_time_beside_older_requests() {
        let (start, load) = (Instant::now(), Load::default());
        let [mut silent, mut heard] = [0, 1].map(|_| peer_on(&load, start));
        for wanted in [Wanted::Block, Wanted::Byte(100)] {
            silent.request(5, wanted, 0, start);
        }
        let later = start + TIMEOUT;
        heard.request(0, Wanted::Block, 0, later);
        heard.answered(0, Some(1), later);
        let mut forgotten = || {
            silent
                .check_deadline(later)
                .expect("others are answered")
                .len()
        };
        assert_eq!(forgotten(), 1);
        silent.request(5, Wanted::Byte(100), 0, later);
        assert!(silent.byte_timeout_at() == Some(later + TIMEOUT));
        assert!(silent.check_deadline(later).is_ok_and(|it| it.is_empty()));
    }

    #[test]
    fn so_many_blocks_come_that_nobody_asked_for() {
        let mut peer = peer(Instant::now());
        (0..16).for_each(|_| peer.unrequested().expect("it may have crossed a Cancel"));
        assert!(matches!(peer.unrequested(), Err(Error::UnrequestedData)));
    }

    #[test]
    fn so_many_answers_of_no_use_are_forgiven() {
        let mut peer = peer(Instant::now());
        peer.stats.downloaded_blocks = 10;
        assert!(peer.forgive(2058) && !peer.forgive(1));
    }

    /// It was asked for the byte again and again, as fast as the processor could.
    #[test]
    fn a_byte_does_not_excuse_what_else_was_left_unanswered() {
        let start = Instant::now();
        let mut peer = peer(start);
        peer.request(5, Wanted::Block, 0, start);
        peer.request(3, Wanted::Byte(100), 0, start);
        let timed_out = peer.check_deadline(start + TIMEOUT);
        assert!(matches!(timed_out, Err(Error::RequestTimeout { .. })));
    }
}
