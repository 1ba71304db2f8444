//! The bodies of the fuzz targets, which the tests run too.

mod hostile;
mod session;

use std::time::Instant;

use arbitrary::Unstructured;
use bytes::Bytes;

use crate::{
    Body, Error, Event, Frame, Limits, MAX_BLOCKS, MAX_NUMBER, Message, MessageKind, Received,
    Role, SecureStream, Session, SessionOptions, StaticKeyPair, Unhave, Unwant, Want,
    schema::oracle,
};

pub use hostile::wire_hostile;
pub use session::wire_session;

/// Any bytes as a stream in clear: however they are split, the same frames come out and the same
/// error, nothing panics, and what can be decoded is stable when it is encoded again.
pub fn wire_frame(data: &[u8]) {
    let Some((&seed, data)) = data.split_first() else {
        return;
    };
    let whole = frames(data, |_| usize::MAX);
    let sizes = usize::from(seed % 16) + 1;
    assert_eq!(
        frames(data, |round| 1 + round % sizes),
        whole,
        "the split changes what is read"
    );
    for frame in whole.0 {
        let Ok(Some(frame)) = Frame::decode(frame, &Limits::default()) else {
            continue;
        };
        let mut bytes = bytes::BytesMut::new();
        frame.encode(&mut bytes);
        assert_eq!(bytes.len(), frame.encoded_length());
        assert_eq!(
            Frame::decode(bytes.freeze(), &Limits::default()),
            Ok(Some(frame))
        );
    }
}

/// One message: its type and channel in the first two bytes, then its body. What can be decoded
/// keeps to the limits, and is the same after it was encoded.
pub fn wire_message(data: &[u8]) {
    let Some((&[kind, channel], body)) = data.split_first_chunk() else {
        return;
    };
    let mut frame = bytes::BytesMut::new();
    crate::varint::write(u64::from(channel) << 4 | u64::from(kind & 15), &mut frame);
    frame.extend_from_slice(body);
    let limits = Limits::default();
    let frame = Frame::decode(frame.freeze(), &limits);
    let kind = MessageKind::from_number(kind & 15);
    if let Some(kind @ (MessageKind::Request | MessageKind::Data)) = kind {
        let body = Bytes::copy_from_slice(body);
        let by_prost = if kind == MessageKind::Data {
            oracle::data(&body, &limits).map(Message::Data)
        } else {
            oracle::request(&body, &limits).map(Message::Request)
        };
        let ours = frame.as_ref().ok().map(|frame| match frame {
            Some(Frame {
                body: Body::Message(message),
                ..
            }) => message.clone(),
            other => panic!("{other:?}"),
        });
        assert_eq!(ours, by_prost, "prost reads something else");
    }
    let Ok(Some(frame)) = frame else {
        return;
    };
    if let Body::Message(message) = &frame.body {
        check_numbers(message, &limits);
    }
    let mut bytes = bytes::BytesMut::new();
    frame.encode(&mut bytes);
    assert_eq!(bytes.len(), frame.encoded_length());
    assert_eq!(Frame::decode(bytes.freeze(), &limits), Ok(Some(frame)));
}

/// What those who handle messages rely on.
fn check_numbers(message: &Message, limits: &Limits) {
    let in_range = |start: u64, length: u64| start < MAX_BLOCKS && length <= MAX_BLOCKS - start;
    match message {
        Message::Have(have) => {
            assert!(in_range(have.start, have.length));
            assert!(have.bitfield.is_none() || have.start.is_multiple_of(8));
        }
        Message::Unhave(Unhave { start, length })
        | Message::Want(Want { start, length })
        | Message::Unwant(Unwant { start, length }) => assert!(in_range(*start, *length)),
        Message::Request(request) => {
            assert!(request.index < MAX_BLOCKS && request.bytes <= MAX_NUMBER);
        }
        Message::Cancel(cancel) => {
            assert!(cancel.index < MAX_BLOCKS && cancel.bytes <= MAX_NUMBER);
        }
        Message::Data(data) => {
            assert!(data.index < MAX_BLOCKS && data.nodes.len() <= limits.nodes);
            assert!(data.value.is_some() || !data.nodes.is_empty());
            let mut nodes = data.nodes.iter();
            assert!(nodes.all(|node| node.index.max(node.size) <= MAX_NUMBER));
        }
        Message::Options(options) => {
            assert!(options.extensions.len() <= limits.extension_names);
            let mut names = options.extensions.iter();
            assert!(names.all(|name| name.len() <= limits.extension_name));
        }
        Message::Status(_) | Message::Extension(_) => {}
    }
}

