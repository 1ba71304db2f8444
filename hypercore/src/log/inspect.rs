//! Checking all that is stored of a log against itself, without changing anything.
//!
//! Files are read from their beginnings to their ends in windows of [`WINDOW`] blocks, so that
//! memory stays the same however long the log is. Windows of which nothing is here are passed over,
//! because a clone may have one block of 2^50. Within a window lie the nodes of a whole subtree:
//!
//! ```text
//!                    2047            <- above: read one by one, with their children
//!         1023                  3071
//!     .----'----.           .----'----.
//!     0 ..... 2046         2048 ... 4094
//!      a window             the next one
//! ```

use std::{
    collections::BTreeSet,
    fmt,
    ops::{ControlFlow, Range},
    sync::Arc,
};

use hypercore_bitfield::Bitfield;
use hypercore_merkle::{
    KeyPair, MAX_BLOCK_SIZE, MAX_LENGTH, Node, NodeIndex, PublicKey, Roots, Verifier, full_roots,
    leaf_hash, tree_index,
};
use hypercore_storage::{FeedFiles, FileName, Storage};

use super::{
    TreeBits, open,
    recover::{self, Examined, PAGE_BLOCKS, load_bitfield, verifies},
    torn,
};
use crate::error::{Corruption, Error, Result};
use crate::span::{length_with, nodes_of};

/// What [`Hypercore::verify`](crate::Hypercore::verify) found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Verification {
    /// How many stored blocks are whole.
    pub blocks: u64,
    /// How many bytes these have.
    pub bytes: u64,
    /// What is wrong, at most [`MAX_PROBLEMS`](Self::MAX_PROBLEMS).
    pub problems: Vec<Problem>,
    /// How many more problems there are than are listed.
    pub unlisted: u64,
}

impl Verification {
    /// So many problems are listed; the others are counted.
    pub const MAX_PROBLEMS: usize = 10_000;

    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_ok(&self) -> bool {
        self.problems.is_empty()
    }

    fn add(&mut self, file: FileName, index: u64, problem: impl Into<String>) {
        if self.problems.len() < Self::MAX_PROBLEMS {
            let problem = problem.into();
            self.problems.push(Problem {
                file,
                index,
                problem,
            });
        } else {
            self.unlisted = self.unlisted.saturating_add(1);
        }
    }
}

/// Something that is wrong with a file.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Problem {
    /// The file to blame.
    pub file: FileName,
    /// Where: a node in `tree`, a block in the others, 0 where it is the file as a whole.
    pub index: u64,
    /// What, in a sentence.
    pub problem: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.file, self.problem)
    }
}

/// Is told how many blocks have been looked at, and how many there are, and says whether to go on.
pub(crate) type Watch<'a> = &'a mut dyn FnMut(u64, u64) -> ControlFlow<()>;

/// Checks the log in `storage`, however damaged it is.
pub(crate) fn verify_storage(storage: Arc<dyn Storage>, watch: Watch<'_>) -> Result<Verification> {
    match verify_any(storage, watch) {
        // Something else has the name of a file: the rest makes no sense without it.
        Err(error @ Error::Storage(hypercore_storage::Error::NotAFile { .. })) => {
            let mut report = Verification::default();
            report.blame(error)?;
            Ok(report)
        }
        verified => verified,
    }
}

fn verify_any(storage: Arc<dyn Storage>, watch: Watch<'_>) -> Result<Verification> {
    let (files, damage) = FeedFiles::open_damaged(storage)?;
    if open::is_nothing(&files)? {
        return Err(Error::NoCore);
    }
    let Some(error) = damage else {
        return verify_files(&files, watch);
    };
    let mut report = Verification::default();
    check_keys(&files, &mut report)?;
    // The files behind such a header can say anything.
    report.blame(Error::Storage(error))?;
    Ok(report)
}

