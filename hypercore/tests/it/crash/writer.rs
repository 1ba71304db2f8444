//! A log that is written, at every level of durability.

use std::{
    env,
    ops::Range,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use futures_lite::future::block_on;
use hypercore::{
    Bytes, Durability, Error, GetOptions, Hypercore,
    storage::{
        FileName,
        testing::{Fault, FaultStorage},
    },
};

use super::{Random, assert_verifies, for_all_seeds, node::assert_node_agrees};
use crate::support::key_pair;

/// How a program ended that did not close its log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Crash {
    /// It was killed.
    Process,
    /// The machine lost power, and with it what was not synced.
    Power,
}

/// What a log may be after a crash.
pub(super) struct Oracle {
    durability: Durability,
    /// Its blocks, as far as they were acknowledged.
    blocks: Vec<Bytes>,
    /// What may be found: `blocks`, what failed attempts would have made of it, and all that came
    /// before as far as it was not replaced durably.
    states: Vec<State>,
    /// How often the log was changed.
    changes: u64,
    /// These may be gone.
    cleared: Vec<Range<usize>>,
}

struct State {
    blocks: Vec<Bytes>,
    /// An unfinished truncation leaves some of its blocks.
    least: usize,
    /// How often the log had been changed before.
    changes: u64,
}

impl Oracle {
    pub(super) fn new(durability: Durability) -> Self {
        let mut oracle = Self {
            durability,
            blocks: Vec::new(),
            states: Vec::new(),
            changes: 0,
            cleared: Vec::new(),
        };
        oracle.set_durable();
        oracle
    }

    /// Nothing but the log as it is can be found from now on.
    fn set_durable(&mut self) {
        let length = self.blocks.len();
        for range in &mut self.cleared {
            range.end = range.end.min(length);
        }
        self.states.clear();
        self.add_state(self.blocks.clone(), length);
    }

    fn add_state(&mut self, blocks: Vec<Bytes>, least: usize) {
        self.states.push(State {
            blocks,
            least,
            changes: self.changes,
        });
    }

    fn changed(&mut self) {
        self.changes += 1;
        self.add_state(self.blocks.clone(), self.blocks.len());
    }

    /// Checks a log that was opened after a crash, and takes it as it is from now on.
    pub(super) async fn check(&mut self, core: &Hypercore, crash: Crash) {
        let mut found = Vec::new();
        for index in 0..core.length() {
            found.push(match core.get_with(index, GetOptions::local()).await {
                Ok(block) => Some(block),
                Err(Error::BlockNotStored { .. }) => None,
                Err(error) => panic!("block {index} of {}: {error}", core.length()),
            });
        }
        let is_cleared = |index| self.cleared.iter().any(|range| range.contains(&index));
        let is_found = |state: &&State| {
            let mut pairs = (0..).zip(found.iter().zip(&state.blocks));
            (state.least..=state.blocks.len()).contains(&found.len())
                && (crash == Crash::Power || state.changes == self.changes)
                && pairs.all(|(index, (found, block))| match found {
                    Some(found) => found == block,
                    None => is_cleared(index),
                })
        };
        let Some(state) = self.states.iter().find(is_found) else {
            let expected = self.states.iter().map(|state| state.blocks.len());
            let expected: Vec<_> = expected.collect();
            panic!(
                "{} blocks after {crash:?}, of {expected:?}: {:?}",
                found.len(),
                core.recovery()
            );
        };
        self.blocks = state.blocks[..found.len()].to_vec();
        self.set_durable();
        let audit = core.audit().await.unwrap();
        assert_eq!(audit.invalid, [0; 0]);
    }

    /// An append, acknowledged or not.
    pub(super) async fn append(
        &mut self,
        core: &Hypercore,
        batch: Vec<Bytes>,
    ) -> Result<(), Error> {
        let appended = core.append_batch(batch.clone()).await;
        let start = self.blocks.len();
        let after: Vec<_> = [&self.blocks[..], &batch].concat();
        match appended {
            Ok(range) => {
                assert_eq!(range.start, start as u64);
                self.blocks = after;
                self.changed();
                if matches!(self.durability, Durability::Always | Durability::Interop) {
                    self.set_durable();
                }
                Ok(())
            }
            Err(error) => {
                let least = after.len();
                self.add_state(after, least);
                Err(error)
            }
        }
    }

