//! Bodies of the fuzz targets. `cargo test` runs them too, on the committed corpus and on
//! generated input.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::LazyLock;

use bytes::Bytes;
use ed25519_dalek::{Signer as _, SigningKey};

use crate::append::{append, append_with, unsigned};
use crate::reference;
use crate::{
    Block, ChangeSet, Error, KeyPair, Node, NodeIndex, Proof, PublicKey, RemoteTree, Roots, Seek,
    SeekStep, Signature, Verifier, VerifyPlan, full_roots, proof, tree_index, verify,
};

/// Drives a reader with proofs, honest and forged, of one fixed log.
///
/// The input is a list of operations of six bytes each: what to do, the block, the length the
/// writer has reached, and three bytes that say how to forge, or which blocks are asked for at the
/// same time. The uppermost bit of all makes the log a static one.
///
/// * An honest proof is always accepted: also of a peer that remembers all digests, as Hypercore 9
///   does, and those of many requests that counted on each other's answers.
/// * Whatever is accepted says what the naive recursive tree says.
/// * All that is known is stored, and its length is that of the newest head seen.
/// * A byte is found where it is, as far as the tree is known.
pub fn merkle_verify(data: &[u8]) {
    let is_static = data.first().is_some_and(|kind| kind & 128 != 0);
    let mut reader = Reader::of(if is_static { &STATIC } else { &WRITER });
    // Every operation costs signature checks.
    for operation in data.chunks_exact(6).take(32) {
        reader.operate(operation.try_into().expect("six bytes"));
    }
}

/// Appends batches, and proves their blocks to a reader who believes nothing.
///
/// The input begins with the number of batches and, for each, the number of its blocks and their
/// sizes; then come pairs of a block and a length to prove it for, with five bits that say how.
///
/// * The nodes and roots are those of the naive recursive tree, for a static log as well.
/// * Every honest proof is accepted, by a new reader and by one who knows what came before, and
///   says what the tree says.
pub fn merkle_ops(data: &[u8]) {
    let mut input = data.iter().copied();
    let mut next = |limit: u8| input.next().map_or(0, |byte| byte % limit);
    let (mut values, mut batches) = (Vec::new(), Vec::new());
    for _ in 0..next(8) {
        let start = values.len();
        for _ in 0..next(8) {
            let value = vec![values.len() as u8; usize::from(next(70))];
            values.push(Bytes::from(value));
        }
        batches.push(start..values.len());
    }
    let writer = Writer::new(values, &batches);
    let fixed = Writer::of_static(writer.values.clone());
    let (mut known, mut known_fixed) = (Reader::of(&writer), Reader::of(&fixed));
    // Every proof costs a signature check.
    for _ in 0..24 {
        let [block, length, kind] = [next(255), next(255), next(32)];
        if writer.lengths.is_empty() {
            return;
        }
        // Some of a peer with memory, some many at once.
        let honest = [
            kind & 1 | kind << 2 & 0x30,
            block,
            length,
            block,
            length,
            kind,
        ];
        let reader = if kind & 16 == 0 {
            &mut known
        } else {
            &mut known_fixed
        };
        if kind & 2 == 0 {
            reader.operate(honest);
        } else {
            Reader::of(reader.writer).operate(honest);
        }
    }
}

/// A log with all its nodes, by the definition.
struct Writer {
    verifier: Verifier,
    values: Vec<Bytes>,
    nodes: BTreeMap<NodeIndex, Node>,
    /// Those that can be proven: signed, or that of a static log.
    lengths: Vec<u64>,
    signatures: BTreeMap<u64, Signature>,
}

/// Of 21 blocks.
fn values() -> Vec<Bytes> {
    let values = (0..21_u8).map(|n| vec![n; usize::from(n * 7 % 5)].into());
    values.collect()
}

static STATIC: LazyLock<Writer> = LazyLock::new(|| Writer::of_static(values()));

static WRITER: LazyLock<Writer> = LazyLock::new(|| {
    let ends = [1, 2, 3, 5, 6, 8, 11, 12, 16, 17, 20, 21];
    let starts = std::iter::once(0).chain(ends);
    let batches: Vec<_> = starts.zip(ends).map(|(start, end)| start..end).collect();
    Writer::new(values(), &batches)
});

