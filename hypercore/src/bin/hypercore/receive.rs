//! `hypercore receive`: takes what `hypercore share` offers, with its line and nothing else.
//!
//! The blocks go to a core beside the target, so that a transfer that was cut off goes on where it
//! was. When all of it is here and verified, the target is written under another name and renamed,
//! so that it is never there in part. A log is written to as its blocks come.

mod archive;
mod place;
mod target;

use std::{
    error,
    fs::{self, File, Metadata, OpenOptions},
    io::{self, Read, Write},
    path::{Path, PathBuf},
    time::Duration,
};

use async_io::Timer;
use clap::Args;
use futures_lite::future;
use hypercore::{Bytes, Error, Hypercore, storage::FileName};

use self::{place::Place, target::Written};
use crate::{
    args::{CloneArgs, Format, Identity, Manners},
    clone,
    commands::{close, has_core, open},
    errors::{Exit, Failure, Result, quoted, reason},
    link::{Kind, Link},
    output::{Output, bytes, deserted, on_one_line},
    parts::split_bytes,
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
    let link = args.link;
    let json = args.format.json;
    let place = Place::of(&link, args.target.as_deref(), json)?;
    let download = CloneArgs {
        key: link.key,
        dir: place.dir.clone(),
        connect: link.address.iter().cloned().collect(),
        more: Vec::new(),
        live: link.kind == Kind::Log,
        sparse: false,
        range: Vec::new(),
        search: true,
        target: Some(place.target.clone()),
        to_stdout: place.to_stdout,
        at_least: link.facts.blocks.unwrap_or(0),
        identity: args.identity,
        format: args.format,
    };
    place.make_parent()?;
    let mut output = Output::new(&Format { json }, manners);
    let transfer = Transfer {
        keep: args.keep || !place.is_ours,
        link,
        place,
        manners,
    };
    if transfer.link.kind == Kind::Log {
        return transfer.follow(download, &output).await;
    }
    let core = transfer.fetch(download, &signals, &output).await?;
    let (length, byte_length) = (core.length(), core.byte_length());
    let unsynced = transfer.write(&core, &signals, &mut output).await?;
    transfer.end(core, unsynced.as_ref()).await?;

    let Place {
        target,
        dir,
        is_ours,
        ..
    } = &transfer.place;
    let (shown, dir) = (target.display(), dir.display());
    if let Some(error) = unsynced {
        output.remark(format_args!(
            "A loss of power may take `{shown}` away again ({}), so `{dir}` is kept.",
            reason(&error)
        ));
    }
    if !is_ours && !args.keep {
        output.remark(format_args!("`{dir}` was there before, and stays."));
    }
    if transfer.place.to_stdout {
        return Ok(());
    }
    output.result(
        &[
            ("event", "received".into()),
            ("target", shown.to_string().into()),
            ("length", length.into()),
            ("byteLength", byte_length.into()),
        ],
        format_args!(
            "Received `{}`: {}, verified.",
            on_one_line(&shown),
            bytes(byte_length)
        ),
    )
}

/// What is received, and how.
struct Transfer<'a> {
    link: Link,
    place: Place,
    /// The core stays when the target is there.
    keep: bool,
    manners: &'a Manners,
}

