use std::{
    fmt, io, mem,
    sync::{Arc, Mutex},
};

use futures_lite::future::block_on;
use hypercore_storage::{FileName, Memory, RandomAccess, Storage};

use super::lock;
use crate::{Error, Hypercore};

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
