//! One log: its files, which blocks and nodes are there, and how both change together.
//!
//! Everything here is synchronous and knows nothing of peers. What changes a [`Log`] runs under
//! the lock of [`crate::Hypercore`]; the functions that read or write blocks without needing the
//! lock take the files alone.

mod append;
mod blocks;
mod download;
mod guard;
mod history;
mod inspect;
mod open;
mod recover;
mod repair;
mod torn;
mod tree;
mod witness;

use std::{cell::Cell, ops::Range, sync::Arc};

use hypercore_bitfield::Bitfield;
use hypercore_merkle::{ChangeSet, DiscoveryKey, NodeIndex, PublicKey, Roots, TreeHead, Verifier};
use hypercore_storage::FeedFiles;

pub(crate) use self::append::{Durable, write_append};
pub(crate) use self::blocks::{drop_blocks, read_block, read_run};
pub(crate) use self::download::{Answer, Taken};
pub use self::guard::AppendLock;
use self::guard::Guard;
pub(crate) use self::guard::{Appends, GuardFile};
pub use self::inspect::{Problem, Verification};
pub(crate) use self::inspect::{Snapshot, verify_storage};
pub(crate) use self::open::{Existing, Setup};
pub(crate) use self::recover::CHECKPOINT_BLOCKS;
pub use self::recover::Recovery;
pub use self::repair::Repair;
pub(crate) use self::repair::repair_storage;
pub(crate) use self::tree::Sought;
use self::tree::{TreeBits, set_bits};
pub(crate) use self::witness::Witness;
use crate::{
    error::{Error, Result},
    fork::ForkProof,
    signer::Author,
};

/// How the newest length is vouched for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Vouched {
    /// By the signature of its last block, or there is nothing to vouch for.
    Signed,
    /// By the key itself, which is the hash of the whole tree: a finished log without signatures.
    Static,
    /// By nothing: the signature of the last block is missing. Such a log is read, never appended to.
    Unsigned,
    /// By nothing that may be built on: blocks are damaged that the bitfield claims.
    Damaged,
}

/// One log.
pub(crate) struct Log {
    /// Gone once the log is closed, and the lock on them with it.
    files: Option<Arc<FeedFiles>>,
    key: PublicKey,
    discovery_key: DiscoveryKey,
    author: Option<Arc<Author>>,
    verifier: Arc<Verifier>,
    vouched: Vouched,
    bitfield: Bitfield,
    /// How often blocks were taken out.
    cleared: u64,
    /// The length whose signature was last found right to be shown.
    shown_length: Cell<u64>,
    roots: Roots,
    head: TreeHead,
    recovery: Option<Recovery>,
    guard: Option<Guard>,
    /// Why nothing may be appended, if that is so.
    lock: Option<AppendLock>,
    /// How often its writer was asked to take in what others have of it.
    resuming: u32,
    /// How long it was before the first of that was taken in, until nothing is missing.
    resumed_from: Option<u64>,
    fork: Option<Box<ForkProof>>,
    /// Between `begin_append` and its end: nobody else may change the head.
    appending: bool,
    /// What it holds is about to be made durable for the last time: nothing more is taken in.
    closing: bool,
    poisoned: bool,
    /// Its end was found and could not be put right: no write was ever possible.
    only_read: bool,
    /// The headers of the files are there: a creation that was cut short may have left none.
    headers_written: bool,
    /// An append was written, and with it the mark of a log that is open.
    marked: bool,
    /// Downloaded since the last sync, so the bitfield may not claim it on disk yet. Of appends that
    /// did not wait for one, `withheld` tells.
    unsynced: Unsynced,
    /// Peers know of no blocks from here on, because those are not durable. They could be lost, and
    /// others signed in their place.
    withheld: Option<u64>,
}

/// Blocks that have not been made durable: downloads.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Unsynced {
    pub(crate) blocks: u64,
    pub(crate) bytes: u64,
}

impl Log {
    /// The files, or an error if the log takes no more requests.
    pub(crate) fn files(&self) -> Result<&Arc<FeedFiles>> {
        self.files.as_ref().ok_or(Error::Closed)
    }

    /// Lets nothing in any more that comes from elsewhere: it would not become durable.
    pub(crate) fn begin_close(&mut self) {
        self.closing = true;
    }

    /// Fails if it is closed, or about to be.
    pub(crate) fn check_open(&self) -> Result<()> {
        match &self.files {
            Some(_) if !self.closing => Ok(()),
            _ => Err(Error::Closed),
        }
    }

    pub(crate) fn key(&self) -> PublicKey {
        self.key
    }

    pub(crate) fn verifier(&self) -> Arc<Verifier> {
        Arc::clone(&self.verifier)
    }

    pub(crate) fn discovery_key(&self) -> DiscoveryKey {
        self.discovery_key
    }

    pub(crate) fn length(&self) -> u64 {
        self.head.length
    }

