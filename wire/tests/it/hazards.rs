//! What Node falls over, one test for each: the answer here is always a typed error, or nothing.

use std::time::Instant;

use hypercore_wire::{Error, Event, MAX_BLOCKS, Message, MessageKind, Problem};

use crate::support::{KEY, close_frame, give, open_frame, plain, plain_open, raw};

/// The problem a session with channel 1 open finds in a message.
fn problem(kind: MessageKind, body: &[u8]) -> Option<Problem> {
    let now = Instant::now();
    let mut session = plain_open(now, |_| {});
    let (events, result) = give(&mut session, now, &raw(1, kind as u8, body));
    match result {
        Ok(()) => {
            assert_eq!(events.len(), 1, "an accepted message is an event");
            None
        }
        Err(
            error @ Error::InvalidMessage {
                kind: found,
                problem,
            },
        ) => {
            assert!(events.is_empty() && found == kind && error.is_peer_fault());
            Some(problem)
        }
        Err(error) => panic!("{error}"),
    }
}

fn varint(mut value: u64) -> Vec<u8> {
    let mut out = Vec::new();
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
    out
}

fn number(field: u8, value: u64) -> Vec<u8> {
    [vec![field << 3], varint(value)].concat()
}

fn field(field: u8, bytes: &[u8]) -> Vec<u8> {
    [
        vec![field << 3 | 2],
        varint(bytes.len() as u64),
        bytes.to_vec(),
    ]
    .concat()
}

fn node(index: u64, hash: &[u8], size: u64) -> Vec<u8> {
    field(
        3,
        &[number(1, index), field(2, hash), number(3, size)].concat(),
    )
}

#[test]
fn data_without_value_and_without_nodes() {
    assert_eq!(
        problem(MessageKind::Data, &number(1, 0)),
        Some(Problem::Empty)
    );
    assert_eq!(
        problem(MessageKind::Data, &[number(1, 0), field(2, &[])].concat()),
        None
    );
    assert_eq!(
        problem(
            MessageKind::Data,
            &[number(1, 0), node(1, &[0; 32], 5)].concat()
        ),
        None
    );
}

#[test]
fn signatures_and_hashes_of_another_length() {
    for length in [0, 31, 33, 63, 64, 65] {
        let body = [number(1, 0), field(2, b"x"), field(4, &vec![1; length])].concat();
        let expected = (length != 64).then_some(Problem::WrongLength { field: 4, length });
        assert_eq!(problem(MessageKind::Data, &body), expected);
        let body = [number(1, 0), node(2, &vec![1; length], 0)].concat();
        let expected = (length != 32).then_some(Problem::WrongLength { field: 3, length });
        assert_eq!(problem(MessageKind::Data, &body), expected);
    }
}

#[test]
fn a_node_without_one_of_its_fields() {
    for node in [
        [field(2, &[0; 32]), number(3, 1)],
        [number(1, 2), number(3, 1)],
        [number(1, 2), field(2, &[0; 32])],
    ] {
        let body = [number(1, 0), field(3, &node.concat())].concat();
        assert_eq!(
            problem(MessageKind::Data, &body),
            Some(Problem::MissingField { field: 3 })
        );
    }
}

#[test]
fn ranges_near_and_beyond_two_to_the_53() {
    for kind in [
        MessageKind::Have,
        MessageKind::Unhave,
        MessageKind::Want,
        MessageKind::Unwant,
    ] {
        let range = |start, length| [number(1, start), number(2, length)].concat();
        let large = Some(Problem::TooLarge { field: 2 });
        assert_eq!(problem(kind, &range(0, MAX_BLOCKS)), None);
        assert_eq!(problem(kind, &range(MAX_BLOCKS - 1, 1)), None);
        assert_eq!(problem(kind, &range(MAX_BLOCKS, 1)), large);
        assert_eq!(problem(kind, &range(1, MAX_BLOCKS)), large);
        assert_eq!(problem(kind, &range(9_007_199_254_740_000, 0)), large);
        assert_eq!(problem(kind, &range(u64::MAX, u64::MAX)), large);
    }
}

#[test]
fn numbers_that_javascript_cannot_hold() {
    for kind in [MessageKind::Request, MessageKind::Cancel] {
        let large = |field| Some(Problem::TooLarge { field });
        assert_eq!(problem(kind, &number(1, MAX_BLOCKS - 1)), None);
        assert_eq!(problem(kind, &number(1, MAX_BLOCKS)), large(1));
        assert_eq!(
            problem(kind, &[number(1, 0), number(2, (1 << 53) - 1)].concat()),
            None
        );
        assert_eq!(
            problem(kind, &[number(1, 0), number(2, 1 << 53)].concat()),
            large(2)
        );
    }
    // The digest is 64 bits, not a number.
    let digest = [number(1, 0), number(4, u64::MAX)].concat();
    assert_eq!(problem(MessageKind::Request, &digest), None);
    let large = Some(Problem::TooLarge { field: 3 });
    let data = |node: Vec<u8>| problem(MessageKind::Data, &[number(1, 0), node].concat());
    assert_eq!(data(node((1 << 53) - 1, &[0; 32], (1 << 53) - 1)), None);
    assert_eq!(data(node(1 << 53, &[0; 32], 0)), large);
    assert_eq!(data(node(0, &[0; 32], 1 << 53)), large);
    let endless = [vec![0x08], vec![0xff; 10], vec![0x01]].concat();
    assert_eq!(
        problem(MessageKind::Request, &endless),
        Some(Problem::Malformed)
    );
}

