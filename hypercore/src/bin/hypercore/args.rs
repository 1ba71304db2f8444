//! What can be said on the command line.

use std::{
    env, ffi::OsString, io, ops::Range, path::PathBuf, process, sync::LazyLock, time::Duration,
};

use clap::{
    ArgAction, ArgGroup, Args, CommandFactory, Parser, Subcommand,
    error::{ContextKind, ContextValue, ErrorKind},
};
use data_encoding::{Encoding, HEXLOWER_PERMISSIVE, Specification};
use hypercore::{PublicKey, merkle::MAX_BLOCK_SIZE};

use crate::{
    doctor::DoctorArgs,
    errors::Failure,
    keys::KeysArgs,
    log::LogArgs,
    manual::{CompletionsArgs, ManArgs},
    output::finish_remarks,
    receive::ReceiveArgs,
    share::ShareArgs,
    status::{PeersArgs, StatsArgs},
};

/// Makes, reads, checks, serves and clones append-only logs that peers can verify.
#[derive(Debug, Parser)]
#[command(
    name = "hypercore",
    version,
    propagate_version = true,
    max_term_width = 100
)]
#[command(after_help = "Examples:\n  hypercore share holiday.mp4\n  \
    hypercore receive 'hyper://KEY@192.168.1.5:4000/holiday.mp4'\n  \
    hypercore clone KEY copy --live\n\n\
    Exit codes: 0 done, 1 failure, 2 usage, 3 damage found, 4 fork found, \
    5 locked by another process, 6 ended incomplete.")]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) manners: Manners,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What was said on the command line. Ends the process if that is not to be understood, or if help is all
/// that was asked for.
pub(crate) fn parse() -> Cli {
    Cli::try_parse().unwrap_or_else(|error| {
        let error = without_more(error);
        let shown = error.print();
        if let Err(unread) = shown
            && !error.use_stderr()
            && unread.kind() != io::ErrorKind::BrokenPipe
        {
            let failure = Failure::output(&unread);
            finish_remarks(Some(&failure));
            process::exit(failure.code());
        }
        process::exit(error.exit_code())
    })
}

/// `error`, unless it is about what comes after an option: then one that names that, or if nobody gave it,
/// says that there is a word too many.
fn without_more(mut error: clap::Error) -> clap::Error {
    let is_more = matches!(
        error.get(ContextKind::InvalidArg),
        Some(ContextValue::String(name)) if name == "[MORE]..."
    );
    if !is_more {
        return error;
    }
    let options = [
        ("--connect", "--connect <ADDR:PORT>..."),
        ("--from", "--from <ADDR:PORT>..."),
        ("--allow", "--allow <KEY>..."),
    ];
    let given = env::args_os().find_map(|word| {
        let word = word.to_string_lossy();
        let mut options = options.iter();
        options.find(|(option, _)| word.starts_with(option))
    });
    if let Some((_, shown)) = given {
        let shown = ContextValue::String((*shown).to_owned());
        error.insert(ContextKind::InvalidArg, shown);
        return error;
    }
    match error.get(ContextKind::InvalidValue) {
        Some(word) => {
            let command = Cli::command();
            let mut other = clap::Error::new(ErrorKind::UnknownArgument).with_cmd(&command);
            other.insert(ContextKind::InvalidArg, word.clone());
            other
        }
        None => error,
    }
}

