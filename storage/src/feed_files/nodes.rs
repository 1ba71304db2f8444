//! The nodes of the tree: 40 bytes each, in the order of their positions.

use hypercore_merkle::{MAX_LENGTH, Node, NodeIndex};

use super::{CHUNK, FeedFiles, RECORD, node_offset, within};
use crate::{Error, FileName, error::Result, header};

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
        let mut order: Vec<_> = indexes.iter().copied().zip(0..).collect();
        order.retain(|&(index, _)| !is_beyond(index));
        order.sort_unstable();
        let mut nodes = vec![None; indexes.len()];
        let mut buffer = Vec::new();
        let mut rest = &order[..];
        while let [(first, _), ..] = *rest {
            let (group, others) = rest.split_at(near(rest));
            rest = others;
            let record = |index: NodeIndex| (index.get() - first.get()) as usize;
            buffer.clear();
            buffer.resize(RECORD * (record(group[group.len() - 1].0) + 1), 0);
            let read = self.tree.read_up_to(node_offset(first), &mut buffer)?;
            // A record that the end of the file cuts is none.
            buffer[read - read % RECORD..].fill(0);
            let (records, _) = buffer.as_chunks();
            for &(index, at) in group {
                nodes[at] = Node::from_record(index, &records[record(index)]);
            }
        }
        Ok(nodes)
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
        let (known, generation) = self.known.get(indexes, pending);
        let mut nodes = Vec::with_capacity(indexes.len());
        nodes.extend(known.iter().copied().map_while(|node| node));
        if nodes.len() == indexes.len() {
            return Ok(nodes);
        }
        let unknown: Vec<_> = indexes
            .iter()
            .zip(&known)
            .filter_map(|(&index, known)| known.is_none().then_some(index))
            .collect();
        let read = self.nodes(&unknown)?;
        self.known.learn(read.iter().copied().flatten(), generation);
        let mut read = read.into_iter();
        nodes.clear();
        for (&node, known) in indexes.iter().zip(known) {
            let found = known.or_else(|| read.next().flatten());
            nodes.push(found.ok_or(Error::MissingNode { node })?);
        }
        Ok(nodes)
    }

    /// Stores nodes, in any order. Neighbours are written in one go.
    ///
    /// # Errors
    ///
    /// [`Error::OutOfRange`](crate::Error::OutOfRange) beyond what a log can have, and as
    /// [`write_key`](Self::write_key).
    pub fn write_nodes(&self, nodes: &[Node]) -> Result<()> {
        let nodes = sorted(nodes)?;
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
    /// also remove what an append that was never completed left there.
    ///
    /// # Errors
    ///
    /// [`Error::OutOfRange`](crate::Error::OutOfRange) beyond what a log can have, and as
    /// [`write_key`](Self::write_key).
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
        self.write_leaves_and_between(old_length, new_length, nodes)
            .inspect(|()| self.known.written(nodes))
            .inspect_err(|_| self.known.forget())
    }

    fn write_leaves_and_between(
        &self,
        old_length: u64,
        new_length: u64,
        nodes: &[Node],
    ) -> Result<()> {
        let (start, end) = (2 * old_length, 2 * new_length - 1);
        let nodes = sorted(nodes)?;
        let position = |limit| nodes.partition_point(|node| node.index.get() < limit);
        let (inside, outside) = (position(start)..position(end), position(end)..);
        let before = &nodes[..inside.start];
        let outside = &nodes[outside];
        let mut inside = &nodes[inside];
        let mut buffer = Vec::new();
        let mut first = start;
        while first < end {
            let records = (end - first).min(RUN as u64);
            buffer.clear();
            buffer.resize(records as usize * RECORD, 0);
            let here = inside.partition_point(|node| node.index.get() < first + records);
            for node in &inside[..here] {
                let at = (node.index.get() - first) as usize * RECORD;
                buffer[at..at + RECORD].copy_from_slice(&node.to_record());
            }
            inside = &inside[here..];
            self.write(&self.tree, header::LEN + RECORD as u64 * first, &buffer)?;
            first += records;
        }
        self.write_sorted(before)?;
        self.write_sorted(outside)
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

/// How many nodes one write covers at most: 1 MiB.
const RUN: usize = (1 << 20) / RECORD;

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

/// Nodes in the order of the file, if all of them have a place there.
fn sorted(nodes: &[Node]) -> Result<Vec<Node>> {
    let mut nodes = nodes.to_vec();
    nodes.sort_unstable_by_key(|node| node.index);
    let last = nodes.last().map_or(0, |node| node.index.get());
    within(FileName::Tree, last, 2 * MAX_LENGTH - 1)?;
    Ok(nodes)
}
