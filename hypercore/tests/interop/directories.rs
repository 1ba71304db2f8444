//! One directory, two programs: the same bytes, and each goes on where the other left.

use std::path::Path;

use crate::blocks::Spec;
use crate::files::{self, KEYS, LOG};
use crate::peers::{SEED, check_whole, make};
use crate::stage::Stage;

/// How our command line gets its blocks.
#[derive(Clone, Copy, Debug)]
enum From {
    Lines,
    /// A file cut into blocks of this size, from standard input.
    File(usize),
}

fn append(stage: &Stage, dir: &Path, start: usize, spec: Spec, from: From) {
    if spec.length() == 0 {
        return;
    }
    let result = match from {
        From::Lines => {
            let mut process = stage.ours(args!["append", dir, "--json", "--lines"]);
            process.say(spec.lines_from(start));
            process.result()
        }
        From::File(size) => {
            let size = size.to_string();
            let mut process = stage.ours(args![
                "append",
                dir,
                "--json",
                "--file",
                "-",
                "--block-size",
                size
            ]);
            process.say(spec.blocks_from(start).flatten().collect::<Vec<_>>());
            process.result()
        }
    };
    assert_eq!(result["length"], start + spec.length());
}

/// Both write the same log; then each appends to the log of the other, and to its own.
fn same_log(all: &'static str, from: From) {
    let spec = Spec(all);
    let more = Spec("2*9,1*0,1*1");
    let longer = format!("{all}{}2*9,1*0,1*1", if all.is_empty() { "" } else { "," }).leak();
    let whole = Spec(longer);

    let stage = Stage::new();
    let theirs = make(&stage, "theirs", spec);
    let ours = stage.path("ours");
    let created = stage
        .ours(args!["create", &ours, "--seed", SEED, "--json"])
        .result();
    append(&stage, &ours, 0, spec, from);
    assert_same(&ours, &theirs, spec.length());

    let report = check_whole(&stage, &ours, spec);
    assert_eq!(report["writable"], true);
    assert_eq!(created["key"], report["key"]);

    stage
        .node("append.js", args![&ours, "--blocks", more.0])
        .result();
    append(&stage, &theirs, spec.length(), more, From::Lines);
    assert_same(&ours, &theirs, whole.length());

    for dir in [&ours, &theirs] {
        let info = stage.ours(args!["info", dir, "--json"]).result();
        assert_eq!(info["key"], report["key"]);
        assert_eq!(info["length"], whole.length());
        assert_eq!(info["byteLength"], whole.byte_length());
        assert_eq!(info["downloaded"], whole.length());
        assert_eq!(info["writable"], true);
        let audit = stage.ours(args!["audit", dir, "--json"]).result();
        assert_eq!(
            (&audit["valid"], &audit["invalid"]),
            (&whole.length().into(), &0.into())
        );
        assert!(
            stage.ours(args!["cat", dir]).output() == whole.bytes(),
            "cat gives other bytes"
        );
    }
    // Its files are those of the other: one judgement is for both.
    check_whole(&stage, &theirs, whole);
}

/// The files of a log that two writers of one key pair made of the same blocks.
fn assert_same(ours: &Path, theirs: &Path, length: usize) {
    files::assert_same(ours, theirs, &KEYS);
    files::assert_same(ours, theirs, &LOG);
    files::assert_same(ours, theirs, &["bitfield"]);
    if length > 0 {
        assert_eq!(
            files::signature(ours, length),
            files::signature(theirs, length)
        );
    }
}

macro_rules! same_log {
    ($($name:ident: $spec:literal, $from:expr;)*) => {$(
        #[test]
        fn $name() {
            same_log($spec, $from);
        }
    )*};
}

same_log! {
    no_blocks: "", From::Lines;
    one_block: "1*5", From::File(65_536);
    two_blocks: "1*0,1*7", From::Lines;
    three_blocks: "1*3,1*2097152,1*0", From::Lines;
    nine_blocks: "4*11,1*0,3*2097152,1*1", From::Lines;
    a_hundred_blocks: "99*100,1*7", From::File(100);
    five_thousand_blocks: "5000*64", From::File(64);
    nine_thousand_and_one_blocks: "9000*12,1*0", From::Lines;
    seventy_thousand_blocks: "70000*8", From::Lines;
}

/// Blocks from the command line's arguments, which are text: one batch, so the whole directory is the same.
#[test]
fn arguments() {
    let stage = Stage::new();
    let theirs = make(&stage, "theirs", Spec(""));
    let blocks = ["a", "", "gr\u{fc}n \u{1f980}", "--x"];
    let text = blocks.iter().map(|block| format!("--text={block}").into());
    stage
        .node("append.js", args![&theirs].into_iter().chain(text))
        .result();

    let ours = stage.path("ours");
    stage.ours(args!["create", &ours, "--seed", SEED]).output();
    let blocks = blocks.iter().map(Into::into);
    let result = stage
        .ours(
            args!["append", &ours, "--json", "--"]
                .into_iter()
                .chain(blocks),
        )
        .result();
    assert_eq!(result["length"], 4);
    assert_same(&ours, &theirs, 4);
    files::assert_same(&ours, &theirs, &["signatures"]);
}
