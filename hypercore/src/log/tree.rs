//! What is known of the tree: proofs, digests, roots, and where bytes are.

use std::ops::Range;

use hypercore_bitfield::Bitfield;
use hypercore_merkle::{
    ChangeSet, Node, NodeIndex, NodeSet, NodeSetMut, Proof, RemoteTree, Roots, Seek, SeekStep,
    Signature, full_roots, proof, tree_index,
};

use super::{Log, Vouched, append::blocks_of, torn::is_half};
use crate::span::{blocks_below, nodes_of, one_block};
use crate::{
    block_set::BlockSet,
    error::{Corruption, Error, Result},
    signer::Checking,
};

/// The tree bits of a bitfield, as the maths wants to see them.
pub(super) struct TreeBits<'a>(pub(super) &'a Bitfield);

impl TreeBits<'_> {
    /// Whether the leaf of `block` is known.
    pub(super) fn has_leaf(&self, block: u64) -> bool {
        NodeIndex::leaf(block).is_some_and(|leaf| self.has(leaf))
    }
}

impl NodeSet for TreeBits<'_> {
    fn has(&self, node: NodeIndex) -> bool {
        self.0.tree_get(node.get())
    }

    fn bound(&self) -> u64 {
        self.0.tree_bound()
    }
}

/// The nodes that peers may know of.
struct PublicTree<'a> {
    bits: TreeBits<'a>,
    length: u64,
}

impl NodeSet for PublicTree<'_> {
    fn has(&self, node: NodeIndex) -> bool {
        self.bits.has(node) && node.end() <= self.length
    }

    fn bound(&self) -> u64 {
        let end = self.length.saturating_mul(2).saturating_sub(1);
        self.bits.bound().min(end)
    }
}

/// The nodes that are known, to which more are added.
struct TreeBitsMut<'a> {
    bitfield: &'a mut Bitfield,
    /// Those that were not known before.
    added: &'a mut Vec<NodeIndex>,
}

impl NodeSet for TreeBitsMut<'_> {
    fn has(&self, node: NodeIndex) -> bool {
        TreeBits(self.bitfield).has(node)
    }

    fn bound(&self) -> u64 {
        TreeBits(self.bitfield).bound()
    }
}

impl NodeSetMut for TreeBitsMut<'_> {
    fn insert(&mut self, node: NodeIndex) -> bool {
        let is_new = self.bitfield.tree_set(node.get());
        if is_new {
            self.added.push(node);
        }
        is_new
    }
}

/// Sets the bits of what comes with a change. Adds the nodes that were not known before to `added`.
pub(super) fn set_bits(bitfield: &mut Bitfield, change: &ChangeSet, added: &mut Vec<NodeIndex>) {
    if change.blocks().len() > 1 {
        return set_bits_of_append(bitfield, change);
    }
    insert_each(bitfield, change, added);
    if let [_] = change.blocks() {
        bitfield.set(change.start_block(), true);
    }
}

fn insert_each(bitfield: &mut Bitfield, change: &ChangeSet, added: &mut Vec<NodeIndex>) {
    let mut tree = TreeBitsMut { bitfield, added };
    for node in change.nodes() {
        tree_index::insert(&mut tree, node.index);
    }
}

/// The same for more than one block, which only an append has: of their nodes all are there but those
/// that reach over the end. An append is not undone, so nobody asks which of them were not known before.
fn set_bits_of_append(bitfield: &mut Bitfield, change: &ChangeSet) {
    let Range { start, end } = blocks_of(change);
    bitfield.set_range(start..end, true);
    bitfield.tree_set_range(nodes_of(start..end));
    let first = change.leaf();
    for node in tree_index::unfinished(end).filter(|&node| node > first) {
        bitfield.tree_clear(node.get());
    }
    for node in change.nodes().iter().filter(|node| node.index < first) {
        bitfield.tree_set(node.index.get());
    }
}

/// The roots, and where in `data` the blocks below each begin.
pub(super) fn placed_roots(roots: &Roots) -> impl Iterator<Item = (Node, u64)> {
    roots.nodes().iter().scan(0_u64, |end, root| {
        let offset = *end;
        *end = offset.saturating_add(root.size);
        Some((*root, offset))
    })
}

