//! What a connection goes over, which cores share it, and how it ends for one of them.

use std::time::Duration;

use async_std::{channel, task};
use futures_lite::{
    AsyncReadExt, AsyncWriteExt,
    future::{self, zip},
    io,
};
use hypercore::{
    CloseReason, Ended, Error, Event, PeerLimits, ReplicateOptions, Replication, Role, wire::Budget,
};

use crate::support::{
    all_are_here, clone_of, connect, connected, disconnected, event, run, soon, tcp_pair, writer,
};

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

/// A server does not know which of its cores the remote wants, nor whether it has them all.
#[test]
fn cores_are_added_as_the_remote_asks_for_them() {
    run(async {
        let (small, large, elsewhere) = (writer(2).await, writer(40).await, writer(1).await);
        let mut clones = Vec::new();
        let cloning = Replication::new(Role::Initiator, ReplicateOptions::default()).unwrap();
        for origin in [&small, &large, &elsewhere] {
            let clone = clone_of(origin, false).await;
            cloning.add(&clone).unwrap();
            clones.push(clone);
        }
        let (opened, asked) = channel::unbounded();
        let options =
            ReplicateOptions::default().on_remote_open(move |key| opened.try_send(key).is_ok());
        let serving = Replication::new(Role::Responder, options).unwrap();
        let handle = serving.handle();
        let cores = [small, large];
        let adding = task::spawn(async move {
            let mut keys = Vec::new();
            while let Ok(key) = asked.recv().await {
                // As long as it takes to open one, everything else may be exchanged.
                task::sleep(Duration::from_millis(50)).await;
                match cores.iter().find(|core| core.discovery_key() == key) {
                    Some(core) => drop(handle.add(core).unwrap()),
                    None => handle.reject(key),
                }
                keys.push(key);
            }
            keys
        });
        let (ours, theirs) = tcp_pair().await;
        let ends = soon("the end", zip(cloning.run(ours), serving.run(theirs))).await;
        assert!(
            matches!(ends, (Ok(Ended::Refused), Ok(Ended::Complete))),
            "{ends:?}"
        );
        let expected: Vec<_> = clones.iter().map(|clone| clone.discovery_key()).collect();
        assert_eq!(soon("the end of the hook", adding).await, expected);
        all_are_here(&clones[0], 2).await;
        all_are_here(&clones[1], 40).await;
        assert_eq!(clones[2].length(), 0);
    });
}

/// What the hook does not want is refused as without it.
#[test]
fn a_core_that_nobody_adds_is_refused_at_once() {
    run(async {
        let (origin, other) = (writer(3).await, writer(3).await);
        let clone = clone_of(&origin, false).await;
        let default = ReplicateOptions::default;
        let options = default().on_remote_open(|_| false);
        let ends = connect(&clone, default(), &other, options).await;
        let ends = soon("the end", ends).await;
        assert!(
            matches!(ends, (Ok(Ended::Refused), Ok(Ended::Refused))),
            "{ends:?}"
        );

        // A side that is live says so, too: without the hook it may add the core later.
        let options = ReplicateOptions::live().on_remote_open(|_| false);
        let serving = Replication::new(Role::Responder, options).unwrap();
        let cloning = clone.replicate(Role::Initiator, default()).unwrap();
        let (ours, theirs) = tcp_pair().await;
        let ends = soon("the end", zip(cloning.run(ours), serving.run(theirs))).await;
        assert!(
            matches!(ends, (Ok(Ended::Refused), Ok(Ended::Complete))),
            "{ends:?}"
        );
    });
}

#[test]
fn a_core_is_taken_off_a_connection() {
    run(async {
        let (kept, left) = (writer(2).await, writer(2).await);
        let (kept_clone, left_clone) = (clone_of(&kept, false).await, clone_of(&left, false).await);
        let ours = Replication::new(Role::Initiator, ReplicateOptions::live()).unwrap();
        let theirs = Replication::new(Role::Responder, ReplicateOptions::live()).unwrap();
        let (handle, their_handle) = (ours.handle(), theirs.handle());
        for core in [&kept_clone, &left_clone] {
            ours.add(core).unwrap();
        }
        for core in [&kept, &left] {
            theirs.add(core).unwrap();
        }
        let (client, server) = tcp_pair().await;
        let running = task::spawn(zip(ours.run(client), theirs.run(server)));
        connected(&left_clone, 1).await;
        let mut here = left_clone.events();
        let mut there = left.events();
        assert!(handle.remove(&left_clone));
        assert!(!handle.remove(&left_clone), "it is off already");
        let is_end = |event: &Event| matches!(event, Event::PeerClose { .. });
        for (events, expected) in [
            (&mut here, CloseReason::Dropped),
            (&mut there, CloseReason::RemoteClosed),
        ] {
            let Event::PeerClose { code, .. } = event(events, is_end).await else {
                unreachable!("it was looked for");
            };
            assert_eq!(code, expected);
        }
        assert!(left_clone.peers().is_empty() && left.peers().is_empty());

        // The other goes on, and so does the connection: the core can come back, on both sides.
        kept.append("block 2").await.unwrap();
        soon("a block", kept_clone.download(0..3)).await.unwrap();
        left.append("block 2").await.unwrap();
        handle.add(&left_clone).unwrap();
        their_handle.add(&left).unwrap();
        soon("a block", left_clone.download(0..3)).await.unwrap();
        running.cancel().await;
    });
}

