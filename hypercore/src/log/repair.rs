//! Putting right what can be put right in damaged files.
//!
//! What is signed decides. From the newest length whose roots a signature vouches for, the tree is
//! followed downwards: two nodes that make up the hash of their parent are right, and so is
//! everything below them in turn. Where they do not, they are computed anew from what stands below,
//! in the end from the blocks themselves. Where that leads nowhere, what can be read is kept as it is.
//! Blocks that cannot be read are dropped: their bits are cleared, and peers that have them are asked
//! for them. Everything that is written over or cut off is copied to a quarantine before, and that copy
//! is durable before the first byte is written.

mod search;

use std::{cell::Cell, collections::BTreeMap, sync::Arc};

use hypercore_bitfield::{Bitfield, PageSize};
use hypercore_merkle::{
    KeyPair, MAX_BLOCK_SIZE, MAX_LENGTH, Node, NodeIndex, PublicKey, Roots, Verifier, full_roots,
    leaf_hash,
};
use hypercore_storage::{FeedFiles, FileName, Quarantine, Storage};

use super::{
    guard,
    inspect::{Verification, Watch, probable_length, verify_files},
    open,
    recover::{self, End, Examined, MAX_WRONG_SIGNATURES, load_bitfield, verifies},
    torn::restore_nodes,
    tree::placed_roots,
};
use crate::error::{Corruption, Error, Result};
use crate::span::{blocks_below, length_with, nodes_below, nodes_of, one_block};
use search::MAX_CANDIDATES;

/// What [`Hypercore::repair_storage`](crate::Hypercore::repair_storage) did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Repair {
    /// How many things were put right: keys, headers, nodes, signatures, and the bitfield.
    pub repaired: u64,
    /// The blocks that were dropped, because they could not be read: they do not match their hashes, or
    /// those are lost. They can be downloaded again.
    pub dropped: Vec<u64>,
    /// What could not be put right.
    pub remaining: Verification,
}

impl Repair {
    /// One more thing is put right.
    fn count(&mut self) {
        self.repaired = self.repaired.saturating_add(1);
    }
}

/// Repairs the log in `storage`.
pub(crate) fn repair_storage(storage: Arc<dyn Storage>, watch: Watch<'_>) -> Result<Repair> {
    let (files, damage) = FeedFiles::open_damaged(storage)?;
    if open::is_nothing(&files)? {
        return Err(Error::NoCore);
    }
    let mut repair = Repair::default();
    let mut quarantine = files.quarantine();
    let keys = find_keys(&files)?;
    if keys.is_public_new {
        quarantine.add(FileName::Key, 0..u64::MAX)?;
    }
    if damage.is_some() {
        for file in [FileName::Tree, FileName::Signatures, FileName::Bitfield] {
            quarantine.add(file, 0..32)?;
        }
    }
    quarantine.sync()?;
    keys.restore(&files, &mut repair)?;
    if damage.is_some() {
        super::open::write_headers(&files)?;
        repair.count();
    }
    let found = verify_files(&files, watch)?;
    let verifier = Verifier::new(&keys.public);
    if found.is_ok() {
        // Nothing but what every opening puts right.
        quarantine.finish()?;
        if let Examined::Open(end) = recover::examine(&files, &verifier, keys.writer, false)? {
            end.adopt(&files, files.quarantine())?;
        }
        repair.remaining = found;
        return Ok(repair);
    }
    let mut work = Work {
        files: &files,
        verifier: &verifier,
        keys: &keys,
        claims: load_bitfield(&files, MAX_LENGTH)?,
        distrust_bits: found
            .problems
            .iter()
            .any(|problem| problem.file == FileName::Bitfield),
        bitfield: Bitfield::new(
            PageSize::from_bytes(files.page_size()).unwrap_or(PageSize::Current),
        ),
        nodes: BTreeMap::new(),
        signatures: BTreeMap::new(),
        quarantine,
        repair,
        tries: Cell::new(0),
    };
    let roots = work.find_roots()?;
    work.check_tree(&roots)?;
    work.check_blocks(&roots)?;
    work.write_nodes(&roots)?;
    work.check_signatures(&roots)?;
    let mut repair = work.write(roots)?;
    repair.remaining = verify_files(&files, watch)?;
    Ok(repair)
}

struct Keys {
    public: PublicKey,
    pair: Option<KeyPair>,
    /// The log is written here: there is a secret key, whole or not, or it is elsewhere.
    writer: bool,
    /// The public key is not what its file has.
    is_public_new: bool,
    /// The pair is not what the file of the secret key has.
    is_secret_new: bool,
}

