//! Nodes that were read or written lately.
//!
//! A block is found by the sizes of the roots before it, and proven by the nodes beside its way to
//! the top. Most of them are shared with the last block, or stand high in the tree and are shared
//! by all: with this, 64-byte blocks are read at random about twice as fast, and replicated a
//! quarter faster, than when every node is read from the file.

use std::{
    collections::HashMap,
    hash::{BuildHasherDefault, Hasher},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use hypercore_merkle::{Node, NodeIndex};

/// The depth from which on nodes are kept in a map, by their worth. Those below it, which nearly all
/// are that is written, are kept by their position: that takes a quarter of the time.
const HIGH: u64 = 7;

/// How many of these are kept: as many as a table of 2^14 places takes, which has 930 KB. All high
/// roots before any block of a million are among them; the others stand beside its leaf.
const CAPACITY: usize = (1 << 14) / 8 * 7;

/// How many are kept while many logs are open: 230 KB.
const FEW: usize = CAPACITY / 4;

/// How many positions have a place for a low node: those of 4,096 blocks in a row, 459 KB.
const LOW: usize = 1 << 13;

/// How many nodes and places the caches of a process have room for before each of them keeps but [`FEW`],
/// and makes no more room for low nodes and places: 60 MB.
const MANY: usize = 64 * CAPACITY;

/// Of how many blocks it is kept where they stand: 72 KB.
const PLACES: usize = 1024;

/// How many the caches of this process have room for.
static HELD: AtomicUsize = AtomicUsize::new(0);

/// Some nodes of a file, as they are stored there.
#[derive(Debug)]
pub(crate) struct NodeCache(Mutex<Inner>);

#[derive(Debug)]
struct Inner {
    high: Nodes,
    /// The others, the last of those whose positions share a slot. As long as there was need for.
    low: Vec<Option<Node>>,
    /// Beyond every position that one of these may have.
    end: u64,
    /// Where blocks stand that were lately looked for, the last of those that share a slot: their
    /// offsets, leaves, and generations. As long as there was need for.
    places: Vec<Option<(u64, Node, u64)>>,
    /// What a leaf was read into last.
    buffer: Vec<u8>,
    /// Counts what was written, so that a read that was overtaken by a write is not kept.
    generation: u64,
    /// How many all caches have room for,
    held: &'static AtomicUsize,
    /// and how many of those are counted for this one.
    counted: usize,
}

type Nodes = HashMap<u64, Node, BuildHasherDefault<Spread>>;

/// What is known of where a block stands.
#[derive(Debug)]
pub(crate) struct Place {
    /// Where it begins but for the roots before it that are unknown,
    pub(crate) offset: u64,
    /// which are these: a bit for the depth of each.
    pub(crate) unknown: u64,
    pub(crate) leaf: Option<Node>,
    /// To read it into if it is unknown: one that was used before needs no zeros.
    pub(crate) buffer: Vec<u8>,
    /// What to [learn](NodeCache::learn) the others with.
    pub(crate) generation: u64,
}

impl Default for NodeCache {
    fn default() -> Self {
        Self::counted_in(&HELD)
    }
}

impl NodeCache {
    fn counted_in(held: &'static AtomicUsize) -> Self {
        Self(Mutex::new(Inner {
            high: Nodes::default(),
            low: Vec::new(),
            end: 0,
            places: Vec::new(),
            buffer: Vec::new(),
            generation: 0,
            held,
            counted: 0,
        }))
    }

    /// What is known of `leaf` and the roots before it. Those below depth `near` are not looked for
    /// unless the leaf is known: they are read with it.
    pub(crate) fn locate(
        &self,
        roots: impl Iterator<Item = NodeIndex>,
        leaf: NodeIndex,
        near: u64,
    ) -> Place {
        let mut inner = self.lock();
        let mut place = Place {
            offset: 0,
            unknown: 0,
            leaf: None,
            buffer: Vec::new(),
            generation: inner.generation,
        };
        if let Some((offset, leaf)) = inner.place(leaf.get()) {
            (place.offset, place.leaf) = (offset, Some(leaf));
            return place;
        }
        place.leaf = inner.node(leaf);
        if place.leaf.is_none() {
            place.buffer = std::mem::take(&mut inner.buffer);
        }
        let near = if place.leaf.is_some() { 0 } else { near };
        for root in roots {
            let depth = root.depth();
            let known = if depth < near { None } else { inner.node(root) };
            match known {
                Some(node) => place.offset = place.offset.saturating_add(node.size),
                None => place.unknown |= 1 << depth,
            }
        }
        place
    }

    /// The block of `leaf` was found at `offset`, after [`locate`](Self::locate) has returned
    /// `generation` and perhaps `buffer`.
    pub(crate) fn found(&self, offset: u64, leaf: Node, buffer: Vec<u8>, generation: u64) {
        let mut inner = self.lock();
        inner.buffer = buffer;
        if inner.generation == generation {
            inner.keep_place((offset, leaf, generation));
        }
    }

    /// The nodes that are known, to `pending` first, in the order of `indexes`, and what to
    /// [learn](Self::learn) the others with.
    pub(crate) fn get(
        &self,
        indexes: &[NodeIndex],
        pending: impl Fn(NodeIndex) -> Option<Node>,
    ) -> (Vec<Option<Node>>, u64) {
        let inner = self.lock();
        let find = |&index: &NodeIndex| inner.find(index, &pending);
        (indexes.iter().map(find).collect(), inner.generation)
    }

    /// The nodes in the order of `indexes`, if all of them are known.
    pub(crate) fn get_all(
        &self,
        indexes: &[NodeIndex],
        pending: impl Fn(NodeIndex) -> Option<Node>,
    ) -> Option<Vec<Node>> {
        let inner = self.lock();
        let mut nodes = Vec::with_capacity(indexes.len());
        for &index in indexes {
            nodes.push(inner.find(index, &pending)?);
        }
        Some(nodes)
    }

    /// These nodes were read, after [`get`](Self::get) has returned `generation`.
    pub(crate) fn learn(&self, nodes: impl IntoIterator<Item = Node>, generation: u64) {
        let mut inner = self.lock();
        if inner.generation == generation {
            inner.insert(nodes);
        }
    }

    /// These nodes are in the file now.
    pub(crate) fn written(&self, nodes: &[Node]) {
        self.written_from(u64::MAX, nodes);
    }

    /// These nodes are in the file now, and no others from position `start` on.
    pub(crate) fn written_from(&self, start: u64, nodes: &[Node]) {
        let mut inner = self.lock();
        inner.begin_generation();
        if start < inner.end {
            inner.forget_from(start);
        }
        inner.insert(nodes.iter().copied());
    }

    /// Nobody knows what the file holds now.
    pub(crate) fn forget(&self) {
        let mut inner = self.lock();
        inner.begin_generation();
        inner.high = Nodes::default();
        inner.low = Vec::new();
        inner.end = 0;
        inner.places = Vec::new();
        inner.count();
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The slot of a block among the [`PLACES`].
const fn slot(leaf: u64) -> usize {
    (leaf / 2) as usize % PLACES
}

/// The slot of a node among the [`LOW`].
const fn low_slot(node: NodeIndex) -> usize {
    node.get() as usize % LOW
}

impl Inner {
    fn begin_generation(&mut self) {
        self.generation = self.generation.wrapping_add(1);
    }

    fn find(&self, index: NodeIndex, pending: impl Fn(NodeIndex) -> Option<Node>) -> Option<Node> {
        pending(index).or_else(|| self.node(index))
    }

    fn node(&self, index: NodeIndex) -> Option<Node> {
        if index.depth() < HIGH {
            let node = *self.low.get(low_slot(index))?;
            node.filter(|node| node.index == index)
        } else {
            self.high.get(&index.get()).copied()
        }
    }

    /// Where the block of this leaf begins, and the leaf, if nothing was written since it was found.
    fn place(&self, leaf: u64) -> Option<(u64, Node)> {
        let &(offset, node, generation) = self.places.get(slot(leaf))?.as_ref()?;
        (node.index.get() == leaf && generation == self.generation).then_some((offset, node))
    }

    fn forget_from(&mut self, start: u64) {
        self.high.retain(|&position, _| position < start);
        for slot in &mut self.low {
            *slot = slot.filter(|node| node.index.get() < start);
        }
        self.end = start;
    }

    /// As many are kept as the log has nodes, unless many logs are open.
    fn keep_low(&mut self, node: Node) {
        let slot = low_slot(node.index);
        if slot >= self.low.len() {
            if self.is_one_of_many() {
                return;
            }
            self.low.resize(slot.saturating_add(1), None);
        }
        if let Some(kept) = self.low.get_mut(slot) {
            *kept = Some(node);
        }
    }

    /// As many are kept as the log has blocks, unless many logs are open.
    fn keep_place(&mut self, place: (u64, Node, u64)) {
        let slot = slot(place.1.index.get());
        if slot >= self.places.len() {
            if self.is_one_of_many() {
                return;
            }
            self.places.resize(slot.saturating_add(1), None);
            self.count();
        }
        if let Some(kept) = self.places.get_mut(slot) {
            *kept = Some(place);
        }
    }

    fn insert(&mut self, nodes: impl IntoIterator<Item = Node>) {
        for node in nodes {
            self.end = self.end.max(node.index.get().saturating_add(1));
            if node.index.depth() < HIGH {
                self.keep_low(node);
                continue;
            }
            let capacity = if self.is_one_of_many() { FEW } else { CAPACITY };
            if self.high.len() >= capacity {
                self.make_room(capacity);
            }
            self.high.insert(node.index.get(), node);
        }
        self.count();
    }

    fn is_one_of_many(&self) -> bool {
        self.held.load(Ordering::Relaxed) > MANY
    }

    /// Forgets the high nodes that do not fit into half of `capacity`, the lowest first: they are the
    /// first to be of no use.
    fn make_room(&mut self, capacity: usize) {
        let mut by_depth = [0_usize; 65];
        for node in self.high.values() {
            if let Some(count) = by_depth.get_mut(node.index.depth() as usize) {
                *count = count.saturating_add(1);
            }
        }
        let mut room = capacity / 2;
        let fits = |&&count: &&usize| {
            let rest = room.checked_sub(count);
            room = rest.unwrap_or(room);
            rest.is_some()
        };
        let kept = by_depth.iter().rev().take_while(fits).count();
        let lowest = by_depth.len().saturating_sub(kept) as u64;
        // Another table: one out of which nodes were taken may grow before it is full.
        let mut high = Nodes::with_capacity_and_hasher(capacity, BuildHasherDefault::default());
        let nodes = self.high.drain();
        high.extend(nodes.filter(|(_, node)| node.index.depth() >= lowest));
        self.high = high;
    }

    /// Tells the other caches for how many nodes and places there is room in this one.
    fn count(&mut self) {
        let room = [
            self.high.capacity(),
            self.low.capacity(),
            self.places.capacity(),
        ];
        let room: usize = room.into_iter().sum();
        if room > self.counted {
            self.held
                .fetch_add(room.saturating_sub(self.counted), Ordering::Relaxed);
        } else if room < self.counted {
            self.held
                .fetch_sub(self.counted.saturating_sub(room), Ordering::Relaxed);
        }
        self.counted = room;
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.held.fetch_sub(self.counted, Ordering::Relaxed);
    }
}

/// Spreads numbers that no stranger chooses: positions of nodes that hold true in this tree.
#[derive(Debug, Default)]
struct Spread(u64);

impl Hasher for Spread {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_u64(u64::from(byte));
        }
    }

    fn write_u64(&mut self, number: u64) {
        // The golden ratio; the highest bits are the ones that count in a table, and the lowest.
        let spread = (self.0 ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 = spread ^ (spread >> 32);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(index: u64) -> Node {
        Node {
            index: NodeIndex::new(index).unwrap(),
            size: index,
            hash: [7; 32],
        }
    }

    fn index(index: u64) -> NodeIndex {
        NodeIndex::new(index).unwrap()
    }

    #[test]
    fn what_was_overtaken_by_a_write_is_not_learned() {
        let cache = NodeCache::default();
        let (found, generation) = cache.get(&[index(1), index(3)], |_| None);
        assert_eq!(found, [None, None]);
        cache.learn([node(1)], generation);
        let changed = Node { size: 9, ..node(3) };
        cache.written(&[changed]);
        cache.learn([node(3)], generation);
        let (found, generation) = cache.get(&[index(3), index(1)], |_| None);
        assert_eq!(found, [Some(changed), Some(node(1))]);
        cache.forget();
        cache.learn([node(3)], generation);
        assert_eq!(cache.get(&[index(3)], |_| None).0, [None]);
    }

    #[test]
    fn it_is_bounded_and_keeps_what_stands_high() {
        let cache = NodeCache::default();
        let high = |n: u64| node((n << (HIGH + 1)) + (1 << HIGH) - 1);
        let top = node((1 << (HIGH + 7)) - 1);
        cache.written(&[top]);
        for n in 0..20_000 {
            cache.written(&[high(n), node(2 * n)]);
        }
        assert_eq!(cache.lock().high.capacity(), CAPACITY);
        assert_eq!(cache.lock().low.len(), LOW - 1);
        let kept = |node: Node| cache.get(&[node.index], |_| None).0 == [Some(node)];
        assert!(kept(top) && kept(high(19_999)) && kept(node(2 * 19_999)));
        assert!(!kept(high(0)) && !kept(node(0)));
    }

    /// Neither after others have had its slot.
    #[test]
    fn a_node_that_was_written_again_is_never_seen_as_it_was() {
        let cache = NodeCache::default();
        let others = |node: Node| Node {
            index: index(node.index.get() + 2 * LOW as u64),
            ..node
        };
        for old in [node(4), node(1), node((1 << HIGH) - 1)] {
            let new = Node { size: 99, ..old };
            for nodes in [&[old, new][..], &[old, others(old), new], &[others(old)]] {
                cache.written(nodes);
                let (found, generation) = cache.get(&[old.index], |_| None);
                assert!(found == [Some(new)] || found == [None], "{found:?}");
                cache.learn([new], generation);
                assert_eq!(cache.get(&[old.index], |_| None).0, [Some(new)]);
            }
        }
    }

    #[test]
    fn a_short_log_has_few_places() {
        static ALL: AtomicUsize = AtomicUsize::new(0);
        let cache = NodeCache::counted_in(&ALL);
        let (_, generation) = cache.get(&[], |_| None);
        for block in [9, 0, 3] {
            cache.found(7, node(2 * block), Vec::new(), generation);
        }
        let found = cache.locate([].into_iter(), index(18), 0);
        assert_eq!((found.offset, found.leaf), (7, Some(node(18))));
        let held = ALL.load(Ordering::Relaxed);
        assert!((10..=16).contains(&held), "{held}");
        cache.found(8, node(2 * 5_000_000), Vec::new(), generation);
        assert!(cache.lock().places.capacity() <= PLACES);
        drop(cache);
        assert_eq!(ALL.load(Ordering::Relaxed), 0);
    }

    /// No lower node is worth more than a higher one, and none is forgotten without need.
    #[test]
    fn it_forgets_as_few_depths_as_it_can() {
        let cache = NodeCache::default();
        let depth = |depth: u64, count: u64| {
            (0..count).map(move |n| node((n << (depth + 1)) + (1 << depth) - 1))
        };
        let half = CAPACITY as u64 / 2;
        let all = depth(9, 100)
            .chain(depth(8, half - 100))
            .chain(depth(7, half));
        cache.written(&all.collect::<Vec<_>>());
        assert_eq!(cache.lock().high.len(), CAPACITY);
        cache.written(&[node((1 << 7) - 1)]);
        let kept = |node: Node| cache.get(&[node.index], |_| None).0[0].is_some();
        assert!(depth(9, 100).chain(depth(8, half - 100)).all(kept));
        assert!(!depth(7, half).skip(1).any(kept));
    }

    #[test]
    fn many_caches_keep_few_nodes_each() {
        static ALL: AtomicUsize = AtomicUsize::new(0);
        let high = |n: u64| node((n << (HIGH + 1)) + (1 << HIGH) - 1);
        let nodes: Vec<_> = (0..30_000).flat_map(|n| [high(n), node(2 * n)]).collect();
        let mut caches = Vec::new();
        for _ in 0..400 {
            let cache = NodeCache::counted_in(&ALL);
            nodes.chunks(1000).for_each(|some| cache.written(some));
            caches.push(cache);
        }
        let held = ALL.load(Ordering::Relaxed);
        assert!(held <= MANY + CAPACITY + LOW + 400 * FEW, "{held}");
        let room = |cache: &NodeCache| {
            let inner = cache.lock();
            (inner.high.capacity(), inner.low.len())
        };
        assert_eq!(room(&caches[0]), (CAPACITY, LOW - 1));
        assert_eq!(room(&caches[399]), (FEW, 0));
        // Also one that was there before the others, once it is used again.
        nodes.chunks(1000).for_each(|some| caches[0].written(some));
        assert_eq!(room(&caches[0]), (FEW, LOW - 1));

        // Nor places.
        for cache in &caches {
            let (_, generation) = cache.get(&[], |_| None);
            cache.found(0, node(2 * 1023), Vec::new(), generation);
        }
        let held = ALL.load(Ordering::Relaxed);
        assert!(held <= MANY + CAPACITY + LOW + 400 * FEW, "{held}");

        let cache = caches.swap_remove(399);
        caches.clear();
        nodes.chunks(1000).for_each(|some| cache.written(some));
        assert_eq!(room(&cache), (CAPACITY, LOW - 1));
        assert!(ALL.load(Ordering::Relaxed) >= CAPACITY + LOW - 1);
        cache.forget();
        assert_eq!(ALL.load(Ordering::Relaxed), 0);
    }
}