/// The frames in `data` read in chunks, where an empty one is a keep-alive, and how it ended.
fn frames(mut data: &[u8], size: impl Fn(usize) -> usize) -> (Vec<Bytes>, Result<usize, Error>) {
    let mut options = options(Role::Initiator);
    (options.noise, options.encrypted) = (false, false);
    let mut stream = SecureStream::new(&options).expect("no randomness is needed");
    stream.trust();
    let mut frames = Vec::new();
    for round in 0.. {
        let spare = stream.receive_buffer();
        assert!(!spare.is_empty() && spare.len() <= 2 * (data.len() + MEGABYTE));
        let n = size(round).min(data.len()).min(spare.len());
        spare[..n].copy_from_slice(&data[..n]);
        data = &data[n..];
        if let Err(error) = stream.received(n) {
            return (frames, Err(error));
        }
        loop {
            match stream.poll() {
                Ok(Some(Received::Frame(frame))) => frames.push(frame),
                Ok(Some(_)) => frames.push(Bytes::new()),
                Ok(None) => break,
                Err(error) => return (frames, Err(error)),
            }
        }
        if data.is_empty() {
            break;
        }
    }
    (frames, Ok(stream.unfinished()))
}

/// Hostile bytes instead of, or mixed into, a handshake: it ends in an error or in agreement.
pub fn wire_handshake(data: &[u8]) {
    let mut input = Unstructured::new(data);
    let now = Instant::now();
    let [mut initiator, mut responder] = sessions(now, |_| {});
    let mut altered = false;
    for _ in 0..4 {
        for (from, to) in [(0, 1), (1, 0)] {
            let sides = [&mut initiator, &mut responder];
            let mut bytes = sides[from].outgoing().to_vec();
            sides[from].sent(now, bytes.len());
            altered |= alter(&mut input, &mut bytes);
            // Errors of either side are fine; using the session afterwards must be too.
            let _ = sides[to].receive(now, &bytes);
        }
    }
    if let (Some(ours), Some(theirs)) = (initiator.handshake_hash(), responder.handshake_hash()) {
        assert_eq!(ours, theirs, "a handshake that ends does so in agreement");
        let key = StaticKeyPair::from_seed(&[1; 32]).public_key();
        assert_eq!(responder.remote_public_key(), Some(key));
    } else {
        assert!(altered, "an honest handshake ends");
    }
    for side in [&initiator, &responder] {
        assert!(side.buffered() < 4096 && side.error().is_none_or(Error::is_peer_fault));
    }
}

/// Changes, cuts or extends `bytes` as the input says, and tells whether it did.
fn alter(input: &mut Unstructured<'_>, bytes: &mut Vec<u8>) -> bool {
    let before = bytes.clone();
    match input.int_in_range(0..=5u8).unwrap_or(0) {
        1 => bytes.truncate(input.choose_index(bytes.len().max(1)).unwrap_or(0)),
        2 => bytes.extend_from_slice(input.arbitrary().unwrap_or_default()),
        3 => *bytes = input.arbitrary().unwrap_or_default(),
        4 => {
            let at = input.choose_index(bytes.len().max(1)).unwrap_or(0);
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= input.arbitrary().unwrap_or(1u8);
            }
        }
        _ => {}
    }
    *bytes != before
}

/// Carries at most `max` bytes, changed on the way. Returns how many, and the receiver's events.
fn carry(
    sides: &mut [Session; 2],
    from: usize,
    max: usize,
    now: Instant,
    change: impl FnOnce(&mut Vec<u8>),
) -> (usize, Vec<Event>) {
    let bytes = sides[from].outgoing();
    let mut bytes = bytes[..max.min(bytes.len())].to_vec();
    let sent = bytes.len();
    sides[from].sent(now, sent);
    change(&mut bytes);
    let to = &mut sides[1 - from];
    let _ = to.receive(now, &bytes);
    (sent, std::iter::from_fn(|| to.poll_event()).collect())
}

fn exchange(sides: &mut [Session; 2], now: Instant) {
    let mut carry_all = |from| carry(sides, from, usize::MAX, now, |_| {}).0;
    while carry_all(0) + carry_all(1) > 0 {}
}

fn options(role: Role) -> SessionOptions {
    let seed = u8::from(role == Role::Initiator);
    SessionOptions::with_keys(role, StaticKeyPair::from_seed(&[seed; 32]), [seed; 24])
}

fn sessions(now: Instant, change: impl Fn(&mut SessionOptions)) -> [Session; 2] {
    [Role::Initiator, Role::Responder].map(|role| {
        let mut options = options(role);
        change(&mut options);
        let ephemeral = [2 + u8::from(role == Role::Initiator); 32];
        Session::with_fixed_ephemeral_for_testing_only(options, now, &ephemeral)
            .expect("no randomness is needed")
    })
}

