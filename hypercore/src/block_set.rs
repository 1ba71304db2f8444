//! Sets of blocks that are wanted together.

use std::ops::Range;

use hypercore_bitfield::Bitfield;

/// Blocks: runs in order, with gaps between them.
#[derive(Debug, Clone)]
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
