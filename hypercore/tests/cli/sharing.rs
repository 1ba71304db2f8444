//! `share` and `receive`.

use std::{
    fs::{self, File, Permissions},
    os::unix::fs::{PermissionsExt, symlink},
    time::{Duration, Instant, UNIX_EPOCH},
};

use serde_json::json;

use crate::process::{Process, Scene};

/// Shares `path`; returns the process and the line to receive it with.
pub(crate) fn share(scene: &Scene, path: &str, flags: &[&str]) -> (Process, String) {
    let arguments = ["share", path, "--json", "--listen", "127.0.0.1:0"];
    let process = scene.start(arguments.iter().chain(flags));
    let line = process.event("sharing")["line"]
        .as_str()
        .unwrap()
        .to_owned();
    (process, line)
}

pub(crate) fn content(size: usize) -> Vec<u8> {
    (0..size).map(|i| (i % 251) as u8).collect()
}

#[test]
fn a_file_by_its_line() {
    let scene = Scene::new();
    let bytes = content(300_000);
    fs::write(scene.path("a photo.jpg"), &bytes).unwrap();
    let (server, line) = share(&scene, "a photo.jpg", &[]);
    assert!(
        line.starts_with("hyper://") && line.contains("/a%20photo.jpg?n=5&t="),
        "{line}"
    );
    scene.run(["receive", &line]).fails(
        1,
        &[
            "`a photo.jpg` exists already",
            "move it away",
            "another target after the line",
        ],
    );
    let done = scene.run(["receive", &line, "copy.jpg", "--json"]).ok();
    let last = done.json();
    assert_eq!(
        (&last["event"], &last["byteLength"]),
        (&"received".into(), &300_000.into())
    );
    assert_eq!(fs::read(scene.path("copy.jpg")).unwrap(), bytes);
    // Nothing else is left, unless asked for.
    assert!(!scene.path("copy.jpg.hypercore").exists());
    assert!(!scene.path("copy.jpg.part").exists());
    let done = scene.run(["receive", &line, "kept.jpg", "--keep"]).ok();
    assert_eq!(done.text(), "Received `kept.jpg`: 292.97 KiB, verified.\n");
    let told = scene.run(["audit", "kept.jpg.hypercore"]).ok();
    assert!(told.text().contains("no damage"), "{}", told.text());
    server.stop().ok();
}

/// What a core has no room for, the line tells.
#[test]
fn a_file_keeps_its_time_and_that_it_is_a_program() {
    let scene = Scene::new();
    let written = UNIX_EPOCH + Duration::from_secs(1_577_934_245);
    for (name, mode, end) in [
        ("program", 0o755, "/program?x&n=1&t=1577934245"),
        ("text", 0o644, "/text?n=1&t=1577934245"),
    ] {
        let path = scene.path(name);
        fs::write(&path, name).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        File::open(&path).unwrap().set_modified(written).unwrap();
        let (server, line) = share(&scene, name, &[]);
        assert!(line.ends_with(end), "{line}");
        scene.run(["receive", &line, "new/copy"]).ok();
        let found = fs::metadata(scene.path("new/copy")).unwrap();
        assert_eq!(found.modified().unwrap(), written, "{name}");
        let is_program = found.permissions().mode() & 0o100 != 0;
        assert_eq!(is_program, mode == 0o755, "{name}");
        fs::remove_file(scene.path("new/copy")).unwrap();
        // A line without them is as good, and one that was cut is not.
        let plain = line.split('?').next().unwrap();
        scene.run(["receive", plain, "new/copy"]).ok();
        assert_eq!(fs::read(scene.path("new/copy")).unwrap(), name.as_bytes());
        fs::remove_file(scene.path("new/copy")).unwrap();
        let cut = line.strip_suffix("1577934245").unwrap();
        scene
            .run(["receive", cut, "new/copy"])
            .fails(2, &["is that all of it?"]);
        server.stop().ok();
    }
    // A directory on the way is like every other, and not like that of a core.
    fs::create_dir(scene.path("other")).unwrap();
    let [new, other] = ["new", "other"].map(|dir| fs::metadata(scene.path(dir)).unwrap());
    assert_eq!(new.permissions(), other.permissions());
}

/// Who was sent everything hangs up, which is no failure for the one who has sent it.
#[test]
fn the_end_of_a_transfer_is_no_failure() {
    let scene = Scene::new();
    let file = File::create(scene.path("file")).unwrap();
    file.set_len(100 << 20).unwrap();
    let (server, line) = share(&scene, "file", &[]);
    // Much is on its way when this one has enough.
    let receiver = scene.start(["receive", &line, "copy"]);
    let data = scene.path("copy.hypercore/data");
    while fs::metadata(&data).map_or(0, |found| found.len()) < 4 << 20 {
        std::thread::yield_now();
    }
    receiver.signal("-INT");
    receiver.end().fails(
        6,
        &[
            "interrupted: ",
            " MiB of 100.00 MiB of `copy` are here, in `copy.hypercore`",
            "run it again to go on",
        ],
    );
    let left = server.event("peer-close");
    assert_eq!(left["code"], "remote-closed", "{left}");
    scene.run(["receive", &line, "copy"]).ok();
    let left = server.event("peer-close");
    assert_eq!(left["code"], "remote-closed", "{left}");
    server.stop().ok();
}

