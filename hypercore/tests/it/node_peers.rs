//! What `test/extensions.js`, `test/set-uploading-downloading.js` and the authentication of
//! `test/replicate.js` of Node's Hypercore 9 check.

use async_std::task;
use futures_lite::{StreamExt, future::poll_once};
use hypercore::{Error, Event, Hypercore, PeerId, ReplicateOptions, Utf8, wire::StaticKeyPair};

use crate::support::{
    Ends, clone_of, connect, connect_live, connected, drain, event, options, run, soon, writer,
};

/// A core and a sparse clone of it, not connected yet.
async fn pair() -> (Hypercore, Hypercore) {
    let core = writer(3).await;
    let clone = clone_of(&core, true).await;
    (core, clone)
}

/// Connects them, and waits until both know of it.
async fn join(core: &Hypercore, clone: &Hypercore) -> task::JoinHandle<Ends> {
    let connection = connect_live(clone, core).await;
    connected(core, 1).await;
    connected(clone, 1).await;
    connection
}

fn peer_of(core: &Hypercore) -> PeerId {
    core.peers()[0].id
}

// ---- test/extensions.js ---------------------------------------------------------------------

#[test]
fn send_and_receive_extension_messages() {
    run(async {
        let (core, clone) = pair().await;
        let ours = core.register_extension("greeting").unwrap();
        let theirs = clone.register_extension("greeting").unwrap();
        assert_eq!(ours.broadcast("nobody is here"), 0);
        let connection = join(&core, &clone).await;

        assert_eq!(ours.broadcast("hello"), 1);
        let (peer, message) = soon("a message", theirs.receive()).await.unwrap();
        assert_eq!((peer, &message[..]), (peer_of(&clone), &b"hello"[..]));
        assert!(theirs.send("hello to you", peer));
        let (peer, message) = soon("an answer", ours.receive()).await.unwrap();
        assert_eq!((peer, &message[..]), (peer_of(&core), &b"hello to you"[..]));
        assert!(!ours.send("who?", PeerId::NOBODY));
        // A longer one would end the connection.
        assert_eq!(ours.broadcast(vec![7; 65_537]), 0);
        assert_eq!(ours.broadcast(vec![7; 65_536]), 1);
        let (peer, message) = soon("a long message", theirs.receive()).await.unwrap();
        assert_eq!(message.len(), 65_536);

        // Blocks go on beside them, and an empty message is one, too.
        assert_eq!(soon("a block", clone.get(0)).await.unwrap(), "block 0");
        assert!(ours.send("", peer));
        assert_eq!(soon("nothing", theirs.receive()).await.unwrap().1, "");
        connection.cancel().await;
        clone.close().await.unwrap();
        assert_eq!(soon("the end", theirs.receive()).await, None);
    });
}

#[test]
fn send_and_receive_extension_messages_with_encoding() {
    run(async {
        let (core, clone) = pair().await;
        let mut ours = core.register_extension("text").unwrap().with_codec(Utf8);
        assert_eq!((ours.name(), ours.missed()), ("text", 0));
        let _connection = join(&core, &clone).await;
        // What is declared on a connection reaches the peer before a message does.
        let theirs = clone.register_extension("text").unwrap();
        let theirs_typed = theirs.with_codec(Utf8);
        assert_eq!(theirs_typed.broadcast(&"grüße".to_owned()).unwrap(), 1);
        let (_, text) = soon("a message", ours.receive()).await.unwrap();
        assert_eq!(text.unwrap(), "grüße");
        theirs.broadcast(&b"\xff"[..]);
        let (peer, text) = soon("a message", ours.next()).await.unwrap();
        assert!(text.is_err());
        assert!(ours.extension().send("plain", peer));
        assert_eq!(
            soon("a message", theirs.receive()).await.unwrap().1,
            "plain"
        );
    });
}

#[test]
fn send_and_receive_extension_messages_with_multiple_extensions() {
    run(async {
        let (core, clone) = pair().await;
        let mut ours: Vec<_> = ["one", "two", "three"]
            .map(|name| core.register_extension(name).unwrap())
            .into();
        let theirs: Vec<_> = ["three", "two", "only here", "one"]
            .map(|name| clone.register_extension(name).unwrap())
            .into();
        let _connection = join(&core, &clone).await;
        for extension in &theirs {
            extension.broadcast(extension.name().to_owned());
        }
        for extension in &mut ours {
            let (_, message) = soon("a message", extension.next()).await.unwrap();
            assert_eq!(message, extension.name());
        }

        // Numbers change when one goes; names do not.
        drop(ours.remove(0));
        for extension in &ours {
            extension.broadcast(extension.name().to_owned());
        }
        for extension in theirs
            .iter()
            .filter(|it| ["two", "three"].contains(&it.name()))
        {
            let (_, message) = soon("a message", extension.receive()).await.unwrap();
            assert_eq!(message, extension.name());
        }
        for extension in &theirs {
            assert!(poll_once(extension.receive()).await.is_none(), "no others");
        }
    });
}

