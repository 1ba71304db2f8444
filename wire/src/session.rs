mod timers;

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use self::timers::{Rate, half};
use crate::budget::Share;
use crate::mux::MessageStream;
use crate::secure_stream::Received;
use crate::{ChannelId, Error, Limits, Message, Mux, Role, SecureStream, StaticKeyPair};

/// How a [`Session`] is to be.
#[derive(Debug)]
#[non_exhaustive]
pub struct SessionOptions {
    /// Which side we are.
    pub role: Role,
    /// Our static key pair.
    pub key_pair: StaticKeyPair,
    /// The nonce of our stream cipher. Must never be used for two connections.
    pub nonce: [u8; 24],
    /// Whether to make the Noise handshake. Counts only together with `encrypted: false`.
    pub noise: bool,
    /// Whether to encrypt what follows the handshake. Both sides must agree.
    pub encrypted: bool,
    /// The only remote to talk to, if set. An initiator refuses anybody else before it shows its own
    /// key; a responder has shown it by the time it learns the remote's.
    pub remote_public_key: Option<[u8; 32]>,
    /// Let the remote hear of our channels only once it has proved to know their keys; see
    /// [`Mux::discreet`].
    pub discreet: bool,
    /// The time without a received byte after which the session ends. After half of it without a
    /// sent byte a keep-alive goes out. `None` switches both off, and so does zero, as in
    /// hypercore-protocol.
    pub timeout: Option<Duration>,
    /// What the remote may make us keep and wait for.
    pub limits: Limits,
}

impl SessionOptions {
    /// The defaults of Hypercore 9, with a random key pair and nonce.
    ///
    /// # Errors
    /// [`Error::Random`] if the operating system gives no random bytes.
    pub fn new(role: Role) -> Result<Self, Error> {
        let mut nonce = [0; 24];
        getrandom::fill(&mut nonce).map_err(|_| Error::Random)?;
        Ok(Self::with_keys(role, StaticKeyPair::generate()?, nonce))
    }

    /// The defaults of Hypercore 9, with keys from elsewhere.
    #[must_use]
    pub fn with_keys(role: Role, key_pair: StaticKeyPair, nonce: [u8; 24]) -> Self {
        Self {
            role,
            key_pair,
            nonce,
            noise: true,
            encrypted: true,
            remote_public_key: None,
            discreet: false,
            timeout: Some(DEFAULT_TIMEOUT),
            limits: Limits::default(),
        }
    }
}

/// What happened on a [`Session`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// The handshake is over. Comes first, and not at all without Noise.
    Handshake {
        /// The remote's static key.
        remote_public_key: [u8; 32],
    },
    /// The remote opened a channel that we have not opened: answer with [`Session::open`] or
    /// [`Session::reject`].
    RemoteOpened {
        /// The discovery key of its log.
        discovery_key: [u8; 32],
    },
    /// Both sides opened the channel and the remote knows the key: it may be used.
    Opened {
        /// The channel.
        channel: ChannelId,
    },
    /// A message on an open channel.
    Message {
        /// The channel.
        channel: ChannelId,
        /// The message.
        message: Message,
    },
    /// The remote closed a channel. Does not follow our own [`Session::close`].
    Closed {
        /// The channel, if it was open on our side.
        channel: Option<ChannelId>,
        /// The discovery key of its log.
        discovery_key: [u8; 32],
    },
    /// The remote declared its extensions of the stream itself.
    StreamOptions {
        /// Their names.
        extensions: Vec<String>,
    },
    /// A message of an extension that both sides declared. Encrypted but not authenticated.
    Extension {
        /// The channel, or `None` for the stream itself.
        channel: Option<ChannelId>,
        /// The name of the extension.
        name: String,
        /// The message.
        payload: Bytes,
    },
}

/// A whole connection as a value: [`SecureStream`], [`Mux`] and their timers.
///
/// After any call that changes the session, poll events until there are none, then look at
/// [`Session::outgoing`] and [`Session::poll_timeout`]. The latter is due at once when bytes began to wait
/// in a call that did not tell the time, as sending does not. After the first fatal error every call
/// returns that error again.
#[derive(Debug)]
pub struct Session {
    stream: SecureStream,
    mux: Mux,
    handshake: Option<Event>,
    error: Option<Error>,
    finished: bool,
    /// The transport brings no more bytes.
    ended: bool,
    bytes_received: u64,
    bytes_sent: u64,
    limits: Arc<Limits>,
    timeout: Option<Duration>,
    /// The latest time we were told.
    now: Instant,
    handshake_deadline: Option<Instant>,
    idle_deadline: Option<Instant>,
    keep_alive_at: Option<Instant>,
    /// When the first byte of the unfinished frame came.
    frame_started: Option<Instant>,
    /// Since when bytes wait of which the remote takes none. What is sent is sent without the time: the
    /// next call that tells it begins the wait.
    blocked_since: Option<Instant>,
    /// Whether we did not read when we last looked, because memory was short.
    waits: bool,
    /// When we last did not read because of that, or began to read again, and the bytes received by then.
    unread: Option<(Instant, u64)>,
    keep_alives: Rate,
    unmatched: Rate,
    /// Our part of [`Limits::receive_budget`].
    received_share: Share,
    /// Our part of [`Limits::budget`].
    share: Share,
}

