//! Numbers where arithmetic ends: nothing wraps, nothing panics, what does not fit is refused.

use std::time::Instant;

use bytes::{Bytes, BytesMut};
use hypercore_wire::{
    Body, Cancel, Data, DataNode, Error, Extension, Frame, Have, Limits, MAX_BLOCKS, MAX_NUMBER,
    Message, Problem, Request, Unhave, Unwant, Want,
};
use proptest::prelude::*;

use crate::support::{give, plain_open};

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

/// A message with these numbers, and whether all of them are numbers of a log.
fn message(kind: u8, [a, b, c]: [u64; 3]) -> (Message, bool) {
    let range = a < MAX_BLOCKS && a.saturating_add(b) <= MAX_BLOCKS;
    let block = a < MAX_BLOCKS && b <= MAX_NUMBER;
    match kind {
        0 => (
            Message::Have(Have {
                start: a,
                length: b,
                bitfield: None,
                ack: c % 2 == 0,
            }),
            range,
        ),
        1 => {
            let bitfield = Some(Bytes::from_static(&[0x07]));
            (
                Message::Have(Have {
                    start: a,
                    length: b,
                    bitfield,
                    ack: false,
                }),
                range && a % 8 == 0,
            )
        }
        2 => (
            Message::Unhave(Unhave {
                start: a,
                length: b,
            }),
            range,
        ),
        3 => (
            Message::Want(Want {
                start: a,
                length: b,
            }),
            range,
        ),
        4 => (
            Message::Unwant(Unwant {
                start: a,
                length: b,
            }),
            range,
        ),
        5 => (
            Message::Request(Request {
                index: a,
                bytes: b,
                hash: true,
                nodes: c,
            }),
            block,
        ),
        6 => (
            Message::Cancel(Cancel {
                index: a,
                bytes: b,
                hash: false,
            }),
            block,
        ),
        7 => {
            let nodes = vec![DataNode {
                index: b,
                hash: [1; 32],
                size: c,
            }];
            let data = Data {
                index: a,
                value: None,
                nodes,
                signature: None,
            };
            (Message::Data(data), block && c <= MAX_NUMBER)
        }
        _ => (
            Message::Extension(Extension {
                id: a,
                payload: Bytes::new(),
            }),
            true,
        ),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]

    /// Whatever is sent arrives as it was, or is refused for its numbers.
    #[test]
    fn numbers_of_messages(kind in 0..9_u8, numbers in [number(), number(), number()], channel in number()) {
        let (message, is_sound) = message(kind, numbers);
        let frame = Frame { channel: channel as u32 >> 5, body: Body::Message(message.clone()) };
        let mut bytes = BytesMut::new();
        frame.encode(&mut bytes);
        prop_assert_eq!(bytes.len(), frame.encoded_length());
        match Frame::decode(bytes.freeze(), &Limits::default()) {
            Ok(decoded) => {
                prop_assert_eq!(decoded, Some(frame));
                prop_assert!(is_sound, "{:?} was taken", message);
            }
            Err(Error::InvalidMessage { problem, .. }) => {
                let unaligned = kind == 1 && numbers[0] % 8 != 0 && problem == Problem::UnalignedBitfield;
                let is_named = matches!(problem, Problem::TooLarge { .. });
                prop_assert!(!is_sound && (is_named || unaligned), "{:?}: {:?}", message, problem);
            }
            Err(error) => prop_assert!(false, "{:?}: {}", message, error),
        }
    }

    /// Any number in place of the length and the header of a frame.
    #[test]
    fn numbers_of_frames(length in number(), header in number()) {
        let now = Instant::now();
        let mut session = plain_open(now, |_| {});
        let mut bytes = Vec::new();
        for mut number in [length, header] {
            while number >= 0x80 {
                bytes.push(number as u8 | 0x80);
                number >>= 7;
            }
            bytes.push(number as u8);
        }
        let (_, result) = give(&mut session, now, &bytes);
        // The limit is that of the body: the header, of ten bytes at most, comes on top.
        let limit = Limits::default().frame as u64 + 10;
        prop_assert!(result.is_err() || length <= limit, "a frame of {} bytes", length);
    }
}
