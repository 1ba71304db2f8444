//! Whole nodes on a network that is made of nothing but a seed.
//!
//! A node is a [`Hypercore`] with its storage and its connections, all of it the code that users
//! run: [`Replication::run`](crate::Replication::run) over the sockets of [`network`], on the
//! virtual time of [`simulated`](crate::runtime::simulated). A schedule has two to thirty nodes and
//! a time of faults, after which the network is whole again. Then three things must hold:
//!
//! * **Safety.** No node ever gives out a byte that the writer has not written, and every block a
//!   node claims to have is there.
//! * **Fairness.** A connection between honest nodes that nothing happened to does not fail.
//! * **Progress.** Within a minute every node that wants everything has everything, and every
//!   request has its answer.
//!
//! ```sh
//! SIMULATOR_SEEDS=20000 cargo test -p hypercore --lib simulator   # more schedules
//! SIMULATOR_SEED=17 cargo test -p hypercore --lib simulator       # one of them again
//! ```

mod contract;
mod cores;
mod fairness;
mod handle;
mod known;
mod lagging;
mod liar;
mod load;
mod order;
mod regions;
mod remote;
mod schedules;
mod speed;
mod unread;
mod waits;

use std::{cell::RefCell, fmt::Write, io, ops::Range, rc::Rc, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_lite::future;
use hypercore_merkle::{KeyPair, PublicKey};
use hypercore_storage::{FileName, Memory, RandomAccess, Storage};

use crate::{
    Durability, Ended, Error, GetOptions, Hypercore, ReplicateOptions, Replication, Role,
    SeekOptions, UpdateOptions,
    log::{Existing, Log, Setup},
    runtime::simulated::{
        Runtime, TaskId,
        network::{self, Cable, Conditions, Socket},
    },
    shared::Shared,
    signer::Author,
};

/// How long the network has, once it is whole.
const PATIENCE: Duration = Duration::from_secs(60);

/// Nodes, what connects them, and what they wait for.
struct World {
    runtime: Runtime,
    seed: u64,
    key: PublicKey,
    /// The first is the writer.
    nodes: Vec<Node>,
    links: Vec<Link>,
    appends: async_channel::Sender<u64>,
    /// Blocks that the writer was asked for.
    length: u64,
}

struct Node {
    core: Hypercore,
    storage: Memory,
    sparse: bool,
    /// Requests that wait for their answer, and what they are.
    requests: Vec<(TaskId, String)>,
}

/// How long a request waits: what it may end with besides an answer.
#[derive(Clone, Copy)]
struct Waits {
    timeout: bool,
    if_available: bool,
}

impl Waits {
    const NONE: Self = Self {
        timeout: false,
        if_available: false,
    };

    const fn new(timeout: Option<Duration>, if_available: bool) -> Self {
        Self {
            timeout: timeout.is_some(),
            if_available,
        }
    }
}

/// A connection between two nodes, or between one and a liar.
struct Link {
    ends: [Option<usize>; 2],
    cable: Cable,
    tasks: [TaskId; 2],
    results: [Outcome; 2],
    fault: Fault,
}

/// How one end ended, once it has.
type Outcome = Rc<RefCell<Option<Result<Ended, Error>>>>;

/// What happened to a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// Nothing: it may not fail.
    None,
    /// Bytes stopped for a while or for ever, or it was cut: it may fail for that.
    Lost,
    /// What it carries is changed, or comes from a liar: it may fail for anything.
    Lies,
}

