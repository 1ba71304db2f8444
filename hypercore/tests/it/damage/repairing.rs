//! What a repair puts right, and what that costs.

use std::{
    collections::BTreeSet,
    fs, io,
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use futures_lite::future::block_on;
use hypercore::{
    Error, GetOptions, Hypercore,
    storage::{Directory, FileName, Memory, RandomAccess, Storage},
};

use super::{copy, every, log, read_all, verify};
use crate::support::{contents, copy_of, key_pair, proof_of};

/// Any single flipped bit is put right, or costs the one block it is in.
#[test]
fn a_flipped_bit_is_repaired() {
    let (storage, blocks) = log(12);
    let key_pair = key_pair("damage");
    let step = if every() { 1 } else { 41 };
    for file in FileName::ALL {
        let bytes = storage.read(file);
        for bit in (0..8 * bytes.len()).step_by(step) {
            let at = format!("bit {} of byte {} of {file}", bit % 8, bit / 8);
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            let damaged_copy = copy(&storage);
            damaged_copy.write(file, &damaged);
            if verify(&damaged_copy).is_ok() {
                continue;
            }
            let repaired = match block_on(Hypercore::repair_storage(damaged_copy.clone())) {
                // Half of a secret cannot be derived from the other.
                Err(_) | Ok(_) if file == FileName::SecretKey && bit < 8 * 32 => continue,
                repaired => repaired.unwrap_or_else(|error| panic!("{at}: {error}")),
            };
            assert_eq!(repaired.remaining.problems, [], "{at}");
            let dropped = usize::from(file == FileName::Data);
            assert_eq!(repaired.dropped.len(), dropped, "{at}: {repaired:?}");
            assert_eq!(repaired.repaired > 0, dropped == 0, "{at}: {repaired:?}");
            for other in FileName::ALL {
                let is_less = dropped > 0 && [FileName::Data, FileName::Bitfield].contains(&other);
                assert!(
                    is_less || damaged_copy.read(other) == storage.read(other),
                    "{at}: {other}"
                );
            }
            read_all(&damaged_copy, &key_pair, &blocks);
        }
    }
}

/// The blocks that can be read.
fn readable(storage: &Memory) -> BTreeSet<u64> {
    let read = async {
        let core = Hypercore::options()
            .create_if_missing(false)
            .open_storage(copy(storage))
            .await?;
        let mut readable = BTreeSet::new();
        for index in 0..core.length() {
            if core.get_with(index, GetOptions::local()).await.is_ok() {
                readable.insert(index);
            }
        }
        Ok::<_, Error>(readable)
    };
    block_on(read).unwrap_or_default()
}

/// Where nodes are lost, no block is that could be read without them.
#[test]
fn no_block_that_can_be_read_is_dropped() {
    let (original, _) = log(45);
    let clone = copy(&original);
    clone.write(FileName::SecretKey, b"");
    keep_what_can_be_read(&original);
    keep_what_can_be_read(&clone);
}

fn keep_what_can_be_read(storage: &Memory) {
    let tree = storage.read(FileName::Tree);
    let nodes = (tree.len() - 32) / 40;
    let step = if every() { 1 } else { 3 };
    for lost in [1, 2, 3, 5, 13, nodes] {
        for first in (0..nodes).step_by(step) {
            let at = format!("{lost} nodes from {first} on");
            let damaged = copy(storage);
            let (start, end) = (32 + 40 * first, 32 + 40 * (first + lost));
            let mut bytes = tree.clone();
            match bytes.get_mut(start..end) {
                Some(part) => part.fill(0),
                None => bytes.truncate(start),
            }
            damaged.write(FileName::Tree, &bytes);
            let before = readable(&damaged);
            let Ok(repair) = block_on(Hypercore::repair_storage(damaged.clone())) else {
                assert_eq!(damaged.read(FileName::Tree), bytes, "{at}");
                continue;
            };
            let after = readable(&damaged);
            assert!(before.is_subset(&after), "{at}: {before:?} {after:?}");
            assert_eq!(repair.remaining.problems, [], "{at}");
            let all: BTreeSet<_> = (0..45).collect();
            let dropped: BTreeSet<_> = repair.dropped.iter().copied().collect();
            assert_eq!(&all - &after, dropped, "{at}");
            if lost == 1 {
                assert!(dropped.is_empty(), "{at}");
                assert!(damaged.read(FileName::Tree) == tree, "{at}");
            }
        }
    }
}

/// What was cut into blocks of one size is put together again without their leaves, too.
#[test]
fn blocks_of_one_size_make_lost_leaves_anew() {
    let storage = Memory::new();
    block_on(async {
        let options = Hypercore::options().key_pair(key_pair("damage"));
        let core = options.open_storage(storage.clone()).await.unwrap();
        let bytes: Vec<_> = (0..200 * 16 + 5).map(|byte| byte as u8).collect();
        core.append_batch(bytes.chunks(16).map(<[u8]>::to_vec))
            .await
            .unwrap();
        core.close().await.unwrap();
    });
    let tree = storage.read(FileName::Tree);
    for sector in 0..tree.len() / 512 {
        let damaged = copy(&storage);
        let mut bytes = tree.clone();
        bytes[(512 * sector).max(32)..512 * (sector + 1)].fill(0);
        damaged.write(FileName::Tree, &bytes);
        let repair = block_on(Hypercore::repair_storage(damaged.clone())).unwrap();
        assert_eq!(repair.dropped, [0; 0], "sector {sector}");
        assert!(damaged.read(FileName::Tree) == tree, "sector {sector}");
    }
}

/// A clone of one block of 2^36, of which a node high above that is lost in part.
#[test]
fn a_block_is_kept_below_a_false_node() {
    let key_pair = key_pair("damage");
    let proof = proof_of(0, &key_pair, 36);
    let storage = Memory::new();
    block_on(async {
        let options = Hypercore::options().key(key_pair.public_key()).sparse(true);
        let core = options.open_storage(storage.clone()).await.unwrap();
        core.put(0, Some("x".into()), &proof).await.unwrap();
        core.close().await.unwrap();
    });
    let node = (3 << 33) - 1;
    let tree = storage.open(FileName::Tree).unwrap();
    tree.write_at(32 + 40 * node, &[0; 8]).unwrap();
    assert!(!verify(&storage).is_ok());
    let repair = block_on(Hypercore::repair_storage(storage.clone())).unwrap();
    assert_eq!(repair.dropped, [0; 0]);
    assert_eq!(repair.remaining.problems, []);
    assert_eq!(verify(&storage).blocks, 1);
}

/// The file `tree` of a clone ends with the last node that it knows.
#[test]
fn a_clone_without_the_last_leaf_is_repaired() {
    let key_pair = key_pair("damage");
    let proof = proof_of(0, &key_pair, 2);
    let storage = Memory::new();
    block_on(async {
        let options = Hypercore::options().key(key_pair.public_key()).sparse(true);
        let core = options.open_storage(storage.clone()).await.unwrap();
        core.put(0, Some("x".into()), &proof).await.unwrap();
        core.close().await.unwrap();
        storage.write(FileName::Data, b"y");
        let repair = Hypercore::repair_storage(storage.clone()).await.unwrap();
        assert_eq!(repair.dropped, [0]);
        assert_eq!(repair.remaining.problems, []);
    });
}

/// Of a tree that is damaged in the middle, opening claims more nodes than were left in the bitfield.
/// With those a signature shows to be wrong, which a repair has to see beforehand.
#[test]
fn a_repair_leaves_nothing_for_the_next_one() {
    let (storage, blocks) = log(18);
    let damage = |file: FileName, range: Range<usize>, value: u8| {
        let mut bytes = storage.read(file);
        bytes[range].fill(value);
        storage.write(file, &bytes);
    };
    const HEADER: usize = 32;
    // Nodes 2, 3 and 4 are claimed, of which only the first and the last have no children.
    const TREE_BITS: usize = HEADER + 1024;
    damage(FileName::Bitfield, HEADER..HEADER + 1024, 0);
    damage(FileName::Bitfield, TREE_BITS..TREE_BITS + 2048, 0);
    damage(FileName::Bitfield, TREE_BITS..TREE_BITS + 1, 0b0011_1000);
    // What is below node 15 cannot be told from it: node 7, the leaf of block 5, and that block.
    for node in [7, 10] {
        let start = HEADER + 40 * node;
        damage(FileName::Tree, start..start + 32, 9);
    }
    let start = blocks[..5].iter().map(Vec::len).sum();
    damage(FileName::Data, start..start + 1, 9);
    let start = HEADER + 64 * 2;
    damage(FileName::Signatures, start..start + 1, 9);

    let repair = || block_on(Hypercore::repair_storage(storage.clone())).unwrap();
    let first = repair();
    assert!(first.repaired > 0);
    assert_eq!(first.remaining.problems, []);
    let core = block_on(Hypercore::options().open_storage(storage.clone())).unwrap();
    assert_eq!(core.length(), 18);
    block_on(core.close()).unwrap();
    assert_eq!(verify(&storage).problems, []);
    let again = repair();
    assert_eq!((again.repaired, again.dropped.len()), (0, 0));
    assert_eq!(again.remaining, verify(&storage));
}

/// The size of the pages of an old log stands in a header, and no repair changes it.
#[test]
fn a_damaged_header_of_an_old_log_is_repaired() {
    let damages = [
        (FileName::Tree, 0),
        (FileName::Signatures, 4),
        (FileName::Bitfield, 0),
        (FileName::Bitfield, 5),
        (FileName::Bitfield, 6),
    ];
    for (file, at) in damages {
        let directory = copy_of("v6-blocks-8300");
        let before = contents(directory.path());
        let path = directory.path().join(file.as_str());
        let mut bytes = fs::read(&path).unwrap();
        bytes[at] ^= 1;
        fs::write(&path, bytes).unwrap();
        let repair = block_on(Hypercore::repair_storage(Directory::new(directory.path())));
        let repair = repair.unwrap();
        assert_eq!((repair.repaired, repair.dropped.len()), (1, 0));
        let mut after = contents(directory.path());
        after.retain(|name, _| before.contains_key(name));
        assert!(after == before, "byte {at} of {file}");
    }
}

/// A storage that sees whether the copies are durable when something is written over.
#[derive(Clone, Default)]
struct Watched {
    files: Memory,
    copies: Arc<Copies>,
}

#[derive(Debug, Default)]
struct Copies {
    bytes: AtomicU64,
    unsynced: AtomicBool,
}

#[derive(Debug)]
struct WatchedFile {
    inner: Arc<dyn RandomAccess>,
    copies: Arc<Copies>,
    is_copy: bool,
}

impl Storage for Watched {
    fn open(&self, file: FileName) -> io::Result<Arc<dyn RandomAccess>> {
        Ok(Arc::new(WatchedFile {
            inner: self.files.open(file)?,
            copies: Arc::clone(&self.copies),
            is_copy: false,
        }))
    }

    fn new_quarantine(&self) -> io::Result<Option<Arc<dyn RandomAccess>>> {
        Ok(self.files.beside("quarantine")?.map(|inner| {
            let copies = Arc::clone(&self.copies);
            let is_copy = true;
            Arc::new(WatchedFile {
                inner,
                copies,
                is_copy,
            }) as Arc<dyn RandomAccess>
        }))
    }
}

impl WatchedFile {
    fn change(&self) {
        if self.is_copy {
            self.copies.unsynced.store(true, Ordering::Relaxed);
            self.copies.bytes.fetch_add(1, Ordering::Relaxed);
        } else {
            let unsynced = self.copies.unsynced.load(Ordering::Relaxed);
            assert!(!unsynced, "written over before the copy is durable");
        }
    }
}

impl RandomAccess for WatchedFile {
    fn len(&self) -> io::Result<u64> {
        self.inner.len()
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.inner.read_at(offset, buffer)
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.change();
        self.inner.write_at(offset, data)
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        self.change();
        self.inner.truncate(len)
    }

    fn sync(&self) -> io::Result<()> {
        if self.is_copy {
            self.copies.unsynced.store(false, Ordering::Relaxed);
        }
        self.inner.sync()
    }
}

#[test]
fn a_repair_writes_over_nothing_before_its_copy_is_durable() {
    let (storage, _) = log(12);
    let signature = |block: usize| 32 + 64 * block + 5;
    // A header, the key, a signature in the middle, the last one, and a node.
    let damages = [
        (FileName::Tree, 1),
        (FileName::Key, 7),
        (FileName::Signatures, signature(3)),
        (FileName::Signatures, signature(11)),
        (FileName::Tree, 32 + 40 * 3),
    ];
    for combined in 1..1 << damages.len() {
        let watched = Watched::default();
        for file in FileName::ALL {
            watched.files.write(file, &storage.read(file));
        }
        for (at, (file, byte)) in damages.into_iter().enumerate() {
            if combined & (1 << at) != 0 {
                let mut bytes = watched.files.read(file);
                bytes[byte] ^= 1;
                watched.files.write(file, &bytes);
            }
        }
        let repair = block_on(Hypercore::repair_storage(watched.clone())).unwrap();
        assert_eq!(repair.remaining.problems, [], "{combined:b}");
        assert!(watched.copies.bytes.load(Ordering::Relaxed) > 0);
        for file in FileName::ALL {
            let is_same = watched.files.read(file) == storage.read(file);
            assert!(is_same, "{combined:b}: {file}");
        }
    }
}
