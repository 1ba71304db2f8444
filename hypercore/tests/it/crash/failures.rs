//! The disk fails, and the program goes on as if nothing was.

use std::sync::atomic::{AtomicU64, Ordering};

use futures_lite::future::block_on;
use hypercore::{
    Durability, Hypercore,
    storage::{
        FileName,
        testing::{Fault, FaultStorage},
    },
};

use super::{
    Random, first_failure,
    writer::{Crash, Oracle, append_or_clear, open},
};
use crate::support::key_pair;

/// About 40 steps, which are some 200 operations of the storage.
async fn script(core: &Hypercore, oracle: &mut Oracle) -> usize {
    let mut random = Random(4);
    let mut failed = 0;
    for _ in 0..28 {
        failed += usize::from(append_or_clear(&mut random, core, oracle).await.is_err());
    }
    failed + usize::from(core.close().await.is_err())
}

/// One operation fails, or it and all after it; the program goes on as if nothing was. What was
/// acknowledged is there when the log is opened on a good disk.
#[test]
fn no_failure_of_the_disk_loses_anything_acknowledged() {
    let count = {
        let storage = FaultStorage::new();
        let core = block_on(open(&storage, Durability::Always)).unwrap();
        let before = storage.operations();
        assert_eq!(
            block_on(script(&core, &mut Oracle::new(Durability::Always))),
            0
        );
        storage.operations() - before
    };
    assert!(count >= 200, "{count} operations");
    let faults = [Fault::Io, Fault::Full, Fault::Short, Fault::Sync];
    let seen = AtomicU64::new(0);
    let failed = first_failure(0..count * 8, |run| {
        let fault = faults[run as usize % 4];
        let storage = FaultStorage::new();
        block_on(async {
            let core = open(&storage, Durability::Always).await.unwrap();
            if run / 4 % 2 == 0 {
                storage.fail_at(run / 8, fault);
            } else {
                storage.fail_from(run / 8, fault);
            }
            let mut oracle = Oracle::new(Durability::Always);
            let failed = script(&core, &mut oracle).await;
            seen.fetch_add(u64::from(failed > 0), Ordering::Relaxed);
            drop(core);
            let storage = FaultStorage::from_image(&storage.image());
            let core = open(&storage, Durability::Always).await.unwrap();
            oracle.check(&core, Crash::Process).await;
            assert!(core.is_writable(), "{:?}", core.recovery());
            oracle.append(&core, vec![vec![1].into()]).await.unwrap();
            oracle.check(&core, Crash::Process).await;
        });
    });
    assert_eq!(failed, None);
    let seen = seen.into_inner();
    println!(
        "{} runs of {count} operations, {seen} with a failed call",
        count * 8
    );
    assert!(seen > count);
}

/// Killed in the middle of an append on a full disk, and opened there again.
#[test]
fn what_is_here_can_be_read_where_nothing_can_be_written() {
    block_on(async {
        let storage = FaultStorage::new();
        let core = open(&storage, Durability::Always).await.unwrap();
        core.append_batch(["a", "b"]).await.unwrap();
        let image = storage.image();
        image.write(
            FileName::Data,
            &[&image.read(FileName::Data)[..], b"torn"].concat(),
        );
        let storage = FaultStorage::from_image(&image);
        storage.fail_from(0, Fault::Full);
        for _ in 0..3 {
            let core = open(&storage, Durability::Always).await.unwrap();
            assert_eq!(core.length(), 2);
            assert_eq!(core.get(1).await.unwrap(), "b");
            assert!(!core.is_writable());
            core.append("c").await.unwrap_err();
            core.close().await.unwrap();
        }
        storage.heal();
        let core = open(&storage, Durability::Always).await.unwrap();
        assert_eq!(core.recovery().unwrap().dropped_bytes, 4);
        assert_eq!(core.append("c").await.unwrap(), 2);
    });
}

