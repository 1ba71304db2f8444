//! Disks that fail, and what a loss of power leaves.

use std::{
    collections::BTreeSet,
    io,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, Sender, channel},
    },
    thread,
    time::Duration,
};

use hypercore_storage::{
    Error, FeedFiles, FileName, Memory, Operation, RandomAccess, Storage,
    testing::{Fault, FaultStorage},
};

use crate::{node, open};

/// Everything a log does when it appends, once.
fn workload(storage: &FaultStorage) -> Result<(), Error> {
    let files = FeedFiles::open(Arc::new(storage.clone()))?;
    files.write_headers()?;
    files.write_secret_key(&[2; 64])?;
    files.write_key(&[1; 32])?;
    files.sync_keys()?;
    files.write_data(0, &[3; 3000])?;
    files.write_append_nodes(0, 4, &(0..7).map(node).collect::<Vec<_>>())?;
    files.write_signature(3, &[4; 64])?;
    files.sync_content()?;
    files.write_page(0, &[5; 3584])?;
    files.sync_bitfield()
}

fn contents(memory: &Memory) -> [Vec<u8>; 6] {
    FileName::ALL.map(|file| memory.read(file))
}

#[test]
fn every_failure_is_reported_and_trying_again_heals() {
    let good = FaultStorage::new();
    workload(&good).unwrap();
    for fault in [Fault::Io, Fault::Full, Fault::Short, Fault::Sync] {
        for count in 0..good.operations() {
            let storage = FaultStorage::new();
            storage.fail_at(count, fault);
            match workload(&storage) {
                Err(Error::Io { operation, .. }) => match fault {
                    Fault::Io => {}
                    Fault::Full | Fault::Short => assert_eq!(operation, Operation::Write),
                    Fault::Sync => assert_eq!(operation, Operation::Sync),
                },
                Err(error) => panic!("{fault:?} {count}: {error}"),
                // Behind the last operation it suits, a fault never strikes.
                Ok(()) => {
                    assert!(fault != Fault::Io && count + 8 > good.operations());
                    continue;
                }
            }
            workload(&storage).unwrap();
            assert_eq!(
                contents(&storage.image()),
                contents(&good.image()),
                "{fault:?} {count}"
            );
        }
    }
}

#[test]
fn what_was_synced_survives_every_power_cut() {
    let storage = FaultStorage::new();
    workload(&storage).unwrap();
    assert_eq!(storage.unsynced_sectors(), 0);
    let synced = contents(&storage.image());
    let files = open(&storage);
    files.write_data(3000, &[6; 5000]).unwrap();
    assert_eq!(
        storage.unsynced_sectors(),
        11,
        "bytes 3000 to 8000, sectors 5 to 15"
    );

    let mut lengths = BTreeSet::new();
    for seed in 0..300 {
        let image = storage.power_cut(seed);
        for (file, synced) in FileName::ALL.into_iter().zip(&synced) {
            let bytes = image.read(file);
            assert!(bytes.starts_with(synced), "{file}");
            assert!(file == FileName::Data || bytes.len() == synced.len());
        }
        lengths.insert(image.read(FileName::Data).len());
        assert_eq!(
            contents(&image),
            contents(&storage.power_cut(seed)),
            "the seed decides"
        );
    }
    assert!(
        lengths.contains(&3000) && lengths.contains(&8000) && lengths.len() > 4,
        "{lengths:?}"
    );

    files.sync_content().unwrap();
    for seed in 0..100 {
        assert_eq!(storage.power_cut(seed).read(FileName::Data).len(), 8000);
    }
}

#[test]
fn a_failed_sync_makes_nothing_durable_until_the_files_are_opened_again() {
    let storage = FaultStorage::new();
    let files = open(&storage);
    files.write_data(0, b"abc").unwrap();
    storage.fail_at(0, Fault::Sync);
    let error = files.sync_content().unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("could not sync the file `data`"),
        "{error}"
    );
    assert!(!error.is_corruption() && !error.is_locked());
    assert!((0..50).any(|seed| storage.power_cut(seed).read(FileName::Data).is_empty()));

    // The next one works, and the system may have dropped what the first could not write.
    let error = files.sync_content().unwrap_err();
    assert!(error.is_failed_sync(), "{error}");
    drop(files);
    let files = open(&storage);
    files.write_data(0, b"abc").unwrap();
    files.sync_content().unwrap();
    assert!((0..50).all(|seed| storage.power_cut(seed).read(FileName::Data) == b"abc"));
}

/// A storage whose directory fails to be synced once.
#[derive(Default)]
struct NamesFail {
    inner: Memory,
    has_failed: AtomicBool,
}

impl Storage for NamesFail {
    fn open(&self, file: FileName) -> io::Result<Arc<dyn RandomAccess>> {
        self.inner.open(file)
    }

    fn sync_directory(&self) -> io::Result<()> {
        if self.has_failed.swap(true, Ordering::Relaxed) {
            Ok(())
        } else {
            Err(io::ErrorKind::StorageFull.into())
        }
    }
}

#[test]
fn a_failed_sync_of_names_fails_until_the_files_are_opened_again() {
    let storage = Arc::new(NamesFail::default());
    let files = FeedFiles::open(storage.clone()).unwrap();
    files.write_data(0, b"abc").unwrap();
    for _ in 0..2 {
        let error = files.sync_content().unwrap_err();
        assert!(error.is_failed_sync(), "{error}");
    }
    assert!(files.sync_bitfield().is_err());
    drop(files);
    FeedFiles::open(storage).unwrap().sync_content().unwrap();
}

