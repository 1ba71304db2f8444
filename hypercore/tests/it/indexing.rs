//! Logs of what is in a file already, which somebody else writes.

use futures_lite::future::block_on;
use hypercore::{
    Corruption, Error, Hypercore, KeyPair, OpenOptions,
    storage::{
        FileName, Memory,
        testing::{Fault, FaultStorage, Recording},
    },
};

use crate::support::{clone_of, connect_live, run};

/// The first file of the world, and where it was cut: at 6, 10, 10 and 16. More was written since.
const FILE: &[u8] = b"Call me Ishmael. Some years ago";
const BLOCKS: [&str; 4] = ["Call m", "e Is", "", "hmael."];

fn options() -> OpenOptions {
    OpenOptions::new()
        .key_pair(KeyPair::from_seed(&[5; 32]))
        .indexing(true)
}

fn file() -> Memory {
    let memory = Memory::new();
    memory.write(FileName::Data, FILE);
    memory
}

#[test]
fn an_append_of_what_is_there_writes_no_data() {
    run(async {
        let memory = file();
        let storage = Recording::new(memory.clone());
        let core = options().open_storage(storage.clone()).await.unwrap();
        assert_eq!(core.append(BLOCKS[0]).await.unwrap(), 0);
        core.append_batch(BLOCKS[1..].to_vec()).await.unwrap();
        assert_eq!(storage.take(FileName::Data).writes, 0);
        assert_eq!(core.get(3).await.unwrap(), "hmael.");

        let clone = clone_of(&core, false).await;
        let connection = connect_live(&core, &clone).await;
        assert_eq!(clone.get(1).await.unwrap(), "e Is");
        connection.cancel().await;
        core.close().await.unwrap();

        // What the file has beyond the log is not taken for an append that was not finished.
        let core = options().open_storage(memory.clone()).await.unwrap();
        assert_eq!((core.length(), core.recovery()), (4, None));
        assert!(core.verify().await.unwrap().problems.is_empty());
        assert_eq!(core.append(" Some years").await.unwrap(), 4);
        assert_eq!(memory.read(FileName::Data), FILE);
    });
}

#[test]
fn an_append_of_what_is_not_there_fails() {
    run(async {
        let memory = file();
        let core = options().open_storage(memory.clone()).await.unwrap();
        core.append(BLOCKS[0]).await.unwrap();
        let other = vec!["e Is", "", "hmae?"];
        let too_long = vec![str::from_utf8(&FILE[6..]).unwrap(), "."];
        for (batch, at) in [(other, 3), (too_long, 2)] {
            let error = core.append_batch(batch).await.unwrap_err();
            let is_told =
                matches!(error, Error::Corrupt(Corruption::Block { index }) if index == at);
            assert!(is_told, "{error}");
        }
        assert_eq!(core.length(), 1);
        assert_eq!(memory.read(FileName::Data), FILE);
        core.append_batch(BLOCKS[1..].to_vec()).await.unwrap();
        core.close().await.unwrap();
        let core = Hypercore::options()
            .indexing(true)
            .open_storage(memory)
            .await
            .unwrap();
        assert_eq!((core.length(), core.recovery()), (4, None));
    });
}

#[test]
fn nothing_that_is_dropped_is_dropped_from_the_file() {
    run(async {
        let memory = file();
        let core = options().open_storage(memory.clone()).await.unwrap();
        core.append_batch(BLOCKS).await.unwrap();
        assert_eq!(core.clear(0..2).await.unwrap(), 2);
        assert!(!core.has(0));
        core.truncate(3).await.unwrap();
        assert_eq!(memory.read(FileName::Data), FILE);
        core.append("hmael. Some").await.unwrap();
        core.close().await.unwrap();

        let core = options().overwrite().open_storage(memory.clone());
        let core = core.await.unwrap();
        assert_eq!(core.length(), 0);
        core.append(BLOCKS[0]).await.unwrap();
        core.destroy().await.unwrap();
        assert_eq!(memory.read(FileName::Data), FILE);
        assert!(memory.read(FileName::Tree).is_empty());
    });
}

/// Power is lost at every operation after the log was created. What was appended is there, and the file is as it was.
#[test]
fn a_loss_of_power_touches_no_data() {
    let created = file();
    block_on(async {
        let core = options().open_storage(created.clone()).await.unwrap();
        core.close().await.unwrap();
    });
    let mut recovered = 0;
    for count in 0.. {
        let storage = FaultStorage::from_image(&created);
        storage.fail_from(count, Fault::Io);
        let mut acknowledged = 0;
        let finished = block_on(async {
            let core = options().open_storage(storage.clone()).await?;
            for block in BLOCKS {
                core.append(block).await?;
                acknowledged += 1;
            }
            Ok::<_, Error>(())
        });
        for seed in 0..8 {
            let image = storage.power_cut(seed);
            block_on(async {
                let core = options().open_storage(image.clone()).await.unwrap();
                assert!(core.is_writable(), "{:?}", core.recovery());
                let length = core.length();
                assert!(length >= acknowledged, "{length} of {acknowledged}");
                for (index, block) in (0..length).zip(BLOCKS) {
                    assert_eq!(core.get(index).await.unwrap(), block);
                }
                recovered += u64::from(core.recovery().is_some());
            });
            assert_eq!(image.read(FileName::Data), FILE);
        }
        if finished.is_ok() {
            break;
        }
    }
    assert!(recovered > 100, "{recovered}");
}
