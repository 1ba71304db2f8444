mod remote;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Debug,
    sync::LazyLock,
    time::{Duration, Instant},
};

use bytes::Bytes;

use crate::{
    Body, Budget, ChannelId, Close, Direction, Error, Event, Frame, Limits, Message, MessageStream,
    Open, Received, Role, Session, SessionOptions, StaticKeyPair, discovery_key,
};
use remote::{Remote, encoded, message, names};

/// A session with a remote that made an honest handshake and then says what it likes, in frames that
/// are mostly well-formed.
///
/// The input is a byte of settings (`World::new`) and a list of operations of four bytes each: what
/// to do, and three numbers that say with what (`World::operate`).
///
/// * The session ends only for what the remote or its own application did.
/// * What it keeps for the remote stays within the limits, and none of it is left in the end.
/// * A channel is open only for a remote that proved to know its key, and for each that did.
/// * No message is invented, repeated or put in another place.
/// * What it sends is well-formed: nothing on a channel that was not opened, or is closed.
/// * A discreet one says nothing of a log to who did not prove to know its key: it behaves, to the byte
///   and the nanosecond, as a second one does that lacks each log that the first has.
pub fn wire_hostile(data: &[u8]) {
    let (&settings, operations) = data.split_first().unwrap_or((&0, &[]));
    let mut world = World::new(settings);
    for &operation in operations.as_chunks().0.iter().take(MAX_OPERATIONS) {
        world.operate(operation);
    }
    world.end();
}

const MAX_OPERATIONS: usize = 150;

/// How many logs there are.
const LOGS: u8 = 6;

fn key(log: u8) -> [u8; 32] {
    [1 + log % LOGS; 32]
}

/// Makes the key of a log into one that the remote has never heard of.
const ABSENT: u8 = 0x80;

/// A log's discovery key; from [`LOGS`] on, of none that anybody knows.
fn name(log: u8) -> [u8; 32] {
    static NAMES: LazyLock<Vec<[u8; 32]>> =
        LazyLock::new(|| (0..LOGS).map(|log| discovery_key(&key(log))).collect());
    let name = NAMES.get(usize::from(log));
    name.copied().unwrap_or([log; 32])
}

static LIMITS: LazyLock<Limits> = LazyLock::new(|| Limits {
    unverified_frame: 1024,
    frame: 4096,
    received_frame: 4096,
    read: 1024,
    keep_alives: 30,
    send_buffer: 8192,
    // Enough for what a remote can have rejected in all operations.
    channel_number: 1 << 14,
    channels: 4,
    unmatched_channels: 3,
    unmatched_opens: 50,
    extension_names: 4,
    extension_name: 8,
    extension_message: 256,
    nodes: 3,
    ..Limits::default()
});

/// A session, and the budgets that nobody else has a share in.
struct Side {
    session: Session,
    received: Budget,
    everything: Budget,
}

impl Side {
    fn new(settings: u8, now: Instant) -> Self {
        let is_short = settings & 8 != 0;
        let [received, everything] =
            [1, 2].map(|share| Budget::new(share * if is_short { 3000 } else { 1 << 20 }));
        let role = [Role::Responder, Role::Initiator][usize::from(settings >> 1 & 1)];
        static KEY_PAIR: LazyLock<StaticKeyPair> =
            LazyLock::new(|| StaticKeyPair::from_seed(&[1; 32]));
        let mut options = SessionOptions::with_keys(role, KEY_PAIR.duplicate(), [1; 24]);
        options.discreet = settings & 1 != 0;
        options.encrypted = settings & 4 == 0;
        options.timeout = options.timeout.filter(|_| settings & 32 == 0);
        options.remote_public_key = (settings & 64 != 0).then_some(Remote::key_pair().public_key());
        options.limits = Limits {
            receive_budget: received.clone(),
            budget: everything.clone(),
            ..LIMITS.clone()
        };
        let session = Session::with_fixed_ephemeral_for_testing_only(options, now, &[3; 32]);
        Self {
            session: session.expect("no randomness is needed"),
            received,
            everything,
        }
    }

