//! What a stranger learns of the logs that are here: nothing.

use std::{cell::Cell, time::Instant};

use bytes::BytesMut;
use hypercore_wire::{
    Body, Close, Direction, Error, Event, Frame, Have, Limits, Message, MessageStream, Mux, Open,
    Role, SecureStream, Session, Split, discovery_key,
};

use crate::support::{KEY, Pair, options};

/// A discreet responder with some logs, and a stream that made a handshake with it.
struct Scene {
    responder: Session,
    stranger: SecureStream,
    now: Instant,
}

impl Scene {
    fn new(keys: &[[u8; 32]]) -> Self {
        Self::with_limits(keys, Limits::default())
    }

    fn with_limits(keys: &[[u8; 32]], limits: Limits) -> Self {
        let now = Instant::now();
        let mut mine = options(Role::Responder);
        mine.discreet = true;
        mine.limits = limits;
        let ephemeral = [9; 32];
        let mut responder =
            Session::with_fixed_ephemeral_for_testing_only(mine, now, &ephemeral).unwrap();
        for key in keys {
            responder.open(key).expect("a channel");
        }
        let stranger = SecureStream::new(&options(Role::Initiator)).expect("randomness");
        let mut scene = Self {
            responder,
            stranger,
            now,
        };
        for _ in 0..3 {
            assert_eq!(scene.carry().1, Ok(()));
        }
        assert!(scene.stranger.is_handshaken() && scene.responder.is_handshaken());
        while scene.responder.poll_event().is_some() {}
        scene
    }

    fn open(&mut self, number: u32, discovery_key: [u8; 32], capability: Option<[u8; 32]>) {
        let frame = Frame {
            channel: number,
            body: Body::Open(Open {
                discovery_key,
                capability,
            }),
        };
        let length = frame.encoded_length();
        let mut encode = |out: &mut _| frame.encode(out);
        self.stranger
            .send(length, &mut encode)
            .expect("it is ready");
    }

    fn close(&mut self, number: u32) {
        let frame = Frame {
            channel: number,
            body: Body::Close(Close::default()),
        };
        let mut encode = |out: &mut _| frame.encode(out);
        self.stranger
            .send(frame.encoded_length(), &mut encode)
            .expect("it is ready");
    }

    /// Carries bytes both ways; returns how many came from the responder, and what it thought.
    fn carry(&mut self) -> (usize, Result<(), Error>) {
        let bytes = self.stranger.outgoing().to_vec();
        self.stranger.sent(bytes.len());
        let result = self.responder.receive(self.now, &bytes);
        let bytes = self.responder.outgoing().to_vec();
        self.responder.sent(self.now, bytes.len());
        let buffer = self.stranger.receive_buffer();
        buffer[..bytes.len()].copy_from_slice(&bytes);
        self.stranger.received(bytes.len()).expect("room");
        while let Ok(Some(_)) = self.stranger.poll() {}
        (bytes.len(), result)
    }

    fn events(&mut self) -> Vec<Event> {
        std::iter::from_fn(|| self.responder.poll_event()).collect()
    }
}

/// Everything a stranger can try, for a log that is here and one that is not: the same events, the
/// same errors, the same number of bytes.
#[test]
fn a_log_that_is_here_looks_like_one_that_is_not() {
    let name = discovery_key(&KEY);
    let tries: [&dyn Fn(&mut Scene); 5] = [
        &|scene| scene.open(1, name, None),
        &|scene| scene.open(1, name, Some([7; 32])),
        &|scene| {
            let theirs = scene.stranger.capability(&KEY, Direction::Receive);
            scene.open(1, name, theirs);
        },
        &|scene| {
            scene.open(1, name, None);
            scene.open(2, name, None);
        },
        &|scene| (1..300).for_each(|number| scene.open(number, [number as u8; 32], None)),
    ];
    for (index, attempt) in tries.iter().enumerate() {
        let outcomes = [[KEY], [[1; 32]]].map(|keys| {
            let mut scene = Scene::new(&keys);
            attempt(&mut scene);
            let (sent, result) = scene.carry();
            let events = scene.events();
            scene.responder.reject(&name);
            let (rejected, _) = scene.carry();
            (
                sent,
                result,
                events,
                rejected,
                scene.responder.poll_timeout(),
            )
        });
        let [here, not_here] = outcomes;
        assert_eq!(here.0, 0, "try {index} was answered");
        assert_eq!(
            (here.0, here.1, here.2, here.3),
            (not_here.0, not_here.1, not_here.2, not_here.3)
        );
    }
}

