//! One log: its files, which blocks and nodes are there, and how both change together.
//!
//! Everything here is synchronous and knows nothing of peers. What changes a [`Log`] runs under
//! the lock of [`crate::Hypercore`]; the functions that read or write blocks without needing the
//! lock take the files alone.

mod blocks;
mod download;
mod guard;
mod history;
mod inspect;
mod open;
mod recover;
mod repair;
mod torn;
mod witness;

use std::{ops::Range, sync::Arc};

use bytes::Bytes;
use hypercore_bitfield::{Bitfield, RemoteBitfield};
use hypercore_merkle::{
    Block, ChangeSet, DiscoveryKey, NodeIndex, NodeSet, NodeSetMut, Proof, PublicKey, RemoteTree,
    Roots, Seek, SeekStep, Signature, TreeHead, Verifier, full_roots, proof, tree_index,
};
use hypercore_storage::FeedFiles;

pub(crate) use self::blocks::{SMALL, drop_blocks, read_block, read_one, read_run};
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
use self::torn::is_half;
pub(crate) use self::witness::Witness;
use crate::{
    error::{Corruption, Error, Result},
    fork::ForkProof,
    replicate::Blocks,
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

/// How much memory it may take to know what was checked: enough for 28 million blocks anywhere.
const CHECKED_BYTES: usize = 4 << 20;

/// Whether what was written has been synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Durable {
    Yes,
    NotYet,
}

/// What is known of a block before it is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trust {
    /// It was read before, and had the right hash.
    Checked,
    /// It has to be hashed.
    Unknown,
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
    /// Blocks that were read and checked since the log was opened. A plain set: none is ever written.
    checked: RemoteBitfield,
    /// How often blocks were taken out.
    cleared: u64,
    roots: Roots,
    head: TreeHead,
    recovery: Option<Recovery>,
    guard: Option<Guard>,
    /// Why nothing may be appended, if that is so.
    lock: Option<AppendLock>,
    /// How often its writer was asked to take in what others have of it.
    resuming: u32,
    fork: Option<Box<ForkProof>>,
    /// Between `begin_append` and its end: nobody else may change the head.
    appending: bool,
    poisoned: bool,
    /// The headers of the files are there: a creation that was cut short may have left none.
    headers_written: bool,
    /// An append was written, and with it the mark of a log that is open.
    marked: bool,
    /// Stored since the last sync, so the bitfield may not claim it on disk yet.
    unsynced: Unsynced,
    /// Peers know of no blocks from here on, because those are not durable. They could be lost, and
    /// others signed in their place.
    withheld: Option<u64>,
}

/// Blocks that have not been made durable: downloads, and appends if those do not wait for it.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Unsynced {
    pub(crate) blocks: u64,
    pub(crate) bytes: u64,
}

/// The tree bits of a bitfield, as the maths wants to see them.
struct TreeBits<'a>(&'a Bitfield);

impl NodeSet for TreeBits<'_> {
    fn has(&self, node: NodeIndex) -> bool {
        self.0.tree_get(node.get())
    }

    fn bound(&self) -> u64 {
        self.0.tree_bound()
    }
}

/// The nodes that peers may know of.
struct PublicTree<'a> {
    bits: TreeBits<'a>,
    length: u64,
}

impl NodeSet for PublicTree<'_> {
    fn has(&self, node: NodeIndex) -> bool {
        self.bits.has(node) && node.end() <= self.length
    }

    fn bound(&self) -> u64 {
        let end = self.length.saturating_mul(2).saturating_sub(1);
        self.bits.bound().min(end)
    }
}

/// The nodes that are known, to which more are added.
struct TreeBitsMut<'a> {
    bitfield: &'a mut Bitfield,
    /// Those that were not known before.
    added: &'a mut Vec<NodeIndex>,
}

impl NodeSet for TreeBitsMut<'_> {
    fn has(&self, node: NodeIndex) -> bool {
        TreeBits(self.bitfield).has(node)
    }

    fn bound(&self) -> u64 {
        TreeBits(self.bitfield).bound()
    }
}