impl Writer {
    /// Appends `values` in `batches`, and compares with the definition. Every third batch is signed
    /// as writers before Hypercore 9 did it.
    fn new(values: Vec<Bytes>, batches: &[Range<usize>]) -> Self {
        let key_pair = KeyPair::from_seed(&SEED);
        let verifier = Verifier::new(&key_pair.public_key());
        let (mut roots, mut appended) = (Roots::new(), Vec::new());
        let mut signatures = BTreeMap::new();
        for (number, batch) in batches.iter().enumerate() {
            let blocks = Block::hash_many(values[batch.clone()].to_vec());
            let changes = if number % 3 == 2 {
                append_with::<Error>(&roots, blocks, &verifier, |head| {
                    let signature = SigningKey::from_bytes(&SEED).sign(&head.hash);
                    Ok(Signature::from(signature.to_bytes()))
                })
            } else {
                append(&roots, blocks, &key_pair)
            };
            let changes = changes.expect("a small batch");
            appended.extend_from_slice(changes.nodes());
            if let Some(new) = changes.roots() {
                roots = new.clone();
            }
            if let Some((length, signature)) = changes.signature() {
                signatures.insert(length, signature.clone());
            }
        }
        let nodes = as_defined(&values, &roots, appended);
        Self {
            verifier,
            values,
            nodes,
            lengths: signatures.keys().copied().collect(),
            signatures,
        }
    }

    /// Appends all `values` to a log without signatures, whose key is its hash.
    fn of_static(values: Vec<Bytes>) -> Self {
        let blocks = Block::hash_many(values.clone());
        let changes = unsigned(&Roots::new(), blocks).expect("a small batch");
        let roots = changes.roots().cloned().unwrap_or_default();
        let nodes = as_defined(&values, &roots, changes.nodes().to_vec());
        Self {
            verifier: Verifier::new(&PublicKey::from(roots.head().hash)),
            lengths: (!values.is_empty())
                .then_some(values.len() as u64)
                .into_iter()
                .collect(),
            values,
            nodes,
            signatures: BTreeMap::new(),
        }
    }

    /// What the writer had when the log was `length` blocks long.
    fn present(&self, length: u64) -> BTreeSet<NodeIndex> {
        self.nodes
            .keys()
            .copied()
            .filter(|node| node.end() <= length)
            .collect()
    }

    /// The proof that an honest peer gives, which may know something of the reader.
    fn proof(
        &self,
        length: u64,
        block: u64,
        digest: u64,
        with_leaf: bool,
        remote: Option<&mut RemoteTree>,
    ) -> Option<Proof> {
        let leaf = NodeIndex::leaf(block)?;
        let present = self.present(length);
        let by_digest = proof::plan_by_digest(&present, leaf, digest, with_leaf);
        let plan = proof::plan(&present, &mut RemoteTree::new(), leaf, digest, with_leaf);
        assert_eq!(plan, by_digest);
        let plan = match remote {
            Some(remote) => proof::plan(&present, remote, leaf, digest, with_leaf),
            None => by_digest,
        }?;
        Some(Proof {
            nodes: plan
                .nodes
                .iter()
                .filter_map(|node| self.nodes.get(node))
                .copied()
                .collect(),
            signature: self.signatures.get(&(plan.verified_by / 2)).cloned(),
        })
    }

    /// Everything in a change set must be true.
    fn assert_true(&self, block: u64, changes: &ChangeSet) {
        assert_eq!(changes.start_block(), block);
        for node in changes.nodes() {
            assert_eq!(Some(node), self.nodes.get(&node.index));
        }
        if let [a, b] = changes.unbound() {
            assert!(changes.blocks().is_empty() && a.index.is_leaf());
            assert_eq!(a.hash, self.nodes[&a.index].hash);
            assert_eq!(b.hash, self.nodes[&b.index].hash);
            assert_eq!(a.size + b.size, self.nodes[&a.index.parent()].size);
            assert_eq!(a.index.sibling(), b.index);
        } else {
            assert!(changes.unbound().is_empty());
        }
        let block = usize::try_from(block).expect("a small log");
        if let [value] = changes.blocks() {
            assert_eq!(value.value(), &self.values[block]);
            let before: usize = self.values[..block].iter().map(Bytes::len).sum();
            assert_eq!(changes.byte_offset(), before as u64);
        }
        if let Some(head) = changes.head() {
            assert!(self.lengths.contains(&head.length));
            let signature = self.signatures.get(&head.length);
            let signature = signature.map(|signature| (head.length, signature));
            assert_eq!(changes.signature(), signature);
            let roots: Vec<Node> = full_roots(head.length)
                .map(|root| self.nodes[&root])
                .collect();
            assert_eq!(changes.roots().map(Roots::nodes), Some(&roots[..]));
            assert_eq!(head.hash, reference::tree_hash(&roots));
        }
    }
}

