//! Frames and whole sessions: `cargo bench -p hypercore-wire`.
//!
//! A frame is held against prost, which reads and writes the same bytes, and encryption against the
//! crate `salsa20`.

use std::hint::black_box;
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use criterion::{BatchSize, Criterion, Throughput};
use hypercore_wire::{
    Body, ChannelId, Data, DataNode, Event, Frame, Have, Limits, Message, Role, Session,
    SessionOptions,
};
use prost::Message as _;
use salsa20::{
    XSalsa20,
    cipher::{KeyIvInit, StreamCipher},
};

const KEY: [u8; 32] = [7; 32];

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    frames(&mut criterion);
    handshakes(&mut criterion);
    sessions(&mut criterion);
    criterion.final_summary();
}

fn frames(criterion: &mut Criterion) {
    let limits = Limits::default();
    let frame = Frame {
        channel: 0,
        body: Body::Message(Message::Data(small_block())),
    };
    let mut bytes = BytesMut::new();
    frame.encode(&mut bytes);
    let bytes = bytes.freeze();
    // Behind the header, which takes one byte here.
    let theirs = Prost::decode(&bytes[1..]).expect("the same format");

    let mut group = criterion.benchmark_group("block of 64 bytes with 2 nodes");
    group.throughput(Throughput::Bytes(bytes.len() as u64));
    group.bench_function("decode, ours", |bench| {
        bench.iter(|| Frame::decode(black_box(bytes.clone()), &limits));
    });
    group.bench_function("decode, prost", |bench| {
        bench.iter(|| Prost::decode(black_box(bytes.slice(1..))));
    });
    group.bench_function("encode, ours", |bench| {
        bench.iter_batched_ref(
            || BytesMut::with_capacity(512),
            |out| black_box(&frame).encode(out),
            BatchSize::SmallInput,
        );
    });
    group.bench_function("encode, prost", |bench| {
        bench.iter_batched_ref(
            || BytesMut::with_capacity(512),
            |out| black_box(&theirs).encode(out),
            BatchSize::SmallInput,
        );
    });
    group.finish();
}

fn handshakes(criterion: &mut Criterion) {
    criterion.bench_function("handshake and channel, both sides", |bench| {
        bench.iter(connected);
    });
}

fn sessions(criterion: &mut Criterion) {
    for (name, message, count) in [
        ("blocks of 64 KiB", Message::Data(large_block()), 16),
        ("blocks of 64 bytes", Message::Data(small_block()), 1000),
        ("Haves", Message::Have(Have::block(123_456)), 1000),
    ] {
        let (mut from, mut to, channel) = connected();
        let mut group = criterion.benchmark_group(format!("{count} {name}"));
        let bytes = from.bytes_sent();
        exchange(&mut from, &mut to, channel, &message, count);
        let bytes = from.bytes_sent() - bytes;
        group.throughput(Throughput::Bytes(bytes));
        group.bench_function("sent and received", |bench| {
            bench.iter(|| exchange(&mut from, &mut to, channel, &message, count));
        });
        // Each byte is encrypted by one side and decrypted by the other.
        let mut cipher = XSalsa20::new(&KEY.into(), &[7; 24].into());
        let mut memory = vec![0; bytes as usize];
        group.bench_function("encrypted twice by salsa20 alone", |bench| {
            bench.iter(|| {
                cipher.apply_keystream(&mut memory);
                cipher.apply_keystream(black_box(&mut memory));
            });
        });
        group.finish();
    }
}

fn exchange(
    from: &mut Session,
    to: &mut Session,
    channel: ChannelId,
    message: &Message,
    count: u32,
) {
    for _ in 0..count {
        from.send(channel, message).expect("an open channel");
    }
    carry(from, to);
    let messages = std::iter::from_fn(|| to.poll_event())
        .filter(|event| matches!(event, Event::Message { .. }))
        .count();
    assert_eq!(messages, count as usize);
}

/// Two sessions with one open channel, and its name at the first.
fn connected() -> (Session, Session, ChannelId) {
    let now = Instant::now();
    let session = |role| {
        let options = SessionOptions::new(role).expect("randomness");
        Session::new(options, now).expect("good options")
    };
    let (mut alice, mut bob) = (session(Role::Initiator), session(Role::Responder));
    let channel = alice.open(&KEY).expect("a first channel");
    bob.open(&KEY).expect("a first channel");
    while !(alice.outgoing().is_empty() && bob.outgoing().is_empty()) {
        carry(&mut alice, &mut bob);
        carry(&mut bob, &mut alice);
    }
    while bob.poll_event().is_some() {}
    assert!(alice.is_open(channel), "both opened it");
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

fn small_block() -> Data {
    Data {
        index: 123_456,
        value: Some(Bytes::from_static(&[7; 64])),
        nodes: vec![node(246_914), node(246_917)],
        signature: None,
    }
}

fn large_block() -> Data {
    Data {
        value: Some(vec![7; 64 * 1024].into()),
        ..small_block()
    }
}

const fn node(index: u64) -> DataNode {
    DataNode {
        index,
        hash: [7; 32],
        size: 64,
    }
}

/// Data and Node of Hypercore 9 (`hypercore-protocol/schema.proto`).
#[derive(Clone, PartialEq, prost::Message)]
struct Prost {
    #[prost(uint64, required, tag = "1")]
    index: u64,
    #[prost(bytes = "bytes", optional, tag = "2")]
    value: Option<Bytes>,
    #[prost(message, repeated, tag = "3")]
    nodes: Vec<ProstNode>,
    #[prost(bytes = "bytes", optional, tag = "4")]
    signature: Option<Bytes>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ProstNode {
    #[prost(uint64, required, tag = "1")]
    index: u64,
    #[prost(bytes = "bytes", required, tag = "2")]
    hash: Bytes,
    #[prost(uint64, required, tag = "3")]
    size: u64,
}
