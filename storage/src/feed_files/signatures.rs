//! The signatures: one for each append, at the place of its last block.

use std::ops::Range;

use hypercore_merkle::MAX_LENGTH;

use super::{CHUNK, FeedFiles, SIGNATURE, SIGNATURE_LEN, signature_offset, within};
use crate::{FileName, error::Result, header};

impl FeedFiles {
    /// The signature made when `block` was the last block of the log, if it is stored.
    ///
    /// # Errors
    ///
    /// When the storage fails.
    pub fn signature(&self, block: u64) -> Result<Option<[u8; 64]>> {
        if block >= MAX_LENGTH {
            return Ok(None);
        }
        let mut signature = [0; SIGNATURE];
        let read = self
            .signatures
            .read_up_to(signature_offset(block), &mut signature)?;
        Ok((read.len() == SIGNATURE && is_set(&signature)).then_some(signature))
    }

    /// The first signature at or after `block`, and its block.
    ///
    /// # Errors
    ///
    /// When the storage fails.
    pub fn next_signature(&self, block: u64) -> Result<Option<(u64, [u8; 64])>> {
        let mut first = block;
        let mut buffer = vec![0; 8 * SIGNATURE];
        while first < MAX_LENGTH {
            let wanted = buffer.len();
            let read = self
                .signatures
                .read_up_to(signature_offset(first), &mut buffer)?;
            let is_last = read.len() < wanted;
            let (slots, _) = read.as_chunks();
            if let Some((block, signature)) = (first..).zip(slots).find(|(_, slot)| is_set(slot)) {
                return Ok(Some((block, *signature)));
            }
            if is_last {
                return Ok(None);
            }
            first = first.saturating_add(slots.len() as u64);
            if wanted == CHUNK {
                // A file with a hole of a terabyte is not worth an hour.
                let data = self.signatures.next_data(signature_offset(first))?;
                first = first.max(data.saturating_sub(header::LEN) / SIGNATURE_LEN);
            }
            // Usually the next slot or two have one; a long search is worth longer reads.
            buffer.resize(wanted.saturating_mul(2).min(CHUNK), 0);
        }
        Ok(None)
    }

    /// The last signature before `block`, and its block.
    ///
    /// # Errors
    ///
    /// When the storage fails.
    pub fn previous_signature(&self, block: u64) -> Result<Option<(u64, [u8; 64])>> {
        let stored = self.signatures.content_len()? / SIGNATURE_LEN;
        let mut end = block.min(stored).min(MAX_LENGTH);
        let mut buffer = Vec::new();
        let mut slots = 8_u64;
        while end > 0 {
            let first = end.saturating_sub(slots);
            buffer.clear();
            buffer.resize(end.saturating_sub(first) as usize, [0; SIGNATURE]);
            self.signatures
                .read_up_to(signature_offset(first), buffer.as_flattened_mut())?;
            let mut found = (first..end).rev().zip(buffer.iter().rev());
            if let Some((block, signature)) = found.find(|(_, slot)| is_set(slot)) {
                return Ok(Some((block, *signature)));
            }
            end = first;
            slots = slots.saturating_mul(2).min((CHUNK / SIGNATURE) as u64);
            if slots == (CHUNK / SIGNATURE) as u64 {
                end = self.before_hole(end)?;
            }
        }
        Ok(None)
    }

    /// Goes back from slot `end` over a hole, if one is there, in ever larger steps: a file with a hole
    /// of a terabyte is not worth an hour.
    fn before_hole(&self, mut end: u64) -> Result<u64> {
        let mut step = (CHUNK / SIGNATURE) as u64;
        while end > 0 {
            let first = end.saturating_sub(step);
            let data = self.signatures.next_data(signature_offset(first))?;
            if data < signature_offset(end) {
                break;
            }
            end = first;
            step = step.saturating_mul(2);
        }
        Ok(end)
    }

    /// Stores the signature made when `block` was the last block of the log.
    ///
    /// # Errors
    ///
    /// [`Error::OutOfRange`](crate::Error::OutOfRange) beyond what a log can have, and as
    /// [`write_key`](Self::write_key).
    pub fn write_signature(&self, block: u64, signature: &[u8; 64]) -> Result<()> {
        within(FileName::Signatures, block, MAX_LENGTH - 1)?;
        self.write(&self.signatures, signature_offset(block), signature)
    }

    /// Stores the signature of an append, and behind it the [mark of an open log](Self::mark_open).
    ///
    /// # Errors
    ///
    /// [`Error::OutOfRange`](crate::Error::OutOfRange) beyond what a log can have, and as
    /// [`write_key`](Self::write_key).
    pub fn write_last_signature(&self, block: u64, signature: &[u8; 64]) -> Result<()> {
        within(FileName::Signatures, block, MAX_LENGTH - 1)?;
        let mut slots = [0; 2 * SIGNATURE];
        slots[..SIGNATURE].copy_from_slice(signature);
        self.write(&self.signatures, signature_offset(block), &slots)
    }

    /// Removes the signatures of `blocks`, and cuts the file if they are its last.
    ///
    /// # Errors
    ///
    /// As [`write_key`](Self::write_key).
    pub fn clear_signatures(&self, blocks: Range<u64>) -> Result<()> {
        self.clear(
            &self.signatures,
            signature_offset(blocks.start),
            signature_offset(blocks.end),
        )
    }
}

/// Zeros mean that nothing is stored.
fn is_set(bytes: &[u8; SIGNATURE]) -> bool {
    bytes.iter().any(|&byte| byte != 0)
}
