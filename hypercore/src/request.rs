//! Reading on demand: how to ask, and the futures that wait for an answer.

use std::{
    future::Future,
    ops::{Range, RangeBounds},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use async_channel::Receiver;
use futures_lite::Stream;

use crate::{
    core::Core,
    error::{Error, Result},
    hypercore::resolve,
    replicate::RequestId,
    runtime,
    shared::Shared,
};

/// Setters by the names of the fields, for options that are written as one expression. What is optional
/// is set to something.
macro_rules! setters {
    ($options:ident { $($field:ident: $type:ty),* $(,)? }) => {
        impl $options {
            $(
                #[doc = concat!("Sets the field [`", stringify!($field), "`](field@Self::", stringify!($field), ").")]
                #[must_use]
                pub fn $field(mut self, $field: $type) -> Self {
                    self.$field = $field.into();
                    self
                }
            )*
        }
    };
}

pub(crate) use setters;

/// Where a byte of the log is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Position {
    /// The block that holds it.
    pub index: u64,
    /// Where in that block.
    pub offset: u64,
}

/// How to [get](crate::Hypercore::get_with) a block.
///
/// ```
/// use std::time::Duration;
/// use hypercore::GetOptions;
///
/// let soon = GetOptions::default().timeout(Duration::from_secs(1)).if_available(true);
/// assert!(soon.wait && soon.timeout.is_some());
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct GetOptions {
    /// Wait for peers, or for the log to grow, if the block is not stored here.
    pub wait: bool,
    /// Wait no longer than this.
    pub timeout: Option<Duration>,
    /// Do not wait for peers that are not connected yet: fail as soon as it is certain that no
    /// connected peer has the block. Of a remote that has not opened the core, which one that does not
    /// know the key never does, that is taken for certain after ten seconds.
    pub if_available: bool,
}

impl Default for GetOptions {
    fn default() -> Self {
        Self {
            wait: true,
            timeout: None,
            if_available: false,
        }
    }
}

impl GetOptions {
    /// Only what is stored here.
    #[must_use]
    pub fn local() -> Self {
        Self {
            wait: false,
            ..Self::default()
        }
    }
}

setters!(GetOptions {
    wait: bool,
    timeout: Duration,
    if_available: bool,
});

/// How to [update](crate::Hypercore::update_with) the length.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct UpdateOptions {
    /// Be content with this length; by default, with one more than the present one.
    pub min_length: Option<u64>,
    /// Wait no longer than this.
    pub timeout: Option<Duration>,
    /// Do not wait for peers that are not connected yet: fail as soon as it is certain that no
    /// connected peer has a longer log: see [`GetOptions::if_available`].
    pub if_available: bool,
}

setters!(UpdateOptions {
    min_length: u64,
    timeout: Duration,
    if_available: bool,
});

/// How to [seek](crate::Hypercore::seek_with) a byte.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SeekOptions {
    /// Ask peers if the position is not known here. Otherwise that is
    /// [`Error::OutOfBounds`], also where the byte lies within the log.
    pub wait: bool,
    /// Wait no longer than this.
    pub timeout: Option<Duration>,
    /// Do not wait for peers that are not connected yet: see [`GetOptions::if_available`].
    pub if_available: bool,
    /// The blocks that peers may be asked for. A byte whose place is known here is found wherever it is.
    pub blocks: Range<u64>,
}

impl Default for SeekOptions {
    fn default() -> Self {
        Self {
            wait: true,
            timeout: None,
            if_available: false,
            blocks: 0..u64::MAX,
        }
    }
}

setters!(SeekOptions {
    wait: bool,
    timeout: Duration,
    if_available: bool,
});

impl SeekOptions {
    /// Sets the field [`blocks`](field@Self::blocks). An open end means every block there will be.
    #[must_use]
    pub fn blocks(mut self, blocks: impl RangeBounds<u64>) -> Self {
        self.blocks = resolve(&blocks, u64::MAX);
        self
    }
}

/// How to [download](crate::Hypercore::download_with) blocks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct DownloadOptions {
    /// Which blocks to ask for first.
    pub order: Order,
    /// Only proofs, and not the blocks: afterwards each block can be taken in from anybody with the
    /// hash of its neighbour alone, and tells whether it is the writer's without a signature. Comes in
    /// order.
    pub hash: bool,
}

setters!(DownloadOptions {
    order: Order,
    hash: bool,
});

/// In which order blocks are asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Order {
    /// From the first to the last, as a reader needs them.
    #[default]
    Linear,
    /// At random, so that many who download the same blocks at one time soon have some for each
    /// other.
    Random,
}

/// What [`Hypercore::audit`](crate::Hypercore::audit) found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Audit {
    /// How many stored blocks match their hash.
    pub valid: u64,
    /// The blocks that do not, or cannot be read.
    pub invalid: Vec<u64>,
}

/// Downloads blocks: see [`Hypercore::download`](crate::Hypercore::download).
#[derive(Debug)]
#[must_use = "dropping a download takes it back"]
pub struct Download {
    request: Request<()>,
}

impl Download {
    pub(crate) const fn new(request: Request<()>) -> Self {
        Self { request }
    }

    /// Wants the blocks below `block` no more: what is cleared of them does not come again.
    pub(crate) fn skip_to(&self, block: u64) {
        let Some(id) = self.request.id else {
            return;
        };
        let mut core = self.request.shared.lock();
        let Core {
            log, replicator, ..
        } = &mut *core;
        replicator.demand.skip_to(id, block, log.bitfield());
    }
}

impl Future for Download {
    type Output = Result<()>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.request).poll(cx)
    }
}

/// A request that peers, or an append, will answer. Dropping it takes it back.
#[derive(Debug)]
pub(crate) struct Request<T> {
    shared: Arc<Shared>,
    /// `None` once it is answered.
    id: Option<RequestId>,
    answer: Pin<Box<Receiver<Result<T>>>>,
}

impl<T> Request<T> {
    pub(crate) fn new(shared: Arc<Shared>, id: RequestId, answer: Receiver<Result<T>>) -> Self {
        Self {
            shared,
            id: Some(id),
            answer: Box::pin(answer),
        }
    }

    /// A request whose answer is known already.
    pub(crate) fn answered(shared: Arc<Shared>, result: Result<T>) -> Self {
        let (sender, answer) = async_channel::bounded(1);
        // The channel is empty and its receiver is here.
        let _ = sender.try_send(result);
        Self {
            shared,
            id: None,
            answer: Box::pin(answer),
        }
    }
}

impl<T> Future for Request<T> {
    type Output = Result<T>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<T>> {
        self.answer.as_mut().poll_next(cx).map(|answer| {
            self.id = None;
            answer.unwrap_or(Err(Error::Closed))
        })
    }
}

impl<T> Drop for Request<T> {
    fn drop(&mut self) {
        if let Some(id) = self.id {
            self.shared.lock().replicator.demand.cancel(id);
        }
    }
}

/// The answer to `request`, or [`Error::TimedOut`] after `limit`.
pub(crate) async fn within<T>(limit: Option<Duration>, request: Request<T>) -> Result<T> {
    match limit {
        None => request.await,
        Some(limit) => runtime::timeout(limit, request)
            .await
            .unwrap_or(Err(Error::TimedOut)),
    }
}
