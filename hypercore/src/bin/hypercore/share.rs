//! `hypercore share`: a file, a folder or a growing log becomes a core, and one line says how to get it.

use std::{
    env,
    fs::{self, File},
    io::{self, Read, Seek, SeekFrom, Write},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use async_channel::Sender;
use async_io::Timer;
use clap::Args;
use futures_lite::future;
use hypercore::{Bytes, GetOptions, Hypercore};

use crate::{
    args::{Format, Identity, Manners, parse_address},
    commands::{append_batch, close, options, require_writable, tell_recovery},
    errors::{Exit, Failure, Result, reason},
    identity,
    input::{self, Batches},
    link::{Kind, Link},
    net,
    output::{Output, blocks, bytes},
    serve::{Door, Service, listen_on},
    signals::Signals,
};

/// Bytes of a block.
const BLOCK_SIZE: u64 = 65_536;

/// How often a file that may grow is looked at.
const LOOK: Duration = Duration::from_millis(250);

/// Connections at one time.
const MAX_PEERS: u32 = 1024;

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  hypercore share holiday.mp4\n  hypercore share photos\n  \
    hypercore share app.log --follow\n  journalctl -f | hypercore share - --follow\n\n\
    Whoever has the line that is printed can read what is shared, and so can whoever they give it \
    to. Run it\nagain to go on sharing under the same line; a file that has grown is appended to."
)]
pub(crate) struct ShareArgs {
    /// A file, a folder, or `-` for standard input
    #[arg(value_name = "PATH")]
    source: PathBuf,
    /// Share what is written to the file, or to standard input, for as long as this runs
    #[arg(long, short)]
    follow: bool,
    /// Directory of the core [default: NAME.hypercore in the working directory]
    #[arg(long, value_name = "DIR")]
    core: Option<PathBuf>,
    /// Where to listen
    #[arg(long, value_name = "ADDR:PORT", default_value = "0.0.0.0:0",
        value_parser = parse_address)]
    listen: String,
    #[command(flatten)]
    identity: Identity,
    #[command(flatten)]
    format: Format,
}

pub(crate) async fn share(args: ShareArgs, manners: &Manners) -> Result<()> {
    let source = Source::of(&args)?;
    let signals = Signals::catch().map_err(|error| Failure::failed(error.to_string()))?;
    let identity = identity::load(args.identity.path.as_deref())?;
    let mut output = Output::new(&args.format, manners);
    let (listener, address) = listen_on(&args.listen).await?;
    let core = source.open(&output).await?;
    if source.kind != Kind::Log {
        let stopped = async {
            signals.stopped().await;
            let words = "interrupted before all was read; run it again to go on";
            Err(Failure::new(Exit::Incomplete, words))
        };
        let taken = future::or(stopped, source.take_in(&core, &mut output)).await;
        output.done();
        if let Err(failure) = taken {
            close(&core, &source.dir).await?;
            return Err(failure);
        }
    }

    let announcement = net::announce(&core, address);
    if let Err(failure) = &announcement {
        output.remark(failure);
    }
    let reached_at = reachable(address);
    let link = Link {
        key: core.key(),
        address: Some(reached_at.to_string()),
        name: source.name.clone(),
        kind: source.kind,
    };
    output.result(
        &[
            ("event", "sharing".into()),
            ("line", link.to_string().into()),
            ("key", core.key().to_string().into()),
            ("address", reached_at.to_string().into()),
            ("core", source.dir.display().to_string().into()),
            ("length", core.length().into()),
            ("byteLength", core.byte_length().into()),
        ],
        format_args!(
            "Sharing `{}`: {}, {}. Elsewhere:\n\n  hypercore receive '{link}'\n\nOn the same \
             network `@{reached_at}` may be left out. Stop with Ctrl-C.",
            source.name,
            blocks(core.length()),
            bytes(core.byte_length()),
        ),
    )?;
    let service = Service {
        core: core.clone(),
        dir: source.dir.clone(),
        listener,
        page: None,
        door: Door::new(MAX_PEERS, []),
        identity,
        signals,
    };
    service.run(source.follow(&core), &mut output).await
}

/// Where others reach us, as far as we can know.
fn reachable(listening: SocketAddr) -> SocketAddr {
    if !listening.ip().is_unspecified() {
        return listening;
    }
    let own = net::own_address();
    SocketAddr::new(
        own.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        listening.port(),
    )
}

