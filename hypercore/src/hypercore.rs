//! The handle: cheap to clone, safe to share.

use std::{
    fmt,
    ops::{Bound, Range, RangeBounds},
    sync::Arc,
};

use async_channel::Receiver;
use bytes::Bytes;
use futures_lite::{AsyncRead, AsyncWrite};
use hypercore_merkle::{Block, DiscoveryKey, MAX_BYTE_LENGTH, MAX_LENGTH, PublicKey};

use crate::{
    block_set::BlockSet,
    core::Core,
    error::{Error, Result},
    event::Events,
    fork::ForkProof,
    log::{AppendLock, Recovery, Sought},
    replicate::{
        Ended, PeerInfo, Progress, ReplicateOptions, Replication, RequestId, Role, Waiting,
    },
    request::{
        Download, DownloadOptions, GetOptions, Position, Request, SeekOptions, UpdateOptions,
        within,
    },
    shared::Shared,
};

/// An append-only log that is shared between peers.
///
/// A handle is cheap to clone, and every method takes `&self`.
///
/// [`close`](Self::close) releases the files, whoever has them. Otherwise every handle and connection
/// holds them, and so does every stream, [`Download`] and [`Extension`](crate::Extension) of the
/// core. Dropping the last of these makes everything durable on the thread that does it, which waits for
/// the disk, and an error is only logged. Another thread may still sync what was downloaded, and the
/// files stay locked that long. So `close().await` a core whose blocks matter, or that is to be opened
/// again.
#[derive(Clone)]
pub struct Hypercore {
    shared: Arc<Shared>,
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

    /// The public key: whoever knows it can read the log. Of a static core that is not
    /// [finished](Self::finalize), the key that it would have.
    #[must_use]
    pub fn key(&self) -> PublicKey {
        self.shared.lock().log.key()
    }

    /// A hash of the key, to find peers by without giving them the key.
    #[must_use]
    pub fn discovery_key(&self) -> DiscoveryKey {
        self.shared.lock().log.discovery_key()
    }

    /// The number of blocks, as far as it is known here: 0 in a clone until a peer has proved more.
    #[must_use]
    pub fn length(&self) -> u64 {
        self.shared.lock().log.length()
    }

    /// The number of bytes in these blocks.
    #[must_use]
    pub fn byte_length(&self) -> u64 {
        self.shared.lock().log.byte_length()
    }