impl Transfer<'_> {
    /// Says that the core is only there for the transfer. It is not said before that is there, whose
    /// directory is for its owner alone.
    fn mark(&self) {
        if !self.keep {
            self.place.mark();
        }
    }

    /// Writes a log as its blocks come, without end.
    async fn follow(&self, download: CloneArgs, output: &Output) -> Result<()> {
        let Place {
            target,
            to_stdout,
            dir,
            had_dir,
            had_target,
            ..
        } = &self.place;
        if !to_stdout {
            output.remark(format_args!(
                "Following into `{}`; stop with Ctrl-C.",
                target.display()
            ));
        }
        let followed = clone::download(download, self.manners, |core| async move {
            if !to_stdout {
                return append_to(&core, dir, target).await;
            }
            self.mark();
            let unread = async {
                deserted().await;
                Ok(())
            };
            future::or(unread, print(&core, dir)).await
        })
        .await;
        // Nothing goes on from it: the next run begins at the start again, or with another target.
        let is_useless = *to_stdout || !had_dir && *had_target && followed.is_err();
        if is_useless
            && !self.keep
            && dir.exists()
            && let Ok(core) = open(dir).await
        {
            remove(core, dir).await?;
        }
        forget_mark(dir, *had_dir);
        followed
    }

    /// Downloads what is not here yet. Returns the core when it has all.
    async fn fetch(
        &self,
        download: CloneArgs,
        signals: &Signals,
        output: &Output,
    ) -> Result<Hypercore> {
        let beside = |_| async {
            self.mark();
            future::pending().await
        };
        let dir = self.place.dir.as_path();
        let Err(failure) = clone::download(download, self.manners, beside).await else {
            return open(dir).await;
        };
        let is_stopped = future::poll_once(signals.stopped()).await.is_some();
        let whole = match is_stopped {
            true => None,
            false => whole(dir, &self.link, &failure).await,
        };
        let Some(core) = whole else {
            self.place.leave();
            return Err(failure);
        };
        output.remark(format_args!("{failure}; all of it is here already."));
        Ok(core)
    }

    /// Writes the target. If that does not fail, it is there; a loss of power may take it away again if
    /// there is an error all the same.
    async fn write(
        &self,
        core: &Hypercore,
        signals: &Signals,
        output: &mut Output,
    ) -> Result<Option<io::Error>> {
        let Place {
            target,
            to_stdout,
            dir,
            ..
        } = &self.place;
        let place = (!to_stdout).then(|| target.clone());
        let written = {
            let written = target::write(core.clone(), dir, place, &self.link, signals);
            future::or(written, tell_slow(output, target)).await
        };
        output.done();
        let failure = match written {
            Ok(Written::Whole) => return Ok(None),
            Ok(Written::Unsynced(error)) => return Ok(Some(error)),
            Err(error) if *to_stdout && error.kind() == io::ErrorKind::BrokenPipe => {
                return Ok(None);
            }
            Ok(Written::No) => {
                close(core, dir).await?;
                return Err(unwritten(target, dir));
            }
            Err(error) => error,
        };
        close(core, dir).await?;
        Err(match cause_in_core(&failure) {
            Some(error) => unreadable(error, dir),
            None if *to_stdout => Failure::output(&failure),
            None => unwritable(target, dir, &failure),
        })
    }

    /// Removes the core, or closes it if it stays.
    async fn end(&self, core: Hypercore, unsynced: Option<&io::Error>) -> Result<()> {
        let dir = self.place.dir.as_path();
        if self.keep {
            close(&core, dir).await?;
            // An earlier run may not have been asked to keep it.
            target::remove_mark(&dir.join(MARK));
            Ok(())
        } else if unsynced.is_some() {
            close(&core, dir).await
        } else {
            remove(core, dir).await
        }
    }
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
    let (mut position, mut there) = (0_u64, Vec::new());
    for index in 0.. {
        // After a crash the core may know less than was written: this waits until it knows it again.
        let Some(block) = block(core, index, dir).await? else {
            return future::pending().await;
        };
        let (known, new) = split_bytes(&block, before.saturating_sub(position));
        there.resize(known.len(), 0);
        let is_same = file.read_exact(&mut there).is_ok() && there == known;
        let expected = before.max(position);
        if !is_same || len(&file).map_err(failure)? != expected {
            return Err(Failure::failed(format!(
                "`{}` is not as it was received: it differs from the log after byte {position}, \
                 and nothing more is appended; name another target after the line",
                target.display()
            )));
        }
        file.write_all(new).map_err(failure)?;
        position = position.saturating_add(block.len() as u64);
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
