use std::{cell::Cell, ops::Range, sync::Arc};

use hypercore_merkle::NodeIndex;

use crate::{
    FeedFiles, FileName, Operation, RandomAccess,
    error::Result,
    feed_files::{CHUNK, RECORD_LEN, SIGNATURE_LEN, node_offset, signature_offset},
    file::File,
};

/// Copies of what is about to be cut off or written over: see
/// [`new_quarantine`](crate::Storage::new_quarantine).
///
/// Every piece has a line before it: the file, the offset in it, and the number of bytes. Blank
/// pieces are left out.
#[must_use = "the copy is durable when it is finished"]
pub struct Quarantine<'a> {
    files: &'a FeedFiles,
    /// Begun with the first piece.
    copy: Option<Copy>,
    bytes: u64,
}

struct Copy {
    /// `None` where there can be none.
    file: Option<Arc<dyn RandomAccess>>,
    end: u64,
    /// How much of it is durable, and may be the only copy.
    synced: Cell<u64>,
}

impl<'a> Quarantine<'a> {
    pub(crate) const fn new(files: &'a FeedFiles) -> Self {
        Self {
            files,
            copy: None,
            bytes: 0,
        }
    }

    /// Adds the node at `index`.
    ///
    /// # Errors
    ///
    /// As [`add`](Self::add).
    pub fn add_node(&mut self, index: NodeIndex) -> Result<()> {
        let start = node_offset(index);
        self.add(FileName::Tree, start..start.saturating_add(RECORD_LEN))
    }

    /// Adds the signature made when `block` was the last one.
    ///
    /// # Errors
    ///
    /// As [`add`](Self::add).
    pub fn add_signature(&mut self, block: u64) -> Result<()> {
        let start = signature_offset(block);
        let end = start.saturating_add(SIGNATURE_LEN);
        self.add(FileName::Signatures, start..end)
    }

    /// Adds bytes of a file, as far as the file goes.
    ///
    /// # Errors
    ///
    /// When the file cannot be read, or the copy not be written.
    pub fn add(&mut self, file: FileName, bytes: Range<u64>) -> Result<()> {
        let file = self.files.file(file);
        let end = bytes.end.min(file.len()?);
        let mut buffer = vec![0; CHUNK];
        let mut offset = bytes.start;
        while offset < end {
            let wanted = end.saturating_sub(offset).min(CHUNK as u64);
            buffer.truncate(wanted as usize);
            file.read_up_to(offset, &mut buffer)?;
            let next = offset.saturating_add(wanted);
            if buffer.iter().any(|&byte| byte != 0) {
                self.write(file, offset, &buffer)?;
                offset = next;
            } else {
                // A file with a hole of a terabyte is not worth an hour.
                offset = file.next_data(next)?.max(next);
            }
        }
        Ok(())
    }

    fn write(&mut self, file: &File, offset: u64, piece: &[u8]) -> Result<()> {
        let failed = |error| file.error(Operation::Quarantine, offset, error);
        let copy = match &mut self.copy {
            Some(copy) => copy,
            None => {
                let file = self.files.storage().new_quarantine().map_err(failed)?;
                self.copy.insert(Copy {
                    file,
                    end: 0,
                    synced: Cell::new(0),
                })
            }
        };
        if let Some(to) = &copy.file {
            let title = format!("{} {offset} {}\n", file.name, piece.len());
            let end = copy.end.saturating_add(title.len() as u64);
            let written = to
                .write_at(copy.end, title.as_bytes())
                .and_then(|()| to.write_at(end, piece));
            if let Err(error) = written {
                // What was copied in vain would take the room that is lacking, again each time that it is
                // tried. If this fails, too, it is found as it is.
                copy.end = copy.synced.get();
                let _ = to.truncate(copy.end);
                return Err(failed(error));
            }
            copy.end = end.saturating_add(piece.len() as u64);
        }
        self.bytes = self.bytes.saturating_add(piece.len() as u64);
        Ok(())
    }

    /// Makes durable what was added so far, which may be written over from now on. More can be added.
    ///
    /// # Errors
    ///
    /// When the copy cannot be synced.
    pub fn sync(&self) -> Result<()> {
        if let Some(Copy {
            file: Some(file),
            end,
            synced,
        }) = &self.copy
        {
            let failed = |error| self.files.data().error(Operation::Quarantine, 0, error);
            file.sync().map_err(failed)?;
            self.files.sync_directory()?;
            synced.set(*end);
        }
        Ok(())
    }

    /// Makes the copy durable. Returns how many bytes were added, blank pieces aside.
    ///
    /// # Errors
    ///
    /// As [`sync`](Self::sync).
    pub fn finish(self) -> Result<u64> {
        self.sync()?;
        Ok(self.bytes)
    }
}
