//! `clone` from peers that lie: nothing false is stored, and an honest peer makes the clone whole.

use std::{
    collections::BTreeSet,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    thread,
    time::{Duration, Instant},
};

use async_std::task::block_on;
use hypercore::{
    Bytes, GetOptions, Hypercore, KeyPair, ProofOptions,
    wire::{
        ChannelId, Data, DataNode, Event, Have, Message, Role, Session, SessionOptions, Unhave,
    },
};

use crate::process::{KEY, Process, SEED, Scene};

const BLOCKS: u64 = 40;

/// A block, of another size than its neighbours.
fn block(index: u64) -> String {
    format!("block {index} ").repeat(1 + index as usize % 7)
}

/// What is sent instead of an honest answer; the second is the answer for the next block.
type Answer = fn(Data, Data) -> Vec<Data>;

/// Whoever answers so has every answer refused.
const FALSE_ANSWERS: [(&str, Answer); 20] = [
    ("another byte", |it, _| {
        with_value(it, |value| value[0] ^= 1)
    }),
    ("a byte more", |it, _| with_value(it, |value| value.push(0))),
    ("a byte less", |it, _| {
        with_value(it, |value| value.truncate(value.len() - 1))
    }),
    ("no bytes", |it, _| with_value(it, Vec::clear)),
    ("a megabyte", |it, _| {
        with_value(it, |value| value.resize(1 << 20, 7))
    }),
    ("another block", |it, next| with_index(it.index, next)),
    ("another block with this proof", |it, next| {
        vec![Data {
            value: next.value,
            ..it
        }]
    }),
    ("this block with another proof", |it, next| {
        vec![Data {
            value: it.value,
            index: it.index,
            ..next
        }]
    }),
    ("this block under another number", |it, next| {
        with_index(next.index, it)
    }),
    ("this block far beyond the end", |it, _| {
        with_index(1 << 51, it)
    }),
    ("another hash", |it, _| {
        with_nodes(it, |nodes| nodes[0].hash[0] ^= 1)
    }),
    ("another size", |it, _| {
        with_nodes(it, |nodes| nodes[0].size += 1)
    }),
    ("the greatest size", |it, _| {
        with_nodes(it, |nodes| nodes[0].size = (1 << 53) - 1)
    }),
    ("another position", |it, _| {
        with_nodes(it, |nodes| nodes[0].index ^= 2)
    }),
    ("the greatest position", |it, _| {
        with_nodes(it, |nodes| nodes[0].index = (1 << 53) - 1)
    }),
    ("one node less", |it, _| {
        with_nodes(it, |nodes| nodes.truncate(nodes.len() - 1))
    }),
    ("the nodes backwards", |it, _| {
        with_nodes(it, |nodes| nodes.reverse())
    }),
    ("no proof", |it, _| with_nodes(it, Vec::clear)),
    ("another signature", |it, _| {
        let signature = it.signature.map(|mut bytes| {
            bytes[40] ^= 1;
            bytes
        });
        vec![Data { signature, ..it }]
    }),
    ("no signature", |it, _| {
        vec![Data {
            signature: None,
            ..it
        }]
    }),
];

fn with_value(it: Data, change: impl FnOnce(&mut Vec<u8>)) -> Vec<Data> {
    let mut value = it.value.clone().expect("an answer has a block").to_vec();
    change(&mut value);
    let value = Some(Bytes::from(value));
    vec![Data { value, ..it }]
}

fn with_nodes(mut it: Data, change: impl FnOnce(&mut Vec<DataNode>)) -> Vec<Data> {
    change(&mut it.nodes);
    vec![it]
}

fn with_index(index: u64, it: Data) -> Vec<Data> {
    vec![Data { index, ..it }]
}

fn honest(it: Data, _: Data) -> Vec<Data> {
    vec![it]
}

fn nothing(_: Data, _: Data) -> Vec<Data> {
    Vec::new()
}

/// One that knows the key and says what it likes.
#[derive(Clone)]
struct Liar {
    /// What it says of itself, before anything was asked.
    claims: Vec<Message>,
    answer: Answer,
    core: Hypercore,
}

impl Liar {
    fn new(claims: Vec<Message>, answer: Answer) -> Self {
        Self::of(block, claims, answer)
    }

    /// One with blocks of its own, which it has signed.
    fn of(block: fn(u64) -> String, claims: Vec<Message>, answer: Answer) -> Self {
        let seed = hex::decode(SEED).unwrap().try_into().unwrap();
        let options = Hypercore::options().key_pair(KeyPair::from_seed(&seed));
        let core = block_on(options.open_memory()).unwrap();
        block_on(core.append_batch((0..BLOCKS).map(block).collect::<Vec<_>>())).unwrap();
        Self {
            claims,
            answer,
            core,
        }
    }

