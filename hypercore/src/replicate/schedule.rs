//! What to ask, and of whom.
//!
//! A peer is asked as soon as it may be: when it has told what it has, when it has answered, and
//! when somebody wants something. It is asked, in this order, for
//!
//! 1. blocks that somebody waits for, those first that were wanted first;
//! 2. blocks that another peer should have sent by now;
//! 3. positions of bytes, the newest length, and proofs by themselves;
//! 4. ranges, oldest first, but for a few blocks that the peer has just come to have. Where all is wanted, the blocks come first that fewest others have;
//! 5. if nothing of that is left, blocks that another peer will not have sent for a while;
//! 6. and the block that comes next, before it is there.
//!
//! How much a peer is asked for at one time is up to its [`Pace`](super::pace::Pace). Nothing is
//! taken back from a peer that is slow: what it was asked for is asked of another one too, and
//! whatever comes first counts.
//!
//! Every peer remembers [how far it was looked through](super::scan), so that looking again costs nothing
//! where nothing has changed.

use std::{
    ops::Range,
    time::{Duration, Instant},
};

use hypercore_bitfield::Bitfield;

use super::{
    Replicator,
    demand::Demand,
    hashes,
    peer::{InFlight, Peer, Wanted},
    probe::probe,
    scan,
};
use crate::{event::PeerId, log::Log, span::one_block};

/// Newly announced blocks that are compared with those waited for, one by one.
const ANNOUNCED: usize = 32;

/// Runs of blocks with the same holders that are compared, to find the one with the fewest.
const RARE_RUNS: usize = 16;

/// Blocks of the run with the fewest holders that are asked for before runs are compared again. What
/// peers have changes all the time.
const RARE_BLOCKS: u64 = 64;

/// A second peer is not worth asking to be done sooner by less than this.
const WORTHWHILE: Duration = Duration::from_millis(20);

impl Replicator {
    /// Asks for what is wanted, and of this peer.
    pub(super) fn ask(&mut self, id: PeerId, log: &Log, now: Instant) {
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        send_wants(peer, &self.demand, log.length());
        self.ask_for_gets(id, log, now);
        self.ask_for_late(id, log, now);
        self.ask_for_positions(id, log, now);
        self.ask_for_length(id, log, now);
        self.ask_for_hashes(id, log, now);
        self.ask_for_ranges(id, log, now);
        self.ask_again(id, log, now);
        self.ask_ahead(id, log);
    }

    /// Asks a peer for a block.
    fn request(&mut self, id: PeerId, index: u64, log: &Log, now: Instant) {
        if let Some(peer) = self.peers.get_mut(&id) {
            // First of all: what we say of our tree in other requests is left out of its answer.
            probe(peer, log, now);
            let stamp = peer.request_block(index, log, now);
            self.asked.insert(index, id, stamp);
            self.demand.dequeue(index);
        }
    }

    // ---- blocks that somebody waits for -----------------------------------------------------

    /// Somebody waits for block `index` from now on: asks the peer that will be the first to send
    /// it.
    pub(crate) fn place(&mut self, index: u64, log: &Log, now: Instant) {
        let may_ask = index < self.end_of_use(log);
        let free = self.peers.values().filter(|peer| {
            may_ask && peer.can_download() && peer.remote.get(index) && peer.urgent_window() > 0
        });
        let best = free
            .min_by_key(|peer| peer.expected())
            .map(|peer| (peer.id, peer.expected()));
        match (self.asked.remaining(index, now), best) {
            (None, Some((peer, _))) => {
                self.request(peer, index, log, now);
                self.wake(peer);
            }
            (None, None) => {
                self.demand.enqueue(index);
                // Perhaps one of them has it; and one that surely has it, and no room for another
                // question, asks as soon as it has.
                let holders = self.peers.values().filter(|peer| {
                    let may_send = peer.may_have(index) || self.leader == Some(peer.id);
                    may_send && peer.can_download()
                });
                holders.for_each(|peer| peer.wake());
            }
            (Some(remaining), Some((_, expected))) if is_worthwhile(remaining, expected) => {
                self.asked.offer(index);
                self.wake_holders(index);
            }
            (Some(_), _) => {}
        }
    }

