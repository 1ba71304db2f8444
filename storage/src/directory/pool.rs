//! Keeps few files open for many logs.
//!
//! A clock: files stand in a circle, and when there are too many, the first that was not used since
//! it was last looked at is closed. A file that is in use costs one store for that.

use std::{
    collections::VecDeque,
    sync::{Mutex, Weak},
};

use super::{disk_file::DiskFile, lock};

/// Enough for fifty logs that are used at the same time, and a quarter of the files that Linux lets
/// a process open by default. Opening a file again takes microseconds.
const MAX_OPEN: usize = 256;

/// Those that are open, without the locked ones, which stay open.
static OPEN: Mutex<VecDeque<Weak<DiskFile>>> = Mutex::new(VecDeque::new());

/// Takes in a file that was just opened, and closes others in its place.
pub(super) fn admit(file: Weak<DiskFile>) {
    let mut open = lock(&OPEN);
    open.push_back(file);
    // Twice around at most: once for those that were used, once to close them. More than that are
    // there only if they may not be closed.
    for _ in 0..2 * MAX_OPEN {
        if open.len() <= MAX_OPEN {
            break;
        }
        let oldest = open.pop_front();
        if let Some(file) = oldest
            .and_then(|file| file.upgrade())
            .filter(|file| !file.rest())
        {
            open.push_back(file.this());
        }
    }
}
