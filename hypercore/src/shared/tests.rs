use std::{
    fmt, io, mem,
    sync::{Arc, Mutex},
};

use futures_lite::future::block_on;
use hypercore_merkle::{Block, Proof};
use hypercore_storage::{
    FileName, Memory, RandomAccess, Storage,
    testing::{Fault, FaultStorage},
};

use super::lock;
use crate::{
    AppendLock, Durability, Error, Hypercore, KeyPair, OpenOptions, ProofOptions,
    core::Core,
    event::PeerId,
    log::{Answer, Taken},
};

type Work = Box<dyn FnOnce() + Send>;

/// What is done before the next sync of the bitfield.
#[derive(Clone, Default)]
struct Meanwhile(Arc<Mutex<Option<Work>>>);

impl fmt::Debug for Meanwhile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Meanwhile")
    }
}

#[derive(Clone, Default)]
struct Interrupted {
    memory: Memory,
    meanwhile: Meanwhile,
}

#[derive(Debug)]
struct InterruptedFile {
    file: Arc<dyn RandomAccess>,
    meanwhile: Meanwhile,
}

impl Storage for Interrupted {
    fn open(&self, file: FileName) -> io::Result<Arc<dyn RandomAccess>> {
        let opened = self.memory.open(file)?;
        if file != FileName::Bitfield {
            return Ok(opened);
        }
        Ok(Arc::new(InterruptedFile {
            file: opened,
            meanwhile: self.meanwhile.clone(),
        }))
    }
}

impl RandomAccess for InterruptedFile {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.file.read_at(offset, buffer)
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.file.write_at(offset, data)
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        self.file.truncate(len)
    }

    fn sync(&self) -> io::Result<()> {
        let work = mem::take(&mut *lock(&self.meanwhile.0));
        if let Some(work) = work {
            work();
        }
        self.file.sync()
    }
}

/// The old end was taken in again while the files were cut: nobody could open the log any more.
#[test]
fn nothing_longer_is_taken_in_while_a_log_is_cut() {
    block_on(async {
        let storage = Interrupted::default();
        let core = Hypercore::options().open_storage(storage.clone());
        let core = core.await.expect("a core");
        core.append_batch(["a", "b", "c"]).await.expect("an append");
        let proof = core.proof(2).await.expect("an answer").expect("a proof");
        core.shared().lock().log.start_resuming();
        let (result, other) = (Arc::new(Mutex::new(None)), core.clone());
        let put = Arc::clone(&result);
        let work = move || {
            *lock(&put) = Some(block_on(other.put(2, Some("c".into()), &proof)));
        };
        *lock(&storage.meanwhile.0) = Some(Box::new(work));
        core.truncate(1).await.expect("a cut");
        let put = lock(&result).take();
        assert!(matches!(put, Some(Err(Error::Conflict))), "{put:?}");
        core.shared().lock().log.end_resuming();
        core.close().await.expect("an end");
        let core = Hypercore::options().open_storage(storage.memory).await;
        let core = core.expect("a core");
        assert_eq!((core.length(), core.is_writable()), (1, true));
        assert!(core.verify().await.expect("a report").is_ok());
    });
}

/// A block that came while the files were synced for the last time was here, and gone afterwards.
#[test]
fn nothing_is_taken_in_while_a_core_is_closed() {
    block_on(async {
        let writer = OpenOptions::new().open_memory().await.expect("a core");
        writer.append_batch(["a", "b"]).await.expect("an append");
        let storage = Interrupted::default();
        let open = || Hypercore::options().key(writer.key());
        let core = open().open_storage(storage.clone()).await.expect("a core");
        let mut proofs = Vec::new();
        for index in 0..2 {
            let proof = writer.proof(index).await.expect("an answer");
            proofs.push(proof.expect("a proof"));
        }
        core.put(0, Some("a".into()), &proofs[0])
            .await
            .expect("a block");
        let (result, other) = (Arc::new(Mutex::new(None)), core.clone());
        let put = Arc::clone(&result);
        let work = move || {
            *lock(&put) = Some(block_on(other.put(1, Some("b".into()), &proofs[1])));
        };
        *lock(&storage.meanwhile.0) = Some(Box::new(work));
        core.close().await.expect("an end");
        let put = lock(&result).take().expect("a put");
        let core = open().open_storage(storage.memory).await.expect("a core");
        assert_eq!((core.has(0), core.has(1)), (true, put.is_ok()));
        assert!(matches!(put, Err(Error::Closed)), "{put:?}");
    });
}

