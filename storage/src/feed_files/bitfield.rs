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
        let mut rest = self.bitfield.content_len()?;
        let mut buffer = vec![0; size * PAGES_PER_READ];
        let mut page = 0;
        while rest > 0 {
            let wanted = rest.min(buffer.len() as u64) as usize;
            let read = self
                .bitfield
                .read_up_to(self.page_offset(page), &mut buffer[..wanted])?;
            let is_blank = buffer[..read].iter().all(|&byte| byte == 0);
            for bytes in buffer[..read].chunks(size) {
                visit(page, bytes);
                page += 1;
            }
            if read < wanted {
                break;
            }
            rest -= wanted as u64;
            if is_blank {
                // A file with a hole of a terabyte is not worth an hour.
                let here = self.page_offset(page);
                let skipped = self.bitfield.next_data(here)?.saturating_sub(here) / size as u64;
                page += skipped;
                rest = rest.saturating_sub(skipped * size as u64);
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
        let zeros = vec![0; page.min(end - len) as usize];
        self.write(&self.bitfield, end - zeros.len() as u64, &zeros)?;
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
        header::LEN + page * u64::from(self.page_size)
    }
}

/// How many blocks a page speaks of.
const PAGE_BLOCKS: u64 = 8192;

/// How many pages one read fetches, as in Hypercore 9 `lib/storage.js` `statAndReadAll`.
const PAGES_PER_READ: usize = 32;
