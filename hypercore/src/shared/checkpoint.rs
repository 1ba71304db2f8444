//! What becomes durable when: the bits of appends, and downloads.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::{Shared, lock, sync_all};
use crate::{
    Durability,
    error::{Error, Result},
    log::{Appends, CHECKPOINT_BLOCKS, Unsynced},
    runtime,
};

/// What is not durable of the bitfield that was written.
#[derive(Debug)]
pub(super) struct Pages {
    pub(super) unsynced: Unsynced,
    synced: Instant,
    /// How often in a row they could not be written.
    failures: u32,
}

/// How the newest downloads become durable.
#[derive(Debug)]
pub(super) struct Checkpoint {
    running: bool,
    last: Instant,
    /// A timer is set for downloads that no connection has one for.
    is_timed: bool,
    /// A timer is set for appends that did not wait.
    interval_runs: bool,
}

/// The bits of appends are synced after [`CHECKPOINT_BLOCKS`], after this many bytes,
const PAGES_BYTES: u64 = 64 * 1024 * 1024;

/// or with the first append after this time.
const PAGES_TIME: Duration = Duration::from_secs(1);

/// After so many failures to write the bitfield in a row the log takes no more writes.
const MAX_PAGE_FAILURES: u32 = 3;

/// Downloads become durable, and visible after a restart, after at most [`CHECKPOINT_BLOCKS`], this
/// many bytes,
const CHECKPOINT_BYTES: u64 = 16 * 1024 * 1024;

/// or this time, whichever comes first.
const CHECKPOINT_TIME: Duration = Duration::from_millis(500);

impl Pages {
    pub(super) fn new() -> Self {
        Self {
            unsynced: Unsynced::default(),
            synced: runtime::now(),
            failures: 0,
        }
    }
}

impl Checkpoint {
    pub(super) fn new() -> Self {
        Self {
            running: false,
            last: runtime::now(),
            is_timed: false,
            interval_runs: false,
        }
    }
}

impl Shared {
    /// Writes the pages of the bitfield that changed, after what they claim is durable.
    pub(super) fn write_pages(&self) -> Result<()> {
        let mut state = lock(&self.pages);
        let (files, pages, unsynced, head) = {
            let mut core = self.lock();
            let files = Arc::clone(core.log.writable_files()?);
            let (pages, unsynced) = core.log.take_pages();
            (files, pages, unsynced, core.log.head())
        };
        if unsynced {
            self.sync(|| files.sync_content())?;
            self.lock().announce(&head);
        }
        let mut unwritten = &pages[..];
        let mut write = || {
            if !pages.is_empty() {
                // A writer has done that before.
                files.reserve_pages(head.length)?;
            }
            while let [(page, bytes), rest @ ..] = unwritten {
                files.write_page(*page, bytes)?;
                unwritten = rest;
            }
            Ok(())
        };
        if let Err(error) = self.sync(&mut write) {
            let mut core = self.lock();
            core.log.put_back_pages(unwritten);
            state.failures = state.failures.saturating_add(1);
            if state.failures >= MAX_PAGE_FAILURES {
                core.log.poison();
            }
            return Err(error);
        }
        state.failures = 0;
        Ok(())
    }

    /// Does something that syncs. When a sync fails nobody knows what is on the disk, and trying again
    /// would not tell.
    pub(super) fn sync(
        &self,
        work: impl FnOnce() -> Result<(), hypercore_storage::Error>,
    ) -> Result<()> {
        work().map_err(|error| {
            if error.is_failed_sync() {
                self.lock().log.poison();
            }
            error.into()
        })
    }

    /// Syncs the bits of appends when there are enough of them.
    pub(crate) fn sync_pages_if_due(&self) -> Result<()> {
        let state = lock(&self.pages);
        let Unsynced { blocks, bytes } = state.unsynced;
        let late = runtime::now().saturating_duration_since(state.synced) >= PAGES_TIME;
        drop(state);
        if blocks >= CHECKPOINT_BLOCKS || bytes >= PAGES_BYTES || (blocks > 0 && late) {
            self.sync_pages(None)
        } else {
            Ok(())
        }
    }

