//! What a log may write.

use crate::hash::Block;
use crate::node::{Node, NodeIndex};
use crate::roots::{Roots, TreeHead};
use crate::signature::Signature;

/// A change to a log. Only the functions of [`append`](mod@crate::append) and
/// [`VerifyPlan::check`](crate::verify::VerifyPlan::check) make one.
///
/// What a check gave is proven, by a signature, by the key of a static log or by nodes already
/// trusted. So whoever commits nothing else from a peer cannot store a forgery. Not proven is
/// [`byte_offset`](Self::byte_offset) if it was given to [`plan_at`](crate::verify::plan_at):
/// whoever gave it has to know it.
///
/// For an append nobody vouches but the caller. Its nodes follow from the roots that were given, and
/// its signature, if it has one, is right for the key that was given. Whether these are the roots
/// and the key of the log is for the caller to know.
#[derive(Clone, Debug)]
pub struct ChangeSet {
    pub(crate) leaf: NodeIndex,
    pub(crate) blocks: Vec<Block>,
    pub(crate) byte_offset: u64,
    pub(crate) nodes: Vec<Node>,
    pub(crate) unbound: Vec<Node>,
    pub(crate) head: Option<(TreeHead, Roots)>,
    pub(crate) signature: Option<Signature>,
}

impl ChangeSet {
    /// The number of the first block, or of the block whose leaf was proven without its value.
    #[must_use]
    pub fn start_block(&self) -> u64 {
        self.leaf.get() / 2
    }

    /// The leaf of [`start_block`](Self::start_block).
    #[must_use]
    pub fn leaf(&self) -> NodeIndex {
        self.leaf
    }

    /// The blocks to write one after another: none for a leaf without value, one for a block from
    /// a peer, all for an append.
    #[must_use]
    pub fn blocks(&self) -> &[Block] {
        &self.blocks
    }

    /// The blocks, owned.
    #[must_use]
    pub fn into_blocks(self) -> Vec<Block> {
        self.blocks
    }

    /// How many bytes of the log come before the first block; 0 if there are no blocks. As it was
    /// given to [`plan_at`](crate::verify::plan_at), if it was.
    #[must_use]
    pub fn byte_offset(&self) -> u64 {
        self.byte_offset
    }

    /// The nodes to write. An append has them in the order of creation: every leaf, then the
    /// parents it finishes.
    #[must_use]
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// A leaf and its sibling whose hashes are true, but of whose sizes only the sum is. They must
    /// not be written. See [`verify`](crate::verify).
    #[must_use]
    pub fn unbound(&self) -> &[Node] {
        &self.unbound
    }

    /// The signature to write, and the length it is of.
    #[must_use]
    pub fn signature(&self) -> Option<(u64, &Signature)> {
        Some((self.head.as_ref()?.0.length, self.signature.as_ref()?))
    }

    /// The state of the log that was proven on the way, if any. It may be older than ours.
    #[must_use]
    pub fn head(&self) -> Option<&TreeHead> {
        self.head.as_ref().map(|(head, _)| head)
    }

    /// The roots of [`head`](Self::head).
    #[must_use]
    pub fn roots(&self) -> Option<&Roots> {
        self.head.as_ref().map(|(_, roots)| roots)
    }
}
