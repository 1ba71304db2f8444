//! What several tests need.

use std::{path::Path, pin::Pin, time::Duration};

use async_std::{
    net::{TcpListener, TcpStream},
    task::{self, JoinHandle},
};
use futures_lite::{StreamExt, future::zip};
use hypercore::{
    Ended, Error, Event, Events, GetOptions, Hypercore, KeyPair, ReplicateOptions, Role,
    SeekOptions, UpdateOptions,
    merkle::{Block, Node, NodeIndex, Proof, Roots},
};

/// What both ends of a connection say when it is over.
pub(crate) type Ends = (Result<Ended, Error>, Result<Ended, Error>);

/// Runs a test and fails it when it hangs.
pub(crate) fn run<T>(test: impl Future<Output = T>) -> T {
    // Without optimisation every layer below moves the future it is given, and this one is large.
    let test = Box::pin(test);
    task::block_on(async {
        async_std::future::timeout(Duration::from_secs(60), test)
            .await
            .expect("the test hangs")
    })
}

/// What `future` gives; fails when it is not ready soon.
#[track_caller]
pub(crate) fn soon<T>(what: &str, future: impl Future<Output = T>) -> impl Future<Output = T> {
    let what = format!(
        "waited too long for {what} ({})",
        std::panic::Location::caller()
    );
    async move {
        async_std::future::timeout(Duration::from_secs(10), future)
            .await
            .unwrap_or_else(|_| panic!("{what}"))
    }
}

/// Looks until `is_so`, for what a disk or a thread does by itself.
pub(crate) async fn eventually(what: &str, is_so: impl AsyncFn() -> bool) {
    let looking = async {
        while !is_so().await {
            task::sleep(Duration::from_millis(20)).await;
        }
    };
    soon(what, looking).await;
}

/// Polls `future` once, which must not be ready.
pub(crate) async fn start<T: std::fmt::Debug>(future: Pin<&mut impl Future<Output = T>>) {
    let ready = futures_lite::future::poll_once(future).await;
    assert!(ready.is_none(), "{ready:?} came too early");
}

/// The two ends of a TCP connection on this machine.
pub(crate) async fn tcp_pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (client, server) = zip(TcpStream::connect(address), listener.accept()).await;
    (client.unwrap(), server.unwrap().0)
}

/// Connects two cores; the task ends with what both ends say.
pub(crate) async fn connect(
    initiator: &Hypercore,
    initiator_options: ReplicateOptions,
    responder: &Hypercore,
    responder_options: ReplicateOptions,
) -> JoinHandle<Ends> {
    let (client, server) = tcp_pair().await;
    let client = initiator
        .replicate(Role::Initiator, initiator_options)
        .unwrap()
        .run(client);
    let server = responder
        .replicate(Role::Responder, responder_options)
        .unwrap()
        .run(server);
    task::spawn(zip(client, server))
}

/// Stays connected and downloads, also for a writer.
pub(crate) fn live_download() -> ReplicateOptions {
    let mut options = ReplicateOptions::live();
    options.download = Some(true);
    options
}

/// Connects two cores until the task is cancelled.
pub(crate) async fn connect_live(a: &Hypercore, b: &Hypercore) -> JoinHandle<Ends> {
    connect(a, ReplicateOptions::live(), b, ReplicateOptions::live()).await
}

