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
        self.assign(at / CHUNK_BITS, offset..offset + 1, bit).1
    }

    /// How many bits changed.
    pub(crate) fn set_range(&mut self, range: Range<u64>, bit: bool) -> u64 {
        let end = range.end.min(MAX_BITS);
        if range.start >= end {
            return 0;
        }
        let (first, head) = (range.start / CHUNK_BITS, within(range.start));
        let (last, tail) = (end / CHUNK_BITS, within(end));
        if first == last {
            return u64::from(self.assign(first, head..tail, bit).0);
        }
        let mut changed = 0;
        let mut whole = first..last;
        if head > 0 {
            changed += u64::from(self.assign(first, head..WORDS * 64, bit).0);
            whole.start += 1;
        }
        if !whole.is_empty() {
            changed += self.fill(whole, bit);
        }
        if tail > 0 {
            changed += u64::from(self.assign(last, 0..tail, bit).0);
        }
        changed
    }

    /// Sets 8 bits with each of `bytes`, from the multiple of 8 `start`.
    pub(crate) fn write_bytes(&mut self, start: u64, mut bytes: &[u8]) {
        let mut at = start;
        while !bytes.is_empty() && at < MAX_BITS {
            let offset = within(at) / 8;
            let (now, rest) = bytes.split_at(bytes.len().min(CHUNK_BYTES - offset));
            self.write_in_chunk(at / CHUNK_BITS, offset, now);
            at += 8 * now.len() as u64;
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
        self.mixed * size_of::<Chunk>() + self.segments.len() * SEGMENT_BYTES
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
        let mut ones = 0;
        for (&start, segment) in self.segments.range(from..=(range.end - 1) / CHUNK_BITS) {
            let (begin, end) = (start * CHUNK_BITS, segment.end(start) * CHUNK_BITS);
            let cut = range.start.max(begin)..range.end.min(end);
            if cut.is_empty() {
                continue;
            }
            ones += match segment {
                Segment::Full(_) => cut.end - cut.start,
                Segment::Mixed(chunk) if cut == (begin..end) => u64::from(chunk.ones),
                Segment::Mixed(chunk) => {
                    u64::from(chunk.count((cut.start - begin) as usize..(cut.end - begin) as usize))
                }
            };
        }
        ones
    }

    /// The first set bit at or after `from`.
    pub(crate) fn next_set(&self, from: u64) -> Option<u64> {
        let chunk = from / CHUNK_BITS;
        match self.segment(chunk) {
            Some(Segment::Full(_)) => return Some(from),
            Some(Segment::Mixed(mixed)) => {
                if let Some(offset) = mixed.next(within(from), true) {
                    return Some(chunk * CHUNK_BITS + offset);
                }
            }
            None => {}
        }
        let (start, segment) = self.segments.range(chunk.checked_add(1)?..).next()?;
        let offset = match segment {
            Segment::Full(_) => 0,
            Segment::Mixed(mixed) => mixed.next(0, true)?,
        };
        Some(start * CHUNK_BITS + offset)
    }

    /// The first clear bit at or after `from`.
    pub(crate) fn next_clear(&self, mut from: u64) -> u64 {
        loop {
            let chunk = from / CHUNK_BITS;
            from = match self.segment(chunk) {
                None => return from,
                Some(Segment::Full(end)) => end * CHUNK_BITS,
                Some(Segment::Mixed(mixed)) => match mixed.next(within(from), false) {
                    Some(offset) => return chunk * CHUNK_BITS + offset,
                    None => (chunk + 1) * CHUNK_BITS,
                },
            };
        }
    }

    /// The first position at or after `from` that `sought` gives for the word of bits that it lies in. In a word of
    /// ones nothing may be sought, and in one of zeros something must be, also in its last two bits.
    pub(crate) fn next_in_words(&self, mut from: u64, mut sought: impl FnMut(u64) -> u64) -> u64 {
        loop {
            let chunk = from / CHUNK_BITS;
            let words = match self.segment(chunk) {
                Some(Segment::Full(end)) => {
                    from = end * CHUNK_BITS;
                    continue;
                }
                Some(Segment::Mixed(mixed)) => &mixed.words,
                None => &[0; WORDS],
            };
            let mut before = u64::MAX >> (from % 64);
            for (number, &word) in (0..).zip(words).skip(within(from) / 64) {
                let found = sought(word) & std::mem::replace(&mut before, u64::MAX);
                if found != 0 {
                    return chunk * CHUNK_BITS + 64 * number + u64::from(found.leading_zeros());
                }
            }
            from = (chunk + 1) * CHUNK_BITS;
        }
    }

    /// One past the last set bit.
    pub(crate) fn bound(&self) -> u64 {
        match self.segments.last_key_value() {
            None => 0,
            Some((_, Segment::Full(end))) => end * CHUNK_BITS,
            Some((start, Segment::Mixed(chunk))) => start * CHUNK_BITS + chunk.bound(),
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
            let stop = |chunk: u64| (chunk * CHUNK_BITS).min(end & !7);
            let next = match self.segment(chunk) {
                Some(Segment::Full(until)) => {
                    let next = stop(*until);
                    with(Stretch::Fill(true, (next - at) / 8));
                    next
                }
                Some(Segment::Mixed(mixed)) => {
                    let next = stop(chunk + 1);
                    let from = within(at) / 8;
                    let until = from + ((next - at) / 8) as usize;
                    with(Stretch::Bytes(&to_bytes(&mixed.words)[from..until]));
                    next
                }
                None => {
                    let next = self
                        .segments
                        .range(chunk..)
                        .next()
                        .map_or(end & !7, |(&start, _)| stop(start));
                    with(Stretch::Fill(false, (next - at) / 8));
                    next
                }
            };
            at = next;
        }
        if at < end {
            let mut last = 0;
            for bit in at..end {
                last |= u8::from(self.get(bit)) << (7 - bit % 8);
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
        match ones {
            0 => self.fill(chunk..chunk + 1, false),
            FULL => self.fill(chunk..chunk + 1, true),
            _ => {
                let changed = self.fill(chunk..chunk + 1, false);
                self.insert_mixed(chunk, Chunk { ones, words });
                changed
            }
        };
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
            let mut all = to_bytes(&self.words(chunk));
            all[offset..offset + bytes.len()].copy_from_slice(bytes);
            self.put(chunk, from_bytes(&all));
            return;
        };
        let before = mixed.ones;
        mixed.write(offset, bytes);
        let after = mixed.ones;
        self.ones = self.ones - u64::from(before) + u64::from(after);
        if matches!(after, 0 | FULL) {
            self.fill(chunk..chunk + 1, after == FULL);
        }
    }

    /// Sets some but not all bits of one chunk.
    fn assign(&mut self, chunk: u64, range: Range<usize>, bit: bool) -> (u32, Change) {
        // As in `segment`: what is mixed comes most often, and is found at a third of the cost.
        if let Some(Segment::Mixed(mixed)) = self.segments.get_mut(&chunk) {
            let changed = mixed.assign(range, bit);
            let ones = mixed.ones;
            if bit {
                self.ones += u64::from(changed);
            } else {
                self.ones -= u64::from(changed);
            }
            if matches!(ones, 0 | FULL) {
                self.fill(chunk..chunk + 1, bit);
                return (changed, Change::Summary);
            }
            let change = if changed == 0 {
                Change::Nothing
            } else {
                Change::Bit
            };
            return (changed, change);
        }
        let (mut new, changed) = match self.segments.range(..=chunk).next_back() {
            Some((_, Segment::Full(end))) if chunk < *end => {
                if bit {
                    return (0, Change::Nothing);
                }
                self.fill(chunk..chunk + 1, false);
                (Chunk::filled(true), range)
            }
            _ if !bit => return (0, Change::Nothing),
            _ => (Chunk::filled(false), range),
        };
        let changed = new.assign(changed, bit);
        if changed == 0 {
            return (0, Change::Nothing);
        }
        self.insert_mixed(chunk, new);
        (changed, Change::Summary)
    }

    /// Inserts where nothing is.
    fn insert_mixed(&mut self, chunk: u64, new: Chunk) {
        self.ones += u64::from(new.ones);
        self.mixed += 1;
        self.segments.insert(chunk, Segment::Mixed(Box::new(new)));
    }

    /// Makes whole chunks all ones or all zeros; how many bits changed.
    fn fill(&mut self, chunks: Range<u64>, bit: bool) -> u64 {
        let removed = self.remove(chunks.clone());
        if !bit {
            return removed;
        }
        let ones = (chunks.end - chunks.start) * CHUNK_BITS;
        self.ones += ones;
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
        ones - removed
    }

    /// Takes whole chunks out of the map; how many set bits went.
    fn remove(&mut self, chunks: Range<u64>) -> u64 {
        let mut removed = 0;
        if let Some((_, Segment::Full(end))) = self.segments.range_mut(..chunks.start).next_back()
            && *end > chunks.start
        {
            let until = std::mem::replace(end, chunks.start);
            removed += (until.min(chunks.end) - chunks.start) * CHUNK_BITS;
            if until > chunks.end {
                self.segments.insert(chunks.end, Segment::Full(until));
            }
        }
        // Each turn removes what an earlier change inserted, so the loop is paid for.
        while let Some((&start, _)) = self.segments.range(chunks.clone()).next() {
            match self.segments.remove(&start) {
                Some(Segment::Full(until)) => {
                    removed += (until.min(chunks.end) - start) * CHUNK_BITS;
                    if until > chunks.end {
                        self.segments.insert(chunks.end, Segment::Full(until));
                    }
                }
                Some(Segment::Mixed(mixed)) => {
                    removed += u64::from(mixed.ones);
                    self.mixed -= 1;
                }
                None => break,
            }
        }
        self.ones -= removed;
        removed
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
            Self::Mixed(_) => start + 1,
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
        self.words[at / 64] << (at % 64) >> 63 == 1
    }

    fn assign(&mut self, range: Range<usize>, bit: bool) -> u32 {
        let mut changed = 0;
        for (n, mask) in masks(range) {
            let word = &mut self.words[n];
            let flips = mask & if bit { !*word } else { *word };
            *word ^= flips;
            changed += flips.count_ones();
        }
        if bit {
            self.ones += changed;
        } else {
            self.ones -= changed;
        }
        changed
    }

    /// Overwrites the bytes from number `offset` on.
    fn write(&mut self, offset: usize, mut bytes: &[u8]) {
        for n in offset / 8..(offset + bytes.len()).div_ceil(8) {
            let word = &mut self.words[n];
            let mut eight = word.to_be_bytes();
            let from = offset.saturating_sub(8 * n);
            let (now, rest) = bytes.split_at(bytes.len().min(8 - from));
            eight[from..from + now.len()].copy_from_slice(now);
            let new = u64::from_be_bytes(eight);
            self.ones = self.ones - word.count_ones() + new.count_ones();
            *word = new;
            bytes = rest;
        }
    }

    fn count(&self, range: Range<usize>) -> u32 {
        masks(range)
            .map(|(n, mask)| (self.words[n] & mask).count_ones())
            .sum()
    }

    /// The first `bit` at or after `from`.
    fn next(&self, from: usize, bit: bool) -> Option<u64> {
        let mut mask = u64::MAX >> (from % 64);
        for n in from / 64..WORDS {
            let word = mask & if bit { self.words[n] } else { !self.words[n] };
            if word != 0 {
                return Some(64 * n as u64 + u64::from(word.leading_zeros()));
            }
            mask = u64::MAX;
        }
        None
    }

    /// One past the last set bit.
    fn bound(&self) -> u64 {
        let last = self.words.iter().rposition(|&word| word != 0);
        last.map_or(0, |n| {
            64 * (n as u64 + 1) - u64::from(self.words[n].trailing_zeros())
        })
    }
}

/// The words that a non-empty range touches, with a mask of its bits in each.
fn masks(range: Range<usize>) -> impl Iterator<Item = (usize, u64)> {
    (range.start / 64..range.end.div_ceil(64)).map(move |n| {
        let start = range.start.saturating_sub(64 * n);
        let end = (range.end - 64 * n).min(64);
        (n, u64::MAX >> start & u64::MAX << (64 - end))
    })
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
    let mut words = [0; WORDS];
    for (word, from) in words.iter_mut().zip(bytes.chunks(8)) {
        let mut eight = [0; 8];
        eight[..from.len()].copy_from_slice(from);
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
