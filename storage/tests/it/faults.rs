//! Disks that fail, and what a loss of power leaves.

use std::{collections::BTreeSet, sync::Arc};

use hypercore_storage::{
    Error, FeedFiles, FileName, Memory, Operation,
    testing::{Fault, FaultStorage},
};

use crate::{node, open};

/// Everything a log does when it appends, once.
fn workload(storage: &FaultStorage) -> Result<(), Error> {
    let files = FeedFiles::open(Arc::new(storage.clone()))?;
    files.write_headers()?;
    files.write_secret_key(&[2; 64])?;
    files.write_key(&[1; 32])?;
    files.sync_keys()?;
    files.write_data(0, &[3; 3000])?;
    files.write_append_nodes(0, 4, &(0..7).map(node).collect::<Vec<_>>())?;
    files.write_signature(3, &[4; 64])?;
    files.sync_content()?;
    files.write_page(0, &[5; 3584])?;
    files.sync_bitfield()
}

fn contents(memory: &Memory) -> [Vec<u8>; 6] {
    FileName::ALL.map(|file| memory.read(file))
}

#[test]
fn every_failure_is_reported_and_trying_again_heals() {
    let good = FaultStorage::new();
    workload(&good).unwrap();
    for fault in [Fault::Io, Fault::Full, Fault::Short, Fault::Sync] {
        for count in 0..good.operations() {
            let storage = FaultStorage::new();
            storage.fail_at(count, fault);
            match workload(&storage) {
                Err(Error::Io { operation, .. }) => match fault {
                    Fault::Io => {}
                    Fault::Full | Fault::Short => assert_eq!(operation, Operation::Write),
                    Fault::Sync => assert_eq!(operation, Operation::Sync),
                },
                Err(error) => panic!("{fault:?} {count}: {error}"),
                // Behind the last operation it suits, a fault never strikes.
                Ok(()) => {
                    assert!(fault != Fault::Io && count + 8 > good.operations());
                    continue;
                }
            }
            workload(&storage).unwrap();
            assert_eq!(
                contents(&storage.image()),
                contents(&good.image()),
                "{fault:?} {count}"
            );
        }
    }
}

#[test]
fn what_was_synced_survives_every_power_cut() {
    let storage = FaultStorage::new();
    workload(&storage).unwrap();
    assert_eq!(storage.unsynced_sectors(), 0);
    let synced = contents(&storage.image());
    let files = open(&storage);
    files.write_data(3000, &[6; 5000]).unwrap();
    assert_eq!(
        storage.unsynced_sectors(),
        11,
        "bytes 3000 to 8000, sectors 5 to 15"
    );

    let mut lengths = BTreeSet::new();
    for seed in 0..300 {
        let image = storage.power_cut(seed);
        for (file, synced) in FileName::ALL.into_iter().zip(&synced) {
            let bytes = image.read(file);
            assert!(bytes.starts_with(synced), "{file}");
            assert!(file == FileName::Data || bytes.len() == synced.len());
        }
        lengths.insert(image.read(FileName::Data).len());
        assert_eq!(
            contents(&image),
            contents(&storage.power_cut(seed)),
            "the seed decides"
        );
    }
    assert!(
        lengths.contains(&3000) && lengths.contains(&8000) && lengths.len() > 4,
        "{lengths:?}"
    );

    files.sync_content().unwrap();
    for seed in 0..100 {
        assert_eq!(storage.power_cut(seed).read(FileName::Data).len(), 8000);
    }
}

#[test]
fn a_failed_sync_makes_nothing_durable_and_stays_to_be_done() {
    let storage = FaultStorage::new();
    let files = open(&storage);
    files.write_data(0, b"abc").unwrap();
    storage.fail_at(0, Fault::Sync);
    let error = files.sync_content().unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("could not sync the file `data`"),
        "{error}"
    );
    assert!(!error.is_corruption() && !error.is_locked());
    assert!((0..50).any(|seed| storage.power_cut(seed).read(FileName::Data).is_empty()));
    files.sync_content().unwrap();
    assert!((0..50).all(|seed| storage.power_cut(seed).read(FileName::Data) == b"abc"));
}

#[test]
fn an_image_is_durable_from_the_start() {
    let memory = Memory::new();
    memory.write(FileName::Key, &[9; 32]);
    let storage = FaultStorage::from_image(&memory);
    assert_eq!(contents(&storage.power_cut(1)), contents(&memory));
}
