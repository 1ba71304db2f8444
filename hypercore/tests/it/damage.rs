//! Damage of the files: what `verify` sees of it, and what reading does about it.
//!
//! `HYPERCORE_EVERY_DAMAGE=1 cargo test --release -p hypercore --test it damage` tries every
//! length and every bit; otherwise a part of them.

use std::{
    fs, io,
    path::Path,
    sync::{
        Arc, Barrier, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use futures_lite::{
    StreamExt,
    future::{block_on, zip},
};
use hypercore::{
    Corruption, Durability, Error, GetOptions, Hypercore, KeyPair, ReadOptions, Verification,
    storage::{
        Directory, FileName, Memory, RandomAccess, Storage,
        testing::{FaultStorage, Recording},
    },
};
use hypercore_merkle::{Block, Node, NodeIndex, Proof, Roots};

use crate::support::{contents, copy_of, directories, key_pair};

/// Whether to try everything there is.
fn every() -> bool {
    std::env::var_os("HYPERCORE_EVERY_DAMAGE").is_some()
}

fn verify(storage: &Memory) -> Verification {
    block_on(Hypercore::verify_storage(storage.clone())).unwrap()
}

/// The files and the blocks of a log that was closed. Every third block was appended alone.
fn log(count: u64) -> (Memory, Vec<Vec<u8>>) {
    let storage = Memory::new();
    let blocks: Vec<_> = (0..count)
        .map(|index| vec![7; 3 + index as usize])
        .collect();
    block_on(async {
        let options = Hypercore::options().key_pair(key_pair("damage"));
        let core = options.open_storage(storage.clone()).await.unwrap();
        for batch in blocks.chunks(3) {
            if let [first, rest @ ..] = batch {
                core.append(first.clone()).await.unwrap();
                if !rest.is_empty() {
                    core.append_batch(rest.to_vec()).await.unwrap();
                }
            }
        }
        core.close().await.unwrap();
    });
    (storage, blocks)
}

fn copy(storage: &Memory) -> Memory {
    let copy = Memory::new();
    for file in FileName::ALL {
        copy.write(file, &storage.read(file));
    }
    copy
}

/// Opens a damaged log and reads all of it: whatever it says is true, and it has no new key.
fn read(storage: &Memory, key_pair: &KeyPair, blocks: &[Vec<u8>]) {
    let read = async {
        let core = Hypercore::options()
            .create_if_missing(false)
            .open_storage(storage.clone())
            .await?;
        assert_eq!(core.key(), key_pair.public_key(), "another key");
        for (index, block) in (0..core.length()).zip(blocks) {
            if let Ok(found) = core.get_with(index, GetOptions::local()).await {
                assert_eq!(found, *block, "other bytes in block {index}");
            }
        }
        assert!(core.length() <= blocks.len() as u64);
        Ok::<_, Error>(())
    };
    if let Err(error) = block_on(read) {
        assert!(
            error.is_corruption() || matches!(error, Error::Merkle(_)),
            "{error}"
        );
    }
}

#[test]
fn what_node_wrote_verifies() {
    for entry in directories().read_dir().unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if !path.is_dir() {
            continue;
        }
        let copy = copy_of(&name);
        let before = contents(copy.path());
        let found = verify_directory(copy.path());
        if name == "truncated" {
            // Node leaves the bits of what it cut off, and no signature of the new end.
            let files: Vec<_> = found.problems.iter().map(|problem| problem.file).collect();
            assert_eq!(files, [FileName::Bitfield, FileName::Signatures]);
        } else {
            assert_eq!(found.problems, [], "{name}");
        }
        assert_eq!(contents(copy.path()), before, "{name}");
    }
}

fn verify_directory(path: &Path) -> Verification {
    block_on(Hypercore::verify_storage(Directory::new(path))).unwrap()
}

/// Whether a byte of a closed log of 12 blocks says anything.
fn matters(file: FileName, at: usize) -> bool {
    let header = match file {
        // Behind the name of the algorithm.
        FileName::Tree | FileName::Signatures => 15..32,
        FileName::Bitfield => 8..32,
        _ => 0..0,
    };
    // The place of a node above the roots, which are 7 and 19.
    let blank = 32 + 40 * 15..32 + 40 * 16;
    !(header.contains(&at) || file == FileName::Tree && blank.contains(&at))
}

#[test]
fn every_flipped_bit_is_seen() {
    let (storage, blocks) = log(12);
    assert_eq!(verify(&storage).problems, []);
    let key_pair = key_pair("damage");
    let step = if every() { 1 } else { 37 };
    let mut unseen = Vec::new();
    for file in FileName::ALL {
        let bytes = storage.read(file);
        for bit in (0..8 * bytes.len()).step_by(step) {
            if !matters(file, bit / 8) {
                continue;
            }
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            let storage = copy(&storage);
            storage.write(file, &damaged);
            let found = verify(&storage);
            // A block that is not claimed could have been cleared.
            let is_missed = file == FileName::Bitfield && found.blocks == 11;
            if !is_missed && !found.problems.iter().any(|problem| problem.file == file) {
                unseen.push(format!(
                    "{file} {} {}: {:?}",
                    bit / 8,
                    bit % 8,
                    found.problems
                ));
            }
            read(&storage, &key_pair, &blocks);
        }
    }
    assert!(unseen.is_empty(), "{} unseen: {:#?}", unseen.len(), unseen);
}

/// Of a longer log, at random: `HYPERCORE_FLIPS=100000` tries that many.
#[test]
fn random_flipped_bits_of_a_longer_log_are_seen() {
    let (storage, blocks) = log(300);
    let key_pair = key_pair("damage");
    let flips = std::env::var("HYPERCORE_FLIPS").map_or(200, |flips| flips.parse().unwrap());
    let sizes = FileName::ALL.map(|file| 8 * storage.read(file).len() as u64);
    let mut random: u64 = 300;
    for flip in 0..flips {
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let mut bit = (random >> 20) % sizes.iter().sum::<u64>();
        let file = FileName::ALL.into_iter().zip(sizes).find(|&(_, size)| {
            let is_here = bit < size;
            bit -= if is_here { 0 } else { size };
            is_here
        });
        let (file, bit) = (file.unwrap().0, bit as usize);
        let node = (bit / 8).saturating_sub(32) as u64 / 40;
        // A parent of blocks that are not there yet.
        let is_blank = file == FileName::Tree && node + (1 << node.trailing_ones()) > 2 * 300;
        if is_blank || !matters(file, bit / 8) && (bit / 8 < 32) {
            continue;
        }
        let mut damaged = storage.read(file);
        damaged[bit / 8] ^= 1 << (bit % 8);
        let storage = copy(&storage);
        storage.write(file, &damaged);
        let found = verify(&storage);
        // A block that is not claimed could have been cleared.
        let is_missed = file == FileName::Bitfield && found.blocks == 299;
        assert!(
            is_missed || found.problems.iter().any(|problem| problem.file == file),
            "flip {flip}: bit {} of byte {} of {file}: {:?}",
            bit % 8,
            bit / 8,
            found.problems
        );
        read(&storage, &key_pair, &blocks);
    }
}

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
            read(&damaged_copy, &key_pair, &blocks);
        }
    }
}

