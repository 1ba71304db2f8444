//! A storage of one's own: a log in pieces of a fixed size, as an object store or a key-value
//! store would hold it. Here the store is a map; only its three calls would change.
//!
//! ```text
//! cargo run --release --example own_storage
//! ```

use std::{
    collections::BTreeMap,
    fmt, io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use futures_lite::future::block_on;
use hypercore::{
    Hypercore,
    storage::{FileName, RandomAccess, Storage},
};

const PIECE: u64 = 4096;

/// By file and number.
type Pieces = BTreeMap<(FileName, u64), Vec<u8>>;

/// The pieces, and the lengths of the files.
#[derive(Clone, Default)]
struct Store {
    pieces: Arc<Mutex<Pieces>>,
    lengths: Arc<Mutex<BTreeMap<FileName, u64>>>,
}

struct File {
    store: Store,
    name: FileName,
}

impl Storage for Store {
    fn open(&self, name: FileName) -> io::Result<Arc<dyn RandomAccess>> {
        let store = self.clone();
        Ok(Arc::new(File { store, name }))
    }
}

impl RandomAccess for File {
    fn len(&self) -> io::Result<u64> {
        let lengths = lock(&self.store.lengths);
        Ok(lengths.get(&self.name).copied().unwrap_or(0))
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let end = offset.checked_add(buffer.len() as u64);
        if end.is_none_or(|end| self.len().is_ok_and(|len| end > len)) {
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
