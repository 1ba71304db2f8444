//! Requests that wait for what is not here, and what ends their waiting.

use std::time::Duration;

use futures_lite::StreamExt;
use hypercore::{Error, GetOptions, Position, SeekOptions, UpdateOptions};

use crate::support::{
    clone_of, connect_live, get_if_available, run, seek_locally, soon, start, update_if_available,
    writer,
};

/// Node's "head".
#[test]
fn head_is_the_last_block() {
    run(async {
        let core = writer(0).await;
        assert!(matches!(core.head().await, Err(Error::Empty)));
        core.append_batch(["a", "b"]).await.unwrap();
        assert_eq!(core.head().await.unwrap(), "b");
        core.clear(1..2).await.unwrap();
        let missing = core.head_with(GetOptions::local()).await;
        assert!(
            matches!(missing, Err(Error::BlockNotStored { index: 1 })),
            "{missing:?}"
        );
    });
}

#[test]
fn get_update_seek_and_download_wait_for_an_append() {
    run(async {
        let core = writer(1).await;
        let mut get = Box::pin(core.get(2));
        let mut update = Box::pin(core.update());
        let mut further = UpdateOptions::default();
        further.min_length = Some(3);
        let mut further = Box::pin(core.update_with(further));
        let mut seek = Box::pin(core.seek(20));
        let mut download = Box::pin(core.download(0..3));
        start(get.as_mut()).await;
        start(update.as_mut()).await;
        start(further.as_mut()).await;
        start(seek.as_mut()).await;
        start(download.as_mut()).await;

        core.append("block 1").await.unwrap();
        assert_eq!(soon("the update", update).await.unwrap(), 2);
        start(get.as_mut()).await;
        start(further.as_mut()).await;
        start(seek.as_mut()).await;
        start(download.as_mut()).await;

        core.append("block 2").await.unwrap();
        assert_eq!(soon("the block", get).await.unwrap(), "block 2");
        assert_eq!(soon("the length", further).await.unwrap(), 3);
        let position = Position {
            index: 2,
            offset: 6,
        };
        assert_eq!(soon("the position", seek).await.unwrap(), position);
        soon("the blocks", download).await.unwrap();
    });
}

/// Node's "seek to 0 and byteLength" and "seek waits".
#[test]
fn seek_to_the_ends() {
    run(async {
        let core = writer(3).await;
        for (byte, index, offset) in [(0, 0, 0), (6, 0, 6), (7, 1, 0), (20, 2, 6), (21, 3, 0)] {
            let position = Position { index, offset };
            assert_eq!(core.seek(byte).await.unwrap(), position);
        }
        let error = core.seek_with(22, seek_locally()).await.unwrap_err();
        let beyond = matches!(
            error,
            Error::OutOfBounds {
                offset: 22,
                byte_length: 21
            }
        );
        assert!(beyond, "{error}");
    });
}

/// Node's "get before timeout" and "get after timeout".
#[test]
fn waiting_ends_with_its_time() {
    run(async {
        let core = writer(1).await;
        let limit = Some(Duration::from_millis(5));
        let mut get = GetOptions::default();
        get.timeout = limit;
        assert!(matches!(core.get_with(1, get).await, Err(Error::TimedOut)));
        let mut update = UpdateOptions::default();
        update.timeout = limit;
        assert!(matches!(
            core.update_with(update).await,
            Err(Error::TimedOut)
        ));
        let mut seek = SeekOptions::default();
        seek.timeout = limit;
        assert!(matches!(
            core.seek_with(100, seek).await,
            Err(Error::TimedOut)
        ));
        assert_eq!(core.get_with(0, get).await.unwrap(), "block 0");
    });
}