/// What is shared, and where its core is.
struct Source {
    path: PathBuf,
    name: String,
    kind: Kind,
    dir: PathBuf,
}

impl Source {
    fn of(args: &ShareArgs) -> Result<Self> {
        let is_stdin = args.source == Path::new("-");
        let shown = args.source.display();
        let (path, is_folder) = if is_stdin {
            (args.source.clone(), false)
        } else {
            let found = fs::canonicalize(&args.source)
                .and_then(|path| Ok((fs::metadata(&path)?.is_dir(), path)));
            let (is_folder, path) = found.map_err(|error| unreadable(&args.source, &error))?;
            (path, is_folder)
        };
        let kind = match (is_folder, args.follow) {
            (true, true) => {
                return Err(Failure::failed(format!(
                    "`{shown}` is a folder; --follow takes a file or `-`"
                )));
            }
            (true, false) => Kind::Folder,
            (false, true) => Kind::Log,
            (false, false) => Kind::File,
        };
        let name = match path.file_name() {
            _ if is_stdin => "stdin".to_owned(),
            name => {
                let name = name.unwrap_or_default().to_string_lossy();
                Link::safe_name(&name).ok_or_else(|| {
                    Failure::failed(format!(
                        "`{shown}` has a name that others may not be able to use"
                    ))
                })?
            }
        };
        let dir = args.core.clone();
        let dir = dir.unwrap_or_else(|| PathBuf::from(format!("{name}.hypercore")));
        if kind == Kind::Folder {
            let absolute = env::current_dir().map(|here| here.join(&dir));
            if absolute.is_ok_and(|absolute| absolute.starts_with(&path)) {
                return Err(Failure::failed(format!(
                    "the core `{}` would lie in the folder that it archives; choose a directory \
                     outside with --core",
                    dir.display()
                )));
            }
        }
        Ok(Self {
            path,
            name,
            kind,
            dir,
        })
    }

    fn is_stdin(&self) -> bool {
        self.path == Path::new("-")
    }

    /// The core of an earlier run, or a new one.
    async fn open(&self, output: &Output) -> Result<Hypercore> {
        let open = || async {
            let core = options().open(&self.dir).await;
            core.map_err(|error| Failure::core(error, &self.dir))
        };
        let mut core = open().await?;
        tell_recovery(&core, &self.dir);
        require_writable(&core, &self.dir)?;
        if core.length() == 0 {
            return Ok(core);
        }
        let dir = self.dir.display();
        match self.kind {
            Kind::Folder if is_archive(&core).await => output.remark(format_args!(
                "Sharing the archive in `{dir}` again; remove that to archive anew."
            )),
            Kind::Folder => {
                // Nobody has seen it: it is served when it is whole.
                let destroyed = core.destroy().await;
                destroyed.map_err(|error| Failure::core(error, &self.dir))?;
                core = open().await?;
            }
            Kind::File if self.is_stdin() => {
                return Err(Failure::failed(format!(
                    "`{dir}` holds what was shared before; choose another directory with --core, \
                     or append to it with --follow"
                )));
            }
            Kind::Log if self.is_stdin() => {}
            Kind::File | Kind::Log => {
                if !self.begins_with(&core).await? {
                    return Err(Failure::failed(format!(
                        "`{}` is not what was shared from `{dir}` before: it was changed other than \
                         by appending; remove that directory to share it under a new key",
                        self.path.display()
                    )));
                }
                output.remark(format_args!(
                    "Going on after {} in `{dir}`.",
                    bytes(core.byte_length())
                ));
            }
        }
        Ok(core)
    }

    /// Whether the file still has, as far as its last block shows, what the core has of it.
    async fn begins_with(&self, core: &Hypercore) -> Result<bool> {
        let last = core.get_with(core.length() - 1, GetOptions::local()).await;
        let last = last.map_err(|error| Failure::core(error, &self.dir))?;
        let start = core.byte_length() - last.len() as u64;
        let mut there = vec![0; last.len()];
        let read = File::open(&self.path).and_then(|mut file| {
            file.seek(SeekFrom::Start(start))?;
            file.read_exact(&mut there)
        });
        match read {
            Ok(()) => Ok(there == last),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
            Err(error) => Err(unreadable(&self.path, &error)),
        }
    }

