use std::time::Instant;

use bytes::{Bytes, BytesMut};
use hypercore_wire::{
    Body, Close, Data, Direction, Error, Event, Frame, Have, Limits, Message, MessageStream, Mux,
    Open, Options, Split, discovery_key,
};

use crate::support::{
    KEY, Pair, close_frame, encoded, events, frames, give, message_frame, open_frame, plain,
    plain_open, take,
};

const HAVE: Message = Message::Have(Have::block(3));

#[test]
fn both_sides_open_a_channel_and_talk() {
    let mut pair = Pair::new(|_| {});
    let ours = pair.sides[0].open(&KEY).expect("a channel");
    assert_eq!(
        pair.sides[0].open(&KEY),
        Ok(ours),
        "opening again changes nothing"
    );
    assert!(!pair.sides[0].is_open(ours));
    pair.drive();
    let discovery_key = discovery_key(&KEY);
    assert_eq!(pair.events[1][1..], [Event::RemoteOpened { discovery_key }]);
    assert!(pair.sides[1].remote_verified(&KEY));
    assert!(!pair.sides[1].remote_verified(&[8; 32]));
    let theirs = pair.sides[1].open(&KEY).expect("the remote knows the key");
    pair.sides[1].send(theirs, &HAVE).expect("an open channel");
    pair.drive();
    assert_eq!(pair.events[1][2..], [Event::Opened { channel: theirs }]);
    assert_eq!(
        pair.events[0][1..],
        [
            Event::Opened { channel: ours },
            Event::Message {
                channel: ours,
                message: HAVE
            },
        ]
    );
    assert!(pair.sides[0].is_open(ours) && pair.sides[1].is_open(theirs));
    assert_eq!(pair.sides[0].find(&discovery_key), Some(ours));
    assert_eq!(pair.sides[0].discovery_key(ours), Some(discovery_key));
}

#[test]
fn numbers_start_at_one_and_are_never_used_twice() {
    let now = Instant::now();
    let mut session = plain(now, |_| {});
    for number in 1..5 {
        let channel = session.open(&KEY).expect("a channel");
        assert_eq!(channel.number(), number);
        session.close(channel);
        assert_eq!(
            session.send(channel, &HAVE),
            Err(Error::ChannelNotOpen { channel })
        );
    }
    let sent = frames(&take(&mut session, now));
    let numbers: Vec<_> = sent.iter().map(|frame| frame.channel).collect();
    assert_eq!(numbers, [1, 1, 2, 2, 3, 3, 4, 4]);
    assert_eq!(session.channels(), 0);
}

#[test]
fn a_close_is_answered_by_a_close() {
    let mut pair = Pair::new(|_| {});
    let channels = [0, 1].map(|side| pair.sides[side].open(&KEY).expect("a channel"));
    pair.drive();
    pair.sides[0].close(channels[0]);
    assert_eq!(pair.sides[0].channels(), 0);
    pair.drive();
    let closed = Event::Closed {
        channel: Some(channels[1]),
        discovery_key: discovery_key(&KEY),
    };
    assert_eq!(pair.events[1].last(), Some(&closed));
    assert_eq!(pair.sides[1].channels(), 0);
    assert!(!pair.sides[1].is_open(channels[1]));
    assert!(
        !pair.events[0]
            .iter()
            .any(|event| matches!(event, Event::Closed { .. }))
    );

    // Both may open it again.
    let again = [0, 1].map(|side| pair.sides[side].open(&KEY).expect("a channel"));
    pair.drive();
    assert!(again[0] != channels[0] && pair.sides[0].is_open(again[0]));
    assert!(pair.sides[1].is_open(again[1]));
}

#[test]
fn closing_and_opening_at_once_crosses_on_the_wire() {
    let mut pair = Pair::new(|_| {});
    let channels = [0, 1].map(|side| pair.sides[side].open(&KEY).expect("a channel"));
    pair.drive();
    let again = [0, 1].map(|side| {
        pair.sides[side].close(channels[side]);
        pair.sides[side].open(&KEY).expect("a channel")
    });
    pair.drive();
    assert!(pair.sides[0].is_open(again[0]) && pair.sides[1].is_open(again[1]));
    assert_eq!((pair.sides[0].channels(), pair.sides[1].channels()), (1, 1));
}

