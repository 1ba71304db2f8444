//! What many sessions hold together, and who waits while memory is short.

use std::time::{Duration, Instant};

use bytes::Bytes;
use hypercore_wire::{Budget, Data, Error, Message, Session, SessionOptions};

use crate::support::{Pair, fill, give, message_frame, plain, plain_open, raw, take};

/// A session that holds an unfinished frame of about `length` bytes.
fn hoard(session: &mut Session, now: Instant, length: usize) -> Result<(), Error> {
    // A Data of 8 MiB is announced.
    session.receive(now, &[0x81, 0x80, 0x80, 0x04, 0x19])?;
    for _ in 0..length / 1000 {
        session.receive(now, &[7; 1000])?;
    }
    Ok(())
}

#[test]
fn those_who_hold_most_are_not_read_while_memory_is_short() {
    let now = Instant::now();
    let budget = Budget::new(3_000_000);
    let mut sessions = [0; 3].map(|_| {
        plain_open(now, |options| {
            options.limits.receive_budget = budget.clone();
        })
    });
    for (session, length) in sessions.iter_mut().zip([1_000_000, 2_000_000, 100_000]) {
        hoard(session, now, length).expect("there is room for a frame");
    }
    assert!(budget.held() <= 6_200_000, "{}", budget.held());
    let may_receive = |sessions: &[Session]| -> Vec<_> {
        let may = sessions.iter().map(Session::may_receive);
        may.collect()
    };
    assert_eq!(may_receive(&sessions), [false, false, true]);
    let retry = sessions[1].poll_timeout().expect("it asks again");
    assert_eq!(retry, now + Duration::from_millis(100));
    assert!(sessions[2].receive_buffer().len() <= 100_000);

    // One of them goes on; who says nothing then is given up, and with it the memory is free again.
    let late = now + Duration::from_secs(20);
    assert_eq!(sessions[1].handle_timeout(late), Ok(()));
    assert_eq!(sessions[0].handle_timeout(late), Ok(()));
    assert_eq!(may_receive(&sessions), [false, true, true]);
    assert_eq!(take(&mut sessions[1], late), [0], "a keep-alive");
    let due = sessions[1].poll_timeout().expect("its time is short");
    assert_eq!(due, late + MEMORY_PAUSE);
    let error = sessions[1].handle_timeout(due).expect_err("silence");
    assert!(matches!(error, Error::TimedOut { .. }), "{error}");
    let [first, second, third] = sessions;
    drop(second);
    assert!(first.may_receive());
    drop((first, third));
    assert_eq!(budget.held(), 0);
}

/// How soon memory is looked for again, and how long whoever goes on may say nothing.
const MEMORY_PAUSE: Duration = Duration::from_millis(100);

/// Sessions that share so much memory for what they receive.
fn sharing(count: usize, limit: usize, now: Instant) -> (Vec<Session>, Budget) {
    let budget = Budget::new(limit);
    let sessions = (0..count).map(|_| {
        plain_open(now, |options| {
            options.limits.receive_budget = budget.clone();
        })
    });
    (sessions.collect(), budget)
}

/// None of what they hold is of use before more is read. So one always goes on, and it is not their silence that
/// we do not read.
#[test]
fn all_arrives_although_memory_is_short() {
    let mut now = Instant::now();
    let start = now;
    let (mut sessions, budget) = sharing(20, 3_000_000, now);
    let value = Some(Bytes::from(vec![0x5a; 400_000]));
    let data = Data {
        value,
        ..Data::default()
    };
    let frame = message_frame(1, Message::Data(data));
    let mut given = vec![0; sessions.len()];
    let mut was_short = false;
    while given.iter().any(|given| *given < frame.len()) {
        now += MEMORY_PAUSE;
        assert!(now < start + Duration::from_secs(300), "nobody goes on");
        for (session, given) in sessions.iter_mut().zip(&mut given) {
            session.handle_timeout(now).expect("an honest remote");
            take(session, now);
            if *given == frame.len() {
                session.receive(now, &[0]).expect("a keep-alive");
            } else if session.may_receive() {
                let end = frame.len().min(*given + 4096);
                let (events, result) = give(session, now, &frame[*given..end]);
                assert_eq!(result, Ok(()));
                *given = end;
                assert_eq!(events.len(), usize::from(end == frame.len()));
            }
        }
        was_short |= budget.is_exhausted();
        let unfinished = given.iter().filter(|given| **given < frame.len());
        let held: usize = unfinished.sum();
        assert!(held < 3_000_000 + 400_000 + 20 * 4096, "{held}");
    }
    assert!(was_short);
}

