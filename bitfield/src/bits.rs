//! The set of bits under both bitfields: a map of whole runs of ones and of mixed chunks.
//!
//! ```text
//!   chunk        0      1      2      3      4 ..    900    901
//!             +------+------+------+------+-- - - --+------+- - -
//!   bits      | ones | ones | ones | 10.. |  zeros  | 01.. |  zeros
//!             +------+------+------+------+-- - - --+------+- - -
//!   segments   0: Full(..3)          3: Mixed        900: Mixed
//! ```
//!
//! Invariants: segments do not overlap; a mixed chunk has at least one set and one clear bit; two full runs never
//! touch. So every set of bits has one form, a search passes at most one chunk without finding what it looks for, and
//! the cost of anything is that of the *changes* between ones and zeros, however long the range.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;

/// Bits of a chunk. Half of a page's data bits, so that the state of a chunk (all, some, none) is exactly what an
/// index byte above page level tells of it.
pub(crate) const CHUNK_BITS: u64 = 4096;
pub(crate) const CHUNK_BYTES: usize = 512;
const WORDS: usize = 64;
const FULL: u32 = 4096;

/// Positions at or above this are never set: block numbers end at 2^52, tree indexes at twice that.
pub(crate) const MAX_BITS: u64 = 1 << 53;

/// What a segment costs in the worst filled B-tree, with its allocation.
const SEGMENT_BYTES: usize = 80;

/// The words of a chunk; the first bit is the most significant of the first word, as in the file.
pub(crate) type Words = [u64; WORDS];

#[derive(Clone, Default, PartialEq, Eq)]
pub(crate) struct Bits {
    /// By first chunk.
    segments: BTreeMap<u64, Segment>,
    ones: u64,
    mixed: usize,
}

#[derive(Clone, PartialEq, Eq)]
enum Segment {
    /// All ones up to this chunk, exclusive.
    Full(u64),
    Mixed(Box<Chunk>),
}

/// What the bits of a range have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Summary {
    None,
    Some,
    All,
}

/// What setting one bit did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    Nothing,
    Bit,
    /// The bit, and with it the [`Summary`] of its chunk.
    Summary,
}

/// A stretch of bytes, as [`Bits::for_each_stretch`] reports it.
pub(crate) enum Stretch<'a> {
    /// So many bytes of ones or of zeros.
    Fill(bool, u64),
    Bytes(&'a [u8]),
}

impl Bits {
    /// The most that one `set_range`, or `write_bytes` within a chunk, adds to [`Bits::memory`]: both ends become
    /// mixed, a full run between them, and the two remains of a split run.
    pub(crate) const MAX_GROWTH: usize = 2 * size_of::<Chunk>() + 5 * SEGMENT_BYTES;

    pub(crate) fn get(&self, at: u64) -> bool {
        match self.segment(at / CHUNK_BITS) {
            None => false,
            Some(Segment::Full(_)) => true,
            Some(Segment::Mixed(chunk)) => chunk.get(within(at)),
        }
    }

    pub(crate) fn set(&mut self, at: u64, bit: bool) -> Change {
        if at >= MAX_BITS {
            return Change::Nothing;
        }
        let offset = within(at);
        self.assign(at / CHUNK_BITS, offset..offset.saturating_add(1), bit)
    }

    /// How many bits changed.
    pub(crate) fn set_range(&mut self, range: Range<u64>, bit: bool) -> u64 {
        let end = range.end.min(MAX_BITS);
        if range.start >= end {
            return 0;
        }
        let before = self.ones;
        let (first, head) = (range.start / CHUNK_BITS, within(range.start));
        let (last, tail) = (end / CHUNK_BITS, within(end));
        if first == last {
            self.assign(first, head..tail, bit);
        } else {
            if head > 0 {
                self.assign(first, head..WORDS * 64, bit);
            }
            let whole = range.start.div_ceil(CHUNK_BITS)..last;
            if !whole.is_empty() {
                self.fill(whole, bit);
            }
            if tail > 0 {
                self.assign(last, 0..tail, bit);
            }
        }
        // All changes went the same way.
        self.ones.abs_diff(before)
    }

