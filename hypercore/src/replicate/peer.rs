//! One remote, as one core sees it: what it has, what it was asked, what it asks.
//!
//! The names and the rules are those of Hypercore 9 `lib/replicate.js` (`Peer`).

use std::{
    collections::{BTreeSet, VecDeque},
    ops::Range,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use hypercore_bitfield::RemoteBitfield;
use hypercore_merkle::RemoteTree;
use hypercore_wire::{Have, Message, Request, Status, Unhave, Want};

use super::{
    Wake,
    load::Part,
    options::PeerOptions,
    questions::{Question, Questions},
};
use crate::{
    error::{Error, Result},
    event::PeerId,
    extension::OUTBOX,
};

/// Blocks are asked about in regions of this size, aligned (`_sendWant`).
pub(crate) const REGION: u64 = 1024 * 1024;

/// Wants start and end at multiples of a bitfield page, others are ignored (`onwant`).
pub(crate) const WANT_ALIGNMENT: u64 = 8192;

/// Wants without an answer at one time (`_sendWants`).
const MAX_WANTS: usize = 16;

/// Regions one connection asks about: 2^36 blocks.
const MAX_REGIONS: usize = 65_536;

/// Bytes asked for and not received at one time: more than a connection of 1 Gbit/s and 15 ms holds.
const WINDOW_BYTES: u64 = 2 * 1024 * 1024;

/// Requests in flight, whatever the size of the blocks: no fewer than Node's hypercore keeps, no
/// more than a peer of ours queues.
const WINDOW_REQUESTS: Range<u64> = 16..192;

/// Beyond the window, for what somebody waits for at this moment (`urgentRequests`).
const URGENT: usize = 16;

/// Memory for what the remote says it has, of all cores of a connection.
const REMOTE_BITFIELDS_OF_CONNECTION: usize = 16 * 1024 * 1024;

/// Answers to requests we no longer have: some are expected after a request was given to another.
const MAX_UNREQUESTED: usize = 16;

/// What a request asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// The block.
    Block,
    /// Only the proof: this is how the newest length is learnt.
    Proof,
    /// The block that holds a byte; the remote answers with that block, not with the one named.
    Byte(u64),
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct InFlight {
    pub(crate) index: u64,
    pub(crate) wanted: Wanted,
    since: Instant,
}

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

/// What went to and came from a peer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Blocks sent.
    pub uploaded_blocks: u64,
    /// Bytes of these blocks.
    pub uploaded_bytes: u64,
    /// Blocks received, verified and stored.
    pub downloaded_blocks: u64,
    /// Bytes of these blocks.
    pub downloaded_bytes: u64,
}

impl Stats {
    pub(crate) const fn plus(self, other: Self) -> Self {
        Self {
            uploaded_blocks: self.uploaded_blocks + other.uploaded_blocks,
            uploaded_bytes: self.uploaded_bytes + other.uploaded_bytes,
            downloaded_blocks: self.downloaded_blocks + other.downloaded_blocks,
            downloaded_bytes: self.downloaded_bytes + other.downloaded_bytes,
        }
    }
}

/// One remote, as one core sees it.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) id: PeerId,
    pub(crate) options: PeerOptions,
    pub(crate) stage: Stage,
    pub(crate) remote_public_key: Option<[u8; 32]>,
    pub(crate) downloading: bool,
    pub(crate) uploading: bool,
    pub(crate) remote_downloading: bool,
    pub(crate) remote_uploading: bool,
    /// The remote has sent a Want, so it hears of new blocks.
    remote_wants: bool,
    pub(crate) remote_acks: bool,
    /// What the remote has, as far as it told us.
    pub(crate) remote: RemoteBitfield,
    /// The memory of `remote`, as a part of all on the connection.
    remote_memory: Part,
    /// Which nodes the remote has, as far as its requests told us.
    pub(crate) remote_tree: RemoteTree,
    /// The remote has told us at least once what it has.
    heard: bool,
    regions: BTreeSet<u64>,
    /// All regions below were asked about.
    next_region: u64,
    wants_in_flight: usize,
    in_flight: Vec<InFlight>,
    /// Blocks below are stored here, asked for, or not had by this remote.
    pub(crate) cursor: u64,
    last_answer: Instant,
    /// A running mean, in bytes.
    block_size: u64,
    last_bytes_asked: u64,
    last_bytes_answered: u64,
    questions: Questions,
    unrequested: usize,
    pub(crate) outbox: Vec<Message>,
    /// Messages of extensions, which come after those of the protocol.
    pub(crate) extension_outbox: VecDeque<(Arc<str>, Bytes)>,
    wake: Arc<Wake>,
    pub(crate) stats: Stats,
}

