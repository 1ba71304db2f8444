//! How fast a whole log comes over connections of known speed: the time is virtual, so that the
//! figures are exact and the same on every machine.

use std::{cell::Cell, ops::Range, rc::Rc, time::Duration};

use futures_lite::{AsyncReadExt, StreamExt};

use super::{EQUAL_BLOCKS, Waits, World, network::Conditions, plain};
use crate::{DownloadOptions, GetOptions, Hypercore, runtime::simulated::Runtime};

/// Bytes of a block.
const BLOCK: u64 = 16 * 1024;

/// A connection of this speed, each way, whose ends are near.
const fn link(bytes_per_second: u64) -> Conditions {
    Conditions {
        delay: Duration::from_millis(5),
        bytes_per_second,
        buffer: 1 << 22,
        corruption: 0,
    }
}

/// What a download was like.
#[derive(Debug)]
struct Run {
    seconds: f64,
    /// What was sent, as a multiple of what was needed.
    sent: f64,
}

/// Downloads so many blocks over these connections, each to another peer that has all of them.
fn download(blocks: u64, links: &[Conditions]) -> Run {
    Runtime::run(1, |runtime| {
        let mut world = World::new(runtime, EQUAL_BLOCKS + BLOCK);
        world.append(blocks);
        let node = world.add_node(None, false);
        for &conditions in links {
            let mut options = [plain(true), plain(true)];
            for options in &mut options {
                options.timeout = None;
            }
            world.connect([node, 0], options, [conditions; 2]);
        }
        let start = runtime.now();
        let core = world.nodes[node].core.clone();
        let done = runtime.run_until(start + Duration::from_secs(1000), || {
            core.downloaded(..) == blocks
        });
        assert!(done, "{}", world.report());
        let seconds = (runtime.now() - start).as_secs_f64();
        // What is still on its way is sent too.
        runtime.run_for(Duration::from_secs(100));
        let sent = world.nodes[0].core.stats().uploaded_bytes;
        Run {
            seconds,
            sent: sent as f64 / (blocks * BLOCK) as f64,
        }
    })
}

/// Downloads so many blocks of peers that each have a part of them and a link of this speed. Returns
/// the seconds, and how many blocks each has sent.
fn download_parts(blocks: u64, parts: &[(Range<u64>, u64)]) -> (f64, Vec<u64>) {
    Runtime::run(1, |runtime| {
        let mut world = World::new(runtime, EQUAL_BLOCKS + BLOCK);
        world.append(blocks);
        let holders: Vec<_> = parts
            .iter()
            .map(|(part, _)| {
                let holder = world.add_node(None, true);
                let options = [plain(true), plain(true)];
                let source = world.connect([holder, 0], options, [link(1_000_000_000); 2]);
                world.download(holder, part.clone());
                runtime.run_for(Duration::from_secs(10));
                world.hang_up(source, 0);
                holder
            })
            .collect();
        runtime.run_for(Duration::from_secs(1));
        let node = world.add_node(None, false);
        for (&holder, (_, speed)) in holders.iter().zip(parts) {
            world.connect(
                [node, holder],
                [plain(true), plain(true)],
                [link(*speed); 2],
            );
        }
        let start = runtime.now();
        let core = world.nodes[node].core.clone();
        let limit = start + Duration::from_secs(1000);
        let done = runtime.run_until(limit, || core.downloaded(..) == blocks);
        assert!(done, "{}", world.report());
        let uploaded = holders.iter().map(|&holder| {
            let stats = world.nodes[holder].core.stats();
            stats.uploaded_blocks
        });
        let uploaded = uploaded.collect();
        ((runtime.now() - start).as_secs_f64(), uploaded)
    })
}

