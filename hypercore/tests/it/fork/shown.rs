//! What peers show to a writer that is behind, and how it resumes.

use std::{
    fs,
    sync::{
        Mutex,
        mpsc::{Receiver, Sender, channel},
    },
    time::Duration,
};

use futures_lite::future::or;
use hypercore::{
    AppendLock, Durability, Error, Event, Hypercore, PeerInfo, PublicKey, ReplicateOptions, Signer,
    merkle::{Signature, TreeHead},
    storage::{FileName, Memory, testing::FaultStorage},
};
use tempfile::TempDir;

use super::{append, copy, log, open};
use crate::{
    support::{
        clone_of, clone_with, connect, connect_live, connected, directories, disconnected, drain,
        event, key_pair, live_download, options, run, soon, start,
    },
    writing::Gated,
};

/// A backup without the file beside the log, put back elsewhere: only peers know better.
pub(super) async fn old_backup(blocks: u64) -> (TempDir, Hypercore, Hypercore) {
    backup_of(blocks, false).await
}

/// A backup of a log of `blocks` blocks when it had 5, put back elsewhere, and a clone of all.
async fn backup_of(blocks: u64, guarded: bool) -> (TempDir, Hypercore, Hypercore) {
    let original = log(5).await;
    let backup = copy(original.path());
    if !guarded {
        fs::remove_file(backup.path().join("fork-guard")).unwrap();
    }
    let original = open(&original).await;
    for index in 5..blocks {
        original.append(format!("block {index}")).await.unwrap();
    }
    let reader = clone_of(&original, false).await;
    let connection = connect_live(&reader, &original).await;
    soon("all blocks", reader.download(0..blocks))
        .await
        .unwrap();
    connection.cancel().await;
    disconnected(&reader).await;
    let restored = open(&backup).await;
    (backup, restored, reader)
}

#[test]
fn a_peer_that_proves_more_stops_appends_until_it_is_here() {
    run(async {
        let (backup, restored, reader) = old_backup(9).await;
        assert!(restored.is_writable());
        let mut events = restored.events();
        let connection = connect_live(&restored, &reader).await;
        event(&mut events, |event| {
            *event == Event::Behind { ours: 5, theirs: 9 }
        })
        .await;
        assert_eq!(
            append(&restored).await,
            Err(AppendLock::Behind { ours: 5, theirs: 9 })
        );
        assert_eq!(restored.length(), 5);
        connection.cancel().await;
        restored.close().await.unwrap();

        // It is remembered.
        let restored = Hypercore::open(backup.path()).await.unwrap();
        let shorter = AppendLock::Shorter {
            length: 5,
            signed: 9,
        };
        assert_eq!(append(&restored).await, Err(shorter));
        let alone = restored.resume().await;
        assert!(matches!(alone, Err(Error::NotAvailable)), "{alone:?}");

        let _connection = connect(
            &restored,
            live_download(),
            &reader,
            ReplicateOptions::live(),
        )
        .await;
        connected(&restored, 1).await;
        assert_eq!(soon("its own blocks", restored.resume()).await.unwrap(), 9);
        assert_eq!(restored.get(8).await.unwrap(), "block 8");
        assert_eq!(append(&restored).await, Ok(9));
        assert_eq!(soon("the new block", reader.get(9)).await.unwrap(), "more");
        restored.close().await.unwrap();
        assert_eq!(
            append(&Hypercore::open(backup.path()).await.unwrap()).await,
            Ok(10)
        );
    });
}

/// It was asked when it had no more than we have, and not again.
#[test]
fn a_peer_that_learns_of_more_stops_appends() {
    run(async {
        let directory = log(5).await;
        let backup = copy(directory.path());
        fs::remove_file(backup.path().join("fork-guard")).unwrap();
        let (original, restored) = (open(&directory).await, open(&backup).await);
        let reader = clone_of(&original, false).await;
        let _between = connect_live(&reader, &original).await;
        soon("all blocks", reader.download(0..5)).await.unwrap();
        let mut events = restored.events();
        let _connection = connect_live(&restored, &reader).await;
        let asked = async {
            let is_asked = |peer: &PeerInfo| peer.delay.is_some() && peer.in_flight == 0;
            while !restored.peers().iter().any(is_asked) {
                async_std::task::yield_now().await;
            }
        };
        soon("the proof of five blocks", asked).await;
        original.append("block 5").await.unwrap();
        event(&mut events, |event| {
            *event == Event::Behind { ours: 5, theirs: 6 }
        })
        .await;
        let lock = AppendLock::Behind { ours: 5, theirs: 6 };
        assert_eq!(append(&restored).await, Err(lock));
    });
}

