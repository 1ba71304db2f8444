//! Whoever asks for events and stops reading them holds up nothing but what it is told.

use std::{
    io::{BufRead, BufReader, PipeReader, PipeWriter, Read, Write, pipe},
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::{OFlags, fcntl_setfl},
};
use serde_json::Value;

use crate::process::{KEY, Process, SEED, Scene, many};

/// Starts a command that writes to a pipe of ours; returns both ends of it, too.
fn start(scene: &Scene, args: &[&str]) -> (Process, PipeReader, PipeWriter) {
    let (reader, writer) = pipe().unwrap();
    let process = scene.start_with(args, |command| {
        command.stdout(writer.try_clone().unwrap());
    });
    (process, reader, writer)
}

/// The next event, and no byte after it.
fn next(reader: &mut PipeReader) -> Value {
    let (mut line, mut byte) = (Vec::new(), [0]);
    while byte != *b"\n" {
        reader.read_exact(&mut byte).unwrap();
        line.extend(byte);
    }
    serde_json::from_slice(&line).unwrap()
}

/// Fills the pipe with empty lines.
fn fill(writer: &mut PipeWriter) {
    fcntl_setfl(&*writer, OFlags::NONBLOCK).unwrap();
    while writer.write(b"\n").is_ok() {}
    fcntl_setfl(&*writer, OFlags::empty()).unwrap();
}

/// What `stats` tells of a core, once it is so.
fn await_stats(scene: &Scene, dir: &str, name: &str, value: u64) {
    let start = Instant::now();
    loop {
        let done = scene.run(["stats", dir, "--json"]);
        // It may not have begun to answer.
        if done.code == Some(0) && done.json()[name] == value {
            return;
        }
        assert!(start.elapsed() < Duration::from_secs(20), "{done:?}");
    }
}

/// Stops it, which does not take long.
fn stop(process: Process) {
    let start = Instant::now();
    process.stop().ok();
    assert!(start.elapsed() < Duration::from_secs(10));
}

#[test]
fn serve_goes_on() {
    let scene = Scene::new();
    scene.core("log", &["a"]);
    let args = ["serve", "log", "--json", "--lines"];
    let (mut server, mut reader, mut writer) = start(&scene, &args);
    let first = next(&mut reader);
    let address = first["address"].as_str().unwrap();
    fill(&mut writer);
    for (dir, length) in [("a", 2), ("b", 3), ("c", 4)] {
        server.say("line\n");
        await_stats(&scene, "log", "length", length);
        scene.run(["clone", KEY, dir, "--connect", address]).ok();
    }
    // Once it reads again, it hears everything.
    drop(writer);
    let stopped = std::thread::spawn(move || stop(server));
    let told: Vec<Value> = BufReader::new(reader)
        .lines()
        .map(Result::unwrap)
        .filter(|line| !line.is_empty())
        .map(|line| serde_json::from_str(&line).unwrap())
        .collect();
    stopped.join().unwrap();
    let of = |name: &str| told.iter().filter(|event| event["event"] == name).count();
    assert_eq!([of("append"), of("peer-open"), of("peer-close")], [3, 3, 3]);

    let (server, mut reader, mut writer) = start(&scene, &args);
    let first = next(&mut reader);
    let address = first["address"].as_str().unwrap();
    fill(&mut writer);
    scene.run(["clone", KEY, "d", "--connect", address]).ok();
    stop(server);
}

/// Also for those who read its remarks.
#[test]
fn serve_goes_on_where_nobody_takes_its_remarks() {
    let scene = Scene::new();
    scene.core("log", &["a"]);
    for signal in ["-INT", "-TERM"] {
        let (_reader, mut writer) = pipe().unwrap();
        fill(&mut writer);
        let server = scene.start_with(["serve", "log", "-v"], |command| {
            command.stderr(writer);
        });
        let _ = server.text();
        let line = server.text();
        let address = line.trim().rsplit(' ').next().unwrap();
        for clone in 0..5 {
            let dir = format!("{signal}{clone}");
            scene
                .run(["clone", "--connect", address, "--", KEY, &dir])
                .ok();
        }
        server.signal(signal);
        let start = Instant::now();
        server.end().ok();
        assert!(start.elapsed() < Duration::from_secs(10));
    }
}

/// The last words are waited for, but not for ever.
#[test]
fn an_error_that_nobody_takes() {
    let scene = Scene::new();
    let (_reader, mut writer) = pipe().unwrap();
    fill(&mut writer);
    let server = scene.start_with(["serve", "nothing"], |command| {
        command.stderr(writer);
    });
    assert_eq!(server.end().code, Some(1));
}

