//! What makes the files durable.

use std::{io, sync::atomic::Ordering, thread};

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
                    let spawn = |file| {
                        let sync = move || File::sync(file);
                        thread::Builder::new().spawn_scoped(scope, sync)
                    };
                    let threads: Vec<_> = others.iter().map(|file| spawn(file)).collect();
                    let first = first.sync();
                    let results =
                        threads
                            .into_iter()
                            .zip(others)
                            .map(|(thread, file)| match thread {
                                Ok(thread) => thread.join().expect("no panic"),
                                // The system has no thread to spare: that costs time only.
                                Err(_) => file.sync(),
                            });
                    results.fold(first, Result::and)
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

    /// As of a file, a sync that has failed fails for ever.
    pub(crate) fn sync_directory(&self) -> Result<()> {
        let synced = if self.names_lost.load(Ordering::Acquire) {
            Err(io::Error::other(
                "an earlier sync of their names has failed",
            ))
        } else {
            self.storage.sync_directory()
        };
        synced.map_err(|error| {
            self.names_lost.store(true, Ordering::Release);
            Error::io(FileName::Bitfield, Operation::Sync, 0, error)
        })
    }
}
