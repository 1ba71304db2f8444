//! How to replicate.

use std::{fmt, time::Duration};

use hypercore_merkle::{DiscoveryKey, PublicKey};

use super::{limits::PeerLimits, load::Load};
use crate::{
    error::{Error, Result},
    request::setters,
};

/// How to replicate over one connection.
///
/// ```
/// use hypercore::ReplicateOptions;
///
/// let serving = ReplicateOptions::live().discreet(true).download(false);
/// assert!(serving.live && serving.download == Some(false));
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub struct ReplicateOptions {
    /// Go on when everything is exchanged, and follow the log as it grows. Otherwise the
    /// connection ends by itself as soon as neither side wants anything more.
    pub live: bool,
    /// Ask the remote to acknowledge every block that it has stored: see [`crate::Event::Ack`].
    pub ack: bool,
    /// Whether to download; by default a core does that unless it is written here.
    pub download: Option<bool>,
    /// Whether to answer requests.
    pub upload: bool,
    /// A connection on which nothing was received for this long is dead, and so is one on which a request
    /// waits for this long and the remote answers no other of its core. What it answers for other cores puts
    /// that off, to six times as long at most, and so does every part of a long answer. `None` waits for
    /// ever. Where the connection is [piped](crate::Replication#piped), time may stand still.
    pub timeout: Option<Duration>,
    /// What the remote may send and have us hold of bytes and messages.
    pub limits: hypercore_wire::Limits,
    /// What the remote may ask of each core, and have it hold.
    pub peer_limits: PeerLimits,
    /// Our key pair for the Noise handshake; `None` makes one for this connection.
    pub key_pair: Option<hypercore_wire::StaticKeyPair>,
    /// Encrypt the connection. Without it blocks are still verified, and a remote still has to
    /// know the core's key, but everybody on the path can read along.
    pub encrypted: bool,
    /// Start with a handshake. Counts only with `encrypted: false`, as encryption begins with one. Without
    /// both nothing is hidden and nobody has to know the key: for transports that do that themselves.
    pub noise: bool,
    /// The only remote to talk to. As the initiator we refuse anybody else before we show our own key;
    /// as the responder we have shown it by the time we learn the remote's.
    pub remote_public_key: Option<[u8; 32]>,
    /// As a responder, let the remote hear of a core only once it has proved to know its key. Others
    /// then cannot tell a core that is here from one that is not; Node's peers tell everybody the
    /// discovery keys of their cores. For remotes that open the core themselves, as all do that
    /// replicate it.
    pub discreet: bool,
    /// Whether to declare the extensions [of this crate](crate::extension::OWN); Node's peers have none
    /// of them.
    pub(crate) own_extensions: bool,
    authenticate: Option<Hook<IsKnown>>,
    authenticate_core: Option<Hook<MayHave>>,
    remote_open: Option<Hook<WillAdd>>,
}

setters!(ReplicateOptions {
    ack: bool,
    download: bool,
    upload: bool,
    timeout: Duration,
    limits: hypercore_wire::Limits,
    peer_limits: PeerLimits,
    key_pair: hypercore_wire::StaticKeyPair,
    encrypted: bool,
    noise: bool,
    remote_public_key: [u8; 32],
    discreet: bool,
});

/// Whether to talk to the remote with this key.
type IsKnown = dyn Fn(&[u8; 32]) -> bool + Send + Sync;

/// Whether to exchange the core with this key with the remote with that one.
type MayHave = dyn Fn(PublicKey, &[u8; 32]) -> bool + Send + Sync;

/// Whether somebody sees to the core with this discovery key.
type WillAdd = dyn Fn(DiscoveryKey) -> bool + Send + Sync;

/// A question to whoever made the options.
struct Hook<F: ?Sized>(Box<F>);

impl<F: ?Sized> fmt::Debug for Hook<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hook")
    }
}

impl Default for ReplicateOptions {
    fn default() -> Self {
        Self {
            live: false,
            ack: false,
            download: None,
            upload: true,
            timeout: Some(Duration::from_secs(20)),
            limits: hypercore_wire::Limits::default(),
            peer_limits: PeerLimits::default(),
            key_pair: None,
            encrypted: true,
            noise: true,
            remote_public_key: None,
            discreet: false,
            own_extensions: true,
            authenticate: None,
            authenticate_core: None,
            remote_open: None,
        }
    }
}

