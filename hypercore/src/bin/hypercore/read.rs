//! `hypercore get` and `hypercore cat`: from the disk, and over the network what is not there.

mod source;

use std::{mem, ops::Range, time::Instant};

use futures_lite::future;
use hypercore::Download;

use crate::{
    args::{CatArgs, GetArgs, Manners},
    commands::outside,
    errors::{Failure, Result},
    output::{RawOutput, bytes, deserted},
    parts::split_bytes,
    tail,
};
use source::{Source, Wait, parse_name};

/// Bytes that are asked for before they are written.
const AHEAD: u64 = 16 * 1024 * 1024;

pub(crate) async fn get(args: GetArgs, manners: &Manners) -> Result<()> {
    let source = Source::open(&args.source, &args.connect, &args.identity, manners).await?;
    source.check_timeout(args.timeout)?;
    let wait = match args.timeout {
        _ if source.offline => Wait::No,
        None => Wait::ForThoseConnected,
        Some(limit) => Wait::For(limit),
    };
    let mut output = RawOutput::default();
    let start = Instant::now();
    let read = async {
        // The peers, too, took of that time.
        let wait = match wait {
            Wait::For(limit) => Wait::For(limit.saturating_sub(start.elapsed())),
            wait => wait,
        };
        let block = source.block(args.index, wait).await?;
        output.write(&block, b"").await?;
        output.flush().await.map(|_| ())
    };
    if source.core.has(args.index) || source.offline {
        read.await?;
        return source.close().await;
    }
    let ended = source.read_from_peers(false, args.timeout, read).await;
    let written = output.finish().await;
    ended.and(written)
}

pub(crate) async fn cat(args: CatArgs, manners: &Manners) -> Result<()> {
    let key = parse_name(&args.source);
    let is_alone = args.connect.is_empty() && args.timeout.is_none();
    if is_alone && args.follow && key.is_none() {
        return tail::follow(args, manners).await;
    }
    let source = Source::open(&args.source, &args.connect, &args.identity, manners).await?;
    source.check_timeout(args.timeout)?;
    let wait = match args.timeout {
        _ if source.offline => Wait::No,
        _ if args.follow => Wait::ForEver,
        None => Wait::ForThoseConnected,
        Some(limit) => Wait::For(limit),
    };
    let unread = async {
        // Others have something to write in a moment, or end.
        match args.follow {
            true => deserted().await,
            false => future::pending().await,
        }
        Ok(())
    };
    let mut output = RawOutput::default();
    let work = future::or(unread, copy(&source, &args, wait, &mut output));
    if source.offline {
        work.await?;
        return source.close().await;
    }
    let ended = source
        .read_from_peers(args.follow, args.timeout, work)
        .await;
    let written = output.finish().await;
    ended.and(written)
}

/// Writes what `args` ask for to standard output.
async fn copy(source: &Source, args: &CatArgs, wait: Wait, output: &mut RawOutput) -> Result<()> {
    if wait != Wait::No {
        source.update(wait).await?;
    }
    let mut span = Span::of(source, args, wait).await?;
    let end = args.end_of_block();
    let mut ahead = Ahead::default();
    while let Some(index) = span.next() {
        if wait != Wait::No {
            ahead.reach(source, index, span.blocks.end).await;
        }
        let block = match source.block(index, wait).await {
            Ok(block) => block,
            Err(failure) => {
                // What came before the missing block is good.
                output.flush().await?;
                return Err(failure);
            }
        };
        if !output.write(span.cut(&block), end).await? {
            return Ok(());
        }
        if args.follow && !source.core.has(index.saturating_add(1)) && !output.flush().await? {
            return Ok(());
        }
    }
    output.flush().await.map(|_| ())
}

/// The part of a log that is written.
struct Span {
    blocks: Range<u64>,
    /// Bytes of the first block that are not wanted.
    skip: u64,
    /// Bytes still wanted.
    rest: u64,
}

impl Span {
    async fn of(source: &Source, args: &CatArgs, wait: Wait) -> Result<Self> {
        let core = &source.core;
        let name = source.name.display();
        if let Some(range) = &args.bytes {
            let byte_length = core.byte_length();
            let end = match range.end {
                u64::MAX => byte_length,
                end => end,
            };
            if range.start > byte_length {
                return Err(Failure::failed(format!(
                    "there is no byte {}: the core in `{name}` has {}",
                    range.start,
                    bytes(byte_length)
                )));
            }
            if end > byte_length {
                return Err(Failure::failed(format!(
                    "bytes {}..{end} do not lie within the core in `{name}`, which has {}",
                    range.start,
                    bytes(byte_length)
                )));
            }
            let (first, skip) = source.seek(range.start, wait).await?;
            return Ok(Self {
                blocks: first..u64::MAX,
                skip,
                rest: end.saturating_sub(range.start),
            });
        }
        let length = core.length();
        let end = match args.end {
            Some(end) => end,
            None if args.follow => u64::MAX,
            None => length.max(args.start),
        };
        if args.start > end || (end > length && !args.follow) {
            return Err(outside(&(args.start..end), length, &source.name));
        }
        Ok(Self {
            blocks: args.start..end,
            skip: 0,
            rest: u64::MAX,
        })
    }

    fn next(&mut self) -> Option<u64> {
        if self.rest == 0 {
            return None;
        }
        self.blocks.next()
    }

    /// What is wanted of the block that came.
    fn cut<'a>(&mut self, block: &'a [u8]) -> &'a [u8] {
        let (_, part) = split_bytes(block, mem::take(&mut self.skip));
        let (part, _) = split_bytes(part, self.rest);
        self.rest = self.rest.saturating_sub(part.len() as u64);
        part
    }
}

/// Keeps the blocks that come next on their way.
#[derive(Default)]
struct Ahead {
    asked: Range<u64>,
    downloads: Vec<Download>,
}

impl Ahead {
    /// Block `index` is read next, and nothing beyond `end`.
    async fn reach(&mut self, source: &Source, index: u64, end: u64) {
        let core = &source.core;
        let mean = core.byte_length().checked_div(core.length());
        let window = mean.and_then(|mean| AHEAD.checked_div(mean));
        // As many as one likes have room if they are empty.
        let window = window.unwrap_or(u64::MAX).clamp(2, 4096);
        if index.saturating_add(window / 2) < self.asked.end {
            return;
        }
        let known = core.length().max(index.saturating_add(1));
        let until = index.saturating_add(window).min(end).min(known);
        self.downloads.clear();
        self.downloads.push(core.download(index..until));
        self.asked = index..until;
        if source.in_memory
            && let Err(error) = core.clear(0..index.min(core.length())).await
        {
            tracing::debug!(%error, "blocks in memory were not dropped");
        }
    }
}
