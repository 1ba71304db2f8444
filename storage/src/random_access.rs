//! The seam between a log and the place where its bytes are.

use std::{fmt, io, sync::Arc};

use crate::FileName;

/// A place with six files: a directory, memory, or anything a program brings.
///
/// Only [`open`](Self::open) is required.
///
/// ```
/// # use std::{io, sync::Arc};
/// use hypercore_storage::{FileName, Memory, RandomAccess, Storage};
///
/// /// Blocks on one disk, everything else on another.
/// struct Split { data: Memory, rest: Memory }
///
/// impl Storage for Split {
///     fn open(&self, file: FileName) -> io::Result<Arc<dyn RandomAccess>> {
///         if file == FileName::Data { self.data.open(file) } else { self.rest.open(file) }
///     }
/// }
/// ```
pub trait Storage: Send + Sync {
    /// A handle to `file`, which need not exist. Opening creates nothing.
    fn open(&self, file: FileName) -> io::Result<Arc<dyn RandomAccess>>;

    /// Removes `file`; it is no error if it does not exist. The default empties it.
    fn remove(&self, file: FileName) -> io::Result<()> {
        self.open(file)?.truncate(0)
    }

    /// A new, empty file beside the six, for what a recovery is about to cut off. `None` where
    /// there can be none; then what is cut off is gone. That is the default.
    fn new_quarantine(&self) -> io::Result<Option<Arc<dyn RandomAccess>>> {
        Ok(None)
    }

    /// A handle to a further file beside the six, which Node does not read: the guard against forks
    /// and proofs of them. `None` where there can be none, which is the default.
    fn beside(&self, name: &str) -> io::Result<Option<Arc<dyn RandomAccess>>> {
        let _ = name;
        Ok(None)
    }

    /// Removes a file that [`beside`](Self::beside) gave; it is no error if it does not exist.
    fn remove_beside(&self, name: &str) -> io::Result<()> {
        let _ = name;
        Ok(())
    }

    /// What tells this place from a copy of it, as any bytes that a copy does not have; empty where
    /// nothing does, which is the default.
    fn place(&self) -> io::Result<Vec<u8>> {
        Ok(Vec::new())
    }

    /// Makes durable that files were created or removed. Called after [`RandomAccess::sync`]; the default
    /// does nothing.
    fn sync_directory(&self) -> io::Result<()> {
        Ok(())
    }

    /// Somebody else may have created files and not synced that: the next
    /// [`sync_directory`](Self::sync_directory) does. The default is nothing, which is right where that
    /// call syncs everything.
    fn distrust_directory(&self) {}

    /// Whether several files are synced faster from several threads at once than one after the
    /// other. The default is no.
    fn syncs_in_parallel(&self) -> bool {
        false
    }

    /// Whether all that is written stays in the memory of this process: nothing that is asked of it
    /// waits for a device, so that no thread is needed to wait there, and nobody else sees it, so that
    /// own signatures are checked when they are shown. The default is no.
    fn never_waits(&self) -> bool {
        false
    }
}

/// A file that is read and written at any position, through a shared reference.
///
/// A file that does not exist reads as an empty one, and the first write creates it.
#[allow(
    clippy::len_without_is_empty,
    reason = "an empty file is nothing special"
)]
pub trait RandomAccess: fmt::Debug + Send + Sync {
    /// The length in bytes; 0 when the file does not exist.
    fn len(&self) -> io::Result<u64>;

    /// Fills `buffer` from `offset` on, or fails with [`io::ErrorKind::UnexpectedEof`] when the
    /// file ends before.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()>;

    /// Writes all of `data` at `offset`, creating the file and filling a gap before `offset` with
    /// zeros. Writing nothing creates the file too, and does not change its length.
    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()>;

    /// Cuts the file to `len` bytes. A shorter file stays as it is.
    fn truncate(&self, len: u64) -> io::Result<()>;

    /// Makes the content and the length durable: after `Ok` they survive a loss of power.
    fn sync(&self) -> io::Result<()>;

    /// Makes `len` bytes from `offset` on read as zeros and gives their space back where possible.
    /// The length stays the same. The default writes zeros.
    fn punch_hole(&self, offset: u64, len: u64) -> io::Result<()> {
        write_zeros(self, offset, len)
    }

    /// Where the next byte at or after `offset` is that may be something else than zero; holes are
    /// skipped where the file system tells where they are. The default skips nothing.
    fn next_data(&self, offset: u64) -> io::Result<u64> {
        Ok(offset)
    }

    /// How many bytes the file really occupies. The default is its length.
    fn allocated(&self) -> io::Result<u64> {
        self.len()
    }

    /// Takes the file for this handle alone, until the handle is dropped; fails at once with
    /// [`io::ErrorKind::WouldBlock`] while another handle has it. A file that does not exist is
    /// not created for that: it is taken when the first write creates it, and this write then
    /// fails in the same way. The default does nothing.
    ///
    /// Of the six files only [`FileName::Bitfield`] is ever locked.
    fn lock(&self) -> io::Result<()> {
        Ok(())
    }
}

/// Overwrites the part of the range that exists.
pub(crate) fn write_zeros(
    file: &(impl RandomAccess + ?Sized),
    offset: u64,
    len: u64,
) -> io::Result<()> {
    const ZEROS: [u8; 4096] = [0; 4096];
    let end = offset.saturating_add(len).min(file.len()?);
    for start in (offset..end).step_by(ZEROS.len()) {
        let rest = usize::try_from(end.saturating_sub(start)).unwrap_or(usize::MAX);
        file.write_at(start, ZEROS.get(..rest).unwrap_or(&ZEROS))?;
    }
    Ok(())
}
