//! Random schedules.

use std::{
    env,
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::Duration,
};

use super::{World, network::Conditions, plain};
use crate::{GetOptions, SeekOptions, UpdateOptions, runtime::simulated::Runtime};

/// Schedules in every test run.
const SEEDS: u64 = 500;

#[test]
fn everybody_gets_everything_whatever_happens() {
    let number = |name| {
        env::var(name)
            .ok()
            .map(|value| value.parse().expect("a number"))
    };
    let seeds = match number("SIMULATOR_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("SIMULATOR_SEEDS").unwrap_or(SEEDS),
    };
    let next = AtomicU64::new(seeds.start);
    let threads = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end {
                        break;
                    }
                    let _repeat = Repeat(seed);
                    Runtime::run(seed, |runtime| live(runtime, seed));
                }
            });
        }
    });
}

/// Says how to see a failure again.
struct Repeat(u64);

impl Drop for Repeat {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let seed = self.0;
            eprintln!("again: SIMULATOR_SEED={seed} cargo test -p hypercore --lib simulator");
        }
    }
}

/// One schedule: nodes come up, things happen to them, the network becomes whole.
pub(super) fn live(runtime: &Runtime, seed: u64) {
    let mut world = World::new(runtime, seed);
    let most = if runtime.once_in(16) { 30 } else { 8 };
    for _ in 0..1 + runtime.below(most - 1) {
        world.add_node(None, runtime.once_in(3));
    }
    world.append(runtime.below(60));
    for node in 1..world.nodes.len() {
        let other = runtime.below(node as u64) as usize;
        connect(&mut world, [node, other]);
    }
    for _ in 0..runtime.below(30) {
        runtime.run_for(runtime.duration_below(Duration::from_millis(1500)));
        happen(&mut world);
    }

    world.heal();
    world.append(1 + runtime.below(10));
    // Whoever passes on everything reaches the writer through others of that kind.
    let mut relays = vec![0];
    for node in 1..world.nodes.len() {
        let relay = relays[runtime.below(relays.len() as u64) as usize];
        let conditions = [conditions(runtime), conditions(runtime)];
        let options = [(); 2].map(|()| {
            let mut options = plain(true);
            options.own_extensions = !runtime.once_in(4);
            options
        });
        world.connect([node, relay], options, conditions);
        if !world.nodes[node].sparse {
            relays.push(node);
        }
    }
    world.settle();
    world.check();
}

/// Something happens.
fn happen(world: &mut World) {
    let runtime = world.runtime.clone();
    let node = runtime.below(world.nodes.len() as u64) as usize;
    let link = runtime.below(world.links.len() as u64) as usize;
    let end = runtime.below(2) as usize;
    match runtime.below(16) {
        0 | 1 => world.append(1 + runtime.below(12)),
        2 | 3 => {
            let other = runtime.below(world.nodes.len() as u64) as usize;
            if other != node {
                connect(world, [node, other]);
            }
        }
        4 => world.cut(link),
        5 => world.vanish(link, end),
        6 => world.hang_up(link, end),
        7 => {
            world.links[link].lost();
            world.links[link].cable.freeze_half(end);
        }
        8 => {
            world.links[link].lost();
            world.links[link].cable.freeze();
        }
        9 => world.links[link].cable.thaw(),
        10 => {
            let conditions = [conditions(&runtime), conditions(&runtime)];
            world.connect_liar(node, conditions);
        }
        11 if node > 0 => world.restart(node),
        12 if node > 0 => clear(world, node),
        _ => ask(world, node),
    }
}

/// A node asks for something that exists, or will.
fn ask(world: &mut World, node: usize) {
    let runtime = world.runtime.clone();
    let end = world.length + 1;
    let timeout = runtime
        .once_in(6)
        .then(|| runtime.duration_below(Duration::from_secs(5)));
    let if_available = runtime.once_in(6);
    match runtime.below(6) {
        0..3 => {
            let options = GetOptions {
                timeout,
                if_available,
                ..GetOptions::default()
            };
            world.get(node, runtime.below(end), options);
        }
        3 => {
            let start = runtime.below(end);
            world.download(node, start..start + runtime.below(end + 1 - start));
        }
        4 if node > 0 => world.update(
            node,
            UpdateOptions {
                timeout,
                if_available,
                ..UpdateOptions::default()
            },
        ),
        _ => {
            let bytes = world.nodes[0].core.byte_length();
            let options = SeekOptions {
                timeout,
                if_available,
                ..SeekOptions::default()
            };
            world.seek(node, runtime.below(bytes + 1), options);
        }
    }
}

fn clear(world: &mut World, node: usize) {
    let core = world.nodes[node].core.clone();
    let start = world.runtime.below(core.length() + 1);
    let end = start + world.runtime.below(core.length() + 1 - start);
    world.runtime.spawn(async move {
        // It may be closed before its turn comes.
        let _ = core.clear(start..end).await;
    });
}

/// Connects two nodes in some way.
fn connect(world: &mut World, nodes: [usize; 2]) {
    let runtime = world.runtime.clone();
    let encrypted = runtime.once_in(16);
    let lies = runtime.once_in(10);
    let options = [(); 2].map(|()| {
        let mut options = plain(!runtime.once_in(3));
        options.noise = encrypted;
        options.encrypted = encrypted;
        options.upload = !runtime.once_in(8);
        options.download = runtime.once_in(8).then(|| runtime.once_in(2));
        options.ack = runtime.once_in(4);
        options.own_extensions = !runtime.once_in(3);
        options
    });
    let conditions = [(); 2].map(|()| Conditions {
        corruption: if lies { 1 + runtime.below(5000) } else { 0 },
        ..conditions(&runtime)
    });
    world.connect(nodes, options, conditions);
}

fn conditions(runtime: &Runtime) -> Conditions {
    Conditions {
        delay: runtime.duration_below(Duration::from_millis(if runtime.once_in(4) {
            800
        } else {
            40
        })),
        bytes_per_second: 100_000 << runtime.below(10),
        buffer: 1 << (14 + runtime.below(5)),
        corruption: 0,
    }
}
