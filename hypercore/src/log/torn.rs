//! What a loss of power tears: a page of the bitfield, of which some sectors are new, and a signature
//! that lies across two sectors.

use hypercore_bitfield::{Bitfield, PageSize};
use hypercore_merkle::{MAX_LENGTH, NodeIndex, parent_hash};
use hypercore_storage::FeedFiles;

use super::{read_block, recover::PAGE_BLOCKS, take_pages};
use crate::error::{Error, Result};

/// Puts the pages right of a log without the mark of an open one. Downloads and clears make none: a
/// loss of power may have torn a page.
pub(super) fn mend_closed(files: &FeedFiles, bitfield: &mut Bitfield, length: u64) -> Result<()> {
    restore_nodes(files, bitfield, length)?;
    let is_whole = bitfield.dirty_pages().next().is_none()
        && contradictory_pages(files, bitfield, length)?.is_empty();
    if is_whole {
        return Ok(());
    }
    // Nodes may have been written by a process that was killed.
    files.distrust();
    let synced = files.sync_content().map_err(Error::from);
    if let Err(error) = synced.and_then(|()| write_pages(files, bitfield, length)) {
        // Nodes may have been lost that the page, written with the next append, would claim.
        if error.is_failed_sync() && !error.says_unwritable() {
            return Err(error);
        }
        // Where nothing can be written, what is here can be read all the same.
        tracing::warn!(%error, "a torn page of the bitfield was not put right");
        for page in contradictory_pages(files, bitfield, length)? {
            bitfield.mark_dirty(page);
        }
    }
    Ok(())
}

/// Sets the bits of nodes that a torn page has lost, where those of their blocks or children are
/// left.
///
/// What a page claims was durable before it was written: the nodes are there.
pub(super) fn restore_nodes(files: &FeedFiles, bitfield: &mut Bitfield, length: u64) -> Result<()> {
    let blocks: Vec<_> = bitfield.blocks_without_leaf().collect();
    for block in blocks {
        let whole = match read_block(files, block) {
            Ok(_) => true,
            Err(error) if error.is_corruption() => false,
            Err(error) => return Err(error),
        };
        let leaf = NodeIndex::leaf(block).filter(|_| whole);
        let nodes = match leaf {
            Some(leaf) => way_up(files, bitfield, leaf, length)?,
            None => None,
        };
        match nodes {
            Some(nodes) => claim_nodes(bitfield, leaf.into_iter().chain(nodes)),
            // It is downloaded again.
            None => {
                bitfield.set(block, false);
            }
        }
    }
    let orphans: Vec<_> = bitfield.orphans().filter_map(NodeIndex::new).collect();
    for orphan in orphans {
        // Roots of shorter logs have nothing above them that is stored.
        if let Some(nodes) = way_up(files, bitfield, orphan, length)? {
            claim_nodes(bitfield, nodes);
        }
    }
    Ok(())
}

fn claim_nodes(bitfield: &mut Bitfield, nodes: impl IntoIterator<Item = NodeIndex>) {
    for node in nodes {
        bitfield.tree_set(node.get());
    }
}

/// The nodes from `node` up to the first that is claimed or a root, and those beside the way, if
/// each is the parent of those below it.
fn way_up(
    files: &FeedFiles,
    bitfield: &Bitfield,
    node: NodeIndex,
    length: u64,
) -> Result<Option<Vec<NodeIndex>>> {
    let mut way = Vec::new();
    let mut parent = node.parent();
    while parent.end() <= length {
        let Some((left, right)) = parent.children() else {
            return Ok(None);
        };
        let nodes = files.nodes(&[left, right, parent])?;
        let &[Some(left), Some(right), Some(stored)] = &nodes[..] else {
            return Ok(None);
        };
        let size = left.size.checked_add(right.size);
        if size != Some(stored.size) || parent_hash(&left, &right) != stored.hash {
            return Ok(None);
        }
        way.extend([left.index, right.index, parent]);
        if bitfield.tree_get(parent.get()) {
            return Ok(Some(way));
        }
        parent = parent.parent();
    }
    Ok(Some(way))
}

/// Writes the pages that changed, and those that a loss of power has torn. What they claim has to be
/// durable.
pub(super) fn write_pages(files: &FeedFiles, bitfield: &mut Bitfield, length: u64) -> Result<()> {
    for page in contradictory_pages(files, bitfield, length)? {
        bitfield.mark_dirty(page);
    }
    for (page, bytes) in take_pages(bitfield) {
        files.write_page(page, &bytes)?;
    }
    Ok(())
}

/// The pages that are not what their bits make them: they have bytes besides.
pub(super) fn contradictory_pages(
    files: &FeedFiles,
    bitfield: &Bitfield,
    length: u64,
) -> Result<Vec<u64>> {
    let mut found = Vec::new();
    if bitfield.page_size() == PageSize::Legacy {
        // Old logs have them elsewhere, or not at all.
        return Ok(found);
    }
    let mut expected = vec![0; bitfield.page_size().bytes()];
    files.pages(|page, bytes| {
        // An append that was killed may have made room and no more.
        let is_room = page >= length.div_ceil(PAGE_BLOCKS) && bytes.iter().all(|&byte| byte == 0);
        if page < MAX_LENGTH / PAGE_BLOCKS && !is_room {
            bitfield.encode_page(page, &mut expected);
            if !expected.starts_with(bytes) {
                found.push(page);
            }
        }
    })?;
    Ok(found)
}

/// Whether one half of a signature is blank and the other is not: a loss of power took one of the two
/// sectors that it lies across. What rots in a blank place has fewer bytes.
pub(super) fn is_half(signature: &[u8; 64]) -> bool {
    let set = |half: &[u8]| half.iter().filter(|&&byte| byte != 0).count();
    let (point, scalar) = signature.split_at(32);
    matches!((set(point), set(scalar)), (0, 17..) | (17.., 0))
}
