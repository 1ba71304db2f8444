//! Ten operations that most of the time goes to, for counting their instructions: `.ci/instructions`
//! does, and compares with what they took before.
//!
//! ```text
//! hot_operations                    lists them
//! hot_operations NAME               does one, once, inside the function `measured`
//! ```

use std::{env, hint::black_box, process::exit, time::Instant};

use bytes::{Bytes, BytesMut};
use futures_lite::{
    future::{self, block_on},
    io,
};
use hypercore::{Hypercore, KeyPair, ReplicateOptions, Replication, Role, storage::Memory};
use hypercore_bitfield::{Bitfield, PageSize, rle};
use hypercore_merkle::{
    Block, Node, NodeIndex, NodeSet, Proof, RemoteTree, Roots, Verifier, append, proof, verify,
};
use hypercore_wire::{
    Body, ChannelId, Data, DataNode, Event, Frame, Limits, Message, Session, SessionOptions,
};

const OPERATIONS: [(&str, fn()); 10] = [
    ("hash-16-leaves-of-64-KiB", hash),
    ("sign-and-check-an-append-of-1000", sign),
    ("plan-1000-proofs", plan),
    ("check-a-proof-and-its-signature", check),
    ("scan-100000-bits", scan),
    ("expand-an-answer-to-a-want", expand),
    ("decode-1000-blocks", decode),
    ("carry-16-blocks-of-64-KiB", carry_blocks),
    ("get-1000-blocks", get),
    ("replicate-2000-blocks", replicate),
];

fn main() {
    let Some(name) = env::args().nth(1) else {
        OPERATIONS.iter().for_each(|(name, _)| println!("{name}"));
        return;
    };
    let Some((_, operation)) = OPERATIONS.iter().find(|(known, _)| *known == name) else {
        eprintln!("hot_operations: no operation {name}");
        exit(2);
    };
    operation();
}

/// What is counted. Everything outside is preparation.
#[inline(never)]
fn measured(operation: &mut dyn FnMut()) {
    operation();
}

// ---- the Merkle tree --------------------------------------------------------------------------

fn hash() {
    let values: Vec<_> = (0..16).map(|n| Bytes::from(vec![n; 64 * 1024])).collect();
    measured(&mut || drop(black_box(Block::hash_many(values.clone()))));
}

fn sign() {
    let blocks: Vec<_> = (0..1000).map(|_| Block::hash(vec![7; 64].into())).collect();
    let key_pair = KeyPair::from_seed(&[1; 32]);
    measured(&mut || {
        let change = append::append(&Roots::new(), blocks.clone(), &key_pair);
        black_box(change).expect("a short log");
    });
}

/// All nodes below a bound.
struct Full(u64);

impl NodeSet for Full {
    fn has(&self, node: NodeIndex) -> bool {
        node.right_span().get() < self.0
    }

    fn bound(&self) -> u64 {
        self.0
    }
}

fn plan() {
    let present = Full(2_000_000);
    measured(&mut || {
        for block in 0..1000 {
            let leaf = NodeIndex::leaf(997 * block).expect("a small number");
            let plan = proof::plan(&present, &mut RemoteTree::new(), leaf, 0, false);
            black_box(plan).expect("it is there");
        }
    });
}

fn check() {
    let key_pair = KeyPair::from_seed(&[1; 32]);
    let blocks: Vec<_> = (0..1024).map(|_| Block::hash(vec![7; 64].into())).collect();
    let value = blocks[500].clone();
    let log = append::append(&Roots::new(), blocks, &key_pair).expect("a short log");
    let leaf = NodeIndex::leaf(500).expect("a small number");
    let plan = proof::plan(&Full(2047), &mut RemoteTree::new(), leaf, 0, false);
    let find = |index: &NodeIndex| -> Node {
        let node = log.nodes().iter().find(|node| node.index == *index);
        *node.expect("the writer has all")
    };
    let proof = Proof {
        nodes: plan.expect("it is there").nodes.iter().map(find).collect(),
        signature: log.signature().map(|(_, signature)| signature.clone()),
    };
    let verifier = Verifier::new(&key_pair.public_key());
    let nothing = Roots::new().head();
    measured(&mut || {
        let plan = verify::plan(&Full(0), 500, true, &proof).expect("a proof");
        plan.check(&verifier, &nothing, Some(value.clone()), &proof, &[])
            .expect("a true one");
    });
}

// ---- bitfields --------------------------------------------------------------------------------

