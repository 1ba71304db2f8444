//! Several cores on one connection, and what happens to one of them.

use std::{cell::Cell, rc::Rc, sync::Arc, time::Duration};

use futures_lite::{AsyncReadExt, AsyncWriteExt};
use hypercore_merkle::KeyPair;
use hypercore_storage::{FileName, Memory, testing::Recording};
use hypercore_wire::{Event, Message, Status};

use super::{
    Outcome, connect_cores, good_conditions,
    network::{Cable, Conditions},
    open, open_on, plain,
    remote::{Remote, finish, origin},
    run_end,
};
use crate::{
    Ended, Error, GetOptions, Hypercore, Replication, Role, runtime, runtime::simulated::Runtime,
};

const MOMENT: Duration = Duration::from_secs(1);

/// A connection of `copy` to `writer` that is not live, and how its ends end.
fn replicate_once(
    runtime: &Runtime,
    writer: &Hypercore,
    copy: &Hypercore,
) -> (Cable, [Outcome; 2]) {
    let (cable, [ours, theirs]) = Cable::new(runtime, [good_conditions(); 2]);
    let ends = [
        (writer, Role::Responder, theirs),
        (copy, Role::Initiator, ours),
    ];
    let ends = ends.map(|(core, role, socket)| {
        let end = core.replicate(role, plain(false)).expect("it is open");
        run_end(runtime, end, socket)
    });
    (cable, ends)
}

/// All cores of the connection were let go of: its Close was seen before what it had asked was answered.
#[test]
fn one_that_is_closed_while_another_is_asked_for_too_much() {
    Runtime::run(0, |runtime| {
        let cores = [1, 2].map(|number| origin(runtime, number, 4));
        let mut remote = Remote::new(&cores[0]);
        let ours = Replication::new(Role::Initiator, plain(true));
        let mut ours = ours.expect("there is randomness");
        finish(runtime, async move {
            for core in &cores {
                ours.add(core).expect("it is open");
            }
            let other = remote.session.open(cores[1].key().as_bytes());
            let other = other.expect("there is room");
            remote.open(&mut ours).await;
            let first = std::mem::replace(&mut remote.channel, other);
            remote.request(0..1);
            remote.channel = first;
            remote.request(0..640);
            remote.session.close(other);
            remote.write(&mut ours).await;
            remote.read(&mut ours).await;
            let sent = |message: &&Message| matches!(message, Message::Data(_));
            assert_eq!(remote.heard.iter().filter(sent).count(), 4);
            assert_eq!(cores.map(|core| core.peers().len()), [1, 0]);
            drop(ours);
        });
    });
}

/// All that was asked for was read first, at once.
#[test]
fn one_that_is_closed_with_much_asked_of_it_is_not_read() {
    Runtime::run(0, |runtime| {
        let storage = Recording::new(Memory::new());
        let key_pair = KeyPair::from_seed(&[1; 32]);
        let key = key_pair.public_key();
        let core = open_on(Arc::new(storage.clone()), key, Some(key_pair), false);
        let ours = core.replicate(Role::Initiator, plain(true));
        let mut ours = ours.expect("it is open");
        finish(runtime, async move {
            let blocks = (0..640).map(|_| vec![7; 1 << 10]);
            core.append_batch(blocks).await.expect("memory holds it");
            let mut remote = Remote::new(&core);
            remote.open(&mut ours).await;
            storage.take(FileName::Data);
            // The last question and the Close are looked at together.
            remote.say(&Message::Status(Status {
                uploading: true,
                downloading: true,
            }));
            remote.request(0..640);
            let channel = remote.channel;
            remote.session.close(channel);
            remote.write(&mut ours).await;
            remote.read(&mut ours).await;
            let read = storage.take(FileName::Data).bytes_read;
            assert!(read <= 64 << 10, "{read} bytes for nobody");
            assert!(core.peers().is_empty(), "nobody was told that it is closed");
            drop(ours);
        });
    });
}

