//! One connection: a wire session on one side, the cores it carries on the other.
//!
//! A connection is a value like the session in it: bytes and the time go in, bytes and a deadline
//! come out. [`super::Replication`] drives it.

mod channel;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use hypercore_wire::{ChannelId, Data, Event as WireEvent, Message, Session, SessionOptions};

use super::{
    CloseReason, Ended, ReplicateOptions, Role, Wake,
    load::Load,
    options::PeerOptions,
    peer::{Peer, Stage},
    questions::Question,
    receive::receive_data,
};
use crate::{
    core::Core,
    error::{Error, Result},
    event::{Event, PeerId},
    runtime,
    shared::SharedCore,
};

/// Bytes that are made ready at once, so that others get their turn, and the remote has the first while
/// we read the next. Blocks that were read together go together.
const PORTION: usize = 32 * 1024;

/// With so many bytes waiting to be sent beyond [`unsent_answers`](super::PeerLimits::unsent_answers)
/// nothing more is read: more than the longest answer adds, or two that send each other long blocks would
/// both wait for the other to read.
const LONGEST_ANSWER: usize = 11 * 1024 * 1024;

/// How many answers are taken in together: others wait for as long as that takes, below a
/// millisecond.
const MAX_ANSWERS: usize = 64;

/// How long the remote has to answer the last Close, and the transport to be closed.
pub(super) const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// A core on this connection.
#[derive(Debug)]
struct Attachment {
    core: SharedCore,
    peer: PeerId,
    /// When it is to be looked at if nothing happens before.
    deadline: Option<Instant>,
    /// It is one of [`Connection::starved`].
    starved: bool,
}

/// One connection.
pub(crate) struct Connection {
    session: Session,
    options: ReplicateOptions,
    attachments: BTreeMap<ChannelId, Attachment>,
    /// The deadlines of the attachments.
    deadlines: BTreeSet<(Instant, ChannelId)>,
    /// Channels that are to be looked at, as a message came or the remote took no more answers.
    /// Others are looked at when `wake` says so.
    changed: BTreeSet<ChannelId>,
    /// Channels that ask more as soon as the remote has answered what was asked on others.
    starved: VecDeque<ChannelId>,
    /// The channel on which the remote was answered last: those after it have their turn.
    answered: Option<ChannelId>,
    wake: Arc<Wake>,
    /// What the cores hold together.
    load: Load,
    /// At least one core was attached, so having none any more means something.
    used: bool,
    /// The last core was closed while the connection was live.
    abandoned: bool,
    /// It was closed here: nothing more is exchanged.
    closed: bool,
    /// Cores that the remote opened and that are going to be added, or rejected.
    awaited: BTreeSet<[u8; 32]>,
    /// Channels on which the remote asks faster than it takes our answers: its messages wait.
    congested: BTreeSet<ChannelId>,
    remote_ended: bool,
    /// When the remote will have had enough time to answer the last Close.
    close_by: Option<Instant>,
    /// How the worst of the cores that are no longer attached ended.
    ended: Ended,
    failed: bool,
    /// When it was over the remote had not answered all it was asked.
    owed_answers: Arc<AtomicBool>,
}

impl Connection {
    pub(crate) fn new(role: Role, mut options: ReplicateOptions) -> Result<Self> {
        let mut session = SessionOptions::new(role)?;
        if let Some(key_pair) = options.key_pair.take() {
            session.key_pair = key_pair;
        }
        session.noise = options.noise;
        session.encrypted = options.encrypted;
        session.timeout = options.timeout;
        session.limits = options.limits.clone();
        session.remote_public_key = options.remote_public_key;
        session.discreet = options.discreet && role == Role::Responder;
        if options.asks_for_key() && !options.noise && !options.encrypted {
            return Err(Error::NoHandshake);
        }
        Ok(Self {
            session: Session::new(session, runtime::now())?,
            load: Load::new(options.peer_limits.clone()),
            options,
            attachments: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            changed: BTreeSet::new(),
            starved: VecDeque::new(),
            answered: None,
            wake: Arc::default(),
            used: false,
            abandoned: false,
            closed: false,
            awaited: BTreeSet::new(),
            congested: BTreeSet::new(),
            remote_ended: false,
            close_by: None,
            ended: Ended::Complete,
            failed: false,
            owed_answers: Arc::default(),
        })
    }

    pub(crate) fn wake(&self) -> &Arc<Wake> {
        &self.wake
    }

