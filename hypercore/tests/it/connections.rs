//! What a connection goes over, which cores share it, and how it ends for one of them.

use async_std::task;
use futures_lite::{AsyncWriteExt, future::zip, io};
use hypercore::{Ended, Event, ReplicateOptions, Replication, Role};

use crate::support::{
    all_are_here, clone_of, connect, disconnected, event, run, soon, tcp_pair, writer,
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
