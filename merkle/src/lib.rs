//! The signed Merkle tree of [Hypercore 9]: hashes, proofs and their verification, without I/O.
//!
//! A log is a list of blocks. A binary tree of hashes stands on it, and the writer signs the roots
//! of that tree. So a reader can check any one block with a few hashes and one signature, from
//! whoever it comes.
//!
//! ```text
//! depth 3               7
//!                 /           \
//! depth 2         3           11                   Roots of six blocks: 3 and 9.
//!               /   \        /   \                 Their hash and the length are signed.
//! depth 1     1       5     9     13
//!            / \     / \   / \    / \              Block 2 is proven by 6 and 1,
//! depth 0   0   2   4   6 8  10  12 14             the other root 9, and the signature.
//! block     0   1   2   3 4   5   6  7
//! ```
//!
//! # Vocabulary
//!
//! * A [`NodeIndex`] is a position in that tree, numbered from left to right. Block `b` is the leaf
//!   `2 * b`. A [`Node`] is a position with its hash and the bytes below it.
//! * The **roots** of a length are its largest full subtrees ([`full_roots`], [`Roots`]). A
//!   [`TreeHead`] sums them up; that is what a [`KeyPair`] signs and a [`Verifier`] checks.
//! * A [`NodeSet`] says which nodes are stored. From that alone follow the length of a log, what a
//!   request should say ([`tree_index::digest`]) and what answers it ([`proof::plan`]).
//! * A [`ChangeSet`] is what may be written: what [`VerifyPlan::check`] has proven, or what the caller
//!   appends with [`append`](mod@append) and vouches for. Nothing else makes one.
//!
//! Everything is a pure function: a plan says which nodes it needs, the caller loads them, and a
//! check decides.
//!
//! ```
//! use hypercore_merkle::*;
//! use std::collections::{BTreeMap, BTreeSet};
//!
//! // The writer appends two blocks and signs once.
//! let key_pair = KeyPair::from_seed(&[1; 32]);
//! let blocks = Block::hash_many(vec!["hello".into(), "world".into()]);
//! let log = append::append(&Roots::new(), blocks, &key_pair)?;
//! let nodes: BTreeMap<_, _> = log.nodes().iter().map(|node| (node.index, *node)).collect();
//!
//! // It proves the second one ...
//! let present: BTreeSet<_> = nodes.keys().copied().collect();
//! let leaf = NodeIndex::leaf(1).unwrap();
//! let plan = proof::plan(&present, &mut RemoteTree::new(), leaf, 0, false).unwrap();
//! let signature = log.signature().map(|(_, signature)| signature.clone());
//! let proof = Proof { nodes: plan.nodes.iter().map(|index| nodes[index]).collect(), signature };
//!
//! // ... to a reader who has nothing but the public key.
//! let plan = verify::plan(&BTreeSet::new(), 1, true, &proof)?;
//! let verifier = Verifier::new(&key_pair.public_key());
//! let value = Block::hash("world".into());
//! let changes = plan.check(&verifier, &Roots::new().head(), Some(value), &proof, &[])?;
//! assert_eq!(changes.byte_offset(), 5);
//! # Ok::<(), Error>(())
//! ```
//!
//! # Features
//!
//! * `serde`: [`PublicKey`], [`DiscoveryKey`] and [`Signature`] can be serialised, as hexadecimal digits
//!   where the format is for people, and as bytes elsewhere. Off by default.
//!
//! # What this crate does not do
//!
//! It reads no file and no socket, keeps no clock and starts no thread; the one thing it asks of
//! the system is random bytes, in [`KeyPair::generate`]. It does not store what it proves. It does
//! not decide between two signed heads that contradict each other: it shows both. It knows neither
//! the rewritten logs (forks) nor the manifests of Hypercore 10 and later.
//!
//! [Hypercore 9]: https://github.com/holepunchto/hypercore/tree/v9

#![forbid(unsafe_code)]
// Whatever comes from a peer or from a file: no index or sum of it may panic.
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects
    )
)]

pub mod append;
mod change_set;
mod error;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
#[allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "for tests and fuzzing alone"
)]
pub mod fuzzing;
mod hash;
mod node;
pub mod proof;
#[cfg(any(test, feature = "fuzzing"))]
#[allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "for tests and fuzzing alone"
)]
mod reference;
mod roots;
mod seek;
#[cfg(feature = "serde")]
mod serial;
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
pub use signature::{DiscoveryKey, KeyPair, ParseKeyError, PublicKey, Signature, Verifier};
pub use tree_index::{NodeSet, NodeSetMut, RemoteTree};
pub use verify::VerifyPlan;

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
