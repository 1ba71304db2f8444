//! Storages for tests: one that fails and loses power, and one that counts.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use crate::{FileName, Memory, RandomAccess, Storage};

/// What disks promise: whole sectors, nothing about their order.
const SECTOR: usize = 512;

/// How an operation fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The disk does not answer; nothing happened.
    Io,
    /// The disk is full; nothing was written.
    Full,
    /// The disk is full after half of the bytes of a write.
    Short,
    /// Nothing about the file is known to be durable. Only strikes a sync; others pass.
    Sync,
}

/// A storage in memory that fails on demand and remembers what a loss of power may undo.
///
/// What was written since the last sync of a file is kept as a list. After a power cut any subset
/// of the sectors of these writes is there, in each file on its own. Growth may be lost or, where
/// a later sector arrived without an earlier one, read as zeros or garbage. Files lose their names if
/// [that is wanted](Self::lose_names). Clones share everything, and an image is in the same
/// [`place`](Storage::place).
#[derive(Clone, Debug, Default)]
pub struct FaultStorage {
    live: Memory,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    /// By their names.
    files: BTreeMap<String, Tracked>,
    operations: u64,
    fault: Option<(u64, Fault)>,
    /// Whether the fault stays.
    broken: bool,
    /// The files whose names are durable, if others lose theirs.
    named: Option<BTreeSet<String>>,
}

/// What is known of one file.
#[derive(Debug, Default)]
struct Tracked {
    durable: Vec<u8>,
    /// With the number of the operation.
    unsynced: Vec<(u64, Change)>,
}

/// A change of one file that was not synced.
#[derive(Clone, Debug)]
enum Change {
    Write { offset: usize, data: Vec<u8> },
    Truncate { len: usize },
}

impl FaultStorage {
    /// An empty storage without faults.
    #[must_use]
    pub fn new() -> Self {
        Self {
            live: Memory::new(),
            state: Arc::default(),
        }
    }

    /// A storage with this content, all of it durable.
    #[must_use]
    pub fn from_image(image: &Memory) -> Self {
        let storage = Self::new();
        for (name, durable) in image.content() {
            storage.live.write_named(&name, &durable);
            let unsynced = Vec::new();
            let tracked = Tracked { durable, unsynced };
            storage.state().files.insert(name, tracked);
        }
        storage
    }

    /// Lets the operation number `count` from now on, counted from 0, fail once, or the next one
    /// after it that can fail in this way. Operations are reads, writes, cuts, holes and syncs.
    pub fn fail_at(&self, count: u64, fault: Fault) {
        let mut state = self.state();
        state.fault = Some((state.operations.saturating_add(count), fault));
        state.broken = false;
    }

    /// Lets the operation number `count` from now on, and all after it, fail as far as they can
    /// fail in this way.
    pub fn fail_from(&self, count: u64, fault: Fault) {
        self.fail_at(count, fault);
        self.state().broken = true;
    }

    /// From now on a loss of power takes the files that were created after the last
    /// [`sync_directory`](Storage::sync_directory).
    pub fn lose_names(&self) {
        let mut state = self.state();
        state.named = Some(state.files.keys().cloned().collect());
    }

    /// Lets nothing fail any more.
    pub fn heal(&self) {
        self.state().fault = None;
    }

    /// A fault chosen by `seed`, within the next `within` operations.
    pub fn fail_randomly(&self, seed: u64, within: u64) {
        let mut random = Random::new(seed);
        let fault = [Fault::Io, Fault::Full, Fault::Short, Fault::Sync][random.below(4) as usize];
        self.fail_at(random.below(within.max(1)), fault);
    }

    /// How many operations there were so far.
    #[must_use]
    pub fn operations(&self) -> u64 {
        self.state().operations
    }

    /// How many sectors a loss of power could still take.
    #[must_use]
    pub fn unsynced_sectors(&self) -> usize {
        let sectors = |(_, change): &(u64, Change)| match change {
            Change::Write { offset, data } => sectors(*offset, data).count(),
            Change::Truncate { .. } => 1,
        };
        let state = self.state();
        let files = state.files.values();
        files.flat_map(|file| &file.unsynced).map(sectors).sum()
    }

