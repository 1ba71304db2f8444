//! `doctor`: it names the step that fails.

use std::{
    io::{Read, Write},
    net::TcpListener,
    thread,
};

use crate::process::{Done, KEY, Scene};

const STEPS: [&str; 5] = ["name", "dial", "handshake", "capability", "first block"];

/// Every step but the last was done, and that failed, or is the last of all and was done.
#[track_caller]
fn check(done: &Done, last: &str, ok: bool) {
    let steps = done.events();
    let steps: Vec<_> = steps
        .iter()
        .filter(|event| event["event"] == "step")
        .collect();
    let names: Vec<_> = steps
        .iter()
        .filter_map(|step| step["step"].as_str())
        .collect();
    let end = STEPS.iter().position(|step| *step == last).unwrap();
    assert_eq!(names, STEPS[..=end], "{done:?}");
    for (index, step) in steps.iter().enumerate() {
        assert_eq!(step["ok"], index < end || ok, "{step}");
        assert!(
            step["seconds"].is_f64() && step["detail"].is_string(),
            "{step}"
        );
    }
}

#[test]
fn a_healthy_peer() {
    let scene = Scene::new();
    scene.core("log", &["one", "two"]);
    let (_server, address) = scene.serve("log", &[]);
    let done = scene
        .run(["doctor", KEY, "--connect", &address, "--json"])
        .ok();
    check(&done, "first block", true);
    assert_eq!(done.json()["event"], "healthy");
    let words = scene.run(["doctor", KEY, "--connect", &address]).ok();
    assert_eq!(words.text().lines().count(), 6, "{}", words.text());
    assert!(
        words.text().contains("block 0 of 2, 3 bytes"),
        "{}",
        words.text()
    );
}

#[test]
fn the_line_that_share_prints() {
    let scene = Scene::new();
    scene.core("log", &["one", "two"]);
    let (server, address) = scene.serve("log", &[]);
    let line = format!("hyper://{KEY}@{address}/log");
    let done = scene.run(["doctor", &line, "--json"]).ok();
    check(&done, "first block", true);
    server.stop().ok();
}

#[test]
fn a_peer_is_looked_for() {
    let scene = Scene::new();
    let key = scene.run(["create", "log", "--json"]).ok().json()["key"].clone();
    let key = key.as_str().unwrap();
    scene.run(["append", "log", "one"]).ok();
    let (server, _) = scene.serve("log", &["--announce"]);
    let done = scene.run(["doctor", key, "--json"]).ok();
    let first = &done.events()[0];
    assert_eq!(
        (&first["step"], &first["ok"]),
        (&"search".into(), &true.into())
    );
    assert_eq!(done.json()["event"], "healthy");
    server.stop().ok();
    scene
        .run(["doctor", key])
        .fails(1, &["`search`", "--announce", "--connect ADDR:PORT"]);
}

#[test]
fn a_peer_without_blocks_and_one_with_the_last_only() {
    let scene = Scene::new();
    scene.core("empty", &[]);
    let (server, address) = scene.serve("empty", &[]);
    let done = scene
        .run(["doctor", KEY, "--connect", &address, "--json"])
        .ok();
    check(&done, "first block", true);
    drop(server);
    scene.core("log", &["one", "two"]);
    scene.run(["clear", "log", "0"]).ok();
    let (_server, address) = scene.serve("log", &[]);
    let done = scene.run(["doctor", KEY, "--connect", &address]).ok();
    assert!(done.text().contains("block 1 of 2"), "{}", done.text());
}

#[test]
fn a_name_that_is_not_found() {
    let scene = Scene::new();
    let done = scene.run(["doctor", KEY, "--connect", "nobody.invalid:1", "--json"]);
    check(&done, "name", false);
    done.fails(1, &["`name`", "nobody.invalid"]);
}

#[test]
fn nobody_who_listens() {
    let scene = Scene::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    drop(listener);
    let done = scene.run(["doctor", KEY, "--connect", &address, "--json"]);
    check(&done, "dial", false);
    done.fails(1, &["`dial`", "nobody listens there", "--listen"]);
}

#[test]
fn something_else_that_listens() {
    let scene = Scene::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let _ = stream.read(&mut [0; 16]);
        let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
    });
    let done = scene.run(["doctor", KEY, "--connect", &address, "--json"]);
    check(&done, "handshake", false);
    done.fails(1, &["`handshake`", "something else", "as many peers as"]);
}

#[test]
fn a_peer_that_says_nothing() {
    let scene = Scene::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let arguments = ["doctor", KEY, "--connect", &address, "--timeout", "0.2"];
    let done = scene.run(arguments.iter().chain(&["--json"]));
    check(&done, "handshake", false);
    done.fails(1, &["no answer within 0.2 s"]);
}

#[test]
fn a_peer_with_another_core() {
    let scene = Scene::new();
    scene.core("log", &["one"]);
    let (_server, address) = scene.serve("log", &[]);
    let other = "11".repeat(32);
    let doctor = |timeout| {
        let arguments = ["doctor", &other, "--connect", &address];
        scene.run(arguments.iter().chain(&["--json", "--timeout", timeout]))
    };
    let done = doctor("0.5");
    check(&done, "capability", false);
    assert!(!done.stderr.contains("waiting"), "{}", done.stderr);
    done.fails(1, &["`capability`", "check the key"]);
    // Nobody is to think that it hangs.
    let done = doctor("1.5");
    check(&done, "capability", false);
    let words = "capability: waiting for the peer to show that it knows the key, at most 1.5 s\n";
    assert!(done.stderr.starts_with(words), "{}", done.stderr);
    done.fails(1, &["no answer within 1.5 s"]);
}

#[test]
fn what_is_no_address() {
    let scene = Scene::new();
    scene
        .run(["doctor", "abc", "--connect", "127.0.0.1:1"])
        .fails(2, &["64 hex digits"]);
    scene
        .run(["doctor", KEY, "--connect", "127.0.0.1"])
        .fails(2, &["ADDR:PORT"]);
}
