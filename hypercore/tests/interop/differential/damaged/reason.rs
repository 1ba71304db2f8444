//! What both may find differently in damaged files, and why that is right.

use hypercore::merkle::{
    Node, NodeIndex, PublicKey, Roots, Signature, Verifier, full_roots, leaf_hash,
};
use hypercore::storage::FileName;
use hypercore::{Corruption, Error, storage};

use super::originals::Files;
use super::readers::{Found, Ours, Theirs};

/// Why we find something else than Node. Whether it is so is seen from the files, not from what we say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Reason {
    /// The bitfield has pages of a size that nobody writes. Node throws, and nobody catches it.
    Crash,
    /// A file with content begins with something else than its header. Node looks at the size of the pages, and writes
    /// the header anew.
    Header,
    /// The file `key` is not what it was, and Node takes or makes another key. We take none that the secret key or a signature
    /// contradicts, nor that of a log that looks like a static one whose key was not written yet.
    Key,
    /// The file `key` is gone: Node finds no log. The secret key ends with it.
    KeyInSecret,
    /// The secret key is cut, or is not that of the key. Node would sign with it.
    SecretKey,
    /// Nobody has signed what the bitfield claims, which is all that Node goes by.
    Unsigned,
    /// What was signed is longer than what is left of the bitfield, which is all that Node goes by.
    BitsLost,
    /// The bitfield claims a length whose roots are not in the tree. Node opens no such log, we one that ends before.
    RootsLost,
    /// The bitfield claims a length whose roots are not in the tree. Node tries that before it, and opens it unseen.
    OneLess,
    /// A bit behind the end of the log. Node claims the block.
    Behind,
    /// A block whose bytes are not here any more, or are not those. Node claims it, and often gives out something else.
    Rotten,
    /// A block whose hash in the tree is not here any more, or, when the end was searched for, one between it and the roots. Node
    /// does not look at them. Of a root that is lost we also know the size again, from what stands below it.
    HashLost,
    /// A block that is here, though its bit is not. A search for the end finds it, also if it was cleared.
    FoundAgain,
    /// An empty block behind the end of `data`, which Node cannot read.
    EmptyBlock,
    /// The leaf of an empty block stands in the place of another: leaves do not say where they belong. Both give out an empty
    /// block.
    LeafMisplaced,
}

use Reason::*;

impl Reason {
    pub(super) const ALL: [Self; 15] = [
        Crash,
        Header,
        Key,
        KeyInSecret,
        SecretKey,
        Unsigned,
        BitsLost,
        RootsLost,
        OneLess,
        Behind,
        Rotten,
        HashLost,
        FoundAgain,
        EmptyBlock,
        LeafMisplaced,
    ];
}

/// Files that were damaged, and what they were.
pub(super) struct Case<'a> {
    pub(super) original: &'a Files,
    /// What was found in them.
    pub(super) whole: &'a Found,
    pub(super) damaged: &'a Files,
}

