//! The run-length encoding of bitfields on the wire (`bitfield-rle` 2).
//!
//! ```text
//!   header (varint)   value & 1 == 0      a literal: value / 2 bytes follow
//!                     value & 3 == 1      a run of value / 4 bytes 0x00
//!                     value & 3 == 3      a run of value / 4 bytes 0xff
//! ```
//!
//! Trailing zero bytes are not encoded. What an encoding stands for can be huge (four bytes are enough for 32 MiB of
//! ones), so nothing here expands before it has compared the length with the caller's maximum.

use crate::Error;

/// A piece of a decoded bitfield, never empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Run<'a> {
    /// So many bytes, all bits set or all clear.
    Fill(bool, usize),
    /// These bytes.
    Literal(&'a [u8]),
}

/// Encodes a bitfield, to the same bytes as `bitfield-rle` does.
///
/// ```
/// assert_eq!(hypercore_bitfield::rle::encode(&[0xff, 0xff, 0xff, 0xf0, 0x00]), [0x0f, 0x02, 0xf0]);
/// ```
#[must_use]
pub fn encode(bits: &[u8]) -> Vec<u8> {
    let mut encoder = Encoder::default();
    encoder.bytes(bits);
    encoder.finish()
}

/// The number of bytes that [`decode`] returns.
///
/// # Errors
/// As [`runs`].
pub fn decoded_len(encoded: &[u8], max: usize) -> Result<usize, Error> {
    runs(encoded, max).try_fold(0usize, |sum, run| Ok(sum.saturating_add(run?.len())))
}

/// Decodes a bitfield of at most `max` bytes.
///
/// # Errors
/// As [`runs`]; nothing is allocated before the whole encoding has been checked.
pub fn decode(encoded: &[u8], max: usize) -> Result<Vec<u8>, Error> {
    let mut bits = Vec::with_capacity(decoded_len(encoded, max)?);
    for run in runs(encoded, max) {
        match run? {
            Run::Fill(bit, len) => bits.resize(
                bits.len().saturating_add(len),
                if bit { 0xff } else { 0x00 },
            ),
            Run::Literal(bytes) => bits.extend_from_slice(bytes),
        }
    }
    Ok(bits)
}

/// The pieces of an encoded bitfield of at most `max` bytes, none of them expanded.
///
/// The iterator yields an error at most once, as its last item: for a header that is cut off, is longer than its
/// value needs or has a value from 2^53, for a literal that is cut off, and for the first piece that passes `max`.
pub fn runs(encoded: &[u8], max: usize) -> Runs<'_> {
    Runs {
        encoded,
        offset: 0,
        max,
        left: max,
    }
}

/// The iterator that [`runs`] returns.
#[derive(Clone, Debug)]
pub struct Runs<'a> {
    /// What is not yet decoded, which begins at `offset`.
    encoded: &'a [u8],
    offset: usize,
    max: usize,
    left: usize,
}

impl<'a> Run<'a> {
    /// How many bytes this stands for.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "a run is never empty")]
    pub fn len(&self) -> usize {
        match self {
            Self::Fill(_, len) => *len,
            Self::Literal(bytes) => bytes.len(),
        }
    }
}

