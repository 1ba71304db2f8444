//! One key, one history: is this the place where the log was written last, and is it all there?
//!
//! A directory that was copied, or put back from a backup, holds a secret key and an old log. Who
//! goes on from there signs a second history, and copies of the first refuse it. So a writer notes
//! where it is and how far it came, in a file beside the log that Node ignores, and if it is told
//! to also in a file elsewhere, which an old backup does not take back.
//!
//! Each file has two slots of 512 bytes that are written in turn, so that one is always whole:
//!
//! ```text
//! 0          8          16       24        56         88       96         128
//! +----------+----------+--------+---------+----------+--------+----------+
//! | hcguard1 | sequence | length | root    | place    | forked | checksum | zeros
//! +----------+----------+--------+---------+----------+--------+----------+
//! ```
//! Numbers are little endian. The root is the tree hash of that length, or zeros if it is not known,
//! the place a hash of what tells the directory from a copy, and `forked` the length of a fork that
//! was seen, or 0.

use std::{io, sync::Arc};

use hypercore_merkle::{DiscoveryKey, Hash, TreeHead, leaf_hash};
use hypercore_storage::{RandomAccess, Storage};

use crate::error::{Error, Result};

/// Why nothing may be appended, though the secret key is here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AppendLock {
    /// The files were copied or moved since they were last written to, or put back from a backup.
    #[error("its files were copied, moved or restored since they were last written to")]
    Copied,
    /// More was signed with this key than is here.
    #[error("{signed} blocks were signed with its key, and {length} of them are here")]
    Shorter {
        /// The length of the log here.
        length: u64,
        /// The length that was signed here before.
        signed: u64,
    },
    /// Other blocks were signed with this key than are here.
    #[error("its first {length} blocks are not those that were signed here before")]
    Other {
        /// The length that was signed here before.
        length: u64,
    },
    /// A peer has proven a longer log, signed with this key.
    #[error("a peer has {theirs} blocks that were signed with its key, and {ours} are here")]
    Behind {
        /// The length of the log here.
        ours: u64,
        /// The length that the peer has proven.
        theirs: u64,
    },
    /// A peer has proven another history, signed with this key: see
    /// [`ForkProof`](crate::ForkProof).
    #[error("another history of {length} blocks was signed with its key")]
    Forked {
        /// The length of the other history.
        length: u64,
    },
}

/// The name of the file beside the log.
const FILE: &str = "fork-guard";

const SLOT: usize = 512;
const MAGIC: [u8; 8] = *b"hcguard1";

/// What a slot says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Record {
    sequence: u64,
    length: u64,
    root: Hash,
    place: Hash,
    forked: u64,
}

impl Record {
    fn encode(&self) -> [u8; SLOT] {
        let numbers = |number: u64| number.to_le_bytes();
        let mut bytes = Vec::with_capacity(SLOT);
        bytes.extend(MAGIC);
        bytes.extend(numbers(self.sequence));
        bytes.extend(numbers(self.length));
        bytes.extend(self.root);
        bytes.extend(self.place);
        bytes.extend(numbers(self.forked));
        bytes.extend(leaf_hash(&bytes));
        let mut slot = [0; SLOT];
        slot[..bytes.len()].copy_from_slice(&bytes);
        slot
    }

    fn decode(slot: &[u8; SLOT]) -> Option<Self> {
        let (content, rest) = slot.split_at_checked(96)?;
        if !content.starts_with(&MAGIC) || !rest.starts_with(&leaf_hash(content)) {
            return None;
        }
        let number = |at: usize| Some(u64::from_le_bytes(*content.get(at..)?.first_chunk()?));
        Some(Self {
            sequence: number(8)?,
            length: number(16)?,
            root: *content.get(24..)?.first_chunk()?,
            place: *content.get(56..)?.first_chunk()?,
            forked: number(88)?,
        })
    }
}

/// A file with its name, so that errors can say which.
#[derive(Debug, Clone)]
pub(crate) struct GuardFile {
    name: String,
    access: Arc<dyn RandomAccess>,
}

