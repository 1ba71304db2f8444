//! What one caller does, or leaves undone, holds up no other.

use std::{
    fmt, io,
    sync::{Arc, Mutex, mpsc},
    time::Duration,
};

use async_std::task;
use futures_lite::future::{block_on, poll_once, zip};
use hypercore::{
    Ended, Error, GetOptions, Hypercore, ReplicateOptions, Replication, Role,
    storage::{FileName, Memory, RandomAccess, Storage, testing::Recording},
};

use crate::support::{
    clone_of, connect, connect_live, get_if_available, run, soon, tcp_pair, writer,
};

/// An append whose future nobody looks at any more, without being dropped, held up all others.
#[test]
fn an_append_that_nobody_looks_at_holds_up_no_other() {
    run(async {
        let directory = tempfile::tempdir().unwrap();
        let core = Hypercore::open(directory.path()).await.unwrap();
        for round in 0..20 {
            let mut left_alone: Vec<_> = (0..3).map(|_| Box::pin(core.append("a"))).collect();
            let mut flush = Box::pin(core.flush());
            for append in &mut left_alone {
                assert!(poll_once(append).await.is_none() || round > 0);
            }
            let _ = poll_once(&mut flush).await;
            let index = soon("an append", core.append("b")).await.unwrap();
            assert_eq!(index, 4 * round + 3);
            soon("a flush", core.flush()).await.unwrap();
        }
        core.close().await.unwrap();
    });
}

/// What was to be cleared ended beyond the log, which was cut meanwhile.
#[test]
fn an_open_range_ends_where_the_log_does_when_its_turn_comes() {
    run(async {
        let core = writer(5).await;
        let (cut, cleared) = zip(core.truncate(2), core.clear(..)).await;
        cut.unwrap();
        assert_eq!(cleared.unwrap(), 0);
    });
}

/// Whoever drops the last handle after an append was waited for can open the directory again.
#[test]
fn the_last_handle_releases_the_directory() {
    run(async {
        let directory = tempfile::tempdir().unwrap();
        for round in 0..50 {
            let core = Hypercore::open(directory.path()).await.unwrap();
            assert_eq!(core.length(), 2 * round);
            let (one, other) = zip(core.append("a"), core.append("b")).await;
            assert_eq!(one.unwrap() + other.unwrap(), 4 * round + 1);
        }
    });
}

/// A core that is closed while it is busy ended what other cores had on the same connection.
#[test]
fn a_core_that_is_closed_lets_go_of_no_other() {
    run(async {
        for closes_writer in [true, false] {
            let (kept, closed) = (writer(1).await, writer(2000).await);
            let (kept_clone, clone) = (clone_of(&kept, true).await, clone_of(&closed, false).await);
            let replication = Replication::new(Role::Initiator, ReplicateOptions::live()).unwrap();
            let remote = Replication::new(Role::Responder, ReplicateOptions::live()).unwrap();
            for core in [&kept, &closed] {
                replication.add(core).unwrap();
            }
            for core in [&kept_clone, &clone] {
                remote.add(core).unwrap();
            }
            let (ours, theirs) = tcp_pair().await;
            let ends = task::spawn(zip(replication.run(ours), remote.run(theirs)));
            soon("some blocks", clone.download(0..100)).await.unwrap();
            let busy = if closes_writer { &closed } else { &clone };
            busy.close().await.unwrap();
            // The rest of what was asked for arrives, and is answered, meanwhile.
            for index in 1..100 {
                kept.append(format!("block {index}")).await.unwrap();
                let block = soon("a block of the other", kept_clone.get(index)).await;
                assert_eq!(block.unwrap(), format!("block {index}"));
            }
            drop(ends);
        }
    });
}

