//! What a peer can do to the bits we keep of it.

use hypercore_bitfield::{Error, RemoteBitfield, rle};
use std::time::{Duration, Instant};

const LIMIT: usize = 4 << 20;
const WINDOW: usize = 131_072;
const MAX: u64 = 1 << 52;

/// Sends 20,000 messages; they may be refused, but cost neither memory nor time.
fn flood(mut message: impl FnMut(&mut RemoteBitfield, u64) -> Result<(), Error>) -> RemoteBitfield {
    let mut remote = RemoteBitfield::new(LIMIT);
    let began = Instant::now();
    let mut refused = 0;
    for n in 0..20_000 {
        match message(&mut remote, n) {
            Ok(()) => {}
            Err(Error::MemoryLimit { limit: LIMIT }) => refused += 1,
            Err(error) => panic!("{error}"),
        }
        assert!(remote.memory() <= LIMIT);
    }
    assert!(
        began.elapsed() < Duration::from_secs(1),
        "{:?}, {refused} refused",
        began.elapsed()
    );
    remote
}

#[test]
fn huge_ranges() {
    let remote = flood(|remote, n| remote.set_range(n..MAX - n, n % 3 != 0));
    assert!(remote.memory() < 4096 + 600 * 10);
    assert_eq!((remote.bound(), remote.next_clear(1)), (MAX - 1, 3));
}

#[test]
fn alternating_pages_far_apart() {
    flood(|remote, n| remote.set_range(n << 30..(n << 30) + (4096 << (n % 9)), true));
}

#[test]
fn scattered_single_bits_hit_the_limit() {
    let remote = flood(|remote, n| {
        let at = n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 12;
        remote.set_range(at..at + 1, true)
    });
    assert!(
        (6_000..8_000).contains(&remote.count(0..MAX)),
        "{}",
        remote.count(0..MAX)
    );
    assert_eq!(
        RemoteBitfield::new(100).set_range(0..1, true),
        Err(Error::MemoryLimit { limit: 100 })
    );
}

#[test]
fn bombs_are_refused_before_they_expand() {
    let bomb = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x0f];
    let remote = flood(|remote, n| {
        assert_eq!(
            remote.apply_rle(8 * n, &bomb, WINDOW),
            Err(Error::TooLong { max: WINDOW })
        );
        Ok(())
    });
    assert!(remote.is_empty());
}

#[test]
fn a_run_of_any_length_costs_the_same() {
    // The largest run there is: 2^51 - 1 bytes, 2^54 - 8 bits.
    let mut remote = RemoteBitfield::new(LIMIT);
    let bomb = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x0f];
    assert_eq!(
        remote.apply_rle(0, &bomb, usize::MAX),
        Err(Error::OutOfBounds { start: 0 })
    );
    // As many bytes as a number can count, which no multiple of four follows.
    let all = [bomb.repeat(8192), vec![0xff, 0xff, 0x01]].concat();
    assert_eq!(rle::decoded_len(&all, usize::MAX), Ok(usize::MAX));
    assert_eq!(
        remote.apply_rle(0, &all, usize::MAX),
        Err(Error::OutOfBounds { start: 0 })
    );
    let most = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x03];
    assert_eq!(remote.apply_rle(0, &most, usize::MAX), Ok(MAX));
    assert_eq!(
        (remote.count(0..MAX), remote.next_clear(0)),
        (MAX - 8, MAX - 8),
        "completed with zeros"
    );
    assert!(remote.memory() < 2000);
    remote.clear();
    assert_eq!((remote.memory(), remote.bound()), (0, 0));
}

#[test]
fn windows_of_noise() {
    let noise: Vec<u8> = (0..WINDOW as u32)
        .map(|n| (n.wrapping_mul(0x9e37_79b9) >> 24) as u8 & 0x7e | 1)
        .collect();
    let encoded = rle::encode(&noise);
    let mut remote = RemoteBitfield::new(LIMIT);
    let mut accepted = 0;
    while remote.apply_rle(accepted << 20, &encoded, WINDOW).is_ok() {
        accepted += 1;
    }
    assert_eq!(accepted, 27, "4 MiB keep 28 million bits in the worst case");
    assert!(remote.memory() <= LIMIT);
    remote.set_range(0..1, true).unwrap_err();
}

#[test]
fn refused_before_anything_changes() {
    let mut remote = RemoteBitfield::new(LIMIT);
    remote.set_range(0..100, true).unwrap();
    let before = remote.clone();
    let check = |expected: Error, refused: Result<(), Error>| assert_eq!(refused, Err(expected));
    check(
        Error::OutOfBounds { start: MAX - 1 },
        remote.set_range(MAX - 1..MAX + 1, true),
    );
    check(
        Error::Unaligned { start: 4 },
        remote.apply_rle(4, &[0x05], 1).map(drop),
    );
    check(
        Error::OutOfBounds { start: MAX - 8 },
        remote.apply_rle(MAX - 8, &[0x07], 1).map(drop),
    );
    check(
        Error::OutOfBounds {
            start: u64::MAX - 7,
        },
        remote.apply_rle(u64::MAX - 7, &[0x07], 1).map(drop),
    );
    check(
        Error::TooLong { max: 1 },
        remote.apply_rle(0, &[0x05, 0x05], 1).map(drop),
    );
    check(
        Error::TruncatedLiteral {
            offset: 2,
            length: 1,
            available: 0,
        },
        remote.apply_rle(0, &[0x05, 0x02], 9).map(drop),
    );
    assert_eq!(remote, before);
}