/// Checks the log in `files`, whose headers are right.
pub(super) fn verify_files(files: &FeedFiles, watch: Watch<'_>) -> Result<Verification> {
    let mut report = Verification::default();
    let Some((key, writer)) = check_keys(files, &mut report)? else {
        return Ok(report);
    };
    let verifier = Verifier::new(&key);
    let mut overlay = Vec::new();
    let mut torn_signatures = Vec::new();
    // Why the log cannot be opened, or not to be written to. What is found below says it better.
    let mut reason = None;
    let (bitfield, length) = match recover::examine(files, &verifier, writer, false) {
        Ok(Examined::Closed(content)) => {
            let length = content.roots.length();
            for page in torn::contradictory_pages(files, &content.bitfield, length)? {
                let problem = format!("page {page} contradicts itself");
                let first_block = page.saturating_mul(PAGE_BLOCKS);
                report.add(FileName::Bitfield, first_block, problem);
            }
            (content.bitfield, length)
        }
        Ok(Examined::Open(end)) => {
            check_claims(files, &end, &mut report)?;
            overlay = end.nodes;
            torn_signatures = end.torn_signatures;
            (end.bitfield, end.roots.length())
        }
        Ok(Examined::Damaged(content)) => {
            let damage = content.recovery.and_then(|found| found.damage);
            reason = damage.map(Error::Corrupt);
            (content.bitfield, content.roots.length())
        }
        Err(error) => {
            reason = Some(error);
            let bitfield = load_bitfield(files, MAX_LENGTH)?;
            let length = probable_length(files, &verifier, &bitfield)?;
            (bitfield, length)
        }
    };
    let log = Checked {
        files,
        verifier: &verifier,
        bitfield: &bitfield,
        length,
        overlay: &overlay,
        torn_signatures: &torn_signatures,
    };
    let mut report = log.check(report, &|_| true, watch)?;
    match reason {
        Some(error) if report.is_ok() || !error.is_corruption() => report.blame(error)?,
        _ => {}
    }
    Ok(report)
}

/// The length of a log of which the bitfield or the roots are damaged: what two of three files say,
/// or else what is signed.
pub(super) fn probable_length(
    files: &FeedFiles,
    verifier: &Verifier,
    bitfield: &Bitfield,
) -> Result<u64> {
    let claimed = tree_index::length(&TreeBits(bitfield));
    let room = files.tree_blocks()?;
    let last_signature = files.previous_signature(MAX_LENGTH)?;
    let signed = last_signature.map_or(0, |(block, _)| length_with(block));
    if claimed == room || claimed == signed {
        Ok(claimed)
    } else if room == signed {
        Ok(room)
    } else {
        let roots = recover::newest_signed(files, verifier)?;
        Ok(roots.map_or_else(|| claimed.min(room), |roots| roots.length()))
    }
}

/// A log that is open, as it was at one moment.
pub(crate) struct Snapshot {
    pub(super) files: Arc<FeedFiles>,
    pub(super) verifier: Arc<Verifier>,
    pub(super) bitfield: Bitfield,
    pub(super) length: u64,
}

impl Snapshot {
    /// Checks what was stored then. `is_stored` says which blocks still are.
    pub(crate) fn verify(
        &self,
        is_stored: &dyn Fn(u64) -> bool,
        watch: Watch<'_>,
    ) -> Result<Verification> {
        let log = Checked {
            files: &self.files,
            verifier: &self.verifier,
            bitfield: &self.bitfield,
            length: self.length,
            overlay: &[],
            torn_signatures: &[],
        };
        log.check(Verification::default(), is_stored, watch)
    }
}

impl Verification {
    /// What was read, or `None` and a problem if damage is the reason why it could not be.
    fn readable<T>(&mut self, read: Result<T, hypercore_storage::Error>) -> Result<Option<T>> {
        match read {
            Ok(read) => Ok(Some(read)),
            Err(error) => self.blame(error.into()).map(|()| None),
        }
    }

