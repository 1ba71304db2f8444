//! Processes of the command line, in one temporary directory.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsStr,
    fs,
    io::{BufRead, BufReader, Read, Write},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    thread,
    time::Duration,
};

use serde_json::Value;
use tempfile::TempDir;

/// How long any single thing may take before the test fails.
const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) const SEED: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";

/// The public key of [`SEED`], by RFC 8032 and OpenSSL.
pub(crate) const KEY: &str = "03a107bff3ce10be1d70dd18e74bc09967e4d6309ba50d5f1ddc8664125531b8";

/// A temporary directory, and the commands that run in it.
pub(crate) struct Scene(TempDir);

impl Scene {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().expect("a temporary directory"))
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Starts a command; relative paths lie in this scene.
    pub(crate) fn start<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> Process {
        self.start_with(args, |_| {})
    }

    /// Starts a command with something changed about it.
    pub(crate) fn start_with<A: AsRef<OsStr>>(
        &self,
        args: impl IntoIterator<Item = A>,
        change: impl FnOnce(&mut Command),
    ) -> Process {
        let mut command = Command::new(env!("CARGO_BIN_EXE_hypercore"));
        command
            .current_dir(self.0.path())
            .env("XDG_RUNTIME_DIR", self.0.path().join(".runtime"))
            .args(args)
            // Whoever runs the tests may have an identity, which is not theirs.
            .env("XDG_CONFIG_HOME", self.path("no-config"))
            .env("XDG_STATE_HOME", self.path("state"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        change(&mut command);
        let mut child = command
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
        let (out, stdout) = channel();
        // Unless the test has put something else there.
        if let Some(pipe) = child.stdout.take() {
            follow(pipe, out);
        }
        let (err, stderr) = channel();
        if let Some(pipe) = child.stderr.take() {
            follow(pipe, err);
        }
        Process {
            name: format!("{command:?}"),
            stdin: child.stdin.take(),
            stdout,
            stderr,
            child,
        }
    }

    /// Runs a command to its end.
    pub(crate) fn run<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> Done {
        self.start(args).end()
    }

    /// Runs a command that takes `input` on standard input.
    pub(crate) fn feed<A: AsRef<OsStr>>(
        &self,
        args: impl IntoIterator<Item = A>,
        input: &[u8],
    ) -> Done {
        let mut process = self.start(args);
        process.say(input);
        process.end()
    }

    /// Makes the core of [`SEED`] with these blocks.
    pub(crate) fn core(&self, dir: &str, blocks: &[&str]) {
        self.run(["create", dir, "--seed", SEED]).ok();
        if !blocks.is_empty() {
            self.run(["append", dir, "--"].iter().chain(blocks)).ok();
        }
    }

    /// Serves the core in `dir`; returns its address, too.
    pub(crate) fn serve(&self, dir: &str, flags: &[&str]) -> (Process, String) {
        let process = self.start(["serve", dir, "--json"].iter().chain(flags));
        let first = process.next();
        assert_eq!(first["event"], "listening", "{first}");
        assert_eq!(first["key"].as_str().map(str::len), Some(64), "{first}");
        let address = first["address"].as_str().expect("an address").to_owned();
        (process, address)
    }

    /// Every file of `dir` with its bytes.
    pub(crate) fn files(&self, dir: &str) -> BTreeMap<String, Vec<u8>> {
        let entries = fs::read_dir(self.path(dir)).expect("a directory");
        entries
            .map(|entry| {
                let entry = entry.expect("an entry");
                let name = entry.file_name().into_string().expect("a plain name");
                (name, fs::read(entry.path()).expect("a file"))
            })
            .collect()
    }

    /// Changes one byte of a file.
    pub(crate) fn damage(&self, path: impl AsRef<Path>, offset: usize) {
        let path = self.0.path().join(path);
        let mut bytes = fs::read(&path).expect("a file");
        bytes[offset] ^= 1;
        fs::write(&path, bytes).expect("a file");
    }
}

fn follow(pipe: impl Read + Send + 'static, lines: Sender<Vec<u8>>) {
    thread::spawn(move || {
        let mut pipe = BufReader::new(pipe);
        loop {
            let mut line = Vec::new();
            match pipe.read_until(b'\n', &mut line) {
                // A test that has seen enough does not listen any more.
                Ok(1..) => drop(lines.send(line)),
                Ok(0) | Err(_) => return,
            }
        }
    });
}

/// A running command; killed when dropped.
pub(crate) struct Process {
    name: String,
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: Receiver<Vec<u8>>,
    stderr: Receiver<Vec<u8>>,
}

impl Process {
    /// Its number in the system.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn say(&mut self, bytes: impl AsRef<[u8]>) {
        let stdin = self.stdin.as_mut().expect("standard input is open");
        stdin.write_all(bytes.as_ref()).expect("it reads");
        stdin.flush().expect("it reads");
    }

    /// Ends its standard input.
    pub(crate) fn hush(&mut self) {
        self.stdin = None;
    }

    /// The next line, which must be JSON.
    pub(crate) fn next(&self) -> Value {
        let line = self.line().unwrap_or_else(|| {
            let errors: Vec<u8> = self.stderr.try_iter().flatten().collect();
            panic!(
                "{} ended too early: {}",
                self.name,
                String::from_utf8_lossy(&errors)
            )
        });
        serde_json::from_slice(&line).unwrap_or_else(|error| {
            let line = String::from_utf8_lossy(&line);
            panic!("{}: {error} in {line}", self.name)
        })
    }

    /// The next event of this name; others are skipped.
    pub(crate) fn event(&self, name: &str) -> Value {
        loop {
            let event = self.next();
            if event["event"] == name {
                return event;
            }
        }
    }

    /// Sends SIGTERM, SIGINT or another signal.
    pub(crate) fn signal(&self, name: &str) {
        let id = self.child.id().to_string();
        let done = Command::new("kill").args([name, &id]).status();
        assert!(done.is_ok_and(|status| status.success()), "{}", self.name);
    }

    /// Ends it between two instructions.
    pub(crate) fn kill(mut self) {
        self.child.kill().expect("it is ours");
        self.child.wait().expect("it is ours");
    }

    /// Stops it as an operator would: what it still had to say.
    pub(crate) fn stop(self) -> Done {
        self.signal("-TERM");
        self.end()
    }

    /// Ends it between two instructions: what it had said until then, line by line.
    pub(crate) fn kill_and_hear(mut self) -> Vec<Value> {
        self.child.kill().expect("it is ours");
        self.child.wait().expect("it is ours");
        let lines = std::iter::from_fn(|| self.line());
        // The last line can be torn.
        let whole = lines.filter(|line| line.ends_with(b"\n"));
        whole
            .map(|line| serde_json::from_slice(&line).expect("JSON"))
            .collect()
    }

    /// The next line of its output for people.
    pub(crate) fn text(&self) -> String {
        let line = self
            .line()
            .unwrap_or_else(|| panic!("{} ended too early", self.name));
        String::from_utf8(line).expect("text")
    }

    /// The next line of what it says on standard error.
    pub(crate) fn complaint(&self) -> String {
        let line = wait(&self.stderr, &self.name);
        let line = line.unwrap_or_else(|| panic!("{} ended too early", self.name));
        String::from_utf8(line).expect("text")
    }

    /// Waits for its end, which comes without the end of its input.
    pub(crate) fn end_open(mut self) -> Done {
        let open = self.stdin.take();
        let done = self.end();
        drop(open);
        done
    }

    /// Waits for its end.
    pub(crate) fn end(mut self) -> Done {
        self.stdin = None;
        let mut stdout = Vec::new();
        while let Some(line) = self.line() {
            stdout.extend(line);
        }
        let mut stderr = Vec::new();
        while let Some(line) = wait(&self.stderr, &self.name) {
            stderr.extend(line);
        }
        // The end of its output is the end of the process.
        let status = self.child.wait().expect("it is ours");
        Done {
            name: self.name.clone(),
            code: status.code(),
            stdout,
            stderr: String::from_utf8(stderr).expect("messages are text"),
        }
    }

    fn line(&self) -> Option<Vec<u8>> {
        wait(&self.stdout, &self.name)
    }
}