impl World {
    fn new(runtime: &Runtime, seed: u64) -> Self {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&seed.to_le_bytes());
        let key_pair = KeyPair::from_seed(&bytes);
        let (appends, orders) = async_channel::unbounded::<u64>();
        let mut world = Self {
            runtime: runtime.clone(),
            seed,
            key: key_pair.public_key(),
            nodes: Vec::new(),
            links: Vec::new(),
            appends,
            length: 0,
        };
        world.add_node(Some(key_pair), false);
        let writer = world.nodes[0].core.clone();
        runtime.spawn(async move {
            while let Ok(count) = orders.recv().await {
                let start = writer.length();
                let blocks = (start..start + count).map(|index| block(seed, index));
                writer.append_batch(blocks).await.expect("memory holds it");
            }
        });
        world
    }

    // ---- what is there ----------------------------------------------------------------------

    fn add_node(&mut self, key_pair: Option<KeyPair>, sparse: bool) -> usize {
        let storage = Memory::new();
        let core = open(&storage, self.key, key_pair, sparse);
        self.watch(&core);
        self.nodes.push(Node {
            core,
            storage,
            sparse,
            requests: Vec::new(),
        });
        self.nodes.len() - 1
    }

    /// Checks every block a node speaks of, at that moment.
    fn watch(&self, core: &Hypercore) {
        let (core, seed) = (core.clone(), self.seed);
        let mut events = core.events();
        self.runtime.spawn(async move {
            use futures_lite::StreamExt;
            while let Some(event) = events.next().await {
                if let crate::Event::Download { index, .. } = event
                    && core.has(index)
                {
                    let stored = core.get_with(index, GetOptions::local()).await;
                    // It may have been closed meanwhile.
                    if let Ok(stored) = stored {
                        assert_eq!(stored, block(seed, index), "block {index}");
                    }
                }
            }
        });
    }

    fn append(&mut self, count: u64) {
        self.length += count;
        self.appends.try_send(count).expect("the writer listens");
    }

    /// Connects two nodes. Returns the number of the link.
    fn connect(
        &mut self,
        nodes: [usize; 2],
        options: [ReplicateOptions; 2],
        conditions: [Conditions; 2],
    ) -> usize {
        let (cable, sockets) = Cable::new(&self.runtime, conditions);
        let corrupt = conditions
            .iter()
            .any(|conditions| conditions.corruption > 0);
        let results: [Rc<RefCell<_>>; 2] = Default::default();
        let mut roles = [Role::Initiator, Role::Responder].into_iter();
        let mut ends = nodes.iter().zip(sockets).zip(options).zip(&results);
        let tasks = std::array::from_fn(|_| {
            let (((&node, socket), options), result) = ends.next().expect("two ends");
            let role = roles.next().expect("two ends");
            let replication = self.nodes[node].core.replicate(role, options);
            let replication = replication.expect("the core is open");
            let result = Rc::clone(result);
            self.runtime.spawn(async move {
                let ended = replication.run(socket).await;
                *result.borrow_mut() = Some(ended);
            })
        });
        self.links.push(Link {
            ends: nodes.map(Some),
            cable,
            tasks,
            results,
            fault: if corrupt { Fault::Lies } else { Fault::None },
        });
        self.links.len() - 1
    }

    /// Connects two nodes that stay connected, over a good network. Returns the number of the link.
    fn link_live(&mut self, nodes: [usize; 2]) -> usize {
        let options = [plain(true), plain(true)];
        self.connect(nodes, options, [good_conditions(); 2])
    }

    /// Connects a node with a liar.
    fn connect_liar(&mut self, node: usize, conditions: [Conditions; 2]) {
        let (cable, [ours, theirs]) = Cable::new(&self.runtime, conditions);
        let core = &self.nodes[node].core;
        let replication = core.replicate(Role::Initiator, plain(true));
        let replication = replication.expect("the core is open");
        let results: [Rc<RefCell<_>>; 2] = Default::default();
        let result = Rc::clone(&results[0]);
        let honest = self.runtime.spawn(async move {
            let ended = replication.run(ours).await;
            *result.borrow_mut() = Some(ended);
        });
        let lie = liar::lie(self.runtime.clone(), self.key, plain(true), theirs);
        let liar = self.runtime.spawn(lie);
        self.links.push(Link {
            ends: [Some(node), None],
            cable,
            tasks: [honest, liar],
            results,
            fault: Fault::Lies,
        });
    }

    // ---- requests ---------------------------------------------------------------------------

    /// Has a node ask for something, and check what it gets: with `limits` on how long it waits that may
    /// be nothing.
    fn request<T>(
        &mut self,
        node: usize,
        what: String,
        limits: Waits,
        request: impl Future<Output = Result<T, Error>> + 'static,
        check: impl FnOnce(T) + 'static,
    ) {
        let task = self.runtime.spawn(async move {
            match request.await {
                Ok(answer) => check(answer),
                Err(Error::NotAvailable) if limits.if_available => {}
                Err(Error::TimedOut) if limits.timeout => {}
                Err(error) => panic!("a request failed: {error:?}"),
            }
        });
        self.nodes[node].requests.push((task, what));
    }

    fn get(&mut self, node: usize, index: u64, options: GetOptions) {
        let (core, seed) = (self.nodes[node].core.clone(), self.seed);
        let limits = Waits::new(options.timeout, options.if_available);
        let request = async move { core.get_with(index, options).await };
        self.request(
            node,
            format!("get {index}"),
            limits,
            request,
            move |value| {
                assert_eq!(value, block(seed, index), "block {index}");
            },
        );
    }

    fn download(&mut self, node: usize, blocks: Range<u64>) {
        let core = self.nodes[node].core.clone();
        let request = async move { core.download(blocks.clone()).await };
        self.request(node, "download".into(), Waits::NONE, request, |()| {});
    }

    fn update(&mut self, node: usize, options: UpdateOptions) {
        let core = self.nodes[node].core.clone();
        let limits = Waits::new(options.timeout, options.if_available);
        let request = async move { core.update_with(options).await };
        self.request(node, "update".into(), limits, request, drop);
    }

    fn seek(&mut self, node: usize, offset: u64, options: SeekOptions) {
        let (core, seed) = (self.nodes[node].core.clone(), self.seed);
        let limits = Waits::new(options.timeout, options.if_available);
        let request = async move { core.seek_with(offset, options).await };
        self.request(
            node,
            format!("seek {offset}"),
            limits,
            request,
            move |position| {
                let before: u64 = (0..position.index).map(|index| size(seed, index)).sum();
                assert_eq!(before + position.offset, offset, "{position:?}");
            },
        );
    }

    // ---- faults -----------------------------------------------------------------------------

    fn cut(&mut self, link: usize) {
        self.links[link].lost();
        self.links[link].cable.cut();
    }

    /// One end is gone, and the other does not learn of it.
    fn vanish(&mut self, link: usize, end: usize) {
        let link = &mut self.links[link];
        link.lost();
        link.cable.freeze();
        self.runtime.abort(link.tasks[end]);
    }

    /// One end lets go of the connection.
    fn hang_up(&mut self, link: usize, end: usize) {
        let link = &mut self.links[link];
        link.lost();
        self.runtime.abort(link.tasks[end]);
    }

    /// Closes a node and opens it again, with what its storage held.
    fn restart(&mut self, node: usize) {
        for link in 0..self.links.len() {
            for end in 0..2 {
                if self.links[link].ends[end] == Some(node) {
                    self.hang_up(link, end);
                }
            }
        }
        let state = &mut self.nodes[node];
        for (task, _) in state.requests.drain(..) {
            self.runtime.abort(task);
        }
        let core = state.core.clone();
        let closing = self.runtime.spawn(async move {
            core.close().await.expect("memory holds it");
        });
        let limit = self.runtime.now() + PATIENCE;
        let closed = self
            .runtime
            .run_until(limit, || !self.runtime.is_running(closing));
        assert!(closed, "a core does not close");
        let state = &mut self.nodes[node];
        state.core = open(&state.storage, self.key, None, state.sparse);
        let core = state.core.clone();
        self.watch(&core);
    }

    /// Ends all faults: what cannot be repaired is cut. What has vanished stays vanished.
    fn heal(&mut self) {
        for link in &self.links {
            match link.fault {
                Fault::Lies => link.cable.cut(),
                _ if link.tasks.iter().all(|&task| self.runtime.is_running(task)) => {
                    link.cable.thaw();
                }
                _ => {}
            }
        }
    }

    // ---- what must hold ---------------------------------------------------------------------

    /// Whether `node` has all it wants.
    fn is_content(&self, node: usize) -> bool {
        let Node {
            core,
            sparse,
            requests,
            ..
        } = &self.nodes[node];
        let whole = core.length() == self.length && core.downloaded(..) == self.length;
        (*sparse || whole)
            && requests
                .iter()
                .all(|&(task, _)| !self.runtime.is_running(task))
    }

    /// Waits until everybody has everything.
    fn settle(&mut self) {
        let runtime = self.runtime.clone();
        let limit = runtime.now() + PATIENCE;
        let mut next_look = runtime.now();
        let content = runtime.run_until(limit, || {
            if runtime.now() < next_look {
                return false;
            }
            next_look = runtime.now() + Duration::from_millis(100);
            (0..self.nodes.len()).all(|node| self.is_content(node))
        });
        let content = content || (0..self.nodes.len()).all(|node| self.is_content(node));
        assert!(content, "no progress:\n{}", self.report());
    }

    /// What holds at every moment.
    fn check(&self) {
        for (name, node) in self.nodes.iter().enumerate() {
            assert!(node.core.length() <= self.length);
            for index in (0..self.length).filter(|&index| node.core.has(index)) {
                let stored = future::block_on(node.core.get_with(index, GetOptions::local()));
                let stored = stored.unwrap_or_else(|error| panic!("{name}, {index}: {error}"));
                assert_eq!(stored, block(self.seed, index), "block {index} at {name}");
            }
        }
        for link in &self.links {
            for (end, result) in link.ends.iter().zip(&link.results) {
                let result = result.borrow();
                let Some(Err(error)) = &*result else {
                    continue;
                };
                let fair = match link.fault {
                    Fault::None => false,
                    Fault::Lost => !error.is_peer_fault() || is_timeout(error),
                    Fault::Lies => true,
                };
                assert!(
                    fair,
                    "{end:?} of {:?} blames: {error:?}\n{}",
                    link.ends,
                    self.report()
                );
            }
        }
    }

    /// Who lacks what, and why.
    fn report(&self) -> String {
        let mut report = format!("after {:?}, of {}\n", self.runtime.elapsed(), self.length);
        for (name, node) in self.nodes.iter().enumerate() {
            let core = &node.core;
            let waits = node.requests.iter();
            let waits: Vec<_> = waits
                .filter(|(task, _)| self.runtime.is_running(*task))
                .map(|(_, what)| what.as_str())
                .take(10)
                .collect();
            let _ = writeln!(
                report,
                "{name}{}: {} of {}, waits for {waits:?}, content {}",
                if node.sparse { " (sparse)" } else { "" },
                core.downloaded(..),
                core.length(),
                self.is_content(name),
            );
            let _ = writeln!(report, "    {:?}", core.shared().lock().replicator);
        }
        for link in &self.links {
            let running = link.tasks.map(|task| self.runtime.is_running(task));
            if running.contains(&true) {
                let _ = writeln!(report, "{:?} {running:?} {:?}", link.ends, link.fault);
            }
        }
        report
    }
}

