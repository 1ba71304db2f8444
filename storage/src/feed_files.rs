mod bitfield;
mod data;
mod end;
mod keys;
mod nodes;
mod signatures;
mod sync;

use std::{
    fmt,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use hypercore_merkle::{MAX_LENGTH, NodeIndex};

use crate::{
    Error, FileName, Operation, Quarantine, Storage,
    error::Result,
    file::File,
    header::{self, Header},
    node_cache::NodeCache,
};

/// The size of a page of the bitfield in new files (Hypercore 9 `lib/storage.js`).
pub const PAGE_SIZE: u16 = 3584;

/// The size of a page in files begun before Hypercore 6.22.1, which keep it for ever.
pub const OLD_PAGE_SIZE: u16 = 3328;

/// The six files of one log.
///
/// Opening takes the lock of the log and writes nothing. All methods take `&self`: readers may run
/// beside each other, and the caller lets one writer at a time work.
///
/// Nothing here is durable before the matching `sync_*` returned.
pub struct FeedFiles {
    storage: Arc<dyn Storage>,
    key: File,
    secret_key: File,
    tree: File,
    data: File,
    bitfield: File,
    signatures: File,
    page_size: u16,
    /// Somebody else writes `data`.
    foreign_data: bool,
    /// Set once the bitfield exists and its lock is ours, so that writing is allowed.
    owned: OnceLock<()>,
    /// What `tree` has, as far as it is known.
    known: NodeCache,
    /// A sync of the directory has failed: names may be lost.
    names_lost: AtomicBool,
    /// `bitfield` has been found to have at least so many bytes, and was not cut since.
    room: AtomicU64,
}

impl FeedFiles {
    /// Takes the lock and checks the headers.
    ///
    /// If there is no file `bitfield` yet, there is nothing to lock; the first write creates it
    /// and takes the lock then.
    ///
    /// # Errors
    ///
    /// [`Error::Locked`] when someone else has the log open, [`Error::BadHeader`] or
    /// [`Error::BadPageSize`] when the files are those of something else, and failures of the
    /// storage.
    pub fn open(storage: Arc<dyn Storage>) -> Result<Self> {
        match Self::open_damaged(storage)? {
            (_, Some(error)) => Err(error),
            (files, None) => Ok(files),
        }
    }

    /// As [`open`](Self::open), for those who look into damage: with what is wrong with the first
    /// header that is, if one is. If it is that of the bitfield, the size of the pages is a guess.
    ///
    /// # Errors
    ///
    /// [`Error::Locked`] and failures of the storage.
    pub fn open_damaged(storage: Arc<dyn Storage>) -> Result<(Self, Option<Error>)> {
        let open = |name| File::open(&*storage, name);
        let bitfield = open(FileName::Bitfield)?;
        bitfield.lock()?;
        let mut files = Self {
            key: open(FileName::Key)?,
            secret_key: open(FileName::SecretKey)?,
            tree: open(FileName::Tree)?,
            data: open(FileName::Data)?,
            signatures: open(FileName::Signatures)?,
            bitfield,
            page_size: PAGE_SIZE,
            foreign_data: false,
            owned: OnceLock::new(),
            known: NodeCache::default(),
            names_lost: AtomicBool::new(false),
            room: AtomicU64::new(0),
            storage,
        };
        let damage = match files.read_headers() {
            Err(error) if error.is_corruption() => Some(error),
            read => read.map(|()| None)?,
        };
        if files.bitfield.len()? > 0 {
            // It exists, so the lock above was really taken.
            files.owned.get_or_init(|| ());
        }
        Ok((files, damage))
    }

    /// Checks the headers, and learns the size of the pages, whatever the other headers are: who
    /// repairs them must not change it.
    fn read_headers(&mut self) -> Result<()> {
        let bitfield = self.read_page_size();
        self.tree.header()?;
        self.signatures.header()?;
        bitfield
    }

    fn read_page_size(&mut self) -> Result<()> {
        match self.bitfield.header() {
            Ok(Some(found @ (PAGE_SIZE | OLD_PAGE_SIZE))) => self.page_size = found,
            Ok(Some(found)) if self.bitfield.content_len()? > 0 => {
                self.page_size = self.probable_page_size()?;
                return Err(Error::BadPageSize { found });
            }
            Ok(_) => {}
            Err(error) => {
                if error.is_corruption() {
                    self.page_size = self.probable_page_size()?;
                }
                return Err(error);
            }
        }
        Ok(())
    }

    /// The size of the pages behind a header that is wrong: what it says all the same, or else what
    /// goes into the length of the file.
    fn probable_page_size(&self) -> Result<u16> {
        let mut found = Header::default();
        self.bitfield.read_up_to(0, &mut found)?;
        let said = header::entry_size(&found);
        if matches!(said, PAGE_SIZE | OLD_PAGE_SIZE) {
            return Ok(said);
        }
        let len = self.bitfield.content_len()?;
        let fits = |size: u16| len.is_multiple_of(size.into());
        Ok(if fits(OLD_PAGE_SIZE) && !fits(PAGE_SIZE) {
            OLD_PAGE_SIZE
        } else {
            PAGE_SIZE
        })
    }

    /// Whether nothing is stored: no key, and no content behind any header.
    ///
    /// A log whose creation was interrupted before its keys were written counts as empty.
    ///
    /// # Errors
    ///
    /// When the storage fails.
    pub fn is_empty(&self) -> Result<bool> {
        for file in self.ours() {
            if file.content_len()? > 0 {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Whether there is anything beside the keys, if only a header.
    ///
    /// Headers are written after the keys are durable. Where there is none, a loss of power may have
    /// left anything in place of the keys.
    ///
    /// # Errors
    ///
    /// When the storage fails.
    pub fn has_headers(&self) -> Result<bool> {
        for file in self.ours() {
            let is_key = matches!(file.name, FileName::Key | FileName::SecretKey);
            if !is_key && file.len()? > 0 {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// How many bytes a page of the bitfield has: [`PAGE_SIZE`], or [`OLD_PAGE_SIZE`] in old files.
    #[must_use]
    pub const fn page_size(&self) -> u16 {
        self.page_size
    }

    /// The length of a file in bytes, header included; 0 when it does not exist.
    ///
    /// # Errors
    ///
    /// When the storage fails.
    pub fn len(&self, file: FileName) -> Result<u64> {
        self.file(file).len()
    }

    /// How many bytes a file occupies; less than its length when it has holes.
    ///
    /// # Errors
    ///
    /// When the storage fails.
    pub fn allocated(&self, file: FileName) -> Result<u64> {
        self.file(file).allocated()
    }

    /// Writes the headers of `tree`, `signatures` and `bitfield` where they are missing, and where there
    /// is nothing behind them, because whoever wrote those may not have come to sync them. Returns
    /// whether any was written.
    ///
    /// # Errors
    ///
    /// As [`write_key`](Self::write_key).
    pub fn write_headers(&self) -> Result<bool> {
        let mut any = false;
        for file in [&self.tree, &self.signatures, &self.bitfield] {
            let header = header::encode(file.name, self.page_size);
            let mut found = Header::default();
            if file.content_len()? == 0
                || file.read_up_to(0, &mut found)?.len() < found.len()
                || found != header
            {
                self.write(file, 0, &header)?;
                any = true;
            }
        }
        Ok(any)
    }

    /// Forgets everything, durably: all files become empty. The secret key is overwritten before; the disk
    /// may keep a copy.
    ///
    /// Nothing is left to mix with what is written next. Cut short, it leaves the log, or one that
    /// [is being erased](Self::is_being_erased). The size of the pages stays.
    ///
    /// # Errors
    ///
    /// As [`write_key`](Self::write_key), and as [`sync_content`](Self::sync_content).
    // JS: `overwrite` leaves old keys, nodes and blocks behind, and reads them at the next open.
    pub fn reset(&self) -> Result<()> {
        let mut lengths = self.ours().map(File::len);
        if lengths.all(|len| matches!(len, Ok(0))) {
            return Ok(());
        }
        // What cannot be written to is found now, not half way.
        for file in self.ours() {
            if file.len()? > 0 {
                self.write(file, 0, &[])?;
            }
        }
        // Of one that was cut short not all may be durable.
        self.distrust();
        // The bitfield goes first: without it nothing claims what is being removed.
        self.truncate(&self.bitfield, 0)?;
        self.bitfield.sync()?;
        if self.secret_key.len()? > 0 {
            self.write_secret_key(&ERASED)?;
            self.secret_key.sync()?;
        }
        let content = [&self.tree, &self.data, &self.signatures];
        let mut content = content.into_iter().filter(|file| self.is_ours(file));
        content.try_for_each(|file| self.truncate(file, 0))?;
        self.sync_content()?;
        // The mark goes last: as long as it is there, all else is to be forgotten.
        for key in [&self.key, &self.secret_key] {
            self.truncate(key, 0)?;
            key.sync()?;
        }
        self.sync_directory()
    }

    /// Whether a log was here that was to be forgotten, and a [`reset`](Self::reset) of it was cut short:
    /// there is no bitfield, and a mark stands in place of the secret key, which no disk leaves there by
    /// itself.
    ///
    /// # Errors
    ///
    /// When the storage fails.
    pub fn is_being_erased(&self) -> Result<bool> {
        if self.bitfield.len()? > 0 || self.secret_key.len()? < ERASED.len() as u64 {
            return Ok(false);
        }
        Ok(self.secret_key()?.is_some_and(|key| *key == ERASED))
    }

    /// Removes the files, all six if `data` is ours. A directory stays. Nothing may be written
    /// afterwards.
    ///
    /// # Errors
    ///
    /// As [`write_key`](Self::write_key).
    pub fn destroy(&self) -> Result<()> {
        self.reset()?;
        let remove = |file| {
            let removed = self.storage.remove(file);
            removed.map_err(|error| Error::io(file, Operation::Remove, 0, error))
        };
        // The bitfield last, because its lock is ours only as long as it has its name.
        let names = self.ours().map(|file| file.name);
        let others = names.filter(|&file| file != FileName::Bitfield);
        others.chain([FileName::Bitfield]).try_for_each(remove)
    }

    /// The place where the files are.
    #[must_use]
    pub fn storage(&self) -> &Arc<dyn Storage> {
        &self.storage
    }

    /// An empty quarantine.
    pub const fn quarantine(&self) -> Quarantine<'_> {
        Quarantine::new(self)
    }

    // Writing, always with the lock

    fn write(&self, file: &File, offset: u64, bytes: &[u8]) -> Result<()> {
        self.own()?;
        file.write(offset, bytes)
    }

    fn truncate(&self, file: &File, len: u64) -> Result<()> {
        if file.len()? <= len {
            return Ok(());
        }
        self.cut_file(file, len)
    }

    fn cut_file(&self, file: &File, len: u64) -> Result<()> {
        self.own()?;
        let truncated = file.truncate(len);
        match file.name {
            FileName::Tree => self.known.forget(),
            FileName::Bitfield => self.room.store(0, Ordering::Release),
            _ => {}
        }
        truncated
    }

    fn clear(&self, file: &File, start: u64, end: u64) -> Result<()> {
        let len = file.len()?;
        if start >= end.min(len) {
            return Ok(());
        }
        if end >= len {
            return self.cut_file(file, start);
        }
        self.own()?;
        file.punch_hole(start..end)
    }

    /// Makes sure the lock is ours. Without a bitfield there was nothing to lock at `open`.
    fn own(&self) -> Result<()> {
        if self.owned.get().is_some() {
            return Ok(());
        }
        // Creates the file, and thereby takes its lock.
        self.bitfield.write(0, &[])?;
        if self.bitfield.len()? > 0 {
            // Someone made a log of it between our `open` and now, and is gone again. What we
            // know about the files is no longer true.
            return Err(Error::Locked);
        }
        self.owned.get_or_init(|| ());
        Ok(())
    }

    /// The files that nobody else writes.
    fn ours(&self) -> impl Iterator<Item = &File> {
        let all = FileName::ALL.into_iter().map(|name| self.file(name));
        all.filter(|file| self.is_ours(file))
    }

    fn is_ours(&self, file: &File) -> bool {
        !self.foreign_data || file.name != FileName::Data
    }

    pub(crate) const fn data(&self) -> &File {
        &self.data
    }

    pub(crate) fn file(&self, name: FileName) -> &File {
        match name {
            FileName::Key => &self.key,
            FileName::SecretKey => &self.secret_key,
            FileName::Tree => &self.tree,
            FileName::Data => &self.data,
            FileName::Bitfield => &self.bitfield,
            FileName::Signatures => &self.signatures,
        }
    }
}

impl fmt::Debug for FeedFiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FeedFiles")
            .field("page_size", &self.page_size)
            .finish_non_exhaustive()
    }
}

/// What is left of the secret key of a log that is being forgotten.
const ERASED: [u8; 64] = *b"This key is erased. What is left of its log is to be forgotten.\n";

/// The length of a node in `tree`: its hash, then its size as a big endian number.
pub(crate) const RECORD: usize = 40;
pub(crate) const RECORD_LEN: u64 = RECORD as u64;

/// The length of a slot in `signatures`.
pub(crate) const SIGNATURE: usize = 64;
pub(crate) const SIGNATURE_LEN: u64 = SIGNATURE as u64;

/// How much one read fetches at most, except of a block: 64 KiB, where longer reads are no faster.
pub(crate) const CHUNK: usize = 1 << 16;

/// Positions that no log has share the place behind all that logs have, where nothing is ever
/// written.
pub(crate) fn node_offset(index: NodeIndex) -> u64 {
    record_offset(index.get())
}

fn record_offset(position: u64) -> u64 {
    let before = position.min(2 * MAX_LENGTH);
    before
        .saturating_mul(RECORD_LEN)
        .saturating_add(header::LEN)
}

/// How many records a log of `length` blocks has: up to its last leaf.
fn records(length: u64) -> u64 {
    length.min(MAX_LENGTH).saturating_mul(2).saturating_sub(1)
}

/// Blocks that no log has share a place behind all others, as [nodes](node_offset) do.
pub(crate) fn signature_offset(block: u64) -> u64 {
    let before = block.min(MAX_LENGTH);
    before
        .saturating_mul(SIGNATURE_LEN)
        .saturating_add(header::LEN)
}

fn within(file: FileName, position: u64, max: u64) -> Result<()> {
    if position > max {
        Err(Error::OutOfRange { file, position })
    } else {
        Ok(())
    }
}
