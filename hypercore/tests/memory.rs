//! No secret stays in the memory of the process when what had it is gone.
//!
//! A program of its own, in which nothing else runs: it looks for the secrets in everything that
//! the system says it can write to, stacks of all threads included. It knows them only in a disguise,
//! so that it does not find itself.
#![cfg(target_os = "linux")]

use std::{
    fs::File,
    hint::black_box,
    io::Read,
    os::unix::fs::FileExt,
    sync::{Mutex, PoisonError},
    time::Instant,
};

use futures_lite::future::block_on;
use hypercore::{
    Hypercore, KeyPair, OpenOptions, ReplicateOptions, Role,
    wire::{Session, SessionOptions, Split, StaticKeyPair},
};

/// One test at a time: the secrets of another are there while it runs.
static ALONE: Mutex<()> = Mutex::new(());

const DISGUISE: u8 = 0xa5;

/// The seed of a pair, the clamped scalar and the other half of its SHA-512 (RFC 8032, the first
/// test), each byte disguised.
const SEED: [u8; 32] =
    disguised("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60");
const SCALAR: [u8; 32] =
    disguised("307c83864f2833cb427a2ef1c00a013cfdff2768d980c0a3a520f006904de94f");
const PREFIX: [u8; 32] =
    disguised("9b4f0afe280b746a778684e75442502057b7473a03f08f96f5a38e9287e01f8f");

const OF_SEED: [[u8; 32]; 3] = [SEED, SCALAR, PREFIX];

/// The secrets of a connection of Node (`wire/tests/vectors/handshake.json`): the static and the
/// ephemeral keys of both sides, the keys of both ways that come out of the handshake, and what
/// these are derived from, the last chaining key (computed from those of the sides).
const STATIC: [[u8; 32]; 2] = [
    disguised("f539c08ce920dab416e0631c137288cdb28291f40fdf0fe2ebeef659fd1f0c41"),
    disguised("23dad177568ae212362e43c6d0c4b74b59c1014093a38c5edbe7cab62060d966"),
];
const EPHEMERAL: [[u8; 32]; 2] = [
    disguised("ffd3a74654c228f142ef915ea6a3c92d03c3a96bf15051a1ac931c986918fe37"),
    disguised("7831279da32579c22248dfbf8b3de65b7e26eaf77b99423be079cabca1a54f6d"),
];
const WAYS: [[u8; 32]; 2] = [
    disguised("8926ba68b2845b0a11de1fb5987fbb8d6297a9f80a9f52f19894fe396059aee9"),
    disguised("679878003d43515dcf207413a2427be83d1d6139311266a06836e27650bceedd"),
];
const CHAINING: [[u8; 32]; 2] = [
    disguised("22a83e5d29e7bfaf7a6a44d24b04947e43156f2ed5ab2a5aea029b7026cd8acb"),
    disguised("cdead37ae5069479b8614e2e1cee12df5cc72e0361be9e3252e247250a1d3d60"),
];

const fn disguised(digits: &str) -> [u8; 32] {
    const fn value(digit: u8) -> u8 {
        match digit {
            b'0'..=b'9' => digit - b'0',
            _ => digit - b'a' + 10,
        }
    }
    let digits = digits.as_bytes();
    let mut bytes = [0; 32];
    let mut at = 0;
    while at < 32 {
        bytes[at] = (value(digits[2 * at]) << 4 | value(digits[2 * at + 1])) ^ DISGUISE;
        at += 1;
    }
    bytes
}

/// A secret as it is, wiped when it is dropped.
struct Secret(Box<[u8; 32]>);

impl Secret {
    fn new(disguised: &[u8; 32]) -> Self {
        let mut secret = Box::new([0; 32]);
        for (byte, disguised) in secret.iter_mut().zip(black_box(disguised)) {
            *byte = disguised ^ DISGUISE;
        }
        Self(secret)
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        self.0.fill(0);
        black_box(&self.0);
    }
}

/// Where eight bytes in sequence of a secret are.
fn search(secrets: &[[u8; 32]]) -> Vec<String> {
    let windows = secrets.iter().map(|secret| secret.windows(8));
    let mut starts_with = [const { Vec::<&[u8]>::new() }; 256];
    for window in windows.flatten() {
        starts_with[usize::from(window[0] ^ DISGUISE)].push(window);
    }
    let mut found = Vec::new();
    let memory = File::open("/proc/self/mem").unwrap();
    let mut maps = String::new();
    File::open("/proc/self/maps")
        .unwrap()
        .read_to_string(&mut maps)
        .unwrap();
    let mut buffer = vec![0; 1 << 16];
    for map in maps.lines() {
        let mut words = map.split_whitespace();
        let (range, rights) = (words.next().unwrap(), words.next().unwrap());
        let name = words.nth(3).unwrap_or("anonymous memory");
        if !rights.starts_with("rw") {
            continue;
        }
        let (start, end) = range.split_once('-').unwrap();
        let [start, end] = [start, end].map(|address| u64::from_str_radix(address, 16).unwrap());
        let mut at = start;
        while at < end {
            let wanted = (end - at).min(buffer.len() as u64) as usize;
            // What cannot be read, as the page that guards a stack, holds nothing.
            if memory.read_exact_at(&mut buffer[..wanted], at).is_ok() {
                let read = &buffer[..wanted];
                for (offset, &first) in read.iter().enumerate() {
                    let is_here = |window: &&[u8]| {
                        let here = read[offset..].iter().map(|byte| byte ^ DISGUISE);
                        read.len() - offset >= 8 && window.iter().copied().eq(here.take(8))
                    };
                    if starts_with[usize::from(first)].iter().any(is_here) {
                        found.push(format!("{:x} in {name}", at + offset as u64));
                    }
                }
            }
            buffer.fill(0);
            // Seven bytes again: a window may lie across the border.
            at += if wanted == buffer.len() {
                wanted as u64 - 7
            } else {
                wanted as u64
            };
        }
    }
    found
}

