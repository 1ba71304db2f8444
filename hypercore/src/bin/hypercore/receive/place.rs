//! Where what is received goes. Whether it may go there is asked before anything is written.

use std::{
    ffi::OsString,
    fs::{self, File},
    io,
    path::{self, Path, PathBuf},
};

use super::{MARK, forget_mark, target};
use crate::{
    commands::has_core,
    errors::{Exit, Failure, Result, reason},
    link::{Kind, Link},
};

/// Where something goes, and what was there before.
pub(super) struct Place {
    pub(super) target: PathBuf,
    pub(super) to_stdout: bool,
    /// Where its core goes.
    pub(super) dir: PathBuf,
    pub(super) had_dir: bool,
    pub(super) had_target: bool,
    /// The core is only there for the transfer.
    pub(super) is_ours: bool,
    /// The directory of the target, if it is made for that alone.
    parent: Option<PathBuf>,
}

impl Place {
    /// Fails if what `link` stands for cannot go where it is `wanted`.
    pub(super) fn of(link: &Link, wanted: Option<&Path>, json: bool) -> Result<Self> {
        let to_stdout = wanted == Some(Path::new("-"));
        let wanted = wanted.filter(|_| !to_stdout);
        let target = target_of(link, wanted);
        let dir = match to_stdout {
            // Of its own, because the target of that name may have one.
            true => PathBuf::from(format!(
                "{}.{:.8}.hypercore",
                link.name,
                link.key.to_string()
            )),
            false => with_suffix(&target, ".hypercore"),
        };
        if to_stdout {
            check_stream(link, json)?;
        } else {
            check_name(link, &target, wanted)?;
            check(&target, link.kind)?;
        }
        check_owner(&dir)?;
        check_dir(&dir, !to_stdout && link.kind != Kind::Log)?;
        let parent = target.parent().filter(|parent| !parent.exists());
        Ok(Self {
            had_dir: dir.exists(),
            had_target: target.exists(),
            is_ours: !has_core(&dir) || target::is_mark(&dir.join(MARK)),
            parent: parent.map(Path::to_owned),
            target,
            to_stdout,
            dir,
        })
    }

    /// Makes the directory of the target. That of a core is for its owner alone, and this one is not to
    /// be.
    pub(super) fn make_parent(&self) -> Result<()> {
        let Some(parent) = &self.parent else {
            return Ok(());
        };
        fs::create_dir_all(parent).map_err(|error| {
            Failure::failed(format!(
                "`{}` cannot be written: {}; name another target after the line",
                self.target.display(),
                reason(&error)
            ))
        })
    }

    /// Says of the core, which must be there, that it is only there for the transfer.
    pub(super) fn mark(&self) {
        let path = self.dir.join(MARK);
        if let Err(error) = File::create_new(&path)
            && error.kind() != io::ErrorKind::AlreadyExists
        {
            tracing::warn!(%error, "`{}` was not made", path.display());
        }
    }

    /// Takes away what was made for nothing; if there is something in it, it stays.
    pub(super) fn leave(&self) {
        forget_mark(&self.dir, self.had_dir);
        if let Some(parent) = &self.parent {
            let _ = fs::remove_dir(parent);
        }
    }
}

/// Where it goes.
fn target_of(link: &Link, wanted: Option<&Path>) -> PathBuf {
    let Some(wanted) = wanted else {
        return PathBuf::from(&link.name);
    };
    let ends_as_directory = wanted
        .as_os_str()
        .as_encoded_bytes()
        .last()
        .is_some_and(|&byte| path::is_separator(char::from(byte)));
    if wanted.is_dir() || ends_as_directory && link.kind != Kind::Folder {
        return wanted.join(&link.name);
    }
    // Without a slash at its end.
    wanted.components().collect()
}

/// Fails if it cannot go to standard output.
fn check_stream(link: &Link, json: bool) -> Result<()> {
    if link.kind != Kind::Folder && !json {
        return Ok(());
    }
    let what = if json { "--json" } else { "a folder" };
    Err(Failure::new(
        Exit::Usage,
        format!(
            "`-` writes the bytes of a file or a log, which does not go together with {what}; name a \
             target after the line"
        ),
    ))
}

