use hypercore_merkle::{MAX_BYTE_LENGTH, MAX_LENGTH, Node, NodeIndex, full_roots};

use crate::support::{at, get, vectors};

#[test]
fn relatives_match_hypercore_9() {
    let rows: Vec<[i64; 10]> = get(&vectors("flat-tree.json"), "nodes");
    assert!(rows.len() > 300);
    for row in rows {
        let row = row.map(|number| u64::try_from(number).ok());
        let [
            Some(index),
            depth,
            offset,
            parent,
            sibling,
            left,
            right,
            left_span,
            right_span,
            _,
        ] = row
        else {
            panic!("every row has an index")
        };
        let node = at(index);
        assert_eq!(Some(node.depth()), depth);
        assert_eq!(Some(node.offset()), offset);
        assert_eq!(Some(node.parent().get()), parent);
        assert_eq!(Some(node.sibling().get()), sibling);
        assert_eq!(node.children().map(|(left, _)| left.get()), left);
        assert_eq!(node.children().map(|(_, right)| right.get()), right);
        assert_eq!(Some(node.left_span().get()), left_span);
        assert_eq!(Some(node.right_span().get()), right_span);
        assert_eq!(node.is_leaf(), depth == Some(0));
        assert_eq!(node.block(), node.is_leaf().then_some(index / 2));
    }
}

#[test]
fn full_roots_match_hypercore_9() {
    let rows: Vec<(u64, Vec<u64>)> = get(&vectors("flat-tree.json"), "fullRoots");
    assert!(rows.len() > 300);
    for (blocks, expected) in rows {
        let roots: Vec<u64> = full_roots(blocks).map(NodeIndex::get).collect();
        assert_eq!(roots, expected, "{blocks} blocks");
    }
}

#[test]
fn positions_end_where_numbers_of_javascript_end() {
    assert_eq!(NodeIndex::new(2 * MAX_LENGTH), None);
    assert_eq!(NodeIndex::leaf(MAX_LENGTH), None);
    assert_eq!(
        NodeIndex::leaf(MAX_LENGTH - 1),
        NodeIndex::new(2 * MAX_LENGTH - 2)
    );
    assert_eq!(full_roots(MAX_LENGTH).count(), 1);
    assert_eq!(full_roots(MAX_LENGTH - 1).count(), 52);
    assert_eq!(full_roots(MAX_LENGTH + 1).count(), 0);
    assert_eq!(full_roots(u64::MAX).count(), 0);
}

#[test]
fn a_climb_never_overflows() {
    for start in [0, 2 * MAX_LENGTH - 2, 2 * MAX_LENGTH - 1, MAX_LENGTH - 1] {
        let mut node = at(start);
        for _ in 0..100 {
            for relative in [node, node.sibling(), node.sibling().parent()] {
                assert!(relative.left_span() <= relative.right_span());
                assert!(relative.right_span().get() < 1 << 61);
            }
            node = node.parent();
        }
        assert_eq!(
            node.left_span(),
            at(0),
            "the climb from {start} ends at the left spine"
        );
    }
}

#[test]
fn records_hold_nodes() {
    let node = Node {
        index: at(5),
        size: 0x0102,
        hash: [9; 32],
    };
    let record = node.to_record();
    assert_eq!(record[..32], [9; 32]);
    assert_eq!(record[32..], [0, 0, 0, 0, 0, 0, 1, 2]);
    assert_eq!(Node::from_record(at(5), &record), Some(node));
    assert_eq!(Node::from_record(at(5), &[0; 40]), None, "blank");
    let empty = Node { size: 0, ..node };
    assert_eq!(Node::from_record(at(5), &empty.to_record()), Some(empty));
    let largest = Node {
        size: MAX_BYTE_LENGTH,
        ..node
    };
    assert_eq!(
        Node::from_record(at(5), &largest.to_record()),
        Some(largest)
    );
    let larger = Node {
        size: MAX_BYTE_LENGTH + 1,
        ..node
    };
    assert_eq!(Node::from_record(at(5), &larger.to_record()), None);
}
