//! Opening a core: what is made, what is found, and what is refused.

use std::fs;

use hypercore::{Error, Hypercore, KeyPair, OpenOptions, storage::Memory};

use crate::support::{run, writer};

#[test]
fn nothing_to_open() {
    let directory = tempfile::tempdir().unwrap();
    run(async {
        let options = OpenOptions::new().create_if_missing(false);
        let error = options.open(directory.path()).await.unwrap_err();
        assert!(matches!(error, Error::NoCore), "{error}");
    });
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
}

#[test]
fn create_new_refuses_what_exists() {
    run(async {
        let memory = Memory::new();
        let options = || OpenOptions::new().create_new();
        let core = options().open_storage(memory.clone()).await.unwrap();
        let key = core.key();
        core.close().await.unwrap();
        let error = options().open_storage(memory).await.unwrap_err();
        assert!(
            matches!(error, Error::CoreExists(stored) if stored == key),
            "{error}"
        );
    });
}

/// The last of them counted, so that a log was erased that was to be refused, or found that was to be
/// forgotten.
#[test]
fn the_order_of_the_options_does_not_matter() {
    run(async {
        let memory = Memory::new();
        let open = |options: OpenOptions| options.open_storage(memory.clone());
        let core = open(OpenOptions::new()).await.unwrap();
        let mut key = core.key();
        core.close().await.unwrap();
        for options in [
            OpenOptions::new().create_new().overwrite(),
            OpenOptions::new().overwrite().create_new(),
            OpenOptions::new().create_new().overwrite_other(),
            OpenOptions::new().overwrite_other().create_new(),
            OpenOptions::new().create_new().create_if_missing(true),
            OpenOptions::new().create_if_missing(false).create_new(),
        ] {
            let refused = open(options).await;
            assert!(
                matches!(refused, Err(Error::CoreExists(stored)) if stored == key),
                "{refused:?}"
            );
        }
        for options in [
            OpenOptions::new().overwrite().create_if_missing(true),
            OpenOptions::new().overwrite().create_if_missing(false),
            OpenOptions::new().create_if_missing(false).overwrite(),
        ] {
            let core = open(options).await.unwrap();
            assert_ne!(core.key(), key);
            key = core.key();
            core.close().await.unwrap();
        }
        let other = KeyPair::from_seed(&[1; 32]).public_key();
        let options = OpenOptions::new().key(other).overwrite_other();
        let core = open(options.create_if_missing(true)).await.unwrap();
        assert_eq!(core.key(), other);
    });
}

#[test]
fn options_can_be_used_again() {
    run(async {
        let options = OpenOptions::new()
            .key_pair(KeyPair::from_seed(&[1; 32]))
            .on_write(|_, block, _| match &block[..] {
                b"no" => Err("no".into()),
                _ => Ok(()),
            });
        for _ in 0..2 {
            let core = options.clone().open_memory().await.unwrap();
            assert_eq!(core.key(), KeyPair::from_seed(&[1; 32]).public_key());
            core.append("yes").await.unwrap();
            assert!(matches!(core.append("no").await, Err(Error::Refused(_))));
        }
    });
}

#[test]
fn another_key_is_refused() {
    run(async {
        let memory = Memory::new();
        let core = Hypercore::options()
            .open_storage(memory.clone())
            .await
            .unwrap();
        let key = core.key();
        core.close().await.unwrap();
        let other = KeyPair::from_seed(&[1; 32]).public_key();
        for options in [
            OpenOptions::new().key(other),
            OpenOptions::new().key_pair(KeyPair::from_seed(&[1; 32])),
        ] {
            let error = options.open_storage(memory.clone()).await.unwrap_err();
            assert!(
                matches!(error, Error::OtherCore { stored, requested } if stored == key && requested == other),
                "{error}"
            );
        }
        let same = OpenOptions::new()
            .key(key)
            .open_storage(memory)
            .await
            .unwrap();
        assert!(same.is_writable());

        let mismatched = OpenOptions::new()
            .key(key)
            .key_pair(KeyPair::from_seed(&[1; 32]));
        let error = mismatched.open_memory().await.unwrap_err();
        assert!(matches!(error, Error::KeyMismatch { .. }), "{error}");
    });
}

/// Node's "pass in secret key", "check existing key" and "create from existing keys".
#[test]
fn a_given_key_pair_is_stored_or_not() {
    run(async {
        let pair = || KeyPair::from_seed(&[2; 32]);
        let memory = Memory::new();
        let options = OpenOptions::new().key_pair(pair()).store_secret_key(false);
        let core = options.open_storage(memory.clone()).await.unwrap();
        assert_eq!(core.key(), pair().public_key());
        core.append("a").await.unwrap();
        core.close().await.unwrap();

        let reader = OpenOptions::new()
            .open_storage(memory.clone())
            .await
            .unwrap();
        assert!(!reader.is_writable());
        reader.close().await.unwrap();

        let options = OpenOptions::new().key_pair(pair());
        let core = options.open_storage(memory.clone()).await.unwrap();
        assert_eq!(core.append("b").await.unwrap(), 1);
        core.close().await.unwrap();

        let core = OpenOptions::new().open_storage(memory).await.unwrap();
        assert!(
            core.is_writable(),
            "the secret key was stored the second time"
        );
    });
}

#[test]
fn one_handle_at_a_time_has_the_files() {
    let directory = tempfile::tempdir().unwrap();
    run(async {
        let core = Hypercore::open(directory.path()).await.unwrap();
        let error = Hypercore::open(directory.path()).await.unwrap_err();
        assert!(error.is_locked(), "{error}");
        core.close().await.unwrap();
        let core = Hypercore::open(directory.path()).await.unwrap();
        drop(core);
        Hypercore::open(directory.path()).await.unwrap();
    });
}

#[test]
fn handles_share_a_core() {
    run(async {
        let core = writer(2).await;
        let other = core.clone();
        other.append("block 2").await.unwrap();
        assert_eq!(core.length(), 3);
        assert_eq!(core.get(2).await.unwrap(), "block 2");
        drop(core);
        assert_eq!(other.append("block 3").await.unwrap(), 3);
        let core = other.clone();
        core.close().await.unwrap();
        assert!(matches!(other.get(0).await, Err(Error::Closed)));
    });
}
