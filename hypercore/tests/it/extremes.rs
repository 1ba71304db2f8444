//! Numbers where arithmetic ends, given to cores that are connected: an error, or patience, but
//! never another block and never an end of the process.

use std::{io, sync::Arc, time::Duration};

use async_std::task;
use futures_lite::{AsyncReadExt, StreamExt};
use hypercore::{
    DownloadOptions, Error, GetOptions, Hypercore, Order, ProofOptions, ReadOptions, SeekOptions,
    UpdateOptions,
    merkle::{MAX_LENGTH, Proof},
    storage::{FileName, Memory, RandomAccess, Storage},
};

use crate::support::{clone_of, connect_live, key_pair, proof_of, run, soon, writer};

const BLOCKS: u64 = 5;

/// Around every power of two from which on something could overflow.
fn numbers() -> impl Iterator<Item = u64> {
    let powers = [31, 32, 48, 51, 52, 53, 54, 62, 63].map(|bits| 1_u64 << bits);
    let near = |power: u64| [power - 2, power - 1, power, power + 1];
    powers
        .into_iter()
        .flat_map(near)
        .chain([u64::MAX - 1, u64::MAX])
}

/// Asks for the number in every way that is answered at once.
async fn ask(core: &Hypercore, number: u64) {
    let mut get = GetOptions::default();
    get.if_available = true;
    let mut seek = SeekOptions::default();
    // Nobody can say that a byte will never be there.
    seek.timeout = Some(Duration::from_millis(1));
    let mut update = UpdateOptions::default();
    (update.if_available, update.min_length) = (true, Some(number));
    let missing = core.get_with(number, get).await.unwrap_err();
    let is_named = match missing {
        Error::NotAvailable => number < MAX_LENGTH,
        Error::BadRange { start, .. } => start == number && number >= MAX_LENGTH,
        _ => false,
    };
    assert!(is_named, "{missing}");
    let missing = core
        .get_with(number, GetOptions::local())
        .await
        .unwrap_err();
    assert!(
        matches!(missing, Error::BlockNotStored { index } if index == number),
        "{missing}"
    );
    core.update_with(update).await.unwrap_err();
    core.seek_with(number, seek.clone()).await.unwrap_err();
    seek.blocks = number..u64::MAX;
    core.seek_with(number, seek.clone()).await.unwrap_err();
    seek.blocks = number..0;
    core.seek_with(number, seek).await.unwrap_err();
    for blocks in [number..number, 0..number, number..u64::MAX, number..0] {
        let mut stream = core.read_stream({
            let mut options = ReadOptions::from(blocks.clone());
            (options.if_available, options.batch) = (true, number);
            options
        });
        let mut read = 0;
        while let Some(block) = stream.next().await {
            read += u64::from(block.is_ok());
        }
        let expected = if blocks.contains(&0) { BLOCKS } else { 0 };
        assert!(read == expected, "{read} blocks of {blocks:?}");
    }
    assert!(!core.has(number) && core.has_all(number..number) && !core.has_all(0..=number));
    assert!(!core.has_all(number..0) && !core.has_all(number..));
    assert_eq!(core.downloaded(0..=number), core.downloaded(..));
    assert_eq!(
        (
            core.downloaded(number..),
            core.downloaded(number..=u64::MAX)
        ),
        (0, 0)
    );
    let _ = core.digest(number);
    let mut proof = ProofOptions::default();
    (proof.hash, proof.digest) = (true, number);
    assert!(core.proof_with(number, proof).await.unwrap().is_none());
    core.proof_with(0, proof).await.unwrap();
    assert!(core.signature(number).await.unwrap().is_none());
    assert!(core.root_hashes(number).await.is_err());
    assert!(core.block_info(number).await.is_err());
    for block in [None, Some("x".into())] {
        assert!(core.put(number, block, &Proof::default()).await.is_err());
    }
    for blocks in [
        number..number + u64::from(number < u64::MAX),
        0..number,
        number..u64::MAX,
    ] {
        if !blocks.is_empty() {
            assert!(
                core.clear(blocks.clone()).await.is_err(),
                "{blocks:?} was cleared"
            );
        }
    }
    core.truncate(number).await.unwrap_err();
    core.cancel(number..);
    let _ = core.progress(number..);
    let _ = core.progress(..=number);
}

