//! The nodes of the tree: 40 bytes each, in the order of their positions.

use hypercore_merkle::{MAX_LENGTH, Node, NodeIndex, full_roots};

use super::{CHUNK, FeedFiles, RECORD, RECORD_LEN, node_offset, record_offset, records, within};
use crate::{Error, FileName, error::Result, node_cache::Place};

impl FeedFiles {
    /// The node at `index`, if it is stored.
    ///
    /// # Errors
    ///
    /// When the storage fails.
    pub fn node(&self, index: NodeIndex) -> Result<Option<Node>> {
        let mut record = [0; RECORD];
        if is_beyond(index) {
            return Ok(None);
        }
        let read = self.tree.read_up_to(node_offset(index), &mut record)?;
        let is_whole = read.len() == RECORD;
        Ok(Node::from_record(index, &record).filter(|_| is_whole))
    }

    /// The nodes at `indexes`, in the same order. Neighbours are read in one go.
    ///
    /// # Errors
    ///
    /// When the storage fails.
    pub fn nodes(&self, indexes: &[NodeIndex]) -> Result<Vec<Option<Node>>> {
        let mut nodes = vec![None; indexes.len()];
        self.fill(&missing(indexes, &nodes), &mut nodes)?;
        Ok(nodes)
    }

    /// Reads what is [missing](missing) of `nodes`.
    fn fill(&self, missing: &[(NodeIndex, usize)], nodes: &mut [Option<Node>]) -> Result<()> {
        let mut buffer = Vec::new();
        let mut rest = missing;
        while let [(first, _), ..] = *rest {
            let (group, others) = rest.split_at(near(rest));
            rest = others;
            let last = group.last().map_or(first, |&(last, _)| last);
            let records = self.read_records(first, last, &mut buffer)?;
            for &(index, at) in group {
                if let Some(node) = nodes.get_mut(at) {
                    *node = records.node(index);
                }
            }
        }
        Ok(())
    }

