//! Finding a log in its files, or making a new one.

use std::{cell::Cell, sync::Arc};

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
pub(crate) struct Setup {
    pub(crate) existing: Existing,
    pub(crate) key: Option<PublicKey>,
    pub(crate) author: Option<Author>,
    pub(crate) store_secret_key: bool,
    /// Whether appends that were acknowledged may be gone after a loss of power, if whoever wrote them
    /// has not noted that.
    pub(crate) may_lose: bool,
    /// Whether somebody else writes `data`.
    pub(crate) indexing: bool,
    /// Where to note how much was signed, besides the log itself.
    pub(crate) state: Option<Arc<dyn Storage>>,
    /// How much was signed, at least, with a key pair that was not here before.
    pub(crate) signed_elsewhere: Option<u64>,
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
        let state = setup.state.clone();
        let Opened {
            key,
            author,
            origin,
        } = open_keys(&files, setup)?;
        let verifier = Verifier::new(&key);
        let content = recover::load(&files, &verifier, author.is_some(), may_lose)?;
        let discovery_key = key.discovery_key();
        let storage = files.storage();
        let guard = match &author {
            Some(Author::KeyPair(_) | Author::Elsewhere { .. }) => {
                Guard::open(storage, state.as_ref(), &discovery_key)
            }
            Some(Author::Unsigned) | None => Ok(None),
        };
        let length = content.roots.length();
        let mut log = Self {
            files: Some(Arc::new(files)),
            key,
            discovery_key,
            guard: guard?,
            lock: None,
            cleared: 0,
            shown_length: Cell::new(0),
            resuming: 0,
            resumed_from: None,
            fork: None,
            author: author.map(Arc::new),
            verifier: Arc::new(verifier),
            vouched: content.vouched,
            bitfield: content.bitfield,
            head: content.roots.head(),
            roots: content.roots,
            recovery: content.recovery,
            appending: false,
            closing: false,
            poisoned: content.only_read.is_some(),
            only_read: content.only_read.is_some(),
            headers_written: origin == Origin::New,
            marked: false,
            unsynced: Unsynced::default(),
            withheld: content.only_read.filter(|&durable| durable < length),
        };
        log.judge(origin);
        Ok(log)
    }
}

/// Keys that were found or made.
struct Opened {
    key: PublicKey,
    author: Option<Author>,
    origin: Origin,
}

/// Where the keys of a log come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    /// They were here.
    Stored,
    /// The secret one is here from now on, which tells this place from others.
    StoredNow,
    /// The log did not exist before.
    New,
    /// The key pair was brought here from a place where it was used.
    Elsewhere,
}

fn open_keys(files: &FeedFiles, setup: Setup) -> Result<Opened> {
    // Before anything is forgotten for the sake of a core that cannot be made.
    let of_author = setup.author.as_ref().and_then(Author::public_key);
    if let (Some(key), Some(of_author)) = (setup.key, of_author)
        && key != of_author
    {
        return Err(Error::KeyMismatch { key, of_author });
    }
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
    let (author, origin) = open_author(files, stored, setup)?;
    Ok(Opened {
        key: stored,
        author,
        origin,
    })
}

