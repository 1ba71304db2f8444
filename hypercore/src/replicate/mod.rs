//! Replication: what to ask of whom, and what to answer.

mod connection;
mod demand;
mod ended;
mod load;
mod options;
mod peer;
mod questions;
mod reason;
#[cfg(test)]
mod simulator;
mod stream;

use std::{
    collections::{BTreeMap, HashMap},
    ops::Range,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::Waker,
    time::Instant,
};

use hypercore_bitfield::Bitfield;
use hypercore_wire::{Have, Message, Status, Unhave, Want};

pub(crate) use demand::RequestId;
pub use ended::Ended;
pub use options::{ReplicateOptions, Role};
pub use peer::Stats;
pub use reason::CloseReason;
pub use stream::{Replication, ReplicationHandle};

use crate::{error::Result, event::PeerId, extension::Extensions, log::Log};
use demand::Demand;
use options::PeerOptions;
use peer::{InFlight, Peer, Stage, WANT_ALIGNMENT, Wanted};

/// Wakes the task that drives a connection, from wherever something changed for it.
#[derive(Debug, Default)]
pub(crate) struct Wake {
    changed: AtomicBool,
    waker: Mutex<Option<Waker>>,
}

impl Wake {
    /// Something changed.
    fn wake(&self) {
        if self.changed.swap(true, Ordering::AcqRel) {
            return;
        }
        let waker = self
            .waker
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Who to wake. Call it before [`Self::take`], or a change in between is missed.
    fn register(&self, waker: &Waker) {
        let mut slot = self.waker.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut *slot {
            Some(known) => known.clone_from(waker),
            None => *slot = Some(waker.clone()),
        }
    }

    /// Whether something changed since the last call.
    fn take(&self) -> bool {
        self.changed.swap(false, Ordering::AcqRel)
    }
}

/// The peers of one core, and what is wanted of them.
#[derive(Debug, Default)]
pub(crate) struct Replicator {
    last_peer: u64,
    peers: BTreeMap<PeerId, Peer>,
    pub(crate) demand: Demand,
    /// Blocks that were asked for, and of whom.
    reserved: HashMap<u64, PeerId>,
    /// Who was asked for a proof of a greater length.
    update_from: Option<PeerId>,
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
    /// Its static key in the Noise handshake, once that is over.
    pub remote_public_key: Option<[u8; 32]>,
    /// One past the last block it is known to have.
    pub remote_length: u64,
    /// Whether both sides have shown that they know the core's key.
    pub opened: bool,
    /// What was exchanged with it.
    pub stats: Stats,
}

impl Replicator {
    pub(crate) fn add_peer(
        &mut self,
        options: PeerOptions,
        wake: Arc<Wake>,
        now: Instant,
    ) -> PeerId {
        self.last_peer += 1;
        let id = PeerId(self.last_peer);
        self.peers.insert(id, Peer::new(id, options, wake, now));
        id
    }

    pub(crate) fn remove_peer(&mut self, id: PeerId) -> Option<Stage> {
        let mut peer = self.peers.remove(&id)?;
        self.release(id, peer.take_in_flight());
        self.past = self.past.plus(peer.stats);
        self.wake_all();
        self.settle();
        Some(peer.stage)
    }

    pub(crate) fn peer(&mut self, id: PeerId) -> Option<&mut Peer> {
        self.peers.get_mut(&id)
    }

    pub(crate) fn peers_mut(&mut self) -> impl Iterator<Item = &mut Peer> {
        self.peers.values_mut()
    }

    /// Tells all peers which extensions there are now.
    pub(crate) fn declare_extensions(&mut self) {
        let names = self.extensions.names();
        for peer in self.peers.values_mut() {
            peer.declare(names.clone());
        }
    }

    /// Starts or stops to ask peers, those to come too.
    pub(crate) fn set_downloading(&mut self, downloading: bool) {
        self.downloading = Some(downloading);
        for peer in self.peers.values_mut() {
            peer.set_status(downloading, peer.uploading);
        }
        self.settle();
    }

    /// Starts or stops to answer peers, those to come too.
    pub(crate) fn set_uploading(&mut self, uploading: bool) {
        self.uploading = Some(uploading);
        for peer in self.peers.values_mut() {
            peer.set_status(peer.downloading, uploading);
        }
    }

    pub(crate) fn peers(&self) -> impl Iterator<Item = PeerInfo> {
        self.peers.values().map(|peer| PeerInfo {
            id: peer.id,
            remote_public_key: peer.remote_public_key,
            remote_length: peer.remote.bound(),
            opened: peer.stage == Stage::Open,
            stats: peer.stats,
        })
    }

    /// What was exchanged with all peers there are and were.
    pub(crate) fn stats(&self) -> Stats {
        let present = self.peers.values().map(|peer| peer.stats);
        present.fold(self.past, Stats::plus)
    }

    pub(crate) fn has_peers(&self) -> bool {
        !self.peers.is_empty()
    }

    pub(crate) fn wake_all(&self) {
        for peer in self.peers.values() {
            peer.wake();
        }
    }

