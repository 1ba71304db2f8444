//! Blocks in their file: where they stand, what they must hash to, and how they are dropped.

use std::ops::Range;

use bytes::Bytes;
use hypercore_merkle::{Block, ChangeSet, MAX_BLOCK_SIZE, Node, NodeIndex, leaf_hash};
use hypercore_storage::FeedFiles;

use super::append::placed;
use crate::error::{Corruption, Error, Result};
use crate::span::one_block;

/// Where a block stands in `data`, and the hash it must have.
pub(crate) struct Located {
    pub(crate) offset: u64,
    pub(crate) leaf: Node,
}

/// Looks block `index` up in the tree. The block must be stored.
pub(crate) fn locate(files: &FeedFiles, index: u64) -> Result<Located> {
    let (offset, leaf) = files.locate(index)?;
    Ok(Located { offset, leaf })
}

/// Reads block `index` and checks it against its leaf hash.
pub(crate) fn read_block(files: &FeedFiles, index: u64) -> Result<Bytes> {
    let Located { offset, leaf } = locate(files, index)?;
    read_located(files, index, offset, &leaf)
}

/// Reads blocks that follow each other, all of them stored, in one go, and checks them four at a time,
/// which is twice as fast as one by one.
///
/// Stops short of `blocks.end` when that would be much to hold in memory.
pub(crate) fn read_run(files: &FeedFiles, blocks: Range<u64>) -> Result<Vec<Bytes>> {
    if blocks == one_block(blocks.start) {
        return Ok(vec![read_block(files, blocks.start)?]);
    }
    let Located { offset, leaf } = locate(files, blocks.start)?;
    // No more leaves than are needed if all blocks are as large as the first.
    let count = RUN_BYTES.checked_div(leaf.size).unwrap_or(RUN_BLOCKS);
    let count = count.clamp(1, RUN_BLOCKS);
    let end = blocks.end.min(blocks.start.saturating_add(count));
    let others = (blocks.start..end).skip(1);
    let others: Vec<_> = others.filter_map(NodeIndex::leaf).collect();
    let mut leaves = files.required_nodes(&others)?;
    leaves.insert(0, leaf);
    let mut total = 0_u64;
    let fits = leaves.iter().take_while(|leaf| {
        total = total.saturating_add(leaf.size);
        total <= RUN_BYTES
    });
    let count = fits.count().max(1);
    leaves.truncate(count);

    let damaged = |at: usize| {
        let index = blocks.start.saturating_add(at as u64);
        Error::Corrupt(Corruption::Block { index })
    };
    if let Some(at) = leaves.iter().position(is_too_large) {
        return Err(damaged(at));
    }
    let size = leaves.iter().map(|leaf| leaf.size).sum();
    let mut bytes = match files.read_data(offset, size) {
        Ok(bytes) => Bytes::from(bytes),
        // One by one, those that are there are read, and the first that is not is named.
        Err(hypercore_storage::Error::MissingData { .. }) if leaves.len() > 1 => {
            return Ok(vec![read_block(files, blocks.start)?]);
        }
        Err(error) => return Err(missing(blocks.start, error)),
    };
    let values = leaves
        .iter()
        .map(|leaf| bytes.split_to(usize::try_from(leaf.size).unwrap_or(0)))
        .collect();
    let read = Block::hash_many(values);
    let is_damaged = |(block, leaf): (&Block, &Node)| *block.leaf_hash() != leaf.hash;
    if let Some(at) = read.iter().zip(&leaves).position(is_damaged) {
        return Err(damaged(at));
    }
    Ok(read.into_iter().map(Block::into_value).collect())
}

/// So many blocks are read together at most.
const RUN_BLOCKS: u64 = 1024;

/// So many bytes are read together at most, unless a single block has more: four of the usual blocks, to be
/// hashed side by side.
const RUN_BYTES: u64 = 256 * 1024;

fn is_too_large(leaf: &Node) -> bool {
    leaf.size > MAX_BLOCK_SIZE
}

/// The block that is damaged where the file `data` ends before it does.
fn missing(index: u64, error: hypercore_storage::Error) -> Error {
    match error {
        hypercore_storage::Error::MissingData { .. } => Corruption::Block { index }.into(),
        error => error.into(),
    }
}

fn read_located(files: &FeedFiles, index: u64, offset: u64, leaf: &Node) -> Result<Bytes> {
    let damaged = Error::Corrupt(Corruption::Block { index });
    if is_too_large(leaf) {
        return Err(damaged);
    }
    let bytes = files.read_data(offset, leaf.size);
    let bytes = bytes.map_err(|error| missing(index, error))?;
    if leaf_hash(&bytes) != leaf.hash {
        return Err(damaged);
    }
    Ok(bytes.into())
}

/// Checks that the blocks of an append stand in `data` already, where somebody else wrote them.
pub(super) fn find_blocks(files: &FeedFiles, change: &ChangeSet) -> Result<()> {
    for (index, (offset, value)) in (change.start_block()..).zip(placed(change)) {
        let found = files.read_data(offset, value.len() as u64);
        let found = found.map_err(|error| missing(index, error))?;
        if found != *value {
            return Err(Corruption::Block { index }.into());
        }
    }
    Ok(())
}

/// Frees the space of blocks that the durable bitfield no longer claims.
///
/// A damaged tree could name the place of other blocks. So the first and the last block are read
/// and checked before; a run that does not begin and end where the tree says keeps its space.
pub(crate) fn drop_blocks(files: &FeedFiles, runs: &[Range<u64>]) -> Result<()> {
    for run in runs {
        let first = run
            .clone()
            .map(|index| check_place(files, index))
            .find_map(Result::transpose);
        let last = run
            .clone()
            .rev()
            .map(|index| check_place(files, index))
            .find_map(Result::transpose);
        let place = match (first.transpose(), last.transpose()) {
            (Ok(Some(first)), Ok(Some(last))) if first.start < last.end => first.start..last.end,
            // Empty blocks take no space.
            (Ok(_), Ok(_)) => continue,
            (Err(error), _) | (_, Err(error)) if error.is_corruption() => {
                tracing::warn!(%error, "the space of cleared blocks was not freed");
                continue;
            }
            (Err(error), _) | (_, Err(error)) => return Err(error),
        };
        files.clear_data(place.start, place.end.saturating_sub(place.start))?;
    }
    Ok(())
}

/// The bytes of `data` that block `index` has, if any, once they have proven to be that block.
fn check_place(files: &FeedFiles, index: u64) -> Result<Option<Range<u64>>> {
    let Located { offset, leaf } = locate(files, index)?;
    let bytes = read_located(files, index, offset, &leaf)?;
    Ok((!bytes.is_empty()).then(|| offset..offset.saturating_add(leaf.size)))
}
