//! Logs whose secret key is elsewhere.

use std::{
    error::Error as StdError,
    io,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
        mpsc::{self, Receiver, Sender},
    },
    time::Duration,
};

use futures_lite::{AsyncWriteExt, future};
use hypercore::{
    CloseReason, Corruption, Durability, Error, Hypercore, KeyPair, OpenOptions, PublicKey, Signer,
    merkle::{self, Signature, TreeHead},
    storage::{FileName, Memory, testing::FaultStorage},
};

use crate::support::{clone_of, connect_live, run, soon};

fn pair() -> KeyPair {
    KeyPair::from_seed(&[3; 32])
}

/// What a signer does when it is asked for the n-th time, from 0 on.
struct Scripted<F> {
    asked: Arc<AtomicUsize>,
    answer: F,
}

type Answer = Result<Signature, Box<dyn StdError + Send + Sync>>;

impl<F: Fn(usize, &TreeHead) -> Answer + Send + Sync> Signer for Scripted<F> {
    fn public_key(&self) -> PublicKey {
        pair().public_key()
    }

    fn sign(&self, head: &TreeHead) -> Answer {
        (self.answer)(self.asked.fetch_add(1, Ordering::Relaxed), head)
    }
}

fn scripted(
    answer: impl Fn(usize, &TreeHead) -> Answer + Send + Sync + 'static,
) -> (OpenOptions, Arc<AtomicUsize>) {
    let asked = Arc::<AtomicUsize>::default();
    let signer = Scripted {
        asked: Arc::clone(&asked),
        answer,
    };
    (OpenOptions::new().signer(signer), asked)
}

#[test]
fn a_signer_elsewhere_writes_what_its_key_pair_would() {
    let write = async |core: Hypercore| {
        core.append("a").await.unwrap();
        core.append_batch(["b", "c", "d"]).await.unwrap();
        core.truncate(3).await.unwrap();
        core.close().await.unwrap();
    };
    run(async {
        let (here, elsewhere) = (Memory::new(), Memory::new());
        let options = OpenOptions::new().key_pair(pair());
        write(options.open_storage(here.clone()).await.unwrap()).await;
        let (options, asked) = scripted(|_, head| Ok(pair().sign(head)));
        write(options.open_storage(elsewhere.clone()).await.unwrap()).await;

        // Two appends, and the end of the log that was cut inside a batch.
        assert_eq!(asked.load(Ordering::Relaxed), 3);
        for file in FileName::ALL {
            if file != FileName::SecretKey {
                assert_eq!(here.read(file), elsewhere.read(file), "{file}");
            }
        }
        assert!(elsewhere.read(FileName::SecretKey).is_empty());
        let reader = Hypercore::options()
            .open_storage(elsewhere.clone())
            .await
            .unwrap();
        assert!(!reader.is_writable());
        reader.close().await.unwrap();
        let (options, _) = scripted(|_, head| Ok(pair().sign(head)));
        let core = options.open_storage(elsewhere).await.unwrap();
        assert_eq!(core.append("again").await.unwrap(), 3);
    });
}

#[test]
fn a_signer_is_asked_although_a_secret_key_is_stored() {
    run(async {
        let memory = Memory::new();
        let options = OpenOptions::new().key_pair(pair());
        let core = options.open_storage(memory.clone()).await.unwrap();
        core.close().await.unwrap();
        let (options, asked) = scripted(|_, head| Ok(pair().sign(head)));
        let core = options.open_storage(memory).await.unwrap();
        core.append("a").await.unwrap();
        assert_eq!(asked.load(Ordering::Relaxed), 1);
    });
}

#[test]
fn an_append_that_is_not_signed_changes_nothing() {
    run(async {
        let memory = Memory::new();
        let (options, _) = scripted(|turn, head| match turn {
            1 => Err("locked screen".into()),
            _ => Ok(pair().sign(head)),
        });
        let core = options.open_storage(memory.clone()).await.unwrap();
        core.append("first").await.unwrap();
        let before = FileName::ALL.map(|file| memory.read(file));

        let error = core.append_batch(["never", "signed"]).await.unwrap_err();
        assert!(matches!(error, Error::Signer(_)), "{error}");
        assert!(error.to_string().contains("locked screen"), "{error}");
        assert!(!error.is_peer_fault() && !error.is_corruption());
        assert_eq!(core.length(), 1);
        assert_eq!(FileName::ALL.map(|file| memory.read(file)), before);

        assert_eq!(core.append("second").await.unwrap(), 1);
        core.close().await.unwrap();
        let core = Hypercore::options().open_storage(memory).await.unwrap();
        assert_eq!((core.length(), core.recovery()), (2, None));
        assert_eq!(core.get(0).await.unwrap(), "first");
        assert_eq!(core.get(1).await.unwrap(), "second");
    });
}

