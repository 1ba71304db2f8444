//! How far what is wanted was looked through for one peer, and what comes next.

use std::ops::Range;

use hypercore_bitfield::Bitfield;

use super::{
    asked::AskedBlocks,
    downloads::{Download, Downloads},
    peer::Peer,
};
use crate::{block_set::BlockSet, request::Order, runtime, span::length_of};

/// Runs of blocks that are looked at again, before what is between two of them is looked at, too.
const MAX_AGAIN: usize = 16;

/// Newly announced blocks that have their turn before what was asked for first.
const FEW: u64 = 64;

/// How far what is wanted was looked through for one peer: before this there is nothing that it has
/// and that it, or another one, could be asked for.
#[derive(Debug, Default)]
pub(super) struct Scan {
    /// The number of the oldest request that may be new to the peer.
    pub(super) seen: u64,
    /// The first in the queue of blocks.
    pub(super) get: u64,
    /// The download of this number is looked through, or the first after it.
    download: u64,
    /// How far, and what of those before it is looked at again.
    of_download: Position,
    /// How far all blocks were looked through, where all are wanted.
    of_everything: Position,
    /// The rest of the run, from one block to another, that was found to have the fewest holders.
    pub(super) rare: (u64, u64),
}

/// How far blocks were looked through, one after the other.
#[derive(Debug, Default)]
struct Position {
    /// The first that was not looked at yet.
    block: u64,
    /// Those before it that are looked at again. What a peer tells of one block is not to cost as much as
    /// there are blocks.
    again: BlockSet,
}

impl Position {
    /// What there is to be looked at from block `from` on.
    fn runs_from(&self, from: u64) -> impl Iterator<Item = Range<u64>> {
        let rest = self.block.max(from)..u64::MAX;
        self.again.runs_from(from).chain([rest])
    }

    fn rewind(&mut self, blocks: &Range<u64>) {
        let end = blocks.end.min(self.block);
        self.again.insert(blocks.start..end, MAX_AGAIN);
    }

    /// There is nothing below `block`.
    fn pass(&mut self, block: u64) {
        self.block = self.block.max(block);
        self.again.skip_to(block);
    }
}

impl Scan {
    /// Blocks of these may be asked of the peer again, or for the first time.
    pub(super) fn rewind(&mut self, blocks: &Range<u64>, downloads: &Downloads) {
        self.of_everything.rewind(blocks);
        self.rewind_rare();
        let mut serials = downloads.serials();
        if serials.next().is_none_or(|oldest| self.download <= oldest) {
            self.of_download.rewind(blocks);
        } else if serials.next().is_none() || length_of(blocks) <= FEW {
            self.of_download.again.insert(blocks.clone(), MAX_AGAIN);
        } else {
            // The oldest first.
            (self.download, self.of_download) = (0, Position::default());
        }
    }

    /// Goes on with a download: from its first block, unless that is the one at hand.
    fn enter(&mut self, download: u64) {
        if self.download != download {
            (self.download, self.of_download.block) = (download, 0);
        }
    }

    /// Where all blocks are wanted, `first` is the first that the peer can be asked for.
    pub(super) fn pass_everything_before(&mut self, first: Option<u64>) {
        self.of_everything.pass(first.unwrap_or(u64::MAX));
    }

    /// Any of the blocks that somebody waits for may be asked of the peer again.
    pub(super) const fn rewind_gets(&mut self) {
        self.get = 0;
    }

    /// Blocks may be rare now that were not.
    pub(super) const fn rewind_rare(&mut self) {
        self.rare = (0, 0);
    }
}

/// The next block below `end` to ask a peer for, of the sets that somebody wants whole.
pub(super) fn next_of_downloads(
    downloads: &Downloads,
    peer: &mut Peer,
    stored: &Bitfield,
    asked: &AskedBlocks,
    end: u64,
) -> Option<u64> {
    if let Some(found) = next_again(downloads, peer, stored, asked, end) {
        return Some(found);
    }
    while let Some((serial, download)) = downloads.next(peer.scan.download) {
        peer.scan.enter(serial);
        let found = next_of(download, peer, stored, asked, end);
        if found.is_some() {
            return found;
        }
        peer.scan.enter(serial.saturating_add(1));
    }
    None
}

