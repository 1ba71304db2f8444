//! The commands that need no peers.

use std::{
    env, fs, io,
    ops::Range,
    path::{Path, PathBuf},
    sync::Once,
};

use futures_lite::future;
use hypercore::{Bytes, Error, Hypercore, KeyPair, OpenOptions, SeekOptions, storage::FileName};

use crate::{
    args::{
        AppendArgs, AuditArgs, ClearArgs, CreateArgs, DEFAULT_BLOCK_SIZE, InfoArgs, Manners,
        SeekArgs, parse_key,
    },
    errors::{Exit, Failure, Result, how_to_replace_secret, is_secret_lost, quoted, reason, why},
    input::{self, Batches},
    origin::Origin,
    output::{Output, blocks, bytes, complain, on_one_line},
    signals::Signals,
};

/// Whether there is a directory to look into.
pub(crate) fn require_directory(dir: &Path) -> Result<()> {
    let shown = dir.display();
    match fs::metadata(dir) {
        Ok(metadata) if metadata.is_dir() => Ok(()),
        // What `share` was given, and what `receive` has written.
        Ok(_) if Path::new(&format!("{shown}.hypercore")).is_dir() => Err(Failure::failed(
            format!("`{shown}` is not a directory; its core is in `{shown}.hypercore`"),
        )),
        Ok(_) => Err(Failure::failed(format!(
            "`{shown}` is not a directory, and a core is one; name another path"
        ))),
        Err(_) if dir.to_str().is_some_and(|name| parse_key(name).is_ok()) => {
            Err(Failure::failed(format!(
                "`{shown}` is a key, and this command takes a directory; `hypercore clone {shown} \
                 DIR` makes a copy, and `hypercore cat {shown}` reads it from its peers"
            )))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(Failure::failed(format!(
            "the directory `{shown}` does not exist; check the path"
        ))),
        Err(error) => Err(Failure::failed(format!(
            "the directory `{shown}` cannot be read: {}",
            reason(&error)
        ))),
    }
}

/// Whether a core may be made in `dir`, as far as what stands there now is concerned.
pub(crate) fn refuse_file(dir: &Path) -> Result<()> {
    match fs::metadata(dir) {
        Ok(found) if !found.is_dir() => require_directory(dir),
        _ => Ok(()),
    }
}

/// How every command opens a core: greatest lengths are noted in `$XDG_STATE_HOME/hypercore`, or the
/// same in `~/.local/state`, where there is one.
pub(crate) fn options() -> OpenOptions {
    let absolute = |name| {
        let path = PathBuf::from(env::var_os(name)?);
        path.is_absolute().then_some(path)
    };
    let state =
        absolute("XDG_STATE_HOME").or_else(|| Some(absolute("HOME")?.join(".local").join("state")));
    let state = state.map(|state| state.join("hypercore"));
    match state.filter(|state| may_look_at(state)) {
        Some(state) => OpenOptions::new().state_directory(state),
        None => OpenOptions::new(),
    }
}

/// Whether this process may know of `state` at all. A service may not, where homes are closed to it,
/// and works without: this is said once.
fn may_look_at(state: &Path) -> bool {
    static TOLD: Once = Once::new();
    match fs::metadata(state) {
        Err(error) if is_closed(&error) => {
            TOLD.call_once(|| {
                complain(format_args!(
                    "`{}` may not be looked at: how long cores were is not noted there, by which a \
                     restored one is recognised; XDG_STATE_HOME can name another place",
                    state.display()
                ));
            });
            false
        }
        _ => true,
    }
}

/// Whether a home is closed to this process, or is none, as `/dev/null`.
pub(crate) fn is_closed(error: &io::Error) -> bool {
    let kind = error.kind();
    matches!(
        kind,
        io::ErrorKind::PermissionDenied | io::ErrorKind::NotADirectory
    )
}

/// Whether there is a file of a core in `dir`.
pub(crate) fn has_core(dir: &Path) -> bool {
    files_of_core(dir).next().is_some()
}

/// The files of a core that there are in `dir`.
pub(crate) fn files_of_core(dir: &Path) -> impl Iterator<Item = FileName> {
    let files = FileName::ALL.into_iter();
    files.filter(|file| dir.join(file.as_str()).symlink_metadata().is_ok())
}

/// Fails if nothing may be appended to `core`, and says why.
pub(crate) fn require_writable(core: &Hypercore, dir: &Path) -> Result<()> {
    core.check_writable()
        .map_err(|error| Failure::core(error, dir))
}

/// Opens the core in `dir` as it is. Creates nothing and asks peers for nothing.
pub(crate) async fn open(dir: &Path) -> Result<Hypercore> {
    require_directory(dir)?;
    let core = options()
        .create_if_missing(false)
        .sparse(true)
        .open(dir)
        .await
        .map_err(|error| Failure::core(error, dir))?;
    tell_recovery(&core, dir);
    Ok(core)
}

/// The same, to append to it: where there is none, one may be made.
pub(crate) async fn open_to_append(dir: &Path) -> Result<Hypercore> {
    let is_key = dir.to_str().is_some_and(|name| parse_key(name).is_ok());
    match fs::metadata(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound && !is_key => {
            let (shown, quoted) = (dir.display(), quoted(dir));
            Err(Failure::failed(format!(
                "the directory `{shown}` does not exist; `hypercore create {quoted}` makes a core \
                 there"
            )))
        }
        _ => open(dir).await,
    }
}

/// Says on standard error what was found if the core was not closed, unless that changed nothing.
pub(crate) fn tell_recovery(core: &Hypercore, dir: &Path) {
    let Some(found) = core.recovery() else {
        return;
    };
    if found.recovered > 0 || found.dropped_bytes > 0 || found.damage.is_some() {
        complain(format_args!("`{}`: {found}", dir.display()));
    }
}

/// Makes everything durable and lets go of the files.
pub(crate) async fn close(core: &Hypercore, dir: &Path) -> Result<()> {
    core.close()
        .await
        .map_err(|error| Failure::core(error, dir))
}

pub(crate) async fn create(args: CreateArgs, manners: &Manners) -> Result<()> {
    let CreateArgs { dir, seed, format } = args;
    refuse_file(&dir)?;
    let mut options = options().create_new();
    if let Some(seed) = seed {
        options = options.key_pair(KeyPair::from_seed(&seed));
    }
    let origin = Origin::of(&dir);
    let made = async {
        let core = options.open(&dir).await?;
        core.close().await.map(|()| core)
    };
    let core = made.await.map_err(|error| {
        origin.restore_after(&error);
        Failure::core(error, &dir)
    })?;
    Output::new(&format, manners).result(
        &[
            ("key", core.key().to_string().into()),
            ("discoveryKey", core.discovery_key().to_string().into()),
            ("length", core.length().into()),
            ("byteLength", core.byte_length().into()),
            ("writable", true.into()),
        ],
        format_args!(
            "Created a core in `{}`.\nkey  {}",
            on_one_line(dir.display()),
            core.key()
        ),
    )
}

// ---- appending ------------------------------------------------------------------------------

pub(crate) async fn append(args: AppendArgs, manners: &Manners) -> Result<()> {
    let dir = args.dir.as_path();
    let mut output = Output::new(&args.format, manners);
    let core = open_to_append(dir).await?;
    require_writable(&core, dir)?;
    let before = (core.length(), core.byte_length());
    let (batches, size) = if args.lines {
        (input::lines(), None)
    } else if let Some(path) = &args.file {
        input::file(path, 0, args.block_size)?
    } else {
        let blocks = args.blocks.iter();
        let batch = blocks.map(|block| Bytes::copy_from_slice(block.as_encoded_bytes()));
        (input::once(batch.collect()), None)
    };
    if args.file.is_some() {
        let style = match size {
            Some(_) => "{bar:40} {binary_bytes}/{binary_total_bytes}  {binary_bytes_per_sec}",
            None => "{spinner} {binary_bytes}  {binary_bytes_per_sec}",
        };
        output.draw(size.unwrap_or(0), style);
    }
    let appended = append_all(&core, dir, &batches, &args, &mut output).await;
    let closed = close(&core, dir).await;
    output.done();
    let (length, byte_length) = (core.length(), core.byte_length());
    // What was appended before a failure stays.
    let count = length.saturating_sub(before.0);
    let size = byte_length.saturating_sub(before.1);
    let keeping = |failure: Failure, words: &str| match count {
        0 => failure,
        _ => failure.and(words),
    };
    let (kept, rest) = kept(&args, count, size);
    let so_far = format!("{kept}{rest}");
    let is_whole = appended.and_then(|is_whole| closed.map(|()| is_whole));
    let is_whole = is_whole.map_err(|failure| keeping(failure, &so_far))?;
    let told = output.result(
        &[
            ("length", length.into()),
            ("byteLength", byte_length.into()),
        ],
        format_args!(
            "Appended {}; the core has {} and {} now.",
            blocks(count),
            blocks(length),
            bytes(byte_length)
        ),
    );
    let words = if is_whole { &kept } else { &so_far };
    told.map_err(|failure| keeping(failure, words))?;
    if is_whole || args.lines {
        return Ok(());
    }
    let words = format!("interrupted: {so_far}");
    Err(Failure::new(Exit::Incomplete, words))
}

/// Of an append that was not done: the blocks that are on the disk, and where the rest begins after their
/// `size` bytes. Whoever began anew would append them twice.
fn kept(args: &AppendArgs, count: u64, size: u64) -> (String, String) {
    let dir = args.dir.display();
    let kept = match count {
        0 => {
            let nothing = format!("nothing was appended to `{dir}`");
            return (nothing, "; run it again".into());
        }
        1 => format!("`{dir}` has grown by 1 block, and keeps it"),
        count => format!("`{dir}` has grown by {}, and keeps them", blocks(count)),
    };
    let Some(path) = &args.file else {
        return (kept, String::new());
    };
    if path == Path::new("-") {
        let rest = format!("; the rest begins at byte {size} of standard input");
        return (kept, rest);
    }
    let mut rest = format!("; the rest begins at byte {size} of `{}`", path.display());
    // A pipe or a device does not begin anew.
    if path.is_file() {
        rest += &format!(
            ", and `tail -c +{} {} | hypercore append {} --file -{}` appends it",
            size.saturating_add(1),
            quoted(path),
            quoted(&args.dir),
            match args.block_size {
                DEFAULT_BLOCK_SIZE => String::new(),
                size => format!(" --block-size {size}"),
            }
        );
    }
    (kept, rest)
}

/// Appends until the input ends, or until a signal comes: then returns false.
async fn append_all(
    core: &Hypercore,
    dir: &Path,
    batches: &Batches,
    args: &AppendArgs,
    output: &mut Output,
) -> Result<bool> {
    let signals = Signals::catch().map_err(|error| Failure::failed(error.to_string()))?;
    loop {
        let signal = async {
            signals.stopped().await;
            None
        };
        let Some(batch) = future::or(signal, async { Some(batches.recv().await) }).await else {
            return Ok(false);
        };
        let Ok(batch) = batch else {
            return Ok(true);
        };
        let mut batch = batch?;
        let mut broken = None;
        while args.lines
            && let Ok(more) = batches.try_recv()
        {
            match more {
                Ok(mut more) => batch.append(&mut more),
                Err(failure) => broken = Some(failure),
            }
        }
        let bytes: usize = batch.iter().map(Bytes::len).sum();
        append_batch(core, dir, batch).await?;
        output.bar().inc(bytes as u64);
        if args.progress_json {
            output.always("ack", &[("length", core.length().into())])?;
        }
        if let Some(failure) = broken {
            return Err(failure);
        }
    }
}

/// Appends blocks with one signature. When this returns they are on the disk.
pub(crate) async fn append_batch(core: &Hypercore, dir: &Path, batch: Vec<Bytes>) -> Result<()> {
    core.append_batch(batch)
        .await
        .map(|_| ())
        .map_err(|error| Failure::core(error, dir))
}

pub(crate) async fn info(args: InfoArgs, manners: &Manners) -> Result<()> {
    let core = open(&args.dir).await?;
    let (length, byte_length) = (core.length(), core.byte_length());
    let downloaded = core.downloaded(..);
    let failed = |error| Failure::core(error, &args.dir);
    let disk_usage = core.disk_usage().map_err(failed)?;
    let apparent_size = core.apparent_size().map_err(failed)?;
    let writable = core.is_writable();
    let lock = core.append_lock();
    let shown = match &lock {
        Some(lock) => format!("no, because {}", why(lock)),
        None if writable => "yes".into(),
        None => match core.check_writable() {
            Err(error) if core.is_original() => format!("no: {error}"),
            _ if is_secret_lost(&args.dir) => format!("no: {}", how_to_replace_secret(&args.dir)),
            _ => "no, the secret key is not here".into(),
        },
    };
    Output::new(&args.format, manners).result(
        &[
            ("key", core.key().to_string().into()),
            ("discoveryKey", core.discovery_key().to_string().into()),
            ("length", length.into()),
            ("byteLength", byte_length.into()),
            ("writable", writable.into()),
            ("downloaded", downloaded.into()),
            ("diskUsage", disk_usage.into()),
            ("apparentSize", apparent_size.into()),
            ("lock", lock.map(|lock| lock.to_string()).into()),
        ],
        format_args!(
            "key            {}\ndiscovery key  {}\nlength         {}, {}\nstored here    {}\non the \
             disk    {}, in files of {}\nwritable       {}",
            core.key(),
            core.discovery_key(),
            blocks(length),
            bytes(byte_length),
            blocks(downloaded),
            bytes(disk_usage),
            bytes(apparent_size),
            shown,
        ),
    )
}

pub(crate) async fn seek(args: SeekArgs, manners: &Manners) -> Result<()> {
    let SeekArgs {
        dir,
        offset,
        format,
    } = args;
    let core = open(&dir).await?;
    let mut options = SeekOptions::default();
    options.wait = false;
    let found = core.seek_with(offset, options).await;
    let position = found.map_err(|error| match error {
        Error::OutOfBounds { byte_length, .. } if offset < byte_length => Failure::failed(format!(
            "byte {offset} lies in a part of the core that is not known in `{}`; clone the blocks \
             around it first",
            dir.display()
        )),
        Error::OutOfBounds { byte_length, .. } => Failure::failed(format!(
            "there is no byte {offset}: the core in `{}` has {}",
            dir.display(),
            bytes(byte_length)
        )),
        error => Failure::core(error, &dir),
    })?;
    Output::new(&format, manners).result(
        &[
            ("index", position.index.into()),
            ("offset", position.offset.into()),
        ],
        if offset == core.byte_length() {
            format!(
                "Byte {offset} is the end: the core has {}, {}.",
                blocks(core.length()),
                bytes(offset)
            )
        } else {
            format!(
                "Byte {offset} is byte {} of block {}.",
                position.offset, position.index
            )
        },
    )
}

/// Why the core in `dir`, with so many blocks, does not have all of `range`.
pub(crate) fn outside(range: &Range<u64>, length: u64, dir: &Path) -> Failure {
    let Range { start, end } = range;
    let (dir, all) = (dir.display(), blocks(length));
    Failure::failed(if start > end {
        format!("there are no blocks {start}..{end}: that ends before it begins")
    } else if end.saturating_sub(*start) <= 1 {
        format!("there is no block {start}: the core in `{dir}` has {all}, counted from 0")
    } else {
        format!("blocks {start}..{end} do not lie within the core in `{dir}`, which has {all}")
    })
}

// ---- looking after what is stored -------------------------------------------------------------

pub(crate) async fn clear(args: ClearArgs, manners: &Manners) -> Result<()> {
    let ClearArgs {
        dir,
        start,
        end,
        format,
    } = args;
    let core = open(&dir).await?;
    let before = core.downloaded(..);
    let is_original = core.is_original();
    let end = end.unwrap_or_else(|| start.saturating_add(1));
    let cleared = core.clear(start..end).await;
    let closed = close(&core, &dir).await;
    let downloaded = cleared.map_err(|error| match error {
        Error::BadRange { length, .. } => outside(&(start..end), length, &dir),
        error => Failure::core(error, &dir),
    })?;
    closed?;
    let mut output = Output::new(&format, manners);
    let dropped = before.saturating_sub(downloaded);
    if is_original && dropped > 0 {
        output.remark(format_args!(
            "`{}` is the original: what was dropped is gone, unless a peer has it.",
            dir.display()
        ));
    }
    output.result(
        &[("downloaded", downloaded.into())],
        format_args!(
            "Dropped {}; {} of {} are stored now.",
            blocks(dropped),
            downloaded,
            blocks(core.length())
        ),
    )
}

pub(crate) async fn audit(args: AuditArgs, manners: &Manners) -> Result<()> {
    let dir = args.dir.as_path();
    let core = open(dir).await?;
    let audit = core
        .audit()
        .await
        .map_err(|error| Failure::core(error, dir))?;
    let invalid = audit.invalid.len() as u64;
    let mut output = Output::new(&args.format, manners);
    let fields = [("valid", audit.valid.into()), ("invalid", invalid.into())];
    if invalid == 0 {
        return output.result(
            &fields,
            format_args!("{} checked, no damage.", blocks(audit.valid)),
        );
    }
    output.result(
        &fields,
        format_args!("{} good, {invalid} damaged.", blocks(audit.valid)),
    )?;
    let first = audit.invalid.iter().take(10).map(ToString::to_string);
    let first = first.collect::<Vec<_>>().join(", ");
    let words = match invalid {
        1 => format!("block {first} does not match its hash"),
        2..=10 => format!("blocks {first} do not match their hashes"),
        _ => format!("blocks {first}, and more do not match their hashes"),
    };
    Err(Failure::new(
        Exit::Damaged,
        format!(
            "the core in `{}` is damaged: {words}; `hypercore repair {}` drops such blocks, and with --connect ADDR:PORT fetches them again",
            dir.display(),
            quoted(dir)
        ),
    ))
}
