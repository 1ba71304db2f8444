//! What can go wrong, with a sentence for people and a variant for programs.

use std::io;

use hypercore_merkle::PublicKey;

use crate::replicate::CloseReason;

/// An error of a core or of a replication.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Reading or writing the files failed, or what they hold is damaged.
    #[error(transparent)]
    Storage(#[from] hypercore_storage::Error),
    /// A proof, a signature or a size is not what it should be.
    #[error(transparent)]
    Merkle(#[from] hypercore_merkle::Error),
    /// The remote broke the wire protocol, or went silent.
    #[error(transparent)]
    Wire(#[from] hypercore_wire::Error),
    /// A peer sent more distinct ranges than its share of memory holds, or runs of blocks that are malformed.
    #[error(transparent)]
    Bitfield(#[from] hypercore_bitfield::Error),
    /// The transport failed.
    #[error("the connection failed: {0}")]
    Transport(#[source] std::io::Error),
    /// The core has no secret key here.
    #[error("this core is read-only: its secret key is not stored here")]
    NotWritable,
    /// A static core has no key until it is [finished](crate::Hypercore::finalize), and so no peers.
    #[error("this core is static and not finished: it has no key yet")]
    NotFinalized,
    /// Nothing is appended here, because that could sign a second history with the same key.
    /// [`Hypercore::resume`](crate::Hypercore::resume) and
    /// [`Hypercore::accept_fork_risk`](crate::Hypercore::accept_fork_risk) are the ways out.
    #[error(
        "nothing is appended to this core, because {0}: fetch what is missing from its peers first \
         (`resume`), or accept that two histories may come of it"
    )]
    AppendLocked(crate::AppendLock),
    /// A file that keeps a log to one history, or proves that it has two, cannot be read or written.
    #[error("the file `{file}` cannot be read or written: {source}")]
    Guard {
        /// `fork-guard` or `fork-proof-<length>` beside the log, or the discovery key, which is the
        /// name of the file in the [state directory](crate::OpenOptions::state_directory).
        file: String,
        /// What the storage said.
        source: std::io::Error,
    },
    /// There is nothing to open.
    #[error("no core is stored here")]
    NoCore,
    /// [`create_new`](crate::OpenOptions::create_new) found a core.
    #[error("a core with the key {0} is stored here already")]
    CoreExists(PublicKey),
    /// The stored core is not the one asked for.
    #[error("another core is stored here: its key is {stored}, not {requested}")]
    OtherCore {
        /// The key found in the storage.
        stored: PublicKey,
        /// The key that was asked for.
        requested: PublicKey,
    },
    /// The key and the key pair, or signer, that were given do not belong together.
    #[error("the key {key} is not that of the key pair or signer, which is {of_author}")]
    KeyMismatch {
        /// The key that was given.
        key: PublicKey,
        /// The public half of the key pair, or the key of the signer.
        of_author: PublicKey,
    },
    /// The files contradict each other, or a checksum does not hold.
    #[error("the core is damaged: {0}")]
    Corrupt(Corruption),
    /// The block is not stored and nothing may be waited for.
    #[error("block {index} is not stored here")]
    BlockNotStored {
        /// The block asked for.
        index: u64,
    },
    /// A node of the tree is not known here.
    #[error("node {node} of the tree is not known here")]
    NodeNotStored {
        /// Its flat-tree index.
        node: u64,
    },
    /// A value could not be made into a block.
    #[error("the value could not be encoded: {0}")]
    Encode(#[source] crate::CodecError),
    /// A block could not be made into a value.
    #[error("the block could not be decoded: {0}")]
    Decode(#[source] crate::CodecError),
    /// The hook `OpenOptions::on_write` does not want a block.
    #[error("the block was refused: {0}")]
    Refused(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The [`Signer`](crate::Signer) of the log did not sign.
    #[error("the signer did not sign: {0}")]
    Signer(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The request was taken back by `cancel`, or whoever watched a check stopped it.
    #[error("the request was cancelled")]
    Cancelled,
    /// An extension of that name is registered already.
    #[error("the extension {name:?} is registered already")]
    ExtensionExists {
        /// Its name.
        name: String,
    },
    /// A connection carries one core of a key at a time: another that is open has to be
    /// [taken off](crate::ReplicationHandle::remove) first.
    #[error("another core with the key {0} is exchanged on this connection")]
    AlreadyReplicated(PublicKey),
    /// The remote was refused by `ReplicateOptions::on_authenticate`.
    #[error("the remote is not one of those that are let in")]
    NotAuthenticated,
    /// The options ask who the remote is, and leave out the handshake that tells it.
    #[error(
        "without a handshake nobody can tell who the remote is: `noise` or `encrypted` has to be set"
    )]
    NoHandshake,
    /// The core has no blocks.
    #[error("the core is empty")]
    Empty,
    /// A position beyond the end of the log, or in a part of it that is not known here.
    #[error("byte {offset} is not known here, of a log with {byte_length} bytes")]
    OutOfBounds {
        /// The byte asked for.
        offset: u64,
        /// The bytes of the whole log, as far as it is known.
        byte_length: u64,
    },
    /// A range of blocks that does not lie in the log.
    #[error("blocks {start}..{end} do not lie within the log, which has {length} blocks")]
    BadRange {
        /// First block.
        start: u64,
        /// One past the last block.
        end: u64,
        /// The length of the log.
        length: u64,
    },
    /// No connected peer can answer, and waiting for others was not asked for.
    #[error("no connected peer has what was asked for")]
    NotAvailable,
    /// The time given to a request has passed.
    #[error("timed out")]
    TimedOut,
    /// A peer left a request unanswered for too long.
    #[error("the peer did not answer a request within {seconds} s")]
    RequestTimeout {
        /// How long it had.
        seconds: u64,
    },
    /// A peer sent blocks nobody asked it for, again and again.
    #[error("the peer keeps sending blocks nobody asked for")]
    UnrequestedData,
    /// An earlier write to the files failed in a way that leaves their state unknown.
    #[error("an earlier write failed; close the core and open it again")]
    Poisoned,
    /// An append failed, together with those it was grouped with: see [`cause`](Self::cause).
    #[error("the append failed: {0}")]
    Append(#[source] std::sync::Arc<Self>),
    /// The log grew by other means while an append was under way, or what was
    /// [put](crate::Hypercore::put) is of another history.
    #[error("the log was changed from elsewhere during an append, or has another history")]
    Conflict,
    /// The core has been closed.
    #[error("the core is closed")]
    Closed,
}

/// Where a core is damaged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Corruption {
    /// The block's bytes in `data` do not have the hash stored in `tree`.
    #[error("block {index} in the file data does not match its hash in the file tree")]
    Block {
        /// The block.
        index: u64,
    },
    /// A node of the tree that the bitfield claims is not there.
    #[error("node {node} is missing in the file tree")]
    Node {
        /// Its flat-tree index.
        node: u64,
    },
    /// A node of the tree is not that of the nodes below it. It is found when a block that a peer sent
    /// does not fit them, and when a byte is looked for whose place they do not agree about.
    #[error("node {node} in the file tree does not fit the nodes below it")]
    WrongNode {
        /// Its flat-tree index. The rotten one may also be one of those below it.
        node: u64,
    },
    /// The key is missing although other files have content. It also is in a static core that was
    /// never [finished](crate::Hypercore::finalize).
    #[error("the file key is missing although other files have content")]
    KeyMissing,
    /// The public key derived from the secret key is another one.
    #[error("the file secret_key does not belong to the file key")]
    SecretKey,
    /// The newest signature does not match the tree.
    #[error("the signature over {length} blocks does not match the tree")]
    Signature {
        /// The length it was made for.
        length: u64,
    },
}

impl Error {
    /// What made an [append](Self::Append) fail that was grouped with others; of all other errors the
    /// error itself. Appends that wait for each other are grouped, so match on this.
    #[must_use]
    pub fn cause(&self) -> &Self {
        match self {
            Self::Append(error) => error.cause(),
            error => error,
        }
    }

    /// Whether the remote is to blame: its connection is closed, others go on.
    #[must_use]
    pub fn is_peer_fault(&self) -> bool {
        match self.cause() {
            Self::Bitfield(_)
            | Self::UnrequestedData
            | Self::NotAuthenticated
            | Self::RequestTimeout { .. } => true,
            Self::Merkle(error) => error.is_peer_fault(),
            Self::Wire(error) => error.is_peer_fault(),
            _ => false,
        }
    }

    /// The code under which a connection that failed with this error is closed.
    #[must_use]
    pub fn close_reason(&self) -> CloseReason {
        self.into()
    }

    /// Whether stored files are damaged.
    #[must_use]
    pub fn is_corruption(&self) -> bool {
        match self.cause() {
            Self::Corrupt(_) => true,
            Self::Storage(error) => error.is_corruption(),
            // A faulty signature says something of this machine, and nothing of the files.
            Self::Merkle(hypercore_merkle::Error::FaultySignature { .. }) => false,
            Self::Merkle(error) => error.is_corruption(),
            _ => false,
        }
    }

    /// Whether a sync failed, after which nobody knows what is on the disk.
    pub(crate) fn is_failed_sync(&self) -> bool {
        matches!(self.cause(), Self::Storage(error) if error.is_failed_sync())
    }

    /// Whether there is no room for a write, or it is not allowed.
    pub(crate) fn says_unwritable(&self) -> bool {
        let source = match self {
            Self::Storage(hypercore_storage::Error::Io { source, .. }) => source,
            Self::Guard { source, .. } => source,
            _ => return false,
        };
        matches!(
            source.kind(),
            io::ErrorKind::StorageFull
                | io::ErrorKind::QuotaExceeded
                | io::ErrorKind::ReadOnlyFilesystem
                | io::ErrorKind::PermissionDenied
        )
    }

    /// Whether another handle or process has the core open.
    #[must_use]
    pub fn is_locked(&self) -> bool {
        matches!(self.cause(), Self::Storage(error) if error.is_locked())
    }
}

/// Of a kind that says what it can; the error itself is in [`get_ref`](io::Error::get_ref), but for that of
/// a transport, which is given back.
impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        let kind = match &error {
            Error::TimedOut => io::ErrorKind::TimedOut,
            Error::Closed => io::ErrorKind::NotConnected,
            Error::Wire(hypercore_wire::Error::UnexpectedEnd) => io::ErrorKind::UnexpectedEof,
            _ => io::ErrorKind::Other,
        };
        match error {
            Error::Transport(error) => error,
            other => Self::new(kind, other),
        }
    }
}

pub(crate) type Result<T, E = Error> = std::result::Result<T, E>;

impl From<Corruption> for Error {
    fn from(corruption: Corruption) -> Self {
        Self::Corrupt(corruption)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_of_a_stream_says_what_kind_it_is_and_which() {
        let end = || Error::Wire(hypercore_wire::Error::UnexpectedEnd);
        for (error, kind) in [
            (Error::TimedOut, io::ErrorKind::TimedOut),
            (Error::Closed, io::ErrorKind::NotConnected),
            (end(), io::ErrorKind::UnexpectedEof),
            (Error::Empty, io::ErrorKind::Other),
        ] {
            let said = error.to_string();
            let error = io::Error::from(error);
            assert_eq!(error.kind(), kind, "{said}");
            let inner = error
                .get_ref()
                .and_then(|error| error.downcast_ref::<Error>());
            assert_eq!(inner.map(ToString::to_string), Some(said));
        }
        let reset = io::Error::from(Error::Transport(io::ErrorKind::ConnectionReset.into()));
        assert_eq!(reset.kind(), io::ErrorKind::ConnectionReset);
    }
}