#[test]
fn who_goes_on_while_memory_is_short_may_not_be_slow() {
    let mut now = Instant::now();
    let start = now;
    let (mut sessions, _budget) = sharing(2, 1_000_000, now);
    for session in &mut sessions {
        hoard(session, now, 700_000).expect("there is room for a frame");
        session
            .handle_timeout(now)
            .expect("it has just sent something");
    }
    let [slow, waiting] = &mut sessions[..] else {
        panic!("there are two");
    };
    assert_eq!((slow.may_receive(), waiting.may_receive()), (true, false));
    let error = loop {
        slow.receive(now, &[7]).expect("it may");
        now += MEMORY_PAUSE;
        if let Err(error) = slow.handle_timeout(now) {
            break error;
        }
        assert!(slow.may_receive() && !waiting.may_receive());
        waiting.handle_timeout(now).expect("it is not read");
    };
    assert!(matches!(error, Error::FrameTooSlow { .. }), "{error}");
    assert!(now < start + Duration::from_secs(11), "{:?}", now - start);
    sessions.remove(0);
    let waited = &mut sessions[0];
    assert!(waited.may_receive());
    now += Duration::from_secs(20);
    assert_eq!(
        waited.handle_timeout(now),
        Ok(()),
        "what it sent is still to be read"
    );
}

#[test]
fn a_session_that_is_not_driven_holds_nobody_up_while_memory_is_short() {
    let mut now = Instant::now();
    let (mut sessions, _budget) = sharing(2, 1_000_000, now);
    for session in &mut sessions {
        hoard(session, now, 700_000).expect("there is room for a frame");
        session
            .handle_timeout(now)
            .expect("it has just sent something");
    }
    let waiting = &mut sessions[1];
    for pause in 1..=10 {
        assert!(!waiting.may_receive(), "{pause}");
        now += MEMORY_PAUSE;
        waiting.handle_timeout(now).expect("it is not read");
    }
    assert!(waiting.may_receive() && !sessions[0].may_receive());
}

/// Whoever says nothing passes its turn to the next.
#[test]
fn who_is_silent_holds_nobody_up_while_memory_is_short() {
    let mut now = Instant::now();
    let start = now;
    let (mut sessions, budget) = sharing(5, 1_000_000, now);
    for session in &mut sessions {
        hoard(session, now, 300_000).expect("there is room for a frame");
    }
    let mut turns = vec![0; sessions.len()];
    while sessions.len() == 5 {
        now += MEMORY_PAUSE;
        let mut reads = 0;
        for (session, turns) in sessions.iter_mut().zip(&mut turns) {
            let _ = session.handle_timeout(now);
            *turns += usize::from(session.may_receive());
        }
        for session in &sessions {
            reads += usize::from(session.may_receive());
        }
        assert!(reads <= 1 && budget.is_exhausted());
        assert!(now < start + Duration::from_secs(60), "nobody is given up");
        sessions.retain(|session| session.error().is_none());
    }
    assert!(turns.iter().all(|turns| *turns > 20), "{turns:?}");
    assert!(now < start + Duration::from_secs(21), "{:?}", now - start);
}

/// Nobody reads while all have too much: so it must not be free space that they have.
#[test]
fn free_space_is_given_back_while_memory_is_short() {
    let now = Instant::now();
    let (mut sessions, budget) = sharing(8, 1_000_000, now);
    for session in &mut sessions {
        let mut room = 0;
        while room < 200_000 && !budget.is_exhausted() {
            room = session.receive_buffer().len();
            // A message of no known type, and some keep-alives.
            let mut bytes = raw(1, 12, &vec![0; room - 16]);
            bytes.resize(room, 0);
            session.receive(now, &bytes).expect("nothing to object to");
        }
        // The driver waits for more.
        session.receive_buffer();
    }
    assert!(budget.is_exhausted() && !sessions[0].may_receive());
    for _ in 0..2 {
        for session in &mut sessions {
            session.handle_timeout(now).expect("nothing is due");
        }
    }
    assert!(!budget.is_exhausted(), "{}", budget.held());
    assert!(sessions.iter().all(Session::may_receive));
}

