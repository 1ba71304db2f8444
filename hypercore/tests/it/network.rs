//! Several cores, several connections, and peers that do not behave.

use std::time::{Duration, Instant};

use async_std::task;
use futures_lite::{AsyncReadExt, AsyncWriteExt, StreamExt, future::poll_once, future::zip, io};
use hypercore::{
    Bytes, Ended, Error, Event, Hypercore, KeyPair, PeerInfo, ReplicateOptions, Replication, Role,
    merkle, wire,
    wire::{Data, DataNode, Have, Message, Unhave},
};

use crate::{
    puppet::Puppet,
    support::{
        clone_of, clone_with, connect, connect_live, connected, disconnected, drain, event,
        get_if_available, options, run, soon, tcp_pair, writer,
    },
};

/// A puppet connected to `core`, which takes it for a live peer, and the task of our side.
async fn puppet(core: &Hypercore) -> (Puppet, task::JoinHandle<Result<Ended, Error>>) {
    let (ours, theirs) = tcp_pair().await;
    let replication = core
        .replicate(Role::Initiator, ReplicateOptions::live())
        .unwrap();
    let ours = task::spawn(replication.run(ours));
    (Puppet::new(core, theirs).await, ours)
}

fn have(start: u64, length: u64) -> Message {
    Message::Have(Have {
        start,
        length,
        bitfield: None,
        ack: false,
    })
}

async fn all_are_here(core: &Hypercore, count: u64) {
    for index in 0..count {
        assert_eq!(core.get(index).await.unwrap(), format!("block {index}"));
    }
    assert_eq!(core.audit().await.unwrap().valid, count);
}

// ---- who has what ---------------------------------------------------------------------------

#[test]
fn six_seeders_with_a_part_each_make_a_whole() {
    run(async {
        let origin = writer(60).await;
        let mut seeders = Vec::new();
        for part in 0..6 {
            seeders.push(clone_with(&origin, part * 10..part * 10 + 10).await);
        }
        let clone = clone_of(&origin, false).await;
        let mut connections = Vec::new();
        for seeder in &seeders {
            connections.push(connect_live(&clone, seeder).await);
        }
        soon("all blocks", clone.download(0..60)).await.unwrap();
        all_are_here(&clone, 60).await;
        let mut downloaded = 0;
        for peer in clone.peers() {
            assert_eq!(peer.stats.downloaded_blocks, 10, "each has ten");
            downloaded += peer.stats.downloaded_bytes;
        }
        assert_eq!(downloaded, clone.byte_length());
    });
}

/// Two readers complete each other, and end. Node's "non live, two way".
#[test]
fn two_readers_complete_each_other() {
    run(async {
        let origin = writer(40).await;
        // What each has already was wanted by nobody but the test.
        let halves = [0, 1].map(|half| (0..40).filter(move |index| index % 2 == half));
        let mut stores = Vec::new();
        for half in halves {
            let memory = hypercore::storage::Memory::new();
            let sparse = Hypercore::options().key(origin.key()).sparse(true);
            let clone = sparse.open_storage(memory.clone()).await.unwrap();
            let connection = connect_live(&clone, &origin).await;
            for index in half {
                clone.get(index).await.unwrap();
            }
            connection.cancel().await;
            disconnected(&clone).await;
            clone.close().await.unwrap();
            stores.push(memory);
        }
        let mut readers = Vec::new();
        for memory in stores {
            readers.push(Hypercore::options().open_storage(memory).await.unwrap());
        }
        for reader in &readers {
            assert_eq!(reader.downloaded(..), 20);
            assert!(!reader.is_writable());
        }
        let default = ReplicateOptions::default;
        let connection = connect(&readers[0], default(), &readers[1], default()).await;
        let ends = soon("the end", connection).await;
        assert!(
            matches!(ends, (Ok(Ended::Complete), Ok(Ended::Complete))),
            "{ends:?}"
        );
        for reader in &readers {
            all_are_here(reader, 40).await;
        }
    });
}

