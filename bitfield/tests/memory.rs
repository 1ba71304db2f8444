//! What a peer can make us hold, as the allocator sees it. A binary of its own, because every
//! allocation of the process counts.

use std::{
    alloc::System,
    sync::{Mutex, PoisonError},
    time::Instant,
};

use hypercore_bitfield::{Error, RemoteBitfield, rle};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// One test at a time.
static ALONE: Mutex<()> = Mutex::new(());

const LIMIT: usize = 4 << 20;
const WINDOW: usize = 131_072;
const MAX: u64 = 1 << 52;

type Message<'a> = &'a dyn Fn(&mut RemoteBitfield, u64) -> Result<(), Error>;

/// The worst that was found, 20,000 messages of each.
#[test]
fn no_flood_takes_more_than_the_limit_or_more_than_a_second() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let noise: Vec<u8> = (0..WINDOW).map(|n| (n * 77 % 255) as u8 | 1).collect();
    let (noise, alternating) = (rle::encode(&noise), rle::encode(&[0x55; 4096]));
    let scattered = |n: u64| n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 12;
    let floods: [(&str, Message<'_>); 7] = [
        ("ranges of nearly everything", &|remote, n| {
            remote.set_range(n..MAX - n, n % 3 != 0)
        }),
        ("single blocks far apart", &|remote, n| {
            remote.set_range(scattered(n)..scattered(n) + 1, true)
        }),
        ("single blocks side by side", &|remote, n| {
            remote.set_range(2 * n..2 * n + 1, true)
        }),
        ("holes far apart", &|remote, n| match n {
            0 => remote.set_range(0..MAX, true),
            n => remote.set_range(scattered(n)..scattered(n) + 1, false),
        }),
        ("windows of noise", &|remote, n| {
            let start = n % 40 * (1 << 20);
            remote.apply_rle(start, &noise, WINDOW).map(drop)
        }),
        ("windows of every other block", &|remote, n| {
            let start = scattered(n) / (1 << 16) * (1 << 16);
            remote.apply_rle(start, &alternating, WINDOW).map(drop)
        }),
        ("runs of 2^48 bytes", &|remote, n| {
            let bomb = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x03];
            match remote.apply_rle(8 * n, &bomb, WINDOW) {
                Err(Error::TooLong { .. }) => Ok(()),
                result => panic!("{result:?}"),
            }
        }),
    ];
    for (name, message) in floods {
        let region = Region::new(ALLOCATOR);
        let mut remote = RemoteBitfield::new(LIMIT);
        let (began, mut refused, mut peak) = (Instant::now(), 0, 0);
        for n in 0..20_000 {
            match message(&mut remote, n) {
                Ok(()) => {}
                Err(Error::MemoryLimit { limit: LIMIT }) => refused += 1,
                Err(error) => panic!("{name}: {error}"),
            }
            let change = region.change();
            peak = peak.max(change.bytes_allocated - change.bytes_deallocated);
            // A connection ends with the first refusal; here it may go on for a while.
            if refused > 100 {
                break;
            }
        }
        let took = began.elapsed();
        println!("{name}: {peak} bytes at most, {refused} refused, {took:.1?}");
        assert!(peak <= LIMIT, "{name}: {peak} bytes");
        assert!(took.as_secs_f64() < 1.0, "{name}: {took:?}");
    }
}

/// An encoder makes one literal of them; nobody has to.
#[test]
fn a_literal_of_each_byte_costs_no_allocation_each() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    for piece in [&[0x02, 0x55][..], &[0x02, 0x55, 0x05], &[0x02, 0x55, 0x07]] {
        let count = WINDOW / (piece.len() - 1);
        let encoded = piece.repeat(count);
        let mut remote = RemoteBitfield::new(LIMIT);
        // The second time there are bits already.
        for round in 0..2 {
            let region = Region::new(ALLOCATOR);
            let began = Instant::now();
            remote
                .apply_rle(0, &encoded, WINDOW)
                .expect("it is not long");
            let (took, change) = (began.elapsed(), region.change());
            let allocations = change.allocations + change.reallocations;
            println!("{piece:02x?}, {round}: {allocations} allocations, {took:.1?}");
            // One for each chunk of 4096 blocks, and the nodes of the map.
            assert!(allocations < 512, "{allocations}");
        }
    }
}
