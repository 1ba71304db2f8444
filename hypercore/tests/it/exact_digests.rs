//! The extension by which peers count on answers that are under way.

use std::{pin::pin, time::Duration};

use async_std::task;
use hypercore::{
    Hypercore, ProofOptions,
    wire::{Data, DataNode, Message, Request, Unhave},
};

use crate::{
    puppet::{Puppet, have},
    support::{clone_of, clone_with, run, soon, writer},
};

const BLOCKS: u64 = 64;

// ---- as who is asked ----------------------------------------------------------------------------

/// The nodes of the answer to a request for block `index` that has this digest.
async fn nodes_of_answer(puppet: &mut Puppet, index: u64, nodes: u64) -> Vec<u64> {
    let request = Request {
        index,
        bytes: 0,
        hash: false,
        nodes,
    };
    puppet.send(Message::Request(request)).await;
    loop {
        let message = soon("an answer", puppet.message()).await.unwrap();
        if let Message::Data(data) = message
            && data.index == index
        {
            return data.nodes.iter().map(|node| node.index).collect();
        }
    }
}

#[test]
fn to_a_peer_that_declares_it_only_the_digest_at_hand_counts() {
    run(async {
        let core = writer(4).await;
        for (extensions, again) in [
            (&[][..], vec![]),
            (&["hypercore/exact-digests"], vec![2, 5]),
        ] {
            let mut puppet = Puppet::with_extensions(&core, extensions).await;
            assert_eq!(nodes_of_answer(&mut puppet, 0, 0).await, [2, 5]);
            // The first two siblings are known, and then, as it says, they are not.
            assert_eq!(nodes_of_answer(&mut puppet, 0, 0b110).await, [0; 0]);
            assert_eq!(nodes_of_answer(&mut puppet, 0, 0).await, again);
        }
    });
}

// ---- as who asks --------------------------------------------------------------------------------

/// The answer of `origin` to `request`, and how many nodes it has.
pub(crate) async fn answer(origin: &Hypercore, request: &Request) -> (Message, usize) {
    let mut options = ProofOptions::default();
    options.digest = request.nodes;
    options.hash = request.hash;
    let proof = origin.proof_with(request.index, options).await;
    let proof = proof.unwrap().expect("it has all blocks");
    let node = |node: &hypercore::merkle::Node| DataNode {
        index: node.index.get(),
        hash: node.hash,
        size: node.size,
    };
    let value = origin.get(request.index).await.unwrap();
    let signature = proof.signature.as_ref();
    let data = Data {
        index: request.index,
        value: (!request.hash).then_some(value),
        nodes: proof.nodes.iter().map(node).collect(),
        signature: signature.map(|it| *it.as_bytes()),
    };
    (Message::Data(data), proof.nodes.len())
}

/// Waits until `clone` has asked for all that it does not have, or for as much as it asks for at one
/// time. Empty when it has everything.
async fn next_requests(clone: &Hypercore, puppet: &mut Puppet) -> Vec<Request> {
    let mut requests = Vec::new();
    loop {
        let mut next = pin!(puppet.request());
        let mut quiet = 0;
        let request = loop {
            let is_all = clone.downloaded(..) + requests.len() as u64 == BLOCKS;
            if is_all || quiet > 20 && !requests.is_empty() {
                return requests;
            }
            // It may also be storing what it was sent before.
            quiet += 1;
            let soon = async_std::future::timeout(Duration::from_millis(10), next.as_mut());
            if let Ok(request) = soon.await {
                break request.expect("a connection");
            }
        };
        requests.extend((!request.hash).then_some(request));
    }
}

/// What a clone asks for that downloads everything, with what `disturb` does to the requests that
/// have come. Returns how many nodes all answers have.
async fn nodes_of_clone(
    extensions: &[&str],
    mut disturb: impl FnMut(&mut Vec<Request>) -> Option<Unhave>,
) -> usize {
    let origin = writer(BLOCKS as usize).await;
    let clone = clone_of(&origin, false).await;
    let mut puppet = Puppet::with_extensions(&clone, extensions).await;
    puppet.send(have(0, 1)).await;
    let mut nodes = 0;
    // With the first block comes where the log ends. Only then is anything under way.
    let first = soon("a request", puppet.request()).await.unwrap();
    let (message, count) = answer(&origin, &first).await;
    puppet.send(message).await;
    nodes += count;
    soon("the first block", clone.get(0)).await.unwrap();
    puppet.send(have(1, BLOCKS - 1)).await;
    loop {
        let requests = &mut next_requests(&clone, &mut puppet).await;
        if requests.is_empty() {
            break;
        }
        if let Some(unhave) = disturb(requests) {
            let (start, length) = (unhave.start, unhave.length);
            puppet.send(Message::Unhave(unhave)).await;
            puppet.send(have(start, length)).await;
        }
        for request in requests.iter() {
            let (message, count) = answer(&origin, request).await;
            puppet.send(message).await;
            nodes += count;
        }
    }
    for index in 0..BLOCKS {
        let (ours, theirs) = (clone.get(index).await, origin.get(index).await);
        assert_eq!(ours.unwrap(), theirs.unwrap());
    }
    assert_eq!(clone.peers().len(), 1, "nobody was to blame");
    nodes
}

