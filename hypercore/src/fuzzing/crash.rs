use futures_lite::future::block_on;
use hypercore_storage::testing::{Fault, FaultStorage};

use crate::{Error, GetOptions, Hypercore, KeyPair};

/// Appends, clears, truncations and restarts over a disk that fails, once or for good, and loses power.
///
/// The input is a list of operations of two bytes each: what to do, and how much of it. Of a fault the
/// second byte is the number of the operation of the disk, times 4, and the kind. Bit 4 of the first
/// byte of all says whether disks lose the names of files, too.
///
/// * What was acknowledged is there after every loss of power, byte for byte, unless it was cleared.
/// * Behind it there is a whole batch that was not acknowledged, or nothing. A truncation that failed
///   may have taken some blocks from the end.
/// * The log can be appended to.
/// * The files pass an audit.
/// * All that holds, too, when the disk failed while the log was opened or created, or lost power then.
///   Such an opening loses nothing, nor takes a disk that fails for damage.
pub fn storage_crash(data: &[u8]) {
    let mut log = Crashing {
        loses_names: data.first().is_some_and(|byte| byte & 16 != 0),
        ..Crashing::default()
    };
    for &[kind, amount] in data.as_chunks().0.iter().take(24) {
        block_on(log.operate(kind, amount));
    }
    block_on(log.lose_power(0));
}

#[derive(Default)]
struct Crashing {
    disk: Option<(FaultStorage, Hypercore)>,
    /// What was acknowledged.
    blocks: Vec<Vec<u8>>,
    cleared: Vec<bool>,
    /// This many of them are there: a truncation that failed since may have taken the others.
    least: usize,
    /// The batches that failed since.
    unacknowledged: Vec<Vec<Vec<u8>>>,
    /// How often power was lost.
    losses: u64,
    /// Whether a loss of power takes files whose names were not synced.
    loses_names: bool,
    /// What strikes the disk while the log is opened the next time.
    at_opening: Option<(u8, u8)>,
}

impl Crashing {
    async fn operate(&mut self, kind: u8, amount: u8) {
        if let 232..240 = kind {
            self.at_opening = Some((kind, amount));
            return;
        }
        if self.disk.is_none() {
            self.open(self.new_disk(FaultStorage::new())).await;
        }
        let Some((_, core)) = &self.disk else {
            return;
        };
        let count = usize::from(amount);
        match kind {
            240.. => {
                // Not below a block that was cleared: see "What is not promised" in RELIABILITY.md.
                let cleared = self.cleared.iter().rposition(|&cleared| cleared);
                let least = cleared.map_or(0, |last| last + 1);
                let length = least.max(self.blocks.len().saturating_sub(count % 16));
                if core.truncate(length as u64).await.is_ok() {
                    self.blocks.truncate(length);
                    self.cleared.truncate(length);
                    self.unacknowledged.clear();
                    self.least = length;
                } else {
                    self.least = self.least.min(length);
                }
            }
            224.. => self.restart().await,
            _ => self.append_or_suffer(kind, amount).await,
        }
    }

    async fn append_or_suffer(&mut self, kind: u8, amount: u8) {
        let Some((disk, core)) = &self.disk else {
            return;
        };
        let count = usize::from(amount);
        match kind % 16 {
            0..=2 | 8..=10 => {
                let batch: Vec<_> = (0..1 + count % 9)
                    .map(|block| vec![amount ^ block as u8; 1 + count * 5])
                    .collect();
                match core.append_batch(batch.clone()).await {
                    Ok(_) => {
                        self.cleared.extend(batch.iter().map(|_| false));
                        self.blocks.extend(batch);
                        self.least = self.blocks.len();
                        self.unacknowledged.clear();
                    }
                    Err(_) => self.unacknowledged.push(batch),
                }
            }
            3 | 11 => {
                let end = self.blocks.len().min(count);
                let start = end.saturating_sub(1 + count % 4);
                self.cleared[start..end].fill(true);
                // It may fail: then some of it is gone or none.
                let _ = core.clear(start as u64..end as u64).await;
            }
            4 => disk.fail_at(place(amount), fault(amount)),
            12 => disk.fail_from(place(amount), fault(amount)),
            5 => drop(core.flush().await),
            13 => disk.heal(),
            _ => self.lose_power(amount).await,
        }
    }

