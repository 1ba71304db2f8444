//! Where the log ends: the mark of one that is open, and what lies behind the end.

use hypercore_merkle::MAX_LENGTH;

use super::{FeedFiles, SIGNATURE, record_offset, records, signature_offset, within};
use crate::{FileName, Quarantine, error::Result, file::File};

impl FeedFiles {
    /// Says that the pages of the bitfield may be behind, or torn, with a blank slot after the last
    /// signature. It is as durable as the signatures are.
    ///
    /// Node passes over blank slots (Hypercore 9 `lib/storage.js` `nextSignature`).
    ///
    /// # Errors
    ///
    /// [`Error::OutOfRange`](crate::Error::OutOfRange) beyond what a log can have, and as
    /// [`write_key`](Self::write_key).
    pub fn mark_open(&self, length: u64) -> Result<()> {
        within(FileName::Signatures, length, MAX_LENGTH - 1)?;
        // First the mark, then the cut: there is no moment without either.
        self.write(&self.signatures, signature_offset(length), &[0; SIGNATURE])?;
        self.clear_signatures(length.saturating_add(1)..MAX_LENGTH)
    }

    /// Takes back the signatures of an append to a log of `length` blocks that failed. Where the
    /// append wrote none, nothing changes; elsewhere the [mark](Self::mark_open) is left, because
    /// the append may have overwritten the one that stood there.
    ///
    /// # Errors
    ///
    /// As [`write_key`](Self::write_key).
    pub fn drop_append(&self, length: u64) -> Result<()> {
        if self.signatures.len()? <= signature_offset(length) {
            return Ok(());
        }
        self.mark_open(length)
    }

    /// Takes the [mark](Self::mark_open) of a log of `length` blocks away, whose bitfield is
    /// durable.
    ///
    /// # Errors
    ///
    /// As [`write_key`](Self::write_key).
    pub fn mark_closed(&self, length: u64) -> Result<()> {
        self.clear_signatures(length..MAX_LENGTH)
    }

    /// Whether the [mark](Self::mark_open), or a signature, stands behind `length` blocks.
    ///
    /// # Errors
    ///
    /// When the storage fails.
    pub fn is_marked(&self, length: u64) -> Result<bool> {
        Ok(self.signatures.len()? > signature_offset(length))
    }

    /// How many bytes there are, in one of the files, behind the end of a log of this length: the
    /// mark of one that is open, or what was written after the bitfield.
    ///
    /// # Errors
    ///
    /// When the storage fails.
    pub fn surplus(&self, length: u64, byte_length: u64) -> Result<u64> {
        let mut most = 0;
        for (file, end) in self.ends(length, byte_length) {
            most = most.max(file.len()?.saturating_sub(end));
        }
        Ok(most)
    }

    /// Copies what [`cut`](Self::cut) would remove to `quarantine`.
    ///
    /// # Errors
    ///
    /// When the storage fails, also that of the copy.
    pub fn quarantine_end(
        &self,
        length: u64,
        byte_length: u64,
        quarantine: &mut Quarantine<'_>,
    ) -> Result<()> {
        for (file, end) in self.ends(length, byte_length) {
            quarantine.add(file.name, end..u64::MAX)?;
        }
        Ok(())
    }

    /// Cuts everything behind a log of this length, and [marks](Self::mark_open) it as open.
    ///
    /// # Errors
    ///
    /// [`Error::OutOfRange`](crate::Error::OutOfRange) beyond what a log can have, and as
    /// [`write_key`](Self::write_key).
    pub fn cut(&self, length: u64, byte_length: u64) -> Result<()> {
        self.mark_open(length)?;
        self.truncate_tree(length)?;
        self.truncate_data(byte_length)
    }

    /// Those of our files that grow with the log, and where each ends.
    fn ends(&self, length: u64, byte_length: u64) -> impl Iterator<Item = (&File, u64)> {
        [
            (&self.data, byte_length),
            (&self.tree, record_offset(records(length))),
            (&self.signatures, signature_offset(length)),
        ]
        .into_iter()
        .filter(|&(file, _)| self.is_ours(file))
    }
}
