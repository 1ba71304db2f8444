//! What the side under test has when the peer comes.

use std::collections::{BTreeMap, BTreeSet};

use futures_lite::future::block_on;
use hypercore::merkle::NodeIndex;
use hypercore::storage::Memory;
use hypercore::wire::{Data, DataNode};
use hypercore::{Hypercore, KeyPair, ProofOptions};

use super::super::damaged::originals::Files;
use crate::blocks::Spec;

/// Small blocks, empty ones, and one that is not small.
const SPEC: Spec = Spec("4*11,1*0,3*30,1*600,2*0,5*7,1*70,4*20");

/// How they were appended: not every length is signed.
const BATCHES: [usize; 7] = [1, 3, 1, 3, 5, 1, 7];

/// The length at which [`Role::Behind`] was cloned.
const EARLIER: u64 = 8;

/// Who is under test.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Role {
    /// It has the secret key and all blocks.
    Writer,
    /// A clone of all blocks.
    Whole,
    /// A clone of some blocks, of the length that the log has.
    Partial,
    /// A clone of some blocks that knows nothing of the newer ones.
    Behind,
    /// A clone without anything.
    Empty,
}

impl Role {
    pub(super) const ALL: [Self; 5] = [
        Self::Writer,
        Self::Whole,
        Self::Partial,
        Self::Behind,
        Self::Empty,
    ];

    /// The blocks that it has.
    pub(super) fn blocks(self) -> Vec<u64> {
        match self {
            Self::Writer | Self::Whole => (0..SPEC.length() as u64).collect(),
            Self::Partial => vec![0, 3, 4, 8, 9, 16, 20],
            Self::Behind => vec![0, 2, 4, 5],
            Self::Empty => Vec::new(),
        }
    }
}

/// The log, and what each has of it.
pub(super) struct Logs {
    /// The writer, who proves.
    pub(super) log: Hypercore,
    pub(super) blocks: Vec<Vec<u8>>,
    /// All nodes of the tree, and all signatures.
    nodes: BTreeMap<u64, DataNode>,
    signatures: BTreeSet<[u8; 64]>,
    cores: Vec<(Files, Hypercore)>,
}

impl Logs {
    pub(super) fn new() -> Self {
        block_on(async {
            let memories = Role::ALL.map(|_| Memory::new());
            let pair = KeyPair::from_seed(&[7; 32]);
            let options = Hypercore::options().key_pair(pair);
            let log = options.open_storage(memories[0].clone()).await.unwrap();
            let mut blocks = SPEC.blocks_from(0);
            let mut cores = vec![log.clone()];
            for batch in BATCHES {
                log.append_batch(blocks.by_ref().take(batch)).await.unwrap();
                if log.length() == EARLIER {
                    cores.push(clone(&log, &memories[3], Role::Behind).await);
                }
            }
            assert_eq!(log.length(), SPEC.length() as u64);
            for (at, role) in [(1, Role::Whole), (2, Role::Partial), (4, Role::Empty)] {
                let core = clone(&log, &memories[at], role).await;
                cores.insert(at, core);
            }
            let mut files = Vec::new();
            for core in &cores {
                core.flush().await.unwrap();
            }
            for memory in memories {
                files.push(Files::of_memory(&memory));
            }
            let mut signatures = BTreeSet::new();
            for index in 0..log.length() {
                let found = log.signature(index).await.unwrap();
                signatures.extend(found.map(|(_, signature)| <[u8; 64]>::from(signature)));
            }
            let mut logs = Self {
                log,
                blocks: SPEC.blocks_from(0).collect(),
                nodes: BTreeMap::new(),
                signatures,
                cores: files.into_iter().zip(cores).collect(),
            };
            let answers = (0..logs.length()).map(|index| logs.answer(index, true, 0));
            let nodes = answers.flat_map(|data| data.nodes);
            logs.nodes = nodes.map(|node| (node.index, node)).collect();
            logs
        })
    }

    /// Whether the proof in an answer is of this log, or of what it was.
    pub(super) fn is_true(&self, data: &Data) -> bool {
        let is_node = |node: &DataNode| self.nodes.get(&node.index) == Some(node);
        let mut signature = data.signature.iter();
        data.nodes.iter().all(is_node) && signature.all(|it| self.signatures.contains(it))
    }

    /// The nodes of these indexes.
    pub(super) fn nodes(&self, indexes: impl Iterator<Item = u64>) -> Vec<DataNode> {
        indexes.map(|index| self.nodes[&index]).collect()
    }

    pub(super) fn length(&self) -> u64 {
        self.blocks.len() as u64
    }

    pub(super) fn files(&self, role: Role) -> &Files {
        &self.cores[role as usize].0
    }

    /// What `role` asks for with a request for this block, before it has got anything.
    pub(super) fn digest(&self, role: Role, index: u64) -> u64 {
        self.cores[role as usize].1.digest(index)
    }

    /// The true answer to a request.
    pub(super) fn answer(&self, index: u64, hash: bool, digest: u64) -> Data {
        let options = ProofOptions::default().digest(digest).hash(hash);
        let proof = block_on(self.log.proof_with(index, options)).unwrap();
        let proof = proof.expect("the log is whole");
        let nodes = proof.nodes.iter().map(|node| DataNode {
            index: node.index.get(),
            hash: node.hash,
            size: node.size,
        });
        Data {
            index,
            value: (!hash).then(|| self.blocks[index as usize].clone().into()),
            nodes: nodes.collect(),
            signature: proof.signature.map(Into::into),
        }
    }

    /// The true answer to a request for this block of somebody who has taken in another answer.
    pub(super) fn answer_after(&self, index: u64, before: &Data) -> Data {
        let mut data = self.answer(index, false, 0);
        let known = |node: &DataNode| {
            let is_above = NodeIndex::new(node.index).is_some_and(|node| {
                let blocks = node.left_span().block().unwrap_or(0)..node.end();
                blocks.contains(&before.index)
            });
            is_above || before.nodes.contains(node)
        };
        if let Some(at) = data.nodes.iter().position(known) {
            data.nodes.truncate(at);
            data.signature = None;
        }
        data
    }
}

async fn clone(log: &Hypercore, memory: &Memory, role: Role) -> Hypercore {
    let options = Hypercore::options().key(log.key()).sparse(true);
    let core = options.open_storage(memory.clone()).await.unwrap();
    for index in role.blocks() {
        let proof = log.proof(index).await.unwrap().unwrap();
        let block = log.get(index).await.unwrap();
        core.put(index, Some(block), &proof).await.unwrap();
    }
    core
}
