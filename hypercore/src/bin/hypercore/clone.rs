//! `hypercore clone`: a copy of a core from its peers.

mod report;
mod wanted;

use std::{collections::HashSet, io, ops::Range, pin::Pin, time::Duration};

use async_io::Timer;
use futures_lite::{StreamExt, future};
use hypercore::{Error, Event, Events, Hypercore, PeerId, PeerInfo, storage, wire::StaticKeyPair};

use self::{
    report::{PROGRESS, Report},
    wanted::Wanted,
};
use crate::{
    alarm,
    args::{CloneArgs, Manners},
    calls::{Again, Calls, News},
    commands::{close, options, refuse_file, tell_recovery},
    errors::{Exit, Failure, Result, end_of, end_words, is_of_key, quoted, reason},
    identity,
    origin::Origin,
    output::blocks,
    peers::{Ended, Gathering, Member, Peers},
    signals::Signals,
    status,
};

/// How long the end of a clone waits for what peers say about their history.
const HEARING: Duration = Duration::from_secs(2);

/// How often the peers are looked at meanwhile.
const LOOK: Duration = Duration::from_millis(10);

pub(crate) async fn clone(args: CloneArgs, manners: &Manners) -> Result<()> {
    download(args, manners, |_| future::pending()).await
}

/// Makes or continues a clone, and does something `beside` with its core for as long as that takes.
pub(crate) async fn download<F: Future<Output = Result<()>>>(
    args: CloneArgs,
    manners: &Manners,
    beside: impl FnOnce(Hypercore) -> F,
) -> Result<()> {
    let signals = Signals::catch().map_err(|error| Failure::failed(error.to_string()))?;
    let identity = identity::load(args.identity.path.as_deref())?;
    let (core, origin) = open(&args).await?;
    // What is here goes to peers, too.
    alarm::watch_over(&args.dir);
    let mut job = Job::new(core, identity, args, manners);
    let tasks = Gathering::default();
    let stop = async {
        signals.stopped().await;
        None
    };
    let status = status::answer(job.args.dir.clone(), job.core.clone(), job.peers.clone());
    let beside = beside(job.core.clone());
    let work = future::or(async { Some(job.run(&tasks.member()).await) }, async {
        match status.await {}
    });
    let ended = future::or(stop, future::or(work, async { Some(beside.await) })).await;
    let ended = ended.unwrap_or_else(|| job.interrupted());

    job.peers.hang_up.hang_up();
    let closed = close(&job.core, &job.args.dir).await;
    job.report.output.done();
    if ended.is_ok() && closed.is_ok() && !job.args.live {
        job.report.tell_synced()?;
    }
    if !job.met {
        // If the key was wrong, what is there would be in the way of the right one.
        origin.restore();
    }
    tasks.end().await;
    let told = job.report.output.finish().await;
    ended.and(closed).and(told)
}

/// Opens the copy, new or from an earlier run.
async fn open(args: &CloneArgs) -> Result<(Hypercore, Origin)> {
    let dir = args.dir.as_path();
    refuse_file(dir)?;
    let origin = Origin::of(dir);
    let opened = options()
        .key(args.key)
        .sparse(args.sparse)
        .eager_update(args.live)
        .open(dir)
        .await;
    let core = opened
        .inspect_err(|error| origin.restore_after(error))
        .map_err(|error| match (&error, &args.target) {
            // Nobody who asked for a file knows what else is made for it.
            (Error::Storage(storage::Error::Io { source, .. }), Some(target)) if !dir.exists() => {
                let why = match source.kind() {
                    io::ErrorKind::NotFound => "nothing can be made there".to_owned(),
                    _ => reason(source),
                };
                Failure::failed(match args.to_stdout {
                    true => format!(
                        "`{}`, where the blocks go first, cannot be made: {why}; run it in another \
                         directory",
                        dir.display()
                    ),
                    false => format!(
                        "`{}` cannot be written: {why}; name another target after the line",
                        target.display()
                    ),
                })
            }
            (error, None) if is_of_key(error) => without_key(args, error),
            _ => Failure::core(error, dir),
        })?;
    tell_recovery(&core, dir);
    if core.is_original() {
        let (shown, quoted) = (dir.display(), quoted(dir));
        return Err(Failure::failed(match args.target {
            None => format!(
                "`{shown}` holds the original of this core, which can only be appended to; clone \
                 into another directory"
            ),
            Some(_) => format!(
                "`{shown}` holds the original of this core: `hypercore cat {quoted}` writes what is \
                 in it, and another target after the line receives it"
            ),
        }));
    }
    Ok((core, origin))
}

