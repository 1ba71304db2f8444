//! How to open a core.

use std::{fmt, path::Path, sync::Arc, time::Duration};

use bytes::Bytes;
use hypercore_merkle::{KeyPair, PublicKey};
use hypercore_storage::{Directory, Memory, Storage};

use crate::{
    Hypercore,
    error::{Error, Result},
    event::PeerId,
    log::{Existing, Log, Setup},
    runtime,
    shared::Shared,
    signer::{Author, Signer},
};

/// What an append that returned `Ok` has survived.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Durability {
    /// Blocks, tree and signature are on the disk: a loss of power loses nothing.
    #[default]
    Always,
    /// As [`Always`](Self::Always), and the bitfield too: nothing is lost even if Node opens the
    /// core first after a loss of power. Takes twice as long.
    Interop,
    /// They were handed to the operating system, and will be on the disk after at most this time: a
    /// crash of the process loses nothing, a loss of power what was appended since. Peers hear of
    /// blocks only when they are on the disk, so that nobody has what is lost here. The first append
    /// waits for a note on the disk that appends may be lost, so that after a loss of power what is
    /// missing does not count as damage, at whatever level the core is opened then.
    Interval(Duration),
    /// They were handed to the operating system: a crash of the process loses nothing, a loss of
    /// power may lose everything since the last [`Hypercore::flush`]. After a crash, open the core
    /// once with this crate before Node does, as Node sees only what was flushed. Peers hear of
    /// blocks only when they were flushed. The first append after a flush waits for a note, as with
    /// [`Interval`](Self::Interval).
    OnClose,
}

impl Durability {
    /// Whether an append waits for the disk.
    pub(crate) const fn waits(self) -> bool {
        matches!(self, Self::Always | Self::Interop)
    }
}

/// How to open or create a core, in the manner of [`std::fs::OpenOptions`]. A clone has its own copy of a
/// key pair, and shares hooks and a signer.
///
/// ```
/// # futures_lite::future::block_on(async {
/// use hypercore::OpenOptions;
///
/// let core = OpenOptions::new().open_memory().await?;
/// assert!(core.is_writable());
///
/// let reader = OpenOptions::new().key(core.key()).sparse(true).open_memory().await?;
/// assert!(!reader.is_writable());
/// # Ok::<_, hypercore::Error>(())
/// # }).unwrap();
/// ```
#[derive(Debug, Clone)]
pub struct OpenOptions {
    existing: Existing,
    key: Option<PublicKey>,
    author: Option<Author>,
    live: bool,
    store_secret_key: bool,
    sparse: bool,
    follow: bool,
    durability: Durability,
    on_write: Option<OnWrite>,
    indexing: bool,
    state: Option<State>,
    signed_elsewhere: Option<u64>,
}

type WriteHook = dyn Fn(u64, &Bytes, Option<PeerId>) -> Result<(), Box<dyn std::error::Error + Send + Sync>>
    + Send
    + Sync;

/// Who is asked before a block is stored.
#[derive(Clone)]
pub(crate) struct OnWrite(Arc<WriteHook>);

impl OnWrite {
    pub(crate) fn ask(&self, index: u64, block: &Bytes, source: Option<PeerId>) -> Result<()> {
        (self.0)(index, block, source).map_err(Error::Refused)
    }
}

/// Where a program keeps its state.
#[derive(Clone)]
struct State(Arc<dyn Storage>);

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("State")
    }
}

impl fmt::Debug for OnWrite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OnWrite")
    }
}

impl Default for OpenOptions {
    fn default() -> Self {
        Self::new()
    }
}

