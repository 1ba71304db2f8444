//! What the remote has, as far as it told us, and what we ask it about that.

use std::{collections::BTreeSet, ops::Range, time::Instant};

use hypercore_wire::{Have, Message, Status, Unhave, Want};

use super::{InFlight, News, OPEN_TIMEOUT, Peer, Stage, Wanted};
use crate::{block_set::BlockSet, error::Result, log::Log, span::length_of};

/// Blocks are asked about in regions of this size, aligned (`_sendWant`).
const REGION: u64 = 1024 * 1024;

/// Wants without an answer at one time (`_sendWants`).
const MAX_WANTS: usize = 16;

/// Regions that one peer is asked about: 2^36 blocks.
const MAX_REGIONS: usize = 65_536;

/// The regions that the remote was asked about.
#[derive(Debug)]
pub(super) struct RegionsAsked {
    regions: BTreeSet<u64>,
    /// All regions below were asked about.
    next: u64,
    /// How many regions the log had when the remote was asked last.
    of_log: u64,
    /// Wants without an answer.
    pub(super) in_flight: usize,
    /// Since when none of them was answered, as far as that was noted.
    pub(super) silent_since: Option<Instant>,
    /// There is room for Wants where there was none, or more to ask about.
    pub(super) due: bool,
}

impl Default for RegionsAsked {
    fn default() -> Self {
        Self {
            regions: BTreeSet::new(),
            next: 0,
            of_log: 0,
            in_flight: 0,
            silent_since: None,
            due: true,
        }
    }
}

impl RegionsAsked {
    /// Whether these are fewer than one peer is ever asked about.
    fn has_room(&self) -> bool {
        self.regions.len() < MAX_REGIONS
    }

    /// The first region that was not asked about.
    fn first_not_asked(&mut self) -> u64 {
        while self.regions.contains(&self.next) {
            self.next = self.next.saturating_add(1);
        }
        self.next
    }

    /// The remote does not answer: it is asked again should it change its mind.
    fn reset(&mut self) {
        self.in_flight = 0;
        self.silent_since = None;
        self.due = true;
        self.regions.clear();
        self.next = 0;
    }
}

impl Peer {
    /// Returns the blocks that it speaks of, without those at the start that it was known to have.
    pub(crate) fn on_have(&mut self, have: &Have, now: Instant) -> Result<Range<u64>> {
        self.heard = true;
        let length = have.length;
        if length == REGION && have.bitfield.is_some() {
            // The answer to a Want.
            let asked = &mut self.regions_asked;
            asked.in_flight = asked.in_flight.saturating_sub(1);
            asked.silent_since = None;
            asked.due = true;
            self.options.load.answered(now);
            self.account_questions();
        }
        let bound = self.remote.bound();
        let mut blocks = have.start..have.start.saturating_add(length.max(1));
        if let Some(bitfield) = &have.bitfield {
            let window = window(length, self.options.load.limits.remote_bitfield);
            let covered = self.remote.apply_rle(have.start, bitfield, window)?;
            blocks.end = have.start.saturating_add(covered);
            self.unproven.told(&blocks);
        } else {
            let new = self.remote.next_clear(blocks.start);
            self.remote.set_range(blocks.clone(), true)?;
            self.unproven.told(&blocks);
            blocks.start = new.min(blocks.end);
        }
        self.account_remote()?;
        self.regions_asked.due |= bound.div_ceil(REGION) < self.remote.bound().div_ceil(REGION);
        Ok(blocks)
    }

    /// Returns the requests it will not answer.
    pub(crate) fn on_unhave(&mut self, unhave: &Unhave) -> Result<Vec<InFlight>> {
        let blocks = unhave.start..unhave.start.saturating_add(unhave.length.max(1));
        self.unproven.told(&blocks);
        self.set_remote(blocks.clone(), false)?;
        // A proof may be here without the block, and a byte in another: they are refused by the name
        // of that block alone.
        let is_of_one = length_of(&blocks) == 1;
        let refused = |request: &InFlight| {
            let is_refusable = is_of_one || request.wanted.is_of_block();
            is_refusable && blocks.contains(&request.index)
        };
        self.ahead.refused(&blocks);
        Ok(self.give_up(refused))
    }

    /// The remote has all of `blocks`, or none.
    pub(in crate::replicate) fn set_remote(&mut self, blocks: Range<u64>, has: bool) -> Result<()> {
        self.remote.set_range(blocks, has)?;
        self.account_remote()
    }

