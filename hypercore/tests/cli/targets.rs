//! `receive`: where it goes, and what is there already.

use std::{
    fs::{self, File, Permissions},
    os::unix::fs::{PermissionsExt, symlink},
    time::{Duration, Instant},
};

#[cfg(target_os = "linux")]
use crate::process::WITHOUT_PRIVILEGES;
use crate::{
    process::{Process, Scene, in_shell},
    sharing::{content, share},
};

fn served(scene: &Scene) -> (Process, String) {
    fs::write(scene.path("file"), content(200_000)).unwrap();
    share(scene, "file", &[])
}

#[test]
fn files_of_ones_own_beside_the_target_stay() {
    let scene = Scene::new();
    let (server, line) = served(&scene);
    fs::write(scene.path("copy.part"), b"mine").unwrap();
    scene.run(["receive", &line, "copy"]).ok();
    assert_eq!(fs::read(scene.path("copy.part")).unwrap(), b"mine");
    server.stop().ok();
    fs::create_dir(scene.path("photos")).unwrap();
    fs::write(scene.path("photos/one"), b"one").unwrap();
    let (server, line) = share(&scene, "photos", &[]);
    fs::create_dir(scene.path("album.part")).unwrap();
    fs::write(scene.path("album.part/mine"), b"mine").unwrap();
    scene.run(["receive", &line, "album"]).ok();
    assert_eq!(fs::read(scene.path("album.part/mine")).unwrap(), b"mine");
    assert!(!scene.path("album.hypercore").exists());
    server.stop().ok();
}

/// The target was to blame, and nothing ever helped.
#[test]
fn a_block_that_rotted_before_the_target_is_written() {
    let scene = Scene::new();
    let (server, line) = served(&scene);
    let (key, rest) = line.split_once('@').unwrap();
    let address = rest.split('/').next().unwrap();
    let clone = [
        "clone",
        key,
        "copy.hypercore",
        "--sparse",
        "--range",
        "0..1",
    ];
    scene.run(clone.iter().chain(&["--connect", address])).ok();
    scene.damage("copy.hypercore/data", 7);
    let repair = "hypercore repair copy.hypercore --connect";
    let done = scene.run(["receive", &line, "copy"]);
    done.fails(3, &["`copy.hypercore` is damaged", repair]);
    assert!(!scene.path("copy").exists());
    scene
        .run(["repair", "copy.hypercore", "--connect", address])
        .ok();
    scene.run(["receive", &line, "copy"]).ok();
    assert!(fs::read(scene.path("copy")).unwrap() == content(200_000));
    server.stop().ok();
}

/// It was written where a shell would read it.
#[test]
fn a_line_names_nothing_hidden() {
    let scene = Scene::new();
    let (server, line) = served(&scene);
    let hidden = line.replace("/file", "/%2Ebash%5Fprofile");
    assert_ne!(hidden, line);
    scene
        .run(["receive", &hidden])
        .fails(2, &["`.bash_profile`", "name a target"]);
    scene
        .run(["receive", &hidden, "."])
        .fails(2, &[".bash_profile"]);
    assert!(!scene.path(".bash_profile").exists());
    scene.run(["receive", &hidden, "profile"]).ok();
    server.stop().ok();
}

#[test]
fn directories_to_put_it_in() {
    let scene = Scene::new();
    let (server, line) = served(&scene);
    fs::create_dir(scene.path("there")).unwrap();
    for (target, place) in [
        ("there", "there/file"),
        ("new/", "new/file"),
        ("a/b", "a/b"),
    ] {
        scene.run(["receive", &line, target]).ok();
        assert!(fs::read(scene.path(place)).unwrap() == content(200_000));
    }
    assert_eq!(fs::read_dir(scene.path("new")).unwrap().count(), 1);
    scene
        .run(["receive", &line, "there"])
        .fails(1, &["`there/file` exists already"]);
    // Before anything is asked of anybody.
    scene
        .run(["receive", &line, "file/below"])
        .fails(1, &["`file` is not a directory"]);
    server.stop().ok();

    fs::create_dir(scene.path("photos")).unwrap();
    fs::write(scene.path("photos/one"), b"one").unwrap();
    let (server, line) = share(&scene, "photos", &[]);
    for (target, place) in [("there", "there/photos/one"), ("album/", "album/one")] {
        scene.run(["receive", &line, target]).ok();
        assert_eq!(fs::read(scene.path(place)).unwrap(), b"one");
    }
    server.stop().ok();

    let nobody = format!("hyper://{}@127.0.0.1:1/file", "00".repeat(32));
    #[cfg(target_os = "linux")]
    scene.run(["receive", &nobody, "/proc/x"]).fails(
        1,
        &[
            "`/proc/x` cannot be written",
            "another target after the line",
        ],
    );
    scene
        .run(["receive", &nobody, "never/"])
        .fails(1, &["can be reached"]);
    assert!(!scene.path("never").exists());
}