/// Who follows a log is told that nobody is there who would write to it.
#[test]
fn one_that_shares_a_log_leaves() {
    let scene = Scene::new();
    fs::write(scene.path("app.log"), "one").unwrap();
    let (server, line) = share(&scene, "app.log", &["--follow"]);
    let receiver = scene.start(["receive", &line, "copy.log", "--json"]);
    receiver.event("synced");
    server.stop().ok();
    while !receiver.complaint().contains("nobody else is connected") {}
    receiver.stop().ok();
}

#[test]
fn a_file_that_has_grown_keeps_its_line_and_one_that_was_changed_does_not() {
    let scene = Scene::new();
    fs::write(scene.path("notes"), content(100_000)).unwrap();
    let (server, first) = share(&scene, "notes", &[]);
    server.stop().ok();
    fs::write(scene.path("notes"), content(200_000)).unwrap();
    let (server, second) = share(&scene, "notes", &[]);
    let key = |line: &str| line.split('@').next().unwrap().to_owned();
    assert_eq!(key(&first), key(&second));
    scene.run(["receive", &second, "copy"]).ok();
    assert_eq!(fs::read(scene.path("copy")).unwrap(), content(200_000));
    server.stop().ok();
    fs::write(scene.path("notes"), content(150_000)).unwrap();
    scene.run(["share", "notes"]).fails(
        1,
        &["`notes.hypercore`", "other than by appending", "--core"],
    );
    let mut changed = content(200_000);
    changed[199_999] ^= 1;
    fs::write(scene.path("notes"), changed).unwrap();
    scene
        .run(["share", "notes"])
        .fails(1, &["other than by appending"]);
}

#[test]
fn a_folder_with_everything_in_it() {
    let scene = Scene::new();
    fs::create_dir_all(scene.path("photos/2026/empty")).unwrap();
    fs::write(scene.path("photos/one.jpg"), content(100_000)).unwrap();
    fs::write(scene.path("photos/2026/two.jpg"), b"two").unwrap();
    symlink("2026/two.jpg", scene.path("photos/link")).unwrap();
    scene
        .run(["share", "photos", "--core", "photos/core"])
        .fails(1, &["would lie in the folder", "--core"]);
    let (server, line) = share(&scene, "photos", &[]);
    assert!(line.ends_with("/photos/?n=2"), "{line}");
    scene.run(["receive", &line, "copy"]).ok();
    assert_eq!(
        fs::read(scene.path("copy/one.jpg")).unwrap(),
        content(100_000)
    );
    assert_eq!(fs::read(scene.path("copy/link")).unwrap(), b"two");
    assert!(scene.path("copy/2026/empty").is_dir());
    assert!(!scene.path("copy.part").exists());
    server.stop().ok();
    // Again the same archive, and the same line.
    let (_server, again) = share(&scene, "photos", &[]);
    assert_eq!(line.split('@').next(), again.split('@').next());
}

#[test]
fn a_log_that_grows_across_interruptions_of_both_sides() {
    let scene = Scene::new();
    let text = |name: &str| fs::read_to_string(scene.path(name)).unwrap_or_default();
    let grow = |more: &str| {
        let before = text("app.log");
        fs::write(scene.path("app.log"), before + more).unwrap();
    };
    grow("one\n");
    let (server, line) = share(&scene, "app.log", &["--follow"]);
    assert!(line.ends_with("/app.log?live"), "{line}");
    let receiver = scene.start(["receive", &line, "copy.log", "--json"]);
    let arrives = |expected: &str| {
        let start = Instant::now();
        while text("copy.log") != expected {
            let found = text("copy.log");
            assert!(
                start.elapsed() < Duration::from_secs(20),
                "{found:?}, not {expected:?}"
            );
            std::thread::yield_now();
        }
    };
    arrives("one\n");
    grow("two\n");
    arrives("one\ntwo\n");
    receiver.kill();
    grow("three\n");
    server.kill();
    grow("four\n");
    let (_server, line) = share(&scene, "app.log", &["--follow"]);
    let receiver = scene.start(["receive", &line, "copy.log", "--json"]);
    arrives("one\ntwo\nthree\nfour\n");
    receiver.stop().ok();
}

#[test]
fn standard_input() {
    let scene = Scene::new();
    let mut server = scene.start(["share", "-", "--json", "--listen", "127.0.0.1:0"]);
    server.say("what a program writes");
    server.hush();
    let line = server.event("sharing")["line"].as_str().unwrap().to_owned();
    scene.run(["receive", &line, "copy"]).ok();
    assert_eq!(
        fs::read(scene.path("copy")).unwrap(),
        b"what a program writes"
    );
    server.stop().ok();
    scene
        .feed(["share", "-"], b"x")
        .fails(1, &["`stdin.hypercore`", "--core"]);
}

