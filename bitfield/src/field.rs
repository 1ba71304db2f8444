use std::ops::Range;

use crate::bits::{
    Bits, CHUNK_BITS, CHUNK_BYTES, Change, MAX_BITS, Stretch, Summary, from_bytes, to_bytes,
};
use crate::{MAX_BLOCKS, index, rle};

/// Data bits of a page.
const PAGE_BLOCKS: u64 = 8192;
/// Tree bits of a page.
const PAGE_NODES: u64 = 16384;
const DATA_BYTES: usize = 1024;
const TREE_BYTES: usize = 2048;
const DATA_CHUNKS: u64 = PAGE_BLOCKS / CHUNK_BITS;
const TREE_CHUNKS: u64 = PAGE_NODES / CHUNK_BITS;
/// Pages end where positions do.
const MAX_PAGES: u64 = MAX_BITS / PAGE_NODES;

/// The size of the pages of a `bitfield` file, which its header tells and which never changes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum PageSize {
    /// 3584 bytes, with 512 index bytes: every log made since hypercore 6.22.1.
    #[default]
    Current,
    /// 3328 bytes, with 256 index bytes: older logs, for ever.
    Legacy,
}

impl PageSize {
    /// The page size that is this many bytes; `None` for any other number.
    #[must_use]
    pub const fn from_bytes(bytes: u16) -> Option<Self> {
        match bytes {
            3584 => Some(Self::Current),
            3328 => Some(Self::Legacy),
            _ => None,
        }
    }

    /// The size in bytes.
    #[must_use]
    pub const fn bytes(self) -> usize {
        match self {
            Self::Current => 3584,
            Self::Legacy => 3328,
        }
    }

    const fn index_bytes(self) -> u64 {
        match self {
            Self::Current => 512,
            Self::Legacy => 256,
        }
    }

    /// The page that an index byte is in.
    const fn page_of(self, node: u64) -> u64 {
        match self {
            Self::Current => node / 512,
            Self::Legacy => node / 256,
        }
    }
}

/// Which blocks and which tree nodes of a log are here, and which pages of its `bitfield` file are to be written.
///
/// Blocks end at 2^52 and tree indexes at 2^53: what is beyond reads as clear and cannot be set. Memory and time grow
/// with the number of changes between ones and zeros, so a complete log of any length costs next to nothing.
///
/// Reading needs only `&self`. Two bitfields are equal when their bits and the size of their pages are, whatever pages are
/// dirty.
#[derive(Clone, Debug)]
pub struct Bitfield {
    page_size: PageSize,
    data: Bits,
    tree: Bits,
    /// A bit for each page to be written.
    dirty: Bits,
    /// The page that was touched last and is still dirty: most changes are to the same one again.
    touched: Option<u64>,
    /// One past the last page that was ever touched.
    pages: u64,
}

impl Bitfield {
    /// An empty bitfield without pages.
    #[must_use]
    pub fn new(page_size: PageSize) -> Self {
        Self {
            page_size,
            data: Bits::default(),
            tree: Bits::default(),
            dirty: Bits::default(),
            touched: None,
            pages: 0,
        }
    }

    /// The size of its pages.
    #[must_use]
    pub fn page_size(&self) -> PageSize {
        self.page_size
    }

    /// Is this block here?
    #[must_use]
    pub fn get(&self, block: u64) -> bool {
        self.data.get(block)
    }

    /// Says whether a block is here; true if that was news.
    pub fn set(&mut self, block: u64, here: bool) -> bool {
        if block >= MAX_BLOCKS {
            return false;
        }
        let change = self.data.set(block, here);
        if change == Change::Nothing {
            return false;
        }
        let page = block / PAGE_BLOCKS;
        self.touch(page);
        self.touch_index(page..page.saturating_add(1));
        if change == Change::Summary {
            self.touch_above(page);
        }
        true
    }

