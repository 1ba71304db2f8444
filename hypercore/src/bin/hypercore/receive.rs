//! `hypercore receive`: takes what `hypercore share` offers, with its line and nothing else.
//!
//! The blocks go to a core beside the target, so that a transfer that was cut off goes on where it
//! was. When all of it is here and verified, the target is written under another name and renamed,
//! so that it is never there in part. A log is written to as its blocks come.

mod archive;
mod target;

use std::{
    error,
    ffi::OsString,
    fs::{self, File, Metadata, OpenOptions},
    io::{self, Read, Write},
    path::{self, Path, PathBuf},
    time::Duration,
};

use async_io::Timer;
use clap::Args;
use futures_lite::future;
use hypercore::{Bytes, Error, Hypercore, storage::FileName};

use self::target::Written;
use crate::{
    args::{CloneArgs, Format, Identity, Manners},
    clone,
    commands::{close, has_core, open},
    errors::{Exit, Failure, Result, quoted, reason},
    link::{Kind, Link},
    output::{Output, bytes, deserted},
    signals::Signals,
};

/// A target that takes longer to write is worth a word.
const SLOW: Duration = Duration::from_secs(1);

/// The file that says that a core is only there for a transfer. One without it was there before, or
/// was kept, and stays. It is empty: what somebody else has called like that says nothing.
const MARK: &str = "receive";

/// How often a person sees that it is being written.
const TICK: Duration = Duration::from_millis(100);

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    hypercore receive 'hyper://KEY@192.168.1.5:4000/holiday.mp4'\n  \
    hypercore receive 'hyper://KEY/photos/' ~/Pictures/holiday\n  \
    hypercore receive 'hyper://KEY/app.log?live' - | grep error\n\n\
    Run it again after an interruption: it goes on where it was. A log (?live) is followed until \
    Ctrl-C. \
    What is there\nalready is never written over. A file keeps the time at which it was written to \
    and whether it is a program, a\nfolder everything but its owners.")]
pub(crate) struct ReceiveArgs {
    /// What `hypercore share` printed
    #[arg(value_name = "LINE")]
    link: Link,
    /// What to write, a directory to put it in, or `-` for standard output [default: the name in
    /// the line, in the working directory]
    target: Option<PathBuf>,
    /// Keep the core beside the target, to serve it to others
    #[arg(long)]
    keep: bool,
    #[command(flatten)]
    identity: Identity,
    #[command(flatten)]
    format: Format,
}

