//! One core: opening, writing, waiting, closing, and files that are damaged.

use std::{
    fs, io,
    path::Path,
    pin::Pin,
    sync::{Arc, RwLock},
    task::Poll,
    time::Duration,
};

use futures_lite::{StreamExt, future};
use hypercore::{
    Corruption, Durability, Error, Event, GetOptions, Hypercore, KeyPair, OpenOptions, Position,
    SeekOptions, UpdateOptions, merkle,
    storage::{self, FileName, Memory, RandomAccess, Storage, testing::Recording},
};

use crate::support::{
    clone_of, connect_live, connected, disconnected, drain, event, get_if_available, run,
    seek_locally, soon, update_if_available, writer,
};

/// The largest block that can be appended.
const MAX: usize = 8 * 1024 * 1024;

/// Polls `future` once, which must not be ready.
async fn start<T: std::fmt::Debug>(future: Pin<&mut impl Future<Output = T>>) {
    let ready = future::poll_once(future).await;
    assert!(ready.is_none(), "{ready:?} came too early");
}

/// Waits for all of them, each polled in turn.
async fn join<T>(futures: Vec<impl Future<Output = T>>) -> Vec<T> {
    let mut futures: Vec<_> = futures
        .into_iter()
        .map(|future| Err(Box::pin(future)))
        .collect();
    future::poll_fn(|cx| {
        for slot in &mut futures {
            if let Err(future) = slot
                && let Poll::Ready(value) = future.as_mut().poll(cx)
            {
                *slot = Ok(value);
            }
        }
        if futures.iter().all(Result::is_ok) {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    })
    .await;
    futures.into_iter().flat_map(Result::ok).collect()
}

// ---- opening --------------------------------------------------------------------------------

#[test]
fn nothing_to_open() {
    let directory = tempfile::tempdir().unwrap();
    run(async {
        let options = OpenOptions::new().create_if_missing(false);
        let error = options.open(directory.path()).await.unwrap_err();
        assert!(matches!(error, Error::NoCore), "{error}");
    });
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
}

#[test]
fn create_new_refuses_what_exists() {
    run(async {
        let memory = Memory::new();
        let options = || OpenOptions::new().create_new();
        let core = options().open_storage(memory.clone()).await.unwrap();
        let key = core.key();
        core.close().await.unwrap();
        let error = options().open_storage(memory).await.unwrap_err();
        assert!(
            matches!(error, Error::CoreExists(stored) if stored == key),
            "{error}"
        );
    });
}

#[test]
fn another_key_is_refused() {
    run(async {
        let memory = Memory::new();
        let core = Hypercore::options()
            .open_storage(memory.clone())
            .await
            .unwrap();
        let key = core.key();
        core.close().await.unwrap();
        let other = KeyPair::from_seed(&[1; 32]).public_key();
        for options in [
            OpenOptions::new().key(other),
            OpenOptions::new().key_pair(KeyPair::from_seed(&[1; 32])),
        ] {
            let error = options.open_storage(memory.clone()).await.unwrap_err();
            assert!(
                matches!(error, Error::OtherCore { stored, requested } if stored == key && requested == other),
                "{error}"
            );
        }
        let same = OpenOptions::new()
            .key(key)
            .open_storage(memory)
            .await
            .unwrap();
        assert!(same.is_writable());

        let mismatched = OpenOptions::new()
            .key(key)
            .key_pair(KeyPair::from_seed(&[1; 32]));
        let error = mismatched.open_memory().await.unwrap_err();
        assert!(matches!(error, Error::KeyMismatch { .. }), "{error}");
    });
}

/// Node's "pass in secret key", "check existing key" and "create from existing keys".
#[test]
fn a_given_key_pair_is_stored_or_not() {
    run(async {
        let pair = || KeyPair::from_seed(&[2; 32]);
        let memory = Memory::new();
        let options = OpenOptions::new().key_pair(pair()).store_secret_key(false);
        let core = options.open_storage(memory.clone()).await.unwrap();
        assert_eq!(core.key(), pair().public_key());
        core.append("a").await.unwrap();
        core.close().await.unwrap();

        let reader = OpenOptions::new()
            .open_storage(memory.clone())
            .await
            .unwrap();
        assert!(!reader.is_writable());
        reader.close().await.unwrap();

        let options = OpenOptions::new().key_pair(pair());
        let core = options.open_storage(memory.clone()).await.unwrap();
        assert_eq!(core.append("b").await.unwrap(), 1);
        core.close().await.unwrap();

        let core = OpenOptions::new().open_storage(memory).await.unwrap();
        assert!(
            core.is_writable(),
            "the secret key was stored the second time"
        );
    });
}

#[test]
fn one_handle_at_a_time_has_the_files() {
    let directory = tempfile::tempdir().unwrap();
    run(async {
        let core = Hypercore::open(directory.path()).await.unwrap();
        let error = Hypercore::open(directory.path()).await.unwrap_err();
        assert!(error.is_locked(), "{error}");
        core.close().await.unwrap();
        let core = Hypercore::open(directory.path()).await.unwrap();
        drop(core);
        Hypercore::open(directory.path()).await.unwrap();
    });
}

#[test]
fn handles_share_a_core() {
    run(async {
        let core = writer(2).await;
        let other = core.clone();
        other.append("block 2").await.unwrap();
        assert_eq!(core.length(), 3);
        assert_eq!(core.get(2).await.unwrap(), "block 2");
        drop(core);
        assert_eq!(other.append("block 3").await.unwrap(), 3);
        let core = other.clone();
        core.close().await.unwrap();
        assert!(matches!(other.get(0).await, Err(Error::Closed)));
    });
}

// ---- writing --------------------------------------------------------------------------------

#[test]
fn a_reader_does_not_append() {
    run(async {
        let clone = clone_of(&writer(1).await, true).await;
        assert!(!clone.is_writable());
        let error = clone.append("no").await.unwrap_err();
        assert!(matches!(error, Error::NotWritable), "{error}");
        assert_eq!(clone.length(), 0);
    });
}

/// Node advances its tree before it finds a block too large, and signs wrong roots from then on.
#[test]
fn a_block_too_large_changes_nothing() {
    run(async {
        let memory = Memory::new();
        let gate = Arc::new(RwLock::new(()));
        let storage = Gated {
            memory: memory.clone(),
            gate: Arc::clone(&gate),
        };
        let core = Hypercore::options().open_storage(storage).await.unwrap();
        core.append("before").await.unwrap();
        let too_large = |error| {
            let size = MAX as u64 + 1;
            matches!(error, Error::Merkle(merkle::Error::BlockTooLarge { size: found, .. }) if found == size)
        };
        assert!(too_large(core.append(vec![0; MAX + 1]).await.unwrap_err()));
        let batch = [vec![1], vec![0; MAX + 1], vec![2]];
        assert!(too_large(core.append_batch(batch).await.unwrap_err()));
        assert_eq!(core.length(), 1);

        // Those that wait for the same turn do not suffer either.
        let blocks = [vec![1], vec![0; MAX + 1], vec![0; MAX]];
        let [mut first, mut large, mut last] = blocks.map(|block| Box::pin(core.append(block)));
        let refused = {
            let _closed = gate.write().unwrap();
            future::block_on(start(first.as_mut()));
            let refused = future::block_on(future::poll_once(&mut large));
            future::block_on(start(last.as_mut()));
            refused
        };
        assert!(refused.is_some_and(|refused| too_large(refused.unwrap_err())));
        assert_eq!(first.await.unwrap(), 1);
        assert_eq!(last.await.unwrap(), 2);
        assert_eq!(core.append("after").await.unwrap(), 3);
        core.close().await.unwrap();

        let core = Hypercore::options().open_storage(memory).await.unwrap();
        assert_eq!(core.length(), 4);
        assert_eq!(core.audit().await.unwrap().valid, 4);
        assert_eq!(core.head().await.unwrap(), "after");
    });
}

/// Appends that come while another is written share a signature, and each gets its own index.
#[test]
fn concurrent_appends_are_grouped() {
    run(async {
        let memory = Memory::new();
        let gate = Arc::new(RwLock::new(()));
        let storage = Gated {
            memory: memory.clone(),
            gate: Arc::clone(&gate),
        };
        let storage = Recording::new(storage);
        let core = Hypercore::options()
            .open_storage(storage.clone())
            .await
            .unwrap();
        let syncs = || {
            let files = [FileName::Data, FileName::Tree, FileName::Signatures];
            files.map(|file| storage.take(file).syncs)
        };
        syncs();
        let mut appends: Vec<_> = (0..64)
            .map(|value: u8| Box::pin(core.append(vec![value])))
            .collect();
        {
            // The first cannot be done before all the others have come.
            let _closed = gate.write().unwrap();
            for append in &mut appends {
                future::block_on(start(append.as_mut()));
            }
        }
        let indexes: Vec<_> = join(appends)
            .await
            .into_iter()
            .map(Result::unwrap)
            .collect();
        let shared = syncs();
        assert!(
            shared.iter().all(|syncs| (1..=2).contains(syncs)),
            "{shared:?}"
        );
        for (value, &index) in (0..).zip(&indexes) {
            assert_eq!(core.get(index).await.unwrap(), vec![value]);
        }
        let mut sorted = indexes;
        sorted.sort_unstable();
        assert!(sorted.into_iter().eq(0..64));

        // The first may have gone before the others came.
        let signatures = memory.read(FileName::Signatures);
        let slots = signatures[32..].chunks(64);
        let count = slots.filter(|slot| *slot != [0; 64]).count();
        assert!((1..=2).contains(&count), "{count} signatures");
    });
}

/// A storage that syncs its signatures only while the gate is open.
#[derive(Clone)]
struct Gated {
    memory: Memory,
    gate: Arc<RwLock<()>>,
}

#[derive(Debug)]
struct GatedFile {
    file: Arc<dyn RandomAccess>,
    gate: Arc<RwLock<()>>,
}

impl Storage for Gated {
    fn open(&self, file: FileName) -> io::Result<Arc<dyn RandomAccess>> {
        let opened = self.memory.open(file)?;
        if file != FileName::Signatures {
            return Ok(opened);
        }
        Ok(Arc::new(GatedFile {
            file: opened,
            gate: Arc::clone(&self.gate),
        }))
    }
}

impl RandomAccess for GatedFile {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.file.read_at(offset, buffer)
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.file.write_at(offset, data)
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        self.file.truncate(len)
    }

    fn sync(&self) -> io::Result<()> {
        let _open = self.gate.read().unwrap();
        self.file.sync()
    }
}