    /// Sets 8 bits with each of `bytes`, from the multiple of 8 `start`.
    pub(crate) fn write_bytes(&mut self, start: u64, mut bytes: &[u8]) {
        let mut at = start;
        while !bytes.is_empty() && at < MAX_BITS {
            let offset = within(at) / 8;
            let room = CHUNK_BYTES.saturating_sub(offset);
            let (now, rest) = bytes.split_at(bytes.len().min(room));
            let chunk = at / CHUNK_BITS;
            self.write_in_chunk(chunk, offset, now);
            at = first_bit(chunk.saturating_add(1));
            bytes = rest;
        }
    }

    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }

    pub(crate) fn total(&self) -> u64 {
        self.ones
    }

    /// At most the memory in use, for a limit.
    pub(crate) fn memory(&self) -> usize {
        let chunks = self.mixed.saturating_mul(size_of::<Chunk>());
        let segments = self.segments.len().saturating_mul(SEGMENT_BYTES);
        chunks.saturating_add(segments)
    }

    pub(crate) fn count(&self, range: Range<u64>) -> u64 {
        if range.is_empty() {
            return 0;
        }
        let first = range.start / CHUNK_BITS;
        // The segment that begins before the range, if any reaches into it, and those that begin inside.
        let from = self
            .segments
            .range(..=first)
            .next_back()
            .map_or(first, |(&start, _)| start);
        self.segments
            .range(from..range.end.div_ceil(CHUNK_BITS))
            .map(|(&start, segment)| segment.count(start, &range))
            .sum()
    }

    /// The first set bit at or after `from`.
    pub(crate) fn next_set(&self, from: u64) -> Option<u64> {
        let chunk = from / CHUNK_BITS;
        match self.segment(chunk) {
            Some(Segment::Full(_)) => return Some(from),
            Some(Segment::Mixed(mixed)) => {
                if let Some(offset) = mixed.next(within(from), true) {
                    return Some(position(chunk, offset));
                }
            }
            None => {}
        }
        let (&start, segment) = self.segments.range(chunk.checked_add(1)?..).next()?;
        let offset = match segment {
            Segment::Full(_) => 0,
            Segment::Mixed(mixed) => mixed.next(0, true)?,
        };
        Some(position(start, offset))
    }

    /// The first clear bit at or after `from`.
    pub(crate) fn next_clear(&self, mut from: u64) -> u64 {
        loop {
            let chunk = from / CHUNK_BITS;
            let Some(segment) = self.segment(chunk) else {
                return from;
            };
            if let Segment::Mixed(mixed) = segment
                && let Some(offset) = mixed.next(within(from), false)
            {
                return position(chunk, offset);
            }
            from = first_bit(segment.end(chunk));
        }
    }

    /// The first position at or after `from` that `sought` gives for the word of bits that it lies in. In a word of
    /// ones nothing may be sought, and in one of zeros something must be, also in its last two bits.
    pub(crate) fn next_in_words(&self, mut from: u64, mut sought: impl FnMut(u64) -> u64) -> u64 {
        loop {
            let chunk = from / CHUNK_BITS;
            let words = match self.segment(chunk) {
                Some(Segment::Full(end)) => {
                    from = first_bit(*end);
                    continue;
                }
                Some(Segment::Mixed(mixed)) => &mixed.words,
                None => &[0; WORDS],
            };
            if let Some(offset) = first_in(words, within(from), &mut sought) {
                return position(chunk, offset);
            }
            from = first_bit(chunk.saturating_add(1));
        }
    }

    /// One past the last set bit.
    pub(crate) fn bound(&self) -> u64 {
        match self.segments.last_key_value() {
            None => 0,
            Some((_, Segment::Full(end))) => first_bit(*end),
            Some((&start, Segment::Mixed(chunk))) => position(start, chunk.bound()),
        }
    }

    pub(crate) fn has_all(&self, range: Range<u64>) -> bool {
        range.is_empty() || self.next_clear(range.start) >= range.end
    }

    pub(crate) fn summary(&self, range: Range<u64>) -> Summary {
        if self.has_all(range.clone()) {
            Summary::All
        } else if self.next_set(range.start).is_some_and(|at| at < range.end) {
            Summary::Some
        } else {
            Summary::None
        }
    }

    /// What the bits of a chunk have in common.
    pub(crate) fn chunk_summary(&self, chunk: u64) -> Summary {
        match self.segment(chunk) {
            None => Summary::None,
            Some(Segment::Full(_)) => Summary::All,
            Some(Segment::Mixed(_)) => Summary::Some,
        }
    }

    /// The maximal runs of set bits, cut to `range`.
    pub(crate) fn runs(&self, range: Range<u64>) -> impl Iterator<Item = Range<u64>> {
        let mut from = range.start;
        std::iter::from_fn(move || {
            let start = self.next_set(from).filter(|&start| start < range.end)?;
            from = self.next_clear(start);
            Some(start..from.min(range.end))
        })
    }

    /// The bytes of a range of bits, stretch by stretch. The start is rounded down to a multiple of 8; bits at or
    /// after the end, and all bytes after the last set bit, are left out.
    pub(crate) fn for_each_stretch(&self, range: Range<u64>, mut with: impl FnMut(Stretch<'_>)) {
        let end = range.end.min(self.bound());
        let mut at = range.start & !7;
        while at < end & !7 {
            let chunk = at / CHUNK_BITS;
            let segment = self.segment(chunk);
            let until = match segment {
                Some(segment) => Some(segment.end(chunk)),
                None => self.segments.range(chunk..).next().map(|(&start, _)| start),
            };
            let next = until.map_or(end, first_bit).min(end & !7);
            let len = next.saturating_sub(at) / 8;
            match segment {
                Some(Segment::Full(_)) => with(Stretch::Fill(true, len)),
                Some(Segment::Mixed(mixed)) => {
                    let bytes = to_bytes(&mixed.words);
                    let (_, bytes) = bytes.split_at(within(at) / 8);
                    let (bytes, _) = bytes.split_at(len as usize);
                    with(Stretch::Bytes(bytes));
                }
                None => with(Stretch::Fill(false, len)),
            }
            at = next;
        }
        if at < end {
            let mut last = 0;
            for bit in (at..end).filter(|&bit| self.get(bit)) {
                last |= 0x80 >> (bit % 8);
            }
            with(Stretch::Bytes(&[last]));
        }
    }

    pub(crate) fn words(&self, chunk: u64) -> Words {
        match self.segment(chunk) {
            None => [0; WORDS],
            Some(Segment::Full(_)) => [u64::MAX; WORDS],
            Some(Segment::Mixed(mixed)) => mixed.words,
        }
    }

    /// Replaces a whole chunk.
    pub(crate) fn put(&mut self, chunk: u64, words: Words) {
        let ones = words.iter().map(|word| word.count_ones()).sum();
        self.fill_chunk(chunk, ones == FULL);
        if !matches!(ones, 0 | FULL) {
            self.insert_mixed(chunk, Chunk { ones, words });
        }
    }

    fn segment(&self, chunk: u64) -> Option<&Segment> {
        // Mixed chunks are asked for most, and found at a third of the cost.
        if let Some(segment) = self.segments.get(&chunk) {
            return Some(segment);
        }
        let (&start, segment) = self.segments.range(..=chunk).next_back()?;
        (chunk < segment.end(start)).then_some(segment)
    }

    /// Overwrites the bytes of one chunk from number `offset` on.
    fn write_in_chunk(&mut self, chunk: u64, offset: usize, bytes: &[u8]) {
        // A peer may send each byte on its own, so what is mixed already is changed where it is.
        let Some(Segment::Mixed(mixed)) = self.segments.get_mut(&chunk) else {
            let mut new = Chunk::filled(self.segment(chunk).is_some());
            new.write(offset, bytes);
            self.put(chunk, new.words);
            return;
        };
        let before = mixed.ones;
        mixed.write(offset, bytes);
        let after = mixed.ones;
        self.recount(chunk, before, after);
    }

    /// Sets some but not all bits of one chunk.
    fn assign(&mut self, chunk: u64, range: Range<usize>, bit: bool) -> Change {
        // As in `segment`: what is mixed comes most often, and is found at a third of the cost.
        if let Some(Segment::Mixed(mixed)) = self.segments.get_mut(&chunk) {
            let before = mixed.ones;
            mixed.assign(range, bit);
            let after = mixed.ones;
            return self.recount(chunk, before, after);
        }
        let full = self.segment(chunk).is_some();
        if full == bit {
            return Change::Nothing;
        }
        if full {
            self.fill_chunk(chunk, false);
        }
        let mut new = Chunk::filled(full);
        new.assign(range, bit);
        self.insert_mixed(chunk, new);
        Change::Summary
    }

    /// Takes note that a mixed chunk, which had `before` ones, has `after` now.
    fn recount(&mut self, chunk: u64, before: u32, after: u32) -> Change {
        self.ones = self
            .ones
            .saturating_sub(before.into())
            .saturating_add(after.into());
        if matches!(after, 0 | FULL) {
            self.fill_chunk(chunk, after == FULL);
            Change::Summary
        } else if before == after {
            Change::Nothing
        } else {
            Change::Bit
        }
    }

    /// Inserts where nothing is.
    fn insert_mixed(&mut self, chunk: u64, new: Chunk) {
        self.ones = self.ones.saturating_add(new.ones.into());
        self.mixed = self.mixed.saturating_add(1);
        self.segments.insert(chunk, Segment::Mixed(Box::new(new)));
    }

    /// Makes one whole chunk all ones or all zeros.
    fn fill_chunk(&mut self, chunk: u64, bit: bool) {
        self.fill(chunk..chunk.saturating_add(1), bit);
    }

    /// Makes whole chunks all ones or all zeros.
    fn fill(&mut self, chunks: Range<u64>, bit: bool) {
        self.remove(chunks.clone());
        if !bit {
            return;
        }
        self.ones = self.ones.saturating_add(bits_of(&chunks));
        let (mut start, mut end) = (chunks.start, chunks.end);
        if let Some((&before, Segment::Full(until))) = self.segments.range(..start).next_back()
            && *until == start
        {
            start = before;
        }
        if let Some(&Segment::Full(until)) = self.segments.get(&end) {
            self.segments.remove(&end);
            end = until;
        }
        self.segments.insert(start, Segment::Full(end));
    }

    /// Takes whole chunks out of the map.
    fn remove(&mut self, chunks: Range<u64>) {
        if let Some((_, Segment::Full(end))) = self.segments.range_mut(..chunks.start).next_back()
            && *end > chunks.start
        {
            let until = std::mem::replace(end, chunks.start);
            self.cut(chunks.start..until, chunks.end);
        }
        // Each turn removes what an earlier change inserted, so the loop is paid for.
        while let Some((&start, _)) = self.segments.range(chunks.clone()).next() {
            match self.segments.remove(&start) {
                Some(Segment::Full(until)) => self.cut(start..until, chunks.end),
                Some(Segment::Mixed(mixed)) => {
                    self.ones = self.ones.saturating_sub(mixed.ones.into());
                    self.mixed = self.mixed.saturating_sub(1);
                }
                None => break,
            }
        }
    }

    /// Completes the removal of a full run from the map: what of it is from chunk `end` on comes back.
    fn cut(&mut self, run: Range<u64>, end: u64) {
        let gone = run.start..run.end.min(end);
        self.ones = self.ones.saturating_sub(bits_of(&gone));
        if run.end > end {
            self.segments.insert(end, Segment::Full(run.end));
        }
    }
}

