//! `hypercore share`: a file, a folder or a growing log becomes a core, and one line says how to get it.

mod archive;
mod intake;
mod note;
mod state;

use std::{
    env,
    fs::{self, File},
    io::{self, Read, Seek, SeekFrom},
    net::SocketAddr,
    path::{Path, PathBuf},
};

use clap::Args;
use futures_lite::future;
use hypercore::{GetOptions, Hypercore};

use crate::{
    args::{Format, Identity, Manners, parse_address},
    commands::{close, has_core, options, require_writable, tell_recovery},
    errors::{Exit, Failure, Result, quoted, reason},
    identity,
    link::{Facts, Kind, Link},
    net::{self, Listener},
    output::{Output, bytes, on_one_line},
    serve::{Door, Service, listen_on, reachable, where_to},
    share::{archive::Archive, note::Note},
    signals::Signals,
};

/// Bytes of a block.
const BLOCK_SIZE: u64 = 65_536;

/// Connections at one time.
const MAX_PEERS: u32 = 1024;

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  hypercore share holiday.mp4\n  hypercore share photos\n  \
    hypercore share app.log --follow\n  journalctl -f | hypercore share - --follow\n\n\
    Whoever has the line that is printed can read what is shared, and so can whoever they give it \
    to. Run it\nagain to go on sharing under the same key; a file that has grown is appended to. \
    With --follow, a log that\nis rotated or cut off goes on with the new file. A core that is in \
    a folder goes without its secret key.\nThe line of a file or folder has, too, of how many blocks \
    it is (n=), so that nobody takes an older copy for\nall of it; that of a file when it was written \
    to (t=) and whether it is a program (x)."
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
    /// Where to listen [default: everywhere, on the port of the first time without this if that is free]
    #[arg(long, value_name = "ADDR:PORT", value_parser = parse_address)]
    listen: Option<String>,
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
    let (listener, address) = source.listen(args.listen.as_deref(), &output).await?;
    let mut opened = None;
    let ready = {
        let stopped = async {
            signals.stopped().await;
            let words = "interrupted before all was read; run it again to go on";
            Err(Failure::new(Exit::Incomplete, words))
        };
        future::or(stopped, source.ready(&mut opened, &mut output)).await
    };
    output.done();
    let ready = ready.and_then(|(mut note, file)| {
        note.complete = true;
        if args.listen.is_none() && note.port == 0 {
            note.port = address.port();
        }
        note.write(&source.dir)?;
        Ok((note, file))
    });
    let (core, note, file) = match (opened, ready) {
        (Some(core), Ok((note, file))) => (core, note, file),
        (opened, ready) => {
            if let Some(core) = opened {
                close(&core, &source.dir).await?;
            }
            return ready.map(|_| ());
        }
    };

    let announcement = net::announce(&core, address);
    if let Err(failure) = &announcement {
        output.remark(failure);
    }
    let reached_at = reachable(address);
    let link = Link {
        key: core.key(),
        address: reached_at.map(|address| address.to_string()),
        name: source.name.clone(),
        kind: source.kind,
        facts: source.facts(&core),
    };
    let is_alone = address.ip().is_loopback();
    let without = match reached_at {
        Some(reached_at) if !is_alone => {
            format!(" On the same network `@{reached_at}` may be left out.")
        }
        _ => String::new(),
    };
    let so_far = if source.kind == Kind::Log {
        " so far"
    } else {
        ""
    };
    output.result(
        &[
            ("event", "sharing".into()),
            ("line", link.to_string().into()),
            ("key", core.key().to_string().into()),
            ("address", reached_at.unwrap_or(address).to_string().into()),
            ("core", source.dir.display().to_string().into()),
            ("length", core.length().into()),
            ("byteLength", core.byte_length().into()),
        ],
        format_args!(
            "Sharing `{}`: {}{so_far}. {}:\n\n  hypercore receive '{link}'\n\nWhat is \
             shared is copied to `{}`.{without} Stop with Ctrl-C.",
            on_one_line(&source.name),
            bytes(core.byte_length()),
            where_to(address),
            on_one_line(source.dir.display()),
        ),
    )?;
    if is_alone && !args.format.json {
        output.remark("For other machines: without --listen, or with --listen 0.0.0.0:PORT");
    }
    let service = Service {
        core: core.clone(),
        dir: source.dir.clone(),
        listener,
        page: None,
        door: Door::new(MAX_PEERS, 0, []),
        identity,
        signals,
    };
    let follow = source.follow(&core, note, file, manners.quiet);
    service.run(follow, &mut output).await
}

