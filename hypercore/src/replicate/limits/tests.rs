//! The limits are those that `RELIABILITY.md` promises. Most tests of a limit set one of their
//! own, which they reach sooner, and would not notice another default.

use std::time::Duration;

use hypercore_wire::{Budget, KEEP_ALIVE_WINDOW, Limits, UNMATCHED_WINDOW};

use super::PeerLimits;
use crate::{AdmissionLimits, ReplicateOptions};

/// The limit in the row that begins with `what`, and what happens beyond it.
fn row(what: &str) -> [&'static str; 2] {
    let start = format!("| {what} | ");
    let mut rows = include_str!("../../../RELIABILITY.md").lines();
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
        bytes(PeerLimits::default().unsent_answers),
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
fn limits_of_a_peer_are_those_of_the_table() {
    let limits = PeerLimits::default();
    let check = |what, limit: String| assert_eq!(row(what)[0], limit, "{what}");
    let [of_core, of_connection, of_all] = [
        limits.remote_bitfield,
        limits.remote_bitfields,
        limits.all_remote_bitfields,
    ]
    .map(bytes);
    check(
        "bitfield of a remote",
        format!("{of_core} a core, {of_connection} a connection, {of_all} of all"),
    );
    let of_reader = bytes(limits.reader_bitfield);
    check(
        "the same of one who is asked for nothing",
        format!("{of_reader} a core"),
    );
    let nodes = bytes(limits.remote_nodes);
    check(
        "nodes that a remote's requests tell it has",
        format!("{nodes} a core"),
    );
    assert_eq!(limits.want_pause, Duration::from_secs(1));
    let (at_once, a_second) = (limits.wants, limits.wants_per_second);
    check(
        "Want",
        format!("{at_once}, then {a_second}/s, each window once a second"),
    );
    let (core, all) = (limits.requests, limits.requests_of_connection);
    check(
        "requests that wait",
        format!("{core} a core, {all} a connection"),
    );
    let (at_once, a_second) = (limits.refusals, limits.refusals_per_second);
    let waiting = limits.waiting_refusals;
    let beyond = format!("{waiting} a core wait for that, others are not answered");
    let refusals = format!("{at_once}, then {a_second}/s");
    assert_eq!(row("answers \"not here\""), [refusals, beyond]);
    check(
        "blocks nobody asked for",
        limits.unrequested_blocks.to_string(),
    );
    assert_eq!(limits.unsent_news, 262_144);
    check(
        "what is new, while nobody polls a connection",
        "262,144 messages a core".into(),
    );
}
