//! Commands that need no peers.

use serde_json::json;

use crate::process::{KEY, SEED, Scene};

#[test]
fn create() {
    let scene = Scene::new();
    let made = scene.run(["create", "a", "--json"]).ok().json();
    assert_eq!(made["key"].as_str().map(str::len), Some(64));
    assert_eq!(made["discoveryKey"].as_str().map(str::len), Some(64));
    assert_eq!(made["writable"], true);

    let made = scene
        .run(["create", "deep/b", "--seed", SEED, "--json"])
        .ok();
    // The discovery key by libsodium's crypto_generichash of "hypercore" with the key.
    let expected = json!({
        "key": KEY,
        "discoveryKey": made.json()["discoveryKey"],
        "length": 0,
        "byteLength": 0,
        "writable": true,
    });
    assert_eq!(made.json(), expected);
    assert_eq!(
        scene.run(["info", "deep/b", "--json"]).ok().json()["discoveryKey"],
        expected["discoveryKey"]
    );

    let made = scene.run(["create", "c", "--seed", SEED]).ok();
    assert!(made.text().contains(KEY) && made.text().contains("`c`"));
    assert_eq!(made.stderr, "");
}

#[test]
fn append_arguments() {
    let scene = Scene::new();
    scene.core("log", &[]);
    let appended = scene.run(["append", "log", "one", "", "--json", "--", "--x"]);
    assert_eq!(
        appended.ok().events(),
        [json!({"length": 3, "byteLength": 6})]
    );
    assert_eq!(scene.run(["get", "log", "0"]).ok().stdout, b"one");
    assert_eq!(scene.run(["get", "log", "1"]).ok().stdout, b"");
    assert_eq!(scene.run(["get", "log", "2"]).ok().stdout, b"--x");

    let told = scene.run(["append", "log", "x"]).ok();
    assert!(told.text().contains("Appended 1 block;"), "{}", told.text());
    assert!(told.text().contains("4 blocks and 7 bytes"));

    // One batch has one signature, at its end.
    let signatures = scene.files("log")["signatures"].clone();
    let slots: Vec<_> = signatures[32..]
        .chunks(64)
        .map(|slot| slot != [0; 64])
        .collect();
    assert_eq!(slots, [false, false, true, true]);
}

#[cfg(unix)]
#[test]
fn append_arguments_that_are_no_text() {
    use std::{ffi::OsStr, os::unix::ffi::OsStrExt};
    let scene = Scene::new();
    scene.core("log", &[]);
    let block = OsStr::from_bytes(&[0xff, 0x80]);
    scene
        .run([OsStr::new("append"), OsStr::new("log"), block])
        .ok();
    assert_eq!(scene.run(["get", "log", "0"]).ok().stdout, [0xff, 0x80]);
}

#[test]
fn append_lines() {
    let scene = Scene::new();
    scene.core("log", &[]);
    let appended = scene
        .feed(["append", "log", "--lines", "--json"], b"a\n\nb\r\nend")
        .ok();
    assert_eq!(appended.json(), json!({"length": 4, "byteLength": 6}));
    assert_eq!(scene.run(["cat", "log"]).ok().stdout, b"ab\rend");

    let nothing = scene.feed(["append", "log", "--lines", "--json"], b"").ok();
    assert_eq!(nothing.events(), [json!({"length": 4, "byteLength": 6})]);
}

/// Each answer is for what was said before, while the command goes on.
#[test]
fn append_acknowledges() {
    let scene = Scene::new();
    scene.core("log", &[]);
    let mut process = scene.start(["append", "log", "--lines", "--progress-json", "--json"]);
    for length in 1..=3 {
        process.say("line\n");
        assert_eq!(process.next(), json!({"event": "ack", "length": length}));
    }
    process.say("last\n");
    process.hush();
    assert_eq!(process.next(), json!({"event": "ack", "length": 4}));
    assert_eq!(
        process.end().ok().events(),
        [json!({"length": 4, "byteLength": 16})]
    );
}

/// What was acknowledged survives a kill.
#[test]
fn an_acknowledged_line_is_safe() {
    let scene = Scene::new();
    scene.core("log", &[]);
    let mut process = scene.start(["append", "log", "--lines", "--progress-json"]);
    process.say("a\nb\n");
    while process.event("ack")["length"] != 2 {}
    process.kill();
    assert_eq!(scene.run(["cat", "log"]).ok().stdout, b"ab");
    scene.run(["append", "log", "c"]).ok();
    assert_eq!(scene.run(["cat", "log"]).ok().stdout, b"abc");
}

