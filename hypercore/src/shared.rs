//! What the handles of one core share: the lock, and what becomes durable when.
//!
//! An append goes to the disk in this order: blocks, nodes and signature; a sync, if the
//! [`Durability`] asks for one; then the bits that claim them, in memory and on the disk. Only then
//! does it return and are peers told. The bits need no sync of their own: what they claim is found
//! again without them, and every so often they are synced to keep that search short. Downloads are
//! stored at once, and their bits are written after a sync that many of them share.
//!
//! A bit goes to the disk when what it claims is durable, at every level: recovery rests on that.

mod checkpoint;
mod reading;
#[cfg(test)]
mod tests;

use std::{
    fmt,
    ops::Range,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use hypercore_merkle::{Block, ChangeSet, Proof, PublicKey, Roots, Signature, TreeHead, Verifier};
use hypercore_storage::FeedFiles;

use self::checkpoint::{Checkpoint, Pages};
use crate::{
    Durability,
    core::{Core, appended_blocks},
    error::{Error, Result},
    event::PeerId,
    log::{self, Appends, Durable, GuardFile, Log, Unsynced},
    options::OnWrite,
    signer::{Author, Checking},
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

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

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
            checkpoint: Mutex::new(Checkpoint::new()),
            pages: Mutex::new(Pages::new()),
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
            .write(&files, || {
                author.append(&roots, blocks, Checking::of(&files))
            })
            .map_err(|error| {
                if error.leaves_files_unknown {
                    self.lock().log.poison();
                }
                error.source
            })?;
        let mut core = self.lock();
        if let Err(error) = core.log.check_lock() {
            drop(core);
            // More was signed, as a peer has shown meanwhile. Of this append nobody has heard.
            if self.take_back(&files, &change).is_err() {
                self.lock().log.poison();
            }
            return Err(error);
        }
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
            let Unsynced { blocks, bytes } = &mut pages.unsynced;
            *blocks = blocks.saturating_add(change.blocks().len() as u64);
            *bytes = bytes.saturating_add(change.blocks().iter().map(Block::size).sum());
        }
        Ok(appended)
    }

    fn write(
        &self,
        files: &FeedFiles,
        change: impl FnOnce() -> Result<ChangeSet>,
    ) -> Result<ChangeSet, FailedWrite> {
        let change = change().map_err(FailedWrite::harmless)?;
        // A signer may be slow, and a peer may have proven a longer log meanwhile.
        self.lock()
            .log
            .check_lock()
            .map_err(FailedWrite::harmless)?;
        let length = appended_blocks(&change).end;
        if !self.durability.waits() {
            self.expect_loss().map_err(FailedWrite::harmless)?;
        }
        files.reserve_pages(length).map_err(|error| FailedWrite {
            leaves_files_unknown: error.is_failed_sync(),
            source: error.into(),
        })?;
        if let Err(source) = log::write_append(files, &change) {
            // Without its signature the rest means nothing, and the next append overwrites it.
            let leaves_files_unknown = files.drop_append(change.start_block()).is_err();
            if !leaves_files_unknown {
                free_append(files, &change);
            }
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

    /// Takes an append back that was written: first the bits that claim it, then its signature.
    fn take_back(&self, files: &FeedFiles, change: &ChangeSet) -> Result<()> {
        if self.durability == Durability::Interop {
            let _order = lock(&self.pages);
            let pages = self.lock().log.pages_before(change);
            // They may claim what came during the append.
            files.sync_content()?;
            for (page, bytes) in &pages {
                files.write_page(*page, bytes)?;
            }
            files.sync_bitfield()?;
        }
        files.drop_append(change.start_block())?;
        files.sync_content()?;
        free_append(files, change);
        Ok(())
    }

    /// Whether the next append waits for a note, which those after it do not.
    pub(crate) fn has_to_note_loss(&self, core: &Core) -> bool {
        !self.durability.waits() && !core.log.expects_loss()
    }

    /// Notes durably that appends may be lost, before the first that nobody waits for.
    fn expect_loss(&self) -> Result<()> {
        let noted = self.lock().log.expect_loss()?;
        if let Some(file) = noted {
            file.sync()?;
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

    pub(crate) fn flush(&self) -> Result<()> {
        self.flush_and_note(Appends::Durable)
    }

    fn flush_and_note(&self, appends: Appends) -> Result<()> {
        let files = {
            let core = self.lock();
            let files = Arc::clone(core.log.writable_files()?);
            if Checking::of(&files) == Checking::WhenShown {
                // Whoever opens the log again goes by it.
                core.log.signature(core.log.length())?;
            }
            files
        };
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
            // A loss of power may leave any other key: with the mark behind what no key vouches for, it is
            // not taken for that of a clone.
            files.mark_open(self.lock().log.length())?;
            self.sync(|| files.sync_content())?;
            files.write_key(key.as_bytes())?;
            self.sync(|| files.sync_keys())?;
            let mut core = self.lock();
            core.log.finish_static();
            // From now on it is a clone like any other, if a whole one.
            core.replicator.demand.everything = !self.sparse;
            drop(core);
            // No block of it was ever signed.
            files.mark_closed(0)?;
        }
        Ok(key)
    }

    /// Makes everything durable and takes the mark away that the log is open. No append may be
    /// under way.
    pub(crate) fn finish(&self) -> Result<()> {
        if self.lock().log.is_only_read() {
            return Ok(());
        }
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
                let (start, end, length) = (0, length, old);
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
        if result.is_err() {
            // The log in the files could be the old one or the new one.
            self.lock().log.poison();
        }
        drop(appending);
        result
    }

    /// Takes `blocks`, the last of the log, out of the bitfield and then out of the other files: a
    /// bit that is set speaks of something that is there.
    fn cut(&self, files: &FeedFiles, roots: Roots, blocks: Range<u64>) -> Result<()> {
        let (length, byte_length) = (roots.length(), roots.byte_length());
        let noted = {
            let mut core = self.lock();
            // Again: whoever was making the old end durable may have noted that.
            core.log.note_end(&roots.head())?;
            core.log.finish_truncate(roots);
            core.clear(blocks)?;
            core.log.noted()
        };
        sync_all(&noted)?;
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

    /// Notes durably that the log may end at `head`, whatever was noted before. Fails if more was signed
    /// than is here.
    pub(crate) fn note_durably(&self, head: &TreeHead) -> Result<()> {
        let noted = {
            let mut core = self.lock();
            core.log.note_end(head)?;
            core.log.noted()
        };
        sync_all(&noted)
    }

    /// Lets appends go on from here, if all blocks from `start` on are here: returns the length then. No
    /// append may be under way.
    pub(crate) fn end_resume(&self, start: u64) -> Result<Option<u64>> {
        let head = {
            let core = self.lock();
            core.log.check_signed()?;
            core.log.head()
        };
        // What is noted must never be more than what a loss of power leaves.
        self.flush()?;
        let noted = {
            let mut core = self.lock();
            if !core.log.note_whole(&head, start)? {
                return Ok(None);
            }
            core.log.noted()
        };
        sync_all(&noted)?;
        let mut core = self.lock();
        // A peer may have shown more in the meantime.
        core.log.check_signed()?;
        Ok(core.log.unlock().then_some(head.length))
    }

    /// Lets appends go on from here, whatever was signed, also after a loss of power. No append may be
    /// under way.
    pub(crate) fn accept_fork_risk(&self) -> Result<()> {
        // The note must not say more than is durable.
        let head = self.lock().log.head();
        self.flush()?;
        let noted = {
            let mut core = self.lock();
            core.log.files()?;
            core.log.note_end_anyway(&head)?;
            core.log.noted()
        };
        sync_all(&noted)?;
        self.lock().log.unlock();
        Ok(())
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
        files.reset()?;
        // Before the lock goes with the bitfield: whoever waits for it makes a log with a guard.
        log::forget(&files)?;
        Ok(files.destroy()?)
    }

    // ---- whole-log work ---------------------------------------------------------------------

    /// Clears the blocks that `blocks` names in a log of that length.
    pub(crate) fn clear(&self, blocks: impl FnOnce(u64) -> Range<u64>) -> Result<u64> {
        let (files, runs) = {
            let mut core = self.lock();
            let length = core.log.length();
            let blocks = blocks(length);
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
        for mut run in runs {
            // A piece at a time: everybody else waits for the lock.
            while !run.is_empty() {
                let core = self.lock();
                let most = blocks_of_a_piece(&core.log);
                let end = run.end.min(run.start.saturating_add(most));
                // Some may be here again meanwhile, and no more may come while the space is freed.
                let missing = core.log.missing(run.start..end);
                log::drop_blocks(&files, &missing)?;
                run.start = end;
            }
        }
        Ok(self.lock().log.bitfield().total())
    }
}

/// So many bytes of cleared blocks are freed at a time, where blocks are of the usual size.
const PIECE: u64 = 16 << 20;

/// And at most so many blocks.
const MOST_BLOCKS: u64 = 65_536;

/// How many blocks may be freed at a time. Each is looked at as long as all are empty, and a piece that is
/// small would leave much of what the file system frees as a whole.
fn blocks_of_a_piece(log: &Log) -> u64 {
    let size = log.byte_length().checked_div(log.length());
    let fitting = size.and_then(|size| PIECE.checked_div(size));
    // Any number of blocks without bytes fits.
    fitting.map_or(MOST_BLOCKS, |blocks| blocks.clamp(1, MOST_BLOCKS))
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
    let stored = files.signature(last)?.map(Signature::from);
    if stored.is_some_and(|stored| verifier.verify(&roots.head(), &stored)) {
        return Ok(());
    }
    if let Some(signature) = author.sign(&roots.head())? {
        files.write_signature(last, signature.as_bytes())?;
    }
    Ok(())
}

/// Gives the room back of an append that could not be written, or was taken back: on a full disk there
/// would be none to open the log again, and behind the end of a closed one nothing stands.
fn free_append(files: &FeedFiles, change: &ChangeSet) {
    let freed = files
        .truncate_tree(change.start_block())
        .and_then(|()| files.truncate_data(change.byte_offset()));
    if let Err(error) = freed {
        tracing::warn!(%error, "what could not be written is left in part");
    }
}

fn sync_all(files: &[GuardFile]) -> Result<()> {
    files.iter().try_for_each(GuardFile::sync)
}

impl Drop for Shared {
    fn drop(&mut self) {
        let is_open = self.lock().log.files().is_ok();
        if is_open && let Err(error) = self.finish() {
            // Nobody is left to be told; `close` is for those who want to be.
            tracing::warn!(%error, "a core was dropped, and is not all on the disk");
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