#[test]
fn a_rejected_channel_is_closed_on_both_sides() {
    let mut pair = Pair::new(|_| {});
    let ours = pair.sides[0].open(&KEY).expect("a channel");
    pair.drive();
    let discovery_key = discovery_key(&KEY);
    pair.sides[1].reject(&discovery_key);
    pair.drive();
    let closed = Event::Closed {
        channel: Some(ours),
        discovery_key,
    };
    assert_eq!(pair.events[0].last(), Some(&closed));
    let closed = Event::Closed {
        channel: None,
        discovery_key,
    };
    assert_eq!(
        pair.events[1].last(),
        Some(&closed),
        "the answer ends it here too"
    );
    assert_eq!((pair.sides[0].channels(), pair.sides[1].channels()), (0, 0));
}

/// The longest message to a stranger is shorter than this. Whoever has answered our Open is none, also when
/// we have taken that back meanwhile.
#[test]
fn who_answers_an_open_that_was_taken_back_may_send_long_messages() {
    let long = Message::Data(Data {
        value: Some(Bytes::from(vec![0x5a; 65_535])),
        ..Data::default()
    });
    let discovery_key = discovery_key(&KEY);
    for way in ["we close", "we reject", "the remote rejects"] {
        let mut pair = Pair::new(|_| {});
        pair.drive();
        let ours = pair.sides[0].open(&KEY).expect("a channel");
        let open = pair.sides[0].outgoing().len();
        match way {
            "we close" => pair.sides[0].close(ours),
            "we reject" => pair.sides[0].reject(&discovery_key),
            _ => {}
        }
        pair.carry(0, open);
        if way == "the remote rejects" {
            pair.sides[1].reject(&discovery_key);
        }
        let theirs = pair.sides[1].open(&KEY).expect("we have shown the key");
        pair.sides[1].send(theirs, &long).expect("an open channel");
        pair.drive();
        assert_eq!(pair.sides[0].error(), None, "{way}");
    }
}

/// That it knows the key says nothing of what it knows of us: it took the message for that of a stranger.
#[test]
fn who_answers_an_open_that_was_taken_back_is_sent_no_long_messages() {
    let long = Message::Data(Data {
        value: Some(Bytes::from(vec![0x5a; 65_535])),
        ..Data::default()
    });
    let mut pair = Pair::new(|_| {});
    pair.drive();
    let [first, second] = [KEY, [9; 32]].map(|key| pair.sides[0].open(&key).expect("a channel"));
    pair.sides[0].close(first);
    while pair.carry(0, usize::MAX) > 0 {}
    pair.sides[1].open(&KEY).expect("we have shown the key");
    while pair.carry(1, usize::MAX) > 0 {}
    let sent = pair.sides[0].send(second, &long);
    assert!(
        matches!(sent, Err(Error::MessageTooLarge { .. })),
        "{sent:?}"
    );
    pair.drive();
    assert_eq!(pair.sides[1].error(), None);
}

/// A message stream that is encrypted elsewhere: here, not at all.
struct Elsewhere {
    split: Split,
    sent: Vec<Bytes>,
}

impl MessageStream for Elsewhere {
    fn remote_public_key(&self) -> Option<[u8; 32]> {
        Some([2; 32])
    }

    fn handshake_hash(&self) -> Option<[u8; 64]> {
        Some([3; 64])
    }

    fn capability(&self, key: &[u8; 32], direction: Direction) -> Option<[u8; 32]> {
        Some(self.split.capability(key, direction))
    }

    fn buffered(&self) -> usize {
        self.sent.iter().map(Bytes::len).sum()
    }

    fn send(&mut self, length: usize, encode: &mut dyn FnMut(&mut BytesMut)) -> Result<(), Error> {
        let mut frame = BytesMut::new();
        encode(&mut frame);
        assert_eq!(frame.len(), length);
        self.sent.push(frame.freeze());
        Ok(())
    }
}

fn started() -> (Mux, Elsewhere) {
    let mut stream = Elsewhere {
        split: Split::new([4; 32], [5; 32]),
        sent: Vec::new(),
    };
    let mut mux = Mux::new(Limits::default());
    mux.start(&mut stream).expect("nothing waits");
    (mux, stream)
}

fn open(number: u32, capability: Option<[u8; 32]>) -> Bytes {
    let open = Open {
        discovery_key: discovery_key(&KEY),
        capability,
    };
    let mut frame = BytesMut::new();
    Frame {
        channel: number,
        body: Body::Open(open),
    }
    .encode(&mut frame);
    frame.freeze()
}

#[test]
fn a_mux_runs_over_any_message_stream() {
    let (mut mux, mut stream) = started();
    let channel = mux.open(&mut stream, &KEY).expect("a channel");
    let capability = stream.capability(&KEY, Direction::Receive);
    mux.receive(&mut stream, open(9, capability))
        .expect("the right capability");
    assert_eq!(mux.poll_event(), Some(Event::Opened { channel }));
    let ours = open(1, stream.capability(&KEY, Direction::Send));
    assert_eq!(stream.sent, [ours]);
}