impl fmt::Debug for Bits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bits")
            .field("total", &self.ones)
            .field("bound", &self.bound())
            .field("segments", &self.segments.len())
            .finish()
    }
}

impl Segment {
    fn end(&self, start: u64) -> u64 {
        match self {
            Self::Full(end) => *end,
            Self::Mixed(_) => start.saturating_add(1),
        }
    }

    /// How many bits of a range are set in this segment, which begins with chunk `start`.
    fn count(&self, start: u64, range: &Range<u64>) -> u64 {
        let all = first_bit(start)..first_bit(self.end(start));
        let cut = range.start.max(all.start)..range.end.min(all.end);
        let offset = |at: u64| at.saturating_sub(all.start) as usize;
        match self {
            _ if cut.is_empty() => 0,
            Self::Full(_) => cut.end.saturating_sub(cut.start),
            Self::Mixed(chunk) if cut == all => chunk.ones.into(),
            Self::Mixed(chunk) => chunk.count(offset(cut.start)..offset(cut.end)).into(),
        }
    }
}

#[derive(Clone, PartialEq, Eq)]
struct Chunk {
    ones: u32,
    words: Words,
}

impl Chunk {
    fn filled(bit: bool) -> Self {
        if bit {
            Self {
                ones: FULL,
                words: [u64::MAX; WORDS],
            }
        } else {
            Self {
                ones: 0,
                words: [0; WORDS],
            }
        }
    }

