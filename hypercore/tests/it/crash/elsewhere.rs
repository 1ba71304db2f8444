//! A log of which the secret key is elsewhere, opened without it after a crash.

use hypercore::{
    Durability, GetOptions, Hypercore, ProofOptions,
    merkle::NodeIndex,
    storage::{
        FileName, Memory, Storage,
        testing::{Fault, FaultStorage},
    },
};

use super::assert_verifies;
use crate::support::{key_pair, run};

async fn open_author(storage: &FaultStorage, durability: Durability) -> Hypercore {
    let options = Hypercore::options().key_pair(key_pair("elsewhere"));
    let options = options.store_secret_key(false).durability(durability);
    options.open_storage(storage.clone()).await.unwrap()
}

async fn open_reader(storage: &FaultStorage) -> Hypercore {
    let options = Hypercore::options();
    options.open_storage(storage.clone()).await.unwrap()
}

async fn append_singly(core: &Hypercore, count: u32) {
    for block in 0..count {
        core.append(block.to_le_bytes().to_vec()).await.unwrap();
    }
}

/// A log of ten blocks whose program was killed.
async fn killed() -> Memory {
    let storage = FaultStorage::new();
    let core = open_author(&storage, Durability::OnClose).await;
    append_singly(&core, 10).await;
    storage.image()
}

#[test]
fn a_reader_finds_the_blocks_of_a_writer_that_was_killed() {
    run(async {
        for (repaired, is_noted) in [(false, true), (true, true), (false, false), (true, false)] {
            let image = killed().await;
            if !is_noted {
                image.remove_beside("fork-guard").unwrap();
            }
            let left = FaultStorage::from_image(&image);
            if repaired {
                let repair = Hypercore::repair_storage(left.clone()).await.unwrap();
                assert!(repair.remaining.is_ok());
            } else {
                let core = open_reader(&left).await;
                assert_eq!(core.recovery().unwrap().recovered, 10);
                core.close().await.unwrap();
            }
            let core = open_author(&left, Durability::OnClose).await;
            assert_eq!(core.length(), 10);
            assert!(core.has_all(0..10), "repaired: {repaired}");
            for block in 0..10_u32 {
                let found = core.get_with(block.into(), GetOptions::local()).await;
                assert_eq!(found.unwrap()[..], block.to_le_bytes());
            }
            assert_eq!(core.append("more").await.unwrap(), 10);
            assert_verifies(&left).await;
        }
    });
}

/// Neither a block that is not what its leaf says, nor what stands below a node that is not the parent
/// of its children.
#[test]
fn a_reader_claims_nothing_that_is_not_proven() {
    run(async {
        let image = killed().await;
        // As if nothing was ever written here.
        image.remove_beside("fork-guard").unwrap();
        let mut data = image.read(FileName::Data);
        data[4 * 4] ^= 1;
        image.write(FileName::Data, &data);
        let node = NodeIndex::leaf(1).unwrap().get() as usize;
        let mut tree = image.read(FileName::Tree);
        tree[32 + 40 * node] ^= 1;
        image.write(FileName::Tree, &tree);
        let left = FaultStorage::from_image(&image);
        let core = open_reader(&left).await;
        let missing: Vec<_> = (0..10).filter(|&block| !core.has(block)).collect();
        assert_eq!(missing, [0, 1, 4]);
        assert_eq!(core.recovery().unwrap().recovered, 7);
        assert_verifies(&left).await;
    });
}

#[test]
fn a_reader_finds_what_was_acknowledged_after_a_loss_of_power() {
    run(async {
        let storage = FaultStorage::new();
        let core = open_author(&storage, Durability::Always).await;
        let blocks = (0..800_u32).map(|block| block.to_le_bytes().to_vec());
        core.append_batch(blocks).await.unwrap();
        append_singly(&core, 100).await;
        for seed in 0..50 {
            let left = FaultStorage::from_image(&storage.power_cut(seed));
            open_reader(&left).await.close().await.unwrap();
            assert_verifies(&left).await;
            let core = open_author(&left, Durability::Always).await;
            assert_eq!(core.length(), 900);
            assert!(core.has_all(0..900), "seed {seed}");
        }
    });
}

/// Whoever opens the log first cuts off what was never durable, or it would stay as holes.
#[test]
fn a_reader_leaves_no_holes() {
    run(async {
        let storage = FaultStorage::new();
        let core = open_author(&storage, Durability::OnClose).await;
        append_singly(&core, 100).await;
        core.flush().await.unwrap();
        append_singly(&core, 300).await;
        for seed in 0..100 {
            let left = FaultStorage::from_image(&storage.power_cut(seed));
            open_reader(&left).await.close().await.unwrap();
            let core = open_author(&left, Durability::OnClose).await;
            assert!(core.length() >= 100 && core.is_writable(), "seed {seed}");
            assert!(core.has_all(0..core.length()), "seed {seed}");
            assert_verifies(&left).await;
        }
    });
}

/// A closed sparse clone, with some of the blocks of a log that was appended as one.
pub(super) async fn clone_with(label: &str, length: u8, blocks: &[u64]) -> FaultStorage {
    let writer = Hypercore::options().key_pair(key_pair(label));
    let writer = writer.open_memory().await.unwrap();
    let values = (0..length).map(|byte| vec![byte; 7]);
    writer.append_batch(values).await.unwrap();
    let storage = FaultStorage::new();
    let clone = Hypercore::options().key(writer.key()).sparse(true);
    let clone = clone.open_storage(storage.clone()).await.unwrap();
    for &index in blocks {
        let mut options = ProofOptions::default();
        options.digest = clone.digest(index);
        let proof = writer.proof_with(index, options).await.unwrap().unwrap();
        let block = writer.get(index).await.unwrap();
        clone.put(index, Some(block), &proof).await.unwrap();
    }
    clone.close().await.unwrap();
    storage
}

/// The blocks between are not there, so that the log does not lead to its end.
#[test]
fn a_clone_that_was_given_its_key_finds_what_it_appended() {
    run(async {
        let pair = || key_pair("elsewhere");
        let storage = clone_with("elsewhere", 40, &[3]).await;
        let open = |storage: &FaultStorage| {
            let options = Hypercore::options().key_pair(pair()).sparse(true);
            options.open_storage(storage.clone())
        };
        let core = open(&storage).await.unwrap();
        append_singly(&core, 30).await;
        for seed in 0..50 {
            let left = FaultStorage::from_image(&storage.power_cut(seed));
            let core = open(&left).await.unwrap();
            assert!(core.is_writable(), "seed {seed}: {:?}", core.recovery());
            assert_eq!(core.length(), 70);
            assert!(core.has(3) && core.has_all(40..70), "seed {seed}");
            assert_eq!(core.audit().await.unwrap().valid, 31);
            assert_verifies(&left).await;
        }
        // At a level at which nobody waits, a kill takes nothing either.
        core.close().await.unwrap();
        let options = Hypercore::options().key_pair(pair());
        let options = options.durability(Durability::OnClose);
        let core = options.open_storage(storage.clone()).await.unwrap();
        append_singly(&core, 5).await;
        storage.fail_from(0, Fault::Io);
        let _ = core.close().await;
        let left = FaultStorage::from_image(&storage.image());
        let core = open(&left).await.unwrap();
        assert!(core.is_writable() && core.has_all(40..75));
    });
}
