//! `hypercore repair`: puts right what can be, and fetches the rest from peers.

use std::{collections::BTreeSet, ffi::OsString, fs, ops::ControlFlow, path::Path, time::Duration};

use futures_lite::future;
use hypercore::{
    Error, GetOptions, Hypercore, Problem, Verification,
    storage::{Directory, FileName},
};

use crate::{
    args::{Manners, RepairArgs},
    check::{watch, words},
    commands::{close, options, require_directory},
    errors::{Exit, Failure, Result, how_to_replace, quoted},
    output::{Output, blocks},
    signals::Signals,
    sources::Sources,
};

/// How long peers have to send one block.
const FETCH_TIMEOUT: Duration = Duration::from_secs(30);

pub(crate) async fn repair(args: RepairArgs, manners: &Manners) -> Result<()> {
    let RepairArgs {
        dir,
        mut connect,
        more,
        format,
    } = args;
    connect.extend(more);
    let signals = Signals::catch().map_err(|error| Failure::failed(error.to_string()))?;
    require_directory(&dir)?;
    let failed = |error| Failure::core(error, &dir);
    let mut output = Output::new(&format, manners);
    let unrepaired = |error| match error {
        Error::Cancelled => Failure::new(
            Exit::Incomplete,
            format!(
                "interrupted while `{}` was checked; `hypercore repair {}` begins anew",
                dir.display(),
                quoted(&dir)
            ),
        ),
        error => Failure::repair(error, &dir),
    };
    if connect.is_empty() && !is_original(&dir) {
        let watch = halting(watch(&mut output), signals.clone());
        let found = Hypercore::verify_storage_with(Directory::new(&dir), watch).await;
        output.done();
        match found {
            Ok(found) => require_signature(&found, &dir)?,
            Err(Error::Cancelled) => return Err(unrepaired(Error::Cancelled)),
            // A repair can do more, or says what it cannot.
            Err(_) => {}
        }
    }
    let before = quarantines(&dir);
    let watch = halting(watch(&mut output), signals.clone());
    let repair = Hypercore::repair_storage_with(Directory::new(&dir), watch).await;
    output.done();
    let repair = repair.map_err(unrepaired)?;

    let dropped = repair.dropped.len() as u64;
    let mut fetched = 0;
    let mut stopped = Ok(());
    if dropped > 0 && !connect.is_empty() {
        let core = options()
            .create_if_missing(false)
            .sparse(true)
            .open(&dir)
            .await
            .map_err(failed)?;
        let stop = async {
            signals.stopped().await;
            // Those are not dropped a second time, and so not fetched.
            let words = format!(
                "interrupted before all that was dropped from `{}` was fetched; {} from a peer",
                dir.display(),
                how_to_fetch(&repair.dropped, &dir)
            );
            Err(Failure::new(Exit::Incomplete, words))
        };
        let fetch = fetch(&core, &connect, &repair.dropped, &dir);
        stopped = future::or(stop, fetch).await;
        fetched = repair
            .dropped
            .iter()
            .filter(|&&index| core.has(index))
            .count() as u64;
        close(&core, &dir).await?;
    }
    output.result(
        &[
            ("repaired", repair.repaired.into()),
            ("dropped", dropped.into()),
            ("fetched", fetched.into()),
        ],
        match (repair.repaired, dropped) {
            (0, 0) if repair.remaining.is_ok() => "No damage, nothing to put right.".to_owned(),
            (repaired, _) => format!(
                "{repaired} put right, {} dropped, {fetched} fetched again.",
                blocks(dropped)
            ),
        },
    )?;
    if dropped > 0 && connect.is_empty() {
        output.remark(format_args!(
            "What was false is missing now: {} from a peer.",
            how_to_fetch(&repair.dropped, &dir)
        ));
    }
    if let Some(copy) = quarantines(&dir).difference(&before).next()
        && dropped > 0
    {
        output.remark(format_args!(
            "The bytes that were dropped are in `{}`.",
            dir.join(copy).display()
        ));
    }
    if let Some(problem) = repair.remaining.problems.first() {
        return Err(Failure::new(
            Exit::Damaged,
            format!(
                "the core in `{}` is still damaged, first {}; {}",
                dir.display(),
                words(problem),
                how_to_replace(&dir)
            ),
        ));
    }
    stopped?;
    if !connect.is_empty() && fetched < dropped {
        return Err(Failure::new(
            Exit::Incomplete,
            format!(
                "{} of `{}` are still missing: no connected peer has them",
                blocks(dropped - fetched),
                dir.display()
            ),
        ));
    }
    Ok(())
}

/// Whether blocks are signed in `dir`: those that are whole are signed again, and not dropped.
fn is_original(dir: &Path) -> bool {
    dir.join("secret_key").exists() || dir.join("fork-guard").exists()
}

/// Fails where whole blocks of a clone would be dropped for want of a signature alone, and nobody is
/// named to fetch them from again: it may be the last copy.
fn require_signature(found: &Verification, dir: &Path) -> Result<()> {
    let is_last = |problem: &&Problem| {
        problem.file == FileName::Signatures && problem.index.saturating_add(1) >= found.blocks
    };
    let Some(problem) = found.problems.iter().find(is_last) else {
        return Ok(());
    };
    if found.blocks == 0 {
        return Ok(());
    }
    let quoted = quoted(dir);
    Err(Failure::new(
        Exit::Damaged,
        format!(
            "nothing was changed in `{}`: {}, and without a signature whole blocks would be dropped, \
             too; `hypercore repair {quoted} --connect ADDR:PORT` fetches both again from a peer",
            dir.display(),
            words(problem),
        ),
    ))
}

/// The files in `dir` that keep what repairs have taken away.
fn quarantines(dir: &Path) -> BTreeSet<OsString> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let names = entries.map(|entry| entry.file_name());
    names
        .filter(|name| name.as_encoded_bytes().starts_with(b"quarantine-"))
        .collect()
}

/// How blocks that were dropped come back.
fn how_to_fetch(dropped: &[u64], dir: &Path) -> String {
    let dir = quoted(dir);
    match dropped {
        [block] => format!("`hypercore get {dir} {block} --connect ADDR:PORT` fetches it"),
        _ => format!("`hypercore cat {dir} --connect ADDR:PORT` fetches all that it reads"),
    }
}

/// What watches a check, and ends it after a signal. Nothing is written during a check, so that is a
/// good moment.
fn halting(
    mut watch: impl FnMut(u64, u64) -> ControlFlow<()> + Send + 'static,
    signals: Signals,
) -> impl FnMut(u64, u64) -> ControlFlow<()> + Send + 'static {
    move |checked, all| {
        watch(checked, all)?;
        if signals.are_here() {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    }
}

/// Fetches as many of the blocks as the peers have.
async fn fetch(core: &Hypercore, addresses: &[String], wanted: &[u64], dir: &Path) -> Result<()> {
    let sources = Sources::call(core, addresses).await?;
    // All of them at once; they are waited for one after the other.
    let ahead = core.download_blocks(wanted.iter().copied());
    let mut options = GetOptions::default();
    options.if_available = true;
    options.timeout = Some(FETCH_TIMEOUT);
    let mut result = Ok(());
    for &index in wanted {
        match core.get_with(index, options).await {
            Ok(_) | Err(Error::NotAvailable | Error::TimedOut) => {}
            Err(error) => {
                result = Err(Failure::core(error, dir));
                break;
            }
        }
    }
    drop(ahead);
    sources.end().await;
    result
}
