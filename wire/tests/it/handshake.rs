use std::time::{Duration, Instant};

use bytes::Bytes;
use hypercore_wire::{
    Data, Error, Event, Extension, Have, Message, Role, Session, SessionOptions, StaticKeyPair,
    Want,
};
use serde_json::Value;

use crate::support::{Pair, array, bytes, events, framed, list, options, take, text, vectors};

fn session(case: &Value, who: &str, now: Instant) -> Session {
    let side = &case[who];
    let key_pair = StaticKeyPair::from_seed(&array(&side["staticSeed"]));
    assert_eq!(key_pair.public_key(), array(&side["static"]["publicKey"]));
    let nonce = array(&side["nonce"]);
    let role = match who {
        "initiator" => Role::Initiator,
        _ => Role::Responder,
    };
    let mut options = SessionOptions::with_keys(role, key_pair, nonce);
    options.noise = case["options"]["noise"] == true;
    options.encrypted = case["options"]["encrypted"] == true;
    let ephemeral = array(&side["ephemeral"]["secretKey"]);
    Session::with_fixed_ephemeral_for_testing_only(options, now, &ephemeral)
        .expect("no randomness is needed")
}

/// All bytes one side sent, in order.
fn log(case: &Value, who: &str) -> Vec<u8> {
    let log = list(&case["log"])
        .iter()
        .filter(|entry| entry["from"] == who);
    log.flat_map(|entry| bytes(&entry["bytes"])).collect()
}

#[test]
fn sessions_of_node_are_repeated_byte_for_byte() {
    let vectors = vectors("handshake.json");
    for case in list(&vectors["sessions"]) {
        let name = text(&case["name"]);
        let mut now = Instant::now();
        let mut initiator = session(case, "initiator", now);
        let mut responder = session(case, "responder", now);
        let mut sent = [Vec::new(), Vec::new()];

        // The same as the recorded session: some messages before the handshake is over ..
        let key = array(&case["feedKey"]);
        let ours = initiator.open(&key).expect("a channel");
        let want = Message::Want(Want {
            start: 0,
            length: 1_048_576,
        });
        initiator.send(ours, &want).expect("an open channel");
        let theirs = responder.open(&key).expect("a channel");
        let bitfield = Some(Bytes::from_static(&[0x0f]));
        let have = Message::Have(Have {
            start: 0,
            length: 1_048_576,
            bitfield,
            ack: false,
        });
        responder.send(theirs, &have).expect("an open channel");
        while !(initiator.outgoing().is_empty() && responder.outgoing().is_empty()) {
            let bytes = take(&mut initiator, now);
            responder.receive(now, &bytes).expect("an honest remote");
            sent[0].extend(bytes);
            let bytes = take(&mut responder, now);
            initiator.receive(now, &bytes).expect("an honest remote");
            sent[1].extend(bytes);
        }
        // .. and some after it, with a keep-alive between them.
        let payload = Bytes::from_static(b"hello extension");
        let extension = Message::Extension(Extension { id: 0, payload });
        initiator.send(ours, &extension).expect("an open channel");
        sent[0].extend(take(&mut initiator, now));
        now += Duration::from_secs(10);
        initiator.handle_timeout(now).expect("a keep-alive");
        responder.handle_timeout(now).expect("a keep-alive");
        let value = Some(Bytes::from(vec![0x77; 200]));
        let data = Message::Data(Data {
            value,
            ..Data::default()
        });
        responder.send(theirs, &data).expect("an open channel");
        initiator.close(ours);
        sent[0].extend(take(&mut initiator, now));
        sent[1].extend(take(&mut responder, now));

        for (sent, who) in sent.iter().zip(["initiator", "responder"]) {
            assert_eq!(
                hex::encode(sent),
                hex::encode(log(case, who)),
                "{name}: {who}"
            );
        }
        let mut received = events(&mut responder);
        if case["options"]["noise"] == true {
            let hash = array(&case["handshakeHash"]["initiator"]);
            assert_eq!(initiator.handshake_hash(), Some(hash), "{name}");
            assert_eq!(responder.handshake_hash(), Some(hash), "{name}");
            let remote_public_key = array(&case["initiator"]["static"]["publicKey"]);
            assert_eq!(received.remove(0), Event::Handshake { remote_public_key });
            assert_eq!(responder.remote_public_key(), Some(remote_public_key));
        }
        assert!(responder.remote_verified(&key), "{name}");
        assert_eq!(
            received,
            [
                Event::Opened { channel: theirs },
                Event::Message {
                    channel: theirs,
                    message: want
                }
            ]
        );
    }
}