#[test]
fn a_request_counts_on_the_answers_to_those_before_it() {
    run(async {
        let alone = nodes_of_clone(&[], |_| None).await;
        let counting = nodes_of_clone(&["hypercore/exact-digests"], |_| None).await;
        // Six for the first, and one for each pair of each layer of the tree that is left.
        assert_eq!(counting as u64, 6 + (BLOCKS - 1 - 6));
        assert!(alone > 3 * counting, "{alone} without, {counting} with");
    });
}

#[test]
fn what_counted_on_an_answer_that_did_not_come_is_asked_for_again() {
    run(async {
        let mut disturbed = false;
        let nodes = nodes_of_clone(&["hypercore/exact-digests"], |requests| {
            if std::mem::replace(&mut disturbed, true) {
                return None;
            }
            let (start, length) = (requests.remove(0).index, 1);
            Some(Unhave { start, length })
        });
        nodes.await;
    });
}

#[test]
fn answers_in_another_order_are_nobodys_fault() {
    run(async {
        let mut disturbed = false;
        let nodes = nodes_of_clone(&["hypercore/exact-digests"], |requests| {
            if !std::mem::replace(&mut disturbed, true) {
                requests.reverse();
            }
            None
        });
        nodes.await;
    });
}

/// It could go on for ever: what comes in another order is not to blame for what it lacks.
#[test]
fn a_liar_that_answers_in_another_order_is_closed() {
    run(async {
        let origin = writer(BLOCKS as usize).await;
        let clone = clone_of(&origin, false).await;
        let mut puppet = Puppet::with_extensions(&clone, &["hypercore/exact-digests"]).await;
        puppet.send(have(0, 1)).await;
        let first = soon("a request", puppet.request()).await.unwrap();
        let (message, _) = answer(&origin, &first).await;
        puppet.send(message).await;
        soon("the first block", clone.get(0)).await.unwrap();
        puppet.send(have(1, BLOCKS - 1)).await;
        let mut lies = 0;
        let mut requests = Vec::new();
        while let Some(request) = soon("a request, or the end", puppet.request()).await {
            requests.extend((!request.hash).then_some(request));
            if requests.len() < 8 {
                continue;
            }
            for request in requests.drain(..).rev() {
                let (message, _) = answer(&origin, &request).await;
                let Message::Data(mut data) = message else {
                    continue;
                };
                data.value = Some("a lie".into());
                lies += 1;
                assert!(lies < 4000, "it is believed to be honest");
                puppet.send(Message::Data(data)).await;
            }
        }
    });
}

/// A peer with an older log proves blocks by roots that the newer one has no more, and that cannot be
/// compared with it. The first answer is of no use, and the second counted on it.
#[test]
fn what_counted_on_an_answer_of_no_use_is_asked_for_again() {
    run(async {
        let new = writer(53).await;
        let old = clone_with(&new, 0..53).await;
        let more = (53..93).map(|index| format!("block {index}"));
        new.append_batch(more).await.unwrap();
        let clone = clone_of(&new, true).await;
        let proof = new.proof(0).await.unwrap().unwrap();
        let first = new.get(0).await.unwrap();
        clone.put(0, Some(first), &proof).await.unwrap();

        let mut puppet = Puppet::with_extensions(&clone, &["hypercore/exact-digests"]).await;
        let wanted = task::spawn(clone.download(44..46));
        for origin in [&old, &new] {
            // It is asked again once it has a longer log.
            puppet.send(have(1, origin.length() - 1)).await;
            let mut requests = Vec::new();
            while requests.len() < 2 {
                let request = soon("a request", puppet.request()).await.unwrap();
                requests.extend((!request.hash).then_some(request));
            }
            assert!(requests[1].nodes == 1 || origin.length() > 53);
            let answers = [
                answer(origin, &requests[0]).await.0,
                answer(origin, &requests[1]).await.0,
            ];
            puppet.send_all(&answers).await;
        }
        soon("both blocks", wanted).await.unwrap();
    });
}
