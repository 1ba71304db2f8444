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
    let leaves = tree.as_chunks_mut().0.iter_mut();
    for ([leaf, _], &four) in leaves.zip(data.as_chunks().0) {
        *leaf = match u32::from_ne_bytes(four) {
            0 => 0,
            u32::MAX => 0xff,
            _ => above(four, 0xff),
        };
    }
    for half in [1, 2, 4, 8, 16, 32, 64] {
        // Of four stretches as long as this, the first ends with a child, the second with its parent, and the third
        // with the other child.
        for four in tree.chunks_exact_mut(half << 2) {
            let (first, rest) = four.split_at_mut(half);
            let (second, rest) = rest.split_at_mut(half);
            let (third, _) = rest.split_at_mut(half);
            if let ([.., left], [.., parent], [.., right]) = (first, second, third) {
                *parent = match (*left, *right) {
                    (0, 0) => 0,
                    (0xff, 0xff) => 0xff,
                    (left, right) => above([left >> 4, left & 15, right >> 4, right & 15], 15),
                };
            }
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
    let bits_before = |number: u64| number.saturating_mul(16);
    let first = bits_before(node >> depth << depth);
    let quarter = 8_u64 << depth;
    // Down the right side: all bits to the left of the last node that is stored can be seen.
    let mut seen = first.saturating_add(32 << depth);
    let mut last = node;
    for depth in (0..depth).rev() {
        let right = last.saturating_add(1 << depth);
        if right >= end {
            seen = bits_before(last.saturating_add(1));
            break;
        }
        last = right;
    }
    (0..4).fold(0, |byte, n| {
        let start = first.saturating_add(quarter.saturating_mul(n));
        let bits = start..start.saturating_add(quarter);
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
    let first = page.saturating_mul(512);
    // 2^40 pages of 2^9 bytes: no node above depth 48 is below any end.
    (8..=48)
        .map(move |depth| node_at(depth, first))
        .filter(move |&node| node < end)
}

/// The node at a depth that stands in the middle of the 2^(depth + 1) numbers of which `number` is one.
pub(crate) fn node_at(depth: u32, number: u64) -> u64 {
    // The numbers at a depth end in a zero and then as many ones.
    let ones = !(u64::MAX << depth);
    number & !(ones << 1) | ones
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
