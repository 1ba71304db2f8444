use std::time::{Duration, Instant};

use bytes::Bytes;
use hypercore_wire::{
    Budget, Data, DataNode, Error, Event, Extension, Have, KEEP_ALIVE_WINDOW, Message, MessageKind,
    Options, Problem, Role, Session, UNMATCHED_WINDOW, discovery_key,
};

use crate::support::{
    KEY, Pair, close_frame, events, fill, frames, give, message_frame, open_frame, plain,
    plain_open, raw, take,
};

const HAVE: Message = Message::Have(Have::block(3));

#[test]
fn long_frames_are_for_those_who_know_a_key() {
    let now = Instant::now();
    let announced = |length: u32| {
        let length = [
            length as u8 | 0x80,
            (length >> 7) as u8 | 0x80,
            (length >> 14) as u8,
        ];
        [&length[..], &[0x19]].concat()
    };
    let too_large = |length, max| Err(Error::FrameTooLarge { length, max });
    let mut session = plain(now, |_| {});
    assert_eq!(session.receive(now, &announced((64 << 10) + 1)), Ok(()));
    let mut session = plain(now, |_| {});
    let result = session.receive(now, &announced((64 << 10) + 2));
    assert_eq!(result, too_large((64 << 10) + 2, 64 << 10));
    let mut session = plain_open(now, |_| {});
    assert_eq!(session.receive(now, &announced((64 << 10) + 2)), Ok(()));
    let mut session = plain_open(now, |_| {});
    assert_eq!(
        session.receive(now, &[0x81, 0x80, 0x80, 0x04, 0x19]),
        Ok(())
    );
    let mut session = plain_open(now, |_| {});
    let result = session.receive(now, &[0x82, 0x80, 0x80, 0x04, 0x19]);
    assert_eq!(result, too_large((8 << 20) + 2, 8 << 20));
    let mut session = plain_open(now, |_| {});
    let result = session.receive(now, &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f]);
    assert_eq!(result, too_large((1 << 49) - 1, 8 << 20));
}

#[test]
fn strangers_may_not_send_longer_frames_than_others() {
    let now = Instant::now();
    let mut session = plain(now, |options| options.limits.frame = 16 << 10);
    let announced = [0x82, 0x80, 0x01, 0x19];
    let error = Error::FrameTooLarge {
        length: (16 << 10) + 2,
        max: 16 << 10,
    };
    assert_eq!(session.receive(now, &announced), Err(error));
}

/// What is unfinished of it is longer than its body by the length and the header before it.
#[test]
fn a_frame_of_the_largest_size_arrives_in_single_bytes() {
    let now = Instant::now();
    let mut session = plain_open(now, |options| {
        (options.limits.frame, options.limits.read) = (1000, 1);
    });
    let message = Message::Data(Data {
        value: Some(Bytes::from(vec![0x5a; 1000 - 5])),
        ..Data::default()
    });
    let frame = message_frame(1, message);
    assert_eq!(frame.len(), 2 + 1 + 1000);
    let mut arrived = Vec::new();
    for byte in &frame {
        let (events, result) = give(&mut session, now, &[*byte]);
        assert_eq!(result, Ok(()));
        arrived.extend(events);
    }
    assert_eq!(arrived.len(), 1);
}

/// The remote may have opened the channel by the time it comes, or may not: it is not to take it for an offence.
#[test]
fn long_messages_wait_for_the_remote_to_open_a_channel() {
    let mut pair = Pair::new(|_| {});
    let channel = pair.sides[0].open(&KEY).expect("a channel");
    pair.drive();
    let long = |length: usize| {
        let value = Some(Bytes::from(vec![0x5a; length - 6]));
        Message::Data(Data {
            value,
            ..Data::default()
        })
    };
    let error = Error::MessageTooLarge {
        length: (64 << 10) + 1,
        max: 64 << 10,
    };
    let early = long((64 << 10) + 1);
    assert_eq!(pair.sides[0].send(channel, &early), Err(error));
    assert_eq!(pair.sides[0].send(channel, &long(64 << 10)), Ok(()));
    pair.drive();
    pair.sides[1].open(&KEY).expect("a channel");
    pair.drive();
    assert_eq!(pair.sides[0].send(channel, &early), Ok(()));
    pair.drive();
    assert!(
        matches!(pair.events[1].last(), Some(Event::Message { message, .. }) if *message == early)
    );
}

