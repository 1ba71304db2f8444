//! Nothing acknowledged is lost: not by a loss of power at any point, nor by any failure of the
//! disk, nor by both.
//!
//! `HYPERCORE_CRASH_SEEDS=1000..100000 cargo test --release -p hypercore --test it crash::` tries
//! more, and `HYPERCORE_CRASH_SEEDS=17..18` repeats one. With `HYPERCORE_NODE_MODULES`, Node audits
//! every log of a writer that was opened again.

mod cleared;
mod clone;
mod creation;
mod damaged;
mod elsewhere;
mod failures;
mod levels;
mod node;
mod prefixes;
mod recovery;
mod writer;

use std::{
    env,
    ops::Range,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
    thread,
};

use hypercore::{Hypercore, storage::testing::FaultStorage};

/// SplitMix64, so that a seed means the same everywhere.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % end
    }

    /// Whether something happens that happens once in `times`.
    fn once_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }
}

/// What was opened after a crash leaves nothing behind that anybody would find fault with.
async fn assert_verifies(disk: &FaultStorage) {
    let report = Hypercore::verify_storage(disk.image()).await.unwrap();
    assert!(report.is_ok(), "{:?}", report.problems);
}

/// The seeds to try, by default the first 1,000.
fn seeds() -> Range<u64> {
    let Ok(seeds) = env::var("HYPERCORE_CRASH_SEEDS") else {
        return 0..1000;
    };
    let number = |text: &str| text.parse().expect("seeds are START..END");
    let (start, end) = seeds.split_once("..").unwrap_or(("0", &seeds));
    number(start)..number(end)
}

/// Runs `check` for all numbers of a range on a few threads; the first that fails.
fn first_failure(range: Range<u64>, check: impl Fn(u64) + Sync) -> Option<u64> {
    let next = AtomicU64::new(range.start);
    let failed = Mutex::new(None);
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(2, usize::from) {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= range.end {
                        break;
                    }
                    if catch_unwind(AssertUnwindSafe(|| check(number))).is_err() {
                        failed.lock().unwrap().get_or_insert(number);
                        next.store(range.end, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    failed.into_inner().unwrap()
}

/// Runs `check` for all [`seeds`], and says how to repeat one that fails.
fn for_all_seeds(test: &str, check: impl Fn(u64) + Sync) {
    let seeds = seeds();
    if let Some(seed) = first_failure(seeds.clone(), check) {
        let end = seed + 1;
        panic!(
            "HYPERCORE_CRASH_SEEDS={seed}..{end} cargo test -p hypercore --test it {test} repeats it"
        );
    }
    println!("seeds {seeds:?}");
}