impl Session {
    /// A session over a transport that has carried nothing yet.
    ///
    /// # Errors
    /// [`Error::Random`] if there are no random bytes for the handshake.
    pub fn new(options: SessionOptions, now: Instant) -> Result<Self, Error> {
        Self::build(options, now, None)
    }

    /// A session whose ephemeral key is known, to repeat a recorded handshake. For tests only: such a
    /// key has to be new for each connection, and nobody else may know it.
    ///
    /// # Errors
    /// As [`Session::new`].
    #[cfg(any(test, feature = "testing"))]
    pub fn with_fixed_ephemeral_for_testing_only(
        options: SessionOptions,
        now: Instant,
        ephemeral: &[u8; 32],
    ) -> Result<Self, Error> {
        Self::build(options, now, Some(ephemeral))
    }

    fn build(
        options: SessionOptions,
        now: Instant,
        ephemeral: Option<&[u8; 32]>,
    ) -> Result<Self, Error> {
        let timeout = options.timeout.filter(|timeout| !timeout.is_zero());
        let mut stream = SecureStream::with_ephemeral(&options, ephemeral)?;
        let limits = Arc::clone(stream.limits());
        let mut mux = Mux::new(Arc::clone(&limits));
        if options.discreet {
            mux = mux.discreet();
        }
        let mut handshake_deadline = None;
        if stream.is_handshaken() {
            mux.start(&mut stream)?;
        } else {
            handshake_deadline = now.checked_add(limits.handshake_duration);
        }
        let blocked_since = (!stream.outgoing().is_empty()).then_some(now);
        Ok(Self {
            stream,
            mux,
            handshake: None,
            error: None,
            finished: false,
            ended: false,
            bytes_received: 0,
            bytes_sent: 0,
            timeout,
            now,
            handshake_deadline,
            idle_deadline: timeout.and_then(|timeout| now.checked_add(timeout)),
            keep_alive_at: timeout.and_then(|timeout| now.checked_add(half(timeout))),
            frame_started: None,
            blocked_since,
            waits: false,
            unread: None,
            keep_alives: Rate::new(limits.keep_alives, KEEP_ALIVE_WINDOW, now),
            unmatched: Rate::new(limits.unmatched_opens, UNMATCHED_WINDOW, now),
            received_share: Share::of(&limits.receive_budget),
            share: Share::of(&limits.budget),
            limits,
        })
    }

    /// Free space to read the transport into, never empty: then call [`Session::received`], and nothing else
    /// before, as other calls may give the space back. It is small at first and grows with the reads.
    pub fn receive_buffer(&mut self) -> &mut [u8] {
        if self.received_share.is_short() {
            self.stream.short_receive_buffer()
        } else {
            self.stream.receive_buffer()
        }
    }

    /// `n` bytes were read into the start of [`Session::receive_buffer`].
    ///
    /// # Errors
    /// If the remote broke the protocol; events of before the mistake can still be polled. And
    /// [`Error::EventsNotPolled`], which ends the session like any other.
    pub fn received(&mut self, now: Instant, n: usize) -> Result<(), Error> {
        self.check()?;
        self.now = now;
        self.bytes_received = self.bytes_received.saturating_add(n as u64);
        if n > 0 {
            self.idle_deadline = self.timeout.and_then(|timeout| now.checked_add(timeout));
        }
        let result = self.stream.received(n).and_then(|()| self.advance());
        self.account();
        self.begin_wait();
        let result = result.and_then(|()| self.check_memory());
        self.keep_error(result)
    }

    /// Strangers are given up first.
    fn check_memory(&self) -> Result<(), Error> {
        let is_short = self.received_share.is_short();
        if is_short && !self.mux.has_verified() && self.frame_started.is_some() {
            return Err(Error::MemoryShort);
        }
        Ok(())
    }