    /// Whether the core was [closed](Self::close) or [destroyed](Self::destroy), by whichever handle.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.shared.lock().log.files().is_err()
    }

    /// Whether blocks can be appended: not without the secret key or a signer, not while appends are
    /// [locked](Self::append_lock), and not where the core was found damaged.
    #[must_use]
    pub fn is_writable(&self) -> bool {
        self.shared.lock().log.is_writable()
    }

    /// Fails as an append would, if nothing can be appended, without appending anything.
    ///
    /// # Errors
    /// [`Error::NotWritable`] without the secret key or a signer, [`Error::AppendLocked`] while appends are
    /// [locked](Self::append_lock), [`Error::Corrupt`] where the core was found damaged, and
    /// [`Error::Closed`] or [`Error::Poisoned`] where no file is written to any more.
    pub fn check_writable(&self) -> Result<()> {
        self.shared.lock().log.check_append().map(drop)
    }

    /// Whether the log is written here: with the secret key or a signer, also while nothing can be
    /// appended, and after the core was closed. Peers have copies of it.
    #[must_use]
    pub fn is_original(&self) -> bool {
        self.shared.lock().log.is_original()
    }

    /// Why nothing may be appended, though the secret key is here: see
    /// [`resume`](Self::resume).
    #[must_use]
    pub fn append_lock(&self) -> Option<AppendLock> {
        self.shared.lock().log.append_lock()
    }

    /// The proof that two histories were signed with the key of this core, if one was found since
    /// it was opened. A directory also keeps it, in a file `fork-proof-<length>`.
    #[must_use]
    pub fn fork_proof(&self) -> Option<ForkProof> {
        self.shared.lock().log.fork_proof().cloned()
    }

    /// What was found when the core was opened, if it had not been closed before.
    #[must_use]
    pub fn recovery(&self) -> Option<Recovery> {
        self.shared.lock().log.recovery().cloned()
    }

    /// Whether block `index` is stored here.
    #[must_use]
    pub fn has(&self, index: u64) -> bool {
        self.shared.lock().log.has(index)
    }

    /// Whether all of `blocks` are stored here: those of an empty range are, but not those of one that ends
    /// before it starts. An open end means the present length.
    #[must_use]
    pub fn has_all(&self, blocks: impl RangeBounds<u64>) -> bool {
        let core = self.shared.lock();
        let blocks = bounds(&blocks, core.log.length());
        blocks.start <= blocks.end && core.log.bitfield().has_all(blocks)
    }

    /// How many of `blocks` are stored here.
    #[must_use]
    pub fn downloaded(&self, blocks: impl RangeBounds<u64>) -> u64 {
        let core = self.shared.lock();
        core.log
            .bitfield()
            .count(resolve(&blocks, core.log.length()))
    }

    /// How much of `blocks` is stored here. An open end means the present length.
    ///
    /// No number gets smaller unless blocks are [cleared](Self::clear) or [cut off](Self::truncate). The length that peers speak
    /// of may be greater than the one that is known to exist: [`remote_length`](Self::remote_length).
    #[must_use]
    pub fn progress(&self, blocks: impl RangeBounds<u64>) -> Progress {
        Progress::of(resolve(&blocks, u64::MAX), &self.shared.lock().log)
    }

    /// Everything that is waited for here, by [`get`](Self::get), [`download`](Self::download),
    /// [`update`](Self::update) and [`seek`](Self::seek), and why it is not here yet.
    #[must_use]
    pub fn waiting(&self) -> Vec<Waiting> {
        let core = self.shared.lock();
        core.replicator.waiting(&core.log)
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
        let mut sum = 0u64;
        for file in hypercore_storage::FileName::ALL {
            sum = sum.saturating_add(files.allocated(file)?);
        }
        Ok(sum)
    }

    /// Bytes that the files seem to have, holes included: what a copy takes that does not know of
    /// holes.
    ///
    /// # Errors
    ///
    /// As [`disk_usage`](Self::disk_usage).
    pub fn apparent_size(&self) -> Result<u64> {
        let files = Arc::clone(self.shared.lock().log.files()?);
        let mut sum = 0u64;
        for file in hypercore_storage::FileName::ALL {
            sum = sum.saturating_add(files.len(file)?);
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
    /// When this returns, the block is as safe as [`Durability`](crate::Durability) says, and peers are told. Appends
    /// that are made at the same time are signed and synced together. One that fails may or may not be found
    /// after the core was opened again. If the future is dropped before its turn comes, nothing happens; what
    /// has begun is finished.
    ///
    /// A block that is less than some 5 KiB shorter than 8 MiB is stored, and cannot be sent: with its proof it
    /// does not fit into a message, and peers are told that it is not here.
    ///
    /// The block is kept, not copied: what is owned or `'static` is taken as it is, and what is borrowed goes
    /// through [`to_owned`](str::to_owned) or [`Bytes::copy_from_slice`].
    ///
    /// ```
    /// # futures_lite::future::block_on(async {
    /// use hypercore::{Bytes, Hypercore};
    ///
    /// let core = Hypercore::options().open_memory().await?;
    /// core.append("a literal").await?;
    /// for line in String::from("some\nlines").lines() {
    ///     core.append(line.to_owned()).await?;
    /// }
    /// core.append(Bytes::copy_from_slice(&[1, 2, 3][1..])).await?;
    /// # assert_eq!(core.length(), 4);
    /// # Ok::<_, hypercore::Error>(())
    /// # }).unwrap();
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::NotWritable`]; [`Error::AppendLocked`], for which [`is_writable`](Self::is_writable)
    /// is false, too; when the block is larger than 8 MiB; when the hook
    /// [`on_write`](crate::OpenOptions::on_write) or the [`Signer`](crate::Signer) refuses; when the
    /// core is closed, was found damaged, or the storage fails. [`Error::Append`] has what another
    /// append failed with that was signed together with this one.
    pub async fn append(&self, block: impl Into<Bytes>) -> Result<u64> {
        Ok(self
            .shared
            .append(vec![Block::hash(block.into())])
            .await?
            .start)
    }

    /// Appends blocks as one unit, with one signature; returns their indexes. If there are none, nothing
    /// happens, unless it fails because nothing can be appended.
    ///
    /// # Errors
    ///
    /// As [`append`](Self::append). Then none of the blocks is appended.
    pub async fn append_batch<B: Into<Bytes>>(
        &self,
        blocks: impl IntoIterator<Item = B>,
    ) -> Result<Range<u64>> {
        let blocks = blocks.into_iter().map(Into::into).collect();
        self.shared.append(Block::hash_many(blocks)).await
    }

    /// Drops the blocks `blocks` from the storage, and frees their space where the file system can.
    /// They can be downloaded again, by a writer only over a connection that is
    /// [told to](ReplicateOptions::download). A clone that is not [sparse](crate::OpenOptions::sparse), or that
    /// [downloads](Self::download) them all, does that at once when a peer has them. An open end means the
    /// length when the turn of this comes. Returns how many blocks are stored afterwards.
    ///
    /// If the future is dropped before its turn comes, nothing happens; what has begun is finished.
    ///
    /// # Errors
    ///
    /// When the range does not lie within the log, when the storage fails, or when the core is closed.
    pub async fn clear(&self, blocks: impl RangeBounds<u64>) -> Result<u64> {
        let blocks = (blocks.start_bound().cloned(), blocks.end_bound().cloned());
        self.shared
            .alone(move |shared| shared.clear(|length| bounds(&blocks, length)))
            .await
    }

    /// Takes back all blocks from `length` on.
    ///
    /// Whoever has a copy of them keeps it, and what is appended in their place is another history,
    /// which those copies refuse: only for logs, or ends of logs, that were never shared.
    ///
    /// If the future is dropped before its turn comes, nothing happens; what has begun is finished.
    ///
    /// # Errors
    ///
    /// When the core is not writable or shorter than that, when its hashes up to there are not all
    /// known here, or when the storage fails.
    // JS: leaves the bits of the blocks, and no signature of the new end.
    pub async fn truncate(&self, length: u64) -> Result<()> {
        self.shared
            .alone(move |shared| shared.truncate(length))
            .await
    }

    /// Finishes a core that was created with [`live(false)`](crate::OpenOptions::live): its key is the
    /// hash of its content from now on, and nothing can be appended to it any more. Returns the key.
    ///
    /// A core that has a key already stays as it is.
    ///
    /// If the future is dropped before its turn comes, nothing happens; what has begun is finished.
    ///
    /// # Errors
    ///
    /// When the core is closed or the storage fails. Then it can be tried again.
    pub async fn finalize(&self) -> Result<PublicKey> {
        self.shared.alone(Shared::finalize).await
    }

    /// Makes everything durable that was written before. If the future is dropped before its turn comes,
    /// nothing happens; what has begun is finished.
    ///
    /// # Errors
    ///
    /// When the core is closed, was found damaged, or the storage fails.
    pub async fn flush(&self) -> Result<()> {
        self.shared.alone(Shared::flush).await
    }

    /// Makes everything durable and releases the files, for all handles of this core. What waits
    /// fails with [`Error::Closed`], and connections let go of the core. What still reads the files
    /// then, such as an [`audit`](Self::audit), keeps them locked until it is done.
    ///
    /// If the future is dropped before its turn comes, the core stays open; what has begun is finished.
    ///
    /// # Errors
    ///
    /// When the storage fails; the core is closed then, too.
    pub async fn close(&self) -> Result<()> {
        let close = |shared: &Shared| {
            shared.lock().log.begin_close();
            let finished = match shared.finish() {
                Err(Error::Closed) => return Ok(()),
                finished => finished,
            };
            shared.lock().close();
            finished
        };
        self.shared.alone(close).await
    }

    /// Closes the core, for all handles, and removes its files. A directory stays. Whoever has a
    /// copy keeps it.
    ///
    /// If the future is dropped before its turn comes, nothing happens; what has begun is finished.
    ///
    /// # Errors
    ///
    /// When the core is closed already or the storage fails; the core is closed then, too.
    pub async fn destroy(&self) -> Result<()> {
        self.shared.alone(Shared::destroy).await
    }

    // ---- reading ----------------------------------------------------------------------------

    /// Block `index`, verified. If it is not stored here, waits until a peer has sent it, or until
    /// the log has grown that far.
    ///
    /// # Errors
    ///
    /// When the core is closed, when the stored block is damaged
    /// ([`is_corruption`](Error::is_corruption)), or when the storage fails; [`Error::Cancelled`];
    /// [`Error::BadRange`] for a block that no log has, from [`MAX_LENGTH`] on.
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
            if let Some(block) = self.shared.read_one(index)? {
                return Ok(block);
            }
            let request = {
                let mut core = self.shared.lock();
                core.log.files()?;
                if core.log.has(index) {
                    continue;
                }
                if !options.wait {
                    return Err(Error::BlockNotStored { index });
                }
                if index >= MAX_LENGTH {
                    // No peer may even be asked for it.
                    return Err(Error::BadRange {
                        start: index,
                        end: index.saturating_add(1),
                        length: core.log.length(),
                    });
                }
                let (id, answer) = core.want_block(index, options.if_available);
                Request::new(Arc::clone(&self.shared), id, answer)
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
        self.head_with(GetOptions::default()).await
    }

    /// The last block.
    ///
    /// # Errors
    ///
    /// [`Error::Empty`], or as [`get_with`](Self::get_with).
    pub async fn head_with(&self, options: GetOptions) -> Result<Bytes> {
        let last = self.length().checked_sub(1).ok_or(Error::Empty)?;
        self.get_with(last, options).await
    }

    /// Several blocks, asked for together. An open end means the present length, which is 0 in a
    /// clone that has not heard of a peer yet.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get).
    pub async fn get_batch(&self, blocks: impl RangeBounds<u64>) -> Result<Vec<Bytes>> {
        self.get_batch_with(blocks, GetOptions::default()).await
    }

    /// Several blocks, asked for together. The options hold for each of them.
    ///
    /// # Errors
    ///
    /// As [`get_with`](Self::get_with).
    pub async fn get_batch_with(
        &self,
        blocks: impl RangeBounds<u64>,
        options: GetOptions,
    ) -> Result<Vec<Bytes>> {
        let blocks = resolve(&blocks, self.length());
        // Taken back with this future, or with the first error.
        let _ahead = options.wait.then(|| self.download(blocks.clone()));
        let mut batch = Vec::new();
        let mut rest = blocks;
        while !rest.is_empty() {
            // If one of them cannot be read, it is found out which.
            let mut run = self.shared.read_run(rest.clone()).unwrap_or_default();
            if run.is_empty() {
                run.push(self.get_with(rest.start, options).await?);
            }
            rest.start = rest.start.saturating_add(run.len() as u64);
            batch.append(&mut run);
        }
        Ok(batch)
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
    /// [`Error::TimedOut`] as the options ask for. Also [`Error::OutOfBounds`] as soon as it is certain
    /// that the byte is in none of the [blocks](SeekOptions::blocks) that peers may be asked for.
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
            let sought = core.log.seek(offset)?;
            if let Sought::Found { index, offset } = sought {
                return Ok(Position { index, offset });
            }
            if !options.wait
                || offset > MAX_BYTE_LENGTH
                || !sought.may_be_in(&options.blocks, length)
            {
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
    /// new length. If nobody has more, that is when somebody has appended: to ask only once, see
    /// [`UpdateOptions::if_available`].
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
            let longer = length.saturating_add(1);
            let min_length = options.min_length.unwrap_or(longer);
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
    ///
    /// It fails with [`Error::Closed`] and [`Error::Cancelled`].
    pub fn download(&self, blocks: impl RangeBounds<u64>) -> Download {
        self.download_with(blocks, DownloadOptions::default())
    }

    /// Downloads `blocks` in the order that the options ask for. Otherwise as
    /// [`download`](Self::download).
    pub fn download_with(
        &self,
        blocks: impl RangeBounds<u64>,
        options: DownloadOptions,
    ) -> Download {
        self.request_blocks(resolve(&blocks, u64::MAX).into(), options)
    }

    /// Downloads these blocks. Otherwise as [`download`](Self::download).
    pub fn download_blocks(&self, blocks: impl IntoIterator<Item = u64>) -> Download {
        self.request_blocks(blocks.into_iter().collect(), DownloadOptions::default())
    }

    /// Fails everything that waits for a block of `blocks`, or for a range that lies within them,
    /// with [`Error::Cancelled`]. To take back one request, drop its future.
    pub fn cancel(&self, blocks: impl RangeBounds<u64>) {
        let blocks = resolve(&blocks, u64::MAX);
        self.shared.lock().replicator.demand.cancel_within(&blocks);
    }

    fn request_blocks(&self, blocks: BlockSet, options: DownloadOptions) -> Download {
        let mut core = self.shared.lock();
        let missing = match core.log.files() {
            Err(error) => Err(error),
            Ok(_) if options.hash => Ok(core.log.first_unproven(&blocks, 0)),
            Ok(_) => Ok(blocks.first_missing(0, core.log.bitfield())),
        };
        let answered = |result| Request::answered(Arc::clone(&self.shared), result);
        Download::new(match missing {
            Err(error) => answered(Err(error)),
            Ok(None) => answered(Ok(())),
            Ok(Some(missing)) => {
                let demand = &mut core.replicator.demand;
                let (id, answer) = if options.hash {
                    demand.download_hashes(blocks, missing)
                } else {
                    demand.download(blocks, options.order, missing)
                };
                self.ask(&mut core, id, answer)
            }
        })
    }

    // ---- replication ------------------------------------------------------------------------

    /// One end of an encrypted connection that exchanges this core: a duplex stream, to be
    /// [piped](Replication#piped) over any transport, or [run](Replication::run) over one.
    ///
    /// # Errors
    ///
    /// When the core is closed; [`Error::NotFinalized`]; [`Error::NoHandshake`] when the options ask for
    /// the remote's key and leave out the handshake; or when the operating system gives no randomness.
    pub fn replicate(&self, role: Role, options: ReplicateOptions) -> Result<Replication> {
        let replication = Replication::new(role, options)?;
        replication.add(self)?;
        Ok(replication)
    }

    /// Exchanges this core over `transport` until the connection ends. Nothing happens before the future is
    /// polled. It borrows nothing, so that a task can have it:
    ///
    /// ```
    /// use async_std::{net::TcpListener, task};
    /// use hypercore::{Hypercore, ReplicateOptions, Role};
    ///
    /// async fn serve(core: Hypercore, listener: TcpListener) -> std::io::Result<()> {
    ///     loop {
    ///         let (socket, _) = listener.accept().await?;
    ///         task::spawn(core.replicate_over(socket, Role::Responder, ReplicateOptions::live()));
    ///     }
    /// }
    /// ```
    ///
    /// # Errors
    ///
    /// As [`replicate`](Self::replicate) and [`Replication::run`].
    pub fn replicate_over<T: AsyncRead + AsyncWrite + Unpin>(
        &self,
        transport: T,
        role: Role,
        options: ReplicateOptions,
    ) -> impl Future<Output = Result<Ended>> + use<T> {
        let core = self.clone();
        async move {
            let replication = core.replicate(role, options)?;
            // Whether the files are held is up to the connection from here on.
            drop(core);
            replication.run(transport).await
        }
    }

    /// Starts or stops to ask peers for blocks. By default a core does unless it is writable. What was asked
    /// for before may still come. Connections that are there do as they are told now, whatever their
    /// options said; those to come, unless [their options](ReplicateOptions::download) say something.
    pub fn set_downloading(&self, downloading: bool) {
        let mut core = self.shared.lock();
        let Core {
            log, replicator, ..
        } = &mut *core;
        replicator.set_downloading(downloading, log);
    }

    /// Starts or stops to answer peers. One that comes later is answered unless this or
    /// [its options](ReplicateOptions::upload) say no.
    pub fn set_uploading(&self, uploading: bool) {
        self.shared.lock().replicator.set_uploading(uploading);
    }

    /// Registers a request that peers may be able to answer.
    fn ask<T>(&self, core: &mut Core, id: RequestId, answer: Receiver<Result<T>>) -> Request<T> {
        core.replicator.wake_all();
        core.replicator.settle(&core.log);
        Request::new(Arc::clone(&self.shared), id, answer)
    }
}

/// The blocks a range stands for, its open end being `end`. Those of one that ends before it starts are none.
pub(crate) fn resolve(range: &impl RangeBounds<u64>, end: u64) -> Range<u64> {
    let Range { start, end } = bounds(range, end);
    start..end.max(start)
}

/// The bounds of a range, its open end being `end`.
fn bounds(range: &impl RangeBounds<u64>, end: u64) -> Range<u64> {
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
    start..end
}
