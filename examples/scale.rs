//! What a log of 100,000,000 blocks costs beside one of 10,000: to open, to append to, to read, to
//! prove, to verify, and in memory.
//!
//! ```text
//! cargo run --release -p hypercore-examples --example scale
//! ```
//!
//! Such a log would take 8 GB for its tree alone. Here all blocks but those appended are the same, so
//! all nodes of one height are, too, and both are made up when they are read.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, fs, io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use futures_lite::future::block_on;
use hypercore::{
    Bytes, Durability, Hypercore, KeyPair, ProofOptions,
    storage::{FileName, Memory, RandomAccess, Storage},
};
use hypercore_bitfield::{Bitfield, PageSize};
use hypercore_merkle::{
    Block, Node, NodeIndex, Roots, Verifier, full_roots, leaf_hash, parent_hash, verify,
};

const LENGTHS: [u64; 2] = [10_000, 100_000_000];

/// How often each is done, in turns with the other length.
const ROUNDS: u64 = 2000;

const BLOCK: [u8; 64] = [7; 64];

type Error = Box<dyn std::error::Error + Send + Sync>;

fn main() -> Result<(), Error> {
    block_on(async {
        let mut logs = Vec::new();
        for length in LENGTHS {
            logs.push(Log::open(length).await?);
        }
        for name in ["append", "get", "prove", "verify"] {
            let mut times = [const { Vec::new() }; 2];
            for round in 0..ROUNDS {
                for (log, times) in logs.iter().zip(&mut times) {
                    times.push(log.time(name, round).await?);
                }
            }
            let [short, long] = times.map(median);
            let ratio = long.as_secs_f64() / short.as_secs_f64();
            println!("{name:8} {short:>10.2?} {long:>10.2?}   {ratio:.2} times");
        }
        Ok(())
    })
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

// ---- measuring ----------------------------------------------------------------------------------

struct Log {
    length: u64,
    writer: Hypercore,
}

impl Log {
    async fn open(length: u64) -> Result<Self, Error> {
        let storage = Fabricated::new(length).await?;
        // Nobody closed it, so this finds the end of everything first.
        let writer = Hypercore::options().open_storage(storage.clone()).await?;
        writer.close().await?;
        let memory = resident()?;
        let start = Instant::now();
        let writer = Hypercore::options().open_storage(storage).await?;
        let took = start.elapsed();
        assert_eq!(writer.length(), length);
        let memory = resident()?.saturating_sub(memory);
        println!("{length} blocks opened in {took:.2?}, {memory} KiB");

        let log = Self { length, writer };
        log.read_sparsely().await?;
        Ok(log)
    }

    /// What a reader takes that has some of the blocks, on a disk.
    async fn read_sparsely(&self) -> Result<(), Error> {
        let directory = tempfile::tempdir()?;
        let memory = resident()?;
        let options = Hypercore::options().key(self.writer.key()).sparse(true);
        let reader = options
            .durability(Durability::OnClose)
            .open(directory.path())
            .await?;
        for round in 0..ROUNDS {
            let index = self.random(round);
            let options = ProofOptions::default().digest(reader.digest(index));
            let proof = self.writer.proof_with(index, options).await?;
            let proof = proof.ok_or("the writer has every block")?;
            let block = Bytes::from_static(&BLOCK);
            reader.put(index, Some(block), &proof).await?;
        }
        let memory = resident()?.saturating_sub(memory);
        println!(
            "{ROUNDS} of {} blocks downloaded: {memory} KiB",
            self.length
        );
        Ok(())
    }

    /// One of the blocks, each time another one.
    fn random(&self, round: u64) -> u64 {
        round.wrapping_mul(0x9e37_79b9_7f4a_7c15) % self.length
    }

    async fn time(&self, name: &str, round: u64) -> Result<Duration, Error> {
        let index = self.random(round);
        let start = Instant::now();
        match name {
            "append" => {
                let index = self.writer.append(round.to_le_bytes().to_vec()).await?;
                assert_eq!(index, self.length + round);
            }
            "get" => assert_eq!(self.writer.get(index).await?, BLOCK[..]),
            "prove" => assert!(self.writer.proof(index).await?.is_some()),
            _ => return self.verify(index).await,
        }
        Ok(start.elapsed())
    }

    /// How long a stranger takes to believe a block.
    async fn verify(&self, index: u64) -> Result<Duration, Error> {
        let proof = self.writer.proof(index).await?;
        let proof = proof.ok_or("the writer has every block")?;
        let verifier = Verifier::new(&self.writer.key());
        let (nothing, empty) = (BTreeSet::new(), Roots::new().head());
        let start = Instant::now();
        let block = Block::hash(Bytes::from_static(&BLOCK));
        let plan = verify::plan(&nothing, index, true, &proof)?;
        plan.check(&verifier, &empty, Some(block), &proof, &[])?;
        Ok(start.elapsed())
    }
}

/// The memory of this process, in KiB.
fn resident() -> Result<u64, Error> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let number = line.and_then(|line| line.split_whitespace().next());
    Ok(number.ok_or("no VmRSS")?.parse()?)
}

// ---- making up a log ----------------------------------------------------------------------------

/// Six files, of which the tree and the data are made up where nothing was written.
#[derive(Clone)]
struct Fabricated(Arc<[Arc<File>; 6]>);

