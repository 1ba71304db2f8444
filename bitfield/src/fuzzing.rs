//! The bodies of the fuzz targets.

use std::ops::Range;

use arbitrary::{Arbitrary, Unstructured};

use crate::rle::Run;
use crate::{Bitfield, MAX_BLOCKS, PageSize, RemoteBitfield, rle};

/// What is read as an encoding keeps its limits; what is read as bits is encoded as Hypercore 9 does it, and survives that;
/// both say the same of a peer.
pub fn bitfield_rle(data: &[u8]) {
    const MAX: usize = 1 << 16;
    let decoded = rle::decode(data, MAX);
    assert_eq!(
        decoded.as_ref().map(Vec::len).map_err(|error| *error),
        rle::decoded_len(data, MAX)
    );
    assert!(rle::runs(data, MAX).all(|run| !matches!(run, Ok(Run::Fill(_, 0) | Run::Literal([])))));

    let mut remote = RemoteBitfield::new(1 << 20);
    let applied = remote.apply_rle(1 << 20, data, MAX);
    assert_eq!(applied.is_ok(), decoded.is_ok());
    if let Ok(decoded) = decoded {
        assert_eq!(applied, Ok(8 * decoded.len().next_multiple_of(4) as u64));
        let ones: u64 = decoded
            .iter()
            .map(|byte| u64::from(byte.count_ones()))
            .sum();
        assert_eq!(remote.count(0..MAX_BLOCKS), ones);
        round_trip(&decoded);
    }
    round_trip(data);
}

fn round_trip(bits: &[u8]) {
    let encoded = rle::encode(bits);
    assert!(
        encoded == reference_encode(bits),
        "not the bytes of bitfield-rle"
    );
    let decoded =
        rle::decode(&encoded, bits.len()).expect("the encoder writes what the decoder reads");
    assert!(bits.starts_with(&decoded) && bits[decoded.len()..].iter().all(|&byte| byte == 0));
}

/// The encoder of `bitfield-rle` 2 word for word, which looks at one byte after the other.
fn reference_encode(bits: &[u8]) -> Vec<u8> {
    let end = bits.iter().rposition(|&byte| byte != 0);
    let bits = &bits[..end.map_or(0, |last| last + 1)];
    let mut encoded = Vec::new();
    // Up to here all is written.
    let mut written = 0;
    let (mut run, mut len) = (0, 0);
    for at in 0..=bits.len() {
        let byte = bits.get(at).copied();
        if byte == Some(run) {
            len += 1;
            continue;
        }
        if len > 0 {
            let header = varint(4 * len + if run == 0xff { 3 } else { 1 });
            let literal = literal(&bits[written..at - len]);
            if literal.len() + header.len() < varint(2 * (at - written)).len() + at - written {
                encoded.extend([literal, header].concat());
                written = at;
            }
        }
        match byte {
            Some(byte @ (0x00 | 0xff)) => (run, len) = (byte, 1),
            _ => len = 0,
        }
    }
    encoded.extend(literal(&bits[written..]));
    encoded
}

fn literal(bytes: &[u8]) -> Vec<u8> {
    if bytes.is_empty() {
        return Vec::new();
    }
    [varint(2 * bytes.len()), bytes.to_vec()].concat()
}

fn varint(mut value: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}

/// Pages of both bitfields, and what they have room for.
const PAGES: u64 = 16;
const BLOCKS: u64 = PAGES * 8192;
const NODES: u64 = 2 * BLOCKS;

#[derive(Arbitrary)]
enum Op {
    Set(u16, bool),
    Range(u16, u16, bool),
    Tree(u32, bool),
    TreeRange(u32, u16),
    Truncate(u32),
    TreeTruncate(u32),
    TruncatePages(u8),
    Reserve(u32),
    /// What is read of a page is another one, cut off.
    Load(u8, u8, u16),
    Write,
    /// A page could not be written.
    Fail(u8),
    Ask(u16, u16),
    Rle(u16, Vec<u8>),
    Huge(u64, u64, bool),
}

