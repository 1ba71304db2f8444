//! `log`, `completions`, `man`, and the help of every command.

use serde_json::json;

use crate::process::{KEY, Scene};

#[test]
fn log_lists_every_block() {
    let scene = Scene::new();
    scene.core("log", &["one", "", "three"]);
    let before = scene.files("log");
    let blocks = scene.run(["log", "log", "--json"]).ok().events();
    // BLAKE2b-256 of a zero byte, the size in eight bytes, and the block.
    let hash = "4d4afb95bb9f2442cafbd6d646a1cbf375ef35218642b4cc314b0992f68fadae";
    assert_eq!(
        blocks[0],
        json!({"index": 0, "size": 3, "hash": hash, "held": true})
    );
    assert_eq!(
        (blocks.len(), &blocks[1]["size"], &blocks[2]["index"]),
        (3, &json!(0), &json!(2))
    );
    let words = scene.run(["log", "log", "--start", "1", "--end", "2"]).ok();
    assert_eq!(words.text().lines().count(), 1);
    assert!(words.text().contains("1  ") && words.text().contains("0 bytes"));
    assert_eq!(scene.files("log"), before);
}

#[test]
fn log_of_a_sparse_copy_says_what_is_not_held() {
    let scene = Scene::new();
    scene.core("log", &["one", "two", "three", "four", "five"]);
    let (_server, address) = scene.serve("log", &[]);
    let copy = ["clone", KEY, "copy", "--sparse", "--range", "4..5"];
    scene.run(copy.iter().chain(&["--connect", &address])).ok();
    let blocks = scene.run(["log", "copy", "--json"]).ok().events();
    assert_eq!(blocks[0]["held"], false);
    assert_eq!(
        (&blocks[0]["size"], &blocks[0]["hash"]),
        (&json!(null), &json!(null))
    );
    assert_eq!(
        (&blocks[4]["held"], &blocks[4]["size"]),
        (&json!(true), &json!(4))
    );
    let words = scene.run(["log", "copy"]).ok();
    assert_eq!(words.text().matches("not held").count(), 4);
}

#[test]
fn log_refuses_blocks_that_do_not_exist() {
    let scene = Scene::new();
    scene.core("log", &["one"]);
    scene
        .run(["log", "log", "--end", "2"])
        .fails(1, &["0..2", "1 block"]);
    scene
        .run(["log", "log", "--start", "1", "--end", "0"])
        .fails(1, &["1..0"]);
    scene
        .run(["log", "nothing"])
        .fails(1, &["`nothing` does not exist"]);
}

#[test]
fn completions_for_every_shell() {
    let scene = Scene::new();
    for (shell, word) in [
        ("bash", "complete -F"),
        ("zsh", "#compdef hypercore"),
        ("fish", "complete -c hypercore"),
        ("powershell", "Register-ArgumentCompleter"),
        ("elvish", "edit:completion"),
    ] {
        let script = scene.run(["completions", shell]).ok();
        assert!(script.text().contains(word), "{shell}");
        assert!(script.text().contains("audit"), "{shell}");
    }
    let told = scene.run(["completions", "bash", "--json"]).ok().json();
    assert_eq!(told["shell"], "bash");
    scene.run(["completions", "dish"]).fails(2, &["bash"]);
}

#[test]
fn manual_pages() {
    let scene = Scene::new();
    let page = scene.run(["man"]).ok();
    assert!(page.text().contains(".TH hypercore 1"), "{}", page.text());
    scene
        .run(["man", "--out", "pages"])
        .fails(1, &["`pages`", "does not exist"]);
    std::fs::create_dir(scene.path("pages")).unwrap();
    scene.run(["man", "--out", "pages"]).ok();
    let pages = scene.files("pages");
    assert!(pages.contains_key("hypercore.1"), "{:?}", pages.keys());
    let clone = String::from_utf8_lossy(&pages["hypercore-clone.1"]);
    assert!(clone.contains("\\-\\-connect"), "{clone}");
}

/// Whatever commands there are: each shows how it is used.
#[test]
fn every_command_has_an_example() {
    let scene = Scene::new();
    let help = scene.run(["--help"]).ok();
    let commands = help
        .text()
        .lines()
        .skip_while(|line| *line != "Commands:")
        .skip(1);
    let commands: Vec<_> = commands
        .take_while(|line| !line.is_empty())
        .filter_map(|line| line.split_whitespace().next())
        .filter(|command| *command != "help")
        .collect();
    assert!(commands.len() >= 13, "{commands:?}");
    for command in commands {
        let help = scene.run([command, "--help"]).ok();
        assert!(
            help.text().contains("Example"),
            "{command}: {}",
            help.text()
        );
    }
}
