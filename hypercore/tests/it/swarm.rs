//! Several cores at once: who has what, who tells whom, and who asks whom.

use async_std::task;
use futures_lite::future::poll_once;
use hypercore::{
    Ended, Error, Hypercore, PeerInfo, ReplicateOptions, Replication, Role, storage::Memory,
};

use crate::{
    puppet::{Puppet, have},
    support::{
        all_are_here, clone_of, clone_with, connect, connect_live, connected, disconnected,
        get_if_available, run, soon, tcp_pair, writer,
    },
};

#[test]
fn six_seeders_with_a_part_each_make_a_whole() {
    run(async {
        let origin = writer(60).await;
        let mut seeders = Vec::new();
        for part in 0..6 {
            seeders.push(clone_with(&origin, part * 10..part * 10 + 10).await);
        }
        let clone = clone_of(&origin, false).await;
        let mut connections = Vec::new();
        for seeder in &seeders {
            connections.push(connect_live(&clone, seeder).await);
        }
        soon("all blocks", clone.download(0..60)).await.unwrap();
        all_are_here(&clone, 60).await;
        let mut downloaded = 0;
        for peer in clone.peers() {
            assert_eq!(peer.stats.downloaded_blocks, 10, "each has ten");
            downloaded += peer.stats.downloaded_bytes;
        }
        assert_eq!(downloaded, clone.byte_length());
    });
}

/// Two readers complete each other, and end. Node's "non live, two way".
#[test]
fn two_readers_complete_each_other() {
    run(async {
        let origin = writer(40).await;
        // What each has already was wanted by nobody but the test.
        let halves = [0, 1].map(|half| (0..40).filter(move |index| index % 2 == half));
        let mut stores = Vec::new();
        for half in halves {
            let memory = Memory::new();
            let sparse = Hypercore::options().key(origin.key()).sparse(true);
            let clone = sparse.open_storage(memory.clone()).await.unwrap();
            let connection = connect_live(&clone, &origin).await;
            for index in half {
                clone.get(index).await.unwrap();
            }
            connection.cancel().await;
            disconnected(&clone).await;
            clone.close().await.unwrap();
            stores.push(memory);
        }
        let mut readers = Vec::new();
        for memory in stores {
            readers.push(Hypercore::options().open_storage(memory).await.unwrap());
        }
        for reader in &readers {
            assert_eq!(reader.downloaded(..), 20);
            assert!(!reader.is_writable());
        }
        let default = ReplicateOptions::default;
        let connection = connect(&readers[0], default(), &readers[1], default()).await;
        let ends = soon("the end", connection).await;
        assert!(
            matches!(ends, (Ok(Ended::Complete), Ok(Ended::Complete))),
            "{ends:?}"
        );
        for reader in &readers {
            all_are_here(reader, 40).await;
        }
    });
}

/// Node's "basic 3-way replication": what A has from the writer, B has from A.
#[test]
fn blocks_travel_along_a_live_chain() {
    run(async {
        let origin = writer(3).await;
        let (a, b) = (
            clone_of(&origin, false).await,
            clone_of(&origin, false).await,
        );
        let _first = connect_live(&a, &origin).await;
        let _second = connect_live(&b, &a).await;
        soon("old blocks", b.download(0..3)).await.unwrap();
        for index in 3..20 {
            origin.append(format!("block {index}")).await.unwrap();
            soon("a new block", b.download(index..index + 1))
                .await
                .unwrap();
        }
        all_are_here(&b, 20).await;
        assert_eq!(origin.peers().len(), 1);
        let uploaded = origin.peers()[0].stats.uploaded_blocks;
        assert_eq!(uploaded, 20, "once is enough");
    });
}

