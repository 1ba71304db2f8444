//! The two that open: our library, and Node's in a process of their own.

use std::collections::BTreeMap;

use futures_lite::future::block_on;
use hypercore::{Error, GetOptions, Hypercore};
use serde_json::{Value, json};

use super::originals::Files;
use crate::stage::{Process, Stage};

/// We are asked for so many blocks, also of a shorter log.
const BEYOND: u64 = 512;

/// What one of them finds in files.
#[derive(Debug, PartialEq)]
pub(super) struct Found {
    pub(super) key: String,
    pub(super) length: u64,
    pub(super) byte_length: u64,
    /// All blocks that are said to be here; `None` where one cannot be read.
    pub(super) blocks: BTreeMap<u64, Option<Vec<u8>>>,
}

/// What we find.
#[derive(Debug)]
pub(super) struct Ours {
    pub(super) found: Result<Found, Error>,
    /// The end was searched for, as after a crash.
    pub(super) recovered: bool,
}

impl Ours {
    pub(super) fn open(files: &Files) -> Self {
        let mut recovered = false;
        let found = block_on(async {
            let options = Hypercore::options().create_if_missing(false).sparse(true);
            let core = options.open_storage(files.in_memory()).await?;
            recovered = core.recovery().is_some();
            let mut blocks = BTreeMap::new();
            for index in (0..core.length().max(BEYOND)).filter(|&index| core.has(index)) {
                let block = core.get_with(index, GetOptions::local()).await;
                if let Err(error) = &block {
                    assert!(error.is_corruption(), "block {index}: {error}");
                }
                blocks.insert(index, block.ok().map(|block| block.to_vec()));
            }
            Ok(Found {
                key: hex::encode(core.key().as_bytes()),
                length: core.length(),
                byte_length: core.byte_length(),
                blocks,
            })
        });
        Self { found, recovered }
    }
}

/// What Node finds.
#[derive(Debug)]
pub(super) enum Theirs {
    Found(Found),
    Refused,
    /// It threw what ended its process.
    Crashed,
}

impl Theirs {
    fn new(opened: &Value) -> Self {
        if opened["error"].is_string() {
            return Self::Refused;
        }
        let bytes = |block: &Value| block.as_str().map(|hex| hex::decode(hex).unwrap());
        let blocks = opened["blocks"].as_object().expect("blocks by their index");
        let blocks = blocks.iter();
        Self::Found(Found {
            key: opened["key"].as_str().expect("a key").to_owned(),
            length: opened["length"].as_u64().expect("a length"),
            byte_length: opened["byteLength"].as_f64().expect("a number") as u64,
            blocks: blocks
                .map(|(index, block)| (index.parse().unwrap(), bytes(block)))
                .collect(),
        })
    }
}

/// Node's library.
pub(super) struct Node {
    process: Process,
    _stage: Stage,
}

impl Node {
    pub(super) fn new() -> Self {
        let stage = Stage::new();
        let process = stage.node("open.js", [""; 0]);
        Self {
            process,
            _stage: stage,
        }
    }

    /// What `open.js` finds in each of these.
    pub(super) fn open(&mut self, all: &[Files]) -> Vec<Theirs> {
        let mut results = Vec::new();
        while results.len() < all.len() {
            let left: Vec<_> = all[results.len()..].iter().map(Files::to_json).collect();
            self.process.say(json!(left).to_string() + "\n");
            for _ in left {
                let Some(opened) = self.process.event_or_end("opened") else {
                    results.push(Theirs::Crashed);
                    *self = Self::new();
                    break;
                };
                results.push(Theirs::new(&opened));
            }
        }
        results
    }
}
