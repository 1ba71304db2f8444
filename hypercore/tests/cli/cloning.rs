//! `serve` and `clone`, over loopback: what arrives, and what a clone says of it.

use serde_json::json;

#[cfg(target_os = "linux")]
use crate::process::in_shell;
use crate::process::{KEY, Scene, many, names, part};

#[test]
fn everything() {
    let scene = Scene::new();
    scene.core("log", &["one", "", "three"]);
    let (server, address) = scene.serve("log", &[]);
    let key = format!("hyper://{KEY}");
    let done = scene
        .run(["clone", &key, "copy", "--json", "--connect", &address])
        .ok();
    let events = done.events();
    assert_eq!(
        events.last().unwrap(),
        &json!({"event": "synced", "length": 3, "byteLength": 8, "downloaded": 3})
    );
    assert_eq!(
        events[0],
        json!({"event": "peer-open", "peer": address}),
        "{events:?}"
    );
    assert!(!names(&events).contains(&"download"), "only with --live");

    let served = server.stop().ok().events();
    assert_eq!(names(&served), ["peer-open", "peer-close"]);
    assert_eq!(served[0]["peer"], served[1]["peer"]);
    assert!(served[1]["reason"].is_string());

    assert_eq!(scene.run(["cat", "copy"]).ok().stdout, b"onethree");
    let (log, copy) = (scene.files("log"), scene.files("copy"));
    for file in ["key", "data", "tree"] {
        assert_eq!(log[file], copy[file], "{file}");
    }
    assert!(!copy.contains_key("secret_key"));
}

#[test]
fn everything_for_people() {
    let scene = Scene::new();
    scene.core("log", &["one", "two"]);
    let server = scene.start(["serve", "log"]);
    let mut words = String::new();
    // The last word is the address.
    while !words.contains("--connect ") {
        words += &server.text();
    }
    assert!(words.contains("Serving 2 blocks of `log`") && words.contains(KEY));
    let address = words.split_whitespace().next_back().unwrap();
    let done = scene.run(["clone", KEY, "copy", "--connect", address]).ok();
    assert_eq!(done.text(), "`copy` is complete: 2 blocks, 6 bytes.\n");
    server.stop().ok();
}

/// The key in z-base-32, and a copy that is served on.
#[test]
fn a_copy_of_a_copy() {
    let scene = Scene::new();
    scene.core("log", &["a", "b"]);
    let (server, address) = scene.serve("log", &[]);
    scene
        .run(["clone", KEY, "copy", "--connect", &address])
        .ok();
    server.stop().ok();

    let (server, address) = scene.serve("copy", &[]);
    let z_base_32 = "yqooxx9u3aemh8mo5wcqq16yufu6jitouq1o4za751dger1igghy";
    scene
        .run(["clone", z_base_32, "again", "--connect", &address])
        .ok();
    assert_eq!(scene.run(["cat", "again"]).ok().stdout, b"ab");
    server.stop().ok();
}

#[test]
fn an_empty_core() {
    let scene = Scene::new();
    scene.core("log", &[]);
    let (_server, address) = scene.serve("log", &[]);
    let done = scene.run(["clone", KEY, "copy", "--json", "--connect", &address]);
    assert_eq!(
        done.ok().json(),
        json!({"event": "synced", "length": 0, "byteLength": 0, "downloaded": 0})
    );
}

/// What was missed is fetched by the next run, and a run with nothing to fetch ends, too.
#[test]
fn continued() {
    let scene = Scene::new();
    scene.core("log", &["a", "b"]);
    for expected in ["ab", "abc", "abc"] {
        let (server, address) = scene.serve("log", &[]);
        scene
            .run(["clone", KEY, "copy", "--connect", &address])
            .ok();
        server.stop().ok();
        assert_eq!(scene.run(["cat", "copy"]).ok().text(), expected);
        if expected == "ab" {
            scene.run(["append", "log", "c"]).ok();
        }
    }
}

#[test]
fn sparse() {
    let scene = Scene::new();
    many(&scene, "log", 100, 10);
    let (_server, address) = scene.serve("log", &[]);
    let clone = |dir: &str, flags: &[&str]| {
        let args = [
            "clone",
            KEY,
            dir,
            "--json",
            "--sparse",
            "--connect",
            &address,
        ];
        scene.run(args.iter().chain(flags)).ok().json()
    };
    let synced = |downloaded: u64| json!({"event": "synced", "length": 100, "byteLength": 1000, "downloaded": downloaded});
    assert_eq!(
        clone("copy", &["--range", "3..5", "--range", "50..60"]),
        synced(12)
    );
    let info = scene.run(["info", "copy", "--json"]).ok().json();
    assert_eq!(
        (&info["length"], &info["downloaded"]),
        (&json!(100), &json!(12))
    );
    assert_eq!(scene.run(["get", "copy", "59"]).ok().text().trim(), "59");
    scene
        .run(["get", "copy", "60"])
        .fails(1, &["block 60 is not stored"]);
    scene.run(["seek", "copy", "700"]).fails(1, &["not known"]);

    assert_eq!(clone("copy", &["--range", "98.."]), synced(14));
    assert_eq!(clone("copy", &["--range", "200.."]), synced(14));
    // What does not exist was not downloaded, and what does exist was.
    for (range, missing) in [("150..160", "150..160"), ("95..101", "100..101")] {
        let words =
            format!("blocks {missing} do not exist yet: the core has 100 blocks; with --live");
        let args = ["clone", KEY, "copy", "--sparse", "--connect", &address];
        scene
            .run(args.iter().chain(&["--range", range]))
            .fails(6, &[&words]);
    }
    scene.run(["get", "copy", "95"]).ok();
    assert_eq!(clone("none", &[]), synced(0));
}