    /// Takes a failure for a problem, if damage is the reason.
    fn blame(&mut self, error: Error) -> Result<()> {
        use hypercore_storage::Error as Files;
        let (file, index) = match &error {
            Error::Corrupt(Corruption::Block { index }) => (FileName::Data, *index),
            Error::Corrupt(Corruption::Node { node } | Corruption::WrongNode { node }) => {
                (FileName::Tree, *node)
            }
            Error::Corrupt(Corruption::KeyMissing) => (FileName::Key, 0),
            Error::Corrupt(Corruption::SecretKey) => (FileName::SecretKey, 0),
            Error::Corrupt(Corruption::Signature { length }) => {
                (FileName::Signatures, length.saturating_sub(1))
            }
            Error::Storage(
                Files::BadHeader { file, .. }
                | Files::Corrupt { file, .. }
                | Files::NotAFile { file, .. },
            ) => (*file, 0),
            Error::Storage(Files::BadPageSize { .. }) => (FileName::Bitfield, 0),
            Error::Storage(Files::MissingNode { node }) => (FileName::Tree, node.get()),
            Error::Storage(Files::MissingData { .. }) => (FileName::Data, 0),
            _ => return Err(error),
        };
        self.add(file, index, error.to_string());
        Ok(())
    }
}

/// The public key, and whether the log is written here; `None` when no key is left to check by.
fn check_keys(files: &FeedFiles, report: &mut Verification) -> Result<Option<(PublicKey, bool)>> {
    let secret = report.readable(files.secret_key())?;
    let stored = report.readable(files.key())?;
    let stored = stored.map(|key| key.filter(|key| *key != [0; 32]));
    let writer = !matches!(secret, Some(None));
    let mut pair = None;
    if let Some(secret) = secret.flatten() {
        match KeyPair::from_bytes(&secret) {
            Ok(whole) => pair = Some(whole.public_key()),
            Err(_) => report.blame(Corruption::SecretKey.into())?,
        }
    }
    if stored == Some(None) {
        report.blame(Corruption::KeyMissing.into())?;
    }
    let key = stored.flatten().map(PublicKey::from);
    if let (Some(key), Some(pair)) = (key, pair)
        && key != pair
    {
        let problem = "it is not the public half of the file secret_key";
        report.add(FileName::Key, 0, problem);
    }
    // Of the two, the secret key shows by itself whether it is whole.
    Ok(pair.or(key).map(|key| (key, writer)))
}

/// Tells a bitfield that is behind, as one may be whose log is open, from one that was damaged.
fn check_claims(files: &FeedFiles, end: &recover::End, report: &mut Verification) -> Result<()> {
    let length = end.roots.length();
    // Room for the bits is made before anything that they will claim, and the mark of an open log
    // goes when all of them are on the disk.
    let has_room = files.page_count()? >= length.div_ceil(PAGE_BLOCKS);
    let was_closed = end.surplus(files)? == 0;
    if was_closed || !has_room {
        let problem = format!("it does not claim all of the {length} blocks");
        report.add(FileName::Bitfield, end.claimed.min(length), problem);
    }
    Ok(())
}

/// A log to be checked.
struct Checked<'a> {
    files: &'a FeedFiles,
    verifier: &'a Verifier,
    bitfield: &'a Bitfield,
    length: u64,
    /// Nodes that the files do not have yet, because the log was not closed.
    overlay: &'a [Node],
    /// Lengths with a signature that is none, in ascending order; opening removes them.
    torn_signatures: &'a [u64],
}

