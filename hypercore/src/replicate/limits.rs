//! The limits on a remote are those that `RELIABILITY.md` promises. Most tests of a limit set one of their
//! own, which they reach sooner, and would not notice another default.

use std::time::Duration;

use hypercore_wire::{Budget, KEEP_ALIVE_WINDOW, Limits, UNMATCHED_WINDOW};

use super::{
    ReplicateOptions,
    connection::SEND_BUFFER,
    peer::{
        REMOTE_BITFIELD_BYTES, REMOTE_BITFIELD_OF_READER, REMOTE_BITFIELDS_OF_ALL,
        REMOTE_TREE_BYTES,
    },
    questions::{
        MAX_QUESTIONS, MAX_QUESTIONS_OF_CONNECTION, MAX_REFUSALS, REFUSALS, WANT_PAUSE, WANTS,
    },
};
use crate::AdmissionLimits;

/// The limit in the row that begins with `what`, and what happens beyond it.
fn row(what: &str) -> [&'static str; 2] {
    let start = format!("| {what} | ");
    let mut rows = include_str!("../../RELIABILITY.md").lines();
    let row = rows.find_map(|line| line.strip_prefix(&start));
    let row = row.unwrap_or_else(|| panic!("no row of {what}"));
    let mut cells = row.split(" | ");
    [(); 2].map(|()| cells.next().expect("a cell"))
}

fn bytes(count: usize) -> String {
    match count {
        _ if count.is_multiple_of(1 << 20) => format!("{} MiB", count >> 20),
        _ if count.is_multiple_of(1 << 10) => format!("{} KiB", count >> 10),
        _ => format!("{count} bytes"),
    }
}

fn seconds(time: Duration) -> String {
    format!("{} s", time.as_secs_f64())
}

/// A budget shows what it allows only to those who debug.
fn is_of(budget: &Budget, bytes: usize) -> bool {
    format!("{budget:?}").contains(&format!("limit: {bytes},"))
}

#[test]
fn limits_are_those_of_the_table() {
    let limits = Limits::default();
    let check = |what, limit: String| assert_eq!(row(what)[0], limit, "{what}");
    let minute = Duration::from_secs(60);

    let message = bytes(limits.handshake_message);
    check(
        "handshake message, nonce",
        format!("{message} in a varint of 3; 24 bytes"),
    );
    let duration = seconds(limits.handshake_duration);
    check("handshake", format!("{duration} in all; 4 KiB"));
    check(
        "frame before a channel is verified",
        bytes(limits.unverified_frame),
    );
    check(
        "frame afterwards",
        format!("{}; for `serve` 256 KiB", bytes(limits.frame)),
    );
    assert_eq!(limits.received_frame, limits.frame);
    let unfinished = format!(
        "{}/s after 10 s; of strangers {}/s after 10 s, and {} in all",
        bytes(limits.frame_rate),
        bytes(limits.unverified_frame_rate),
        seconds(limits.unverified_frame_duration),
    );
    check("unfinished frame", unfinished);
    assert!(is_of(&limits.receive_budget, 128 << 20), "{limits:?}");
    check(
        "received by all connections",
        "128 MiB; `serve` 16 MiB; at most twice that".into(),
    );
    assert!(is_of(&limits.budget, 256 << 20), "{limits:?}");
    check(
        "received and to be sent, by all, free space included",
        "256 MiB; `serve` 32 MiB".into(),
    );
    assert_eq!(
        (limits.keep_alives, KEEP_ALIVE_WINDOW.as_secs()),
        (10_000, 10)
    );
    check("keep-alives", "10,000 in 10 s".into());
    let timeout = ReplicateOptions::default().timeout.expect("there is one");
    check("silence", format!("{} without a byte", seconds(timeout)));
    let (channels, opens) = (limits.unmatched_channels, limits.unmatched_opens);
    check(
        "channels that only the remote opened",
        format!("{channels}; {opens} in a minute"),
    );
    assert_eq!(UNMATCHED_WINDOW, minute);
    check("channels of ours", limits.channels.to_string());
    let (names, name) = (limits.extension_names, limits.extension_name);
    check(
        "names of extensions",
        format!("{names} of {name} bytes; `serve` 64 of 128"),
    );
    let message = bytes(limits.extension_message);
    check(
        "message of an extension",
        format!("{message}; unknown ones are dropped"),
    );
    let waiting = format!(
        "answers pause at {}; {}; {} without a byte taken",
        bytes(SEND_BUFFER),
        bytes(limits.send_buffer),
        seconds(limits.send_stall),
    );
    check("bytes to be sent", waiting);
    check("nodes of a proof", limits.nodes.to_string());
}

#[test]
fn limits_of_a_listener_are_those_of_the_table() {
    let limits = AdmissionLimits::default();
    let (all, of_one) = (limits.handshakes, limits.handshakes_of_address);
    let age = seconds(limits.handshake_age);
    let beyond = format!("one older than {age} makes room, else the newest is refused");
    let allowed = format!("{all}, of an address {of_one}");
    assert_eq!(row("unfinished handshakes"), [allowed, beyond]);
    let (all, of_one) = (limits.connections, limits.connections_of_address);
    let connections = format!("{all}, of an address {of_one} (not of this machine)");
    assert_eq!(row("connections")[0], connections);
    assert!(!limits.loopback);
    let (first, most) = (seconds(limits.back_off), limits.max_back_off.as_secs() / 60);
    let back_off = format!("{first}, doubled up to {most} min");
    assert_eq!(row("an address that misbehaved")[0], back_off);
}

#[test]
fn fixed_limits_are_those_of_the_table() {
    // `peer` has the test of what all of a connection take.
    let bitfield = bytes(REMOTE_BITFIELD_BYTES);
    let of_all = bytes(REMOTE_BITFIELDS_OF_ALL);
    let bitfields = format!("{bitfield} a core, 16 MiB a connection, {of_all} of all (fixed)");
    assert_eq!(row("bitfield of a remote")[0], bitfields);
    let of_reader = format!("{} a core (fixed)", bytes(REMOTE_BITFIELD_OF_READER));
    assert_eq!(
        row("the same of one who is asked for nothing")[0],
        of_reader
    );
    let tree = format!("{} a core (fixed)", bytes(REMOTE_TREE_BYTES));
    assert_eq!(row("nodes that a remote's requests tell it has")[0], tree);
    assert_eq!(WANT_PAUSE, Duration::from_secs(1));
    let wants = format!(
        "{}, then {}/s, each window once a second (fixed)",
        WANTS.0, WANTS.1
    );
    assert_eq!(row("Want")[0], wants);
    let (core, all) = (MAX_QUESTIONS, MAX_QUESTIONS_OF_CONNECTION);
    let requests = format!("{core} a core, {all} a connection (fixed)");
    assert_eq!(row("requests that wait")[0], requests);
    let refusals = format!("{}, then {}/s (fixed)", REFUSALS.0, REFUSALS.1);
    let beyond = format!("{MAX_REFUSALS} a core wait for that, others are not answered");
    assert_eq!(row("answers \"not here\""), [refusals, beyond]);
}
