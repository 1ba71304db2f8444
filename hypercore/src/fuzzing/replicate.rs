use std::{
    pin::Pin,
    task::{Context, Poll, Waker},
};

use futures_lite::{AsyncRead, AsyncWrite, future::block_on};

use crate::{GetOptions, Hypercore, KeyPair, ReplicateOptions, Replication, Role};

/// A writer and two clones that are connected, cut off, appended to and cleared in any order.
///
/// The input is a list of operations of two bytes each: what to do, and to whom or how much.
///
/// * Nobody is accused, however a connection is cut.
/// * Blocks of a clone are those of the writer.
/// * In the end, connected for long enough, all have everything.
pub fn hypercore_replicate(data: &[u8]) {
    block_on(async {
        let mut network = Network::new().await;
        for &[kind, amount] in data.as_chunks().0.iter().take(40) {
            network.operate(kind, amount).await;
        }
        network.converge().await;
    });
}

/// Which two cores a connection joins.
const PAIRS: [[usize; 2]; 3] = [[1, 0], [2, 1], [2, 0]];

struct Network {
    /// The writer first.
    cores: [Hypercore; 3],
    connections: [Option<[Replication; 2]>; 3],
}

impl Network {
    async fn new() -> Self {
        let pair = KeyPair::from_seed(&[7; 32]);
        let key = pair.public_key();
        let writer = Hypercore::options().key_pair(pair).open_memory();
        let clone = || Hypercore::options().key(key).open_memory();
        let cores = [writer.await, clone().await, clone().await];
        Self {
            cores: cores.map(|core| core.expect("memory does not fail")),
            connections: [None, None, None],
        }
    }

    async fn operate(&mut self, kind: u8, amount: u8) {
        let pair = usize::from(amount) % PAIRS.len();
        match kind % 6 {
            0 => {
                let batch = (0..1 + amount % 5).map(|block| vec![block; usize::from(amount) * 7]);
                let appended = self.cores[0].append_batch(batch).await;
                appended.expect("memory does not fail");
            }
            1 => self.connect(pair),
            2 => self.connections[pair] = None,
            3 => {
                let (start, end) = (u64::from(amount % 8), u64::from(amount / 8));
                let core = &self.cores[1 + usize::from(amount & 1)];
                if start < end && end <= core.length() {
                    core.clear(start..end).await.expect("memory does not fail");
                }
            }
            _ => {
                self.carry(pair, usize::from(amount) * 16);
            }
        }
    }

    fn connect(&mut self, pair: usize) {
        let [initiator, responder] = PAIRS[pair];
        let end = |core: usize, role| {
            let mut options = ReplicateOptions::live();
            // A machine that was asleep meanwhile is no finding.
            options.timeout = None;
            let replication = self.cores[core].replicate(role, options);
            replication.expect("an open core")
        };
        self.connections[pair] = Some([
            end(initiator, Role::Initiator),
            end(responder, Role::Responder),
        ]);
    }

    /// Carries up to `most` bytes each way; returns whether there were any.
    fn carry(&mut self, pair: usize, most: usize) -> bool {
        let Some(ends) = &mut self.connections[pair] else {
            return false;
        };
        let mut cx = Context::from_waker(Waker::noop());
        let mut buffer = vec![0; most.max(1)];
        let mut moved = false;
        for from in [0, 1] {
            match Pin::new(&mut ends[from]).poll_read(&mut cx, &mut buffer) {
                Poll::Ready(Ok(0)) => panic!("a live connection ended"),
                Poll::Ready(Ok(count)) => {
                    moved = true;
                    let mut rest = &buffer[..count];
                    while !rest.is_empty() {
                        match Pin::new(&mut ends[1 - from]).poll_write(&mut cx, rest) {
                            Poll::Ready(Ok(count)) => rest = &rest[count..],
                            Poll::Ready(Err(error)) => panic!("an honest peer is accused: {error}"),
                            Poll::Pending => panic!("so little makes nobody wait"),
                        }
                    }
                }
                Poll::Ready(Err(error)) => panic!("an honest peer is accused: {error}"),
                Poll::Pending => {}
            }
        }
        moved
    }

    /// Connects everybody for as long as anything moves, and compares.
    async fn converge(&mut self) {
        for pair in 0..PAIRS.len() {
            self.connect(pair);
        }
        let mut quiet = 0;
        while quiet < 3 {
            let moved = (0..PAIRS.len()).filter(|&pair| self.carry(pair, 65_536));
            quiet = if moved.count() > 0 { 0 } else { quiet + 1 };
        }
        let [writer, clones @ ..] = &self.cores;
        for clone in clones {
            assert_eq!(clone.length(), writer.length());
            for index in 0..writer.length() {
                let [ours, theirs] = [writer, clone].map(|core| {
                    block_on(core.get_with(index, GetOptions::local())).expect("it has everything")
                });
                assert_eq!(ours, theirs);
            }
        }
    }
}
