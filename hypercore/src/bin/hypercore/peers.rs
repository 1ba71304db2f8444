//! The connections of one core, and the names of those at their other ends.

use std::{
    collections::{HashMap, HashSet},
    convert::Infallible,
    io,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_channel::{Receiver, Sender};
use async_io::Timer;
use futures_lite::future;
use hypercore::{
    CloseReason, Error, Hypercore, PeerId, ReplicateOptions, Replication, Role, wire::StaticKeyPair,
};

use crate::{
    errors::end_of,
    net::{HangUp, Tcp},
};

/// How long a peer has, once connected, to prove that it knows the core's key.
const OPEN_TIMEOUT: Duration = Duration::from_secs(10);

/// How long connections have to say their last words.
const GOODBYE: Duration = Duration::from_millis(500);

/// What the connections of one core share.
#[derive(Debug, Clone)]
pub(crate) struct Peers {
    core: Hypercore,
    /// Who we are to them; `None` is somebody new on each connection.
    identity: Option<Arc<StaticKeyPair>>,
    addresses: Arc<Mutex<HashMap<PeerId, String>>>,
    /// What the last connection that broke died of.
    last_error: Arc<Mutex<Option<String>>>,
    pub(crate) hang_up: HangUp,
}

/// One connection.
pub(crate) struct Link {
    pub(crate) id: PeerId,
    address: String,
    replication: Replication,
    tcp: Tcp,
    /// Whether we have called.
    is_caller: bool,
    peers: Peers,
    named: Named,
}

/// The address of a peer, which is forgotten with its connection unless the peer has shown that it knows
/// the core: then a `PeerClose` tells of it, and its address with that.
struct Named {
    id: PeerId,
    peers: Peers,
    opened: Arc<AtomicBool>,
}

impl Drop for Named {
    fn drop(&mut self) {
        if !self.opened.load(Ordering::Acquire) {
            self.peers.forget(self.id);
        }
    }
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
    pub(crate) fn new(core: &Hypercore, identity: Option<StaticKeyPair>) -> Self {
        Self {
            core: core.clone(),
            identity: identity.map(Arc::new),
            addresses: Arc::default(),
            last_error: Arc::default(),
            hang_up: HangUp::default(),
        }
    }

    /// Puts the core on a new connection.
    pub(crate) fn attach(
        &self,
        tcp: Tcp,
        address: &str,
        role: Role,
        mut options: ReplicateOptions,
    ) -> Result<Link, Error> {
        options.key_pair = self.identity.as_deref().map(StaticKeyPair::duplicate);
        let opened = Arc::<AtomicBool>::default();
        let open = Arc::clone(&opened);
        options = options.on_core_authenticate(move |_, _| {
            open.store(true, Ordering::Release);
            true
        });
        let is_caller = matches!(role, Role::Initiator);
        let replication = Replication::new(role, options)?;
        let id = replication.add(&self.core)?;
        self.lock().insert(id, address.to_owned());
        Ok(Link {
            id,
            address: address.to_owned(),
            replication,
            tcp,
            is_caller,
            peers: self.clone(),
            named: Named {
                id,
                peers: self.clone(),
                opened,
            },
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

    /// Forgets all that are gone.
    pub(crate) fn forget_gone(&self) {
        let mut addresses = self.lock();
        // Under the lock, so that nobody comes in between.
        let here: HashSet<_> = self.core.peers().into_iter().map(|peer| peer.id).collect();
        addresses.retain(|id, _| here.contains(id));
    }

    /// What the last connection that broke died of.
    pub(crate) fn last_error(&self) -> Option<String> {
        let last = self.last_error.lock();
        last.unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn note_error(&self, address: &str, error: &Error) {
        let last = self.last_error.lock();
        *last.unwrap_or_else(PoisonError::into_inner) =
            Some(format!("{address}: {}", end_of(error)));
    }

    /// Whether somebody is connected who knows the core's key.
    pub(crate) fn any_open(&self) -> bool {
        self.core.peers().iter().any(|peer| peer.opened)
    }

    /// How many are connected who know the core's key. One that was found at two addresses counts
    /// once, and both connections stay: the same key is also that of two servers of one owner, and
    /// the blocks of one of them may not be those of the other.
    pub(crate) fn count(&self) -> usize {
        let peers = self.core.peers().into_iter().filter(|peer| peer.opened);
        let keys: HashSet<_> = peers.map(|peer| peer.remote_public_key).collect();
        keys.len()
    }

    /// How many blocks came from all peers that ever were.
    pub(crate) fn received(&self) -> u64 {
        self.core.stats().downloaded_blocks
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<PeerId, String>> {
        self.addresses
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ended {
    /// What is wrong here, as a full disk is: no peer can help it.
    pub(crate) fn fault_here(&self) -> Option<&Error> {
        match self {
            Self::Failed(error) if error.close_reason() == CloseReason::Internal => Some(error),
            _ => None,
        }
    }

    /// Whether the network is to blame, and not one of the peers.
    pub(crate) fn is_loss(&self) -> bool {
        let Self::Failed(error) = self else {
            return false;
        };
        matches!(
            error.close_reason(),
            CloseReason::Network | CloseReason::Timeout
        )
    }
}

impl Link {
    /// Whether the peer has shown that it knows the core.
    pub(crate) fn opened(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.named.opened)
    }

    /// Exchanges blocks until the connection ends.
    pub(crate) async fn run(self) -> Ended {
        let Self {
            id: _,
            address,
            replication,
            mut tcp,
            is_caller,
            peers,
            named,
        } = self;
        let exchange = async {
            let handle = replication.handle();
            let exchanged = replication.run(&mut tcp).await;
            if is_caller && peers.hang_up.is_set() {
                // What is on its way to one who is gone comes back as a failure, also to those who
                // have sent all of a file. Those who call us are to see one, and to call again.
                tcp.part().await;
            }
            match exchanged {
                // The system closes the connections of a process that is killed, too.
                Ok(_) if is_caller && handle.owed_answers() && !peers.hang_up.is_set() => {
                    Ended::Failed(Error::Transport(io::ErrorKind::ConnectionAborted.into()))
                }
                Ok(_) => Ended::Closed,
                Err(error) => {
                    peers.note_error(&address, &error);
                    Ended::Failed(error)
                }
            }
        };
        let stranger = async {
            Timer::after(OPEN_TIMEOUT).await;
            if named.opened.load(Ordering::Acquire) {
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
pub(crate) struct Member {
    _sender: Sender<Infallible>,
}

impl Default for Gathering {
    fn default() -> Self {
        let (sender, members) = async_channel::bounded(1);
        Self {
            member: Member { _sender: sender },
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
