use std::fmt;
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};

use crate::buffer::{Buffer, Inbox};
use crate::cipher::Cipher;
use crate::handshake::{Agreement, Handshake};
use crate::mux::MessageStream;
use crate::{Direction, Error, Limits, Role, SessionOptions, Split, varint};

/// Bytes to whole frames and back: handshake, encryption, framing.
///
/// ```text
/// noise, encrypted   [Noise XX, 3 messages] [XSalsa20 of: varint(length) frame ..]
/// noise only         [Noise XX, 3 messages] [varint(length) frame ..]
/// neither                                   [varint(length) frame ..]
/// ```
///
/// A frame of length 0 is a keep-alive.
pub struct SecureStream {
    role: Role,
    encrypted: bool,
    nonce: [u8; 24],
    phase: Phase,
    identity: Option<Identity>,
    inbox: Inbox,
    outbox: Buffer,
    finished: bool,
    // Boxed: their key streams are long, and an unfinished handshake has none.
    decrypt: Option<Box<Cipher>>,
    encrypt: Option<Box<Cipher>>,
    max_frame: usize,
    trusted: bool,
    limits: Arc<Limits>,
}

enum Phase {
    Handshake(Box<Handshake>),
    Frames,
}

/// What the handshake told about the connection.
struct Identity {
    split: Split,
    remote_public_key: [u8; 32],
    handshake_hash: [u8; 64],
}

/// What a [`SecureStream`] received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Received {
    /// The handshake is over. Comes once, first, and not at all without Noise.
    Handshake {
        /// The remote's static key.
        remote_public_key: [u8; 32],
    },
    /// The remote is alive.
    KeepAlive,
    /// A whole frame, without its length.
    Frame(Bytes),
}

impl SecureStream {
    /// A stream over a transport that has carried nothing yet. The initiator has bytes to send at
    /// once.
    ///
    /// # Errors
    /// [`Error::Random`] if there are no random bytes for the handshake.
    pub fn new(options: &SessionOptions) -> Result<Self, Error> {
        Self::with_ephemeral(options, None)
    }

    pub(crate) fn with_ephemeral(
        options: &SessionOptions,
        ephemeral: Option<&[u8; 32]>,
    ) -> Result<Self, Error> {
        let mut stream = Self {
            role: options.role,
            encrypted: options.encrypted,
            nonce: options.nonce,
            phase: Phase::Frames,
            identity: None,
            inbox: Inbox::new(),
            outbox: Buffer::default(),
            finished: false,
            decrypt: None,
            encrypt: None,
            max_frame: options
                .limits
                .unverified_frame
                .min(options.limits.frame)
                .min(options.limits.received_frame),
            trusted: false,
            limits: Arc::new(options.limits.clone()),
        };
        // As in simple-hypercore-protocol: `noise: false` counts only without encryption.
        if options.noise || options.encrypted {
            stream.phase = Phase::Handshake(Box::new(Handshake::new(options, ephemeral)?));
            stream.advance_handshake()?;
        }
        Ok(stream)
    }

    /// Free space to read the transport into; then call [`SecureStream::received`], and nothing else before.
    pub fn receive_buffer(&mut self) -> &mut [u8] {
        self.inbox.spare(self.longest_read())
    }

    /// The same while memory is short.
    pub(crate) fn short_receive_buffer(&mut self) -> &mut [u8] {
        self.inbox.spare_little(self.longest_read().min(SHORT_READ))
    }

    fn longest_read(&self) -> usize {
        match self.phase {
            Phase::Handshake(_) => HANDSHAKE_READ,
            Phase::Frames if !self.trusted => UNVERIFIED_READ,
            Phase::Frames => self.limits.read,
        }
    }

    /// `n` bytes were read into the start of [`SecureStream::receive_buffer`].
    ///
    /// # Errors
    /// If `n` is more than that buffer takes, or frames pile up because nobody polls them.
    pub fn received(&mut self, n: usize) -> Result<(), Error> {
        // A driver that polls its events never comes here: whole frames do not pile up.
        let longest = self.limits.frame.saturating_add(FRAME_OVERHEAD);
        if self.inbox.filled().len() > longest.saturating_add(self.limits.read) {
            return Err(Error::EventsNotPolled);
        }
        let bytes = self.inbox.fill(n)?;
        if let Some(cipher) = &mut self.decrypt {
            cipher.apply(bytes);
        }
        Ok(())
    }

