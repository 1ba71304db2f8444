use std::time::Duration;

use crate::Budget;

/// What a remote may make us keep, wait for and work on.
///
/// The defaults leave every honest peer alone. A limit that is passed ends the session with the
/// [`Error`](crate::Error) that names it, except where a field says otherwise.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Limits {
    /// Longest handshake message; the three honest ones have 58, 122 and 90 bytes.
    pub handshake_message: usize,
    /// Time for the whole handshake, not extended by progress.
    pub handshake_duration: Duration,
    /// Longest frame body while no channel is verified, if that is less than [`frame`](Self::frame): an Open
    /// has 68 bytes, Options a few more.
    pub unverified_frame: usize,
    /// Longest frame body, which is simple-message-channels' `maxSize`. Nothing longer is
    /// sent.
    pub frame: usize,
    /// Longest frame body that is received, if that is less. Blocks are the only long messages, so
    /// who downloads nothing can do with 256 KiB.
    pub received_frame: usize,
    /// Bytes per second below which an unfinished frame is given up after ten seconds. A slow remote
    /// is an honest one, so this only ends a frame that will never be complete. What the frame takes
    /// of memory is limited by the budgets.
    pub frame_rate: usize,
    /// [`frame_rate`](Self::frame_rate) for strangers: while no channel is verified.
    pub unverified_frame_rate: usize,
    /// Time in which a stranger must complete a frame, whatever its rate.
    pub unverified_frame_duration: Duration,
    /// Largest free space offered by `receive_buffer`. What is offered starts small and follows the
    /// size of the reads.
    pub read: usize,
    /// Keep-alives within [`KEEP_ALIVE_WINDOW`](crate::KEEP_ALIVE_WINDOW).
    pub keep_alives: u32,
    /// Bytes waiting to be sent, above which no message is accepted. The last one may pass this by its
    /// own length, and what opens and closes channels by a MiB more.
    pub send_buffer: usize,
    /// Time after which a remote that takes none of the bytes waiting is given up, whatever the
    /// timeout of the session.
    pub send_stall: Duration,
    /// Largest channel number. Numbers are never used twice, so this counts the opens of a whole
    /// connection; the default is the largest that Node can read.
    pub channel_number: u32,
    /// Channels we have open at a time.
    pub channels: usize,
    /// Channels opened by the remote and not by us; the oldest is rejected to make room.
    pub unmatched_channels: usize,
    /// How often such channels may be opened within
    /// [`UNMATCHED_WINDOW`](crate::UNMATCHED_WINDOW).
    pub unmatched_opens: u32,
    /// Names in one list of extensions.
    pub extension_names: usize,
    /// Bytes of the name of an extension.
    pub extension_name: usize,
    /// Bytes of one message of a declared extension. Nothing longer is sent.
    pub extension_message: usize,
    /// Nodes in one Data message. A proof needs two for every level of a tree of at most 52.
    pub nodes: usize,
    /// Memory that this connection shares with others for what was received and not yet polled, by
    /// default 128 MiB with all of the process. While it is short, nothing more is read from those
    /// who hold most of it, but of one at a time (see [`Budget`]), and a remote without a verified channel
    /// that sends a frame in pieces is given up.
    pub receive_budget: Budget,
    /// Memory that this connection shares with others for what was received and what waits to be
    /// sent, free space included, by default 256 MiB with all of the process. While it is short, those
    /// who hold most of it get no answers.
    pub budget: Budget,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            handshake_message: 512,
            handshake_duration: Duration::from_secs(10),
            unverified_frame: 64 << 10,
            frame: 8 << 20,
            received_frame: 8 << 20,
            frame_rate: 1 << 10,
            unverified_frame_rate: 16 << 10,
            unverified_frame_duration: Duration::from_secs(60),
            read: 256 << 10,
            keep_alives: 10_000,
            send_buffer: 16 << 20,
            send_stall: Duration::from_secs(60),
            channel_number: (1 << 27) - 1,
            channels: 1024,
            unmatched_channels: 256,
            unmatched_opens: 4096,
            extension_names: 256,
            extension_name: 256,
            extension_message: 64 << 10,
            nodes: 128,
            receive_budget: Budget::of_received(),
            budget: Budget::of_everything(),
        }
    }
}
