//! One remote, as one core sees it: what it asks, what it was asked (in `requests`), and what it has (in
//! `remote`).
//!
//! The names and the rules are those of Hypercore 9 `lib/replicate.js` (`Peer`).

mod extensions;
mod remote;
mod requests;

use std::{
    collections::VecDeque,
    ops::Range,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use hypercore_bitfield::RemoteBitfield;
use hypercore_merkle::RemoteTree;
use hypercore_wire::{ChannelId, Have, Message, Request, Status, Unhave};

use super::{
    PeerInfo, Wake,
    ahead::Ahead,
    hashes::HashScan,
    load::Part,
    options::PeerOptions,
    pace::{MAX_REQUESTS, Pace},
    questions::{Question, Questions},
    scan::Scan,
    stats::Stats,
    unproven::Unproven,
};
use crate::{event::PeerId, span::length_of};
use extensions::ExtensionOutbox;
use remote::RegionsAsked;
pub(crate) use requests::{InFlight, Wanted};

/// How long a remote has to open the core before nobody waits to hear what it has. One that does not
/// know the key says nothing at all, and goes on with other cores.
const OPEN_TIMEOUT: Duration = Duration::from_secs(10);

/// How far this core's part of a connection has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// We have sent our Open, or are about to.
    Opening,
    /// Both sides know the key.
    Open,
    /// Nothing is left to be exchanged.
    Done,
}

/// How long a remote that wanted nothing more has to say that it does, once it hears of new blocks.
const NEWS_TIMEOUT: Duration = Duration::from_secs(2);

/// What a remote that wants nothing more has heard since it said so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum News {
    /// Nothing.
    None,
    /// Of blocks that it does not have.
    Told,
    /// Of such blocks, and its time to answer runs since then.
    Answering(Instant),
}

/// One remote, as one core sees it.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) id: PeerId,
    pub(crate) options: PeerOptions,
    pub(crate) stage: Stage,
    /// When a remote that has not opened the core, or told what it has, is not waited for any more; `None`
    /// from then on.
    tell_by: Option<Instant>,
    attached: Instant,
    pub(crate) remote_public_key: Option<[u8; 32]>,
    pub(crate) downloading: bool,
    /// It downloads nothing because everything was here, and not because somebody said so.
    pub(super) satisfied: bool,
    pub(crate) uploading: bool,
    pub(crate) remote_downloading: bool,
    pub(crate) remote_uploading: bool,
    /// The remote has sent a Want, so it hears of new blocks.
    remote_wants: bool,
    /// The remote has downloaded, and says that it wants nothing more.
    remote_satisfied: bool,
    /// Whether it has heard of blocks since it said so.
    news: News,
    pub(crate) remote_acks: bool,
    /// What the remote has, as far as it told us.
    pub(crate) remote: RemoteBitfield,
    /// It was asked to prove a greater length and did not: others have their turn first.
    pub(super) passed_over: bool,
    /// What it has beside, and could not prove.
    pub(super) unproven: Unproven,
    /// The memory of `remote`, as a part of all on the connection.
    remote_memory: Part,
    /// The same, as a part of all in this process.
    remote_memory_of_all: Part,
    /// Which nodes the remote has, as far as its requests told us.
    pub(crate) remote_tree: RemoteTree,
    /// Both sides declared [`EXACT_DIGESTS`](crate::extension::EXACT_DIGESTS).
    pub(super) is_exact: bool,
    /// The nodes that it was asked for, if it is.
    under_way: RemoteTree,
    /// Answers that were forgiven.
    forgiven: u64,
    /// Both sides declared [`NEXT_BLOCK`](crate::extension::NEXT_BLOCK).
    pub(super) keeps_next: bool,
    /// What the one asked the other ahead.
    pub(super) ahead: Ahead,
    /// It was asked whether its log is the same as ours, and has not come to have more since.
    pub(crate) probed: bool,
    /// The remote has told us at least once what it has.
    heard: bool,
    regions_asked: RegionsAsked,
    /// Oldest first.
    in_flight: VecDeque<InFlight>,
    /// Requests and Wants in flight, as a part of all on the connection.
    our_questions: Part,
    pace: Pace,
    pub(super) scan: Scan,
    pub(super) hash_scan: HashScan,
    last_answer: Instant,
    last_bytes_asked: u64,
    last_bytes_answered: u64,
    questions: Questions,
    unrequested: usize,
    /// Requests that were given up and that the remote, which does not know, may still answer.
    given_up: usize,
    pub(crate) outbox: Vec<Message>,
    /// It was not told all, and is not to go on.
    is_overrun: bool,
    extension_outbox: ExtensionOutbox,
    wake: Arc<Wake>,
    channel: ChannelId,
    pub(crate) stats: Stats,
}

