//! What goes out as an answer.

use std::{collections::VecDeque, sync::Arc, time::Instant};

use bytes::Bytes;
use hypercore_wire::{Data, DataNode, Have, Message, Request, Unhave, Want};

use super::{
    peer::{Peer, WANT_ALIGNMENT},
    questions::Question,
};
use crate::{
    core::Core,
    error::{Error, Result},
    event::{Event, PeerId},
    log::{Log, Sought, read_run},
    shared::SharedCore,
};

/// Blocks that were read together with one before them, because the remote asks for them next.
///
/// Who downloads asks for many blocks in a row. Read together they are hashed side by side, which
/// takes less than half of the time.
#[derive(Debug, Default)]
pub(super) struct ReadAhead {
    next: u64,
    values: VecDeque<Bytes>,
}

impl ReadAhead {
    /// So many blocks are read together at most.
    const MAX: u64 = 32;

    pub(super) fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    fn take(&mut self, index: u64) -> Option<Bytes> {
        let value = (index == self.next).then(|| self.values.pop_front())?;
        self.next += 1;
        value
    }
}

/// The messages that answer the next question of a peer; `None` when it has asked no more.
pub(super) fn answer_next(
    shared: &SharedCore,
    peer: PeerId,
    ahead: &mut ReadAhead,
    now: Instant,
) -> Result<Option<Vec<Message>>> {
    let mut core = shared.lock();
    let Core {
        log, replicator, ..
    } = &mut *core;
    let Some(state) = replicator.peer(peer) else {
        return Ok(None);
    };
    Ok(match state.next_question(now) {
        None => None,
        Some(Question::Want(want)) => Some(answer_want(state, &want, log)),
        Some(Question::Request(request)) => {
            drop(core);
            let answer = answer_request(shared, peer, ahead, request)?;
            let refused = matches!(answer, Some(Message::Unhave(_)));
            let may_refuse = || {
                let mut core = shared.lock();
                let state = core.replicator.peer(peer);
                state.is_some_and(|state| state.may_refuse(now))
            };
            Some(
                answer
                    .filter(|_| !refused || may_refuse())
                    .into_iter()
                    .collect(),
            )
        }
    })
}

/// The answer to a request (`onrequest`, `_onbytes`), if it gets one.
fn answer_request(
    shared: &SharedCore,
    peer: PeerId,
    ahead: &mut ReadAhead,
    mut request: Request,
) -> Result<Option<Message>> {
    let mut core = shared.lock();
    let Core {
        log, replicator, ..
    } = &mut *core;
    let Some(state) = replicator.peer(peer) else {
        return Ok(None);
    };
    if request.bytes > 0
        && let Ok(Sought::Found { index, .. }) = log.seek(request.bytes)
        && log.has(index)
    {
        if state.repeats_bytes(request.bytes) {
            return Ok(None);
        }
        request.index = index;
        request.nodes = 0;
    }
    let index = request.index;
    let has_block = log.has(index) && index < log.public_length();
    if !request.hash && !has_block {
        return Ok(Some(unhave(index)));
    }
    let Some(proof) = log.prove(index, request.nodes, &mut state.remote_tree, request.hash)? else {
        return Ok(Some(unhave(index)));
    };
    drop(core);

    let value = match (!request.hash)
        .then(|| read_block(shared, peer, ahead, index))
        .transpose()
    {
        Ok(value) => value,
        Err(Error::BlockNotStored { .. }) => return Ok(Some(unhave(index))),
        Err(error) if error.is_corruption() => {
            tracing::error!(%error, "a damaged block was not sent");
            return Ok(Some(unhave(index)));
        }
        Err(error) => return Err(error),
    };
    if let Some(value) = &value {
        let bytes = value.len() as u64;
        let mut core = shared.lock();
        if let Some(state) = core.replicator.peer(peer) {
            state.stats.uploaded_blocks += 1;
            state.stats.uploaded_bytes += bytes;
        }
        core.events.emit(Event::Upload { index, bytes, peer });
    }
    let nodes = proof
        .nodes
        .iter()
        .map(|node| DataNode {
            index: node.index.get(),
            hash: node.hash,
            size: node.size,
        })
        .collect();
    let signature = proof
        .signature
        .and_then(|signature| signature.as_bytes().try_into().ok());
    Ok(Some(Message::Data(Data {
        index,
        value,
        nodes,
        signature,
    })))
}

/// Block `index`, read and checked without holding up others.
fn read_block(
    shared: &SharedCore,
    peer: PeerId,
    ahead: &mut ReadAhead,
    index: u64,
) -> Result<Bytes> {
    if let Some(value) = ahead.take(index) {
        return Ok(value);
    }
    let mut core = shared.lock();
    let asked = match core.replicator.peer(peer) {
        Some(state) => state.requested_run(index + 1).min(ReadAhead::MAX),
        None => 0,
    };
    let (run, trust) = core.log.stored_run(index..index + 1 + asked);
    let files = Arc::clone(core.log.files()?);
    drop(core);

    if run.is_empty() {
        return Err(Error::BlockNotStored { index });
    }
    let read = read_run(&files, run, trust)
        // Another one of them may be the damaged one.
        .or_else(|_| read_run(&files, index..index + 1, trust))?;
    let blocks = index..index + read.len() as u64;
    shared.lock().log.mark_run_checked(blocks);
    *ahead = ReadAhead {
        next: index,
        values: read.into(),
    };
    ahead.take(index).ok_or(Error::BlockNotStored { index })
}

/// Says which blocks we have in the range that was asked about (`onwant`).
fn answer_want(peer: &mut Peer, want: &Want, log: &Log) -> Vec<Message> {
    let Want { start, length } = *want;
    let aligned = start.is_multiple_of(WANT_ALIGNMENT) && length.is_multiple_of(WANT_ALIGNMENT);
    if !peer.uploading || !aligned {
        return Vec::new();
    }
    let mut answers = Vec::with_capacity(2);
    if peer.first_want()
        && let Some(last) = log
            .public_length()
            .checked_sub(1)
            .filter(|&last| log.has(last))
    {
        answers.push(Message::Have(Have::block(last)));
    }
    // Peers before version 8 ask for everything with a length of 0.
    let end = match length {
        0 => log.public_length(),
        length => start.saturating_add(length).min(log.public_length()),
    };
    let bitfield = Some(log.bitfield().rle(start..end.max(start)).into());
    answers.push(Message::Have(Have {
        start,
        length,
        bitfield,
        ack: false,
    }));
    answers
}

/// Says that we do not have block `index`, to a peer that asked for it.
fn unhave(index: u64) -> Message {
    Message::Unhave(Unhave {
        start: index,
        length: 1,
    })
}
