//! Finding the end of a log that nobody closed.
//!
//! A signature is the record of a commit: it cannot be torn unnoticed and vouches for the whole
//! tree below it. The bitfield is written after what it claims is durable, so that of each set bit
//! is certain that it is true, and of no clear one that it is false.
//!
//! ```text
//!   0            checkpoint       claimed            length                    end of the files
//!   |----------------|---------------|------------------|--------------------------|
//!     signed, and the newest signed    not in the bitfield,   an append that was not
//!     claimed         length that the   found again leaf by    finished: copied to a
//!                     bitfield claims   leaf, and signed       quarantine, and cut off
//! ```
//!
//! Whether a log was closed shows in the lengths of its files: there is something behind the
//! length that the bitfield claims, if only the [mark](FeedFiles::mark_open) of an open log. Of one
//! that was closed, nothing is read here but the bitfield, the roots and one signature, and
//! nothing is written, unless a loss of power has torn a page. Every step of a recovery can be cut
//! short, and is then done again.

mod search;

use std::fmt;

use hypercore_bitfield::{Bitfield, PageSize};
use hypercore_merkle::{
    MAX_LENGTH, Node, Roots, Signature, TreeHead, Verifier, full_roots, tree_index,
};
use hypercore_storage::{FeedFiles, Quarantine};

pub(super) use self::search::MAX_WRONG_SIGNATURES;
use self::search::{Found, Search};
use super::{
    TreeBits, Vouched, guard,
    torn::{mend_closed, restore_nodes, write_pages},
};
use crate::error::{Corruption, Error, Result};
use crate::span::{length_with, one_block};

/// What was found when a core was opened that had not been closed.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Recovery {
    /// The length of the log now.
    pub length: u64,
    /// The signed length that the search began with.
    pub checkpoint: u64,
    /// How many blocks were found again that the bitfield did not claim.
    pub recovered: u64,
    /// How many bytes of an append that was never finished were cut off. A directory keeps them in
    /// a file `quarantine-<n>`, which nobody but you removes.
    pub dropped_bytes: u64,
    /// Blocks that were there before are damaged. Then nothing was changed, and the core can be
    /// read and served, but not appended to.
    pub damage: Option<Corruption>,
}

impl fmt::Display for Recovery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            length,
            recovered,
            dropped_bytes,
            ..
        } = self;
        write!(f, "the core was not closed: it has {length} blocks")?;
        if let Some(damage) = &self.damage {
            return write!(f, " and cannot be appended to, because {damage}");
        }
        if *recovered > 0 {
            write!(f, ", {recovered} of them found again")?;
        }
        if *dropped_bytes > 0 {
            let dropped = "bytes of an unfinished append were set aside";
            write!(f, "; {dropped_bytes} {dropped}")?;
        }
        Ok(())
    }
}

/// A log as its files have it.
pub(super) struct Content {
    pub(super) bitfield: Bitfield,
    pub(super) roots: Roots,
    pub(super) vouched: Vouched,
    pub(super) recovery: Option<Recovery>,
    /// The files do not say this, because they could not be written. From this block on nothing is known
    /// to be durable.
    pub(super) only_read: Option<u64>,
}

/// What there is of a log in its files.
pub(super) enum Examined {
    /// It was closed.
    Closed(Content),
    /// It was not closed, and its end was found.
    Open(Box<End>),
    /// It was not closed, and blocks are damaged that were there before.
    Damaged(Content),
}

