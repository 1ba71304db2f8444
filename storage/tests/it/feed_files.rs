//! The typed methods, in memory.

use std::{collections::BTreeMap, sync::Arc};

use hypercore_merkle::{MAX_BYTE_LENGTH, MAX_LENGTH, Node, Roots, full_roots};
use hypercore_storage::{
    Error, FeedFiles, FileName, Memory,
    testing::{Counts, Recording},
};
use proptest::prelude::*;

use crate::{index, node, open};

fn created() -> (Memory, FeedFiles) {
    let memory = Memory::new();
    let files = open(&memory);
    files.write_headers().unwrap();
    (memory, files)
}

fn open_error(memory: &Memory) -> Error {
    FeedFiles::open(Arc::new(memory.clone())).expect_err("the log does not open")
}

#[test]
fn a_log_with_headers_only_is_empty() {
    let (_, files) = created();
    assert!(files.is_empty().unwrap());
    files.write_key(&[1; 32]).unwrap();
    assert!(!files.is_empty().unwrap());
}

#[test]
fn short_keys_are_damage_and_missing_keys_are_not() {
    let (memory, files) = created();
    assert_eq!(files.key().unwrap(), None);
    assert!(files.secret_key().unwrap().is_none());
    memory.write(FileName::Key, &[1; 31]);
    memory.write(FileName::SecretKey, &[1; 32]);
    let error = files.key().unwrap_err();
    assert!(matches!(
        error,
        Error::Corrupt {
            file: FileName::Key,
            len: 31,
            expected: 32
        }
    ));
    assert!(error.is_corruption());
    assert_eq!(
        error.to_string(),
        "the file `key` is damaged: it has 31 bytes instead of 32"
    );
    assert!(files.secret_key().unwrap_err().is_corruption());
}

#[test]
fn foreign_headers_with_content_are_refused_whatever_byte_is_wrong() {
    for file in [FileName::Tree, FileName::Signatures, FileName::Bitfield] {
        let (memory, files) = created();
        drop(files);
        let mut good = memory.read(file);
        good.push(0);
        for at in 0..8 {
            let mut bad = good.clone();
            bad[at] ^= 1;
            memory.write(file, &bad);
            let error = open_error(&memory);
            assert!(error.is_corruption(), "{file} byte {at}: {error}");
            assert_eq!(memory.read(file), bad, "nothing is touched");

            // Without content it is an unfinished header, and is written anew.
            memory.write(file, &bad[..32]);
            let files = open(&memory);
            assert!(files.is_empty().unwrap());
            files.write_headers().unwrap();
            assert_eq!(memory.read(file), good[..32], "{file} byte {at}");
        }
    }
}

#[test]
fn pages_of_other_sizes_are_refused() {
    let (memory, files) = created();
    drop(files);
    let mut bitfield = memory.read(FileName::Bitfield);
    bitfield.push(1);
    for (size, good) in [
        (0, false),
        (3072, false),
        (3328, true),
        (3584, true),
        (u16::MAX, false),
    ] {
        bitfield[5..7].copy_from_slice(&u16::to_be_bytes(size));
        memory.write(FileName::Bitfield, &bitfield);
        match FeedFiles::open(Arc::new(memory.clone())) {
            Ok(files) => assert!(good && files.page_size() == size),
            Err(error) => {
                assert!(!good && matches!(error, Error::BadPageSize { found } if found == size));
            }
        }
    }
}

#[test]
fn records_cut_by_the_end_of_the_file_are_absent() {
    let (memory, files) = created();
    files.write_nodes(&[node(0), node(1)]).unwrap();
    files.write_signature(0, &[1; 64]).unwrap();
    files.write_signature(1, &[2; 64]).unwrap();
    for file in [FileName::Tree, FileName::Signatures] {
        let mut bytes = memory.read(file);
        bytes.pop();
        memory.write(file, &bytes);
    }
    assert_eq!(
        files.nodes(&[index(0), index(1)]).unwrap(),
        [Some(node(0)), None]
    );
    assert_eq!(files.node(index(1)).unwrap(), None);
    assert_eq!(files.signature(1).unwrap(), None);
    assert_eq!(files.next_signature(1).unwrap(), None);
    assert_eq!(files.previous_signature(5).unwrap(), Some((0, [1; 64])));
}

#[test]
fn a_missing_node_is_named() {
    let (_, files) = created();
    files.write_nodes(&[node(4)]).unwrap();
    let error = files.required_nodes(&[index(4), index(6)]).unwrap_err();
    assert!(matches!(error, Error::MissingNode { node } if node == index(6)));
}