#[test]
fn a_frame_of_the_largest_size_arrives() {
    let mut pair = Pair::new(|_| {});
    let channels = [0, 1].map(|side| pair.sides[side].open(&KEY).expect("a channel"));
    pair.drive();
    // The rest of the body are the index and the keys of two fields with one length.
    let value = Bytes::from(vec![0x5a; (8 << 20) - 7]);
    let data = |value| {
        Message::Data(Data {
            value: Some(value),
            ..Data::default()
        })
    };
    let message = data(value.clone());
    pair.sides[0]
        .send(channels[0], &message)
        .expect("just small enough");
    pair.drive();
    assert_eq!(
        pair.events[1].last(),
        Some(&Event::Message {
            channel: channels[1],
            message
        })
    );
    let larger = data(Bytes::from(vec![0x5a; (8 << 20) - 6]));
    let error = Error::MessageTooLarge {
        length: (8 << 20) + 1,
        max: 8 << 20,
    };
    assert_eq!(pair.sides[0].send(channels[0], &larger), Err(error));
}

#[test]
fn an_announced_frame_takes_no_memory() {
    let now = Instant::now();
    let mut session = plain_open(now, |_| {});
    session
        .receive(now, &[0x81, 0x80, 0x80, 0x04, 0x19])
        .expect("a frame of 8 MiB begins");
    assert!(
        session.receive_buffer().len() <= 4096,
        "{}",
        session.receive_buffer().len()
    );
}

#[test]
fn the_receive_buffer_follows_the_reads() {
    let mut pair = Pair::new(|_| {});
    assert!(
        pair.sides[0].receive_buffer().len() <= 1024,
        "a handshake costs little"
    );
    let channels = [0, 1].map(|side| pair.sides[side].open(&KEY).expect("a channel"));
    pair.drive();
    let value = Some(Bytes::from(vec![1; 60_000]));
    let data = Message::Data(Data {
        value,
        ..Data::default()
    });
    let mut largest = 0;
    for _ in 0..50 {
        pair.sides[0]
            .send(channels[0], &data)
            .expect("an open channel");
    }
    loop {
        let bytes = pair.sides[0].outgoing().to_vec();
        if bytes.is_empty() {
            break;
        }
        let spare = pair.sides[1].receive_buffer();
        largest = largest.max(spare.len());
        let n = bytes.len().min(spare.len());
        spare[..n].copy_from_slice(&bytes[..n]);
        pair.sides[1]
            .received(pair.now, n)
            .expect("an honest remote");
        pair.sides[0].sent(pair.now, n);
        pair.poll();
    }
    assert_eq!(pair.events[1].len(), 52);
    assert!((64 << 10..=512 << 10).contains(&largest), "{largest}");
    // Once the remote only says little, the memory is given back.
    for _ in 0..200 {
        pair.sides[0]
            .send(channels[0], &HAVE)
            .expect("an open channel");
        pair.drive();
    }
    assert!(pair.sides[1].receive_buffer().len() <= 4096);
}

#[test]
fn a_buffer_is_not_believed_to_hold_more_than_it_can() {
    let now = Instant::now();
    let mut session = plain(now, |_| {});
    let spare = session.receive_buffer().len();
    let read = spare + 1;
    assert_eq!(
        session.received(now, read),
        Err(Error::ReadTooLong { read, spare })
    );
}

#[test]
fn frames_do_not_pile_up_unpolled() {
    let now = Instant::now();
    let mut session = plain_open(now, |options| options.limits.frame = 4096);
    let have = raw(1, MessageKind::Have as u8, &[0x08, 0x00]);
    let result = (0..1_000_000).try_for_each(|_| session.receive(now, &have));
    assert_eq!(result, Err(Error::EventsNotPolled));
    assert!(session.bytes_received() < 1 << 20);
}