    async fn truncate(&mut self, core: &Hypercore, length: usize) -> Result<(), Error> {
        let truncated = core.truncate(length as u64).await;
        if truncated.is_err() {
            self.add_state(self.blocks.clone(), length);
            return truncated;
        }
        self.blocks.truncate(length);
        self.changed();
        self.set_durable();
        Ok(())
    }

    async fn clear(&mut self, core: &Hypercore, blocks: Range<usize>) -> Result<(), Error> {
        self.cleared.push(blocks.clone());
        let blocks = blocks.start as u64..blocks.end as u64;
        core.clear(blocks).await.map(drop)
    }

    async fn flush(&mut self, core: &Hypercore) -> Result<(), Error> {
        core.flush().await?;
        self.set_durable();
        Ok(())
    }

    async fn close(&mut self, core: &Hypercore) -> Result<(), Error> {
        // One that could not be closed is closed nonetheless, and a flush says so.
        self.flush(core).await?;
        core.close().await?;
        self.set_durable();
        Ok(())
    }
}

pub(super) async fn open(
    storage: &FaultStorage,
    durability: Durability,
) -> Result<Hypercore, Error> {
    let options = Hypercore::options().key_pair(key_pair("crash"));
    options
        .durability(durability)
        // The same disk: what it says of the log must never be more than the log, either.
        .state_storage(storage.clone())
        .open_storage(storage.clone())
        .await
}

/// One step: mostly single appends, some batches, few clears.
pub(super) async fn append_or_clear(
    random: &mut Random,
    core: &Hypercore,
    oracle: &mut Oracle,
) -> Result<(), Error> {
    let length = oracle.blocks.len();
    match random.below(12) {
        0 if length > 2 => {
            let start = random.below(length as u64) as usize;
            let end = (start + 1 + random.below(6) as usize).min(length);
            oracle.clear(core, start..end).await
        }
        1 => oracle.flush(core).await,
        kind => {
            let count = if kind < 5 { 1 + random.below(40) } else { 1 };
            let batch = (0..count).map(|_| block(random)).collect();
            oracle.append(core, batch).await
        }
    }
}

fn block(random: &mut Random) -> Bytes {
    let size = match random.below(8) {
        0 => 0,
        1 => 400 + random.below(1400),
        _ => 1 + random.below(40),
    };
    let byte = 1 + random.below(255) as u8;
    vec![byte; size as usize].into()
}

/// Half of the time one at which appends are waited for.
fn any_level(random: &mut Random) -> Durability {
    match random.below(8) {
        0 | 1 => Durability::Always,
        2 | 3 => Durability::Interop,
        4 | 5 => Durability::OnClose,
        // Longer than the test, which is to be the same every time.
        _ => Durability::Interval(Duration::from_secs(3600)),
    }
}

/// A program that writes a log and is interrupted.
struct Program {
    random: Random,
    disk: FaultStorage,
    core: Hypercore,
    oracle: Oracle,
}

impl Program {
    async fn start(seed: u64) -> Self {
        let mut random = Random(seed);
        let durability = any_level(&mut random);
        let disk = FaultStorage::new();
        let core = open(&disk, durability).await.unwrap();
        let mut program = Self {
            random,
            disk,
            core,
            oracle: Oracle::new(durability),
        };
        if program.random.once_in(200) {
            // Up to the first border of a page of the bitfield, or just beyond.
            let count = 8150 + program.random.below(80);
            let batch = (0..count).map(|block| vec![block as u8; block as usize % 3].into());
            let appended = program.oracle.append(&program.core, batch.collect()).await;
            appended.unwrap();
        }
        program
    }

    /// Anything that a program does, and what happens to it.
    async fn step(&mut self) -> Result<(), Error> {
        match self.random.below(24) {
            0 => {
                let most = self.oracle.blocks.len() as u64;
                let length = self.random.below(most + 1) as usize;
                self.oracle.truncate(&self.core, length).await
            }
            1 => self.restart().await,
            _ => append_or_clear(&mut self.random, &self.core, &mut self.oracle).await,
        }
    }

    async fn restart(&mut self) -> Result<(), Error> {
        self.oracle.close(&self.core).await?;
        self.open().await
    }

    /// Opens the log at any level, whatever it was written at.
    async fn open(&mut self) -> Result<(), Error> {
        let durability = any_level(&mut self.random);
        self.core = open(&self.disk, durability).await?;
        self.oracle.durability = durability;
        Ok(())
    }

    /// The program is killed and started again: the disk has what was written, durable or not.
    async fn be_killed(&mut self) {
        self.disk.fail_from(0, Fault::Io);
        let _ = self.core.close().await;
        self.disk.heal();
        self.open().await.unwrap();
        self.check(Crash::Process).await;
    }

