//! Positions in the flat tree and the nodes that stand there.

/// A BLAKE2b-256 hash.
pub type Hash = [u8; 32];

/// The greatest number of blocks a log can have: 2^52, so that every tree index stays below 2^53,
/// where the numbers of JavaScript peers end.
pub const MAX_LENGTH: u64 = 1 << 52;

/// The greatest number of bytes a log can have: the largest integer JavaScript peers represent.
pub const MAX_BYTE_LENGTH: u64 = (1 << 53) - 1;

/// A position in the flat tree, below 2^53.
///
/// Leaves are even: block `b` is the leaf `2 * b`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeIndex(u64);

impl NodeIndex {
    /// The position `index`, or `None` from 2^53 on.
    #[must_use]
    pub const fn new(index: u64) -> Option<Self> {
        if index < 2 * MAX_LENGTH { Some(Self(index)) } else { None }
    }

    /// The leaf of `block`, or `None` from 2^52 on.
    #[must_use]
    pub const fn leaf(block: u64) -> Option<Self> {
        if block < MAX_LENGTH { Some(Self(2 * block)) } else { None }
    }

    /// The position as a number.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }
}

/// A node of the tree: its position, the bytes of all blocks below it, and its hash.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Node {
    /// Where in the tree.
    pub index: NodeIndex,
    /// The total size in bytes of the blocks below.
    pub size: u64,
    /// Leaf or parent hash.
    pub hash: Hash,
}