#[test]
fn a_transfer_that_was_cut_off_goes_on() {
    let scene = Scene::new();
    fs::write(scene.path("file"), content(1_000_000)).unwrap();
    let (server, line) = share(&scene, "file", &[]);
    // What an interrupted run leaves: some of the blocks.
    let (key, rest) = line.split_once('@').unwrap();
    let address = rest.split('/').next().unwrap();
    let part = [
        "clone",
        key,
        "copy.hypercore",
        "--sparse",
        "--range",
        "3..9",
    ];
    scene.run(part.iter().chain(&["--connect", address])).ok();
    let done = scene.run(["receive", &line, "copy", "--json"]).ok();
    let mut events = done.events().into_iter();
    assert_eq!(
        events.find(|event| event["event"] == "resumed"),
        Some(json!({"event": "resumed", "downloaded": 6, "length": 16}))
    );
    assert!(
        done.stderr
            .contains("Going on with `copy`: 366.21 KiB of 976.56 KiB are here already."),
        "{}",
        done.stderr
    );
    assert!(fs::read(scene.path("copy")).unwrap() == content(1_000_000));
    server.stop().ok();
}

#[test]
fn an_address_that_is_out_of_date() {
    let scene = Scene::new();
    fs::write(scene.path("file"), b"content").unwrap();
    let (server, old) = share(&scene, "file", &[]);
    server.stop().ok();
    let server = scene.start(["share", "file", "--json", "--listen", "0.0.0.0:0"]);
    let line = server.event("sharing")["line"].as_str().unwrap().to_owned();
    scene.run(["receive", &old, "copy"]).ok();
    // And without one, on the same network.
    let (key, name) = (line.split('@').next().unwrap(), "/file");
    scene
        .run(["receive", &format!("{key}{name}"), "again"])
        .ok();
    assert_eq!(fs::read(scene.path("again")).unwrap(), b"content");
    server.stop().ok();
}

/// Nobody was there when it was called, and then it is found at the same address.
#[test]
fn one_that_comes_a_moment_later() {
    let scene = Scene::new();
    fs::write(scene.path("file"), b"content").unwrap();
    let share = ["share", "file", "--json", "--listen"];
    let server = scene.start(share.iter().chain(&["0.0.0.0:0"]));
    let told = server.event("sharing");
    let [line, address] = ["line", "address"].map(|field| told[field].as_str().unwrap());
    server.stop().ok();
    let receiver = scene.start(["receive", line, "copy", "-v"]);
    while !receiver.complaint().contains("nobody listens there") {}
    let port = address.rsplit(':').next().unwrap();
    let anywhere = format!("0.0.0.0:{port}");
    let server = scene.start(share.iter().chain(&[anywhere.as_str()]));
    receiver.end().ok();
    assert_eq!(fs::read(scene.path("copy")).unwrap(), b"content");
    server.stop().ok();
}

#[test]
fn what_cannot_be_shared_or_received() {
    let scene = Scene::new();
    fs::create_dir(scene.path("folder")).unwrap();
    scene
        .run(["share", "nothing"])
        .fails(1, &["`nothing` cannot be read"]);
    scene
        .run(["share", "folder", "--follow"])
        .fails(2, &["`folder` is a folder"]);
    scene.run(["receive", "abc"]).fails(2, &["hyper://"]);
    let key = "00".repeat(32);
    scene
        .run(["receive", &format!("hyper://{key}/%2e%2e")])
        .fails(2, &["the name in the line"]);
    let nobody = format!("hyper://{key}@127.0.0.1:1/file");
    scene
        .run(["receive", &nobody])
        .fails(1, &["can be reached", "127.0.0.1:1", "`hypercore doctor`"]);
    assert!(!scene.path("file.hypercore").exists());
    // The other name of `share`.
    scene
        .run(["send", "nothing"])
        .fails(1, &["`nothing` cannot be read"]);
}

/// The folder itself, too, is for those alone for whom it was.
#[test]
fn a_folder_keeps_who_may_look_into_it() {
    let scene = Scene::new();
    let set = |path, mode| fs::set_permissions(scene.path(path), Permissions::from_mode(mode));
    for mode in [0o700, 0o755, 0o500, 0o2770] {
        fs::create_dir(scene.path("photos")).unwrap();
        fs::write(scene.path("photos/one"), b"one").unwrap();
        set("photos", mode).unwrap();
        let (server, line) = share(&scene, "photos", &[]);
        scene.run(["receive", &line, "copy"]).ok();
        let found = fs::metadata(scene.path("copy")).unwrap();
        let found = found.permissions().mode() & 0o7777;
        assert_eq!(found, mode & 0o777, "{mode:o}, and not {found:o}");
        assert_eq!(fs::read(scene.path("copy/one")).unwrap(), b"one");
        server.stop().ok();
        if mode == 0o700 {
            set("photos", 0o755).unwrap();
            scene
                .run(["share", "photos"])
                .fails(1, &["anything in it was changed"]);
        }
        for path in ["photos", "copy", "photos.hypercore"] {
            set(path, 0o700).unwrap();
            fs::remove_dir_all(scene.path(path)).unwrap();
        }
    }
}
