//! Nothing acknowledged is lost: not by a loss of power at any point, nor by any one failure of the
//! disk.
//!
//! `HYPERCORE_CRASH_SEEDS=100000 cargo test --release -p hypercore --test it crash` tries more, and
//! `HYPERCORE_CRASH_SEED=17` repeats one.

use std::{
    fs::{self, OpenOptions},
    io::Write,
    ops::Range,
    path::Path,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
    thread,
};

use futures_lite::future::block_on;
use hypercore::{
    Corruption, Durability, Error, GetOptions, Hypercore,
    storage::{
        FileName, Memory,
        testing::{Fault, FaultStorage},
    },
};

use crate::support::{contents, key_pair, run};

/// SplitMix64, so that a seed means the same everywhere.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % end
    }
}

/// What a log may be after a crash.
#[derive(Clone, Default)]
struct Oracle {
    /// What was acknowledged.
    blocks: Vec<Vec<u8>>,
    /// Appends that failed, in order, and the length each built on. At most one of them is there
    /// afterwards.
    maybe: Vec<(usize, Vec<Vec<u8>>)>,
    /// These may be gone.
    cleared: Vec<Range<u64>>,
}

impl Oracle {
    /// Checks a log that was opened again, and knows it from now on.
    async fn check(&mut self, core: &Hypercore) {
        let length = core.length() as usize;
        let acknowledged = self.blocks.len();
        assert!(
            length >= acknowledged,
            "{acknowledged} acknowledged, {length} there"
        );
        if length > acknowledged {
            let mut candidates = Vec::new();
            for (start, batch) in &self.maybe {
                if *start == acknowledged && start + batch.len() == length {
                    let mut equal = true;
                    for (index, block) in (acknowledged as u64..).zip(batch) {
                        let got = core.get_with(index, GetOptions::local()).await;
                        equal &=
                            got.expect("an unacknowledged block is whole or not there") == *block;
                    }
                    candidates.extend(equal.then(|| batch.clone()));
                }
            }
            let batch = candidates.pop().expect("a log ends with a whole batch");
            self.blocks.extend(batch);
        }
        self.maybe.clear();
        for (index, block) in (0..).zip(&self.blocks) {
            let cleared = self.cleared.iter().any(|range| range.contains(&index));
            match core.get_with(index, GetOptions::local()).await {
                Ok(found) => assert_eq!(found, *block, "block {index}"),
                Err(Error::BlockNotStored { .. }) if cleared => {}
                Err(error) => panic!("block {index} of {length}: {error}"),
            }
        }
        let audit = core.audit().await.unwrap();
        assert_eq!(audit.invalid, [] as [u64; 0]);
    }

    /// An append, acknowledged or not.
    async fn append(&mut self, core: &Hypercore, batch: Vec<Vec<u8>>) -> Result<(), Error> {
        match core.append_batch(batch.clone()).await {
            Ok(range) => {
                assert_eq!(range.start, self.blocks.len() as u64);
                self.maybe.clear();
                self.blocks.extend(batch);
                Ok(())
            }
            Err(error) => {
                self.maybe.push((self.blocks.len(), batch));
                Err(error)
            }
        }
    }

    async fn clear(&mut self, core: &Hypercore, blocks: Range<u64>) -> Result<(), Error> {
        self.cleared.push(blocks.clone());
        core.clear(blocks).await.map(drop)
    }
}

async fn open(storage: &FaultStorage, durability: Durability) -> Result<Hypercore, Error> {
    let options = Hypercore::options().key_pair(key_pair("crash"));
    options
        .durability(durability)
        .open_storage(storage.clone())
        .await
}

/// One step: mostly single appends, some batches, few clears.
async fn step(random: &mut Random, core: &Hypercore, oracle: &mut Oracle) -> Result<(), Error> {
    let length = oracle.blocks.len() as u64;
    match random.below(12) {
        0 if length > 2 => {
            let start = random.below(length);
            let end = (start + 1 + random.below(6)).min(length);
            oracle.clear(core, start..end).await
        }
        1 => core.flush().await,
        kind => {
            let count = if kind < 5 { 1 + random.below(40) } else { 1 };
            let batch = (0..count).map(|_| block(random)).collect();
            oracle.append(core, batch).await
        }
    }
}

fn block(random: &mut Random) -> Vec<u8> {
    let size = match random.below(8) {
        0 => 0,
        1 => 400 + random.below(1400),
        _ => 1 + random.below(40),
    };
    let byte = 1 + random.below(255) as u8;
    vec![byte; size as usize]
}