impl NodeSetMut for TreeBitsMut<'_> {
    fn insert(&mut self, node: NodeIndex) -> bool {
        let is_new = self.bitfield.tree_set(node.get());
        if is_new {
            self.added.push(node);
        }
        is_new
    }
}

impl Log {
    /// The files, or an error if the log takes no more requests.
    pub(crate) fn files(&self) -> Result<&Arc<FeedFiles>> {
        self.files.as_ref().ok_or(Error::Closed)
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
        self.is_writer() && self.lock.is_none()
    }

    /// Whether the log is written here and nowhere else.
    pub(crate) fn is_writer(&self) -> bool {
        let author = self.author.as_ref().filter(|_| self.files.is_some());
        author.is_some_and(|author| self.is_vouched_by(author))
    }

    /// Whether `author` made the log what it is, or its signer did elsewhere.
    fn is_vouched_by(&self, author: &Author) -> bool {
        match self.vouched {
            Vouched::Signed => true,
            Vouched::Static => author.is_unsigned(),
            Vouched::Unsigned | Vouched::Damaged => false,
        }
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

    /// Whether block `block` was found whole before, so that it need not be hashed again.
    pub(crate) fn trust(&self, block: u64) -> Trust {
        if self.checked.get(block) {
            Trust::Checked
        } else {
            Trust::Unknown
        }
    }

    /// The blocks from `blocks.start` on that are stored without a gap, as far as the same is known
    /// of all of them, and what that is.
    pub(crate) fn stored_run(&self, blocks: Range<u64>) -> (Range<u64>, Trust) {
        let trust = self.trust(blocks.start);
        let end = match trust {
            Trust::Checked => self.checked.next_clear(blocks.start),
            Trust::Unknown => {
                let checked = self.checked.next_set(blocks.start);
                let stored = self.bitfield.next_clear(blocks.start);
                checked.map_or(stored, |checked| checked.min(stored))
            }
        };
        (blocks.start..end.clamp(blocks.start, blocks.end), trust)
    }

    /// Goes up whenever blocks are taken out: as long as it stays the same, what was stored is.
    pub(crate) fn cleared(&self) -> u64 {
        self.cleared
    }

    /// These blocks were read and are whole.
    pub(crate) fn mark_checked(&mut self, blocks: Range<u64>) {
        // Where there is no room for that, they are hashed again.
        let _ = self.checked.set_range(blocks, true);
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
            // What was put right at opening: bits that are false now could look true after this write.
            let pages = take_pages(&mut self.bitfield);
            let written = pages
                .iter()
                .try_for_each(|(page, bytes)| files.write_page(*page, bytes));
            if let Err(error) = written {
                self.put_back_pages(&pages);
                return Err(error.into());
            }
            if !pages.is_empty() {
                files.sync_bitfield()?;
            }
            open::write_headers(&files)?;
            self.headers_written = true;
        }
        Ok(files)
    }

    /// No write is trusted any more: what the files hold is unknown until they are opened anew.
    pub(crate) fn poison(&mut self) {
        self.poisoned = true;
    }

    // ---- appending ------------------------------------------------------------------------

    /// Who is to append, or why nothing can be appended.
    pub(crate) fn check_append(&self) -> Result<&Arc<Author>> {
        self.writable_files()?;
        match (&self.author, self.vouched) {
            (Some(author), _) if self.is_vouched_by(author) => match self.lock {
                Some(lock) => Err(Error::AppendLocked(lock)),
                None => Ok(author),
            },
            (Some(_), Vouched::Unsigned) => Err(Corruption::Signature {
                length: self.head.length,
            }
            .into()),
            (Some(_), Vouched::Damaged) => {
                let damage = self
                    .recovery
                    .as_ref()
                    .and_then(|found| found.damage.clone());
                Err(damage.map_or(Error::NotWritable, Error::Corrupt))
            }
            _ => Err(Error::NotWritable),
        }
    }

