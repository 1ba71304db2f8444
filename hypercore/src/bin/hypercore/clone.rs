//! `hypercore clone`: a copy of a core from its peers.

use std::{
    collections::HashSet,
    fs, io,
    ops::Range,
    path::Path,
    pin::Pin,
    time::{Duration, Instant},
};

use async_io::Timer;
use futures_lite::{StreamExt, future};
use hypercore::{
    CloseReason, Error, Event, Events, Hypercore, PeerId, Progress, UpdateOptions,
    bitfield::{Bitfield, PageSize},
    storage::{Directory, FileName, Storage},
    wire::StaticKeyPair,
};

use crate::{
    args::{CloneArgs, Manners},
    calls::{Again, Calls, News},
    commands::{close, options, refuse_file, tell_recovery},
    errors::{Exit, Failure, Result, end_of},
    identity,
    output::{Output, blocks, bytes},
    peers::{Ended, Gathering, Member, Peers},
    signals::Signals,
    status,
};

/// How often progress is told.
const PROGRESS: Duration = Duration::from_millis(500);

/// How long connected peers have to tell what they have once all known blocks are here.
const HEAR_TIMEOUT: Duration = Duration::from_secs(20);

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
    job.output.done();
    if ended.is_ok() && closed.is_ok() && !job.args.live {
        job.tell_synced()?;
    }
    if !job.met {
        origin.restore(&job.args.dir);
    }
    tasks.end().await;
    ended.and(closed)
}

/// What was there before this run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Origin {
    Nothing,
    Directory,
    Files,
}

impl Origin {
    fn of(dir: &Path) -> Self {
        match fs::read_dir(dir).map(|mut entries| entries.next().is_none()) {
            Ok(true) => Self::Directory,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Self::Nothing,
            _ => Self::Files,
        }
    }

    /// Removes the files of a clone that nobody has helped to begin: they hold nothing but the
    /// key, and if that was wrong they would be in the way of the right one.
    fn restore(self, dir: &Path) {
        if self == Self::Files {
            return;
        }
        let files = Directory::new(dir);
        for file in FileName::ALL {
            if let Err(error) = files.remove(file) {
                tracing::warn!(%error, "the file `{file}` of the empty clone stays");
            }
        }
        if self == Self::Nothing {
            // If somebody has put something else there meanwhile, it stays.
            let _ = fs::remove_dir(dir);
        }
    }
}

/// Opens the copy, new or from an earlier run.
async fn open(args: &CloneArgs) -> Result<(Hypercore, Origin)> {
    let dir = args.dir.as_path();
    refuse_file(dir)?;
    let origin = Origin::of(dir);
    let core = options()
        .key(args.key)
        .sparse(args.sparse)
        .eager_update(args.live)
        .open(dir)
        .await
        .map_err(|error| Failure::core(error, dir))?;
    tell_recovery(&core, dir);
    if core.is_writable() || core.append_lock().is_some() {
        return Err(Failure::failed(format!(
            "`{}` holds the original of this core, which can only be appended to; clone into \
             another directory",
            dir.display()
        )));
    }
    Ok((core, origin))
}

/// What a job waits for.
enum Step {
    Event(Option<Event>),
    News(News),
    Fetched(Result<(), Error>),
    Tick,
}

type Fetching = Pin<Box<dyn Future<Output = Result<(), Error>>>>;

/// One run of the command.
struct Job {
    core: Hypercore,
    args: CloneArgs,
    /// The blocks that are wanted.
    ranges: Vec<Range<u64>>,
    peers: Peers,
    output: Output,
    calls: Calls,
    /// Connected peers that have the core.
    open: HashSet<PeerId>,
    /// Whether there ever was one.
    met: bool,
    /// The greatest length a peer spoke of.
    claimed: u64,
    /// When this run began, and the blocks that were stored then.
    start: (Instant, u64),
    /// Whether a block came in this run.
    received: bool,
    /// What was told last: when, blocks stored and bytes received until then.
    progress: (Instant, u64, u64),
    /// Length and number of stored blocks that were told last.
    synced: Option<(u64, u64)>,
    /// Blocks that were here before, or were told to be here. Kept for those who follow only.
    known: Bitfield,
}

