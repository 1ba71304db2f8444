//! The handle: cheap to clone, safe to share.

use std::{
    fmt,
    future::Future,
    ops::{Bound, Range, RangeBounds},
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
    time::{Duration, Instant},
};

use async_channel::{Receiver, Sender};
use bytes::Bytes;
use futures_lite::{AsyncRead, AsyncWrite, Stream};
use hypercore_merkle::{Block, ChangeSet, DiscoveryKey, MAX_BLOCK_SIZE, PublicKey, append};
use hypercore_storage::FeedFiles;

use crate::{
    Durability,
    core::Core,
    error::{Corruption, Error, Result},
    event::Events,
    log::{self, Log, Sought, Unsynced},
    replicate::{PeerInfo, ReplicateOptions, Replication, RequestId, Role},
    runtime,
};

/// An append-only log that is shared between peers.
///
/// A handle is cheap to clone, and every method takes `&self`. The files are released when the
/// core is [closed](Self::close), or when the last handle and the last connection are gone.
#[derive(Clone)]
pub struct Hypercore {
    shared: Arc<Shared>,
}

/// What the handles of one core share.
///
/// The lock on the core is held for microseconds: values are hashed before it is taken and blocks
/// are read after it is let go. Nothing is synced under it.
pub(crate) struct Shared {
    core: Mutex<Core>,
    durability: Durability,
    /// Appends that wait for their turn, oldest first. The next turn takes all of them.
    queue: Mutex<Vec<Append>>,
    turn: Arc<async_lock::Mutex<()>>,
    checkpoint: Mutex<Checkpoint>,
    /// Held while bitfield pages go to the disk, so that no older page overwrites a newer one.
    page_order: Mutex<()>,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

/// Blocks that wait to be appended.
struct Append {
    blocks: Vec<Block>,
    done: Sender<Result<Range<u64>>>,
}

#[derive(Debug)]
struct Checkpoint {
    running: bool,
    last: Instant,
}

/// Downloads become durable, and visible after a restart, after at most this many blocks,
const CHECKPOINT_BLOCKS: u64 = 1024;

/// or this many bytes,
const CHECKPOINT_BYTES: u64 = 16 * 1024 * 1024;

/// or this time, whichever comes first.
const CHECKPOINT_TIME: Duration = Duration::from_millis(500);

/// Where a byte of the log is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// The block that holds it.
    pub index: u64,
    /// Where in that block.
    pub offset: u64,
}

/// How to [get](Hypercore::get_with) a block.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct GetOptions {
    /// Wait for peers, or for the log to grow, if the block is not stored here.
    pub wait: bool,
    /// Wait no longer than this.
    pub timeout: Option<Duration>,
    /// Do not wait for peers that are not connected yet: fail as soon as it is certain that no
    /// connected peer has the block.
    pub if_available: bool,
}

impl Default for GetOptions {
    fn default() -> Self {
        Self {
            wait: true,
            timeout: None,
            if_available: false,
        }
    }
}

impl GetOptions {
    /// Only what is stored here.
    #[must_use]
    pub fn local() -> Self {
        Self {
            wait: false,
            ..Self::default()
        }
    }
}

/// How to [update](Hypercore::update_with) the length.
#[derive(Debug, Clone, Copy, Default)]
#[non_exhaustive]
pub struct UpdateOptions {
    /// Be content with this length; by default, with one more than the present one.
    pub min_length: Option<u64>,
    /// Wait no longer than this.
    pub timeout: Option<Duration>,
    /// Do not wait for peers that are not connected yet: fail as soon as it is certain that no
    /// connected peer has a longer log.
    pub if_available: bool,
}

/// How to [seek](Hypercore::seek_with) a byte.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct SeekOptions {
    /// Ask peers if the position is not known here.
    pub wait: bool,
    /// Wait no longer than this.
    pub timeout: Option<Duration>,
    /// Do not wait for peers that are not connected yet.
    pub if_available: bool,
    /// The blocks to look in.
    pub blocks: Range<u64>,
}

impl Default for SeekOptions {
    fn default() -> Self {
        Self {
            wait: true,
            timeout: None,
            if_available: false,
            blocks: 0..u64::MAX,
        }
    }
}

/// What [`Hypercore::audit`] found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Audit {
    /// How many stored blocks match their hash.
    pub valid: u64,
    /// The blocks that do not, or cannot be read.
    pub invalid: Vec<u64>,
}