/// The future borrowed the core, so that no task could have it.
#[test]
fn a_connection_is_a_task_of_its_own() {
    run(async {
        let origin = writer(3).await;
        let clone = clone_of(&origin, false).await;
        let (client, server) = tcp_pair().await;
        let serving = origin.replicate_over(server, Role::Responder, ReplicateOptions::default());
        // Until it is looked at, nothing happens, as with any future.
        assert!(origin.peers().is_empty());
        let serving = task::spawn(serving);
        drop(origin);
        let cloning = clone.replicate_over(client, Role::Initiator, ReplicateOptions::default());
        let (ours, theirs) = soon("the end", zip(cloning, serving)).await;
        assert_eq!(
            (ours.unwrap(), theirs.unwrap()),
            (Ended::Complete, Ended::Complete)
        );
        assert_eq!(clone.downloaded(..), 3);
    });
}

/// A core that was added to a connection that is over waited for it for ever.
#[test]
fn nothing_is_added_to_a_connection_that_is_over() {
    run(async {
        let (origin, other) = (writer(1).await, writer(1).await);
        let clone = clone_of(&origin, false).await;
        let (client, server) = tcp_pair().await;
        let replication = clone
            .replicate(Role::Initiator, ReplicateOptions::default())
            .unwrap();
        let handle = replication.handle();
        let ends = zip(
            replication.run(client),
            origin.replicate_over(server, Role::Responder, ReplicateOptions::default()),
        );
        let (ours, _) = soon("the end", ends).await;
        assert_eq!(ours.unwrap(), Ended::Complete);
        assert!(matches!(handle.add(&other), Err(Error::Transport(_))));
        assert!(other.peers().is_empty());
    });
}

/// The hook was called with the core locked.
#[test]
fn the_hook_may_ask_the_core() {
    run(async {
        let origin = writer(1).await;
        let clone = clone_of(&origin, true).await;
        let asked = origin.clone();
        let careful = ReplicateOptions::live()
            .on_core_authenticate(move |key, _| asked.key() == key && asked.length() == 1);
        let live = ReplicateOptions::live();
        let _connection = connect(&clone, live, &origin, careful).await;
        assert_eq!(soon("a block", clone.get(0)).await.unwrap(), "block 0");
    });
}

// ---- a block that is dropped while it is read -------------------------------------------------

type Work = Box<dyn FnOnce() + Send>;

/// What to do next time.
#[derive(Clone, Default)]
struct Between(Arc<Mutex<Option<Work>>>);

impl Between {
    fn set(&self, work: impl FnOnce() + Send + 'static) {
        *self.0.lock().unwrap() = Some(Box::new(work));
    }

    fn go(&self) {
        let work = self.0.lock().unwrap().take();
        if let Some(work) = work {
            work();
        }
    }
}

impl fmt::Debug for Between {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Between")
    }
}

#[derive(Debug)]
struct Interrupted {
    memory: Memory,
    before_read: Between,
    before_cut: Between,
}

impl Storage for Interrupted {
    fn open(&self, file: FileName) -> io::Result<Arc<dyn RandomAccess>> {
        let inner = self.memory.open(file)?;
        Ok(match file {
            FileName::Data => Arc::new(InterruptedFile {
                inner,
                before_read: self.before_read.clone(),
                before_cut: self.before_cut.clone(),
            }),
            _ => inner,
        })
    }
}

#[derive(Debug)]
struct InterruptedFile {
    inner: Arc<dyn RandomAccess>,
    before_read: Between,
    before_cut: Between,
}

impl RandomAccess for InterruptedFile {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.before_read.go();
        self.inner.read_at(offset, buffer)
    }

    fn len(&self) -> io::Result<u64> {
        self.inner.len()
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.inner.write_at(offset, data)
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        self.before_cut.go();
        self.inner.truncate(len)
    }

    fn sync(&self) -> io::Result<()> {
        self.inner.sync()
    }
}

