//! One key, one history, on the command line.

use std::{fs, process::Command};

use serde_json::json;

use crate::process::{KEY, Scene};

fn copy(scene: &Scene, from: &str, to: &str) {
    let status = Command::new("cp")
        .arg("-r")
        .args([scene.path(from), scene.path(to)])
        .status();
    assert!(status.is_ok_and(|status| status.success()));
}

#[test]
fn a_copy_takes_no_appends_until_somebody_takes_the_risk() {
    let scene = Scene::new();
    scene.core("log", &["a", "b"]);
    copy(&scene, "log", "copy");
    let before = scene.files("copy");
    let words = [
        "copied",
        "hypercore resume copy --from",
        "--accept-fork-risk",
    ];
    scene.run(["append", "copy", "c"]).fails(1, &words);
    scene.run(["serve", "copy", "--lines"]).fails(1, &words);
    let info = scene.run(["info", "copy", "--json"]).ok().json();
    assert_eq!(info["writable"], false);
    assert!(info["lock"].as_str().unwrap().contains("copied"), "{info}");
    let info = scene.run(["info", "copy"]).ok();
    assert!(info.text().contains("no, because"), "{}", info.text());
    // Whoever does not append is told nothing of it.
    let cat = scene.run(["cat", "copy"]).ok();
    assert_eq!((cat.text(), &*cat.stderr), ("ab", ""));
    assert_eq!(info.stderr, "");
    assert!(scene.files("copy") == before);

    scene.run(["resume", "copy"]).fails(2, &["--from"]);
    let done = scene
        .run(["resume", "copy", "--accept-fork-risk", "--json"])
        .ok();
    assert_eq!(done.json()["length"], 2);
    scene.run(["append", "copy", "c"]).ok();
    scene.run(["append", "log", "other"]).ok();
}

#[test]
fn a_copy_fetches_its_own_blocks_before_it_goes_on() {
    let scene = Scene::new();
    scene.core("log", &["a", "b"]);
    copy(&scene, "log", "backup");
    scene.run(["append", "log", "c"]).ok();
    let (server, address) = scene.serve("log", &[]);
    scene
        .run(["clone", KEY, "reader", "--connect", &address])
        .ok();
    server.stop().ok();
    let (_server, address) = scene.serve("reader", &[]);
    let done = scene
        .run(["resume", "--from", &address, "backup", "--json"])
        .ok()
        .json();
    assert_eq!((&done["length"], &done["fetched"]), (&json!(3), &json!(1)));
    scene.run(["append", "backup", "d"]).ok();
    assert_eq!(scene.run(["cat", "backup"]).ok().text(), "abcd");

    scene
        .run(["resume", "backup", "--from", "127.0.0.1:1"])
        .fails(1, &["no peer"]);
    // One that says nothing.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap().to_string();
    let resume = scene.start(["resume", "backup", "--from", &address]);
    let _connection = silent.accept().unwrap();
    resume
        .stop()
        .fails(6, &["interrupted", "`backup`", "again"]);
}

#[test]
fn a_directory_that_was_put_back_in_place_takes_no_appends() {
    let scene = Scene::new();
    scene.core("log", &["a"]);
    let before = scene.files("log");
    scene.run(["append", "log", "b"]).ok();
    for (name, bytes) in before {
        fs::write(scene.path("log").join(name), bytes).unwrap();
    }
    scene
        .run(["append", "log", "c"])
        .fails(1, &["2 blocks were signed", "1 of them"]);
}

/// It may have been done here, or there.
#[test]
fn a_server_hears_of_what_was_appended_elsewhere() {
    let scene = Scene::new();
    scene.core("log", &["a"]);
    copy(&scene, "log", "other");
    scene.run(["resume", "other", "--accept-fork-risk"]).ok();
    scene.run(["append", "other", "b"]).ok();
    let (other, address) = scene.serve("other", &[]);
    let clone = |address| ["clone", KEY, "reader", "--connect", address];
    scene.run(clone(&address)).ok();
    other.stop().ok();
    let (server, address) = scene.serve("log", &[]);
    let reader = scene.start(clone(&address).iter().chain(&["--live"]));
    assert_eq!(server.event("behind")["theirs"], 2);
    let told = loop {
        let told = server.complaint();
        if told.contains("A peer has 2 blocks") {
            break told;
        }
    };
    for words in [
        "or a copy of it was appended to",
        "`hypercore resume log --from",
    ] {
        assert!(told.contains(words), "{told}");
    }
    reader.stop().ok();
    server.stop().ok();
}

#[test]
fn two_histories_end_a_clone_with_a_proof() {
    let scene = Scene::new();
    scene.core("log", &["a", "b"]);
    copy(&scene, "log", "other");
    scene.run(["resume", "other", "--accept-fork-risk"]).ok();
    scene.run(["append", "log", "c"]).ok();
    scene.run(["append", "other", "x"]).ok();
    scene.run(["append", "other", "y"]).ok();
    let (server, address) = scene.serve("log", &[]);
    scene
        .run(["clone", KEY, "copy", "--connect", &address])
        .ok();
    server.stop().ok();

    let (server, address) = scene.serve("other", &[]);
    let done = scene.run(["clone", KEY, "copy", "--connect", &address, "--json"]);
    let remedy = "nothing can join the two again: whoever writes it makes a new core";
    let done = done.fails(4, &["two histories", "fork-proof-4", remedy]);
    // It is said once, in words for people.
    assert!(!done.stderr.contains("ERROR"), "{}", done.stderr);
    assert!(
        done.events()
            .contains(&json!({"event": "forked", "length": 4}))
    );
    let proof = fs::read_to_string(scene.path("copy/fork-proof-4")).unwrap();
    assert!(proof.parse::<hypercore::ForkProof>().unwrap().verify());
    // What it had is still there, and all of it.
    assert_eq!(scene.run(["cat", "copy"]).ok().text(), "abc");
    fs::remove_file(scene.path("copy/fork-proof-4")).unwrap();
    scene
        .run(["get", "copy", "3", "--connect", &address])
        .fails(4, &["two histories", "copy/fork-proof-4"]);
    scene.run(["verify", "copy"]).ok();
    assert_eq!(server.event("forked")["length"], 4);
    server.stop().ok();
    for args in [
        &["append", "other", "z"][..],
        &["keys", "export", "other", "f"],
    ] {
        let done = scene.run(args).fails(4, &["another history", remedy]);
        assert!(!done.stderr.contains("resume"), "{}", done.stderr);
    }
}

/// Nothing was missing, and the clone was called complete before the peer had answered.
#[test]
fn two_histories_of_one_length_end_a_clone() {
    let scene = Scene::new();
    scene.core("log", &["a", "b"]);
    copy(&scene, "log", "other");
    scene.run(["resume", "other", "--accept-fork-risk"]).ok();
    scene.run(["append", "log", "c"]).ok();
    scene.run(["append", "other", "x"]).ok();
    let (_server, address) = scene.serve("log", &[]);
    let (_other_server, other) = scene.serve("other", &[]);
    scene.run(["clone", KEY, "one", "--connect", &address]).ok();
    let remedy = "fork-proof-3";
    scene
        .run(["clone", KEY, "one", "--connect", &other])
        .fails(4, &["two histories", remedy]);
    scene
        .run(["clone", KEY, "both", "--connect", &address, &other])
        .fails(4, &["two histories", remedy]);
}