impl Peer {
    pub(crate) fn new(
        id: PeerId,
        options: PeerOptions,
        wake: Arc<Wake>,
        channel: ChannelId,
        now: Instant,
    ) -> Self {
        Self {
            id,
            stage: Stage::Opening,
            tell_by: now.checked_add(OPEN_TIMEOUT),
            attached: now,
            remote_public_key: None,
            downloading: options.download,
            satisfied: false,
            uploading: options.upload,
            remote_downloading: true,
            remote_uploading: true,
            remote_wants: false,
            remote_satisfied: false,
            news: News::None,
            remote_acks: false,
            remote: RemoteBitfield::new(options.load.limits.remote_bitfield),
            passed_over: false,
            unproven: Unproven::default(),
            remote_memory: options.load.remote_bitfields.part(),
            remote_memory_of_all: options.load.all_remote_bitfields.part(),
            remote_tree: RemoteTree::with_memory(options.load.limits.remote_nodes),
            is_exact: false,
            under_way: RemoteTree::default(),
            forgiven: 0,
            keeps_next: false,
            ahead: Ahead::new(&options.load),
            probed: false,
            heard: false,
            regions_asked: RegionsAsked::default(),
            in_flight: VecDeque::new(),
            our_questions: options.load.ours.part(),
            pace: Pace::new(now),
            scan: Scan::default(),
            hash_scan: HashScan::default(),
            last_answer: now,
            last_bytes_asked: 0,
            last_bytes_answered: 0,
            questions: Questions::new(&options.load, now),
            unrequested: 0,
            given_up: 0,
            outbox: Vec::new(),
            is_overrun: false,
            extension_outbox: ExtensionOutbox::default(),
            wake,
            channel,
            stats: Stats::default(),
            options,
        }
    }

    pub(crate) fn info(&self) -> PeerInfo {
        let blocks = self.in_flight.iter();
        let blocks = blocks.filter(|request| request.wanted == Wanted::Block);
        PeerInfo {
            id: self.id,
            remote_public_key: self.remote_public_key,
            remote_length: self.remote.bound(),
            opened: self.stage == Stage::Open,
            asked: blocks.map(|request| request.index).collect(),
            in_flight: self.in_flight.len(),
            compared: self.probed && !self.is_asked_for(Wanted::Head),
            delay: self.pace.delay(),
            bytes_per_second: self.pace.bytes_per_second(),
            stats: self.stats,
        }
    }

    /// Both sides have opened the core: says what we do if it is not the default (`onopen`).
    pub(crate) fn open(&mut self, extensions: Vec<String>) {
        self.stage = Stage::Open;
        if self.options.ack || !extensions.is_empty() {
            self.declare(extensions);
        }
        if !self.uploading || !self.downloading {
            self.send_status();
        }
    }

    /// Tells the remote which extensions we have.
    pub(crate) fn declare(&mut self, extensions: Vec<String>) {
        if self.stage == Stage::Open {
            self.outbox.push(Message::Options(hypercore_wire::Options {
                extensions,
                ack: self.options.ack,
            }));
            self.wake();
        }
    }

    /// Queues a message of an extension; false if that is not possible now.
    pub(crate) fn send_extension(&mut self, name: &Arc<str>, payload: Bytes) -> bool {
        // The remote takes no more than we do, as far as we know, and would break off.
        let is_too_long = payload.len() > self.options.extension_message;
        let is_queued =
            self.stage == Stage::Open && !is_too_long && self.extension_outbox.push(name, payload);
        if is_queued {
            self.wake();
        }
        is_queued
    }

    pub(crate) fn has_extension_messages(&self) -> bool {
        !self.extension_outbox.is_empty()
    }

    /// The next message of an extension, to be sent now.
    pub(crate) fn next_extension_message(&mut self) -> Option<(Arc<str>, Bytes)> {
        self.extension_outbox.pop()
    }

    /// From now on we ask and answer the remote, or do not.
    pub(crate) fn set_status(&mut self, downloading: bool, uploading: bool) {
        if (self.downloading, self.uploading) == (downloading, uploading) {
            return;
        }
        (self.downloading, self.uploading) = (downloading, uploading);
        // Nobody was asked about what others gave up meanwhile.
        self.regions_asked.due |= downloading;
        if !uploading {
            // They are not refused: the remote hears that we answer nothing (`setUploading`).
            self.drop_questions();
        }
        if self.stage == Stage::Open {
            self.send_status();
            self.wake();
        }
    }

    /// When the connection took up this core.
    pub(crate) const fn attached(&self) -> Instant {
        self.attached
    }

    /// Something is missing: asks the remote again if it was told that nothing is.
    pub(crate) fn want_more(&mut self) {
        if self.stage == Stage::Open && std::mem::take(&mut self.satisfied) {
            self.set_status(true, self.uploading);
        }
    }

    /// Whether neither side wants anything more, and the remote has had enough time to change its mind
    /// since it heard of new blocks. Starts the time that the remote has when neither does.
    pub(crate) fn poll_end(&mut self, now: Instant) -> bool {
        let is_done = !self.downloading && !self.remote_downloading && self.is_idle();
        self.news = match self.news {
            News::Told if is_done => News::Answering(now),
            News::Answering(_) if !is_done => News::Told,
            news => news,
        };
        is_done && self.news_deadline().is_none_or(|by| by <= now)
    }