/// The file `key` is not there. Which one it is to be, somebody has typed.
fn without_key(args: &CloneArgs, error: &Error) -> Failure {
    let (dir, key) = (args.dir.as_path(), args.key);
    let bytes = key.as_bytes().iter();
    let bytes: String = bytes.map(|byte| format!(r"\{byte:03o}")).collect();
    Failure::core_ref(error, dir).and(&format!(
        "if these are blocks of {key}, `printf '{bytes}' > {}` writes it; or clone into another \
         directory",
        quoted(&dir.join("key"))
    ))
}

/// What a job waits for.
enum Step {
    Event(Option<Event>),
    /// There is room to tell more.
    Room(Result<()>),
    News(News),
    Fetched(Result<(), Error>),
    Tick,
}

type Fetching = Pin<Box<dyn Future<Output = Result<(), Error>>>>;

/// One run of the command.
struct Job {
    core: Hypercore,
    args: CloneArgs,
    wanted: Wanted,
    peers: Peers,
    report: Report,
    calls: Calls,
    /// Connected peers that have the core.
    open: HashSet<PeerId>,
    /// Whether there ever was one.
    met: bool,
    /// The greatest length a peer spoke of.
    claimed: u64,
    /// Whether a block came in this run.
    received: bool,
    /// Whether all that is wanted is here, and that was not told.
    to_tell: bool,
}

impl Job {
    fn new(
        core: Hypercore,
        identity: Option<StaticKeyPair>,
        args: CloneArgs,
        manners: &Manners,
    ) -> Self {
        let peers = Peers::new(&core, identity);
        let again = match args.target {
            _ if args.live => Again::Always,
            // Its peer was there when its line was printed, and has room.
            Some(_) => Again::WhenLostAtOnce,
            None => Again::WhenLost,
        };
        Self {
            wanted: Wanted::new(&core, &peers, &args),
            report: Report::new(&core, &args, manners),
            peers,
            calls: Calls::new(again),
            open: HashSet::new(),
            met: false,
            claimed: 0,
            received: false,
            to_tell: false,
            core,
            args,
        }
    }