impl Case<'_> {
    /// Why we find something else than Node: all reasons; an error if one is missing.
    pub(super) fn reasons(&self, ours: &Ours, theirs: &Theirs) -> Result<Vec<Reason>, String> {
        let reason = match (&ours.found, theirs) {
            (Ok(ours_found), Theirs::Found(theirs)) => {
                return self.both(ours.recovered, ours_found, theirs);
            }
            (Err(_), Theirs::Refused) => return Ok(Vec::new()),
            (_, Theirs::Crashed) => self.has_odd_pages().then_some(Crash),
            (Ok(ours), Theirs::Refused) => self.opened_by_us(ours),
            (Err(error), Theirs::Found(theirs)) => self.refused_by_us(error, theirs),
        };
        reason
            .map(|reason| vec![reason])
            .ok_or_else(|| "who opens it".to_owned())
    }

    /// What must hold of what we find, whatever Node does: nothing of it is false. An error if something is.
    pub(super) fn check(&self, ours: &Found) -> Result<(), String> {
        if ours.key != self.whole.key && self.signature(ours.length).is_some() {
            return Err("another key".to_owned());
        }
        if ours.length > self.whole.length {
            return Err("longer than it ever was".to_owned());
        }
        let is_wrong = |(index, block): &(&u64, &Option<Vec<u8>>)| {
            let is_wrong = |block: &Vec<u8>| {
                !self.is_right(**index, block) && !self.is_misplaced(**index, block)
            };
            block.as_ref().is_some_and(is_wrong)
        };
        match ours.blocks.iter().find(is_wrong) {
            Some((index, _)) => Err(format!("block {index} is another one")),
            None => Ok(()),
        }
    }

    fn both(&self, recovered: bool, ours: &Found, theirs: &Found) -> Result<Vec<Reason>, String> {
        let mut reasons = Vec::new();
        let mut add = |what: String, reason: Option<Reason>| {
            reason.map(|reason| reasons.push(reason)).ok_or(what)
        };
        if ours.key != theirs.key {
            add(
                "the key".to_owned(),
                self.is_changed(FileName::Key).then_some(Key),
            )?;
        }
        if ours.length < theirs.length {
            let unsigned = !self.is_signed(theirs.length);
            add("a shorter log".to_owned(), unsigned.then_some(Unsigned))?;
        } else if ours.length > theirs.length {
            let signed = recovered && self.is_signed(ours.length);
            add("a longer log".to_owned(), signed.then_some(BitsLost))?;
        } else if ours.byte_length != theirs.byte_length {
            let is_mended = recovered && self.has_lost_root(ours);
            add("the bytes".to_owned(), is_mended.then_some(HashLost))?;
        }
        let mut indexes: Vec<_> = ours.blocks.keys().chain(theirs.blocks.keys()).collect();
        indexes.sort();
        indexes.dedup();
        for &index in indexes {
            let what = || format!("block {index}");
            match (ours.blocks.get(&index), theirs.blocks.get(&index)) {
                (Some(Some(block)), _) if self.is_misplaced(index, block) => {
                    add(what(), Some(LeafMisplaced))?;
                }
                (ours, theirs) if ours == theirs => {}
                (None, Some(_)) if index >= ours.length => add(what(), Some(Behind))?,
                (Some(_), None) => add(what(), recovered.then_some(FoundAgain))?,
                (Some(Some(block)), Some(None)) if block.is_empty() => {
                    add(what(), Some(EmptyBlock))?
                }
                (Some(Some(_)), Some(None)) => add(what(), None)?,
                (_, Some(Some(theirs))) if self.is_right(index, theirs) => {
                    let has_lost_way = || recovered && self.has_lost_way(index);
                    let is_lost = self.is_lost(2 * index as usize) || has_lost_way();
                    add(what(), is_lost.then_some(HashLost))?;
                }
                (_, Some(_)) => add(what(), Some(Rotten))?,
                (None, None) => {}
            }
        }
        reasons.sort();
        reasons.dedup();
        Ok(reasons)
    }

    fn opened_by_us(&self, ours: &Found) -> Option<Reason> {
        if self.damaged.get(FileName::Key).len() < 32 {
            let secret = self.damaged.get(FileName::SecretKey).get(32..64)?;
            return (hex::encode(secret) == ours.key).then_some(KeyInSecret);
        }
        self.is_signed(ours.length).then_some(RootsLost)
    }

    fn refused_by_us(&self, error: &Error, theirs: &Found) -> Option<Reason> {
        let (is_so, reason) = match error {
            Error::Storage(storage::Error::BadHeader { file, .. }) => {
                (!self.has_header(*file), Header)
            }
            Error::Storage(storage::Error::BadPageSize { .. }) => (self.has_odd_pages(), Header),
            Error::Storage(storage::Error::Corrupt { file, .. }) => {
                let (expected, reason) = match file {
                    FileName::Key => (32, Key),
                    _ => (64, SecretKey),
                };
                (self.damaged.get(*file).len() < expected, reason)
            }
            Error::Corrupt(Corruption::KeyMissing) => {
                let is_unfinished = || self.looks_unfinished(theirs.length);
                (self.is_changed(FileName::Key) || is_unfinished(), Key)
            }
            Error::Corrupt(Corruption::SecretKey) => {
                let files = [FileName::Key, FileName::SecretKey];
                (
                    files.into_iter().any(|file| self.is_changed(file)),
                    SecretKey,
                )
            }
            // Of the length before which Node has opened the log.
            Error::Storage(storage::Error::MissingNode { node })
                if self.damaged.node(node.get() as usize).is_none() =>
            {
                let is_root = full_roots(theirs.length + 1).any(|root| root == *node);
                (is_root, OneLess)
            }
            _ => (!self.is_signed(theirs.length), Unsigned),
        };
        is_so.then_some(reason)
    }

    /// Where each file differs from what it was.
    pub(super) fn changes(&self) -> String {
        let mut text = String::new();
        for file in FileName::ALL
            .into_iter()
            .filter(|file| self.is_changed(*file))
        {
            let (from, to) = (self.original.get(file), self.damaged.get(file));
            let differs = |at: &usize| from.get(*at) != to.get(*at);
            let mut bytes = (0..from.len().max(to.len())).filter(differs);
            let (first, last) = (bytes.next(), bytes.next_back());
            let lens = (from.len(), to.len());
            text += &format!("; {file}: {lens:?} bytes, from {first:?} to {last:?}");
        }
        text
    }

    // What the files say

    /// Whether no signature is left, and something stands behind the place of the last: the mark of a log that is being written.
    fn looks_unfinished(&self, length: u64) -> bool {
        let signatures = self.damaged.get(FileName::Signatures);
        let end = 32 + 64 * length as usize;
        let places = signatures.get(32..end).unwrap_or_default();
        signatures.len() > end && places.iter().all(|&byte| byte == 0)
    }

    fn is_changed(&self, file: FileName) -> bool {
        self.original.get(file) != self.damaged.get(file)
    }

    /// Whether this is block `index` as it was appended.
    fn is_right(&self, index: u64, block: &[u8]) -> bool {
        let leaf = self.original.node(2 * index as usize);
        leaf.is_some_and(|leaf| leaf[..32] == leaf_hash(block))
    }

    /// Whether a root of this log is not what it was, and what we found has as many bytes as it had.
    fn has_lost_root(&self, ours: &Found) -> bool {
        let roots: Vec<_> = full_roots(ours.length)
            .map(|root| root.get() as usize)
            .collect();
        let size = |root: &usize| {
            let record = self.original.node(*root)?;
            record.last_chunk().copied().map(u64::from_be_bytes)
        };
        let sizes: Option<Vec<_>> = roots.iter().map(size).collect();
        let is_right = sizes.is_some_and(|sizes| sizes.iter().sum::<u64>() == ours.byte_length);
        is_right && roots.into_iter().any(|root| self.is_lost(root))
    }

    /// Whether a node between a block and the roots, or beside that way, is not what it was.
    fn has_lost_way(&self, index: u64) -> bool {
        let leaf = NodeIndex::leaf(index);
        let way = std::iter::successors(leaf, |node| Some(node.parent()));
        let mut nodes = way.take(20).flat_map(|node| [node, node.sibling()]);
        nodes.any(|node| self.is_lost(node.get() as usize))
    }

    /// Whether a node is not what it was.
    fn is_lost(&self, node: usize) -> bool {
        self.original.node(node) != self.damaged.node(node)
    }

    /// Whether this is an empty block in place of block `index`, because its leaf is that of one.
    fn is_misplaced(&self, index: u64, block: &[u8]) -> bool {
        let leaf = self.damaged.node(2 * index as usize);
        let is_empty =
            leaf.is_some_and(|leaf| leaf[..32] == leaf_hash(&[]) && leaf[32..] == [0; 8]);
        block.is_empty() && is_empty && !self.is_right(index, block)
    }

    fn has_odd_pages(&self) -> bool {
        let size = self.damaged.get(FileName::Bitfield).get(5..7);
        size.is_some_and(|size| {
            ![3584_u16, 3328]
                .map(u16::to_be_bytes)
                .contains(&[size[0], size[1]])
        })
    }

    fn has_header(&self, file: FileName) -> bool {
        let header = match file {
            FileName::Tree => &b"\x05\x02\x57\x02\x00\x00\x28\x07BLAKE2b"[..],
            FileName::Signatures => b"\x05\x02\x57\x01\x00\x00\x40\x07Ed25519",
            FileName::Bitfield if self.has_odd_pages() => return false,
            FileName::Bitfield => {
                let bytes = self.damaged.get(file);
                return bytes.starts_with(b"\x05\x02\x57\x00\x00") && bytes.get(7) == Some(&0);
            }
            _ => return true,
        };
        self.damaged.get(file).starts_with(header)
    }

    /// Whether the key signed a log of this length whose roots are in the tree, or is their hash and nobody has signed.
    fn is_signed(&self, length: u64) -> bool {
        let key = self.damaged.get(FileName::Key).first_chunk::<32>();
        let (Some(key), Some(roots)) = (key, self.roots(length)) else {
            return length == 0;
        };
        let (verifier, head) = (Verifier::new(&PublicKey::from(*key)), roots.head());
        match self.signature(length) {
            Some(signature) => verifier.verify(&head, &signature),
            None => length == 0 || verifier.is_static_head(&head),
        }
    }

    /// What stands in the place of the signature over this length, unless it is blank.
    fn signature(&self, length: u64) -> Option<Signature> {
        let at = 32 + 64 * length.checked_sub(1)? as usize;
        let bytes = self.damaged.get(FileName::Signatures).get(at..at + 64)?;
        let bytes = *bytes.first_chunk::<64>()?;
        (bytes != [0; 64]).then(|| bytes.into())
    }

    fn roots(&self, length: u64) -> Option<Roots> {
        let node = |index: NodeIndex| {
            let record = self.damaged.node(index.get() as usize)?;
            Node::from_record(index, record.first_chunk()?)
        };
        let nodes = full_roots(length).map(node).collect::<Option<_>>()?;
        Roots::from_nodes(length, nodes).ok()
    }
}
