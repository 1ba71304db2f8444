//! The connections of one core, and the names of those at their other ends.

use std::{
    collections::HashMap,
    convert::Infallible,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_channel::{Receiver, Sender};
use async_io::Timer;
use futures_lite::future;
use hypercore::{Error, Hypercore, PeerId, ReplicateOptions, Replication, Role};

use crate::net::{HangUp, Tcp};

/// How long a peer has, once connected, to prove that it knows the core's key.
const OPEN_TIMEOUT: Duration = Duration::from_secs(10);

/// How long connections have to say their last words.
const GOODBYE: Duration = Duration::from_millis(500);

/// What the connections of one core share.
#[derive(Debug, Clone)]
pub(crate) struct Peers {
    core: Hypercore,
    addresses: Arc<Mutex<HashMap<PeerId, String>>>,
    pub(crate) hang_up: HangUp,
}

/// One connection.
pub(crate) struct Link {
    pub(crate) id: PeerId,
    replication: Replication,
    tcp: Tcp,
    peers: Peers,
}

/// How a connection ended.
#[derive(Debug)]
pub(crate) enum Ended {
    /// One side closed it.
    Closed,
    /// It broke, or was ended because of what the peer did.
    Failed(Error),
    /// The peer did not show that it knows the core.
    Stranger,
}

impl Peers {
    pub(crate) fn new(core: &Hypercore) -> Self {
        Self {
            core: core.clone(),
            addresses: Arc::default(),
            hang_up: HangUp::default(),
        }
    }

    /// Puts the core on a new connection.
    pub(crate) fn attach(
        &self,
        tcp: Tcp,
        address: &str,
        role: Role,
        options: ReplicateOptions,
    ) -> Result<Link, Error> {
        // Held meanwhile, so that the newest peer is the one of this connection.
        let mut addresses = self.lock();
        let replication = self.core.replicate(role, options)?;
        let newest = self.core.peers().into_iter().map(|peer| peer.id).max();
        let id = newest.ok_or(Error::Closed)?;
        addresses.insert(id, address.to_owned());
        drop(addresses);
        Ok(Link {
            id,
            replication,
            tcp,
            peers: self.clone(),
        })
    }

    /// The address of a peer, which is how people know it.
    pub(crate) fn address(&self, id: PeerId) -> String {
        self.lock()
            .get(&id)
            .cloned()
            .unwrap_or_else(|| id.to_string())
    }

    /// Forgets a peer that is gone.
    pub(crate) fn forget(&self, id: PeerId) {
        self.lock().remove(&id);
    }

    /// Whether somebody is connected who knows the core's key.
    pub(crate) fn any_open(&self) -> bool {
        self.core.peers().iter().any(|peer| peer.opened)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<PeerId, String>> {
        self.addresses
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Link {
    /// Exchanges blocks until the connection ends.
    pub(crate) async fn run(self) -> Ended {
        let Self {
            id,
            replication,
            tcp,
            peers,
        } = self;
        let exchange = async {
            match replication.run(tcp).await {
                Ok(_) => Ended::Closed,
                Err(error) => Ended::Failed(error),
            }
        };
        let stranger = async {
            Timer::after(OPEN_TIMEOUT).await;
            let mut known = peers.core.peers().into_iter();
            if known.any(|peer| peer.id == id && peer.opened) {
                future::pending().await
            }
            Ended::Stranger
        };
        future::or(exchange, stranger).await
    }
}

/// Tasks that run beside the program, to be waited for at its end.
#[derive(Debug)]
pub(crate) struct Gathering {
    member: Member,
    /// Ends when the last member is gone.
    members: Receiver<Infallible>,
}

/// Held by a task for as long as it runs.
#[derive(Debug, Clone)]
pub(crate) struct Member(Sender<Infallible>);

impl Default for Gathering {
    fn default() -> Self {
        let (member, members) = async_channel::bounded(1);
        Self {
            member: Member(member),
            members,
        }
    }
}

impl Gathering {
    pub(crate) fn member(&self) -> Member {
        self.member.clone()
    }

    /// Waits a moment for all tasks to end.
    pub(crate) async fn end(self) {
        let Self { member, members } = self;
        drop(member);
        let ended = async {
            let _ = members.recv().await;
        };
        let late = async {
            Timer::after(GOODBYE).await;
        };
        future::or(ended, late).await;
    }
}

impl Member {
    /// How many members there are beside the gathering itself and this one.
    pub(crate) fn others(&self) -> usize {
        self.0.sender_count().saturating_sub(2)
    }
}