    /// Downloads until everything is here, or cannot be had; for ever if live.
    async fn run(&mut self, member: &Member) -> Result<()> {
        let mut events = self.core.events();
        let addresses = [&self.args.connect[..], &self.args.more].concat();
        self.report.tell_resumed()?;
        if addresses.is_empty() || self.args.search {
            let searched = self.calls.search(&self.core, self.args.live);
            searched.map_err(Failure::lonely)?;
        }
        if addresses.is_empty() {
            self.report
                .output
                .remark("Looking for peers on the local network.");
        }
        self.calls.start(&self.peers, addresses, member);
        let mut ticks = Timer::interval(PROGRESS);
        let news = self.calls.news();
        let mut fetching: Fetching = Box::pin(self.wanted.ask_early());
        loop {
            let ready = async {
                future::or(
                    async { news.recv().await.map_or_else(|_| Step::Tick, Step::News) },
                    async { Step::Fetched(fetching.as_mut().await) },
                )
                .await
            };
            let tick = async {
                ticks.next().await;
                Step::Tick
            };
            self.report.catch_up()?;
            if self.to_tell {
                self.tell_waiting(&mut events).await?;
                self.to_tell = !self.report.has_room();
                if !self.to_tell {
                    self.report.tell_synced()?;
                }
            }
            let has_room = self.report.has_room();
            // Events first: what happened before something else is told before it. While nobody takes
            // that, the rest goes on.
            let event = async {
                match self.report.output.room().await {
                    Ok(()) if has_room => Step::Event(events.next().await),
                    room => Step::Room(room),
                }
            };
            let step = future::or(event, future::or(ready, tick)).await;
            if let Step::Room(room) = step {
                room?;
                continue;
            }
            if let Step::Event(event) = step {
                let event = event.ok_or_else(|| self.failure(Error::Closed))?;
                self.tell(&event)?;
                if self.report.is_due() {
                    self.report.tell_progress(self.peers.count())?;
                    ticks.set_after(PROGRESS);
                    // There may always be another event: signals are to be seen all the same.
                    future::yield_now().await;
                }
                continue;
            }
            self.tell_waiting(&mut events).await?;
            match step {
                Step::Event(_) | Step::Room(_) => {}
                Step::Tick => {
                    self.report.tell_progress(self.peers.count())?;
                    // Not as often as it was missed.
                    ticks.set_after(PROGRESS);
                    self.report.tell_old();
                    self.report.tell_stuck(&self.wanted);
                }
                Step::News(news) => {
                    if let News::Found { address } = &news {
                        let found = vec![address.clone()];
                        self.calls.start(&self.peers, found, member);
                    }
                    let is_answer = !matches!(news, News::Lost { .. });
                    if self.take(news)? {
                        return Ok(());
                    }
                    if is_answer && self.calls.are_answered() {
                        fetching = Box::pin(self.wanted.fetch());
                    }
                }
                Step::Fetched(fetched) => {
                    fetched.map_err(|error| self.failure(error))?;
                    if !self.args.live {
                        self.hear_out(&mut events).await?;
                        return self.check_proved().and_then(|()| self.check_exist());
                    }
                    self.to_tell = true;
                    fetching = Box::pin(self.wanted.follow());
                }
            }
        }
    }

    /// All that is wanted is here: waits a moment for what peers say about their history, as another one
    /// than ours is to be told of.
    async fn hear_out(&mut self, events: &mut Events) -> Result<()> {
        let is_asked = |peer: &PeerInfo| peer.opened && peer.remote_length > 0 && !peer.compared;
        let heard = async {
            while self.core.length() > 0 && self.core.peers().iter().any(is_asked) {
                Timer::after(LOOK).await;
            }
        };
        let limit = async {
            Timer::after(HEARING).await;
        };
        future::or(heard, limit).await;
        self.tell_waiting(events).await
    }

    /// Takes note of what became of a connection. Returns whether the job is done.
    fn take(&mut self, news: News) -> Result<bool> {
        if matches!(news, News::Connected { .. }) {
            self.calls.note(news, false);
            return Ok(false);
        }
        let mut had_core = false;
        if let News::Lost {
            id,
            address,
            ended,
            may_return,
        } = &news
        {
            self.peers.forget(*id);
            had_core = self.open.remove(id);
            if let Some(error) = ended.fault_here() {
                return Err(Failure::core_ref(error, &self.args.dir));
            }
            if let Ended::Failed(error) = ended
                && *may_return
            {
                let reason = end_of(error);
                self.report.output.remark(format_args!(
                    "{address} was lost ({reason}); calling again."
                ));
            }
            if had_core && self.open.is_empty() && self.args.live && matches!(ended, Ended::Closed)
            {
                self.report.output.remark(format_args!(
                    "{address} has left, and nobody else is connected; going on when somebody is."
                ));
            }
        }
        self.calls.note(news, had_core);
        if self.args.live && !self.calls.are_over() {
            for reason in self.calls.take_unreached() {
                self.report
                    .output
                    .remark(format_args!("{reason}; calling again."));
            }
        }
        if self.calls.are_over() {
            self.alone()
        } else {
            Ok(false)
        }
    }

