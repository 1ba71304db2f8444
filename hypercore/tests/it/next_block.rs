//! The extension by which a block is asked for before it is there.

use std::time::Duration;

use hypercore::{
    Hypercore,
    wire::{Cancel, Data, DataNode, Message, Request, Unhave},
};

use crate::{
    puppet::{Puppet, have},
    support::{clone_of, run, soon, start, writer},
};

const EXTENSION: [&str; 1] = ["hypercore/next-block"];

// ---- as who is asked ----------------------------------------------------------------------------

fn request(index: u64) -> Message {
    Message::Request(Request {
        index,
        ..Request::default()
    })
}

/// The next block or refusal that comes: its number, and whether it is a block.
async fn answer(puppet: &mut Puppet) -> (u64, bool) {
    loop {
        match soon("an answer", puppet.message()).await.unwrap() {
            Message::Data(data) if data.value.is_some() => return (data.index, true),
            Message::Unhave(unhave) => return (unhave.start, false),
            _ => {}
        }
    }
}

#[test]
fn a_request_is_kept_until_the_block_is_there() {
    run(async {
        let core = writer(4).await;
        let mut puppet = Puppet::with_extensions(&core, &EXTENSION).await;
        puppet.send(request(4)).await;
        // Others are answered in between.
        puppet.send(request(1)).await;
        assert_eq!(answer(&mut puppet).await, (1, true));
        core.append("four").await.unwrap();
        assert_eq!(answer(&mut puppet).await, (4, true));
        // It was answered once: what comes next is about the next one.
        core.append("five").await.unwrap();
        puppet.send(request(2)).await;
        assert_eq!(answer(&mut puppet).await, (2, true));
    });
}

#[test]
fn the_newest_request_is_kept() {
    run(async {
        let core = writer(4).await;
        let mut puppet = Puppet::with_extensions(&core, &EXTENSION).await;
        puppet.send_all(&[request(4), request(5)]).await;
        puppet.send(request(1)).await;
        assert_eq!(answer(&mut puppet).await, (1, true));
        core.append_batch(["four", "five"]).await.unwrap();
        assert_eq!(answer(&mut puppet).await, (5, true));
    });
}

#[test]
fn a_request_that_is_taken_back_is_not_answered() {
    run(async {
        let core = writer(4).await;
        let mut puppet = Puppet::with_extensions(&core, &EXTENSION).await;
        let cancel = Message::Cancel(Cancel {
            index: 4,
            ..Cancel::default()
        });
        puppet.send_all(&[request(4), cancel, request(1)]).await;
        assert_eq!(answer(&mut puppet).await, (1, true));
        core.append("four").await.unwrap();
        puppet.send(request(2)).await;
        assert_eq!(answer(&mut puppet).await, (2, true));
    });
}

/// As Node's peers do.
#[test]
fn without_the_extension_it_is_refused() {
    run(async {
        let core = writer(4).await;
        let mut puppet = Puppet::with_extensions(&core, &[]).await;
        puppet.send(request(4)).await;
        assert_eq!(answer(&mut puppet).await, (4, false));
    });
}

// ---- as who asks --------------------------------------------------------------------------------

/// Block `index` of `origin`, or only the proof of it.
pub(crate) async fn data(origin: &Hypercore, index: u64, hash: bool) -> Message {
    let proof = origin.proof(index).await.unwrap().expect("it has all");
    let node = |node: &hypercore::merkle::Node| DataNode {
        index: node.index.get(),
        hash: node.hash,
        size: node.size,
    };
    let value = origin.get(index).await.unwrap();
    Message::Data(Data {
        index,
        value: (!hash).then_some(value),
        nodes: proof.nodes.iter().map(node).collect(),
        signature: proof.signature.map(Into::into),
    })
}

/// The number of the block that is asked for next, with a Request or a Cancel. Proofs alone are sent.
async fn asked(puppet: &mut Puppet, origin: &Hypercore) -> (&'static str, u64) {
    loop {
        match soon("a request", puppet.message()).await.unwrap() {
            Message::Request(request) if request.hash => {
                let proof = data(origin, request.index, true).await;
                puppet.send(proof).await;
            }
            Message::Request(request) => return ("request", request.index),
            Message::Cancel(cancel) => return ("cancel", cancel.index),
            _ => {}
        }
    }
}

