//! What `test/basic.js`, `test/copy.js` and `test/stats.js` of Node's Hypercore 9 check of
//! signatures, hashes, proofs, batches and counts.

use std::collections::BTreeMap;

use futures_lite::future;
use hypercore::{
    Bytes, Error, Event, GetOptions, Hypercore, PeerId, ProofOptions, merkle, storage::Memory,
};
use merkle::{Roots, full_roots};
use proptest::prelude::*;

use crate::support::{
    clone_of, clone_with, connect, connect_live, event, key_pair, options, run, soon, writer,
};

#[test]
fn verify() {
    run(async {
        let core = writer(0).await;
        core.append("a").await.unwrap();
        core.append_batch(["b", "c", "d"]).await.unwrap();
        let (index, signature) = core.signature(0).await.unwrap().unwrap();
        assert_eq!(index, 0);
        assert!(core.verify_signature(0, &signature).await.unwrap());
        assert!(!core.verify_signature(1, &signature).await.unwrap());
        // Blocks that were appended together share the last one's signature.
        let (index, shared) = core.signature(1).await.unwrap().unwrap();
        assert_eq!(index, 3);
        assert!(core.verify_signature(3, &shared).await.unwrap());
        assert_eq!(core.signature(4).await.unwrap(), None);
        let unknown = core.verify_signature(4, &shared).await;
        assert!(matches!(unknown, Err(Error::NodeNotStored { .. })));
        let absurd = core.verify_signature(u64::MAX, &shared).await;
        assert!(matches!(absurd, Err(Error::NodeNotStored { .. })));
        let foreign = writer(1).await.signature(0).await.unwrap().unwrap().1;
        assert!(!core.verify_signature(0, &foreign).await.unwrap());
    });
}

#[test]
fn root_hashes() {
    run(async {
        let core = writer(0).await;
        core.append_batch(["a", "b", "c", "d", "e"]).await.unwrap();
        for index in 0..5 {
            let roots = core.root_hashes(index).await.unwrap();
            let indexes: Vec<_> = roots.iter().map(|root| root.index).collect();
            assert!(full_roots(index + 1).eq(indexes));
            let bytes: u64 = roots.iter().map(|root| root.size).sum();
            assert_eq!(bytes, index + 1);
        }
        // The signature is over just these.
        let (index, signature) = core.signature(4).await.unwrap().unwrap();
        let roots = core.root_hashes(index).await.unwrap();
        let roots = Roots::from_nodes(5, roots).unwrap();
        let verifier = merkle::Verifier::new(&core.key());
        assert!(verifier.verify(&roots.head(), &signature));
        let clone = clone_with(&core, [4]).await;
        assert!(clone.root_hashes(4).await.is_ok());
        let unknown = clone.root_hashes(0).await;
        assert!(
            matches!(unknown, Err(Error::NodeNotStored { node: 0 })),
            "{unknown:?}"
        );
    });
}

#[test]
fn block_info() {
    run(async {
        let core = writer(0).await;
        core.append_batch(["hello", ""]).await.unwrap();
        let leaf = core.block_info(0).await.unwrap();
        assert_eq!((leaf.index.get(), leaf.size), (0, 5));
        assert_eq!(leaf.hash, merkle::leaf_hash(b"hello"));
        core.clear(0..1).await.unwrap();
        assert_eq!(core.block_info(0).await.unwrap(), leaf, "without the block");
        let unknown = core.block_info(2).await;
        assert!(matches!(unknown, Err(Error::NodeNotStored { node: 4 })));
        assert!(core.block_info(u64::MAX).await.is_err());
    });
}

#[test]
fn get_batch() {
    run(async {
        let core = writer(5).await;
        assert_eq!(core.get_batch(1..3).await.unwrap(), ["block 1", "block 2"]);
        assert_eq!(core.get_batch(..).await.unwrap().len(), 5);
        assert!(core.get_batch(2..2).await.unwrap().is_empty());
        // JS: an end before the start waits for ever.
        #[expect(clippy::reversed_empty_ranges)]
        let reversed = core.get_batch(3..1).await.unwrap();
        assert!(reversed.is_empty());
        core.clear(2..3).await.unwrap();
        let local = core.get_batch_with(1..4, GetOptions::local()).await;
        assert!(matches!(local, Err(Error::BlockNotStored { index: 2 })));

        let core = writer(5).await;
        let clone = clone_of(&core, true).await;
        let _connection = connect_live(&clone, &core).await;
        let batch = soon("a batch", clone.get_batch(1..4)).await.unwrap();
        assert_eq!(batch, ["block 1", "block 2", "block 3"]);
        assert_eq!(clone.downloaded(..), 3);
    });
}

