//! Who a machine is to others, and whom it lets in.

use std::{
    fs,
    io::{Read, Write},
    net::{TcpStream, UdpSocket},
    os::unix::fs::PermissionsExt,
    path::Path,
};

use serde_json::json;

use crate::process::{KEY, Scene};

/// Makes an identity, and returns its public key.
fn identity(scene: &Scene, file: &str) -> String {
    let done = scene.run(["identity", "--json", "--identity", file]).ok();
    let key = done.json()["publicKey"].as_str().expect("a key").to_owned();
    assert_eq!(done.json(), json!({"publicKey": key}));
    assert_eq!(key.len(), 64);
    key
}

#[test]
fn an_identity_is_made_once_and_kept_private() {
    let scene = Scene::new();
    let key = identity(&scene, "deep/me");
    assert_eq!(identity(&scene, "deep/me"), key);
    let people = scene.run(["identity", "--identity", "deep/me"]).ok();
    assert_eq!(people.text(), format!("{key}\n"));
    assert_ne!(identity(&scene, "other"), key);

    let path = scene.path("deep/me");
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&path), 0o600);
    assert_eq!(mode(&scene.path("deep")), 0o700);
    let secret = fs::read_to_string(&path).unwrap();
    assert_eq!(secret.len(), 65, "64 digits and a newline");
    assert!(
        !secret.starts_with(&key),
        "the secret is not the public key"
    );

    // One that others could read is put right, and that is told.
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    let done = scene.run(["identity", "--identity", "deep/me"]).ok();
    assert!(done.stderr.contains("others could read"), "{}", done.stderr);
    assert!(
        !done.stderr.contains(secret.trim()),
        "the secret was printed"
    );
    assert_eq!(mode(&path), 0o600);
}

#[test]
fn a_file_that_is_no_identity_is_left_alone() {
    let scene = Scene::new();
    scene.core("log", &[]);
    for content in [
        "",
        "short",
        &"g".repeat(64),
        &"0".repeat(65),
        &"0".repeat(6500),
    ] {
        fs::write(scene.path("me"), content).unwrap();
        let words = ["`me` is not an identity", "hypercore identity"];
        scene.run(["identity", "--identity", "me"]).fails(1, &words);
        assert_eq!(fs::read(scene.path("me")).unwrap(), content.as_bytes());
    }
    // Nor are its rights changed, and those of a directory are not, either.
    fs::create_dir(scene.path("dir")).unwrap();
    for (name, mode) in [("me", 0o644), ("dir", 0o755)] {
        let path = scene.path(name);
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        for args in [
            &["identity", "--identity", name][..],
            &["serve", "log", "--identity", name],
        ] {
            scene.run(args).fails(1, &[name]);
        }
        let kept = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(kept & 0o777, mode, "{name}");
    }
    scene
        .run(["serve", "log", "--identity", "nothing"])
        .fails(1, &["`nothing` does not exist", "hypercore identity"]);
}

#[test]
fn only_those_who_are_allowed_are_let_in() {
    let scene = Scene::new();
    scene.core("log", &["a", "b"]);
    let [friend, other] = ["friend", "other"].map(|file| identity(&scene, file));
    let stranger = identity(&scene, "stranger");
    // Both ways to name several keys.
    for flags in [
        &["--allow", &other, &friend][..],
        &["--allow", &other, "--allow", &friend],
    ] {
        let (server, address) = scene.serve("log", flags);
        let clone = |dir: &str, flags: &[&str]| {
            let args = ["clone", KEY, dir, "--connect", &address];
            scene.run(args.iter().chain(flags))
        };
        clone("refused", &["--identity", "stranger"]).fails(1, &[&address]);
        clone("unknown", &[]).fails(1, &[&address]);
        clone("copy", &["--identity", "friend"]).ok();
        let read = ["cat", KEY, "--connect", &address, "--identity"];
        let friend = scene.run(read.iter().chain(&["friend"])).ok();
        assert_eq!(friend.stdout, b"ab");
        scene
            .run(read.iter().chain(&["stranger"]))
            .fails(1, &[&address]);
        assert_eq!(scene.run(["cat", "copy"]).ok().stdout, b"ab");
        fs::remove_dir_all(scene.path("copy")).unwrap();
        let done = server.stop().ok();
        let words = format!("its identity {stranger} is not one that --allow names");
        assert!(done.stderr.contains(&words), "{}", done.stderr);
        let events = done.events();
        assert_eq!(events.len(), 4, "only two of five were let in: {events:?}");
        assert_eq!(events[0]["event"], "peer-open");
    }
    scene
        .run(["serve", "log", &stranger])
        .fails(2, &["--allow"]);
}

