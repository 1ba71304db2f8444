//! The crate against recorded output of Hypercore 9, and against forgeries.

mod append;
mod attacks;
mod crypto;
mod extremes;
mod flat_tree;
mod proofs;
mod seek;
mod support;
mod tree_index;
