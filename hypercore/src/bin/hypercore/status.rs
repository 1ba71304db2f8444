//! What a running `serve`, `clone`, `share` or `receive` tells about itself, and `hypercore peers` and
//! `hypercore stats`, which ask.
//!
//! Whoever holds a core open answers on a Unix socket in the runtime directory of the user, under a
//! name made of the core's directory. It does not lie beside the core: what is there is copied,
//! compared and opened by Node. Whoever connects gets a line of JSON at once, and another one every
//! second; rates are the difference of two.

use std::{
    convert::Infallible,
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use clap::Args;
use futures_lite::future;
use hypercore::{
    Goal, Hypercore,
    storage::{Directory, FileName, Storage},
};
use serde_json::{Map, Value, json};

use crate::{
    args::{Format, Manners},
    commands::require_directory,
    errors::{Exit, Failure, Result, quoted},
    output::{Output, blocks, bytes, is_deserted},
    peers::Peers,
};

/// How often a snapshot is told.
const INTERVAL: Duration = Duration::from_secs(1);

/// So much of what is waited for is told.
const SHOWN_WAITS: usize = 8;

/// So many runs of the blocks a peer was asked for are told.
const SHOWN_RUNS: usize = 4;

#[derive(Debug, Args)]
#[command(after_help = "Example: hypercore peers letters --watch")]
pub(crate) struct PeersArgs {
    #[command(flatten)]
    whom: Whom,
}

#[derive(Debug, Args)]
#[command(after_help = "Example: hypercore stats letters --json")]
pub(crate) struct StatsArgs {
    #[command(flatten)]
    whom: Whom,
}

#[derive(Debug, Args)]
struct Whom {
    /// Directory that a running `hypercore serve`, `clone`, `share` or `receive` has open
    dir: PathBuf,
    /// Tell it again every second, until interrupted or until nobody reads it
    #[arg(long, short)]
    watch: bool,
    #[command(flatten)]
    format: Format,
}

pub(crate) fn peers(args: &PeersArgs, manners: &Manners) -> Result<()> {
    ask(&args.whom, manners, tell_peers)
}

pub(crate) fn stats(args: &StatsArgs, manners: &Manners) -> Result<()> {
    ask(&args.whom, manners, tell_stats)
}

// ---- asking ---------------------------------------------------------------------------------

/// Two snapshots, one interval apart.
struct Change {
    before: Value,
    now: Value,
}

impl Change {
    /// Bytes a second, of a count in the whole or in one peer.
    fn rate(before: &Value, now: &Value, name: &str) -> u64 {
        let [before, now] = [before, now].map(|value| value[name].as_u64().unwrap_or(0));
        now.saturating_sub(before)
    }

    /// The peers of now, each with itself as it was before.
    fn peers(&self) -> impl Iterator<Item = (&Value, &Value)> {
        let [before, now] = [&self.before, &self.now].map(|value| value["peers"].as_array());
        now.into_iter().flatten().map(move |peer| {
            let mut before = before.into_iter().flatten();
            let same = before.find(|before| before["id"] == peer["id"]);
            (same.unwrap_or(peer), peer)
        })
    }
}

fn ask(whom: &Whom, manners: &Manners, tell: fn(&mut Output, &Change) -> Result<()>) -> Result<()> {
    require_directory(&whom.dir)?;
    let mut output = Output::new(&whom.format, manners);
    let mut snapshots = listen(&whom.dir)?;
    let mut before = None;
    for now in &mut snapshots {
        let now = now?;
        let Some(before) = before.replace(now.clone()) else {
            continue;
        };
        tell(&mut output, &Change { before, now })?;
        // Who has seen enough, as `head` has, does not wait for an end.
        if !whom.watch || output.is_unread() || is_deserted() {
            return Ok(());
        }
    }
    if whom.watch && before.is_some() {
        return Ok(());
    }
    Err(not_running(&whom.dir))
}

fn not_running(dir: &Path) -> Failure {
    let is_in_use = is_in_use(dir);
    let (dir, quoted) = (dir.display(), quoted(dir));
    if is_in_use {
        return Failure::new(
            Exit::Locked,
            format!(
                "the core in `{dir}` is in use by a process that answers no questions, as `hypercore \
                 append` is, or one of another user; wait until it ends, or stop it"
            ),
        );
    }
    Failure::failed(format!(
        "nothing is known of a running `hypercore serve`, `clone`, `share` or `receive` that has \
         the core in `{dir}` open; start one, or see with `hypercore info {quoted}` what is stored"
    ))
}

/// Whether somebody has the core in `dir` open. This one has it for a moment then, as `hypercore info` does.
fn is_in_use(dir: &Path) -> bool {
    let file = Directory::new(dir).open(FileName::Bitfield);
    let locked = file.and_then(|file| file.lock());
    locked.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
}

/// How long a process may take to say something: twice as long as it does.
#[cfg(unix)]
const PATIENCE: Duration = Duration::from_secs(2);

#[cfg(unix)]
fn silent(dir: &Path) -> Failure {
    Failure::failed(format!(
        "the process that has the core in `{}` open has said nothing for {} seconds: it may be \
         stopped, until `fg` or SIGCONT, or this machine is busy",
        dir.display(),
        PATIENCE.as_secs()
    ))
}

fn tell_peers(output: &mut Output, change: &Change) -> Result<()> {
    let now = &change.now;
    for (before, peer) in change.peers() {
        let [down, up] = ["downloadedBytes", "uploadedBytes"].map(|name| {
            (
                peer[name].as_u64().unwrap_or(0),
                Change::rate(before, peer, name),
            )
        });
        let name = peer["peer"].as_str().unwrap_or("?");
        let sent = peer["uploadedBlocks"].as_u64().unwrap_or(0);
        let has = match peer["opened"].as_bool() {
            // A clone does not tell what it has of what it gets from us.
            Some(true) if sent > 0 => {
                let length = now["length"].as_u64().unwrap_or(0);
                format!("sent {sent} of {}", blocks(length))
            }
            Some(true) => format!("has {}", blocks(peer["remoteLength"].as_u64().unwrap_or(0))),
            _ => "has not shown the key yet".into(),
        };
        let delay = peer["delayMilliseconds"].as_f64();
        let delay = delay.map_or_else(|| "-".into(), |delay| format!("{delay:.1} ms"));
        output.result(
            &[
                ("peer", name.into()),
                ("opened", peer["opened"].clone()),
                ("remoteLength", peer["remoteLength"].clone()),
                ("asked", peer["asked"].clone()),
                ("requests", peer["requests"].clone()),
                ("delayMilliseconds", peer["delayMilliseconds"].clone()),
                (
                    "capacityBytesPerSecond",
                    peer["capacityBytesPerSecond"].clone(),
                ),
                ("downloadedBytes", down.0.into()),
                ("uploadedBytes", up.0.into()),
                ("uploadedBlocks", sent.into()),
                ("downloadBytesPerSecond", down.1.into()),
                ("uploadBytesPerSecond", up.1.into()),
            ],
            format_args!(
                "{name:<24}  {has:<26}  {delay:>9}  asked {:>3}  down {:>10} {:>12}/s  up {:>10} \
                 {:>12}/s",
                peer["requests"].as_u64().unwrap_or(0),
                bytes(down.0),
                bytes(down.1),
                bytes(up.0),
                bytes(up.1)
            ),
        )?;
    }
    if change.peers().next().is_none() {
        output.remark("Nobody is connected.");
    }
    Ok(())
}

fn tell_stats(output: &mut Output, change: &Change) -> Result<()> {
    let Change { before, now } = change;
    let number = |name: &str| now[name].as_u64().unwrap_or(0);
    let count = now["peers"].as_array().map_or(0, Vec::len);
    let [down, up] =
        ["downloadedBytes", "uploadedBytes"].map(|name| Change::rate(before, now, name));
    let mut more = String::new();
    for wait in now["waiting"].as_array().into_iter().flatten() {
        let word = |name: &str| wait[name].as_str().unwrap_or("?").to_owned();
        more += &format!("\nwaits for   {}: {}", word("goal"), word("on"));
    }
    if let Value::String(error) = &now["lastError"] {
        more += &format!("\nlast error  {error}");
    }
    output.result(
        &[
            ("key", now["key"].clone()),
            ("length", now["length"].clone()),
            ("byteLength", now["byteLength"].clone()),
            ("downloaded", now["downloaded"].clone()),
            ("peers", count.into()),
            ("downloadedBytes", now["downloadedBytes"].clone()),
            ("uploadedBytes", now["uploadedBytes"].clone()),
            ("downloadBytesPerSecond", down.into()),
            ("uploadBytesPerSecond", up.into()),
            ("waiting", now["waiting"].clone()),
            ("lastError", now["lastError"].clone()),
        ],
        format_args!(
            "key         {}\nstored      {} of {}, {}\npeers       {count}\nreceived    {}, now \
             {}/s\nsent        {}, now {}/s{more}",
            now["key"].as_str().unwrap_or("?"),
            number("downloaded"),
            blocks(number("length")),
            bytes(number("byteLength")),
            bytes(number("downloadedBytes")),
            bytes(down),
            bytes(number("uploadedBytes")),
            bytes(up),
        ),
    )
}

// ---- answering ------------------------------------------------------------------------------

/// Answers whoever asks about the core in `dir`, until dropped.
pub(crate) async fn answer(dir: PathBuf, core: Hypercore, peers: Peers) -> Infallible {
    #[cfg(unix)]
    match socket::Socket::bind(&dir) {
        Ok(socket) => match socket.answer(&core, &peers).await {},
        Err(error) => {
            tracing::info!(%error, "`hypercore peers` and `hypercore stats` are not answered");
        }
    }
    #[cfg(not(unix))]
    let _ = (dir, core, peers);
    future::pending().await
}

/// What there is to tell of a core and its peers at this moment.
pub(crate) fn snapshot(core: &Hypercore, peers: &Peers) -> Map<String, Value> {
    let total = core.stats();
    let each = core.peers().into_iter().map(|peer| {
        json!({
            "id": peer.id.to_string(),
            "peer": peers.address(peer.id),
            "opened": peer.opened,
            "remoteLength": peer.remote_length,
            "asked": runs(&peer.asked),
            "requests": peer.in_flight,
            "delayMilliseconds": peer.delay.map(|delay| delay.as_secs_f64() * 1000.0),
            "capacityBytesPerSecond": peer.bytes_per_second,
            "downloadedBytes": peer.stats.downloaded_bytes,
            "uploadedBytes": peer.stats.uploaded_bytes,
            "uploadedBlocks": peer.stats.uploaded_blocks,
        })
    });
    let snapshot = [
        ("key", core.key().to_string().into()),
        ("length", core.length().into()),
        ("byteLength", core.byte_length().into()),
        ("downloaded", core.downloaded(..).into()),
        ("downloadedBytes", total.downloaded_bytes.into()),
        ("uploadedBytes", total.uploaded_bytes.into()),
        ("waiting", waiting(core).into()),
        ("lastError", peers.last_error().into()),
        ("peers", each.collect()),
    ];
    Map::from_iter(snapshot.map(|(name, value)| (name.to_owned(), value)))
}

/// The first runs of some blocks, each as its start and its end.
fn runs(blocks: &[u64]) -> Vec<[u64; 2]> {
    let mut blocks = blocks.to_vec();
    blocks.sort_unstable();
    let runs = blocks.chunk_by(|a, b| b.saturating_sub(*a) <= 1);
    let ends = runs.filter_map(|run| Some([*run.first()?, run.last()?.saturating_add(1)]));
    ends.take(SHOWN_RUNS).collect()
}

/// What is asked for and not here, and why not.
fn waiting(core: &Hypercore) -> Vec<Value> {
    let waiting = core.waiting().into_iter().take(SHOWN_WAITS);
    let each = waiting.map(|wait| {
        let goal = match wait.goal {
            Goal::Block { index } => format!("block {index}"),
            Goal::Blocks { missing, .. } => format!("block {missing} and others"),
            Goal::Length { min_length } => format!("a length of {}", blocks(min_length)),
            Goal::Byte { offset } => format!("byte {offset}"),
            _ => "something".into(),
        };
        json!({ "goal": goal, "on": wait.on.to_string() })
    });
    each.collect()
}

#[cfg(not(unix))]
fn listen(_: &Path) -> Result<std::iter::Empty<Result<Value>>> {
    Err(Failure::failed(
        "running processes can be asked on Unix only; `--json` makes them tell their events",
    ))
}

#[cfg(unix)]
use socket::listen;

#[cfg(unix)]
mod socket {
    use std::{
        convert::Infallible,
        env, fs,
        io::{self, BufRead, BufReader, Read},
        os::unix::{
            fs::{DirBuilderExt, PermissionsExt},
            net::{UnixListener, UnixStream},
        },
        path::{Path, PathBuf},
    };

    use async_io::{Async, Timer};
    use data_encoding::HEXLOWER;
    use futures_lite::{AsyncWriteExt, future};
    use hypercore::{Hypercore, merkle::leaf_hash};
    use serde_json::Value;

    use super::{INTERVAL, PATIENCE, not_running, silent, snapshot};
    use crate::{errors::Result, net, peers::Peers};

    /// No snapshot is longer.
    const MAX_LINE: u64 = 16 * 1024 * 1024;

    /// Where the process answers that has the core in `dir` open.
    fn place_of(dir: &Path) -> io::Result<PathBuf> {
        let dir = fs::canonicalize(dir)?;
        let name = leaf_hash(dir.as_os_str().as_encoded_bytes());
        let home = |below| env::home_dir().map(|home| home.join(below));
        let parent = env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
        let parent = parent.filter(|parent| parent.is_absolute());
        let parent = parent.or_else(|| home(".local/state"));
        let parent = parent.ok_or_else(|| io::Error::other("there is no runtime directory"))?;
        // The path of a socket may have 107 bytes.
        Ok(parent
            .join("hypercore")
            .join(format!("{}.sock", HEXLOWER.encode(&name[..12]))))
    }

    /// Removed when dropped.
    pub(super) struct Socket {
        listener: Async<UnixListener>,
        path: PathBuf,
    }

    impl Socket {
        pub(super) fn bind(dir: &Path) -> io::Result<Self> {
            let path = place_of(dir)?;
            if let Some(parent) = path.parent() {
                fs::DirBuilder::new()
                    .recursive(true)
                    .mode(0o700)
                    .create(parent)?;
            }
            // We hold the lock of the core, so who was there before us is gone.
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            let socket = Self {
                listener: Async::<UnixListener>::bind(&path)?,
                path,
            };
            fs::set_permissions(&socket.path, fs::Permissions::from_mode(0o600))?;
            Ok(socket)
        }

        /// Answers for ever.
        pub(super) async fn answer(&self, core: &Hypercore, peers: &Peers) -> Infallible {
            loop {
                let mut stream = match self.listener.accept().await {
                    Ok((stream, _)) => stream,
                    Err(error) => {
                        // As when no file is left, which passes.
                        tracing::info!(%error, "a question was not answered");
                        Timer::after(INTERVAL).await;
                        continue;
                    }
                };
                let (core, peers) = (core.clone(), peers.clone());
                net::spawn(async move {
                    loop {
                        let line = format!("{}\n", Value::Object(snapshot(&core, &peers)));
                        if stream.write_all(line.as_bytes()).await.is_err() {
                            return;
                        }
                        Timer::after(INTERVAL).await;
                    }
                });
            }
        }
    }

    impl Drop for Socket {
        fn drop(&mut self) {
            // If it stays, the next one replaces it.
            let _ = fs::remove_file(&self.path);
        }
    }

    /// The snapshots of the process that has the core in `dir` open, until it ends or falls silent.
    pub(super) fn listen(dir: &Path) -> Result<impl Iterator<Item = Result<Value>>> {
        let failure = |error: io::Error| match is_late(&error) {
            true => silent(dir),
            false => not_running(dir),
        };
        let mut stream = BufReader::new(connect(dir).map_err(failure)?);
        Ok(std::iter::from_fn(move || {
            let mut line = String::new();
            match stream.by_ref().take(MAX_LINE).read_line(&mut line) {
                Err(error) if is_late(&error) => Some(Err(silent(dir))),
                Err(_) => None,
                Ok(_) => serde_json::from_str(&line).ok().map(Ok),
            }
        }))
    }

    /// A stream on which nothing is waited for longer than [`PATIENCE`].
    fn connect(dir: &Path) -> io::Result<UnixStream> {
        let place = place_of(dir)?;
        // One that is stopped takes no calls, and there is room for so many.
        let called = future::block_on(future::or(Async::<UnixStream>::connect(place), async {
            Timer::after(PATIENCE).await;
            Err(io::ErrorKind::TimedOut.into())
        }));
        let stream = called?.into_inner()?;
        stream.set_nonblocking(false)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(stream)
    }

    /// The system has two words for it.
    fn is_late(error: &io::Error) -> bool {
        matches!(
            error.kind(),
            io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock
        )
    }
}
