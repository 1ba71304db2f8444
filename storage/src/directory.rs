use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use crate::{FileName, RandomAccess, Storage, error::NotAFile};

/// Six files in a directory, as Node lays them out.
///
/// Reading creates nothing: a missing directory is an empty log. The first write creates the
/// directory, for its owner alone, and the file. On Unix, names that lead elsewhere (symbolic links)
/// and everything but regular files are refused, a file with further names (hard links) is only
/// read, and a secret key that others may read is taken from them as soon as it is opened.
///
/// Opening a log locks the file `bitfield` with `flock`, exactly as Hypercore 9 does
/// (`hypercore-default-storage`, `fsctl`), so the two never write at the same time.
#[derive(Clone, Debug)]
pub struct Directory {
    shared: Arc<Shared>,
}

impl Directory {
    /// The directory at `path`, which need not exist.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            shared: Arc::new(Shared {
                path: path.into(),
                unsynced: Mutex::default(),
            }),
        }
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.shared.path
    }
}

impl Storage for Directory {
    fn open(&self, file: FileName) -> io::Result<Arc<dyn RandomAccess>> {
        let is_private = file == FileName::SecretKey;
        Ok(Arc::new(self.shared.file(file.as_str(), is_private)))
    }

    fn remove(&self, file: FileName) -> io::Result<()> {
        self.remove_beside(file.as_str())
    }

    /// `name` in the directory, for its owner alone.
    fn beside(&self, name: &str) -> io::Result<Option<Arc<dyn RandomAccess>>> {
        Ok(Some(Arc::new(self.shared.file(name, true))))
    }