/// What is shared, and where its core is.
struct Source {
    path: PathBuf,
    name: String,
    kind: Kind,
    dir: PathBuf,
    /// It can be read once only: standard input, a pipe or a device.
    is_stream: bool,
}

impl Source {
    fn of(args: &ShareArgs) -> Result<Self> {
        let is_stdin = args.source == Path::new("-");
        let (shown, quoted) = (args.source.display(), quoted(&args.source));
        let (path, is_folder, is_stream) = if is_stdin {
            (args.source.clone(), false, true)
        } else {
            let found = fs::metadata(&args.source);
            let found = found.map_err(|error| unreadable(&args.source, &error))?;
            // What has no name, as a pipe of the shell, is only known by the one that was given.
            let path = fs::canonicalize(&args.source).unwrap_or_else(|_| args.source.clone());
            (path, found.is_dir(), !found.is_dir() && !found.is_file())
        };
        if is_folder && note::is_core(&path) {
            return Err(Failure::failed(format!(
                "`{shown}` is a core: `hypercore serve {quoted}` lets others clone it"
            )));
        }
        let kind = match (is_folder, args.follow) {
            (true, true) => {
                return Err(Failure::new(
                    Exit::Usage,
                    format!("`{shown}` is a folder; --follow takes a file or `-`"),
                ));
            }
            (true, false) => Kind::Folder,
            (false, true) => Kind::Log,
            (false, false) => Kind::File,
        };
        let name = match path.file_name() {
            _ if is_stdin => "stdin".to_owned(),
            Some(name) => Link::make_safe(&name.to_string_lossy()),
            None => "root".to_owned(),
        };
        let dir = match &args.core {
            Some(dir) => dir.clone(),
            None => default_core(&name, &path),
        };
        if kind == Kind::Folder && real(&dir).starts_with(&path) {
            return Err(Failure::failed(format!(
                "the core `{}` would lie in the folder that it archives; choose a directory \
                 outside with --core DIR",
                dir.display()
            )));
        }
        Ok(Self {
            path,
            name,
            kind,
            dir,
            is_stream,
        })
    }

    /// What those who receive it are to know beside its bytes.
    fn facts(&self, core: &Hypercore) -> Facts {
        let mut facts = match fs::metadata(&self.path) {
            Ok(metadata) if self.kind == Kind::File && !self.is_stream => state::facts(&metadata),
            _ => Facts::default(),
        };
        facts.blocks = (self.kind != Kind::Log).then(|| core.length());
        facts
    }

    /// Listens where the command line says, or where others have called the last time.
    async fn listen(
        &self,
        wanted: Option<&str>,
        output: &Output,
    ) -> Result<(Listener, SocketAddr)> {
        if let Some(wanted) = wanted {
            return listen_on(wanted).await;
        }
        let before = Note::read(&self.dir)?.map_or(0, |note| note.port);
        match listen_on(&format!("0.0.0.0:{before}")).await {
            Err(_) if before != 0 => {
                let listening = listen_on("0.0.0.0:0").await?;
                output.remark(format_args!(
                    "Port {before} of the last time is in use: lines printed before work on this \
                     network only, and this one once it is stopped"
                ));
                Ok(listening)
            }
            listening => listening,
        }
    }

    // ---- what is there --------------------------------------------------------------------------

    /// The core with everything that is to be read before others may know of it, and the file that it
    /// was read from. Whatever becomes of this, `opened` is to be closed.
    async fn ready(
        &self,
        opened: &mut Option<Hypercore>,
        output: &mut Output,
    ) -> Result<(Note, Option<File>)> {
        // Once for all: another one may have its name at any time.
        let file = self.file()?;
        let (mut core, mut note) = self.open(opened).await?;
        if core.length() > 0
            && !self
                .goes_on(&core, &mut note, file.as_ref(), output)
                .await?
        {
            // Nobody knows it: its line was never printed.
            note.key = None;
            note.write(&self.dir)?;
            let destroyed = core.destroy().await;
            destroyed.map_err(|error| Failure::core(error, &self.dir))?;
            *opened = None;
            (core, note) = self.open(opened).await?;
        }
        let file = self.take_in(&core, &mut note, file, output).await?;
        Ok((note, file))
    }

    /// The file, if what is shared is one.
    fn file(&self) -> Result<Option<File>> {
        if self.is_stream || self.kind == Kind::Folder {
            return Ok(None);
        }
        let file = File::open(&self.path).and_then(|file| {
            let is_endless = self.kind == Kind::Log && has_more(&file)?;
            Ok((file, is_endless))
        });
        let (file, is_endless) = file.map_err(|error| unreadable(&self.path, &error))?;
        if is_endless {
            return Err(Failure::failed(format!(
                "`{}` cannot be followed: it does not tell how long it is; without --follow, what \
                 is in it now is shared",
                self.path.display()
            )));
        }
        Ok(Some(file))
    }

