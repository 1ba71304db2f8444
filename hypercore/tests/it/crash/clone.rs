//! A log that is downloaded.

use std::collections::BTreeSet;

use futures_lite::future::block_on;
use hypercore::{
    Durability, Error, GetOptions, Hypercore, ProofOptions,
    storage::{
        FileName,
        testing::{Fault, FaultStorage},
    },
};

use super::{Random, assert_verifies, for_all_seeds};
use crate::support::key_pair;

/// A clone, its writer, and what the clone must still have after a loss of power.
struct Download {
    random: Random,
    writer: Hypercore,
    disk: FaultStorage,
    clone: Hypercore,
    /// What the clone was given and was not told to clear.
    stored: BTreeSet<u64>,
    /// Those of them that were flushed.
    durable: BTreeSet<u64>,
    durable_length: u64,
}

impl Download {
    async fn start(seed: u64) -> Self {
        let writer = Hypercore::options().key_pair(key_pair("crash"));
        let writer = writer.open_memory().await.unwrap();
        let disk = FaultStorage::new();
        let mut download = Self {
            random: Random(seed),
            clone: open(&writer, &disk).await.unwrap(),
            writer,
            disk,
            stored: BTreeSet::new(),
            durable: BTreeSet::new(),
            durable_length: 0,
        };
        download.grow().await;
        download
    }

    /// The writer goes on.
    async fn grow(&mut self) {
        let count = 1 + self.random.below(20);
        let sizes: Vec<_> = (0..count).map(|_| self.random.below(60)).collect();
        let blocks = sizes.iter().map(|&size| vec![size as u8; size as usize]);
        self.writer.append_batch(blocks).await.unwrap();
    }

    /// The clone stores block `index`, if it lacks it.
    async fn fetch(&mut self, index: u64) -> Result<(), Error> {
        if self.clone.has(index) {
            return Ok(());
        }
        let mut options = ProofOptions::default();
        options.digest = self.clone.digest(index);
        let proof = self.writer.proof_with(index, options).await.unwrap();
        let block = self.writer.get(index).await.unwrap();
        self.clone.put(index, Some(block), &proof.unwrap()).await?;
        self.stored.insert(index);
        Ok(())
    }

    fn set_durable(&mut self) {
        self.durable = self.stored.clone();
        self.durable_length = self.clone.length();
    }

    async fn step(&mut self) -> Result<(), Error> {
        let index = self.random.below(self.writer.length());
        match self.random.below(16) {
            0 => self.grow().await,
            1 => {
                self.clone.flush().await?;
                self.set_durable();
            }
            2 => {
                // One that could not be closed is closed nonetheless, and a flush says so.
                self.clone.flush().await?;
                self.set_durable();
                self.clone.close().await?;
                self.clone = open(&self.writer, &self.disk).await?;
            }
            3 if index < self.clone.length() => {
                let end = (index + 1 + self.random.below(4)).min(self.clone.length());
                self.stored.retain(|block| !(index..end).contains(block));
                self.durable.retain(|block| !(index..end).contains(block));
                self.clone.clear(index..end).await?;
            }
            _ => self.fetch(index).await?,
        }
        Ok(())
    }

    async fn be_killed(&mut self) {
        self.disk.fail_from(0, Fault::Io);
        let _ = self.clone.close().await;
        self.disk.heal();
        self.clone = open(&self.writer, &self.disk).await.unwrap();
        self.check().await;
    }

    async fn lose_power(&mut self) {
        self.disk.fail_from(self.random.below(60), Fault::Io);
        while self.step().await.is_ok() {}
        let mut image = self.disk.power_cut(self.random.below(u64::MAX));
        let _ = self.clone.close().await;
        while self.random.once_in(4) {
            let disk = FaultStorage::from_image(&image);
            disk.fail_from(self.random.below(40), Fault::Io);
            drop(open(&self.writer, &disk).await);
            image = disk.power_cut(self.random.below(u64::MAX));
        }
        self.disk = FaultStorage::from_image(&image);
        self.clone = open(&self.writer, &self.disk).await.unwrap();
        self.check().await;
        self.set_durable();
    }

    /// Everything that the clone says it has is right, and nothing is lost that was durable.
    async fn check(&mut self) {
        let length = self.clone.length();
        let lengths = self.durable_length..=self.writer.length();
        assert!(lengths.contains(&length), "{length} of {lengths:?}");
        let audit = self.clone.audit().await.unwrap();
        assert_eq!(audit.invalid, [0; 0]);
        for index in 0..self.writer.length() {
            if !self.clone.has(index) {
                assert!(!self.durable.contains(&index), "block {index} is lost");
                self.stored.remove(&index);
                continue;
            }
            let block = self.clone.get_with(index, GetOptions::local()).await;
            assert_eq!(block.unwrap(), self.writer.get(index).await.unwrap());
            self.stored.insert(index);
        }
        assert_verifies(&self.disk).await;
    }

    /// It takes what it lacks, and has everything then.
    async fn complete(&mut self) {
        for index in 0..self.writer.length() {
            self.fetch(index).await.unwrap();
        }
        self.clone.close().await.unwrap();
        let before = FileName::ALL.map(|file| self.disk.image().read(file));
        self.clone = open(&self.writer, &self.disk).await.unwrap();
        self.set_durable();
        self.check().await;
        assert_eq!(self.durable.len() as u64, self.writer.length());
        self.clone.close().await.unwrap();
        assert!(before == FileName::ALL.map(|file| self.disk.image().read(file)));
    }
}

/// A clone writes its pages when it is told to, and not when it has the time: a seed means the same
/// everywhere.
async fn open(writer: &Hypercore, disk: &FaultStorage) -> Result<Hypercore, Error> {
    let options = Hypercore::options().key(writer.key());
    let options = options.durability(Durability::OnClose);
    options.sparse(true).open_storage(disk.clone()).await
}

async fn download_and_lose_power(seed: u64) {
    let mut download = Download::start(seed).await;
    for _ in 0..2 {
        for _ in 0..download.random.below(30) {
            download.step().await.unwrap();
        }
        match download.random.below(4) {
            0 => download.be_killed().await,
            1 => {
                let faults = [Fault::Io, Fault::Full, Fault::Short, Fault::Sync];
                let fault = faults[download.random.below(4) as usize];
                download.disk.fail_at(download.random.below(30), fault);
                for _ in 0..download.random.below(10) {
                    let _ = download.step().await;
                }
            }
            _ => {}
        }
        download.lose_power().await;
    }
    download.complete().await;
}

#[test]
fn a_clone_claims_nothing_false_after_a_loss_of_power() {
    for_all_seeds("a_clone_claims_nothing_false", |seed| {
        block_on(download_and_lose_power(seed));
    });
}

/// With this seed, the bitfield had grown by a page when the power went, and what the disk had had there
/// before looked like blocks.
#[test]
fn a_page_that_is_new_claims_nothing() {
    block_on(download_and_lose_power(26060));
}