fn scan() {
    let mut field = Bitfield::new(PageSize::Current);
    (0..100_000).step_by(3).for_each(|n| {
        field.set(n, true);
    });
    measured(&mut || {
        let mut here = (0..100_000).filter(|&n| field.get(n)).count();
        here += field.runs(0..100_000).count();
        let clear = std::iter::successors(Some(0), |&n| Some(field.next_clear(n + 1)));
        here += clear.take_while(|&n| n < 100_000).count();
        black_box(here);
    });
}

fn expand() {
    let bits: Vec<u8> = (0..1 << 17)
        .map(|n: u32| [0xff, 0x00, 0x55][(n / 50 % 3) as usize])
        .collect();
    let encoded = rle::encode(&bits);
    measured(&mut || assert_eq!(rle::decode(&encoded, bits.len()).expect("ours"), bits));
}

// ---- the wire ---------------------------------------------------------------------------------

fn block_of(size: usize) -> Message {
    let node = |index| DataNode {
        index,
        hash: [7; 32],
        size: 64,
    };
    Message::Data(Data {
        index: 123_456,
        value: Some(vec![7; size].into()),
        nodes: vec![node(246_914), node(246_917)],
        signature: None,
    })
}

fn decode() {
    let frame = Frame {
        channel: 0,
        body: Body::Message(block_of(64)),
    };
    let mut bytes = BytesMut::new();
    frame.encode(&mut bytes);
    let (bytes, limits) = (bytes.freeze(), Limits::default());
    measured(&mut || {
        for _ in 0..1000 {
            black_box(Frame::decode(bytes.clone(), &limits)).expect("a frame");
        }
    });
}

fn carry_blocks() {
    let (mut from, mut to, channel) = connected();
    let block = block_of(64 * 1024);
    measured(&mut || {
        for _ in 0..16 {
            from.send(channel, &block).expect("an open channel");
        }
        carry(&mut from, &mut to);
        let messages = std::iter::from_fn(|| to.poll_event())
            .filter(|event| matches!(event, Event::Message { .. }))
            .count();
        assert_eq!(messages, 16);
    });
}

/// Two sessions with one open channel, and its name at the first.
fn connected() -> (Session, Session, ChannelId) {
    let session = |role| {
        let options = SessionOptions::new(role).expect("randomness");
        Session::new(options, Instant::now()).expect("good options")
    };
    let (mut alice, mut bob) = (session(Role::Initiator), session(Role::Responder));
    let channel = alice.open(&[7; 32]).expect("a first channel");
    bob.open(&[7; 32]).expect("a first channel");
    while !(alice.outgoing().is_empty() && bob.outgoing().is_empty()) {
        carry(&mut alice, &mut bob);
        carry(&mut bob, &mut alice);
    }
    (alice, bob, channel)
}

/// In pieces as large as a socket gives at once.
fn carry(from: &mut Session, to: &mut Session) {
    let now = Instant::now();
    while !from.outgoing().is_empty() {
        let room = to.receive_buffer();
        let n = room.len().min(from.outgoing().len());
        room[..n].copy_from_slice(&from.outgoing()[..n]);
        to.received(now, n).expect("an honest peer");
        from.sent(now, n);
    }
}

// ---- the whole log ----------------------------------------------------------------------------

/// A log of `length` blocks of 64 bytes, always the same.
fn writer(length: usize) -> Hypercore {
    block_on(async {
        let core = Hypercore::options()
            .key_pair(KeyPair::from_seed(&[1; 32]))
            .open_storage(Memory::new())
            .await
            .expect("memory");
        let blocks = vec![Bytes::from_static(&[7; 64]); length];
        core.append_batch(blocks).await.expect("memory");
        core
    })
}

fn get() {
    let core = writer(10_000);
    measured(&mut || {
        block_on(async {
            for block in 0..1000 {
                core.get(9 * block).await.expect("it is there");
            }
        });
    });
}

fn replicate() {
    let origin = writer(2000);
    let clone = block_on(Hypercore::options().key(origin.key()).open_memory()).expect("memory");
    measured(&mut || {
        block_on(async {
            let end = |core: &Hypercore, role| -> Replication {
                core.replicate(role, ReplicateOptions::default())
                    .expect("an open core")
            };
            let (a_read, mut a_write) = io::split(end(&clone, Role::Initiator));
            let (b_read, mut b_write) = io::split(end(&origin, Role::Responder));
            let there = io::copy(a_read, &mut b_write);
            let back = io::copy(b_read, &mut a_write);
            let _ = future::zip(there, back).await;
        });
        assert_eq!(clone.downloaded(0..2000), 2000);
    });
}
