//! How a script is made up.

use hypercore::wire::{Body, Close, Frame, Have, Message, Request, Unhave};

use super::super::random::Random;
use super::alter::alter;
use super::logs::{Logs, Role};
use super::messages::REGION;
use super::script::{Capability, Item, Opening, SENTINEL, STRANGER, Step};

/// A script that is being made up.
pub(super) struct Writing<'a> {
    pub(super) logs: &'a Logs,
    pub(super) role: Role,
    pub(super) gets: Vec<u64>,
    pub(super) random: Random,
}

impl Writing<'_> {
    pub(super) fn steps(&mut self) -> Vec<Step> {
        let mut steps = vec![self.opening()];
        if self.random.below(8) > 0 {
            let have = self.whole_have();
            steps.push(vec![on(1, have)]);
        }
        for _ in 0..=self.random.below(7) {
            let step = match self.random.below(8) {
                0 => self.pair(),
                1 => (0..4).map(|_| self.item()).collect(),
                _ => vec![self.item()],
            };
            steps.push(step);
        }
        steps.push(vec![on(1, SENTINEL)]);
        steps
    }

    fn opening(&mut self) -> Step {
        match self.random.below(24) {
            // Before anything is open.
            0 => vec![self.item(), self.open(1, Capability::True)],
            1 => vec![self.open(1, Capability::False)],
            2 => vec![self.open(1, Capability::None)],
            3 => vec![],
            4 => vec![self.stranger(1), self.open(2, Capability::True)],
            5 => vec![self.open(3, Capability::True)],
            _ => vec![self.open(1, Capability::True)],
        }
    }

    pub(super) fn open(&self, channel: u32, capability: Capability) -> Item {
        Item::Open(Opening {
            channel,
            discovery_key: *self.logs.log.discovery_key().as_bytes(),
            capability,
        })
    }

    /// Opens a log that is not there.
    fn stranger(&mut self, channel: u32) -> Item {
        Item::Open(Opening {
            channel,
            discovery_key: STRANGER,
            capability: self.random.one_of(&[
                Capability::True,
                Capability::False,
                Capability::None,
            ]),
        })
    }

    /// Says that all blocks are there.
    fn whole_have(&mut self) -> Have {
        let length = self.logs.length();
        let bitfield = match self.random.below(3) {
            0 => Some(&[0x0b, 0x02, 0xf8][..]), // two bytes of ones, and five bits
            _ => None,
        };
        let is_elsewhere = bitfield.is_some() && self.random.below(8) == 0;
        Have {
            start: if is_elsewhere { 8192 } else { 0 },
            length: if bitfield.is_some() { REGION } else { length },
            bitfield: bitfield.map(|bytes| bytes.to_vec().into()),
            ack: false,
        }
    }

    fn item(&mut self) -> Item {
        let channel = self
            .random
            .one_of(&[1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 2, 3]);
        let wants_data = !self.gets.is_empty() && self.random.below(2) > 0;
        match self.random.below(40) {
            _ if wants_data => on(1, self.data()),
            0 => on(channel, self.data()),
            1..=14 => on(channel, self.request()),
            15..=18 => on(channel, self.want()),
            19..=20 => on(channel, self.have()),
            21 => on(channel, self.unhave()),
            22 => on(channel, self.status()),
            23 => on(channel, self.cancel()),
            24 => on(channel, self.unwant()),
            25 => on(channel, self.options()),
            26 => on(channel, self.extension()),
            27 => self.close(channel),
            28 if self.random.below(3) == 0 => self.open(channel.max(1), Capability::True),
            28 | 29 => {
                let channel = self.random.one_of(&[1, 4, 5, 6]);
                self.stranger(channel)
            }
            30 => Item::KeepAlive,
            31..=32 => self.unknown(channel),
            33 => self.odd(),
            _ => self.broken(),
        }
    }

    /// What matters when it comes together.
    fn pair(&mut self) -> Step {
        let kinds: &[_] = match self.gets.is_empty() {
            true => &[4, 6, 8, 9],
            false => &[0, 0, 1, 1, 2, 2, 3, 4, 5, 6, 7, 7, 8, 9, 10],
        };
        let answer = self.data();
        match self.random.one_of(kinds) {
            0 => vec![on(1, answer), on(1, SENTINEL), on(1, self.want())],
            1 => vec![on(1, answer), on(1, self.request())],
            2 => vec![on(1, answer), self.odd()],
            3 => {
                let mut other = answer.clone();
                alter(&mut other, self.logs, &mut self.random);
                vec![on(1, answer), on(1, other)]
            }
            4 => vec![on(1, self.request()), on(1, self.want()), self.close(1)],
            5 => {
                let (start, length) = (answer.index, 1);
                vec![on(1, Unhave { start, length }), on(1, answer)]
            }
            7 => {
                let first = self.gets[0];
                let whole = self.logs.answer(first, false, 0);
                let rest = self
                    .logs
                    .answer_after(self.gets[self.gets.len() - 1], &whole);
                vec![on(1, whole), on(1, rest)]
            }
            8 => {
                let here = self.random.one_of(&[0, 4, 8, 9]);
                let nodes = 2 + self.random.below(254) as u64;
                let missing = Request {
                    index: here ^ 1,
                    nodes,
                    ..Request::default()
                };
                let index = here;
                vec![
                    on(1, missing),
                    on(
                        1,
                        Request {
                            index,
                            ..Request::default()
                        },
                    ),
                ]
            }
            9 => {
                let index = self.random.one_of(&[0, 4]);
                let before = self.logs.blocks[..=index as usize].iter();
                let bytes = before.map(|block| block.len() as u64).sum::<u64>() + 1;
                let hash = self.random.below(2) == 0;
                vec![on(
                    1,
                    Request {
                        index,
                        bytes,
                        hash,
                        nodes: 0,
                    },
                )]
            }
            10 => {
                let mut wrong = self.logs.answer(self.gets[0], false, 0);
                wrong.value = Some(vec![7].into());
                let start = self.random.below(8) as u64;
                vec![
                    on(1, wrong),
                    on(
                        1,
                        Have {
                            start: 8 * start,
                            length: REGION,
                            bitfield: Some(vec![4, 0xff].into()),
                            ack: false,
                        },
                    ),
                ]
            }
            _ => vec![self.close(9), on(1, self.request()), on(1, self.request())],
        }
    }

    fn close(&mut self, channel: u32) -> Item {
        let ours = *self.logs.log.discovery_key().as_bytes();
        let discovery_key = self
            .random
            .one_of(&[None, None, Some(ours), Some(STRANGER)]);
        let body = Body::Close(Close { discovery_key });
        Item::Frame(Frame { channel, body })
    }
}

pub(super) fn on(channel: u32, message: impl Into<Message>) -> Item {
    Item::Frame(Frame {
        channel,
        body: Body::Message(message.into()),
    })
}
