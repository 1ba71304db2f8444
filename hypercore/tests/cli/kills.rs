//! The real program, killed at any moment: nothing that it said was stored is lost.
//!
//! `HYPERCORE_KILLS=1000 cargo test --release -p hypercore --features cli --test cli kills` kills
//! it more often. With `HYPERCORE_NODE_MODULES`, Node looks at every log afterwards.

use std::{env, path::Path, process::Command, thread, time::Duration};

use serde_json::{Value, json};

use crate::process::{SEED, Scene};

/// SplitMix64, so that a seed means the same everywhere.
fn random(state: &mut u64, below: u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (z ^ (z >> 31)) % below
}

fn kills() -> u64 {
    let kills = env::var("HYPERCORE_KILLS").ok();
    kills.and_then(|kills| kills.parse().ok()).unwrap_or(20)
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

#[test]
fn a_killed_writer_loses_nothing_it_acknowledged() {
    let mut state = 7;
    let mut scene = Scene::new();
    scene.core("log", &[]);
    let (mut acknowledged, mut found) = (0, 0);
    for kill in 0..kills() {
        if kill % 50 == 49 {
            scene = Scene::new();
            scene.core("log", &[]);
            (acknowledged, found) = (0, 0);
        }
        let batch = [1, 300, 5000][random(&mut state, 3) as usize];
        let mut writer = scene.start(["append", "log", "--lines", "--progress-json", "--json"]);
        let lines: String = (found..found + 2 * batch)
            .map(|line| format!("{line}\n"))
            .collect();
        writer.say(lines);
        if random(&mut state, 2) == 0 {
            acknowledged = writer.event("ack")["length"].as_u64().unwrap();
        }
        // In the middle of whatever comes next.
        thread::sleep(Duration::from_micros(random(&mut state, 8000)));
        for event in writer.kill_and_hear() {
            acknowledged = event["length"].as_u64().unwrap();
        }

        let verified = scene.run(["verify", "log", "--json"]).ok().json();
        assert_eq!(verified["problems"], json!([]), "kill {kill}");
        let info = scene.run(["info", "log", "--json"]).ok().json();
        let length = info["length"].as_u64().unwrap();
        assert!(
            length >= acknowledged,
            "kill {kill}: {acknowledged} told, {length} there"
        );
        let expected: String = (0..length).map(|line| line.to_string()).collect();
        assert!(
            scene.run(["cat", "log"]).ok().text() == expected,
            "kill {kill}"
        );
        node_agrees(&scene.path("log"), length);
        (acknowledged, found) = (length, length);
    }
    scene.run(["append", "log", "the end"]).ok();
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
