//! The sets of blocks that somebody wants to have proven here, without the blocks themselves.
//!
//! A block counts as proven when its leaf is known, or the node above it. The two leaves below that
//! node are not stored before one of the blocks is here: a proof without values shows what both
//! sizes add up to, and not what they are (see `hypercore_merkle::verify`).

use std::{collections::BTreeMap, ops::Range};

use super::{demand::Waiter, peer::Peer};
use crate::{block_set::BlockSet, error::Error, log::Log};

/// Blocks that somebody wants to have proven.
#[derive(Debug)]
pub(crate) struct Hashes {
    waiter: Waiter<()>,
    pub(crate) blocks: BlockSet,
    /// The first of them that is not proven.
    pub(crate) missing: u64,
}

/// All that is wanted in this way and not done, by number, oldest first.
#[derive(Debug, Default)]
pub(crate) struct HashDownloads(BTreeMap<u64, Hashes>);

/// How far these were looked through for one peer.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct HashScan {
    download: u64,
    block: u64,
}

impl HashDownloads {
    /// Wants `blocks`, of which `missing` is the first that is not proven.
    pub(crate) fn insert(&mut self, blocks: BlockSet, missing: u64, waiter: Waiter<()>) {
        let hashes = Hashes {
            waiter,
            blocks,
            missing,
        };
        self.0.insert(hashes.waiter.serial, hashes);
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Hashes> {
        self.0.values()
    }

    pub(crate) fn remove(&mut self, serial: u64) {
        self.0.remove(&serial);
    }

    /// More is proven now, which ends those that want nothing else.
    pub(crate) fn proven(&mut self, log: &Log) {
        self.0.retain(|_, hashes| {
            let missing = log.first_unproven(&hashes.blocks, hashes.missing);
            match missing {
                Some(missing) => hashes.missing = missing,
                None => hashes.waiter.answer(Ok(())),
            }
            missing.is_some()
        });
    }

    /// Fails those that lie within `blocks`.
    pub(crate) fn cancel_within(&mut self, blocks: &Range<u64>) {
        self.0.retain(|_, hashes| {
            let Range { start, end } = hashes.blocks.bounds();
            let is_inside = blocks.start <= start && end <= blocks.end;
            if is_inside {
                hashes.waiter.answer(Err(Error::Cancelled));
            }
            !is_inside
        });
    }

    /// Fails all of them.
    pub(crate) fn close(self) {
        for hashes in self.0.into_values() {
            hashes.waiter.answer(Err(Error::Closed));
        }
    }

    /// The next block before `end` whose proof `peer` can be asked for, unless `is_asked` says that it,
    /// or somebody else, was.
    pub(super) fn next(
        &self,
        peer: &mut Peer,
        log: &Log,
        end: u64,
        is_asked: impl Fn(&Peer, u64) -> bool,
    ) -> Option<u64> {
        let from = peer.hash_scan;
        for (&serial, hashes) in self.0.range(from.download..) {
            let start = if serial == from.download {
                from.block.max(hashes.missing)
            } else {
                hashes.missing
            };
            for run in hashes.blocks.runs_from(start) {
                let (mut block, end) = (run.start, run.end.min(end));
                while let Some(found) = peer.remote.next_set(block).filter(|&it| it < end) {
                    let unproven = log.bitfield().next_unproven(found);
                    if unproven > found {
                        block = unproven;
                        continue;
                    }
                    block = found.saturating_add(1);
                    if !is_asked(peer, found) {
                        peer.hash_scan = HashScan {
                            download: serial,
                            block,
                        };
                        return Some(found);
                    }
                }
            }
        }
        // What comes later has a greater number; what is announced or given up rewinds.
        let last = self.0.last_key_value().map_or(0, |(&serial, _)| serial);
        peer.hash_scan = HashScan {
            download: from.download.max(last.saturating_add(1)),
            block: 0,
        };
        None
    }
}

impl HashScan {
    /// The peer can be asked for something that it could not be asked for before.
    pub(super) fn rewind(&mut self) {
        *self = Self::default();
    }
}

/// The other block below the same node: whoever was asked for one proof will send both.
pub(super) const fn twin(block: u64) -> u64 {
    block ^ 1
}
