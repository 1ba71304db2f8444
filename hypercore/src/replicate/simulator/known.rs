//! What schedules have found, each as a case of its own.

use std::{cell::Cell, rc::Rc, sync::Arc, time::Duration};

use futures_lite::{AsyncReadExt, AsyncWriteExt, future};
use hypercore_merkle::KeyPair;
use hypercore_storage::{
    FileName, Memory, Storage,
    testing::{Fault, FaultStorage},
};
use hypercore_wire::Message;

use super::{
    Disk, EQUAL_BLOCKS, World, connect_cores, good_conditions,
    network::{Cable, Conditions},
    open, open_log, open_on, plain,
    remote::{Remote, core_with, finish, origin},
    schedules,
};
use crate::{
    Durability, Ended, Error, GetOptions, Hypercore, Replication, Role, SeekOptions,
    replicate::load::OUR_QUESTIONS,
    runtime::simulated::{self, Runtime},
    shared::Shared,
};

/// Without this a failing seed could not be looked at again.
#[test]
fn a_seed_gives_the_same_run_every_time() {
    let run = |seed| {
        Runtime::run(seed, |runtime| {
            schedules::live(runtime, seed);
            (runtime.elapsed(), runtime.polls())
        })
    };
    assert_eq!(run(3), run(3));
    assert_ne!(run(3), run(4));
}

/// The remote refused, once, to look for a byte that it did not have yet, and was then silent
/// because it took the next question for a repeated one.
#[test]
fn a_byte_at_the_end_of_a_log_that_then_grows() {
    for more in [0, 20] {
        Runtime::run(more, |runtime| {
            let mut world = World::new(runtime, more);
            let node = world.add_node(None, true);
            world.append(20);
            world.link_live([node, 0]);
            runtime.run_for(Duration::from_secs(1));
            let end = world.nodes[0].core.byte_length();
            world.seek(node, end, SeekOptions::default());
            runtime.run_for(Duration::from_millis(100 * (more % 2)));
            world.append(more);
            world.settle();
            world.check();
        });
    }
}

/// Peers took it for the block that comes next. They asked for that, and waited until they had to give
/// up the connection.
#[test]
fn nothing_is_appended() {
    Runtime::run(1, |runtime| {
        let mut world = World::new(runtime, 1);
        let node = world.add_node(None, false);
        world.append(3);
        world.link_live([node, 0]);
        world.settle();
        world.append(0);
        runtime.run_for(Duration::from_secs(60));
        world.check();
    });
}

/// Its end was read again and again, as fast as the processor could, while our answers waited for
/// it to read them.
#[test]
fn a_remote_that_ends_without_reading() {
    Runtime::run(0, |runtime| {
        let mut world = World::new(runtime, 0);
        let node = world.add_node(None, false);
        world.append(400);
        let mut conditions = [good_conditions(); 2];
        conditions[1].buffer = 1 << 12;
        conditions[1].bytes_per_second = 100_000;
        let link = world.connect([node, 0], [plain(true), plain(true)], conditions);
        runtime.run_for(Duration::from_millis(600));
        world.links[link].cable.freeze_half(1);
        runtime.run_for(Duration::from_millis(300));
        let [sent, came] = [0, node].map(|node| world.nodes[node].core.stats());
        assert!(
            sent.uploaded_bytes - came.downloaded_bytes > 1 << 12,
            "the answers do not fill the buffer"
        );
        world.hang_up(link, 0);
        runtime.run_for(Duration::from_secs(60));
        let result = world.links[link].results[1].take();
        assert!(matches!(result, Some(Err(Error::Wire(_)))), "{result:?}");
        assert!(world.nodes[0].core.peers().is_empty());
    });
}

