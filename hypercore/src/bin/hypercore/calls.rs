//! Calling peers, and calling them again.

use std::time::Duration;

use async_channel::{Receiver, Sender};
use async_io::Timer;
use hypercore::{PeerId, ReplicateOptions, Role};

use crate::{
    errors::reason,
    net,
    peers::{Ended, Member, Peers},
};

/// A lost peer is called again after this time, and after twice as long each time that fails,
const FIRST_RETRY: Duration = Duration::from_secs(1);

/// but never after more than this.
const LAST_RETRY: Duration = Duration::from_secs(60);

/// What the tasks that hold the connections tell.
pub(crate) enum News {
    /// Nobody answered the first call.
    Unreachable { address: String, reason: String },
    /// Somebody answered, for the first time or again.
    Connected { first: bool },
    /// A connection is over.
    Lost {
        id: PeerId,
        address: String,
        ended: Ended,
    },
}

/// The calls of one command.
#[derive(Debug)]
pub(crate) struct Calls {
    sender: Sender<News>,
    news: Receiver<News>,
    /// Addresses whose first call is neither answered nor failed yet.
    calling: usize,
    connected: usize,
    /// Why addresses were of no use.
    reasons: Vec<String>,
}

impl Calls {
    pub(crate) fn new() -> Self {
        let (sender, news) = async_channel::unbounded();
        Self {
            sender,
            news,
            calling: 0,
            connected: 0,
            reasons: Vec::new(),
        }
    }

    /// Calls every address, and with `again` whenever it is lost.
    pub(crate) fn start(
        &mut self,
        peers: &Peers,
        mut addresses: Vec<String>,
        again: bool,
        member: &Member,
    ) {
        addresses.sort();
        addresses.dedup();
        self.calling += addresses.len();
        for address in addresses {
            let (peers, sender, member) = (peers.clone(), self.sender.clone(), member.clone());
            net::spawn(async move {
                keep_connected(&peers, &address, again, &sender).await;
                drop(member);
            });
        }
    }

    /// Where news come from; each is to be [noted](Self::note).
    pub(crate) fn news(&self) -> Receiver<News> {
        self.news.clone()
    }

    /// Takes note of what became of a call. `had_core` is for a lost peer: whether it was one with
    /// the core.
    pub(crate) fn note(&mut self, news: News, had_core: bool) {
        match news {
            News::Connected { first } => {
                self.calling -= usize::from(first);
                self.connected += 1;
            }
            News::Unreachable { address, reason } => {
                self.calling -= 1;
                self.blame(format!("{address}: {reason}"));
            }
            News::Lost { address, ended, .. } => {
                self.connected -= 1;
                match ended {
                    Ended::Failed(error) => self.blame(format!("{address}: {error}")),
                    Ended::Closed if had_core => {
                        self.blame(format!("{address} closed the connection"));
                    }
                    Ended::Closed | Ended::Stranger => {
                        self.blame(format!("{address} does not seem to have this core"));
                    }
                }
            }
        }
    }

    /// Whether every first call was answered or has failed.
    pub(crate) fn are_answered(&self) -> bool {
        self.calling == 0
    }

    /// Whether nobody is connected, and nobody is about to be.
    pub(crate) fn are_over(&self) -> bool {
        self.calling == 0 && self.connected == 0
    }

    /// Why addresses were of no use since the last time that was asked.
    pub(crate) fn take_reasons(&mut self) -> String {
        std::mem::take(&mut self.reasons).join("; ")
    }

    fn blame(&mut self, reason: String) {
        tracing::info!("{reason}");
        self.reasons.push(reason);
    }
}

async fn keep_connected(peers: &Peers, address: &str, again: bool, sender: &Sender<News>) {
    // Nobody listens any more when the program is ending.
    let tell = |news| {
        let _ = sender.try_send(news);
    };
    let mut first = true;
    let mut pause = FIRST_RETRY;
    loop {
        let mut options = ReplicateOptions::live();
        // The owner of the secret key, too, may have cleared what others still hold.
        options.download = Some(true);
        let link = match net::connect(address, &peers.hang_up).await {
            Ok(tcp) => peers
                .attach(tcp, address, Role::Initiator, options)
                .map_err(|error| error.to_string()),
            Err(error) => Err(reason(&error)),
        };
        match link {
            Ok(link) => {
                tell(News::Connected { first });
                let (id, address) = (link.id, address.to_owned());
                let ended = link.run().await;
                if matches!(ended, Ended::Closed) {
                    pause = FIRST_RETRY;
                }
                tell(News::Lost { id, address, ended });
            }
            Err(reason) if first => {
                let address = address.to_owned();
                tell(News::Unreachable { address, reason });
            }
            Err(reason) => tracing::info!(address, reason, "not reached"),
        }
        if !again || peers.hang_up.is_set() {
            return;
        }
        first = false;
        Timer::after(pause).await;
        pause = (pause * 2).min(LAST_RETRY);
    }
}
