//! Real files: what is created, what is refused, what stays as it was.

use std::{env, fs, io, path::Path, process::Command, sync::Arc, thread};

use hypercore_storage::{Directory, Error, FeedFiles, FileName, Storage};

use crate::{node, open};

/// Which of its own tests this program runs in another process, where no thread can be started.
const WITHOUT_THREADS: &str = "directory::files_are_synced_where_no_thread_can_be_started";

#[test]
fn files_are_synced_where_no_thread_can_be_started() {
    if env::var_os("HYPERCORE_WITHOUT_THREADS").is_none() {
        let program = env::current_exe().unwrap();
        let ran = Command::new(program)
            .args([WITHOUT_THREADS, "--exact", "--test-threads=1"])
            .env("HYPERCORE_WITHOUT_THREADS", "1")
            // More than there is room for.
            .env("RUST_MIN_STACK", (1u64 << 60).to_string())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&ran.stdout);
        assert!(said.contains("1 passed"), "{said}");
        return;
    }
    assert!(thread::Builder::new().spawn(|| ()).is_err());
    let parent = tempfile::tempdir().unwrap();
    let files = open(&Directory::new(parent.path()));
    files.write_headers().unwrap();
    files.write_data(0, b"abc").unwrap();
    files.write_nodes(&[node(0)]).unwrap();
    files.sync_content().unwrap();
}

#[test]
fn reading_a_missing_directory_creates_nothing() {
    let parent = tempfile::tempdir().unwrap();
    let path = parent.path().join("a/b");
    let files = open(&Directory::new(&path));
    assert!(files.is_empty().unwrap());
    assert_eq!(files.key().unwrap(), None);
    assert_eq!(files.next_signature(0).unwrap(), None);
    files.pages(|_, _| panic!("there is no page")).unwrap();
    files.reset().unwrap();
    files.truncate_tree(0).unwrap();
    files.clear_data(0, 10).unwrap();
    files.sync_content().unwrap();
    assert!(!parent.path().join("a").exists());

    files.write_headers().unwrap();
    files.write_nodes(&[node(3)]).unwrap();
    files.sync_content().unwrap();
    drop(files);
    assert_eq!(
        open(&Directory::new(&path)).node(node(3).index).unwrap(),
        Some(node(3))
    );
}

#[test]
fn files_that_appear_later_are_seen() {
    let directory = tempfile::tempdir().unwrap();
    let files = open(&Directory::new(directory.path()));
    assert_eq!(files.key().unwrap(), None);
    fs::write(directory.path().join("key"), [5; 32]).unwrap();
    assert_eq!(files.key().unwrap(), Some([5; 32]));
}

#[test]
fn destroy_removes_the_files_and_nothing_else() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("other"), "mine").unwrap();
    let files = open(&Directory::new(directory.path()));
    files.write_headers().unwrap();
    files.write_secret_key(&[1; 64]).unwrap();
    files.destroy().unwrap();
    let left: Vec<_> = fs::read_dir(directory.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(left, ["other"]);
    assert!(open(&Directory::new(directory.path())).is_empty().unwrap());
}

#[test]
fn holes_give_their_space_back() {
    let directory = tempfile::tempdir().unwrap();
    let files = open(&Directory::new(directory.path()));
    files.write_data(0, &[1; 1 << 20]).unwrap();
    files.sync_content().unwrap();
    let before = files.data_allocated().unwrap();
    files.clear_data(10, 1 << 19).unwrap();
    let data = files.read_data(0, 1 << 20).unwrap();
    let cleared = 10..10 + (1 << 19);
    let right = |(at, &byte): (usize, &u8)| byte == u8::from(!cleared.contains(&at));
    assert!(data.iter().enumerate().all(right));
    if cfg!(target_os = "linux") {
        assert!(files.data_allocated().unwrap() < before);
    }
}

#[test]
fn a_full_path_of_a_file_is_an_error() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("file");
    fs::write(&path, "").unwrap();
    let error = FeedFiles::open(Arc::new(Directory::new(path))).unwrap_err();
    assert!(matches!(error, Error::Io { .. }), "{error}");
}