impl Keys {
    /// Writes what the files do not have.
    fn restore(&self, files: &FeedFiles, repair: &mut Repair) -> Result<()> {
        if let Some(pair) = self.pair.as_ref().filter(|_| self.is_secret_new) {
            files.write_secret_key(&pair.to_bytes())?;
            repair.count();
        }
        if self.is_public_new {
            files.write_key(self.public.as_bytes())?;
            repair.count();
        }
        Ok(files.sync_keys()?)
    }
}

/// Finds each of the two keys, in its file or from the other.
fn find_keys(files: &FeedFiles) -> Result<Keys> {
    let stored = files.key().ok().flatten();
    let stored = stored.filter(|key| *key != [0; 32]).map(PublicKey::from);
    let secret = match files.secret_key() {
        Err(error) if error.is_corruption() => Err(error),
        read => Ok(read?),
    };
    let writer = !matches!(secret, Ok(None)) || guard::was_written(files.storage())?;
    let mut pair = None;
    let mut is_secret_new = false;
    if let Ok(Some(secret)) = &secret {
        pair = KeyPair::from_bytes(secret).ok();
        if let (None, Some(stored), Some(seed)) = (&pair, stored, secret.first_chunk()) {
            // The seed is whole if the key comes of it: then only the public half is damaged.
            let derived = KeyPair::from_seed(seed);
            if derived.public_key() == stored {
                is_secret_new = true;
                pair = Some(derived);
            }
        }
    }
    // Of the two, the secret key shows by itself whether it is whole.
    let public = pair.as_ref().map(KeyPair::public_key).or(stored);
    let public = public.ok_or(Corruption::KeyMissing)?;
    Ok(Keys {
        public,
        pair,
        writer,
        is_public_new: stored != Some(public),
        is_secret_new,
    })
}

struct Work<'a> {
    files: &'a FeedFiles,
    verifier: &'a Verifier,
    keys: &'a Keys,
    /// The bitfield as it was.
    claims: Bitfield,
    /// The bitfield is damaged, so that blocks may be there that it does not claim.
    distrust_bits: bool,
    /// The bitfield as it is going to be.
    bitfield: Bitfield,
    /// Nodes to be written.
    nodes: BTreeMap<NodeIndex, Node>,
    /// Signatures to be written at the last of their blocks, or to be taken away.
    signatures: BTreeMap<u64, Option<[u8; 64]>>,
    quarantine: Quarantine<'a>,
    repair: Repair,
    /// How many nodes may still be computed in the search at hand.
    tries: Cell<u64>,
}

