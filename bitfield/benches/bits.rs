//! Ten million bits, against `sparse-bitfield` and `bitfield-rle`: `cargo bench -p hypercore-bitfield`.

use std::hint::black_box;

use criterion::{BatchSize, Criterion, Throughput};
use hypercore_bitfield::{Bitfield, PageSize, rle};

const BITS: u64 = 10_000_000;

/// How many of them a measurement reads or sets.
const SOME: u64 = 10_000;

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    bits(&mut criterion);
    ranges(&mut criterion);
    run_lengths(&mut criterion);
    criterion.final_summary();
}

fn bits(criterion: &mut Criterion) {
    let (ours, mut theirs) = half_set();
    for (order, step) in [("in order", 1), ("at random", 0x9e37_79b9_7f4a_7c15)] {
        let scattered = || (0..SOME).map(move |n: u64| n.wrapping_mul(step) % BITS);
        let mut group = criterion.benchmark_group(format!("get {order}"));
        group.throughput(Throughput::Elements(SOME));
        group.bench_function("ours", |bench| {
            bench.iter(|| scattered().filter(|&n| ours.get(n)).count());
        });
        group.bench_function("sparse-bitfield", |bench| {
            bench.iter(|| scattered().filter(|&n| theirs.get(n as usize)).count());
        });
        group.finish();

        let mut group = criterion.benchmark_group(format!("set {order}"));
        group.throughput(Throughput::Elements(SOME));
        group.bench_function("ours", |bench| {
            bench.iter_batched_ref(
                empty,
                |field| scattered().filter(|&n| field.set(n, true)).count(),
                BatchSize::SmallInput,
            );
        });
        group.bench_function("sparse-bitfield", |bench| {
            bench.iter_batched_ref(
                || sparse_bitfield::Bitfield::new(1024),
                |field| {
                    scattered()
                        .filter(|&n| field.set(n as usize, true).is_changed())
                        .count()
                },
                BatchSize::SmallInput,
            );
        });
        group.finish();
    }
}

fn ranges(criterion: &mut Criterion) {
    let (some, _) = half_set();
    let mut all = empty();
    all.set_range(0..BITS, true);

    let mut group = criterion.benchmark_group("of 10,000,000 bits");
    group.bench_function("set all as a range", |bench| {
        bench.iter_batched_ref(
            empty,
            |field| field.set_range(0..BITS, true),
            BatchSize::LargeInput,
        );
    });
    group.bench_function("first that is clear, all set", |bench| {
        bench.iter(|| black_box(&all).next_clear(0));
    });
    group.bench_function("count, every other set", |bench| {
        bench.iter(|| black_box(&some).count(5..BITS - 5));
    });
    group.bench_function("all runs, every other set", |bench| {
        bench.iter(|| black_box(&some).runs(0..BITS).count());
    });
    let mut page = [0; 3584];
    group.bench_function("a page as the file has it", |bench| {
        bench.iter(|| black_box(&some).encode_page(3, &mut page));
    });
    group.finish();
}

fn run_lengths(criterion: &mut Criterion) {
    // An answer to a Want: 2^20 bits, in runs of some hundred.
    let bits: Vec<u8> = (0..1 << 17)
        .map(|n: u32| [0xff, 0x00, 0x55][(n / 50 % 3) as usize])
        .collect();
    let encoded = rle::encode(&bits);
    assert_eq!(bitfield_rle::encode(&bits), encoded);

    let mut group = criterion.benchmark_group("run lengths of 2^20 bits");
    group.throughput(Throughput::Bytes(bits.len() as u64));
    group.bench_function("encode, ours", |bench| {
        bench.iter(|| rle::encode(black_box(&bits)))
    });
    group.bench_function("encode, bitfield-rle", |bench| {
        bench.iter(|| bitfield_rle::encode(black_box(&bits)));
    });
    group.bench_function("decode, ours", |bench| {
        bench.iter(|| rle::decode(black_box(&encoded), bits.len()));
    });
    group.bench_function("decode, bitfield-rle", |bench| {
        bench.iter(|| bitfield_rle::decode(black_box(&encoded[..])));
    });
    group.finish();
}

/// Every other bit of [`BITS`] is set.
fn half_set() -> (Bitfield, sparse_bitfield::Bitfield) {
    let (mut ours, mut theirs) = (empty(), sparse_bitfield::Bitfield::new(1024));
    for n in (0..BITS).step_by(2) {
        ours.set(n, true);
        theirs.set(n as usize, true);
    }
    (ours, theirs)
}

fn empty() -> Bitfield {
    Bitfield::new(PageSize::Current)
}
