//! Nothing that the program says shows a secret, at its most talkative.

use std::fs;

use crate::process::{Done, KEY, SEED, Scene};

/// Says everything it can, and shows its stack when it panics.
fn talkative<'a>(arguments: &[&'a str]) -> Vec<&'a str> {
    [arguments, &["-vvv"]].concat()
}

/// Eight bytes of a secret in sequence are neither there as they are, nor as digits, nor in base64,
/// nor as a list of numbers.
#[track_caller]
fn shows_nothing(what: &str, done: &Done, secrets: &[&[u8]]) {
    let said = [done.stdout.as_slice(), done.stderr.as_bytes()].concat();
    let text: String = String::from_utf8_lossy(&said)
        .chars()
        .filter(|char| !char.is_whitespace())
        .collect();
    let (text, lower) = (text.as_str(), text.to_lowercase());
    for window in secrets.iter().flat_map(|secret| secret.windows(8)) {
        let list =
            |format: fn(&u8) -> String| window.iter().map(format).collect::<Vec<_>>().join(",");
        let shown = said.windows(8).any(|bytes| bytes == window)
            || lower.contains(&hex::encode(window))
            || lower.contains(&list(|byte| byte.to_string()))
            || lower.contains(&list(|byte| format!("0x{byte:x}")))
            || lower.contains(&list(|byte| format!("{byte:02x}")));
        assert!(!shown, "{what} shows {}: {text}", hex::encode(window));
    }
}

#[test]
fn no_command_shows_a_secret_however_much_it_says() {
    let scene = Scene::new();
    let seed = hex::decode(SEED).unwrap();
    scene.run(["identity", "--identity", "me"]).ok();
    let identity = fs::read_to_string(scene.path("me")).unwrap();
    let identity = hex::decode(identity.trim()).unwrap();
    let secrets = [seed.as_slice(), &identity];
    let run = |arguments: &[&str]| {
        let done = scene.run(talkative(arguments));
        shows_nothing(&arguments.join(" "), &done, &secrets);
        done
    };

    run(&["create", "log", "--seed", SEED]).ok();
    run(&["append", "log", "a", "b"]).ok();
    let (server, address) = scene.serve("log", &["--identity", "me", "-vvv"]);
    let cloned = run(&[
        "clone",
        KEY,
        "copy",
        "--connect",
        &address,
        "--identity",
        "me",
    ])
    .ok();
    assert!(
        cloned.stderr.contains("DEBUG"),
        "it says little: {}",
        cloned.stderr
    );
    shows_nothing("serve", &server.stop().ok(), &secrets);
    run(&["info", "log"]).ok();
    run(&["verify", "log"]).ok();

    // Errors about the secrets themselves.
    run(&["create", "log", "--seed", SEED]);
    let path = scene.path("log/secret_key");
    let whole = fs::read(&path).unwrap();
    for damaged in [
        &whole[..63],
        &whole[..32],
        &[&whole[..32], &[7; 32]].concat(),
    ] {
        fs::write(&path, damaged).unwrap();
        for command in ["append", "verify", "repair"] {
            let mut arguments = vec![command, "log"];
            arguments.extend((command == "append").then_some("c"));
            run(&arguments);
        }
        fs::write(&path, &whole).unwrap();
    }
    let digits = fs::read_to_string(scene.path("me")).unwrap();
    fs::write(scene.path("me"), &digits[..60]).unwrap();
    run(&["serve", "log", "--identity", "me"]).fails(1, &[]);
}
