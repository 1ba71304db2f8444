//! What a peer has and could not prove.
//!
//! A peer that is behind signs a log that is shorter than ours, and what is signed may be of another
//! history for all that is known here of so short a log. Asked again at once it would say the same,
//! and it would be asked before all others, for its answer is the one that wakes us. So it counts as one
//! that does not have the block until it tells of a longer log, or of that block, or until somebody
//! else's answer brings a node above it.

use std::{cmp::Reverse, collections::BTreeSet, ops::Range};

use hypercore_merkle::NodeIndex;

use super::{
    Replicator,
    peer::{InFlight, Peer, Wanted},
};
use crate::{
    error::Result,
    event::PeerId,
    log::{Answer, Log},
    span::one_block,
};

/// So much is remembered of one peer. What is beyond is not asked of it before it tells of it again.
const MAX_UNPROVEN: usize = 4096;

/// What one peer could not prove.
#[derive(Debug, Default)]
pub(super) struct Unproven {
    /// Blocks that could not be proven. It counts as not having them.
    blocks: BTreeSet<u64>,
    /// Bytes that were looked for to no use.
    bytes: BTreeSet<u64>,
}

impl Unproven {
    /// Whether it was asked for the block of this byte to no use.
    pub(super) fn has_byte(&self, offset: u64) -> bool {
        self.bytes.contains(&offset)
    }

    /// The peer has told whether it has `blocks`.
    pub(super) fn told(&mut self, blocks: &Range<u64>) {
        while let Some(&block) = self.blocks.range(blocks.clone()).next() {
            self.blocks.remove(&block);
            self.bytes.clear();
        }
    }

    fn is_empty(&self) -> bool {
        self.blocks.is_empty() && self.bytes.is_empty()
    }

    /// Panics if more is held than there should ever be.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(super) fn check_bounds(&self) {
        assert!(self.blocks.len() <= MAX_UNPROVEN && self.bytes.len() <= MAX_UNPROVEN);
    }
}

impl Replicator {
    /// The answer to a request, about block `index`, is true, and nobody can tell whether it is of our
    /// history.
    pub(super) fn undecided(
        &mut self,
        id: PeerId,
        request: InFlight,
        index: u64,
        log: &Log,
    ) -> Result<()> {
        let noted = match self.peers.get_mut(&id) {
            Some(peer) => peer.could_not_prove(request.wanted, index),
            None => Ok(()),
        };
        self.refused(id, request, log);
        noted
    }

    /// The blocks below the nodes of these answers, if any of them may be asked for again because of
    /// that.
    pub(crate) fn below(&self, answers: &[Answer]) -> Vec<Range<u64>> {
        if self.peers.values().all(|peer| peer.unproven.is_empty()) {
            return Vec::new();
        }
        let nodes = answers.iter().flat_map(|answer| &answer.proof.nodes);
        let mut below: Vec<_> = nodes.map(|node| blocks_below(node.index)).collect();
        below.sort_unstable_by_key(|blocks| (blocks.start, Reverse(blocks.end)));
        // Of two nodes one is above the other, or they have no block in common.
        below.dedup_by(|next, above| next.end <= above.end);
        below
    }

    /// More is known now of the tree above `blocks`.
    pub(crate) fn retry_below(&mut self, blocks: &[Range<u64>]) {
        if blocks.is_empty() {
            return;
        }
        let peers = self.peers.values();
        let behind = peers.filter(|peer| !peer.unproven.is_empty());
        let behind: Vec<_> = behind.map(|peer| peer.id).collect();
        for id in behind {
            for blocks in blocks {
                self.retry(id, blocks);
            }
        }
    }

    /// A peer may be asked again for those of `blocks` that it could not prove, and for bytes.
    pub(super) fn retry(&mut self, id: PeerId, blocks: &Range<u64>) {
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        // A byte was looked for in one of them.
        let restored = peer.restore_unproven(blocks);
        if !restored.is_empty() {
            peer.unproven.bytes.clear();
            peer.scan.rewind(&restored, &self.demand.downloads);
            peer.scan.rewind_gets();
            peer.hash_scan.rewind();
            peer.wake();
        }
    }
}

impl Peer {
    fn could_not_prove(&mut self, wanted: Wanted, index: u64) -> Result<()> {
        match wanted {
            Wanted::Byte(offset) => {
                if self.unproven.bytes.len() >= MAX_UNPROVEN {
                    // Nobody waits for so many: the first are over.
                    self.unproven.bytes.pop_first();
                }
                self.unproven.bytes.insert(offset);
            }
            Wanted::Block | Wanted::Hash => {}
            // Asked for beyond the end that was known then, and not again.
            Wanted::Proof | Wanted::Head => return Ok(()),
        }
        if self.unproven.blocks.len() < MAX_UNPROVEN {
            self.unproven.blocks.insert(index);
        }
        self.set_remote(one_block(index), false)
    }

    /// It counts as having those of `blocks` again that it could not prove. Returns the first.
    fn restore_unproven(&mut self, blocks: &Range<u64>) -> Range<u64> {
        let mut restored = 0..0;
        while let Some(&block) = self.unproven.blocks.range(blocks.clone()).next() {
            self.unproven.blocks.remove(&block);
            // Without memory for it, it is not asked.
            if self.set_remote(one_block(block), true).is_ok() {
                let is_first = restored.is_empty();
                let start = if is_first { block } else { restored.start };
                restored = start..block.saturating_add(1);
            }
        }
        restored
    }
}

/// The blocks below a node.
fn blocks_below(node: NodeIndex) -> Range<u64> {
    let start = node.left_span().block().unwrap_or(0);
    start..node.end()
}