    /// Waits for calls, for as long as the test runs; returns where.
    fn listen(self) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let liar = self.clone();
                // That the other side hangs up is no wonder.
                thread::spawn(move || liar.lie(stream.unwrap()));
            }
        });
        address
    }

    fn lie(&self, mut stream: TcpStream) -> Option<()> {
        let mut session = Session::new(
            SessionOptions::new(Role::Responder).unwrap(),
            Instant::now(),
        )
        .unwrap();
        let channel = session.open(self.core.key().as_bytes()).unwrap();
        let mut buffer = [0; 4096];
        stream
            .set_read_timeout(Some(Duration::from_secs(1)))
            .unwrap();
        loop {
            let now = Instant::now();
            match stream.read(&mut buffer) {
                Ok(0) => return None,
                Ok(count) => session.receive(now, &buffer[..count]).ok()?,
                // It stays alive, whatever it does otherwise.
                Err(_) => session.handle_timeout(now).ok()?,
            }
            while let Some(event) = session.poll_event() {
                match event {
                    Event::Opened { .. } => {
                        for claim in &self.claims {
                            session.send(channel, claim).ok()?;
                        }
                    }
                    Event::Message {
                        message: Message::Request(request),
                        ..
                    } => {
                        self.reply(&mut session, channel, request.index, request.nodes)?;
                    }
                    _ => {}
                }
                stream.write_all(session.outgoing()).ok()?;
                session.sent(now, session.outgoing().len());
            }
            stream.write_all(session.outgoing()).ok()?;
            session.sent(now, session.outgoing().len());
        }
    }

    fn reply(
        &self,
        session: &mut Session,
        channel: ChannelId,
        index: u64,
        digest: u64,
    ) -> Option<()> {
        if index >= BLOCKS {
            return Some(());
        }
        let next = (index + 1) % BLOCKS;
        for answer in (self.answer)(self.truth(index, digest), self.truth(next, 0)) {
            session.send(channel, &Message::Data(answer)).ok()?;
        }
        Some(())
    }

    /// What an honest peer would answer.
    fn truth(&self, index: u64, digest: u64) -> Data {
        block_on(async {
            let mut options = ProofOptions::default();
            options.digest = digest;
            let proof = self.core.proof_with(index, options).await.unwrap().unwrap();
            let node = |node: &hypercore::merkle::Node| DataNode {
                index: node.index.get(),
                hash: node.hash,
                size: node.size,
            };
            Data {
                index,
                value: Some(
                    self.core
                        .get_with(index, GetOptions::local())
                        .await
                        .unwrap(),
                ),
                nodes: proof.nodes.iter().map(node).collect(),
                signature: proof.signature.map(Into::into),
            }
        })
    }
}

/// That it has blocks.
fn have(start: u64, length: u64) -> Message {
    Message::Have(Have {
        length,
        ..Have::block(start)
    })
}

/// Whatever is in the copy is true, and signed.
#[track_caller]
fn holds_nothing_false(scene: &Scene, dir: &str) {
    if scene.path(dir).exists() {
        let verified = scene.run(["verify", dir, "--json"]).ok().json();
        assert_eq!(verified["ok"], true, "{verified}");
    }
}

/// An honest peer.
fn serve(scene: &Scene) -> (Process, String) {
    scene.core("log", &[]);
    let lines: String = (0..BLOCKS).map(|index| block(index) + "\n").collect();
    scene
        .feed(["append", "log", "--lines"], lines.as_bytes())
        .ok();
    scene.serve("log", &[])
}

/// A clone from a liar alone, and then from a liar and an honest peer.
fn suffer(name: &str, liar: &Liar, alone: bool) {
    let scene = Scene::new();
    let address = liar.clone().listen();
    if alone {
        let done = scene.run(["clone", KEY, "alone", "--connect", &address]);
        assert!(matches!(done.code, Some(1 | 6)), "{name}: {done:?}");
        assert!(!done.stderr.contains("panicked"), "{name}: {}", done.stderr);
        assert!(done.stderr.contains("error:"), "{name}: {}", done.stderr);
        holds_nothing_false(&scene, "alone");
    }
    let (_server, server) = serve(&scene);
    let args = [
        "clone",
        KEY,
        "both",
        "--json",
        "--connect",
        &address,
        &server,
    ];
    let done = scene.run(args);
    assert_eq!(done.code, Some(0), "{name}: {}", done.stderr);
    assert_eq!(done.json()["length"], BLOCKS, "{name}");
    let whole: String = (0..BLOCKS).map(block).collect();
    assert_eq!(scene.run(["cat", "both"]).ok().text(), whole, "{name}");
    scene.run(["verify", "both"]).ok();
}

