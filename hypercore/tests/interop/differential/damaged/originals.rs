//! Directories before they are damaged.

use std::path::Path;

use futures_lite::future::block_on;
use hypercore::storage::{FileName, Memory};
use hypercore::{Hypercore, KeyPair};
use serde_json::Value;

use crate::blocks::Spec;

/// The content of the six files, in the order of [`FileName::ALL`]. One without bytes is not there.
#[derive(Clone, Debug, PartialEq)]
pub(in super::super) struct Files(pub(super) [Vec<u8>; 6]);

impl Files {
    pub(super) fn get(&self, file: FileName) -> &[u8] {
        &self.0[file as usize]
    }

    pub(super) fn get_mut(&mut self, file: FileName) -> &mut Vec<u8> {
        &mut self.0[file as usize]
    }

    /// A copy that nobody else has.
    pub(in super::super) fn in_memory(&self) -> Memory {
        let memory = Memory::new();
        for file in FileName::ALL {
            if !self.get(file).is_empty() {
                memory.write(file, self.get(file));
            }
        }
        memory
    }

    pub(in super::super) fn of_memory(memory: &Memory) -> Self {
        Self(FileName::ALL.map(|file| memory.read(file)))
    }

    /// As the scripts of Node's side take them.
    pub(in super::super) fn to_json(&self) -> Value {
        let is_there = |file: &FileName| !self.get(*file).is_empty();
        let there = FileName::ALL.into_iter().filter(is_there);
        there
            .map(|file| (file.to_string(), hex::encode(self.get(file)).into()))
            .collect::<serde_json::Map<_, _>>()
            .into()
    }

    /// A node of `tree`; `None` if it is blank or behind the end.
    pub(super) fn node(&self, index: usize) -> Option<&[u8]> {
        let at = 32 + 40 * index;
        let record = self.get(FileName::Tree).get(at..at + 40)?;
        record.iter().any(|&byte| byte != 0).then_some(record)
    }
}

/// What Node wrote, in `storage/tests/vectors`.
const OF_NODE: [&str; 9] = [
    "batches",
    "cleared",
    "cleared-tail",
    "compat-signatures",
    "hash-only-clone-10",
    "sparse-clone-10",
    "static",
    "v6-blocks-12",
    "zero-length-blocks",
];

/// Small blocks, empty ones, and two that are hashed once.
const SPEC: Spec = Spec("5*11,1*0,8*30,1*600,2*0,20*7,1*700,2*20");

/// Logs that were written by both, cleared, cloned in part and not closed.
pub(super) fn all() -> Vec<Files> {
    let vectors = Path::new(env!("CARGO_MANIFEST_DIR")).join("../storage/tests/vectors");
    let read = |name: &str| {
        Files(FileName::ALL.map(|file| {
            let path = vectors.join(name).join(file.as_str());
            match std::fs::read(&path) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
                read => read.unwrap_or_else(|error| panic!("cannot read {path:?}: {error}")),
            }
        }))
    };
    OF_NODE.map(read).into_iter().chain(ours()).collect()
}

fn ours() -> [Files; 4] {
    block_on(async {
        let (memory, clone_memory) = (Memory::new(), Memory::new());
        let open = || Hypercore::options().key_pair(KeyPair::from_seed(&[7; 32]));
        let core = open().open_storage(memory.clone()).await.unwrap();
        let mut blocks = SPEC.blocks_from(0);
        for batch in [1, 3, 1, 1, 10, 2, 1, 21] {
            let batch = blocks.by_ref().take(batch);
            core.append_batch(batch).await.unwrap();
        }
        assert_eq!(core.length(), SPEC.length() as u64);
        // As a crash leaves it.
        let unclosed = Files::of_memory(&memory);

        let options = Hypercore::options().key(core.key()).sparse(true);
        let clone = options.open_storage(clone_memory.clone()).await.unwrap();
        for index in [39, 2, 5, 14, 15, 16, 30, 31] {
            let proof = core.proof(index).await.unwrap().unwrap();
            let block = core.get(index).await.unwrap();
            clone.put(index, Some(block), &proof).await.unwrap();
        }
        clone.close().await.unwrap();

        core.clear(5..9).await.unwrap();
        core.clear(17..18).await.unwrap();
        core.close().await.unwrap();
        let closed = Files::of_memory(&memory);
        let mut without_secret = closed.clone();
        without_secret.get_mut(FileName::SecretKey).clear();
        [
            closed,
            without_secret,
            unclosed,
            Files::of_memory(&clone_memory),
        ]
    })
}