fn wait(lines: &Receiver<Vec<u8>>, name: &str) -> Option<Vec<u8>> {
    match lines.recv_timeout(PATIENCE) {
        Ok(line) => Some(line),
        Err(RecvTimeoutError::Disconnected) => None,
        Err(RecvTimeoutError::Timeout) => panic!("{name} is silent and does not end"),
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Nothing to do about a process that has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A command that has ended.
#[derive(Debug)]
pub(crate) struct Done {
    name: String,
    pub(crate) code: Option<i32>,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
}

impl Done {
    /// It did what it was asked to, and did not complain.
    #[track_caller]
    pub(crate) fn ok(self) -> Self {
        assert_eq!(self.code, Some(0), "{}: {}", self.name, self.stderr);
        self
    }

    /// It failed with this exit code, and a message that has all these words.
    #[track_caller]
    pub(crate) fn fails(self, code: i32, words: &[&str]) -> Self {
        assert_eq!(self.code, Some(code), "{}: {}", self.name, self.stderr);
        assert!(!self.stderr.contains("panicked"), "{}", self.stderr);
        for word in words {
            assert!(
                self.stderr.contains(word),
                "{}: no {word:?} in {:?}",
                self.name,
                self.stderr
            );
        }
        self
    }

    /// Its output, line by line, all of it JSON.
    #[track_caller]
    pub(crate) fn events(&self) -> Vec<Value> {
        let lines = self.stdout.split_inclusive(|&byte| byte == b'\n');
        lines
            .map(|line| {
                serde_json::from_slice(line)
                    .unwrap_or_else(|error| panic!("{}: {error}", self.name))
            })
            .collect()
    }

    /// The last line of its output.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        self.events().pop().expect("a result")
    }

    /// Its output for people.
    #[track_caller]
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.stdout).expect("text")
    }
}

