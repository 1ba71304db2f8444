//! Peers that do not behave.

use std::time::{Duration, Instant};

use async_std::task;
use futures_lite::{AsyncReadExt, AsyncWriteExt, StreamExt};
use hypercore::{
    Bytes, Ended, Error, KeyPair, ReplicateOptions, Role, merkle, wire,
    wire::{Data, DataNode, Have, Message, Unhave},
};

use crate::{
    next_block::data,
    puppet::{Puppet, have},
    support::{
        all_are_here, clone_of, connect, connect_live, connected, options, run, soon, start,
        tcp_pair, writer,
    },
};

/// One that owes answers was killed, perhaps, and may be back; one that does not has left.
#[test]
fn a_connection_that_just_ends() {
    run(async {
        for owes in [true, false] {
            let clone = clone_of(&writer(1).await, false).await;
            let (ours, theirs) = tcp_pair().await;
            let replication = clone.replicate(Role::Initiator, ReplicateOptions::live());
            let replication = replication.unwrap();
            let handle = replication.handle();
            let ours = task::spawn(replication.run(ours));
            let mut puppet = Puppet::new(&clone, theirs).await;
            let nothing = Message::Have(Have {
                start: 0,
                length: 1 << 20,
                bitfield: Some(Bytes::new()),
                ack: false,
            });
            while !matches!(puppet.message().await.unwrap(), Message::Want(_)) {}
            puppet.send(nothing).await;
            if owes {
                puppet.send(have(0, 1)).await;
                soon("a request", puppet.request()).await.unwrap();
            }
            puppet.end();
            let ended = soon("the end", ours).await.unwrap();
            assert_eq!((ended, handle.owed_answers()), (Ended::RemoteClosed, owes));
        }
    });
}

/// Who is gone without having read all we said resets the connection. That is no failure if it has sent
/// all that it was asked for.
#[test]
fn a_connection_that_is_reset() {
    run(async {
        for owes in [true, false] {
            let origin = writer(2).await;
            let clone = clone_of(&origin, true).await;
            let (mut puppet, ours) = Puppet::connect_live(&clone).await;
            while !matches!(puppet.message().await.unwrap(), Message::Want(_)) {}
            let all = Message::Have(Have {
                start: 0,
                length: 1 << 20,
                // One byte, of which two bits are set.
                bitfield: Some(Bytes::from_static(&[2, 0b1100_0000])),
                ack: false,
            });
            puppet.send(all).await;
            let mut block = std::pin::pin!(clone.get(0));
            start(block.as_mut()).await;
            soon("a request", puppet.request()).await.unwrap();
            let message = data(&origin, 0, false).await;
            puppet.send(message).await;
            soon("the block", block).await.unwrap();
            let mut other = std::pin::pin!(clone.get(1));
            if owes {
                start(other.as_mut()).await;
            }
            // It has been asked whether its log is the same, and perhaps for the block.
            task::sleep(Duration::from_millis(200)).await;
            drop(puppet);
            let ended = soon("the end", ours).await;
            assert_eq!(ended.is_err(), owes, "{ended:?}");
        }
    });
}

/// A liar is closed at its first lie, its blocks come from an honest peer.
#[test]
fn a_liar_is_closed_and_others_finish() {
    run(async {
        let origin = writer(20).await;
        let clone = clone_of(&origin, false).await;
        let (mut liar, ours) = Puppet::connect_live(&clone).await;
        liar.send(have(0, 20)).await;
        let request = soon("a request", liar.request()).await.unwrap();
        // True nodes of another log, so that all sizes fit.
        let other = KeyPair::from_seed(&[9; 32]);
        let block = merkle::Block::hash(Bytes::from_static(b"a lie!!"));
        let change =
            merkle::append::append(&merkle::Roots::default(), vec![block], &other).unwrap();
        let root = change.nodes()[0];
        let (_, signature) = change.signature().unwrap();
        liar.send(Message::Data(Data {
            index: request.index,
            value: Some(Bytes::from_static(b"a lie!!")),
            nodes: vec![DataNode {
                index: root.index.get(),
                hash: root.hash,
                size: root.size,
            }],
            signature: Some(*signature.as_bytes()),
        }))
        .await;
        let error = soon("the end", ours).await.unwrap_err();
        assert!(error.is_peer_fault(), "{error}");
        assert_eq!((clone.length(), clone.downloaded(..)), (0, 0));
        while soon("the end", liar.message()).await.is_some() {}

        let _honest = connect_live(&clone, &origin).await;
        soon("all blocks", clone.download(0..20)).await.unwrap();
        all_are_here(&clone, 20).await;
    });
}

