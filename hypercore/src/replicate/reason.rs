//! Why a connection, or a part of one, was closed.

use std::fmt;

use hypercore_wire::Error as WireError;

use super::Ended;
use crate::error::Error;

/// Why a connection, or a core's part of one, was closed: a code for programs and logs, beside the
/// sentence for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CloseReason {
    /// Neither side wanted anything more.
    Complete,
    /// The core was closed here.
    CoreClosed,
    /// The remote does not have the core.
    Refused,
    /// The remote closed the connection or the core.
    RemoteClosed,
    /// The connection was closed or dropped here, or the core taken off it.
    Dropped,
    /// The network failed, or the connection ended in the middle of a message.
    Network,
    /// The remote is not one of those that are let in.
    NotAllowed,
    /// The handshake failed: it was altered, or is not one of this protocol.
    Handshake,
    /// The handshake took too long.
    HandshakeTimeout,
    /// The remote was silent for too long.
    Timeout,
    /// A frame came too slowly.
    SlowFrame,
    /// The remote asks and does not take the answers.
    NotReading,
    /// The remote left requests unanswered.
    Unanswered,
    /// Something that is not a message of the protocol.
    Malformed,
    /// The remote opened a core whose key it does not know.
    Capability,
    /// A frame longer than allowed.
    FrameTooLarge,
    /// Too many keep-alives.
    KeepAlives,
    /// Too many channels were opened.
    Channels,
    /// What the remote says it has takes too much memory.
    BitfieldTooLarge,
    /// Memory was short, and this connection could be spared.
    MemoryShort,
    /// A proof, a signature or a block was false.
    FalseProof,
    /// Blocks nobody asked for.
    Unrequested,
    /// Something failed here.
    Internal,
}

impl CloseReason {
    /// The code in words, joined by dashes.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::CoreClosed => "core-closed",
            Self::Refused => "refused",
            Self::RemoteClosed => "remote-closed",
            Self::Dropped => "dropped",
            Self::Network => "network",
            Self::NotAllowed => "not-allowed",
            Self::Handshake => "handshake",
            Self::HandshakeTimeout => "handshake-timeout",
            Self::Timeout => "timeout",
            Self::SlowFrame => "slow-frame",
            Self::NotReading => "not-reading",
            Self::Unanswered => "unanswered",
            Self::Malformed => "malformed",
            Self::Capability => "capability",
            Self::FrameTooLarge => "frame-too-large",
            Self::KeepAlives => "keep-alives",
            Self::Channels => "channels",
            Self::BitfieldTooLarge => "bitfield-too-large",
            Self::MemoryShort => "memory-short",
            Self::FalseProof => "false-proof",
            Self::Unrequested => "unrequested",
            Self::Internal => "internal",
        }
    }
}

impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl From<Ended> for CloseReason {
    fn from(ended: Ended) -> Self {
        match ended {
            Ended::Complete => Self::Complete,
            Ended::Closed => Self::Dropped,
            Ended::CoreClosed => Self::CoreClosed,
            Ended::Refused => Self::Refused,
            Ended::RemoteClosed => Self::RemoteClosed,
        }
    }
}

impl From<&Error> for CloseReason {
    fn from(error: &Error) -> Self {
        match error.cause() {
            Error::Wire(error) => error.into(),
            Error::Transport(_) => Self::Network,
            Error::NotAuthenticated => Self::NotAllowed,
            Error::RequestTimeout { .. } => Self::Unanswered,
            Error::Bitfield(hypercore_bitfield::Error::MemoryLimit { .. }) => {
                Self::BitfieldTooLarge
            }
            Error::Bitfield(_) => Self::Malformed,
            Error::Merkle(error) if error.is_peer_fault() => Self::FalseProof,
            Error::UnrequestedData => Self::Unrequested,
            Error::Closed => Self::CoreClosed,
            _ => Self::Internal,
        }
    }
}

impl From<&WireError> for CloseReason {
    fn from(error: &WireError) -> Self {
        use WireError::*;
        match error {
            HandshakeLength { .. }
            | Handshake
            | WeakRemoteKey
            | HandshakePayload
            | NonceLength { .. } => Self::Handshake,
            UnexpectedRemoteKey => Self::NotAllowed,
            HandshakeTimeout { .. } => Self::HandshakeTimeout,
            FrameLength
            | FrameHeader
            | InvalidMessage { .. }
            | ChannelNumber { .. }
            | DuplicateOpen { .. } => Self::Malformed,
            FrameTooLarge { .. } => Self::FrameTooLarge,
            FrameTooSlow { .. } => Self::SlowFrame,
            TooManyKeepAlives { .. } => Self::KeepAlives,
            TooManyUnmatchedOpens { .. } | TooManyChannels { .. } | NoChannelNumber { .. } => {
                Self::Channels
            }
            UnexpectedEnd => Self::Network,
            TimedOut { .. } => Self::Timeout,
            SendStalled { .. } | SendBufferFull { .. } => Self::NotReading,
            MemoryShort => Self::MemoryShort,
            InvalidCapability => Self::Capability,
            _ => Self::Internal,
        }
    }
}