/// The nth capability of somebody who does not know the key: none, noise, what the responder itself
/// would prove, those of another connection in both directions, and the right one with a bit changed.
fn capability_of_a_stranger(n: u32, scene: &Scene, other: &Scene) -> Option<[u8; 32]> {
    match n % 6 {
        0 => None,
        1 => Some(std::array::from_fn(|at| (n >> (at % 4 * 8)) as u8)),
        2 => scene.stranger.capability(&KEY, Direction::Receive),
        3 => other.stranger.capability(&KEY, Direction::Send),
        4 => other.stranger.capability(&KEY, Direction::Receive),
        _ => {
            let mut right = scene.stranger.capability(&KEY, Direction::Send)?;
            let bit = n as usize % 256;
            right[bit / 8] ^= 1 << (bit % 8);
            Some(right)
        }
    }
}

#[test]
fn ten_thousand_capabilities_prove_nothing() {
    let mut limits = Limits::default();
    limits.unmatched_opens = u32::MAX;
    let mut scenes = [[KEY], [[1; 32]]].map(|keys| Scene::with_limits(&keys, limits.clone()));
    let other = Scene::new(&[KEY]);
    for number in 1..=10_000 {
        let [here, not_here] = scenes.each_mut().map(|scene| {
            let capability = capability_of_a_stranger(number, scene, &other);
            scene.open(2 * number, discovery_key(&KEY), capability);
            let opened = (scene.carry(), scene.events());
            scene.close(2 * number);
            let closed = (scene.carry(), scene.events());
            assert_eq!(opened.0, (0, Ok(())), "{capability:02x?}");
            assert_eq!(closed.0, (0, Ok(())), "{capability:02x?}");
            (opened.1, closed.1)
        });
        assert_eq!(here, not_here);
    }
    let [mut scene, _] = scenes;
    let capability = scene.stranger.capability(&KEY, Direction::Send);
    scene.open(1, discovery_key(&KEY), capability);
    assert!(scene.carry().0 > 0, "the right one is answered");
}

#[test]
fn who_knows_the_key_is_let_in() {
    let mut scene = Scene::new(&[KEY, [1; 32]]);
    let channel = scene
        .responder
        .find(&discovery_key(&KEY))
        .expect("reserved");
    assert!(!scene.responder.is_open(channel));
    let early = scene
        .responder
        .send(channel, &Message::Have(Have::block(1)));
    assert_eq!(early, Err(Error::ChannelNotOpen { channel }));
    let capability = scene.stranger.capability(&KEY, Direction::Send);
    scene.open(5, discovery_key(&KEY), capability);
    let (sent, result) = scene.carry();
    assert_eq!(result, Ok(()));
    assert!(sent > 64, "an Open with a capability");
    assert_eq!(scene.events(), [Event::Opened { channel }]);
    assert!(scene.responder.is_open(channel));
    scene
        .responder
        .send(channel, &Message::Have(Have::block(1)))
        .expect("it is open");
    assert_eq!(scene.responder.channels(), 2);
}

/// A channel that nobody heard of is closed without a word.
#[test]
fn a_reserved_channel_is_closed_in_silence() {
    let mut scene = Scene::new(&[KEY]);
    let channel = scene
        .responder
        .find(&discovery_key(&KEY))
        .expect("reserved");
    scene.responder.close(channel);
    assert_eq!((scene.responder.channels(), scene.carry().0), (0, 0));
    assert_eq!(scene.responder.find(&discovery_key(&KEY)), None);
}

/// The remote was there first.
#[test]
fn a_log_that_is_added_later_is_opened_for_who_knows_it() {
    for knows in [true, false] {
        let mut scene = Scene::new(&[]);
        let capability = scene.stranger.capability(&KEY, Direction::Send);
        scene.open(1, discovery_key(&KEY), capability.filter(|_| knows));
        scene.carry().1.expect("no offence");
        let channel = scene.responder.open(&KEY).expect("a channel");
        assert_eq!(scene.responder.is_open(channel), knows);
        assert_eq!(scene.carry().0 > 0, knows);
    }
}

