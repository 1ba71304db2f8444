//! What the files of two directories have in common.

use std::path::Path;

/// The files whose every byte follows from key pair and blocks.
pub(crate) const LOG: [&str; 2] = ["data", "tree"];
pub(crate) const KEYS: [&str; 2] = ["key", "secret_key"];

/// Asserts that two directories have these files byte for byte the same.
pub(crate) fn assert_same(ours: &Path, theirs: &Path, names: &[&str]) {
    for name in names {
        let (a, b) = (read(&ours.join(name)), read(&theirs.join(name)));
        if let Some(offset) = (0..a.len().max(b.len())).find(|&at| a.get(at) != b.get(at)) {
            panic!(
                "{name} differs at byte {offset}: {:?} of {} bytes in {ours:?}, {:?} of {} bytes in {theirs:?}",
                a.get(offset),
                a.len(),
                b.get(offset),
                b.len()
            );
        }
    }
}

/// The signature over the log at this length, as hex (Hypercore 9 `lib/storage.js`: 32 bytes of header, 64 a block).
pub(crate) fn signature(dir: &Path, length: usize) -> String {
    let all = read(&dir.join("signatures"));
    let slot = all.get(32 + 64 * (length - 1)..32 + 64 * length);
    hex::encode(slot.unwrap_or_else(|| panic!("{dir:?} has no signature at length {length}")))
}

/// A file that is not there is empty: Node makes `data` when there is something to write.
fn read(path: &Path) -> Vec<u8> {
    match std::fs::read(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
        read => read.unwrap_or_else(|error| panic!("cannot read {path:?}: {error}")),
    }
}
