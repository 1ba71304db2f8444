mod data;
mod nodes;
mod signatures;

use std::{
    fmt, io,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use hypercore_merkle::{MAX_LENGTH, NodeIndex};
use zeroize::Zeroizing;

use crate::{
    Error, FileName, Operation, Quarantine, RandomAccess, Storage,
    error::Result,
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
        let file = self.file(file);
        file.access
            .allocated()
            .map_err(|error| file.error(Operation::Measure, 0, error))
    }

    /// Writes the headers of `tree`, `signatures` and `bitfield` where they are missing. Returns
    /// whether any was.
    ///
    /// # Errors
    ///
    /// As [`write_key`](Self::write_key).
    pub fn write_headers(&self) -> Result<bool> {
        let mut any = false;
        for file in [&self.tree, &self.signatures, &self.bitfield] {
            let header = header::encode(file.name, self.page_size);
            let mut found = Header::default();
            if file.read_up_to(0, &mut found)? < found.len() || found != header {
                self.write(file, 0, &header)?;
                any = true;
            }
        }
        Ok(any)
    }

    /// Forgets everything: all files become empty, the secret key is overwritten first.
    ///
    /// Nothing is left to mix with what is written next. The size of the pages stays.
    ///
    /// # Errors
    ///
    /// As [`write_key`](Self::write_key).
    // JS: `overwrite` leaves old keys, nodes and blocks behind, and reads them at the next open.
    pub fn reset(&self) -> Result<()> {
        // The bitfield goes first: without it nothing claims what is being removed.
        self.truncate(&self.bitfield, 0)?;
        self.bitfield.sync()?;
        self.erase_secret_key()?;
        self.ours().try_for_each(|file| self.truncate(file, 0))
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

    // Keys

    /// The public key, if there is one. As in Node, bytes after it do not matter.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`](crate::Error::Corrupt) when the file is shorter than a key, and when the storage fails.
    pub fn key(&self) -> Result<Option<[u8; 32]>> {
        let mut key = [0; 32];
        Ok(self.key.read_key(&mut key)?.then_some(key))
    }

    /// Stores the public key.
    ///
    /// # Errors
    ///
    /// [`Error::Locked`] when someone else has made a log here since this was opened, and when the storage
    /// fails.
    pub fn write_key(&self, key: &[u8; 32]) -> Result<()> {
        self.write(&self.key, 0, key)
    }

    /// The secret key, if there is one: 32 bytes of seed, then the public key. It is not checked
    /// against the public key.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`](crate::Error::Corrupt) when the file is shorter than a key, and when the storage fails.
    pub fn secret_key(&self) -> Result<Option<Zeroizing<[u8; 64]>>> {
        let mut key = Zeroizing::new([0; 64]);
        Ok(self.secret_key.read_key(&mut *key)?.then_some(key))
    }

    /// Stores the secret key.
    ///
    /// # Errors
    ///
    /// As [`write_key`](Self::write_key).
    pub fn write_secret_key(&self, key: &[u8; 64]) -> Result<()> {
        self.write(&self.secret_key, 0, key)
    }

    /// Overwrites the secret key with zeros and empties its file. The disk may keep a copy.
    ///
    /// # Errors
    ///
    /// As [`write_key`](Self::write_key).
    pub fn erase_secret_key(&self) -> Result<()> {
        let len = self.secret_key.len()?;
        if len == 0 {
            return Ok(());
        }
        self.write(&self.secret_key, 0, &[0; 64])?;
        self.secret_key.sync()?;
        self.secret_key.truncate(0)
    }

    // The end of the log

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
        self.clear_signatures(length + 1..MAX_LENGTH)
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

    /// An empty quarantine.
    pub const fn quarantine(&self) -> Quarantine<'_> {
        Quarantine::new(self)
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
        let records = (2 * length.min(MAX_LENGTH)).saturating_sub(1);
        [
            (&self.data, byte_length),
            (&self.tree, header::LEN + RECORD as u64 * records),
            (&self.signatures, signature_offset(length)),
        ]
        .into_iter()
        .filter(|&(file, _)| self.is_ours(file))
    }

    // Bitfield

    /// How many pages the bitfield has; a short last one counts.
    ///
    /// # Errors
    ///
    /// When the storage fails.
    pub fn page_count(&self) -> Result<u64> {
        Ok(self.bitfield.content_len()?.div_ceil(self.page_size.into()))
    }

    /// Hands every page with its number to `visit`, but for some of those in a hole. The last one may be
    /// short.
    ///
    /// # Errors
    ///
    /// When the storage fails.
    pub fn pages(&self, mut visit: impl FnMut(u64, &[u8])) -> Result<()> {
        let size = usize::from(self.page_size);
        let mut rest = self.bitfield.content_len()?;
        let mut buffer = vec![0; size * PAGES];
        let mut page = 0;
        while rest > 0 {
            let wanted = rest.min(buffer.len() as u64) as usize;
            let read = self
                .bitfield
                .read_up_to(self.page_offset(page), &mut buffer[..wanted])?;
            let is_blank = buffer[..read].iter().all(|&byte| byte == 0);
            for bytes in buffer[..read].chunks(size) {
                visit(page, bytes);
                page += 1;
            }
            if read < wanted {
                break;
            }
            rest -= wanted as u64;
            if is_blank {
                // A file with a hole of a terabyte is not worth an hour.
                let here = self.page_offset(page);
                let skipped = self.bitfield.next_data(here)?.saturating_sub(here) / size as u64;
                page += skipped;
                rest = rest.saturating_sub(skipped * size as u64);
            }
        }
        Ok(())
    }

    /// Stores page number `page`.
    ///
    /// # Errors
    ///
    /// [`Error::OutOfRange`](crate::Error::OutOfRange) beyond what a log can have, and as
    /// [`write_key`](Self::write_key).
    ///
    /// # Panics
    ///
    /// When `bytes` is not exactly one page long.
    pub fn write_page(&self, page: u64, bytes: &[u8]) -> Result<()> {
        assert_eq!(
            bytes.len(),
            usize::from(self.page_size),
            "a page is written whole"
        );
        within(FileName::Bitfield, page, MAX_LENGTH / PAGE_BLOCKS)?;
        self.write(&self.bitfield, self.page_offset(page), bytes)
    }

    /// Makes room for the pages of a log of `length` blocks, durably. To be done before pages are
    /// written that what is stored now, or next, will have: a file that grows may show anything after
    /// a loss of power, and what a page claims has to be true.
    ///
    /// # Errors
    ///
    /// [`Error::OutOfRange`](crate::Error::OutOfRange) beyond what a log can have, and as
    /// [`write_key`](Self::write_key).
    pub fn reserve_pages(&self, length: u64) -> Result<()> {
        within(FileName::Bitfield, length, MAX_LENGTH)?;
        let end = self.page_offset(length.div_ceil(PAGE_BLOCKS));
        let page = u64::from(self.page_size);
        let len = self.bitfield.len()?.max(header::LEN);
        if len >= end {
            return Ok(());
        }
        // What lies before becomes a hole, and that shows zeros.
        let zeros = vec![0; page.min(end - len) as usize];
        self.write(&self.bitfield, end - zeros.len() as u64, &zeros)?;
        self.sync_bitfield()
    }

    /// How many blocks the file `tree` has room for.
    ///
    /// # Errors
    ///
    /// When the storage fails.
    pub fn tree_blocks(&self) -> Result<u64> {
        Ok((self.tree.content_len()? / RECORD as u64).div_ceil(2))
    }

    /// Cuts the bitfield to its first `count` pages.
    ///
    /// # Errors
    ///
    /// As [`write_key`](Self::write_key).
    pub fn truncate_pages(&self, count: u64) -> Result<()> {
        let count = count.min(MAX_LENGTH / PAGE_BLOCKS + 1);
        self.truncate(&self.bitfield, self.page_offset(count))
    }

    // Durability

    /// Makes `data`, `tree` and `signatures` durable, those that were written to since the last
    /// time. Several at once are synced beside each other where that is faster.
    ///
    /// # Errors
    ///
    /// When the storage fails. What did not become durable is synced again the next time, but whether the
    /// system still has it then, nobody knows.
    pub fn sync_content(&self) -> Result<()> {
        let dirty: Vec<_> = [&self.data, &self.tree, &self.signatures]
            .into_iter()
            .filter(|file| file.dirty.load(Ordering::Acquire))
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
            self.file(name).dirty.store(true, Ordering::Release);
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

    // Writing, always with the lock

    fn write(&self, file: &File, offset: u64, bytes: &[u8]) -> Result<()> {
        self.own()?;
        file.write(offset, bytes)
    }

    fn truncate(&self, file: &File, len: u64) -> Result<()> {
        if file.len()? <= len {
            return Ok(());
        }
        self.own()?;
        let truncated = file.truncate(len);
        if file.name == FileName::Tree {
            self.known.forget();
        }
        truncated
    }

    fn clear(&self, file: &File, start: u64, end: u64) -> Result<()> {
        let len = file.len()?;
        if start >= end.min(len) {
            return Ok(());
        }
        self.own()?;
        if end >= len {
            return file.truncate(start);
        }
        file.dirty.store(true, Ordering::Release);
        file.access
            .punch_hole(start, end - start)
            .map_err(|error| file.error(Operation::PunchHole, start, error))
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

    fn page_offset(&self, page: u64) -> u64 {
        header::LEN + page * u64::from(self.page_size)
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

/// One file with its name, so that errors can say where.
#[derive(Debug)]
pub(crate) struct File {
    pub(crate) name: FileName,
    access: Arc<dyn RandomAccess>,
    /// Whether it was written to since it was last synced.
    dirty: AtomicBool,
}

impl File {
    fn open(storage: &dyn Storage, name: FileName) -> Result<Self> {
        let access = storage
            .open(name)
            .map_err(|error| Error::io(name, Operation::Open, 0, error))?;
        Ok(Self {
            name,
            access,
            dirty: AtomicBool::new(false),
        })
    }

    pub(crate) fn error(&self, operation: Operation, offset: u64, error: io::Error) -> Error {
        Error::io(self.name, operation, offset, error)
    }

    fn lock(&self) -> Result<()> {
        self.access
            .lock()
            .map_err(|error| self.error(Operation::Lock, 0, error))
    }

    pub(crate) fn len(&self) -> Result<u64> {
        self.access
            .len()
            .map_err(|error| self.error(Operation::Measure, 0, error))
    }

    fn content_len(&self) -> Result<u64> {
        let has_header = matches!(
            self.name,
            FileName::Tree | FileName::Signatures | FileName::Bitfield
        );
        let len = self.len()?;
        Ok(if has_header {
            len.saturating_sub(header::LEN)
        } else {
            len
        })
    }

    /// The entry size in the header, or `None` if nothing is behind it. Without content it does not
    /// matter what the header is: it was not finished, and is written anew.
    fn header(&self) -> Result<Option<u16>> {
        let mut found = Header::default();
        if self.content_len()? == 0 {
            let complete = self.read_up_to(0, &mut found)? == found.len();
            return Ok(header::check(self.name, &found).ok().filter(|_| complete));
        }
        self.read_up_to(0, &mut found)?;
        header::check(self.name, &found).map(Some)
    }

    /// The next byte at or after `offset` that is not in a hole.
    pub(crate) fn next_data(&self, offset: u64) -> Result<u64> {
        let next = self.access.next_data(offset);
        next.map_err(|error| self.error(Operation::Read, offset, error))
    }

    /// Fills `buffer` as far as the file goes, the rest with zeros; how far it went.
    pub(crate) fn read_up_to(&self, offset: u64, buffer: &mut [u8]) -> Result<usize> {
        let read = |buffer: &mut [u8]| self.access.read_at(offset, buffer);
        let failed = |error| self.error(Operation::Read, offset, error);
        match read(buffer) {
            Ok(()) => return Ok(buffer.len()),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {}
            Err(error) => return Err(failed(error)),
        }
        let rest = self.len()?.saturating_sub(offset).min(buffer.len() as u64) as usize;
        let (stored, beyond) = buffer.split_at_mut(rest);
        beyond.fill(0);
        if !stored.is_empty() {
            read(stored).map_err(failed)?;
        }
        Ok(rest)
    }

    /// Reads a whole key into `key`; false if the file is empty or does not exist.
    fn read_key(&self, key: &mut [u8]) -> Result<bool> {
        let (len, expected) = (self.read_up_to(0, key)? as u64, key.len() as u64);
        match len {
            0 => Ok(false),
            _ if len == expected => Ok(true),
            _ => Err(Error::Corrupt {
                file: self.name,
                len,
                expected,
            }),
        }
    }

    fn write(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        self.dirty.store(true, Ordering::Release);
        self.access
            .write_at(offset, bytes)
            .map_err(|error| self.error(Operation::Write, offset, error))
    }

    fn truncate(&self, len: u64) -> Result<()> {
        self.dirty.store(true, Ordering::Release);
        self.access
            .truncate(len)
            .map_err(|error| self.error(Operation::Truncate, len, error))
    }

    /// Syncs if it was written to. A file that could not be synced stays marked.
    fn sync(&self) -> Result<()> {
        if !self.dirty.swap(false, Ordering::AcqRel) {
            return Ok(());
        }
        self.access.sync().map_err(|error| {
            self.dirty.store(true, Ordering::Release);
            self.error(Operation::Sync, 0, error)
        })
    }
}

/// The length of a node in `tree`: its hash, then its size as a big endian number.
pub(crate) const RECORD: usize = 40;

/// The length of a slot in `signatures`.
pub(crate) const SIGNATURE: usize = 64;

/// How much one read fetches at most, except of a block: 64 KiB, where longer reads are no faster.
pub(crate) const CHUNK: usize = 1 << 16;

/// How many blocks a page speaks of.
const PAGE_BLOCKS: u64 = 8192;

/// How many pages one read fetches, as in Hypercore 9 `lib/storage.js` `statAndReadAll`.
const PAGES: usize = 32;

/// Positions that no log has share the place behind all that logs have, where nothing is ever
/// written.
pub(crate) fn node_offset(index: NodeIndex) -> u64 {
    header::LEN + RECORD as u64 * index.get().min(2 * MAX_LENGTH)
}

/// Blocks that no log has share a place behind all others, as [nodes](node_offset) do.
pub(crate) fn signature_offset(block: u64) -> u64 {
    header::LEN + SIGNATURE as u64 * block.min(MAX_LENGTH)
}

fn within(file: FileName, position: u64, max: u64) -> Result<()> {
    if position > max {
        Err(Error::OutOfRange { file, position })
    } else {
        Ok(())
    }
}