#[test]
fn numbers_that_no_log_has() {
    run(async {
        let writer = writer(BLOCKS as usize).await;
        let clone = clone_of(&writer, true).await;
        let connection = connect_live(&clone, &writer).await;
        soon("all blocks", clone.download(0..BLOCKS)).await.unwrap();
        for number in numbers() {
            for core in [&writer, &clone] {
                soon("an answer", ask(core, number)).await;
                assert_eq!(core.length(), BLOCKS);
            }
        }
        for core in [&writer, &clone] {
            for block in 0..BLOCKS {
                assert_eq!(core.get(block).await.unwrap(), format!("block {block}"));
            }
        }
        assert_eq!((writer.peers().len(), clone.peers().len()), (1, 1));
        connection.cancel().await;
    });
}

/// What waits for such a number waits, and keeps nothing else from being done.
#[test]
fn waiting_for_numbers_that_no_log_has_holds_up_nothing() {
    run(async {
        let writer = writer(BLOCKS as usize).await;
        let clone = clone_of(&writer, true).await;
        let connection = connect_live(&clone, &writer).await;
        let mut waiting = Vec::new();
        for number in numbers() {
            let mut random = DownloadOptions::default();
            random.order = Order::Random;
            let mut hashes = DownloadOptions::default();
            hashes.hash = true;
            waiting.extend(
                [
                    clone.download_with(number.., random),
                    clone.download_with(number..=number, hashes),
                    clone.download(number..=u64::MAX),
                    clone.download_blocks([number, number - 1]),
                ]
                .map(task::spawn),
            );
            let core = clone.clone();
            waiting.push(task::spawn(async move { core.get(number).await.map(drop) }));
            let core = clone.clone();
            waiting.push(task::spawn(
                async move { core.seek(number).await.map(drop) },
            ));
            let core = clone.clone();
            waiting.push(task::spawn(async move {
                let read = core.byte_stream(number..).read(&mut [0; 9]).await;
                read.map(drop).map_err(|_| Error::Empty)
            }));
        }
        for block in (0..BLOCKS).rev() {
            let got = soon("a block", clone.get(block)).await.unwrap();
            assert_eq!(got, format!("block {block}"));
        }
        soon("an append", writer.append("more")).await.unwrap();
        soon("the append", clone.get(BLOCKS)).await.unwrap();
        assert!(clone.waiting().len() > 100, "{:?}", clone.waiting());
        assert_eq!((writer.peers().len(), clone.peers().len()), (1, 1));
        for task in waiting {
            task.cancel().await;
        }
        connection.cancel().await;
    });
}

/// A disk on which no file can be longer than on ext4.
#[derive(Clone, Debug)]
struct Limited(Memory);

#[derive(Debug)]
struct LimitedFile(Arc<dyn RandomAccess>);

const MAX_FILE: u64 = 1 << 44;

impl Storage for Limited {
    fn open(&self, file: FileName) -> io::Result<Arc<dyn RandomAccess>> {
        Ok(Arc::new(LimitedFile(self.0.open(file)?)))
    }
}

impl RandomAccess for LimitedFile {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.0.read_at(offset, buffer)
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        if offset + data.len() as u64 > MAX_FILE {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.0.write_at(offset, data)
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        self.0.truncate(len)
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync()
    }
}

/// It is as if nobody had sent it: nothing of it is in the way of what comes then.
#[test]
fn a_log_too_long_for_the_disk_leaves_nothing() {
    let key_pair = key_pair("extremes");
    let proof_of = |block, length_bits| proof_of(block, &key_pair, length_bits);
    let x = || Some("x".into());
    run(async {
        for (length, bits) in [(0, 50), (1, 50), (0, 39), (1, 39)] {
            let disk = Limited(Memory::new());
            let open = || {
                let options = Hypercore::options().key(key_pair.public_key());
                options.sparse(true).open_storage(disk.clone())
            };
            let core = open().await.unwrap();
            if length > 0 {
                core.put(0, x(), &proof_of(0, 0)).await.unwrap();
            }
            for _ in 0..4 {
                let failed = core.put(length, x(), &proof_of(length, bits)).await;
                assert!(matches!(failed, Err(Error::Storage(_))), "{failed:?}");
                core.flush().await.unwrap();
                assert_eq!(core.length(), length);
                assert!(!core.has(length) && core.downloaded(..) == length);
            }
            core.close().await.unwrap();
            let core = open().await.unwrap();
            assert_eq!((core.length(), core.recovery()), (length, None));
            core.put(length, x(), &proof_of(length, 4)).await.unwrap();
            core.close().await.unwrap();
            let core = open().await.unwrap();
            assert_eq!((core.length(), core.recovery()), (16, None));
            assert_eq!(core.get(length).await.unwrap(), "x");
            assert!(core.verify().await.unwrap().is_ok());
        }
    });
}