#[test]
fn hash_copy() {
    run(async {
        let core = writer(10).await;
        let clone = clone_of(&core, true).await;
        let mut with_hash = ProofOptions::default();
        with_hash.hash = true;
        for index in 0..10 {
            let mut options = with_hash;
            options.digest = clone.digest(index);
            let proof = core.proof_with(index, options).await.unwrap().unwrap();
            clone.put(index, None, &proof).await.unwrap();
        }
        assert_eq!(clone.length(), 10);
        assert_eq!(clone.byte_length(), core.byte_length());
        assert_eq!(clone.downloaded(..), 0);
        // JS: keeps the hashes of the leaves, too. Of those only the sum of their sizes is proven.
        let unknown = clone.block_info(3).await;
        assert!(matches!(unknown, Err(Error::NodeNotStored { node: 6 })));

        copy(&core, &clone, 3, true).await.unwrap();
        assert_eq!(clone.get(3).await.unwrap(), "block 3");
        let mut options = ProofOptions::default();
        options.digest = clone.digest(4);
        let proof = core.proof_with(4, options).await.unwrap().unwrap();
        let lie = clone.put(4, Some("other".into()), &proof).await;
        assert!(lie.unwrap_err().is_peer_fault());
        assert!(!clone.has(4));
    });
}

#[test]
fn a_block_that_is_put_is_told_of_and_wakes_who_waits() {
    run(async {
        let core = writer(2).await;
        let clone = clone_of(&core, true).await;
        let mut events = clone.events();
        let waiting = clone.get(1);
        let proof = core.proof(1).await.unwrap().unwrap();
        let block = core.get(1).await.unwrap();
        let put = clone.put(1, Some(block), &proof);
        let (waiting, put) = futures_lite::future::zip(waiting, put).await;
        put.unwrap();
        assert_eq!(waiting.unwrap(), "block 1");
        let told = event(&mut events, |event| matches!(event, Event::Download { .. })).await;
        let peer = PeerId::NOBODY;
        assert_eq!(
            told,
            Event::Download {
                index: 1,
                bytes: 7,
                peer
            }
        );
        assert_eq!(core.proof(2).await.unwrap(), None);
    });
}

/// What `test/copy.js` calls the chaos monkey: blocks are put in any order, with or without their
/// values, and whatever the clone holds it can prove to a third.
fn chaos_monkey(length: u64, puts: &[(u64, bool)]) {
    run(async {
        let core = Hypercore::options()
            .key_pair(key_pair("chaos"))
            .open_memory()
            .await
            .unwrap();
        for index in 0..length {
            core.append(vec![index as u8; index as usize % 7])
                .await
                .unwrap();
        }
        let clone = clone_of(&core, true).await;
        let third = clone_of(&core, true).await;
        let mut held = BTreeMap::new();
        for &(index, with_value) in puts {
            let index = index % length;
            copy(&core, &clone, index, with_value).await.unwrap();
            if with_value {
                held.insert(index, core.get(index).await.unwrap());
            }
        }
        for (&index, block) in &held {
            assert_eq!(&clone.get(index).await.unwrap(), block);
            // A clone of a log that grew meanwhile may lack the signature that a proof needs.
            if clone.proof(index).await.unwrap().is_some() {
                copy(&clone, &third, index, true).await.unwrap();
                assert_eq!(&third.get(index).await.unwrap(), block);
            }
        }
        assert_eq!(clone.downloaded(..), held.len() as u64);
    });
}

async fn copy(from: &Hypercore, to: &Hypercore, index: u64, with_value: bool) -> Result<(), Error> {
    let mut options = ProofOptions::default();
    options.digest = to.digest(index);
    options.hash = !with_value;
    let proof = from.proof_with(index, options).await?.expect("a proof");
    let block: Option<Bytes> = if with_value {
        Some(from.get(index).await?)
    } else {
        None
    };
    to.put(index, block, &proof).await
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn chaos_monkey_randomized(
        length in 1_u64..40,
        puts in prop::collection::vec((any::<u64>(), any::<bool>()), 0..60),
    ) {
        chaos_monkey(length, &puts);
    }
}

// ---- test/stats.js --------------------------------------------------------------------------