impl Checked<'_> {
    fn check(
        &self,
        mut report: Verification,
        is_stored: &dyn Fn(u64) -> bool,
        watch: Watch<'_>,
    ) -> Result<Verification> {
        self.check_bounds(&mut report);
        let mut suspects = BTreeSet::new();
        let mut signatures = Signatures {
            next: self.files.next_signature(0)?,
            ..Signatures::default()
        };
        let mut parents = BTreeSet::new();
        let mut next = 0;
        while let Some(number) = self.next_window(next, &signatures, &parents) {
            let blocks = blocks_of_window(number);
            go_on(watch(blocks.start, self.length))?;
            let window = Window::load(self, blocks)?;
            self.check_nodes(&window, &mut suspects, &mut report)?;
            self.check_blocks(&window, &mut suspects, is_stored, &mut report)?;
            self.check_signatures(&window, &suspects, &mut signatures, &mut report)?;
            next = number.saturating_add(1);
            parents.retain(|&parent| parent >= next);
            parents.extend(self.window_of_parent(number));
        }
        if signatures.valid == 0 && signatures.wrong > 1 {
            report.add(FileName::Key, 0, "no signature was made with it");
        }
        go_on(watch(self.length, self.length))?;
        self.check_head(&mut report)?;
        Ok(report)
    }

    /// The first window from number `from` on of which anything is here, or of which a node should
    /// be: one of `parents`.
    fn next_window(
        &self,
        from: u64,
        signatures: &Signatures,
        parents: &BTreeSet<u64>,
    ) -> Option<u64> {
        let first = blocks_of_window(from).start;
        let mut nodes = self.bitfield.tree_runs(nodes_of(first..self.length));
        let node = nodes.next().map(|run| run.start / 2);
        let block = self.bitfield.next_set(first);
        let signature = signatures.next.map(|(block, _)| block);
        let blocks = [node, block, signature].into_iter().flatten();
        let windows = blocks
            .filter(|&block| block < self.length)
            .map(|block| block / WINDOW);
        windows.chain(parents.first().copied()).min()
    }

    /// The window of the parent of the last node of window `number`, if that node is known and its
    /// parent stands right of it. All other nodes have their parents in the same window.
    fn window_of_parent(&self, number: u64) -> Option<u64> {
        let mut nodes = nodes_of(blocks_of_window(number));
        let last = nodes.next_back().and_then(NodeIndex::new)?;
        let parent = last.parent();
        let is_due = self.is_known(last) && parent > last && parent.end() <= self.length;
        is_due.then_some(parent.get() / (2 * WINDOW))
    }

    fn is_known(&self, node: NodeIndex) -> bool {
        self.bitfield.tree_get(node.get())
    }

    /// The bits beyond the end of the log.
    fn check_bounds(&self, report: &mut Verification) {
        let last = self.bitfield.bound().checked_sub(1);
        if let Some(last) = last.filter(|&block| block >= self.length) {
            let problem = format!("it claims blocks beyond the {} there are", self.length);
            report.add(FileName::Bitfield, last, problem);
        }
        let nodes = self.bitfield.tree_bound();
        if let Some(last) = nodes.checked_sub(1)
            && nodes / 2 >= self.length
        {
            let problem = format!("it claims node {last}, which the log does not have");
            report.add(FileName::Bitfield, nodes / 2, problem);
        }
    }

    /// Every parent against its children, those of the window and the one that follows it.
    fn check_nodes(
        &self,
        window: &Window,
        suspects: &mut BTreeSet<NodeIndex>,
        report: &mut Verification,
    ) -> Result<()> {
        for index in window.indexes() {
            let node = if self.is_known(index) {
                window.node(self, index)?
            } else {
                None
            };
            if self.is_known(index) && index.end() > self.length {
                if index.get() / 2 < self.length {
                    let problem = format!("it claims node {index}, which the log does not have");
                    report.add(FileName::Bitfield, index.get() / 2, problem);
                }
            } else if self.is_known(index) && node.is_none() {
                suspects.insert(index);
                report.blame(Corruption::Node { node: index.get() }.into())?;
            }
            let Some((left, right)) = index.children() else {
                continue;
            };
            if index.end() > self.length || !self.is_known(left) || !self.is_known(right) {
                continue;
            }
            if !self.is_known(index) {
                let problem = format!("it does not claim node {index}, whose children are there");
                report.add(FileName::Bitfield, index.get() / 2, problem);
            }
            let children = (window.node(self, left)?, window.node(self, right)?);
            let (Some(node), (Some(left), Some(right))) = (node, children) else {
                continue;
            };
            if Node::parent(&left, &right) != Some(node) {
                suspects.insert(index);
                let problem = format!("node {index} is not the parent of the nodes below it");
                report.add(FileName::Tree, index.get(), problem);
            }
        }
        Ok(())
    }

    /// Every block against its leaf.
    fn check_blocks(
        &self,
        window: &Window,
        suspects: &mut BTreeSet<NodeIndex>,
        is_stored: &dyn Fn(u64) -> bool,
        report: &mut Verification,
    ) -> Result<()> {
        let blocks = window.blocks.start..window.blocks.end.min(self.length);
        for block in self.bitfield.runs(blocks).flatten() {
            let Some(index) = NodeIndex::leaf(block) else {
                continue;
            };
            let leaf = window.node(self, index)?;
            let Some(leaf) = leaf.filter(|_| self.is_known(index)) else {
                // A node that is claimed and missing was told already.
                if !self.is_known(index) {
                    let problem = format!("it claims block {block} without its node");
                    report.add(FileName::Bitfield, block, problem);
                }
                continue;
            };
            let bytes = match window.offset(self, block)? {
                Some(offset) if leaf.size <= MAX_BLOCK_SIZE => {
                    match self.files.read_data(offset, leaf.size) {
                        Ok(bytes) => Some(bytes),
                        Err(error) if error.is_corruption() => None,
                        Err(error) => return Err(error.into()),
                    }
                }
                _ => None,
            };
            let hash = bytes.as_deref().map(leaf_hash);
            if hash == Some(leaf.hash) {
                report.blocks = report.blocks.saturating_add(1);
                report.bytes = report.bytes.saturating_add(leaf.size);
            } else if !is_stored(block) {
                // Cleared meanwhile.
            } else if suspects.contains(&index.parent())
                || self.leaf_is_wrong(window, &leaf, hash)?
            {
                suspects.insert(index);
                let problem = format!("node {index} is not the hash of block {block}");
                report.add(FileName::Tree, index.get(), problem);
            } else {
                report.blame(Corruption::Block { index: block }.into())?;
            }
        }
        Ok(())
    }

    /// Whether it is the leaf and not the block that is damaged, as the signature says of a leaf
    /// without parent.
    fn leaf_is_wrong(&self, window: &Window, leaf: &Node, hash: Option<[u8; 32]>) -> Result<bool> {
        let length = leaf.index.end();
        if full_roots(length).last() != Some(leaf.index) {
            return Ok(false);
        }
        let signature = self.files.signature(leaf.index.get() / 2)?;
        let (Some(hash), Some(signature)) = (hash, signature) else {
            return Ok(false);
        };
        let Some(roots) = window.roots(self, length, Some(Node { hash, ..*leaf }))? else {
            return Ok(false);
        };
        Ok(verifies(self.verifier, &roots.head(), &signature))
    }

    /// Every signature of which the roots are known.
    fn check_signatures(
        &self,
        window: &Window,
        suspects: &BTreeSet<NodeIndex>,
        count: &mut Signatures,
        report: &mut Verification,
    ) -> Result<()> {
        let end = window.blocks.end.min(self.length);
        while let Some((block, signature)) = count.next.filter(|&(block, _)| block < end) {
            let length = length_with(block);
            // It may be far away, and is looked for once.
            count.next = self.files.next_signature(length)?;
            let is_unsure = |root| !self.is_known(root) || suspects.contains(&root);
            let is_torn =
                self.torn_signatures.binary_search(&length).is_ok() || torn::is_half(&signature);
            if is_torn || full_roots(length).any(is_unsure) {
                continue;
            }
            let Some(roots) = window.roots(self, length, None)? else {
                continue;
            };
            if verifies(self.verifier, &roots.head(), &signature) {
                count.valid = count.valid.saturating_add(1);
            } else {
                count.wrong = count.wrong.saturating_add(1);
                report.blame(Corruption::Signature { length }.into())?;
            }
        }
        Ok(())
    }

    /// Somebody must vouch for the log as it ends.
    fn check_head(&self, report: &mut Verification) -> Result<()> {
        let Some(last) = self.length.checked_sub(1) else {
            return Ok(());
        };
        let wanted: Vec<_> = full_roots(self.length).collect();
        if self.files.signature(last)?.is_some() {
            return Ok(());
        }
        let nodes = self.files.nodes(&wanted)?.into_iter().collect();
        let roots = Option::and_then(nodes, |nodes| Roots::from_nodes(self.length, nodes).ok());
        let is_static = roots.is_some_and(|roots| self.verifier.is_static_head(&roots.head()));
        if !is_static {
            let problem = format!("nothing vouches for the last of {} blocks", self.length);
            report.add(FileName::Signatures, last, problem);
        }
        Ok(())
    }
}

