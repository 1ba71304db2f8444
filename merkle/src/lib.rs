//! The signed Merkle tree of Hypercore.
mod node;
pub use node::{Hash, MAX_BYTE_LENGTH, MAX_LENGTH, Node, NodeIndex};
