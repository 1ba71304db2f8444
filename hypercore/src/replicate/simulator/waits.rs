//! What a core says of what it waits for, and of how far it is.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    time::Duration,
};

use futures_lite::{AsyncReadExt, future};
use hypercore_merkle::KeyPair;
use hypercore_storage::Memory;
use hypercore_wire::{Event, Have, Message, Unhave};

use super::{
    EQUAL_BLOCKS, World, good_conditions,
    network::{Cable, Conditions},
    open, plain,
    remote::Remote,
};
use crate::{
    Error, GetOptions, Goal, Hypercore, Progress, Role, SeekOptions, UpdateOptions, WaitsOn,
    runtime::simulated::{self, Runtime},
};

const MOMENT: Duration = Duration::from_secs(1);

/// On what each request waits, in the order of [`Hypercore::waiting`].
fn waits_on(core: &Hypercore) -> Vec<WaitsOn> {
    core.waiting()
        .into_iter()
        .map(|waiting| waiting.on)
        .collect()
}

/// Asks a node for a block, a greater length, a byte and a range.
fn ask_for_everything(world: &mut World, node: usize) {
    let core = world.nodes[node].core.clone();
    world.get(node, 3, GetOptions::default());
    world.update(node, UpdateOptions::default());
    world.seek(node, core.byte_length() + 1, SeekOptions::default());
    world.download(node, 2..9);
    world.runtime.run_for(MOMENT);
    let goals: Vec<_> = core
        .waiting()
        .into_iter()
        .map(|waiting| waiting.goal)
        .collect();
    let expected = [
        Goal::Block { index: 3 },
        Goal::Length {
            min_length: core.length() + 1,
        },
        Goal::Byte {
            offset: core.byte_length() + 1,
        },
        Goal::Blocks {
            blocks: 2..9,
            missing: 2,
        },
    ];
    assert_eq!(goals, expected);
}

#[test]
fn every_request_says_on_what_it_waits() {
    Runtime::run(0, |runtime| {
        let mut world = World::new(runtime, 0);
        let node = world.add_node(None, true);
        let core = world.nodes[node].core.clone();
        ask_for_everything(&mut world, node);
        assert_eq!(waits_on(&core), vec![WaitsOn::NoPeer; 4]);

        // Somebody who has nothing; until its first word has come nobody knows that.
        let other = world.add_node(None, true);
        let far = Conditions {
            delay: MOMENT,
            ..good_conditions()
        };
        world.connect([node, other], [plain(true), plain(true)], [far; 2]);
        assert_eq!(waits_on(&core), vec![WaitsOn::Hearing; 4]);
        runtime.run_for(10 * MOMENT);
        assert_eq!(waits_on(&core), vec![WaitsOn::Nobody; 4]);

        // Somebody who has all of it, and whose answers take a while.
        world.append(10);
        let before = runtime.now();
        world.connect([node, 0], [plain(true), plain(true)], [far; 2]);
        let is_asked = |on: &WaitsOn| match on {
            WaitsOn::Answers(asked) => {
                let [asked] = &asked[..] else { return false };
                asked.peer == core.peers()[1].id && (before..=runtime.now()).contains(&asked.since)
            }
            _ => false,
        };
        let limit = before + 20 * MOMENT;
        let asked = runtime.run_until(limit, || waits_on(&core).iter().all(is_asked));
        assert!(asked, "{:?}", core.waiting());
        runtime.run_for(20 * MOMENT);
        assert_eq!(core.waiting(), []);
        world.check();
    });
}

/// Who has the wrong key is told nothing, and the connection stays. Requests that are not to wait
/// waited for ever.
#[test]
fn one_that_does_not_open_the_core_does_not_have_it() {
    Runtime::run(0, |runtime| {
        let mut world = World::new(runtime, 0);
        let node = world.add_node(None, true);
        let other = world.add_node(None, true);
        let key_pair = KeyPair::from_seed(&[9; 32]);
        let key = key_pair.public_key();
        world.nodes[other].core = open(&Memory::new(), key, Some(key_pair), true);
        world.link_live([node, other]);
        let core = world.nodes[node].core.clone();
        let failed = Rc::new(RefCell::new(Vec::new()));
        let now = || GetOptions {
            if_available: true,
            ..GetOptions::default()
        };
        let (asking, failures) = (core.clone(), Rc::clone(&failed));
        runtime.spawn(async move {
            let error = asking.get_with(3, now()).await.expect_err("nobody has it");
            failures.borrow_mut().push(error.to_string());
            let error = asking.get_with(4, now()).await.expect_err("nobody has it");
            failures.borrow_mut().push(error.to_string());
        });
        world.get(node, 5, GetOptions::default());
        runtime.run_for(5 * MOMENT);
        assert_eq!(waits_on(&core), vec![WaitsOn::Hearing; 2]);
        runtime.run_for(6 * MOMENT);
        assert_eq!(*failed.borrow(), vec![Error::NotAvailable.to_string(); 2]);
        assert_eq!(waits_on(&core), [WaitsOn::Nobody]);
        // Somebody else has it.
        world.append(10);
        world.link_live([node, 0]);
        runtime.run_for(MOMENT);
        assert_eq!(core.waiting(), []);
    });
}

