//! The blocks that peers were asked for and have not sent.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    ops::Range,
    time::{Duration, Instant},
};

use super::pace::Stamp;
use crate::event::PeerId;

/// How many blocks may be asked of a second peer although the first is not late, before any were
/// received.
const SPARE: u64 = 16;

/// One more for every so many blocks received: at most about 3 % come twice.
const RECEIVED_FOR_A_SPARE: u64 = 32;

/// Blocks asked for at one time, of all peers.
const MAX_ASKED: usize = 16_384;

#[derive(Debug)]
struct AskedBlock {
    /// How many peers were asked and have neither answered nor left.
    peers: u32,
    /// The one asked last.
    last: PeerId,
    /// When the answer of the one asked last is expected.
    stamp: Stamp,
}

/// What was asked of all peers of a core.
#[derive(Debug, Default)]
pub(super) struct AskedBlocks {
    blocks: BTreeMap<u64, AskedBlock>,
    /// Blocks that others may be asked for because this one is late.
    late: BTreeMap<u64, PeerId>,
    /// How many blocks were asked of another peer to be done sooner.
    spent: u64,
    /// How many blocks came.
    received: u64,
}

impl AskedBlocks {
    pub(super) fn len(&self) -> usize {
        self.blocks.len()
    }

    /// From the first to the last block that anybody was asked for; `None` if there is none.
    pub(super) fn bounds(&self) -> Option<Range<u64>> {
        let (&first, _) = self.blocks.first_key_value()?;
        let (&last, _) = self.blocks.last_key_value()?;
        Some(first..last.saturating_add(1))
    }

    #[cfg(any(test, feature = "fuzzing"))]
    pub(super) fn blocks(&self) -> impl Iterator<Item = u64> {
        self.blocks.keys().copied()
    }

    pub(super) fn is_full(&self) -> bool {
        self.blocks.len() >= MAX_ASKED
    }

    /// The first block from `index` on that nobody was asked for.
    pub(super) fn next_free(&self, mut index: u64) -> u64 {
        for (&asked, _) in self.blocks.range(index..) {
            if asked != index {
                break;
            }
            index = asked.saturating_add(1);
        }
        index
    }

    /// `peer` was asked for a block.
    pub(super) fn insert(&mut self, index: u64, peer: PeerId, stamp: Stamp) {
        self.late.remove(&index);
        let request = self.blocks.entry(index).or_insert(AskedBlock {
            peers: 0,
            last: peer,
            stamp,
        });
        request.peers = request.peers.saturating_add(1);
        request.last = peer;
        request.stamp = stamp;
    }

    /// A peer that was asked for a block will not send it. Returns whether nobody else will.
    pub(super) fn remove(&mut self, index: u64) -> bool {
        let Entry::Occupied(mut request) = self.blocks.entry(index) else {
            return false;
        };
        let peers = &mut request.get_mut().peers;
        *peers = peers.saturating_sub(1);
        if *peers > 0 {
            return false;
        }
        request.remove();
        self.late.remove(&index);
        true
    }

    /// Blocks are stored now, whoever was asked for them.
    pub(super) fn stored(&mut self, blocks: Range<u64>) {
        while let Some((&index, _)) = self.blocks.range(blocks.clone()).next() {
            self.blocks.remove(&index);
            self.late.remove(&index);
            self.received = self.received.saturating_add(1);
        }
    }

    // ---- asking again -----------------------------------------------------------------------

    /// How much longer a block will take that was asked for; `None` if it was not.
    pub(super) fn remaining(&self, index: u64, now: Instant) -> Option<Duration> {
        let request = self.blocks.get(&index)?;
        Some(request.stamp.remaining(now))
    }

    /// Whether one peer alone was asked for a block.
    pub(super) fn is_asked_once(&self, index: u64) -> bool {
        self.blocks
            .get(&index)
            .is_some_and(|request| request.peers == 1)
    }

    /// Lets others be asked for a block, too.
    pub(super) fn offer(&mut self, index: u64) {
        if let Some(request) = self.blocks.get(&index) {
            self.late.insert(index, request.last);
        }
    }

    /// The blocks that may be asked of `peer` because another one is late.
    pub(super) fn offered_to(&self, peer: PeerId) -> impl Iterator<Item = u64> {
        let others = self.late.iter().filter(move |&(_, &last)| last != peer);
        others.map(|(&index, _)| index)
    }

    /// Whether a block may be asked of a second peer although the first is not late.
    pub(super) const fn has_spare(&self) -> bool {
        self.spent < SPARE.saturating_add(self.received / RECEIVED_FOR_A_SPARE)
    }

    pub(super) const fn spend(&mut self) {
        self.spent = self.spent.saturating_add(1);
    }
}