    /// Closes the log, and opens it again on the same disk.
    async fn restart(&mut self) {
        let Some((disk, core)) = self.disk.take() else {
            return;
        };
        // What fails here may have failed for good: then it is as if the process was killed.
        let _ = core.close().await;
        drop(core);
        disk.heal();
        self.open(disk).await;
    }

    /// Opens what is on the disk, and compares.
    async fn lose_power(&mut self, seed: u8) {
        let Some((disk, core)) = self.disk.take() else {
            return;
        };
        let disk = self.without_power(&disk, seed);
        drop(core);
        self.open(disk).await;
    }

    /// What is left of the disk.
    fn without_power(&mut self, disk: &FaultStorage, seed: u8) -> FaultStorage {
        self.losses += 1;
        let image = disk.power_cut(self.losses << 8 | u64::from(seed));
        self.new_disk(FaultStorage::from_image(&image))
    }

    fn new_disk(&self, disk: FaultStorage) -> FaultStorage {
        if self.loses_names {
            disk.lose_names();
        }
        disk
    }

    /// Opens the log on a disk that fails meanwhile. Returns that disk, healed, or what a loss of power
    /// leaves of it.
    async fn open_with_faults(&mut self, disk: FaultStorage, kind: u8, amount: u8) -> FaultStorage {
        if kind & 1 == 0 {
            disk.fail_at(place(amount), fault(amount));
        } else {
            disk.fail_from(place(amount), fault(amount));
        }
        match open(&disk).await {
            Ok(core) => assert!(core.length() >= self.least as u64),
            Err(error) => assert!(!error.is_corruption(), "{error:?}"),
        }
        if kind & 2 != 0 {
            return self.without_power(&disk, amount);
        }
        disk.heal();
        disk
    }

    async fn open(&mut self, mut disk: FaultStorage) {
        if let Some((kind, amount)) = self.at_opening.take() {
            disk = self.open_with_faults(disk, kind, amount).await;
        }
        let core = open(&disk).await;
        let core = core.expect("what was acknowledged can be opened");
        let (length, acknowledged) = (core.length() as usize, self.blocks.len());
        assert!(length >= self.least, "{length} of {acknowledged} blocks");
        let (lock, recovery) = (core.append_lock(), core.recovery());
        assert!(core.is_writable(), "{lock:?}, {recovery:?}");
        for index in 0..length {
            let found = core.get_with(index as u64, GetOptions::local()).await.ok();
            match self.blocks.get(index) {
                Some(block) => assert!(
                    found.as_deref() == Some(block) || (found.is_none() && self.cleared[index])
                ),
                // The end of a batch that was not acknowledged, which is there as a whole.
                None => {
                    let block = found.expect("a whole batch").to_vec();
                    let position = index - acknowledged;
                    self.unacknowledged.retain(|batch| {
                        batch.len() == length - acknowledged && batch[position] == block
                    });
                    assert!(
                        !self.unacknowledged.is_empty(),
                        "block {index} was never appended"
                    );
                }
            }
        }
        if length > acknowledged {
            let batch = self.unacknowledged.swap_remove(0);
            self.cleared.extend(batch.iter().map(|_| false));
            self.blocks.extend(batch);
        }
        self.blocks.truncate(length);
        self.cleared.truncate(length);
        self.least = length;
        self.unacknowledged.clear();
        let audit = core
            .audit()
            .await
            .expect("an audit tells, and does not fail");
        assert_eq!(audit.invalid, [0; 0]);
        self.disk = Some((disk, core));
    }
}

async fn open(disk: &FaultStorage) -> Result<Hypercore, Error> {
    let options = Hypercore::options().key_pair(KeyPair::from_seed(&[7; 32]));
    let options = options.state_storage(disk.clone());
    options.open_storage(disk.clone()).await
}

/// How many operations of the disk come before the fault.
fn place(byte: u8) -> u64 {
    u64::from(byte >> 2)
}

fn fault(byte: u8) -> Fault {
    match byte % 4 {
        0 => Fault::Io,
        1 => Fault::Full,
        2 => Fault::Short,
        _ => Fault::Sync,
    }
}