/// Whatever was cleared is fetched again.
#[test]
fn cleared_blocks() {
    let scene = Scene::new();
    scene.core("log", &["a", "b", "c"]);
    let (_server, address) = scene.serve("log", &[]);
    for _ in 0..2 {
        scene
            .run(["clone", KEY, "copy", "--connect", &address])
            .ok();
        assert_eq!(scene.run(["cat", "copy"]).ok().stdout, b"abc");
        scene.run(["clear", "copy", "0", "2"]).ok();
    }
}

#[test]
fn from_two_peers_that_have_a_half_each() {
    let scene = Scene::new();
    many(&scene, "log", 400, 50);
    let (server, address) = scene.serve("log", &[]);
    let halves = [("a", "0..200"), ("b", "200..400")].map(|(dir, range)| {
        let args = [
            "clone",
            KEY,
            dir,
            "--connect",
            &address,
            "--sparse",
            "--range",
            range,
        ];
        scene.run(args).ok();
        scene.serve(dir, &[])
    });
    server.stop().ok();
    // Addresses may follow each other, wherever they stand.
    let done = scene.run([
        "clone",
        "--connect",
        &halves[0].1,
        KEY,
        "copy",
        &halves[1].1,
        "--json",
    ]);
    assert_eq!(done.ok().json()["downloaded"], 400);
    assert!(scene.files("copy")["data"] == scene.files("log")["data"]);
    // A served copy is not changed by those who come for it.
    for (server, _) in halves {
        server.stop().ok();
    }
    assert_eq!(
        scene.run(["info", "a", "--json"]).ok().json()["downloaded"],
        200
    );
}

/// A disk that is full is not a peer's fault.
#[cfg(target_os = "linux")]
#[test]
fn there_is_no_room_for_what_comes() {
    let scene = Scene::new();
    many(&scene, "log", 300, 1000);
    let (_server, address) = scene.serve("log", &[]);
    part(&scene, "read", &address, "0..60");
    // No file may have more than 64 KiB.
    let small = r#"ulimit -f 128; exec "$@""#;
    for (args, dir) in [
        (&["clone", KEY, "copy"][..], "copy"),
        (&["get", "read", "299"], "read"),
        (&["cat", "read"], "read"),
    ] {
        let flags = ["--connect", &address];
        let args = args.iter().chain(&flags);
        let done = scene.start_with(args, |command| in_shell(command, small));
        let place = format!("of the core in `{dir}`");
        let told = done
            .end()
            .fails(1, &["the file `data`", &place, "`ulimit -f`"])
            .stderr;
        assert!(!told.contains("peer"), "{told}");
    }
}

/// An interrupted clone says what is missing, and goes on later.
#[test]
fn interrupted() {
    let scene = Scene::new();
    many(&scene, "log", 300, 100);
    let (server, address) = scene.serve("log", &[]);
    part(&scene, "half", &address, "100..300");
    server.stop().ok();

    let (_half, address) = scene.serve("half", &[]);
    for signal in ["-TERM", "-INT"] {
        let copy = scene.start(["clone", KEY, "copy", "--json", "--connect", &address]);
        copy.event("peer-open");
        while copy.event("progress")["downloaded"] != 200 {}
        copy.signal(signal);
        copy.end().fails(
            6,
            &[
                "interrupted",
                "`copy`",
                "100 blocks of 300 are missing: 0..100",
                "again",
            ],
        );
        scene.run(["clear", "copy", "299"]).ok();
    }
    let info = scene.run(["info", "copy", "--json"]).ok().json();
    assert_eq!(info["downloaded"], 199);
}

/// What nobody has is waited for, and people are told so, once.
#[test]
fn a_peer_with_a_part() {
    let scene = Scene::new();
    many(&scene, "log", 300, 100);
    let (server, address) = scene.serve("log", &[]);
    part(&scene, "half", &address, "100..300");
    server.stop().ok();

    let (_half, address) = scene.serve("half", &[]);
    let copy = scene.start(["clone", KEY, "copy", "--connect", &address]);
    let told = copy.complaint();
    for words in [
        "No connected peer has the rest of `copy`",
        "300 are missing: 0..100",
    ] {
        assert!(told.contains(words), "{told}");
    }
    std::thread::sleep(std::time::Duration::from_millis(1500));
    let done = copy.stop().fails(6, &["interrupted"]);
    assert!(
        !done.stderr.contains("No connected peer"),
        "{}",
        done.stderr
    );
}
