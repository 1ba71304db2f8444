//! Whom a listener lets in, before a byte is read.

use std::{
    collections::{HashMap, VecDeque},
    net::{IpAddr, Ipv6Addr},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use event_listener::Event;

use crate::request::setters;

/// How many connections a listener takes; see [`Admission`].
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct AdmissionLimits {
    /// Connections at one time.
    pub connections: usize,
    /// Connections from one address at one time.
    pub connections_of_address: usize,
    /// Connections whose handshake is not over.
    pub handshakes: usize,
    /// The same from one address.
    pub handshakes_of_address: usize,
    /// How long an honest handshake takes at most. When there are too many unfinished ones, the
    /// oldest makes room if it has taken longer; otherwise the newest is refused.
    pub handshake_age: Duration,
    /// How long an address is refused after it misbehaved, doubled each time it does so again.
    pub back_off: Duration,
    /// The longest an address is refused. One that behaved for so long starts anew.
    pub max_back_off: Duration,
    /// Whether what concerns addresses counts for those of this machine, too. By default it does
    /// not: they say nothing of who it is that calls, and proxies and tunnels call from there.
    pub loopback: bool,
}

impl Default for AdmissionLimits {
    fn default() -> Self {
        Self {
            connections: 1024,
            connections_of_address: 32,
            handshakes: 256,
            handshakes_of_address: 16,
            handshake_age: Duration::from_secs(1),
            back_off: Duration::from_secs(1),
            max_back_off: Duration::from_secs(300),
            loopback: false,
        }
    }
}

setters!(AdmissionLimits {
    connections: usize,
    connections_of_address: usize,
    handshakes: usize,
    handshakes_of_address: usize,
    handshake_age: Duration,
    back_off: Duration,
    max_back_off: Duration,
    loopback: bool,
});

/// Why a connection was not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NotAdmitted {
    /// There are as many connections as the limits allow.
    #[error("{max} peers are connected already")]
    Full {
        /// The number allowed.
        max: usize,
    },
    /// There are as many from this address.
    #[error("{max} peers are connected from this address already")]
    AddressFull {
        /// The number allowed.
        max: usize,
    },
    /// As many handshakes are under way, all of them for a short time only.
    #[error("{max} handshakes are not finished yet")]
    Handshakes {
        /// The number allowed.
        max: usize,
    },
    /// As many handshakes are under way from this address.
    #[error("{max} handshakes from this address are not finished yet")]
    AddressHandshakes {
        /// The number allowed.
        max: usize,
    },
    /// The address misbehaved a short time ago.
    #[error("the address misbehaved and is refused for another {wait:?}")]
    BackOff {
        /// How much longer it is refused.
        wait: Duration,
    },
}

/// Whom a listener lets in: a limit on connections, on those of one address, and on handshakes that
/// do not end; and a rest for addresses that misbehaved.
///
/// It is asked after a connection was accepted and before a byte is read. Addresses of IPv6 count
/// by their first 64 bits, which is what one customer of a provider has.
///
/// ```
/// use std::time::Instant;
/// use hypercore::{Admission, AdmissionLimits, ReplicateOptions};
///
/// let admission = Admission::new(AdmissionLimits::default().connections_of_address(4));
/// // For each connection that was accepted:
/// let admitted = admission.admit("192.0.2.1".parse().unwrap(), Instant::now()).unwrap();
/// let handshake = admitted.clone();
/// let options = ReplicateOptions::live().on_authenticate(move |_| {
///     handshake.handshaken();
///     true
/// });
/// // Run the replication until it ends or `admitted.evicted()` is ready. If it ends with an error
/// // for which `Error::is_peer_fault`, call `admitted.misbehaved(Instant::now())`. A stranger
/// // (`Error::NotAuthenticated`) has not misbehaved: others may call from there who are let in.
/// # drop(options);
/// assert_eq!(admission.connections(), 1);
/// drop(admitted);
/// assert_eq!(admission.connections(), 0);
/// ```
#[derive(Debug, Clone)]
pub struct Admission {
    limits: Arc<AdmissionLimits>,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    last: u64,
    connections: usize,
    addresses: HashMap<IpAddr, Address>,
    /// Oldest first.
    handshakes: VecDeque<Handshake>,
}

/// What is known of an address that is connected or has misbehaved.
#[derive(Debug, Default)]
struct Address {
    connections: usize,
    handshakes: usize,
    /// How often it misbehaved, and until when it is refused for that.
    offences: u32,
    refused_until: Option<Instant>,
}

