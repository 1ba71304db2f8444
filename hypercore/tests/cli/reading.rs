//! `get` and `cat`: over the network, and of what another process writes.

use std::{
    thread,
    time::{Duration, Instant},
};

use serde_json::json;

use crate::process::{KEY, Scene, await_downloads};

/// A sparse clone in `copy` that knows the length of `log` and has no block.
fn empty_copy(scene: &Scene, address: &str) {
    let arguments = ["clone", KEY, "copy", "--sparse", "--connect", address];
    scene.run(arguments).ok();
    let info = scene.run(["info", "copy", "--json"]).ok().json();
    assert_eq!(
        (&info["length"], &info["downloaded"]),
        (&json!(3), &json!(0))
    );
}

#[test]
fn get_fetches_a_block_once() {
    let scene = Scene::new();
    scene.core("log", &["one", "two", "three"]);
    let (server, address) = scene.serve("log", &[]);
    empty_copy(&scene, &address);
    let command = format!("hypercore clone {KEY} copy --connect");
    let words = ["`copy`", "with --connect", &command];
    scene.run(["get", "copy", "1"]).fails(1, &words);
    let bytes = ["cat", "copy", "--bytes", "4..5"];
    scene.run(bytes).fails(1, &words);
    let block = scene.run(["get", "copy", "1", "--connect", &address]).ok();
    assert_eq!(block.stdout, b"two");
    drop(server);
    // It is stored: nobody has to be there, and nothing changes.
    let before = scene.files("copy");
    let again = scene.run(["get", "copy", "1", "--connect", &address]).ok();
    assert_eq!(again.stdout, b"two");
    assert_eq!(scene.files("copy"), before);
    scene
        .run(["get", "copy", "2", "--connect", &address])
        .fails(1, &["no peer with the core", KEY, &address]);
}

#[test]
fn get_by_key_stores_nothing() {
    let scene = Scene::new();
    scene.core("log", &["one", "two", "three"]);
    let (_server, address) = scene.serve("log", &[]);
    let key = format!("hyper://{KEY}");
    let block = scene.run(["get", &key, "2", "--connect", &address]).ok();
    assert_eq!(block.stdout, b"three");
    assert!(!scene.path(KEY).exists());
}

#[test]
fn get_says_what_it_waits_for() {
    let scene = Scene::new();
    scene.core("log", &["one", "two", "three"]);
    let (mut server, address) = scene.serve("log", &["--lines"]);
    let reader = scene.start(["get", KEY, "3", "--connect", &address, "--timeout", "20"]);
    server.event("peer-open");
    reader.stop().fails(6, &["interrupted", KEY, "again"]);
    scene
        .run(["get", KEY, "3", "--connect", &address])
        .fails(6, &["block 3", "3 blocks", "--timeout"]);
    scene
        .run(["get", KEY, "3", "--connect", &address, "--timeout", "1"])
        .fails(6, &["block 3 of", KEY, "in time", "3 blocks"]);
    // A block that is appended meanwhile.
    let reader = scene.start(["get", KEY, "3", "--connect", &address, "--timeout", "20"]);
    server.event("peer-open");
    server.say("four\n");
    assert_eq!(reader.end().ok().stdout, b"four");
    scene
        .run(["get", KEY, "3", "--connect", &address, "--timeout", "soon"])
        .fails(2, &["seconds"]);
}

/// One that takes calls and says nothing is not waited for longer than a block.
#[cfg(unix)]
#[test]
fn a_silent_peer_takes_no_longer_than_a_block() {
    let scene = Scene::new();
    scene.core("log", &["one", "two", "three"]);
    let (server, address) = scene.serve("log", &[]);
    server.signal("-STOP");
    let words = [KEY, "within 500ms", &address, "no answer", "--timeout"];
    for args in [&["get", KEY, "1"][..], &["cat", KEY]] {
        let start = Instant::now();
        let flags = ["--connect", &address, "--timeout", "0.5"];
        scene.run(args.iter().chain(&flags)).fails(1, &words);
        // The handshake has ten.
        assert!(start.elapsed() < Duration::from_secs(8));
    }
}

