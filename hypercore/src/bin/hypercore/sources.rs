//! The peers that a command fetches from until it has what it needs.

use futures_lite::{StreamExt, future};
use hypercore::{Event, Events, Hypercore};

use crate::{
    calls::{Again, Calls},
    errors::{Failure, Result},
    peers::{Gathering, Peers},
};

/// Connections to those of the named peers that answered.
pub(crate) struct Sources {
    peers: Peers,
    tasks: Gathering,
}

impl Sources {
    /// Calls all of `addresses`; returns as soon as a peer has shown that it knows the core, and
    /// fails if none does. The core downloads from them, also if it is a writer's.
    pub(crate) async fn call(core: &Hypercore, addresses: &[String]) -> Result<Self> {
        let peers = Peers::new(core, None);
        let tasks = Gathering::default();
        let mut events = core.events();
        let mut calls = Calls::new(Again::Never);
        calls.start(&peers, addresses.to_vec(), &tasks.member());
        let over = async {
            let news = calls.news();
            while let Ok(news) = news.recv().await {
                calls.note(news, false);
                if calls.are_over() {
                    break;
                }
            }
            false
        };
        if future::or(opened(&mut events), over).await {
            return Ok(Self { peers, tasks });
        }
        Err(Failure::failed(format!(
            "no peer with the core {} can be reached: {}",
            core.key(),
            calls.take_reasons()
        )))
    }

    /// Ends all connections in good order.
    pub(crate) async fn end(self) {
        self.peers.hang_up.hang_up();
        self.tasks.end().await;
    }
}

async fn opened(events: &mut Events) -> bool {
    while let Some(event) = events.next().await {
        if matches!(event, Event::PeerOpen { .. }) {
            return true;
        }
    }
    false
}
