//! What the command line does not show: a core of ours in this process, connected to one of Node's.

use std::future::Future;
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::pin::pin;

use async_io::{Async, Timer};
use futures_lite::{StreamExt, future};
use hypercore::{DownloadOptions, Event, Hypercore, OpenOptions, ReplicateOptions, Role};

use crate::blocks::{Spec, block};
use crate::peers::{Seeder, Side, check, check_whole, make};
use crate::stage::{PATIENCE, Process, Stage};

/// Runs a task to its end, which must not take long.
pub(crate) fn run<T>(task: impl Future<Output = T>) -> T {
    let timeout = async {
        Timer::after(PATIENCE).await;
        panic!("waited {PATIENCE:?} for our own core");
    };
    future::block_on(future::or(task, timeout))
}

/// Runs a task for as long as the connection lives, which must be longer.
async fn while_connected<T>(
    connection: impl Future<Output = Result<hypercore::Ended, hypercore::Error>>,
    task: impl Future<Output = T>,
) -> T {
    let ended = async { panic!("the connection ended: {:?}", connection.await) };
    future::or(task, ended).await
}

/// A sparse core in memory for the log of a seeder.
async fn reader(seeder: &Seeder) -> Hypercore {
    let key: [u8; 32] = hex::decode(&seeder.key)
        .expect("hex")
        .try_into()
        .expect("32 bytes");
    OpenOptions::new()
        .key(key)
        .sparse(true)
        .open_memory()
        .await
        .expect("memory")
}

fn dial(seeder: &Seeder) -> Async<TcpStream> {
    let stream = TcpStream::connect(&seeder.address).expect("the seeder listens");
    Async::new(stream).expect("a socket")
}

/// Has Node clone from us: its process, and our end of the connection.
fn dialled(stage: &Stage, key: &str, dir: &Path, flags: &[&str]) -> (Process, Async<TcpStream>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("a bound socket").to_string();
    let args = args![key, dir, "--connect", &address].into_iter();
    let process = stage.node("clone.js", args.chain(flags.iter().map(Into::into)));
    let (stream, _) = listener.accept().expect("Node connects");
    (process, Async::new(stream).expect("a socket"))
}

fn key_of(core: &Hypercore) -> String {
    hex::encode(core.key().as_bytes())
}

/// Both may start the handshake, whoever connected.
#[test]
fn any_role_on_any_end() {
    let spec = Spec("5*20");
    let stage = Stage::new();
    let origin = make(&stage, "origin", spec);
    for (role, flags) in [
        (Role::Initiator, &[][..]),
        (Role::Responder, &["--initiator"][..]),
    ] {
        let seeder = Seeder::new(&stage, Side::Node, &origin, flags);
        run(async {
            let core = reader(&seeder).await;
            let connection = core.replicate_over(dial(&seeder), role, ReplicateOptions::live());
            let bytes = while_connected(connection, core.get(4))
                .await
                .expect("Node has the block");
            assert_eq!(bytes, block(4, 20));
        });
        seeder.stop();
    }

    for (role, flag) in [
        (Role::Responder, &[][..]),
        (Role::Initiator, &["--responder"][..]),
    ] {
        let copy = stage.path(&format!("{role:?}"));
        run(async {
            let core = Hypercore::open(&origin).await.expect("a log of Node's");
            let (node, socket) = dialled(&stage, &key_of(&core), &copy, flag);
            // Node hangs up once it has all.
            let _ = core
                .replicate_over(socket, role, ReplicateOptions::live())
                .await;
            assert_eq!(node.result()["downloaded"], spec.length());
            core.close().await.expect("nothing left to write");
        });
        check_whole(&stage, &copy, spec);
    }
}

/// A sparse core asks for blocks when they are wanted, in any order, and only for those.
#[test]
fn we_read_on_demand() {
    let spec = Spec("9000*20,1*0,1*2097152");
    let stage = Stage::new();
    let seeder = Seeder::new(&stage, Side::Node, &make(&stage, "origin", spec), &[]);
    let wanted = [
        (9001, 2_097_152),
        (0, 20),
        (9000, 0),
        (8191, 20),
        (8192, 20),
        (4000, 20),
    ];
    run(async {
        let core = reader(&seeder).await;
        let connection =
            core.replicate_over(dial(&seeder), Role::Initiator, ReplicateOptions::live());
        while_connected(connection, async {
            assert_eq!(core.update().await.expect("Node has a length"), 9002);
            assert_eq!(core.byte_length(), spec.byte_length() as u64);
            for (index, size) in wanted {
                let bytes = core.get(index).await.expect("Node has the block");
                assert!(bytes == block(index as usize, size), "block {index}");
            }
            assert_eq!(core.downloaded(..), wanted.len() as u64);
        })
        .await;
    });
    let uploads = seeder
        .stop()
        .iter()
        .filter(|event| event["event"] == "upload")
        .count();
    assert_eq!(uploads, wanted.len());
}

