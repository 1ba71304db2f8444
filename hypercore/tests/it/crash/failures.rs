//! The disk fails, and the program goes on as if nothing was.

use std::sync::atomic::{AtomicU64, Ordering};

use futures_lite::future::block_on;
use hypercore::{
    Durability, Hypercore,
    storage::testing::{Fault, FaultStorage},
};

use super::{
    Random, first_failure,
    writer::{Crash, Oracle, append_or_clear, open},
};

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
