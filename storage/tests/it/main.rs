//! The storage from outside: real logs, real files, failing disks.

mod directory;
mod extremes;
mod faults;
mod feed_files;
mod lock;
mod random_access;
mod vectors;

use std::sync::Arc;

use hypercore_merkle::{Node, NodeIndex};
use hypercore_storage::{FeedFiles, Storage};

fn open(storage: &(impl Storage + Clone + 'static)) -> FeedFiles {
    FeedFiles::open(Arc::new(storage.clone())).expect("the log opens")
}

fn index(index: u64) -> NodeIndex {
    NodeIndex::new(index).expect("a small index")
}

/// A node that is told from every other one.
fn node(at: u64) -> Node {
    let mut hash = [7; 32];
    hash[..8].copy_from_slice(&at.to_be_bytes());
    Node {
        index: index(at),
        size: at + 1,
        hash,
    }
}