    /// What a program finds that starts again after this one was killed.
    #[must_use]
    pub fn image(&self) -> Memory {
        let image = Memory::new();
        for (name, bytes) in self.live.content() {
            image.write_named(&name, &bytes);
        }
        image
    }

    /// What a program finds after a loss of power; every `seed` is another one.
    #[must_use]
    pub fn power_cut(&self, seed: u64) -> Memory {
        let mut random = Random::new(seed);
        let state = self.state();
        let image = Memory::new();
        for (name, file) in state.files.iter().filter(|(name, _)| state.keeps(name)) {
            // That all or nothing of a file arrives has to happen often enough to be seen.
            let odds = [0, 1, 2, 3, 4, 4][random.below(6) as usize];
            let mut bytes = file.durable.clone();
            for (_, change) in &file.unsynced {
                change.arrive(&mut bytes, &mut random, odds);
            }
            image.write_named(name, &bytes);
        }
        image
    }

    /// What a program finds after a loss of power that took some of the `newest` changes of all files,
    /// and nothing else: those whose bit in `taken` is set, the newest at the lowest bit.
    #[must_use]
    pub fn power_cut_among(&self, newest: usize, taken: u64) -> Memory {
        let state = self.state();
        let changes = state.files.values().flat_map(|file| &file.unsynced);
        let mut numbers: Vec<_> = changes.map(|&(number, _)| number).collect();
        numbers.sort_unstable_by_key(|&number| std::cmp::Reverse(number));
        numbers.truncate(newest);
        let is_taken = |number: u64| {
            let bit = numbers.iter().position(|&other| other == number);
            bit.is_some_and(|bit| taken >> bit & 1 == 1)
        };
        let image = Memory::new();
        for (name, file) in state.files.iter().filter(|(name, _)| state.keeps(name)) {
            let mut bytes = file.durable.clone();
            for (number, change) in &file.unsynced {
                if !is_taken(*number) {
                    change.arrive(&mut bytes, &mut Random::new(0), ALWAYS);
                }
            }
            image.write_named(name, &bytes);
        }
        image
    }

    /// How many changes a loss of power could still take.
    #[must_use]
    pub fn unsynced_changes(&self) -> usize {
        let state = self.state();
        state.files.values().map(|file| file.unsynced.len()).sum()
    }