    fn end(self) {
        drop(self.session);
        assert_eq!((self.received.held(), self.everything.held()), (0, 0));
    }
}

/// What became of a channel that the application opened.
#[derive(Default)]
struct Life {
    log: u8,
    is_opened: bool,
    is_closed: bool,
}

struct World {
    /// The session, and, until the remote has proved to know a key, one to which the logs are absent that
    /// are here.
    sides: Vec<Side>,
    remote: Remote,
    is_discreet: bool,
    is_short: bool,
    started: Instant,
    now: Instant,
    error: Option<Error>,
    /// By number.
    channels: BTreeMap<u32, Life>,
    ids: Vec<ChannelId>,
    /// Names of extensions that the application has declared.
    declared: BTreeSet<String>,
    /// What the session may have closed that it had not opened.
    rejected: Vec<[u8; 32]>,
    /// Whether the application polls by itself, and whether it has polled everything.
    polls: bool,
    is_behind: bool,
    /// Whether it was behind when something came.
    was_behind: bool,
    /// Whether the remote takes what is sent.
    listens: bool,
    has_ended: bool,
    has_finished: bool,
}

impl World {
    /// The bits of `settings` say, from the lowest: whether the session is discreet; whether it is the
    /// initiator; whether nothing is encrypted; whether memory is short; whether a log is opened before
    /// the handshake; whether there is no timeout; whether the remote's key is known before.
    fn new(settings: u8) -> Self {
        let now = Instant::now();
        let is_discreet = settings & 1 != 0;
        let sides = (0..1 + usize::from(is_discreet)).map(|_| Side::new(settings, now));
        let mut world = Self {
            sides: sides.collect(),
            remote: Remote::new(settings),
            is_discreet,
            is_short: settings & 8 != 0,
            started: now,
            now,
            error: None,
            channels: BTreeMap::new(),
            ids: Vec::new(),
            declared: BTreeSet::new(),
            rejected: Vec::new(),
            polls: true,
            is_behind: false,
            was_behind: false,
            listens: true,
            has_ended: false,
            has_finished: false,
        };
        if settings & 16 != 0 {
            world.open(0);
            world.send(0, 1, 0);
        }
        for _ in 0..3 {
            world.carry(usize::MAX, usize::MAX);
            world.listen(usize::MAX);
        }
        assert_eq!(world.error, None, "an honest handshake");
        assert!(world.session().is_handshaken() && world.remote.stream.is_handshaken());
        world
    }

    fn session(&self) -> &Session {
        &self.sides[0].session
    }

    /// Does something with the session, and with the one without the logs: nobody can tell them apart.
    /// What is given besides is to be added to keys.
    fn each<T: PartialEq + Debug>(&mut self, call: impl Fn(&mut Session, u8) -> T) -> T {
        let sides = self.sides.iter_mut().zip([0, ABSENT]);
        let mut results = sides.map(|(side, absent)| call(&mut side.session, absent));
        let first = results.next().expect("there is a session");
        if let Some(other) = results.next() {
            assert_eq!(first, other, "a log that is here and one that is not");
        }
        first
    }

