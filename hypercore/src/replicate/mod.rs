//! Replication: what to ask of whom, and what to answer.

mod ahead;
mod answer;
mod asked;
mod connection;
mod demand;
mod downloads;
mod ended;
mod hashes;
mod limits;
mod load;
mod options;
mod pace;
mod peer;
mod probe;
mod questions;
mod reason;
mod receive;
mod scan;
mod schedule;
#[cfg(test)]
mod simulator;
mod stats;
mod stream;
mod unproven;
mod waiting;
mod wake;

use std::{
    collections::BTreeMap,
    ops::Range,
    sync::Arc,
    time::{Duration, Instant},
};

use hypercore_bitfield::Bitfield;
use hypercore_wire::{ChannelId, Message, Status};

pub(crate) use demand::RequestId;
pub use ended::Ended;
pub use hypercore_wire::Role;
pub use limits::PeerLimits;
pub use options::ReplicateOptions;
pub use reason::CloseReason;
pub use stats::Stats;
pub use stream::{Replication, ReplicationHandle};
pub use waiting::{Asked, Goal, Progress, Waiting, WaitsOn};

use crate::{
    error::Result,
    event::{Event, PeerId},
    extension::{EXACT_DIGESTS, Extensions, NEXT_BLOCK},
    log::Log,
    span::one_block,
};
use demand::Demand;
use options::PeerOptions;
use peer::{InFlight, Peer, Stage, Wanted};
use wake::Wake;

/// The peers of one core, and what is wanted of them.
#[derive(Debug, Default)]
pub(crate) struct Replicator {
    last_peer: u64,
    /// Boxed, because a map has room for eleven wherever it has one.
    peers: BTreeMap<PeerId, Box<Peer>>,
    pub(crate) demand: Demand,
    asked: asked::AskedBlocks,
    /// The peer that was the first to tell of the last block that anybody told of.
    leader: Option<PeerId>,
    /// Who was asked for a proof of a greater length.
    update_from: Option<PeerId>,
    /// What proves that the log is longer is not taken in, as it is written here.
    refuses_growth: bool,
    /// The blocks whose proof was asked for by itself, and of whom last, unless that one is late.
    hashes_asked: BTreeMap<u64, PeerId>,
    /// All peers are to be woken before the next one is looked at.
    wakes_all: bool,
    /// When the first of the peers that have told nothing has had its time, as far as that is known. Its
    /// own connection may never be looked at: nobody needs to have polled it.
    tell_by: Option<Instant>,
    /// What was exchanged with peers that are gone.
    past: Stats,
    pub(crate) extensions: Extensions,
    /// What `set_downloading` said, if it was called.
    pub(crate) downloading: Option<bool>,
    /// What `set_uploading` said, if it was called.
    pub(crate) uploading: Option<bool>,
}

/// A connected peer of a core.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct PeerInfo {
    /// Its name in events.
    pub id: PeerId,
    /// Its static key in the Noise handshake, once both sides have opened the core. Never without a
    /// handshake.
    pub remote_public_key: Option<[u8; 32]>,
    /// One past the last block it is known to have.
    pub remote_length: u64,
    /// Whether both sides have shown that they know the core's key.
    pub opened: bool,
    /// The blocks it was asked for and has not sent yet, those first that were asked for first.
    pub asked: Vec<u64>,
    /// How many requests it has not answered: for these blocks, for positions and for lengths.
    pub in_flight: usize,
    /// The shortest time in which it has answered a request, of the last ten to twenty seconds in
    /// which it answered any.
    pub delay: Option<Duration>,
    /// Whether it has answered if its log is the same history as this one (see [`Event::Forked`]). It is asked
    /// once both have the last block of the shorter log, and not without that.
    pub compared: bool,
    /// How fast it sends when it is asked for enough, in bytes per second, headers and proofs
    /// included: an estimate from its answers, by which the scheduler decides what to ask of it.
    pub bytes_per_second: Option<u64>,
    /// What was exchanged with it.
    pub stats: Stats,
}

