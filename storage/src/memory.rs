use std::{
    array,
    collections::BTreeMap,
    fmt, io,
    ops::Range,
    sync::{
        Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
        atomic::{AtomicBool, Ordering},
    },
};

use crate::{FileName, RandomAccess, Storage, random_access};

/// Six files in memory, and those beside them. Clones share their content, so a log can be closed and opened again.
///
/// Only what was written takes memory: a file with a hole of a terabyte is as small as its content.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    files: [Arc<Shared>; 6],
    beside: Arc<Mutex<BTreeMap<String, Arc<Shared>>>>,
}

impl Memory {
    /// Six empty files.
    #[must_use]
    pub fn new() -> Self {
        Self {
            files: array::from_fn(|_| Arc::default()),
            beside: Arc::default(),
        }
    }

    fn file(&self, file: FileName) -> &Arc<Shared> {
        let [key, secret_key, tree, data, bitfield, signatures] = &self.files;
        match file {
            FileName::Key => key,
            FileName::SecretKey => secret_key,
            FileName::Tree => tree,
            FileName::Data => data,
            FileName::Bitfield => bitfield,
            FileName::Signatures => signatures,
        }
    }

    /// All bytes of `file`, holes included, whether or not a log has it open.
    ///
    /// # Panics
    ///
    /// When the file does not fit into memory.
    #[must_use]
    pub fn read(&self, file: FileName) -> Vec<u8> {
        self.file(file).content()
    }

    /// Replaces all bytes of `file`, whether or not a log has it open.
    pub fn write(&self, file: FileName, bytes: &[u8]) {
        self.file(file).replace(bytes);
    }

    /// All files that were opened, by their names.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn content(&self) -> Vec<(String, Vec<u8>)> {
        let of_log = FileName::ALL.map(|file| (file.to_string(), self.read(file)));
        let beside = self.beside.lock().unwrap_or_else(PoisonError::into_inner);
        let beside = beside.iter();
        let beside = beside.map(|(name, shared)| (name.clone(), shared.content()));
        of_log.into_iter().chain(beside).collect()
    }

    /// Replaces all bytes of the file of this name, one of the six or beside them.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn write_named(&self, name: &str, bytes: &[u8]) {
        let mut beside = self.beside.lock().unwrap_or_else(PoisonError::into_inner);
        let shared = match FileName::ALL.iter().find(|file| file.as_str() == name) {
            Some(&file) => self.file(file),
            None => beside.entry(name.to_owned()).or_default(),
        };
        shared.replace(bytes);
    }

    /// Writes into `file`, whether or not a log has it open: damage, or a hole.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(crate) fn write_at(&self, file: FileName, offset: u64, bytes: &[u8]) {
        self.file(file).pages_mut().write(offset, bytes);
    }
}

impl Storage for Memory {
    fn open(&self, file: FileName) -> io::Result<Arc<dyn RandomAccess>> {
        Ok(Arc::new(MemoryFile::of(self.file(file))))
    }

    fn beside(&self, name: &str) -> io::Result<Option<Arc<dyn RandomAccess>>> {
        let mut beside = self.beside.lock().unwrap_or_else(PoisonError::into_inner);
        let shared = beside.entry(name.to_owned()).or_default();
        Ok(Some(Arc::new(MemoryFile::of(shared))))
    }

    fn remove_beside(&self, name: &str) -> io::Result<()> {
        let mut beside = self.beside.lock().unwrap_or_else(PoisonError::into_inner);
        beside.remove(name);
        Ok(())
    }

    fn never_waits(&self) -> bool {
        true
    }
}

/// One file, as all handles see it.
#[derive(Debug, Default)]
struct Shared {
    pages: RwLock<Pages>,
    locked: AtomicBool,
}

impl Shared {
    /// All bytes, holes included.
    fn content(&self) -> Vec<u8> {
        let pages = self.pages();
        let mut bytes = vec![0; usize::try_from(pages.len).expect("the file fits into memory")];
        pages.read(0, &mut bytes);
        bytes
    }

    fn replace(&self, bytes: &[u8]) {
        let mut pages = self.pages_mut();
        *pages = Pages::default();
        pages.write(0, bytes);
    }

    fn pages(&self) -> RwLockReadGuard<'_, Pages> {
        self.pages.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn pages_mut(&self) -> RwLockWriteGuard<'_, Pages> {
        self.pages.write().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug)]
struct MemoryFile {
    shared: Arc<Shared>,
    /// Whether this handle is to own the lock as soon as the file exists.
    wanted: AtomicBool,
    owner: AtomicBool,
}