#[test]
fn blocks_do_not_pile_up_unpolled() {
    let now = Instant::now();
    let budget = Budget::new(1 << 30);
    let mut session = plain_open(now, |options| {
        options.limits.frame = 1 << 20;
        options.limits.receive_budget = budget.clone();
    });
    let data = message_frame(
        1,
        Message::Data(Data {
            value: Some(Bytes::from(vec![0; 100_000])),
            ..Data::default()
        }),
    );
    let mut received = 0;
    let error = loop {
        if let Err(error) = session.receive(now, &data) {
            break error;
        }
        received += data.len();
        assert!(received < 3 << 20, "there is no end");
        let held = budget.held();
        assert!(
            (received..received + (2 << 20)).contains(&held),
            "{held} for {received}"
        );
    };
    assert_eq!(error, Error::EventsNotPolled);

    // What is polled is the caller's.
    let before = budget.held();
    let mut session = plain_open(now, |options| {
        options.limits.receive_budget = budget.clone();
    });
    for count in 0..100 {
        let (events, result) = give(&mut session, now, &data);
        assert_eq!((events.len(), result), (1, Ok(())), "after {count}");
    }
    let held = budget.held() - before;
    assert!(held < 1 << 20, "{held}");
}

#[test]
fn keep_alives_are_counted() {
    let mut now = Instant::now();
    let mut session = plain(now, |options| options.limits.keep_alives = 100);
    for _ in 0..3 {
        assert_eq!(session.receive(now, &[0; 100]), Ok(()));
        now += KEEP_ALIVE_WINDOW;
    }
    let error = Error::TooManyKeepAlives {
        max: 100,
        window: KEEP_ALIVE_WINDOW,
    };
    assert_eq!(session.receive(now, &[0; 101]), Err(error));
}

#[test]
fn unknown_channels_make_room_for_each_other() {
    let now = Instant::now();
    let mut session = plain(now, |options| options.limits.unmatched_channels = 3);
    for number in 1..=5 {
        session
            .receive(now, &open_frame(number, &[number as u8; 32]))
            .expect("an honest Open");
        assert!(session.channels() <= 3);
    }
    let closed: Vec<_> = events(&mut session)
        .into_iter()
        .filter_map(|event| match event {
            Event::Closed {
                channel: None,
                discovery_key,
            } => Some(discovery_key),
            _ => None,
        })
        .collect();
    assert_eq!(closed, [discovery_key(&[1; 32]), discovery_key(&[2; 32])]);
    assert_eq!(
        frames(&take(&mut session, now)).len(),
        2,
        "the remote is told"
    );
    // A channel we open is not among them.
    session.open(&[3; 32]).expect("a channel");
    session
        .receive(now, &open_frame(6, &[6; 32]))
        .expect("an honest Open");
    assert!(session.is_remote_open(&discovery_key(&[3; 32])));
    assert_eq!(session.channels(), 4);
}

#[test]
fn unknown_channels_are_counted() {
    let mut now = Instant::now();
    let mut session = plain(now, |options| {
        options.limits.unmatched_opens = 10;
        options.timeout = None;
    });
    for round in 0..3 {
        for number in 1..=10 {
            let key = [round * 10 + number as u8; 32];
            session
                .receive(now, &open_frame(number, &key))
                .expect("an honest Open");
            session
                .receive(now, &close_frame(number, None))
                .expect("an honest Close");
            events(&mut session);
        }
        now += UNMATCHED_WINDOW;
    }
    now -= UNMATCHED_WINDOW;
    let error = Error::TooManyUnmatchedOpens {
        max: 10,
        window: UNMATCHED_WINDOW,
    };
    assert_eq!(session.receive(now, &open_frame(1, &[99; 32])), Err(error));
}

#[test]
fn channels_and_their_numbers_are_bounded() {
    let now = Instant::now();
    let mut session = plain(now, |options| options.limits.channels = 2);
    session.open(&[1; 32]).expect("the first");
    let second = session.open(&[2; 32]).expect("the second");
    assert_eq!(
        session.open(&[3; 32]),
        Err(Error::TooManyChannels { max: 2 })
    );
    session.close(second);
    session.open(&[3; 32]).expect("there is room again");

    let mut session = plain(now, |options| options.limits.channel_number = 2);
    session
        .receive(now, &open_frame(2, &[1; 32]))
        .expect("an honest Open");
    let error = Error::ChannelNumber { id: 3, max: 2 };
    assert_eq!(session.receive(now, &open_frame(3, &[2; 32])), Err(error));
    let mut session = plain(now, |options| options.limits.channel_number = 2);
    for key in [[1; 32], [2; 32]] {
        let channel = session.open(&key).expect("a channel");
        session.close(channel);
    }
    assert_eq!(
        session.open(&[3; 32]),
        Err(Error::NoChannelNumber { max: 2 })
    );
}