/// Node's "basic 3-way replication": what A has from the writer, B has from A.
#[test]
fn blocks_travel_along_a_live_chain() {
    run(async {
        let origin = writer(3).await;
        let (a, b) = (
            clone_of(&origin, false).await,
            clone_of(&origin, false).await,
        );
        let _first = connect_live(&a, &origin).await;
        let _second = connect_live(&b, &a).await;
        soon("old blocks", b.download(0..3)).await.unwrap();
        for index in 3..20 {
            origin.append(format!("block {index}")).await.unwrap();
            soon("a new block", b.download(index..index + 1))
                .await
                .unwrap();
        }
        all_are_here(&b, 20).await;
        assert_eq!(origin.peers().len(), 1);
        let uploaded = origin.peers()[0].stats.uploaded_blocks;
        assert_eq!(uploaded, 20, "once is enough");
    });
}

/// Node's "replicate twice" and "double replicate": two connections between the same cores.
#[test]
fn two_connections_share_the_work() {
    run(async {
        let origin = writer(2000).await;
        let clone = clone_of(&origin, true).await;
        let _first = connect_live(&clone, &origin).await;
        let _second = connect_live(&clone, &origin).await;
        let both_have_told = async {
            let have_told = |peers: &[PeerInfo]| {
                peers.len() == 2 && peers.iter().all(|peer| peer.remote_length == 2000)
            };
            while !have_told(&clone.peers()) {
                task::yield_now().await;
            }
        };
        soon("what both have", both_have_told).await;
        soon("all blocks", clone.download(0..2000)).await.unwrap();
        all_are_here(&clone, 2000).await;
        let peers = clone.peers();
        let blocks: u64 = peers.iter().map(|peer| peer.stats.downloaded_blocks).sum();
        assert_eq!(blocks, 2000, "{blocks} blocks came");
        assert!(peers.iter().all(|peer| peer.stats.downloaded_blocks > 0));
    });
}

#[test]
fn a_reader_follows_a_thousand_live_appends() {
    run(async {
        let origin = writer(0).await;
        let reader = Hypercore::options()
            .key(origin.key())
            .sparse(true)
            .eager_update(true)
            .open_memory()
            .await
            .unwrap();
        let lazy = clone_of(&origin, true).await;
        let _following = connect_live(&reader, &origin).await;
        let _idle = connect_live(&lazy, &origin).await;
        connected(&origin, 2).await;
        for index in 0..1000 {
            origin.append(format!("block {index}")).await.unwrap();
        }
        let followed = async {
            while reader.length() < 1000 {
                task::yield_now().await;
            }
        };
        soon("the length", followed).await;
        assert_eq!(reader.byte_length(), origin.byte_length());
        assert_eq!(reader.downloaded(..), 0, "a length, no blocks");
        assert_eq!(soon("a block", reader.get(777)).await.unwrap(), "block 777");
        assert_eq!(lazy.length(), 0, "nobody asked");
    });
}

/// Node's "replicate while clearing".
#[test]
fn cleared_blocks_are_withdrawn_and_come_again() {
    run(async {
        let origin = writer(4).await;
        let clone = clone_of(&origin, true).await;
        let connection = connect_live(&clone, &origin).await;
        soon("a block", clone.get(0)).await.unwrap();
        soon("a block", clone.get(3)).await.unwrap();

        origin.clear(1..2).await.unwrap();
        // Appended later, so announced later: now the other side knows about the clearing.
        origin.append("block 4").await.unwrap();
        soon("the length", clone.update()).await.unwrap();
        let get = soon("an answer", clone.get_with(1, get_if_available())).await;
        assert!(matches!(get, Err(Error::NotAvailable)), "{get:?}");

        clone.clear(0..1).await.unwrap();
        assert!(!clone.has(0));
        assert_eq!(soon("a block", clone.get(0)).await.unwrap(), "block 0");
        connection.cancel().await;
    });
}

