//! Node's side, in a process of its own.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::super::damaged::originals::Files;
use crate::stage::{Process, Stage};

/// How a session ended in Node.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Over {
    Closed,
    Failed,
    /// Something was thrown that nobody catches.
    Crashed,
    /// It works on a message without end.
    Hung,
}

/// What is there after a step.
#[derive(Debug)]
pub(super) struct State {
    pub(super) out: Vec<u8>,
    pub(super) over: Option<Over>,
    pub(super) error: Option<String>,
    pub(super) length: u64,
    /// `None` for one that cannot be read.
    pub(super) blocks: BTreeMap<u64, Option<Vec<u8>>>,
    /// What it knows of the tree, told by the digest of each block.
    pub(super) digests: Vec<u64>,
}

impl State {
    fn new(state: &Value) -> Self {
        let bytes = |block: &Value| block.as_str().map(|hex| hex::decode(hex).unwrap());
        let digests = state["digests"].as_array().expect("a list");
        let blocks = state["blocks"].as_object().expect("blocks by their index");
        Self {
            out: bytes(&state["out"]).expect("bytes"),
            over: state["over"].as_str().map(|over| match over {
                "closed" => Over::Closed,
                "failed" => Over::Failed,
                "crashed" => Over::Crashed,
                "hung" => Over::Hung,
                over => panic!("{over} is no end"),
            }),
            error: state["error"].as_str().map(str::to_owned),
            length: state["length"].as_f64().expect("a number") as u64,
            blocks: blocks
                .iter()
                .map(|(index, block)| (index.parse().unwrap(), bytes(block)))
                .collect(),
            digests: digests.iter().filter_map(Value::as_u64).collect(),
        }
    }
}

pub(super) struct Node {
    process: Process,
    _stage: Stage,
}

impl Node {
    pub(super) fn new() -> Self {
        let stage = Stage::new();
        let process = stage.node("session.js", [""; 0]);
        Self {
            process,
            _stage: stage,
        }
    }

    /// Begins a session, and returns what is said to the first bytes.
    pub(super) fn begin(&mut self, files: &Files, gets: &[u64], bytes: &[u8]) -> Vec<u8> {
        let begin = json!({"files": files.to_json(), "gets": gets, "bytes": hex::encode(bytes)});
        self.process.say(begin.to_string() + "\n");
        let began = self.process.event("began");
        hex::decode(began["out"].as_str().expect("bytes")).unwrap()
    }

    /// Goes on to the end.
    pub(super) fn go(&mut self, steps: &[Vec<u8>]) -> Vec<State> {
        let steps: Vec<_> = steps.iter().map(hex::encode).collect();
        self.process
            .say(json!({ "steps": steps }).to_string() + "\n");
        let went = self.process.event("went");
        let states = went["states"].as_array().expect("a list");
        let states: Vec<_> = states.iter().map(State::new).collect();
        let is_over = states.last().is_some_and(|state| state.over.is_some());
        assert!(is_over || states.len() == steps.len());
        states
    }
}
