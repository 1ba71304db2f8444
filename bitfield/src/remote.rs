use std::ops::Range;

use crate::bits::{Bits, CHUNK_BITS};
use crate::rle::{self, Run};
use crate::{Error, MAX_BLOCKS};

/// What one peer says it has.
///
/// Everything here is driven by the peer, so a range costs the same however long it is, nothing is expanded, and
/// [`memory`](Self::memory) never passes the limit: a message that might is refused with [`Error::MemoryLimit`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteBitfield {
    bits: Bits,
    limit: usize,
}

impl RemoteBitfield {
    /// An empty bitfield that may take up to `limit` bytes of memory.
    ///
    /// A run of any length costs less than 100 bytes and 4096 scattered bits about 600, so 4 MiB hold some 28 million
    /// blocks in the worst case, and all blocks of nearly every log in practice.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self {
            bits: Bits::default(),
            limit,
        }
    }

    /// Has the peer said that it has this block?
    #[must_use]
    pub fn get(&self, block: u64) -> bool {
        self.bits.get(block)
    }

    /// A Have or an Unhave without bitfield.
    ///
    /// # Errors
    /// [`Error::OutOfBounds`] and [`Error::MemoryLimit`], before anything has changed.
    pub fn set_range(&mut self, blocks: Range<u64>, has: bool) -> Result<(), Error> {
        if blocks.end > MAX_BLOCKS {
            return Err(Error::OutOfBounds {
                start: blocks.start,
            });
        }
        self.reserve()?;
        self.bits.set_range(blocks, has);
        Ok(())
    }

    /// A Have with an encoded bitfield of at most `max` bytes: overwrites the blocks that it covers, from `start` on,
    /// and returns how many those are.
    ///
    /// As in Hypercore 9 (`lib/replicate.js`, which decodes with an alignment of 4), a bitfield covers a multiple of
    /// 32 blocks; blocks beyond keep what was said of them.
    ///
    /// # Errors
    /// [`Error::Unaligned`] if `start` is not a multiple of 8, [`Error::OutOfBounds`], and the errors of
    /// [`rle::runs`], before anything has changed; [`Error::MemoryLimit`], when a part of the bitfield may have been
    /// applied.
    pub fn apply_rle(&mut self, start: u64, encoded: &[u8], max: usize) -> Result<u64, Error> {
        if !start.is_multiple_of(8) {
            return Err(Error::Unaligned { start });
        }
        let covered = (rle::decoded_len(encoded, max)? as u64)
            .checked_next_multiple_of(4)
            .and_then(|bytes| bytes.checked_mul(8))
            .ok_or(Error::OutOfBounds { start })?;
        let end = start.checked_add(covered).filter(|&end| end <= MAX_BLOCKS);
        let end = end.ok_or(Error::OutOfBounds { start })?;
        let mut at = start;
        for run in rle::runs(encoded, max) {
            match run? {
                Run::Fill(bit, len) => {
                    let next = at.saturating_add(bits(len));
                    self.set_range(at..next, bit)?;
                    at = next;
                }
                Run::Literal(mut bytes) => {
                    while !bytes.is_empty() {
                        // Up to the next chunk: `at` is at a whole byte.
                        let room = CHUNK_BITS.saturating_sub(at % CHUNK_BITS) / 8;
                        let (now, rest) = bytes.split_at(bytes.len().min(room as usize));
                        self.reserve()?;
                        self.bits.write_bytes(at, now);
                        at = at.saturating_add(bits(now.len()));
                        bytes = rest;
                    }
                }
            }
        }
        self.set_range(at..end, false)?;
        Ok(covered)
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.bits.clear();
    }

    /// Forgets everything but the last block, which says how long the peer's log is.
    pub fn forget_all_but_last(&mut self) {
        if let Some(last) = self.bound().checked_sub(1) {
            self.bits.clear();
            self.bits.set(last, true);
        }
    }

    /// Does the peer have nothing?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bits.total() == 0
    }

    /// How many blocks of the range the peer has.
    #[must_use]
    pub fn count(&self, blocks: Range<u64>) -> u64 {
        self.bits.count(blocks)
    }

    /// The first block from `from` that the peer has.
    #[must_use]
    pub fn next_set(&self, from: u64) -> Option<u64> {
        self.bits.next_set(from)
    }

    /// The first block from `from` that the peer does not have.
    #[must_use]
    pub fn next_clear(&self, from: u64) -> u64 {
        self.bits.next_clear(from)
    }

    /// One past the last block that the peer has.
    #[must_use]
    pub fn bound(&self) -> u64 {
        self.bits.bound()
    }

    /// The longest runs of blocks that the peer has, in order, cut to the range.
    pub fn runs(&self, blocks: Range<u64>) -> impl Iterator<Item = Range<u64>> {
        self.bits.runs(blocks)
    }

    /// How many bytes of memory this takes, rounded up.
    #[must_use]
    pub fn memory(&self) -> usize {
        self.bits.memory()
    }

    /// Is there memory for any one change?
    fn reserve(&self) -> Result<(), Error> {
        if self.bits.memory().saturating_add(Bits::MAX_GROWTH) > self.limit {
            return Err(Error::MemoryLimit { limit: self.limit });
        }
        Ok(())
    }
}

/// The bits in so many bytes.
fn bits(bytes: usize) -> u64 {
    (bytes as u64).saturating_mul(8)
}
