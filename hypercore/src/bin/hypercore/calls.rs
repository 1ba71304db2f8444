//! Calling peers, and calling them again.

use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use async_channel::{Receiver, Sender};
use async_io::Timer;
use futures_lite::{StreamExt, future};
use hypercore::{
    Error, Hypercore, PeerId, ReplicateOptions, Role,
    discovery::{Discovery, Mdns},
};

use crate::{
    errors::{Failure, Result, end_of, reason},
    net,
    peers::{Ended, Link, Member, Peers},
};

/// A lost peer is called again after this time, and after twice as long each time that fails,
const FIRST_RETRY: Duration = Duration::from_secs(1);

/// but never after more than this,
const LAST_RETRY: Duration = Duration::from_secs(60);

/// nor after more than this while it is hoped to be back soon.
const SOON_RETRY: Duration = Duration::from_secs(8);

/// So long a peer that the network has lost is hoped to be back: it is started again, or a cable is.
const HOPE: Duration = Duration::from_secs(60);

/// How long peers on the local network are looked for before it is said that there are none. Those
/// who are there answer within a second.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);

/// Whether an address is called again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Again {
    Never,
    /// For a while, if the network has lost a peer that had the core.
    WhenLost,
    /// The same, also if it was lost before it was known whether it has the core. Who turns us away
    /// because there is no room is not to be told from that.
    WhenLostAtOnce,
    Always,
}

/// What the tasks that find peers and hold the connections tell.
pub(crate) enum News {
    /// Somebody on the local network claims to have the core, and is to be called.
    Found { address: String },
    /// The local network was searched for long enough.
    Searched,
    /// Nobody answered the first call.
    Unreachable { address: String, reason: String },
    /// Somebody answered, for the first time or again.
    Connected { first: bool, returned: bool },
    /// A connection is over.
    Lost {
        id: PeerId,
        address: String,
        ended: Ended,
        /// The peer is hoped to be back soon: it [returns](Self::Connected), or is given up.
        may_return: bool,
    },
    /// One that was lost is not hoped to be back any more.
    GivenUp { address: String, reason: String },
}

/// The calls of one command.
#[derive(Debug)]
pub(crate) struct Calls {
    sender: Sender<News>,
    news: Receiver<News>,
    again: Again,
    /// The addresses that were called, without those where nobody was.
    known: HashSet<String>,
    /// Whether somebody may be found who was not called yet.
    searching: bool,
    /// Whether somebody was found.
    found: bool,
    /// Addresses whose first call is neither answered nor failed yet.
    calling: usize,
    connected: usize,
    /// Lost peers that are hoped to be back.
    missed: usize,
    /// Which addresses were of no use, and why; without an address, why none was found.
    reasons: Vec<(Option<String>, String)>,
    /// The same of those that were not reached by the first call, until it is told.
    unreached: Vec<String>,
}

impl Calls {
    pub(crate) fn new(again: Again) -> Self {
        let (sender, news) = async_channel::unbounded();
        Self {
            sender,
            news,
            again,
            known: HashSet::new(),
            searching: false,
            found: false,
            calling: 0,
            connected: 0,
            missed: 0,
            reasons: Vec::new(),
            unreached: Vec::new(),
        }
    }

    /// Looks for peers on the local network: for ever, or until it is certain that there are none.
    pub(crate) fn search(&mut self, core: &Hypercore, for_ever: bool) -> Result<()> {
        let found = Mdns::new().and_then(|mdns| mdns.lookup(&core.discovery_key()));
        let mut found = found.map_err(|error| {
            Failure::failed(format!(
                "peers cannot be looked for on the local network: {}; say with --connect where \
                 they are",
                reason(&error)
            ))
        })?;
        self.searching = true;
        let sender = self.sender.clone();
        net::spawn(async move {
            let mut late = if for_ever {
                Timer::never()
            } else {
                Timer::after(PATIENCE)
            };
            loop {
                let late = async {
                    (&mut late).await;
                    Some(News::Searched)
                };
                let next = async {
                    let address = found.next().await?.to_string();
                    Some(News::Found { address })
                };
                let Some(news) = future::or(next, late).await else {
                    return;
                };
                // Nobody listens any more when the program is ending.
                let _ = sender.try_send(news);
            }
        });
        Ok(())
    }

