//! Forgeries. Each test names the check that stops it.

use bytes::Bytes;
use hypercore_merkle::append::append;
use hypercore_merkle::verify::{self, MAX_PROOF_NODES};
use hypercore_merkle::{
    Block, Error, KeyPair, MAX_BYTE_LENGTH, MAX_LENGTH, Node, NodeIndex, Proof, Roots, full_roots,
};

use crate::support::{Log, at, sample};

fn evil() -> Option<Bytes> {
    Some(Bytes::from_static(b"evil"))
}

/// The true roots with their true signature, which anybody can get.
fn roots_only(log: &Log) -> Proof {
    Proof {
        nodes: log.roots.nodes().to_vec(),
        signature: log.signatures.get(&log.roots.length()).cloned(),
    }
}

/// `verify.rs` collect_roots: the climb must end at a root.
#[test]
fn true_roots_do_not_vouch_for_a_block_below_them() {
    for length in 2..20 {
        let log = sample(length);
        for block in 0..length {
            if full_roots(length).any(|root| root == at(2 * block)) {
                continue;
            }
            for value in [Some(Bytes::new()), evil()] {
                let refused = log.empty_reader().check(block, value, &roots_only(&log));
                assert!(
                    matches!(refused, Err(Error::NotARoot { node, .. }) if node == at(2 * block)),
                    "{length} {block}: {refused:?}"
                );
            }
        }
    }
}

/// The same against a reader that already has hashes: the known sibling leads up one step.
#[test]
fn true_roots_do_not_vouch_for_a_block_beside_known_leaves() {
    let log = sample(11);
    for block in 0..10 {
        let mut reader = log.empty_reader();
        // All roots and, unlike any honest reader, the sibling leaf without the parent.
        let sibling = at(2 * block).sibling();
        for index in log
            .roots
            .nodes()
            .iter()
            .map(|node| node.index)
            .chain([sibling])
        {
            reader.present.insert(index);
            reader.nodes.insert(index, log.nodes[&index]);
        }
        for mut proof in [roots_only(&log), Proof::default()] {
            let refused = reader.check(block, evil(), &proof);
            assert!(refused.is_err(), "{block}: {refused:?}");
            proof.nodes.insert(0, log.nodes[&sibling]);
            let refused = reader.check(block, evil(), &proof);
            assert!(refused.is_err(), "{block}: {refused:?}");
        }
    }
}

#[test]
fn a_known_leaf_takes_no_other_content() {
    let log = sample(11);
    let reader = log.full_reader();
    for block in 0..11 {
        let same_size = Some(Bytes::from(vec![b'x'; log.blocks[&block].len()]));
        let full = log.full_proof(block, false);
        for proof in [roots_only(&log), full, Proof::default()] {
            assert!(
                reader.check(block, same_size.clone(), &proof).is_err(),
                "{block}"
            );
            assert!(
                reader.check(block, Some(Bytes::new()), &proof).is_err(),
                "{block}"
            );
        }
    }
}

/// `verify.rs` take_leaf: an answer without value must be about the block that was asked for.
#[test]
fn a_leaf_must_be_the_one_asked_for() {
    let log = sample(11);
    for block in 0..11 {
        for other in 0..11 {
            let answer = log
                .empty_reader()
                .check(block, None, &log.full_proof(other, true));
            match answer {
                Ok(changes) => assert_eq!((other, changes.leaf()), (block, at(2 * block))),
                Err(Error::MissingLeaf { leaf }) => {
                    assert!(other != block && leaf == at(2 * block))
                }
                Err(other) => panic!("{other}"),
            }
        }
        let nothing = log.empty_reader().check(block, None, &Proof::default());
        assert!(matches!(nothing, Err(Error::MissingLeaf { .. })));
    }
}

/// A forged leaf in front of true roots.
#[test]
fn true_roots_do_not_vouch_for_a_leaf() {
    let log = sample(11);
    let mut proof = roots_only(&log);
    proof.nodes.insert(
        0,
        Node {
            index: at(8),
            size: 3,
            hash: [0xee; 32],
        },
    );
    let refused = log.empty_reader().check(4, None, &proof);
    assert!(
        matches!(refused, Err(Error::NotARoot { .. })),
        "{refused:?}"
    );
}