const SEED: [u8; 32] = [5; 32];

/// The nodes of the log of these values, which were `appended` in this order.
fn as_defined(values: &[Bytes], roots: &Roots, appended: Vec<Node>) -> BTreeMap<NodeIndex, Node> {
    let log: Vec<_> = values.iter().map(|value| &value[..]).collect();
    let (expected, nodes) = reference::tree(&log);
    assert_eq!((roots.nodes(), &appended), (&expected[..], &nodes));
    assert_eq!(roots.head().hash, reference::tree_hash(&expected));
    nodes.into_iter().map(|node| (node.index, node)).collect()
}

struct Reader<'a> {
    writer: &'a Writer,
    present: BTreeSet<NodeIndex>,
    nodes: BTreeMap<NodeIndex, Node>,
    roots: Roots,
    /// What a peer remembers of the honest digests it was sent.
    told: RemoteTree,
}

impl<'a> Reader<'a> {
    fn of(writer: &'a Writer) -> Self {
        Self {
            writer,
            present: BTreeSet::new(),
            nodes: BTreeMap::new(),
            roots: Roots::default(),
            told: RemoteTree::new(),
        }
    }

    fn operate(&mut self, [kind, block, length, how, a, b]: [u8; 6]) {
        let lengths = &self.writer.lengths;
        let length = lengths[usize::from(length) % lengths.len()];
        let block = u64::from(block) % length;
        if kind & 32 == 0 {
            self.ask_one(kind, block, length, [how, a, b]);
        } else {
            self.ask_many(block, length, [how, a, b]);
        }
        self.seek(u64::from(u16::from_le_bytes([a, b])));
    }

    fn ask_one(&mut self, kind: u8, mut block: u64, length: u64, [how, a, b]: [u8; 3]) {
        let writer = self.writer;
        let leaf = NodeIndex::leaf(block).expect("a small log");
        let has_value = kind & 1 == 0;
        let digest = match kind >> 1 & 3 {
            0 | 1 => tree_index::digest(&self.present, leaf),
            2 => 0,
            _ => u64::from_le_bytes([a, b, how, 0, 0, 0, 0, a]),
        };
        let honest_digest = kind >> 1 & 3 != 3;
        let remote = Some(&mut self.told).filter(|_| honest_digest && kind & 16 != 0);
        let mut proof = writer
            .proof(length, block, digest, !has_value, remote)
            .expect("the writer has the block");
        let mut value = has_value.then(|| writer.values[block as usize].clone());
        let forged = kind & 8 != 0;
        if forged {
            forge(writer, &mut proof, &mut value, &mut block, [how, a, b]);
        }
        match self.check(block, value, &proof) {
            Ok(changes) => {
                writer.assert_true(block, &changes);
                self.commit(&changes);
            }
            Err(error) if forged || !honest_digest => {
                assert!(error.is_peer_fault(), "{error}");
            }
            Err(error) => panic!("block {block} of {length} refused: {error}\n{proof:?}"),
        }
    }

    /// Asks for up to eight blocks before the first is answered. Each digest of a value counts on the
    /// answers to those before; some requests between are of a hash alone. The log may grow meanwhile.
    fn ask_many(&mut self, first: u64, length: u64, [how, step, kinds]: [u8; 3]) {
        let writer = self.writer;
        let mut ahead = RemoteTree::new();
        let requests: Vec<_> = (0..1 + u64::from(how % 8))
            .map(|number| {
                let block = (first + number * u64::from(step)) % length;
                let leaf = NodeIndex::leaf(block).expect("a small log");
                let has_value = number == 0 || kinds >> number & 1 == 0;
                let digest = if has_value {
                    tree_index::digest_ahead(&self.present, &mut ahead, leaf)
                } else {
                    tree_index::digest(&self.present, leaf)
                };
                (block, has_value, digest)
            })
            .collect();
        let grows = kinds & 1 != 0;
        let mut lengths = writer.lengths.iter().filter(|&&now| now >= length);
        let mut now = length;
        for (block, has_value, digest) in requests {
            if grows {
                now = lengths.next().copied().unwrap_or(now);
            }
            let proof = writer.proof(now, block, digest, !has_value, None);
            let proof = proof.expect("the writer has the block");
            let value = has_value.then(|| writer.values[block as usize].clone());
            let changes = self.check(block, value, &proof).unwrap_or_else(|error| {
                panic!("block {block} of {now} refused: {error}\n{digest:b} {proof:?}")
            });
            writer.assert_true(block, &changes);
            self.commit(&changes);
        }
    }

