//! Takes part in benchmarks beside other peers: one workload, one process, one line of JSON.
//!
//! ```text
//! bench_peer ram|disk|disk-always A1|A2|A3|M|B1|B2          append or read locally
//! bench_peer ram|disk C1|C2|L server                        prints READY PORT KEY
//! bench_peer ram|disk C1|C2|L client PORT KEY               clones from it
//! ```
//!
//! | workload | |
//! | --- | --- |
//! | A1 | 10,000 appends of 64 bytes, each awaited |
//! | A2 | 100,000 of 64 bytes in batches of 1,000; M: 1,000,000 of them |
//! | A3 | 512 MiB in blocks of 64 KiB, in batches of 64 |
//! | B1 | open M and get a block; 100,000 at random, one by one and 16 in flight |
//! | B2 | read A3 from the first block to the last, twice |
//! | C1, C2 | replicate A3, or 200,000 blocks of 64 bytes, over TCP between two processes |
//! | L | a live connection: from an append to the reader's get |
//!
//! Block `i` of size `s` is `pool[i * s mod 64 MiB ..][.. s]` of the file `pool.bin` in the
//! directory `BENCH_DIR`, which also holds the cores: 64 MiB of SHAKE128 of `hypercore-bench`.

use std::{
    env, fs,
    path::PathBuf,
    process::exit,
    time::{Duration, Instant, SystemTime},
};

use async_std::{
    net::{TcpListener, TcpStream},
    task,
};
use futures_lite::{StreamExt, future};
use hypercore::{Bytes, Durability, Event, Hypercore, PublicKey, ReplicateOptions, Role};

const POOL: usize = 64 << 20;

type Error = Box<dyn std::error::Error + Send + Sync>;

fn main() {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = task::block_on(async {
        match arguments[..] {
            [store, workload, "server"] => serve(store, workload).await,
            [store, workload, "client", port, key] => clone(store, workload, port, key).await,
            [store, workload @ ("B1" | "B2")] => read(store, workload).await,
            [store, workload] => append(store, workload).await,
            _ => Err("usage: bench_peer STORE WORKLOAD [server | client PORT KEY]".into()),
        }
    });
    if let Err(error) = result {
        eprintln!("bench_peer: {error}");
        exit(1);
    }
    exit(0);
}

/// Number of blocks, their size, and how many are appended at once.
fn workload(name: &str) -> Result<(usize, usize, usize), Error> {
    Ok(match name {
        "A1" => (10_000, 64, 1),
        "A2" => (100_000, 64, 1000),
        "A3" | "B2" | "C1" => (8192, 65536, 64),
        "M" | "B1" => (1_000_000, 64, 1000),
        "C2" => (200_000, 64, 1000),
        "L" => (0, 64, 1),
        other => return Err(format!("no workload {other}").into()),
    })
}

fn directory() -> PathBuf {
    env::var_os("BENCH_DIR").map_or_else(|| env::temp_dir().join("bench-data"), PathBuf::from)
}

struct Pool(Bytes);

impl Pool {
    fn new(bytes: usize) -> Result<Self, Error> {
        use std::io::Read;
        let mut pool = vec![0; bytes.min(POOL)];
        fs::File::open(directory().join("pool.bin"))?.read_exact(&mut pool)?;
        Ok(Self(pool.into()))
    }

    fn block(&self, index: usize, size: usize) -> Bytes {
        let start = index * size % POOL;
        self.0.slice(start..start + size)
    }
}

async fn open(store: &str, name: &str, key: Option<&str>, fresh: bool) -> Result<Hypercore, Error> {
    // Memory is as durable as it gets at once, and peers are told of nothing that is not durable.
    let durability = if store == "disk" {
        Durability::OnClose
    } else {
        Durability::Always
    };
    let mut options = Hypercore::options().durability(durability);
    if let Some(key) = key {
        options = options.key(key.parse::<PublicKey>()?);
    }
    if store == "ram" {
        return Ok(options.open_memory().await?);
    }
    let path = directory().join(format!("hc-{name}"));
    if fresh && path.exists() {
        fs::remove_dir_all(&path)?;
    }
    Ok(options.open(path).await?)
}

async fn fill(core: &Hypercore, name: &str) -> Result<(usize, usize), Error> {
    let (count, size, batch) = workload(name)?;
    let pool = Pool::new(count * size)?;
    let mut next = core.length() as usize;
    while next < count {
        let end = count.min(next + batch);
        if batch == 1 {
            core.append(pool.block(next, size)).await?;
        } else {
            core.append_batch((next..end).map(|index| pool.block(index, size)))
                .await?;
        }
        next = end;
    }
    Ok((count, count * size))
}

async fn append(store: &str, name: &str) -> Result<(), Error> {
    let core = open(store, name, None, true).await?;
    let (count, size, _) = workload(name)?;
    Pool::new(count * size)?;
    let clock = Clock::start();
    let (count, bytes) = fill(&core, name).await?;
    clock.report(store, name, "", count, bytes);
    core.close().await?;
    Ok(())
}

