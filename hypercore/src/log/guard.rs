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
//! 0          8          16       24        56         88       96         128       136        168
//! +----------+----------+--------+---------+----------+--------+----------+---------+----------+
//! | hcguard1 | sequence | length | root    | place    | forked | checksum | appends | checksum |
//! +----------+----------+--------+---------+----------+--------+----------+---------+----------+
//! | resumed  | checksum | zeros
//! +----------+----------+
//! 168        176        208
//! ```
//! Numbers are little endian. The root is the tree hash of that length, or zeros if it is not known,
//! the place a hash of what tells the directory from a copy, and `forked` the length of a fork that
//! was seen, or 0. `appends` says what a loss of power may take ([`Appends`]), and has a checksum of
//! all before it of its own, because versions that do not know of it leave zeros there. So has
//! `resumed`, which is there while a resume has not ended: from this block on some may be missing.

use std::{fmt, io, sync::Arc};

use hypercore_merkle::{DiscoveryKey, Hash, MAX_LENGTH, TreeHead, leaf_hash};
use hypercore_storage::{FeedFiles, RandomAccess, Storage};

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

/// What a loss of power may take of the appends that returned. Only the file beside the log is asked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Appends {
    /// Nobody has noted that.
    #[default]
    Unknown,
    /// Nothing: they are durable.
    Durable,
    /// Those since the last flush: nobody waited for them.
    Unsynced,
    /// Nothing up to the noted length, where the log was closed. Who goes on from there without
    /// noting anything, as Node does, may not have waited.
    Closed,
}

impl Appends {
    const fn encode(self) -> u64 {
        match self {
            Self::Unknown => 0,
            Self::Durable => 1,
            Self::Unsynced => 2,
            Self::Closed => 3,
        }
    }

    const fn decode(number: u64) -> Self {
        match number {
            1 => Self::Durable,
            2 => Self::Unsynced,
            3 => Self::Closed,
            _ => Self::Unknown,
        }
    }
}

/// What a slot says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Record {
    sequence: u64,
    length: u64,
    root: Hash,
    place: Hash,
    forked: u64,
    appends: Appends,
    /// How long the log was before a resume took in more.
    resumed_from: Option<u64>,
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
        bytes.extend(numbers(self.appends.encode()));
        bytes.extend(leaf_hash(&bytes));
        if let Some(length) = self.resumed_from {
            bytes.extend(numbers(length));
            bytes.extend(leaf_hash(&bytes));
        }
        let mut slot = [0; SLOT];
        for (to, from) in slot.iter_mut().zip(bytes) {
            *to = from;
        }
        slot
    }

    fn decode(slot: &[u8; SLOT]) -> Option<Self> {
        let (content, rest) = slot.split_at_checked(96)?;
        if !content.starts_with(&MAGIC) || !rest.starts_with(&leaf_hash(content)) {
            return None;
        }
        let number = |at: usize| Some(u64::from_le_bytes(*slot.get(at..)?.first_chunk()?));
        // Nobody writes so often, and there has to be a next number.
        let sequence = number(8).filter(|&sequence| sequence <= u64::MAX / 2)?;
        // The number that ends here, if a checksum follows.
        let later = |end: usize| {
            let (known, rest) = slot.split_at_checked(end)?;
            let is_there = rest.starts_with(&leaf_hash(known));
            let number = known.last_chunk().map(|bytes| u64::from_le_bytes(*bytes));
            number.filter(|_| is_there)
        };
        Some(Self {
            sequence,
            length: number(16)?,
            root: *content.get(24..)?.first_chunk()?,
            place: *content.get(56..)?.first_chunk()?,
            forked: number(88)?,
            appends: later(136).map_or(Appends::Unknown, Appends::decode),
            resumed_from: later(176),
        })
    }
}

/// A file with its name, so that errors can say which.
#[derive(Clone)]
pub(crate) struct GuardFile {
    name: String,
    access: Arc<dyn RandomAccess>,
    /// Where it is.
    storage: Arc<dyn Storage>,
}

impl GuardFile {
    fn open(storage: &Arc<dyn Storage>, name: &str) -> Result<Option<Self>> {
        let access = storage.beside(name).map_err(|error| failed(name, error))?;
        Ok(access.map(|access| Self {
            name: name.to_owned(),
            access,
            storage: Arc::clone(storage),
        }))
    }