/// Both bitfields equal a set of numbers; the dirty pages are those that changed; the index bytes are those of Hypercore 9;
/// a peer's bits keep their limit.
pub fn bitfield_ops(data: &[u8]) {
    let mut input = Unstructured::new(data);
    let size = if input.arbitrary().unwrap_or(false) {
        PageSize::Legacy
    } else {
        PageSize::Current
    };
    let mut local = Local::new(size);
    let mut remote = RemoteBitfield::new(LIMIT);
    // Out of an empty input one can read zeros for ever.
    while !input.is_empty() {
        match input.arbitrary() {
            Ok(Op::Rle(start, encoded)) => apply_rle(&mut remote, 8 * u64::from(start), &encoded),
            Ok(Op::Huge(a, b, has)) => {
                let (start, end) = (a.min(b) >> 10, a.max(b) >> 10);
                if remote.set_range(start..end, has).is_ok() {
                    assert_eq!(remote.count(start..end), if has { end - start } else { 0 });
                    assert!(!has || start == end || remote.bound() >= end);
                }
            }
            Ok(op) => local.operate(op),
            Err(_) => break,
        }
        assert!(remote.memory() <= LIMIT);
    }
    local.compare();
}

/// So many of what can be all blocks are compared.
const MANY: usize = 2000;

/// The most memory that a peer's bits may take.
const LIMIT: usize = 64 << 10;

fn apply_rle(remote: &mut RemoteBitfield, start: u64, encoded: &[u8]) {
    let before = remote.count(0..start);
    if remote.apply_rle(start, encoded, 4096).is_ok() {
        let decoded = rle::decode(encoded, 4096).expect("it was applied");
        let mut copy = Bitfield::new(PageSize::Current);
        let range = start..start + 8 * decoded.len() as u64;
        for run in remote.runs(range.clone()) {
            copy.set_range(run, true);
        }
        assert_eq!(copy.rle(range), rle::encode(&decoded));
    }
    assert_eq!(remote.count(0..start), before);
}

/// A bitfield, what it should say, and a file to which only its dirty pages are written.
struct Local {
    bitfield: Bitfield,
    blocks: Model,
    nodes: Model,
    file: Vec<Vec<u8>>,
}

impl Local {
    fn new(size: PageSize) -> Self {
        Self {
            bitfield: Bitfield::new(size),
            blocks: Model::new(BLOCKS),
            nodes: Model::new(NODES),
            file: Vec::new(),
        }
    }

    fn operate(&mut self, op: Op) {
        let Self { bitfield, .. } = self;
        match op {
            Op::Set(block, here) => {
                let block = u64::from(block);
                let changed = self.blocks.set(block..block + 1, here);
                assert_eq!(bitfield.set(block, here), changed == 1);
            }
            Op::Range(start, len, here) => {
                let range = u64::from(start)..u64::from(start) + u64::from(len);
                let changed = self.blocks.set(range.clone(), here);
                assert_eq!(bitfield.set_range(range, here), changed);
            }
            Op::Tree(index, here) => {
                let index = u64::from(index) % NODES;
                let changed = self.nodes.set(index..index + 1, here) == 1;
                if here {
                    assert_eq!(bitfield.tree_set(index), changed);
                } else {
                    assert_eq!(bitfield.tree_clear(index), changed);
                }
            }
            Op::TreeRange(start, len) => {
                let start = u64::from(start) % NODES;
                let range = start..NODES.min(start + u64::from(len));
                let changed = self.nodes.set(range.clone(), true);
                assert_eq!(bitfield.tree_set_range(range), changed);
            }
            Op::Truncate(length) => {
                let length = u64::from(length) % BLOCKS;
                bitfield.truncate(length);
                self.blocks.set(length..BLOCKS, false);
                self.nodes.set(2 * length..NODES, false);
            }
            Op::TreeTruncate(length) => {
                let length = u64::from(length) % BLOCKS;
                bitfield.tree_truncate(length);
                self.nodes.set(2 * length..NODES, false);
            }
            Op::TruncatePages(count) => self.truncate_pages(u64::from(count) % PAGES),
            Op::Reserve(length) => {
                let before = bitfield.page_count();
                let length = u64::from(length) % BLOCKS;
                bitfield.reserve(length);
                assert_eq!(bitfield.page_count(), before.max(length.div_ceil(8192)));
            }
            Op::Load(page, from, len) => {
                self.load(u64::from(page) % PAGES, u64::from(from) % PAGES, len);
            }
            Op::Fail(page) => {
                if let Some(bytes) = self.file.get_mut(usize::from(page)) {
                    bytes.fill(0xa5);
                    bitfield.mark_dirty(page.into());
                }
            }
            Op::Ask(start, len) => {
                let start = 2 * u64::from(start);
                self.ask(start..BLOCKS.min(start + u64::from(len)));
            }
            _ => self.write_dirty(),
        }
    }