#[test]
fn an_extension_has_its_name_alone_until_it_is_dropped() {
    run(async {
        let core = writer(0).await;
        let first = core.register_extension("name").unwrap();
        let second = core.register_extension("name");
        assert!(matches!(second, Err(Error::ExtensionExists { name }) if name == "name"));
        drop(first.clone());
        assert!(core.register_extension("name").is_err());
        drop(first);
        let _again = core.register_extension("name").unwrap();
        assert!(core.register_extension(&"x".repeat(257)).is_err());
        core.close().await.unwrap();
        assert!(matches!(
            core.register_extension("late"),
            Err(Error::Closed)
        ));
    });
}

/// Neither a receiver that does not read nor a remote that does not take can make us hold more.
#[test]
fn extension_messages_are_bounded() {
    run(async {
        let (core, clone) = pair().await;
        let ours = core.register_extension("flood").unwrap();
        let theirs = clone.register_extension("flood").unwrap();
        let _connection = join(&core, &clone).await;
        let peer = peer_of(&core);
        // Nothing is sent while this task does not wait.
        let large = vec![0; 60_000];
        let sent = (0..100).filter(|_| ours.send(large.clone(), peer)).count();
        assert!((10..100).contains(&sent), "{sent} of 100 fit");

        for index in 0..600_u32 {
            while !ours.send(index.to_string(), peer) {
                task::yield_now().await;
            }
        }
        // All have come when a block that is asked for afterwards has.
        soon("a block", clone.get(0)).await.unwrap();
        let mut received = 0;
        while let Some(Some(_)) = poll_once(theirs.receive()).await {
            received += 1;
        }
        assert!(received <= 256, "{received} waited");
        assert!(theirs.missed() > 0);
    });
}

// ---- test/set-uploading-downloading.js ------------------------------------------------------

#[test]
fn set_downloading() {
    run(async {
        let (core, clone) = pair().await;
        let ours = core.register_extension("ping").unwrap();
        let theirs = clone.register_extension("ping").unwrap();
        let _connection = join(&core, &clone).await;
        clone.set_downloading(false);
        let mut block = Box::pin(clone.get(1));
        assert!(poll_once(&mut block).await.is_none());
        // An extension's message comes after everything else that could be said.
        theirs.broadcast("ping");
        soon("a ping", ours.receive()).await;
        assert_eq!(core.stats().uploaded_blocks, 0);
        clone.set_downloading(true);
        assert_eq!(soon("a block", block).await.unwrap(), "block 1");

        // A connection to come is as it was said, too.
        let late = clone_of(&core, false).await;
        late.set_downloading(false);
        let ends = connect(&late, options(|_| {}), &core, options(|_| {})).await;
        let (here, there) = soon("the end", ends).await;
        here.unwrap();
        there.unwrap();
        assert_eq!(late.downloaded(..), 0);
    });
}

#[test]
fn set_uploading() {
    run(async {
        let (core, clone) = pair().await;
        core.set_uploading(false);
        let ours = core.register_extension("ping").unwrap();
        let theirs = clone.register_extension("ping").unwrap();
        let _connection = join(&core, &clone).await;
        let mut block = Box::pin(clone.get(1));
        assert!(poll_once(&mut block).await.is_none());
        theirs.broadcast("ping");
        soon("a ping", ours.receive()).await;
        assert_eq!(core.stats().uploaded_blocks, 0);
        core.set_uploading(true);
        assert_eq!(soon("a block", block).await.unwrap(), "block 1");
    });
}

#[test]
fn get_block_while_not_uploading() {
    run(async {
        let (core, clone) = pair().await;
        let _connection = join(&core, &clone).await;
        let first = soon("a block", clone.get(0)).await.unwrap();
        assert_eq!(first, "block 0");
        let mut events = core.events();
        for _ in 0..5 {
            core.set_uploading(false);
            core.set_uploading(true);
        }
        core.set_uploading(false);
        let mut block = Box::pin(clone.get(2));
        assert!(poll_once(&mut block).await.is_none());
        // Another holder answers instead.
        let other = crate::support::clone_with(&core_that_uploads(&core).await, [2]).await;
        let _connection = connect_live(&clone, &other).await;
        assert_eq!(soon("a block", block).await.unwrap(), "block 2");
        let uploads = drain(&mut events).await;
        let uploads = uploads
            .iter()
            .filter(|event| matches!(event, Event::Upload { .. }));
        assert_eq!(uploads.count(), 0);
    });
}

