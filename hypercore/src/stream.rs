//! Whole logs, and parts of them, as streams.

use std::{
    collections::VecDeque,
    fmt,
    future::Future,
    io,
    ops::{Range, RangeBounds, RangeFrom, RangeFull, RangeInclusive, RangeTo, RangeToInclusive},
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Buf, Bytes, BytesMut};
use futures_lite::{AsyncBufRead, AsyncRead, AsyncWrite, Stream, StreamExt, future::Boxed, stream};
use hypercore_merkle::MAX_BLOCK_SIZE;

use crate::{
    Hypercore,
    error::Result,
    hypercore::resolve,
    request::{Download, GetOptions, Position, SeekOptions, setters},
    span::length_of,
};

/// Which blocks to [read](Hypercore::read_stream), and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct ReadOptions {
    /// The first block.
    pub start: u64,
    /// One past the last block, which may not exist yet. Without it, the length of the log.
    pub end: Option<u64>,
    /// Without an `end`, go on for ever with the blocks that will come.
    pub live: bool,
    /// Start with the next block to come, instead of at `start`. Without an `end`, that is to follow the log,
    /// as `live` is: up to the length it has now there is nothing to read.
    pub tail: bool,
    /// Without an `end`, read to the length the log has now, rather than to the one it has by then.
    pub snapshot: bool,
    /// How many blocks to ask peers for before they are read. Those that were read stay stored.
    pub batch: u64,
    /// Wait no longer than this for any one block.
    pub timeout: Option<Duration>,
    /// Wait for peers, or for the log to grow, if a block is not stored here.
    pub wait: bool,
    /// Do not wait for peers that are not connected yet: see
    /// [`GetOptions::if_available`].
    pub if_available: bool,
}

impl Default for ReadOptions {
    fn default() -> Self {
        Self {
            start: 0,
            end: None,
            live: false,
            tail: false,
            snapshot: true,
            batch: 100,
            timeout: None,
            wait: true,
            if_available: false,
        }
    }
}

impl ReadOptions {
    /// All blocks there are and will be.
    #[must_use]
    pub fn live() -> Self {
        Self {
            live: true,
            ..Self::default()
        }
    }
}

setters!(ReadOptions {
    start: u64,
    end: u64,
    tail: bool,
    snapshot: bool,
    batch: u64,
    timeout: Duration,
    wait: bool,
    if_available: bool,
});

/// To the length of the log.
impl From<RangeFrom<u64>> for ReadOptions {
    fn from(RangeFrom { start }: RangeFrom<u64>) -> Self {
        Self::default().start(start)
    }
}

/// All blocks there are.
impl From<RangeFull> for ReadOptions {
    fn from(_: RangeFull) -> Self {
        Self::default()
    }
}

impl From<Range<u64>> for ReadOptions {
    fn from(Range { start, end }: Range<u64>) -> Self {
        Self::default().start(start).end(end)
    }
}

impl From<RangeTo<u64>> for ReadOptions {
    fn from(RangeTo { end }: RangeTo<u64>) -> Self {
        Self::default().end(end)
    }
}

impl From<RangeInclusive<u64>> for ReadOptions {
    fn from(blocks: RangeInclusive<u64>) -> Self {
        resolve(&blocks, u64::MAX).into()
    }
}

impl From<RangeToInclusive<u64>> for ReadOptions {
    fn from(blocks: RangeToInclusive<u64>) -> Self {
        resolve(&blocks, u64::MAX).into()
    }
}

/// Blocks in order: see [`Hypercore::read_stream`]. Ends after the first error.
#[must_use = "streams do nothing unless polled"]
pub struct ReadStream {
    blocks: Pin<Box<dyn Stream<Item = Result<Bytes>> + Send>>,
}

impl fmt::Debug for ReadStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReadStream").finish_non_exhaustive()
    }
}

impl Stream for ReadStream {
    type Item = Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.blocks.as_mut().poll_next(cx)
    }
}