    /// Puts `core` on this connection: it is exchanged once the remote opens it too.
    pub(crate) fn attach(&mut self, core: &SharedCore) -> Result<PeerId> {
        if self.failed || self.closed {
            return Err(not_connected());
        }
        let locked = core.lock();
        locked.log.files()?;
        if locked.log.is_unfinished() {
            return Err(Error::NotFinalized);
        }
        let key = locked.log.key();
        let discovery_key = *locked.log.discovery_key().as_bytes();
        // No two cores are locked at a time.
        drop(locked);
        if self.awaited.contains(&discovery_key)
            && self.session.is_remote_open(&discovery_key)
            && !self.session.remote_verified(key.as_bytes())
        {
            // As a core that is not here, on a discreet side too.
            self.reject(&discovery_key);
            return Err(hypercore_wire::Error::InvalidCapability.into());
        }
        if let Some(channel) = self.session.find(&discovery_key)
            && let Some(attached) = self.attachments.get(&channel)
        {
            if Arc::ptr_eq(&attached.core, core) {
                self.awaited.remove(&discovery_key);
                return Ok(attached.peer);
            }
            if attached.core.lock().log.files().is_ok() {
                return Err(Error::AlreadyReplicated(key));
            }
            // It was closed, which was not noticed yet.
            self.take_off_done(channel);
            self.wake.wake();
        }
        let mut locked = core.lock();
        locked.log.files()?;
        let channel = self.session.open(key.as_bytes())?;
        self.awaited.remove(&discovery_key);
        let extensions = locked
            .replicator
            .extensions
            .names(self.options.own_extensions);
        if let Err(error) = self.session.expect_extensions(channel, extensions) {
            // The remote is not to wait for answers.
            self.session.close(channel);
            return Err(error.into());
        }
        let options = PeerOptions {
            live: self.options.live,
            ack: self.options.ack,
            download: self
                .options
                .download
                .or(locked.replicator.downloading)
                .unwrap_or_else(|| !locked.log.is_writer()),
            upload: self.options.upload && locked.replicator.uploading != Some(false),
            timeout: self.options.timeout,
            own_extensions: self.options.own_extensions,
            extension_message: self.options.limits.extension_message,
            load: self.load.clone(),
        };
        let wake = Arc::clone(&self.wake);
        let peer = locked
            .replicator
            .add_peer(options, wake, channel, runtime::now());
        drop(locked);
        self.abandoned = false;
        self.attachments.insert(
            channel,
            Attachment {
                core: Arc::clone(core),
                peer,
                deadline: None,
                starved: false,
            },
        );
        self.used = true;
        self.wake.wake_channel(channel);
        Ok(peer)
    }

    /// Nobody adds the core with this discovery key, which the remote has opened.
    pub(crate) fn reject(&mut self, discovery_key: &[u8; 32]) {
        if self.awaited.remove(discovery_key) {
            self.session.reject(discovery_key);
            self.wake.wake();
        }
    }

    /// Takes `core` off this connection. Returns whether it was on it.
    pub(crate) fn remove(&mut self, core: &SharedCore) -> bool {
        let mut attachments = self.attachments.iter();
        let found = attachments.find(|(_, attached)| Arc::ptr_eq(&attached.core, core));
        let Some((&channel, _)) = found else {
            return false;
        };
        self.take_off(channel);
        self.wake.wake();
        true
    }

    fn take_off(&mut self, channel: ChannelId) {
        self.session.close(channel);
        let reason = "the core was taken off the connection";
        self.ended = self.ended.max(Ended::Closed);
        self.detach(channel, CloseReason::Dropped, reason);
    }

    /// Takes off a core that was closed, or of which everything is exchanged.
    fn take_off_done(&mut self, channel: ChannelId) {
        let Some(Attachment { core, .. }) = self.attachments.get(&channel) else {
            return;
        };
        let is_closed = core.lock().log.files().is_err();
        let ended = if is_closed {
            Ended::CoreClosed
        } else {
            Ended::Complete
        };
        self.session.close(channel);
        self.ended = self.ended.max(ended);
        self.detach(channel, ended.into(), &ended.to_string());
        self.abandoned = is_closed && self.attachments.is_empty();
    }

    /// Takes all cores off, after which the connection ends.
    pub(crate) fn close(&mut self) {
        for awaited in std::mem::take(&mut self.awaited) {
            self.session.reject(&awaited);
        }
        let channels: Vec<_> = self.attachments.keys().copied().collect();
        for channel in channels {
            self.take_off(channel);
        }
        self.closed = true;
        self.ended = self.ended.max(Ended::Closed);
        self.options.drop_remote_open();
        self.wake.wake();
    }

    // ---- the transport's side ---------------------------------------------------------------