#[cfg(unix)]
mod unix {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn secrets_are_for_their_owner_alone() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("a/log");
        let files = open(&Directory::new(&path));
        files.write_secret_key(&[1; 64]).unwrap();
        files.sync_keys().unwrap();
        assert_eq!(mode(&path.join("secret_key")), 0o600);
        assert_eq!(mode(&path), 0o700);
        assert_eq!(mode(&parent.path().join("a")), 0o700);
        drop(files);

        fs::set_permissions(path.join("secret_key"), fs::Permissions::from_mode(0o644)).unwrap();
        let files = open(&Directory::new(&path));
        assert_eq!(**files.secret_key().unwrap().as_ref().unwrap(), [1; 64]);
        assert_eq!(mode(&path.join("secret_key")), 0o600);
    }

    /// Someone who can create names in the directory must not redirect what is written, make us
    /// wait, or make us read something else.
    #[test]
    fn other_kinds_of_files_are_refused() {
        type Make = fn(&Path);
        let kinds: [(&str, Make); 4] = [
            ("symbolic link", |path| {
                symlink(path.with_file_name("target"), path).unwrap()
            }),
            ("symbolic link", |path| symlink("nowhere", path).unwrap()),
            ("directory", |path| fs::create_dir(path).unwrap()),
            ("named pipe", |path| {
                use rustix::fs::{CWD, FileType, Mode, mknodat};
                mknodat(CWD, path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
            }),
        ];
        for (kind, make) in kinds {
            for file in FileName::ALL {
                let directory = tempfile::tempdir().unwrap();
                fs::write(directory.path().join("target"), "precious").unwrap();
                make(&directory.path().join(file.as_str()));
                let error = attempt(directory.path(), file).unwrap_err();
                assert!(
                    matches!(error, Error::NotAFile { file: f, found } if f == file && found == kind),
                    "{kind} {file}: {error}"
                );
                let target = fs::read(directory.path().join("target")).unwrap();
                assert_eq!(target, b"precious");
                assert!(!directory.path().join("nowhere").exists());
            }
        }
    }

    /// A backup made of hard links, or a file of somebody else: it can be read, and stays as it is.
    #[test]
    fn a_file_with_another_name_is_not_written_to() {
        for file in FileName::ALL {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join(file.as_str());
            let target = directory.path().join("target");
            attempt(directory.path(), file).unwrap();
            let before = fs::read(&path).unwrap();
            fs::hard_link(&path, &target).unwrap();
            let handle = Directory::new(directory.path()).open(file).unwrap();
            handle.read_at(0, &mut vec![0; before.len()]).unwrap();
            for written in [handle.write_at(0, b"x"), handle.punch_hole(0, 1)] {
                let error = written.unwrap_err();
                assert!(error.to_string().contains("hard link"), "{file}: {error}");
            }
            if !before.is_empty() {
                handle.truncate(0).unwrap_err();
            }
            assert_eq!(fs::read(&target).unwrap(), before, "{file}");

            // Once it is the only one.
            fs::remove_file(&target).unwrap();
            let handle = Directory::new(directory.path()).open(file).unwrap();
            handle.write_at(0, b"x").unwrap();
        }
    }

    /// Opens the log and writes to `file`.
    fn attempt(path: &Path, file: FileName) -> Result<(), Error> {
        let files = FeedFiles::open(Arc::new(Directory::new(path)))?;
        match file {
            FileName::Key => files.write_key(&[1; 32]),
            FileName::SecretKey => files.write_secret_key(&[1; 64]),
            FileName::Data => files.write_data(0, b"a"),
            // The others have headers.
            _ => files.write_headers().map(drop),
        }
    }

    /// Written without the checks of `FeedFiles`: creation itself follows no link either.
    #[test]
    fn creation_follows_no_link() {
        let directory = tempfile::tempdir().unwrap();
        symlink("nowhere", directory.path().join("tree")).unwrap();
        let tree = Directory::new(directory.path())
            .open(FileName::Tree)
            .unwrap();
        tree.write_at(0, b"x").unwrap_err();
        assert!(!directory.path().join("nowhere").exists());
    }
}

/// What of many logs is open at one time.
#[cfg(target_os = "linux")]
mod handles {
    use super::*;