fn go_on(told: ControlFlow<()>) -> Result<()> {
    match told {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(()) => Err(Error::Cancelled),
    }
}

#[derive(Default)]
struct Signatures {
    /// The first that was not looked at yet.
    next: Option<(u64, [u8; 64])>,
    valid: u64,
    wrong: u64,
}

/// Blocks of a window; their nodes are 80 KiB.
const WINDOW: u64 = 1024;

fn blocks_of_window(number: u64) -> Range<u64> {
    let first = number.saturating_mul(WINDOW);
    first..first.saturating_add(WINDOW)
}

/// The nodes of some neighbouring blocks, and what stands left of them.
struct Window {
    blocks: Range<u64>,
    /// Those [of the blocks](nodes_of), one for each index.
    nodes: Vec<Option<Node>>,
    /// The roots of the blocks before; `None` for one that is not known.
    left: Vec<Option<Node>>,
}

impl Window {
    fn load(log: &Checked<'_>, blocks: Range<u64>) -> Result<Self> {
        let left: Vec<_> = full_roots(blocks.start).collect();
        let left = left.into_iter().map(|root| log.far_node(root));
        let indexes = nodes_of(blocks.clone()).filter_map(NodeIndex::new);
        let mut window = Self {
            left: left.collect::<Result<_>>()?,
            nodes: log.files.nodes(&indexes.collect::<Vec<_>>())?,
            blocks,
        };
        for node in log.overlay {
            let at = window.position(node.index);
            if let Some(slot) = at.and_then(|at| window.nodes.get_mut(at)) {
                *slot = Some(*node);
            }
        }
        Ok(window)
    }