#[test]
fn a_discreet_responder_and_an_initiator_meet() {
    let mut pair = Pair::new(|options| options.discreet = options.role == Role::Responder);
    let channels = [0, 1].map(|side| pair.sides[side].open(&KEY).expect("a channel"));
    pair.drive();
    for (side, channel) in channels.into_iter().enumerate() {
        assert!(pair.sides[side].is_open(channel));
    }
}

/// Nothing is sent on it, and it counts the proofs that it makes.
struct Counting(Cell<usize>);

impl MessageStream for Counting {
    fn remote_public_key(&self) -> Option<[u8; 32]> {
        None
    }

    fn handshake_hash(&self) -> Option<[u8; 64]> {
        None
    }

    fn capability(&self, key: &[u8; 32], direction: Direction) -> Option<[u8; 32]> {
        self.0.set(self.0.get() + 1);
        Some(Split::new([4; 32], [5; 32]).capability(key, direction))
    }

    fn buffered(&self) -> usize {
        0
    }

    fn send(&mut self, _: usize, _: &mut dyn FnMut(&mut BytesMut)) -> Result<(), Error> {
        panic!("a stranger is told something")
    }
}

/// The time to answer tells nothing either: nearly all of it goes into the proof that is compared.
#[test]
fn a_log_that_is_here_takes_as_much_work_as_one_that_is_not() {
    for capability in [None, Some([7; 32])] {
        let work = [KEY, [1; 32]].map(|key| {
            let mut stream = Counting(Cell::new(0));
            let mut mux = Mux::new(Limits::default()).discreet();
            mux.start(&mut stream).expect("nothing waits");
            mux.open(&mut stream, &key).expect("a channel");
            let open = Frame {
                channel: 1,
                body: Body::Open(Open {
                    discovery_key: discovery_key(&KEY),
                    capability,
                }),
            };
            let mut frame = BytesMut::new();
            open.encode(&mut frame);
            let taken = mux.receive(&mut stream, frame.freeze());
            taken.expect("no offence");
            stream.0.get()
        });
        assert_eq!(work, [1, 1], "with {capability:?}");
    }
}

/// The time itself: half of the tries are as quick as half of the others.
#[test]
fn a_log_that_is_here_takes_as_long_as_one_that_is_not() {
    // A difference that is there is there each time; one that the machine makes is not.
    let medians = (0..3).map(|_| medians());
    let difference = |(here, not_here): (f64, f64)| (here / not_here - 1.0).abs();
    let smallest = medians.map(difference).min_by(f64::total_cmp);
    assert!(smallest < Some(0.05), "{smallest:?} of the time");
}

/// How many nanoseconds it takes to answer for a log that is here, and for one that is not.
fn medians() -> (f64, f64) {
    const TRIES: usize = 10_000;
    let mut times = [[KEY], [[1; 32]]].map(|keys| {
        let mut limits = Limits::default();
        limits.unmatched_opens = u32::MAX;
        (Scene::with_limits(&keys, limits), Vec::with_capacity(TRIES))
    });
    for number in 1..=TRIES as u32 {
        for (scene, times) in &mut times {
            scene.open(2 * number, discovery_key(&KEY), Some([7; 32]));
            let bytes = scene.stranger.outgoing().to_vec();
            scene.stranger.sent(bytes.len());
            let started = Instant::now();
            let result = scene.responder.receive(scene.now, &bytes);
            times.push(started.elapsed());
            assert_eq!(result, Ok(()));
            // Out of the way of the next one.
            scene.close(2 * number);
            scene.carry().1.expect("no offence");
            while scene.responder.poll_event().is_some() {}
        }
    }
    let [here, not_here] = times.map(|(_, mut times)| {
        times.sort_unstable();
        times[TRIES / 2].as_nanos() as f64
    });
    println!("medians: {here} ns for a log that is here, {not_here} ns for one that is not");
    (here, not_here)
}
