//! Keeping a log to one history: what is noted of it, what stops appends, and what lets them go on.

use std::io;

use hypercore_merkle::{PublicKey, TreeHead};
use hypercore_storage::RandomAccess;

use super::{
    AppendLock, Log,
    guard::{Appends, Guard, GuardFile},
    open::Origin,
};
use crate::{
    error::{Error, Result},
    fork::ForkProof,
};

impl Log {
    /// Notes that the log was signed and stored up to `head`, unless more was noted.
    pub(crate) fn note(&mut self, head: &TreeHead) {
        // Without the note a copy is noticed later, or not at all. The log itself is all right.
        if let Some(guard) = &mut self.guard
            && self.lock.is_none()
            && guard.signed() <= head.length
            && let Err(error) = guard.note(head)
        {
            tracing::warn!(%error, "the guard against forks could not be written");
        }
    }

    /// As [`note`](Self::note), for a log of which nothing can be lost.
    pub(crate) fn note_durable(&mut self, head: &TreeHead) {
        if let Some(guard) = &mut self.guard {
            guard.set_appends(Appends::Durable);
        }
        self.note(head);
    }

    /// Notes, in a log that was appended to, what a loss of power may take of it now.
    pub(crate) fn note_appends(&mut self, appends: Appends) {
        // Without the note, more than this is believed to be lost.
        if self.marked
            && let Some(guard) = &mut self.guard
            && guard.appends() != appends
            && let Err(error) = guard.note_appends(appends)
        {
            tracing::warn!(%error, "the guard against forks could not be written");
        }
    }

    /// Whether appends can be made that nobody waits for: that some may be lost is known.
    pub(crate) fn expects_loss(&self) -> bool {
        self.guard.as_ref().is_none_or(Guard::expects_loss)
    }

    /// Notes that appends may be lost. Returns the file to be synced for that.
    pub(crate) fn expect_loss(&mut self) -> Result<Option<GuardFile>> {
        match &mut self.guard {
            Some(guard) if !guard.expects_loss() => {
                guard.note_appends(Appends::Unsynced)?;
                Ok(guard.files().into_iter().next())
            }
            _ => Ok(None),
        }
    }

    /// What [`expect_loss`](Self::expect_loss) noted is durable.
    pub(crate) fn loss_is_noted(&mut self) {
        if let Some(guard) = &mut self.guard {
            guard.loss_is_noted();
        }
    }

    /// Notes that the log may end at `head`, also if that is before what was noted. Fails if more was
    /// signed: what was shown of that would be forgotten.
    pub(crate) fn note_end(&mut self, head: &TreeHead) -> Result<()> {
        self.check_signed()?;
        self.note_end_anyway(head)
    }

    /// As [`note_end`](Self::note_end), whatever was signed.
    pub(crate) fn note_end_anyway(&mut self, head: &TreeHead) -> Result<()> {
        if let Some(guard) = &mut self.guard {
            guard.note(head)?;
        }
        self.resumed_from = None;
        Ok(())
    }

    /// The files to be synced for what was noted.
    pub(crate) fn noted(&self) -> Vec<GuardFile> {
        self.guard.as_ref().map_or_else(Vec::new, Guard::files)
    }

    /// Compares the log with what was noted, and notes where a new one begins.
    pub(super) fn judge(&mut self, origin: Origin) {
        let begins = match origin {
            // What was noted was of another log.
            Origin::New => true,
            Origin::StoredNow => {
                !self.is_forked() && !self.was_resumed() && self.missing_here().is_none()
            }
            Origin::Stored | Origin::Elsewhere => false,
        };
        if begins && let Err(error) = self.note_beginning(origin) {
            tracing::warn!(%error, "the guard against forks could not be written");
        }
        let lock = self
            .guard
            .as_ref()
            .and_then(|guard| guard.judge(&self.head, |length| self.hash_at(length)))
            .or_else(|| (origin == Origin::Elsewhere).then_some(AppendLock::Copied));
        self.resumed_from = self.guard.as_ref().and_then(Guard::resumed_from);
        if let Some(lock) = lock {
            // Whoever appends gets the error, and whoever asks finds the lock.
            tracing::debug!("nothing can be appended: {lock}");
        }
        self.lock = lock;
    }

