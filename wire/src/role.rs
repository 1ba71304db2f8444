use std::fmt;

/// Which end of a connection a side is. One must be the initiator, the other the responder; by custom
/// the side that connects is the initiator.
///
/// With two of the same role the handshake fails, or comes to no end until
/// [its time](crate::Limits::handshake_duration) is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// The side that starts the handshake.
    Initiator,
    /// The side that answers it.
    Responder,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Initiator => "initiator",
            Self::Responder => "responder",
        })
    }
}