#[test]
fn an_append_removes_what_an_unfinished_one_left() {
    let (_, files) = created();
    files
        .write_nodes(&[node(3), node(4), node(5), node(7)])
        .unwrap();
    files
        .write_append_nodes(1, 3, &[node(2), node(4), node(1)])
        .unwrap();
    let nodes = files.nodes(&[1, 2, 3, 4, 5, 7].map(index)).unwrap();
    assert_eq!(
        nodes,
        [
            Some(node(1)),
            Some(node(2)),
            None,
            Some(node(4)),
            Some(node(5)),
            Some(node(7))
        ]
    );
    // Nor are they remembered.
    for (node, there) in [1, 2, 3, 4, 5, 7].map(index).into_iter().zip(nodes) {
        let required = files.required_nodes(&[node]).ok();
        assert_eq!(required, there.map(|node| vec![node]));
    }
    assert!(files.locate(3).is_err());
}

#[test]
fn a_node_that_no_log_can_have_is_not_stored() {
    let (_, files) = created();
    let blank = Node {
        size: 0,
        hash: [0; 32],
        ..node(4)
    };
    let endless = Node {
        size: u64::MAX,
        ..node(1)
    };
    for wrong in [blank, endless] {
        let nodes = [wrong, node(6)];
        for written in [
            files.write_nodes(&nodes),
            files.write_append_nodes(0, 4, &nodes),
        ] {
            assert!(matches!(written, Err(Error::InvalidNode { node }) if node == wrong.index));
        }
    }
    assert_eq!(files.nodes(&[1, 4, 6].map(index)).unwrap(), [None; 3]);
    assert!(files.locate(3).is_err());
}

/// The new leaves, what is between them and the parent right before them take one write.
#[test]
fn an_append_writes_neighbours_together() {
    let storage = Recording::new(Memory::new());
    let files = open(&storage);
    let mut roots = Roots::new();
    for block in 0..16 {
        let mut finished = Vec::new();
        roots.push(1, [7; 32], &mut finished).unwrap();
        files
            .write_append_nodes(block, block + 1, &finished)
            .unwrap();
        let writes = finished.len() as u64 - block % 2;
        assert_eq!(storage.take(FileName::Tree).writes, writes, "{block}");
    }
}

proptest! {
    /// Zeros first, then one node after the other; whatever was there before.
    #[test]
    fn an_append_writes_what_it_says(
        old_length in 0..40_u64,
        count in 1..40_u64,
        before in prop::collection::btree_set(0..200_u64, 0..60),
        nodes in prop::collection::btree_set(0..200_u64, 0..60),
        seed in any::<u64>(),
    ) {
        let (simple, expected) = created();
        let (memory, files) = created();
        let before: Vec<_> = before.into_iter().map(node).collect();
        files.write_nodes(&before).unwrap();
        expected.write_nodes(&before).unwrap();

        let mut nodes: Vec<_> = nodes.into_iter().map(node).collect();
        nodes.sort_by_key(|node| node.index.get().wrapping_mul(seed | 1));
        files.write_append_nodes(old_length, old_length + count, &nodes).unwrap();

        let mut tree = simple.read(FileName::Tree);
        let records = (2 * old_length) as usize..(2 * (old_length + count) - 1) as usize;
        tree.resize(tree.len().max(32 + 40 * records.end), 0);
        tree[32 + 40 * records.start..32 + 40 * records.end].fill(0);
        simple.write(FileName::Tree, &tree);
        for node in &nodes {
            expected.write_nodes(&[*node]).unwrap();
        }
        prop_assert!(memory.read(FileName::Tree) == simple.read(FileName::Tree));
    }
}

/// More nodes than one write takes.
#[test]
fn long_appends_are_whole() {
    let (memory, files) = created();
    let nodes: Vec<_> = (0..30_000).map(|block| node(2 * block)).collect();
    files.write_append_nodes(0, 30_000, &nodes).unwrap();
    assert_eq!(memory.read(FileName::Tree).len(), 32 + 40 * 59_999);
    let indexes: Vec<_> = (0..59_999).map(index).collect();
    assert!(
        files
            .nodes(&indexes)
            .unwrap()
            .into_iter()
            .flatten()
            .eq(nodes)
    );
}