#[test]
fn a_connection_is_closed_in_order() {
    run(async {
        for cores in [0, 1, 2] {
            let ours = Replication::new(Role::Initiator, ReplicateOptions::live()).unwrap();
            let theirs = Replication::new(Role::Responder, ReplicateOptions::live()).unwrap();
            let handle = ours.handle();
            let mut clones = Vec::new();
            for _ in 0..cores {
                let origin = writer(2).await;
                let clone = clone_of(&origin, false).await;
                ours.add(&clone).unwrap();
                theirs.add(&origin).unwrap();
                clones.push(clone);
            }
            let (client, server) = tcp_pair().await;
            let running = task::spawn(zip(ours.run(client), theirs.run(server)));
            for clone in &clones {
                soon("the blocks", clone.download(0..2)).await.unwrap();
            }
            handle.close();
            let (here, there) = soon("the end", running).await;
            assert_eq!(here.unwrap(), Ended::Closed);
            assert!(there.is_ok(), "{there:?}");
            for clone in clones {
                assert!(clone.peers().is_empty());
                assert!(clone.close().await.is_ok(), "it is open");
            }
        }
    });
}

/// Whoever is closed, or taken off, before everything is here is not told that it is.
#[test]
fn a_connection_that_is_closed_early_is_not_complete() {
    run(async {
        for closes in [true, false] {
            let origin = writer(2).await;
            origin.clear(1..).await.unwrap();
            let clone = clone_of(&origin, false).await;
            let default = ReplicateOptions::default;
            let ours = clone.replicate(Role::Initiator, default()).unwrap();
            let theirs = origin.replicate(Role::Responder, default()).unwrap();
            let handle = ours.handle();
            let mut events = clone.events();
            let (client, server) = tcp_pair().await;
            let running = task::spawn(zip(ours.run(client), theirs.run(server)));
            connected(&clone, 1).await;
            if closes {
                handle.close();
            } else {
                assert!(handle.remove(&clone));
            }
            let (here, _) = soon("the end", running).await;
            let ended = here.unwrap();
            assert_eq!(ended, Ended::Closed);
            let is_end = |event: &Event| matches!(event, Event::PeerClose { .. });
            let Event::PeerClose { code, .. } = event(&mut events, is_end).await else {
                unreachable!("it was looked for");
            };
            assert_eq!(code, CloseReason::from(ended));
        }
    });
}

/// The remote tells which blocks it has, and that is more than nothing.
#[test]
fn a_connection_has_the_limits_of_its_options() {
    run(async {
        let origin = writer(3).await;
        let clone = clone_of(&origin, true).await;
        let limits = PeerLimits::default().remote_bitfield(0);
        let options = ReplicateOptions::live().peer_limits(limits);
        let ours = clone.replicate(Role::Initiator, options).unwrap();
        let theirs = origin
            .replicate(Role::Responder, ReplicateOptions::live())
            .unwrap();
        let (client, server) = tcp_pair().await;
        let running = zip(ours.run(client), theirs.run(server));
        let (here, _) = soon("the end", running).await;
        let error = here.unwrap_err();
        assert_eq!(
            CloseReason::from(&error),
            CloseReason::BitfieldTooLarge,
            "{error}"
        );
        let message = error.to_string();
        assert!(message.contains(" 0 bytes"), "{message}");
    });
}

/// What waits is done later, one by one.
#[test]
fn the_least_limits_hold_up_nobody() {
    run(async {
        let origin = writer(300).await;
        let clone = clone_of(&origin, false).await;
        let least = PeerLimits::default()
            .wants(0)
            .requests(0)
            .requests_of_connection(0)
            .refusals(0)
            .unsent_answers(0)
            .remote_nodes(0);
        let options = ReplicateOptions::default().peer_limits(least);
        let theirs = origin.replicate(Role::Responder, options).unwrap();
        let ours = clone
            .replicate(Role::Initiator, ReplicateOptions::default())
            .unwrap();
        let (client, server) = tcp_pair().await;
        let running = zip(ours.run(client), theirs.run(server));
        let (here, there) = soon("the end", running).await;
        assert_eq!(
            (here.unwrap(), there.unwrap()),
            (Ended::Complete, Ended::Complete)
        );
        assert_eq!(clone.downloaded(0..300), 300);
    });
}

/// What a connection had to send was kept as long as a handle of it, out of what all of them may hold.
#[test]
fn a_handle_keeps_nothing_of_a_connection_that_is_over() {
    run(async {
        let origin = writer(300).await;
        let clone = clone_of(&origin, false).await;
        let mut options = ReplicateOptions::default();
        options.limits.budget = Budget::new(1 << 30);
        let budget = options.limits.budget.clone();
        let mut reader = clone
            .replicate(Role::Initiator, ReplicateOptions::default())
            .unwrap();
        let mut server = origin.replicate(Role::Responder, options).unwrap();
        let handle = server.handle();
        // Until the reader has asked for something, and the answers wait.
        let mut bytes = vec![0; 1 << 16];
        while budget.held() < 2000 {
            if let Some(count) = future::poll_once(reader.read(&mut bytes)).await {
                server.write_all(&bytes[..count.unwrap()]).await.unwrap();
            }
            if let Some(count) = future::poll_once(server.read(&mut bytes[..512])).await {
                reader.write_all(&bytes[..count.unwrap()]).await.unwrap();
            }
        }
        drop(server);
        assert_eq!(budget.held(), 0);
        assert!(!handle.remove(&origin));
        assert!(matches!(handle.add(&origin), Err(Error::Transport(_))));
        handle.close();
    });
}