#[test]
fn append_a_file() {
    let scene = Scene::new();
    scene.core("log", &[]);
    let bytes: Vec<u8> = (0..200_000_u32).flat_map(u32::to_le_bytes).collect();
    std::fs::write(scene.path("file"), &bytes).unwrap();
    let appended = scene
        .run(["append", "log", "--file", "file", "--json"])
        .ok();
    assert_eq!(
        appended.json(),
        json!({"length": 800_000_u64.div_ceil(65_536), "byteLength": 800_000})
    );
    assert!(scene.run(["cat", "log"]).ok().stdout == bytes);

    // More blocks than one batch has, and more batches than wait for each other.
    scene.core("piped", &[]);
    let args = [
        "append",
        "piped",
        "--file",
        "-",
        "--block-size",
        "100",
        "--json",
        "--progress-json",
    ];
    let appended = scene.feed(args, &bytes[..99_950]).ok();
    let mut events = appended.events();
    assert_eq!(
        events.pop(),
        Some(json!({"length": 1000, "byteLength": 99_950}))
    );
    let acks: Vec<_> = events.iter().map(|ack| ack["length"].as_u64()).collect();
    let expected: Vec<_> = (1..16)
        .map(|batch| Some(batch * 64))
        .chain([Some(1000)])
        .collect();
    assert_eq!(acks, expected);
    assert!(scene.run(["cat", "piped"]).ok().stdout == bytes[..99_950]);
    assert_eq!(
        scene.run(["get", "piped", "999"]).ok().stdout,
        &bytes[99_900..99_950]
    );
}

/// Lines that come faster than they are written are gathered, and none is lost.
#[test]
fn append_many_lines() {
    let scene = Scene::new();
    scene.core("log", &[]);
    let lines: String = (0..200_000).map(|i| format!("{i}\n")).collect();
    let appended = scene
        .feed(["append", "log", "--lines", "--json"], lines.as_bytes())
        .ok();
    assert_eq!(appended.json()["length"], 200_000);
    assert!(scene.run(["cat", "log"]).ok().text() == lines.replace('\n', ""));
}

#[test]
fn cat_parts() {
    let scene = Scene::new();
    scene.core("log", &["a", "b", "c", "d"]);
    for (args, expected) in [
        (&[][..], "abcd"),
        (&["--start", "1"], "bcd"),
        (&["--end", "2"], "ab"),
        (&["--start", "1", "--end", "3"], "bc"),
        (&["--start", "4"], ""),
    ] {
        let cat = scene.run(["cat", "log"].iter().chain(args)).ok();
        assert_eq!(cat.text(), expected, "{args:?}");
    }
    scene
        .run(["cat", "log", "--end", "5"])
        .fails(1, &["0..5", "`log`", "4 blocks"]);
    scene
        .run(["cat", "log", "--start", "3", "--end", "2"])
        .fails(1, &["3..2"]);
    scene.core("empty", &[]);
    assert_eq!(scene.run(["cat", "empty"]).ok().stdout, b"");
}

/// Who reads no further is not an error.
#[test]
fn cat_into_a_pipe_that_closes() {
    let scene = Scene::new();
    scene.core("log", &[]);
    scene
        .feed(["append", "log", "--file", "-"], &vec![7; 4_000_000])
        .ok();
    let binary = env!("CARGO_BIN_EXE_hypercore");
    let script = format!("{binary} cat log | head -c 1 >/dev/null; echo ${{PIPESTATUS[0]}}");
    let done = std::process::Command::new("bash")
        .args(["-c", &script])
        .current_dir(scene.path(""))
        .output()
        .unwrap();
    assert_eq!(done.stdout, b"0\n");
    assert_eq!(done.stderr, b"");
}

#[test]
fn info() {
    let scene = Scene::new();
    scene.core("log", &["abc", "de"]);
    let info = scene.run(["info", "log", "--json"]).ok().json();
    assert_eq!(info["key"], KEY);
    assert_eq!(info["length"], 2);
    assert_eq!(info["byteLength"], 5);
    assert_eq!(info["writable"], true);
    assert_eq!(info["downloaded"], 2);
    let told = scene.run(["info", "log"]).ok();
    for words in [KEY, "2 blocks, 5 bytes", "yes"] {
        assert!(told.text().contains(words), "{}", told.text());
    }
}

