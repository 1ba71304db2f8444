//! What the command line finds of damage, and what it puts right.

use std::{
    io,
    net::{Shutdown, TcpListener, TcpStream},
    thread,
};

use serde_json::json;

use crate::process::{KEY, Scene};

#[test]
fn verify_checks_everything_and_changes_nothing() {
    let scene = Scene::new();
    scene.core("log", &["a", "bc", "def"]);
    let before = scene.files("log");
    let done = scene.run(["verify", "log", "--json"]).ok();
    let expected = json!({"ok": true, "blocks": 3, "bytes": 6, "problems": []});
    assert_eq!(done.json(), expected);
    assert!(
        scene
            .run(["verify", "log"])
            .ok()
            .text()
            .contains("3 blocks with 6 bytes")
    );
    assert_eq!(scene.files("log"), before);

    scene
        .run(["verify", "nothing"])
        .fails(1, &["nothing", "does not exist"]);
    std::fs::create_dir(scene.path("empty")).unwrap();
    scene.run(["verify", "empty"]).fails(1, &["no core"]);
    assert!(scene.files("empty").is_empty());
}

/// It was said to have no secret key, and a clone was let into it.
#[test]
fn a_damaged_original_is_no_clone() {
    let scene = Scene::new();
    scene.core("log", &["a", "b", "c"]);
    let (server, address) = scene.serve("log", &[]);
    server.stop().ok();
    let signatures = std::fs::OpenOptions::new()
        .write(true)
        .open(scene.path("log/signatures"))
        .unwrap();
    signatures.set_len(32 + 64 * 2).unwrap();
    for command in [
        &["append", "log", "x"][..],
        &["resume", "log", "--from", &address],
    ] {
        let done = scene.run(command).fails(3, &["damaged", "signature"]);
        assert!(!done.stderr.contains("secret key"), "{done:?}");
    }
    let info = scene.run(["info", "log"]).ok();
    assert!(!info.text().contains("not here"), "{info:?}");
    let before = scene.files("log");
    scene
        .run(["clone", KEY, "log", "--connect", &address])
        .fails(1, &["`log` holds the original"]);
    assert_eq!(scene.files("log"), before);
    // Now it is worth the more.
    scene.run(["keys", "export", "log", "keys"]).ok();
}

#[test]
fn verify_names_the_file_to_blame() {
    let damages = [
        ("data", 4, 2),
        ("tree", 32 + 40 * 2 + 5, 2),
        ("signatures", 32 + 64 * 2 + 9, 2),
        ("bitfield", 32, 7),
        ("key", 7, 0),
        ("secret_key", 40, 0),
        ("tree", 1, 0),
        ("bitfield", 1, 0),
    ];
    for (file, offset, index) in damages {
        let scene = Scene::new();
        scene.core("log", &["a", "bc", "def"]);
        scene.damage(format!("log/{file}"), offset);
        let before = scene.files("log");
        let done = scene
            .run(["verify", "log", "--json"])
            .fails(3, &[file, "hypercore repair"]);
        let found = done.json();
        assert_eq!(found["ok"], false, "{file} {offset}");
        let problems = found["problems"].as_array().unwrap();
        assert!(
            problems
                .iter()
                .any(|it| it["file"] == file && it["index"] == index),
            "{file} {offset}: {problems:?}"
        );
        assert!(problems.iter().all(|it| it["problem"].is_string()));
        assert_eq!(scene.files("log"), before);
    }
}

#[test]
fn a_log_in_use_is_not_verified() {
    let scene = Scene::new();
    scene.core("log", &["a"]);
    let _serving = scene.serve("log", &[]);
    scene.run(["verify", "log"]).fails(5, &["in use"]);
}

#[test]
fn a_log_that_was_not_closed_is_not_damaged() {
    let scene = Scene::new();
    scene.core("log", &["a"]);
    let (mut process, _) = scene.serve("log", &["--lines"]);
    process.say("b\nc\n");
    while process.event("append")["length"] != 3 {}
    process.kill();
    let done = scene.run(["verify", "log", "--json"]).ok();
    assert_eq!(done.json()["blocks"], 3);
    assert_eq!(scene.run(["info", "log", "--json"]).ok().json()["key"], KEY);
}