    fn truncate_pages(&mut self, count: u64) {
        let before = self.bitfield.page_count();
        self.bitfield.truncate_pages(count);
        assert_eq!(self.bitfield.page_count(), before.min(count));
        self.blocks.set(8192 * count..BLOCKS, false);
        self.nodes.set(16384 * count..NODES, false);
        self.file.truncate(count as usize);
    }

    fn load(&mut self, page: u64, from: u64, len: u16) {
        let Self { bitfield, .. } = self;
        let mut bytes = vec![0; bitfield.page_size().bytes()];
        bitfield.encode_page(from, &mut bytes);
        bytes.truncate(usize::from(len));
        bitfield.load_page(page, &bytes);
        let (data, tree) = bytes.split_at(bytes.len().min(1024));
        self.blocks.load(8192 * page, data, 1024);
        self.nodes.load(16384 * page, tree, 2048);
        // Loading is no change, but here it makes the file another one.
        (0..bitfield.page_count()).for_each(|page| bitfield.mark_dirty(page));
    }

    fn ask(&self, range: Range<u64>) {
        let Self {
            bitfield,
            blocks,
            nodes,
            ..
        } = self;
        let start = range.start;
        assert_eq!(bitfield.get(start), blocks.get(start));
        assert_eq!(bitfield.tree_get(start), nodes.get(start));
        let count = blocks.count(range.clone());
        assert_eq!(bitfield.count(range.clone()), count);
        assert_eq!(
            bitfield.has_all(range.clone()),
            count == range.end.saturating_sub(start)
        );
        assert_eq!(bitfield.next_set(start), blocks.next(start, true));
        let clear = blocks.next(start, false);
        assert_eq!(bitfield.next_clear(start), clear.unwrap_or(BLOCKS));
        assert!(bitfield.runs(range.clone()).eq(blocks.runs(range.clone())));
        let twice = 2 * start..2 * range.end;
        assert!(bitfield.tree_runs(twice.clone()).eq(nodes.runs(twice)));
        let proven = |block: u64| nodes.get(2 * block) || nodes.get(block / 2 * 4 + 1);
        let unproven = (start..).find(|&block| !proven(block));
        assert_eq!(Some(bitfield.next_unproven(start)), unproven);
        let bytes = blocks.bytes(start / 8, range.clone());
        assert_eq!(bitfield.rle(range), reference_encode(&bytes));
    }

    fn write_dirty(&mut self) {
        let Self { bitfield, file, .. } = self;
        let blank = vec![0; bitfield.page_size().bytes()];
        file.resize(bitfield.page_count() as usize, blank);
        let dirty: Vec<u64> = bitfield.dirty_pages().collect();
        assert!(dirty.is_sorted());
        assert_eq!(bitfield.take_dirty(), dirty);
        assert_eq!(bitfield.dirty_pages().next(), None);
        for page in dirty {
            bitfield.encode_page(page, &mut file[page as usize]);
        }
    }

