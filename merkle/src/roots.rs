//! The roots of a log: all that must be known of it to append.

use crate::error::{Error, Result};
use crate::hash::tree_hash;
use crate::node::{Hash, MAX_LENGTH, Node, NodeIndex, checked_size, full_roots};

/// What a writer signs: the state of a whole log.
///
/// Under the signature are `hash` and `length`, in the form of before Hypercore 9 `hash` alone. The
/// hash settles all the rest, but only for whoever computed it from the roots, as [`Roots::head`]
/// does: no [`Verifier`](crate::Verifier) notices when the other fields of a head were changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TreeHead {
    /// How often the log was rewritten: always 0 in Hypercore 9.
    pub fork: u64,
    /// The number of blocks.
    pub length: u64,
    /// The number of bytes.
    pub byte_length: u64,
    /// The tree hash.
    pub hash: Hash,
}

impl TreeHead {
    /// The bytes under the signature: the tree hash, then the length in blocks in big endian
    /// (Hypercore 9 `hypercore-crypto/index.js` signable).
    #[must_use]
    pub fn signable(&self) -> [u8; 40] {
        let mut signable = [0; 40];
        signable[..32].copy_from_slice(&self.hash);
        signable[32..].copy_from_slice(&self.length.to_be_bytes());
        signable
    }
}

/// The roots of a log of some length.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Roots {
    length: u64,
    byte_length: u64,
    nodes: Vec<Node>,
}

impl Roots {
    /// The roots of the empty log: none.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The roots of a log of `length` blocks.
    ///
    /// # Errors
    /// If `nodes` are not at the positions [`full_roots`](crate::full_roots) gives, in that order,
    /// or too large.
    pub fn from_nodes(length: u64, nodes: Vec<Node>) -> Result<Self> {
        if length > MAX_LENGTH {
            return Err(Error::LogTooLong { length });
        }
        if !full_roots(length).eq(nodes.iter().map(|node| node.index)) {
            return Err(Error::WrongRoots { length });
        }
        let byte_length = nodes
            .iter()
            .try_fold(0, |sum, node| checked_size(sum, node.size))
            .ok_or(Error::LogTooLarge { length })?;
        Ok(Self {
            length,
            byte_length,
            nodes,
        })
    }

    /// The number of blocks.
    #[must_use]
    pub fn length(&self) -> u64 {
        self.length
    }

    /// The number of bytes.
    #[must_use]
    pub fn byte_length(&self) -> u64 {
        self.byte_length
    }

    /// The roots, from left to right.
    #[must_use]
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// The state that a signature covers. Of these roots it is true: all fields follow from them.
    #[must_use]
    pub fn head(&self) -> TreeHead {
        TreeHead {
            fork: 0,
            length: self.length,
            byte_length: self.byte_length,
            hash: tree_hash(&self.nodes),
        }
    }

    /// Appends a leaf and adds the nodes that this finishes to `finished`, the leaf first
    /// (Hypercore 9 `merkle-tree-stream/generator.js` next).
    ///
    /// This computes what a tree has to be; whether it is the right one, only a signature tells.
    ///
    /// # Errors
    /// If the log would become too long or too large.
    pub fn push(&mut self, size: u64, hash: Hash, finished: &mut Vec<Node>) -> Result<()> {
        let length = self.length.saturating_add(1);
        let index = NodeIndex::leaf(self.length).ok_or(Error::LogTooLong { length })?;
        let byte_length =
            checked_size(self.byte_length, size).ok_or(Error::LogTooLarge { length })?;
        let mut node = Node { index, size, hash };
        finished.push(node);
        while let Some(left) = self
            .nodes
            .pop_if(|root| root.index.parent() == node.index.parent())
        {
            node = Node::parent(&left, &node).ok_or(Error::LogTooLarge { length })?;
            finished.push(node);
        }
        self.nodes.push(node);
        self.length = length;
        self.byte_length = byte_length;
        Ok(())
    }
}
