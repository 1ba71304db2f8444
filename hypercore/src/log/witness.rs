//! What a peer's signed log says of ours: that it is part of one history with it, that it is
//! longer, or that there are two histories.

use std::collections::{BTreeMap, BTreeSet};

use hypercore_merkle::{Node, NodeIndex, Proof, Roots, TreeHead, full_roots, verify};

use super::{Log, TreeBits, Vouched};
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
        if !self.contradicts(&theirs)? {
            return Ok(Some(Witness::Agrees(*head)));
        }
        let theirs_signed = SignedRoots {
            roots: roots.clone(),
            signature: signature.clone(),
        };
        let fork = self.prove_fork(theirs_signed, &theirs)?;
        Ok(fork.map(|fork| Witness::Forked(Box::new(fork))))
    }

    /// Whether we know one of these nodes with another hash.
    fn contradicts(&self, theirs: &BTreeMap<NodeIndex, Node>) -> Result<bool> {
        let bits = TreeBits(&self.bitfield);
        let known: Vec<_> = theirs.keys().copied().filter(|&it| bits.has(it)).collect();
        let stored = self.files()?.nodes(&known)?;
        let mut pairs = known.iter().zip(stored);
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
        let Some(last) = self.head.length.checked_sub(1) else {
            return Ok(None);
        };
        let files = self.files()?;
        let Some(signature) = files.signature(last)? else {
            return Ok(None);
        };
        if self.vouched != Vouched::Signed {
            return Ok(None);
        }
        let ours = SignedRoots {
            roots: self.roots.clone(),
            signature: Signature::try_from(&signature[..])?,
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