/// Node's rule, too: the bitfield is written after every append, not only when a log is closed.
#[test]
fn an_append_is_in_the_files_when_it_returns() {
    run(async {
        for durability in [Durability::Always, Durability::OnClose] {
            let memory = Memory::new();
            let options = Hypercore::options().durability(durability);
            let core = options.open_storage(memory.clone()).await.unwrap();
            for count in 1..5 {
                core.append("block").await.unwrap();
                // What a process finds that starts after this one was killed.
                let found = Memory::new();
                for file in FileName::ALL {
                    found.write(file, &memory.read(file));
                }
                let found = Hypercore::options().open_storage(found).await.unwrap();
                assert_eq!(found.length(), count);
                assert_eq!(found.audit().await.unwrap().valid, count);
            }
        }
    });
}

#[test]
fn concurrent_appends_from_many_threads() {
    run(async {
        let core = writer(0).await;
        let tasks: Vec<_> = (0..64u8)
            .map(|value| {
                let core = core.clone();
                async_std::task::spawn(async move { (value, core.append(vec![value]).await) })
            })
            .collect();
        for task in tasks {
            let (value, index) = task.await;
            assert_eq!(core.get(index.unwrap()).await.unwrap(), vec![value]);
        }
        assert_eq!(core.length(), 64);
        assert_eq!(core.audit().await.unwrap().valid, 64);
    });
}