#[test]
fn a_stranger_that_is_not_read_is_given_up_while_memory_is_short() {
    let now = Instant::now();
    let budget = Budget::new(40_000);
    let options = |options: &mut SessionOptions| options.limits.receive_budget = budget.clone();
    let mut stranger = plain(now, options);
    let mut friend = plain_open(now, options);
    // An Open of 60,000 bytes, of which a part is here.
    stranger
        .receive(now, &[0xe0, 0xd4, 0x03, 0x10])
        .expect("it may be long");
    for _ in 0..30 {
        stranger.receive(now, &[0; 1000]).expect("there is room");
    }
    hoard(&mut friend, now, 15_000).expect("there is room");
    assert!(!stranger.may_receive());
    assert_eq!(stranger.handle_timeout(now), Err(Error::MemoryShort));
    assert_eq!(friend.handle_timeout(now), Ok(()));
}

#[test]
fn strangers_are_given_up_first_while_memory_is_short() {
    let now = Instant::now();
    let budget = Budget::new(200_000);
    let options = |options: &mut SessionOptions| options.limits.receive_budget = budget.clone();
    let mut friend = plain_open(now, options);
    let mut stranger = plain(now, options);
    let mut idle = plain(now, options);
    // An Open of 60,000 bytes, of which half is here.
    let announced = [0xe0, 0xd4, 0x03, 0x10];
    stranger.receive(now, &announced).expect("it may be long");
    hoard(&mut friend, now, 250_000).expect("there is room for a frame");
    assert!(budget.is_exhausted());
    assert_eq!(stranger.receive(now, &[0; 100]), Err(Error::MemoryShort));
    assert_eq!(
        idle.receive(now, &[0]),
        Ok(()),
        "a keep-alive takes nothing"
    );
    assert_eq!(friend.error(), None);
}

#[test]
fn those_who_take_nothing_get_no_answers_while_memory_is_short() {
    let now = Instant::now();
    let budget = Budget::new(10_000);
    let mut pair = Pair::new(|options| {
        options.limits.budget = budget.clone();
        options.limits.send_buffer = 10_000;
    });
    pair.drive();
    assert!(pair.sides[0].may_answer());
    fill(&mut pair.sides[0]);
    assert_eq!(
        [0, 1].map(|side| pair.sides[side].may_answer()),
        [false, true]
    );
    assert!(
        pair.sides[0].may_receive(),
        "reading is not what takes memory"
    );
    let waiting = pair.sides[0].outgoing().len();
    pair.sides[0].sent(now, waiting);
    assert!(pair.sides[0].may_answer());
}

/// Each of four hundred readers kept a mebibyte.
#[test]
fn no_more_of_an_empty_send_buffer_is_kept_than_all_could_keep() {
    let now = Instant::now();
    let budget = Budget::new(100_000);
    let mut sessions = [0; 10].map(|_| {
        plain_open(now, |options| {
            options.limits.budget = budget.clone();
            options.limits.send_buffer = 10_000;
        })
    });
    for session in &mut sessions {
        fill(session);
        let waiting = session.outgoing().len();
        assert!(waiting > 10_000);
        session.sent(now, waiting);
    }
    assert!(budget.held() <= 25_000, "{}", budget.held());
}

/// It is an equal part of the memory and more, and nothing is in it.
#[test]
fn free_space_does_not_keep_answers_back() {
    let now = Instant::now();
    let budget = Budget::new(10_000);
    let mut sessions = [0; 2].map(|_| {
        plain_open(now, |options| {
            options.limits.budget = budget.clone();
        })
    });
    let long = raw(1, 12, &[0; 6_000]);
    give(&mut sessions[0], now, &long).1.expect("it is dropped");
    hoard(&mut sessions[1], now, 20_000).expect("there is room for a frame");
    assert!(budget.is_exhausted() && !sessions[0].may_answer());
    let retry = sessions[0].poll_timeout().expect("it asks again");
    assert_eq!(sessions[0].handle_timeout(retry), Ok(()));
    assert!(sessions[0].may_answer());
}

/// Nobody came back to what it had asked for when there was memory again.
#[test]
fn those_who_get_no_answers_are_looked_at_again() {
    let now = Instant::now();
    let budget = Budget::new(10_000);
    let mut pair = Pair::new(|options| {
        options.limits.budget = budget.clone();
        options.limits.send_buffer = 10_000;
    });
    pair.drive();
    fill(&mut pair.sides[0]);
    assert!(!pair.sides[0].may_answer());
    // From now on its bytes wait, which is another reason to be looked at.
    assert_eq!(pair.sides[0].handle_timeout(now), Ok(()));
    let retry = pair.sides[0].poll_timeout().expect("it asks again");
    assert_eq!(retry, now + Duration::from_millis(100));
}