/// Finds the log in its files, and puts its end right if it was not closed.
///
/// `writer` says that all of the tree must be there, because the log is written here. `may_lose`
/// says that more than one append may have been lost, because nobody waited for them to be durable:
/// it counts where whoever wrote them [has not noted](guard::may_lose) whether that is so.
pub(super) fn load(
    files: &FeedFiles,
    verifier: &Verifier,
    writer: bool,
    may_lose: bool,
) -> Result<Content> {
    match examine(files, verifier, writer, may_lose)? {
        Examined::Closed(mut content) => {
            let length = content.roots.length();
            // A page that had only grown when the power went shows anything.
            content.bitfield.truncate(length);
            mend_closed(files, &mut content.bitfield, length)?;
            Ok(content)
        }
        Examined::Open(mut end) => match end.put_right(files, files.quarantine()) {
            Ok(dropped_bytes) => Ok(end.into_content(dropped_bytes)),
            // What is here can be read all the same, with the tree as it is.
            Err(error) if error.says_unwritable() && end.nodes.is_empty() => {
                tracing::warn!(%error, "the end of the core cannot be put right, so it is only read");
                // A bit was written after what it claims was synced; what was found again may never have been.
                let durable = end.claimed.min(end.checkpoint);
                let content = end.into_content(0);
                Ok(Content {
                    only_read: Some(durable),
                    ..content
                })
            }
            Err(error) => Err(error),
        },
        Examined::Damaged(content) => {
            if let Some(recovery) = &content.recovery {
                tracing::warn!(target: crate::TOLD, %recovery);
            }
            Ok(content)
        }
    }
}

/// Finds the log in its files, as [`load`] does, and changes nothing.
pub(super) fn examine(
    files: &FeedFiles,
    verifier: &Verifier,
    writer: bool,
    may_lose: bool,
) -> Result<Examined> {
    // Whoever opens it, what was written here is found as its writer would find it: what never was
    // durable would stay as holes otherwise.
    let was_written = || Ok::<_, Error>(writer || guard::was_written(files.storage())?);
    let bitfield = load_bitfield(files, MAX_LENGTH)?;
    let claimed = load_claimed(files, verifier, &bitfield);
    let closed = match &claimed {
        // The key vouches for all of it: whatever stands behind that is none of its.
        Ok((_, Vouched::Static)) => true,
        Ok((roots, _)) => files.surplus(roots.length(), roots.byte_length())? == 0,
        // A torn bitfield can claim what never was. That of a closed log is damaged.
        Err(error) if error.is_corruption() => {
            has_lost_nodes(files, &bitfield)?
                || was_written()?
                    && files.surplus(leading_leaves(&bitfield), u64::MAX)? == 0
                    && !is_beyond_all(files, &bitfield)?
                    && !has_mark(files)?
        }
        Err(_) => true,
    };
    if closed {
        let (roots, vouched) = claimed?;
        return Ok(Examined::Closed(Content {
            bitfield,
            roots,
            vouched,
            recovery: None,
            only_read: None,
        }));
    }
    let may_lose = guard::may_lose(files, writer && may_lose)?;
    let search = Search::new(files, verifier);
    let found = if was_written()? {
        search.writer_end(may_lose)?
    } else {
        search.reader_end(may_lose)?
    };
    let damage = match found {
        Found::End(end) if may_lose => return Ok(Examined::Open(end)),
        Found::End(end) => match lost_end(files, &bitfield, end.roots.length())? {
            Some(damage) => damage,
            None if end.surplus(files)? <= MAX_SURPLUS => return Ok(Examined::Open(end)),
            None => Corruption::Block {
                index: end.roots.length(),
            },
        },
        Found::Damage(damage) => damage,
    };
    let (roots, vouched) = claimed.map_err(|_| Error::Corrupt(damage.clone()))?;
    // A static log that was being finished: nothing but the mark was ever written for it there.
    let is_marked = || {
        let is_blank = files.previous_signature(MAX_LENGTH)?.is_none();
        Ok::<_, Error>(is_blank && files.is_marked(roots.length())?)
    };
    if vouched == Vouched::Unsigned && !was_written()? && is_marked()? {
        return Err(Corruption::KeyMissing.into());
    }
    let damage = match vouched {
        Vouched::Unsigned => Corruption::Signature {
            length: roots.length(),
        },
        _ => damage,
    };
    Ok(Examined::Damaged(Content {
        recovery: Some(Recovery {
            length: roots.length(),
            checkpoint: roots.length(),
            recovered: 0,
            dropped_bytes: 0,
            damage: Some(damage),
        }),
        bitfield,
        roots,
        vouched: Vouched::Damaged,
        only_read: None,
    }))
}

