//! The index bytes of a page: a tree of summaries over its data bits.
//!
//! ```text
//!   depth 1                  byte 1               |left high|left low|right high|right low|
//!                       /            \
//!   depth 0       byte 0              byte 2      |data 0|data 1|data 2|data 3|
//!                 data 0..4           data 4..8    two bits each: 11 all ones, 00 all zeros, 01 else
//! ```
//!
//! One tree, numbered as a flat tree, spans all pages. The 512 bytes from number 512 p are those of page p's own 1024
//! data bytes, but for the last, which belongs to a node above several pages (Hypercore 9 `lib/bitfield.js`
//! `_setIndex`). Hypercore 9 uses them to skip over present blocks and scans where they are zero; we never read them.

use std::ops::Range;

use crate::bits::Summary;

/// The nodes of one page's tree, but for the two that [`node`] makes: number 255 at the top, and 511 above it.
///
/// Most of it is all ones or all zeros, which is not looked at in parts.
pub(crate) fn page_tree(data: &[u8; 1024]) -> [u8; 512] {
    let mut tree = [0; 512];
    for (leaf, &four) in data.as_chunks().0.iter().enumerate() {
        tree[2 * leaf] = match u32::from_ne_bytes(four) {
            0 => 0,
            u32::MAX => 0xff,
            _ => above(four, 0xff),
        };
    }
    for depth in 1..=7 {
        let half = 1 << (depth - 1);
        for node in (2 * half - 1..511).step_by(4 * half) {
            tree[node] = match (tree[node - half], tree[node + half]) {
                (0, 0) => 0,
                (0xff, 0xff) => 0xff,
                (left, right) => above([left >> 4, left & 15, right >> 4, right & 15], 15),
            };
        }
    }
    tree
}

/// The byte above four groups of bits, each of which is `all` if it has only ones.
fn above(four: [u8; 4], all: u8) -> u8 {
    let add = |byte, bits| byte << 2 | two_bits(of(bits, all));
    four.into_iter().fold(0, add)
}

/// The byte of any node below `end`, the number of stored bytes.
///
/// Node numbers from `end` on are zero to their parents, so what lies under them cannot be seen from above. This
/// matters: a byte that claimed more would never be corrected by Hypercore 9, which stops at the first missing node.
pub(crate) fn node(node: u64, end: u64, summary: impl Fn(Range<u64>) -> Summary) -> u8 {
    let depth = node.trailing_ones();
    // A leaf has 32 bits and is two numbers wide.
    let first = 16 * (node + 1 - (1 << depth));
    let quarter = 8 << depth;
    // Down the right side: all bits to the left of the last node that is stored can be seen.
    let (mut last, mut depth) = (node, depth);
    while depth > 0 && last + (1 << (depth - 1)) < end {
        depth -= 1;
        last += 1 << depth;
    }
    let seen = if depth == 0 {
        first + 4 * quarter
    } else {
        16 * (last + 1)
    };
    (0..4).fold(0, |byte, n| {
        let bits = first + n * quarter..first + (n + 1) * quarter;
        let summary = match summary(bits.start..bits.end.min(seen)) {
            _ if bits.start >= seen => Summary::None,
            Summary::All if bits.end > seen => Summary::Some,
            summary => summary,
        };
        byte << 2 | two_bits(summary)
    })
}

/// The top node of a page's tree and those above it, from the lowest, that are below `end`.
pub(crate) fn above_page(page: u64, end: u64) -> impl Iterator<Item = u64> {
    // 2^40 pages of 2^9 bytes: no node above depth 48 is below any end.
    (8..=48)
        .map(move |depth| ((2 * (page >> (depth - 8)) + 1) << depth) - 1)
        .filter(move |&node| node < end)
}

fn of(bits: u8, all: u8) -> Summary {
    match bits {
        0 => Summary::None,
        _ if bits == all => Summary::All,
        _ => Summary::Some,
    }
}

fn two_bits(summary: Summary) -> u8 {
    match summary {
        Summary::None => 0b00,
        Summary::Some => 0b01,
        Summary::All => 0b11,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// One bit after the other.
    fn summary(data: &[u8; 1024], bits: Range<u64>) -> Summary {
        let len = bits.end - bits.start;
        let bit = |&bit: &u64| data[(bit / 8) as usize] << (bit % 8) & 128 != 0;
        match bits.filter(bit).count() as u64 {
            0 => Summary::None,
            ones if ones == len => Summary::All,
            _ => Summary::Some,
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(100))]

        #[test]
        fn the_nodes_of_a_page_are_those_of_its_bits(pieces in prop::collection::vec((prop_oneof![Just(0), Just(0xff), any::<u8>()], 0..400_usize), 1..12)) {
            let mut bytes = pieces.into_iter().flat_map(|(byte, len)| vec![byte; len]);
            let mut data = [0; 1024];
            data.iter_mut().zip(&mut bytes).for_each(|(to, from)| *to = from);
            let tree = page_tree(&data);
            for number in (0..512).filter(|number| ![255, 511].contains(number)) {
                let expected = node(number, 512, |bits| summary(&data, bits));
                prop_assert_eq!(tree[number as usize], expected, "node {}", number);
            }
        }
    }
}
