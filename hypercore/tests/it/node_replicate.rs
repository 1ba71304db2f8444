//! What `test/ack.js`, `test/audit.js`, `test/replicate.js` and `test/seek.js` of Node's Hypercore 9
//! check, as far as no other test does.

use std::ops::Range;

use futures_lite::future::{poll_once, zip};
use hypercore::{
    Error, Event, Events, Hypercore, ReplicateOptions, Role, SeekOptions,
    storage::{FileName, Memory},
};

use crate::support::{
    clone_of, clone_with, connect, connect_live, connected, disconnected, drain, event, options,
    run, soon, tcp_pair, writer,
};

fn acks() -> ReplicateOptions {
    options(|options| {
        options.ack = true;
        options.live = true;
    })
}

async fn ack_of(core: &mut Events) -> u64 {
    let acked = event(core, |event| matches!(event, Event::Ack { .. })).await;
    let Event::Ack { index, .. } = acked else {
        unreachable!()
    };
    index
}

// ---- test/ack.js ----------------------------------------------------------------------------

#[test]
fn simultaneous_replication_with_ack_and_no_ack() {
    run(async {
        let core = writer(0).await;
        let (with, without) = (clone_of(&core, false).await, clone_of(&core, false).await);
        let [ours, theirs] =
            [&core, &without].map(|core| core.register_extension("stored").unwrap());
        let mut events = core.events();
        let _asking = connect(&with, ReplicateOptions::live(), &core, acks()).await;
        connected(&core, 1).await;
        let asked = core.peers()[0].id;
        let _silent = connect_live(&without, &core).await;
        connected(&core, 2).await;
        let mut arrived = without.events();
        core.append("one").await.unwrap();
        event(&mut arrived, |event| {
            matches!(event, Event::Download { .. })
        })
        .await;
        // What it says after an ack comes after the ack.
        assert_eq!(theirs.broadcast("stored"), 1);
        soon("its word", ours.receive()).await;
        let acked = event(&mut events, |event| matches!(event, Event::Ack { .. })).await;
        assert!(matches!(acked, Event::Ack { index: 0, peer } if peer == asked));
        let rest = drain(&mut events).await;
        assert!(!rest.iter().any(|event| matches!(event, Event::Ack { .. })));
    });
}

#[test]
fn simultaneous_replication_with_two_acks() {
    run(async {
        let core = writer(0).await;
        let clones = [clone_of(&core, false).await, clone_of(&core, false).await];
        let mut events = core.events();
        let _connections = (
            connect(&clones[0], ReplicateOptions::live(), &core, acks()).await,
            connect(&clones[1], ReplicateOptions::live(), &core, acks()).await,
        );
        connected(&core, 2).await;
        core.append("one").await.unwrap();
        let mut who = Vec::new();
        for _ in 0..2 {
            let acked = event(&mut events, |event| matches!(event, Event::Ack { .. })).await;
            let Event::Ack { index: 0, peer } = acked else {
                panic!("{acked:?}")
            };
            who.push(peer);
        }
        assert_ne!(who[0], who[1]);
    });
}

/// Whoever is asked by a middle man acknowledges to him, not to the writer.
#[test]
fn transitive_clone_acks() {
    run(async {
        let core = writer(0).await;
        let (middle, end) = (clone_of(&core, false).await, clone_of(&core, false).await);
        let (mut of_core, mut of_middle) = (core.events(), middle.events());
        let _connections = (
            connect(&middle, ReplicateOptions::live(), &core, acks()).await,
            connect(&end, ReplicateOptions::live(), &middle, acks()).await,
        );
        connected(&middle, 2).await;
        core.append("one").await.unwrap();
        assert_eq!(ack_of(&mut of_core).await, 0);
        assert_eq!(ack_of(&mut of_middle).await, 0);
        let rest = drain(&mut of_core).await;
        assert!(!rest.iter().any(|event| matches!(event, Event::Ack { .. })));
    });
}

#[test]
fn acks_where_clones_should_not_ack() {
    run(async {
        let core = writer(3).await;
        let mut events = core.events();
        for _ in 0..2 {
            let clone = clone_of(&core, false).await;
            let mut of_clone = clone.events();
            exchange(&core, &clone).await;
            assert_eq!(acked(&mut events).await, [0, 1, 2]);
            // The clone asked for acknowledgements, too, but gave nothing.
            assert_eq!(acked(&mut of_clone).await, [0; 0]);
        }
    });
}

