//! The request for the block that comes next, before there is one.
//!
//! Whoever follows a log asks one peer for it, when it has nothing else to ask. That peer keeps the
//! request and answers it as soon as it has the block, right after its Have: the block is here after
//! half a round trip, instead of one and a half. Only peers of this crate do that
//! ([`NEXT_BLOCK`](crate::extension::NEXT_BLOCK)).
//!
//! One peer is asked, or a block would come from all that get it soon: the one that was the first to
//! tell of the last block, which is the writer, or is closest to it.

use std::{ops::Range, time::Instant};

use hypercore_wire::{Cancel, Message, Request};

use super::{
    Replicator,
    load::{Load, Part},
    pace::Stamp,
    peer::{Peer, Wanted},
    questions::Question,
};
use crate::{event::PeerId, log::Log};

/// Cores of a connection that may ask ahead: the remote has to have room for what it is asked.
const CORES: usize = 32;

/// What the two sides of a connection asked each other ahead, about one core.
#[derive(Debug)]
pub(super) struct Ahead {
    asked: Option<AskedAhead>,
    /// `asked`, as a part of all on the connection.
    part: Part,
    /// What the remote has asked.
    pub(super) kept: Option<Request>,
}

/// A block that the remote was asked for.
#[derive(Debug, Clone, Copy)]
struct AskedAhead {
    index: u64,
    /// It will not send it: it is not to be asked for the same again.
    refused: bool,
}

impl Ahead {
    pub(super) fn new(load: &Load) -> Self {
        Self {
            asked: None,
            part: load.ahead.part(),
            kept: None,
        }
    }

    fn is_asked(&self, index: u64) -> bool {
        self.asked.is_some_and(|asked| asked.index == index)
    }

    /// The block that the remote is going to send, if that is the one.
    fn take(&mut self, is_it: impl Fn(u64) -> bool) -> Option<u64> {
        let asked = self
            .asked
            .take_if(|asked| !asked.refused && is_it(asked.index))?;
        self.part.set(0);
        Some(asked.index)
    }

    /// The remote does not have these blocks, and does not keep requests for them.
    pub(super) fn refused(&mut self, blocks: &Range<u64>) {
        if let Some(asked) = &mut self.asked
            && blocks.contains(&asked.index)
        {
            asked.refused = true;
            self.part.set(0);
        }
    }

    /// The remote takes its request back.
    pub(super) fn cancelled(&mut self, index: u64) {
        self.kept.take_if(|kept| kept.index == index);
    }
}

impl Replicator {
    /// Asks a peer for the block that comes next, if it is the one to ask.
    pub(super) fn ask_ahead(&mut self, id: PeerId, log: &Log) {
        let end = self.end_of_use(log);
        let Some(peer) = self
            .peers
            .get_mut(&id)
            .filter(|peer| peer.may_be_asked_ahead())
        else {
            return;
        };
        let leads = *self.leader.get_or_insert(id) == id;
        let next = peer.remote.bound().max(log.length());
        let wanted = leads && next < end && self.demand.wants(next);
        peer.ask_next(wanted.then_some(next), log);
    }

    /// A peer told that the log has this length, which it had not told before.
    pub(super) fn lead(&mut self, id: PeerId, length: u64) {
        let leader = self.leader.and_then(|leader| self.peers.get(&leader));
        if leader.is_some_and(|leader| leader.id == id || leader.remote.bound() >= length) {
            return;
        }
        if let Some(leader) = leader {
            leader.wake();
        }
        self.leader = Some(id);
    }

    /// A peer is gone.
    pub(super) fn forget_leader(&mut self, id: PeerId) {
        self.leader.take_if(|leader| *leader == id);
    }

    /// A peer told what it has: what it was asked for ahead is under way if it is among that.
    pub(super) fn expect_next(&mut self, id: PeerId, log: &Log, now: Instant) {
        if let Some(peer) = self.peers.get_mut(&id)
            && let Some((index, stamp)) = peer.expect_next(now)
            && !log.has(index)
        {
            self.asked.insert(index, id, stamp);
            self.demand.dequeue(index);
        }
    }
}

impl Peer {
    /// Asks for block `index` before the remote has it, or for none any more.
    fn ask_next(&mut self, index: Option<u64>, log: &Log) {
        if index.is_some_and(|index| self.ahead.is_asked(index)) {
            return;
        }
        if let Some(index) = self.drop_asked_ahead() {
            self.outbox.push(Message::Cancel(Cancel {
                index,
                ..Cancel::default()
            }));
        }
        if let Some(index) = index
            && self.ahead.part.total() < CORES
        {
            self.ahead.part.set(1);
            self.ahead.asked = Some(AskedAhead {
                index,
                refused: false,
            });
            self.outbox.push(Message::Request(Request {
                index,
                nodes: log.digest(index),
                ..Request::default()
            }));
        }
    }

    /// Does not wait any more for what was asked ahead. It may be on the way.
    pub(super) fn drop_asked_ahead(&mut self) -> Option<u64> {
        let index = self.ahead.take(|_| true)?;
        self.gave_up(1);
        Some(index)
    }

    /// What was asked ahead is under way if the remote has it.
    fn expect_next(&mut self, now: Instant) -> Option<(u64, Stamp)> {
        let remote = &self.remote;
        let index = self.ahead.take(|index| remote.get(index))?;
        Some((index, self.expect(index, Wanted::Block, true, now)))
    }

    /// We have `blocks` now: the remote is answered if it has asked for one of them ahead.
    pub(super) fn answer_kept(&mut self, blocks: &Range<u64>) {
        if let Some(request) = self.ahead.kept.take_if(|kept| blocks.contains(&kept.index)) {
            self.ask(Question::Request(request));
        }
    }
}