    /// Says whether the blocks of a range are here; how many changed.
    pub fn set_range(&mut self, blocks: Range<u64>, here: bool) -> u64 {
        let (start, end) = if here {
            (Some(self.data.next_clear(blocks.start)), MAX_BLOCKS)
        } else {
            (self.data.next_set(blocks.start), self.data.bound())
        };
        let end = blocks.end.min(end);
        let Some(start) = start.filter(|&start| start < end) else {
            return 0;
        };
        let pages = start / PAGE_BLOCKS..end.div_ceil(PAGE_BLOCKS);
        let (first, last) = (pages.start, pages.end.saturating_sub(1));
        let before = (self.halves(first), self.halves(last));
        let changed = self.data.set_range(start..end, here);
        self.grow(pages.end);
        self.dirty.set_range(pages.clone(), true);
        self.touch_index(pages);
        // What is above a page between these two is in one of the pages, or above both.
        let between = first.abs_diff(last) > 1;
        if between || self.halves(first) != before.0 {
            self.touch_above(first);
        }
        if between || self.halves(last) != before.1 {
            self.touch_above(last);
        }
        changed
    }

    /// How many blocks of the range are here.
    #[must_use]
    pub fn count(&self, blocks: Range<u64>) -> u64 {
        self.data.count(blocks)
    }