/// Node's own schedule: what the first acknowledges to the second, and the second to the first,
/// follows each connection.
#[test]
fn larger_gossip_network_acks() {
    const NONE: Range<u64> = 0..0;
    // The length of the log, who connects, and what each of the two hears acknowledged.
    #[rustfmt::skip]
    let schedule = [
        (1, [0, 1], [0..1, NONE]),
        (3, [1, 2], [0..1, NONE]),
        (3, [0, 1], [1..3, NONE]),
        (6, [0, 5], [0..6, NONE]),
        (6, [2, 5], [NONE, 1..6]),
        (6, [5, 6], [0..6, NONE]),
        (6, [1, 6], [NONE, 3..6]),
        (8, [4, 2], [NONE, 0..6]),
        (8, [0, 7], [0..8, NONE]),
        (8, [4, 7], [NONE, 6..8]),
        (8, [4, 5], [6..8, NONE]),
        (8, [5, 8], [0..8, NONE]),
        (11, [0, 8], [8..11, NONE]),
        (11, [5, 9], [0..8, NONE]),
        (11, [8, 4], [8..11, NONE]),
        (15, [9, 0], [NONE, 8..15]),
        (15, [2, 9], [NONE, 6..15]),
    ];
    run(async {
        let mut cores = vec![writer(0).await];
        for _ in 1..10 {
            cores.push(clone_of(&cores[0], false).await);
        }
        for (length, pair, expected) in schedule {
            for index in cores[0].length()..length {
                cores[0].append(format!("block {index}")).await.unwrap();
            }
            let [a, b] = pair.map(|core| &cores[core]);
            let mut events = [a.events(), b.events()];
            exchange(a, b).await;
            for (events, expected) in events.iter_mut().zip(expected) {
                let expected: Vec<_> = expected.collect();
                assert_eq!(acked(events).await, expected, "{pair:?} at {length}");
            }
        }
    });
}

/// Connects two cores that both want acknowledgements until all is exchanged.
async fn exchange(a: &Hypercore, b: &Hypercore) {
    let acks = || options(|options| options.ack = true);
    let ends = connect(a, acks(), b, acks()).await;
    let (a, b) = soon("the end", ends).await;
    a.and(b).unwrap();
}

/// The blocks that were acknowledged, in order.
async fn acked(events: &mut Events) -> Vec<u64> {
    let events = drain(events).await.into_iter();
    let acks = events.filter_map(|event| match event {
        Event::Ack { index, .. } => Some(index),
        _ => None,
    });
    let mut acks: Vec<_> = acks.collect();
    acks.sort_unstable();
    acks
}

// ---- test/audit.js --------------------------------------------------------------------------

#[test]
fn basic_audit_and_with_bad_data() {
    run(async {
        let storage = Memory::new();
        let core = Hypercore::options().open_storage(storage.clone()).await;
        let core = core.unwrap();
        core.append_batch(["hello", "world", "!"]).await.unwrap();
        let audit = core.audit().await.unwrap();
        assert_eq!((audit.valid, &audit.invalid[..]), (3, &[][..]));

        let mut data = storage.read(FileName::Data);
        data[5] = b'W';
        storage.write(FileName::Data, &data);
        let audit = core.audit().await.unwrap();
        assert_eq!((audit.valid, &audit.invalid[..]), (2, &[1][..]));
        // JS: the audit itself takes the block away.
        assert!(core.has(1));
        core.clear(1..2).await.unwrap();
        let audit = core.audit().await.unwrap();
        assert_eq!((audit.valid, &audit.invalid[..]), (2, &[][..]));
    });
}

// ---- test/replicate.js ----------------------------------------------------------------------

#[test]
fn destroy_replication_stream_before_handshake() {
    run(async {
        let core = writer(3).await;
        let clone = clone_of(&core, false).await;
        let (client, server) = tcp_pair().await;
        let gone = clone.replicate(Role::Initiator, ReplicateOptions::live());
        drop(gone.unwrap());
        let serving = core.replicate_over(server, Role::Responder, ReplicateOptions::live());
        drop(client);
        // Nothing was exchanged, and nothing is wrong with the core.
        let _ = soon("the end", serving).await;
        disconnected(&core).await;
        disconnected(&clone).await;
        let ends = connect(&clone, options(|_| {}), &core, options(|_| {})).await;
        soon("the end", ends).await.0.unwrap();
        assert_eq!(clone.downloaded(..), 3);
    });
}

#[test]
fn replicate_while_cancelling() {
    run(async {
        let core = writer(64).await;
        let clone = clone_of(&core, true).await;
        let _connection = connect_live(&clone, &core).await;
        let told = async {
            while clone.remote_length() < 64 {
                async_std::task::yield_now().await;
            }
        };
        soon("what the writer has", told).await;
        // Requests are made and taken back, some before and some after they were sent.
        for round in 0..64 {
            let mut get = Box::pin(clone.get(round));
            for _ in 0..round % 5 {
                if poll_once(&mut get).await.is_some() {
                    break;
                }
                async_std::task::yield_now().await;
            }
            if round % 2 == 0 {
                clone.cancel(..);
            }
        }
        // What was sent for nothing does no harm when it comes.
        let answered = async {
            while clone.peers().iter().any(|peer| peer.in_flight > 0) {
                async_std::task::yield_now().await;
            }
        };
        soon("answers that nobody waits for", answered).await;
        assert!(clone.downloaded(..) > 0);
        // Whatever came of them, everything can be had.
        let all = soon("all blocks", clone.get_batch(0..64)).await.unwrap();
        assert_eq!(all.len(), 64);
    });
}