    /// Makes durable what was noted in it, and that it is there.
    pub(crate) fn sync(&self) -> Result<()> {
        let synced = self.access.sync();
        let synced = synced.and_then(|()| self.storage.sync_directory());
        synced.map_err(|error| failed(&self.name, error))
    }

    /// As [`sync`](Self::sync), also if a program that was killed has made the file.
    fn sync_anew(&self) -> Result<()> {
        self.storage.distrust_directory();
        self.sync()
    }
}

impl fmt::Debug for GuardFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GuardFile")
            .field("name", &self.name)
            .finish_non_exhaustive()
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
            match file.access.read_at(place(slot), &mut bytes) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => break,
                Err(error) => return Err(failed(&file.name, error)),
            }
            let both = newest.into_iter().chain(Record::decode(&bytes));
            newest = both.max_by_key(|record| record.sequence);
        }
        Ok(Self { file, newest })
    }

    /// Gives the file its full length, if nothing was ever noted in it. What fails leaves no record.
    fn make_room(&self) -> Result<()> {
        match self.newest {
            None => self.write_at(0, &[0; 2 * SLOT]),
            Some(_) => Ok(()),
        }
    }

    /// What fails may leave the record all the same.
    fn write(&mut self, record: Record) -> Result<()> {
        self.make_room()?;
        let sequence = self
            .newest
            .map_or(0, |newest| newest.sequence.saturating_add(1));
        let record = Record { sequence, ..record };
        self.write_at(place(sequence % 2), &record.encode())?;
        self.newest = Some(record);
        Ok(())
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        let written = self.file.access.write_at(offset, bytes);
        written.map_err(|error| failed(&self.file.name, error))
    }
}

/// Where a slot begins, which is the first or the second.
const fn place(slot: u64) -> u64 {
    slot.saturating_mul(SLOT as u64)
}

/// Whether the log in `files`, which was not closed, may lack more than one append that returned.
/// Where that was not noted it is as for this opening.
pub(super) fn may_lose(files: &FeedFiles, this_opening: bool) -> Result<bool> {
    let Some(file) = GuardFile::open(files.storage(), FILE)? else {
        return Ok(this_opening);
    };
    let record = Slots::read(file)?.newest.unwrap_or_default();
    Ok(match record.appends {
        Appends::Unknown => this_opening,
        Appends::Durable => false,
        Appends::Unsynced => true,
        Appends::Closed => {
            let last = files.previous_signature(MAX_LENGTH)?;
            this_opening && last.is_some_and(|(block, _)| block >= record.length)
        }
    })
}

/// How many blocks were durable here when that was noted last; `None` if it was not, or a resume was to
/// bring some of them. Once a peer has shown a longer log it is the length of that, of which nothing need
/// ever have been here.
pub(super) fn durable_length(storage: &Arc<dyn Storage>) -> Result<Option<u64>> {
    let file = GuardFile::open(storage, FILE)?;
    let newest = file.map(Slots::read).transpose()?;
    let record = newest.and_then(|slots| slots.newest);
    let record = record.filter(|record| record.resumed_from.is_none());
    Ok(record.and_then(|record| match record.appends {
        Appends::Durable | Appends::Closed => Some(record.length),
        Appends::Unknown | Appends::Unsynced => None,
    }))
}

/// Whether the log in `storage` was written here, or where its files come from.
pub(super) fn was_written(storage: &Arc<dyn Storage>) -> Result<bool> {
    let file = GuardFile::open(storage, FILE)?;
    let slots = file.map(Slots::read).transpose()?;
    Ok(slots.is_some_and(|slots| slots.newest.is_some()))
}

/// Notes durably that nothing can be lost any more of the log in `storage`: all that was found in it
/// is durable, and nobody has written to it yet.
pub(super) fn note_recovered(storage: &Arc<dyn Storage>) -> Result<()> {
    let Some(file) = GuardFile::open(storage, FILE)? else {
        return Ok(());
    };
    let mut slots = Slots::read(file)?;
    match slots.newest {
        Some(record) if matches!(record.appends, Appends::Durable | Appends::Unsynced) => {
            let appends = Appends::Closed;
            slots.write(Record { appends, ..record })?;
            slots.file.sync()
        }
        _ => Ok(()),
    }
}

