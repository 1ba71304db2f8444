//! Logs that nobody signs: written once, finished, and named by the hash of all they hold.

use futures_lite::future::block_on;
use hypercore::{
    Corruption, Error, GetOptions, Hypercore, OpenOptions, ReplicateOptions, Role,
    merkle::tree_hash,
    storage::{
        FileName, Memory,
        testing::{Fault, FaultStorage},
    },
};

use crate::support::{clone_of, connect, run};

const BLOCKS: [&str; 5] = ["a", "bb", "", "dddd", "e"];

fn unfinished() -> OpenOptions {
    OpenOptions::new().live(false)
}

async fn finished() -> Hypercore {
    let core = unfinished().open_memory().await.unwrap();
    core.append_batch(BLOCKS).await.unwrap();
    core.finalize().await.unwrap();
    core
}

/// All of [`BLOCKS`] is here, and nothing else, and nothing is wrong with it.
async fn assert_whole(core: &Hypercore) {
    assert_eq!(core.length(), 5);
    for (index, block) in (0..).zip(BLOCKS) {
        let found = core.get_with(index, GetOptions::local()).await.unwrap();
        assert_eq!(found, block);
    }
    let verification = core.verify().await.unwrap();
    assert!(verification.problems.is_empty(), "{verification:?}");
}

#[test]
fn a_static_log_is_named_by_what_it_holds() {
    run(async {
        let memory = Memory::new();
        let core = unfinished().open_storage(memory.clone()).await.unwrap();
        assert!(core.is_writable());
        assert_eq!(core.append(BLOCKS[0]).await.unwrap(), 0);
        let before = core.key();
        assert_eq!(core.append_batch(BLOCKS[1..].to_vec()).await.unwrap(), 1..5);
        assert_ne!(core.key(), before);
        assert_eq!(core.get(1).await.unwrap(), "bb");

        let key = core.finalize().await.unwrap();
        let roots = core.root_hashes(4).await.unwrap();
        assert_eq!(*key.as_bytes(), tree_hash(&roots));
        assert_eq!(
            (core.key(), core.discovery_key()),
            (key, key.discovery_key())
        );
        assert_eq!(core.finalize().await.unwrap(), key, "again changes nothing");
        assert!(!core.is_writable());
        let error = core.append("more").await.unwrap_err();
        assert!(matches!(error, Error::NotWritable), "{error}");
        assert_whole(&core).await;
        core.close().await.unwrap();

        assert_eq!(memory.read(FileName::Key), key.as_bytes());
        assert!(memory.read(FileName::SecretKey).is_empty());
        assert_eq!(memory.read(FileName::Signatures).len(), 32, "no signatures");
        // What is stored has a key, whatever is asked for.
        for options in [OpenOptions::new(), unfinished()] {
            let core = options.open_storage(memory.clone()).await.unwrap();
            assert_eq!((core.key(), core.is_writable()), (key, false));
            assert_eq!(core.recovery(), None);
            assert_whole(&core).await;
            core.close().await.unwrap();
        }
        // The same content has the same name, however it was appended.
        assert_eq!(finished().await.key(), key);
    });
}

#[test]
fn a_static_log_makes_its_directory() {
    run(async {
        let parent = tempfile::tempdir().unwrap();
        let directory = parent.path().join("not/there/yet");
        let core = unfinished().open(&directory).await.unwrap();
        core.append_batch(BLOCKS).await.unwrap();
        assert_eq!(core.finalize().await.unwrap(), finished().await.key());
        core.close().await.unwrap();
        assert_whole(&Hypercore::open(&directory).await.unwrap()).await;
    });
}

#[test]
fn the_end_of_an_unfinished_log_is_taken_back() {
    run(async {
        let core = unfinished().open_memory().await.unwrap();
        core.append_batch(BLOCKS).await.unwrap();
        core.append_batch(["not", "this"]).await.unwrap();
        core.truncate(5).await.unwrap();
        assert_eq!(core.finalize().await.unwrap(), finished().await.key());
        assert_whole(&core).await;

        let empty = unfinished().open_memory().await.unwrap();
        empty.append("a").await.unwrap();
        empty.truncate(0).await.unwrap();
        let key = empty.finalize().await.unwrap();
        assert_eq!(*key.as_bytes(), tree_hash(&[]));
    });
}

/// What a truncation left of its mark said that the log was damaged, which no peer got a block of then.
#[test]
fn a_finished_log_whose_end_was_taken_back_outlives_its_program() {
    run(async {
        let storage = FaultStorage::new();
        let core = unfinished().open_storage(storage.clone()).await.unwrap();
        core.append_batch(BLOCKS).await.unwrap();
        core.append_batch(["not", "this"]).await.unwrap();
        core.truncate(5).await.unwrap();
        let key = core.finalize().await.unwrap();
        for seed in 0..8 {
            let verification = Hypercore::verify_storage(storage.power_cut(seed)).await;
            let problems = verification.unwrap().problems;
            assert!(problems.is_empty(), "{problems:?}");
            let core = Hypercore::options().open_storage(storage.power_cut(seed));
            let core = core.await.unwrap();
            assert_eq!((core.key(), core.recovery()), (key, None));
            assert_whole(&core).await;
            let clone = clone_of(&core, false).await;
            let options = ReplicateOptions::default;
            let (here, there) = connect(&clone, options(), &core, options()).await.await;
            here.unwrap();
            there.unwrap();
            assert_whole(&clone).await;
        }
    });
}