#[test]
fn seek() {
    let scene = Scene::new();
    scene.core("log", &["abc", "", "de"]);
    for (byte, index, offset) in [(0, 0, 0), (2, 0, 2), (3, 2, 0), (4, 2, 1), (5, 3, 0)] {
        let found = scene.run(["seek", "log", &byte.to_string(), "--json"]).ok();
        assert_eq!(
            found.json(),
            json!({"index": index, "offset": offset}),
            "byte {byte}"
        );
    }
    let told = scene.run(["seek", "log", "4"]).ok();
    assert_eq!(told.text(), "Byte 4 is byte 1 of block 2.\n");
    let told = scene.run(["seek", "log", "5"]).ok();
    assert_eq!(
        told.text(),
        "Byte 5 is the end: the core has 3 blocks, 5 bytes.\n"
    );
    scene
        .run(["seek", "log", "6"])
        .fails(1, &["no byte 6", "`log`", "5 bytes"]);
}

#[test]
fn clear() {
    let scene = Scene::new();
    scene.core("log", &["a", "b", "c", "d"]);
    let cleared = scene.run(["clear", "log", "1", "--json"]).ok();
    assert_eq!(cleared.json(), json!({"downloaded": 3}));
    let cleared = scene.run(["clear", "log", "0", "3"]).ok();
    assert_eq!(
        cleared.text(),
        "Dropped 2 blocks; 1 of 4 blocks are stored now.\n"
    );
    assert_eq!(
        scene.run(["info", "log", "--json"]).ok().json()["downloaded"],
        1
    );

    scene
        .run(["get", "log", "1"])
        .fails(1, &["block 1 is not stored", "`log`", KEY]);
    let cat = scene
        .run(["cat", "log"])
        .fails(1, &["block 0 is not stored"]);
    assert_eq!(cat.stdout, b"");
    assert_eq!(scene.run(["get", "log", "3"]).ok().stdout, b"d");
    // What is left is still proven, and can be appended to.
    scene.run(["append", "log", "e"]).ok();
    assert_eq!(
        scene.run(["audit", "log", "--json"]).ok().json(),
        json!({"valid": 2, "invalid": 0})
    );
    scene
        .run(["clear", "log", "4", "7"])
        .fails(1, &["4..7", "5 blocks"]);
}

#[test]
fn audit() {
    let scene = Scene::new();
    scene.core("log", &["aa", "bb", "cc"]);
    let audit = scene.run(["audit", "log", "--json"]).ok();
    assert_eq!(audit.json(), json!({"valid": 3, "invalid": 0}));
    assert_eq!(
        scene.run(["audit", "log"]).ok().text(),
        "3 blocks checked, no damage.\n"
    );

    scene.damage("log/data", 3);
    let before = scene.files("log");
    let audit = scene
        .run(["audit", "log", "--json"])
        .fails(3, &["`log`", "damaged: block 1 does not match its hash;"]);
    assert_eq!(audit.json(), json!({"valid": 2, "invalid": 1}));
    scene
        .run(["get", "log", "1"])
        .fails(3, &["`log`", "block 1"]);
    let cat = scene.run(["cat", "log"]).fails(3, &["`log`", "block 1"]);
    assert_eq!(cat.stdout, b"aa", "what comes before the damage is good");
    assert_eq!(scene.run(["get", "log", "2"]).ok().stdout, b"cc");
    assert_eq!(scene.files("log"), before);
}

/// Commands that change nothing leave the directory as it was, whether they succeed or fail.
#[test]
fn reading_changes_nothing() {
    let scene = Scene::new();
    scene.core("log", &["aa", "bb", "cc"]);
    scene.core("empty", &[]);
    std::fs::create_dir(scene.path("nothing")).unwrap();
    for dir in ["log", "empty", "nothing"] {
        let before = scene.files(dir);
        for args in [
            &["info", dir][..],
            &["info", dir, "--json"],
            &["get", dir, "1"],
            &["get", dir, "9"],
            &["cat", dir],
            &["seek", dir, "3"],
            &["audit", dir],
            &["clear", dir, "7", "9"],
            &["create", dir, "--bad"],
        ] {
            scene.run(args);
            assert_eq!(scene.files(dir), before, "{args:?}");
        }
        if dir != "nothing" {
            scene.run(["create", dir]).fails(1, &[dir, KEY]);
            assert_eq!(scene.files(dir), before);
            let (server, _) = scene.serve(dir, &[]);
            server.stop().ok();
            assert_eq!(scene.files(dir), before, "serve");
        }
    }
    let (check, create) = ("check the path", "hypercore create missing");
    for (args, advice) in [
        (&["info", "missing"][..], check),
        (&["get", "missing", "0"], check),
        (&["cat", "missing"], check),
        (&["seek", "missing", "0"], check),
        (&["audit", "missing"], check),
        (&["append", "missing", "a"], create),
        (&["clear", "missing", "0"], check),
        (&["serve", "missing"], create),
    ] {
        scene
            .run(args)
            .fails(1, &["`missing` does not exist", advice]);
        assert!(!scene.path("missing").exists(), "{args:?}");
    }
}
