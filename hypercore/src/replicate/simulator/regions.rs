//! What peers are asked about the blocks of a log that is longer than one region.

use std::{ops::Range, time::Duration};

use hypercore_merkle::{Block, KeyPair, Node, NodeIndex, Roots};
use hypercore_storage::Memory;
use hypercore_wire::{Data, DataNode, Have, Message, Unhave};

use super::{
    open, plain,
    remote::{Remote, finish},
};
use crate::{GetOptions, Hypercore, Replication, Role, runtime, runtime::simulated::Runtime};

/// Blocks of one region.
const REGION: u64 = 1 << 20;

fn writer() -> KeyPair {
    KeyPair::from_seed(&[3; 32])
}

/// A clone that has nothing.
fn empty(sparse: bool) -> Hypercore {
    open(&Memory::new(), writer().public_key(), None, sparse)
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

/// The first block of a log of `1 << bits` blocks, which nobody has to write for that.
fn first_block(bits: u32) -> Message {
    let leaf = *Block::hash("x".into()).leaf_hash();
    let index = NodeIndex::leaf(0).expect("it is the first");
    let mut top = Node {
        index,
        size: 1,
        hash: leaf,
    };
    let mut nodes = Vec::new();
    for _ in 0..bits {
        let sibling = Node {
            index: top.index.sibling(),
            size: 1,
            hash: [7; 32],
        };
        nodes.push(DataNode {
            index: sibling.index.get(),
            hash: sibling.hash,
            size: sibling.size,
        });
        top = Node::parent(&top, &sibling).expect("they are siblings");
    }
    let roots = Roots::from_nodes(1 << bits, vec![top]).expect("it is one tree");
    let signature = writer().sign(&roots.head());
    Message::Data(Data {
        index: 0,
        value: Some("x".into()),
        nodes,
        signature: Some(*signature.as_bytes()),
    })
}

/// It had told of no last block, and was not asked beyond what it had told of.
#[test]
fn a_peer_without_the_last_block_is_asked_about_all_that_is_wanted() {
    const BLOCK: u64 = 3 * REGION + 7;
    for comes_first in [false, true] {
        for everything in [false, true] {
            Runtime::run(0, |runtime| {
                let core = empty(!everything);
                let (get, download) = (core.clone(), core.clone());
                runtime.spawn(async move { drop(get.get(0).await) });
                runtime.spawn(async move { drop(download.download(BLOCK..BLOCK + 9).await) });
                runtime.run_for(Duration::from_secs(1));
                finish(runtime, async move {
                    let mut relay = None;
                    if comes_first {
                        let (mut remote, mut ours) = connect(&core).await;
                        remote.read(&mut ours).await;
                        relay = Some((remote, ours));
                    }
                    let (mut origin, mut ours) = connect(&core).await;
                    origin.say(&have(0..1));
                    origin.write(&mut ours).await;
                    origin.read(&mut ours).await;
                    assert!(is_asked(&origin, 0));
                    origin.say(&first_block(22));
                    origin.write(&mut ours).await;
                    origin.read(&mut ours).await;
                    assert_eq!(core.length(), 4 * REGION);
                    drop(ours);
                    let (mut relay, mut its) = match relay {
                        Some(relay) => relay,
                        None => connect(&core).await,
                    };
                    relay.read(&mut its).await;
                    let expected: &[_] = if everything { &[0, 3, 1, 2] } else { &[0, 3] };
                    assert_eq!(wants(&relay), expected, "{comes_first}");
                });
            });
        }
    }
}
