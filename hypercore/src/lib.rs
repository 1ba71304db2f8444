//! A secure, append-only log for sharing data between peers, compatible with Hypercore 9 of Node.
//!
//! One writer appends blocks and signs them; whoever knows the public key can copy the log, the
//! whole of it or the blocks they read, from anybody who has it, and check every byte.
//!
//! ```text
//!     append, get, seek, update, download, clear, audit             events
//!        |                                                            ^
//!  +-----v------------------------------------------------------------|------+
//!  | Hypercore: a handle, cheap to clone                                     |
//!  |                                                                         |
//!  |   log                                 replicator                        |
//!  |   what is stored, what is signed <--> what is wanted, and of which peer |
//!  +-----+--------------------------------------+----------------------------+
//!        |                                      |
//!     Storage                              Replication  <== bytes ==>  a peer, over any transport
//!     Directory, Memory, your own          one per connection, for one core or many
//! ```
//!
//! # Tour
//!
//! A core is opened, or created, with [`Hypercore::open`] in a directory, or with [`OpenOptions`] in
//! memory and wherever you like. A clone of somebody else's core is the same with their key:
//!
//! ```
//! # futures_lite::future::block_on(async {
//! use futures_lite::future::try_zip;
//! use hypercore::{Hypercore, ReplicateOptions, Role};
//!
//! let core = Hypercore::options().open_memory().await?;
//! assert_eq!(core.append("hello").await?, 0);
//! assert_eq!(core.append_batch(["big", "world"]).await?, 1..3);
//!
//! let clone = Hypercore::options().key(core.key()).open_memory().await?;
//! # let (here, there) = pipe().await;
//! // `here` and `there` are the ends of a connection, such as two sockets.
//! let cloning = clone.replicate_over(here, Role::Initiator, ReplicateOptions::default());
//! let serving = core.replicate_over(there, Role::Responder, ReplicateOptions::default());
//! try_zip(cloning, serving).await?; // not live: ends when everything is there
//!
//! assert_eq!(clone.get(2).await?, "world");
//! # Ok::<_, hypercore::Error>(())
//! # }).unwrap();
//! # use async_std::net::{TcpListener, TcpStream};
//! # async fn pipe() -> (TcpStream, TcpStream) {
//! #     let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
//! #     let here = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
//! #     (here, listener.accept().await.unwrap().0)
//! # }
//! ```
//!
//! * **Reading waits.** [`Hypercore::get`] of a block that is not stored asks peers and waits for
//!   one, for as long as it takes; [`GetOptions`] can say otherwise. So `get(length)` is the next
//!   block, whenever it is written.
//! * **A clone downloads everything**, or with [`OpenOptions::sparse`] only what is asked for by
//!   [`get`](Hypercore::get), [`seek`](Hypercore::seek) and [`download`](Hypercore::download).
//! * **A connection** is yours to make. [`Hypercore::replicate`] gives one end of an encrypted
//!   stream; [`Replication::run`] drives it over a transport until it ends. A side that is not
//!   [`live`](ReplicateOptions::live) ends it once neither side wants more blocks. A live clone always
//!   wants more, and so does a sparse one: [`Ended`] has the table.
//! * **Streams**: [`Hypercore::read_stream`] gives blocks, also those to come,
//!   [`Hypercore::byte_stream`] a range of bytes, and [`Hypercore::write_stream`] takes bytes.
//!   [`Hypercore::with_codec`] puts values in place of bytes.
//! * **Messages of your own** travel beside blocks: [`Hypercore::register_extension`].
//! * **What happens** can be heard as a stream of [`Event`]s.
//! * **Errors** say whom to blame: [`Error::is_peer_fault`], [`Error::is_corruption`],
//!   [`Error::is_locked`]. A peer that lies loses its connection and nothing else.
//! * **Who is let in** is decided before a byte is read ([`Admission`]), by the remote's static key
//!   ([`ReplicateOptions::on_authenticate`]), and for each core by itself.
//! * **Durability** is a choice ([`Durability`]): by default an append that has returned survives a
//!   loss of power. [`Hypercore::recovery`] tells what was found of a core that was not closed.
//!
//! Recipes, tables of what waits for what and what survives, and pages on keys, forks, limits and
//! errors are in the [`guide`].
//!
//! # Vocabulary
//!
//! * A *block* is what was appended at once, at most 8 MiB; its *index* is its place in the log.
//!   *Length* counts blocks, *byte length* the bytes in them.
//! * The *key* is the writer's public key and names the log: whoever knows it may read. The
//!   *discovery key* is a hash of it that can be shown to strangers.
//! * A core is *writable* where its secret key is, and a *clone* elsewhere.
//! * A *peer* is another copy of the log at the other end of a connection. The *initiator* made that
//!   connection, the *responder* accepted it.
//!
//! # Runtimes
//!
//! Futures of this crate run under any executor; they bring a timer (`async-io`) and threads for
//! the disk (`blocking`). Transports are those of `futures-io`, so tokio's need
//! `tokio_util::compat`; `futures-io` and `futures-core` 0.3 are part of the API. A connection runs while its future is polled, and is never a task of its own.
//! What a core does by itself, on those threads, is to sync what was downloaded, or appended with
//! [`Durability::Interval`], and to finish a change that had begun when its future was dropped. Dropping a
//! core that is open syncs as well, on the thread that drops its last handle: `close().await` it instead.
//!
//! What waits for a disk to be done with something runs on those threads: syncs, and so appends, and
//! `flush`, `clear`, `verify` and `close`. Reads, and writes of what was downloaded, which the
//! system mostly answers from memory, are made while `get`, a stream or a connection is polled. With a
//! [`Storage`](storage::Storage) that takes long for them, poll these on threads of their own.
//!
//! # Features
//!
//! None is on by default.
//!
//! * `json`: cores of JSON values (`Json`), in which keys are text.
//! * `mdns`: finding peers on the local network (`discovery::Mdns`).
//! * `cli`: the command line `hypercore`.
//!
//! `interop` and `fuzzing` are for the tests of this crate.
//!
//! # What this crate does not do
//!
//! It makes no connections; [`discovery`] finds peers on the local network at most. It does not speak
//! with Hypercore 10 and later, whose files and protocol are others. It knows one writer per log, and
//! does not join two histories that a writer signed after going on from an old copy. It does not hide
//! which log two peers exchange from somebody who knows its discovery key, and the protocol's
//! encryption keeps nobody from disturbing a connection; see [`wire`].

