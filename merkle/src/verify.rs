//! Checking what a peer sent (Hypercore 9 `index.js` _putBuffer, _verifyAndWrite,
//! _verifyRootsAndWrite).
//!
//! From the leaf the check climbs towards the roots, hashing every node with its sibling, which
//! comes from the proof or from our own tree. It ends in one of two ways:
//!
//! ```text
//!            3 <- known and equal: trusted         7 ------ 17 -- 20 <- roots, hashed together,
//!          /   \                                   |                    and signed
//!        1       5                                 3
//!       / \     / \                               / \
//!      0   2   4  [6]                           [1]  5
//! ```
//!
//! * At a **trusted** node: one that we know, with the same hash and size.
//! * At the **roots**: a node without sibling must itself be one of the roots of the length that
//!   the proof speaks of. The hash of all roots must be signed, or be the key of a static log.
//!
//! # What is bound
//!
//! Once the check succeeds the hash of every node used is true, because hashes only come together
//! if all of them are. The same must hold for sizes, for they decide where blocks stand.
//!
//! * The size of a root is hashed into the tree hash, that of a trusted node was bound before.
//! * The size of a parent is hashed into its own hash. So is that of a leaf whose value we have.
//! * A sibling that the peer sent shows only its hash, but its parent's size is the sum of two, of
//!   which the other is the node we climbed from. If that one's size is true so is the sibling's.
//!
//! One case is left: a leaf **without value**, whose sibling came from the peer too. Only the
//! sum of the two sizes is in their parent, and a leaf hash of which we do not know the value says
//! nothing of a size. A peer could shift bytes from one to the other; whoever stored that would
//! put later blocks in the wrong place. Such a pair is not to be written: it is in
//! [`ChangeSet::unbound`]. If the leaf is a root, or equal to a trusted node, or the sibling is
//! ours, then both are bound.
//!
//! # What is not refused
//!
//! Nodes left over when the check has ended are ignored. They are normal: an answer may tell more
//! than we need by the time it arrives. They are neither used nor written.

use crate::change_set::ChangeSet;
use crate::error::{Error, Result};
use crate::hash::Block;
use crate::node::{MAX_LENGTH, Node, NodeIndex, checked_size, full_roots};
use crate::proof::Proof;
use crate::roots::{Roots, TreeHead};
use crate::signature::Verifier;
use crate::tree_index::NodeSet;

/// The most nodes a proof may have: a climb of 53 and as many roots make 106.
pub const MAX_PROOF_NODES: usize = 128;

/// Room for the nodes that most checks take.
const FEW_NODES: usize = 8;

/// What must be loaded to check a proof. Made by [`plan`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifyPlan {
    leaf: NodeIndex,
    /// First the siblings, from the bottom up, then whatever else.
    nodes: Vec<NodeIndex>,
    siblings: usize,
    trusted: Option<NodeIndex>,
    /// Where the block stands, if that is known.
    byte_offset: Option<u64>,
}

/// Plans the check of what a peer sent for `block`: which of our nodes does it take?
///
/// `has_value` tells whether a value came along. Nothing is hashed yet.
///
/// # Errors
/// If the proof is malformed: too long, out of range, or without value and not about `block`.
pub fn plan(
    present: &impl NodeSet,
    block: u64,
    has_value: bool,
    proof: &Proof,
) -> Result<VerifyPlan> {
    plan_at(present, block, has_value, None, proof)
}