    fn get(&self, at: usize) -> bool {
        let word = self.words.get(at / 64);
        word.is_some_and(|word| word << (at % 64) >> 63 == 1)
    }

    fn assign(&mut self, range: Range<usize>, bit: bool) {
        let mut changed = 0_u32;
        let (_, words) = self.words.split_at_mut(range.start / 64);
        for (word, mask) in words.iter_mut().zip(masks(range)) {
            let flips = mask & if bit { !*word } else { *word };
            *word ^= flips;
            changed = changed.saturating_add(flips.count_ones());
        }
        self.ones = if bit {
            self.ones.saturating_add(changed)
        } else {
            self.ones.saturating_sub(changed)
        };
    }

    /// Overwrites the bytes from number `offset` on.
    fn write(&mut self, offset: usize, bytes: &[u8]) {
        let mut bytes = bytes.iter();
        let mut before = offset % 8;
        let (_, words) = self.words.split_at_mut(offset / 8);
        for word in words {
            let mut eight = word.to_be_bytes();
            let places = eight.iter_mut().skip(std::mem::take(&mut before));
            for (place, &byte) in places.zip(&mut bytes) {
                *place = byte;
            }
            let new = u64::from_be_bytes(eight);
            self.ones = self
                .ones
                .saturating_sub(word.count_ones())
                .saturating_add(new.count_ones());
            *word = new;
            if bytes.as_slice().is_empty() {
                break;
            }
        }
    }

