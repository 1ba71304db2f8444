//! Which nodes are here, and what follows from that (Hypercore 9 `lib/tree-index.js`).
//!
//! A set of positions says a lot about a log: its length, what it can prove to others, and what
//! it needs to have proven. Nothing here looks at a hash.

use std::cell::LazyCell;
use std::collections::{BTreeMap, BTreeSet};

use crate::node::{MAX_LENGTH, NodeIndex, full_roots};

/// A set of tree positions.
pub trait NodeSet {
    /// Whether the node is known. False from [`bound`](Self::bound) on.
    fn has(&self, node: NodeIndex) -> bool;

    /// A number above every known position; 0 for the empty set.
    fn bound(&self) -> u64;
}

/// A set of tree positions that can grow.
pub trait NodeSetMut: NodeSet {
    /// Adds one position, and only that; true if it is new. See [`insert`] for what should follow.
    fn insert(&mut self, node: NodeIndex) -> bool;
}

/// Adds a node, then every ancestor whose two children are now known; true if the node is new.
///
/// The other way round nothing follows: to know a parent says nothing of its children.
pub fn insert(set: &mut impl NodeSetMut, node: NodeIndex) -> bool {
    if !set.insert(node) {
        return false;
    }
    let mut node = node;
    while set.has(node.sibling()) {
        node = node.parent();
        if !set.insert(node) {
            break;
        }
    }
    true
}

/// What a request for `node` says about the nodes already here, so that a peer can omit them.
///
/// 1 if nothing is needed. Otherwise bit `k`, from 1, stands for the `k`-th sibling on the way up.
/// If an ancestor is known the way ends there: the next bit stands for it, and bit 0 is set.
#[must_use]
pub fn digest(set: &impl NodeSet, node: NodeIndex) -> u64 {
    if set.has(node) {
        return 1;
    }
    let mut sibling = node.sibling();
    let mut parent = node.parent();
    let beyond = sibling.get().saturating_add(2);
    // Where the log ends is looked for only where it matters.
    let end = LazyCell::new(|| capacity(set).max(beyond));
    let mut digest = 0_u64;
    // Climbs end at depth 58, so no bit is shifted out.
    let mut bit = 2_u64;
    while parent.left_span().get() > 0 || sibling.right_span().get() < *end {
        if set.has(sibling) {
            digest |= bit;
        }
        if set.has(parent) {
            digest |= bit << 1 | 1;
            // All ones: every sibling up to a known ancestor is here.
            let is_all = digest.saturating_add(1) == bit << 2;
            return if is_all { 1 } else { digest };
        }
        bit <<= 1;
        sibling = parent.sibling();
        parent = parent.parent();
    }
    digest
}

/// [`digest`] for someone who has asked for other nodes before: what the answers to that will bring
/// counts as known. `ahead` has that, and learns what the answer to this request will bring.
///
/// Of many requests that are under way at the same time each is then answered with about one node,
/// and not with all those that the others are answered with, too. The remote must answer in the
/// order in which it is asked, and go by each digest alone: one that remembers what it was told, as
/// Hypercore 9 does, would never send what an earlier answer was to bring and did not.
///
/// Only for requests of values: of an answer without one, the leaf and its sibling may be
/// [unbound](crate::ChangeSet::unbound), and then they are not stored. Whoever counted on them would
/// refuse an honest answer. Ask for a hash alone with [`digest`].
#[must_use]
pub fn digest_ahead(set: &impl NodeSet, ahead: &mut RemoteTree, node: NodeIndex) -> u64 {
    let mut known = Ahead { set, ahead };
    let digest = digest(&known, node);
    // Otherwise the answer goes up to roots that only the remote knows.
    if digest & 1 == 1 {
        let climb = || std::iter::successors(Some(node), |node| Some(node.parent()));
        let top = climb().find(|&node| known.has(node));
        for node in climb().take_while(|&node| Some(node) != top) {
            insert(&mut known, node);
            insert(&mut known, node.sibling());
        }
    }
    digest
}

/// What is known, and what will be.
struct Ahead<'a, S> {
    set: &'a S,
    ahead: &'a mut RemoteTree,
}

impl<S: NodeSet> NodeSet for Ahead<'_, S> {
    fn has(&self, node: NodeIndex) -> bool {
        self.set.has(node) || self.ahead.has(node)
    }

    fn bound(&self) -> u64 {
        self.set.bound().max(self.ahead.bound())
    }
}

impl<S: NodeSet> NodeSetMut for Ahead<'_, S> {
    fn insert(&mut self, node: NodeIndex) -> bool {
        !self.set.has(node) && self.ahead.insert(node)
    }
}

/// Twice the length of the shortest log that `set` shows to contain `node`: the tree index just
/// after it. 0 if the node is not known.
///
/// That is the length whose signature vouches for the node.
#[must_use]
pub fn verified_by(set: &impl NodeSet, node: NodeIndex) -> u64 {
    if !set.has(node) {
        return 0;
    }
    // Up to the root above the node ...
    let mut top = node;
    loop {
        let parent = top.parent();
        if parent == top || !set.has(parent) || !set.has(top.sibling()) {
            break;
        }
        top = parent;
    }
    // ... then to the right, from root to smaller root.
    while !top.is_leaf() {
        top = left_child(top.next());
        while !set.has(top) && !top.is_leaf() {
            top = left_child(top);
        }
    }
    if set.has(top) {
        top.get().saturating_add(2)
    } else {
        top.get()
    }
}