/// All at a time: most of what they do is to wait.
fn suffer_all(liars: Vec<(&str, Liar)>, alone: bool) {
    thread::scope(|scope| {
        for (name, liar) in liars {
            scope.spawn(move || suffer(name, &liar, alone));
        }
    });
}

#[test]
fn an_honest_one_is_believed() {
    let scene = Scene::new();
    let address = Liar::new(vec![have(0, BLOCKS)], honest).listen();
    let done = scene.run(["clone", KEY, "copy", "--json", "--connect", &address]);
    assert_eq!(done.ok().json()["downloaded"], BLOCKS);
}

#[test]
fn false_answers() {
    let liars = FALSE_ANSWERS.map(|(name, answer)| {
        let liar = Liar::new(vec![have(0, BLOCKS)], answer);
        (name, liar)
    });
    suffer_all(liars.into(), true);
}

/// What it says of itself is false, and what it answers is true.
#[test]
fn false_claims() {
    let noise = Message::Have(Have {
        length: 1 << 20,
        bitfield: Some(Bytes::from(
            [&[0x80, 0x80, 0x08][..], &[0x55; 65_536]].concat(),
        )),
        ..Have::block(0)
    });
    let most = (1 << 52) - 1;
    let claims = [
        ("more blocks than there are", vec![have(0, 2 * BLOCKS)]),
        ("as many blocks as there can be", vec![have(0, most)]),
        (
            "the last block there can be",
            vec![have(0, BLOCKS), have(most, 1)],
        ),
        ("every second block of a million", vec![noise]),
        (
            "blocks without end",
            (0..5000).map(|at| have(at << 13, 1)).collect(),
        ),
        (
            "all and nothing",
            vec![
                have(0, BLOCKS),
                Message::Unhave(Unhave {
                    start: 0,
                    length: most,
                }),
            ],
        ),
    ];
    let liar = |(name, claims)| (name, Liar::new(claims, honest));
    suffer_all(claims.map(liar).into(), false);
}

/// Nobody waits for it, if there is somebody else.
#[test]
fn one_that_never_answers() {
    let liar = Liar::new(vec![have(0, BLOCKS)], nothing);
    suffer("never answers", &liar, true);
}

/// One of two histories is taken, and as a whole; the other one is proved.
#[test]
fn another_history() {
    let scene = Scene::new();
    let other = Liar::of(
        |index| format!("other {index}"),
        vec![have(0, BLOCKS)],
        honest,
    );
    let addresses = [other, Liar::new(vec![have(0, BLOCKS)], honest)].map(Liar::listen);
    let done = scene.run([
        "clone",
        KEY,
        "copy",
        "--connect",
        &addresses[0],
        &addresses[1],
    ]);
    assert!(matches!(done.code, Some(0 | 1 | 4 | 6)), "{done:?}");
    scene.run(["verify", "copy"]).ok();
    let copy = block_on(Hypercore::options().open(scene.path("copy"))).unwrap();
    let stored = (0..BLOCKS).filter(|&index| copy.has(index));
    let of_other = |index| block_on(copy.get(index)).unwrap().starts_with(b"other");
    let histories: BTreeSet<bool> = stored.map(of_other).collect();
    assert!(histories.len() <= 1, "blocks of both");
}

/// Opens the core and closes it in one breath, with the connection.
fn leave_at_once(mut stream: TcpStream) {
    let options = SessionOptions::new(Role::Responder).unwrap();
    let mut session = Session::new(options, Instant::now()).unwrap();
    let key = hex::decode(KEY).unwrap().try_into().unwrap();
    let mut buffer = [0; 4096];
    loop {
        let count = stream.read(&mut buffer).unwrap();
        session.receive(Instant::now(), &buffer[..count]).unwrap();
        let is_there = matches!(session.poll_event(), Some(Event::Handshake { .. }));
        if is_there {
            let channel = session.open(&key).unwrap();
            session.close(channel);
        }
        stream.write_all(session.outgoing()).unwrap();
        session.sent(Instant::now(), session.outgoing().len());
        if is_there {
            return;
        }
    }
}

/// It was waited for without end.
#[test]
fn one_that_leaves_at_once() {
    let scene = Scene::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    thread::spawn(move || leave_at_once(listener.accept().unwrap().0));
    let start = Instant::now();
    let done = scene.run(["get", KEY, "0", "--connect", &address]);
    done.fails(6, &["the last peer is gone"]);
    assert!(start.elapsed() < Duration::from_secs(10));
}