    /// A peer has `blocks` now that it did not have: asks it for those that somebody waits for.
    pub(super) fn place_announced(
        &mut self,
        id: PeerId,
        mut blocks: Range<u64>,
        log: &Log,
        now: Instant,
    ) {
        blocks.start = log.bitfield().next_clear(blocks.start);
        if blocks.is_empty() {
            return;
        }
        let end = self.end_of_use(log);
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        peer.scan.rewind(&blocks, &self.demand.downloads);
        peer.hash_scan.rewind();
        let wanted = self.demand.wanted_blocks(blocks).take(ANNOUNCED);
        let wanted: Vec<_> = wanted.collect();
        if wanted.len() == ANNOUNCED {
            peer.scan.rewind_gets();
            return;
        }
        for index in wanted {
            let Some(peer) = self.peers.get_mut(&id) else {
                return;
            };
            let Some(serial) = self.demand.queued(index) else {
                continue;
            };
            if !peer.remote.get(index) || index >= end {
                continue;
            }
            if peer.can_download() && peer.urgent_window() > 0 && !peer.is_outbox_full() {
                self.request(id, index, log, now);
            } else {
                peer.scan.get = peer.scan.get.min(serial);
            }
        }
    }

    fn ask_for_gets(&mut self, id: PeerId, log: &Log, now: Instant) {
        let end = self.end_of_use(log);
        while let Some(peer) = self.peers.get_mut(&id)
            && peer.urgent_window() > 0
        {
            let mut passed = peer.scan.get;
            let found = self.demand.queue(passed).find(|&(serial, index)| {
                passed = serial;
                index < end && peer.remote.get(index)
            });
            peer.scan.get = match found {
                Some(_) => passed,
                None => self.demand.next_serial(),
            };
            let Some((_, index)) = found else {
                return;
            };
            self.request(id, index, log, now);
        }
    }

    // ---- positions --------------------------------------------------------------------------

    fn ask_for_positions(&mut self, id: PeerId, log: &Log, now: Instant) {
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        for seeking in self.demand.seeks() {
            if seeking.offset >= log.byte_length() && self.refuses_growth {
                continue;
            }
            let blocks = seeking.blocks_to_ask(log);
            let wanted = Wanted::Byte(seeking.offset);
            if peer.urgent_window() > 0
                && !peer.is_asked_for(wanted)
                && !peer.unproven.has_byte(seeking.offset)
                && let Some(index) = scan::next_to_ask(peer, log.bitfield(), &self.asked, blocks)
            {
                peer.request(index, wanted, log.digest(index), now);
            }
        }
    }

    fn ask_for_length(&mut self, id: PeerId, log: &Log, now: Instant) {
        let length = log.length();
        if self.update_from.is_some()
            || self.refuses_growth
            || self.demand.wanted_length(length).is_none()
        {
            return;
        }
        let Some(peer) = self.peers.get(&id) else {
            return;
        };
        if peer.next_proof(length).is_none() {
            return;
        }
        let turn = self.whose_turn(id, length);
        if let Some(peer) = self.peers.get_mut(&turn)
            && let Some(index) = peer.next_proof(length)
        {
            self.update_from = Some(turn);
            peer.request(index, Wanted::Proof, log.digest(index), now);
            if turn != id {
                peer.wake();
            }
        }
    }

    /// Who is to prove a greater length when peer `id` can be asked: it, unless it has just failed to
    /// and another one has not. It may say that it has any number of blocks and refuse one after the
    /// other.
    fn whose_turn(&mut self, id: PeerId, length: u64) -> PeerId {
        if self.peers.get(&id).is_none_or(|peer| !peer.passed_over) {
            return id;
        }
        let mut others = self.peers.values();
        let next = others.find(|other| !other.passed_over && other.next_proof(length).is_some());
        if let Some(next) = next {
            return next.id;
        }
        // All had their turn.
        for peer in self.peers.values_mut() {
            peer.passed_over = false;
        }
        id
    }

    fn ask_for_hashes(&mut self, id: PeerId, log: &Log, now: Instant) {
        let end = self.end_of_use(log);
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        let asked = &mut self.hashes_asked;
        while peer.window() > 0 {
            // Whoever was asked for one of two twins will prove both.
            let is_asked = |peer: &Peer, block| {
                let twins = [block, hashes::twin(block)];
                twins.iter().any(|twin| asked.contains_key(twin))
                    || twins.iter().any(|&twin| peer.is_asked_for_hash(twin))
            };
            let Some(index) = self.demand.hashes.next(peer, log, end, is_asked) else {
                return;
            };
            asked.insert(index, id);
            peer.request(index, Wanted::Hash, log.digest(index), now);
        }
    }

    // ---- ranges -----------------------------------------------------------------------------

    fn ask_for_ranges(&mut self, id: PeerId, log: &Log, now: Instant) {
        let stored = log.bitfield();
        while !self.asked.is_full() && self.peers.get(&id).is_some_and(|peer| peer.window() > 0) {
            let found = self.next_of_downloads(id, log);
            let Some(index) = found.or_else(|| self.next_of_everything(id, stored)) else {
                return;
            };
            self.request(id, index, log, now);
        }
    }

