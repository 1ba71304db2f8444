//! What a remote may ask of a core, and have it hold.

#[cfg(test)]
mod tests;

use std::time::Duration;

use super::{load::OUR_QUESTIONS, pace::MAX_REQUESTS};
use crate::request::setters;

/// What a remote may ask of a core, and have it hold, beside the bytes and messages that
/// [`wire::Limits`](crate::wire::Limits) allows.
///
/// ```
/// use hypercore::{PeerLimits, ReplicateOptions};
///
/// // For a small machine that is asked by few.
/// let limits = PeerLimits::default().all_remote_bitfields(8 << 20).wants_per_second(2);
/// let options = ReplicateOptions::live().peer_limits(limits);
/// assert_eq!(options.peer_limits.all_remote_bitfields, 8 << 20);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PeerLimits {
    /// Bytes of memory for which blocks of one core the remote says it has. The default is enough for
    /// any pattern of 33 million of them. Beyond it the connection ends.
    pub remote_bitfield: usize,
    /// The same for all cores of the connection.
    pub remote_bitfields: usize,
    /// The same for all connections of this process, which count together whatever each of them
    /// allows. Beyond it those are closed that tell more, and have more than
    /// [`reader_bitfield`](field@Self::reader_bitfield) of a core.
    pub all_remote_bitfields: usize,
    /// The same for one core of a remote that is asked for nothing, as by a writer. Beyond it all but the
    /// last block is forgotten.
    pub reader_bitfield: usize,
    /// Bytes of memory for the nodes of the tree of one core that the remote has, as its requests tell.
    /// Beyond it they are forgotten, and some are sent once more.
    pub remote_nodes: usize,
    /// Wants that are answered at once, at least one. Each costs a compressed bitfield of up to 128 KiB;
    /// Node has 16 under way. More have to wait.
    pub wants: u32,
    /// Wants that are answered in a second after that.
    pub wants_per_second: u32,
    /// A window that was told of is not told of again for this long, as far as it is one of the last 64.
    pub want_pause: Duration,
    /// Questions about one core that wait for an answer, at least one. With so many nothing more is read
    /// of the connection. A peer of this crate asks up to 512 at a time: two that allow each other less may
    /// wait for each other until [`send_stall`](crate::wire::Limits::send_stall) ends it.
    pub requests: usize,
    /// The same for all cores of the connection; a peer of this crate asks up to 960.
    pub requests_of_connection: usize,
    /// Requests for blocks that are not here which are answered so at once, at least one.
    pub refusals: u32,
    /// Such requests that are answered in a second after that.
    pub refusals_per_second: u32,
    /// Such requests of one core that wait for that. More are not answered.
    pub waiting_refusals: usize,
    /// Blocks of one core that nobody asked for. With one more the connection ends.
    pub unrequested_blocks: usize,
    /// Bytes that wait to be sent, at least one, with which no more questions are answered. What
    /// [`send_buffer`](crate::wire::Limits::send_buffer) allows has to be more by the longest block, and
    /// some KiB for its proof.
    pub unsent_answers: usize,
    /// Messages on what is new in one core, while nobody polls the connection, or nothing is taken from it.
    /// With more it ends.
    pub unsent_news: usize,
}

impl Default for PeerLimits {
    fn default() -> Self {
        Self {
            remote_bitfield: 4 << 20,
            remote_bitfields: 16 << 20,
            all_remote_bitfields: 128 << 20,
            reader_bitfield: 8 << 10,
            remote_nodes: 32 << 10,
            wants: 32,
            wants_per_second: 16,
            want_pause: Duration::from_secs(1),
            requests: MAX_REQUESTS + 128,
            requests_of_connection: OUR_QUESTIONS + 64,
            refusals: 64,
            refusals_per_second: 64,
            waiting_refusals: MAX_REQUESTS,
            unrequested_blocks: 16,
            unsent_answers: 1 << 20,
            unsent_news: 1 << 18,
        }
    }
}

setters!(PeerLimits {
    remote_bitfield: usize,
    remote_bitfields: usize,
    all_remote_bitfields: usize,
    reader_bitfield: usize,
    remote_nodes: usize,
    wants: u32,
    wants_per_second: u32,
    want_pause: Duration,
    requests: usize,
    requests_of_connection: usize,
    refusals: u32,
    refusals_per_second: u32,
    waiting_refusals: usize,
    unrequested_blocks: usize,
    unsent_answers: usize,
    unsent_news: usize,
});