/// Some appends, a loss of power in the middle of one, up to three more while the log is opened
/// again; twice.
async fn lose_power(seed: u64, counts: &Counts) {
    let mut random = Random(seed);
    let durability = [Durability::Always, Durability::Interop][random.below(2) as usize];
    let mut storage = FaultStorage::new();
    let mut oracle = Oracle::default();
    drop(open(&storage, durability).await.unwrap());
    for _ in 0..2 {
        let core = open(&storage, durability).await.unwrap();
        oracle.check(&core).await;
        let steps = 1 + random.below(14);
        for _ in 0..steps {
            step(&mut random, &core, &mut oracle).await.unwrap();
        }
        storage.fail_from(random.below(60), Fault::Io);
        while step(&mut random, &core, &mut oracle).await.is_ok() {}
        storage = FaultStorage::from_image(&storage.power_cut(random.below(u64::MAX)));
        drop(core);
        counts.cuts.fetch_add(1, Ordering::Relaxed);

        // A quarter of the recoveries is cut, too.
        for _ in 0..3 {
            if random.below(4) != 0 {
                break;
            }
            storage.fail_from(random.below(40), Fault::Io);
            drop(open(&storage, durability).await);
            storage = FaultStorage::from_image(&storage.power_cut(random.below(u64::MAX)));
            counts.recoveries_cut.fetch_add(1, Ordering::Relaxed);
        }
        let core = open(&storage, durability).await.unwrap();
        assert!(core.is_writable(), "{:?}", core.recovery());
        oracle.check(&core).await;
        let batch = vec![block(&mut random)];
        oracle.append(&core, batch).await.unwrap();
        core.close().await.unwrap();

        // Closed, it opens as it is.
        let before = FileName::ALL.map(|file| storage.image().read(file));
        let core = open(&storage, durability).await.unwrap();
        assert_eq!(core.recovery(), None);
        oracle.check(&core).await;
        core.close().await.unwrap();
        assert!(before == FileName::ALL.map(|file| storage.image().read(file)));
    }
    counts
        .blocks
        .fetch_add(oracle.blocks.len() as u64, Ordering::Relaxed);
}

