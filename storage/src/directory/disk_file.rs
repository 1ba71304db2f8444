//! A file of a directory, whether it is open at this moment or not.

use std::{
    fs::{self, File, Metadata, OpenOptions, TryLockError},
    io,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
    },
};

use super::{Shared, lock, pool};
use crate::{RandomAccess, error::NotAFile};

/// What a file is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// One of the six that everybody may read.
    Public,
    /// For its owner alone.
    Secret,
    /// For its owner alone, too. Its writes need not be durable, unless they are synced at once.
    Beside,
}

/// One of the files. It is opened when it is first needed, and again as long as it does not exist or
/// when it was [closed](pool) meanwhile.
#[derive(Debug)]
pub(super) struct DiskFile {
    this: Weak<Self>,
    directory: Arc<Shared>,
    path: PathBuf,
    kind: Kind,
    state: Mutex<State>,
    /// Whether it was used since the pool last looked.
    used: AtomicBool,
    /// Whether it must stay open: a sync through another handle need not hear of failed writes.
    unsynced: AtomicBool,
}

#[derive(Debug, Default)]
struct State {
    /// Held by others only while they use it.
    handle: Option<Arc<Handle>>,
    /// Whether the handle must own the lock of the file, and never be closed.
    locked: bool,
    /// Which file it was when it was open.
    identity: Option<Identity>,
}

#[derive(Debug)]
struct Handle {
    file: File,
    writable: bool,
    identity: Identity,
}

impl DiskFile {
    pub(super) fn new(directory: &Arc<Shared>, name: &str, kind: Kind) -> Arc<Self> {
        Arc::new_cyclic(|this| Self {
            this: Weak::clone(this),
            directory: Arc::clone(directory),
            path: directory.path.join(name),
            kind,
            state: Mutex::default(),
            used: AtomicBool::new(false),
            unsynced: AtomicBool::new(false),
        })
    }

    pub(super) fn this(&self) -> Weak<Self> {
        Weak::clone(&self.this)
    }

    /// Closes the file unless it was just used or has to stay open. Whether the pool is done with it.
    pub(super) fn rest(&self) -> bool {
        // Somebody is at it: it is not idle.
        let Ok(mut state) = self.state.try_lock() else {
            return false;
        };
        if state.locked {
            return true;
        }
        let is_used = self.used.swap(false, Ordering::Relaxed)
            || self.unsynced.load(Ordering::Acquire)
            || state
                .handle
                .as_ref()
                .is_some_and(|handle| Arc::strong_count(handle) > 1);
        if !is_used {
            state.handle = None;
        }
        !is_used
    }

    /// The file if it exists.
    fn existing(&self) -> io::Result<Option<Arc<Handle>>> {
        self.used.store(true, Ordering::Relaxed);
        let state = lock(&self.state);
        if let Some(handle) = &state.handle {
            return Ok(Some(Arc::clone(handle)));
        }
        match self.open() {
            Err(error) if error.kind() == io::ErrorKind::NotFound && state.identity.is_none() => {
                Ok(None)
            }
            opened => self.keep(state, opened?).map(Some),
        }
    }

    /// The file, created if it does not exist.
    fn writable(&self) -> io::Result<Arc<Handle>> {
        let handle = match self.existing()? {
            Some(handle) => handle,
            None => {
                let state = lock(&self.state);
                match &state.handle {
                    Some(handle) => Arc::clone(handle),
                    None => self.keep(state, self.create()?)?,
                }
            }
        };
        if !handle.writable {
            if has_other_names(&handle.file.metadata()?) {
                return Err(other_names());
            }
            // Why it could not be opened for that before.
            let refused = options().write(true).open(&self.path).err();
            return Err(refused.unwrap_or_else(|| io::ErrorKind::PermissionDenied.into()));
        }
        Ok(handle)
    }

    /// Makes `handle` the one of this file.
    fn keep(&self, mut state: MutexGuard<'_, State>, handle: Handle) -> io::Result<Arc<Handle>> {
        if state.identity.is_some_and(|known| known != handle.identity) {
            return Err(io::Error::other("another file was put in its place"));
        }
        if state.locked {
            self.take_lock(&handle)?;
        }
        let handle = Arc::new(handle);
        state.identity = Some(handle.identity);
        state.handle = Some(Arc::clone(&handle));
        let is_locked = state.locked;
        drop(state);
        if !is_locked {
            pool::admit(self.this());
        }
        Ok(handle)
    }

    /// Takes the lock, for as long as the file has its name: one that was removed meanwhile locks nothing.
    fn take_lock(&self, handle: &Handle) -> io::Result<()> {
        try_lock(&handle.file)?;
        let named = fs::symlink_metadata(&self.path);
        if named.is_ok_and(|named| identity(&named) == handle.identity) {
            return Ok(());
        }
        handle.file.unlock()?;
        Err(io::ErrorKind::WouldBlock.into())
    }

