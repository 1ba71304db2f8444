//! `receive` of archives that nobody who means well has made.

use std::{fs, io::Read};

use crate::{
    process::{Done, Scene},
    sharing::share,
};

#[test]
fn an_archive_that_cannot_be_unpacked() {
    let scene = Scene::new();
    // Blocks that are none at all.
    scene.run(["create", "core"]).ok();
    let garbage = "x".repeat(2000);
    scene.run(["append", "core", &garbage]).ok();
    let (server, address) = scene.serve("core", &[]);
    let key = fs::read(scene.path("core/key")).unwrap();
    let key: String = key.iter().map(|byte| format!("{byte:02x}")).collect();
    let line = format!("hyper://{key}@{address}/photos/");
    let done = scene.run(["receive", &line, "copy"]);
    let done = done.fails(
        1,
        &[
            "`copy` cannot be written",
            "numeric field",
            "`copy.hypercore`",
        ],
    );
    assert!(!done.stderr.contains("run it again"), "{}", done.stderr);
    assert!(!scene.path("copy").exists());
    server.stop().ok();
}

/// What an archive calls its files is up to whoever made it.
#[test]
fn a_name_that_would_command_the_terminal() {
    let scene = Scene::new();
    let mut archive = tar::Builder::new(Vec::new());
    let name = "a\x1b[2J\nerror: b";
    for path in [name.to_owned(), format!("{name}/below")] {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o644);
        archive
            .append_data(&mut header, path, std::io::empty())
            .unwrap();
    }
    let done = unpack(&scene, &archive.into_inner().unwrap());
    let done = done.fails(1, &["`copy` cannot be written", r"a\u{1b}[2J\nerror: b"]);
    assert_eq!(done.stderr.lines().count(), 1, "{}", done.stderr);
    assert!(!done.stderr.contains('\x1b'), "{:?}", done.stderr);
}

/// Names were read into memory before anybody looked how long they are.
#[test]
fn an_archive_with_a_name_that_nobody_can_have() {
    use tar::EntryType;
    let scene = Scene::new();
    let plain = |archive: &mut tar::Builder<Vec<u8>>, kind, size| {
        let mut header = tar::Header::new_ustar();
        if matches!(kind, EntryType::GNULongName | EntryType::GNULongLink) {
            header = tar::Header::new_gnu();
        }
        header.set_entry_type(kind);
        header.set_mode(0o644);
        header.set_path("name").unwrap();
        header.set_size(size);
        header.set_cksum();
        archive
            .append(&header, std::io::repeat(b'a').take(size))
            .unwrap();
    };
    let room = "one of its entries has more than 80 KiB of names, attributes and holes";
    let long = "is a name of 5000 bytes, and 4096 are the limit";
    for (kind, size, words) in [
        (EntryType::GNULongName, 3 << 20, room),
        (EntryType::GNULongLink, 3 << 20, room),
        (EntryType::XHeader, 3 << 20, room),
        (EntryType::GNULongName, 5000, long),
    ] {
        let mut archive = tar::Builder::new(Vec::new());
        // What stands before it is not counted.
        plain(&mut archive, EntryType::Regular, 200_000);
        // Of it nothing is taken but what it says of itself.
        plain(&mut archive, EntryType::XGlobalHeader, 200_000);
        plain(&mut archive, EntryType::Directory, 200_000);
        plain(&mut archive, kind, size);
        plain(&mut archive, EntryType::Regular, 3);
        let archive = archive.into_inner().unwrap();
        let done = unpack(&scene, &archive).fails(1, &["`copy` cannot be written", words]);
        assert!(done.stderr.len() < 1000, "{}", done.stderr);
        assert!(!scene.path("copy").exists());
    }
    // As long as they may be.
    let mut archive = tar::Builder::new(Vec::new());
    let long = ["a"; 2000].join("/");
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(EntryType::Symlink);
    header.set_size(0);
    header.set_mtime(1);
    archive
        .append_link(&mut header, "link", long.as_str())
        .unwrap();
    plain(&mut archive, EntryType::XHeader, 0);
    plain(&mut archive, EntryType::Regular, 3);
    unpack(&scene, &archive.into_inner().unwrap()).ok();
    let link = fs::read_link(scene.path("copy/link")).unwrap();
    assert_eq!(link.to_str(), Some(long.as_str()));
    assert_eq!(fs::read(scene.path("copy/name")).unwrap(), b"aaa");
}

/// Receives `archive` as a folder.
fn unpack(scene: &Scene, archive: &[u8]) -> Done {
    for core in ["archive.hypercore", "copy.hypercore"] {
        let _ = fs::remove_dir_all(scene.path(core));
    }
    fs::write(scene.path("archive"), archive).unwrap();
    let (server, line) = share(scene, "archive", &[]);
    let (key, rest) = line.split_once('@').unwrap();
    let address = rest.split('/').next().unwrap();
    let done = scene.run(["receive", &format!("{key}@{address}/photos/"), "copy"]);
    server.stop().ok();
    done
}
