//! Whether anything grows that should not: peers come, read, forget and go, for as long as you like.
//!
//! ```text
//! cargo run --release -p hypercore-examples --example soak -- /var/tmp       # 30 minutes, 200 peers
//! cargo run --release -p hypercore-examples --example soak -- /var/tmp 3 50
//! ```
//!
//! A writer appends all the time and clears what is old. Each peer is a clone, every other one on
//! the disk, that connects over TCP, reads recent blocks at random, clears them again, and after
//! some rounds either closes in good order or is gone from one moment to the next; then a new one
//! takes its place. Each minute a line tells what is held: memory of the process, and what of it is
//! in use, for what was freed may still count to the process. Fails if
//!
//! * memory in the last sixth of the time is 5 % more than in the second sixth;
//! * a file or a connection is open at the end that was not at the beginning;
//! * a block is not what was appended, or comes not within half a minute;
//! * the writer, or a clone that is left, does not verify.

use std::{
    alloc::System,
    env, fmt, fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use async_std::{
    net::{TcpListener, TcpStream},
    task,
};
use futures_lite::future;
use hypercore::{GetOptions, Hypercore, ReplicateOptions, Role, storage::Directory};
use hypercore_examples::{open_files, resident};
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

type Error = Box<dyn std::error::Error + Send + Sync>;

const BLOCK: usize = 64 << 10;
/// How many blocks at the end of the log are read; the writer keeps four times as many.
const RECENT: u64 = 256;
const BLOCKS_OF_A_ROUND: u64 = 4;
/// 200 peers read 10 GiB in half an hour at this pace, and somewhat more.
const ROUND: Duration = Duration::from_secs(7);
const PATIENCE: Duration = Duration::from_secs(30);
const MOST_DRIFT: f64 = 0.05;

fn main() -> Result<ExitCode, Error> {
    let mut arguments = env::args().skip(1);
    let disk = arguments.next().unwrap_or_else(|| ".".into());
    let minutes: f64 = arguments.next().map_or(Ok(30.0), |text| text.parse())?;
    let peers: u64 = arguments.next().map_or(Ok(200), |text| text.parse())?;
    let directory = tempfile::tempdir_in(disk)?;
    let time = Duration::from_secs_f64(60.0 * minutes);
    let failures = task::block_on(soak(directory.path(), time, peers))?;
    failures
        .iter()
        .for_each(|failure| println!("FAILED: {failure}"));
    Ok(ExitCode::from(u8::from(!failures.is_empty())))
}

/// What all tasks share.
struct Soak {
    writer: Hypercore,
    address: SocketAddr,
    directory: PathBuf,
    ends: Instant,
    stopped: AtomicBool,
    blocks_read: AtomicU64,
    lives: AtomicU64,
}

impl Soak {
    fn is_over(&self) -> bool {
        self.stopped.load(Relaxed) || Instant::now() >= self.ends
    }

    fn megabytes(&self) -> u64 {
        self.blocks_read.load(Relaxed) * BLOCK as u64 / 1_000_000
    }
}

async fn soak(directory: &Path, time: Duration, peers: u64) -> Result<Vec<String>, Error> {
    let writer = Hypercore::open(directory.join("writer")).await?;
    append(&writer, 4 * RECENT).await?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let soak = Arc::new(Soak {
        address: listener.local_addr()?,
        writer: writer.clone(),
        directory: directory.to_owned(),
        ends: Instant::now() + time,
        stopped: AtomicBool::new(false),
        blocks_read: AtomicU64::new(0),
        lives: AtomicU64::new(0),
    });
    let accepting = task::spawn(accept(writer.clone(), listener));
    // One of each kind first: timers, threads and the like are made once.
    for peer in 0..2 {
        live(&soak, peer, &mut Random(peer), 1).await?;
    }
    let open_before = settled_open_files(0).await;

    let start = Instant::now();
    let mut tasks = vec![task::spawn(write(Arc::clone(&soak)))];
    tasks.extend((0..peers).map(|peer| task::spawn(reincarnate(Arc::clone(&soak), peer))));
    let samples = sample(&soak, start, time).await;

    let mut failures = Vec::new();
    for task in tasks {
        failures.extend(task.await.err().map(|error| error.to_string()));
    }
    let [early, late] = [1, 5].map(|sixth| mean(&samples, time, sixth));
    let drift = late.resident / early.resident - 1.0;
    if !drift.is_finite() {
        failures.push("nothing says how much memory there is".into());
    } else if drift > MOST_DRIFT {
        failures.push(format!("memory grew by {:.1} %", 100.0 * drift));
    }
    let open_after = settled_open_files(open_before).await;
    if open_after > open_before {
        failures.push(format!("{open_before} files were open, now {open_after}"));
    }
    let mut verified = 0;
    if !writer.verify().await?.is_ok() {
        failures.push("the writer does not verify".into());
    }
    accepting.cancel().await;
    writer.close().await?;
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        let found = Hypercore::verify_storage(Directory::new(&path)).await?;
        verified += found.blocks;
        if !found.is_ok() {
            failures.push(format!("{path:?} does not verify: {:?}", found.problems));
        }
    }
    println!(
        "{peers} peers, {} lives, {} MB moved; memory {early}, then {late}: {:+.1} %; \
         files {open_before}, then {open_after}; {verified} blocks verified",
        soak.lives.load(Relaxed),
        soak.megabytes(),
        100.0 * drift,
    );
    Ok(failures)
}