impl Job {
    fn new(
        core: Hypercore,
        identity: Option<StaticKeyPair>,
        args: CloneArgs,
        manners: &Manners,
    ) -> Self {
        let ranges = if args.sparse {
            args.range.clone()
        } else {
            std::iter::once(0..u64::MAX).collect()
        };
        let mut output = Output::new(&args.format, manners);
        // Of blocks nobody knows who asked for a file.
        output.draw(
            0,
            match args.target {
                Some(_) => "{bar:40} {percent:>3}%  {msg}",
                None => "{bar:40} {pos}/{len} blocks  {msg}",
            },
        );
        let again = match args.target {
            _ if args.live => Again::Always,
            // Its peer was there when its line was printed, and has room.
            Some(_) => Again::WhenLostAtOnce,
            None => Again::WhenLost,
        };
        let mut known = Bitfield::new(PageSize::Current);
        if args.live {
            for index in (0..core.length()).filter(|&index| core.has(index)) {
                known.set(index, true);
            }
        }
        Self {
            peers: Peers::new(&core, identity),
            ranges,
            output,
            calls: Calls::new(again),
            open: HashSet::new(),
            met: false,
            claimed: 0,
            start: (Instant::now(), core.progress(..).downloaded),
            received: false,
            progress: (Instant::now(), core.progress(..).downloaded, 0),
            synced: None,
            known,
            core,
            args,
        }
    }

