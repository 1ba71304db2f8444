//! What a handle locks: a log, its peers, and those who wait for either.

use std::ops::Range;

use async_channel::Receiver;
use bytes::Bytes;
use hypercore_merkle::{ChangeSet, Proof, TreeHead};

use crate::{
    error::{Error, Result},
    event::{Event, PeerId, Publisher},
    fork::ForkProof,
    log::{Answer, AppendLock, Durable, Log, Sought, Taken, Witness},
    replicate::{CloseReason, Ended, Replicator, RequestId},
    runtime,
    span::one_block,
};

/// A log with its peers.
pub(crate) struct Core {
    pub(crate) log: Log,
    pub(crate) replicator: Replicator,
    pub(crate) events: Publisher,
}

impl Core {
    pub(crate) fn new(log: Log) -> Self {
        Self {
            log,
            replicator: Replicator::default(),
            events: Publisher::default(),
        }
    }

    /// Takes appended blocks, written and as durable as was asked for, into the log, and tells
    /// everybody.
    pub(crate) fn finish_append(&mut self, change: &ChangeSet, durable: Durable) -> Range<u64> {
        let blocks = appended_blocks(change);
        self.log.finish_append(change, durable);
        self.replicator.demand.hashes.proven(&self.log);
        for (block, index) in change.blocks().iter().zip(blocks.clone()) {
            let bitfield = self.log.bitfield();
            self.replicator
                .demand
                .deliver(index, block.value(), bitfield);
        }
        if durable == Durable::Yes {
            self.replicator.blocks_stored(blocks.clone(), None);
        }
        self.grown();
        blocks
    }

    /// Everything up to `head` is durable: it is noted, and peers hear of what was kept from them. The
    /// log may have been cut since.
    pub(crate) fn announce(&mut self, head: &TreeHead) {
        if head.length <= self.log.length() {
            self.log.note(head);
        }
        if let Some(blocks) = self.log.release(head.length) {
            self.replicator
                .blocks_released(self.log.bitfield(), &blocks);
        }
    }

    /// Checks and stores what `peer` has sent. Says what became of each answer, up to the first that
    /// is false; that is the error.
    pub(crate) fn put(&mut self, peer: PeerId, answers: Vec<Answer>) -> (Vec<Taken>, Result<()>) {
        let indexes: Vec<_> = answers.iter().map(|answer| answer.index).collect();
        let below = self.replicator.below(&answers);
        let (taken, result) = self.log.put(answers);
        self.replicator.demand.hashes.proven(&self.log);
        let mut new: Vec<Range<u64>> = Vec::new();
        for (taken, index) in taken.iter().zip(indexes) {
            match taken {
                Taken::Stored {
                    value,
                    is_new,
                    longer,
                } => {
                    if *longer {
                        self.grown();
                    }
                    if let Some(value) = value {
                        self.received(peer, index, value, *is_new);
                    }
                    if *is_new {
                        let block = one_block(index);
                        match new.last_mut().filter(|run| run.end == index) {
                            Some(run) => run.end = block.end,
                            None => new.push(block),
                        }
                    }
                }
                Taken::Refused(theirs) => self.note_behind(theirs),
                Taken::Forked(fork) => self.note_fork(fork.clone()),
                Taken::Conflict | Taken::Undecided => {}
            }
        }
        let stores_blocks = !new.is_empty();
        for blocks in new {
            self.replicator.blocks_stored(blocks, Some(peer));
        }
        if taken.iter().any(|it| matches!(it, Taken::Stored { .. })) {
            self.replicator.retry_below(&below);
            // Nodes alone may tell where a byte is.
            self.answer_seeks();
            // Perhaps no peer has anything else to look in.
            if self.replicator.demand.has_seek_if_available() {
                self.replicator.settle(&self.log);
            }
        }
        if stores_blocks {
            let length = self.log.length();
            if self.log.bitfield().total() == length {
                self.events.emit(Event::Sync { length });
            }
        }
        (taken, result)
    }

    /// Block `index` came from `peer` and is stored.
    fn received(&mut self, peer: PeerId, index: u64, value: &Bytes, is_new: bool) {
        // Another peer may have been faster.
        if !is_new {
            return;
        }
        let bytes = value.len() as u64;
        self.replicator.received(peer, bytes);
        // The event before the answer: whoever is woken by one has the other.
        self.events.emit(Event::Download { index, bytes, peer });
        self.replicator
            .demand
            .deliver(index, value, self.log.bitfield());
    }