const MEGABYTE: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use std::path::Path;

    use proptest::prelude::*;

    use super::session::{Kind, Operation, play};

    fn replay(target: &str, body: fn(&[u8])) {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../fuzz/corpus")
            .join(target);
        let mut count = 0;
        for entry in std::fs::read_dir(&corpus).expect("the corpus is in the repository") {
            let path = entry.expect("a readable directory").path();
            body(&std::fs::read(&path).expect("a readable file"));
            count += 1;
        }
        assert!(count >= 10, "only {count} files in {}", corpus.display());
    }

    #[test]
    fn the_corpus_holds() {
        replay("wire_frame", super::wire_frame);
        replay("wire_message", super::wire_message);
        replay("wire_handshake", super::wire_handshake);
        replay("wire_session", super::wire_session);
        replay("wire_hostile", super::wire_hostile);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(3000))]

        #[test]
        fn generated_frames_hold(data in prop::collection::vec(any::<u8>(), 0..300)) {
            super::wire_frame(&data);
        }

        #[test]
        fn generated_messages_hold(data in prop::collection::vec(any::<u8>(), 2..200)) {
            super::wire_message(&data);
        }
    }

    fn kind() -> impl Strategy<Value = Kind> {
        // The longest is longer than what strangers may send.
        let length = prop_oneof![8 => 0..2000_u16, 1 => Just(u16::MAX - 1)];
        prop_oneof![
            any::<(u64, u64)>().prop_map(|(start, length)| Kind::Have { start, length }),
            any::<u64>().prop_map(|start| Kind::Want { start }),
            any::<(u32, u64)>().prop_map(|(index, nodes)| Kind::Request { index, nodes }),
            (any::<u32>(), length).prop_map(|(index, length)| Kind::Data {
                index,
                length: 1 + length
            }),
            any::<(u8, bool)>().prop_map(|(names, ack)| Kind::Options { names, ack }),
            any::<(bool, bool)>().prop_map(|(uploading, downloading)| Kind::Status {
                uploading,
                downloading
            }),
            any::<(u64, u64)>().prop_map(|(start, length)| Kind::Unhave { start, length }),
            any::<(u64, u64)>().prop_map(|(start, length)| Kind::Unwant { start, length }),
            any::<(u32, u64, bool)>().prop_map(|(index, bytes, hash)| Kind::Cancel {
                index,
                bytes,
                hash
            }),
            any::<(u64, u16, bool)>().prop_map(|(start, length, ack)| Kind::Bits {
                start,
                length,
                ack
            }),
            any::<(u64, u8, Option<u8>, bool)>().prop_map(|(index, nodes, value, signature)| {
                Kind::Proof {
                    index,
                    nodes,
                    value,
                    signature,
                }
            }),
        ]
    }

    /// What two honest sides do with two cores, so that both have opened one most of the time.
    fn honest_operation() -> impl Strategy<Value = Operation> {
        let options = any::<(u8, bool)>().prop_map(|(names, ack)| Kind::Options { names, ack });
        let message = (
            any::<bool>(),
            any::<u8>(),
            prop_oneof![3 => kind(), 1 => options],
        );
        let names = any::<(bool, u8)>();
        prop_oneof![
            4 => (any::<bool>(), 0..2_u8).prop_map(|(side, key)| Operation::Open { side, key }),
            1 => any::<(bool, u8)>().prop_map(|(side, channel)| Operation::Close { side, channel }),
            1 => (any::<bool>(), 0..2_u8).prop_map(|(side, key)| Operation::Reject { side, key }),
            8 => message.prop_map(|(side, channel, message)| Operation::Send { side, channel, message }),
            8 => (any::<bool>(), prop_oneof![8 => 0..300_u16, 1 => Just(u16::MAX)]).prop_map(|(side, max)| Operation::Carry { side, max }),
            4 => any::<(bool, Option<u8>, u8)>().prop_map(|(side, channel, name)| Operation::Extension {
                side,
                channel,
                name
            }),
            1 => names.prop_map(|(side, names)| Operation::Declare { side, names }),
            1 => any::<(bool, u8, u8)>().prop_map(|(side, channel, names)| Operation::Expect {
                side,
                channel,
                names
            }),
        ]
    }

    // Each of these takes some Diffie-Hellmans.
    proptest! {
        #![proptest_config(ProptestConfig::with_cases(500))]

        #[test]
        fn generated_handshakes_hold(data in prop::collection::vec(any::<u8>(), 0..40)) {
            super::wire_handshake(&data);
        }

        #[test]
        fn honest_sessions_hold(operations in prop::collection::vec(honest_operation(), 0..60)) {
            play(operations.into_iter());
        }

        #[test]
        fn generated_sessions_hold(data in prop::collection::vec(any::<u8>(), 0..400)) {
            super::wire_session(&data);
        }
    }
}