/// The last half is with one peer alone, which could send some of the first half too.
#[test]
fn a_peer_is_asked_first_for_what_no_other_has() {
    let (seconds, uploaded) = download_parts(
        1000,
        &[
            (0..500, 1_000_000),
            (0..500, 1_000_000),
            (0..1000, 1_000_000),
        ],
    );
    let ideal = (500 * BLOCK) as f64 / 1_000_000.0;
    assert!(
        seconds < ideal * 1.1,
        "{seconds} s instead of {ideal} s: {uploaded:?}"
    );
}

/// The last half is with two of six peers, which could send some of the first half too.
#[test]
fn peers_are_asked_first_for_what_few_others_have() {
    let mut parts = vec![(0..1000, 1_000_000); 2];
    parts.resize(6, (0..500, 1_000_000));
    let (seconds, uploaded) = download_parts(1000, &parts);
    let ideal = (250 * BLOCK) as f64 / 1_000_000.0;
    assert!(
        seconds < ideal * 1.1,
        "{seconds} s instead of {ideal} s: {uploaded:?}"
    );
}

/// It opens the core, says what it has, answers a little, and is silent from then on. Nobody times
/// out.
#[test]
fn what_a_silent_peer_was_asked_for_comes_from_others() {
    for after in [0, 50, 500, 2000] {
        Runtime::run(after, |runtime| {
            let mut world = World::new(runtime, EQUAL_BLOCKS + BLOCK);
            world.append(400);
            let node = world.add_node(None, false);
            let patient = || {
                [(); 2].map(|()| {
                    let mut options = plain(true);
                    options.timeout = None;
                    options
                })
            };
            let silent = world.connect([node, 0], patient(), [link(1_000_000); 2]);
            world.connect([node, 0], patient(), [link(1_000_000); 2]);
            runtime.run_for(Duration::from_millis(after));
            world.links[silent].cable.freeze();
            let core = world.nodes[node].core.clone();
            let start = runtime.now();
            let limit = start + Duration::from_secs(60);
            let done = runtime.run_until(limit, || core.downloaded(..) == 400);
            assert!(done, "{}", world.report());
            let seconds = (runtime.now() - start).as_secs_f64();
            let alone = (400 * BLOCK) as f64 / 1_000_000.0;
            assert!(seconds < alone + 0.5, "{seconds} s after {after} ms");
            assert_eq!(core.peers().len(), 2, "it was closed for being slow");

            // It comes back, and nobody minds what it says.
            world.links[silent].cable.thaw();
            world.append(1);
            world.settle();
            world.check();
        });
    }
}

/// Whoever was asked for a proof alone was the only one, for as long as it stayed.
#[test]
fn proofs_that_a_silent_peer_was_asked_for_come_from_others() {
    Runtime::run(0, |runtime| {
        let mut world = World::new(runtime, EQUAL_BLOCKS + 100);
        world.append(400);
        let node = world.add_node(None, true);
        let links = [(); 2].map(|()| {
            let mut options = [plain(true), plain(true)];
            for options in &mut options {
                options.timeout = None;
            }
            world.connect([node, 0], options, [link(1_000_000); 2])
        });
        runtime.run_for(Duration::from_secs(1));
        world.links[links[0]].cable.freeze();
        let core = world.nodes[node].core.clone();
        let options = DownloadOptions::default().hash(true);
        let proofs = async move { core.download_with(0..400, options).await };
        let limits = Waits::NONE;
        world.request(node, "proofs".into(), limits, proofs, |()| {});
        let start = runtime.now();
        world.settle();
        let seconds = (runtime.now() - start).as_secs_f64();
        assert!(seconds < 2.0, "{seconds} s");

        // It comes back, and its answers are not needed any more.
        world.links[links[0]].cable.thaw();
        world.append(1);
        world.settle();
        world.check();
    });
}