/// One peer is honest, and one changes a bit of a block: only the second is closed.
#[test]
fn a_wrong_bit_closes_only_who_sent_it() {
    run(async {
        let origin = writer(1).await;
        let clone = clone_of(&origin, true).await;
        let honest = connect_live(&clone, &origin).await;
        soon("the length", clone.update()).await.unwrap();
        let (mut liar, ours) = Puppet::connect_live(&clone).await;
        liar.send(have(0, 2)).await;
        let mut get = Box::pin(clone.get(1));
        assert!(futures_lite::future::poll_once(&mut get).await.is_none());
        let probe = soon("a request", liar.request()).await.unwrap();
        assert_eq!((probe.index, probe.hash), (0, true));
        let request = soon("a request", liar.request()).await.unwrap();
        assert_eq!((request.index, request.hash), (1, false));
        liar.send(Message::Data(Data {
            index: 1,
            value: Some(Bytes::from_static(b"BLOCK 1")),
            nodes: Vec::new(),
            signature: None,
        }))
        .await;
        let error = soon("the end", ours).await.unwrap_err();
        assert!(error.is_peer_fault(), "{error}");
        origin.append("block 1").await.unwrap();
        assert_eq!(soon("the block", get).await.unwrap(), "block 1");
        assert_eq!(clone.peers().len(), 1);
        honest.cancel().await;
    });
}

/// What a peer was asked for is asked of others when it goes away.
#[test]
fn a_peer_that_vanishes_half_way() {
    run(async {
        let origin = writer(100).await;
        let clone = clone_of(&origin, false).await;
        let (mut vanishing, ours) = Puppet::connect_live(&clone).await;
        vanishing.send(have(0, 100)).await;
        soon("a request", vanishing.request()).await.unwrap();
        let _honest = connect_live(&clone, &origin).await;
        connected(&clone, 2).await;
        drop(vanishing);
        let _ = soon("the end", ours).await;
        soon("all blocks", clone.download(0..100)).await.unwrap();
        all_are_here(&clone, 100).await;
    });
}

/// What a peer says it does not have, after it was asked, is asked of others, and it stays.
#[test]
fn a_peer_that_refuses_a_request() {
    run(async {
        let origin = writer(3).await;
        let clone = clone_of(&origin, true).await;
        let (mut refusing, _ours) = Puppet::connect_live(&clone).await;
        refusing.send(have(0, 3)).await;
        let mut get = Box::pin(clone.get(1));
        assert!(futures_lite::future::poll_once(&mut get).await.is_none());
        let request = soon("a request", refusing.request()).await.unwrap();
        assert_eq!(request.index, 1);
        let _honest = connect_live(&clone, &origin).await;
        connected(&clone, 2).await;
        refusing
            .send(Message::Unhave(Unhave {
                start: 1,
                length: 1,
            }))
            .await;
        assert_eq!(soon("the block", get).await.unwrap(), "block 1");
        assert_eq!(clone.peers().len(), 2);
    });
}

/// The connections to others did not hear that nothing is missing any more, and stayed.
#[test]
fn a_peer_that_withdraws_what_is_missing() {
    run(async {
        let origin = writer(5).await;
        let clone = clone_of(&origin, false).await;
        let (mut peer, _ours) = Puppet::connect_live(&clone).await;
        peer.send(have(5, 5)).await;
        soon("a request", peer.request()).await.unwrap();
        let all = ReplicateOptions::default;
        let ends = connect(&clone, all(), &origin, all()).await;
        soon("the blocks", clone.download(0..5)).await.unwrap();
        // Until the blocks are durable, which is looked after by the connections.
        task::sleep(Duration::from_secs(2)).await;
        assert_eq!(clone.peers().len(), 2, "the others may be anywhere");
        let start = Instant::now();
        peer.send(Message::Unhave(Unhave {
            start: 5,
            length: 5,
        }))
        .await;
        let (ours, theirs) = soon("the end", ends).await;
        let complete = (Ended::Complete, Ended::Complete);
        assert_eq!((ours.unwrap(), theirs.unwrap()), complete);
        assert!(start.elapsed() < Duration::from_secs(2));
    });
}

/// Node's "request timeouts".
#[test]
fn a_peer_that_never_answers_is_left() {
    run(async {
        let origin = writer(3).await;
        let clone = clone_of(&origin, false).await;
        let impatient = options(|options| {
            options.live = true;
            options.timeout = Some(Duration::from_millis(300));
        });
        let (mut silent, ours) = Puppet::connect(&clone, impatient).await;
        silent.send(have(0, 3)).await;
        soon("a request", silent.request()).await.unwrap();
        let _honest = connect_live(&clone, &origin).await;
        soon("all blocks", clone.download(0..3)).await.unwrap();
        let error = soon("the end", ours).await.unwrap_err();
        let timeout = matches!(error, Error::RequestTimeout { .. } | Error::Wire(_));
        assert!(timeout, "{error}");
        drop(silent);
    });
}

