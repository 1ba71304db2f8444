//! The encrypted wire protocol of Hypercore 9 as a value: bytes in, events and bytes out.
//!
//! ```text
//!  transport                                                              application
//!
//!  receive_buffer +--------------+           +-----+   poll_event   Handshake  RemoteOpened
//!  received ----->|              |  frames   |     |--------------> Opened     Message
//!                 | SecureStream |<=========>| Mux |                Extension  Closed
//!  outgoing <-----|              |           |     |<-------------- open  send  close  reject
//!  sent           +--------------+           +-----+
//!                 \________________ Session _______/<-------------> poll_timeout, handle_timeout
//! ```
//!
//! * A [`SecureStream`] turns bytes into whole frames: Noise handshake, stream cipher, lengths.
//! * A [`Mux`] turns frames into events: channels, capabilities, options, extensions. It works over
//!   any [`MessageStream`], so also over a connection that is encrypted already.
//! * A [`Session`] is both with their timers, and what most people use. Time is that of
//!   [`std::time::Instant`], which `wasm32-unknown-unknown` has none of: there take the other two, and see
//!   [below](#without-a-clock) what is left to do.
//!
//! Nothing here reads a socket, a clock or a file. Randomness comes from the operating system only
//! for [`SessionOptions::new`], [`StaticKeyPair::generate`] and Noise's ephemeral key.
//!
//! # Vocabulary
//!
//! * *initiator*, *responder*: the [`Role`] of who started the connection and of who accepted it.
//! * *channel*: one log on a connection. Each side numbers those it opens itself.
//! * *key*, *discovery key*, *capability*: a log's public key; its keyed hash, by which strangers
//!   name it; and the proof, bound to one connection, that one knows the key.
//! * *frame*: `varint(length) varint(channel << 4 | type) body` on the wire, where the body is
//!   protobuf.
//!
//! # Example
//!
//! ```
//! use std::time::Instant;
//! use hypercore_wire::{Event, Have, Message, Role, Session, SessionOptions};
//!
//! # fn main() -> Result<(), hypercore_wire::Error> {
//! let (now, key) = (Instant::now(), [7; 32]);
//! let mut alice = Session::new(SessionOptions::new(Role::Initiator)?, now)?;
//! let mut bob = Session::new(SessionOptions::new(Role::Responder)?, now)?;
//! let channel = alice.open(&key)?;
//! bob.open(&key)?;
//! alice.send(channel, &Message::Have(Have::block(3)))?;
//! let mut sides = [alice, bob];
//! for turn in 0..8 {
//!     let (from, to) = (turn % 2, 1 - turn % 2);
//!     let bytes = sides[from].outgoing().to_vec();
//!     sides[from].sent(now, bytes.len());
//!     sides[to].receive(now, &bytes)?;
//! }
//! let events: Vec<_> = std::iter::from_fn(|| sides[1].poll_event()).collect();
//! assert!(matches!(events[..], [Event::Handshake { .. }, Event::Opened { .. }, Event::Message { .. }]));
//! # Ok(())
//! # }
//! ```
//!
//! Bob opens the channel before he reads. What Alice sends is lost if it comes before he has: who cannot
//! know waits for [`Event::Opened`].
//!
//! # Without a clock
//!
//! Whoever takes [`SecureStream`] and [`Mux`] without a [`Session`] has to start the mux once the stream is ready, and to
//! tell the stream when the mux has verified the remote: before that it takes no frame above
//! [`Limits::unverified_frame`]. The limits that depend on time are his, too: keep-alives and
//! [`Mux::unmatched_opens`] are to be counted, silence and unfinished frames to be given up; and so is what piles up in
//! [`Mux::queued_events`] and [`Mux::queued_bytes`], if events are not polled after each frame, as here.
//!
//! ```
//! use hypercore_wire::{Error, Event, Mux, Received, Role, SecureStream, SessionOptions};
//!
//! /// What follows from `n` bytes in the buffer of the stream.
//! fn received(stream: &mut SecureStream, mux: &mut Mux, n: usize) -> Result<Vec<Event>, Error> {
//!     let mut events = Vec::new();
//!     stream.received(n)?;
//!     while let Some(received) = stream.poll()? {
//!         match received {
//!             Received::Handshake { .. } => mux.start(stream)?,
//!             Received::KeepAlive => {}
//!             Received::Frame(frame) => mux.receive(stream, frame)?,
//!         }
//!         // Also after `Mux::open`, where the remote was first.
//!         if mux.has_verified() {
//!             stream.trust();
//!         }
//!         events.extend(std::iter::from_fn(|| mux.poll_event()));
//!     }
//!     Ok(events)
//! }
//!
//! # fn main() -> Result<(), Error> {
//! let mut sides = Vec::new();
//! for role in [Role::Initiator, Role::Responder] {
//!     let options = SessionOptions::new(role)?;
//!     let mut stream = SecureStream::new(&options)?;
//!     let mut mux = Mux::new(options.limits);
//!     // Without Noise there is no handshake to wait for.
//!     if stream.is_handshaken() {
//!         mux.start(&mut stream)?;
//!     }
//!     mux.open(&mut stream, &[7; 32])?;
//!     sides.push((stream, mux, Vec::new()));
//! }
//! for turn in 0..6 {
//!     let bytes = sides[turn % 2].0.outgoing().to_vec();
//!     sides[turn % 2].0.sent(bytes.len());
//!     let (stream, mux, events) = &mut sides[1 - turn % 2];
//!     stream.receive_buffer()[..bytes.len()].copy_from_slice(&bytes);
//!     events.extend(received(stream, mux, bytes.len())?);
//! }
//! assert!(sides.iter().all(|(_, _, events)| matches!(events[..], [Event::Opened { .. }])));
//! # Ok(())
//! # }
//! ```
//!
//! # What a remote cannot do
//!
//! Whatever a remote sends to a [`Session`] ends in events or in an [`Error`]; never in a panic, and never
//! in more memory or work than [`Limits`] allow. What the protocol itself does not promise: the stream
//! cipher has no authentication, so somebody on the path can flip bits of every message. Blocks and
//! proofs are signed and survive that; Have, Unhave, Want, Request, Status, Close and extension
//! messages are not, so never let one of them cause more than wasted work.
//!
//! # What this crate does not do
//!
//! It does not judge a proof, expand a bitfield or decide what to request: [`Data`] is carried as it
//! came. It does not open connections.

// Whatever comes from a peer or from a file: no index or sum of it may panic.
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects
    )
)]

mod budget;
mod buffer;
mod cipher;
mod error;
mod extension;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
#[allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "for tests and fuzzing alone"
)]
pub mod fuzzing;
mod handshake;
mod key;
mod limits;
mod message;
mod mux;
mod resolver;
mod role;
mod schema;
mod secure_stream;
mod session;
mod varint;

pub use budget::Budget;
pub use error::{Error, Problem};
pub use key::{Direction, Split, StaticKeyPair, discovery_key};
pub use limits::Limits;
pub use message::{
    Body, Cancel, Close, Data, DataNode, Extension, Frame, Have, MAX_BLOCKS, MAX_NUMBER, Message,
    MessageKind, Open, Options, Request, Status, Unhave, UnknownMessageKind, Unwant, Want,
};
pub use mux::{ChannelId, MessageStream, Mux};
pub use role::Role;
pub use secure_stream::{Received, SecureStream};
pub use session::{Event, KEEP_ALIVE_WINDOW, Session, SessionOptions, UNMATCHED_WINDOW};

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