    /// Returns what was received next.
    ///
    /// # Errors
    /// Any error of the handshake or of the framing: the stream is over then.
    pub fn poll(&mut self) -> Result<Option<Received>, Error> {
        if let Phase::Handshake(_) = self.phase {
            return self.poll_handshake();
        }
        let bytes = self.inbox.filled();
        let Some((length, prefix)) =
            varint::read(bytes, MAX_LENGTH_PREFIX).map_err(|_| Error::FrameLength)?
        else {
            return Ok(None);
        };
        if length == 0 {
            self.inbox.skip(prefix);
            return Ok(Some(Received::KeepAlive));
        }
        let max = self.max_frame;
        let too_large = Error::FrameTooLarge { length, max };
        let Ok(length) = usize::try_from(length) else {
            return Err(too_large);
        };
        if length.saturating_sub(varint::MAX_LENGTH) > max {
            return Err(too_large);
        }
        let bytes = bytes.get(prefix..).unwrap_or_default();
        let frame = bytes.get(..length).unwrap_or(bytes);
        // The limit is on the body, whose length is known once the header is here.
        let header = match varint::read(frame, varint::MAX_LENGTH) {
            Ok(Some((_, header))) => header,
            Ok(None) if frame.len() < length => varint::MAX_LENGTH,
            _ => return Err(Error::FrameHeader),
        };
        if length.saturating_sub(header) > max {
            return Err(too_large);
        }
        if frame.len() < length {
            return Ok(None);
        }
        self.inbox.skip(prefix);
        Ok(Some(Received::Frame(self.inbox.take(length))))
    }

    /// The bytes of a frame or handshake message that is not complete, once
    /// [`SecureStream::poll`] returned `None`.
    #[must_use]
    pub fn unfinished(&self) -> usize {
        self.inbox.filled().len()
    }

    /// The limits, to be shared with whoever else keeps to them.
    pub(crate) fn limits(&self) -> &Arc<Limits> {
        &self.limits
    }

    /// The memory held by what was received, of which `queued` bytes were polled and are still there.
    pub(crate) fn received_memory(&self, queued: usize) -> usize {
        self.inbox.memory(queued)
    }

    /// Gives back what [`SecureStream::receive_buffer`] offered.
    pub(crate) fn release(&mut self) {
        self.inbox.release();
    }

    /// From here on frames may be as long as the limits allow: a channel is verified, as
    /// [`Mux::has_verified`](crate::Mux::has_verified) tells.
    pub fn trust(&mut self) {
        self.trusted = true;
        self.max_frame = self.limits.frame.min(self.limits.received_frame);
    }

    /// Queues a keep-alive; ignored during the handshake.
    pub fn ping(&mut self) {
        if self.is_handshaken() && !self.finished {
            self.push(1, &mut |out| out.put_u8(0));
        }
    }

    /// From here on nothing more is queued, keep-alives and answers included.
    pub fn finish(&mut self) {
        self.finished = true;
    }

    /// The bytes ready for the transport.
    #[must_use]
    pub fn outgoing(&self) -> &[u8] {
        &self.outbox
    }

    /// The transport took the first `n` bytes of [`SecureStream::outgoing`].
    pub fn sent(&mut self, n: usize) {
        self.outbox.advance(n.min(self.outbox.len()));
        self.keep_outbox(KEPT_OUTBOX);
    }

    /// Gives the send buffer back if it is empty and larger than `max`.
    pub(crate) fn keep_outbox(&mut self, max: usize) {
        if self.outbox.is_empty() && self.outbox.memory() > max {
            self.outbox = Buffer::default();
        }
    }

    /// The memory held by what is to be sent, free space included.
    pub(crate) fn outbox_memory(&self) -> usize {
        self.outbox.memory()
    }

    /// Which side we are.
    #[must_use]
    pub fn role(&self) -> Role {
        self.role
    }

    /// Whether frames can be sent: the handshake is over, or there is none.
    #[must_use]
    pub fn is_handshaken(&self) -> bool {
        matches!(self.phase, Phase::Frames)
    }