    /// The next block to ask a peer for of those that somebody wants whole sets of.
    fn next_of_downloads(&mut self, id: PeerId, log: &Log) -> Option<u64> {
        let end = self.end_of_use(log);
        let peer = self.peers.get_mut(&id)?;
        let downloads = &self.demand.downloads;
        scan::next_of_downloads(downloads, peer, log.bitfield(), &self.asked, end)
    }

    /// A block to ask a peer for when all are wanted: of those that come next, one that few others
    /// have.
    fn next_of_everything(&mut self, id: PeerId, stored: &Bitfield) -> Option<u64> {
        if !self.demand.everything {
            return None;
        }
        let peer = self.peers.get_mut(&id)?;
        let (start, end) = peer.scan.rare;
        let mut rare = match scan::next_to_ask(peer, stored, &self.asked, start..end) {
            Some(found) => found..end,
            None => {
                let first = scan::next_of_everything(0, peer, stored, &self.asked);
                peer.scan.pass_everything_before(first);
                self.rarest_run(self.peers.get(&id)?, first?, stored)
            }
        };
        let found = rare.next();
        self.peers.get_mut(&id)?.scan.rare = (rare.start, rare.end);
        found
    }

    /// Of the runs of blocks from `first` on that this peer can be asked for and that have the same
    /// holders, the one that has fewest, as far as a short search tells.
    fn rarest_run(&self, peer: &Peer, first: u64, stored: &Bitfield) -> Range<u64> {
        let others = self.peers.values();
        let others = others.filter(|other| other.id != peer.id && other.can_download());
        let others: Vec<_> = others.collect();
        let mut rarest = (usize::MAX, first..first);
        let mut next = Some(first);
        for _ in 0..RARE_RUNS {
            let Some(start) = next else {
                break;
            };
            let (mut holders, mut end) = (0usize, peer.remote.next_clear(start));
            for other in &others {
                let changes = if other.remote.get(start) {
                    holders = holders.saturating_add(1);
                    Some(other.remote.next_clear(start))
                } else {
                    other.remote.next_set(start)
                };
                end = changes.map_or(end, |changes| end.min(changes));
            }
            if holders < rarest.0 {
                rarest = (holders, start..end.min(start.saturating_add(RARE_BLOCKS)));
            }
            if holders == 0 {
                break;
            }
            next = scan::next_of_everything(end, peer, stored, &self.asked);
        }
        rarest.1
    }

    // ---- asking more than one ---------------------------------------------------------------

    /// A peer is silent: lets others be asked for what it should have sent by now.
    pub(crate) fn offer_late(&mut self, id: PeerId, now: Instant) {
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        let late = peer.take_late(now);
        let mut frees_hashes = false;
        for InFlight { index, wanted, .. } in late {
            match wanted {
                Wanted::Block if self.demand.wants(index) => {
                    self.asked.offer(index);
                    self.look_for(index);
                    self.wake_holders(index);
                }
                Wanted::Proof => self.pass_over(id),
                Wanted::Hash => frees_hashes |= self.free_hash(id, index),
                _ => {}
            }
        }
        if frees_hashes {
            self.retry_hashes();
        }
    }

    fn ask_for_late(&mut self, id: PeerId, log: &Log, now: Instant) {
        let Some(peer) = self.peers.get(&id) else {
            return;
        };
        let offered = self.asked.offered_to(id).filter(|&index| {
            peer.remote.get(index) && !peer.is_asked_for_block(index) && self.demand.wants(index)
        });
        let offered: Vec<_> = offered.take(peer.urgent_window()).collect();
        for index in offered {
            self.request(id, index, log, now);
        }
    }

    /// Asks a peer that has nothing else to do for what others will not have sent for a while.
    fn ask_again(&mut self, id: PeerId, log: &Log, now: Instant) {
        while self.asked.has_spare()
            && let Some(index) = self.slowest(id, now)
        {
            self.asked.spend();
            self.request(id, index, log, now);
        }
    }

    /// The block that will be the last to come and that this peer could send much sooner.
    fn slowest(&self, id: PeerId, now: Instant) -> Option<u64> {
        let peer = self.peers.get(&id).filter(|peer| peer.window() > 0)?;
        if self.asked.len() <= peer.in_flight().len() {
            return None;
        }
        // Most have nothing of it while one has all, and looking through all others takes long.
        let asked = self.asked.bounds()?;
        peer.remote
            .next_set(asked.start)
            .filter(|&block| block < asked.end)?;
        let expected = peer.expected();
        let others = self.peers.values().filter(|other| other.id != id);
        let last = others.filter_map(|other| {
            let request = other.in_flight().rev().find(|request| {
                request.wanted == Wanted::Block
                    && peer.remote.get(request.index)
                    && self.asked.is_asked_once(request.index)
                    && self.demand.wants(request.index)
            })?;
            let remaining = request.stamp.remaining(now);
            is_worthwhile(remaining, expected).then_some((remaining, request.index))
        });
        last.max().map(|(_, index)| index)
    }

