//! Bytes that nobody wrote: the seeds of a fuzz target, changed.

use std::path::Path;

use super::random::Random;

/// How many inputs are made at once.
const BATCH: usize = 500;

/// Bytes at which decoders turn: the ends of small numbers, of varints and of runs.
const EDGES: [u8; 8] = [0x00, 0x01, 0x7f, 0x80, 0x81, 0xfe, 0xff, 0x08];

pub(super) struct Inputs {
    seeds: Vec<Vec<u8>>,
    /// Turns what the fuzz target takes into what the decoders take.
    finish: fn(&[u8]) -> Vec<u8>,
    random: Random,
}

impl Inputs {
    /// One message of any type, in a frame of its true length.
    pub(super) fn messages() -> Self {
        Self::of("wire_message", |input| match input {
            [kind, channel, body @ ..] => {
                let header = varint(u64::from(*channel) << 4 | u64::from(kind & 15));
                let length = varint((header.len() + body.len()) as u64);
                [&length, &header, body].concat()
            }
            _ => Vec::new(),
        })
    }

    /// Several frames, whose lengths are changed as well.
    pub(super) fn frames() -> Self {
        // The first byte says into how many pieces the target cuts the others.
        Self::of("wire_frame", |input| {
            input.get(1..).unwrap_or_default().to_vec()
        })
    }

    /// Encoded bitfields.
    pub(super) fn bitfields() -> Self {
        Self::of("bitfield_rle", <[u8]>::to_vec)
    }

    fn of(target: &str, finish: fn(&[u8]) -> Vec<u8>) -> Self {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../fuzz/corpus")
            .join(target);
        let files = std::fs::read_dir(&corpus).expect("the corpus is in the repository");
        let mut paths: Vec<_> = files.map(|file| file.unwrap().path()).collect();
        paths.sort();
        Self {
            seeds: paths
                .iter()
                .map(|path| std::fs::read(path).unwrap())
                .collect(),
            finish,
            random: Random::new(),
        }
    }

    /// The next inputs, `most` at the most.
    pub(super) fn batch(&mut self, most: usize) -> Vec<Vec<u8>> {
        (0..most.min(BATCH)).map(|_| self.next()).collect()
    }

    fn next(&mut self) -> Vec<u8> {
        let which = self.random.below(self.seeds.len());
        let mut input = self.seeds[which].clone();
        for _ in 0..=self.random.below(4) {
            let at = self.random.below(input.len() + 1);
            let edge = self.random.one_of(&EDGES);
            match self.random.below(6) {
                0 => input.truncate(at),
                1 => input.insert(at, edge),
                2 => input.insert(at, self.random.below(256) as u8),
                // A run of one byte makes a long number, or much of a field.
                3 => drop(input.splice(at..at, vec![edge; self.random.below(12)])),
                4 => input
                    .iter_mut()
                    .skip(at)
                    .take(1)
                    .for_each(|byte| *byte = edge),
                _ => {
                    let bit = self.random.below(8);
                    input
                        .iter_mut()
                        .skip(at)
                        .take(1)
                        .for_each(|byte| *byte ^= 1 << bit);
                }
            }
        }
        (self.finish)(&input)
    }
}

fn varint(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}
