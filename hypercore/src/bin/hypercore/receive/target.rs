//! The last step of `receive`: what is here and verified is written beside the target's place, and
//! gets its name when it is whole.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Cursor, Read, Write},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, UNIX_EPOCH},
};

use futures_lite::future;
use hypercore::{Bytes, GetOptions, Hypercore};

use super::{MARK, archive};
use crate::{
    link::{Facts, Kind, Link},
    signals::Signals,
};

/// What became of a target.
#[derive(Debug)]
pub(super) enum Written {
    /// A signal came before it had its name, and it does not get it any more.
    No,
    Whole,
    /// It is there, and a loss of power may take it away.
    Unsynced(io::Error),
}

/// Writes `core`, all of which is in `dir`, to `target`, or to standard output if there is none.
pub(super) async fn write(
    core: Hypercore,
    dir: &Path,
    target: Option<PathBuf>,
    link: &Link,
    signals: &Signals,
) -> io::Result<Written> {
    let name = Name::default();
    let (dir, kind, facts) = (dir.to_owned(), link.kind, link.facts);
    let taken = name.clone();
    let written = blocking::unblock(move || {
        let Some(target) = target else {
            return copy(core, &mut io::stdout()).map(|()| Written::Whole);
        };
        let part = Part::begin(&dir)?;
        let written = match kind {
            Kind::Folder => unpack(core, &part.path, &target, &taken, File::sync_all),
            _ => write_file(core, &part.path, &target, facts, &taken),
        };
        part.end();
        written
    });
    let stopped = async {
        signals.stopped().await;
        match name.take() {
            true => Ok(Written::No),
            // It is there in a moment.
            false => future::pending().await,
        }
    };
    future::or(stopped, written).await
}

/// What becomes the target, in the directory of the core. Only that is ours of which a mark says it, in
/// a core that was there before, too.
struct Part {
    path: PathBuf,
    mark: PathBuf,
}

impl Part {
    fn of(dir: &Path) -> Self {
        Self {
            path: dir.join("part"),
            mark: dir.join("receive.part"),
        }
    }

    /// Makes room for it.
    fn begin(dir: &Path) -> io::Result<Self> {
        if let Some(path) = in_the_way(dir) {
            let words = format!("something else is called `{}`", path.display());
            return Err(io::Error::other(words));
        }
        let part = Self::of(dir);
        if !is_mark(&dir.join(MARK)) && !is_mark(&part.mark) {
            File::create_new(&part.mark)?;
        }
        clean(&part.path)?;
        Ok(part)
    }

    /// Removes what has not become the target: it would only take room.
    fn end(self) {
        match clean(&self.path) {
            Ok(()) => remove_mark(&self.mark),
            Err(error) => tracing::warn!(%error, "`{}` stays", self.path.display()),
        }
    }
}

/// What is in the way of a target that is to be written, in the directory of a core.
pub(super) fn in_the_way(dir: &Path) -> Option<PathBuf> {
    let Part { path, mark } = Part::of(dir);
    let is_ours = is_mark(&dir.join(MARK)) || is_mark(&mark);
    let path = if is_ours { mark } else { path };
    (!is_mark(&path) && path.symlink_metadata().is_ok()).then_some(path)
}

/// Whether this is a mark of ours, and not what somebody else has called like that.
pub(super) fn is_mark(path: &Path) -> bool {
    let found = fs::symlink_metadata(path);
    found.is_ok_and(|found| found.is_file() && found.len() == 0)
}

pub(super) fn remove_mark(path: &Path) {
    if is_mark(path) {
        let _ = fs::remove_file(path);
    }
}

/// The name of the target, which is given once, or never. A signal does not stop the thread that
/// writes.
#[derive(Debug, Clone, Default)]
struct Name(Arc<AtomicBool>);

impl Name {
    fn take(&self) -> bool {
        !self.0.swap(true, Ordering::AcqRel)
    }
}

/// Writes a file, which is there when it is whole.
fn write_file(
    core: Hypercore,
    part: &Path,
    target: &Path,
    facts: Facts,
    name: &Name,
) -> io::Result<Written> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    if facts.is_program {
        // For whom it is one, the system decides.
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o777);
    }
    let mut file = options.open(part)?;
    copy(core, &mut file)?;
    let modified = facts.modified.map(Duration::from_secs);
    if let Some(modified) = modified.and_then(|since| UNIX_EPOCH.checked_add(since)) {
        // Not every file system has every time, and the bytes are what was asked for.
        let _ = file.set_modified(modified);
    }
    file.sync_all()?;
    give(part, target, name)
}