#[test]
fn keys_that_were_taken_back_are_remembered_up_to_a_number() {
    let key = |number: u32| {
        let mut key = [1; 32];
        key[..4].copy_from_slice(&number.to_be_bytes());
        key
    };
    // The oldest of 1025 is forgotten; of the others only who knows the key is believed.
    for (number, knows, verified) in [
        (0, true, false),
        (1, true, true),
        (1024, true, true),
        (1024, false, false),
    ] {
        let (mut mux, mut stream) = started();
        for number in 0..=1024 {
            // Again and again is once.
            for _ in 0..2 {
                let channel = mux.open(&mut stream, &key(number)).expect("a channel");
                mux.close(&mut stream, channel).expect("an open channel");
            }
        }
        let known = if knows { key(number) } else { KEY };
        let open = Open {
            discovery_key: discovery_key(&key(number)),
            capability: stream.capability(&known, Direction::Receive),
        };
        let mut frame = BytesMut::new();
        Frame {
            channel: 1,
            body: Body::Open(open),
        }
        .encode(&mut frame);
        mux.receive(&mut stream, frame.freeze())
            .expect("nobody can tell yet");
        assert_eq!(mux.has_verified(), verified, "{number}, {knows}");
    }
}

#[test]
fn a_channel_that_could_not_be_opened_takes_no_place() {
    let (_, mut stream) = started();
    let mut limits = Limits::default();
    limits.channels = 2;
    let mut mux = Mux::new(limits);
    mux.start(&mut stream).expect("nothing waits");
    mux.open(&mut stream, &KEY).expect("the first");
    stream.sent.push(Bytes::from(vec![0; 30 << 20]));
    for key in 1..=3 {
        let refused = mux.open(&mut stream, &[key; 32]);
        assert!(
            matches!(refused, Err(Error::SendBufferFull { .. })),
            "{refused:?}"
        );
    }
    stream.sent.clear();
    mux.open(&mut stream, &[1; 32]).expect("the second");
    assert_eq!(
        mux.open(&mut stream, &[2; 32]),
        Err(Error::TooManyChannels { max: 2 })
    );
}

#[test]
fn a_wrong_capability_ends_the_stream() {
    for capability in [None, Some([6; 32])] {
        let (mut mux, mut stream) = started();
        mux.open(&mut stream, &KEY).expect("a channel");
        let result = mux.receive(&mut stream, open(1, capability));
        assert_eq!(result, Err(Error::InvalidCapability));
        assert_eq!(mux.poll_event(), None);
    }
    // Our own, sent back to us, is bound to the other direction.
    let (mut mux, mut stream) = started();
    mux.open(&mut stream, &KEY).expect("a channel");
    let mirrored = stream.capability(&KEY, Direction::Send);
    let result = mux.receive(&mut stream, open(1, mirrored));
    assert_eq!(result, Err(Error::InvalidCapability));
}

#[test]
fn a_wrong_capability_of_a_channel_opened_first_is_answered_by_a_close() {
    let (mut mux, mut stream) = started();
    mux.receive(&mut stream, open(1, Some([6; 32])))
        .expect("nobody can tell yet");
    assert!(!mux.remote_verified(&stream, &KEY));
    assert_eq!(mux.open(&mut stream, &KEY), Err(Error::InvalidCapability));
    let close = Close {
        discovery_key: Some(discovery_key(&KEY)),
    };
    let mut expected = BytesMut::new();
    Frame {
        channel: 1,
        body: Body::Close(close),
    }
    .encode(&mut expected);
    assert_eq!(
        stream.sent,
        [expected],
        "and nothing that shows that we know the key"
    );
    assert!(!mux.has_verified());
}

#[test]
fn a_wrong_key_in_a_session_is_the_remotes_fault() {
    let mut pair = Pair::new(|options| (options.noise, options.encrypted) = (true, false));
    pair.drive();
    pair.sides[0].open(&KEY).expect("a channel");
    let now = pair.now;
    let error = pair.sides[0]
        .receive(now, &open_frame(1, &KEY))
        .expect_err("no capability");
    assert!(error == Error::InvalidCapability && error.is_peer_fault());
    assert_eq!(pair.sides[0].open(&KEY), Err(error.clone()));
    assert_eq!(pair.sides[0].received(now, 0), Err(error.clone()));
    assert_eq!(pair.sides[0].handle_timeout(now), Err(error.clone()));
    assert_eq!(pair.sides[0].declare_extensions(vec![]), Err(error));
    assert_eq!(
        pair.sides[0].poll_timeout(),
        Some(now),
        "a failed session is due at once"
    );
}