#[derive(Debug)]
struct Handshake {
    id: u64,
    address: Option<IpAddr>,
    since: Instant,
    eviction: Arc<Eviction>,
}

/// Tells a connection to make room for another.
#[derive(Debug, Default)]
struct Eviction {
    done: AtomicBool,
    event: Event,
}

/// A connection that was let in. It counts until the last clone is dropped.
#[derive(Debug, Clone)]
pub struct Admitted(Arc<Connection>);

#[derive(Debug)]
struct Connection {
    admission: Admission,
    id: u64,
    /// `None` if it does not count.
    address: Option<IpAddr>,
    eviction: Arc<Eviction>,
}

impl Admission {
    /// A listener without connections.
    #[must_use]
    pub fn new(limits: AdmissionLimits) -> Self {
        Self {
            limits: Arc::new(limits),
            state: Arc::default(),
        }
    }

    /// How many connections there are.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.lock().connections
    }

    /// Lets in a connection from `address`, or says why not.
    ///
    /// # Errors
    /// [`NotAdmitted`]: close the connection.
    pub fn admit(&self, address: IpAddr, now: Instant) -> Result<Admitted, NotAdmitted> {
        let limits = &*self.limits;
        let address = counted(address, limits);
        let mut state = self.lock();
        if let Some(known) = address.and_then(|address| state.addresses.get(&address)) {
            let wait = known
                .refused_until
                .map(|until| until.saturating_duration_since(now));
            if let Some(wait) = wait.filter(|wait| !wait.is_zero()) {
                return Err(NotAdmitted::BackOff { wait });
            }
            let max = limits.connections_of_address;
            if known.connections >= max {
                return Err(NotAdmitted::AddressFull { max });
            }
            let max = limits.handshakes_of_address;
            if known.handshakes >= max {
                return Err(NotAdmitted::AddressHandshakes { max });
            }
        }
        // First: whoever makes room makes it for one that is let in.
        let max = limits.connections;
        if state.connections >= max {
            return Err(NotAdmitted::Full { max });
        }
        let max = limits.handshakes;
        if state.handshakes.len() >= max && !state.evict(limits.handshake_age, now) {
            return Err(NotAdmitted::Handshakes { max });
        }
        state.last = state.last.saturating_add(1);
        state.connections = state.connections.saturating_add(1);
        if let Some(address) = address {
            let known = state.addresses.entry(address).or_default();
            known.connections = known.connections.saturating_add(1);
            known.handshakes = known.handshakes.saturating_add(1);
        }
        let (id, eviction) = (state.last, Arc::<Eviction>::default());
        state.handshakes.push_back(Handshake {
            id,
            address,
            since: now,
            eviction: Arc::clone(&eviction),
        });
        drop(state);
        Ok(Admitted(Arc::new(Connection {
            admission: self.clone(),
            id,
            address,
            eviction,
        })))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Makes room for a handshake if the oldest takes longer than an honest one.
    fn evict(&mut self, age: Duration, now: Instant) -> bool {
        let oldest = self.handshakes.front();
        let oldest = oldest.filter(|it| now.saturating_duration_since(it.since) > age);
        let Some(Handshake { id, eviction, .. }) = oldest else {
            return false;
        };
        eviction.done.store(true, Ordering::Release);
        eviction.event.notify(usize::MAX);
        self.end_handshake(*id);
        true
    }

    fn end_handshake(&mut self, id: u64) {
        let Ok(index) = self.handshakes.binary_search_by_key(&id, |it| it.id) else {
            return;
        };
        let address = self.handshakes.remove(index).and_then(|it| it.address);
        if let Some(known) = address.and_then(|address| self.addresses.get_mut(&address)) {
            known.handshakes = known.handshakes.saturating_sub(1);
        }
    }

    /// Forgets addresses of which there is nothing to remember.
    fn tidy(&mut self, limits: &AdmissionLimits, now: Instant) {
        self.addresses
            .retain(|_, known| known.connections > 0 || known.is_remembered(limits, now));
    }
}

impl Address {
    /// Whether it misbehaved, and has not behaved for long enough since.
    fn is_remembered(&self, limits: &AdmissionLimits, now: Instant) -> bool {
        let since = |until| now.saturating_duration_since(until);
        self.refused_until
            .is_some_and(|until| since(until) < limits.max_back_off)
    }
}

