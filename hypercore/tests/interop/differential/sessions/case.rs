//! The reason of a difference.

use std::collections::BTreeSet;

use hypercore::Error;
use hypercore::merkle::{NodeIndex, full_roots};
use hypercore::wire::{self, Body, Data, Frame, Have, Message, Request};

use super::super::oddity::Oddity;
use super::compare::Difference;
use super::logs::Logs;
use super::node::{Over, State};
use super::ours::Ours;
use super::reason::Reason::{self, *};
use super::script::Item;

/// A message on which both sides differ.
pub(super) struct Case<'a> {
    pub(super) logs: &'a Logs,
    pub(super) item: &'a Item,
    /// What came before it.
    pub(super) before: &'a [&'a Item],
    pub(super) difference: Difference,
    pub(super) ours: &'a Ours,
    pub(super) theirs: &'a State,
    /// Our answers in this step, and Node's.
    pub(super) data_said: (&'a [Data], &'a [Data]),
}

impl Case<'_> {
    /// Why both differ; `None` if there is no reason.
    pub(super) fn reason(&self) -> Option<Reason> {
        match (&self.ours.over, self.difference) {
            (None, _) if self.was_closed_by_another_number() => Some(HalfClosed),
            (_, Difference::Over) if self.theirs.over == Some(Over::Hung) => {
                self.is_huge_range().then_some(Endless)
            }
            (_, Difference::Over) if self.theirs.over == Some(Over::Crashed) => self.thrown(),
            (Some(Err(Error::Wire(error))), Difference::Over) => self.refused(error),
            (Some(Err(Error::Bitfield(error))), Difference::Over) => {
                use hypercore::bitfield::Error::{OverlongHeader, TooLong};
                let is_form = matches!(error, OverlongHeader { .. } | TooLong { .. });
                (is_form && self.theirs.over.is_none()).then_some(RleForm)
            }
            (Some(Err(Error::Merkle(_))), Difference::Over | Difference::Length) => {
                self.stops_below_roots(self.data()?).then_some(BelowRoots)
            }
            (None, _) if self.oddity() == Some(Oddity::Boolean) => Some(Boolean),
            (None, Difference::Over) => self.ended_by_node(),
            (None, Difference::Length | Difference::Tree | Difference::Haves)
                if self.is_unasked_proof() =>
            {
                Some(UnaskedProof)
            }
            (None, Difference::Length | Difference::Blocks) => {
                self.is_given_up().then_some(GivenUp)
            }
            (None, Difference::Data) => match self.message()? {
                Message::Request(request) if request.nodes > 1 << 53 => Some(Digest),
                _ if self.is_of_missing_byte() => Some(ByteNotHere),
                _ => self.was_told_in_vain().then_some(ToldInVain),
            },
            (None, Difference::Asked) => {
                let have = self.have()?;
                (have.bitfield.is_some() && have.start > 0).then_some(HaveStart)
            }
            (None, Difference::Haves) => self.is_wanted_again().then_some(WantAgain),
            _ => None,
        }
    }

    fn refused(&self, error: &wire::Error) -> Option<Reason> {
        if matches!(
            error,
            wire::Error::DuplicateOpen { .. } | wire::Error::ChannelNumber { .. }
        ) {
            return (self.theirs.over.is_none() && self.is_second_open()).then_some(SecondOpen);
        }
        let frame = self.item.bytes()?;
        let oddity = Oddity::refused(Some(&frame), error)?;
        self.theirs.over.is_none().then_some(Refused(oddity))
    }

    /// At what Node throws. We refuse the frame, but for a page of Node's that is not ours.
    fn thrown(&self) -> Option<Reason> {
        let frame = self.item.bytes()?;
        let kind = *frame.first()? & 15;
        let error = self.theirs.error.as_deref()?;
        let is_refused = matches!(
            &self.ours.over,
            Some(Err(Error::Wire(_) | Error::Bitfield(_)))
        );
        let texts = [
            (15, "Could not decode varint", EmptyExtension),
            (9, "Cannot read properties of undefined", EmptyAnswer),
            (9, "\"sig\" must be at least", ShortSignature),
            (3, "Offsets must be a multiple of 8", Offset),
            (3, "Invalid RLE bitfield", Rle),
            (3, "The value of \"size\" is out of range", Rle),
            (3, "Cannot grow beyond", Grows),
            (4, "Cannot grow beyond", Grows),
        ];
        let mut texts = texts.into_iter();
        let found = texts.find(|(of, text, _)| *of == kind && error.contains(text));
        match found {
            Some((_, _, reason)) => (is_refused || self.is_huge_range()).then_some(reason),
            None => {
                let have = self.have()?;
                let is_within_page = have.bitfield.is_some() && have.start % 8192 != 0;
                (is_within_page && error.contains("offset is out of bounds")).then_some(Page)
            }
        }
    }

    fn is_huge_range(&self) -> bool {
        const HUGE: u64 = 1 << 24;
        match self.message() {
            Some(Message::Have(have)) => have.bitfield.is_none() && have.length > HUGE,
            Some(Message::Unhave(unhave)) => unhave.length > HUGE,
            Some(_) => false,
            // One that we refuse to read.
            None => self
                .item
                .bytes()
                .is_some_and(|frame| matches!(frame[0] & 15, 3 | 4)),
        }
    }

    fn ended_by_node(&self) -> Option<Reason> {
        match self.message()? {
            Message::Data(_) if self.is_unasked_proof() => Some(UnaskedProof),
            Message::Data(_) => self.is_given_up().then_some(GivenUp),
            Message::Request(request) => {
                let is_here = request.bytes == 0 && self.ours.core.has(request.index);
                let error = self.theirs.error.as_deref();
                let is_unknown = error == Some("Error: No proof available for this index");
                (is_unknown && !is_here).then_some(NotHere)
            }
            _ => None,
        }
    }

    fn oddity(&self) -> Option<Oddity> {
        Oddity::within(&self.item.bytes()?)
    }

    fn frame(&self) -> Option<Frame> {
        self.item.read()
    }

    fn message(&self) -> Option<Message> {
        self.item.message()
    }

    fn data(&self) -> Option<Data> {
        match self.message()? {
            Message::Data(data) => Some(data),
            _ => None,
        }
    }

    fn have(&self) -> Option<Have> {
        match self.message()? {
            Message::Have(have) => Some(have),
            _ => None,
        }
    }

    /// Whether this is an Open on a channel that was opened before, or of a log that is open.
    fn is_second_open(&self) -> bool {
        let Some(Frame {
            channel,
            body: Body::Open(open),
        }) = self.frame()
        else {
            return false;
        };
        self.opened()
            .any(|(number, key)| number == channel || key == open.discovery_key)
    }

    fn opened(&self) -> impl Iterator<Item = (u32, [u8; 32])> {
        let frames = self.before.iter().filter_map(|item| item.read());
        frames.filter_map(|frame| match frame.body {
            Body::Open(open) => Some((frame.channel, open.discovery_key)),
            _ => None,
        })
    }

    /// Whether the log was closed on a channel while it was open on another.
    fn was_closed_by_another_number(&self) -> bool {
        let key = *self.logs.log.discovery_key().as_bytes();
        let opened = self.opened().filter(|(_, opened)| *opened == key);
        let numbers: BTreeSet<_> = opened.map(|(number, _)| number).collect();
        let mut frames = self.before.iter().filter_map(|item| item.read());
        frames.any(|frame| match frame.body {
            Body::Close(close) => {
                let is_named = close.discovery_key == Some(key) || numbers.contains(&frame.channel);
                is_named && numbers.iter().any(|&number| number != frame.channel)
            }
            _ => false,
        })
    }

    /// Whether there was a request with a digest, which we did not answer, and we say all that Node says, and more.
    fn was_told_in_vain(&self) -> bool {
        let is_in_vain = |request: Request| {
            request.nodes > 0 && !request.hash && !self.ours.core.has(request.index)
        };
        let mut messages = self.before.iter().filter_map(|item| item.message());
        let is_told = messages.any(|message| match message {
            Message::Request(request) => is_in_vain(request),
            _ => false,
        });
        let (said, heard) = self.data_said;
        let mut both = said.iter().zip(heard);
        let says_all = both.all(|(ours, theirs)| {
            ours.value == theirs.value && theirs.nodes.iter().all(|node| ours.nodes.contains(node))
        });
        is_told && said.len() == heard.len() && says_all
    }

    fn is_wanted_again(&self) -> bool {
        let is_want = |message: &Message| matches!(message, Message::Want(_));
        let Some(this) = self.message().filter(is_want) else {
            return false;
        };
        let frames = self.before.iter().filter_map(|item| item.read());
        let mut bodies = frames.map(|frame| frame.body);
        bodies.any(|body| body == Body::Message(this.clone()))
    }

    /// Whether the nodes of this do not lead to one of the roots.
    fn stops_below_roots(&self, data: Data) -> bool {
        let Some(mut top) = NodeIndex::leaf(data.index) else {
            return false;
        };
        let mut nodes = data.nodes.iter().peekable();
        while nodes
            .next_if(|node| node.index == top.sibling().get())
            .is_some()
        {
            top = top.parent();
        }
        !full_roots(self.logs.length()).any(|root| root == top)
    }

    fn is_unasked_proof(&self) -> bool {
        self.data()
            .is_some_and(|data| data.value.is_none() && !data.nodes.is_empty())
    }

    fn is_given_up(&self) -> bool {
        let Some(data) = self.data() else {
            return false;
        };
        let mut frames = self.before.iter().filter_map(|item| item.read());
        let is_missing = frames.any(|frame| match frame.body {
            Body::Message(Message::Unhave(it)) => {
                (it.start..it.start.saturating_add(it.length.max(1))).contains(&data.index)
            }
            _ => false,
        });
        is_missing && !self.ours.core.has(data.index)
    }

    fn is_of_missing_byte(&self) -> bool {
        let Some(Message::Request(request)) = self.message() else {
            return false;
        };
        let mut end = 0;
        let found = self.logs.blocks.iter().position(|block| {
            end += block.len() as u64;
            request.bytes < end
        });
        request.bytes > 0 && found.is_some_and(|index| !self.ours.core.has(index as u64))
    }
}