    fn change(&self, change: impl FnOnce(&File) -> io::Result<()>) -> io::Result<()> {
        let handle = self.writable()?;
        let changed = change(&handle.file);
        // The handle is still in use here, so the file was not closed in between.
        self.unsynced
            .store(self.kind != Kind::Beside, Ordering::Release);
        changed
    }

    fn open(&self) -> io::Result<Handle> {
        let mut both = options();
        both.read(true).write(true);
        match self.open_with(&both, true) {
            Err(error) if is_read_only(&error) => self.open_with(options().read(true), false),
            opened => opened,
        }
    }

    fn create(&self) -> io::Result<Handle> {
        self.directory.create()?;
        let mut options = options();
        options.read(true).write(true);
        if self.kind != Kind::Public {
            // New or not at all: nobody may have it open already.
            options.create_new(true);
            #[cfg(unix)]
            std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        } else {
            options.create(true).truncate(false);
        }
        let handle = self.open_with(&options, true)?;
        self.directory.note_entry(&self.directory.path);
        Ok(handle)
    }

    fn open_with(&self, options: &OpenOptions, writable: bool) -> io::Result<Handle> {
        let file = options
            .open(&self.path)
            .map_err(|error| kind_of(&self.path).map_or(error, not_a_file))?;
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(not_a_file(name_of(metadata.file_type())));
        }
        #[cfg(unix)]
        if self.kind != Kind::Public {
            use std::os::unix::fs::PermissionsExt;
            // JS: readable for everybody; here: for its owner alone, unless it is not ours to change.
            if metadata.permissions().mode() & 0o077 != 0 {
                match file.set_permissions(fs::Permissions::from_mode(0o600)) {
                    Err(error) if !is_read_only(&error) => return Err(error),
                    _ => {}
                }
            }
        }
        Ok(Handle {
            identity: identity(&metadata),
            writable: writable && !has_other_names(&metadata),
            file,
        })
    }
}

impl RandomAccess for DiskFile {
    fn len(&self) -> io::Result<u64> {
        self.existing()?
            .map_or(Ok(0), |handle| Ok(handle.file.metadata()?.len()))
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        match self.existing()? {
            Some(handle) => positioned::read(&handle.file, offset, buffer),
            None if buffer.is_empty() => Ok(()),
            None => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.change(|file| positioned::write(file, offset, data))
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        if self.len()? <= len {
            Ok(())
        } else {
            self.change(|file| file.set_len(len))
        }
    }

    fn sync(&self) -> io::Result<()> {
        let Some(handle) = self.existing()? else {
            return Ok(());
        };
        // Before the sync, so that what is written meanwhile is not taken for synced.
        self.unsynced.store(false, Ordering::Release);
        let synced = handle.file.sync_data();
        if synced.is_err() {
            self.unsynced.store(true, Ordering::Release);
        }
        synced
    }

    #[cfg(target_os = "linux")]
    fn next_data(&self, offset: u64) -> io::Result<u64> {
        use rustix::{fs::SeekFrom, io::Errno};
        let Some(handle) = self.existing()? else {
            return Ok(offset);
        };
        match rustix::fs::seek(&handle.file, SeekFrom::Data(offset)) {
            // Nothing but a hole up to the end.
            Err(Errno::NXIO) => Ok(offset.max(handle.file.metadata()?.len())),
            // Not every file system knows.
            Err(_) => Ok(offset),
            Ok(next) => Ok(next),
        }
    }

    fn punch_hole(&self, offset: u64, len: u64) -> io::Result<()> {
        let end = offset.saturating_add(len).min(self.len()?);
        let Some(len) = end.checked_sub(offset).filter(|&len| len > 0) else {
            return Ok(());
        };
        #[cfg(target_os = "linux")]
        {
            use rustix::fs::{FallocateFlags, fallocate};
            let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            match self.change(|file| Ok(fallocate(file, flags, offset, len)?)) {
                Err(error) if error.kind() == io::ErrorKind::Unsupported => {}
                done => return done,
            }
        }
        crate::random_access::write_zeros(self, offset, len)
    }

    #[cfg(unix)]
    fn allocated(&self) -> io::Result<u64> {
        use std::os::unix::fs::MetadataExt;
        // POSIX does not say how large a block is, but everywhere it is 512 bytes.
        self.existing()?.map_or(Ok(0), |handle| {
            Ok(handle.file.metadata()?.blocks().saturating_mul(512))
        })
    }

    fn lock(&self) -> io::Result<()> {
        let mut state = lock(&self.state);
        if state.locked {
            return Ok(());
        }
        state.locked = true;
        let taken = match &state.handle {
            Some(handle) => self.take_lock(handle),
            None => {
                drop(state);
                let opened = self.existing().map(drop);
                state = lock(&self.state);
                opened
            }
        };
        if taken.is_err() {
            state.locked = false;
        }
        taken
    }
}

/// A file that is open for as long as it is used.
#[derive(Debug)]
pub(super) struct PlainFile(pub(super) File);

impl RandomAccess for PlainFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        positioned::read(&self.0, offset, buffer)
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        positioned::write(&self.0, offset, data)
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        if self.len()? > len {
            self.0.set_len(len)?;
        }
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync_data()
    }
}

