//! What connections cost in memory, as the allocator sees it. A binary of its own, because every
//! allocation of the process counts.

use std::{
    alloc::System,
    sync::{Mutex, PoisonError},
    time::Instant,
};

use hypercore_wire::{Role, Session, SessionOptions, StaticKeyPair};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// One test at a time.
static ALONE: Mutex<()> = Mutex::new(());

const COUNT: usize = 200;

/// Bytes that each of many sessions takes, on the heap and in itself.
fn each(act: impl Fn(&mut Session, Instant)) -> usize {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let now = Instant::now();
    let mut sessions = Vec::with_capacity(COUNT);
    let region = Region::new(ALLOCATOR);
    for _ in 0..COUNT {
        let key_pair = StaticKeyPair::from_seed(&[1; 32]);
        let options = SessionOptions::with_keys(Role::Responder, key_pair, [2; 24]);
        let mut session = Session::new(options, now).expect("randomness");
        act(&mut session, now);
        sessions.push(session);
    }
    let change = region.change();
    let kept = change.bytes_allocated - change.bytes_deallocated;
    kept / COUNT + size_of::<Session>()
}

#[test]
fn an_unfinished_handshake_takes_less_than_four_kibibytes() {
    let now = Instant::now();
    let options =
        SessionOptions::with_keys(Role::Initiator, StaticKeyPair::from_seed(&[3; 32]), [4; 24]);
    let first = Session::new(options, now).expect("randomness");
    let first = first.outgoing().to_vec();
    assert_eq!(first.len(), 59);

    let silent = each(|session, _| _ = session.receive_buffer());
    let begun = each(|session, now| session.receive(now, &first[..58]).expect("half of it"));
    let answered = each(|session, now| session.receive(now, &first).expect("honest"));
    let longest = each(|session, now| {
        session
            .receive(now, &[0x80, 0x04])
            .expect("512 bytes are allowed");
        session.receive(now, &[7; 511]).expect("one is missing");
    });
    println!("silent {silent}, begun {begun}, answered {answered}, longest {longest} bytes");
    for taken in [silent, begun, answered, longest] {
        assert!((1024..4096).contains(&taken), "{taken}");
    }
}