    /// Counts the memory for what the remote says it has.
    fn account_remote(&mut self) -> Result<()> {
        let of_reader = self.options.load.limits.reader_bitfield;
        if !self.downloading && self.remote.memory() > of_reader {
            // It is asked for nothing. Should that change, it is asked what it has once more.
            self.remote.forget_all_but_last();
            self.regions_asked.reset();
            self.account_questions();
        }
        let memory = self.remote.memory();
        let of_connection = self.remote_memory.set(memory);
        let of_all = self.remote_memory_of_all.set(memory);
        let is_large = memory > of_reader;
        let limits = &self.options.load.limits;
        let limit = if of_connection > limits.remote_bitfields {
            limits.remote_bitfields
        } else if is_large && of_all > limits.all_remote_bitfields {
            limits.all_remote_bitfields
        } else {
            return Ok(());
        };
        Err(hypercore_bitfield::Error::MemoryLimit { limit }.into())
    }

    /// Stores what the remote does from now on. Returns the requests it will not answer any more.
    pub(crate) fn on_status(&mut self, status: &Status) -> Vec<InFlight> {
        self.remote_uploading = status.uploading;
        self.remote_downloading = status.downloading;
        // One that downloads has asked for news before it says that it has enough; a writer asks later.
        self.remote_satisfied = !status.downloading && self.remote_wants;
        if status.downloading {
            self.news = News::None;
        }
        if status.uploading {
            return Vec::new();
        }
        self.regions_asked.reset();
        self.account_questions();
        self.probed &= !self.is_asked_for(Wanted::Head);
        self.take_in_flight()
    }

    /// Whether we may ask this remote for anything.
    pub(crate) fn can_download(&self) -> bool {
        self.stage == Stage::Open && self.downloading && self.remote_uploading
    }

    /// Whether it has told us all we asked about what it has, or never will.
    pub(crate) fn is_settled(&self) -> bool {
        match self.stage {
            Stage::Opening => self.tell_by.is_none(),
            Stage::Open => {
                !self.can_download() || (self.heard && self.regions_asked.in_flight == 0)
            }
            Stage::Done => true,
        }
    }

    /// Whether it has told us anything of what it has, or has had its time to.
    pub(crate) fn has_told(&self) -> bool {
        self.is_settled() || self.tell_deadline().is_none()
    }

    /// Whether the connection to `other` has to wait for what this one tells. Those that come later do not
    /// hold it up: there may always be another.
    pub(crate) fn may_hold_up(&self, other: Instant) -> bool {
        !self.has_told() && self.attached.saturating_duration_since(other) <= OPEN_TIMEOUT
    }

    /// When it is to be given up on that it opens the core and tells what it has.
    pub(in crate::replicate) fn tell_deadline(&self) -> Option<Instant> {
        self.tell_by.filter(|_| match self.stage {
            Stage::Opening => true,
            Stage::Open => !self.heard,
            Stage::Done => false,
        })
    }

    /// Gives up on that if it is time to; whether that is news.
    pub(crate) fn give_up_opening(&mut self, now: Instant) -> bool {
        let is_due = self.tell_deadline().is_some_and(|at| at <= now);
        if is_due {
            self.tell_by = None;
        }
        is_due
    }

    /// Whether it might send block `index`, for all we know.
    pub(crate) fn may_have(&self, index: u64) -> bool {
        self.can_download() && self.remote.get(index)
            || self.can_be_asked_about(index)
            || self.is_asked_for_block(index)
    }

    /// Whether it might have one of `blocks` that we lack, for all we know.
    pub(crate) fn may_have_missing(&self, blocks: &Range<u64>, log: &Log) -> bool {
        let mut next = blocks.start;
        while let Some(index) = self.remote.next_set(next).filter(|&it| it < blocks.end) {
            let missing = log.bitfield().next_clear(index);
            if missing == index {
                return true;
            }
            next = missing;
        }
        let end = self.remote.bound().max(log.length()).min(blocks.end);
        let asked = &self.regions_asked;
        let mut regions = asked.next.max(blocks.start / REGION)..end.div_ceil(REGION);
        asked.has_room() && regions.any(|region| !asked.regions.contains(&region))
    }

    /// Whether we could still ask it whether it has block `index`.
    pub(crate) fn can_be_asked_about(&self, index: u64) -> bool {
        let asked = &self.regions_asked;
        self.can_download() && asked.has_room() && !asked.regions.contains(&(index / REGION))
    }

    /// Asks what the remote has in the region of `index`, once.
    pub(crate) fn want(&mut self, index: u64) {
        let region = index / REGION;
        if self.options.load.room() == 0 {
            self.regions_asked.due = true;
            return;
        }
        let asked = &mut self.regions_asked;
        if asked.in_flight >= MAX_WANTS || !asked.has_room() || !asked.regions.insert(region) {
            return;
        }
        asked.in_flight = asked.in_flight.saturating_add(1);
        self.account_questions();
        self.outbox.push(Message::Want(Want {
            start: region.saturating_mul(REGION),
            length: REGION,
        }));
    }

