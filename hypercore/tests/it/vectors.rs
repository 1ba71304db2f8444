//! Every directory that Node wrote, opened, read, audited and served.

use std::{collections::BTreeMap, fs};

use hypercore::{
    Ended, Error, GetOptions, Hypercore, Position, ReplicateOptions, merkle::leaf_hash,
};
use serde::Deserialize;

use crate::support::{
    clone_of, connect, connect_live, contents, copy_of, directories, get_if_available, options,
    run, seek_locally, soon,
};

#[derive(Deserialize)]
struct Manifest {
    feeds: BTreeMap<String, Feed>,
}

/// What Hypercore 9 reports of a directory.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Feed {
    key: String,
    discovery_key: String,
    length: u64,
    byte_length: u64,
    writable: bool,
    downloaded: u64,
    has: Vec<(u64, u64)>,
    blocks: Vec<Block>,
    present_bytes: u64,
    #[serde(default)]
    seek: Vec<Seek>,
    audit: Audit,
}

#[derive(Deserialize)]
struct Block {
    index: u64,
    data: String,
    hash: String,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Seek {
    Found(u64, u64, u64),
    Failed(u64, #[allow(dead_code, reason = "ours are typed")] String),
}

#[derive(Deserialize)]
struct Audit {
    valid: u64,
    invalid: u64,
}

fn manifest() -> BTreeMap<String, Feed> {
    let bytes = fs::read(directories().join("manifest.json")).unwrap();
    let manifest: Manifest = serde_json::from_slice(&bytes).unwrap();
    assert_eq!(manifest.feeds.len(), 25);
    manifest.feeds
}

/// `truncate` of Hypercore 9 is experimental: it leaves the bits of the blocks it cut and no
/// signature for the length it leaves. We read such a log, but we do not append to it, and we do
/// not serve it, as nobody could verify what we say.
fn is_truncated(name: &str) -> bool {
    name == "truncated"
}

#[test]
fn we_report_what_node_reports_and_change_nothing() {
    for (name, feed) in manifest() {
        println!("{name}");
        let copy = copy_of(&name);
        let before = contents(copy.path());
        run(async {
            let core = Hypercore::open(copy.path()).await.unwrap();
            check(&name, &feed, &core).await;
            core.close().await.unwrap();
        });
        assert!(contents(copy.path()) == before, "{name} is as it was");
    }
}

async fn check(name: &str, feed: &Feed, core: &Hypercore) {
    assert_eq!(hex::encode(core.key().as_bytes()), feed.key);
    assert_eq!(
        hex::encode(core.discovery_key().as_bytes()),
        feed.discovery_key
    );
    assert_eq!(core.length(), feed.length);
    assert_eq!(core.byte_length(), feed.byte_length);
    assert_eq!(core.is_writable(), feed.writable && !is_truncated(name));

    let is_stored = |index| {
        feed.has
            .iter()
            .any(|&(start, end)| (start..end).contains(&index))
    };
    for index in 0..feed.length + 100 {
        assert_eq!(core.has(index), is_stored(index), "block {index}");
    }
    for &(start, end) in &feed.has {
        assert!(core.has_all(start..end));
        assert!(!core.has_all(start..end + 1));
        assert_eq!(core.downloaded(start..end), end - start);
    }
    let beyond = if is_truncated(name) { 7 } else { 0 };
    assert_eq!(core.downloaded(..), feed.downloaded - beyond);

    let mut present = Vec::new();
    for index in 0..feed.length {
        let block = core.get_with(index, GetOptions::local()).await;
        match block {
            Ok(block) => present.extend_from_slice(&block),
            Err(Error::BlockNotStored { index: named }) => {
                assert_eq!(named, index);
                assert!(!is_stored(index));
            }
            Err(error) => panic!("block {index}: {error}"),
        }
    }
    assert_eq!(present.len() as u64, feed.present_bytes);
    for expected in &feed.blocks {
        let block = core.get(expected.index).await.unwrap();
        assert_eq!(hex::encode(&block), expected.data);
        assert_eq!(hex::encode(leaf_hash(&block)), expected.hash);
    }

    for row in &feed.seek {
        match *row {
            Seek::Found(byte, index, offset) => {
                let position = core.seek_with(byte, seek_locally()).await.unwrap();
                assert_eq!(position, Position { index, offset }, "byte {byte}");
            }
            Seek::Failed(byte, _) => {
                let error = core.seek_with(byte, seek_locally()).await.unwrap_err();
                assert!(
                    matches!(error, Error::OutOfBounds { .. }),
                    "byte {byte}: {error}"
                );
            }
        }
    }

    let audit = core.audit().await.unwrap();
    // Node does not look beyond the length, where a truncated log still claims blocks.
    assert_eq!(audit.valid, feed.audit.valid + beyond);
    assert_eq!((audit.invalid.len(), feed.audit.invalid), (0, 0));
}

/// An empty clone gets every block a directory has, and learns its whole length.
#[test]
fn a_fresh_clone_gets_everything() {
    for (name, feed) in manifest() {
        println!("{name}");
        let copy = copy_of(&name);
        run(async {
            let core = Hypercore::open(copy.path()).await.unwrap();
            let clone = clone_of(&core, true).await;
            let connection = connect_live(&clone, &core).await;
            if is_truncated(&name) {
                let refused = soon("a refusal", clone.get_with(0, get_if_available())).await;
                assert!(matches!(refused, Err(Error::NotAvailable)), "{refused:?}");
                assert_eq!(clone.length(), 0);
                return;
            }
            for &(start, end) in &feed.has {
                soon("a download", clone.download(start..end))
                    .await
                    .unwrap();
                for index in start..end {
                    let ours = core.get(index).await.unwrap();
                    assert_eq!(clone.get(index).await.unwrap(), ours, "block {index}");
                }
            }
            assert_eq!(clone.downloaded(..), feed.downloaded);
            if !feed.has.is_empty() {
                assert_eq!(clone.length(), feed.length);
                assert_eq!(clone.byte_length(), feed.byte_length);
            }
            connection.cancel().await;
        });
    }
}

/// A complete directory is cloned whole, and both sides end by themselves.
#[test]
fn a_complete_directory_is_cloned_whole() {
    for (name, feed) in manifest() {
        let whole = [(0, feed.length)];
        if is_truncated(&name) || (feed.length > 0 && feed.has != whole) {
            continue;
        }
        println!("{name}");
        let copy = copy_of(&name);
        run(async {
            let core = Hypercore::open(copy.path()).await.unwrap();
            let clone = clone_of(&core, false).await;
            // A clone wants blocks too, and would wait for peers that have more.
            let upload_only = options(|options| options.download = Some(false));
            let connection = connect(&clone, ReplicateOptions::default(), &core, upload_only).await;
            let ends = soon("the end", connection).await;
            assert!(
                matches!(ends, (Ok(Ended::Complete), Ok(Ended::Complete))),
                "{ends:?}"
            );
            assert_eq!(clone.downloaded(..), feed.length);
            assert_eq!(clone.audit().await.unwrap().valid, feed.length);
        });
    }
}

/// Logs signed in the old form, with old pages, or without anything else unusual, go on.
#[test]
fn a_writable_directory_takes_another_block() {
    for (name, feed) in manifest() {
        if !feed.writable || is_truncated(&name) {
            continue;
        }
        let copy = copy_of(&name);
        let page = fs::read(copy.path().join("bitfield")).unwrap()[5..7].to_vec();
        run(async {
            let core = Hypercore::open(copy.path()).await.unwrap();
            assert_eq!(core.append("another").await.unwrap(), feed.length);
            core.close().await.unwrap();
            let core = Hypercore::open(copy.path()).await.unwrap();
            assert_eq!(core.length(), feed.length + 1, "{name}");
            assert_eq!(core.byte_length(), feed.byte_length + 7);
            assert_eq!(core.head().await.unwrap(), "another");
            assert_eq!(core.audit().await.unwrap().valid, feed.downloaded + 1);
            core.close().await.unwrap();
        });
        let after = fs::read(copy.path().join("bitfield")).unwrap();
        assert_eq!(after[5..7], page, "{name} keeps its page size");
    }
}

#[test]
fn a_truncated_directory_is_not_appended_to() {
    let copy = copy_of("truncated");
    run(async {
        let core = Hypercore::open(copy.path()).await.unwrap();
        let error = core.append("no").await.unwrap_err();
        assert!(error.to_string().contains("signature"), "{error}");
        assert_eq!(core.length(), 5);
        core.close().await.unwrap();
    });
}