    /// Room for bytes from the transport.
    pub(crate) fn receive_buffer(&mut self) -> &mut [u8] {
        self.session.receive_buffer()
    }

    /// The length of the longest frame: so much may come, and one more buffer, before events are polled.
    pub(crate) fn longest_frame(&self) -> usize {
        self.options.limits.frame.max(1)
    }

    /// The first `count` bytes of [`Self::receive_buffer`] came from the transport.
    /// [`Self::handle_events`] and [`Self::advance`] follow.
    pub(crate) fn received(&mut self, count: usize, now: Instant) -> Result<()> {
        self.note_arrival(now);
        Ok(self.session.received(now, count)?)
    }

    /// These bytes came from the transport. Takes as many as may come before events are polled, and
    /// returns how many those are.
    pub(crate) fn receive(&mut self, bytes: &[u8], now: Instant) -> Result<usize> {
        let most = self.options.limits.read.max(1);
        let bytes = bytes.get(..most).unwrap_or(bytes);
        // Whoever writes may never read, which is when time passes otherwise.
        self.session.handle_timeout(now)?;
        self.note_arrival(now);
        self.session.receive(now, bytes)?;
        self.handle_events(now)?;
        self.wake.wake();
        Ok(bytes.len())
    }

    /// Bytes came. If they go on with a long frame, nobody was silent until now.
    fn note_arrival(&self, now: Instant) {
        if let Some(since) = self.session.receiving_since() {
            self.load.heard(since, now);
        }
    }

    /// The remote sends nothing any more. An error if that is not where a message ends.
    pub(crate) fn remote_ended(&mut self) -> Result<()> {
        self.remote_ended = true;
        Ok(self.session.received_end()?)
    }

    /// Bytes for the transport.
    pub(crate) fn outgoing(&self) -> &[u8] {
        self.session.outgoing()
    }

    /// The transport took the first `count` bytes of [`Self::outgoing`].
    pub(crate) fn sent(&mut self, count: usize, now: Instant) {
        self.session.sent(now, count);
    }

    /// Whether more bytes may come in: not after their end, and not while the remote leaves our
    /// answers unread, or memory is short.
    pub(crate) fn may_receive(&self) -> bool {
        let answers = self.load.limits.unsent_answers;
        !self.remote_ended
            && self.congested.is_empty()
            && self.session.buffered() < answers.saturating_add(LONGEST_ANSWER)
            && self.session.may_receive()
    }

    /// Whether nothing is read for want of memory.
    pub(crate) fn lacks_memory(&self) -> bool {
        !self.session.may_receive()
    }

    /// Whether all is said: the rest is to flush and to close.
    pub(crate) fn is_finished(&self, now: Instant) -> bool {
        self.failed
            || self.remote_ended
            || (self.has_nothing_left()
                && (self.may_hang_up() || self.close_by.is_some_and(|by| by <= now)))
    }

    /// Whether it was closed here and the remote had its time, whatever is left to be sent.
    pub(crate) fn is_overdue(&self, now: Instant) -> bool {
        self.closed && self.close_by.is_some_and(|by| by <= now)
    }

    /// Whether the remote would take the end of the transport for that of the connection.
    fn may_hang_up(&self) -> bool {
        self.session.is_handshaken() && self.session.closing() == 0
    }

    /// Whether the remote has the cores, and owes no answers.
    pub(crate) fn expects_nothing(&self) -> bool {
        !self.any_peer(|peer| peer.stage == Stage::Opening || peer.owes_answers())
    }

    fn any_peer(&self, is_it: impl Fn(&Peer) -> bool) -> bool {
        self.attachments
            .values()
            .any(|Attachment { core, peer, .. }| {
                let mut core = core.lock();
                core.replicator.peer(*peer).is_some_and(|peer| is_it(peer))
            })
    }

    /// Whether the remote had not answered all it was asked when it was over.
    pub(crate) fn owed_answers(&self) -> &Arc<AtomicBool> {
        &self.owed_answers
    }

    /// Whether it has failed, or was ended here.
    pub(crate) fn has_failed(&self) -> bool {
        self.failed
    }

    /// How it ended, once it is finished.
    pub(crate) fn ended(&self) -> Ended {
        if self.attachments.is_empty() {
            self.ended
        } else {
            Ended::RemoteClosed
        }
    }

    /// Whether every core was exchanged, on a connection that is made for no more than that, or
    /// closed by its owner.
    fn has_nothing_left(&self) -> bool {
        if self.closed {
            // Whatever the remote opened here.
            return true;
        }
        // What the remote has opened besides does not keep it, unless it is going to be added.
        let is_abandoned = self.abandoned && self.awaited.is_empty();
        is_abandoned || self.used && !self.options.live && self.session.channels() == 0
    }