#[test]
fn a_shortened_file_is_named_or_made_whole() {
    let (storage, blocks) = log(40);
    let key_pair = key_pair("damage");
    let step = if every() { 1 } else { 29 };
    for file in FileName::ALL {
        let bytes = storage.read(file);
        for len in (0..bytes.len()).step_by(step) {
            let storage = copy(&storage);
            storage.write(file, &bytes[..len]);
            let found = verify(&storage);
            read(&storage, &key_pair, &blocks);
            let whole = verify(&storage);
            let named = found.problems.iter().any(|problem| problem.file == file);
            // Without its secret key a log can be read, and nothing says that there was one.
            let unnoticed = file == FileName::SecretKey && len == 0;
            assert!(
                named || unnoticed || (whole.is_ok() && whole.blocks == 40),
                "{file} cut to {len}: {:?}, {:?}",
                found.problems,
                whole.problems
            );
        }
    }
}

/// What a page claims beyond the end of the log must not come true when the log has grown there, nor
/// be on the disk for Node when an append is acknowledged.
#[test]
fn bits_beyond_the_end_are_not_believed_later() {
    for durability in [Durability::Always, Durability::Interop] {
        let (storage, _) = log(3);
        let mut page = storage.read(FileName::Bitfield);
        // The header, then a KiB for blocks, then two for nodes; the first bit is the highest.
        page[32] |= 0b0000_0100;
        page[32 + 2289 / 8] |= 0x80;
        page[32 + 1024 + 1] |= 0b0100_0000;
        storage.write(FileName::Bitfield, &page);
        let open = || {
            let options = Hypercore::options().durability(durability);
            options.open_storage(storage.clone())
        };
        block_on(async {
            for length in 4..8 {
                let core = open().await.unwrap();
                assert_eq!(core.append("more").await.unwrap(), length - 1);
                let page = storage.read(FileName::Bitfield).split_off(32);
                let (blocks, nodes) = page.split_at(1024);
                assert_eq!(highest_bit(blocks), Some(length - 1), "{durability:?}");
                assert!(
                    highest_bit(&nodes[..2048]) < Some(2 * length - 1),
                    "{durability:?}"
                );
                core.close().await.unwrap();
            }
            let core = open().await.unwrap();
            assert_eq!((core.length(), core.downloaded(0..u64::MAX)), (7, 7));
            assert!(core.audit().await.unwrap().invalid.is_empty());
        });
    }
}

