//! The bytes between the transport and the frames, in both directions.

use std::ops::{Deref, DerefMut};

use bytes::{Buf, Bytes, BytesMut};

use crate::Error;

/// The least free space offered for a read.
const MIN_READ: usize = 1024;

/// Bytes, and how much memory they hold: the capacity of a [`BytesMut`] leaves out what was taken from
/// its front, of which nothing is given back before all is.
#[derive(Default)]
pub(crate) struct Buffer {
    bytes: BytesMut,
    taken: usize,
}

impl Buffer {
    /// The memory held, with what was taken and free space.
    pub(crate) fn memory(&self) -> usize {
        self.memory_beside(0)
    }

    /// The same, and that of `others` which were taken: they are here, if no more than these were.
    fn memory_beside(&self, others: usize) -> usize {
        self.bytes.capacity().saturating_add(self.taken.max(others))
    }

    /// Adds to the bytes by `change`.
    pub(crate) fn grow<T>(&mut self, change: impl FnOnce(&mut BytesMut) -> T) -> T {
        let before = self.bytes.capacity();
        let result = change(&mut self.bytes);
        // Where there is more room behind them they were moved to the front, here or elsewhere.
        if self.bytes.capacity() > before {
            self.taken = 0;
        }
        result
    }

    /// Takes the first `n` bytes.
    pub(crate) fn split_to(&mut self, n: usize) -> BytesMut {
        self.taken = self.taken.saturating_add(n);
        self.bytes.split_to(n)
    }

    /// Drops the first `n` bytes.
    pub(crate) fn advance(&mut self, n: usize) {
        self.taken = self.taken.saturating_add(n);
        self.bytes.advance(n);
    }
}

impl From<BytesMut> for Buffer {
    fn from(bytes: BytesMut) -> Self {
        Self { bytes, taken: 0 }
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.bytes
    }
}

/// Received bytes, as yet not taken.
///
/// ```text
/// | filled: received | spare: for the next read |
/// 0             filled                  buf.len()
/// ```
///
/// Always `filled <= buf.len()`; [`Inbox::take`] and [`Inbox::skip`] are given at most
/// `filled().len()`. What is taken shares the memory; nothing is copied but an unfinished rest,
/// once, when the buffer is full.
pub(crate) struct Inbox {
    buf: Buffer,
    filled: usize,
    /// The free space to offer, which follows the size of the reads.
    read: usize,
    small_reads: u8,
}

impl Inbox {
    pub(crate) fn new() -> Self {
        Self {
            buf: Buffer::default(),
            filled: 0,
            read: MIN_READ,
            small_reads: 0,
        }
    }

    /// Free space for at most `max` bytes, and at least one.
    pub(crate) fn spare(&mut self, max: usize) -> &mut [u8] {
        let read = self.read.clamp(1, max.max(1));
        // An idle connection does not hold on to the memory of a past transfer.
        if self.filled == 0 && self.offered() > read.saturating_mul(4) {
            self.buf = Buffer::default();
        }
        // Short rests are used up, so that one allocation serves many reads.
        if self.offered() < read.div_ceil(4) {
            // A large frame grows by its own size, so that it is moved only a few times.
            let spare = read.max(self.filled.min(max));
            let len = self.filled.saturating_add(spare);
            self.buf.grow(|buf| buf.resize(len, 0));
        }
        self.buf.split_at_mut(self.filled).1
    }

    /// The same while memory is short: if there is no free space left, as little as is worth moving what
    /// was received.
    pub(crate) fn spare_little(&mut self, max: usize) -> &mut [u8] {
        if self.offered() == 0 {
            let spare = max.max(self.filled / 4);
            // A vector would grow by its own size.
            let mut buf = BytesMut::with_capacity(self.filled.saturating_add(spare));
            buf.extend_from_slice(self.filled());
            buf.resize(self.filled.saturating_add(spare), 0);
            self.buf = buf.into();
        }
        self.buf.split_at_mut(self.filled).1
    }

    /// The first `n` bytes of the spare space hold received bytes, which are returned.
    pub(crate) fn fill(&mut self, n: usize) -> Result<&mut [u8], Error> {
        let spare = self.offered();
        if n > spare {
            return Err(Error::ReadTooLong { read: n, spare });
        }
        if n == spare {
            self.read = self.read.saturating_mul(2).min(1 << 30);
            self.small_reads = 0;
        } else if n < self.read >> 2 {
            self.small_reads = self.small_reads.saturating_add(1);
            if self.small_reads == 8 {
                self.read = (self.read >> 1).max(MIN_READ);
                self.small_reads = 0;
            }
        } else {
            self.small_reads = 0;
        }
        let (_, spare) = self.buf.split_at_mut(self.filled);
        self.filled = self.filled.saturating_add(n);
        Ok(spare.split_at_mut(n).0)
    }

    /// Gives free space back, unless it is about as large as what is filled, which would be copied too often.
    pub(crate) fn release(&mut self) {
        if self.filled <= self.buf.memory() >> 2 {
            self.buf = BytesMut::from(self.filled()).into();
        }
    }

    /// The free space that is there.
    fn offered(&self) -> usize {
        self.buf.len().saturating_sub(self.filled)
    }

    /// The memory held, free space included, together with `queued` bytes that were taken and are not yet
    /// given back.
    pub(crate) fn memory(&self, queued: usize) -> usize {
        self.buf.memory_beside(queued)
    }

    pub(crate) fn filled(&self) -> &[u8] {
        self.buf.split_at(self.filled).0
    }

    pub(crate) fn filled_mut(&mut self) -> &mut [u8] {
        self.buf.split_at_mut(self.filled).0
    }

    /// Takes the first `n` received bytes.
    pub(crate) fn take(&mut self, n: usize) -> Bytes {
        self.filled = self.filled.saturating_sub(n);
        self.buf.split_to(n).freeze()
    }

    /// Drops the first `n` received bytes.
    pub(crate) fn skip(&mut self, n: usize) {
        self.filled = self.filled.saturating_sub(n);
        self.buf.advance(n);
    }
}