    /// Reserves the head for one append and hands out what it builds on.
    pub(crate) fn begin_append(&mut self) -> Result<(Roots, Arc<Author>)> {
        let author = Arc::clone(self.check_append()?);
        self.prepare_write()?;
        if std::mem::replace(&mut self.appending, true) {
            return Err(Error::Conflict);
        }
        self.marked = true;
        Ok((self.roots.clone(), author))
    }

    /// The length of the log if its files say that it is open.
    pub(crate) fn marked_length(&self) -> Option<u64> {
        self.marked.then_some(self.head.length)
    }

    /// Lets go of the head after an append that failed.
    pub(crate) fn abort_append(&mut self) {
        self.appending = false;
    }

    /// Makes blocks that were written by [`write_append`] part of the log.
    pub(crate) fn finish_append(&mut self, change: &ChangeSet, durable: Durable) {
        self.appending = false;
        self.adopt(change, &mut Vec::new());
        match durable {
            Durable::Yes => {
                let head = self.head;
                self.note_durable(&head);
            }
            Durable::NotYet => {
                let start = change.start_block();
                self.withheld = self.withheld.or(Some(start));
                self.unsynced.blocks += change.blocks().len() as u64;
                self.unsynced.bytes += change.blocks().iter().map(Block::size).sum::<u64>();
            }
        }
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

    /// Peers may know of the first `length` blocks. Returns those that they did not know of.
    pub(crate) fn release(&mut self, length: u64) -> Option<Range<u64>> {
        let start = self.withheld.take()?;
        if length < self.head.length {
            self.withheld = Some(length.max(start));
        }
        (start < length).then_some(start..length)
    }

    // ---- truncating -----------------------------------------------------------------------

    /// The roots that the log has without what follows its first `length` blocks.
    pub(crate) fn roots_at(&self, length: u64) -> Result<Roots> {
        let wanted: Vec<_> = full_roots(length).collect();
        let bits = TreeBits(&self.bitfield);
        if let Some(missing) = wanted.iter().find(|&&root| !bits.has(root)) {
            let node = missing.get();
            return Err(Error::NodeNotStored { node });
        }
        let nodes = self.files()?.required_nodes(&wanted)?;
        Ok(Roots::from_nodes(length, nodes)?)
    }

    /// Forgets the nodes after those below `roots`, and takes these for its own. Lets go of the
    /// head.
    pub(crate) fn finish_truncate(&mut self, roots: Roots) {
        let bits = TreeBits(&self.bitfield);
        let gone: Vec<_> = tree_index::truncated(&bits, roots.length()).collect();
        for node in gone {
            self.bitfield.tree_clear(node.get());
        }
        self.set_roots(roots);
        self.withheld = self.withheld.filter(|&start| start < self.head.length);
        self.appending = false;
    }

    // ---- proofs ---------------------------------------------------------------------------

    /// What a peer still needs to believe block `index`; `None` if the block's node is not known.
    pub(crate) fn prove(
        &self,
        index: u64,
        digest: u64,
        remote: &mut impl NodeSetMut,
        with_leaf: bool,
    ) -> Result<Option<Proof>> {
        let Some(leaf) = NodeIndex::leaf(index) else {
            return Ok(None);
        };
        let public = PublicTree {
            bits: TreeBits(&self.bitfield),
            length: self.withheld.unwrap_or(u64::MAX),
        };
        let Some(plan) = proof::plan(&public, remote, leaf, digest, with_leaf) else {
            return Ok(None);
        };
        let files = self.files()?;
        let nodes = files.required_nodes(&plan.nodes)?;
        let signature = match (plan.verified_by / 2, self.vouched) {
            (0, _) | (_, Vouched::Static) => None,
            (length, _) => match files.signature(length - 1)? {
                Some(signature) if !is_half(&signature) => {
                    Some(Signature::try_from(&signature[..])?)
                }
                // A sparse log may know a subtree whose own signature it never saw, or lost.
                _ => return Ok(None),
            },
        };
        Ok(Some(Proof { nodes, signature }))
    }

    /// What we know around block `index`, for a request: see [`tree_index::digest`].
    pub(crate) fn digest(&self, index: u64) -> u64 {
        NodeIndex::leaf(index).map_or(0, |leaf| {
            tree_index::digest(&TreeBits(&self.bitfield), leaf)
        })
    }

    /// The same, when answers are under way: see [`tree_index::digest_ahead`].
    pub(crate) fn digest_ahead(&self, index: u64, ahead: &mut RemoteTree) -> u64 {
        NodeIndex::leaf(index).map_or(0, |leaf| {
            tree_index::digest_ahead(&TreeBits(&self.bitfield), ahead, leaf)
        })
    }

    /// The first of `blocks` from `block` on that is not proven: it would not be believed with one
    /// more hash, and no signature.
    pub(crate) fn first_unproven(&self, blocks: &Blocks, block: u64) -> Option<u64> {
        blocks.runs_from(block).find_map(|run| {
            let unproven = self.bitfield.next_unproven(run.start);
            run.contains(&unproven).then_some(unproven)
        })
    }

    /// Takes the bits, roots and head of a change for its own. Adds the nodes that were not known
    /// before to `added`.
    fn adopt(&mut self, change: &ChangeSet, added: &mut Vec<NodeIndex>) {
        let longer = change
            .head()
            .is_some_and(|head| head.length > self.head.length);
        if longer {
            // A damaged file may claim what never was. It is believed once the log is that long.
            self.bitfield.truncate(self.head.length);
        }
        set_bits(&mut self.bitfield, change, added);
        if let (true, Some(roots)) = (longer, change.roots()) {
            self.set_roots(roots.clone());
            self.vouched = if change.signature().is_some() {
                Vouched::Signed
            } else {
                Vouched::Static
            };
        }
    }

    fn set_roots(&mut self, roots: Roots) {
        self.head = roots.head();
        self.roots = roots;
        if self.is_unfinished() {
            self.key = PublicKey::from(self.head.hash);
            self.discovery_key = self.key.discovery_key();
            self.verifier = Arc::new(Verifier::new(&self.key));
        }
    }

    // ---- positions ------------------------------------------------------------------------

    /// The block that holds byte `offset`, and where in it, if that is known here.
    pub(crate) fn seek(&self, offset: u64) -> Result<Sought> {
        let mut seek = Seek::new(self.head.length, offset);
        loop {
            match seek.step(&TreeBits(&self.bitfield)) {
                SeekStep::Read(node) => {
                    for node in self.files()?.required_nodes(&[node])? {
                        seek.supply(node);
                    }
                }
                SeekStep::Found { block, offset } => {
                    return Ok(Sought::Found {
                        index: block,
                        offset,
                    });
                }
                SeekStep::Below { node, .. } => return Ok(Sought::Below(node)),
                _ => return Ok(Sought::Beyond),
            }
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
        self.cleared += 1;
        if self.checked.set_range(blocks.clone(), false).is_err() {
            self.checked.clear();
        }
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
        (pages, std::mem::take(&mut self.unsynced).blocks > 0)
    }

    /// The pages that are going to be changed when `change` is part of the log.
    pub(crate) fn pages_after(&self, change: &ChangeSet) -> Vec<(u64, Vec<u8>)> {
        let mut bitfield = self.bitfield.clone();
        set_bits(&mut bitfield, change, &mut Vec::new());
        take_pages(&mut bitfield)
    }

    /// These pages could not be written.
    pub(crate) fn put_back_pages(&mut self, pages: &[(u64, Vec<u8>)]) {
        for &(page, _) in pages {
            self.bitfield.mark_dirty(page);
        }
    }
}

fn set_bits(bitfield: &mut Bitfield, change: &ChangeSet, added: &mut Vec<NodeIndex>) {
    let mut tree = TreeBitsMut { bitfield, added };
    for node in change.nodes() {
        tree_index::insert(&mut tree, node.index);
    }
    if let [_] = change.blocks() {
        bitfield.set(change.start_block(), true);
    } else {
        bitfield.set_range(blocks_of(change), true);
    }
}

/// The dirty pages as the file stores them; they are dirty no more.
fn take_pages(bitfield: &mut Bitfield) -> Vec<(u64, Vec<u8>)> {
    let pages = bitfield.take_dirty().into_iter();
    let encode = |page| {
        let mut bytes = vec![0; bitfield.page_size().bytes()];
        bitfield.encode_page(page, &mut bytes);
        (page, bytes)
    };
    pages.map(encode).collect()
}

/// Where a byte is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sought {
    /// In this block, at this offset.
    Found { index: u64, offset: u64 },
    /// Somewhere below this node, whose children are not known here.
    Below(NodeIndex),
    /// Beyond the known length.
    Beyond,
}

fn blocks_of(change: &ChangeSet) -> Range<u64> {
    let start = change.start_block();
    start..start + change.blocks().len() as u64
}

/// Writes an append: nodes, blocks and signature, of which the log does not speak yet.
pub(crate) fn write_append(files: &FeedFiles, change: &ChangeSet) -> Result<()> {
    let blocks = blocks_of(change);
    if files.has_foreign_data() {
        blocks::find_blocks(files, change)?;
        files.write_append_nodes(blocks.start, blocks.end, change.nodes())?;
    } else {
        files.write_append_nodes(blocks.start, blocks.end, change.nodes())?;
        write_blocks(files, placed(change))?;
    }
    match signature_slot(change)? {
        Some((block, slot)) => Ok(files.write_last_signature(block, &slot)?),
        None => Ok(()),
    }
}

fn write_signature(files: &FeedFiles, change: &ChangeSet) -> Result<()> {
    match signature_slot(change)? {
        Some((block, slot)) => Ok(files.write_signature(block, &slot)?),
        None => Ok(()),
    }
}

/// The signature of a change as it is stored, and the block it belongs to.
fn signature_slot(change: &ChangeSet) -> Result<Option<(u64, [u8; 64])>> {
    let Some((length, signature)) = change.signature() else {
        return Ok(None);
    };
    let slot = signature.as_bytes().try_into();
    let slot = slot.map_err(|_| Corruption::Signature { length })?;
    Ok(Some((length - 1, slot)))
}

/// Forgets what was noted of a log that is gone.
pub(crate) fn forget(files: &FeedFiles) -> Result<()> {
    Guard::remove(&**files.storage())
}

/// Runs of small blocks are gathered up to this many bytes and written together.
const GATHER: usize = 64 * 1024;

/// Writes values at their offsets, those that follow each other in one go.
fn write_blocks<'a>(
    files: &FeedFiles,
    blocks: impl IntoIterator<Item = (u64, &'a Bytes)>,
) -> Result<()> {
    let mut gathered = Vec::new();
    let mut start = 0;
    for (offset, value) in blocks {
        let follows = start + gathered.len() as u64 == offset;
        if !follows || gathered.len() + value.len() > GATHER {
            write_gathered(files, start, &mut gathered)?;
            start = offset;
        }
        if value.len() < GATHER {
            gathered.extend_from_slice(value);
        } else {
            files.write_data(offset, value)?;
        }
    }
    write_gathered(files, start, &mut gathered)
}

fn write_gathered(files: &FeedFiles, offset: u64, gathered: &mut Vec<u8>) -> Result<()> {
    if !gathered.is_empty() {
        files.write_data(offset, gathered)?;
        gathered.clear();
    }
    Ok(())
}

/// The blocks of a change, and where their bytes stand.
fn placed(change: &ChangeSet) -> impl Iterator<Item = (u64, &Bytes)> {
    change
        .blocks()
        .iter()
        .scan(change.byte_offset(), |offset, block| {
            let start = *offset;
            *offset += block.size();
            Some((start, block.value()))
        })
}