    /// The core of an earlier run of this, or a new one.
    async fn open(&self, opened: &mut Option<Hypercore>) -> Result<(Hypercore, Note)> {
        let fresh = self.note();
        match Note::read(&self.dir)? {
            Some(note) => {
                self.check(&note)?;
                if note.key.is_some() && !has_core(&self.dir) {
                    return Err(Failure::failed(format!(
                        "`{0}` held what was shared before, and its core is gone: remove `{0}` to \
                         share it under a new line, or put the core back from a backup",
                        self.dir.display()
                    )));
                }
            }
            None if has_core(&self.dir) => {
                return Err(self.refusal("a core that `hypercore share` did not make"));
            }
            None => fresh.write(&self.dir)?,
        }
        if let Err(error) = note::make_private(&self.dir) {
            tracing::warn!(%error, "others may look into `{}`", self.dir.display());
        }
        let core = options().open(&self.dir).await;
        let core = core.map_err(|error| Failure::core(error, &self.dir))?;
        *opened = Some(core.clone());
        tell_recovery(&core, &self.dir);
        // Again, because nobody else is at it now.
        let mut note = Note::read(&self.dir)?.unwrap_or(fresh);
        self.check(&note)?;
        let key = core.key().to_string();
        if note.key.is_none() && core.length() == 0 {
            note.key = Some(key.clone());
            note.write(&self.dir)?;
        }
        if note.key != Some(key) {
            return Err(self.refusal("a core that `hypercore share` did not make"));
        }
        require_writable(&core, &self.dir)?;
        Ok((core, note))
    }

    /// What is to be remembered of this.
    fn note(&self) -> Note {
        Note {
            key: None,
            source: self
                .path
                .to_str()
                .map_or_else(|| escaped(&self.path), str::to_owned),
            escaped: self.path.to_str().is_none(),
            folder: self.kind == Kind::Folder,
            complete: false,
            state: None,
            start: 0,
            port: 0,
        }
    }

    /// Fails if `note` is that of something else.
    fn check(&self, note: &Note) -> Result<()> {
        let ours = self.note();
        let what = |note: &Note| (note.source.clone(), note.escaped, note.folder);
        if what(note) == what(&ours) {
            return Ok(());
        }
        let what = match note.source.as_str() {
            "-" => "standard input".to_owned(),
            path => format!("`{path}`"),
        };
        Err(self.refusal(&format!("what was shared from {what}")))
    }

    /// How much of the file is in the core.
    fn there(&self, core: &Hypercore, note: &Note) -> Result<u64> {
        let there = core.byte_length().checked_sub(note.start);
        there.ok_or_else(|| {
            Failure::failed(format!(
                "`{}` is not the note of the core that is there: it speaks of byte {}, and there are \
                 {}; choose another directory with --core DIR",
                note::place(&self.dir).display(),
                note.start,
                bytes(core.byte_length())
            ))
        })
    }

    fn refusal(&self, what: &str) -> Failure {
        let dir = self.dir.display();
        Failure::failed(format!(
            "`{dir}` holds {what}; choose another directory with --core DIR"
        ))
    }

    /// Whether what was read before is the beginning of what is there now. If it is not, and others
    /// may know of it, this fails, or goes on with the new file where that is a log.
    async fn goes_on(
        &self,
        core: &Hypercore,
        note: &mut Note,
        file: Option<&File>,
        output: &Output,
    ) -> Result<bool> {
        let dir = self.dir.display();
        let is_log = self.kind == Kind::Log;
        if self.kind == Kind::Folder {
            if !note.complete {
                return Ok(false);
            }
            let path = self.path.clone();
            let now = blocking::unblock(move || state::of_folder(&path)).await?;
            if note.state != Some(now) {
                // Something may only look otherwise, as after a restart of the machine.
                let Some(state) = self.same_archive(core).await? else {
                    return Err(self.changed("anything in it was changed"));
                };
                note.state = Some(state);
            }
            output.remark(format_args!("Sharing the archive in `{dir}` again."));
            return Ok(true);
        }
        let Some(file) = file else {
            if note.complete && !is_log {
                return Err(Failure::failed(format!(
                    "`{dir}` holds what was shared before; choose another directory with --core \
                     DIR, or append to it with --follow"
                )));
            }
            return Ok(is_log);
        };
        let metadata = file.metadata();
        let metadata = metadata.map_err(|error| unreadable(&self.path, &error))?;
        let before = self.there(core, note)?;
        // A file that was rotated is not all of what is shared.
        let may_begin = is_log || note.start == 0;
        let is_same = metadata.len() == before && note.state == Some(state::of_file(&metadata));
        if may_begin && (is_same || self.begins_with(file, core, note.start).await?) {
            if metadata.len() > before {
                output.remark(format_args!("Going on after {} in `{dir}`.", bytes(before)));
            }
            return Ok(true);
        }
        if !note.complete {
            return Ok(false);
        }
        if !is_log {
            return Err(self.changed("it was changed other than by appending"));
        }
        output.remark(self.begins_anew());
        note.start = core.byte_length();
        note.write(&self.dir)?;
        Ok(true)
    }

