use bytes::Bytes;
use hypercore_merkle::append::append;
use hypercore_merkle::{
    Block, Error, KeyPair, MAX_BLOCK_SIZE, MAX_BYTE_LENGTH, MAX_LENGTH, Node, Roots, full_roots,
};

use crate::support::sample;

fn block(size: u64) -> Block {
    Block::hash(Bytes::from(vec![0; usize::try_from(size).unwrap()]))
}

/// The roots of a log of this length, with all its bytes under the first root.
fn roots_of(length: u64, byte_length: u64) -> Roots {
    let nodes = full_roots(length).enumerate().map(|(n, index)| {
        let size = if n == 0 { byte_length } else { 0 };
        Node {
            index,
            size,
            hash: [1; 32],
        }
    });
    Roots::from_nodes(length, nodes.collect()).expect("roots")
}

#[test]
fn one_batch_equals_many() {
    let key_pair = KeyPair::from_seed(&[7; 32]);
    for length in 1..20 {
        let one_by_one = sample(length);
        let values = (0..length)
            .map(|number| one_by_one.blocks[&number].clone())
            .collect();
        let blocks = Block::hash_many(values);
        let changes = append(&Roots::new(), blocks.clone(), &key_pair).unwrap();
        assert_eq!(changes.roots(), Some(&one_by_one.roots));
        assert_eq!(changes.head(), Some(&one_by_one.roots.head()));
        assert_eq!(
            changes.signature(),
            Some((length, &one_by_one.signatures[&length]))
        );
        assert_eq!((changes.start_block(), changes.byte_offset()), (0, 0));
        assert_eq!(changes.nodes().len(), one_by_one.nodes.len());
        assert!(
            changes
                .nodes()
                .iter()
                .all(|node| one_by_one.nodes[&node.index] == *node)
        );
        assert!(changes.unbound().is_empty());
        assert_eq!(changes.into_blocks(), blocks);
    }
}

#[test]
fn a_change_starts_where_the_log_ends() {
    let log = sample(5);
    let changes = append(&log.roots, vec![block(9)], &KeyPair::from_seed(&[7; 32])).unwrap();
    assert_eq!(changes.start_block(), 5);
    assert_eq!(changes.leaf().get(), 10);
    assert_eq!(changes.byte_offset(), 15);
    assert_eq!(changes.head().unwrap().byte_length, 24);
}

/// Hypercore 9 moves its roots on before it looks at the size, and signs nonsense ever after.
#[test]
fn a_refused_append_changes_nothing() {
    let key_pair = KeyPair::from_seed(&[7; 32]);
    let log = sample(3);
    let before = log.roots.clone();
    let refused = append(
        &log.roots,
        vec![block(1), block(MAX_BLOCK_SIZE + 1)],
        &key_pair,
    );
    assert!(
        matches!(refused, Err(Error::BlockTooLarge { size, .. }) if size == MAX_BLOCK_SIZE + 1)
    );
    assert_eq!(log.roots, before);
    assert!(append(&log.roots, vec![block(MAX_BLOCK_SIZE)], &key_pair).is_ok());
}

#[test]
fn nothing_appended_nothing_signed() {
    let log = sample(3);
    let changes = append(&log.roots, Vec::new(), &KeyPair::from_seed(&[7; 32])).unwrap();
    assert!(changes.nodes().is_empty() && changes.blocks().is_empty());
    assert_eq!((changes.signature(), changes.head()), (None, None));
}

#[test]
fn a_log_ends_where_numbers_of_javascript_end() {
    let key_pair = KeyPair::from_seed(&[7; 32]);
    let nearly = roots_of(MAX_LENGTH - 1, MAX_BYTE_LENGTH - 1);
    assert!(append(&nearly, vec![block(1)], &key_pair).is_ok());
    assert!(matches!(
        append(&nearly, vec![block(2)], &key_pair),
        Err(Error::LogTooLarge { .. })
    ));
    let two = vec![block(0), block(0)];
    assert!(matches!(
        append(&nearly, two, &key_pair),
        Err(Error::LogTooLong { .. })
    ));
    let full = roots_of(MAX_LENGTH, 0);
    assert!(matches!(
        append(&full, vec![block(0)], &key_pair),
        Err(Error::LogTooLong { .. })
    ));
}

#[test]
fn roots_must_be_roots() {
    let nodes = sample(3).roots.nodes().to_vec();
    assert!(Roots::from_nodes(3, nodes.clone()).is_ok());
    for length in [0, 1, 2, 4, MAX_LENGTH] {
        let refused = Roots::from_nodes(length, nodes.clone());
        assert!(matches!(refused, Err(Error::WrongRoots { .. })), "{length}");
    }
    let reversed = nodes.iter().rev().copied().collect();
    assert!(matches!(
        Roots::from_nodes(3, reversed),
        Err(Error::WrongRoots { length: 3 })
    ));
    assert!(matches!(
        Roots::from_nodes(MAX_LENGTH + 1, Vec::new()),
        Err(Error::LogTooLong { .. })
    ));
    let mut large = nodes;
    large[0].size = MAX_BYTE_LENGTH;
    assert!(matches!(
        Roots::from_nodes(3, large),
        Err(Error::LogTooLarge { length: 3 })
    ));
}
