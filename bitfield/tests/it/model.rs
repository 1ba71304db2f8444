//! Both bitfields against a set of numbers.

use hypercore_bitfield::{Bitfield, PageSize, RemoteBitfield, rle};
use proptest::prelude::*;
use std::collections::BTreeSet;
use std::env;
use std::ops::Range;

/// Some 20 pages, small enough for the model to count one by one.
const END: u64 = 20 * 8192;

#[derive(Clone, Debug)]
enum Op {
    Set(u64, bool),
    Range(Range<u64>, bool),
    Tree(u64, bool),
    TreeRange(Range<u64>),
    TreeCut(u64),
    Rle(u64, Vec<u8>),
    Pages(u64),
}

/// Positions near the borders of words, chunks and pages are the interesting ones.
fn position() -> impl Strategy<Value = u64> {
    let near = |unit: u64| {
        (0..=END / unit, 0..3u64)
            .prop_map(move |(n, off)| (n * unit + off).saturating_sub(1).min(END - 1))
    };
    prop_oneof![0..END, near(64), near(4096), near(8192)]
}

fn range() -> impl Strategy<Value = Range<u64>> {
    prop_oneof![
        (position(), position()).prop_map(|(a, b)| a.min(b)..a.max(b)),
        (position(), 0..200u64).prop_map(|(start, len)| start..(start + len).min(END)),
    ]
}

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    let piece = (
        prop_oneof![Just(0u8), Just(255u8), any::<u8>()],
        prop_oneof![0..4usize, 0..700usize],
    );
    prop::collection::vec(piece, 0..12).prop_map(|pieces| {
        pieces
            .into_iter()
            .flat_map(|(byte, n)| vec![byte; n])
            .collect()
    })
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        (position(), any::<bool>()).prop_map(|(block, here)| Op::Set(block, here)),
        (range(), any::<bool>()).prop_map(|(blocks, here)| Op::Range(blocks, here)),
        (position(), any::<bool>()).prop_map(|(index, here)| Op::Tree(index, here)),
        range().prop_map(Op::TreeRange),
        (0..=END / 2).prop_map(Op::TreeCut),
        (position(), bytes()).prop_map(|(start, bytes)| Op::Rle(start & !7, bytes)),
        (0..=END / 8192).prop_map(Op::Pages),
    ]
}

fn page_size() -> impl Strategy<Value = PageSize> {
    prop_oneof![Just(PageSize::Current), Just(PageSize::Legacy)]
}

fn insert(model: &mut BTreeSet<u64>, range: Range<u64>, bit: bool) -> u64 {
    range
        .map(|at| {
            u64::from(if bit {
                model.insert(at)
            } else {
                model.remove(&at)
            })
        })
        .sum()
}

fn runs(model: &BTreeSet<u64>, range: Range<u64>) -> Vec<Range<u64>> {
    let mut runs: Vec<Range<u64>> = Vec::new();
    for &at in model.range(range) {
        match runs.last_mut() {
            Some(run) if run.end == at => run.end = at + 1,
            _ => runs.push(at..at + 1),
        }
    }
    runs
}

fn next_clear(model: &BTreeSet<u64>, from: u64) -> u64 {
    (from..).find(|at| !model.contains(at)).unwrap()
}

/// The pages as they would be in a file to which only dirty pages are written.
#[derive(Default)]
struct File(Vec<u8>);

impl File {
    fn write(&mut self, bitfield: &Bitfield, pages: impl IntoIterator<Item = u64>) {
        let size = bitfield.page_size().bytes();
        self.0.resize(size * bitfield.page_count() as usize, 0);
        for page in pages {
            let at = size * page as usize;
            bitfield.encode_page(page, &mut self.0[at..at + size]);
        }
    }
}

/// So many cases, or as many as `HYPERCORE_MODEL_CASES` says.
pub(crate) fn config(cases: u32) -> ProptestConfig {
    let wanted = env::var("HYPERCORE_MODEL_CASES").map(|cases| cases.parse());
    ProptestConfig::with_cases(wanted.map_or(cases, |cases| cases.expect("a number")))
}

