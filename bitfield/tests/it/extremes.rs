//! Numbers where arithmetic ends: nothing wraps, nothing panics, nothing goes on for ever.

use std::ops::Range;

use hypercore_bitfield::{Bitfield, PageSize, RemoteBitfield, rle};
use proptest::prelude::*;

/// Where blocks end.
const BLOCKS: u64 = 1 << 52;

/// Around every power of two, and everywhere.
fn number() -> impl Strategy<Value = u64> {
    let near = |bits: u32, distance: u64, above: bool| {
        let power = 1_u64.checked_shl(bits).unwrap_or(0);
        if above {
            power.wrapping_add(distance)
        } else {
            power.wrapping_sub(distance)
        }
    };
    prop_oneof![
        4 => (48..=64_u32, 0..4_u64, any::<bool>()).prop_map(move |(b, d, above)| near(b, d, above)),
        1 => (0..=64_u32, 0..4_u64, any::<bool>()).prop_map(move |(b, d, above)| near(b, d, above)),
        1 => any::<u64>(),
    ]
}

/// Also with the end before the start.
fn range() -> impl Strategy<Value = Range<u64>> {
    (number(), number()).prop_map(|(start, end)| start..end)
}

/// How many positions of the range there are.
fn len(range: &Range<u64>, end: u64) -> u64 {
    range.end.min(end).saturating_sub(range.start)
}

proptest! {
    #![proptest_config(crate::model::config(20_000))]

    #[test]
    fn one_bit(bit in number(), node in number(), around in range()) {
        let mut bitfield = Bitfield::new(PageSize::Current);
        prop_assert_eq!(bitfield.set(bit, true), bit < BLOCKS);
        prop_assert_eq!(bitfield.get(bit), bit < BLOCKS);
        prop_assert_eq!(bitfield.count(around.clone()), u64::from(around.contains(&bit) && bit < BLOCKS));
        prop_assert_eq!(bitfield.next_set(bit), (bit < BLOCKS).then_some(bit));
        prop_assert!(bitfield.next_clear(bit) > bit || bit >= BLOCKS);
        prop_assert!(bitfield.tree_set(node) == bitfield.tree_get(node));
        // However far away, only pages that say something are written.
        let dirty = bitfield.take_dirty();
        prop_assert!(dirty.len() < 100, "{} pages", dirty.len());
        let mut page = vec![0; 3584];
        dirty.into_iter().for_each(|page_number| bitfield.encode_page(page_number, &mut page));
        bitfield.tree_clear(node);
        prop_assert!(bitfield.set(bit, false) || bit >= BLOCKS);
        bitfield.truncate(around.start);
        prop_assert_eq!(bitfield.total(), 0);
    }

    #[test]
    fn any_page_is_written(page in number(), block in number()) {
        let mut bitfield = Bitfield::new(PageSize::Current);
        bitfield.set(block, true);
        let mut bytes = vec![0xff; 3584];
        bitfield.encode_page(page, &mut bytes);
        let is_here = block < BLOCKS && page == block / 8192;
        prop_assert_eq!(bytes[..1024].iter().any(|&byte| byte != 0), is_here);
    }

    #[test]
    fn asked_of_a_full_bitfield(asked in range(), at in number()) {
        thread_local! {
            static FULL: Bitfield = {
                let mut full = Bitfield::new(PageSize::Current);
                full.set_range(0..u64::MAX, true);
                full
            };
        }
        FULL.with(|full| {
            prop_assert_eq!(full.count(asked.clone()), len(&asked, BLOCKS));
            prop_assert_eq!(full.get(at), at < BLOCKS);
            prop_assert_eq!(full.next_set(at), (at < BLOCKS).then_some(at));
            prop_assert_eq!(full.next_clear(at), at.max(BLOCKS));
            prop_assert_eq!(full.has_all(asked.clone()), len(&asked, BLOCKS) == len(&asked, u64::MAX));
            let covered: u64 = full.runs(asked.clone()).map(|run| run.end - run.start).sum();
            prop_assert_eq!(covered, len(&asked, BLOCKS));
            Ok(())
        })?;
    }

    #[test]
    fn ranges_of_a_remote(ranges in prop::collection::vec((range(), any::<bool>()), 0..4), asked in range()) {
        let mut remote = RemoteBitfield::new(1 << 20);
        for (range, has) in ranges {
            let set = remote.set_range(range.clone(), has);
            if set.is_ok() && range.start < range.end {
                prop_assert!(range.end <= BLOCKS);
                prop_assert_eq!(remote.get(range.start), has);
                prop_assert_eq!(remote.get(range.end - 1), has);
            }
        }
        let covered: u64 = remote.runs(asked.clone()).map(|run| run.end - run.start).sum();
        prop_assert_eq!(covered, remote.count(asked.clone()));
        prop_assert!(remote.bound() <= BLOCKS);
        prop_assert!(remote.next_set(asked.start).is_none_or(|at| at >= asked.start && remote.get(at)));
        prop_assert!(!remote.get(remote.next_clear(asked.start)));
    }

    /// A run of any announced length, from any start.
    #[test]
    fn runs_of_a_remote(start in number(), header in number(), rest in any::<[u8; 2]>()) {
        let mut encoded = Vec::new();
        let mut left = header;
        while left >= 0x80 {
            encoded.push(left as u8 | 0x80);
            left >>= 7;
        }
        encoded.push(left as u8);
        encoded.extend(rest);
        const MOST: usize = 1 << 17;
        let mut remote = RemoteBitfield::new(1 << 20);
        if let Ok(bits) = remote.apply_rle(start, &encoded, MOST) {
            prop_assert!(bits <= 8 * MOST as u64);
            prop_assert!(start.checked_add(bits).is_some_and(|end| end <= BLOCKS));
        }
        let decoded = rle::decoded_len(&encoded, MOST);
        prop_assert_eq!(rle::decode(&encoded, MOST).map(|bytes| bytes.len()), decoded);
        prop_assert!(rle::decoded_len(&encoded, usize::MAX).is_ok() || decoded.is_err());
    }
}
