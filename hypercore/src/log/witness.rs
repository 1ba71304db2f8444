//! What a peer's signed log says of ours: that it is part of one history with it, that it is
//! longer, or that there are two histories.

use std::collections::{BTreeMap, BTreeSet};

use hypercore_merkle::{ChangeSet, Node, NodeIndex, Proof, Roots, TreeHead, full_roots, verify};

use super::{Log, Taken, TreeBits, Vouched};
use crate::{
    error::Result,
    fork::{ForkProof, SignedRoots},
};
use hypercore_merkle::{NodeSet, Signature};

/// A signed log of somebody else.
#[derive(Debug)]
pub(crate) enum Witness {
    /// Nothing contradicts our log. This is where theirs ends.
    Agrees(TreeHead),
    /// It is another history.
    Forked(Box<ForkProof>),
}

impl Log {
    /// Looks at a proof of block `index` without a value as if nothing was known here, and then
    /// compares. `None` if it proves nothing in this way, as one that leaves out what we have.
    pub(crate) fn examine(&self, index: u64, proof: &Proof) -> Result<Option<Witness>> {
        let Some(signature) = &proof.signature else {
            return Ok(None);
        };
        let nothing = BTreeSet::<NodeIndex>::new();
        let checked = verify::plan(&nothing, index, false, proof)
            .and_then(|plan| plan.check(&self.verifier, &Roots::new().head(), None, proof, &[]));
        let Ok(change) = checked else {
            return Ok(None);
        };
        self.compare(&BTreeMap::new(), &change, signature)
    }

    /// Compares what a signature vouches for with what we know. `None` if it speaks of no log, or
    /// contradicts ours without proving two histories.
    fn compare(
        &self,
        pending: &BTreeMap<NodeIndex, Node>,
        change: &ChangeSet,
        signature: &Signature,
    ) -> Result<Option<Witness>> {
        let (Some(head), Some(roots)) = (change.head(), change.roots()) else {
            return Ok(None);
        };
        let theirs: BTreeMap<_, _> = change
            .nodes()
            .iter()
            .chain(change.unbound())
            .chain(roots.nodes())
            .map(|node| (node.index, *node))
            .collect();
        if !self.contradicts(pending, &theirs)? {
            return Ok(Some(Witness::Agrees(*head)));
        }
        let theirs_signed = SignedRoots {
            roots: roots.clone(),
            signature: signature.clone(),
        };
        let fork = self.prove_fork(theirs_signed, &theirs)?;
        Ok(fork.map(|fork| Witness::Forked(Box::new(fork))))
    }

    /// What keeps a checked answer from being stored, if it may be of another history. One that was
    /// asked for when nothing was known here proves the log of its sender, and says nothing of ours:
    /// another peer may have been first. `pending` nodes are known and not written yet.
    pub(super) fn other_history(
        &self,
        pending: &BTreeMap<NodeIndex, Node>,
        change: &ChangeSet,
    ) -> Result<Option<Taken>> {
        let (Some(head), Some((length, signature))) = (change.head(), change.signature()) else {
            return Ok(None);
        };
        if self.head.length == 0 || *head == self.head {
            return Ok(None);
        }
        match self.compare(pending, change, signature)? {
            Some(Witness::Forked(fork)) if self.fork.is_none() => Ok(Some(Taken::Forked(fork))),
            Some(Witness::Forked(_)) | None => {
                Err(hypercore_merkle::Error::TreeHashMismatch { length }.into())
            }
            // Whether a longer log contains ours is what every peer is asked about.
            Some(Witness::Agrees(_)) if length > self.head.length => Ok(None),
            Some(Witness::Agrees(_)) if self.hash_at(length) == Some(head.hash) => Ok(None),
            // Its blocks can be asked for again when more is known.
            Some(Witness::Agrees(_)) => Ok(Some(Taken::Undecided)),
        }
    }

    /// Whether we know one of these nodes with another hash.
    fn contradicts(
        &self,
        pending: &BTreeMap<NodeIndex, Node>,
        theirs: &BTreeMap<NodeIndex, Node>,
    ) -> Result<bool> {
        let bits = TreeBits(&self.bitfield);
        let known: Vec<_> = theirs.keys().copied().filter(|&it| bits.has(it)).collect();
        let stored = self.files()?.nodes(&known)?;
        let pairs = known.iter().zip(stored);
        let mut pairs =
            pairs.map(|(index, stored)| (index, pending.get(index).copied().or(stored)));
        Ok(pairs.any(|(index, stored)| {
            let differs = |stored: Node| Some(stored.hash) != theirs.get(index).map(|it| it.hash);
            stored.is_some_and(differs)
        }))
    }

    fn prove_fork(
        &self,
        theirs: SignedRoots,
        nodes: &BTreeMap<NodeIndex, Node>,
    ) -> Result<Option<ForkProof>> {
        let files = self.files()?;
        let Some(signature) = self.signature(self.head.length)? else {
            return Ok(None);
        };
        if self.vouched != Vouched::Signed {
            return Ok(None);
        }
        let ours = SignedRoots {
            roots: self.roots.clone(),
            signature,
        };
        Ok(if ours.roots.length() < theirs.roots.length() {
            ForkProof::find(self.key, ours, theirs, |index| nodes.get(&index).copied())
        } else {
            ForkProof::find(self.key, theirs, ours, |index| {
                files.node(index).ok().flatten()
            })
        })
    }

    /// The tree hash that the log had at `length`, if that is known here.
    pub(crate) fn hash_at(&self, length: u64) -> Option<hypercore_merkle::Hash> {
        let bits = TreeBits(&self.bitfield);
        if length > self.head.length || !full_roots(length).all(|root| bits.has(root)) {
            return None;
        }
        Some(self.roots_at(length).ok()?.head().hash)
    }
}
