//! `peers` and `stats`: a running process is asked about itself.

#[cfg(unix)]
use std::time::{Duration, Instant};

use serde_json::json;

#[cfg(unix)]
use crate::process::in_shell;
use crate::process::{KEY, Process, Scene};

/// A clone of `log` that has everything and stays connected.
fn follower(scene: &Scene, address: &str) -> Process {
    let arguments = [
        "clone",
        KEY,
        "copy",
        "--live",
        "--json",
        "--connect",
        address,
    ];
    let clone = scene.start(arguments);
    clone.event("synced");
    clone
}

#[test]
fn both_ends_of_a_connection_are_told() {
    let scene = Scene::new();
    scene.core("log", &["one", "two"]);
    let (server, address) = scene.serve("log", &[]);
    assert_eq!(scene.run(["peers", "log"]).ok().text(), "");
    let nobody = scene.run(["stats", "log", "--json"]).ok().json();
    assert_eq!(
        (&nobody["peers"], &nobody["uploadedBytes"]),
        (&json!(0), &json!(0))
    );

    let clone = follower(&scene, &address);
    let there = scene.run(["peers", "log", "--json"]).ok().json();
    assert_eq!(
        (&there["opened"], &there["uploadedBytes"]),
        (&json!(true), &json!(6))
    );
    let words = scene.run(["peers", "log"]).ok();
    assert!(
        words.text().contains("sent 2 of 2 blocks"),
        "{}",
        words.text()
    );
    let mut here = scene.run(["peers", "copy", "--json"]).ok().json();
    for measured in ["delayMilliseconds", "capacityBytesPerSecond"] {
        let value = here[measured].take();
        assert!(value.as_f64().unwrap() > 0.0, "{measured}: {value}");
    }
    assert_eq!(
        here,
        json!({
            "peer": address, "opened": true, "remoteLength": 2, "asked": [], "requests": 0,
            "delayMilliseconds": null, "capacityBytesPerSecond": null,
            "downloadedBytes": 6, "uploadedBytes": 0, "uploadedBlocks": 0,
            "downloadBytesPerSecond": 0, "uploadBytesPerSecond": 0,
        })
    );
    let mut stats = scene.run(["stats", "copy", "--json"]).ok().json();
    // It is live, so it waits for the next block.
    let waiting = stats["waiting"].take();
    let next = json!({"goal": "a length of 3 blocks", "on": "no connected peer has it"});
    assert!(waiting.as_array().unwrap().contains(&next), "{waiting}");
    assert_eq!(
        stats,
        json!({
            "key": KEY, "length": 2, "byteLength": 6, "downloaded": 2, "peers": 1,
            "downloadedBytes": 6, "uploadedBytes": 0,
            "downloadBytesPerSecond": 0, "uploadBytesPerSecond": 0, "waiting": null, "lastError": null,
        })
    );
    let words = scene.run(["peers", "copy"]).ok();
    assert!(words.text().contains(&address) && words.text().contains("has 2 blocks"));
    let words = scene.run(["stats", "copy"]).ok();
    assert!(words.text().contains("2 of 2 blocks"), "{}", words.text());

    // A core does not care who watches it.
    assert!(!scene.files("log").keys().any(|name| name.contains("sock")));
    clone.stop().ok();
    server.stop().ok();
    for dir in ["log", "copy"] {
        scene
            .run(["stats", dir])
            .fails(1, &["nothing is known", "serve", "`receive`"]);
    }
}

#[test]
fn watching_ends_with_the_process() {
    let scene = Scene::new();
    scene.core("log", &["one"]);
    let (mut server, _) = scene.serve("log", &["--lines"]);
    let watcher = scene.start(["stats", "log", "--watch", "--json"]);
    assert_eq!(watcher.next()["length"], 1);
    server.say("two\n");
    server.event("append");
    while watcher.next()["length"] != 2 {}
    server.kill();
    watcher.end().ok();
    // What is left of the killed process is in nobody's way.
    scene.run(["peers", "log"]).fails(1, &["nothing is known"]);
    let (_server, _) = scene.serve("log", &[]);
    scene.run(["peers", "log"]).ok();
}

/// `info` says to ask with `stats`.
#[test]
fn who_answers_no_questions() {
    let scene = Scene::new();
    scene.core("log", &["one"]);
    let mut append = scene.start(["append", "log", "--lines", "--progress-json"]);
    append.say("two\n");
    append.event("ack");
    scene
        .run(["info", "log"])
        .fails(5, &["hypercore stats log"]);
    for command in ["stats", "peers"] {
        let words = ["`log`", "in use", "answers no questions"];
        scene.run([command, "log"]).fails(5, &words);
    }
    append.end().ok();
}

#[test]
fn a_directory_is_asked_for() {
    let scene = Scene::new();
    scene.run(["peers"]).fails(2, &["<DIR>"]);
    scene
        .run(["stats", "nothing"])
        .fails(1, &["`nothing` does not exist"]);
}

/// Also while there is nothing to tell.
#[cfg(unix)]
#[test]
fn who_reads_nothing_ends_it() {
    let scene = Scene::new();
    scene.core("log", &["one"]);
    let (server, _) = scene.serve("log", &[]);
    let watch = scene.start_with(["peers", "log", "--watch", "--json"], |command| {
        let (_, nobody) = std::io::pipe().unwrap();
        command.stdout(nobody);
    });
    watch.end().ok();
    server.stop().ok();
}

/// As in a pipe to `head`.
#[cfg(unix)]
#[test]
fn who_has_seen_enough_ends_it() {
    let scene = Scene::new();
    scene.core("log", &["one"]);
    let (server, address) = scene.serve("log", &[]);
    let clone = follower(&scene, &address);
    for what in ["peers", "stats"] {
        let watch = scene.start_with([what, "log", "--watch", "--json"], |command| {
            in_shell(command, r#"{ "$@"; echo "exit code $?" >&2; } | head -n 1"#);
        });
        let done = watch.end().ok();
        assert_eq!(done.events().len(), 1);
        assert_eq!(done.stderr, "exit code 0\n");
    }
    clone.stop().ok();
    server.stop().ok();
}

/// It was waited for without an end.
#[cfg(unix)]
#[test]
fn a_process_that_is_stopped() {
    let scene = Scene::new();
    scene.core("log", &["one"]);
    let (server, _) = scene.serve("log", &[]);
    let watcher = scene.start(["stats", "log", "--watch", "--json"]);
    watcher.next();
    server.signal("-STOP");
    let words = [
        "the process that has the core in `log` open",
        "for 2 seconds",
        "SIGCONT",
    ];
    watcher.end().fails(1, &words);
    for command in ["stats", "peers"] {
        let start = Instant::now();
        scene.run([command, "log"]).fails(1, &words);
        assert!(start.elapsed() < Duration::from_secs(10));
    }
    server.signal("-CONT");
    scene.run(["stats", "log"]).ok();
    server.stop().ok();
}