/// How much is said on standard error.
#[derive(Debug, Args)]
pub(crate) struct Manners {
    /// Say nothing on standard error but errors
    #[arg(long, short, global = true, help_heading = "Standard error")]
    pub(crate) quiet: bool,
    /// Log what happens; twice for details
    #[arg(long, short, global = true, action = ArgAction::Count, help_heading = "Standard error")]
    pub(crate) verbose: u8,
    /// Draw no progress bar
    #[arg(long, global = true, help_heading = "Standard error")]
    pub(crate) no_progress: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Share a file, a folder or a growing log, and print the line to receive it with
    #[command(visible_alias = "send")]
    Share(ShareArgs),
    /// Receive what is shared, with the line that `share` printed
    Receive(ReceiveArgs),
    /// Make a core to append to
    Create(CreateArgs),
    /// Append blocks: arguments, a file in pieces, or lines
    Append(AppendArgs),
    /// Write the bytes of one block to standard output
    Get(GetArgs),
    /// Write the bytes of all blocks, or of some, to standard output
    Cat(CatArgs),
    /// Tell what is stored
    Info(InfoArgs),
    /// List the blocks: index, hash, size, and whether they are held
    Log(LogArgs),
    /// Find the block that holds a byte
    Seek(SeekArgs),
    /// Drop blocks to free space; a clone can download them again
    Clear(ClearArgs),
    /// Check every stored block against its hash
    Audit(AuditArgs),
    /// Check everything there is of a core: blocks, hashes, signatures, keys and the bitfield
    Verify(VerifyArgs),
    /// Put right what is damaged, and fetch what cannot be from peers
    Repair(RepairArgs),
    /// Append again to a core that was copied or restored
    Resume(ResumeArgs),
    /// Serve a core to any number of peers until interrupted
    Serve(ServeArgs),
    /// Make a copy of a core from its peers, or bring one up to date
    Clone(CloneArgs),
    /// Tell by which key other machines recognise this one, for their `serve --allow`
    Identity(IdentityArgs),
    /// List the peers of a running serve or clone
    Peers(PeersArgs),
    /// Tell what a running serve or clone has stored, sent and received
    Stats(StatsArgs),
    /// Find out why a peer does not give a core
    Doctor(DoctorArgs),
    /// Keep the key pair of a core in a file, or give it back
    Keys(KeysArgs),
    /// Write a completion script for a shell
    Completions(CompletionsArgs),
    /// Write the manual page, or one page a command
    Man(ManArgs),
}

/// Who reads standard output.
#[derive(Debug, Args)]
pub(crate) struct Format {
    /// Write one JSON object a line to standard output
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "Example: hypercore create letters")]
pub(crate) struct CreateArgs {
    /// Directory to make; it may exist, but not with a core in it
    pub(crate) dir: PathBuf,
    /// Derive the key pair from these 32 bytes instead of chance; whoever knows them can append
    #[arg(long, value_name = "HEX64", value_parser = parse_seed)]
    pub(crate) seed: Option<[u8; 32]>,
    #[command(flatten)]
    pub(crate) format: Format,
}

/// How many bytes of a file make a block, unless somebody says so.
pub(crate) const DEFAULT_BLOCK_SIZE: u64 = 65_536;

#[derive(Debug, Args)]
#[command(override_usage = "hypercore append DIR BLOCK...\n       \
    hypercore append DIR --file PATH [--block-size N]\n       \
    hypercore append DIR --lines")]
#[command(
    after_help = "Examples:\n  hypercore append letters 'Dear reader,' hello\n  \
    hypercore append letters --file photo.jpg\n  \
    tail -f app.log | hypercore append letters --lines"
)]
#[command(group(ArgGroup::new("input").required(true).args(["blocks", "file", "lines"])))]
pub(crate) struct AppendArgs {
    /// Directory of the core
    pub(crate) dir: PathBuf,
    /// Blocks, appended together; put `--` before blocks that start with a dash
    #[arg(value_name = "BLOCK")]
    pub(crate) blocks: Vec<OsString>,
    /// Cut this file into blocks; `-` is standard input
    #[arg(long, value_name = "PATH")]
    pub(crate) file: Option<PathBuf>,
    /// How many bytes of the file make a block
    #[arg(long, value_name = "N", conflicts_with_all = ["blocks", "lines"],
        default_value_t = DEFAULT_BLOCK_SIZE,
        value_parser = clap::value_parser!(u64).range(1..=MAX_BLOCK_SIZE))]
    pub(crate) block_size: u64,
    /// Make each line of standard input a block, without its newline
    #[arg(long)]
    pub(crate) lines: bool,
    /// Write `{"event":"ack","length":N}` whenever blocks are on the disk
    #[arg(long)]
    pub(crate) progress_json: bool,
    #[command(flatten)]
    pub(crate) format: Format,
}