#[test]
fn repair_computes_what_follows_from_the_rest() {
    let cases = [
        ("tree", 32 + 40 + 5),
        ("tree", 32 + 40 * 2 + 5),
        ("signatures", 32 + 64 * 2 + 9),
        ("bitfield", 32),
        ("key", 7),
        ("tree", 1),
        ("bitfield", 1),
    ];
    for (file, offset) in cases {
        let scene = Scene::new();
        scene.core("log", &["a", "bc", "def"]);
        let before = scene.files("log");
        scene.damage(format!("log/{file}"), offset);
        let done = scene.run(["repair", "log", "--json"]).ok().json();
        assert!(
            done["repaired"].as_u64() > Some(0),
            "{file} {offset}: {done}"
        );
        assert_eq!((&done["dropped"], &done["fetched"]), (&json!(0), &json!(0)));
        let mut after = scene.files("log");
        after.retain(|name, _| !name.starts_with("quarantine"));
        assert!(before == after, "{file} {offset}");
        scene.run(["verify", "log"]).ok();
    }
}

#[test]
fn repair_changes_nothing_that_is_right() {
    let scene = Scene::new();
    scene.core("log", &["a", "bc", "def"]);
    let before = scene.files("log");
    let done = scene.run(["repair", "log", "--json"]).ok();
    assert_eq!(
        done.json(),
        json!({"repaired": 0, "dropped": 0, "fetched": 0})
    );
    assert!(scene.files("log") == before);
    scene
        .run(["repair", "nothing"])
        .fails(1, &["does not exist"]);
}

#[test]
fn repair_fetches_false_blocks_from_peers() {
    let scene = Scene::new();
    scene.core("log", &["a", "bc", "def", "g"]);
    let (_server, address) = scene.serve("log", &[]);
    scene
        .run(["clone", KEY, "copy", "--connect", &address])
        .ok();
    let before = scene.files("copy");
    scene.damage("copy/data", 1);
    scene.damage("copy/data", 4);
    let fetched = scene.run(["repair", "copy", "--connect", &address, "--json"]);
    assert_eq!(
        fetched.ok().json(),
        json!({"repaired": 0, "dropped": 2, "fetched": 2})
    );
    let mut after = scene.files("copy");
    assert!(
        after
            .remove("quarantine-0")
            .is_some_and(|copy| copy.starts_with(b"data 1 2\n"))
    );
    assert!(before == after);
}

/// Without a peer nothing is dropped, and none of what there is goes missing meanwhile.
#[test]
fn repair_drops_nothing_before_it_has_a_peer() {
    let scene = Scene::new();
    scene.core("log", &["a", "bc"]);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    // Nothing is wrong: nobody is called.
    scene.run(["repair", "log", "--connect", &address]).ok();
    scene.damage("log/data", 1);
    let before = scene.files("log");

    let repair = scene.start(["repair", "log", "--connect", &address]);
    let _connection = listener.accept().unwrap();
    let words = ["interrupted", "`log`", "`hypercore repair log`"];
    repair.stop().fails(6, &words);
    assert!(scene.files("log") == before);
    drop(listener);
    let done = scene.run(["repair", "log", "--connect", &address]);
    done.fails(1, &["no peer with the core"]);
    assert!(scene.files("log") == before);
}

/// The peer answers the first call, and not the second.
#[test]
fn an_interrupted_repair_says_how_to_fetch_the_rest() {
    let scene = Scene::new();
    scene.core("log", &["a", "bc"]);
    std::fs::create_dir(scene.path("damaged")).unwrap();
    for (name, bytes) in scene.files("log") {
        std::fs::write(scene.path("damaged").join(name), bytes).unwrap();
    }
    scene.damage("damaged/data", 1);
    let (_server, server) = scene.serve("log", &[]);
    let middle = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = middle.local_addr().unwrap().to_string();
    let command = "`hypercore get damaged 1 --connect ADDR:PORT`";
    let missing = "What could not be proven is missing now";
    let start = || {
        let repair = scene.start(["repair", "damaged", "--connect", &address]);
        forward(middle.accept().unwrap().0, &server);
        (repair, middle.accept().unwrap())
    };
    let (repair, silent) = start();
    let words = ["interrupted", "`damaged`", missing, command];
    repair.stop().fails(6, &words);
    drop(silent);
    // Now nothing is damaged any more: once again.
    scene
        .run(["get", "damaged", "1", "--connect", &server])
        .ok();
    scene.damage("damaged/data", 1);
    let (repair, gone) = start();
    drop(gone);
    let words = ["no peer with the core", missing, command];
    repair.end().fails(1, &words);
}