/// No connection of a full clone ended while one was silent.
#[test]
fn a_peer_that_tells_nothing_holds_up_no_other() {
    Runtime::run(0, |runtime| {
        let writer = origin(runtime, 1, 4);
        let copy = open(&Memory::new(), writer.key(), None, false);
        let (_silent, [socket, mut theirs]) = Cable::new(runtime, [good_conditions(); 2]);
        let ours = copy.replicate(Role::Initiator, plain(false));
        let ours = ours.expect("it is open");
        runtime.spawn(async move {
            let _ = ours.run(socket).await;
        });
        let remote = Remote::new(&writer);
        runtime.spawn(async move {
            let opening = remote.session.outgoing();
            theirs.write_all(opening).await.expect("it is read");
            let mut buffer = vec![0; 1 << 12];
            while theirs.read(&mut buffer).await.is_ok_and(|count| count > 0) {}
        });
        runtime.run_for(MOMENT);
        assert!(copy.peers()[0].opened);
        let (_cable, ends) = replicate_once(runtime, &writer, &copy);
        runtime.run_for(14 * MOMENT);
        for ended in ends.map(|end| end.take()) {
            assert!(matches!(ended, Some(Ok(Ended::Complete))), "{ended:?}");
        }
        assert!(copy.has(3) && copy.peers().len() == 1);
    });
}

/// It was waited for until somebody polled it.
#[test]
fn a_connection_that_is_not_made_yet_holds_up_no_other() {
    Runtime::run(0, |runtime| {
        let writer = origin(runtime, 1, 4);
        let copy = open(&Memory::new(), writer.key(), None, false);
        let _unpolled = copy.replicate(Role::Initiator, plain(false));
        let (_cable, ends) = replicate_once(runtime, &writer, &copy);
        runtime.run_for(MOMENT);
        let refused = Rc::new(Cell::new(false));
        let (beyond, told) = (copy.clone(), Rc::clone(&refused));
        runtime.spawn(async move {
            let options = GetOptions::default().if_available(true);
            let got = beyond.get_with(4, options).await;
            told.set(matches!(got, Err(Error::NotAvailable)));
        });
        runtime.run_for(14 * MOMENT);
        assert!(refused.get());
        for ended in ends.map(|end| end.take()) {
            assert!(matches!(ended, Some(Ok(Ended::Complete))), "{ended:?}");
        }
    });
}

/// Nobody heard that the other one was not to be waited for any more.
#[test]
fn a_connection_that_downloads_nothing_holds_up_no_other() {
    Runtime::run(0, |runtime| {
        let writer = origin(runtime, 1, 4);
        let copy = open(&Memory::new(), writer.key(), None, false);
        let far = Conditions {
            delay: MOMENT,
            ..good_conditions()
        };
        let ends = [far, good_conditions()].map(|conditions| {
            let (cable, [ours, theirs]) = Cable::new(runtime, [conditions; 2]);
            let [mut us, mut them] = [plain(false), plain(false)];
            if conditions.delay == MOMENT {
                // Nothing is said on it after both have opened the core.
                (us.download, them.download) = (Some(false), Some(true));
            }
            let us = copy.replicate(Role::Initiator, us);
            let them = writer.replicate(Role::Responder, them);
            let (us, them) = (us.expect("it is open"), them.expect("it is open"));
            let ended = run_end(runtime, us, ours);
            runtime.spawn(async move {
                let _ = them.run(theirs).await;
            });
            (cable, ended)
        });
        runtime.run_for(3 * MOMENT);
        assert!(copy.has(3));
        let ended = ends[1].1.take();
        assert!(matches!(ended, Some(Ok(Ended::Complete))), "{ended:?}");
    });
}

