//! What the command line finds of damage, and what it puts right.

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