#[test]
fn cat_reads_bytes_of_a_key() {
    let scene = Scene::new();
    scene.core("log", &["one", "", "two", "three"]);
    let (_server, address) = scene.serve("log", &[]);
    for (range, expected) in [
        ("0..11", "onetwothree"),
        ("2..7", "etwot"),
        ("4..", "wothree"),
        ("..1", "o"),
        ("3..6", "two"),
    ] {
        let there = ["cat", KEY, "--connect", &address, "--bytes", range];
        assert_eq!(scene.run(there).ok().text(), expected, "{range}");
    }
    let beyond = ["cat", KEY, "--connect", &address, "--bytes", "2..12"];
    scene.run(beyond).fails(1, &["2..12", "11 bytes"]);
    drop(_server);
    for (range, expected) in [("2..7", "etwot"), ("..", "onetwothree")] {
        let here = scene.run(["cat", "log", "--bytes", range]).ok();
        assert_eq!(here.text(), expected, "{range}");
    }
}

#[test]
fn cat_reads_a_long_log_of_a_key() {
    let scene = Scene::new();
    scene.core("log", &[]);
    let bytes: Vec<u8> = (0..40_000_000_u32).map(|i| (i % 251) as u8).collect();
    std::fs::write(scene.path("file"), &bytes).unwrap();
    let append = ["append", "log", "--file", "file", "--block-size", "9999"];
    scene.run(append).ok();
    let (_server, address) = scene.serve("log", &[]);
    let read = scene.run(["cat", KEY, "--connect", &address]).ok();
    assert!(read.stdout == bytes, "{} bytes", read.stdout.len());
}

#[test]
fn follow_what_another_process_appends() {
    let scene = Scene::new();
    scene.core("log", &["one\n"]);
    let reader = scene.start(["cat", "log", "--follow"]);
    assert_eq!(reader.text(), "one\n");
    // It is not in the way of those who append.
    scene.run(["append", "log", "two\n", "three\n"]).ok();
    assert_eq!(
        (reader.text(), reader.text()),
        ("two\n".into(), "three\n".into())
    );
    let (mut server, _) = scene.serve("log", &["--lines"]);
    server.say("four\n");
    server.event("append");
    server.say("five\n");
    server.event("append");
    drop(server);
    scene.run(["append", "log", "\n", "six\n"]).ok();
    assert_eq!(reader.text(), "fourfive\n");
    assert_eq!(reader.text(), "six\n");
    assert_eq!(reader.stop().ok().text(), "");
}

#[test]
fn a_log_of_lines_is_read_as_lines() {
    let scene = Scene::new();
    scene.core("log", &["one", "", "two"]);
    for follow in [&["--lines"][..], &["--lines", "--follow", "--end", "3"]] {
        let cat = scene.run(["cat", "log"].iter().chain(follow)).ok();
        assert_eq!(cat.text(), "one\n\ntwo\n");
    }
    scene
        .run(["cat", "log", "--lines", "--bytes", "0..2"])
        .fails(2, &["--bytes"]);
    let (_server, address) = scene.serve("log", &[]);
    let cat = scene.run(["cat", KEY, "--lines", "--connect", &address]);
    assert_eq!(cat.ok().text(), "one\n\ntwo\n");
}

/// What is cleared at its origin is only to be had from those who have it.
#[test]
fn blocks_that_the_original_has_dropped() {
    let scene = Scene::new();
    scene.core("log", &["one", "two"]);
    let (server, address) = scene.serve("log", &[]);
    scene
        .run(["clone", KEY, "copy", "--connect", &address])
        .ok();
    server.stop().ok();
    let done = scene.run(["clear", "log", "0"]).ok();
    assert!(done.stderr.contains("is the original"), "{}", done.stderr);
    assert_eq!(scene.run(["clear", "log", "0"]).ok().stderr, "");
    let done = scene.run(["get", "log", "0"]);
    let advice = ["which is the original of", "get log 0 --connect"];
    assert!(!done.fails(1, &advice).stderr.contains("clone"));
    let (server, address) = scene.serve("copy", &[]);
    let got = scene.run(["get", "log", "0", "--connect", &address]).ok();
    assert_eq!(got.text(), "one");
    server.stop().ok();
    assert_eq!(scene.run(["clear", "copy", "0"]).ok().stderr, "");
}

#[test]
fn follow_to_an_end() {
    let scene = Scene::new();
    scene.core("log", &["one\n", "two\n"]);
    let reader = scene.start(["cat", "log", "-f", "--start", "1", "--end", "3"]);
    assert_eq!(reader.text(), "two\n");
    scene.run(["append", "log", "three\n", "four\n"]).ok();
    assert_eq!(reader.end().ok().text(), "three\n");
    scene
        .run(["cat", "nothing", "--follow"])
        .fails(1, &["`nothing`", "does not exist"]);
}

