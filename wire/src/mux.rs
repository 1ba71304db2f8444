mod events;
mod receive;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use self::events::Events;
use crate::extension::Extensions;
use crate::key::{Hex, equal};
use crate::message::BodyRef;
use crate::{
    Close, Direction, Error, Event, Extension, Limits, Message, Open, Options, discovery_key,
};

/// An ordered stream of whole messages between two peers, as [`SecureStream`](crate::SecureStream)
/// makes one from bytes.
///
/// A connection that is encrypted already can carry a [`Mux`] by implementing this.
pub trait MessageStream {
    /// The static key of the remote.
    fn remote_public_key(&self) -> Option<[u8; 32]>;

    /// The hash that names this connection, equal on both sides.
    fn handshake_hash(&self) -> Option<[u8; 64]>;

    /// The proof that its sender knows `key`, bound to this connection. `None` if the stream cannot
    /// bind anything: then capabilities are neither sent nor checked.
    fn capability(&self, key: &[u8; 32], direction: Direction) -> Option<[u8; 32]>;

    /// The bytes waiting to be sent.
    fn buffered(&self) -> usize;

    /// Queues a message of `length` bytes, which `encode` appends.
    ///
    /// # Errors
    /// If nothing can be sent, now or any more.
    fn send(&mut self, length: usize, encode: &mut dyn FnMut(&mut BytesMut)) -> Result<(), Error>;
}

/// One side's name for a channel, good for one [`Session`](crate::Session) only.
///
/// Never reused: a channel opened again has a new one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChannelId(u32);

impl ChannelId {
    /// The number of the channel in the frames we send.
    #[must_use]
    pub fn number(self) -> u32 {
        self.0
    }
}

