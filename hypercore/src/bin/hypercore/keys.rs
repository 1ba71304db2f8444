//! `hypercore keys`: the key pair of a core, to a file and back.
//!
//! A secret never passes through arguments, which every process of the machine can read, nor
//! through a terminal. A file is made for its owner alone.

use std::{
    fmt::Write as _,
    fs::{self, File, OpenOptions},
    io::{self, IsTerminal, Read, Write},
    path::{Path, PathBuf},
    sync::Arc,
};

use clap::{Args, Subcommand};
use data_encoding::HEXLOWER_PERMISSIVE;
use hypercore::{
    AppendLock, Error, KeyPair,
    merkle::MAX_LENGTH,
    storage::{self, Directory, FeedFiles},
};
use zeroize::Zeroizing;

use crate::{
    args::{Format, Manners},
    commands::{close, open, options},
    errors::{Exit, Failure, NO_REMEDY, Result, is_secret_lost, quoted, reason, why},
    output::{Output, blocks, on_one_line},
};

/// No file of keys is larger.
const MAX_FILE: u64 = 4096;

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  hypercore keys export letters letters.key\n  \
    hypercore keys export letters - | age --encrypt --passphrase > letters.key.age\n  \
    hypercore keys import letters.key restored"
)]
pub(crate) struct KeysArgs {
    #[command(subcommand)]
    command: KeysCommand,
}

#[derive(Debug, Subcommand)]
enum KeysCommand {
    /// Write the key pair of a core to a new file, readable by its owner only
    Export(ExportArgs),
    /// Give a directory the key pair of such a file, to append where the original is lost
    Import(ImportArgs),
}

#[derive(Debug, Args)]
#[command(after_help = "Example: hypercore keys export letters letters.key")]
struct ExportArgs {
    /// Directory of the core
    dir: PathBuf,
    /// File to make; `-` is standard output, if that is no terminal
    file: PathBuf,
    #[command(flatten)]
    format: Format,
}

#[derive(Debug, Args)]
#[command(after_help = "Example: hypercore keys import letters.key restored\n\n\
    Whoever appends without the last block that was signed breaks the log for good. So nothing can \
    be appended\nafter an import until `hypercore resume DIR --from ADDR:PORT` has fetched what \
    peers have.")]
struct ImportArgs {
    /// File that `keys export` made; `-` is standard input
    file: PathBuf,
    /// Directory of a clone of the core, or a new one
    dir: PathBuf,
    /// Let appends go on at once: DIR has every block that was ever signed
    #[arg(long)]
    accept_fork_risk: bool,
    #[command(flatten)]
    format: Format,
}

pub(crate) async fn keys(args: KeysArgs, manners: &Manners) -> Result<()> {
    match args.command {
        KeysCommand::Export(args) => export(&args, manners).await,
        KeysCommand::Import(args) => import(&args, manners).await,
    }
}

/// What a file of keys holds.
struct Exported {
    pair: KeyPair,
    /// How long the log was.
    length: u64,
}

