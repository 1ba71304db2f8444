//! A log is opened as it was written, whatever the level of durability is then.

use hypercore::{
    Corruption, Durability, Error, Hypercore,
    storage::{
        FileName, Memory, Storage,
        testing::{Fault, FaultStorage},
    },
};

use super::writer::open;
use crate::support::run;

const GUARD: &str = "fork-guard";

async fn append_some(core: &Hypercore, count: u8) {
    for byte in 0..count {
        core.append(vec![byte; 4]).await.unwrap();
    }
}

/// The storage with block 4 damaged and no bitfield, so that what follows it would be cut off.
fn damaged(storage: &FaultStorage) -> FaultStorage {
    let image = storage.image();
    let mut data = image.read(FileName::Data);
    data[4 * 4] ^= 1;
    image.write(FileName::Data, &data);
    image.write(FileName::Bitfield, &[]);
    FaultStorage::from_image(&image)
}

/// Opens a [`damaged`] log, in which all was durable.
async fn assert_not_cut(storage: &FaultStorage, durability: Durability) {
    let storage = damaged(storage);
    let before = FileName::ALL.map(|file| storage.image().read(file));
    let core = open(&storage, durability).await.unwrap();
    let damage = core.recovery().unwrap().damage;
    assert_eq!(damage, Some(Corruption::Block { index: 4 }));
    core.close().await.unwrap();
    assert!(before == FileName::ALL.map(|file| storage.image().read(file)));
}

async fn assert_cut(storage: &FaultStorage, durability: Durability) {
    let core = open(&damaged(storage), durability).await.unwrap();
    assert_eq!(core.recovery().unwrap().damage, None);
    assert_eq!(core.length(), 4);
}

/// What the file beside the log holds.
fn noted(storage: &FaultStorage) -> [u8; 1024] {
    let mut bytes = [0; 1024];
    let file = storage.beside(GUARD).unwrap().unwrap();
    file.read_at(0, &mut bytes).unwrap();
    bytes
}

#[test]
fn what_nobody_waited_for_is_missing_and_not_damaged() {
    run(async {
        let storage = FaultStorage::new();
        let core = open(&storage, Durability::OnClose).await.unwrap();
        append_some(&core, 2).await;
        core.flush().await.unwrap();
        append_some(&core, 10).await;
        let mut lost = 0;
        for seed in 0..100 {
            let left = FaultStorage::from_image(&storage.power_cut(seed));
            let report = Hypercore::verify_storage(left.image()).await.unwrap();
            assert!(report.is_ok(), "{seed}: {:?}", report.problems);
            // In one half it is repaired before it is opened, which is to open it, too.
            if seed % 2 == 0 {
                let repair = Hypercore::repair_storage(left.clone()).await.unwrap();
                assert!(repair.remaining.is_ok());
            }
            let core = open(&left, Durability::Always).await.unwrap();
            assert!(core.is_writable(), "{seed}: {:?}", core.recovery());
            assert!(core.length() >= 2);
            lost += u64::from(core.length() < 11);
        }
        assert!(lost > 10, "{lost}");
    });
}

#[test]
fn what_was_waited_for_is_damaged_and_not_missing() {
    run(async {
        let storage = FaultStorage::new();
        let core = open(&storage, Durability::Always).await.unwrap();
        append_some(&core, 10).await;
        assert_not_cut(&storage, Durability::OnClose).await;
        core.close().await.unwrap();
        assert_not_cut(&storage, Durability::OnClose).await;
    });
}

/// Until more is appended.
#[test]
fn what_was_flushed_is_damaged_and_not_missing() {
    run(async {
        let storage = FaultStorage::new();
        let core = open(&storage, Durability::OnClose).await.unwrap();
        append_some(&core, 10).await;
        assert_cut(&storage, Durability::Always).await;
        core.flush().await.unwrap();
        assert_not_cut(&storage, Durability::OnClose).await;
        core.append("more").await.unwrap();
        assert_cut(&storage, Durability::Always).await;
    });
}

/// Whenever the power goes, while they are made durable.
#[test]
fn what_is_being_flushed_is_missing_and_not_damaged() {
    run(async {
        for operation in 0..16 {
            let storage = FaultStorage::new();
            let core = open(&storage, Durability::OnClose).await.unwrap();
            append_some(&core, 10).await;
            storage.fail_from(operation, Fault::Io);
            let _ = core.close().await;
            for seed in 0..40 {
                let left = FaultStorage::from_image(&storage.power_cut(seed));
                let core = open(&left, Durability::Always).await.unwrap();
                let found = core.recovery();
                assert!(core.is_writable(), "{operation}, {seed}: {found:?}");
            }
        }
    });
}

/// What a recovery found is durable. Appended to at another level, the log is of that level.
#[test]
fn a_recovery_ends_the_time_in_which_appends_may_be_lost() {
    run(async {
        let storage = FaultStorage::new();
        let core = open(&storage, Durability::OnClose).await.unwrap();
        append_some(&core, 10).await;
        let killed = FaultStorage::from_image(&storage.image());
        let core = open(&killed, Durability::Always).await.unwrap();
        assert_eq!(core.length(), 10);
        assert_not_cut(&killed, Durability::Always).await;
        core.append("more").await.unwrap();
        assert_not_cut(&killed, Durability::OnClose).await;
    });
}

/// The note is made once, and before the append.
#[test]
fn appends_that_nobody_waits_for_cost_one_note() {
    run(async {
        let storage = FaultStorage::new();
        let core = open(&storage, Durability::OnClose).await.unwrap();
        append_some(&core, 1).await;
        let before = noted(&storage);
        storage.fail_from(0, Fault::Sync);
        append_some(&core, 10).await;
        assert!(noted(&storage) == before);
        storage.heal();

        core.flush().await.unwrap();
        storage.fail_at(0, Fault::Sync);
        let failed = core.append("not noted").await;
        assert!(matches!(failed, Err(Error::Guard { .. })), "{failed:?}");
        append_some(&core, 1).await;
        assert_cut(&storage, Durability::Always).await;
    });
}

/// A version that knows nothing of that, or Node, has written to the log: it is opened as if nothing
/// had been noted.
#[test]
fn without_a_note_it_is_as_for_this_opening() {
    run(async {
        let storage = FaultStorage::new();
        let core = open(&storage, Durability::OnClose).await.unwrap();
        append_some(&core, 10).await;
        let older = FaultStorage::from_image(&storage.image());
        let guard = older.beside(GUARD).unwrap().unwrap();
        for slot in [0, 512] {
            guard.write_at(slot + 128, &[0; 384]).unwrap();
        }
        assert_cut(&older, Durability::OnClose).await;
        assert_not_cut(&older, Durability::Always).await;

        core.close().await.unwrap();
        let other = Memory::new();
        for file in FileName::ALL {
            other.write(file, &storage.image().read(file));
        }
        let options = Hypercore::options().durability(Durability::OnClose);
        let core = options.open_storage(other.clone()).await.unwrap();
        append_some(&core, 2).await;
        let both = storage.image();
        for file in FileName::ALL {
            both.write(file, &other.read(file));
        }
        let both = FaultStorage::from_image(&both);
        assert_cut(&both, Durability::OnClose).await;
        assert_not_cut(&both, Durability::Always).await;
    });
}
