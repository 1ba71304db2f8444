use std::time::Duration;

use crate::{ChannelId, MessageKind};

/// Everything that can go wrong on one connection.
///
/// Whose fault it was is answered by [`Error::is_peer_fault`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    // The handshake.
    /// A handshake message announced an impossible length.
    #[error("a handshake message of {length} bytes is not between 1 and {max}")]
    HandshakeLength {
        /// The announced length.
        length: u64,
        /// The longest handshake message allowed.
        max: usize,
    },
    /// Noise refused a handshake message: it was altered, or is not of this protocol.
    #[error("the Noise handshake failed")]
    Handshake,
    /// The remote sent a public key of low order, with which no secret can be agreed on.
    #[error("the remote offered a Noise key of low order")]
    WeakRemoteKey,
    /// The handshake ended without a payload, or with one that could not be read.
    #[error("the remote did not include a readable handshake payload")]
    HandshakePayload,
    /// The remote's nonce for the stream cipher does not have 24 bytes.
    #[error("the remote's nonce has {length} bytes, not 24")]
    NonceLength {
        /// The length received.
        length: usize,
    },
    /// The remote is not the one asked for with `SessionOptions::remote_public_key`.
    #[error("the remote's Noise key is not the expected one")]
    UnexpectedRemoteKey,
    /// The handshake did not end in time.
    #[error("the handshake did not finish within {limit:?}")]
    HandshakeTimeout {
        /// The time allowed.
        limit: Duration,
    },

    // Frames.
    /// The length of a frame is not a number of at most 8 bytes.
    #[error("the length of a frame is not a valid varint")]
    FrameLength,
    /// A frame is longer than allowed at this point of the connection.
    #[error("a frame of {length} bytes is larger than the maximum of {max}")]
    FrameTooLarge {
        /// The announced length.
        length: u64,
        /// The longest body allowed.
        max: usize,
    },
    /// The header of a frame (channel and type) is cut or too large.
    #[error("the header of a frame is not valid")]
    FrameHeader,
    /// A frame arrived too slowly.
    #[error("a frame was still incomplete after {age:?}")]
    FrameTooSlow {
        /// The age of the unfinished frame.
        age: Duration,
    },
    /// The remote sent keep-alives far more often than any keep-alive timer does.
    #[error("the remote sent more than {max} keep-alives in {window:?}")]
    TooManyKeepAlives {
        /// The number allowed.
        max: u32,
        /// The time in which they were counted.
        window: Duration,
    },
    /// The transport ended inside the handshake or inside a frame.
    #[error("the connection ended in the middle of a message")]
    UnexpectedEnd,
    /// Nothing was received for the whole timeout.
    #[error("nothing was received for {timeout:?}")]
    TimedOut {
        /// The timeout in force.
        timeout: Duration,
    },
    /// The remote stopped taking what we send.
    #[error("the remote took no bytes for {age:?}")]
    SendStalled {
        /// How long nothing could be written.
        age: Duration,
    },

    /// Memory is short, and the remote holds some of it without knowing the key of a log.
    #[error("all connections together hold too many bytes, and this one can be spared")]
    MemoryShort,

    // Messages.
    /// The body of a message breaks the rules of its type.
    #[error("invalid {kind:?} message: {problem}")]
    InvalidMessage {
        /// The type of the message.
        kind: MessageKind,
        /// The rule that was broken.
        problem: Problem,
    },

    // Channels.
    /// The remote opened a channel whose key it cannot prove to know.
    #[error("the remote's capability for a channel is wrong")]
    InvalidCapability,
    /// The remote opened a channel under a number that is reserved or too large.
    #[error("channel number {id} is not between 1 and {max}")]
    ChannelNumber {
        /// The number received.
        id: u32,
        /// The largest number allowed.
        max: u32,
    },
    /// The remote used one number for two channels, or before it had closed the one that we closed; or it
    /// opened one channel twice.
    #[error("channel number {id} or its discovery key is open already")]
    DuplicateOpen {
        /// The number received.
        id: u32,
    },
    /// The remote announced channels we do not know at too high a rate.
    #[error("the remote opened more than {max} unknown channels in {window:?}")]
    TooManyUnmatchedOpens {
        /// The number allowed.
        max: u32,
        /// The time in which they were counted.
        window: Duration,
    },

    // Our own use of the session.
    /// The channel is not open on our side (any more); the remote may just have closed it.
    #[error("channel {channel} is not open")]
    ChannelNotOpen {
        /// The channel named in the call.
        channel: ChannelId,
    },
    /// As many channels are open as the limits allow.
    #[error("no more than {max} channels may be open")]
    TooManyChannels {
        /// The number allowed.
        max: usize,
    },
    /// Every number was used for a channel once: the connection is to be made anew.
    #[error("all {max} channel numbers of the connection are used up")]
    NoChannelNumber {
        /// The largest number allowed.
        max: u32,
    },
    /// More is waiting to be sent than the limits allow; write some of it out first.
    #[error("{buffered} bytes wait to be sent, more than the maximum of {max}")]
    SendBufferFull {
        /// The bytes waiting.
        buffered: usize,
        /// The number allowed.
        max: usize,
    },
    /// More was received than the limits allow to keep while events wait to be polled.
    #[error("events must be polled before more bytes are received")]
    EventsNotPolled,
    /// More bytes were reported as received than the receive buffer could take.
    #[error("{read} bytes cannot have been read into a buffer of {spare}")]
    ReadTooLong {
        /// The number reported.
        read: usize,
        /// The size of the receive buffer.
        spare: usize,
    },
    /// The message to send is longer than the remote accepts, or accepts yet.
    #[error("a message of {length} bytes is longer than the maximum of {max}")]
    MessageTooLarge {
        /// The length of the body.
        length: usize,
        /// The longest body allowed.
        max: usize,
    },
    /// The extension was not declared, so it has no number.
    #[error("the extension {name:?} is not declared")]
    UnknownExtension {
        /// The name given.
        name: String,
    },
    /// More extensions than the limits allow, or a name that is too long.
    #[error("at most {names} extensions with names of at most {length} bytes can be declared")]
    TooManyExtensions {
        /// The number of names allowed.
        names: usize,
        /// The length of a name allowed.
        length: usize,
    },
    /// The stream still makes its handshake, or was finished by us.
    #[error("the stream is not ready to send")]
    NotReady,
    /// The operating system gave no random bytes.
    #[error("the system's random number generator failed")]
    Random,
}