    fn file(&self, name: &str, live: Arc<dyn RandomAccess>) -> FaultFile {
        FaultFile {
            storage: self.clone(),
            name: name.to_owned(),
            live,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts an operation, and says whether and how it fails.
    fn count(&self, suits: impl Fn(Fault) -> bool) -> Option<Fault> {
        let mut state = self.state();
        let now = state.operations;
        state.operations += 1;
        match state.fault {
            Some((at, fault)) if at <= now && suits(fault) => {
                if !state.broken {
                    state.fault = None;
                }
                Some(fault)
            }
            _ => None,
        }
    }
}

impl State {
    fn file(&mut self, name: &str) -> &mut Tracked {
        self.files.entry(name.to_owned()).or_default()
    }

    /// Whether the file is there after a loss of power.
    fn keeps(&self, name: &str) -> bool {
        let named = self.named.as_ref();
        named.is_none_or(|named| named.contains(name))
    }
}

/// The odds of what arrives for certain.
const ALWAYS: u64 = 4;

impl Change {
    /// Applies the sectors of the change that a power cut spares, `odds` of 4 on average.
    fn arrive(&self, bytes: &mut Vec<u8>, random: &mut Random, odds: u64) {
        match self {
            Self::Truncate { len } => {
                if random.below(4) < odds {
                    bytes.truncate(*len);
                }
            }
            Self::Write { offset, data } => {
                for (at, sector) in sectors(*offset, data) {
                    let end = at + sector.len();
                    if random.below(4) < odds {
                        bytes.resize(bytes.len().max(end), 0);
                        bytes[at..end].copy_from_slice(sector);
                    } else if bytes.len() < end && random.below(8) == 0 {
                        // The new length arrived, and the content did not.
                        let grown = bytes.len().max(at);
                        bytes.resize(end, 0);
                        if random.below(2) == 0 {
                            bytes[grown..]
                                .iter_mut()
                                .for_each(|byte| *byte = random.next() as u8);
                        }
                    }
                }
            }
        }
    }
}

/// Cuts a write at the borders of sectors.
fn sectors(offset: usize, data: &[u8]) -> impl Iterator<Item = (usize, &[u8])> {
    let head = (SECTOR - offset % SECTOR).min(data.len());
    let (first, rest) = data.split_at(head);
    let rest = rest.chunks(SECTOR).enumerate();
    let rest = rest.map(move |(at, sector)| (offset + head + at * SECTOR, sector));
    std::iter::once((offset, first))
        .filter(|(_, sector)| !sector.is_empty())
        .chain(rest)
}

impl Storage for FaultStorage {
    fn open(&self, file: FileName) -> io::Result<Arc<dyn RandomAccess>> {
        let live = self.live.open(file)?;
        Ok(Arc::new(self.file(file.as_str(), live)))
    }

    fn beside(&self, name: &str) -> io::Result<Option<Arc<dyn RandomAccess>>> {
        let live = self.live.beside(name)?;
        Ok(live.map(|live| Arc::new(self.file(name, live)) as _))
    }

    fn remove_beside(&self, name: &str) -> io::Result<()> {
        self.state().files.remove(name);
        self.live.remove_beside(name)
    }

    fn place(&self) -> io::Result<Vec<u8>> {
        Ok(b"a disk".to_vec())
    }

    fn sync_directory(&self) -> io::Result<()> {
        let state = &mut *self.state();
        if let Some(named) = &mut state.named {
            named.extend(state.files.keys().cloned());
        }
        Ok(())
    }
}

#[derive(Debug)]
struct FaultFile {
    storage: FaultStorage,
    name: String,
    live: Arc<dyn RandomAccess>,
}

impl FaultFile {
    fn log(&self, change: Change) {
        let mut state = self.storage.state();
        let number = state.operations;
        state.file(&self.name).unsynced.push((number, change));
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.live.write_at(offset, data)?;
        let offset = usize::try_from(offset).map_err(io::Error::other)?;
        self.log(Change::Write {
            offset,
            data: data.to_vec(),
        });
        Ok(())
    }
}

impl RandomAccess for FaultFile {
    fn len(&self) -> io::Result<u64> {
        self.live.len()
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        match self.storage.count(|fault| fault == Fault::Io) {
            Some(_) => Err(io_error()),
            None => self.live.read_at(offset, buffer),
        }
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        match self.storage.count(|fault| fault != Fault::Sync) {
            None => self.write(offset, data),
            Some(Fault::Short) => {
                self.write(offset, &data[..data.len() / 2])?;
                Err(io::ErrorKind::StorageFull.into())
            }
            Some(Fault::Full) => Err(io::ErrorKind::StorageFull.into()),
            Some(_) => Err(io_error()),
        }
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        if self.storage.count(|fault| fault == Fault::Io).is_some() {
            return Err(io_error());
        }
        self.live.truncate(len)?;
        self.log(Change::Truncate {
            len: usize::try_from(len).unwrap_or(usize::MAX),
        });
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        if self
            .storage
            .count(|fault| matches!(fault, Fault::Io | Fault::Sync))
            .is_some()
        {
            return Err(io_error());
        }
        let mut state = self.storage.state();
        let file = state.file(&self.name);
        file.durable.resize(
            usize::try_from(self.live.len()?).map_err(io::Error::other)?,
            0,
        );
        self.live.read_at(0, &mut file.durable)?;
        file.unsynced.clear();
        Ok(())
    }

    fn lock(&self) -> io::Result<()> {
        self.live.lock()
    }
}

fn io_error() -> io::Error {
    io::Error::other("input/output error (injected)")
}

/// Counts what happens to each file of another storage.
#[derive(Clone, Debug)]
pub struct Recording<S> {
    inner: S,
    counters: Arc<[Counters; 6]>,
}

/// How often a file was read, written and synced.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Reads.
    pub reads: u64,
    /// Bytes asked for by them.
    pub bytes_read: u64,
    /// Writes, cuts and holes.
    pub writes: u64,
    /// Bytes written.
    pub bytes_written: u64,
    /// Syncs.
    pub syncs: u64,
}

#[derive(Debug, Default)]
struct Counters {
    reads: AtomicU64,
    bytes_read: AtomicU64,
    writes: AtomicU64,
    bytes_written: AtomicU64,
    syncs: AtomicU64,
}

impl<S> Recording<S> {
    /// Counts what happens to the files of `inner` from now on.
    pub fn new(inner: S) -> Self {
        Self {
            inner,
            counters: Arc::default(),
        }
    }