#[test]
fn follow_a_clone_that_another_process_fills() {
    let scene = Scene::new();
    scene.core("log", &["one\n", "two\n"]);
    let (mut server, address) = scene.serve("log", &["--lines"]);
    let clone = scene.start([
        "clone",
        KEY,
        "copy",
        "--live",
        "--json",
        "--connect",
        &address,
    ]);
    clone.event("synced");
    let reader = scene.start(["cat", "copy", "--follow", "--end", "4"]);
    assert_eq!(
        (reader.text(), reader.text()),
        ("one\n".into(), "two\n".into())
    );
    server.say("three\nfour\n");
    assert_eq!(reader.end().ok().text(), "threefour");
    clone.stop().ok();
}

#[test]
fn follow_over_the_network() {
    let scene = Scene::new();
    scene.core("log", &["one\n"]);
    let (mut server, address) = scene.serve("log", &["--lines"]);
    let reader = scene.start(["cat", KEY, "--follow", "--connect", &address, "--end", "4"]);
    assert_eq!(reader.text(), "one\n");
    server.say("two\n\nthree\n");
    assert_eq!(reader.end().ok().text(), "twothree");
    let reader = scene.start(["cat", KEY, "--follow", "--connect", &address]);
    assert_eq!(reader.text(), "one\n");
    reader.stop().ok();
}

/// No log grows so far, which is an answer and no reason to break off.
#[test]
fn follow_from_the_end_of_all_numbers() {
    let scene = Scene::new();
    scene.core("log", &["one"]);
    let (server, address) = scene.serve("log", &[]);
    for start in [u64::MAX - 5, u64::MAX - 1] {
        let start = start.to_string();
        let follow = ["cat", KEY, "--follow", "--start", &start];
        scene
            .run(follow.iter().chain(&["--connect", &address]))
            .fails(1, &["do not lie within the log"]);
    }
    server.stop().ok();
}

/// It was waited for as if it were still to come.
#[test]
fn follow_does_not_wait_for_what_is_rotten() {
    let scene = Scene::new();
    scene.core("log", &["one\n", "two\n"]);
    let (mut server, address) = scene.serve("log", &["--lines"]);
    scene
        .run(["clone", KEY, "copy", "--connect", &address])
        .ok();
    let clone = scene.start([
        "clone",
        KEY,
        "copy",
        "--live",
        "--json",
        "--connect",
        &address,
    ]);
    clone.event("synced");
    // Of this block the writer may not have noted yet that it is there.
    server.say("three\n");
    server.event("append");
    await_downloads(&clone, 2..3);
    for (dir, offset, block) in [("log", 5, "1"), ("log", 9, "2"), ("copy", 5, "1")] {
        scene.damage(format!("{dir}/data"), offset);
        let block_words = format!("block {block} of the core in `{dir}` is damaged");
        let cure = format!("`hypercore repair {dir} --connect ADDR:PORT`");
        let done = scene.run(["cat", dir, "--follow", "--start", block]);
        let told = done.fails(3, &[&block_words, &cure]).stderr;
        assert!(!told.contains("waiting"), "{told}");
        scene.damage(format!("{dir}/data"), offset);
    }
    clone.stop().ok();
    server.stop().ok();
}

/// What was dropped may come back.
#[test]
fn follow_waits_for_what_was_cleared() {
    let scene = Scene::new();
    scene.core("log", &["one\n", "two\n"]);
    let (server, address) = scene.serve("log", &[]);
    scene
        .run(["clone", KEY, "copy", "--connect", &address])
        .ok();
    server.stop().ok();
    scene.run(["clear", "log", "0"]).ok();
    let reader = scene.start(["cat", "log", "--follow", "--end", "1"]);
    assert!(reader.complaint().contains("is not stored in `log` yet"));
    // Nothing is to happen in the time in which damage would be found.
    thread::sleep(Duration::from_millis(2500));
    let (server, address) = scene.serve("copy", &[]);
    scene.run(["get", "log", "0", "--connect", &address]).ok();
    assert_eq!(reader.end().ok().text(), "one\n");
    server.stop().ok();
}
