use std::{fmt, io};

use hypercore_merkle::NodeIndex;

use crate::FileName;

pub(crate) type Result<T> = std::result::Result<T, Error>;

/// Why the files of a log could not be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The storage failed.
    #[error("could not {operation} the file `{file}` at byte {offset}: {source}")]
    Io {
        /// The file.
        file: FileName,
        /// What was tried.
        operation: Operation,
        /// Where in the file; 0 when the operation has no position.
        offset: u64,
        /// What the storage said.
        source: io::Error,
    },
    /// The header is none of a Hypercore 9, and there is content behind it.
    #[error(
        "the file `{file}` does not belong to a Hypercore 9: its header starts with {found:02x?}"
    )]
    BadHeader {
        /// The file.
        file: FileName,
        /// What stands in place of the fixed part of the header.
        found: [u8; 8],
    },
    /// The bitfield has pages of a size that no version of Hypercore writes.
    #[error("the file `bitfield` has pages of {found} bytes, but only 3584 and 3328 exist")]
    BadPageSize {
        /// The size its header gives.
        found: u16,
    },
    /// A key file has fewer bytes than a key.
    #[error("the file `{file}` is damaged: it has {len} bytes instead of {expected}")]
    Corrupt {
        /// The file.
        file: FileName,
        /// Its length in bytes.
        len: u64,
        /// The length it should have.
        expected: u64,
    },
    /// A node that has to be there is not stored.
    #[error("node {} is missing from the file `tree`", node.get())]
    MissingNode {
        /// The node.
        node: NodeIndex,
    },
    /// A node that was to be stored is none that a log can have.
    #[error(
        "node {} cannot be stored: it is blank, or above more bytes than a log can have",
        node.get()
    )]
    InvalidNode {
        /// The node.
        node: NodeIndex,
    },
    /// Bytes that have to be there are beyond the end of the data.
    #[error("the file `data` ends before the {len} bytes at byte {offset}")]
    MissingData {
        /// The first byte wanted.
        offset: u64,
        /// How many.
        len: u64,
    },
    /// Another process, or another handle in this one, has the log open.
    #[error("the log is in use: the file `bitfield` is locked by another process or handle")]
    Locked,
    /// There is something else under the name of a file.
    #[error("`{file}` is a {found}, not a regular file; it was left alone")]
    NotAFile {
        /// The name.
        file: FileName,
        /// What it is instead.
        found: &'static str,
    },
    /// The position is beyond what a log can have.
    #[error("position {position} of the file `{file}` is beyond the limits of a log")]
    OutOfRange {
        /// The file.
        file: FileName,
        /// The block, byte or page asked for.
        position: u64,
    },
}

impl Error {
    /// Whether the stored bytes are to blame, so that trying again cannot help.
    #[must_use]
    pub const fn is_corruption(&self) -> bool {
        matches!(
            self,
            Self::BadHeader { .. }
                | Self::BadPageSize { .. }
                | Self::Corrupt { .. }
                | Self::MissingNode { .. }
                | Self::MissingData { .. }
        )
    }

    /// Whether a sync failed, after which nobody knows what is on the disk.
    #[must_use]
    pub const fn is_failed_sync(&self) -> bool {
        matches!(
            self,
            Self::Io {
                operation: Operation::Sync,
                ..
            }
        )
    }

    /// Whether someone else has the log open.
    #[must_use]
    pub const fn is_locked(&self) -> bool {
        matches!(self, Self::Locked)
    }

    pub(crate) fn io(file: FileName, operation: Operation, offset: u64, source: io::Error) -> Self {
        if file == FileName::Bitfield && source.kind() == io::ErrorKind::WouldBlock {
            return Self::Locked;
        }
        match source.get_ref().and_then(|inner| inner.downcast_ref()) {
            Some(&NotAFile(found)) => Self::NotAFile { file, found },
            None => Self::Io {
                file,
                operation,
                offset,
                source,
            },
        }
    }
}

/// What was tried when the storage failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Operation {
    /// Getting a handle.
    Open,
    /// Taking the lock.
    Lock,
    /// Asking for the length.
    Measure,
    /// Reading.
    Read,
    /// Writing.
    Write,
    /// Cutting.
    Truncate,
    /// Punching a hole.
    PunchHole,
    /// Making durable.
    Sync,
    /// Removing.
    Remove,
    /// Copying what is about to be cut off.
    Quarantine,
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Open => "open",
            Self::Lock => "lock",
            Self::Measure => "measure",
            Self::Read => "read",
            Self::Write => "write",
            Self::Truncate => "cut",
            Self::PunchHole => "punch a hole into",
            Self::Sync => "sync",
            Self::Remove => "remove",
            Self::Quarantine => "copy the end of",
        })
    }
}

/// Travels inside an [`io::Error`] from the directory to [`Error::NotAFile`].
#[derive(Debug, thiserror::Error)]
#[error("it is a {0}, not a regular file")]
pub(crate) struct NotAFile(pub(crate) &'static str);