    /// Notes where a log begins, durably if that replaces what was noted before: after a loss of power
    /// the log would be locked for that.
    fn note_beginning(&mut self, origin: Origin) -> Result<()> {
        let head = self.head;
        let Some(guard) = &mut self.guard else {
            return Ok(());
        };
        if origin == Origin::New {
            guard.set_appends(Appends::Closed);
        }
        let replaces = guard.has_noted();
        guard.note(&head)?;
        if replaces {
            for file in guard.files() {
                file.sync()?;
            }
        }
        Ok(())
    }

    fn was_resumed(&self) -> bool {
        let guard = self.guard.as_ref();
        guard.and_then(Guard::resumed_from).is_some()
    }

    fn is_forked(&self) -> bool {
        self.guard.as_ref().and_then(Guard::forked).is_some()
    }

    /// Fails if nothing may be appended, though the secret key is here.
    pub(crate) fn check_lock(&self) -> Result<()> {
        self.lock
            .map_or(Ok(()), |lock| Err(Error::AppendLocked(lock)))
    }

    /// Why nothing may be appended, though the secret key is here.
    pub(crate) fn append_lock(&self) -> Option<AppendLock> {
        self.lock
    }

    /// The log of this key is at least as long as `theirs`. Returns the lock if that is new. Our own
    /// append that is under way cannot be what was shown: nobody hears of it before it is over.
    pub(crate) fn note_longer(&mut self, theirs: &TreeHead) -> Option<AppendLock> {
        let ours = self.head.length;
        let known = match self.lock {
            None | Some(AppendLock::Copied) => 0,
            Some(
                AppendLock::Behind { theirs: signed, .. } | AppendLock::Shorter { signed, .. },
            ) => signed,
            // Nothing is worse.
            Some(AppendLock::Forked { .. } | AppendLock::Other { .. }) => return None,
        };
        let noted = self.guard.as_ref().map_or(0, Guard::signed);
        if !self.is_writer() || theirs.length <= ours.max(known).max(noted) {
            return None;
        }
        let lock = AppendLock::Behind {
            ours,
            theirs: theirs.length,
        };
        self.lock_appends(lock, theirs);
        Some(lock)
    }

    /// Keeps the proof of a fork, also beside the files. Returns false if there is one already.
    pub(crate) fn note_fork(&mut self, fork: Box<ForkProof>) -> bool {
        if self.fork.is_some() {
            return false;
        }
        let end = &fork.longer.roots;
        let length = end.length();
        tracing::error!(
            target: crate::TOLD,
            "two histories of this log were signed, one of {length} blocks"
        );
        if let Err(error) = self.store_proof(&fork) {
            tracing::warn!(%error, "the proof of a fork could not be stored");
        }
        if self.is_writer() {
            let head = end.head();
            self.lock_appends(AppendLock::Forked { length }, &head);
        }
        self.fork = Some(fork);
        true
    }

    fn store_proof(&self, fork: &ForkProof) -> Result<()> {
        let name = format!("fork-proof-{}", fork.longer.roots.length());
        let storage = self.files()?.storage();
        let stored = storage.beside(&name).and_then(|file| {
            let Some(file) = file else {
                return Ok(());
            };
            // One proof is as good as another, and writing over it could leave none.
            if !has_proof(&*file, &fork.key)? {
                let text = fork.to_string();
                file.write_at(0, text.as_bytes())?;
                file.truncate(text.len() as u64)?;
            }
            file.sync()?;
            storage.sync_directory()
        });
        stored.map_err(|source| Error::Guard { file: name, source })
    }