/// Makes a command one of a shell, for which it is `"$@"`.
#[cfg(unix)]
pub(crate) fn in_shell(command: &mut Command, script: &str) {
    let mut shell = Command::new("sh");
    shell
        .args(["-c", script, "sh"])
        .arg(command.get_program())
        .args(command.get_args())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    if let Some(dir) = command.get_current_dir() {
        shell.current_dir(dir);
    }
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => shell.env(name, value),
            None => shell.env_remove(name),
        };
    }
    *command = shell;
}

/// For [`in_shell`]: whoever may do everything is stopped by permissions, too.
#[cfg(target_os = "linux")]
pub(crate) const WITHOUT_PRIVILEGES: &str = r#"case $(id -u) in
    0) exec setpriv --bounding-set -dac_override,-dac_read_search "$@";;
    *) exec "$@";;
esac"#;

/// A core of many blocks: `0`, `1`, ... each padded to `size` bytes.
pub(crate) fn many(scene: &Scene, dir: &str, count: usize, size: usize) {
    scene.core(dir, &[]);
    let lines: String = (0..count).map(|i| format!("{i:>size$}\n")).collect();
    scene
        .feed(["append", dir, "--lines"], lines.as_bytes())
        .ok();
}

pub(crate) fn names(events: &[Value]) -> Vec<&str> {
    events
        .iter()
        .filter_map(|event| event["event"].as_str())
        .collect()
}

/// Waits until each of these blocks was told to be stored.
pub(crate) fn await_downloads(process: &Process, blocks: std::ops::Range<u64>) {
    let mut missing: BTreeSet<u64> = blocks.collect();
    while !missing.is_empty() {
        let index = process.event("download")["index"].as_u64().unwrap();
        missing.remove(&index);
    }
}

/// A clone of some blocks of what is served at `address`.
pub(crate) fn part(scene: &Scene, dir: &str, address: &str, range: &str) {
    let args = ["--connect", address, "--sparse", "--range", range];
    scene.run(["clone", KEY, dir].iter().chain(&args)).ok();
}

/// A live clone in `copy` of what is served at `address`.
pub(crate) fn clone_live(scene: &Scene, address: &str) -> Process {
    scene.start([
        "clone",
        KEY,
        "copy",
        "--json",
        "--live",
        "--connect",
        address,
    ])
}