impl Link {
    fn lost(&mut self) {
        if self.fault == Fault::None {
            self.fault = Fault::Lost;
        }
    }
}

/// Connects two sides that have these cores, until the simulation ends.
fn connect_cores(
    runtime: &Runtime,
    sides: [(Role, &[Hypercore]); 2],
    conditions: Conditions,
) -> Cable {
    let (cable, sockets) = Cable::new(runtime, [conditions; 2]);
    for ((role, cores), socket) in sides.into_iter().zip(sockets) {
        let replication = Replication::new(role, plain(true)).expect("there is randomness");
        for core in cores {
            replication.add(core).expect("it is open");
        }
        runtime.spawn(async move {
            replication.run(socket).await.expect("an honest connection");
        });
    }
    cable
}

/// Drives one end of a connection, and keeps how it ends.
fn run_end(runtime: &Runtime, replication: Replication, socket: Socket) -> Outcome {
    let outcome = Outcome::default();
    let ended = Rc::clone(&outcome);
    runtime.spawn(async move {
        let result = replication.run(socket).await;
        *ended.borrow_mut() = Some(result);
    });
    outcome
}

fn is_timeout(error: &Error) -> bool {
    use hypercore_wire::Error as Wire;
    matches!(
        error,
        Error::RequestTimeout { .. }
            | Error::Wire(
                Wire::TimedOut { .. }
                    | Wire::HandshakeTimeout { .. }
                    | Wire::FrameTooSlow { .. }
                    | Wire::SendStalled { .. }
                    | Wire::UnexpectedEnd
            )
    )
}

