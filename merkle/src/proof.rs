//! Which nodes prove a node to a peer (Hypercore 9 `lib/tree-index.js` proof).

use std::collections::BTreeSet;

use crate::node::{Node, NodeIndex, full_roots};
use crate::signature::Signature;
use crate::tree_index::{NodeSet, NodeSetMut, insert, verified_by};

/// What travels beside a value: enough to check it against a signature, or against a node that
/// the receiver already trusts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Proof {
    /// The leaf if there is no value; then siblings from the bottom up; then the other roots from
    /// left to right. Without what the receiver said it knows.
    pub nodes: Vec<Node>,
    /// The signature of the roots, if the proof goes that far.
    pub signature: Option<Signature>,
}

/// The nodes to load for a [`Proof`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProofPlan {
    /// The positions, in the order of the proof.
    pub nodes: Vec<NodeIndex>,
    /// Twice the length whose signature belongs in the proof, that is the tree index just after
    /// it; 0 if none does.
    pub verified_by: u64,
}

/// Plans the proof of `node` for a peer that sent `digest`; `None` if we lack the node.
///
/// `remote` remembers what earlier digests told, and learns from this one; an empty one goes by
/// this digest alone. Only digests teach: nodes that were sent may never arrive. `with_leaf` puts
/// `node` itself in front, for an answer without value.
///
/// A planned root can be missing from `present` when the tree has holes; such a proof cannot be
/// given. Any `digest` is safe: it costs at most 64 steps.
#[must_use]
pub fn plan(
    present: &impl NodeSet,
    remote: &mut impl NodeSetMut,
    node: NodeIndex,
    digest: u64,
    with_leaf: bool,
) -> Option<ProofPlan> {
    if !present.has(node) {
        return None;
    }
    let mut nodes = Vec::new();
    if with_leaf {
        nodes.push(node);
    }
    if digest == 1 {
        return Some(ProofPlan {
            nodes,
            verified_by: 0,
        });
    }
    learn(present, remote, node, digest);

    let mut next = node;
    while !remote.has(next) {
        let (sibling, parent) = (next.sibling(), next.parent());
        if !present.has(sibling) || parent == next {
            // This is one of our roots. All others and a signature complete the proof.
            let verified_by = verified_by(present, next);
            let others = full_roots(verified_by / 2).filter(|&root| root != next);
            nodes.extend(others.filter(|&root| !remote.has(root)));
            return Some(ProofPlan { nodes, verified_by });
        }
        if !remote.has(sibling) {
            nodes.push(sibling);
        }
        next = parent;
    }
    Some(ProofPlan {
        nodes,
        verified_by: 0,
    })
}

/// [`plan`] for a peer of which nothing is remembered, because each of its digests says all that counts.
/// The same as with an empty `remote`, without making a set where the way up says it all.
#[must_use]
pub fn plan_by_digest(
    present: &impl NodeSet,
    node: NodeIndex,
    digest: u64,
    with_leaf: bool,
) -> Option<ProofPlan> {
    plan_up_to_known(present, node, digest, with_leaf)
        .or_else(|| plan(present, &mut BTreeSet::new(), node, digest, with_leaf))
}

/// The plan up to the ancestor that `digest` names, if we have that, too: as nearly always.
fn plan_up_to_known(
    present: &impl NodeSet,
    node: NodeIndex,
    digest: u64,
    with_leaf: bool,
) -> Option<ProofPlan> {
    if digest & 1 == 0 || !present.has(node) {
        return None;
    }
    let mut nodes = Vec::new();
    if with_leaf {
        nodes.push(node);
    }
    let mut next = node;
    let mut digest = digest >> 1;
    while digest > 1 {
        let (sibling, parent) = (next.sibling(), next.parent());
        if !present.has(sibling) || parent == next {
            return None;
        }
        if digest & 1 == 0 {
            nodes.push(sibling);
        }
        next = parent;
        digest >>= 1;
    }
    present.has(next).then_some(ProofPlan {
        nodes,
        verified_by: 0,
    })
}

/// Marks what `digest`, the counterpart of [`digest`](crate::tree_index::digest), says of the way
/// up from `node`.
fn learn(present: &impl NodeSet, remote: &mut impl NodeSetMut, node: NodeIndex, digest: u64) {
    let mut mark = |node| {
        if present.has(node) {
            insert(remote, node);
        }
    };
    let rooted = digest & 1 == 1;
    let mut digest = digest >> 1;
    let mut next = node;
    while digest != 0 {
        if digest == 1 && rooted {
            mark(next);
            // Whoever has a verified node also has the roots to its left.
            let last = next.min(next.sibling());
            full_roots(last.end()).for_each(mark);
            return;
        }
        if digest & 1 == 1 {
            mark(next.sibling());
        }
        next = next.parent();
        digest >>= 1;
    }
}
