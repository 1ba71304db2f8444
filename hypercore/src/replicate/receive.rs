//! What comes in as an answer.

use std::time::Instant;

use hypercore_merkle::{Block, Node, NodeIndex, Proof, Signature};
use hypercore_wire::{Data, DataNode, Have, Message};

use super::peer::{InFlight, Wanted};
use crate::{
    core::Core,
    error::{Error, Result},
    event::PeerId,
    log::{Answer, Taken},
    shared::SharedCore,
};

/// Verifies and stores what the remote has sent (`ondata`), in its order.
pub(super) fn receive_data(
    shared: &SharedCore,
    peer: PeerId,
    data: Vec<Data>,
    now: Instant,
) -> Result<()> {
    let answers = read_answers(data)?;
    if shared.on_write.is_none() {
        return store(shared, peer, answers, now);
    }
    // The hook is asked about blocks that are proven, by those before them.
    for answer in answers {
        if let Some(block) = &answer.block {
            shared.ask_for_download(answer.index, block, &answer.proof, peer)?;
        }
        store(shared, peer, vec![answer], now)?;
    }
    Ok(())
}

/// Hashes the values, together and before others are held up.
fn read_answers(data: Vec<Data>) -> Result<Vec<Answer>> {
    let mut values = Vec::with_capacity(data.len());
    let mut answers = Vec::with_capacity(data.len());
    for data in data {
        // In the memory of those that were sent, which are as large.
        let nodes = data.nodes.into_iter().map(node);
        let proof = Proof {
            nodes: nodes.collect::<Result<_>>()?,
            signature: data.signature.map(Signature::from),
        };
        answers.push((data.index, data.value.is_some(), proof));
        values.extend(data.value);
    }
    let mut blocks = Block::hash_many(values).into_iter();
    let answer = |(index, has_value, proof): (u64, bool, Proof)| Answer {
        index,
        block: if has_value { blocks.next() } else { None },
        proof,
    };
    Ok(answers.into_iter().map(answer).collect())
}

/// Stores what was asked for.
fn store(shared: &SharedCore, peer: PeerId, answers: Vec<Answer>, now: Instant) -> Result<()> {
    // A block is wanted until it is stored: both under one lock, or another peer is asked for it.
    let mut core = shared.lock();
    if core.log.check_open().is_err() {
        // It is being closed, or was, and the connection is about to let go of it.
        return Ok(());
    }
    let mut wanted = Vec::with_capacity(answers.len());
    let mut result = Ok(());
    for answer in answers {
        match accept(&mut core, peer, &answer, now) {
            Ok(Some(request)) => wanted.push((request, answer)),
            Ok(None) => {}
            Err(error) => {
                result = Err(error);
                break;
            }
        }
    }
    put(&mut core, peer, wanted).and(result)
}

/// Stores what proves to be true, up to the first that does not; that is the error, unless it may have
/// counted on an answer that did not come or was not stored. What follows is asked for again.
fn put(core: &mut Core, peer: PeerId, answers: Vec<(InFlight, Answer)>) -> Result<()> {
    let (requests, answers): (Vec<_>, Vec<_>) = answers
        .into_iter()
        .map(|(request, answer)| ((request, answer.index, stored_block(&answer)), answer))
        .unzip();
    let (taken, result) = core.put(peer, answers);
    let all_stored = taken.iter().all(|it| matches!(it, Taken::Stored { .. }));
    let false_one = requests.get(taken.len());
    let useless = requests.len().saturating_sub(taken.len());
    let is_unsure = !all_stored || false_one.is_some_and(|(request, ..)| request.unsure);
    let (mut taken, mut noted) = (taken.into_iter(), Ok(()));
    for (request, index, block) in requests {
        match taken.next() {
            Some(Taken::Stored { is_new, .. }) => {
                let is_sought = |offset| core.replicator.demand.is_sought(offset);
                let is_of_no_use =
                    !is_new && matches!(request.wanted, Wanted::Byte(offset) if is_sought(offset));
                finish(core, peer, request, block);
                // It is asked for the byte again at once, without end.
                let state = core.replicator.peer(peer);
                if is_of_no_use && state.is_some_and(|state| !state.forgive(1)) {
                    noted = noted.and(Err(Error::UnrequestedData));
                }
            }
            Some(Taken::Refused(_)) => core.replicator.put_off(peer, request, &core.log),
            Some(Taken::Forked(_) | Taken::Conflict) | None => {
                core.replicator.refused(peer, request, &core.log);
            }
            Some(Taken::Undecided) => {
                let undecided = core.replicator.undecided(peer, request, index, &core.log);
                noted = noted.and(undecided);
            }
        }
    }
    let Some(state) = core.replicator.peer(peer).filter(|state| state.is_exact) else {
        return result.and(noted);
    };
    if !all_stored {
        state.doubt_answers();
    }
    match result {
        Err(error) if is_unsure && error.is_peer_fault() && state.forgive(useless) => noted,
        result => result.and(noted),
    }
}

/// The request that `answer` is for, if it is of use.
fn accept(
    core: &mut Core,
    peer: PeerId,
    answer: &Answer,
    now: Instant,
) -> Result<Option<InFlight>> {
    let Core {
        log, replicator, ..
    } = core;
    let bytes = answer.block.as_ref().map(Block::size);
    let Some(request) = replicator.accept(peer, answer.index, bytes, log, now)? else {
        return Ok(None);
    };
    if request.wanted == Wanted::Head {
        replicator.done(peer, request, log);
        core.witness(answer.index, &answer.proof)?;
        return Ok(None);
    }
    // Somebody else who was asked for it may have been faster. What others of this peer's answers
    // count on is known then, too: it is on the way from the block to a root.
    if request.wanted == Wanted::Block && log.has(answer.index) {
        finish(core, peer, request, stored_block(answer));
        return Ok(None);
    }
    Ok(Some(request))
}

/// The block that is stored once `answer` is: it may be another one than was named in the request.
fn stored_block(answer: &Answer) -> Option<u64> {
    answer.block.is_some().then_some(answer.index)
}

/// A request was answered well, with `block` if it was for one.
fn finish(core: &mut Core, peer: PeerId, request: InFlight, block: Option<u64>) {
    core.replicator.done(peer, request, &core.log);
    if let Some(block) = block
        && let Some(state) = core.replicator.peer(peer)
        && state.remote_acks
    {
        state.outbox.push(Message::Have(Have {
            ack: true,
            ..Have::block(block)
        }));
    }
}

fn node(node: DataNode) -> Result<Node> {
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