impl Peer {
    pub(crate) fn new(id: PeerId, options: PeerOptions, wake: Arc<Wake>, now: Instant) -> Self {
        Self {
            id,
            stage: Stage::Opening,
            remote_public_key: None,
            downloading: options.download,
            uploading: options.upload,
            remote_downloading: true,
            remote_uploading: true,
            remote_wants: false,
            remote_acks: false,
            remote: RemoteBitfield::new(options.remote_bitfield_bytes),
            remote_memory: options.load.remote_bitfields.part(),
            remote_tree: RemoteTree::default(),
            heard: false,
            regions: BTreeSet::new(),
            next_region: 0,
            wants_in_flight: 0,
            in_flight: Vec::new(),
            cursor: 0,
            last_answer: now,
            block_size: 64 * 1024,
            last_bytes_asked: 0,
            last_bytes_answered: 0,
            questions: Questions::new(&options.load, now),
            unrequested: 0,
            outbox: Vec::new(),
            extension_outbox: VecDeque::new(),
            wake,
            stats: Stats::default(),
            options,
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
        let waiting: usize = self
            .extension_outbox
            .iter()
            .map(|(_, it)| it.len() + 1)
            .sum();
        if self.stage != Stage::Open || waiting + payload.len() > OUTBOX {
            return false;
        }
        self.extension_outbox.push_back((Arc::clone(name), payload));
        self.wake();
        true
    }

    /// From now on we ask and answer the remote, or do not.
    pub(crate) fn set_status(&mut self, downloading: bool, uploading: bool) {
        if (self.downloading, self.uploading) == (downloading, uploading) {
            return;
        }
        (self.downloading, self.uploading) = (downloading, uploading);
        if !uploading {
            // They are not refused: the remote hears that we answer nothing (`setUploading`).
            self.questions.clear();
        }
        if self.stage == Stage::Open {
            self.send_status();
            self.wake();
        }
    }

    pub(crate) fn send_status(&mut self) {
        self.outbox.push(Message::Status(Status {
            uploading: self.uploading,
            downloading: self.downloading,
        }));
    }

    pub(crate) fn wake(&self) {
        self.wake.wake();
    }

    // ---- what the remote has ----------------------------------------------------------------

    pub(crate) fn on_have(&mut self, have: &Have) -> Result<()> {
        self.heard = true;
        let length = have.length;
        if length == REGION {
            self.wants_in_flight = self.wants_in_flight.saturating_sub(1);
        }
        if let Some(bitfield) = &have.bitfield {
            // A Want without a length, as old peers send it, is answered with everything.
            let window = if length <= 1 {
                self.options.remote_bitfield_bytes
            } else {
                length.div_ceil(32) as usize * 4
            };
            self.remote.apply_rle(have.start, bitfield, window)?;
        } else {
            self.remote
                .set_range(have.start..have.start.saturating_add(length.max(1)), true)?;
        }
        self.account_remote()?;
        self.cursor = self.cursor.min(have.start);
        Ok(())
    }

    /// Returns the requests it will not answer.
    pub(crate) fn on_unhave(&mut self, unhave: &Unhave) -> Result<Vec<InFlight>> {
        let blocks = unhave.start..unhave.start.saturating_add(unhave.length.max(1));
        self.remote.set_range(blocks.clone(), false)?;
        self.account_remote()?;
        let refused = |request: &mut InFlight| {
            request.wanted == Wanted::Block && blocks.contains(&request.index)
        };
        Ok(self.in_flight.extract_if(.., refused).collect())
    }

    /// Counts the memory for what the remote says it has.
    fn account_remote(&mut self) -> Result<()> {
        let limit = REMOTE_BITFIELDS_OF_CONNECTION;
        if self.remote_memory.set(self.remote.memory()) > limit {
            return Err(hypercore_bitfield::Error::MemoryLimit { limit }.into());
        }
        Ok(())
    }

    /// Stores what the remote does from now on. Returns the requests it will not answer any more.
    pub(crate) fn on_status(&mut self, status: &Status) -> Vec<InFlight> {
        self.remote_uploading = status.uploading;
        self.remote_downloading = status.downloading;
        if status.uploading {
            return Vec::new();
        }
        // Asked again should it change its mind.
        self.wants_in_flight = 0;
        self.regions.clear();
        self.next_region = 0;
        std::mem::take(&mut self.in_flight)
    }

    /// Whether we may ask this remote for anything.
    pub(crate) fn can_download(&self) -> bool {
        self.stage == Stage::Open && self.downloading && self.remote_uploading
    }

    /// Whether it has told us all we asked about what it has, or never will.
    pub(crate) fn is_settled(&self) -> bool {
        match self.stage {
            Stage::Opening => false,
            Stage::Open => !self.can_download() || (self.heard && self.wants_in_flight == 0),
            Stage::Done => true,
        }
    }

    /// Whether it might have block `index`, for all we know.
    pub(crate) fn may_have(&self, index: u64) -> bool {
        self.remote.get(index) || (self.can_download() && !self.regions.contains(&(index / REGION)))
    }

    /// Asks what the remote has in the region of `index`, once.
    pub(crate) fn want(&mut self, index: u64) {
        let region = index / REGION;
        if self.wants_in_flight >= MAX_WANTS
            || self.regions.len() >= MAX_REGIONS
            || !self.regions.insert(region)
        {
            return;
        }
        self.wants_in_flight += 1;
        self.outbox.push(Message::Want(Want {
            start: region * REGION,
            length: REGION,
        }));
    }

    /// Asks about the first region of `blocks` not asked about yet, as far as the remote's blocks go.
    pub(crate) fn want_range(&mut self, blocks: &Range<u64>) {
        while self.regions.contains(&self.next_region) {
            self.next_region += 1;
        }
        let end = blocks.end.min(self.remote.bound());
        let mut region = (blocks.start / REGION).max(self.next_region);
        while region * REGION < end {
            if !self.regions.contains(&region) {
                return self.want(region * REGION);
            }
            region += 1;
        }
    }

    // ---- what we ask ------------------------------------------------------------------------

    pub(crate) fn request(&mut self, index: u64, wanted: Wanted, nodes: u64, now: Instant) {
        if self.in_flight.is_empty() {
            self.last_answer = now;
        }
        self.in_flight.push(InFlight {
            index,
            wanted,
            since: now,
        });
        let bytes = match wanted {
            // The same byte twice in a row is answered once (`_onbytes`). If that answer was of no
            // use, the byte before it is asked for: it is in the same block or the one before.
            Wanted::Byte(offset) if offset == self.last_bytes_asked && offset > 1 => offset - 1,
            Wanted::Byte(offset) => offset,
            Wanted::Block | Wanted::Proof => 0,
        };
        if bytes > 0 {
            self.last_bytes_asked = bytes;
        }
        self.outbox.push(Message::Request(Request {
            index,
            bytes,
            hash: wanted == Wanted::Proof,
            nodes,
        }));
    }

    /// How many more requests may be sent for ranges.
    pub(crate) fn window(&self) -> usize {
        let requests = (WINDOW_BYTES / self.block_size.max(1))
            .clamp(WINDOW_REQUESTS.start, WINDOW_REQUESTS.end);
        usize::try_from(requests)
            .unwrap_or(usize::MAX)
            .saturating_sub(self.in_flight.len())
    }

    /// How many more requests may be sent for what somebody waits for.
    pub(crate) fn urgent_window(&self) -> usize {
        self.window() + URGENT
    }

    pub(crate) fn asks_for_byte(&self, offset: u64) -> bool {
        self.in_flight
            .iter()
            .any(|request| request.wanted == Wanted::Byte(offset))
    }

    /// Finds the request that `index` answers and takes it out; `None` for an answer to nothing.
    pub(crate) fn answered(
        &mut self,
        index: u64,
        has_value: bool,
        now: Instant,
    ) -> Option<InFlight> {
        let found = self
            .in_flight
            .iter()
            .position(|request| {
                request.index == index && (request.wanted == Wanted::Proof) != has_value
            })
            .or_else(|| {
                // A byte was looked for: the remote found it in another block.
                self.in_flight
                    .iter()
                    .position(|request| matches!(request.wanted, Wanted::Byte(_)) && has_value)
            })?;
        self.last_answer = now;
        Some(self.in_flight.remove(found))
    }

    /// Counts an answer nobody asked for, or asks for no longer.
    pub(crate) fn unrequested(&mut self) -> Result<()> {
        self.unrequested += 1;
        if self.unrequested > MAX_UNREQUESTED {
            return Err(Error::UnrequestedData);
        }
        Ok(())
    }

    pub(crate) fn received(&mut self, bytes: u64) {
        self.stats.downloaded_blocks += 1;
        self.stats.downloaded_bytes += bytes;
        self.block_size = (7 * self.block_size + bytes) / 8;
    }

    pub(crate) fn take_in_flight(&mut self) -> Vec<InFlight> {
        std::mem::take(&mut self.in_flight)
    }

    /// When a request will have waited for too long.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let timeout = self.options.timeout?;
        let oldest = self.in_flight.first()?.since;
        Some(oldest.max(self.last_answer) + timeout)
    }