#[test]
fn what_waits_for_its_turn_says_so() {
    Runtime::run(0, |runtime| {
        let mut world = World::new(runtime, EQUAL_BLOCKS + 1000);
        world.append(1000);
        let node = world.add_node(None, true);
        let link = world.link_live([node, 0]);
        runtime.run_for(MOMENT);
        world.links[link].cable.freeze();
        for index in (0..100).rev() {
            world.get(node, index, GetOptions::default());
            runtime.run_for(Duration::from_micros(1));
        }
        let waits = waits_on(&world.nodes[node].core);
        let turn = waits.iter().filter(|&on| *on == WaitsOn::Turn).count();
        let asked = waits
            .iter()
            .filter(|on| matches!(on, WaitsOn::Answers(_)))
            .count();
        assert_eq!(turn + asked, 100, "{waits:?}");
        assert!(turn > 0 && asked > 0, "{turn}, {asked}");
        let mut in_order = waits.iter().rev();
        let first: Vec<_> = in_order.by_ref().take(asked).collect();
        assert!(
            first.iter().all(|&on| *on != WaitsOn::Turn),
            "first come, first served"
        );
        world.links[link].cable.thaw();
        world.settle();
        assert_eq!(world.nodes[node].core.waiting(), []);
    });
}

#[test]
fn progress_goes_forward_and_tells_what_is_missing() {
    Runtime::run(0, |runtime| {
        let mut world = World::new(runtime, EQUAL_BLOCKS + 1000);
        world.append(500);
        let half = world.add_node(None, true);
        world.link_live([half, 0]);
        world.download(half, 100..350);
        world.download(half, 360..370);
        world.settle();

        let node = world.add_node(None, false);
        let core = world.nodes[node].core.clone();
        assert_eq!(core.progress(..), Progress::default());
        let slow = Conditions {
            bytes_per_second: 100_000,
            ..good_conditions()
        };
        world.connect([node, half], [plain(true), plain(true)], [slow; 2]);
        let mut last = core.progress(..);
        let mut steps = 0;
        for _ in 0..500 {
            runtime.run_for(Duration::from_millis(20));
            let next = core.progress(..);
            assert!(next.downloaded >= last.downloaded && next.length >= last.length);
            assert_eq!(core.stats().downloaded_bytes, 1000 * next.downloaded);
            steps += usize::from(next != last);
            last = next;
        }
        assert!(steps > 20, "{steps} steps");
        assert_eq!(last.downloaded, 260);
        assert_eq!(last.length, core.length());
        assert!(!last.is_complete());
        let end = core.length();
        assert_eq!(last.missing, [0..100, 350..360, 370..end]);
        assert_eq!(core.progress(100..350).missing, []);
        assert_eq!(
            core.progress(340..355).to_string(),
            "5 blocks of 15 are missing: 350..355"
        );
    });
}