/// The damage of a log that was found to have `length` blocks, if its writer noted that more were durable,
/// and there is something of them that would be cut off: without the tree no signature is right.
fn lost_end(files: &FeedFiles, bitfield: &Bitfield, length: u64) -> Result<Option<Corruption>> {
    let Some(noted) = guard::durable_length(files.storage())?.filter(|&noted| noted > length)
    else {
        return Ok(None);
    };
    let is_left = bitfield.bound() >= noted
        || files.tree_blocks()? >= noted
        || files.signature(noted.saturating_sub(1))?.is_some();
    Ok(is_left.then_some(Corruption::Signature { length: noted }))
}

/// The bits of the first `length` blocks.
pub(super) fn load_bitfield(files: &FeedFiles, length: u64) -> Result<Bitfield> {
    let size = PageSize::from_bytes(files.page_size()).unwrap_or(PageSize::Current);
    let mut bitfield = Bitfield::new(size);
    let pages = length.div_ceil(PAGE_BLOCKS);
    files.pages(|page, bytes| {
        if page < pages {
            bitfield.load_page(page, bytes);
        }
    })?;
    bitfield.truncate(length);
    Ok(bitfield)
}

/// The peaks of the tree that the bitfield speaks of, and who vouches for them.
fn load_claimed(
    files: &FeedFiles,
    verifier: &Verifier,
    bitfield: &Bitfield,
) -> Result<(Roots, Vouched)> {
    let length = tree_index::length(&TreeBits(bitfield));
    let wanted: Vec<_> = full_roots(length).collect();
    let nodes = files.required_nodes(&wanted)?;
    // What is stored is to blame here, not a peer.
    let roots = Roots::from_nodes(length, nodes).map_err(|_| Corruption::Signature { length })?;
    let vouched = vouch(files, verifier, &roots.head())?;
    Ok((roots, vouched))
}

fn vouch(files: &FeedFiles, verifier: &Verifier, head: &TreeHead) -> Result<Vouched> {
    let Some(last) = head.length.checked_sub(1) else {
        return Ok(Vouched::Signed);
    };
    match files.signature(last)? {
        Some(signature) if verifies(verifier, head, &signature) => Ok(Vouched::Signed),
        Some(_) => Err(Error::Corrupt(Corruption::Signature {
            length: head.length,
        })),
        None if verifier.is_static_head(head) => Ok(Vouched::Static),
        None => Ok(Vouched::Unsigned),
    }
}

pub(super) fn verifies(verifier: &Verifier, head: &TreeHead, signature: &[u8; 64]) -> bool {
    verifier.verify(head, &Signature::from(*signature))
}

/// The roots of the greatest length that has a signature; `None` when none of the last ones is
/// right.
pub(super) fn newest_signed(files: &FeedFiles, verifier: &Verifier) -> Result<Option<Roots>> {
    Search::new(files, verifier).newest_signed(MAX_LENGTH)
}

/// Whether the bitfield claims blocks for which no file has room, in a way that no log ever did: it
/// has grown, for pages to come, and shows what the disk had there before.
fn is_beyond_all(files: &FeedFiles, bitfield: &Bitfield) -> Result<bool> {
    let length = tree_index::length(&TreeBits(bitfield));
    let is_a_log = leading_leaves(bitfield) == length
        && bitfield.bound() <= length
        && bitfield.tree_bound().div_ceil(2) <= length;
    let room = files.tree_blocks()?;
    Ok(length > room && !is_a_log && files.surplus(room, u64::MAX)? == 0)
}

/// Whether the bitfield claims blocks for which `tree` has no room, up to the newest signature and with
/// nothing behind that: a bit is written after what it claims is durable, and what has grown by chance
/// does not end where a signature does.
fn has_lost_nodes(files: &FeedFiles, bitfield: &Bitfield) -> Result<bool> {
    let length = tree_index::length(&TreeBits(bitfield));
    let Some(last) = length.checked_sub(1) else {
        return Ok(false);
    };
    Ok(bitfield.bound() > files.tree_blocks()?
        && bitfield.bound() <= length
        && files.signature(last)?.is_some()
        && files.surplus(length, u64::MAX)? == 0)
}

