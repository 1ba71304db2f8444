//! What makes the files durable.

use std::thread;

use super::FeedFiles;
use crate::{Error, FileName, Operation, error::Result, file::File};

impl FeedFiles {
    /// Makes `data`, `tree` and `signatures` durable, those that were written to since the last
    /// time, and waits for a sync that is under way. Several at once are synced beside each other where that is faster.
    ///
    /// # Errors
    ///
    /// When the storage fails, and then always until the files are opened again: what did not become
    /// durable may be lost, and a second sync would not notice.
    pub fn sync_content(&self) -> Result<()> {
        let dirty: Vec<_> = [&self.data, &self.tree, &self.signatures]
            .into_iter()
            .filter(|file| file.is_dirty())
            .collect();
        match *dirty {
            [first, ref others @ ..] if !others.is_empty() && self.storage.syncs_in_parallel() => {
                thread::scope(|scope| {
                    let others: Vec<_> = others
                        .iter()
                        .map(|file| scope.spawn(|| file.sync()))
                        .collect();
                    let first = first.sync();
                    let others = others
                        .into_iter()
                        .map(|other| other.join().expect("no panic"));
                    others.fold(first, Result::and)
                })?;
            }
            _ => dirty.into_iter().try_for_each(File::sync)?,
        }
        self.sync_directory()
    }

    /// Counts all that the files of the log hold, and the files themselves, as not synced. Whoever
    /// wrote them may have been killed before the sync, and Node never syncs: what is written now must
    /// not become durable without it.
    pub fn distrust(&self) {
        for name in FileName::ALL {
            self.file(name).distrust();
        }
        self.storage.distrust_directory();
    }

    /// Makes `bitfield` durable.
    ///
    /// # Errors
    ///
    /// As [`sync_content`](Self::sync_content).
    pub fn sync_bitfield(&self) -> Result<()> {
        self.bitfield.sync()?;
        self.sync_directory()
    }

    /// Makes the keys durable, the secret one first: the public key can be derived from it.
    ///
    /// # Errors
    ///
    /// As [`sync_content`](Self::sync_content).
    pub fn sync_keys(&self) -> Result<()> {
        self.secret_key.sync()?;
        self.key.sync()?;
        self.sync_directory()
    }

    pub(crate) fn sync_directory(&self) -> Result<()> {
        self.storage
            .sync_directory()
            .map_err(|error| Error::io(FileName::Bitfield, Operation::Sync, 0, error))
    }
}