/// A raw Noise peer: the other half of a handshake, free to misbehave.
struct Raw(snow::HandshakeState);

impl Raw {
    fn responder() -> Self {
        let builder = snow::Builder::new("Noise_XX_25519_ChaChaPoly_BLAKE2b".parse().unwrap());
        Self(
            builder
                .local_private_key(&[9; 32])
                .unwrap()
                .build_responder()
                .unwrap(),
        )
    }

    /// Reads the first message and returns the second with this payload.
    fn answer(&mut self, first: &[u8], payload: &[u8]) -> Vec<u8> {
        self.0
            .read_message(&first[1..], &mut [0; 256])
            .expect("an honest first message");
        let mut message = [0; 256];
        let length = self
            .0
            .write_message(payload, &mut message)
            .expect("room for it");
        framed(&message[..length])
    }
}

fn error_of_answer(payload: &[u8]) -> Option<Error> {
    let now = Instant::now();
    let mut session = Session::new(options(Role::Initiator), now).expect("randomness");
    let answer = Raw::responder().answer(&take(&mut session, now), payload);
    session.receive(now, &answer).err()
}

#[test]
fn the_payload_must_carry_a_nonce_of_24_bytes() {
    let payload = |length: u8| [vec![0x0a, length], vec![5; length.into()]].concat();
    assert_eq!(error_of_answer(&payload(24)), None);
    assert_eq!(
        error_of_answer(&payload(23)),
        Some(Error::NonceLength { length: 23 })
    );
    assert_eq!(
        error_of_answer(&payload(25)),
        Some(Error::NonceLength { length: 25 })
    );
    assert_eq!(
        error_of_answer(&payload(1)),
        Some(Error::NonceLength { length: 1 })
    );
    assert_eq!(error_of_answer(&[]), Some(Error::HandshakePayload));
    assert_eq!(error_of_answer(&[0x0a]), Some(Error::HandshakePayload));
    assert_eq!(
        error_of_answer(&[0x10, 0x01]),
        Some(Error::HandshakePayload)
    );
    // A field that we do not know is no harm.
    let unknown = [payload(24), vec![0x12, 0x01, 0x00]].concat();
    assert_eq!(error_of_answer(&unknown), None);
}

