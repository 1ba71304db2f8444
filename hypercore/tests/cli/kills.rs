//! The real program, killed at any moment: nothing that it said was stored is lost.
//!
//! `HYPERCORE_KILLS=1000 cargo test --release -p hypercore --features cli --test cli kills` kills
//! it more often. With `HYPERCORE_NODE_MODULES`, Node looks at every log afterwards.

use std::{
    env,
    io::{BufRead, BufReader},
    path::Path,
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use futures_lite::future::block_on;
use hypercore::Hypercore;
use serde_json::{Value, json};

use crate::process::{SEED, Scene};

/// How many kills there are in all; a fifth of them are of creations.
fn kills() -> u64 {
    let kills = env::var("HYPERCORE_KILLS").ok();
    kills.and_then(|kills| kills.parse().ok()).unwrap_or(20)
}

/// SplitMix64, so that a seed means the same everywhere.
fn random(state: &mut u64, below: u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (z ^ (z >> 31)) % below
}

/// Node opens the log of `length` blocks, finds each of them whole, and its signature right.
fn node_agrees(log: &Path, length: u64) {
    let Some(modules) = env::var_os("HYPERCORE_NODE_MODULES") else {
        return;
    };
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/node/check.js");
    let mut node = Command::new("node");
    let checked = node.env("NODE_PATH", modules).arg(script).arg(log).output();
    let checked = checked.expect("there is Node");
    let errors = String::from_utf8_lossy(&checked.stderr);
    assert!(checked.status.success(), "{errors}");
    let found: Value = serde_json::from_slice(&checked.stdout).expect("JSON");
    for (what, expected) in [
        ("length", json!(length)),
        ("valid", json!(length)),
        ("invalid", json!(0)),
        ("verified", json!(true)),
        ("writable", json!(true)),
    ] {
        assert_eq!(found[what], expected, "{what} in {found}");
    }
}

/// Somebody else who opens the log after a kill: it is whole, what was acknowledged is there, and
/// Node finds it whole, too.
fn check(scene: &Scene, acknowledged: u64, kill: u64) -> u64 {
    let verified = scene.run(["verify", "log", "--json"]).ok().json();
    assert_eq!(verified["problems"], json!([]), "kill {kill}");
    let info = scene.run(["info", "log", "--json"]).ok().json();
    let length = info["length"].as_u64().unwrap();
    assert!(
        length >= acknowledged,
        "kill {kill}: {acknowledged} told, {length} there"
    );
    assert_eq!(info["writable"], true, "kill {kill}");
    node_agrees(&scene.path("log"), length);
    length
}

/// Half of the kills: of one that appends lines as they come, and of one that appends a batch.
#[test]
fn a_killed_writer_loses_nothing_it_acknowledged() {
    let mut state = 7;
    let mut scene = Scene::new();
    scene.core("log", &[]);
    let mut found = 0;
    for kill in 0..kills().div_ceil(2) {
        if found > 25_000 {
            scene.run(["append", "log", "the end"]).ok();
            scene = Scene::new();
            scene.core("log", &[]);
            found = 0;
        }
        let batch = [1, 300, 20_000][random(&mut state, 3) as usize];
        let lines = (found..found + batch).map(|line| line.to_string());
        let as_one = random(&mut state, 2) == 0;
        let writer = if as_one {
            let args = ["append", "log", "--json"].map(String::from);
            scene.start(args.into_iter().chain(lines))
        } else {
            let flags = ["append", "log", "--lines", "--progress-json", "--json"];
            let mut writer = scene.start(flags);
            writer.say(lines.map(|line| line + "\n").collect::<String>());
            writer
        };
        let mut acknowledged = found;
        if !as_one && random(&mut state, 2) == 0 {
            acknowledged = writer.event("ack")["length"].as_u64().unwrap();
        }
        // In the middle of whatever comes next.
        let moment = if as_one { 4000 + 6 * batch } else { 8000 };
        thread::sleep(Duration::from_micros(random(&mut state, moment)));
        for event in writer.kill_and_hear() {
            acknowledged = event["length"].as_u64().unwrap();
        }

        let length = check(&scene, acknowledged, kill);
        let expected: String = (0..length).map(|line| line.to_string()).collect();
        assert!(
            scene.run(["cat", "log"]).ok().text() == expected,
            "kill {kill}"
        );
        // A batch is there as a whole or not at all.
        assert!(
            !as_one || [found, found + batch].contains(&length),
            "kill {kill}"
        );
        found = length;
    }
    scene.run(["append", "log", "the end"]).ok();
}

/// Where [`four_writers`] write, and how many blocks at once.
const FOUR_WRITERS: [&str; 2] = ["HYPERCORE_FOUR_WRITERS", "HYPERCORE_FOUR_WRITERS_BATCH"];

/// Three of ten kills, of a program with four writers at once.
#[test]
fn a_killed_program_of_four_writers_loses_nothing_it_acknowledged() {
    let mut state = 13;
    let mut scene = Scene::new();
    scene.core("log", &[]);
    let mut found = 0;
    for kill in 0..(3 * kills()).div_ceil(10) {
        if found > 25_000 {
            scene = Scene::new();
            scene.core("log", &[]);
            found = 0;
        }
        let batch = [1, 300, 5000][random(&mut state, 3) as usize];
        let mut writers = Command::new(env::current_exe().unwrap());
        let mut writers = writers
            .args(["--ignored", "--nocapture", "--exact", "kills::four_writers"])
            .env(FOUR_WRITERS[0], scene.path("log"))
            .env(FOUR_WRITERS[1], batch.to_string())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = BufReader::new(writers.stdout.take().unwrap()).lines();
        let mut lines = Vec::new();
        if random(&mut state, 4) > 0 {
            let first = said.by_ref().map(Result::unwrap);
            lines.extend(first.skip_while(|line| !line.starts_with("ack ")).take(1));
        }
        let moment = 2000 + 10 * batch;
        thread::sleep(Duration::from_micros(random(&mut state, moment)));
        writers.kill().unwrap();
        writers.wait().unwrap();
        lines.extend(said.map(Result::unwrap));

        let length = check(&scene, 0, kill);
        let read = scene.run(["cat", "log"]).ok();
        let text = read.text();
        let blocks: Vec<_> = text.split_terminator('\n').collect();
        assert_eq!(blocks.len() as u64, length);
        // Of each batch all blocks follow each other.
        let mut at = found as usize;
        while at < blocks.len() {
            let name = blocks[at].strip_suffix(" 0").expect("the first of a batch");
            for block in 0..batch {
                let expected = format!("{name} {block}");
                assert_eq!(blocks.get(at), Some(&&*expected), "kill {kill}");
                at += 1;
            }
        }
        // The last line can be torn.
        let whole = lines.iter().filter_map(|line| line.strip_suffix('.'));
        for ack in whole.filter_map(|line| line.strip_prefix("ack ")) {
            let (start, name) = ack.split_once(' ').unwrap();
            let start: usize = start.parse().unwrap();
            let expected = format!("{name} 0");
            assert_eq!(blocks.get(start), Some(&&*expected), "kill {kill}: {ack}");
        }
        found = length;
    }
    scene.run(["append", "log", "the end"]).ok();
}

/// Appends from four threads at once until it is killed, and says what is durable.
#[test]
#[ignore = "a program that another test starts and kills"]
fn four_writers() {
    let [directory, batch] = FOUR_WRITERS.map(|name| env::var(name).expect("another test set it"));
    let batch: u64 = batch.parse().unwrap();
    let core = block_on(Hypercore::open(directory)).unwrap();
    thread::scope(|scope| {
        for writer in 0..4 {
            let core = &core;
            scope.spawn(move || {
                for number in 0.. {
                    let name = format!("{writer}:{number}");
                    let blocks = (0..batch).map(|block| format!("{name} {block}\n"));
                    let stored = block_on(core.append_batch(blocks.collect::<Vec<_>>())).unwrap();
                    println!("ack {} {name}.", stored.start);
                }
            });
        }
    });
}

#[test]
fn a_killed_creation_can_be_made_again() {
    let mut state = 11;
    for kill in 0..kills().div_ceil(5) {
        let scene = Scene::new();
        let creation = scene.start(["create", "log", "--seed", SEED]);
        thread::sleep(Duration::from_micros(random(&mut state, 6000)));
        creation.kill();
        // Either it was done, or it is done now.
        let again = scene.run(["create", "log", "--seed", SEED]);
        assert!(matches!(again.code, Some(0 | 1)), "kill {kill}: {again:?}");
        scene.run(["append", "log", "a"]).ok();
        scene.run(["verify", "log"]).ok();
        node_agrees(&scene.path("log"), 1);
    }
}
