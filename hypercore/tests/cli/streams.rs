//! `share` of what can be read once only: pipes, with a name or without. And those who have read enough
//! of one.

use std::{
    fs::{self, OpenOptions},
    io::Write,
    process::Command,
};

use crate::process::{KEY, Scene, in_shell};

fn pipe(scene: &Scene) {
    let made = Command::new("mkfifo").arg(scene.path("pipe")).status();
    assert!(made.unwrap().success());
}

const LISTEN: [&str; 3] = ["--json", "--listen", "127.0.0.1:0"];

#[test]
fn a_pipe_that_nobody_writes_to() {
    let scene = Scene::new();
    pipe(&scene);
    let server = scene.start(["share", "pipe", "-v"].iter().chain(&LISTEN));
    // The core is there before anything is read.
    while !scene.path("pipe.hypercore/key").exists() {
        std::thread::yield_now();
    }
    server.stop().fails(6, &["interrupted before all was read"]);
    let server = scene.start(["share", "pipe", "--follow"].iter().chain(&LISTEN));
    server.event("sharing");
    server.stop().ok();
}

#[test]
fn what_is_written_to_a_pipe() {
    let scene = Scene::new();
    pipe(&scene);
    let write = |text: &str| {
        let mut pipe = OpenOptions::new().write(true).open(scene.path("pipe"));
        pipe.as_mut().unwrap().write_all(text.as_bytes()).unwrap();
    };
    let server = scene.start(["share", "pipe"].iter().chain(&LISTEN));
    write("all of it");
    let line = server.event("sharing")["line"].as_str().unwrap().to_owned();
    scene.run(["receive", &line, "copy"]).ok();
    assert_eq!(fs::read(scene.path("copy")).unwrap(), b"all of it");
    server.stop().ok();
    // One after the other, each of whom closes it.
    let follow = ["share", "pipe", "--follow", "--core", "log"];
    let server = scene.start(follow.iter().chain(&LISTEN));
    let line = server.event("sharing")["line"].as_str().unwrap().to_owned();
    let receiver = scene.start(["receive", &line, "-"]);
    for text in ["one\n", "two\n"] {
        write(text);
        assert_eq!(receiver.text(), text);
    }
    receiver.stop().ok();
    server.stop().ok();
}

#[test]
fn pipes_of_the_shell() {
    let scene = Scene::new();
    for path in ["/dev/stdin", "/dev/fd/3"] {
        let arguments = ["share", path, "--core", "core"];
        let mut server = scene.start_with(arguments.iter().chain(&LISTEN), |command| {
            if path == "/dev/fd/3" {
                // As what `<(...)` makes.
                in_shell(command, r#"exec "$@" 3<&0 </dev/null"#);
            }
        });
        server.say("content");
        server.hush();
        let line = server.event("sharing")["line"].as_str().unwrap().to_owned();
        scene.run(["receive", &line, "copy"]).ok();
        assert_eq!(fs::read(scene.path("copy")).unwrap(), b"content");
        server.stop().ok();
        fs::remove_file(scene.path("copy")).unwrap();
        fs::remove_dir_all(scene.path("core")).unwrap();
    }
}

/// Also while nothing is to be written.
#[test]
fn who_has_read_enough_ends_what_follows() {
    let scene = Scene::new();
    scene.core("log", &["one"]);
    let (server, address) = scene.serve("log", &[]);
    let line = format!("hyper://{KEY}@{address}/name?live");
    for args in [
        &["cat", "log", "--follow", "--lines"][..],
        &["cat", KEY, "--follow", "--lines", "--connect", &address],
        &["receive", &line, "-"],
    ] {
        let reader = scene.start_with(args, |command| {
            in_shell(command, r#""$@" | head -c 3"#);
        });
        assert_eq!(reader.end().ok().text(), "one", "{args:?}");
    }
    let left = format!("name.{}.hypercore", &KEY[..8]);
    assert!(!scene.path(&left).exists());
    server.stop().ok();
}