impl GuardFile {
    fn open(storage: &dyn Storage, name: &str) -> Result<Option<Self>> {
        let access = storage.beside(name).map_err(|error| failed(name, error))?;
        let name = name.to_owned();
        Ok(access.map(|access| Self { name, access }))
    }

    /// Makes durable what was noted in it.
    pub(crate) fn sync(&self) -> Result<()> {
        let synced = self.access.sync();
        synced.map_err(|error| failed(&self.name, error))
    }
}

fn failed(name: &str, source: io::Error) -> Error {
    let file = name.to_owned();
    Error::Guard { file, source }
}

/// A file of two slots.
#[derive(Debug)]
struct Slots {
    file: GuardFile,
    newest: Option<Record>,
}

impl Slots {
    fn read(file: GuardFile) -> Result<Self> {
        let mut newest: Option<Record> = None;
        for slot in 0..2 {
            let mut bytes = [0; SLOT];
            match file.access.read_at(slot * SLOT as u64, &mut bytes) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => break,
                Err(error) => return Err(failed(&file.name, error)),
            }
            let record = Record::decode(&bytes);
            newest = newest.max_by_sequence(record);
        }
        Ok(Self { file, newest })
    }

    fn write(&mut self, record: Record) -> Result<()> {
        let sequence = self.newest.map_or(0, |newest| newest.sequence + 1);
        let record = Record { sequence, ..record };
        let slot = record.encode();
        let write = |offset, bytes: &[u8]| {
            let written = self.file.access.write_at(offset, bytes);
            written.map_err(|error| failed(&self.file.name, error))
        };
        write((sequence % 2) * SLOT as u64, &slot)?;
        if sequence == 0 {
            // The file has its full length from the beginning.
            write(SLOT as u64, &[0; SLOT])?;
        }
        self.newest = Some(record);
        Ok(())
    }
}

trait Newest: Sized {
    fn max_by_sequence(self, other: Self) -> Self;
}

impl Newest for Option<Record> {
    fn max_by_sequence(self, other: Self) -> Self {
        [self, other]
            .into_iter()
            .flatten()
            .max_by_key(|record| record.sequence)
    }
}

/// What a writer notes of itself.
#[derive(Debug)]
pub(crate) struct Guard {
    here: Slots,
    /// Where an old backup does not reach.
    elsewhere: Option<Slots>,
    place: Hash,
}

impl Guard {
    /// The guard of the log in `storage`, if it can have one. `elsewhere` is for the second file.
    pub(crate) fn open(
        storage: &dyn Storage,
        elsewhere: Option<&dyn Storage>,
        discovery_key: &DiscoveryKey,
    ) -> Result<Option<Self>> {
        let place = storage.place().map_err(|error| failed(FILE, error))?;
        let here = GuardFile::open(storage, FILE)?;
        let Some(here) = here.filter(|_| !place.is_empty()) else {
            return Ok(None);
        };
        let elsewhere = match elsewhere {
            Some(state) => GuardFile::open(state, &discovery_key.to_string())?,
            None => None,
        };
        Ok(Some(Self {
            here: Slots::read(here)?,
            elsewhere: elsewhere.map(Slots::read).transpose()?,
            place: leaf_hash(&place),
        }))
    }

    /// Locks the log in `storage` durably, for a secret key that is not there yet and has signed
    /// `length` blocks elsewhere.
    pub(crate) fn lock_beforehand(storage: &dyn Storage, length: u64) -> Result<()> {
        let Some(file) = GuardFile::open(storage, FILE)? else {
            return Ok(());
        };
        let mut slots = Slots::read(file)?;
        // Neither the place nor the hash of the tree is known.
        slots.write(Record {
            length,
            ..Record::default()
        })?;
        slots.file.sync()?;
        let synced = storage.sync_directory();
        synced.map_err(|error| failed(FILE, error))
    }

