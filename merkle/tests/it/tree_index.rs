use std::collections::{BTreeMap, BTreeSet};

use hypercore_merkle::{NodeIndex, NodeSet, ProofPlan, RemoteTree, full_roots, proof, tree_index};
use serde_json::Value;

use crate::support::{at, get, vectors};

type Set = BTreeSet<NodeIndex>;

fn build(indexes: &[u64]) -> Set {
    let mut set = Set::new();
    for &index in indexes {
        tree_index::insert(&mut set, at(index));
    }
    set
}

fn numbers(set: &Set) -> Vec<u64> {
    set.iter().map(|node| node.get()).collect()
}

fn remote_numbers(tree: &RemoteTree) -> Vec<u64> {
    (0..tree.bound())
        .filter(|&index| tree.has(at(index)))
        .collect()
}

fn states() -> BTreeMap<String, Value> {
    get(&vectors("tree-index.json"), "states")
}

fn state(states: &BTreeMap<String, Value>, name: &str) -> Set {
    build(&get::<Vec<u64>>(&states[name], "set"))
}

fn plan(set: &Set, remote: &mut RemoteTree, index: u64, digest: u64, leaf: bool) -> ProofPlan {
    let knew_nothing = remote.bound() == 0;
    let plan = proof::plan(set, remote, at(index), digest, leaf);
    if knew_nothing {
        assert_eq!(plan, proof::plan_by_digest(set, at(index), digest, leaf));
    }
    plan.expect("the node is known")
}

fn expected(nodes: &[u64], verified_by: u64) -> ProofPlan {
    ProofPlan {
        nodes: nodes.iter().copied().map(at).collect(),
        verified_by,
    }
}

#[test]
fn states_of_a_tree() {
    let states = states();
    assert_eq!(states.len(), 22);
    for (name, case) in &states {
        let set = state(&states, name);
        assert_eq!(numbers(&set), get::<Vec<u64>>(case, "bits"), "{name}");
        let length = tree_index::length(&set);
        assert_eq!(length, get::<u64>(case, "blocks"), "{name}");
        let roots: Vec<u64> = full_roots(length).map(NodeIndex::get).collect();
        assert_eq!(roots, get::<Vec<u64>>(case, "roots"), "{name}");
        for (index, digest) in (0..).zip(get::<Vec<u64>>(case, "digests")) {
            assert_eq!(
                tree_index::digest(&set, at(index)),
                digest,
                "{name} {index}"
            );
        }
        for (index, bound) in get::<Vec<(u64, u64)>>(case, "verifiedBy") {
            assert_eq!(
                tree_index::verified_by(&set, at(index)),
                bound,
                "{name} {index}"
            );
        }
        for (key, with_leaf) in [("proofs", false), ("hashProofs", true)] {
            for (index, nodes, bound) in get::<Vec<(u64, Vec<u64>, u64)>>(case, key) {
                let plan = plan(&set, &mut RemoteTree::new(), index, 0, with_leaf);
                assert_eq!(plan, expected(&nodes, bound), "{name} {index}");
            }
        }
    }
}

#[test]
fn every_state_serves_every_other() {
    #[derive(serde::Deserialize)]
    struct Row(u64, u64, Vec<u64>, u64, Vec<u64>, u64, Vec<u64>);

    let states = states();
    let exchanges: Vec<Value> = get(&vectors("tree-index.json"), "exchanges");
    assert_eq!(exchanges.len(), 418);
    for exchange in exchanges {
        let server = state(&states, &get::<String>(&exchange, "server"));
        let client = state(&states, &get::<String>(&exchange, "client"));
        for row in get::<Vec<Row>>(&exchange, "rows") {
            let Row(index, digest, nodes, bound, leaf_nodes, leaf_bound, remote_after) = row;
            assert_eq!(tree_index::digest(&client, at(index)), digest);
            let mut remote = RemoteTree::new();
            let answer = plan(&server, &mut remote, index, digest, false);
            assert_eq!(answer, expected(&nodes, bound), "{exchange}");
            assert_eq!(remote_numbers(&remote), remote_after, "{exchange}");
            let answer = plan(&server, &mut RemoteTree::new(), index, digest, true);
            assert_eq!(answer, expected(&leaf_nodes, leaf_bound), "{exchange}");
        }
    }
}

