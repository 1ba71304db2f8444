//! Parts of numbers and of bytes.

/// How much of `whole` is in `some` of its `count` parts, which are as large as each other.
pub(crate) fn share_of(whole: u64, some: u64, count: u64) -> u64 {
    let product = u128::from(whole).saturating_mul(some.into());
    let share = product.checked_div(count.into()).unwrap_or(0);
    // Not more than all, unless there is one part more meanwhile.
    u64::try_from(share).map_or(whole, |share| share.min(whole))
}

/// The first `count` of `bytes` and the rest; all of them and nothing if there are not so many.
pub(crate) fn split_bytes(bytes: &[u8], count: u64) -> (&[u8], &[u8]) {
    let count = usize::try_from(count).ok();
    let parts = count.and_then(|count| bytes.split_at_checked(count));
    parts.unwrap_or((bytes, &[]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_of_all_sizes() {
        for (whole, some, count, expected) in [
            (1_000_000, 6, 16, 375_000),
            (1_000_000, 16, 16, 1_000_000),
            (0, 0, 0, 0),
            (1 << 52, 1 << 40, 1 << 40, 1 << 52),
            (u64::MAX, u64::MAX, u64::MAX, u64::MAX),
            (10, 3, 2, 10),
        ] {
            assert_eq!(share_of(whole, some, count), expected);
        }
    }

    #[test]
    fn bytes_are_split_where_there_are_so_many() {
        for (count, expected) in [
            (0, ("", "abc")),
            (2, ("ab", "c")),
            (3, ("abc", "")),
            (4, ("abc", "")),
            (u64::MAX, ("abc", "")),
        ] {
            let (first, rest) = expected;
            assert_eq!(
                split_bytes(b"abc", count),
                (first.as_bytes(), rest.as_bytes())
            );
        }
    }
}