    /// The names of the files in `directory` that are open.
    fn open_files(directory: &Path) -> Vec<String> {
        let all = fs::read_dir("/proc/self/fd").unwrap();
        let paths = all.filter_map(|entry| fs::read_link(entry.unwrap().path()).ok());
        paths
            .filter(|path| path.starts_with(directory))
            .map(|path| path.file_name().unwrap().to_string_lossy().into_owned())
            .collect()
    }

    /// Opens `count` copies of a log in `directory`, and reads all of their files.
    fn logs(directory: &Path, count: u32) -> Vec<FeedFiles> {
        let original = directory.join("original");
        let files = open(&Directory::new(&original));
        files.write_key(&[1; 32]).unwrap();
        files.write_secret_key(&[2; 64]).unwrap();
        files.write_headers().unwrap();
        files.write_data(0, b"content").unwrap();
        drop(files);
        let logs = (0..count).map(|number| {
            let copy = directory.join(number.to_string());
            fs::create_dir(&copy).unwrap();
            for file in FileName::ALL {
                fs::copy(original.join(file.as_str()), copy.join(file.as_str())).unwrap();
            }
            let files = open(&Directory::new(copy));
            files.key().unwrap();
            files.secret_key().unwrap();
            files.node(node(0).index).unwrap();
            files.read_data(0, 7).unwrap();
            files
        });
        logs.collect()
    }

    #[test]
    fn only_locks_stay_open_in_many_logs() {
        let directory = tempfile::tempdir().unwrap();
        let logs = logs(directory.path(), 200);
        // Forth and back: what was closed is opened again.
        for files in logs.iter().chain(logs.iter().rev()) {
            assert_eq!(files.read_data(0, 7).unwrap(), *b"content");
            assert_eq!(files.key().unwrap(), Some([1; 32]));
        }
        let open = open_files(directory.path());
        let locked = open.iter().filter(|name| *name == "bitfield").count();
        assert_eq!(locked, logs.len());
        assert!(open.len() <= locked + 256, "{} are open", open.len());
    }

    #[test]
    fn what_is_not_synced_stays_open() {
        let directory = tempfile::tempdir().unwrap();
        let logs = logs(directory.path(), 200);
        let first = &logs[0];
        let is_open = || open_files(&directory.path().join("0")).contains(&"data".to_owned());
        assert!(!is_open());
        first.write_data(7, b"more").unwrap();
        let read_all = || {
            for files in &logs[1..] {
                files.key().unwrap();
                files.read_data(0, 7).unwrap();
            }
        };
        read_all();
        assert!(is_open());
        first.sync_content().unwrap();
        read_all();
        assert!(!is_open());
        assert_eq!(first.read_data(7, 4).unwrap(), *b"more");
    }

    /// It was removed between its opening and the lock: another one can be locked under its name.
    #[test]
    fn a_file_without_its_name_is_not_locked() {
        for again in [false, true] {
            let path = tempfile::tempdir().unwrap();
            let bitfield = path.path().join("bitfield");
            fs::write(&bitfield, "x").unwrap();
            let file = Directory::new(path.path())
                .open(FileName::Bitfield)
                .unwrap();
            file.read_at(0, &mut [0]).unwrap();
            fs::remove_file(&bitfield).unwrap();
            if again {
                fs::write(&bitfield, "x").unwrap();
            }
            let error = file.lock().unwrap_err();
            assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
        }
    }

    /// The lock is on the bitfield that was opened: another process may own what is there now.
    #[test]
    fn another_file_in_the_place_of_one_that_was_closed_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let logs = logs(directory.path(), 200);
        let data = |number: &str| directory.path().join(number).join("data");
        fs::rename(data("1"), data("0")).unwrap();
        for (files, kind) in logs
            .iter()
            .zip([io::ErrorKind::Other, io::ErrorKind::NotFound])
        {
            for error in [
                files.read_data(0, 1).unwrap_err(),
                files.write_data(0, b"x").unwrap_err(),
            ] {
                assert!(
                    matches!(&error, Error::Io { file: FileName::Data, source, .. } if source.kind() == kind),
                    "{error}"
                );
            }
        }
        assert_eq!(fs::read(data("0")).unwrap(), *b"content");
        assert!(!data("1").exists());
    }
}
