//! How many files the system lets this process hold open. Sockets are files to it.

use std::io;

/// Files that are not connections: those of the core, of the runtime, and of whoever asks for figures.
const KEPT: u64 = 64;

/// Asks for as many files as everybody may have. Where that is refused, what there is has to do.
pub(crate) fn ask_for_more() {
    #[cfg(unix)]
    {
        use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
        let maximum = getrlimit(Resource::Nofile).maximum;
        let most = Rlimit {
            current: maximum,
            maximum,
        };
        let _ = setrlimit(Resource::Nofile, most);
    }
}

/// How many peers can be connected, where so many other `connections` are to be left room for.
pub(crate) fn for_peers(connections: usize) -> usize {
    #[cfg(unix)]
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    #[cfg(not(unix))]
    let limit = None;
    limit.map_or(usize::MAX, |limit| left(limit, connections))
}

/// What is left of `limit`: one at least, or nobody would be served at all.
fn left(limit: u64, connections: usize) -> usize {
    let others = KEPT.saturating_add(connections as u64);
    let peers = limit.saturating_sub(others).max(1);
    usize::try_from(peers).unwrap_or(usize::MAX)
}

/// What to do about a connection that was not accepted.
pub(crate) fn advice(error: &io::Error) -> &'static str {
    #[cfg(unix)]
    if error.raw_os_error() == Some(rustix::io::Errno::MFILE.raw_os_error()) {
        return "; let it have more of them with `ulimit -n`";
    }
    let _ = error;
    ""
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_kept_for_what_is_no_peer() {
        for (limit, connections, expected) in [
            (1024, 0, 960),
            (1024, 128, 832),
            (10, 128, 1),
            (u64::MAX, 0, usize::MAX - 64),
        ] {
            assert_eq!(left(limit, connections), expected);
        }
    }
}
