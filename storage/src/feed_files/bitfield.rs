//! The pages of the bitfield, each as long as the header says.

use std::sync::atomic::Ordering;

use hypercore_merkle::MAX_LENGTH;

use super::{FeedFiles, within};
use crate::{FileName, error::Result, header};

impl FeedFiles {
    /// How many pages the bitfield has; a short last one counts.
    ///
    /// # Errors
    ///
    /// When the storage fails.
    pub fn page_count(&self) -> Result<u64> {
        Ok(self.bitfield.content_len()?.div_ceil(self.page_size.into()))
    }

    /// Hands every page with its number to `visit`, but for some of those in a hole. The last one may be
    /// short.
    ///
    /// # Errors
    ///
    /// When the storage fails.
    pub fn pages(&self, mut visit: impl FnMut(u64, &[u8])) -> Result<()> {
        let size = usize::from(self.page_size);
        let len = self.bitfield.len()?;
        let mut buffer = vec![0; size.saturating_mul(PAGES_PER_READ)];
        let mut page = 0_u64;
        loop {
            let here = self.page_offset(page);
            let wanted = len.saturating_sub(here).min(buffer.len() as u64);
            if wanted == 0 {
                break;
            }
            buffer.truncate(wanted as usize);
            let read = self.bitfield.read_up_to(here, &mut buffer)?;
            for bytes in read.chunks(size) {
                visit(page, bytes);
                page = page.saturating_add(1);
            }
            if (read.len() as u64) < wanted {
                break;
            }
            if read.iter().all(|&byte| byte == 0) {
                // A file with a hole of a terabyte is not worth an hour.
                let here = self.page_offset(page);
                let hole = self.bitfield.next_data(here)?.saturating_sub(here);
                let skipped = hole.checked_div(self.page_size.into());
                page = page.saturating_add(skipped.unwrap_or(0));
            }
        }
        Ok(())
    }

    /// Stores page number `page`.
    ///
    /// # Errors
    ///
    /// [`Error::OutOfRange`](crate::Error::OutOfRange) beyond what a log can have, and as
    /// [`write_key`](Self::write_key).
    ///
    /// # Panics
    ///
    /// When `bytes` is not exactly one page long.
    pub fn write_page(&self, page: u64, bytes: &[u8]) -> Result<()> {
        assert_eq!(
            bytes.len(),
            usize::from(self.page_size),
            "a page is written whole"
        );
        within(FileName::Bitfield, page, MAX_LENGTH / PAGE_BLOCKS)?;
        self.write(&self.bitfield, self.page_offset(page), bytes)
    }

    /// Makes room for the pages of a log of `length` blocks, durably. To be called before the blocks
    /// are stored that a new page is for: a file that grows may show anything after a loss of power,
    /// and what a page claims has to be true.
    ///
    /// # Errors
    ///
    /// [`Error::OutOfRange`](crate::Error::OutOfRange) beyond what a log can have, and as
    /// [`write_key`](Self::write_key).
    pub fn reserve_pages(&self, length: u64) -> Result<()> {
        within(FileName::Bitfield, length, MAX_LENGTH)?;
        let end = self.page_offset(length.div_ceil(PAGE_BLOCKS));
        // One call of the system less for all appends but those that begin a page.
        if self.room.load(Ordering::Acquire) >= end {
            return Ok(());
        }
        let page = u64::from(self.page_size);
        let len = self.bitfield.len()?.max(header::LEN);
        if len >= end {
            self.room.store(end, Ordering::Release);
            return Ok(());
        }
        // What lies before becomes a hole, and that shows zeros.
        let zeros = vec![0; page.min(end.saturating_sub(len)) as usize];
        let start = end.saturating_sub(zeros.len() as u64);
        self.write(&self.bitfield, start, &zeros)?;
        self.sync_bitfield()?;
        self.room.store(end, Ordering::Release);
        Ok(())
    }

    /// Cuts the bitfield to its first `count` pages.
    ///
    /// # Errors
    ///
    /// As [`write_key`](Self::write_key).
    pub fn truncate_pages(&self, count: u64) -> Result<()> {
        let count = count.min(MAX_LENGTH / PAGE_BLOCKS + 1);
        self.truncate(&self.bitfield, self.page_offset(count))
    }

    fn page_offset(&self, page: u64) -> u64 {
        let before = page.saturating_mul(self.page_size.into());
        before.saturating_add(header::LEN)
    }
}

/// How many blocks a page speaks of.
const PAGE_BLOCKS: u64 = 8192;

/// How many pages one read fetches, as in Hypercore 9 `lib/storage.js` `statAndReadAll`.
const PAGES_PER_READ: usize = 32;
