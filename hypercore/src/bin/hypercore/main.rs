//! `hypercore`: makes, reads, checks, serves and clones append-only logs.
//!
//! [`args`] is what can be said on the command line (a command with a file of its own has its
//! arguments there), [`commands`] is what is done about it, [`errors`] is what is said when it
//! cannot be done, and [`net`] is the only place that knows about the network.
#![forbid(unsafe_code)]
// They panic where standard error cannot be written to; see `output::complain`.
#![warn(clippy::print_stderr)]
// Archives, notes and requests of others: no index or sum of them may panic.
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects
    )
)]

mod alarm;
mod args;
mod calls;
mod check;
mod clone;
mod commands;
mod doctor;
mod errors;
mod http;
mod identity;
mod input;
mod keys;
mod link;
mod log;
mod manual;
mod net;
mod origin;
mod output;
mod parts;
mod peers;
mod read;
mod receive;
mod repair;
mod resume;
mod room;
mod serve;
mod share;
mod signals;
mod sources;
mod status;
mod tail;

use args::{Cli, Command, Manners};
use errors::Result;
use tracing_subscriber::{
    EnvFilter,
    filter::{LevelFilter, filter_fn},
    layer::{Layer, SubscriberExt},
    util::SubscriberInitExt,
};

fn main() {
    let cli = args::parse();
    keep_no_core_file();
    room::ask_for_more();
    signals::outlive_limits();
    if cli.manners.quiet {
        output::be_quiet();
    }
    start_logging(&cli.manners);
    let code = match net::run(run(cli)) {
        Ok(()) => {
            output::finish_remarks(None);
            0
        }
        Err(failure) => {
            output::finish_remarks(Some(&failure));
            failure.code()
        }
    };
    // Not a return from `main`: a thread may still wait for standard input.
    std::process::exit(code);
}

async fn run(cli: Cli) -> Result<()> {
    let manners = &cli.manners;
    match cli.command {
        Command::Create(args) => commands::create(args, manners).await,
        Command::Append(args) => commands::append(args, manners).await,
        Command::Get(args) => read::get(args, manners).await,
        Command::Cat(args) => read::cat(args, manners).await,
        Command::Info(args) => commands::info(args, manners).await,
        Command::Log(args) => log::log(args, manners).await,
        Command::Seek(args) => commands::seek(args, manners).await,
        Command::Clear(args) => commands::clear(args, manners).await,
        Command::Audit(args) => commands::audit(args, manners).await,
        Command::Verify(args) => check::verify(args, manners).await,
        Command::Repair(args) => repair::repair(args, manners).await,
        Command::Resume(args) => resume::resume(args, manners).await,
        Command::Serve(args) => serve::serve(args, manners).await,
        Command::Clone(args) => clone::clone(args, manners).await,
        Command::Share(args) => share::share(args, manners).await,
        Command::Receive(args) => receive::receive(args, manners).await,
        Command::Identity(args) => identity::identity(args, manners),
        Command::Peers(args) => status::peers(&args, manners),
        Command::Stats(args) => status::stats(&args, manners),
        Command::Doctor(args) => doctor::doctor(args, manners).await,
        Command::Keys(args) => keys::keys(args, manners).await,
        Command::Completions(args) => manual::completions(&args, manners),
        Command::Man(args) => manual::man(&args, manners),
    }
}

/// A crash leaves no core file, in which secret keys would be, and nobody of the same user can look
/// into the process. Where that is refused, it is no reason not to work.
fn keep_no_core_file() {
    #[cfg(unix)]
    {
        use rustix::process::{Resource, Rlimit, setrlimit};
        let nothing = Rlimit {
            current: Some(0),
            maximum: Some(0),
        };
        let _ = setrlimit(Resource::Core, nothing);
    }
    #[cfg(any(target_os = "linux", target_os = "android"))]
    {
        use rustix::process::{DumpableBehavior, set_dumpable_behavior};
        let _ = set_dumpable_behavior(DumpableBehavior::NotDumpable);
    }
}

/// Warnings, unless nothing but errors is to be said; more with `-v` and `-vv`. To standard error, as everything
/// that is not data.
fn start_logging(manners: &Manners) {
    let level = match manners.verbose {
        0 if manners.quiet => "error",
        // What the library tells its callers besides is said in words for people.
        0 => "warn,hypercore::told=off",
        1 => "hypercore=info,warn",
        2 => "hypercore=debug,info",
        _ => "trace",
    };
    let is_verbose = manners.verbose > 0;
    let is_shown = filter_fn(move |line| is_verbose || !alarm::is_told(line));
    let log = tracing_subscriber::fmt::layer()
        .with_writer(|| output::LogOutput)
        .with_ansi(output::has_colours())
        // That a line was not written would be told on standard error, and panic there.
        .log_internal_errors(false)
        .with_filter(is_shown)
        .with_filter(EnvFilter::new(level));
    let alarm = alarm::Alarm::default().with_filter(LevelFilter::ERROR);
    tracing_subscriber::registry().with(log).with(alarm).init();
}