/// A clone of a log of four blocks, and a peer of it that has told that it has those.
async fn reader() -> (Hypercore, Hypercore, Puppet) {
    let origin = writer(4).await;
    let clone = clone_of(&origin, true).await;
    let mut puppet = Puppet::with_extensions(&clone, &EXTENSION).await;
    puppet.send(have(0, 4)).await;
    (origin, clone, puppet)
}

#[test]
fn a_block_that_comes_by_itself_was_asked_for() {
    run(async {
        let (origin, clone, mut puppet) = reader().await;
        // More often than a peer may send what nobody asked for.
        for index in 4..30 {
            let get = clone.get(index);
            let mut get = std::pin::pin!(get);
            start(get.as_mut()).await;
            assert_eq!(asked(&mut puppet, &origin).await, ("request", index));
            origin.append(format!("block {index}")).await.unwrap();
            let message = data(&origin, index, false).await;
            puppet.send_all(&[have(index, 1), message]).await;
            let block = soon("the block", get).await.unwrap();
            assert_eq!(block, format!("block {index}"));
        }
        assert_eq!(clone.peers().len(), 1);
    });
}

#[test]
fn what_nobody_wants_any_more_is_taken_back() {
    run(async {
        let (origin, clone, mut puppet) = reader().await;
        {
            let mut get = std::pin::pin!(clone.get(4));
            start(get.as_mut()).await;
            assert_eq!(asked(&mut puppet, &origin).await, ("request", 4));
        }
        // Something else happens, and it is noticed.
        let mut get = std::pin::pin!(clone.get(0));
        start(get.as_mut()).await;
        let message = data(&origin, 0, false).await;
        let mut next = asked(&mut puppet, &origin).await;
        // On a busy machine the connection may have looked before.
        let is_noticed = next == ("cancel", 4);
        if is_noticed {
            next = asked(&mut puppet, &origin).await;
        }
        assert_eq!(next, ("request", 0));
        puppet.send(message).await;
        soon("the block", get).await.unwrap();
        if !is_noticed {
            assert_eq!(asked(&mut puppet, &origin).await, ("cancel", 4));
        }
    });
}

/// It would be asked for again and again.
#[test]
fn a_peer_that_refuses_is_asked_when_it_has_the_block() {
    run(async {
        let (origin, clone, mut puppet) = reader().await;
        let mut get = std::pin::pin!(clone.get(4));
        start(get.as_mut()).await;
        assert_eq!(asked(&mut puppet, &origin).await, ("request", 4));
        let (start, length) = (4, 1);
        puppet.send(Message::Unhave(Unhave { start, length })).await;
        let quiet =
            async_std::future::timeout(Duration::from_millis(200), asked(&mut puppet, &origin));
        assert!(quiet.await.is_err(), "it was asked for the same again");
        origin.append("block 4").await.unwrap();
        puppet.send(have(4, 1)).await;
        assert_eq!(asked(&mut puppet, &origin).await, ("request", 4));
        let message = data(&origin, 4, false).await;
        puppet.send(message).await;
        assert_eq!(soon("the block", get).await.unwrap(), "block 4");
    });
}

/// What was asked ahead is nothing to wait for: another peer has the block first.
#[test]
fn another_peer_that_has_the_block_is_asked_for_it() {
    run(async {
        let (origin, clone, mut first) = reader().await;
        let mut get = std::pin::pin!(clone.get(4));
        start(get.as_mut()).await;
        assert_eq!(asked(&mut first, &origin).await, ("request", 4));
        let mut other = Puppet::with_extensions(&clone, &EXTENSION).await;
        origin.append("block 4").await.unwrap();
        other.send(have(0, 5)).await;
        assert_eq!(asked(&mut other, &origin).await, ("request", 4));
        let message = data(&origin, 4, false).await;
        other.send(message).await;
        assert_eq!(soon("the block", get).await.unwrap(), "block 4");
        // From now on it is the other one that is asked ahead.
        let mut get = std::pin::pin!(clone.get(5));
        start(get.as_mut()).await;
        assert_eq!(asked(&mut other, &origin).await, ("request", 5));
        assert_eq!(asked(&mut first, &origin).await, ("cancel", 4));
    });
}
