//! Which blocks a clone is to have, and how they come.

use std::{ops::Range, time::Duration};

use futures_lite::future;
use hypercore::{Error, Hypercore, Progress, UpdateOptions};

use crate::{args::CloneArgs, output::blocks, peers::Peers};

/// How long connected peers have to tell what they have once all known blocks are here.
const HEAR_TIMEOUT: Duration = Duration::from_secs(20);

/// The blocks that are wanted of a core.
pub(super) struct Wanted {
    core: Hypercore,
    peers: Peers,
    sparse: bool,
    ranges: Vec<Range<u64>>,
    /// How long the log is at least.
    at_least: u64,
}

impl Wanted {
    pub(super) fn new(core: &Hypercore, peers: &Peers, args: &CloneArgs) -> Self {
        Self {
            core: core.clone(),
            peers: peers.clone(),
            sparse: args.sparse,
            ranges: if args.sparse {
                merged(args.range.clone())
            } else {
                std::iter::once(0..u64::MAX).collect()
            },
            at_least: args.at_least,
        }
    }

    /// Asks for the blocks before all peers have answered: their number may not be known yet.
    pub(super) fn ask_early(&self) -> impl Future<Output = Result<(), Error>> + use<> {
        let ranges = self.ranges.iter().filter(|_| self.sparse);
        let downloads: Vec<_> = ranges
            .map(|blocks| self.core.download(blocks.clone()))
            .collect();
        async move {
            let _downloads = downloads;
            future::pending().await
        }
    }

    /// Done when every connected peer was heard, and all that is wanted of the log is here.
    pub(super) fn fetch(&self) -> impl Future<Output = Result<(), Error>> + use<> {
        let (core, peers, ranges) = (self.core.clone(), self.peers.clone(), self.ranges.clone());
        let at_least = self.at_least;
        async move {
            loop {
                let length = core.length().max(at_least);
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
    pub(super) fn follow(&self) -> impl Future<Output = Result<(), Error>> + use<> {
        let (core, fetch) = (self.core.clone(), self.fetch());
        async move {
            core.update().await?;
            fetch.await
        }
    }

    /// The first blocks that were asked for by their numbers and do not exist yet.
    pub(super) fn beyond(&self) -> Option<Range<u64>> {
        let length = self.core.length();
        let mut ranges = self.ranges.iter();
        let range = ranges.find(|range| range.end > length && range.end < u64::MAX)?;
        Some(range.start.max(length)..range.end)
    }

    /// How many blocks are wanted and known to exist, but not here; and the first of them in words.
    pub(super) fn missing(&self) -> (u64, String) {
        if self.core.length() == 0 {
            return (0, "its length is not known yet".into());
        }
        let mut wanted = Progress::default();
        for range in &self.ranges {
            let part = self.core.progress(range.clone());
            wanted.downloaded = wanted.downloaded.saturating_add(part.downloaded);
            wanted.length = wanted.length.saturating_add(part.length);
            wanted.missing.extend(part.missing);
        }
        let missing = wanted.length.saturating_sub(wanted.downloaded);
        let end = self.at_least.saturating_sub(wanted.length);
        if end > 0 {
            let words = format!(
                "only {} of {} are known",
                wanted.length,
                blocks(self.at_least)
            );
            return (missing.saturating_add(end), words);
        }
        wanted.missing.truncate(Progress::SHOWN_RUNS);
        if wanted.is_complete() {
            return (0, "peers may have more than is known here".into());
        }
        (missing, wanted.to_string())
    }
}

/// The same blocks in ascending order, each of them once.
fn merged(mut ranges: Vec<Range<u64>>) -> Vec<Range<u64>> {
    ranges.sort_unstable_by_key(|range| range.start);
    ranges.dedup_by(|next, range| {
        let goes_on = next.start <= range.end;
        if goes_on {
            range.end = range.end.max(next.end);
        }
        goes_on
    });
    ranges
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_block_is_wanted_twice() {
        assert_eq!(merged(vec![5..9, 0..2, 1..3, 3..4, 5..6]), [0..4, 5..9]);
    }
}