impl Replicator {
    pub(crate) fn add_peer(
        &mut self,
        options: PeerOptions,
        wake: Arc<Wake>,
        channel: ChannelId,
        now: Instant,
    ) -> PeerId {
        self.last_peer = self.last_peer.saturating_add(1);
        let id = PeerId(self.last_peer);
        let peer = Peer::new(id, options, wake, channel, now);
        let tell_by = [self.tell_by, peer.tell_deadline()];
        self.tell_by = tell_by.into_iter().flatten().min();
        self.peers.insert(id, Box::new(peer));
        id
    }

    pub(crate) fn remove_peer(&mut self, id: PeerId, log: &Log) -> Option<Stage> {
        let mut peer = self.peers.remove(&id)?;
        self.release(id, peer.take_in_flight());
        self.forget_leader(id);
        for other in self.peers.values_mut() {
            other.scan.rewind_rare();
        }
        self.past = self.past.plus(peer.stats);
        self.wake_all();
        self.settle(log);
        Some(peer.stage)
    }

    pub(crate) fn peer(&mut self, id: PeerId) -> Option<&mut Peer> {
        self.peers.get_mut(&id).map(Box::as_mut)
    }

    pub(crate) fn peers_mut(&mut self) -> impl Iterator<Item = &mut Peer> {
        self.peers.values_mut().map(Box::as_mut)
    }

    /// Tells all peers which extensions there are now.
    pub(crate) fn declare_extensions(&mut self) {
        for peer in self.peers.values_mut() {
            peer.declare(self.extensions.names(peer.options.own_extensions));
        }
    }

    /// Starts or stops to ask peers, those to come too.
    pub(crate) fn set_downloading(&mut self, downloading: bool, log: &Log) {
        self.downloading = Some(downloading);
        for peer in self.peers.values_mut() {
            peer.satisfied = false;
            peer.set_status(downloading, peer.uploading);
        }
        self.settle(log);
    }

    /// Starts or stops to answer peers, those to come too.
    pub(crate) fn set_uploading(&mut self, uploading: bool) {
        self.uploading = Some(uploading);
        for peer in self.peers.values_mut() {
            peer.set_status(peer.downloading, uploading);
        }
    }

    pub(crate) fn peers(&self) -> impl Iterator<Item = PeerInfo> {
        self.peers.values().map(|peer| peer.info())
    }

    /// What was exchanged with all peers there are and were.
    pub(crate) fn stats(&self) -> Stats {
        let present = self.peers.values().map(|peer| peer.stats);
        present.fold(self.past, Stats::plus)
    }

    pub(crate) fn has_peers(&self) -> bool {
        !self.peers.is_empty()
    }

    /// A peer has opened the core. If it is not asked what it has, connections that waited for it may end.
    pub(crate) fn note_opened(&mut self, id: PeerId) {
        let has_told = self.peers.get(&id).is_some_and(|peer| peer.has_told());
        self.wakes_all |= self.demand.everything && has_told;
    }

    pub(crate) fn wake_all(&self) {
        for peer in self.peers.values() {
            peer.wake();
        }
    }

    /// Lets go of all peers. Returns those that had opened the core.
    pub(crate) fn close(&mut self) -> Vec<PeerId> {
        self.demand.close();
        self.extensions.close();
        let mut opened = Vec::new();
        for peer in self.peers.values_mut() {
            if std::mem::replace(&mut peer.stage, Stage::Done) != Stage::Opening {
                opened.push(peer.id);
            }
            peer.drop_questions();
            peer.wake();
        }
        opened
    }