impl Hypercore {
    /// Blocks in order, asking peers for those that are not stored here.
    ///
    /// A clone that was just created has the length 0 until a peer has told more. A stream to the
    /// length of the log gives nothing then: [`update`](Self::update) first.
    ///
    /// ```
    /// # futures_lite::future::block_on(async {
    /// use futures_lite::StreamExt;
    /// use hypercore::{Hypercore, ReadOptions};
    ///
    /// let core = Hypercore::options().open_memory().await?;
    /// core.append_batch(["a", "b", "c", "d"]).await?;
    /// let blocks: Vec<_> = core.read_stream((1..3).into()).try_collect().await?;
    /// assert_eq!(blocks, ["b", "c"]);
    /// # Ok::<_, hypercore::Error>(())
    /// # }).unwrap();
    /// ```
    pub fn read_stream(&self, options: ReadOptions) -> ReadStream {
        let length = self.length();
        let end = match options.end {
            Some(end) => End::At(end),
            None if options.live || options.tail => End::Never,
            None if options.snapshot => End::At(length),
            None => End::Length,
        };
        let reader = Reader {
            blocks: BlockReader::of(self),
            index: if options.tail { length } else { options.start },
            end,
            ahead: Lookahead::new(options.batch),
            options: GetOptions {
                wait: options.wait,
                timeout: options.timeout,
                if_available: options.if_available,
            },
        };
        ReadStream {
            blocks: Box::pin(until_error(reader, Reader::next)),
        }
    }

    /// The bytes `bytes` of the log, wherever they are. An open end means the last byte there is
    /// now; beyond it, the reader waits for the log to grow.
    ///
    /// ```
    /// # futures_lite::future::block_on(async {
    /// use futures_lite::AsyncReadExt;
    /// use hypercore::Hypercore;
    ///
    /// let core = Hypercore::options().open_memory().await?;
    /// core.append_batch(["hello ", "big ", "world"]).await?;
    /// let mut text = String::new();
    /// core.byte_stream(4..11).read_to_string(&mut text).await?;
    /// assert_eq!(text, "o big w");
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// ```
    pub fn byte_stream(&self, bytes: impl RangeBounds<u64>) -> ByteStream {
        self.byte_stream_with(bytes, GetOptions::default())
    }

    /// The bytes `bytes` of the log: see [`byte_stream`](Self::byte_stream). The options hold for each block,
    /// and for finding the first byte.
    pub fn byte_stream_with(
        &self,
        bytes: impl RangeBounds<u64>,
        options: GetOptions,
    ) -> ByteStream {
        let reader = ByteReader {
            blocks: BlockReader::of(self),
            bytes: resolve(&bytes, self.byte_length()),
            index: None,
            ahead: Lookahead::new(BYTES_AHEAD),
            options,
        };
        ByteStream {
            chunks: Box::pin(until_error(reader, ByteReader::next)),
            chunk: Bytes::new(),
        }
    }

    /// A sink for bytes, which become blocks of `block_size` bytes, at least one. At most they have 8 MiB
    /// less 8 KiB: longer ones do not fit into a message with their proofs. For a block for each write,
    /// [`append_batch`](Self::append_batch).
    ///
    /// A block is appended as soon as it is whole and no other append of the stream is under way. What has
    /// gathered meanwhile goes with the next write or flush, as one batch with one signature. A flush appends the
    /// rest, however short it is; what is dropped without one is lost. After it was closed, and after an
    /// append that failed, whose bytes are not in the log, the stream takes no more
    /// ([`BrokenPipe`](std::io::ErrorKind::BrokenPipe)).
    ///
    /// ```
    /// # futures_lite::future::block_on(async {
    /// use futures_lite::AsyncWriteExt;
    /// use hypercore::Hypercore;
    ///
    /// let core = Hypercore::options().open_memory().await?;
    /// let mut writer = core.write_stream(4);
    /// writer.write_all(b"hello world").await?;
    /// writer.close().await?;
    /// assert_eq!(core.length(), 3);
    /// assert_eq!(core.head().await?, "rld");
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// ```
    pub fn write_stream(&self, block_size: usize) -> WriteStream {
        WriteStream {
            core: self.clone(),
            block_size: block_size.clamp(1, MAX_WRITTEN_BLOCK),
            blocks: Vec::new(),
            buffered: 0,
            partial: BytesMut::new(),
            append: None,
            failed: false,
            closed: false,
        }
    }
}

/// The stream of what `next` gives, which ends with `None` or after the first error, and stays ended.
fn until_error<S, F>(state: S, next: impl Fn(S) -> F) -> impl Stream<Item = Result<Bytes>>
where
    F: Future<Output = Result<Option<(Bytes, S)>>>,
{
    stream::unfold(Some((state, next)), async |state| {
        let (state, next) = state?;
        match next(state).await {
            Ok(Some((bytes, state))) => Some((Ok(bytes), Some((state, next)))),
            Ok(None) => None,
            Err(error) => Some((Err(error), None)),
        }
    })
    // By itself it would panic when it is polled again.
    .fuse()
}

// ---- blocks ---------------------------------------------------------------------------------

