//! How much one process holds, on the disk of the directory that is given:
//!
//! * 10,000 logs open at the same time;
//! * a log of 1,000,000 blocks with 1,000 readers, each over a connection of its own, that get one
//!   block after another, one each second, each reader from another place on.
//!
//! ```text
//! cargo run --release -p hypercore-examples --example load -- /var/tmp
//! cargo run --release -p hypercore-examples --example load -- /var/tmp 100 10000 10
//! ```
//!
//! Each log has one file open for its lock, so `ulimit -n` has to allow one for each and 1,000 more.
//! Fails if a log takes a second to open, if one in a hundred blocks takes more than 50 ms to get,
//! or if more files are open than that.

use std::{
    env, fmt,
    path::Path,
    process::ExitCode,
    time::{Duration, Instant},
};

use async_std::{
    net::{TcpListener, TcpStream},
    task::{self, JoinHandle as Task},
};
use hypercore::{Durability, Ended, Hypercore, ReplicateOptions, Role};
use hypercore_examples::{open_files, resident};

type Error = Box<dyn std::error::Error + Send + Sync>;

const MOST_P99: Duration = Duration::from_millis(50);
/// How often a reader asks, and how many times.
const INTERVAL: Duration = Duration::from_secs(1);
const READS: u64 = 20;

fn main() -> Result<ExitCode, Error> {
    let mut arguments = env::args().skip(1);
    let disk = arguments.next().unwrap_or_else(|| ".".into());
    let mut number = |default| {
        arguments
            .next()
            .map_or(Ok(default), |text| text.parse::<u64>())
    };
    let (logs, blocks, readers) = (number(10_000)?, number(1_000_000)?, number(1000)?);
    let directory = tempfile::tempdir_in(disk)?;
    let directory = directory.path();
    let failures = task::block_on(async {
        let mut failures = open_many(&directory.join("many"), logs).await?;
        failures.extend(read_together(&directory.join("long"), blocks, readers).await?);
        Ok::<_, Error>(failures)
    })?;
    failures
        .iter()
        .for_each(|failure| println!("FAILED: {failure}"));
    Ok(ExitCode::from(u8::from(!failures.is_empty())))
}

/// Makes the logs, opens all of them, and reads and writes here and there.
async fn open_many(directory: &Path, logs: u64) -> Result<Vec<String>, Error> {
    let path = |number: u64| directory.join(number.to_string());
    for number in 0..logs {
        // To be durable is not what this is about.
        let options = Hypercore::options().durability(Durability::OnClose);
        let core = options.open(path(number)).await?;
        core.append_batch((0..10).map(|block| format!("{number} {block}")))
            .await?;
        core.close().await?;
    }
    let (memory, files) = (resident(), open_files());
    let (mut cores, mut times) = (Vec::new(), Vec::new());
    for number in 0..logs {
        let start = Instant::now();
        cores.push(Hypercore::open(path(number)).await?);
        times.push(start.elapsed());
    }
    let opened = Times::of(times);
    let each = (resident() - memory) * 1024.0 / logs as f64;
    println!("{logs} logs opened, each {opened}; {each:.1} KiB for each");

    let mut times = Vec::new();
    for round in 0..4 {
        for (number, core) in cores.iter().enumerate() {
            let start = Instant::now();
            let block = core.get(round).await?;
            times.push(start.elapsed());
            assert_eq!(block, format!("{number} {round}"), "a block of another log");
        }
    }
    let read = Times::of(times);
    let open = open_files() - files;
    let each = (resident() - memory) * 1024.0 / logs as f64;
    println!("  a block of one after another {read}; {open} files open, {each:.1} KiB for each");

    let mut times = Vec::new();
    for core in cores.iter().step_by(10) {
        let start = Instant::now();
        core.append("one more").await?;
        times.push(start.elapsed());
    }
    let appended = Times::of(times);
    let open_after = open_files() - files;
    println!("  an append to each tenth {appended}; {open_after} files open");
    for core in cores {
        core.close().await?;
    }

    let mut failures = Vec::new();
    if opened.most >= Duration::from_secs(1) {
        failures.push(format!("a log took {:.1?} to open", opened.most));
    }
    if read.p99 >= MOST_P99 {
        failures.push(format!("a block took {:.1?}", read.p99));
    }
    let most = logs as usize + 1000;
    if open.max(open_after) > most {
        failures.push(format!("{open}, then {open_after} files were open"));
    }
    Ok(failures)
}

