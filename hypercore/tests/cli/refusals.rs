//! What is refused, with which words and exit code.

#[cfg(unix)]
use std::process::Command;

#[cfg(unix)]
use crate::process::in_shell;
use crate::process::{KEY, SEED, Scene};

#[test]
fn usage() {
    let scene = Scene::new();
    scene.core("log", &[]);
    let long_key = format!("{KEY}00");
    for args in [
        &[][..],
        &["nonsense"],
        &["create"],
        &["create", "x", "--seed", "12"],
        &["append", "log"],
        &["append", "log", "a", "--lines"],
        &["append", "log", "--block-size", "10", "a"],
        &["append", "log", "--file", "f", "--block-size", "0"],
        &["append", "log", "--file", "f", "--block-size", "8388609"],
        &["get", "log"],
        &["get", "log", "-1"],
        &["get", "log", "0", "--timeout", "1"],
        &["cat", "log", "--timeout", "1"],
        &["cat", "log", "--timeout", "1", "--follow"],
        &["get", "log", "0", "--json"],
        &["cat", "log", "--json"],
        &["clone", KEY],
        &["clone", "abc", "copy", "--connect", "127.0.0.1:1"],
        &["clone", &long_key, "copy", "--connect", "127.0.0.1:1"],
        &[
            "clone",
            KEY,
            "copy",
            "--connect",
            "127.0.0.1:1",
            "--range",
            "0..1",
        ],
        &[
            "clone",
            KEY,
            "copy",
            "--connect",
            "127.0.0.1:1",
            "--sparse",
            "--range",
            "2..1",
        ],
    ] {
        scene.run(args).fails(2, &[]);
    }
    assert!(!scene.path("copy").exists() && !scene.path("x").exists());
}

/// What may follow an option is nothing that people know by a name.
#[test]
fn a_word_too_many() {
    let scene = Scene::new();
    for args in [
        &["serve", "log", "extra"][..],
        &["clone", KEY, "copy", "extra"],
        &["repair", "log", "extra"],
        &["resume", "log", "--accept-fork-risk", "extra"],
    ] {
        let done = scene.run(args).fails(2, &["unexpected argument 'extra'"]);
        assert!(!done.stderr.contains("MORE"), "{}", done.stderr);
    }
    scene
        .run(["serve", "log", "--allow", KEY, "extra"])
        .fails(2, &["invalid value 'extra' for '--allow <KEY>", "a key is"]);
    let done = scene.run(["clone", KEY, "copy", "--connect", "127.0.0.1:9", "extra"]);
    done.fails(2, &["invalid value 'extra' for '--connect <ADDR:PORT>"]);
}

/// What is not there has its reason.
#[test]
fn ranges_that_are_none() {
    let scene = Scene::new();
    scene.core("log", &["a", "b", "c"]);
    let turned = "that ends before it begins";
    let no_block = "there is no block 5: the core in `log` has 3 blocks";
    let beyond = "blocks 1..9 do not lie within the core in `log`, which has 3 blocks";
    for (args, words) in [
        (&["clear", "log", "2", "1"][..], turned),
        (&["clear", "log", "5"], no_block),
        (&["clear", "log", "1", "9"], beyond),
        (&["cat", "log", "--start", "2", "--end", "1"], turned),
        (&["cat", "log", "--start", "5"], no_block),
        (&["cat", "log", "--start", "1", "--end", "9"], beyond),
        (&["log", "log", "--start", "2", "--end", "1"], turned),
        (&["log", "log", "--start", "5"], no_block),
        (&["log", "log", "--start", "1", "--end", "9"], beyond),
        (
            &["cat", "log", "--bytes", "100.."],
            "there is no byte 100: the core in `log` has 3 bytes",
        ),
    ] {
        scene.run(args).fails(1, &[words]);
    }
    let turned = scene.run(["cat", "log", "--bytes", "2..1"]);
    turned.fails(2, &["2..1 ends before it begins"]);
    for command in ["cat", "log"] {
        let at_end = scene.run([command, "log", "--start", "3"]).ok();
        assert_eq!(at_end.text(), "");
    }
}

