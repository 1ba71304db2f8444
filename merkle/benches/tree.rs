//! Hashes, signatures, appends and proofs: `cargo bench -p hypercore-merkle`.
//!
//! The names tell what each is held against: the functions of `blake2b_simd` and `ed25519-dalek`
//! alone, which is the least that the work can cost.

use std::collections::BTreeMap;
use std::hint::black_box;

use blake2b_simd::Params;
use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput};
use ed25519_dalek::{Signer, SigningKey};
use hypercore_merkle::{
    Block, KeyPair, Node, NodeIndex, NodeSet, Proof, ProofPlan, RemoteTree, Roots, Verifier,
    append, parent_hash, proof, verify,
};

/// The length of the log that is appended to and proven.
const LENGTH: u64 = 1_000_000;

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    hashes(&mut criterion);
    signatures(&mut criterion);
    appends(&mut criterion);
    proofs(&mut criterion);
    criterion.final_summary();
}

fn hashes(criterion: &mut Criterion) {
    let blake2b = |bytes: &[u8]| Params::new().hash_length(32).hash(bytes);
    for (size, name) in [(64 * 1024, "leaf of 64 KiB"), (64, "leaf of 64 bytes")] {
        let mut group = criterion.benchmark_group(name);
        group.throughput(Throughput::Bytes(64 * size as u64));
        let values: Vec<_> = (0..64).map(|n| Bytes::from(vec![n; size])).collect();
        group.bench_function("64 beside each other", |bench| {
            bench.iter_batched(|| values.clone(), Block::hash_many, BatchSize::SmallInput);
        });
        group.bench_function("64 one by one", |bench| {
            bench.iter(|| values.iter().cloned().map(Block::hash).collect::<Vec<_>>());
        });
        group.bench_function("64 by blake2b_simd alone", |bench| {
            bench.iter(|| {
                values
                    .iter()
                    .map(|value| blake2b(value))
                    .collect::<Vec<_>>()
            });
        });
        group.finish();
    }

    let mut group = criterion.benchmark_group("parent");
    let nodes = [0, 2].map(|index| Node {
        index: NodeIndex::new(index).expect("a small number"),
        size: 64,
        hash: [7; 32],
    });
    group.bench_function("ours", |bench| {
        bench.iter(|| parent_hash(black_box(&nodes[0]), &nodes[1]));
    });
    group.bench_function("73 bytes by blake2b_simd alone", |bench| {
        bench.iter(|| blake2b(black_box(&[7; 73])));
    });
    group.finish();
}

fn signatures(criterion: &mut Criterion) {
    let key_pair = key_pair();
    let head = Log::new().roots.head();
    let signature = key_pair.sign(&head);
    let verifier = Verifier::new(&key_pair.public_key());
    let dalek = SigningKey::from_bytes(&[1; 32]);
    let their_signature = dalek.sign(&head.signable());

    let mut group = criterion.benchmark_group("signature");
    group.bench_function("sign", |bench| {
        bench.iter(|| key_pair.sign(black_box(&head)))
    });
    group.bench_function("sign by ed25519-dalek alone", |bench| {
        bench.iter(|| dalek.sign(black_box(&head.signable())));
    });
    group.bench_function("verify", |bench| {
        bench.iter(|| assert!(verifier.verify(black_box(&head), &signature)));
    });
    group.bench_function("verify by ed25519-dalek alone", |bench| {
        bench.iter(|| dalek.verify(black_box(&head.signable()), &their_signature));
    });
    group.finish();
}

fn appends(criterion: &mut Criterion) {
    let (log, key_pair) = (Log::new(), key_pair());
    let mut group = criterion.benchmark_group("append to 1,000,000 blocks");
    for count in [1, 1000] {
        let blocks: Vec<_> = (0..count)
            .map(|_| Block::hash(vec![7; 64].into()))
            .collect();
        group.throughput(Throughput::Elements(count));
        group.bench_function(format!("{count} hashed, signed and checked"), |bench| {
            bench.iter_batched(
                || blocks.clone(),
                |blocks| append::append(&log.roots, blocks, &key_pair),
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

fn proofs(criterion: &mut Criterion) {
    let log = Log::new();
    let verifier = Verifier::new(&key_pair().public_key());
    let mut group = criterion.benchmark_group("proof of one of 1,000,000 blocks");
    group.bench_function("plan for a stranger", |bench| {
        bench.iter(|| log.plan(black_box(500_001), &mut RemoteTree::new()));
    });

    let proof = log.prove(500_001);
    let value = Block::hash(value(500_001));
    let nothing = Roots::new().head();
    group.bench_function("check by a stranger, the signature too", |bench| {
        bench.iter(|| {
            let plan = verify::plan(&Full(0), 500_001, true, &proof).expect("a proof");
            plan.check(&verifier, &nothing, Some(value.clone()), &proof, &[])
                .expect("a true one")
        });
    });
    group.finish();
}

fn key_pair() -> KeyPair {
    KeyPair::from_seed(&[1; 32])
}

fn value(block: u64) -> Bytes {
    Bytes::copy_from_slice(&block.to_le_bytes())
}

/// All nodes below a bound.
struct Full(u64);

impl NodeSet for Full {
    fn has(&self, node: NodeIndex) -> bool {
        node.right_span().get() < self.0
    }

    fn bound(&self) -> u64 {
        self.0
    }
}

/// A log of [`LENGTH`] blocks of eight bytes, in memory.
struct Log {
    roots: Roots,
    nodes: BTreeMap<NodeIndex, Node>,
}

impl Log {
    fn new() -> Self {
        let mut roots = Roots::new();
        let mut nodes = Vec::new();
        let mut finished = Vec::new();
        for block in 0..LENGTH {
            let leaf = Block::hash(value(block));
            roots
                .push(leaf.size(), *leaf.leaf_hash(), &mut finished)
                .expect("a short log");
            nodes.append(&mut finished);
        }
        Self {
            roots,
            nodes: nodes.into_iter().map(|node| (node.index, node)).collect(),
        }
    }

    fn plan(&self, block: u64, remote: &mut RemoteTree) -> ProofPlan {
        let leaf = NodeIndex::leaf(block).expect("a small number");
        proof::plan(&Full(2 * LENGTH), remote, leaf, 0, false).expect("the log has every block")
    }

    fn prove(&self, block: u64) -> Proof {
        let plan = self.plan(block, &mut RemoteTree::new());
        Proof {
            nodes: plan.nodes.iter().map(|index| self.nodes[index]).collect(),
            signature: Some(key_pair().sign(&self.roots.head())),
        }
    }
}
