//! Replication between two cores in this process, over TCP, and what its options change.

use hypercore::{Bytes, Ended, Error, Event, ReplicateOptions};

use crate::support::{
    all_are_here, clone_of, connect, connected, drain, event, get_if_available, options, run, soon,
    writer,
};

#[test]
fn a_clone_downloads_everything_and_both_sides_end() {
    run(async {
        for count in [0, 1, 2, 3, 10, 1000, 9001] {
            let origin = writer(count).await;
            let clone = clone_of(&origin, false).await;
            let ends = connect(
                &clone,
                ReplicateOptions::default(),
                &origin,
                ReplicateOptions::default(),
            )
            .await
            .await;
            assert!(ends.0.is_ok() && ends.1.is_ok(), "{ends:?}");
            assert_eq!(clone.length(), count as u64);
            assert_eq!(clone.downloaded(..), count as u64);
            for index in 0..count {
                assert_eq!(
                    clone.get(index as u64).await.unwrap(),
                    format!("block {index}")
                );
            }
        }
    });
}

#[test]
fn a_live_sparse_clone_reads_what_it_asks_for() {
    run(async {
        let origin = writer(100).await;
        let clone = clone_of(&origin, true).await;
        let _running = connect(
            &clone,
            ReplicateOptions::live(),
            &origin,
            ReplicateOptions::live(),
        )
        .await;
        assert_eq!(clone.update().await.unwrap(), 100);
        assert_eq!(clone.get(42).await.unwrap(), "block 42");
        assert_eq!(clone.downloaded(..), 1);
        origin.append("new").await.unwrap();
        assert_eq!(clone.update().await.unwrap(), 101);
        assert_eq!(clone.head().await.unwrap(), "new");
        let position = clone.seek(300).await.unwrap();
        assert_eq!(position, origin.seek(300).await.unwrap());
    });
}

/// Node's "replicate no upload" and "get block while not uploading".
#[test]
fn a_peer_that_does_not_upload_gives_nothing() {
    run(async {
        let origin = writer(2).await;
        let clone = clone_of(&origin, false).await;
        let silent = options(|options| {
            options.live = true;
            options.upload = false;
        });
        let _connection = connect(&clone, ReplicateOptions::live(), &origin, silent).await;
        connected(&clone, 1).await;
        let get = soon("an answer", clone.get_with(0, get_if_available())).await;
        assert!(matches!(get, Err(Error::NotAvailable)), "{get:?}");
        assert_eq!(clone.length(), 0);
    });
}

/// Node's "replicate no download".
#[test]
fn a_clone_that_does_not_download_takes_nothing_and_ends() {
    run(async {
        let origin = writer(2).await;
        let clone = clone_of(&origin, false).await;
        let upload_only = options(|options| options.download = Some(false));
        let ends = connect(&clone, upload_only, &origin, ReplicateOptions::default()).await;
        let ends = soon("the end", ends).await;
        assert!(
            matches!(ends, (Ok(Ended::Complete), Ok(Ended::Complete))),
            "{ends:?}"
        );
        assert_eq!((clone.length(), clone.downloaded(..)), (0, 0));
    });
}

/// Node's "replicate with ack", "ack only when something is downloaded".
#[test]
fn every_stored_block_is_acknowledged() {
    run(async {
        let origin = writer(5).await;
        let clone = clone_of(&origin, true).await;
        let mut events = origin.events();
        let acks = options(|options| {
            options.live = true;
            options.ack = true;
        });
        let _connection = connect(&clone, ReplicateOptions::live(), &origin, acks).await;
        soon("the length", clone.update()).await.unwrap();
        for index in [4, 1] {
            soon("a block", clone.get(index)).await.unwrap();
            let ack = event(&mut events, |event| matches!(event, Event::Ack { .. })).await;
            assert!(
                matches!(ack, Event::Ack { index: acked, .. } if acked == index),
                "{ack:?}"
            );
        }
        let rest = drain(&mut events).await;
        assert!(
            !rest.iter().any(|event| matches!(event, Event::Ack { .. })),
            "{rest:?}"
        );
    });
}

/// Node's "replicate with NOISE disabled".
#[test]
fn without_encryption_or_handshake() {
    run(async {
        for (noise, encrypted) in [(true, true), (true, false), (false, false)] {
            let plain = || {
                options(|options| {
                    options.noise = noise;
                    options.encrypted = encrypted;
                })
            };
            let origin = writer(50).await;
            let clone = clone_of(&origin, false).await;
            let ends = soon("the end", connect(&clone, plain(), &origin, plain()).await).await;
            assert!(
                matches!(ends, (Ok(Ended::Complete), Ok(Ended::Complete))),
                "{ends:?}"
            );
            all_are_here(&clone, 50).await;
        }
    });
}

/// The largest block that fits into a message with its proof, which takes a few kilobytes at most.
#[test]
fn a_block_that_fills_a_message_is_replicated() {
    run(async {
        let origin = writer(100).await;
        let large: Bytes = vec![7; 8 * 1024 * 1024 - 8 * 1024].into();
        origin.append(large.clone()).await.unwrap();
        let clone = clone_of(&origin, false).await;
        let default = ReplicateOptions::default;
        let ends = soon(
            "the end",
            connect(&clone, default(), &origin, default()).await,
        )
        .await;
        assert!(
            matches!(ends, (Ok(Ended::Complete), Ok(Ended::Complete))),
            "{ends:?}"
        );
        assert!(clone.get(100).await.unwrap() == large);
    });
}
