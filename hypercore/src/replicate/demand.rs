//! What the people who use a core wait for: blocks, growth, positions, ranges.
//!
//! The demand of a core is one for all its peers. A request is taken out when it is answered, or
//! when the future that waits for it is dropped.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
};

use async_channel::{Receiver, Sender};
use bytes::Bytes;
use hypercore_bitfield::Bitfield;

use super::{downloads::Downloads, hashes::HashDownloads};
use crate::{
    block_set::BlockSet,
    error::{Error, Result},
    log::Log,
    request::Order,
    span::one_block,
};

/// Names one request, so that it can be taken back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RequestId {
    serial: u64,
    kind: Kind,
}

/// Where a request is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Get { index: u64 },
    Update { min_length: u64 },
    Seek,
    Download,
    Hashes,
}

/// The answer to a request comes here, once.
type Awaited<T> = Receiver<Result<T>>;

#[derive(Debug)]
pub(crate) struct Waiter<T> {
    /// Greater than that of every request before.
    pub(crate) serial: u64,
    sender: Sender<Result<T>>,
    /// Give up as soon as it is certain that no connected peer can help.
    if_available: bool,
}

impl<T> Waiter<T> {
    pub(crate) fn answer(&self, answer: Result<T>) {
        // A receiver that is gone no longer wants the answer.
        let _ = self.sender.try_send(answer);
    }
}

/// Those who wait for one block.
#[derive(Debug)]
struct Get {
    /// The serial of the first of them, which is its place in the queue.
    serial: u64,
    waiters: Vec<Waiter<Bytes>>,
}

#[derive(Debug)]
pub(crate) struct Seeking {
    waiter: Waiter<(u64, u64)>,
    pub(crate) offset: u64,
    pub(crate) blocks: Range<u64>,
}

impl Seeking {
    /// The blocks that may be asked for. Of a byte beyond the end only a longer log can tell.
    pub(crate) fn blocks_to_ask(&self, log: &Log) -> Range<u64> {
        let mut blocks = self.blocks.clone();
        if self.offset >= log.byte_length() {
            blocks.start = blocks.start.max(log.length());
        }
        blocks
    }
}

/// All requests of one core that are not answered yet.
#[derive(Debug, Default)]
pub(crate) struct Demand {
    last_serial: u64,
    gets: BTreeMap<u64, Get>,
    /// The blocks among them that no peer was asked for, in the order in which they were wanted.
    queue: BTreeMap<u64, u64>,
    /// The blocks somebody waits for only if a connected peer has them.
    if_available: BTreeSet<u64>,
    /// By the length that is waited for.
    updates: BTreeMap<(u64, u64), Waiter<()>>,
    seeks: Vec<Seeking>,
    pub(crate) downloads: Downloads,
    pub(crate) hashes: HashDownloads,
    /// Every block there is or will be: a log that is not sparse.
    pub(crate) everything: bool,
    /// Always the newest length, but no blocks: a sparse log that follows along.
    pub(crate) newest_length: bool,
}

impl Demand {
    fn waiter<T>(&mut self, if_available: bool) -> (Waiter<T>, Awaited<T>) {
        self.last_serial = self.next_serial();
        let (sender, receiver) = async_channel::bounded(1);
        let waiter = Waiter {
            serial: self.last_serial,
            sender,
            if_available,
        };
        (waiter, receiver)
    }

    /// The name of the request made last.
    const fn last(&self, kind: Kind) -> RequestId {
        RequestId {
            serial: self.last_serial,
            kind,
        }
    }

    /// The number that the next request gets, to see then whether there are new ones.
    pub(crate) const fn next_serial(&self) -> u64 {
        self.last_serial.saturating_add(1)
    }

    /// Wants block `index`; [`Self::enqueue`] follows if no peer was asked for it.
    pub(crate) fn get(&mut self, index: u64, if_available: bool) -> (RequestId, Awaited<Bytes>) {
        let (waiter, answer) = self.waiter(if_available);
        if if_available {
            self.if_available.insert(index);
        }
        let get = self.gets.entry(index).or_insert_with(|| Get {
            serial: waiter.serial,
            waiters: Vec::with_capacity(1),
        });
        get.waiters.push(waiter);
        (self.last(Kind::Get { index }), answer)
    }

    pub(crate) fn update(
        &mut self,
        min_length: u64,
        if_available: bool,
    ) -> (RequestId, Awaited<()>) {
        let (waiter, answer) = self.waiter(if_available);
        self.updates.insert((min_length, waiter.serial), waiter);
        (self.last(Kind::Update { min_length }), answer)
    }