    /// A message about this core, except Data, Request, Cancel and Want. Returns what is to be told of it.
    pub(crate) fn on_message(
        &mut self,
        id: PeerId,
        message: &Message,
        log: &Log,
        now: Instant,
    ) -> Result<Option<Event>> {
        let Some(peer) = self.peers.get_mut(&id) else {
            return Ok(None);
        };
        match message {
            Message::Have(have) => {
                if peer.options.ack && have.ack && have.bitfield.is_none() && log.has(have.start) {
                    let (index, peer) = (have.start, id);
                    return Ok(Some(Event::Ack { index, peer }));
                }
                let (before, had_told) = (peer.remote.bound(), peer.has_told());
                let blocks = peer.on_have(have, now)?;
                let length = peer.remote.bound();
                let is_longer = length > before;
                if is_longer && length > log.length() {
                    peer.want_more();
                    // A writer asks whether its log goes on elsewhere.
                    peer.probed &= !log.is_writer();
                }
                // Perhaps nothing is missing, and other connections end.
                self.wakes_all |= !had_told && peer.has_told();
                if is_longer {
                    self.lead(id, length);
                    self.retry(id, &(0..u64::MAX));
                }
                self.expect_next(id, log, now);
                self.place_announced(id, blocks, log, now);
                self.settle(log);
                if is_longer {
                    return Ok(Some(Event::RemoteUpdate { peer: id, length }));
                }
            }
            Message::Unhave(unhave) => {
                let before = peer.remote.bound();
                let refused = peer.on_unhave(unhave)?;
                // Perhaps nothing is missing now, and other connections end.
                self.wakes_all |= peer.remote.bound() < before;
                self.release(id, refused);
                self.settle(log);
            }
            Message::Options(options) => {
                peer.remote_acks = options.ack;
                let has = |name| {
                    peer.options.own_extensions && options.extensions.iter().any(|it| it == name)
                };
                (peer.is_exact, peer.keeps_next) = (has(EXACT_DIGESTS), has(NEXT_BLOCK));
            }
            Message::Status(status) => self.on_status(id, status, log),
            _ => {}
        }
        Ok(None)
    }

    fn on_status(&mut self, id: PeerId, status: &Status, log: &Log) {
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        if (peer.remote_uploading, peer.remote_downloading)
            == (status.uploading, status.downloading)
        {
            return;
        }
        let dropped = peer.on_status(status);
        self.release(id, dropped);
        self.settle(log);
        // Not at once, as a remote may say as many of these as it likes.
        self.wakes_all = true;
    }

    /// The request that an answer for block `index` is for, which is then no longer in flight.
    /// One of [`Self::done`], [`Self::put_off`], [`Self::refused`] and [`Self::undecided`] follows.
    pub(crate) fn accept(
        &mut self,
        id: PeerId,
        index: u64,
        bytes: Option<u64>,
        log: &Log,
        now: Instant,
    ) -> Result<Option<InFlight>> {
        let Some(peer) = self.peers.get_mut(&id) else {
            return Ok(None);
        };
        let request = peer.answered(index, bytes, now);
        if request.is_none() {
            if bytes.is_some() && !log.has(index) {
                // So that it does not think we have it now (`ondata`).
                peer.withdraw(one_block(index));
            }
            peer.unrequested()?;
        }
        Ok(request)
    }

    /// The answer to a request was taken in, or was not needed any more.
    pub(crate) fn done(&mut self, id: PeerId, request: InFlight, log: &Log) {
        if request.wanted == Wanted::Hash {
            self.hashes_asked.remove(&request.index);
            let twin = hashes::twin(request.index);
            if log.bitfield().next_unproven(twin) == twin {
                // Of a log that ended with the other one: whoever has this one, too, was not asked.
                self.retry_hashes();
            }
        }
        if request.wanted == Wanted::Proof && self.update_from == Some(id) {
            self.update_from = None;
            for peer in self.peers.values_mut() {
                peer.passed_over = false;
                peer.wake();
            }
        }
    }