#[derive(Debug, Default)]
struct Counts {
    cuts: AtomicU64,
    recoveries_cut: AtomicU64,
    blocks: AtomicU64,
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

/// Runs `check` for all numbers below `end` on a few threads, and says how to repeat what fails.
fn on_threads(end: u64, check: impl Fn(u64) + Sync) {
    let next = AtomicU64::new(0);
    let failed = Mutex::new(None);
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(2, usize::from) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= end {
                        break;
                    }
                    let run = std::panic::AssertUnwindSafe(|| check(seed));
                    if std::panic::catch_unwind(run).is_err() {
                        failed.lock().unwrap().get_or_insert(seed);
                        next.store(end, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    if let Some(seed) = failed.into_inner().unwrap() {
        panic!("HYPERCORE_CRASH_SEED={seed} cargo test -p hypercore --test it crash repeats it");
    }
}

#[test]
fn a_loss_of_power_loses_nothing_acknowledged() {
    let counts = Counts::default();
    if let Some(seed) = number("HYPERCORE_CRASH_SEED") {
        return block_on(lose_power(seed, &counts));
    }
    let seeds = number("HYPERCORE_CRASH_SEEDS").unwrap_or(1000);
    on_threads(seeds, |seed| block_on(lose_power(seed, &counts)));
    println!("{seeds} seeds: {counts:?}");
}

/// About 40 steps, which are some 200 operations of the storage.
async fn script(core: &Hypercore, oracle: &mut Oracle) -> usize {
    let mut random = Random(4);
    let mut failed = 0;
    for _ in 0..28 {
        failed += usize::from(step(&mut random, core, oracle).await.is_err());
    }
    failed + usize::from(core.close().await.is_err())
}

/// One operation fails, or it and all after it; the program goes on as if nothing was. What was
/// acknowledged is there when the log is opened on a good disk.
#[test]
fn no_failure_of_the_disk_loses_anything_acknowledged() {
    let count = {
        let storage = FaultStorage::new();
        let core = block_on(open(&storage, Durability::Always)).unwrap();
        let before = storage.operations();
        assert_eq!(block_on(script(&core, &mut Oracle::default())), 0);
        storage.operations() - before
    };
    assert!(count >= 200, "{count} operations");
    let faults = [Fault::Io, Fault::Full, Fault::Short, Fault::Sync];
    let seen = AtomicU64::new(0);
    on_threads(count * 8, |run| {
        let fault = faults[run as usize % 4];
        let storage = FaultStorage::new();
        block_on(async {
            let core = open(&storage, Durability::Always).await.unwrap();
            if run / 4 % 2 == 0 {
                storage.fail_at(run / 8, fault);
            } else {
                storage.fail_from(run / 8, fault);
            }
            let mut oracle = Oracle::default();
            let failed = script(&core, &mut oracle).await;
            seen.fetch_add(u64::from(failed > 0), Ordering::Relaxed);
            drop(core);
            let storage = FaultStorage::from_image(&storage.image());
            let core = open(&storage, Durability::Always).await.unwrap();
            oracle.check(&core).await;
            assert!(core.is_writable(), "{:?}", core.recovery());
            oracle.append(&core, vec![vec![1]]).await.unwrap();
            oracle.check(&core).await;
        });
    });
    let seen = seen.into_inner();
    println!(
        "{} runs of {count} operations, {seen} with a failed call",
        count * 8
    );
    assert!(seen > count);
}

/// A closed log of ten blocks that were appended one by one.
async fn ten_blocks(directory: &Path) {
    let core = Hypercore::open(directory).await.unwrap();
    for index in 0..10 {
        core.append(format!("block {index}")).await.unwrap();
    }
    core.close().await.unwrap();
}

#[test]
fn an_unfinished_append_is_set_aside() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    run(async {
        ten_blocks(path).await;
        let before = contents(path);
        for (file, bytes) in [("data", &b"left over"[..]), ("signatures", &[7; 64])] {
            let mut file = OpenOptions::new()
                .append(true)
                .open(path.join(file))
                .unwrap();
            file.write_all(bytes).unwrap();
        }
        let core = Hypercore::open(path).await.unwrap();
        let found = core.recovery().unwrap();
        assert_eq!(
            (found.length, found.checkpoint, found.recovered),
            (10, 10, 0)
        );
        assert_eq!((found.dropped_bytes, found.damage), (9 + 64, None));
        core.close().await.unwrap();

        let mut after = contents(path);
        let quarantine = after.remove("quarantine-0").unwrap();
        let expected = [
            &b"data 70 9\nleft over"[..],
            b"signatures 672 64\n",
            &[7; 64],
        ]
        .concat();
        assert_eq!(quarantine, expected);
        assert!(after == before);
        let core = Hypercore::open(path).await.unwrap();
        assert_eq!(core.recovery(), None);
    });
}

/// As after a loss of power: the bitfield is all that was not synced.
#[test]
fn blocks_are_found_without_the_bitfield() {
    let directory = tempfile::tempdir().unwrap();
    run(async {
        ten_blocks(directory.path()).await;
        fs::remove_file(directory.path().join("bitfield")).unwrap();
        let core = Hypercore::open(directory.path()).await.unwrap();
        let found = core.recovery().unwrap();
        assert_eq!(
            (found.length, found.checkpoint, found.recovered),
            (10, 0, 10)
        );
        assert_eq!(core.audit().await.unwrap().valid, 10);
        assert_eq!(core.append("more").await.unwrap(), 10);
    });
}

/// With a block damaged in the middle and no bitfield, six signed blocks would be cut off.
#[test]
fn what_was_acknowledged_is_not_cut_off() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    run(async {
        ten_blocks(path).await;
        let mut data = fs::read(path.join("data")).unwrap();
        data[7 * 4] ^= 1;
        fs::write(path.join("data"), data).unwrap();
        fs::write(path.join("bitfield"), []).unwrap();
        let before = contents(path);
        let core = Hypercore::open(path).await.unwrap();
        let damage = core.recovery().unwrap().damage;
        assert_eq!(damage, Some(Corruption::Block { index: 4 }));
        assert!(!core.is_writable());
        assert!(core.append("no").await.unwrap_err().is_corruption());
        core.close().await.unwrap();
        assert!(contents(path) == before);
    });
}

/// What rots after that is for an audit to find.
#[test]
fn a_block_is_hashed_when_it_is_first_read() {
    run(async {
        let memory = Memory::new();
        let core = Hypercore::options()
            .open_storage(memory.clone())
            .await
            .unwrap();
        core.append_batch(["one", "two"]).await.unwrap();
        assert_eq!(core.get(0).await.unwrap(), "one");
        memory.write(FileName::Data, b"ONETWO");
        assert_eq!(core.get(0).await.unwrap(), "ONE");
        assert!(core.get(1).await.unwrap_err().is_corruption());
        assert_eq!(core.audit().await.unwrap().invalid, [0, 1]);
    });
}