#[test]
fn standard_output() {
    let scene = Scene::new();
    let (server, line) = served(&scene);
    // The server may still be making files of its own beside these.
    let cores = || {
        let entries = fs::read_dir(scene.path("")).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name());
        names
            .filter(|name| name.to_string_lossy().contains(".hypercore"))
            .count()
    };
    let before = cores();
    let done = scene.run(["receive", &line, "-"]).ok();
    assert!(done.stdout == content(200_000));
    assert_eq!(cores(), before);
    scene
        .run(["receive", &line, "-", "--json"])
        .fails(2, &["--json"]);
    server.stop().ok();

    fs::write(scene.path("app.log"), "one\n").unwrap();
    let (server, line) = share(&scene, "app.log", &["--follow"]);
    let receiver = scene.start(["receive", &line, "-"]);
    assert_eq!(receiver.text(), "one\n");
    fs::write(scene.path("app.log"), "one\ntwo\n").unwrap();
    assert_eq!(receiver.text(), "two\n");
    let done = receiver.stop().ok();
    assert_eq!(done.text(), "");
    let key = &line["hyper://".len()..][..8];
    let dir = format!("app.log.{key}.hypercore");
    assert!(!scene.path(&dir).exists());
    server.stop().ok();

    fs::create_dir(scene.path("photos")).unwrap();
    let (server, line) = share(&scene, "photos", &[]);
    scene.run(["receive", &line, "-"]).fails(2, &["a folder"]);
    server.stop().ok();
}

#[test]
fn a_log_whose_copy_was_changed() {
    let scene = Scene::new();
    let text = |name: &str| fs::read_to_string(scene.path(name)).unwrap_or_default();
    fs::write(scene.path("app.log"), "one\n").unwrap();
    let (server, line) = share(&scene, "app.log", &["--follow"]);
    let arrives = |expected: &str| {
        let start = Instant::now();
        while text("copy.log") != expected {
            let found = text("copy.log");
            assert!(
                start.elapsed() < Duration::from_secs(20),
                "{found:?}, not {expected:?}"
            );
            std::thread::yield_now();
        }
    };
    let receiver = scene.start(["receive", &line, "copy.log"]);
    arrives("one\n");
    fs::write(scene.path("app.log"), "one\ntwo\n").unwrap();
    arrives("one\ntwo\n");
    // People are not told of each line.
    let done = receiver.stop().ok();
    assert_eq!(done.text(), "");
    assert!(done.stderr.contains("Following"), "{}", done.stderr);

    for changed in ["One\ntwo\n", "one\ntwo\nmine\n"] {
        fs::write(scene.path("copy.log"), changed).unwrap();
        fs::write(scene.path("app.log"), "one\ntwo\nthree, which is longer\n").unwrap();
        scene
            .start(["receive", &line, "copy.log"])
            .end()
            .fails(1, &["`copy.log` is not as it was received"]);
        assert_eq!(text("copy.log"), changed);
    }
    // While it runs, too.
    fs::write(scene.path("copy.log"), "one\n").unwrap();
    let receiver = scene.start(["receive", &line, "copy.log"]);
    arrives("one\ntwo\nthree, which is longer\n");
    fs::write(scene.path("copy.log"), "mine\n").unwrap();
    fs::write(
        scene.path("app.log"),
        "one\ntwo\nthree, which is longer\nfour\n",
    )
    .unwrap();
    receiver.end().fails(1, &["is not as it was received"]);
    assert_eq!(text("copy.log"), "mine\n");
    server.stop().ok();
}