    /// A peer will not answer these requests, or not to any use.
    pub(super) fn release(&mut self, id: PeerId, requests: impl IntoIterator<Item = InFlight>) {
        let mut frees_hashes = false;
        for request in requests {
            match request.wanted {
                Wanted::Block => {
                    if self.asked.remove(request.index) {
                        self.free(request.index);
                    }
                }
                Wanted::Proof => self.pass_over(id),
                Wanted::Hash => frees_hashes |= self.free_hash(id, request.index),
                Wanted::Byte(_) | Wanted::Head => {}
            }
        }
        if frees_hashes {
            self.retry_hashes();
        }
    }

    /// A peer does not prove a greater length, or not in time.
    fn pass_over(&mut self, id: PeerId) {
        if let Some(peer) = self.peers.get_mut(&id) {
            peer.passed_over = true;
        }
        if self.update_from == Some(id) {
            self.update_from = None;
            self.wake_all();
        }
    }

    /// A peer does not prove block `index`, or not in time. Returns whether nobody was asked after it.
    fn free_hash(&mut self, id: PeerId, index: u64) -> bool {
        let last = self.hashes_asked.get(&index);
        let is_free = last.is_none_or(|&last| last == id);
        if is_free {
            self.hashes_asked.remove(&index);
        }
        is_free
    }

    /// Peers may be asked for proofs that they could not be asked for before.
    pub(super) fn retry_hashes(&mut self) {
        for peer in self.peers.values_mut() {
            peer.hash_scan.rewind();
            peer.wake();
        }
    }

    /// Blocks from here on are not asked for: what peers have of them is not taken in.
    pub(super) fn end_of_use(&self, log: &Log) -> u64 {
        if self.refuses_growth {
            log.length()
        } else {
            u64::MAX
        }
    }

    /// What peers have sent to no use is taken in from now on: asks for it again.
    pub(crate) fn ask_anew(&mut self) {
        self.refuses_growth = false;
        for peer in self.peers.values_mut() {
            peer.scan.rewind(&(0..u64::MAX), &self.demand.downloads);
            peer.scan.rewind_gets();
            peer.hash_scan.rewind();
            peer.wake();
        }
    }

    /// Nobody is asked for a block any more.
    pub(super) fn free(&mut self, index: u64) {
        let queued = self.demand.enqueue(index);
        let block = one_block(index);
        for peer in self.peers.values_mut() {
            peer.scan.rewind(&block, &self.demand.downloads);
            if let Some(serial) = queued {
                peer.scan.get = peer.scan.get.min(serial);
            }
        }
        if queued.is_some() {
            self.look_for(index);
        }
        self.wake_holders(index);
    }

    /// Asks about block `index` those that were not asked before, as another one had it.
    fn look_for(&mut self, index: u64) {
        for peer in self.peers.values_mut() {
            if peer.can_be_asked_about(index) {
                peer.want(index);
                peer.wake();
            }
        }
    }

    fn wake(&self, id: PeerId) {
        if let Some(peer) = self.peers.get(&id) {
            peer.wake();
        }
    }

    /// Wakes those who may be asked for a block.
    fn wake_holders(&self, index: u64) {
        for peer in self.peers.values().filter(|peer| peer.remote.get(index)) {
            peer.wake();
        }
    }
}

/// Whether a block that comes in `remaining` from one peer should be asked of another one that
/// sends it in `expected`.
fn is_worthwhile(remaining: Duration, expected: Duration) -> bool {
    remaining > expected.saturating_mul(2).saturating_add(WORTHWHILE)
}

/// Asks what the remote has wherever somebody looks for something (`_sendWants`).
fn send_wants(peer: &mut Peer, demand: &Demand, length: u64) {
    // This is how the remote learns that we listen.
    peer.want(0);
    let from = std::mem::replace(&mut peer.scan.seen, demand.next_serial());
    let from = if peer.take_wants_due(length) { 0 } else { from };
    if from >= demand.next_serial() {
        return;
    }
    for (_, index) in demand.queue(from) {
        peer.want(index);
    }
    for hashes in demand.hashes.iter() {
        peer.want_blocks(&hashes.blocks, length);
    }
    for seeking in demand.seeks() {
        peer.want_blocks(&seeking.blocks.clone().into(), length);
    }
    let mut next = from;
    while let Some((serial, download)) = demand.downloads.next(next) {
        peer.want_blocks(&download.blocks, length);
        next = serial.saturating_add(1);
    }
    if demand.everything {
        peer.want_blocks(&(0..u64::MAX).into(), length);
    }
}
