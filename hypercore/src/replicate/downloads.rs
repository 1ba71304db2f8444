//! The sets of blocks that somebody wants whole.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
};

use hypercore_bitfield::Bitfield;

use super::demand::Waiter;
use crate::{block_set::BlockSet, error::Error, request::Order};

/// Blocks that somebody wants to have here.
#[derive(Debug)]
pub(crate) struct Download {
    waiter: Waiter<()>,
    pub(crate) blocks: BlockSet,
    pub(crate) order: Order,
    /// The first of them that is not stored.
    missing: u64,
}

impl Download {
    /// The first of its blocks that is not stored.
    pub(crate) const fn missing(&self) -> u64 {
        self.missing
    }
}

/// All downloads that are not done, oldest first.
///
/// Each is looked at again only when its first missing block is stored, so that a block costs no
/// more however many there are.
#[derive(Debug, Default)]
pub(crate) struct Downloads {
    all: BTreeMap<u64, Download>,
    /// The first missing block of each, and its number.
    missing: BTreeSet<(u64, u64)>,
}

impl Downloads {
    /// Wants `blocks`, of which `missing` is the first that is not stored.
    pub(crate) fn insert(
        &mut self,
        blocks: BlockSet,
        order: Order,
        missing: u64,
        waiter: Waiter<()>,
    ) {
        let serial = waiter.serial;
        self.missing.insert((missing, serial));
        let download = Download {
            waiter,
            blocks,
            order,
            missing,
        };
        self.all.insert(serial, download);
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Download> {
        self.all.values()
    }

    /// The numbers of all.
    pub(crate) fn serials(&self) -> impl Iterator<Item = u64> {
        self.all.keys().copied()
    }

    /// The oldest from number `serial` on.
    pub(crate) fn next(&self, serial: u64) -> Option<(u64, &Download)> {
        let (&serial, download) = self.all.range(serial..).next()?;
        Some((serial, download))
    }

    /// Nobody waits for this one any more.
    pub(crate) fn remove(&mut self, serial: u64) -> Option<Download> {
        let download = self.all.remove(&serial)?;
        self.missing.remove(&(download.missing, serial));
        Some(download)
    }

    /// The blocks below `block` are not wanted by this one any more.
    pub(crate) fn skip_to(&mut self, serial: u64, block: u64, bitfield: &Bitfield) {
        let Some(download) = self.all.get_mut(&serial) else {
            return;
        };
        download.blocks.skip_to(block);
        let missing = download.missing;
        if missing < block {
            self.missing.remove(&(missing, serial));
            self.look(serial, block, bitfield);
        }
    }

    /// `blocks` are stored now.
    pub(crate) fn stored(&mut self, blocks: &Range<u64>, bitfield: &Bitfield) {
        let touched = (blocks.start, 0)..(blocks.end, 0);
        while let Some(&(missing, serial)) = self.missing.range(touched.clone()).next() {
            self.missing.remove(&(missing, serial));
            self.look(serial, missing, bitfield);
        }
    }

    /// Blocks were dropped: looks again for what is missing.
    pub(crate) fn recount(&mut self, bitfield: &Bitfield) {
        self.missing.clear();
        let serials: Vec<_> = self.all.keys().copied().collect();
        for serial in serials {
            self.look(serial, 0, bitfield);
        }
    }

    /// Finds the first block from `from` on that a download lacks, or answers that it lacks none.
    fn look(&mut self, serial: u64, from: u64, bitfield: &Bitfield) {
        let Some(download) = self.all.get_mut(&serial) else {
            return;
        };
        match download.blocks.first_missing(from, bitfield) {
            Some(missing) => {
                download.missing = missing;
                self.missing.insert((missing, serial));
            }
            None => {
                download.waiter.answer(Ok(()));
                self.all.remove(&serial);
            }
        }
    }

    /// Fails those that want nothing but blocks of `blocks`.
    pub(crate) fn cancel_within(&mut self, blocks: &Range<u64>) {
        let inside = |download: &Download| {
            let Range { start, end } = download.blocks.bounds();
            blocks.start <= start && end <= blocks.end
        };
        let serials: Vec<_> = self
            .all
            .iter()
            .filter(|(_, download)| inside(download))
            .map(|(&serial, _)| serial)
            .collect();
        for download in serials.into_iter().filter_map(|serial| self.remove(serial)) {
            download.waiter.answer(Err(Error::Cancelled));
        }
    }

    /// Fails all of them.
    pub(crate) fn close(&mut self) {
        self.missing.clear();
        for download in std::mem::take(&mut self.all).into_values() {
            download.waiter.answer(Err(Error::Closed));
        }
    }
}
