//! The six files of a Hypercore 9, in a directory, in memory or on any random-access storage.
//!
//! ```text
//!  key          | 32 bytes                                  the log's public key
//!  secret_key   | 64 bytes                                  only where the log is written
//!  tree         | header | node 0 | node 1 | node 2 ..      40 bytes each: hash, size
//!  signatures   | header | block 0 | block 1 ..             64 bytes each, zeros where none
//!  bitfield     | header | page 0 | page 1 ..               which blocks and nodes are here
//!  data         | block 0 | block 1 ..                      the blocks, end to end
//! ```
//!
//! # Vocabulary
//!
//! - A [`Storage`] is a place with six files, named by [`FileName`]: a [`Directory`], [`Memory`],
//!   or your own. A file is a [`RandomAccess`]: synchronous, positioned, shared.
//! - A *node* stands at a position of the flat tree, a *block* at a position of the log. What was
//!   never written, and what is all zeros, is *absent*.
//! - The *lock* is an exclusive one on `bitfield`, the same that Node takes.
//!
//! # Order of writes
//!
//! A set bit claims that the block and its nodes are there, so data, nodes and signature are
//! written and [made durable](FeedFiles::sync_content) before the page that claims them.
//!
//! A new log begins with [its headers](FeedFiles::write_headers): without them what is written is not
//! found again, and the log is refused as damaged when it is opened.
//!
//! # Example
//!
//! ```
//! use std::sync::Arc;
//! use hypercore_merkle::{Node, NodeIndex};
//! use hypercore_storage::{FeedFiles, Memory};
//!
//! let files = FeedFiles::open(Arc::new(Memory::new()))?;
//! assert!(files.is_empty()?);
//! files.write_headers()?;
//!
//! let index = NodeIndex::leaf(7).expect("far below 2^52");
//! files.write_nodes(&[Node { index, size: 5, hash: [1; 32] }])?;
//! files.write_data(0, b"hello")?;
//! files.sync_content()?;
//!
//! assert_eq!(files.node(index)?.expect("just written").size, 5);
//! assert_eq!(files.read_data(0, 5)?, b"hello");
//! # Ok::<_, hypercore_storage::Error>(())
//! ```
//!
//! # What this crate does not do
//!
//! It never hashes, never verifies and never decides what is true: it knows offsets, headers and
//! absent records. It knows nothing of the regions within a page. It starts no thread that
//! outlives a call, and repairs nothing.

// Whatever comes from a peer or from a file: no index or sum of it may panic.
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects
    )
)]

mod directory;
mod error;
mod feed_files;
mod file;
mod header;
mod memory;
mod name;
mod node_cache;
mod quarantine;
mod random_access;

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
#[allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "for tests and fuzzing alone"
)]
pub mod fuzzing;
#[cfg(any(test, feature = "testing"))]
#[allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "for tests and fuzzing alone"
)]
pub mod testing;

pub use directory::Directory;
pub use error::{Error, Operation};
pub use feed_files::{FeedFiles, OLD_PAGE_SIZE, PAGE_SIZE};
pub use memory::Memory;
pub use name::FileName;
pub use quarantine::Quarantine;
pub use random_access::{RandomAccess, Storage};
