//! Power is lost while a log is created: it is there afterwards, or it never was.

use futures_lite::future::block_on;
use hypercore::{
    Error, Hypercore, KeyPair, OpenOptions,
    storage::{
        FileName, Memory,
        testing::{Fault, FaultStorage},
    },
};

fn pair() -> KeyPair {
    KeyPair::from_seed(&[7; 32])
}

/// How much of what was not durable each cut takes.
const SEEDS: u64 = 300;

/// What power cuts at all operations of a creation with `options` leave, a third of them after a second
/// cut in the creation that followed the first.
fn cuts(options: impl Fn() -> OpenOptions, mut check: impl FnMut(FaultStorage, bool)) {
    for count in 0.. {
        let first = FaultStorage::new();
        first.fail_from(count, Fault::Io);
        let created = block_on(options().open_storage(first.clone())).is_ok();
        for seed in 0..SEEDS {
            let mut storage = FaultStorage::from_image(&first.power_cut(seed));
            let mut must_be_there = created;
            if seed % 3 == 0 {
                storage.fail_from(seed / 3 % 40, Fault::Io);
                must_be_there |= block_on(options().open_storage(storage.clone())).is_ok();
                storage = FaultStorage::from_image(&storage.power_cut(seed));
            }
            check(storage, must_be_there);
        }
        if created {
            println!("{} cuts", SEEDS * (count + 1));
            return;
        }
    }
}

#[test]
fn a_creation_without_power_never_was_or_is_finished() {
    let (mut gone, mut zeros) = (0, 0);
    cuts(Hypercore::options, |storage, must_be_there| {
        let secret = storage.image().read(FileName::SecretKey);
        let missing = Hypercore::options().create_if_missing(false);
        let found = match block_on(missing.open_storage(storage.clone())) {
            Ok(core) => Some(core.key()),
            Err(Error::NoCore) => None,
            Err(error) => panic!("{error}"),
        };
        assert!(found.is_some() || !must_be_there);
        if found.is_none() {
            gone += 1;
            let verified = block_on(Hypercore::verify_storage(storage.image()));
            assert!(matches!(verified, Err(Error::NoCore)), "{verified:?}");
        }
        zeros += u64::from(secret == [0; 64]);
        block_on(async {
            let core = Hypercore::options().open_storage(storage.clone());
            let core = core.await.unwrap();
            assert!(core.is_writable(), "{:?}", core.recovery());
            assert!(found.is_none_or(|key| key == core.key()));
            assert_eq!(core.append("first").await.unwrap(), 0);
            core.close().await.unwrap();
            let report = Hypercore::verify_storage(storage.image()).await.unwrap();
            assert!(report.is_ok(), "{report:?}");
        });
    });
    assert!(gone > 100 && zeros > 0, "{gone} gone, {zeros} zeros");
}

#[test]
fn a_creation_without_power_is_made_again_with_the_same_keys() {
    let writer = || Hypercore::options().key_pair(pair());
    cuts(writer, |storage, _| {
        let core = block_on(writer().open_storage(storage)).unwrap();
        assert!(core.is_writable(), "{:?}", core.recovery());
    });
    let reader = || Hypercore::options().key(pair().public_key());
    cuts(reader, |storage, _| {
        let core = block_on(reader().open_storage(storage)).unwrap();
        assert_eq!(
            (core.key(), core.is_writable()),
            (pair().public_key(), false)
        );
    });
}

/// Headers that a creation could not sync became content without a header: the empty log was not opened.
#[test]
fn headers_that_a_creation_did_not_sync_are_synced_before_the_first_block() {
    let open = |disk: &FaultStorage| {
        let options = Hypercore::options().key_pair(pair());
        block_on(options.open_storage(disk.clone()))
    };
    let mut failed = 0;
    for sync in 0..40 {
        for operation in 0..50 {
            let disk = FaultStorage::new();
            disk.fail_at(sync, Fault::Sync);
            failed += u64::from(open(&disk).is_err());
            disk.heal();
            let core = open(&disk).unwrap();
            disk.fail_from(operation, Fault::Io);
            let appended = block_on(core.append("first")).is_ok();
            drop(core);
            for seed in 0..10 {
                let core = open(&FaultStorage::from_image(&disk.power_cut(seed))).unwrap();
                assert!(core.length() >= u64::from(appended));
                assert!(core.is_writable(), "{:?}", core.recovery());
            }
            if appended {
                break;
            }
        }
    }
    assert!(failed > 100, "{failed} creations failed");
}

