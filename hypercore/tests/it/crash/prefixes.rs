//! A log that loses power after each operation of its life, with every choice of its last writes.

use std::{
    env,
    sync::atomic::{AtomicU64, Ordering},
};

use futures_lite::future::block_on;
use hypercore::{
    Durability, GetOptions,
    storage::testing::{Fault, FaultStorage},
};

use super::{first_failure, writer::open};

const APPENDS: u64 = 60;

/// Of so many writes any can be lost.
const LAST: usize = 6;

/// Appends until the disk fails, from its operation `stop` on. How many returned, if the log could be
/// created at all.
async fn live(disk: &FaultStorage, stop: u64) -> Option<u64> {
    disk.fail_from(stop, Fault::Io);
    let core = open(disk, Durability::Always).await.ok()?;
    for index in 0..APPENDS {
        if core.append(block(index)).await.is_err() {
            return Some(index);
        }
    }
    Some(APPENDS)
}

fn block(index: u64) -> Vec<u8> {
    vec![index as u8; index as usize * 7 % 40]
}

async fn check(disk: FaultStorage, returned: Option<u64>) {
    let core = open(&disk, Durability::Always).await.unwrap();
    let length = core.length();
    let least = returned.unwrap_or(0);
    assert!((least..=least + 1).contains(&length), "{length} of {least}");
    for index in 0..length {
        let found = core.get_with(index, GetOptions::local()).await.unwrap();
        assert_eq!(found, block(index));
    }
    assert_eq!(core.append("goes on").await.unwrap(), length);
}

/// Every 37th operation, or each with `HYPERCORE_EVERY_PREFIX=1`.
#[test]
fn whatever_the_last_writes_were() {
    let disk = FaultStorage::new();
    assert_eq!(block_on(live(&disk, u64::MAX)), Some(APPENDS));
    let operations = disk.operations();
    let step = if env::var_os("HYPERCORE_EVERY_PREFIX").is_some() {
        1
    } else {
        37
    };
    let stops = 0..operations / step;
    let states = AtomicU64::new(0);
    let failure = first_failure(stops.clone(), |stop| {
        let disk = FaultStorage::new();
        let returned = block_on(live(&disk, stop * step));
        let choices = 1 << disk.unsynced_changes().min(LAST);
        states.fetch_add(choices, Ordering::Relaxed);
        for taken in 0..choices {
            let image = disk.power_cut_among(LAST, taken);
            block_on(check(FaultStorage::from_image(&image), returned));
        }
    });
    assert_eq!(failure, None, "of {stops:?}, each {step} operations");
    println!(
        "{} prefixes of {operations}, {} states",
        stops.end,
        states.into_inner()
    );
}
