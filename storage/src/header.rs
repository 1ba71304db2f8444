//! The 32 bytes at the start of `tree`, `signatures` and `bitfield`.
//!
//! ```text
//! 0         3      4         5            7          8                32
//! +---------+------+---------+------------+----------+-------+--------+
//! | 05 02 57| type | version | entry size | length n | name n| zeros  |
//! +---------+------+---------+------------+----------+-------+--------+
//! ```
//! From the SLEEP format, as in Hypercore 9 `lib/storage.js` `open` and `header`.

use crate::{Error, FileName, error::Result};

/// The length of a header.
pub(crate) const LEN: u64 = 32;

/// A header as it stands in the file.
pub(crate) type Header = [u8; LEN as usize];

const MAGIC: [u8; 3] = [0x05, 0x02, 0x57];

/// The header of `file`; `page_size` only matters to the bitfield.
pub(crate) fn encode(file: FileName, page_size: u16) -> Header {
    let (kind, entry_size, name): (u8, u16, &[u8]) = match file {
        FileName::Tree => (2, 40, b"BLAKE2b"),
        FileName::Signatures => (1, 64, b"Ed25519"),
        _ => (0, page_size, b""),
    };
    let fixed = MAGIC
        .into_iter()
        .chain([kind, 0])
        .chain(entry_size.to_be_bytes());
    let rest = [name.len() as u8].into_iter().chain(name.iter().copied());
    let mut header = Header::default();
    for (to, from) in header.iter_mut().zip(fixed.chain(rest)) {
        *to = from;
    }
    header
}

/// The entry size that a header says, right or wrong.
pub(crate) fn entry_size(header: &Header) -> u16 {
    u16::from_be_bytes([header[5], header[6]])
}

/// Checks the header of a file with content behind it and gives its entry size.
// JS: overwrites whatever it finds; here: refused, because a foreign file would be destroyed.
pub(crate) fn check(file: FileName, found: &Header) -> Result<u16> {
    let entry_size = entry_size(found);
    let expected = encode(file, entry_size);
    let significant = 8 + usize::from(expected[7]);
    if !found
        .iter()
        .take(significant)
        .eq(expected.iter().take(significant))
    {
        let [f0, f1, f2, f3, f4, f5, f6, f7, ..] = *found;
        return Err(Error::BadHeader {
            file,
            found: [f0, f1, f2, f3, f4, f5, f6, f7],
        });
    }
    Ok(entry_size)
}
