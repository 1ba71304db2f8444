//! Seeks that wait, and what answers them.

use std::pin::pin;

use hypercore::{
    Corruption, Error, Hypercore, ProofOptions, SeekOptions,
    storage::{FileName, Memory},
    wire::{Data, DataNode, Have, Message},
};

use crate::{
    puppet::Puppet,
    support::{clone_of, eventually, run, soon, start, writer},
};

/// The first byte of block `index`.
async fn start_of(core: &Hypercore, index: u64) -> u64 {
    let mut offset = 0;
    for block in 0..index {
        offset += core.block_info(block).await.unwrap().size;
    }
    offset
}

/// It waited for a block, and perhaps for ever.
#[test]
fn nodes_alone_tell_that_a_byte_is_not_there() {
    run(async {
        let core = writer(16).await;
        let clone = clone_of(&core, true).await;
        let first = core.get(0).await.unwrap();
        let proof = core.proof(0).await.unwrap().unwrap();
        clone.put(0, Some(first), &proof).await.unwrap();
        let options = SeekOptions::default().blocks(8..12);
        let mut seek = pin!(clone.seek_with(start_of(&core, 13).await, options));
        start(seek.as_mut()).await;
        let options = ProofOptions::default().digest(clone.digest(12)).hash(true);
        let proof = core.proof_with(12, options).await.unwrap().unwrap();
        clone.put(12, None, &proof).await.unwrap();
        let ended = soon("an answer", seek).await;
        assert!(matches!(ended, Err(Error::OutOfBounds { .. })), "{ended:?}");
    });
}

/// It waited until something else was stored.
#[test]
fn a_byte_that_cannot_be_told_ends_a_seek() {
    run(async {
        let core = writer(16).await;
        let storage = Memory::new();
        let open = async || {
            let options = Hypercore::options().key(core.key()).sparse(true);
            options.open_storage(storage.clone()).await.unwrap()
        };
        let put = async |clone: &Hypercore, index| {
            let block = core.get(index).await.unwrap();
            let proof = core.proof(index).await.unwrap().unwrap();
            clone.put(index, Some(block), &proof).await.unwrap();
        };
        let clone = open().await;
        put(&clone, 0).await;
        clone.close().await.unwrap();
        // The size of blocks 4 to 7 is beside the way to block 2, and not on it.
        let mut tree = storage.read(FileName::Tree);
        tree[32 + 40 * 11 + 39] ^= 1;
        storage.write(FileName::Tree, &tree);

        let clone = open().await;
        let mut seek = pin!(clone.seek(start_of(&core, 2).await));
        start(seek.as_mut()).await;
        put(&clone, 2).await;
        let ended = soon("an answer", seek).await;
        let found = matches!(ended, Err(Error::Corrupt(Corruption::WrongNode { .. })));
        assert!(found, "{ended:?}");
    });
}

/// The answer to the seek came after the block that is in it, and nobody looked whether anything was left
/// to ask for.
#[test]
fn an_answer_that_comes_too_late_ends_a_seek_if_available() {
    run(async {
        let core = writer(8).await;
        let clone = clone_of(&core, true).await;
        let (mut puppet, _) = Puppet::connect_live(&clone).await;
        while !matches!(puppet.message().await, Some(Message::Want(_))) {}
        let only_the_fourth = Message::Have(Have {
            start: 0,
            length: 1 << 20,
            bitfield: Some(hypercore::bitfield::rle::encode(&[0x08]).into()),
            ack: false,
        });
        puppet.send(only_the_fourth).await;
        eventually("what it has", async || clone.remote_length() == 5).await;
        let offset = start_of(&core, 7).await;
        let options = SeekOptions::default().if_available(true);
        let mut seek = pin!(clone.seek_with(offset, options));
        start(seek.as_mut()).await;
        let asked = soon("a request", puppet.request()).await.unwrap();
        assert_eq!((asked.index, asked.bytes), (4, offset));
        let mut get = pin!(clone.get(4));
        start(get.as_mut()).await;
        let asked = soon("a request", puppet.request()).await.unwrap();
        assert_eq!((asked.index, asked.bytes), (4, 0));

        let proof = core.proof(4).await.unwrap().unwrap();
        let node = |node: &hypercore::merkle::Node| DataNode {
            index: node.index.get(),
            hash: node.hash,
            size: node.size,
        };
        let data = Message::Data(Data {
            index: 4,
            value: Some(core.get(4).await.unwrap()),
            nodes: proof.nodes.iter().map(node).collect(),
            signature: proof.signature.map(Into::into),
        });
        puppet.send(data.clone()).await;
        soon("the block", get).await.unwrap();
        puppet.send(data).await;
        let ended = soon("a refusal", seek).await;
        assert!(matches!(ended, Err(Error::NotAvailable)), "{ended:?}");
    });
}
