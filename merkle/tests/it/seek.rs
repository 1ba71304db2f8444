use std::collections::BTreeSet;

use hypercore_merkle::{Node, NodeIndex, Seek, SeekStep, full_roots};
use serde_json::Value;

use crate::support::{at, get, vectors};

/// Seeks in a log of blocks of these sizes, of which `present` is known.
fn check(sizes: &[u64], present: &BTreeSet<NodeIndex>, byte_offset: u64) -> SeekStep {
    let size = |node: NodeIndex| {
        let first = usize::try_from(node.left_span().get() / 2).unwrap();
        let last = usize::try_from(node.right_span().get() / 2).unwrap();
        sizes[first..=last].iter().sum()
    };
    let mut seek = Seek::new(sizes.len() as u64, byte_offset);
    let mut reads = 0;
    loop {
        match seek.step(present) {
            SeekStep::Read(index) => {
                assert!(present.contains(&index), "only what is there can be read");
                reads += 1;
                assert!(reads <= 10, "one read for each root and each level");
                seek.supply(Node {
                    index: index.parent(),
                    size: 1,
                    hash: [0; 32],
                });
                assert_eq!(
                    seek.step(present),
                    SeekStep::Read(index),
                    "wrong nodes are ignored"
                );
                seek.supply(Node {
                    index,
                    size: size(index),
                    hash: [0; 32],
                });
            }
            step => {
                assert_eq!(seek.step(present), step, "the answer stays");
                return step;
            }
        }
    }
}

#[test]
fn sparse_trees_match_hypercore_9() {
    let file = vectors("seek.json");
    let sizes: Vec<u64> = get(&file, "sizes");
    let states: Vec<Value> = get(&file, "states");
    assert_eq!(states.len(), 32);
    for state in states {
        let present = get::<Vec<u64>>(&state, "nodes")
            .into_iter()
            .map(at)
            .collect();
        for (byte_offset, index, offset) in get::<Vec<(u64, i64, u64)>>(&state, "rows") {
            let expected = match u64::try_from(index) {
                Err(_) => SeekStep::OutOfBounds,
                Ok(index) => match at(index).block() {
                    Some(block) => SeekStep::Found { block, offset },
                    None => SeekStep::Below {
                        node: at(index),
                        offset,
                    },
                },
            };
            assert_eq!(
                check(&sizes, &present, byte_offset),
                expected,
                "{byte_offset} {present:?}"
            );
        }
    }
}

#[test]
fn every_byte_of_complete_trees() {
    let all_sizes = [4, 0, 1, 0, 0, 3, 2, 5, 1, 1, 0, 7, 2];
    for length in 1..=all_sizes.len() {
        let sizes = &all_sizes[..length];
        let all = (0..2 * length as u64).map(at);
        let end = 2 * length as u64;
        let present = all.filter(|node| node.right_span().get() < end).collect();
        let mut byte_offset = 0;
        for (block, &size) in (0..).zip(sizes) {
            for offset in 0..size {
                let found = SeekStep::Found { block, offset };
                assert_eq!(check(sizes, &present, byte_offset), found);
                byte_offset += 1;
            }
        }
        assert_eq!(check(sizes, &present, byte_offset), SeekStep::OutOfBounds);
        assert_eq!(check(sizes, &present, u64::MAX), SeekStep::OutOfBounds);
    }
}

#[test]
fn byte_zero_needs_no_reading() {
    let start = SeekStep::Found {
        block: 0,
        offset: 0,
    };
    assert_eq!(check(&[], &BTreeSet::new(), 0), start);
    assert_eq!(check(&[0, 3], &full_roots(2).collect(), 0), start);
    assert_eq!(check(&[], &BTreeSet::new(), 1), SeekStep::OutOfBounds);
}