#[derive(Debug, Args)]
#[command(after_help = "Example: hypercore get copy 7 --connect 192.168.1.5:4000")]
pub(crate) struct GetArgs {
    /// Directory of a core, or the key of one that is read from its peers alone
    #[arg(value_name = "DIR|KEY")]
    pub(crate) source: PathBuf,
    /// Which block; the first is 0
    #[arg(value_parser = parse_number)]
    pub(crate) index: u64,
    /// Read what is not stored from this peer, and store it; repeat it for more peers [default with
    /// a key: those on the local network that announce it]
    #[arg(long, value_name = "ADDR:PORT", value_parser = parse_address)]
    pub(crate) connect: Vec<String>,
    /// Wait so long for the block, even one that does not exist yet [default: until it is certain
    /// that no connected peer has it]
    #[arg(long, value_name = "SECONDS", value_parser = parse_seconds)]
    pub(crate) timeout: Option<Duration>,
    #[command(flatten)]
    pub(crate) identity: Identity,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  hypercore cat letters --follow\n  \
    hypercore cat KEY --connect 192.168.1.5:4000 --bytes 0..1000")]
pub(crate) struct CatArgs {
    /// Directory of a core, or the key of one that is read from its peers alone
    #[arg(value_name = "DIR|KEY")]
    pub(crate) source: PathBuf,
    /// First block
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = parse_number)]
    pub(crate) start: u64,
    /// One past the last block [default: the length of the core]
    #[arg(long, value_name = "N", value_parser = parse_number)]
    pub(crate) end: Option<u64>,
    /// Only these bytes: A..B without B; A and B may be left out
    #[arg(long, value_name = "A..B", conflicts_with_all = ["start", "end", "follow"],
        value_parser = parse_range)]
    pub(crate) bytes: Option<Range<u64>>,
    /// Write a newline after each block, as for a log of lines
    #[arg(long, conflicts_with = "bytes")]
    pub(crate) lines: bool,
    /// Go on with the blocks that come, until interrupted or until --end
    #[arg(long, short)]
    pub(crate) follow: bool,
    /// Read what is not stored from this peer, and store it; repeat it for more peers [default with
    /// a key: those on the local network that announce it]
    #[arg(long, value_name = "ADDR:PORT", value_parser = parse_address)]
    pub(crate) connect: Vec<String>,
    /// Wait no longer than this for any block [default: until it is certain that no connected peer
    /// has it]
    #[arg(long, value_name = "SECONDS", value_parser = parse_seconds)]
    pub(crate) timeout: Option<Duration>,
    #[command(flatten)]
    pub(crate) identity: Identity,
}

impl CatArgs {
    /// What is written after each block.
    pub(crate) fn end_of_block(&self) -> &'static [u8] {
        if self.lines { b"\n" } else { b"" }
    }
}

#[derive(Debug, Args)]
#[command(after_help = "Example: hypercore info letters --json")]
pub(crate) struct InfoArgs {
    /// Directory of the core
    pub(crate) dir: PathBuf,
    #[command(flatten)]
    pub(crate) format: Format,
}

#[derive(Debug, Args)]
#[command(after_help = "Example: hypercore seek letters 100000")]
pub(crate) struct SeekArgs {
    /// Directory of the core
    pub(crate) dir: PathBuf,
    /// Which byte of all blocks joined; the first is 0
    #[arg(value_parser = parse_number)]
    pub(crate) offset: u64,
    #[command(flatten)]
    pub(crate) format: Format,
}

#[derive(Debug, Args)]
#[command(after_help = "Example: hypercore clear copy 0 1000")]
pub(crate) struct ClearArgs {
    /// Directory of the core
    pub(crate) dir: PathBuf,
    /// First block to drop
    #[arg(value_parser = parse_number)]
    pub(crate) start: u64,
    /// One past the last block to drop [default: START + 1]
    #[arg(value_parser = parse_number)]
    pub(crate) end: Option<u64>,
    #[command(flatten)]
    pub(crate) format: Format,
}

#[derive(Debug, Args)]
#[command(after_help = "Example: hypercore audit letters")]
pub(crate) struct AuditArgs {
    /// Directory of the core
    pub(crate) dir: PathBuf,
    #[command(flatten)]
    pub(crate) format: Format,
}

#[derive(Debug, Args)]
#[command(after_help = "Example: hypercore verify letters")]
pub(crate) struct VerifyArgs {
    /// Directory of the core
    pub(crate) dir: PathBuf,
    #[command(flatten)]
    pub(crate) format: Format,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  hypercore repair letters\n  hypercore repair copy --connect 192.168.1.5:4000"
)]
pub(crate) struct RepairArgs {
    /// Directory of the core
    pub(crate) dir: PathBuf,
    /// Peers to fetch dropped blocks from
    #[arg(long, value_name = "ADDR:PORT", value_parser = parse_address)]
    pub(crate) connect: Vec<String>,
    /// Further addresses after the first. An option that takes several values would swallow DIR when
    /// that comes after it.
    #[arg(hide = true, requires = "connect", value_parser = parse_address)]
    pub(crate) more: Vec<String>,
    #[command(flatten)]
    pub(crate) format: Format,
}

