//! However the link splits, joins and delays, both sides see the same.

use bytes::Bytes;
use hypercore_wire::{ChannelId, Data, DataNode, Event, Have, Message, Request, discovery_key};
use proptest::prelude::*;

use crate::support::{KEY, Pair};

/// A conversation, carried in steps: which side's bytes go, and how many at most.
fn conversation(steps: &[(bool, usize)], noise: bool, encrypted: bool) -> [Vec<Event>; 2] {
    let mut pair = Pair::new(|options| (options.noise, options.encrypted) = (noise, encrypted));
    let mut steps = steps.iter().cycle();
    let mut carry = |pair: &mut Pair, rounds: usize| {
        for _ in 0..rounds {
            let &(from, max) = steps.next().expect("a cycle");
            pair.carry(from.into(), max);
        }
    };
    let channels = [0, 1].map(|side| pair.sides[side].open(&KEY).expect("a channel"));
    let other = pair.sides[0].open(&[8; 32]).expect("a channel");
    carry(&mut pair, 5);
    for block in 0..20 {
        let request = Request {
            index: block,
            nodes: 1,
            ..Request::default()
        };
        send(&mut pair, 0, channels[0], Message::Request(request));
        let data = Data {
            index: block,
            value: Some(Bytes::from(vec![block as u8; 97 * block as usize])),
            nodes: vec![DataNode {
                index: 2 * block,
                hash: [1; 32],
                size: 97 * block,
            }],
            signature: Some([2; 64]),
        };
        carry(&mut pair, 3);
        send(&mut pair, 1, channels[1], Message::Data(data));
        send(&mut pair, 1, channels[1], Message::Have(Have::block(block)));
    }
    pair.sides[0].close(other);
    carry(&mut pair, 10);
    pair.drive();
    pair.sides[0].close(channels[0]);
    pair.drive();
    assert_eq!((pair.sides[0].channels(), pair.sides[1].channels()), (0, 0));
    pair.events
}

fn send(pair: &mut Pair, side: usize, channel: ChannelId, message: Message) {
    pair.sides[side]
        .send(channel, &message)
        .expect("an open channel");
}

#[test]
fn the_conversation_is_what_it_should_be() {
    let [ours, theirs] = conversation(&[(false, usize::MAX), (true, usize::MAX)], true, true);
    assert_eq!(ours.len(), 1 + 1 + 40);
    assert_eq!(theirs.len(), 1 + 1 + 20 + 3);
    let discovery_key = discovery_key(&[8; 32]);
    assert!(theirs.contains(&Event::RemoteOpened { discovery_key }));
    assert!(theirs.contains(&Event::Closed {
        channel: None,
        discovery_key
    }));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn any_schedule_gives_the_same_events(
        steps in prop::collection::vec((any::<bool>(), prop_oneof![1..8usize, 1..3000usize]), 1..40),
        mode in prop_oneof![Just((true, true)), Just((true, false)), Just((false, false))],
    ) {
        let whole = conversation(&[(false, usize::MAX), (true, usize::MAX)], mode.0, mode.1);
        prop_assert_eq!(conversation(&steps, mode.0, mode.1), whole);
    }
}