/// Carries what both sides of a connection say to a server, until one of them hangs up.
fn forward(stream: TcpStream, server: &str) {
    let server = TcpStream::connect(server).unwrap();
    for (mut from, mut to) in [
        (stream.try_clone().unwrap(), server.try_clone().unwrap()),
        (server, stream),
    ] {
        thread::spawn(move || {
            // That one of them hangs up is no wonder.
            let _ = io::copy(&mut from, &mut to);
            let _ = to.shutdown(Shutdown::Write);
        });
    }
}

/// The file of the signatures ends within one, and the newest is made again behind that.
#[test]
fn a_part_of_a_signature_is_repaired_at_once() {
    let scene = Scene::new();
    scene.core("log", &[]);
    for block in ["a", "b", "c", "d", "e", "f"] {
        scene.run(["append", "log", block]).ok();
    }
    let signatures = std::fs::read(scene.path("log/signatures")).unwrap();
    for size in [2 * 64 + 8, 3 * 64 + 63, 5 * 64 + 1, 4 * 64] {
        std::fs::write(scene.path("log/signatures"), &signatures[..32 + size]).unwrap();
        scene.run(["repair", "log"]).ok();
        scene.run(["verify", "log"]).ok();
    }
}

/// It may be the last copy, and the blocks in it are whole.
#[test]
fn repair_drops_no_whole_block_for_want_of_a_signature() {
    let scene = Scene::new();
    scene.core("log", &["a", "bc", "def"]);
    let (_server, address) = scene.serve("log", &[]);
    let clone = ["clone", KEY, "copy", "--connect", &address];
    scene.run(clone).ok();
    let whole = scene.files("copy");
    let signature = 32 + 2 * 64;
    let words = [
        "nothing was changed in `copy`",
        "`hypercore repair copy --connect",
    ];
    for size in [32, signature + 10] {
        let cut = &whole["signatures"][..size];
        std::fs::write(scene.path("copy/signatures"), cut).unwrap();
        let before = scene.files("copy");
        scene.run(["repair", "copy"]).fails(3, &words);
        assert!(scene.files("copy") == before);
        let done = scene.run(["repair", "copy", "--connect", &address]).ok();
        assert!(done.stderr.contains("are in `copy/quarantine-"), "{done:?}");
        let mut after = scene.files("copy");
        after.retain(|name, _| !name.starts_with("quarantine"));
        assert!(after == whole);
    }
    scene.damage("copy/signatures", signature);
    scene.run(["repair", "copy"]).fails(3, &words);
}

/// It was taken for one that was never finished, and its blocks were cut off.
#[test]
fn a_clone_without_its_tree_is_damaged() {
    let scene = Scene::new();
    let blocks: Vec<_> = (0..20).map(|index| index.to_string()).collect();
    let blocks: Vec<_> = blocks.iter().map(String::as_str).collect();
    scene.core("log", &blocks);
    let (_server, address) = scene.serve("log", &[]);
    scene
        .run(["clone", KEY, "copy", "--connect", &address])
        .ok();
    let tree = std::fs::read(scene.path("copy/tree")).unwrap();
    for nodes in [None, Some(0), Some(1), Some(30)] {
        match nodes {
            Some(count) => std::fs::write(scene.path("copy/tree"), &tree[..32 + 40 * count]),
            None => std::fs::remove_file(scene.path("copy/tree")),
        }
        .unwrap();
        let before = scene.files("copy");
        let done = scene.run(["verify", "copy"]);
        done.fails(3, &["tree: node", "is missing"]);
        for command in ["info", "cat"] {
            let words = ["`copy` is damaged: node", "is missing"];
            scene.run([command, "copy"]).fails(3, &words);
        }
        assert!(scene.files("copy") == before, "{nodes:?}");
        if nodes == Some(30) {
            // The others have two bytes each.
            scene.run(["repair", "copy"]).ok();
            assert!(std::fs::read(scene.path("copy/tree")).unwrap() == tree);
            scene.run(["verify", "copy"]).ok();
        } else {
            scene.run(["repair", "copy"]).fails(3, &["`copy`"]);
            assert!(scene.files("copy") == before, "{nodes:?}");
        }
    }
}