/// What is for people is read line by line.
#[cfg(unix)]
#[test]
fn a_name_is_no_line() {
    let scene = Scene::new();
    let done = scene.run(["create", "odd\nname"]).ok();
    assert!(done.text().starts_with("Created a core in `odd\\nname`.\n"));
}

#[test]
fn help() {
    let scene = Scene::new();
    let commands = [
        "create", "append", "get", "cat", "info", "seek", "clear", "audit", "verify", "repair",
        "resume", "serve", "clone", "identity",
    ];
    let help = scene.run(["--help"]).ok();
    for command in commands {
        assert!(help.text().contains(&format!("  {command} ")), "{command}");
        let help = scene.run([command, "--help"]).ok();
        assert!(help.text().contains("Usage: hypercore "), "{command}");
    }
    assert!(
        scene
            .run(["--version"])
            .ok()
            .text()
            .starts_with("hypercore ")
    );
}

/// What the system or a parser says of a mistake says nothing to people.
#[test]
fn mistakes_in_words_for_people() {
    let scene = Scene::new();
    scene.core("log", &["a"]);
    for args in [&["get", "log", "x"][..], &["seek", "log", "x"]] {
        scene.run(args).fails(2, &["a whole number"]);
    }
    for (args, words) in [
        (
            &["serve", "log", "--listen", "192.0.2.77:1"][..],
            "this machine does not have that address",
        ),
        (
            &["serve", "log", "--listen", "nobody.invalid:1"],
            "no machine of that name is known",
        ),
        (
            &["clone", KEY, "copy", "--connect", "nobody.invalid:1"],
            "no machine of that name is known",
        ),
        (
            &["keys", "import", "log", "copy"],
            "`log` cannot be read: it is a directory",
        ),
        (
            &["append", "log", "--file", "log/key/x"],
            "is not a directory",
        ),
    ] {
        let done = scene.run(args).fails(1, &[words]);
        assert!(!done.stderr.contains("os error"), "{}", done.stderr);
    }
}

#[test]
fn a_core_in_use() {
    let scene = Scene::new();
    scene.core("log", &["a"]);
    let (server, address) = scene.serve("log", &[]);
    for args in [
        &["append", "log", "b"][..],
        &["get", "log", "0"],
        &["cat", "log"],
        &["info", "log", "--json"],
        &["seek", "log", "0"],
        &["clear", "log", "0"],
        &["audit", "log"],
        &["serve", "log"],
        &["create", "log"],
        &["clone", KEY, "log", "--connect", &address],
    ] {
        let done = scene.run(args).fails(
            5,
            &["`log`", "in use by another process", "hypercore stats log"],
        );
        assert_eq!(done.stdout, b"", "{args:?}");
    }
    server.kill();
    scene.run(["append", "log", "b"]).ok();
}

#[test]
fn a_core_that_is_there_already() {
    let scene = Scene::new();
    scene.core("log", &["a"]);
    let before = scene.files("log");
    scene
        .run(["create", "log", "--seed", SEED])
        .fails(1, &["there is a core in `log` already", KEY]);
    let other = "00".repeat(32);
    scene
        .run(["clone", &other, "log", "--connect", "127.0.0.1:1"])
        .fails(1, &["`log` holds another core", KEY, &other]);
    scene
        .run(["clone", KEY, "log", "--connect", "127.0.0.1:1"])
        .fails(1, &["`log` holds the original"]);
    assert_eq!(scene.files("log"), before);
}

#[test]
fn what_is_not_a_core() {
    let scene = Scene::new();
    std::fs::write(scene.path("file"), b"x").unwrap();
    std::fs::create_dir(scene.path("nothing")).unwrap();
    scene
        .run(["info", "file"])
        .fails(1, &["`file` is not a directory", "name another path"]);
    std::fs::create_dir(scene.path("file.hypercore")).unwrap();
    scene
        .run(["stats", "file"])
        .fails(1, &["its core is in `file.hypercore`"]);
    for args in [
        &["create", "file"][..],
        &["clone", KEY, "file", "--connect", "127.0.0.1:1"],
    ] {
        scene.run(args).fails(1, &["`file` is not a directory"]);
    }
    scene
        .run(["info", KEY])
        .fails(1, &["is a key", "hypercore clone", "hypercore cat"]);
    scene
        .run(["info", "nothing"])
        .fails(1, &["no core in `nothing`", "hypercore create"]);
    scene
        .run(["append", "nothing", "a"])
        .fails(1, &["no core in `nothing`"]);
}