#[test]
fn an_unfinished_log_has_no_peers_and_is_not_opened_again() {
    run(async {
        let memory = Memory::new();
        let core = unfinished().open_storage(memory.clone()).await.unwrap();
        core.append("a").await.unwrap();
        let refused = core.replicate(Role::Initiator, ReplicateOptions::live());
        assert!(matches!(refused, Err(Error::NotFinalized)));
        core.close().await.unwrap();

        for options in [OpenOptions::new(), unfinished()] {
            let error = options.open_storage(memory.clone()).await.unwrap_err();
            let is_missing = matches!(error, Error::Corrupt(Corruption::KeyMissing));
            assert!(is_missing, "{error}");
        }
        let options = unfinished().overwrite();
        let core = options.open_storage(memory).await.unwrap();
        assert_eq!(core.length(), 0);
        core.append_batch(BLOCKS).await.unwrap();
        assert_eq!(core.finalize().await.unwrap(), finished().await.key());
    });
}

/// Node: `3-way another index + extra data + factor of two + static`.
#[test]
fn three_way_another_index_and_static() {
    run(async {
        let core = unfinished().open_memory().await.unwrap();
        let blocks: Vec<_> = (0..8).map(|index| format!("block {index}")).collect();
        core.append_batch(blocks.clone()).await.unwrap();
        core.finalize().await.unwrap();

        let whole = |ends: (Result<_, _>, Result<_, Error>)| ends.0.is_ok() && ends.1.is_ok();
        let plain = ReplicateOptions::default;
        let second = clone_of(&core, false).await;
        assert!(whole(connect(&second, plain(), &core, plain()).await.await));
        // The third never meets the first, and asks for one block before the rest.
        let third = clone_of(&core, true).await;
        let connection = connect(&third, ReplicateOptions::live(), &second, plain()).await;
        assert_eq!(third.get(6).await.unwrap(), "block 6");
        assert_eq!(third.downloaded(..), 1);
        third.download(..8).await.unwrap();
        connection.cancel().await;
        for (index, block) in (0..).zip(blocks) {
            assert_eq!(third.get(index).await.unwrap(), block);
        }
        assert_eq!(third.length(), 8);
        assert!(third.verify().await.unwrap().problems.is_empty());
        assert!(third.signature(0).await.unwrap().is_none());
    });
}

/// As a loss of power leaves a file that grew: a log has another key than zeros.
#[test]
fn zeros_are_no_key() {
    run(async {
        let storage = FaultStorage::new();
        let core = unfinished().open_storage(storage.clone()).await.unwrap();
        core.append_batch(BLOCKS).await.unwrap();
        core.close().await.unwrap();
        let clone = clone_of(&finished().await, true).await;
        let memory = Memory::new();
        let options = Hypercore::options().key(clone.key());
        let clone = options.open_storage(memory.clone()).await.unwrap();
        clone.close().await.unwrap();
        for image in [storage.image(), memory] {
            image.write(FileName::Key, &[0; 32]);
            let error = Hypercore::options().open_storage(image).await.unwrap_err();
            let is_missing = matches!(error, Error::Corrupt(Corruption::KeyMissing));
            assert!(is_missing, "{error}");
        }
    });
}

/// Power is lost at every operation of writing a static log, and comes back to every outcome there
/// is for its unsynced sectors: the log is whole and has its key, or it never was.
#[test]
fn a_static_log_is_whole_or_never_was() {
    let (mut whole, mut none, mut unfinished_ones) = (0, 0, 0);
    for count in 0.. {
        let storage = FaultStorage::new();
        storage.fail_from(count, Fault::Io);
        let key = block_on(async {
            let core = unfinished().open_storage(storage.clone()).await?;
            core.append_batch(BLOCKS[..3].to_vec()).await?;
            core.append_batch(BLOCKS[3..].to_vec()).await?;
            core.finalize().await
        });
        // What stands in place of the key, while that is written, decides.
        let has_key = !storage.image().read(FileName::Key).is_empty();
        for seed in 0..if has_key { 256 } else { 8 } {
            let image = storage.power_cut(seed);
            let reopened = OpenOptions::new()
                .create_if_missing(false)
                .open_storage(image.clone());
            block_on(async {
                match (reopened.await, &key) {
                    (Ok(core), _) => {
                        assert_eq!(core.recovery(), None);
                        let roots = core.root_hashes(4).await.unwrap();
                        assert_eq!(*core.key().as_bytes(), tree_hash(&roots));
                        assert_whole(&core).await;
                        whole += 1;
                    }
                    (Err(error), Ok(_)) => panic!("it was finished: {error}"),
                    (Err(Error::NoCore), Err(_)) => none += 1,
                    (Err(Error::Corrupt(Corruption::KeyMissing)), Err(_)) => {
                        unfinished_ones += 1;
                        // It set all blocks aside.
                        let blocks = image.read(FileName::Data);
                        let repaired = Hypercore::repair_storage(image.clone()).await;
                        assert!(matches!(
                            repaired,
                            Err(Error::Corrupt(Corruption::KeyMissing))
                        ));
                        assert_eq!(image.read(FileName::Data), blocks);
                    }
                    (Err(error), Err(_)) => panic!("after operation {count}: {error}"),
                }
            });
        }
        if key.is_ok() {
            break;
        }
    }
    assert!(
        whole >= 8 && none > 0 && unfinished_ones > 100,
        "{whole} {none} {unfinished_ones}"
    );
}
