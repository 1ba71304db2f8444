//! What blocks, the nodes of the tree and the lengths of logs have to do with each other.
//!
//! In a log all of these are below 2^53. Of greater numbers, sums stop at the greatest there is.

use std::ops::Range;

use hypercore_merkle::NodeIndex;

/// The length of a log that ends with `block`, whose signature stands at that block.
pub(crate) const fn length_with(block: u64) -> u64 {
    block.saturating_add(1)
}

/// `block` and no other.
pub(crate) const fn one_block(block: u64) -> Range<u64> {
    block..block.saturating_add(1)
}

/// How many blocks, or bytes, lie in a range.
pub(crate) const fn length_of(range: &Range<u64>) -> u64 {
    range.end.saturating_sub(range.start)
}

/// The nodes from the first leaf of `blocks` up to the first leaf behind them.
pub(crate) const fn nodes_of(blocks: Range<u64>) -> Range<u64> {
    blocks.start.saturating_mul(2)..blocks.end.saturating_mul(2)
}

/// A node and all that are below it.
pub(crate) fn nodes_below(top: NodeIndex) -> Range<u64> {
    top.left_span().get()..top.right_span().get().saturating_add(1)
}

/// The blocks below a node.
pub(crate) fn blocks_below(top: NodeIndex) -> Range<u64> {
    top.left_span().get() / 2..top.end()
}