#[test]
fn requests_on_one_connection() {
    let states = states();
    let sequences: Vec<Value> = get(&vectors("tree-index.json"), "sequences");
    assert_eq!(sequences.len(), 4);
    for sequence in sequences {
        let server = state(&states, &get::<String>(&sequence, "server"));
        let mut client = Set::new();
        let mut remote = RemoteTree::new();
        for row in get::<Vec<Value>>(&sequence, "rows") {
            let index = get(&row, "index");
            let digest = tree_index::digest(&client, at(index));
            assert_eq!(digest, get::<u64>(&row, "digest"), "{row}");
            let answer = proof::plan(&server, &mut remote, at(index), digest, get(&row, "hash"));
            let wanted = row["proof"].is_object().then(|| {
                expected(
                    &get::<Vec<u64>>(&row["proof"], "nodes"),
                    get(&row["proof"], "verifiedBy"),
                )
            });
            assert_eq!(answer, wanted, "{row}");
            if let Some(answer) = answer {
                for node in [at(index)].into_iter().chain(answer.nodes) {
                    tree_index::insert(&mut client, node);
                }
            }
            assert_eq!(
                remote_numbers(&remote),
                get::<Vec<u64>>(&row, "remoteTree"),
                "{row}"
            );
        }
    }
}

#[test]
fn digests_that_nobody_sends() {
    #[derive(serde::Deserialize)]
    struct Row(u64, u64, Vec<u64>, u64, Vec<u64>);

    let rows: Vec<Row> = get(&vectors("tree-index.json"), "oddDigests");
    let server = state(&states(), "full17");
    assert_eq!(rows.len(), 104);
    for Row(index, digest, nodes, bound, remote_after) in rows {
        let mut remote = RemoteTree::new();
        let answer = plan(&server, &mut remote, index, digest, false);
        assert_eq!(answer, expected(&nodes, bound), "{index} {digest}");
        assert_eq!(remote_numbers(&remote), remote_after, "{index} {digest}");
    }
    // Past what JavaScript can count to.
    for bit in 0..64 {
        for digest in [1 << bit, u64::MAX >> bit, u64::MAX << bit] {
            for index in [0, 7, 16, 32] {
                let answer = plan(&server, &mut RemoteTree::new(), index, digest, true);
                assert!(answer.nodes.len() <= 6);
            }
        }
    }
}

#[test]
fn truncation() {
    let cases: Vec<Value> = get(&vectors("tree-index.json"), "truncate");
    assert_eq!(cases.len(), 6);
    for case in cases {
        let blocks: u64 = get(&case, "blocks");
        let mut set = build(&(0..blocks).map(|block| 2 * block).collect::<Vec<_>>());
        let gone: Vec<NodeIndex> = tree_index::truncated(&set, get(&case, "truncateTo")).collect();
        set.retain(|node| !gone.contains(node));
        assert_eq!(numbers(&set), get::<Vec<u64>>(&case, "bits"), "{case}");
        assert_eq!(
            tree_index::length(&set),
            get::<u64>(&case, "blocksAfter"),
            "{case}"
        );
    }
}

#[test]
fn the_far_end_of_the_tree() {
    let last = NodeIndex::leaf(hypercore_merkle::MAX_LENGTH - 1).unwrap();
    let mut set: Set = full_roots(hypercore_merkle::MAX_LENGTH - 1).collect();
    assert_eq!(tree_index::length(&set), hypercore_merkle::MAX_LENGTH - 1);
    // All 52 siblings are known, but nothing above them.
    assert_eq!(tree_index::digest(&set, last), (1 << 53) - 2);
    tree_index::insert(&mut set, last);
    assert_eq!(tree_index::length(&set), hypercore_merkle::MAX_LENGTH);
    assert_eq!(tree_index::digest(&set, last), 1);
    let apex = at(hypercore_merkle::MAX_LENGTH - 1);
    assert!(set.has(apex));
    let only_apex = Set::from([apex]);
    assert_eq!(tree_index::digest(&only_apex, last), (1 << 53) + 1);
    assert_eq!(
        plan(&set, &mut RemoteTree::new(), last.get(), 0, false)
            .nodes
            .len(),
        52
    );
}

#[test]
fn memory_for_a_remote_tree_is_bounded() {
    use hypercore_merkle::NodeSetMut as _;

    for (mut tree, pages) in [
        (RemoteTree::new(), 4096),
        (RemoteTree::with_memory(32 * 1024), 128),
    ] {
        let mut forgotten = 0;
        for page in 0..20_000 {
            assert!(tree.insert(at(page << 20)));
            assert!(tree.has(at(page << 20)));
            forgotten += u64::from(page > 0 && !tree.has(at((page - 1) << 20)));
        }
        assert_eq!(forgotten, 19_999 / pages, "all is forgotten every {pages}");
        assert!(!tree.insert(at(19_999 << 20)));
    }
}