#[test]
fn messages_on_channels_that_are_not_open_are_ignored() {
    let now = Instant::now();
    let mut session = plain_open(now, |_| {});
    session
        .receive(now, &open_frame(2, &[8; 32]))
        .expect("an honest Open");
    events(&mut session);
    for channel in [0, 2, 3, 100_000] {
        let (events, result) = give(&mut session, now, &message_frame(channel, HAVE));
        assert_eq!((events, result), (vec![], Ok(())), "channel {channel}");
    }
    let (events, _) = give(&mut session, now, &message_frame(1, HAVE));
    assert_eq!(events.len(), 1);
}

#[test]
fn a_close_of_an_unknown_channel_is_ignored() {
    let now = Instant::now();
    let mut session = plain_open(now, |_| {});
    for frame in [close_frame(9, None), close_frame(9, Some([1; 32]))] {
        assert_eq!(give(&mut session, now, &frame), (vec![], Ok(())));
    }
    assert_eq!(session.channels(), 1);
    assert!(session.outgoing().is_empty());
}

/// Its next Close would otherwise be taken for the answer to ours.
#[test]
fn a_number_is_in_use_until_the_remote_has_closed_it() {
    let now = Instant::now();
    let mut session = plain_open(now, |_| {});
    let channel = session
        .find(&discovery_key(&KEY))
        .expect("the channel is open");
    session.close(channel);
    let result = session.receive(now, &open_frame(1, &[8; 32]));
    assert_eq!(result, Err(Error::DuplicateOpen { id: 1 }));
}

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

/// What comes in one piece with the remote's Open is decoded before we can answer that.
#[test]
fn an_extension_that_is_expected_is_heard_before_it_is_declared() {
    for expected in [true, false] {
        let mut pair = Pair::new(|_| {});
        let channels = [0, 1].map(|side| pair.sides[side].open(&KEY).expect("a channel"));
        if expected {
            pair.sides[0]
                .expect_extensions(channels[0], names(&["x"]))
                .expect("an open channel");
        }
        let options = Options {
            extensions: names(&["a", "x"]),
            ack: false,
        };
        pair.sides[1]
            .send(channels[1], &Message::Options(options))
            .expect("an open channel");
        let payload = Bytes::from_static(b"hi");
        pair.sides[1]
            .send_extension(Some(channels[1]), "x", payload.clone())
            .expect("declared");
        pair.drive();
        let heard = pair.events[0].contains(&Event::Extension {
            channel: Some(channels[0]),
            name: "x".to_owned(),
            payload,
        });
        assert_eq!(heard, expected);
        // The remote hears nothing of it.
        let declared = pair.sides[1].remote_extensions(Some(channels[1]));
        assert!(declared.is_empty(), "{declared:?}");
    }
}

/// What is expected changes none of the numbers that the remote knows.
#[test]
fn an_expected_extension_has_no_number_before_the_remote_hears_of_it() {
    let mut pair = Pair::new(|_| {});
    let channels = [0, 1].map(|side| pair.sides[side].open(&KEY).expect("a channel"));
    for (side, channel) in channels.into_iter().enumerate() {
        let options = Options {
            extensions: names(&["a", "b"]),
            ack: false,
        };
        pair.sides[side]
            .send(channel, &Message::Options(options))
            .expect("an open channel");
    }
    let [sender, _] = &mut pair.sides;
    sender
        .expect_extensions(channels[0], names(&["b", "c"]))
        .expect("an open channel");
    let payload = Bytes::from_static(b"hi");
    sender
        .send_extension(Some(channels[0]), "b", payload.clone())
        .expect("declared");
    let unknown = sender.send_extension(Some(channels[0]), "c", payload.clone());
    assert!(matches!(unknown, Err(Error::UnknownExtension { name }) if name == "c"));
    pair.drive();
    let heard = pair.events[1].contains(&Event::Extension {
        channel: Some(channels[1]),
        name: "b".to_owned(),
        payload,
    });
    assert!(heard);
}

