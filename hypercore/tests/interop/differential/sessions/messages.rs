//! Messages that can be read.

use hypercore::wire::{
    Cancel, Data, Extension, Have, Options, Request, Status, Unhave, Unwant, Want,
};

use super::alter::alter;
use super::writing::Writing;

/// What a peer is asked about at one time.
pub(super) const REGION: u64 = 1 << 20;

impl Writing<'_> {
    /// A number of a block, most often of one that is there.
    pub(super) fn number(&mut self) -> u64 {
        let length = self.logs.length();
        match self.random.below(12) {
            0 => length + self.random.below(3) as u64,
            1 => self.random.one_of(&[8191, 8192, 1 << 20, 1 << 31, 1 << 32]),
            2 => self.random.one_of(&[
                (1 << 50) - 1,
                (1 << 52) - 1,
                1 << 52,
                (1 << 53) - 2,
                1 << 53,
                1 << 63,
                u64::MAX,
            ]),
            _ => self.random.below(length as usize) as u64,
        }
    }

    /// How many blocks: small numbers, or one that is more than Node can count to.
    pub(super) fn count(&mut self) -> u64 {
        match self.random.below(1000) {
            0 => self.random.one_of(&[1 << 36, 1 << 45]),
            1..6 => self.random.one_of(&[1 << 53, u64::MAX]),
            6..50 => self.random.one_of(&[8192, REGION, 100]),
            50..150 => 0,
            _ => self.random.below(25) as u64,
        }
    }

    pub(super) fn data(&mut self) -> Data {
        let is_asked = !self.gets.is_empty() && self.random.below(8) > 0;
        let index = match is_asked {
            true => self.gets[self.random.below(self.gets.len())],
            false => self.random.below(self.logs.length() as usize) as u64,
        };
        let digest = match self.random.below(6) {
            0 => 0,
            1 => self.random.below(32) as u64,
            _ => self.logs.digest(self.role, index),
        };
        let hash = self.random.below(12) == 0;
        let mut data = self.logs.answer(index, hash, digest);
        if self.random.below(2) == 0 {
            alter(&mut data, self.logs, &mut self.random);
        }
        data
    }

    pub(super) fn request(&mut self) -> Request {
        let bytes = match self.random.below(16) {
            0 => self.random.one_of(&[1 << 40, 1 << 53]),
            1..=3 => 1 + self.random.below(950) as u64,
            _ => 0,
        };
        let nodes = match self.random.below(6) {
            0 => self.random.below(256) as u64,
            1 => self
                .random
                .one_of(&[u64::MAX, 1 << 52, (1 << 53) - 1, 3, 2]),
            2 => 1,
            _ => 0,
        };
        let there = self.role.blocks();
        let index = match self.random.below(8) {
            0 => self.number(),
            _ if there.is_empty() => self.number(),
            _ => there[self.random.below(there.len())],
        };
        Request {
            index,
            bytes,
            hash: self.random.below(4) == 0,
            nodes,
        }
    }

    pub(super) fn want(&mut self) -> Want {
        let (start, length) = match self.random.below(6) {
            0 => (self.number(), self.count()),
            1 => (0, 0),
            2 => (self.random.one_of(&[8192, REGION, 1 << 40]), REGION),
            3 => (0, 8192),
            _ => (0, REGION),
        };
        Want { start, length }
    }

    pub(super) fn have(&mut self) -> Have {
        let bitfield = match self.random.below(3) {
            0 => {
                let all: [&[u8]; 8] = [
                    &[],
                    &[0x0b, 0x02, 0xf8],
                    &[0x04, 0xff, 0x0f],
                    &[0x83, 0x80, 0x02],
                    &[0x04, 0xff],
                    &[0x80],
                    &[0x03, 0x02],
                    &[0xff; 12],
                ];
                Some(self.random.one_of(&all).to_vec().into())
            }
            _ => None,
        };
        let length = match &bitfield {
            Some(_) => self.random.one_of(&[0, 1, 8192, REGION]),
            None => self.count(),
        };
        let start = match self.random.below(2) {
            0 => self.random.one_of(&[0, 8, 8192, REGION]),
            _ => self.number(),
        };
        Have {
            start,
            length,
            bitfield,
            ack: self.random.below(4) == 0,
        }
    }

    pub(super) fn unhave(&mut self) -> Unhave {
        Unhave {
            start: self.number(),
            length: self.count(),
        }
    }

    pub(super) fn unwant(&mut self) -> Unwant {
        Unwant {
            start: self.number(),
            length: self.count(),
        }
    }

    pub(super) fn cancel(&mut self) -> Cancel {
        Cancel {
            index: self.number(),
            bytes: self.random.below(2) as u64,
            hash: self.random.below(2) == 0,
        }
    }

    pub(super) fn status(&mut self) -> Status {
        Status {
            uploading: self.random.below(2) == 0,
            downloading: self.random.below(2) == 0,
        }
    }

    pub(super) fn options(&mut self) -> Options {
        let names: [&[&str]; 3] = [&[], &["a", "b"], &["b", "a", ""]];
        let names = self.random.one_of(&names);
        Options {
            extensions: names.iter().map(|&name| name.to_owned()).collect(),
            ack: self.random.below(2) == 0,
        }
    }

    pub(super) fn extension(&mut self) -> Extension {
        Extension {
            id: self.random.below(4) as u64,
            payload: vec![7; self.random.below(40)].into(),
        }
    }
}
