mod peer;

use std::{collections::VecDeque, time::Duration};

use bytes::Bytes;
use hypercore_wire::MAX_BLOCKS;

use crate::{
    DownloadOptions, Error, GetOptions, Hypercore, KeyPair, Position, ReplicateOptions, Role,
    SeekOptions,
    runtime::simulated::{
        Runtime, TaskId,
        network::{Cable, Conditions},
        sleep,
    },
};
use peer::Hostile;

/// A peer that knows the key and says what it likes, to a clone that wants blocks and to the writer,
/// with an honest connection between these two.
///
/// The input is a byte of settings (`World::new`) and a list of operations of four bytes each: what
/// to do, and three numbers that say with what (`World::operate`, `Hostile::act`).
///
/// * Only the hostile peer is blamed.
/// * What is stored is what was written, and so is what is sent.
/// * What is held for a peer stays within its bounds.
/// * In the end the clone has everything, soon.
pub fn hypercore_hostile(data: &[u8]) {
    let (&settings, operations) = data.split_first().unwrap_or((&0, &[]));
    let operations: Vec<_> = operations.as_chunks().0.iter().copied().take(100).collect();
    Runtime::run(u64::from(settings), |runtime| {
        let world = World::new(runtime.clone(), settings);
        let play = runtime.spawn(async move {
            let mut world = world.await;
            for operation in operations {
                world.operate(operation).await;
            }
            world.finish().await;
        });
        let limit = runtime.now() + Duration::from_secs(24 * 60 * 60);
        assert!(runtime.run_until(limit, || !runtime.is_running(play)));
    });
}

/// How long the clone may take once nothing is done to it any more: a hostile peer that owes answers
/// is given up after 20 seconds.
const PATIENCE: Duration = Duration::from_secs(60);

/// Between two operations, if both are not to come at once: longer than a message and its answer take.
const PAUSE: Duration = Duration::from_millis(5);

const CONDITIONS: Conditions = Conditions {
    delay: Duration::from_millis(1),
    bytes_per_second: 100_000_000,
    buffer: 1 << 18,
    corruption: 0,
};

/// An extension that the cores have, beside those of this crate.
const OTHER: &str = "other";

/// What the writer writes: blocks of many lengths, some of them empty.
fn block(index: u64) -> Bytes {
    vec![index as u8; size(index) as usize].into()
}

const fn size(index: u64) -> u64 {
    index * 7 % 20
}

fn offset_of(position: Position) -> u64 {
    (0..position.index).map(size).sum::<u64>() + position.offset
}

/// A number of a block: small ones, and powers of two far away.
const fn number(byte: u8) -> u64 {
    match byte {
        0..224 => byte as u64,
        224..255 => 1 << (byte - 211),
        255 => MAX_BLOCKS - 1,
    }
}

struct World {
    runtime: Runtime,
    writer: Hypercore,
    clone: Hypercore,
    /// At the writer and at the clone.
    hostile: [Hostile; 2],
    acks: bool,
    is_whole: bool,
    /// Blocks that somebody waits for, and other things.
    gets: Vec<(TaskId, u64)>,
    others: VecDeque<TaskId>,
    _extensions: [crate::Extension; 2],
}

impl World {
    /// `settings` say, from the lowest bit, whether the clone is sparse, whether the honest connection
    /// is there from the beginning, whether acknowledgements are wanted, and how long the log is.
    async fn new(runtime: Runtime, settings: u8) -> Self {
        let pair = KeyPair::from_seed(&[7; 32]);
        let clone = Hypercore::options()
            .key(pair.public_key())
            .sparse(settings & 1 != 0);
        let clone = clone.open_memory().await.expect("memory does not fail");
        let writer = Hypercore::options().key_pair(pair).open_memory().await;
        let writer = writer.expect("memory does not fail");
        let acks = settings & 4 != 0;
        let register = |core: &Hypercore| core.register_extension(OTHER).expect("it is new");
        let mut world = Self {
            hostile: [&writer, &clone].map(|core| Hostile::new(&runtime, core, &writer, acks)),
            _extensions: [&writer, &clone].map(register),
            runtime,
            writer,
            clone,
            acks,
            is_whole: false,
            gets: Vec::new(),
            others: VecDeque::new(),
        };
        world.append(u64::from(settings >> 3)).await;
        if settings & 2 != 0 {
            world.connect_honest();
        }
        world
    }

    async fn append(&self, count: u64) {
        let length = self.writer.length();
        let blocks = (length..length + count).map(block);
        let appended = self.writer.append_batch(blocks).await;
        appended.expect("memory does not fail");
    }

