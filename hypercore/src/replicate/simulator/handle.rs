//! What the handle of a connection does while the remote does something else.

use std::time::Duration;

use futures_lite::future;
use hypercore_wire::{Have, Message};

use super::{
    good_conditions,
    network::Cable,
    plain,
    remote::{Remote, finish, origin},
    run_end,
};
use crate::{
    Ended, Replication, Role,
    runtime::simulated::{self, Runtime},
};

const MOMENT: Duration = Duration::from_secs(1);

/// It was polled in a busy loop, and until it was taken for dead.
#[test]
fn one_who_does_not_read_while_the_connection_is_closed() {
    Runtime::run(0, |runtime| {
        let core = origin(runtime, 1, 40);
        let mut conditions = [good_conditions(); 2];
        conditions[0].buffer = 1 << 12;
        let (_cable, [socket, mut theirs]) = Cable::new(runtime, conditions);
        let ours = core
            .replicate(Role::Initiator, plain(true))
            .expect("it is open");
        let handle = ours.handle();
        let ended = run_end(runtime, ours, socket);
        let mut remote = Remote::new(&core);
        runtime.spawn(async move {
            remote.open_over(&mut theirs).await;
            remote.request(0..40);
            remote.write_over(&mut theirs).await;
            future::pending::<()>().await;
            drop(theirs);
        });
        runtime.run_for(4 * MOMENT);
        assert!(core.stats().uploaded_blocks > 5);
        let polls = runtime.polls();
        handle.close();
        // The time for the last answer, and that to close the transport.
        runtime.run_for(5 * MOMENT);
        let polls = runtime.polls() - polls;
        let ended = ended.take();
        assert!(matches!(ended, Some(Ok(Ended::Closed))), "{ended:?}");
        assert!(polls < 50, "{polls} polls");
    });
}

/// That the remote had opened it was heard afterwards, when it was refused and the core closed.
#[test]
fn a_core_is_added_before_the_remote_is_heard_to_open_it() {
    Runtime::run(0, |runtime| {
        let cores = [1, 2].map(|number| origin(runtime, number, 4));
        let mut remote = Remote::new(&cores[0]);
        let ours = Replication::new(Role::Initiator, plain(false));
        let mut ours = ours.expect("there is randomness");
        finish(runtime, async move {
            ours.add(&cores[0]).expect("it is open");
            remote.open(&mut ours).await;
            // Frames are looked at 64 at a time: the one that is too much together with the Open.
            remote.say(&Message::Have(Have::block(0)));
            remote.request(0..700);
            let other = remote.session.open(cores[1].key().as_bytes());
            let other = other.expect("there is room");
            remote.write(&mut ours).await;
            ours.add(&cores[1]).expect("it is open");
            for _ in 0..8 {
                simulated::sleep(MOMENT).await;
                remote.read(&mut ours).await;
            }
            assert!(remote.session.is_open(other));
            remote.channel = other;
            remote.request(0..1);
            remote.write(&mut ours).await;
            assert_eq!(remote.next_block(&mut ours).await, other);
            assert!(cores.iter().all(|core| core.peers()[0].opened));
            drop(ours);
        });
    });
}

/// What it had said about the other core stayed unheard.
#[test]
fn a_core_of_which_too_much_is_asked_is_taken_off() {
    Runtime::run(0, |runtime| {
        let cores = [1, 2].map(|number| origin(runtime, number, 4));
        let mut remote = Remote::new(&cores[0]);
        let ours = Replication::new(Role::Initiator, plain(true));
        let mut ours = ours.expect("there is randomness");
        let handle = ours.handle();
        finish(runtime, async move {
            for core in &cores {
                ours.add(core).expect("it is open");
            }
            let other = remote.session.open(cores[1].key().as_bytes());
            let other = other.expect("there is room");
            remote.open(&mut ours).await;
            remote.request(0..700);
            remote.channel = other;
            remote.request(0..1);
            remote.write(&mut ours).await;
            assert!(handle.remove(&cores[0]));
            assert_eq!(remote.next_block(&mut ours).await, other);
            drop(ours);
        });
    });
}
