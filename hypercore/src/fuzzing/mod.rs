//! Bodies of the fuzz targets. `cargo test` runs them too, on the committed corpus and on
//! generated input.

mod crash;
mod hostile;
mod replicate;

pub use crash::storage_crash;
pub use hostile::hypercore_hostile;
pub use replicate::hypercore_replicate;

use futures_lite::future::block_on;
use hypercore_storage::{FileName, Memory, Storage};

use crate::{Audit, Error, GetOptions, Hypercore};

/// Six files with arbitrary content, opened as a core, and repaired.
///
/// Each file is a length of two bytes, big endian, and so many bytes; the upper bit of the length
/// adds one byte far away, which leaves a file that is nearly all hole.
///
/// * There is a core, or an error that blames the files.
/// * An audit and single reads agree on every block, and neither changes a byte.
/// * A block that such a core takes is there when the core is opened again.
/// * What is found to be whole, or was made whole by a repair, opens and passes the audit.
pub fn hypercore_open(data: &[u8]) {
    block_on(async {
        use_core(&six_files(data)).await;
        repair_core(&six_files(data)).await;
    });
}

async fn use_core(memory: &Memory) {
    let core = match open(memory).await {
        Ok(core) => core,
        Err(Error::NoCore) => return,
        Err(error) => return assert_blames_files(&error),
    };
    let before = heads_of(memory);
    let audit = core
        .audit()
        .await
        .expect("an audit tells, and does not fail");
    check_reads(&core, &audit).await;
    drop(core);
    assert_eq!(before, heads_of(memory), "reading changed a file");

    let core = open(memory).await.expect("it was opened before");
    let length = core.length();
    let appended = core.append("one more").await.is_ok();
    for blocks in [length / 2..length, 0..length] {
        if let Err(error) = core.clear(blocks).await {
            assert_blames_files(&error);
        }
    }
    // What failed may have left the core unusable, so that it has nothing to flush.
    let _ = core.close().await;
    let core = open(memory).await.expect("it was opened before");
    if appended {
        assert_eq!(core.length(), length + 1);
        let last = core.get_with(length, GetOptions::local()).await;
        assert_eq!(last.expect("it was just appended"), "one more");
    }
}

async fn repair_core(memory: &Memory) {
    let before = heads_of(memory);
    let verified = Hypercore::verify_storage(memory.clone()).await;
    assert_eq!(before, heads_of(memory), "looking changed a file");
    let whole = match verified {
        Ok(verification) => verification.is_ok(),
        Err(Error::NoCore) => false,
        Err(error) => {
            assert_blames_files(&error);
            false
        }
    };
    if whole {
        assert_passes_audit(memory).await;
    }
    let repair = match Hypercore::repair_storage(memory.clone()).await {
        Ok(repair) => repair,
        Err(Error::NoCore) => return,
        Err(error) => {
            assert!(!whole, "nothing was wrong, but: {error:?}");
            return assert_blames_files(&error);
        }
    };
    if whole {
        assert_eq!((repair.repaired, repair.dropped.len()), (0, 0));
    }
    if !repair.remaining.is_ok() {
        return;
    }
    assert_passes_audit(memory).await;
    let again = Hypercore::repair_storage(memory.clone()).await;
    let again = again.expect("nothing was left to repair");
    assert_eq!((again.repaired, again.dropped.len()), (0, 0));
    assert!(again.remaining.is_ok());
}

async fn assert_passes_audit(memory: &Memory) {
    let core = open(memory).await.expect("nothing is wrong with it");
    let audit = core.audit().await.expect("an audit does not fail");
    assert_eq!(audit.invalid, [0; 0]);
}

async fn open(memory: &Memory) -> Result<Hypercore, Error> {
    let options = Hypercore::options().create_if_missing(false);
    options.open_storage(memory.clone()).await
}

/// Reads what failed the audit, and around the edges.
async fn check_reads(core: &Hypercore, audit: &Audit) {
    let claimed = audit.valid + audit.invalid.len() as u64;
    assert_eq!(claimed, core.downloaded(0..u64::MAX));
    let edges = [0, 1, 2, 3, 8191, 8192, core.length(), u64::MAX];
    for index in audit.invalid.iter().copied().take(64).chain(edges) {
        let passed = core.has(index) && !audit.invalid.contains(&index);
        match core.get_with(index, GetOptions::local()).await {
            Ok(_) => assert!(passed, "block {index} failed the audit"),
            Err(Error::BlockNotStored { .. }) => assert!(!core.has(index)),
            Err(error) => {
                assert!(!passed, "block {index} passed the audit: {error:?}");
                assert_blames_files(&error);
            }
        }
    }
}

