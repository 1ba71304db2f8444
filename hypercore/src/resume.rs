//! Writers that may not be where they left off, and how they go on.

use crate::{
    Hypercore,
    error::{Error, Result},
    request::UpdateOptions,
    shared::Shared,
};

/// While it exists, a writer takes in what others have of its log. Whoever gives up on
/// [`Hypercore::resume`] drops it.
struct Resuming<'a> {
    core: &'a Hypercore,
    /// From this block on some may be missing.
    start: u64,
}

impl<'a> Resuming<'a> {
    fn start(core: &'a Hypercore) -> Self {
        let mut locked = core.shared().lock();
        let start = locked.log.start_resuming();
        locked.replicator.ask_anew();
        drop(locked);
        Self { core, start }
    }
}

impl Drop for Resuming<'_> {
    fn drop(&mut self) {
        self.core.shared().lock().log.end_resuming();
    }
}

impl Hypercore {
    /// Makes a core whose appends are [locked](Self::append_lock) whole again: takes in from the
    /// connected peers what they have of it, until none has more, and then lets appends go on. The
    /// connections must [download](crate::ReplicateOptions::download), which those of a writer do only
    /// when told to. Returns the length.
    ///
    /// It waits for every connected remote to say what it has, ten seconds for one that does not open
    /// the core. Drop the future when that takes too long, and appends stay locked, also after the core was
    /// opened again: the next call goes on from where this one began.
    ///
    /// # Errors
    ///
    /// [`Error::NotAvailable`] without a connected peer; [`Error::AppendLocked`] when the peers have
    /// less than was signed here, or when there are two histories: then appends stay locked. Also when
    /// the storage fails.
    pub async fn resume(&self) -> Result<u64> {
        loop {
            let resuming = Resuming::start(self);
            let start = resuming.start;
            self.take_in(start).await?;
            drop(resuming);
            let end = move |shared: &Shared| shared.end_resume(start);
            // Another call may have taken in more meanwhile.
            if let Some(length) = self.shared().alone(end).await? {
                return Ok(length);
            }
        }
    }

    /// Takes in what peers have from block `start` on.
    async fn take_in(&self, start: u64) -> Result<()> {
        let options = UpdateOptions {
            if_available: true,
            ..UpdateOptions::default()
        };
        loop {
            match self.update_with(options).await {
                Ok(_) => {}
                Err(Error::NotAvailable) if self.peers().iter().any(|peer| peer.opened) => break,
                Err(error) => return Err(error),
            }
        }
        self.download(start..self.length()).await
    }

    /// Lets appends go on although they are [locked](Self::append_lock). If more was signed with the
    /// key than is here, the next append makes a second history of the log: whoever has the first
    /// refuses it, and nobody can join the two.
    ///
    /// # Errors
    ///
    /// When the core is closed or the storage fails.
    pub async fn accept_fork_risk(&self) -> Result<()> {
        self.shared().alone(Shared::accept_fork_risk).await
    }
}