async fn export(args: &ExportArgs, manners: &Manners) -> Result<()> {
    let dir = args.dir.as_path();
    let core = open(dir).await?;
    let (key, length) = (core.key(), core.length());
    let (is_original, lock) = (core.is_original(), core.append_lock());
    close(&core, dir).await?;
    if let Some(lock) = lock {
        // The length that is exported with it would be too small.
        let exit = match lock {
            AppendLock::Forked { .. } | AppendLock::Other { .. } => Exit::Forked,
            _ => Exit::Failed,
        };
        return Err(Failure::new(
            exit,
            format!(
                "the key pair in `{}` is not exported, because {}; {}",
                dir.display(),
                why(&lock),
                match lock {
                    AppendLock::Forked { .. } => NO_REMEDY.into(),
                    _ => format!(
                        "`hypercore resume {} --from ADDR:PORT` fetches what is missing from a peer",
                        quoted(dir)
                    ),
                }
            ),
        ));
    }
    // That of a damaged one is worth the more.
    if !is_original && is_secret_lost(dir) {
        return Err(Failure::core(Error::NotWritable, dir));
    }
    if !is_original {
        return Err(Failure::failed(format!(
            "the core in `{}` is read-only: its secret key is not there; export it where the core \
             was made",
            dir.display()
        )));
    }
    let (pair, signed) = stored_pair(dir)?;
    // Of a damaged one not all is claimed that was signed.
    let length = length.max(signed);
    let exported = Exported { pair, length };
    let text = exported.to_text();
    if args.file == Path::new("-") {
        if io::stdout().is_terminal() {
            return Err(Failure::failed(
                "a secret key is not shown on a terminal; name a file, or pipe it to a program \
                 that encrypts it",
            ));
        }
        if args.format.json {
            return Output::new(&args.format, manners).result(
                &[
                    ("key", key.to_string().into()),
                    ("length", length.into()),
                    ("text", text.as_str().into()),
                ],
                "",
            );
        }
        let written = io::stdout().write_all(text.as_bytes());
        return written.map_err(|error| Failure::output(&error));
    }
    let shown = args.file.display();
    write_secret(&args.file, text.as_bytes()).map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => {
            Failure::failed(format!("`{shown}` exists already; choose another file"))
        }
        _ => Failure::failed(format!("`{shown}` cannot be written: {}", reason(&error))),
    })?;
    let mut output = Output::new(&args.format, manners);
    output.result(
        &[
            ("key", key.to_string().into()),
            ("file", shown.to_string().into()),
            ("length", length.into()),
        ],
        format_args!("Wrote the key pair of {key} to `{}`.", on_one_line(shown)),
    )?;
    output.remark("Whoever reads that file can append to the log. Keep it where nobody else does.");
    Ok(())
}

fn stored_pair(dir: &Path) -> Result<(KeyPair, u64)> {
    let failed = |error: storage::Error| Failure::core(error.into(), dir);
    let files = FeedFiles::open(Arc::new(Directory::new(dir))).map_err(failed)?;
    let secret = files.secret_key().map_err(failed)?;
    let secret = secret.ok_or_else(|| Failure::core(Error::NotWritable, dir))?;
    let pair = KeyPair::from_bytes(&secret).map_err(|error| Failure::core(error.into(), dir))?;
    let last = files.previous_signature(MAX_LENGTH).map_err(failed)?;
    Ok((pair, last.map_or(0, |(block, _)| block.saturating_add(1))))
}

/// Makes `path`, which must not exist, for its owner alone.
fn write_secret(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path)?;
    let written = file.write_all(bytes).and_then(|()| file.sync_all());
    if written.is_err() {
        // Half a key is of no use to anybody.
        let _ = fs::remove_file(path);
    }
    written
}

async fn import(args: &ImportArgs, manners: &Manners) -> Result<()> {
    let dir = args.dir.as_path();
    let Exported { pair, length } = read_secret(&args.file)?;
    let key = pair.public_key();
    check_target(dir, &pair).await?;
    let failed = |error| Failure::core(error, dir);
    let mut options = options().key_pair(pair);
    if !args.accept_fork_risk {
        options = options.signed_elsewhere(length);
    }
    let core = options.open(dir).await.map_err(failed)?;
    if args.accept_fork_risk && matches!(core.append_lock(), Some(AppendLock::Copied)) {
        // Where the secret key was lost, the new file looks like that of a copy.
        core.accept_fork_risk().await.map_err(failed)?;
    }
    close(&core, dir).await?;
    let (here, shown) = (core.length(), dir.display());
    let mut output = Output::new(&args.format, manners);
    output.result(
        &[
            ("key", key.to_string().into()),
            ("length", here.into()),
            ("exportedLength", length.into()),
            ("locked", (!args.accept_fork_risk).into()),
        ],
        format_args!(
            "The key pair of {key} is in `{}`, with {}.",
            on_one_line(&shown),
            blocks(here)
        ),
    )?;
    if args.accept_fork_risk {
        output.remark(
            "WARNING: append here only. If blocks were signed elsewhere that are not here, the next \
             append makes two histories that cannot be joined.",
        );
    } else {
        output.remark(format_args!(
            "Nothing can be appended until it is certain that no block is missing ({} had been \
             signed when the keys were exported): `hypercore resume {} --from ADDR:PORT` fetches them \
             from a peer.",
            blocks(length),
            quoted(dir)
        ));
    }
    Ok(())
}

