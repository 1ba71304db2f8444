use bytes::Bytes;
use hypercore_merkle::{
    Error, KeyPair, Node, NodeIndex, Proof, RemoteTree, Signature, full_roots, tree_index,
};
use proptest::prelude::*;
use serde_json::Value;

use crate::support::{Log, at, get, nodes, sample, unhex, unhex_array, vectors};

fn values(file: &Value) -> Vec<Bytes> {
    get::<Vec<String>>(file, "blocks")
        .iter()
        .map(|value| unhex(value).into())
        .collect()
}

/// The feed of the vectors, appended in the same three batches.
fn feed(file: &Value) -> Log {
    let key_pair = KeyPair::from_bytes(&unhex_array(&get::<String>(file, "secretKey"))).unwrap();
    assert_eq!(
        key_pair.public_key().to_string(),
        get::<String>(file, "publicKey")
    );
    let values = values(file);
    Log::written(
        &key_pair,
        &[
            values[..3].to_vec(),
            values[3..10].to_vec(),
            values[10..].to_vec(),
        ],
    )
}

fn signature(value: &Value, key: &str) -> Option<Signature> {
    let bytes = unhex(&get::<Option<String>>(value, key)?);
    Some(Signature::try_from(&bytes[..]).unwrap())
}

#[test]
fn the_feed_has_the_same_signatures_and_roots() {
    let file = vectors("proofs.json");
    let feed = feed(&file);
    let signatures: Vec<Value> = get(&file, "signatures");
    assert_eq!(signatures.len(), feed.signatures.len());
    for case in signatures {
        let length = get::<u64>(&case, "index") + 1;
        assert_eq!(
            feed.signatures.get(&length),
            signature(&case, "signature").as_ref()
        );
    }
    for case in get::<Vec<Value>>(&file, "roots") {
        let roots: Vec<Node> = full_roots(get::<u64>(&case, "index") + 1)
            .map(|root| feed.nodes[&root])
            .collect();
        assert_eq!(roots, nodes(&case, "rootHashes"));
    }
}

#[test]
fn full_proofs_convince_a_reader_without_anything() {
    let file = vectors("proofs.json");
    let feed = feed(&file);
    let cases: Vec<Value> = get(&file, "fullProofs");
    assert_eq!(cases.len(), 22);
    for case in cases {
        let (block, hash): (u64, bool) = (get(&case, "index"), get(&case, "hash"));
        let proof = feed.full_proof(block, hash);
        assert_eq!(proof.nodes, nodes(&case, "nodes"));
        assert_eq!(proof.signature, signature(&case, "signature"));

        let value = (!hash).then(|| feed.blocks[&block].clone());
        let reader = feed.empty_reader();
        let changes = reader.check(block, value, &proof).expect("an honest proof");
        let mut written: Vec<NodeIndex> = changes
            .nodes()
            .iter()
            .chain(changes.unbound())
            .map(|node| node.index)
            .collect();
        assert!(proof.nodes.iter().all(|node| written.contains(&node.index)));
        written.retain(|&index| feed.nodes.contains_key(&index));
        assert!(written.contains(&at(2 * block)));
        assert_eq!(changes.head(), Some(&feed.roots.head()));
        assert_eq!(changes.roots(), Some(&feed.roots));
        // Only the leaf of block 10 is a root, and only with a value the sizes of two leaves are
        // certain.
        assert_eq!(
            changes.unbound().len(),
            if hash && block != 10 { 2 } else { 0 }
        );
    }
}

#[test]
fn clones_grow_step_by_step() {
    let file = vectors("proofs.json");
    let feed = feed(&file);
    let sequences: Vec<Value> = get(&file, "put");
    assert_eq!(sequences.len(), 5);
    for sequence in sequences {
        let mut clone = feed.empty_reader();
        for step in get::<Vec<Value>>(&sequence, "steps") {
            let block: u64 = get(&step, "index");
            let digest = tree_index::digest(&clone.present, at(2 * block));
            assert_eq!(digest, get::<u64>(&step, "digest"));
            let proof = feed.proof(&mut RemoteTree::new(), block, digest, false);
            assert_eq!(proof.nodes, nodes(&step["proof"], "nodes"));
            assert_eq!(proof.signature, signature(&step["proof"], "signature"));

            let value = feed.blocks[&block].clone();
            let changes = clone
                .check(block, Some(value), &proof)
                .expect("an honest proof");
            let before: usize = (0..block).map(|block| feed.blocks[&block].len()).sum();
            assert_eq!(changes.byte_offset(), before as u64);
            clone.commit(changes);
            assert_eq!(clone.roots.length(), get::<u64>(&step, "lengthAfter"));
            assert_eq!(
                clone.roots.byte_length(),
                get::<u64>(&step, "byteLengthAfter")
            );
            assert_eq!(
                clone.present_numbers(),
                get::<Vec<u64>>(&step, "treeBitsAfter")
            );
            assert_eq!(tree_index::length(&clone.present), clone.roots.length());
        }
    }
}

