//! The crates that exist, where they work: `sparse-bitfield` for bits, `bitfield-rle` for valid encodings.

use hypercore_bitfield::{Bitfield, PageSize, rle};
use proptest::prelude::*;

proptest! {
    #[test]
    fn sparse_bitfield(sets in prop::collection::vec((0usize..100_000, 1usize..300, any::<bool>()), 1..40)) {
        let mut ours = Bitfield::new(PageSize::Current);
        let mut theirs = sparse_bitfield::Bitfield::new(1024);
        for (start, len, bit) in sets {
            let changed = (start..start + len).filter(|&at| theirs.set(at, bit).is_changed()).count();
            prop_assert_eq!(ours.set_range(start as u64..(start + len) as u64, bit), changed as u64);
        }
        for at in 0..100_400 {
            prop_assert_eq!(ours.get(at as u64), theirs.get(at));
        }
        let mut page = [0; 3584];
        for number in 0..ours.page_count() {
            ours.encode_page(number, &mut page);
            prop_assert!((0..1024).all(|byte| page[byte] == theirs.get_byte(1024 * number as usize + byte)));
        }
    }

    #[test]
    fn bitfield_rle(pieces in prop::collection::vec((prop_oneof![Just(0u8), Just(255u8), any::<u8>()], prop_oneof![1..5usize, 1..400usize]), 0..30)) {
        let bits: Vec<u8> = pieces.into_iter().flat_map(|(byte, n)| vec![byte; n]).collect();
        let encoded = rle::encode(&bits);
        let mut decoded = rle::decode(&encoded, bits.len()).unwrap();
        prop_assert_eq!(&bitfield_rle::decode(&encoded).unwrap(), &decoded);
        let theirs = rle::decode(&bitfield_rle::encode(&bits), bits.len()).unwrap();
        prop_assert!(theirs.starts_with(&decoded) && theirs[decoded.len()..].iter().all(|&byte| byte == 0));
        prop_assert_ne!(decoded.last(), Some(&0));
        decoded.resize(bits.len(), 0);
        prop_assert_eq!(decoded, bits);
    }
}
