use std::time::{Duration, Instant};

use hypercore_wire::{Error, Have, Limits, Message, Session};

use crate::support::{KEY, Pair, events, plain, plain_open, raw, take};

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn keep_alives_hold_an_idle_connection() {
    let mut pair = Pair::new(|_| {});
    pair.drive();
    let before = [0, 1].map(|side| pair.sides[side].bytes_sent());
    pair.pass(Duration::from_secs(3600))
        .expect("both are alive");
    for (side, before) in before.into_iter().enumerate() {
        // One byte every ten seconds.
        assert_eq!(pair.sides[side].bytes_sent() - before, 360);
    }
    assert_eq!(pair.events[0].len(), 1, "and nobody is told");
}

/// It waits from the time on at which it was queued.
#[test]
fn after_a_keep_alive_nothing_is_due_at_once() {
    let mut now = Instant::now();
    let mut session = plain(now, |_| {});
    now += 10 * SECOND;
    session.handle_timeout(now).expect("a keep-alive");
    assert_eq!(session.outgoing(), [0]);
    assert_eq!(session.poll_timeout(), Some(now + 10 * SECOND));
}

#[test]
fn what_is_sent_puts_off_the_keep_alive() {
    let mut now = Instant::now();
    let mut session = plain_open(now, |_| {});
    now += 6 * SECOND;
    let channel = session.open(&KEY).expect("the open channel");
    session
        .send(channel, &Message::Have(Have::block(1)))
        .expect("an open channel");
    take(&mut session, now);
    session.receive(now, &[0]).expect("an honest remote");
    assert_eq!(session.poll_timeout(), Some(now + 10 * SECOND));
    now += 9 * SECOND;
    session.handle_timeout(now).expect("nothing is due");
    assert!(session.outgoing().is_empty());
    now += SECOND;
    session.handle_timeout(now).expect("a keep-alive");
    assert_eq!(take(&mut session, now), [0]);
}

/// What cannot have been sent is not counted.
#[test]
fn no_more_is_sent_than_there_was() {
    let now = Instant::now();
    let mut session = plain(now, |_| {});
    session.open(&KEY).expect("a channel");
    let length = session.outgoing().len();
    session.sent(now, length + 100);
    session.sent(now, 100);
    assert_eq!(session.bytes_sent(), length as u64);
}

#[test]
fn a_silent_remote_times_out() {
    let start = Instant::now();
    let mut session = plain(start, |_| {});
    let mut now = start + 19 * SECOND;
    session.handle_timeout(now).expect("a keep-alive");
    session.receive(now, &[0]).expect("an honest remote");
    now += 20 * SECOND - Duration::from_nanos(1);
    session.handle_timeout(now).expect("just in time");
    now += Duration::from_nanos(1);
    let error = Error::TimedOut {
        timeout: 20 * SECOND,
    };
    assert!(!error.is_peer_fault());
    assert_eq!(session.handle_timeout(now), Err(error.clone()));
    assert_eq!(session.receive(now, &[0]), Err(error));
}

#[test]
fn without_a_timeout_nothing_is_due() {
    let now = Instant::now();
    // As in Node, none is no timeout.
    for timeout in [None, Some(Duration::ZERO)] {
        let mut session = plain(now, |options| options.timeout = timeout);
        assert_eq!(session.poll_timeout(), None);
        assert_eq!(session.handle_timeout(now + 1000 * SECOND), Ok(()));
        assert!(session.outgoing().is_empty());
    }
}

#[test]
fn a_connection_cut_short_is_told_from_one_that_ends() {
    let mut session = plain(Instant::now(), |_| {});
    assert_eq!(session.received_end(), Ok(()));
    let mut session = plain(Instant::now(), |_| {});
    session
        .receive(Instant::now(), &[0x05])
        .expect("a frame begins");
    assert_eq!(session.received_end(), Err(Error::UnexpectedEnd));
    let mut pair = Pair::new(|_| {});
    assert_eq!(pair.sides[1].received_end(), Err(Error::UnexpectedEnd));
}

/// Frames are decoded as events are polled: some are still to come when the transport has ended.
#[test]
fn what_came_whole_before_the_end_is_not_lost() {
    let now = Instant::now();
    let have = raw(1, 3, &[0x08, 0x00]);
    for cut in [false, true] {
        let mut session = plain_open(now, |_| {});
        let mut bytes = have.repeat(100);
        if cut {
            bytes.extend(&have[..2]);
        }
        session.receive(now, &bytes).expect("an honest remote");
        assert_eq!(session.received_end(), Ok(()));
        assert_eq!(events(&mut session).len(), 100);
        let error = cut.then_some(Error::UnexpectedEnd);
        assert_eq!(session.error().cloned(), error);
        if let Some(error) = error {
            assert_eq!(session.poll_timeout(), Some(now), "it is told at once");
            assert_eq!(session.handle_timeout(now), Err(error));
        }
    }
}

