//! A writer and a reader, each with its tree in memory.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use hypercore_merkle::append::append;
use hypercore_merkle::{
    Block, ChangeSet, Error, KeyPair, Node, NodeIndex, Proof, RemoteTree, Roots, Signature,
    Verifier, VerifyPlan, proof, tree_index, verify,
};
use serde::Deserialize;

pub(crate) fn vectors(name: &str) -> serde_json::Value {
    let path = format!("{}/tests/vectors/{name}", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    serde_json::from_slice(&text).expect("the vectors are JSON")
}

/// One field of the vectors, as any type that serde can make of it.
pub(crate) fn get<T: for<'de> Deserialize<'de>>(value: &serde_json::Value, key: &str) -> T {
    T::deserialize(&value[key]).unwrap_or_else(|error| panic!("{key}: {error}"))
}

pub(crate) fn unhex(text: &str) -> Vec<u8> {
    hex::decode(text).expect("hexadecimal")
}

pub(crate) fn unhex_array<const N: usize>(text: &str) -> [u8; N] {
    unhex(text).try_into().expect("the right length")
}

pub(crate) fn at(index: u64) -> NodeIndex {
    NodeIndex::new(index).expect("in range")
}

/// A node as the vectors write it.
#[derive(Deserialize)]
pub(crate) struct JsonNode {
    index: u64,
    size: u64,
    hash: String,
}

impl From<JsonNode> for Node {
    fn from(node: JsonNode) -> Self {
        Self {
            index: at(node.index),
            size: node.size,
            hash: unhex_array(&node.hash),
        }
    }
}

pub(crate) fn nodes(value: &serde_json::Value, key: &str) -> Vec<Node> {
    get::<Vec<JsonNode>>(value, key)
        .into_iter()
        .map(Node::from)
        .collect()
}

/// One end: what is stored of a log.
pub(crate) struct Log {
    pub(crate) verifier: Verifier,
    pub(crate) roots: Roots,
    pub(crate) present: BTreeSet<NodeIndex>,
    pub(crate) nodes: BTreeMap<NodeIndex, Node>,
    pub(crate) signatures: BTreeMap<u64, Signature>,
    pub(crate) blocks: BTreeMap<u64, Bytes>,
}

impl Log {
    pub(crate) fn new(verifier: Verifier) -> Self {
        Self {
            verifier,
            roots: Roots::new(),
            present: BTreeSet::new(),
            nodes: BTreeMap::new(),
            signatures: BTreeMap::new(),
            blocks: BTreeMap::new(),
        }
    }

    /// A log with these batches of blocks, one signature each.
    pub(crate) fn written(key_pair: &KeyPair, batches: &[Vec<Bytes>]) -> Self {
        let mut log = Self::new(Verifier::new(&key_pair.public_key()));
        for batch in batches {
            let blocks = Block::hash_many(batch.clone());
            let changes = append(&log.roots, blocks, key_pair).expect("a small batch");
            log.commit(changes);
        }
        log
    }

    /// A reader of the same log that has nothing yet.
    pub(crate) fn empty_reader(&self) -> Self {
        Self::new(self.verifier.clone())
    }

    /// A reader that has every block.
    pub(crate) fn full_reader(&self) -> Self {
        let mut reader = self.empty_reader();
        for (&block, value) in &self.blocks {
            let proof = self.full_proof(block, false);
            reader.put(block, Some(value.clone()), &proof).unwrap();
        }
        reader
    }

    pub(crate) fn commit(&mut self, changes: ChangeSet) {
        for node in changes.nodes() {
            self.nodes.insert(node.index, *node);
            tree_index::insert(&mut self.present, node.index);
        }
        if let Some((length, signature)) = changes.signature() {
            self.signatures.insert(length, signature.clone());
        }
        if let Some(roots) = changes
            .roots()
            .filter(|roots| roots.length() > self.roots.length())
        {
            self.roots = roots.clone();
        }
        let start = changes.start_block();
        for (block, number) in changes.into_blocks().into_iter().zip(start..) {
            self.blocks.insert(number, block.into_value());
        }
    }

    /// The proof for a reader that knows nothing, with the leaf if there is to be no value.
    pub(crate) fn full_proof(&self, block: u64, with_leaf: bool) -> Proof {
        self.proof(&mut RemoteTree::new(), block, 0, with_leaf)
    }

    pub(crate) fn proof(
        &self,
        remote: &mut RemoteTree,
        block: u64,
        digest: u64,
        with_leaf: bool,
    ) -> Proof {
        let plan = proof::plan(&self.present, remote, at(2 * block), digest, with_leaf)
            .expect("the block is there");
        Proof {
            nodes: plan.nodes.iter().map(|index| self.nodes[index]).collect(),
            signature: self.signatures.get(&(plan.verified_by / 2)).cloned(),
        }
    }

    pub(crate) fn check(
        &self,
        block: u64,
        value: Option<Bytes>,
        proof: &Proof,
    ) -> Result<ChangeSet, Error> {
        let value = value.map(Block::hash);
        let plan = verify::plan(&self.present, block, value.is_some(), proof)?;
        let changes = self.carry_out(plan, value.clone(), proof)?;
        if value.is_some() {
            // Where the block stands may be known before, which takes fewer nodes and changes nothing.
            let offset = changes.byte_offset();
            let plan = verify::plan_at(&self.present, block, true, Some(offset), proof)?;
            let same = self.carry_out(plan, value, proof)?;
            let parts = |changes: &ChangeSet| {
                let (head, nodes) = (changes.head().copied(), changes.nodes().to_vec());
                (changes.byte_offset(), head, nodes)
            };
            assert_eq!(parts(&same), parts(&changes), "block {block}");
        }
        Ok(changes)
    }

    fn carry_out(
        &self,
        plan: VerifyPlan,
        value: Option<Block>,
        proof: &Proof,
    ) -> Result<ChangeSet, Error> {
        let local: Vec<Node> = plan.nodes().iter().map(|index| self.nodes[index]).collect();
        plan.check(&self.verifier, &self.roots.head(), value, proof, &local)
    }

    /// Checks and commits.
    pub(crate) fn put(
        &mut self,
        block: u64,
        value: Option<Bytes>,
        proof: &Proof,
    ) -> Result<(), Error> {
        let changes = self.check(block, value, proof)?;
        self.commit(changes);
        Ok(())
    }

    pub(crate) fn present_numbers(&self) -> Vec<u64> {
        self.present.iter().map(|index| index.get()).collect()
    }
}

/// A log of `length` blocks of different sizes, one batch each.
pub(crate) fn sample(length: u64) -> Log {
    let values = (0..length).map(|block| vec![Bytes::from(format!("{block}").repeat(3))]);
    Log::written(&KeyPair::from_seed(&[7; 32]), &values.collect::<Vec<_>>())
}
