//! Checking what is stored, and putting it right.

use std::{
    ops::ControlFlow,
    sync::{Arc, Weak},
};

use hypercore_storage::Storage;

use crate::{
    Hypercore,
    error::Result,
    log::{self, Repair, Verification},
    request::Audit,
    runtime,
    shared::Shared,
};

/// Tells work on another thread whether a future still waits for it.
struct Wanted(Weak<()>);

impl Wanted {
    fn is_wanted(&self) -> bool {
        self.0.strong_count() > 0
    }

    fn watch(&self) -> ControlFlow<()> {
        if self.is_wanted() {
            ControlFlow::Continue(())
        } else {
            ControlFlow::Break(())
        }
    }
}

/// Waits for what `start` begins, which hears of it when this future is dropped.
async fn while_wanted<T, F: Future<Output = T>>(start: impl FnOnce(Wanted) -> F) -> T {
    let waiting = Arc::new(());
    let result = start(Wanted(Arc::downgrade(&waiting))).await;
    drop(waiting);
    result
}

impl Hypercore {
    /// Checks every stored block against its leaf hash. Changes nothing. A block that the disk cannot read
    /// is no error, but told. If the future is dropped, it ends with the block that is being read.
    ///
    /// # Errors
    ///
    /// When the core is closed, or when the storage fails otherwise.
    // JS: `audit` clears the bits of the blocks that fail; here that is left to `clear`.
    pub async fn audit(&self) -> Result<Audit> {
        let shared = Arc::clone(self.shared());
        while_wanted(|wanted| runtime::unblock(move || shared.audit(|| wanted.is_wanted()))).await
    }

    /// Checks everything that is stored: blocks against their hashes, hashes against each other,
    /// every signature, and what the bitfield claims. Changes nothing, and takes no more memory for
    /// a long log than for a short one.
    ///
    /// Appends, [`flush`](Self::flush), [`clear`](Self::clear) and [`close`](Self::close) wait until it
    /// is done; reads and downloads go on. If the future is dropped, it ends soon, after at most 1024 blocks.
    ///
    /// # Errors
    ///
    /// When the core is closed or the storage fails. Damage is no error, but told.
    pub async fn verify(&self) -> Result<Verification> {
        // Nothing is appended or cut off meanwhile.
        let verify = |wanted: Wanted| {
            self.shared().alone(move |shared: &Shared| {
                let snapshot = shared.lock().log.snapshot()?;
                let is_stored = |block| shared.lock().log.has(block);
                snapshot.verify(&is_stored, &mut |_, _| wanted.watch())
            })
        };
        while_wanted(verify).await
    }

    /// Checks everything that is stored in a storage, such as a
    /// [`Directory`](hypercore_storage::Directory), as [`verify`](Self::verify) does, and the keys
    /// and the bitfield in its file, too. Also where the damage is so great that the core cannot be
    /// opened. Changes nothing.
    ///
    /// # Errors
    ///
    /// [`Error::NoCore`](crate::Error::NoCore), when another process has the core open, or when the storage fails.
    /// Damage is no error, but told.
    pub async fn verify_storage(storage: impl Storage + 'static) -> Result<Verification> {
        Self::verify_storage_with(storage, |_, _| ControlFlow::Continue(())).await
    }

    /// [`verify_storage`](Self::verify_storage), and tells `watch` from time to time how many blocks
    /// it has looked at, and how many there are. It ends when `watch` says so, or soon after the future is
    /// dropped.
    ///
    /// # Errors
    ///
    /// As `verify_storage`; [`Error::Cancelled`](crate::Error::Cancelled) when `watch` has ended it.
    pub async fn verify_storage_with(
        storage: impl Storage + 'static,
        mut watch: impl FnMut(u64, u64) -> ControlFlow<()> + Send + 'static,
    ) -> Result<Verification> {
        let work = |wanted: Wanted| {
            runtime::unblock(move || {
                log::verify_storage(Arc::new(storage), &mut |checked, all| {
                    watch(checked, all)?;
                    wanted.watch()
                })
            })
        };
        while_wanted(work).await
    }

    /// Puts right what can be put right in a storage that [`verify_storage`](Self::verify_storage)
    /// finds damaged: computes parts of the tree and the bitfield anew, takes each key from the
    /// other, makes lost signatures again where the secret key is, and drops blocks that cannot be
    /// read. These can be downloaded again. What is right is never touched, and what
    /// is written over or cut off is copied to a
    /// [quarantine](hypercore_storage::Storage::new_quarantine) before.
    ///
    /// # Errors
    ///
    /// [`Error::NoCore`](crate::Error::NoCore); when another process has the core open; when the storage fails; and when
    /// so much is damaged that nothing vouches for the rest, or that a writer would have to forget
    /// blocks that were signed. Nothing but keys and headers is changed then.
    pub async fn repair_storage(storage: impl Storage + 'static) -> Result<Repair> {
        Self::repair_storage_with(storage, |_, _| ControlFlow::Continue(())).await
    }

    /// [`repair_storage`](Self::repair_storage), and tells `watch` from time to time how many blocks
    /// it has looked at, and how many there are. It looks at all of them twice, before it writes and
    /// afterwards, and ends when `watch` says so, or soon after the future is dropped. While it writes it
    /// cannot be ended.
    ///
    /// # Errors
    ///
    /// As `repair_storage`; [`Error::Cancelled`](crate::Error::Cancelled) when `watch` has ended it. What it had
    /// put right then stays so.
    pub async fn repair_storage_with(
        storage: impl Storage + 'static,
        mut watch: impl FnMut(u64, u64) -> ControlFlow<()> + Send + 'static,
    ) -> Result<Repair> {
        let work = |wanted: Wanted| {
            runtime::unblock(move || {
                log::repair_storage(Arc::new(storage), &mut |checked, all| {
                    watch(checked, all)?;
                    wanted.watch()
                })
            })
        };
        while_wanted(work).await
    }
}