/// One command does not send people to another that sends them back.
#[test]
fn advice_about_damage_leads_somewhere() {
    let scene = Scene::new();
    let blocks: Vec<_> = (0..60).map(|index| index.to_string()).collect();
    let blocks: Vec<_> = blocks.iter().map(String::as_str).collect();
    scene.core("log", &blocks);
    let tree = std::fs::read(scene.path("log/tree")).unwrap();
    std::fs::write(scene.path("log/tree"), &tree[..500]).unwrap();
    for command in ["verify", "info", "audit", "cat"] {
        let done = scene.run([command, "log"]);
        let done = done.fails(3, &["`log`", "`hypercore repair log`"]);
        assert!(!done.stderr.contains("hypercore audit"), "{}", done.stderr);
    }
    let clone = format!("`hypercore clone {KEY} OTHERDIR --connect ADDR:PORT`");
    let words = ["`log` cannot be repaired", &clone, "keep `log/secret_key`"];
    scene.run(["repair", "log"]).fails(3, &words);

    std::fs::remove_file(scene.path("log/key")).unwrap();
    std::fs::remove_file(scene.path("log/secret_key")).unwrap();
    for command in ["info", "audit", "cat", "repair", "verify"] {
        let done = scene.run([command, "log"]);
        let done = done.fails(3, &["put the file `key` back"]);
        assert!(!done.stderr.contains("repair"), "{}", done.stderr);
    }
}

/// The same of the key of a copy, which nothing else there tells.
#[cfg(unix)]
#[test]
fn a_damaged_key_is_no_advice() {
    let scene = Scene::new();
    scene.core("log", &["a", "b"]);
    let (server, address) = scene.serve("log", &[]);
    let clone = ["clone", KEY, "copy", "--connect", &address];
    scene.run(clone).ok();
    let key = scene.path("copy/key");
    let whole = std::fs::read(&key).unwrap();
    for (len, words) in [(0, "is missing"), (16, "has 16 bytes instead of 32")] {
        std::fs::write(&key, &whole[..len]).unwrap();
        for command in ["info", "verify", "cat", "repair"] {
            let done = scene.run([command, "copy"]);
            let done = done.fails(3, &["put the file `key` back"]);
            assert!(done.stderr.contains(words) || command == "verify");
            assert!(!done.stderr.contains("`hypercore"), "{}", done.stderr);
        }
        // The one who types the key has it.
        let done = scene.run(clone).fails(3, &[words, "another directory"]);
        let (_, command) = done.stderr.split_once(", `").unwrap();
        let (command, _) = command.split_once('`').unwrap();
        let mut shell = std::process::Command::new("sh");
        shell.args(["-c", command]).current_dir(scene.path("."));
        assert!(shell.status().unwrap().success(), "{command}");
        assert_eq!(std::fs::read(&key).unwrap(), whole);
        scene.run(clone).ok();
    }
    scene.damage("copy/key", 3);
    let done = scene.run(["repair", "copy", "--connect", &address]);
    let words = [
        "if the file `key` is damaged",
        "`hypercore clone KEY OTHERDIR",
    ];
    done.fails(3, &words);
    server.stop().ok();
}

/// What people are told of damage, and what they can do about it.
#[test]
fn damage_in_words() {
    let scene = Scene::new();
    scene.core("log", &["a", "bc", "def"]);
    let done = scene.run(["repair", "log"]).ok();
    assert_eq!(done.text(), "No damage, nothing to put right.\n");
    let (server, address) = scene.serve("log", &[]);
    scene
        .run(["clone", KEY, "copy", "--connect", &address])
        .ok();
    server.stop().ok();
    scene.damage("log/data", 1);
    let problem = "data: block 1 in the file data does not match its hash in the file tree";
    let done = scene.run(["verify", "log"]);
    let listed = format!("2 blocks with 4 bytes good, 1 problem:\n  {problem}\n");
    assert_eq!(done.text(), listed);
    let first = format!("is damaged, first {problem}; `hypercore repair log`");
    done.fails(
        3,
        &[&first, "with --connect ADDR:PORT fetches false blocks"],
    );
    let done = scene.run(["repair", "log"]).ok();
    assert_eq!(
        done.text(),
        "0 put right, 1 block dropped, 0 fetched again.\n"
    );
    let words = "What could not be proven is missing now: `hypercore get log 1 --connect ADDR:PORT` fetches it";
    assert!(done.stderr.starts_with(words), "{}", done.stderr);
    let (_server, address) = scene.serve("copy", &[]);
    scene.run(["get", "log", "1", "--connect", &address]).ok();
    assert_eq!(scene.run(["cat", "log"]).ok().text(), "abcdef");

    // And of more than one block.
    for offset in 0..4 {
        scene.damage("log/data", offset);
    }
    let done = scene.run(["repair", "log"]).ok();
    let words =
        "What could not be proven is missing now: `hypercore cat log --connect ADDR:PORT` fetches";
    assert!(done.stderr.starts_with(words), "{}", done.stderr);
    let done = scene.run(["cat", "log", "--connect", &address]).ok();
    assert_eq!(done.text(), "abcdef");
    assert_eq!(scene.run(["cat", "log"]).ok().text(), "abcdef");
}