    /// Gives up on requests that were left unanswered. Those for a byte are dropped in silence by
    /// Node's peers when they come twice, so they are merely forgotten.
    pub(crate) fn check_deadline(&mut self, now: Instant) -> Result<Vec<InFlight>> {
        if self.deadline().is_none_or(|deadline| now < deadline) {
            return Ok(Vec::new());
        }
        let forgotten: Vec<_> = self
            .in_flight
            .extract_if(.., |request| matches!(request.wanted, Wanted::Byte(_)))
            .collect();
        if forgotten.is_empty() {
            let seconds = self
                .options
                .timeout
                .map_or(0, |timeout: Duration| timeout.as_secs());
            return Err(Error::RequestTimeout { seconds });
        }
        Ok(forgotten)
    }

    // ---- what it asks -----------------------------------------------------------------------

    /// The first Want of all: from now on the remote hears of new blocks.
    pub(crate) fn first_want(&mut self) -> bool {
        !std::mem::replace(&mut self.remote_wants, true)
    }

    pub(crate) fn ask(&mut self, question: Question) {
        if self.uploading && self.stage == Stage::Open {
            self.questions.ask(question);
        }
    }

    pub(crate) fn next_question(&mut self, now: Instant) -> Option<Question> {
        self.questions.next(now)
    }