/// A storage in which the next operation of a kind can be held up.
#[derive(Clone, Default)]
struct Slow {
    inner: FaultStorage,
    held: Arc<Mutex<Option<Held>>>,
}

/// Which operation waits, whom it tells that it does, and who lets it go on.
type Held = (Operation, Sender<()>, Receiver<()>);

#[derive(Debug)]
struct SlowFile {
    inner: Arc<dyn RandomAccess>,
    held: Arc<Mutex<Option<Held>>>,
}

impl Slow {
    fn hold(&self, operation: Operation) -> (Receiver<()>, Sender<()>) {
        let (tell, told) = channel();
        let (release, released) = channel();
        *self.held.lock().unwrap() = Some((operation, tell, released));
        (told, release)
    }
}

impl Storage for Slow {
    fn open(&self, file: FileName) -> io::Result<Arc<dyn RandomAccess>> {
        Ok(Arc::new(SlowFile {
            inner: self.inner.open(file)?,
            held: Arc::clone(&self.held),
        }))
    }
}

impl SlowFile {
    fn wait(&self, operation: Operation) {
        let held = self
            .held
            .lock()
            .unwrap()
            .take_if(|held| held.0 == operation);
        if let Some((_, tell, released)) = held {
            tell.send(()).unwrap();
            released.recv().unwrap();
        }
    }
}

impl RandomAccess for SlowFile {
    fn len(&self) -> io::Result<u64> {
        self.inner.len()
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.inner.read_at(offset, buffer)
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.wait(Operation::Write);
        self.inner.write_at(offset, data)
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        self.inner.truncate(len)
    }

    fn sync(&self) -> io::Result<()> {
        self.wait(Operation::Sync);
        self.inner.sync()
    }
}

/// A write that ends after a sync has begun may not be in it.
#[test]
fn a_write_beside_a_sync_is_synced_the_next_time() {
    let slow = Slow::default();
    let files = FeedFiles::open(Arc::new(slow.clone())).unwrap();
    files.write_data(0, b"abc").unwrap();
    let (writes, go_on) = slow.hold(Operation::Write);
    thread::scope(|scope| {
        let write = scope.spawn(|| files.write_data(3, b"def").unwrap());
        writes.recv().unwrap();
        files.sync_content().unwrap();
        go_on.send(()).unwrap();
        write.join().unwrap();
    });
    files.sync_content().unwrap();
    assert!((0..50).all(|seed| slow.inner.power_cut(seed).read(FileName::Data) == b"abcdef"));
}

/// Nobody hears that something is durable while another one's sync of it can still fail.
#[test]
fn a_sync_waits_for_the_one_under_way_and_fails_with_it() {
    let slow = Slow::default();
    let files = FeedFiles::open(Arc::new(slow.clone())).unwrap();
    files.write_data(0, b"abc").unwrap();
    slow.inner.fail_at(0, Fault::Sync);
    let (syncs, go_on) = slow.hold(Operation::Sync);
    thread::scope(|scope| {
        let first = scope.spawn(|| files.sync_content());
        syncs.recv().unwrap();
        let second = scope.spawn(|| files.sync_content());
        thread::sleep(Duration::from_millis(50));
        let is_early = second.is_finished();
        go_on.send(()).unwrap();
        assert!(!is_early);
        for sync in [first, second] {
            assert!(sync.join().unwrap().unwrap_err().is_failed_sync());
        }
    });
}

#[test]
fn an_image_is_durable_from_the_start() {
    let memory = Memory::new();
    memory.write(FileName::Key, &[9; 32]);
    let storage = FaultStorage::from_image(&memory);
    assert_eq!(contents(&storage.power_cut(1)), contents(&memory));
}

/// A storage whose quarantine takes 100 KiB.
#[derive(Clone)]
struct Small {
    files: Memory,
    quarantine: Memory,
}

#[derive(Debug)]
struct SmallFile(Arc<dyn RandomAccess>);

impl Storage for Small {
    fn open(&self, file: FileName) -> io::Result<Arc<dyn RandomAccess>> {
        self.files.open(file)
    }

    fn new_quarantine(&self) -> io::Result<Option<Arc<dyn RandomAccess>>> {
        let file = self.quarantine.open(FileName::Data)?;
        Ok(Some(Arc::new(SmallFile(file))))
    }
}

impl RandomAccess for SmallFile {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.0.read_at(offset, buffer)
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        if offset + data.len() as u64 > 100 << 10 {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.0.write_at(offset, data)
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        self.0.truncate(len)
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync()
    }
}

/// It took all room there was, once more with each opening.
#[test]
fn a_quarantine_without_room_leaves_nothing() {
    let quarantine = Memory::new();
    let files = open(&Small {
        files: Memory::new(),
        quarantine: quarantine.clone(),
    });
    files.write_data(0, &[7; 300 << 10]).unwrap();
    let len = || quarantine.read(FileName::Data).len();
    let mut copy = files.quarantine();
    assert!(copy.add(FileName::Data, 0..u64::MAX).is_err());
    assert_eq!(len(), 0);

    // What may have been written over since stays.
    let mut copy = files.quarantine();
    copy.add(FileName::Data, 0..1000).unwrap();
    copy.sync().unwrap();
    let synced = len();
    copy.add(FileName::Data, 1000..2000).unwrap();
    assert!(copy.add(FileName::Data, 2000..u64::MAX).is_err());
    assert_eq!(len(), synced);
}
