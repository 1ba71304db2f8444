//! The encrypted wire protocol of Hypercore 9 as a value: bytes in, events and bytes out.

mod buffer;
mod cipher;
mod error;
mod extension;
mod handshake;
mod key;
mod limits;
mod message;
mod mux;
mod schema;
mod secure_stream;
mod session;
mod varint;

pub use error::{Error, Problem};
pub use key::{Direction, Split, StaticKeyPair, discovery_key};
pub use limits::Limits;
pub use message::{
    Body, Cancel, Close, Data, DataNode, Extension, Frame, Have, MAX_BLOCKS, MAX_NUMBER, Message,
    MessageKind, Open, Options, Request, Status, Unhave, Unwant, Want,
};
pub use mux::{ChannelId, MessageStream, Mux};
pub use secure_stream::{Received, SecureStream};
pub use session::{Event, KEEP_ALIVE_WINDOW, Session, SessionOptions, UNMATCHED_WINDOW};