/// Where a stream of blocks ends.
#[derive(Debug, Clone, Copy)]
enum End {
    At(u64),
    /// At the length of the log, once that is reached.
    Length,
    Never,
}

#[derive(Debug)]
struct Reader {
    blocks: BlockReader,
    index: u64,
    end: End,
    ahead: Lookahead,
    options: GetOptions,
}

impl Reader {
    async fn next(mut self) -> Result<Option<(Bytes, Self)>> {
        let end = match self.end {
            End::At(end) => end,
            End::Length => self.blocks.core.length(),
            End::Never => u64::MAX,
        };
        if self.index >= end {
            return Ok(None);
        }
        if self.options.wait {
            self.ahead.reach(&self.blocks.core, self.index..end);
        }
        let block = self.blocks.next(self.index..end, self.options).await?;
        self.index = self.index.saturating_add(1);
        self.ahead.pass(self.index);
        Ok(Some((block, self)))
    }
}

/// Blocks one after the other. Those that are stored are read and checked several at a time.
#[derive(Debug)]
struct BlockReader {
    core: Hypercore,
    /// What was read together with the last one and follows it.
    run: VecDeque<Bytes>,
}

impl BlockReader {
    fn of(core: &Hypercore) -> Self {
        Self {
            core: core.clone(),
            run: VecDeque::new(),
        }
    }

    /// The first of `blocks`, which is the one after the last; the others will be asked for later.
    async fn next(&mut self, blocks: Range<u64>, options: GetOptions) -> Result<Bytes> {
        if self.run.is_empty() {
            self.run = self
                .core
                .shared()
                .read_run(blocks.clone())
                .unwrap_or_default()
                .into();
        }
        match self.run.pop_front() {
            Some(block) => Ok(block),
            None => self.core.get_with(blocks.start, options).await,
        }
    }
}

/// Asks for the blocks in front of a reader before it comes to them.
#[derive(Debug)]
struct Lookahead {
    window: u64,
    /// The blocks below are asked for.
    end: u64,
    request: Option<Download>,
}

impl Lookahead {
    const fn new(window: u64) -> Self {
        Self {
            window,
            end: 0,
            request: None,
        }
    }

    /// The reader wants the first of `blocks` now and the others later.
    fn reach(&mut self, core: &Hypercore, blocks: Range<u64>) {
        let wanted = blocks.start.saturating_add(self.window).min(blocks.end);
        // Renewed when half of it is used up, so that peers always have something to do, and to the end.
        let is_last = wanted == blocks.end;
        let more = wanted.saturating_sub(self.end);
        if more > 0 && (is_last || more > self.window / 2) {
            self.request = Some(core.download(blocks.start..wanted));
            self.end = wanted;
        }
    }

    /// The reader has the blocks below `block`, and may clear them.
    fn pass(&self, block: u64) {
        if let Some(request) = &self.request {
            request.skip_to(block);
        }
    }
}

// ---- bytes ----------------------------------------------------------------------------------

/// Blocks asked for in front of a reader of bytes.
const BYTES_AHEAD: u64 = 32;

#[derive(Debug)]
struct ByteReader {
    blocks: BlockReader,
    bytes: Range<u64>,
    /// The next block, once the first byte is found.
    index: Option<u64>,
    ahead: Lookahead,
    options: GetOptions,
}

impl ByteReader {
    async fn next(mut self) -> Result<Option<(Bytes, Self)>> {
        let rest = length_of(&self.bytes);
        if rest == 0 {
            return Ok(None);
        }
        let (index, skip) = match self.index {
            Some(index) => (index, 0),
            None => {
                let options = SeekOptions {
                    wait: self.options.wait,
                    timeout: self.options.timeout,
                    if_available: self.options.if_available,
                    ..SeekOptions::default()
                };
                let sought = self.blocks.core.seek_with(self.bytes.start, options);
                let Position { index, offset } = sought.await?;
                (index, usize::try_from(offset).unwrap_or(usize::MAX))
            }
        };
        let core = &self.blocks.core;
        if self.options.wait {
            self.ahead.reach(core, index..core.length());
        }
        let next = index.saturating_add(1);
        let wanted = index..core.length().max(next);
        let mut chunk = self.blocks.next(wanted, self.options).await?;
        chunk.advance(skip.min(chunk.len()));
        chunk.truncate(usize::try_from(rest).unwrap_or(usize::MAX));
        self.bytes.start = self.bytes.start.saturating_add(chunk.len() as u64);
        self.index = Some(next);
        self.ahead.pass(next);
        Ok(Some((chunk, self)))
    }
}