/// `verify.rs` unbound: the sum of two leaf sizes is certain, how it is split is not.
#[test]
fn shifted_sizes_are_never_written() {
    let log = sample(11);
    for block in 0..11_u64 {
        let mut proof = log.full_proof(block, true);
        let root = full_roots(11).any(|root| root == at(2 * block));
        if root {
            proof.nodes[0].size += 1;
            let refused = log.empty_reader().check(block, None, &proof);
            assert!(
                matches!(refused, Err(Error::BadSignature { .. })),
                "a root is bound"
            );
            continue;
        }
        proof.nodes[0].size -= 1;
        proof.nodes[1].size += 1;
        // Nothing here can tell this from the truth ...
        let changes = log
            .empty_reader()
            .check(block, None, &proof)
            .expect("a true sum");
        // ... so the two are kept apart, and all that is written is true.
        assert_eq!(changes.unbound(), &proof.nodes[..2]);
        for node in changes.nodes() {
            assert_eq!(*node, log.nodes[&node.index]);
        }
        // With the value, or beside a leaf that is known, the same lie is found.
        let value = Some(log.blocks[&block].clone());
        let mut with_value = proof.clone();
        with_value.nodes.remove(0);
        assert!(log.empty_reader().check(block, value, &with_value).is_err());

        // To a reader that knows both leaves the lie is nothing new either.
        let mut reader = log.empty_reader();
        let other = block ^ 1;
        reader
            .put(
                other,
                Some(log.blocks[&other].clone()),
                &log.full_proof(other, false),
            )
            .unwrap();
        let changes = reader.check(block, None, &proof).expect("a true sum");
        assert_eq!(changes.unbound(), &proof.nodes[..2]);
        let honest = log.full_proof(block, true);
        let changes = reader.check(block, None, &honest).unwrap();
        assert!(changes.nodes().is_empty() && changes.unbound().is_empty());
    }
}

/// `verify.rs` is_trusted compares sizes too.
#[test]
fn a_trusted_leaf_has_a_size() {
    let log = sample(4);
    let mut reader = log.empty_reader();
    reader
        .put(1, Some(log.blocks[&1].clone()), &log.full_proof(1, false))
        .unwrap();
    let mut leaf = log.nodes[&at(2)];
    let known = reader
        .check(
            1,
            None,
            &Proof {
                nodes: vec![leaf],
                signature: None,
            },
        )
        .unwrap();
    assert!(known.nodes().is_empty() && known.head().is_none());
    leaf.size += 1;
    let refused = reader.check(
        1,
        None,
        &Proof {
            nodes: vec![leaf],
            signature: None,
        },
    );
    assert!(matches!(refused, Err(Error::HashMismatch { node }) if node == at(2)));
}

/// A leaf between a local sibling and a trusted parent is bound.
#[test]
fn a_local_sibling_binds_a_leaf() {
    let log = sample(2);
    let mut reader = log.empty_reader();
    for index in [at(0), at(1)] {
        reader.present.insert(index);
        reader.nodes.insert(index, log.nodes[&index]);
    }
    let leaf = log.nodes[&at(2)];
    let changes = reader
        .check(
            1,
            None,
            &Proof {
                nodes: vec![leaf],
                signature: None,
            },
        )
        .unwrap();
    assert_eq!(changes.nodes(), [leaf]);
    let shifted = Node {
        size: leaf.size + 1,
        ..leaf
    };
    assert!(
        reader
            .check(
                1,
                None,
                &Proof {
                    nodes: vec![shifted],
                    signature: None
                }
            )
            .is_err()
    );
}

#[test]
fn sizes_and_positions_are_bounded() {
    let log = sample(11);
    for size in [MAX_BYTE_LENGTH, MAX_BYTE_LENGTH + 1, u64::MAX] {
        for n in 0..5 {
            let mut proof = log.full_proof(4, false);
            proof.nodes[n].size = size;
            let refused = log
                .empty_reader()
                .check(4, Some(log.blocks[&4].clone()), &proof);
            assert!(
                matches!(refused, Err(Error::SizeOutOfRange { .. })),
                "{size} in node {n}: {refused:?}"
            );
        }
    }
    let last = NodeIndex::new(2 * MAX_LENGTH - 1).unwrap();
    for index in [last, last.sibling(), last.parent()] {
        let mut proof = log.full_proof(4, false);
        proof.nodes.push(Node {
            index,
            size: 0,
            hash: [0; 32],
        });
        let refused = log.empty_reader().check(4, evil(), &proof);
        assert!(matches!(refused, Err(Error::NodeOutOfRange { node }) if node == index));
    }
    let far = log
        .empty_reader()
        .check(MAX_LENGTH, evil(), &Proof::default());
    assert!(matches!(
        far,
        Err(Error::BlockOutOfRange { block: MAX_LENGTH })
    ));
    let last = log
        .empty_reader()
        .check(MAX_LENGTH - 1, evil(), &Proof::default());
    assert!(matches!(
        last,
        Err(Error::NotARoot {
            length: MAX_LENGTH,
            ..
        })
    ));

    let node = log.nodes[&at(0)];
    let proof = Proof {
        nodes: vec![node; MAX_PROOF_NODES + 1],
        signature: None,
    };
    let refused = log.empty_reader().check(4, evil(), &proof);
    assert!(matches!(
        refused,
        Err(Error::TooManyNodes {
            count: 129,
            max: 128
        })
    ));
}