/// We find a byte of Node's log without having the log.
#[test]
fn we_seek_in_the_log_of_node() {
    let stage = Stage::new();
    let seeder = Seeder::new(
        &stage,
        Side::Node,
        &make(&stage, "origin", Spec("100*7,1*0,900*13")),
        &[],
    );
    for (byte, index, offset) in [
        (0, 0, 0),
        (699, 99, 6),
        (700, 101, 0),
        (6_000, 508, 9),
        (12_399, 1000, 12),
    ] {
        run(async {
            let core = reader(&seeder).await;
            let connection =
                core.replicate_over(dial(&seeder), Role::Initiator, ReplicateOptions::live());
            while_connected(connection, async {
                core.update().await.expect("Node has a length");
                let found = core.seek(byte).await.expect("Node can find it");
                assert_eq!((found.index, found.offset), (index, offset), "byte {byte}");
            })
            .await;
        });
    }
}

/// Node proves blocks to us without sending them.
#[test]
fn we_download_the_hashes_of_node() {
    let spec = Spec("100*7,1*0,30*13");
    let stage = Stage::new();
    let origin = make(&stage, "origin", spec);
    let seeder = Seeder::new(&stage, Side::Node, &origin, &[]);
    run(async {
        let core = reader(&seeder).await;
        let connection =
            core.replicate_over(dial(&seeder), Role::Initiator, ReplicateOptions::live());
        let mut options = DownloadOptions::default();
        options.hash = true;
        let proofs = while_connected(connection, core.download_with(90..131, options)).await;
        proofs.expect("Node has the proofs");
        assert_eq!((core.length(), core.downloaded(..)), (131, 0));
    });
    let is_upload = |event: &serde_json::Value| event["event"] == "upload";
    assert!(!seeder.stop().iter().any(is_upload));
}

/// Node acknowledges what it stores, when we ask for that.
#[test]
fn node_acknowledges() {
    let spec = Spec("20*10");
    let stage = Stage::new();
    let origin = make(&stage, "origin", spec);
    run(async {
        let core = Hypercore::open(&origin).await.expect("a log of Node's");
        let events = core.events();
        let (node, socket) = dialled(&stage, &key_of(&core), &stage.path("copy"), &["--live"]);
        let mut options = ReplicateOptions::live();
        options.ack = true;
        let connection = core.replicate_over(socket, Role::Responder, options);
        let mut acks = while_connected(pin!(connection), async {
            let acks = events.filter_map(|event| match event {
                Event::Ack { index, .. } => Some(index),
                _ => None,
            });
            acks.take(spec.length()).collect::<Vec<_>>().await
        })
        .await;
        acks.sort_unstable();
        assert_eq!(acks, (0..20).collect::<Vec<_>>());
        node.terminate();
        node.output();
    });
}

/// A connection that is not live ends by itself, on both sides, once the reader has everything.
#[test]
fn a_finite_connection_ends() {
    let spec = Spec("50*10");
    let stage = Stage::new();
    let origin = make(&stage, "origin", spec);
    let copy = stage.path("copy");
    run(async {
        let core = Hypercore::open(&origin).await.expect("a log of Node's");
        let (node, socket) = dialled(&stage, &key_of(&core), &copy, &["--finite"]);
        let ended = core
            .replicate_over(socket, Role::Responder, ReplicateOptions::default())
            .await;
        ended.expect("an end without an error");
        assert_eq!(node.event("peer-close")["reason"], serde_json::Value::Null);
        assert_eq!(node.result()["downloaded"], spec.length());
    });
    check_whole(&stage, &copy, spec);
}

/// Node asks us only for what we still have.
#[test]
fn node_learns_what_we_cleared() {
    let spec = Spec("30*10");
    let stage = Stage::new();
    let origin = make(&stage, "origin", spec);
    let copy = stage.path("copy");
    run(async {
        let core = Hypercore::open(&origin).await.expect("a log of Node's");
        core.clear(10..20).await.expect("blocks that are there");
        let (node, socket) = dialled(&stage, &key_of(&core), &copy, &["--live"]);
        let connection = core.replicate_over(socket, Role::Responder, ReplicateOptions::live());
        let downloads = blocking::unblock(move || {
            for _ in 0..20 {
                node.event("download");
            }
            node
        });
        let node = while_connected(pin!(connection), downloads).await;
        node.terminate();
        node.output();
        core.close().await.expect("nothing left to write");
    });
    assert_eq!(check(&stage, &copy, spec)["valid"], 20);
}