/// Where a byte is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sought {
    /// In this block, at this offset.
    Found { index: u64, offset: u64 },
    /// Somewhere below this node, whose children are not known here.
    Below(NodeIndex),
    /// Beyond the known length.
    Beyond,
}

impl Sought {
    /// Whether a byte that was not found can be in one of `blocks`, of a log of `length` blocks.
    pub(crate) fn may_be_in(self, blocks: &Range<u64>, length: u64) -> bool {
        let possible = match self {
            Self::Found { index, .. } => one_block(index),
            Self::Below(node) => blocks_below(node),
            Self::Beyond => length..u64::MAX,
        };
        blocks.start.max(possible.start) < blocks.end.min(possible.end)
    }
}

impl Log {
    /// The roots that the log has without what follows its first `length` blocks.
    pub(crate) fn roots_at(&self, length: u64) -> Result<Roots> {
        let wanted: Vec<_> = full_roots(length).collect();
        let bits = TreeBits(&self.bitfield);
        if let Some(missing) = wanted.iter().find(|&&root| !bits.has(root)) {
            let node = missing.get();
            return Err(Error::NodeNotStored { node });
        }
        let nodes = self.files()?.required_nodes(&wanted)?;
        Ok(Roots::from_nodes(length, nodes)?)
    }

    /// What a peer still needs to believe block `index`; `None` if the block's node is not known. Without
    /// `remote` the digest says all that the peer has.
    pub(crate) fn prove(
        &self,
        index: u64,
        digest: u64,
        remote: Option<&mut RemoteTree>,
        with_leaf: bool,
    ) -> Result<Option<Proof>> {
        let Some(leaf) = NodeIndex::leaf(index) else {
            return Ok(None);
        };
        let public = PublicTree {
            bits: TreeBits(&self.bitfield),
            length: self.withheld.unwrap_or(u64::MAX),
        };
        let plan = match remote {
            Some(remote) => proof::plan(&public, remote, leaf, digest, with_leaf),
            None => proof::plan_by_digest(&public, leaf, digest, with_leaf),
        };
        let Some(plan) = plan else {
            return Ok(None);
        };
        let files = self.files()?;
        let nodes = files.required_nodes(&plan.nodes)?;
        let signature = match (plan.verified_by / 2, self.vouched) {
            (0, _) | (_, Vouched::Static) => None,
            (length, _) => match self.signature(length)? {
                Some(signature) if !is_half(signature.as_bytes()) => Some(signature),
                // A sparse log may know a subtree whose own signature it never saw, or lost.
                _ => return Ok(None),
            },
        };
        Ok(Some(Proof { nodes, signature }))
    }

    /// The signature of the first `length` blocks, if it is stored, for others to see.
    pub(crate) fn signature(&self, length: u64) -> Result<Option<Signature>> {
        let Some(last) = length.checked_sub(1) else {
            return Ok(None);
        };
        let files = self.files()?;
        let signature = files.signature(last)?.map(Signature::from);
        if let (Some(signature), Some(author)) = (&signature, &self.author)
            && Checking::of(files) == Checking::WhenShown
            && self.shown_length.get() != length
        {
            let head = match length == self.head.length {
                true => self.head,
                false => self.roots_at(length)?.head(),
            };
            if !author.has_signed(&head, signature) {
                // Not made again: if the tree is what is damaged, that would sign a second history.
                return Err(Corruption::Signature { length }.into());
            }
            self.shown_length.set(length);
        }
        Ok(signature)
    }

    /// What we know around block `index`, for a request: see [`tree_index::digest`].
    pub(crate) fn digest(&self, index: u64) -> u64 {
        NodeIndex::leaf(index).map_or(0, |leaf| {
            tree_index::digest(&TreeBits(&self.bitfield), leaf)
        })
    }

    /// The same, when answers are under way: see [`tree_index::digest_ahead`].
    pub(crate) fn digest_ahead(&self, index: u64, ahead: &mut RemoteTree) -> u64 {
        NodeIndex::leaf(index).map_or(0, |leaf| {
            tree_index::digest_ahead(&TreeBits(&self.bitfield), ahead, leaf)
        })
    }