    fn indexes(&self) -> impl Iterator<Item = NodeIndex> {
        nodes_of(self.blocks.clone()).filter_map(NodeIndex::new)
    }

    /// Where in `nodes` the one at `index` is, unless that is left of the window or right of it.
    fn position(&self, index: NodeIndex) -> Option<usize> {
        let first = nodes_of(self.blocks.clone()).start;
        let at = index.get().checked_sub(first)?;
        usize::try_from(at).ok()
    }

    fn node(&self, log: &Checked<'_>, index: NodeIndex) -> Result<Option<Node>> {
        let here = self.position(index).and_then(|at| self.nodes.get(at));
        match here {
            Some(node) => Ok(*node),
            None => log.far_node(index),
        }
    }

    /// The roots of a log of `length` blocks that ends in this window, if they are all stored;
    /// `last` takes the place of the last one.
    fn roots(&self, log: &Checked<'_>, length: u64, last: Option<Node>) -> Result<Option<Roots>> {
        let mut nodes = Vec::new();
        for (at, root) in full_roots(length).enumerate() {
            let left = self.left.get(at).copied().flatten();
            let node = match last.filter(|last| last.index == root) {
                Some(last) => Some(last),
                None => match left.filter(|left| left.index == root) {
                    Some(left) => Some(left),
                    None => self.node(log, root)?,
                },
            };
            match node {
                Some(node) => nodes.push(node),
                None => return Ok(None),
            }
        }
        Ok(Roots::from_nodes(length, nodes).ok())
    }

    /// Where a block of this window stands in `data`, if that is known.
    fn offset(&self, log: &Checked<'_>, block: u64) -> Result<Option<u64>> {
        let roots = self.roots(log, block, None)?;
        Ok(roots.map(|roots| roots.byte_length()))
    }
}

impl Checked<'_> {
    /// A node from the file, or what is to stand there.
    fn far_node(&self, index: NodeIndex) -> Result<Option<Node>> {
        match self.overlay.iter().find(|node| node.index == index) {
            Some(node) => Ok(Some(*node)),
            None => Ok(self.files.node(index)?),
        }
    }
}
