//! What a clone says of itself while it runs, to people and to programs.

use std::{
    mem,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use hypercore::{
    Goal, Hypercore, Progress, Waiting, WaitsOn,
    bitfield::{Bitfield, PageSize},
};

use super::wanted::Wanted;
use crate::{
    args::{CloneArgs, Manners},
    errors::Result,
    output::{Output, blocks, bytes, on_one_line},
    parts::share_of,
};

/// How often progress is told.
pub(super) const PROGRESS: Duration = Duration::from_millis(500);

/// What is here of a core, and what was told of that.
pub(super) struct Report {
    core: Hypercore,
    pub(super) output: Output,
    dir: PathBuf,
    /// The file that is wanted, and not its core.
    target: Option<PathBuf>,
    /// How long its log was when it was shared.
    at_least: u64,
    /// Whether it was told that nobody has all of that.
    told_old: bool,
    /// Whether it was told that nobody has the rest.
    told_stuck: bool,
    /// The first block that nobody had at the last look, and how many blocks were here.
    stuck: Option<(u64, u64)>,
    live: bool,
    /// When this run began, and the blocks that were stored then.
    start: (Instant, u64),
    /// What was told last: when, blocks stored and bytes received until then.
    progress: (Instant, u64, u64),
    /// Length and number of stored blocks that were told last.
    synced: Option<(u64, u64)>,
    /// Blocks that were here before, or were told to be here. Kept for those who follow only.
    known: Bitfield,
    /// The next block to look at, if there were more than could be told one by one.
    behind: Option<u64>,
}

impl Report {
    pub(super) fn new(core: &Hypercore, args: &CloneArgs, manners: &Manners) -> Self {
        let mut output = Output::new(&args.format, manners);
        // Of blocks nobody knows who asked for a file.
        output.draw(
            0,
            match args.target {
                Some(_) => "{bar:40} {percent:>3}%  {msg}",
                None => "{bar:40} {pos}/{len} blocks  {msg}",
            },
        );
        let mut known = Bitfield::new(PageSize::Current);
        if args.live {
            for index in (0..core.length()).filter(|&index| core.has(index)) {
                known.set(index, true);
            }
        }
        let downloaded = core.progress(..).downloaded;
        output.write_beside();
        Self {
            core: core.clone(),
            output,
            dir: args.dir.clone(),
            target: args.target.clone(),
            at_least: args.at_least,
            told_old: false,
            told_stuck: false,
            stuck: None,
            live: args.live,
            start: (Instant::now(), downloaded),
            progress: (Instant::now(), downloaded, 0),
            synced: None,
            known,
            behind: None,
        }
    }

    /// Says that an earlier run has begun this.
    pub(super) fn tell_resumed(&mut self) -> Result<()> {
        let (length, downloaded) = (self.core.length(), self.core.downloaded(..));
        if downloaded == 0 {
            return Ok(());
        }
        let here = match self.target {
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
        self.target.as_deref().unwrap_or(&self.dir)
    }

    /// Tells those who follow that a block is here, once.
    pub(super) fn tell_download(&mut self, index: u64) -> Result<()> {
        if !self.live || !self.known.set(index, true) {
            return Ok(());
        }
        self.output.event("download", &[("index", index.into())])
    }

    /// Events were dropped: what is here is seen in what is stored.
    pub(super) fn tell_all(&mut self) -> Result<()> {
        self.behind = self.live.then_some(0);
        self.catch_up()
    }

    /// Tells what was not told yet, as far as there is room.
    pub(super) fn catch_up(&mut self) -> Result<()> {
        while let Some(index) = self.behind
            && self.output.has_room()
        {
            self.behind = (index < self.core.length()).then_some(index.saturating_add(1));
            if self.core.has(index) {
                self.tell_download(index)?;
            }
        }
        Ok(())
    }

    /// Whether there is room for what happens next.
    pub(super) fn has_room(&self) -> bool {
        self.behind.is_none() && self.output.has_room()
    }

    /// Tells how far it is, with so many peers.
    pub(super) fn tell_progress(&mut self, peers: usize) -> Result<()> {
        let Progress {
            downloaded, length, ..
        } = self.core.progress(..);
        let received = self.core.stats().downloaded_bytes;
        let (last, last_downloaded, last_received) = self.progress;
        let came = received.saturating_sub(last_received);
        let speed = came as f64 / last.elapsed().as_secs_f64().max(0.001);
        self.progress = (Instant::now(), downloaded, received);
        let bar = self.output.bar();
        // Of a length that is not known yet nothing is here, and not all.
        match length {
            0 => bar.unset_length(),
            length => bar.set_length(length),
        }
        bar.set_position(downloaded);
        let peers_now = if peers == 1 { "peer" } else { "peers" };
        let left = self.time_left(downloaded, length);
        let what = match self.target {
            Some(_) => self.bytes_here(),
            None => bytes(received),
        };
        bar.set_message(match (peers, length) {
            (0, 0) => "waiting for a peer".to_owned(),
            (0, _) => format!("{what}  waiting for a peer"),
            (_, length) if self.live && length == downloaded => {
                format!("{what}  up to date with {peers} {peers_now}")
            }
            _ => format!(
                "{what}  {}/s from {peers} {peers_now}{left}",
                bytes(speed as u64)
            ),
        });
        if (downloaded, received) == (last_downloaded, last_received) || !self.has_room() {
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

    /// Whether it is time to tell how far it is.
    pub(super) fn is_due(&self) -> bool {
        self.progress.0.elapsed() >= PROGRESS
    }

    /// Whether it was told that all is here.
    pub(super) fn was_synced(&self) -> bool {
        self.synced.is_some()
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
    pub(super) fn tell_synced(&mut self) -> Result<()> {
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
        if self.target.is_some() {
            // Who asked for it has more to do before people are told.
            return self.output.event("synced", &fields[1..]);
        }
        let name = self.name().to_owned();
        let dir = on_one_line(name.display());
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

    /// How much of a file is here, for those who asked for one and not for a core.
    pub(super) fn state_of_target(&self) -> Option<String> {
        let target = self.target.as_ref()?.display();
        let dir = self.dir.display();
        Some(match self.core.downloaded(..) {
            0 => format!("nothing of `{target}` is here yet"),
            _ if self.core.length() < self.at_least => format!(
                "only {} of the {} of `{target}` are known, of an older copy that is here, in \
                 `{dir}`",
                self.core.length(),
                blocks(self.at_least)
            ),
            _ => format!("{} of `{target}` are here, in `{dir}`", self.bytes_here()),
        })
    }

    /// Tells once that all that the others have is here, and is not all there is.
    pub(super) fn tell_old(&mut self) {
        let length = self.core.length();
        let is_old = 0 < length && length < self.at_least && self.core.downloaded(..) == length;
        if self.told_old || !is_old {
            return;
        }
        // Who has not told yet what it has may have all of it.
        let peers = self.core.peers().into_iter();
        let told: Vec<_> = peers
            .filter(|peer| peer.opened)
            .map(|peer| 0 < peer.remote_length && peer.remote_length <= length)
            .collect();
        if told.is_empty() || told.contains(&false) {
            return;
        }
        self.told_old = true;
        self.output.remark(format_args!(
            "Whoever is connected has an older copy of `{}`, {length} of {}; waiting for somebody \
             with all of it.",
            self.name().display(),
            blocks(self.at_least)
        ));
    }

    /// Tells once that no connected peer has what is missing, if that was so at the last look already.
    pub(super) fn tell_stuck(&mut self, wanted: &Wanted) {
        let length = self.core.length();
        let lacking = |waiting: Waiting| match (waiting.goal, waiting.on) {
            // What is beyond the end may just not have been appended yet.
            (Goal::Blocks { missing, .. }, WaitsOn::Nobody) if missing < length => Some(missing),
            _ => None,
        };
        let first = self.core.waiting().into_iter().find_map(lacking);
        let now = first.map(|block| (block, self.core.downloaded(..)));
        let before = mem::replace(&mut self.stuck, now);
        if self.told_stuck || now.is_none() || now != before {
            return;
        }
        self.told_stuck = true;
        self.output.remark(format_args!(
            "No connected peer has the rest of `{}`: {}; waiting for one that has it.",
            self.name().display(),
            wanted.missing().1
        ));
    }

    /// "1.50 MiB of 3.00 MiB", to a block: those of a file that is shared are of one size.
    fn bytes_here(&self) -> String {
        let size = self.core.byte_length();
        let here = share_of(size, self.core.downloaded(..), self.core.length());
        format!("{} of {}", bytes(here), bytes(size))
    }
}