    /// How many blocks are here.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.data.total()
    }

    /// The first block from `from` that is here.
    #[must_use]
    pub fn next_set(&self, from: u64) -> Option<u64> {
        self.data.next_set(from)
    }

    /// The first block from `from` that is not here.
    #[must_use]
    pub fn next_clear(&self, from: u64) -> u64 {
        self.data.next_clear(from)
    }

    /// One past the last block that is here.
    #[must_use]
    pub fn bound(&self) -> u64 {
        self.data.bound()
    }

    /// Are all blocks of the range here? True of an empty range.
    #[must_use]
    pub fn has_all(&self, blocks: Range<u64>) -> bool {
        self.data.has_all(blocks)
    }

    /// The longest runs of blocks that are here, in order, cut to the range.
    pub fn runs(&self, blocks: Range<u64>) -> impl Iterator<Item = Range<u64>> {
        self.data.runs(blocks)
    }

    /// The blocks of a range as [`rle`], which is what a Want is answered with; the first bit is that of
    /// `blocks.start`, rounded down to a multiple of 8.
    #[must_use]
    pub fn rle(&self, blocks: Range<u64>) -> Vec<u8> {
        let mut encoder = rle::Encoder::default();
        self.data.for_each_stretch(blocks, |stretch| match stretch {
            Stretch::Fill(bit, len) => encoder.fill(bit, len),
            Stretch::Bytes(bytes) => encoder.bytes(bytes),
        });
        encoder.finish()
    }

    /// Is the node with this flat-tree index here?
    #[must_use]
    pub fn tree_get(&self, index: u64) -> bool {
        self.tree.get(index)
    }

    /// The longest runs of tree nodes that are here, in order, cut to the range.
    pub fn tree_runs(&self, nodes: Range<u64>) -> impl Iterator<Item = Range<u64>> {
        self.tree.runs(nodes)
    }

    /// Says that a tree node is here; true if that was news. Parents are left to the caller.
    pub fn tree_set(&mut self, index: u64) -> bool {
        let new = self.tree.set(index, true) != Change::Nothing;
        if new {
            self.touch(index / PAGE_NODES);
        }
        new
    }

    /// Says that all tree nodes of a range are here; of how many that is news.
    pub fn tree_set_range(&mut self, nodes: Range<u64>) -> u64 {
        let start = self.tree.next_clear(nodes.start);
        let end = nodes.end.min(MAX_BITS);
        if start >= end {
            return 0;
        }
        let pages = start / PAGE_NODES..end.div_ceil(PAGE_NODES);
        self.grow(pages.end);
        self.dirty.set_range(pages, true);
        self.tree.set_range(start..end, true)
    }

    /// Says that a tree node is not here; true if it was.
    pub fn tree_clear(&mut self, index: u64) -> bool {
        let was = self.tree.set(index, false) != Change::Nothing;
        if was {
            self.touch(index / PAGE_NODES);
        }
        was
    }

    /// Forgets all blocks from `length` on, and all nodes right of those before it.
    pub fn truncate(&mut self, length: u64) {
        self.set_range(length..MAX_BLOCKS, false);
        self.tree_truncate(length);
    }

    /// Forgets all tree nodes right of those before block `length`.
    pub fn tree_truncate(&mut self, length: u64) {
        let end = self.tree.bound();
        if let Some(start) = self.tree.next_set(leaf(length)) {
            self.tree.set_range(start..end, false);
            let pages = start / PAGE_NODES..end.div_ceil(PAGE_NODES);
            self.dirty.set_range(pages, true);
        }
    }

    /// One past the last tree node that is here.
    #[must_use]
    pub fn tree_bound(&self) -> u64 {
        self.tree.bound()
    }

    /// The first block from `block` on of which neither the tree node of its leaf is here nor the one above that.
    #[must_use]
    pub fn next_unproven(&self, block: u64) -> u64 {
        if block >= MAX_BLOCKS {
            return block;
        }
        self.tree.next_in_words(leaf(block), unproven_leaves) / 2
    }

    /// The blocks that are here while the tree node of their leaf is not: a page was torn while it was
    /// written.
    pub fn blocks_without_leaf(&self) -> impl Iterator<Item = u64> {
        let blocks = self.data.runs(0..MAX_BLOCKS);
        let pieces = blocks.flat_map(|run| {
            let starts = run.clone().step_by(PAGE_BLOCKS as usize);
            starts.map(move |start| start..run.end.min(start.saturating_add(PAGE_BLOCKS)))
        });
        // Where a tree is whole there is nothing to look for.
        let suspects = pieces.filter(|piece| {
            let leaves = leaf(piece.start)..leaf(piece.end).saturating_sub(1);
            !self.tree.has_all(leaves)
        });
        suspects
            .flatten()
            .filter(|&block| !self.tree.get(leaf(block)))
    }

    /// The tree nodes that are here while their parent is not: roots, those of shorter logs, and what
    /// is left in a page that was torn while it was written.
    pub fn orphans(&self) -> impl Iterator<Item = u64> {
        let mut end = 0;
        let gaps = self
            .tree
            .runs(0..MAX_BITS)
            .chain(std::iter::once(MAX_BITS..MAX_BITS));
        let gaps = gaps.map(move |run| {
            let gap = end..run.start;
            end = run.end;
            gap
        });
        gaps.flat_map(parents_of_others)
            .flat_map(|(parent, half)| [parent.saturating_sub(half), parent.saturating_add(half)])
            .filter(|&child| self.tree.get(child))
    }

    /// Replaces the bits of a page by those stored in `bytes`, without making it dirty.
    ///
    /// A page cut short by the end of the file is completed with zeros. Index bytes are not read.
    pub fn load_page(&mut self, page: u64, bytes: &[u8]) {
        if page >= MAX_PAGES {
            return;
        }
        let (data, tree) = bytes.split_at(bytes.len().min(DATA_BYTES));
        load(&mut self.data, chunks(page, DATA_CHUNKS), data);
        load(&mut self.tree, chunks(page, TREE_CHUNKS), tree);
        self.pages = self.pages.max(page.saturating_add(1));
    }

    /// How many pages the file has: one more than the last that was ever loaded or changed.
    #[must_use]
    pub fn page_count(&self) -> u64 {
        self.pages
    }

    /// Forgets the pages from number `count` on, and what they say: the file does not have them.
    pub fn truncate_pages(&mut self, count: u64) {
        if count >= self.pages {
            return;
        }
        self.truncate(count.saturating_mul(PAGE_BLOCKS));
        self.pages = count;
        self.touch_above_end(count);
        self.dirty.set_range(count..MAX_PAGES, false);
        self.touched = None;
    }

    /// Writes a page as the file stores it, with the index bytes that its data bits imply. Pages beyond
    /// the last block there can be are blank.
    ///
    /// # Panics
    /// If `out` is not exactly a page long.
    pub fn encode_page(&self, page: u64, out: &mut [u8]) {
        assert_eq!(
            out.len(),
            self.page_size.bytes(),
            "the buffer is one page long"
        );
        if page >= MAX_PAGES {
            out.fill(0);
            return;
        }
        let data = self.data_bytes(page);
        let (blocks, rest) = out.split_at_mut(DATA_BYTES);
        let (tree, index) = rest.split_at_mut(TREE_BYTES);
        blocks.copy_from_slice(&data);
        store(&self.tree, chunks(page, TREE_CHUNKS), tree);
        match self.page_size {
            PageSize::Current => index.copy_from_slice(&self.index(page, &data)),
            // Half a tree does not fit, so that page p has one half of the tree of page p / 2.
            PageSize::Legacy => {
                let tree = self.index(page / 2, &self.data_bytes(page / 2));
                let (even, odd) = tree.split_at(256);
                index.copy_from_slice(if page.is_multiple_of(2) { even } else { odd });
            }
        }
    }

    /// The pages whose stored form changed since they were last marked clean, in ascending order, one by one.
    pub fn dirty_pages(&self) -> impl Iterator<Item = u64> {
        self.dirty.runs(0..MAX_PAGES).flatten()
    }

    /// Says that the file has a page for each of `length` blocks, if only a blank one: then some of them
    /// have index bytes, though no bits.
    pub fn reserve(&mut self, length: u64) {
        self.grow(length.min(MAX_BLOCKS).div_ceil(PAGE_BLOCKS));
    }

    /// Says that a page must be written again, because writing it failed.
    pub fn mark_dirty(&mut self, page: u64) {
        if page < self.pages {
            self.dirty.set(page, true);
        }
    }

    /// The dirty pages, in ascending order, which are dirty no more.
    ///
    /// Takes 8 bytes for each: one page for every 8192 blocks of a range that changed, however few runs they are.
    pub fn take_dirty(&mut self) -> Vec<u64> {
        let pages = self.dirty_pages().collect();
        self.dirty.clear();
        self.touched = None;
        pages
    }

    /// The data bits of a page, as the file stores them.
    fn data_bytes(&self, page: u64) -> [u8; DATA_BYTES] {
        let mut data = [0; DATA_BYTES];
        store(&self.data, chunks(page, DATA_CHUNKS), &mut data);
        data
    }

    /// The index bytes from number 512 `page` on, which summarise `data`, the bits of this page.
    fn index(&self, page: u64, data: &[u8; DATA_BYTES]) -> [u8; 512] {
        let mut tree = index::page_tree(data);
        if page < self.pages {
            let (first, end) = (page.saturating_mul(512), self.index_end());
            let node = |node| {
                let summary = |blocks| self.data.summary(blocks);
                index::node(first.saturating_add(node), end, summary)
            };
            tree[255] = node(255);
            tree[511] = node(511);
        }
        tree
    }

    /// How many index bytes are stored.
    fn index_end(&self) -> u64 {
        self.pages.saturating_mul(self.page_size.index_bytes())
    }

    fn halves(&self, page: u64) -> [Summary; 2] {
        let first = page.saturating_mul(DATA_CHUNKS);
        [first, first | 1].map(|chunk| self.data.chunk_summary(chunk))
    }

    fn touch(&mut self, page: u64) {
        if self.touched.replace(page) == Some(page) {
            return;
        }
        self.grow(page.saturating_add(1));
        self.dirty.set(page, true);
    }

    /// A page of a legacy file has its index bytes in two others, as far as those exist.
    fn touch_index(&mut self, pages: Range<u64>) {
        if self.page_size == PageSize::Legacy {
            let start = pages.start.saturating_mul(2);
            let end = self.pages.min(pages.end.saturating_mul(2));
            self.dirty.set_range(start..end, true);
        }
    }

    /// The index bytes above a page are in pages of their own.
    fn touch_above(&mut self, page: u64) {
        for node in index::above_page(page, self.index_end()) {
            self.dirty.set(self.page_size.page_of(node), true);
        }
    }

    /// Makes room for so many pages. This lets index bytes of old data be stored, and those above see more.
    fn grow(&mut self, pages: u64) {
        if pages <= self.pages {
            return;
        }
        let old = std::mem::replace(&mut self.pages, pages);
        self.touch_above_end(old);
        if self.page_size == PageSize::Legacy {
            let end = self.pages.min(old.saturating_mul(2));
            self.dirty.set_range(old..end, true);
        }
    }

    /// What is above the last of `pages` pages is stored as far as there are pages for it.
    fn touch_above_end(&mut self, pages: u64) {
        let Some(last) = pages.checked_sub(1) else {
            return;
        };
        self.touch_above(last);
        if self.page_size == PageSize::Legacy {
            self.touch_above(last / 2);
        }
    }
}