    /// The first of `blocks` from `block` on that is not proven: it would not be believed with one
    /// more hash, and no signature.
    pub(crate) fn first_unproven(&self, blocks: &BlockSet, block: u64) -> Option<u64> {
        blocks.runs_from(block).find_map(|run| {
            let unproven = self.bitfield.next_unproven(run.start);
            run.contains(&unproven).then_some(unproven)
        })
    }

    /// The block that holds byte `offset`, and where in it, if that is known here.
    pub(crate) fn seek(&self, offset: u64) -> Result<Sought> {
        let mut seek = Seek::new(self.head.length, offset);
        loop {
            match seek.step(&TreeBits(&self.bitfield)) {
                SeekStep::Read(node) => match self.root(node) {
                    Some(root) => seek.supply(*root),
                    None => {
                        for node in self.files()?.required_nodes(&[node])? {
                            seek.supply(node);
                        }
                    }
                },
                SeekStep::Found { block, offset } => {
                    self.check_sizes(block, offset)?;
                    return Ok(Sought::Found {
                        index: block,
                        offset,
                    });
                }
                SeekStep::Below { node, .. } => return Ok(Sought::Below(node)),
                _ => return Ok(Sought::Beyond),
            }
        }
    }

    /// The root at `index`, if one is there.
    fn root(&self, index: NodeIndex) -> Option<&Node> {
        let mut roots = self.roots.nodes().iter();
        roots.find(|root| root.index == index)
    }

    /// Fails if `block` has no byte `offset`, or if it and the nodes beside its way to the root have not as
    /// many bytes as the root, whose size is signed: one size that is wrong leads to another block. As long
    /// as some of them are not here, nobody can tell.
    fn check_sizes(&self, block: u64, offset: u64) -> Result<()> {
        let Some(leaf) = NodeIndex::leaf(block).filter(|_| block < self.roots.length()) else {
            return Ok(());
        };
        let (mut parts, mut top) = (vec![leaf], leaf);
        let root = loop {
            if let Some(root) = self.root(top) {
                break root;
            }
            parts.push(top.sibling());
            top = top.parent();
        };
        let bits = TreeBits(&self.bitfield);
        if !parts.iter().all(|&node| bits.has(node)) {
            return Ok(());
        }
        let nodes = self.files()?.required_nodes(&parts)?;
        let mut sizes = nodes.iter().map(|node| node.size);
        // The first byte of a log is in its first block, also if that is empty.
        let is_inside = offset == 0 || nodes.first().is_some_and(|leaf| offset < leaf.size);
        let size = sizes.try_fold(0, u64::checked_add);
        if is_inside && size == Some(root.size) {
            Ok(())
        } else {
            let node = root.index.get();
            Err(Corruption::WrongNode { node }.into())
        }
    }
}

#[cfg(test)]
mod tests {
    use hypercore_bitfield::PageSize;
    use hypercore_merkle::{Block, append};

    use super::*;

    /// As by inserting one node after the other.
    #[test]
    fn an_append_sets_the_bits_of_its_nodes() {
        let push = |roots: &Roots, count: u64| {
            let blocks = vec![Block::hash(b"some".as_slice().into()); count as usize];
            append::unsigned(roots, blocks).unwrap()
        };
        for start in 0..40 {
            let mut before = Bitfield::new(PageSize::Current);
            let mut roots = Roots::new();
            if start > 0 {
                let change = push(&roots, start);
                insert_each(&mut before, &change, &mut Vec::new());
                before.set_range(0..start, true);
                roots = change.roots().unwrap().clone();
            }
            for count in (1..40).chain([8192]) {
                let change = push(&roots, count);
                let (mut expected, mut found) = (before.clone(), before.clone());
                insert_each(&mut expected, &change, &mut Vec::new());
                expected.set_range(blocks_of(&change), true);
                set_bits(&mut found, &change, &mut Vec::new());
                assert_eq!(found, expected, "{start} + {count}");
                assert!(found.dirty_pages().eq(expected.dirty_pages()));
            }
        }
    }
}