    fn lock_appends(&mut self, lock: AppendLock, theirs: &TreeHead) {
        self.lock = Some(lock);
        if let Some(guard) = &mut self.guard
            && let Err(error) = guard.note_lock(lock, theirs)
        {
            tracing::warn!(%error, "the guard against forks could not be written");
        }
    }

    pub(crate) fn fork_proof(&self) -> Option<&ForkProof> {
        self.fork.as_deref()
    }

    /// From now on the writer takes in what peers have of its log. Returns from where on blocks may be
    /// missing: a call that was dropped may have left holes behind it.
    pub(crate) fn start_resuming(&mut self) -> u64 {
        self.resuming = self.resuming.saturating_add(1);
        let length = self.head.length;
        self.resumed_from.map_or(length, |from| from.min(length))
    }

    /// Notes durably where the holes begin that the log has when `theirs` is taken in, and until a resume
    /// has ended.
    pub(super) fn note_resume(&mut self, theirs: &TreeHead) -> Result<()> {
        if self.resumed_from.is_some() {
            return Ok(());
        }
        let ours = self.head.length;
        // Also if that cannot be noted: what was signed does not change with that.
        self.lock.get_or_insert(AppendLock::Behind {
            ours,
            theirs: theirs.length,
        });
        if let Some(guard) = &mut self.guard {
            guard.note_resume(ours, theirs)?;
        }
        self.resumed_from = Some(ours);
        Ok(())
    }

    /// Notes that the log ends at `head`, if that is still so and no block from `start` on is missing.
    /// Fails if more was signed.
    pub(crate) fn note_whole(&mut self, head: &TreeHead, start: u64) -> Result<bool> {
        let start = self.resumed_from.map_or(start, |from| from.min(start));
        let blocks = start.min(head.length)..head.length;
        if self.head != *head || !self.missing(blocks).is_empty() {
            return Ok(false);
        }
        self.note_end(head)?;
        Ok(true)
    }

    /// Takes back one call of [`start_resuming`](Self::start_resuming).
    pub(crate) fn end_resuming(&mut self) {
        self.resuming = self.resuming.saturating_sub(1);
    }

    /// Lets appends go on from here, which was [noted](Self::note_end), unless more was taken in since.
    /// Returns whether they do.
    pub(crate) fn unlock(&mut self) -> bool {
        let is_whole = self.resumed_from.is_none();
        if is_whole {
            self.lock = None;
        }
        is_whole
    }

    /// Whether all is here that was ever noted to be signed.
    pub(crate) fn check_signed(&self) -> Result<()> {
        let lock = match self.lock {
            None => return Ok(()),
            Some(lock @ (AppendLock::Forked { .. } | AppendLock::Other { .. })) => Some(lock),
            Some(
                AppendLock::Behind { theirs: signed, .. } | AppendLock::Shorter { signed, .. },
            ) => {
                let length = self.head.length;
                (length < signed).then_some(AppendLock::Shorter { length, signed })
            }
            Some(AppendLock::Copied) => None,
        };
        lock.or_else(|| self.missing_here())
            .map_or(Ok(()), |lock| Err(Error::AppendLocked(lock)))
    }

    /// What was noted to be signed and is not here.
    fn missing_here(&self) -> Option<AppendLock> {
        let guard = self.guard.as_ref()?;
        guard.missing(&self.head, |length| self.hash_at(length))
    }
}

/// Whether the file is a proof that two histories were signed with `key`.
fn has_proof(file: &dyn RandomAccess, key: &PublicKey) -> io::Result<bool> {
    let len = file.len()?.min(MAX_PROOF);
    let mut text = vec![0; len as usize];
    file.read_at(0, &mut text)?;
    let proof = String::from_utf8(text).ok();
    let proof = proof.and_then(|text| text.parse::<ForkProof>().ok());
    Ok(proof.is_some_and(|proof| proof.key == *key && proof.verify()))
}

/// A proof is shorter: two ends have 53 roots each at most, and a path is no longer.
const MAX_PROOF: u64 = 1 << 16;