    /// The records from that of `first` to that of `last`, as far as they are there.
    fn read_records<'a>(
        &self,
        first: NodeIndex,
        last: NodeIndex,
        buffer: &'a mut Vec<u8>,
    ) -> Result<Records<'a>> {
        let count = distance(first, last).saturating_add(1) as usize;
        let wanted = count.saturating_mul(RECORD);
        // What is longer stays so: only what is new would have to be cleared.
        buffer.resize(buffer.len().max(wanted), 0);
        let (buffer, _) = buffer.split_at_mut(wanted);
        let read = self.tree.read_up_to(node_offset(first), buffer)?;
        // A record that the end of the file cuts is none.
        let (records, _) = read.as_chunks();
        Ok(Records { first, records })
    }

    /// Where block `block` begins in the data, and its leaf, if the tree is right: behind all that stands
    /// below the roots before it.
    ///
    /// # Errors
    ///
    /// [`Error::MissingNode`] names a node that is needed for that and not stored.
    pub fn locate(&self, block: u64) -> Result<(u64, Node)> {
        let leaf = NodeIndex::leaf(block).ok_or(Error::OutOfRange {
            file: FileName::Tree,
            position: block,
        })?;
        let Place {
            mut offset,
            unknown,
            leaf: known,
            mut buffer,
            generation,
        } = self.known.locate(full_roots(block), leaf, NEAR_DEPTH);

        let is_unknown = |root: &NodeIndex| unknown & (1 << root.depth()) != 0;
        // From the highest to the lowest: those that are near come last.
        let is_near = |root: &NodeIndex| root.depth() < NEAR_DEPTH;
        let roots = || full_roots(block).filter(is_unknown);
        for root in roots().take_while(|root| !is_near(root)) {
            let node = self.node(root)?;
            let node = node.ok_or(Error::MissingNode { node: root })?;
            self.known.learn([node], generation);
            offset = offset.saturating_add(node.size);
        }
        let first = roots().find(is_near);
        if let (Some(leaf), None) = (known, first) {
            return Ok((offset, leaf));
        }
        // None of these nodes is learned: the next block at random needs other ones. Who reads this block
        // again is served by what is found. Not who reads the next one: it would stand elsewhere than if it
        // was looked for alone, where a size is wrong.
        let first = first.unwrap_or(leaf);
        let records = self.read_records(first, leaf, &mut buffer)?;
        let node = |node| records.node(node).ok_or(Error::MissingNode { node });
        for root in roots().filter(is_near) {
            offset = offset.saturating_add(node(root)?.size);
        }
        let leaf = node(leaf)?;
        self.known.found(offset, leaf, buffer, generation);
        Ok((offset, leaf))
    }

    /// The nodes at `indexes`, in the same order, all of them. Those that were read or written
    /// lately are not read again.
    ///
    /// # Errors
    ///
    /// [`Error::MissingNode`] names the first that is not stored.
    pub fn required_nodes(&self, indexes: &[NodeIndex]) -> Result<Vec<Node>> {
        self.required_nodes_beside(indexes, |_| None)
    }

    /// [`required_nodes`](Self::required_nodes), of which some are not looked for in the file: those
    /// that `pending` knows.
    ///
    /// # Errors
    ///
    /// As `required_nodes`.
    pub fn required_nodes_beside(
        &self,
        indexes: &[NodeIndex],
        pending: impl Fn(NodeIndex) -> Option<Node>,
    ) -> Result<Vec<Node>> {
        // Most often there is nothing to look for, or all is known, and needs no list of what is missing.
        if indexes.is_empty() {
            return Ok(Vec::new());
        }
        if let Some(nodes) = self.known.get_all(indexes, &pending) {
            return Ok(nodes);
        }
        let (mut nodes, generation) = self.known.get(indexes, pending);
        if nodes.iter().any(Option::is_none) {
            let missing = missing(indexes, &nodes);
            self.fill(&missing, &mut nodes)?;
            let read = missing.iter().filter_map(|&(_, at)| *nodes.get(at)?);
            self.known.learn(read, generation);
        }
        if let Some((&node, _)) = indexes.iter().zip(&nodes).find(|(_, node)| node.is_none()) {
            return Err(Error::MissingNode { node });
        }
        Ok(nodes.into_iter().flatten().collect())
    }

    /// Stores nodes, in any order. Neighbours are written in one go.
    ///
    /// # Errors
    ///
    /// [`Error::OutOfRange`](crate::Error::OutOfRange) beyond what a log can have,
    /// [`Error::InvalidNode`](crate::Error::InvalidNode), and as [`write_key`](Self::write_key).
    pub fn write_nodes(&self, nodes: &[Node]) -> Result<()> {
        nodes.iter().try_for_each(fits)?;
        let nodes = sorted(nodes);
        self.write_sorted(&nodes)
            .inspect(|()| self.known.written(&nodes))
            .inspect_err(|_| self.known.forget())
    }

    fn write_sorted(&self, nodes: &[Node]) -> Result<()> {
        let adjacent = |a: &Node, b: &Node| distance(a.index, b.index) == 1;
        let mut records = Vec::new();
        for run in nodes.chunk_by(adjacent).flat_map(|run| run.chunks(RUN)) {
            records.clear();
            records.extend(run.iter().map(Node::to_record));
            if let Some(first) = run.first() {
                self.write(&self.tree, node_offset(first.index), records.as_flattened())?;
            }
        }
        Ok(())
    }

    /// Stores the nodes of an append that took the log from `old_length` to `new_length` blocks.
    ///
    /// All records from the first new leaf to the last are written, with zeros where a node is not
    /// known yet; nodes elsewhere follow on their own (Hypercore 9 `index.js` `_append`). The zeros
    /// also remove what an append that was never completed left there. A parent that stands right
    /// before the first leaf, as of every second append there is one, is written with it.
    ///
    /// # Errors
    ///
    /// As [`write_nodes`](Self::write_nodes).
    pub fn write_append_nodes(
        &self,
        old_length: u64,
        new_length: u64,
        nodes: &[Node],
    ) -> Result<()> {
        if new_length <= old_length {
            return self.write_nodes(nodes);
        }
        within(FileName::Tree, new_length, MAX_LENGTH)?;
        nodes.iter().try_for_each(fits)?;
        self.write_leaves_and_between(old_length, new_length, nodes)
            .inspect(|()| self.known.written_from(old_length.saturating_mul(2), nodes))
            .inspect_err(|_| self.known.forget())
    }

    fn write_leaves_and_between(
        &self,
        old_length: u64,
        new_length: u64,
        nodes: &[Node],
    ) -> Result<()> {
        let (leaf, end) = (old_length.saturating_mul(2), records(new_length));
        let position = |node: &Node| node.index.get();
        let joins = |&before: &u64| nodes.iter().any(|node| position(node) == before);
        let start = leaf.checked_sub(1).filter(joins).unwrap_or(leaf);
        let is_inside = |node: &Node| (start..end).contains(&position(node));
        let (mut inside, elsewhere): (Vec<_>, Vec<_>) = nodes.iter().copied().partition(is_inside);
        let elsewhere = sorted(&elsewhere);
        // In the order of the writes; within one they stand in any.
        inside.sort_by_key(|node| position(node).saturating_sub(start) / RUN_LEN);
        let mut inside = &inside[..];
        let mut records = Vec::new();
        for first in (start..end).step_by(RUN) {
            let behind = first.saturating_add(RUN_LEN).min(end);
            records.clear();
            records.resize(behind.saturating_sub(first) as usize, [0; RECORD]);
            let count = inside.partition_point(|node| position(node) < behind);
            let (here, others) = inside.split_at(count);
            inside = others;
            for node in here {
                let at = position(node).saturating_sub(first) as usize;
                if let Some(record) = records.get_mut(at) {
                    *record = node.to_record();
                }
            }
            self.write(&self.tree, record_offset(first), records.as_flattened())?;
        }
        self.write_sorted(&elsewhere)
    }

    /// Removes the node at `index`.
    ///
    /// # Errors
    ///
    /// As [`write_key`](Self::write_key).
    pub fn clear_node(&self, index: NodeIndex) -> Result<()> {
        let start = node_offset(index);
        let cleared = self.clear(&self.tree, start, start.saturating_add(RECORD_LEN));
        self.known.forget();
        cleared
    }

    /// How many blocks the file `tree` has room for.
    ///
    /// # Errors
    ///
    /// When the storage fails.
    pub fn tree_blocks(&self) -> Result<u64> {
        Ok((self.tree.content_len()? / RECORD_LEN).div_ceil(2))
    }

    /// Cuts `tree` behind the last leaf of a log of `length` blocks.
    ///
    /// # Errors
    ///
    /// As [`write_key`](Self::write_key).
    pub fn truncate_tree(&self, length: u64) -> Result<()> {
        self.truncate(&self.tree, record_offset(records(length)))
    }
}