fn open(storage: &Memory, key: PublicKey, key_pair: Option<KeyPair>, sparse: bool) -> Hypercore {
    open_on(Arc::new(Disk(storage.clone())), key, key_pair, sparse)
}

/// What is waited for, unlike memory.
struct Disk(Memory);

impl Storage for Disk {
    fn open(&self, file: FileName) -> io::Result<Arc<dyn RandomAccess>> {
        self.0.open(file)
    }
}

fn open_on(
    storage: Arc<dyn Storage>,
    key: PublicKey,
    key_pair: Option<KeyPair>,
    sparse: bool,
) -> Hypercore {
    let log = open_log(storage, key, key_pair);
    Hypercore::from_shared(Shared::new(log, sparse, false, Durability::Always))
}

fn open_log(storage: Arc<dyn Storage>, key: PublicKey, key_pair: Option<KeyPair>) -> Log {
    let setup = Setup {
        existing: Existing::Optional,
        key: Some(key),
        author: key_pair.map(Author::KeyPair),
        store_secret_key: true,
        may_lose: false,
        indexing: false,
        state: None,
        signed_elsewhere: None,
    };
    Log::open(storage, setup).expect("memory holds a core")
}

/// What the writer writes.
fn block(seed: u64, index: u64) -> Bytes {
    let byte = (index ^ seed) as u8;
    vec![byte; size(seed, index) as usize].into()
}

/// A seed from here on gives blocks of one size, by which it is greater than this.
const EQUAL_BLOCKS: u64 = 1 << 63;

/// Most blocks are small, some are large, some are empty.
const fn size(seed: u64, index: u64) -> u64 {
    if seed >= EQUAL_BLOCKS {
        return seed - EQUAL_BLOCKS;
    }
    let mixed = (index + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ seed;
    match mixed % 16 {
        0 => 0,
        1 => 5000,
        _ => mixed % 97,
    }
}

/// A connection that is neither slow nor full.
const fn good_conditions() -> Conditions {
    Conditions {
        delay: Duration::from_millis(20),
        bytes_per_second: 10_000_000,
        buffer: 1 << 18,
        corruption: 0,
    }
}

/// Without encryption, so that a schedule costs little and a lie can be told anywhere.
fn plain(live: bool) -> ReplicateOptions {
    let mut options = ReplicateOptions::default();
    options.live = live;
    options.noise = false;
    options.encrypted = false;
    options
}
