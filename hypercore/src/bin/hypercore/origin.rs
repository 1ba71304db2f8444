//! What stood where a core is made, such that a core that came to nothing is not in the way of the next one.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use hypercore::{
    Error,
    storage::{self, Directory, FileName, Storage},
};

/// What was there before this run.
#[derive(Debug)]
pub(crate) struct Origin {
    dir: PathBuf,
    /// There was nothing, not even an empty directory, or such a one.
    is_new: bool,
    /// The directories that were missing, first the inmost one.
    missing: Vec<PathBuf>,
}

impl Origin {
    pub(crate) fn of(dir: &Path) -> Self {
        let is_missing = |error: &io::Error| error.kind() == io::ErrorKind::NotFound;
        let is_new = match fs::read_dir(dir) {
            Ok(mut entries) => entries.next().is_none(),
            Err(error) => is_missing(&error),
        };
        let missing = dir.ancestors().take_while(|dir| {
            let found = dir.symlink_metadata();
            !dir.as_os_str().is_empty() && found.is_err_and(|error| is_missing(&error))
        });
        Self {
            dir: dir.to_owned(),
            is_new,
            missing: missing.map(Path::to_owned).collect(),
        }
    }

    /// Removes the files of a core in which nothing is yet but its key.
    pub(crate) fn restore(&self) {
        if !self.is_new {
            return;
        }
        let files = Directory::new(&self.dir);
        for file in FileName::ALL {
            if let Err(error) = files.remove(file) {
                tracing::warn!(%error, "the file `{file}` of the empty core stays");
            }
        }
        // What notes where an original is. It would be taken for one whose files are lost.
        let _ = fs::remove_file(self.dir.join("fork-guard"));
        for dir in &self.missing {
            // If somebody has put something else there meanwhile, it stays.
            let _ = fs::remove_dir(dir);
        }
    }

    /// The same when a core could not be made, if that was because of the files: of anything else, somebody
    /// else may be the cause, whose core is there now.
    pub(crate) fn restore_after(&self, error: &Error) {
        let is_ours = matches!(
            error.cause(),
            Error::Storage(storage::Error::Io { .. }) | Error::Guard { .. }
        );
        if is_ours && !error.is_locked() {
            self.restore();
        }
    }
}
