//! The contents of blocks, one after another.

use std::io;

use hypercore_merkle::MAX_BYTE_LENGTH;

use super::{CHUNK, FeedFiles, within};
use crate::{Error, FileName, Operation, error::Result};

impl FeedFiles {
    /// Leaves `data` to whoever else writes it: it is read and nothing else. Whether it is longer than
    /// the log does not matter, nothing is cut from it or cleared in it, and it stays when the log is
    /// reset or destroyed. [`write_data`](Self::write_data) still writes.
    #[must_use]
    pub const fn with_foreign_data(mut self) -> Self {
        self.foreign_data = true;
        self
    }

    /// Whether `data` is [left to somebody else](Self::with_foreign_data).
    #[must_use]
    pub const fn has_foreign_data(&self) -> bool {
        self.foreign_data
    }

    /// `len` bytes of block content from `offset` on.
    ///
    /// # Errors
    ///
    /// [`Error::MissingData`] when the file ends before; nothing is allocated in that case.
    pub fn read_data(&self, offset: u64, len: u64) -> Result<Vec<u8>> {
        let missing = Error::MissingData { offset, len };
        // `len` comes from a node, that is from a file: it sizes nothing before it is checked.
        let Some(end) = offset.checked_add(len) else {
            return Err(missing);
        };
        let Ok(size) = usize::try_from(len) else {
            return Err(missing);
        };
        if size > CHUNK && self.data.len()? < end {
            return Err(missing);
        }
        let mut bytes = vec![0; size];
        self.read_data_into(offset, &mut bytes)?;
        Ok(bytes)
    }

    /// Fills `buffer` with block content from `offset` on.
    ///
    /// # Errors
    ///
    /// [`Error::MissingData`] when the file ends before, and when the storage fails.
    pub fn read_data_into(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        let len = buffer.len() as u64;
        match self.data.read_at(offset, buffer) {
            Ok(()) => Ok(()),
            Err(_) if len == 0 => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                Err(Error::MissingData { offset, len })
            }
            Err(error) => Err(self.data.error(Operation::Read, offset, error)),
        }
    }

    /// Stores block content at `offset`. Writing nothing does nothing.
    ///
    /// # Errors
    ///
    /// [`Error::OutOfRange`](crate::Error::OutOfRange) beyond what a log can have, and as
    /// [`write_key`](Self::write_key).
    pub fn write_data(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        within(
            FileName::Data,
            offset.saturating_add(bytes.len() as u64),
            MAX_BYTE_LENGTH,
        )?;
        self.write(&self.data, offset, bytes)
    }

    /// Removes block content: cuts the file if the range is its end, otherwise the range reads as
    /// zeros from now on and gives its space back where the storage can do that.
    ///
    /// # Errors
    ///
    /// As [`write_key`](Self::write_key).
    // JS: leaves the bytes of a range in the middle on disk.
    pub fn clear_data(&self, offset: u64, len: u64) -> Result<()> {
        if self.foreign_data {
            return Ok(());
        }
        self.clear(&self.data, offset, offset.saturating_add(len))
    }

    /// Whether the storage keeps nothing for these bytes, which read as zeros: they were cleared, or never
    /// written. A storage that does not know says no.
    ///
    /// # Errors
    ///
    /// When the storage fails.
    pub fn is_data_hole(&self, offset: u64, len: u64) -> Result<bool> {
        let end = offset.saturating_add(len);
        Ok(end <= self.data.len()? && self.data.next_data(offset)? >= end)
    }

    /// Cuts the data to `byte_length`.
    ///
    /// # Errors
    ///
    /// As [`write_key`](Self::write_key).
    pub fn truncate_data(&self, byte_length: u64) -> Result<()> {
        if self.foreign_data {
            return Ok(());
        }
        self.truncate(&self.data, byte_length)
    }

    /// The length of the data in bytes; holes count.
    ///
    /// # Errors
    ///
    /// When the storage fails.
    pub fn data_len(&self) -> Result<u64> {
        self.data.len()
    }

    /// How many bytes the data occupies; holes do not count.
    ///
    /// # Errors
    ///
    /// When the storage fails.
    pub fn data_allocated(&self) -> Result<u64> {
        self.allocated(FileName::Data)
    }
}
