//! What durability costs, on the disk of the directory that is given:
//!
//! * a durable append, beside writes to three files that are synced beside each other;
//! * 64 who append at the same time, beside one;
//! * opening a log of 1,000,000 blocks that was closed.
//!
//! ```text
//! cargo run --release -p hypercore-examples --example durability -- /var/tmp
//! ```

use std::{
    env,
    fs::File,
    io::Write,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use async_std::task;
use hypercore::{
    Hypercore,
    storage::{Directory, FileName, testing::Recording},
};

type Error = Box<dyn std::error::Error + Send + Sync>;

fn main() -> Result<(), Error> {
    let disk = env::args().nth(1).unwrap_or_else(|| ".".into());
    let directory = tempfile::tempdir_in(disk)?;
    let directory = directory.path();
    task::block_on(async {
        append_beside_sync(directory).await?;
        append_together(&directory.join("together")).await?;
        open_closed(&directory.join("closed")).await
    })
}

/// Takes turns, so that both meet the same disk.
async fn append_beside_sync(directory: &Path) -> Result<(), Error> {
    let names = ["a", "b", "c"];
    let files = names.map(|name| File::create(directory.join(name)));
    let [a, b, c] = files;
    let mut files = [a?, b?, c?];
    let core = Hypercore::open(directory.join("alone")).await?;
    let (mut syncs, mut appends) = (Vec::new(), Vec::new());
    for _ in 0..500 {
        let start = Instant::now();
        for (file, size) in files.iter_mut().zip([64, 80, 128]) {
            file.write_all(&[1; 128][..size])?;
        }
        thread::scope(|scope| {
            for file in &files {
                scope.spawn(|| file.sync_data());
            }
        });
        syncs.push(start.elapsed());

        let start = Instant::now();
        core.append([1; 64].to_vec()).await?;
        appends.push(start.elapsed());
    }
    let (sync, append) = (median(syncs), median(appends));
    let ratio = append.as_secs_f64() / sync.as_secs_f64();
    println!("an append {append:.2?}, a round of syncs {sync:.2?}: {ratio:.2} times");
    Ok(())
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

async fn append_together(directory: &Path) -> Result<(), Error> {
    let core = Hypercore::open(directory).await?;
    let alone = appends_per_second(&core, 1).await?;
    let together = appends_per_second(&core, 64).await?;
    let ratio = together / alone;
    println!("64 at once {together:.0}/s, one {alone:.0}/s: {ratio:.1} times");
    Ok(())
}

async fn appends_per_second(core: &Hypercore, tasks: u32) -> Result<f64, Error> {
    const EACH: u32 = 200;
    let start = Instant::now();
    let tasks: Vec<_> = (0..tasks)
        .map(|_| {
            let core = core.clone();
            task::spawn(async move {
                for _ in 0..EACH {
                    core.append([1; 64].to_vec()).await?;
                }
                Ok::<_, hypercore::Error>(())
            })
        })
        .collect();
    let count = tasks.len() as u32 * EACH;
    for task in tasks {
        task.await?;
    }
    Ok(f64::from(count) / start.elapsed().as_secs_f64())
}

async fn open_closed(directory: &Path) -> Result<(), Error> {
    let core = Hypercore::open(directory).await?;
    for _ in 0..100 {
        core.append_batch((0..10_000).map(|_| [1; 64].to_vec()))
            .await?;
    }
    core.close().await?;
    let mut times = Vec::new();
    let mut read = 0;
    for _ in 0..9 {
        let storage = Recording::new(Directory::new(directory));
        let start = Instant::now();
        let core = Hypercore::options().open_storage(storage.clone()).await?;
        times.push(start.elapsed());
        assert_eq!(core.length(), 1_000_000);
        core.close().await?;
        let bytes = FileName::ALL.map(|file| storage.take(file).bytes_read);
        read = bytes.iter().sum();
    }
    let time = median(times);
    println!("1,000,000 blocks opened in {time:.2?}, {read} bytes read");
    Ok(())
}