/// What could not be written is taken back, and nothing else: behind the end of a damaged log may stand
/// what was signed.
#[test]
fn nothing_behind_a_damaged_block_is_cut() {
    block_on(async {
        let storage = FaultStorage::new();
        let open = async |storage: &FaultStorage| {
            let core = Hypercore::options().open_storage(storage.clone()).await;
            core.expect("a core")
        };
        let core = open(&storage).await;
        let (mut bitfield, mut proof) = (Vec::new(), None);
        for length in 1..=12 {
            core.append(vec![length; 4]).await.expect("an append");
            match length {
                8 => bitfield = storage.image().read(FileName::Bitfield),
                10 => proof = core.proof(9).await.expect("an answer"),
                _ => {}
            }
        }
        let image = storage.image();
        image.write(FileName::Bitfield, &bitfield);
        let mut data = image.read(FileName::Data);
        data[9 * 4] ^= 1;
        image.write(FileName::Data, &data);
        let proof = proof.expect("a proof");
        let mut failed = 0;
        for operation in 0..16 {
            let storage = FaultStorage::from_image(&image);
            let core = open(&storage).await;
            assert_eq!((core.length(), core.is_writable()), (8, false));
            let kept = || {
                let read = |file| storage.image().read(file);
                let (tree, signatures) = (read(FileName::Tree), read(FileName::Signatures));
                (tree, signatures, read(FileName::Data).len())
            };
            core.clear(0..1).await.expect("headers");
            let before = kept();
            core.shared().lock().log.start_resuming();
            storage.fail_at(operation, Fault::Full);
            let put = core.put(9, Some(vec![10; 4].into()), &proof).await;
            if let Err(Error::Storage(_)) = put {
                failed += 1;
                assert_eq!(core.length(), 8);
                assert!(kept() == before, "operation {operation}");
            }
        }
        assert!(failed > 3, "{failed}");
    });
}

fn of_one_key() -> OpenOptions {
    OpenOptions::new().key_pair(KeyPair::from_seed(&[7; 32]))
}

/// A log of ten blocks, and one of the same key that has two more.
async fn ten_and_twelve(
    options: OpenOptions,
    storage: impl Storage + 'static,
) -> (Hypercore, Hypercore) {
    let core = options.open_storage(storage).await.expect("a core");
    let other = of_one_key().open_memory().await.expect("a core");
    for byte in 0..12 {
        other.append(vec![byte]).await.expect("an append");
        if byte < 10 {
            core.append(vec![byte]).await.expect("an append");
        }
    }
    (core, other)
}

const BEHIND: AppendLock = AppendLock::Behind {
    ours: 10,
    theirs: 12,
};

/// That more was signed was forgotten with the note that failed.
#[test]
fn a_longer_log_that_cannot_be_noted_locks_appends() {
    block_on(async {
        let storage = FaultStorage::new();
        let (core, other) = ten_and_twelve(of_one_key(), storage.clone()).await;
        let proof = other.proof(11).await.expect("an answer").expect("a proof");
        core.shared().lock().log.start_resuming();
        storage.fail_at(0, Fault::Sync);
        let put = core.put(11, Some(vec![11].into()), &proof).await;
        assert!(matches!(put, Err(Error::Guard { .. })), "{put:?}");
        core.shared().lock().log.end_resuming();
        assert_eq!(core.append_lock(), Some(BEHIND));
        let put = core.put(11, Some(vec![11].into()), &proof).await;
        assert!(
            matches!(put, Err(Error::AppendLocked(lock)) if lock == BEHIND),
            "{put:?}"
        );
        let append = core.append("more").await;
        assert!(matches!(append, Err(Error::AppendLocked(_))), "{append:?}");
    });
}