/// What a writer notes of itself.
#[derive(Debug)]
pub(crate) struct Guard {
    here: Slots,
    /// Where an old backup does not reach.
    elsewhere: Option<Slots>,
    place: Hash,
    /// What is noted from now on.
    appends: Appends,
    /// [`Appends::Unsynced`] was noted durably.
    expects_loss: bool,
}

impl Guard {
    /// The guard of the log in `storage`, if it can have one. `elsewhere` is for the second file.
    pub(crate) fn open(
        storage: &Arc<dyn Storage>,
        elsewhere: Option<&Arc<dyn Storage>>,
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
        let here = Slots::read(here)?;
        Ok(Some(Self {
            appends: here.newest.unwrap_or_default().appends,
            here,
            elsewhere: elsewhere.map(Slots::read).transpose()?,
            place: leaf_hash(&place),
            expects_loss: false,
        }))
    }

    /// Locks the log in `storage` durably, for a secret key that is not there yet and has signed
    /// `length` blocks elsewhere. What was noted of more, or of a fork, stays true.
    pub(crate) fn lock_beforehand(storage: &Arc<dyn Storage>, length: u64) -> Result<()> {
        let Some(file) = GuardFile::open(storage, FILE)? else {
            return Ok(());
        };
        let mut slots = Slots::read(file)?;
        let known = slots.newest.unwrap_or_default();
        let end = if known.length < length {
            // The hash of the tree is not known.
            Record {
                length,
                root: Hash::default(),
                ..known
            }
        } else {
            known
        };
        slots.write(Record {
            place: Hash::default(),
            ..end
        })?;
        slots.file.sync_anew()
    }

    /// Whether the log in `storage` is in the place where it was written last; `None` if nothing was
    /// noted.
    pub(crate) fn is_in_place(storage: &Arc<dyn Storage>) -> Result<Option<bool>> {
        let Some(file) = GuardFile::open(storage, FILE)? else {
            return Ok(None);
        };
        let place = storage.place().map_err(|error| failed(FILE, error))?;
        let newest = Slots::read(file)?.newest;
        Ok(newest.map(|record| record.place == leaf_hash(&place)))
    }