    /// When it is to be looked at, if it was looked at `now` and nothing happens before.
    pub(crate) fn deadline(&self, now: Instant) -> Option<Instant> {
        let first = self.deadlines.first().map(|&(at, _)| at);
        // Once that has passed, what is left to be sent waits for the transport alone.
        let close_by = self.close_by.filter(|&by| by > now);
        [first, self.session.poll_timeout(), close_by]
            .into_iter()
            .flatten()
            .min()
    }

    /// The deadline has passed and nothing came that could be read: lets other peers be asked for what
    /// is late.
    pub(crate) fn offer_overdue(&self, now: Instant) {
        let due = self.deadlines.iter().take_while(|&&(at, _)| at <= now);
        for (_, channel) in due {
            if let Some(Attachment { core, peer, .. }) = self.attachments.get(channel) {
                core.lock().replicator.offer_late(*peer, now);
            }
        }
    }

    /// Does what is due: timers, what changed in the cores, answers to questions.
    pub(crate) fn advance(&mut self, now: Instant) -> Result<()> {
        self.session.handle_timeout(now)?;
        // Adding a core that the remote opened before makes an event although no bytes came.
        self.handle_events(now)?;
        let was_congested = !self.congested.is_empty();
        for channel in self.take_channels(now) {
            self.advance_channel(channel, now)?;
        }
        if was_congested && self.congested.is_empty() {
            self.handle_events(now)?;
            self.wake.wake();
        }
        self.close_by = if self.has_nothing_left() {
            self.close_by.or_else(|| now.checked_add(CLOSE_TIMEOUT))
        } else {
            // A core may have been added meanwhile.
            None
        };
        Ok(())
    }

    // ---- the remote's side ------------------------------------------------------------------

    /// Does what the remote asks and takes in what it sent.
    pub(crate) fn handle_events(&mut self, now: Instant) -> Result<()> {
        // Answers that follow each other on one channel, to be taken in together.
        let mut answers = Vec::new();
        let mut answered = None;
        while self.congested.is_empty()
            && let Some(event) = self.session.poll_event()
        {
            let next = match &event {
                WireEvent::Message {
                    channel,
                    message: Message::Data(_),
                } => Some(*channel),
                _ => None,
            };
            if next != answered || answers.len() == MAX_ANSWERS {
                self.handle_answers(answered, std::mem::take(&mut answers), now)?;
                answered = next;
            }
            match event {
                WireEvent::Opened { channel } => self.opened(channel),
                WireEvent::Message {
                    message: Message::Data(data),
                    ..
                } => answers.push(data),
                WireEvent::Message { channel, message } => {
                    self.handle_message(channel, message, now)?
                }
                WireEvent::Closed {
                    channel: Some(channel),
                    ..
                } => {
                    self.closed_by_remote(channel);
                }
                WireEvent::Handshake { remote_public_key } => {
                    self.options.authenticate(&remote_public_key)?;
                }
                WireEvent::Extension {
                    channel: Some(channel),
                    name,
                    payload,
                } => {
                    if let Some(Attachment { core, peer, .. }) = self.attachments.get(&channel) {
                        let core = core.lock();
                        let extensions = &core.replicator.extensions;
                        extensions.receive(&name, *peer, &payload);
                    }
                }
                WireEvent::RemoteOpened { discovery_key } => self.opened_by_remote(discovery_key),
                WireEvent::Closed {
                    channel: None,
                    discovery_key,
                } => {
                    self.awaited.remove(&discovery_key);
                }
                _ => {}
            }
        }
        self.handle_answers(answered, answers, now)
    }

    fn handle_answers(
        &mut self,
        channel: Option<ChannelId>,
        answers: Vec<Data>,
        now: Instant,
    ) -> Result<()> {
        let Some(channel) = channel else {
            return Ok(());
        };
        let Some(Attachment { core, peer, .. }) = self.attachments.get(&channel) else {
            return Ok(());
        };
        self.changed.insert(channel);
        receive_data(core, *peer, answers, now)
    }

