//! What opening says of damaged files, and what of them it does not believe.

use std::{fs, path::Path};

use futures_lite::future::block_on;
use hypercore::{
    Corruption, Durability, Error, Hypercore, KeyPair,
    storage::{self, Directory, FileName},
};

use super::{cut, flip, log, opened_after, verify};
use crate::support::run;

/// What opening a log with this damage says.
fn refused(damage: impl FnOnce(&Path)) -> Error {
    let (_directory, opened) = opened_after(damage);
    let error = opened.expect_err("damage is seen");
    assert!(error.is_corruption(), "{error}");
    error
}

#[test]
fn damaged_keys_are_refused() {
    // Either half of the secret key, or the key: they do not belong together any more.
    for (file, byte) in [("secret_key", 0), ("secret_key", 40), ("key", 0)] {
        let error = refused(|directory| flip(&directory.join(file), byte));
        assert!(
            matches!(error, Error::Corrupt(Corruption::SecretKey)),
            "{file}: {error}"
        );
    }
    let other = KeyPair::from_seed(&[3; 32]);
    let error = refused(|directory| {
        fs::write(directory.join("secret_key"), &other.to_bytes()[..]).unwrap();
    });
    assert!(
        matches!(error, Error::Corrupt(Corruption::SecretKey)),
        "{error}"
    );

    for (name, named) in [("key", FileName::Key), ("secret_key", FileName::SecretKey)] {
        let error = refused(|directory| cut(&directory.join(name), 1));
        let short =
            matches!(error, Error::Storage(storage::Error::Corrupt { file, .. }) if file == named);
        assert!(short, "{name}: {error}");
    }

    // A reader finds a damaged key by the signature.
    let error = refused(|directory| {
        fs::remove_file(directory.join("secret_key")).unwrap();
        flip(&directory.join("key"), 0);
    });
    let signature = matches!(error, Error::Corrupt(Corruption::Signature { length: 10 }));
    assert!(signature, "{error}");
}

#[test]
fn a_missing_key_is_never_replaced() {
    let error = refused(|directory| {
        fs::remove_file(directory.join("key")).unwrap();
        fs::remove_file(directory.join("secret_key")).unwrap();
    });
    assert!(
        matches!(error, Error::Corrupt(Corruption::KeyMissing)),
        "{error}"
    );

    // The secret key holds it, too.
    let (_directory, core) = opened_after(|directory| {
        fs::remove_file(directory.join("key")).unwrap();
    });
    run(async {
        let core = core.unwrap();
        assert_eq!(core.append("more").await.unwrap(), 10);
    });
}

#[test]
fn a_damaged_signature_is_refused() {
    let error = refused(|directory| flip(&directory.join("signatures"), 32 + 64 * 9));
    let signature = matches!(error, Error::Corrupt(Corruption::Signature { length: 10 }));
    assert!(signature, "{error}");
}

/// Node goes on without signatures from here.
#[test]
fn without_its_signature_a_log_is_read_only() {
    let (_directory, core) = opened_after(|directory| cut(&directory.join("signatures"), 64));
    run(async {
        let core = core.unwrap();
        assert!(!core.is_writable());
        assert_eq!(core.get(9).await.unwrap(), "block 9");
        let error = core.append("no").await.unwrap_err();
        let signature = matches!(error, Error::Corrupt(Corruption::Signature { length: 10 }));
        assert!(signature, "{error}");
    });
}

#[test]
fn a_damaged_root_is_refused() {
    // The roots of ten blocks are 7 and 17.
    for node in [7, 17] {
        let error = refused(|directory| flip(&directory.join("tree"), 32 + 40 * node));
        assert!(
            matches!(error, Error::Corrupt(Corruption::Signature { .. })),
            "{error}"
        );
    }
}