/// Others on the connection had taken all the room for questions when somebody asked for a block, and
/// nobody came back to it when there was room again.
#[test]
fn a_block_that_is_asked_for_while_others_take_all_the_room() {
    Runtime::run(0, |runtime| {
        let mut originals = Vec::new();
        for number in 0..8 {
            let blocks = (0..3_000u32).map(|index| index.to_le_bytes().to_vec());
            originals.push(core_with(runtime, [number; 32], blocks));
        }
        runtime.run_for(Duration::from_secs(1));
        let mut copies = Vec::new();
        for (number, core) in originals.iter().enumerate() {
            copies.push(open(&Memory::new(), core.key(), None, number == 0));
        }
        let sides = [
            (Role::Initiator, &copies[..]),
            (Role::Responder, &originals[..]),
        ];
        let _cable = connect_cores(runtime, sides, good_conditions());
        let busy = &copies[1..];
        let asked = || -> usize {
            let peers = busy.iter().flat_map(Hypercore::peers);
            peers.map(|peer| peer.in_flight).sum()
        };
        while asked() < OUR_QUESTIONS {
            assert!(busy.iter().any(|core| core.downloaded(..) < 3_000));
            runtime.run_for(Duration::from_millis(1));
        }
        let got = Rc::new(Cell::new(false));
        let (quiet, done) = (copies[0].clone(), Rc::clone(&got));
        runtime.spawn(async move {
            quiet.get(7).await.expect("it is there");
            done.set(true);
        });
        runtime.run_for(Duration::from_secs(60));
        assert!(got.get());
    });
}

/// Endless streams are the oldest complaint of the field.
#[test]
fn a_stream_ends_when_both_are_done() {
    Runtime::run(0, |runtime| {
        let mut world = World::new(runtime, 0);
        world.append(100);
        runtime.run_for(Duration::from_secs(1));
        for clones in 1..4 {
            let node = world.add_node(None, false);
            for source in [0, node - 1] {
                let options = [plain(false), plain(false)];
                world.connect([node, source], options, [good_conditions(); 2]);
            }
            runtime.run_for(Duration::from_secs(5));
            assert_eq!(world.nodes.len(), clones + 1);
            assert!(world.is_content(node));
        }
        for link in &world.links {
            let ends = link
                .results
                .each_ref()
                .map(|result| result.borrow_mut().take());
            let complete = |end: &Option<_>| matches!(end, Some(Ok(Ended::Complete)));
            assert!(ends.iter().all(complete), "{:?}: {ends:?}", link.ends);
        }
    });
}

#[test]
fn two_sparse_peers_with_nothing_to_do_are_quiet_until_one_of_them_leaves() {
    Runtime::run(0, |runtime| {
        let mut world = World::new(runtime, 0);
        let nodes = [world.add_node(None, true), world.add_node(None, true)];
        let mut options = [plain(false), plain(false)];
        for options in &mut options {
            options.timeout = None;
        }
        let link = world.connect(nodes, options, [good_conditions(); 2]);
        // Until the alarm for one that does not open the core has rung for nothing.
        runtime.run_for(Duration::from_secs(15));
        let polls = runtime.polls();
        runtime.run_for(Duration::from_secs(600));
        assert_eq!(runtime.polls(), polls, "somebody does something");
        world.hang_up(link, 0);
        runtime.run_for(Duration::from_secs(1));
        let end = world.links[link].results[1].borrow_mut().take();
        assert!(matches!(end, Some(Ok(Ended::RemoteClosed))), "{end:?}");
    });
}

#[test]
fn a_range_that_is_here_is_downloaded_without_peers() {
    Runtime::run(0, |runtime| {
        let mut world = World::new(runtime, 0);
        let node = world.add_node(None, true);
        world.append(50);
        let link = world.link_live([node, 0]);
        world.download(node, 10..30);
        world.settle();
        world.hang_up(link, 0);
        runtime.run_for(Duration::from_secs(1));
        assert!(world.nodes[node].core.peers().is_empty());
        world.download(node, 10..30);
        world.download(node, 15..15);
        runtime.run_for(Duration::from_secs(1));
        assert!(world.is_content(node));
        world.download(node, 10..31);
        runtime.run_for(Duration::from_secs(1));
        assert!(!world.is_content(node));
    });
}

