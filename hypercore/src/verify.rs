//! Checking what is stored, and putting it right.

use std::sync::Arc;

use hypercore_storage::Storage;

use crate::{
    Hypercore,
    error::Result,
    log::{self, Repair, Verification},
    request::Audit,
    runtime,
    shared::Shared,
};

impl Hypercore {
    /// Checks every stored block against its leaf hash. Changes nothing. A block that the disk cannot read
    /// is no error, but told.
    ///
    /// # Errors
    ///
    /// When the core is closed.
    // JS: `audit` clears the bits of the blocks that fail; here that is left to `clear`.
    pub async fn audit(&self) -> Result<Audit> {
        let shared = Arc::clone(self.shared());
        runtime::unblock(move || shared.audit()).await
    }

    /// Checks everything that is stored: blocks against their hashes, hashes against each other,
    /// every signature, and what the bitfield claims. Changes nothing, and takes no more memory for
    /// a long log than for a short one.
    ///
    /// Appends, [`flush`](Self::flush), [`clear`](Self::clear) and [`close`](Self::close) wait until it
    /// is done; reads and downloads go on.
    ///
    /// # Errors
    ///
    /// When the core is closed or the storage fails. Damage is no error, but told.
    pub async fn verify(&self) -> Result<Verification> {
        // Nothing is appended or cut off meanwhile.
        let verify = |shared: &Shared| {
            let snapshot = shared.lock().log.snapshot()?;
            snapshot.verify(&|block| shared.lock().log.has(block))
        };
        self.shared().alone(verify).await
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
        Self::verify_storage_with(storage, |_, _| {}).await
    }

    /// [`verify_storage`](Self::verify_storage), and tells `watch` from time to time how many blocks
    /// it has looked at, and how many there are.
    ///
    /// # Errors
    ///
    /// As `verify_storage`.
    pub async fn verify_storage_with(
        storage: impl Storage + 'static,
        mut watch: impl FnMut(u64, u64) + Send + 'static,
    ) -> Result<Verification> {
        runtime::unblock(move || log::verify_storage(Arc::new(storage), &mut watch)).await
    }

    /// Puts right what can be put right in a storage that [`verify_storage`](Self::verify_storage)
    /// finds damaged: computes parts of the tree and the bitfield anew, takes each key from the
    /// other, makes lost signatures again where the secret key is, and drops blocks that are not
    /// what they should be. These can be downloaded again. What is right is never touched, and what
    /// is written over or cut off is copied to a
    /// [quarantine](hypercore_storage::Storage::new_quarantine) before.
    ///
    /// # Errors
    ///
    /// [`Error::NoCore`](crate::Error::NoCore); when another process has the core open; when the storage fails; and when
    /// so much is damaged that nothing vouches for the rest, or that a writer would have to forget
    /// blocks that were signed. Nothing but keys and headers is changed then.
    pub async fn repair_storage(storage: impl Storage + 'static) -> Result<Repair> {
        Self::repair_storage_with(storage, |_, _| {}).await
    }

    /// [`repair_storage`](Self::repair_storage), and tells `watch` from time to time how many blocks
    /// it has looked at, and how many there are. It looks at all of them twice.
    ///
    /// # Errors
    ///
    /// As `repair_storage`.
    pub async fn repair_storage_with(
        storage: impl Storage + 'static,
        mut watch: impl FnMut(u64, u64) + Send + 'static,
    ) -> Result<Repair> {
        runtime::unblock(move || log::repair_storage(Arc::new(storage), &mut watch)).await
    }
}
