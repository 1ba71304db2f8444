//! Ways in which an answer is false.

use hypercore::Bytes;
use hypercore::wire::{Data, DataNode};

use super::super::random::Random;
use super::logs::Logs;

/// Alters an answer in one way, or in none.
pub(super) fn alter(data: &mut Data, logs: &Logs, random: &mut Random) {
    let length = logs.length();
    let other = random.below(length as usize) as u64;
    let at = random.below(data.nodes.len());
    let bit = 1 << random.below(8);
    let edge = random.one_of(&[0, 1, 1 << 31, (1 << 52) - 1, 1 << 53, u64::MAX]);
    match random.below(21) {
        0 => data.value = Some(changed(data.value.as_deref(), |value| value[0] ^= bit)),
        1 => data.value = Some(changed(data.value.as_deref(), |value| value.push(bit))),
        2 => {
            data.value = Some(changed(data.value.as_deref(), |value| {
                value.truncate(value.len() - 1)
            }))
        }
        3 => data.value = Some(Bytes::new()),
        4 => data.value = None,
        5 => data.value = Some(logs.blocks[other as usize].clone().into()),
        6 => data.index = other,
        7 => data.index = random.one_of(&[length, length + 1, 8192, 1 << 40]),
        8 => data.index = edge,
        9 => data.signature = None,
        10 => data.signature = Some(logs.answer(other, false, 0).signature.unwrap_or([1; 64])),
        11 => {
            let at = random.below(64);
            data.signature.iter_mut().for_each(|it| it[at] ^= bit);
        }
        12 => data.nodes.clear(),
        13 => data.nodes.reverse(),
        14 => data.nodes.truncate(at),
        15 if !data.nodes.is_empty() => drop(data.nodes.remove(at)),
        16 => data.nodes.push(DataNode {
            index: other,
            hash: [7; 32],
            size: 7,
        }),
        17 => with(data, at, |node| node.hash[0] ^= bit),
        18 => with(data, at, |node| node.size ^= u64::from(bit)),
        19 => with(data, at, |node| node.index ^= u64::from(bit)),
        _ => {
            // What Node believes: the proof stops below the roots, and they are beside it.
            let roots = hypercore::merkle::full_roots(length);
            data.nodes = logs.nodes(roots.map(|root| root.get()));
            data.signature = logs.answer(0, false, 0).signature;
            let value = data.value.as_deref().filter(|_| bit > 1);
            data.value =
                Some(value.map_or(Bytes::new(), |value| changed(Some(value), |it| it[0] ^= 1)));
        }
    }
}

fn with(data: &mut Data, at: usize, change: impl Fn(&mut DataNode)) {
    data.nodes.iter_mut().skip(at).take(1).for_each(change);
}

fn changed(value: Option<&[u8]>, change: impl Fn(&mut Vec<u8>)) -> Bytes {
    let mut value = value.unwrap_or_default().to_vec();
    if value.is_empty() {
        value.push(0);
    }
    change(&mut value);
    value.into()
}