    pub(crate) fn close(&mut self) {
        self.demand.close();
        self.extensions.close();
        for peer in self.peers.values_mut() {
            peer.stage = Stage::Done;
            peer.wake();
        }
    }

    /// A message about this core, except Data, Request and Want. Returns the block it acknowledges.
    pub(crate) fn on_message(
        &mut self,
        id: PeerId,
        message: &Message,
        log: &Log,
    ) -> Result<Option<u64>> {
        let Some(peer) = self.peers.get_mut(&id) else {
            return Ok(None);
        };
        match message {
            Message::Have(have) => {
                if peer.options.ack && have.ack && have.bitfield.is_none() && log.has(have.start) {
                    return Ok(Some(have.start));
                }
                peer.on_have(have)?;
                self.settle();
                self.wake_all();
            }
            Message::Unhave(unhave) => {
                let refused = peer.on_unhave(unhave)?;
                self.release(id, refused);
                self.settle();
                self.wake_all();
            }
            Message::Options(options) => peer.remote_acks = options.ack,
            Message::Status(status) => self.on_status(id, status),
            _ => {}
        }
        Ok(None)
    }

    fn on_status(&mut self, id: PeerId, status: &Status) {
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        let dropped = peer.on_status(status);
        self.release(id, dropped);
        self.settle();
        self.wake_all();
    }

    /// Whether an answer for block `index` is one to a request of ours, which is then no longer in
    /// flight.
    pub(crate) fn accept(
        &mut self,
        id: PeerId,
        index: u64,
        has_value: bool,
        log: &Log,
        now: Instant,
    ) -> Result<bool> {
        let Some(peer) = self.peers.get_mut(&id) else {
            return Ok(false);
        };
        if let Some(request) = peer.answered(index, has_value, now) {
            self.release(id, [request]);
            return Ok(true);
        }
        if has_value && !log.has(index) {
            // So that it does not think we have it now (`ondata`).
            peer.withdraw(index..index + 1);
        }
        peer.unrequested()?;
        Ok(false)
    }

    /// A block from `id` has been verified and stored.
    pub(crate) fn received(&mut self, id: PeerId, bytes: u64) {
        if let Some(peer) = self.peers.get_mut(&id) {
            peer.received(bytes);
        }
    }

    fn release(&mut self, id: PeerId, requests: impl IntoIterator<Item = InFlight>) {
        for request in requests {
            match request.wanted {
                Wanted::Block => {
                    if self.reserved.get(&request.index) == Some(&id) {
                        self.reserved.remove(&request.index);
                    }
                    for peer in self.peers.values_mut() {
                        peer.cursor = peer.cursor.min(request.index);
                    }
                }
                Wanted::Proof => self.update_from = None,
                Wanted::Byte(_) => {}
            }
        }
    }

    /// Blocks are here now that were not before.
    pub(crate) fn blocks_stored(&mut self, blocks: Range<u64>, source: Option<PeerId>) {
        for peer in self
            .peers
            .values_mut()
            .filter(|peer| Some(peer.id) != source)
        {
            peer.announce(blocks.clone());
            peer.wake();
        }
    }

    /// Blocks are not here any more.
    pub(crate) fn blocks_cleared(&mut self, bitfield: &Bitfield, blocks: Range<u64>) {
        self.demand.recount(bitfield);
        for peer in self.peers.values_mut() {
            peer.cursor = peer.cursor.min(blocks.start);
            peer.withdraw(blocks.clone());
            peer.wake();
        }
    }

    /// Fails requests that do not want to wait for peers to come, if it is certain what the
    /// connected ones have.
    pub(crate) fn settle(&mut self) {
        if !self.demand.wants_settling() || !self.peers.values().all(Peer::is_settled) {
            return;
        }
        let peers = &self.peers;
        self.demand.settle(
            |index| peers.values().any(|peer| peer.may_have(index)),
            |length| {
                peers
                    .values()
                    .any(|peer| peer.can_download() && peer.remote.bound() >= length)
            },
        );
    }

    /// Everything to be said to peer `id` at this moment that is not an answer: what we want to
    /// know, what we want to have, and whether we are done.
    pub(crate) fn refill(&mut self, id: PeerId, log: &Log, now: Instant) -> Result<()> {
        let Some(peer) = self.peers.get_mut(&id) else {
            return Ok(());
        };
        let forgotten = peer.check_deadline(now)?;
        self.release(id, forgotten);
        let Some(peer) = self.peers.get_mut(&id) else {
            return Ok(());
        };
        if peer.can_download() {
            send_wants(peer, &self.demand);
            send_requests(
                peer,
                &self.demand,
                &mut self.reserved,
                &mut self.update_from,
                log,
                now,
            );
        }
        self.end(id, log);
        Ok(())
    }