/// Node's "replicate twice" and "double replicate": two connections between the same cores.
#[test]
fn two_connections_share_the_work() {
    run(async {
        let origin = writer(2000).await;
        let clone = clone_of(&origin, true).await;
        let _first = connect_live(&clone, &origin).await;
        let _second = connect_live(&clone, &origin).await;
        let both_have_told = async {
            let have_told = |peers: &[PeerInfo]| {
                peers.len() == 2 && peers.iter().all(|peer| peer.remote_length == 2000)
            };
            while !have_told(&clone.peers()) {
                task::yield_now().await;
            }
        };
        soon("what both have", both_have_told).await;
        soon("all blocks", clone.download(0..2000)).await.unwrap();
        all_are_here(&clone, 2000).await;
        let peers = clone.peers();
        let blocks: u64 = peers.iter().map(|peer| peer.stats.downloaded_blocks).sum();
        assert_eq!(blocks, 2000, "{blocks} blocks came");
        assert!(peers.iter().all(|peer| peer.stats.downloaded_blocks > 0));
    });
}

#[test]
fn a_reader_follows_a_thousand_live_appends() {
    run(async {
        let origin = writer(0).await;
        let reader = Hypercore::options()
            .key(origin.key())
            .sparse(true)
            .eager_update(true)
            .open_memory()
            .await
            .unwrap();
        let lazy = clone_of(&origin, true).await;
        let _following = connect_live(&reader, &origin).await;
        let _idle = connect_live(&lazy, &origin).await;
        connected(&origin, 2).await;
        for index in 0..1000 {
            origin.append(format!("block {index}")).await.unwrap();
        }
        let followed = async {
            while reader.length() < 1000 {
                task::yield_now().await;
            }
        };
        soon("the length", followed).await;
        assert_eq!(reader.byte_length(), origin.byte_length());
        assert_eq!(reader.downloaded(..), 0, "a length, no blocks");
        assert_eq!(soon("a block", reader.get(777)).await.unwrap(), "block 777");
        assert_eq!(lazy.length(), 0, "nobody asked");
    });
}

/// Node's "replicate while clearing".
#[test]
fn cleared_blocks_are_withdrawn_and_come_again() {
    run(async {
        let origin = writer(4).await;
        let clone = clone_of(&origin, true).await;
        let connection = connect_live(&clone, &origin).await;
        soon("a block", clone.get(0)).await.unwrap();
        soon("a block", clone.get(3)).await.unwrap();

        origin.clear(1..2).await.unwrap();
        // Appended later, so announced later: now the other side knows about the clearing.
        origin.append("block 4").await.unwrap();
        soon("the length", clone.update()).await.unwrap();
        let get = soon("an answer", clone.get_with(1, get_if_available())).await;
        assert!(matches!(get, Err(Error::NotAvailable)), "{get:?}");

        clone.clear(0..1).await.unwrap();
        assert!(!clone.has(0));
        assert_eq!(soon("a block", clone.get(0)).await.unwrap(), "block 0");
        connection.cancel().await;
    });
}

#[test]
fn a_peer_tells_what_it_is_asked_for_and_how_fast_it_answers() {
    run(async {
        let core = writer(3).await;
        let clone = clone_of(&core, true).await;
        let (client, server) = tcp_pair().await;
        let ours = Replication::new(Role::Initiator, ReplicateOptions::live()).unwrap();
        let id = ours.add(&clone).unwrap();
        assert_eq!(ours.add(&clone).unwrap(), id, "it is there already");
        let _ours = task::spawn(ours.run(client));
        let mut silent = Puppet::new(&clone, server).await;
        silent.send(have(0, 3)).await;
        let mut gets = [2, 0].map(|index| Box::pin(clone.get(index)));
        for get in &mut gets {
            assert!(poll_once(get).await.is_none());
        }
        for _ in 0..2 {
            while soon("a request", silent.request()).await.unwrap().hash {}
        }
        let peer = clone.peers().remove(0);
        assert_eq!(peer.id, id);
        let mut asked = peer.asked;
        asked.sort_unstable();
        assert_eq!(asked, [0, 2]);
        assert!(peer.in_flight >= 2, "{}", peer.in_flight);
        assert_eq!((peer.delay, peer.bytes_per_second), (None, None));

        let _answers = connect_live(&clone, &core).await;
        for get in gets {
            soon("a block", get).await.unwrap();
        }
        soon("a block", clone.get(1)).await.unwrap();
        let peers = clone.peers();
        let other = peers.iter().find(|peer| peer.id != id).unwrap();
        assert!(other.delay.is_some() && other.bytes_per_second.is_some());
    });
}
