//! Connections over TCP. Every scenario runs for each pair of sides; Node with Node shows that the scenario is right.

use crate::blocks::{Spec, block};
use crate::files::{self, LOG};
use crate::peers::{Seeder, Side, check, check_whole, clone, make};
use crate::stage::{Process, Stage};

/// Empty blocks, big blocks, and more blocks than one page of the bitfield has.
const LOGS: [Spec; 4] = [
    Spec("1*5"),
    Spec("4*11,1*0,1*2097152,3*1"),
    Spec("100*1000,2*0"),
    Spec("9000*30,1*0"),
];

/// A download of everything, which ends by itself.
fn whole(from: Side, to: Side) {
    for spec in LOGS {
        let stage = Stage::new();
        let origin = make(&stage, "origin", spec);
        let seeder = Seeder::new(&stage, from, &origin, &[]);
        let copy = stage.path("copy");
        let synced = clone(&stage, to, &copy, &[&seeder], &[]).result();
        assert_eq!(synced["event"], "synced");
        assert_eq!(synced["length"], spec.length());
        assert_eq!(synced["byteLength"], spec.byte_length());
        assert_eq!(synced["downloaded"], spec.length());
        seeder.stop();

        files::assert_same(&copy, &origin, &LOG);
        files::assert_same(&copy, &origin, &["key"]);
        assert_eq!(
            files::signature(&copy, spec.length()),
            files::signature(&origin, spec.length())
        );
        let report = check_whole(&stage, &copy, spec);
        assert_eq!(report["writable"], false);
    }
}

/// Three readers at once, each of which gets everything.
fn three_readers(from: Side, to: Side) {
    let spec = Spec("500*100");
    let stage = Stage::new();
    let seeder = Seeder::new(&stage, from, &make(&stage, "origin", spec), &[]);
    let copies = ["a", "b", "c"].map(|name| stage.path(name));
    let readers = copies
        .each_ref()
        .map(|copy| clone(&stage, to, copy, &[&seeder], &[]));
    for (reader, copy) in readers.into_iter().zip(&copies) {
        assert_eq!(reader.result()["downloaded"], spec.length());
        check_whole(&stage, copy, spec);
    }
}

/// Only some blocks, far apart, of a log of two pages; then some more, into the same clone.
fn sparse(from: Side, to: Side) {
    let spec = Spec("9000*20");
    let stage = Stage::new();
    let seeder = Seeder::new(&stage, from, &make(&stage, "origin", spec), &[]);
    let copy = stage.path("copy");
    let ranges: &[&str] = match to {
        Side::Node => &["--sparse", "--range", "3..5,1000..1010,8999"],
        Side::Ours => &[
            "--sparse",
            "--range",
            "3..5",
            "--range",
            "1000..1010",
            "--range",
            "8999..9000",
        ],
    };
    let synced = clone(&stage, to, &copy, &[&seeder], ranges).result();
    assert_eq!(synced["length"], spec.length());
    assert_eq!(synced["downloaded"], 13);
    let report = check(&stage, &copy, spec);
    assert_eq!(report["valid"], 13);

    let next = ["--sparse", "--range", "8190..8200"];
    let synced = clone(&stage, to, &copy, &[&seeder], &next).result();
    assert_eq!(synced["downloaded"], 23);
    check(&stage, &copy, spec);
}

/// Blocks that are appended while the reader is connected, one batch after the other.
fn live(from: Side, to: Side) {
    let stage = Stage::new();
    let origin = make(&stage, "origin", Spec("3*10"));
    let mut seeder = Seeder::new(&stage, from, &origin, &["--lines"]);
    let copy = stage.path("copy");
    let reader = clone(&stage, to, &copy, &[&seeder], &["--live"]);
    await_blocks(&reader, 0..3);

    for (start, batch) in [
        (3, "1*0"),
        (4, "1*8"),
        (5, "40*100"),
        (45, "1*1000000"),
        (46, "1*1"),
    ] {
        let batch = Spec(batch);
        seeder.process.say(batch.lines_from(start));
        await_blocks(&reader, start..start + batch.length());
    }

    reader.terminate();
    reader.output();
    seeder.stop();
    let spec = Spec("3*10,1*0,1*8,40*100,1*1000000,1*1");
    check_whole(&stage, &copy, spec);
    check_whole(&stage, &origin, spec);
    files::assert_same(&copy, &origin, &LOG);
}

/// A log that was empty when the reader came.
fn live_from_nothing(from: Side, to: Side) {
    let stage = Stage::new();
    let mut seeder = Seeder::new(
        &stage,
        from,
        &make(&stage, "origin", Spec("")),
        &["--lines"],
    );
    let copy = stage.path("copy");
    let reader = clone(&stage, to, &copy, &[&seeder], &["--live"]);
    reader.event("peer-open");
    seeder.process.say(Spec("2*5").lines_from(0));
    await_blocks(&reader, 0..2);
    reader.terminate();
    reader.output();
    check_whole(&stage, &copy, Spec("2*5"));
}

/// Six peers of which each has a sixth: only all together have the log.
fn six_parts(from: Side, to: Side) {
    let spec = Spec("1200*50");
    let stage = Stage::new();
    let origin = Seeder::new(&stage, Side::Node, &make(&stage, "origin", spec), &[]);
    let parts: Vec<Seeder> = (0..6)
        .map(|k| {
            let name = format!("part {k}");
            let part = Seeder::part(&stage, &name, &origin, ["--part", &format!("{k}/6")]);
            match from {
                Side::Node => part,
                Side::Ours => {
                    part.stop();
                    Seeder::new(&stage, from, &stage.path(&name), &[])
                }
            }
        })
        .collect();
    origin.stop();

    let copy = stage.path("copy");
    let synced = clone(&stage, to, &copy, &parts.iter().collect::<Vec<_>>(), &[]).result();
    assert_eq!(synced["downloaded"], spec.length());
    check_whole(&stage, &copy, spec);
}

