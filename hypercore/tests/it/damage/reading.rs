//! What reading does about damaged blocks.

use std::{
    fs, io,
    sync::{
        Arc, Barrier,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
};

use futures_lite::{
    StreamExt,
    future::{block_on, zip},
};
use hypercore::{
    Corruption, Error, GetOptions, Hypercore, ReadOptions,
    storage::{FileName, Memory, RandomAccess, Storage},
};

use super::{cut, flip, log, opened_after};
use crate::support::{
    clone_of, connect_live, connected, disconnected, get_if_available, run, soon, start, writer,
};

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
        // Alone, with those before it, and in a stream.
        let named = |error| {
            let is_named = matches!(error, Error::Corrupt(Corruption::Block { index: 9 }));
            assert!(is_named, "{error:?}");
        };
        named(core.get(9).await.unwrap_err());
        named(core.get_batch(0..10).await.unwrap_err());
        let mut blocks = core.read_stream((5..10).into());
        for _ in 5..9 {
            blocks.next().await.unwrap().unwrap();
        }
        named(blocks.next().await.unwrap().unwrap_err());
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

/// A block that does not fit our own tree is not its sender's fault, and an honest one is not left
/// for it.
#[test]
fn a_rotten_node_is_not_blamed_on_a_peer() {
    run(async {
        let log = writer(10).await;
        // The hash of the neighbour, and the hash and the size of the node above the next two.
        for (byte, block) in [(32 + 40 * 2, 1), (32 + 40 * 5, 2), (32 + 40 * 5 + 39, 3)] {
            let directory = tempfile::tempdir().unwrap();
            let open = || async {
                let options = Hypercore::options().key(log.key()).sparse(true);
                options.open(directory.path()).await.unwrap()
            };
            let copy = open().await;
            let connection = connect_live(&copy, &log).await;
            soon("a block", copy.get(0)).await.unwrap();
            connection.cancel().await;
            copy.close().await.unwrap();

            flip(&directory.path().join("tree"), byte);
            let copy = open().await;
            let connection = connect_live(&copy, &log).await;
            connected(&copy, 1).await;
            let mut get = Box::pin(copy.get(block));
            start(get.as_mut()).await;
            let (error, _) = soon("the end", connection).await;
            let error = error.unwrap_err();
            let found = matches!(error, Error::Corrupt(Corruption::WrongNode { .. }));
            assert!(found && error.is_corruption(), "{error:?}");
            assert!(!error.is_peer_fault() && !copy.has(block));
        }
    });
}

/// Blocks are read several at a time: what comes before a damaged one is read, and the damage
/// named, every time.
#[test]
fn a_stream_ends_at_the_damaged_block() {
    let (storage, blocks) = log(40);
    let mut data = storage.read(FileName::Data);
    let offset: usize = blocks[..25].iter().map(Vec::len).sum();
    data[offset] ^= 1;
    storage.write(FileName::Data, &data);
    block_on(async {
        let core = Hypercore::options().open_storage(storage.clone()).await;
        let core = core.unwrap();
        for _ in 0..2 {
            let mut stream = core.read_stream(ReadOptions::default());
            for block in &blocks[..25] {
                assert_eq!(stream.next().await.unwrap().unwrap(), block);
            }
            let error = stream.next().await.unwrap().unwrap_err();
            let found = matches!(error, Error::Corrupt(Corruption::Block { index: 25 }));
            assert!(found, "{error:?}");
            assert!(stream.next().await.is_none());
        }
        let rest = core.get_batch(26..40).await.unwrap();
        assert_eq!(rest, blocks[26..]);
        assert!(core.get_batch(20..40).await.is_err());
        // What was found whole once does not vouch for the rest.
        let mut stream = core.read_stream((20..40).into());
        for block in &blocks[20..25] {
            assert_eq!(stream.next().await.unwrap().unwrap(), block);
        }
        assert!(stream.next().await.unwrap().is_err());
    });
}

/// A storage that holds up the first read of `data` after it was told to, counts them all, and has a
/// byte of `data` that cannot be read.
#[derive(Clone)]
pub(super) struct HeldUp {
    files: Memory,
    pub(super) gate: Arc<Gate>,
}

#[derive(Debug)]
pub(super) struct Gate {
    is_closed: AtomicBool,
    reached: Barrier,
    opened: Barrier,
    pub(super) reads: AtomicU64,
    bad_byte: AtomicU64,
}

impl Gate {
    /// Holds up the next read.
    pub(super) fn close(&self) {
        self.is_closed.store(true, Ordering::Relaxed);
    }

    /// Waits until a read is held up.
    pub(super) fn reached(&self) {
        self.reached.wait();
    }

    /// Lets it go on.
    pub(super) fn open(&self) {
        self.opened.wait();
    }
}

#[derive(Debug)]
struct HeldUpFile {
    inner: Arc<dyn RandomAccess>,
    gate: Arc<Gate>,
}

impl Storage for HeldUp {
    fn open(&self, file: FileName) -> io::Result<Arc<dyn RandomAccess>> {
        let inner = self.files.open(file)?;
        if file != FileName::Data {
            return Ok(inner);
        }
        let gate = Arc::clone(&self.gate);
        Ok(Arc::new(HeldUpFile { inner, gate }))
    }
}

impl RandomAccess for HeldUpFile {
    fn len(&self) -> io::Result<u64> {
        self.inner.len()
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.gate.reads.fetch_add(1, Ordering::Relaxed);
        if self.gate.is_closed.swap(false, Ordering::Relaxed) {
            self.gate.reached();
            self.gate.open();
        }
        let end = offset + buffer.len() as u64;
        if (offset..end).contains(&self.gate.bad_byte.load(Ordering::Relaxed)) {
            return Err(io::Error::other("a bad sector"));
        }
        self.inner.read_at(offset, buffer)
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.inner.write_at(offset, data)
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        self.inner.truncate(len)
    }

    fn sync(&self) -> io::Result<()> {
        self.inner.sync()
    }
}

impl HeldUp {
    pub(super) fn new(files: Memory) -> Self {
        let gate = Arc::new(Gate {
            is_closed: AtomicBool::new(false),
            reached: Barrier::new(2),
            opened: Barrier::new(2),
            reads: AtomicU64::new(0),
            bad_byte: AtomicU64::new(u64::MAX),
        });
        Self { files, gate }
    }
}

/// It ended there without any report.
#[test]
fn an_audit_goes_on_behind_what_the_disk_cannot_read() {
    let storage = HeldUp::new(log(10).0);
    block_on(async {
        let core = Hypercore::options().open_storage(storage.clone()).await;
        let core = core.unwrap();
        let start: u64 = (0..7).map(|index| 3 + index).sum();
        storage.gate.bad_byte.store(start + 1, Ordering::Relaxed);
        let audit = core.audit().await.unwrap();
        assert_eq!((audit.valid, audit.invalid), (9, vec![7]));
    });
}

#[test]
fn an_audit_that_nobody_waits_for_any_more_ends() {
    let files = Memory::new();
    block_on(async {
        let options = Hypercore::options();
        let core = options.open_storage(files.clone()).await.unwrap();
        core.append_batch(vec!["x"; 100]).await.unwrap();
        core.close().await.unwrap();
        let storage = HeldUp::new(files);
        let core = Hypercore::options().open_storage(storage.clone()).await;
        let core = core.unwrap();
        let before = storage.gate.reads.load(Ordering::Relaxed);
        storage.gate.close();
        let mut audit = Box::pin(core.audit());
        start(audit.as_mut()).await;
        storage.gate.reached();
        drop(audit);
        drop(core);
        storage.gate.open();
        // Whoever reads the files holds them.
        while Arc::strong_count(&storage.gate) > 1 {
            thread::yield_now();
        }
        let reads = storage.gate.reads.load(Ordering::Relaxed) - before;
        assert_eq!(reads, 1);
    });
}

#[test]
fn a_block_that_is_cleared_during_an_audit_is_not_damaged() {
    let storage = HeldUp::new(log(3).0);
    block_on(async {
        let core = Hypercore::options().open_storage(storage.clone()).await;
        let core = core.unwrap();
        storage.gate.close();
        let clear = async {
            storage.gate.reached();
            core.clear(0..1).await.unwrap();
            storage.gate.open();
        };
        let (audit, ()) = zip(core.audit(), clear).await;
        let audit = audit.unwrap();
        assert_eq!((audit.valid, audit.invalid), (2, Vec::new()));
    });
}

/// What was left to be read counted as damaged.
#[test]
fn an_audit_of_what_is_destroyed_finds_no_damage() {
    let storage = HeldUp::new(log(3).0);
    block_on(async {
        let core = Hypercore::options().open_storage(storage.clone()).await;
        let core = core.unwrap();
        storage.gate.close();
        let destroy = async {
            storage.gate.reached();
            core.destroy().await.unwrap();
            storage.gate.open();
        };
        let (audit, ()) = zip(core.audit(), destroy).await;
        assert!(matches!(audit, Err(Error::Closed)), "{audit:?}");
    });
}

/// It was said to be damaged.
#[test]
fn a_block_that_is_destroyed_while_it_is_read_is_closed() {
    let storage = HeldUp::new(log(3).0);
    let core = block_on(Hypercore::options().open_storage(storage.clone())).unwrap();
    storage.gate.close();
    let read = thread::scope(|scope| {
        let reading = scope.spawn(|| block_on(core.get(0)));
        storage.gate.reached();
        block_on(core.destroy()).unwrap();
        storage.gate.open();
        reading.join().unwrap()
    });
    assert!(matches!(read, Err(Error::Closed)), "{read:?}");
}

/// The bytes are gone when they are read: that is no damage, and they are not what the block was.
#[test]
fn a_block_that_is_cleared_while_it_is_read_is_not_there() {
    for (size, is_checked, together) in [
        (10, false, 1),
        (10, true, 1),
        (1000, false, 1),
        (1000, true, 1),
        (1000, false, 2),
        (1000, true, 2),
    ] {
        let case = format!("{size} bytes, checked: {is_checked}, {together} together");
        let files = Memory::new();
        block_on(async {
            let options = Hypercore::options();
            let core = options.open_storage(files.clone()).await.unwrap();
            core.append_batch(vec![vec![7; size]; 3]).await.unwrap();
            core.close().await.unwrap();
        });
        let storage = HeldUp::new(files);
        let core = block_on(Hypercore::options().open_storage(storage.clone())).unwrap();
        if is_checked {
            block_on(core.get_batch(0..3)).unwrap();
        }
        storage.gate.close();
        let read = || {
            let local = GetOptions::local();
            match together {
                1 => block_on(core.get_with(0, local)).map(|_| ()),
                _ => block_on(core.get_batch_with(0..together, local)).map(|_| ()),
            }
        };
        let read = thread::scope(|scope| {
            let reading = scope.spawn(read);
            storage.gate.reached();
            block_on(core.clear(0..2)).unwrap();
            storage.gate.open();
            reading.join().unwrap()
        });
        let is_gone = matches!(read, Err(Error::BlockNotStored { index: 0 }));
        assert!(is_gone, "{case}: {read:?}");
    }
}

/// A log of `blocks` of which a node of the tree has one more byte than is true, where no root stands.
async fn with_a_wrong_size(blocks: &[Vec<u8>], node: usize) -> Hypercore {
    let storage = Memory::new();
    let core = Hypercore::options().open_storage(storage.clone()).await;
    let core = core.unwrap();
    core.append_batch(blocks.to_vec()).await.unwrap();
    core.close().await.unwrap();
    let mut tree = storage.read(FileName::Tree);
    tree[32 + 40 * node + 39] ^= 1;
    storage.write(FileName::Tree, &tree);
    let core = Hypercore::options().open_storage(storage).await;
    core.unwrap()
}

/// They were looked for behind the block whose size was wrong.
#[test]
fn the_blocks_after_a_leaf_with_a_wrong_size_are_read() {
    let blocks: Vec<_> = (0..16).map(|index| vec![index; 600]).collect();
    block_on(async {
        let core = with_a_wrong_size(&blocks, 2 * 5).await;
        for order in [[4, 5, 6, 7], [7, 6, 5, 4], [5, 6, 5, 6]] {
            for index in order {
                let found = core.get_with(index, GetOptions::local()).await;
                if index == 5 {
                    assert!(found.is_err_and(|error| error.is_corruption()));
                } else {
                    assert_eq!(found.unwrap(), blocks[index as usize]);
                }
            }
        }
    });
}

/// A block that was found behind the one before it, and had the right hash, was trusted later, when it was
/// looked for by the sizes of the roots before it: other bytes were handed out.
#[test]
fn a_block_is_looked_for_in_one_way() {
    let blocks: Vec<_> = (0..32).map(|index| vec![index; 600]).collect();
    block_on(async {
        // The node above the first eight.
        let core = with_a_wrong_size(&blocks, 7).await;
        let read = async |index: u64| match core.get_with(index, GetOptions::local()).await {
            Ok(block) => {
                assert_eq!(block, blocks[index as usize]);
                true
            }
            Err(error) => {
                assert!(error.is_corruption(), "{error}");
                false
            }
        };
        for _ in 0..2 {
            let mut damaged = Vec::new();
            for index in 0..32 {
                if !read(index).await {
                    damaged.push(index);
                }
            }
            assert_eq!(damaged, (8..16).collect::<Vec<_>>());
            assert_eq!(core.audit().await.unwrap().invalid, damaged);
            for index in (0..32).rev() {
                assert_eq!(read(index).await, !damaged.contains(&index));
            }
            // Where blocks stand is forgotten.
            core.append("another").await.unwrap();
        }
        // Together they are read one behind the other.
        assert_eq!(core.get_batch(0..32).await.unwrap(), blocks);
    });
}

/// Bytes of another place were given in their stead.
#[test]
fn a_byte_is_not_looked_for_by_sizes_that_are_wrong() {
    let blocks: Vec<_> = (0..32).map(|index| vec![index; 600]).collect();
    block_on(async {
        for (node, is_found) in [(7, 600 * 20), (2 * 9, 600 * 3), (3, 600 * 31)] {
            let core = with_a_wrong_size(&blocks, node).await;
            let found = core.seek(is_found + 7).await.unwrap();
            assert_eq!((found.index, found.offset), (is_found / 600, 7));
            let mut failed = 0;
            for offset in (0..32 * 600).step_by(100) {
                match core.seek(offset).await {
                    Ok(found) => {
                        assert_eq!((found.index, found.offset), (offset / 600, offset % 600))
                    }
                    Err(error) => {
                        let is_named =
                            matches!(error, Error::Corrupt(Corruption::WrongNode { node: 31 }));
                        assert!(is_named, "{error}");
                        failed += 1;
                    }
                }
            }
            assert!(failed >= 6, "{failed}");
        }
    });
}
