//! One key, one history: a writer that goes on from an old copy is stopped, and two histories are
//! shown to everybody.

mod shown;

use std::{fs, path::Path};

use hypercore::{
    AppendLock, Error, Event, ForkProof, Hypercore, OpenOptions, PublicKey,
    merkle::{Block, Node, Roots, Signature, append},
};
use tempfile::TempDir;

use self::shown::old_backup;
use crate::support::{
    clone_of, connect_live, contents, copy_of, disconnected, event, key_pair, run, soon,
};

/// A copy of a directory, file by file, as `cp -r` makes it.
fn copy(from: &Path) -> TempDir {
    let copy = tempfile::tempdir().unwrap();
    overwrite(from, copy.path());
    copy
}

fn overwrite(from: &Path, to: &Path) {
    for (name, bytes) in contents(from) {
        fs::write(to.join(name), bytes).unwrap();
    }
}

async fn log(blocks: usize) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    let core = Hypercore::open(directory.path()).await.unwrap();
    for index in 0..blocks {
        core.append(format!("block {index}")).await.unwrap();
    }
    core.close().await.unwrap();
    directory
}

async fn open(directory: &TempDir) -> Hypercore {
    Hypercore::open(directory.path()).await.unwrap()
}

/// What an append to the log says.
async fn append(core: &Hypercore) -> Result<u64, AppendLock> {
    match core.append("more").await {
        Ok(index) => Ok(index),
        Err(Error::AppendLocked(lock)) => Err(lock),
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn a_copy_is_read_and_not_appended_to() {
    run(async {
        for blocks in [0, 1, 5] {
            let original = log(blocks).await;
            let copy = copy(original.path());
            let before = contents(copy.path());
            let core = open(&copy).await;
            assert!(!core.is_writable());
            assert_eq!(core.append_lock(), Some(AppendLock::Copied));
            assert_eq!(core.length(), blocks as u64);
            if blocks > 0 {
                assert_eq!(core.get(0).await.unwrap(), "block 0");
            }
            assert_eq!(append(&core).await, Err(AppendLock::Copied));
            let truncated = core.truncate(0).await;
            assert!(
                matches!(truncated, Err(Error::AppendLocked(_))),
                "{truncated:?}"
            );
            core.close().await.unwrap();
            assert!(contents(copy.path()) == before);

            // The original does not mind.
            assert_eq!(append(&open(&original).await).await, Ok(blocks as u64));
        }
    });
}

#[test]
fn whoever_takes_the_risk_appends_to_a_copy() {
    run(async {
        let original = log(2).await;
        let copy = copy(original.path());
        let core = open(&copy).await;
        core.accept_fork_risk().await.unwrap();
        assert_eq!(append(&core).await, Ok(2));
        core.close().await.unwrap();
        assert_eq!(append(&open(&copy).await).await, Ok(3));
    });
}

#[test]
fn a_moved_directory_is_the_same_one() {
    run(async {
        let original = log(2).await;
        let moved = tempfile::tempdir().unwrap();
        let moved = moved.path().join("elsewhere");
        fs::rename(original.path(), &moved).unwrap();
        let core = Hypercore::open(&moved).await.unwrap();
        assert_eq!(append(&core).await, Ok(2));
    });
}

/// `rsync --inplace` of an older backup: each file stays the same one.
#[test]
fn files_that_were_put_back_in_place_are_noticed() {
    run(async {
        let state = tempfile::tempdir().unwrap();
        let options = || OpenOptions::new().state_directory(state.path().join("new"));
        let directory = tempfile::tempdir().unwrap();
        let core = options().open(directory.path()).await.unwrap();
        core.append_batch(["a", "b"]).await.unwrap();
        core.close().await.unwrap();
        let backup = copy(directory.path());
        let core = options().open(directory.path()).await.unwrap();
        core.append("c").await.unwrap();
        core.close().await.unwrap();

        // Without the file that says how far it came, as a backup by Node's users would be.
        let guard = fs::read(directory.path().join("fork-guard")).unwrap();
        overwrite(backup.path(), directory.path());
        fs::write(directory.path().join("fork-guard"), &guard).unwrap();
        let shorter = AppendLock::Shorter {
            length: 2,
            signed: 3,
        };
        let core = open(&directory).await;
        assert_eq!(append(&core).await, Err(shorter));
        core.close().await.unwrap();

        // With it: then only what was noted elsewhere tells.
        overwrite(backup.path(), directory.path());
        let core = options().open(directory.path()).await.unwrap();
        assert_eq!(append(&core).await, Err(shorter));
    });
}

#[test]
fn blocks_that_node_appends_meanwhile_are_part_of_the_history() {
    run(async {
        let directory = copy_of("blocks-10");
        let core = open(&directory).await;
        assert_eq!(append(&core).await, Ok(10));
        core.close().await.unwrap();
        let guard = fs::read(directory.path().join("fork-guard")).unwrap();
        let core = open(&directory).await;
        core.append_batch(["by", "Node"]).await.unwrap();
        core.close().await.unwrap();
        // As if the last appends had been Node's, which notes nothing.
        fs::write(directory.path().join("fork-guard"), guard).unwrap();
        assert_eq!(append(&open(&directory).await).await, Ok(13));
    });
}

#[test]
fn a_log_that_was_cut_by_its_writer_goes_on() {
    run(async {
        let state = tempfile::tempdir().unwrap();
        let options = || OpenOptions::new().state_directory(state.path());
        let directory = tempfile::tempdir().unwrap();
        let core = options().open(directory.path()).await.unwrap();
        core.append_batch(["a", "b", "c"]).await.unwrap();
        core.truncate(1).await.unwrap();
        core.close().await.unwrap();
        let core = options().open(directory.path()).await.unwrap();
        assert_eq!(append(&core).await, Ok(1));
        core.destroy().await.unwrap();
        assert!(contents(directory.path()).is_empty());
    });
}

/// Backups may leave the secret key out.
#[test]
fn a_backup_without_its_secret_key_is_noticed() {
    run(async {
        let state = tempfile::tempdir().unwrap();
        let options = || {
            let options = Hypercore::options().key_pair(key_pair("elsewhere"));
            options.state_directory(state.path())
        };
        let directory = tempfile::tempdir().unwrap();
        let core = options().open(directory.path()).await.unwrap();
        core.append("one").await.unwrap();
        core.close().await.unwrap();
        let backup = copy(directory.path());
        fs::remove_file(backup.path().join("secret_key")).unwrap();
        let core = options().open(directory.path()).await.unwrap();
        assert_eq!(append(&core).await, Ok(1));
        core.close().await.unwrap();
        fs::remove_file(directory.path().join("secret_key")).unwrap();
        overwrite(backup.path(), directory.path());
        for place in [&directory, &backup, &directory, &backup] {
            let core = options().open(place.path()).await.unwrap();
            assert_eq!(append(&core).await, Err(AppendLock::Copied));
            core.close().await.unwrap();
        }
    });
}

/// A secret key that is stored one day makes no copy of the log.
#[test]
fn a_secret_key_may_be_stored_later() {
    run(async {
        let directory = tempfile::tempdir().unwrap();
        for (index, stored) in [false, false, true, true, false].into_iter().enumerate() {
            let options = Hypercore::options().key_pair(key_pair("later"));
            let options = options.store_secret_key(stored);
            let core = options.open(directory.path()).await.unwrap();
            assert_eq!(append(&core).await, Ok(index as u64));
            core.close().await.unwrap();
        }
    });
}

/// Two histories, made by appending to two copies, of lengths `ours` and `theirs` after `common`.
async fn histories(common: usize, ours: usize, theirs: usize) -> (TempDir, Hypercore, Hypercore) {
    let original = log(common).await;
    let backup = copy(original.path());
    fs::remove_file(backup.path().join("fork-guard")).unwrap();
    let append = async |directory: &TempDir, name: &str, blocks: usize| {
        let core = open(directory).await;
        for index in 0..blocks {
            core.append(format!("{name} {index}")).await.unwrap();
        }
        core
    };
    let first = append(&original, "first", ours).await;
    let second = append(&backup, "second", theirs).await;
    // The reader has the first history; the directories live as long as the cores are open.
    let reader = clone_of(&first, false).await;
    let connection = connect_live(&reader, &first).await;
    soon("all", reader.download(0..first.length()))
        .await
        .unwrap();
    connection.cancel().await;
    disconnected(&reader).await;
    first.close().await.unwrap();
    (backup, reader, second)
}

#[test]
fn two_histories_are_shown_with_a_proof() {
    run(async {
        // The same length, each longer than the other, with and without a common part.
        for (common, ours, theirs) in [
            (3, 1, 1),
            (3, 2, 5),
            (3, 5, 2),
            (0, 1, 1),
            (0, 4, 7),
            (4, 4, 1),
            (4, 1, 4),
            (7, 1, 9),
        ] {
            let shown = format!("{common} + {ours} or {theirs}");
            let (directory, reader, second) = histories(common, ours, theirs).await;
            let before = reader.length();
            let length = (common + ours.max(theirs)) as u64;
            // What a loss of power left of an earlier proof.
            let path = directory.path().join(format!("fork-proof-{length}"));
            fs::write(path, "node 7 ".repeat(1000)).unwrap();
            let mut events = (reader.events(), second.events());
            let _connection = connect_live(&reader, &second).await;
            let forked = event(&mut events.0, |it| matches!(it, Event::Forked { .. })).await;
            assert_eq!(forked, Event::Forked { length }, "{shown}");

            let proof = reader.fork_proof().expect("a proof");
            assert!(proof.verify(), "{shown}");
            assert_eq!(proof.key, reader.key());
            assert_eq!(proof.to_string().parse(), Ok(proof.clone()), "{shown}");
            // What is here stays, and nothing is added.
            assert_eq!(reader.length(), before, "{shown}");
            assert!(reader.audit().await.unwrap().invalid.is_empty());

            // The writer of one of them hears of it, too, and signs no more.
            let forked = event(&mut events.1, |it| matches!(it, Event::Forked { .. })).await;
            assert_eq!(forked, Event::Forked { length }, "{shown}");
            assert_eq!(
                append(&second).await,
                Err(AppendLock::Forked { length }),
                "{shown}"
            );
            second.close().await.unwrap();
            let stored = fs::read_to_string(directory.path().join(format!("fork-proof-{length}")));
            let stored: ForkProof = stored.unwrap().parse().unwrap();
            assert!(stored.verify(), "{shown}");
            let second = open(&directory).await;
            assert_eq!(
                append(&second).await,
                Err(AppendLock::Forked { length }),
                "{shown}"
            );
        }
    });
}

#[test]
fn a_proof_that_proves_nothing_is_refused() {
    run(async {
        let (_directory, reader, second) = histories(3, 2, 5).await;
        let mut events = reader.events();
        let _connection = connect_live(&reader, &second).await;
        event(&mut events, |it| matches!(it, Event::Forked { .. })).await;
        let proof = reader.fork_proof().unwrap();

        // The same history twice, of one length and of two.
        let mut same = proof.clone();
        same.longer = same.shorter.clone();
        assert!(!same.verify());
        let mut no_path = proof.clone();
        no_path.path.clear();
        assert!(!no_path.verify());
        let mut other_key = proof.clone();
        other_key.key = key_pair("other").public_key();
        assert!(!other_key.verify());
        let mut unsigned = proof.clone();
        unsigned.longer.signature = Signature::from([1; 64]);
        assert!(!unsigned.verify());
        let mut unsigned = proof.clone();
        unsigned.shorter.signature = Signature::from([1; 64]);
        assert!(!unsigned.verify());
        for at in 0..proof.path.len() {
            let mut other_path = proof.clone();
            other_path.path[at].hash[7] ^= 1;
            assert!(!other_path.verify(), "{at}");
        }

        let text = proof.to_string();
        for end in 0..text.len() - 1 {
            let parsed = text.get(..end).map(str::parse::<ForkProof>);
            assert!(
                !matches!(parsed, Some(Ok(proof)) if proof.verify()),
                "{end}"
            );
        }
    });
}

/// What was asked for when nothing was known comes from whoever was asked. The first answer decides
/// which history is followed, and of another one nothing is taken that would overwrite it, or stand
/// beside it.
/// The size of a node below a root is bound with that of its sibling only, in their sum: so anybody
/// could make a proof against a writer with one history.
#[test]
fn two_ends_of_one_history_prove_no_fork() {
    let pair = key_pair("honest");
    let mut roots = Roots::new();
    let mut ends = Vec::new();
    let mut path = Vec::new();
    for block in ["hello", "world"] {
        let change = append::append(&roots, vec![Block::hash(block.into())], &pair).unwrap();
        roots = change.roots().unwrap().clone();
        path.push(change.nodes()[0]);
        ends.push((roots.clone(), change.signature().unwrap().1.clone()));
    }
    for by in [0, 1, 3] {
        let mut path = path.clone();
        path[0].size += by;
        path[1].size -= by;
        let mut text = format!("hypercore fork proof 1\nkey {}\n", pair.public_key());
        let line = |node: &Node| {
            let hash = PublicKey::from(node.hash);
            format!("node {} {} {hash}\n", node.index.get(), node.size)
        };
        for (roots, signature) in &ends {
            text += &format!("length {}\nsignature {signature}\n", roots.length());
            roots.nodes().iter().for_each(|node| text += &line(node));
        }
        text += "path\n";
        path.iter().for_each(|node| text += &line(node));
        let proof: ForkProof = text.parse().unwrap();
        assert!(!proof.verify(), "{text}");
    }
}

/// A log whose secret key is not stored beside it was not guarded at all.
#[test]
fn a_log_that_is_signed_elsewhere_is_guarded_too() {
    run(async {
        for signer in [true, false] {
            let directory = tempfile::tempdir().unwrap();
            let state = tempfile::tempdir().unwrap();
            let options = || {
                let options = Hypercore::options().state_directory(state.path());
                if signer {
                    options.signer(key_pair("elsewhere"))
                } else {
                    let options = options.key_pair(key_pair("elsewhere"));
                    options.store_secret_key(false)
                }
            };
            let core = options().open(directory.path()).await.unwrap();
            core.append("one").await.unwrap();
            core.close().await.unwrap();
            let backup = copy(directory.path());
            let core = options().open(directory.path()).await.unwrap();
            assert_eq!(append(&core).await, Ok(1));
            core.close().await.unwrap();
            // In place, so that each file stays the same one.
            overwrite(backup.path(), directory.path());
            let core = options().open(directory.path()).await.unwrap();
            let lock = AppendLock::Shorter {
                length: 1,
                signed: 2,
            };
            assert_eq!(append(&core).await, Err(lock));
            let copied = options().open(backup.path()).await.unwrap();
            assert_eq!(append(&copied).await, Err(AppendLock::Copied));
        }
    });
}

/// A home that cannot be made, as that of a service: the note beside the log was left out, too.
#[cfg(target_os = "linux")]
#[test]
fn a_log_is_guarded_where_its_state_cannot_be_written() {
    run(async {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        let options = || OpenOptions::new().state_directory("/proc/no-home/state");
        let core = options().open(path).await.unwrap();
        core.append("one").await.unwrap();
        core.close().await.unwrap();
        let backup = copy(path);
        let core = options().open(path).await.unwrap();
        assert_eq!(append(&core).await, Ok(1));
        core.close().await.unwrap();
        fs::remove_file(backup.path().join("fork-guard")).unwrap();
        overwrite(backup.path(), path);
        let core = options().open(path).await.unwrap();
        let lock = AppendLock::Shorter {
            length: 1,
            signed: 2,
        };
        assert_eq!(append(&core).await, Err(lock));
        core.accept_fork_risk().await.unwrap();
        assert_eq!(append(&core).await, Ok(1));
    });
}

#[test]
fn a_key_pair_that_signed_elsewhere_is_locked_also_where_it_is_not_stored() {
    run(async {
        let directory = tempfile::tempdir().unwrap();
        let options = || {
            let options = Hypercore::options().key_pair(key_pair("elsewhere"));
            options.store_secret_key(false).signed_elsewhere(1000)
        };
        for _ in 0..2 {
            let core = options().open(directory.path()).await.unwrap();
            assert_eq!(append(&core).await, Err(AppendLock::Copied));
            core.close().await.unwrap();
        }
        let core = options().open(directory.path()).await.unwrap();
        core.accept_fork_risk().await.unwrap();
        assert_eq!(append(&core).await, Ok(0));
        core.close().await.unwrap();
        let again = options().open(directory.path()).await.unwrap();
        assert_eq!(append(&again).await, Ok(1));
    });
}

#[test]
fn late_answers_of_another_history_are_not_mixed_in() {
    run(async {
        for (ours, theirs) in [(1, 1), (16, 16), (40, 40), (16, 9), (40, 24), (9, 10)] {
            let history = async |name: &str, length: u64| {
                let options = OpenOptions::new().key_pair(key_pair("one writer"));
                let core = options.open_memory().await.unwrap();
                let blocks: Vec<_> = (0..length).map(|at| format!("{name} {at}")).collect();
                core.append_batch(blocks).await.unwrap();
                core
            };
            let (first, second) = (history("first", ours).await, history("other", theirs).await);
            let reader = clone_of(&first, true).await;
            let take = async |from: &Hypercore, index| {
                let block = from.get(index).await.unwrap();
                let proof = from.proof(index).await.unwrap().unwrap();
                reader.put(index, Some(block), &proof).await
            };
            take(&first, 0).await.unwrap();
            for index in (0..theirs).rev() {
                // Refused, or not taken in.
                let _ = take(&second, index).await;
            }
            assert_eq!(reader.length(), ours);
            assert_eq!(reader.downloaded(..), 1);
            assert!(reader.verify().await.unwrap().is_ok());
            for index in 0..ours {
                take(&first, index).await.unwrap();
            }
            assert!(reader.verify().await.unwrap().is_ok());
            assert!(ours != theirs || reader.fork_proof().unwrap().verify());
        }
    });
}

/// A thousand pairs of histories of one key, in memory.
#[test]
fn every_fork_that_a_peer_shows_is_proven() {
    run(async {
        for seed in 0..1000_u64 {
            let part = |by: u64, most: u64| ((seed * by) >> 3) % most;
            let (common, ours, theirs) = (part(7, 20), 1 + part(13, 12), 1 + part(29, 12));
            let history = async |name: &str, length: u64| {
                let options = OpenOptions::new().key_pair(key_pair("one writer"));
                let core = options.open_memory().await.unwrap();
                let blocks = (0..length).map(|at| match at {
                    at if at < common => format!("{seed} {at}"),
                    at => format!("{name} {seed} {at}"),
                });
                core.append_batch(blocks.collect::<Vec<_>>()).await.unwrap();
                core
            };
            let first = history("first", common + ours).await;
            let second = history("second", common + theirs).await;
            let reader = clone_of(&first, true).await;
            for index in 0..first.length() {
                let proof = first.proof(index).await.unwrap().unwrap();
                let block = first.get(index).await.unwrap();
                reader.put(index, Some(block), &proof).await.unwrap();
            }
            let shown = format!("seed {seed}: {common} + {ours} or {theirs}");
            let mut events = reader.events();
            let connection = connect_live(&reader, &second).await;
            let forked = event(&mut events, |it| matches!(it, Event::Forked { .. })).await;
            let length = common + ours.max(theirs);
            assert_eq!(forked, Event::Forked { length }, "{shown}");
            let proof = reader.fork_proof().expect("a proof");
            assert!(proof.verify() && proof.key == reader.key(), "{shown}");
            assert_eq!(reader.length(), common + ours, "{shown}");
            assert_eq!(
                reader.get(common).await.unwrap(),
                format!("first {seed} {common}")
            );
            connection.cancel().await;
        }
    });
}

/// Fifty ways to go on from an old state: copied, put back in place or as new files, with the clock set
/// back, closed or killed before. Nothing is signed.
#[test]
fn nothing_is_signed_from_an_old_state() {
    run(async {
        for variant in 0..50_u64 {
            let part = |by: u64, most: u64| (variant * by / 4) % most;
            let state = tempfile::tempdir().unwrap();
            let options = || OpenOptions::new().state_directory(state.path());
            let directory = tempfile::tempdir().unwrap();
            let write = async |blocks: u64, is_closed: bool| {
                let core = options().open(directory.path()).await.unwrap();
                for block in 0..blocks {
                    core.append(format!("{variant} {block}")).await.unwrap();
                }
                if is_closed {
                    core.close().await.unwrap();
                    return contents(directory.path());
                }
                // As a backup finds them while the log is open.
                contents(directory.path())
            };
            let old = write(part(5, 6), variant % 3 > 0).await;
            let longer = 1 + part(9, 5);
            write(longer, true).await;
            let elsewhere = tempfile::tempdir().unwrap();
            let restored = match variant % 4 {
                // Another directory.
                0 => elsewhere.path(),
                // The same one, with new files.
                1 => {
                    for name in old.keys() {
                        fs::remove_file(directory.path().join(name)).unwrap();
                    }
                    directory.path()
                }
                // In place, with and without the file that notes how far it came.
                _ => directory.path(),
            };
            for (name, bytes) in &old {
                if variant % 4 != 3 || name != "fork-guard" {
                    fs::write(restored.join(name), bytes).unwrap();
                    let file = fs::File::options().write(true).open(restored.join(name));
                    if variant % 2 == 0 {
                        let back = std::time::SystemTime::UNIX_EPOCH;
                        file.unwrap().set_modified(back).unwrap();
                    }
                }
            }
            // What was longer in place is cut to what it was.
            let core = options().open(restored).await.unwrap();
            let before = fs::read(restored.join("signatures")).unwrap();
            let refused = append(&core).await;
            assert!(refused.is_err(), "variant {variant}: {refused:?}");
            core.close().await.unwrap();
            assert!(
                fs::read(restored.join("signatures")).unwrap() == before,
                "{variant}"
            );
        }
    });
}

#[test]
fn a_proof_that_is_stored_stays() {
    run(async {
        let (directory, reader, second) = histories(3, 2, 5).await;
        let path = directory.path().join("fork-proof-8");
        let mut events = (reader.events(), second.events());
        let connection = connect_live(&reader, &second).await;
        event(&mut events.0, |it| matches!(it, Event::Forked { .. })).await;
        event(&mut events.1, |it| matches!(it, Event::Forked { .. })).await;
        connection.cancel().await;
        second.close().await.unwrap();
        // A proof as good as the other, and of other bytes.
        let mut stored = reader.fork_proof().unwrap().to_string();
        stored = stored.replace('\n', "\r\n");
        fs::write(&path, &stored).unwrap();

        let second = open(&directory).await;
        let mut events = second.events();
        let _connection = connect_live(&reader, &second).await;
        event(&mut events, |it| matches!(it, Event::Forked { .. })).await;
        assert_eq!(fs::read_to_string(&path).unwrap(), stored);
    });
}

#[test]
fn a_writer_does_not_take_what_is_put_behind_its_end() {
    run(async {
        let (_backup, restored, reader) = old_backup(9).await;
        let length = restored.length();
        let proof = reader.proof(8).await.unwrap().unwrap();
        let block = reader.get(8).await.unwrap();
        let put = restored.put(8, Some(block), &proof).await;
        let lock = AppendLock::Behind { ours: 5, theirs: 9 };
        assert!(
            matches!(put, Err(Error::AppendLocked(found)) if found == lock),
            "{put:?}"
        );
        assert_eq!(restored.length(), length);
        assert!(!restored.has(8));
    });
}

#[test]
fn an_error_names_the_file_of_the_guard() {
    run(async {
        let directory = log(1).await;
        let guard = directory.path().join("fork-guard");
        fs::remove_file(&guard).unwrap();
        fs::create_dir(&guard).unwrap();
        let error = Hypercore::open(directory.path()).await.unwrap_err();
        assert!(error.to_string().contains("`fork-guard`"), "{error}");

        fs::remove_dir(&guard).unwrap();
        let state = tempfile::tempdir().unwrap();
        let name = open(&directory).await.discovery_key().to_string();
        fs::create_dir(state.path().join(&name)).unwrap();
        let options = OpenOptions::new().state_directory(state.path());
        let error = options.open(directory.path()).await.unwrap_err();
        assert!(error.to_string().contains(&format!("`{name}`")), "{error}");
    });
}
