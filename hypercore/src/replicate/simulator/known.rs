//! What schedules have found, each as a case of its own.

use std::time::Duration;

use super::{World, plain, schedules, schedules::good_conditions};
use crate::{Error, SeekOptions, runtime::simulated::Runtime};

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
            let options = [plain(true), plain(true)];
            world.append(20);
            world.connect([node, 0], options, [good_conditions(); 2]);
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