#[test]
fn keys_of_low_order_are_refused() {
    // The points of small order that libsodium refuses in crypto_scalarmult.
    let low_order = [
        "0000000000000000000000000000000000000000000000000000000000000000",
        "0100000000000000000000000000000000000000000000000000000000000000",
        "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
        "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    ];
    let now = Instant::now();
    for key in low_order {
        let key = hex::decode(key).expect("hexadecimal digits");
        let mut session = Session::new(options(Role::Responder), now).expect("randomness");
        let message = framed(&[key, vec![0; 26]].concat());
        assert_eq!(session.receive(now, &message), Err(Error::WeakRemoteKey));
        assert!(
            session.outgoing().is_empty(),
            "nothing is said to such a remote"
        );
    }
    let mut session = Session::new(options(Role::Responder), now).expect("randomness");
    let honest = framed(&[vec![9; 32], vec![0; 26]].concat());
    assert_eq!(session.receive(now, &honest), Ok(()));
}

#[test]
fn any_altered_byte_of_the_handshake_ends_it() {
    let now = Instant::now();
    for at in 0..123 {
        let mut pair = Pair::new(|_| {});
        let first = take(&mut pair.sides[0], now);
        pair.sides[1]
            .receive(now, &first)
            .expect("an honest remote");
        let mut second = take(&mut pair.sides[1], now);
        second[at] ^= 1;
        // A longer announcement is only waited for.
        let result = pair.sides[0].receive(now, &second);
        assert!(result.is_err() || at == 0, "byte {at}");
        assert!(!pair.sides[0].is_handshaken());
    }
}

#[test]
fn lengths_of_handshake_messages_are_bounded() {
    let now = Instant::now();
    for (bytes, length) in [
        (&[0x00][..], 0),
        (&[0x81, 0x04], 513),
        (&[0xff, 0xff, 0x03], 65_535),
        (&[0xff, 0xff, 0x7f], (1 << 21) - 1),
    ] {
        let mut session = Session::new(options(Role::Responder), now).expect("randomness");
        let error = Error::HandshakeLength { length, max: 512 };
        assert_eq!(session.receive(now, bytes), Err(error.clone()));
        assert_eq!(
            session.receive(now, &[1]),
            Err(error),
            "the session stays ended"
        );
    }
    // A length without an end, which Node throws at.
    let mut session = Session::new(options(Role::Responder), now).expect("randomness");
    assert!(
        session
            .receive(now, &[0x80, 0x80, 0x80])
            .expect_err("no end")
            .is_peer_fault()
    );
    // Messages of one or two bytes, for which Node waits for a third.
    for bytes in [&[0x01, 0xaa][..], &[0x02, 0xaa, 0xaa]] {
        let mut session = Session::new(options(Role::Responder), now).expect("randomness");
        assert_eq!(session.receive(now, bytes), Err(Error::Handshake));
    }
}

#[test]
fn only_the_expected_remote_is_told_who_we_are() {
    let mut expecting = options(Role::Initiator);
    let remote = StaticKeyPair::from_secret(&[9; 32]);
    let nonce_payload = [&[0x0a, 24][..], &[5; 24]].concat();
    for (key, accepted) in [(remote.public_key(), true), ([1; 32], false)] {
        let now = Instant::now();
        expecting.remote_public_key = Some(key);
        let mut session = Session::new(expecting, now).expect("randomness");
        let answer = Raw::responder().answer(&take(&mut session, now), &nonce_payload);
        let result = session.receive(now, &answer);
        assert_eq!(result.is_ok(), accepted);
        assert_eq!(session.outgoing().is_empty(), !accepted);
        expecting = options(Role::Initiator);
    }
}

/// How many first flights are tried: `HYPERCORE_FIRST_FLIGHTS=1000000` takes some minutes.
fn first_flights() -> u64 {
    std::env::var("HYPERCORE_FIRST_FLIGHTS").map_or(10_000, |count| {
        count.parse().expect("HYPERCORE_FIRST_FLIGHTS is a number")
    })
}

/// Nobody can say anything as the first thing that ends in more than an error: noise, noise of the
/// right length, an honest message with something changed, keys of low order.
#[test]
fn any_first_flight_ends_in_an_error_or_waits_for_more() {
    let now = Instant::now();
    let honest = {
        let mut session = Session::new(options(Role::Initiator), now).expect("randomness");
        take(&mut session, now)
    };
    let threads = std::thread::available_parallelism().map_or(1, |count| count.get() as u64);
    let answered: u64 = std::thread::scope(|scope| {
        let honest = &honest;
        let threads: Vec<_> = (0..threads)
            .map(|first| {
                let flights = (first..first_flights()).step_by(threads as usize);
                scope.spawn(move || {
                    let answered = flights.filter(|&flight| is_answered(flight, honest, now));
                    answered.count() as u64
                })
            })
            .collect();
        let answered = threads.into_iter().map(|thread| thread.join());
        answered.map(|count| count.expect("all hold")).sum()
    });
    assert!(answered > 0, "some of them were good enough");
}

fn is_answered(flight: u64, honest: &[u8], now: Instant) -> bool {
    let mut random = SplitMix(flight);
    let mut bytes: Vec<u8> = (0..random.below(600))
        .map(|_| random.next() as u8)
        .collect();
    match flight % 5 {
        0 => {}
        1 => bytes.splice(..0, [58]).for_each(drop),
        2 => {
            let length = bytes.len();
            bytes = framed(&bytes[..length.min(512)]);
        }
        3 => {
            bytes = honest.to_vec();
            bytes[random.below(59)] = random.next() as u8;
            bytes.truncate(random.below(80));
        }
        _ => {
            bytes.splice(..0, [58]).for_each(drop);
            bytes.resize(59.max(bytes.len()), 0);
            bytes[1..33].fill(0);
            bytes[1] = random.below(2) as u8;
        }
    }
    let mut session = Session::new(options(Role::Responder), now).expect("randomness");
    let result = session.receive(now, &bytes);
    assert_eq!(session.poll_event(), None, "flight {flight}");
    assert!(!session.is_handshaken(), "flight {flight}");
    assert!(session.buffered() <= 123, "flight {flight}");
    assert!(session.receive_buffer().len() <= 1024, "flight {flight}");
    if flight % 5 == 4 {
        assert_eq!(result, Err(Error::WeakRemoteKey), "flight {flight}");
    }
    session.buffered() > 0
}

/// Random numbers of a seed (Steele, Lea and Flood, *Fast splittable pseudorandom number
/// generators*).
struct SplitMix(u64);

impl SplitMix {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }
}
