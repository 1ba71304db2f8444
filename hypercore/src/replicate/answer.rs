//! What goes out as an answer.

use std::{collections::VecDeque, ops::Range, time::Instant};

use bytes::Bytes;
use hypercore_merkle::{Node, Proof};
use hypercore_wire::{Data, DataNode, Have, Message, Request, Unhave, Want};

use super::{peer::Peer, questions::Question};
use crate::{
    core::Core,
    error::Result,
    event::{Event, PeerId},
    log::{Log, Sought},
    shared::SharedCore,
    span::one_block,
};

/// What a peer is answered, one question after the other.
///
/// Who downloads asks for many blocks in a row. Read together they are hashed side by side, which
/// takes less than half of the time.
#[derive(Debug, Default)]
pub(super) struct Answers {
    /// The first of the blocks that were read ahead.
    next: u64,
    /// The bytes of the blocks that were read ahead.
    ahead: VecDeque<Bytes>,
    /// Blocks that go out, and how many bytes they have.
    uploads: Vec<(u64, u64)>,
}

/// What a request asks for.
enum Found {
    /// The proof of a block, and the block.
    Block(Request, Proof),
    /// The proof alone.
    Hash(u64, Proof),
    /// It is not here.
    Nothing(Request),
    /// It is answered when it is here.
    Kept,
    /// The same was asked for just before.
    Repeated,
}

impl Answers {
    /// So many blocks are read together at most.
    const AHEAD: u64 = 32;

    /// Whether blocks were read that are asked for next.
    pub(super) fn has_read_ahead(&self) -> bool {
        !self.ahead.is_empty()
    }

    fn is_read_ahead(&self, index: u64) -> bool {
        index == self.next && self.has_read_ahead()
    }

    /// Adds the answer to the next question to `messages`, if it gets one. False when no question
    /// is left.
    pub(super) fn next(
        &mut self,
        shared: &SharedCore,
        peer: PeerId,
        messages: &mut Vec<Message>,
        now: Instant,
    ) -> Result<bool> {
        let mut core = shared.lock();
        let Core {
            log, replicator, ..
        } = &mut *core;
        let Some(state) = replicator.peer(peer) else {
            return Ok(false);
        };
        let Some(question) = state.next_question(now) else {
            return Ok(false);
        };
        // It hears of a block before it gets it.
        messages.append(&mut state.outbox);
        let found = match question {
            Question::Want(want) => {
                answer_want(state, &want, log, messages);
                return Ok(true);
            }
            Question::Cancel(cancel) => {
                // All else that it may have asked for is answered by now.
                state.ahead.cancelled(cancel.index);
                return Ok(true);
            }
            // What was not here may be by now, and the remote may have been told so.
            Question::Request(request) | Question::Refusal(request) => find(state, request, log)?,
        };
        match found {
            Found::Repeated | Found::Kept => {}
            Found::Hash(index, proof) => messages.push(data(index, None, proof)),
            Found::Nothing(request) => refuse(state, request, messages, now),
            Found::Block(request, proof) => {
                let index = request.index;
                let mut run = one_block(index);
                // Counting the run costs something, and is of use only if it is read now.
                if !self.is_read_ahead(index) {
                    let more = state.requested_run(run.end, Self::AHEAD);
                    run.end = run.end.saturating_add(more);
                }
                drop(core);
                if let Some(value) = self.read(shared, run)? {
                    self.uploads.push((index, value.len() as u64));
                    messages.push(data(index, Some(value), proof));
                } else if let Some(state) = shared.lock().replicator.peer(peer) {
                    refuse(state, request, messages, now);
                }
            }
        }
        Ok(true)
    }

    /// The first of the blocks `run`, read and checked without holding up others, and perhaps more
    /// of them for the next call. `None` if it is not stored, or not what it should be.
    fn read(&mut self, shared: &SharedCore, run: Range<u64>) -> Result<Option<Bytes>> {
        if !self.is_read_ahead(run.start) {
            let first = one_block(run.start);
            let read = shared
                .read_run(run)
                // Another one of them may be the damaged one.
                .or_else(|_| shared.read_run(first.clone()));
            self.next = first.start;
            self.ahead = match read {
                Ok(read) => read.into(),
                Err(error) if error.is_corruption() => {
                    tracing::error!(%error, "a damaged block was not sent");
                    VecDeque::new()
                }
                Err(error) => return Err(error),
            };
        }
        self.next = self.next.saturating_add(1);
        Ok(self.ahead.pop_front())
    }