impl Drop for DiskFile {
    fn drop(&mut self) {
        // Closing would do, were it not for processes that are being started at this moment: until
        // they run their program they hold copies of the handle, and thereby the lock.
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let (true, Some(handle)) = (state.locked, &state.handle) {
            let _ = handle.file.unlock();
        }
    }
}

/// Where a system has no such locks, as that of WebAssembly, there is none, as with Hypercore 9.
fn try_lock(file: &File) -> io::Result<()> {
    match file.try_lock() {
        Err(TryLockError::WouldBlock) => Err(io::ErrorKind::WouldBlock.into()),
        Err(TryLockError::Error(error)) if error.kind() != io::ErrorKind::Unsupported => Err(error),
        _ => Ok(()),
    }
}

/// Options that follow no symbolic link and do not wait for the other end of a pipe.
pub(super) fn options() -> OpenOptions {
    #[cfg_attr(not(unix), expect(unused_mut))]
    let mut options = OpenOptions::new();
    #[cfg(unix)]
    {
        use rustix::fs::OFlags;
        use std::os::unix::fs::OpenOptionsExt;
        options.custom_flags((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed());
    }
    options
}

fn is_read_only(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem
    )
}

fn not_a_file(found: &'static str) -> io::Error {
    io::Error::other(NotAFile(found))
}

/// Whether what is written to the file changes another one: a hard link to it. That can be a backup,
/// or something that has nothing to do with the log.
#[cfg(unix)]
fn has_other_names(metadata: &Metadata) -> bool {
    std::os::unix::fs::MetadataExt::nlink(metadata) > 1
}

#[cfg(not(unix))]
fn has_other_names(_: &Metadata) -> bool {
    false
}

fn other_names() -> io::Error {
    let words =
        "it has another name (a hard link), which would be written to, too; put a copy here";
    io::Error::new(io::ErrorKind::PermissionDenied, words)
}

/// What stands at `path` if it is no regular file. Explains an error, decides nothing.
fn kind_of(path: &Path) -> Option<&'static str> {
    let file_type = fs::symlink_metadata(path).ok()?.file_type();
    (!file_type.is_file()).then(|| name_of(file_type))
}

fn name_of(file_type: fs::FileType) -> &'static str {
    #[cfg(unix)]
    {
        use std::os::unix::fs::FileTypeExt;
        if file_type.is_fifo() {
            return "named pipe";
        }
        if file_type.is_socket() {
            return "socket";
        }
        if file_type.is_char_device() || file_type.is_block_device() {
            return "device";
        }
    }
    match file_type {
        kind if kind.is_symlink() => "symbolic link",
        kind if kind.is_dir() => "directory",
        _ => "special file",
    }
}

/// What tells a file from another one of the same name.
type Identity = (u64, u64);

#[cfg(unix)]
fn identity(metadata: &Metadata) -> Identity {
    use std::os::unix::fs::MetadataExt;
    (metadata.dev(), metadata.ino())
}

#[cfg(not(unix))]
fn identity(_: &Metadata) -> Identity {
    (0, 0)
}

#[cfg(unix)]
mod positioned {
    use std::{fs::File, io, os::unix::fs::FileExt};

    pub(super) fn read(file: &File, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        file.read_exact_at(buffer, offset)
    }

    pub(super) fn write(file: &File, offset: u64, data: &[u8]) -> io::Result<()> {
        file.write_all_at(data, offset)
    }
}

#[cfg(windows)]
mod positioned {
    use std::{fs::File, io, mem, os::windows::fs::FileExt};

    pub(super) fn read(file: &File, mut offset: u64, mut buffer: &mut [u8]) -> io::Result<()> {
        while !buffer.is_empty() {
            match file.seek_read(buffer, offset) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => {
                    buffer = mem::take(&mut buffer).get_mut(count..).unwrap_or_default();
                    offset = offset.saturating_add(count as u64);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    pub(super) fn write(file: &File, mut offset: u64, mut data: &[u8]) -> io::Result<()> {
        while !data.is_empty() {
            match file.seek_write(data, offset) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => {
                    data = data.get(count..).unwrap_or_default();
                    offset = offset.saturating_add(count as u64);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// One cursor for all: a lock stands for the missing positioned calls.
#[cfg(not(any(unix, windows)))]
mod positioned {
    use std::{
        fs::File,
        io::{self, Read, Seek, SeekFrom, Write},
        sync::{Mutex, PoisonError},
    };

    static CURSOR: Mutex<()> = Mutex::new(());

    pub(super) fn read(mut file: &File, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let _guard = CURSOR.lock().unwrap_or_else(PoisonError::into_inner);
        file.seek(SeekFrom::Start(offset))?;
        file.read_exact(buffer)
    }

    pub(super) fn write(mut file: &File, offset: u64, data: &[u8]) -> io::Result<()> {
        let _guard = CURSOR.lock().unwrap_or_else(PoisonError::into_inner);
        file.seek(SeekFrom::Start(offset))?;
        file.write_all(data)
    }
}
