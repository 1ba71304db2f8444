//! Attacks on `hypercore serve`, over loopback, by those who know the key of its log and by those
//! who do not.
//!
//! Each test is one attack. While it runs, an honest reader fetches blocks and the memory of the
//! server is watched; afterwards the server must answer as before, and end in good order with a log
//! that passes an audit. See [`victim`].
//!
//! The numbers are small enough for `cargo test`; `HYPERCORE_ATTACK_SCALE=10` makes them ten times
//! as large.
#![cfg(target_os = "linux")]

mod attacker;
#[path = "../cli/process.rs"]
#[expect(dead_code, reason = "what the tests of the command line need")]
mod process;
mod readers;
mod strangers;
mod victim;

/// `count`, times what `HYPERCORE_ATTACK_SCALE` says.
fn scaled(count: usize) -> usize {
    let scale = std::env::var("HYPERCORE_ATTACK_SCALE").map_or(1, |scale| {
        scale.parse().expect("HYPERCORE_ATTACK_SCALE is a number")
    });
    count * scale
}
