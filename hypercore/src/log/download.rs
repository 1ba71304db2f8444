//! Taking in what peers have proven.
//!
//! Answers come in rows, and one leans on the other: the proof of a block leaves out the nodes that
//! came with its neighbour. So each is checked as if those before it were stored already, and then
//! all are written together, neighbours in one go. What that gains is in `BENCHMARKS.md`.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use hypercore_merkle::{
    Block, ChangeSet, Node, NodeIndex, NodeSet, Proof, Roots, TreeHead, verify,
};
use hypercore_storage::FeedFiles;

use super::{
    Log, TreeBits, Vouched,
    append::{blocks_of, placed, write_blocks, write_signature},
};
use crate::{
    error::{Corruption, Error, Result},
    fork::ForkProof,
};

/// What a peer has sent about a block.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) index: u64,
    /// Without it only the proof is of interest.
    pub(crate) block: Option<Block>,
    pub(crate) proof: Proof,
}

/// What became of an [`Answer`] that is true.
#[derive(Debug)]
pub(crate) enum Taken {
    /// It is stored.
    Stored {
        /// The bytes of the block, if it has any.
        value: Option<Bytes>,
        /// Whether that block was not here before.
        is_new: bool,
        /// Whether the log is longer now.
        longer: bool,
    },
    /// It shows a longer log, with this end, that is not taken in, because this one is written here.
    Refused(TreeHead),
    /// It is of another history.
    Forked(Box<ForkProof>),
    /// Our own append is about to answer the same question.
    Conflict,
    /// It is signed for a shorter log, and not known whether that was ours.
    Undecided,
}

impl Log {
    /// Checks block `index` (or, without a value, the log's length) against `proof`.
    pub(crate) fn check(
        &self,
        index: u64,
        block: Option<Block>,
        proof: &Proof,
    ) -> Result<ChangeSet> {
        self.check_after(&Batch::default(), index, block, proof)
    }

    /// Checks answers, and stores what they prove.
    ///
    /// Says what became of each, up to the first that is false; that is the error. When writing
    /// fails none is stored.
    pub(crate) fn put(&mut self, answers: Vec<Answer>) -> (Vec<Taken>, Result<()>) {
        let mut taken = Vec::with_capacity(answers.len());
        let files = match self.prepare_write() {
            Ok(files) => files,
            Err(error) => return (taken, Err(error)),
        };
        let mut batch = Batch {
            changes: Vec::with_capacity(answers.len()),
            pages: self.bitfield.page_count(),
            ..Batch::default()
        };
        let mut result = Ok(());
        for answer in answers {
            match self.take(&mut batch, answer) {
                Ok(outcome) => taken.push(outcome),
                Err(error) => {
                    result = Err(error);
                    break;
                }
            }
        }
        if let Err(error) = batch.write(&files) {
            self.undo(batch, &files);
            return (Vec::new(), Err(error));
        }
        let unsynced = &mut self.unsynced;
        for block in batch.changes.iter().flat_map(ChangeSet::blocks) {
            unsynced.bytes = unsynced.bytes.saturating_add(block.size());
        }
        let count = batch.changes.len() as u64;
        unsynced.blocks = unsynced.blocks.saturating_add(count);
        (taken, result)
    }

    /// Takes in what `answer` proves, which is not written yet.
    fn take(&mut self, batch: &mut Batch, answer: Answer) -> Result<Taken> {
        let Answer {
            index,
            block,
            proof,
        } = answer;
        let change = self.check_after(batch, index, block, &proof)?;
        let blame = |error| {
            let nodes = change.nodes().iter().chain(change.unbound());
            let nodes = nodes.chain(change.roots().map(Roots::nodes).unwrap_or_default());
            self.blame(batch, nodes.map(|node| node.index), error)
        };
        let head = change
            .head()
            .filter(|head| head.length > self.head.length)
            .copied();
        if let Some(head) = head {
            // Nobody can say which of two histories is to be followed. Also during an append, which must
            // not become part of a second one.
            if self.fork.is_some() || self.is_writer() && self.resuming == 0 {
                return Ok(Taken::Refused(head));
            }
            if self.appending {
                return Ok(Taken::Conflict);
            }
        }
        let other = self.other_history(&batch.nodes, &change);
        if let Some(other) = other.map_err(blame)? {
            return Ok(other);
        }
        if let Some(head) = head {
            if self.is_writer() {
                // Before that is stored: whoever finds it would go on behind what is missing.
                self.note_resume(&head)?;
            }
            batch
                .end
                .get_or_insert_with(|| (self.roots.clone(), self.vouched));
        }
        let value = change.blocks().first().map(|block| block.value().clone());
        let is_new = value.is_some() && !self.bitfield.get(index);
        if is_new {
            batch.added_blocks.push(index);
        }
        self.adopt(&change, &mut batch.added_nodes);
        let nodes = change.nodes().iter();
        batch.nodes.extend(nodes.map(|node| (node.index, *node)));
        batch.changes.push(change);
        Ok(Taken::Stored {
            value,
            is_new,
            longer: head.is_some(),
        })
    }