    /// From now on it has its time to answer the next Want, unless it has that already.
    pub(crate) fn note_wants(&mut self, now: Instant) {
        let asked = &mut self.regions_asked;
        if asked.in_flight > 0 {
            asked.silent_since.get_or_insert(now);
        }
    }

    /// Asks about the regions of `blocks` not asked about yet, as far as the remote's blocks go, or the
    /// log if that is longer: a remote that lacks the last blocks does not say how far that is.
    pub(crate) fn want_blocks(&mut self, blocks: &BlockSet, length: u64) {
        let bound = self.remote.bound().max(length);
        let mut region = self.regions_asked.first_not_asked();
        while self.regions_asked.in_flight < MAX_WANTS
            && self.regions_asked.has_room()
            && self.options.load.room() > 0
            && let Some(run) = blocks.runs_from(region.saturating_mul(REGION)).next()
            && run.start < bound
        {
            self.want(run.start);
            region = (run.start / REGION).saturating_add(1);
        }
    }

    /// Whether there is more to ask about than at the last call, in a log of this length, and room to ask.
    /// Then it counts as asked.
    pub(crate) fn take_wants_due(&mut self, length: u64) -> bool {
        let regions = length.div_ceil(REGION);
        let asked = &mut self.regions_asked;
        asked.due |= asked.of_log < regions;
        asked.of_log = regions;
        asked.in_flight < MAX_WANTS && std::mem::take(&mut asked.due)
    }

    #[cfg(any(test, feature = "fuzzing"))]
    pub(super) fn check_remote(&self) {
        let asked = &self.regions_asked;
        assert!(asked.in_flight <= MAX_WANTS && asked.regions.len() <= MAX_REGIONS);
        assert!(self.remote.memory() <= self.options.load.limits.remote_bitfield);
    }
}