fn assert_blames_files(error: &Error) {
    assert!(
        error.is_corruption(),
        "not the fault of the files: {error:?}"
    );
}

/// The longest file of an input, and how much of each is compared.
const MAX_LEN: usize = 0x7fff;

fn six_files(mut data: &[u8]) -> Memory {
    let memory = Memory::new();
    for file in FileName::ALL {
        let (high, low) = match data.split_off(..2.min(data.len())) {
            Some(&[high, low]) => (high, low),
            _ => (0, 0),
        };
        let length = usize::from(u16::from_be_bytes([high, low])) & MAX_LEN;
        let content = data.split_off(..length.min(data.len())).unwrap_or_default();
        memory.write(file, content);
        if high & 0x80 != 0 {
            // Some files are read from end to end, which takes its time.
            let far = if file == FileName::Tree {
                1 << 40
            } else {
                1 << 20
            };
            let written = memory.open(file).and_then(|file| file.write_at(far, &[1]));
            written.expect("memory does not fail");
        }
    }
    memory
}

fn heads_of(memory: &Memory) -> [(u64, Vec<u8>); FileName::ALL.len()] {
    FileName::ALL.map(|file| head_of(memory, file))
}

/// The length of a file and its first bytes: all but the holes.
fn head_of(memory: &Memory, file: FileName) -> (u64, Vec<u8>) {
    let file = memory.open(file).expect("memory does not fail");
    let length = file.len().expect("memory does not fail");
    let mut head = vec![0; MAX_LEN.min(usize::try_from(length).unwrap_or(MAX_LEN))];
    file.read_at(0, &mut head).expect("memory does not fail");
    (length, head)
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use proptest::{collection::vec, prelude::*, sample::Index, test_runner::RngSeed};

    use super::{hypercore_hostile, hypercore_open, hypercore_replicate, storage_crash};

    fn corpus(target: &str) -> Vec<Vec<u8>> {
        let path = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../fuzz/corpus")
            .join(target);
        let entries = fs::read_dir(path).expect("there is a corpus");
        let seeds: Vec<_> = entries
            .map(|entry| fs::read(entry.unwrap().path()).unwrap())
            .collect();
        assert!(!seeds.is_empty());
        seeds
    }

    #[test]
    fn the_corpus_holds() {
        let replay = |target, body: fn(&[u8])| corpus(target).iter().for_each(|seed| body(seed));
        replay("hypercore_hostile", hypercore_hostile);
        replay("hypercore_open", hypercore_open);
        replay("hypercore_replicate", hypercore_replicate);
        replay("storage_crash", storage_crash);
    }

    /// The same on every run, unless `PROPTEST_RNG_SEED` and `PROPTEST_CASES` say otherwise.
    fn generated() -> ProptestConfig {
        let mut config = ProptestConfig {
            failure_persistence: None,
            ..ProptestConfig::default()
        };
        if config.rng_seed == RngSeed::Random {
            config.rng_seed = RngSeed::Fixed(1);
        }
        config
    }

    proptest! {
        #![proptest_config(generated())]

        #[test]
        fn generated_crashes_hold(data in vec(any::<u8>(), 0..48)) {
            storage_crash(&data);
        }

        #[test]
        fn generated_hostilities_hold(data in vec(any::<u8>(), 0..120)) {
            hypercore_hostile(&data);
        }

        #[test]
        fn generated_replications_hold(data in vec(any::<u8>(), 0..80)) {
            hypercore_replicate(&data);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn hypercore_open_holds_for_damaged_files(
            seed in any::<Index>(),
            damage in vec((any::<Index>(), any::<u8>()), 1..8),
            end in any::<Index>(),
            cut in prop::bool::weighted(0.1),
        ) {
            let seeds = corpus("hypercore_open");
            let mut input = seed.get(&seeds).clone();
            for (at, byte) in damage {
                if !input.is_empty() {
                    let at = at.index(input.len());
                    input[at] ^= byte;
                }
            }
            if cut {
                input.truncate(end.index(input.len() + 1));
            }
            hypercore_open(&input);
        }
    }
}
