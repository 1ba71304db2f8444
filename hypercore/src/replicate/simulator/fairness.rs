//! What the cores of one connection have of it.

use std::time::Duration;

use hypercore_storage::Memory;

use super::{
    connect_cores, good_conditions,
    network::Conditions,
    open, plain,
    remote::{Remote, core_with, finish, origin},
};
use crate::{Replication, Role, runtime::simulated::Runtime};

/// How many blocks of each of the cores have come after a while, of so many of `size` bytes.
fn shares(cores: u8, blocks: usize, size: usize, conditions: Conditions) -> Vec<u64> {
    Runtime::run(0, |runtime| {
        let mut originals = Vec::new();
        for number in 0..cores {
            let blocks = (0..blocks).map(move |_| vec![number; size]);
            originals.push(core_with(runtime, [number; 32], blocks));
        }
        runtime.run_for(Duration::from_secs(1));
        let copies = originals
            .iter()
            .map(|core| open(&Memory::new(), core.key(), None, false));
        let copies: Vec<_> = copies.collect();
        let sides = [
            (Role::Initiator, &copies[..]),
            (Role::Responder, &originals[..]),
        ];
        let _cable = connect_cores(runtime, sides, conditions);
        runtime.run_for(Duration::from_secs(30));
        let shares: Vec<_> = copies.iter().map(|core| core.downloaded(..)).collect();
        let unfinished = shares.iter().all(|&share| share < blocks as u64);
        assert!(
            unfinished,
            "they are done before anything shows: {shares:?}"
        );
        shares
    })
}

#[track_caller]
fn check_fair(shares: &[u64]) {
    let least = shares.iter().min().expect("there are cores");
    let most = shares.iter().max().expect("there are cores");
    assert!(least * 3 > *most, "{shares:?}");
}

/// The first was answered whenever the remote had taken something, and the other not until it had all.
#[test]
fn cores_that_wait_for_a_slow_remote_are_answered_in_turn() {
    const BLOCKS: u64 = 60;
    Runtime::run(0, |runtime| {
        let cores = [1, 2].map(|number| origin(runtime, number, BLOCKS as usize));
        let mut remote = Remote::new(&cores[0]);
        let ours = Replication::new(Role::Initiator, plain(true));
        let mut ours = ours.expect("there is randomness");
        finish(runtime, async move {
            for core in &cores {
                ours.add(core).expect("it is open");
            }
            let other = remote.session.open(cores[1].key().as_bytes());
            let other = other.expect("there is room");
            remote.open(&mut ours).await;
            remote.request(0..BLOCKS);
            let first = std::mem::replace(&mut remote.channel, other);
            remote.request(0..BLOCKS);
            remote.write(&mut ours).await;
            // How many blocks more of the first have come.
            let (mut ahead, mut most) = (0i64, 0);
            for _ in 0..2 * BLOCKS {
                let more = remote.next_block(&mut ours).await == first;
                ahead += if more { 1 } else { -1 };
                most = most.max(ahead.abs());
            }
            assert!(most < 10, "one is {most} blocks ahead");
            drop(ours);
        });
    });
}

/// The first had all places for questions that became free.
#[test]
fn cores_that_wait_for_room_for_questions_ask_in_turn() {
    let conditions = Conditions {
        delay: Duration::from_millis(500),
        ..good_conditions()
    };
    check_fair(&shares(6, 20_000, 10, conditions));
}
