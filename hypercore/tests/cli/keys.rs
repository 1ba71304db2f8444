//! `keys export` and `keys import`.

use serde_json::json;

use crate::process::{KEY, SEED, Scene};

#[test]
fn a_key_pair_goes_to_a_file_and_into_a_clone() {
    let scene = Scene::new();
    scene.core("log", &["one", "two"]);
    let before = scene.files("log");
    let done = scene.run(["keys", "export", "log", "keys", "--json"]).ok();
    assert_eq!(
        done.json(),
        json!({"key": KEY, "file": "keys", "length": 2})
    );
    assert_eq!(scene.files("log"), before);
    assert!(!done.stderr.contains(SEED) && done.stderr.contains("append"));

    let (server, address) = scene.serve("log", &[]);
    scene
        .run(["clone", KEY, "copy", "--connect", &address])
        .ok();
    server.stop().ok();
    // What was appended since the export is missed at first.
    scene.run(["append", "log", "three"]).ok();
    let done = scene.run(["keys", "import", "keys", "copy", "--json"]).ok();
    assert_eq!(
        done.json(),
        json!({"key": KEY, "length": 2, "exportedLength": 2, "locked": true})
    );
    assert!(
        done.stderr.contains("hypercore resume copy"),
        "{}",
        done.stderr
    );
    assert_eq!(scene.files("copy")["secret_key"], before["secret_key"]);
    for _ in 0..2 {
        scene
            .run(["append", "copy", "four"])
            .fails(1, &["hypercore resume copy --from"]);
    }
    scene
        .run(["keys", "import", "keys", "copy"])
        .fails(1, &["`copy` has its key pair already"]);
    let (server, address) = scene.serve("log", &[]);
    scene.run(["resume", "copy", "--from", &address]).ok();
    server.stop().ok();
    scene.run(["append", "copy", "four"]).ok();
    assert_eq!(scene.run(["cat", "copy"]).ok().text(), "onetwothreefour");
}

/// It was here, so it is nowhere else.
#[test]
fn a_secret_key_that_is_lost() {
    let scene = Scene::new();
    scene.core("log", &["one"]);
    scene.run(["keys", "export", "log", "keys"]).ok();
    for (empty, state) in [(true, "empty"), (false, "gone")] {
        match empty {
            true => std::fs::write(scene.path("log/secret_key"), "").unwrap(),
            false => std::fs::remove_file(scene.path("log/secret_key")).unwrap(),
        }
        let state = format!("`secret_key` is {state}");
        let words = [&state, "`hypercore keys import FILE log`"];
        scene.run(["append", "log", "two"]).fails(1, &words);
        scene.run(["serve", "log", "--lines"]).fails(1, &words);
        scene
            .run(["keys", "export", "log", "again"])
            .fails(1, &words);
        let verified = scene.run(["verify", "log", "--json"]).ok();
        assert_eq!(verified.json()["ok"], true);
        let info = scene.run(["info", "log"]).ok();
        for words in words {
            assert!(verified.stderr.contains(words), "{}", verified.stderr);
            assert!(info.text().contains(words), "{}", info.text());
        }
    }
    scene
        .run(["keys", "import", "keys", "log", "--accept-fork-risk"])
        .ok();
    scene.run(["append", "log", "two"]).ok();
}

/// Its own keys are no news to an original, which goes on as it was.
#[test]
fn keys_that_are_there_already() {
    let scene = Scene::new();
    scene.core("log", &["one"]);
    scene.run(["keys", "export", "log", "keys"]).ok();
    let before = scene.files("log");
    scene
        .run(["keys", "import", "keys", "log"])
        .fails(1, &["`log` has its key pair already"]);
    assert!(scene.files("log") == before);
    scene
        .run(["keys", "import", "log", "keys"])
        .fails(1, &["`log` cannot be read: it is a directory"]);
    scene.run(["keys", "import", "keys", "other"]).ok();
    scene.run(["keys", "export", "other", "again"]).fails(
        1,
        &[
            "copied, moved or restored",
            "its key pair was imported",
            "hypercore resume other",
        ],
    );
    let (server, address) = scene.serve("log", &[]);
    scene
        .run(["clone", KEY, "copy", "--connect", &address])
        .ok();
    scene
        .run(["keys", "export", "copy", "again"])
        .fails(1, &["`copy` is read-only", "where the core was made"]);
    server.stop().ok();
}