    fn news_deadline(&self) -> Option<Instant> {
        match self.news {
            News::Answering(since) if self.stage == Stage::Open => since.checked_add(NEWS_TIMEOUT),
            _ => None,
        }
    }

    pub(crate) fn send_status(&mut self) {
        self.outbox.push(Message::Status(Status {
            uploading: self.uploading,
            downloading: self.downloading,
        }));
    }

    pub(crate) fn wake(&self) {
        self.wake.wake_channel(self.channel);
    }

    /// Whether its connection was woken since the last call, or since it last ran.
    #[cfg(test)]
    pub(crate) fn take_woken(&self) -> bool {
        self.wake.take()
    }

    /// The remote has sent a Want, and hears of new blocks from now on. Returns whether it is the first.
    pub(crate) fn note_want(&mut self) -> bool {
        !std::mem::replace(&mut self.remote_wants, true)
    }

    pub(crate) fn ask(&mut self, question: Question) {
        if self.uploading && self.stage == Stage::Open {
            self.questions.ask(question);
        }
    }

    /// What the remote has asked is not answered any more.
    pub(crate) fn drop_questions(&mut self) {
        self.questions.clear();
        self.ahead.kept = None;
    }

    pub(crate) fn next_question(&mut self, now: Instant) -> Option<Question> {
        self.questions.next(now)
    }

    /// How many of the next questions, `most` at most, are requests for the blocks from `index` on, one
    /// by one.
    pub(crate) fn requested_run(&self, index: u64, most: u64) -> u64 {
        self.questions.requested_run(index, most)
    }

    /// Answers a request with an Unhave when that may be, unless too many wait for that.
    pub(crate) fn refuse_later(&mut self, request: Request) {
        self.questions.refuse_later(request);
    }

    /// Takes one of the refusals that are allowed in a second. False if none is left: the request has to
    /// wait.
    pub(crate) fn take_refusal(&mut self, now: Instant) -> bool {
        self.questions.take_refusal(now)
    }

    /// When a question may be answered that has to wait.
    pub(crate) fn question_deadline(&self) -> Option<Instant> {
        self.questions.deadline()
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.questions.is_empty()
    }

    /// Whether so many questions are open, or so much is to be said, that no more should be read.
    pub(crate) fn is_congested(&self) -> bool {
        self.questions.is_congested() || self.is_outbox_full()
    }

    /// Whether so much is to be said that what the remote says should cause no more of it.
    pub(super) fn is_outbox_full(&self) -> bool {
        self.outbox.len() >= MAX_REQUESTS
    }

    /// Notes for which byte a request was answered. Returns whether that was the last one, too
    /// (`_onbytes`).
    pub(crate) fn note_byte_answered(&mut self, bytes: u64) -> bool {
        std::mem::replace(&mut self.last_bytes_answered, bytes) == bytes
    }

    /// Tells the remote that we have `blocks` now, in one message with what follows on directly.
    pub(crate) fn announce(&mut self, blocks: Range<u64>) {
        if !self.remote_wants {
            return;
        }
        let is_news = self.remote_satisfied && self.remote.next_clear(blocks.start) < blocks.end;
        // A term that runs goes on, or it would never be over while blocks are appended.
        if is_news && self.news == News::None {
            self.news = News::Told;
        }
        let length = length_of(&blocks);
        if let Some(Message::Have(have)) = self.outbox.last_mut()
            && have.bitfield.is_none()
            && !have.ack
            && have.start.saturating_add(have.length) == blocks.start
        {
            have.length = have.length.saturating_add(length);
            return;
        }
        self.tell(Message::Have(Have {
            start: blocks.start,
            length,
            bitfield: None,
            ack: false,
        }));
    }

    pub(crate) fn withdraw(&mut self, blocks: Range<u64>) {
        if self.remote_wants {
            let length = length_of(&blocks);
            self.tell(Message::Unhave(Unhave {
                start: blocks.start,
                length,
            }));
        }
    }

    /// Says what is here or is not any more, or ends the connection that has taken nothing for so long. With
    /// both halves of a [`Replication`](super::Replication) waiting for a socket on which nothing moves, its
    /// own clocks stand still.
    fn tell(&mut self, message: Message) {
        if self.outbox.len() >= self.options.load.limits.unsent_news {
            (self.is_overrun, self.outbox) = (true, Vec::new());
        }
        if !self.is_overrun {
            self.outbox.push(message);
        }
    }

    /// Panics if more is held for the remote than there should ever be.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(super) fn check_bounds(&self) {
        self.questions.check_bounds();
        self.check_requests();
        self.check_remote();
        self.unproven.check_bounds();
        self.extension_outbox.check_bounds();
        let outbox = self.outbox.iter();
        let requests = outbox.filter(|message| matches!(message, Message::Request(_)));
        assert!(requests.count() <= 4 * MAX_REQUESTS);
        let most = self.options.load.limits.unsent_news;
        assert!(self.outbox.len() <= most.saturating_add(8 * MAX_REQUESTS));
    }
}