    /// Calls every address that is new.
    pub(crate) fn start(&mut self, peers: &Peers, addresses: Vec<String>, member: &Member) {
        for address in addresses {
            if !self.known.insert(address.clone()) {
                continue;
            }
            self.calling = self.calling.saturating_add(1);
            let (peers, sender, member) = (peers.clone(), self.sender.clone(), member.clone());
            let again = self.again;
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
            News::Found { .. } => self.found = true,
            News::Searched => {
                self.searching = false;
                if !self.found {
                    self.blame(None, "nobody on the local network announces it".to_owned());
                }
            }
            News::Connected { first, returned } => {
                self.calling = self.calling.saturating_sub(first.into());
                self.missed = self.missed.saturating_sub(returned.into());
                self.connected = self.connected.saturating_add(1);
            }
            News::Unreachable { address, reason } => {
                self.calling = self.calling.saturating_sub(1);
                let words = format!("{address}: {reason}");
                self.unreached.push(words.clone());
                self.forget(&address);
                self.blame(Some(address), words);
            }
            News::GivenUp { address, reason } => {
                self.missed = self.missed.saturating_sub(1);
                self.forget(&address);
                let words = format!("{address}: {reason}");
                self.blame(Some(address), words);
            }
            News::Lost {
                address,
                ended,
                may_return,
                ..
            } => {
                self.connected = self.connected.saturating_sub(1);
                self.missed = self.missed.saturating_add(may_return.into());
                let words = match ended {
                    // Who does not have it, or lets nobody in, hangs up without a word.
                    Ended::Failed(Error::Transport(_)) | Ended::Closed if !had_core => {
                        format!("{address} does not seem to have this core, or does not let us in")
                    }
                    Ended::Failed(error) => format!("{address}: {}", end_of(&error)),
                    Ended::Closed => format!("{address} closed the connection"),
                    Ended::Stranger => format!("{address} does not seem to have this core"),
                };
                self.blame(Some(address), words);
            }
        }
    }

    /// Whether every first call was answered or has failed, and somebody was called.
    pub(crate) fn are_answered(&self) -> bool {
        self.calling == 0 && (self.connected > 0 || self.found || !self.searching)
    }

    /// Whether a lost peer is hoped to be back.
    pub(crate) fn has_hope(&self) -> bool {
        self.missed > 0
    }

    /// Whether nobody is connected, and nobody is about to be.
    pub(crate) fn are_over(&self) -> bool {
        self.calling == 0 && self.connected == 0 && self.missed == 0 && !self.searching
    }

    /// Which first calls were not answered and why, each once, as soon as all were made.
    pub(crate) fn take_unreached(&mut self) -> Vec<String> {
        if self.calling > 0 {
            return Vec::new();
        }
        std::mem::take(&mut self.unreached)
    }

    /// Why addresses were of no use since the last time that was asked.
    pub(crate) fn take_reasons(&mut self) -> String {
        let reasons = std::mem::take(&mut self.reasons).into_iter();
        let reasons: Vec<_> = reasons.map(|(_, words)| words).collect();
        reasons.join("; ")
    }

    /// Blames those who were called and have not been heard of.
    pub(crate) fn blame_silent(&mut self) {
        let is_heard = |address| {
            self.reasons
                .iter()
                .any(|(of, _)| of.as_ref() == Some(address))
        };
        let silent = self.known.iter().filter(|&address| !is_heard(address));
        let mut silent: Vec<_> = silent.cloned().collect();
        silent.sort();
        for address in silent {
            let words = format!("{address}: no answer");
            self.blame(Some(address), words);
        }
        if self.reasons.is_empty() {
            self.blame(None, "nobody on the local network has answered".to_owned());
        }
    }

    /// Nobody is at `address`: if somebody is found there later, it is called like a new one.
    fn forget(&mut self, address: &str) {
        if self.again != Again::Always {
            self.known.remove(address);
        }
    }

    /// Notes the last word on an address.
    fn blame(&mut self, address: Option<String>, words: String) {
        tracing::info!("{words}");
        self.reasons.retain(|(of, _)| *of != address);
        self.reasons.push((address, words));
    }
}

async fn keep_connected(peers: &Peers, address: &str, again: Again, sender: &Sender<News>) {
    let mut line = Line {
        peers,
        address,
        again,
        sender,
        first: true,
        pause: FIRST_RETRY,
        missed: None,
        is_missed: false,
        had_core: false,
    };
    loop {
        match line.call().await {
            Ok((link, greeted)) => line.hold(link, &greeted).await,
            Err(reason) => line.note_unreached(reason),
        }
        if peers.hang_up.is_set() || !(again == Again::Always || line.is_missed) {
            return;
        }
        line.first = false;
        line.wait().await;
    }
}