/// A part of a log as bytes: see [`Hypercore::byte_stream`].
#[must_use = "streams do nothing unless polled"]
pub struct ByteStream {
    chunks: Pin<Box<dyn Stream<Item = Result<Bytes>> + Send>>,
    /// What is read and not yet taken.
    chunk: Bytes,
}

impl fmt::Debug for ByteStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ByteStream").finish_non_exhaustive()
    }
}

impl AsyncBufRead for ByteStream {
    fn poll_fill_buf(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<&[u8]>> {
        let this = self.get_mut();
        // Empty blocks are no end.
        while this.chunk.is_empty() {
            match ready!(this.chunks.as_mut().poll_next(cx)).transpose()? {
                Some(chunk) => this.chunk = chunk,
                None => break,
            }
        }
        Poll::Ready(Ok(&this.chunk))
    }

    fn consume(mut self: Pin<&mut Self>, count: usize) {
        self.chunk.advance(count);
    }
}

impl AsyncRead for ByteStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let mut bytes = ready!(self.as_mut().poll_fill_buf(cx))?;
        let count = io::Read::read(&mut bytes, buffer)?;
        self.consume(count);
        Poll::Ready(Ok(count))
    }
}

// ---- writing --------------------------------------------------------------------------------

/// The largest block that goes to peers whatever its proof takes, which is some 5 KiB at most.
const MAX_WRITTEN_BLOCK: usize = MAX_BLOCK_SIZE as usize - 8 * 1024;

/// Bytes that gather before the writer has to wait for an append.
const WRITE_BUFFER: usize = 4 * 1024 * 1024;

/// Bytes for a log: see [`Hypercore::write_stream`].
#[must_use = "what is not flushed is lost"]
pub struct WriteStream {
    core: Hypercore,
    block_size: usize,
    /// Whole blocks that wait to be appended.
    blocks: Vec<Bytes>,
    /// The bytes of the whole blocks that wait.
    buffered: usize,
    /// The beginning of the next block.
    partial: BytesMut,
    append: Option<Boxed<Result<Range<u64>>>>,
    /// An append failed: what follows would be stored behind a gap.
    failed: bool,
    closed: bool,
}

impl fmt::Debug for WriteStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let buffered = self.buffered.saturating_add(self.partial.len());
        f.debug_struct("WriteStream")
            .field("block_size", &self.block_size)
            .field("buffered", &buffered)
            .finish_non_exhaustive()
    }
}

impl WriteStream {
    /// Ready when no append is under way.
    fn poll_append(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.failed {
            let error = "an append of this stream has failed, and what follows would leave a gap";
            return Poll::Ready(Err(broken(error)));
        }
        let Some(append) = &mut self.append else {
            return Poll::Ready(Ok(()));
        };
        let result = ready!(append.as_mut().poll(cx));
        self.append = None;
        self.failed = result.is_err();
        Poll::Ready(result.map(drop).map_err(io::Error::from))
    }

    /// Starts to append the blocks that wait. No other append may be under way.
    fn start_append(&mut self) {
        let core = self.core.clone();
        let blocks = std::mem::take(&mut self.blocks);
        self.buffered = 0;
        self.append = Some(Box::pin(async move { core.append_batch(blocks).await }));
    }

    fn cut(&mut self) {
        self.buffered = self.buffered.saturating_add(self.partial.len());
        self.blocks.push(self.partial.split().freeze());
    }
}

fn broken(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::BrokenPipe, why)
}

impl AsyncWrite for WriteStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        if this.closed {
            return Poll::Ready(Err(broken("the stream was closed")));
        }
        if this.poll_append(cx)?.is_pending() && this.buffered >= WRITE_BUFFER {
            return Poll::Pending;
        }
        let room = this.block_size.saturating_sub(this.partial.len());
        let taken = bytes.get(..room).unwrap_or(bytes);
        this.partial.extend_from_slice(taken);
        if this.partial.len() == this.block_size {
            this.cut();
        }
        if this.append.is_none() && !this.blocks.is_empty() {
            this.start_append();
            // So that it begins, and wakes us. If it fails at once, nobody else may come to hear of it.
            let _ = this.poll_append(cx)?;
        }
        Poll::Ready(Ok(taken.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if !this.partial.is_empty() {
            this.cut();
        }
        loop {
            ready!(this.poll_append(cx))?;
            if this.blocks.is_empty() {
                return Poll::Ready(Ok(()));
            }
            this.start_append();
        }
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.closed = true;
        self.poll_flush(cx)
    }
}
