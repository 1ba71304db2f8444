use std::{
    io,
    ops::Range,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use crate::{
    Error, FileName, Operation, RandomAccess, Storage,
    error::Result,
    header::{self, Header},
};

/// One file with its name, so that errors can say where.
#[derive(Debug)]
pub(crate) struct File {
    pub(crate) name: FileName,
    access: Arc<dyn RandomAccess>,
    /// Writes that are over, well or not.
    written: AtomicU64,
    /// How many of them are durable.
    synced: AtomicU64,
    /// Held while it is synced. True once that has failed.
    sync: Mutex<bool>,
}

impl File {
    pub(crate) fn open(storage: &dyn Storage, name: FileName) -> Result<Self> {
        let access = storage
            .open(name)
            .map_err(|error| Error::io(name, Operation::Open, 0, error))?;
        Ok(Self {
            name,
            access,
            written: AtomicU64::new(0),
            synced: AtomicU64::new(0),
            sync: Mutex::new(false),
        })
    }

    pub(crate) fn error(&self, operation: Operation, offset: u64, error: io::Error) -> Error {
        Error::io(self.name, operation, offset, error)
    }

    pub(crate) fn lock(&self) -> Result<()> {
        self.access
            .lock()
            .map_err(|error| self.error(Operation::Lock, 0, error))
    }

    pub(crate) fn len(&self) -> Result<u64> {
        self.access
            .len()
            .map_err(|error| self.error(Operation::Measure, 0, error))
    }

    /// The length without the header, where there is one.
    pub(crate) fn content_len(&self) -> Result<u64> {
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

    /// How many bytes it occupies; less than its length when it has holes.
    pub(crate) fn allocated(&self) -> Result<u64> {
        self.access
            .allocated()
            .map_err(|error| self.error(Operation::Measure, 0, error))
    }

    /// The entry size in the header, or `None` if nothing is behind it. Without content it does not
    /// matter what the header is: it was not finished, and is written anew.
    pub(crate) fn header(&self) -> Result<Option<u16>> {
        let mut found = Header::default();
        if self.content_len()? == 0 {
            let complete = self.read_up_to(0, &mut found)?.len() as u64 == header::LEN;
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

    /// Fills `buffer`. When the file ends before, that is an `UnexpectedEof` for the caller to name.
    pub(crate) fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.access.read_at(offset, buffer)
    }

    /// Fills `buffer` as far as the file goes, which is returned, and the rest with zeros.
    pub(crate) fn read_up_to<'a>(&self, offset: u64, buffer: &'a mut [u8]) -> Result<&'a [u8]> {
        let read = |buffer: &mut [u8]| self.access.read_at(offset, buffer);
        let failed = |error| self.error(Operation::Read, offset, error);
        match read(buffer) {
            Ok(()) => return Ok(buffer),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {}
            Err(error) => return Err(failed(error)),
        }
        let rest = self.len()?.saturating_sub(offset).min(buffer.len() as u64) as usize;
        let (stored, beyond) = buffer.split_at_mut(rest);
        beyond.fill(0);
        if !stored.is_empty() {
            read(stored).map_err(failed)?;
        }
        Ok(stored)
    }

    /// Reads a whole key into `key`; false if the file is empty or does not exist.
    pub(crate) fn read_key(&self, key: &mut [u8]) -> Result<bool> {
        let expected = key.len() as u64;
        let len = self.read_up_to(0, key)?.len() as u64;
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

    pub(crate) fn write(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        let written = self.access.write_at(offset, bytes);
        self.distrust();
        written.map_err(|error| self.error(Operation::Write, offset, error))
    }

    pub(crate) fn truncate(&self, len: u64) -> Result<()> {
        let truncated = self.access.truncate(len);
        self.distrust();
        truncated.map_err(|error| self.error(Operation::Truncate, len, error))
    }

    /// Makes these bytes read as zeros, and gives their space back where the storage can do that.
    pub(crate) fn punch_hole(&self, Range { start, end }: Range<u64>) -> Result<()> {
        let punched = self.access.punch_hole(start, end.saturating_sub(start));
        self.distrust();
        punched.map_err(|error| self.error(Operation::PunchHole, start, error))
    }

    /// Whether something that was written is not durable, or not yet.
    pub(crate) fn is_dirty(&self) -> bool {
        self.synced.load(Ordering::Acquire) != self.written.load(Ordering::Acquire)
    }

    /// Counts what it holds as not synced. After each write, not before: a sync that runs beside a
    /// write may not take in what it writes.
    pub(crate) fn distrust(&self) {
        self.written.fetch_add(1, Ordering::Release);
    }

    /// Makes durable what was written before, or waits for whoever is doing that. Once it has failed
    /// it always fails: the system may have dropped what it could not write, and a second sync would
    /// not notice.
    pub(crate) fn sync(&self) -> Result<()> {
        let mut failed = self.sync.lock().unwrap_or_else(PoisonError::into_inner);
        let written = self.written.load(Ordering::Acquire);
        if self.synced.load(Ordering::Acquire) == written {
            return Ok(());
        }
        let synced = if *failed {
            Err(io::Error::other("an earlier sync has failed"))
        } else {
            self.access.sync()
        };
        match synced {
            Ok(()) => self.synced.store(written, Ordering::Release),
            Err(_) => *failed = true,
        }
        synced.map_err(|error| self.error(Operation::Sync, 0, error))
    }
}
