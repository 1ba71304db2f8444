//! The wire protocol against bytes recorded from Node, against a hostile remote, and against itself.

mod budget;
mod channels;
mod discreet;
mod extremes;
mod handshake;
mod hazards;
mod keys;
mod limits;
mod messages;
mod replication;
mod schedule;
mod support;
mod timers;
