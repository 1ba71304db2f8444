//! Much of everything: what it costs grows with it, and no faster.
//!
//! These measure time, on machines that may be busy with other things: that of the thread where the
//! system tells it. What they would catch is a cost that grows with the square.

use std::{sync::Arc, time::Duration};
#[cfg(not(unix))]
use std::{sync::LazyLock, time::Instant};

use hypercore_merkle::{Block, KeyPair, Node, NodeIndex, Proof};
use hypercore_storage::{FileName, Memory, testing::Recording};
use hypercore_wire::{Have, Message, Status, Unhave};
#[cfg(unix)]
use rustix::time::{ClockId, clock_gettime};

use super::{
    EQUAL_BLOCKS, World, connect_cores, good_conditions, open, open_on, remote::core_with,
};
use crate::{
    GetOptions, Hypercore, PeerId, Role, core::Core, runtime, runtime::simulated::Runtime,
};

/// The time this thread has run, if the system tells it, or else any time that passes.
///
/// Not what `/proc` says, which is counted in ticks of some milliseconds.
#[cfg(unix)]
fn clock() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.try_into()
        .expect("it has run for no less than nothing")
}

#[cfg(not(unix))]
fn clock() -> Duration {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    START.elapsed()
}

/// Asserts that `work` costs no more than four times as much for each of many as for each of few.
///
/// The same number is done both times, at once and a few at a time, so that both take long enough
/// to be told from what the clock leaves out. One of a few tries has to hold: what else the machine
/// does makes a try look bad, but a cost that grows with the square looks bad in all of them.
#[track_caller]
fn check_growth(few: u64, many: u64, work: impl Fn(u64) -> Duration) {
    const TRIES: usize = 5;
    let mut tries = Vec::new();
    while tries.len() < TRIES {
        let by_few: Duration = (0..many / few).map(|_| work(few)).sum();
        let at_once = work(many);
        if at_once < by_few * 4 {
            return;
        }
        tries.push((by_few, at_once));
    }
    panic!("{many}, {few} at a time and at once: {tries:?}");
}

/// Asks for so many blocks at once, before or after they are written.
fn get_blocks(count: u64, ahead_of_the_writer: bool) -> Duration {
    Runtime::run(count, |runtime| {
        let mut world = World::new(runtime, EQUAL_BLOCKS + 100);
        if !ahead_of_the_writer {
            world.append(count);
        }
        let node = world.add_node(None, true);
        world.link_live([node, 0]);
        runtime.run_for(Duration::from_secs(1));
        let start = clock();
        for index in 0..count {
            world.get(node, index, GetOptions::default());
        }
        while world.length < count {
            world.append(1);
            runtime.run_for(Duration::from_millis(20));
        }
        world.settle();
        clock() - start
    })
}

#[test]
fn many_blocks_that_are_waited_for() {
    check_growth(200, 4000, |count| get_blocks(count, false));
}

#[test]
fn many_blocks_that_are_waited_for_before_they_are_written() {
    check_growth(100, 2000, |count| get_blocks(count, true));
}

/// The blocks are the same, however many peers share the work.
#[test]
fn many_peers() {
    let download = |peers| {
        Runtime::run(peers, |runtime| {
            let mut world = World::new(runtime, EQUAL_BLOCKS + 100);
            world.append(2000);
            let node = world.add_node(None, false);
            let start = clock();
            for _ in 0..peers {
                world.link_live([node, 0]);
            }
            world.settle();
            clock() - start
        })
    };
    check_growth(10, 200, download);
}

/// Opens so many cores on one connection, and has one block of each come over it.
fn share_cores(count: u64) -> Duration {
    Runtime::run(count, |runtime| {
        let mut originals = Vec::new();
        for number in 0..count {
            let mut seed = [0; 32];
            seed[..8].copy_from_slice(&number.to_le_bytes());
            originals.push(core_with(runtime, seed, ["block"]));
        }
        runtime.run_for(Duration::from_secs(1));
        let copies = originals
            .iter()
            .map(|core| open(&Memory::new(), core.key(), None, false));
        let copies: Vec<_> = copies.collect();

        let start = clock();
        let sides = [
            (Role::Initiator, &copies[..]),
            (Role::Responder, &originals[..]),
        ];
        let _cable = connect_cores(runtime, sides, good_conditions());
        let limit = runtime.now() + Duration::from_secs(60);
        let done = runtime.run_until(limit, || copies.iter().all(|core| core.has(0)));
        assert!(done, "not all blocks come");
        clock() - start
    })
}

