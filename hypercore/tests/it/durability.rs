//! What is not durable yet is here, and nobody else hears of it.

use std::time::{Duration, Instant};

use hypercore::{
    Durability, Error, GetOptions, Hypercore,
    storage::{
        FileName, Memory, Storage,
        testing::{Fault, FaultStorage},
    },
    wire::{Message, Request},
};

use crate::{
    puppet::Puppet,
    support::{
        clone_of, connect_live, connected, eventually, get_if_available, run, soon,
        update_if_available, writer,
    },
    writing::Gated,
};

async fn open(storage: &FaultStorage, durability: Durability) -> Hypercore {
    let options = Hypercore::options().durability(durability);
    options.open_storage(storage.clone()).await.unwrap()
}

/// How many blocks the worst loss of power would leave.
async fn length_after_power_cut(storage: &FaultStorage) -> u64 {
    let mut least = u64::MAX;
    for seed in 0..20 {
        let image: Memory = storage.power_cut(seed);
        let core = Hypercore::options()
            .durability(Durability::OnClose)
            .open_storage(image)
            .await
            .unwrap();
        least = least.min(core.length());
    }
    least
}

#[test]
fn peers_hear_of_appends_when_they_are_flushed() {
    run(async {
        let core = open(&FaultStorage::new(), Durability::OnClose).await;
        core.append("first").await.unwrap();
        core.flush().await.unwrap();
        let clone = clone_of(&core, true).await;
        let _connection = connect_live(&clone, &core).await;
        connected(&clone, 1).await;
        assert_eq!(soon("the length", clone.update()).await.unwrap(), 1);

        core.append_batch(["second", "third"]).await.unwrap();
        assert_eq!(core.get(2).await.unwrap(), "third");
        let update = soon("an answer", clone.update_with(update_if_available())).await;
        assert!(matches!(update, Err(Error::NotAvailable)), "{update:?}");
        // Nor do those who come now, and what they get is not signed for more.
        let late = clone_of(&core, true).await;
        let _late = connect_live(&late, &core).await;
        connected(&late, 1).await;
        assert_eq!(soon("a block", late.get(0)).await.unwrap(), "first");
        assert_eq!(late.length(), 1);
        let get = soon("an answer", late.get_with(1, get_if_available())).await;
        assert!(matches!(get, Err(Error::NotAvailable)), "{get:?}");

        core.flush().await.unwrap();
        assert_eq!(soon("a block", clone.get(2)).await.unwrap(), "third");
        assert_eq!(soon("a block", late.get(1)).await.unwrap(), "second");
        assert_eq!((clone.length(), late.length()), (3, 3));
    });
}

#[test]
fn an_interval_makes_appends_durable_and_then_tells_peers() {
    run(async {
        let storage = FaultStorage::new();
        let core = open(&storage, Durability::Interval(Duration::from_millis(300))).await;
        let clone = clone_of(&core, false).await;
        let _connection = connect_live(&clone, &core).await;
        connected(&clone, 1).await;

        let start = Instant::now();
        for index in 0..5 {
            core.append(format!("block {index}")).await.unwrap();
        }
        assert!(storage.unsynced_sectors() > 0);
        assert_eq!(
            core.get_with(4, GetOptions::local()).await.unwrap(),
            "block 4"
        );
        assert_eq!(
            soon("the last block", clone.get(4)).await.unwrap(),
            "block 4"
        );
        assert!(start.elapsed() >= Duration::from_millis(250), "too early");
        // Whatever a peer has is still here afterwards.
        assert_eq!(length_after_power_cut(&storage).await, 5);

        // The next ones get their own time.
        core.append("block 5").await.unwrap();
        assert_eq!(
            soon("the next block", clone.get(5)).await.unwrap(),
            "block 5"
        );
        assert_eq!(length_after_power_cut(&storage).await, 6);
    });
}

/// More cores than there are threads for what waits for a disk.
#[test]
fn cores_that_wait_for_their_interval_hold_no_thread() {
    run(async {
        let durability = Durability::Interval(Duration::from_secs(3600));
        let mut cores = Vec::new();
        for _ in 0..600 {
            let core = Hypercore::options().durability(durability);
            cores.push(core.open_memory().await.unwrap());
            cores.last().unwrap().append("a block").await.unwrap();
        }
        for core in &cores {
            soon("a flush", core.flush()).await.unwrap();
        }
    });
}