/// Nodes at most this far apart are read together: 4 KiB cost no more than another call.
const NEAR: u64 = 100;

/// Roots below this depth are read with the leaf that follows them: they stand less than 8 KiB before
/// it, and those above stand alone.
const NEAR_DEPTH: u64 = 7;

/// How many nodes one write covers at most: 1 MiB.
const RUN: usize = (1 << 20) / RECORD;
const RUN_LEN: u64 = RUN as u64;

/// Records that were read, from that of `first` on.
struct Records<'a> {
    first: NodeIndex,
    records: &'a [[u8; RECORD]],
}

impl Records<'_> {
    fn node(&self, index: NodeIndex) -> Option<Node> {
        let at = distance(self.first, index) as usize;
        Node::from_record(index, self.records.get(at)?)
    }
}

/// How many positions there are from `a` to `b`, which is not before it.
const fn distance(a: NodeIndex, b: NodeIndex) -> u64 {
    b.get().saturating_sub(a.get())
}

/// Those of `indexes` whose nodes are missing, in the order of the file, and which they are.
fn missing(indexes: &[NodeIndex], nodes: &[Option<Node>]) -> Vec<(NodeIndex, usize)> {
    let all = indexes.iter().copied().zip(nodes).zip(0..);
    let mut missing: Vec<_> = all
        .filter(|&((index, node), _)| node.is_none() && !is_beyond(index))
        .map(|((index, _), at)| (index, at))
        .collect();
    missing.sort_unstable();
    missing
}

/// How many of the sorted nodes are worth one read.
fn near(sorted: &[(NodeIndex, usize)]) -> usize {
    let Some(&(first, _)) = sorted.first() else {
        return 0;
    };
    let others = sorted.iter().zip(sorted.iter().skip(1));
    let is_near = |&(&(before, _), &(node, _)): &(&(NodeIndex, _), &(NodeIndex, _))| {
        distance(before, node) <= NEAR && distance(first, node) < (CHUNK / RECORD) as u64
    };
    others.take_while(is_near).count().saturating_add(1)
}

/// Whether no log has this node: climbing leads above every root.
const fn is_beyond(index: NodeIndex) -> bool {
    index.get() >= 2 * MAX_LENGTH
}

/// Fails for a node that has no place in the file, or that would not be found there.
fn fits(node: &Node) -> Result<()> {
    within(FileName::Tree, node.index.get(), 2 * MAX_LENGTH - 1)?;
    let read = Node::from_record(node.index, &node.to_record());
    let node = node.index;
    read.map(drop).ok_or(Error::InvalidNode { node })
}

/// Nodes in the order of the file.
fn sorted(nodes: &[Node]) -> Vec<Node> {
    let mut nodes = nodes.to_vec();
    nodes.sort_unstable_by_key(|node| node.index);
    nodes
}