    /// Whether the log in `storage` was written in its present place before.
    pub(crate) fn was_noted(storage: &dyn Storage) -> Result<bool> {
        let Some(file) = GuardFile::open(storage, FILE)? else {
            return Ok(false);
        };
        let place = storage.place().map_err(|error| failed(FILE, error))?;
        let newest = Slots::read(file)?.newest;
        Ok(newest.is_some_and(|record| record.place == leaf_hash(&place)))
    }

    /// Removes the file beside the log.
    pub(crate) fn remove(storage: &dyn Storage) -> Result<()> {
        let removed = storage.remove_beside(FILE);
        removed.map_err(|error| failed(FILE, error))
    }

    /// Why nothing may be appended to the log that ends with `head`, if that is so. `hash_at` knows
    /// the tree hash of shorter lengths, as far as it is known.
    pub(crate) fn judge(
        &self,
        head: &TreeHead,
        hash_at: impl Fn(u64) -> Option<Hash>,
    ) -> Option<AppendLock> {
        if let Some(record) = self.here.newest {
            if record.forked > 0 {
                let length = record.forked;
                return Some(AppendLock::Forked { length });
            }
            if record.place != self.place {
                return Some(AppendLock::Copied);
            }
        }
        self.missing(head, hash_at)
    }

    /// What was signed and is not in the log that ends with `head`.
    pub(crate) fn missing(
        &self,
        head: &TreeHead,
        hash_at: impl Fn(u64) -> Option<Hash>,
    ) -> Option<AppendLock> {
        // The same key may have been given to two directories on purpose: each has its own.
        let elsewhere = self.elsewhere.as_ref().and_then(|slots| slots.newest);
        let elsewhere = elsewhere.filter(|record| record.place == self.place);
        for record in [self.here.newest, elsewhere].into_iter().flatten() {
            let (length, signed) = (head.length, record.length);
            if signed > length {
                return Some(AppendLock::Shorter { length, signed });
            }
            let is_known = record.root != Hash::default();
            if is_known && hash_at(signed).is_some_and(|hash| hash != record.root) {
                return Some(AppendLock::Other { length: signed });
            }
        }
        None
    }

    /// Notes how long the log is, before anybody else hears of it.
    pub(crate) fn note(&mut self, head: &TreeHead) -> Result<()> {
        let record = Record {
            length: head.length,
            root: head.hash,
            place: self.place,
            ..Record::default()
        };
        if let Some(elsewhere) = &mut self.elsewhere {
            elsewhere.write(record)?;
        }
        self.here.write(record)
    }

    /// Notes what peers have shown durably, so that it is not forgotten.
    pub(crate) fn note_lock(&mut self, lock: AppendLock, theirs: &TreeHead) -> Result<()> {
        let forked = match lock {
            AppendLock::Forked { length } => length,
            _ => 0,
        };
        self.here.write(Record {
            length: theirs.length,
            root: theirs.hash,
            place: self.place,
            forked,
            ..Record::default()
        })?;
        self.here.file.sync()
    }

    /// The files, to be synced.
    pub(crate) fn files(&self) -> Vec<GuardFile> {
        let elsewhere = self.elsewhere.iter();
        let slots = std::iter::once(&self.here).chain(elsewhere);
        slots.map(|slots| slots.file.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_torn_slot_leaves_the_one_before() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = || {
            let storage = hypercore_storage::Directory::new(directory.path());
            let file = GuardFile::open(&storage, "x");
            file.expect("a handle")
                .expect("a directory has files beside")
        };
        let mut slots = Slots::read(file()).expect("no file is an empty one");
        for length in 1..=4 {
            let record = Record {
                length,
                ..Record::default()
            };
            slots.write(record).expect("a write");
        }
        let read = || Slots::read(file()).expect("a read").newest;
        assert_eq!(read().map(|record| record.length), Some(4));
        // The fourth, number 3, is in the second slot.
        let write = |offset| file().access.write_at(offset, &[9]).expect("a write");
        write(SLOT as u64 + 100);
        assert_eq!(read().map(|record| record.length), Some(3));
        write(16);
        assert_eq!(read(), None);
    }
}