    /// Whether a request may be answered with an Unhave; otherwise it is not answered.
    pub(crate) fn may_refuse(&mut self, now: Instant) -> bool {
        self.questions.may_refuse(now)
    }

    /// When a question may be answered that has to wait.
    pub(crate) fn question_deadline(&self) -> Option<Instant> {
        self.questions.deadline()
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.questions.is_empty()
    }

    /// Whether so many questions are open that no more should be read.
    pub(crate) fn is_congested(&self) -> bool {
        self.questions.is_congested()
    }

    /// Whether a byte request repeats the last one that was answered (`_onbytes`).
    pub(crate) fn repeats_bytes(&mut self, bytes: u64) -> bool {
        std::mem::replace(&mut self.last_bytes_answered, bytes) == bytes
    }

    /// Tells the remote that we have `blocks` now, in one message with what follows on directly.
    pub(crate) fn announce(&mut self, blocks: Range<u64>) {
        if !self.remote_wants {
            return;
        }
        if let Some(Message::Have(have)) = self.outbox.last_mut()
            && have.bitfield.is_none()
            && !have.ack
            && have.start + have.length == blocks.start
        {
            have.length = blocks.end - have.start;
            return;
        }
        let length = blocks.end - blocks.start;
        self.outbox.push(Message::Have(Have {
            start: blocks.start,
            length,
            bitfield: None,
            ack: false,
        }));
    }

    pub(crate) fn withdraw(&mut self, blocks: Range<u64>) {
        if self.remote_wants {
            let length = blocks.end - blocks.start;
            self.outbox.push(Message::Unhave(Unhave {
                start: blocks.start,
                length,
            }));
        }
    }
}
