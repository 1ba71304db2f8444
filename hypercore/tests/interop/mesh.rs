//! Ten peers of Node's and ten of ours, each connected to a few others of both kinds.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use async_std::net::{TcpListener, TcpStream};
use async_std::task::{self, JoinHandle};
use hypercore::{Download, Hypercore, OpenOptions, ReplicateOptions, Role};

use crate::blocks::block;
use crate::library::run;
use crate::peers::Seeder;
use crate::stage::{Process, Stage};

/// Blocks that are there before the peers meet.
const FIRST: u64 = 200;

/// Blocks in the end, with those that are appended meanwhile.
const ALL: u64 = 240;

/// Peers of each kind; the first of ours is the writer.
const EACH: usize = 10;

/// SplitMix64, so that a seed means the same everywhere.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % end as u64) as usize
    }

    /// About a quarter of the first blocks, and at least one.
    fn part(&mut self) -> Vec<u64> {
        let mut part: Vec<_> = (0..FIRST).filter(|_| self.below(4) == 0).collect();
        part.push(FIRST - 1);
        part.dedup();
        part
    }
}

fn content(index: u64) -> Vec<u8> {
    block(index as usize, (index * 7919 % 3000) as usize)
}

/// A core of ours that listens.
struct Ours {
    core: Hypercore,
    address: String,
    listening: JoinHandle<()>,
    connections: Arc<Mutex<Vec<JoinHandle<()>>>>,
    whole: Download,
}

impl Ours {
    async fn start(core: Hypercore) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("a bound socket").to_string();
        let connections = Arc::<Mutex<Vec<_>>>::default();
        let (accepted, served) = (Arc::clone(&connections), core.clone());
        let listening = task::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let connection = connect(served.clone(), stream, Role::Responder);
                accepted.lock().expect("no panic").push(connection);
            }
        });
        let whole = core.download(..ALL);
        Self {
            core,
            address,
            listening,
            connections,
            whole,
        }
    }

    async fn dial(&self, address: &str) {
        let stream = TcpStream::connect(address).await.expect("a peer listens");
        let connection = connect(self.core.clone(), stream, Role::Initiator);
        self.connections.lock().expect("no panic").push(connection);
    }

    async fn stop(self) {
        self.listening.cancel().await;
        let connections = std::mem::take(&mut *self.connections.lock().expect("no panic"));
        for connection in connections {
            connection.cancel().await;
        }
        self.core.close().await.expect("nothing left to write");
    }
}

/// Runs a connection until it ends, as it may at any time: the other side leaves.
fn connect(core: Hypercore, stream: TcpStream, role: Role) -> JoinHandle<()> {
    task::spawn(async move {
        let _ = core
            .replicate_over(stream, role, ReplicateOptions::live())
            .await;
    })
}

enum Peer {
    Ours(Box<Ours>),
    Node(Process, String),
}

impl Peer {
    fn address(&self) -> &str {
        match self {
            Self::Ours(ours) => &ours.address,
            Self::Node(_, address) => address,
        }
    }

    fn dial(&mut self, address: &str) {
        match self {
            Self::Ours(ours) => run(ours.dial(address)),
            Self::Node(process, _) => process.say(format!("{address}\n")),
        }
    }

    fn stop(self) {
        match self {
            Self::Ours(ours) => run(ours.stop()),
            Self::Node(process, _) => {
                process.terminate();
                process.output();
            }
        }
    }
}

struct Mesh {
    stage: Stage,
    key: String,
    /// A peer that is away is `None`.
    peers: Vec<Option<Peer>>,
    /// Who dials whom.
    edges: Vec<(usize, usize)>,
}

impl Mesh {
    fn dir(&self, peer: usize) -> PathBuf {
        self.stage.path(&format!("peer {peer}"))
    }

    /// Starts a peer in its directory; at first with a part, which it fetches from the writer.
    fn start(&self, peer: usize, part: Option<&[u64]>) -> Peer {
        let dir = self.dir(peer);
        let origin = part.map(|part| (self.peer(0).address(), part));
        if peer < EACH {
            return Peer::Ours(Box::new(run(start_ours(&dir, &self.key, origin))));
        }
        let all = ALL.to_string();
        let mut args = args![&dir, "--key", &self.key, "--blocks", all].to_vec();
        if let Some((address, part)) = origin {
            let part: Vec<_> = part.iter().map(u64::to_string).collect();
            args.extend(args!["--origin", address, "--have", part.join(",")]);
        }
        let Seeder {
            process, address, ..
        } = Seeder::listening(self.stage.node("mesh.js", args));
        Peer::Node(process, address)
    }