impl Admitted {
    /// The handshake is over: the remote has shown that it speaks the protocol.
    pub fn handshaken(&self) {
        self.0.admission.lock().end_handshake(self.0.id);
    }

    /// The remote broke the protocol or proved something false: its address is refused for a while. This
    /// is not for one that was merely not let in, because others may call from its address.
    pub fn misbehaved(&self, now: Instant) {
        let Some(address) = self.0.address else {
            return;
        };
        let limits = &*self.0.admission.limits;
        let mut state = self.0.admission.lock();
        if state.addresses.len() > MAX_ADDRESSES {
            state.tidy(limits, now);
        }
        let full = state.addresses.len() > MAX_ADDRESSES;
        let Some(known) = state.addresses.get_mut(&address).filter(|_| !full) else {
            return;
        };
        if !known.is_remembered(limits, now) {
            known.offences = 0;
        }
        let factor = 1_u32.checked_shl(known.offences).unwrap_or(u32::MAX);
        let wait = limits.back_off.saturating_mul(factor);
        known.offences = known.offences.saturating_add(1);
        known.refused_until = now.checked_add(wait.min(limits.max_back_off));
    }

    /// Waits until this connection has to make room for another: its handshake takes too long.
    pub async fn evicted(&self) {
        let Eviction { done, event } = &*self.0.eviction;
        while !done.load(Ordering::Acquire) {
            let listener = event.listen();
            if !done.load(Ordering::Acquire) {
                listener.await;
            }
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        let mut state = self.admission.lock();
        state.connections = state.connections.saturating_sub(1);
        state.end_handshake(self.id);
        let Some(address) = self.address else {
            return;
        };
        if let Some(known) = state.addresses.get_mut(&address) {
            known.connections = known.connections.saturating_sub(1);
            if known.connections == 0 && known.refused_until.is_none() {
                state.addresses.remove(&address);
            }
        }
    }
}

/// Addresses remembered for having misbehaved, beside those that are connected.
const MAX_ADDRESSES: usize = 8192;

/// The address by which a connection counts, if it does.
fn counted(address: IpAddr, limits: &AdmissionLimits) -> Option<IpAddr> {
    let address = match address.to_canonical() {
        IpAddr::V6(address) if !address.is_loopback() => IpAddr::V6(Ipv6Addr::from_bits(
            address.to_bits() & !u128::from(u64::MAX),
        )),
        address => address,
    };
    (limits.loopback || !address.is_loopback()).then_some(address)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use futures_lite::future::{block_on, poll_once};

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn address(last: u8) -> IpAddr {
        Ipv4Addr::new(192, 0, 2, last).into()
    }

    fn small() -> Admission {
        Admission::new(AdmissionLimits {
            connections: 6,
            connections_of_address: 4,
            handshakes: 5,
            handshakes_of_address: 2,
            ..AdmissionLimits::default()
        })
    }

    /// Lets in one whose handshake is over at once.
    fn finished(admission: &Admission, from: u8, now: Instant) -> Result<Admitted, NotAdmitted> {
        let admitted = admission.admit(address(from), now)?;
        admitted.handshaken();
        Ok(admitted)
    }

    #[test]
    fn connections_are_bounded_in_all_and_for_each_address() {
        let (admission, now) = (small(), Instant::now());
        let admit = |from| finished(&admission, from, now);
        let mut peers: Vec<_> = [1, 1, 1, 1, 2, 2].map(|from| admit(from).unwrap()).into();
        assert_eq!(admit(1).unwrap_err(), NotAdmitted::AddressFull { max: 4 });
        assert_eq!(admit(2).unwrap_err(), NotAdmitted::Full { max: 6 });
        peers.remove(0);
        peers.push(admit(1).expect("one of them has gone"));
        drop(peers);
        assert_eq!(admission.connections(), 0);
        assert!(
            admission.lock().addresses.is_empty(),
            "nothing is left behind"
        );
    }

    #[test]
    fn handshakes_are_bounded_in_all_and_for_each_address() {
        let (admission, now) = (small(), Instant::now());
        let admit = |from| admission.admit(address(from), now);
        let peers = [1, 1, 2, 2, 3].map(|from| admit(from).unwrap());
        let of_address = NotAdmitted::AddressHandshakes { max: 2 };
        assert_eq!(admit(2).unwrap_err(), of_address);
        assert_eq!(admit(4).unwrap_err(), NotAdmitted::Handshakes { max: 5 });
        peers[0].handshaken();
        peers[0].handshaken();
        let fourth = admit(4).expect("one handshake is over");
        assert_eq!(admit(5).unwrap_err(), NotAdmitted::Full { max: 6 });
        drop(fourth);
        admit(5).expect("one connection is over");
    }

    /// It made room for one that was refused all the same.
    #[test]
    fn a_handshake_that_takes_too_long_stays_where_no_more_are_let_in() {
        let (admission, now) = (small(), Instant::now());
        let slow = [1, 2, 3, 4, 5].map(|from| admission.admit(address(from), now).unwrap());
        let later = now + SECOND + Duration::from_millis(1);
        slow[4].handshaken();
        let _sixth = admission.admit(address(6), later).expect("there is room");
        let refused = admission.admit(address(7), later).unwrap_err();
        assert_eq!(refused, NotAdmitted::Full { max: 6 });
        assert!(block_on(poll_once(slow[0].evicted())).is_none());
    }

    #[test]
    fn a_handshake_that_takes_too_long_makes_room() {
        let (admission, now) = (small(), Instant::now());
        let slow = admission.admit(address(1), now).unwrap();
        let later = now + SECOND + Duration::from_millis(1);
        let quick: Vec<_> = (2..6)
            .map(|from| admission.admit(address(from), later).unwrap())
            .collect();
        let evicted = |peer: &Admitted| block_on(poll_once(peer.evicted())).is_some();
        assert!(!evicted(&slow));
        let newest = admission.admit(address(6), later).expect("there is room");
        assert!(evicted(&slow) && !quick.iter().any(evicted) && !evicted(&newest));
        drop(slow);
        let refused = admission.admit(address(7), later).unwrap_err();
        assert_eq!(refused, NotAdmitted::Handshakes { max: 5 });
    }

    #[test]
    fn who_misbehaves_is_refused_for_twice_as_long_each_time() {
        let (admission, mut now) = (small(), Instant::now());
        for seconds in [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300] {
            let admitted = finished(&admission, 1, now).expect("the time is over");
            admitted.misbehaved(now);
            drop(admitted);
            let wait = seconds * SECOND;
            let refused = admission.admit(address(1), now).unwrap_err();
            assert_eq!(refused, NotAdmitted::BackOff { wait });
            finished(&admission, 2, now).expect("others are not refused");
            now += wait;
        }
        now += 300 * SECOND;
        finished(&admission, 1, now).unwrap().misbehaved(now);
        let wait = SECOND;
        let refused = admission.admit(address(1), now).unwrap_err();
        assert_eq!(
            refused,
            NotAdmitted::BackOff { wait },
            "it behaved for long enough"
        );
    }

    #[test]
    fn networks_of_ipv6_count_as_one_address_and_this_machine_not_at_all() {
        let (admission, now) = (small(), Instant::now());
        let admit = |from: &str| {
            let admitted = admission.admit(from.parse().unwrap(), now)?;
            admitted.handshaken();
            Ok::<_, NotAdmitted>(admitted)
        };
        let _peers = [1, 2, 3, 4].map(|host| admit(&format!("2001:db8::{host}")).unwrap());
        let full = NotAdmitted::AddressFull { max: 4 };
        assert_eq!(admit("2001:db8::5").unwrap_err(), full);
        drop(_peers);
        for local in ["127.0.0.1", "::1", "::ffff:127.0.0.1"] {
            let peers = [(); 6].map(|()| admit(local).expect("no address counts here"));
            assert_eq!(admit(local).unwrap_err(), NotAdmitted::Full { max: 6 });
            peers[0].misbehaved(now);
        }
        let _peers = [(); 4].map(|()| admit("::ffff:192.0.2.1").unwrap());
        assert_eq!(admit("192.0.2.1").unwrap_err(), full, "the same address");
    }

    #[test]
    fn what_is_remembered_of_addresses_is_bounded() {
        let (admission, now) = (small(), Instant::now());
        for host in 0..MAX_ADDRESSES as u32 + 100 {
            let from = Ipv4Addr::from_bits(0x0a00_0000 + host).into();
            admission.admit(from, now).unwrap().misbehaved(now);
        }
        let remembered = admission.lock().addresses.len();
        assert!(
            (MAX_ADDRESSES..MAX_ADDRESSES + 8).contains(&remembered),
            "{remembered}"
        );
    }
}
