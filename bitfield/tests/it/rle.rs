//! `bitfield-rle.json`: the encoder byte by byte, and the decoder on what no encoder writes.

use crate::vectors::{self, Bytes};
use hypercore_bitfield::Error::{self, OverlongHeader, TooLong, TruncatedHeader, TruncatedLiteral};
use hypercore_bitfield::rle::{self, Run};
use hypercore_bitfield::{Bitfield, PageSize, RemoteBitfield};
use serde::Deserialize;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Vectors {
    cases: Vec<Case>,
    decode: Vec<Decode>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Case {
    name: String,
    input: Option<String>,
    input_sparse: Option<Bytes>,
    encoded: String,
    decoded_length: usize,
    decoded_length_align4: u64,
}

impl Case {
    fn input(&self) -> Vec<u8> {
        match &self.input {
            Some(hex) => hex::decode(hex).unwrap(),
            None => self.input_sparse.as_ref().unwrap().get(),
        }
    }
}

#[derive(Deserialize)]
struct Decode {
    input: String,
    align1: Decoded,
}

#[derive(Deserialize)]
struct Decoded {
    decoded: Option<String>,
}

fn vectors() -> Vectors {
    vectors::read("bitfield-rle.json")
}

#[test]
fn encodes_and_decodes_as_hypercore_9() {
    let cases = vectors().cases;
    assert_eq!(cases.len(), 211);
    for case in cases {
        let (mut input, encoded) = (case.input(), hex::decode(&case.encoded).unwrap());
        assert_eq!(
            hex::encode(rle::encode(&input)),
            case.encoded,
            "{}",
            case.name
        );

        let zeros = input.iter().rev().take_while(|&&byte| byte == 0).count();
        input.truncate(input.len() - zeros);
        let max = input.len();
        assert_eq!(case.decoded_length, max, "{}", case.name);
        assert_eq!(rle::decoded_len(&encoded, max), Ok(max), "{}", case.name);
        assert_eq!(
            rle::decode(&encoded, max).as_ref(),
            Ok(&input),
            "{}",
            case.name
        );
        if let Some(less) = max.checked_sub(1) {
            assert_eq!(
                rle::decode(&encoded, less),
                Err(TooLong { max: less }),
                "{}",
                case.name
            );
        }
    }
}

/// Both bitfields make the same bits of a case and the same bytes of the bits, at any place.
#[test]
fn both_bitfields_agree_with_the_bytes() {
    for case in vectors().cases {
        let (input, encoded) = (case.input(), hex::decode(&case.encoded).unwrap());
        let ones = |start: u64| {
            let input = &input;
            (0..8 * input.len() as u64)
                .filter(move |bit| input[(bit / 8) as usize] << (bit % 8) & 128 != 0)
                .map(move |bit| start + bit)
        };
        for start in [0, 8, 4088, 1 << 40] {
            let mut remote = RemoteBitfield::new(1 << 20);
            assert_eq!(
                remote.apply_rle(start, &encoded, 131_072),
                Ok(8 * case.decoded_length_align4),
                "{}",
                case.name
            );
            assert!(
                remote.runs(0..u64::MAX).flatten().eq(ones(start)),
                "{} at {start}",
                case.name
            );

            let mut local = Bitfield::new(PageSize::Current);
            for run in remote.runs(0..u64::MAX) {
                local.set_range(run, true);
            }
            assert_eq!(
                hex::encode(local.rle(start..start + 8 * 131_072)),
                case.encoded,
                "{} at {start}",
                case.name
            );
        }
    }
}

/// Where Hypercore 9 decodes, so do we, with these exceptions: it reads a cut or overlong header as `NaN` or ignores
/// the excess, and allocates whatever a run asks for.
#[test]
fn decodes_odd_input_safely() {
    let refused: &[(&str, Error)] = &[
        (
            "02",
            TruncatedLiteral {
                offset: 1,
                length: 1,
                available: 0,
            },
        ),
        (
            "020102",
            TruncatedLiteral {
                offset: 3,
                length: 1,
                available: 0,
            },
        ),
        (
            "04aa",
            TruncatedLiteral {
                offset: 1,
                length: 2,
                available: 1,
            },
        ),
        (
            "8001",
            TruncatedLiteral {
                offset: 2,
                length: 64,
                available: 0,
            },
        ),
        (
            "09080a",
            TruncatedLiteral {
                offset: 2,
                length: 4,
                available: 1,
            },
        ),
        ("0fff", TruncatedHeader { offset: 1 }),
        ("80", TruncatedHeader { offset: 0 }),
        ("8080", TruncatedHeader { offset: 0 }),
        ("8101ff", TruncatedHeader { offset: 2 }),
        ("81ffffff07", TooLong { max: 4096 }),
        // Hypercore 9 reads this as an empty run; no encoder writes a header longer than it must be.
        ("8300", OverlongHeader { offset: 0 }),
    ];
    let mut accepted = 0;
    let decode = vectors().decode;
    for case in &decode {
        let input = hex::decode(&case.input).unwrap();
        match refused.iter().find(|(refused, _)| *refused == case.input) {
            Some((_, error)) => {
                assert_eq!(rle::decode(&input, 4096), Err(*error), "{}", case.input)
            }
            None => {
                accepted += 1;
                let expected = case
                    .align1
                    .decoded
                    .as_ref()
                    .map(|hex| hex::decode(hex).unwrap())
                    .unwrap();
                assert_eq!(rle::decode(&input, 4096), Ok(expected), "{}", case.input);
            }
        }
    }
    assert_eq!((decode.len(), accepted, refused.len()), (24, 13, 11));
}

#[test]
fn headers_end_at_2_to_the_53() {
    let check = |header: &str, expected: Error| {
        let header = hex::decode(header).unwrap();
        assert_eq!(
            rle::decoded_len(&header, usize::MAX),
            Err(expected),
            "{header:x?}"
        );
        assert_eq!(
            rle::runs(&header, usize::MAX).count(),
            1,
            "nothing follows an error"
        );
    };
    check("ffffffffffffff1f", OverlongHeader { offset: 0 });
    check("ffffffffffffffff01", OverlongHeader { offset: 0 });
    check("ffffffffffffffffffffffffff", OverlongHeader { offset: 0 });
    check("01ffffffffffff", TruncatedHeader { offset: 1 });
    let largest = hex::decode("ffffffffffffff0f").unwrap();
    let run: Vec<_> = rle::runs(&largest, usize::MAX).collect();
    assert_eq!(run, [Ok(Run::Fill(true, (1 << 51) - 1))]);
}

#[test]
fn lengths_add_up_before_anything_expands() {
    let run = hex::decode("ffffffffffffff0f").unwrap();
    let twice_half = [run.clone(), run].concat();
    assert_eq!(
        rle::decode(&twice_half, 1 << 30),
        Err(TooLong { max: 1 << 30 })
    );
    assert_eq!(rle::decode(&[0x05, 0x05, 0x05], 2), Err(TooLong { max: 2 }));
    assert_eq!(rle::decode(&[0x05, 0x04, 1, 2], 2), Err(TooLong { max: 2 }));
}