    pub(crate) fn byte_length(&self) -> u64 {
        self.head.byte_length
    }

    pub(crate) fn is_writable(&self) -> bool {
        self.check_append().is_ok()
    }

    /// Whether the log is written here and nowhere else, also if it was found damaged: then nobody
    /// appends, and no longer log is taken in all the same.
    pub(crate) fn is_writer(&self) -> bool {
        self.is_original() && self.files.is_some()
    }

    /// Whether the log is written here, also if it was closed.
    pub(crate) const fn is_original(&self) -> bool {
        self.author.is_some()
    }

    /// Whether `author` made the log what it is, or its signer did elsewhere.
    fn is_vouched_by(&self, author: &Author) -> bool {
        match self.vouched {
            Vouched::Signed => true,
            Vouched::Static => author.is_unsigned(),
            Vouched::Unsigned | Vouched::Damaged => false,
        }
    }

    /// Whether somebody vouches for the newest length.
    const fn is_vouched(&self) -> bool {
        matches!(self.vouched, Vouched::Signed | Vouched::Static)
    }

    /// Whether the log is static and more can be appended to it, so that it has no key yet.
    pub(crate) fn is_unfinished(&self) -> bool {
        self.author.as_deref().is_some_and(Author::is_unsigned)
    }

    /// The log is static and ends here: its key says so and is stored.
    pub(crate) fn finish_static(&mut self) {
        self.author = None;
    }

    pub(crate) fn bitfield(&self) -> &Bitfield {
        &self.bitfield
    }

    pub(crate) fn has(&self, block: u64) -> bool {
        self.bitfield.get(block)
    }

    pub(crate) fn recovery(&self) -> Option<&Recovery> {
        self.recovery.as_ref()
    }

    /// The blocks from `blocks.start` on that are stored without a gap.
    pub(crate) fn stored_run(&self, blocks: Range<u64>) -> Range<u64> {
        let end = self.bitfield.next_clear(blocks.start);
        blocks.start..end.min(blocks.end)
    }

    /// Goes up whenever blocks are taken out: as long as it stays the same, what was stored is.
    pub(crate) fn cleared(&self) -> u64 {
        self.cleared
    }

    /// What [`verify`](crate::Hypercore::verify) needs, to do without the lock.
    pub(crate) fn snapshot(&self) -> Result<Snapshot> {
        Ok(Snapshot {
            files: Arc::clone(self.files()?),
            verifier: Arc::clone(&self.verifier),
            bitfield: self.bitfield.clone(),
            length: self.head.length,
        })
    }

    /// From now on every operation fails with [`Error::Closed`]. Returns whether it was open.
    pub(crate) fn close(&mut self) -> bool {
        self.files.take().is_some()
    }

    /// The files, if they may be written.
    pub(crate) fn writable_files(&self) -> Result<&Arc<FeedFiles>> {
        if self.poisoned {
            Err(Error::Poisoned)
        } else {
            self.files()
        }
    }

    /// The files, ready to be written to.
    fn prepare_write(&mut self) -> Result<Arc<FeedFiles>> {
        self.prepare_files().inspect_err(|error| {
            if error.is_failed_sync() {
                self.poisoned = true;
            }
        })
    }

    fn prepare_files(&mut self) -> Result<Arc<FeedFiles>> {
        let files = Arc::clone(self.writable_files()?);
        if !self.headers_written {
            open::write_headers(&files)?;
            // What was put right at opening: bits that are false now could look true after this write.
            let pages = take_pages(&mut self.bitfield);
            let written = pages
                .iter()
                .try_for_each(|(page, bytes)| files.write_page(*page, bytes));
            if let Err(error) = written {
                self.put_back_pages(&pages);
                return Err(error.into());
            }
            // Bits that somebody else wrote may not be durable either, and are not looked for far back.
            files.sync_bitfield()?;
            self.headers_written = true;
        }
        Ok(files)
    }

    /// No write is trusted any more: what the files hold is unknown until they are opened anew.
    pub(crate) fn poison(&mut self) {
        self.poisoned = true;
    }

    /// Whether nothing was ever written to it since it was opened, because that was not possible.
    pub(crate) fn is_only_read(&self) -> bool {
        self.only_read
    }

    // ---- what peers may know ----------------------------------------------------------------

    /// The state of the log.
    pub(crate) fn head(&self) -> TreeHead {
        self.head
    }

    /// The length that peers may know of.
    pub(crate) fn public_length(&self) -> u64 {
        self.withheld.unwrap_or(self.head.length)
    }

    /// Whether appends wait to be made durable.
    pub(crate) fn is_withholding(&self) -> bool {
        self.withheld.is_some()
    }

    /// Peers may know of the first `length` blocks. Returns those that they did not know of, also if they
    /// were cleared.
    pub(crate) fn release(&mut self, length: u64) -> Option<Range<u64>> {
        let start = self.withheld.take()?;
        let length = length.min(self.head.length);
        if length < self.head.length {
            self.withheld = Some(length.max(start));
        }
        (start < length).then_some(start..length)
    }