impl fmt::Debug for Hypercore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let core = self.shared.lock();
        f.debug_struct("Hypercore")
            .field("key", &core.log.key())
            .field("length", &core.log.length())
            .field("writable", &core.log.is_writable())
            .finish_non_exhaustive()
    }
}

impl Hypercore {
    pub(crate) fn from_shared(shared: Shared) -> Self {
        Self {
            shared: Arc::new(shared),
        }
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    // ---- properties -------------------------------------------------------------------------

    /// The public key: whoever knows it can read the log.
    #[must_use]
    pub fn key(&self) -> PublicKey {
        self.shared.lock().log.key()
    }

    /// A hash of the key, to find peers by without giving them the key.
    #[must_use]
    pub fn discovery_key(&self) -> DiscoveryKey {
        self.shared.lock().log.discovery_key()
    }

    /// The number of blocks, as far as it is known here.
    #[must_use]
    pub fn length(&self) -> u64 {
        self.shared.lock().log.length()
    }

    /// The number of bytes in these blocks.
    #[must_use]
    pub fn byte_length(&self) -> u64 {
        self.shared.lock().log.byte_length()
    }

    /// Whether blocks can be appended.
    #[must_use]
    pub fn is_writable(&self) -> bool {
        self.shared.lock().log.is_writable()
    }

    /// Whether block `index` is stored here.
    #[must_use]
    pub fn has(&self, index: u64) -> bool {
        self.shared.lock().log.has(index)
    }

    /// Whether all of `blocks` are stored here.
    #[must_use]
    pub fn has_all(&self, blocks: impl RangeBounds<u64>) -> bool {
        let core = self.shared.lock();
        core.log
            .bitfield()
            .has_all(resolve(&blocks, core.log.length()))
    }

    /// How many of `blocks` are stored here.
    #[must_use]
    pub fn downloaded(&self, blocks: impl RangeBounds<u64>) -> u64 {
        let core = self.shared.lock();
        core.log
            .bitfield()
            .count(resolve(&blocks, core.log.length()))
    }

    /// The peers that are connected now.
    #[must_use]
    pub fn peers(&self) -> Vec<PeerInfo> {
        self.shared.lock().replicator.peers().collect()
    }

    /// Bytes that the files occupy on the disk; less than their length where blocks are missing.
    ///
    /// # Errors
    ///
    /// When the core is closed or the storage fails.
    pub fn disk_usage(&self) -> Result<u64> {
        let files = Arc::clone(self.shared.lock().log.files()?);
        let mut sum = 0;
        for file in hypercore_storage::FileName::ALL {
            sum += files.allocated(file)?;
        }
        Ok(sum)
    }

    /// What happens from now on.
    #[must_use]
    pub fn events(&self) -> Events {
        self.shared.lock().events.subscribe()
    }

    // ---- writing ----------------------------------------------------------------------------

    /// Appends one block; returns its index.
    ///
    /// When this returns, the block is as safe as [`Durability`] says, and peers are told. Appends
    /// that are made at the same time are signed and synced together. An append that fails, or
    /// that is dropped before it is done, may or may not be found after the core was opened again.
    ///
    /// # Errors
    ///
    /// When the core is not writable, when the block is larger than 8 MiB, or when the storage
    /// fails.
    pub async fn append(&self, block: impl Into<Bytes>) -> Result<u64> {
        Ok(self
            .append_blocks(vec![Block::hash(block.into())])
            .await?
            .start)
    }

    /// Appends blocks as one unit, with one signature; returns their indexes.
    ///
    /// # Errors
    ///
    /// As [`append`](Self::append). Then none of the blocks is appended.
    pub async fn append_batch<B: Into<Bytes>>(
        &self,
        blocks: impl IntoIterator<Item = B>,
    ) -> Result<Range<u64>> {
        let blocks = blocks.into_iter().map(Into::into).collect();
        self.append_blocks(Block::hash_many(blocks)).await
    }

    async fn append_blocks(&self, blocks: Vec<Block>) -> Result<Range<u64>> {
        // One block that is too large must not fail the appends that are grouped with it.
        if let Some(block) = blocks.iter().find(|block| block.size() > MAX_BLOCK_SIZE) {
            let error = hypercore_merkle::Error::BlockTooLarge {
                size: block.size(),
                max: MAX_BLOCK_SIZE,
            };
            return Err(error.into());
        }
        let (done, result) = async_channel::bounded(1);
        lock(&self.shared.queue).push(Append { blocks, done });
        let turn = self.shared.turn.lock_arc().await;
        if let Ok(result) = result.try_recv() {
            return result;
        }
        let shared = Arc::clone(&self.shared);
        let commit = move || {
            let _turn = turn;
            shared.commit_queue();
        };
        match self.shared.durability {
            Durability::Always => runtime::unblock(commit).await,
            Durability::OnClose => commit(),
        }
        result.try_recv().unwrap_or(Err(Error::Closed))
    }

    /// Drops the blocks `blocks` from the storage, and frees their space where the file system can.
    /// They can be downloaded again. Returns how many blocks are stored afterwards.
    ///
    /// # Errors
    ///
    /// When the range does not lie within the log, or when the storage fails.
    pub async fn clear(&self, blocks: Range<u64>) -> Result<u64> {
        let shared = Arc::clone(&self.shared);
        runtime::unblock(move || shared.clear(blocks)).await
    }

    /// Makes everything durable that was written before.
    ///
    /// # Errors
    ///
    /// When the storage fails.
    pub async fn flush(&self) -> Result<()> {
        let turn = self.shared.turn.lock_arc().await;
        let shared = Arc::clone(&self.shared);
        runtime::unblock(move || {
            let _turn = turn;
            shared.flush()
        })
        .await
    }

    /// Makes everything durable and releases the files, for all handles of this core. What waits
    /// fails with [`Error::Closed`], and connections let go of the core.
    ///
    /// # Errors
    ///
    /// When the storage fails; the core is closed then, too.
    pub async fn close(&self) -> Result<()> {
        let flushed = match self.flush().await {
            Err(Error::Closed) => return Ok(()),
            flushed => flushed,
        };
        self.shared.lock().close();
        flushed
    }

    // ---- reading ----------------------------------------------------------------------------

    /// Block `index`, verified. If it is not stored here, waits until a peer has sent it, or until
    /// the log has grown that far.
    ///
    /// # Errors
    ///
    /// When the core is closed, when the stored block is damaged, or when the storage fails.
    pub async fn get(&self, index: u64) -> Result<Bytes> {
        self.get_with(index, GetOptions::default()).await
    }

    /// Block `index`, verified.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get); [`Error::BlockNotStored`], [`Error::NotAvailable`] and
    /// [`Error::TimedOut`] as the options ask for.
    pub async fn get_with(&self, index: u64, options: GetOptions) -> Result<Bytes> {
        loop {
            let request = {
                let mut core = self.shared.lock();
                let files = Arc::clone(core.log.files()?);
                if core.log.has(index) {
                    drop(core);
                    match log::read_block(&files, index) {
                        // Cleared between the look and the read: look again.
                        Err(_) if !self.has(index) => continue,
                        result => return result,
                    }
                }
                if !options.wait {
                    return Err(Error::BlockNotStored { index });
                }
                let (id, answer) = core.replicator.demand.get(index, options.if_available);
                self.ask(&mut core, id, answer)
            };
            return within(options.timeout, request).await;
        }
    }

    /// The last block.
    ///
    /// # Errors
    ///
    /// [`Error::Empty`], or as [`get`](Self::get).
    pub async fn head(&self) -> Result<Bytes> {
        let last = self.length().checked_sub(1).ok_or(Error::Empty)?;
        self.get(last).await
    }

    /// The block that holds byte `offset` of the log, asking peers if that is not known here. For
    /// the byte just after the last one, the answer is the length and 0.
    ///
    /// # Errors
    ///
    /// When the core is closed, or when the storage fails.
    pub async fn seek(&self, offset: u64) -> Result<Position> {
        self.seek_with(offset, SeekOptions::default()).await
    }

    /// The block that holds byte `offset` of the log.
    ///
    /// # Errors
    ///
    /// As [`seek`](Self::seek); [`Error::OutOfBounds`], [`Error::NotAvailable`] and
    /// [`Error::TimedOut`] as the options ask for.
    pub async fn seek_with(&self, offset: u64, options: SeekOptions) -> Result<Position> {
        let request = {
            let mut core = self.shared.lock();
            core.log.files()?;
            let (length, byte_length) = (core.log.length(), core.log.byte_length());
            if offset == byte_length {
                return Ok(Position {
                    index: length,
                    offset: 0,
                });
            }
            if let Sought::Found { index, offset } = core.log.seek(offset)? {
                return Ok(Position { index, offset });
            }
            if !options.wait {
                return Err(Error::OutOfBounds {
                    offset,
                    byte_length,
                });
            }
            let (id, answer) =
                core.replicator
                    .demand
                    .seek(offset, options.blocks, options.if_available);
            self.ask(&mut core, id, answer)
        };
        let (index, offset) = within(options.timeout, request).await?;
        Ok(Position { index, offset })
    }

    /// Waits until the log is longer than now, asking peers for their newest length. Returns the
    /// new length.
    ///
    /// # Errors
    ///
    /// When the core is closed.
    pub async fn update(&self) -> Result<u64> {
        self.update_with(UpdateOptions::default()).await
    }

    /// Waits until the log has a certain length, asking peers for it. Returns the length then.
    ///
    /// # Errors
    ///
    /// When the core is closed; [`Error::NotAvailable`] and [`Error::TimedOut`] as the options ask
    /// for.
    pub async fn update_with(&self, options: UpdateOptions) -> Result<u64> {
        let request = {
            let mut core = self.shared.lock();
            core.log.files()?;
            let length = core.log.length();
            let min_length = options.min_length.unwrap_or(length + 1);
            if length >= min_length {
                return Ok(length);
            }
            let (id, answer) = core
                .replicator
                .demand
                .update(min_length, options.if_available);
            self.ask(&mut core, id, answer)
        };
        within(options.timeout, request).await?;
        Ok(self.length())
    }

    /// Downloads `blocks`, in order, from all connected peers. The future is done when all of them
    /// are stored here; dropping it takes the request back. An open end means every block there
    /// will ever be, so that this is never done.
    pub fn download(&self, blocks: impl RangeBounds<u64>) -> Download {
        let blocks = resolve(&blocks, u64::MAX);
        let mut core = self.shared.lock();
        if let Err(error) = core.log.files() {
            return Download {
                request: Err(Some(error)),
            };
        }
        let missing = (blocks.end - blocks.start) - core.log.bitfield().count(blocks.clone());
        if missing == 0 {
            return Download { request: Err(None) };
        }
        let (id, answer) = core.replicator.demand.download(blocks, missing);
        Download {
            request: Ok(self.ask(&mut core, id, answer)),
        }
    }

    /// Checks every stored block against its leaf hash. Changes nothing.
    ///
    /// # Errors
    ///
    /// When the core is closed.
    // JS: `audit` clears the bits of the blocks that fail; here that is left to `clear`.
    pub async fn audit(&self) -> Result<Audit> {
        let shared = Arc::clone(&self.shared);
        runtime::unblock(move || shared.audit()).await
    }

    // ---- replication ------------------------------------------------------------------------

    /// One end of an encrypted connection that exchanges this core: a duplex stream, to be piped
    /// over any transport, or [run](Replication::run) over one.
    ///
    /// # Errors
    ///
    /// When the core is closed, or when the operating system gives no randomness.
    pub fn replicate(&self, role: Role, options: ReplicateOptions) -> Result<Replication> {
        let replication = Replication::new(role, options)?;
        replication.add(self)?;
        Ok(replication)
    }

    /// Exchanges this core over `transport` until the connection ends.
    ///
    /// # Errors
    ///
    /// As [`replicate`](Self::replicate) and [`Replication::run`].
    pub async fn replicate_over(
        &self,
        transport: impl AsyncRead + AsyncWrite + Unpin,
        role: Role,
        options: ReplicateOptions,
    ) -> Result<()> {
        self.replicate(role, options)?.run(transport).await
    }

    /// Registers a request that peers may be able to answer.
    fn ask<T>(&self, core: &mut Core, id: RequestId, answer: Receiver<Result<T>>) -> Request<T> {
        core.replicator.wake_all();
        core.replicator.settle();
        Request {
            shared: Arc::clone(&self.shared),
            id,
            answer: Box::pin(answer),
            done: false,
        }
    }
}

/// Downloads blocks: see [`Hypercore::download`].
#[derive(Debug)]
#[must_use = "dropping a download takes it back"]
pub struct Download {
    /// The request, or the result if it is known already.
    request: Result<Request<()>, Option<Error>>,
}

impl Future for Download {
    type Output = Result<()>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        match &mut self.request {
            Ok(request) => Pin::new(request).poll(cx),
            Err(error) => Poll::Ready(error.take().map_or(Ok(()), Err)),
        }
    }
}

