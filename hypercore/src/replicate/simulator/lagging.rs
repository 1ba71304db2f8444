//! A peer whose signed log is shorter than what is known here: what it proves may not be told from
//! another history.

use std::{cell::RefCell, rc::Rc, time::Duration};

use super::{EQUAL_BLOCKS, World, good_conditions, network::Conditions, plain};
use crate::{Error, GetOptions, SeekOptions, UpdateOptions, runtime::simulated::Runtime};

const MOMENT: Duration = Duration::from_secs(1);

/// A writer with four blocks, a clone of the first three of them, and a sparse node that knows of all
/// four and has none.
fn world(runtime: &Runtime) -> (World, usize, usize) {
    let mut world = World::new(runtime, EQUAL_BLOCKS + 10);
    world.append(3);
    let lagging = world.add_node(None, false);
    let first = world.link_live([lagging, 0]);
    world.settle();
    world.hang_up(first, 0);
    world.append(1);
    let node = world.add_node(None, true);
    let second = world.link_live([node, 0]);
    world.update(node, UpdateOptions::default());
    runtime.run_for(MOMENT);
    assert_eq!(world.nodes[node].core.length(), 4);
    world.hang_up(second, 0);
    runtime.run_for(MOMENT);
    (world, lagging, node)
}

/// It was sent again and again: what is known of the fourth block cannot be held against a log of three.
#[test]
fn a_block_that_a_lagging_peer_cannot_prove() {
    Runtime::run(0, |runtime| {
        let (mut world, lagging, node) = world(runtime);
        world.link_live([node, lagging]);
        runtime.run_for(MOMENT);
        world.get(node, 2, GetOptions::default());
        world.seek(node, 25, SeekOptions::default());
        runtime.run_for(10 * MOMENT);
        let uploaded = world.nodes[lagging].core.stats().uploaded_blocks;
        assert!(uploaded <= 3, "{uploaded} blocks");
        let result = Rc::new(RefCell::new(None));
        let (core, got) = (world.nodes[node].core.clone(), Rc::clone(&result));
        runtime.spawn(async move {
            let options = GetOptions::default().if_available(true);
            *got.borrow_mut() = Some(core.get_with(2, options).await);
        });
        runtime.run_for(MOMENT);
        let result = result.borrow_mut().take();
        assert!(
            matches!(result, Some(Err(Error::NotAvailable))),
            "{result:?}"
        );
        // What it has besides can be proven.
        world.get(node, 0, GetOptions::default());
        runtime.run_for(MOMENT);
        assert!(world.nodes[node].core.has(0));
        // It has caught up.
        world.link_live([lagging, 0]);
        world.settle();
        world.check();
    });
}

/// Whoever answers first was asked again before anybody else.
#[test]
fn a_block_that_another_peer_can_prove() {
    Runtime::run(0, |runtime| {
        let (mut world, lagging, node) = world(runtime);
        world.link_live([node, lagging]);
        let far = Conditions {
            delay: Duration::from_millis(400),
            ..good_conditions()
        };
        world.connect([node, 0], [plain(true), plain(true)], [far; 2]);
        runtime.run_for(5 * MOMENT);
        world.get(node, 2, GetOptions::default());
        runtime.run_for(5 * MOMENT);
        assert!(world.nodes[node].core.has(2));
        world.check();
    });
}

/// A later answer brings what was missing, and who had it then may be gone.
#[test]
fn a_block_that_can_be_proven_later() {
    Runtime::run(0, |runtime| {
        let (mut world, lagging, node) = world(runtime);
        world.link_live([node, lagging]);
        runtime.run_for(MOMENT);
        world.get(node, 2, GetOptions::default());
        runtime.run_for(5 * MOMENT);
        assert!(!world.nodes[node].core.has(2));
        let other = world.add_node(None, true);
        world.link_live([other, 0]);
        world.get(other, 3, GetOptions::default());
        runtime.run_for(MOMENT);
        world.link_live([node, other]);
        world.get(node, 3, GetOptions::default());
        runtime.run_for(MOMENT);
        assert!(world.nodes[node].core.has(2));
        world.check();
    });
}
