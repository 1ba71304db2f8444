//! A key pair that comes from elsewhere: nothing is appended until all is here that was signed there.

use futures_lite::future::block_on;
use hypercore::{
    AppendLock, Corruption, Error, Event, Hypercore, OpenOptions, ReplicateOptions, UpdateOptions,
    storage::{
        Memory,
        testing::{Fault, FaultStorage},
    },
};

use crate::support::{
    connect, connect_live, connected, disconnected, event, key_pair, live_download, run, soon,
};

/// How the program of the import opens a core of which `signed` blocks were signed elsewhere.
fn import(signed: u64) -> OpenOptions {
    let options = Hypercore::options().key_pair(key_pair("imported"));
    options.signed_elsewhere(signed)
}

async fn original(blocks: u64) -> Hypercore {
    let core = Hypercore::options().key_pair(key_pair("imported"));
    let core = core.open_memory().await.unwrap();
    for index in 0..blocks {
        core.append(format!("block {index}")).await.unwrap();
    }
    core
}

/// The storage of a clone of the original with all its blocks.
async fn clone_of(original: &Hypercore) -> FaultStorage {
    let storage = FaultStorage::new();
    let clone = Hypercore::options().key(original.key());
    let clone = clone.open_storage(storage.clone()).await.unwrap();
    for index in 0..original.length() {
        let proof = original.proof(index).await.unwrap().unwrap();
        let block = original.get(index).await.unwrap();
        clone.put(index, Some(block), &proof).await.unwrap();
    }
    clone.close().await.unwrap();
    storage
}

async fn is_writable(image: &Memory) -> bool {
    let storage = FaultStorage::from_image(image);
    let options = Hypercore::options().key(key_pair("imported").public_key());
    match options.open_storage(storage).await {
        Ok(core) => core.is_writable(),
        // Half a key signs nothing.
        Err(Error::Corrupt(Corruption::SecretKey)) => false,
        Err(error) => panic!("{error}"),
    }
}

/// Killed or without power after any operation, an import leaves a clone or a locked core.
#[test]
fn an_import_that_is_cut_short_is_never_unlocked() {
    block_on(async {
        for blocks in [0, 3] {
            let original = original(blocks).await;
            let clone = clone_of(&original).await.image();
            let mut operation = 0;
            loop {
                let storage = FaultStorage::from_image(&clone);
                storage.fail_from(operation, Fault::Io);
                let done = import(blocks).open_storage(storage.clone()).await.is_ok();
                assert!(
                    !is_writable(&storage.image()).await,
                    "operation {operation}"
                );
                for seed in 0..30 {
                    let image = storage.power_cut(seed);
                    assert!(
                        !is_writable(&image).await,
                        "operation {operation}, seed {seed}"
                    );
                }
                if done {
                    break;
                }
                operation += 1;
            }
            assert!(operation > 5, "{operation} operations");
        }
    });
}

#[test]
fn an_import_goes_on_when_all_is_here_that_was_signed() {
    run(async {
        let original = original(5).await;
        // The clone has all that was signed, or less, or nothing; or the original has gone on since.
        for (blocks, signed) in [(3, 5), (0, 5), (3, 4), (5, 5)] {
            let storage = clone_of(&self::original(blocks).await).await;
            let core = import(signed).open_storage(storage.clone()).await.unwrap();
            assert_eq!(core.append_lock(), Some(AppendLock::Copied));
            core.close().await.unwrap();
            // It is remembered.
            let core = Hypercore::options().open_storage(storage.clone()).await;
            let core = core.unwrap();
            assert!(matches!(
                core.append("x").await,
                Err(Error::AppendLocked(_))
            ));
            let _connection =
                connect(&core, live_download(), &original, ReplicateOptions::live()).await;
            connected(&core, 1).await;
            assert_eq!(soon("its own blocks", core.resume()).await.unwrap(), 5);
            // Nothing locks it again, also not a loss of power.
            let core = Hypercore::options();
            let left = FaultStorage::from_image(&storage.power_cut(signed));
            let core = core.open_storage(left).await.unwrap();
            assert_eq!(core.append("block 5").await.unwrap(), 5);
        }
    });
}

/// It was neither asked for nor given up.
#[test]
fn a_locked_log_is_told_that_a_longer_one_is_not_to_be_had() {
    run(async {
        let original = original(5).await;
        let storage = clone_of(&self::original(3).await).await;
        let core = import(5).open_storage(storage).await.unwrap();
        let _connection =
            connect(&core, live_download(), &original, ReplicateOptions::live()).await;
        connected(&core, 1).await;
        for min_length in [5, 4] {
            let options = UpdateOptions::default()
                .min_length(min_length)
                .if_available(true);
            let updated = soon("an answer", core.update_with(options)).await;
            assert!(matches!(updated, Err(Error::NotAvailable)), "{updated:?}");
        }
    });
}

#[test]
fn an_import_does_not_go_on_with_less_than_was_signed() {
    run(async {
        let original = original(5).await;
        for blocks in [0, 3, 5] {
            let storage = clone_of(&self::original(blocks).await).await;
            let core = import(6).open_storage(storage).await.unwrap();
            let _connection =
                connect(&core, live_download(), &original, ReplicateOptions::live()).await;
            connected(&core, 1).await;
            let resumed = soon("an answer", core.resume()).await;
            let shorter = AppendLock::Shorter {
                length: 5,
                signed: 6,
            };
            assert!(
                matches!(&resumed, Err(Error::AppendLocked(lock)) if *lock == shorter),
                "{resumed:?}"
            );
            assert!(!core.is_writable());
            core.accept_fork_risk().await.unwrap();
            assert_eq!(core.append("block 5").await.unwrap(), 5);
        }
    });
}

/// Opened again as it was imported, it forgot what it had been shown since.
#[test]
fn what_an_imported_log_was_shown_stays_noted() {
    run(async {
        let original = original(5).await;
        let storage = clone_of(&self::original(3).await).await;
        let options = || import(2).store_secret_key(false);
        let core = options().open_storage(storage.clone()).await.unwrap();
        let mut events = core.events();
        let connection = connect_live(&core, &original).await;
        event(&mut events, |event| {
            *event == Event::Behind { ours: 3, theirs: 5 }
        })
        .await;
        connection.cancel().await;
        disconnected(&core).await;
        core.close().await.unwrap();

        let core = options().open_storage(storage).await.unwrap();
        let other = self::original(4).await;
        let _connection = connect(&core, live_download(), &other, ReplicateOptions::live()).await;
        connected(&core, 1).await;
        let resumed = soon("an answer", core.resume()).await;
        assert!(
            matches!(
                resumed,
                Err(Error::AppendLocked(AppendLock::Shorter { signed: 5, .. }))
            ),
            "{resumed:?}"
        );
    });
}
