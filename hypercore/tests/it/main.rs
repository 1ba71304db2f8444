//! Tests of the facade through its public API.

mod compat;
mod core;
mod crash;
mod damage;
#[cfg(feature = "mdns")]
mod discovery;
mod durability;
mod exact_digests;
mod extremes;
mod flips;
mod fork;
mod hashes;
mod imported;
mod indexing;
mod model;
mod network;
mod node_basic;
mod node_peers;
mod node_replicate;
mod node_streams;
mod node_tree;
mod parity;
mod puppet;
mod replay;
mod replicate;
mod secrets;
mod signer;
mod static_logs;
mod support;
mod transports;
mod turns;
mod vectors;