#[test]
fn the_identity_of_the_machine_is_used_without_being_named() {
    let scene = Scene::new();
    scene.core("log", &["a"]);
    let home = |command: &mut std::process::Command| {
        command.env("XDG_CONFIG_HOME", scene.path("config"));
    };
    let key = scene
        .start_with(["identity", "--json"], home)
        .end()
        .ok()
        .json();
    assert!(scene.path("config/hypercore/identity").exists());
    let (_server, address) = scene.serve("log", &["--allow", key["publicKey"].as_str().unwrap()]);
    let args = ["clone", KEY, "copy", "--connect", &address];
    scene.start_with(args, home).end().ok();
    scene
        .run(["clone", KEY, "again", "--connect", &address])
        .fails(1, &[]);
}

#[test]
fn so_many_peers_and_no_more() {
    let scene = Scene::new();
    scene.core("log", &["a"]);
    let (server, address) = scene.serve("log", &["--max-peers", "1"]);
    let clone = |dir: &str| scene.run(["clone", KEY, dir, "--connect", &address]);
    let held = TcpStream::connect(&address).unwrap();
    clone("refused").fails(1, &[&address]);
    let told = server.complaint();
    assert!(
        told.contains("was refused: 1 peer is connected already"),
        "{told}"
    );
    drop(held);
    // The server notices the end in its own time.
    let tries = (0..100).map(|index| clone(&format!("copy{index}")).code);
    assert!(
        tries.into_iter().any(|code| code == Some(0)),
        "the room stays taken"
    );
    scene
        .run(["serve", "log", "--max-peers", "0"])
        .fails(2, &[]);
}

/// Nothing of what a crash or another process of the user could show is kept.
#[cfg(target_os = "linux")]
#[test]
fn a_crash_leaves_no_core_file() {
    let scene = Scene::new();
    scene.core("log", &["a"]);
    let (server, _) = scene.serve("log", &[]);
    let limits = fs::read_to_string(format!("/proc/{}/limits", server.id())).unwrap();
    let core = limits
        .lines()
        .find(|line| line.starts_with("Max core file size"));
    let words: Vec<_> = core.expect("a limit").split_whitespace().collect();
    assert_eq!(words[4..6], ["0", "0"], "{limits}");
    server.stop().ok();
}

/// Those who call from one address may be many.
#[test]
fn who_is_not_allowed_is_in_nobodys_way() {
    let scene = Scene::new();
    scene.core("log", &["a"]);
    let [friend, _] = ["friend", "stranger"].map(|file| identity(&scene, file));
    // What concerns addresses does not count for those of this machine alone.
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    socket.connect("192.0.2.1:9").expect("a network");
    let own = socket.local_addr().unwrap().ip();
    assert!(!own.is_loopback());
    let serve = || {
        let flags = ["--allow", &friend, "--listen", "0.0.0.0:0"];
        let (server, address) = scene.serve("log", &flags);
        let port = address.rsplit(':').next().unwrap();
        (server, format!("{own}:{port}"))
    };
    let read = |address: &str, identity| {
        scene.run(["cat", KEY, "--connect", address, "--identity", identity])
    };
    let (server, address) = serve();
    for _ in 0..10 {
        read(&address, "stranger").fails(1, &[&address]);
        assert_eq!(read(&address, "friend").ok().text(), "a");
    }
    server.stop().ok();

    // Who does not speak the protocol is.
    let (server, address) = serve();
    let mut tcp = TcpStream::connect(&address).unwrap();
    let endless = [0x80, 0x80, 0x80, 0x80, 0x80, 0x20];
    tcp.write_all(&endless).unwrap();
    let _ = tcp.read(&mut [0]);
    // It is noted a moment after the connection has ended.
    let mut tries = (0..100).map(|_| read(&address, "friend").code);
    assert!(tries.any(|code| code == Some(1)), "nobody is refused");
    let told = server.stop().ok().stderr;
    assert!(
        told.contains("the address misbehaved and is refused"),
        "{told}"
    );
}