/// Node's "update if available (no peers)" and "get with ifAvailable".
#[test]
fn if_available_fails_at_once_without_peers() {
    run(async {
        let clone = clone_of(&writer(1).await, true).await;
        let get = soon("get", clone.get_with(0, get_if_available())).await;
        assert!(matches!(get, Err(Error::NotAvailable)), "{get:?}");
        let update = soon("update", clone.update_with(update_if_available())).await;
        assert!(matches!(update, Err(Error::NotAvailable)), "{update:?}");
        let mut seek = SeekOptions::default();
        seek.if_available = true;
        let seek = soon("seek", clone.seek_with(1, seek)).await;
        assert!(matches!(seek, Err(Error::NotAvailable)), "{seek:?}");
    });
}

/// Node's "get with ifAvailable waits correctly", "returns null for unavailable index", "update if
/// available" and "update if available (no one has it)".
#[test]
fn if_available_waits_for_those_who_are_connected() {
    run(async {
        let origin = writer(5).await;
        origin.clear(3..4).await.unwrap();
        let clone = clone_of(&origin, true).await;
        let _connection = connect_live(&clone, &origin).await;
        // The handshake is not over yet, so nobody knows what the peer has.
        let update = clone.update_with(update_if_available());
        assert_eq!(soon("the update", update).await.unwrap(), 5);
        let get = clone.get_with(4, get_if_available());
        assert_eq!(soon("a block", get).await.unwrap(), "block 4");
        for index in [3, 5, 5_000_000] {
            let get = soon("an answer", clone.get_with(index, get_if_available())).await;
            assert!(matches!(get, Err(Error::NotAvailable)), "{index}: {get:?}");
        }
        let update = soon("an answer", clone.update_with(update_if_available())).await;
        assert!(matches!(update, Err(Error::NotAvailable)), "{update:?}");
    });
}

/// It waited for ever as soon as a peer had anything at all.
#[test]
fn if_available_finds_no_byte_beyond_the_end_that_peers_know_of() {
    run(async {
        let origin = writer(5).await;
        let clone = clone_of(&origin, true).await;
        let _connection = connect_live(&clone, &origin).await;
        let seek = |offset| {
            let mut options = SeekOptions::default();
            options.if_available = true;
            soon("an answer", clone.seek_with(offset, options))
        };
        // Not before the clone has the length that the peer has told of, and also after that.
        for _ in 0..2 {
            let beyond = seek(origin.byte_length() + 1).await;
            assert!(matches!(beyond, Err(Error::NotAvailable)), "{beyond:?}");
            assert_eq!(clone.length(), 5);
        }
        let found = seek(20).await.unwrap();
        assert_eq!(found, origin.seek(20).await.unwrap());
        // Those who wait for the log to grow go on waiting.
        let mut patient = Box::pin(clone.seek(origin.byte_length() + 1));
        start(patient.as_mut()).await;
        origin.append_batch(["more", "and more"]).await.unwrap();
        assert_eq!(soon("growth", patient).await.unwrap().index, 5);
    });
}

/// They were waited for until somebody else happened to prove where the byte is.
#[test]
fn a_byte_that_cannot_be_in_the_blocks_is_not_waited_for() {
    run(async {
        let origin = writer(16).await;
        let clone = clone_of(&origin, true).await;
        let _connection = connect_live(&clone, &origin).await;
        assert_eq!(soon("the length", clone.update()).await.unwrap(), 16);
        let refused = async |byte, blocks| {
            let mut options = SeekOptions::default();
            options.blocks = blocks;
            let found = soon("an answer", clone.seek_with(byte, options)).await;
            let is_refused =
                matches!(found, Err(Error::OutOfBounds { offset, .. }) if offset == byte);
            assert!(is_refused, "{byte}: {found:?}");
        };
        refused(90, 5..5).await;
        #[expect(clippy::reversed_empty_ranges, reason = "that is the point")]
        refused(90, 12..3).await;
        // It is known to be in the second half, and beyond the end.
        refused(90, 0..8).await;
        refused(1000, 0..16).await;
        let position = soon("a byte", clone.seek(90)).await.unwrap();
        assert_eq!(position, origin.seek(90).await.unwrap());
        // What is known is found, wherever it is.
        let options = SeekOptions::default().blocks(0..8);
        assert_eq!(clone.seek_with(90, options).await.unwrap(), position);

        // It may be there as long as the log is no longer than that.
        let options = SeekOptions::default().blocks(16..18);
        let mut beyond = Box::pin(clone.seek_with(1000, options));
        start(beyond.as_mut()).await;
        origin.append("short").await.unwrap();
        soon("a block", clone.get(16)).await.unwrap();
        start(beyond.as_mut()).await;
        origin.append("short").await.unwrap();
        soon("a block", clone.get(17)).await.unwrap();
        let beyond = soon("an answer", beyond).await;
        assert!(
            matches!(beyond, Err(Error::OutOfBounds { offset: 1000, .. })),
            "{beyond:?}"
        );
    });
}