#![forbid(unsafe_code)]
// Whatever comes from a peer or from a file: no index or sum of it may panic.
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects
    )
)]

/// Under this name is logged what whoever uses a log is told in another way as well, by an event or by
/// [`Hypercore::recovery`].
const TOLD: &str = "hypercore::told";

mod admission;
mod block_set;
mod codec;
mod core;
pub mod discovery;
mod error;
mod event;
mod extension;
mod fork;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
#[allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "for tests and fuzzing alone"
)]
pub mod fuzzing;
#[cfg(any(doc, doctest))]
pub mod guide;
mod hypercore;
mod log;
mod options;
mod replicate;
mod request;
mod resume;
mod runtime;
mod shared;
mod signer;
mod span;
mod stream;
mod tree;
mod turns;
mod verify;

pub use bytes::Bytes;
pub use hypercore_bitfield as bitfield;
pub use hypercore_merkle as merkle;
pub use hypercore_merkle::{DiscoveryKey, KeyPair, ParseKeyError, PublicKey};
pub use hypercore_storage as storage;
pub use hypercore_wire as wire;
pub use hypercore_wire::StaticKeyPair;

pub use crate::{
    admission::{Admission, AdmissionLimits, Admitted, NotAdmitted},
    codec::{Binary, Codec, CodecError, Typed, TypedReadStream, Utf8},
    error::{Corruption, Error},
    event::{Event, Events, PeerId},
    extension::{Extension, TypedExtension},
    fork::{ForkProof, NoForkProof, SignedRoots},
    hypercore::Hypercore,
    log::{AppendLock, Problem, Recovery, Repair, Verification},
    options::{Durability, OpenOptions},
    replicate::{
        Asked, CloseReason, Ended, Goal, PeerInfo, PeerLimits, Progress, ReplicateOptions,
        Replication, ReplicationHandle, Role, Stats, Waiting, WaitsOn,
    },
    request::{
        Audit, Download, DownloadOptions, GetOptions, Order, Position, SeekOptions, UpdateOptions,
    },
    signer::Signer,
    stream::{ByteStream, ReadOptions, ReadStream, WriteStream},
    tree::ProofOptions,
};

#[cfg(feature = "json")]
pub use crate::codec::Json;

#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