/// The key of the log that is stored, if one is.
fn stored_key(files: &FeedFiles, requested: Option<PublicKey>) -> Result<Option<PublicKey>> {
    if !has_log(files)? {
        return match Unfinished::read(files)? {
            Unfinished {
                pair: Some(pair), ..
            } => complete(files, &pair).map(Some),
            // Another clone can be made in its place.
            Unfinished { key, .. } => Ok(key.filter(|key| requested.is_none_or(|it| it == *key))),
        };
    }
    // That of a static log is written last: zeros are what a loss of power may leave of it.
    let has_secret = files.len(FileName::SecretKey)? > 0;
    let key = files.key()?.filter(|key| has_secret || *key != [0; 32]);
    if let Some(key) = key {
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

/// Whether there is a log, or what damage left of one.
fn has_log(files: &FeedFiles) -> Result<bool> {
    Ok(files.has_headers()? && !files.is_being_erased()?)
}

/// What a creation that was cut short left: it has no header yet, and so no block. A loss of power may
/// have put anything in the place of a key that was not durable, zeros for instance, which is also
/// what a log that was to be forgotten may have left.
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
    if has_log(files)? {
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
    // Whoever wrote the secret key may not have come to sync it.
    files.distrust();
    files.sync_keys()?;
    files.write_key(key.as_bytes())?;
    files.sync_keys()?;
    write_headers(files)?;
    Ok(key)
}

/// Who appends to a log that is stored: the stored key pair wins over a given one, and not over a
/// signer.
fn open_author(
    files: &FeedFiles,
    key: PublicKey,
    setup: Setup,
) -> Result<(Option<Author>, Origin)> {
    let storage = files.storage();
    let Some(secret) = files.secret_key()? else {
        let origin = match (&setup.author, setup.signed_elsewhere) {
            (Some(Author::KeyPair(pair)), signed) if setup.store_secret_key => {
                // Backups may leave the secret key out.
                let is_copy = Guard::is_in_place(storage)? == Some(false);
                match store_secret_key(files, pair, signed)? {
                    true => Origin::Elsewhere,
                    false if is_copy => Origin::Stored,
                    false => Origin::StoredNow,
                }
            }
            (Some(_), Some(signed)) if Guard::is_in_place(storage)? != Some(true) => {
                Guard::lock_beforehand(storage, signed)?;
                Origin::Elsewhere
            }
            _ => Origin::Stored,
        };
        // What has a key is not static, or is finished.
        let author = setup.author.filter(|author| !author.is_unsigned());
        return Ok((author, origin));
    };
    // Signing with one half of another pair could reveal the secret: refuse instead.
    let pair = KeyPair::from_bytes(&secret).ok();
    let pair = pair.filter(|pair| pair.public_key() == key);
    let pair = pair.ok_or(Corruption::SecretKey)?;
    let signer = setup.author.filter(Author::is_elsewhere);
    let author = signer.or(Some(Author::KeyPair(pair)));
    Ok((author, Origin::Stored))
}

/// Stores the key pair of a log that has none here. If it comes from elsewhere, appends are locked
/// before: at no moment is it here without its lock. Returns whether it does.
fn store_secret_key(files: &FeedFiles, pair: &KeyPair, elsewhere: Option<u64>) -> Result<bool> {
    if let Some(signed) = elsewhere {
        Guard::lock_beforehand(files.storage(), signed)?;
    }
    files.write_secret_key(&pair.to_bytes())?;
    files.sync_keys()?;
    Ok(elsewhere.is_some())
}

/// Stores the keys of a new log, and then its headers: the secret key first and durable before the
/// other, so that a creation cut short can be completed or started again, never mistaken for a
/// read-only log.
fn create(files: &FeedFiles, setup: Setup) -> Result<Opened> {
    let author = match setup.author {
        None if setup.key.is_none() => Some(Author::KeyPair(KeyPair::generate()?)),
        author => author,
    };
    // What is left of a creation that was cut short, or of a log that was forgotten.
    files.reset()?;
    // Nor is what was noted of that log true of this one.
    Guard::remove(&**files.storage())?;
    let of_author = author.as_ref().and_then(Author::public_key);
    let Some(key) = of_author.or(setup.key) else {
        // The key of a static log is written when it is finished.
        write_headers(files)?;
        return Ok(Opened {
            key: Roots::new().head().hash.into(),
            author,
            origin: Origin::New,
        });
    };
    let origin = match (&author, setup.signed_elsewhere) {
        (Some(Author::KeyPair(pair)), signed) if setup.store_secret_key => {
            match store_secret_key(files, pair, signed)? {
                true => Origin::Elsewhere,
                false => Origin::New,
            }
        }
        (Some(_), Some(signed)) => {
            Guard::lock_beforehand(files.storage(), signed)?;
            Origin::Elsewhere
        }
        _ => Origin::New,
    };
    files.write_key(key.as_bytes())?;
    files.sync_keys()?;
    write_headers(files)?;
    Ok(Opened {
        key,
        author,
        origin,
    })
}

/// Prepares files for the first write: the keys are made durable, and the headers, because a file that
/// has content must have its header. What else is there is synced with that write.
pub(super) fn write_headers(files: &FeedFiles) -> Result<()> {
    files.distrust();
    files.sync_keys()?;
    if files.write_headers()? {
        files.sync_content()?;
        files.sync_bitfield()?;
        files.distrust();
    }
    Ok(())
}