    /// The last peer is gone. Returns whether the job is done.
    fn alone(&mut self) -> Result<bool> {
        let reasons = self.calls.take_reasons();
        let key = self.args.key;
        if !self.met {
            return Err(Failure::failed(format!(
                "no peer with the core {key} can be reached: {reasons}; `hypercore doctor` names \
                 the step that fails"
            ))
            .lonely());
        }
        let (missing, blocks) = self.wanted.missing();
        if missing == 0 && self.report.was_synced() {
            self.report.output.remark(format_args!(
                "Nobody is connected ({reasons}); calling again."
            ));
            return Ok(false);
        }
        let is_new = self.received && self.claimed <= self.core.length();
        if missing == 0 && is_new && !self.args.live {
            return self.check_exist().map(|()| true);
        }
        Err(Failure::new(
            Exit::Incomplete,
            match self.report.state_of_target() {
                Some(state) => {
                    format!("the last peer is gone ({reasons}): {state}; run it again to go on")
                }
                None => format!(
                    "the last peer is gone ({reasons}) and the clone is not complete: {blocks}; \
                     run it again to go on"
                ),
            },
        )
        .lonely())
    }

    /// All that is known is here. That it is nothing is only true if nobody has spoken of more.
    fn check_proved(&self) -> Result<()> {
        if self.core.length() > 0 || self.claimed == 0 {
            return Ok(());
        }
        let claimed = blocks(self.claimed);
        Err(Failure::new(
            Exit::Incomplete,
            format!("the clone is not complete: peers speak of {claimed}, and have not proved one"),
        ))
    }

    /// All that exists of what is wanted is here. It is not all if more was asked for by number.
    fn check_exist(&self) -> Result<()> {
        let Some(Range { start, end }) = self.wanted.beyond() else {
            return Ok(());
        };
        let length = blocks(self.core.length());
        Err(Failure::new(
            Exit::Incomplete,
            format!(
                "blocks {start}..{end} do not exist yet: the core has {length}; with --live they \
                 are waited for"
            ),
        ))
    }

    /// A signal came.
    fn interrupted(&self) -> Result<()> {
        if self.args.live {
            return Ok(());
        }
        let words = match self.report.state_of_target() {
            Some(state) => format!("interrupted: {state}; run it again to go on"),
            None => format!(
                "interrupted before the clone in `{}` was complete: {}; run it again to go on",
                self.args.dir.display(),
                self.wanted.missing().1
            ),
        };
        Err(Failure::new(Exit::Incomplete, words))
    }

    fn failure(&self, error: Error) -> Failure {
        Failure::core(error, &self.args.dir)
    }

    /// Tells everything that has happened until now.
    async fn tell_waiting(&mut self, events: &mut Events) -> Result<()> {
        let claims = self.core.peers().into_iter().map(|peer| peer.remote_length);
        self.claimed = claims.max().unwrap_or(0).max(self.claimed);
        while self.report.has_room()
            && let Some(Some(event)) = future::poll_once(events.next()).await
        {
            self.tell(&event)?;
        }
        Ok(())
    }

    fn tell(&mut self, event: &Event) -> Result<()> {
        match event {
            Event::Append { length } => self
                .report
                .output
                .event("append", &[("length", (*length).into())]),
            Event::Download { index, .. } => {
                self.received = true;
                self.report.tell_download(*index)
            }
            // We were too slow: what was dropped is seen in what is stored. So many events can only be
            // those of blocks that somebody sent.
            Event::Lagged { .. } => {
                self.met = true;
                self.received = true;
                self.report.tell_all()
            }
            Event::Forked { length } => {
                self.report
                    .output
                    .event("forked", &[("length", (*length).into())])?;
                Err(Failure::forked(*length, Some(&self.args.dir)))
            }
            Event::PeerOpen { peer } => {
                self.met = true;
                self.open.insert(*peer);
                let address = self.peers.address(*peer);
                self.report
                    .output
                    .event("peer-open", &[("peer", address.as_str().into())])
            }
            Event::PeerClose { peer, code, reason } => {
                let address = self.peers.address(*peer);
                let reason = end_words(reason);
                self.report.output.event(
                    "peer-close",
                    &[
                        ("peer", address.as_str().into()),
                        ("reason", reason.as_str().into()),
                        ("code", code.as_str().into()),
                    ],
                )
            }
            _ => Ok(()),
        }
    }
}