/// Fails if the line, and nobody here, calls the target something hidden.
fn check_name(link: &Link, target: &Path, wanted: Option<&Path>) -> Result<()> {
    let is_named = wanted.is_some_and(|wanted| target == wanted.components().collect::<PathBuf>());
    if is_named || !link.name.starts_with('.') {
        return Ok(());
    }
    Err(Failure::new(
        Exit::Usage,
        format!(
            "the line calls it `{}`, which is hidden and may be read by other programs; name a \
             target after the line",
            target.display()
        ),
    ))
}

/// Fails if `target` is in the way, or could not be written.
fn check(target: &Path, kind: Kind) -> Result<()> {
    let shown = target.display();
    let found = fs::symlink_metadata(target);
    // What a log has already is compared when its blocks come.
    if found.is_ok() && (kind != Kind::Log || !target.is_file()) {
        return Err(Failure::failed(format!(
            "`{shown}` exists already, and is not written over: move it away to receive what is \
             shared now, or name another target after the line"
        )));
    }
    let mut above = target.ancestors().skip(1);
    match above.find_map(|dir| Some((dir, fs::metadata(dir).ok()?))) {
        Some((dir, metadata)) if !metadata.is_dir() => Err(Failure::failed(format!(
            "`{shown}` cannot be written: `{}` is not a directory; name another target after the \
             line",
            dir.display()
        ))),
        _ => Ok(()),
    }
}

/// Fails if somebody else may write to `dir`, where the blocks go. They could put links there that
/// lead to files of ours, and something else in the place of what was verified. Where the target goes
/// is another matter: there it is like every other file.
#[cfg(unix)]
fn check_owner(dir: &Path) -> Result<()> {
    use std::os::unix::fs::MetadataExt;
    // What is not there is made for its owner alone.
    let Ok(found) = fs::metadata(dir) else {
        return Ok(());
    };
    let ours = [0, rustix::process::geteuid().as_raw()];
    let reason = if !ours.contains(&found.uid()) {
        "belongs to another user"
    } else if found.mode() & ANYBODY != 0 && !is_open_to_all(dir) {
        "is there already, and anybody can write to it"
    } else {
        return Ok(());
    };
    Err(Failure::failed(format!(
        "`{}` {reason}, and could lead what is received elsewhere: move it away, or name another \
         target after the line",
        dir.display()
    )))
}

/// Everybody who is neither the owner of a file nor of its group may write to it.
#[cfg(unix)]
const ANYBODY: u32 = 0o002;

/// Whether `dir` lies where anybody may replace it anyway. Some file systems know of no permissions, and
/// what we make there for ourselves alone looks like that, too.
#[cfg(unix)]
fn is_open_to_all(dir: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    const STICKY: u32 = 0o1000;
    let above = dir.parent().filter(|above| !above.as_os_str().is_empty());
    let above = fs::metadata(above.unwrap_or_else(|| Path::new(".")));
    above.is_ok_and(|above| above.mode() & (STICKY | ANYBODY) == ANYBODY)
}

#[cfg(not(unix))]
fn check_owner(_: &Path) -> Result<()> {
    Ok(())
}

/// Fails if there is something in `dir` that is neither a core nor of an earlier run: it would be
/// taken for what is only there for the transfer.
fn check_dir(dir: &Path, has_part: bool) -> Result<()> {
    let other = match has_core(dir) {
        true if has_part => target::in_the_way(dir),
        true => None,
        // What cannot be read is not written to, either.
        false => fs::read_dir(dir).ok().and_then(|entries| {
            let mut names = entries.filter_map(|entry| Some(entry.ok()?.file_name()));
            let is_other = |name: &OsString| name != MARK || !target::is_mark(&dir.join(name));
            names.any(|name| is_other(&name)).then(|| dir.to_owned())
        }),
    };
    let Some(other) = other else {
        return Ok(());
    };
    Err(Failure::failed(format!(
        "`{}` holds something else, where this would write: move it away, or name another target \
         after the line",
        other.display()
    )))
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    PathBuf::from(name)
}