/// [`plan`], when it may be known that the block stands at `byte_offset`: where the last one ended.
///
/// Otherwise it takes the roots of all blocks before it, on average half as many as the tree has
/// levels, and most of the time of a check. What is given is taken over and not checked.
///
/// # Errors
/// As `plan`.
pub fn plan_at(
    present: &impl NodeSet,
    block: u64,
    has_value: bool,
    byte_offset: Option<u64>,
    proof: &Proof,
) -> Result<VerifyPlan> {
    let leaf = NodeIndex::leaf(block).ok_or(Error::BlockOutOfRange { block })?;
    let mut remote = remote_nodes(proof)?.iter();
    if !has_value {
        take_leaf(&mut remote, leaf)?;
    }

    let mut nodes = Vec::with_capacity(FEW_NODES);
    let mut top = leaf;
    let mut trusted = None;
    loop {
        if present.has(top) {
            trusted = Some(top);
            break;
        }
        let sibling = top.sibling();
        if take(&mut remote, sibling).is_none() {
            if !present.has(sibling) || top.parent() == top {
                break;
            }
            nodes.push(sibling);
        }
        top = top.parent();
    }
    let siblings = nodes.len();

    if let Some(trusted) = trusted {
        nodes.push(trusted);
    } else {
        let length = proven_length(top, remote.as_slice());
        for root in full_roots(length) {
            if root != top && take(&mut remote, root).is_none() && present.has(root) {
                nodes.push(root);
            }
        }
    }

    // The block stands after all blocks to its left, of which these nodes know the size.
    if has_value && byte_offset.is_none() {
        let used = proof.nodes.len().saturating_sub(remote.len());
        for left in full_roots(block) {
            let given = proof.nodes.iter().take(used).any(|node| node.index == left);
            if !given && !nodes.contains(&left) && present.has(left) {
                nodes.push(left);
            }
        }
    }
    Ok(VerifyPlan {
        leaf,
        nodes,
        siblings,
        trusted,
        byte_offset,
    })
}

impl VerifyPlan {
    /// The nodes to load from our own tree.
    #[must_use]
    pub fn nodes(&self) -> &[NodeIndex] {
        &self.nodes
    }

    /// Checks a value, or a leaf alone, against its proof.
    ///
    /// `current` is the state of our log, with length 0 if there is none yet. `value` and `proof`
    /// are those the plan was made for, and `local` are the nodes it asked for, in its order.
    ///
    /// # Errors
    /// If the proof does not prove the value. See [`Error::is_peer_fault`].
    pub fn check(
        self,
        verifier: &Verifier,
        current: &TreeHead,
        value: Option<Block>,
        proof: &Proof,
        local: &[Node],
    ) -> Result<ChangeSet> {
        if !self
            .nodes
            .iter()
            .copied()
            .eq(local.iter().map(|node| node.index))
        {
            return Err(Error::WrongLocalNodes);
        }
        let find = |index| local.iter().find(|node| node.index == index).copied();
        let trusted = self.trusted.and_then(find);
        let is_trusted = |node: &Node| trusted.as_ref() == Some(node);
        let mut siblings = local.get(..self.siblings).unwrap_or_default().iter();
        let mut remote = remote_nodes(proof)?.iter();

        let mut top = match &value {
            Some(block) => Node {
                index: self.leaf,
                size: block.size(),
                hash: *block.leaf_hash(),
            },
            None => take_leaf(&mut remote, self.leaf)?,
        };
        let mut changes = ChangeSet {
            leaf: self.leaf,
            blocks: Vec::new(),
            byte_offset: 0,
            nodes: Vec::new(),
            unbound: Vec::new(),
            head: None,
            signature: None,
        };
        if !is_trusted(&top) {
            let room = proof.nodes.len().saturating_add(FEW_NODES);
            changes.nodes.reserve(room);
        }
        while !is_trusted(&top) {
            let index = top.index.sibling();
            let sibling = if let Some(node) = take(&mut remote, index) {
                let unbound = value.is_none() && top.index == self.leaf;
                let nodes = if unbound {
                    &mut changes.unbound
                } else {
                    &mut changes.nodes
                };
                nodes.extend([top, node]);
                node
            } else if let Some(node) = take(&mut siblings, index) {
                changes.nodes.push(top);
                node
            } else {
                break;
            };
            let node = top.index.parent();
            top = Node::parent(&top, &sibling).ok_or(Error::SizeOutOfRange { node })?;
        }

        if !is_trusted(&top) {
            // We know better. Only a signature could still tell that the tree was replaced.
            if let Some(node) = self.trusted.filter(|_| proof.signature.is_none()) {
                return Err(Error::HashMismatch { node });
            }
            let roots = collect_roots(top, &mut remote, find, &mut changes.nodes)?;
            let head = roots.head();
            check_head(verifier, current, &head, proof)?;
            changes.head = Some((head, roots));
            changes.signature.clone_from(&proof.signature);
        }

        if let Some(block) = value {
            changes.byte_offset = match self.byte_offset {
                Some(offset) => offset,
                None => byte_offset(&changes, find)?,
            };
            changes.blocks = vec![block];
        }
        Ok(changes)
    }
}