/// Blocks that nobody asked for are dropped, and whoever keeps sending them is closed.
#[test]
fn pushed_blocks_are_not_stored() {
    run(async {
        let origin = writer(17).await;
        let clone = clone_of(&origin, true).await;
        let (mut pushing, ours) = Puppet::connect_live(&clone).await;
        for index in 0..17 {
            // True ones, which would be stored had anybody asked for them.
            let proof = origin.proof(index).await.unwrap().unwrap();
            let node = |node: &merkle::Node| DataNode {
                index: node.index.get(),
                hash: node.hash,
                size: node.size,
            };
            let signature = proof.signature.unwrap();
            pushing
                .send(Message::Data(Data {
                    index,
                    value: Some(origin.get(index).await.unwrap()),
                    nodes: proof.nodes.iter().map(node).collect(),
                    signature: Some(*signature.as_bytes()),
                }))
                .await;
        }
        let error = soon("the end", ours).await.unwrap_err();
        assert!(matches!(error, Error::UnrequestedData), "{error}");
        assert_eq!((clone.length(), clone.downloaded(..)), (0, 0));
    });
}

/// Whoever knows the discovery key but not the key is told nothing about the log.
#[test]
fn the_discovery_key_alone_opens_nothing() {
    use wire::{Body, Frame, MessageStream, Open, Received, SecureStream, SessionOptions};

    run(async {
        for capability in [Some([0; 32]), None] {
            let origin = writer(3).await;
            let mut events = origin.events();
            let (ours, mut theirs) = tcp_pair().await;
            let replication = origin
                .replicate(Role::Initiator, ReplicateOptions::live())
                .unwrap();
            let ours = task::spawn(replication.run(ours));

            let mut stream =
                SecureStream::new(&SessionOptions::new(Role::Responder).unwrap()).unwrap();
            let mut opened = false;
            let mut told = Vec::new();
            let hung_up = async {
                loop {
                    while let Some(received) = stream.poll().unwrap() {
                        if let Received::Frame(frame) = received {
                            told.push(frame);
                        }
                    }
                    if stream.is_handshaken() && !opened {
                        opened = true;
                        let open = Frame {
                            channel: 1,
                            body: Body::Open(Open {
                                discovery_key: *origin.discovery_key().as_bytes(),
                                capability,
                            }),
                        };
                        let encode = &mut |out: &mut _| open.encode(out);
                        stream.send(open.encoded_length(), encode).unwrap();
                    }
                    while !stream.outgoing().is_empty() {
                        let count = theirs.write(stream.outgoing()).await.unwrap();
                        stream.sent(count);
                    }
                    let count = theirs.read(stream.receive_buffer()).await.unwrap_or(0);
                    if count == 0 {
                        return;
                    }
                    stream.received(count).unwrap();
                }
            };
            soon("the end", hung_up).await;
            let error = soon("the end", ours).await.unwrap_err();
            assert!(error.is_peer_fault(), "{error}");
            assert!(opened);
            // Our own Open, in which the discovery key and a capability for this connection are.
            assert!(told.len() <= 1, "{told:?}");
            assert!(origin.peers().is_empty());
            origin.close().await.unwrap();
            assert_eq!(events.next().await, None, "no peer was open");
        }
    });
}

/// A handshake that never comes does not keep the connection for ever.
#[test]
fn bytes_that_are_no_handshake() {
    run(async {
        let origin = writer(1).await;
        let (ours, mut theirs) = tcp_pair().await;
        let replication = origin
            .replicate(Role::Responder, ReplicateOptions::default())
            .unwrap();
        let ours = task::spawn(replication.run(ours));
        theirs
            .write_all(b"\x80\x80\x80GET / HTTP/1.1")
            .await
            .unwrap();
        let error = soon("the end", ours).await.unwrap_err();
        assert!(error.is_peer_fault(), "{error}");
        let mut rest = Vec::new();
        let _ = theirs.read_to_end(&mut rest).await;
        assert!(origin.peers().is_empty());
    });
}

/// Have and Unhave of any length cost the same: nothing is counted block by block.
#[test]
fn ranges_of_any_length_are_cheap() {
    run(async {
        let clone = clone_of(&writer(1).await, true).await;
        let (mut peer, ours) = Puppet::connect_live(&clone).await;
        let start = Instant::now();
        for _ in 0..100 {
            peer.send(have(0, 1 << 51)).await;
            peer.send(Message::Unhave(Unhave {
                start: 0,
                length: 1 << 51,
            }))
            .await;
        }
        peer.send(have(1 << 40, 1)).await;
        let told = async {
            while clone
                .peers()
                .first()
                .is_none_or(|peer| peer.remote_length != (1 << 40) + 1)
            {
                task::yield_now().await;
            }
        };
        soon("the last Have", told).await;
        assert!(start.elapsed() < Duration::from_secs(5));
        ours.cancel().await;
    });
}