pub(crate) async fn receive(args: ReceiveArgs, manners: &Manners) -> Result<()> {
    let signals = Signals::catch().map_err(|error| Failure::failed(error.to_string()))?;
    let ReceiveArgs { link, .. } = args;
    let json = args.format.json;
    let to_stdout = args.target.as_deref() == Some(Path::new("-"));
    let target = target(&link, args.target.as_deref().filter(|_| !to_stdout));
    let dir = match to_stdout {
        // Of its own, because the target of that name may have one.
        true => PathBuf::from(format!(
            "{}.{:.8}.hypercore",
            link.name,
            link.key.to_string()
        )),
        false => with_suffix(&target, ".hypercore"),
    };
    let shown = target.display();
    if to_stdout {
        if link.kind == Kind::Folder || json {
            let what = if json { "--json" } else { "a folder" };
            return Err(Failure::new(
                Exit::Usage,
                format!(
                    "`-` writes the bytes of a file or a log, which does not go together with \
                     {what}; name a target after the line"
                ),
            ));
        }
    } else {
        let is_named = args
            .target
            .as_deref()
            .is_some_and(|wanted| target == wanted.components().collect::<PathBuf>());
        if !is_named && link.name.starts_with('.') {
            return Err(Failure::new(
                Exit::Usage,
                format!(
                    "the line calls it `{shown}`, which is hidden and may be read by other programs; \
                     name a target after the line"
                ),
            ));
        }
        check(&target, link.kind)?;
    }
    check_owner(&dir)?;
    check_dir(&dir, !to_stdout && link.kind != Kind::Log)?;
    let (had_dir, had_target) = (dir.exists(), target.exists());
    let is_ours = !has_core(&dir) || target::is_mark(&dir.join(MARK));
    let keep = args.keep || !is_ours;
    // Made for the target alone, if it is not there yet.
    let parent = target.parent().filter(|parent| !parent.exists());
    let parent = parent.map(Path::to_owned);
    let download = CloneArgs {
        key: link.key,
        dir: dir.clone(),
        connect: link.address.iter().cloned().collect(),
        more: Vec::new(),
        live: link.kind == Kind::Log,
        sparse: false,
        range: Vec::new(),
        search: true,
        target: Some(target.clone()),
        to_stdout,
        at_least: link.facts.blocks.unwrap_or(0),
        identity: args.identity,
        format: args.format,
    };
    if let Some(parent) = &parent {
        // The directory of a core is for its owner alone, and this one is not to be.
        fs::create_dir_all(parent).map_err(|error| {
            Failure::failed(format!(
                "`{shown}` cannot be written: {}; name another target after the line",
                reason(&error)
            ))
        })?;
    }
    let mut output = Output::new(&Format { json }, manners);
    // It is not there before the core is, whose directory is for its owner alone.
    let mark = {
        let path = (!keep).then(|| dir.join(MARK));
        async move {
            if let Some(path) = path
                && let Err(error) = File::create_new(&path)
                && error.kind() != io::ErrorKind::AlreadyExists
            {
                tracing::warn!(%error, "`{}` was not made", path.display());
            }
        }
    };
    if link.kind == Kind::Log {
        let log = (!to_stdout).then(|| target.clone());
        if log.is_some() {
            output.remark(format_args!("Following into `{shown}`; stop with Ctrl-C."));
        }
        let (path, place) = (log.clone(), dir.clone());
        let followed = clone::download(download, manners, |core| async move {
            match path {
                Some(path) => append_to(&core, &place, &path).await,
                None => {
                    mark.await;
                    let unread = async {
                        deserted().await;
                        Ok(())
                    };
                    future::or(unread, print(&core, &place)).await
                }
            }
        })
        .await;
        // Nothing goes on from it: the next run begins at the start again, or with another target.
        let is_useless = log.is_none() || !had_dir && had_target && followed.is_err();
        if is_useless
            && !keep
            && dir.exists()
            && let Ok(core) = open(&dir).await
        {
            remove(core, &dir).await?;
        }
        forget_mark(&dir, had_dir);
        return followed;
    }
    let beside = |_| async {
        mark.await;
        future::pending().await
    };
    let core = match clone::download(download, manners, beside).await {
        Ok(()) => open(&dir).await?,
        Err(failure) => {
            let is_stopped = future::poll_once(signals.stopped()).await.is_some();
            let whole = match is_stopped {
                true => None,
                false => whole(&dir, &link, &failure).await,
            };
            let Some(core) = whole else {
                forget_mark(&dir, had_dir);
                if let Some(parent) = parent {
                    // What was made for nothing; if there is something in it, it stays.
                    let _ = fs::remove_dir(parent);
                }
                return Err(failure);
            };
            output.remark(format_args!("{failure}; all of it is here already."));
            core
        }
    };

    let (length, byte_length) = (core.length(), core.byte_length());
    let place = (!to_stdout).then(|| target.clone());
    let written = {
        let written = target::write(core.clone(), &dir, place, &link, &signals);
        future::or(written, tell_slow(&mut output, &target)).await
    };
    output.done();
    let mut unsynced = None;
    match written {
        Ok(Written::Whole) => {}
        Ok(Written::Unsynced(error)) => unsynced = Some(error),
        Err(error) if to_stdout && error.kind() == io::ErrorKind::BrokenPipe => {}
        Ok(Written::No) => {
            close(&core, &dir).await?;
            return Err(unwritten(&target, &dir));
        }
        Err(error) => {
            close(&core, &dir).await?;
            return Err(match cause_in_core(&error) {
                Some(error) => unreadable(error, &dir),
                None if to_stdout => Failure::output(&error),
                None => unwritable(&target, &dir, &error),
            });
        }
    }
    if keep {
        close(&core, &dir).await?;
        // An earlier run may not have been asked to keep it.
        target::remove_mark(&dir.join(MARK));
    } else if unsynced.is_some() {
        close(&core, &dir).await?;
    } else {
        remove(core, &dir).await?;
    }
    if let Some(error) = unsynced {
        output.remark(format_args!(
            "A loss of power may take `{shown}` away again ({}), so `{}` is kept.",
            reason(&error),
            dir.display()
        ));
    }
    if !is_ours && !args.keep {
        let shown = dir.display();
        output.remark(format_args!("`{shown}` was there before, and stays."));
    }
    if to_stdout {
        return Ok(());
    }
    output.result(
        &[
            ("event", "received".into()),
            ("target", shown.to_string().into()),
            ("length", length.into()),
            ("byteLength", byte_length.into()),
        ],
        format_args!("Received `{shown}`: {}, verified.", bytes(byte_length)),
    )
}

