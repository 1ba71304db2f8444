//! The events of a core, and their order.

use futures_lite::StreamExt;
use hypercore::{CloseReason, Event, ReplicateOptions, Role};

use crate::support::{clone_of, connect_live, disconnected, drain, event, run, soon, writer};

#[test]
fn events_come_in_order() {
    run(async {
        let origin = writer(2).await;
        let clone = clone_of(&origin, false).await;
        let (mut of_origin, mut of_clone) = (origin.events(), clone.events());
        let connection = connect_live(&clone, &origin).await;
        event(&mut of_origin, |event| {
            matches!(event, Event::Upload { index: 1, .. })
        })
        .await;
        soon("all blocks", clone.download(0..2)).await.unwrap();
        origin.append("block 2").await.unwrap();
        soon("all blocks", clone.download(0..3)).await.unwrap();
        origin.clear(0..1).await.unwrap();
        connection.cancel().await;
        disconnected(&origin).await;
        disconnected(&clone).await;

        let [origin_peer, clone_peer] = [drain(&mut of_origin).await, drain(&mut of_clone).await];
        let names = |events: &[Event]| -> Vec<String> { events.iter().map(name).collect() };
        let tail = ["Append 3", "Upload 2", "Clear 0..1", "PeerClose"];
        assert_eq!(names(&origin_peer), tail);
        let whole = [
            "PeerOpen",
            "RemoteUpdate 2",
            "Append 2",
            "Download",
            "Download",
            "Sync 2",
            "RemoteUpdate 3",
            "Append 3",
            "Download",
            "Sync 3",
            "PeerClose",
        ];
        assert_eq!(names(&clone_peer), whole);
    });
}

/// The events of a core that was closed ended without it.
#[test]
fn a_peer_of_a_core_that_is_closed_is_closed_once() {
    run(async {
        let origin = writer(1).await;
        let clone = clone_of(&origin, false).await;
        let events = clone.events();
        let _connection = connect_live(&clone, &origin).await;
        soon("the block", clone.download(0..1)).await.unwrap();
        clone.close().await.unwrap();
        disconnected(&clone).await;
        let events: Vec<_> = soon("the end", events.collect()).await;
        let ends: Vec<_> = events
            .iter()
            .filter_map(|event| match event {
                Event::PeerClose { code, .. } => Some(*code),
                _ => None,
            })
            .collect();
        assert_eq!(ends, [CloseReason::CoreClosed]);
        assert_eq!(events.last().map(name).as_deref(), Some("PeerClose"));

        // A peer that never opened the core is none that can be closed.
        let alone = clone_of(&origin, false).await;
        let mut events = alone.events();
        let _replication = alone
            .replicate(Role::Initiator, ReplicateOptions::live())
            .unwrap();
        alone.close().await.unwrap();
        assert_eq!(events.next().await, None);
    });
}

fn name(event: &Event) -> String {
    match event {
        Event::Append { length } => format!("Append {length}"),
        Event::RemoteUpdate { length, .. } => format!("RemoteUpdate {length}"),
        Event::Sync { length } => format!("Sync {length}"),
        Event::Upload { index, .. } => format!("Upload {index}"),
        Event::Clear { blocks } => format!("Clear {blocks:?}"),
        Event::Download { bytes: 7, .. } => "Download".to_owned(),
        Event::PeerOpen { .. } => "PeerOpen".to_owned(),
        Event::PeerClose { .. } => "PeerClose".to_owned(),
        other => format!("{other:?}"),
    }
}

#[test]
fn events_end_with_the_last_handle() {
    run(async {
        let core = writer(1).await;
        let mut events = core.events();
        core.append("a").await.unwrap();
        drop(core);
        let append = soon("an event", events.next()).await;
        assert_eq!(append, Some(Event::Append { length: 2 }));
        assert_eq!(soon("the end", events.next()).await, None);
    });
}
