//! `serve --announce`, and `clone`, `get` and `cat` that are not told where peers are.

use std::time::{Duration, Instant};

use crate::process::{KEY, Scene};

/// A core with a key of its own: this may not be the only test run on the network.
fn core(scene: &Scene, dir: &str, blocks: &[&str]) -> String {
    let key = scene.run(["create", dir, "--json"]).ok().json()["key"].clone();
    scene.run(["append", dir].iter().chain(blocks)).ok();
    key.as_str().unwrap().to_owned()
}

#[test]
fn a_clone_finds_its_peers() {
    let scene = Scene::new();
    let (one, two) = (
        core(&scene, "one", &["1"]),
        core(&scene, "two", &["2", "2"]),
    );
    let (server, address) = scene.serve("one", &["--announce"]);
    assert!(address.starts_with("0.0.0.0:"), "{address}");
    let (_other, _) = scene.serve("two", &["--announce"]);
    for (key, dir, content) in [(&one, "a", "1"), (&two, "b", "22")] {
        let start = Instant::now();
        scene.run(["clone", key, dir]).ok();
        // Two seconds is what is promised on a quiet network.
        assert!(
            start.elapsed() < Duration::from_secs(4),
            "{:?}",
            start.elapsed()
        );
        assert_eq!(scene.run(["cat", dir]).ok().text(), content);
    }
    server.stop().ok();
    // Who has left is not found.
    scene
        .run(["clone", &one, "c"])
        .fails(1, &["nobody on the local network announces it", &one]);
    assert!(!scene.path("c").exists());
}

#[test]
fn a_core_is_read_by_its_key_alone() {
    let scene = Scene::new();
    let key = core(&scene, "log", &["one", "two", "three"]);
    let (server, address) = scene.serve("log", &["--announce"]);
    let sparse = ["clone", &key, "empty", "--sparse", "--connect", &address];
    scene.run(sparse).ok();
    // Whichever of the two is found first, the one with the blocks is waited for.
    let (other, _) = scene.serve("empty", &["--announce"]);
    assert_eq!(scene.run(["get", &key, "1"]).ok().stdout, b"two");
    let limited = scene.run(["get", &key, "1", "--timeout", "20"]);
    assert_eq!(limited.ok().text(), "two");
    // One who has just answered may be silent for a second; nothing else is waited for.
    for _ in 0..2 {
        let start = Instant::now();
        assert_eq!(scene.run(["cat", &key]).ok().text(), "onetwothree");
        let took = start.elapsed();
        assert!(took < Duration::from_secs(2), "{took:?}");
    }
    let bytes = ["cat", &key, "--bytes", "2..7"];
    assert_eq!(scene.run(bytes).ok().text(), "etwot");
    assert!(!scene.path(&key).exists());
    // What is in a directory is read from there alone.
    other.stop().ok();
    scene.run(["get", "empty", "1"]).fails(1, &["--connect"]);
    server.stop().ok();
    let nobody = ["nobody on the local network announces it", &key];
    scene.run(["get", &key, "1"]).fails(1, &nobody);
}

#[test]
fn a_live_clone_waits_for_peers_and_follows_one_that_moves() {
    let scene = Scene::new();
    let key = core(&scene, "log", &["1"]);
    let clone = scene.start(["clone", &key, "copy", "--live", "--json"]);
    let (server, _) = scene.serve("log", &["--announce"]);
    clone.event("synced");
    server.stop().ok();
    clone.event("peer-close");
    scene.run(["append", "log", "2"]).ok();
    let (_server, _) = scene.serve("log", &["--announce"]);
    assert_eq!(clone.event("synced")["length"], 2);
    clone.stop().ok();
}

#[test]
fn who_follows_is_told_that_nobody_is_there_any_more() {
    let scene = Scene::new();
    let key = core(&scene, "log", &["one\n"]);
    let (server, _) = scene.serve("log", &["--announce"]);
    let reader = scene.start(["cat", &key, "--follow"]);
    assert_eq!(reader.text(), "one\n");
    server.stop().ok();
    let told = reader.complaint();
    assert!(
        told.contains("has left, and nobody else is connected; going on when somebody is."),
        "{told}"
    );
    scene.run(["append", "log", "two\n"]).ok();
    let (_server, _) = scene.serve("log", &["--announce"]);
    assert_eq!(reader.text(), "two\n");
    reader.stop().ok();
}

#[test]
fn the_key_is_not_announced() {
    // What is looked for on the network is made of the discovery key, which `info` shows.
    let scene = Scene::new();
    scene.core("log", &["1"]);
    let server = scene.start(["serve", "log", "--announce", "-vv"]);
    while !server.text().contains("hypercore clone") {}
    let heard = scene.run(["clone", &"00".repeat(32), "copy"]);
    let heard = heard.fails(1, &["nobody"]);
    assert!(!heard.stderr.contains(KEY));
    scene
        .run(["clone", KEY, "copy", "127.0.0.1:1"])
        .fails(2, &["--connect"]);
    server.stop().ok();
}