    /// The lower five bits of `kind` say what is done; the next, whether what the remote says is held
    /// back for now.
    fn operate(&mut self, [kind, a, b, c]: [u8; 4]) {
        match kind & 0x1f {
            kind @ 0..17 => {
                self.remote.act(kind, a, b, c);
                if !self.remote.proven.is_empty() && self.sides.len() > 1 {
                    self.sides.pop().expect("there are two").end();
                }
            }
            17 => {
                let max = u16::from_le_bytes([a, b]).into();
                self.carry(max, 1 + usize::from(c));
                return self.check();
            }
            18 => self.listen(u16::from_le_bytes([a, b]).into()),
            19 | 20 => self.wait(Duration::from_millis(1 << (a % 17))),
            21 if a & 7 == 7 => {
                self.has_ended = true;
                _ = self.each(|session, _| session.received_end());
            }
            21 | 22 => self.open(a),
            23 => {
                if let Some(channel) = self.pick(a) {
                    self.withdraw(channel);
                    self.each(|session, _| session.close(channel));
                    assert!(!self.session().is_open(channel) || !self.is_writable());
                }
            }
            24 => {
                let name = name(a % (LOGS + 2));
                self.remote.standing.remove(&name);
                if let Some(channel) = self.session().find(&name) {
                    self.withdraw(channel);
                }
                self.rejected.push(name);
                self.each(|session, _| session.reject(&name));
            }
            25 | 26 => self.send(a, b, c),
            27 => self.extend(a, b, c),
            28 => {
                self.polls = a & 1 == 0;
                self.poll(b.into());
            }
            29 => self.listens = a & 1 == 0,
            30 if a & 7 == 7 => {
                self.has_finished = true;
                self.each(|session, _| session.finish());
            }
            // Both do what honest ones do.
            _ => {
                self.operate([0x20, a % LOGS, 0xff, 0]);
                self.open(a);
            }
        }
        if kind & 0x20 == 0 {
            self.carry(usize::MAX, usize::MAX);
        }
        if self.listens {
            self.listen(usize::MAX);
        }
        self.check();
    }

    fn pick(&self, choice: u8) -> Option<ChannelId> {
        let index = usize::from(choice).checked_rem(self.ids.len())?;
        Some(self.ids[index])
    }

    fn is_writable(&self) -> bool {
        self.session().error().is_none() && !self.has_finished
    }

    /// The application opens a log.
    fn open(&mut self, log: u8) {
        let log = log % LOGS;
        let opened = self.each(|session, absent| session.open(&key(log).map(|byte| byte | absent)));
        match opened {
            Ok(channel) => {
                if !self.ids.contains(&channel) {
                    let life = Life {
                        log,
                        ..Life::default()
                    };
                    self.channels.insert(channel.number(), life);
                    self.ids.push(channel);
                }
            }
            Err(Error::InvalidCapability) => {
                assert!(!self.is_discreet && self.remote.is_wrong);
                self.rejected.push(name(log));
            }
            Err(error) => self.refuses(&error),
        }
    }

    fn send(&mut self, choice: u8, kind: u8, number: u8) {
        let Some(channel) = self.pick(choice) else {
            return;
        };
        let message = message(kind, number);
        // Nobody checks what the application says.
        if Frame::decode(encoded(1, Body::Message(message.clone())), &LIMITS).is_err() {
            return;
        }
        if let Message::Options(options) = &message {
            self.declared.extend(options.extensions.iter().cloned());
        }
        if let Err(error) = self.each(|session, _| session.send(channel, &message)) {
            self.refuses(&error);
        }
    }

    fn extend(&mut self, a: u8, b: u8, c: u8) {
        let names = names(c);
        let channel = self.pick(a >> 2);
        let result = match (a & 3, channel) {
            (0, _) => self.each(|session, _| session.declare_extensions(names.clone())),
            (1, Some(channel)) => {
                self.each(|session, _| session.expect_extensions(channel, names.clone()))
            }
            (kind, channel) => {
                let channel = channel.filter(|_| kind == 2);
                let payload = Bytes::from(vec![c; usize::from(c) * 2]);
                self.each(|session, _| {
                    session.send_extension(channel, &(b % 8).to_string(), payload.clone())
                })
            }
        };
        self.declared.extend(names);
        if let Err(error) = result {
            self.refuses(&error);
        }
    }

    /// A call was refused for a reason that is one.
    fn refuses(&self, error: &Error) {
        let is_known = matches!(
            error,
            Error::ChannelNotOpen { .. }
                | Error::TooManyChannels { max: 4 }
                | Error::SendBufferFull { .. }
                | Error::MessageTooLarge { .. }
                | Error::UnknownExtension { .. }
                | Error::TooManyExtensions { .. }
                | Error::NotReady
        );
        assert!(is_known || self.session().error() == Some(error), "{error}");
    }

