//! Runs every example as a newcomer would, and reads what it prints.

use std::{
    env,
    io::{BufRead, BufReader, Write},
    path::PathBuf,
    process::{Child, Command, Stdio},
};

/// The binary of an example: cargo builds them for `cargo test`, beside the directory of the tests.
fn example(name: &str) -> Command {
    let test = env::current_exe().expect("a test has a path");
    let directory = test.ancestors().nth(2).expect("target/PROFILE/deps/TEST");
    let mut path: PathBuf = directory.join("examples").join(name);
    path.set_extension(env::consts::EXE_EXTENSION);
    assert!(
        path.exists(),
        "no {path:?}: run `cargo test -p hypercore-examples --examples` first"
    );
    Command::new(path)
}

/// What an example prints that ends by itself.
fn run(name: &str) -> String {
    let output = example(name).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{name}: {errors}");
    assert_eq!(errors, "", "{name} complains");
    String::from_utf8(output.stdout).unwrap()
}

/// `output` contains `lines`, in this order.
fn check(output: &str, lines: &[&str]) {
    let mut rest = output;
    for line in lines {
        let Some((_, after)) = rest.split_once(line) else {
            panic!("no {line:?} in this order in:\n{output}");
        };
        rest = after;
    }
}

#[test]
fn walkthrough() {
    let last = format!("\n             .#{}#\n", ".".repeat(99));
    check(
        &run("walkthrough"),
        &[
            "block 0   \"hello\"",
            "block 1   \"world\"",
            "0 of 2",
            "\n             ..\n",
            "read 1    \"world\"",
            "1 of 2",
            "\n             .#\n",
            "read last \"this is block 101\"",
            "2 of 102",
            &last,
            "main has 103 blocks",
            "block 102 is here: \"This\"",
            "block 103 is here: \"is\"",
            "main has 105 blocks",
            "block 104 is here: \"live.\"",
            "That was all.",
        ],
    );
}

#[test]
fn own_storage() {
    check(
        &run("own_storage"),
        &[
            "open already: true\n",
            "key/0\n",
            "secret_key/0\n",
            "tree/0\n",
            "tree/19\n",
            "data/2\n",
            "bitfield/0\n",
            "signatures/15\n",
            "1000 blocks",
            "b\"block 700\"",
            "damaged blocks: 0",
        ],
    );
}

#[test]
fn merkle_alone() {
    check(
        &run("merkle_alone"),
        &[
            "block 2 is genuine; the log has 6 blocks",
            "a forgery: ",
            "another key: ",
        ],
    );
}

#[test]
fn wire_alone() {
    check(
        &run("wire_alone"),
        &[
            "encrypted",
            "that I know",
            "she knows the key",
            "asks for block 42",
            "alice: sent",
        ],
    );
}

#[test]
fn tokio_compat() {
    assert_eq!(run("tokio_compat"), "0: hello\n1: from\n2: tokio\n");
}

#[test]
fn tcp_server_and_tcp_client() {
    let mut server = Running::new(&mut example("tcp_server"));
    let command = server.line();
    let [.., key, address] = command.split(' ').collect::<Vec<_>>()[..] else {
        panic!("no command in {command:?}");
    };
    let mut client = Running::new(example("tcp_client").args([key, address]));

    let mut input = server.child.stdin.take().unwrap();
    for (index, line) in ["first", "", "third"].into_iter().enumerate() {
        writeln!(input, "{line}").unwrap();
        assert_eq!(client.line(), format!("{index}: {line}"));
    }
    drop(input);
    assert!(server.child.wait().unwrap().success());
    assert!(client.child.wait().unwrap().success());
}

/// An example that talks with us; it does not outlive the test.
struct Running {
    child: Child,
    output: BufReader<std::process::ChildStdout>,
}

impl Running {
    fn new(command: &mut Command) -> Self {
        let command = command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.stderr(Stdio::null()).spawn().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        Self { child, output }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        line.trim_end_matches(['\r', '\n']).to_owned()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It has ended already unless the test failed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
