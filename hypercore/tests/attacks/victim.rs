//! The server under attack, and the honest reader beside it.

use std::{
    fs,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use async_std::{net::TcpStream, task};
use hypercore::{GetOptions, Hypercore, PublicKey, ReplicateOptions, Role};

use crate::process::{KEY, Process, SEED, Scene};

/// Blocks of the log that is served, and the bytes of each.
pub(crate) const BLOCKS: u64 = 500;
const BLOCK_SIZE: usize = 16 * 1024;

/// An honest reader gets 99 of 100 blocks within this time: 250 ms from the program as it is
/// shipped, and some more from one that is not optimised.
const LATENCY: Duration = Duration::from_millis(if cfg!(debug_assertions) { 1000 } else { 250 });

/// By how much an attack may make the server grow, unless it says otherwise.
pub(crate) const GROWTH: usize = 64 << 20;

/// What the server is given to settle after an attack.
const PATIENCE: Duration = Duration::from_secs(20);

/// One attack at a time: they would spoil each other's figures.
static ALONE: Mutex<()> = Mutex::new(());

pub(crate) struct Victim {
    scene: Scene,
    server: Process,
    address: String,
    _alone: MutexGuard<'static, ()>,
}

impl Victim {
    pub(crate) fn new() -> Self {
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let scene = Scene::new();
        scene.run(["create", "log", "--seed", SEED]).ok();
        fs::write(scene.path("content"), vec![7; BLOCKS as usize * BLOCK_SIZE]).unwrap();
        let size = BLOCK_SIZE.to_string();
        let args = ["append", "log", "--file", "content", "--block-size", &size];
        scene.run(args).ok();
        let (server, address) = scene.serve("log", &[]);
        Self {
            scene,
            server,
            address,
            _alone: alone,
        }
    }

    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// Its memory in bytes.
    pub(crate) fn memory(&self) -> usize {
        memory(self.server.id())
    }

    /// Its open files and connections.
    pub(crate) fn files(&self) -> usize {
        let files = fs::read_dir(format!("/proc/{}/fd", self.server.id()));
        files.expect("it is ours").count()
    }

    /// Runs an attack, and checks what it does to the server and to an honest reader.
    pub(crate) fn suffers(self, attack: impl FnOnce(&Self)) {
        self.suffers_within(GROWTH, attack);
    }

    /// The same, with another bound on the growth of memory.
    pub(crate) fn suffers_within(mut self, growth: usize, attack: impl FnOnce(&Self)) {
        let honest = Honest::connect(&self.address, self.server.id());
        let (files, before) = (self.files(), self.memory());
        let started = Instant::now();
        attack(&self);
        let lasted = started.elapsed();
        let (mut latencies, peak) = honest.end();

        latencies.sort_unstable();
        let at = |share: usize| latencies[(latencies.len() - 1) * share / 100];
        let (median, p99) = (at(50), at(99));
        let grown = peak.saturating_sub(before);
        println!(
            "lasted {lasted:.1?}; {} honest reads, median {median:.1?}, p99 {p99:.1?}; memory \
             {} MiB and {} MiB more",
            latencies.len(),
            before >> 20,
            grown >> 20,
        );
        assert!(p99 <= LATENCY, "an honest reader waited {p99:?}");
        assert!(grown <= growth, "the server grew by {} MiB", grown >> 20);

        // What the attack took is given back.
        let deadline = Instant::now() + PATIENCE;
        while self.files() > files && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(20));
        }
        assert!(self.files() <= files, "connections are left behind");
        self.serves();
        self.server.hush();
        let done = self.server.stop().ok();
        assert!(!done.stderr.contains("panicked"), "{}", done.stderr);
        self.scene.run(["audit", "log"]).ok();
    }

    /// It serves the whole log.
    fn serves(&self) {
        let args = ["clone", KEY, "copy", "--json", "--connect", &self.address];
        let done = self.scene.run(args).ok().json();
        assert_eq!(done["downloaded"], BLOCKS, "{done}");
    }
}

fn memory(process: u32) -> usize {
    let status = fs::read_to_string(format!("/proc/{process}/status"));
    let status = status.expect("the server is alive");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = line.and_then(|line| line.trim().strip_suffix(" kB"));
    let kilobytes: usize = kilobytes.and_then(|text| text.trim().parse().ok()).unwrap();
    kilobytes << 10
}

/// A reader that was there before the attack and goes on reading.
struct Honest {
    stop: Arc<AtomicBool>,
    task: thread::JoinHandle<(Vec<Duration>, usize)>,
}

impl Honest {
    fn connect(address: &str, server: u32) -> Self {
        let (stop, address) = (Arc::<AtomicBool>::default(), address.to_owned());
        let until = Arc::clone(&stop);
        let (ready, is_ready) = std::sync::mpsc::channel();
        let task = thread::spawn(move || {
            task::block_on(async {
                let key = hex::decode(KEY).unwrap();
                let key = PublicKey::from(<[u8; 32]>::try_from(key).unwrap());
                let options = Hypercore::options().key(key).sparse(true);
                let core = options.open_memory().await.unwrap();
                let tcp = TcpStream::connect(&address).await.unwrap();
                tcp.set_nodelay(true).unwrap();
                let replication = core.replicate(Role::Initiator, ReplicateOptions::live());
                task::spawn(replication.unwrap().run(tcp));
                core.get(0).await.unwrap();
                ready.send(()).unwrap();

                let (mut latencies, mut peak) = (Vec::new(), 0);
                for index in (1..BLOCKS).cycle() {
                    if until.load(Ordering::Acquire) && latencies.len() >= 50 {
                        break;
                    }
                    if index == 1 {
                        core.clear(0..BLOCKS).await.unwrap();
                    }
                    let started = Instant::now();
                    let mut options = GetOptions::default();
                    options.timeout = Some(PATIENCE);
                    let block = core.get_with(index, options).await;
                    assert_eq!(block.expect("the server answers").len(), BLOCK_SIZE);
                    latencies.push(started.elapsed());
                    peak = peak.max(memory(server));
                    task::sleep(Duration::from_millis(5)).await;
                }
                (latencies, peak)
            })
        });
        is_ready.recv().expect("the server answers");
        Self { stop, task }
    }

    /// How long each block took, and the most memory the server had.
    fn end(self) -> (Vec<Duration>, usize) {
        self.stop.store(true, Ordering::Release);
        self.task.join().expect("an honest reader is served")
    }
}