/// Node opens a log at the length that its bitfield claims.
#[test]
fn what_was_appended_for_node_is_in_the_bitfield_after_a_loss_of_power() {
    run(async {
        let storage = FaultStorage::new();
        let core = open(&storage, Durability::Interop).await;
        for index in 0..3 {
            core.append(format!("block {index}")).await.unwrap();
            let written = storage.image().read(FileName::Bitfield);
            for seed in 0..20 {
                let left = storage.power_cut(seed).read(FileName::Bitfield);
                assert!(left == written, "after block {index}");
            }
        }
    });
}

/// At any place of a batch, between any appends.
#[test]
fn a_block_that_is_too_large_changes_nothing() {
    run(async {
        let storage = FaultStorage::new();
        let core = open(&storage, Durability::Always).await;
        let too_large = hypercore::Bytes::from(vec![0; 8 * 1024 * 1024 + 1]);
        let mut expected = Vec::new();
        for position in 0..1000_usize {
            let mut batch: Vec<_> = (0..1 + position * 7 % 5)
                .map(|block| hypercore::Bytes::from(format!("{position} {block}")))
                .collect();
            let whole = batch.clone();
            batch.insert(position * 11 % (batch.len() + 1), too_large.clone());
            let before = storage.operations();
            let refused = core.append_batch(batch).await.unwrap_err();
            assert!(refused.to_string().contains("8388608"), "{refused}");
            assert_eq!(storage.operations(), before, "nothing is written");
            assert_eq!(core.length(), expected.len() as u64);
            if position % 3 == 0 {
                core.append_batch(whole.clone()).await.unwrap();
                expected.extend(whole);
            }
        }
        assert_eq!(
            length_after_power_cut(&storage).await,
            expected.len() as u64
        );
        assert_eq!(core.get_batch(0..core.length()).await.unwrap(), expected);
        assert!(core.verify().await.unwrap().is_ok());
    });
}

/// The keys of a log that Node made, which syncs nothing, were never made durable: an append was, and
/// nobody could open the log, or append to it.
#[test]
fn keys_are_durable_before_an_append_is() {
    run(async {
        let made = Memory::new();
        let core = Hypercore::options().open_storage(made.clone()).await;
        core.unwrap().close().await.unwrap();
        let storage = FaultStorage::new();
        for file in FileName::ALL {
            let unsynced = storage.open(file).unwrap();
            unsynced.write_at(0, &made.read(file)).unwrap();
        }
        let core = open(&storage, Durability::Always).await;
        core.append("first").await.unwrap();
        for seed in 0..100 {
            let image = storage.power_cut(seed);
            let core = Hypercore::options().open_storage(image).await.unwrap();
            assert_eq!(core.get(0).await.unwrap(), "first");
            assert!(core.is_writable());
        }
    });
}

/// The next sync succeeds, and says nothing of what the one before has lost.
#[test]
fn a_truncation_whose_sync_fails_ends_all_writing() {
    run(async {
        let storage = FaultStorage::new();
        let core = open(&storage, Durability::OnClose).await;
        core.append_batch(["one", "two", "three"]).await.unwrap();
        storage.fail_at(0, Fault::Sync);
        assert!(core.truncate(2).await.is_err());
        let flushed = core.flush().await;
        assert!(matches!(flushed, Err(Error::Poisoned)), "{flushed:?}");
    });
}

/// The next answer to a request.
async fn answer(puppet: &mut Puppet) -> Message {
    loop {
        let message = puppet.message().await.expect("it stays");
        if matches!(message, Message::Data(_) | Message::Unhave(_)) {
            return message;
        }
    }
}

/// The byte had been found in what was not public, and the next request for it counted as a repeated one.
#[test]
fn a_byte_that_is_asked_for_before_it_is_public() {
    run(async {
        let core = open(&FaultStorage::new(), Durability::OnClose).await;
        core.append("first").await.unwrap();
        core.flush().await.unwrap();
        core.append("second").await.unwrap();
        let (mut puppet, _) = Puppet::connect_live(&core).await;
        let request = Message::Request(Request {
            index: 1,
            bytes: 6,
            hash: false,
            nodes: 0,
        });
        puppet.send(request.clone()).await;
        let refused = soon("a refusal", answer(&mut puppet)).await;
        assert!(matches!(refused, Message::Unhave(_)), "{refused:?}");
        core.flush().await.unwrap();
        puppet.send(request).await;
        let sent = soon("the block", answer(&mut puppet)).await;
        assert!(matches!(sent, Message::Data(_)), "{sent:?}");
    });
}

