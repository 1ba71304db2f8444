//! Node's audit of what was opened after a crash, with `HYPERCORE_NODE_MODULES` (where its modules
//! are, as `.ci/interop` installs them).

use std::{
    cell::RefCell,
    env,
    io::{BufRead, BufReader, Write},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use hypercore::storage::{FileName, Memory};
use serde::Deserialize;

/// A process of Node, one for each thread, as it takes its time to start.
struct Node {
    child: Child,
    directories: ChildStdin,
    findings: BufReader<ChildStdout>,
}

#[derive(Debug, Deserialize)]
struct Finding {
    length: Option<u64>,
    invalid: Option<u64>,
    verified: Option<bool>,
    error: Option<String>,
}

thread_local! {
    static NODE: RefCell<Option<Node>> = RefCell::new(Node::start());
}

impl Node {
    fn start() -> Option<Self> {
        let modules = env::var_os("HYPERCORE_NODE_MODULES")?;
        let mut child = Command::new("node")
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/node/audit.js"))
            .env("NODE_PATH", modules)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        Some(Self {
            directories: child.stdin.take().unwrap(),
            findings: BufReader::new(child.stdout.take().unwrap()),
            child,
        })
    }

    fn audit(&mut self, log: &Memory) -> Finding {
        let directory = tempfile::tempdir().unwrap();
        for file in FileName::ALL {
            std::fs::write(directory.path().join(file.as_str()), log.read(file)).unwrap();
        }
        writeln!(self.directories, "{}", directory.path().display()).unwrap();
        let mut finding = String::new();
        self.findings.read_line(&mut finding).unwrap();
        serde_json::from_str(&finding).unwrap()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Node finds `length` blocks in the log, no fault with those that it has, and the signature right.
pub(super) fn assert_node_agrees(log: &Memory, length: u64) {
    NODE.with_borrow_mut(|node| {
        let Some(node) = node else {
            return;
        };
        let found = node.audit(log);
        assert_eq!(found.error, None);
        let whole = (Some(length), Some(0), Some(true));
        assert_eq!((found.length, found.invalid, found.verified), whole);
    });
}
