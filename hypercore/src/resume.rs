//! Writers that may not be where they left off, and how they go on.

use std::sync::Arc;

use crate::{
    Hypercore,
    error::{Error, Result},
    request::UpdateOptions,
    runtime,
};

impl Hypercore {
    /// Makes a core whose appends are [locked](Self::append_lock) whole again: takes in from the
    /// connected peers what they have of it, until none has more, and then lets appends go on. The
    /// connections must [download](crate::ReplicateOptions::download). Returns the length.
    ///
    /// # Errors
    ///
    /// [`Error::NotAvailable`] without a connected peer; [`Error::AppendLocked`] when the peers have
    /// less than was signed here, or when there are two histories: then appends stay locked.
    pub async fn resume(&self) -> Result<u64> {
        self.shared().lock().log.set_resuming(true);
        let resumed = self.take_in().await;
        let mut core = self.shared().lock();
        core.log.set_resuming(false);
        resumed?;
        core.log.check_signed()?;
        core.log.unlock();
        Ok(core.log.length())
    }

    async fn take_in(&self) -> Result<()> {
        let options = UpdateOptions {
            if_available: true,
            ..UpdateOptions::default()
        };
        let before = self.length();
        loop {
            match self.update_with(options).await {
                Ok(_) => {}
                Err(Error::NotAvailable) if self.peers().iter().any(|peer| peer.opened) => break,
                Err(error) => return Err(error),
            }
        }
        self.download(before..self.length()).await
    }

    /// Locks appends until they are [resumed](Self::resume): for a secret key that was brought here
    /// from elsewhere, where more may have been signed with it. A storage that keeps no files beside
    /// the log forgets this when it is closed.
    ///
    /// # Errors
    ///
    /// When the core is closed or the storage fails.
    pub async fn lock_appends(&self) -> Result<()> {
        let shared = Arc::clone(self.shared());
        runtime::unblock(move || shared.lock().log.lock_as_copied()).await
    }

    /// Lets appends go on although they are [locked](Self::append_lock). If more was signed with the
    /// key than is here, the next append makes a second history of the log: whoever has the first
    /// refuses it, and nobody can join the two.
    ///
    /// # Errors
    ///
    /// When the core is closed.
    pub async fn accept_fork_risk(&self) -> Result<()> {
        let mut core = self.shared().lock();
        core.log.files()?;
        core.log.unlock();
        Ok(())
    }
}