/// Nobody had waited for it, it was found by a program that could not make it durable, and peers heard
/// of it before it was lost.
#[test]
fn what_was_found_and_cannot_be_made_durable_is_not_told() {
    run(async {
        let storage = FaultStorage::new();
        let core = open(&storage, Durability::OnClose).await;
        core.append("first").await.unwrap();
        core.flush().await.unwrap();
        core.append("second").await.unwrap();
        storage.fail_from(0, Fault::Io);
        drop(core);
        storage.fail_from(0, Fault::Full);
        let core = open(&storage, Durability::OnClose).await;
        assert_eq!(core.length(), 2);
        assert_eq!(core.get(1).await.unwrap(), "second");
        let clone = clone_of(&core, true).await;
        let _connection = connect_live(&clone, &core).await;
        connected(&clone, 1).await;
        assert_eq!(soon("the length", clone.update()).await.unwrap(), 1);
        assert_eq!(soon("a block", clone.get(0)).await.unwrap(), "first");
        let get = soon("an answer", clone.get_with(1, get_if_available())).await;
        assert!(matches!(get, Err(Error::NotAvailable)), "{get:?}");
    });
}

/// What came while others were made durable waited for the interval, which is for appends.
#[test]
fn downloads_do_not_wait_for_an_interval() {
    run(async {
        let writer = writer(3000).await;
        let storage = Gated::new(FaultStorage::new(), FileName::Data);
        let clone = Hypercore::options()
            .key(writer.key())
            .sparse(true)
            .durability(Durability::Interval(Duration::from_secs(3600)))
            .open_storage(storage.clone())
            .await
            .unwrap();
        let _connection = connect_live(&clone, &writer).await;
        soon("a block", clone.download(0..1)).await.unwrap();
        let gate = storage.close();
        soon("all blocks", clone.download(0..3000)).await.unwrap();
        gate.open();
        let all_are_stored = async || {
            let left = Hypercore::options().open_storage(storage.storage.image());
            left.await.unwrap().downloaded(..) == 3000
        };
        eventually("the bits of all blocks", all_are_stored).await;
    });
}

/// No connection had a timer for them.
#[test]
fn blocks_that_are_put_become_durable_without_a_peer() {
    run(async {
        let writer = writer(2).await;
        let storage = FaultStorage::new();
        let clone = Hypercore::options().key(writer.key());
        let clone = clone.open_storage(storage.clone()).await.unwrap();
        for index in 0..2 {
            let block = writer.get(index).await.unwrap();
            let proof = writer.proof(index).await.unwrap().unwrap();
            clone.put(index, Some(block), &proof).await.unwrap();
        }
        let both_are_durable = async || {
            for image in [storage.image(), storage.power_cut(0)] {
                let left = Hypercore::options().open_storage(image).await.unwrap();
                if !left.has_all(0..2) {
                    return false;
                }
            }
            true
        };
        eventually("both blocks", both_are_durable).await;
    });
}

/// What was appended beside it was noted to be durable, and its length to be signed.
#[test]
fn appends_beside_an_accepted_risk_are_noted_as_what_they_are() {
    run(async {
        let storage = Gated::new(FaultStorage::new(), FileName::Bitfield);
        let core = Hypercore::options().durability(Durability::OnClose);
        let core = core.open_storage(storage.clone()).await.unwrap();
        core.append("first").await.unwrap();
        let gate = storage.close();
        let accepting = async_std::task::spawn({
            let core = core.clone();
            async move { core.accept_fork_risk().await }
        });
        async_io::Timer::after(Duration::from_millis(300)).await;
        let appending = async_std::task::spawn({
            let core = core.clone();
            async move { core.append_batch(["second", "third"]).await }
        });
        async_io::Timer::after(Duration::from_millis(300)).await;
        gate.open();
        soon("the risk", accepting).await.unwrap();
        soon("an append", appending).await.unwrap();
        for seed in 0..50 {
            let image = FaultStorage::from_image(&storage.storage.power_cut(seed));
            let left = Hypercore::options().open_storage(image).await.unwrap();
            assert_eq!(left.append_lock(), None, "seed {seed}");
            assert!(left.is_writable(), "seed {seed}: {:?}", left.recovery());
        }
    });
}
