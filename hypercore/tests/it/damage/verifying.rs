//! What `verify` sees, of files that are whole and of damaged ones.

use std::{
    ops::ControlFlow,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    thread,
};

use futures_lite::future::block_on;
use hypercore::{
    Error, Hypercore, Verification,
    storage::{
        Directory, FileName, Memory, Storage,
        testing::{FaultStorage, Recording},
    },
};

use super::{copy, every, log, read_all, reading::HeldUp, verify};
use crate::support::{contents, copy_of, directories, key_pair, proof_of, run, soon, start};

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
            read_all(&storage, &key_pair, &blocks);
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
    let next = AtomicU64::new(0);
    let try_some = || {
        loop {
            let flip = next.fetch_add(1, Ordering::Relaxed);
            if flip >= flips {
                break;
            }
            let Some((file, bit)) = random_bit(&storage, flip) else {
                continue;
            };
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
            read_all(&storage, &key_pair, &blocks);
        }
    };
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(try_some);
        }
    });
}

/// A bit of a log of 300 blocks, unless it says nothing.
fn random_bit(storage: &Memory, seed: u64) -> Option<(FileName, usize)> {
    let sizes = FileName::ALL.map(|file| 8 * storage.read(file).len() as u64);
    // SplitMix64.
    let mut random = seed.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    random = (random ^ (random >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    random = (random ^ (random >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    let mut bit = (random ^ (random >> 31)) % sizes.iter().sum::<u64>();
    let (file, _) = FileName::ALL.into_iter().zip(sizes).find(|&(_, size)| {
        let is_here = bit < size;
        bit -= if is_here { 0 } else { size };
        is_here
    })?;
    let bit = bit as usize;
    let node = (bit / 8).saturating_sub(32) as u64 / 40;
    // A parent of blocks that are not there yet.
    let is_blank = file == FileName::Tree && node + (1 << node.trailing_ones()) > 2 * 300;
    let says_nothing = is_blank || !matters(file, bit / 8) && (bit / 8 < 32);
    (!says_nothing).then_some((file, bit))
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
            read_all(&storage, &key_pair, &blocks);
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

#[test]
fn verify_tells_how_far_it_is() {
    let (storage, _) = log(5000);
    let told = Arc::new(Mutex::new(Vec::new()));
    let watch = {
        let told = Arc::clone(&told);
        move |checked, all| {
            told.lock().unwrap().push((checked, all));
            ControlFlow::Continue(())
        }
    };
    let report = block_on(Hypercore::verify_storage_with(storage, watch)).unwrap();
    assert_eq!(report.blocks, 5000);
    let told = told.lock().unwrap();
    assert!(told.is_sorted(), "{told:?}");
    assert_eq!(told.first(), Some(&(0, 5000)));
    assert!(told.len() > 3, "{told:?}");
    assert_eq!(told.last(), Some(&(5000, 5000)));
}

#[test]
fn whoever_watches_a_check_can_stop_it() {
    let (storage, _) = log(5000);
    let stop = || {
        let mut told = 0;
        move |_, _| {
            told += 1;
            assert!(told < 3, "told after it was to stop");
            if told == 2 {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        }
    };
    let found = block_on(Hypercore::verify_storage_with(storage.clone(), stop()));
    assert!(matches!(found, Err(Error::Cancelled)), "{found:?}");
    let mut tree = storage.read(FileName::Tree);
    tree[32 + 40] ^= 1;
    storage.write(FileName::Tree, &tree);
    let repair = block_on(Hypercore::repair_storage_with(storage.clone(), stop()));
    assert!(matches!(repair, Err(Error::Cancelled)), "{repair:?}");
    assert_eq!(storage.read(FileName::Tree), tree);
    let repair = block_on(Hypercore::repair_storage(storage.clone())).unwrap();
    assert!(
        repair.remaining.is_ok() && repair.repaired > 0,
        "{repair:?}"
    );
}

/// All appends waited for it.
#[test]
fn a_verification_that_nobody_waits_for_any_more_ends() {
    let files = Memory::new();
    run(async {
        let options = Hypercore::options();
        let core = options.open_storage(files.clone()).await.unwrap();
        core.append_batch(vec!["x"; 3000]).await.unwrap();
        core.close().await.unwrap();
        let storage = HeldUp::new(files);
        let core = Hypercore::options().open_storage(storage.clone()).await;
        let core = core.unwrap();
        let before = storage.gate.reads.load(Ordering::Relaxed);
        storage.gate.close();
        let mut verify = Box::pin(core.verify());
        start(verify.as_mut()).await;
        storage.gate.reached();
        drop(verify);
        storage.gate.open();
        soon("an append", core.append("y")).await.unwrap();
        let reads = storage.gate.reads.load(Ordering::Relaxed) - before;
        assert!(reads < 2000, "{reads} of 3000 blocks were read");
    });
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

/// The last pages of such a clone have no bits, and still say something about those before.
#[test]
fn what_is_not_here_costs_nothing() {
    let key_pair = key_pair("damage");
    let proof = proof_of(0, &key_pair, 36);
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