proptest! {
    #![proptest_config(config(80))]

    #[test]
    fn bitfield(size in page_size(), ops in prop::collection::vec(op(), 0..24), asked in prop::collection::vec(range(), 4)) {
        let mut bitfield = Bitfield::new(size);
        let (mut data, mut tree) = (BTreeSet::new(), BTreeSet::new());
        let mut file = File::default();
        for op in ops {
            match op {
                Op::Set(block, here) => prop_assert_eq!(bitfield.set(block, here), insert(&mut data, block..block + 1, here) == 1),
                Op::Range(blocks, here) => prop_assert_eq!(bitfield.set_range(blocks.clone(), here), insert(&mut data, blocks, here)),
                Op::Tree(index, true) => prop_assert_eq!(bitfield.tree_set(index), tree.insert(index)),
                Op::Tree(index, false) => prop_assert_eq!(bitfield.tree_clear(index), tree.remove(&index)),
                Op::TreeRange(nodes) => prop_assert_eq!(bitfield.tree_set_range(nodes.clone()), insert(&mut tree, nodes, true)),
                Op::TreeCut(length) => {
                    bitfield.tree_truncate(length);
                    tree.retain(|&index| index < 2 * length);
                }
                Op::Rle(..) => {
                    // A moment to write what is dirty.
                    let dirty = bitfield.take_dirty();
                    prop_assert!(dirty.is_sorted() && dirty.iter().all(|&page| page < bitfield.page_count()));
                    file.write(&bitfield, dirty);
                    prop_assert_eq!(bitfield.dirty_pages().count(), 0);
                }
                Op::Pages(count) => {
                    bitfield.truncate_pages(count);
                    prop_assert!(bitfield.page_count() <= count);
                    data.retain(|&block| block < 8192 * count);
                    tree.retain(|&index| index < 2 * 8192 * count);
                    file.0.truncate(size.bytes() * count as usize);
                }
            }
        }

        prop_assert_eq!(bitfield.total(), data.len() as u64);
        prop_assert_eq!(bitfield.bound(), data.last().map_or(0, |last| last + 1));
        prop_assert_eq!(bitfield.tree_bound(), tree.last().map_or(0, |last| last + 1));
        for range in asked {
            prop_assert_eq!(bitfield.get(range.start), data.contains(&range.start));
            prop_assert_eq!(bitfield.tree_get(range.end), tree.contains(&range.end));
            prop_assert_eq!(bitfield.count(range.clone()), data.range(range.clone()).count() as u64);
            prop_assert_eq!(bitfield.has_all(range.clone()), range.clone().all(|block| data.contains(&block)));
            prop_assert_eq!(bitfield.next_set(range.start), data.range(range.start..).next().copied());
            prop_assert_eq!(bitfield.next_clear(range.start), next_clear(&data, range.start));
            prop_assert_eq!(bitfield.runs(range.clone()).collect::<Vec<_>>(), runs(&data, range.clone()));

            let is_proven = |block: &u64| tree.contains(&(2 * block)) || tree.contains(&(block / 2 * 4 + 1));
            prop_assert_eq!(Some(bitfield.next_unproven(range.start)), (range.start..).find(|block| !is_proven(block)));

            let start = range.start & !7;
            let mut bytes = vec![0; (range.end - start).div_ceil(8) as usize];
            for &block in data.range(start..range.end) {
                bytes[((block - start) / 8) as usize] |= 128 >> (block % 8);
            }
            prop_assert_eq!(bitfield.rle(range), rle::encode(&bytes));
        }

        // Writing the dirty pages is enough, and reading them gives the same bits.
        let dirty = bitfield.take_dirty();
        file.write(&bitfield, dirty);
        let mut whole = File::default();
        whole.write(&bitfield, 0..bitfield.page_count());
        prop_assert!(file.0 == whole.0, "a page was changed but not dirty");
        let mut read = Bitfield::new(size);
        for (page, bytes) in (0..).zip(file.0.chunks(size.bytes())) {
            read.load_page(page, bytes);
        }
        prop_assert_eq!(read, bitfield);
    }

    /// A tree with few holes and few blocks without a leaf, as a torn page leaves it.
    #[test]
    fn what_a_torn_page_has_lost(start in position(), height in 0..13u32, holes in prop::collection::vec((any::<prop::sample::Index>(), 1..20u64), 0..6), blocks in range()) {
        let span = 1_u64 << height;
        let nodes = 2 * (start / span * span)..2 * (start / span * span + span) - 1;
        let mut tree: BTreeSet<u64> = nodes.clone().collect();
        for (at, length) in holes {
            let hole = nodes.start + at.index(2 * span as usize) as u64;
            tree.retain(|node| !(hole..hole + length).contains(node));
        }
        let mut bitfield = Bitfield::new(PageSize::Current);
        for &node in &tree {
            bitfield.tree_set(node);
        }
        bitfield.set_range(blocks.clone(), true);

        let mut unproven = nodes.end / 2 + 1;
        for block in (nodes.start / 2..unproven).rev() {
            if !tree.contains(&(2 * block)) && !tree.contains(&(block / 2 * 4 + 1)) {
                unproven = block;
            }
            prop_assert_eq!(bitfield.next_unproven(block), unproven);
        }

        let lacking = blocks.filter(|block| !tree.contains(&(2 * block)));
        prop_assert_eq!(bitfield.blocks_without_leaf().collect::<Vec<_>>(), lacking.collect::<Vec<_>>());
        let half = |node: u64| (1_u64 << (!node).trailing_zeros()) / 2;
        let parent = |node: u64| {
            let side = 2 * (half(node) * 2).max(1);
            if node & side == 0 { node + side / 2 } else { node - side / 2 }
        };
        let orphans = tree.iter().copied().filter(|&node| !tree.contains(&parent(node)));
        let mut found: Vec<_> = bitfield.orphans().collect();
        found.sort_unstable();
        prop_assert_eq!(found, orphans.collect::<Vec<_>>());
    }

    #[test]
    fn remote(far in prop_oneof![Just(0u64), Just(1 << 40), Just((1 << 52) - 2 * END)], ops in prop::collection::vec(op(), 0..24), asked in prop::collection::vec(range(), 4)) {
        let mut remote = RemoteBitfield::new(1 << 20);
        let mut model = BTreeSet::new();
        let shift = |range: Range<u64>| range.start + far..range.end + far;
        for op in ops {
            match op {
                Op::Set(block, has) | Op::Tree(block, has) => {
                    remote.set_range(shift(block..block + 1), has).unwrap();
                    insert(&mut model, block..block + 1, has);
                }
                Op::Range(blocks, has) => {
                    remote.set_range(shift(blocks.clone()), has).unwrap();
                    insert(&mut model, blocks, has);
                }
                Op::Rle(start, bytes) => {
                    let encoded = rle::encode(&bytes);
                    let covered = remote.apply_rle(start + far, &encoded, bytes.len()).unwrap();
                    prop_assert_eq!(covered, 8 * rle::decode(&encoded, bytes.len()).unwrap().len().next_multiple_of(4) as u64);
                    for bit in 0..covered {
                        let has = bytes.get((bit / 8) as usize).is_some_and(|byte| byte << (bit % 8) & 128 != 0);
                        insert(&mut model, start + bit..start + bit + 1, has);
                    }
                }
                Op::TreeRange(_) | Op::TreeCut(_) | Op::Pages(_) => {}
            }
        }
        prop_assert_eq!(remote.is_empty(), model.is_empty());
        prop_assert_eq!(remote.bound(), model.last().map_or(0, |last| last + 1 + far));
        for range in asked {
            let at = shift(range.clone());
            prop_assert_eq!(remote.get(at.start), model.contains(&range.start));
            prop_assert_eq!(remote.count(at.clone()), model.range(range.clone()).count() as u64);
            prop_assert_eq!(remote.next_set(at.start), model.range(range.start..).next().map(|block| block + far));
            prop_assert_eq!(remote.next_clear(at.start), next_clear(&model, range.start) + far);
            prop_assert_eq!(remote.runs(at).collect::<Vec<_>>(), runs(&model, range).into_iter().map(shift).collect::<Vec<_>>());
        }
        // Equal bits have equal forms, however they came to be.
        let mut again = RemoteBitfield::new(1 << 20);
        for run in runs(&model, 0..u64::MAX) {
            again.set_range(shift(run), true).unwrap();
        }
        prop_assert_eq!(again, remote);
    }
}