/// How many bytes a bitfield of `length` blocks takes, and no more than `most`.
fn window(length: u64, most: usize) -> usize {
    if length <= 1 {
        // A Want without a length, as old peers send it, is answered with everything.
        return most;
    }
    let bytes = length.div_ceil(32).saturating_mul(4);
    usize::try_from(bytes).map_or(most, |bytes| bytes.min(most))
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use bytes::Bytes;

    use super::{
        super::requests::tests::{peer, peer_on},
        *,
    };
    use crate::replicate::{PeerLimits, load::Load, peer::NEWS_TIMEOUT};

    /// It had one region after the other looked at, 2^32 of them, while everybody else waited.
    #[test]
    fn a_remote_is_asked_about_so_many_regions_and_no_more() {
        let now = Instant::now();
        let mut peer = peer(now);
        peer.stage = Stage::Open;
        let have = |start, length, bitfield| Have {
            start,
            length,
            bitfield,
            ack: false,
        };
        let last = have((1 << 52) - 1, 1, None);
        peer.on_have(&last, now).expect("it may exist");
        let all = BlockSet::from(0..u64::MAX);
        let nothing = have(0, REGION, Some(Bytes::new()));
        while peer.regions_asked.regions.len() < MAX_REGIONS {
            peer.want_blocks(&all, 0);
            for _ in 0..MAX_WANTS {
                peer.on_have(&nothing, now).expect("it has nothing there");
            }
        }
        let next = REGION * MAX_REGIONS as u64;
        assert!(peer.regions_asked.regions.contains(&(next / REGION - 1)));
        let start = Instant::now();
        peer.want_blocks(&all, 0);
        assert!(start.elapsed() < Duration::from_secs(1));
        assert!(!peer.may_have(next), "it is waited for what is never asked");
    }

    /// The remote says that it has every other block of a region.
    fn say_every_other(peer: &mut Peer, number: u64) -> Result<Range<u64>> {
        let every_other = hypercore_bitfield::rle::encode(&[0x55; 1 << 17]);
        let have = Have {
            start: number * REGION,
            length: REGION,
            bitfield: Some(every_other.into()),
            ack: false,
        };
        peer.on_have(&have, Instant::now())
    }

    /// A thousand connections, each within what one may take, took four gigabytes.
    #[test]
    fn what_is_held_of_all_remotes_is_bounded() {
        let (now, first) = (Instant::now(), Load::default());
        let all = &first.all_remote_bitfields;
        let (mut peers, mut closed) = (Vec::new(), 0);
        for _ in 0..50 {
            let mut load = Load::default();
            load.all_remote_bitfields = all.clone();
            let mut peer = peer_on(&load, now);
            match (0..25).find_map(|number| say_every_other(&mut peer, number).err()) {
                Some(error) => {
                    assert!(error.is_peer_fault(), "{error}");
                    closed += 1;
                }
                None => peers.push(peer),
            }
        }
        assert!((30..45).contains(&peers.len()) && closed > 5, "{closed}");
        assert!(all.total() <= first.limits.all_remote_bitfields);
        let mut peer = peer_on(&first, now);
        peer.set_remote(0..1 << 40, true).expect("that is little");
    }

    /// What it has is of no use as long as it is asked for nothing.
    #[test]
    fn of_who_is_asked_for_nothing_only_the_end_is_kept() {
        let (now, load) = (Instant::now(), Load::default());
        let mut peer = peer_on(&load, now);
        (peer.stage, peer.downloading) = (Stage::Open, false);
        for number in 0..100 {
            say_every_other(&mut peer, number).expect("it is forgotten");
            assert!(load.remote_bitfields.total() <= load.limits.reader_bitfield);
            let last = (number + 1) * REGION - 1;
            assert!(peer.remote.bound() == last + 1 && peer.remote.get(last));
        }
        // It is asked again once there is something to ask for.
        peer.set_status(true, true);
        assert!(peer.can_be_asked_about(0));
    }

    /// Each of them is within what one core's peers may take.
    #[test]
    fn what_all_cores_of_a_connection_hold_of_a_remote_is_bounded() {
        let (now, load) = (Instant::now(), Load::default());
        let mut peers: Vec<_> = (0..5).map(|_| peer_on(&load, now)).collect();
        for peer in &mut peers[..4] {
            for number in 0..25 {
                say_every_other(peer, number).expect("room for 26 million blocks");
            }
        }
        let all = load.remote_bitfields.total();
        let last = &mut peers[4];
        let refused = (0..25).find_map(|number| say_every_other(last, number).err());
        let refused = refused.expect("the connection has more than its memory");
        assert!(refused.is_peer_fault(), "{refused}");
        let (least, most) = (load.limits.remote_bitfields, 16 << 20);
        assert!(all <= most && load.remote_bitfields.total() > least.min(most));
        peers.pop();
        assert_eq!(
            load.remote_bitfields.total(),
            all,
            "what is gone counts no more"
        );
    }

    #[test]
    fn what_is_held_of_a_remote_has_the_limits_that_were_set() {
        let now = Instant::now();
        let fits = |limits: PeerLimits, downloading| {
            let mut load = Load::default();
            load.limits = Arc::new(limits);
            let mut peer = peer_on(&load, now);
            peer.downloading = downloading;
            (0..9)
                .take_while(|&number| say_every_other(&mut peer, number).is_ok())
                .count()
        };
        // A region has 128 KiB and its index; a bitfield keeps room for any one change.
        let default = PeerLimits::default;
        assert_eq!(fits(default(), true), 9);
        assert_eq!(fits(default().remote_bitfield(600 << 10), true), 3);
        assert_eq!(fits(default().remote_bitfields(500 << 10), true), 3);
        assert_eq!(fits(default().all_remote_bitfields(300 << 10), true), 2);
        assert_eq!(fits(default().remote_bitfields(500 << 10), false), 9);
        let keeps = default()
            .remote_bitfields(500 << 10)
            .reader_bitfield(1 << 20);
        assert_eq!(fits(keeps, false), 3);
    }

    /// Every block gave it as much time again.
    #[test]
    fn a_remote_that_has_enough_has_its_time_once() {
        let start = Instant::now();
        let mut peer = peer(start);
        (peer.stage, peer.downloading) = (Stage::Open, false);
        peer.note_want();
        peer.on_status(&Status {
            uploading: true,
            downloading: false,
        });
        peer.announce(0..1);
        assert!(!peer.poll_end(start));
        let later = start + Duration::from_secs(1);
        peer.announce(1..2);
        assert!(!peer.poll_end(later));
        assert!(peer.poll_end(start + NEWS_TIMEOUT));
    }

    /// The processor's word may be shorter than the number.
    #[test]
    fn a_window_of_any_length_has_a_size() {
        let windows = [0, 1, 2, 32, 33, 1 << 20, 1 << 35, (1 << 35) + 1, u64::MAX];
        let sizes = windows.map(|length| window(length, 1 << 22));
        let most = 1 << 22;
        assert_eq!(sizes, [most, most, 4, 4, 8, 1 << 17, most, most, most]);
    }
}