    /// Whether more may be read from the transport. While memory is short
    /// ([`Limits::receive_budget`]) it may not, until [`Session::handle_timeout`] finds that it is this
    /// session's turn; [`Session::poll_timeout`] tells when to call that.
    #[must_use]
    pub fn may_receive(&self) -> bool {
        !self.received_share.must_wait()
    }

    /// Whether the remote's requests may be answered. While memory is short ([`Limits::budget`]) and
    /// this remote holds much of it, let it first take what waits for it; [`Session::poll_timeout`] tells
    /// when to ask again.
    #[must_use]
    pub fn may_answer(&self) -> bool {
        !self.share.is_over()
    }

    /// Takes received bytes by copying them; [`Session::receive_buffer`] avoids the copy.
    ///
    /// No events can be polled meanwhile: give it no more than [`Limits::read`] bytes at once, and poll
    /// all events before the next.
    ///
    /// # Errors
    /// As [`Session::received`].
    pub fn receive(&mut self, now: Instant, mut bytes: &[u8]) -> Result<(), Error> {
        while !bytes.is_empty() {
            let buffer = self.receive_buffer();
            let (chunk, rest) = bytes.split_at(bytes.len().min(buffer.len()));
            let (taken, _) = buffer.split_at_mut(chunk.len());
            taken.copy_from_slice(chunk);
            self.received(now, chunk.len())?;
            bytes = rest;
        }
        self.check()
    }

    /// The transport will bring no more bytes. What it brought before can still be polled.
    ///
    /// # Errors
    /// [`Error::UnexpectedEnd`] inside the handshake or a frame. While whole frames wait to be polled
    /// nobody can tell yet: then it comes after them, as an invalid frame does.
    pub fn received_end(&mut self) -> Result<(), Error> {
        self.check()?;
        self.ended = true;
        let result = self.advance();
        self.account();
        self.keep_error(result)
    }

    /// The next event.
    ///
    /// Frames are decoded only as events are polled. If one is invalid, this returns `None`,
    /// [`Session::poll_timeout`] is due at once and [`Session::handle_timeout`] returns the error.
    pub fn poll_event(&mut self) -> Option<Event> {
        if let Some(handshake) = self.handshake.take() {
            return Some(handshake);
        }
        if self.mux.queued_events() == 0 && self.error.is_none() {
            let result = self.advance();
            let _ = self.keep_error(result);
        }
        let event = self.mux.poll_event();
        self.account();
        event
    }

    /// The bytes ready for the transport; then call [`Session::sent`].
    #[must_use]
    pub fn outgoing(&self) -> &[u8] {
        self.stream.outgoing()
    }

    /// The transport took the first `n` bytes of [`Session::outgoing`], all of them if `n` is more.
    pub fn sent(&mut self, now: Instant, n: usize) {
        self.now = now;
        let n = n.min(self.outgoing().len());
        if n > 0 {
            self.bytes_sent = self.bytes_sent.saturating_add(n as u64);
            self.stream.sent(n);
            self.stream.keep_outbox(self.kept_outbox());
            self.blocked_since = None;
            self.account();
            self.begin_wait();
            if !self.finished {
                self.keep_alive_at = self
                    .timeout
                    .and_then(|timeout| now.checked_add(half(timeout)));
            }
        }
    }

    /// The bytes waiting to be sent. Serve the remote only while this is small.
    #[must_use]
    pub fn buffered(&self) -> usize {
        self.stream.buffered().saturating_add(self.mux.buffered())
    }

    /// Opens the channel of a log, or returns it if it is open. Wait for [`Event::Opened`] before
    /// sending what only those who know the key may see.
    ///
    /// # Errors
    /// [`Error::InvalidCapability`] if the remote opened it first without proving that it knows the
    /// key; its channel is then rejected and the session goes on. [`Error::TooManyChannels`],
    /// [`Error::NoChannelNumber`], and [`Error::SendBufferFull`] when the remote does not keep up: then nothing was opened.
    pub fn open(&mut self, key: &[u8; 32]) -> Result<ChannelId, Error> {
        self.check_writable()?;
        let result = self.mux.open(&mut self.stream, key);
        self.relax();
        self.account();
        result
    }

    /// Closes a channel. Messages of it that are still polled are of no more use.
    pub fn close(&mut self, channel: ChannelId) {
        if self.check_writable().is_ok() {
            let result = self.mux.close(&mut self.stream, channel);
            self.account();
            let _ = self.keep_error(result);
        }
    }

    /// Tells the remote that we do not open the channel it opened.
    pub fn reject(&mut self, discovery_key: &[u8; 32]) {
        if self.check_writable().is_ok() {
            let result = self.mux.reject(&mut self.stream, discovery_key);
            self.account();
            let _ = self.keep_error(result);
        }
    }

