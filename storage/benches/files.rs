//! Nodes, blocks and pages in a directory: `cargo bench -p hypercore-storage`.
//!
//! Held against `pread` and `pwrite` of as many bytes, which is the least that the work can cost.
//! Nothing is synced.

use std::{fs::File, hint::black_box, os::unix::fs::FileExt, sync::Arc};

use criterion::{Criterion, Throughput};
use hypercore_merkle::{Node, NodeIndex};
use hypercore_storage::{Directory, FeedFiles};

/// Blocks of the log that is written and read.
const LENGTH: u64 = 100_000;

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    nodes(&mut criterion);
    blocks(&mut criterion);
    pages(&mut criterion);
    criterion.final_summary();
}

fn nodes(criterion: &mut Criterion) {
    let log = Log::new();
    let run: Vec<_> = (0..1000).map(node).collect();
    let mut group = criterion.benchmark_group("1,000 neighbours in the tree");
    group.throughput(Throughput::Elements(1000));
    group.bench_function("write_nodes", |bench| {
        bench.iter(|| log.files.write_nodes(black_box(&run)));
    });
    let bytes = vec![7; 40 * 1000];
    group.bench_function("one pwrite", |bench| {
        bench.iter(|| log.other.write_all_at(black_box(&bytes), 32));
    });
    group.finish();

    let mut group = criterion.benchmark_group("one node");
    let mut random = scattered();
    group.bench_function("of 200,000 at random", |bench| {
        bench.iter(|| {
            log.files
                .node(index(random.next().expect("without end") * 2))
        });
    });
    group.bench_function("read again and again", |bench| {
        bench.iter(|| log.files.node(black_box(index(1023))));
    });
    let mut record = [0; 40];
    group.bench_function("pread of 40 bytes", |bench| {
        bench.iter(|| {
            let at = random.next().expect("without end") * 80 % 39_000;
            log.other.read_exact_at(&mut record, at)
        });
    });
    group.finish();
}

fn blocks(criterion: &mut Criterion) {
    let log = Log::new();
    for size in [64, 64 * 1024] {
        let bytes = vec![7; size];
        let mut group = criterion.benchmark_group(format!("block of {size} bytes"));
        group.throughput(Throughput::Bytes(size as u64));
        group.bench_function("write_data", |bench| {
            bench.iter(|| log.files.write_data(4096, black_box(&bytes)));
        });
        group.bench_function("read_data", |bench| {
            bench.iter(|| log.files.read_data(4096, size as u64));
        });
        group.bench_function("pwrite", |bench| {
            bench.iter(|| log.other.write_all_at(black_box(&bytes), 4096));
        });
        let mut buffer = vec![0; size];
        group.bench_function("pread", |bench| {
            bench.iter(|| log.other.read_exact_at(&mut buffer, 4096));
        });
        group.finish();
    }
}

fn pages(criterion: &mut Criterion) {
    let log = Log::new();
    let page = [0xff; 3584];
    for number in 0..128 {
        log.files.write_page(number, &page).expect("a disk");
    }
    let mut group = criterion.benchmark_group("128 pages of the bitfield, 1,048,576 blocks");
    group.throughput(Throughput::Bytes(128 * 3584));
    group.bench_function("read all", |bench| {
        bench.iter(|| {
            let mut bits = 0;
            let read = log.files.pages(|_, page| bits += page.len());
            read.map(|()| bits)
        });
    });
    group.finish();
}

struct Log {
    files: FeedFiles,
    /// A plain file beside it.
    other: File,
    _directory: tempfile::TempDir,
}

impl Log {
    /// With all nodes of [`LENGTH`] blocks.
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("a disk");
        let storage = Directory::new(directory.path().join("log"));
        let files = FeedFiles::open(Arc::new(storage)).expect("a new log");
        files.write_headers().expect("a disk");
        let all: Vec<_> = (0..2 * LENGTH).map(node).collect();
        files.write_nodes(&all).expect("a disk");
        let options = File::options()
            .read(true)
            .write(true)
            .create(true)
            .to_owned();
        let other = options
            .open(directory.path().join("other"))
            .expect("a disk");
        other.write_all_at(&vec![7; 1 << 20], 0).expect("a disk");
        Self {
            files,
            other,
            _directory: directory,
        }
    }
}

fn node(number: u64) -> Node {
    Node {
        index: index(number),
        size: 64,
        hash: [7; 32],
    }
}

fn index(number: u64) -> NodeIndex {
    NodeIndex::new(number).expect("a small number")
}

/// Block numbers without end, in an order that no cache likes.
fn scattered() -> impl Iterator<Item = u64> {
    (0_u64..).map(|n| n.wrapping_mul(0x9e37_79b9_7f4a_7c15) % LENGTH)
}
