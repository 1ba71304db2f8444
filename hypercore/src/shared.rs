//! What the handles of one core share: the lock, and what becomes durable when.
//!
//! An append goes to the disk in this order: blocks, nodes and signature; a sync, if the
//! [`Durability`] asks for one; then the bits that claim them, in memory and on the disk. Only then
//! does it return and are peers told. The bits need no sync of their own: what they claim is found
//! again without them, and every so often they are synced to keep that search short. Downloads are
//! stored at once, and their bits are written after a sync that many of them share.
//!
//! A bit goes to the disk when what it claims is durable, at every level: recovery rests on that.

use std::{
    fmt,
    ops::Range,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use bytes::Bytes;
use hypercore_merkle::{Block, ChangeSet, Proof, PublicKey, Roots, Signature, TreeHead, Verifier};
use hypercore_storage::FeedFiles;

use crate::{
    Durability,
    core::Core,
    error::{Corruption, Error, Result},
    event::PeerId,
    log::{self, Appends, CHECKPOINT_BLOCKS, Durable, GuardFile, Log, Trust, Unsynced},
    options::OnWrite,
    request::Audit,
    runtime,
    signer::Author,
    turns::Turns,
};

/// What the handles of one core share.
///
/// The lock on the core is held for as short as can be: values are hashed before it is taken, and
/// blocks are read after it is let go. Under it are written what was downloaded, so that nobody
/// else is asked for it meanwhile, and notes that are made once: headers, locks and proofs of forks.
pub(crate) struct Shared {
    core: Mutex<Core>,
    durability: Durability,
    /// Whether an append waits for a device.
    pub(crate) waits: bool,
    sparse: bool,
    pub(crate) on_write: Option<OnWrite>,
    pub(crate) turns: Mutex<Turns>,
    checkpoint: Mutex<Checkpoint>,
    /// Held while bitfield pages go to the disk, so that no older page overwrites a newer one.
    pages: Mutex<Pages>,
}

/// A core as its handles and connections share it.
pub(crate) type SharedCore = Arc<Shared>;

/// What is not durable of the bitfield that was written.
#[derive(Debug)]
struct Pages {
    unsynced: Unsynced,
    synced: Instant,
    /// How often in a row they could not be written.
    failures: u32,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

#[derive(Debug)]
struct Checkpoint {
    running: bool,
    last: Instant,
}

/// The bits of appends are synced after [`CHECKPOINT_BLOCKS`], after this many bytes,
const PAGES_BYTES: u64 = 64 * 1024 * 1024;

/// or with the first append after this time.
const PAGES_TIME: Duration = Duration::from_secs(1);

/// After so many failures to write the bitfield in a row the log takes no more writes.
const MAX_PAGE_FAILURES: u32 = 3;

/// Downloads become durable, and visible after a restart, after at most [`CHECKPOINT_BLOCKS`], this
/// many bytes,
const CHECKPOINT_BYTES: u64 = 16 * 1024 * 1024;

/// or this time, whichever comes first.
const CHECKPOINT_TIME: Duration = Duration::from_millis(500);

impl Shared {
    pub(crate) fn new(log: Log, sparse: bool, follow: bool, durability: Durability) -> Self {
        let never_waits = log.files().is_ok_and(|files| files.storage().never_waits());
        let mut core = Core::new(log);
        let reader = !core.log.is_writer();
        core.replicator.demand.everything = !sparse && reader;
        core.replicator.demand.newest_length = sparse && follow && reader;
        Self {
            core: Mutex::new(core),
            durability,
            waits: durability.waits() && !never_waits,
            sparse,
            on_write: None,
            turns: Mutex::default(),
            checkpoint: Mutex::new(Checkpoint {
                running: false,
                last: runtime::now(),
            }),
            pages: Mutex::new(Pages {
                unsynced: Unsynced::default(),
                synced: runtime::now(),
                failures: 0,
            }),
        }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Core> {
        lock(&self.core)
    }

    // ---- appending --------------------------------------------------------------------------

    /// Asks the hook about a block from elsewhere, if there is one and `proof` proves the block.
    /// Without the lock, because nobody knows how long it takes.
    pub(crate) fn ask_for_download(
        &self,
        index: u64,
        block: &Block,
        proof: &Proof,
        source: PeerId,
    ) -> Result<()> {
        let Some(on_write) = &self.on_write else {
            return Ok(());
        };
        let checked = self.lock().log.check(index, Some(block.clone()), proof);
        match checked {
            Ok(_) => on_write.ask(index, block.value(), Some(source)),
            // Whoever stores it will say so.
            Err(_) => Ok(()),
        }
    }

    /// Appends these blocks, as one. It must be the turn of whoever calls it.
    pub(crate) fn commit(&self, blocks: Vec<Block>) -> Result<Range<u64>> {
        let (files, roots, author) = {
            let mut core = self.lock();
            let (roots, author) = core.log.begin_append()?;
            (Arc::clone(core.log.files()?), roots, author)
        };
        let appending = Appending(self);
        let change = self
            .write(&files, || author.append(&roots, blocks))
            .map_err(|error| {
                if error.leaves_files_unknown {
                    self.lock().log.poison();
                }
                error.source
            })?;
        let mut core = self.lock();
        let durable = if self.durability.waits() {
            Durable::Yes
        } else {
            Durable::NotYet
        };
        let appended = core.finish_append(&change, durable);
        drop(core);
        drop(appending);
        if durable == Durable::Yes {
            // The blocks are safe whether or not their bits are: they are found again without them.
            if let Err(error) = self.write_pages() {
                tracing::warn!(%error, "the bitfield could not be written");
            }
            let mut pages = lock(&self.pages);
            pages.unsynced.blocks += change.blocks().len() as u64;
            pages.unsynced.bytes += change.blocks().iter().map(Block::size).sum::<u64>();
        }
        Ok(appended)
    }

    fn write(
        &self,
        files: &FeedFiles,
        change: impl FnOnce() -> Result<ChangeSet>,
    ) -> Result<ChangeSet, FailedWrite> {
        let change = change().map_err(FailedWrite::harmless)?;
        let length = change.start_block() + change.blocks().len() as u64;
        if !self.durability.waits() {
            self.expect_loss(files).map_err(FailedWrite::harmless)?;
        }
        files.reserve_pages(length).map_err(|error| FailedWrite {
            leaves_files_unknown: error.is_failed_sync(),
            source: error.into(),
        })?;
        if let Err(source) = log::write_append(files, &change) {
            // Without its signature the rest means nothing, and the next append overwrites it.
            let leaves_files_unknown = files.drop_append(change.start_block()).is_err();
            return Err(FailedWrite {
                source,
                leaves_files_unknown,
            });
        }
        // After a failed sync nobody knows what is on the disk.
        match self.durability {
            Durability::Interval(_) | Durability::OnClose => {}
            Durability::Always => files.sync_content().map_err(FailedWrite::unknown)?,
            Durability::Interop => self
                .sync_with_pages(files, &change)
                .map_err(FailedWrite::unknown)?,
        }
        Ok(change)
    }

    /// Whether the next append waits for a note, which those after it do not.
    pub(crate) fn has_to_note_loss(&self, core: &Core) -> bool {
        !self.durability.waits() && !core.log.expects_loss()
    }

    /// Notes durably that appends may be lost, before the first that nobody waits for.
    fn expect_loss(&self, files: &FeedFiles) -> Result<()> {
        let noted = self.lock().log.expect_loss()?;
        if let Some(file) = noted {
            file.sync_new(&**files.storage())?;
            self.lock().log.loss_is_noted();
        }
        Ok(())
    }

    /// Makes an append durable together with the pages that are going to claim it.
    fn sync_with_pages(
        &self,
        files: &FeedFiles,
        change: &ChangeSet,
    ) -> Result<(), hypercore_storage::Error> {
        let _order = lock(&self.pages);
        // The pages first: what else they claim was written before, and is synced now.
        let pages = self.lock().log.pages_after(change);
        files.sync_content()?;
        for (page, bytes) in &pages {
            files.write_page(*page, bytes)?;
        }
        files.sync_bitfield()
    }

    // ---- reading ----------------------------------------------------------------------------

    /// Block `index`, checked unless that was done before. None if it is not stored.
    pub(crate) fn read_one(&self, index: u64) -> Result<Option<Bytes>> {
        self.read_unlocked(
            |log| log.has(index).then(|| (index..index + 1, log.trust(index))),
            |files, stored, trust| {
                let block = log::read_one(files, index, trust)?;
                let check = if block.len() < log::SMALL {
                    Check::EveryTime
                } else {
                    Check::of(stored, trust)
                };
                Ok((block, check))
            },
        )
    }

    /// The first of `blocks`, and those after it that are stored and cost little to read with it;
    /// each is checked unless that was done before. Empty if the first is not stored.
    pub(crate) fn read_run(&self, blocks: Range<u64>) -> Result<Vec<Bytes>> {
        let read = self.read_unlocked(
            |log| Some(log.stored_run(blocks.clone())).filter(|(run, _)| !run.is_empty()),
            |files, run, trust| {
                let start = run.start;
                let read = log::read_run(files, run, trust)?;
                let end = start + read.len() as u64;
                Ok((read, Check::of(start..end, trust)))
            },
        );
        Ok(read?.unwrap_or_default())
    }

    /// Reads blocks without the lock: `find` says under it which are stored, and whether they were
    /// checked; `read` reads them, and says how they were checked now.
    ///
    /// Some may be cleared before they are read. What was read then is true if its hash is right, and
    /// otherwise they are looked for again. None if they are not stored.
    fn read_unlocked<T>(
        &self,
        find: impl Fn(&Log) -> Option<(Range<u64>, Trust)>,
        read: impl Fn(&FeedFiles, Range<u64>, Trust) -> Result<(T, Check)>,
    ) -> Result<Option<T>> {
        let mut may_trust = true;
        loop {
            let core = self.lock();
            let files = Arc::clone(core.log.files()?);
            let Some((stored, trust)) = find(&core.log) else {
                return Ok(None);
            };
            let cleared = core.log.cleared();
            drop(core);
            let trust = if may_trust { trust } else { Trust::Unknown };
            let read = match read(&files, stored, trust) {
                Ok((value, Check::EveryTime)) => return Ok(Some(value)),
                read => read,
            };
            let mut core = self.lock();
            let unchanged = core.log.cleared() == cleared;
            match read {
                Ok((value, Check::Now(blocks))) => {
                    if unchanged {
                        core.log.mark_checked(blocks);
                    }
                    return Ok(Some(value));
                }
                read if unchanged => return read.map(|(value, _)| Some(value)),
                // Hashed, the next is true whatever is cleared meanwhile.
                _ => may_trust = false,
            }
        }
    }

    // ---- checkpoints ------------------------------------------------------------------------

    /// Writes the pages of the bitfield that changed, after what they claim is durable.
    fn write_pages(&self) -> Result<()> {
        let mut state = lock(&self.pages);
        let (files, pages, unsynced, head) = {
            let mut core = self.lock();
            let files = Arc::clone(core.log.writable_files()?);
            let (pages, unsynced) = core.log.take_pages();
            (files, pages, unsynced, core.log.head())
        };
        if unsynced {
            self.sync(|| files.sync_content())?;
            self.lock().announce(&head);
        }
        let mut written = 0;
        let mut write = || {
            if !pages.is_empty() {
                // A writer has done that before.
                files.reserve_pages(head.length)?;
            }
            for (page, bytes) in &pages {
                files.write_page(*page, bytes)?;
                written += 1;
            }
            Ok(())
        };
        if let Err(error) = self.sync(&mut write) {
            let mut core = self.lock();
            core.log.put_back_pages(&pages[written..]);
            state.failures += 1;
            if state.failures >= MAX_PAGE_FAILURES {
                core.log.poison();
            }
            return Err(error);
        }
        state.failures = 0;
        Ok(())
    }

    /// Does something that syncs. When a sync fails nobody knows what is on the disk, and trying again
    /// would not tell.
    fn sync(&self, work: impl FnOnce() -> Result<(), hypercore_storage::Error>) -> Result<()> {
        work().map_err(|error| {
            if error.is_failed_sync() {
                self.lock().log.poison();
            }
            error.into()
        })
    }

    /// Syncs the bits of appends when there are enough of them.
    pub(crate) fn sync_pages_if_due(&self) -> Result<()> {
        let state = lock(&self.pages);
        let Unsynced { blocks, bytes } = state.unsynced;
        let late = runtime::now() >= state.synced + PAGES_TIME;
        drop(state);
        if blocks >= CHECKPOINT_BLOCKS || bytes >= PAGES_BYTES || (blocks > 0 && late) {
            self.sync_pages(None)
        } else {
            Ok(())
        }
    }

    /// Makes the pages that were written durable, and what is noted of the log: that its `appends`
    /// are, if they are.
    fn sync_pages(&self, appends: Option<Appends>) -> Result<()> {
        let files = Arc::clone(self.lock().log.writable_files()?);
        let mut state = lock(&self.pages);
        self.sync(|| files.sync_bitfield())?;
        let noted = {
            let mut core = self.lock();
            if let Some(appends) = appends {
                core.log.note_appends(appends);
            }
            core.log.noted()
        };
        if let Err(error) = sync_all(&noted) {
            tracing::warn!(%error, "the guard against forks could not be synced");
        }
        state.unsynced = Unsynced::default();
        state.synced = runtime::now();
        Ok(())
    }

    /// When the newest downloads are to be made durable.
    pub(crate) fn checkpoint_deadline(&self, unsynced: Unsynced) -> Option<Instant> {
        if self.durability == Durability::OnClose {
            return None;
        }
        let checkpoint = lock(&self.checkpoint);
        (unsynced.blocks > 0 && !checkpoint.running).then_some(checkpoint.last + CHECKPOINT_TIME)
    }

    /// Starts to make the newest downloads durable if it is time.
    pub(crate) fn checkpoint_if_due(self: &Arc<Self>, unsynced: Unsynced, now: Instant) {
        let enough = unsynced.blocks >= CHECKPOINT_BLOCKS || unsynced.bytes >= CHECKPOINT_BYTES;
        let late = now >= lock(&self.checkpoint).last + CHECKPOINT_TIME;
        if enough || late {
            self.checkpoint(unsynced);
        }
    }

    /// Starts to make the newest downloads durable, unless that is under way.
    pub(crate) fn checkpoint(self: &Arc<Self>, unsynced: Unsynced) {
        if self.durability == Durability::OnClose || unsynced.blocks == 0 {
            return;
        }
        if std::mem::replace(&mut lock(&self.checkpoint).running, true) {
            return;
        }
        let shared = Arc::clone(self);
        runtime::spawn_blocking(move || {
            shared.write_checkpoint();
            *lock(&shared.checkpoint) = Checkpoint {
                running: false,
                last: runtime::now(),
            };
            // Connections set their timers by it.
            shared.lock().replicator.wake_all();
        });
    }

    fn write_checkpoint(&self) {
        loop {
            let written = self.write_pages();
            let core = self.lock();
            match written {
                Ok(()) => {}
                // Whoever closes a core has made everything durable.
                Err(Error::Closed) => return,
                Err(error) => {
                    // It is tried again with what comes next.
                    return tracing::warn!(%error, "downloads could not be made durable");
                }
            }
            // What came meanwhile is left to the connections, as long as there are any.
            if core.replicator.has_peers() || core.log.unsynced().blocks == 0 {
                return;
            }
        }
    }

    /// Makes appends that did not wait for it durable when their time is over.
    pub(crate) fn sync_later(self: &Arc<Self>) {
        let Durability::Interval(interval) = self.durability else {
            return;
        };
        if self.lock().log.unsynced().blocks == 0
            || std::mem::replace(&mut lock(&self.checkpoint).running, true)
        {
            return;
        }
        let shared = Arc::downgrade(self);
        runtime::spawn_blocking_after(interval, move || {
            // Whoever closes a core has made everything durable.
            let Some(shared) = shared.upgrade() else {
                return;
            };
            *lock(&shared.checkpoint) = Checkpoint {
                running: false,
                last: runtime::now(),
            };
            match shared.write_pages() {
                Ok(()) | Err(Error::Closed) => {}
                Err(error) => tracing::warn!(%error, "appends could not be made durable"),
            }
        });
    }

    pub(crate) fn flush(&self) -> Result<()> {
        self.flush_and_note(Appends::Durable)
    }

    fn flush_and_note(&self, appends: Appends) -> Result<()> {
        let files = Arc::clone(self.lock().log.writable_files()?);
        self.sync(|| files.sync_content())?;
        self.write_pages()?;
        self.sync_pages(Some(appends))
    }

    /// Makes the hash of a static log its key. No append may be under way.
    pub(crate) fn finalize(&self) -> Result<PublicKey> {
        let (key, is_unfinished) = {
            let core = self.lock();
            (core.log.key(), core.log.is_unfinished())
        };
        if is_unfinished {
            // The key is the record that the log is whole: before it, all else is durable.
            self.flush()?;
            let files = Arc::clone(self.lock().log.writable_files()?);
            files.write_key(key.as_bytes())?;
            self.sync(|| files.sync_keys())?;
            let mut core = self.lock();
            core.log.finish_static();
            // From now on it is a clone like any other, if a whole one.
            core.replicator.demand.everything = !self.sparse;
        }
        Ok(key)
    }

    /// Makes everything durable and takes the mark away that the log is open. No append may be
    /// under way.
    pub(crate) fn finish(&self) -> Result<()> {
        self.flush_and_note(Appends::Closed)?;
        let core = self.lock();
        if let Some(length) = core.log.marked_length() {
            core.log.files()?.mark_closed(length)?;
        }
        Ok(())
    }

    /// Takes back all blocks from `length` on.
    pub(crate) fn truncate(&self, length: u64) -> Result<()> {
        let (files, roots, author, verifier, old) = {
            let mut core = self.lock();
            let old = core.log.length();
            if length > old {
                let (start, end) = (length, old);
                let length = old;
                return Err(Error::BadRange { start, end, length });
            }
            let roots = core.log.roots_at(length)?;
            let files = Arc::clone(core.log.files()?);
            let (_, author) = core.log.begin_append()?;
            (files, roots, author, core.log.verifier(), old)
        };
        let appending = Appending(self);
        // The signature first: a log that ends where it never ended before has none.
        sign_end(&files, &roots, &author, &verifier, old)?;
        self.sync(|| files.sync_content())?;
        // Whoever cuts a log has said that its history is to be another one. Noted afterwards, a log
        // that was cut right before a loss of power would lack what was signed.
        self.note_durably(&roots.head())?;
        let result = self.cut(&files, roots, length..old);
        drop(appending);
        if result.is_err() {
            // The log in the files could be the old one or the new one.
            self.lock().log.poison();
        }
        result
    }

    /// Takes `blocks`, the last of the log, out of the bitfield and then out of the other files: a
    /// bit that is set speaks of something that is there.
    fn cut(&self, files: &FeedFiles, roots: Roots, blocks: Range<u64>) -> Result<()> {
        let (length, byte_length) = (roots.length(), roots.byte_length());
        {
            let mut core = self.lock();
            core.log.finish_truncate(roots);
            core.clear(blocks)?;
        }
        // Nobody waits for a truncation in vain, at any level: cut short by a loss of power, it leaves
        // some of the blocks, and once it is over none comes back.
        self.write_pages()?;
        files.sync_bitfield()?;
        files.mark_open(length)?;
        files.sync_content()?;
        files.truncate_tree(length)?;
        files.truncate_data(byte_length)?;
        Ok(())
    }

    /// Notes durably that the log may end at `head`, whatever was noted before.
    pub(crate) fn note_durably(&self, head: &TreeHead) -> Result<()> {
        let noted = {
            let mut core = self.lock();
            core.log.note_end(head)?;
            core.log.noted()
        };
        sync_all(&noted)
    }

    /// Closes the core and removes its files.
    pub(crate) fn destroy(&self) -> Result<()> {
        let files = {
            let mut core = self.lock();
            let files = Arc::clone(core.log.files()?);
            core.close();
            files
        };
        // A page that is being written now would come back otherwise.
        let _order = lock(&self.pages);
        files.destroy()?;
        log::forget(&files)
    }

    // ---- whole-log work ---------------------------------------------------------------------

    pub(crate) fn clear(&self, blocks: Range<u64>) -> Result<u64> {
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
            self.sync_pages(None)?;
        }
        for run in runs {
            // Some may be here again meanwhile, and no more may come while the space is freed.
            let core = self.lock();
            let missing = core.log.missing(run);
            log::drop_blocks(&files, &missing)?;
        }
        Ok(self.lock().log.bitfield().total())
    }

    pub(crate) fn audit(&self) -> Result<Audit> {
        let (files, runs) = {
            let core = self.lock();
            let runs: Vec<_> = core.log.bitfield().runs(0..u64::MAX).collect();
            (Arc::clone(core.log.files()?), runs)
        };
        let mut audit = Audit::default();
        for index in runs.into_iter().flatten() {
            match log::read_block(&files, index) {
                Ok(_) => audit.valid += 1,
                Err(error) if error.is_corruption() => match self.is_damaged(&files, index)? {
                    Some(true) => audit.invalid.push(index),
                    Some(false) => audit.valid += 1,
                    None => {}
                },
                Err(error) => return Err(error),
            }
        }
        Ok(audit)
    }

    /// Looks at a block again that was not whole: perhaps it was cleared meanwhile, and downloaded
    /// again. `None` if it is not stored. Nothing changes it under the lock.
    fn is_damaged(&self, files: &FeedFiles, index: u64) -> Result<Option<bool>> {
        let core = self.lock();
        if !core.log.has(index) {
            return Ok(None);
        }
        match log::read_block(files, index) {
            Ok(_) => Ok(Some(false)),
            Err(error) if error.is_corruption() => Ok(Some(true)),
            Err(error) => Err(error),
        }
    }
}

/// When the hashes of blocks that were read were compared with those of the tree.
enum Check {
    /// Now, as always with blocks so small: it is not worth the lock to note that.
    EveryTime,
    /// Now, so that these need not be hashed again.
    Now(Range<u64>),
    /// Before, and nobody knows whether what was read is what was hashed, if blocks were cleared since.
    Before,
}

impl Check {
    /// That of `blocks`, which were read by one who trusted them so far.
    const fn of(blocks: Range<u64>, trust: Trust) -> Self {
        match trust {
            Trust::Checked => Self::Before,
            Trust::Unknown => Self::Now(blocks),
        }
    }
}

/// Makes the log ready to end with `roots` instead of after `old` blocks. Its pages may be torn from
/// now on, so it counts as open.
fn sign_end(
    files: &FeedFiles,
    roots: &Roots,
    author: &Author,
    verifier: &Verifier,
    old: u64,
) -> Result<()> {
    files.mark_open(old)?;
    let Some(last) = roots.length().checked_sub(1) else {
        return Ok(());
    };
    let stored = files.signature(last)?;
    let stored = stored.and_then(|stored| Signature::try_from(&stored[..]).ok());
    if stored.is_some_and(|stored| verifier.verify(&roots.head(), &stored)) {
        return Ok(());
    }
    if let Some(signature) = author.sign(&roots.head())? {
        let slot = signature.as_bytes().try_into();
        let slot = slot.map_err(|_| Corruption::Signature { length: last + 1 })?;
        files.write_signature(last, slot)?;
    }
    Ok(())
}

fn sync_all(files: &[GuardFile]) -> Result<()> {
    files.iter().try_for_each(GuardFile::sync)
}

impl Drop for Shared {
    fn drop(&mut self) {
        // Nobody is left to hear of an error; `close` is for those who want to.
        if self.lock().log.files().is_ok() {
            let _ = self.finish();
        }
    }
}

/// The head of a log is reserved for an append, until that is over, whatever becomes of it: a signer
/// may panic.
struct Appending<'a>(&'a Shared);

impl Drop for Appending<'_> {
    fn drop(&mut self) {
        self.0.lock().log.abort_append();
    }
}

/// Why an append was not written.
struct FailedWrite {
    source: Error,
    /// Whether the files may hold anything now, so that only opening them anew can tell.
    leaves_files_unknown: bool,
}

impl FailedWrite {
    fn unknown(source: hypercore_storage::Error) -> Self {
        Self {
            source: source.into(),
            leaves_files_unknown: true,
        }
    }

    const fn harmless(source: Error) -> Self {
        Self {
            source,
            leaves_files_unknown: false,
        }
    }
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Every change under these locks is made of steps that each leave a usable state.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
