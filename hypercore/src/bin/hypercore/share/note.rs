//! What `share` remembers between its runs: the file `share` in the directory of the core.
//!
//! A core without it was made by something else, and is left alone. It is there before the core, so
//! that what a crash leaves can be told from what somebody else has put there.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::Path,
};

use hypercore::storage::FileName;
use serde::{Deserialize, Serialize};

use crate::errors::{Failure, Result, reason};

const NAME: &str = "share";

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Note {
    /// Of the core; there is none until it was made.
    pub(super) key: Option<String>,
    /// The absolute path, or `-`.
    pub(super) source: String,
    pub(super) folder: bool,
    /// All was read, so that others may know the key. What is not complete may be made anew.
    pub(super) complete: bool,
    /// How the source looked when it was read, if it stayed that way meanwhile.
    pub(super) state: Option<String>,
    /// Where the file begins in the core: after those that a log has had before.
    pub(super) start: u64,
    /// Where others called last.
    pub(super) port: u16,
}

impl Note {
    /// The note in `dir`, if there is one.
    pub(super) fn read(dir: &Path) -> Result<Option<Self>> {
        let path = dir.join(NAME);
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
        fs::create_dir_all(dir)?;
        let new = dir.join("share.new");
        let mut file = File::create(&new)?;
        file.write_all(&serde_json::to_vec(self)?)?;
        file.sync_all()?;
        fs::rename(&new, dir.join(NAME))?;
        // Elsewhere a directory cannot be synced.
        #[cfg(unix)]
        File::open(dir)?.sync_all()?;
        Ok(())
    }
}

fn is_absent(error: &io::Error) -> bool {
    let kind = error.kind();
    matches!(kind, io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

/// Whether there is a file of a core in `dir`.
pub(super) fn has_core(dir: &Path) -> bool {
    let mut files = FileName::ALL.into_iter();
    files.any(|file| dir.join(file.as_str()).symlink_metadata().is_ok())
}

/// Whether `dir` is a core, and no folder that merely has a file of one of its names.
pub(super) fn is_core(dir: &Path) -> bool {
    let mut files = FileName::ALL.into_iter();
    files.all(|file| {
        matches!(file, FileName::SecretKey | FileName::Data) || dir.join(file.as_str()).is_file()
    })
}
