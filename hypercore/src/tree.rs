//! The signed tree of a core, for those who carry blocks by ways of their own: signatures, hashes,
//! and proofs to give away and to take in.

use std::sync::Arc;

use bytes::Bytes;
use hypercore_merkle::{Block, Node, NodeIndex, Proof, Roots, Signature, Verifier, full_roots};

use crate::{
    Hypercore,
    error::{Error, Result},
    event::PeerId,
    log::{Answer, Taken},
    replicate::Stats,
    request::setters,
    runtime,
};

/// What a [proof](Hypercore::proof_with) is to contain.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ProofOptions {
    /// What the receiver knows already, as its [`Hypercore::digest`] says: the proof leaves that
    /// out.
    pub digest: u64,
    /// Start with the hash of the block, for a receiver that does not get the block itself.
    pub hash: bool,
}

setters!(ProofOptions {
    digest: u64,
    hash: bool,
});

impl Hypercore {
    /// The first signature made when block `index`, or one after it, was the last of the log, and
    /// the block it was made at. Several blocks share a signature where they were appended
    /// together.
    ///
    /// # Errors
    ///
    /// When the core is closed or the storage fails.
    pub async fn signature(&self, index: u64) -> Result<Option<(u64, Signature)>> {
        let files = Arc::clone(self.shared().lock().log.files()?);
        let found = match files.signature(index)? {
            Some(_) => Some(index),
            // The next one may be as far away as the log is long.
            None => {
                let next = runtime::unblock(move || files.next_signature(index)).await?;
                next.map(|(index, _)| index)
            }
        };
        let Some(index) = found else {
            return Ok(None);
        };
        let length = index.saturating_add(1);
        let signature = self.shared().lock().log.signature(length)?;
        Ok(signature.map(|signature| (index, signature)))
    }

    /// Whether `signature` is one of the writer's over the log that ends with block `index`.
    ///
    /// # Errors
    ///
    /// As [`root_hashes`](Self::root_hashes).
    pub async fn verify_signature(&self, index: u64, signature: &Signature) -> Result<bool> {
        let roots = self.roots(index).await?;
        Ok(Verifier::new(&self.key()).verify(&roots.head(), signature))
    }

    /// The roots of the tree over the log that ends with block `index`, from left to right.
    ///
    /// # Errors
    ///
    /// [`Error::NodeNotStored`] when one of them is not known here, and as
    /// [`signature`](Self::signature).
    pub async fn root_hashes(&self, index: u64) -> Result<Vec<Node>> {
        Ok(self.roots(index).await?.nodes().to_vec())
    }

    async fn roots(&self, index: u64) -> Result<Roots> {
        let length = index.saturating_add(1);
        let wanted: Vec<_> = full_roots(length).collect();
        if wanted.is_empty() {
            // There is no log of that length.
            return Err(Error::NodeNotStored { node: u64::MAX });
        }
        Ok(Roots::from_nodes(length, self.nodes(&wanted)?)?)
    }

    /// The hash and the size of block `index`, which need not be stored here itself.
    ///
    /// # Errors
    ///
    /// As [`root_hashes`](Self::root_hashes).
    pub async fn block_info(&self, index: u64) -> Result<Node> {
        let node = NodeIndex::leaf(index).ok_or(Error::NodeNotStored { node: u64::MAX })?;
        match self.nodes(&[node])?.pop() {
            Some(leaf) => Ok(leaf),
            None => Err(Error::NodeNotStored { node: node.get() }),
        }
    }

    fn nodes(&self, wanted: &[NodeIndex]) -> Result<Vec<Node>> {
        let core = self.shared().lock();
        let files = Arc::clone(core.log.files()?);
        let known = core.log.bitfield();
        if let Some(missing) = wanted.iter().find(|node| !known.tree_get(node.get())) {
            let node = missing.get();
            return Err(Error::NodeNotStored { node });
        }
        drop(core);
        Ok(files.required_nodes(wanted)?)
    }

    /// What is known here of the tree around block `index`, as bits that a proof may leave out:
    /// see [`ProofOptions::digest`].
    #[must_use]
    pub fn digest(&self, index: u64) -> u64 {
        self.shared().lock().log.digest(index)
    }

    /// What somebody needs who knows the key and nothing else to believe block `index`, or `None`
    /// if it is not known here.
    ///
    /// # Errors
    ///
    /// When the core is closed or the storage fails.
    pub async fn proof(&self, index: u64) -> Result<Option<Proof>> {
        self.proof_with(index, ProofOptions::default()).await
    }

    /// What somebody still needs to believe block `index`, or `None` if it is not known here.
    ///
    /// # Errors
    ///
    /// As [`proof`](Self::proof).
    pub async fn proof_with(&self, index: u64, options: ProofOptions) -> Result<Option<Proof>> {
        let core = self.shared().lock();
        core.log.prove(index, options.digest, None, options.hash)
    }

    /// Checks `block` against `proof` and stores both, as if a peer had sent them. Without a block,
    /// takes what the proof says of parents and of the length; the hash of the block itself is kept
    /// when the block comes, because only then is its size certain. The
    /// [`Download`](crate::Event::Download) that follows names [`PeerId::NOBODY`].
    ///
    /// # Errors
    ///
    /// When the proof does not prove the block ([`Error::is_peer_fault`]), when the core is closed
    /// or the storage fails. [`Error::AppendLocked`] when it proves that the log is longer than here,
    /// where it is written, and [`Error::Conflict`] when it is of another history, or an append is
    /// about to make the log longer. Then nothing is stored.
    pub async fn put(&self, index: u64, block: Option<Bytes>, proof: &Proof) -> Result<()> {
        let block = block.map(Block::hash);
        let shared = self.shared();
        if let Some(block) = &block {
            shared.ask_for_download(index, block, proof, PeerId::NOBODY)?;
        }
        let answer = Answer {
            index,
            block,
            proof: proof.clone(),
        };
        let mut core = shared.lock();
        core.log.check_open()?;
        let (taken, result) = core.put(PeerId::NOBODY, vec![answer]);
        result?;
        match taken[..] {
            [Taken::Forked(_) | Taken::Conflict | Taken::Undecided] => return Err(Error::Conflict),
            // A clone does so that knows of two histories.
            [Taken::Refused(_)] => {
                let lock = core.log.append_lock();
                return Err(lock.map_or(Error::Conflict, Error::AppendLocked));
            }
            _ => {}
        }
        core.replicator.wake_all();
        let unsynced = core.log.unsynced();
        drop(core);
        shared.checkpoint_if_due(unsynced, runtime::now());
        // Nobody else may ever look for what is left.
        shared.checkpoint_later();
        Ok(())
    }

    /// The length of the longest log that a connected peer is known to have.
    #[must_use]
    pub fn remote_length(&self) -> u64 {
        let core = self.shared().lock();
        let lengths = core.replicator.peers().map(|peer| peer.remote_length);
        lengths.max().unwrap_or(0)
    }

    /// What was exchanged with all peers since the core was opened. Each has its own in
    /// [`peers`](Self::peers).
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.shared().lock().replicator.stats()
    }
}