// ---- options --------------------------------------------------------------------------------

/// Node's "replicate no upload" and "get block while not uploading".
#[test]
fn a_peer_that_does_not_upload_gives_nothing() {
    run(async {
        let origin = writer(2).await;
        let clone = clone_of(&origin, false).await;
        let silent = options(|options| {
            options.live = true;
            options.upload = false;
        });
        let _connection = connect(&clone, ReplicateOptions::live(), &origin, silent).await;
        connected(&clone, 1).await;
        let get = soon("an answer", clone.get_with(0, get_if_available())).await;
        assert!(matches!(get, Err(Error::NotAvailable)), "{get:?}");
        assert_eq!(clone.length(), 0);
    });
}

/// Node's "replicate no download".
#[test]
fn a_clone_that_does_not_download_takes_nothing_and_ends() {
    run(async {
        let origin = writer(2).await;
        let clone = clone_of(&origin, false).await;
        let upload_only = options(|options| options.download = Some(false));
        let ends = connect(&clone, upload_only, &origin, ReplicateOptions::default()).await;
        let ends = soon("the end", ends).await;
        assert!(
            matches!(ends, (Ok(Ended::Complete), Ok(Ended::Complete))),
            "{ends:?}"
        );
        assert_eq!((clone.length(), clone.downloaded(..)), (0, 0));
    });
}

/// Node's "replicate with ack", "ack only when something is downloaded".
#[test]
fn every_stored_block_is_acknowledged() {
    run(async {
        let origin = writer(5).await;
        let clone = clone_of(&origin, true).await;
        let mut events = origin.events();
        let acks = options(|options| {
            options.live = true;
            options.ack = true;
        });
        let _connection = connect(&clone, ReplicateOptions::live(), &origin, acks).await;
        soon("the length", clone.update()).await.unwrap();
        for index in [4, 1] {
            soon("a block", clone.get(index)).await.unwrap();
            let ack = event(&mut events, |event| matches!(event, Event::Ack { .. })).await;
            assert!(
                matches!(ack, Event::Ack { index: acked, .. } if acked == index),
                "{ack:?}"
            );
        }
        let rest = drain(&mut events).await;
        assert!(
            !rest.iter().any(|event| matches!(event, Event::Ack { .. })),
            "{rest:?}"
        );
    });
}

/// Node's "replicate with NOISE disabled".
#[test]
fn without_encryption_or_handshake() {
    run(async {
        for (noise, encrypted) in [(true, true), (true, false), (false, false)] {
            let plain = || {
                options(|options| {
                    options.noise = noise;
                    options.encrypted = encrypted;
                })
            };
            let origin = writer(50).await;
            let clone = clone_of(&origin, false).await;
            let ends = soon("the end", connect(&clone, plain(), &origin, plain()).await).await;
            assert!(
                matches!(ends, (Ok(Ended::Complete), Ok(Ended::Complete))),
                "{ends:?}"
            );
            all_are_here(&clone, 50).await;
        }
    });
}

/// The largest block that fits into a message with its proof, which takes a few kilobytes at most.
#[test]
fn a_block_that_fills_a_message_is_replicated() {
    run(async {
        let origin = writer(100).await;
        let large: Bytes = vec![7; 8 * 1024 * 1024 - 8 * 1024].into();
        origin.append(large.clone()).await.unwrap();
        let clone = clone_of(&origin, false).await;
        let default = ReplicateOptions::default;
        let ends = soon(
            "the end",
            connect(&clone, default(), &origin, default()).await,
        )
        .await;
        assert!(
            matches!(ends, (Ok(Ended::Complete), Ok(Ended::Complete))),
            "{ends:?}"
        );
        assert!(clone.get(100).await.unwrap() == large);
    });
}

// ---- transports -----------------------------------------------------------------------------

