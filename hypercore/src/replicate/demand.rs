//! What the people who use a core wait for: blocks, growth, positions, ranges.
//!
//! The demand of a core is one for all its peers. A request is taken out when it is answered, or
//! when the future that waits for it is dropped.

use std::{collections::BTreeMap, ops::Range};

use async_channel::{Receiver, Sender};
use bytes::Bytes;
use hypercore_bitfield::Bitfield;

use crate::error::{Error, Result};

/// Names one request, so that it can be taken back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct RequestId(u64);

/// The answer to a request comes here, once.
type Answer<T> = Receiver<Result<T>>;

#[derive(Debug)]
struct Waiting<T> {
    id: RequestId,
    sender: Sender<Result<T>>,
    /// Give up as soon as it is certain that no connected peer can help.
    if_available: bool,
}

impl<T> Waiting<T> {
    fn answer(&self, answer: Result<T>) {
        // A receiver that is gone no longer wants the answer.
        let _ = self.sender.try_send(answer);
    }
}

#[derive(Debug)]
struct Seeking {
    waiting: Waiting<(u64, u64)>,
    offset: u64,
    blocks: Range<u64>,
}

/// A range of blocks somebody wants to have here.
#[derive(Debug)]
struct Download {
    waiting: Waiting<()>,
    blocks: Range<u64>,
    missing: u64,
}

/// All requests of one core that are not answered yet.
#[derive(Debug, Default)]
pub(crate) struct Demand {
    last_id: u64,
    gets: BTreeMap<u64, Vec<Waiting<Bytes>>>,
    updates: Vec<(u64, Waiting<()>)>,
    seeks: Vec<Seeking>,
    downloads: Vec<Download>,
    /// Every block there is or will be: a log that is not sparse.
    pub(crate) everything: bool,
    /// Always the newest length, but no blocks: a sparse log that follows along.
    pub(crate) newest_length: bool,
}

impl Demand {
    fn waiting<T>(&mut self, if_available: bool) -> (Waiting<T>, Answer<T>, RequestId) {
        self.last_id += 1;
        let id = RequestId(self.last_id);
        let (sender, receiver) = async_channel::bounded(1);
        (
            Waiting {
                id,
                sender,
                if_available,
            },
            receiver,
            id,
        )
    }

    pub(crate) fn get(&mut self, index: u64, if_available: bool) -> (RequestId, Answer<Bytes>) {
        let (waiting, answer, id) = self.waiting(if_available);
        self.gets.entry(index).or_default().push(waiting);
        (id, answer)
    }

    pub(crate) fn update(
        &mut self,
        min_length: u64,
        if_available: bool,
    ) -> (RequestId, Answer<()>) {
        let (waiting, answer, id) = self.waiting(if_available);
        self.updates.push((min_length, waiting));
        (id, answer)
    }

    pub(crate) fn seek(
        &mut self,
        offset: u64,
        blocks: Range<u64>,
        if_available: bool,
    ) -> (RequestId, Answer<(u64, u64)>) {
        let (waiting, answer, id) = self.waiting(if_available);
        self.seeks.push(Seeking {
            waiting,
            offset,
            blocks,
        });
        (id, answer)
    }

    /// Wants `blocks`, of which `missing` are not stored yet (at least one).
    pub(crate) fn download(&mut self, blocks: Range<u64>, missing: u64) -> (RequestId, Answer<()>) {
        let (waiting, answer, id) = self.waiting(false);
        self.downloads.push(Download {
            waiting,
            blocks,
            missing,
        });
        (id, answer)
    }

    /// Nobody waits for this request any more.
    pub(crate) fn cancel(&mut self, id: RequestId) {
        self.gets.retain(|_, waiting| {
            waiting.retain(|waiting| waiting.id != id);
            !waiting.is_empty()
        });
        self.updates.retain(|(_, waiting)| waiting.id != id);
        self.seeks.retain(|seeking| seeking.waiting.id != id);
        self.downloads.retain(|download| download.waiting.id != id);
    }

    /// Fails every request for blocks that lie within `blocks`.
    pub(crate) fn cancel_within(&mut self, blocks: Range<u64>) {
        self.gets.retain(|index, waiting| {
            let inside = blocks.contains(index);
            if inside {
                let cancelled = |waiting: &Waiting<_>| waiting.answer(Err(Error::Cancelled));
                waiting.iter().for_each(cancelled);
            }
            !inside
        });
        let inside = |download: &mut Download| {
            blocks.start <= download.blocks.start && download.blocks.end <= blocks.end
        };
        for download in self.downloads.extract_if(.., inside) {
            download.waiting.answer(Err(Error::Cancelled));
        }
    }

