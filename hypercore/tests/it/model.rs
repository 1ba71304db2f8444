//! Any sequence of operations leaves what the same sequence leaves of a plain vector.

use std::env;

use futures_lite::future::block_on;
use hypercore::{
    Durability, Error, GetOptions, Hypercore, OpenOptions, Position,
    storage::{Directory, Memory, Storage},
};
use proptest::prelude::*;

use crate::support::seek_locally;

#[derive(Debug, Clone)]
enum Operation {
    Append(Vec<u8>),
    Batch(Vec<Vec<u8>>),
    /// Up to four at the same time.
    Concurrent(Vec<Vec<u8>>),
    Get(usize),
    Clear(usize, usize),
    Truncate(usize),
    Seek(u64),
    Flush,
    Audit,
    /// Closed and opened again.
    Reopen,
    /// Opened again after the last handle was dropped.
    Drop,
}

fn block() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        1 => Just(Vec::new()),
        8 => prop::collection::vec(any::<u8>(), 1..20),
        1 => (0..70_000usize, any::<u8>()).prop_map(|(size, byte)| vec![byte; size]),
    ]
}

fn operation() -> impl Strategy<Value = Operation> {
    prop_oneof![
        6 => block().prop_map(Operation::Append),
        4 => prop::collection::vec(block(), 0..12).prop_map(Operation::Batch),
        2 => prop::collection::vec(block(), 1..5).prop_map(Operation::Concurrent),
        4 => (0..60usize).prop_map(Operation::Get),
        3 => (0..60usize, 0..12usize).prop_map(|(start, count)| Operation::Clear(start, start + count)),
        1 => (0..60usize).prop_map(Operation::Truncate),
        3 => (0..400u64).prop_map(Operation::Seek),
        1 => Just(Operation::Flush),
        1 => Just(Operation::Audit),
        2 => Just(Operation::Reopen),
        1 => Just(Operation::Drop),
    ]
}

/// What the log should be.
#[derive(Default)]
struct Model {
    sizes: Vec<u64>,
    /// `None` where a block was cleared.
    blocks: Vec<Option<Vec<u8>>>,
}

impl Model {
    fn push(&mut self, block: Vec<u8>) {
        self.sizes.push(block.len() as u64);
        self.blocks.push(Some(block));
    }

    fn stored(&self) -> u64 {
        self.blocks.iter().flatten().count() as u64
    }

    /// The obvious seek. Byte 0 is in block 0 even where that is empty, as for Node.
    fn seek(&self, byte: u64) -> Option<Position> {
        let end: u64 = self.sizes.iter().sum();
        let (mut index, mut offset) = (0, byte);
        if byte == end {
            index = self.sizes.len();
            offset = 0;
        } else if byte > 0 {
            while offset >= *self.sizes.get(index)? {
                offset -= self.sizes[index];
                index += 1;
            }
        }
        Some(Position {
            index: index as u64,
            offset,
        })
    }
}

async fn open(storage: impl Storage + 'static, durability: Durability) -> Hypercore {
    let options = OpenOptions::new().durability(durability);
    options.open_storage(storage).await.unwrap()
}

async fn play<S: Storage + 'static>(
    storage: impl Fn() -> S,
    durability: Durability,
    operations: Vec<Operation>,
) {
    let mut model = Model::default();
    let mut core = open(storage(), durability).await;
    let key = core.key();
    for operation in operations {
        step(&mut model, &core, &operation).await;
        match operation {
            Operation::Reopen => {
                core.close().await.unwrap();
                core = open(storage(), durability).await;
            }
            Operation::Drop => {
                drop(core);
                core = open(storage(), durability).await;
            }
            _ => {}
        }
        assert_eq!(core.key(), key);
        assert_eq!(core.length(), model.blocks.len() as u64);
        assert_eq!(core.byte_length(), model.sizes.iter().sum::<u64>());
        assert_eq!(core.downloaded(..), model.stored());
    }
    for index in 0..model.blocks.len() + 2 {
        get(&model, &core, index).await;
    }
    for byte in 0..model.sizes.iter().sum::<u64>().min(300) + 2 {
        seek(&model, &core, byte).await;
    }
    core.close().await.unwrap();
}

