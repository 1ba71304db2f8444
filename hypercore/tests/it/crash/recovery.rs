//! What is done about a log that was not closed, step by step.

use std::{
    fs::{self, OpenOptions},
    io::Write,
    path::Path,
    time::Duration,
};

use hypercore::{
    Corruption, Durability, Hypercore,
    storage::{
        FileName, Memory,
        testing::{Fault, FaultStorage},
    },
};

use super::{assert_verifies, writer::open};
use crate::support::{contents, eventually, run};

/// A closed log of ten blocks that were appended one by one.
async fn ten_blocks(directory: &Path) {
    let core = Hypercore::open(directory).await.unwrap();
    for index in 0..10 {
        core.append(format!("block {index}")).await.unwrap();
    }
    core.close().await.unwrap();
}

#[test]
fn an_unfinished_append_is_set_aside() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    run(async {
        ten_blocks(path).await;
        let before = contents(path);
        for (file, bytes) in [("data", &b"left over"[..]), ("signatures", &[7; 64])] {
            let mut file = OpenOptions::new()
                .append(true)
                .open(path.join(file))
                .unwrap();
            file.write_all(bytes).unwrap();
        }
        let core = Hypercore::open(path).await.unwrap();
        let found = core.recovery().unwrap();
        assert_eq!(
            (found.length, found.checkpoint, found.recovered),
            (10, 10, 0)
        );
        assert_eq!((found.dropped_bytes, found.damage), (9 + 64, None));
        core.close().await.unwrap();

        let mut after = contents(path);
        let quarantine = after.remove("quarantine-0").unwrap();
        let expected = [
            &b"data 70 9\nleft over"[..],
            b"signatures 672 64\n",
            &[7; 64],
        ]
        .concat();
        assert_eq!(quarantine, expected);
        assert!(after == before);
        let core = Hypercore::open(path).await.unwrap();
        assert_eq!(core.recovery(), None);
    });
}

/// As after a loss of power: the bitfield is all that was not synced.
#[test]
fn blocks_are_found_without_the_bitfield() {
    let directory = tempfile::tempdir().unwrap();
    run(async {
        ten_blocks(directory.path()).await;
        fs::remove_file(directory.path().join("bitfield")).unwrap();
        let core = Hypercore::open(directory.path()).await.unwrap();
        let found = core.recovery().unwrap();
        assert_eq!(
            (found.length, found.checkpoint, found.recovered),
            (10, 0, 10)
        );
        assert_eq!(core.audit().await.unwrap().valid, 10);
        assert_eq!(core.append("more").await.unwrap(), 10);
    });
}

/// With a block damaged in the middle and no bitfield, six signed blocks would be cut off.
#[test]
fn what_was_acknowledged_is_not_cut_off() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    run(async {
        ten_blocks(path).await;
        let mut data = fs::read(path.join("data")).unwrap();
        data[7 * 4] ^= 1;
        fs::write(path.join("data"), data).unwrap();
        fs::write(path.join("bitfield"), []).unwrap();
        let before = contents(path);
        let core = Hypercore::open(path).await.unwrap();
        let damage = core.recovery().unwrap().damage;
        assert_eq!(damage, Some(Corruption::Block { index: 4 }));
        assert!(!core.is_writable());
        assert!(core.append("no").await.unwrap_err().is_corruption());
        core.close().await.unwrap();
        assert!(contents(path) == before);
    });
}

/// Also what rots after it was read once.
#[test]
fn a_block_is_hashed_whenever_it_is_read() {
    run(async {
        let memory = Memory::new();
        let core = Hypercore::options().open_storage(memory.clone());
        let core = core.await.unwrap();
        let blocks = [vec![1; 512], vec![2; 512], b"small".to_vec()];
        core.append_batch(blocks.clone()).await.unwrap();
        for _ in 0..2 {
            assert_eq!(core.get_batch(0..3).await.unwrap(), blocks);
            assert_eq!(core.get(0).await.unwrap(), blocks[0]);
        }
        let rotten = [vec![3; 512], vec![4; 512], b"SMALL".to_vec()];
        memory.write(FileName::Data, &rotten.concat());
        for index in 0..3 {
            assert!(core.get(index).await.unwrap_err().is_corruption());
        }
        assert!(core.get_batch(0..3).await.unwrap_err().is_corruption());
        assert_eq!(core.audit().await.unwrap().invalid, [0, 1, 2]);
    });
}

/// As after a kill of an append that had just made room for its bits. The index of the new page
/// would speak of the pages before it.
#[test]
fn a_page_that_was_only_made_room_for_is_no_damage() {
    run(async {
        let memory = Memory::new();
        let core = Hypercore::options().open_storage(memory.clone());
        let core = core.await.unwrap();
        let blocks = std::iter::repeat_n(&b""[..], 3 * 8192);
        core.append_batch(blocks).await.unwrap();
        core.close().await.unwrap();
        let bitfield = memory.read(FileName::Bitfield);
        memory.write(FileName::Bitfield, &[&bitfield[..], &[0; 3584]].concat());
        let report = Hypercore::verify_storage(memory).await.unwrap();
        assert!(report.is_ok(), "{report:?}");
    });
}