/// Unpacks an archive, of which nothing leads out of `part`.
fn unpack(
    core: Hypercore,
    part: &Path,
    target: &Path,
    name: &Name,
    sync: impl Fn(&File) -> io::Result<()>,
) -> io::Result<Written> {
    let mode = archive::mode_of_folder(Content::of(core.clone()))?;
    make_directory(part, mode.is_some())?;
    archive::unpack(Content::of(core), part)?;
    sync_tree(part, sync)?;
    // Nobody moves a directory that they may not write to.
    mode.map_or(Ok(()), |mode| set_mode(part, mode | 0o700))?;
    let written = give(part, target, name)?;
    if let Some(mode) = mode
        && let Err(error) = set_mode(target, mode)
    {
        tracing::warn!(%error, "the permissions of `{}` are not what they were", target.display());
    }
    Ok(written)
}

/// Makes all in `root` durable with `sync`: the blocks are removed next.
#[cfg(unix)]
fn sync_tree(root: &Path, sync: impl Fn(&File) -> io::Result<()>) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    // Not every owner may read what is theirs.
    let open = |path: &Path, needed: u32| {
        let permissions = fs::symlink_metadata(path)?.permissions();
        if permissions.mode() & needed != needed {
            set_mode(path, permissions.mode() | needed)?;
        }
        io::Result::Ok((File::open(path)?, permissions))
    };
    let close = |(file, permissions): (File, _)| {
        file.set_permissions(permissions)?;
        sync(&file)
    };
    let mut dirs = vec![root.to_owned()];
    let mut before = Vec::new();
    while let Some(dir) = dirs.get(before.len()) {
        before.push(open(dir, 0o700)?.1);
        for entry in fs::read_dir(dir.clone())? {
            let entry = entry?;
            let kind = entry.file_type()?;
            if kind.is_dir() {
                dirs.push(entry.path());
            } else if kind.is_file() {
                close(open(&entry.path(), 0o400)?)?;
            }
        }
    }
    // Those within others first, which could not be reached afterwards.
    let mut dirs = dirs.iter().zip(before).rev();
    dirs.try_for_each(|(dir, permissions)| close((File::open(dir)?, permissions)))
}

/// Elsewhere a directory cannot be synced, nor a file that may not be written to.
#[cfg(not(unix))]
fn sync_tree(root: &Path, sync: impl Fn(&File) -> io::Result<()>) -> io::Result<()> {
    let mut next = vec![root.to_owned()];
    while let Some(dir) = next.pop() {
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            let found = entry.metadata()?;
            if found.is_dir() {
                next.push(entry.path());
            } else if found.is_file() && !found.permissions().readonly() {
                sync(&OpenOptions::new().write(true).open(entry.path())?)?;
            }
        }
    }
    Ok(())
}

/// Makes a directory, for nobody else if its own permissions come later.
#[cfg(unix)]
fn make_directory(dir: &Path, is_private: bool) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    let mode = if is_private { 0o700 } else { 0o777 };
    fs::DirBuilder::new().mode(mode).create(dir)
}

#[cfg(not(unix))]
fn make_directory(dir: &Path, _: bool) -> io::Result<()> {
    fs::create_dir(dir)
}

/// Gives a directory the permissions that another one has elsewhere.
#[cfg(unix)]
fn set_mode(dir: &Path, mode: u32) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(dir, fs::Permissions::from_mode(mode & 0o777))
}

#[cfg(not(unix))]
fn set_mode(_: &Path, _: u32) -> io::Result<()> {
    Ok(())
}

fn copy(core: Hypercore, to: &mut impl Write) -> io::Result<()> {
    io::copy(&mut Content::of(core), to)?;
    to.flush()
}

