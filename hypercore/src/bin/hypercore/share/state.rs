//! How files and folders look from outside, to tell whether they are what they were.

use std::{
    fs::{self, Metadata},
    io,
    path::{Path, PathBuf},
    time::UNIX_EPOCH,
};

use data_encoding::HEXLOWER;
use hypercore::{merkle::leaf_hash, storage::FileName};

use crate::{
    commands::files_of_core,
    errors::{Failure, Result},
    link::Facts,
    share::unreadable,
};

/// How a file looks. Whoever writes to it changes that.
pub(super) fn of_file(metadata: &Metadata) -> String {
    let (inode, changed) = (inode(metadata), changed(metadata));
    let modified = metadata.modified().ok();
    let modified = modified.and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    let modified = modified.unwrap_or_default().as_nanos();
    format!("{} {modified} {inode:?} {changed}", metadata.len())
}

/// What others are told of a file.
pub(super) fn facts(metadata: &Metadata) -> Facts {
    let modified = metadata.modified().ok();
    let modified = modified.and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    Facts {
        is_program: is_program(metadata),
        blocks: None,
        modified: modified.map(|since| since.as_secs()),
    }
}

#[cfg(unix)]
fn is_program(metadata: &Metadata) -> bool {
    mode(metadata) & 0o111 != 0
}

#[cfg(not(unix))]
fn is_program(_: &Metadata) -> bool {
    false
}

/// Which file it is, as long as it exists.
#[cfg(unix)]
pub(super) fn inode(metadata: &Metadata) -> Option<(u64, u64)> {
    use std::os::unix::fs::MetadataExt;
    Some((metadata.dev(), metadata.ino()))
}

#[cfg(not(unix))]
pub(super) fn inode(_: &Metadata) -> Option<(u64, u64)> {
    None
}

/// Unlike the time of modification, this one cannot be set.
#[cfg(unix)]
fn changed(metadata: &Metadata) -> String {
    use std::os::unix::fs::MetadataExt;
    format!("{}.{:09}", metadata.ctime(), metadata.ctime_nsec())
}

#[cfg(not(unix))]
fn changed(_: &Metadata) -> String {
    String::new()
}

#[cfg(unix)]
fn mode(metadata: &Metadata) -> u32 {
    std::os::unix::fs::PermissionsExt::mode(&metadata.permissions())
}

#[cfg(not(unix))]
fn mode(metadata: &Metadata) -> u32 {
    metadata.permissions().readonly().into()
}

/// How a folder looks, from what is in it.
#[derive(Debug, Default)]
pub(super) struct State([u8; 32]);

impl State {
    pub(super) fn add(&mut self, entry: &Entry, metadata: &Metadata) {
        let mut bytes = self.0.to_vec();
        let (mode, name) = (mode(metadata), entry.name.as_os_str().as_encoded_bytes());
        bytes.extend(format!("{} {mode:o} ", name.len()).bytes());
        bytes.extend(name);
        // The time of a directory tells only of what is in it.
        if !metadata.is_dir() {
            bytes.extend(of_file(metadata).bytes());
        }
        self.0 = leaf_hash(&bytes);
    }

    pub(super) fn finish(self) -> String {
        HEXLOWER.encode(&self.0)
    }
}

/// How `folder` looks now.
pub(super) fn of_folder(folder: &Path) -> Result<String> {
    let mut state = State::default();
    for entry in Walk::of(folder) {
        let entry = entry?;
        if entry.left_out().is_none() {
            state.add(&entry, &entry.metadata);
        }
    }
    Ok(state.finish())
}

/// Something in a folder.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) path: PathBuf,
    /// The path within the folder.
    pub(super) name: PathBuf,
    pub(super) metadata: Metadata,
}

impl Entry {
    /// Why others do not get it, unless they do.
    pub(super) fn left_out(&self) -> Option<&'static str> {
        let kind = self.metadata.file_type();
        // A socket, for example, is only good where it is.
        if !(kind.is_file() || kind.is_dir() || kind.is_symlink()) {
            return Some("it is no file, folder or link");
        }
        let is_secret = self.path.ends_with(FileName::SecretKey.as_str());
        if is_secret && self.path.parent().is_some_and(has_more_of_core) {
            return Some("who has it can append to that core");
        }
        None
    }
}

/// Whether there is a file of a core in `dir` beside its secret key: the others can be made anew of
/// what peers have, so it opens a core that lacks any of them.
fn has_more_of_core(dir: &Path) -> bool {
    files_of_core(dir).any(|file| file != FileName::SecretKey)
}

/// A folder and everything in it, in the same order every time, without following links.
pub(super) struct Walk {
    folder: PathBuf,
    /// Names within the folder that come next, the first of them last.
    next: Vec<PathBuf>,
    failure: Option<Failure>,
}

impl Walk {
    pub(super) fn of(folder: &Path) -> Self {
        Self {
            folder: folder.to_owned(),
            // The folder itself: who may look into it is to be known before there is anything in it.
            next: vec![PathBuf::new()],
            failure: None,
        }
    }

    fn enter(&mut self, name: &Path) {
        let path = self.folder.join(name);
        let names = fs::read_dir(&path).and_then(|entries| {
            let names = entries.map(|entry| Ok(name.join(entry?.file_name())));
            names.collect::<io::Result<Vec<_>>>()
        });
        match names {
            Ok(mut names) => {
                names.sort_unstable_by(|a, b| b.cmp(a));
                self.next.append(&mut names);
            }
            Err(error) if may_be_gone(name, &error) => {}
            Err(error) => self.failure = Some(unreadable(&path, &error)),
        }
    }
}

/// Whether somebody has removed meanwhile what is in the folder, and not all of it.
fn may_be_gone(name: &Path, error: &io::Error) -> bool {
    is_gone(error) && name != Path::new("")
}

pub(super) fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound
}

impl Iterator for Walk {
    type Item = Result<Entry>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(failure) = self.failure.take() {
            self.next.clear();
            return Some(Err(failure));
        }
        let (name, path, metadata) = loop {
            let name = self.next.pop()?;
            let path = self.folder.join(&name);
            match fs::symlink_metadata(&path) {
                Ok(metadata) => break (name, path, metadata),
                Err(error) if may_be_gone(&name, &error) => {}
                Err(error) => return Some(Err(unreadable(&path, &error))),
            }
        };
        if metadata.is_dir() {
            self.enter(&name);
        }
        Some(Ok(Entry {
            path,
            name,
            metadata,
        }))
    }
}