async fn read(store: &str, name: &str) -> Result<(), Error> {
    let filled = if name == "B1" { "M" } else { "A3" };
    let clock = Clock::start();
    let core = open(store, filled, None, false).await?;
    if store == "ram" {
        fill(&core, filled).await?;
    }
    let length = core.length();
    core.get(length / 2).await?;
    if name == "B1" {
        clock.report(store, "B1open", "", 1, 64);
        let mut random = Random(88_172_645_463_325_252);
        let clock = Clock::start();
        for _ in 0..100_000 {
            core.get(random.below(length)).await?;
        }
        clock.report(store, "B1get-1", "", 100_000, 6_400_000);
        let clock = Clock::start();
        for _ in 0..100_000 / 16 {
            let gets: Vec<_> = (0..16).map(|_| core.get(random.below(length))).collect();
            for get in gets {
                get.await?;
            }
        }
        clock.report(store, "B1get-16", "", 100_000, 6_400_000);
        return Ok(());
    }
    for round in ["B2", "B2again"] {
        let clock = Clock::start();
        let mut bytes = 0;
        let mut blocks = core.read_stream((0..length).into());
        while let Some(block) = blocks.try_next().await? {
            bytes += block.len();
        }
        clock.report(store, round, "", length as usize, bytes);
    }
    Ok(())
}

async fn serve(store: &str, name: &str) -> Result<(), Error> {
    let core = open(store, &format!("repl-{name}-server"), None, name == "L").await?;
    fill(&core, name).await?;
    // At this level peers hear of nothing before.
    core.flush().await?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("READY {} {}", listener.local_addr()?.port(), core.key());
    let (stream, _) = listener.accept().await?;
    stream.set_nodelay(true)?;
    let clock = Clock::start();
    let replication = core.replicate_over(stream, Role::Responder, ReplicateOptions::live());
    let served = async {
        replication.await?;
        Ok(())
    };
    let appends = async {
        if name == "L" {
            task::sleep(Duration::from_secs(1)).await;
            for _ in 0..1100 {
                let mut block = vec![0; 64];
                block[..8].copy_from_slice(&shared_clock().to_le_bytes());
                core.append(block).await?;
                task::sleep(Duration::from_millis(5)).await;
            }
        }
        future::pending::<Result<(), Error>>().await
    };
    let _ = future::or(served, appends).await;
    clock.report(store, name, "server", 0, 0);
    Ok(())
}

async fn clone(store: &str, name: &str, port: &str, key: &str) -> Result<(), Error> {
    let core = open(store, &format!("repl-{name}-client"), Some(key), true).await?;
    let stream = TcpStream::connect(("127.0.0.1", port.parse()?)).await?;
    stream.set_nodelay(true)?;
    let (count, size, _) = workload(name)?;
    let mut events = core.events();
    let clock = Clock::start();
    let replication = core.replicate_over(stream, Role::Initiator, ReplicateOptions::live());
    let work = async {
        if name == "L" {
            let mut delays = Vec::new();
            for index in 0..1100 {
                let block = core.get(index).await?;
                let sent = u64::from_le_bytes(block[..8].try_into()?);
                delays.push(shared_clock().saturating_sub(sent) / 1000);
            }
            let mut delays = delays.split_off(100);
            delays.sort_unstable();
            println!(
                "{{\"peer\":\"hc\",\"store\":\"{store}\",\"wl\":\"L\",\"role\":\"client\",\"us50\":{},\"us90\":{},\"us99\":{},\"usMin\":{}}}",
                delays[500], delays[900], delays[990], delays[0]
            );
            return Ok(());
        }
        let mut stored = 0;
        while stored < count {
            if let Some(Event::Download { .. }) = events.next().await {
                stored += 1;
            }
        }
        clock.report(store, name, "client", count, count * size);
        Ok(())
    };
    future::or(work, async {
        replication.await?;
        Err("the connection ended early".into())
    })
    .await
}

/// Nanoseconds, by a clock that all processes of a machine share.
fn shared_clock() -> u64 {
    let time = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    time.map_or(0, |time| time.as_nanos() as u64)
}

/// A xorshift64 generator, so that every peer reads the same blocks.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

struct Clock {
    wall: Instant,
    cpu: f64,
}

impl Clock {
    fn start() -> Self {
        Self {
            wall: Instant::now(),
            cpu: cpu_seconds(),
        }
    }

    fn report(&self, store: &str, workload: &str, role: &str, count: usize, bytes: usize) {
        let (wall, cpu) = (self.wall.elapsed().as_secs_f64(), cpu_seconds() - self.cpu);
        let rate = bytes as f64 / wall / 1_048_576.0;
        println!(
            "{{\"peer\":\"hc\",\"store\":\"{store}\",\"wl\":\"{workload}\",\"role\":\"{role}\",\"n\":{count},\"bytes\":{bytes},\
             \"secs\":{wall:.6},\"cpu\":{cpu:.6},\"ops\":{:.1},\"mibs\":{rate:.3},\"rss\":{},\"rssNow\":{}}}",
            count as f64 / wall,
            memory("VmHWM:"),
            memory("VmRSS:"),
        );
    }
}

/// User and system time of this process, in hundredths of a second.
fn cpu_seconds() -> f64 {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat
        .rsplit(')')
        .next()
        .unwrap_or_default()
        .split_whitespace();
    fields
        .skip(11)
        .take(2)
        .filter_map(|field| field.parse::<f64>().ok())
        .sum::<f64>()
        / 100.0
}

/// A line of `/proc/self/status`, in MiB.
fn memory(line: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|status| status.strip_prefix(line));
    line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok())
        .unwrap_or_default()
        / 1024
}
