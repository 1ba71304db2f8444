//! The tree by its definition: recursive, slow, and hard to get wrong. An oracle for tests.

use blake2b_simd::Params;

use crate::node::{Hash, Node, NodeIndex};

fn hash(bytes: &[u8]) -> Hash {
    let hash = Params::new().hash_length(32).hash(bytes);
    hash.as_bytes().try_into().expect("32 bytes")
}

/// The root of a subtree of `values`, a power of two, that starts at block `first`.
fn subtree(values: &[&[u8]], first: u64, nodes: &mut Vec<Node>) -> Node {
    let count = values.len() as u64;
    let index = NodeIndex::new(2 * first + count - 1).expect("a small tree");
    let node = if let [value] = values {
        let size = value.len() as u64;
        let hash = hash(&[&[0], &size.to_be_bytes()[..], value].concat());
        Node { index, size, hash }
    } else {
        let (left, right) = values.split_at(values.len() / 2);
        let left = subtree(left, first, nodes);
        let right = subtree(right, first + count / 2, nodes);
        let size = left.size + right.size;
        let hash = hash(&[&[1], &size.to_be_bytes()[..], &left.hash, &right.hash].concat());
        Node { index, size, hash }
    };
    nodes.push(node);
    node
}

/// The roots of a log of `values`, and all its nodes in the order in which appending finishes them.
pub(crate) fn tree(values: &[&[u8]]) -> (Vec<Node>, Vec<Node>) {
    let (mut roots, mut nodes) = (Vec::new(), Vec::new());
    let (mut rest, mut first) = (values, 0);
    while !rest.is_empty() {
        let largest = 1 << rest.len().ilog2();
        let (left, right) = rest.split_at(largest);
        roots.push(subtree(left, first, &mut nodes));
        first += largest as u64;
        rest = right;
    }
    (roots, nodes)
}

/// The hash of the whole tree.
pub(crate) fn tree_hash(roots: &[Node]) -> Hash {
    let mut bytes = vec![2];
    for root in roots {
        bytes.extend(root.hash);
        bytes.extend(root.index.get().to_be_bytes());
        bytes.extend(root.size.to_be_bytes());
    }
    hash(&bytes)
}
