//! `share`: what is there already stays, and what is shared is what is there.

use std::{
    fs::{self, File, Permissions},
    os::unix::{
        fs::{PermissionsExt, symlink},
        net::UnixListener,
    },
    time::{Duration, Instant, UNIX_EPOCH},
};

use crate::{
    process::{Process, Scene, in_shell},
    sharing::{content, share},
};

fn key(line: &str) -> &str {
    line.split('@').next().unwrap()
}

/// Waits until `path` has this text.
fn arrives(scene: &Scene, path: &str, expected: &str) {
    let start = Instant::now();
    loop {
        let found = fs::read_to_string(scene.path(path)).unwrap_or_default();
        if found == expected {
            return;
        }
        assert!(
            start.elapsed() < Duration::from_secs(20),
            "{found:?}, not {expected:?}"
        );
        std::thread::yield_now();
    }
}

fn append(scene: &Scene, path: &str, text: &str) {
    let mut file = File::options()
        .append(true)
        .create(true)
        .open(scene.path(path))
        .unwrap();
    std::io::Write::write_all(&mut file, text.as_bytes()).unwrap();
}

/// The words of the line for people.
fn told(server: &Process) -> String {
    (0..5).map(|_| server.text()).collect()
}

#[test]
fn a_core_that_share_did_not_make_is_left_alone() {
    let scene = Scene::new();
    fs::create_dir(scene.path("photos")).unwrap();
    fs::write(scene.path("photos/one"), b"one").unwrap();
    fs::write(scene.path("notes"), b"two").unwrap();
    scene.core("letters", &["Dear reader,"]);
    scene.core("photos.hypercore", &["mine"]);
    scene.core("empty", &[]);
    for dir in ["letters", "photos.hypercore", "empty"] {
        let before = scene.files(dir);
        for what in ["photos", "notes"] {
            scene
                .run(["share", what, "--core", dir])
                .fails(1, &[&format!("`{dir}`"), "did not make", "--core"]);
        }
        assert!(scene.files(dir) == before, "{dir}");
    }
    scene.run(["share", "photos"]).fails(1, &["did not make"]);
    // Nor is a file overwritten that has the name of the note.
    fs::create_dir(scene.path("other")).unwrap();
    fs::write(scene.path("other/share"), b"of mine").unwrap();
    scene
        .run(["share", "notes", "--core", "other"])
        .fails(1, &["`other/share` was not written by"]);
    assert_eq!(fs::read(scene.path("other/share")).unwrap(), b"of mine");
    assert_eq!(scene.files("other").len(), 1);
}

#[test]
fn a_core_in_place_of_the_one_that_share_made_is_left_alone() {
    let scene = Scene::new();
    fs::create_dir(scene.path("photos")).unwrap();
    let (server, _) = share(&scene, "photos", &[]);
    server.stop().ok();
    let note = fs::read_to_string(scene.path("photos.hypercore/share")).unwrap();
    fs::remove_dir_all(scene.path("photos.hypercore")).unwrap();
    scene.core("photos.hypercore", &["mine"]);
    // Also if that run was never finished.
    for note in [
        note.clone(),
        note.replace("\"complete\":true", "\"complete\":false"),
    ] {
        fs::write(scene.path("photos.hypercore/share"), &note).unwrap();
        scene.run(["share", "photos"]).fails(1, &["did not make"]);
        assert!(scene.run(["cat", "photos.hypercore"]).ok().text() == "mine");
    }
}

#[test]
fn two_sources_of_one_name() {
    let scene = Scene::new();
    for folder in ["x/photos", "y/photos"] {
        fs::create_dir_all(scene.path(folder)).unwrap();
        fs::write(scene.path(folder).join("one"), folder).unwrap();
        fs::write(scene.path(folder).join("../notes"), folder).unwrap();
    }
    for what in ["photos", "notes"] {
        let (first, second) = (format!("x/{what}"), format!("y/{what}"));
        let (server, line) = share(&scene, &first, &[]);
        // While the first one is shared, and afterwards.
        let fails = || {
            scene
                .run(["share", &second])
                .fails(1, &["holds what was shared from", &first, "--core DIR"])
        };
        fails();
        server.stop().ok();
        fails();
        let (server, other) = share(&scene, &second, &["--core", &format!("other-{what}")]);
        assert_ne!(key(&line), key(&other));
        let copy = format!("copy-{what}");
        scene.run(["receive", &other, &copy]).ok();
        let file = if what == "photos" {
            format!("{copy}/one")
        } else {
            copy
        };
        assert_eq!(fs::read_to_string(scene.path(&file)).unwrap(), "y/photos");
        server.stop().ok();
    }
    // A folder in the place of a file.
    fs::remove_file(scene.path("x/notes")).unwrap();
    fs::create_dir(scene.path("x/notes")).unwrap();
    scene.run(["share", "x/notes"]).fails(1, &["--core"]);
}

