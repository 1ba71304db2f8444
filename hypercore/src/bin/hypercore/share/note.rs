//! What `share` remembers between its runs: the file `share` in the directory of the core.
//!
//! A core without it was made by something else, and is left alone. It is there before the core, so
//! that what a crash leaves can be told from what somebody else has put there.

#[cfg(unix)]
use std::{fs::Permissions, os::unix::fs::PermissionsExt};
use std::{
    fs::{self, File},
    io::{self, Read, Write},
    path::{Path, PathBuf},
};

use hypercore::storage::FileName;
use serde::{Deserialize, Serialize};

use crate::errors::{Failure, Result, reason};

const NAME: &str = "share";

/// The note while it is being written.
const NEW: &str = "share.new";

/// What every note begins with.
const START: &[u8] = br#"{"key":"#;

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Note {
    /// Of the core; there is none until it was made.
    pub(super) key: Option<String>,
    /// The absolute path, or `-`.
    pub(super) source: String,
    /// The path is no text, and its bytes are percent-encoded.
    #[serde(default)]
    pub(super) escaped: bool,
    pub(super) folder: bool,
    /// All was read, so that others may know the key. What is not complete may be made anew.
    pub(super) complete: bool,
    /// How the source looked when it was read, if it stayed that way meanwhile.
    pub(super) state: Option<String>,
    /// Where the file begins in the core: after those that a log has had before.
    pub(super) start: u64,
    /// Where others are told to call, unless it is taken.
    pub(super) port: u16,
}

/// Where the note of the core in `dir` is.
pub(super) fn place(dir: &Path) -> PathBuf {
    dir.join(NAME)
}

impl Note {
    /// The note in `dir`, if there is one.
    pub(super) fn read(dir: &Path) -> Result<Option<Self>> {
        let path = place(dir);
        let text = match fs::read(&path) {
            Err(error) if is_absent(&error) => return Ok(None),
            text => text.map_err(|error| {
                Failure::failed(format!(
                    "`{}` cannot be read: {}; choose another directory with --core DIR",
                    path.display(),
                    reason(&error)
                ))
            })?,
        };
        let note = serde_json::from_slice(&text);
        note.map(Some).map_err(|_| {
            Failure::failed(format!(
                "`{}` was not written by `hypercore share`; choose another directory with --core DIR",
                path.display()
            ))
        })
    }

    /// Writes the note: after a crash there is this one, or the one before it.
    pub(super) fn write(&self, dir: &Path) -> Result<()> {
        self.try_write(dir).map_err(|error| {
            Failure::failed(format!(
                "the core `{}` cannot be made or written to: {}; choose another directory with \
                 --core DIR",
                dir.display(),
                reason(&error)
            ))
        })
    }

    fn try_write(&self, dir: &Path) -> io::Result<()> {
        make_directory(dir)?;
        let new = dir.join(NEW);
        let mut file = create_new(&new)?;
        file.write_all(&serde_json::to_vec(self)?)?;
        file.sync_all()?;
        fs::rename(&new, place(dir))?;
        // Elsewhere a directory cannot be synced.
        #[cfg(unix)]
        File::open(dir)?.sync_all()?;
        Ok(())
    }
}

/// Makes the file of a new note in the place of what a crash has left of one, and of nothing else.
fn create_new(new: &Path) -> io::Result<File> {
    if let Ok(found) = fs::symlink_metadata(new) {
        if !found.is_file() || !begins_as_note(new)? {
            let words = format!("something else is called `{NEW}` there");
            return Err(io::Error::other(words));
        }
        fs::remove_file(new)?;
    }
    File::create_new(new)
}

fn begins_as_note(path: &Path) -> io::Result<bool> {
    let mut start = Vec::new();
    let file = File::open(path)?;
    file.take(START.len() as u64).read_to_end(&mut start)?;
    Ok(START.starts_with(&start))
}

/// Makes the directory of a core, for its owner alone: whoever may not read what is shared is not to
/// find it there. Those above are like every other.
fn make_directory(dir: &Path) -> io::Result<()> {
    if let Some(parent) = dir.parent() {
        fs::create_dir_all(parent)?;
    }
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(dir)
}

/// Closes to others what they may look into: a directory that was there before, or that an earlier
/// version made. If there is something else in it, or it belongs to somebody else, it stays as it is,
/// and each file of the core is for its owner alone, as is every file that this process makes from
/// now on.
#[cfg(unix)]
pub(super) fn make_private(dir: &Path) -> io::Result<()> {
    let mode = fs::metadata(dir)?.permissions().mode();
    if mode & OTHERS == 0 {
        return Ok(());
    }
    let (mut ours, mut is_shared) = (Vec::new(), false);
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let is_of_core = FileName::ALL.iter().any(|file| name == file.as_str());
        // The library's own, and what a crash has left of the note.
        if is_of_core || name == NAME || name == NEW || name.starts_with("fork-") {
            ours.push(entry);
        } else {
            is_shared = true;
        }
    }
    let close = |path: &Path, mode| fs::set_permissions(path, Permissions::from_mode(mode));
    if !is_shared && close(dir, mode & 0o700).is_ok() {
        return Ok(());
    }
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(OTHERS as _));
    for entry in ours {
        let found = entry.metadata()?;
        let mode = found.permissions().mode();
        if found.is_file() && mode & OTHERS != 0 {
            close(&entry.path(), mode & 0o700)?;
        }
    }
    Ok(())
}

/// What a file is to anybody but its owner.
#[cfg(unix)]
const OTHERS: u32 = 0o077;

#[cfg(not(unix))]
pub(super) fn make_private(_: &Path) -> io::Result<()> {
    Ok(())
}

fn is_absent(error: &io::Error) -> bool {
    let kind = error.kind();
    matches!(kind, io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

/// Whether `dir` is a core, and no folder that merely has a file of one of its names.
pub(super) fn is_core(dir: &Path) -> bool {
    let mut files = FileName::ALL.into_iter();
    files.all(|file| {
        matches!(file, FileName::SecretKey | FileName::Data) || dir.join(file.as_str()).is_file()
    })
}