/// A writer can sign any length and prove one of its first two blocks, which are `x`.
pub(crate) fn proof_of(block: u64, key_pair: &KeyPair, length_bits: u32) -> Proof {
    let hash = *Block::hash("x".into()).leaf_hash();
    let node = |index, hash| Node {
        index,
        size: 1,
        hash,
    };
    let mut top = node(NodeIndex::leaf(block).unwrap(), hash);
    let mut nodes = Vec::new();
    for depth in 0..length_bits {
        let hash = if depth == 0 { hash } else { [7; 32] };
        let sibling = node(top.index.sibling(), hash);
        nodes.push(sibling);
        top = Node::parent(&top, &sibling).unwrap();
    }
    let roots = Roots::from_nodes(1 << length_bits, vec![top]).unwrap();
    Proof {
        nodes,
        signature: Some(key_pair.sign(&roots.head())),
    }
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

/// A clone in memory that has `blocks` of `core` and nothing else.
pub(crate) async fn clone_with(
    core: &Hypercore,
    blocks: impl IntoIterator<Item = u64>,
) -> Hypercore {
    let clone = clone_of(core, true).await;
    let connection = connect_live(&clone, core).await;
    for index in blocks {
        clone.get(index).await.unwrap();
    }
    connection.cancel().await;
    disconnected(&clone).await;
    disconnected(core).await;
    clone
}

/// Fails unless `core` has this many blocks, those of a [`writer`], and no other.
pub(crate) async fn all_are_here(core: &Hypercore, count: u64) {
    for index in 0..count {
        assert_eq!(core.get(index).await.unwrap(), format!("block {index}"));
    }
    assert_eq!(core.audit().await.unwrap().valid, count);
}

/// Waits until `core` has no peers.
pub(crate) async fn disconnected(core: &Hypercore) {
    while !core.peers().is_empty() {
        task::yield_now().await;
    }
}

/// Waits until `core` has `count` peers that know its key.
pub(crate) async fn connected(core: &Hypercore, count: usize) {
    let opened = async {
        while core.peers().iter().filter(|peer| peer.opened).count() < count {
            task::yield_now().await;
        }
    };
    soon("peers", opened).await;
}

/// The next event that `wanted` picks.
pub(crate) async fn event(events: &mut Events, wanted: impl Fn(&Event) -> bool) -> Event {
    let event = async {
        loop {
            let event = events.next().await.expect("the core is open");
            if wanted(&event) {
                return event;
            }
        }
    };
    soon("an event", event).await
}

/// The events that are there already.
pub(crate) async fn drain(events: &mut Events) -> Vec<Event> {
    let mut drained = Vec::new();
    while let Some(Some(event)) = futures_lite::future::poll_once(events.next()).await {
        drained.push(event);
    }
    drained
}

/// The key pair that the vectors made from `label`: its bytes and zeros are the seed.
pub(crate) fn key_pair(label: &str) -> KeyPair {
    let mut seed = [0; 32];
    seed[..label.len()].copy_from_slice(label.as_bytes());
    KeyPair::from_seed(&seed)
}

/// The 25 directories that Node wrote, which the crate `hypercore-storage` keeps for its own tests.
pub(crate) fn directories() -> &'static Path {
    Path::new(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../storage/tests/vectors"
    ))
}

/// A copy of a directory that Node wrote.
pub(crate) fn copy_of(name: &str) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    for entry in directories().join(name).read_dir().unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), copy.path().join(entry.file_name())).unwrap();
    }
    copy
}

/// The names and contents of the files in a directory.
pub(crate) fn contents(directory: &Path) -> std::collections::BTreeMap<String, Vec<u8>> {
    let files = directory.read_dir().unwrap().map(|entry| {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        (name, std::fs::read(entry.path()).unwrap())
    });
    files.collect()
}

/// Only from peers that are connected.
pub(crate) fn get_if_available() -> GetOptions {
    let mut options = GetOptions::default();
    options.if_available = true;
    options
}

/// Only what is known here.
pub(crate) fn seek_locally() -> SeekOptions {
    let mut options = SeekOptions::default();
    options.wait = false;
    options
}

/// Only from peers that are connected.
pub(crate) fn update_if_available() -> UpdateOptions {
    let mut options = UpdateOptions::default();
    options.if_available = true;
    options
}

/// The defaults, changed by `change`.
pub(crate) fn options(change: impl FnOnce(&mut ReplicateOptions)) -> ReplicateOptions {
    let mut options = ReplicateOptions::default();
    change(&mut options);
    options
}
