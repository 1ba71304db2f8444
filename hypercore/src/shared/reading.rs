//! Reading blocks without holding up others.

use std::{ops::Range, sync::Arc};

use bytes::Bytes;
use hypercore_storage::FeedFiles;

use super::Shared;
use crate::{
    error::{Error, Result},
    log::{self, Log},
    request::Audit,
};

impl Shared {
    /// Block `index`, checked. None if it is not stored.
    pub(crate) fn read_one(&self, index: u64) -> Result<Option<Bytes>> {
        self.read_unlocked(|log| log.has(index).then_some(index), log::read_block)
    }

    /// The first of `blocks`, and those after it that are stored and cost little to read with it, each
    /// checked. Empty if the first is not stored.
    pub(crate) fn read_run(&self, blocks: Range<u64>) -> Result<Vec<Bytes>> {
        let read = self.read_unlocked(
            |log| Some(log.stored_run(blocks.clone())).filter(|run| !run.is_empty()),
            log::read_run,
        );
        Ok(read?.unwrap_or_default())
    }

    /// Reads blocks without the lock: `find` says under it which are stored, and `read` reads and checks
    /// them. None if they are not stored.
    ///
    /// Some may be cleared before they are read. What is whole is true all the same, and otherwise they
    /// are looked for again.
    fn read_unlocked<B, T>(
        &self,
        find: impl Fn(&Log) -> Option<B>,
        read: impl Fn(&FeedFiles, B) -> Result<T>,
    ) -> Result<Option<T>> {
        loop {
            let core = self.lock();
            let files = Arc::clone(core.log.files()?);
            let Some(stored) = find(&core.log) else {
                return Ok(None);
            };
            let cleared = core.log.cleared();
            drop(core);
            let error = match read(&files, stored) {
                Ok(value) => return Ok(Some(value)),
                Err(error) => error,
            };
            let core = self.lock();
            // Of a core that was destroyed nothing is left, which is no damage.
            core.log.files()?;
            if core.log.cleared() == cleared {
                return Err(error);
            }
        }
    }

    /// Checks the blocks one after the other, for as long as `is_wanted`.
    pub(crate) fn audit(&self, is_wanted: impl Fn() -> bool) -> Result<Audit> {
        let (files, runs) = {
            let core = self.lock();
            let runs: Vec<_> = core.log.bitfield().runs(0..u64::MAX).collect();
            (Arc::clone(core.log.files()?), runs)
        };
        let mut audit = Audit::default();
        for index in runs.into_iter().flatten() {
            if !is_wanted() {
                return Err(Error::Cancelled);
            }
            match log::read_block(&files, index) {
                Ok(_) => audit.valid = audit.valid.saturating_add(1),
                Err(error) if is_unreadable(&error) => match self.is_damaged(&files, index)? {
                    Some(true) => audit.invalid.push(index),
                    Some(false) => audit.valid = audit.valid.saturating_add(1),
                    None => {}
                },
                Err(error) => return Err(error),
            }
        }
        Ok(audit)
    }

    /// Looks at a block again that was not whole: perhaps it was cleared meanwhile, and downloaded
    /// again. `None` if it is not stored. Nothing changes it under the lock.
    fn is_damaged(&self, files: &FeedFiles, index: u64) -> Result<Option<bool>> {
        let core = self.lock();
        // As above.
        core.log.files()?;
        if !core.log.has(index) {
            return Ok(None);
        }
        match log::read_block(files, index) {
            Ok(_) => Ok(Some(false)),
            Err(error) if is_unreadable(&error) => Ok(Some(true)),
            Err(error) => Err(error),
        }
    }
}

/// Whether what was read is damaged, or the disk could not read it.
fn is_unreadable(error: &Error) -> bool {
    use hypercore_storage::{Error as Files, Operation};
    error.is_corruption()
        || matches!(
            error,
            Error::Storage(Files::Io {
                operation: Operation::Read,
                ..
            })
        )
}
