//! Logs that nobody signs: finished by one side, opened and cloned by the other.

use std::path::Path;

use hypercore::{Hypercore, OpenOptions};

use crate::blocks::Spec;
use crate::files;
use crate::library::run;
use crate::peers::{Seeder, Side, check_whole, clone};
use crate::stage::Stage;

const SPEC: Spec = Spec("7*11,1*0,3*70000,1*1");

/// Makes a log of ours, in two batches; its key.
fn make(dir: &Path) -> String {
    run(async {
        let options = OpenOptions::new().live(false);
        let core = options.open(dir).await.expect("an empty directory");
        let mut blocks = SPEC.blocks_from(0);
        for count in [3, SPEC.length() - 3] {
            let batch = blocks.by_ref().take(count);
            core.append_batch(batch).await.expect("room on the disk");
        }
        let key = core.finalize().await.expect("room on the disk");
        core.close().await.expect("nothing left to write");
        key.to_string()
    })
}

#[test]
fn both_write_the_same_static_log() {
    let stage = Stage::new();
    let (ours, theirs) = (stage.path("ours"), stage.path("theirs"));
    let key = make(&ours);
    let made = stage
        .node("make.js", args![&theirs, "--static", "--blocks", SPEC.0])
        .result();
    assert_eq!(made["key"], key);
    files::assert_same(&ours, &theirs, &["key", "data", "tree", "signatures"]);
    files::assert_same(&ours, &theirs, &["bitfield", "secret_key"]);

    assert_eq!(check_whole(&stage, &ours, SPEC)["writable"], false);
    run(async {
        let core = Hypercore::open(&theirs).await.expect("a log of Node's");
        assert_eq!(core.key().to_string(), key);
        assert!(!core.is_writable());
        let found = core.verify().await.expect("an open core");
        assert!(found.problems.is_empty(), "{found:?}");
    });
}

#[test]
fn each_clones_the_static_log_of_the_other() {
    let stage = Stage::new();
    let origin = stage.path("origin");
    make(&origin);
    // From us to Node, to us, and to Node again.
    let mut from = origin;
    for (server, reader, name) in [
        (Side::Ours, Side::Node, "a"),
        (Side::Node, Side::Ours, "b"),
        (Side::Ours, Side::Node, "c"),
    ] {
        let seeder = Seeder::new(&stage, server, &from, &[]);
        let copy = stage.path(name);
        let cloned = clone(&stage, reader, &copy, &[&seeder], &[]).result();
        assert_eq!(cloned["length"], SPEC.length(), "{reader:?}");
        seeder.stop();
        assert_eq!(check_whole(&stage, &copy, SPEC)["writable"], false);
        from = copy;
    }
}
