//! What a process does when nobody listens to it, and when somebody tells it to stop.

use std::{
    fs::{self, File, Permissions},
    os::unix::fs::PermissionsExt,
    process::{Command, Stdio},
};

use crate::process::{KEY, Process, Scene, in_shell};

/// A pipe to which nothing can be written.
fn nobody() -> std::io::PipeWriter {
    let (_, writer) = std::io::pipe().unwrap();
    writer
}

/// Waits until SIGTERM does not end the process at once any more.
fn await_handlers(process: &Process) {
    let path = format!("/proc/{}/status", process.id());
    loop {
        let status = fs::read_to_string(&path).unwrap();
        let caught = status
            .lines()
            .find_map(|line| line.strip_prefix("SigCgt:"))
            .unwrap();
        let caught = u64::from_str_radix(caught.trim(), 16).unwrap();
        if caught & (1 << 14) != 0 {
            return;
        }
        std::thread::yield_now();
    }
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

#[test]
fn a_full_disk_is_called_that() {
    let scene = Scene::new();
    scene.core("log", &["a"]);
    let full = File::create("/dev/full").unwrap();
    let done = scene.start_with(["cat", "log"], |command| {
        command.stdout(full);
    });
    done.end().fails(
        1,
        &["standard output cannot be written to: the disk is full"],
    );
}

/// A service that homes are closed to works without what is noted there.
#[test]
fn a_home_that_may_not_be_looked_into() {
    let scene = Scene::new();
    let home = scene.path("home");
    fs::create_dir(&home).unwrap();
    fs::set_permissions(&home, Permissions::from_mode(0o000)).unwrap();
    // For who may do everything this is no obstacle.
    let script = r#"case $(id -u) in
        0) exec setpriv --bounding-set -dac_override,-dac_read_search "$@";;
        *) exec "$@";;
    esac"#;
    for name in ["XDG_STATE_HOME", "HOME"] {
        let run = |args: &[&str]| {
            let process = scene.start_with(args, |command| {
                command.env_remove("XDG_STATE_HOME").env(name, &home);
                in_shell(command, script);
            });
            let done = process.end().ok();
            let told = done.stderr.matches("may not be looked at").count();
            assert_eq!(told, 1, "{}", done.stderr);
        };
        let dir = format!("of-{name}");
        run(&["create", &dir]);
        run(&["append", &dir, "a"]);
        run(&["info", &dir]);
    }
}

/// `timeout` sends its signal to the process and to its group.
#[test]
fn a_signal_that_comes_twice_is_one() {
    let scene = Scene::new();
    scene.core("log", &["a"]);
    let (server, _) = scene.serve("log", &[]);
    // Both are there when it goes on.
    for signal in ["-STOP", "-TERM", "-INT", "-CONT"] {
        server.signal(signal);
    }
    server.end().ok();
}

#[test]
fn a_signal_is_seen_while_there_is_always_more_to_do() {
    let scene = Scene::new();
    let zeros = scene.path("zeros");
    File::create(&zeros).unwrap().set_len(16 << 20).unwrap();
    for (dir, input) in [("named", "zeros"), ("piped", "-")] {
        scene.core(dir, &[]);
        let args = ["append", dir, "--file", input, "--block-size", "64"];
        let append = scene.start_with(args, |command| {
            command.stdin(File::open(&zeros).unwrap());
        });
        // It has begun in earnest.
        let data = scene.path(dir).join("data");
        while fs::metadata(&data).map_or(0, |found| found.len()) < 16 << 10 {
            std::thread::yield_now();
        }
        append.signal("-INT");
        append.end().fails(6, &["interrupted"]);
    }

    scene.core("lines", &[]);
    let yes = Command::new("yes").stdout(Stdio::piped()).spawn();
    let mut yes = yes.unwrap();
    let lines = yes.stdout.take().unwrap();
    let append = scene.start_with(["append", "lines", "--lines"], |command| {
        command.stdin(lines);
    });
    await_handlers(&append);
    append.signal("-INT");
    append.end().ok();
    let _ = yes.kill();
    yes.wait().unwrap();
    scene.run(["verify", "lines"]).ok();
}

#[test]
fn a_check_before_a_repair_can_be_stopped() {
    let scene = Scene::new();
    scene.core("log", &[]);
    let lines: String = (0..100_000).map(|index| format!("{index}\n")).collect();
    scene
        .feed(["append", "log", "--lines"], lines.as_bytes())
        .ok();
    let before = scene.files("log");
    let repair = scene.start(["repair", "log"]);
    await_handlers(&repair);
    repair.signal("-INT");
    repair
        .end()
        .fails(6, &["interrupted", "hypercore repair log"]);
    assert!(scene.files("log") == before);
    scene.run(["repair", "log"]).ok();
}