impl RandomAccess for MemoryFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.shared.pages().len)
    }

    fn next_data(&self, offset: u64) -> io::Result<u64> {
        Ok(self.shared.pages().next_data(offset))
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let pages = self.shared.pages();
        match offset.checked_add(buffer.len() as u64) {
            Some(end) if end <= pages.len => {
                pages.read(offset, buffer);
                Ok(())
            }
            _ => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        if offset.checked_add(data.len() as u64).is_none() {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        if self.wanted.load(Ordering::Acquire) {
            self.take()?;
        }
        self.shared.pages_mut().write(offset, data);
        Ok(())
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        self.shared.pages_mut().truncate(len);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn punch_hole(&self, offset: u64, len: u64) -> io::Result<()> {
        if offset >= self.len()? {
            // Nor is there a page behind the last one.
            return Ok(());
        }
        let first = offset.div_ceil(PAGE_LEN);
        let end = offset.saturating_add(len) / PAGE_LEN;
        if first < end {
            let pages = &mut self.shared.pages_mut().pages;
            pages.retain(|number, _| !(first..end).contains(number));
        }
        // The ends of the range, and nothing but zeros read back from the pages just dropped.
        let head = first.saturating_mul(PAGE_LEN);
        let head = head.min(offset.saturating_add(len));
        random_access::write_zeros(self, offset, head.saturating_sub(offset))?;
        let tail = end.saturating_mul(PAGE_LEN).max(head);
        random_access::write_zeros(self, tail, offset.saturating_add(len).saturating_sub(tail))
    }

    fn allocated(&self) -> io::Result<u64> {
        let count = self.shared.pages().pages.len() as u64;
        Ok(count.saturating_mul(PAGE_LEN))
    }

    fn lock(&self) -> io::Result<()> {
        if self.shared.pages().exists {
            self.take()?;
        }
        self.wanted.store(true, Ordering::Release);
        Ok(())
    }
}

impl MemoryFile {
    fn of(shared: &Arc<Shared>) -> Self {
        Self {
            shared: Arc::clone(shared),
            wanted: AtomicBool::new(false),
            owner: AtomicBool::new(false),
        }
    }

    fn take(&self) -> io::Result<()> {
        if self.owner.load(Ordering::Acquire) {
            return Ok(());
        }
        if self.shared.locked.swap(true, Ordering::AcqRel) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.owner.store(true, Ordering::Release);
        Ok(())
    }
}

impl Drop for MemoryFile {
    fn drop(&mut self) {
        if *self.owner.get_mut() {
            self.shared.locked.store(false, Ordering::Release);
        }
    }
}

const PAGE: usize = 4096;
const PAGE_LEN: u64 = PAGE as u64;

/// The content of a file. Pages that are not there are zeros; bytes of a page beyond `len` are zero.
#[derive(Default)]
struct Pages {
    pages: BTreeMap<u64, Box<[u8; PAGE]>>,
    len: u64,
    /// Whether it was ever written to.
    exists: bool,
}

impl Pages {
    fn read(&self, offset: u64, buffer: &mut [u8]) {
        let mut rest = buffer;
        for (number, within) in parts(offset, rest.len()) {
            let Some(to) = rest.split_off_mut(..within.len()) else {
                return;
            };
            match self.pages.get(&number).and_then(|page| page.get(within)) {
                Some(bytes) => to.copy_from_slice(bytes),
                None => to.fill(0),
            }
        }
    }

    /// The first byte at or after `offset` that is on a page, or else the end of the file.
    fn next_data(&self, offset: u64) -> u64 {
        let next = self.pages.range(offset / PAGE_LEN..).next();
        let start = next.map_or(self.len, |(&number, _)| number.saturating_mul(PAGE_LEN));
        start.max(offset)
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        self.exists = true;
        if data.is_empty() {
            return;
        }
        let mut rest = data;
        for (number, within) in parts(offset, rest.len()) {
            let page = self
                .pages
                .entry(number)
                .or_insert_with(|| Box::new([0; PAGE]));
            let from = rest.split_off(..within.len());
            if let (Some(to), Some(from)) = (page.get_mut(within), from) {
                to.copy_from_slice(from);
            }
        }
        self.len = self.len.max(offset.saturating_add(data.len() as u64));
    }

    fn truncate(&mut self, len: u64) {
        if len >= self.len {
            return;
        }
        self.len = len;
        self.pages.split_off(&len.div_ceil(PAGE_LEN));
        let last = self.pages.get_mut(&(len / PAGE_LEN));
        if let Some(beyond) = last.and_then(|last| last.get_mut((len % PAGE_LEN) as usize..)) {
            beyond.fill(0);
        }
    }
}

impl fmt::Debug for Pages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not the bytes: a secret key may be among them.
        f.debug_struct("Pages")
            .field("len", &self.len)
            .finish_non_exhaustive()
    }
}

/// Cuts a range at the borders of pages: page number, range within it.
fn parts(offset: u64, len: usize) -> impl Iterator<Item = (u64, Range<usize>)> {
    let end = offset.saturating_add(len as u64);
    (offset / PAGE_LEN..end.div_ceil(PAGE_LEN)).map(move |number| {
        let start = number.saturating_mul(PAGE_LEN);
        let within = offset.saturating_sub(start)..end.saturating_sub(start).min(PAGE_LEN);
        (number, within.start as usize..within.end as usize)
    })
}