    fn connect_honest(&mut self) {
        if std::mem::replace(&mut self.is_whole, true) {
            return;
        }
        let (_, sockets) = Cable::new(&self.runtime, [CONDITIONS; 2]);
        let ends = [
            (&self.writer, Role::Responder),
            (&self.clone, Role::Initiator),
        ];
        for ((core, role), socket) in ends.into_iter().zip(sockets) {
            let replication = core.replicate(role, options(self.acks));
            let replication = replication.expect("an open core");
            self.runtime.spawn(async move {
                let ended = replication.run(socket).await;
                panic!("the honest connection ended: {ended:?}");
            });
        }
    }

    /// The lower five bits of `kind` say what is done; the next, whether at the writer or at the clone;
    /// the next, whether the hostile peer sends it together with what follows.
    async fn operate(&mut self, [kind, a, b, c]: [u8; 4]) {
        let side = usize::from(kind & 0x20 == 0);
        match kind & 0x1f {
            0 => self.append(u64::from(a % 8)).await,
            1 => self.connect_honest(),
            2 => self.ask(a, b, c).await,
            3 => sleep(Duration::from_millis(1 << (a % 15))).await,
            4 => {
                let core = [&self.writer, &self.clone][side];
                self.hostile[side] = Hostile::new(&self.runtime, core, &self.writer, self.acks);
            }
            kind => self.hostile[side].act(kind, a, b, c),
        }
        if kind & 0x40 == 0 {
            self.hostile[side].exchange().await;
            sleep(PAUSE).await;
            self.hostile[side].exchange().await;
        }
        for core in [&self.writer, &self.clone] {
            core.shared().lock().replicator.check_bounds();
        }
    }

    /// Has somebody use the clone.
    async fn ask(&mut self, a: u8, b: u8, c: u8) {
        let core = self.clone.clone();
        let (first, count) = (number(b), number(c));
        match a % 10 {
            0 | 1 => {
                let task = self.runtime.spawn(async move {
                    match core.get(first).await {
                        Ok(value) => assert_eq!(value, block(first)),
                        Err(error) => assert!(matches!(error, Error::Cancelled), "{error:?}"),
                    }
                });
                self.gets.push((task, first));
            }
            2 | 3 => {
                let options = DownloadOptions {
                    hash: a % 10 == 3,
                    ..DownloadOptions::default()
                };
                let download = core.download_with(first..first + count, options);
                self.others.push_back(self.runtime.spawn(async move {
                    let _ = download.await;
                }));
            }
            4 => self.others.push_back(self.runtime.spawn(async move {
                let offset = u64::from(b) * 8 + u64::from(c);
                if let Ok(found) = core.seek(offset).await {
                    assert_eq!(offset_of(found), offset);
                }
            })),
            5 => self.others.push_back(self.runtime.spawn(async move {
                let _ = core.update().await;
            })),
            6 => core.cancel(first..first + count),
            7 => {
                if let Some(task) = self.others.pop_front() {
                    self.runtime.abort(task);
                }
            }
            8 => {
                self.check(&self.clone).await;
                let end = core.length().min(first + count);
                if first <= end {
                    core.clear(first..end).await.expect("memory does not fail");
                }
            }
            _ => {
                core.set_downloading(b & 1 == 0);
                core.set_uploading(b & 2 == 0);
            }
        }
    }

    /// What a core has is what was written.
    async fn check(&self, core: &Hypercore) {
        for index in (0..core.length()).filter(|&index| core.has(index)) {
            let stored = core.get_with(index, GetOptions::local()).await;
            assert_eq!(stored.expect("it is here"), block(index));
        }
        let audit = core.audit().await.expect("memory does not fail");
        assert_eq!(audit.invalid, [0; 0]);
    }

    async fn finish(mut self) {
        self.check(&self.clone).await;
        self.connect_honest();
        self.clone.set_downloading(true);
        let length = self.writer.length();
        let download = self.clone.download(0..length);
        let download = self.runtime.spawn(async move {
            download.await.expect("there is an honest peer");
        });
        let limit = self.runtime.now() + PATIENCE;
        while self.runtime.is_running(download) || self.clone.downloaded(..) < length {
            assert!(self.runtime.now() < limit, "it does not get everything");
            sleep(Duration::from_millis(100)).await;
        }
        sleep(PAUSE).await;
        for core in [&self.writer, &self.clone] {
            assert_eq!((core.length(), core.downloaded(..)), (length, length));
            self.check(core).await;
        }
        for index in 0..length {
            let offset = (0..index).map(size).sum();
            let options = SeekOptions {
                wait: false,
                ..SeekOptions::default()
            };
            let found = self.clone.seek_with(offset, options).await;
            assert_eq!(found.map(offset_of).expect("it is here"), offset);
        }
        for &(task, index) in &self.gets {
            assert!(index >= length || !self.runtime.is_running(task), "{index}");
        }
    }
}

/// Live, and without encryption: what is said is not to depend on chance.
fn options(ack: bool) -> ReplicateOptions {
    let mut options = ReplicateOptions::live();
    (options.noise, options.encrypted, options.ack) = (false, false, ack);
    options
}
