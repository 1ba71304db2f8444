//! Processes of both kinds, in one temporary directory, with one record of all they say.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

/// How long any single thing may take before the test fails. Far above what a loaded machine needs.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Where Node's packages are, unless `HYPERCORE_NODE_MODULES` says otherwise.
const NODE_MODULES: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../target/interop/node_modules"
);

/// One test: a directory, and the processes started in it. Prints their record when the test fails.
pub(crate) struct Stage {
    dir: TempDir,
    record: Arc<Mutex<String>>,
}

impl Stage {
    pub(crate) fn new() -> Self {
        Self {
            dir: tempfile::tempdir().expect("a temporary directory"),
            record: Arc::default(),
        }
    }

    /// A path of this test; nothing is there yet.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Starts a script of `tests/node`.
    pub(crate) fn node<A: AsRef<OsStr>>(
        &self,
        script: &str,
        args: impl IntoIterator<Item = A>,
    ) -> Process {
        let mut command = Command::new("node");
        command
            .env("NODE_PATH", node_modules())
            .arg(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/node")).join(script));
        self.start(command, script, args)
    }

    /// Starts our command line.
    pub(crate) fn ours<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> Process {
        self.start(
            Command::new(env!("CARGO_BIN_EXE_hypercore")),
            "hypercore",
            args,
        )
    }

    fn start<A: AsRef<OsStr>>(
        &self,
        mut command: Command,
        name: &str,
        args: impl IntoIterator<Item = A>,
    ) -> Process {
        command
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
        let name = format!("{name}[{}]", child.id());
        let record = Record {
            name,
            all: Arc::clone(&self.record),
        };
        record.line("$", format!("{command:?}").as_bytes());

        let (sender, stdout) = channel();
        let output = record.follow("out", child.stdout.take().expect("piped"), move |line| {
            let _ = sender.send(line); // a test that stopped listening
        });
        let errors = record.follow("err", child.stderr.take().expect("piped"), |_| {});
        let stdin = child.stdin.take();
        Process {
            child,
            stdin,
            stdout,
            readers: vec![output, errors],
            record,
        }
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!(
                "{}",
                self.record.lock().unwrap_or_else(PoisonError::into_inner)
            );
        }
    }
}

fn node_modules() -> PathBuf {
    let modules = std::env::var_os("HYPERCORE_NODE_MODULES")
        .map_or_else(|| NODE_MODULES.into(), PathBuf::from);
    assert!(
        modules.join("hypercore/package.json").exists(),
        "{modules:?} has no hypercore. Run `.ci/interop`, or copy package.json, package-lock.json and .npmrc of \
         hypercore/tests/node to target/interop and run `npm ci --prefix target/interop`."
    );
    modules
}

/// A running process; killed when dropped.
pub(crate) struct Process {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: Receiver<Vec<u8>>,
    readers: Vec<JoinHandle<()>>,
    record: Record,
}

impl Process {
    /// The next event of this name; events of other names are skipped.
    pub(crate) fn event(&self, name: &str) -> Value {
        loop {
            let event = self.next(name);
            if event["event"] == name {
                return event;
            }
        }
    }

    /// The next event, which has this name; `None` if the process ends first.
    pub(crate) fn event_or_end(&self, name: &str) -> Option<Value> {
        let line = self.line(&format!("the event {name:?}, or the end"))?;
        let event = self.record.parse(&line);
        assert_eq!(event["event"], name, "of {}", self.record.name);
        Some(event)
    }

    /// Asserts that no event of one name comes before one of the other.
    pub(crate) fn assert_nothing_before(&self, unwanted: &str, name: &str) {
        loop {
            let event = self.next(name);
            assert_ne!(
                event["event"], unwanted,
                "{} before {name:?}: {event}",
                self.record.name
            );
            if event["event"] == name {
                return;
            }
        }
    }

    /// Writes to standard input.
    pub(crate) fn say(&mut self, bytes: impl AsRef<[u8]>) {
        let stdin = self.stdin.as_mut().expect("standard input is open");
        if let Err(error) = stdin.write_all(bytes.as_ref()).and_then(|()| stdin.flush()) {
            panic!("{} does not read: {error}", self.record.name);
        }
    }