/// Its block, which was refused, was never asked for again, and `resume` waited for it for ever.
#[test]
fn a_block_that_is_waited_for_comes_once_the_writer_resumes() {
    run(async {
        let (_backup, restored, reader) = old_backup(9).await;
        let mut events = restored.events();
        let mut acks = reader.events();
        let mut get = std::pin::pin!(restored.get(5));
        start(get.as_mut()).await;
        let acked = options(|options| {
            options.live = true;
            options.ack = true;
        });
        let _connection = connect(&restored, live_download(), &reader, acked).await;
        event(&mut events, |event| matches!(event, Event::Behind { .. })).await;
        let refused = async {
            while !restored.peers()[0].asked.is_empty() {
                async_std::task::yield_now().await;
            }
        };
        soon("the block that it refuses", refused).await;
        start(get.as_mut()).await;
        assert_eq!(soon("its own blocks", restored.resume()).await.unwrap(), 9);
        assert_eq!(soon("the block", get).await.unwrap(), "block 5");
        event(&mut acks, |event| {
            matches!(event, Event::Ack { index: 5, .. })
        })
        .await;
        let twice = drain(&mut acks).await;
        let twice = twice
            .iter()
            .any(|event| matches!(event, Event::Ack { index: 5, .. }));
        assert!(!twice, "it acknowledged what it had refused");
    });
}

/// It was asked for again as soon as the answer was refused.
#[test]
fn a_position_that_a_writer_refuses_is_asked_for_once_until_it_resumes() {
    run(async {
        let (_backup, restored, reader) = old_backup(9).await;
        let mut events = restored.events();
        let mut seek = std::pin::pin!(restored.seek(5 * 7 + 1));
        start(seek.as_mut()).await;
        let mut update = std::pin::pin!(restored.update());
        start(update.as_mut()).await;
        let uploaded = reader.stats().uploaded_blocks;
        let _connection = connect(
            &restored,
            live_download(),
            &reader,
            ReplicateOptions::live(),
        )
        .await;
        event(&mut events, |event| matches!(event, Event::Behind { .. })).await;
        // That it asks for no more can be seen after a while alone.
        async_std::task::sleep(std::time::Duration::from_millis(500)).await;
        assert!(reader.stats().uploaded_blocks - uploaded < 3);
        assert_eq!(restored.peers()[0].in_flight, 0);
        assert_eq!(soon("its own blocks", restored.resume()).await.unwrap(), 9);
        let position = soon("the position", seek).await.unwrap();
        assert_eq!((position.index, position.offset), (5, 1));
        soon("the length", update).await.unwrap();
    });
}

#[test]
fn a_peer_with_less_does_not_unlock() {
    run(async {
        let (_backup, restored, reader) = old_backup(9).await;
        let mut events = restored.events();
        let connection = connect_live(&restored, &reader).await;
        event(&mut events, |event| matches!(event, Event::Behind { .. })).await;
        connection.cancel().await;
        disconnected(&restored).await;
        let other = Hypercore::options()
            .key(restored.key())
            .open_memory()
            .await
            .unwrap();
        let _connection =
            connect(&restored, live_download(), &other, ReplicateOptions::live()).await;
        connected(&restored, 1).await;
        let resumed = soon("an answer", restored.resume()).await;
        let shorter = AppendLock::Shorter {
            length: 5,
            signed: 9,
        };
        assert!(
            matches!(&resumed, Err(Error::AppendLocked(lock)) if *lock == shorter),
            "{resumed:?}"
        );
        assert_eq!(
            restored.append_lock(),
            Some(AppendLock::Behind { ours: 5, theirs: 9 })
        );
    });
}

