//! Appending, alone and at once with others, and clearing.

use std::{
    io,
    sync::{
        Arc, RwLock,
        mpsc::{RecvError, Sender, channel},
    },
    task::Poll,
    thread::{self, JoinHandle},
};

use futures_lite::future;
use hypercore::{
    Durability, Error, Event, GetOptions, Hypercore, merkle,
    storage::{FileName, Memory, RandomAccess, Storage, testing::Recording},
};

use crate::support::{clone_of, drain, run, start, writer};

/// The largest block that can be appended.
const MAX: usize = 8 * 1024 * 1024;

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
        let storage = Gated::in_memory();
        let (memory, gate) = (storage.storage.clone(), Arc::clone(&storage.gate));
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
        let storage = Gated::in_memory();
        let (memory, gate) = (storage.storage.clone(), Arc::clone(&storage.gate));
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

/// A storage that syncs one file only while the gate is open.
#[derive(Clone)]
pub(crate) struct Gated<S = Memory> {
    pub(crate) storage: S,
    pub(crate) file: FileName,
    pub(crate) gate: Arc<RwLock<()>>,
}

impl Gated {
    /// In memory, with a gate before its signatures.
    pub(crate) fn in_memory() -> Self {
        Self::new(Memory::new(), FileName::Signatures)
    }
}

impl<S> Gated<S> {
    /// With a gate before `file`.
    pub(crate) fn new(storage: S, file: FileName) -> Self {
        Self {
            storage,
            file,
            gate: Arc::default(),
        }
    }

    /// Closes the gate.
    pub(crate) fn close(&self) -> Closed {
        let (closed, is_closed) = channel();
        let (open, to_be_opened) = channel();
        let gate = Arc::clone(&self.gate);
        let keeper = thread::spawn(move || {
            let _closed = gate.write().unwrap();
            closed.send(()).unwrap();
            // It is open when nobody is there any more to open it.
            let _: Result<(), RecvError> = to_be_opened.recv();
        });
        is_closed.recv().unwrap();
        Closed { open, keeper }
    }
}

/// A gate that is closed, as long as this exists.
pub(crate) struct Closed {
    open: Sender<()>,
    keeper: JoinHandle<()>,
}

impl Closed {
    pub(crate) fn open(self) {
        drop(self.open);
        self.keeper.join().unwrap();
    }
}

#[derive(Debug)]
struct GatedFile {
    file: Arc<dyn RandomAccess>,
    gate: Arc<RwLock<()>>,
}

impl<S: Storage> Storage for Gated<S> {
    fn open(&self, file: FileName) -> io::Result<Arc<dyn RandomAccess>> {
        let opened = self.storage.open(file)?;
        if file != self.file {
            return Ok(opened);
        }
        Ok(Arc::new(GatedFile {
            file: opened,
            gate: Arc::clone(&self.gate),
        }))
    }

    fn beside(&self, name: &str) -> io::Result<Option<Arc<dyn RandomAccess>>> {
        self.storage.beside(name)
    }

    fn place(&self) -> io::Result<Vec<u8>> {
        self.storage.place()
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

    fn lock(&self) -> io::Result<()> {
        self.file.lock()
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

/// It was signed and synced, and told to everybody as growth.
#[test]
fn a_batch_of_nothing_does_nothing() {
    run(async {
        let core = writer(0).await;
        let mut events = core.events();
        assert_eq!(core.append_batch::<&str>([]).await.unwrap(), 0..0);
        core.append("a").await.unwrap();
        assert_eq!(core.append_batch::<&str>([]).await.unwrap(), 1..1);
        assert_eq!(drain(&mut events).await, [Event::Append { length: 1 }]);
        // Whoever may not append may not append nothing either.
        let clone = clone_of(&core, true).await;
        let refused = clone.append_batch::<&str>([]).await;
        assert!(matches!(refused, Err(Error::NotWritable)), "{refused:?}");
        core.close().await.unwrap();
        let refused = core.append_batch::<&str>([]).await;
        assert!(matches!(refused, Err(Error::Closed)), "{refused:?}");
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
        assert!(core.clear(5..).await.is_err(), "it begins beyond the end");
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

#[test]
fn a_range_that_is_open_is_cleared_to_the_end() {
    run(async {
        let core = writer(4).await;
        assert_eq!(core.clear(2..).await.unwrap(), 2);
        assert_eq!(core.clear(..=0).await.unwrap(), 1);
        assert!(core.has(1));
        assert_eq!(core.clear(..).await.unwrap(), 0);
    });
}