#[test]
fn a_dropped_append_is_there_or_not_but_harms_no_other() {
    run(async {
        let core = writer(0).await;
        for round in 0..50u64 {
            let mut first = Box::pin(core.append(format!("first {round}")));
            let mut dropped = Box::pin(core.append(format!("dropped {round}")));
            let mut last = Box::pin(core.append(format!("last {round}")));
            let mut ready = [None, None];
            ready[0] = future::poll_once(&mut first).await;
            let _ = future::poll_once(&mut dropped).await;
            ready[1] = future::poll_once(&mut last).await;
            drop(dropped);
            let first = match ready[0].take() {
                Some(index) => index.unwrap(),
                None => first.await.unwrap(),
            };
            let last = match ready[1].take() {
                Some(index) => index.unwrap(),
                None => last.await.unwrap(),
            };
            assert_eq!(core.get(first).await.unwrap(), format!("first {round}"));
            assert_eq!(core.get(last).await.unwrap(), format!("last {round}"));
        }
        assert!((100..=150).contains(&core.length()));
        assert_eq!(core.audit().await.unwrap().valid, core.length());
    });
}

/// Node's "append returns the seq".
#[test]
fn a_batch_gets_consecutive_indexes_and_an_empty_one_none() {
    run(async {
        let core = writer(3).await;
        assert_eq!(core.append_batch(["a", "b"]).await.unwrap(), 3..5);
        assert_eq!(core.append_batch::<&str>([]).await.unwrap(), 5..5);
        assert_eq!(core.append("").await.unwrap(), 5);
        assert_eq!(core.get(5).await.unwrap(), "");
    });
}

