//! What `test/ack.js`, `test/audit.js`, `test/replicate.js` and `test/seek.js` of Node's Hypercore 9
//! check, as far as no other test does.

use futures_lite::future::{poll_once, zip};
use hypercore::{
    Error, Event, Hypercore, ReplicateOptions, Role, SeekOptions,
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

async fn ack_of(core: &mut hypercore::Events) -> u64 {
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
        let mut events = core.events();
        let _connections = (
            connect(&with, ReplicateOptions::live(), &core, acks()).await,
            connect_live(&without, &core).await,
        );
        connected(&core, 2).await;
        let mut arrived = without.events();
        core.append("one").await.unwrap();
        event(&mut arrived, |event| {
            matches!(event, Event::Download { .. })
        })
        .await;
        assert_eq!(ack_of(&mut events).await, 0);
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
        connected(&clone, 1).await;
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