#[derive(Debug, Args)]
#[command(group(ArgGroup::new("way").required(true).args(["from", "accept_fork_risk"])))]
#[command(after_help = "Example: hypercore resume letters --from 192.168.1.5:4000")]
pub(crate) struct ResumeArgs {
    /// Directory of the core
    pub(crate) dir: PathBuf,
    /// Fetch what is missing from this peer first; repeat it for more
    #[arg(long, value_name = "ADDR:PORT", value_parser = parse_address)]
    pub(crate) from: Vec<String>,
    /// Further addresses after the first. An option that takes several values would swallow DIR when
    /// that comes after it.
    #[arg(hide = true, requires = "from", value_parser = parse_address)]
    pub(crate) more: Vec<String>,
    /// Go on from here; if more was signed elsewhere, its readers refuse what is appended now
    #[arg(long)]
    pub(crate) accept_fork_risk: bool,
    #[command(flatten)]
    pub(crate) format: Format,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  hypercore serve letters --announce\n  \
    hypercore serve letters --listen 0.0.0.0:4000 --http 127.0.0.1:8000\n  \
    tail -f app.log | hypercore serve letters --lines")]
pub(crate) struct ServeArgs {
    /// Directory of the core
    pub(crate) dir: PathBuf,
    /// Where to listen; port 0 takes a free one and prints it [default: 127.0.0.1:0, and with
    /// --announce 0.0.0.0:0]
    #[arg(long, value_name = "ADDR:PORT", value_parser = parse_address)]
    pub(crate) listen: Option<String>,
    /// Let others on the local network find it by its key, which is not told
    #[arg(long)]
    pub(crate) announce: bool,
    /// Append each line of standard input meanwhile
    #[arg(long)]
    pub(crate) lines: bool,
    /// Show it live on a page there, with its bytes under /data and figures under /metrics. Whoever
    /// reaches it can read the log
    #[arg(long, value_name = "ADDR:PORT", value_parser = parse_address)]
    pub(crate) http: Option<String>,
    /// Let in only these peers, by what `hypercore identity` tells there; without it anybody who
    /// knows the key of the core
    #[arg(long, value_name = "KEY", value_parser = parse_key)]
    pub(crate) allow: Vec<PublicKey>,
    /// Further keys after that of --allow. An option that takes several values would swallow DIR
    /// when it comes after it.
    #[arg(hide = true, requires = "allow", value_parser = parse_key)]
    pub(crate) more: Vec<PublicKey>,
    /// How many peers may be connected at one time
    #[arg(long, value_name = "N", default_value_t = 1024,
        value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) max_peers: u32,
    #[command(flatten)]
    pub(crate) identity: Identity,
    #[command(flatten)]
    pub(crate) format: Format,
}

/// Who we are to others.
#[derive(Debug, Args)]
pub(crate) struct Identity {
    /// Who this machine is to others: a file made by `hypercore identity` [default: the one made
    /// without a name, else somebody new each time]
    #[arg(long = "identity", value_name = "FILE")]
    pub(crate) path: Option<PathBuf>,
}

#[derive(Debug, Args)]
#[command(after_help = "Example: hypercore identity")]
pub(crate) struct IdentityArgs {
    /// File of the secret key, made if it does not exist [default: hypercore/identity in
    /// $XDG_CONFIG_HOME or ~/.config]
    #[arg(long, value_name = "FILE")]
    pub(crate) identity: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) format: Format,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  hypercore clone KEY copy --connect 192.168.1.5:4000\n  \
    hypercore clone KEY copy --connect 192.168.1.5:4000 --live"
)]
pub(crate) struct CloneArgs {
    /// Key of the core: 64 hex digits, hyper://HEX, or z-base-32
    #[arg(value_parser = parse_key)]
    pub(crate) key: PublicKey,
    /// Directory of the copy, new or from an earlier run
    pub(crate) dir: PathBuf,
    /// Peers to download from, together; one that is lost is called again for 60 seconds, and with
    /// --live for ever [default: those on the local network that announce it]
    #[arg(long, value_name = "ADDR:PORT", value_parser = parse_address)]
    pub(crate) connect: Vec<String>,
    /// Further addresses after that of --connect. An option that takes several values would
    /// swallow KEY and DIR when they come after it.
    #[arg(hide = true, requires = "connect", value_parser = parse_address)]
    pub(crate) more: Vec<String>,
    /// Stay connected when all is here, and follow new blocks
    #[arg(long)]
    pub(crate) live: bool,
    /// Download only the blocks of --range; without a range only the length
    #[arg(long)]
    pub(crate) sparse: bool,
    /// Blocks to download: A..B without B; A and B may be left out; repeat it for more
    #[arg(long, value_name = "A..B", requires = "sparse", value_parser = parse_range)]
    pub(crate) range: Vec<Range<u64>>,
    /// Look for peers on the local network, too: addresses may be out of date.
    #[arg(skip)]
    pub(crate) search: bool,
    /// What the core is downloaded for, and people know it by.
    #[arg(skip)]
    pub(crate) target: Option<PathBuf>,
    /// And that is standard output.
    #[arg(skip)]
    pub(crate) to_stdout: bool,
    /// How long the log is at least: it is not complete before.
    #[arg(skip)]
    pub(crate) at_least: u64,
    #[command(flatten)]
    pub(crate) identity: Identity,
    #[command(flatten)]
    pub(crate) format: Format,
}

