//! The bodies of the fuzz targets.

use std::collections::BTreeSet;
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

#[derive(Arbitrary)]
enum Op {
    Set(u16, bool),
    Range(u16, u16, bool),
    Tree(u16, bool),
    Rle(u16, Vec<u8>),
    Huge(u64, u64, bool),
    Write,
}

/// Both bitfields equal a set of numbers; the dirty pages are those that changed; a peer's bits keep their limit.
pub fn bitfield_ops(data: &[u8]) {
    const LIMIT: usize = 64 << 10;
    let mut input = Unstructured::new(data);
    let size = if input.arbitrary().unwrap_or(false) {
        PageSize::Legacy
    } else {
        PageSize::Current
    };
    let mut local = Bitfield::new(size);
    let (mut blocks, mut nodes, mut pages) = (BTreeSet::new(), BTreeSet::new(), Vec::new());
    let mut remote = RemoteBitfield::new(LIMIT);
    // Out of an empty input one can read zeros for ever.
    while !input.is_empty() {
        let Ok(op) = input.arbitrary() else { break };
        match op {
            Op::Set(block, here) => {
                let block = u64::from(block);
                assert_eq!(
                    local.set(block, here),
                    insert(&mut blocks, block..block + 1, here) == 1
                );
            }
            Op::Range(start, len, here) => {
                let range = u64::from(start)..u64::from(start) + u64::from(len);
                assert_eq!(
                    local.set_range(range.clone(), here),
                    insert(&mut blocks, range.clone(), here)
                );
                assert_eq!(
                    local.count(range.clone()),
                    if here { u64::from(len) } else { 0 }
                );
                assert_eq!(local.has_all(range), here || len == 0);
            }
            Op::Tree(index, true) => assert_eq!(
                local.tree_set(u64::from(index)),
                nodes.insert(u64::from(index))
            ),
            Op::Tree(index, false) => assert_eq!(
                local.tree_clear(u64::from(index)),
                nodes.remove(&u64::from(index))
            ),
            Op::Rle(start, encoded) => {
                let start = 8 * u64::from(start);
                let before = remote.count(0..start);
                if remote.apply_rle(start, &encoded, 4096).is_ok() {
                    let end = start
                        + 8 * rle::decoded_len(&encoded, 4096).expect("it was applied") as u64;
                    let expected = rle::decode(&encoded, 4096).map(|bits| rle::encode(&bits));
                    let mut copy = Bitfield::new(size);
                    for run in remote.runs(start..end) {
                        copy.set_range(run, true);
                    }
                    assert_eq!(Ok(copy.rle(start..end)), expected);
                }
                assert_eq!(remote.count(0..start), before);
            }
            Op::Huge(a, b, has) => {
                let (start, end) = (a.min(b) >> 10, a.max(b) >> 10);
                if remote.set_range(start..end, has).is_ok() {
                    assert_eq!(remote.count(start..end), if has { end - start } else { 0 });
                    assert!(!has || start == end || remote.bound() >= end);
                }
            }
            Op::Write => write_dirty(&mut local, &mut pages),
        }
        assert!(remote.memory() <= LIMIT);
    }

    assert_eq!(local.total(), blocks.len() as u64);
    assert!(
        local
            .runs(0..MAX_BLOCKS)
            .flatten()
            .eq(blocks.iter().copied())
    );
    assert_eq!(local.bound(), blocks.last().map_or(0, |last| last + 1));
    assert_eq!(local.tree_bound(), nodes.last().map_or(0, |last| last + 1));
    write_dirty(&mut local, &mut pages);
    let mut read = Bitfield::new(size);
    for (number, page) in (0..).zip(&pages) {
        let mut now = vec![0; size.bytes()];
        local.encode_page(number, &mut now);
        assert!(now == *page, "page {number} changed and was not dirty");
        read.load_page(number, page);
    }
    assert_eq!(read, local);
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

fn write_dirty(bitfield: &mut Bitfield, file: &mut Vec<Vec<u8>>) {
    let size = bitfield.page_size().bytes();
    file.resize(bitfield.page_count() as usize, vec![0; size]);
    for page in bitfield.take_dirty() {
        bitfield.encode_page(page, &mut file[page as usize]);
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