#[test]
fn repair_says_what_no_peer_has() {
    let scene = Scene::new();
    scene.core("log", &["a", "bc", "def"]);
    let (server, address) = scene.serve("log", &[]);
    scene
        .run(["clone", KEY, "copy", "--connect", &address])
        .ok();
    server.stop().ok();
    scene.damage("log/data", 1);
    scene.damage("copy/data", 1);
    let (_server, address) = scene.serve("log", &[]);
    let done = scene.run(["repair", "copy", "--connect", &address, "--json"]);
    let done = done.fails(6, &["1 block"]);
    assert_eq!(
        done.json(),
        json!({"repaired": 0, "dropped": 1, "fetched": 0})
    );
    // It is not pretended to be there.
    scene.run(["verify", "copy"]).ok();
    scene.run(["get", "copy", "1"]).fails(1, &["not stored"]);
}

/// An append after it would sign another history.
#[test]
fn repair_does_not_let_a_writer_forget_what_it_signed() {
    let scene = Scene::new();
    scene.core("log", &["a", "bc", "def"]);
    let tree = scene.path("log/tree");
    let before = scene.files("log");
    std::fs::write(&tree, &before["tree"][..32]).unwrap();
    let damaged = scene.files("log");
    scene.run(["repair", "log"]).fails(3, &["signature"]);
    assert!(scene.files("log") == damaged);
}

/// What stands under the name of a file is neither followed nor waited for.
#[cfg(unix)]
#[test]
fn other_things_in_place_of_a_file_are_named_and_left_alone() {
    use std::{fs, os::unix::fs::symlink, process::Command};
    for file in [
        "key",
        "secret_key",
        "tree",
        "data",
        "bitfield",
        "signatures",
    ] {
        for kind in ["directory", "pipe", "link"] {
            let scene = Scene::new();
            scene.core("log", &["a", "bc"]);
            let path = scene.path("log").join(file);
            let target = scene.path("target");
            fs::rename(&path, &target).unwrap();
            let before = fs::read(&target).unwrap();
            match kind {
                "directory" => fs::create_dir(&path).unwrap(),
                "link" => symlink(&target, &path).unwrap(),
                _ => assert!(
                    Command::new("mkfifo")
                        .arg(&path)
                        .status()
                        .unwrap()
                        .success()
                ),
            }
            scene
                .run(["verify", "log"])
                .fails(3, &[file, "not a regular file"]);
            for args in [
                &["append", "log", "d"][..],
                &["get", "log", "0"],
                &["repair", "log"],
            ] {
                let done = scene.run(args);
                assert_ne!(done.code, Some(0), "{file} {kind} {args:?}");
                assert!(done.stderr.contains(file), "{file} {kind}: {}", done.stderr);
            }
            assert_eq!(fs::read(&target).unwrap(), before, "{file} {kind}");
        }
    }
}

#[test]
fn files_of_another_log_are_noticed() {
    for file in ["key", "secret_key", "tree", "data", "signatures"] {
        let scene = Scene::new();
        scene.core("log", &["a", "bc"]);
        scene.run(["create", "other"]).ok();
        scene.run(["append", "other", "x", "yz"]).ok();
        let (mine, other) = (scene.path("log").join(file), scene.path("other").join(file));
        std::fs::copy(&other, &mine).unwrap();
        let before = scene.files("log");
        scene.run(["verify", "log"]).fails(3, &[]);
        let appended = scene.run(["append", "log", "d"]);
        // Bytes of blocks are looked at when they are read.
        if file != "data" {
            assert_ne!(appended.code, Some(0), "{file}");
            assert!(scene.files("log") == before, "{file}");
        }
        assert_ne!(scene.run(["get", "log", "1"]).code, Some(0), "{file}");
    }
}