/// The remote saw it open, and its requests were never answered.
#[test]
fn one_with_more_extensions_than_the_connection_takes() {
    Runtime::run(0, |runtime| {
        let [named, other] = [1, 2].map(|number| origin(runtime, number, 1));
        let _extensions = ["a", "b"].map(|name| named.register_extension(name));
        let (_cable, [ours, theirs]) = Cable::new(runtime, [good_conditions(); 2]);
        let mut options = plain(false);
        options.limits.extension_names = 2;
        let us = Replication::new(Role::Initiator, options).expect("there is randomness");
        assert!(us.add(&named).is_err());
        us.add(&other).expect("it has no extensions");
        let them = Replication::new(Role::Responder, plain(false));
        let them = them.expect("there is randomness");
        for core in [&named, &other] {
            let copy = open(&Memory::new(), core.key(), None, false);
            them.add(&copy).expect("it is open");
        }
        runtime.spawn(async move {
            let _ = us.run(ours).await;
        });
        let ended = run_end(runtime, them, theirs);
        runtime.run_for(5 * MOMENT);
        assert!(matches!(ended.take(), Some(Ok(_))), "it waits for answers");
    });
}

/// Nobody noticed until the remote said something else.
#[test]
fn one_that_is_added_after_the_remote_has_opened_it() {
    Runtime::run(0, |runtime| {
        let key = KeyPair::from_seed(&[1; 32]).public_key();
        let core = open(&Memory::new(), key, None, false);
        let (_cable, [socket, mut theirs]) = Cable::new(runtime, [good_conditions(); 2]);
        let ours = Replication::new(Role::Initiator, plain(true));
        let ours = ours.expect("there is randomness");
        let handle = ours.handle();
        runtime.spawn(async move {
            let _ = ours.run(socket).await;
        });
        let mut remote = Remote::new(&core);
        let is_asked = Rc::new(Cell::new(false));
        let asked = Rc::clone(&is_asked);
        runtime.spawn(async move {
            let opening = remote.session.outgoing();
            theirs.write_all(opening).await.expect("it is read");
            let mut buffer = vec![0; 1 << 12];
            loop {
                let count = theirs.read(&mut buffer).await.expect("it is well");
                let received = remote.session.receive(runtime::now(), &buffer[..count]);
                received.expect("it is honest");
                while let Some(event) = remote.session.poll_event() {
                    let message = match event {
                        Event::Message { message, .. } => Some(message),
                        _ => None,
                    };
                    asked.set(asked.get() || matches!(message, Some(Message::Want(_))));
                }
            }
        });
        runtime.run_for(3 * MOMENT);
        handle.add(&core).expect("it is open");
        runtime.run_for(MOMENT);
        assert!(core.peers()[0].opened);
        assert!(is_asked.get());
    });
}

/// The connection stayed, for what the remote has opened besides.
#[test]
fn the_last_one_is_closed_and_the_remote_has_more() {
    Runtime::run(0, |runtime| {
        let cores = [1, 2].map(|number| origin(runtime, number, 1));
        let copy = open(&Memory::new(), cores[0].key(), None, false);
        let (_cable, [ours, theirs]) = Cable::new(runtime, [good_conditions(); 2]);
        let [us, them] = [Role::Initiator, Role::Responder]
            .map(|role| Replication::new(role, plain(true)).expect("there is randomness"));
        us.add(&copy).expect("it is open");
        for core in &cores {
            them.add(core).expect("it is open");
        }
        runtime.spawn(async move {
            let _ = them.run(theirs).await;
        });
        let ended = run_end(runtime, us, ours);
        runtime.run_for(MOMENT);
        assert!(copy.has(0));
        runtime.spawn(async move { copy.close().await.expect("memory holds it") });
        runtime.run_for(5 * MOMENT);
        let ended = ended.take();
        assert!(matches!(ended, Some(Ok(Ended::CoreClosed))), "{ended:?}");
    });
}