    fn count(&self, range: Range<usize>) -> u32 {
        let (_, words) = self.words.split_at(range.start / 64);
        words
            .iter()
            .zip(masks(range))
            .map(|(word, mask)| (word & mask).count_ones())
            .sum()
    }

    /// The first `bit` at or after `from`.
    fn next(&self, from: usize, bit: bool) -> Option<usize> {
        first_in(&self.words, from, |word| if bit { word } else { !word })
    }

    /// One past the last set bit.
    fn bound(&self) -> usize {
        let mut words = self.words.iter().enumerate();
        words.rfind(|(_, word)| **word != 0).map_or(0, |(n, word)| {
            bit_of_word(n, u64::BITS.saturating_sub(word.trailing_zeros()))
        })
    }
}

/// The bits of a non-empty range in each word that it touches.
fn masks(range: Range<usize>) -> impl Iterator<Item = u64> {
    let first_bits = (range.start & !63..range.end).step_by(64);
    first_bits.map(move |first| {
        let before = range.start.saturating_sub(first);
        let after = first.saturating_add(64).saturating_sub(range.end);
        u64::MAX >> before & u64::MAX << after
    })
}

/// The first bit at or after `from` that `sought` gives for the word that it lies in.
fn first_in(words: &Words, from: usize, mut sought: impl FnMut(u64) -> u64) -> Option<usize> {
    let (_, words) = words.split_at(from / 64);
    let mut mask = u64::MAX >> (from % 64);
    for (n, &word) in (from / 64..WORDS).zip(words) {
        let found = sought(word) & mask;
        if found != 0 {
            return Some(bit_of_word(n, found.leading_zeros()));
        }
        mask = u64::MAX;
    }
    None
}

/// Where in its chunk a bit of word `n` is.
fn bit_of_word(n: usize, bit: u32) -> usize {
    n.saturating_mul(64).saturating_add(bit as usize)
}

/// Where a chunk begins.
fn first_bit(chunk: u64) -> u64 {
    chunk.saturating_mul(CHUNK_BITS)
}

/// Where the bit `offset` of a chunk is.
fn position(chunk: u64, offset: usize) -> u64 {
    first_bit(chunk).saturating_add(offset as u64)
}

/// How many bits whole chunks have.
fn bits_of(chunks: &Range<u64>) -> u64 {
    first_bit(chunks.end).saturating_sub(first_bit(chunks.start))
}

fn within(at: u64) -> usize {
    (at % CHUNK_BITS) as usize
}

pub(crate) fn to_bytes(words: &Words) -> [u8; CHUNK_BYTES] {
    let mut bytes = [0; CHUNK_BYTES];
    for (to, word) in bytes.chunks_exact_mut(8).zip(words) {
        to.copy_from_slice(&word.to_be_bytes());
    }
    bytes
}

/// The words of at most 512 bytes; what is missing is zero.
pub(crate) fn from_bytes(bytes: &[u8]) -> Words {
    let mut all = [0; CHUNK_BYTES];
    for (to, &byte) in all.iter_mut().zip(bytes) {
        *to = byte;
    }
    let mut words = [0; WORDS];
    for (word, &eight) in words.iter_mut().zip(all.as_chunks().0) {
        *word = u64::from_be_bytes(eight);
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of a log of which only the nodes above the leaves are known, 32 blocks are passed over at once; of one of
    /// which everything is known, all.
    #[test]
    fn words_are_passed_over_and_not_bits() {
        let mut bits = Bits::default();
        bits.set_range(0..1 << 50, true);
        for chunk in 500..1000 {
            bits.put(chunk, [0x5555_5555_5555_5555; WORDS]);
        }
        let mut steps = 0;
        let found = bits.next_in_words(0, |word| {
            steps += 1;
            !(word | word << 1)
        });
        assert_eq!((found, steps), (1 << 50, 500 * WORDS + 1));
        assert_eq!(bits.next_in_words(7, |word| !word), 500 * CHUNK_BITS);
        assert_eq!(
            bits.next_in_words(500 * CHUNK_BITS + 63, |word| !word),
            500 * CHUNK_BITS + 64
        );
    }
}
