//! From a byte to its block (Hypercore 9 `index.js` _seek).

use crate::node::{Node, NodeIndex, full_roots};
use crate::tree_index::NodeSet;

/// A search for the block that holds a byte, one node at a time.
///
/// Call [`step`](Self::step); as long as it answers [`SeekStep::Read`], load that node, hand it to
/// [`supply`](Self::supply), and step again.
#[derive(Clone, Debug)]
pub struct Seek {
    length: u64,
    /// How far into what is not yet skipped.
    rest: u64,
    /// The smallest known node that holds the byte.
    nearest: NodeIndex,
    state: State,
}

/// What a [`Seek`] needs or found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SeekStep {
    /// Load this node and supply it.
    Read(NodeIndex),
    /// The byte is in this block.
    Found {
        /// The number of the block.
        block: u64,
        /// The position of the byte in the block.
        offset: u64,
    },
    /// The byte is somewhere below this node, but too little of the tree is known to tell where.
    Below {
        /// The nearest node known to hold the byte.
        node: NodeIndex,
        /// The position of the byte after the blocks known to come before it.
        offset: u64,
    },
    /// The log is shorter than that.
    OutOfBounds,
}

#[derive(Clone, Copy, Debug)]
enum State {
    /// Trying the roots from left to right: the `n`-th is next.
    Root(usize),
    /// The byte is below this node: look at its left half.
    Inside(NodeIndex),
    /// Waiting for a node of the left half.
    Left(NodeIndex),
    /// Nothing more to do.
    Done(SeekStep),
}

impl Seek {
    /// Looks for the byte at `byte_offset` in a log of `length` blocks.
    ///
    /// Blocks without bytes are skipped, but byte 0 is always in block 0, even of an empty log.
    #[must_use]
    pub fn new(length: u64, byte_offset: u64) -> Self {
        let state = if byte_offset == 0 {
            State::Done(SeekStep::Found {
                block: 0,
                offset: 0,
            })
        } else {
            State::Root(0)
        };
        Self {
            length,
            rest: byte_offset,
            nearest: FIRST,
            state,
        }
    }

    /// What next? `present` are the nodes that can be read.
    pub fn step(&mut self, present: &impl NodeSet) -> SeekStep {
        match self.state {
            State::Root(n) => match full_roots(self.length).nth(n) {
                Some(root) => SeekStep::Read(root),
                None => self.done(SeekStep::OutOfBounds),
            },
            State::Inside(node) => {
                let mut left = node;
                while let Some((child, _)) = left.children() {
                    left = child;
                    if present.has(left) {
                        self.state = State::Left(left);
                        return SeekStep::Read(left);
                    }
                }
                self.done(match self.nearest.block() {
                    Some(block) => SeekStep::Found {
                        block,
                        offset: self.rest,
                    },
                    None => SeekStep::Below {
                        node: self.nearest,
                        offset: self.rest,
                    },
                })
            }
            State::Left(node) => SeekStep::Read(node),
            State::Done(step) => step,
        }
    }

    /// The node that [`step`](Self::step) asked for. Any other is ignored.
    pub fn supply(&mut self, node: Node) {
        // What is left of the offset behind the node; nothing, if it is inside.
        let behind = self.rest.checked_sub(node.size);
        match self.state {
            State::Root(n) if full_roots(self.length).nth(n) == Some(node.index) => {
                if let Some(rest) = behind {
                    self.rest = rest;
                    self.state = State::Root(n.saturating_add(1));
                } else {
                    self.nearest = node.index;
                    self.state = State::Inside(node.index);
                }
            }
            State::Left(index) if index == node.index => {
                let next = behind.map_or(index, |_| index.sibling());
                // In the right half of the nearest node: that is as near as the half itself.
                if behind.is_none() || index.parent() == self.nearest {
                    self.nearest = next;
                }
                self.rest = behind.unwrap_or(self.rest);
                self.state = State::Inside(next);
            }
            _ => {}
        }
    }

    fn done(&mut self, step: SeekStep) -> SeekStep {
        self.state = State::Done(step);
        step
    }
}

const FIRST: NodeIndex = NodeIndex::leaf(0).unwrap();
