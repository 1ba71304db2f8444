//! `hypercore repair`: puts right what can be, and fetches the rest from peers.

use std::{
    collections::BTreeSet, ffi::OsString, fs, ops::ControlFlow, path::Path, sync::Arc,
    time::Duration,
};

use futures_lite::future;
use hypercore::{
    Error, GetOptions, Hypercore, KeyPair, Problem, PublicKey, Verification,
    storage::{Directory, FeedFiles, FileName, Memory},
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
    if !connect.is_empty() || !is_original(&dir) {
        let watch = halting(watch(&mut output), signals.clone());
        let found = Hypercore::verify_storage_with(Directory::new(&dir), watch).await;
        output.done();
        match found {
            Err(Error::Cancelled) => return Err(unrepaired(Error::Cancelled)),
            Ok(found) if connect.is_empty() => require_signature(&found, &dir)?,
            Ok(found) if found.is_ok() => {}
            // A repair can do more, or says what it cannot.
            _ if connect.is_empty() => {}
            found => {
                let stop = async {
                    signals.stopped().await;
                    Err(unrepaired(Error::Cancelled))
                };
                let reach = async {
                    let reached = require_peer(&connect, &dir).await;
                    reached.map_err(|failure| match found.as_ref().map(last_signature) {
                        Ok(Some(problem)) if !is_original(&dir) => {
                            suspect_key(problem, &failure, &dir)
                        }
                        _ => failure,
                    })
                };
                future::or(stop, reach).await?;
            }
        }
    }
    let before = quarantines(&dir);
    let watch = halting(watch(&mut output), signals.clone());
    let repair = Hypercore::repair_storage_with(Directory::new(&dir), watch).await;
    output.done();
    let repair = repair.map_err(unrepaired)?;

    let dropped = repair.dropped.len() as u64;
    let mut missing = repair.dropped;
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
            let words = format!(
                "interrupted before all that was dropped from `{}` was fetched",
                dir.display()
            );
            Err(Failure::new(Exit::Incomplete, words))
        };
        stopped = future::or(stop, fetch(&core, &connect, &missing, &dir)).await;
        missing.retain(|&index| !core.has(index));
        close(&core, &dir).await?;
    }
    let fetched = dropped.saturating_sub(missing.len() as u64);
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
    // The next repair does not drop them a second time, and so does not fetch them.
    if !missing.is_empty() {
        output.remark(format_args!(
            "What could not be proven is missing now: {} from a peer.",
            how_to_fetch(&missing, &dir)
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
    if !connect.is_empty() && !missing.is_empty() {
        return Err(Failure::new(
            Exit::Incomplete,
            format!(
                "{} of `{}` are still missing: no connected peer has them",
                blocks(missing.len() as u64),
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
    let Some(problem) = last_signature(found) else {
        return Ok(());
    };
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

/// The problem of the signature over all blocks, if it has one.
fn last_signature(found: &Verification) -> Option<&Problem> {
    let is_last = |problem: &&Problem| {
        problem.file == FileName::Signatures && problem.index.saturating_add(1) >= found.blocks
    };
    found
        .problems
        .iter()
        .find(is_last)
        .filter(|_| found.blocks > 0)
}

/// No peer has a core of this key, by which no signature is right either.
fn suspect_key(problem: &Problem, failure: &Failure, dir: &Path) -> Failure {
    Failure::new(
        Exit::Damaged,
        format!(
            "nothing was changed in `{}`: {}, and {failure}; if the file `key` is damaged, that explains \
             both: put it back from a backup, or make another copy of what peers have with `hypercore \
             clone KEY OTHERDIR --connect ADDR:PORT`",
            dir.display(),
            words(problem),
        ),
    )
}

/// Fails where no peer with the core can be reached: nothing is dropped that is not fetched again then.
async fn require_peer(addresses: &[String], dir: &Path) -> Result<()> {
    let Some(key) = public_key(dir) else {
        // A repair says so.
        return Ok(());
    };
    let empty = Hypercore::options().key(key).sparse(true);
    let empty = empty.open_storage(Memory::new()).await;
    let empty = empty.map_err(|error| Failure::core(error, dir))?;
    let sources = Sources::call(&empty, addresses).await?;
    sources.end().await;
    close(&empty, dir).await
}

/// The key of the core in `dir`, however damaged that is.
fn public_key(dir: &Path) -> Option<PublicKey> {
    let (files, _) = FeedFiles::open_damaged(Arc::new(Directory::new(dir))).ok()?;
    let secret = files.secret_key().ok().flatten();
    let pair = secret.and_then(|secret| KeyPair::from_bytes(&secret).ok());
    let stored = || files.key().ok().flatten().map(PublicKey::from);
    pair.map(|pair| pair.public_key()).or_else(stored)
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
