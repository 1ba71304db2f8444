//! What a process does when nobody listens to it.

use std::fs::File;

use crate::process::{KEY, Scene};

/// A pipe to which nothing can be written.
fn nobody() -> std::io::PipeWriter {
    let (_, writer) = std::io::pipe().unwrap();
    writer
}

#[test]
fn what_nobody_reads_ends_nothing() {
    let scene = Scene::new();
    scene.core("log", &["a"]);
    for verbose in ["-q", "-vv"] {
        let full = File::create("/dev/full").unwrap();
        let done = scene.start_with(["info", "nodir", verbose], |command| {
            command.stderr(full);
        });
        done.end().fails(1, &[]);
    }

    let args = ["serve", "log", "--json", "-vv"];
    let server = scene.start_with(args, |command| {
        command.stderr(nobody());
    });
    let first = server.next();
    let address = first["address"].as_str().unwrap();
    for dir in ["one", "two"] {
        scene.run(["clone", KEY, dir, "--connect", address]).ok();
    }
    server.stop().ok();
}