#[test]
fn signatures_are_found_from_both_sides() {
    let (_, files) = created();
    for block in [0, 5, 3000, 3001] {
        files
            .write_signature(block, &[block as u8 + 1; 64])
            .unwrap();
    }
    let next = |block| files.next_signature(block).unwrap().map(|(block, _)| block);
    let previous = |block| {
        files
            .previous_signature(block)
            .unwrap()
            .map(|(block, _)| block)
    };
    assert_eq!(
        [0, 1, 5, 6, 3001, 3002].map(next),
        [0, 5, 5, 3000, 3001, u64::MAX].map(found)
    );
    assert_eq!(
        [0, 1, 5, 6, 3000, 3002].map(previous),
        [u64::MAX, 0, 0, 5, 5, 3001].map(found)
    );
    files.clear_signatures(4..3001).unwrap();
    assert_eq!(next(1), Some(3001));
    files.clear_signatures(1..u64::MAX).unwrap();
    assert_eq!(
        files.len(FileName::Signatures).unwrap(),
        32 + 64,
        "the end is cut"
    );
    assert_eq!(next(u64::MAX), None);
}

fn found(block: u64) -> Option<u64> {
    (block != u64::MAX).then_some(block)
}

#[test]
fn data_beyond_the_end_allocates_nothing() {
    let (_, files) = created();
    files.write_data(2, b"abc").unwrap();
    assert_eq!(files.read_data(0, 5).unwrap(), b"\0\0abc");
    for (offset, len) in [(0, 6), (5, 1), (0, 1 << 52), (1, u64::MAX)] {
        let error = files.read_data(offset, len).unwrap_err();
        assert!(
            matches!(error, Error::MissingData { offset: o, len: l } if (o, l) == (offset, len))
        );
    }
    assert_eq!(files.read_data(u64::MAX, 0).unwrap(), b"");
}

#[test]
fn cleared_data_reads_as_zeros_or_is_cut() {
    let (_, files) = created();
    files.write_data(0, &[1; 20_000]).unwrap();
    files.clear_data(100, 10_000).unwrap();
    let expected = [vec![1; 100], vec![0; 10_000], vec![1; 9_900]].concat();
    assert_eq!(files.read_data(0, 20_000).unwrap(), expected);
    assert!(files.data_allocated().unwrap() < 20_000);
    files.clear_data(15_000, u64::MAX).unwrap();
    assert_eq!(files.data_len().unwrap(), 15_000);
    files.clear_data(15_000, 10).unwrap();
    assert_eq!(files.data_len().unwrap(), 15_000, "nothing grows");
}

#[test]
fn positions_beyond_the_limits_are_refused_before_they_are_used() {
    let (_, files) = created();
    let out = |result: Result<(), Error>| assert!(matches!(result, Err(Error::OutOfRange { .. })));
    out(files.write_signature(MAX_LENGTH, &[1; 64]));
    out(files.write_data(MAX_BYTE_LENGTH, &[1]));
    out(files.write_data(u64::MAX, &[1]));
    out(files.write_page(u64::MAX, &[0; 3584]));
    out(files.write_append_nodes(0, MAX_LENGTH + 1, &[]));
    assert_eq!(files.signature(u64::MAX).unwrap(), None);
}

/// A peer decides where in a sparse log the blocks are; memory must not be sized by it.
#[test]
fn far_blocks_take_no_memory() {
    let (_, files) = created();
    files.write_data(1 << 50, b"far").unwrap();
    files.write_nodes(&[node(1 << 50)]).unwrap();
    assert_eq!(files.data_len().unwrap(), (1 << 50) + 3);
    assert!(files.data_allocated().unwrap() <= 4096);
    assert_eq!(files.node(index(1 << 50)).unwrap(), Some(node(1 << 50)));
}

#[test]
fn a_short_last_page_is_passed_as_it_is() {
    let (memory, files) = created();
    for page in 0..40 {
        files.write_page(page, &[page as u8; 3584]).unwrap();
    }
    let bytes = memory.read(FileName::Bitfield);
    memory.write(FileName::Bitfield, &bytes[..bytes.len() - 1000]);
    assert_eq!(files.page_count().unwrap(), 40);
    let mut seen = Vec::new();
    files
        .pages(|page, bytes| seen.push((page, bytes[0], bytes.len())))
        .unwrap();
    let expected = (0..40).map(|page| (page, page as u8, if page == 39 { 2584 } else { 3584 }));
    assert!(seen.into_iter().eq(expected));
    files.truncate_pages(3).unwrap();
    assert_eq!(files.page_count().unwrap(), 3);
}

