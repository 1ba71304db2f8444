//! Peers that announce cores on the local network, and others that look for them.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use async_io::Timer;
use futures_lite::{
    StreamExt,
    future::{self, block_on},
};
use hypercore::{
    KeyPair,
    discovery::{Addresses, Discovery, Mdns},
};

/// Found is what is found so fast; the promise is two seconds.
const SOON: Duration = Duration::from_secs(2);

async fn next(addresses: &mut Addresses, limit: Duration) -> Option<SocketAddr> {
    let late = async {
        Timer::after(limit).await;
        None
    };
    future::or(addresses.next(), late).await
}

fn discovery_key(seed: u8) -> hypercore::DiscoveryKey {
    // Of nobody else who runs these tests on this network.
    let mut bytes = [seed; 32];
    bytes[..4].copy_from_slice(&std::process::id().to_be_bytes());
    KeyPair::from_seed(&bytes).public_key().discovery_key()
}

fn any(port: u16) -> SocketAddr {
    SocketAddr::from(([0, 0, 0, 0], port))
}

#[test]
fn a_peer_is_found_whoever_comes_first() {
    let (there, here) = (Mdns::new().unwrap(), Mdns::new().unwrap());
    let core = discovery_key(1);
    let _first = there.announce(&core, any(4001)).unwrap();
    block_on(async {
        // Beyond the repetitions of the announcement: only a question finds it now.
        Timer::after(Duration::from_millis(2500)).await;
        let start = Instant::now();
        let mut found = here.lookup(&core).unwrap();
        let address = next(&mut found, SOON).await.expect("it was there before");
        assert_eq!(address.port(), 4001, "after {:?}", start.elapsed());
        let _second = there.announce(&core, any(4002)).unwrap();
        let address = next(&mut found, SOON).await.expect("it comes later");
        assert_eq!(address.port(), 4002);
    });
}

#[test]
fn two_cores_are_not_mixed_up() {
    let (there, here) = (Mdns::new().unwrap(), Mdns::new().unwrap());
    let (one, two) = (discovery_key(2), discovery_key(3));
    block_on(async {
        let (mut ones, mut twos) = (here.lookup(&one).unwrap(), here.lookup(&two).unwrap());
        let _two = there.announce(&two, any(4003)).unwrap();
        assert_eq!(next(&mut twos, SOON).await.unwrap().port(), 4003);
        let _one = there.announce(&one, any(4004)).unwrap();
        assert_eq!(next(&mut ones, SOON).await.unwrap().port(), 4004);
        assert_eq!(next(&mut twos, Duration::from_millis(300)).await, None);
    });
}

#[test]
fn a_peer_that_leaves_and_returns_is_found_again() {
    let (there, here) = (Mdns::new().unwrap(), Mdns::new().unwrap());
    let core = discovery_key(4);
    block_on(async {
        let mut found = here.lookup(&core).unwrap();
        let announcement = there.announce(&core, any(4005)).unwrap();
        assert_eq!(next(&mut found, SOON).await.unwrap().port(), 4005);
        drop(announcement);
        // The last words themselves are heard for a second (RFC 6762, 10.1).
        Timer::after(Duration::from_millis(1200)).await;
        let mut late = Mdns::new().unwrap().lookup(&core).unwrap();
        assert_eq!(next(&mut late, Duration::from_millis(1500)).await, None);
        let _again = there.announce(&core, any(4006)).unwrap();
        assert_eq!(next(&mut found, SOON).await.unwrap().port(), 4006);
        // Who asks later is told what is known.
        let mut known = here.lookup(&core).unwrap();
        assert_eq!(next(&mut known, SOON).await.unwrap().port(), 4006);
    });
}

#[test]
fn one_address_is_announced_alone() {
    let (there, here) = (Mdns::new().unwrap(), Mdns::new().unwrap());
    let core = discovery_key(5);
    let address = SocketAddr::from(([127, 0, 0, 1], 4007));
    let _kept = there.announce(&core, address).unwrap();
    block_on(async {
        let mut found = here.lookup(&core).unwrap();
        assert_eq!(next(&mut found, SOON).await, Some(address));
    });
}