    /// Sends a message; before the end of the handshake it waits. Options also declare the
    /// extensions of the channel, unless they fail.
    ///
    /// What comes before the remote has opened the channel is lost without a sign, and with Options so are
    /// the messages of the extensions that they declare. Whoever cannot know waits for [`Event::Opened`].
    ///
    /// # Errors
    /// [`Error::ChannelNotOpen`] (also when the remote just closed it), [`Error::MessageTooLarge`],
    /// [`Error::TooManyExtensions`], and [`Error::SendBufferFull`] when the remote does not keep
    /// up. The session goes on after these.
    pub fn send(&mut self, channel: ChannelId, message: &Message) -> Result<(), Error> {
        self.check_writable()?;
        self.mux.send(&mut self.stream, channel, message)?;
        self.account();
        Ok(())
    }

    /// Declares the extensions of the stream itself. The remote hears of it with the first message.
    ///
    /// # Errors
    /// [`Error::TooManyExtensions`].
    pub fn declare_extensions(&mut self, names: Vec<String>) -> Result<(), Error> {
        self.check_writable()?;
        self.mux.declare_extensions(names)
    }

    /// Takes messages of these extensions from now on, although the remote hears of them only with
    /// the Options that are to follow. So none is lost that comes together with the remote's Open.
    ///
    /// # Errors
    /// [`Error::TooManyExtensions`], [`Error::ChannelNotOpen`].
    pub fn expect_extensions(
        &mut self,
        channel: ChannelId,
        names: Vec<String>,
    ) -> Result<(), Error> {
        self.check_writable()?;
        self.mux.expect_extensions(channel, names)
    }

    /// Sends a message of an extension, on a channel or (`None`) on the stream itself.
    ///
    /// As with [`Session::send`], what comes before the remote has opened the channel is lost.
    ///
    /// # Errors
    /// [`Error::UnknownExtension`] before it was declared, and as [`Session::send`].
    pub fn send_extension(
        &mut self,
        channel: Option<ChannelId>,
        name: &str,
        payload: Bytes,
    ) -> Result<(), Error> {
        self.check_writable()?;
        self.mux
            .send_extension(&mut self.stream, channel, name, payload)?;
        self.account();
        Ok(())
    }

    /// The extensions the remote declared, on a channel or (`None`) on the stream itself.
    #[must_use]
    pub fn remote_extensions(&self, channel: Option<ChannelId>) -> &[String] {
        self.mux.remote_extensions(channel)
    }

    /// How many channels exist, opened by either side.
    #[must_use]
    pub fn channels(&self) -> usize {
        self.mux.channels()
    }

    /// How many channels we closed that the remote has not closed yet: with none of either, all is
    /// said.
    #[must_use]
    pub fn closing(&self) -> usize {
        self.mux.closing()
    }

    /// Whether both sides opened the channel, so that it may be used.
    #[must_use]
    pub fn is_open(&self, channel: ChannelId) -> bool {
        self.mux.is_open(channel)
    }

    /// Whether the remote opened the channel of this log.
    #[must_use]
    pub fn is_remote_open(&self, discovery_key: &[u8; 32]) -> bool {
        self.mux.is_remote_open(discovery_key)
    }

    /// Whether the remote opened the channel of this log and proved to know its key.
    #[must_use]
    pub fn remote_verified(&self, key: &[u8; 32]) -> bool {
        self.mux.remote_verified(&self.stream, key)
    }

    /// The channel we opened for a log.
    #[must_use]
    pub fn find(&self, discovery_key: &[u8; 32]) -> Option<ChannelId> {
        self.mux.find(discovery_key)
    }

    /// The discovery key of a channel that is open on our side.
    #[must_use]
    pub fn discovery_key(&self, channel: ChannelId) -> Option<[u8; 32]> {
        self.mux.discovery_key(channel)
    }

    /// Ends our side: nothing more is accepted for sending. Once [`Session::is_finished`], the
    /// transport can be closed for writing.
    pub fn finish(&mut self) {
        self.finished = true;
        self.keep_alive_at = None;
        if self.is_handshaken() {
            self.stream.finish();
        }
    }