#[test]
fn room_for_pages_is_made_again_after_a_cut() {
    let (_memory, files) = created();
    let len = || files.len(FileName::Bitfield).unwrap();
    files.reserve_pages(8193).unwrap();
    assert_eq!(len(), 32 + 2 * 3584);
    files.truncate_pages(1).unwrap();
    files.reserve_pages(8193).unwrap();
    assert_eq!(len(), 32 + 2 * 3584);
    files.reset().unwrap();
    files.reserve_pages(1).unwrap();
    assert_eq!(len(), 32 + 3584);
}

#[test]
fn truncating_keeps_what_is_before() {
    let (memory, files) = created();
    files
        .write_nodes(&(0..9).map(node).collect::<Vec<_>>())
        .unwrap();
    files.truncate_tree(3).unwrap();
    assert_eq!(memory.read(FileName::Tree).len(), 32 + 40 * 5);
    files.truncate_tree(100).unwrap();
    assert_eq!(memory.read(FileName::Tree).len(), 32 + 40 * 5);
    files.truncate_tree(0).unwrap();
    assert_eq!(memory.read(FileName::Tree).len(), 32);
}

/// Where a block stands is the total size of the roots before it, however much of that is known.
#[test]
fn blocks_are_located_as_by_their_roots() {
    let blocks: u64 = 3000;
    // The sizes of blocks are 0 to 4.
    let whole = |node: Node| {
        let blocks = node.index.left_span().get() / 2..node.index.end();
        let size = blocks.map(|block| block % 5).sum();
        Node { size, ..node }
    };
    let nodes: Vec<_> = (0..2 * blocks).map(|n| whole(node(n))).collect();
    let (memory, files) = created();
    files.write_nodes(&nodes).unwrap();
    let slow = |files: &FeedFiles, block| {
        let wanted: Vec<_> = full_roots(block).chain([index(2 * block)]).collect();
        let mut nodes = files.nodes(&wanted).unwrap();
        let leaf = nodes.pop().unwrap().unwrap();
        let sizes = nodes.iter().map(|node| node.unwrap().size);
        (sizes.sum::<u64>(), leaf)
    };
    drop(files);
    let mut files = open(&memory);
    let orders: [&dyn Fn(u64) -> u64; 4] = [
        &|n| n,
        &|n| blocks - 1 - n,
        &|n| n * 1009 % blocks,
        // The same few again and again.
        &|n| n % 7 * 400,
    ];
    for order in orders {
        for n in 0..blocks {
            let block = order(n);
            assert_eq!(files.locate(block).unwrap(), slow(&files, block), "{block}");
            if n % 100 == 0 {
                // Some of the low nodes are known, too.
                files.required_nodes(&[index(n + 1), index(2 * n)]).unwrap();
            }
        }
        files = {
            drop(files);
            open(&memory)
        };
    }
    // What was found before is not true any more.
    for block in [2000, 2001] {
        files.locate(block).unwrap();
    }
    let root = full_roots(2000).next().unwrap();
    let larger = Node {
        size: 1 << 40,
        ..node(root.get())
    };
    files.write_nodes(&[larger]).unwrap();
    for block in [2000, 2001, 2002] {
        assert_eq!(files.locate(block).unwrap(), slow(&files, block), "{block}");
    }
    files.truncate_tree(2001).unwrap();
    assert!(files.locate(2000).is_ok());
    let error = files.locate(2001).unwrap_err();
    assert!(matches!(error, Error::MissingNode { node } if node == index(4002)));
    assert!(files.locate(MAX_LENGTH).is_err());
    assert!(files.locate(MAX_LENGTH - 1).is_err());
}

#[test]
fn a_block_is_located_with_one_read() {
    let blocks = 100_000;
    let memory = Memory::new();
    let files = open(&memory);
    files.write_headers().unwrap();
    let nodes: Vec<_> = (0..2 * blocks).map(node).collect();
    files.write_nodes(&nodes).unwrap();
    drop(files);
    let recording = Recording::new(memory);
    let files = open(&recording);
    for block in (0..blocks).step_by(128) {
        files.locate(block).unwrap();
    }
    recording.take(FileName::Tree);
    // In an order in which no two stand together.
    let random = |n: u64| n * 7919 % blocks;
    for n in 0..1000 {
        files.locate(random(n)).unwrap();
    }
    assert_eq!(recording.take(FileName::Tree).reads, 1000);

    files.locate(5000).unwrap();
    recording.take(FileName::Tree);
    for (block, reads) in [(5001, 1), (5001, 0)] {
        files.locate(block).unwrap();
        assert_eq!(recording.take(FileName::Tree).reads, reads);
    }
}