/// The same of those that are looked at again.
fn next_again(
    downloads: &Downloads,
    peer: &mut Peer,
    stored: &Bitfield,
    asked: &AskedBlocks,
    end: u64,
) -> Option<u64> {
    let again = std::mem::take(&mut peer.scan.of_download.again);
    let mut first = None;
    for download in downloads.iter() {
        let next_of_run = |run: Range<u64>| {
            let run = run.start..run.end.min(end);
            next_of_set(&download.blocks, run, peer, stored, asked)
        };
        let missing = download.missing();
        let Some(found) = again.runs_from(missing).find_map(next_of_run) else {
            continue;
        };
        if first.is_none() && download.order == Order::Random {
            peer.scan.of_download.again = again;
            return next_of(download, peer, stored, asked, end);
        }
        first = Some(first.map_or(found, |first| found.min(first)));
    }
    // With nothing found they are done, and not put back.
    let found = first?;
    let rest = &mut peer.scan.of_download.again;
    *rest = again;
    rest.skip_to(found.saturating_add(1));
    Some(found)
}

/// The next block of a download, before `end`, to ask a peer for.
fn next_of(
    download: &Download,
    peer: &mut Peer,
    stored: &Bitfield,
    asked: &AskedBlocks,
    end: u64,
) -> Option<u64> {
    let blocks = &download.blocks;
    let bound = peer.remote.bound().min(end);
    let first_from = |block| next_of_set(blocks, block..bound, peer, stored, asked);
    match download.order {
        Order::Linear => {
            let found = first_from(peer.scan.of_download.block)?;
            peer.scan.of_download.block = found.saturating_add(1);
            Some(found)
        }
        Order::Random => {
            let Range { start, end } = blocks.bounds();
            let length = end.min(bound).saturating_sub(start);
            let offset = runtime::random().checked_rem(length).unwrap_or(0);
            let middle = start.saturating_add(offset);
            first_from(middle).or_else(|| first_from(start))
        }
    }
}

/// The first block from `from` on to ask a peer for, where all are wanted.
pub(super) fn next_of_everything(
    from: u64,
    peer: &Peer,
    stored: &Bitfield,
    asked: &AskedBlocks,
) -> Option<u64> {
    let mut runs = peer.scan.of_everything.runs_from(from);
    runs.find_map(|run| next_to_ask(peer, stored, asked, run))
}

/// The first block of `range` in a set to ask a peer for.
fn next_of_set(
    set: &BlockSet,
    range: Range<u64>,
    peer: &Peer,
    stored: &Bitfield,
    asked: &AskedBlocks,
) -> Option<u64> {
    let mut from = range.start;
    loop {
        let run = set.runs_from(from).next()?;
        // Where the remote has little, there is little to look at.
        let start = peer.remote.next_set(run.start)?;
        if run.start >= range.end || start >= range.end {
            return None;
        }
        if start >= run.end {
            from = start;
            continue;
        }
        let found = next_to_ask(peer, stored, asked, start..run.end.min(range.end));
        if found.is_some() {
            return found;
        }
        from = run.end;
    }
}

/// The first block of `blocks` that the remote has, we do not, and nobody was asked for.
pub(super) fn next_to_ask(
    peer: &Peer,
    stored: &Bitfield,
    asked: &AskedBlocks,
    blocks: Range<u64>,
) -> Option<u64> {
    let mut index = blocks.start;
    loop {
        index = peer.remote.next_set(index)?;
        if index >= blocks.end {
            return None;
        }
        let free = asked.next_free(stored.next_clear(index));
        if free == index {
            return Some(index);
        }
        index = free;
    }
}
