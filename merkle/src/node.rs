//! Positions in the flat tree and the nodes that stand there.

use std::fmt;
use std::iter;

use crate::hash::{Hex, parent_hash};

/// A BLAKE2b-256 hash.
pub type Hash = [u8; 32];

/// The greatest number of blocks a log can have: 2^52, so that every tree index stays below 2^53,
/// where the numbers of JavaScript peers end.
pub const MAX_LENGTH: u64 = 1 << 52;

/// The greatest number of bytes a log can have: the largest integer JavaScript peers represent.
pub const MAX_BYTE_LENGTH: u64 = (1 << 53) - 1;

/// Where climbing ends, so that no arithmetic of a climb can overflow: far above every real node.
const MAX_DEPTH: u64 = 58;

/// A position in the flat tree.
///
/// Leaves are even: block `b` is the leaf `2 * b`. The number of trailing one bits is the
/// [depth](Self::depth).
///
/// [`new`](Self::new) and [`leaf`](Self::leaf) only make positions below 2^53. The tree has no top:
/// [`parent`](Self::parent) and [`sibling`](Self::sibling) may lead above that bound, where no set
/// and no log has nodes. They never overflow, because climbs end at depth 58.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeIndex(u64);

impl NodeIndex {
    /// The position `index`, or `None` from 2^53 on.
    #[must_use]
    pub const fn new(index: u64) -> Option<Self> {
        if index < 2 * MAX_LENGTH {
            Some(Self(index))
        } else {
            None
        }
    }

    /// The leaf of `block`, or `None` from 2^52 on.
    #[must_use]
    pub const fn leaf(block: u64) -> Option<Self> {
        if block < MAX_LENGTH {
            Some(Self(block << 1))
        } else {
            None
        }
    }

    /// The position as a number.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }

    /// Whether a block stands here.
    #[must_use]
    pub const fn is_leaf(self) -> bool {
        self.0 & 1 == 0
    }

    /// The block that stands here, if this is a leaf.
    #[must_use]
    pub const fn block(self) -> Option<u64> {
        if self.is_leaf() {
            Some(self.0 / 2)
        } else {
            None
        }
    }

    /// The height above the leaves, which have depth 0.
    #[must_use]
    pub fn depth(self) -> u64 {
        flat_tree::depth(self.0)
    }

    /// How many nodes of the same depth stand to the left.
    #[must_use]
    pub fn offset(self) -> u64 {
        flat_tree::offset(self.0)
    }

    /// The node above. From depth 58 on that is always the leftmost node of depth 58.
    #[must_use]
    pub fn parent(self) -> Self {
        if self.depth() < MAX_DEPTH {
            Self(flat_tree::parent(self.0))
        } else {
            Self(flat_tree::index(MAX_DEPTH, 0))
        }
    }

    /// The other child of the parent.
    #[must_use]
    pub fn sibling(self) -> Self {
        Self(flat_tree::sibling(self.0))
    }

    /// The two nodes below, left and right; a leaf has none.
    #[must_use]
    pub fn children(self) -> Option<(Self, Self)> {
        flat_tree::children(self.0).map(|(left, right)| (Self(left), Self(right)))
    }

    /// The leftmost leaf below, itself for a leaf.
    #[must_use]
    pub fn left_span(self) -> Self {
        Self(flat_tree::left_span(self.0))
    }

    /// The rightmost leaf below, itself for a leaf.
    #[must_use]
    pub fn right_span(self) -> Self {
        Self(flat_tree::right_span(self.0))
    }

    /// The next node of the same depth to the right.
    pub(crate) fn next(self) -> Self {
        Self(flat_tree::index(
            self.depth(),
            self.offset().saturating_add(1),
        ))
    }

    /// The length of the shortest log that has this node: that of the blocks up to its right span.
    #[must_use]
    pub fn end(self) -> u64 {
        (self.right_span().get() / 2).saturating_add(1)
    }
}

impl fmt::Display for NodeIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The roots of a log of `length` blocks: the largest full subtrees, from left to right.
///
/// Above [`MAX_LENGTH`] there is no log, hence no root. (Hypercore 9 `flat-tree/index.js`
/// fullRoots.)
///
/// ```
/// let roots: Vec<u64> = hypercore_merkle::full_roots(11).map(|node| node.get()).collect();
/// assert_eq!(roots, [7, 17, 20]);
/// ```
pub fn full_roots(length: u64) -> impl Iterator<Item = NodeIndex> {
    let length = if length <= MAX_LENGTH { length } else { 0 };
    let mut rest = length;
    iter::from_fn(move || {
        // One root for every one bit of the length, the highest bit first.
        let depth = rest.checked_ilog2()?;
        let blocks_before = length ^ rest;
        rest ^= 1 << depth;
        Some(NodeIndex(flat_tree::index(
            u64::from(depth),
            blocks_before >> depth,
        )))
    })
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

impl Node {
    /// The parent of two siblings, in either order, or `None` if their sizes add up to more than
    /// [`MAX_BYTE_LENGTH`].
    #[must_use]
    pub fn parent(a: &Self, b: &Self) -> Option<Self> {
        let size = checked_size(a.size, b.size)?;
        Some(Self {
            index: a.index.parent(),
            size,
            hash: parent_hash(a, b),
        })
    }

    /// The 40 bytes of a node in the `tree` file: hash, then size in big endian.
    #[must_use]
    pub fn to_record(&self) -> [u8; 40] {
        let mut record = [0; 40];
        record[..32].copy_from_slice(&self.hash);
        record[32..].copy_from_slice(&self.size.to_be_bytes());
        record
    }

    /// The node at `index` from its 40 bytes.
    ///
    /// `None` if they hold no node: 40 zeros are a node never written, and a size above
    /// [`MAX_BYTE_LENGTH`] belongs to no tree.
    #[must_use]
    pub fn from_record(index: NodeIndex, record: &[u8; 40]) -> Option<Self> {
        let (hash, size) = record.split_first_chunk::<32>()?;
        let size = u64::from_be_bytes(size.try_into().ok()?);
        let blank = *record == [0; 40];
        (!blank && size <= MAX_BYTE_LENGTH).then_some(Self {
            index,
            size,
            hash: *hash,
        })
    }
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Node")
            .field("index", &self.index.get())
            .field("size", &self.size)
            .field("hash", &format_args!("{}", Hex(&self.hash)))
            .finish()
    }
}

/// The sum of two sizes, or `None` above [`MAX_BYTE_LENGTH`].
pub(crate) fn checked_size(a: u64, b: u64) -> Option<u64> {
    a.checked_add(b).filter(|&size| size <= MAX_BYTE_LENGTH)
}
