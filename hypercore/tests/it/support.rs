//! What several tests need.

use std::time::Duration;

use async_std::{
    net::{TcpListener, TcpStream},
    task,
};
use hypercore::{Hypercore, ReplicateOptions, Role};

/// Runs a test and fails it when it hangs.
pub(crate) fn run(test: impl Future<Output = ()>) {
    task::block_on(async {
        async_std::future::timeout(Duration::from_secs(60), test)
            .await
            .expect("the test hangs");
    });
}

/// The two ends of a TCP connection on this machine.
pub(crate) async fn tcp_pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (client, server) =
        futures_lite::future::zip(TcpStream::connect(address), listener.accept()).await;
    (client.unwrap(), server.unwrap().0)
}

/// Connects two cores; the task ends with what both ends say.
pub(crate) async fn connect(
    initiator: &Hypercore,
    initiator_options: ReplicateOptions,
    responder: &Hypercore,
    responder_options: ReplicateOptions,
) -> task::JoinHandle<(Result<(), hypercore::Error>, Result<(), hypercore::Error>)> {
    let (client, server) = tcp_pair().await;
    let client = initiator
        .replicate(Role::Initiator, initiator_options)
        .unwrap()
        .run(client);
    let server = responder
        .replicate(Role::Responder, responder_options)
        .unwrap()
        .run(server);
    task::spawn(futures_lite::future::zip(client, server))
}

/// A writable core in memory with `count` small blocks.
pub(crate) async fn writer(count: usize) -> Hypercore {
    let core = Hypercore::options().open_memory().await.unwrap();
    core.append_batch((0..count).map(|index| format!("block {index}")))
        .await
        .unwrap();
    core
}

/// An empty clone in memory.
pub(crate) async fn clone_of(core: &Hypercore, sparse: bool) -> Hypercore {
    Hypercore::options()
        .key(core.key())
        .sparse(sparse)
        .open_memory()
        .await
        .unwrap()
}