/// A log of 130 appends, each with a signature, that was closed.
fn other_log() -> Memory {
    let storage = FaultStorage::new();
    block_on(async {
        let core = Hypercore::options().key_pair(pair());
        let core = core.open_storage(storage.clone()).await.unwrap();
        for index in 0..130 {
            core.append(format!("block {index}")).await.unwrap();
        }
        core.close().await.unwrap();
    });
    storage.image()
}

/// What was left of the other mixed with the new one: the log was damaged, or locked, for ever.
#[test]
fn a_log_that_takes_the_place_of_another_is_whole_or_the_other_is() {
    let old = other_log();
    for destroys in [false, true] {
        let replace = async |storage: FaultStorage| {
            if destroys {
                let core = Hypercore::options().open_storage(storage).await?;
                core.destroy().await
            } else {
                let options = Hypercore::options().overwrite();
                options.open_storage(storage).await.map(drop)
            }
        };
        let (mut before, mut after) = (0, 0);
        for count in 0.. {
            let storage = FaultStorage::from_image(&old);
            storage.fail_from(count, Fault::Io);
            let replaced = block_on(replace(storage.clone())).is_ok();
            for seed in 0..20 {
                let left = if seed == 0 {
                    storage.image()
                } else {
                    storage.power_cut(seed)
                };
                let secret = left.read(FileName::SecretKey);
                let shown = format!("{destroys} {count} {seed}, {} bytes", secret.len());
                let left = FaultStorage::from_image(&left);
                let core = block_on(Hypercore::options().open_storage(left));
                let core = core.unwrap_or_else(|error| panic!("{shown}: {error}"));
                assert_eq!(core.append_lock(), None, "{shown}");
                assert!(core.is_writable(), "{shown}: {:?}", core.recovery());
                let is_old = core.key() == pair().public_key();
                assert_eq!(core.length(), if is_old { 130 } else { 0 }, "{shown}");
                assert!(!is_old || !replaced, "{shown}");
                *(if is_old { &mut before } else { &mut after }) += 1;
                block_on(core.append("next")).unwrap();
            }
            if replaced {
                break;
            }
        }
        assert!(before > 20 && after > 20, "{before} before, {after} after");
    }
}

/// Nobody could open a clone with a false secret key.
#[test]
fn nothing_is_left_of_a_creation_in_the_log_that_follows() {
    block_on(async {
        let memory = Memory::new();
        memory.write(FileName::SecretKey, &[0; 64]);
        let clone = Hypercore::options().key(pair().public_key());
        let clone = clone.open_storage(memory.clone()).await.unwrap();
        clone.close().await.unwrap();
        let clone = Hypercore::options().open_storage(memory).await.unwrap();
        assert_eq!(
            (clone.key(), clone.is_writable()),
            (pair().public_key(), false)
        );
    });
}

/// With a header the keys were durable: what is there now is damage, and nothing is written over it.
#[test]
fn keys_of_a_log_that_was_there_are_not_replaced() {
    for blocks in 0..2 {
        block_on(async {
            let storage = FaultStorage::new();
            let core = Hypercore::options().open_storage(storage.clone());
            let core = core.await.unwrap();
            core.append_batch(vec!["a"; blocks]).await.unwrap();
            core.close().await.unwrap();
            let image = storage.image();
            image.write(FileName::SecretKey, &[0; 64]);
            // Also where a loss of power has left no more of the bitfield than its name.
            for _ in 0..2 {
                let before = FileName::ALL.map(|file| image.read(file));
                for options in [Hypercore::options(), Hypercore::options().key_pair(pair())] {
                    let error = options.open_storage(image.clone()).await.unwrap_err();
                    let is_told = error.is_corruption() || matches!(error, Error::OtherCore { .. });
                    assert!(is_told, "{error}");
                    assert_eq!(FileName::ALL.map(|file| image.read(file)), before);
                }
                image.write(FileName::Bitfield, &[]);
            }
        });
    }
}