#[test]
fn an_update_that_is_satisfied_does_not_wait() {
    run(async {
        let core = writer(5).await;
        let mut options = UpdateOptions::default();
        options.min_length = Some(5);
        assert_eq!(core.update_with(options).await.unwrap(), 5);
    });
}

/// Nobody asks a peer for what nobody waits for any more. Node's "cancel", "cancel download".
#[test]
fn dropped_requests_are_not_made() {
    run(async {
        let origin = writer(10).await;
        let clone = clone_of(&origin, true).await;
        {
            let mut get = Box::pin(clone.get(3));
            let mut download = Box::pin(clone.download(4..8));
            let mut seek = Box::pin(clone.seek(50));
            start(get.as_mut()).await;
            start(download.as_mut()).await;
            start(seek.as_mut()).await;
            let mut timed = GetOptions::default();
            timed.timeout = Some(Duration::from_millis(1));
            assert!(clone.get_with(2, timed).await.is_err());
        }
        let _connection = connect_live(&clone, &origin).await;
        assert_eq!(soon("a block", clone.get(9)).await.unwrap(), "block 9");
        assert_eq!(soon("a block", clone.get(0)).await.unwrap(), "block 0");
        assert_eq!(clone.downloaded(..), 2);
        assert_eq!(origin.peers()[0].stats.uploaded_blocks, 2);
    });
}

/// Node's "close calls pending callbacks".
#[test]
fn close_fails_what_waits_and_what_follows() {
    run(async {
        let core = writer(1).await;
        let mut events = core.events();
        let mut get = Box::pin(core.get(1));
        let mut update = Box::pin(core.update());
        let mut seek = Box::pin(core.seek(100));
        let mut download = Box::pin(core.download(..));
        start(get.as_mut()).await;
        start(update.as_mut()).await;
        start(seek.as_mut()).await;
        start(download.as_mut()).await;
        assert!(!core.is_closed());
        core.close().await.unwrap();
        assert!(core.is_closed());
        assert!(matches!(get.await, Err(Error::Closed)));
        assert!(matches!(update.await, Err(Error::Closed)));
        assert!(matches!(seek.await, Err(Error::Closed)));
        assert!(matches!(download.await, Err(Error::Closed)));
        assert_eq!(soon("the end of the events", events.next()).await, None);

        assert!(matches!(core.get(0).await, Err(Error::Closed)));
        assert!(matches!(core.update().await, Err(Error::Closed)));
        assert!(matches!(core.seek(0).await, Err(Error::Closed)));
        assert!(matches!(core.download(0..1).await, Err(Error::Closed)));
        assert!(matches!(core.append("no").await, Err(Error::Closed)));
        assert!(matches!(core.clear(0..1).await, Err(Error::Closed)));
        assert!(matches!(core.flush().await, Err(Error::Closed)));
        assert!(matches!(core.audit().await, Err(Error::Closed)));
        assert!(matches!(core.disk_usage(), Err(Error::Closed)));
        let replicate = core.replicate(hypercore::Role::Initiator, Default::default());
        assert!(matches!(replicate, Err(Error::Closed)));
        core.close().await.unwrap();
        assert_eq!(core.length(), 1, "what was known stays known");
        assert!(!core.is_writable());
        assert!(core.is_original(), "it is written here all the same");
    });
}
