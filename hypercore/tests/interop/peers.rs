//! The two sides, each able to do the same things.

use std::path::Path;

use serde_json::Value;

use crate::blocks::Spec;
use crate::stage::{Process, Stage};

/// The seed of every writer's key pair.
pub(crate) const SEED: &str = "616e20696e7465726f7020736565642c20666f72207465737473206f6e6c7921";

/// Whose program it is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Side {
    Node,
    Ours,
}

/// Makes a log with Node, as one batch.
pub(crate) fn make(stage: &Stage, name: &str, spec: Spec) -> std::path::PathBuf {
    let dir = stage.path(name);
    let made = stage
        .node("make.js", args![&dir, "--seed", SEED, "--blocks", spec.0])
        .result();
    assert_eq!(made["length"], spec.length());
    dir
}

/// Has Node judge a directory in which everything must be true: its report.
pub(crate) fn check(stage: &Stage, dir: &Path, spec: Spec) -> Value {
    let report = stage
        .node("check.js", args![dir, "--blocks", spec.0])
        .result();
    assert_eq!(
        report["invalid"], 0,
        "blocks do not match their hashes: {report}"
    );
    assert_eq!(
        report["wrong"],
        serde_json::json!([]),
        "blocks are not the writer's: {report}"
    );
    assert_eq!(
        report["verified"], true,
        "the newest signature does not hold: {report}"
    );
    report
}

/// Has Node judge a directory in which the whole log must be.
pub(crate) fn check_whole(stage: &Stage, dir: &Path, spec: Spec) -> Value {
    let report = check(stage, dir, spec);
    assert_eq!(report["length"], spec.length());
    assert_eq!(report["byteLength"], spec.byte_length());
    assert_eq!(report["valid"], spec.length());
    report
}

/// A process that shares a log.
pub(crate) struct Seeder {
    pub(crate) process: Process,
    pub(crate) address: String,
    pub(crate) key: String,
}

impl Seeder {
    /// Shares the log of this directory for as long as it runs.
    pub(crate) fn new(stage: &Stage, side: Side, dir: &Path, flags: &[&str]) -> Self {
        let flags = flags.iter().map(Into::into);
        Self::listening(match side {
            Side::Node => stage.node("serve.js", args![dir].into_iter().chain(flags)),
            Side::Ours => stage.ours(args!["serve", dir, "--json"].into_iter().chain(flags)),
        })
    }

    /// A sparse clone by Node, which fetches the blocks it is to hold from `origin`: `--have A..B`, or `--part K/N`.
    pub(crate) fn part(stage: &Stage, name: &str, origin: &Self, which: [&str; 2]) -> Self {
        let flags = [
            "--origin",
            &origin.address,
            "--key",
            &origin.key,
            which[0],
            which[1],
        ];
        Self::new(stage, Side::Node, &stage.path(name), &flags)
    }

    pub(crate) fn listening(process: Process) -> Self {
        let event = process.event("listening");
        let text = |field: &str| {
            event[field]
                .as_str()
                .expect("listening tells address and key")
                .to_owned()
        };
        Self {
            address: text("address"),
            key: text("key"),
            process,
        }
    }

    /// Stops it, and waits until it has left its directory.
    pub(crate) fn stop(self) -> Vec<Value> {
        self.process.terminate();
        self.process.events()
    }
}

/// Starts a clone from all these peers.
pub(crate) fn clone(
    stage: &Stage,
    side: Side,
    dir: &Path,
    from: &[&Seeder],
    flags: &[&str],
) -> Process {
    let mut args = Vec::from(args![&from[0].key, dir]);
    for seeder in from {
        args.extend(args!["--connect", &seeder.address]);
    }
    args.extend(flags.iter().map(Into::into));
    match side {
        Side::Node => stage.node("clone.js", args),
        Side::Ours => stage.ours(
            args!["clone"]
                .into_iter()
                .chain(args)
                .chain(args!["--json"]),
        ),
    }
}
