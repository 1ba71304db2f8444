//! A log of which blocks are damaged that were there before: its writer goes on nowhere.

use hypercore::{
    AppendLock, Corruption, Durability, Error, Hypercore, ReplicateOptions,
    merkle::Proof,
    storage::{FileName, Storage, testing::FaultStorage},
};

use super::writer::open;
use crate::support::{connect, run};

/// A log of 12 blocks, of which the bitfield claims 8 and block 9 is damaged, and the proof of that
/// block in the log of 10.
async fn damaged() -> (FaultStorage, Proof) {
    let storage = FaultStorage::new();
    let core = open(&storage, Durability::Always).await.unwrap();
    let (mut bitfield, mut proof) = (Vec::new(), None);
    for length in 1..=12 {
        core.append(vec![length; 4]).await.unwrap();
        match length {
            8 => bitfield = storage.image().read(FileName::Bitfield),
            10 => proof = core.proof(9).await.unwrap(),
            _ => {}
        }
    }
    let image = storage.image();
    image.write(FileName::Bitfield, &bitfield);
    let mut data = image.read(FileName::Data);
    data[9 * 4] ^= 1;
    image.write(FileName::Data, &data);
    // As where Node has written it.
    for guard in ["fork-guard", &core.discovery_key().to_string()] {
        image.remove_beside(guard).unwrap();
    }
    (FaultStorage::from_image(&image), proof.unwrap())
}

async fn open_damaged(storage: &FaultStorage) -> Hypercore {
    let core = open(storage, Durability::Always).await.unwrap();
    let damage = core.recovery().unwrap().damage;
    assert_eq!(damage, Some(Corruption::Block { index: 9 }));
    assert_eq!((core.length(), core.is_writable()), (8, false));
    core
}

#[test]
fn a_damaged_writer_takes_in_nothing_longer() {
    run(async {
        let (storage, proof) = damaged().await;
        let before = FileName::ALL.map(|file| storage.image().read(file));
        let core = open_damaged(&storage).await;
        let behind = AppendLock::Behind {
            ours: 8,
            theirs: 10,
        };
        let put = core.put(9, Some(vec![10; 4].into()), &proof).await;
        assert!(
            matches!(put, Err(Error::AppendLocked(lock)) if lock == behind),
            "{put:?}"
        );
        assert_eq!((core.length(), core.is_writable()), (8, false));
        let error = core.append("more").await.unwrap_err();
        assert!(error.is_corruption(), "{error}");
        core.close().await.unwrap();
        let files = FileName::ALL.into_iter();
        for (file, before) in files.zip(before) {
            // Headers and room are nothing new.
            assert!(storage.image().read(file).starts_with(&before), "{file}");
        }
    });
}

/// What peers have is taken in when that is asked for, and may be less than what was signed here.
#[test]
fn a_damaged_writer_that_resumes_is_opened_again_before_it_appends() {
    run(async {
        let (storage, _) = damaged().await;
        let core = open_damaged(&storage).await;
        let peer = open(&FaultStorage::new(), Durability::Always)
            .await
            .unwrap();
        for length in 1..=10 {
            peer.append(vec![length; 4]).await.unwrap();
        }
        let mut options = ReplicateOptions::live();
        options.download = Some(true);
        let connection = connect(&core, options, &peer, ReplicateOptions::live()).await;
        assert_eq!(core.resume().await.unwrap(), 10);
        connection.cancel().await;
        assert!(!core.is_writable());
        assert!(core.append("more").await.unwrap_err().is_corruption());
        core.close().await.unwrap();
        let core = open(&storage, Durability::Always).await.unwrap();
        assert_eq!((core.length(), core.is_writable()), (12, true));
    });
}
