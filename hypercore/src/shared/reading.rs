//! Reading blocks without holding up others.

use std::{ops::Range, sync::Arc};

use bytes::Bytes;
use hypercore_storage::FeedFiles;

use super::Shared;
use crate::{
    error::{Error, Result},
    log::{self, Log, Trust},
    request::Audit,
};

/// When the hashes of blocks that were read were compared with those of the tree.
enum Check {
    /// Now, as always with blocks so small: it is not worth the lock to note that.
    EveryTime,
    /// Now, so that these need not be hashed again.
    Now(Range<u64>),
    /// Before, and nobody knows whether what was read is what was hashed, if blocks were cleared since.
    Before,
}

impl Check {
    /// That of `blocks`, which were read by one who trusted them so far.
    const fn of(blocks: Range<u64>, trust: Trust) -> Self {
        match trust {
            Trust::Checked => Self::Before,
            Trust::Unknown => Self::Now(blocks),
        }
    }
}

impl Shared {
    /// Block `index`, checked unless that was done before. None if it is not stored.
    pub(crate) fn read_one(&self, index: u64) -> Result<Option<Bytes>> {
        self.read_unlocked(
            |log| log.has(index).then(|| (index..index + 1, log.trust(index))),
            |files, stored, trust| {
                let block = log::read_one(files, index, trust)?;
                let check = if block.len() < log::SMALL {
                    Check::EveryTime
                } else {
                    Check::of(stored, trust)
                };
                Ok((block, check))
            },
        )
    }

    /// The first of `blocks`, and those after it that are stored and cost little to read with it;
    /// each is checked unless that was done before. Empty if the first is not stored.
    pub(crate) fn read_run(&self, blocks: Range<u64>) -> Result<Vec<Bytes>> {
        let read = self.read_unlocked(
            |log| Some(log.stored_run(blocks.clone())).filter(|(run, _)| !run.is_empty()),
            |files, run, trust| {
                let start = run.start;
                let read = log::read_run(files, run, trust)?;
                let end = start + read.len() as u64;
                Ok((read, Check::of(start..end, trust)))
            },
        );
        Ok(read?.unwrap_or_default())
    }

    /// Reads blocks without the lock: `find` says under it which are stored, and whether they were
    /// checked; `read` reads them, and says how they were checked now.
    ///
    /// Some may be cleared before they are read. What was read then is true if its hash is right, and
    /// otherwise they are looked for again. None if they are not stored.
    fn read_unlocked<T>(
        &self,
        find: impl Fn(&Log) -> Option<(Range<u64>, Trust)>,
        read: impl Fn(&FeedFiles, Range<u64>, Trust) -> Result<(T, Check)>,
    ) -> Result<Option<T>> {
        let mut may_trust = true;
        loop {
            let core = self.lock();
            let files = Arc::clone(core.log.files()?);
            let Some((stored, trust)) = find(&core.log) else {
                return Ok(None);
            };
            let cleared = core.log.cleared();
            drop(core);
            let trust = if may_trust { trust } else { Trust::Unknown };
            let read = match read(&files, stored, trust) {
                Ok((value, Check::EveryTime)) => return Ok(Some(value)),
                read => read,
            };
            let mut core = self.lock();
            let unchanged = core.log.cleared() == cleared;
            match read {
                Ok((value, Check::Now(blocks))) => {
                    if unchanged {
                        core.log.mark_checked(blocks);
                    }
                    return Ok(Some(value));
                }
                read if unchanged => return read.map(|(value, _)| Some(value)),
                // Hashed, the next is true whatever is cleared meanwhile.
                _ => may_trust = false,
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
                Ok(_) => audit.valid += 1,
                Err(error) if is_unreadable(&error) => match self.is_damaged(&files, index)? {
                    Some(true) => audit.invalid.push(index),
                    Some(false) => audit.valid += 1,
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