/// What a page claims beyond the end of the log must not come true when the log has grown there, nor
/// be on the disk for Node when an append is acknowledged.
#[test]
fn bits_beyond_the_end_are_not_believed_later() {
    for durability in [Durability::Always, Durability::Interop] {
        let (storage, _) = log(3);
        let mut page = storage.read(FileName::Bitfield);
        // The header, then a KiB for blocks, then two for nodes; the first bit is the highest.
        page[32] |= 0b0000_0100;
        page[32 + 2289 / 8] |= 0x80;
        page[32 + 1024 + 1] |= 0b0100_0000;
        storage.write(FileName::Bitfield, &page);
        let open = || {
            let options = Hypercore::options().durability(durability);
            options.open_storage(storage.clone())
        };
        block_on(async {
            for length in 4..8 {
                let core = open().await.unwrap();
                assert_eq!(core.append("more").await.unwrap(), length - 1);
                let page = storage.read(FileName::Bitfield).split_off(32);
                let (blocks, nodes) = page.split_at(1024);
                assert_eq!(highest_bit(blocks), Some(length - 1), "{durability:?}");
                assert!(
                    highest_bit(&nodes[..2048]) < Some(2 * length - 1),
                    "{durability:?}"
                );
                core.close().await.unwrap();
            }
            let core = open().await.unwrap();
            assert_eq!((core.length(), core.downloaded(0..u64::MAX)), (7, 7));
            assert!(core.audit().await.unwrap().invalid.is_empty());
        });
    }
}

/// The last bit that is set.
fn highest_bit(bytes: &[u8]) -> Option<u64> {
    let last = bytes.iter().rposition(|&byte| byte != 0)?;
    Some(8 * last as u64 + 7 - u64::from(bytes[last].trailing_zeros()))
}

/// The bitfield grows before anything is written that the new page will claim. When the power goes
/// right then, the page shows whatever the disk had there.
#[test]
fn a_page_that_has_only_grown_claims_nothing() {
    for (count, seed) in [(0, 1), (0, 2), (3, 3), (8192, 4), (8192, 5)] {
        let (storage, _) = log(count);
        let mut bitfield = storage.read(FileName::Bitfield);
        let pages = (bitfield.len() - 32) / 3584;
        assert_eq!(pages as u64, count.div_ceil(8192));
        let mut noise: u64 = seed;
        bitfield.extend((0..3584).map(|_| {
            noise = noise
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (noise >> 33) as u8
        }));
        storage.write(FileName::Bitfield, &bitfield);
        block_on(async {
            for length in count..count + 2 {
                let options = Hypercore::options().create_if_missing(false);
                let core = options.open_storage(storage.clone()).await.unwrap();
                assert_eq!(core.length(), length);
                assert_eq!(core.downloaded(..), length);
                assert_eq!(core.append("more").await.unwrap(), length);
                core.close().await.unwrap();
            }
        });
        assert_eq!(verify(&storage).problems, [], "{count} blocks");
    }
}

/// A log without bits and without a tree was taken for one whose first append had not been finished: what
/// was left of it was cut off, and `verify` was content.
#[test]
fn a_log_that_lost_two_files_is_not_an_empty_one() {
    let files = [
        FileName::Bitfield,
        FileName::Tree,
        FileName::Data,
        FileName::Signatures,
    ];
    for (first, second, kept) in (0..4).flat_map(|first| {
        (first + 1..4).flat_map(move |second| [0, 100, 500].map(|kept| (first, second, kept)))
    }) {
        let lost = [files[first], files[second]];
        let case = format!("{lost:?} but for {kept} bytes");
        run(async {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path();
            let core = Hypercore::open(path).await.unwrap();
            for index in 0..30 {
                core.append(format!("block {index}")).await.unwrap();
            }
            core.close().await.unwrap();
            for (file, kept) in lost.into_iter().zip([0, kept]) {
                let file = fs::OpenOptions::new()
                    .write(true)
                    .open(path.join(file.as_str()));
                let file = file.unwrap();
                file.set_len(file.metadata().unwrap().len().min(kept))
                    .unwrap();
            }
            let contents = || files.map(|file| fs::read(path.join(file.as_str())).unwrap());
            let before = contents();
            let verified = Hypercore::verify_storage(Directory::new(path)).await;
            assert!(verified.is_ok_and(|report| !report.is_ok()), "{case}");
            assert!(contents() == before, "{case}");
            if let Ok(core) = Hypercore::open(path).await {
                core.close().await.unwrap();
            }
            let after = contents();
            for (file, (before, after)) in files.into_iter().zip(before.iter().zip(&after)) {
                assert!(
                    file == FileName::Bitfield || before == after,
                    "{case}: {file} has changed"
                );
            }
        });
    }
}