    /// Connects those of which `is_wanted` holds.
    fn connect(&mut self, is_wanted: impl Fn(usize, usize) -> bool) {
        for &(from, to) in self.edges.iter().filter(|&&(from, to)| is_wanted(from, to)) {
            let address = self.peer(to).address().to_owned();
            let dialling = self.peers[from].as_mut().expect("all are here");
            dialling.dial(&address);
        }
    }

    /// Lets a peer leave everybody and come back.
    fn restart(&mut self, peer: usize) {
        self.peers[peer].take().expect("all are here").stop();
        self.peers[peer] = Some(self.start(peer, None));
        self.connect(|from, to| from == peer || to == peer);
    }

    fn peer(&self, peer: usize) -> &Peer {
        self.peers[peer].as_ref().expect("all are here")
    }

    fn writer(&self) -> &Hypercore {
        self.ours(0)
    }

    fn ours(&self, peer: usize) -> &Hypercore {
        match self.peer(peer) {
            Peer::Ours(ours) => &ours.core,
            Peer::Node(..) => panic!("{peer} is Node's"),
        }
    }
}

async fn start_ours(dir: &Path, key: &str, origin: Option<(&str, &[u64])>) -> Ours {
    let key: [u8; 32] = hex::decode(key).expect("hex").try_into().expect("32 bytes");
    let options = OpenOptions::new().key(key).sparse(true);
    let core = options.open(dir).await.expect("a directory of ours");
    if let Some((address, part)) = origin {
        let stream = TcpStream::connect(address)
            .await
            .expect("the writer listens");
        let connection = connect(core.clone(), stream, Role::Initiator);
        let fetched = core.download_blocks(part.iter().copied()).await;
        fetched.expect("the writer has all");
        connection.cancel().await;
    }
    Ours::start(core).await
}

/// All have parts, of which none has all; blocks are appended, and peers leave and come back. In the
/// end all have everything.
#[test]
fn ten_peers_of_each_kind_end_equal() {
    let mut random = Random(9);
    let stage = Stage::new();
    let writer = run(async {
        let core = Hypercore::open(stage.path("peer 0"))
            .await
            .expect("an empty directory");
        let blocks = (0..FIRST).map(content);
        core.append_batch(blocks).await.expect("room on the disk");
        Ours::start(core).await
    });
    let mut mesh = Mesh {
        stage,
        key: writer.core.key().to_string(),
        peers: vec![Some(Peer::Ours(Box::new(writer)))],
        edges: Vec::new(),
    };
    for peer in 1..2 * EACH {
        let part = random.part();
        let started = mesh.start(peer, Some(&part));
        mesh.peers.push(Some(started));
    }

    // A tree, so that all are reached, in which Node's and ours alternate at random; and as many
    // connections again.
    let count = mesh.peers.len();
    mesh.edges = (1..count).map(|peer| (peer, random.below(peer))).collect();
    for _ in 1..count {
        let (a, b) = (random.below(count), random.below(count));
        if a != b {
            mesh.edges.push((a, b));
        }
    }
    mesh.connect(|_, _| true);

    for index in FIRST..ALL {
        run(mesh.writer().append(content(index))).expect("room on the disk");
        if index % 4 == 0 {
            let leaves = 1 + random.below(count - 1);
            mesh.restart(leaves);
        }
        let reader = mesh.ours(1 + random.below(EACH - 1));
        let found = run(reader.get(index)).expect("it comes sooner or later");
        assert!(found == content(index), "block {index}");
    }

    for peer in mesh.peers.iter_mut().flatten() {
        match peer {
            Peer::Ours(ours) => run(&mut ours.whole).expect("the core is open"),
            Peer::Node(process, _) => assert_eq!(process.event("whole")["length"], ALL),
        }
    }
    let directories: Vec<_> = (0..count).map(|peer| mesh.dir(peer)).collect();
    mesh.peers.drain(..).flatten().for_each(Peer::stop);
    for dir in directories {
        run(async {
            let core = Hypercore::open(&dir).await.expect("a whole directory");
            assert_eq!((core.length(), core.downloaded(..)), (ALL, ALL), "{dir:?}");
            for index in 0..ALL {
                let found = core.get(index).await.expect("it is here");
                assert!(found == content(index), "block {index} of {dir:?}");
            }
        });
    }
}
