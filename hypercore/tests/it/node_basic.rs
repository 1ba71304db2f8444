//! What `test/basic.js`, `test/selections.js`, `test/head.js`, `test/update.js`, `test/audit.js` and
//! `test/default-storage.js` of Node's Hypercore 9 check, as far as no other test does.

use std::sync::{Arc, Mutex};

use futures_lite::future::{poll_once, zip};
use hypercore::{
    Bytes, Durability, Error, Event, Goal, Hypercore, KeyPair, PeerId, ReplicateOptions, WaitsOn,
    storage::{Memory, testing::FaultStorage},
};

use crate::support::{
    clone_of, connect, connect_live, connected, contents, drain, get_if_available, key_pair,
    options, run, soon, update_if_available, writer,
};

// ---- test/basic.js --------------------------------------------------------------------------

#[test]
fn append() {
    run(async {
        let core = Hypercore::options().open_memory().await.unwrap();
        core.append(r#"{"hello":"world"}"#).await.unwrap();
        core.append_batch([r#"{"hello":"verden"}"#, r#"{"hello":"welt"}"#])
            .await
            .unwrap();
        assert_eq!(core.length(), 3);
        assert_eq!(core.byte_length(), 51);
        assert_eq!(core.get(0).await.unwrap(), r#"{"hello":"world"}"#);
        assert_eq!(core.get(1).await.unwrap(), r#"{"hello":"verden"}"#);
        assert_eq!(core.get(2).await.unwrap(), r#"{"hello":"welt"}"#);
    });
}

/// Node calls a hook when a `get` has to wait; here one can ask at any time, and hears why.
#[test]
fn onwait() {
    run(async {
        let core = writer(1).await;
        assert!(poll_once(core.get(0)).await.unwrap().is_ok());
        assert_eq!(core.waiting(), []);
        let mut get = Box::pin(core.get(42));
        assert!(poll_once(&mut get).await.is_none());
        let waiting = core.waiting();
        assert_eq!(waiting.len(), 1);
        assert_eq!(waiting[0].goal, Goal::Block { index: 42 });
        assert_eq!(waiting[0].on, WaitsOn::NoPeer);
        drop(get);
        assert_eq!(core.waiting(), []);
    });
}

#[test]
fn flush() {
    run(async {
        let core = Hypercore::options().open_memory().await.unwrap();
        let (appended, flushed) = zip(core.append("hello"), core.flush()).await;
        assert_eq!(appended.unwrap(), 0);
        flushed.unwrap();
        assert_eq!(core.length(), 1);

        let disk = FaultStorage::new();
        let options = Hypercore::options().durability(Durability::OnClose);
        let core = options.open_storage(disk.clone()).await.unwrap();
        core.append("hello").await.unwrap();
        assert_ne!(disk.unsynced_sectors(), 0);
        core.flush().await.unwrap();
        assert_eq!(disk.unsynced_sectors(), 0);
    });
}

#[test]
fn pass_in_secret_key() {
    run(async {
        let pair = KeyPair::from_seed(&[7; 32]);
        let core = Hypercore::options().key_pair(pair).open_memory().await;
        let core = core.unwrap();
        assert_eq!(core.key(), KeyPair::from_seed(&[7; 32]).public_key());
        assert!(core.is_writable());
        core.append("signed").await.unwrap();
        let (_, signature) = core.signature(0).await.unwrap().unwrap();
        assert!(core.verify_signature(0, &signature).await.unwrap());
    });
}

#[test]
fn check_existing_key() {
    run(async {
        let directory = tempfile::tempdir().unwrap();
        let core = Hypercore::open(directory.path()).await.unwrap();
        let key = core.key();
        core.append("hi").await.unwrap();
        core.close().await.unwrap();
        let other = Hypercore::options()
            .key([1; 32])
            .open(directory.path())
            .await;
        assert!(matches!(other, Err(Error::OtherCore { stored, .. }) if stored == key));
        let same = Hypercore::options().key(key).open(directory.path()).await;
        assert_eq!(same.unwrap().get(0).await.unwrap(), "hi");
    });
}

#[test]
fn create_from_existing_keys() {
    run(async {
        let first = Hypercore::options()
            .key_pair(key_pair("twice"))
            .open_memory();
        let first = first.await.unwrap();
        first.append("a").await.unwrap();
        // Elsewhere, with the same keys: the same core, and the same signatures.
        let second = Hypercore::options()
            .key(first.key())
            .key_pair(key_pair("twice"))
            .open_memory();
        let second = second.await.unwrap();
        second.append("a").await.unwrap();
        assert_eq!(first.key(), second.key());
        let of = async |core: &Hypercore| core.signature(0).await.unwrap().unwrap();
        assert_eq!(of(&first).await, of(&second).await);
    });
}

/// What a hook was asked.
type Asked = Arc<Mutex<Vec<(u64, Bytes, Option<PeerId>)>>>;

/// Options of a core whose hook notes what it is asked, and refuses blocks that say "no".
fn with_hook() -> (hypercore::OpenOptions, Asked) {
    let asked = Asked::default();
    let notes = Arc::clone(&asked);
    let options = Hypercore::options().on_write(move |index, block, source| {
        notes.lock().unwrap().push((index, block.clone(), source));
        if block == "no" {
            Err("it says no".into())
        } else {
            Ok(())
        }
    });
    (options, asked)
}

#[test]
fn onwrite() {
    run(async {
        let (options, asked) = with_hook();
        let core = options.open_memory().await.unwrap();
        core.append("a").await.unwrap();
        core.append_batch(["b", "c"]).await.unwrap();
        let refused = core.append_batch(["d", "no"]).await;
        assert!(matches!(refused, Err(Error::Refused(_))), "{refused:?}");
        assert_eq!(core.length(), 3);
        // Neither those before nor those after one that is refused suffer.
        let appends = zip(core.append("no"), core.append("e"));
        let (refused, appended) = soon("appends", appends).await;
        assert!(matches!(refused, Err(Error::Refused(_))));
        assert_eq!(appended.unwrap(), 3);
        let asked = asked.lock().unwrap();
        let asked: Vec<_> = asked
            .iter()
            .map(|(index, block, source)| (*index, &block[..], *source))
            .collect();
        let expected: [(u64, &[u8], Option<PeerId>); 7] = [
            (0, b"a", None),
            (1, b"b", None),
            (2, b"c", None),
            (3, b"d", None),
            (4, b"no", None),
            (3, b"no", None),
            (3, b"e", None),
        ];
        assert_eq!(asked, expected);
    });
}

#[test]
fn replicate_with_onwrite() {
    run(async {
        let core = writer(0).await;
        core.append_batch(["a", "b", "no"]).await.unwrap();
        let (clone_options, asked) = with_hook();
        let clone = clone_options.key(core.key()).sparse(true).open_memory();
        let clone = clone.await.unwrap();
        let connection = connect_live(&clone, &core).await;
        assert_eq!(soon("a block", clone.get(1)).await.unwrap(), "b");
        let peer = clone.peers()[0].id;
        assert_eq!(*asked.lock().unwrap(), [(1, "b".into(), Some(peer))]);
        // A block that is refused ends the connection, and is not stored.
        let mut waiting = Box::pin(clone.get(2));
        assert!(poll_once(&mut waiting).await.is_none());
        let (here, _) = soon("the end", connection).await;
        assert!(matches!(here, Err(Error::Refused(_))), "{here:?}");
        assert!(!clone.has(2));
        assert!(
            poll_once(&mut waiting).await.is_none(),
            "it waits for another"
        );
    });
}

#[test]
fn destroying_storage_works() {
    run(async {
        let directory = tempfile::tempdir().unwrap();
        let core = Hypercore::open(directory.path()).await.unwrap();
        let key = core.key();
        core.append_batch(["a", "b"]).await.unwrap();
        let other = core.clone();
        let waiting = core.get(7);
        let (destroyed, waiting) = zip(core.destroy(), waiting).await;
        destroyed.unwrap();
        assert!(matches!(waiting, Err(Error::Closed)));
        assert!(matches!(other.get(0).await, Err(Error::Closed)));
        assert!(matches!(other.destroy().await, Err(Error::Closed)));
        drop((core, other));
        assert!(contents(directory.path()).is_empty(), "all files are gone");
        let anew = Hypercore::open(directory.path()).await.unwrap();
        assert_ne!(anew.key(), key);
        assert_eq!(anew.length(), 0);
    });
}

/// The bitfield was gone when another file could not be written to.
#[cfg(unix)]
#[test]
fn a_core_that_cannot_be_destroyed_stays_as_it_is() {
    run(async {
        for file in ["secret_key", "key", "tree", "data", "signatures"] {
            let directory = tempfile::tempdir().unwrap();
            let core = Hypercore::open(directory.path()).await.unwrap();
            core.append_batch(["a", "b"]).await.unwrap();
            core.close().await.unwrap();
            let before = contents(directory.path());
            // Nothing is written to a file with another name.
            let elsewhere = tempfile::tempdir().unwrap();
            let other = elsewhere.path().join("other");
            std::fs::hard_link(directory.path().join(file), other).unwrap();
            let core = Hypercore::open(directory.path()).await.unwrap();
            core.destroy().await.unwrap_err();
            drop(core);
            assert!(contents(directory.path()) == before, "{file}");
        }
    });
}

#[test]
fn overwrite_forgets_what_is_stored() {
    run(async {
        let storage = Memory::new();
        let first = Hypercore::options().open_storage(storage.clone()).await;
        let first = first.unwrap();
        let key = first.key();
        first.append("old").await.unwrap();
        first.close().await.unwrap();

        let open = |options: hypercore::OpenOptions| options.open_storage(storage.clone());
        let same = Hypercore::options().key(key).overwrite_other();
        let same = open(same).await.unwrap();
        assert_eq!(same.get(0).await.unwrap(), "old", "it is the one asked for");
        same.close().await.unwrap();

        let other = writer(1).await;
        let clone = Hypercore::options().key(other.key()).overwrite_other();
        let clone = open(clone).await.unwrap();
        assert_eq!((clone.key(), clone.length()), (other.key(), 0));
        // JS: the old secret key stays, and makes a foreign core "writable".
        assert!(!clone.is_writable());
        clone.close().await.unwrap();

        // What cannot be made takes nothing away.
        let other_pair = || {
            Hypercore::options()
                .key(key)
                .key_pair(KeyPair::from_seed(&[8; 32]))
        };
        for contradiction in [other_pair().overwrite(), other_pair().overwrite_other()] {
            let refused = open(contradiction).await;
            assert!(
                matches!(refused, Err(Error::KeyMismatch { .. })),
                "{refused:?}"
            );
        }
        let kept = open(Hypercore::options()).await.unwrap();
        assert_eq!(kept.key(), other.key());
        kept.close().await.unwrap();

        let anew = open(Hypercore::options().overwrite()).await.unwrap();
        assert!(anew.is_writable());
        assert_ne!(anew.key(), other.key());
        assert_ne!(anew.key(), key);
        assert_eq!(anew.append("new").await.unwrap(), 0);
    });
}

// ---- test/selections.js ---------------------------------------------------------------------

#[test]
fn cancel() {
    run(async {
        let clone = clone_of(&writer(5).await, true).await;
        let mut waiting = Box::pin(clone.get(3));
        assert!(poll_once(&mut waiting).await.is_none());
        let mut other = Box::pin(clone.get(4));
        assert!(poll_once(&mut other).await.is_none());
        clone.cancel(3..4);
        assert!(matches!(waiting.await, Err(Error::Cancelled)));
        assert!(poll_once(&mut other).await.is_none(), "only what was named");
    });
}

#[test]
fn cancel_range() {
    run(async {
        let clone = clone_of(&writer(5).await, true).await;
        let mut waiting: Vec<_> = (0..4).map(|index| Box::pin(clone.get(index))).collect();
        for get in &mut waiting {
            assert!(poll_once(get).await.is_none());
        }
        let mut inside = clone.download(1..3);
        let mut across = clone.download(1..4);
        clone.cancel(1..3);
        assert!(poll_once(&mut waiting[0]).await.is_none());
        for get in &mut waiting[1..3] {
            assert!(matches!(get.await, Err(Error::Cancelled)));
        }
        assert!(poll_once(&mut waiting[3]).await.is_none());
        let cancelled = poll_once(&mut inside).await;
        assert!(matches!(cancelled, Some(Err(Error::Cancelled))));
        assert!(poll_once(&mut across).await.is_none());
    });
}

#[test]
fn get_after_cancel() {
    run(async {
        let core = writer(3).await;
        let clone = clone_of(&core, true).await;
        let mut waiting = Box::pin(clone.get(1));
        assert!(poll_once(&mut waiting).await.is_none());
        clone.cancel(..);
        assert!(matches!(waiting.await, Err(Error::Cancelled)));
        let _connection = connect_live(&clone, &core).await;
        assert_eq!(soon("a block", clone.get(1)).await.unwrap(), "block 1");
    });
}

#[test]
fn cancel_download_and_get() {
    run(async {
        let core = writer(10).await;
        let clone = clone_of(&core, true).await;
        let download = clone.download(0..10);
        let mut get = Box::pin(clone.get(5));
        assert!(poll_once(&mut get).await.is_none());
        drop(download);
        let _connection = connect_live(&clone, &core).await;
        // The get was not meant, and nothing else is fetched.
        assert_eq!(soon("a block", get).await.unwrap(), "block 5");
        assert_eq!(clone.downloaded(..), 1);
    });
}

#[test]
fn cancel_seek() {
    run(async {
        let core = writer(10).await;
        let clone = clone_of(&core, true).await;
        let mut seek = Box::pin(clone.seek(20));
        assert!(poll_once(&mut seek).await.is_none());
        drop(seek);
        let _connection = connect_live(&clone, &core).await;
        soon("a block", clone.get(9)).await.unwrap();
        assert_eq!(clone.downloaded(..), 1, "nobody looked for byte 20");
    });
}

// ---- test/replicate.js ----------------------------------------------------------------------

#[test]
fn download_blocks() {
    run(async {
        let core = writer(20).await;
        let clone = clone_of(&core, true).await;
        let download = clone.download_blocks([7, 3, 3, 4, 19]);
        let _connection = connect_live(&clone, &core).await;
        soon("the blocks", download).await.unwrap();
        let here: Vec<_> = (0..20).filter(|&index| clone.has(index)).collect();
        assert_eq!(here, [3, 4, 7, 19]);
        // What is here already needs no peer, and nothing at all even less.
        soon("what is here", clone.download_blocks([3, 19]))
            .await
            .unwrap();
        soon("nothing", clone.download_blocks([])).await.unwrap();
        let mut more = clone.download_blocks([3, 100]);
        assert!(poll_once(&mut more).await.is_none());
        clone.close().await.unwrap();
        assert!(matches!(more.await, Err(Error::Closed)));
    });
}

#[test]
fn non_live_two_way() {
    run(async {
        let core = writer(10).await;
        let (a, b) = (clone_of(&core, false).await, clone_of(&core, false).await);
        for (clone, blocks) in [(&a, 0..5), (&b, 5..10)] {
            for index in blocks {
                let proof = core.proof(index).await.unwrap().unwrap();
                let block = core.get(index).await.unwrap();
                clone.put(index, Some(block), &proof).await.unwrap();
            }
        }
        let ends = connect(&a, options(|_| {}), &b, options(|_| {})).await;
        let (one, other) = soon("the end", ends).await;
        one.unwrap();
        other.unwrap();
        assert_eq!((a.downloaded(..), b.downloaded(..)), (10, 10));
    });
}

#[test]
fn non_live_empty() {
    run(async {
        let core = writer(0).await;
        let clone = clone_of(&core, false).await;
        let ends = connect(&clone, options(|_| {}), &core, options(|_| {})).await;
        let (one, other) = soon("the end", ends).await;
        one.unwrap();
        other.unwrap();
        assert_eq!(clone.length(), 0);
    });
}

#[test]
fn replicate_twice() {
    run(async {
        let core = writer(5).await;
        let clone = clone_of(&core, false).await;
        for length in [5, 10] {
            let ends = connect(&clone, options(|_| {}), &core, options(|_| {})).await;
            let (one, other) = soon("the end", ends).await;
            one.unwrap();
            other.unwrap();
            assert_eq!(clone.downloaded(..), length);
            core.append_batch(["more"; 5]).await.unwrap();
        }
    });
}

#[test]
fn first_get_hash_then_get_block() {
    run(async {
        let core = writer(10).await;
        let clone = clone_of(&core, true).await;
        let _connection = connect_live(&clone, &core).await;
        // An update fetches a proof and no block.
        assert_eq!(soon("the length", clone.update()).await.unwrap(), 10);
        assert_eq!(clone.downloaded(..), 0);
        for index in [0, 9] {
            let block = soon("a block", clone.get(index)).await.unwrap();
            assert_eq!(block, format!("block {index}"));
        }
    });
}

#[test]
fn get_total_downloaded_chunks() {
    run(async {
        let core = writer(10).await;
        let clone = clone_of(&core, true).await;
        let _connection = connect_live(&clone, &core).await;
        soon("blocks", clone.get_batch(2..6)).await.unwrap();
        assert_eq!(clone.downloaded(..), 4);
        assert_eq!(clone.downloaded(3..5), 2);
        assert_eq!(clone.downloaded(5..), 1);
        assert!(clone.has_all(2..6));
        assert!(!clone.has_all(1..6));
        assert!(clone.has_all(4..4));
    });
}

// ---- test/head.js, test/update.js -----------------------------------------------------------

#[test]
fn head_without_update_does_not_update() {
    run(async {
        let core = writer(1).await;
        let clone = clone_of(&core, true).await;
        let _connection = connect_live(&clone, &core).await;
        connected(&clone, 1).await;
        assert!(matches!(clone.head().await, Err(Error::Empty)));
    });
}

#[test]
fn head_with_update_waits_for_an_update() {
    run(async {
        let core = writer(1).await;
        let clone = clone_of(&core, true).await;
        let _connection = connect_live(&clone, &core).await;
        soon("the length", clone.update()).await.unwrap();
        assert_eq!(soon("the head", clone.head()).await.unwrap(), "block 0");
    });
}

#[test]
fn head_with_update_if_available_will_not_wait_forever() {
    run(async {
        let core = writer(1).await;
        let clone = clone_of(&core, true).await;
        let nobody = clone.update_with(update_if_available()).await;
        assert!(matches!(nobody, Err(Error::NotAvailable)));
        let _connection = connect_live(&clone, &core).await;
        let length = clone.update_with(update_if_available());
        assert_eq!(soon("the length", length).await.unwrap(), 1);
        let none = clone.update_with(update_if_available());
        let none = soon("a refusal", none).await;
        assert!(matches!(none, Err(Error::NotAvailable)), "{none:?}");
        let missing = clone.get_with(1, get_if_available());
        let missing = soon("a refusal", missing).await;
        assert!(matches!(missing, Err(Error::NotAvailable)), "{missing:?}");
    });
}

#[test]
fn disable_eager_update() {
    run(async {
        let core = writer(1).await;
        let lazy = clone_of(&core, true).await;
        let eager = Hypercore::options().key(core.key()).sparse(true);
        let eager = eager.eager_update(true).open_memory().await.unwrap();
        let _connections = (
            connect_live(&lazy, &core).await,
            connect_live(&eager, &core).await,
        );
        let mut events = eager.events();
        if eager.length() == 0 {
            crate::support::event(&mut events, |event| matches!(event, Event::Append { .. })).await;
        }
        assert_eq!(eager.length(), 1);
        // By now the other could know, too.
        soon("a block", async {
            while lazy.remote_length() == 0 {
                async_std::task::yield_now().await;
            }
        })
        .await;
        assert_eq!(lazy.length(), 0);
    });
}

#[test]
fn ack_only_when_something_is_downloaded() {
    run(async {
        let core = writer(3).await;
        let clone = clone_of(&core, true).await;
        let mut events = core.events();
        let asking = options(|options: &mut ReplicateOptions| {
            options.ack = true;
            options.live = true;
        });
        let _connection = connect(&clone, ReplicateOptions::live(), &core, asking).await;
        soon("the length", clone.update()).await.unwrap();
        let acks = drain(&mut events).await;
        assert!(!acks.iter().any(|event| matches!(event, Event::Ack { .. })));
        soon("a block", clone.get(1)).await.unwrap();
        let ack = crate::support::event(&mut events, |event| matches!(event, Event::Ack { .. }));
        assert!(matches!(ack.await, Event::Ack { index: 1, .. }));
    });
}