impl<'a> Runs<'a> {
    /// JS: a cut header decodes to `NaN`; here: an error, as is every header an encoder cannot have written.
    fn header(&mut self) -> Result<u64, Error> {
        let offset = self.offset;
        let mut value = 0;
        for shift in (0..56).step_by(7) {
            let byte = self
                .take(1)
                .and_then(|one| one.first())
                .ok_or(Error::TruncatedHeader { offset })?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                let overlong = (*byte == 0 && shift > 0) || value >= 1 << 53;
                return if overlong {
                    Err(Error::OverlongHeader { offset })
                } else {
                    Ok(value)
                };
            }
        }
        Err(Error::OverlongHeader { offset })
    }

    fn run(&mut self) -> Result<Run<'a>, Error> {
        let header = self.header()?;
        let length = if header & 1 == 0 {
            header >> 1
        } else {
            header >> 2
        };
        let len = usize::try_from(length).ok();
        let left = len.and_then(|len| self.left.checked_sub(len));
        let (Some(len), Some(left)) = (len, left) else {
            return Err(Error::TooLong { max: self.max });
        };
        self.left = left;
        if header & 1 == 1 {
            return Ok(Run::Fill(header & 2 == 2, len));
        }
        let (offset, available) = (self.offset, self.encoded.len());
        self.take(len)
            .map(Run::Literal)
            .ok_or(Error::TruncatedLiteral {
                offset,
                length,
                available,
            })
    }

    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.encoded.split_at_checked(len)?;
        self.encoded = rest;
        self.offset = self.offset.saturating_add(len);
        Some(taken)
    }
}

impl<'a> Iterator for Runs<'a> {
    type Item = Result<Run<'a>, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.encoded.is_empty() {
            match self.run() {
                Ok(run) if run.len() == 0 => {}
                Ok(run) => return Some(Ok(run)),
                Err(error) => {
                    self.encoded = &[];
                    return Some(Err(error));
                }
            }
        }
        None
    }
}

impl std::iter::FusedIterator for Runs<'_> {}

/// The encoder, fed piece by piece so that long runs are never written out.
///
/// Makes the choices of `bitfield-rle/index.js` (`rle`): at the end of each run of 0x00 or 0xff it compares the cost
/// of a run of its own with that of leaving it in the literal around it, and only a smaller cost wins.
#[derive(Default)]
pub(crate) struct Encoder {
    encoded: Vec<u8>,
    /// Bytes not yet written, without the run at their end.
    literal: Vec<u8>,
    /// The run at the end, of `run_bit`.
    run: u64,
    run_bit: bool,
}

impl Encoder {
    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        for same in bytes.chunk_by(|a, b| a == b) {
            match same.first() {
                Some(0x00) => self.fill(false, same.len() as u64),
                Some(0xff) => self.fill(true, same.len() as u64),
                _ => {
                    self.end_run();
                    self.literal.extend_from_slice(same);
                }
            }
        }
    }

    pub(crate) fn fill(&mut self, bit: bool, len: u64) {
        if bit != self.run_bit {
            self.end_run();
            self.run_bit = bit;
        }
        self.run = self.run.saturating_add(len);
    }

    pub(crate) fn finish(mut self) -> Vec<u8> {
        // Zeros at the end are not encoded.
        if self.run_bit {
            self.end_run();
        }
        self.write_literal();
        self.encoded
    }

    fn end_run(&mut self) {
        let run = std::mem::take(&mut self.run);
        if run == 0 {
            return;
        }
        let header = run.saturating_mul(4) | if self.run_bit { 3 } else { 1 };
        let head = self.literal.len() as u64;
        let apart = literal_cost(head).saturating_add(varint_len(header));
        if apart < literal_cost(head.saturating_add(run)) {
            self.write_literal();
            write_varint(&mut self.encoded, header);
        } else {
            // Only runs of a byte or two cost more than their header.
            let len = self.literal.len().saturating_add(run as usize);
            self.literal
                .resize(len, if self.run_bit { 0xff } else { 0x00 });
        }
    }

    fn write_literal(&mut self) {
        if !self.literal.is_empty() {
            write_varint(
                &mut self.encoded,
                (self.literal.len() as u64).saturating_mul(2),
            );
            self.encoded.append(&mut self.literal);
        }
    }
}

fn literal_cost(len: u64) -> u64 {
    if len == 0 {
        0
    } else {
        varint_len(len.saturating_mul(2)).saturating_add(len)
    }
}

fn varint_len(value: u64) -> u64 {
    u64::from((value | 1).ilog2() / 7).saturating_add(1)
}

fn write_varint(to: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        to.push(value as u8 | 0x80);
        value >>= 7;
    }
    to.push(value as u8);
}