/// Those that were still to be asked for waited for ever.
#[test]
fn what_is_of_two_histories_is_not_available() {
    Runtime::run(0, |runtime| {
        let key = || KeyPair::from_seed(&[1; 32]);
        let writers = [1, 2].map(|history| {
            let core = open(&Memory::new(), key().public_key(), Some(key()), false);
            let append = core.clone();
            runtime.spawn(async move {
                let blocks = (0..600).map(|_| vec![history; 1 << 14]);
                append.append_batch(blocks).await.expect("memory holds it");
            });
            core
        });
        runtime.run_for(MOMENT);
        let copy = open(&Memory::new(), key().public_key(), None, true);
        let slow = Conditions {
            bytes_per_second: 100_000,
            ..good_conditions()
        };
        let connect = |writer: &Hypercore| {
            let (cable, sockets) = Cable::new(runtime, [slow; 2]);
            let sides = [(&copy, Role::Initiator), (writer, Role::Responder)];
            for ((core, role), socket) in sides.into_iter().zip(sockets) {
                let replication = core.replicate(role, plain(true)).expect("it is open");
                runtime.spawn(async move {
                    let _ = replication.run(socket).await;
                });
            }
            cable
        };
        let _first = connect(&writers[0]);
        runtime.run_for(MOMENT);
        let waiting = Rc::new(Cell::new(0_usize));
        for index in 0..600 {
            let (copy, waiting) = (copy.clone(), Rc::clone(&waiting));
            waiting.set(waiting.get() + 1);
            runtime.spawn(async move {
                let options = GetOptions::default().if_available(true);
                let _ = copy.get_with(index, options).await;
                waiting.set(waiting.get() - 1);
            });
        }
        runtime.run_for(2 * MOMENT);
        assert!(copy.downloaded(..) > 0 && waiting.get() > 500);
        let _second = connect(&writers[1]);
        runtime.run_until(runtime.now() + 10 * MOMENT, || copy.fork_proof().is_some());
        runtime.run_for(MOMENT / 10);
        let asked: usize = copy.peers().iter().map(|peer| peer.asked.len()).sum();
        assert!(
            copy.fork_proof().is_some() && waiting.get() <= asked,
            "{} {asked}",
            waiting.get()
        );
    });
}

/// Nobody was asked any more, and nobody told whoever waited.
#[test]
fn a_byte_that_is_given_up_after_downloading_was_stopped() {
    Runtime::run(0, |runtime| {
        let key = KeyPair::from_seed(&[1; 32]).public_key();
        let core = open(&Memory::new(), key, None, true);
        let ours = core.replicate(Role::Initiator, plain(true));
        let mut ours = ours.expect("it is open");
        let mut remote = Remote::new(&core);
        runtime.spawn(async move {
            remote.open(&mut ours).await;
            // Of all that was asked about, but nothing else that it is asked.
            remote.say(&Message::Have(Have {
                start: 0,
                length: 1 << 20,
                bitfield: Some(hypercore_bitfield::rle::encode(&[0xff; 1 << 17]).into()),
                ack: false,
            }));
            loop {
                remote.write(&mut ours).await;
                remote.read(&mut ours).await;
                simulated::sleep(MOMENT).await;
                let now = crate::runtime::now();
                remote.session.handle_timeout(now).expect("it is heard");
            }
        });
        let ended = Rc::new(RefCell::new(None));
        let (seeking, end) = (core.clone(), Rc::clone(&ended));
        runtime.run_for(2 * MOMENT);
        runtime.spawn(async move {
            let options = SeekOptions::default().if_available(true);
            *end.borrow_mut() = Some(seeking.seek_with(5, options).await);
        });
        runtime.run_for(2 * MOMENT);
        assert_eq!(core.peers()[0].in_flight, 1, "it is asked for");
        core.set_downloading(false);
        runtime.run_for(2 * MOMENT);
        assert!(ended.borrow().is_none());
        runtime.run_for(25 * MOMENT);
        let ended = ended.borrow_mut().take();
        assert!(matches!(ended, Some(Err(Error::NotAvailable))), "{ended:?}");
        assert_eq!(core.peers().len(), 1);
    });
}

/// What waited for its answer waited for ever.
#[test]
fn one_that_does_not_answer_what_it_has_is_closed() {
    Runtime::run(0, |runtime| {
        let key = KeyPair::from_seed(&[1; 32]).public_key();
        let core = open(&Memory::new(), key, None, true);
        let ours = core.replicate(Role::Initiator, plain(true));
        let mut ours = ours.expect("it is open");
        let mut remote = Remote::new(&core);
        runtime.spawn(async move {
            remote.open(&mut ours).await;
            remote.say(&Message::Have(Have::block(5)));
            // Until it is closed.
            loop {
                remote.write(&mut ours).await;
                let mut buffer = vec![0; 1 << 12];
                while let Some(read) = future::poll_once(ours.read(&mut buffer)).await {
                    let Ok(count) = read else { return };
                    let received = remote
                        .session
                        .receive(crate::runtime::now(), &buffer[..count]);
                    received.expect("it is honest");
                }
                simulated::sleep(MOMENT).await;
                let now = crate::runtime::now();
                remote.session.handle_timeout(now).expect("it is heard");
            }
        });
        let ended = Rc::new(RefCell::new(None));
        let (getting, end) = (core.clone(), Rc::clone(&ended));
        runtime.spawn(async move {
            let options = GetOptions::default().if_available(true);
            *end.borrow_mut() = Some(getting.get_with(3, options).await);
        });
        runtime.run_for(15 * MOMENT);
        assert!(ended.borrow().is_none() && core.peers().len() == 1);
        runtime.run_for(15 * MOMENT);
        let ended = ended.borrow_mut().take();
        assert!(matches!(ended, Some(Err(Error::NotAvailable))), "{ended:?}");
        assert_eq!(core.peers().len(), 0);
    });
}

