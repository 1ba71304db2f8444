//! Finding peers: one small seam, behind which networks of any kind may lie.
//!
//! Who serves a core [announces](Discovery::announce) it under its discovery key, and who wants it
//! [looks that up](Discovery::lookup). The key itself is never told, so strangers learn that two
//! machines exchange the same core, but cannot read it. What is found is only a place to try:
//! whoever answers there still has to show that they know the key, and every block is checked.
//!
//! `Mdns` (feature `mdns`) finds peers on the local network.

use std::{fmt, io, net::SocketAddr};

use futures_lite::stream;
use hypercore_merkle::DiscoveryKey;

#[cfg(feature = "mdns")]
mod mdns;

#[cfg(feature = "mdns")]
pub use mdns::Mdns;

/// A way to find peers.
pub trait Discovery {
    /// Tells others, for as long as the answer is kept, that a core is served here. An `address`
    /// such as `0.0.0.0:4000` means every address of this machine.
    ///
    /// # Errors
    ///
    /// When the network cannot be used.
    fn announce(&self, core: &DiscoveryKey, address: SocketAddr) -> io::Result<Announcement>;

    /// Where the core is served, now and later: one address for each peer, and another one when it
    /// has moved or returned. Ends when nothing more can be found; drop it to stop looking.
    ///
    /// # Errors
    ///
    /// When the network cannot be used.
    fn lookup(&self, core: &DiscoveryKey) -> io::Result<Addresses>;
}

/// Addresses of peers, as they are found.
pub type Addresses = stream::Boxed<SocketAddr>;

/// What others are told, until it is dropped.
pub struct Announcement(#[expect(dead_code, reason = "kept for its end")] Box<dyn Send + Sync>);

impl Announcement {
    /// What is told until `guard` is dropped.
    #[must_use]
    pub fn new(guard: impl Send + Sync + 'static) -> Self {
        Self(Box::new(guard))
    }
}

impl fmt::Debug for Announcement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Announcement")
    }
}
