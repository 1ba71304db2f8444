//! What goes out as an answer, and what comes in as one.

use std::{sync::Arc, time::Instant};

use hypercore_merkle::{Block, Node, NodeIndex, Proof, Signature};
use hypercore_wire::{Data, DataNode, Have, Message, Request, Unhave, Want};

use super::{
    peer::{Peer, WANT_ALIGNMENT, Wanted},
    questions::Question,
};
use crate::{
    core::Core,
    error::{Error, Result},
    event::{Event, PeerId},
    log::{Log, Sought, read_trusted},
    shared::SharedCore,
};

/// The messages that answer the next question of a peer; `None` when it has asked no more.
pub(super) fn answer_next(
    shared: &SharedCore,
    peer: PeerId,
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
            let answer = answer_request(shared, peer, request)?;
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
    let files = Arc::clone(log.files()?);
    let trust = log.trust(index);
    drop(core);

    // The block is read and checked without holding up others.
    let value = match (!request.hash)
        .then(|| read_trusted(&files, index, trust))
        .transpose()
    {
        Ok(value) => value,
        Err(error) if error.is_corruption() => {
            tracing::error!(%error, "a damaged block was not sent");
            return Ok(Some(unhave(index)));
        }
        Err(error) => return Err(error),
    };
    if let Some(value) = &value {
        let bytes = value.len() as u64;
        let mut core = shared.lock();
        core.log.mark_checked(index);
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

/// An acknowledgement that block `index` is stored here.
fn ack(index: u64) -> Message {
    Message::Have(Have {
        ack: true,
        ..Have::block(index)
    })
}

/// Says that we do not have block `index`, to a peer that asked for it.
fn unhave(index: u64) -> Message {
    Message::Unhave(Unhave {
        start: index,
        length: 1,
    })
}

/// Verifies and stores what the remote has sent (`ondata`).
pub(super) fn receive_data(
    shared: &SharedCore,
    peer: PeerId,
    data: Data,
    now: Instant,
) -> Result<()> {
    let index = data.index;
    let proof = Proof {
        nodes: data.nodes.iter().map(node).collect::<Result<_>>()?,
        signature: match &data.signature {
            Some(signature) => Some(Signature::try_from(&signature[..])?),
            None => None,
        },
    };
    // The value is hashed before others are held up.
    let block = data.value.map(Block::hash);
    let bytes = block.as_ref().map(Block::size);
    if let Some(block) = &block {
        shared.ask_for_download(index, block, &proof, peer)?;
    }

    // A block is wanted until it is stored: both under one lock, or another peer is asked for it.
    let mut core = shared.lock();
    let Core {
        log, replicator, ..
    } = &mut *core;
    let Some(request) = replicator.accept(peer, index, bytes, log, now)? else {
        return Ok(());
    };
    if request.wanted == Wanted::Head {
        core.replicator.done(peer, request);
        return core.witness(index, &proof);
    }
    // Somebody else who was asked for it may have been faster.
    if request.wanted != Wanted::Block || !log.has(index) {
        match core.put(peer, index, block, &proof) {
            Ok(()) => {}
            // Our own append is about to answer the same question.
            Err(Error::Conflict) => {
                core.replicator.refused(peer, request);
                return Ok(());
            }
            Err(error) => {
                core.replicator.refused(peer, request);
                return Err(error);
            }
        }
    }
    core.replicator.done(peer, request);
    if let Some(state) = core.replicator.peer(peer)
        && state.remote_acks
        && bytes.is_some()
    {
        state.outbox.push(ack(index));
    }
    Ok(())
}

fn node(node: &DataNode) -> Result<Node> {
    let out_of_range = hypercore_merkle::Error::BlockOutOfRange {
        block: node.index / 2,
    };
    let index = NodeIndex::new(node.index).ok_or(out_of_range)?;
    Ok(Node {
        index,
        size: node.size,
        hash: node.hash,
    })
}