#[test]
fn a_set_of_everything_is_small_and_fast() {
    let mut bitfield = Bitfield::new(PageSize::Current);
    assert_eq!(bitfield.set_range(0..u64::MAX, true), 1 << 52);
    assert_eq!(bitfield.set_range(5..6, false), 1);
    assert_eq!(
        (bitfield.total(), bitfield.count(0..u64::MAX)),
        ((1 << 52) - 1, (1 << 52) - 1)
    );
    assert_eq!(
        (
            bitfield.next_clear(0),
            bitfield.next_clear(6),
            bitfield.next_set(u64::MAX)
        ),
        (5, 1 << 52, None)
    );
    assert!(
        !bitfield.set(1 << 52, true) && !bitfield.tree_set(u64::MAX),
        "positions end"
    );
    assert_eq!(bitfield.set_range(0..u64::MAX, false), (1 << 52) - 1);
    assert_eq!((bitfield.total(), bitfield.bound()), (0, 0));
}

/// The first page looks the same from above, but the next do not: the byte above all of them is in page 1.
#[test]
fn a_range_over_pages_dirties_what_is_above_all_of_them() {
    let mut bitfield = Bitfield::new(PageSize::Current);
    for block in [0, 20_481, 6 * 8192] {
        bitfield.set(block, true);
    }
    bitfield.take_dirty();
    bitfield.set_range(20_482..43_606, true);
    assert_eq!(bitfield.take_dirty(), [1, 2, 3, 4, 5]);
}

#[test]
fn appending_dirties_few_pages() {
    let mut bitfield = Bitfield::new(PageSize::Current);
    let mut dirty = 0;
    for block in 0..1_000_000 {
        bitfield.set_range(block..block + 1, true);
        dirty += bitfield.take_dirty().len();
    }
    // One for each block, and a few when half a page is full or a page begins.
    assert!(dirty < 1_005_000, "{dirty}");
}

#[test]
fn a_short_page_is_completed_with_zeros() {
    let mut bitfield = Bitfield::new(PageSize::Current);
    bitfield.set_range(0..8192, true);
    bitfield.load_page(0, &[0xff; 600]);
    assert_eq!((bitfield.total(), bitfield.next_clear(0)), (4800, 4800));
    bitfield.load_page(1, &[0xff; 1026]);
    assert_eq!(
        (
            bitfield.bound(),
            bitfield.tree_bound(),
            bitfield.page_count()
        ),
        (16384, 16384 + 16, 2)
    );
    bitfield.load_page(2, &[]);
    assert_eq!(bitfield.page_count(), 3);
    bitfield.load_page(u64::MAX, &[0xff; 3584]);
    assert_eq!(
        (bitfield.page_count(), bitfield.bound()),
        (3, 16384),
        "positions end"
    );
}