/// A signer that is held up, and what was signed meanwhile is shown by a peer.
#[test]
fn what_is_shown_during_an_append_stops_it() {
    struct Slow(Sender<()>, Mutex<Receiver<()>>);
    impl Signer for Slow {
        fn public_key(&self) -> PublicKey {
            key_pair("slow").public_key()
        }

        fn sign(
            &self,
            head: &TreeHead,
        ) -> Result<Signature, Box<dyn std::error::Error + Send + Sync>> {
            self.0.send(())?;
            self.1.lock().unwrap().recv()?;
            Ok(key_pair("slow").sign(head))
        }
    }
    run(async {
        let old = Memory::new();
        let original = Hypercore::options().key_pair(key_pair("slow"));
        let original = original.open_storage(old.clone()).await.unwrap();
        original.append_batch(["a", "b", "c"]).await.unwrap();
        original.flush().await.unwrap();
        let backup = Memory::new();
        for file in FileName::ALL {
            if file != FileName::SecretKey {
                backup.write(file, &old.read(file));
            }
        }
        original.append_batch(["d", "e"]).await.unwrap();

        let (signs, signing) = channel();
        let (go_on, gate) = channel();
        let restored = Hypercore::options().signer(Slow(signs, Mutex::new(gate)));
        let restored = restored.open_storage(backup.clone()).await.unwrap();
        let appending = async_std::task::spawn({
            let restored = restored.clone();
            async move { append(&restored).await }
        });
        async_std::task::spawn_blocking(move || signing.recv().unwrap()).await;
        let mut events = restored.events();
        let connection = connect_live(&restored, &original).await;
        let lock = AppendLock::Behind { ours: 3, theirs: 5 };
        event(&mut events, |event| {
            *event == Event::Behind { ours: 3, theirs: 5 }
        })
        .await;
        go_on.send(()).unwrap();
        assert_eq!(soon("an answer", appending).await, Err(lock));
        assert_eq!((restored.length(), restored.append_lock()), (3, Some(lock)));
        connection.cancel().await;
        disconnected(&original).await;
        restored.close().await.unwrap();
        // Nothing that was signed is left of it.
        assert_eq!(backup.read(FileName::Signatures).len(), 32 + 3 * 64);
        let restored = Hypercore::options().open_storage(backup).await.unwrap();
        assert_eq!(restored.length(), 3);
    });
}

/// The bits of an append are durable together with it at this level, and stayed when it was taken back:
/// the log had blocks that nobody had signed when it was opened again.
#[test]
fn an_append_that_is_taken_back_leaves_no_bits() {
    run(async {
        let old = Memory::new();
        let pair = || Hypercore::options().key_pair(key_pair("gated"));
        let original = pair().open_storage(old.clone()).await.unwrap();
        original.append_batch(["a", "b", "c"]).await.unwrap();
        original.flush().await.unwrap();
        let backup = Gated::in_memory();
        for file in FileName::ALL {
            backup.storage.write(file, &old.read(file));
        }
        original.append_batch(["d", "e"]).await.unwrap();

        let restored = pair().durability(Durability::Interop);
        let restored = restored.open_storage(backup.clone()).await.unwrap();
        let gate = backup.close();
        let appending = async_std::task::spawn({
            let restored = restored.clone();
            async move { append(&restored).await }
        });
        let signed = async {
            while backup.storage.read(FileName::Signatures).len() < 32 + 4 * 64 {
                async_std::task::yield_now().await;
            }
        };
        soon("a signature", signed).await;
        let mut events = restored.events();
        let connection = connect_live(&restored, &original).await;
        let lock = AppendLock::Behind { ours: 3, theirs: 5 };
        event(&mut events, |event| {
            *event == Event::Behind { ours: 3, theirs: 5 }
        })
        .await;
        gate.open();
        assert_eq!(soon("an answer", appending).await, Err(lock));
        connection.cancel().await;
        disconnected(&original).await;
        restored.close().await.unwrap();
        let restored = Hypercore::options();
        let restored = restored.open_storage(backup.storage).await.unwrap();
        assert_eq!(restored.length(), 3);
        assert!(!restored.has(3));
    });
}

/// What a copy is shown is noted, and it stays a copy.
#[test]
fn a_copy_is_shown_more() {
    run(async {
        let original = log(5).await;
        let backup = copy(original.path());
        let original = open(&original).await;
        original.append_batch(["d", "e"]).await.unwrap();
        let restored = open(&backup).await;
        assert_eq!(restored.append_lock(), Some(AppendLock::Copied));
        let mut events = restored.events();
        let connection = connect_live(&restored, &original).await;
        let behind = |event: &Event| *event == Event::Behind { ours: 5, theirs: 7 };
        event(&mut events, behind).await;
        connection.cancel().await;
        disconnected(&restored).await;

        // Who has less does not unlock it now.
        let other = clone_of(&original, false).await;
        let _connection =
            connect(&restored, live_download(), &other, ReplicateOptions::live()).await;
        connected(&restored, 1).await;
        let resumed = soon("an answer", restored.resume()).await;
        assert!(
            matches!(resumed, Err(Error::AppendLocked(_))),
            "{resumed:?}"
        );
        restored.close().await.unwrap();
        assert_eq!(open(&backup).await.append_lock(), Some(AppendLock::Copied));
    });
}