/// A peer that has less than the exported length is not enough.
#[test]
fn what_was_signed_before_the_export_is_waited_for() {
    let scene = Scene::new();
    scene.core("log", &["one"]);
    let (server, address) = scene.serve("log", &[]);
    scene
        .run(["clone", KEY, "copy", "--connect", &address])
        .ok();
    scene
        .run(["clone", KEY, "mirror", "--connect", &address])
        .ok();
    server.stop().ok();
    scene.run(["append", "log", "two"]).ok();
    scene.run(["keys", "export", "log", "keys"]).ok();
    for dir in ["copy", "new"] {
        let done = scene.run(["keys", "import", "keys", dir, "--json"]).ok();
        assert_eq!(done.json()["exportedLength"], 2);
        let (server, address) = scene.serve("mirror", &[]);
        scene
            .run(["resume", dir, "--from", &address])
            .fails(1, &["2 blocks were signed", "1 of them"]);
        server.stop().ok();
        scene.run(["append", dir, "three"]).fails(1, &[]);
    }
    let (server, address) = scene.serve("log", &[]);
    scene.run(["resume", "new", "--from", &address]).ok();
    server.stop().ok();
    scene.run(["append", "new", "three"]).ok();
}

#[test]
fn an_import_at_ones_own_risk_can_be_appended_to_at_once() {
    let scene = Scene::new();
    scene.core("log", &[]);
    scene.run(["keys", "export", "log", "keys"]).ok();
    let done = scene.run(["keys", "import", "keys", "copy", "--accept-fork-risk"]);
    assert!(done.ok().stderr.contains("WARNING"));
    scene.run(["append", "copy", "one"]).ok();
}

#[cfg(unix)]
#[test]
fn a_file_of_keys_is_for_its_owner_and_never_overwritten() {
    use std::os::unix::fs::PermissionsExt;
    let scene = Scene::new();
    scene.core("log", &[]);
    scene.run(["keys", "export", "log", "keys"]).ok();
    let mode = |name| scene.path(name).metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!(mode("keys"), 0o600);
    scene
        .run(["keys", "export", "log", "keys"])
        .fails(1, &["`keys` exists already"]);
    // To a pipe, and from one.
    let text = scene.run(["keys", "export", "log", "-"]).ok();
    scene
        .feed(["keys", "import", "-", "again"], &text.stdout)
        .ok();
    let json = scene.run(["keys", "export", "log", "-", "--json"]).ok();
    assert_eq!(json.events().len(), 1);
    assert_eq!(json.json()["text"], text.text());
    assert_eq!(mode("again/secret_key"), 0o600);
    for file in ["key", "secret_key"] {
        assert_eq!(scene.files("again")[file], scene.files("log")[file]);
    }
}

#[test]
fn what_is_not_a_key_pair_is_refused() {
    let scene = Scene::new();
    scene.core("log", &["one"]);
    let (server, address) = scene.serve("log", &[]);
    scene
        .run(["clone", KEY, "copy", "--connect", &address])
        .ok();
    server.stop().ok();
    scene
        .run(["keys", "export", "copy", "keys"])
        .fails(1, &["`copy` is read-only"]);
    assert!(!scene.path("keys").exists());
    std::fs::write(scene.path("keys"), "key 00\nlength 1\nsecret_key 00\n").unwrap();
    scene
        .run(["keys", "import", "keys", "new"])
        .fails(1, &["`keys` is not a file"]);
    scene
        .run(["keys", "import", "nothing", "new"])
        .fails(1, &["`nothing` cannot be read"]);
    assert!(!scene.path("new").exists());

    // Of another core.
    scene.run(["create", "other"]).ok();
    std::fs::remove_file(scene.path("keys")).unwrap();
    scene.run(["keys", "export", "other", "keys"]).ok();
    scene
        .run(["keys", "import", "keys", "copy"])
        .fails(1, &["`copy` holds another core"]);
    scene.run(["keys"]).fails(2, &[]);
    scene.run(["keys", "export", "log"]).fails(2, &["FILE"]);
    for command in ["export", "import"] {
        let help = scene.run(["keys", command, "--help"]).ok();
        assert!(help.text().contains("Example"), "{command}");
    }
}