    /// Something fails, once; the program goes on until it cannot, or for some steps.
    async fn suffer_a_fault(&mut self) {
        let faults = [Fault::Io, Fault::Full, Fault::Short, Fault::Sync];
        let fault = faults[self.random.below(4) as usize];
        self.disk.fail_at(self.random.below(30), fault);
        for _ in 0..1 + self.random.below(5) {
            if self.step().await.is_err() && self.random.once_in(3) {
                break;
            }
        }
        if self.random.once_in(2) {
            self.disk.heal();
            if !self.step().await.is_ok_and(|()| self.random.once_in(2)) {
                self.be_killed().await;
            }
        }
    }

    /// Power is lost within the next operations of the disk, and up to three more times while the
    /// log is opened again.
    async fn lose_power(&mut self, counts: &Counts) {
        self.disk.fail_from(self.random.below(60), Fault::Io);
        while self.step().await.is_ok() {}
        let image = self.disk.power_cut(self.random.below(u64::MAX));
        // What it still does goes nowhere.
        let _ = self.core.close().await;
        self.disk = FaultStorage::from_image(&image);
        counts.cuts.fetch_add(1, Ordering::Relaxed);
        for _ in 0..3 {
            if !self.random.once_in(4) {
                break;
            }
            self.disk.fail_from(self.random.below(40), Fault::Io);
            drop(open(&self.disk, any_level(&mut self.random)).await);
            let image = self.disk.power_cut(self.random.below(u64::MAX));
            self.disk = FaultStorage::from_image(&image);
            counts.recoveries_cut.fetch_add(1, Ordering::Relaxed);
        }
        self.open().await.unwrap();
        self.check(Crash::Power).await;
    }

    async fn check(&mut self, crash: Crash) {
        let (lock, recovery) = (self.core.append_lock(), self.core.recovery());
        assert!(self.core.is_writable(), "{lock:?}, {recovery:?}");
        self.oracle.check(&self.core, crash).await;
        assert_verifies(&self.disk).await;
        assert_node_agrees(&self.disk.image(), self.core.length());
    }

    /// Closed, a log opens as it is, whatever it went through.
    async fn close_and_compare(&mut self) {
        let batch = vec![block(&mut self.random)];
        self.oracle.append(&self.core, batch).await.unwrap();
        // With no flush before, as the oracle does it: closing is enough.
        self.core.close().await.unwrap();
        self.oracle.set_durable();
        let cut = FaultStorage::from_image(&self.disk.power_cut(self.random.below(u64::MAX)));
        let core = open(&cut, any_level(&mut self.random)).await.unwrap();
        self.oracle.check(&core, Crash::Power).await;
        let before = FileName::ALL.map(|file| self.disk.image().read(file));
        self.open().await.unwrap();
        assert_eq!(self.core.recovery(), None);
        self.check(Crash::Power).await;
        self.oracle.close(&self.core).await.unwrap();
        assert!(before == FileName::ALL.map(|file| self.disk.image().read(file)));
        self.open().await.unwrap();
    }
}

#[derive(Debug, Default)]
struct Counts {
    cuts: AtomicU64,
    recoveries_cut: AtomicU64,
    blocks: AtomicU64,
}

async fn run_and_lose_power(seed: u64, counts: &Counts) {
    let mut program = Program::start(seed).await;
    for _ in 0..2 {
        for _ in 0..1 + program.random.below(14) {
            program.step().await.unwrap();
        }
        match program.random.below(4) {
            0 => program.be_killed().await,
            1 => program.suffer_a_fault().await,
            _ => {}
        }
        program.lose_power(counts).await;
        if program.random.once_in(2) {
            program.close_and_compare().await;
        }
    }
    let blocks = program.oracle.blocks.len() as u64;
    counts.blocks.fetch_add(blocks, Ordering::Relaxed);
}

#[test]
fn a_loss_of_power_loses_nothing_acknowledged() {
    let counts = Counts::default();
    for_all_seeds("a_loss_of_power", |seed| {
        block_on(run_and_lose_power(seed, &counts));
    });
    println!("{counts:?}");
    if env::var_os("HYPERCORE_CRASH_SEEDS").is_none() {
        for count in [&counts.cuts, &counts.recoveries_cut, &counts.blocks] {
            assert!(count.load(Ordering::Relaxed) > 0, "{counts:?}");
        }
    }
}