/// A block takes a minute, three times as long as a silent peer has.
#[test]
fn a_peer_that_sends_slowly_is_not_closed() {
    for (size, speed) in [(256 * 1024, 4096), (64 * 1024, 2048)] {
        Runtime::run(size, |runtime| {
            let mut world = World::new(runtime, EQUAL_BLOCKS + size);
            world.append(3);
            let node = world.add_node(None, false);
            let slow = world.connect([node, 0], [plain(true), plain(true)], [link(speed); 2]);
            let core = world.nodes[node].core.clone();
            let start = runtime.now();
            let limit = start + Duration::from_secs(10 * size / speed);
            let done = runtime.run_until(limit, || core.downloaded(..) == 3);
            assert!(done, "{}", world.report());
            assert!(runtime.now() - start > Duration::from_secs(3 * size / speed));
            assert!(world.links[slow].results[0].borrow().is_none(), "it ended");
        });
    }
}

/// A reader that needs a block does not wait for the one that was asked for it long ago.
#[test]
fn a_reader_waits_no_longer_than_a_moment_for_a_silent_peer() {
    Runtime::run(0, |runtime| {
        let mut world = World::new(runtime, EQUAL_BLOCKS + BLOCK);
        world.append(100);
        let node = world.add_node(None, true);
        let silent = world.connect([node, 0], [plain(true), plain(true)], [link(1_000_000); 2]);
        world.get(node, 0, GetOptions::default());
        world.settle();
        world.links[silent].cable.freeze();
        world.get(node, 1, GetOptions::default());
        world.connect([node, 0], [plain(true), plain(true)], [link(1_000_000); 2]);
        let start = runtime.now();
        world.settle();
        let waited = runtime.now() - start;
        assert!(waited < Duration::from_secs(1), "{waited:?}");
    });
}

#[test]
fn eight_peers_are_eight_times_as_fast_as_one() {
    let one = download(1000, &[link(1_000_000)]);
    let eight = download(1000, &[link(1_000_000); 8]);
    assert!(eight.seconds * 7.0 < one.seconds, "{one:?}, {eight:?}");
    assert!(eight.sent < 1.05, "{eight:?}");
}

/// At 1 % of the others' speed it sends nothing but what it was asked for before that was known, at
/// 2 % it is asked for more.
#[test]
fn one_slow_peer_does_not_hold_up_the_others() {
    for (blocks, slow) in [(4000, 10_000), (8000, 20_000)] {
        let fast = [link(1_000_000); 8];
        let mut with_slow = fast.to_vec();
        with_slow.push(link(slow));
        let without = download(blocks, &fast);
        let with = download(blocks, &with_slow);
        assert!(
            with.seconds < without.seconds * 1.05,
            "{with:?}, {without:?}"
        );
        assert!(with.sent < 1.05, "{with:?}");
    }
}

#[test]
fn a_long_fast_link_is_filled() {
    let far = Conditions {
        delay: Duration::from_millis(100),
        buffer: 1 << 24,
        ..link(10_000_000)
    };
    let run = download(6000, &[far]);
    let ideal = (6000 * BLOCK) as f64 / 10_000_000.0;
    assert!(run.seconds * 0.8 < ideal, "{run:?} instead of {ideal} s");
}

/// How long the slowest of 20 new blocks takes to a node, over a chain of connections with 100 ms each
/// way, and how many blocks were sent on all of them.
fn follow(hops: usize, own_extensions: bool) -> (Duration, u64) {
    Runtime::run(1, |runtime| {
        let mut world = World::new(runtime, EQUAL_BLOCKS + 64);
        let far = Conditions {
            delay: Duration::from_millis(100),
            ..link(10_000_000)
        };
        for hop in 1..=hops {
            let node = world.add_node(None, false);
            let options = [(); 2].map(|()| {
                let mut options = plain(true);
                options.own_extensions = own_extensions;
                options
            });
            world.connect([node, hop - 1], options, [far; 2]);
        }
        let core = world.nodes[hops].core.clone();
        let mut slowest = Duration::ZERO;
        for length in 1..=20 {
            runtime.run_for(Duration::from_secs(10));
            world.append(1);
            let start = runtime.now();
            let limit = start + Duration::from_secs(10);
            let done = runtime.run_until(limit, || core.downloaded(..) == length);
            assert!(done, "{}", world.report());
            // With the first block it becomes known who gets them first.
            if length > 1 {
                slowest = slowest.max(runtime.now() - start);
            }
        }
        let uploads = world.nodes.iter();
        let uploads = uploads.map(|node| node.core.stats().uploaded_blocks);
        (slowest, uploads.sum())
    })
}

