//! Appending, as a pure function.

use std::mem;

use crate::change_set::ChangeSet;
use crate::error::{Error, Result};
use crate::hash::{Block, parents};
use crate::node::{MAX_LENGTH, Node, NodeIndex, checked_size, full_roots};
use crate::roots::{Roots, TreeHead};
use crate::signature::{KeyPair, Signature, Verifier};

/// The largest block that can be appended: 8 MiB, the largest message of the wire protocol
/// (`simple-message-channels` maxSize).
pub const MAX_BLOCK_SIZE: u64 = 8 * 1024 * 1024;

/// Appends `blocks` to the log that `roots` stand for and signs the result once.
///
/// `roots` stay as they are: the roots to go on with are in the [`ChangeSet`], to be taken up when
/// it is committed. Without blocks the change set is empty and has no signature.
///
/// # Errors
/// If a block or the log would become too large, which is found before anything is computed, or if
/// the new signature turns out to be wrong.
pub fn append(roots: &Roots, blocks: Vec<Block>, key_pair: &KeyPair) -> Result<ChangeSet> {
    let check = |head: &TreeHead, signature: &Signature| key_pair.has_signed(head, signature);
    seal(
        unsigned(roots, blocks)?,
        |head| Ok(key_pair.sign(head)),
        check,
    )
}

/// As [`append()`], with a signature that is not checked, which is half the time. Somebody has to ask
/// [`KeyPair::has_signed`] before it leaves this process.
///
/// # Errors
/// If a block or the log would become too large.
pub fn append_unchecked(
    roots: &Roots,
    blocks: Vec<Block>,
    key_pair: &KeyPair,
) -> Result<ChangeSet> {
    seal(
        unsigned(roots, blocks)?,
        |head| Ok(key_pair.sign(head)),
        |_, _| true,
    )
}

/// As [`append()`], with a signature that `sign` fetches from wherever the secret key is, and that
/// has to satisfy `verifier`. Without blocks nobody is asked.
///
/// # Errors
/// As [`append()`], and when `sign` fails.
pub fn append_with<E: From<Error>>(
    roots: &Roots,
    blocks: Vec<Block>,
    verifier: &Verifier,
    sign: impl FnOnce(&TreeHead) -> Result<Signature, E>,
) -> Result<ChangeSet, E> {
    let check = |head: &TreeHead, signature: &Signature| verifier.verify(head, signature);
    seal(unsigned(roots, blocks)?, sign, check)
}

/// Appends `blocks` to a static log, which nobody signs: the hash of the whole tree becomes its key
/// when it is finished (Hypercore 9 `index.js` finalize).
///
/// # Errors
/// If a block or the log would become too large.
pub fn unsigned(roots: &Roots, blocks: Vec<Block>) -> Result<ChangeSet> {
    let length = roots.length().saturating_add(blocks.len() as u64);
    let leaf = NodeIndex::leaf(roots.length()).filter(|_| length <= MAX_LENGTH);
    let leaf = leaf.ok_or(Error::LogTooLong { length })?;
    let mut byte_length = roots.byte_length();
    for block in &blocks {
        let size = block.size();
        if size > MAX_BLOCK_SIZE {
            return Err(Error::BlockTooLarge {
                size,
                max: MAX_BLOCK_SIZE,
            });
        }
        byte_length = checked_size(byte_length, size).ok_or(Error::LogTooLarge { length })?;
    }

    let byte_offset = if blocks.is_empty() {
        0
    } else {
        roots.byte_length()
    };
    let mut changes = ChangeSet {
        leaf,
        blocks,
        byte_offset,
        nodes: Vec::new(),
        unbound: Vec::new(),
        head: None,
        signature: None,
    };
    if changes.blocks.is_empty() {
        return Ok(changes);
    }
    let push = if changes.blocks.len() < MANY {
        push_each
    } else {
        push_all
    };
    let roots = push(roots, &changes.blocks, &mut changes.nodes)?;
    changes.head = Some((roots.head(), roots));
    Ok(changes)
}

/// From so many blocks on they have enough parents for the lanes of the processor.
const MANY: usize = 8;