/// Elsewhere no file has such a name.
#[cfg(target_os = "linux")]
#[test]
fn two_sources_whose_names_are_no_text() {
    use std::{ffi::OsStr, os::unix::ffi::OsStrExt};
    let scene = Scene::new();
    let names = [&b"log\xff"[..], b"log\xfe"].map(OsStr::from_bytes);
    for (name, text) in names.iter().zip(["of one", "of another"]) {
        fs::write(scene.path("").join(name), text).unwrap();
    }
    let share = |name| {
        let flags = ["--follow", "--json", "--core", "core"];
        let first = [OsStr::new("share"), name].into_iter();
        scene.start(first.chain(flags.map(OsStr::new)))
    };
    for _ in 0..2 {
        let server = share(names[0]);
        server.event("sharing");
        server.stop().ok();
        share(names[1])
            .end()
            .fails(1, &["holds what was shared from", "log%FF", "--core DIR"]);
        assert_eq!(scene.run(["cat", "core"]).ok().text(), "of one");
    }
    // What is called like the name of the other one in the note.
    fs::write(scene.path("log%FF"), "of a third").unwrap();
    share(OsStr::new("log%FF")).end().fails(1, &["log%FF"]);
}

#[test]
fn a_folder_that_was_changed() {
    let scene = Scene::new();
    fs::create_dir_all(scene.path("photos/a")).unwrap();
    fs::write(scene.path("photos/a/one"), b"one").unwrap();
    let (server, first) = share(&scene, "photos", &[]);
    server.stop().ok();
    let (server, second) = share(&scene, "photos", &[]);
    assert_eq!(key(&first), key(&second));
    server.stop().ok();
    let fails = || {
        scene
            .run(["share", "photos"])
            .fails(1, &["was changed", "`photos.hypercore`", "--core"])
    };
    fs::write(scene.path("photos/two"), b"two").unwrap();
    fails();
    fs::remove_file(scene.path("photos/two")).unwrap();
    let (server, _) = share(&scene, "photos", &[]);
    server.stop().ok();
    fs::write(scene.path("photos/a/one"), b"eno").unwrap();
    fails();
}

/// Of the same size, and with the time of the one before.
#[test]
fn a_folder_in_which_a_file_was_replaced() {
    let scene = Scene::new();
    fs::create_dir(scene.path("photos")).unwrap();
    let write = |text: &str| {
        let path = scene.path("photos/one");
        fs::write(&path, text).unwrap();
        let file = File::options().write(true).open(&path).unwrap();
        file.set_modified(UNIX_EPOCH + Duration::from_secs(1_577_934_245))
            .unwrap();
    };
    write("one");
    let (server, first) = share(&scene, "photos", &[]);
    server.stop().ok();
    write("two");
    scene
        .run(["share", "photos"])
        .fails(1, &["anything in it was changed"]);
    // It is the same archive again, whatever was done to the file meanwhile.
    write("one");
    let (server, again) = share(&scene, "photos", &[]);
    assert_eq!(key(&first), key(&again));
    server.stop().ok();
}

#[test]
fn a_file_that_was_changed_before_its_last_block() {
    let scene = Scene::new();
    fs::write(scene.path("notes"), content(300_000)).unwrap();
    let (server, _) = share(&scene, "notes", &[]);
    server.stop().ok();
    let mut changed = content(400_000);
    changed[10] ^= 1;
    fs::write(scene.path("notes"), changed).unwrap();
    scene
        .run(["share", "notes"])
        .fails(1, &["other than by appending", "--core"]);
}