/// A request that peers, or an append, will answer. Dropping it takes it back.
#[derive(Debug)]
struct Request<T> {
    shared: Arc<Shared>,
    id: RequestId,
    answer: Pin<Box<Receiver<Result<T>>>>,
    done: bool,
}

impl<T> Future for Request<T> {
    type Output = Result<T>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<T>> {
        self.answer.as_mut().poll_next(cx).map(|answer| {
            self.done = true;
            answer.unwrap_or(Err(Error::Closed))
        })
    }
}

impl<T> Drop for Request<T> {
    fn drop(&mut self) {
        if !self.done {
            self.shared.lock().replicator.demand.cancel(self.id);
        }
    }
}

async fn within<T>(limit: Option<Duration>, request: Request<T>) -> Result<T> {
    match limit {
        None => request.await,
        Some(limit) => runtime::timeout(limit, request)
            .await
            .unwrap_or(Err(Error::TimedOut)),
    }
}

/// The blocks a range stands for, its open end being `end`.
fn resolve(range: &impl RangeBounds<u64>, end: u64) -> Range<u64> {
    let start = match range.start_bound() {
        Bound::Included(&start) => start,
        Bound::Excluded(&start) => start.saturating_add(1),
        Bound::Unbounded => 0,
    };
    let end = match range.end_bound() {
        Bound::Included(&end) => end.saturating_add(1),
        Bound::Excluded(&end) => end,
        Bound::Unbounded => end,
    };
    start..end.max(start)
}

