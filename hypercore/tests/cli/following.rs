//! `clone --live`: logs that grow while they are cloned.

use serde_json::json;

use crate::process::{KEY, Scene, await_downloads, clone_live, names};

#[test]
fn live() {
    let scene = Scene::new();
    scene.core("log", &["a"]);
    let (mut server, address) = scene.serve("log", &["--lines"]);
    let copy = clone_live(&scene, &address);
    await_downloads(&copy, 0..1);
    assert_eq!(copy.event("synced")["length"], 1);
    for (length, lines) in [(2, "b\n"), (4, "c\nd\n")] {
        server.say(lines);
        assert_eq!(server.event("append")["length"], length);
        assert_eq!(copy.event("append")["length"], length);
        await_downloads(&copy, length - lines.len() as u64 / 2..length);
    }
    server.hush();
    // The end of its input is not the end of the server.
    let late = scene.run(["clone", KEY, "late", "--connect", &address]);
    late.ok();
    copy.stop().ok();
    server.stop().ok();
    assert_eq!(scene.run(["cat", "copy"]).ok().stdout, b"abcd");
    assert_eq!(scene.run(["cat", "log"]).ok().stdout, b"abcd");
}

/// Nothing but the length is followed.
#[test]
fn live_and_sparse() {
    let scene = Scene::new();
    scene.core("log", &[]);
    let (mut server, address) = scene.serve("log", &["--lines"]);
    let args = [
        "clone",
        KEY,
        "copy",
        "--json",
        "--live",
        "--sparse",
        "--connect",
        &address,
    ];
    let copy = scene.start(args);
    copy.event("peer-open");
    for length in 1..4 {
        server.say("line\n");
        assert_eq!(copy.event("append")["length"], length);
    }
    copy.signal("-INT");
    let done = copy.end().ok();
    assert!(!names(&done.events()).contains(&"download"));
    let info = scene.run(["info", "copy", "--json"]).ok().json();
    assert_eq!(
        (&info["length"], &info["downloaded"]),
        (&json!(3), &json!(0))
    );
}

/// A live clone calls a lost peer again.
#[test]
fn live_through_a_restart() {
    let scene = Scene::new();
    scene.core("log", &["a"]);
    let (server, address) = scene.serve("log", &[]);
    let copy = clone_live(&scene, &address);
    copy.event("synced");
    server.stop().ok();
    copy.event("peer-close");
    scene.run(["append", "log", "b"]).ok();
    let (_server, _) = scene.serve("log", &["--listen", &address]);
    await_downloads(&copy, 1..2);
    copy.stop().ok();
}