/// The page that speaks of the first blocks is not synced yet when a later append fails and the
/// power goes: nothing but the mark says that it may be torn.
#[test]
fn a_failed_append_leaves_the_log_open() {
    run(async {
        for operation in 0..4 {
            let storage = FaultStorage::new();
            let core = open(&storage, Durability::Always).await.unwrap();
            let blocks = (0..40).map(|block| vec![block]);
            core.append_batch(blocks).await.unwrap();
            storage.fail_at(operation, Fault::Full);
            let failed = core.append("too much").await;
            assert!(failed.is_err() || operation > 2, "operation {operation}");
            for seed in 0..200 {
                let left = FaultStorage::from_image(&storage.power_cut(seed));
                let core = open(&left, Durability::Always).await.unwrap();
                assert!(core.has_all(0..40), "operation {operation}, seed {seed}");
            }
        }
    });
}

/// A batch that was to go beyond a page of the bitfield had made room for the next page, and for its
/// nodes, when the power went: whatever that page shows then claims nothing.
#[test]
fn room_for_the_next_page_claims_nothing() {
    run(async {
        for noise in 1..20_u8 {
            let memory = Memory::new();
            let open = || Hypercore::options().open_storage(memory.clone());
            let core = open().await.unwrap();
            let blocks = std::iter::repeat_n(&b"x"[..], 8184);
            core.append_batch(blocks).await.unwrap();
            core.close().await.unwrap();
            for (file, grown) in [(FileName::Bitfield, noise), (FileName::Tree, 0)] {
                let bytes = memory.read(file);
                memory.write(file, &[&bytes[..], &[grown; 3584]].concat());
            }
            let core = open().await.unwrap();
            assert!(core.is_writable(), "{noise}: {:?}", core.recovery());
            assert_eq!(core.append("y").await.unwrap(), 8184);
            assert!(core.verify().await.unwrap().is_ok(), "{noise}");
        }
    });
}

/// More than can be unsynced of a log at another level, in a batch so that few signatures are checked.
async fn append_many(core: &Hypercore) {
    let blocks = (0..1500_u32).map(|block| block.to_le_bytes().to_vec());
    core.append_batch(blocks).await.unwrap();
    for byte in 0..20 {
        core.append(vec![byte]).await.unwrap();
    }
}

/// Opens what a loss of power leaves, which is no shorter than that and lacks no block.
async fn assert_lacks_nothing(storage: &FaultStorage, least: u64, seeds: u64) {
    for seed in 0..seeds {
        let left = FaultStorage::from_image(&storage.power_cut(seed));
        let core = open(&left, Durability::Always).await.unwrap();
        let length = core.length();
        assert!(
            length >= least && core.has_all(0..length),
            "seed {seed}, {length} blocks"
        );
        assert_verifies(&left).await;
    }
}

/// The bits of the blocks lie in another sector than those of their nodes, and none was ever synced.
#[test]
fn a_torn_page_takes_no_block_that_was_durable_for_long() {
    run(async {
        let storage = FaultStorage::new();
        let interval = Durability::Interval(Duration::from_millis(100));
        let core = open(&storage, interval).await.unwrap();
        append_many(&core).await;
        let all_are_durable = async || {
            let left = FaultStorage::from_image(&storage.power_cut(0));
            let left = open(&left, Durability::Always).await.unwrap();
            left.length() == core.length()
        };
        eventually("the sync", all_are_durable).await;
        assert!(storage.unsynced_changes() > 0, "no page is left to be torn");
        assert_lacks_nothing(&storage, core.length(), 200).await;
    });
}

/// A flush writes the bits of any number of blocks before it syncs them.
#[test]
fn a_torn_page_of_a_flush_takes_no_block() {
    run(async {
        for operation in 0..12 {
            let storage = FaultStorage::new();
            let core = open(&storage, Durability::OnClose).await.unwrap();
            append_many(&core).await;
            storage.fail_from(operation, Fault::Io);
            let _ = core.flush().await;
            assert_lacks_nothing(&storage, 0, 20).await;
        }
    });
}

/// Nodes that were lost in a failed sync would be claimed otherwise, by the next write.
#[test]
fn a_torn_page_stays_torn_where_a_sync_fails() {
    run(async {
        let storage = FaultStorage::new();
        let core = open(&storage, Durability::Always).await.unwrap();
        core.append_batch(["a", "b", "c"]).await.unwrap();
        core.close().await.unwrap();
        let image = storage.image();
        let mut torn = image.read(FileName::Bitfield);
        *torn.last_mut().unwrap() ^= 1;
        image.write(FileName::Bitfield, &torn);
        let storage = FaultStorage::from_image(&image);
        storage.fail_at(0, Fault::Sync);
        let opened = open(&storage, Durability::Always).await;
        if let Ok(core) = &opened {
            let _ = core.append("d").await;
        }
        assert!(storage.image().read(FileName::Bitfield) == torn);
        assert!(opened.is_err());

        let core = open(&storage, Durability::Always).await.unwrap();
        core.append("d").await.unwrap();
        core.close().await.unwrap();
        assert_verifies(&storage).await;
    });
}