/// z-base-32, in which keys are easier to read aloud.
static Z_BASE_32: LazyLock<Encoding> = LazyLock::new(|| {
    let mut specification = Specification::new();
    specification
        .symbols
        .push_str("ybndrfg8ejkmcpqxot1uwisza345h769");
    specification.encoding().expect("32 different symbols")
});

pub(crate) fn parse_key(text: &str) -> Result<PublicKey, String> {
    let digits = text.strip_prefix("hyper://").unwrap_or(text);
    let digits = digits.strip_suffix('/').unwrap_or(digits);
    let bytes = match digits.len() {
        64 => HEXLOWER_PERMISSIVE.decode(digits.as_bytes()).ok(),
        52 => Z_BASE_32.decode(digits.as_bytes()).ok(),
        _ => None,
    };
    let bytes: Option<[u8; 32]> = bytes.and_then(|bytes| bytes.try_into().ok());
    bytes.map(PublicKey::from).ok_or_else(|| {
        "a key is 64 hex digits, hyper:// and 64 hex digits, or 52 characters of z-base-32".into()
    })
}

fn parse_seed(text: &str) -> Result<[u8; 32], String> {
    let bytes = HEXLOWER_PERMISSIVE.decode(text.as_bytes()).ok();
    bytes
        .and_then(|bytes| bytes.try_into().ok())
        .ok_or_else(|| "a seed is 64 hex digits".into())
}

pub(crate) fn parse_address(text: &str) -> Result<String, String> {
    match text.rsplit_once(':') {
        Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok() => Ok(text.into()),
        _ => Err("an address is ADDR:PORT, for example 127.0.0.1:4000".into()),
    }
}

pub(crate) fn parse_seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().ok();
    let limit = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    limit.ok_or_else(|| "a time is a number of seconds, for example 2.5".into())
}

pub(crate) fn parse_number(text: &str) -> Result<u64, String> {
    let number = text.parse();
    number.map_err(|_| "what is counted here is a whole number; the first is 0".into())
}

