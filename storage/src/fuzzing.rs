//! The body of the fuzz target, beside the code it tries.

use std::sync::Arc;

use hypercore_merkle::{MAX_LENGTH, NodeIndex};

use crate::{FeedFiles, FileName, Memory, OLD_PAGE_SIZE, PAGE_SIZE};

/// Six files with arbitrary content: opening gives a log or an error, reading never panics, and
/// nothing is changed by either.
///
/// Each file is a big endian length of two bytes and so many bytes; the upper bit of the length adds
/// one byte far away, which leaves a file that is nearly all hole.
pub fn storage_open(mut data: &[u8]) {
    let memory = Memory::new();
    let mut before = Vec::new();
    for file in FileName::ALL {
        let length = data
            .split_off(..2.min(data.len()))
            .map_or(0, |bytes| match *bytes {
                [high, low] => u16::from_be_bytes([high, low]),
                _ => 0,
            });
        let (sparse, length) = (length & 0x8000 != 0, usize::from(length & 0x7fff));
        let content = data.split_off(..length.min(data.len())).unwrap_or_default();
        memory.write(file, content);
        if sparse {
            // Two files are read from end to end, which takes its time.
            let searched = matches!(file, FileName::Signatures | FileName::Bitfield);
            memory.write_at(file, if searched { 1 << 24 } else { 1 << 40 }, &[1]);
        } else {
            before.push((file, content));
        }
    }
    if let Ok(files) = FeedFiles::open(Arc::new(memory.clone())) {
        assert!(matches!(files.page_size(), PAGE_SIZE | OLD_PAGE_SIZE));
        read_all(&files);
    }
    for (file, content) in before {
        assert_eq!(memory.read(file), content, "reading changed `{file}`");
    }
}

fn read_all(files: &FeedFiles) {
    let _ = (files.is_empty(), files.key(), files.secret_key());
    let indexes: Vec<_> = [0, 1, 2, 3, 5, 200, 1 << 24, 2 * MAX_LENGTH - 1]
        .map(NodeIndex::new)
        .into_iter()
        .flatten()
        .collect();
    let together = files.nodes(&indexes).expect("memory does not fail");
    for (&index, node) in indexes.iter().zip(together) {
        assert_eq!(files.node(index).expect("memory does not fail"), node);
    }
    let mut block = 0;
    while let Some((found, signature)) = files.next_signature(block).expect("memory does not fail")
    {
        assert!(found >= block);
        assert_eq!(
            files.signature(found).expect("memory does not fail"),
            Some(signature)
        );
        block = found + 1;
    }
    let last = files
        .previous_signature(u64::MAX)
        .expect("memory does not fail");
    assert_eq!(
        last.map_or(0, |(last, _)| last + 1),
        block,
        "found from both sides"
    );
    let mut pages = 0;
    let visit = |page, bytes: &[u8]| {
        assert!(page >= pages, "in order, but for those in a hole");
        assert!(!bytes.is_empty() && bytes.len() <= usize::from(files.page_size()));
        pages = page + 1;
    };
    files.pages(visit).expect("memory does not fail");
    assert!(pages <= files.page_count().expect("memory does not fail"));
    let len = files.data_len().expect("memory does not fail");
    for (offset, wanted) in [
        (0, 1),
        (0, len.min(1 << 16)),
        (len, 1),
        (len, 0),
        (1, u64::MAX),
    ] {
        let read = files.read_data(offset, wanted);
        assert_eq!(
            read.is_ok(),
            wanted == 0 || offset.saturating_add(wanted) <= len
        );
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::storage_open;

    #[test]
    fn storage_open_holds_for_the_corpus_and_its_mutations() {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus/storage_open");
        let entries = fs::read_dir(corpus).expect("there is a corpus");
        let seeds: Vec<_> = entries
            .map(|entry| fs::read(entry.unwrap().path()).unwrap())
            .collect();
        assert!(!seeds.is_empty());
        seeds.iter().for_each(|seed| storage_open(seed));
        let mut random = crate::testing::Random::new(9);
        for _ in 0..3000 {
            let mut input = seeds[random.below(seeds.len() as u64) as usize].clone();
            for _ in 0..random.below(8).min(input.len() as u64) {
                let at = random.below(input.len() as u64) as usize;
                match random.below(4) {
                    0 => input[at] = random.next() as u8,
                    1 => input[at] ^= 1 << random.below(8),
                    2 => input.insert(at, 0),
                    _ => input.truncate(at + 1),
                }
            }
            storage_open(&input);
        }
    }
}
