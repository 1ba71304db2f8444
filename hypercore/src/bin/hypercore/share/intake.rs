//! What of the source is not in its core yet, and what is written to a log later.

use std::{
    fs::{self, File},
    io::{self, Seek, SeekFrom},
    path::Path,
    time::Duration,
};

use async_io::Timer;
use futures_lite::future;
use hypercore::{Bytes, Hypercore};

use super::{BLOCK_SIZE, Source, archive::Archive, note::Note, state, unreadable};
use crate::{
    commands::append_batch,
    errors::{Failure, Result},
    input::{self, Batches},
    link::Kind,
    output::{Output, complain},
};

/// How often a file that may grow is looked at.
const LOOK: Duration = Duration::from_millis(250);

impl Source {
    /// Appends everything there is and is not in the core yet. Returns the file.
    pub(super) async fn take_in(
        &self,
        core: &Hypercore,
        note: &mut Note,
        file: Option<File>,
        output: &mut Output,
    ) -> Result<Option<File>> {
        if self.kind == Kind::Folder {
            if core.length() > 0 {
                return Ok(None);
            }
            output.draw(0, "{spinner} {binary_bytes}  {binary_bytes_per_sec}");
            let archive = Archive::of(self.path.clone());
            append_all(core, &self.dir, &archive.batches, u64::MAX, output).await?;
            while let Ok(remark) = archive.remarks.try_recv() {
                output.remark(remark);
            }
            note.state = archive.state.try_recv().ok();
            return Ok(None);
        }
        let there = self.there(core, note)?;
        let style = "{bar:40} {binary_bytes}/{binary_total_bytes}  {binary_bytes_per_sec}  {eta}";
        let Some(file) = file else {
            if self.kind == Kind::File {
                let (batches, size) = input::file(&self.path, there, BLOCK_SIZE)?;
                output.draw(size.unwrap_or(0), style);
                append_all(core, &self.dir, &batches, u64::MAX, output).await?;
            }
            return Ok(None);
        };
        let failed = |error| unreadable(&self.path, &error);
        let before = file.metadata().map_err(failed)?;
        let (batches, returned) = input::open_file(file, &self.path, there, BLOCK_SIZE);
        output.draw(before.len(), style);
        output.bar().inc(there);
        // A log may be written to faster than it is read: the rest comes while it is served.
        let end = match self.kind {
            Kind::Log => note.start.saturating_add(before.len()),
            _ => u64::MAX,
        };
        append_all(core, &self.dir, &batches, end, output).await?;
        drop(batches);
        let file = returned.recv().await.ok();
        let after = match fs::metadata(&self.path) {
            // One that is being rotated has no successor yet.
            Err(_) if self.kind == Kind::Log => None,
            found => Some(state::of_file(&found.map_err(failed)?)),
        };
        note.state = after.filter(|after| *after == state::of_file(&before));
        if note.state.is_none() && self.kind == Kind::File {
            // The one that has the name now.
            let now = File::open(&self.path).map_err(failed)?;
            if !self.begins_with(&now, core, 0).await? {
                return Err(Failure::failed(format!(
                    "`{}` was changed while it was read; share it when nobody writes to it",
                    self.path.display()
                )));
            }
        }
        Ok(file)
    }

    /// Appends what is written to a log, without end.
    pub(super) async fn follow(
        &self,
        core: &Hypercore,
        mut note: Note,
        file: Option<File>,
        quiet: bool,
    ) -> Result<()> {
        if self.kind != Kind::Log {
            return future::pending().await;
        }
        let Some(mut file) = file else {
            let batches = input::pieces(&self.path);
            while let Ok(batch) = batches.recv().await {
                append_batch(core, &self.dir, batch?).await?;
            }
            return future::pending().await;
        };
        let failure = |error: io::Error| unreadable(&self.path, &error);
        // Another one that is there now under the same name.
        let mut next = None;
        loop {
            let there = self.there(core, &note)?;
            let metadata = file.metadata().map_err(failure)?;
            let is_cut = metadata.len() < there;
            if !is_cut {
                file.seek(SeekFrom::Start(there)).map_err(failure)?;
                let batch = input::read_batch(&mut file, BLOCK_SIZE, 64).map_err(failure)?;
                if !batch.is_empty() {
                    append_batch(core, &self.dir, batch).await?;
                    continue;
                }
            }
            if is_cut {
                // As always when there is nothing to read: it may seem to be cut off each time.
                Timer::after(LOOK).await;
            }
            if is_cut || next.is_some() {
                file = next.take().unwrap_or(file);
                note.start = core.byte_length();
                note.write(&self.dir)?;
                if !quiet {
                    complain(self.begins_anew());
                }
                continue;
            }
            next = self.replacement(&metadata);
            if next.is_none() {
                Timer::after(LOOK).await;
            }
            // Otherwise what was written to the old one until now is read first.
        }
    }

    /// The file that has the name now, if it is not the one that `metadata` describes. While there
    /// is none, or it cannot be read, the old one is all there is.
    fn replacement(&self, metadata: &fs::Metadata) -> Option<File> {
        let now = fs::metadata(&self.path).ok()?;
        if state::inode(&now) == state::inode(metadata) || !now.is_file() {
            return None;
        }
        File::open(&self.path).ok()
    }
}

/// Appends what comes, until the core has `end` bytes.
async fn append_all(
    core: &Hypercore,
    dir: &Path,
    batches: &Batches,
    end: u64,
    output: &Output,
) -> Result<()> {
    while core.byte_length() < end
        && let Ok(batch) = batches.recv().await
    {
        let batch = batch?;
        let size: usize = batch.iter().map(Bytes::len).sum();
        append_batch(core, dir, batch).await?;
        output.bar().inc(size as u64);
    }
    Ok(())
}