impl fmt::Display for ChannelId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Messages to events and back: channels, capabilities, extensions (hypercore-protocol
/// `Channelizer`).
///
/// Each side numbers the channels it opens; both numbers meet in the discovery key:
///
/// ```text
///               our Open                        their Open
/// (none) ------------------> local      (none) -------------> remote: RemoteOpened
///   local  --- their Open, capability right ---> Opened
///   remote --- our Open, capability right -----> Opened
///   any    --- a Close of either side ---------> (none)
/// ```
///
/// A [discreet](Mux::discreet) one keeps what it opens to itself until their Open with the right
/// capability comes; to any other Open it answers as if the log were not here.
///
/// Every call that may send takes the [`MessageStream`] to send on. Until [`Mux::start`] what is
/// sent waits here, because capabilities need the handshake.
pub struct Mux {
    /// By discovery key.
    channels: BTreeMap<[u8; 32], Channel>,
    /// Channels we opened and the remote does not know of, by discovery key.
    reserved: BTreeMap<[u8; 32], Channel>,
    discreet: bool,
    /// From our numbers to discovery keys.
    local: BTreeMap<u32, [u8; 32]>,
    /// From the remote's numbers to discovery keys.
    remote: BTreeMap<u32, [u8; 32]>,
    /// The remote's numbers of channels that we closed and it has not closed yet.
    closing: BTreeSet<u32>,
    /// Discovery keys of channels that only the remote opened, oldest first.
    unmatched: VecDeque<[u8; 32]>,
    /// How many channels the remote opened first, ever.
    unmatched_opens: u64,
    /// The logs of channels that were open on our side alone, oldest first, until something is verified. The
    /// remote may have answered our Open before it heard of the end, and then takes itself for verified.
    withdrawn: Vec<Withdrawn>,
    next_local: u32,
    /// Whether the remote has shown that it knows the key of a log of ours: it may send long frames.
    verified: bool,
    /// Whether both sides have opened a channel: then it takes us for verified, too.
    matched: bool,
    extensions: Extensions,
    /// Whether the remote knows the extensions of the stream.
    extensions_sent: bool,
    pending: Option<Pending>,
    events: Events,
    limits: Arc<Limits>,
}

/// One log on the stream.
#[derive(Default)]
struct Channel {
    local: Option<Local>,
    remote: Option<Remote>,
    extensions: Extensions,
}

struct Local {
    id: ChannelId,
    key: [u8; 32],
}

struct Withdrawn {
    discovery_key: [u8; 32],
    key: [u8; 32],
}

struct Remote {
    number: u32,
    capability: Option<[u8; 32]>,
}

/// Frames waiting for the start.
#[derive(Default)]
struct Pending {
    frames: Vec<PendingFrame>,
    length: usize,
}

enum PendingFrame {
    /// The capability is computed when it is sent.
    Open {
        number: u32,
        key: [u8; 32],
    },
    Encoded(BytesMut),
}

impl Mux {
    /// A stream without channels.
    #[must_use]
    pub fn new(limits: impl Into<Arc<Limits>>) -> Self {
        Self {
            channels: BTreeMap::new(),
            reserved: BTreeMap::new(),
            discreet: false,
            local: BTreeMap::new(),
            remote: BTreeMap::new(),
            closing: BTreeSet::new(),
            unmatched: VecDeque::new(),
            unmatched_opens: 0,
            withdrawn: Vec::new(),
            next_local: 1,
            verified: false,
            matched: false,
            extensions: Extensions::default(),
            extensions_sent: true,
            pending: Some(Pending::default()),
            events: Events::default(),
            limits: limits.into(),
        }
    }

    /// From now on the remote hears of our channels only once it has proved to know their keys, so
    /// that a stranger does not learn which logs are here. Two discreet sides would wait for each
    /// other.
    #[must_use]
    pub fn discreet(mut self) -> Self {
        self.discreet = true;
        self
    }

    /// The stream is ready: sends what waited, with the capabilities of this connection.
    ///
    /// # Errors
    /// If the stream refuses a message.
    pub fn start<S: MessageStream + ?Sized>(&mut self, stream: &mut S) -> Result<(), Error> {
        for frame in self.pending.take().unwrap_or_default().frames {
            match frame {
                PendingFrame::Open { number, key } => self.send_open(stream, number, &key)?,
                PendingFrame::Encoded(bytes) => {
                    stream.send(bytes.len(), &mut |out| out.extend_from_slice(&bytes))?;
                }
            }
        }
        Ok(())
    }

    /// Opens the channel of a log, or returns it if it is open.
    ///
    /// # Errors
    /// [`Error::InvalidCapability`] if the remote opened it first without proving that it knows the
    /// key; its channel is then rejected and the stream goes on. [`Error::TooManyChannels`],
    /// [`Error::NoChannelNumber`], and [`Error::SendBufferFull`] when the remote does not keep up: then nothing was opened.
    pub fn open<S: MessageStream + ?Sized>(
        &mut self,
        stream: &mut S,
        key: &[u8; 32],
    ) -> Result<ChannelId, Error> {
        let discovery_key = discovery_key(key);
        if let Some(id) = self.find(&discovery_key) {
            return Ok(id);
        }
        if self.local.len() >= self.limits.channels {
            return Err(Error::TooManyChannels {
                max: self.limits.channels,
            });
        }
        let channel = self.channels.get(&discovery_key);
        let remote = channel.and_then(|channel| channel.remote.as_ref());
        let opened = remote.is_some();
        let capable = remote.is_some_and(|remote| is_capable(stream, key, remote));
        if opened && !capable && !self.discreet {
            self.reject(stream, &discovery_key)?;
            return Err(Error::InvalidCapability);
        }
        let number = self.allocate()?;
        let id = ChannelId(number);
        let local = Some(Local { id, key: *key });
        if self.discreet && !capable {
            self.local.insert(number, discovery_key);
            self.reserved.entry(discovery_key).or_default().local = local;
            return Ok(id);
        }
        self.send_open(stream, number, key)?;
        self.local.insert(number, discovery_key);
        self.channels.entry(discovery_key).or_default().local = local;
        if opened {
            self.unmatched
                .retain(|unmatched| *unmatched != discovery_key);
            self.opened(id);
        }
        Ok(id)
    }

    /// Closes a channel. Messages of it that are still polled are of no more use.
    ///
    /// # Errors
    /// If the stream refuses the message. Closing a closed channel does nothing.
    pub fn close<S: MessageStream + ?Sized>(
        &mut self,
        stream: &mut S,
        channel: ChannelId,
    ) -> Result<(), Error> {
        let Some(discovery_key) = self.local.get(&channel.0).copied() else {
            return Ok(());
        };
        if self.reserved.remove(&discovery_key).is_some() {
            self.local.remove(&channel.0);
            return Ok(());
        }
        let forgotten = self.forget(&discovery_key).unwrap_or_default();
        self.remember(forgotten.local.as_ref(), discovery_key);
        if let Some(remote) = forgotten.remote
            && self.closing.len() < self.limits.channels
        {
            self.closing.insert(remote.number);
        }
        self.transmit(stream, channel.0, BodyRef::Close(&Close::default()))
    }

    /// Tells the remote that we do not open the channel it opened.
    ///
    /// # Errors
    /// If the stream refuses the message.
    pub fn reject<S: MessageStream + ?Sized>(
        &mut self,
        stream: &mut S,
        discovery_key: &[u8; 32],
    ) -> Result<(), Error> {
        let local = self
            .channels
            .get(discovery_key)
            .and_then(|channel| channel.local.as_ref());
        if let Some(id) = local.map(|local| local.id) {
            return self.close(stream, id);
        }
        let number = self.allocate()?;
        let close = Close {
            discovery_key: Some(*discovery_key),
        };
        self.transmit(stream, number, BodyRef::Close(&close))
    }

    /// Sends a message. Options also declare the extensions of the channel, unless they fail.
    ///
    /// What comes before the remote has opened the channel is lost without a sign, and with Options so are
    /// the messages of the extensions that they declare. Whoever cannot know waits for [`Event::Opened`].
    ///
    /// # Errors
    /// [`Error::ChannelNotOpen`], [`Error::TooManyExtensions`], [`Error::MessageTooLarge`] (also for more than
    /// [`Limits::unverified_frame`] bytes before the remote has opened a channel of ours), and
    /// [`Error::SendBufferFull`] when the remote does not keep up.
    pub fn send<S: MessageStream + ?Sized>(
        &mut self,
        stream: &mut S,
        channel: ChannelId,
        message: &Message,
    ) -> Result<(), Error> {
        if let Message::Options(options) = message
            && self.is_announced(channel)
        {
            let extensions = Extensions::sorted(options.extensions.clone(), &self.limits)?;
            let sorted = Message::Options(Options {
                extensions: extensions.clone(),
                ack: options.ack,
            });
            self.transmit(stream, channel.0, BodyRef::Message(&sorted))?;
            // Numbers that the remote did not hear of would mean others to it.
            self.extensions_mut(Some(channel))?.declare(extensions);
            return Ok(());
        }
        if !self.is_announced(channel) {
            return Err(Error::ChannelNotOpen { channel });
        }
        self.transmit(stream, channel.0, BodyRef::Message(message))
    }

    /// Declares the extensions of the stream itself. The remote hears of it with the first message.
    ///
    /// # Errors
    /// [`Error::TooManyExtensions`].
    pub fn declare_extensions(&mut self, names: Vec<String>) -> Result<(), Error> {
        self.extensions
            .declare(Extensions::sorted(names, &self.limits)?);
        self.extensions_sent = false;
        Ok(())
    }

    /// Takes messages of these extensions from now on, although the remote hears of them only with
    /// the Options that are to follow, and none is [sent](Self::send_extension) before. So none is lost
    /// that comes together with the remote's Open.
    ///
    /// # Errors
    /// [`Error::TooManyExtensions`], [`Error::ChannelNotOpen`].
    pub fn expect_extensions(
        &mut self,
        channel: ChannelId,
        names: Vec<String>,
    ) -> Result<(), Error> {
        let extensions = Extensions::sorted(names, &self.limits)?;
        self.extensions_mut(Some(channel))?.expect(extensions);
        Ok(())
    }

    /// Sends a message of an extension, on a channel or (`None`) on the stream itself.
    ///
    /// As with [`Mux::send`], what comes before the remote has opened the channel is lost.
    ///
    /// # Errors
    /// [`Error::UnknownExtension`] before it was declared, and as [`Mux::send`].
    pub fn send_extension<S: MessageStream + ?Sized>(
        &mut self,
        stream: &mut S,
        channel: Option<ChannelId>,
        name: &str,
        payload: Bytes,
    ) -> Result<(), Error> {
        if let Some(channel) = channel.filter(|channel| !self.is_announced(*channel)) {
            return Err(Error::ChannelNotOpen { channel });
        }
        let id = self.extensions(channel)?.id(name)?;
        if channel.is_none() && !self.extensions_sent {
            let extensions = self.extensions.local().to_vec();
            let options = Message::Options(Options {
                extensions,
                ack: false,
            });
            self.transmit(stream, STREAM, BodyRef::Message(&options))?;
            self.extensions_sent = true;
        }
        let number = channel.map_or(STREAM, ChannelId::number);
        let message = Message::Extension(Extension { id, payload });
        self.transmit(stream, number, BodyRef::Message(&message))
    }

    /// The extensions the remote declared, on a channel or (`None`) on the stream itself.
    #[must_use]
    pub fn remote_extensions(&self, channel: Option<ChannelId>) -> &[String] {
        self.extensions(channel).map_or(&[], Extensions::remote)
    }

    /// The next event.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// The number of events waiting.
    #[must_use]
    pub fn queued_events(&self) -> usize {
        self.events.len()
    }

    /// The bytes of the frames that the events waiting keep in memory.
    #[must_use]
    pub fn queued_bytes(&self) -> usize {
        self.events.bytes()
    }

    /// How many channels exist, opened by either side.
    #[must_use]
    pub fn channels(&self) -> usize {
        self.channels.len().saturating_add(self.reserved.len())
    }

    /// How many channels we closed that the remote has not closed yet: it is still to answer.
    #[must_use]
    pub fn closing(&self) -> usize {
        self.closing.len()
    }

    /// Whether both sides opened the channel, so that it may be used.
    #[must_use]
    pub fn is_open(&self, channel: ChannelId) -> bool {
        self.channel(channel)
            .is_some_and(|channel| channel.remote.is_some())
    }

    /// Whether the remote opened the channel of this log.
    #[must_use]
    pub fn is_remote_open(&self, discovery_key: &[u8; 32]) -> bool {
        self.channels
            .get(discovery_key)
            .is_some_and(|channel| channel.remote.is_some())
    }

    /// Whether the remote opened the channel of this log and proved to know its key.
    #[must_use]
    pub fn remote_verified<S: MessageStream + ?Sized>(&self, stream: &S, key: &[u8; 32]) -> bool {
        let channel = self.channels.get(&discovery_key(key));
        let remote = channel.and_then(|channel| channel.remote.as_ref());
        remote.is_some_and(|remote| is_capable(stream, key, remote))
    }

    /// The channel we opened for a log.
    #[must_use]
    pub fn find(&self, discovery_key: &[u8; 32]) -> Option<ChannelId> {
        let local = |channel: &Channel| channel.local.as_ref().map(|local| local.id);
        let reserved = self.reserved.get(discovery_key);
        reserved
            .and_then(local)
            .or_else(|| self.channels.get(discovery_key).and_then(local))
    }

    /// The discovery key of a channel that is open on our side.
    #[must_use]
    pub fn discovery_key(&self, channel: ChannelId) -> Option<[u8; 32]> {
        self.local.get(&channel.0).copied()
    }

    /// Whether the remote has shown that it knows the key of a log that is or was open here.
    #[must_use]
    pub fn has_verified(&self) -> bool {
        self.verified
    }

    /// How many channels the remote opened before us, to limit how often it does.
    #[must_use]
    pub fn unmatched_opens(&self) -> u64 {
        self.unmatched_opens
    }

    /// The bytes waiting for [`Mux::start`].
    #[must_use]
    pub fn buffered(&self) -> usize {
        self.pending.as_ref().map_or(0, |pending| pending.length)
    }

    fn send_open<S: MessageStream + ?Sized>(
        &mut self,
        stream: &mut S,
        number: u32,
        key: &[u8; 32],
    ) -> Result<(), Error> {
        if let Some(pending) = &mut self.pending {
            pending.length = pending.length.saturating_add(OPEN_LENGTH);
            pending
                .frames
                .push(PendingFrame::Open { number, key: *key });
            return Ok(());
        }
        let capability = stream.capability(key, Direction::Send);
        let open = Open {
            discovery_key: discovery_key(key),
            capability,
        };
        self.transmit(stream, number, BodyRef::Open(&open))
    }

    fn transmit<S: MessageStream + ?Sized>(
        &mut self,
        stream: &mut S,
        number: u32,
        body: BodyRef<'_>,
    ) -> Result<(), Error> {
        // Only a remote that has opened a channel of ours takes long frames. One that has not may be about to: then it
        // would take this for an offence.
        let max = if self.matched {
            self.limits.frame
        } else {
            self.limits.frame.min(self.limits.unverified_frame)
        };
        if let BodyRef::Message(Message::Extension(Extension { payload, .. })) = body
            && payload.len() > self.limits.extension_message
        {
            return Err(Error::MessageTooLarge {
                length: payload.len(),
                max: self.limits.extension_message,
            });
        }
        let length = body.body_length();
        if length > max {
            return Err(Error::MessageTooLarge { length, max });
        }
        let buffered = stream.buffered().saturating_add(self.buffered());
        let max = self.limits.send_buffer;
        // Opens and Closes keep a little room of their own, so that a slow remote costs a refused
        // message and not the session. It begins where the longest message may end that was let in.
        let room = if matches!(body, BodyRef::Message(_)) {
            0
        } else {
            CONTROL_ROOM.saturating_add(self.limits.frame)
        };
        if buffered > max.saturating_add(room) {
            return Err(Error::SendBufferFull { buffered, max });
        }
        let length = body.header_length(number).saturating_add(length);
        match &mut self.pending {
            Some(pending) => {
                let mut bytes = BytesMut::with_capacity(length);
                body.encode(number, &mut bytes);
                pending.length = pending.length.saturating_add(length);
                pending.frames.push(PendingFrame::Encoded(bytes));
                Ok(())
            }
            None => stream.send(length, &mut |out| body.encode(number, out)),
        }
    }

    fn allocate(&mut self) -> Result<u32, Error> {
        let max = self.limits.channel_number;
        if self.next_local > max {
            return Err(Error::NoChannelNumber { max });
        }
        let number = self.next_local;
        self.next_local = number.saturating_add(1);
        Ok(number)
    }

    /// Whether we opened the channel and the remote may know of it.
    fn is_announced(&self, channel: ChannelId) -> bool {
        let key = self.local.get(&channel.0);
        key.is_some_and(|key| !self.reserved.contains_key(key))
    }

    /// Removes every trace of a channel.
    fn forget(&mut self, discovery_key: &[u8; 32]) -> Option<Channel> {
        let channel = self.channels.remove(discovery_key)?;
        match &channel.local {
            Some(local) => _ = self.local.remove(&local.id.0),
            None => self
                .unmatched
                .retain(|unmatched| unmatched != discovery_key),
        }
        if let Some(remote) = &channel.remote {
            self.remote.remove(&remote.number);
        }
        Some(channel)
    }

    /// Whoever has answered the Open of a channel that is closed here knows its key.
    fn remember(&mut self, local: Option<&Local>, discovery_key: [u8; 32]) {
        let Some(local) = local.filter(|_| !self.verified) else {
            return;
        };
        self.withdrawn
            .retain(|withdrawn| withdrawn.discovery_key != discovery_key);
        if self.withdrawn.len() >= MAX_WITHDRAWN {
            self.withdrawn.remove(0);
        }
        self.withdrawn.push(Withdrawn {
            discovery_key,
            key: local.key,
        });
    }

    /// Both sides have opened a channel.
    fn opened(&mut self, channel: ChannelId) {
        self.note_verified();
        self.matched = true;
        self.events.push_back(Event::Opened { channel });
    }

    /// The remote knows the key of a log of ours.
    fn note_verified(&mut self) {
        self.verified = true;
        self.withdrawn = Vec::new();
    }

    fn channel(&self, id: ChannelId) -> Option<&Channel> {
        let key = self.local.get(&id.0)?;
        self.reserved.get(key).or_else(|| self.channels.get(key))
    }

    fn extensions(&self, channel: Option<ChannelId>) -> Result<&Extensions, Error> {
        let Some(id) = channel else {
            return Ok(&self.extensions);
        };
        let channel = self
            .channel(id)
            .ok_or(Error::ChannelNotOpen { channel: id })?;
        Ok(&channel.extensions)
    }

    fn extensions_mut(&mut self, channel: Option<ChannelId>) -> Result<&mut Extensions, Error> {
        let Some(id) = channel else {
            return Ok(&mut self.extensions);
        };
        let Self {
            local,
            reserved,
            channels,
            ..
        } = self;
        let channel = local
            .get(&id.0)
            .and_then(|key| reserved.get_mut(key).or_else(|| channels.get_mut(key)));
        Ok(&mut channel
            .ok_or(Error::ChannelNotOpen { channel: id })?
            .extensions)
    }
}

impl fmt::Debug for Mux {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Keys of logs are read capabilities and are not shown; discovery keys may be.
        let channels = self.channels.keys().map(|key| format!("{:?}", Hex(key)));
        f.debug_struct("Mux")
            .field("channels", &channels.collect::<Vec<_>>())
            .field("events", &self.events.len())
            .finish_non_exhaustive()
    }
}

/// Whether the remote proved to know `key`, or cannot be asked to on this stream.
fn is_capable<S: MessageStream + ?Sized>(stream: &S, key: &[u8; 32], remote: &Remote) -> bool {
    match (
        stream.capability(key, Direction::Receive),
        &remote.capability,
    ) {
        (None, _) => true,
        (Some(expected), Some(given)) => equal(&expected, given),
        (Some(_), None) => false,
    }
}

/// The number of the stream itself.
const STREAM: u32 = 0;

/// Bytes that Opens and Closes may take beyond [`Limits::send_buffer`] and the message that passed it.
const CONTROL_ROOM: usize = 1 << 20;

/// Keys of channels that were taken back and are remembered: 64 KiB of them.
const MAX_WITHDRAWN: usize = 1024;

/// The most bytes an Open takes with its header.
const OPEN_LENGTH: usize = 73;