/// A peer shows a longer log while an append is made durable, and is asked for its end.
#[test]
fn an_append_that_is_taken_back_leaves_nothing() {
    let options = ProofOptions::default().hash(true);
    an_append_is_taken_back((9, options), |core, proof| {
        let witnessed = core.witness(9, &proof);
        witnessed.expect("a longer log");
    });
}

/// The same, by a block that it was asked for: the append made a second history.
#[test]
fn a_block_of_a_longer_log_takes_an_append_back() {
    an_append_is_taken_back((11, ProofOptions::default()), |core, proof| {
        let answer = Answer {
            index: 11,
            block: Some(Block::hash(vec![11].into())),
            proof,
        };
        let (taken, result) = core.put(PeerId::NOBODY, vec![answer]);
        result.expect("a true answer");
        assert!(matches!(taken[..], [Taken::Refused(_)]), "{taken:?}");
    });
}

fn an_append_is_taken_back(
    (block, options): (u64, ProofOptions),
    show: impl FnOnce(&mut Core, Proof) + Send + 'static,
) {
    block_on(async {
        let storage = Interrupted::default();
        let interop = of_one_key().durability(Durability::Interop);
        let (core, other) = ten_and_twelve(interop, storage.clone()).await;
        let proof = other.proof_with(block, options).await.expect("an answer");
        let proof = proof.expect("a proof");
        let shown = core.clone();
        let work = move || show(&mut shown.shared().lock(), proof);
        *lock(&storage.meanwhile.0) = Some(Box::new(work));
        let append = core.append("another eleventh").await;
        assert!(
            matches!(append, Err(Error::AppendLocked(lock)) if lock == BEHIND),
            "{append:?}"
        );
        core.close().await.expect("an end");
        let core = of_one_key().open_storage(storage.memory).await;
        let core = core.expect("a core");
        assert_eq!((core.length(), core.recovery()), (10, None));
    });
}

/// How long the guard is when the name of the bitfield, and with it the lock, goes.
#[derive(Clone, Default)]
struct Destroyed {
    memory: Memory,
    guard: Arc<Mutex<Option<u64>>>,
}

impl Storage for Destroyed {
    fn open(&self, file: FileName) -> io::Result<Arc<dyn RandomAccess>> {
        self.memory.open(file)
    }

    fn remove(&self, file: FileName) -> io::Result<()> {
        if file == FileName::Bitfield {
            *lock(&self.guard) = self.len_of_guard();
        }
        self.memory.remove(file)
    }

    fn beside(&self, name: &str) -> io::Result<Option<Arc<dyn RandomAccess>>> {
        self.memory.beside(name)
    }

    fn remove_beside(&self, name: &str) -> io::Result<()> {
        self.memory.remove_beside(name)
    }

    fn place(&self) -> io::Result<Vec<u8>> {
        Ok(b"a place".to_vec())
    }
}

impl Destroyed {
    fn len_of_guard(&self) -> Option<u64> {
        let file = self.memory.beside("fork-guard").ok()??;
        file.len().ok()
    }
}

/// Whoever waits for the lock makes a log in its place, with a guard.
#[test]
fn a_log_is_destroyed_with_its_guard_before_its_lock() {
    block_on(async {
        let storage = Destroyed::default();
        let core = of_one_key().open_storage(storage.clone()).await;
        let core = core.expect("a core");
        core.append("a").await.expect("an append");
        assert_eq!(storage.len_of_guard(), Some(1024));
        core.destroy().await.expect("an end");
        assert_eq!(*lock(&storage.guard), Some(0));
    });
}