#[test]
fn accurate_stat_totals_and_per_peer_stats() {
    run(async {
        let core = writer(6).await;
        let bytes = core.byte_length();
        let first = clone_of(&core, false).await;
        let (here, there) = soon(
            "the end",
            connect(&first, options(|_| {}), &core, options(|_| {})).await,
        )
        .await;
        here.unwrap();
        there.unwrap();
        let down = first.stats();
        assert_eq!((down.downloaded_blocks, down.downloaded_bytes), (6, bytes));
        assert_eq!((down.uploaded_blocks, down.uploaded_bytes), (0, 0));
        let up = core.stats();
        assert_eq!((up.uploaded_blocks, up.uploaded_bytes), (6, bytes));

        // The total goes on with the next peer; the peer's own begins anew.
        let second = clone_of(&core, true).await;
        let _connection = connect_live(&second, &core).await;
        soon("a block", second.get(0)).await.unwrap();
        assert_eq!(core.stats().uploaded_blocks, 7);
        let peers = core.peers();
        assert_eq!(peers.len(), 1);
        assert_eq!(peers[0].stats.uploaded_blocks, 1);
        assert_eq!(peers[0].stats.uploaded_bytes, 7);
        assert_eq!(second.remote_length(), 6);
        assert_eq!(clone_of(&core, true).await.remote_length(), 0);
    });
}

// ---- truncate, of which Node has no test ----------------------------------------------------

async fn with_blocks(storage: Memory, blocks: &[&str]) -> Hypercore {
    let core = Hypercore::options().key_pair(key_pair("cut"));
    let core = core.open_storage(storage).await.unwrap();
    core.append_batch(blocks.iter().map(|block| block.to_string()))
        .await
        .unwrap();
    core
}

/// Cut anywhere, a log is the one that it was then, also after opening it again, and goes on as
/// that one.
#[test]
fn truncate() {
    let blocks = ["a", "bb", "", "dddd", "e", "ff", "ggg", "h", "i", "jj", "k"];
    run(async {
        for length in 0..=blocks.len() {
            let (kept, gone) = blocks.split_at(length);
            let storage = Memory::new();
            let core = with_blocks(storage.clone(), &blocks).await;
            core.truncate(length as u64).await.unwrap();
            assert_eq!(core.length(), length as u64);
            assert_eq!(core.byte_length(), kept.concat().len() as u64);
            assert_eq!(core.downloaded(..), length as u64);
            assert!((length..blocks.len()).all(|index| !core.has(index as u64)));
            let beyond = core.get_with(length as u64, GetOptions::local()).await;
            assert!(matches!(beyond, Err(Error::BlockNotStored { .. })));
            core.close().await.unwrap();

            let core = Hypercore::options().open_storage(storage.clone()).await;
            let core = core.unwrap();
            assert_eq!(core.get_batch(..).await.unwrap(), kept);
            assert!(core.audit().await.unwrap().invalid.is_empty());
            assert!(core.is_writable());
            core.append("new").await.unwrap();
            let never_cut = with_blocks(Memory::new(), &[kept, &["new"]].concat()).await;
            let index = length as u64;
            assert_eq!(
                core.signature(index).await.unwrap(),
                never_cut.signature(index).await.unwrap(),
                "cut to {length}, without {gone:?}"
            );

            // Every proof can be given.
            let clone = clone_of(&core, false).await;
            let ends = connect(&clone, options(|_| {}), &core, options(|_| {})).await;
            soon("the end", ends).await.0.unwrap();
            assert_eq!(clone.downloaded(..), index + 1);
        }
    });
}

#[test]
fn truncate_is_for_writers_and_tells_peers() {
    run(async {
        let core = writer(5).await;
        let longer = core.truncate(6).await;
        assert!(matches!(longer, Err(Error::BadRange { length: 5, .. })));
        let clone = clone_of(&core, true).await;
        let _connection = connect_live(&clone, &core).await;
        soon("a block", clone.get(0)).await.unwrap();
        let refused = clone.truncate(0).await;
        assert!(matches!(refused, Err(Error::NotWritable)), "{refused:?}");
        assert_eq!(clone.remote_length(), 5);
        core.truncate(2).await.unwrap();
        // It hears that the block is gone without asking for it,
        let told = async {
            while clone.remote_length() > 2 {
                future::yield_now().await;
            }
        };
        soon("the end", told).await;
        // and does not wait for an answer that never comes.
        let gone = clone.get_with(4, crate::support::get_if_available());
        let gone = soon("a refusal", gone).await;
        assert!(matches!(gone, Err(Error::NotAvailable)), "{gone:?}");
        assert_eq!(soon("a block", clone.get(1)).await.unwrap(), "block 1");
    });
}