    fn compare(&mut self) {
        self.write_dirty();
        let Self {
            bitfield,
            blocks,
            nodes,
            file,
        } = self;
        assert_eq!(bitfield.total(), blocks.count(0..BLOCKS));
        assert!(bitfield.runs(0..MAX_BLOCKS).eq(blocks.runs(0..BLOCKS)));
        assert!(bitfield.tree_runs(0..u64::MAX).eq(nodes.runs(0..NODES)));
        assert_eq!(bitfield.bound(), blocks.bound());
        assert_eq!(bitfield.tree_bound(), nodes.bound());
        let lacking = blocks.ones(0..BLOCKS).filter(|block| !nodes.get(2 * block));
        // They come one by one, and can be all.
        let found = bitfield.blocks_without_leaf().take(MANY);
        assert!(found.eq(lacking.take(MANY)));
        let mut orphans: Vec<u64> = bitfield.orphans().collect();
        orphans.sort_unstable();
        let lonely = |node: &u64| !nodes.get(parent(*node));
        assert!(nodes.ones(0..NODES).filter(lonely).eq(orphans));

        let size = bitfield.page_size();
        let index_bytes = size.bytes() - 3072;
        let pages = file.len() as u64;
        let data = blocks.bytes(0, 0..8192 * pages);
        let tree = nodes.bytes(0, 0..16384 * pages);
        let index = reference_index(&data, file.len() * index_bytes);
        let pages = data.chunks(1024).zip(tree.chunks(2048));
        let mut read = Bitfield::new(size);
        for ((page, written), ((data, tree), index)) in
            (0..).zip(&*file).zip(pages.zip(index.chunks(index_bytes)))
        {
            assert!(*written == [data, tree, index].concat(), "page {page}");
            read.load_page(page, written);
        }
        assert_eq!(read, *bitfield);
    }
}

/// The index bytes of all pages: `_setIndex` of Hypercore 9 for every data byte, with `end` bytes stored.
fn reference_index(data: &[u8], end: usize) -> Vec<u8> {
    let two_bits = |bits, all| match bits {
        0 => 0b00,
        _ if bits == all => 0b11,
        _ => 0b01,
    };
    let add = |byte: u8, bits: u8| byte << 2 | bits;
    let mut index = vec![0; end];
    let leaves = index.iter_mut().step_by(2);
    for (leaf, four) in leaves.zip(data.chunks(4)) {
        *leaf = four.iter().map(|&byte| two_bits(byte, 0xff)).fold(0, add);
    }
    for half in (0..usize::BITS)
        .map(|depth| 1 << depth)
        .take_while(|&half| half < end)
    {
        for node in (2 * half - 1..end).step_by(4 * half) {
            let (left, right) = (index[node - half], index.get(node + half).copied());
            let right = right.unwrap_or(0);
            let nibbles = [left >> 4, left & 15, right >> 4, right & 15];
            index[node] = nibbles
                .map(|nibble| two_bits(nibble, 15))
                .into_iter()
                .fold(0, add);
        }
    }
    index
}

/// The parent of a node, by the definition of flat trees.
fn parent(node: u64) -> u64 {
    let depth = node.trailing_ones();
    let offset = node >> (depth + 1);
    ((offset / 2 * 2 + 1) << (depth + 1)) - 1
}

/// A set of numbers below a limit, the first in the highest bit.
struct Model(Vec<u64>);

impl Model {
    fn new(limit: u64) -> Self {
        Self(vec![0; limit as usize / 64])
    }

    /// The words that a range touches, and which of their bits.
    fn masks(range: Range<u64>) -> impl Iterator<Item = (usize, u64)> {
        let words = range.start / 64..range.end.div_ceil(64).max(range.start / 64);
        words.map(move |word| {
            let start = range.start.saturating_sub(64 * word).min(64) as u32;
            let end = range.end.saturating_sub(64 * word).min(64) as u32;
            let from = |bit: u32| u64::MAX.checked_shr(bit).unwrap_or(0);
            (word as usize, from(start) & !from(end))
        })
    }