/// A call that was dropped leaves no hole behind the next one.
#[test]
fn a_resume_that_was_dropped_is_done_again() {
    run(async {
        let (_backup, restored, reader) = old_backup(9).await;
        let last = clone_with(&reader, [8]).await;
        let connection = connect(&restored, live_download(), &last, ReplicateOptions::live()).await;
        connected(&restored, 1).await;
        let mut resume = Box::pin(restored.resume());
        while restored.length() < 9 {
            start(resume.as_mut()).await;
            async_io::Timer::after(Duration::from_millis(5)).await;
        }
        drop(resume);
        let mut again = Box::pin(restored.resume());
        let early = or(async { Some(again.as_mut().await) }, async {
            async_io::Timer::after(Duration::from_millis(200)).await;
            None
        });
        assert!(early.await.is_none(), "blocks are missing");
        assert!(!restored.is_writable());

        let _second = connect(
            &restored,
            live_download(),
            &reader,
            ReplicateOptions::live(),
        )
        .await;
        assert_eq!(soon("all blocks", again).await.unwrap(), 9);
        assert!(restored.has_all(0..9) && restored.is_writable());
        connection.cancel().await;
    });
}

/// That was forgotten at a restart, and appends went on behind holes.
#[test]
fn a_resume_that_was_dropped_is_done_again_after_a_restart() {
    run(async {
        for guarded in [false, true] {
            let (backup, restored, reader) = backup_of(9, guarded).await;
            let last = clone_with(&reader, [8]).await;
            let connection =
                connect(&restored, live_download(), &last, ReplicateOptions::live()).await;
            connected(&restored, 1).await;
            let mut resume = Box::pin(restored.resume());
            while restored.length() < 9 {
                start(resume.as_mut()).await;
                async_io::Timer::after(Duration::from_millis(5)).await;
            }
            drop(resume);
            connection.cancel().await;
            restored.close().await.unwrap();

            for _ in 0..2 {
                let restored = open(&backup).await;
                assert_eq!(restored.length(), 9);
                let lock = if guarded {
                    AppendLock::Copied
                } else {
                    AppendLock::Behind { ours: 5, theirs: 9 }
                };
                assert_eq!(append(&restored).await, Err(lock));
                restored.close().await.unwrap();
            }
            let restored = open(&backup).await;
            let _second = connect(
                &restored,
                live_download(),
                &reader,
                ReplicateOptions::live(),
            )
            .await;
            connected(&restored, 1).await;
            assert_eq!(soon("all blocks", restored.resume()).await.unwrap(), 9);
            assert!(restored.has_all(0..9) && restored.is_writable());
            restored.close().await.unwrap();
            assert_eq!(append(&open(&backup).await).await, Ok(9));
        }
    });
}

/// What a peer had proven went with the name of the file that it was noted in.
#[test]
fn what_a_peer_has_proven_survives_a_loss_of_power() {
    run(async {
        let files = Memory::new();
        for file in FileName::ALL {
            let bytes = fs::read(directories().join("blocks-10").join(file.as_str()));
            files.write(file, &bytes.unwrap());
        }
        let storage = FaultStorage::from_image(&files);
        storage.lose_names();
        let original = Hypercore::options().open_storage(files).await.unwrap();
        original.append("block 10").await.unwrap();
        let restored = Hypercore::options().open_storage(storage.clone());
        let restored = restored.await.unwrap();
        let mut events = restored.events();
        let _connection = connect_live(&restored, &original).await;
        event(&mut events, |event| matches!(event, Event::Behind { .. })).await;
        for seed in 0..20 {
            let left = FaultStorage::from_image(&storage.power_cut(seed));
            let left = Hypercore::options().open_storage(left).await.unwrap();
            let lock = AppendLock::Shorter {
                length: 10,
                signed: 11,
            };
            assert_eq!(append(&left).await, Err(lock));
        }
    });
}
