//! Whose turn it is, and what goes out on a channel.

use std::{sync::Arc, time::Instant};

use hypercore_wire::{ChannelId, Message};

use super::{Attachment, Connection, PORTION};
use crate::{
    core::Core,
    error::{Error, Result},
    event::PeerId,
    replicate::{
        answer::{Answers, unhave},
        peer::Stage,
    },
    shared::SharedCore,
};

impl Connection {
    /// The channels that are to be looked at, those first that others left no room.
    pub(super) fn take_channels(&mut self, now: Instant) -> Vec<ChannelId> {
        let mut channels = self.wake.take_channels();
        channels.append(&mut self.changed);
        channels.extend(&self.congested);
        let due = self.deadlines.iter().take_while(|&&(at, _)| at <= now);
        channels.extend(due.map(|&(_, channel)| channel));
        let mut order = self.take_starved();
        for channel in &order {
            channels.remove(channel);
        }
        let mut others: Vec<_> = channels.into_iter().collect();
        others.sort_by_key(|&channel| Some(channel) <= self.answered);
        order.append(&mut others);
        order
    }

    pub(super) fn advance_channel(&mut self, channel: ChannelId, now: Instant) -> Result<()> {
        let Some(Attachment { core, peer, .. }) = self.attachments.get(&channel) else {
            return Ok(());
        };
        let (shared, peer) = (Arc::clone(core), *peer);
        let enough = self.session.buffered().saturating_add(PORTION);
        let mut answers = Answers::default();
        let mut messages = Vec::new();
        // Nothing is read for a remote that has closed the core, which nobody was told yet.
        while self.session.is_open(channel)
            && self.may_answer()
            && (self.session.buffered() < enough || answers.has_read_ahead())
        {
            match answers.next(&shared, peer, &mut messages, now) {
                Ok(true) => {
                    self.answered = Some(channel);
                    if let Some(block) = self.send(channel, &mut messages)? {
                        answers.not_sent(block);
                    }
                }
                // The core was closed, which is no reason to let go of others.
                Ok(false) | Err(Error::Closed) => break,
                Err(error) => return Err(error),
            }
        }
        let may_answer = self.may_answer();
        let mut core = shared.lock();
        answers.note_uploads(&mut core, peer);
        let Core {
            log, replicator, ..
        } = &mut *core;
        replicator.refill(peer, log, now)?;
        let tell_deadline = replicator.tell_deadline(peer);
        let Some(state) = replicator.peer(peer) else {
            return Ok(());
        };
        if !self.session.is_open(channel) {
            // Nobody waits for answers, and what was asked may hold up the event that says so.
            state.drop_questions();
        }
        let mut messages = std::mem::take(&mut state.outbox);
        if !state.is_congested() {
            self.congested.remove(&channel);
        }
        let done = state.stage == Stage::Done;
        // What waits for the remote to take something has no time of its own.
        let question = if may_answer {
            state.question_deadline()
        } else {
            None
        };
        let deadlines = [state.deadline(), tell_deadline, question];
        let starved = state.is_starved();
        let is_behind = !state.is_idle() || state.has_extension_messages();
        let unsynced = core.log.unsynced();
        drop(core);
        shared.checkpoint_if_due(unsynced, now);
        let checkpoint = shared.checkpoint_deadline(unsynced);
        let deadline = deadlines.into_iter().chain([checkpoint]).flatten().min();
        self.set_deadline(channel, deadline);
        if starved {
            self.starve(channel);
        }
        self.send(channel, &mut messages)?;
        if is_behind {
            self.send_extensions(channel, &shared, peer);
            // As soon as the remote has taken something.
            self.changed.insert(channel);
        }
        if done {
            self.take_off_done(channel);
        }
        Ok(())
    }

    /// Looks at a channel again when there is room for more questions.
    fn starve(&mut self, channel: ChannelId) {
        if let Some(attachment) = self.attachments.get_mut(&channel)
            && !std::mem::replace(&mut attachment.starved, true)
        {
            self.starved.push_back(channel);
        }
    }

    /// As many of the channels that starve as may ask something now, longest first.
    fn take_starved(&mut self) -> Vec<ChannelId> {
        let count = self.load.room().min(self.starved.len());
        let taken: Vec<_> = self.starved.drain(..count).collect();
        for channel in &taken {
            if let Some(attachment) = self.attachments.get_mut(channel) {
                attachment.starved = false;
            }
        }
        taken
    }

    pub(super) fn set_deadline(&mut self, channel: ChannelId, deadline: Option<Instant>) {
        let Some(attachment) = self.attachments.get_mut(&channel) else {
            return;
        };
        let before = std::mem::replace(&mut attachment.deadline, deadline);
        if before != deadline {
            self.deadlines.extend(deadline.map(|at| (at, channel)));
            if let Some(before) = before {
                self.deadlines.remove(&(before, channel));
            }
        }
    }

    /// Sends what extensions have to say, as long as the remote takes it.
    fn send_extensions(&mut self, channel: ChannelId, shared: &SharedCore, peer: PeerId) {
        let next = || {
            let mut core = shared.lock();
            let peer = core.replicator.peer(peer)?;
            // What was said meanwhile comes first: it may declare the extension.
            peer.outbox
                .is_empty()
                .then(|| peer.next_extension_message())?
        };
        while self.may_answer()
            && let Some((name, payload)) = next()
        {
            // It may have been dropped meanwhile, and its messages with it.
            let sent = self.session.send_extension(Some(channel), &name, payload);
            if let Err(error) = sent {
                tracing::debug!(%error, %name, "a message of an extension was not sent");
            }
        }
    }

    /// Whether the remote takes what it is sent.
    fn may_answer(&self) -> bool {
        self.session.buffered() < self.load.limits.unsent_answers.max(1)
            && self.session.may_answer()
    }

    /// Returns the block, of which there is one at most, that was not sent.
    fn send(&mut self, channel: ChannelId, messages: &mut Vec<Message>) -> Result<Option<u64>> {
        let mut unsent = None;
        for message in messages.drain(..) {
            match (self.session.send(channel, &message), message) {
                // The longest blocks can be stored, and not sent: with their proof they are too long.
                (Err(hypercore_wire::Error::MessageTooLarge { .. }), Message::Data(data)) => {
                    tracing::error!(block = data.index, "a block is too long to be sent");
                    self.session.send(channel, &unhave(data.index))?;
                    unsent = Some(data.index);
                }
                // The remote has closed it, which nobody was told yet: its event waits behind others.
                (Err(hypercore_wire::Error::ChannelNotOpen { .. }), message) => {
                    if let Message::Data(data) = message {
                        unsent = Some(data.index);
                    }
                    break;
                }
                (sent, _) => sent?,
            }
        }
        Ok(unsent)
    }
}