    /// The application gives up a channel.
    fn withdraw(&mut self, channel: ChannelId) {
        let log = self.channels[&channel.number()].log;
        self.remote.standing.remove(&name(log));
    }

    /// Carries bytes from the remote, at most `piece` in one read.
    fn carry(&mut self, max: usize, piece: usize) {
        if self.has_ended {
            return;
        }
        let bytes = self.remote.stream.outgoing();
        let bytes = bytes[..max.min(bytes.len())].to_vec();
        let (before, now) = (self.session().buffered(), self.now);
        let is_handshaken = self.session().is_handshaken();
        let mut rest = &bytes[..];
        while !rest.is_empty() && self.session().error().is_none() && self.session().may_receive() {
            self.was_behind |= self.is_behind;
            let n = self.each(|session, _| {
                let buffer = session.receive_buffer();
                let n = rest.len().min(buffer.len()).min(piece);
                buffer[..n].copy_from_slice(&rest[..n]);
                n
            });
            assert!(n > 0);
            let _ = self.each(|session, _| session.received(now, n));
            rest = &rest[n..];
            if self.polls {
                self.poll(usize::MAX);
            } else {
                self.is_behind = true;
            }
        }
        self.remote.stream.sent(bytes.len() - rest.len());
        let is_strange = self.is_discreet && self.remote.proven.is_empty() && is_handshaken;
        // More of them and the oldest is rejected.
        if is_strange && self.remote.opens <= LIMITS.unmatched_channels {
            assert_eq!(self.session().buffered(), before, "a stranger is answered");
        }
    }