/// Makes a long log, connects the readers, and lets them get blocks at random.
async fn read_together(directory: &Path, blocks: u64, readers: u64) -> Result<Vec<String>, Error> {
    let start = Instant::now();
    let writer = Hypercore::open(directory).await?;
    while writer.length() < blocks {
        let first = writer.length();
        let batch = first..blocks.min(first + 10_000);
        writer.append_batch(batch.map(content)).await?;
    }
    let memory = resident();
    let took = start.elapsed();
    println!("{blocks} blocks appended in {took:.1?}; {memory:.1} MiB in all");

    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let core = writer.clone();
    let accepting: Task<Result<(), Error>> = task::spawn(async move {
        loop {
            let (socket, _) = listener.accept().await?;
            let connection = core.replicate(Role::Responder, ReplicateOptions::live())?;
            task::spawn(async move { connection.run(socket).await });
        }
    });
    let start = Instant::now();
    let mut clones = Vec::new();
    for _ in 0..readers {
        let options = Hypercore::options().key(writer.key()).sparse(true);
        let core = options.open_memory().await?;
        let socket = TcpStream::connect(address).await?;
        let connection = core.replicate(Role::Initiator, ReplicateOptions::live())?;
        let connection = task::spawn(async move { connection.run(socket).await });
        clones.push((core, connection));
    }
    for (core, _) in &clones {
        if core.length() == 0 {
            core.update().await?;
        }
    }
    let took = start.elapsed();
    let each = (resident() - memory) * 1024.0 / readers as f64;
    println!("{readers} readers connected in {took:.1?}; {each:.1} KiB for each, both ends of it");

    let start = Instant::now();
    let reading: Vec<_> = clones
        .into_iter()
        .enumerate()
        .map(|(reader, clone)| task::spawn(read_at_intervals(reader as u64, readers, clone)))
        .collect();
    let mut times = Vec::new();
    for reading in reading {
        times.extend(reading.await?);
    }
    let took = start.elapsed();
    let read = Times::of(times);
    let each = (resident() - memory) * 1024.0 / readers as f64;
    println!("  each read {READS} blocks in {took:.1?}, a block {read}; {each:.1} KiB for each");
    accepting.cancel().await;
    writer.close().await?;

    let mut failures = Vec::new();
    if read.p99 >= MOST_P99 {
        failures.push(format!("a block took {:.1?}", read.p99));
    }
    Ok(failures)
}

/// A block each second; how long each took.
async fn read_at_intervals(
    reader: u64,
    readers: u64,
    (core, _connection): (Hypercore, Task<Result<Ended, hypercore::Error>>),
) -> Result<Vec<Duration>, Error> {
    // Not all in the same moment.
    task::sleep(INTERVAL.mul_f64(reader as f64 / readers as f64)).await;
    let mut times = Vec::new();
    for read in 0..READS {
        // Each somewhere else, and one block after another from there on.
        let start = core.length() / readers * reader;
        let index = (start + read) % core.length();
        let start = Instant::now();
        let block = core.get(index).await?;
        times.push(start.elapsed());
        assert_eq!(block, content(index), "block {index} is another one");
        task::sleep(INTERVAL).await;
    }
    Ok(times)
}

fn content(index: u64) -> Vec<u8> {
    index.to_le_bytes().repeat(8)
}

struct Times {
    median: Duration,
    p99: Duration,
    most: Duration,
}

impl Times {
    fn of(mut times: Vec<Duration>) -> Self {
        times.sort();
        Self {
            median: times[times.len() / 2],
            p99: times[times.len() * 99 / 100],
            most: times[times.len() - 1],
        }
    }
}

impl fmt::Display for Times {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { median, p99, most } = self;
        write!(f, "in {median:.1?}, 99 % in {p99:.1?}, all in {most:.1?}")
    }
}