/// Nodes are remembered that were just read or written.
#[test]
fn nodes_that_were_cut_off_are_not_remembered() {
    let (_memory, files) = created();
    files.write_nodes(&[node(0), node(8)]).unwrap();
    files.required_nodes(&[index(0), index(8)]).unwrap();
    files.truncate_tree(3).unwrap();
    assert!(files.required_nodes(&[index(0)]).is_ok());
    assert!(files.required_nodes(&[index(8)]).is_err());
}

#[test]
fn reset_leaves_nothing_to_mix_with() {
    let (memory, files) = created();
    files.write_key(&[1; 32]).unwrap();
    files.write_secret_key(&[2; 64]).unwrap();
    files.write_nodes(&[node(0)]).unwrap();
    files.write_page(0, &[1; 3584]).unwrap();
    files.reset().unwrap();
    assert!(
        FileName::ALL
            .iter()
            .all(|&file| memory.read(file).is_empty())
    );
    files.write_headers().unwrap();
    files.write_key(&[3; 32]).unwrap();
    drop(files);
    assert_eq!(open(&memory).key().unwrap(), Some([3; 32]));
}

#[test]
fn debug_shows_no_secret() {
    let (memory, files) = created();
    files.write_secret_key(&[0xab; 64]).unwrap();
    let shown = format!("{files:?} {memory:?}");
    assert!(
        !shown.contains("171") && !shown.contains("ab, ab"),
        "{shown}"
    );
}

#[test]
fn neighbours_are_read_and_written_together() {
    let recording = Recording::new(Memory::new());
    let files = open(&recording);
    files.write_headers().unwrap();
    recording.take(FileName::Tree);

    let nodes: Vec<_> = (0..1000).map(node).collect();
    files.write_nodes(&nodes).unwrap();
    let written = Counts {
        writes: 1,
        bytes_written: 40_000,
        ..Counts::default()
    };
    assert_eq!(recording.take(FileName::Tree), written);

    let leaves: Vec<_> = (0..500).map(|block| index(2 * block)).collect();
    files.required_nodes(&leaves).unwrap();
    let none = Counts::default();
    assert_eq!(recording.take(FileName::Tree), none, "just written");
    files.nodes(&leaves).unwrap();
    let read = Counts {
        reads: 1,
        bytes_read: 999 * 40,
        ..Counts::default()
    };
    assert_eq!(recording.take(FileName::Tree), read);

    files.nodes(&[index(0), index(200), index(400)]).unwrap();
    assert_eq!(
        recording.take(FileName::Tree).reads,
        3,
        "far apart, one each"
    );

    files.write_signature(20_000, &[1; 64]).unwrap();
    recording.take(FileName::Signatures);
    files.next_signature(0).unwrap();
    let reads = recording.take(FileName::Signatures).reads;
    assert!(reads < 40, "{reads} reads for 20000 slots");
}

#[test]
fn only_what_was_written_is_synced() {
    let recording = Recording::new(Memory::new());
    let files = open(&recording);
    files.write_headers().unwrap();
    files.sync_content().unwrap();
    files.sync_bitfield().unwrap();
    let syncs = || FileName::ALL.map(|file| recording.take(file).syncs);
    assert_eq!(syncs(), [0, 0, 1, 0, 1, 1]);
    files.write_data(0, b"a").unwrap();
    files.sync_content().unwrap();
    files.sync_content().unwrap();
    assert_eq!(syncs(), [0, 0, 0, 1, 0, 0]);
}

proptest! {
    /// Whatever is written in whatever order, `nodes` gives what a map gives.
    #[test]
    fn nodes_equal_a_map(
        writes in prop::collection::vec(prop::collection::vec(0u64..3000, 0..40), 0..6),
        reads in prop::collection::vec(0u64..3200, 0..60),
    ) {
        let (_, files) = created();
        let mut model = BTreeMap::new();
        for batch in writes {
            let batch: Vec<_> = batch.into_iter().map(node).collect();
            files.write_nodes(&batch).unwrap();
            model.extend(batch.iter().map(|node| (node.index, *node)));
        }
        let indexes: Vec<_> = reads.into_iter().map(index).collect();
        let expected: Vec<_> = indexes.iter().map(|index| model.get(index).copied()).collect();
        for (&index, expected) in indexes.iter().zip(&expected) {
            let required = files.required_nodes(&[index]).ok();
            prop_assert_eq!(required, expected.map(|node| vec![node]));
        }
        prop_assert_eq!(files.nodes(&indexes).unwrap(), expected);
    }
}
