//! In which order blocks come.

use std::{cell::RefCell, rc::Rc, time::Duration};

use futures_lite::StreamExt;

use super::{EQUAL_BLOCKS, Waits, World};
use crate::{
    Download, DownloadOptions, Event, GetOptions, Hypercore, Order, runtime::simulated::Runtime,
};

const BLOCKS: u64 = 300;

/// The blocks in the order in which they come to a clone that wants them for `ask`, from a peer
/// that is connected.
fn come(ask: impl FnOnce(&mut World, usize)) -> Vec<u64> {
    Runtime::run(1, |runtime| {
        let mut world = World::new(runtime, EQUAL_BLOCKS + 1000);
        world.append(BLOCKS);
        let node = world.add_node(None, true);
        let come = listen(runtime, &world.nodes[node].core);
        world.link_live([node, 0]);
        runtime.run_for(Duration::from_secs(1));
        ask(&mut world, node);
        world.settle();
        runtime.run_for(Duration::from_secs(1));
        come.take()
    })
}

fn listen(runtime: &Runtime, core: &Hypercore) -> Rc<RefCell<Vec<u64>>> {
    let come = Rc::new(RefCell::new(Vec::new()));
    let (mut events, to) = (core.events(), Rc::clone(&come));
    runtime.spawn(async move {
        while let Some(event) = events.next().await {
            if let Event::Download { index, .. } = event {
                to.borrow_mut().push(index);
            }
        }
    });
    come
}

fn download_in(order: Order) -> Vec<u64> {
    come(|world, node| {
        let core = world.nodes[node].core.clone();
        let options = DownloadOptions {
            order,
            ..DownloadOptions::default()
        };
        let download: Download = core.download_with(10..BLOCKS, options);
        world.request(node, "download".into(), Waits::NONE, download, |()| {});
    })
}

#[test]
fn a_linear_download_comes_in_order() {
    assert_eq!(download_in(Order::Linear), Vec::from_iter(10..BLOCKS));
}

#[test]
fn a_random_download_comes_in_no_order_and_whole() {
    let mut blocks = download_in(Order::Random);
    let steps = blocks
        .windows(2)
        .filter(|pair| pair[1] == pair[0] + 1)
        .count();
    assert!(steps < 100, "{steps} of {} follow each other", blocks.len());
    blocks.sort_unstable();
    assert_eq!(blocks, Vec::from_iter(10..BLOCKS));
}

#[test]
fn what_was_wanted_first_comes_first() {
    let wanted = [200, 7, 123, 0, 299, 50, 51, 49];
    let wanted = wanted.into_iter().chain((60..200).rev());
    let wanted: Vec<_> = wanted.collect();
    let come = come(|world, node| {
        for &index in &wanted {
            world.get(node, index, GetOptions::default());
            world.runtime.run_for(Duration::from_micros(1));
        }
    });
    let mut once = Vec::new();
    for index in wanted {
        if !once.contains(&index) {
            once.push(index);
        }
    }
    assert_eq!(come, once);
}

#[test]
fn who_waits_for_a_block_comes_before_ranges() {
    let come = come(|world, node| {
        world.download(node, 0..BLOCKS);
        world.runtime.run_for(Duration::from_micros(1));
        world.get(node, BLOCKS - 1, GetOptions::default());
    });
    let place = come.iter().position(|&index| index == BLOCKS - 1);
    assert!(place.is_some_and(|place| place < 60), "{place:?}");
}