    fn opened(&mut self, channel: ChannelId) {
        let remote_public_key = self.session.remote_public_key();
        let Some(Attachment { core, peer, .. }) = self.attachments.get(&channel) else {
            return;
        };
        self.changed.insert(channel);
        // The hook may ask the core for something: it is called without the lock.
        let key = core.lock().log.key();
        if !self.options.lets_in(key, remote_public_key) {
            self.session.close(channel);
            self.ended = self.ended.max(Ended::Refused);
            return self.detach(channel, CloseReason::NotAllowed, "the remote was refused");
        }
        let mut core = core.lock();
        let extensions = core
            .replicator
            .extensions
            .names(self.options.own_extensions);
        if let Some(state) = core.replicator.peer(*peer)
            && state.stage == Stage::Opening
        {
            state.remote_public_key = remote_public_key;
            state.open(extensions);
            core.events.emit(Event::PeerOpen { peer: *peer });
        }
        let Core {
            log, replicator, ..
        } = &mut *core;
        replicator.settle(log);
        replicator.note_opened(*peer);
    }

    /// The remote opened a core that was not open on our side then.
    fn opened_by_remote(&mut self, discovery_key: [u8; 32]) {
        let channel = self.session.find(&discovery_key);
        let is_open = channel.is_some_and(|channel| self.session.is_open(channel));
        if is_open || !self.session.is_remote_open(&discovery_key) {
            // Meanwhile it was added, or the remote has closed it again.
            return;
        }
        // On a discreet side it may be here. Who does not know the key hears what it hears of any other.
        match self.options.will_add(discovery_key.into()) {
            Some(true) => _ = self.awaited.insert(discovery_key),
            // It may be added later.
            None if self.options.live => {}
            // Nobody here has that core: let the remote know, so that it does not wait.
            _ => self.session.reject(&discovery_key),
        }
    }

    fn handle_message(&mut self, channel: ChannelId, message: Message, now: Instant) -> Result<()> {
        let Some(Attachment { core, peer, .. }) = self.attachments.get(&channel) else {
            return Ok(());
        };
        self.changed.insert(channel);
        let question = match message {
            Message::Request(request) => Question::Request(request),
            Message::Cancel(cancel) => Question::Cancel(cancel),
            Message::Want(want) => Question::Want(want),
            message => {
                let mut core = core.lock();
                let Core {
                    log,
                    replicator,
                    events,
                } = &mut *core;
                if let Some(event) = replicator.on_message(*peer, &message, log, now)? {
                    events.emit(event);
                }
                if replicator.peer(*peer).is_some_and(|it| it.is_congested()) {
                    self.congested.insert(channel);
                }
                return Ok(());
            }
        };
        if let Some(state) = core.lock().replicator.peer(*peer) {
            state.ask(question);
            if state.is_congested() {
                self.congested.insert(channel);
            }
        }
        Ok(())
    }

    // ---- ending -----------------------------------------------------------------------------

    fn closed_by_remote(&mut self, channel: ChannelId) {
        let Some(Attachment { core, peer, .. }) = self.attachments.get(&channel) else {
            return;
        };
        let ended = match core.lock().replicator.peer(*peer) {
            Some(peer) if peer.stage == Stage::Opening => Ended::Refused,
            Some(peer) if peer.options.live || peer.downloading => Ended::RemoteClosed,
            _ => Ended::Complete,
        };
        self.ended = self.ended.max(ended);
        self.detach(channel, ended.into(), "the peer closed it");
    }

    fn detach(&mut self, channel: ChannelId, code: CloseReason, reason: &str) {
        self.set_deadline(channel, None);
        self.congested.remove(&channel);
        let Some(Attachment {
            core: shared, peer, ..
        }) = self.attachments.remove(&channel)
        else {
            return;
        };
        let mut core = shared.lock();
        let Core {
            log, replicator, ..
        } = &mut *core;
        let stage = replicator.remove_peer(peer, log);
        if stage.is_some_and(|stage| stage != Stage::Opening) {
            core.events.emit(Event::PeerClose {
                peer,
                code,
                reason: reason.to_owned(),
            });
        }
        let unsynced = core.log.unsynced();
        drop(core);
        shared.checkpoint(unsynced);
    }

    /// The connection is over: lets go of all cores.
    pub(crate) fn end(&mut self, code: CloseReason, reason: &str) {
        if !self.failed {
            tracing::debug!(%code, "a connection ended: {reason}");
        }
        self.failed = true;
        if self.any_peer(Peer::owes_answers) {
            self.owed_answers.store(true, Ordering::Relaxed);
        }
        self.awaited.clear();
        self.options.drop_remote_open();
        let channels: Vec<_> = self.attachments.keys().copied().collect();
        for channel in channels {
            self.detach(channel, code, reason);
        }
    }

    /// The connection failed: lets go of all cores.
    pub(crate) fn fail(&mut self, error: &Error) {
        self.end(error.into(), &error.to_string());
    }
}

/// The connection is over.
pub(crate) fn not_connected() -> Error {
    Error::Transport(io::ErrorKind::NotConnected.into())
}
