//! Ten million bits, against `sparse-bitfield`: `cargo bench -p hypercore-bitfield`.

use hypercore_bitfield::{Bitfield, PageSize};
use std::hint::black_box;
use std::time::Instant;

const BITS: u64 = 10_000_000;

fn main() {
    println!("{:<42}{:>12}{:>18}", "", "ours", "sparse-bitfield");
    let scattered = || (0..BITS).map(|n| n.wrapping_mul(0x9e37_79b9_7f4a_7c15) % BITS);

    let (mut ours, mut theirs) = (empty(), sparse());
    row(
        "set in order, ns",
        per_bit(|| assert!((0..BITS).all(|n| ours.set(n, true)))),
        per_bit(|| assert!((0..BITS).all(|n| theirs.set(n as usize, true).is_changed()))),
    );
    row(
        "get in order, all set, ns",
        per_bit(|| assert!((0..BITS).all(|n| ours.get(n)))),
        per_bit(|| assert!((0..BITS).all(|n| theirs.get(n as usize)))),
    );
    row(
        "first clear of ten million, us",
        micros(|| assert_eq!(black_box(&ours).next_clear(0), BITS)),
        micros(|| assert!((0..BITS + 1).any(|n| !theirs.get(n as usize)))),
    );
    row(
        "set ten million as a range, us",
        micros(|| assert_eq!(empty().set_range(0..BITS, true), BITS)),
        f64::NAN,
    );

    let (mut ours, mut theirs) = (empty(), sparse());
    let (mut a, mut b) = (0, 0);
    row(
        "set at random, ns",
        per_bit(|| {
            a = scattered()
                .step_by(2)
                .filter(|&n| ours.set(n, true))
                .count()
        }) * 2.0,
        per_bit(|| {
            b = scattered()
                .step_by(2)
                .filter(|&n| theirs.set(n as usize, true).is_changed())
                .count()
        }) * 2.0,
    );
    row(
        "get at random, some set, ns",
        per_bit(|| a = scattered().filter(|&n| ours.get(n)).count()),
        per_bit(|| b = scattered().filter(|&n| theirs.get(n as usize)).count()),
    );
    assert_eq!(a, b);
    row(
        "all runs, some set, ns a bit",
        per_bit(|| a = ours.runs(0..BITS).count()),
        f64::NAN,
    );
    row(
        "count, some set, us",
        micros(|| b = black_box(&ours).count(5..BITS - 5) as usize),
        f64::NAN,
    );
    let mut page = [0; 3584];
    row(
        "a page as the file has it, us",
        micros(|| ours.encode_page(3, &mut page)),
        f64::NAN,
    );
    row(
        "answer to a Want of 2^20 blocks, us",
        micros(|| a += ours.rle(0..1 << 20).len()),
        f64::NAN,
    );
    black_box((a, b));
}

fn empty() -> Bitfield {
    Bitfield::new(PageSize::Current)
}

fn sparse() -> sparse_bitfield::Bitfield {
    sparse_bitfield::Bitfield::new(1024)
}

fn per_bit(run: impl FnOnce()) -> f64 {
    micros(run) * 1000.0 / BITS as f64
}

fn micros(run: impl FnOnce()) -> f64 {
    let began = Instant::now();
    run();
    began.elapsed().as_secs_f64() * 1e6
}

fn row(name: &str, ours: f64, theirs: f64) {
    println!("{name:<42}{ours:>12.2}{theirs:>18.2}");
}
