//! Damage of the files: what `verify` sees of it, and what opening, reading and repairing do about it.
//!
//! `HYPERCORE_EVERY_DAMAGE=1 cargo test --release -p hypercore --test it damage` tries every
//! length and every bit; otherwise a part of them.

mod opening;
mod reading;
mod repairing;
mod verifying;

use std::{fs, path::Path};

use futures_lite::future::block_on;
use hypercore::{
    Error, GetOptions, Hypercore, KeyPair, Verification,
    storage::{FileName, Memory},
};

use crate::support::{key_pair, run};

/// Whether to try everything there is.
fn every() -> bool {
    std::env::var_os("HYPERCORE_EVERY_DAMAGE").is_some()
}

/// The files and the blocks of a log that was closed. Every third block was appended alone.
fn log(count: u64) -> (Memory, Vec<Vec<u8>>) {
    let storage = Memory::new();
    let blocks: Vec<_> = (0..count)
        .map(|index| vec![7; 3 + index as usize])
        .collect();
    block_on(async {
        let options = Hypercore::options().key_pair(key_pair("damage"));
        let core = options.open_storage(storage.clone()).await.unwrap();
        for batch in blocks.chunks(3) {
            if let [first, rest @ ..] = batch {
                core.append(first.clone()).await.unwrap();
                if !rest.is_empty() {
                    core.append_batch(rest.to_vec()).await.unwrap();
                }
            }
        }
        core.close().await.unwrap();
    });
    (storage, blocks)
}

fn copy(storage: &Memory) -> Memory {
    let copy = Memory::new();
    for file in FileName::ALL {
        copy.write(file, &storage.read(file));
    }
    copy
}

fn verify(storage: &Memory) -> Verification {
    block_on(Hypercore::verify_storage(storage.clone())).unwrap()
}

/// Opens a damaged log and reads all of it: whatever it says is true, and it has no new key.
fn read_all(storage: &Memory, key_pair: &KeyPair, blocks: &[Vec<u8>]) {
    let read = async {
        let core = Hypercore::options()
            .create_if_missing(false)
            .open_storage(storage.clone())
            .await?;
        assert_eq!(core.key(), key_pair.public_key(), "another key");
        for (index, block) in (0..core.length()).zip(blocks) {
            if let Ok(found) = core.get_with(index, GetOptions::local()).await {
                assert_eq!(found, *block, "other bytes in block {index}");
            }
        }
        assert!(core.length() <= blocks.len() as u64);
        Ok::<_, Error>(())
    };
    if let Err(error) = block_on(read) {
        assert!(
            error.is_corruption() || matches!(error, Error::Merkle(_)),
            "{error}"
        );
    }
}

/// A closed log of ten blocks in a directory, damaged by `damage`, and what opening it says.
fn opened_after(damage: impl FnOnce(&Path)) -> (tempfile::TempDir, Result<Hypercore, Error>) {
    let directory = tempfile::tempdir().unwrap();
    let opened = run(async {
        let core = Hypercore::open(directory.path()).await.unwrap();
        core.append_batch((0..10).map(|index| format!("block {index}")))
            .await
            .unwrap();
        core.close().await.unwrap();
        damage(directory.path());
        Hypercore::open(directory.path()).await
    });
    (directory, opened)
}

fn flip(file: &Path, byte: usize) {
    let mut bytes = fs::read(file).unwrap();
    bytes[byte] ^= 1;
    fs::write(file, bytes).unwrap();
}

fn cut(file: &Path, bytes: u64) {
    let file = fs::OpenOptions::new().write(true).open(file).unwrap();
    let length = file.metadata().unwrap().len();
    file.set_len(length - bytes).unwrap();
}
