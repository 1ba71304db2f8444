//! Finding a log in its files, or making a new one.

use std::{path::PathBuf, sync::Arc};

use hypercore_bitfield::{Bitfield, PageSize};
use hypercore_merkle::{KeyPair, PublicKey, Roots, Verifier};
use hypercore_storage::{FeedFiles, FileName, Storage};

use super::{Log, Unsynced, guard::Guard, recover};
use crate::{
    error::{Corruption, Error, Result},
    signer::Author,
};

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
    pub(crate) author: Option<Author>,
    pub(crate) store_secret_key: bool,
    /// Whether appends that were acknowledged may be gone after a loss of power.
    pub(crate) may_lose: bool,
    /// Whether somebody else writes `data`.
    pub(crate) indexing: bool,
    /// Where to note how much was signed, besides the log itself.
    pub(crate) state_directory: Option<PathBuf>,
}

impl Setup {
    /// The key asked for, if one was.
    fn requested(&self) -> Option<PublicKey> {
        let of_author = || self.author.as_ref().and_then(Author::public_key);
        self.key.or_else(of_author)
    }
}

impl Log {
    /// Opens or creates the log in `storage`. Nothing is written unless it is created, or was not
    /// closed.
    pub(crate) fn open(storage: Arc<dyn Storage>, setup: Setup) -> Result<Self> {
        let mut files = FeedFiles::open(storage)?;
        if setup.indexing {
            files = files.with_foreign_data();
        }
        let may_lose = setup.may_lose;
        let state_directory = setup.state_directory.clone();
        let Opened {
            key,
            author,
            is_new,
        } = open_keys(&files, setup)?;
        let verifier = Verifier::new(&key);
        let content = recover::load(&files, &verifier, author.is_some(), may_lose)?;
        let discovery_key = key.discovery_key();
        let storage = &**files.storage();
        // A secret key that is not stored here cannot have been copied from here.
        let guard = match &author {
            Some(Author::KeyPair(_) | Author::Elsewhere { .. }) => {
                Guard::open(storage, state_directory.as_deref(), &discovery_key)
            }
            Some(Author::Unsigned) | None => Ok(None),
        };
        let mut log = Self {
            files: Some(Arc::new(files)),
            key,
            discovery_key,
            guard: guard.map_err(Error::Guard)?,
            lock: None,
            resuming: false,
            fork: None,
            author: author.map(Arc::new),
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
    author: Option<Author>,
    is_new: bool,
}

fn open_keys(files: &FeedFiles, setup: Setup) -> Result<Opened> {
    if setup.existing == Existing::Forgotten {
        files.reset()?;
    }
    let mut stored = stored_key(files, setup.requested())?;
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
        author: open_author(files, stored, setup)?,
        is_new: false,
    })
}

/// The key of the log that is stored, if one is.
fn stored_key(files: &FeedFiles, requested: Option<PublicKey>) -> Result<Option<PublicKey>> {
    if !files.has_headers()? {
        return match Unfinished::read(files)? {
            Unfinished {
                pair: Some(pair), ..
            } => complete(files, &pair).map(Some),
            // Another clone can be made in its place.
            Unfinished { key, .. } => Ok(key.filter(|key| requested.is_none_or(|it| it == *key))),
        };
    }
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
    // The public half is in it.
    let key_pair = KeyPair::from_bytes(&secret).map_err(|_| Corruption::SecretKey)?;
    complete(files, &key_pair).map(Some)
}

/// What a creation that was cut short left: it has no header yet, and so no block. A loss of power may
/// have put anything in the place of a key that was not durable, zeros for instance.
struct Unfinished {
    pair: Option<KeyPair>,
    /// That of a clone. Nothing shows that it is whole.
    key: Option<PublicKey>,
}