    fn poll_handshake(&mut self) -> Result<Option<Received>, Error> {
        let Phase::Handshake(handshake) = &mut self.phase else {
            return Ok(None);
        };
        let bytes = self.inbox.filled();
        let max = handshake.max_message();
        let invalid = |length| Error::HandshakeLength { length, max };
        let Some((length, prefix)) =
            varint::read(bytes, MAX_HANDSHAKE_PREFIX).map_err(|_| invalid(u64::from(u32::MAX)))?
        else {
            return Ok(None);
        };
        let message = usize::try_from(length)
            .ok()
            .filter(|length| (1..=max).contains(length));
        let message = message.ok_or_else(|| invalid(length))?;
        let bytes = bytes.get(prefix..).unwrap_or_default();
        let Some(bytes) = bytes.get(..message) else {
            return Ok(None);
        };
        handshake.read(bytes)?;
        self.inbox.skip(prefix);
        self.inbox.skip(message);
        match self.advance_handshake()? {
            Some(remote_public_key) => Ok(Some(Received::Handshake { remote_public_key })),
            None => self.poll_handshake(),
        }
    }

    /// Writes our message if it is our turn, and ends the handshake if it was the last.
    fn advance_handshake(&mut self) -> Result<Option<[u8; 32]>, Error> {
        let Phase::Handshake(handshake) = &mut self.phase else {
            return Ok(None);
        };
        if let Some(message) = handshake.write()? {
            self.outbox.grow(|out| {
                varint::write(message.len() as u64, out);
                out.put_slice(&message);
            });
        }
        let Some(agreement) = handshake.agreement()? else {
            return Ok(None);
        };
        let Agreement {
            split,
            remote_nonce,
            remote_public_key,
            handshake_hash,
        } = agreement;
        if self.encrypted {
            self.encrypt = Some(Cipher::new(split.key(Direction::Send), &self.nonce));
            // Bytes that came with the last handshake message are the first encrypted ones.
            let mut decrypt = Cipher::new(split.key(Direction::Receive), &remote_nonce);
            decrypt.apply(self.inbox.filled_mut());
            self.decrypt = Some(decrypt);
        }
        self.identity = Some(Identity {
            split,
            remote_public_key,
            handshake_hash,
        });
        self.phase = Phase::Frames;
        Ok(Some(remote_public_key))
    }

    fn push(&mut self, length: usize, write: &mut dyn FnMut(&mut BytesMut)) {
        let start = self.outbox.len();
        self.outbox.grow(|out| {
            out.reserve(length);
            write(out);
        });
        if let Some(cipher) = &mut self.encrypt {
            let (_, new) = self.outbox.split_at_mut(start);
            cipher.apply(new);
        }
    }
}

impl MessageStream for SecureStream {
    fn remote_public_key(&self) -> Option<[u8; 32]> {
        self.identity
            .as_ref()
            .map(|identity| identity.remote_public_key)
    }

    fn handshake_hash(&self) -> Option<[u8; 64]> {
        self.identity
            .as_ref()
            .map(|identity| identity.handshake_hash)
    }

    fn capability(&self, key: &[u8; 32], direction: Direction) -> Option<[u8; 32]> {
        self.identity
            .as_ref()
            .map(|identity| identity.split.capability(key, direction))
    }

    fn buffered(&self) -> usize {
        self.outbox.len()
    }

    fn send(&mut self, length: usize, encode: &mut dyn FnMut(&mut BytesMut)) -> Result<(), Error> {
        if !self.is_handshaken() {
            return Err(Error::NotReady);
        }
        if self.finished {
            return Ok(());
        }
        self.push(length.saturating_add(varint::MAX_LENGTH), &mut |out| {
            varint::write(length as u64, out);
            encode(out);
        });
        Ok(())
    }
}

impl fmt::Debug for SecureStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SecureStream")
            .field("role", &self.role)
            .field("handshaken", &self.is_handshaken())
            .field("received", &self.inbox.filled().len())
            .field("outgoing", &self.outbox.len())
            .finish_non_exhaustive()
    }
}

/// Free space for a read during the handshake: an unfinished one costs little memory, and the longest
/// message that is allowed by default fits without more.
const HANDSHAKE_READ: usize = 512 + MAX_HANDSHAKE_PREFIX;

/// Free space for a read while no channel is verified.
const UNVERIFIED_READ: usize = 16 << 10;

/// Free space for a read while memory is short.
const SHORT_READ: usize = 4096;

/// An empty send buffer larger than this is given back.
const KEPT_OUTBOX: usize = 1 << 20;

/// simple-message-channels `_readVarint` gives up after eight bytes without an end.
const MAX_LENGTH_PREFIX: usize = 8;

/// The most bytes of a frame before its body.
const FRAME_OVERHEAD: usize = MAX_LENGTH_PREFIX + varint::MAX_LENGTH;

/// Three bytes hold every length a Noise message can have.
const MAX_HANDSHAKE_PREFIX: usize = 3;