/// As many as a connection carries by default.
#[test]
fn many_cores_on_one_connection() {
    check_growth(50, 1000, share_cores);
}

/// A node with as many peers that have nothing, and the first of them.
fn with_peers(runtime: &Runtime, peers: usize) -> (World, Hypercore, PeerId) {
    let mut world = World::new(runtime, 0);
    let node = world.add_node(None, true);
    for _ in 0..peers {
        let other = world.add_node(None, true);
        world.link_live([node, other]);
    }
    runtime.run_for(Duration::from_secs(1));
    let core = world.nodes[node].core.clone();
    let first = core.peers()[0].id;
    (world, core, first)
}

/// Has a core take in what a peer says, many times, before anything is said to the peer.
fn hear(core: &Hypercore, peer: PeerId, messages: &[Message], times: usize) {
    let mut core = core.shared().lock();
    let Core {
        log, replicator, ..
    } = &mut *core;
    let now = runtime::now();
    for message in (0..times).flat_map(|_| messages) {
        let heard = replicator.on_message(peer, message, log, now);
        heard.expect("it may say so");
    }
}

/// Each time all of them were asked for, and given up.
#[test]
fn blocks_that_are_there_and_not_there() {
    Runtime::run(0, |runtime| {
        let (mut world, core, peer) = with_peers(runtime, 1);
        for index in 0..31 {
            world.get(1, index, GetOptions::default());
        }
        runtime.run_for(Duration::from_secs(1));
        let (start, length) = (0, 31);
        let have = Message::Have(Have {
            length,
            ..Have::block(start)
        });
        let unhave = Message::Unhave(Unhave { start, length });
        hear(&core, peer, &[have.clone(), unhave], 10_000);
        let requests = |core: &Hypercore| {
            let mut core = core.shared().lock();
            core.replicator
                .peer(peer)
                .expect("it is there")
                .outbox
                .len()
        };
        assert!(requests(&core) < 2000, "{} requests", requests(&core));
        hear(&core, peer, &[have], 1);
        core.shared().lock().replicator.wake_all();
        runtime.run_for(Duration::from_millis(1));
        assert_eq!(core.peers()[0].asked.len(), 31);
    });
}

/// Each of them woke all other peers, and a peer may say them as often as it likes.
#[test]
fn a_peer_that_says_much_of_what_it_does() {
    let status = |uploading| {
        Message::Status(Status {
            uploading,
            downloading: true,
        })
    };
    let has = Message::Have(Have::block(7));
    let has_not = Message::Unhave(Unhave {
        start: 7,
        length: 1,
    });
    for messages in [
        [status(true), status(true)],
        [status(false), status(true)],
        [has, has_not],
    ] {
        Runtime::run(0, |runtime| {
            let (_world, core, peer) = with_peers(runtime, 5);
            let woken = |core: &Hypercore| {
                let mut core = core.shared().lock();
                let others = core.replicator.peers_mut().filter(|it| it.id != peer);
                others.filter(|other| other.take_woken()).count()
            };
            assert_eq!(woken(&core), 0, "they have nothing to do");
            for message in messages {
                hear(&core, peer, std::slice::from_ref(&message), 1);
                assert_eq!(woken(&core), 0, "{message:?}");
            }
        });
    }
}

/// Each was compared with all that others were asked for, whenever anything was stored.
#[test]
fn peers_that_have_nothing_of_what_others_were_asked_for() {
    let time = |asked| {
        Runtime::run(0, |runtime| {
            let (mut world, core, first) = with_peers(runtime, 200);
            world.download(1, 0..500);
            runtime.run_for(Duration::from_secs(1));
            let mut core = core.shared().lock();
            let Core {
                log, replicator, ..
            } = &mut *core;
            let now = runtime::now();
            for index in 0..asked {
                let peer = replicator.peer(first).expect("it is there");
                let stamp = peer.request_block(index, log, now);
                replicator.asked.insert(index, first, stamp);
            }
            let others: Vec<_> = replicator.peers().map(|peer| peer.id).collect();
            let start = clock();
            for _ in 0..10 {
                for &id in others.iter().filter(|&&id| id != first) {
                    replicator.ask(id, log, now);
                }
            }
            clock() - start
        })
    };
    let mut seen = Vec::new();
    let is_fast = (0..5).any(|_| {
        let (none, many) = (time(0), time(500));
        seen.push((none, many));
        many < none * 4
    });
    assert!(is_fast, "{seen:?}");
}