async fn step(model: &mut Model, core: &Hypercore, operation: &Operation) {
    match operation {
        Operation::Append(block) => {
            let index = core.append(block.clone()).await.unwrap();
            assert_eq!(index, model.blocks.len() as u64);
            model.push(block.clone());
        }
        Operation::Batch(blocks) => {
            let start = model.blocks.len() as u64;
            let appended = core.append_batch(blocks.clone()).await.unwrap();
            assert_eq!(appended, start..start + blocks.len() as u64);
            blocks.iter().for_each(|block| model.push(block.clone()));
        }
        Operation::Concurrent(blocks) => {
            let start = model.blocks.len();
            let tasks: Vec<_> = blocks
                .iter()
                .map(|block| {
                    let (core, block) = (core.clone(), block.clone());
                    async_std::task::spawn(async move { core.append(block).await.unwrap() })
                })
                .collect();
            let mut appended = vec![None; blocks.len()];
            for (task, block) in tasks.into_iter().zip(blocks) {
                let slot = &mut appended[task.await as usize - start];
                assert!(slot.replace(block.clone()).is_none(), "an index for each");
            }
            appended
                .into_iter()
                .flatten()
                .for_each(|block| model.push(block));
        }
        Operation::Get(index) => get(model, core, *index).await,
        &Operation::Clear(start, end) => {
            let result = core.clear(start as u64..end as u64).await;
            if end > model.blocks.len() {
                assert!(matches!(result, Err(Error::BadRange { .. })));
            } else {
                model.blocks[start..end].fill(None);
                assert_eq!(result.unwrap(), model.stored());
            }
        }
        &Operation::Truncate(length) => {
            let result = core.truncate(length as u64).await;
            if length > model.blocks.len() {
                assert!(matches!(result, Err(Error::BadRange { .. })), "{result:?}");
            } else {
                result.unwrap();
                model.sizes.truncate(length);
                model.blocks.truncate(length);
            }
        }
        Operation::Seek(byte) => seek(model, core, *byte).await,
        Operation::Flush => core.flush().await.unwrap(),
        Operation::Audit => {
            let audit = core.audit().await.unwrap();
            assert_eq!((audit.valid, audit.invalid), (model.stored(), Vec::new()));
        }
        Operation::Reopen | Operation::Drop => {}
    }
}

async fn get(model: &Model, core: &Hypercore, index: usize) {
    let expected = model.blocks.get(index).cloned().flatten();
    assert_eq!(core.has(index as u64), expected.is_some());
    match (
        core.get_with(index as u64, GetOptions::local()).await,
        expected,
    ) {
        (Ok(block), Some(expected)) => assert_eq!(block, expected),
        (Err(Error::BlockNotStored { index: named }), None) => assert_eq!(named, index as u64),
        (result, expected) => panic!("block {index} is {result:?}, not {expected:?}"),
    }
}

async fn seek(model: &Model, core: &Hypercore, byte: u64) {
    match (core.seek_with(byte, seek_locally()).await, model.seek(byte)) {
        (Ok(position), Some(expected)) => assert_eq!(position, expected, "byte {byte}"),
        (
            Err(Error::OutOfBounds {
                offset,
                byte_length,
            }),
            None,
        ) => {
            assert_eq!((offset, byte_length), (byte, core.byte_length()));
        }
        (result, expected) => panic!("byte {byte} is at {result:?}, not {expected:?}"),
    }
}

/// So many cases, or as many as `HYPERCORE_MODEL_CASES` says.
fn config(cases: u32) -> ProptestConfig {
    let wanted = env::var("HYPERCORE_MODEL_CASES").map(|cases| cases.parse());
    ProptestConfig::with_cases(wanted.map_or(cases, |cases| cases.expect("a number")))
}

fn durability() -> impl Strategy<Value = Durability> {
    prop_oneof![Just(Durability::Always), Just(Durability::OnClose)]
}

proptest! {
    #![proptest_config(config(150))]

    #[test]
    fn in_memory(durability in durability(), operations in prop::collection::vec(operation(), 0..40)) {
        let memory = Memory::new();
        block_on(play(|| memory.clone(), durability, operations));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20))]

    #[test]
    fn in_a_directory(durability in durability(), operations in prop::collection::vec(operation(), 0..30)) {
        let directory = tempfile::tempdir().unwrap();
        block_on(play(|| Directory::new(directory.path()), durability, operations));
    }
}
