//! What a process does when nobody listens to it, and when somebody tells it to stop.

use std::{
    fs::{self, File, Permissions},
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Command, Stdio},
};

use crate::process::{Done, KEY, Process, SEED, Scene, WITHOUT_PRIVILEGES, in_shell};

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
    for args in [
        &["cat", "log"][..],
        &["info", "log"],
        &["--help"],
        &["clone", "--help"],
        &["--version"],
    ] {
        let full = File::create("/dev/full").unwrap();
        let done = scene.start_with(args, |command| {
            command.stdout(full);
        });
        done.end().fails(
            1,
            &["standard output cannot be written to: the disk is full"],
        );
        // Who has seen enough is no failure.
        let done = scene.start_with(args, |command| {
            command.stdout(nobody());
        });
        done.end().ok();
    }
}

/// Whoever is told of a failure is told what is on the disk all the same, and appends nothing twice.
#[test]
fn a_failed_append_says_what_is_there() {
    let scene = Scene::new();
    scene.core("log", &[]);
    let full = || File::create("/dev/full").unwrap();
    let done = scene.start_with(["append", "log", "x", "--json"], |command| {
        command.stdout(full());
    });
    let words = "`log` has grown by 1 block, and keeps it";
    done.end().fails(1, &["the disk is full", words]);
    assert_eq!(scene.run(["cat", "log"]).ok().text(), "x");

    fs::write(scene.path("file"), vec![b'x'; 1 << 20]).unwrap();
    let args = ["append", "log", "--file", "file", "--block-size", "4096"];
    let limited = scene.start_with(args, |command| {
        in_shell(command, r#"trap "" XFSZ; ulimit -f 1000; exec "$@""#);
    });
    let words = "`log` has grown by 64 blocks, and keeps them; the rest begins at byte 262144";
    let tail = "`tail -c +262145 file | hypercore append log --file - --block-size 4096`";
    limited.end().fails(1, &["`data`", words, tail]);
}

/// Of a core that could not be made nothing is left: its key was told to nobody.
#[test]
fn a_full_disk_takes_no_half_of_a_core() {
    let scene = Scene::new();
    fs::create_dir(scene.path("empty")).unwrap();
    for dir in ["new", "a/b", "empty"] {
        let clone = ["clone", KEY, dir, "--connect", "127.0.0.1:9"];
        for args in [&["create", dir][..], &clone] {
            let limited = scene.start_with(args, |command| {
                in_shell(command, r#"ulimit -f 0; exec "$@""#);
            });
            limited.end().fails(1, &["the file `", "`ulimit -f`"]);
            assert!(!scene.path("new").exists() && !scene.path("a").exists());
            assert_eq!(scene.files("empty").len(), 0);
        }
        scene.run(["create", dir]).ok();
        let made = scene.files(dir);
        scene.run(["create", dir]).fails(1, &["already"]);
        assert_eq!(scene.files(dir), made);
        fs::remove_dir_all(scene.path(dir)).unwrap();
        let _ = fs::remove_dir(scene.path("a"));
    }
}

/// A service that homes are closed to works without what is noted there.
#[test]
fn a_home_that_may_not_be_looked_into() {
    let scene = Scene::new();
    let home = scene.path("home");
    fs::create_dir(&home).unwrap();
    fs::set_permissions(&home, Permissions::from_mode(0o000)).unwrap();
    fs::write(scene.path("file"), "text").unwrap();
    let null = Path::new("/dev/null");
    for (name, place, state, identity) in [
        ("XDG_STATE_HOME", home.as_path(), 1, 0),
        ("XDG_CONFIG_HOME", &home, 0, 1),
        ("HOME", &home, 1, 1),
        ("HOME", null, 1, 1),
    ] {
        let start = |args: &[&str]| {
            scene.start_with(args, |command| {
                if name == "HOME" {
                    command
                        .env_remove("XDG_STATE_HOME")
                        .env_remove("XDG_CONFIG_HOME");
                }
                command.env(name, place);
                in_shell(command, WITHOUT_PRIVILEGES);
            })
        };
        let told = |done: Done, expected: usize| {
            let done = done.ok();
            let told = done.stderr.matches("may not be looked at").count();
            assert_eq!(told, expected, "{name}: {}", done.stderr);
        };
        let _ = fs::remove_dir_all(scene.path("log"));
        told(start(&["create", "log", "--seed", SEED]).end(), state);
        told(start(&["append", "log", "a"]).end(), state);
        told(start(&["info", "log"]).end(), state);
        // Unless silence was asked for.
        told(start(&["info", "log", "-q"]).end(), 0);
        let server = start(&["serve", "log", "--json"]);
        let address = server.event("listening")["address"].clone();
        let address = address.as_str().unwrap();
        let _ = fs::remove_dir_all(scene.path("copy"));
        let clone = start(&["clone", KEY, "copy", "--connect", address]);
        told(clone.end(), state + identity);
        told(server.stop(), state + identity);
        let server = start(&["share", "file", "--json"]);
        server.event("sharing");
        told(server.stop(), state + identity);
        // What was asked for by its name is needed.
        if place == home {
            let path = home.join("identity");
            let path = path.to_str().unwrap();
            start(&["serve", "log", "--identity", path])
                .end()
                .fails(1, &["cannot be read: access is denied"]);
        }
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
    let zeros_are = |len| File::create(&zeros).unwrap().set_len(len).unwrap();
    for (dir, input) in [("named", "zeros"), ("piped", "-")] {
        scene.core(dir, &[]);
        zeros_are(16 << 20);
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
        let done = append.end().fails(6, &["interrupted", &format!("`{dir}`")]);
        // What is there is told, and the rest goes on after it.
        let size = fs::metadata(&data).unwrap().len();
        if input == "-" {
            let words = format!("the rest begins at byte {size} of standard input");
            assert!(done.stderr.contains(&words), "{}", done.stderr);
            continue;
        }
        let suggested = done.stderr.split('`').find(|it| it.starts_with("tail"));
        let suggested = suggested.expect("a command");
        let script = format!("program=$1; hypercore() {{ \"$program\" \"$@\"; }}; {suggested}");
        let paste = |command: &mut Command| in_shell(command, &script);
        // All of it would take long.
        zeros_are(size + 6400);
        scene.start_with([""; 0], paste).end().ok();
        assert_eq!(fs::metadata(&data).unwrap().len(), size + 6400);
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
