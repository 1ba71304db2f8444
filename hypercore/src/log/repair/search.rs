//! What lost nodes of a tree may be: what is stored, or what the nodes and blocks below make up. Which of them is
//! right is decided by a parent or a signature, so that a wrong guess costs time and nothing else.

use std::num::NonZeroU64;

use hypercore_merkle::{MAX_BLOCK_SIZE, Node, NodeIndex, leaf_hash};

use super::Work;
use crate::error::Result;

/// How many nodes are computed for each that is looked for.
const TRIES: u64 = 16;

/// So many possibilities for one node are tried.
pub(super) const MAX_CANDIDATES: usize = 8;

/// Below more leaves of unknown size than these nothing is tried.
const MAX_UNKNOWN: u64 = 1 << 14;

/// What is known of the sizes of blocks.
struct Measure {
    /// The bytes of those of known size.
    size: u64,
    /// How many others there are.
    unknown: u64,
}

impl Measure {
    /// What is known of these blocks and those of `other`.
    const fn with(&self, other: &Self) -> Self {
        Self {
            size: self.size.saturating_add(other.size),
            unknown: self.unknown.saturating_add(other.unknown),
        }
    }
}

impl Work<'_> {
    /// How many bytes the blocks below each of these roots could have: as many as their leaves say,
    /// but below one of them what the others leave of the data.
    pub(super) fn root_sizes(&self, roots: &[NodeIndex]) -> Result<Vec<Vec<u64>>> {
        let mut sizes = Vec::new();
        let mut unknown = None;
        for (at, &root) in roots.iter().enumerate() {
            let measure = self.measure(root)?;
            if measure.unknown > 0 && unknown.replace(at).is_some() {
                return Ok(Vec::new());
            }
            sizes.push(measure.size);
        }
        let data = self.files.data_len()?;
        let all = sizes.iter().copied().fold(0, u64::saturating_add);
        let with_rest = |at: usize| {
            let mut sizes = sizes.clone();
            let size = sizes.get_mut(at)?;
            let others = all.checked_sub(*size)?;
            *size = data.checked_sub(others)?;
            Some(sizes)
        };
        let Some(unknown) = unknown else {
            let others = (0..roots.len()).filter_map(with_rest);
            let mut sizes: Vec<_> = [sizes.clone()].into_iter().chain(others).collect();
            sizes.dedup();
            return Ok(sizes);
        };
        Ok(with_rest(unknown).into_iter().collect())
    }

    /// Two nodes whose parent is `parent`: as they are stored, or as what is below them says.
    pub(super) fn find_children(
        &self,
        parent: &Node,
        left: NodeIndex,
        right: NodeIndex,
        offset: u64,
    ) -> Result<Option<(Node, Node)>> {
        if let Some((left, right)) = self.stored_children(parent)? {
            return Ok(Some((left, right)));
        }
        let (first, last) = (left.left_span(), right.right_span());
        self.begin_search(last.get().saturating_sub(first.get()));
        for (left_size, right_size) in self.splits(parent.size, left, right)? {
            let rights = self.candidates(right, offset.saturating_add(left_size), right_size)?;
            for left in self.candidates(left, offset, left_size)? {
                for &right in &rights {
                    if Node::parent(&left, &right).as_ref() == Some(parent) {
                        return Ok(Some((left, right)));
                    }
                }
            }
        }
        Ok(None)
    }

    /// The children of `parent` as they are stored, if it is their parent.
    pub(super) fn stored_children(&self, parent: &Node) -> Result<Option<(Node, Node)>> {
        let Some((left, right)) = parent.index.children() else {
            return Ok(None);
        };
        let stored = (self.files.node(left)?, self.files.node(right)?);
        Ok(match stored {
            (Some(left), Some(right)) => {
                (Node::parent(&left, &right).as_ref() == Some(parent)).then_some((left, right))
            }
            _ => None,
        })
    }

    /// Where sizes contradict each other on every level, twice as many ways are open on each of them.
    pub(super) fn begin_search(&self, nodes: u64) {
        self.tries.set(nodes.saturating_mul(TRIES));
    }

    /// What the node at `index` could be that has `size` bytes from `offset` on.
    pub(super) fn candidates(&self, index: NodeIndex, offset: u64, size: u64) -> Result<Vec<Node>> {
        let stored = self.files.node(index)?;
        let mut candidates = Vec::from_iter(stored);
        if let Some((left, right)) = index.children() {
            if let Some(stored) = stored
                && self.stored_children(&stored)?.is_some()
            {
                return Ok(candidates);
            }
            let Some(tries) = self.tries.get().checked_sub(1) else {
                return Ok(candidates);
            };
            self.tries.set(tries);
            for (left_size, right_size) in self.splits(size, left, right)? {
                let rights =
                    self.candidates(right, offset.saturating_add(left_size), right_size)?;
                for left in self.candidates(left, offset, left_size)? {
                    candidates.extend(rights.iter().filter_map(|right| Node::parent(&left, right)));
                }
            }
            // Those below that make up what is stored are the right ones.
            if let Some(stored) = stored
                && candidates.iter().skip(1).any(|&node| node == stored)
            {
                return Ok(vec![stored]);
            }
        } else {
            candidates.extend(self.block_at(index, offset, size)?);
        }
        candidates.dedup();
        candidates.truncate(MAX_CANDIDATES);
        Ok(candidates)
    }

    /// How many of `size` bytes the node at `left` could have, and that at `right` the others.
    fn splits(&self, size: u64, left: NodeIndex, right: NodeIndex) -> Result<Vec<(u64, u64)>> {
        let (left_known, right_known) = (self.measure(left)?, self.measure(right)?);
        let mut sizes = Vec::new();
        if left_known.unknown == 0 {
            sizes.push(left_known.size);
        }
        if right_known.unknown == 0 {
            sizes.extend(size.checked_sub(right_known.size));
        }
        if sizes.is_empty() {
            sizes.extend(self.files.node(left)?.map(|left| left.size));
            let right = self.files.node(right)?;
            sizes.extend(right.and_then(|right| size.checked_sub(right.size)));
            let both = left_known.with(&right_known);
            let unknown = NonZeroU64::new(both.unknown).filter(|count| count.get() <= MAX_UNKNOWN);
            if let (Some(rest), Some(unknown)) = (size.checked_sub(both.size), unknown) {
                let each = self.probable_size(left, rest, unknown)?;
                sizes.push(
                    left_known
                        .size
                        .saturating_add(left_known.unknown.saturating_mul(each)),
                );
            }
        }
        let with_rest = |left| Some((left, size.checked_sub(left)?));
        let mut splits: Vec<_> = sizes.into_iter().filter_map(with_rest).collect();
        splits.dedup();
        Ok(splits)
    }

    /// How large each of `count` blocks may be that have `size` bytes together. Of what was cut into
    /// blocks all have the same size but the last.
    fn probable_size(&self, first: NodeIndex, size: u64, count: NonZeroU64) -> Result<u64> {
        let each = size / count;
        if size.is_multiple_of(count.get()) {
            return Ok(each);
        }
        let before = first
            .left_span()
            .get()
            .checked_sub(2)
            .and_then(NodeIndex::new);
        let before = before.map(|leaf| self.files.node(leaf)).transpose()?;
        Ok(before.flatten().map_or(each, |leaf| leaf.size))
    }

    /// What is known of the sizes of the blocks below a node.
    fn measure(&self, index: NodeIndex) -> Result<Measure> {
        let stored = self.files.node(index)?;
        let Some((left, right)) = index.children() else {
            let size = stored.filter(is_possible).map(|leaf| leaf.size);
            return Ok(Measure {
                size: size.unwrap_or(0),
                unknown: u64::from(size.is_none()),
            });
        };
        if let Some(stored) = stored
            && self.stored_children(&stored)?.is_some()
        {
            return Ok(Measure {
                size: stored.size,
                unknown: 0,
            });
        }
        let left = self.measure(left)?;
        if left.unknown > MAX_UNKNOWN {
            return Ok(left);
        }
        Ok(left.with(&self.measure(right)?))
    }
}

/// Whether a leaf can be one: of some that are lost in part, the size is.
fn is_possible(leaf: &Node) -> bool {
    leaf.size <= MAX_BLOCK_SIZE && (leaf.size > 0 || leaf.hash == leaf_hash(&[]))
}
