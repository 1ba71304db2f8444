//! A remote that asks for much and reads nothing, which costs nobody any time.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use futures_lite::{
    AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, future,
    io::{self, Cursor},
};
use hypercore_bitfield::rle;
use hypercore_wire::{Have, Message};

use super::{
    good_conditions,
    network::Cable,
    plain,
    remote::{Remote, finish, origin},
};
use crate::{
    GetOptions, PeerLimits, ReplicateOptions, Role, runtime,
    runtime::simulated::{self, Runtime},
};

/// More Wants than are answered at once, and than wait before nothing more is read.
const MANY_WANTS: u64 = 700;

fn options() -> ReplicateOptions {
    let mut options = plain(true);
    options.download = Some(true);
    options
}

/// Its next bytes have to wait, and meanwhile what it was asked for becomes late.
#[test]
fn one_who_writes_while_a_request_becomes_late() {
    Runtime::run(0, |runtime| {
        let core = origin(runtime, 1, 1);
        let mut remote = Remote::new(&core);
        let get = core.clone();
        runtime.spawn(async move {
            let _ = get.get_with(5, GetOptions::default()).await;
        });
        let mut ours = core
            .replicate(Role::Initiator, options())
            .expect("it is open");
        finish(runtime, async move {
            remote.open(&mut ours).await;
            remote.say(&Message::Have(Have::block(5)));
            remote.want(0..MANY_WANTS);
            remote.write(&mut ours).await;
            remote.read(&mut ours).await;
            assert!(core.peers()[0].in_flight > 0);
            // More than 640 wait: the next bytes are taken when fewer do.
            remote.want(0..1);
            remote.write(&mut ours).await;
            core.close().await.expect("memory holds it");
        });
    });
}

/// Its next bytes have to wait, and its Wants too, for it to read the blocks.
#[test]
fn one_who_writes_and_does_not_read() {
    Runtime::run(0, |runtime| {
        let core = origin(runtime, 1, 40);
        let mut remote = Remote::new(&core);
        let mut ours = core
            .replicate(Role::Initiator, options())
            .expect("it is open");
        finish(runtime, async move {
            remote.open(&mut ours).await;
            remote.request(0..40);
            remote.want(0..MANY_WANTS);
            remote.write(&mut ours).await;
            // Byte by byte, until our answers fill the buffer.
            for _ in 0..100 {
                remote.read_byte(&mut ours).await;
            }
            remote.want(0..1);
            let written = runtime::timeout(Duration::from_secs(8), remote.write(&mut ours)).await;
            assert!(written.is_none(), "it is read whatever it asks for");
            let read = remote.read(&mut ours).await;
            assert!(read > 40 << 16, "{read} bytes");
            remote.write(&mut ours).await;
            core.close().await.expect("memory holds it");
        });
    });
}

/// A Want whose time had come was polled in a busy loop.
#[test]
fn one_who_does_not_read_and_wants_to_hear() {
    Runtime::run(0, |runtime| {
        let core = origin(runtime, 1, 40);
        let mut conditions = [good_conditions(); 2];
        conditions[0].buffer = 1 << 12;
        let (_cable, [socket, mut theirs]) = Cable::new(runtime, conditions);
        let ours = core
            .replicate(Role::Initiator, options())
            .expect("it is open");
        runtime.spawn(async move {
            let _ = ours.run(socket).await;
        });
        let mut remote = Remote::new(&core);
        runtime.spawn(async move {
            remote.open_over(&mut theirs).await;
            remote.request(0..40);
            remote.want(0..40);
            remote.write_over(&mut theirs).await;
            future::pending::<()>().await;
            drop(theirs);
        });
        runtime.run_for(Duration::from_secs(1));
        let polls = runtime.polls();
        runtime.run_for(Duration::from_secs(8));
        let polls = runtime.polls() - polls;
        assert!(core.stats().uploaded_blocks > 10);
        assert!(polls < 50, "{polls} polls");
    });
}