/// A replication is a duplex stream: two of them can be piped into each other.
#[test]
fn two_streams_are_piped() {
    run(async {
        let origin = writer(300).await;
        let clone = clone_of(&origin, false).await;
        let default = ReplicateOptions::default;
        let a = clone.replicate(Role::Initiator, default()).unwrap();
        let b = origin.replicate(Role::Responder, default()).unwrap();
        let ((a_read, mut a_write), (b_read, mut b_write)) = (io::split(a), io::split(b));
        let there = async {
            let copied = io::copy(a_read, &mut b_write).await;
            let _ = b_write.close().await;
            copied
        };
        let back = async {
            let copied = io::copy(b_read, &mut a_write).await;
            let _ = a_write.close().await;
            copied
        };
        let (there, back) = soon("the end", zip(there, back)).await;
        assert!(there.unwrap() > 0 && back.unwrap() > 300 * 7);
        all_are_here(&clone, 300).await;
    });
}

#[test]
fn many_cores_share_a_connection() {
    run(async {
        let mut pairs = Vec::new();
        for count in 0..20 {
            let origin = writer(count).await;
            let clone = clone_of(&origin, false).await;
            pairs.push((origin, clone));
        }
        let (client, server) = tcp_pair().await;
        let clones = Replication::new(Role::Initiator, ReplicateOptions::default()).unwrap();
        let origins = Replication::new(Role::Responder, ReplicateOptions::default()).unwrap();
        for (origin, clone) in &pairs {
            clones.add(clone).unwrap();
            clones.add(clone).unwrap();
            origins.add(origin).unwrap();
        }
        let ends = soon("the end", zip(clones.run(client), origins.run(server))).await;
        assert!(
            matches!(ends, (Ok(Ended::Complete), Ok(Ended::Complete))),
            "{ends:?}"
        );
        for ((_, clone), count) in pairs.iter().zip(0..) {
            assert_eq!(clone.length(), count);
            all_are_here(clone, count).await;
        }
    });
}

#[test]
fn a_core_joins_a_connection_that_runs() {
    run(async {
        let (first, second) = (writer(3).await, writer(5).await);
        let (a, b) = (
            clone_of(&first, false).await,
            clone_of(&second, false).await,
        );
        let (client, server) = tcp_pair().await;
        let ours = Replication::new(Role::Initiator, ReplicateOptions::live()).unwrap();
        let theirs = Replication::new(Role::Responder, ReplicateOptions::live()).unwrap();
        let (our_handle, their_handle) = (ours.handle(), theirs.handle());
        ours.add(&a).unwrap();
        theirs.add(&first).unwrap();
        let running = task::spawn(zip(ours.run(client), theirs.run(server)));
        soon("the first core", a.download(0..3)).await.unwrap();
        our_handle.add(&b).unwrap();
        task::yield_now().await;
        their_handle.add(&second).unwrap();
        soon("the second core", b.download(0..5)).await.unwrap();

        // One core closes; the other goes on.
        a.close().await.unwrap();
        second.append("block 5").await.unwrap();
        soon("a new block", b.download(0..6)).await.unwrap();
        disconnected(&first).await;
        running.cancel().await;
        disconnected(&b).await;
    });
}

/// A core that the remote does not have ends, so that nobody waits for ever.
#[test]
fn a_core_that_the_remote_does_not_have() {
    run(async {
        let (origin, other) = (writer(3).await, writer(3).await);
        let clone = clone_of(&origin, false).await;
        let default = ReplicateOptions::default;
        let ends = soon(
            "the end",
            connect(&clone, default(), &other, default()).await,
        )
        .await;
        assert!(
            matches!(ends, (Ok(Ended::Refused), Ok(Ended::Refused))),
            "{ends:?}"
        );
        assert_eq!(clone.length(), 0);
    });
}