#[test]
fn a_file_that_was_received_goes_on_as_a_log_and_another_one_does_not() {
    let scene = Scene::new();
    fs::write(scene.path("app.log"), "one\n").unwrap();
    fs::write(scene.path("copy.log"), "one\n").unwrap();
    fs::write(scene.path("other"), "mine\n").unwrap();
    let (server, line) = share(&scene, "app.log", &["--follow"]);
    scene
        .run(["receive", &line, "other"])
        .fails(1, &["is not as it was received"]);
    assert_eq!(fs::read(scene.path("other")).unwrap(), b"mine\n");
    assert!(!scene.path("other.hypercore").exists());
    let receiver = scene.start(["receive", &line, "copy.log", "--json"]);
    receiver.event("synced");
    fs::write(scene.path("app.log"), "one\ntwo\n").unwrap();
    let start = Instant::now();
    while fs::read(scene.path("copy.log")).unwrap() != b"one\ntwo\n" {
        assert!(start.elapsed() < Duration::from_secs(20));
        std::thread::yield_now();
    }
    receiver.stop().ok();
    server.stop().ok();
}

#[test]
fn what_is_here_already_needs_nobody() {
    let scene = Scene::new();
    let (server, line) = served(&scene);
    let (key, rest) = line.split_once('@').unwrap();
    let address = rest.split('/').next().unwrap();
    let whole = ["clone", key, "copy.hypercore", "--connect", address];
    scene.run(whole).ok();
    let part = [
        "clone",
        key,
        "some.hypercore",
        "--sparse",
        "--range",
        "0..2",
    ];
    scene.run(part.iter().chain(&["--connect", address])).ok();
    server.stop().ok();
    let done = scene.run(["receive", &line, "copy"]).ok();
    assert!(
        done.stderr.contains("all of it is here already"),
        "{}",
        done.stderr
    );
    assert!(fs::read(scene.path("copy")).unwrap() == content(200_000));
    let done = scene.run(["receive", &line, "some"]);
    assert!(matches!(done.code, Some(1 | 6)), "{}", done.stderr);
    assert!(!scene.path("some").exists());
}

/// A core that was kept, or made by hand, is not one of the transfer.
#[test]
fn a_copy_that_was_there_before_stays() {
    let scene = Scene::new();
    let (server, line) = served(&scene);
    scene.run(["receive", &line, "kept", "--keep"]).ok();
    scene.run(["receive", &line, "-", "--keep"]).ok();
    fs::rename(scene.path("kept"), scene.path("elsewhere")).unwrap();
    let (key, rest) = line.split_once('@').unwrap();
    let address = rest.split('/').next().unwrap();
    for dir in ["made.hypercore", "part.hypercore"] {
        let clone = ["clone", key, dir, "--connect", address];
        let flags = ["--sparse", "--range", "0..2"];
        let flags = if dir.starts_with("part") {
            &flags[..]
        } else {
            &[]
        };
        scene.run(clone.iter().chain(flags)).ok();
    }
    for target in ["kept", "made", "part"] {
        let done = scene.run(["receive", &line, target]).ok();
        assert!(fs::read(scene.path(target)).unwrap() == content(200_000));
        let told = format!("`{target}.hypercore` was there before, and stays.");
        assert!(done.stderr.contains(&told), "{}", done.stderr);
        scene.run(["verify", &format!("{target}.hypercore")]).ok();
    }
    let done = scene.run(["receive", &line, "-"]).ok();
    assert!(done.stdout == content(200_000));
    let key = &line["hyper://".len()..][..8];
    let dir = format!("file.{key}.hypercore");
    scene.run(["verify", &dir]).ok();
    server.stop().ok();
}

/// Nobody has its secret key but the one who shares it.
#[test]
fn an_original_stays_whatever_is_received_there() {
    let scene = Scene::new();
    let (server, line) = served(&scene);
    server.stop().ok();
    fs::rename(scene.path("file"), scene.path("elsewhere")).unwrap();
    let before = scene.files("file.hypercore");
    scene
        .run(["receive", &line])
        .fails(1, &["`file.hypercore` holds the original", "hypercore cat"]);
    assert!(scene.files("file.hypercore") == before);
    assert!(!scene.path("file").exists());
    fs::rename(scene.path("elsewhere"), scene.path("file")).unwrap();
    let (server, again) = share(&scene, "file", &[]);
    assert_eq!(again.split('@').next(), line.split('@').next());
    server.stop().ok();

    scene.run(["create", "letters.hypercore"]).ok();
    scene.run(["append", "letters.hypercore", "a"]).ok();
    let info = scene.run(["info", "letters.hypercore", "--json"]).ok();
    let key = info.json()["key"].as_str().unwrap().to_owned();
    let piped = format!("letters.{}.hypercore", &key[..8]);
    fs::create_dir(scene.path(&piped)).unwrap();
    for (file, bytes) in scene.files("letters.hypercore") {
        fs::write(scene.path(&piped).join(file), bytes).unwrap();
    }
    let line = format!("hyper://{key}@127.0.0.1:1/letters");
    let live = format!("{line}?live");
    for (dir, args) in [
        ("letters.hypercore", &["receive", &line][..]),
        ("letters.hypercore", &["receive", &live]),
        (&piped, &["receive", &line, "-"]),
        (&piped, &["receive", &live, "-"]),
    ] {
        let before = scene.files(dir);
        let held = format!("`{dir}` holds the original");
        scene.run(args).fails(1, &[&held]);
        assert!(scene.files(dir) == before, "{args:?}");
    }
}