#[test]
fn a_new_block_takes_half_a_round_trip() {
    for hops in [1, 3] {
        let way = Duration::from_millis(100 * hops as u64);
        let (slowest, sent) = follow(hops, true);
        assert!(slowest < way.mul_f64(1.3), "{slowest:?} over {hops}");
        assert_eq!(sent, 20 * hops as u64, "each once over each connection");
        let (slowest, _) = follow(hops, false);
        assert!(slowest > way * 3, "{slowest:?}: Have, Request, Data");
    }
}

/// A block must not come from all who will have it soon.
#[test]
fn one_of_many_peers_is_asked_for_the_next_block() {
    Runtime::run(1, |runtime| {
        let mut world = World::new(runtime, EQUAL_BLOCKS + BLOCK);
        world.append(1);
        let all: Vec<_> = (0..5).map(|_| world.add_node(None, false)).collect();
        for (first, &node) in all.iter().enumerate() {
            for other in [0].iter().chain(&all[..first]) {
                let options = [plain(true), plain(true)];
                world.connect([node, *other], options, [link(10_000_000); 2]);
            }
        }
        runtime.run_for(Duration::from_secs(10));
        for _ in 0..100 {
            world.append(1);
            runtime.run_for(Duration::from_secs(1));
        }
        let uploads = world.nodes.iter();
        let uploads = uploads.map(|node| node.core.stats().uploaded_blocks);
        let (sent, needed) = (uploads.sum::<u64>(), 101 * all.len() as u64);
        assert!(sent <= needed + needed / 20, "{sent} for {needed}");
    });
}

/// How long it takes to `read` something of a log of so many blocks of 64 bytes, from 100 ms away.
fn reading<F: Future<Output = ()> + 'static>(
    blocks: u64,
    read: impl Fn(Hypercore) -> F,
) -> Duration {
    Runtime::run(1, |runtime| {
        let mut world = World::new(runtime, EQUAL_BLOCKS + 64);
        world.append(blocks);
        let node = world.add_node(None, true);
        let far = Conditions {
            delay: Duration::from_millis(100),
            ..link(10_000_000)
        };
        world.connect([node, 0], [plain(true), plain(true)], [far; 2]);
        runtime.run_for(Duration::from_secs(5));
        let (core, done) = (world.nodes[node].core.clone(), Rc::new(Cell::new(false)));
        let (reading, is_read) = (read(core), Rc::clone(&done));
        runtime.spawn(async move {
            reading.await;
            is_read.set(true);
        });
        let start = runtime.now();
        let limit = start + Duration::from_secs(60);
        assert!(
            runtime.run_until(limit, || done.get()),
            "{}",
            world.report()
        );
        runtime.now() - start
    })
}

/// The last blocks, and all of a short stream, came one after the other.
#[test]
fn streams_ask_ahead_to_their_end() {
    for end in [40, 120] {
        let took = reading(200, |core| async move {
            let read = core.read_stream((0..end).into()).count().await;
            assert_eq!(read as u64, end);
        });
        assert!(took < Duration::from_secs(1), "{took:?} for {end} blocks");
    }
    let took = reading(16, |core| async move {
        let mut bytes = Vec::new();
        let mut stream = core.byte_stream(0..16 * 64);
        stream
            .read_to_end(&mut bytes)
            .await
            .expect("they are there");
        assert_eq!(bytes.len(), 16 * 64);
    });
    assert!(took < Duration::from_millis(1500), "{took:?} for 16 blocks");
}