/// In memory a signature is not checked when it is made.
#[test]
fn a_wrong_signature_in_memory_is_not_shown() {
    run(async {
        let memory = Memory::new();
        let options = OpenOptions::new().key_pair(pair());
        let core = options.open_storage(memory.clone()).await.unwrap();
        core.append("first").await.unwrap();
        let clone = clone_of(&core, true).await;

        let damage = |block: usize| {
            let mut signatures = memory.read(FileName::Signatures);
            signatures[32 + 64 * block] ^= 1;
            memory.write(FileName::Signatures, &signatures);
        };
        damage(0);
        let is_wrong =
            |error: &Error| matches!(error, Error::Corrupt(Corruption::Signature { length: 1 }));
        let signature = core.signature(0).await.unwrap_err();
        assert!(is_wrong(&signature), "{signature}");
        let proof = core.proof(0).await.unwrap_err();
        assert!(is_wrong(&proof), "{proof}");
        let flushed = core.flush().await.unwrap_err();
        assert!(is_wrong(&flushed), "{flushed}");

        let _connection = connect_live(&clone, &core).await;
        let first = clone.get(0);
        assert_eq!(core.append("second").await.unwrap(), 1);
        assert_eq!(soon("a block", first).await.unwrap(), "first");
        assert_eq!(soon("a block", clone.get(1)).await.unwrap(), "second");
        core.flush().await.unwrap();
        assert!(core.signature(1).await.unwrap().is_some());

        // A signature that was shown is not that of what was appended in the place of its block.
        core.truncate(0).await.unwrap();
        core.append_batch(["other", "blocks"]).await.unwrap();
        damage(1);
        core.signature(1).await.unwrap_err();
    });
}

#[test]
fn a_signature_of_another_key_is_not_written() {
    run(async {
        let memory = Memory::new();
        let (options, _) = scripted(|turn, head| match turn {
            1 | 3 => Ok(KeyPair::from_seed(&[4; 32]).sign(head)),
            _ => Ok(pair().sign(head)),
        });
        let core = options.open_storage(memory.clone()).await.unwrap();
        core.append("a").await.unwrap();
        // No peer had a part in it.
        let is_faulty = |error: Error| {
            !error.is_peer_fault()
                && error.close_reason() == CloseReason::Internal
                && matches!(error, Error::Merkle(merkle::Error::FaultySignature { .. }))
        };
        assert!(is_faulty(core.append("b").await.unwrap_err()));
        assert_eq!(core.append_batch(["b", "c"]).await.unwrap(), 1..3);
        // The new end is inside a batch, and so needs a signature.
        assert!(is_faulty(core.truncate(2).await.unwrap_err()));
        assert_eq!(core.length(), 3);
        core.close().await.unwrap();
        let core = Hypercore::options().open_storage(memory).await.unwrap();
        assert_eq!((core.length(), core.recovery()), (3, None));
        assert!(core.verify().await.unwrap().problems.is_empty());
    });
}

/// A signer that waits until it is let go.
fn gate() -> (Sender<()>, Mutex<Receiver<()>>) {
    let (open, gate) = mpsc::channel();
    (open, Mutex::new(gate))
}