/// It said that everything was exchanged.
#[test]
fn one_that_the_remote_is_not_let_in_to() {
    Runtime::run(0, |runtime| {
        let origin = origin(runtime, 1, 1);
        let copy = open(&Memory::new(), origin.key(), None, false);
        let (_cable, [ours, theirs]) = Cable::new(runtime, [good_conditions(); 2]);
        let mut options = plain(false);
        options.noise = true;
        options = options.on_core_authenticate(|_, _| false);
        let us = copy
            .replicate(Role::Initiator, options)
            .expect("it is open");
        let mut options = plain(false);
        options.noise = true;
        let them = origin
            .replicate(Role::Responder, options)
            .expect("it is open");
        runtime.spawn(async move {
            let _ = them.run(theirs).await;
        });
        let ended = run_end(runtime, us, ours);
        runtime.run_for(5 * MOMENT);
        let ended = ended.take();
        assert!(matches!(ended, Some(Ok(Ended::Refused))), "{ended:?}");
    });
}

/// Each of them waits while the others are answered, and the first took that for silence.
#[test]
fn many_on_a_slow_connection() {
    Runtime::run(0, |runtime| {
        let originals: Vec<_> = (1..=40).map(|number| origin(runtime, number, 4)).collect();
        let copies = originals
            .iter()
            .map(|core| open(&Memory::new(), core.key(), None, false));
        let copies: Vec<_> = copies.collect();
        let slow = Conditions {
            bytes_per_second: 100_000,
            ..good_conditions()
        };
        let sides = [
            (Role::Initiator, &copies[..]),
            (Role::Responder, &originals[..]),
        ];
        let _cable = connect_cores(runtime, sides, slow);
        runtime.run_for(80 * MOMENT);
        let least = copies.iter().map(|core| core.downloaded(..)).min();
        assert!(least > Some(1), "{least:?}");
    });
}

/// The peer of the closed one was returned, and the new one never exchanged.
#[test]
fn one_that_is_opened_again_is_added_before_its_end_is_noticed() {
    Runtime::run(0, |runtime| {
        let storage = Memory::new();
        let key_pair = KeyPair::from_seed(&[1; 32]);
        let key = key_pair.public_key();
        let closed = open(&storage, key, Some(key_pair), false);
        let mut remote = Remote::new(&closed);
        let ours = closed.replicate(Role::Initiator, plain(true));
        let mut ours = ours.expect("it is open");
        let handle = ours.handle();
        finish(runtime, async move {
            closed.append("a").await.expect("memory holds it");
            remote.open(&mut ours).await;
            closed.close().await.expect("memory holds it");
            let core = open(&storage, key, None, false);
            let peer = handle.add(&core).expect("the other is closed");
            assert_eq!(core.peers()[0].id, peer);
            remote.read(&mut ours).await;
            let channel = remote.session.open(key.as_bytes());
            remote.channel = channel.expect("there is room");
            remote.write(&mut ours).await;
            remote.request(0..1);
            remote.write(&mut ours).await;
            assert_eq!(remote.next_block(&mut ours).await, remote.channel);
            assert!(core.peers()[0].opened && handle.remove(&core));
            drop(ours);
        });
    });
}

/// The second was said to be exchanged, and was not.
#[test]
fn two_with_one_key() {
    Runtime::run(0, |runtime| {
        let core = origin(runtime, 1, 1);
        let other = open(&Memory::new(), core.key(), None, false);
        let ours = core.replicate(Role::Initiator, plain(true));
        let ours = ours.expect("it is open");
        let peer = ours.add(&core).expect("it is the same");
        assert_eq!(core.peers()[0].id, peer);
        let error = ours.add(&other).expect_err("one is exchanged");
        assert!(
            matches!(error, Error::AlreadyReplicated(key) if key == core.key()),
            "{error:?}"
        );
        assert!(!error.is_peer_fault() && other.peers().is_empty());
        let handle = ours.handle();
        assert!(!handle.remove(&other) && handle.remove(&core));
        ours.add(&other).expect("the other was taken off");
    });
}