/// It was asked for the next block as soon as it had refused one, and nobody else was asked for any.
#[test]
fn one_that_refuses_every_proof_does_not_hide_a_longer_log() {
    Runtime::run(0, |runtime| {
        let mut world = World::new(runtime, EQUAL_BLOCKS + 10);
        let node = world.add_node(None, true);
        let core = world.nodes[node].core.clone();
        let (_cable, [socket, mut theirs]) = Cable::new(runtime, [good_conditions(); 2]);
        let ours = core.replicate(Role::Initiator, plain(true));
        let ours = ours.expect("it is open");
        runtime.spawn(async move {
            let _ = ours.run(socket).await;
        });
        let mut remote = Remote::new(&core);
        let refused = Rc::new(Cell::new(0));
        let refusals = Rc::clone(&refused);
        runtime.spawn(async move {
            remote.open_over(&mut theirs).await;
            remote.say(&Message::Have(Have {
                length: 1 << 40,
                ..Have::block(0)
            }));
            let mut buffer = vec![0; 1 << 12];
            loop {
                remote.write_over(&mut theirs).await;
                let count = theirs.read(&mut buffer).await.expect("it is well");
                let received = remote
                    .session
                    .receive(crate::runtime::now(), &buffer[..count]);
                received.expect("it is honest");
                while let Some(event) = remote.session.poll_event() {
                    if let Event::Message { message, .. } = event
                        && let Message::Request(request) = message
                    {
                        refusals.set(refusals.get() + 1);
                        remote.say(&Message::Unhave(Unhave {
                            start: request.index,
                            length: 1,
                        }));
                    }
                }
            }
        });
        world.link_live([node, 0]);
        runtime.run_for(MOMENT);
        for _ in 0..3 {
            world.append(1);
            world.update(node, UpdateOptions::default());
            let limit = runtime.now() + 10 * MOMENT;
            let is_there = runtime.run_until(limit, || core.length() == world.length);
            assert!(is_there, "{} were refused", refused.get());
        }
        assert!(refused.get() > 0, "it was never asked");
        world.check();
    });
}

/// They waited for ever: for one that has the block and does not send it, or that nobody asks.
#[test]
fn nobody_who_may_be_asked_has_it() {
    for is_remote in [true, false] {
        Runtime::run(0, |runtime| {
            let mut world = World::new(runtime, 0);
            world.append(10);
            let node = world.add_node(None, true);
            world.link_live([node, 0]);
            world.get(node, 9, GetOptions::default());
            runtime.run_for(MOMENT);
            if is_remote {
                world.nodes[0].core.set_uploading(false);
            } else {
                world.nodes[node].core.set_downloading(false);
            }
            runtime.run_for(MOMENT);
            world.get(node, 3, GetOptions::default().if_available(true));
            let options = SeekOptions::default().if_available(true);
            world.seek(node, world.nodes[node].core.byte_length() - 1, options);
            world.settle();
            assert!(!world.nodes[node].core.has(3));
        });
    }
}

/// It waited for ever for a byte of a block that no peer has, as they have others.
#[test]
fn a_byte_of_a_block_that_nobody_has() {
    Runtime::run(0, |runtime| {
        let mut world = World::new(runtime, EQUAL_BLOCKS + 10);
        world.append(10);
        let nodes = [0, 1].map(|_| world.add_node(None, true));
        for node in nodes {
            let link = world.link_live([node, 0]);
            world.update(node, UpdateOptions::default());
            if node == nodes[1] {
                world.download(node, 0..5);
            }
            runtime.run_for(MOMENT);
            world.hang_up(link, 0);
            runtime.run_for(MOMENT);
        }
        world.link_live(nodes);
        runtime.run_for(MOMENT);
        for (offset, blocks) in [(75, 0..u64::MAX), (75, 5..10), (35, 0..5)] {
            let options = SeekOptions::default().if_available(true).blocks(blocks);
            world.seek(nodes[0], offset, options);
        }
        world.settle();
        assert!(world.nodes[nodes[0]].core.has(3));
        world.check();
    });
}