    /// [`check`](Self::check), after changes that are not written yet.
    fn check_after(
        &self,
        batch: &Batch,
        index: u64,
        block: Option<Block>,
        proof: &Proof,
    ) -> Result<ChangeSet> {
        let present = TreeBits(&self.bitfield);
        let byte_offset = batch.end_before(index);
        let plan = verify::plan_at(&present, index, block.is_some(), byte_offset, proof)?;
        let pending = |node| batch.nodes.get(&node).copied();
        let local = self.files()?.required_nodes_beside(plan.nodes(), pending)?;
        plan.check(&self.verifier, &self.head, block, proof, &local)
            .map_err(|error| {
                let nodes = local.iter().map(|node| node.index);
                self.blame(batch, nodes, error.into())
            })
    }

    /// Why a proof that was held against these nodes did not hold: our own tree may be what is false,
    /// and then every honest peer would seem to lie.
    fn blame(&self, batch: &Batch, nodes: impl Iterator<Item = NodeIndex>, error: Error) -> Error {
        if !error.is_peer_fault() {
            return error;
        }
        let mut checked = BTreeSet::new();
        let mut results = nodes.map(|node| self.check_stored(batch, node, &mut checked));
        results.find_map(Result::err).unwrap_or(error)
    }

    /// Fails if `node` is stored and does not hash up to our roots, as far as all between is stored. No
    /// farther than to what was `checked`, so that a liar cannot have it done for each of many nodes.
    fn check_stored(
        &self,
        batch: &Batch,
        mut node: NodeIndex,
        checked: &mut BTreeSet<NodeIndex>,
    ) -> Result<()> {
        let bits = TreeBits(&self.bitfield);
        let pending = |node| batch.nodes.get(&node).copied();
        let files = self.files()?;
        let load = |nodes: &[NodeIndex]| files.required_nodes_beside(nodes, pending);
        while bits.has(node) && checked.insert(node) {
            let parent = node.parent();
            let family = [node, node.sibling(), parent];
            let root = self.roots.nodes().iter().find(|root| root.index == node);
            let fault = if let Some(root) = root {
                (load(&[node])?.first() != Some(root)).then_some(node)
            } else if family.iter().all(|&node| bits.has(node)) {
                let fits = matches!(load(&family)?[..], [a, b, above] if Node::parent(&a, &b) == Some(above));
                (!fits).then_some(parent)
            } else {
                return Ok(());
            };
            if let Some(node) = fault {
                return Err(Corruption::WrongNode { node: node.get() }.into());
            }
            if root.is_some() {
                return Ok(());
            }
            node = parent;
        }
        Ok(())
    }

    /// Takes back what was taken in and could not be written.
    fn undo(&mut self, batch: Batch, files: &FeedFiles) {
        for node in batch.added_nodes {
            self.bitfield.tree_clear(node.get());
        }
        for block in batch.added_blocks {
            self.bitfield.set(block, false);
        }
        // Those that were added show nothing now, and may be where no file of this disk goes.
        self.bitfield.truncate_pages(batch.pages);
        if let Some((roots, vouched)) = batch.end {
            self.head = roots.head();
            self.roots = roots;
            self.vouched = vouched;
            // So much behind the end of a log would count as damage when it is opened again. What stands
            // behind the end of a damaged one may be what was signed.
            if self.is_vouched()
                && let Err(error) = cut(files, &self.head)
            {
                tracing::warn!(%error, "what could not be written is left in part");
            }
        }
    }
}

/// Cuts what stands behind the end of a log to which nobody appends.
fn cut(files: &FeedFiles, head: &TreeHead) -> Result<(), hypercore_storage::Error> {
    files.drop_append(head.length)?;
    files.truncate_tree(head.length)?;
    files.truncate_data(head.byte_length)
}

/// Changes that a log has made to itself and not yet to its files.
#[derive(Debug, Default)]
struct Batch {
    changes: Vec<ChangeSet>,
    /// All nodes of the changes.
    nodes: BTreeMap<NodeIndex, Node>,
    /// The nodes and blocks that were not known before.
    added_nodes: Vec<NodeIndex>,
    added_blocks: Vec<u64>,
    /// How many pages the bitfield had.
    pages: u64,
    /// The end of the log as it was, if that has changed.
    end: Option<(Roots, Vouched)>,
}

impl Batch {
    /// Where the block before `index` ends, if it was the last.
    fn end_before(&self, index: u64) -> Option<u64> {
        let change = self.changes.last()?;
        let [block] = change.blocks() else {
            return None;
        };
        let follows = blocks_of(change).end == index;
        let end = change.byte_offset().checked_add(block.size());
        end.filter(|_| follows)
    }

    fn write(&self, files: &FeedFiles) -> Result<()> {
        let nodes: Vec<_> = self.nodes.values().copied().collect();
        files.write_nodes(&nodes)?;
        let mut blocks: Vec<_> = self.changes.iter().flat_map(placed).collect();
        blocks.sort_by_key(|&(offset, _)| offset);
        write_blocks(files, blocks)?;
        let mut changes = self.changes.iter();
        changes.try_for_each(|change| write_signature(files, change))
    }
}