    fn changed(&self, how: &str) -> Failure {
        Failure::failed(format!(
            "`{}` is not what was shared from `{}` before: {how}; share it under a new line with \
             --core DIR, another directory",
            self.path.display(),
            self.dir.display()
        ))
    }

    fn begins_anew(&self) -> String {
        let path = self.path.display();
        format!("`{path}` was replaced or cut off: going on with it from its start.")
    }

    /// How the folder looks, if its archive is still what the core has.
    async fn same_archive(&self, core: &Hypercore) -> Result<Option<String>> {
        let archive = Archive::of(self.path.clone());
        let mut blocks = 0..core.length();
        while let Ok(batch) = archive.batches.recv().await {
            for now in batch? {
                let Some(index) = blocks.next() else {
                    return Ok(None);
                };
                let block = core.get_with(index, GetOptions::local()).await;
                if block.map_err(|error| Failure::core(error, &self.dir))? != now {
                    return Ok(None);
                }
            }
            future::yield_now().await;
        }
        Ok(archive.state.try_recv().ok().filter(|_| blocks.is_empty()))
    }

    /// Whether `file` begins with all that the core has from byte `start` on.
    async fn begins_with(&self, mut file: &File, core: &Hypercore, start: u64) -> Result<bool> {
        if start == core.byte_length() {
            return Ok(true);
        }
        let failed = |error| Failure::core(error, &self.dir);
        let began = file.seek(SeekFrom::Start(0));
        began.map_err(|error| unreadable(&self.path, &error))?;
        let first = core.seek(start).await.map_err(failed)?.index;
        let mut there = Vec::new();
        for index in first..core.length() {
            let block = core.get_with(index, GetOptions::local()).await;
            let block = block.map_err(failed)?;
            there.resize(block.len(), 0);
            match file.read_exact(&mut there) {
                Ok(()) if there == block => {}
                Err(error) if error.kind() != io::ErrorKind::UnexpectedEof => {
                    return Err(unreadable(&self.path, &error));
                }
                _ => return Ok(false),
            }
            // Signals are to be seen in the middle of a large file.
            future::yield_now().await;
        }
        Ok(true)
    }
}

/// `NAME.hypercore` in the working directory, or beside `path` if that is a folder we are in.
fn default_core(name: &str, path: &Path) -> PathBuf {
    let dir = PathBuf::from(format!("{name}.hypercore"));
    match (env::current_dir(), path.parent()) {
        (Ok(here), Some(parent)) if here.starts_with(path) => parent.join(dir),
        _ => dir,
    }
}

/// `dir` without links and dots, as far as it exists.
fn real(dir: &Path) -> PathBuf {
    let whole = env::current_dir().map_or_else(|_| dir.to_owned(), |here| here.join(dir));
    let known = whole.ancestors().find_map(|part| {
        let known = fs::canonicalize(part).ok()?;
        Some(known.join(whole.strip_prefix(part).ok()?))
    });
    known.unwrap_or(whole)
}

/// A path that is no text, and no other one: two of them can look the same.
fn escaped(path: &Path) -> String {
    let mut text = String::new();
    for &byte in path.as_os_str().as_encoded_bytes() {
        if byte.is_ascii_graphic() && byte != b'%' {
            text.push(char::from(byte));
        } else {
            text += &format!("%{byte:02X}");
        }
    }
    text
}

/// Whether there is more in `file` than it tells, as in those of `/proc`.
fn has_more(mut file: &File) -> io::Result<bool> {
    let len = file.metadata()?.len();
    file.seek(SeekFrom::Start(len))?;
    // It may have grown meanwhile.
    Ok(file.read(&mut [0])? > 0 && file.metadata()?.len() <= len)
}

fn unreadable(path: &Path, error: &io::Error) -> Failure {
    let shown = path.display();
    Failure::failed(format!("`{shown}` cannot be read: {}", reason(error)))
}