    /// Downloads until everything is here, or cannot be had; for ever if live.
    async fn run(&mut self, member: &Member) -> Result<()> {
        let mut events = self.core.events();
        let addresses = [&self.args.connect[..], &self.args.more].concat();
        self.tell_resumed()?;
        if addresses.is_empty() || self.args.search {
            self.calls.search(&self.core, self.args.live)?;
        }
        if addresses.is_empty() {
            self.output
                .remark("Looking for peers on the local network.");
        }
        self.calls.start(&self.peers, addresses, member);
        let mut ticks = Timer::interval(PROGRESS);
        let news = self.calls.news();
        let mut fetching: Fetching = Box::pin(self.ask_early());
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
            // Events first: what happened before something else is told before it.
            let event = async { Step::Event(events.next().await) };
            let step = future::or(event, future::or(ready, tick)).await;
            if let Step::Event(event) = step {
                let event = event.ok_or_else(|| self.failure(Error::Closed))?;
                self.tell(&event)?;
                if self.progress.0.elapsed() >= PROGRESS {
                    self.tell_progress()?;
                    // There may always be another event: signals are to be seen all the same.
                    future::yield_now().await;
                }
                continue;
            }
            self.tell_waiting(&mut events).await?;
            match step {
                Step::Event(_) => {}
                Step::Tick => self.tell_progress()?,
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
                        fetching = Box::pin(self.fetch());
                    }
                }
                Step::Fetched(fetched) => {
                    fetched.map_err(|error| self.failure(error))?;
                    if !self.args.live {
                        return self.check_proved();
                    }
                    self.tell_synced()?;
                    fetching = Box::pin(self.follow());
                }
            }
        }
    }

    // ---- downloading ------------------------------------------------------------------------

    /// Asks for the blocks before all peers have answered: their number may not be known yet.
    fn ask_early(&self) -> impl Future<Output = Result<(), Error>> + use<> {
        let sparse = self.args.sparse;
        let ranges = self.ranges.iter().filter(|_| sparse);
        let downloads: Vec<_> = ranges
            .map(|blocks| self.core.download(blocks.clone()))
            .collect();
        async move {
            let _downloads = downloads;
            future::pending().await
        }
    }

    /// Done when every connected peer was heard, and all that is wanted of the log is here.
    fn fetch(&self) -> impl Future<Output = Result<(), Error>> + use<> {
        let (core, peers, ranges) = (self.core.clone(), self.peers.clone(), self.ranges.clone());
        async move {
            loop {
                let length = core.length();
                let known = ranges
                    .iter()
                    .map(|blocks| blocks.start..blocks.end.min(length));
                let downloads: Vec<_> = known.map(|blocks| core.download(blocks)).collect();
                for download in downloads {
                    download.await?;
                }
                let mut options = UpdateOptions::default();
                options.if_available = true;
                options.timeout = Some(HEAR_TIMEOUT);
                match core.update_with(options).await {
                    Ok(_) => {}
                    // Without peers that says nothing; whoever counts them knows what to do.
                    Err(Error::NotAvailable) if !peers.any_open() => future::pending().await,
                    // Or one is silent, and one that speaks of more without proving it is let go.
                    Err(Error::NotAvailable | Error::TimedOut) if core.length() == length => {
                        return Ok(());
                    }
                    Err(Error::NotAvailable | Error::TimedOut) => {}
                    Err(error) => return Err(error),
                }
            }
        }
    }

    /// Waits for the log to grow, and fetches what is new.
    fn follow(&self) -> impl Future<Output = Result<(), Error>> + use<> {
        let (core, fetch) = (self.core.clone(), self.fetch());
        async move {
            core.update().await?;
            fetch.await
        }
    }

    // ---- peers ------------------------------------------------------------------------------

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
            if let Ended::Failed(error) = ended {
                if error.close_reason() == CloseReason::Internal {
                    // Something is wrong here, as a full disk is, and no peer can help it.
                    return Err(Failure::core_ref(error, &self.args.dir));
                }
                if *may_return {
                    let reason = end_of(error);
                    self.output.remark(format_args!(
                        "{address} was lost ({reason}); calling again."
                    ));
                }
            }
            if had_core && self.open.is_empty() && self.args.live && matches!(ended, Ended::Closed)
            {
                self.output.remark(format_args!(
                    "{address} has left, and nobody else is connected; going on when somebody is."
                ));
            }
        }
        self.calls.note(news, had_core);
        if self.args.live && !self.calls.are_over() {
            for reason in self.calls.take_unreached() {
                self.output.remark(format_args!("{reason}; calling again."));
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
            )));
        }
        let (missing, blocks) = self.missing();
        if missing == 0 && self.synced.is_some() {
            self.output.remark(format_args!(
                "Nobody is connected ({reasons}); calling again."
            ));
            return Ok(false);
        }
        let is_new = self.received && self.claimed <= self.core.length();
        if missing == 0 && is_new && !self.args.live {
            return Ok(true);
        }
        Err(Failure::new(
            Exit::Incomplete,
            match self.state_of_target() {
                Some(state) => {
                    format!("the last peer is gone ({reasons}): {state}; run it again to go on")
                }
                None => format!(
                    "the last peer is gone ({reasons}) and the clone is not complete: {blocks}; \
                     run it again to go on"
                ),
            },
        ))
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

    /// A signal came.
    fn interrupted(&self) -> Result<()> {
        if self.args.live {
            return Ok(());
        }
        let words = match self.state_of_target() {
            Some(state) => format!("interrupted: {state}; run it again to go on"),
            None => format!(
                "interrupted before the clone was complete: {}",
                self.missing().1
            ),
        };
        Err(Failure::new(Exit::Incomplete, words))
    }

    /// How much of a file is here, for those who asked for one and not for a core.
    fn state_of_target(&self) -> Option<String> {
        let target = self.args.target.as_ref()?.display();
        let dir = self.args.dir.display();
        Some(match self.core.downloaded(..) {
            0 => format!("nothing of `{target}` is here yet"),
            _ => format!("{} of `{target}` are here, in `{dir}`", self.bytes_here()),
        })
    }

    /// "1.50 MiB of 3.00 MiB", to a block: those of a file that is shared are of one size.
    fn bytes_here(&self) -> String {
        let size = self.core.byte_length();
        let here = share_of(size, self.core.downloaded(..), self.core.length());
        format!("{} of {}", bytes(here), bytes(size))
    }

    /// How many blocks are wanted and known to exist, but not here; and the first of them in words.
    fn missing(&self) -> (u64, String) {
        if self.core.length() == 0 {
            return (0, "its length is not known yet".into());
        }
        let mut wanted = Progress::default();
        for blocks in &self.ranges {
            let part = self.core.progress(blocks.clone());
            wanted.downloaded += part.downloaded;
            wanted.length += part.length;
            wanted.missing.extend(part.missing);
        }
        wanted.missing.truncate(Progress::SHOWN_RUNS);
        if wanted.is_complete() {
            return (0, "peers may have more than is known here".into());
        }
        (wanted.length - wanted.downloaded, wanted.to_string())
    }

    fn failure(&self, error: Error) -> Failure {
        Failure::core(error, &self.args.dir)
    }

    // ---- telling ----------------------------------------------------------------------------

    /// Says that an earlier run has begun this.
    fn tell_resumed(&mut self) -> Result<()> {
        let (length, downloaded) = (self.core.length(), self.core.downloaded(..));
        if downloaded == 0 {
            return Ok(());
        }
        let here = match self.args.target {
            Some(_) => self.bytes_here(),
            None => format!("{downloaded} of {}", blocks(length)),
        };
        self.output.remark(format_args!(
            "Going on with `{}`: {here} are here already.",
            self.name().display(),
        ));
        self.output.event(
            "resumed",
            &[("downloaded", downloaded.into()), ("length", length.into())],
        )
    }

    /// What people call it.
    fn name(&self) -> &Path {
        self.args.target.as_deref().unwrap_or(&self.args.dir)
    }

    /// Tells everything that has happened until now.
    async fn tell_waiting(&mut self, events: &mut Events) -> Result<()> {
        let claims = self.core.peers().into_iter().map(|peer| peer.remote_length);
        self.claimed = claims.max().unwrap_or(0).max(self.claimed);
        while let Some(Some(event)) = future::poll_once(events.next()).await {
            self.tell(&event)?;
        }
        Ok(())
    }

    fn tell(&mut self, event: &Event) -> Result<()> {
        match event {
            Event::Append { length } => {
                self.output.event("append", &[("length", (*length).into())])
            }
            Event::Download { index, .. } => {
                self.received = true;
                self.tell_download(*index)
            }
            // We were too slow: what was dropped is seen in what is stored.
            Event::Lagged { .. } => {
                let core = self.core.clone();
                let mut stored = (0..core.length()).filter(|&index| core.has(index));
                stored.try_for_each(|index| self.tell_download(index))
            }
            Event::Forked { length } => {
                self.output
                    .event("forked", &[("length", (*length).into())])?;
                let dir = self.args.dir.display();
                Err(Failure::new(
                    Exit::Forked,
                    format!(
                        "the writer of this core has signed two histories; the proof is in \
                         `{dir}/fork-proof-{length}`, and what `{dir}` had before is still there"
                    ),
                ))
            }
            Event::PeerOpen { peer } => {
                self.met = true;
                self.open.insert(*peer);
                let address = self.peers.address(*peer);
                self.output
                    .event("peer-open", &[("peer", address.as_str().into())])
            }
            Event::PeerClose { peer, code, reason } => {
                let address = self.peers.address(*peer);
                self.output.event(
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

    /// Tells those who follow that a block is here, once.
    fn tell_download(&mut self, index: u64) -> Result<()> {
        if !self.args.live || !self.known.set(index, true) {
            return Ok(());
        }
        self.output.event("download", &[("index", index.into())])
    }

    fn tell_progress(&mut self) -> Result<()> {
        let Progress {
            downloaded,
            length,
            bytes: received,
            ..
        } = self.core.progress(..);
        let (last, last_downloaded, last_received) = self.progress;
        let speed = (received - last_received) as f64 / last.elapsed().as_secs_f64().max(0.001);
        self.progress = (Instant::now(), downloaded, received);
        let peers = self.peers.count();
        let bar = self.output.bar();
        // Of a length that is not known yet nothing is here, and not all.
        match length {
            0 => bar.unset_length(),
            length => bar.set_length(length),
        }
        bar.set_position(downloaded);
        let peers_now = if peers == 1 { "peer" } else { "peers" };
        let left = self.time_left(downloaded, length);
        let what = match self.args.target {
            Some(_) => self.bytes_here(),
            None => bytes(received),
        };
        bar.set_message(match (peers, length) {
            (0, 0) => "waiting for a peer".to_owned(),
            (0, _) => format!("{what}  waiting for a peer"),
            (_, length) if self.args.live && length == downloaded => {
                format!("{what}  up to date with {peers} {peers_now}")
            }
            _ => format!(
                "{what}  {}/s from {peers} {peers_now}{left}",
                bytes(speed as u64)
            ),
        });
        if (downloaded, received) == (last_downloaded, last_received) {
            return Ok(());
        }
        self.output.event(
            "progress",
            &[
                ("downloaded", downloaded.into()),
                ("length", length.into()),
                ("bytes", received.into()),
                ("bytesPerSecond", (speed as u64).into()),
                ("peers", peers.into()),
            ],
        )
    }

    /// In words: how long the missing blocks take at the mean speed of this run.
    fn time_left(&self, downloaded: u64, length: u64) -> String {
        let (start, before) = self.start;
        let came = downloaded.saturating_sub(before);
        let missing = length.saturating_sub(downloaded);
        if came == 0 || missing == 0 {
            return String::new();
        }
        let left = start.elapsed().mul_f64(missing as f64 / came as f64);
        format!("  {} left", indicatif::HumanDuration(left))
    }

    /// Tells that all that is wanted is here, unless that is known.
    fn tell_synced(&mut self) -> Result<()> {
        let (length, downloaded) = (self.core.length(), self.core.downloaded(..));
        if self.synced.replace((length, downloaded)) == Some((length, downloaded)) {
            return Ok(());
        }
        let byte_length = self.core.byte_length();
        let fields = [
            ("event", "synced".into()),
            ("length", length.into()),
            ("byteLength", byte_length.into()),
            ("downloaded", downloaded.into()),
        ];
        if self.args.target.is_some() {
            // Who asked for it has more to do before people are told.
            return self.output.event("synced", &fields[1..]);
        }
        let name = self.name().to_owned();
        let dir = name.display();
        let total = format!("{}, {}", blocks(length), bytes(byte_length));
        if downloaded == length {
            self.output
                .result(&fields, format_args!("`{dir}` is complete: {total}."))
        } else {
            self.output.result(
                &fields,
                format_args!("`{dir}` is up to date: {downloaded} stored of {total}."),
            )
        }
    }
}

/// How many of `size` bytes are in `downloaded` of `length` blocks that are as long as each other.
fn share_of(size: u64, downloaded: u64, length: u64) -> u64 {
    let share = u128::from(size) * u128::from(downloaded) / u128::from(length.max(1));
    // Not more than all, unless a block came meanwhile.
    u64::try_from(share).map_or(size, |share| share.min(size))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_of_blocks_that_are_here() {
        for (size, downloaded, length, expected) in [
            (1_000_000, 6, 16, 375_000),
            (1_000_000, 16, 16, 1_000_000),
            (0, 0, 0, 0),
            (1 << 52, 1 << 40, 1 << 40, 1 << 52),
            (10, 3, 2, 10),
        ] {
            assert_eq!(share_of(size, downloaded, length), expected);
        }
    }
}
