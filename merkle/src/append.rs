//! Appending, as a pure function.

use crate::change_set::ChangeSet;
use crate::error::{Error, Result};
use crate::hash::Block;
use crate::node::{MAX_LENGTH, NodeIndex, checked_size};
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
    let check = |head: &TreeHead, signature: &Signature| key_pair.signed(head, signature);
    seal(
        unsigned(roots, blocks)?,
        |head| Ok(key_pair.sign(head)),
        check,
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
        // n leaves finish at most n - 1 parents among themselves, and some to their left.
        nodes: Vec::new(),
        unbound: Vec::new(),
        head: None,
        signature: None,
    };
    if changes.blocks.is_empty() {
        return Ok(changes);
    }
    changes.nodes.reserve(2 * changes.blocks.len());
    let mut roots = roots.clone();
    for block in &changes.blocks {
        roots.push(block.size(), *block.leaf_hash(), &mut changes.nodes)?;
    }
    changes.head = Some((roots.head(), roots));
    Ok(changes)
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