/// The calls of one address, one after the other.
struct Line<'a> {
    peers: &'a Peers,
    address: &'a str,
    again: Again,
    sender: &'a Sender<News>,
    /// This is the first call.
    first: bool,
    pause: Duration,
    /// Since when a lost peer is hoped to be back, and the blocks that had come until then.
    missed: Option<(Instant, u64)>,
    is_missed: bool,
    /// Whether it ever was one with the core.
    had_core: bool,
}

impl Line<'_> {
    fn tell(&self, news: News) {
        // Nobody listens any more when the program is ending.
        let _ = self.sender.try_send(news);
    }

    /// Calls it. Returns the connection, and what becomes true when it has said who it is.
    async fn call(&self) -> Result<(Link, Arc<AtomicBool>), String> {
        let greeted = Arc::<AtomicBool>::default();
        let greet = Arc::clone(&greeted);
        let mut options = ReplicateOptions::live().on_authenticate(move |_| {
            greet.store(true, Ordering::Release);
            true
        });
        // The owner of the secret key, too, may have cleared what others still hold.
        options.download = Some(true);
        let tcp = net::connect(self.address, &self.peers.hang_up).await?;
        let link = self
            .peers
            .attach(tcp, self.address, Role::Initiator, options);
        let link = link.map_err(|error| error.to_string())?;
        Ok((link, greeted))
    }

    /// Runs a connection to its end.
    async fn hold(&mut self, link: Link, greeted: &AtomicBool) {
        let first = self.first;
        let returned = std::mem::take(&mut self.is_missed);
        self.tell(News::Connected { first, returned });
        let (id, opened) = (link.id, link.opened());
        let ended = link.run().await;
        let is_recent = self.note_end(&ended);
        let is_open = opened.load(Ordering::Acquire);
        let is_lost = self.is_lost(&ended, is_open, greeted.load(Ordering::Acquire));
        self.had_core |= is_open;
        self.is_missed = self.again != Again::Never && is_lost && is_recent;
        self.tell(News::Lost {
            id,
            address: self.address.to_owned(),
            ended,
            may_return: self.is_missed,
        });
    }

    /// Gives it time to come back, if it has earned some. Returns whether that is not over.
    fn note_end(&mut self, ended: &Ended) -> bool {
        if matches!(ended, Ended::Closed) {
            self.pause = FIRST_RETRY;
        }
        let came = self.peers.received();
        if self.missed.is_none_or(|(_, before)| came > before) {
            // One that is lost again before it has sent anything gets no more time.
            self.missed = Some((Instant::now(), came));
            self.pause = FIRST_RETRY;
        }
        self.missed.is_some_and(|(since, _)| since.elapsed() < HOPE)
    }

    /// Whether a connection ended without anybody wanting that.
    fn is_lost(&self, ended: &Ended, is_open: bool, is_known: bool) -> bool {
        if is_open {
            ended.is_loss()
        } else if self.had_core {
            // Whatever answers until it is back, and however.
            true
        } else {
            // Who does not have the core, or does not let us in, hangs up when it knows who we are.
            self.again == Again::WhenLostAtOnce && !is_known && ended.is_loss()
        }
    }

    /// Nobody has answered.
    fn note_unreached(&mut self, reason: String) {
        let address = self.address.to_owned();
        if self.first {
            self.tell(News::Unreachable { address, reason });
            return;
        }
        tracing::info!(address, reason, "not reached");
        if self.is_missed && self.missed.is_none_or(|(since, _)| since.elapsed() >= HOPE) {
            self.is_missed = false;
            self.tell(News::GivenUp { address, reason });
        }
    }

    /// Waits before the next call, longer each time.
    async fn wait(&mut self) {
        Timer::after(self.pause).await;
        let longest = if self.is_missed {
            SOON_RETRY
        } else {
            LAST_RETRY
        };
        self.pause = self.pause.saturating_mul(2).min(longest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One that was lost, called again and given up has one reason, the last.
    #[test]
    fn one_reason_for_each_address() {
        let address = "192.0.2.1:80".to_owned();
        let mut calls = Calls::new(Again::WhenLost);
        calls.connected = 1;
        let ended = Ended::Failed(Error::Transport(std::io::ErrorKind::ConnectionReset.into()));
        let id = PeerId::NOBODY;
        calls.note(
            News::Lost {
                id,
                address: address.clone(),
                ended,
                may_return: true,
            },
            true,
        );
        calls.note(News::Searched, false);
        let reason = "nobody listens there".to_owned();
        calls.note(News::GivenUp { address, reason }, false);
        assert_eq!(
            calls.take_reasons(),
            "nobody on the local network announces it; 192.0.2.1:80: nobody listens there"
        );
    }
}