/// Nobody polls our side either, as its halves wait for a socket, and what is new was kept for it without
/// an end.
#[test]
fn one_whose_connection_stands_still() {
    const MOST: usize = 1000;
    Runtime::run(0, |runtime| {
        let core = origin(runtime, 1, 1);
        let mut remote = Remote::new(&core);
        let limits = PeerLimits::default().unsent_news(MOST);
        let options = plain(true).peer_limits(limits);
        let mut ours = core
            .replicate(Role::Initiator, options)
            .expect("it is open");
        finish(runtime, async move {
            remote.open(&mut ours).await;
            remote.want(0..1);
            remote.write(&mut ours).await;
            remote.read(&mut ours).await;
            let id = core.peers()[0].id;
            {
                let mut shared = core.shared().lock();
                for index in 0..2 * MOST as u64 {
                    let block = 2 * index..2 * index + 1;
                    shared.replicator.blocks_stored(block, None);
                }
                let peer = shared.replicator.peer(id).expect("it is open");
                assert!(peer.outbox.len() <= MOST);
            }
            // What was said before is read first.
            let error = loop {
                if let Err(error) = ours.read(&mut [0; 1 << 12]).await {
                    break error;
                }
            };
            assert!(error.to_string().contains("wait to be sent"), "{error}");
            core.close().await.expect("memory holds it");
        });
    });
}

/// Who writes may have it all in one piece, and is not to know how much is taken at once.
#[test]
fn one_who_writes_much_at_once() {
    Runtime::run(0, |runtime| {
        let core = origin(runtime, 1, 1);
        let mut remote = Remote::new(&core);
        let mut ours = core
            .replicate(Role::Initiator, plain(true))
            .expect("it is open");
        finish(runtime, async move {
            remote.open(&mut ours).await;
            let bitfield = Some(rle::encode(&[0x55; 1024]).into());
            let have = Message::Have(Have {
                length: 8192,
                bitfield,
                ..Have::block(0)
            });
            while remote.session.buffered() < 10 << 20 {
                remote.say(&have);
            }
            remote.say(&Message::Have(Have::block(9999)));
            remote.write(&mut ours).await;
            assert_eq!(core.peers()[0].remote_length, 10_000);
            core.close().await.expect("memory holds it");
        });
    });
}

/// Bytes that are all there at once.
struct Flood(Cursor<Vec<u8>>);

impl AsyncRead for Flood {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        match Pin::new(&mut self.0).poll_read(cx, buffer) {
            Poll::Ready(Ok(0)) => Poll::Pending,
            read => read,
        }
    }
}

impl AsyncWrite for Flood {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// What was read before it was looked at was more than may wait, where frames are short.
#[test]
fn one_whose_bytes_are_all_there_at_once() {
    Runtime::run(0, |runtime| {
        let core = origin(runtime, 1, 1);
        let mut remote = Remote::new(&core);
        let mut flood = remote.session.outgoing().to_vec();
        let said = flood.len();
        remote.session.sent(runtime::now(), said);
        let mut helper = core
            .replicate(Role::Initiator, plain(true))
            .expect("it is open");
        let mut options = plain(true);
        options.limits.frame = 64 << 10;
        let ours = core
            .replicate(Role::Initiator, options)
            .expect("it is open");
        finish(runtime, async move {
            // The remote hears that the core is open from somebody else.
            remote.read(&mut helper).await;
            while remote.session.buffered() < 2 << 20 {
                remote.say(&Message::Have(Have::block(7)));
            }
            remote.say(&Message::Have(Have::block(9999)));
            flood.extend_from_slice(remote.session.outgoing());
            drop(helper);
            let run = ours.run(Flood(Cursor::new(flood)));
            let ended = runtime::timeout(Duration::from_secs(1), run).await;
            assert!(ended.is_none(), "{ended:?}");
        });
    });
}

/// All that it asked came whole, though nobody has come to it yet.
#[test]
fn one_who_asks_much_and_hangs_up() {
    Runtime::run(0, |runtime| {
        let core = origin(runtime, 1, 1);
        let mut remote = Remote::new(&core);
        let mut ours = core
            .replicate(Role::Initiator, plain(true))
            .expect("it is open");
        finish(runtime, async move {
            remote.open(&mut ours).await;
            remote.want(0..MANY_WANTS + 200);
            remote.write(&mut ours).await;
            ours.close().await.expect("no message was cut short");
            core.close().await.expect("memory holds it");
        });
    });
}

/// Nothing ended it: time passed only for whoever was to read.
#[test]
fn one_who_sends_and_never_reads() {
    Runtime::run(0, |runtime| {
        let core = origin(runtime, 1, 40);
        let mut remote = Remote::new(&core);
        let mut ours = core
            .replicate(Role::Initiator, options())
            .expect("it is open");
        finish(runtime, async move {
            remote.open(&mut ours).await;
            remote.request(0..40);
            remote.write(&mut ours).await;
            remote.read_byte(&mut ours).await;
            for _ in 0..6 {
                ours.write_all(&[0]).await.expect("it may read yet");
                simulated::sleep(Duration::from_secs(11)).await;
            }
            ours.write_all(&[0]).await.expect_err("it had a minute");
        });
    });
}