    /// Removes the file beside the log, durably.
    pub(crate) fn remove(storage: &dyn Storage) -> Result<()> {
        let removed = storage.remove_beside(FILE);
        let removed = removed.and_then(|()| storage.sync_directory());
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
            if let Some(lock) = self.forked() {
                return Some(lock);
            }
            if record.place != self.place {
                return Some(AppendLock::Copied);
            }
        }
        let unfinished = || {
            let ours = self.resumed_from()?.min(head.length);
            let theirs = head.length;
            Some(AppendLock::Behind { ours, theirs })
        };
        self.missing(head, hash_at).or_else(unfinished)
    }

    /// How long the log was before a resume took in more, if that has not ended.
    pub(crate) fn resumed_from(&self) -> Option<u64> {
        self.here.newest?.resumed_from
    }

    /// The lock for a fork that was noted.
    pub(crate) fn forked(&self) -> Option<AppendLock> {
        let length = self.here.newest?.forked;
        (length > 0).then_some(AppendLock::Forked { length })
    }

    /// Whether something was noted.
    pub(crate) const fn has_noted(&self) -> bool {
        self.here.newest.is_some()
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

    /// The length that was signed, as far as that was noted.
    pub(crate) fn signed(&self) -> u64 {
        self.here.newest.map_or(0, |newest| newest.length)
    }

    /// Notes how long the log is, of which nothing is missing, before anybody else hears of it.
    pub(crate) fn note(&mut self, head: &TreeHead) -> Result<()> {
        let record = Record {
            length: head.length,
            root: head.hash,
            place: self.place,
            appends: self.appends,
            ..Record::default()
        };
        self.here.write(record)?;
        let Some(elsewhere) = &mut self.elsewhere else {
            return Ok(());
        };
        // Where nothing was ever noted, nothing is missed when that stays so.
        if let Err(error) = elsewhere.make_room() {
            tracing::warn!(%error, "the guard against forks is beside the log only");
            self.elsewhere = None;
            return Ok(());
        }
        elsewhere.write(record)
    }

    /// Notes what peers have shown durably, so that it is not forgotten.
    pub(crate) fn note_lock(&mut self, lock: AppendLock, theirs: &TreeHead) -> Result<()> {
        let forked = match lock {
            AppendLock::Forked { length } => length,
            _ => 0,
        };
        // Files that were copied stay that, and holes stay where they are.
        let known = self.known();
        self.here.write(Record {
            length: theirs.length,
            root: theirs.hash,
            forked,
            appends: self.appends,
            ..known
        })?;
        self.here.file.sync_anew()
    }

    /// Notes durably that the log, of `length` blocks, is about to be as long as `theirs`, and that blocks
    /// are missing until a resume has ended.
    pub(crate) fn note_resume(&mut self, length: u64, theirs: &TreeHead) -> Result<()> {
        let known = self.known();
        let end = if known.length < theirs.length {
            Record {
                length: theirs.length,
                root: theirs.hash,
                ..known
            }
        } else {
            known
        };
        self.here.write(Record {
            resumed_from: Some(length),
            ..end
        })?;
        self.here.file.sync_anew()
    }

    /// What was noted last.
    fn known(&self) -> Record {
        self.here.newest.unwrap_or_else(|| Record {
            place: self.place,
            ..Record::default()
        })
    }

    /// From the next note on, this is what it says of the appends.
    pub(crate) const fn set_appends(&mut self, appends: Appends) {
        self.appends = appends;
        self.expects_loss = false;
    }

    /// Notes what a loss of power may take now.
    pub(crate) fn note_appends(&mut self, appends: Appends) -> Result<()> {
        self.expects_loss = false;
        let known = self.known();
        self.here.write(Record { appends, ..known })?;
        self.appends = appends;
        Ok(())
    }

    /// What is noted of the appends.
    pub(crate) const fn appends(&self) -> Appends {
        self.appends
    }

    /// Whether appends may be lost, and that was noted durably.
    pub(crate) const fn expects_loss(&self) -> bool {
        self.expects_loss
    }

    /// [`Appends::Unsynced`] is durable.
    pub(crate) const fn loss_is_noted(&mut self) {
        self.expects_loss = true;
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
            let storage: Arc<dyn Storage> = Arc::new(storage);
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

    /// The first 128 bytes of a slot mean what they meant before there were more.
    #[test]
    fn a_slot_of_an_older_version_says_nothing_of_the_appends() {
        let record = Record {
            sequence: 7,
            length: 3,
            appends: Appends::Durable,
            ..Record::default()
        };
        let mut slot = record.encode();
        assert_eq!(Record::decode(&slot), Some(record));
        let unknown = Record {
            appends: Appends::Unknown,
            ..record
        };
        slot[130] ^= 1;
        assert_eq!(Record::decode(&slot), Some(unknown));
        slot[128..].fill(0);
        assert_eq!(Record::decode(&slot), Some(unknown));
    }

    /// Nor does one of before say anything of a resume, and none says anything else than before
    /// without one.
    #[test]
    fn a_slot_tells_where_a_resume_began() {
        let record = Record {
            length: 9,
            appends: Appends::Closed,
            ..Record::default()
        };
        assert!(record.encode()[168..].iter().all(|&byte| byte == 0));
        for length in [0, 5, u64::MAX] {
            let resumed = Record {
                resumed_from: Some(length),
                ..record
            };
            let mut slot = resumed.encode();
            assert_eq!(slot[..168], record.encode()[..168]);
            assert_eq!(Record::decode(&slot), Some(resumed));
            slot[170] ^= 1;
            assert_eq!(Record::decode(&slot), Some(record));
        }
    }

    /// Nobody has written so often: it was a panic when the next number was to be found.
    #[test]
    fn a_slot_with_the_last_number_is_none() {
        let storage: Arc<dyn Storage> = Arc::new(hypercore_storage::Memory::new());
        let file = || {
            let file = GuardFile::open(&storage, "x").expect("a handle");
            file.expect("memory has files beside")
        };
        for sequence in [u64::MAX, u64::MAX - 1] {
            let record = Record {
                sequence,
                ..Record::default()
            };
            let slot = record.encode();
            file().access.write_at(0, &slot).expect("a write");
            let mut slots = Slots::read(file()).expect("a read");
            for _ in 0..3 {
                slots.write(Record::default()).expect("a write");
            }
        }
    }
}