/// Somebody kept what was shared before it grew, and the one who shares it is gone.
#[test]
fn an_older_copy_is_not_all_of_it() {
    let scene = Scene::new();
    fs::write(scene.path("file"), content(100_000)).unwrap();
    let (server, line) = share(&scene, "file", &[]);
    scene.run(["receive", &line, "old", "--keep"]).ok();
    server.stop().ok();
    fs::write(scene.path("file"), content(200_000)).unwrap();
    let (server, line) = share(&scene, "file", &[]);
    server.stop().ok();
    let (old, address) = scene.serve("old.hypercore", &[]);
    let (key, rest) = line.split_once('@').unwrap();
    let (_, name) = rest.split_once('/').unwrap();
    let line = format!("{key}@{address}/{name}");
    let words = ["only 2 of the 4 blocks of `copy`", "`copy.hypercore`"];
    let receiver = scene.start(["receive", &line, "copy"]);
    while !receiver.complaint().contains("2 of 4 blocks") {}
    receiver.stop().fails(6, &words);
    assert!(scene.path("copy.hypercore").exists());
    // Also of what an earlier run left.
    let receiver = scene.start(["receive", &line, "copy"]);
    while !receiver.complaint().contains("2 of 4 blocks") {}
    old.stop().ok();
    receiver.end().fails(6, &words);
    let done = scene.run(["receive", &line, "copy"]);
    assert!(matches!(done.code, Some(1 | 6)), "{}", done.stderr);
    assert!(!scene.path("copy").exists());
    // It goes on with whoever has the rest, and as before with a line of before.
    let (server, line) = share(&scene, "file", &[]);
    scene.run(["receive", &line, "copy"]).ok();
    assert_eq!(fs::read(scene.path("copy")).unwrap(), content(200_000));
    let before = line.replace("n=4&", "");
    scene.run(["receive", &before, "again"]).ok();
    server.stop().ok();
}