#[test]
fn closing_a_core_ends_its_connection() {
    run(async {
        let origin = writer(3).await;
        let clone = clone_of(&origin, false).await;
        let (client, server) = tcp_pair().await;
        let default = ReplicateOptions::live;
        let ours = clone
            .replicate(Role::Initiator, default())
            .unwrap()
            .run(client);
        let theirs = origin
            .replicate(Role::Responder, default())
            .unwrap()
            .run(server);
        let _running = task::spawn(zip(ours, theirs));
        soon("the blocks", clone.download(0..3)).await.unwrap();
        let mut events = origin.events();
        clone.close().await.unwrap();
        event(&mut events, |event| {
            matches!(event, Event::PeerClose { .. })
        })
        .await;
        assert!(origin.peers().is_empty());
    });
}

// ---- peers that do not behave ---------------------------------------------------------------

/// A liar is closed at its first lie, its blocks come from an honest peer.
#[test]
fn a_liar_is_closed_and_others_finish() {
    run(async {
        let origin = writer(20).await;
        let clone = clone_of(&origin, false).await;
        let (mut liar, ours) = puppet(&clone).await;
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
            signature: Some(signature.as_bytes().try_into().unwrap()),
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
        let (mut liar, ours) = puppet(&clone).await;
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
        let (mut vanishing, ours) = puppet(&clone).await;
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
        let (mut refusing, _ours) = puppet(&clone).await;
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

/// Node's "request timeouts".
#[test]
fn a_peer_that_never_answers_is_left() {
    run(async {
        let origin = writer(3).await;
        let clone = clone_of(&origin, false).await;
        let (client, server) = tcp_pair().await;
        let impatient = options(|options| {
            options.live = true;
            options.timeout = Some(Duration::from_millis(300));
        });
        let ours = clone
            .replicate(Role::Initiator, impatient)
            .unwrap()
            .run(client);
        let ours = task::spawn(ours);
        let mut silent = Puppet::new(&clone, server).await;
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
        let (mut pushing, ours) = puppet(&clone).await;
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
                    signature: Some(signature.as_bytes().try_into().unwrap()),
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
    use futures_lite::{AsyncReadExt, AsyncWriteExt};
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

            let mut stream = SecureStream::new(&SessionOptions::new(false).unwrap()).unwrap();
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
        let (mut peer, ours) = puppet(&clone).await;
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

#[test]
fn a_peer_tells_what_it_is_asked_for_and_how_fast_it_answers() {
    run(async {
        let core = writer(3).await;
        let clone = clone_of(&core, true).await;
        let (client, server) = tcp_pair().await;
        let ours = Replication::new(Role::Initiator, ReplicateOptions::live()).unwrap();
        let id = ours.add(&clone).unwrap();
        assert_eq!(ours.add(&clone).unwrap(), id, "it is there already");
        let _ours = task::spawn(ours.run(client));
        let mut silent = Puppet::new(&clone, server).await;
        silent.send(have(0, 3)).await;
        let mut gets = [2, 0].map(|index| Box::pin(clone.get(index)));
        for get in &mut gets {
            assert!(poll_once(get).await.is_none());
        }
        for _ in 0..2 {
            while soon("a request", silent.request()).await.unwrap().hash {}
        }
        let peer = clone.peers().remove(0);
        assert_eq!(peer.id, id);
        let mut asked = peer.asked;
        asked.sort_unstable();
        assert_eq!(asked, [0, 2]);
        assert!(peer.in_flight >= 2, "{}", peer.in_flight);
        assert_eq!((peer.delay, peer.bytes_per_second), (None, None));

        let _answers = connect_live(&clone, &core).await;
        for get in gets {
            soon("a block", get).await.unwrap();
        }
        soon("a block", clone.get(1)).await.unwrap();
        let peers = clone.peers();
        let other = peers.iter().find(|peer| peer.id != id).unwrap();
        assert!(other.delay.is_some() && other.bytes_per_second.is_some());
    });
}