/// A copy of `core` put together from proofs, without any connection.
async fn core_that_uploads(core: &Hypercore) -> Hypercore {
    let copy = clone_of(core, true).await;
    for index in 0..core.length() {
        let proof = core.proof(index).await.unwrap().unwrap();
        let block = core.get(index).await.unwrap();
        copy.put(index, Some(block), &proof).await.unwrap();
    }
    copy
}

// ---- authentication, test/replicate.js ------------------------------------------------------

fn with_key(seed: u8) -> (ReplicateOptions, [u8; 32]) {
    let key_pair = StaticKeyPair::from_seed(&[seed; 32]);
    let key = key_pair.public_key();
    (options(|options| options.key_pair = Some(key_pair)), key)
}

#[test]
fn a_connection_is_authenticated() {
    run(async {
        let core = writer(3).await;
        for known in [true, false] {
            let clone = clone_of(&core, false).await;
            let (theirs, key) = with_key(1);
            let ours = options(|_| {}).on_authenticate(move |remote| known == (*remote == key));
            let (there, here) = soon("the end", connect(&clone, theirs, &core, ours).await).await;
            if known {
                there.unwrap();
                here.unwrap();
                assert_eq!(clone.downloaded(..), 3);
            } else {
                let error = here.unwrap_err();
                assert!(matches!(error, Error::NotAuthenticated), "{error}");
                assert!(error.is_peer_fault());
                assert_eq!(clone.downloaded(..), 0);
            }
        }
    });
}

#[test]
fn only_one_remote_is_talked_to() {
    run(async {
        let core = writer(3).await;
        for wanted in [1, 2] {
            let clone = clone_of(&core, false).await;
            let (theirs, _) = with_key(1);
            let (_, key) = with_key(wanted);
            let ours = options(|options| options.remote_public_key = Some(key));
            let (_, here) = soon("the end", connect(&clone, theirs, &core, ours).await).await;
            assert_eq!(here.is_ok(), wanted == 1, "{here:?}");
            assert_eq!(clone.downloaded(..), if wanted == 1 { 3 } else { 0 });
        }
    });
}

#[test]
fn replicate_with_feed_authentication() {
    run(async {
        let (open, closed) = (writer(2).await, writer(2).await);
        let (open_clone, closed_clone) =
            (clone_of(&open, false).await, clone_of(&closed, false).await);
        let (theirs, key) = with_key(1);
        let public = open.key();
        let ours = options(|_| {})
            .on_core_authenticate(move |core, remote| core == public && *remote == key);

        let (client, server) = crate::support::tcp_pair().await;
        let there = open_clone
            .replicate(hypercore::Role::Initiator, theirs)
            .unwrap();
        there.add(&closed_clone).unwrap();
        let here = open.replicate(hypercore::Role::Responder, ours).unwrap();
        here.add(&closed).unwrap();
        let ends = futures_lite::future::zip(there.run(client), here.run(server));
        let (there, here) = soon("the end", ends).await;
        there.unwrap();
        here.unwrap();
        assert_eq!(open_clone.downloaded(..), 2);
        assert_eq!(closed_clone.downloaded(..), 0);
        assert_eq!(closed_clone.length(), 0);
    });
}

#[test]
fn nobody_is_authenticated_without_a_handshake() {
    run(async {
        let core = writer(1).await;
        let plain = options(|options| {
            options.noise = false;
            options.encrypted = false;
        });
        let refused = core.replicate(hypercore::Role::Initiator, plain.on_authenticate(|_| true));
        let error = refused.err().unwrap();
        assert!(matches!(error, Error::NoHandshake), "{error}");
        assert!(!error.is_peer_fault(), "there is no peer yet");
    });
}

#[test]
fn peer_add_and_peer_remove_are_emitted() {
    run(async {
        let core = writer(1).await;
        let clone = clone_of(&core, true).await;
        let mut events = core.events();
        let connection = connect_live(&clone, &core).await;
        let open = event(&mut events, |event| matches!(event, Event::PeerOpen { .. })).await;
        let Event::PeerOpen { peer } = open else {
            unreachable!()
        };
        assert_eq!(peer, peer_of(&core));
        connection.cancel().await;
        event(
            &mut events,
            |event| matches!(event, Event::PeerClose { peer: closed, .. } if *closed == peer),
        )
        .await;
        assert!(core.peers().is_empty());
    });
}

#[test]
fn remote_update_is_emitted_for_every_greater_length() {
    run(async {
        let core = writer(2).await;
        let clone = clone_of(&core, true).await;
        let mut events = clone.events();
        let _connection = connect_live(&clone, &core).await;
        for expected in [2, 3] {
            let told = event(&mut events, |event| {
                matches!(event, Event::RemoteUpdate { .. })
            });
            let peer = clone.peers()[0].id;
            let length = expected;
            assert_eq!(told.await, Event::RemoteUpdate { peer, length });
            core.append("more").await.unwrap();
        }
    });
}
