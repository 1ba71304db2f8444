//! `hypercore cat --follow` of a directory that another process may be writing to.
//!
//! A core is opened by one process at a time, and whoever appends to it must not find it in use.
//! So this takes no lock and writes nothing: it believes the newest signature that holds over the
//! roots that are stored, and a block that has its hash. What a writer is in the middle of is not
//! believed until it is done.

use std::{
    io,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use async_io::Timer;
use futures_lite::future;
use hypercore::{
    PublicKey,
    bitfield::{Bitfield, PageSize},
    merkle::{
        MAX_BLOCK_SIZE, NodeIndex, Roots, Signature, TreeHead, Verifier, full_roots, leaf_hash,
    },
    storage::{self, Directory, FeedFiles, FileName, RandomAccess, Storage},
};

use crate::{
    args::{CatArgs, Manners},
    commands::require_directory,
    errors::{Exit, Failure, Result, quoted},
    output::{RawOutput, blocks, complain, deserted},
    signals::Signals,
};

/// A page of the bitfield has bits for so many blocks.
const PAGE_BLOCKS: u64 = 8192;

/// How often the files are looked at when there is nothing to write.
const LOOK: Duration = Duration::from_millis(50);

/// How long a block may be missing that should be there. Nobody writes one for so long, and after such
/// a time it is looked at again.
const PATIENCE: Duration = Duration::from_secs(1);

pub(crate) async fn follow(args: CatArgs, manners: &Manners) -> Result<()> {
    let signals = Signals::catch().map_err(|error| Failure::failed(error.to_string()))?;
    let stop = async {
        signals.stopped().await;
        Ok(())
    };
    let unread = async {
        deserted().await;
        Ok(())
    };
    let mut output = RawOutput::default();
    let work = write_all(&args, manners, &mut output);
    let ended = future::or(stop, future::or(unread, work)).await;
    let written = output.finish().await;
    ended.and(written)
}

async fn write_all(args: &CatArgs, manners: &Manners, output: &mut RawOutput) -> Result<()> {
    let dir = args.source.as_path();
    let mut log = Glimpse::open(dir)?;
    let end = args.end_of_block();
    let mut told = false;
    for index in args.start..args.end.unwrap_or(u64::MAX) {
        let mut since = Instant::now();
        let block = loop {
            if let Some(block) = log.block(index).map_err(|error| failure(error, dir))? {
                break block;
            }
            if !output.flush().await? {
                return Ok(());
            }
            if since.elapsed() >= PATIENCE {
                if log.is_rotten(index).map_err(|error| failure(error, dir))? {
                    output.flush().await?;
                    return Err(rotten(index, dir));
                }
                if index < log.head.length && !told && !manners.quiet {
                    told = true;
                    complain(format_args!(
                        "block {index} of {} is not stored in `{}` yet; waiting for it",
                        blocks(log.head.length),
                        dir.display()
                    ));
                }
                since = Instant::now();
            }
            Timer::after(LOOK).await;
        };
        told = false;
        if !output.write(&block, end).await? {
            return Ok(());
        }
        // Signals are to be seen even when there is always another block.
        future::yield_now().await;
    }
    output.flush().await.map(|_| ())
}

fn failure(error: storage::Error, dir: &Path) -> Failure {
    Failure::core(error.into(), dir)
}

/// A block does not get better by waiting for it.
fn rotten(index: u64, dir: &Path) -> Failure {
    let words = format!(
        "block {index} of the core in `{}` is damaged; once no other process has it open, `hypercore \
         repair {} --connect ADDR:PORT` drops it and fetches it again from a peer",
        dir.display(),
        quoted(dir)
    );
    Failure::new(Exit::Damaged, words)
}

/// A log as its files show it at this moment.
struct Glimpse {
    files: FeedFiles,
    verifier: Verifier,
    head: TreeHead,
}

impl Glimpse {
    fn open(dir: &Path) -> Result<Self> {
        require_directory(dir)?;
        let storage = Arc::new(ReadOnly(Directory::new(dir)));
        let files = FeedFiles::open(storage).map_err(|error| failure(error, dir))?;
        let key = files.key().map_err(|error| failure(error, dir))?;
        let key = key.ok_or_else(|| Failure::core(hypercore::Error::NoCore, dir))?;
        Ok(Self {
            files,
            verifier: Verifier::new(&PublicKey::from(key)),
            head: Roots::new().head(),
        })
    }

    /// Block `index`, if it is there.
    fn block(&mut self, index: u64) -> Result<Option<Vec<u8>>, storage::Error> {
        if index >= self.head.length {
            self.look()?;
        }
        let found = self.stored(index)?;
        Ok(found.and_then(|(block, is_true)| is_true.then_some(block)))
    }

    /// What stands in the place of block `index`, and whether it has the hash of that.
    fn stored(&self, index: u64) -> Result<Option<(Vec<u8>, bool)>, storage::Error> {
        if index >= self.head.length {
            return Ok(None);
        }
        let Some(leaf) = NodeIndex::leaf(index) else {
            return Ok(None);
        };
        let wanted: Vec<_> = full_roots(index).chain([leaf]).collect();
        let nodes: Option<Vec<_>> = self.files.nodes(&wanted)?.into_iter().collect();
        let Some(mut nodes) = nodes else {
            return Ok(None);
        };
        let (Some(leaf), before) = (nodes.pop(), nodes) else {
            return Ok(None);
        };
        let offset = before
            .iter()
            .try_fold(0_u64, |sum, node| sum.checked_add(node.size));
        let end = offset.and_then(|offset| offset.checked_add(leaf.size));
        let (Some(offset), Some(end)) = (offset, end) else {
            return Ok(None);
        };
        if leaf.size > MAX_BLOCK_SIZE || end > self.files.data_len()? {
            return Ok(None);
        }
        let block = self.files.read_data(offset, leaf.size)?;
        let is_true = leaf_hash(&block) == leaf.hash;
        Ok(Some((block, is_true)))
    }

    /// Whether block `index`, which could not be read for a while, is not to come any more: it is
    /// claimed to be stored, or was signed here.
    fn is_rotten(&self, index: u64) -> Result<bool, storage::Error> {
        if index >= self.head.length {
            return Ok(false);
        }
        // A bit is only ever set after what it claims was written, and taken back before that goes.
        let is_claimed = self.claims(index)?;
        let found = self.stored(index)?;
        Ok(match found {
            Some((_, true)) => false,
            _ if is_claimed => self.claims(index)?,
            // A writer notes later what it has signed. What was cleared there reads as zeros.
            Some((block, false)) => {
                let is_original = self.files.len(FileName::SecretKey)? > 0;
                is_original && block.iter().any(|&byte| byte != 0)
            }
            None => false,
        })
    }

    /// Whether the bitfield says that block `index` is stored.
    fn claims(&self, index: u64) -> Result<bool, storage::Error> {
        let mut bits = Bitfield::new(PageSize::Current);
        self.files.pages(|page, bytes| {
            if page == index / PAGE_BLOCKS {
                bits.load_page(page, bytes);
            }
        })?;
        Ok(bits.get(index))
    }

    /// Looks for a newer signature.
    fn look(&mut self) -> Result<(), storage::Error> {
        let mut before = u64::MAX;
        while let Some((block, signature)) = self.files.previous_signature(before)? {
            if block < self.head.length {
                return Ok(());
            }
            before = block;
            let length = block.saturating_add(1);
            let wanted: Vec<_> = full_roots(length).collect();
            let nodes: Option<Vec<_>> = self.files.nodes(&wanted)?.into_iter().collect();
            let Some(Ok(roots)) = nodes.map(|nodes| Roots::from_nodes(length, nodes)) else {
                continue;
            };
            let head = roots.head();
            if self.verifier.verify(&head, &Signature::from(signature)) {
                self.head = head;
                return Ok(());
            }
        }
        Ok(())
    }
}

/// A directory without its lock. Nothing is written to it.
struct ReadOnly(Directory);

#[derive(Debug)]
struct ReadOnlyFile(Arc<dyn RandomAccess>);

impl Storage for ReadOnly {
    fn open(&self, file: FileName) -> io::Result<Arc<dyn RandomAccess>> {
        Ok(Arc::new(ReadOnlyFile(self.0.open(file)?)))
    }

    fn remove(&self, _: FileName) -> io::Result<()> {
        Err(io::ErrorKind::PermissionDenied.into())
    }
}

impl RandomAccess for ReadOnlyFile {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.0.read_at(offset, buffer)
    }

    fn write_at(&self, _: u64, _: &[u8]) -> io::Result<()> {
        Err(io::ErrorKind::PermissionDenied.into())
    }

    fn truncate(&self, _: u64) -> io::Result<()> {
        Err(io::ErrorKind::PermissionDenied.into())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use hypercore::Hypercore;

    use super::*;

    fn write(dir: &Path, blocks: &[&'static str]) {
        future::block_on(async {
            let core = Hypercore::open(dir).await?;
            core.append_batch(blocks.iter().copied()).await?;
            core.close().await
        })
        .unwrap();
    }

    #[test]
    fn nothing_is_believed_that_is_not_signed_and_hashed() {
        let scene = tempfile::tempdir().unwrap();
        let (log, other) = (scene.path().join("log"), scene.path().join("other"));
        write(&log, &["one", "two"]);
        write(&other, &["bad", "two", "three"]);
        let mut glimpse = Glimpse::open(&log).unwrap();
        assert_eq!(glimpse.block(1).unwrap().unwrap(), b"two");
        assert_eq!(glimpse.block(2).unwrap(), None);

        // All is right with it but the signature.
        let kept = scene.path().join("kept");
        fs::create_dir(&kept).unwrap();
        for file in ["data", "tree", "signatures"] {
            fs::copy(log.join(file), kept.join(file)).unwrap();
            fs::copy(other.join(file), log.join(file)).unwrap();
        }
        assert_eq!(glimpse.block(2).unwrap(), None);
        let mut fresh = Glimpse::open(&log).unwrap();
        assert_eq!(fresh.block(0).unwrap(), None);

        for file in ["tree", "signatures"] {
            fs::copy(kept.join(file), log.join(file)).unwrap();
        }
        assert_eq!(
            fresh.block(0).unwrap(),
            None,
            "`data` is still the other one's"
        );
        assert_eq!(fresh.block(1).unwrap().unwrap(), b"two");
        fs::copy(kept.join("data"), log.join("data")).unwrap();
        assert_eq!(fresh.block(0).unwrap().unwrap(), b"one");
    }
}