impl OpenOptions {
    /// Opens what is stored, or creates a writable core with a new key pair.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            existing: Existing::Optional,
            key: None,
            author: None,
            live: true,
            store_secret_key: true,
            sparse: false,
            follow: false,
            durability: Durability::Always,
            on_write: None,
            indexing: false,
            state: None,
            signed_elsewhere: None,
        }
    }

    /// Whether to create a core where none is stored; yes by default. Changes nothing beside
    /// [`create_new`](Self::create_new), [`overwrite`](Self::overwrite) or
    /// [`overwrite_other`](Self::overwrite_other), which create one.
    #[must_use]
    pub const fn create_if_missing(mut self, create: bool) -> Self {
        self.existing = match self.existing {
            Existing::Optional | Existing::Required if create => Existing::Optional,
            Existing::Optional | Existing::Required => Existing::Required,
            existing => existing,
        };
        self
    }

    /// Creates a core and fails with [`Error::CoreExists`] where one is stored, whatever
    /// [`overwrite`](Self::overwrite) and [`overwrite_other`](Self::overwrite_other) say.
    #[must_use]
    pub const fn create_new(mut self) -> Self {
        self.existing = Existing::Refused;
        self
    }

    /// Forgets whatever is stored, keys and blocks, and creates a core. Whoever has a copy of the
    /// old one keeps it, so a writer must not start anew under the same key.
    #[must_use]
    pub const fn overwrite(self) -> Self {
        self.unless_refused(Existing::Forgotten)
    }

    /// Forgets what is stored if it is not the core that is asked for, instead of failing with
    /// [`Error::OtherCore`]. Of this and [`overwrite`](Self::overwrite), the last counts.
    #[must_use]
    pub const fn overwrite_other(self) -> Self {
        self.unless_refused(Existing::Replaced)
    }

    const fn unless_refused(mut self, existing: Existing) -> Self {
        if !matches!(self.existing, Existing::Refused) {
            self.existing = existing;
        }
        self
    }

    /// The core with this key: a read-only clone unless its secret key is stored or given. Fails
    /// with [`Error::OtherCore`] where another one is stored.
    #[must_use]
    pub fn key(mut self, key: impl Into<PublicKey>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// The core of this key pair, writable.
    #[must_use]
    pub fn key_pair(mut self, key_pair: KeyPair) -> Self {
        self.author = Some(Author::KeyPair(key_pair));
        self
    }

    /// The core of this signer, writable for as long as this handle lives. Nothing secret is stored.
    /// Of a key pair and a signer, the one given last counts; a signer signs also where a secret key
    /// is stored.
    #[must_use]
    pub fn signer(mut self, signer: impl Signer + 'static) -> Self {
        self.author = Some(Author::elsewhere(signer));
        self
    }

    /// Whether the core that is created can grow for ever; yes by default. With `false` it is
    /// *static*: nobody signs it, and once it is [finished](Hypercore::finalize) its key is the hash of
    /// its whole content, to which nobody can add, its writer neither. Without effect on a core that
    /// exists, has a key or a key pair.
    ///
    /// Before it is finished it has no key. It can be appended to and read, but not replicated, and
    /// [`key`](Hypercore::key) is what would be its key. Nothing vouches for it yet, so it does not
    /// outlive its handle: an unfinished one is not opened again, but has to be written anew, with
    /// [`overwrite`](Self::overwrite).
    #[must_use]
    pub const fn live(mut self, live: bool) -> Self {
        self.live = live;
        self
    }

    /// Whether to store the secret key; yes by default. Without it the core is writable for as
    /// long as this handle lives.
    #[must_use]
    pub const fn store_secret_key(mut self, store: bool) -> Self {
        self.store_secret_key = store;
        self
    }

    /// Download blocks only when they are asked for, instead of all.
    #[must_use]
    pub const fn sparse(mut self, sparse: bool) -> Self {
        self.sparse = sparse;
        self
    }

    /// For a sparse core: always learn the newest length from connected peers, without being
    /// asked to by [`Hypercore::update`].
    #[must_use]
    pub const fn eager_update(mut self, follow: bool) -> Self {
        self.follow = follow;
        self
    }

    /// What an append has to survive before it returns.
    #[must_use]
    pub const fn durability(mut self, durability: Durability) -> Self {
        self.durability = durability;
        self
    }

    /// Asks `hook` before a block is stored: its index, its bytes, and the verified source of a
    /// download, or `None` for an append. What it refuses is not stored: the append, or the
    /// connection it came from, fails with [`Error::Refused`].
    ///
    /// The hook may be asked about a block that is not stored in the end. It holds up who appends
    /// or sends, and must not append to this core itself, nor use the
    /// [`ReplicationHandle`](crate::ReplicationHandle) of the connection that a block came on.
    #[must_use]
    pub fn on_write(
        mut self,
        hook: impl Fn(
            u64,
            &Bytes,
            Option<PeerId>,
        ) -> Result<(), Box<dyn std::error::Error + Send + Sync>>
        + Send
        + Sync
        + 'static,
    ) -> Self {
        self.on_write = Some(OnWrite(Arc::new(hook)));
        self
    }

    /// For a log of what is in a file already: `data` belongs to somebody else, who writes the blocks
    /// there one after another, and may write on. It is read, and downloads are written to it, but an
    /// append only checks that its blocks stand there, and fails with
    /// [`Corruption::Block`](crate::Corruption::Block) where they do not. [`clear`](Hypercore::clear),
    /// [`truncate`](Hypercore::truncate), [`destroy`](Hypercore::destroy) and the recovery of a log that
    /// was not closed leave it as it is.
    /// It is not synced: an append is durable if its blocks were before.
    ///
    /// Nothing of this is stored. Opened without it, the log takes the file for its own, and what the
    /// file has beyond the log for an append that was not finished.
    // JS: appends without looking whether the blocks are there.
    #[must_use]
    pub const fn indexing(mut self, indexing: bool) -> Self {
        self.indexing = indexing;
        self
    }

    /// Notes in this directory, in a file for each core, how much was signed here. A core whose
    /// directory is put back to an earlier state as a whole, as snapshots of a file system do, takes
    /// no appends then. Not done by default; copies and backups of the directory are noticed
    /// without it. The directory of a program's state, `$XDG_STATE_HOME`, is a good place.
    #[must_use]
    pub fn state_directory(self, path: impl AsRef<Path>) -> Self {
        self.state_storage(Directory::new(path.as_ref()))
    }

    /// As [`state_directory`](Self::state_directory), for programs that keep their state elsewhere
    /// than in files. Of the storage only [`Storage::beside`] is used.
    #[must_use]
    pub fn state_storage(mut self, storage: impl Storage + 'static) -> Self {
        self.state = Some(State(Arc::new(storage)));
        self
    }

    /// The key pair, or [`signer`](Self::signer), comes from elsewhere, where at least `length` blocks
    /// were signed with it. Where it is used first, appends are locked
    /// ([`AppendLock::Copied`](crate::AppendLock::Copied)) until [`Hypercore::resume`] has found that many,
    /// or [`Hypercore::accept_fork_risk`] takes the risk. The lock is durable before the key pair is. A
    /// storage that keeps no files beside the log forgets it when the core is closed.
    #[must_use]
    pub const fn signed_elsewhere(mut self, length: u64) -> Self {
        self.signed_elsewhere = Some(length);
        self
    }

    /// Opens the core in the directory `path`.
    ///
    /// # Errors
    ///
    /// When another process has it open, when it is damaged, when it is not the one asked for
    /// ([`Error::OtherCore`]), when the keys that were given do not belong together
    /// ([`Error::KeyMismatch`]), when it is there or not against the options ([`Error::CoreExists`],
    /// [`Error::NoCore`]), when the storage fails, and when the operating system gives no randomness for a
    /// new key.
    pub async fn open(self, path: impl AsRef<Path>) -> Result<Hypercore> {
        self.open_storage(Directory::new(path.as_ref())).await
    }

    /// Opens a new core in memory.
    ///
    /// # Errors
    ///
    /// [`Error::KeyMismatch`], [`Error::NoCore`] after `create_if_missing(false)`, and when the operating
    /// system gives no randomness.
    pub async fn open_memory(self) -> Result<Hypercore> {
        self.open_storage(Memory::default()).await
    }

    /// Opens the core in a storage of your own.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open).
    pub async fn open_storage(self, storage: impl Storage + 'static) -> Result<Hypercore> {
        let Self {
            existing,
            key,
            author,
            live,
            store_secret_key,
            sparse,
            follow,
            durability,
            on_write,
            indexing,
            state,
            signed_elsewhere,
        } = self;
        let author = author.or_else(|| (!live && key.is_none()).then_some(Author::Unsigned));
        let setup = Setup {
            existing,
            key,
            author,
            store_secret_key,
            may_lose: !durability.waits(),
            indexing,
            state: state.map(|State(storage)| storage),
            signed_elsewhere,
        };
        let storage: Arc<dyn Storage> = Arc::new(storage);
        let log = runtime::unblock(move || Log::open(storage, setup)).await?;
        let mut shared = Shared::new(log, sparse, follow, durability);
        shared.on_write = on_write;
        Ok(Hypercore::from_shared(shared))
    }
}

impl Hypercore {
    /// Opens the core in the directory `path`, or creates one there.
    ///
    /// # Errors
    ///
    /// As [`OpenOptions::open`].
    pub async fn open(path: impl AsRef<Path>) -> Result<Self, Error> {
        OpenOptions::new().open(path).await
    }

    /// How to open a core otherwise.
    #[must_use]
    pub const fn options() -> OpenOptions {
        OpenOptions::new()
    }
}