    pub(crate) fn seek(
        &mut self,
        offset: u64,
        blocks: Range<u64>,
        if_available: bool,
    ) -> (RequestId, Awaited<(u64, u64)>) {
        let (waiter, answer) = self.waiter(if_available);
        self.seeks.push(Seeking {
            waiter,
            offset,
            blocks,
        });
        (self.last(Kind::Seek), answer)
    }

    /// Wants `blocks`, of which `missing` is the first that is not stored yet.
    pub(crate) fn download(
        &mut self,
        blocks: BlockSet,
        order: Order,
        missing: u64,
    ) -> (RequestId, Awaited<()>) {
        let (waiter, answer) = self.waiter(false);
        self.downloads.insert(blocks, order, missing, waiter);
        (self.last(Kind::Download), answer)
    }

    /// Wants proofs of `blocks`, of which `missing` is the first that is not proven yet.
    pub(crate) fn download_hashes(
        &mut self,
        blocks: BlockSet,
        missing: u64,
    ) -> (RequestId, Awaited<()>) {
        let (waiter, answer) = self.waiter(false);
        self.hashes.insert(blocks, missing, waiter);
        (self.last(Kind::Hashes), answer)
    }

    /// Nobody waits for this request any more.
    pub(crate) fn cancel(&mut self, id: RequestId) {
        let serial = id.serial;
        match id.kind {
            Kind::Get { index } => {
                if let Some(get) = self.gets.get_mut(&index) {
                    get.waiters.retain(|waiter| waiter.serial != serial);
                }
                self.forget_unwanted(index);
            }
            Kind::Update { min_length } => drop(self.updates.remove(&(min_length, serial))),
            Kind::Seek => self.seeks.retain(|seeking| seeking.waiter.serial != serial),
            Kind::Download => drop(self.downloads.remove(serial)),
            Kind::Hashes => self.hashes.remove(serial),
        }
    }

    /// Of the blocks that this request is for, those below `block` are not wanted any more.
    pub(crate) fn skip_to(&mut self, id: RequestId, block: u64, bitfield: &Bitfield) {
        if id.kind == Kind::Download {
            self.downloads.skip_to(id.serial, block, bitfield);
        }
    }

    fn forget_unwanted(&mut self, index: u64) {
        if self
            .gets
            .get(&index)
            .is_some_and(|get| get.waiters.is_empty())
        {
            self.take_get(index);
        }
    }

    fn take_get(&mut self, index: u64) -> Option<Get> {
        let get = self.gets.remove(&index)?;
        self.queue.remove(&get.serial);
        self.if_available.remove(&index);
        Some(get)
    }

    /// Fails every request for blocks that lie within `blocks`.
    pub(crate) fn cancel_within(&mut self, blocks: &Range<u64>) {
        let gets: Vec<_> = self
            .gets
            .range(blocks.clone())
            .map(|(&index, _)| index)
            .collect();
        for get in gets.into_iter().filter_map(|index| self.take_get(index)) {
            for waiter in get.waiters {
                waiter.answer(Err(Error::Cancelled));
            }
        }
        self.downloads.cancel_within(blocks);
        self.hashes.cancel_within(blocks);
    }

    /// Block `index` is stored now.
    pub(crate) fn deliver(&mut self, index: u64, value: &Bytes, bitfield: &Bitfield) {
        if let Some(get) = self.take_get(index) {
            let value = detached(value);
            for waiter in get.waiters {
                waiter.answer(Ok(value.clone()));
            }
        }
        self.downloads.stored(&one_block(index), bitfield);
    }

    /// The log has this length now.
    pub(crate) fn length_is(&mut self, length: u64) {
        while let Some(entry) = self.updates.first_entry()
            && entry.key().0 <= length
        {
            entry.remove().answer(Ok(()));
        }
    }

    /// The seeks nobody could answer yet.
    pub(crate) fn seeks(&self) -> &[Seeking] {
        &self.seeks
    }

    /// Answers every seek whose answer `find` knows, by the byte and where to look for it.
    pub(crate) fn answer_seeks(
        &mut self,
        find: impl Fn(u64, &Range<u64>) -> Option<Result<(u64, u64)>>,
    ) {
        self.seeks
            .retain(|seeking| match find(seeking.offset, &seeking.blocks) {
                Some(found) => {
                    seeking.waiter.answer(found);
                    false
                }
                None => true,
            });
    }

    // ---- blocks -----------------------------------------------------------------------------

    /// Blocks that somebody waits for, lowest first.
    pub(crate) fn wanted_blocks(&self, blocks: Range<u64>) -> impl Iterator<Item = u64> {
        self.gets.range(blocks).map(|(&index, _)| index)
    }

    /// Blocks that no peer was asked for, in the order in which they were wanted, from number
    /// `serial` on.
    pub(crate) fn queue(&self, serial: u64) -> impl Iterator<Item = (u64, u64)> {
        self.queue
            .range(serial..)
            .map(|(&serial, &index)| (serial, index))
    }

