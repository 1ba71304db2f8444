//! One log: its files, which blocks and nodes are there, and how both change together.
//!
//! Everything here is synchronous and knows nothing of peers. What changes a [`Log`] runs under
//! the lock of [`crate::Hypercore`]; the functions that read or write blocks without needing the
//! lock take the files alone.

use std::{ops::Range, sync::Arc};

use bytes::Bytes;
use hypercore_bitfield::{Bitfield, PageSize};
use hypercore_merkle::{
    Block, ChangeSet, DiscoveryKey, KeyPair, Node, NodeIndex, NodeSet, NodeSetMut, Proof,
    PublicKey, RemoteTree, Roots, Seek, SeekStep, Signature, TreeHead, Verifier, full_roots,
    leaf_hash, proof, tree_index, verify,
};
use hypercore_storage::{FeedFiles, Storage};

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
}

impl Setup {
    /// The key asked for, if one was.
    fn requested(&self) -> Option<PublicKey> {
        let of_pair = || self.key_pair.as_ref().map(KeyPair::public_key);
        self.key.or_else(of_pair)
    }
}

/// How the newest length is vouched for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Vouched {
    /// By the signature of its last block, or there is nothing to vouch for.
    Signed,
    /// By the key itself, which is the hash of the whole tree: a finished log without signatures.
    Static,
    /// By nothing: the signature of the last block is missing. Such a log is read, never appended to.
    Unsigned,
}

/// One log.
pub(crate) struct Log {
    /// Gone once the log is closed, and the lock on them with it.
    files: Option<Arc<FeedFiles>>,
    key: PublicKey,
    discovery_key: DiscoveryKey,
    key_pair: Option<Arc<KeyPair>>,
    verifier: Arc<Verifier>,
    vouched: Vouched,
    bitfield: Bitfield,
    roots: Roots,
    head: TreeHead,
    /// Between `begin_append` and its end: nobody else may change the head.
    appending: bool,
    poisoned: bool,
    /// The headers of the files are there: a creation that was cut short may have left none.
    headers_written: bool,
    /// Stored since the last sync, so the bitfield may not claim it on disk yet.
    unsynced: Unsynced,
}

/// Downloads that have not been made durable.
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

struct TreeBitsMut<'a>(&'a mut Bitfield);

impl NodeSet for TreeBitsMut<'_> {
    fn has(&self, node: NodeIndex) -> bool {
        self.0.tree_get(node.get())
    }

    fn bound(&self) -> u64 {
        self.0.tree_bound()
    }
}

impl NodeSetMut for TreeBitsMut<'_> {
    fn insert(&mut self, node: NodeIndex) -> bool {
        self.0.tree_set(node.get())
    }
}

impl Log {
    /// Opens or creates the log in `storage`. Nothing is written unless it is created.
    pub(crate) fn open(storage: Arc<dyn Storage>, setup: Setup) -> Result<Self> {
        let files = FeedFiles::open(storage)?;
        if setup.existing == Existing::Forgotten {
            files.reset()?;
        }
        let mut stored = stored_key(&files)?;
        if setup.existing == Existing::Replaced
            && stored.is_some_and(|stored| setup.requested().is_some_and(|other| other != stored))
        {
            files.reset()?;
            stored = None;
        }
        let (key, key_pair) = match stored {
            Some(stored) => {
                if setup.existing == Existing::Refused {
                    return Err(Error::CoreExists(stored));
                }
                if let Some(requested) = setup.requested().filter(|&requested| requested != stored)
                {
                    return Err(Error::OtherCore { stored, requested });
                }
                (stored, open_key_pair(&files, stored, setup)?)
            }
            None if setup.existing == Existing::Required => return Err(Error::NoCore),
            None => create(&files, setup)?,
        };

        let mut bitfield = Bitfield::new(page_size(&files));
        files.pages(|page, bytes| bitfield.load_page(page, bytes))?;
        let roots = load_roots(&files, &bitfield)?;
        let head = roots.head();
        let verifier = Verifier::new(&key);
        let vouched = vouch(&files, &verifier, &head)?;

        Ok(Self {
            files: Some(Arc::new(files)),
            key,
            discovery_key: key.discovery_key(),
            key_pair: key_pair.map(Arc::new),
            verifier: Arc::new(verifier),
            vouched,
            bitfield,
            roots,
            head,
            appending: false,
            poisoned: false,
            headers_written: false,
            unsynced: Unsynced::default(),
        })
    }

