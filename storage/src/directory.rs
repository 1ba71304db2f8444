mod disk_file;
mod pool;

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::{FileName, RandomAccess, Storage};
use disk_file::{DiskFile, Kind, PlainFile};

/// Six files in a directory, as Node lays them out.
///
/// Reading creates nothing: a missing directory is an empty log. The first write creates the
/// directory, for its owner alone, and the file. On Unix, names that lead elsewhere (symbolic links)
/// and everything but regular files are refused, a file with further names (hard links) is only
/// read, and a secret key that others may read is taken from them as soon as it is opened.
///
/// Opening a log locks the file `bitfield` with `flock`, exactly as Hypercore 9 does
/// (`hypercore-default-storage`, `fsctl`), so the two never write at the same time.
///
/// However many logs a process has open, only `bitfield` stays open for each, to keep its lock. Of
/// the other files 256 are open at a time, in all directories together, and those that have
/// something to be synced: a file that was closed could hide from the next sync that a write has
/// failed. What was closed is opened again when it is needed, by its path, and must still be the same
/// file.
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
        let kind = match file {
            FileName::SecretKey => Kind::Secret,
            _ => Kind::Public,
        };
        Ok(DiskFile::new(&self.shared, file.as_str(), kind))
    }

    fn remove(&self, file: FileName) -> io::Result<()> {
        self.remove_beside(file.as_str())
    }

    /// `name` in the directory, for its owner alone.
    fn beside(&self, name: &str) -> io::Result<Option<Arc<dyn RandomAccess>>> {
        Ok(Some(DiskFile::new(&self.shared, name, Kind::Beside)))
    }

    fn remove_beside(&self, name: &str) -> io::Result<()> {
        match fs::remove_file(self.shared.path.join(name)) {
            Ok(()) => {
                self.shared.note_entry(&self.shared.path);
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// That of `secret_key`, or of `key` for a log whose secret key is elsewhere.
    fn place(&self) -> io::Result<Vec<u8>> {
        for file in [FileName::SecretKey, FileName::Key] {
            match fs::symlink_metadata(self.shared.path.join(file.as_str())) {
                Ok(metadata) => return Ok(place::of(&metadata)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Vec::new())
    }

    /// `quarantine-<n>`, for its owner alone, with the first number that is free or whose file is empty:
    /// on a full disk nothing could be written to it.
    fn new_quarantine(&self) -> io::Result<Option<Arc<dyn RandomAccess>>> {
        for number in 0..u32::MAX {
            let path = self.shared.path.join(format!("quarantine-{number}"));
            let is_free = match fs::symlink_metadata(&path) {
                Ok(metadata) => metadata.is_file() && metadata.len() == 0,
                Err(error) if error.kind() == io::ErrorKind::NotFound => true,
                Err(error) => return Err(error),
            };
            if is_free {
                let mut options = disk_file::options();
                options.read(true).write(true).create(true);
                #[cfg(unix)]
                std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
                let file = Arc::new(PlainFile(options.open(path)?));
                self.shared.note_entry(&self.shared.path);
                return Ok(Some(file));
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

    fn distrust_directory(&self) {
        // Whoever creates it notes that.
        if self.shared.path.exists() {
            self.shared.note_entry(&self.shared.path);
        }
    }

    fn syncs_in_parallel(&self) -> bool {
        // Measured on ext4 with three files: a journal commit is shared, and the median falls from
        // 15 ms one after the other to 1 ms.
        true
    }
}

#[derive(Debug)]
struct Shared {
    path: PathBuf,
    /// Directories with an entry that a power cut could still take away, or bring back.
    unsynced: Mutex<Vec<PathBuf>>,
}

impl Shared {
    fn note_entry(&self, directory: &Path) {
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
            .for_each(|parent| self.note_entry(parent));
        Ok(())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(unix)]
fn sync_directory(path: &Path) -> io::Result<()> {
    fs::File::open(path)?.sync_all()
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