/// Whether something stands behind the newest signature, as the mark of an open log does. A page that had only
/// grown may claim the block in whose place that is.
fn has_mark(files: &FeedFiles) -> Result<bool> {
    let newest = files.previous_signature(MAX_LENGTH)?;
    Ok(files.is_marked(newest.map_or(0, |(block, _)| length_with(block)))?)
}

/// How many blocks have their leaf in the bitfield, from the first one on.
fn leading_leaves(bitfield: &Bitfield) -> u64 {
    let bits = TreeBits(bitfield);
    let without = (0..MAX_LENGTH).find(|&block| !bits.has_leaf(block));
    without.unwrap_or(MAX_LENGTH)
}

/// Where a log ends, and what is to be put right.
pub(super) struct End {
    pub(super) bitfield: Bitfield,
    pub(super) roots: Roots,
    pub(super) checkpoint: u64,
    /// What the bitfield claimed.
    pub(super) claimed: u64,
    /// How many blocks it claims that it did not claim before.
    pub(super) recovered: u64,
    /// Nodes that are not as the blocks say.
    pub(super) nodes: Vec<Node>,
    /// Before which lengths something stands that is no signature over them, in ascending order:
    /// what a loss of power left of one.
    pub(super) torn_signatures: Vec<u64>,
}

impl End {
    pub(super) fn surplus(&self, files: &FeedFiles) -> Result<u64> {
        Ok(files.surplus(self.roots.length(), self.roots.byte_length())?)
    }

    /// Makes the files say what was found. What is cut off follows in `quarantine`.
    pub(super) fn adopt(
        mut self,
        files: &FeedFiles,
        quarantine: Quarantine<'_>,
    ) -> Result<Content> {
        let dropped_bytes = self.put_right(files, quarantine)?;
        Ok(self.into_content(dropped_bytes))
    }

    /// As [`adopt`](Self::adopt), and returns how many bytes were cut off. What was found is right here
    /// also if it fails.
    fn put_right(&mut self, files: &FeedFiles, mut quarantine: Quarantine<'_>) -> Result<u64> {
        let (length, byte_length) = (self.roots.length(), self.roots.byte_length());
        for node in tree_index::unfinished(length) {
            self.bitfield.tree_clear(node.get());
        }
        super::open::write_headers(files)?;
        files.quarantine_end(length, byte_length, &mut quarantine)?;
        for length in &self.torn_signatures {
            quarantine.add_signature(length.saturating_sub(1))?;
        }
        let dropped_bytes = quarantine.finish()?;
        files.write_nodes(&self.nodes)?;
        for node in tree_index::unfinished(length) {
            if files.node(node)?.is_some() {
                files.clear_node(node)?;
            }
        }
        files.cut(length, byte_length)?;
        for length in &self.torn_signatures {
            files.clear_signatures(one_block(length.saturating_sub(1)))?;
        }
        files.sync_content()?;
        files.reserve_pages(length)?;
        write_pages(files, &mut self.bitfield, length)?;
        files.truncate_pages(self.bitfield.page_count())?;
        files.sync_bitfield()?;
        guard::note_recovered(files.storage())?;
        files.mark_closed(length)?;
        Ok(dropped_bytes)
    }

    fn into_content(self, dropped_bytes: u64) -> Content {
        let recovery = Recovery {
            length: self.roots.length(),
            checkpoint: self.checkpoint,
            recovered: self.recovered,
            dropped_bytes,
            damage: None,
        };
        tracing::info!(%recovery);
        Content {
            bitfield: self.bitfield,
            roots: self.roots,
            vouched: Vouched::Signed,
            recovery: Some(recovery),
            only_read: None,
        }
    }
}

/// How many blocks a page speaks of.
pub(super) const PAGE_BLOCKS: u64 = 8192;

/// How many blocks may be appended until their bits are synced.
pub(crate) const CHECKPOINT_BLOCKS: u64 = 1024;

/// More than this behind the end of a file is not what an append left: 4 GiB, which a hole in a
/// damaged file can exceed by far.
const MAX_SURPLUS: u64 = 4 << 30;
