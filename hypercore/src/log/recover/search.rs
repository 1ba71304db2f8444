//! The search for the end of a log: by its blocks, or by its signatures.

use std::{cell::Cell, ops::Range};

use hypercore_bitfield::Bitfield;
use hypercore_merkle::{
    Hash, MAX_BLOCK_SIZE, MAX_LENGTH, Node, NodeIndex, Roots, Verifier, full_roots, leaf_hash,
    tree_index,
};
use hypercore_storage::FeedFiles;

use super::{
    CHECKPOINT_BLOCKS, End, PAGE_BLOCKS, TreeBits, leading_leaves, load_bitfield, restore_nodes,
    verifies,
};
use crate::{
    error::{Corruption, Result},
    log::tree::placed_roots,
    span::{blocks_below, length_with, nodes_below, nodes_of},
};

/// So many signatures can be wrong one after the other, before a log counts as damaged. An append
/// that was not finished leaves one; each costs a check of some 60 us.
pub(in crate::log) const MAX_WRONG_SIGNATURES: usize = 128;

/// A block of this size that is in a hole is not read: of a log whose old blocks are cleared, a
/// terabyte of zeros would be.
const HOLE: u64 = 4096;

/// So many leaves are read together.
const GROUP: usize = 64;

pub(super) enum Found {
    End(Box<End>),
    Damage(Corruption),
}

/// What the blocks themselves lead to.
struct Recomputed {
    /// The roots of the last length that is signed.
    roots: Roots,
    /// The roots of all blocks up to the first that is not whole.
    whole: Roots,
    /// The nodes below them that the file has wrong.
    nodes: Vec<Node>,
    /// See [`End::torn_signatures`].
    torn_signatures: Vec<u64>,
}

pub(super) struct Search<'a> {
    files: &'a FeedFiles,
    verifier: &'a Verifier,
    /// The hash of a block of zeros, for the last size that was asked for.
    zeros: Cell<(u64, Hash)>,
}

impl<'a> Search<'a> {
    pub(super) fn new(files: &'a FeedFiles, verifier: &'a Verifier) -> Self {
        Self {
            files,
            verifier,
            zeros: Cell::new((0, leaf_hash(&[]))),
        }
    }

    /// The end of a log that is written here: the last signature that the blocks themselves lead
    /// to.
    pub(super) fn writer_end(&self, may_lose: bool) -> Result<Found> {
        let files = self.files;
        // What grew may show anything: a bit without room for its node is none.
        let mut bitfield = load_bitfield(files, files.tree_blocks()?)?;
        let claimed = leading_leaves(&bitfield);
        let Some(start) = self.newest_signed(claimed)? else {
            return Ok(Found::Damage(Corruption::Signature { length: claimed }));
        };
        let checkpoint = start.length();
        let Recomputed {
            roots,
            whole,
            nodes,
            mut torn_signatures,
        } = self.recompute(start)?;
        if !may_lose {
            // Of appends that were waited for none is torn between others: it is damage.
            torn_signatures.clear();
        }
        let length = roots.length();

        if claimed == length {
            drop_room_for_pages(&mut bitfield, length);
        }
        let broken = whole.length();
        if bitfield.bound().max(bitfield.tree_bound().div_ceil(2)) > length {
            // Either that block is damaged, or it is not here: then this is a clone with a key, or its
            // end was being cut.
            return if bitfield.get(broken) {
                Ok(Found::Damage(Corruption::Block { index: broken }))
            } else {
                self.reader_end(may_lose)
            };
        }
        // Of appends that were waited for only the last can be unfinished.
        if !may_lose && self.signed_lengths_above(length)? > 1 {
            return self.end_beyond(&whole, length);
        }
        let from = self.unsynced_from(checkpoint, may_lose)?;
        let before = bitfield.total();
        self.complete_bits(&mut bitfield, from, checkpoint, length)?;
        Ok(Found::End(Box::new(End {
            recovered: bitfield.total().saturating_sub(before),
            bitfield,
            roots,
            checkpoint,
            claimed,
            nodes,
            torn_signatures,
        })))
    }

