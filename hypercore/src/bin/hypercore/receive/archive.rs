//! Unpacks the archive of a folder, which somebody else has made.
//!
//! The names and attributes of an entry stand in front of it, each as long as its maker likes, and the
//! crate `tar` reads all of them into memory before it hands out the entry. So what it reads between two
//! entries is counted: it never parses differently from what counts it.

use std::{
    cell::Cell,
    fs,
    io::{self, Read},
    path::{self, Path},
    rc::Rc,
};

use tar::{Entries, Entry, EntryType};

use crate::parts::split_bytes;

/// A path or the target of a link: no system takes a longer one.
const MAX_PATH: usize = 4096;

/// All that may stand in front of an entry: the padding of the one before, a header of PAX with 64 KiB, both
/// names, their own headers, and the list of the holes of a sparse file.
const MAX_HEAD: u64 = 80 * 1024;

/// Unpacks all of `archive` into the directory `to`, and nothing to anywhere else.
pub(super) fn unpack(archive: impl Read, to: &Path) -> io::Result<()> {
    let (archive, room) = Counted::new(archive);
    let mut archive = tar::Archive::new(archive);
    archive.set_preserve_mtime(true);
    let mut entries = archive.entries()?;
    let to = fs::canonicalize(to)?;
    // Their permissions may be such that nothing could be written to them.
    let mut directories = Vec::new();
    while let Some(mut entry) = next(&mut entries, &room)? {
        let is_directory = entry.header().entry_type() == EntryType::Directory;
        if !is_directory {
            entry.unpack_in(&to)?;
        }
        // What is left of it is not part of the next head. Of a file with holes nothing is, unless it was
        // to lead out of here; and holes can be longer than anybody waits.
        if entry.header().entry_type() != EntryType::GNUSparse {
            io::copy(&mut entry, &mut io::sink())?;
        }
        if is_directory {
            directories.push(entry);
        }
    }
    // Those within others first, for the same reason.
    directories.sort_by(|a, b| b.path_bytes().cmp(&a.path_bytes()));
    for mut directory in directories {
        directory.unpack_in(&to)?;
    }
    Ok(())
}

/// What the folder itself was to whom, where its archive begins with that.
pub(super) fn mode_of_folder(archive: impl Read) -> io::Result<Option<u32>> {
    let (archive, room) = Counted::new(archive);
    let mut archive = tar::Archive::new(archive);
    let Some(first) = next(&mut archive.entries()?, &room)? else {
        return Ok(None);
    };
    let path = first.path()?;
    let is_folder = path.components().eq([path::Component::CurDir]);
    is_folder.then(|| first.header().mode()).transpose()
}

/// The next entry, of which no more than its head has been read.
fn next<'a, R: Read>(
    entries: &mut Entries<'a, R>,
    room: &Room,
) -> io::Result<Option<Entry<'a, R>>> {
    room.set(Some(MAX_HEAD));
    let entry = entries.next().transpose()?;
    room.set(None);
    if let Some(entry) = &entry {
        let link = entry.link_name_bytes();
        for name in [Some(entry.path_bytes()), link].iter().flatten() {
            check_name(name)?;
        }
    }
    Ok(entry)
}

/// Of a path that is too long, those who are told would get all of it.
fn check_name(name: &[u8]) -> io::Result<()> {
    if name.len() <= MAX_PATH {
        return Ok(());
    }
    let start = String::from_utf8_lossy(split_bytes(name, 32).0);
    Err(io::Error::other(format!(
        "`{start}...` is a name of {} bytes, and {MAX_PATH} are the limit",
        name.len()
    )))
}

/// How many bytes of the head of an entry may still be read; nothing where this is no head.
type Room = Rc<Cell<Option<u64>>>;

/// An archive of which no head takes more than [`MAX_HEAD`].
struct Counted<R> {
    archive: R,
    room: Room,
}

impl<R: Read> Counted<R> {
    fn new(archive: R) -> (Self, Room) {
        let room = Room::default();
        let counted = Self {
            archive,
            room: Rc::clone(&room),
        };
        (counted, room)
    }
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(room) = self.room.get() else {
            return self.archive.read(buffer);
        };
        if room == 0 && !buffer.is_empty() {
            return Err(io::Error::other(format!(
                "one of its entries has more than {} KiB of names, attributes and holes",
                MAX_HEAD / 1024
            )));
        }
        let count = self.archive.by_ref().take(room).read(buffer)?;
        self.room.set(Some(room.saturating_sub(count as u64)));
        Ok(count)
    }
}