#[test]
fn a_signed_log_stays_signed() {
    let log = sample(11);
    let older = sample(4);
    let mut reader = log.empty_reader();
    reader
        .put(0, Some(log.blocks[&0].clone()), &older.full_proof(0, false))
        .unwrap();
    let mut proof = log.full_proof(9, false);
    proof.signature = None;
    let refused = reader.check(9, Some(log.blocks[&9].clone()), &proof);
    assert!(matches!(
        refused,
        Err(Error::MissingSignature { length: 11 })
    ));
    // Signatures of other lengths and other logs.
    proof.signature = older.signatures.get(&4).cloned();
    let refused = reader.check(9, Some(log.blocks[&9].clone()), &proof);
    assert!(matches!(refused, Err(Error::BadSignature { length: 11 })));
}

/// Not judged here, but not hidden either.
#[test]
fn a_fork_is_visible() {
    let key_pair = KeyPair::from_seed(&[7; 32]);
    let log = sample(3);
    let reader = log.full_reader();
    let other = Log::written(&key_pair, &[vec!["0".into(), "1".into(), "2".into()]]);
    let changes = reader
        .check(2, Some("2".into()), &other.full_proof(2, false))
        .unwrap();
    assert_eq!(changes.head(), Some(&other.roots.head()));
    assert_eq!(changes.roots(), Some(&other.roots));
    assert_ne!(changes.head(), Some(&reader.roots.head()));
    assert_eq!(changes.head().unwrap().length, reader.roots.length());
}

#[test]
fn local_nodes_must_be_those_planned() {
    let log = sample(4);
    let mut reader = log.empty_reader();
    reader
        .put(0, Some(log.blocks[&0].clone()), &log.full_proof(0, false))
        .unwrap();
    let value = Some(log.blocks[&3].clone());
    let proof = log.full_proof(3, false);
    let plan = verify::plan(&reader.present, 3, true, &proof).unwrap();
    let local: Vec<Node> = plan
        .nodes()
        .iter()
        .map(|index| reader.nodes[index])
        .collect();
    let head = reader.roots.head();
    for wrong in [&local[1..], &[], &[local.clone(), local.clone()].concat()] {
        let block = value.clone().map(Block::hash);
        let refused = plan
            .clone()
            .check(&reader.verifier, &head, block, &proof, wrong);
        assert!(matches!(refused, Err(Error::WrongLocalNodes)));
    }
    // A value where none was planned, or none where one was: refused or right, never a panic.
    let block = value.map(Block::hash);
    let unplanned = verify::plan(&reader.present, 3, false, &log.full_proof(3, true)).unwrap();
    let local: Vec<Node> = unplanned
        .nodes()
        .iter()
        .map(|index| reader.nodes[index])
        .collect();
    let result = unplanned.check(&reader.verifier, &head, block, &proof, &local);
    assert!(result.is_err() || result.is_ok_and(|changes| changes.byte_offset() == 9));
}

#[test]
fn a_block_is_never_placed_by_guesswork() {
    let log = sample(4);
    let mut reader = log.empty_reader();
    // Damage: the root is there, the nodes to the left of the block are not.
    for index in [at(3), at(4), at(5)] {
        reader.present.insert(index);
        reader.nodes.insert(index, log.nodes[&index]);
    }
    let proof = Proof::default();
    let refused = reader.check(3, Some(log.blocks[&3].clone()), &proof);
    assert!(
        matches!(refused, Err(Error::MissingNode { node }) if node == at(1)),
        "{refused:?}"
    );
}

#[test]
fn appended_and_proven_heads_agree() {
    let key_pair = KeyPair::from_seed(&[7; 32]);
    let block = Block::hash(Bytes::from_static(b"one"));
    let changes = append(&Roots::new(), vec![block], &key_pair).unwrap();
    let mut log = Log::new(hypercore_merkle::Verifier::new(&key_pair.public_key()));
    let (head, roots) = (*changes.head().unwrap(), changes.roots().unwrap().clone());
    log.commit(changes);
    let proven = log
        .empty_reader()
        .check(0, Some("one".into()), &log.full_proof(0, false))
        .unwrap();
    assert_eq!((proven.head(), proven.roots()), (Some(&head), Some(&roots)));
    assert_eq!(proven.nodes(), [log.nodes[&at(0)]]);
}