#[test]
fn extensions_are_numbered_by_utf16_order_and_matched_by_name() {
    let mut pair = Pair::new(|_| {});
    let channels = [0, 1].map(|side| pair.sides[side].open(&KEY).expect("a channel"));
    // U+FB00 sorts before U+1F600 by characters and after it by UTF-16 code units.
    for (side, list) in [
        (0, &["\u{fb00}", "b", "\u{1f600}", "b"][..]),
        (1, &["\u{fb00}", "c"]),
    ] {
        let options = Options {
            extensions: names(list),
            ack: side == 0,
        };
        pair.sides[side]
            .send(channels[side], &Message::Options(options))
            .expect("an open channel");
    }
    let payload = Bytes::from_static(b"hi");
    let channel = Some(channels[0]);
    pair.sides[0]
        .send_extension(channel, "\u{fb00}", payload.clone())
        .expect("declared");
    pair.sides[0]
        .send_extension(channel, "b", payload.clone())
        .expect("declared");
    let unknown = pair.sides[0].send_extension(channel, "c", payload.clone());
    assert_eq!(
        unknown,
        Err(Error::UnknownExtension {
            name: "c".to_owned()
        })
    );
    pair.drive();
    let sorted = names(&["b", "\u{1f600}", "\u{fb00}"]);
    assert_eq!(pair.sides[1].remote_extensions(Some(channels[1])), sorted);
    let channel = channels[1];
    assert_eq!(
        pair.events[1][1..],
        [
            Event::Opened { channel },
            Event::Message {
                channel,
                message: Message::Options(Options {
                    extensions: sorted,
                    ack: true
                }),
            },
            Event::Extension {
                channel: Some(channel),
                name: "\u{fb00}".to_owned(),
                payload
            },
        ]
    );
}

#[test]
fn extensions_of_the_stream_are_declared_with_the_first_message() {
    let mut pair = Pair::new(|_| {});
    for side in &mut pair.sides {
        side.declare_extensions(names(&["b", "a"]))
            .expect("two names");
    }
    pair.drive();
    assert_eq!(pair.events[1].len(), 1, "only the handshake");
    for payload in ["one", "two"] {
        pair.sides[0]
            .send_extension(None, "b", payload.into())
            .expect("declared");
    }
    pair.drive();
    let event = |payload: &'static str| Event::Extension {
        channel: None,
        name: "b".to_owned(),
        payload: payload.into(),
    };
    let declared = Event::StreamOptions {
        extensions: names(&["a", "b"]),
    };
    assert_eq!(pair.events[1][1..], [declared, event("one"), event("two")]);
}

/// What the remote did not hear of changes no numbers.
#[test]
fn a_list_of_extensions_counts_once_it_is_on_its_way() {
    let mut pair = Pair::new(|options| options.limits.send_buffer = 10_000);
    let channels = [0, 1].map(|side| pair.sides[side].open(&KEY).expect("a channel"));
    pair.drive();
    let options = |list: &[&str]| {
        Message::Options(Options {
            extensions: names(list),
            ack: false,
        })
    };
    for (side, list) in [(0, &["b", "c"][..]), (1, &["b"])] {
        pair.sides[side]
            .send(channels[side], &options(list))
            .expect("an open channel");
    }
    pair.drive();
    while pair.sides[0].send(channels[0], &HAVE).is_ok() {}
    let refused = pair.sides[0].send(channels[0], &options(&["a", "b", "c"]));
    assert!(
        matches!(refused, Err(Error::SendBufferFull { .. })),
        "{refused:?}"
    );
    pair.drive();
    let payload = Bytes::from_static(b"hi");
    pair.sides[0]
        .send_extension(Some(channels[0]), "b", payload.clone())
        .expect("declared");
    pair.drive();
    let heard = Event::Extension {
        channel: Some(channels[1]),
        name: "b".to_owned(),
        payload,
    };
    assert_eq!(pair.events[1].last(), Some(&heard));
}

#[test]
fn an_extension_before_its_declaration_is_dropped() {
    let now = Instant::now();
    let mut session = plain_open(now, |_| {});
    session.declare_extensions(names(&["a"])).expect("a name");
    let extension = hypercore_wire::Extension {
        id: 0,
        payload: Bytes::new(),
    };
    let frame = encoded(0, Body::Message(Message::Extension(extension)));
    assert_eq!(give(&mut session, now, &frame), (vec![], Ok(())));
}

#[test]
fn a_finished_session_sends_nothing_more() {
    let mut pair = Pair::new(|_| {});
    let ours = pair.sides[0].open(&KEY).expect("a channel");
    pair.sides[0].finish();
    assert!(!pair.sides[0].is_finished(), "the Open is not sent yet");
    assert_eq!(pair.sides[0].send(ours, &HAVE), Err(Error::NotReady));
    pair.drive();
    assert!(pair.sides[0].is_finished());
    pair.sides[1].reject(&discovery_key(&KEY));
    pair.drive();
    assert!(
        matches!(pair.events[0].last(), Some(Event::Closed { .. })),
        "but it still listens"
    );
    assert_eq!(pair.sides[0].received_end(), Ok(()));
}
