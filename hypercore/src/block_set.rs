//! Sets of blocks that are wanted together.

use std::ops::Range;

use hypercore_bitfield::Bitfield;

/// Blocks: runs in order, with gaps between them.
#[derive(Debug, Clone, Default)]
pub(crate) struct BlockSet(Vec<Range<u64>>);

impl From<Range<u64>> for BlockSet {
    fn from(run: Range<u64>) -> Self {
        Self(vec![run])
    }
}

impl FromIterator<u64> for BlockSet {
    fn from_iter<I: IntoIterator<Item = u64>>(blocks: I) -> Self {
        let mut blocks: Vec<_> = blocks.into_iter().collect();
        blocks.sort_unstable();
        let runs = blocks.chunk_by(|a, b| b.abs_diff(*a) <= 1);
        let run = |run: &[u64]| Some(*run.first()?..run.last()?.saturating_add(1));
        Self(runs.filter_map(run).collect())
    }
}

impl BlockSet {
    /// From the first block to the last.
    pub(crate) fn bounds(&self) -> Range<u64> {
        let end = self.0.last().map_or(0, |run| run.end);
        self.0.first().map_or(0, |run| run.start)..end
    }

    pub(crate) fn contains(&self, block: u64) -> bool {
        self.runs_from(block)
            .next()
            .is_some_and(|run| run.start == block)
    }

    /// The runs from `block` on, the first of them cut there.
    pub(crate) fn runs_from(&self, block: u64) -> impl Iterator<Item = Range<u64>> {
        let first = self.0.partition_point(|run| run.end <= block);
        let runs = self.0.get(first..).unwrap_or_default();
        runs.iter().map(move |run| run.start.max(block)..run.end)
    }

    /// Takes in a run. If there are more than `most` of them then, those two become one that have the least
    /// between them, with what is there.
    pub(crate) fn insert(&mut self, run: Range<u64>, most: usize) {
        if run.is_empty() {
            return;
        }
        // Those that it touches.
        let first = self.0.partition_point(|it| it.end < run.start);
        let end = self.0.partition_point(|it| it.start <= run.end);
        let joined = self.0.drain(first..end).fold(run, |joined, it| {
            joined.start.min(it.start)..joined.end.max(it.end)
        });
        self.0.insert(first, joined);
        if self.0.len() <= most {
            return;
        }
        let pairs = self.0.windows(2).enumerate();
        let gaps = pairs.filter_map(|(at, pair)| match pair {
            [run, next] => Some((next.start.saturating_sub(run.end), at)),
            _ => None,
        });
        if let Some((_, at)) = gaps.min() {
            let next = self.0.remove(at.saturating_add(1));
            if let Some(run) = self.0.get_mut(at) {
                run.end = next.end;
            }
        }
    }

    /// Leaves out the blocks below `block`. Of a single run this costs nothing.
    pub(crate) fn skip_to(&mut self, block: u64) {
        let passed = self.0.partition_point(|run| run.end <= block);
        self.0.drain(..passed);
        if let Some(first) = self.0.first_mut() {
            first.start = first.start.max(block);
        }
    }

    /// The first block from `block` on that is not stored.
    pub(crate) fn first_missing(&self, block: u64, stored: &Bitfield) -> Option<u64> {
        self.runs_from(block).find_map(|run| {
            let missing = stored.next_clear(run.start);
            run.contains(&missing).then_some(missing)
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    const MOST: usize = 4;

    proptest! {
        /// All that was taken in is there, and nothing else where there is room for all runs.
        #[test]
        fn runs_that_are_taken_in(runs in prop::collection::vec((0..200u64, 0..9u64), 0..20), few in any::<bool>()) {
            let most = if few { MOST } else { usize::MAX };
            let (mut set, mut model) = (BlockSet::default(), BTreeSet::new());
            for (start, length) in runs {
                set.insert(start..start + length, most);
                model.extend(start..start + length);
                prop_assert!(set.0.len() <= most);
                prop_assert!(set.0.is_sorted_by(|a, b| a.end < b.start), "{set:?}");
                prop_assert!(set.0.iter().all(|run| !run.is_empty()));
            }
            let blocks: BTreeSet<_> = set.runs_from(0).flatten().collect();
            prop_assert!(blocks.is_superset(&model));
            prop_assert!(few || blocks == model);
            prop_assert_eq!(blocks.first(), model.first());
            prop_assert_eq!(blocks.last(), model.last());
        }
    }
}