/// Removes what an earlier run has left of a target.
fn clean(part: &Path) -> io::Result<()> {
    match fs::symlink_metadata(part) {
        Ok(found) if found.is_dir() => {
            open_up(part)?;
            fs::remove_dir_all(part)
        }
        Ok(_) => fs::remove_file(part),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// Makes the directories in `dir` such that what is in them can be removed.
fn open_up(dir: &Path) -> io::Result<()> {
    let mut next = vec![dir.to_owned()];
    while let Some(dir) = next.pop() {
        set_mode(&dir, 0o700)?;
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                next.push(entry.path());
            }
        }
    }
    Ok(())
}

/// Gives what is whole its name, unless somebody else has taken that meanwhile.
fn give(part: &Path, target: &Path, name: &Name) -> io::Result<Written> {
    if fs::symlink_metadata(target).is_ok() {
        return Err(io::Error::other("something else is there meanwhile"));
    }
    if !name.take() {
        return Err(io::ErrorKind::Interrupted.into());
    }
    fs::rename(part, target)?;
    Ok(match sync_name(target) {
        Ok(()) => Written::Whole,
        Err(error) => Written::Unsynced(error),
    })
}

/// Makes the name of `target` durable: the blocks are removed next.
#[cfg(unix)]
fn sync_name(target: &Path) -> io::Result<()> {
    match fs::canonicalize(target)?.parent() {
        Some(parent) => File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}

/// Elsewhere a directory cannot be synced.
#[cfg(not(unix))]
fn sync_name(_: &Path) -> io::Result<()> {
    Ok(())
}

/// The bytes of all blocks, each checked against its hash.
struct Content {
    core: Hypercore,
    next: u64,
    block: Cursor<Bytes>,
}

impl Content {
    fn of(core: Hypercore) -> Self {
        Self {
            core,
            next: 0,
            block: Cursor::default(),
        }
    }
}

impl Read for Content {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let count = self.block.read(buffer)?;
            if count > 0 || buffer.is_empty() || self.next == self.core.length() {
                return Ok(count);
            }
            let read = self.core.get_with(self.next, GetOptions::local());
            self.block = Cursor::new(future::block_on(read).map_err(io::Error::other)?);
            self.next = self.next.saturating_add(1);
        }
    }
}

#[cfg(all(test, unix))]
mod tests {
    use std::{cell::RefCell, os::unix::fs::MetadataExt};

    use super::*;

    /// The blocks are removed next.
    #[test]
    fn a_folder_is_durable_before_it_has_its_name() {
        let scene = tempfile::tempdir().unwrap();
        let (part, target) = (scene.path().join("part"), scene.path().join("target"));
        let mut archive = tar::Builder::new(Vec::new());
        for (path, kind, mode) in [
            ("sub", tar::EntryType::Directory, 0o500),
            ("sub/one", tar::EntryType::Regular, 0o000),
            ("two", tar::EntryType::Regular, 0o644),
            ("link", tar::EntryType::Symlink, 0o777),
        ] {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(kind);
            header.set_mode(mode);
            header.set_size(0);
            header.set_mtime(1);
            match kind {
                tar::EntryType::Symlink => archive.append_link(&mut header, path, "gone").unwrap(),
                _ => archive.append_data(&mut header, path, io::empty()).unwrap(),
            }
        }
        let archive = Bytes::from(archive.into_inner().unwrap());
        let synced = RefCell::new(Vec::new());
        future::block_on(async {
            let core = hypercore::OpenOptions::new().open_memory().await.unwrap();
            core.append(archive).await.unwrap();
            let sync = |file: &File| {
                assert!(!target.exists());
                let found = file.metadata()?;
                synced
                    .borrow_mut()
                    .push((found.ino(), found.mode() & 0o777));
                Ok(())
            };
            let name = Name::default();
            let written = unpack(core, &part, &target, &name, sync).unwrap();
            assert!(matches!(written, Written::Whole));
        });
        let number = |path: &Path| fs::symlink_metadata(path).unwrap().ino();
        let mode = fs::symlink_metadata(&target).unwrap().mode() & 0o777;
        let mut files = vec![
            (number(&target.join("sub/one")), 0o000),
            (number(&target.join("two")), 0o644),
        ];
        let mut synced = synced.into_inner();
        let dirs = synced.split_off(2);
        assert_eq!(
            dirs,
            [
                (number(&target.join("sub")), 0o500),
                (number(&target), mode)
            ]
        );
        files.sort_unstable();
        synced.sort_unstable();
        assert_eq!(synced, files);
    }
}
