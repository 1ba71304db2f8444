//! Everything that can go wrong.

use crate::node::NodeIndex;

pub(crate) type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a proof, a key or a change was refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A block to append is too large to be replicated.
    #[error("a block of {size} bytes is larger than the limit of {max} bytes")]
    BlockTooLarge {
        /// The size of the block.
        size: u64,
        /// The largest size allowed.
        max: u64,
    },
    /// The log would have more than 2^52 blocks.
    #[error("a log cannot have {length} blocks")]
    LogTooLong {
        /// The length it would have.
        length: u64,
    },
    /// The log would have 2^53 bytes or more.
    #[error("a log of {length} blocks cannot have as many bytes as its nodes say")]
    LogTooLarge {
        /// The length in blocks.
        length: u64,
    },
    /// The nodes given are not the roots of the length given.
    #[error("the nodes given are not the roots of a log of {length} blocks")]
    WrongRoots {
        /// The length in blocks.
        length: u64,
    },
    /// The public half of a key pair does not belong to its secret half.
    #[error("the public key does not belong to the secret key")]
    KeyPairMismatch,
    /// A signature does not have 64 bytes.
    #[error("a signature has 64 bytes, not {length}")]
    SignatureLength {
        /// The number of bytes found.
        length: usize,
    },
    /// The operating system gave no random bytes.
    #[error("the system gave no random bytes for a key pair")]
    NoRandomness(#[source] std::io::Error),
    /// A signature just made for our log does not verify: memory or processor made a mistake, or a
    /// signer elsewhere did.
    #[error("the new signature of length {length} does not verify, and is not used")]
    FaultySignature {
        /// The length that was signed.
        length: u64,
    },
    /// The caller did not supply the local nodes that the plan asked for.
    #[error("the local nodes given are not those the plan asked for")]
    WrongLocalNodes,
    /// A proof is about a block that no log can have.
    #[error("no log has a block {block}")]
    BlockOutOfRange {
        /// The number of the block.
        block: u64,
    },
    /// A proof has more nodes than any proof needs.
    #[error("a proof of {count} nodes is longer than the limit of {max}")]
    TooManyNodes {
        /// The number of nodes.
        count: usize,
        /// The largest number allowed.
        max: usize,
    },
    /// A node stands where no log has nodes.
    #[error("no log has a node {node}")]
    NodeOutOfRange {
        /// The position of the node.
        node: NodeIndex,
    },
    /// The size of a node, alone or summed with its sibling's, is 2^53 or more.
    #[error("the size of node {node} is out of range")]
    SizeOutOfRange {
        /// The position of the node.
        node: NodeIndex,
    },
    /// A proof without a value does not start with the leaf it is about.
    #[error("the proof does not start with leaf {leaf}")]
    MissingLeaf {
        /// The leaf asked about.
        leaf: NodeIndex,
    },
    /// The proof contradicts a node we trust and has no signature to say why.
    #[error("the proof contradicts node {node}")]
    HashMismatch {
        /// The node that we trust.
        node: NodeIndex,
    },
    /// The hashes lead up to a node that is no root, so nothing vouches for it.
    #[error("the proof ends at node {node}, which is not a root of a log of {length} blocks")]
    NotARoot {
        /// Where the climb ended.
        node: NodeIndex,
        /// The length the proof speaks of.
        length: u64,
    },
    /// A root is neither in the proof nor known.
    #[error("root {node} of a log of {length} blocks is missing")]
    MissingRoot {
        /// The position of the root.
        node: NodeIndex,
        /// The length the proof speaks of.
        length: u64,
    },
    /// A node needed to place the block among the bytes of the log is neither proven nor known.
    #[error("node {node}, needed to place the block, is missing")]
    MissingNode {
        /// The position of the node.
        node: NodeIndex,
    },
    /// The log is signed, but the proof of a new length is not.
    #[error("the proof of a log of {length} blocks has no signature")]
    MissingSignature {
        /// The length the proof speaks of.
        length: u64,
    },
    /// The signature is not one of this log at this length.
    #[error("the signature does not belong to this log at {length} blocks")]
    BadSignature {
        /// The length the proof speaks of.
        length: u64,
    },
    /// There is no signature and the tree hash is not the key of the log.
    #[error("the tree hash of {length} blocks is not the key of the log")]
    TreeHashMismatch {
        /// The length the proof speaks of.
        length: u64,
    },
}

impl Error {
    /// Whether a peer sent something wrong.
    #[must_use]
    pub fn is_peer_fault(&self) -> bool {
        match self {
            Self::SignatureLength { .. }
            | Self::BlockOutOfRange { .. }
            | Self::TooManyNodes { .. }
            | Self::NodeOutOfRange { .. }
            | Self::SizeOutOfRange { .. }
            | Self::MissingLeaf { .. }
            | Self::HashMismatch { .. }
            | Self::NotARoot { .. }
            | Self::MissingRoot { .. }
            | Self::MissingSignature { .. }
            | Self::BadSignature { .. }
            | Self::TreeHashMismatch { .. } => true,
            Self::BlockTooLarge { .. }
            | Self::LogTooLong { .. }
            | Self::LogTooLarge { .. }
            | Self::WrongRoots { .. }
            | Self::KeyPairMismatch
            | Self::NoRandomness(_)
            | Self::FaultySignature { .. }
            | Self::WrongLocalNodes
            | Self::MissingNode { .. } => false,
        }
    }

    /// Whether what was stored, or this machine, is damaged.
    #[must_use]
    pub fn is_corruption(&self) -> bool {
        matches!(
            self,
            Self::WrongRoots { .. }
                | Self::KeyPairMismatch
                | Self::FaultySignature { .. }
                | Self::MissingNode { .. }
        )
    }
}