/// Fails if the key pair is in `dir` already, or if that holds another core.
async fn check_target(dir: &Path, pair: &KeyPair) -> Result<()> {
    let core = options().key(pair.public_key()).create_if_missing(false);
    let core = match core.open(dir).await {
        Err(Error::NoCore) => return Ok(()),
        core => core.map_err(|error| Failure::core(error, dir))?,
    };
    // Of a closed one nobody tells.
    let has_pair = core.is_original();
    close(&core, dir).await?;
    if has_pair {
        let dir = dir.display();
        let words = format!("the core in `{dir}` has its key pair already");
        return Err(Failure::failed(words));
    }
    Ok(())
}

fn read_secret(path: &Path) -> Result<Exported> {
    let shown = path.display();
    let mut text = Zeroizing::new(String::new());
    let read = if path == Path::new("-") {
        io::stdin().take(MAX_FILE).read_to_string(&mut text)
    } else {
        File::open(path).and_then(|file| file.take(MAX_FILE).read_to_string(&mut text))
    };
    match read {
        Err(error) if error.kind() != io::ErrorKind::InvalidData => Err(Failure::failed(format!(
            "`{shown}` cannot be read: {}",
            reason(&error)
        ))),
        _ => Exported::from_text(&text).ok_or_else(|| {
            Failure::failed(format!(
                "`{shown}` is not a file that `hypercore keys export` made, or not the whole of it"
            ))
        }),
    }
}

impl Exported {
    fn to_text(&self) -> Zeroizing<String> {
        // At once as large as it gets, so that no copy of the secret stays behind.
        let mut text = Zeroizing::new(String::with_capacity(512));
        let secret = self.pair.to_bytes();
        text.push_str("# The key pair of a hypercore: whoever reads this can append to the log.\n");
        let (key, length) = (self.pair.public_key(), self.length);
        // Writing to a string does not fail.
        let _ = write!(text, "key {key}\nlength {length}\nsecret_key ");
        for byte in secret.iter() {
            let _ = write!(text, "{byte:02x}");
        }
        text.push('\n');
        text
    }

    fn from_text(text: &str) -> Option<Self> {
        let value = |name: &str| {
            let mut lines = text.lines().filter_map(|line| line.split_once(' '));
            lines
                .find(|(found, _)| *found == name)
                .map(|(_, value)| value.trim())
        };
        let secret = HEXLOWER_PERMISSIVE.decode(value("secret_key")?.as_bytes());
        let secret = Zeroizing::new(secret.ok()?);
        let secret = secret.as_slice().try_into().ok()?;
        let pair = KeyPair::from_bytes(secret).ok()?;
        let is_same = value("key")? == pair.public_key().to_string();
        let length = value("length")?.parse().ok()?;
        is_same.then_some(Self { pair, length })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_keys_is_read_as_it_was_written() {
        let pair = KeyPair::from_seed(&[7; 32]);
        let text = Exported { pair, length: 3 }.to_text();
        let read = Exported::from_text(&text).unwrap();
        assert_eq!(
            read.pair.public_key(),
            KeyPair::from_seed(&[7; 32]).public_key()
        );
        assert_eq!(read.length, 3);
        assert!(text.len() <= 512);
        for end in 0..text.trim_end().len() {
            assert!(Exported::from_text(&text[..end]).is_none(), "cut at {end}");
        }
        let other = text.replace("key ", "key 0");
        assert!(Exported::from_text(&other).is_none());
    }
}