/// `A..B` as in Rust: without B, and either may be left out.
fn parse_range(text: &str) -> Result<Range<u64>, String> {
    let number = |text: &str, default| match text {
        "" => Ok(default),
        digits => digits.parse::<u64>(),
    };
    let (start, end) = text
        .split_once("..")
        .ok_or("a range is A..B, for example 0..10")?;
    match (number(start, 0), number(end, u64::MAX)) {
        (Ok(start), Ok(end)) if start < end => Ok(start..end),
        (Ok(start), Ok(end)) if start > end => Err(format!("{start}..{end} ends before it begins")),
        (Ok(start), Ok(end)) => Err(format!("{start}..{end} is empty")),
        _ => Err("a range is A..B with numbers, for example 0..10".into()),
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, iter};

    use clap::Command;
    use proptest::prelude::*;

    use super::*;

    const HEX: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

    #[test]
    fn the_arguments_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn keys_in_every_form() {
        let key = parse_key(HEX).unwrap();
        assert_eq!(key.to_string(), HEX);
        let z_base_32 = Z_BASE_32.encode(key.as_bytes());
        assert_eq!(z_base_32.len(), 52);
        for text in [
            HEX.to_uppercase(),
            format!("hyper://{HEX}"),
            format!("hyper://{HEX}/"),
            z_base_32,
        ] {
            assert_eq!(parse_key(&text), Ok(key), "{text}");
        }
        for text in ["", "abc", &HEX[..63], &"l".repeat(52), &"9".repeat(52)] {
            assert!(parse_key(text).is_err(), "{text}");
        }
    }

    #[test]
    fn addresses() {
        for text in ["127.0.0.1:0", "[::1]:80", "example.com:65535"] {
            assert_eq!(parse_address(text).as_deref(), Ok(text));
        }
        for text in ["", "127.0.0.1", ":80", "a:", "a:65536", "a:x"] {
            assert!(parse_address(text).is_err(), "{text}");
        }
    }

    #[test]
    fn ranges() {
        assert_eq!(parse_range("3..5"), Ok(3..5));
        assert_eq!(parse_range("3.."), Ok(3..u64::MAX));
        assert_eq!(parse_range("..5"), Ok(0..5));
        for text in ["", "3", "5..3", "3..3", "a..b", "-1..2"] {
            assert!(parse_range(text).is_err(), "{text}");
        }
    }

    /// The names of `command` and of all below it.
    fn commands(command: &Command) -> Vec<String> {
        let below = command.get_subcommands().flat_map(commands);
        iter::once(command.get_name().to_owned())
            .chain(below)
            .collect()
    }

    /// Their options, long and short.
    fn options(command: &Command) -> BTreeSet<String> {
        let long = command.get_arguments().filter_map(clap::Arg::get_long);
        let short = command.get_arguments().filter_map(clap::Arg::get_short);
        let below = command.get_subcommands().flat_map(options);
        let here = long
            .map(|name| format!("--{name}"))
            .chain(short.map(|name| format!("-{name}")));
        here.chain(below).collect()
    }

    /// What a value may be, right or nearly.
    fn value() -> impl Strategy<Value = OsString> {
        let edges = [
            "",
            "-",
            "--",
            "0",
            "-1",
            "18446744073709551616",
            "9007199254740993",
        ];
        let times = ["1e308", "-0.0", "NaN", "inf", "1e19", "0.0000000001"];
        let places = [
            "..",
            "5..",
            "..0",
            "3..5",
            ":1",
            "[::1]:0",
            "host:65536",
            "hyper://",
        ];
        let known: Vec<_> = edges.into_iter().chain(times).chain(places).collect();
        prop_oneof![
            prop::sample::select(known).prop_map(OsString::from),
            any::<u64>().prop_map(|number| number.to_string().into()),
            any::<f64>().prop_map(|number| number.to_string().into()),
            any::<(u64, u64)>().prop_map(|(start, end)| format!("{start}..{end}").into()),
            "(hyper://)?[0-9a-fA-F]{62,65}(@.{0,9}:[0-9]{1,6})?(/.{0,9})?([?#].{0,20})?"
                .prop_map(OsString::from),
            "[a-z0-9]{52}".prop_map(OsString::from),
            any::<String>().prop_map(OsString::from),
            prop::collection::vec(any::<u8>(), 0..40).prop_map(from_bytes),
        ]
    }

    #[cfg(unix)]
    fn from_bytes(bytes: Vec<u8>) -> OsString {
        std::os::unix::ffi::OsStringExt::from_vec(bytes)
    }

    #[cfg(not(unix))]
    fn from_bytes(bytes: Vec<u8>) -> OsString {
        String::from_utf8_lossy(&bytes).into_owned().into()
    }

    fn arguments() -> impl Strategy<Value = Vec<OsString>> {
        let all = Cli::command();
        let name = prop::sample::select(commands(&all)).prop_map(OsString::from);
        let option = prop::sample::select(options(&all).into_iter().collect::<Vec<_>>());
        let argument = prop_oneof![
            1 => name.clone(),
            3 => option.clone().prop_map(OsString::from),
            1 => (option, value()).prop_map(|(option, value)| {
                let mut argument = OsString::from(option + "=");
                argument.push(value);
                argument
            }),
            4 => value(),
        ];
        (name, prop::collection::vec(argument, 0..8))
            .prop_map(|(name, arguments)| iter::once(name).chain(arguments).collect())
    }

    proptest! {
        #![proptest_config(ProptestConfig { max_shrink_iters: 10_000, ..ProptestConfig::default() })]

        /// Whatever is said is understood, or refused with a sentence and the exit code of the
        /// contract.
        #[test]
        fn any_arguments_are_taken_or_refused(arguments in arguments()) {
            let program = iter::once(OsString::from("hypercore"));
            match Cli::try_parse_from(program.chain(arguments)) {
                Ok(cli) => {
                    let shown = format!("{cli:?}");
                    prop_assert!(!shown.is_empty());
                }
                Err(error) => {
                    let expected = if error.use_stderr() { 2 } else { 0 };
                    prop_assert_eq!(error.exit_code(), expected);
                    let told = error.render().to_string();
                    prop_assert!(told.len() > 20, "{}", told);
                }
            }
        }
    }
}