/// Each of the nodes that came with it was looked up, and all above it.
#[test]
fn a_false_proof_has_few_of_our_nodes_read() {
    Runtime::run(0, |runtime| {
        let key_pair = KeyPair::from_seed(&[1; 32]);
        let key = key_pair.public_key();
        let storage = Memory::new();
        let core = open(&storage, key, Some(key_pair), false);
        let append = core.clone();
        runtime.spawn(async move {
            let blocks = vec!["block"; 1 << 13];
            append.append_batch(blocks).await.expect("memory holds it");
            append.close().await.expect("memory holds it");
        });
        runtime.run_for(Duration::from_secs(1));
        drop(core);
        let storage = Recording::new(storage);
        let core = open_on(Arc::new(storage.clone()), key, None, false);
        let node = |number: u64| Node {
            index: NodeIndex::leaf(64 * number).expect("it may exist"),
            size: 5,
            hash: [0; 32],
        };
        let proof = Proof {
            nodes: (1..=100).map(node).collect(),
            signature: None,
        };
        let reads = || -> u64 {
            FileName::ALL
                .map(|file| storage.take(file).reads)
                .iter()
                .sum()
        };
        reads();
        let block = Block::hash("false".into());
        let checked = core.shared().lock().log.check(0, Some(block), &proof);
        assert!(checked.is_err_and(|error| error.is_peer_fault()));
        let reads = reads();
        assert!((1..64).contains(&reads), "{reads} reads");
    });
}

/// Of every four blocks two are here, and a peer has them, too. It tells of one after the other that is not here
/// that it has it, and that it does not.
fn hear_of_single_blocks(count: u64, everything: bool) -> Duration {
    Runtime::run(count, |runtime| {
        let core = core_with(runtime, [1; 32], (0..4 * count).map(|_| "block"));
        runtime.run_for(Duration::from_secs(1));
        let clear = core.clone();
        runtime.spawn(async move {
            for number in 0..count {
                let blocks = 4 * number + 2..4 * number + 4;
                clear.clear(blocks).await.expect("memory holds it");
            }
        });
        let limit = runtime.now() + Duration::from_secs(10_000);
        let is_cleared = || core.downloaded(0..4 * count) == 2 * count;
        assert!(runtime.run_until(limit, is_cleared));
        let other = open(&Memory::new(), core.key(), None, true);
        let sides = [(Role::Initiator, &core), (Role::Responder, &other)];
        let sides = sides.map(|(role, core)| (role, std::slice::from_ref(core)));
        let _cable = connect_cores(runtime, sides, good_conditions());
        if !everything {
            let core = core.clone();
            let blocks = (0..4 * count).filter(|block| block % 4 != 3);
            runtime.spawn(async move {
                let _ = core.download_blocks(blocks).await;
            });
        }
        runtime.run_for(Duration::from_secs(1));
        let id = core.peers()[0].id;
        let mut core = core.shared().lock();
        let Core {
            log, replicator, ..
        } = &mut *core;
        let now = runtime::now();
        replicator.demand.everything = everything;
        let peer = replicator.peer(id).expect("it is there");
        peer.set_status(true, true);
        for number in 0..count {
            let blocks = 4 * number..4 * number + 2;
            peer.set_remote(blocks, true).expect("there is memory");
        }
        replicator.ask(id, log, now);
        let start = clock();
        for number in 0..count {
            let block = 4 * number + 2;
            let (start, length) = (block, 1);
            let have = Message::Have(Have::block(block));
            let unhave = Message::Unhave(Unhave { start, length });
            let heard = replicator.on_message(id, &have, log, now);
            heard.expect("it may say so");
            for _ in 0..2 {
                replicator.ask(id, log, now);
                let peer = replicator.peer(id).expect("it is there");
                assert!(peer.is_asked_for_block(block), "{number}");
            }
            let heard = replicator.on_message(id, &unhave, log, now);
            heard.expect("it may say so");
        }
        clock() - start
    })
}

/// Each time all was looked through from that block on.
#[test]
fn many_blocks_that_a_peer_tells_of_one_by_one() {
    for everything in [false, true] {
        check_growth(100, 2000, |count| hear_of_single_blocks(count, everything));
    }
}
