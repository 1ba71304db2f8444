//! Blocks from standard input or a file, in batches, with bounded memory.

use std::{
    fs::{self, File},
    io::{self, BufRead, BufReader, Read, Seek, SeekFrom},
    path::Path,
    thread,
    time::Duration,
};

use async_channel::{Receiver, Sender};
use hypercore::{Bytes, merkle::MAX_BLOCK_SIZE};

use crate::errors::{Failure, Result, reason};

/// Blocks that become one batch, or why there are no more.
pub(crate) type Batches = Receiver<Result<Vec<Bytes>>>;

/// How much is read at once. With [`AHEAD`] batches waiting, some MiB are held at most.
const READ: usize = 256 * 1024;

/// Batches that are read while earlier ones are being written.
const AHEAD: usize = 4;

/// How often a pipe is looked at to which nobody writes.
const PAUSE: Duration = Duration::from_millis(250);

/// Blocks of a file that are appended together.
const FILE_BATCH: usize = 64;

/// Bytes of a file that are appended together, if its blocks are large.
const FILE_BATCH_BYTES: u64 = 4 * 1024 * 1024;

/// These blocks, as one batch.
pub(crate) fn once(batch: Vec<Bytes>) -> Batches {
    let (sender, batches) = async_channel::bounded(1);
    // There is room for one.
    let _ = sender.try_send(Ok(batch));
    batches
}

/// The lines of standard input. What is there already when the reader looks is one batch.
pub(crate) fn lines() -> Batches {
    let (sender, batches) = async_channel::bounded(AHEAD);
    thread::spawn(move || {
        let mut input = BufReader::with_capacity(READ, io::stdin());
        if let Err(failure) = read_lines(&mut input, &sender) {
            // Nobody listens any more when the program is ending.
            let _ = sender.send_blocking(Err(failure));
        }
    });
    batches
}

fn read_lines(input: &mut impl BufRead, batches: &Sender<Result<Vec<Bytes>>>) -> Result<()> {
    let mut line = Vec::new();
    let mut number = 1_u64;
    loop {
        let ready = match input.fill_buf() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            ready => ready.map_err(|error| unreadable("standard input", &error))?,
        };
        if ready.is_empty() {
            break;
        }
        let mut batch = Vec::new();
        let mut too_long = None;
        for piece in ready.split_inclusive(|&byte| byte == b'\n') {
            let (content, ended) = match piece.split_last() {
                Some((b'\n', content)) => (content, true),
                _ => (piece, false),
            };
            line.extend_from_slice(content);
            if line.len() as u64 > MAX_BLOCK_SIZE {
                too_long = Some(Failure::failed(format!(
                    "line {number} of standard input is longer than {MAX_BLOCK_SIZE} bytes, the \
                     limit of a block; use --file - to cut it"
                )));
                break;
            }
            if ended {
                number = number.saturating_add(1);
                batch.push(Bytes::from(std::mem::take(&mut line)));
            }
        }
        let count = ready.len();
        input.consume(count);
        if !batch.is_empty() && batches.send_blocking(Ok(batch)).is_err() {
            return Ok(());
        }
        if let Some(failure) = too_long {
            return Err(failure);
        }
    }
    if !line.is_empty() {
        let _ = batches.send_blocking(Ok(vec![line.into()]));
    }
    Ok(())
}

