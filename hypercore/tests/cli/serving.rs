//! `serve`: where it says that it is reached, many at once, and how it ends.

#[cfg(target_os = "linux")]
use crate::process::in_shell;
use crate::process::{KEY, Scene, many};

/// The command that `serve` prints is one that works where it is said to.
#[test]
fn where_a_server_is_reached() {
    let scene = Scene::new();
    scene.core("log", &["a"]);
    let told = |flags: &[&str]| {
        let server = scene.start(["serve", "log"].iter().chain(flags));
        let lines = [server.text(), server.text()].concat();
        let done = server.stop().ok();
        (lines + done.text() + &done.stderr).replace(KEY, "KEY")
    };
    let words = told(&[]);
    for part in [
        " on 127.0.0.1:",
        "In another terminal:\n  hypercore clone KEY DIR --connect 127.0.0.1:",
        "\nFor other machines: --announce, or --listen 0.0.0.0:PORT\n",
    ] {
        assert!(words.contains(part), "no {part:?} in {words}");
    }
    let words = told(&["--listen", "0.0.0.0:0"]);
    let part = "Elsewhere:\n  hypercore clone KEY DIR --connect ";
    assert!(words.contains(part), "{words}");
    assert!(!words.contains("--connect 0.0.0.0"), "{words}");
    assert!(!words.contains("other machines"), "{words}");
    let words = told(&["--announce"]);
    let part =
        "Elsewhere:\n  hypercore clone KEY DIR\nor, where that finds nobody, with `--connect ";
    assert!(words.contains(part), "{words}");
    assert!(!words.contains("--connect 0.0.0.0"), "{words}");
    let words = told(&["--http", "0.0.0.0:0"]);
    assert!(words.contains("See http://"), "{words}");
    assert!(!words.contains("http://0.0.0.0"), "{words}");
}

/// Many readers at once, one of which says nonsense.
#[test]
fn many_readers() {
    use std::io::Write;
    let scene = Scene::new();
    many(&scene, "log", 500, 100);
    let (server, address) = scene.serve("log", &[]);
    let mut stranger = std::net::TcpStream::connect(&address).unwrap();
    stranger.write_all(&[0xff; 100]).unwrap();
    let clones = ["a", "b", "c"].map(|dir| scene.start(["clone", KEY, dir, "--connect", &address]));
    for clone in clones {
        clone.end().ok();
    }
    server.stop().ok();
    let data = &scene.files("log")["data"];
    for dir in ["a", "b", "c"] {
        assert!(&scene.files(dir)["data"] == data, "{dir}");
    }
}

#[test]
fn signals() {
    let scene = Scene::new();
    scene.core("log", &["a"]);
    for signal in ["-TERM", "-INT"] {
        let (server, _) = scene.serve("log", &[]);
        server.signal(signal);
        server.end().ok();
    }

    // Lines that were acknowledged are kept, the command ends well.
    let mut append = scene.start(["append", "log", "--lines", "--progress-json", "--json"]);
    append.say("b\n");
    append.event("ack");
    append.signal("-TERM");
    assert_eq!(append.end_open().ok().json()["length"], 2);

    // A file that was not read to its end is something else.
    let args = [
        "append",
        "log",
        "--file",
        "-",
        "--block-size",
        "1",
        "--progress-json",
    ];
    let mut append = scene.start(args);
    append.say([b'c'; 64]);
    append.event("ack");
    append.signal("-TERM");
    append.end_open().fails(6, &["interrupted"]);
}

/// It is told in words, and once, whoever asks for it and whatever else is to be said.
#[test]
fn a_damaged_block_is_told_once() {
    let scene = Scene::new();
    scene.core("log", &["a", "b", "c"]);
    scene.damage("log/data", 1);
    for flags in [&[][..], &["-q"]] {
        let (server, address) = scene.serve("log", flags);
        for _ in 0..2 {
            let get = ["get", KEY, "1", "--connect", &address];
            scene.run(get).fails(6, &["no connected peer"]);
        }
        let done = server.stop().ok();
        let told = done.stderr.lines().filter(|line| line.contains("damaged"));
        let told: Vec<_> = told.collect();
        assert_eq!(told.len(), 1, "{}", done.stderr);
        for words in [
            "error: the core in `log`",
            "block 1",
            "`hypercore repair log`",
        ] {
            assert!(told[0].contains(words), "{told:?}");
        }
        assert!(flags.is_empty() || done.stderr.lines().count() == 1);
    }
}

/// As many files as the system lets a process have are not all for those who call.
#[cfg(target_os = "linux")]
#[test]
fn more_strangers_than_there_are_files() {
    let scene = Scene::new();
    scene.core("log", &["a"]);
    let args = ["serve", "log", "--json", "--lines"];
    let mut server = scene.start_with(args, |command| {
        // What is raised is the soft limit.
        in_shell(command, r#"ulimit -Sn 40; ulimit -Hn 100; exec "$@""#);
    });
    let first = server.next();
    let address = first["address"].as_str().unwrap();
    let strangers: Vec<_> = (0..150)
        .map(|_| std::net::TcpStream::connect(address).unwrap())
        .collect();
    let words = server.complaint();
    assert!(words.contains("was refused"), "{words}");
    for length in 2..5 {
        server.say("line\n");
        assert_eq!(server.event("append")["length"], length);
    }
    drop(strangers);
    scene.run(["clone", KEY, "copy", "--connect", address]).ok();
    let done = server.stop().ok();
    assert!(!done.stderr.contains("open files"), "{}", done.stderr);
}

/// It is told, and not ten times a second.
#[cfg(target_os = "linux")]
#[test]
fn no_file_is_left() {
    let scene = Scene::new();
    scene.core("log", &["a"]);
    let (server, address) = scene.serve("log", &[]);
    // It has all that it needs to answer them.
    scene.run(["stats", "log"]).ok();
    let limit = |files: u32| {
        let id = server.id().to_string();
        let limit = format!("--nofile={files}:");
        let done = std::process::Command::new("prlimit")
            .args(["--pid", &id, &limit])
            .status();
        assert!(done.unwrap().success());
    };
    limit(1);
    let start = std::time::Instant::now();
    let clone = scene.start(["clone", KEY, "copy", "--connect", &address]);
    let told: Vec<_> = (0..3).map(|_| server.complaint()).collect();
    assert!(
        start.elapsed() > std::time::Duration::from_secs(2),
        "{told:?}"
    );
    for words in told {
        assert!(words.contains("a connection was not accepted"), "{words}");
        assert!(words.contains("`ulimit -n`"), "{words}");
    }
    limit(1000);
    clone.end().ok();
    // Questions are answered again, too.
    scene.run(["stats", "log"]).ok();
    server.stop().ok();
}