/// Where it goes.
fn target(link: &Link, wanted: Option<&Path>) -> PathBuf {
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

/// The core in `dir`, if it has all of what is to be received, and what failed is only that nobody
/// was there to ask.
async fn whole(dir: &Path, link: &Link, failure: &Failure) -> Option<Hypercore> {
    if !failure.is_lonely() || !dir.exists() {
        return None;
    }
    let core = open(dir).await.ok()?;
    let length = core.length();
    let is_all = length >= link.facts.blocks.unwrap_or(1) && core.downloaded(..) == length;
    if core.key() == link.key && is_all {
        return Some(core);
    }
    let _ = core.close().await;
    None
}

/// Removes a core that was only there for the transfer. What nobody else can have stays, whatever it
/// was taken for.
async fn remove(core: Hypercore, dir: &Path) -> Result<()> {
    let secret = dir.join(FileName::SecretKey.as_str());
    if core.is_original() || secret.symlink_metadata().is_ok_and(|found| found.len() > 0) {
        return close(&core, dir).await;
    }
    let removed = core.destroy().await;
    removed.map_err(|error| Failure::core(error, dir))?;
    forget_mark(dir, false);
    Ok(())
}

/// Takes the mark away where there is no core any more, and the directory that was made for it.
fn forget_mark(dir: &Path, had_dir: bool) {
    if has_core(dir) {
        return;
    }
    target::remove_mark(&dir.join(MARK));
    if !had_dir {
        // If somebody has put something else there meanwhile, it stays.
        let _ = fs::remove_dir(dir);
    }
}

/// Says that the target is being written, if that takes long. Does not end.
async fn tell_slow<T>(output: &mut Output, target: &Path) -> T {
    Timer::after(SLOW).await;
    let words = format!("All of `{}` is here; writing it.", target.display());
    let bar = output.draw(0, "{spinner} {msg}");
    bar.set_message(words.clone());
    bar.enable_steady_tick(TICK);
    if bar.is_hidden() {
        output.remark(words);
    }
    future::pending().await
}

/// A signal came before the target was written.
fn unwritten(target: &Path, dir: &Path) -> Failure {
    let words = format!(
        "interrupted: all of `{}` is here, in `{}`, and not written yet; run it again to go on",
        target.display(),
        dir.display()
    );
    Failure::new(Exit::Incomplete, words)
}

/// What was received cannot be read from the core in `dir`.
fn unreadable(error: &Error, dir: &Path) -> Failure {
    if !error.is_corruption() {
        return Failure::core_ref(error, dir);
    }
    let (dir, quoted) = (dir.display(), quoted(dir));
    let words = format!(
        "what was received in `{dir}` is damaged: {error}; `hypercore repair {quoted} --connect ADDR:PORT` \
         fetches that again, then run this again"
    );
    Failure::new(Exit::Damaged, words)
}

/// What the core said, if that is why the target could not be written.
fn cause_in_core(error: &io::Error) -> Option<&Error> {
    type Cause<'a> = Option<&'a (dyn error::Error + 'static)>;
    fn within(error: &io::Error) -> Cause<'_> {
        error.get_ref().map(|cause| cause as _)
    }
    let mut cause = within(error);
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref() {
            return Some(error);
        }
        // An error of the system hides what it was made of from `source`.
        cause = match error.downcast_ref::<io::Error>() {
            Some(error) => within(error),
            None => error.source(),
        };
    }
    None
}

