//! Frames that nobody writes.

use hypercore::wire::Have;

use super::messages::REGION;
use super::script::{Capability, Item};
use super::writing::{Writing, on};

impl Writing<'_> {
    /// What comes out of [`Self::broken`] too seldom.
    pub(super) fn odd(&mut self) -> Item {
        let have = |start, length, bitfield: &[u8]| {
            let bitfield = Some(bitfield.to_vec().into());
            let ack = false;
            on(
                1,
                Have {
                    start,
                    length,
                    bitfield,
                    ack,
                },
            )
        };
        let blocks = |start, length| Have {
            start,
            length,
            bitfield: None,
            ack: false,
        };
        match self.random.below(41) {
            // More blocks than anybody can count, and one behind all that can be counted.
            0 => on(1, blocks(0, 1 << 36)),
            1..=3 => on(1, blocks(1 << 60, 1)),
            // A name that is not UTF-8, a longer number than needed, two longer booleans, and a header that is cut.
            4..=5 => Item::Raw(vec![0x11, 0x0a, 1, 0xff]),
            6..=7 => Item::Raw(vec![0x17, 8, 0x80, 0]),
            8 => Item::Raw(vec![0x17, 8, 0, 0x18, 0x80, 0x20]),
            9..=10 => Item::Raw(vec![0x17, 8, 0, 0x18, 0x80, 0x28, 7]),
            11..=12 => Item::Raw(vec![0xff]),
            // The discovery key of a log that cannot be, and an answer with a hash that is cut.
            13..=14 => Item::Raw(vec![0x20, 0x0a, 2, 7, 7]),
            15..=16 => Item::Raw(vec![0x49, 8, 0, 0x1a, 8, 8, 0, 0x12, 2, 7, 7, 0x18, 1]),
            // A signature that is cut, of the first block.
            17..=20 => Item::Raw(
                [
                    &[0x19, 8, 0, 0x1a, 38, 8, 0, 0x12, 32][..],
                    &[7; 32],
                    &[0x18, 1, 0x22, 2, 7, 7],
                ]
                .concat(),
            ),
            // An answer with nothing in it.
            21..=24 => Item::Raw(vec![0x19, 8, 0]),
            // More blocks than it says, a header that is too long, and one that is cut.
            25..=28 => have(0, 8, &[0x83, 0x80, 2]),
            29..=32 => have(0, REGION, &[0x83, 0x80, 0]),
            33..=36 => have(0, REGION, &[4, 0xff]),
            // From within a page to behind its end.
            _ => have(8, REGION, &[0x83, 0x80, 2]),
        }
    }

    /// A type that there is not, or anything where an extension would be.
    pub(super) fn unknown(&mut self, channel: u32) -> Item {
        let kind = self.random.one_of(&[11, 12, 13, 14, 15]);
        let body = (0..self.random.below(4)).map(|_| self.random.below(256) as u8);
        let body: Vec<_> = body.collect();
        Item::Raw([&[(channel << 4 | kind) as u8], &body[..]].concat())
    }

    /// A frame of another kind, with a few bytes changed.
    pub(super) fn broken(&mut self) -> Item {
        let item = match self.random.below(6) {
            0 => on(1, self.request()),
            1 => on(1, self.have()),
            2 => on(1, self.want()),
            3 if self.random.below(3) == 0 => self.open(1, Capability::False),
            4 => on(1, self.options()),
            _ => on(1, self.data()),
        };
        let mut bytes = item.frame([9; 32]).unwrap_or_default();
        for _ in 0..=self.random.below(2) {
            let at = self.random.below(bytes.len());
            let byte = self.random.one_of(&[0, 1, 0x7f, 0x80, 0xff, 8, 0x12]);
            match self.random.below(4) {
                0 => bytes.truncate(at.max(1)),
                1 => bytes.insert(at.max(1), byte),
                2 => bytes[at] = byte,
                _ => bytes[at] ^= 1 << self.random.below(8),
            }
        }
        Item::Raw(bytes)
    }
}
