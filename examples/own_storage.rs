//! A storage of one's own: a log in pieces of a fixed size, as an object store or a key-value
//! store would hold it. Here the store is a map; only its three calls would change, and the lock,
//! which there is a lease.
//!
//! What has a default in the two traits is left out but for the lock. That costs what a directory has:
//!
//! * without `beside` and `place` there is no guard against forks: a store that was copied or put back
//!   to an earlier state takes appends, and the proof of a fork is not kept;
//! * without `new_quarantine` what a recovery cuts off is gone;
//! * without `punch_hole` blocks that are cleared free no space.
//!
//! ```text
//! cargo run --release --example own_storage
//! ```

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, io,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use futures_lite::future::block_on;
use hypercore::{
    Hypercore,
    storage::{FileName, RandomAccess, Storage},
};

const PIECE: u64 = 4096;

/// By file and number.
type Pieces = BTreeMap<(FileName, u64), Vec<u8>>;

/// The pieces, the lengths of the files, and those that are locked.
#[derive(Clone, Default)]
struct Store {
    pieces: Arc<Mutex<Pieces>>,
    lengths: Arc<Mutex<BTreeMap<FileName, u64>>>,
    locked: Arc<Mutex<BTreeSet<FileName>>>,
}

struct File {
    store: Store,
    name: FileName,
    /// Whether the lock is to be taken as soon as there is a file.
    wants_lock: AtomicBool,
    has_lock: AtomicBool,
}

impl Storage for Store {
    fn open(&self, name: FileName) -> io::Result<Arc<dyn RandomAccess>> {
        Ok(Arc::new(File {
            store: self.clone(),
            name,
            wants_lock: AtomicBool::new(false),
            has_lock: AtomicBool::new(false),
        }))
    }
}

impl RandomAccess for File {
    fn len(&self) -> io::Result<u64> {
        let lengths = lock(&self.store.lengths);
        Ok(lengths.get(&self.name).copied().unwrap_or(0))
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let len = self.len()?;
        let end = offset.checked_add(buffer.len() as u64);
        if end.is_none_or(|end| end > len) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let pieces = lock(&self.store.pieces);
        for (number, within, part) in cut(offset, buffer.len()) {
            match pieces.get(&(self.name, number)) {
                Some(piece) => buffer[part.clone()].copy_from_slice(&piece[within..][..part.len()]),
                None => buffer[part].fill(0), // never written: a hole
            }
        }
        Ok(())
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        if self.wants_lock.load(Ordering::Acquire) {
            self.take_lock()?;
        }
        let mut pieces = lock(&self.store.pieces);
        for (number, within, part) in cut(offset, data.len()) {
            let piece = pieces.entry((self.name, number));
            let piece = piece.or_insert_with(|| vec![0; PIECE as usize]);
            piece[within..][..part.len()].copy_from_slice(&data[part]);
        }
        let mut lengths = lock(&self.store.lengths);
        let len = lengths.entry(self.name).or_default();
        if !data.is_empty() {
            *len = (*len).max(offset + data.len() as u64);
        }
        Ok(())
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        if len >= self.len()? {
            return Ok(());
        }
        let mut pieces = lock(&self.store.pieces);
        pieces.retain(|&(name, number), _| name != self.name || number * PIECE < len);
        if let Some(piece) = pieces.get_mut(&(self.name, len / PIECE)) {
            piece[(len % PIECE) as usize..].fill(0); // what grows again is zero
        }
        lock(&self.store.lengths).insert(self.name, len);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(()) // a real store waits here until all of it would survive a loss of power
    }

    fn lock(&self) -> io::Result<()> {
        if lock(&self.store.lengths).contains_key(&self.name) {
            self.take_lock()?;
        }
        self.wants_lock.store(true, Ordering::Release);
        Ok(())
    }
}

impl File {
    fn take_lock(&self) -> io::Result<()> {
        if !self.has_lock.load(Ordering::Acquire) {
            if !lock(&self.store.locked).insert(self.name) {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            self.has_lock.store(true, Ordering::Release);
        }
        Ok(())
    }
}

impl Drop for File {
    fn drop(&mut self) {
        if *self.has_lock.get_mut() {
            lock(&self.store.locked).remove(&self.name);
        }
    }
}

/// The pieces under `len` bytes at `offset`: number, position within, part of the buffer.
fn cut(offset: u64, len: usize) -> impl Iterator<Item = (u64, usize, std::ops::Range<usize>)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        let position = offset + done as u64;
        let within = (position % PIECE) as usize;
        let start = done;
        done = len.min(start + PIECE as usize - within);
        (done > start).then_some((position / PIECE, within, start..done))
    })
}

impl fmt::Debug for File {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the pieces of {}", self.name)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    block_on(async {
        let store = Store::default();
        let options = Hypercore::options().create_new();
        let core = options.open_storage(store.clone()).await?;
        for n in 0..1000 {
            core.append(format!("block {n}")).await?;
        }
        let twice = Hypercore::options().open_storage(store.clone()).await;
        println!(
            "open already: {}",
            twice.is_err_and(|error| error.is_locked())
        );
        core.close().await?;
        for (file, number) in lock(&store.pieces).keys() {
            println!("{file}/{number}");
        }

        let options = Hypercore::options().create_if_missing(false);
        let core = options.open_storage(store).await?;
        println!("opened again: {} blocks", core.length());
        println!("block 700: {:?}", core.get(700).await?);
        println!("damaged blocks: {}", core.audit().await?.invalid.len());
        Ok(())
    })
}