fn invalid(kind: MessageKind, problem: Problem) -> Result<(), Error> {
    Err(Error::InvalidMessage { kind, problem })
}

#[test]
fn nodes_are_counted_before_they_take_memory() {
    let now = Instant::now();
    let data = |count| {
        let nodes = vec![
            DataNode {
                index: 1,
                hash: [0; 32],
                size: 1
            };
            count
        ];
        message_frame(
            1,
            Message::Data(Data {
                nodes,
                ..Data::default()
            }),
        )
    };
    let mut session = plain_open(now, |_| {});
    assert_eq!(session.receive(now, &data(128)), Ok(()));
    let problem = Problem::TooMany { field: 3, max: 128 };
    assert_eq!(
        session.receive(now, &data(129)),
        invalid(MessageKind::Data, problem)
    );
    let mut session = plain_open(now, |_| {});
    let empty = [&[0x08, 0x00][..], &[0x1a, 0x00].repeat(1 << 20)].concat();
    let result = session.receive(now, &raw(1, MessageKind::Data as u8, &empty));
    let problem = Problem::MissingField { field: 3 };
    assert_eq!(result, invalid(MessageKind::Data, problem));
}

#[test]
fn names_of_extensions_are_bounded_on_both_sides() {
    let now = Instant::now();
    let names = |count: usize| (0..count).map(|i| format!("{i:04}")).collect::<Vec<_>>();
    let frame = |extensions| {
        message_frame(
            1,
            Message::Options(Options {
                extensions,
                ack: false,
            }),
        )
    };
    let mut session = plain_open(now, |_| {});
    assert_eq!(session.receive(now, &frame(names(256))), Ok(()));
    assert_eq!(session.receive(now, &frame(vec!["x".repeat(256)])), Ok(()));
    let problem = Problem::WrongLength {
        field: 1,
        length: 257,
    };
    let result = session.receive(now, &frame(vec!["x".repeat(257)]));
    assert_eq!(result, invalid(MessageKind::Options, problem));
    let mut session = plain_open(now, |_| {});
    let problem = Problem::TooMany { field: 1, max: 256 };
    let result = session.receive(now, &frame(names(257)));
    assert_eq!(result, invalid(MessageKind::Options, problem));

    let mut session = plain_open(now, |_| {});
    let error = Err(Error::TooManyExtensions {
        names: 256,
        length: 256,
    });
    assert_eq!(session.declare_extensions(names(257)), error);
    assert_eq!(session.declare_extensions(vec!["x".repeat(257)]), error);
    assert_eq!(session.declare_extensions(names(256)), Ok(()));
}

#[test]
fn messages_of_extensions_are_bounded() {
    let now = Instant::now();
    let message = |length| {
        let payload = Bytes::from(vec![0; length]);
        message_frame(1, Message::Extension(Extension { id: 0, payload }))
    };
    let mut session = plain_open(now, |_| {});
    assert_eq!(
        give(&mut session, now, &message(1 << 20)),
        (vec![], Ok(())),
        "of no interest"
    );
    let channel = session
        .find(&discovery_key(&KEY))
        .expect("the channel is open");
    let options = || {
        Message::Options(Options {
            extensions: vec!["a".to_owned()],
            ack: false,
        })
    };
    session.send(channel, &options()).expect("an open channel");
    let payload = |length| Bytes::from(vec![0; length]);
    let sent = session.send_extension(Some(channel), "a", payload(64 << 10));
    assert_eq!(sent, Ok(()));
    let error = Error::MessageTooLarge {
        length: (64 << 10) + 1,
        max: 64 << 10,
    };
    let sent = session.send_extension(Some(channel), "a", payload((64 << 10) + 1));
    assert_eq!(sent, Err(error), "the remote would end the session");
    session
        .receive(now, &message_frame(1, options()))
        .expect("an honest remote");
    assert_eq!(session.receive(now, &message(64 << 10)), Ok(()));
    let problem = Problem::WrongLength {
        field: 0,
        length: (64 << 10) + 1,
    };
    let result = session.receive(now, &message((64 << 10) + 1));
    assert_eq!(result, invalid(MessageKind::Extension, problem));
}