#[test]
fn a_bitfield_that_does_not_start_at_a_byte() {
    let have = |start| [number(1, start), number(2, 8192), field(3, &[0x0f])].concat();
    for start in 0..17 {
        let expected = (start % 8 != 0).then_some(Problem::UnalignedBitfield);
        assert_eq!(problem(MessageKind::Have, &have(start)), expected);
    }
}

#[test]
fn groups_and_unknown_wire_types() {
    for wire_type in [3, 4, 6, 7] {
        let body = [number(1, 0), vec![9 << 3 | wire_type]].concat();
        assert_eq!(
            problem(MessageKind::Request, &body),
            Some(Problem::Malformed)
        );
    }
}

/// Node skips it.
#[test]
fn a_field_with_the_number_0() {
    let body = [vec![0, 1], number(1, 0)].concat();
    assert_eq!(
        problem(MessageKind::Request, &body),
        Some(Problem::Malformed)
    );
}

#[test]
fn an_open_with_a_discovery_key_or_capability_of_another_length() {
    let now = Instant::now();
    for (body, field, length) in [
        (field(1, &[0; 31]), 1, 31),
        (field(1, &[0; 33]), 1, 33),
        (field(1, &[]), 1, 0),
        ([field(1, &[0; 32]), field(2, &[0; 31])].concat(), 2, 31),
    ] {
        let mut session = plain(now, |_| {});
        let problem = Problem::WrongLength { field, length };
        let error = Error::InvalidMessage {
            kind: MessageKind::Open,
            problem,
        };
        assert_eq!(session.receive(now, &raw(1, 0, &body)), Err(error));
    }
}

#[test]
fn a_close_with_a_discovery_key_of_another_length() {
    let now = Instant::now();
    let mut session = plain(now, |_| {});
    let problem = Problem::WrongLength {
        field: 1,
        length: 5,
    };
    let error = Error::InvalidMessage {
        kind: MessageKind::Close,
        problem,
    };
    assert_eq!(
        session.receive(now, &raw(1, 10, &field(1, &[0; 5]))),
        Err(error)
    );
}

#[test]
fn an_empty_extension_message() {
    assert_eq!(
        problem(MessageKind::Extension, &[]),
        Some(Problem::Malformed)
    );
}

#[test]
fn one_channel_opened_twice_and_one_number_for_two_channels() {
    let now = Instant::now();
    for open in [true, false] {
        for second in [
            open_frame(2, &KEY),
            open_frame(1, &[8; 32]),
            open_frame(1, &KEY),
        ] {
            let mut session = plain(now, |_| {});
            if open {
                session.open(&KEY).expect("a channel");
            }
            session
                .receive(now, &open_frame(1, &KEY))
                .expect("an honest Open");
            let error = session.receive(now, &second).expect_err("a second Open");
            assert!(matches!(error, Error::DuplicateOpen { .. }), "{error}");
        }
    }
}

#[test]
fn a_channel_opened_as_the_stream_itself() {
    let now = Instant::now();
    let mut session = plain(now, |_| {});
    let error = session
        .receive(now, &open_frame(0, &KEY))
        .expect_err("number 0");
    assert!(
        matches!(error, Error::ChannelNumber { id: 0, .. }),
        "{error}"
    );
}

#[test]
fn a_message_after_the_channel_was_closed_under_another_number() {
    let now = Instant::now();
    let mut session = plain_open(now, |_| {});
    // A Close that names the channel by its discovery key frees both its numbers.
    let key = hypercore_wire::discovery_key(&KEY);
    let (events, result) = give(&mut session, now, &close_frame(7, Some(key)));
    assert_eq!(result, Ok(()));
    assert!(matches!(
        events[..],
        [Event::Closed {
            channel: Some(_),
            ..
        }]
    ));
    let have = raw(1, MessageKind::Have as u8, &number(1, 0));
    assert_eq!(give(&mut session, now, &have), (vec![], Ok(())));
    let (events, result) = give(&mut session, now, &open_frame(1, &KEY));
    assert_eq!(
        (events.len(), result),
        (1, Ok(())),
        "the number is free again"
    );
}

#[test]
fn headers_beyond_31_bits_and_headers_without_an_end() {
    let now = Instant::now();
    for frame in [
        &[0x06, 0x81, 0x80, 0x80, 0x80, 0x08, 0x00][..],
        &[
            0x0b, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x01,
        ],
        &[0x01, 0x80],
        &[0x02, 0xff, 0xff],
    ] {
        let mut session = plain(now, |_| {});
        assert_eq!(
            session.receive(now, frame),
            Err(Error::FrameHeader),
            "{frame:02x?}"
        );
    }
}

#[test]
fn an_invalid_message_reaches_the_driver_even_if_it_is_decoded_late() {
    let now = Instant::now();
    let mut session = plain_open(now, |_| {});
    let mut bytes = Vec::new();
    for _ in 0..1000 {
        bytes.extend(raw(1, MessageKind::Have as u8, &number(1, 0)));
    }
    bytes.extend(raw(1, MessageKind::Have as u8, &[]));
    let received = session.receive(now, &bytes);
    assert_eq!(received, Ok(()), "so many events are not decoded ahead");
    let mut count = 0;
    while let Some(event) = session.poll_event() {
        assert!(matches!(
            event,
            Event::Message {
                message: Message::Have(_),
                ..
            }
        ));
        count += 1;
    }
    assert_eq!(count, 1000);
    assert_eq!(session.poll_timeout(), Some(now));
    assert!(
        session
            .handle_timeout(now)
            .expect_err("the last one")
            .is_peer_fault()
    );
}