    /// The end of a log of which all was waited for, where more than one signature stands behind the
    /// block after `whole`, which is not whole itself.
    ///
    /// A truncation clears the bits first and the signatures next. If it was cut short in between, and
    /// one of its blocks had been cleared before, then the log is as it was, without that block: from
    /// the files it cannot be told from one whose newest bits were lost, and of that nothing is cut.
    /// Nor is anything signed again at a length that peers know: appends go on behind all of it.
    fn end_beyond(&self, whole: &Roots, length: u64) -> Result<Found> {
        let broken = whole.length();
        if self.is_blank(whole)?
            && let Found::End(end) = self.reader_end(false)?
            // Its leaf belongs to the log, and says how long it was.
            && TreeBits(&end.bitfield).has_leaf(broken)
        {
            return Ok(Found::End(end));
        }
        Ok(Found::Damage(Corruption::Block { index: length }))
    }

    /// Whether nothing stands in the place of the block after those of `before`, as where one was
    /// cleared.
    fn is_blank(&self, before: &Roots) -> Result<bool> {
        let leaf = NodeIndex::leaf(before.length());
        let leaf = leaf.map(|leaf| self.files.node(leaf)).transpose()?;
        let Some(leaf) = leaf.flatten().filter(|leaf| leaf.size <= MAX_BLOCK_SIZE) else {
            return Ok(false);
        };
        let offset = before.byte_length();
        if self.files.data_len()? <= offset {
            return Ok(true);
        }
        match self.files.read_data(offset, leaf.size) {
            Ok(bytes) => Ok(bytes.iter().all(|&byte| byte == 0)),
            Err(error) if error.is_corruption() => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// The end of a clone, or of a log whose writer is not here: the newest length it can show a
    /// signature for. What its bitfield does not have is found again as far as it is whole; the rest
    /// will be asked for again.
    pub(super) fn reader_end(&self, may_lose: bool) -> Result<Found> {
        let Some(roots) = self.newest_signed(MAX_LENGTH)? else {
            return Ok(Found::Damage(Corruption::Signature { length: 0 }));
        };
        let length = roots.length();
        let claims = load_bitfield(self.files, self.files.tree_blocks()?)?;
        let claimed = tree_index::length(&TreeBits(&claims));
        if claims.bound() > length {
            let length = claims.bound();
            return Ok(Found::Damage(Corruption::Signature { length }));
        }
        let claimed = claimed.min(length);
        let mut bitfield = load_bitfield(self.files, MAX_LENGTH)?;
        drop_grown_page(&mut bitfield, length);
        bitfield.truncate(length);
        let before = bitfield.total();
        for root in roots.nodes() {
            bitfield.tree_set(root.index.get());
        }
        restore_nodes(self.files, &mut bitfield, length)?;
        let checkpoint = self.newest_signed(claimed)?;
        let checkpoint = checkpoint.map_or(0, |roots| roots.length());
        let from = self.unsynced_from(checkpoint, may_lose)?;
        self.claim_whole(&mut bitfield, &roots, from)?;
        Ok(Found::End(Box::new(End {
            recovered: bitfield.total().saturating_sub(before),
            bitfield,
            checkpoint: length,
            claimed,
            roots,
            nodes: Vec::new(),
            torn_signatures: self.torn_signatures(claimed..length)?,
        })))
    }

    /// Claims the blocks from number `from` on that are whole, and the nodes that prove it.
    ///
    /// The tree is followed downwards, from `roots`, which are signed, as far as each node is the
    /// parent of two that are stored: of a long log of which little is here, little is read.
    fn claim_whole(&self, bitfield: &mut Bitfield, roots: &Roots, from: u64) -> Result<()> {
        let mut below: Vec<_> = placed_roots(roots).collect();
        while let Some((parent, offset)) = below.pop() {
            let index = parent.index;
            if index.end() <= from || is_all_claimed(bitfield, index) {
                continue;
            }
            let Some((left, right)) = index.children() else {
                if self.is_whole(offset, &parent)? {
                    bitfield.set(index.get() / 2, true);
                }
                continue;
            };
            let &[Some(left), Some(right)] = &self.files.nodes(&[left, right])?[..] else {
                continue;
            };
            if Node::parent(&left, &right) == Some(parent) {
                bitfield.tree_set(left.index.get());
                bitfield.tree_set(right.index.get());
                below.push((right, offset.saturating_add(left.size)));
                below.push((left, offset));
            }
        }
        Ok(())
    }

    /// The roots of the greatest length up to `limit` that has a signature; the empty log has
    /// none and needs none. `None` when too many signatures in a row are wrong.
    pub(super) fn newest_signed(&self, limit: u64) -> Result<Option<Roots>> {
        let mut below = limit;
        for _ in 0..MAX_WRONG_SIGNATURES {
            let Some((block, signature)) = self.files.previous_signature(below)? else {
                return Ok(Some(Roots::new()));
            };
            if let Some(roots) = self.signed_roots(length_with(block), &signature)? {
                return Ok(Some(roots));
            }
            below = block;
        }
        Ok(None)
    }

    /// The roots of this length as they are stored, if `signature` is over them.
    fn signed_roots(&self, length: u64, signature: &[u8; 64]) -> Result<Option<Roots>> {
        let wanted: Vec<_> = full_roots(length).collect();
        let nodes = self.files.nodes(&wanted)?.into_iter().collect();
        let roots = Option::and_then(nodes, |nodes| Roots::from_nodes(length, nodes).ok());
        Ok(roots.filter(|roots| verifies(self.verifier, &roots.head(), signature)))
    }

    /// The lengths in a range, ends excluded, with a signature that is none.
    fn torn_signatures(&self, lengths: Range<u64>) -> Result<Vec<u64>> {
        let mut torn = Vec::new();
        let mut length = lengths.start;
        while let Some((block, signature)) = self.files.next_signature(length)? {
            length = length_with(block);
            if length >= lengths.end {
                break;
            }
            if self.signed_roots(length, &signature)?.is_none() {
                torn.push(length);
            }
        }
        Ok(torn)
    }

    /// How many lengths above `length` have a signature that is right, up to 2.
    fn signed_lengths_above(&self, length: u64) -> Result<u64> {
        let mut limit = MAX_LENGTH;
        for count in 0..2 {
            match self.newest_signed(limit)? {
                None => return Ok(2),
                Some(roots) if roots.length() <= length => return Ok(count),
                Some(roots) => limit = roots.length().saturating_sub(1),
            }
        }
        Ok(2)
    }

    /// Follows the blocks from `roots` on, as long as they are whole.
    fn recompute(&self, mut roots: Roots) -> Result<Recomputed> {
        let files = self.files;
        let mut signed = roots.clone();
        let mut wrong = Vec::new();
        let mut unsigned = Vec::new();
        let mut torn_signatures = Vec::new();
        loop {
            let group = (roots.length()..MAX_LENGTH).take(GROUP);
            let leaves: Vec<_> = group.filter_map(NodeIndex::leaf).collect();
            for leaf in files.nodes(&leaves)? {
                let (block, offset) = (roots.length(), roots.byte_length());
                let whole = match leaf {
                    Some(leaf) if self.is_whole(offset, &leaf)? => {
                        roots.push(leaf.size, leaf.hash, &mut unsigned).is_ok()
                    }
                    _ => false,
                };
                if !whole {
                    torn_signatures.retain(|&length| length < signed.length());
                    return Ok(Recomputed {
                        roots: signed,
                        whole: roots,
                        nodes: wrong,
                        torn_signatures,
                    });
                }
                let Some(signature) = files.signature(block)? else {
                    continue;
                };
                if !verifies(self.verifier, &roots.head(), &signature) {
                    torn_signatures.push(roots.length());
                } else {
                    signed = roots.clone();
                    let indexes: Vec<_> = unsigned.iter().map(|node| node.index).collect();
                    let stored = files.nodes(&indexes)?;
                    let pairs = unsigned.drain(..).zip(stored);
                    wrong.extend(
                        pairs.filter_map(|(node, stored)| (stored != Some(node)).then_some(node)),
                    );
                }
            }
        }
    }

    /// Whether the bytes at `offset` are those of `leaf`.
    fn is_whole(&self, offset: u64, leaf: &Node) -> Result<bool> {
        if leaf.size > MAX_BLOCK_SIZE {
            return Ok(false);
        }
        if leaf.size >= HOLE && self.files.is_data_hole(offset, leaf.size)? {
            return Ok(self.zeros_hash(leaf.size) == leaf.hash);
        }
        match self.files.read_data(offset, leaf.size) {
            Ok(bytes) => Ok(leaf_hash(&bytes) == leaf.hash),
            Err(error) if error.is_corruption() => Ok(false),
            // A disk that does not answer now is no reason to cut anything.
            Err(error) => Err(error.into()),
        }
    }

    /// The hash of a block of `size` zeros.
    fn zeros_hash(&self, size: u64) -> Hash {
        if self.zeros.get().0 != size {
            self.zeros.set((size, leaf_hash(&vec![0; size as usize])));
        }
        self.zeros.get().1
    }

    /// From this block on, bits of appends may never have been synced, and a torn page may have lost
    /// them. `checkpoint` is the newest signed length that is claimed.
    fn unsynced_from(&self, checkpoint: u64, may_lose: bool) -> Result<u64> {
        if may_lose {
            // Nothing syncs the bits of appends that nobody waits for until there is a flush.
            return Ok(0);
        }
        let before = checkpoint.saturating_sub(1);
        let before = self.files.previous_signature(before)?;
        let written = before.map_or(0, |(block, _)| length_with(block));
        Ok(written.saturating_sub(CHECKPOINT_BLOCKS))
    }

    /// Sets the bits of a whole tree, and of the blocks of which a torn page may have lost them: those
    /// from number `from` on.
    fn complete_bits(
        &self,
        bitfield: &mut Bitfield,
        from: u64,
        checkpoint: u64,
        length: u64,
    ) -> Result<()> {
        // The nodes above block `from`, and what stands right of its leaf.
        let above = std::iter::successors(NodeIndex::leaf(from), |node| Some(node.parent()))
            .take_while(|node| node.end() <= length);
        for node in above {
            bitfield.tree_set(node.get());
        }
        let first = nodes_of(from..length).start;
        for nodes in full_roots(length).map(nodes_below) {
            for node in nodes.start.max(first)..nodes.end {
                bitfield.tree_set(node);
            }
        }
        bitfield.set_range(checkpoint..length, true);
        let mut block = bitfield.next_clear(from);
        while block < checkpoint {
            // Its bit was lost, or it was cleared, which its bytes did not survive.
            match self.files.locate(block) {
                Ok((offset, leaf)) => bitfield.set(block, self.is_whole(offset, &leaf)?),
                Err(error) if error.is_corruption() => false,
                Err(error) => return Err(error.into()),
            };
            block = bitfield.next_clear(block.saturating_add(1));
        }
        Ok(())
    }
}

/// Drops the last page of a log of `length` blocks if it claims more than these: it had grown when
/// the power went, shows what the disk had there before, and never was durable.
fn drop_grown_page(bitfield: &mut Bitfield, length: u64) {
    let page = last_page(length);
    if claims_within(bitfield, length..page.end) {
        bitfield.set_range(page.start..length, false);
        for node in nodes_of(page.start..length) {
            bitfield.tree_clear(node);
        }
    }
}

/// Drops the pages after the one where a log of `length` blocks ends, if that page claims no more: an
/// append that was to go on there had made room for them when the power went, and they show anything.
fn drop_room_for_pages(bitfield: &mut Bitfield, length: u64) {
    let next = last_page(length).end;
    if !claims_within(bitfield, length..next) {
        bitfield.truncate(next);
    }
}

/// The blocks of the page where a log of `length` blocks ends.
fn last_page(length: u64) -> Range<u64> {
    let first = length.saturating_sub(length % PAGE_BLOCKS);
    first..first.saturating_add(PAGE_BLOCKS)
}

/// Whether any of these blocks, or a node right of the ones before them, is claimed.
fn claims_within(bitfield: &Bitfield, blocks: Range<u64>) -> bool {
    let claimed = bitfield.next_set(blocks.start);
    claimed.is_some_and(|block| block < blocks.end)
        || nodes_of(blocks).any(|node| bitfield.tree_get(node))
}

/// Whether all blocks below a node are claimed, and all nodes.
fn is_all_claimed(bitfield: &Bitfield, top: NodeIndex) -> bool {
    let nodes = nodes_below(top);
    bitfield.has_all(blocks_below(top)) && bitfield.tree_runs(nodes.clone()).next() == Some(nodes)
}