impl Unfinished {
    fn read(files: &FeedFiles) -> Result<Self> {
        let secret = whole(files.secret_key())?;
        let pair = secret.and_then(|secret| KeyPair::from_bytes(&secret).ok());
        let is_clone = files.len(FileName::SecretKey)? == 0;
        let key = whole(files.key())?.filter(|key| is_clone && *key != [0; 32]);
        let key = key.map(PublicKey::from);
        Ok(Self { pair, key })
    }
}

/// Whether no log is stored, but for what may be left of a creation.
pub(super) fn is_nothing(files: &FeedFiles) -> Result<bool> {
    if files.has_headers()? {
        return Ok(files.is_empty()?);
    }
    let Unfinished { pair, key } = Unfinished::read(files)?;
    Ok(pair.is_none() && key.is_none())
}

/// A key that was read, or none if its file was cut.
fn whole<T>(read: Result<Option<T>, hypercore_storage::Error>) -> Result<Option<T>> {
    match read {
        Err(error) if error.is_corruption() => Ok(None),
        read => Ok(read?),
    }
}

/// Writes what follows the secret key in a creation.
fn complete(files: &FeedFiles, key_pair: &KeyPair) -> Result<PublicKey> {
    let key = key_pair.public_key();
    files.write_key(key.as_bytes())?;
    files.sync_keys()?;
    write_headers(files)?;
    Ok(key)
}

/// Who appends to a log that is stored: the stored key pair wins over a given one, and not over a
/// signer.
fn open_author(files: &FeedFiles, key: PublicKey, setup: Setup) -> Result<Option<Author>> {
    let Some(secret) = files.secret_key()? else {
        if let (Some(Author::KeyPair(pair)), true) = (&setup.author, setup.store_secret_key) {
            files.write_secret_key(&pair.to_bytes())?;
            files.sync_keys()?;
        }
        // What has a key is not static, or is finished.
        return Ok(setup.author.filter(|author| !author.is_unsigned()));
    };
    // Signing with one half of another pair could reveal the secret: refuse instead.
    let pair = KeyPair::from_bytes(&secret).ok();
    let pair = pair.filter(|pair| pair.public_key() == key);
    let pair = pair.ok_or(Corruption::SecretKey)?;
    let signer = setup.author.filter(Author::is_elsewhere);
    Ok(signer.or(Some(Author::KeyPair(pair))))
}

/// Stores the keys of a new log, and then its headers: the secret key first and durable before the
/// other, so that a creation cut short can be completed or started again, never mistaken for a
/// read-only log.
fn create(files: &FeedFiles, setup: Setup) -> Result<Opened> {
    let author = match setup.author {
        None if setup.key.is_none() => Some(Author::KeyPair(KeyPair::generate()?)),
        author => author,
    };
    let authors = author.as_ref().and_then(Author::public_key);
    let key = match (authors, setup.key) {
        (Some(stored), Some(requested)) if stored != requested => {
            return Err(Error::OtherCore { stored, requested });
        }
        (Some(key), _) | (None, Some(key)) => key,
        (None, None) => {
            // The key of a static log is written when it is finished.
            write_headers(files)?;
            return Ok(Opened {
                key: Roots::new().head().hash.into(),
                author,
                is_new: true,
            });
        }
    };
    // What is left of a creation that was cut short.
    files.reset()?;
    if let (Some(Author::KeyPair(pair)), true) = (&author, setup.store_secret_key) {
        files.write_secret_key(&pair.to_bytes())?;
        files.sync_keys()?;
    }
    files.write_key(key.as_bytes())?;
    files.sync_keys()?;
    write_headers(files)?;
    Ok(Opened {
        key,
        author,
        is_new: true,
    })
}

/// Prepares files for the first write: the headers that are missing are written durably, because a
/// file that has content must have its header, and what else is there is synced with that write.
pub(super) fn write_headers(files: &FeedFiles) -> Result<()> {
    if files.write_headers()? {
        files.sync_content()?;
        files.sync_bitfield()?;
    }
    files.distrust();
    Ok(())
}