    /// Makes the pages that were written durable, and what is noted of the log: that its `appends`
    /// are, if they are.
    pub(super) fn sync_pages(&self, appends: Option<Appends>) -> Result<()> {
        let files = Arc::clone(self.lock().log.writable_files()?);
        let mut state = lock(&self.pages);
        self.sync(|| files.sync_bitfield())?;
        let noted = {
            let mut core = self.lock();
            if let Some(appends) = appends {
                core.log.note_appends(appends);
            }
            core.log.noted()
        };
        if let Err(error) = sync_all(&noted) {
            tracing::warn!(%error, "the guard against forks could not be synced");
        }
        state.unsynced = Unsynced::default();
        state.synced = runtime::now();
        Ok(())
    }

    /// When the newest downloads are to be made durable.
    pub(crate) fn checkpoint_deadline(&self, unsynced: Unsynced) -> Option<Instant> {
        if self.durability == Durability::OnClose {
            return None;
        }
        let checkpoint = lock(&self.checkpoint);
        let deadline = checkpoint.last.checked_add(CHECKPOINT_TIME);
        deadline.filter(|_| unsynced.blocks > 0 && !checkpoint.running)
    }

    /// Starts to make the newest downloads durable if it is time.
    pub(crate) fn checkpoint_if_due(self: &Arc<Self>, unsynced: Unsynced, now: Instant) {
        let enough = unsynced.blocks >= CHECKPOINT_BLOCKS || unsynced.bytes >= CHECKPOINT_BYTES;
        let last = lock(&self.checkpoint).last;
        let late = now.saturating_duration_since(last) >= CHECKPOINT_TIME;
        if enough || late {
            self.checkpoint(unsynced);
        }
    }

    /// Starts to make the newest downloads durable, unless that is under way.
    pub(crate) fn checkpoint(self: &Arc<Self>, unsynced: Unsynced) {
        if self.durability == Durability::OnClose || unsynced.blocks == 0 {
            return;
        }
        if std::mem::replace(&mut lock(&self.checkpoint).running, true) {
            return;
        }
        let shared = Arc::clone(self);
        runtime::spawn_blocking(move || {
            let written = shared.write_checkpoint();
            let mut checkpoint = lock(&shared.checkpoint);
            checkpoint.running = false;
            checkpoint.last = runtime::now();
            drop(checkpoint);
            let core = shared.lock();
            // Connections set their timers by it.
            core.replicator.wake_all();
            let is_alone = !core.replicator.has_peers();
            drop(core);
            if written && is_alone {
                // What came at the end found it running.
                shared.checkpoint_later();
            }
        });
    }

    /// Makes the newest downloads durable in a while, also if nothing happens until then.
    pub(crate) fn checkpoint_later(self: &Arc<Self>) {
        if self.durability == Durability::OnClose
            || self.lock().log.unsynced().blocks == 0
            || std::mem::replace(&mut lock(&self.checkpoint).is_timed, true)
        {
            return;
        }
        let shared = Arc::downgrade(self);
        runtime::spawn_blocking_after(CHECKPOINT_TIME, move || {
            // Whoever closes a core has made everything durable.
            let Some(shared) = shared.upgrade() else {
                return;
            };
            lock(&shared.checkpoint).is_timed = false;
            let unsynced = shared.lock().log.unsynced();
            shared.checkpoint(unsynced);
        });
    }

    /// Returns whether that went well.
    fn write_checkpoint(&self) -> bool {
        loop {
            let written = self.write_pages();
            let core = self.lock();
            match written {
                Ok(()) => {}
                // Whoever closes a core has made everything durable.
                Err(Error::Closed) => return false,
                Err(error) => {
                    // It is tried again with what comes next.
                    tracing::warn!(%error, "downloads could not be made durable");
                    return false;
                }
            }
            // What came meanwhile is left to the connections, as long as there are any.
            if core.replicator.has_peers() || core.log.unsynced().blocks == 0 {
                return true;
            }
        }
    }

    /// Makes appends that did not wait for it durable when their time is over.
    pub(crate) fn sync_later(self: &Arc<Self>) {
        let Durability::Interval(interval) = self.durability else {
            return;
        };
        if !self.lock().log.is_withholding()
            || std::mem::replace(&mut lock(&self.checkpoint).interval_runs, true)
        {
            return;
        }
        let shared = Arc::downgrade(self);
        runtime::spawn_blocking_after(interval, move || {
            // Whoever closes a core has made everything durable.
            let Some(shared) = shared.upgrade() else {
                return;
            };
            lock(&shared.checkpoint).interval_runs = false;
            match shared.write_pages() {
                Ok(()) | Err(Error::Closed) => {}
                Err(error) => tracing::warn!(%error, "appends could not be made durable"),
            }
        });
    }
}