#[test]
fn damaged_files() {
    let scene = Scene::new();
    for (file, offset) in [("key", 0), ("tree", 0), ("tree", 40), ("signatures", 40)] {
        let name = format!("{file}-{offset}");
        scene.core(&name, &["a"]);
        scene.damage(format!("{name}/{file}"), offset);
        let before = scene.files(&name);
        for command in ["info", "audit", "cat"] {
            scene
                .run([command, &name])
                .fails(3, &[&format!("`{name}`")]);
        }
        scene.run(["append", &name, "b"]).fails(3, &[]);
        assert_eq!(scene.files(&name), before, "{name}");
    }
}

#[test]
fn a_block_that_is_too_large() {
    let scene = Scene::new();
    scene.core("log", &[]);
    let line = vec![b'x'; 8 * 1024 * 1024 + 1];
    let mut process = scene.start(["append", "log", "--lines"]);
    process.say("first\n");
    process.say(&line[..8 * 1024 * 1024]);
    process.say("x");
    let words = "line 2 of standard input is longer than 8388608 bytes";
    let kept = "`log` has grown by 1 block, and keeps it";
    process.end().fails(1, &[words, "--file", kept]);
    // The line before it is kept.
    assert_eq!(scene.run(["cat", "log"]).ok().stdout, b"first");
    scene
        .feed(["append", "log", "--lines"], &[&line[1..], b"\n"].concat())
        .ok();
}

#[test]
fn input_that_is_not_there() {
    let scene = Scene::new();
    scene.core("log", &[]);
    scene
        .run(["append", "log", "--file", "missing"])
        .fails(1, &["`missing` cannot be read: it does not exist"]);
    scene
        .run(["append", "log", "--file", "log"])
        .fails(1, &["`log` is a directory"]);
}

#[test]
fn a_read_only_copy() {
    let scene = Scene::new();
    scene.core("log", &["a"]);
    let (server, address) = scene.serve("log", &[]);
    scene
        .run(["clone", KEY, "copy", "--connect", &address])
        .ok();
    server.stop().ok();
    for args in [&["append", "copy", "b"][..], &["serve", "copy", "--lines"]] {
        scene
            .run(args)
            .fails(1, &["`copy` is read-only", "secret key"]);
    }
    assert_eq!(
        scene.run(["info", "copy", "--json"]).ok().json()["writable"],
        false
    );
}

#[test]
fn an_address_that_is_taken() {
    let scene = Scene::new();
    scene.core("log", &[]);
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    scene
        .run(["serve", "log", "--listen", &address])
        .fails(1, &["cannot listen on", &address, "--listen"]);
    let done = scene
        .run(["serve", "log", "--http", &address])
        .fails(1, &["cannot listen on", &address, "--http"]);
    assert_eq!(done.text(), "", "it is not served");
}

/// Whatever a directory is called, the command does what it says.
#[cfg(unix)]
#[test]
fn commands_that_are_suggested_can_be_pasted() {
    let scene = Scene::new();
    for dir in [
        "two words",
        "it's",
        "$(touch evil)",
        "a;touch evil",
        "~",
        "-dash",
        "*",
        "blöcke",
    ] {
        let done = scene.run(["append", "--", dir, "block"]).fails(1, &[dir]);
        let suggested = done
            .stderr
            .split('`')
            .find(|it| it.starts_with("hypercore"));
        let suggested = suggested.expect("a command");
        let script = format!("program=$1; hypercore() {{ \"$program\" \"$@\"; }}; {suggested}");
        let paste = |command: &mut Command| in_shell(command, &script);
        scene.start_with([""; 0], paste).end().ok();
        scene.run(["append", "--", dir, "block"]).ok();
    }
    assert!(!scene.path("evil").exists());
    // Where there is nothing to quote, nothing is quoted.
    scene
        .run(["append", "logs_1.2", "block"])
        .fails(1, &["`hypercore create logs_1.2`"]);
}