/// The length in blocks of the log that the nodes of `set` belong to.
#[must_use]
pub fn length(set: &impl NodeSet) -> u64 {
    let end = capacity(set);
    let mut node = FIRST;
    let mut top = FIRST;
    while node.right_span().get() < end {
        node = node.parent();
        if set.has(node) {
            top = node;
        }
    }
    verified_by(set, top) / 2
}

/// The known nodes that a log cut to `length` blocks does not have. Looks at every position that is cut
/// off: a set that can forget all of them at once only needs the [`unfinished`] ones.
pub fn truncated(set: &impl NodeSet, length: u64) -> impl Iterator<Item = NodeIndex> {
    let start = length.saturating_mul(2);
    let end = self::length(set).saturating_mul(2);
    let after = (start..end).filter_map(NodeIndex::new);
    after
        .chain(unfinished(length))
        .filter(|&node| set.has(node))
}

/// The positions left of the end of a log of `length` blocks that reach over it: the ancestors of its
/// roots, of which it has none.
pub fn unfinished(length: u64) -> impl Iterator<Item = NodeIndex> {
    let end = length.saturating_mul(2);
    full_roots(length).flat_map(move |root| {
        std::iter::successors(Some(root.parent()), |node| Some(node.parent()))
            .take_while(move |node| node.get() < end)
    })
}

/// What a peer's digests told about the nodes it has, or [`digest_ahead`] about those it will send.
///
/// Memory is bounded: when too many distant nodes are known all are forgotten. Nodes are then sent
/// that are here already, which costs bytes and nothing else.
#[derive(Clone, Debug)]
pub struct RemoteTree {
    pages: BTreeMap<u64, [u64; PAGE_WORDS]>,
    bound: u64,
    max_pages: usize,
}

/// 1024 nodes a page.
const PAGE_WORDS: usize = 16;
const PAGE_BITS: u64 = 64 * PAGE_WORDS as u64;

/// What a page takes at most, as a map that was filled in order is half empty.
const PAGE_MEMORY: usize = 256;

impl RemoteTree {
    /// Nothing known. Takes up to about a mebibyte: enough for two million blocks requested in sequence.
    #[must_use]
    pub fn new() -> Self {
        Self::with_memory(1 << 20)
    }

    /// Nothing known. Takes up to about so many bytes: 1024 nodes need 256.
    #[must_use]
    pub fn with_memory(bytes: usize) -> Self {
        Self {
            pages: BTreeMap::new(),
            bound: 0,
            max_pages: bytes / PAGE_MEMORY,
        }
    }
}

impl Default for RemoteTree {
    fn default() -> Self {
        Self::new()
    }
}

impl NodeSet for RemoteTree {
    fn has(&self, node: NodeIndex) -> bool {
        let (page, word, bit) = locate(node);
        self.pages
            .get(&page)
            .and_then(|page| page.get(word))
            .is_some_and(|word| word & bit != 0)
    }

    fn bound(&self) -> u64 {
        self.bound
    }
}

impl NodeSetMut for RemoteTree {
    fn insert(&mut self, node: NodeIndex) -> bool {
        if self.has(node) {
            return false;
        }
        let (page, word, bit) = locate(node);
        if self.pages.len() >= self.max_pages && !self.pages.contains_key(&page) {
            self.pages.clear();
            self.bound = 0;
        }
        if let Some(word) = self.pages.entry(page).or_default().get_mut(word) {
            *word |= bit;
        }
        self.bound = self.bound.max(node.get().saturating_add(1));
        true
    }
}

impl NodeSet for BTreeSet<NodeIndex> {
    fn has(&self, node: NodeIndex) -> bool {
        self.contains(&node)
    }

    fn bound(&self) -> u64 {
        self.last().map_or(0, |node| node.get().saturating_add(1))
    }
}

impl NodeSetMut for BTreeSet<NodeIndex> {
    fn insert(&mut self, node: NodeIndex) -> bool {
        Self::insert(self, node)
    }
}

const FIRST: NodeIndex = NodeIndex::leaf(0).unwrap();

/// The page, the word in it and the bit in that of a node.
fn locate(node: NodeIndex) -> (u64, usize, u64) {
    let bit = node.get() % PAGE_BITS;
    (node.get() / PAGE_BITS, (bit / 64) as usize, 1 << (bit % 64))
}

/// The bound as Hypercore 9 sees it, whose bit fields are whole bytes long. A digest takes another
/// step up depending on it.
fn capacity(set: &impl NodeSet) -> u64 {
    set.bound().min(2 * MAX_LENGTH).next_multiple_of(8)
}

/// The left child, or the leaf itself.
fn left_child(node: NodeIndex) -> NodeIndex {
    node.children().map_or(node, |(left, _)| left)
}