/// The last bit that is set.
fn highest_bit(bytes: &[u8]) -> Option<u64> {
    let last = bytes.iter().rposition(|&byte| byte != 0)?;
    Some(8 * last as u64 + 7 - u64::from(bytes[last].trailing_zeros()))
}

/// Blocks are read several at a time: what comes before a damaged one is read, and the damage
/// named, every time.
#[test]
fn a_stream_ends_at_the_damaged_block() {
    let (storage, blocks) = log(40);
    let mut data = storage.read(FileName::Data);
    let offset: usize = blocks[..25].iter().map(Vec::len).sum();
    data[offset] ^= 1;
    storage.write(FileName::Data, &data);
    block_on(async {
        let core = Hypercore::options().open_storage(storage.clone()).await;
        let core = core.unwrap();
        for _ in 0..2 {
            let mut stream = core.read_stream(ReadOptions::default());
            for block in &blocks[..25] {
                assert_eq!(stream.next().await.unwrap().unwrap(), block);
            }
            let error = stream.next().await.unwrap().unwrap_err();
            let found = matches!(error, Error::Corrupt(Corruption::Block { index: 25 }));
            assert!(found, "{error:?}");
            assert!(stream.next().await.is_none());
        }
        let rest = core.get_batch(26..40).await.unwrap();
        assert_eq!(rest, blocks[26..]);
        assert!(core.get_batch(20..40).await.is_err());
        // What was found whole once is not hashed again, but what was not is.
        let mut stream = core.read_stream((20..40).into());
        for block in &blocks[20..25] {
            assert_eq!(stream.next().await.unwrap().unwrap(), block);
        }
        assert!(stream.next().await.unwrap().is_err());
    });
}

/// The bitfield grows before anything is written that the new page will claim. When the power goes
/// right then, the page shows whatever the disk had there.
#[test]
fn a_page_that_has_only_grown_claims_nothing() {
    for (count, seed) in [(0, 1), (0, 2), (3, 3), (8192, 4), (8192, 5)] {
        let (storage, _) = log(count);
        let mut bitfield = storage.read(FileName::Bitfield);
        let pages = (bitfield.len() - 32) / 3584;
        assert_eq!(pages as u64, count.div_ceil(8192));
        let mut noise: u64 = seed;
        bitfield.extend((0..3584).map(|_| {
            noise = noise
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (noise >> 33) as u8
        }));
        storage.write(FileName::Bitfield, &bitfield);
        block_on(async {
            for length in count..count + 2 {
                let options = Hypercore::options().create_if_missing(false);
                let core = options.open_storage(storage.clone()).await.unwrap();
                assert_eq!(core.length(), length);
                assert_eq!(core.downloaded(..), length);
                assert_eq!(core.append("more").await.unwrap(), length);
                core.close().await.unwrap();
            }
        });
        assert_eq!(verify(&storage).problems, [], "{count} blocks");
    }
}