#[test]
fn a_slow_signer_holds_up_no_reader() {
    for durability in [Durability::Always, Durability::OnClose] {
        run(async {
            let (open, gate) = gate();
            let (options, asked) = scripted(move |turn, head| {
                if turn > 0 {
                    // Whoever waits for the signer here would never open the gate.
                    let opened = gate.lock().unwrap().recv_timeout(Duration::from_secs(10));
                    opened.expect("somebody goes on while it is signed");
                }
                Ok(pair().sign(head))
            });
            let options = options.durability(durability);
            let core = options.open_memory().await.unwrap();
            core.append("read me").await.unwrap();

            let mut slow = Box::pin(core.append("slow"));
            while asked.load(Ordering::Relaxed) < 2 {
                let early = future::poll_once(&mut slow).await;
                assert!(early.is_none(), "it is not signed: {early:?}");
                future::yield_now().await;
            }
            // The signer is at work now, and the log can be read, and more can be asked for.
            assert_eq!(core.get(0).await.unwrap(), "read me");
            let mut waits = [core.append("b"), core.append("c")].map(Box::pin);
            for append in &mut waits {
                assert!(future::poll_once(append).await.is_none());
            }
            assert_eq!(core.length(), 1);

            open.send(()).unwrap();
            assert_eq!(slow.await.unwrap(), 1);
            open.send(()).unwrap();
            let [b, c] = waits;
            let (b, c) = future::zip(b, c).await;
            assert_eq!((b.unwrap(), c.unwrap()), (2, 3));
            // Both waited for the same turn.
            assert_eq!(asked.load(Ordering::Relaxed), 3);
        });
    }
}

/// Every later append was refused, as if the log had been changed meanwhile.
#[test]
fn a_signer_that_panics_once_signs_again() {
    run(async {
        let (options, _) = scripted(|asked, head| {
            assert!(asked != 1, "the cable is out");
            Ok(pair().sign(head))
        });
        let core = options.open_memory().await.unwrap();
        assert_eq!(core.append("a").await.unwrap(), 0);
        assert!(core.append("b").await.is_err());
        assert_eq!(core.append("c").await.unwrap(), 1);
    });
}

/// Alone it failed with what the signer said, and in a group with something else.
#[test]
fn an_append_says_why_it_failed_also_among_others() {
    run(async {
        let (open, gate) = gate();
        let (options, asked) = scripted(move |turn, head| {
            if turn == 0 {
                gate.lock().unwrap().recv().unwrap();
                return Ok(pair().sign(head));
            }
            Err("the cable is out".into())
        });
        let core = options.open_memory().await.unwrap();
        let mut slow = Box::pin(core.append("slow"));
        while asked.load(Ordering::Relaxed) == 0 {
            assert!(future::poll_once(&mut slow).await.is_none());
            future::yield_now().await;
        }
        let mut waits = [core.append("b"), core.append("c")].map(Box::pin);
        for append in &mut waits {
            assert!(future::poll_once(append).await.is_none());
        }
        open.send(()).unwrap();
        slow.await.unwrap();
        for append in waits {
            let error = append.await.unwrap_err();
            assert!(matches!(error, Error::Append(_)), "{error:?}");
            assert!(matches!(error.cause(), Error::Signer(_)), "{error:?}");
        }
    });
}

/// What was written after it went into the log behind the gap.
#[test]
fn a_write_stream_ends_with_the_first_append_that_fails() {
    run(async {
        let (options, _) = scripted(|turn, head| match turn {
            0 => Err("the cable is out".into()),
            _ => Ok(pair().sign(head)),
        });
        let core = options.open_memory().await.unwrap();
        let mut writer = core.write_stream(4);
        // The append may fail while its block is still being written.
        let failed = match writer.write_all(b"hell").await {
            Ok(()) => writer.flush().await,
            failed => failed,
        };
        failed.unwrap_err();
        let error = writer.write_all(b" world").await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
        writer.close().await.unwrap_err();
        assert_eq!(core.length(), 0);
    });
}

/// The block would be signed a second time.
#[test]
fn a_repair_takes_no_block_of_a_writer_without_its_signer() {
    run(async {
        let storage = FaultStorage::new();
        let (options, _) = scripted(|_, head| Ok(pair().sign(head)));
        let core = options.open_storage(storage.clone()).await.unwrap();
        for block in 0..10 {
            core.append(vec![block]).await.unwrap();
        }
        core.close().await.unwrap();
        let image = storage.image();
        let mut signatures = image.read(FileName::Signatures);
        *signatures.last_mut().unwrap() ^= 1;
        image.write(FileName::Signatures, &signatures);
        let before = FileName::ALL.map(|file| image.read(file));
        let repair = Hypercore::repair_storage(image.clone()).await;
        let is_refused = matches!(
            repair,
            Err(Error::Corrupt(Corruption::Signature { length: 10 }))
        );
        assert!(is_refused, "{repair:?}");
        assert!(before == FileName::ALL.map(|file| image.read(file)));
    });
}
