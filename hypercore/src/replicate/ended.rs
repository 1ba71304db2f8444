//! How a connection ended, and when it does.

use std::fmt;

/// How a connection ended that did not fail: see [`Replication::run`](crate::Replication::run).
///
/// # When does a replication end?
///
/// A side *wants more* of a core as long as it
///
/// | is | wants more |
/// | --- | --- |
/// | a writer, or anybody with `download: Some(false)` | never |
/// | a live clone | always |
/// | a full clone | until it has every block of the log, up to the last that any connected peer has told of, also those that no peer has. It waits up to ten seconds for what peers tell that have just connected |
/// | a sparse clone, or a writer with `download: Some(true)` | always: its owner may ask for a block at any time |
///
/// and each side tells the other when it no longer does. Once neither wants more, a side that is not live
/// closes the core, and with the last core the connection ends. So, for the two sides of a core:
///
/// | one side | the other | ends |
/// | --- | --- | --- |
/// | writer | full clone | when the clone has everything: `Complete` on both sides |
/// | full clone | full clone | when both have every block that either had: `Complete` on both |
/// | full clone | full clone, blocks missing on both | when a third peer has brought them; until then both wait |
/// | writer | writer, or a clone that does not download | at once: `Complete` on both |
/// | empty | empty, full clones | as soon as both have said so: `Complete` on both |
/// | live writer | full clone | when the clone has everything: `Complete` there, `RemoteClosed` here |
/// | any | live clone | never |
/// | any | sparse clone | never |
/// | has the core | does not have it | at once, unless live: `Refused` |
/// | `upload: false` | full clone | when others have brought every block it has been told of |
/// | has not every block: some are cleared, damaged or too large to be sent | full clone | when others have brought them; until then both wait |
///
/// "Never" is until one side drops its [`Replication`](crate::Replication), closes the core, or
/// loses the connection: the other side then ends with `RemoteClosed`, or with an error if bytes
/// were lost. What a side lacks is told by [`Hypercore::progress`](crate::Hypercore::progress), and on
/// what its requests wait by [`Hypercore::waiting`](crate::Hypercore::waiting).
///
/// What each side knows at the end: `Complete` means that this side wanted nothing more. After
/// `RemoteClosed` a clone may lack blocks; those it has are verified and stored, and the next
/// connection goes on from there. Whether the remote was lost, rather than left, tells
/// [`ReplicationHandle::owed_answers`](crate::ReplicationHandle::owed_answers).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Ended {
    /// Neither side wanted anything more of any core.
    Complete,
    /// The connection was closed here, or a core was taken off it, with a
    /// [`ReplicationHandle`](crate::ReplicationHandle): this side may lack blocks that the remote has.
    Closed,
    /// A core was closed here.
    CoreClosed,
    /// The remote does not have the core, or does not know its key; or it was not let in to the core here
    /// ([`on_core_authenticate`](crate::ReplicateOptions::on_core_authenticate)).
    Refused,
    /// The remote closed a core, or the connection, while this side was live or wanted more.
    RemoteClosed,
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Complete => "everything is exchanged",
            Self::Closed => "the connection was closed here",
            Self::CoreClosed => "the core was closed",
            Self::Refused => "the peer does not have this core, or may not have it",
            Self::RemoteClosed => "the peer closed the connection",
        })
    }
}
