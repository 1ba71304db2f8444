//! How to replicate.

use std::time::Duration;

/// Which end of the connection this is: one side must be the initiator, the other the responder.
/// By custom the side that connects is the initiator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The side that starts the handshake.
    Initiator,
    /// The side that answers it.
    Responder,
}

/// How to replicate over one connection.
#[derive(Debug)]
#[non_exhaustive]
pub struct ReplicateOptions {
    /// Go on when everything is exchanged, and follow the log as it grows. Otherwise the
    /// connection ends by itself as soon as neither side wants anything more.
    pub live: bool,
    /// Ask the remote to acknowledge every block that it has stored: see [`crate::Event::Ack`].
    pub ack: bool,
    /// Whether to download; by default a core does that unless it is writable.
    pub download: Option<bool>,
    /// Whether to answer requests.
    pub upload: bool,
    /// A connection on which nothing was received for this long is dead, and so is one on which a
    /// request was not answered for this long. `None` waits for ever.
    pub timeout: Option<Duration>,
    /// Limits on what the remote may make us hold.
    pub limits: hypercore_wire::Limits,
    /// Our key pair for the Noise handshake; `None` makes one for this connection.
    pub key_pair: Option<hypercore_wire::StaticKeyPair>,
    /// Encrypt the connection. Without it blocks are still verified, and a remote still has to
    /// know the core's key, but everybody on the path can read along.
    pub encrypted: bool,
    /// Start with a handshake. Without it and without encryption nothing is hidden and nobody has
    /// to know the key: for transports that do both themselves.
    pub noise: bool,
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
            key_pair: None,
            encrypted: true,
            noise: true,
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
}

/// What of the options concerns one core on a connection.
#[derive(Debug, Clone)]
pub(crate) struct PeerOptions {
    pub(crate) live: bool,
    pub(crate) ack: bool,
    pub(crate) download: bool,
    pub(crate) upload: bool,
    pub(crate) timeout: Option<Duration>,
    /// Memory for what the remote says it has.
    pub(crate) remote_bitfield_bytes: usize,
}