    /// The answer to a request is true, and a longer log is not taken in here. What was asked for is not
    /// asked for again before [`Self::ask_anew`].
    pub(crate) fn put_off(&mut self, id: PeerId, request: InFlight, log: &Log) {
        self.refuses_growth = true;
        if request.wanted == Wanted::Block && self.asked.remove(request.index) {
            self.demand.enqueue(request.index);
        }
        self.done(id, request, log);
        self.settle(log);
    }

    /// The answer to a request was of no use.
    pub(crate) fn refused(&mut self, id: PeerId, request: InFlight, log: &Log) {
        if let Some(peer) = self.peers.get_mut(&id) {
            peer.doubt_answers();
        }
        self.release(id, [request]);
        self.settle(log);
    }

    /// A block from `id` has been verified and stored.
    pub(crate) fn received(&mut self, id: PeerId, bytes: u64) {
        if let Some(peer) = self.peers.get_mut(&id) {
            peer.received(bytes);
        }
    }

    /// Blocks are here now that were not before.
    pub(crate) fn blocks_stored(&mut self, blocks: Range<u64>, source: Option<PeerId>) {
        if blocks.is_empty() {
            // A Have of no blocks counts as one of the first.
            return;
        }
        self.asked.stored(blocks.clone());
        for peer in self
            .peers
            .values_mut()
            .filter(|peer| Some(peer.id) != source)
        {
            peer.answer_kept(&blocks);
            peer.announce(blocks.clone());
            peer.wake();
        }
    }

    /// Peers may know of `blocks` from now on. Those that were cleared meanwhile are not here, and peers
    /// were told so. Whoever clears some makes the others known, so that they are a few runs.
    pub(crate) fn blocks_released(&mut self, bitfield: &Bitfield, blocks: &Range<u64>) {
        for peer in self.peers.values_mut() {
            // What is not here any more is refused.
            peer.answer_kept(blocks);
            peer.wake();
        }
        for run in bitfield.runs(blocks.clone()) {
            self.blocks_stored(run, None);
        }
    }

    /// Blocks are not here any more.
    pub(crate) fn blocks_cleared(&mut self, bitfield: &Bitfield, blocks: Range<u64>) {
        self.demand.downloads.recount(bitfield);
        for peer in self.peers.values_mut() {
            peer.scan.rewind(&blocks, &self.demand.downloads);
            peer.withdraw(blocks.clone());
            peer.wake();
        }
    }

    /// Fails requests that do not want to wait for peers to come, if it is certain what the
    /// connected ones have.
    pub(crate) fn settle(&mut self, log: &Log) {
        if !self.demand.wants_settling() || !self.peers.values().all(|peer| peer.is_settled()) {
            return;
        }
        let (peers, may_grow) = (&self.peers, !self.refuses_growth);
        let end = self.end_of_use(log);
        self.demand.settle(
            |index| index < end && peers.values().any(|peer| peer.may_have(index)),
            |length| {
                let mut peers = peers.values();
                may_grow && peers.any(|peer| peer.can_download() && peer.remote.bound() >= length)
            },
            |offset, blocks| {
                let is_asked = |peer: &Peer| peer.is_asked_for(Wanted::Byte(offset));
                let may_be_asked = |peer: &Peer| {
                    peer.can_download()
                        && !peer.unproven.has_byte(offset)
                        && peer.may_have_missing(blocks, log)
                };
                let may_ask = may_grow || offset < log.byte_length();
                peers.values().any(|peer| is_asked(peer))
                    || may_ask && peers.values().any(|peer| may_be_asked(peer))
            },
            log,
        );
    }