impl ReplicateOptions {
    /// The defaults, staying connected as the log grows.
    #[must_use]
    pub fn live() -> Self {
        Self {
            live: true,
            ..Self::default()
        }
    }

    /// Talks only to remotes whose static key `is_known`; with any other the connection fails with
    /// [`Error::NotAuthenticated`]. It is called once, when the handshake is over; without one there is
    /// no connection ([`Error::NoHandshake`]). The connection is locked during the call: see
    /// [`ReplicationHandle`](crate::ReplicationHandle).
    #[must_use]
    pub fn on_authenticate(
        mut self,
        is_known: impl Fn(&[u8; 32]) -> bool + Send + Sync + 'static,
    ) -> Self {
        self.authenticate = Some(Hook(Box::new(is_known)));
        self
    }

    /// Exchanges a core only with remotes that `may_have` it, by the core's key and the remote's
    /// static key. It is called when the remote has opened the core and shown that it knows the key.
    /// For any other the core is closed then, and nothing of what is in it was said. That it is here
    /// is not hidden from them: our side has opened it by then, also if it is
    /// [`discreet`](Self::discreet). The connection is locked during the call: see
    /// [`ReplicationHandle`](crate::ReplicationHandle).
    #[must_use]
    pub fn on_core_authenticate(
        mut self,
        may_have: impl Fn(PublicKey, &[u8; 32]) -> bool + Send + Sync + 'static,
    ) -> Self {
        self.authenticate_core = Some(Hook(Box::new(may_have)));
        self
    }

    /// For a side that has many cores and is to learn which of them the remote wants: `will_add` is called
    /// with the discovery key of each that the remote opens and that is not on the connection.
    ///
    /// It says whether somebody sees to that core, and [adds](crate::ReplicationHandle::add) it or
    /// [rejects](crate::ReplicationHandle::reject) it. Until then the connection does not end by itself.
    /// With `false` nobody does: the remote is told so at once, as a side that is not live does without
    /// this hook. No more than [`unmatched_channels`](crate::wire::Limits::unmatched_channels) wait to be
    /// added: then the oldest is rejected.
    ///
    /// The remote has not shown yet that it knows the key: if it does not, adding the core fails and
    /// rejects it. So that it hears the same of all cores, a [`discreet`](Self::discreet) side calls the
    /// hook then also for one that is on the connection.
    ///
    /// The connection is locked during the call, so whoever adds the core does that elsewhere, as in a
    /// task that the key is sent to. The hook is dropped when the connection is over.
    #[must_use]
    pub fn on_remote_open(
        mut self,
        will_add: impl Fn(DiscoveryKey) -> bool + Send + Sync + 'static,
    ) -> Self {
        self.remote_open = Some(Hook(Box::new(will_add)));
        self
    }

    /// Whether somebody sees to a core that the remote opened; `None` if nobody says.
    pub(crate) fn will_add(&self, core: DiscoveryKey) -> Option<bool> {
        let hook = self.remote_open.as_ref();
        hook.map(|Hook(will_add)| will_add(core))
    }

    /// The remote opens nothing any more: whoever waits to hear of it hears that.
    pub(crate) fn drop_remote_open(&mut self) {
        self.remote_open = None;
    }

    /// Whether the remote has to have a key.
    pub(crate) fn asks_for_key(&self) -> bool {
        self.remote_public_key.is_some()
            || self.authenticate.is_some()
            || self.authenticate_core.is_some()
    }

    pub(crate) fn authenticate(&self, remote: &[u8; 32]) -> Result<()> {
        match &self.authenticate {
            Some(Hook(is_known)) if !is_known(remote) => Err(Error::NotAuthenticated),
            _ => Ok(()),
        }
    }

    pub(crate) fn lets_in(&self, core: PublicKey, remote: Option<[u8; 32]>) -> bool {
        match &self.authenticate_core {
            None => true,
            Some(Hook(may_have)) => remote.is_some_and(|remote| may_have(core, &remote)),
        }
    }
}

/// What of the options concerns one core on a connection.
#[derive(Debug, Clone)]
pub(crate) struct PeerOptions {
    pub(crate) live: bool,
    pub(crate) ack: bool,
    pub(crate) download: bool,
    pub(crate) upload: bool,
    pub(crate) timeout: Option<Duration>,
    pub(crate) own_extensions: bool,
    /// Bytes of a message of an extension.
    pub(crate) extension_message: usize,
    /// What all cores of the connection hold together.
    pub(crate) load: Load,
}
