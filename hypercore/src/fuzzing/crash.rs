use futures_lite::future::block_on;
use hypercore_storage::testing::{Fault, FaultStorage};

use crate::{GetOptions, Hypercore, KeyPair};

/// Appends, clears, truncations and restarts over a disk that fails, and loses power.
///
/// The input is a list of operations of two bytes each: what to do, and how much of it.
///
/// * What was acknowledged is there after every loss of power, byte for byte, unless it was cleared.
/// * Behind it there is a whole batch that was not acknowledged, or nothing. A truncation that failed
///   may have taken some blocks from the end.
/// * The log can be appended to.
/// * The files pass an audit.
pub fn storage_crash(data: &[u8]) {
    let mut log = Crashing::default();
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
}

impl Crashing {
    async fn operate(&mut self, kind: u8, amount: u8) {
        if self.disk.is_none() {
            self.open(FaultStorage::new()).await;
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
        match kind % 8 {
            0..=2 => {
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
            3 => {
                let end = self.blocks.len().min(count);
                let start = end.saturating_sub(1 + count % 4);
                self.cleared[start..end].fill(true);
                // It may fail: then some of it is gone or none.
                let _ = core.clear(start as u64..end as u64).await;
            }
            4 => disk.fail_at(count as u64, fault(amount)),
            5 => drop(core.flush().await),
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
        self.losses += 1;
        let image = disk.power_cut(self.losses << 8 | u64::from(seed));
        drop(core);
        self.open(FaultStorage::from_image(&image)).await;
    }

    async fn open(&mut self, disk: FaultStorage) {
        let options = Hypercore::options().key_pair(KeyPair::from_seed(&[7; 32]));
        let options = options.state_storage(disk.clone());
        let core = options.open_storage(disk.clone()).await;
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

fn fault(byte: u8) -> Fault {
    match byte % 4 {
        0 => Fault::Io,
        1 => Fault::Full,
        2 => Fault::Short,
        _ => Fault::Sync,
    }
}
