//! The sparse bitfields of Hypercore: which blocks and tree nodes are here, and which a peer has.
//!
//! ```text
//!   bitfield file   | header |     page 0      |     page 1      |     page 2   ...
//!                                              :                 :
//!                            +-----------------+-----------------+--------------+
//!   page, 3584 bytes         | data bits, 1024 | tree bits, 2048 | index, 512   |
//!                            +-----------------+-----------------+--------------+
//!                              8192 blocks       16384 nodes       all, some or none
//!                                                                  of the data bits?
//!
//!   Have message    | start | 0b 02 f0 09 07 |   "blocks start .. : 2 bytes of ones, f0, 2 of zeros, 1 of ones"
//! ```
//!
//! - A *block* is a position in the log, its *data bit* says whether it is stored. The first bit of a byte is the most
//!   significant.
//! - A *tree bit* does the same for a node of the Merkle tree, by its flat-tree index.
//! - An *index byte* summarises data bits, so that Hypercore 9 can skip what it has. Here index bytes are written as
//!   Hypercore 9 writes them and never read.
//! - A *page* is what is written at once, a *dirty* page has changed since it was.
//! - [`rle`] is the run-length encoding in which peers tell each other of many blocks.
//!
//! [`Bitfield`] is what we have, [`RemoteBitfield`] what one peer says that it has. Both keep runs of ones as runs and
//! only mixed stretches as bits: memory and time depend on the number of changes between ones and zeros, never on how
//! long a range is or how far away. Only dirty pages are told one by one, and a range of any length makes all its pages
//! dirty.
//!
//! ```
//! use hypercore_bitfield::{Bitfield, PageSize, RemoteBitfield};
//!
//! let mut ours = Bitfield::new(PageSize::Current);
//! ours.set_range(0..10_000, true);
//! ours.set(77, false);
//! assert_eq!((ours.total(), ours.next_clear(0)), (9_999, 77));
//!
//! let mut page = vec![0; ours.page_size().bytes()];
//! for number in ours.take_dirty() {
//!     ours.encode_page(number, &mut page); // and write it
//! }
//!
//! // Ten thousand blocks travel in a few bytes, and are not expanded on arrival.
//! let encoded = ours.rle(0..1 << 20);
//! let mut theirs = RemoteBitfield::new(4 << 20);
//! theirs.apply_rle(0, &encoded, 131_072)?;
//! assert!(encoded.len() < 10 && theirs.runs(0..1 << 20).eq([0..77, 78..10_000]));
//! # Ok::<(), hypercore_bitfield::Error>(())
//! ```
//!
//! # What this crate does not do
//!
//! No I/O, and no file header: the caller reads and writes pages. No Merkle tree: setting a tree bit says nothing of
//! its parent. No policy: which ranges to announce, ask for or believe is decided elsewhere.
//!
//! # Why not `sparse-bitfield`?
//!
//! It is what we test against. It has no ranges and no search, it needs `&mut` to read, and its page table grows to the
//! highest position. `cargo bench -p hypercore-bitfield` runs both over ten million bits. Side by side on a busy
//! machine, ours found the first clear bit after ten million set ones in 1 us instead of 64 ms, and set all of them as
//! a range in 7 us. Single bits are what it is better at: in order, ours read up to twice and set three to five times
//! as slowly (9 and 42 ns a bit), and at random in a half-set field ten to twenty times (140 ns). Next to the hash and
//! the signature of a block, tens of microseconds, that is nothing; a scan over millions of blocks, or a peer that
//! names block 2^50, is not.

// Whatever comes from a peer or from a file: no index or sum of it may panic.
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects
    )
)]

mod bits;
mod error;
mod field;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
#[allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "for tests and fuzzing alone"
)]
pub mod fuzzing;
mod index;
mod remote;
pub mod rle;

pub use error::Error;
pub use field::{Bitfield, PageSize};
pub use remote::RemoteBitfield;

/// Block numbers are below this: Hypercore 9 keeps the positions of tree nodes, which are twice as many, in
/// doubles, which are exact up to 2^53.
pub const MAX_BLOCKS: u64 = 1 << 52;