/// The connection that the block came on fails, and the block comes on another.
#[test]
fn a_block_whose_write_failed_is_requested_again() {
    for operation in [0, 3, 10, 25, 60] {
        Runtime::run(operation, |runtime| {
            let mut world = World::new(runtime, operation);
            world.append(1000);
            let node = world.add_node(None, false);
            let storage = FaultStorage::new();
            let core = open_on(Arc::new(storage.clone()), world.key, None, false);
            world.nodes[node].core = core.clone();
            let links = [0, 1].map(|_| world.link_live([node, 0]));
            let limit = runtime.now() + Duration::from_secs(10);
            runtime.run_until(limit, || core.downloaded(..) > 5);
            storage.fail_at(operation, Fault::Full);
            world.settle();
            let failed = links.map(|link| world.links[link].results[0].borrow_mut().take());
            let failed: Vec<_> = failed.into_iter().flatten().collect();
            assert!(matches!(failed[..], [Err(Error::Storage(_))]), "{failed:?}");
            links.iter().for_each(|&link| world.links[link].lost());
            world.check();
        });
    }
}

#[test]
fn what_a_peer_that_leaves_was_asked_for_comes_from_the_others() {
    for after in [50, 100, 200, 400] {
        Runtime::run(after, |runtime| {
            let mut world = World::new(runtime, after);
            world.append(500);
            let node = world.add_node(None, false);
            let leaves = world.link_live([node, 0]);
            let slow = Conditions {
                bytes_per_second: 200_000,
                ..good_conditions()
            };
            world.connect([node, 0], [plain(true), plain(true)], [slow; 2]);
            runtime.run_for(Duration::from_millis(after));
            world.hang_up(leaves, 1);
            world.settle();
            world.check();
        });
    }
}

/// The remote speaks of more blocks than anybody will ever write. They are waited for, and
/// everything that exists comes all the same.
#[test]
fn a_have_far_beyond_what_exists() {
    Runtime::run(0, |runtime| {
        let mut world = World::new(runtime, 0);
        world.append(50);
        let node = world.add_node(None, false);
        world.connect_liar(node, [good_conditions(); 2]);
        world.get(
            node,
            1 << 40,
            GetOptions {
                timeout: Some(Duration::from_secs(10)),
                ..GetOptions::default()
            },
        );
        runtime.run_for(Duration::from_secs(1));
        world.link_live([node, 0]);
        world.settle();
        world.check();
    });
}

/// It waits for blocks that the writer has not written and has not spoken of.
#[test]
fn a_reader_ahead_of_the_announcement_of_the_writer() {
    Runtime::run(0, |runtime| {
        let mut world = World::new(runtime, 0);
        let node = world.add_node(None, true);
        world.link_live([node, 0]);
        for index in [3, 0, 7, 7, 2] {
            world.get(node, index, GetOptions::default());
        }
        world.download(node, 4..9);
        runtime.run_for(Duration::from_secs(30));
        for _ in 0..9 {
            world.append(1);
            runtime.run_for(Duration::from_millis(700));
        }
        let start = runtime.now();
        world.settle();
        assert!(runtime.now() - start < Duration::from_secs(1));
        world.check();
    });
}

/// A peer heard that the blocks were not there, and then that they were: it asked for them, one after
/// the other.
#[test]
fn what_is_cleared_before_peers_know_of_it() {
    const LENGTH: u64 = 3000;
    const CLEARED: u64 = 2990;
    Runtime::run(0, |runtime| {
        let key_pair = KeyPair::from_seed(&[1; 32]);
        let key = key_pair.public_key();
        let log = open_log(Arc::new(Disk(Memory::new())), key, Some(key_pair));
        let shared = Shared::new(log, false, false, Durability::OnClose);
        let writer = Hypercore::from_shared(shared);
        let copy = open(&Memory::new(), key, None, false);
        let sides = [
            (Role::Initiator, std::slice::from_ref(&writer)),
            (Role::Responder, std::slice::from_ref(&copy)),
        ];
        let _cable = connect_cores(runtime, sides, good_conditions());
        runtime.run_for(Duration::from_secs(1));
        let mut remote = Remote::new(&writer);
        let ours = writer.replicate(Role::Initiator, plain(true));
        let mut ours = ours.expect("it is open");
        finish(runtime, async move {
            remote.open(&mut ours).await;
            remote.want(0..1);
            remote.write(&mut ours).await;
            remote.read(&mut ours).await;
            remote.heard.clear();
            let blocks = (0..LENGTH).map(|_| "block");
            writer.append_batch(blocks).await.expect("memory holds it");
            writer.clear(..CLEARED).await.expect("memory holds it");
            remote.read(&mut ours).await;
            let told = remote.heard.iter().filter_map(|message| match message {
                Message::Have(have) => Some((true, have.start, have.length)),
                Message::Unhave(unhave) => Some((false, unhave.start, unhave.length)),
                _ => None,
            });
            let told: Vec<_> = told.collect();
            let expected = [(false, 0, CLEARED), (true, CLEARED, LENGTH - CLEARED)];
            assert_eq!(told, expected);
            simulated::sleep(Duration::from_secs(2)).await;
            assert!(copy.has(LENGTH - 1), "{:?}", copy.progress(..));
            writer.close().await.expect("memory holds it");
        });
    });
}