/// What is wrong, down to its cause, and what can be done about it.
fn unwritable(target: &Path, dir: &Path, error: &io::Error) -> Failure {
    let mut reasons = vec![reason(error)];
    let mut cause = error::Error::source(error);
    while let Some(error) = cause {
        let error_of_system = error.downcast_ref::<io::Error>();
        let words = error_of_system.map_or_else(|| error.to_string(), reason);
        if reasons.last() != Some(&words) {
            reasons.push(words);
        }
        cause = error.source();
    }
    // The kind is that of the cause. Of the others it is not known that they would ever pass.
    let advice = match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ": free some space",
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => ": change that",
        _ => "",
    };
    let advice = match advice {
        "" => String::new(),
        advice => format!("{advice} and run it again"),
    };
    Failure::failed(format!(
        "`{}` cannot be written: {}; what was received is kept in `{}`{advice}",
        target.display(),
        reasons.join(": "),
        dir.display()
    ))
}

/// Writes the log to standard output, without end.
async fn print(core: &Hypercore, dir: &Path) -> Result<()> {
    for index in 0.. {
        let Some(block) = block(core, index, dir).await? else {
            return future::pending().await;
        };
        // Beside the program, which is to end also where nobody reads.
        let written = blocking::unblock(move || {
            let mut stdout = io::stdout();
            stdout.write_all(&block).and_then(|()| stdout.flush())
        });
        match written.await {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => break,
            written => written.map_err(|error| Failure::output(&error))?,
        }
    }
    Ok(())
}

/// Appends to `target` what it does not have of the log, without end. What it has already must be
/// the beginning of the log.
async fn append_to(core: &Hypercore, dir: &Path, target: &Path) -> Result<()> {
    let failure = |error: io::Error| {
        let shown = target.display();
        Failure::failed(format!("`{shown}` cannot be written: {}", reason(&error)))
    };
    let mut options = OpenOptions::new();
    let file = options.read(true).append(true).create(true).open(target);
    let mut file = file.map_err(failure)?;
    let len = |file: &File| file.metadata().map(|found: Metadata| found.len());
    let before = len(&file).map_err(failure)?;
    let (mut position, mut there) = (0, Vec::new());
    for index in 0.. {
        // After a crash the core may know less than was written: this waits until it knows it again.
        let Some(block) = block(core, index, dir).await? else {
            return future::pending().await;
        };
        let size = block.len() as u64;
        let known = size.min(before.saturating_sub(position)) as usize;
        there.resize(known, 0);
        let is_same = file.read_exact(&mut there).is_ok() && there == block[..known];
        let expected = before.max(position);
        if !is_same || len(&file).map_err(failure)? != expected {
            return Err(Failure::failed(format!(
                "`{}` is not as it was received: it differs from the log after byte {position}, \
                 and nothing more is appended; name another target after the line",
                target.display()
            )));
        }
        file.write_all(&block[known..]).map_err(failure)?;
        position += size;
    }
    Ok(())
}

/// A block, once it is here; none at the end of the program.
async fn block(core: &Hypercore, index: u64, dir: &Path) -> Result<Option<Bytes>> {
    match core.get(index).await {
        Err(Error::Closed) => Ok(None),
        block => block
            .map(Some)
            .map_err(|error| unreadable(error.cause(), dir)),
    }
}