    /// The block that was answered last does not go out.
    pub(super) fn not_sent(&mut self, block: u64) {
        self.uploads.pop_if(|(index, _)| *index == block);
    }

    /// Tells of what goes out.
    pub(super) fn note_uploads(&mut self, core: &mut Core, peer: PeerId) {
        for (index, bytes) in self.uploads.drain(..) {
            if let Some(state) = core.replicator.peer(peer) {
                state.stats.count_upload(bytes);
            }
            core.events.emit(Event::Upload { index, bytes, peer });
        }
    }
}

/// Looks for what was asked for (`onrequest`, `_onbytes`).
fn find(peer: &mut Peer, mut request: Request, log: &Log) -> Result<Found> {
    if request.bytes > 0
        && let Ok(Sought::Found { index, .. }) = log.seek(request.bytes)
        && log.has(index)
        // What is not public does not count as answered, or it would not be when it is.
        && index < log.public_length()
    {
        if peer.note_byte_answered(request.bytes) {
            return Ok(Found::Repeated);
        }
        request.index = index;
        request.nodes = 0;
    }
    let Request {
        index, nodes, hash, ..
    } = request;
    if !hash && index >= log.public_length() && peer.keeps_next {
        peer.ahead.kept = Some(request);
        return Ok(Found::Kept);
    }
    if !hash && (!log.has(index) || index >= log.public_length()) {
        return Ok(Found::Nothing(request));
    }
    let remote = (!peer.is_exact).then_some(&mut peer.remote_tree);
    match log.prove(index, nodes, remote, hash) {
        Ok(Some(proof)) if hash => Ok(Found::Hash(index, proof)),
        Ok(Some(proof)) => Ok(Found::Block(request, proof)),
        Ok(None) => Ok(Found::Nothing(request)),
        Err(error) if error.is_corruption() => {
            tracing::error!(%error, "a block that cannot be proven was not sent");
            Ok(Found::Nothing(request))
        }
        Err(error) => Err(error),
    }
}

fn data(index: u64, value: Option<Bytes>, proof: Proof) -> Message {
    // By value, so that they are collected where they are.
    let node = |node: Node| DataNode {
        index: node.index.get(),
        hash: node.hash,
        size: node.size,
    };
    let signature = proof.signature;
    Message::Data(Data {
        index,
        value,
        nodes: proof.nodes.into_iter().map(node).collect(),
        signature: signature.map(Into::into),
    })
}

/// Says that we do not have what was asked for, later if the peer has asked for too much of that.
fn refuse(peer: &mut Peer, request: Request, messages: &mut Vec<Message>, now: Instant) {
    if peer.take_refusal(now) {
        messages.push(unhave(request.index));
    } else {
        peer.refuse_later(request);
    }
}

pub(super) fn unhave(index: u64) -> Message {
    Message::Unhave(Unhave {
        start: index,
        length: 1,
    })
}

/// Wants start and end at multiples of a bitfield page, others are ignored (`onwant`).
const WANT_ALIGNMENT: u64 = 8192;

/// Says which blocks we have in the range that was asked about (`onwant`).
fn answer_want(peer: &mut Peer, want: &Want, log: &Log, messages: &mut Vec<Message>) {
    let Want { start, length } = *want;
    let aligned = start.is_multiple_of(WANT_ALIGNMENT) && length.is_multiple_of(WANT_ALIGNMENT);
    if !peer.uploading || !aligned {
        return;
    }
    if peer.note_want()
        && let Some(last) = log
            .public_length()
            .checked_sub(1)
            .filter(|&last| log.has(last))
    {
        messages.push(Message::Have(Have::block(last)));
    }
    // Peers before version 8 ask for everything with a length of 0.
    let end = match length {
        0 => log.public_length(),
        length => start.saturating_add(length).min(log.public_length()),
    };
    let bitfield = Some(log.bitfield().rle(start..end.max(start)).into());
    messages.push(Message::Have(Have {
        start,
        length,
        bitfield,
        ack: false,
    }));
}
