//! Finding a log in its files, or making a new one.

use std::{path::PathBuf, sync::Arc};

use hypercore_bitfield::{Bitfield, PageSize};
use hypercore_merkle::{KeyPair, PublicKey, Verifier};
use hypercore_storage::{FeedFiles, Storage};

use super::{Log, Unsynced, guard::Guard, recover};
use crate::error::{Corruption, Error, Result};

/// What to do about a core that is, or is not, stored already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Existing {
    /// Open what is there; nothing there is an error.
    Required,
    /// Open what is there, or create.
    Optional,
    /// Create; something there is an error.
    Refused,
    /// Open what is there, or create; another core there is forgotten.
    Replaced,
    /// Forget what is there, and create.
    Forgotten,
}

/// What opening a core needs to know.
#[derive(Debug)]
pub(crate) struct Setup {
    pub(crate) existing: Existing,
    pub(crate) key: Option<PublicKey>,
    pub(crate) key_pair: Option<KeyPair>,
    pub(crate) store_secret_key: bool,
    /// Whether appends that were acknowledged may be gone after a loss of power.
    pub(crate) may_lose: bool,
    /// Where to note how much was signed, besides the log itself.
    pub(crate) state_directory: Option<PathBuf>,
}

impl Setup {
    /// The key asked for, if one was.
    fn requested(&self) -> Option<PublicKey> {
        let of_pair = || self.key_pair.as_ref().map(KeyPair::public_key);
        self.key.or_else(of_pair)
    }
}

impl Log {
    /// Opens or creates the log in `storage`. Nothing is written unless it is created, or was not
    /// closed.
    pub(crate) fn open(storage: Arc<dyn Storage>, setup: Setup) -> Result<Self> {
        let files = FeedFiles::open(storage)?;
        let may_lose = setup.may_lose;
        let state_directory = setup.state_directory.clone();
        let Opened {
            key,
            key_pair,
            is_new,
        } = open_keys(&files, setup)?;
        let verifier = Verifier::new(&key);
        let content = recover::load(&files, &verifier, key_pair.is_some(), may_lose)?;
        let discovery_key = key.discovery_key();
        let storage = &**files.storage();
        // A secret key that is not stored here cannot have been copied from here.
        let guard = match &key_pair {
            Some(_) => Guard::open(storage, state_directory.as_deref(), &discovery_key),
            None => Ok(None),
        };
        let mut log = Self {
            files: Some(Arc::new(files)),
            key,
            discovery_key,
            guard: guard.map_err(Error::Guard)?,
            lock: None,
            resuming: false,
            fork: None,
            key_pair: key_pair.map(Arc::new),
            verifier: Arc::new(verifier),
            vouched: content.vouched,
            bitfield: content.bitfield,
            checked: Bitfield::new(PageSize::Current),
            head: content.roots.head(),
            roots: content.roots,
            recovery: content.recovery,
            appending: false,
            poisoned: false,
            headers_written: false,
            marked: false,
            unsynced: Unsynced::default(),
            withheld: None,
        };
        if is_new {
            let head = log.head;
            log.note(&head);
        }
        log.judge();
        Ok(log)
    }
}

/// Keys that were found or made.
struct Opened {
    key: PublicKey,
    key_pair: Option<KeyPair>,
    is_new: bool,
}

fn open_keys(files: &FeedFiles, setup: Setup) -> Result<Opened> {
    if setup.existing == Existing::Forgotten {
        files.reset()?;
    }
    let mut stored = stored_key(files)?;
    let is_other = |stored: PublicKey| {
        setup
            .requested()
            .is_some_and(|requested| requested != stored)
    };
    if setup.existing == Existing::Replaced && stored.is_some_and(is_other) {
        files.reset()?;
        stored = None;
    }
    let Some(stored) = stored else {
        return if setup.existing == Existing::Required {
            Err(Error::NoCore)
        } else {
            create(files, setup)
        };
    };
    if setup.existing == Existing::Refused {
        return Err(Error::CoreExists(stored));
    }
    if let Some(requested) = setup.requested().filter(|&requested| requested != stored) {
        return Err(Error::OtherCore { stored, requested });
    }
    Ok(Opened {
        key: stored,
        key_pair: open_key_pair(files, stored, setup)?,
        is_new: false,
    })
}

/// The key of the log that is stored, if one is.
fn stored_key(files: &FeedFiles) -> Result<Option<PublicKey>> {
    if let Some(key) = files.key()? {
        return Ok(Some(PublicKey::from(key)));
    }
    let Some(secret) = files.secret_key()? else {
        return if files.is_empty()? {
            Ok(None)
        } else {
            Err(Corruption::KeyMissing.into())
        };
    };
    // A creation writes the secret key first: cut short right after it, the public half is in it.
    let key_pair = KeyPair::from_bytes(&secret).map_err(|_| Corruption::SecretKey)?;
    let key = key_pair.public_key();
    files.write_key(key.as_bytes())?;
    files.sync_keys()?;
    write_headers(files)?;
    Ok(Some(key))
}

/// The key pair for a log that is stored: the stored one wins over a given one.
fn open_key_pair(files: &FeedFiles, key: PublicKey, setup: Setup) -> Result<Option<KeyPair>> {
    let Some(secret) = files.secret_key()? else {
        if let (Some(pair), true) = (&setup.key_pair, setup.store_secret_key) {
            files.write_secret_key(&pair.to_bytes())?;
            files.sync_keys()?;
        }
        return Ok(setup.key_pair);
    };
    // Signing with one half of another pair could reveal the secret: refuse instead.
    match KeyPair::from_bytes(&secret) {
        Ok(pair) if pair.public_key() == key => Ok(Some(pair)),
        _ => Err(Error::Corrupt(Corruption::SecretKey)),
    }
}

/// Stores the keys of a new log: the secret one first, so that a creation cut short can be
/// completed or started again, never mistaken for a read-only log.
fn create(files: &FeedFiles, setup: Setup) -> Result<Opened> {
    let key_pair = match (setup.key_pair, setup.key) {
        (Some(pair), Some(requested)) if pair.public_key() != requested => {
            return Err(Error::OtherCore {
                stored: pair.public_key(),
                requested,
            });
        }
        (Some(pair), _) => Some(pair),
        (None, Some(_)) => None,
        (None, None) => Some(KeyPair::generate()?),
    };
    let key = match (&key_pair, setup.key) {
        (Some(pair), _) => pair.public_key(),
        (None, Some(key)) => key,
        (None, None) => return Err(Error::NoCore),
    };
    if let (Some(pair), true) = (&key_pair, setup.store_secret_key) {
        files.write_secret_key(&pair.to_bytes())?;
    }
    files.write_key(key.as_bytes())?;
    files.sync_keys()?;
    write_headers(files)?;
    Ok(Opened {
        key,
        key_pair,
        is_new: true,
    })
}

/// Writes the headers that are missing, durably: a file that has content must have its header.
pub(super) fn write_headers(files: &FeedFiles) -> Result<()> {
    files.write_headers()?;
    files.sync_content()?;
    Ok(files.sync_bitfield()?)
}
