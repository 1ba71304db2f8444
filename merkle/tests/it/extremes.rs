//! Numbers where arithmetic ends: nothing wraps, nothing panics, nothing goes on for ever.

use std::collections::BTreeSet;

use hypercore_merkle::{
    Block, KeyPair, MAX_BYTE_LENGTH, MAX_LENGTH, Node, NodeIndex, Proof, RemoteTree, Roots, Seek,
    SeekStep, Verifier, full_roots, proof, tree_index, verify,
};
use proptest::prelude::*;

/// Around every power of two, and everywhere.
fn number() -> impl Strategy<Value = u64> {
    let near = |bits: u32, distance: u64, above: bool| {
        let power = 1_u64.checked_shl(bits).unwrap_or(0);
        if above {
            power.wrapping_add(distance)
        } else {
            power.wrapping_sub(distance)
        }
    };
    prop_oneof![
        4 => (48..=64_u32, 0..4_u64, any::<bool>()).prop_map(move |(b, d, above)| near(b, d, above)),
        1 => (0..=64_u32, 0..4_u64, any::<bool>()).prop_map(move |(b, d, above)| near(b, d, above)),
        1 => any::<u64>(),
    ]
}

fn node(index: NodeIndex, size: u64) -> Node {
    Node {
        index,
        size,
        hash: [1; 32],
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]

    #[test]
    fn positions(index in number()) {
        prop_assert_eq!(NodeIndex::new(index).is_some(), index < 2 * MAX_LENGTH);
        prop_assert_eq!(NodeIndex::leaf(index).is_some(), index < MAX_LENGTH);
        let Some(mut node) = NodeIndex::new(index) else { return Ok(()) };
        // Higher than any log.
        for _ in 0..70 {
            prop_assert_eq!(node.sibling().sibling(), node);
            prop_assert!(node.left_span() <= node && node <= node.right_span());
            prop_assert_eq!(u128::from(node.end()), u128::from(node.right_span().get()) / 2 + 1);
            let parent = node.parent();
            if node.depth() < 58 {
                let (left, right) = parent.children().expect("a parent has children");
                prop_assert!(node == left || node == right);
                prop_assert_eq!(parent.depth(), node.depth() + 1);
            }
            node = parent;
        }
        prop_assert_eq!(node.get(), (1 << 58) - 1);
    }

    #[test]
    fn lengths(length in number(), size in number()) {
        let sum: u128 = full_roots(length).map(|root| 1_u128 << root.depth()).sum();
        prop_assert_eq!(sum, if length <= MAX_LENGTH { length.into() } else { 0 });

        // Sizes that are too great in sum, though none is by itself.
        let nodes: Vec<_> = full_roots(length).map(|root| node(root, size)).collect();
        let bytes = u128::from(size) * nodes.len() as u128;
        let roots = Roots::from_nodes(length, nodes);
        let fits = length <= MAX_LENGTH && bytes <= u128::from(MAX_BYTE_LENGTH);
        prop_assert_eq!(roots.is_ok(), fits, "{:?}", roots);
        let Ok(mut roots) = roots else { return Ok(()) };
        let before = roots.clone();
        let fits = length < MAX_LENGTH && bytes + u128::from(size) <= u128::from(MAX_BYTE_LENGTH);
        let pushed = roots.push(size, [2; 32], &mut Vec::new());
        prop_assert_eq!(pushed.is_ok(), fits, "{:?}", pushed);
        if fits {
            prop_assert_eq!((roots.length(), u128::from(roots.byte_length())), (length + 1, bytes + u128::from(size)));
        } else {
            prop_assert_eq!(roots, before, "a push that failed changed something");
        }
    }

    #[test]
    fn sizes(a in number(), b in number(), record in number()) {
        let [left, right] = [0, 2].map(|index| NodeIndex::new(index).expect("small"));
        let parent = Node::parent(&node(left, a), &node(right, b)).map(|parent| u128::from(parent.size));
        let sum = u128::from(a) + u128::from(b);
        prop_assert_eq!(parent, (sum <= u128::from(MAX_BYTE_LENGTH)).then_some(sum));
        let read = Node::from_record(left, &node(left, record).to_record());
        prop_assert_eq!(read.map(|node| node.size), (record <= MAX_BYTE_LENGTH).then_some(record));
    }

    #[test]
    fn seeks(length in number(), byte in number(), sizes in prop::collection::vec(number(), 4)) {
        let mut seek = Seek::new(length, byte);
        let all = BTreeSet::from_iter(full_roots(length));
        for round in 0..200 {
            match seek.step(&all) {
                SeekStep::Read(node_index) => seek.supply(node(node_index, sizes[round % 4])),
                SeekStep::Found { block, .. } => {
                    prop_assert!(block == 0 || block < length);
                    return Ok(());
                }
                _ => return Ok(()),
            }
        }
        prop_assert!(false, "a seek takes at most 106 steps");
    }

    /// What a set of any few nodes says of itself, and what a peer may say and ask of it.
    #[test]
    fn sets(indexes in prop::collection::vec(number(), 0..6), asked in number(), digest in number()) {
        let mut set = BTreeSet::new();
        for index in indexes.into_iter().filter_map(NodeIndex::new) {
            tree_index::insert(&mut set, index);
        }
        // The node above all of the longest log can be named, though no log has it.
        let longest = if set.contains(&NodeIndex::new(2 * MAX_LENGTH - 1).expect("the last")) {
            2 * MAX_LENGTH
        } else {
            MAX_LENGTH
        };
        prop_assert!(tree_index::length(&set) <= longest);
        prop_assert_eq!(tree_index::truncated(&set, u64::MAX).count(), 0);
        let Some(node) = NodeIndex::new(asked) else { return Ok(()) };
        prop_assert!(tree_index::digest(&set, node) == 1 || !set.contains(&node));
        prop_assert!(tree_index::verified_by(&set, node) <= 2 * longest);
        let mut remote = RemoteTree::new();
        let plan = proof::plan(&set, &mut remote, node, digest, true);
        prop_assert_eq!(plan.is_some(), set.contains(&node));
        if let Some(plan) = plan {
            prop_assert!(plan.nodes.len() <= verify::MAX_PROOF_NODES, "{} nodes", plan.nodes.len());
        }
    }

    /// Without a memory of what the peer has there is a shorter way to the same plan.
    #[test]
    fn plans_by_digest(
        blocks in prop::collection::vec(0..20u64, 0..40),
        asked in 0..40u64,
        digest in prop_oneof![0..300u64, any::<u64>()],
        with_leaf in any::<bool>(),
    ) {
        let mut set = BTreeSet::new();
        for node in blocks.into_iter().filter_map(NodeIndex::leaf) {
            tree_index::insert(&mut set, node);
        }
        // A request names a leaf, and an inner node is as good.
        let Some(node) = NodeIndex::new(asked) else { return Ok(()) };
        prop_assert_eq!(
            proof::plan_by_digest(&set, node, digest, with_leaf),
            proof::plan(&set, &mut RemoteTree::new(), node, digest, with_leaf)
        );
    }

    #[test]
    fn proofs(block in number(), nodes in prop::collection::vec((number(), number()), 0..6), length in number()) {
        let nodes: Vec<_> = nodes
            .into_iter()
            .filter_map(|(index, size)| Some(node(NodeIndex::new(index)?, size)))
            .collect();
        let proof = Proof { nodes, ..Proof::default() };
        let present = BTreeSet::from_iter(full_roots(length));
        match verify::plan(&present, block, true, &proof) {
            Err(error) => prop_assert!(error.is_peer_fault(), "{}", error),
            Ok(plan) => {
                prop_assert!(block < MAX_LENGTH);
                let verifier = Verifier::new(&KeyPair::from_seed(&[1; 32]).public_key());
                let local: Vec<_> = plan.nodes().iter().map(|&index| node(index, MAX_BYTE_LENGTH)).collect();
                let value = Some(Block::hash("evil".into()));
                let checked = plan.check(&verifier, &Roots::new().head(), value, &proof, &local);
                prop_assert!(checked.is_err());
            }
        }
    }
}

/// Above all trees climbing leads nowhere, and is not gone on with.
#[test]
fn the_top_of_all_trees_is_climbed_once() {
    let climb = std::iter::successors(NodeIndex::leaf(0), |node| Some(node.parent()));
    let top = climb.take(100).last().expect("there are many");
    assert_eq!(top.parent(), top);
    let set = BTreeSet::from([top, top.sibling()]);
    for node in [top, top.sibling()] {
        assert!(tree_index::verified_by(&set, node) > 0);
        assert!(proof::plan(&set, &mut RemoteTree::new(), node, 0, false).is_some());
        assert!(proof::plan_by_digest(&set, node, u64::MAX, false).is_some());
    }
}