    /// Appends everything there is and is not in the core yet.
    async fn take_in(&self, core: &Hypercore, output: &mut Output) -> Result<()> {
        let batches = if self.kind == Kind::Folder {
            if core.length() > 0 {
                return Ok(());
            }
            output.draw(0, "{spinner} {binary_bytes}  {binary_bytes_per_sec}");
            archive(self.path.clone())
        } else {
            let (batches, size) = input::file(&self.path, core.byte_length(), BLOCK_SIZE)?;
            let style =
                "{bar:40} {binary_bytes}/{binary_total_bytes}  {binary_bytes_per_sec}  {eta}";
            output.draw(size.unwrap_or(0), style);
            batches
        };
        output.bar().inc(core.byte_length());
        append_all(core, &self.dir, &batches, output).await
    }

    /// Appends what is written to a log, without end.
    async fn follow(&self, core: &Hypercore) -> Result<()> {
        if self.kind != Kind::Log {
            return future::pending().await;
        }
        if self.is_stdin() {
            let batches = input::pieces();
            while let Ok(batch) = batches.recv().await {
                append_batch(core, &self.dir, batch?).await?;
            }
            return future::pending().await;
        }
        let failure = |error: io::Error| unreadable(&self.path, &error);
        let mut file = File::open(&self.path).map_err(failure)?;
        loop {
            let end = core.byte_length();
            if file.metadata().map_err(failure)?.len() < end {
                return Err(Failure::failed(format!(
                    "`{}` was cut off: what others have of it cannot be taken back",
                    self.path.display()
                )));
            }
            file.seek(SeekFrom::Start(end)).map_err(failure)?;
            let batch = input::read_batch(&mut file, BLOCK_SIZE, 64).map_err(failure)?;
            if batch.is_empty() {
                Timer::after(LOOK).await;
            } else {
                append_batch(core, &self.dir, batch).await?;
            }
        }
    }
}

async fn append_all(
    core: &Hypercore,
    dir: &Path,
    batches: &Batches,
    output: &Output,
) -> Result<()> {
    while let Ok(batch) = batches.recv().await {
        let batch = batch?;
        let size: usize = batch.iter().map(Bytes::len).sum();
        append_batch(core, dir, batch).await?;
        output.bar().inc(size as u64);
    }
    Ok(())
}

fn unreadable(path: &Path, error: &io::Error) -> Failure {
    let shown = path.display();
    Failure::failed(format!("`{shown}` cannot be read: {}", reason(error)))
}

// ---- folders --------------------------------------------------------------------------------

/// A tar archive ends with so many zeros.
const END_OF_ARCHIVE: usize = 1024;

/// Whether the core holds the whole of an archive.
async fn is_archive(core: &Hypercore) -> bool {
    let Some(start) = core.byte_length().checked_sub(END_OF_ARCHIVE as u64) else {
        return false;
    };
    let Ok(position) = core.seek(start).await else {
        return false;
    };
    let mut zeros = 0;
    for index in position.index..core.length() {
        let Ok(block) = core.get_with(index, GetOptions::local()).await else {
            return false;
        };
        zeros += block.iter().rev().take_while(|&&byte| byte == 0).count();
    }
    zeros >= END_OF_ARCHIVE
}

/// The blocks of an archive of `folder`.
fn archive(folder: PathBuf) -> Batches {
    let (sender, batches) = async_channel::bounded(4);
    thread::spawn(move || {
        let mut builder = tar::Builder::new(BlockWriter {
            buffer: Vec::new(),
            sender: sender.clone(),
        });
        builder.follow_symlinks(false);
        let written = builder.append_dir_all(".", &folder);
        let written = written.and_then(|()| builder.into_inner()?.flush());
        if let Err(error) = written {
            // Nobody listens any more when the program is ending.
            let _ = sender.send_blocking(Err(unreadable(&folder, &error)));
        }
    });
    batches
}

/// Cuts what is written into blocks.
struct BlockWriter {
    buffer: Vec<u8>,
    sender: Sender<Result<Vec<Bytes>>>,
}

impl BlockWriter {
    fn send(&mut self) -> io::Result<()> {
        let block = std::mem::take(&mut self.buffer).into();
        let sent = self.sender.send_blocking(Ok(vec![block]));
        sent.map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

impl Write for BlockWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = BLOCK_SIZE as usize - self.buffer.len();
        let part = &bytes[..bytes.len().min(room)];
        self.buffer.extend_from_slice(part);
        if part.len() == room {
            self.send()?;
        }
        Ok(part.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        self.send()
    }
}