impl Error {
    /// Whether the remote broke the protocol or a limit: the connection should end and the remote
    /// be treated with care.
    ///
    /// Timeouts, a connection cut short and everything that concerns our own calls are not held
    /// against the remote.
    #[must_use]
    pub fn is_peer_fault(&self) -> bool {
        use Error::*;
        match self {
            HandshakeLength { .. }
            | Handshake
            | WeakRemoteKey
            | HandshakePayload
            | NonceLength { .. }
            | UnexpectedRemoteKey
            | FrameLength
            | FrameTooLarge { .. }
            | FrameHeader
            | TooManyKeepAlives { .. }
            | InvalidMessage { .. }
            | InvalidCapability
            | ChannelNumber { .. }
            | DuplicateOpen { .. }
            | TooManyUnmatchedOpens { .. } => true,
            HandshakeTimeout { .. }
            | FrameTooSlow { .. }
            | UnexpectedEnd
            | TimedOut { .. }
            | SendStalled { .. }
            | MemoryShort
            | ChannelNotOpen { .. }
            | TooManyChannels { .. }
            | NoChannelNumber { .. }
            | SendBufferFull { .. }
            | EventsNotPolled
            | ReadTooLong { .. }
            | MessageTooLarge { .. }
            | UnknownExtension { .. }
            | TooManyExtensions { .. }
            | NotReady
            | Random => false,
        }
    }

    pub(crate) fn invalid(kind: MessageKind, problem: Problem) -> Self {
        Self::InvalidMessage { kind, problem }
    }
}

/// The rule that an invalid message broke.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    /// The body is not a protobuf message, or a field has the wrong type.
    #[error("it cannot be decoded")]
    Malformed,
    /// A required field is absent.
    #[error("field {field} is missing")]
    MissingField {
        /// The number of the field.
        field: u32,
    },
    /// A number, or the sum of two, is larger than allowed.
    #[error("field {field} is too large")]
    TooLarge {
        /// The number of the field.
        field: u32,
    },
    /// A hash, key or signature does not have its fixed length.
    #[error("field {field} has {length} bytes")]
    WrongLength {
        /// The number of the field.
        field: u32,
        /// The length received.
        length: usize,
    },
    /// A field is repeated more often than allowed.
    #[error("field {field} is repeated more than {max} times")]
    TooMany {
        /// The number of the field.
        field: u32,
        /// The number allowed.
        max: usize,
    },
    /// A bitfield does not start at a whole byte.
    #[error("its bitfield does not start at a multiple of eight")]
    UnalignedBitfield,
    /// A Data message carries neither a block nor a node.
    #[error("it carries neither a value nor nodes")]
    Empty,
}