/// Which leaves, of a word of tree bits, are not here, and neither are the nodes above them. Of four nodes the
/// first and the third are leaves, with the second above both.
const fn unproven_leaves(word: u64) -> u64 {
    const FIRST: u64 = 0x8888_8888_8888_8888;
    const THIRD: u64 = FIRST >> 2;
    !((word | word << 1) & FIRST | (word | word >> 1) & THIRD) & (FIRST | THIRD)
}

impl PartialEq for Bitfield {
    fn eq(&self, other: &Self) -> bool {
        self.page_size == other.page_size && self.data == other.data && self.tree == other.tree
    }
}

impl Eq for Bitfield {}

/// The leaf of a block, in the tree.
fn leaf(block: u64) -> u64 {
    block.saturating_mul(2)
}

/// The chunks of a page's bits, of which every page has so many.
fn chunks(page: u64, of_page: u64) -> Range<u64> {
    let first = page.saturating_mul(of_page);
    first..first.saturating_add(of_page)
}

fn load(bits: &mut Bits, chunks: Range<u64>, bytes: &[u8]) {
    let mut pieces = bytes.chunks(CHUNK_BYTES);
    for chunk in chunks {
        bits.put(chunk, from_bytes(pieces.next().unwrap_or_default()));
    }
}

fn store(bits: &Bits, chunks: Range<u64>, out: &mut [u8]) {
    for (chunk, to) in chunks.zip(out.chunks_exact_mut(CHUNK_BYTES)) {
        to.copy_from_slice(&to_bytes(&bits.words(chunk)));
    }
}

/// The tree nodes of a range that have a child outside of it, and how far away their children are.
fn parents_of_others(range: Range<u64>) -> impl Iterator<Item = (u64, u64)> {
    let Range { start, end } = range;
    let depths = 1..u64::BITS - 1;
    let depths = depths.take_while(move |depth| start < end && 1 << depth <= end);
    depths.flat_map(move |depth| {
        let half = (1 << depth) / 2;
        // At this depth they stand four times as far apart.
        let next = |from: u64| {
            let near = index::node_at(depth, from);
            if near < from {
                near.saturating_add(2 << depth)
            } else {
                near
            }
        };
        let left = next(start);
        let right = next(start.max(end.saturating_sub(half)));
        let left = (left < end.min(start.saturating_add(half))).then_some(left);
        let right = (right < end && left != Some(right)).then_some(right);
        left.into_iter()
            .chain(right)
            .map(move |parent| (parent, half))
    })
}