    /// Carries bytes to the remote, which is strict.
    fn listen(&mut self, max: usize) {
        let now = self.now;
        let bytes = self.each(|session, _| {
            let bytes = session.outgoing();
            bytes[..max.min(bytes.len())].to_vec()
        });
        self.each(|session, _| session.sent(now, bytes.len()));
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let buffer = self.remote.stream.receive_buffer();
            let n = rest.len().min(buffer.len());
            buffer[..n].copy_from_slice(&rest[..n]);
            self.remote.stream.received(n).expect("room");
            rest = &rest[n..];
            while let Some(received) = self.remote.stream.poll().expect("well-formed") {
                match received {
                    Received::Handshake { .. } => {}
                    Received::KeepAlive => {
                        let pings = self.remote.due_pings.checked_sub(1);
                        self.remote.due_pings = pings.expect("it was time for a keep-alive");
                    }
                    Received::Frame(frame) => self.heard(frame),
                }
            }
        }
    }

    fn heard(&mut self, frame: Bytes) {
        let is_long = frame.len() > LIMITS.unverified_frame + 5;
        assert!(!is_long || !self.remote.proven.is_empty());
        let frame = Frame::decode(frame, &Limits::default()).expect("well-formed");
        let Frame {
            channel: number,
            body,
        } = frame.expect("of a known kind");
        let before = self.remote.heard.get(&number).copied();
        match body {
            Body::Open(open) => {
                let key = key(self.channels[&number].log);
                let expected = Open {
                    discovery_key: discovery_key(&key),
                    capability: self.remote.stream.capability(&key, Direction::Receive),
                };
                assert!(before.is_none() && open == expected);
                let is_proven = self.remote.proven.contains(&open.discovery_key);
                assert!(is_proven || !self.is_discreet, "a stranger learns of a log");
                self.remote.heard.insert(number, true);
            }
            Body::Close(Close { discovery_key }) => {
                match discovery_key {
                    None => assert_eq!(before, Some(true), "a channel that is not open is closed"),
                    Some(name) => {
                        assert_eq!(before, None);
                        self.remote.refused.push(name);
                    }
                }
                self.remote.heard.insert(number, false);
            }
            Body::Message(message) => {
                if number == 0 {
                    assert!(matches!(
                        message,
                        Message::Options(_) | Message::Extension(_)
                    ));
                } else {
                    assert_eq!(before, Some(true), "a message on no channel");
                }
            }
        }
    }

    fn wait(&mut self, time: Duration) {
        self.now += time;
        let (now, before) = (self.now, self.session().buffered());
        let due = self.each(|session, _| session.poll_timeout());
        let result = self.each(|session, _| session.handle_timeout(now));
        let sent = self.session().buffered() - before;
        assert!(sent <= 1, "more than a keep-alive");
        self.remote.due_pings += sent;
        if result.is_ok() {
            assert!(sent == 0 || due.is_some_and(|due| due <= now));
            let next = self.session().poll_timeout();
            assert!(
                next.is_none_or(|next| next > now),
                "due, and nothing is done"
            );
        }
    }

    fn poll(&mut self, count: usize) {
        for _ in 0..count {
            let Some(event) = self.each(|session, _| session.poll_event()) else {
                self.is_behind = false;
                return self.check_channels();
            };
            self.happened(event);
        }
        self.is_behind = true;
    }

    fn happened(&mut self, event: Event) {
        match event {
            Event::Handshake { remote_public_key } => {
                assert_eq!(remote_public_key, Remote::key_pair().public_key());
            }
            Event::RemoteOpened { discovery_key } => {
                assert!(self.remote.last.contains_key(&discovery_key));
            }
            Event::Opened { channel } => {
                // `open` has not returned the channel if the remote was first.
                let life = self.channels.get_mut(&channel.number());
                let life = life.expect("the application opened it");
                assert!(!life.is_opened && !life.is_closed);
                life.is_opened = true;
                let name = name(life.log);
                assert!(
                    self.remote.proven.contains(&name),
                    "a stranger opened a channel"
                );
            }
            Event::Message { channel, message } => {
                let life = &self.channels[&channel.number()];
                assert!(life.is_opened && !life.is_closed);
                self.remote.said(|said| *said == message);
            }
            Event::Closed {
                channel,
                discovery_key,
            } => {
                self.remote.standing.remove(&discovery_key);
                match channel {
                    Some(channel) => {
                        assert!(self.remote.has_closed || self.remote.is_confused);
                        let life = self.channels.get_mut(&channel.number());
                        let life = life.expect("the application opened it");
                        assert!(!life.is_closed && name(life.log) == discovery_key);
                        life.is_closed = true;
                    }
                    None => self.rejected.push(discovery_key),
                }
            }
            Event::StreamOptions { extensions } => self.remote.said(|said| {
                matches!(said, Message::Options(options) if options.extensions == extensions)
            }),
            Event::Extension {
                channel,
                name,
                payload,
            } => {
                assert!(self.declared.contains(&name));
                let life = channel.map(|channel| &self.channels[&channel.number()]);
                assert!(life.is_none_or(|life| life.is_opened && !life.is_closed));
                self.remote.said(
                    |said| matches!(said, Message::Extension(said) if said.payload == payload),
                );
            }
        }
    }

    /// All that came was decoded: what is open is what the remote knows the keys of.
    fn check_channels(&mut self) {
        let session = &self.sides[0].session;
        let remote = &self.remote;
        if session.error().is_some() || remote.is_confused || !remote.stream.outgoing().is_empty() {
            return;
        }
        for log in 0..LOGS {
            let name = name(log);
            let channel = session.find(&name);
            let is_open = channel.is_some_and(|channel| session.is_open(channel));
            let is_known = remote
                .last
                .get(&name)
                .is_some_and(|(_, is_right)| *is_right);
            let is_trusted =
                is_open || session.is_remote_open(&name) && session.remote_verified(&key(log));
            assert!(is_known || !is_trusted, "a stranger is trusted");
            let must_be = channel.is_some() && remote.standing.contains(&name);
            assert!(is_open || !must_be, "the remote proved to know the key");
        }
        for name in self.remote.refused.drain(..) {
            let reason = self.rejected.iter().position(|rejected| *rejected == name);
            self.rejected
                .swap_remove(reason.expect("nobody rejected it"));
        }
        for side in &self.sides {
            let (received, buffered) = (side.received.held(), side.session.buffered());
            assert!(side.everything.held() >= received + buffered);
        }
    }

    fn check(&mut self) {
        if self.polls {
            self.poll(usize::MAX);
        }
        let limits = &*LIMITS;
        self.each(|session, _| {
            (
                session.outgoing().to_vec(),
                session.error().cloned(),
                session.poll_timeout(),
                (session.channels(), session.closing()),
                (session.may_receive(), session.may_answer()),
                session.receiving_since(),
            )
        });
        let session = self.session();
        assert!(session.channels() <= limits.channels + limits.unmatched_channels);
        assert!(session.closing() <= limits.channels);
        assert!(
            session.buffered() <= limits.send_buffer + 2 * limits.frame + (1 << 20),
            "{}",
            session.buffered()
        );
        assert!(self.sides[0].received.held() <= 32 << 10);
        assert!(session.may_receive() || session.poll_timeout().is_some());
        let error = session.error().cloned();
        if let Some(before) = &self.error {
            assert_eq!(error.as_ref(), Some(before), "the first error is the last");
        } else if let Some(error) = &error {
            assert!(self.is_deserved(error), "{error}");
            assert!(session.poll_timeout() <= Some(self.now));
        }
        self.error = error;
    }

    /// Whether somebody did what the error says.
    fn is_deserved(&self, error: &Error) -> bool {
        let (remote, limits) = (&self.remote, &*LIMITS);
        let time = self.now - self.started;
        match error {
            _ if remote.is_confused && error.is_peer_fault() => true,
            Error::FrameTooLarge { length, max } => {
                remote.longest as u64 >= *length && remote.longest > *max
            }
            Error::InvalidMessage { .. } => remote.is_invalid,
            Error::InvalidCapability => remote.is_wrong && !self.is_discreet,
            Error::ChannelNumber { id, max } => *id == 0 || id > max,
            Error::DuplicateOpen { .. } => remote.is_twice,
            Error::TooManyKeepAlives { max, .. } => remote.pings > *max,
            Error::TooManyUnmatchedOpens { max, .. } => remote.opens > *max as usize,
            Error::UnexpectedEnd => self.has_ended,
            Error::FrameTooSlow { age } => time >= *age && time >= Duration::from_secs(10),
            Error::TimedOut { timeout } => time >= *timeout,
            Error::SendStalled { age } => time >= *age && *age >= limits.send_stall,
            Error::MemoryShort => self.is_short,
            Error::EventsNotPolled => self.was_behind,
            Error::SendBufferFull { buffered, .. } => *buffered > limits.send_buffer + (1 << 20),
            _ => false,
        }
    }

    fn end(mut self) {
        self.polls = true;
        self.carry(usize::MAX, usize::MAX);
        self.listen(usize::MAX);
        self.check();
        for side in self.sides {
            side.end();
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    /// What is done most of the time to few logs, so that they are opened at all.
    fn operation() -> impl Strategy<Value = [u8; 4]> {
        let near = prop_oneof![3 => 0..4_u8, 1 => any::<u8>()];
        let number = prop_oneof![3 => 253..=255_u8, 2 => 64..70_u8, 1 => any::<u8>()];
        (any::<u8>(), near, number, any::<u8>()).prop_map(|(kind, a, b, c)| [kind, a, b, c])
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]

        #[test]
        fn generated_hostilities_hold(
            settings in any::<u8>(),
            operations in vec(operation(), 0..60),
        ) {
            let mut data = vec![settings];
            data.extend(operations.concat());
            wire_hostile(&data);
        }
    }

    /// The checks are of something: honest operations open a channel and bring a message.
    #[test]
    fn an_honest_remote_is_let_in() {
        for settings in 0..8 {
            let mut world = World::new(settings);
            for operation in [[31, 0, 0, 0], [8, 2, 0, 2], [25, 0, 2, 1]] {
                world.operate(operation);
            }
            assert!(world.session().is_open(world.ids[0]));
            assert!(world.remote.messages.is_empty() && world.sides.len() == 1);
            assert_eq!((world.error.clone(), world.remote.heard.len()), (None, 1));
            world.end();
        }
    }
}