    fn remove_beside(&self, name: &str) -> io::Result<()> {
        match fs::remove_file(self.shared.path.join(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    fn place(&self) -> io::Result<Vec<u8>> {
        let secret_key = self.shared.path.join(FileName::SecretKey.as_str());
        match fs::symlink_metadata(secret_key) {
            Ok(metadata) => Ok(place::of(&metadata)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    /// `quarantine-<n>`, for its owner alone, with the first number that is free.
    fn new_quarantine(&self) -> io::Result<Option<Arc<dyn RandomAccess>>> {
        for number in 0..MAX_QUARANTINES {
            let mut options = options();
            options.read(true).write(true).create_new(true);
            #[cfg(unix)]
            std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
            let path = self.shared.path.join(format!("quarantine-{number}"));
            match options.open(path) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                opened => {
                    let file = Arc::new(PlainFile(opened?));
                    self.shared.note_new_entry(&self.shared.path);
                    return Ok(Some(file));
                }
            }
        }
        Err(io::Error::other("there are too many quarantine files"))
    }

    fn sync_directory(&self) -> io::Result<()> {
        let mut unsynced = lock(&self.shared.unsynced);
        for path in unsynced.iter() {
            sync_directory(path)?;
        }
        unsynced.clear();
        Ok(())
    }

    fn syncs_in_parallel(&self) -> bool {
        // Measured on ext4 with three files: a journal commit is shared, and the median falls from
        // 15 ms one after the other to 1 ms.
        true
    }
}

/// A directory with more of them needs somebody to look at it.
const MAX_QUARANTINES: u32 = 1000;

#[derive(Debug)]
struct Shared {
    path: PathBuf,
    /// Directories with a new entry that a power cut could still take away.
    unsynced: Mutex<Vec<PathBuf>>,
}

impl Shared {
    fn file(self: &Arc<Self>, name: &str, is_private: bool) -> DiskFile {
        DiskFile {
            directory: Arc::clone(self),
            path: self.path.join(name),
            is_private,
            handle: OnceLock::new(),
            opening: Mutex::default(),
            locked: AtomicBool::new(false),
        }
    }

    fn note_new_entry(&self, directory: &Path) {
        let mut unsynced = lock(&self.unsynced);
        if !unsynced.iter().any(|known| known == directory) {
            unsynced.push(directory.to_owned());
        }
    }

    /// Creates the directory and what is missing above it.
    fn create(&self) -> io::Result<()> {
        let missing = self
            .path
            .ancestors()
            .take_while(|path| !path.as_os_str().is_empty() && !path.exists());
        let parents: Vec<_> = missing
            .map(|path| match path.parent() {
                Some(parent) if !parent.as_os_str().is_empty() => parent,
                _ => Path::new("."),
            })
            .collect();
        if parents.is_empty() {
            return Ok(());
        }
        let mut builder = fs::DirBuilder::new();
        builder.recursive(true);
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder.create(&self.path)?;
        parents
            .into_iter()
            .for_each(|parent| self.note_new_entry(parent));
        Ok(())
    }
}

/// One of the files. It is opened when it is first needed, and again as long as it does not exist.
#[derive(Debug)]
struct DiskFile {
    directory: Arc<Shared>,
    path: PathBuf,
    /// For its owner alone.
    is_private: bool,
    handle: OnceLock<Handle>,
    /// Held while `handle` is being filled, so that a file is opened (and locked) once.
    opening: Mutex<()>,
    /// Whether the handle must own the lock of the file.
    locked: AtomicBool,
}

#[derive(Debug)]
struct Handle {
    file: File,
    writable: bool,
}

impl DiskFile {
    /// The file if it exists.
    fn existing(&self) -> io::Result<Option<&Handle>> {
        if let Some(handle) = self.handle.get() {
            return Ok(Some(handle));
        }
        let _guard = lock(&self.opening);
        match self.open() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            opened => opened.and_then(|handle| self.keep(handle)).map(Some),
        }
    }

    /// The file, created if it does not exist.
    fn writable(&self) -> io::Result<&File> {
        let handle = match self.existing()? {
            Some(handle) => handle,
            None => {
                let _guard = lock(&self.opening);
                match self.handle.get() {
                    Some(handle) => handle,
                    None => self.keep(self.create()?)?,
                }
            }
        };
        if !handle.writable {
            let shared = has_other_names(&handle.file)?;
            let error = io::Error::from(io::ErrorKind::PermissionDenied);
            return Err(if shared { other_names() } else { error });
        }
        Ok(&handle.file)
    }

    /// Makes `handle` the one of this file, unless another thread was faster.
    fn keep(&self, handle: Handle) -> io::Result<&Handle> {
        if self.locked.load(Ordering::Acquire) && self.handle.get().is_none() {
            try_lock(&handle.file)?;
        }
        Ok(self.handle.get_or_init(|| handle))
    }

    fn open(&self) -> io::Result<Handle> {
        let mut both = options();
        both.read(true).write(true);
        match self.open_with(&both) {
            Ok(file) => Ok(Handle {
                writable: !has_other_names(&file)?,
                file,
            }),
            Err(error) if is_read_only(&error) => {
                let file = self.open_with(options().read(true))?;
                Ok(Handle {
                    file,
                    writable: false,
                })
            }
            Err(error) => Err(error),
        }
    }

    fn create(&self) -> io::Result<Handle> {
        self.directory.create()?;
        let mut options = options();
        options.read(true).write(true);
        if self.is_private {
            // New or not at all: nobody may have it open already.
            options.create_new(true);
            #[cfg(unix)]
            std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        } else {
            options.create(true).truncate(false);
        }
        let file = self.open_with(&options)?;
        self.directory.note_new_entry(&self.directory.path);
        Ok(Handle {
            file,
            writable: true,
        })
    }

    fn open_with(&self, options: &OpenOptions) -> io::Result<File> {
        let file = options
            .open(&self.path)
            .map_err(|error| kind_of(&self.path).map_or(error, not_a_file))?;
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(not_a_file(name_of(metadata.file_type())));
        }
        #[cfg(unix)]
        if self.is_private {
            use std::os::unix::fs::PermissionsExt;
            // JS: readable for everybody; here: for its owner alone, unless it is not ours to change.
            if metadata.permissions().mode() & 0o077 != 0 {
                match file.set_permissions(fs::Permissions::from_mode(0o600)) {
                    Err(error) if !is_read_only(&error) => return Err(error),
                    _ => {}
                }
            }
        }
        Ok(file)
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
        positioned::write(self.writable()?, offset, data)
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        if self.len()? <= len {
            Ok(())
        } else {
            self.writable()?.set_len(len)
        }
    }

    fn sync(&self) -> io::Result<()> {
        self.existing()?
            .map_or(Ok(()), |handle| handle.file.sync_data())
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
        if offset >= end {
            return Ok(());
        }
        #[cfg(target_os = "linux")]
        {
            use rustix::fs::{FallocateFlags, fallocate};
            let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            match fallocate(self.writable()?, flags, offset, end - offset) {
                Err(rustix::io::Errno::OPNOTSUPP) => {}
                done => return Ok(done?),
            }
        }
        crate::random_access::write_zeros(self, offset, end - offset)
    }

    #[cfg(unix)]
    fn allocated(&self) -> io::Result<u64> {
        use std::os::unix::fs::MetadataExt;
        // POSIX does not say how large a block is, but everywhere it is 512 bytes.
        self.existing()?
            .map_or(Ok(0), |handle| Ok(handle.file.metadata()?.blocks() * 512))
    }

    fn lock(&self) -> io::Result<()> {
        if self.locked.swap(true, Ordering::AcqRel) {
            return Ok(());
        }
        let taken = match self.handle.get() {
            Some(handle) => try_lock(&handle.file),
            None => self.existing().map(drop),
        };
        if taken.is_err() {
            self.locked.store(false, Ordering::Release);
        }
        taken
    }
}

/// A file that is open for as long as it is used.
#[derive(Debug)]
struct PlainFile(File);

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
        if let (true, Some(handle)) = (*self.locked.get_mut(), self.handle.get()) {
            let _ = handle.file.unlock();
        }
    }
}

fn try_lock(file: &File) -> io::Result<()> {
    file.try_lock().map_err(|error| match error {
        TryLockError::WouldBlock => io::ErrorKind::WouldBlock.into(),
        TryLockError::Error(error) => error,
    })
}

/// Options that follow no symbolic link and do not wait for the other end of a pipe.
fn options() -> OpenOptions {
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
fn has_other_names(file: &File) -> io::Result<bool> {
    use std::os::unix::fs::MetadataExt;
    Ok(file.metadata()?.nlink() > 1)
}

#[cfg(not(unix))]
fn has_other_names(_: &File) -> io::Result<bool> {
    Ok(false)
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

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(unix)]
fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Only Unix lets a program open a directory to sync it.
#[cfg(not(unix))]
fn sync_directory(_: &Path) -> io::Result<()> {
    Ok(())
}

/// What a file has that its copies do not have.
mod place {
    use std::{
        fs::{self, Metadata},
        time::SystemTime,
    };

    /// The number of the file, the time of its birth, and the machine. A copy has another number on
    /// the same file system, and another birth on any.
    pub(super) fn of(metadata: &Metadata) -> Vec<u8> {
        let birth = metadata.created().ok();
        let birth = birth.and_then(|birth| birth.duration_since(SystemTime::UNIX_EPOCH).ok());
        let birth = match birth {
            Some(birth) => format!("born {}", birth.as_nanos()),
            // Devices can be numbered otherwise after every start: better than nothing, no more.
            None => device(metadata),
        };
        format!("{} {birth} on {}", number(metadata), machine()).into_bytes()
    }

    #[cfg(unix)]
    fn number(metadata: &Metadata) -> u64 {
        std::os::unix::fs::MetadataExt::ino(metadata)
    }

    #[cfg(not(unix))]
    fn number(_: &Metadata) -> u64 {
        0
    }

    #[cfg(unix)]
    fn device(metadata: &Metadata) -> String {
        let device = std::os::unix::fs::MetadataExt::dev(metadata);
        format!("device {device}")
    }

    #[cfg(not(unix))]
    fn device(_: &Metadata) -> String {
        String::new()
    }

    /// What systemd and D-Bus call the machine, so that a copy of a whole disk is told from it.
    fn machine() -> String {
        let read = |path| fs::read_to_string(path).ok();
        let id = read("/etc/machine-id").or_else(|| read("/var/lib/dbus/machine-id"));
        id.unwrap_or_default().trim().to_owned()
    }
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

/// One cursor for all: a lock stands for the missing positioned calls.
#[cfg(not(unix))]
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn new_names_are_synced_once() {
        let parent = tempfile::tempdir().expect("a directory");
        let parent = parent.path();
        let directory = Directory::new(parent.join("a/b"));
        let unsynced = || lock(&directory.shared.unsynced).clone();
        let tree = directory.open(FileName::Tree).expect("a handle");
        assert_eq!(unsynced(), [] as [&Path; 0]);
        tree.write_at(0, b"x").expect("a write");
        assert_eq!(
            unsynced(),
            [parent.join("a"), parent.to_owned(), parent.join("a/b")]
        );
        directory.sync_directory().expect("a sync");
        tree.write_at(0, b"y").expect("a write");
        assert_eq!(unsynced(), [] as [&Path; 0]);
        directory
            .open(FileName::Key)
            .and_then(|key| key.write_at(0, b"x"))
            .expect("a write");
        assert_eq!(unsynced(), [parent.join("a/b")]);
    }
}
