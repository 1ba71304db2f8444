//! The signed Merkle tree of Hypercore: hashes, proofs and their verification, without I/O.
#![forbid(unsafe_code)]

pub mod append;
mod change_set;
mod error;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
mod hash;
mod node;
pub mod proof;
#[cfg(any(test, feature = "fuzzing"))]
mod reference;
mod roots;
mod seek;
mod signature;
pub mod tree_index;
pub mod verify;

pub use append::MAX_BLOCK_SIZE;
pub use change_set::ChangeSet;
pub use error::Error;
pub use hash::{Block, leaf_hash, parent_hash, tree_hash};
pub use node::{Hash, MAX_BYTE_LENGTH, MAX_LENGTH, Node, NodeIndex, full_roots};
pub use proof::{Proof, ProofPlan};
pub use roots::{Roots, TreeHead};
pub use seek::{Seek, SeekStep};
pub use signature::{DiscoveryKey, KeyPair, PublicKey, Signature, Verifier};
pub use tree_index::{NodeSet, NodeSetMut, RemoteTree};
pub use verify::VerifyPlan;