async fn accept(writer: Hypercore, listener: TcpListener) -> Result<(), Error> {
    loop {
        let (socket, _) = listener.accept().await?;
        let connection = writer.replicate(Role::Responder, ReplicateOptions::live())?;
        // That peers go without a word is the point.
        task::spawn(async move { connection.run(socket).await.map(drop) });
    }
}

/// Half a mebibyte each second; once a minute, all but the newest blocks are cleared.
async fn write(soak: Arc<Soak>) -> Result<(), Error> {
    let mut cleared = Instant::now();
    while !soak.is_over() {
        append(&soak.writer, 8).await?;
        if cleared.elapsed() > Duration::from_secs(60) {
            cleared = Instant::now();
            let old = soak.writer.length().saturating_sub(4 * RECENT);
            soak.writer.clear(0..old).await?;
        }
        task::sleep(Duration::from_secs(1)).await;
    }
    Ok(())
}

async fn append(writer: &Hypercore, blocks: u64) -> Result<(), Error> {
    let length = writer.length();
    writer
        .append_batch((length..length + blocks).map(block))
        .await?;
    Ok(())
}

/// What block `index` has, so that it is told from every other one.
fn block(index: u64) -> Vec<u8> {
    let mut random = Random(index);
    let words = (0..BLOCK / 8).flat_map(|_| random.next().to_le_bytes());
    words.collect()
}

async fn reincarnate(soak: Arc<Soak>, peer: u64) -> Result<(), Error> {
    let mut random = Random(peer);
    // So that they do not act in step.
    task::sleep(ROUND.mul_f64(random.below(1000) as f64 / 1000.0)).await;
    while !soak.is_over() {
        let rounds = 4 + random.below(16);
        let lived = live(&soak, peer, &mut random, rounds).await;
        if lived.is_err() {
            soak.stopped.store(true, Relaxed);
        }
        lived.map_err(|error| format!("peer {peer}: {error}"))?;
    }
    Ok(())
}