#[test]
fn the_send_buffer_is_bounded_before_and_after_the_handshake() {
    let mut pair = Pair::new(|options| options.limits.send_buffer = 10_000);
    let before = fill(&mut pair.sides[0]);
    assert!(before < 11_200, "{before}");
    pair.drive();
    assert_eq!(pair.sides[0].buffered(), 0);
    let after = fill(&mut pair.sides[0]);
    assert!(after < 11_200, "{after}");
    // The session goes on: a Close finds room, and what waits goes out.
    let channel = pair.sides[0]
        .find(&discovery_key(&KEY))
        .expect("the channel is open");
    pair.sides[0].close(channel);
    pair.drive();
    assert_eq!((pair.sides[0].error(), pair.sides[0].buffered()), (None, 0));
    assert_eq!(pair.sides[1].channels(), 0);
}

/// A message is let in while there is any room, however long it is: so it may pass the limit by a frame.
#[test]
fn a_close_finds_room_behind_a_long_message() {
    for closes in [0, 1] {
        let mut pair = Pair::new(|options| options.limits.send_buffer = 10_000);
        let channels = [0, 1].map(|side| pair.sides[side].open(&KEY).expect("a channel"));
        pair.drive();
        let value = Some(Bytes::from(vec![0; 2 << 20]));
        let data = Message::Data(Data {
            value,
            ..Data::default()
        });
        pair.sides[0].send(channels[0], &data).expect("it may");
        pair.sides[closes].close(channels[closes]);
        pair.carry(1, usize::MAX);
        assert_eq!(pair.sides[0].error(), None);
        pair.drive();
        assert_eq!((pair.sides[0].error(), pair.sides[0].buffered()), (None, 0));
        assert_eq!([0, 1].map(|side| pair.sides[side].channels()), [0, 0]);
        assert_eq!([0, 1].map(|side| pair.sides[side].closing()), [0, 0]);
    }
}

#[test]
fn a_handshake_has_ten_seconds_however_busy_it_is() {
    let start = Instant::now();
    let mut pair = Pair::new(|_| {});
    let second = Duration::from_secs(1);
    for i in 0..9 {
        let byte = pair.sides[1].outgoing().len();
        assert_eq!(byte, 0);
        let first = pair.sides[0].outgoing()[i];
        assert_eq!(pair.sides[1].receive(pair.now, &[first]), Ok(()));
        pair.now += second;
        assert_eq!(pair.sides[1].handle_timeout(pair.now), Ok(()));
    }
    assert!(pair.now < start + 11 * second);
    let due = pair.sides[1].poll_timeout().expect("a deadline");
    let error = Error::HandshakeTimeout { limit: 10 * second };
    assert_eq!(pair.sides[1].handle_timeout(due), Err(error));
}

#[test]
fn who_downloads_nothing_takes_no_long_frames_but_sends_them() {
    let mut pair = Pair::new(|_| {});
    pair.sides[1] = {
        let mut options = crate::support::options(Role::Responder);
        options.limits.received_frame = 1000;
        Session::new(options, pair.now).expect("randomness")
    };
    let channels = [0, 1].map(|side| pair.sides[side].open(&KEY).expect("a channel"));
    pair.drive();
    let data = |length| {
        Message::Data(Data {
            value: Some(Bytes::from(vec![1; length])),
            ..Data::default()
        })
    };
    pair.sides[1]
        .send(channels[1], &data(100_000))
        .expect("it may");
    pair.sides[0].send(channels[0], &data(900)).expect("it may");
    pair.drive();
    assert_eq!([0, 1].map(|side| pair.events[side].len()), [3, 3]);
    pair.sides[0]
        .send(channels[0], &data(1100))
        .expect("it may");
    let bytes = pair.sides[0].outgoing().to_vec();
    let error = Error::FrameTooLarge {
        length: 1106,
        max: 1000,
    };
    assert_eq!(pair.sides[1].receive(pair.now, &bytes), Err(error));
}