/// The roots above `top`, from the proof or from our tree. Those to be written are added to
/// `written`.
fn collect_roots(
    top: Node,
    remote: &mut Nodes<'_>,
    find: impl Fn(NodeIndex) -> Option<Node>,
    written: &mut Vec<Node>,
) -> Result<Roots> {
    let length = proven_length(top.index, remote.as_slice());
    // Hypercore 9 does not ask for this. Then the true roots with their true signature vouch for
    // any value whose climb ends below them, though it was never compared with anything.
    if !full_roots(length).any(|root| root == top.index) {
        return Err(Error::NotARoot {
            node: top.index,
            length,
        });
    }
    let mut roots = Vec::new();
    for index in full_roots(length) {
        let given = if index == top.index {
            Some(top)
        } else {
            take(remote, index)
        };
        written.extend(given);
        let root = given.or_else(|| find(index));
        roots.push(root.ok_or(Error::MissingRoot {
            node: index,
            length,
        })?);
    }
    Roots::from_nodes(length, roots).map_err(|error| match error {
        Error::LogTooLarge { .. } => Error::SizeOutOfRange { node: top.index },
        other => other,
    })
}

/// Whether the owner of the log vouches for `head`.
fn check_head(
    verifier: &Verifier,
    current: &TreeHead,
    head: &TreeHead,
    proof: &Proof,
) -> Result<()> {
    let length = head.length;
    match &proof.signature {
        Some(signature) if verifier.verify(head, signature) => Ok(()),
        Some(_) => Err(Error::BadSignature { length }),
        // A log that was signed once is signed for ever.
        None if current.length > 0 && !verifier.is_static_head(current) => {
            Err(Error::MissingSignature { length })
        }
        None if verifier.is_static_head(head) => Ok(()),
        None => Err(Error::TreeHashMismatch { length }),
    }
}

/// The bytes of all blocks before the leaf. Nodes about to be written come first: they are proven,
/// whereas ours could be what they replace.
fn byte_offset(changes: &ChangeSet, find: impl Fn(NodeIndex) -> Option<Node>) -> Result<u64> {
    full_roots(changes.start_block()).try_fold(0, |sum, index| {
        let written = changes
            .nodes
            .iter()
            .find(|node| node.index == index)
            .copied();
        let node = written
            .or_else(|| find(index))
            .ok_or(Error::MissingNode { node: index })?;
        checked_size(sum, node.size).ok_or(Error::SizeOutOfRange { node: index })
    })
}

/// The length that a proof speaks of: that of the shortest log with all the nodes that are left.
fn proven_length(top: NodeIndex, rest: &[Node]) -> u64 {
    let end = top.end();
    rest.last().map_or(end, |last| end.max(last.index.end()))
}

/// The nodes of a proof that is not yet used up.
type Nodes<'a> = std::slice::Iter<'a, Node>;

/// Takes the next node if it stands at `index`. Nodes are used in their order, or not at all.
fn take(nodes: &mut Nodes<'_>, index: NodeIndex) -> Option<Node> {
    let (first, rest) = nodes.as_slice().split_first()?;
    if first.index != index {
        return None;
    }
    *nodes = rest.iter();
    Some(*first)
}

/// Takes the leaf itself, with which a proof without value begins.
fn take_leaf(nodes: &mut Nodes<'_>, leaf: NodeIndex) -> Result<Node> {
    take(nodes, leaf).ok_or(Error::MissingLeaf { leaf })
}

/// The nodes of a proof, all at positions of a log. Sizes are bounded where they are summed.
fn remote_nodes(proof: &Proof) -> Result<&[Node]> {
    let count = proof.nodes.len();
    if count > MAX_PROOF_NODES {
        return Err(Error::TooManyNodes {
            count,
            max: MAX_PROOF_NODES,
        });
    }
    for node in &proof.nodes {
        if node.index.end() > MAX_LENGTH {
            return Err(Error::NodeOutOfRange { node: node.index });
        }
    }
    Ok(&proof.nodes)
}