#[test]
fn verify_tells_how_far_it_is() {
    let (storage, _) = log(5000);
    let told = Arc::new(Mutex::new(Vec::new()));
    let watch = {
        let told = Arc::clone(&told);
        move |checked, all| told.lock().unwrap().push((checked, all))
    };
    let report = block_on(Hypercore::verify_storage_with(storage, watch)).unwrap();
    assert_eq!(report.blocks, 5000);
    let told = told.lock().unwrap();
    assert!(told.is_sorted(), "{told:?}");
    assert_eq!(told.first(), Some(&(0, 5000)));
    assert!(told.len() > 3, "{told:?}");
    assert_eq!(told.last(), Some(&(5000, 5000)));
}

/// A log that was appended at once has one signature, at its end.
#[test]
fn verify_looks_for_the_next_signature_once() {
    let bytes_read = |count: u64| {
        // Without holes, which would be passed over.
        let storage = Recording::new(FaultStorage::new());
        block_on(async {
            let core = Hypercore::options().open_storage(storage.clone()).await;
            let core = core.unwrap();
            core.append_batch(vec!["x"; count as usize]).await.unwrap();
            core.close().await.unwrap();
            storage.take(FileName::Signatures);
            let found = Hypercore::verify_storage(storage.clone()).await.unwrap();
            assert_eq!((found.blocks, found.is_ok()), (count, true));
        });
        storage.take(FileName::Signatures).bytes_read
    };
    let (short, long) = (bytes_read(4096), bytes_read(4 * 4096));
    assert!(long < 6 * short, "{short} and {long} bytes");
}

/// A writer can sign any length and prove the first block of it.
fn proof_of_the_first(key_pair: &KeyPair, length_bits: u32) -> Proof {
    let block = Block::hash("x".into());
    let mut top = Node {
        index: NodeIndex::leaf(0).unwrap(),
        size: 1,
        hash: *block.leaf_hash(),
    };
    let mut nodes = Vec::new();
    for _ in 0..length_bits {
        let sibling = Node {
            index: top.index.sibling(),
            size: 1,
            hash: [7; 32],
        };
        nodes.push(sibling);
        top = Node::parent(&top, &sibling).unwrap();
    }
    let roots = Roots::from_nodes(1 << length_bits, vec![top]).unwrap();
    Proof {
        nodes,
        signature: Some(key_pair.sign(&roots.head())),
    }
}

/// The last pages of such a clone have no bits, and still say something about those before.
#[test]
fn what_is_not_here_costs_nothing() {
    let key_pair = key_pair("damage");
    let proof = proof_of_the_first(&key_pair, 36);
    let storage = Memory::new();
    block_on(async {
        let options = Hypercore::options().key(key_pair.public_key()).sparse(true);
        let core = options.open_storage(storage.clone()).await.unwrap();
        core.put(0, Some("x".into()), &proof).await.unwrap();
        assert_eq!(core.length(), 1 << 36);
        let (block, _) = core.signature(0).await.unwrap().unwrap();
        assert_eq!(block, (1 << 36) - 1);
        assert!(core.verify().await.unwrap().is_ok());
        core.close().await.unwrap();

        let found = Hypercore::verify_storage(storage.clone()).await.unwrap();
        assert_eq!((found.blocks, found.problems), (1, Vec::new()));
        let damage = |file, offset, bytes: &[u8]| {
            let file = storage.open(file).unwrap();
            file.write_at(offset, bytes).unwrap();
        };
        // The bit of another block, a node that can be computed, and the block.
        damage(FileName::Bitfield, 32 + 512, &[1]);
        damage(FileName::Tree, 32 + 40, &[9]);
        damage(FileName::Data, 0, b"y");
        let found = Hypercore::verify_storage(storage.clone()).await.unwrap();
        assert_eq!(found.problems.len(), 5, "{:?}", found.problems);
        let repair = Hypercore::repair_storage(storage.clone()).await.unwrap();
        assert_eq!(repair.dropped, [0]);
        assert_eq!(repair.remaining.problems, []);
        let found = Hypercore::verify_storage(storage.clone()).await.unwrap();
        assert_eq!((found.blocks, found.problems), (0, Vec::new()));
    });
}