/// One clone, from its first block to its last.
async fn live(soak: &Soak, peer: u64, random: &mut Random, rounds: u64) -> Result<(), Error> {
    soak.lives.fetch_add(1, Relaxed);
    let options = Hypercore::options().key(soak.writer.key()).sparse(true);
    let core = if peer.is_multiple_of(2) {
        options.open_memory().await?
    } else {
        let path = soak.directory.join(format!("peer-{peer}"));
        // Every other one begins with what its predecessor has left.
        if path.exists() && random.below(2) == 0 {
            fs::remove_dir_all(&path)?;
        }
        options.open(path).await?
    };
    let socket = TcpStream::connect(soak.address).await?;
    let connection = core.replicate(Role::Initiator, ReplicateOptions::live())?;
    let connected = async { Err(format!("{:?}", connection.run(socket).await).into()) };
    future::or(read(soak, &core, random, rounds), connected).await?;
    if random.below(2) == 0 {
        core.close().await?;
    }
    Ok(())
}

async fn read(
    soak: &Soak,
    core: &Hypercore,
    random: &mut Random,
    rounds: u64,
) -> Result<(), Error> {
    let options = GetOptions::default().timeout(PATIENCE);
    for _ in 0..rounds {
        let start = soak.writer.length() - 1 - random.below(RECENT);
        let start = start.saturating_sub(BLOCKS_OF_A_ROUND);
        for index in start..start + BLOCKS_OF_A_ROUND {
            if core.get_with(index, options).await? != block(index) {
                return Err(format!("block {index} is another one").into());
            }
            soak.blocks_read.fetch_add(1, Relaxed);
        }
        // Some are kept, so that there is something to verify.
        if random.below(4) > 0 {
            core.clear(start..start + BLOCKS_OF_A_ROUND).await?;
        }
        if soak.is_over() {
            break;
        }
        task::sleep(ROUND).await;
    }
    Ok(())
}

/// Looks at the process until the time is over: when, and what is held.
async fn sample(soak: &Soak, start: Instant, time: Duration) -> Vec<(Duration, Memory)> {
    let mut samples = Vec::new();
    while !soak.is_over() {
        task::sleep(Duration::from_secs(5).min(time / 60)).await;
        samples.push((start.elapsed(), Memory::now()));
        if samples.len() % 12 == 0 {
            println!(
                "{:>5.1} min: {}, {} files, {} lives, {} MB moved",
                start.elapsed().as_secs_f64() / 60.0,
                Memory::now(),
                open_files(),
                soak.lives.load(Relaxed),
                soak.megabytes(),
            );
        }
    }
    samples
}

/// The mean of one sixth of the time, counted from 0.
fn mean(samples: &[(Duration, Memory)], time: Duration, sixth: u32) -> Memory {
    let within = time / 6 * sixth..=time / 6 * (sixth + 1);
    let of = samples.iter().filter(|(at, _)| within.contains(at));
    let of: Vec<_> = of.map(|(_, memory)| memory).collect();
    let mean = |part: fn(&Memory) -> f64| {
        let sum: f64 = of.iter().map(|memory| part(memory)).sum();
        sum / of.len() as f64
    };
    Memory {
        resident: mean(|memory| memory.resident),
        used: mean(|memory| memory.used),
    }
}

/// MiB of memory.
struct Memory {
    /// That of the process.
    resident: f64,
    /// What of that of the process was allocated and not freed.
    used: f64,
}

impl Memory {
    fn now() -> Self {
        let stats = ALLOCATOR.stats();
        let used = stats.bytes_allocated as f64 - stats.bytes_deallocated as f64;
        Self {
            resident: resident(),
            used: used / f64::from(1 << 20),
        }
    }
}

impl fmt::Display for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.1} MiB ({:.1} in use)", self.resident, self.used)
    }
}

/// How many files are open once what ends has ended; waits a while for there to be `expected`.
async fn settled_open_files(expected: usize) -> usize {
    let mut last = usize::MAX;
    for _ in 0..30 {
        let now = open_files();
        if now <= expected || now == last {
            return now;
        }
        last = now;
        task::sleep(Duration::from_secs(1)).await;
    }
    last
}

/// SplitMix64: the same for the same seed.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }
}