#[test]
fn regression_replicate_without_timeout() {
    run(async {
        let core = writer(3).await;
        let clone = clone_of(&core, false).await;
        let patient = || options(|options| options.timeout = None);
        let ends = connect(&clone, patient(), &core, patient()).await;
        let (one, other) = soon("the end", ends).await;
        one.unwrap();
        other.unwrap();
        assert_eq!(clone.downloaded(..), 3);
    });
}

#[test]
fn double_replicate() {
    run(async {
        let core = writer(20).await;
        let clone = clone_of(&core, false).await;
        let first = connect(&clone, options(|_| {}), &core, options(|_| {})).await;
        let second = connect(&clone, options(|_| {}), &core, options(|_| {})).await;
        let ((a, b), (c, d)) = soon("the ends", zip(first, second)).await;
        for end in [a, b, c, d] {
            end.unwrap();
        }
        assert_eq!(clone.stats().downloaded_blocks, 20, "none came twice");
    });
}

#[test]
fn replicate_from_very_sparse() {
    run(async {
        let core = writer(10_000).await;
        let sparse = clone_with(&core, [9_000]).await;
        let clone = clone_of(&core, true).await;
        let _connection = connect_live(&clone, &sparse).await;
        let block = soon("the only block", clone.get(9_000)).await.unwrap();
        assert_eq!(block, "block 9000");
        assert_eq!(clone.length(), 10_000);
    });
}

#[test]
fn sparse_mode_two_downloads() {
    run(async {
        let core = writer(10).await;
        let clone = clone_of(&core, true).await;
        let _connection = connect_live(&clone, &core).await;
        soon("a part", clone.download(0..5)).await.unwrap();
        assert_eq!(clone.downloaded(..), 5);
        soon("more", clone.download(3..8)).await.unwrap();
        assert_eq!(clone.downloaded(..), 8);
    });
}

#[test]
fn seek_while_replicating() {
    run(async {
        let core = writer(0).await;
        core.append_batch(["aa", "bbb", "c", "dddd"]).await.unwrap();
        let clone = clone_of(&core, false).await;
        let _connection = connect_live(&clone, &core).await;
        for (byte, index, offset) in [(6, 3, 0), (9, 3, 3), (2, 1, 0), (5, 2, 0)] {
            let position = soon("a position", clone.seek(byte)).await.unwrap();
            assert_eq!((position.index, position.offset), (index, offset));
        }
    });
}

// ---- test/seek.js ---------------------------------------------------------------------------

#[test]
fn seek_works_for_sparse_trees() {
    run(async {
        let core = writer(0).await;
        let blocks = (0..100).map(|index| vec![7; 1 + index % 10]);
        core.append_batch(blocks).await.unwrap();
        let clone = clone_of(&core, true).await;
        let _connection = connect_live(&clone, &core).await;
        soon("the length", clone.update()).await.unwrap();
        for byte in [549, 0, 55, 56, 300] {
            let found = soon("a position", clone.seek(byte)).await.unwrap();
            assert_eq!(found, core.seek(byte).await.unwrap());
        }
        assert!(clone.downloaded(..) < 100, "found without everything");
    });
}

#[test]
fn seek_if_available_multiple_peers() {
    run(async {
        let if_available = || {
            let mut options = SeekOptions::default();
            options.if_available = true;
            options
        };
        let core = writer(10).await;
        let clone = clone_of(&core, true).await;
        // One that has nothing, and one that has everything.
        let empty = clone_of(&core, true).await;
        let _empty = connect_live(&clone, &empty).await;
        connected(&clone, 1).await;
        let nowhere = soon("a refusal", clone.seek_with(20, if_available())).await;
        assert!(matches!(nowhere, Err(Error::NotAvailable)), "{nowhere:?}");
        let _full = connect_live(&clone, &core).await;
        connected(&clone, 2).await;
        let found = soon("a position", clone.seek_with(20, if_available())).await;
        assert_eq!(found.unwrap(), core.seek(20).await.unwrap());
    });
}

#[test]
fn seek_if_available_with_many_inflight_requests() {
    run(async {
        let core = Hypercore::options().open_memory().await.unwrap();
        core.append_batch(["a"; 100]).await.unwrap();
        let clone = clone_of(&core, true).await;
        let mut gets: Vec<_> = (0..100).map(|index| Box::pin(clone.get(index))).collect();
        for get in &mut gets {
            assert!(poll_once(get).await.is_none());
        }
        let _connection = connect_live(&clone, &core).await;
        let mut if_available = SeekOptions::default();
        if_available.if_available = true;
        let found = soon("a position", clone.seek_with(2, if_available)).await;
        let found = found.unwrap();
        assert_eq!((found.index, found.offset), (2, 0));
        for get in gets {
            assert_eq!(soon("a block", get).await.unwrap(), "a");
        }
    });
}