    /// Asks the process to end, as an operator would.
    pub(crate) fn terminate(&self) {
        let done = Command::new("kill")
            .args(["-TERM", &self.child.id().to_string()])
            .status();
        assert!(
            done.is_ok_and(|status| status.success()),
            "cannot signal {}",
            self.record.name
        );
    }

    /// Ends the process between two instructions.
    pub(crate) fn kill(mut self) {
        self.child.kill().expect("the process is ours to kill");
        self.child.wait().expect("a killed process ends");
    }

    /// Waits for the end: the exit code and what is left of standard output.
    pub(crate) fn end(mut self) -> (Option<i32>, Vec<u8>) {
        self.stdin = None;
        let mut output = Vec::new();
        while let Some(line) = self.line("its end") {
            output.extend(line);
        }
        // The end of its output is the end of the process.
        let status: ExitStatus = self.child.wait().expect("the process is ours to wait for");
        for reader in self.readers.drain(..) {
            reader.join().expect("the reader of a pipe does not panic");
        }
        self.record.line("exit", status.to_string().as_bytes());
        (status.code(), output)
    }

    /// Waits for success: what is left of standard output.
    pub(crate) fn output(self) -> Vec<u8> {
        let name = self.record.name.clone();
        let (code, output) = self.end();
        assert_eq!(code, Some(0), "{name} failed");
        output
    }

    /// Waits for success: the events that are left.
    pub(crate) fn events(self) -> Vec<Value> {
        let record = self.record.clone();
        let output = self.output();
        output
            .split_inclusive(|&byte| byte == b'\n')
            .map(|line| record.parse(line))
            .collect()
    }

    /// Waits for success: the last event, which tells the result.
    pub(crate) fn result(self) -> Value {
        let name = self.record.name.clone();
        self.events()
            .pop()
            .unwrap_or_else(|| panic!("{name} ended without a result"))
    }

    /// The next event, on the way to one of this name.
    fn next(&self, awaited: &str) -> Value {
        let line = self.line(&format!("the event {awaited:?}"));
        let line = line
            .unwrap_or_else(|| panic!("{} ended without the event {awaited:?}", self.record.name));
        self.record.parse(&line)
    }

    /// The next line of standard output, or `None` at its end.
    fn line(&self, awaited: &str) -> Option<Vec<u8>> {
        match self.stdout.recv_timeout(PATIENCE) {
            Ok(line) => Some(line),
            Err(RecvTimeoutError::Disconnected) => None,
            Err(RecvTimeoutError::Timeout) => {
                panic!("waited {PATIENCE:?} for {awaited} of {}", self.record.name)
            }
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Nothing to do about a process that has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The part of a stage's record that one process writes.
#[derive(Clone)]
struct Record {
    name: String,
    all: Arc<Mutex<String>>,
}

impl Record {
    /// Reads a pipe to its end, line by line.
    fn follow(
        &self,
        kind: &'static str,
        pipe: impl Read + Send + 'static,
        mut each: impl FnMut(Vec<u8>) + Send + 'static,
    ) -> JoinHandle<()> {
        let record = self.clone();
        thread::spawn(move || {
            let mut pipe = BufReader::new(pipe);
            loop {
                let mut line = Vec::new();
                match pipe.read_until(b'\n', &mut line) {
                    Ok(1..) => {
                        record.line(kind, &line);
                        each(line);
                    }
                    Ok(0) | Err(_) => return,
                }
            }
        })
    }

    fn line(&self, kind: &str, line: &[u8]) {
        const SHOWN: usize = 400;
        let text = String::from_utf8_lossy(&line[..line.len().min(SHOWN)]);
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        all.push_str(&format!("{} {kind}: {}\n", self.name, text.trim_end()));
    }

    fn parse(&self, line: &[u8]) -> Value {
        serde_json::from_slice(line)
            .unwrap_or_else(|error| panic!("{} wrote a line that is not JSON: {error}", self.name))
    }
}
