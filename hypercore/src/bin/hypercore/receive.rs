//! `hypercore receive`: takes what `hypercore share` offers, with its line and nothing else.
//!
//! The blocks go to a core beside the target, so that a transfer that was cut off goes on where it
//! was. When all of it is here and verified, the target is written under another name and renamed,
//! so that it is never there in part. A log is written to as its blocks come.

use std::{
    ffi::OsString,
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    path::{Path, PathBuf},
};

use clap::Args;
use futures_lite::future;
use hypercore::{Bytes, Error, GetOptions, Hypercore};

use crate::{
    args::{CloneArgs, Format, Identity, Manners},
    clone,
    commands::{close, open},
    errors::{Failure, Result, reason},
    link::{Kind, Link},
    output::{Output, bytes},
};

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    hypercore receive 'hyper://KEY@192.168.1.5:4000/holiday.mp4'\n  \
    hypercore receive 'hyper://KEY/photos/' ~/Pictures/holiday\n\n\
    Run it again after an interruption: it goes on where it was. A log (?live) is followed until \
    Ctrl-C.")]
pub(crate) struct ReceiveArgs {
    /// What `hypercore share` printed
    #[arg(value_name = "LINE")]
    link: Link,
    /// What to write [default: the name in the line, in the working directory]
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
    let ReceiveArgs { link, keep, .. } = args;
    let target = args.target.unwrap_or_else(|| PathBuf::from(&link.name));
    let dir = with_suffix(&target, ".hypercore");
    let shown = target.display();
    let is_log = link.kind == Kind::Log;
    if target.exists() && !(is_log && dir.exists()) {
        return Err(Failure::failed(format!(
            "`{shown}` exists already; name another target after the line"
        )));
    }
    let json = args.format.json;
    let download = CloneArgs {
        key: link.key,
        dir: dir.clone(),
        connect: link.address.into_iter().collect(),
        more: Vec::new(),
        live: is_log,
        sparse: false,
        range: Vec::new(),
        search: true,
        target: Some(target.clone()),
        identity: args.identity,
        format: args.format,
    };
    if is_log {
        let log = target.clone();
        return clone::download(download, manners, |core| async move {
            append_to(&core, &log).await
        })
        .await;
    }
    clone::download(download, manners, |_| future::pending()).await?;

    let core = open(&dir).await?;
    let (length, byte_length) = (core.length(), core.byte_length());
    let (source, part, kind) = (core.clone(), with_suffix(&target, ".part"), link.kind);
    let path = target.clone();
    let written = blocking::unblock(move || match kind {
        Kind::Folder => unpack(source, &part, &path),
        _ => write(source, &part, &path),
    });
    if let Err(error) = written.await {
        close(&core, &dir).await?;
        return Err(unwritable(&target, &error));
    }
    if keep {
        close(&core, &dir).await?;
    } else {
        let removed = core.destroy().await;
        removed.map_err(|error| Failure::core(error, &dir))?;
        // If somebody has put something else there meanwhile, it stays.
        let _ = fs::remove_dir(&dir);
    }
    Output::new(&Format { json }, manners).result(
        &[
            ("event", "received".into()),
            ("target", shown.to_string().into()),
            ("length", length.into()),
            ("byteLength", byte_length.into()),
        ],
        format_args!("Received `{shown}`: {}, verified.", bytes(byte_length)),
    )
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    PathBuf::from(name)
}

fn unwritable(target: &Path, error: &io::Error) -> Failure {
    let shown = target.display();
    Failure::failed(format!(
        "`{shown}` cannot be written: {}; the blocks are kept, so run it again",
        reason(error)
    ))
}

/// Writes a file, which is there when it is whole.
fn write(core: Hypercore, part: &Path, target: &Path) -> io::Result<()> {
    let mut file = File::create(part)?;
    io::copy(&mut Content::of(core), &mut file)?;
    file.sync_all()?;
    fs::rename(part, target)
}

/// Unpacks an archive, of which nothing leads out of `part`.
fn unpack(core: Hypercore, part: &Path, target: &Path) -> io::Result<()> {
    match fs::remove_dir_all(part) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    fs::create_dir(part)?;
    let mut archive = tar::Archive::new(Content::of(core));
    archive.set_preserve_mtime(true);
    archive.unpack(part)?;
    fs::rename(part, target)
}

/// The bytes of all blocks, each checked against its hash.
struct Content {
    core: Hypercore,
    next: u64,
    block: Bytes,
}

impl Content {
    fn of(core: Hypercore) -> Self {
        Self {
            core,
            next: 0,
            block: Bytes::new(),
        }
    }
}

impl Read for Content {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.block.is_empty() {
            if self.next == self.core.length() {
                return Ok(0);
            }
            let read = self.core.get_with(self.next, GetOptions::local());
            self.block = future::block_on(read).map_err(io::Error::other)?;
            self.next += 1;
        }
        let count = self.block.len().min(buffer.len());
        buffer[..count].copy_from_slice(&self.block.split_to(count));
        Ok(count)
    }
}

/// Appends to `target` what it does not have of the log, without end.
async fn append_to(core: &Hypercore, target: &Path) -> Result<()> {
    let failure = |error: io::Error| unwritable(target, &error);
    let file = OpenOptions::new().append(true).create(true).open(target);
    let mut file = file.map_err(failure)?;
    let written = file.metadata().map_err(failure)?.len();
    // After a crash the core may know less than was written: this waits until it knows it again.
    let position = core.seek(written).await;
    let position = position.map_err(|error| Failure::core(error, target))?;
    let (mut index, mut skip) = (position.index, position.offset);
    loop {
        let block = match core.get(index).await {
            // The end of the program.
            Err(Error::Closed) => return future::pending().await,
            block => block.map_err(|error| Failure::core(error, target))?,
        };
        // Within the block, whose length is a usize.
        file.write_all(&block[skip as usize..]).map_err(failure)?;
        (index, skip) = (index + 1, 0);
    }
}