    /// No peer is asked for block `index` any more. Returns its number if somebody waits for it.
    pub(crate) fn enqueue(&mut self, index: u64) -> Option<u64> {
        let serial = self.gets.get(&index)?.serial;
        self.queue.insert(serial, index);
        Some(serial)
    }

    /// A peer was asked for block `index`.
    pub(crate) fn dequeue(&mut self, index: u64) {
        if let Some(get) = self.gets.get(&index) {
            self.queue.remove(&get.serial);
        }
    }

    /// The number of the request for block `index` that no peer was asked for.
    pub(crate) fn queued(&self, index: u64) -> Option<u64> {
        let serial = self.gets.get(&index)?.serial;
        self.queue.contains_key(&serial).then_some(serial)
    }

    /// Whether somebody wants block `index`.
    pub(crate) fn wants(&self, index: u64) -> bool {
        self.everything
            || self.gets.contains_key(&index)
            || self
                .downloads
                .iter()
                .any(|download| download.blocks.contains(index))
    }

    /// The lowest length that would satisfy somebody who waits for growth.
    pub(crate) fn wanted_length(&self, length: u64) -> Option<u64> {
        if self.newest_length {
            return Some(length.saturating_add(1));
        }
        self.wanted_lengths().next()
    }

    /// The lengths that somebody waits for, lowest first.
    pub(crate) fn wanted_lengths(&self) -> impl Iterator<Item = u64> {
        self.updates.keys().map(|&(min_length, _)| min_length)
    }

    // ---- what nobody connected has ----------------------------------------------------------

    /// It is certain now what the connected peers have: requests that asked for no more than that
    /// fail unless `has_block`, `has_length` or, of a byte and where to look for it, `may_find`
    /// says that they can be met.
    pub(crate) fn settle(
        &mut self,
        has_block: impl Fn(u64) -> bool,
        has_length: impl Fn(u64) -> bool,
        may_find: impl Fn(u64, &Range<u64>) -> bool,
        log: &Log,
    ) {
        let looked_for = self.if_available.iter().copied();
        let refused: Vec<_> = looked_for.filter(|&index| !has_block(index)).collect();
        for index in refused {
            self.if_available.remove(&index);
            if let Some(get) = self.gets.get_mut(&index) {
                get.waiters.retain(|waiter| !refuse(waiter));
            }
            self.forget_unwanted(index);
        }
        self.updates
            .retain(|&(min_length, _), waiter| has_length(min_length) || !refuse(waiter));
        self.seeks.retain(|seeking| {
            !seeking.waiter.if_available
                || may_find(seeking.offset, &seeking.blocks_to_ask(log))
                || !refuse(&seeking.waiter)
        });
    }

    /// Whether somebody waits to hear where byte `offset` is.
    pub(crate) fn is_sought(&self, offset: u64) -> bool {
        self.seeks.iter().any(|seeking| seeking.offset == offset)
    }

    /// Whether a seek fails as soon as no connected peer can answer it.
    pub(crate) fn has_seek_if_available(&self) -> bool {
        let mut seeks = self.seeks.iter();
        seeks.any(|seeking| seeking.waiter.if_available)
    }

    /// Whether a request waits for [`Self::settle`].
    pub(crate) fn wants_settling(&self) -> bool {
        !self.if_available.is_empty()
            || self.updates.values().any(|waiter| waiter.if_available)
            || self.seeks.iter().any(|seeking| seeking.waiter.if_available)
    }

    /// Fails everything that waits.
    pub(crate) fn close(&mut self) {
        let closed = std::mem::take(self);
        for waiter in closed.gets.into_values().flat_map(|get| get.waiters) {
            waiter.answer(Err(Error::Closed));
        }
        for waiter in closed.updates.into_values() {
            waiter.answer(Err(Error::Closed));
        }
        for seeking in closed.seeks {
            seeking.waiter.answer(Err(Error::Closed));
        }
        let mut downloads = closed.downloads;
        downloads.close();
        closed.hashes.close();
        self.last_serial = closed.last_serial;
    }
}

/// Blocks up to this size are copied before they are handed out.
const COPIED: usize = 4096;

/// Answers one that does not want to wait for other peers; whether it is one.
fn refuse<T>(waiter: &Waiter<T>) -> bool {
    if waiter.if_available {
        waiter.answer(Err(Error::NotAvailable));
    }
    waiter.if_available
}

/// A small block must not keep the memory of all that came with it for as long as its reader keeps it.
fn detached(value: &Bytes) -> Bytes {
    if value.len() <= COPIED {
        Bytes::copy_from_slice(value)
    } else {
        value.clone()
    }
}