    /// Looks for a byte of the log, or one or two after it.
    fn seek(&self, byte: u64) {
        let length = self.roots.length();
        let byte = byte % (self.roots.byte_length() + 2);
        let mut seek = Seek::new(length, byte);
        let step = loop {
            match seek.step(&self.present) {
                SeekStep::Read(node) => seek.supply(self.nodes[&node]),
                step => break step,
            }
        };
        let mut start = 0;
        let sizes = self.writer.values[..length as usize].iter();
        let expected = sizes.map(|value| value.len() as u64).position(|size| {
            start += size;
            byte < start
        });
        let before = |block: u64| -> u64 {
            let values = &self.writer.values[..block as usize];
            values.iter().map(|value| value.len() as u64).sum()
        };
        match step {
            SeekStep::Found {
                block: 0,
                offset: 0,
            } if byte == 0 => {}
            SeekStep::Found { block, offset } => {
                assert_eq!(Some(block as usize), expected);
                assert_eq!(offset, byte - before(block));
            }
            SeekStep::Below { node, offset } => {
                let below = node.left_span().get() / 2..node.end();
                assert!(expected.is_some_and(|block| below.contains(&(block as u64))));
                assert!(offset <= byte - before(below.start));
                // Where the left half is known it tells in which one the byte is.
                let (left, _) = node.children().expect("a leaf would be found");
                assert!(!self.present.contains(&left));
            }
            step => {
                assert_eq!(step, SeekStep::OutOfBounds);
                assert!(byte >= self.roots.byte_length());
            }
        }
    }

    fn check(&self, block: u64, value: Option<Bytes>, proof: &Proof) -> Result<ChangeSet, Error> {
        let value = value.map(Block::hash);
        let has_value = value.is_some();
        let plan = verify::plan(&self.present, block, has_value, proof)?;
        let changes = self.carry_out(plan, value.clone(), proof)?;
        // To know before where the block stands saves work, and changes nothing.
        let offset = Some(changes.byte_offset()).filter(|_| has_value);
        let plan = verify::plan_at(&self.present, block, has_value, offset, proof)?;
        let same = self.carry_out(plan, value, proof)?;
        assert_eq!(same.nodes(), changes.nodes());
        assert_eq!(same.head(), changes.head());
        Ok(changes)
    }

    fn carry_out(
        &self,
        plan: VerifyPlan,
        value: Option<Block>,
        proof: &Proof,
    ) -> Result<ChangeSet, Error> {
        let local: Vec<Node> = plan.nodes().iter().map(|index| self.nodes[index]).collect();
        let (verifier, head) = (&self.writer.verifier, self.roots.head());
        plan.check(verifier, &head, value, proof, &local)
    }

    fn commit(&mut self, changes: &ChangeSet) {
        for node in changes.nodes() {
            self.nodes.insert(node.index, *node);
            tree_index::insert(&mut self.present, node.index);
        }
        if let Some(roots) = changes
            .roots()
            .filter(|roots| roots.length() > self.roots.length())
        {
            self.roots = roots.clone();
        }
        assert!(
            self.present.iter().eq(self.nodes.keys()),
            "known but not stored"
        );
        assert_eq!(tree_index::length(&self.present), self.roots.length());
    }
}