    /// Everything to be said to peer `id` at this moment that is not an answer: what we want to
    /// know, what we want to have, and whether we are done.
    pub(crate) fn refill(&mut self, id: PeerId, log: &Log, now: Instant) -> Result<()> {
        if std::mem::take(&mut self.wakes_all) {
            self.wake_all();
        }
        let gave_up = self.give_up_opening(now);
        let Some(peer) = self.peers.get_mut(&id) else {
            return Ok(());
        };
        let forgotten = peer.check_deadline(now)?;
        let forgot = !forgotten.is_empty();
        self.release(id, forgotten);
        if gave_up || forgot {
            self.settle(log);
        }
        if gave_up {
            self.wake_all();
        }
        if let Some(peer) = self.peers.get_mut(&id) {
            probe::probe(peer, log, now);
            if log.fork_proof().is_some() {
                // What is here is served; nothing is added to it.
                peer.satisfied = false;
                if peer.downloading {
                    peer.set_status(false, peer.uploading);
                    self.settle(log);
                }
            }
        }
        if self.peers.get(&id).is_some_and(|peer| peer.can_download()) {
            self.ask(id, log, now);
        }
        if let Some(peer) = self.peers.get_mut(&id) {
            peer.note_wants(now);
        }
        self.end(id, log, now);
        Ok(())
    }

    /// Gives up on peers that have told nothing in their time; whether there are any.
    fn give_up_opening(&mut self, now: Instant) -> bool {
        if self.tell_by.is_none_or(|at| at > now) {
            return false;
        }
        let mut gave_up = false;
        for peer in self.peers.values_mut() {
            gave_up |= peer.give_up_opening(now);
        }
        let left = self.peers.values().filter_map(|peer| peer.tell_deadline());
        self.tell_by = left.min();
        gave_up
    }

    /// When something is to be done about what others have not told that peer `id`, or a request, may
    /// wait for.
    pub(crate) fn tell_deadline(&self, id: PeerId) -> Option<Instant> {
        let is_live = self.peers.get(&id).is_none_or(|peer| peer.options.live);
        let waits = !is_live || self.demand.wants_settling();
        self.tell_by.filter(|_| waits)
    }

    /// Ends a connection that is not live once neither side wants anything more (`end`).
    fn end(&mut self, id: PeerId, log: &Log, now: Instant) {
        let attached = match self.peers.get(&id) {
            Some(peer) if peer.stage == Stage::Open && !peer.options.live => peer.attached(),
            _ => return,
        };
        let everything = self.demand.everything;
        let is_whole = everything && self.is_whole(log);
        let mut others = self.peers.values();
        let has_to_wait = is_whole && others.any(|peer| peer.may_hold_up(attached));
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        if peer.downloading && is_whole && !has_to_wait && peer.is_settled() {
            peer.downloading = false;
            peer.satisfied = true;
            peer.send_status();
        } else if everything && !is_whole {
            peer.want_more();
        }
        if peer.poll_end(now) {
            if !peer.options.download {
                peer.uploading = false;
                peer.send_status();
            }
            peer.stage = Stage::Done;
        }
    }

    /// Whether every block that is known to exist is stored here.
    fn is_whole(&self, log: &Log) -> bool {
        let remote = self
            .peers
            .values()
            .map(|peer| peer.remote.bound())
            .max()
            .unwrap_or(0);
        log.length() >= remote && log.bitfield().total() >= log.length()
    }

    /// Panics if more is held for peers than there should ever be, or something counts as asked for that
    /// nobody is going to answer.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(crate) fn check_bounds(&self) {
        for peer in self.peers.values() {
            peer.check_bounds();
        }
        let is_asked = |is_it: &dyn Fn(&Peer) -> bool| self.peers.values().any(|peer| is_it(peer));
        for index in self.asked.blocks() {
            assert!(
                is_asked(&|peer| peer.is_asked_for_block(index)),
                "block {index}"
            );
        }
        for (&index, id) in &self.hashes_asked {
            let peer = self.peers.get(id);
            assert!(
                peer.is_some_and(|peer| peer.is_asked_for_hash(index)),
                "the proof of block {index}"
            );
        }
        if let Some(id) = self.update_from {
            let peer = self.peers.get(&id);
            assert!(peer.is_some_and(|peer| peer.is_asked_for(Wanted::Proof)));
        }
    }
}