impl Work<'_> {
    /// The roots of the newest length that somebody vouches for.
    fn find_roots(&mut self) -> Result<Roots> {
        let probable = probable_length(self.files, self.verifier, &self.claims)?;
        let mut below = MAX_LENGTH;
        let mut signed = None;
        for _ in 0..MAX_WRONG_SIGNATURES {
            let Some((block, signature)) = self.files.previous_signature(below)? else {
                break;
            };
            signed = self.signed_roots(length_with(block), &signature)?;
            if signed.is_some() {
                break;
            }
            below = block;
        }
        let newest = self.files.previous_signature(MAX_LENGTH)?;
        let Some(signed) = signed else {
            if let Some(roots) = self.static_roots(probable)? {
                return Ok(roots);
            }
            let is_finished = newest.is_none() && !self.keys.writer && probable > 0;
            if is_finished && self.files.is_marked(probable)? {
                // Of a static log that was being finished: its blocks are whole, and the key is not.
                return Err(Corruption::KeyMissing.into());
            }
            let roots = self.go_on(Roots::new(), probable)?;
            return match newest {
                // To start anew would be to forget everything, or to sign another history.
                Some((block, _)) if roots.length() == 0 => {
                    let length = length_with(block);
                    Err(Corruption::Signature { length }.into())
                }
                _ => Ok(roots),
            };
        };
        self.go_on(signed, probable)
    }

    /// The roots of `length` blocks as they are stored, or else as the leaves or the blocks have
    /// them, if `signature` is over them.
    fn signed_roots(&mut self, length: u64, signature: &[u8; 64]) -> Result<Option<Roots>> {
        self.roots_that(length, |this, roots| {
            verifies(this.verifier, &roots.head(), signature)
        })
    }

    fn static_roots(&mut self, length: u64) -> Result<Option<Roots>> {
        self.roots_that(length, |this, roots| {
            this.verifier.is_static_head(&roots.head())
        })
    }

    fn roots_that(
        &mut self,
        length: u64,
        is_right: impl Fn(&Self, &Roots) -> bool,
    ) -> Result<Option<Roots>> {
        let wanted: Vec<_> = full_roots(length).collect();
        let stored = self.files.nodes(&wanted)?.into_iter().collect();
        let stored = Option::and_then(stored, |nodes| Roots::from_nodes(length, nodes).ok());
        let mut found = stored.filter(|roots| is_right(self, roots));
        for sizes in self.root_sizes(&wanted)? {
            if found.is_some() {
                break;
            }
            self.begin_search(length);
            let mut possible = vec![Vec::new()];
            let mut offset = 0_u64;
            for (&root, size) in wanted.iter().zip(sizes) {
                let candidates = self.candidates(root, offset, size)?;
                let longer = possible.iter().flat_map(|nodes: &Vec<Node>| {
                    let with = |&node| nodes.iter().copied().chain([node]).collect();
                    candidates.iter().map(with)
                });
                possible = longer.take(MAX_CANDIDATES).collect();
                offset = offset.saturating_add(size);
            }
            let mut roots = possible
                .into_iter()
                .filter_map(|nodes| Roots::from_nodes(length, nodes).ok());
            found = roots.find(|roots| is_right(self, roots));
        }
        for &root in found.iter().flat_map(Roots::nodes) {
            self.take(root)?;
        }
        Ok(found)
    }

    /// Follows the blocks after `roots` to the end of the log. If all are whole and this is their
    /// writer, the signature that was lost is made again: Ed25519 makes the same one.
    fn go_on(&mut self, roots: Roots, probable: u64) -> Result<Roots> {
        let mut end = roots.clone();
        let mut nodes = Vec::new();
        while end.length() < probable {
            let Some(leaf) = NodeIndex::leaf(end.length()) else {
                break;
            };
            let leaf = self.files.node(leaf)?;
            let is_whole = self.is_whole(leaf.map(|leaf| (leaf, end.byte_length())))?;
            match leaf.filter(|_| is_whole) {
                Some(leaf) => end.push(leaf.size, leaf.hash, &mut nodes)?,
                None => break,
            }
        }
        let is_whole = end.length() > roots.length() && end.length() >= probable;
        let Some(pair) = self.keys.pair.as_ref().filter(|_| is_whole) else {
            if self.keys.writer && roots.length() < probable {
                // Shorter, it would be appended to, and its end signed a second time.
                return Err(Corruption::Signature { length: probable }.into());
            }
            return Ok(self.end_at(roots, probable));
        };
        let signature = pair.sign_checked(&end.head())?;
        self.replace_signature(probable.saturating_sub(1), Some(signature.into()))?;
        for node in nodes {
            self.take(node)?;
        }
        Ok(end)
    }

    fn replace_signature(&mut self, block: u64, signature: Option<[u8; 64]>) -> Result<()> {
        self.quarantine.add_signature(block)?;
        self.signatures.insert(block, signature);
        self.repair.count();
        Ok(())
    }

    /// A clone ends before it did: what follows is to be downloaded again.
    fn end_at(&mut self, roots: Roots, before: u64) -> Roots {
        let cut = self.claims.runs(roots.length()..before.max(roots.length()));
        self.repair.dropped.extend(cut.flatten());
        roots
    }

    /// The leaf that `size` bytes at `offset` make.
    fn block_at(&self, index: NodeIndex, offset: u64, size: u64) -> Result<Option<Node>> {
        if size > MAX_BLOCK_SIZE {
            return Ok(None);
        }
        match self.files.read_data(offset, size) {
            Ok(bytes) => Ok(Some(Node {
                index,
                size,
                hash: leaf_hash(&bytes),
            })),
            Err(error) if error.is_corruption() => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// `node` is right: it is written if it is not there, and claimed.
    fn take(&mut self, node: Node) -> Result<()> {
        if self.files.node(node.index)? != Some(node) {
            self.quarantine.add_node(node.index)?;
            self.nodes.insert(node.index, node);
            self.repair.count();
        }
        self.bitfield.tree_set(node.index.get());
        Ok(())
    }

    /// Everything below `roots`, which are right.
    fn check_tree(&mut self, roots: &Roots) -> Result<()> {
        let mut below: Vec<_> = placed_roots(roots).collect();
        while let Some((parent, offset)) = below.pop() {
            let Some((left, right)) = parent.index.children() else {
                continue;
            };
            let found = self.find_children(&parent, left, right, offset)?;
            if let Some((left, right)) = found {
                self.take(left)?;
                self.take(right)?;
                below.push((right, offset.saturating_add(left.size)));
                below.push((left, offset));
            } else if !self.claims.tree_get(left.get()) || !self.claims.tree_get(right.get()) {
                // A clone that knows no more of this part, or nodes of an older length.
                self.keep_below(parent.index)?;
            } else {
                self.salvage(left)?;
                self.salvage(right)?;
            }
        }
        Ok(())
    }

    /// Below a node of which the children are not both known, nothing can be recomputed.
    fn keep_below(&mut self, top: NodeIndex) -> Result<()> {
        // Above what is known there may be 2^50 nodes that are not.
        let claimed = self.claims.tree_runs(nodes_below(top)).flatten();
        for index in claimed.filter_map(NodeIndex::new) {
            if index != top && self.files.node(index)?.is_some() {
                self.bitfield.tree_set(index.get());
            }
        }
        Ok(())
    }

    /// Keeps what holds together below a node of which nothing can be proven, as reading does: the
    /// blocks that match their leaves, and the nodes that these make up. Returns the node at `index`, if
    /// it is kept.
    fn salvage(&mut self, index: NodeIndex) -> Result<Option<Node>> {
        let Some((left, right)) = index.children() else {
            return self.salvage_leaf(index);
        };
        // Of a sparse clone most is not here.
        if self.claims.tree_runs(nodes_below(index)).next().is_none()
            && self.claims.runs(blocks_below(index)).next().is_none()
        {
            return Ok(None);
        }
        if let (Some(left), Some(right)) = (self.salvage(left)?, self.salvage(right)?)
            && let Some(node) = Node::parent(&left, &right)
        {
            self.take(node)?;
            return Ok(Some(node));
        }
        let node = self.files.node(index)?;
        let node = node.filter(|_| self.claims.tree_get(index.get()));
        match node {
            Some(node) if self.has_parent(&node)? => {
                self.take(node)?;
                Ok(Some(node))
            }
            _ => Ok(None),
        }
    }

    fn salvage_leaf(&mut self, index: NodeIndex) -> Result<Option<Node>> {
        let block = index.get() / 2;
        let leaf = self.files.node(index)?;
        if let Some(leaf) = leaf.filter(|_| self.claims.tree_get(index.get()))
            && (self.is_whole(self.place(index)?)? || self.has_parent(&leaf)?)
        {
            self.take(leaf)?;
            return Ok(Some(leaf));
        }
        if self.claims.get(block) {
            self.repair.dropped.push(block);
        }
        Ok(None)
    }

    /// Whether a node and the one beside it make up the one above, as they are stored.
    fn has_parent(&self, node: &Node) -> Result<bool> {
        let parent = self.files.node(node.index.parent())?;
        Ok(match parent {
            Some(parent) => self.stored_children(&parent)?.is_some(),
            None => false,
        })
    }

    /// Whether the block of this leaf, which stands there, is whole: then reading finds it.
    fn is_whole(&self, place: Option<(Node, u64)>) -> Result<bool> {
        Ok(match place {
            Some((leaf, offset)) => self.block_at(leaf.index, offset, leaf.size)? == Some(leaf),
            None => false,
        })
    }

    /// Claims the blocks that are whole.
    fn check_blocks(&mut self, roots: &Roots) -> Result<()> {
        // Blocks without their leaves are nothing, and of a sparse clone most are without.
        let nodes = nodes_of(0..roots.length());
        let nodes: Vec<_> = self.bitfield.tree_runs(nodes).collect();
        let nodes = nodes.into_iter().flatten().filter_map(NodeIndex::new);
        for index in nodes.filter(|index| index.is_leaf()) {
            let block = index.get() / 2;
            let claimed = self.claims.get(block);
            if !claimed && !self.distrust_bits {
                continue;
            }
            let place = self.place(index)?;
            if self.is_whole(place)? {
                self.bitfield.set(block, true);
            } else if claimed {
                if let Some((leaf, offset)) = place {
                    let end = offset.saturating_add(leaf.size);
                    self.quarantine.add(FileName::Data, offset..end)?;
                }
                self.repair.dropped.push(block);
            }
        }
        if self.distrust_bits {
            self.repair.count();
        }
        Ok(())
    }

    /// A node as it is going to be.
    fn node(&self, index: NodeIndex) -> Result<Option<Node>> {
        match self.nodes.get(&index) {
            Some(node) => Ok(Some(*node)),
            None => Ok(self.files.node(index)?),
        }
    }

    fn place(&self, index: NodeIndex) -> Result<Option<(Node, u64)>> {
        let mut offset = 0_u64;
        for root in full_roots(index.get() / 2) {
            match self.node(root)? {
                Some(root) => offset = offset.saturating_add(root.size),
                None => return Ok(None),
            }
        }
        Ok(self.node(index)?.map(|leaf| (leaf, offset)))
    }

    /// Writes the nodes, and claims those that opening would: all that is known then has to be right.
    fn write_nodes(&mut self, roots: &Roots) -> Result<()> {
        self.quarantine.sync()?;
        let nodes: Vec<_> = std::mem::take(&mut self.nodes).into_values().collect();
        self.files.write_nodes(&nodes)?;
        restore_nodes(self.files, &mut self.bitfield, roots.length())
    }

    /// Takes false signatures away, or makes them again.
    fn check_signatures(&mut self, end: &Roots) -> Result<()> {
        let mut next = 0;
        while let Some((block, signature)) = self.files.next_signature(next)? {
            next = length_with(block);
            if next >= end.length() {
                break;
            }
            let known = |root: NodeIndex| self.bitfield.tree_get(root.get());
            if self.signatures.contains_key(&block) || !full_roots(next).all(known) {
                continue;
            }
            let nodes: Option<Vec<_>> = full_roots(next)
                .map(|root| self.files.node(root))
                .collect::<Result<_, _>>()?;
            let Some(Ok(roots)) = nodes.map(|nodes| Roots::from_nodes(next, nodes)) else {
                continue;
            };
            if verifies(self.verifier, &roots.head(), &signature) {
                continue;
            }
            let again = self.sign_again(&roots, &signature);
            self.replace_signature(block, again)?;
        }
        Ok(())
    }

    /// The signature over `roots` if `damaged` was that one, and not a blank slot: Ed25519 makes
    /// the same signature each time.
    fn sign_again(&self, roots: &Roots, damaged: &[u8; 64]) -> Option<[u8; 64]> {
        let again = self.keys.pair.as_ref()?.sign_checked(&roots.head()).ok()?;
        let again = *again.as_bytes();
        let distance = |from: &[u8; 64]| -> u32 {
            let bits = damaged.iter().zip(from).map(|(a, b)| (a ^ b).count_ones());
            bits.sum()
        };
        (distance(&again) < distance(&[0; 64])).then_some(again)
    }

    /// Takes away the part of a signature that a file ends with that was cut: once another one stands behind
    /// it, it would be taken for a whole one.
    fn drop_part_of_signature(&mut self) -> Result<()> {
        const HEADER: u64 = 32;
        const SLOT: u64 = 64;
        let size = self.files.len(FileName::Signatures)?.saturating_sub(HEADER);
        let block = size / SLOT;
        let last = self.signatures.keys().next_back();
        let is_followed = last.is_some_and(|&last| last > block);
        if !size.is_multiple_of(SLOT) && is_followed {
            self.quarantine.add_signature(block)?;
            self.signatures.insert(block, None);
        }
        Ok(())
    }

    fn write(mut self, roots: Roots) -> Result<Repair> {
        self.drop_part_of_signature()?;
        let length = roots.length();
        let mut bitfield = self.bitfield;
        // What is set anew is written anyway, and so are pages that show something else. A page in
        // a hole shows nothing.
        self.files.pages(|page, bytes| {
            if bytes.iter().any(|&byte| byte != 0) {
                bitfield.mark_dirty(page);
            }
        })?;
        let end = End {
            bitfield,
            checkpoint: length,
            claimed: length,
            recovered: 0,
            nodes: Vec::new(),
            torn_signatures: Vec::new(),
            roots,
        };
        self.quarantine.sync()?;
        for (block, signature) in self.signatures {
            match signature {
                Some(signature) => self.files.write_signature(block, &signature)?,
                None => self.files.clear_signatures(one_block(block))?,
            }
        }
        end.adopt(self.files, self.quarantine)?;
        let mut repair = self.repair;
        repair.dropped.sort_unstable();
        Ok(repair)
    }
}
