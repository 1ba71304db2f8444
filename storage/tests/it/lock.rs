//! One log, one owner: in a process, between processes, and from the first write on.

use std::{
    env,
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    sync::Arc,
};

use hypercore_storage::{Directory, Error, FeedFiles, Memory, Storage};

use crate::open;

fn try_open(storage: &(impl Storage + Clone + 'static)) -> Result<FeedFiles, Error> {
    FeedFiles::open(Arc::new(storage.clone()))
}

fn check(storage: &(impl Storage + Clone + 'static), again: &(impl Storage + Clone + 'static)) {
    let first = open(storage);
    first.write_headers().unwrap();
    assert!(try_open(again).unwrap_err().is_locked());
    assert!(
        try_open(again).unwrap_err().is_locked(),
        "asking does not take it away"
    );
    drop(first);
    let second = open(again);
    assert!(try_open(storage).unwrap_err().is_locked());
    drop(second);
    open(storage);
}

#[test]
fn two_handles_exclude_each_other() {
    let memory = Memory::new();
    check(&memory, &memory);
    let path = tempfile::tempdir().unwrap();
    check(&Directory::new(path.path()), &Directory::new(path.path()));
    let path = tempfile::tempdir().unwrap();
    let directory = Directory::new(path.path());
    check(&directory, &directory);
}

/// Both see an empty log, so there is nothing to lock yet. One writes; the other may not, not even
/// when the first is gone, because what it saw is no longer true.
#[test]
fn the_first_write_decides() {
    fn check(storage: &(impl Storage + Clone + 'static)) {
        let (first, second) = (open(storage), open(storage));
        first.write_headers().unwrap();
        first.write_key(&[1; 32]).unwrap();
        assert!(second.write_key(&[2; 32]).unwrap_err().is_locked());
        drop(first);
        assert!(second.write_key(&[2; 32]).unwrap_err().is_locked());
        drop(second);
        assert_eq!(open(storage).key().unwrap(), Some([1; 32]));
    }
    check(&Memory::new());
    let path = tempfile::tempdir().unwrap();
    check(&Directory::new(path.path()));
}

const CHILD: &str = "HYPERCORE_STORAGE_LOCK_CHILD";

/// Not a test of its own: what the other process runs. It says what it got, and keeps it until its
/// input ends.
#[test]
fn child() {
    let Some(path) = env::var_os(CHILD) else {
        return;
    };
    let files = try_open(&Directory::new(path));
    println!(
        "\nchild: {}",
        files
            .as_ref()
            .map_or_else(ToString::to_string, |_| "open".into())
    );
    std::io::stdin().lines().for_each(drop);
}

/// The other process, what it said, and its output, which it must be able to write to the end.
fn spawn(path: &Path) -> (Child, String, impl Sized) {
    let mut child = Command::new(env::current_exe().unwrap())
        .args(["--exact", "lock::child", "--nocapture"])
        .env(CHILD, path)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let said = lines.find_map(|line| line.ok()?.strip_prefix("child: ").map(str::to_owned));
    (child, said.expect("the child says what it got"), lines)
}

#[test]
fn two_processes_exclude_each_other() {
    let path = tempfile::tempdir().unwrap();
    let directory = Directory::new(path.path());
    let ours = open(&directory);
    ours.write_headers().unwrap();
    let (mut child, said, _output) = spawn(path.path());
    assert_eq!(said, Error::Locked.to_string());
    drop(child.stdin.take());
    child.wait().unwrap();
    drop(ours);

    let (mut child, said, _output) = spawn(path.path());
    assert_eq!(said, "open");
    assert!(try_open(&directory).unwrap_err().is_locked());
    // A killed owner leaves no lock behind.
    child.kill().unwrap();
    child.wait().unwrap();
    open(&directory);
}