    // ---- changes --------------------------------------------------------------------------

    /// Takes the bits, roots and head of a change for its own. Adds the nodes that were not known
    /// before to `added`.
    fn adopt(&mut self, change: &ChangeSet, added: &mut Vec<NodeIndex>) {
        let longer = change.head().filter(|head| head.length > self.head.length);
        if longer.is_some() {
            // A damaged file may claim what never was. It is believed once the log is that long.
            self.bitfield.truncate(self.head.length);
        }
        set_bits(&mut self.bitfield, change, added);
        if let (Some(head), Some(roots)) = (longer, change.roots()) {
            self.set_end(*head, roots.clone());
            // What is damaged here stays that, and may be more than peers have: opening finds out.
            if self.is_vouched() || !self.is_writer() {
                self.vouched = if change.signature().is_some() {
                    Vouched::Signed
                } else {
                    Vouched::Static
                };
            }
        }
    }

    /// The log ends with `head`, that of `roots`: who has it need not hash them again.
    fn set_end(&mut self, head: TreeHead, roots: Roots) {
        self.head = head;
        self.roots = roots;
        if self.is_unfinished() {
            self.key = PublicKey::from(self.head.hash);
            self.discovery_key = self.key.discovery_key();
            self.verifier = Arc::new(Verifier::new(&self.key));
        }
    }

    // ---- clearing and checkpoints ---------------------------------------------------------

    /// Takes blocks out of the bitfield; returns the runs that were stored. Their bytes are
    /// dropped by [`drop_blocks`] once the bitfield is durable, never before.
    pub(crate) fn clear_bits(&mut self, blocks: Range<u64>) -> Result<Vec<Range<u64>>> {
        self.writable_files()?;
        let runs: Vec<_> = self.bitfield.runs(blocks.clone()).collect();
        if !runs.is_empty() {
            self.prepare_write()?;
        }
        self.cleared = self.cleared.wrapping_add(1);
        self.bitfield.set_range(blocks, false);
        Ok(runs)
    }

    /// The runs of `blocks` that are not stored.
    pub(crate) fn missing(&self, blocks: Range<u64>) -> Vec<Range<u64>> {
        let mut missing = Vec::new();
        let mut next = blocks.start;
        for stored in self.bitfield.runs(blocks.clone()) {
            missing.push(next..stored.start);
            next = stored.end;
        }
        missing.push(next..blocks.end);
        missing.retain(|run| !run.is_empty());
        missing
    }

    pub(crate) fn unsynced(&self) -> Unsynced {
        self.unsynced
    }

    /// The changed pages of the bitfield, ready to be written, and whether what they claim has
    /// to be synced first.
    pub(crate) fn take_pages(&mut self) -> (Vec<(u64, Vec<u8>)>, bool) {
        if !self.headers_written {
            // What was put right at opening is written with what comes. Without that, a log that
            // is opened and closed stays as it is.
            return (Vec::new(), false);
        }
        self.bitfield.reserve(self.head.length);
        let pages = take_pages(&mut self.bitfield);
        let has_downloads = std::mem::take(&mut self.unsynced).blocks > 0;
        (pages, has_downloads || self.is_withholding())
    }

    /// The pages that are going to be changed when `change` is part of the log.
    pub(crate) fn pages_after(&self, change: &ChangeSet) -> Vec<(u64, Vec<u8>)> {
        let mut bitfield = self.bitfield.clone();
        set_bits(&mut bitfield, change, &mut Vec::new());
        take_pages(&mut bitfield)
    }

    /// What the pages of [`pages_after`](Self::pages_after) are without the change.
    pub(crate) fn pages_before(&self, change: &ChangeSet) -> Vec<(u64, Vec<u8>)> {
        let pages = self.pages_after(change).into_iter();
        pages
            .map(|(page, _)| encode_page(&self.bitfield, page))
            .collect()
    }

    /// These pages could not be written.
    pub(crate) fn put_back_pages(&mut self, pages: &[(u64, Vec<u8>)]) {
        for &(page, _) in pages {
            self.bitfield.mark_dirty(page);
        }
    }
}

fn encode_page(bitfield: &Bitfield, page: u64) -> (u64, Vec<u8>) {
    let mut bytes = vec![0; bitfield.page_size().bytes()];
    bitfield.encode_page(page, &mut bytes);
    (page, bytes)
}

/// The dirty pages as the file stores them; they are dirty no more.
fn take_pages(bitfield: &mut Bitfield) -> Vec<(u64, Vec<u8>)> {
    let pages = bitfield.take_dirty().into_iter();
    pages.map(|page| encode_page(bitfield, page)).collect()
}

/// Forgets what was noted of a log that is gone.
pub(crate) fn forget(files: &FeedFiles) -> Result<()> {
    Guard::remove(&**files.storage())
}
