//! What peers are asked about the blocks of a log that is longer than one region.

use std::{ops::Range, time::Duration};

use hypercore_merkle::KeyPair;
use hypercore_storage::Memory;
use hypercore_wire::{Have, Message, Unhave};

use super::{
    open, plain,
    unread::{Remote, finish},
};
use crate::{GetOptions, Hypercore, Replication, Role, runtime, runtime::simulated::Runtime};

/// Blocks of one region.
const REGION: u64 = 1 << 20;

/// A clone that has nothing.
fn empty(sparse: bool) -> Hypercore {
    let key = KeyPair::from_seed(&[3; 32]).public_key();
    open(&Memory::new(), key, None, sparse)
}

async fn connect(core: &Hypercore) -> (Remote, Replication) {
    let mut remote = Remote::new(core);
    let ours = core.replicate(Role::Initiator, plain(true));
    let mut ours = ours.expect("it is open");
    remote.open(&mut ours).await;
    (remote, ours)
}

/// Which regions it was asked about.
fn wants(remote: &Remote) -> Vec<u64> {
    let region = |message: &Message| match message {
        Message::Want(want) => Some(want.start / REGION),
        _ => None,
    };
    remote.heard.iter().filter_map(region).collect()
}

/// Whether it was asked for a block.
fn is_asked(remote: &Remote, block: u64) -> bool {
    let asks = |message: &Message| matches!(message, Message::Request(it) if it.index == block);
    remote.heard.iter().any(asks)
}

fn have(blocks: Range<u64>) -> Message {
    Message::Have(Have {
        start: blocks.start,
        length: blocks.end - blocks.start,
        bitfield: None,
        ack: false,
    })
}

/// What becomes of the one that a block was asked of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Drops,
    Leaves,
    LeavesWhileNothingIsAsked,
    IsSilent,
}

/// Those that came later were asked about it only if it waited to be asked for, and it waited for ever.
#[test]
fn a_block_that_a_peer_did_not_send_is_looked_for_elsewhere() {
    use Fate::*;
    const BLOCK: u64 = 5 * REGION + 7;
    for fate in [Drops, Leaves, LeavesWhileNothingIsAsked, IsSilent] {
        Runtime::run(0, |runtime| {
            let core = empty(true);
            let get = core.clone();
            runtime.spawn(async move {
                let _ = get.get_with(BLOCK, GetOptions::default()).await;
            });
            runtime.run_for(Duration::from_secs(1));
            finish(runtime, async move {
                let (mut first, mut ours) = connect(&core).await;
                first.say(&have(BLOCK..BLOCK + 1));
                first.write(&mut ours).await;
                first.read(&mut ours).await;
                assert!(is_asked(&first, BLOCK), "{:?}", first.heard);
                let (mut second, mut its) = connect(&core).await;
                second.read(&mut its).await;
                assert_eq!(wants(&second), [0]);
                match fate {
                    Drops => {
                        first.say(&Message::Unhave(Unhave {
                            start: BLOCK,
                            length: 1,
                        }));
                        first.write(&mut ours).await;
                    }
                    Leaves => drop(ours),
                    LeavesWhileNothingIsAsked => {
                        core.set_downloading(false);
                        drop(ours);
                        core.set_downloading(true);
                    }
                    IsSilent => {
                        let wait = first.next_block(&mut ours);
                        let sent = runtime::timeout(Duration::from_secs(10), wait).await;
                        assert!(sent.is_none(), "it sends a block");
                    }
                }
                second.read(&mut its).await;
                assert_eq!(wants(&second), [0, BLOCK / REGION], "{fate:?}");
            });
        });
    }
}