/// The file `tree` of a clone ends with the last node that it knows.
#[test]
fn a_clone_without_the_last_leaf_is_repaired() {
    let key_pair = key_pair("damage");
    let proof = proof_of_the_first(&key_pair, 2);
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

/// The parents of whole windows stand in others, of which nothing else may be here.
#[test]
fn a_parent_in_an_empty_window_is_missed() {
    let (storage, _) = log(0);
    block_on(async {
        let core = Hypercore::options().open_storage(storage.clone()).await;
        let core = core.unwrap();
        core.append_batch(vec!["x"; 8192]).await.unwrap();
        core.close().await.unwrap();
    });
    // A clone, which need not have everything.
    storage.write(FileName::SecretKey, &[]);
    let mut bitfield = storage.read(FileName::Bitfield);
    bitfield[32..][1024 / 8..2048 / 8].fill(0);
    bitfield[32 + 1024..][2048 / 8..4096 / 8].fill(0);
    storage.write(FileName::Bitfield, &bitfield);
    let found = verify(&storage);
    let told = |problem: &hypercore::Problem| problem.problem.contains("claim node 4095,");
    assert!(found.problems.iter().any(told), "{:?}", found.problems);
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

/// A storage that holds up the first read of `data` after it was told to.
#[derive(Clone)]
struct HeldUp {
    files: Memory,
    gate: Arc<Gate>,
}

#[derive(Debug)]
struct Gate {
    is_closed: AtomicBool,
    reached: Barrier,
    opened: Barrier,
}

#[derive(Debug)]
struct HeldUpFile {
    inner: Arc<dyn RandomAccess>,
    gate: Arc<Gate>,
}

impl Storage for HeldUp {
    fn open(&self, file: FileName) -> io::Result<Arc<dyn RandomAccess>> {
        let inner = self.files.open(file)?;
        if file != FileName::Data {
            return Ok(inner);
        }
        let gate = Arc::clone(&self.gate);
        Ok(Arc::new(HeldUpFile { inner, gate }))
    }
}

impl RandomAccess for HeldUpFile {
    fn len(&self) -> io::Result<u64> {
        self.inner.len()
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        if self.gate.is_closed.swap(false, Ordering::Relaxed) {
            self.gate.reached.wait();
            self.gate.opened.wait();
        }
        self.inner.read_at(offset, buffer)
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.inner.write_at(offset, data)
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        self.inner.truncate(len)
    }

    fn sync(&self) -> io::Result<()> {
        self.inner.sync()
    }
}

#[test]
fn a_block_that_is_cleared_during_an_audit_is_not_damaged() {
    let storage = HeldUp {
        files: log(3).0,
        gate: Arc::new(Gate {
            is_closed: AtomicBool::new(false),
            reached: Barrier::new(2),
            opened: Barrier::new(2),
        }),
    };
    block_on(async {
        let core = Hypercore::options().open_storage(storage.clone()).await;
        let core = core.unwrap();
        storage.gate.is_closed.store(true, Ordering::Relaxed);
        let clear = async {
            storage.gate.reached.wait();
            core.clear(0..1).await.unwrap();
            storage.gate.opened.wait();
        };
        let (audit, ()) = zip(core.audit(), clear).await;
        let audit = audit.unwrap();
        assert_eq!((audit.valid, audit.invalid), (2, Vec::new()));
    });
}
