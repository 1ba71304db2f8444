//! Peers that lie: nothing false is stored, and an honest peer finishes what a liar began.

use crate::blocks::Spec;
use crate::peers::{Seeder, Side, check, check_whole, clone, make};
use crate::stage::Stage;

const LOG: Spec = Spec("30*40");

/// The kinds of `evil.js`.
const LIES: [&str; 7] = [
    "value",
    "length",
    "hash",
    "size",
    "signature",
    "roots",
    "empty",
];

/// The one that Node believes: an empty block whose proof ends below the roots, beside the true roots and signature.
const BELIEVED: &str = "empty";

fn liar(stage: &Stage, name: &str, flags: &[&str]) -> Seeder {
    let dir = make(stage, name, LOG);
    Seeder::listening(stage.node(
        "evil.js",
        args![&dir].into_iter().chain(flags.iter().map(Into::into)),
    ))
}

/// Shows that each lie is one.
#[test]
fn node_refuses_or_believes() {
    for lie in LIES {
        let stage = Stage::new();
        let liar = liar(&stage, "liar", &["--lie", lie]);
        let copy = stage.path("copy");
        let reader = clone(&stage, Side::Node, &copy, &[&liar], &[]);
        liar.process.event("lie");
        if lie == BELIEVED {
            let empty = hypercore::merkle::leaf_hash(&[]);
            assert_eq!(reader.event("download")["hash"], hex::encode(empty));
        } else {
            assert!(reader.event("peer-close")["reason"].is_string(), "{lie}");
            assert_eq!(reader.result()["downloaded"], 0, "{lie}");
        }
    }
}

/// A liar alone: the clone fails and holds nothing false. Then with an honest peer: it is finished.
#[test]
fn we_refuse() {
    for lie in LIES {
        let stage = Stage::new();
        let copy = stage.path("copy");
        let alone = liar(&stage, "alone", &["--lie", lie]);
        let (code, _) = clone(&stage, Side::Ours, &copy, &[&alone], &[]).end();
        assert!(matches!(code, Some(1 | 6)), "{lie}: exit code {code:?}");
        alone.process.event("lie");
        alone.process.event("peer-close");
        check(&stage, &copy, LOG);

        let liar = liar(&stage, "liar", &["--lie", lie, "--after", "5"]);
        let honest = Seeder::new(&stage, Side::Node, &make(&stage, "honest", LOG), &[]);
        let synced = clone(&stage, Side::Ours, &copy, &[&liar, &honest], &[]).result();
        assert_eq!(synced["downloaded"], LOG.length(), "{lie}");
        check_whole(&stage, &copy, LOG);
    }
}

/// Who does not prove to know the key is told nothing, whoever connects.
#[test]
fn we_serve_only_who_knows_the_key() {
    let stage = Stage::new();
    let seeder = Seeder::new(&stage, Side::Ours, &make(&stage, "log", LOG), &[]);
    let dir = make(&stage, "stranger", LOG);
    let stranger = stage.node(
        "evil.js",
        args![&dir, "--lie", "capability", "--connect", &seeder.address],
    );
    stranger.assert_nothing_before("recv", "peer-close");

    let copy = stage.path("copy");
    clone(&stage, Side::Node, &copy, &[&seeder], &[]).result();
    check_whole(&stage, &copy, LOG);
}

/// The same when we are the one who connects.
#[test]
fn we_ask_only_who_knows_the_key() {
    let stage = Stage::new();
    let stranger = liar(&stage, "stranger", &["--lie", "capability"]);
    let (code, _) = clone(&stage, Side::Ours, &stage.path("copy"), &[&stranger], &[]).end();
    assert!(matches!(code, Some(1 | 6)), "exit code {code:?}");
    stranger.process.assert_nothing_before("recv", "peer-close");
}

/// Shows that the stranger of the tests above is one to Node too.
#[test]
fn node_tells_nothing_to_strangers() {
    let stage = Stage::new();
    let stranger = liar(&stage, "stranger", &["--lie", "capability"]);
    let reader = clone(&stage, Side::Node, &stage.path("copy"), &[&stranger], &[]);
    assert_eq!(
        reader.event("peer-close")["reason"],
        "Invalid remote channel capability"
    );
    stranger.process.assert_nothing_before("recv", "peer-close");
}
