//! Multicast DNS (RFC 6762) and service discovery (RFC 6763), by `mdns-sd`.
//!
//! ```text
//!  _hypercore._tcp.local.                   PTR   <16 hex>._hypercore._tcp.local.
//!  <16 hex>._hypercore._tcp.local.          SRV   <16 hex>.local.:4000
//!                                           TXT   discovery-key=<64 hex>
//!  <16 hex>.local.                          A     192.168.1.5
//! ```
//!
//! All cores are one service, and who looks for one compares the discovery key of every answer: a
//! subtype for each core would spare the network, but `mdns-sd` does not answer questions about
//! subtypes so that it understands the answer itself. The name of a peer is random: it says nothing
//! about the machine or its owner, and there are no two of the same name.

use std::{
    collections::HashMap,
    fmt, io,
    net::{IpAddr, SocketAddr, SocketAddrV6},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

use async_channel::Sender;
use futures_lite::StreamExt;
use hypercore_merkle::DiscoveryKey;
use mdns_sd::{
    IfKind, Receiver, ResolvedService, ScopedIp, ServiceDaemon, ServiceEvent, ServiceInfo,
};

use super::{Addresses, Announcement, Discovery};

const SERVICE: &str = "_hypercore._tcp.local.";

/// The TXT record that has the discovery key.
const KEY: &str = "discovery-key";

/// Peers that are kept track of, of all cores. A network may claim any number.
const MAX_PEERS: usize = 1024;

/// Peers of one core. Whoever floods one that somebody looks for hides no other.
const MAX_PEERS_OF_CORE: usize = 256;

/// How long the last words of an announcement may take.
const GOODBYE: Duration = Duration::from_millis(200);

/// Peers on the local network. Feature `mdns`.
///
/// Makes a thread that answers and, from the first lookup on, one that asks; they end with the last
/// of this value and its announcements and lookups. Nothing leaves the local network.
///
/// ```no_run
/// # futures_lite::future::block_on(async {
/// use futures_lite::StreamExt;
/// use hypercore::{Hypercore, discovery::{Discovery, Mdns}};
///
/// let core = Hypercore::open("letters").await?;
/// let mdns = Mdns::new()?;
/// let announcement = mdns.announce(&core.discovery_key(), "0.0.0.0:4000".parse()?)?;
///
/// let mut addresses = mdns.lookup(&core.discovery_key())?;
/// while let Some(address) = addresses.next().await {
///     println!("somebody serves it at {address}");
/// }
/// # drop(announcement);
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// # });
/// ```
#[derive(Clone)]
pub struct Mdns {
    shared: Arc<Shared>,
}

impl fmt::Debug for Mdns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Mdns")
    }
}

/// The thread that speaks with the network, which ends with this, and what it has heard.
struct Shared {
    daemon: ServiceDaemon,
    heard: Arc<Mutex<Heard>>,
}

impl Drop for Shared {
    fn drop(&mut self) {
        // If it does not hear us, it has ended already.
        let _ = self.daemon.shutdown();
    }
}

impl Mdns {
    /// # Errors
    ///
    /// When the operating system gives no socket for it.
    pub fn new() -> io::Result<Self> {
        let daemon = ServiceDaemon::new().map_err(io::Error::other)?;
        let heard = Arc::default();
        Ok(Self {
            shared: Arc::new(Shared { daemon, heard }),
        })
    }
}

impl Discovery for Mdns {
    /// As [`Discovery::announce`]. Where this is dropped, the others are told at once, which may
    /// take a fifth of a second.
    fn announce(&self, core: &DiscoveryKey, address: SocketAddr) -> io::Result<Announcement> {
        let mut name = [0; 8];
        getrandom::fill(&mut name).map_err(io::Error::other)?;
        let name = format!("{:016x}", u64::from_be_bytes(name));
        let host = format!("{name}.local.");
        let properties = [(KEY, core.to_string())];
        let service = |ip: &[IpAddr]| {
            let port = address.port();
            let service = ServiceInfo::new(SERVICE, &name, &host, ip, port, &properties[..]);
            service.map_err(io::Error::other)
        };
        let mut service = if address.ip().is_unspecified() {
            let mut service = service(&[])?.enable_addr_auto();
            if address.is_ipv4() {
                service.set_interfaces(vec![IfKind::IPv4]);
            }
            service
        } else {
            service(&[address.ip()])?
        };
        // Nobody else has this name.
        service.set_requires_probe(false);
        let name = service.get_fullname().to_owned();
        let registered = self.shared.daemon.register(service);
        registered.map_err(io::Error::other)?;
        Ok(Announcement::new(Registration {
            shared: Arc::clone(&self.shared),
            name,
        }))
    }

    fn lookup(&self, core: &DiscoveryKey) -> io::Result<Addresses> {
        let mut heard = lock(&self.shared.heard);
        if !heard.is_asking {
            let events = self.shared.daemon.browse(SERVICE);
            let events = events.map_err(io::Error::other)?;
            let listener = Arc::clone(&self.shared.heard);
            thread::Builder::new()
                .name("hypercore-mdns".into())
                .spawn(move || listen(&events, &listener))?;
            heard.is_asking = true;
        }
        let (sender, found) = async_channel::unbounded();
        heard.add(*core, sender);
        drop(heard);
        // The thread goes on for as long as somebody wants to hear.
        let shared = Arc::clone(&self.shared);
        Ok(Box::pin(found.inspect(move |_| {
            let _ = &shared;
        })))
    }
}

