//! Blocks that were cleared, or never here, are no damage.

use std::{ops::Range, sync::Arc};

use hypercore::{
    Durability, Hypercore,
    storage::{
        FeedFiles, FileName, Memory,
        testing::{Fault, FaultStorage, Recording},
    },
};

use super::{assert_verifies, elsewhere::clone_with, writer::open};
use crate::support::run;

/// Leaves 0 and 1 are known, and block 1 is not here: that is where the log seems to end.
#[test]
fn a_block_that_was_never_here_is_no_damage() {
    run(async {
        let storage = clone_with("crash", 8, &[0]).await;
        let core = open(&storage, Durability::Always).await.unwrap();
        assert_eq!(core.append("more").await.unwrap(), 8);
        let left = FaultStorage::from_image(&storage.image());
        let core = open(&left, Durability::Always).await.unwrap();
        assert_eq!(core.recovery().unwrap().damage, None);
        assert_eq!(core.length(), 9);
        let here: Vec<_> = (0..9).filter(|&block| core.has(block)).collect();
        assert_eq!(here, [0, 8]);
        assert_eq!(core.append("and more").await.unwrap(), 9);
        assert_verifies(&left).await;
    });
}

/// A log of ten blocks, of which the blocks from 5 on were to be cut when the disk failed.
async fn cut_short(cleared: Range<u64>, operation: u64) -> Option<FaultStorage> {
    let storage = FaultStorage::new();
    let core = open(&storage, Durability::Always).await.unwrap();
    for byte in 0..10 {
        core.append(vec![byte; 4]).await.unwrap();
    }
    core.clear(cleared).await.unwrap();
    storage.fail_from(operation, Fault::Io);
    let truncated = core.truncate(5).await;
    truncated.is_err().then_some(storage)
}

async fn assert_goes_on(image: &Memory, cleared: &Range<u64>, repaired: bool, case: &str) {
    let left = FaultStorage::from_image(image);
    if repaired {
        let repair = Hypercore::repair_storage(left.clone()).await.unwrap();
        assert!(repair.remaining.is_ok(), "{case}: {repair:?}");
    }
    let core = open(&left, Durability::Always).await.unwrap();
    assert!(core.is_writable(), "{case}: {:?}", core.recovery());
    let length = core.length();
    assert!((5..=10).contains(&length), "{case}: {length}");
    for block in (0..length).filter(|block| !cleared.contains(block)) {
        let found = core.get(block).await.unwrap();
        assert_eq!(found, vec![block as u8; 4], "{case}");
    }
    assert_eq!(core.append("more").await.unwrap(), length);
    assert_verifies(&left).await;
}

/// Some of its blocks are left, or all, and none that was not to be cut is lost.
#[test]
fn a_truncation_that_is_cut_short_is_no_damage() {
    run(async {
        for cleared in [7..8, 8..10, 4..7] {
            let mut operation = 0;
            while let Some(storage) = cut_short(cleared.clone(), operation).await {
                for repaired in [false, true] {
                    let case = format!("{cleared:?}, {operation}, repaired: {repaired}");
                    assert_goes_on(&storage.image(), &cleared, repaired, &case).await;
                    for seed in 0..6 {
                        let case = format!("{case}, seed {seed}");
                        let image = storage.power_cut(seed);
                        assert_goes_on(&image, &cleared, repaired, &case).await;
                    }
                }
                operation += 1;
            }
            assert!(operation > 8, "{operation}");
        }
    });
}

/// Of a log whose old blocks are cleared, all of them were read after a kill, hole or not.
#[test]
fn what_was_cleared_is_not_read_again() {
    run(async {
        let memory = Memory::new();
        let options = || Hypercore::options().durability(Durability::OnClose);
        let core = options().open_storage(memory.clone()).await.unwrap();
        for byte in 0..64 {
            core.append(vec![byte; 64 * 1024]).await.unwrap();
        }
        core.append(vec![0; 64 * 1024]).await.unwrap();
        core.clear(1..64).await.unwrap();
        core.close().await.unwrap();
        // As a kill leaves it.
        let files = FeedFiles::open(Arc::new(memory.clone())).unwrap();
        files.mark_open(65).unwrap();
        drop(files);

        let storage = Recording::new(memory);
        let core = options().open_storage(storage.clone()).await.unwrap();
        assert!(core.recovery().is_some());
        let read = storage.take(FileName::Data).bytes_read;
        assert!(read < 4 * 64 * 1024, "{read} bytes");
        let here: Vec<_> = (0..65).filter(|&block| core.has(block)).collect();
        assert_eq!(here, [0, 64]);
        assert_eq!(core.get(64).await.unwrap(), vec![0; 64 * 1024]);
    });
}