impl Shared {
    pub(crate) fn new(log: Log, sparse: bool, follow: bool, durability: Durability) -> Self {
        let mut core = Core::new(log);
        let reader = !core.log.is_writable();
        core.replicator.demand.everything = !sparse && reader;
        core.replicator.demand.newest_length = sparse && follow && reader;
        Self {
            core: Mutex::new(core),
            durability,
            queue: Mutex::default(),
            turn: Arc::default(),
            checkpoint: Mutex::new(Checkpoint {
                running: false,
                last: runtime::now(),
            }),
            page_order: Mutex::default(),
        }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Core> {
        lock(&self.core)
    }

    // ---- appending --------------------------------------------------------------------------

    /// Appends everything that waits, as one unit.
    fn commit_queue(&self) {
        let mut queue = std::mem::take(&mut *lock(&self.queue));
        // Those whose future was dropped before their turn came no longer want it.
        queue.retain(|append| !append.done.is_closed());
        let mut blocks = Vec::new();
        let mut sizes = Vec::with_capacity(queue.len());
        for append in &mut queue {
            sizes.push(append.blocks.len() as u64);
            blocks.append(&mut append.blocks);
        }
        match self.commit(blocks) {
            Ok(mut next) => {
                for (append, size) in queue.iter().zip(sizes) {
                    let end = next.start + size;
                    let _ = append.done.try_send(Ok(next.start..end));
                    next.start = end;
                }
            }
            Err(error) => {
                let error = Arc::new(error);
                for append in queue {
                    let _ = append.done.try_send(Err(Error::Append(Arc::clone(&error))));
                }
            }
        }
    }

    fn commit(&self, blocks: Vec<Block>) -> Result<Range<u64>> {
        let (files, roots, key_pair) = {
            let mut core = self.lock();
            let (roots, key_pair) = core.log.begin_append()?;
            (Arc::clone(core.log.files()?), roots, key_pair)
        };
        let written = self.write(&files, || Ok(append::append(&roots, blocks, &key_pair)?));
        let mut core = self.lock();
        let change = match written {
            Ok(change) => change,
            Err(error) => {
                core.log.abort_append();
                if error.leaves_files_unknown {
                    core.log.poison();
                }
                return Err(error.source);
            }
        };
        let appended = core.finish_append(&change);
        drop(core);
        // The blocks are safe whether or not their bits are: they are found again without them.
        if let Err(error) = self.write_pages() {
            tracing::warn!(%error, "the bitfield could not be written");
        }
        Ok(appended)
    }

    fn write(
        &self,
        files: &FeedFiles,
        change: impl FnOnce() -> Result<ChangeSet>,
    ) -> Result<ChangeSet, FailedWrite> {
        let change = change().map_err(FailedWrite::harmless)?;
        if let Err(source) = log::write_append(files, &change) {
            // Without its signature the rest means nothing, and the next append overwrites it.
            let last = change.signature().map_or(0, |(length, _)| length - 1);
            let leaves_files_unknown = files.clear_signatures(last..last + 1).is_err();
            return Err(FailedWrite {
                source,
                leaves_files_unknown,
            });
        }
        if self.durability == Durability::Always {
            // After a failed sync nobody knows what is on the disk.
            files.sync_content().map_err(|error| FailedWrite {
                source: error.into(),
                leaves_files_unknown: true,
            })?;
        }
        Ok(change)
    }

    // ---- checkpoints ------------------------------------------------------------------------

    /// Writes the pages of the bitfield that changed, after what they claim is durable.
    fn write_pages(&self) -> Result<()> {
        let _order = lock(&self.page_order);
        let (files, pages, unsynced) = {
            let mut core = self.lock();
            let files = Arc::clone(core.log.files()?);
            let (pages, unsynced) = core.log.take_pages();
            (files, pages, unsynced)
        };
        if unsynced && self.durability == Durability::Always {
            files.sync_content()?;
        }
        for (page, bytes) in &pages {
            files.write_page(*page, bytes)?;
        }
        Ok(())
    }

    /// When the newest downloads are to be made durable.
    pub(crate) fn checkpoint_deadline(&self, unsynced: Unsynced) -> Option<Instant> {
        let checkpoint = lock(&self.checkpoint);
        (unsynced.blocks > 0 && !checkpoint.running).then_some(checkpoint.last + CHECKPOINT_TIME)
    }

    /// Starts to make the newest downloads durable if it is time.
    pub(crate) fn checkpoint_if_due(self: &Arc<Self>, unsynced: Unsynced, now: Instant) {
        let enough = unsynced.blocks >= CHECKPOINT_BLOCKS || unsynced.bytes >= CHECKPOINT_BYTES;
        {
            let mut checkpoint = lock(&self.checkpoint);
            let late = unsynced.blocks > 0 && now >= checkpoint.last + CHECKPOINT_TIME;
            if checkpoint.running || !(enough || late) {
                return;
            }
            checkpoint.running = true;
        }
        let shared = Arc::clone(self);
        runtime::spawn_blocking(move || {
            if let Err(error) = shared.write_pages() {
                tracing::warn!(%error, "downloads could not be made durable");
                shared.lock().log.poison();
            }
            *lock(&shared.checkpoint) = Checkpoint {
                running: false,
                last: runtime::now(),
            };
        });
    }

    fn flush(&self) -> Result<()> {
        let files = Arc::clone(self.lock().log.files()?);
        files.sync_content()?;
        self.write_pages()?;
        files.sync_bitfield()?;
        Ok(())
    }

    // ---- whole-log work ---------------------------------------------------------------------

    fn clear(&self, blocks: Range<u64>) -> Result<u64> {
        let (files, runs) = {
            let mut core = self.lock();
            let length = core.log.length();
            let Range { start, end } = blocks;
            if start > end || end > length {
                return Err(Error::BadRange { start, end, length });
            }
            (Arc::clone(core.log.files()?), core.clear(blocks)?)
        };
        if !runs.is_empty() {
            // Never the other way round: a bit that says a block is here must be true.
            self.write_pages()?;
            if self.durability == Durability::Always {
                files.sync_bitfield()?;
            }
            log::drop_blocks(&files, &runs)?;
        }
        Ok(self.lock().log.bitfield().total())
    }

    fn audit(&self) -> Result<Audit> {
        let (files, runs) = {
            let core = self.lock();
            let runs: Vec<_> = core.log.bitfield().runs(0..u64::MAX).collect();
            (Arc::clone(core.log.files()?), runs)
        };
        let mut audit = Audit::default();
        for index in runs.into_iter().flatten() {
            match log::read_block(&files, index) {
                Ok(_) => audit.valid += 1,
                Err(error) if error.is_corruption() => audit.invalid.push(index),
                Err(error) => return Err(error),
            }
        }
        Ok(audit)
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // Nobody is left to hear of an error; `close` is for those who want to.
        if self.lock().log.files().is_ok() {
            let _ = self.flush();
        }
    }
}

/// Why an append was not written.
struct FailedWrite {
    source: Error,
    /// Whether the files may hold anything now, so that only opening them anew can tell.
    leaves_files_unknown: bool,
}

impl FailedWrite {
    const fn harmless(source: Error) -> Self {
        Self {
            source,
            leaves_files_unknown: false,
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Every change under these locks is made of steps that each leave a usable state.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl From<Corruption> for Error {
    fn from(corruption: Corruption) -> Self {
        Self::Corrupt(corruption)
    }
}