/// An announcement.
struct Registration {
    shared: Arc<Shared>,
    name: String,
}

impl Drop for Registration {
    fn drop(&mut self) {
        // Otherwise others would call for the two minutes that the records are valid.
        if let Ok(done) = self.shared.daemon.unregister(&self.name) {
            let _ = done.recv_timeout(GOODBYE);
        }
    }
}

/// Takes in what the network says, until nobody listens to it any more.
fn listen(events: &Receiver<ServiceEvent>, heard: &Mutex<Heard>) {
    while let Ok(event) = events.recv() {
        match event {
            ServiceEvent::ServiceResolved(service) => lock(heard).found(&service),
            ServiceEvent::ServiceRemoved(_, name) => {
                lock(heard).peers.remove(&name);
            }
            _ => {}
        }
    }
}

/// Who is there, and who wants to know.
#[derive(Default)]
struct Heard {
    /// Whether a thread listens.
    is_asking: bool,
    /// By their names: the core, and the address that was told.
    peers: HashMap<String, (String, SocketAddr)>,
    lookups: Vec<(String, Sender<SocketAddr>)>,
}

impl Heard {
    fn add(&mut self, core: DiscoveryKey, lookup: Sender<SocketAddr>) {
        let core = core.to_string();
        for (_, address) in self.peers.values().filter(|(of, _)| *of == core) {
            // The other end is still in our hands.
            let _ = lookup.try_send(*address);
        }
        // Those for cores that nobody has are not found by anybody else.
        self.lookups.retain(|(_, lookup)| !lookup.is_closed());
        self.lookups.push((core, lookup));
    }

    fn found(&mut self, service: &ResolvedService) {
        let Some(core) = service.get_property_val_str(KEY) else {
            return;
        };
        let addresses = service.addresses.iter();
        let mut addresses: Vec<_> = addresses.map(|ip| to_address(ip, service.port)).collect();
        addresses.sort_by_key(|address| (rank(address), *address));
        let Some(&best) = addresses.first() else {
            return;
        };
        let known = self.peers.get(&service.fullname);
        match known.map(|&(_, address)| address) {
            Some(known) if addresses.contains(&known) => return,
            None if !self.make_room(core) => return,
            _ => {}
        }
        let peer = (core.to_owned(), best);
        self.peers.insert(service.fullname.clone(), peer);
        self.lookups.retain(|(wanted, lookup)| {
            // An error means that nobody wants to know any more.
            wanted != core || lookup.try_send(best).is_ok()
        });
    }

    /// Whether there is room for a peer of `core`, in the place of one that nobody looks for.
    fn make_room(&mut self, core: &str) -> bool {
        let of_core = self.peers.values().filter(|(of, _)| of == core).count();
        if of_core >= MAX_PEERS_OF_CORE {
            return false;
        }
        if self.peers.len() < MAX_PEERS {
            return true;
        }
        let is_wanted = |core: &str| self.lookups.iter().any(|(wanted, _)| wanted == core);
        if !is_wanted(core) {
            return false;
        }
        let mut unwanted = self.peers.iter().filter(|(_, (of, _))| !is_wanted(of));
        let Some(name) = unwanted.next().map(|(name, _)| name.clone()) else {
            return false;
        };
        self.peers.remove(&name);
        true
    }
}

fn to_address(ip: &ScopedIp, port: u16) -> SocketAddr {
    match ip {
        ScopedIp::V6(v6) => {
            let scope = v6.scope_id().index;
            SocketAddr::V6(SocketAddrV6::new(*v6.addr(), port, 0, scope))
        }
        ip => SocketAddr::new(ip.to_ip_addr(), port),
    }
}

/// Addresses that are likely to work come first.
fn rank(address: &SocketAddr) -> u8 {
    match address.ip() {
        IpAddr::V4(ip) if !ip.is_loopback() => 0,
        IpAddr::V4(_) => 1,
        IpAddr::V6(_) => 2,
    }
}

fn lock(heard: &Mutex<Heard>) -> MutexGuard<'_, Heard> {
    // Nothing is half done where a panic could come from.
    heard.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lookup_that_was_dropped_is_forgotten() {
        let mut heard = Heard::default();
        let mut kept = Vec::new();
        for id in 0..100_u8 {
            let (lookup, addresses) = async_channel::unbounded();
            heard.add(DiscoveryKey::from([id; 32]), lookup);
            if id == 50 {
                kept.push(addresses);
            }
        }
        assert_eq!(heard.lookups.len(), 2);
    }

    /// One who announces a peer for each of so many names hid everybody else.
    #[test]
    fn what_nobody_looks_for_makes_room() {
        let mut heard = Heard::default();
        let address: SocketAddr = "127.0.0.1:4000".parse().unwrap();
        for peer in 0..MAX_PEERS {
            let core = format!("unwanted {}", peer % 5);
            assert!(heard.make_room(&core), "{peer}");
            heard.peers.insert(peer.to_string(), (core, address));
        }
        assert!(!heard.make_room("nobody looks for it"));
        let wanted = DiscoveryKey::from([7; 32]);
        let (lookup, _addresses) = async_channel::unbounded();
        heard.add(wanted, lookup);
        let wanted = wanted.to_string();
        for peer in 0..MAX_PEERS_OF_CORE {
            assert!(heard.make_room(&wanted), "{peer}");
            let name = format!("wanted {peer}");
            heard.peers.insert(name, (wanted.clone(), address));
            assert_eq!(heard.peers.len(), MAX_PEERS);
        }
        assert!(!heard.make_room(&wanted));
    }
}
