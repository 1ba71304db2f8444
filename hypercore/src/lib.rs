//! A secure, append-only log for sharing data between peers.
#![forbid(unsafe_code)]

mod core;
mod error;
mod event;
mod hypercore;
mod log;
mod options;
mod replicate;
mod request;
mod runtime;
mod shared;

pub use bytes::Bytes;
pub use hypercore_bitfield as bitfield;
pub use hypercore_merkle as merkle;
pub use hypercore_merkle::{DiscoveryKey, KeyPair, PublicKey};
pub use hypercore_storage as storage;
pub use hypercore_wire as wire;

pub use crate::{
    error::{Corruption, Error},
    event::{Event, Events, PeerId},
    hypercore::Hypercore,
    options::{Durability, OpenOptions},
    replicate::{PeerInfo, ReplicateOptions, Replication, ReplicationHandle, Role, Stats},
    request::{Audit, Download, GetOptions, Position, SeekOptions, UpdateOptions},
};