#[test]
fn clear_wants_a_range_within_the_log() {
    run(async {
        let core = writer(4).await;
        for blocks in [2..5, 5..5, std::ops::Range { start: 3, end: 1 }] {
            let error = core.clear(blocks.clone()).await.unwrap_err();
            let Error::BadRange { start, end, length } = error else {
                panic!("{error}");
            };
            assert_eq!((start..end, length), (blocks, 4));
        }
        assert_eq!(core.clear(1..3).await.unwrap(), 2);
        assert_eq!(core.clear(1..3).await.unwrap(), 2);
        let error = core.get_with(1, GetOptions::local()).await.unwrap_err();
        assert!(
            matches!(error, Error::BlockNotStored { index: 1 }),
            "{error}"
        );
        assert_eq!(core.length(), 4);
    });
}

// ---- waiting --------------------------------------------------------------------------------

/// Node's "head".
#[test]
fn head_is_the_last_block() {
    run(async {
        let core = writer(0).await;
        assert!(matches!(core.head().await, Err(Error::Empty)));
        core.append_batch(["a", "b"]).await.unwrap();
        assert_eq!(core.head().await.unwrap(), "b");
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
        core.close().await.unwrap();
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
    });
}

// ---- events ---------------------------------------------------------------------------------

#[test]
fn events_come_in_order() {
    run(async {
        let origin = writer(2).await;
        let clone = clone_of(&origin, false).await;
        let (mut of_origin, mut of_clone) = (origin.events(), clone.events());
        let connection = connect_live(&clone, &origin).await;
        event(&mut of_origin, |event| {
            matches!(event, Event::Upload { index: 1, .. })
        })
        .await;
        soon("all blocks", clone.download(0..2)).await.unwrap();
        origin.append("block 2").await.unwrap();
        soon("all blocks", clone.download(0..3)).await.unwrap();
        origin.clear(0..1).await.unwrap();
        connection.cancel().await;
        disconnected(&origin).await;
        disconnected(&clone).await;

        let [origin_peer, clone_peer] = [drain(&mut of_origin).await, drain(&mut of_clone).await];
        let names = |events: &[Event]| -> Vec<String> { events.iter().map(name).collect() };
        let tail = ["Append 3", "Upload 2", "Clear 0..1", "PeerClose"];
        assert_eq!(names(&origin_peer), tail);
        let whole = [
            "PeerOpen",
            "RemoteUpdate 2",
            "Append 2",
            "Download",
            "Download",
            "Sync 2",
            "RemoteUpdate 3",
            "Append 3",
            "Download",
            "Sync 3",
            "PeerClose",
        ];
        assert_eq!(names(&clone_peer), whole);
    });
}

