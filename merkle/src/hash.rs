//! The three hashes of the tree, and blocks with theirs.
//!
//! Every hash starts with a type byte, so that no leaf can pass for a parent (Hypercore 9
//! `hypercore-crypto/index.js` data, parent, tree).

use std::fmt;

use blake2b_simd::{Params, State, many};
use bytes::Bytes;

use crate::node::{Hash, Node};

const LEAF: u8 = 0;
const PARENT: u8 = 1;
const ROOT: u8 = 2;

/// The hash of a block: `H(0, size, value)`.
#[must_use]
pub fn leaf_hash(value: &[u8]) -> Hash {
    finish(leaf_state(value).update(value))
}

/// The hash of two siblings, in either order: `H(1, size of both, left hash, right hash)`.
///
/// The sizes of real nodes cannot overflow; should they, their sum stays at `u64::MAX`.
#[must_use]
pub fn parent_hash(a: &Node, b: &Node) -> Hash {
    let (left, right) = if a.index <= b.index { (a, b) } else { (b, a) };
    let size = left.size.saturating_add(right.size);
    finish(
        state()
            .update(&[PARENT])
            .update(&size.to_be_bytes())
            .update(&left.hash)
            .update(&right.hash),
    )
}

/// The hash of a whole tree, given its roots from left to right: `H(2, (hash, index, size)*)`.
#[must_use]
pub fn tree_hash(roots: &[Node]) -> Hash {
    let mut state = state();
    state.update(&[ROOT]);
    for root in roots {
        state.update(&root.hash);
        state.update(&root.index.get().to_be_bytes());
        state.update(&root.size.to_be_bytes());
    }
    finish(&state)
}

/// The value of a block together with its leaf hash.
///
/// The only way to a `Block` is to hash: whoever has one need not hash it again, nor doubt it.
#[derive(Clone, PartialEq, Eq)]
pub struct Block {
    value: Bytes,
    leaf_hash: Hash,
}

impl Block {
    /// Hashes one value.
    #[must_use]
    pub fn hash(value: Bytes) -> Self {
        Self {
            leaf_hash: leaf_hash(&value),
            value,
        }
    }

    /// Hashes many values, as many at a time as the processor has lanes (four with AVX2).
    #[must_use]
    pub fn hash_many(values: Vec<Bytes>) -> Vec<Self> {
        // The states take the prefix first, so that the values are read where they are.
        let mut states: Vec<State> = values.iter().map(|value| leaf_state(value)).collect();
        many::update_many(states.iter_mut().zip(&values));
        let blocks = values.into_iter().zip(&states);
        blocks
            .map(|(value, state)| Self {
                value,
                leaf_hash: finish(state),
            })
            .collect()
    }

    /// The bytes of the block.
    #[must_use]
    pub fn value(&self) -> &Bytes {
        &self.value
    }

    /// The bytes of the block, owned.
    #[must_use]
    pub fn into_value(self) -> Bytes {
        self.value
    }

    /// The number of bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.value.len() as u64
    }

    /// The leaf hash of the value.
    #[must_use]
    pub fn leaf_hash(&self) -> &Hash {
        &self.leaf_hash
    }
}

impl fmt::Debug for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Block")
            .field("size", &self.size())
            .field("leaf_hash", &format_args!("{}", Hex(&self.leaf_hash)))
            .finish()
    }
}

/// Shows bytes in hexadecimal.
pub(crate) struct Hex<'a>(pub(crate) &'a [u8]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

fn state() -> State {
    Params::new().hash_length(32).to_state()
}

/// The state after the nine bytes that come before the value of a leaf.
fn leaf_state(value: &[u8]) -> State {
    let mut state = state();
    state
        .update(&[LEAF])
        .update(&(value.len() as u64).to_be_bytes());
    state
}

fn finish(state: &State) -> Hash {
    let mut hash = [0; 32];
    hash.copy_from_slice(state.finalize().as_bytes());
    hash
}
