//! One question to every peer: is your log the same history as ours, and how long is it? A writer
//! asks it again when the peer comes to have more than it.
//!
//! The answer is the proof of a block that both have, with nothing left out, so it comes with a
//! signature and everything that is signed. Asked for our last block, a longer log shows all of our
//! roots. A writer learns in this way that it goes on from an old copy, and everybody learns of a
//! key that signed two histories. Node asks nothing like it, and answers it as any request.

use std::time::Instant;

use super::peer::{Peer, Stage, Wanted};
use crate::log::Log;

/// Asks `peer`, unless it was, as soon as it has said what it has.
pub(crate) fn probe(peer: &mut Peer, log: &Log, now: Instant) {
    let may_ask = peer.stage == Stage::Open && peer.remote_uploading;
    if peer.probed || !may_ask || peer.is_asked_for(Wanted::Head) {
        return;
    }
    let (length, is_writer) = (log.length(), log.is_writer());
    if is_writer {
        // Who downloads nothing has not asked for that.
        peer.want(length);
    }
    let shared = length.checked_sub(1).and_then(|last| {
        let remote = peer.remote.bound();
        let last = last.min(remote.checked_sub(1)?);
        peer.remote.get(last).then_some(last)
    });
    // A writer wants to know of greater lengths, whatever comes before them.
    let beyond = || peer.remote.next_set(length).filter(|_| is_writer);
    if let Some(index) = shared.or_else(beyond) {
        peer.probed = true;
        peer.request(index, Wanted::Head, 0, now);
    }
}