fn name(event: &Event) -> String {
    match event {
        Event::Append { length } => format!("Append {length}"),
        Event::RemoteUpdate { length, .. } => format!("RemoteUpdate {length}"),
        Event::Sync { length } => format!("Sync {length}"),
        Event::Upload { index, .. } => format!("Upload {index}"),
        Event::Clear { blocks } => format!("Clear {blocks:?}"),
        Event::Download { bytes: 7, .. } => "Download".to_owned(),
        Event::PeerOpen { .. } => "PeerOpen".to_owned(),
        Event::PeerClose { .. } => "PeerClose".to_owned(),
        other => format!("{other:?}"),
    }
}

#[test]
fn events_end_with_the_last_handle() {
    run(async {
        let core = writer(1).await;
        let mut events = core.events();
        core.append("a").await.unwrap();
        drop(core);
        let append = soon("an event", events.next()).await;
        assert_eq!(append, Some(Event::Append { length: 2 }));
        assert_eq!(soon("the end", events.next()).await, None);
    });
}

// ---- damage ---------------------------------------------------------------------------------

/// A closed log of ten blocks in a directory, damaged by `damage`, and what opening it says.
fn opened_after(damage: impl FnOnce(&Path)) -> (tempfile::TempDir, Result<Hypercore, Error>) {
    let directory = tempfile::tempdir().unwrap();
    let opened = run(async {
        let core = Hypercore::open(directory.path()).await.unwrap();
        core.append_batch((0..10).map(|index| format!("block {index}")))
            .await
            .unwrap();
        core.close().await.unwrap();
        damage(directory.path());
        Hypercore::open(directory.path()).await
    });
    (directory, opened)
}

fn flip(file: &Path, byte: usize) {
    let mut bytes = fs::read(file).unwrap();
    bytes[byte] ^= 1;
    fs::write(file, bytes).unwrap();
}

fn cut(file: &Path, bytes: u64) {
    let file = fs::OpenOptions::new().write(true).open(file).unwrap();
    let length = file.metadata().unwrap().len();
    file.set_len(length - bytes).unwrap();
}

fn refused(damage: impl FnOnce(&Path)) -> Error {
    let (_directory, opened) = opened_after(damage);
    let error = opened.expect_err("damage is seen");
    assert!(error.is_corruption(), "{error}");
    error
}

#[test]
fn damaged_keys_are_refused() {
    // Either half of the secret key, or the key: they do not belong together any more.
    for (file, byte) in [("secret_key", 0), ("secret_key", 40), ("key", 0)] {
        let error = refused(|directory| flip(&directory.join(file), byte));
        assert!(
            matches!(error, Error::Corrupt(Corruption::SecretKey)),
            "{file}: {error}"
        );
    }
    let other = KeyPair::from_seed(&[3; 32]);
    let error = refused(|directory| {
        fs::write(directory.join("secret_key"), &other.to_bytes()[..]).unwrap();
    });
    assert!(
        matches!(error, Error::Corrupt(Corruption::SecretKey)),
        "{error}"
    );

    for (name, named) in [("key", FileName::Key), ("secret_key", FileName::SecretKey)] {
        let error = refused(|directory| cut(&directory.join(name), 1));
        let short =
            matches!(error, Error::Storage(storage::Error::Corrupt { file, .. }) if file == named);
        assert!(short, "{name}: {error}");
    }

    // A reader finds a damaged key by the signature.
    let error = refused(|directory| {
        fs::remove_file(directory.join("secret_key")).unwrap();
        flip(&directory.join("key"), 0);
    });
    let signature = matches!(error, Error::Corrupt(Corruption::Signature { length: 10 }));
    assert!(signature, "{error}");
}

#[test]
fn a_missing_key_is_never_replaced() {
    let error = refused(|directory| {
        fs::remove_file(directory.join("key")).unwrap();
        fs::remove_file(directory.join("secret_key")).unwrap();
    });
    assert!(
        matches!(error, Error::Corrupt(Corruption::KeyMissing)),
        "{error}"
    );

    // The secret key holds it, too.
    let (_directory, core) = opened_after(|directory| {
        fs::remove_file(directory.join("key")).unwrap();
    });
    run(async {
        let core = core.unwrap();
        assert_eq!(core.append("more").await.unwrap(), 10);
    });
}