    /// Wants block `index`, which is not stored here, and asks for it at once.
    pub(crate) fn want_block(
        &mut self,
        index: u64,
        if_available: bool,
    ) -> (RequestId, Receiver<Result<Bytes>>) {
        let Self {
            log, replicator, ..
        } = self;
        let request = replicator.demand.get(index, if_available);
        replicator.place(index, log, runtime::now());
        if if_available {
            replicator.settle(log);
            // One of them sees to it when it is time to give up on others.
            replicator.wake_all();
        }
        request
    }

    /// Holds the proof of a peer's log against ours. Fails if they are two histories.
    pub(crate) fn witness(&mut self, index: u64, proof: &Proof) -> Result<()> {
        match self.log.examine(index, proof)? {
            Some(Witness::Agrees(theirs)) => self.note_behind(&theirs),
            Some(Witness::Forked(fork)) => self.note_fork(fork),
            // It leaves out what we have, or is none: then it proves nothing.
            None => {}
        }
        Ok(())
    }

    fn note_fork(&mut self, fork: Box<ForkProof>) {
        let length = fork.longer.roots.length();
        // The peer shall hear of it from us: the connection goes on.
        if self.log.note_fork(fork) {
            self.events.emit(Event::Forked { length });
            self.replicator.wake_all();
        }
    }

    /// A peer has proven a log that ends with `theirs`: if it is longer than ours, which is written here,
    /// appends are locked.
    fn note_behind(&mut self, theirs: &TreeHead) {
        if let Some(AppendLock::Behind { ours, theirs }) = self.log.note_longer(theirs) {
            self.events.emit(Event::Behind { ours, theirs });
        }
    }

    /// Takes blocks out of the bitfield and tells everybody; returns the runs that were stored.
    pub(crate) fn clear(&mut self, blocks: Range<u64>) -> Result<Vec<Range<u64>>> {
        let runs = self.log.clear_bits(blocks.clone())?;
        if !runs.is_empty() {
            self.replicator
                .blocks_cleared(self.log.bitfield(), blocks.clone());
            self.events.emit(Event::Clear { blocks });
        }
        Ok(runs)
    }

    /// Fails everything that waits and lets go of all peers. Returns whether it was open.
    pub(crate) fn close(&mut self) -> bool {
        let was_open = self.log.close();
        if was_open {
            for peer in self.replicator.close() {
                self.events.emit(Event::PeerClose {
                    peer,
                    code: CloseReason::CoreClosed,
                    reason: Ended::CoreClosed.to_string(),
                });
            }
            self.events.close();
        }
        was_open
    }

    fn grown(&mut self) {
        let length = self.log.length();
        self.events.emit(Event::Append { length });
        self.replicator.demand.length_is(length);
        self.answer_seeks();
        // Perhaps no peer knows of a longer one now.
        self.replicator.settle(&self.log);
    }

    fn answer_seeks(&mut self) {
        let log = &self.log;
        let byte_length = log.byte_length();
        self.replicator.demand.answer_seeks(|offset, blocks| {
            if offset == byte_length {
                return Some(Ok((log.length(), 0)));
            }
            match log.seek(offset) {
                Ok(Sought::Found { index, offset }) => Some(Ok((index, offset))),
                Ok(sought) if !sought.may_be_in(blocks, log.length()) => {
                    Some(Err(Error::OutOfBounds {
                        offset,
                        byte_length,
                    }))
                }
                Ok(_) => None,
                Err(error) => Some(Err(error)),
            }
        });
    }
}

/// The blocks that an append adds.
pub(crate) fn appended_blocks(change: &ChangeSet) -> Range<u64> {
    let start = change.start_block();
    start..start.saturating_add(change.blocks().len() as u64)
}

#[cfg(test)]
mod tests {
    use futures_lite::future::block_on;

    use crate::Hypercore;

    /// A sync can end after the log was cut that it was begun for.
    #[test]
    fn an_end_that_was_cut_is_not_announced() {
        block_on(async {
            let directory = tempfile::tempdir().expect("a directory");
            let open = || async { Hypercore::open(directory.path()).await.expect("a core") };
            let core = open().await;
            core.append_batch(["a", "b", "c"]).await.expect("an append");
            let old = core.shared().lock().log.head();
            core.truncate(1).await.expect("a cut");
            core.shared().lock().announce(&old);
            core.close().await.expect("an end");
            assert_eq!(open().await.append_lock(), None);
        });
    }
}
