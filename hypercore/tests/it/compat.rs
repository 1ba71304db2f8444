//! What we write has the bytes of what Node writes.

use hypercore::{
    Hypercore, OpenOptions,
    storage::{FileName, Memory},
};

use crate::support::{
    connect_live, contents, copy_of, directories, disconnected, key_pair, run, soon,
};

/// Writes a log into a new directory, as the generator of the vectors did, and compares all files
/// but those named in `except`.
fn check(name: &str, batches: Vec<Vec<Vec<u8>>>, except: &[&str]) {
    check_with(name, OpenOptions::new(), batches, &[], except);
}

fn check_with(
    name: &str,
    options: OpenOptions,
    batches: Vec<Vec<Vec<u8>>>,
    cleared: &[std::ops::Range<u64>],
    except: &[&str],
) {
    let directory = tempfile::tempdir().unwrap();
    run(async {
        let options = options.key_pair(key_pair(&format!("storage {name}")));
        let core = options.open(directory.path()).await.unwrap();
        for batch in batches {
            core.append_batch(batch).await.unwrap();
        }
        for blocks in cleared {
            core.clear(blocks.clone()).await.unwrap();
        }
        core.close().await.unwrap();
    });
    compare(name, directory.path(), except);
}

fn compare(name: &str, ours: &std::path::Path, except: &[&str]) {
    let (mut ours, mut node) = (contents(ours), contents(&directories().join(name)));
    // Node neither knows it nor minds.
    ours.remove("fork-guard");
    // Node writes all of a batch at once, even where that is nothing; we write no empty `data`.
    ours.retain(|_, bytes| !bytes.is_empty());
    node.retain(|_, bytes| !bytes.is_empty());
    assert!(ours.keys().eq(node.keys()), "{name}: {:?}", ours.keys());
    for (file, bytes) in node {
        if !except.contains(&file.as_str()) {
            assert!(ours[&file] == bytes, "{name}: {file} differs");
        }
    }
}

/// One append per block.
fn singly(blocks: impl IntoIterator<Item = String>) -> Vec<Vec<Vec<u8>>> {
    blocks
        .into_iter()
        .map(|block| vec![block.into_bytes()])
        .collect()
}

/// One append for all.
fn at_once<B: AsRef<[u8]>>(blocks: impl IntoIterator<Item = B>) -> Vec<Vec<Vec<u8>>> {
    let blocks = blocks.into_iter().map(|block| block.as_ref().to_vec());
    vec![blocks.collect()]
}

#[test]
fn deterministic_data_and_tree() {
    check("empty", Vec::new(), &[]);
    for count in 1..=3 {
        let blocks = (0..count).map(|index| format!("block {index}"));
        check(&format!("blocks-{count}"), singly(blocks), &[]);
    }
    let ten = (0..10).map(|index| format!("block number {index}"));
    check("blocks-10", at_once(ten), &[]);
    check(
        "blocks-1000",
        at_once((0..1000).map(|index| index.to_string())),
        &[],
    );

    let letter = |index: usize| vec![b'a' + (index % 26) as u8];
    let nine_thousand = [0..3000, 3000..6000, 6000..9000];
    let nine_thousand = nine_thousand.map(|batch| batch.map(letter).collect());
    check("blocks-9000", nine_thousand.into(), &[]);

    let batches = [1, 3, 2, 7].map(|count| {
        let block = |index: usize| vec![b'a' + index as u8; index * 37 % 11];
        (0..count).map(block).collect()
    });
    check("batches", batches.into(), &[]);
    check(
        "zero-length-blocks",
        at_once(["", "a", "", "", "bb", ""]),
        &[],
    );
    check("zero-length-only", at_once(["", ""]), &[]);
    check(
        "utf8",
        at_once(["plain", "blåbærgrød", "日本語", "🦀"]),
        &[],
    );
    let json = [
        r#"{"hello":"world"}"#,
        "42",
        "null",
        r#"["a",{"b":true}]"#,
        r#""text""#,
    ];
    check("json", at_once(json.map(|value| format!("{value}\n"))), &[]);
    let not_stored = OpenOptions::new().store_secret_key(false);
    let blocks = at_once(["x", "y"]);
    check_with("secret-key-not-stored", not_stored, blocks, &[], &[]);
}

/// Node leaves the bytes of cleared blocks in place, or cuts the file; we punch holes. All else is
/// the same.
#[test]
fn clearing_leaves_what_node_leaves_except_the_bytes() {
    let blocks = |count| at_once((0..count).map(|index| format!("cleared block {index}")));
    let new = OpenOptions::new;
    check_with("cleared", new(), blocks(20), &[2..5, 9..10], &["data"]);
    let tail = std::slice::from_ref(&(7..10));
    check_with("cleared-tail", new(), blocks(10), tail, &["data"]);
}

/// One signature per append, at the slot of its last block, over the current form.
#[test]
fn deterministic_signatures() {
    #[derive(serde::Deserialize)]
    struct Crypto {
        feed: Feed,
    }
    #[derive(serde::Deserialize)]
    struct Feed {
        blocks: Vec<Block>,
    }
    #[derive(serde::Deserialize)]
    struct Block {
        data: String,
        signature: String,
    }
    let crypto = include_str!("../../../merkle/tests/vectors/crypto.json");
    let crypto: Crypto = serde_json::from_str(crypto).unwrap();
    assert_eq!(crypto.feed.blocks.len(), 40);
    run(async {
        let memory = Memory::new();
        let core = Hypercore::options()
            .key_pair(key_pair("crypto feed"))
            .open_storage(memory.clone())
            .await
            .unwrap();
        for (index, block) in crypto.feed.blocks.iter().enumerate() {
            core.append(hex::decode(&block.data).unwrap())
                .await
                .unwrap();
            let signatures = memory.read(FileName::Signatures);
            // Behind it is a blank slot, as long as the log is open.
            let (slot, behind) = signatures[32 + 64 * index..].split_at(64);
            assert_eq!(hex::encode(slot), block.signature);
            assert_eq!(behind, [0; 64]);
        }
    });
}

/// Clones of ours have the bytes of Node's clones, whole or sparse.
#[test]
fn deterministic_files_after_replication() {
    let all: Vec<_> = (0..10).collect();
    replicated("blocks-10", "full-clone-10", &all, &[]);
    replicated("blocks-10", "sparse-clone-10", &[6, 1], &[]);
    let scattered = [4100, 8192, 8191, 0, 8999];
    replicated("blocks-9000", "sparse-clone-9000", &scattered, &[]);
    // Which leaf a proof of the length is about depends on whether the last block of the other
    // side or all of them were announced first. The roots and the signature are the same.
    let by_leaf = ["tree", "bitfield"];
    replicated("blocks-10", "hash-only-clone-10", &[], &by_leaf);
}

fn replicated(origin: &str, clone: &str, blocks: &[u64], except: &[&str]) {
    let (node, ours) = (copy_of(origin), tempfile::tempdir().unwrap());
    run(async {
        let origin = Hypercore::open(node.path()).await.unwrap();
        let options = Hypercore::options().key(origin.key()).sparse(true);
        let clone = options.open(ours.path()).await.unwrap();
        let connection = connect_live(&clone, &origin).await;
        if blocks.is_empty() {
            soon("the length", clone.update()).await.unwrap();
        }
        for &index in blocks {
            soon("a block", clone.get(index)).await.unwrap();
        }
        connection.cancel().await;
        disconnected(&clone).await;
        clone.close().await.unwrap();
    });
    compare(clone, ours.path(), except);
}