/// Two connections between the same two nodes, of which either may be lost.
#[test]
fn a_peer_that_opens_the_core_twice() {
    for lost in [0, 1] {
        Runtime::run(lost, |runtime| {
            let mut world = World::new(runtime, lost);
            let node = world.add_node(None, false);
            world.append(300);
            let links = [0, 1].map(|_| world.link_live([node, 0]));
            runtime.run_for(Duration::from_millis(150));
            world.cut(links[lost as usize]);
            world.settle();
            world.append(10);
            world.settle();
            world.check();
        });
    }
}

/// More than 64 in a second were not refused, and who had asked for them waited for the answers until
/// it took the remote for dead.
#[test]
fn a_peer_with_many_damaged_blocks() {
    const DAMAGED: u64 = 1000;
    Runtime::run(0, |runtime| {
        let mut world = World::new(runtime, EQUAL_BLOCKS + 10);
        world.append(2 * DAMAGED);
        runtime.run_for(Duration::from_secs(1));
        let data = world.nodes[0]
            .storage
            .open(FileName::Data)
            .expect("it is there");
        // All bytes of a block are the same.
        let garbage: Vec<_> = (0..10 * DAMAGED).map(|byte| byte as u8).collect();
        data.write_at(0, &garbage).expect("memory holds it");
        let node = world.add_node(None, false);
        let link = world.link_live([node, 0]);
        runtime.run_for(Duration::from_secs(40));
        let result = world.links[link].results[0].take();
        assert!(result.is_none(), "{result:?}");
        assert_eq!(world.nodes[node].core.downloaded(..), DAMAGED);
    });
}

/// It was closed for sending blocks nobody asked for: it had dropped them while our requests were on
/// their way, and had them again when those arrived.
#[test]
fn a_peer_that_drops_blocks_and_has_them_again_before_it_is_asked() {
    Runtime::run(0, |runtime| {
        let mut world = World::new(runtime, 0);
        world.append(40);
        let relay = world.add_node(None, false);
        world.link_live([relay, 0]);
        let node = world.add_node(None, true);
        let far = Conditions {
            delay: Duration::from_millis(800),
            ..good_conditions()
        };
        world.connect([node, relay], [plain(true), plain(true)], [far; 2]);
        runtime.run_for(Duration::from_secs(10));
        for index in 0..30 {
            world.get(node, index, GetOptions::default());
        }
        runtime.run_for(Duration::from_millis(100));
        let core = world.nodes[relay].core.clone();
        runtime.spawn(async move {
            core.clear(0..40).await.expect("memory holds it");
        });
        world.settle();
        runtime.run_for(Duration::from_secs(10));
        world.check();
    });
}

/// It was told that a block is here, asked for it again, and then came the answer to its first request,
/// which had waited for its turn to be refused: it did not wait for the block any more.
#[test]
fn a_block_that_comes_before_its_refusal() {
    Runtime::run(0, |runtime| {
        let core = origin(runtime, 1, 0);
        let mut remote = Remote::new(&core);
        let ours = core.replicate(Role::Initiator, plain(true));
        let mut ours = ours.expect("it is open");
        finish(runtime, async move {
            remote.open(&mut ours).await;
            remote.request(0..100);
            remote.write(&mut ours).await;
            remote.read(&mut ours).await;
            let is_refused = |message: &Message| matches!(message, Message::Unhave(_));
            let refused = remote.heard.iter().filter(|message| is_refused(message));
            assert_eq!(refused.count(), 64);
            core.append_batch(vec!["block"; 100])
                .await
                .expect("memory holds it");
            remote.heard.clear();
            for _ in 0..100 {
                simulated::sleep(Duration::from_millis(50)).await;
                remote.read(&mut ours).await;
            }
            assert!(!remote.heard.iter().any(is_refused), "{:?}", remote.heard);
            let sent = |message: &&Message| matches!(message, Message::Data(_));
            assert_eq!(remote.heard.iter().filter(sent).count(), 36);
        });
    });
}

