//! Unsigned LEB128: seven bits a byte, least significant group first.

use bytes::BufMut;

/// The most bytes a `u64` takes.
pub(crate) const MAX_LENGTH: usize = 10;

/// A varint that has more bytes than allowed or needed, or more bits than a `u64`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct TooLong;

/// Reads the varint at the front of `bytes`, with the number of bytes it took.
///
/// `Ok(None)` asks for more bytes.
// JS: encodings longer than needed are read; here: they are refused, because nobody writes them and
// one number should have one form.
pub(crate) fn read(bytes: &[u8], max_length: usize) -> Result<Option<(u64, usize)>, TooLong> {
    // Most are this short.
    if let [byte @ ..0x80, ..] = bytes {
        return Ok(Some((u64::from(*byte), 1)));
    }
    let mut value = 0u64;
    let shifts = (0u32..).step_by(7);
    for ((&byte, shift), length) in bytes.iter().zip(shifts).zip(1..=max_length) {
        let group = u64::from(byte & 0x7f);
        // Bits pushed out at the top would be lost without notice.
        let shifted = group.checked_shl(shift).ok_or(TooLong)?;
        if shifted >> shift != group {
            return Err(TooLong);
        }
        value |= shifted;
        if byte < 0x80 {
            let needed = byte > 0 || length == 1;
            return needed.then_some(Some((value, length))).ok_or(TooLong);
        }
    }
    if bytes.len() >= max_length {
        Err(TooLong)
    } else {
        Ok(None)
    }
}

/// The number of bytes [`write`] takes for `value`.
pub(crate) fn length(value: u64) -> usize {
    let bits = u64::BITS.saturating_sub((value | 1).leading_zeros());
    bits.div_ceil(7) as usize
}

/// Appends the shortest encoding of `value`.
pub(crate) fn write(mut value: u64, out: &mut impl BufMut) {
    while value >= 0x80 {
        out.put_u8(value as u8 | 0x80);
        value >>= 7;
    }
    out.put_u8(value as u8);
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;

    use super::*;

    #[test]
    fn every_length_round_trips() {
        for shift in 0..64 {
            for value in [1u64 << shift, (1u64 << shift) - 1, u64::MAX >> shift] {
                let mut out = BytesMut::new();
                write(value, &mut out);
                assert_eq!(out.len(), length(value), "{value}");
                assert_eq!(read(&out, MAX_LENGTH), Ok(Some((value, out.len()))));
                for cut in 0..out.len() {
                    assert_eq!(
                        read(&out[..cut], MAX_LENGTH),
                        Ok(None),
                        "{value} cut at {cut}"
                    );
                }
            }
        }
    }

    #[test]
    fn longer_encodings_and_overflow_are_refused() {
        assert_eq!(read(&[0x85, 0x00, 0xff], MAX_LENGTH), Err(TooLong));
        assert_eq!(read(&[0x80, 0x80, 0x00], MAX_LENGTH), Err(TooLong));
        assert_eq!(read(&[0x00, 0x00], MAX_LENGTH), Ok(Some((0, 1))));
        assert_eq!(read(&[0xff; 10], MAX_LENGTH), Err(TooLong));
        let mut two_to_the_64 = [0x80; 10];
        two_to_the_64[9] = 0x02;
        assert_eq!(read(&two_to_the_64, MAX_LENGTH), Err(TooLong));
        two_to_the_64[9] = 0x01;
        assert_eq!(read(&two_to_the_64, MAX_LENGTH), Ok(Some((1 << 63, 10))));
        assert_eq!(read(&[0x80; 8], 8), Err(TooLong));
        assert_eq!(read(&[0x80; 7], 8), Ok(None));
    }
}