/// What an append left that failed took the room that was needed to open the log again.
#[test]
fn an_append_that_fails_gives_its_room_back() {
    block_on(async {
        let storage = FaultStorage::new();
        let core = open(&storage, Durability::Always).await.unwrap();
        core.append_batch(["a", "b"]).await.unwrap();
        let before = storage.image();
        for operation in 0..20 {
            storage.fail_at(operation, Fault::Full);
            let failed = core.append("c").await;
            storage.heal();
            let after = storage.image();
            if failed.is_ok() {
                assert!(operation > 2, "nothing was written");
                return;
            }
            for file in [FileName::Data, FileName::Tree] {
                assert_eq!(after.read(file), before.read(file), "operation {operation}");
            }
        }
        panic!("it fails at every operation");
    });
}

/// The note of the log that stood there before came back, and locked the new one.
#[test]
fn a_log_in_the_place_of_another_is_not_locked_by_a_loss_of_power() {
    block_on(async {
        let storage = FaultStorage::new();
        let options = || Hypercore::options().key_pair(key_pair("twice"));
        let core = options().open_storage(storage.clone()).await.unwrap();
        core.append_batch(["a", "b", "c"]).await.unwrap();
        core.close().await.unwrap();
        let core = options().overwrite().open_storage(storage.clone()).await;
        let core = core.unwrap();
        core.append("a").await.unwrap();
        for seed in 0..50 {
            let found = FaultStorage::from_image(&storage.power_cut(seed));
            let found = options().open_storage(found).await.unwrap();
            assert_eq!(found.append_lock(), None, "seed {seed}");
        }
    });
}

/// What an opening finds: the blocks that are here, or that the log is damaged.
async fn found(core: &Hypercore) -> (u64, Vec<u64>, bool) {
    let here = (0..core.length()).filter(|&block| core.has(block));
    (core.length(), here.collect(), core.is_writable())
}

/// Every operation of an opening fails once, in every way, and the log is opened again: on that disk,
/// and on what a loss of power leaves of it. Nothing is worse than without the failure.
#[test]
fn no_failure_while_a_log_is_opened_makes_it_worse() {
    let faults = [Fault::Io, Fault::Full, Fault::Short, Fault::Sync];
    let openings = AtomicU64::new(0);
    let failed = first_failure(0..40, |seed| {
        let level = match seed % 4 {
            0 => Durability::Interop,
            1 => Durability::OnClose,
            _ => Durability::Always,
        };
        block_on(async {
            let disk = FaultStorage::new();
            let core = open(&disk, level).await.unwrap();
            let mut oracle = Oracle::new(level);
            let mut random = Random(seed);
            for _ in 0..6 {
                append_or_clear(&mut random, &core, &mut oracle)
                    .await
                    .unwrap();
            }
            disk.fail_from(random.below(12), Fault::Io);
            while append_or_clear(&mut random, &core, &mut oracle)
                .await
                .is_ok()
            {}
            let image = match seed % 3 {
                0 => disk.image(),
                _ => disk.power_cut(seed),
            };
            let storage = FaultStorage::from_image(&image);
            let core = open(&storage, level).await.unwrap();
            let expected = found(&core).await;
            assert!(expected.2, "{:?}", core.recovery());
            drop(core);
            let operations = storage.operations();
            for operation in 0..operations {
                for fault in faults {
                    let storage = FaultStorage::from_image(&image);
                    storage.fail_at(operation, fault);
                    let opened = open(&storage, level).await;
                    if let Ok(core) = &opened {
                        assert_eq!(found(core).await.1, expected.1);
                    }
                    drop(opened);
                    storage.heal();
                    let cut = FaultStorage::from_image(&storage.power_cut(operation));
                    for storage in [storage, cut] {
                        let case = format!("operation {operation}, {fault:?}");
                        let core = open(&storage, level).await.expect(&case);
                        assert_eq!(
                            found(&core).await,
                            expected,
                            "{case}: {:?}",
                            core.recovery()
                        );
                        openings.fetch_add(1, Ordering::Relaxed);
                    }
                }
            }
        });
    });
    assert_eq!(failed, None);
    println!("{} openings", openings.into_inner());
}