    /// The files, or an error if the log takes no more requests.
    pub(crate) fn files(&self) -> Result<&Arc<FeedFiles>> {
        self.files.as_ref().ok_or(Error::Closed)
    }

    pub(crate) fn key(&self) -> PublicKey {
        self.key
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
        self.key_pair.is_some() && self.files.is_some() && self.vouched == Vouched::Signed
    }

    pub(crate) fn bitfield(&self) -> &Bitfield {
        &self.bitfield
    }

    pub(crate) fn has(&self, block: u64) -> bool {
        self.bitfield.get(block)
    }

    /// From now on every operation fails with [`Error::Closed`]. Returns whether it was open.
    pub(crate) fn close(&mut self) -> bool {
        self.files.take().is_some()
    }

    /// The files, if they may be written.
    fn writable_files(&self) -> Result<&Arc<FeedFiles>> {
        if self.poisoned {
            Err(Error::Poisoned)
        } else {
            self.files()
        }
    }

    /// The files, ready to be written to.
    fn prepare_write(&mut self) -> Result<Arc<FeedFiles>> {
        let files = Arc::clone(self.writable_files()?);
        if !self.headers_written {
            files.write_headers()?;
            self.headers_written = true;
        }
        Ok(files)
    }

    /// No write is trusted any more: what the files hold is unknown until they are opened anew.
    pub(crate) fn poison(&mut self) {
        self.poisoned = true;
    }

    // ---- appending ------------------------------------------------------------------------

    /// The key pair to append with, or why nothing can be appended.
    pub(crate) fn check_append(&self) -> Result<&Arc<KeyPair>> {
        self.writable_files()?;
        match (&self.key_pair, self.vouched) {
            (Some(key_pair), Vouched::Signed) => Ok(key_pair),
            (Some(_), Vouched::Unsigned) => Err(Corruption::Signature {
                length: self.head.length,
            }
            .into()),
            _ => Err(Error::NotWritable),
        }
    }

    /// Reserves the head for one append and hands out what it builds on.
    pub(crate) fn begin_append(&mut self) -> Result<(Roots, Arc<KeyPair>)> {
        let key_pair = Arc::clone(self.check_append()?);
        self.prepare_write()?;
        if std::mem::replace(&mut self.appending, true) {
            return Err(Error::Conflict);
        }
        Ok((self.roots.clone(), key_pair))
    }

    /// Lets go of the head after an append that failed.
    pub(crate) fn abort_append(&mut self) {
        self.appending = false;
    }

    /// Makes blocks that were written by [`write_append`] part of the log.
    pub(crate) fn finish_append(&mut self, change: &ChangeSet) {
        self.appending = false;
        self.adopt(change);
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
        self.head = roots.head();
        self.roots = roots;
        self.appending = false;
    }

    // ---- proofs ---------------------------------------------------------------------------