#[test]
fn what_hypercore_9_refuses() {
    let file = vectors("proofs.json");
    let feed = feed(&file);
    let cases: Vec<Value> = get(&file, "putErrors");
    assert_eq!(cases.len(), 10);
    for case in cases {
        let name: String = get(&case, "name");
        let block: u64 = get(&case, "index");
        let mut proof = feed.full_proof(block, name == "hash only, good");
        match &*name {
            "zero signature" => proof.signature = Signature::try_from(&[0; 64][..]).ok(),
            "no signature on an empty feed (falls into the static feed check)" => {
                proof.signature = None;
            }
            "missing last root" => drop(proof.nodes.pop()),
            "missing sibling" => drop(proof.nodes.remove(0)),
            "wrong size" => proof.nodes[0].size += 1,
            "reversed nodes" => proof.nodes.reverse(),
            _ => {}
        }
        let value = get::<Option<String>>(&case, "data").map(|value| unhex(&value).into());
        let result = feed.empty_reader().check(block, value, &proof);
        let as_expected = match &*name {
            "good proof" | "hash only, good" => result.is_ok(),
            "wrong data" | "zero signature" | "missing last root" | "wrong size" => {
                matches!(result, Err(Error::BadSignature { .. }))
            }
            "no signature on an empty feed (falls into the static feed check)" => {
                matches!(result, Err(Error::TreeHashMismatch { length: 11 }))
            }
            // Hypercore 9 only notices that roots are missing.
            "missing sibling" | "reversed nodes" => matches!(result, Err(Error::NotARoot { .. })),
            "hash only but block proof" => matches!(result, Err(Error::MissingLeaf { .. })),
            other => panic!("a new case: {other}"),
        };
        assert!(as_expected, "{name}: {result:?}");
        assert_eq!(
            result.is_ok(),
            get::<Option<String>>(&case, "error").is_none(),
            "{name}"
        );
        assert!(
            result.err().is_none_or(|error| error.is_peer_fault()),
            "{name}"
        );
    }
}

#[test]
fn a_static_log_is_its_own_signature() {
    let mut feed = feed(&vectors("proofs.json"));
    feed.signatures.clear();
    feed.verifier = hypercore_merkle::Verifier::new(&feed.roots.head().hash.into());
    let mut clone = feed.empty_reader();
    for block in [4, 0, 10, 5] {
        let digest = tree_index::digest(&clone.present, at(2 * block));
        let proof = feed.proof(&mut RemoteTree::new(), block, digest, false);
        assert_eq!(proof.signature, None);
        clone
            .put(block, Some(feed.blocks[&block].clone()), &proof)
            .expect("an honest proof");
    }
    assert_eq!(clone.roots, feed.roots);
    assert!(clone.signatures.is_empty());

    let forged = clone
        .empty_reader()
        .check(4, Some("evil".into()), &feed.full_proof(4, false));
    assert!(matches!(
        forged,
        Err(Error::TreeHashMismatch { length: 11 })
    ));
}

/// Requests in flight together are all answered in full.
#[test]
fn answers_may_tell_more_than_needed() {
    let feed = feed(&vectors("proofs.json"));
    let proofs: Vec<(u64, Proof)> = (0..11)
        .map(|block| (block, feed.full_proof(block, false)))
        .collect();
    let mut clone = feed.empty_reader();
    for (block, proof) in proofs.iter().rev() {
        clone
            .put(*block, Some(feed.blocks[block].clone()), proof)
            .expect("an honest proof");
    }
    assert_eq!(clone.nodes, feed.nodes);
    assert_eq!(clone.blocks, feed.blocks);
}

/// A node that went bad on our disk is replaced by a proof that does not rely on it.
#[test]
fn a_full_proof_heals_a_damaged_node() {
    let feed = feed(&vectors("proofs.json"));
    let mut clone = feed.empty_reader();
    clone
        .put(4, Some(feed.blocks[&4].clone()), &feed.full_proof(4, false))
        .unwrap();
    // Block 5 hangs below node 9 as well, but its leaf is lost.
    let damaged = at(9);
    clone.nodes.get_mut(&damaged).unwrap().hash[0] ^= 1;
    clone.present.remove(&at(10));

    let value = Some(feed.blocks[&5].clone());
    let mut proof = feed.full_proof(5, false);
    let signature = proof.signature.take();
    let refused = clone.check(5, value.clone(), &proof);
    assert!(matches!(refused, Err(Error::HashMismatch { node }) if node == damaged));

    proof.signature = signature;
    clone.put(5, value, &proof).expect("an honest proof");
    assert_eq!(clone.nodes[&damaged], feed.nodes[&damaged]);
}

proptest! {
    /// Requests count on the answers to those before them, which are all still under way.
    #[test]
    fn answers_in_the_order_of_their_requests_prove_what_they_are_for(
        length in 1_u64..300,
        first in any::<u64>(),
        in_flight in prop::collection::vec(prop::collection::vec(any::<u64>(), 1..40), 1..6),
        forgets in any::<bool>(),
    ) {
        let feed = sample(length);
        let mut clone = feed.empty_reader();
        let first = first % length;
        let proof = feed.full_proof(first, false);
        clone.put(first, Some(feed.blocks[&first].clone()), &proof).unwrap();
        let (mut ahead, mut sent) = (RemoteTree::new(), proof.nodes.len());
        for blocks in in_flight {
            let mut requests = Vec::new();
            for block in blocks {
                let block = block % length;
                let digest = tree_index::digest_ahead(&clone.present, &mut ahead, at(2 * block));
                requests.push((block, digest));
            }
            for (block, digest) in requests {
                let proof = feed.proof(&mut RemoteTree::new(), block, digest, false);
                sent += proof.nodes.len();
                let put = clone.put(block, Some(feed.blocks[&block].clone()), &proof);
                prop_assert!(put.is_ok(), "block {block}: {put:?}");
            }
            if forgets {
                ahead = RemoteTree::new();
            }
        }
        // Nothing was sent that was there, or on the way.
        prop_assert!(sent <= clone.present.len());
    }
}