/// One change to an honest answer.
fn forge(
    writer: &Writer,
    proof: &mut Proof,
    value: &mut Option<Bytes>,
    block: &mut u64,
    [how, a, b]: [u8; 3],
) {
    let count = proof.nodes.len();
    let at = |byte: u8| usize::from(byte) % count.max(1);
    let (a_at, b_at) = (at(a), at(b));
    match how % 16 {
        0 => proof.signature = None,
        1 => proof.signature = writer.signatures.get(&u64::from(a)).cloned(),
        2 => *value = Some(vec![b; usize::from(a % 8)].into()),
        3 => *block = u64::from(a),
        4 => *block = crate::MAX_LENGTH - u64::from(a),
        5 => {
            // The true roots alone, or behind whatever else.
            let length = u64::from(a % 22);
            proof.nodes.truncate(usize::from(b % 4));
            proof
                .nodes
                .extend(full_roots(length).filter_map(|root| writer.nodes.get(&root)));
            proof.signature = writer.signatures.get(&length).cloned();
        }
        6 => proof
            .nodes
            .extend(writer.nodes.values().nth(usize::from(a))),
        _ if count == 0 => {}
        7 => proof.nodes[a_at].hash[usize::from(b % 32)] ^= 1 << (b / 32),
        8 => proof.nodes[a_at].size = proof.nodes[a_at].size.wrapping_add_signed((b as i8).into()),
        9 => proof.nodes[a_at].size = u64::MAX >> (b % 64),
        10 => proof.nodes[a_at].index = NodeIndex::new(b.into()).expect("small"),
        11 => {
            proof.nodes[a_at].index = NodeIndex::new((1 << 53) - 1 - u64::from(b)).expect("below")
        }
        12 => drop(proof.nodes.remove(a_at)),
        13 => proof.nodes.swap(a_at, b_at),
        14 => proof.nodes.insert(b_at, proof.nodes[a_at]),
        _ => {
            // Bytes shifted from one node to another.
            let shift = u64::from(a % 8).min(proof.nodes[a_at].size);
            proof.nodes[a_at].size -= shift;
            proof.nodes[b_at].size += shift;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn replay(target: &str, body: fn(&[u8])) {
        let directory = format!("{}/../fuzz/corpus/{target}", env!("CARGO_MANIFEST_DIR"));
        let mut count = 0;
        for file in std::fs::read_dir(&directory).expect(&directory) {
            body(&std::fs::read(file.expect("a file").path()).expect("a file"));
            count += 1;
        }
        assert!(count > 0, "{directory} is empty");
    }

    #[test]
    fn the_corpus_holds() {
        replay("merkle_verify", merkle_verify);
        replay("merkle_ops", merkle_ops);
    }

    /// So many cases, or as many as `HYPERCORE_MODEL_CASES` says.
    fn config(cases: u32) -> ProptestConfig {
        let wanted = std::env::var("HYPERCORE_MODEL_CASES").map(|cases| cases.parse());
        ProptestConfig::with_cases(wanted.map_or(cases, |cases| cases.expect("a number")))
    }

    proptest! {
        #![proptest_config(config(3000))]

        #[test]
        fn any_operations(data in vec(any::<u8>(), 0..=16 * 6)) {
            merkle_verify(&data);
        }

        #[test]
        fn any_appends(data in vec(any::<u8>(), 0..100)) {
            merkle_ops(&data);
        }
    }

    proptest! {
        #![proptest_config(config(300))]

        #[test]
        fn any_batches(batches in vec(vec(vec(any::<u8>(), 0..300), 0..20), 0..8)) {
            let key_pair = KeyPair::from_seed(&[6; 32]);
            let mut roots = Roots::new();
            let (mut nodes, mut log) = (Vec::new(), Vec::new());
            for batch in &batches {
                let blocks = Block::hash_many(batch.iter().cloned().map(Bytes::from).collect());
                let changes = append(&roots, blocks, &key_pair).unwrap();
                log.extend(batch.iter().map(Vec::as_slice));
                nodes.extend_from_slice(changes.nodes());
                if let Some(new) = changes.roots() {
                    roots = new.clone();
                }
                let (expected, _) = reference::tree(&log);
                prop_assert_eq!(roots.nodes(), &expected);
                prop_assert_eq!(roots.head().hash, reference::tree_hash(&expected));
                let size: usize = log.iter().map(|value| value.len()).sum();
                prop_assert_eq!(roots.byte_length(), size as u64);
            }
            // The reference finishes small trees within one subtree, appending across batches:
            // the same nodes in the same order.
            prop_assert_eq!(nodes, reference::tree(&log).1);
        }
    }
}
