//! `bitfield.json`: pages, totals, missing blocks and answers to Wants, for both page sizes.

use crate::vectors::{self, Bytes};
use hypercore_bitfield::{Bitfield, PageSize};
use serde::Deserialize;
use std::collections::BTreeSet;

#[derive(Deserialize)]
struct Vectors {
    cases: Vec<Case>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Case {
    name: String,
    page_size: u16,
    ops: Vec<(u64, u64, bool)>,
    length: u64,
    pages: Vec<Option<Page>>,
    /// Absent: in none of the cases did reading change a stored index byte.
    pages_after_iteration: Option<serde_json::Value>,
    totals: Vec<(u64, u64, u64)>,
    missing: Vec<(u64, u64, Vec<i64>)>,
    compress: Vec<(u64, u64, String)>,
}

#[derive(Deserialize)]
struct Page {
    data: Bytes,
    index: Bytes,
}

impl Case {
    fn bitfield(&self) -> Bitfield {
        let mut bitfield = Bitfield::new(PageSize::from_bytes(self.page_size).unwrap());
        for &(start, end, here) in &self.ops {
            bitfield.set_range(start..end, here);
        }
        bitfield
    }
}

fn cases() -> Vec<Case> {
    let cases = vectors::read::<Vectors>("bitfield.json").cases;
    assert_eq!(cases.len(), 64);
    assert!(
        cases
            .iter()
            .all(|case| case.pages_after_iteration.is_none())
    );
    cases
}

/// All pages of 3584 bytes are equal. In legacy pages Hypercore 9 forgets index bytes whose own page came later than
/// their data; then its bytes must claim less than ours, which are those of a log that had its pages from the start.
#[test]
fn pages() {
    let mut stale = BTreeSet::new();
    for case in cases() {
        let bitfield = case.bitfield();
        assert_eq!(
            bitfield.bound().next_multiple_of(8).max(case.length),
            case.length,
            "{}",
            case.name
        );
        assert_eq!(
            bitfield.page_count(),
            case.pages.len() as u64,
            "{}",
            case.name
        );
        let size = bitfield.page_size().bytes();
        for (number, page) in case.pages.iter().enumerate() {
            let mut expected = vec![0; size];
            if let Some(page) = page {
                let (data, index) = (page.data.get(), page.index.get());
                expected[..data.len()].copy_from_slice(&data);
                expected[3072..3072 + index.len()].copy_from_slice(&index);
            }
            let mut written = vec![0xaa; size];
            bitfield.encode_page(number as u64, &mut written);
            if written == expected {
                continue;
            }
            assert_eq!(
                bitfield.page_size(),
                PageSize::Legacy,
                "{} page {number}",
                case.name
            );
            assert_eq!(
                written[..3072],
                expected[..3072],
                "{} page {number}",
                case.name
            );
            assert!(
                std::iter::zip(&written, &expected).all(|(ours, js)| js & !ours == 0),
                "{}",
                case.name
            );
            stale.insert(format!("{} page {number}", case.name));
        }
    }
    let expected = [
        "first 16384 page 0",
        "first 16384 page 1",
        "first 20000 page 0",
        "first 20000 page 1",
        "first 20000 page 2",
        "first 8193 page 0",
        "first 8193 page 1",
        "first 9000 page 0",
        "first 9000 page 1",
        "holes page 1",
    ];
    assert!(stale.iter().eq(&expected), "{stale:?}");
}

#[test]
fn totals_and_missing_blocks() {
    for case in cases() {
        let bitfield = case.bitfield();
        for &(start, end, total) in &case.totals {
            // JS takes an end of 0 for "to the end".
            let end = if end == 0 { bitfield.bound() } else { end };
            assert_eq!(
                bitfield.count(start..end),
                total,
                "{} {start}..{end}",
                case.name
            );
            assert_eq!(
                bitfield
                    .runs(start..end)
                    .map(|run| run.end - run.start)
                    .sum::<u64>(),
                total
            );
        }
        for (start, end, missing) in &case.missing {
            let end = if *end == 0 { bitfield.bound() } else { *end };
            let next = |from| Some(bitfield.next_clear(from)).filter(|&block| block < end);
            let blocks = std::iter::successors(next(*start), |block| next(block + 1))
                .map(|block| block as i64);
            let blocks: Vec<_> = blocks.chain([-1]).take(12).collect();
            assert_eq!(blocks, *missing, "{} {start}..{end}", case.name);
            assert_eq!(bitfield.has_all(*start..end), missing[0] == -1);
        }
    }
}

#[test]
fn answers_to_wants() {
    for case in cases() {
        let bitfield = case.bitfield();
        for (start, length, encoded) in &case.compress {
            assert_eq!(
                hex::encode(bitfield.rle(*start..start + length)),
                *encoded,
                "{} {start}",
                case.name
            );
        }
    }
}
