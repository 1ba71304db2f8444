//! The archive of a folder, as the blocks of a core.

use std::{
    fs::{self, File, Metadata},
    io::{self, Read, Write},
    path::{Path, PathBuf},
    thread,
};

use async_channel::{Receiver, Sender};
use hypercore::Bytes;

use super::{
    BLOCK_SIZE,
    state::{self, State, Walk, is_gone},
    unreadable,
};
use crate::{errors::Result, input::Batches, parts::split_bytes};

/// An archive that is being made.
pub(super) struct Archive {
    pub(super) batches: Batches,
    /// What people should know about it.
    pub(super) remarks: Receiver<String>,
    /// How the folder looked, once all was read.
    pub(super) state: Receiver<String>,
}

impl Archive {
    pub(super) fn of(folder: PathBuf) -> Self {
        let (sender, batches) = async_channel::bounded(4);
        let (remark, remarks) = async_channel::unbounded();
        let (done, state) = async_channel::bounded(1);
        thread::spawn(move || {
            // Nobody listens any more when the program is ending.
            let _ = match write(folder, &sender, &remark) {
                Ok(state) => done.try_send(state).is_ok(),
                Err(failure) => sender.send_blocking(Err(failure)).is_ok(),
            };
        });
        Self {
            batches,
            remarks,
            state,
        }
    }
}

/// Writes everything that is in `folder`, and tells how it looked.
fn write(
    folder: PathBuf,
    sender: &Sender<Result<Vec<Bytes>>>,
    remarks: &Sender<String>,
) -> Result<String> {
    let mut builder = tar::Builder::new(BlockWriter {
        buffer: Vec::new(),
        sender: sender.clone(),
    });
    let mut state = State::default();
    let remark = |text| drop(remarks.try_send(text));
    for entry in Walk::of(&folder) {
        let entry = entry?;
        let shown = entry.path.display();
        if let Some(reason) = entry.left_out() {
            remark(format!("`{shown}` is left out: {reason}."));
            continue;
        }
        let kind = entry.metadata.file_type();
        let mut metadata = entry.metadata.clone();
        let mut header = tar::Header::new_gnu();
        header.set_metadata(&metadata);
        let written = if kind.is_dir() {
            let is_root = entry.name.as_os_str().is_empty();
            let name = if is_root {
                Path::new("./")
            } else {
                &entry.name
            };
            builder.append_data(&mut header, name, io::empty())
        } else if kind.is_symlink() {
            header.set_size(0);
            fs::read_link(&entry.path)
                .and_then(|to| builder.append_link(&mut header, &entry.name, to))
        } else {
            File::open(&entry.path).and_then(|file| {
                metadata = file.metadata()?;
                header.set_metadata(&metadata);
                let mut content = Padded::of(file).take(metadata.len());
                builder.append_data(&mut header, &entry.name, &mut content)?;
                if content.get_ref().has_changed(&metadata)? {
                    remark(format!("`{shown}` was written to while it was read."));
                }
                Ok(())
            })
        };
        match written {
            // Nothing of it was written yet.
            Err(error) if is_gone(&error) => continue,
            written => written.map_err(|error| unreadable(&entry.path, &error))?,
        }
        state.add(&entry, &metadata);
    }
    let ended = builder.into_inner().and_then(|mut blocks| blocks.flush());
    ended.map_err(|error| unreadable(&folder, &error))?;
    Ok(state.finish())
}

/// A file with zeros after it, of which as much is taken as its header says, whatever becomes of the
/// file meanwhile: what was more or less would spoil everything after it.
struct Padded {
    file: File,
    padded: bool,
}

impl Padded {
    fn of(file: File) -> Self {
        Self {
            file,
            padded: false,
        }
    }

    /// Whether it is not as it was `before` it was read.
    fn has_changed(&self, before: &Metadata) -> io::Result<bool> {
        let now = self.file.metadata()?;
        Ok(self.padded || state::of_file(&now) != state::of_file(before))
    }
}

impl Read for Padded {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read(buffer)?;
        if count > 0 || buffer.is_empty() {
            return Ok(count);
        }
        self.padded = true;
        buffer.fill(0);
        Ok(buffer.len())
    }
}

/// Cuts what is written into blocks.
struct BlockWriter {
    buffer: Vec<u8>,
    sender: Sender<Result<Vec<Bytes>>>,
}

impl BlockWriter {
    fn send(&mut self) -> io::Result<()> {
        let block = std::mem::take(&mut self.buffer).into();
        let sent = self.sender.send_blocking(Ok(vec![block]));
        sent.map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

impl Write for BlockWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = BLOCK_SIZE.saturating_sub(self.buffer.len() as u64);
        let (part, _) = split_bytes(bytes, room);
        self.buffer.extend_from_slice(part);
        if part.len() as u64 == room {
            self.send()?;
        }
        Ok(part.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        self.send()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// The files of the archive, in their order.
    fn unpacked(archive: &Archive) -> Vec<(PathBuf, Vec<u8>)> {
        let mut bytes = Vec::new();
        while let Ok(batch) = archive.batches.recv_blocking() {
            bytes.extend(batch.unwrap().concat());
        }
        let mut archive = tar::Archive::new(&bytes[..]);
        let entries = archive.entries().unwrap();
        entries
            .map(|entry| {
                let mut entry = entry.unwrap();
                let mut content = Vec::new();
                entry.read_to_end(&mut content).unwrap();
                (entry.path().unwrap().into_owned(), content)
            })
            .collect()
    }

    #[test]
    fn a_file_has_the_size_that_was_announced() {
        let scene = tempfile::tempdir().unwrap();
        let path = scene.path().join("file");
        for (now, expected) in [
            ("abcdef", "abc"),
            ("a", "a\0\0"),
            ("abc", "abc"),
            ("xyz", "xyz"),
        ] {
            fs::write(&path, "abc").unwrap();
            let file = File::open(&path).unwrap();
            let before = file.metadata().unwrap();
            if now != "abc" {
                // Times are no finer than this everywhere.
                thread::sleep(Duration::from_millis(20));
                fs::write(&path, now).unwrap();
            }
            let mut content = Padded::of(file).take(3);
            let mut read = String::new();
            content.read_to_string(&mut read).unwrap();
            assert_eq!(read, expected);
            let has_changed = content.get_ref().has_changed(&before).unwrap();
            assert_eq!(has_changed, now != "abc", "{now}");
        }
    }

    #[test]
    fn a_file_that_grows_meanwhile_spoils_nothing_after_it() {
        let scene = tempfile::tempdir().unwrap();
        let grows = scene.path().join("a");
        fs::write(&grows, vec![1; 8 << 20]).unwrap();
        fs::write(scene.path().join("b"), "after it").unwrap();
        let archive = Archive::of(scene.path().to_owned());
        // The archive waits until its first blocks are taken, in the middle of the file.
        while archive.batches.len() < 4 {
            thread::yield_now();
        }
        fs::write(&grows, vec![1; 9 << 20]).unwrap();
        let files = unpacked(&archive);
        assert_eq!(files.len(), 3);
        assert_eq!(files[0], ("./".into(), Vec::new()));
        assert_eq!(files[1].1.len(), 8 << 20);
        assert_eq!(files[2], ("b".into(), b"after it".to_vec()));
        let remark = archive.remarks.recv_blocking().unwrap();
        assert!(
            remark.contains("was written to while it was read"),
            "{remark}"
        );
    }
}