#[test]
fn a_half_made_archive_is_made_anew_and_only_a_mark_makes_it_whole() {
    let scene = Scene::new();
    fs::create_dir(scene.path("photos")).unwrap();
    // It ends with what an archive ends with, too.
    fs::write(scene.path("photos/one"), vec![0; 200_000]).unwrap();
    let (server, line) = share(&scene, "photos", &[]);
    server.stop().ok();
    let note = scene.path("photos.hypercore/share");
    let text = fs::read_to_string(&note).unwrap();
    fs::write(
        &note,
        text.replace("\"complete\":true", "\"complete\":false"),
    )
    .unwrap();
    let (server, again) = share(&scene, "photos", &[]);
    assert_ne!(key(&line), key(&again));
    scene.run(["receive", &again, "copy"]).ok();
    assert_eq!(fs::read(scene.path("copy/one")).unwrap(), vec![0; 200_000]);
    server.stop().ok();
}

#[test]
fn what_in_a_folder_nobody_else_can_have_is_left_out() {
    let scene = Scene::new();
    fs::create_dir(scene.path("photos")).unwrap();
    fs::write(scene.path("photos/one"), b"one").unwrap();
    symlink("nowhere", scene.path("photos/link")).unwrap();
    let _socket = UnixListener::bind(scene.path("photos/socket")).unwrap();
    let (server, line) = share(&scene, "photos", &[]);
    scene.run(["receive", &line, "copy"]).ok();
    let mut names: Vec<_> = scene.path("copy").read_dir().unwrap().collect();
    names.sort_by_key(|entry| entry.as_ref().unwrap().file_name());
    assert_eq!(names.len(), 2);
    assert_eq!(fs::read(scene.path("copy/one")).unwrap(), b"one");
    let done = server.stop().ok();
    assert!(
        done.stderr.contains("/photos/socket` is left out"),
        "{}",
        done.stderr
    );
}

#[test]
fn a_core_is_not_given_away_with_its_secret_key() {
    let scene = Scene::new();
    fs::create_dir(scene.path("things")).unwrap();
    scene.core("things/letters", &["Dear reader,"]);
    scene
        .run(["share", "things/letters"])
        .fails(1, &["is a core", "`hypercore serve things/letters`"]);
    assert!(!scene.path("letters.hypercore").exists());
    // Only beside the other files of a core is it a secret key.
    fs::write(scene.path("things/secret_key"), b"of my house").unwrap();
    let (server, line) = share(&scene, "things", &[]);
    scene.run(["receive", &line, "copy"]).ok();
    assert!(scene.path("copy/secret_key").exists());
    assert!(scene.path("copy/letters/key").exists());
    assert!(!scene.path("copy/letters/secret_key").exists());
    let done = server.stop().ok();
    assert!(
        done.stderr.contains("letters/secret_key` is left out"),
        "{}",
        done.stderr
    );
    // Again the same archive.
    let (_server, again) = share(&scene, "things", &[]);
    assert_eq!(line.split('@').next(), again.split('@').next());
}

/// One that lacks some of its files opens all the same.
#[test]
fn nor_is_one_that_is_not_whole() {
    let scene = Scene::new();
    fs::create_dir(scene.path("things")).unwrap();
    for file in ["key", "signatures", "tree", "bitfield", "data"] {
        let dir = format!("things/without-{file}");
        scene.core(&dir, &["Dear reader,"]);
        fs::remove_file(scene.path(&dir).join(file)).unwrap();
    }
    let (server, line) = share(&scene, "things", &[]);
    scene.run(["receive", &line, "copy"]).ok();
    for file in ["key", "signatures", "tree", "bitfield", "data"] {
        let dir = scene.path("copy").join(format!("without-{file}"));
        assert!(dir.is_dir() && !dir.join(file).exists());
        assert!(!dir.join("secret_key").exists(), "without {file}");
    }
    server.stop().ok();
}