/// What comes from `path`, a pipe or a device or `-`, as it comes: each piece is a batch of one block.
pub(crate) fn pieces(path: &Path) -> Batches {
    let (path, name) = (path.to_owned(), path.display().to_string());
    let (sender, batches) = async_channel::bounded(AHEAD);
    thread::spawn(move || {
        let mut input = match open(&path, 0) {
            Ok(input) => BufReader::with_capacity(READ, input),
            Err(error) => {
                let _ = sender.send_blocking(Err(unreadable(&name, &error)));
                return;
            }
        };
        loop {
            let batch = match input.fill_buf() {
                Ok([]) if path == Path::new("-") => return,
                Ok([]) => {
                    // Others may open a pipe that has a name, and write to it, too.
                    thread::sleep(PAUSE);
                    continue;
                }
                Ok(piece) => Ok(vec![Bytes::copy_from_slice(piece)]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => Err(unreadable(&name, &error)),
            };
            input.consume(input.buffer().len());
            let is_last = batch.is_err();
            if sender.send_blocking(batch).is_err() || is_last {
                return;
            }
        }
    });
    batches
}

/// Opens `path` for reading from byte `start` on. A pipe makes that wait until somebody writes to it.
fn open(path: &Path, start: u64) -> io::Result<Box<dyn Read>> {
    if path == Path::new("-") {
        return Ok(Box::new(io::stdin()));
    }
    let mut file = File::open(path)?;
    if start > 0 {
        file.seek(SeekFrom::Start(start))?;
    }
    Ok(Box::new(file))
}

/// The pieces of `block_size` bytes of the file `path` from the byte `start` on, and the size of the
/// file if it has one.
pub(crate) fn file(path: &Path, start: u64, block_size: u64) -> Result<(Batches, Option<u64>)> {
    let (path, name) = (path.to_owned(), path.display().to_string());
    let size = if path == Path::new("-") {
        None
    } else {
        let metadata = fs::metadata(&path).map_err(|error| unreadable(&name, &error))?;
        if metadata.is_dir() {
            return Err(Failure::failed(format!(
                "`{name}` is a directory; --file takes a file"
            )));
        }
        metadata.is_file().then_some(metadata.len())
    };
    let (sender, batches) = async_channel::bounded(1);
    thread::spawn(move || match open(&path, start) {
        Ok(mut input) => cut(&mut input, &name, block_size, &sender),
        Err(error) => {
            let _ = sender.send_blocking(Err(unreadable(&name, &error)));
        }
    });
    Ok((batches, size))
}

/// The same of a file that is open. It comes back once nobody takes its pieces any more.
pub(crate) fn open_file(
    mut file: File,
    path: &Path,
    start: u64,
    block_size: u64,
) -> (Batches, Receiver<File>) {
    let name = path.display().to_string();
    let (sender, batches) = async_channel::bounded(1);
    let (back, returned) = async_channel::bounded(1);
    thread::spawn(move || {
        match file.seek(SeekFrom::Start(start)) {
            Ok(_) => cut(&mut file, &name, block_size, &sender),
            Err(error) => {
                let _ = sender.send_blocking(Err(unreadable(&name, &error)));
            }
        }
        drop(sender);
        // There is room for one.
        let _ = back.try_send(file);
    });
    (batches, returned)
}

/// Sends the pieces of `input` until it ends, or until nobody takes them.
fn cut(input: &mut impl Read, name: &str, block_size: u64, batches: &Sender<Result<Vec<Bytes>>>) {
    let blocks = FILE_BATCH_BYTES.checked_div(block_size);
    let blocks = blocks.map_or(1, |blocks| blocks.clamp(1, FILE_BATCH as u64));
    loop {
        let batch = match read_batch(input, block_size, blocks) {
            Ok(batch) if batch.is_empty() => return,
            batch => batch.map_err(|error| unreadable(name, &error)),
        };
        let is_last = batch.is_err();
        if batches.send_blocking(batch).is_err() || is_last {
            return;
        }
    }
}

pub(crate) fn read_batch(
    input: &mut impl Read,
    block_size: u64,
    blocks: u64,
) -> io::Result<Vec<Bytes>> {
    let mut batch = Vec::new();
    for _ in 0..blocks {
        let mut block = Vec::new();
        input.by_ref().take(block_size).read_to_end(&mut block)?;
        let is_last = (block.len() as u64) < block_size;
        if !block.is_empty() {
            batch.push(block.into());
        }
        if is_last {
            break;
        }
    }
    Ok(batch)
}

fn unreadable(name: &str, error: &io::Error) -> Failure {
    Failure::failed(format!("`{name}` cannot be read: {}", reason(error)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batches(input: &[u8], capacity: usize) -> Vec<Vec<Bytes>> {
        let (sender, receiver) = async_channel::unbounded();
        let mut input = BufReader::with_capacity(capacity, input);
        read_lines(&mut input, &sender).unwrap();
        drop(sender);
        std::iter::from_fn(|| receiver.try_recv().ok())
            .map(|batch| batch.unwrap())
            .collect()
    }

    #[test]
    fn lines_are_cut_at_newlines_only() {
        let expected: Vec<Bytes> = ["a", "", "b\r", "\u{0}", "end"].map(Bytes::from).to_vec();
        for capacity in 1..20 {
            let blocks = batches(b"a\n\nb\r\n\0\nend", capacity).concat();
            assert_eq!(blocks, expected, "read {capacity} bytes at a time");
        }
        assert_eq!(batches(b"a\nb\nc\n", 100).len(), 1);
        assert!(batches(b"", 100).is_empty());
    }

    #[test]
    fn a_line_beyond_the_limit_is_refused() {
        let (sender, _receiver) = async_channel::unbounded();
        let endless = io::repeat(b'x');
        assert!(read_lines(&mut BufReader::new(endless), &sender).is_err());
    }

    #[test]
    fn files_are_cut_into_pieces() {
        let mut input = &[7; 10][..];
        let sizes = |batch: Vec<Bytes>| batch.iter().map(Bytes::len).collect::<Vec<_>>();
        assert_eq!(sizes(read_batch(&mut input, 3, 2).unwrap()), [3, 3]);
        assert_eq!(sizes(read_batch(&mut input, 3, 2).unwrap()), [3, 1]);
        assert!(read_batch(&mut input, 3, 2).unwrap().is_empty());
    }
}