/// The time at which it would have been closed had come, and was polled in a busy loop.
#[test]
fn a_core_that_is_added_while_the_last_one_closes() {
    Runtime::run(0, |runtime| {
        let cores = [1, 2].map(|number| origin(runtime, number, 1));
        let copies = cores
            .each_ref()
            .map(|core| open(&Memory::new(), core.key(), None, false));
        let far = Conditions {
            delay: Duration::from_millis(200),
            ..good_conditions()
        };
        let (_cable, sockets) = Cable::new(runtime, [far; 2]);
        let mut handles = Vec::new();
        for ((role, cores), socket) in [(Role::Initiator, &cores), (Role::Responder, &copies)]
            .into_iter()
            .zip(sockets)
        {
            let replication = Replication::new(role, plain(true)).expect("there is randomness");
            replication.add(&cores[0]).expect("it is open");
            handles.push(replication.handle());
            runtime.spawn(async move {
                replication.run(socket).await.expect("an honest connection");
            });
        }
        runtime.run_for(Duration::from_secs(5));
        assert!(copies[0].has(0));
        handles[1].add(&copies[1]).expect("it is open");
        let first = cores[0].clone();
        runtime.spawn(async move { first.close().await.expect("memory holds it") });
        runtime.run_for(Duration::from_millis(100));
        handles[0].add(&cores[1]).expect("the connection is open");
        // Without a livelock, which the runtime does not bear.
        runtime.run_for(Duration::from_secs(60));
        assert!(copies[1].has(0));
        assert_eq!(cores[1].peers().len(), 1);
    });
}

/// Each stopped reading while so much of it waited to be sent, and they waited for each other until one
/// took the other for dead.
#[test]
fn long_blocks_both_ways() {
    const LONG: usize = 15 << 19;
    Runtime::run(0, |runtime| {
        let origins = [1, 2].map(|number| {
            let core = origin(runtime, number, 0);
            let append = core.clone();
            runtime.spawn(async move {
                let blocks = (0..4).map(|_| vec![number; LONG]);
                append.append_batch(blocks).await.expect("memory holds it");
            });
            core
        });
        runtime.run_for(Duration::from_secs(1));
        let copies = origins
            .each_ref()
            .map(|core| open(&Memory::new(), core.key(), None, false));
        let roles = [Role::Initiator, Role::Responder];
        let mut ends = [0, 1].map(|end: usize| {
            let replication = Replication::new(roles[end], plain(true));
            let replication = replication.expect("there is randomness");
            replication.add(&origins[end]).expect("it is open");
            replication.add(&copies[1 - end]).expect("it is open");
            replication
        });
        finish(runtime, async move {
            // Little is on the way, and both are equally far.
            let mut on_the_way = [Vec::new(), Vec::new()];
            while copies.iter().any(|core| core.downloaded(..) < 4) {
                let mut moved = false;
                for (end, bytes) in ends.iter_mut().zip(&mut on_the_way) {
                    if bytes.is_empty() {
                        let mut buffer = vec![0; 1 << 16];
                        if let Some(count) = future::poll_once(end.read(&mut buffer)).await {
                            buffer.truncate(count.expect("an honest connection"));
                            *bytes = buffer;
                            moved = true;
                        }
                    }
                }
                for (end, bytes) in ends.iter_mut().rev().zip(&mut on_the_way) {
                    if !bytes.is_empty()
                        && let Some(count) = future::poll_once(end.write(bytes)).await
                    {
                        bytes.drain(..count.expect("an honest connection"));
                        moved = true;
                    }
                }
                if !moved {
                    simulated::sleep(Duration::from_millis(10)).await;
                }
            }
        });
    });
}