/// What others may not read is not to be found in its core.
#[test]
fn a_core_is_for_its_owner_alone() {
    let scene = Scene::new();
    fs::write(scene.path("private"), "private").unwrap();
    let mode = |path: &str| {
        let found = fs::metadata(scene.path(path)).unwrap();
        found.permissions().mode() & 0o777
    };
    let set = |path: &str, mode| {
        fs::set_permissions(scene.path(path), Permissions::from_mode(mode)).unwrap();
    };
    set("private", 0o600);
    let start = |dir: &str| {
        let args = ["share", "private", "--json", "--core", dir];
        let server = scene.start_with(args, |command| {
            in_shell(command, r#"umask 022; exec "$@""#);
        });
        server.event("sharing");
        assert_eq!(mode(dir), 0o700);
        server.stop().ok();
    };
    start("new/core");
    assert_eq!(mode("new"), 0o755);
    fs::create_dir(scene.path("made")).unwrap();
    set("made", 0o755);
    start("made");
    // As earlier versions have left it.
    set("new/core", 0o755);
    start("new/core");
    // A directory with something else in it is not ours alone.
    fs::write(scene.path("new/core/mine"), "mine").unwrap();
    set("new/core", 0o755);
    let (server, _) = share(&scene, "private", &["--core", "new/core"]);
    server.stop().ok();
    assert_eq!(mode("new/core"), 0o755);
}

/// Nor in a directory that others may look into, because it is not that of the core alone.
#[test]
fn what_is_shared_is_for_its_owner_alone_wherever_it_is() {
    let scene = Scene::new();
    fs::write(scene.path("private"), "private").unwrap();
    let set = |path: &str, mode| {
        fs::set_permissions(scene.path(path), Permissions::from_mode(mode)).unwrap();
    };
    set("private", 0o600);
    fs::create_dir(scene.path("open")).unwrap();
    fs::write(scene.path("open/README"), "for all").unwrap();
    set("open", 0o755);
    set("open/README", 0o644);
    for _ in 0..2 {
        let args = ["share", "private", "--json", "--core", "open"];
        let server = scene.start_with(args, |command| {
            in_shell(command, r#"umask 022; exec "$@""#);
        });
        server.event("sharing");
        server.stop().ok();
        let modes = fs::read_dir(scene.path("open")).unwrap().map(|entry| {
            let entry = entry.unwrap();
            let mode = entry.metadata().unwrap().permissions().mode();
            (entry.file_name().into_string().unwrap(), mode & 0o777)
        });
        for (name, mode) in modes {
            let expected = if name == "README" { 0o644 } else { 0o600 };
            assert_eq!(mode, expected, "{name}: {mode:o}");
        }
        // As earlier versions have left it.
        set("open/data", 0o644);
    }
    let open = fs::metadata(scene.path("open")).unwrap();
    assert_eq!(open.permissions().mode() & 0o777, 0o755);
}

#[test]
fn a_core_that_share_made_and_that_is_gone_is_not_made_anew() {
    let scene = Scene::new();
    fs::write(scene.path("notes"), "one").unwrap();
    let (server, _) = share(&scene, "notes", &[]);
    server.stop().ok();
    let note = fs::read(scene.path("notes.hypercore/share")).unwrap();
    fs::remove_dir_all(scene.path("notes.hypercore")).unwrap();
    fs::create_dir(scene.path("notes.hypercore")).unwrap();
    fs::write(scene.path("notes.hypercore/share"), note).unwrap();
    let before = scene.files("notes.hypercore");
    scene
        .run(["share", "notes"])
        .fails(1, &["its core is gone", "remove `notes.hypercore`"]);
    assert!(scene.files("notes.hypercore") == before);
}

#[test]
fn a_log_that_is_rotated_and_cut_off() {
    let scene = Scene::new();
    append(&scene, "app.log", "one\n");
    let (server, line) = share(&scene, "app.log", &["--follow"]);
    let receiver = scene.start(["receive", &line, "copy.log", "--json"]);
    arrives(&scene, "copy.log", "one\n");
    fs::rename(scene.path("app.log"), scene.path("app.log.1")).unwrap();
    // Whoever writes may do so until it knows.
    append(&scene, "app.log.1", "two\n");
    append(&scene, "app.log", "three, which is longer\n");
    let mut expected = "one\ntwo\nthree, which is longer\n".to_owned();
    arrives(&scene, "copy.log", &expected);
    fs::write(scene.path("app.log"), "four\n").unwrap();
    expected += "four\n";
    arrives(&scene, "copy.log", &expected);
    let done = server.stop().ok();
    let times = done.stderr.matches("was replaced or cut off").count();
    assert_eq!(times, 2, "{}", done.stderr);
    receiver.stop().ok();

    // Nothing is told twice when it goes on, and what was rotated meanwhile is noticed.
    append(&scene, "app.log", "five\n");
    let (server, line) = share(&scene, "app.log", &["--follow"]);
    let receiver = scene.start(["receive", &line, "copy.log", "--json"]);
    expected += "five\n";
    arrives(&scene, "copy.log", &expected);
    server.stop().ok();
    fs::write(scene.path("app.log"), "six, anew\n").unwrap();
    let (server, line) = share(&scene, "app.log", &["--follow"]);
    receiver.stop().ok();
    let receiver = scene.start(["receive", &line, "copy.log", "--json"]);
    expected += "six, anew\n";
    arrives(&scene, "copy.log", &expected);
    // The one before may have brought it, having found the server.
    receiver.event("peer-open");
    receiver.stop().ok();
    server.stop().ok();
    scene
        .run(["share", "app.log"])
        .fails(1, &["other than by appending"]);
}

/// The one that is read is followed to its end, and not mixed with the next.
#[test]
fn a_log_that_is_rotated_while_it_is_read_for_the_first_time() {
    const LEN: u64 = 16 << 20;
    let scene = Scene::new();
    let zeros = |path: &str, len| {
        append(&scene, path, "");
        let file = File::options().append(true).open(scene.path(path));
        file.unwrap().set_len(len).unwrap();
    };
    zeros("app.log", LEN);
    fs::write(scene.path("next"), "the first line\n").unwrap();
    zeros("next", LEN + 100);
    let server = scene.start(["share", "app.log", "--follow", "--json"]);
    let data = scene.path("app.log.hypercore/data");
    let len = || fs::metadata(&data).map_or(0, |found| found.len());
    while len() < 1 << 20 {
        std::thread::yield_now();
    }
    fs::rename(scene.path("app.log"), scene.path("app.log.1")).unwrap();
    append(&scene, "app.log.1", "the last line\n");
    fs::rename(scene.path("next"), scene.path("app.log")).unwrap();
    server.event("sharing");
    let start = Instant::now();
    while len() < LEN + 14 + LEN + 100 && start.elapsed() < Duration::from_secs(20) {
        std::thread::yield_now();
    }
    let done = server.stop().ok();
    let there = fs::read(&data).unwrap();
    let lines = &there[LEN as usize..][..29];
    assert_eq!(lines, b"the last line\nthe first line\n", "{done:?}");
    assert_eq!(there.len() as u64, LEN + 14 + LEN + 100);
}

/// Such a file is there for whoever reads it, and has no end to wait at.
#[cfg(target_os = "linux")]
#[test]
fn a_file_that_does_not_tell_how_long_it_is() {
    let scene = Scene::new();
    scene
        .run(["share", "/proc/version", "--follow", "--core", "followed"])
        .fails(
            1,
            &["`/proc/version` cannot be followed", "without --follow"],
        );
    let (server, line) = share(&scene, "/proc/version", &[]);
    let received = scene.run(["receive", &line, "-"]).ok();
    assert_eq!(received.stdout, fs::read("/proc/version").unwrap());
    server.stop().ok();
}

#[test]
fn a_note_that_does_not_belong_to_its_core() {
    let scene = Scene::new();
    fs::write(scene.path("app.log"), "one\n").unwrap();
    let (server, _) = share(&scene, "app.log", &["--follow"]);
    server.stop().ok();
    let note = scene.path("app.log.hypercore/share");
    let text = fs::read_to_string(&note).unwrap();
    fs::write(&note, text.replace("\"start\":0", "\"start\":1000")).unwrap();
    for flags in [&["--follow"][..], &[]] {
        scene
            .run(["share", "app.log"].iter().chain(flags))
            .fails(1, &["`app.log.hypercore/share`", "--core DIR"]);
    }
}

/// Whatever has the name of what is written there for a moment.
#[test]
fn what_stands_where_the_note_is_written_stays() {
    let scene = Scene::new();
    fs::write(scene.path("notes"), "text").unwrap();
    fs::write(scene.path("mine"), "mine").unwrap();
    for kind in ["link", "file", "empty"] {
        let new = scene.path(kind).join("share.new");
        fs::create_dir(scene.path(kind)).unwrap();
        match kind {
            "link" => symlink("../mine", &new).unwrap(),
            "file" => fs::write(&new, "mine").unwrap(),
            // What a crash leaves.
            _ => fs::write(&new, "{\"key\":nu").unwrap(),
        }
        if kind == "empty" {
            let (server, _) = share(&scene, "notes", &["--core", kind]);
            server.stop().ok();
            continue;
        }
        scene
            .run(["share", "notes", "--core", kind])
            .fails(1, &["`share.new`", "--core DIR"]);
        assert_eq!(fs::read(new).unwrap(), b"mine");
        assert_eq!(fs::read_dir(scene.path(kind)).unwrap().count(), 1);
    }
    assert_eq!(fs::read(scene.path("mine")).unwrap(), b"mine");
}

#[test]
fn names_that_others_cannot_use() {
    let scene = Scene::new();
    fs::write(scene.path("10:30"), b"time").unwrap();
    let (server, line) = share(&scene, "10:30", &[]);
    assert!(line.contains("/10_30?n=1&t="), "{line}");
    fs::create_dir(scene.path("there")).unwrap();
    scene.run(["receive", &line, "there"]).ok();
    assert_eq!(fs::read(scene.path("there/10_30")).unwrap(), b"time");
    server.stop().ok();
}

#[test]
fn the_folder_that_one_is_in() {
    let scene = Scene::new();
    fs::create_dir_all(scene.path("photos/2026")).unwrap();
    fs::write(scene.path("photos/one"), b"one").unwrap();
    let arguments = ["share", ".", "--json", "--listen", "127.0.0.1:0"];
    let server = scene.start_with(arguments, |command| {
        command.current_dir(scene.path("photos"));
    });
    let line = server.event("sharing")["line"].as_str().unwrap().to_owned();
    assert!(line.ends_with("/photos/?n=1"), "{line}");
    assert!(scene.path("photos.hypercore").is_dir());
    scene.run(["receive", &line, "copy"]).ok();
    assert_eq!(fs::read(scene.path("copy/one")).unwrap(), b"one");
    server.stop().ok();
}

#[test]
fn where_no_core_can_be_made() {
    let scene = Scene::new();
    fs::write(scene.path("notes"), b"text").unwrap();
    fs::write(scene.path("file"), b"in the way").unwrap();
    scene
        .run(["share", "notes", "--core", "file/core"])
        .fails(1, &["`file/core` cannot be made", "--core DIR"]);
}

#[test]
fn the_port_of_the_last_time() {
    let scene = Scene::new();
    fs::write(scene.path("notes"), b"text").unwrap();
    let port = || {
        let server = scene.start(["share", "notes", "--json"]);
        let address = server.event("sharing")["address"].clone();
        let address = address.as_str().unwrap();
        let port = address.rsplit_once(':').unwrap().1.to_owned();
        (server, port)
    };
    let (server, first) = port();
    server.stop().ok();
    let (server, second) = port();
    assert_eq!(first, second);
    server.stop().ok();
    let taken = std::net::TcpListener::bind(format!("0.0.0.0:{first}")).unwrap();
    let (server, third) = port();
    assert_ne!(first, third);
    drop(taken);
    let done = server.stop().ok();
    let told = format!("Port {first} of the last time is in use");
    assert!(
        done.stderr.contains(&told) && done.stderr.contains("and this one once it is stopped"),
        "{}",
        done.stderr
    );
    // Lines that were printed are for the first one, whatever was asked for meanwhile.
    let (server, _) = share(&scene, "notes", &[]);
    server.stop().ok();
    let (server, fourth) = port();
    assert_eq!(first, fourth);
    server.stop().ok();
}

#[test]
fn what_is_told_of_a_share() {
    let scene = Scene::new();
    append(&scene, "app.log", "twelve bytes");
    let follow = ["share", "app.log", "--follow", "--listen", "127.0.0.1:0"];
    let server = scene.start(follow);
    let text = told(&server);
    assert!(
        text.contains("Sharing `app.log`: 12 bytes so far.")
            && text.contains("`app.log.hypercore`"),
        "{text}"
    );
    // Nobody elsewhere can call it.
    assert!(
        text.contains("In another terminal:") && !text.contains("same network"),
        "{text}"
    );
    let done = server.stop().ok();
    assert!(
        done.stderr.contains("For other machines: without --listen"),
        "{}",
        done.stderr
    );
    assert!(!done.stderr.contains("Going on"), "{}", done.stderr);
    let done = share(&scene, "app.log", &[]).0.stop().ok();
    assert!(!done.stderr.contains("Going on"), "{}", done.stderr);
    append(&scene, "app.log", "more");
    let done = share(&scene, "app.log", &[]).0.stop().ok();
    assert!(
        done.stderr.contains("Going on after 12 bytes"),
        "{}",
        done.stderr
    );
}
