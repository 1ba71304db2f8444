//! Numbers where arithmetic ends: nothing wraps, nothing panics, nothing is written where no log is.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use hypercore_merkle::{MAX_BYTE_LENGTH, MAX_LENGTH, Node, NodeIndex};
use hypercore_storage::{Error, FeedFiles, FileName, RandomAccess, Storage};
use proptest::prelude::*;

/// Around every power of two, and everywhere.
fn number() -> impl Strategy<Value = u64> {
    let near = |bits: u32, distance: u64, above: bool| {
        let power = 1_u64.checked_shl(bits).unwrap_or(0);
        if above {
            power.wrapping_add(distance)
        } else {
            power.wrapping_sub(distance)
        }
    };
    prop_oneof![
        4 => (48..=64_u32, 0..4_u64, any::<bool>()).prop_map(move |(b, d, above)| near(b, d, above)),
        1 => (0..=64_u32, 0..4_u64, any::<bool>()).prop_map(move |(b, d, above)| near(b, d, above)),
        1 => any::<u64>(),
    ]
}

/// Files of any length, of which nothing is kept.
#[derive(Clone, Debug, Default)]
struct Vast(Arc<AtomicU64>);

/// What the longest file of the longest log takes: two nodes for each block.
const LONGEST: u64 = 32 + 80 * MAX_LENGTH;

impl Storage for Vast {
    fn open(&self, _: FileName) -> io::Result<Arc<dyn RandomAccess>> {
        Ok(Arc::new(self.clone()))
    }
}

impl RandomAccess for Vast {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.load(Relaxed))
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        if offset
            .checked_add(buffer.len() as u64)
            .is_none_or(|end| end > self.0.load(Relaxed))
        {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        // Neither a hole nor a size that a node may have.
        buffer.fill(0xff);
        Ok(())
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let end = offset.checked_add(data.len() as u64);
        assert!(end.is_some_and(|end| end <= LONGEST), "written at {offset}");
        Ok(())
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        assert!(len <= self.0.load(Relaxed), "cut to {len}");
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn punch_hole(&self, offset: u64, len: u64) -> io::Result<()> {
        assert!(
            offset
                .checked_add(len)
                .is_some_and(|end| end <= self.0.load(Relaxed))
        );
        Ok(())
    }
}

/// An empty log, and what sets how long its files seem to be from now on.
fn vast() -> (FeedFiles, Arc<AtomicU64>) {
    let storage = Vast::default();
    let length = Arc::clone(&storage.0);
    let files = FeedFiles::open(Arc::new(storage)).unwrap();
    // Takes the lock.
    files.write_key(&[1; 32]).unwrap();
    (files, length)
}

/// Ends well below `max`, and with an error that says so above.
#[track_caller]
fn within<T: std::fmt::Debug>(result: Result<T, Error>, position: u64, max: u64) {
    match result {
        Ok(_) => assert!(position <= max, "{position} was taken"),
        Err(error) => {
            let named =
                matches!(error, Error::OutOfRange { position: named, .. } if named == position);
            assert!(position > max && named, "{error}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]

    #[test]
    fn nodes(index in number(), climb in 0..70_usize, len in number()) {
        let (files, length) = vast();
        let first = NodeIndex::new(index % (2 * MAX_LENGTH)).unwrap();
        // Where no log has a node, too.
        let ancestors = std::iter::successors(Some(first), |node| Some(node.parent()));
        let index = ancestors.take(climb + 1).last().unwrap().sibling();
        let node = Node { index, size: 1, hash: [1; 32] };
        within(files.write_nodes(&[node]), index.get(), 2 * MAX_LENGTH - 1);
        length.store(len, Relaxed);
        prop_assert_eq!(files.node(index).unwrap(), None);
        prop_assert_eq!(files.nodes(&[index, first]).unwrap(), [None, None]);
        prop_assert!(files.required_nodes(&[index.parent()]).is_err());
        files.clear_node(index).unwrap();
        length.store(0, Relaxed);
        let mut quarantine = files.quarantine();
        quarantine.add_node(index).unwrap();
        prop_assert_eq!(quarantine.finish().unwrap(), 0);
    }

    #[test]
    fn signatures(block in number(), end in number(), len in number()) {
        let (files, length) = vast();
        within(files.write_signature(block, &[1; 64]), block, MAX_LENGTH - 1);
        within(files.write_last_signature(block, &[1; 64]), block, MAX_LENGTH - 1);
        within(files.mark_open(block), block, MAX_LENGTH - 1);
        files.drop_append(block).unwrap();
        let mut quarantine = files.quarantine();
        quarantine.add_signature(block).unwrap();
        quarantine.add(FileName::Signatures, block..end).unwrap();
        length.store(len, Relaxed);
        let stored = files.signature(block).unwrap().is_some();
        prop_assert_eq!(stored, block < MAX_LENGTH && 32 + 64 * (block + 1) <= len);
        if let Some((found, _)) = files.next_signature(block).unwrap() {
            prop_assert!((block..MAX_LENGTH).contains(&found));
        }
        if let Some((found, _)) = files.previous_signature(block).unwrap() {
            prop_assert!(found < block.min(MAX_LENGTH));
        }
        files.clear_signatures(block..end).unwrap();
        files.mark_closed(block).unwrap();
        files.surplus(block, end).unwrap();
        files.tree_blocks().unwrap();
    }

    #[test]
    fn data(offset in number(), size in number(), len in number()) {
        let (files, length) = vast();
        within(files.write_data(offset, b"12345678"), offset.saturating_add(8), MAX_BYTE_LENGTH);
        length.store(len, Relaxed);
        let end = offset.checked_add(size);
        if end.is_none_or(|end| end > len) || size < 1 << 20 {
            let read = files.read_data(offset, size);
            let is_missing = matches!(read, Err(Error::MissingData { .. }));
            prop_assert_eq!(!is_missing, size == 0 || end.is_some_and(|end| end <= len));
        }
        files.clear_data(offset, size).unwrap();
        files.truncate_data(offset).unwrap();
        files.truncate_tree(offset).unwrap();
    }

    #[test]
    fn pages(page in number(), len in number()) {
        let (files, length) = vast();
        within(files.write_page(page, &[1; 3584]), page, MAX_LENGTH / 8192);
        if !(1 << 20..=MAX_LENGTH).contains(&page) {
            within(files.reserve_pages(page), page, MAX_LENGTH);
        }
        length.store(len, Relaxed);
        prop_assert!(files.page_count().unwrap() <= len / 3584 + 1);
        files.truncate_pages(page).unwrap();
    }

    #[test]
    fn appends(old in number(), new in number()) {
        let (files, _) = vast();
        if new <= old || new > MAX_LENGTH || new - old < 1000 {
            let written = files.write_append_nodes(old, new, &[]);
            prop_assert_eq!(written.is_err(), new > old && new > MAX_LENGTH);
        }
    }
}