    /// Returns how many changed.
    fn set(&mut self, range: Range<u64>, bit: bool) -> u64 {
        Self::masks(range)
            .map(|(word, mask)| {
                let word = &mut self.0[word];
                let before = *word;
                *word = if bit { before | mask } else { before & !mask };
                u64::from((before ^ *word).count_ones())
            })
            .sum()
    }

    fn get(&self, at: u64) -> bool {
        let word = self.0.get((at / 64) as usize);
        word.is_some_and(|word| word << (at % 64) >> 63 == 1)
    }

    fn count(&self, range: Range<u64>) -> u64 {
        Self::masks(range)
            .map(|(word, mask)| u64::from((self.0[word] & mask).count_ones()))
            .sum()
    }

    /// The first number from `from` on that is in the set, or not.
    fn next(&self, from: u64, bit: bool) -> Option<u64> {
        Self::masks(from..64 * self.0.len() as u64).find_map(|(word, mask)| {
            let bits = if bit { self.0[word] } else { !self.0[word] } & mask;
            (bits != 0).then(|| 64 * word as u64 + u64::from(bits.leading_zeros()))
        })
    }

    fn runs(&self, range: Range<u64>) -> impl Iterator<Item = Range<u64>> {
        let mut from = range.start;
        std::iter::from_fn(move || {
            let start = self.next(from, true).filter(|&start| start < range.end)?;
            from = self.next(start, false).unwrap_or(u64::MAX).min(range.end);
            Some(start..from)
        })
    }

    fn ones(&self, range: Range<u64>) -> impl Iterator<Item = u64> {
        self.runs(range).flatten()
    }

    fn bound(&self) -> u64 {
        let last = self.0.iter().rposition(|&word| word != 0);
        last.map_or(0, |at| {
            64 * (at as u64 + 1) - u64::from(self.0[at].trailing_zeros())
        })
    }

    /// The bits of a range, of which the first is in byte number `first`.
    fn bytes(&self, first: u64, range: Range<u64>) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (word, mask) in Self::masks(8 * first..range.end) {
            bytes.extend_from_slice(&(self.0[word] & mask).to_be_bytes());
        }
        bytes.drain(..(first % 8) as usize);
        bytes
    }

    /// Takes over bits from number `first` on, and clears the rest of `len` bytes.
    fn load(&mut self, first: u64, bytes: &[u8], len: usize) {
        let mut bytes = bytes.iter().copied().chain(std::iter::repeat(0));
        for word in self.0.iter_mut().skip(first as usize / 64).take(len / 8) {
            *word = u64::from_be_bytes(std::array::from_fn(|_| bytes.next().unwrap_or(0)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{bitfield_ops, bitfield_rle};
    use std::path::Path;

    /// Replays the corpus, then `generated` inputs, most of them made by changing a seed.
    fn replay(target: &str, run: fn(&[u8]), generated: u64) {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../fuzz/corpus")
            .join(target);
        let files = std::fs::read_dir(corpus).expect("the corpus is in the repository");
        let seeds: Vec<_> = files
            .map(|file| std::fs::read(file.unwrap().path()).unwrap())
            .collect();
        assert!(!seeds.is_empty());
        seeds.iter().for_each(|seed| run(seed));

        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut random = move |below: usize| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 16) as usize % below.max(1)
        };
        for _ in 0..generated {
            let mut input = seeds[random(seeds.len())].clone();
            for _ in 0..random(8) {
                let at = random(input.len() + 1);
                match random(4) {
                    0 => input.truncate(at),
                    1 => input.insert(at, random(256) as u8),
                    2 => input.extend(
                        (0..random(40))
                            .map(|_| random(256) as u8)
                            .collect::<Vec<_>>(),
                    ),
                    _ => input
                        .iter_mut()
                        .skip(at)
                        .take(1)
                        .for_each(|byte| *byte ^= 1 << random(8)),
                }
            }
            run(&input);
        }
    }

    #[test]
    fn rle_corpus() {
        replay("bitfield_rle", bitfield_rle, 5_000);
    }

    #[test]
    fn ops_corpus() {
        replay("bitfield_ops", bitfield_ops, 600);
    }
}
