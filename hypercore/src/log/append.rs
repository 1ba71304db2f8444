//! Appends, from the reserved head to what is written, and truncations.

use std::{ops::Range, sync::Arc};

use bytes::Bytes;
use hypercore_merkle::{ChangeSet, Roots, tree_index};
use hypercore_storage::FeedFiles;

use super::{Log, Vouched, blocks};
use crate::{
    error::{Corruption, Error, Result},
    signer::Author,
};

/// Whether what was written has been synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Durable {
    Yes,
    NotYet,
}

impl Log {
    /// Who is to append, or why nothing can be appended.
    pub(crate) fn check_append(&self) -> Result<&Arc<Author>> {
        self.writable_files()?;
        match (&self.author, self.vouched) {
            (Some(author), _) if self.is_vouched_by(author) => match self.lock {
                Some(lock) => Err(Error::AppendLocked(lock)),
                None => Ok(author),
            },
            (Some(_), Vouched::Unsigned) => Err(Corruption::Signature {
                length: self.head.length,
            }
            .into()),
            (Some(_), Vouched::Damaged) => {
                let damage = self
                    .recovery
                    .as_ref()
                    .and_then(|found| found.damage.clone());
                Err(damage.map_or(Error::NotWritable, Error::Corrupt))
            }
            _ => Err(Error::NotWritable),
        }
    }

    /// Reserves the head for one append and hands out what it builds on.
    pub(crate) fn begin_append(&mut self) -> Result<(Roots, Arc<Author>)> {
        let author = Arc::clone(self.check_append()?);
        self.prepare_write()?;
        if std::mem::replace(&mut self.appending, true) {
            return Err(Error::Conflict);
        }
        self.marked = true;
        Ok((self.roots.clone(), author))
    }

    /// The length of the log if its files say that it is open.
    pub(crate) fn marked_length(&self) -> Option<u64> {
        self.marked.then_some(self.head.length)
    }

    /// Lets go of the head after an append that failed.
    pub(crate) fn abort_append(&mut self) {
        self.appending = false;
    }

    /// Makes blocks that were written by [`write_append`] part of the log.
    pub(crate) fn finish_append(&mut self, change: &ChangeSet, durable: Durable) {
        self.appending = false;
        self.adopt(change, &mut Vec::new());
        match durable {
            Durable::Yes => {
                let head = self.head;
                self.note_durable(&head);
            }
            Durable::NotYet => {
                let start = change.start_block();
                self.withheld = self.withheld.or(Some(start));
            }
        }
    }

    /// Forgets the nodes after those below `roots`, and takes these for its own. The head stays reserved
    /// until the files are cut.
    pub(crate) fn finish_truncate(&mut self, roots: Roots) {
        self.bitfield.tree_truncate(roots.length());
        for node in tree_index::unfinished(roots.length()) {
            self.bitfield.tree_clear(node.get());
        }
        self.set_end(roots.head(), roots);
        self.shown_length.set(0);
        self.withheld = self.withheld.filter(|&start| start < self.head.length);
    }
}

/// Writes an append: nodes, blocks and signature, of which the log does not speak yet.
pub(crate) fn write_append(files: &FeedFiles, change: &ChangeSet) -> Result<()> {
    let blocks = blocks_of(change);
    if files.has_foreign_data() {
        blocks::find_blocks(files, change)?;
        files.write_append_nodes(blocks.start, blocks.end, change.nodes())?;
    } else {
        files.write_append_nodes(blocks.start, blocks.end, change.nodes())?;
        write_blocks(files, placed(change))?;
    }
    match signature_slot(change) {
        Some((block, slot)) => Ok(files.write_last_signature(block, slot)?),
        None => Ok(()),
    }
}

pub(super) fn write_signature(files: &FeedFiles, change: &ChangeSet) -> Result<()> {
    match signature_slot(change) {
        Some((block, slot)) => Ok(files.write_signature(block, slot)?),
        None => Ok(()),
    }
}

/// The signature of a change as it is stored, and the block it belongs to.
fn signature_slot(change: &ChangeSet) -> Option<(u64, &[u8; 64])> {
    let (length, signature) = change.signature()?;
    Some((length.checked_sub(1)?, signature.as_bytes()))
}

/// Runs of small blocks are gathered up to this many bytes and written together.
const GATHER: usize = 64 * 1024;

/// Writes values at their offsets, those that follow each other in one go.
pub(super) fn write_blocks<'a>(
    files: &FeedFiles,
    blocks: impl IntoIterator<Item = (u64, &'a Bytes)>,
) -> Result<()> {
    let mut gathered = Vec::new();
    let mut start = 0;
    for (offset, value) in blocks {
        let follows = offset.checked_sub(start) == Some(gathered.len() as u64);
        if !follows || gathered.len().saturating_add(value.len()) > GATHER {
            write_gathered(files, start, &mut gathered)?;
            start = offset;
        }
        if value.len() < GATHER {
            gathered.extend_from_slice(value);
        } else {
            files.write_data(offset, value)?;
        }
    }
    write_gathered(files, start, &mut gathered)
}

fn write_gathered(files: &FeedFiles, offset: u64, gathered: &mut Vec<u8>) -> Result<()> {
    if !gathered.is_empty() {
        files.write_data(offset, gathered)?;
        gathered.clear();
    }
    Ok(())
}

/// The blocks of a change, and where their bytes stand.
pub(super) fn placed(change: &ChangeSet) -> impl Iterator<Item = (u64, &Bytes)> {
    change
        .blocks()
        .iter()
        .scan(change.byte_offset(), |offset, block| {
            let start = *offset;
            *offset = start.saturating_add(block.size());
            Some((start, block.value()))
        })
}

/// The numbers of the blocks of a change.
pub(super) fn blocks_of(change: &ChangeSet) -> Range<u64> {
    let start = change.start_block();
    start..start.saturating_add(change.blocks().len() as u64)
}