/// Nothing is found after what `hold` made of the seed is gone, though it was found before.
fn leaves_nothing<T>(what: &str, hold: impl FnOnce(&[u8; 32]) -> T) {
    let held = with_seed(hold);
    assert!(
        !search(&OF_SEED).is_empty(),
        "{what} does not have the secret"
    );
    drop(held);
    overwrite_stack();
    assert_eq!(search(&OF_SEED), [""; 0], "of {what}");
}

/// In a part of the stack of its own, which is [overwritten](overwrite_stack).
#[inline(never)]
fn with_seed<T>(hold: impl FnOnce(&[u8; 32]) -> T) -> T {
    hold(&Secret::new(&SEED).0)
}

/// Does what any next calls do. A function that hands a secret on may leave a copy in the part of
/// the stack that it had, which nobody can wipe without `unsafe`; and what is built there next may
/// take that along in bytes that it does not use.
#[inline(never)]
fn overwrite_stack() {
    black_box(&mut [0_u8; 1 << 16]);
}

/// A key pair that was made by calls that are over.
#[inline(never)]
fn key_pair(seed: &[u8; 32]) -> KeyPair {
    let pair = KeyPair::from_seed(seed);
    overwrite_stack();
    pair
}

#[inline(never)]
fn static_key_pair(seed: &[u8; 32]) -> StaticKeyPair {
    let pair = StaticKeyPair::from_secret(seed);
    overwrite_stack();
    pair
}

#[test]
fn no_secret_stays() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    assert_eq!(search(&OF_SEED), [""; 0], "before there was a secret");
    let seed = Secret::new(&SEED);
    assert!(
        !search(&OF_SEED).is_empty(),
        "a secret is found while it is there"
    );
    drop(seed);
    assert_eq!(search(&OF_SEED), [""; 0], "the seed itself is wiped");

    leaves_nothing("KeyPair::from_seed", KeyPair::from_seed);
    leaves_nothing("KeyPair::to_bytes", |seed| {
        KeyPair::from_seed(seed).to_bytes()
    });
    leaves_nothing("KeyPair::from_bytes", |seed| {
        KeyPair::from_bytes(&KeyPair::from_seed(seed).to_bytes()).unwrap()
    });
    leaves_nothing("StaticKeyPair", StaticKeyPair::from_secret);
    leaves_nothing("StaticKeyPair::duplicate", |seed| {
        StaticKeyPair::from_secret(seed).duplicate()
    });
    leaves_nothing("OpenOptions", |seed| {
        OpenOptions::new().key_pair(key_pair(seed))
    });
    leaves_nothing("a core in memory", |seed| {
        block_on(async {
            let core = OpenOptions::new()
                .key_pair(key_pair(seed))
                .open_memory()
                .await
                .unwrap();
            core.append("a").await.unwrap();
            core
        })
    });
    let directory = tempfile::tempdir().unwrap();
    leaves_nothing("a new core on the disk", |seed| {
        block_on(async {
            let core = OpenOptions::new()
                .key_pair(key_pair(seed))
                .open(&directory)
                .await
                .unwrap();
            core.append("a").await.unwrap();
            core
        })
    });
    leaves_nothing("a core on the disk", |_| {
        block_on(async {
            let core = Hypercore::open(&directory).await.unwrap();
            core.append("a").await.unwrap();
            core
        })
    });
    leaves_nothing("Split", |seed| Split::new(*seed, *seed));
    leaves_nothing("a connection", |seed| {
        block_on(async {
            let core = Hypercore::options().open_memory().await.unwrap();
            let mut options = ReplicateOptions::live();
            options.key_pair = Some(static_key_pair(seed));
            core.replicate(Role::Initiator, options).unwrap()
        })
    });
}

/// The two sides of that connection, until the handshake is over.
#[inline(never)]
fn connected() -> [Session; 2] {
    let now = Instant::now();
    let mut sides = [0, 1].map(|side| {
        let (secret, ephemeral) = (Secret::new(&STATIC[side]), Secret::new(&EPHEMERAL[side]));
        let key_pair = StaticKeyPair::from_secret(&secret.0);
        let nonce = [[0xa1; 24], [0xb2; 24]][side];
        let role = [Role::Initiator, Role::Responder][side];
        let options = SessionOptions::with_keys(role, key_pair, nonce);
        Session::with_fixed_ephemeral_for_testing_only(options, now, &ephemeral.0).unwrap()
    });
    for side in [0, 1, 0] {
        let message = sides[side].outgoing().to_vec();
        sides[side].sent(now, message.len());
        sides[1 - side].receive(now, &message).unwrap();
    }
    assert!(sides.iter().all(|side| side.handshake_hash().is_some()));
    sides
}

#[test]
fn no_secret_of_a_connection_stays() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let secrets: Vec<_> = [STATIC, EPHEMERAL, WAYS, CHAINING].concat();
    assert_eq!(search(&secrets), [""; 0], "before there was a connection");
    let sides = connected();
    for way in WAYS {
        assert!(
            !search(&[way]).is_empty(),
            "the sides do not have their keys"
        );
    }
    drop(sides);
    overwrite_stack();
    assert_eq!(search(&secrets), [""; 0]);
}
