//! What becomes of the calls, while something is read from peers.

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use async_channel::Sender;
use async_io::Timer;
use futures_lite::{StreamExt, future};
use hypercore::{Error, Event, PeerId};

use super::{CALL_TIMEOUT, COMPANY_TIMEOUT, SEARCH_TIMEOUT, Source};
use crate::{
    calls::{Calls, News},
    errors::{Failure, Result, end_of},
    peers::{Ended, Member, Peers},
};

/// Follows what becomes of the calls.
pub(super) struct Watch<'a> {
    pub(super) source: &'a Source,
    pub(super) peers: &'a Peers,
    pub(super) follow: bool,
    pub(super) calls: Calls,
    pub(super) member: Member,
    /// Is told when no more peers are to be expected soon.
    pub(super) ready: Sender<()>,
    /// The peers that have shown that they know the key.
    pub(super) opened: HashSet<PeerId>,
    /// Goes off when enough of them were waited for.
    pub(super) late: Timer,
    pub(super) is_late: bool,
    /// How long anything is waited for.
    pub(super) limit: Option<Duration>,
    /// Goes off when nobody is waited for any more.
    pub(super) over: Timer,
}

/// What a watch waits for.
enum Step {
    Event(Option<Event>),
    News(News),
    Late,
    Over,
}

impl Watch<'_> {
    /// Ends when the last peer is gone.
    pub(super) async fn run(mut self) -> Result<()> {
        let mut events = self.source.core.events();
        let news = self.calls.news();
        loop {
            let event = async { Step::Event(events.next().await) };
            let told = async {
                let news = news.recv().await;
                news.map_or_else(|_| Step::Late, Step::News)
            };
            let timer = async {
                (&mut self.late).await;
                Step::Late
            };
            let over = async {
                (&mut self.over).await;
                Step::Over
            };
            let waited = future::or(timer, over);
            match future::or(event, future::or(told, waited)).await {
                Step::Event(None) => {
                    return Err(Failure::core(Error::Closed, &self.source.name));
                }
                Step::Event(Some(Event::PeerOpen { peer })) => self.note_open(peer),
                Step::Event(Some(Event::Forked { length })) => {
                    let dir = (!self.source.in_memory).then_some(self.source.name.as_path());
                    return Err(Failure::forked(length, dir));
                }
                Step::Event(Some(_)) => continue,
                Step::News(news) => self.note(news)?,
                Step::Late => self.note_late(),
                Step::Over => self.note_over()?,
            }
            if self.is_everybody_here() {
                self.be_ready();
            }
            if self.calls.are_over() {
                let reasons = self.calls.take_reasons();
                self.source
                    .alone(reasons, !self.opened.is_empty(), self.follow)?;
                if !self.follow {
                    // What is here is read, if there was no time for that before.
                    self.be_ready();
                    drop(events);
                    return future::pending().await;
                }
            }
        }
    }

    fn be_ready(&self) {
        let _ = self.ready.try_send(());
    }

    /// A peer has the core. Others may follow the first one.
    fn note_open(&mut self, peer: PeerId) {
        self.opened.insert(peer);
        if self.source.met.get().is_none() {
            self.source.met.set(Some(Instant::now()));
            let others = match self.source.peers.is_empty() {
                true => COMPANY_TIMEOUT,
                false => CALL_TIMEOUT,
            };
            // Some of the time is left for what this one has.
            let half = self.limit.and_then(|limit| limit.checked_div(2));
            let late = half.map_or(others, |half| half.min(others));
            self.late.set_after(late);
        }
    }

    /// Takes note of what became of a call, and tells what people should know about it.
    fn note(&mut self, news: News) -> Result<()> {
        if let News::Lost { ended, .. } = &news
            && let Some(error) = ended.fault_here()
        {
            return Err(Failure::core_ref(error, &self.source.name));
        }
        if let News::Found { address } = &news {
            self.calls
                .start(self.peers, vec![address.clone()], &self.member);
        }
        self.tell_lost(&news);
        let lost = match news {
            News::Lost { id, .. } => Some(id),
            _ => None,
        };
        let had_core = lost.is_some_and(|id| self.opened.contains(&id));
        lost.into_iter().for_each(|id| self.peers.forget(id));
        let left = match &news {
            News::Lost { address, ended, .. } if had_core => {
                matches!(ended, Ended::Closed).then(|| address.clone())
            }
            _ => None,
        };
        self.calls.note(news, had_core);
        if let Some(address) = left
            && self.follow
            && !self.calls.are_over()
            && !self.peers.any_open()
        {
            self.source.remark(format_args!(
                "{address} has left, and nobody else is connected; going on when somebody is."
            ));
        }
        self.source.has_hope.set(self.calls.has_hope());
        Ok(())
    }

    fn tell_lost(&self, news: &News) {
        if let News::Lost {
            address,
            ended: Ended::Failed(error),
            may_return: true,
            ..
        } = news
        {
            let reason = end_of(error);
            self.source.remark(format_args!(
                "{address} was lost ({reason}); calling again."
            ));
        }
    }

    /// Others were waited for long enough, if there is one who has blocks.
    fn note_late(&mut self) {
        let mut known = self.source.core.peers().into_iter();
        let is_search = self.source.peers.is_empty() && !self.is_late;
        if is_search && !known.any(|peer| peer.remote_length > 0) {
            // One without blocks is not whom we are looking for.
            self.is_late = true;
            let rest = SEARCH_TIMEOUT.saturating_sub(COMPANY_TIMEOUT);
            self.late.set_after(rest);
        } else {
            self.be_ready();
        }
    }

    /// Nobody else is waited for: they were given as long as a block is.
    fn note_over(&mut self) -> Result<()> {
        if !self.opened.is_empty() {
            self.be_ready();
            return Ok(());
        }
        self.calls.blame_silent();
        Err(Failure::failed(format!(
            "no peer with the core {} can be reached within {:?}: {}; wait longer with --timeout",
            self.source.core.key(),
            self.limit.unwrap_or_default(),
            self.calls.take_reasons()
        )))
    }

    /// Whether all who were named have answered, and have the core. Behind the first that is found there
    /// may come another.
    fn is_everybody_here(&self) -> bool {
        let connected = self.source.core.peers();
        let all_opened = !connected.is_empty() && connected.iter().all(|peer| peer.opened);
        self.calls.are_answered() && all_opened && !self.source.peers.is_empty()
    }
}