/// Zeros were handed out in place of a block that had been read and checked before.
#[test]
fn a_block_that_is_dropped_while_it_is_read_is_not_read_as_something_else() {
    run(async {
        let between = Between::default();
        let storage = Interrupted {
            memory: Memory::new(),
            before_read: between.clone(),
            before_cut: Between::default(),
        };
        let core = Hypercore::options().open_storage(storage).await.unwrap();
        core.append_batch(["one", "two", "three"]).await.unwrap();
        for index in 0..3 {
            core.get(index).await.unwrap();
        }
        let other = core.clone();
        between.set(move || assert_eq!(block_on(other.clear(1..2)).unwrap(), 2));
        let mut now = GetOptions::default();
        now.wait = false;
        let read = core.get_with(1, now).await;
        assert!(
            matches!(read, Err(Error::BlockNotStored { index: 1 })),
            "{read:?}"
        );

        let other = core.clone();
        between.set(move || {
            block_on(other.truncate(2)).unwrap();
            block_on(other.append("seven")).unwrap();
        });
        assert_eq!(core.get(2).await.unwrap(), "seven");
    });
}

/// An append that was acknowledged was cut off, with the space of a block before it that was freed.
#[test]
fn an_append_beside_a_clear_stays() {
    run(async {
        let before_cut = Between::default();
        let storage = Interrupted {
            memory: Memory::new(),
            before_read: Between::default(),
            before_cut: before_cut.clone(),
        };
        let core = Hypercore::options().open_storage(storage).await.unwrap();
        core.append_batch(["one", "two"]).await.unwrap();
        let (other, (done, is_done)) = (core.clone(), mpsc::channel());
        before_cut.set(move || {
            std::thread::spawn(move || {
                block_on(other.append("three")).unwrap();
                let _ = done.send(());
            });
            // As long as it might take if nobody held it up.
            let _ = is_done.recv_timeout(Duration::from_millis(300));
        });
        core.clear(1..2).await.unwrap();
        assert_eq!(soon("the append", core.get(2)).await.unwrap(), "three");
        assert_eq!(core.audit().await.unwrap().valid, 2);
    });
}

/// Blocks that came again while their space was being freed were claimed, and gone.
#[test]
fn blocks_that_come_again_while_they_are_cleared_stay() {
    run(async {
        let origin = writer(2000).await;
        let directory = tempfile::tempdir().unwrap();
        let options = Hypercore::options().key(origin.key());
        let clone = options.open(directory.path()).await.unwrap();
        let _connection = connect_live(&clone, &origin).await;
        for _ in 0..10 {
            soon("all blocks", clone.download(0..2000)).await.unwrap();
            clone.clear(100..1900).await.unwrap();
        }
        soon("all blocks", clone.download(0..2000)).await.unwrap();
        assert_eq!(clone.audit().await.unwrap().valid, 2000);
    });
}

/// It ended the connection of whoever asked for it.
#[test]
fn a_block_that_is_too_long_to_be_sent_is_not_here_for_others() {
    run(async {
        let origin = Hypercore::options().open_memory().await.unwrap();
        let longest = vec![7; hypercore::merkle::MAX_BLOCK_SIZE as usize];
        origin.append(longest.clone()).await.unwrap();
        origin.append("short").await.unwrap();
        let clone = clone_of(&origin, true).await;
        let connection = connect_live(&clone, &origin).await;
        let refused = soon("an answer", clone.get_with(0, get_if_available())).await;
        assert!(matches!(refused, Err(Error::NotAvailable)), "{refused:?}");
        assert_eq!(soon("a block", clone.get(1)).await.unwrap(), "short");
        assert_eq!(origin.get(0).await.unwrap(), longest);
        assert_eq!(origin.stats().uploaded_blocks, 1, "only the short one");
        drop(connection);
    });
}

/// All else waited until as much as there was had been freed.
#[test]
fn what_is_cleared_is_freed_a_piece_at_a_time() {
    run(async {
        let storage = Recording::new(Memory::new());
        let core = Hypercore::options().open_storage(storage.clone()).await;
        let core = core.unwrap();
        for _ in 0..40 {
            core.append(vec![7; 1 << 20]).await.unwrap();
        }
        storage.take(FileName::Data);
        assert_eq!(core.clear(2..39).await.unwrap(), 3);
        assert_eq!(storage.take(FileName::Data).writes, 3);
        assert_eq!(core.get(39).await.unwrap().len(), 1 << 20);
        assert!(core.verify().await.unwrap().problems.is_empty());
    });
}