impl Fabricated {
    async fn new(length: u64) -> Result<Self, Error> {
        let key_pair = KeyPair::from_seed(&[1; 32]);
        let heights = heights(length);
        let node = |index: NodeIndex| Node {
            index,
            ..heights[depth(index)]
        };
        let roots = Roots::from_nodes(length, full_roots(length).map(node).collect())?;
        let signature = key_pair.sign(&roots.head());

        // Its headers and keys are those of any log.
        let template = Memory::new();
        let options = Hypercore::options().key_pair(key_pair);
        let core = options.open_storage(template.clone()).await?;
        core.append("").await?;
        core.close().await?;

        let file = |name| {
            let (beneath, len) = match name {
                FileName::Tree => {
                    let records = heights.iter().map(record).collect();
                    (
                        Beneath::Tree { records, length },
                        32 + 40 * (2 * length - 1),
                    )
                }
                FileName::Data => (Beneath::Data, 64 * length),
                _ => (Beneath::Nothing, 0),
            };
            let file = File {
                beneath,
                len: Mutex::new(len),
                written: Mutex::default(),
            };
            let header = template.read(name);
            match name {
                FileName::Data => {}
                FileName::Key | FileName::SecretKey => file.write_at(0, &header)?,
                _ => file.write_at(0, &header[..32])?,
            }
            Ok::<_, io::Error>(Arc::new(file))
        };
        let mut files = Vec::new();
        for name in FileName::ALL {
            files.push(file(name)?);
        }
        let files = Self(Arc::new(files.try_into().expect("there are six names")));
        files
            .file(FileName::Signatures)
            .write_at(32 + 64 * (length - 1), signature.as_bytes())?;
        files.write_bitfield(length)?;
        Ok(files)
    }

    fn file(&self, name: FileName) -> &Arc<File> {
        &self.0[name as usize]
    }

    fn write_bitfield(&self, length: u64) -> io::Result<()> {
        let mut bits = Bitfield::new(PageSize::Current);
        bits.set_range(0..length, true);
        for index in (0..2 * length).filter_map(NodeIndex::new) {
            if is_here(index, length) {
                bits.tree_set(index.get());
            }
        }
        let mut page = [0; 3584];
        for number in 0..bits.page_count() {
            bits.encode_page(number, &mut page);
            self.file(FileName::Bitfield)
                .write_at(32 + 3584 * number, &page)?;
        }
        Ok(())
    }
}

impl Storage for Fabricated {
    fn open(&self, name: FileName) -> io::Result<Arc<dyn RandomAccess>> {
        Ok(Arc::clone(self.file(name)) as Arc<dyn RandomAccess>)
    }

    fn never_waits(&self) -> bool {
        true
    }
}

/// Whether a log of `length` blocks has all blocks under this node.
fn is_here(index: NodeIndex, length: u64) -> bool {
    index.right_span().get() < 2 * length
}

fn depth(index: NodeIndex) -> usize {
    index.get().trailing_ones() as usize
}

/// A node of each height.
fn heights(length: u64) -> Vec<Node> {
    let mut left = Node {
        index: NodeIndex::leaf(0).expect("a small number"),
        size: BLOCK.len() as u64,
        hash: leaf_hash(&BLOCK),
    };
    let mut heights = vec![left];
    while left.size < 64 * length {
        let right = Node {
            index: left.index.sibling(),
            ..left
        };
        left = Node {
            index: left.index.parent(),
            size: 2 * left.size,
            hash: parent_hash(&left, &right),
        };
        heights.push(left);
    }
    heights
}

/// As it stands in the tree.
fn record(node: &Node) -> [u8; 40] {
    let mut record = [0; 40];
    record[..32].copy_from_slice(&node.hash);
    record[32..].copy_from_slice(&node.size.to_be_bytes());
    record
}

/// What is read where nothing was written.
enum Beneath {
    Nothing,
    /// The blocks of a log of so many, with one record for each height.
    Tree {
        records: Vec<[u8; 40]>,
        length: u64,
    },
    Data,
}

impl Beneath {
    fn read(&self, offset: u64, buffer: &mut [u8]) {
        let Self::Tree { records, length } = self else {
            let byte = if matches!(self, Self::Data) {
                BLOCK[0]
            } else {
                0
            };
            buffer.fill(byte);
            return;
        };
        // The header is written over whatever this says.
        let mut done = 32_u64.saturating_sub(offset) as usize;
        while done < buffer.len() {
            let at = offset + done as u64 - 32;
            let within = (at % 40) as usize;
            let part = (40 - within).min(buffer.len() - done);
            let index = NodeIndex::new(at / 40).filter(|&index| is_here(index, *length));
            let record = index.map_or([0; 40], |index| records[depth(index)]);
            buffer[done..done + part].copy_from_slice(&record[within..within + part]);
            done += part;
        }
    }
}

/// Written in pieces of this size.
const PIECE: u64 = 4096;

struct File {
    beneath: Beneath,
    len: Mutex<u64>,
    written: Mutex<BTreeMap<u64, Vec<u8>>>,
}

impl RandomAccess for File {
    fn len(&self) -> io::Result<u64> {
        Ok(*lock(&self.len))
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        if offset + buffer.len() as u64 > self.len()? {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let written = lock(&self.written);
        for (number, within, part) in cut(offset, buffer.len()) {
            let buffer = &mut buffer[part];
            match written.get(&number) {
                Some(piece) => buffer.copy_from_slice(&piece[within..][..buffer.len()]),
                None => self.beneath.read(number * PIECE + within as u64, buffer),
            }
        }
        Ok(())
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut written = lock(&self.written);
        for (number, within, part) in cut(offset, data.len()) {
            let piece = written.entry(number).or_insert_with(|| {
                let mut piece = vec![0; PIECE as usize];
                self.beneath.read(number * PIECE, &mut piece);
                piece
            });
            piece[within..][..part.len()].copy_from_slice(&data[part]);
        }
        let mut len = lock(&self.len);
        *len = (*len).max(offset + data.len() as u64);
        Ok(())
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        let mut own = lock(&self.len);
        *own = len.min(*own);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}

impl fmt::Debug for File {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a file that is made up")
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

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