/// It was cut off when the last peer left.
#[test]
fn a_slow_reader_gets_all_that_is_here() {
    let scene = Scene::new();
    many(&scene, "log", 80, 50_000);
    for source in [KEY, "copy"] {
        let (server, address) = scene.serve("log", &[]);
        if source == "copy" {
            scene
                .run(["clone", KEY, "copy", "--connect", &address])
                .ok();
        }
        let (process, mut reader, writer) = start(&scene, &["cat", source, "--connect", &address]);
        drop(writer);
        let mut all = vec![0];
        reader.read_exact(&mut all).unwrap();
        await_stats(&scene, "log", "uploadedBytes", 80 * 50_000);
        stop(server);
        // Meanwhile it sees that nobody is left, which it tells nobody.
        std::thread::sleep(Duration::from_millis(500));
        reader.read_to_end(&mut all).unwrap();
        assert_eq!(all.len(), 80 * 50_000);
        process.end().ok();
    }
}

#[test]
fn a_live_clone_goes_on() {
    const BLOCKS: u64 = 20_000;
    let scene = Scene::new();
    many(&scene, "log", BLOCKS as usize, 10);
    let (mut server, address) = scene.serve("log", &["--lines"]);
    let args = [
        "clone",
        KEY,
        "copy",
        "--json",
        "--live",
        "--connect",
        &address,
    ];
    // More than a pipe takes, and the queue before it.
    let (clone, reader, writer) = start(&scene, &args);
    await_stats(&scene, "copy", "downloaded", BLOCKS);
    server.say("line\n");
    await_stats(&scene, "copy", "downloaded", BLOCKS + 1);
    // Once it reads again, it hears of each block once, and then that all are here.
    drop(writer);
    let mut told = vec![false; BLOCKS as usize + 1];
    for line in BufReader::new(reader).lines() {
        let event: Value = serde_json::from_str(&line.unwrap()).unwrap();
        if event["event"] == "download" {
            let index = event["index"].as_u64().unwrap() as usize;
            assert!(!std::mem::replace(&mut told[index], true), "{index} twice");
        }
        if event["event"] == "synced" && event["downloaded"] == BLOCKS + 1 {
            break;
        }
    }
    assert!(!told.contains(&false));
    stop(clone);

    let (clone, _reader, mut writer) = start(&scene, &args);
    fill(&mut writer);
    server.say("line\n");
    await_stats(&scene, "copy", "downloaded", BLOCKS + 2);
    stop(clone);
    server.stop().ok();
}

/// Also for one that writes bytes, and has more of them than anybody takes.
#[test]
fn a_signal_ends_what_nobody_takes() {
    let scene = Scene::new();
    scene.run(["create", "log", "--seed", SEED]).ok();
    let bytes = vec![7; 1 << 20];
    let args = ["append", "log", "--file", "-", "--block-size", "300000"];
    scene.feed(args, &bytes).ok();
    let (server, address) = scene.serve("log", &[]);
    for (code, args) in [
        (0, &["cat", "log", "--follow"][..]),
        (0, &["cat", KEY, "--follow", "--connect", &address]),
        (6, &["cat", KEY, "--connect", &address]),
        (6, &["get", KEY, "0", "--connect", &address]),
    ] {
        let (process, _reader, writer) = start(&scene, args);
        let has_room = || {
            let mut looked_at = [PollFd::new(&writer, PollFlags::OUT)];
            let ready = poll(&mut looked_at, Some(&Timespec::default()));
            ready.unwrap() > 0
        };
        while has_room() {
            std::thread::yield_now();
        }
        let start = Instant::now();
        let done = process.stop();
        assert_eq!(done.code, Some(code), "{args:?}: {}", done.stderr);
        assert!(start.elapsed() < Duration::from_secs(2), "{args:?}");
    }
    // What was read is written to the end for one who takes it.
    let (process, mut reader, writer) = start(&scene, &["cat", "log", "--follow"]);
    drop(writer);
    let mut first = vec![0; 1000];
    reader.read_exact(&mut first).unwrap();
    process.signal("-TERM");
    let mut rest = Vec::new();
    reader.read_to_end(&mut rest).unwrap();
    process.end().ok();
    let len = first.len() + rest.len();
    assert!(len.is_multiple_of(300_000) || len == bytes.len(), "{len}");
    server.stop().ok();
}