    /// What a peer still needs to believe block `index`; `None` if the block's node is not known.
    pub(crate) fn prove(
        &self,
        index: u64,
        digest: u64,
        remote: &mut RemoteTree,
        with_leaf: bool,
    ) -> Result<Option<Proof>> {
        let Some(leaf) = NodeIndex::leaf(index) else {
            return Ok(None);
        };
        let Some(plan) = proof::plan(&TreeBits(&self.bitfield), remote, leaf, digest, with_leaf)
        else {
            return Ok(None);
        };
        let files = self.files()?;
        let nodes = files.required_nodes(&plan.nodes)?;
        let signature = match (plan.verified_by / 2, self.vouched) {
            (0, _) | (_, Vouched::Static) => None,
            (length, _) => match files.signature(length - 1)? {
                Some(signature) => Some(Signature::try_from(&signature[..])?),
                // A sparse log may know a subtree whose own signature it never saw.
                None => return Ok(None),
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

    /// Checks block `index` (or, without a value, the log's length) against `proof`.
    pub(crate) fn check(
        &self,
        index: u64,
        block: Option<Block>,
        proof: &Proof,
    ) -> Result<ChangeSet> {
        let plan = verify::plan(&TreeBits(&self.bitfield), index, block.is_some(), proof)?;
        let local = self.files()?.required_nodes(plan.nodes())?;
        Ok(plan.check(&self.verifier, &self.head, block, proof, &local)?)
    }

    /// Checks block `index` (or, without a value, the log's length) against `proof`, and stores
    /// what it proves.
    pub(crate) fn put(
        &mut self,
        index: u64,
        block: Option<Block>,
        proof: &Proof,
    ) -> Result<Stored> {
        let files = self.prepare_write()?;
        let change = self.check(index, block, proof)?;
        let longer = change
            .head()
            .is_some_and(|head| head.length > self.head.length);
        if longer && self.appending {
            return Err(Error::Conflict);
        }
        write_download(&files, &change)?;
        self.adopt(&change);
        let value = change.blocks().first().map(|block| block.value().clone());
        self.unsynced.blocks += 1;
        self.unsynced.bytes += value.as_ref().map_or(0, |value| value.len() as u64);
        Ok(Stored { value, longer })
    }

    /// The bits, roots and head of a change whose bytes have been written.
    fn adopt(&mut self, change: &ChangeSet) {
        let mut tree = TreeBitsMut(&mut self.bitfield);
        for node in change.nodes() {
            tree_index::insert(&mut tree, node.index);
        }
        let blocks = blocks_of(change);
        self.bitfield.set_range(blocks, true);
        let longer = change
            .head()
            .is_some_and(|head| head.length > self.head.length);
        if let (true, Some(roots)) = (longer, change.roots()) {
            self.roots = roots.clone();
            self.head = self.roots.head();
            self.vouched = if change.signature().is_some() {
                Vouched::Signed
            } else {
                Vouched::Static
            };
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
        let runs = self.bitfield.runs(blocks.clone()).collect();
        self.bitfield.set_range(blocks, false);
        Ok(runs)
    }

    pub(crate) fn unsynced(&self) -> Unsynced {
        self.unsynced
    }

    /// The changed pages of the bitfield, ready to be written, and whether what they claim has
    /// to be synced first.
    pub(crate) fn take_pages(&mut self) -> (Vec<(u64, Vec<u8>)>, bool) {
        let size = self.bitfield.page_size().bytes();
        let pages = self
            .bitfield
            .take_dirty()
            .into_iter()
            .map(|page| {
                let mut bytes = vec![0; size];
                self.bitfield.encode_page(page, &mut bytes);
                (page, bytes)
            })
            .collect();
        (pages, std::mem::take(&mut self.unsynced).blocks > 0)
    }
}

/// What a [`Log::put`] has changed.
#[derive(Debug)]
pub(crate) struct Stored {
    /// The bytes of the block, if one was stored.
    pub(crate) value: Option<Bytes>,
    /// Whether the log is longer now.
    pub(crate) longer: bool,
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
    files.write_append_nodes(blocks.start, blocks.end, change.nodes())?;
    write_blocks(files, change)?;
    write_signature(files, change)
}

fn write_download(files: &FeedFiles, change: &ChangeSet) -> Result<()> {
    files.write_nodes(change.nodes())?;
    write_blocks(files, change)?;
    write_signature(files, change)
}

fn write_signature(files: &FeedFiles, change: &ChangeSet) -> Result<()> {
    if let Some((length, signature)) = change.signature() {
        let slot = signature
            .as_bytes()
            .try_into()
            .map_err(|_| Corruption::Signature { length })?;
        files.write_signature(length - 1, slot)?;
    }
    Ok(())
}

/// Runs of small blocks are gathered up to this many bytes and written together.
const GATHER: usize = 64 * 1024;

fn write_blocks(files: &FeedFiles, change: &ChangeSet) -> Result<()> {
    let mut offset = change.byte_offset();
    let mut blocks = change.blocks();
    while let Some((first, mut rest)) = blocks.split_first() {
        if rest.is_empty() || first.value().len() >= GATHER {
            files.write_data(offset, first.value())?;
            offset += first.size();
        } else {
            let mut gathered = first.value().to_vec();
            while let Some((next, after)) = rest.split_first() {
                if gathered.len() + next.value().len() > GATHER {
                    break;
                }
                gathered.extend_from_slice(next.value());
                rest = after;
            }
            files.write_data(offset, &gathered)?;
            offset += gathered.len() as u64;
        }
        blocks = rest;
    }
    Ok(())
}

/// Where a block stands in `data`, and the hash it must have.
pub(crate) struct Located {
    pub(crate) offset: u64,
    pub(crate) leaf: Node,
}

/// Looks block `index` up in the tree. The block must be stored.
pub(crate) fn locate(files: &FeedFiles, index: u64) -> Result<Located> {
    let leaf = NodeIndex::leaf(index).ok_or(Error::BlockNotStored { index })?;
    let wanted: Vec<_> = full_roots(index).chain([leaf]).collect();
    let mut nodes = files.required_nodes(&wanted)?;
    let Some(leaf) = nodes.pop() else {
        return Err(Error::BlockNotStored { index });
    };
    let offset = nodes.iter().map(|node| node.size).sum();
    Ok(Located { offset, leaf })
}

/// Reads block `index` and checks it against its leaf hash.
pub(crate) fn read_block(files: &FeedFiles, index: u64) -> Result<Bytes> {
    let Located { offset, leaf } = locate(files, index)?;
    read_located(files, index, offset, &leaf)
}

fn read_located(files: &FeedFiles, index: u64, offset: u64, leaf: &Node) -> Result<Bytes> {
    if leaf.size > hypercore_merkle::MAX_BLOCK_SIZE {
        return Err(Error::Corrupt(Corruption::Block { index }));
    }
    let bytes = files.read_data(offset, leaf.size)?;
    if leaf_hash(&bytes) != leaf.hash {
        return Err(Error::Corrupt(Corruption::Block { index }));
    }
    Ok(bytes.into())
}

/// Frees the space of blocks that the durable bitfield no longer claims.
///
/// A damaged tree could name the place of other blocks. So the first and the last block are read
/// and checked before; a run that does not begin and end where the tree says keeps its space.
pub(crate) fn drop_blocks(files: &FeedFiles, runs: &[Range<u64>]) -> Result<()> {
    for run in runs {
        let first = run
            .clone()
            .map(|index| check_place(files, index))
            .find_map(Result::transpose);
        let last = run
            .clone()
            .rev()
            .map(|index| check_place(files, index))
            .find_map(Result::transpose);
        let place = match (first.transpose(), last.transpose()) {
            (Ok(Some(first)), Ok(Some(last))) if first.start < last.end => first.start..last.end,
            // Empty blocks take no space.
            (Ok(_), Ok(_)) => continue,
            (Err(error), _) | (_, Err(error)) if error.is_corruption() => {
                tracing::warn!(%error, "the space of cleared blocks was not freed");
                continue;
            }
            (Err(error), _) | (_, Err(error)) => return Err(error),
        };
        files.clear_data(place.start, place.end - place.start)?;
    }
    Ok(())
}

/// The bytes of `data` that block `index` has, if any, once they have proven to be that block.
fn check_place(files: &FeedFiles, index: u64) -> Result<Option<Range<u64>>> {
    let Located { offset, leaf } = locate(files, index)?;
    let bytes = read_located(files, index, offset, &leaf)?;
    Ok((!bytes.is_empty()).then(|| offset..offset + leaf.size))
}

fn page_size(files: &FeedFiles) -> PageSize {
    PageSize::from_bytes(files.page_size()).unwrap_or(PageSize::Current)
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
    files.write_headers()?;
    files.sync_keys()?;
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
fn create(files: &FeedFiles, setup: Setup) -> Result<(PublicKey, Option<KeyPair>)> {
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
    files.write_headers()?;
    files.sync_keys()?;
    Ok((key, key_pair))
}

/// The peaks of the tree that the bitfield speaks of.
fn load_roots(files: &FeedFiles, bitfield: &Bitfield) -> Result<Roots> {
    let length = tree_index::length(&TreeBits(bitfield));
    let wanted: Vec<_> = full_roots(length).collect();
    let nodes = files.required_nodes(&wanted)?;
    // What is stored is to blame here, not a peer.
    Roots::from_nodes(length, nodes).map_err(|_| Corruption::Signature { length }.into())
}

/// Finds out who vouches for the length that was found.
fn vouch(files: &FeedFiles, verifier: &Verifier, head: &TreeHead) -> Result<Vouched> {
    let Some(last) = head.length.checked_sub(1) else {
        return Ok(Vouched::Signed);
    };
    match files.signature(last)? {
        Some(signature) if verifier.verify(head, &Signature::try_from(&signature[..])?) => {
            Ok(Vouched::Signed)
        }
        Some(_) => Err(Error::Corrupt(Corruption::Signature {
            length: head.length,
        })),
        None if verifier.is_static_head(head) => Ok(Vouched::Static),
        None => Ok(Vouched::Unsigned),
    }
}