    /// What happened to `file` since the last call.
    pub fn take(&self, file: FileName) -> Counts {
        let counters = &self.counters[file as usize];
        let take = |counter: &AtomicU64| counter.swap(0, Ordering::Relaxed);
        Counts {
            reads: take(&counters.reads),
            bytes_read: take(&counters.bytes_read),
            writes: take(&counters.writes),
            bytes_written: take(&counters.bytes_written),
            syncs: take(&counters.syncs),
        }
    }
}

impl<S: Storage> Storage for Recording<S> {
    fn open(&self, file: FileName) -> io::Result<Arc<dyn RandomAccess>> {
        let inner = self.inner.open(file)?;
        Ok(Arc::new(RecordedFile {
            inner,
            file,
            counters: Arc::clone(&self.counters),
        }))
    }

    fn remove(&self, file: FileName) -> io::Result<()> {
        self.inner.remove(file)
    }

    fn new_quarantine(&self) -> io::Result<Option<Arc<dyn RandomAccess>>> {
        self.inner.new_quarantine()
    }

    fn beside(&self, name: &str) -> io::Result<Option<Arc<dyn RandomAccess>>> {
        self.inner.beside(name)
    }

    fn remove_beside(&self, name: &str) -> io::Result<()> {
        self.inner.remove_beside(name)
    }

    fn place(&self) -> io::Result<Vec<u8>> {
        self.inner.place()
    }

    fn distrust_directory(&self) {
        self.inner.distrust_directory();
    }

    fn sync_directory(&self) -> io::Result<()> {
        self.inner.sync_directory()
    }

    fn syncs_in_parallel(&self) -> bool {
        self.inner.syncs_in_parallel()
    }

    fn never_waits(&self) -> bool {
        self.inner.never_waits()
    }
}

#[derive(Debug)]
struct RecordedFile {
    inner: Arc<dyn RandomAccess>,
    file: FileName,
    counters: Arc<[Counters; 6]>,
}

impl RecordedFile {
    fn add(&self, counter: impl Fn(&Counters) -> &AtomicU64, n: u64) {
        counter(&self.counters[self.file as usize]).fetch_add(n, Ordering::Relaxed);
    }
}

impl RandomAccess for RecordedFile {
    fn len(&self) -> io::Result<u64> {
        self.inner.len()
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.add(|counters| &counters.reads, 1);
        self.add(|counters| &counters.bytes_read, buffer.len() as u64);
        self.inner.read_at(offset, buffer)
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.add(|counters| &counters.writes, 1);
        self.add(|counters| &counters.bytes_written, data.len() as u64);
        self.inner.write_at(offset, data)
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        self.add(|counters| &counters.writes, 1);
        self.inner.truncate(len)
    }

    fn sync(&self) -> io::Result<()> {
        self.add(|counters| &counters.syncs, 1);
        self.inner.sync()
    }

    fn punch_hole(&self, offset: u64, len: u64) -> io::Result<()> {
        self.add(|counters| &counters.writes, 1);
        self.inner.punch_hole(offset, len)
    }

    fn next_data(&self, offset: u64) -> io::Result<u64> {
        self.inner.next_data(offset)
    }

    fn allocated(&self) -> io::Result<u64> {
        self.inner.allocated()
    }

    fn lock(&self) -> io::Result<()> {
        self.inner.lock()
    }
}

/// SplitMix64: enough to choose what a power cut takes, the same everywhere.
#[derive(Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }
}
