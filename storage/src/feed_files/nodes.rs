//! The nodes of the tree: 40 bytes each, in the order of their positions.

use hypercore_merkle::{MAX_LENGTH, Node, NodeIndex, full_roots};

use super::{CHUNK, FeedFiles, RECORD, node_offset, within};
use crate::{Error, FileName, error::Result, header, node_cache::Place};

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
        Ok(Node::from_record(index, &record).filter(|_| read == RECORD))
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
            let record = |index: NodeIndex| (index.get() - first.get()) as usize;
            buffer.clear();
            buffer.resize(RECORD * (record(group[group.len() - 1].0) + 1), 0);
            let records = self.read_records(first, &mut buffer)?;
            for &(index, at) in group {
                nodes[at] = Node::from_record(index, &records[record(index)]);
            }
        }
        Ok(())
    }

    /// The records from that of `first` on, for which `buffer` has room. Those that are not there are
    /// zeros.
    fn read_records<'a>(
        &self,
        first: NodeIndex,
        buffer: &'a mut [u8],
    ) -> Result<&'a [[u8; RECORD]]> {
        let read = self.tree.read_up_to(node_offset(first), buffer)?;
        // A record that the end of the file cuts is none.
        buffer[read - read % RECORD..].fill(0);
        Ok(buffer.as_chunks().0)
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
            offset += node.size;
        }
        let first = roots().find(is_near);
        if let (Some(leaf), None) = (known, first) {
            return Ok((offset, leaf));
        }
        // None of these nodes is learned: the next block at random needs other ones. Who reads this block
        // again is served by what is found. Not who reads the next one: it would stand elsewhere than if it
        // was looked for alone, where a size is wrong.
        let first = first.unwrap_or(leaf);
        let record = |index: NodeIndex| (index.get() - first.get()) as usize;
        buffer.resize(RECORD * NEAR_RECORDS, 0);
        let records = self.read_records(first, &mut buffer[..RECORD * (record(leaf) + 1)])?;
        let node = |node: NodeIndex| {
            let found = Node::from_record(node, &records[record(node)]);
            found.ok_or(Error::MissingNode { node })
        };
        for root in roots().filter(is_near) {
            offset += node(root)?.size;
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
            let read = missing.iter().filter_map(|&(_, at)| nodes[at]);
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
        let adjacent = |a: &Node, b: &Node| b.index.get() - a.index.get() == 1;
        let mut buffer = Vec::new();
        for run in nodes.chunk_by(adjacent).flat_map(|run| run.chunks(RUN)) {
            buffer.clear();
            run.iter()
                .for_each(|node| buffer.extend_from_slice(&node.to_record()));
            self.write(&self.tree, node_offset(run[0].index), &buffer)?;
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
            .inspect(|()| self.known.written_from(2 * old_length, nodes))
            .inspect_err(|_| self.known.forget())
    }

    fn write_leaves_and_between(
        &self,
        old_length: u64,
        new_length: u64,
        nodes: &[Node],
    ) -> Result<()> {
        let (leaf, end) = (2 * old_length, 2 * new_length - 1);
        let position = |node: &Node| node.index.get();
        let joins = nodes.iter().any(|node| position(node) + 1 == leaf);
        let start = leaf - u64::from(joins);
        let is_inside = |node: &Node| (start..end).contains(&position(node));
        let (mut inside, elsewhere): (Vec<_>, Vec<_>) = nodes.iter().copied().partition(is_inside);
        let elsewhere = sorted(&elsewhere);
        // In the order of the writes; within one they stand in any.
        inside.sort_by_key(|node| (position(node) - start) / RUN as u64);
        let mut inside = &inside[..];
        let mut buffer = Vec::new();
        let mut first = start;
        while first < end {
            let records = (end - first).min(RUN as u64);
            buffer.clear();
            buffer.resize(records as usize * RECORD, 0);
            let here = inside.partition_point(|node| position(node) < first + records);
            for node in &inside[..here] {
                let at = (position(node) - first) as usize * RECORD;
                buffer[at..at + RECORD].copy_from_slice(&node.to_record());
            }
            inside = &inside[here..];
            self.write(&self.tree, header::LEN + RECORD as u64 * first, &buffer)?;
            first += records;
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
        let cleared = self.clear(&self.tree, start, start + RECORD as u64);
        self.known.forget();
        cleared
    }

    /// How many blocks the file `tree` has room for.
    ///
    /// # Errors
    ///
    /// When the storage fails.
    pub fn tree_blocks(&self) -> Result<u64> {
        Ok((self.tree.content_len()? / RECORD as u64).div_ceil(2))
    }

    /// Cuts `tree` behind the last leaf of a log of `length` blocks.
    ///
    /// # Errors
    ///
    /// As [`write_key`](Self::write_key).
    pub fn truncate_tree(&self, length: u64) -> Result<()> {
        let records = (2 * length.min(MAX_LENGTH)).saturating_sub(1);
        self.truncate(&self.tree, header::LEN + RECORD as u64 * records)
    }
}

/// Nodes at most this far apart are read together: 4 KiB cost no more than another call.
const NEAR: u64 = 100;

/// Roots below this depth are read with the leaf that follows them: they stand less than 8 KiB before
/// it, and those above stand alone.
const NEAR_DEPTH: u64 = 7;

/// How many records there are at most from such a root to the leaf, both included: half of those of its
/// blocks, and those of as many blocks that follow, of which the leaf is the last.
const NEAR_RECORDS: usize = 3 << (NEAR_DEPTH - 1);

/// How many nodes one write covers at most: 1 MiB.
const RUN: usize = (1 << 20) / RECORD;

/// Those of `indexes` whose nodes are missing, in the order of the file, and which they are.
fn missing(indexes: &[NodeIndex], nodes: &[Option<Node>]) -> Vec<(NodeIndex, usize)> {
    let all = indexes.iter().copied().zip(0..);
    let mut missing: Vec<_> = all
        .filter(|&(index, at)| nodes[at].is_none() && !is_beyond(index))
        .collect();
    missing.sort_unstable();
    missing
}

/// How many of the sorted nodes, which are at least one, are worth one read.
fn near(sorted: &[(NodeIndex, usize)]) -> usize {
    let distance = |a: usize, b: usize| sorted[b].0.get() - sorted[a].0.get();
    let far =
        |&at: &usize| distance(at - 1, at) > NEAR || distance(0, at) >= (CHUNK / RECORD) as u64;
    (1..sorted.len()).find(far).unwrap_or(sorted.len())
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