    /// Ends a connection that is not live once neither side wants anything more (`end`).
    fn end(&mut self, id: PeerId, log: &Log) {
        let complete = self.demand.everything && self.is_complete(log);
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        if peer.stage != Stage::Open || peer.options.live {
            return;
        }
        if peer.downloading && complete && peer.is_settled() {
            peer.downloading = false;
            peer.send_status();
        }
        if !peer.downloading && !peer.remote_downloading && peer.is_idle() {
            if !peer.options.download {
                peer.uploading = false;
                peer.send_status();
            }
            peer.stage = Stage::Done;
        }
    }

    /// Whether every block that is known to exist is stored here.
    fn is_complete(&self, log: &Log) -> bool {
        let remote = self
            .peers
            .values()
            .map(|peer| peer.remote.bound())
            .max()
            .unwrap_or(0);
        log.length() >= remote && log.bitfield().total() >= log.length()
    }
}

/// Asks what the remote has wherever somebody looks for something (`_sendWants`).
fn send_wants(peer: &mut Peer, demand: &Demand) {
    for index in demand.wanted_blocks() {
        peer.want(index);
    }
    for (_, blocks) in demand.wanted_bytes() {
        peer.want_range(&blocks);
    }
    for blocks in demand.wanted_ranges() {
        peer.want_range(&blocks);
    }
    // Always: this is how the remote learns that we listen.
    peer.want(0);
}

fn send_requests(
    peer: &mut Peer,
    demand: &Demand,
    reserved: &mut HashMap<u64, PeerId>,
    update_from: &mut Option<PeerId>,
    log: &Log,
    now: Instant,
) {
    for index in demand.wanted_blocks() {
        if peer.urgent_window() == 0 {
            return;
        }
        if peer.remote.get(index) && !log.has(index) && !reserved.contains_key(&index) {
            reserved.insert(index, peer.id);
            peer.request(index, Wanted::Block, log.digest(index), now);
        }
    }
    for (offset, mut blocks) in demand.wanted_bytes() {
        if offset >= log.byte_length() {
            blocks.start = blocks.start.max(log.length());
        }
        let candidate = next_candidate(peer, log.bitfield(), reserved, blocks);
        if let (Some(index), false, 1..) =
            (candidate, peer.asks_for_byte(offset), peer.urgent_window())
        {
            peer.request(index, Wanted::Byte(offset), log.digest(index), now);
        }
    }
    if update_from.is_none()
        && demand.wanted_length(log.length()).is_some()
        && let Some(index) = peer.remote.next_set(log.length())
    {
        *update_from = Some(peer.id);
        peer.request(index, Wanted::Proof, log.digest(index), now);
    }
    for blocks in demand.wanted_ranges() {
        let start = blocks.start.max(peer.cursor);
        let mut rest = start..blocks.end;
        while peer.window() > 0 {
            let Some(index) = next_candidate(peer, log.bitfield(), reserved, rest.clone()) else {
                break;
            };
            reserved.insert(index, peer.id);
            peer.request(index, Wanted::Block, log.digest(index), now);
            rest.start = index + 1;
        }
        if start == peer.cursor && blocks.end == u64::MAX {
            peer.cursor = rest.start;
        }
    }
}

/// The first block of `blocks` that the remote has, we do not, and nobody was asked for.
fn next_candidate(
    peer: &Peer,
    local: &Bitfield,
    reserved: &HashMap<u64, PeerId>,
    blocks: Range<u64>,
) -> Option<u64> {
    let mut index = blocks.start;
    loop {
        index = peer.remote.next_set(index)?;
        if index >= blocks.end {
            return None;
        }
        if local.get(index) {
            index = local.next_clear(index);
        } else if reserved.contains_key(&index) {
            index += 1;
        } else {
            return Some(index);
        }
    }
}

/// Says which blocks we have in the range that was asked about (`onwant`).
pub(crate) fn answer_want(peer: &mut Peer, want: &Want, log: &Log) -> Vec<Message> {
    let Want { start, length } = *want;
    let aligned = start.is_multiple_of(WANT_ALIGNMENT) && length.is_multiple_of(WANT_ALIGNMENT);
    if !peer.uploading || !aligned {
        return Vec::new();
    }
    let mut answers = Vec::with_capacity(2);
    if peer.first_want()
        && let Some(last) = log.length().checked_sub(1).filter(|&last| log.has(last))
    {
        answers.push(Message::Have(Have::block(last)));
    }
    // Peers before version 8 ask for everything with a length of 0.
    let end = match length {
        0 => log.length(),
        length => start.saturating_add(length).min(log.length()),
    };
    let bitfield = Some(log.bitfield().rle(start..end.max(start)).into());
    answers.push(Message::Have(Have {
        start,
        length,
        bitfield,
        ack: false,
    }));
    answers
}

/// An acknowledgement that block `index` is stored here.
pub(crate) fn ack(index: u64) -> Message {
    Message::Have(Have {
        ack: true,
        ..Have::block(index)
    })
}

/// Says that we do not have block `index`, to a peer that asked for it.
pub(crate) fn unhave(index: u64) -> Message {
    Message::Unhave(Unhave {
        start: index,
        length: 1,
    })
}