/// Also while all that is left to do is to write it.
#[test]
fn a_signal_before_the_target_has_its_name() {
    let scene = Scene::new();
    let file = File::create(scene.path("file")).unwrap();
    file.set_len(100 << 20).unwrap();
    let (server, line) = share(&scene, "file", &[]);
    let words = ["all of `copy` is here", "run it again to go on"];
    let receiver = scene.start(["receive", &line, "copy", "--json"]);
    receiver.event("synced");
    receiver.stop().fails(6, &words);
    assert!(!scene.path("copy").exists());
    let done = scene.run(["receive", &line, "copy"]).ok();
    assert!(done.stderr.contains("are here already"), "{}", done.stderr);
    // It was only there for the transfer.
    assert!(!scene.path("copy.hypercore").exists());
    let copy = fs::metadata(scene.path("copy")).unwrap();
    assert_eq!(copy.len(), 100 << 20);

    // Where nobody takes it, this is said, and a signal is seen as well.
    let receiver = scene.start_with(["receive", &line, "-"], |command| {
        let script = r#"mkfifo full; exec 3<>full; exec "$@" >full"#;
        in_shell(command, script);
    });
    let mut told = String::new();
    while !told.contains("All of `file` is here; writing it.") {
        told = receiver.complaint();
    }
    receiver.stop().fails(6, &["all of `file` is here"]);
    server.stop().ok();

    fs::write(scene.path("app.log"), content(300_000)).unwrap();
    let (server, line) = share(&scene, "app.log", &["--follow"]);
    let receiver = scene.start_with(["receive", &line, "-"], |command| {
        in_shell(command, r#"exec 3<>full; exec "$@" >full"#);
    });
    // All is here, and some of it is in the pipe.
    let key = &line["hyper://".len()..][..8];
    let data = scene.path(&format!("app.log.{key}.hypercore/data"));
    while fs::metadata(&data).map_or(0, |found| found.len()) < 300_000 {
        std::thread::yield_now();
    }
    receiver.stop().ok();
    server.stop().ok();
}

/// A complete clone of what `line` is for, as an earlier run has left it.
fn clone(scene: &Scene, line: &str, dir: &str) {
    let (key, rest) = line.split_once('@').unwrap();
    let address = rest.split('/').next().unwrap();
    scene.run(["clone", key, dir, "--connect", address]).ok();
}

#[test]
fn what_stands_where_its_core_goes_stays() {
    let scene = Scene::new();
    let (server, line) = served(&scene);
    fs::write(scene.path("mine"), "mine").unwrap();
    for kind in ["files", "part", "link"] {
        let dir = scene.path(&format!("{kind}.hypercore"));
        fs::create_dir_all(dir.join("part")).unwrap();
        fs::write(dir.join("part/mine"), "mine").unwrap();
        match kind {
            "files" => fs::write(dir.join("receive"), "mine").unwrap(),
            "link" => symlink("../mine", dir.join("receive")).unwrap(),
            _ => {}
        }
        let before = fs::read_dir(&dir).unwrap().count();
        scene.run(["receive", &line, kind]).fails(
            1,
            &[
                &format!("`{kind}.hypercore` holds something else"),
                "another target after the line",
            ],
        );
        assert_eq!(fs::read(dir.join("part/mine")).unwrap(), b"mine");
        assert_eq!(fs::read_dir(&dir).unwrap().count(), before);
        if kind != "part" {
            assert_eq!(fs::read(dir.join("receive")).unwrap(), b"mine");
        }
        assert!(!scene.path(kind).exists());
    }
    assert_eq!(fs::read(scene.path("mine")).unwrap(), b"mine");

    // In a core of one's own, too.
    clone(&scene, &line, "copy.hypercore");
    fs::create_dir(scene.path("copy.hypercore/part")).unwrap();
    fs::write(scene.path("copy.hypercore/part/mine"), "mine").unwrap();
    fs::write(scene.path("copy.hypercore/receive"), "mine").unwrap();
    scene
        .run(["receive", &line, "copy"])
        .fails(1, &["`copy.hypercore/part`"]);
    assert!(scene.path("copy.hypercore/part/mine").exists());
    fs::remove_dir_all(scene.path("copy.hypercore/part")).unwrap();
    let done = scene.run(["receive", &line, "copy"]).ok();
    assert!(done.stderr.contains("was there before"), "{}", done.stderr);
    assert_eq!(
        fs::read(scene.path("copy.hypercore/receive")).unwrap(),
        b"mine"
    );

    // What an earlier run has left of a target is not somebody else's.
    for (target, flags) in [("again", &[][..]), ("kept", &["--keep"])] {
        let dir = scene.path(&format!("{target}.hypercore"));
        clone(&scene, &line, dir.to_str().unwrap());
        fs::write(dir.join("receive.part"), "").unwrap();
        fs::write(dir.join("part"), "some of it").unwrap();
        scene
            .run(["receive", &line, target].iter().chain(flags))
            .ok();
        assert!(fs::read(scene.path(target)).unwrap() == content(200_000));
        assert!(!dir.join("part").exists() && !dir.join("receive.part").exists());
        scene.run(["verify", dir.to_str().unwrap()]).ok();
    }
    server.stop().ok();
}

/// What was written of a target that has no room is not to take what there is.
#[test]
fn a_target_that_cannot_be_written_leaves_nothing_of_it() {
    let scene = Scene::new();
    let (server, line) = served(&scene);
    clone(&scene, &line, "copy.hypercore");
    server.stop().ok();
    let before = scene.files("copy.hypercore");
    let receiver = scene.start_with(["receive", &line, "copy"], |command| {
        // In units of 512 bytes. The signal that comes with it would end the process.
        in_shell(command, r#"trap "" XFSZ; ulimit -f 100; exec "$@""#);
    });
    receiver
        .end()
        .fails(1, &["`copy` cannot be written", "`copy.hypercore`"]);
    assert!(scene.files("copy.hypercore") == before);
    assert!(!scene.path("copy").exists());
}

#[cfg(target_os = "linux")]
#[test]
fn a_folder_that_may_not_be_written_to_is_removed_all_the_same() {
    let scene = Scene::new();
    fs::create_dir(scene.path("photos")).unwrap();
    fs::write(scene.path("photos/one"), b"one").unwrap();
    let (server, line) = share(&scene, "photos", &[]);
    clone(&scene, &line, "copy.hypercore");
    fs::write(scene.path("copy.hypercore/receive"), "").unwrap();
    let dir = scene.path("copy.hypercore/part/sub");
    fs::create_dir_all(&dir).unwrap();
    fs::write(dir.join("one"), "one").unwrap();
    fs::set_permissions(&dir, Permissions::from_mode(0o555)).unwrap();
    let receiver = scene.start_with(["receive", &line, "copy"], |command| {
        in_shell(command, WITHOUT_PRIVILEGES);
    });
    receiver.end().ok();
    assert_eq!(fs::read(scene.path("copy/one")).unwrap(), b"one");
    assert!(!scene.path("copy.hypercore").exists());
    server.stop().ok();
}

/// It is there, whatever can be said about the directory that it is in.
#[cfg(target_os = "linux")]
#[test]
fn a_target_in_a_directory_that_cannot_be_read() {
    let scene = Scene::new();
    let (server, line) = served(&scene);
    fs::create_dir_all(scene.path("there/copy.hypercore")).unwrap();
    let set = |mode| fs::set_permissions(scene.path("there"), Permissions::from_mode(mode));
    set(0o300).unwrap();
    let receiver = scene.start_with(["receive", &line, "there/copy"], |command| {
        in_shell(command, WITHOUT_PRIVILEGES);
    });
    let done = receiver.end();
    set(0o700).unwrap();
    let done = done.ok();
    assert!(done.text().contains("Received `there/copy`"));
    assert!(
        done.stderr.contains("`there/copy.hypercore` is kept"),
        "{}",
        done.stderr
    );
    assert!(fs::read(scene.path("there/copy")).unwrap() == content(200_000));
    scene.run(["verify", "there/copy.hypercore"]).ok();
    server.stop().ok();
}

/// There is no other target that would help.
#[cfg(target_os = "linux")]
#[test]
fn standard_output_in_a_directory_that_may_not_be_written_to() {
    let scene = Scene::new();
    let (server, line) = served(&scene);
    fs::create_dir(scene.path("there")).unwrap();
    fs::set_permissions(scene.path("there"), Permissions::from_mode(0o555)).unwrap();
    let receiver = scene.start_with(["receive", &line, "-"], |command| {
        command.current_dir(scene.path("there"));
        in_shell(command, WITHOUT_PRIVILEGES);
    });
    let dir = format!("`file.{}.hypercore`", &line["hyper://".len()..][..8]);
    let done = receiver.end().fails(1, &[&dir, "in another directory"]);
    assert!(!done.stderr.contains("target"), "{}", done.stderr);
    server.stop().ok();
}

/// Whoever else may write to it could make us write anywhere, or give us something else.
#[test]
fn a_directory_of_somebody_else_takes_no_blocks() {
    let scene = Scene::new();
    let (server, line) = served(&scene);
    let dir = scene.path("copy.hypercore");
    let set = |mode| fs::set_permissions(&dir, Permissions::from_mode(mode)).unwrap();
    fs::create_dir(&dir).unwrap();
    set(0o777);
    scene.run(["receive", &line, "copy"]).fails(
        1,
        &[
            "`copy.hypercore`",
            "anybody can write to it",
            "another target",
        ],
    );
    assert_eq!(fs::read_dir(&dir).unwrap().count(), 0);
    set(0o755);
    // Only those who may do everything can give it away.
    if std::os::unix::fs::chown(&dir, Some(65_534), None).is_ok() {
        scene.run(["receive", &line, "copy"]).fails(
            1,
            &[
                "`copy.hypercore`",
                "belongs to another user",
                "another target",
            ],
        );
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 0);
        std::os::unix::fs::chown(&dir, Some(0), None).unwrap();
    }
    scene.run(["receive", &line, "copy"]).ok();
    // What is put beside others' things is like every other file.
    let drop = scene.path("drop");
    fs::create_dir_all(drop.join("file.hypercore")).unwrap();
    let set = |path, mode| fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    set(drop.join("file.hypercore"), 0o777);
    set(drop.clone(), 0o1777);
    scene
        .run(["receive", &line, "drop"])
        .fails(1, &["anybody can write to it"]);
    // As it is everywhere on a file system without permissions.
    set(drop, 0o777);
    scene.run(["receive", &line, "drop"]).ok();
    server.stop().ok();
}
