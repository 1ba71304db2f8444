//! All directories that Node wrote: what the typed reads give, and that they change nothing.

use std::{collections::BTreeMap, fs, path::Path};

use hypercore_merkle::Node;
use hypercore_storage::{Directory, FeedFiles, FileName, Memory};
use serde::Deserialize;

use crate::{index, open};

#[derive(Deserialize)]
struct Manifest {
    feeds: BTreeMap<String, Feed>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Feed {
    files: BTreeMap<String, Stored>,
    key: String,
    secret_key: Option<String>,
    length: u64,
    byte_length: u64,
    bitfield_page_size: u16,
    has: Vec<(u64, u64)>,
    tree_bits: Vec<(u64, u64)>,
    roots: Vec<Root>,
    signatures: Vec<(u64, String)>,
    signature_count: usize,
}

#[derive(Deserialize)]
struct Stored {
    size: u64,
    blake2b: String,
}

#[derive(Deserialize)]
struct Root {
    index: u64,
    hash: String,
    size: u64,
}

fn vectors() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vectors"))
}

/// Runs `check` for every directory, on a copy of it.
fn for_each(check: impl Fn(&Feed, &Directory)) {
    let manifest = fs::read(vectors().join("manifest.json")).unwrap();
    let manifest: Manifest = serde_json::from_slice(&manifest).unwrap();
    assert_eq!(manifest.feeds.len(), 25);
    for (name, feed) in manifest.feeds {
        println!("{name}");
        let copy = tempfile::tempdir().unwrap();
        for file in feed.files.keys() {
            fs::copy(vectors().join(&name).join(file), copy.path().join(file)).unwrap();
        }
        check(&feed, &Directory::new(copy.path()));
        let mut names: Vec<_> = fs::read_dir(copy.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert!(
            names.iter().eq(feed.files.keys()),
            "no file appeared or went: {names:?}"
        );
        for (file, stored) in &feed.files {
            let bytes = fs::read(copy.path().join(file)).unwrap();
            assert_eq!(hash(&bytes), stored.blake2b, "{name}/{file} is as it was");
        }
    }
}

fn hash(bytes: &[u8]) -> String {
    blake2b_simd::Params::new()
        .hash_length(32)
        .hash(bytes)
        .to_hex()
        .to_string()
}

fn all_signatures(files: &FeedFiles) -> Vec<(u64, [u8; 64])> {
    let mut found = Vec::new();
    let mut block = 0;
    while let Some((at, signature)) = files.next_signature(block).unwrap() {
        assert_eq!(files.signature(at).unwrap(), Some(signature));
        found.push((at, signature));
        block = at + 1;
    }
    found
}

fn all_nodes(files: &FeedFiles) -> Vec<Node> {
    let records = files.len(FileName::Tree).unwrap().saturating_sub(32) / 40;
    let indexes: Vec<_> = (0..records).map(index).collect();
    files
        .nodes(&indexes)
        .unwrap()
        .into_iter()
        .flatten()
        .collect()
}

#[test]
fn every_file_reads_as_node_reports_it() {
    for_each(|feed, directory| {
        let files = open(directory);
        assert!(!files.is_empty().unwrap());
        assert_eq!(files.page_size(), feed.bitfield_page_size);
        assert_eq!(
            files.key().unwrap().map(hex::encode).as_ref(),
            Some(&feed.key)
        );
        let secret = files.secret_key().unwrap().map(|key| hex::encode(*key));
        assert_eq!(secret, feed.secret_key);
        for file in FileName::ALL {
            let size = feed
                .files
                .get(file.as_str())
                .map_or(0, |stored| stored.size);
            assert_eq!(files.len(file).unwrap(), size, "{file}");
        }

        for root in &feed.roots {
            let node = files
                .node(index(root.index))
                .unwrap()
                .expect("a root is stored");
            assert_eq!(
                (hex::encode(node.hash), node.size),
                (root.hash.clone(), root.size)
            );
        }
        assert_eq!(
            feed.roots.iter().map(|root| root.size).sum::<u64>(),
            feed.byte_length
        );
        for &(start, end) in &feed.tree_bits {
            // Two tests in one: with `required_nodes` every set bit has a node, in the right order.
            let indexes: Vec<_> = (start..end).rev().map(index).collect();
            let nodes = files.required_nodes(&indexes).unwrap();
            assert!(nodes.iter().map(|node| node.index).eq(indexes));
        }

        let signatures = all_signatures(&files);
        assert_eq!(signatures.len(), feed.signature_count);
        for (block, expected) in &feed.signatures {
            let signature = files.signature(*block).unwrap().expect("a signature");
            assert_eq!(hex::encode(signature), *expected);
        }
        assert_eq!(
            files.previous_signature(u64::MAX).unwrap(),
            signatures.last().copied()
        );

        let mut has = Vec::new();
        let visit = |page: u64, bytes: &[u8]| {
            for bit in 0..8192 {
                if bytes[bit / 8] & (128 >> (bit % 8)) != 0 {
                    has.push(8192 * page + bit as u64);
                }
            }
        };
        files.pages(visit).unwrap();
        assert!(
            has.into_iter()
                .eq(feed.has.iter().flat_map(|&(start, end)| start..end))
        );
    });
}

/// Takes a log apart with the typed reads and puts it together with the typed writes.
#[test]
fn a_rewritten_log_has_the_same_bytes() {
    for_each(|feed, directory| {
        let from = open(directory);
        let memory = Memory::new();
        let header = fs::read(directory.path().join("bitfield")).unwrap();
        memory.write(FileName::Bitfield, &header[..32]);
        let to = open(&memory);
        to.write_headers().unwrap();
        to.write_key(&from.key().unwrap().unwrap()).unwrap();
        if let Some(key) = from.secret_key().unwrap() {
            to.write_secret_key(&key).unwrap();
        }
        to.write_nodes(&all_nodes(&from)).unwrap();
        for (block, signature) in all_signatures(&from) {
            to.write_signature(block, &signature).unwrap();
        }
        from.pages(|page, bytes| to.write_page(page, bytes).unwrap())
            .unwrap();
        assert_eq!(from.page_count().unwrap(), to.page_count().unwrap());
        to.write_data(0, &from.read_data(0, from.data_len().unwrap()).unwrap())
            .unwrap();
        for file in FileName::ALL {
            let Some(stored) = feed.files.get(file.as_str()) else {
                assert!(memory.read(file).is_empty());
                continue;
            };
            let mut bytes = memory.read(file);
            // Slots that Node emptied at the end of a file are the same as none.
            assert!(bytes.len() as u64 <= stored.size);
            bytes.resize(stored.size as usize, 0);
            assert_eq!(hash(&bytes), stored.blake2b, "{file}");
        }
    });
}

/// Writes the nodes of each append of `batches` as Node does, one append after the other.
#[test]
fn appends_write_the_same_tree() {
    let from = vectors().join("batches");
    let copy = Memory::new();
    for file in FileName::ALL {
        copy.write(file, &fs::read(from.join(file.as_str())).unwrap());
    }
    let nodes = all_nodes(&open(&copy));
    let memory = Memory::new();
    let files = open(&memory);
    files.write_headers().unwrap();
    let last_leaf = |node: &Node| {
        let at = node.index.get();
        at + (1 << at.trailing_ones()) - 1
    };
    let mut old = 0;
    for new in [1, 4, 6, 13] {
        let finished = |node: &&Node| (2 * old..2 * new).contains(&last_leaf(node));
        let finished: Vec<_> = nodes.iter().filter(finished).rev().copied().collect();
        files.write_append_nodes(old, new, &finished).unwrap();
        assert!(memory.read(FileName::Tree).len() as u64 >= 32 + 40 * (2 * new - 1));
        old = new;
    }
    assert_eq!(memory.read(FileName::Tree), copy.read(FileName::Tree));
}

#[test]
fn headers_are_those_of_node() {
    let memory = Memory::new();
    open(&memory).write_headers().unwrap();
    for file in [FileName::Tree, FileName::Signatures, FileName::Bitfield] {
        let expected = fs::read(vectors().join("empty").join(file.as_str())).unwrap();
        assert_eq!(memory.read(file), expected, "{file}");
    }
}

#[test]
fn manifest_lengths_agree_with_the_last_signature() {
    for_each(|feed, directory| {
        let last = open(directory).previous_signature(feed.length).unwrap();
        if feed.signature_count > 0 {
            assert_eq!(last.map(|(block, _)| block + 1), Some(feed.length));
        }
    });
}
