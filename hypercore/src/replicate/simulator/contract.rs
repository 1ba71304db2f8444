//! When a replication ends, and how: the table of [`Ended`], row by row.

use std::time::Duration;

use super::{World, good_conditions, network::Conditions, plain};
use crate::{Ended, ReplicateOptions, runtime::simulated::Runtime};

/// A row: two nodes, and how both sides end.
struct Row {
    nodes: [usize; 2],
    options: [ReplicateOptions; 2],
    ends: [Option<Ended>; 2],
}

const COMPLETE: [Option<Ended>; 2] = [Some(Ended::Complete); 2];
const NEVER: [Option<Ended>; 2] = [None; 2];

/// The writer; two full clones with a half each; clones without blocks, full and sparse.
const WRITER: usize = 0;
const LEFT: usize = 1;
const RIGHT: usize = 2;
const FULL: usize = 3;
const SPARSE: usize = 4;

/// Connects two nodes of a small world for ten minutes.
#[track_caller]
fn check(length: u64, row: Row) {
    Runtime::run(length, |runtime| {
        let mut world = world(runtime, length);
        let conditions = good_conditions();
        let live = row.options.each_ref().map(|options| options.live);
        let link = world.connect(row.nodes, row.options, [conditions; 2]);
        let start = runtime.now();
        let limit = start + Duration::from_secs(600);
        let tasks = world.links[link].tasks;
        runtime.run_until(limit, || {
            !tasks.iter().any(|&task| runtime.is_running(task))
        });
        let ends = world.links[link].results.each_ref().map(|result| {
            let result = result.borrow_mut().take();
            result.map(|result| result.expect("an honest end"))
        });
        assert_eq!(ends, row.ends, "{:?}, live: {live:?}", row.nodes);
        if ends[0].is_some() {
            assert!(
                runtime.now() - start < Duration::from_secs(10),
                "a timer ended it"
            );
        }
        world.check();
    });
}

/// A writer with `length` blocks, clones without any, and two with a half each.
fn world(runtime: &Runtime, length: u64) -> World {
    let mut world = World::new(runtime, length);
    world.append(length);
    let conditions = good_conditions();
    for half in [0..length / 2, length / 2..length] {
        let node = world.add_node(None, true);
        let link = world.connect([node, WRITER], [plain(true), plain(true)], [conditions; 2]);
        world.download(node, half);
        world.settle();
        world.hang_up(link, 0);
        runtime.run_for(Duration::from_secs(1));
    }
    for node in [LEFT, RIGHT] {
        // From now on it wants the rest as well.
        world.nodes[node].sparse = false;
        let core = world.nodes[node].core.shared();
        core.lock().replicator.demand.everything = true;
    }
    world.add_node(None, false);
    world.add_node(None, true);
    world
}

fn once() -> [ReplicateOptions; 2] {
    [plain(false), plain(false)]
}

fn reads_only(live: bool) -> ReplicateOptions {
    let mut options = plain(live);
    options.upload = false;
    options
}

fn serves_only(live: bool) -> ReplicateOptions {
    let mut options = plain(live);
    options.download = Some(false);
    options
}

#[test]
fn a_full_clone_and_a_writer_end_when_the_clone_has_everything() {
    for length in [0, 1, 100] {
        for nodes in [[FULL, WRITER], [WRITER, FULL]] {
            let ends = COMPLETE;
            check(
                length,
                Row {
                    nodes,
                    options: once(),
                    ends,
                },
            );
        }
    }
}

#[test]
fn two_readers_end_when_they_have_completed_each_other() {
    check(
        40,
        Row {
            nodes: [LEFT, RIGHT],
            options: once(),
            ends: COMPLETE,
        },
    );
    check(
        40,
        Row {
            nodes: [LEFT, FULL],
            options: once(),
            ends: NEVER,
        },
    );
}

#[test]
fn who_has_nothing_and_finds_nothing_ends_at_once() {
    check(
        0,
        Row {
            nodes: [FULL, LEFT],
            options: once(),
            ends: COMPLETE,
        },
    );
    check(
        9,
        Row {
            nodes: [WRITER, LEFT],
            options: [plain(false), serves_only(false)],
            ends: COMPLETE,
        },
    );
}

#[test]
fn a_live_side_goes_on_until_the_other_leaves() {
    let ends = [Some(Ended::RemoteClosed), Some(Ended::Complete)];
    check(
        9,
        Row {
            nodes: [WRITER, FULL],
            options: [plain(true), plain(false)],
            ends,
        },
    );
    check(
        9,
        Row {
            nodes: [WRITER, FULL],
            options: [plain(false), plain(true)],
            ends: NEVER,
        },
    );
    check(
        9,
        Row {
            nodes: [WRITER, FULL],
            options: [plain(true), plain(true)],
            ends: NEVER,
        },
    );
    check(
        0,
        Row {
            nodes: [FULL, LEFT],
            options: [plain(true), plain(true)],
            ends: NEVER,
        },
    );
}

#[test]
fn a_sparse_side_goes_on_until_one_leaves() {
    check(
        9,
        Row {
            nodes: [SPARSE, WRITER],
            options: once(),
            ends: NEVER,
        },
    );
    check(
        9,
        Row {
            nodes: [SPARSE, SPARSE],
            options: once(),
            ends: NEVER,
        },
    );
    check(
        9,
        Row {
            nodes: [SPARSE, WRITER],
            options: [serves_only(false), plain(false)],
            ends: COMPLETE,
        },
    );
}

#[test]
fn who_does_not_upload_does_not_complete_anybody() {
    check(
        9,
        Row {
            nodes: [WRITER, FULL],
            options: [reads_only(false), plain(false)],
            ends: COMPLETE,
        },
    );
    check(
        40,
        Row {
            nodes: [LEFT, RIGHT],
            options: [reads_only(false), plain(false)],
            ends: NEVER,
        },
    );
}

/// It ended with `Complete` and without blocks that it had been told of, or that its only peer was
/// about to have.
#[test]
fn a_clone_of_a_clone_that_is_not_done_yet() {
    // The relay has not heard of the writer yet, or has; it gets all at once, or one after the other.
    for (wait, length) in [(0, 1), (0, 500), (700, 1), (700, 500), (1000, 1), (1100, 1)] {
        Runtime::run(wait + length, |runtime| {
            let mut world = World::new(runtime, super::EQUAL_BLOCKS + 1000);
            world.append(length);
            runtime.run_for(Duration::from_secs(1));
            let [relay, node] = [0, 1].map(|_| world.add_node(None, false));
            let far = Conditions {
                delay: Duration::from_millis(300),
                ..good_conditions()
            };
            world.connect([relay, WRITER], once(), [far; 2]);
            runtime.run_for(Duration::from_millis(wait));
            let link = world.connect([node, relay], once(), [good_conditions(); 2]);
            world.settle();
            runtime.run_for(Duration::from_secs(5));
            let ends = world.links[link].results.each_ref();
            let ends = ends.map(|end| end.borrow_mut().take());
            let complete = |end: &Option<_>| matches!(end, Some(Ok(Ended::Complete)));
            assert!(ends.iter().all(complete), "{wait}, {length}: {ends:?}");
        });
    }
}
