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

    /// All bytes of `file`, holes included, whether or not a log has it open.
    ///
    /// # Panics
    ///
    /// When the file does not fit into memory.
    #[must_use]
    pub fn read(&self, file: FileName) -> Vec<u8> {
        self.files[file as usize].content()
    }

    /// Replaces all bytes of `file`, whether or not a log has it open.
    pub fn write(&self, file: FileName, bytes: &[u8]) {
        self.files[file as usize].replace(bytes);
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
            Some(&file) => &self.files[file as usize],
            None => beside.entry(name.to_owned()).or_default(),
        };
        shared.replace(bytes);
    }

    /// Writes into `file`, whether or not a log has it open: damage, or a hole.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(crate) fn write_at(&self, file: FileName, offset: u64, bytes: &[u8]) {
        self.files[file as usize].pages_mut().write(offset, bytes);
    }
}

impl Storage for Memory {
    fn open(&self, file: FileName) -> io::Result<Arc<dyn RandomAccess>> {
        Ok(Arc::new(MemoryFile::of(&self.files[file as usize])))
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
        let first = offset.div_ceil(PAGE as u64);
        let end = offset.saturating_add(len) / PAGE as u64;
        if first < end {
            let pages = &mut self.shared.pages_mut().pages;
            pages.retain(|number, _| !(first..end).contains(number));
        }
        // The ends of the range, and nothing but zeros read back from the pages just dropped.
        let head = first.saturating_mul(PAGE as u64);
        let head = head.min(offset.saturating_add(len));
        random_access::write_zeros(self, offset, head - offset)?;
        let tail = (end * PAGE as u64).max(head);
        random_access::write_zeros(self, tail, offset.saturating_add(len).saturating_sub(tail))
    }

    fn allocated(&self) -> io::Result<u64> {
        Ok((self.shared.pages().pages.len() * PAGE) as u64)
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
        for (number, within, part) in parts(offset, buffer.len()) {
            let to = &mut buffer[part];
            match self.pages.get(&number) {
                Some(page) => to.copy_from_slice(&page[within..within + to.len()]),
                None => to.fill(0),
            }
        }
    }

    /// The first byte at or after `offset` that is on a page, or else the end of the file.
    fn next_data(&self, offset: u64) -> u64 {
        let next = self.pages.range(offset / PAGE as u64..).next();
        let start = next.map_or(self.len, |(&number, _)| number * PAGE as u64);
        start.max(offset)
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        self.exists = true;
        for (number, within, part) in parts(offset, data.len()) {
            let page = self
                .pages
                .entry(number)
                .or_insert_with(|| Box::new([0; PAGE]));
            page[within..within + part.len()].copy_from_slice(&data[part]);
        }
        if !data.is_empty() {
            self.len = self.len.max(offset + data.len() as u64);
        }
    }

    fn truncate(&mut self, len: u64) {
        if len >= self.len {
            return;
        }
        self.len = len;
        self.pages.split_off(&len.div_ceil(PAGE as u64));
        if let Some(last) = self.pages.get_mut(&(len / PAGE as u64)) {
            last[(len % PAGE as u64) as usize..].fill(0);
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

/// Cuts a range at the borders of pages: page number, offset within it, range within the buffer.
fn parts(offset: u64, len: usize) -> impl Iterator<Item = (u64, usize, Range<usize>)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        if done == len {
            return None;
        }
        let position = offset + done as u64;
        let within = (position % PAGE as u64) as usize;
        let start = done;
        done += (PAGE - within).min(len - done);
        Some((position / PAGE as u64, within, start..done))
    })
}