/// A reader that is killed halfway, and goes on from what it has.
fn killed(from: Side, to: Side) {
    const HALF: usize = 3000;
    let spec = Spec("5000*60");
    let stage = Stage::new();
    let dir = make(&stage, "origin", spec);
    let origin = Seeder::new(&stage, Side::Node, &dir, &[]);
    let half = Seeder::part(&stage, "half", &origin, ["--have", &format!("0..{HALF}")]);
    origin.stop();

    let copy = stage.path("copy");
    let reader = clone(&stage, to, &copy, &[&half], &["--live"]);
    await_blocks(&reader, 0..HALF);
    reader.kill();

    let seeder = Seeder::new(&stage, from, &dir, &[]);
    let synced = clone(&stage, to, &copy, &[&seeder], &[]).result();
    assert_eq!(synced["downloaded"], spec.length());
    let told = seeder.stop();
    if from == Side::Node {
        // A kill may lose what was not yet noted as stored, not all of it.
        let uploaded = told
            .iter()
            .filter(|event| event["event"] == "upload")
            .count();
        let missing = spec.length() - HALF;
        assert!(
            (missing..missing + HALF / 2).contains(&uploaded),
            "fetched {uploaded} blocks for {missing}"
        );
    }
    check_whole(&stage, &copy, spec);
}

/// Waits until the reader has stored each of these blocks.
fn await_blocks(reader: &Process, blocks: std::ops::Range<usize>) {
    let mut missing: std::collections::BTreeSet<usize> = blocks.collect();
    while !missing.is_empty() {
        let event = reader.event("download");
        let index = event["index"].as_u64().expect("a download has an index");
        missing.remove(&usize::try_from(index).expect("a small index"));
    }
}

macro_rules! between {
    ($($sides:ident: $from:ident => $to:ident;)*) => {$(
        mod $sides {
            use crate::peers::Side::{$from as From, $to as To};

            between!(@ From To: whole three_readers sparse live live_from_nothing six_parts killed);
        }
    )*};
    (@ $from:ident $to:ident: $($scenario:ident)*) => {$(
        #[test]
        fn $scenario() {
            super::$scenario($from, $to);
        }
    )*};
}

between! {
    node_to_node: Node => Node;
    node_to_ours: Node => Ours;
    ours_to_node: Ours => Node;
    ours_to_ours: Ours => Ours;
}

/// Node asks us to acknowledge what we store, and is told of every block.
#[test]
fn we_acknowledge() {
    let spec = Spec("20*10");
    let stage = Stage::new();
    let seeder = Seeder::new(
        &stage,
        Side::Node,
        &make(&stage, "origin", spec),
        &["--ack"],
    );
    clone(&stage, Side::Ours, &stage.path("copy"), &[&seeder], &[]).result();
    let told = seeder.stop();
    let mut acks: Vec<u64> = told
        .iter()
        .filter(|event| event["event"] == "ack")
        .filter_map(|event| event["start"].as_u64())
        .collect();
    acks.sort_unstable();
    assert_eq!(acks, (0..20).collect::<Vec<_>>());
}

/// Two peers that only know the end of the conversation by what is said: Node closes the channel when both are done.
#[test]
fn a_peer_that_is_not_live_ends_the_connection() {
    let spec = Spec("50*10");
    let stage = Stage::new();
    let seeder = Seeder::new(
        &stage,
        Side::Node,
        &make(&stage, "origin", spec),
        &["--finite"],
    );
    let copy = stage.path("copy");
    assert_eq!(
        clone(&stage, Side::Ours, &copy, &[&seeder], &[]).result()["downloaded"],
        50
    );
    assert_eq!(
        seeder.process.event("peer-close")["reason"],
        serde_json::Value::Null
    );
    check_whole(&stage, &copy, spec);
}

/// Node finds a byte of our log without having the log.
#[test]
fn node_seeks_in_our_log() {
    let spec = Spec("100*7,1*0,900*13");
    let stage = Stage::new();
    let seeder = Seeder::new(&stage, Side::Ours, &make(&stage, "origin", spec), &[]);
    for (name, byte, index, offset) in [
        ("a", 0, 0, 0),
        ("b", 699, 99, 6),
        ("c", 700, 101, 0),
        ("d", 12_399, 1000, 12),
    ] {
        let flags = ["--sparse", "--seek", &byte.to_string()];
        let found = clone(&stage, Side::Node, &stage.path(name), &[&seeder], &flags).event("seek");
        assert_eq!(
            (&found["index"], &found["offset"]),
            (&index.into(), &offset.into()),
            "byte {byte}"
        );
    }
}

/// What Node stores of a log of ours is what the blocks are, told by their hashes.
#[test]
fn node_stores_what_we_send() {
    let stage = Stage::new();
    let seeder = Seeder::new(
        &stage,
        Side::Ours,
        &make(&stage, "origin", Spec("8*100")),
        &[],
    );
    let reader = clone(
        &stage,
        Side::Node,
        &stage.path("copy"),
        &[&seeder],
        &["--sparse", "--range", "5"],
    );
    let stored = reader.event("download");
    assert_eq!(stored["index"], 5);
    let leaf = hypercore::merkle::leaf_hash(&block(5, 100));
    assert_eq!(stored["hash"], hex::encode(leaf));
}
