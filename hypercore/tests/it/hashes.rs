//! Proofs by themselves: what `download` with `hash` brings, and what it is good for.

use futures_lite::future;
use hypercore::{
    Download, DownloadOptions, Error, Goal, Hypercore,
    merkle::{Node, NodeIndex, Proof, leaf_hash},
};

use crate::{
    exact_digests::answer,
    puppet::{Puppet, have},
    support::{clone_of, clone_with, connect_live, disconnected, run, soon, writer},
};

fn hashes(core: &Hypercore, blocks: impl std::ops::RangeBounds<u64>) -> Download {
    let mut options = DownloadOptions::default();
    options.hash = true;
    core.download_with(blocks, options)
}

/// Takes in block `index` of `writer` with nothing but the leaf beside it: no signature.
async fn put_bare(clone: &Hypercore, writer: &Hypercore, index: u64) -> Result<(), Error> {
    let value = writer.get(index).await.unwrap();
    let twin = writer.get(index ^ 1).await.unwrap();
    let neighbour = Node {
        index: NodeIndex::leaf(index ^ 1).unwrap(),
        hash: leaf_hash(&twin),
        size: twin.len() as u64,
    };
    let proof = Proof {
        nodes: vec![neighbour],
        signature: None,
    };
    clone.put(index, Some(value), &proof).await
}

#[test]
fn a_download_of_hashes_brings_proofs_and_no_blocks() {
    run(async {
        let core = writer(21).await;
        let clone = clone_of(&core, true).await;
        let connection = connect_live(&clone, &core).await;
        soon("proofs", hashes(&clone, 3..11)).await.unwrap();
        assert_eq!((clone.length(), clone.downloaded(..)), (21, 0));
        assert_eq!(core.stats().uploaded_blocks, 0);
        connection.cancel().await;
        disconnected(&clone).await;

        // Known already, with nobody there to ask.
        hashes(&clone, 3..11).await.unwrap();
        for index in [2, 3, 10] {
            put_bare(&clone, &core, index).await.unwrap();
            assert_eq!(
                clone.get(index).await.unwrap(),
                core.get(index).await.unwrap()
            );
        }
        let error = put_bare(&clone, &core, 12).await.unwrap_err();
        assert!(error.is_peer_fault(), "{error}");
    });
}

/// The proof of a block proves the one beside it, too.
#[test]
fn one_of_two_neighbours_is_asked_for() {
    run(async {
        let clone = clone_of(&writer(4).await, true).await;
        let (mut puppet, _) = Puppet::connect_live(&clone).await;
        puppet.send(have(0, 4)).await;
        let _wanted = hashes(&clone, ..4);
        for index in [0, 2] {
            let asked = soon("a request", puppet.request()).await.unwrap();
            assert_eq!((asked.index, asked.hash), (index, true));
        }
    });
}

/// At the end of a log of odd length it does not, and nobody was asked for the other one.
#[test]
fn the_neighbour_of_a_last_block_is_asked_of_another_peer() {
    run(async {
        let core = writer(7).await;
        let clone = clone_of(&core, true).await;
        let (mut puppet, _) = Puppet::connect_live(&clone).await;
        puppet.send(have(0, 7)).await;
        let wanted = hashes(&clone, ..8);
        let mut answers = Vec::new();
        while answers.len() < 4 {
            let asked = soon("a request", puppet.request()).await.unwrap();
            answers.push(answer(&core, &asked).await.0);
        }
        core.append("the eighth").await.unwrap();
        let _connection = connect_live(&clone, &core).await;
        let told = async {
            while !clone.peers().iter().any(|peer| peer.remote_length == 8) {
                async_std::task::yield_now().await;
            }
        };
        soon("what the other one has", told).await;
        puppet.send_all(&answers).await;
        soon("proofs", wanted).await.unwrap();
    });
}

#[test]
fn hashes_come_from_whoever_has_them() {
    run(async {
        let core = writer(40).await;
        let halves = [
            clone_with(&core, 0..20).await,
            clone_with(&core, 20..40).await,
        ];
        let clone = clone_of(&core, true).await;
        let mut waits = hashes(&clone, ..40);
        let first = connect_live(&clone, &halves[0]).await;
        let nineteen = soon("the first half", async {
            loop {
                match &clone.waiting()[..] {
                    [waiting] if waiting.goal == goal(20) => return,
                    _ => assert!(future::poll_once(&mut waits).await.is_none()),
                }
                future::yield_now().await;
            }
        });
        nineteen.await;
        let _second = connect_live(&clone, &halves[1]).await;
        soon("the second half", waits).await.unwrap();
        assert_eq!(clone.downloaded(..), 0);
        assert!(clone.waiting().is_empty());
        first.cancel().await;
    });
}

fn goal(missing: u64) -> Goal {
    let blocks = 0..40;
    Goal::Hashes { blocks, missing }
}

#[test]
fn a_download_of_hashes_waits_for_growth_and_is_taken_back() {
    run(async {
        let core = writer(2).await;
        let clone = clone_of(&core, true).await;
        let mut grows = hashes(&clone, ..4);
        let cancelled = hashes(&clone, 1..5);
        let dropped = hashes(&clone, ..);
        let _connection = connect_live(&clone, &core).await;
        soon("proofs", hashes(&clone, ..2)).await.unwrap();
        assert_eq!(clone.waiting().len(), 3);
        clone.cancel(1..9);
        assert!(matches!(cancelled.await, Err(Error::Cancelled)));
        drop(dropped);
        assert_eq!(clone.waiting().len(), 1);
        assert!(future::poll_once(&mut grows).await.is_none());
        core.append_batch(["c", "d"]).await.unwrap();
        soon("what was appended", &mut grows).await.unwrap();

        let closed = hashes(&clone, 9..10);
        clone.close().await.unwrap();
        assert!(matches!(closed.await, Err(Error::Closed)));
    });
}