    /// Block `index` is stored now.
    pub(crate) fn deliver(&mut self, index: u64, value: &Bytes) {
        for waiting in self.gets.remove(&index).unwrap_or_default() {
            waiting.answer(Ok(value.clone()));
        }
        self.downloads.retain_mut(|download| {
            if download.blocks.contains(&index) {
                download.missing = download.missing.saturating_sub(1);
            }
            if download.missing == 0 {
                download.waiting.answer(Ok(()));
            }
            download.missing > 0
        });
    }

    /// Blocks were dropped: downloads that had them count them again.
    pub(crate) fn recount(&mut self, bitfield: &Bitfield) {
        for download in &mut self.downloads {
            let Range { start, end } = download.blocks;
            download.missing = (end - start) - bitfield.count(start..end);
        }
    }

    /// The log has this length now.
    pub(crate) fn length_is(&mut self, length: u64) {
        self.updates.retain(|(min_length, waiting)| {
            let reached = *min_length <= length;
            if reached {
                waiting.answer(Ok(()));
            }
            !reached
        });
    }

    /// The seeks nobody could answer yet, and the byte each looks for.
    pub(crate) fn waiting_seeks(&self) -> Vec<(RequestId, u64)> {
        self.seeks
            .iter()
            .map(|seeking| (seeking.waiting.id, seeking.offset))
            .collect()
    }

    pub(crate) fn answer_seek(&mut self, id: RequestId, index: u64, offset: u64) {
        self.seeks.retain(|seeking| {
            if seeking.waiting.id == id {
                seeking.waiting.answer(Ok((index, offset)));
            }
            seeking.waiting.id != id
        });
    }

    /// Blocks that somebody waits for, lowest first.
    pub(crate) fn wanted_blocks(&self) -> impl Iterator<Item = u64> {
        self.gets.keys().copied()
    }

    /// The lowest length that would satisfy somebody who waits for growth.
    pub(crate) fn wanted_length(&self, length: u64) -> Option<u64> {
        if self.newest_length {
            return Some(length + 1);
        }
        self.updates.iter().map(|&(min_length, _)| min_length).min()
    }

    /// Bytes that somebody looks for, and the blocks to look in.
    pub(crate) fn wanted_bytes(&self) -> impl Iterator<Item = (u64, Range<u64>)> {
        self.seeks
            .iter()
            .map(|seeking| (seeking.offset, seeking.blocks.clone()))
    }

    /// Ranges that somebody wants whole, oldest first.
    pub(crate) fn wanted_ranges(&self) -> impl Iterator<Item = Range<u64>> {
        self.downloads
            .iter()
            .map(|download| download.blocks.clone())
            .chain(self.everything.then_some(0..u64::MAX))
    }

    /// It is certain now what the connected peers have: requests that asked for no more than that
    /// fail unless `has_block` or `has_length` says that they can be met.
    pub(crate) fn settle(
        &mut self,
        has_block: impl Fn(u64) -> bool,
        has_length: impl Fn(u64) -> bool,
    ) {
        self.gets.retain(|&index, waiting| {
            if !has_block(index) {
                refuse(waiting, |waiting| waiting);
            }
            !waiting.is_empty()
        });
        let mut refused: Vec<_> = self
            .updates
            .extract_if(.., |(min_length, _)| !has_length(*min_length))
            .collect();
        refuse(&mut refused, |(_, waiting)| waiting);
        self.updates.append(&mut refused);
        if !has_length(1) {
            refuse(&mut self.seeks, |seeking| &seeking.waiting);
        }
    }

    /// Whether a request waits for [`Self::settle`].
    pub(crate) fn wants_settling(&self) -> bool {
        self.gets
            .values()
            .flatten()
            .any(|waiting| waiting.if_available)
            || self.updates.iter().any(|(_, waiting)| waiting.if_available)
            || self
                .seeks
                .iter()
                .any(|seeking| seeking.waiting.if_available)
    }

    /// Fails everything that waits.
    pub(crate) fn close(&mut self) {
        for waiting in std::mem::take(&mut self.gets).into_values().flatten() {
            waiting.answer(Err(Error::Closed));
        }
        for (_, waiting) in self.updates.drain(..) {
            waiting.answer(Err(Error::Closed));
        }
        for seeking in self.seeks.drain(..) {
            seeking.waiting.answer(Err(Error::Closed));
        }
        for download in self.downloads.drain(..) {
            download.waiting.answer(Err(Error::Closed));
        }
        self.everything = false;
        self.newest_length = false;
    }
}

/// Answers and removes those that do not want to wait for other peers.
fn refuse<W, T>(requests: &mut Vec<W>, waiting: impl Fn(&W) -> &Waiting<T>) {
    requests.retain(|request| {
        let waiting = waiting(request);
        if waiting.if_available {
            waiting.answer(Err(Error::NotAvailable));
        }
        !waiting.if_available
    });
}