/// The age at which a frame of `size` bytes is given up that gets `rate` bytes every second.
fn given_up(mut session: Session, start: Instant, size: usize, rate: usize) -> Option<u64> {
    let frame = raw(1, 9, &vec![0; size]);
    let mut now = start;
    for chunk in frame.chunks(rate) {
        // Node takes a frame of which a byte comes every now and then.
        if session.receive(now, chunk).is_err() {
            return None;
        }
        take(&mut session, now);
        now += SECOND;
        match session.handle_timeout(now) {
            Ok(()) => {}
            Err(Error::FrameTooSlow { age }) => return Some(age.as_secs()),
            Err(error) => panic!("{error}"),
        }
    }
    None
}

#[test]
fn a_frame_must_come_at_some_rate() {
    let start = Instant::now();
    let given_up = |rate| given_up(plain_open(start, |_| {}), start, 8 << 20, rate);
    assert_eq!(given_up(1), Some(11));
    assert_eq!(
        given_up(512),
        Some(20),
        "after ten seconds and what they have paid for"
    );
    for rate in [1 << 10, 100 << 10] {
        // In up to two hours. It is complete then, and turns out invalid.
        assert_eq!(given_up(rate), None);
    }
}

#[test]
fn a_frame_of_a_stranger_must_come_faster() {
    let start = Instant::now();
    let given_up = |rate, change: fn(&mut Limits)| {
        let session = plain(start, |options| change(&mut options.limits));
        given_up(session, start, 60 << 10, rate)
    };
    assert_eq!(given_up(1 << 10, |_| {}), Some(11));
    assert_eq!(given_up(4 << 10, |_| {}), Some(14));
    assert_eq!(given_up(8 << 10, |_| {}), None);
    let hasty = |limits: &mut Limits| limits.unverified_frame_duration = 5 * SECOND;
    assert_eq!(given_up(8 << 10, hasty), Some(5));
}

#[test]
fn whole_frames_do_not_age() {
    let mut now = Instant::now();
    let mut session = plain_open(now, |_| {});
    let have = raw(1, 3, &[0x08, 0x00]);
    // There is always the beginning of a frame, but never the same one.
    session.receive(now, &have[..2]).expect("an honest remote");
    for _ in 0..100 {
        now += 5 * SECOND;
        session.receive(now, &have[2..]).expect("an honest remote");
        session.receive(now, &have[..2]).expect("an honest remote");
        while session.poll_event().is_some() {}
        session.handle_timeout(now).expect("an honest remote");
        take(&mut session, now);
    }
}

#[test]
fn a_remote_that_takes_nothing_is_given_up() {
    let mut now = Instant::now();
    let mut session = plain_open(now, |_| {});
    let channel = session.open(&KEY).expect("the open channel");
    session
        .send(channel, &Message::Have(Have::block(1)))
        .expect("an open channel");
    let waiting = session.outgoing().len();
    let end = now + 100 * SECOND;
    let error = loop {
        now = session.poll_timeout().expect("a deadline");
        assert!(now < end, "it is never given up");
        session.receive(now, &[0]).expect("an honest remote");
        if let Err(error) = session.handle_timeout(now) {
            break error;
        }
        assert_eq!(session.outgoing().len(), waiting, "no keep-alives pile up");
    };
    assert_eq!(error, Error::SendStalled { age: 60 * SECOND });
}

#[test]
fn a_remote_that_takes_nothing_is_given_up_without_a_timeout_too() {
    let now = Instant::now();
    let mut session = plain_open(now, |options| options.timeout = None);
    let channel = session.open(&KEY).expect("the open channel");
    for index in 0..2 {
        let have = Message::Have(Have::block(index));
        session.send(channel, &have).expect("an open channel");
    }
    let later = now + 59 * SECOND;
    session.sent(later, 1);
    assert_eq!(session.poll_timeout(), Some(later + 60 * SECOND));
    take(&mut session, later);
    assert_eq!(session.poll_timeout(), None, "nothing waits");
}

/// What is sent is sent without the time: the last that was told may be long ago.
#[test]
fn bytes_do_not_wait_before_they_are_there() {
    let start = Instant::now();
    let mut session = plain_open(start, |options| options.timeout = None);
    let channel = session.open(&KEY).expect("the open channel");
    let now = start + 100 * SECOND;
    session
        .send(channel, &Message::Have(Have::block(1)))
        .expect("an open channel");
    assert!(
        session.poll_timeout().is_some_and(|due| due <= now),
        "the time is to be told"
    );
    assert_eq!(session.handle_timeout(now), Ok(()));
    assert_eq!(session.poll_timeout(), Some(now + 60 * SECOND));
}

#[test]
fn a_remote_that_never_takes_an_open_or_a_close_is_given_up() {
    let now = Instant::now();
    let without_timeout = |session: fn(&mut Session)| {
        let mut plain = plain(now, |options| options.timeout = None);
        session(&mut plain);
        plain
    };
    let opened = without_timeout(|session| {
        session.open(&KEY).expect("a channel");
    });
    let rejected = without_timeout(|session| session.reject(&[1; 32]));
    for mut session in [opened, rejected] {
        assert_eq!(session.poll_timeout(), Some(now));
        assert_eq!(session.handle_timeout(now), Ok(()));
        let due = now + 60 * SECOND;
        assert_eq!(session.poll_timeout(), Some(due));
        let error = Error::SendStalled { age: 60 * SECOND };
        assert_eq!(session.handle_timeout(due), Err(error));
    }
}