/// The roots after `blocks`, one after the other. Adds the nodes that they finish to `finished`.
fn push_each(roots: &Roots, blocks: &[Block], finished: &mut Vec<Node>) -> Result<Roots> {
    let mut roots = roots.clone();
    for block in blocks {
        roots.push(block.size(), *block.leaf_hash(), finished)?;
    }
    Ok(roots)
}

/// The same, with all parents of one depth hashed side by side.
///
/// The sizes of the blocks must be known to add up.
fn push_all(roots: &Roots, blocks: &[Block], finished: &mut Vec<Node>) -> Result<Roots> {
    let start = roots.length();
    let length = start.saturating_add(blocks.len() as u64);
    let root_at = |depth| {
        roots
            .nodes()
            .iter()
            .find(|root| root.index.depth() == depth)
    };

    // The new nodes of each depth, after the root that is the left sibling of the first, if it has one.
    let mut levels: Vec<Vec<Node>> = Vec::new();
    let leaves = (start..length).zip(blocks).map(|(number, block)| {
        let index = NodeIndex::leaf(number).ok_or(Error::LogTooLong { length })?;
        let (size, hash) = (block.size(), *block.leaf_hash());
        Ok(Node { index, size, hash })
    });
    let mut new = leaves.collect::<Result<Vec<_>>>()?;
    while !new.is_empty() {
        let depth = levels.len() as u64;
        new.splice(0..0, root_at(depth).copied());
        let above = parents(&new);
        levels.push(mem::replace(&mut new, above));
    }

    let root = |index: NodeIndex| {
        let level = levels.get(index.depth() as usize);
        level.map_or_else(|| root_at(index.depth()), |level| level.last())
    };
    let new_roots = full_roots(length).filter_map(root).copied().collect();

    let mut levels: Vec<_> = (0..)
        .zip(&levels)
        .map(|(depth, level)| level.iter().skip(usize::from(root_at(depth).is_some())))
        .collect();
    finished.reserve(blocks.len().saturating_mul(2));
    for number in start..length {
        // Its leaf, and a parent for each of the trailing ones.
        let climb = number.trailing_ones().saturating_add(1);
        let levels = levels.iter_mut().take(climb as usize);
        finished.extend(levels.filter_map(Iterator::next));
    }
    Roots::from_nodes(length, new_roots)
}

fn seal<E: From<Error>>(
    mut changes: ChangeSet,
    sign: impl FnOnce(&TreeHead) -> Result<Signature, E>,
    check: impl FnOnce(&TreeHead, &Signature) -> bool,
) -> Result<ChangeSet, E> {
    let Some(head) = changes.head() else {
        return Ok(changes);
    };
    let signature = sign(head)?;
    // A bit that flipped while signing must not leave this function; it could betray the secret.
    if !check(head, &signature) {
        let length = head.length;
        return Err(Error::FaultySignature { length }.into());
    }
    changes.signature = Some(signature);
    Ok(changes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn blocks(sizes: &[u8]) -> Vec<Block> {
        let values = sizes.iter().map(|&size| vec![size; size.into()].into());
        Block::hash_many(values.collect())
    }

    /// A log of any length, which is shown by its roots alone.
    fn roots(length: u64) -> Roots {
        let root = |index: NodeIndex| Node {
            index,
            size: index.get() % 99,
            hash: [index.depth() as u8; 32],
        };
        Roots::from_nodes(length, full_roots(length).map(root).collect()).unwrap()
    }

    proptest! {
        #[test]
        fn many_blocks_are_appended_as_one_after_the_other(
            length in prop_oneof![0..70_u64, 0..MAX_LENGTH - 300, Just(MAX_LENGTH - 300), Just((1 << 40) - 5)],
            sizes in prop::collection::vec(any::<u8>(), 1..300),
        ) {
            let (roots, blocks) = (roots(length), blocks(&sizes));
            let (mut each, mut all) = (Vec::new(), Vec::new());
            let expected = push_each(&roots, &blocks, &mut each).unwrap();
            prop_assert_eq!(push_all(&roots, &blocks, &mut all).unwrap(), expected);
            prop_assert_eq!(all, each);
        }
    }
}