    /// Whether our side has ended and all its bytes are sent.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.finished && self.buffered() == 0
    }

    /// Which side we are.
    #[must_use]
    pub fn role(&self) -> Role {
        self.stream.role()
    }

    /// Whether the handshake is over, or there is none.
    #[must_use]
    pub fn is_handshaken(&self) -> bool {
        self.stream.is_handshaken()
    }

    /// The remote's static key, once the handshake is over.
    #[must_use]
    pub fn remote_public_key(&self) -> Option<[u8; 32]> {
        self.stream.remote_public_key()
    }

    /// The hash that names this connection, once the handshake is over: equal on both sides.
    #[must_use]
    pub fn handshake_hash(&self) -> Option<[u8; 64]> {
        self.stream.handshake_hash()
    }

    /// When the frame began of which a part has come, if there is one.
    #[must_use]
    pub fn receiving_since(&self) -> Option<Instant> {
        self.frame_started
    }

    /// The bytes received so far.
    #[must_use]
    pub fn bytes_received(&self) -> u64 {
        self.bytes_received
    }

    /// The bytes sent so far.
    #[must_use]
    pub fn bytes_sent(&self) -> u64 {
        self.bytes_sent
    }

    /// The error that ended the session.
    #[must_use]
    pub fn error(&self) -> Option<&Error> {
        self.error.as_ref()
    }

    /// Decodes frames until some events wait.
    fn advance(&mut self) -> Result<(), Error> {
        while self.mux.queued_events() < EVENTS_AHEAD
            && self.mux.queued_bytes() <= self.limits.frame
        {
            let Some(received) = self.stream.poll()? else {
                let handshaken = self.is_handshaken();
                let unfinished = handshaken && self.stream.unfinished() > 0;
                if self.ended && (unfinished || !handshaken) {
                    return Err(Error::UnexpectedEnd);
                }
                self.frame_started = unfinished.then(|| self.frame_started.unwrap_or(self.now));
                break;
            };
            match received {
                Received::Handshake { remote_public_key } => {
                    self.handshake = Some(Event::Handshake { remote_public_key });
                    self.handshake_deadline = None;
                    self.mux.start(&mut self.stream)?;
                    if self.finished {
                        self.stream.finish();
                    }
                }
                Received::KeepAlive => {
                    let (max, window) = (self.keep_alives.max, self.keep_alives.window);
                    if !self.keep_alives.allows(self.now) {
                        return Err(Error::TooManyKeepAlives { max, window });
                    }
                }
                Received::Frame(frame) => {
                    let unmatched = self.mux.unmatched_opens();
                    self.mux.receive(&mut self.stream, frame)?;
                    self.relax();
                    let (max, window) = (self.unmatched.max, self.unmatched.window);
                    if self.mux.unmatched_opens() > unmatched && !self.unmatched.allows(self.now) {
                        return Err(Error::TooManyUnmatchedOpens { max, window });
                    }
                }
            }
            self.frame_started = None;
            // The others get theirs.
            self.received_share.pass_turn();
        }
        Ok(())
    }

    /// Long frames are for those who know the key of a log.
    fn relax(&mut self) {
        if self.mux.has_verified() {
            self.stream.trust();
        }
    }

    /// Says what we hold.
    fn account(&mut self) {
        let received = self.stream.received_memory(self.mux.queued_bytes());
        self.received_share.hold(received);
        let outgoing = self.stream.outbox_memory();
        let outgoing = outgoing.saturating_add(self.mux.buffered());
        self.share.hold(received.saturating_add(outgoing));
    }

    /// How large a send buffer is kept for what will be sent: all connections together could keep as much.
    fn kept_outbox(&self) -> usize {
        if self.share.is_short() {
            0
        } else {
            self.share.part() / 4
        }
    }

    /// Bytes that were queued since the last call that told the time begin to wait now.
    fn begin_wait(&mut self) {
        if self.is_wait_unnoticed() {
            self.blocked_since = Some(self.now);
        }
    }

    fn is_wait_unnoticed(&self) -> bool {
        self.blocked_since.is_none() && !self.stream.outgoing().is_empty()
    }

    fn check(&self) -> Result<(), Error> {
        self.error.clone().map_or(Ok(()), Err)
    }

    fn check_writable(&self) -> Result<(), Error> {
        self.check()?;
        if self.finished {
            Err(Error::NotReady)
        } else {
            Ok(())
        }
    }

    fn keep_error(&mut self, result: Result<(), Error>) -> Result<(), Error> {
        if let Err(error) = &result {
            self.error = Some(error.clone());
            self.received_share.pass_turn();
        }
        result
    }
}

/// hypercore-protocol's `timeout`.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(20);

/// The time in which [`Limits::keep_alives`] are counted.
pub const KEEP_ALIVE_WINDOW: Duration = Duration::from_secs(10);

/// The time in which [`Limits::unmatched_opens`] are counted.
pub const UNMATCHED_WINDOW: Duration = Duration::from_secs(60);

/// How many events are decoded before they are polled: fewer, if their frames have more than
/// [`Limits::frame`] bytes together.
const EVENTS_AHEAD: usize = 64;