#[test]
fn a_damaged_signature_is_refused() {
    let error = refused(|directory| flip(&directory.join("signatures"), 32 + 64 * 9));
    let signature = matches!(error, Error::Corrupt(Corruption::Signature { length: 10 }));
    assert!(signature, "{error}");
}

/// Node goes on without signatures from here.
#[test]
fn without_its_signature_a_log_is_read_only() {
    let (_directory, core) = opened_after(|directory| cut(&directory.join("signatures"), 64));
    run(async {
        let core = core.unwrap();
        assert!(!core.is_writable());
        assert_eq!(core.get(9).await.unwrap(), "block 9");
        let error = core.append("no").await.unwrap_err();
        let signature = matches!(error, Error::Corrupt(Corruption::Signature { length: 10 }));
        assert!(signature, "{error}");
    });
}

#[test]
fn a_damaged_root_is_refused() {
    // The roots of ten blocks are 7 and 17.
    for node in [7, 17] {
        let error = refused(|directory| flip(&directory.join("tree"), 32 + 40 * node));
        assert!(
            matches!(error, Error::Corrupt(Corruption::Signature { .. })),
            "{error}"
        );
    }
}

#[test]
fn a_damaged_block_is_not_handed_out() {
    let (_directory, core) = opened_after(|directory| flip(&directory.join("data"), 7 * 4 + 2));
    run(async {
        let core = core.unwrap();
        let error = core.get(4).await.unwrap_err();
        let block = matches!(error, Error::Corrupt(Corruption::Block { index: 4 }));
        assert!(block && error.is_corruption(), "{error}");
        assert_eq!(core.get(5).await.unwrap(), "block 5");
        let audit = core.audit().await.unwrap();
        assert_eq!((audit.valid, audit.invalid), (9, vec![4]));

        // Cleared, it can be downloaded again.
        core.clear(4..5).await.unwrap();
        assert!(core.audit().await.unwrap().invalid.is_empty());
    });
}

#[test]
fn a_missing_end_of_the_data_is_found() {
    let (_directory, core) = opened_after(|directory| cut(&directory.join("data"), 1));
    run(async {
        let core = core.unwrap();
        let error = core.get(9).await.unwrap_err();
        assert!(error.is_corruption(), "{error}");
        assert_eq!(core.audit().await.unwrap().invalid, [9]);
    });
}

/// A damaged block goes to nobody: the reader gets it from a peer where it is whole.
#[test]
fn a_damaged_block_comes_from_another_peer() {
    let (_directory, damaged) = opened_after(|directory| flip(&directory.join("data"), 7 * 4 + 2));
    run(async {
        let damaged = damaged.unwrap();
        let whole = clone_of(&damaged, true).await;
        let reader = clone_of(&damaged, true).await;
        let connection = connect_live(&whole, &damaged).await;
        soon("the length", whole.update()).await.unwrap();
        // Asked for in a row, they are read together.
        let all = whole.download(0..10);
        for index in (0..10).filter(|&index| index != 4) {
            let block = soon("a block", whole.get(index)).await.unwrap();
            assert_eq!(block, format!("block {index}"));
        }
        drop(all);
        let get = soon("an answer", whole.get_with(4, get_if_available())).await;
        assert!(matches!(get, Err(Error::NotAvailable)), "{get:?}");
        assert!(!whole.has(4));
        connection.cancel().await;
        disconnected(&damaged).await;

        // Somebody else has the whole block: a copy of the log from before the damage.
        let intact = tempfile::tempdir().unwrap();
        for entry in fs::read_dir(_directory.path()).unwrap() {
            let entry = entry.unwrap();
            fs::copy(entry.path(), intact.path().join(entry.file_name())).unwrap();
        }
        flip(&intact.path().join("data"), 7 * 4 + 2);
        let intact = Hypercore::open(intact.path()).await.unwrap();

        let first = connect_live(&reader, &damaged).await;
        connected(&reader, 1).await;
        let mut get = Box::pin(reader.get(4));
        start(get.as_mut()).await;
        let second = connect_live(&reader, &intact).await;
        assert_eq!(soon("the block", get).await.unwrap(), "block 4");
        first.cancel().await;
        second.cancel().await;
    });
}
