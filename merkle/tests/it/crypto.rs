use bytes::Bytes;
use hypercore_merkle::{
    Block, DiscoveryKey, Error, KeyPair, Node, ParseKeyError, PublicKey, Roots, Signature,
    TreeHead, Verifier, leaf_hash, parent_hash, tree_hash,
};
use serde_json::Value;

use crate::support::{JsonNode, get, nodes, unhex, unhex_array, vectors};

fn list(value: &Value, key: &str) -> Vec<Value> {
    let list: Vec<Value> = get(value, key);
    assert!(!list.is_empty(), "{key}");
    list
}

fn signature(value: &Value, key: &str) -> Signature {
    Signature::try_from(&*unhex(&get::<String>(value, key))).expect("64 bytes")
}

fn head_of(length: u64, hash: [u8; 32]) -> TreeHead {
    let mut head = Roots::new().head();
    (head.length, head.hash) = (length, hash);
    head
}

#[test]
fn key_pairs() {
    for case in list(&vectors("crypto.json"), "keyPairs") {
        let bytes: [u8; 64] = unhex_array(&get::<String>(&case, "secretKey"));
        let key_pair = KeyPair::from_seed(&unhex_array(&get::<String>(&case, "seed")));
        assert_eq!(**key_pair.to_bytes(), bytes);
        assert_eq!(
            key_pair.public_key().to_string(),
            get::<String>(&case, "publicKey")
        );
        let discovery_key = key_pair.public_key().discovery_key();
        assert_eq!(
            discovery_key.to_string(),
            get::<String>(&case, "discoveryKey")
        );
        let same = KeyPair::from_bytes(&bytes).expect("a matching pair");
        assert_eq!(same.public_key(), key_pair.public_key());
    }
}

#[test]
fn halves_must_belong_together() {
    let mut bytes = *KeyPair::from_seed(&[1; 32]).to_bytes();
    bytes[32..].copy_from_slice(KeyPair::from_seed(&[2; 32]).public_key().as_bytes());
    assert!(matches!(
        KeyPair::from_bytes(&bytes),
        Err(Error::KeyPairMismatch)
    ));
}

#[test]
fn generated_key_pairs_differ_and_keep_their_secret() {
    let a = KeyPair::generate().expect("random bytes");
    let b = KeyPair::generate().expect("random bytes");
    assert_ne!(a.public_key(), b.public_key());
    let shown = format!("{a:?}");
    assert!(shown.contains(&a.public_key().to_string()), "{shown}");
    assert!(
        !shown.contains(&hex::encode(&a.to_bytes()[..32])),
        "{shown}"
    );
}

#[test]
fn a_duplicate_signs_the_same() {
    let pair = KeyPair::from_seed(&[5; 32]);
    let head = head_of(1, [1; 32]);
    let again = pair.duplicate();
    assert_eq!(again.public_key(), pair.public_key());
    let signature = again.sign_checked(&head).expect("a key that is as it was");
    assert_eq!(signature, pair.sign(&head));
}

#[test]
fn keys_and_signatures_are_bytes() {
    fn check<const N: usize, T>()
    where
        T: From<[u8; N]> + Into<[u8; N]> + AsRef<[u8]> + for<'a> TryFrom<&'a [u8]>,
    {
        let bytes = std::array::from_fn(|index| index as u8);
        let value = T::from(bytes);
        assert_eq!(value.as_ref(), bytes);
        let same = T::try_from(&bytes[..])
            .ok()
            .expect("as many as there have to be");
        assert_eq!(same.into(), bytes);
        assert!(T::try_from(&bytes[1..]).is_err());
    }
    check::<32, PublicKey>();
    check::<32, DiscoveryKey>();
    check::<64, Signature>();
}

/// Text where people read along, and bytes elsewhere.
#[cfg(feature = "serde")]
#[test]
fn keys_and_signatures_are_serialised() {
    use serde::{Serialize, de::DeserializeOwned};

    fn check<T>(value: &T)
    where
        T: Serialize + DeserializeOwned + AsRef<[u8]> + ToString + PartialEq + std::fmt::Debug,
    {
        let text = serde_json::to_string(value).expect("a string");
        assert_eq!(text, format!("\"{}\"", value.to_string()));
        assert_eq!(&serde_json::from_str::<T>(&text).expect("the same"), value);
        for wrong in ["\"00\"", "\"key\"", "7", &text.replace('0', "x")] {
            assert!(serde_json::from_str::<T>(wrong).is_err(), "{wrong}");
        }
        let mut bytes = Vec::new();
        ciborium::into_writer(value, &mut bytes).expect("room");
        assert!(bytes.ends_with(value.as_ref()));
        assert!(bytes.len() <= value.as_ref().len() + 2, "they are not text");
        assert_eq!(
            &ciborium::from_reader::<T, _>(&bytes[..]).expect("the same"),
            value
        );
        let mut short = Vec::new();
        let part = ciborium::Value::Bytes(value.as_ref()[1..].to_vec());
        ciborium::into_writer(&part, &mut short).expect("room");
        assert!(ciborium::from_reader::<T, _>(&short[..]).is_err());
    }
    check(&PublicKey::from([0xa0; 32]));
    check(&DiscoveryKey::from([0xb0; 32]));
    check(&Signature::try_from(&[0xc0; 64][..]).expect("64 bytes"));
}

#[test]
fn leaf_hashes() {
    for case in list(&vectors("crypto.json"), "leaf") {
        let length: usize = get(&case, "length");
        let value = match case.get("repeatByte") {
            Some(byte) => vec![u8::try_from(byte.as_u64().unwrap()).unwrap(); length],
            None => unhex(&get::<String>(&case, "data")),
        };
        assert_eq!(value.len(), length);
        assert_eq!(hex::encode(leaf_hash(&value)), get::<String>(&case, "hash"));
    }
}

#[test]
fn many_blocks_hash_like_one() {
    // Around the sizes of a BLAKE2b block and the nine bytes before a value.
    let lengths = [0, 1, 118, 119, 120, 127, 128, 129, 247, 248, 1000, 70_000];
    for first in 0..lengths.len() {
        // With the longest, which are hashed where they are, and one more each time.
        let values: Vec<Bytes> = (first..lengths.len())
            .map(|n| Bytes::from(vec![u8::try_from(n).unwrap(); lengths[n]]))
            .collect();
        let blocks = Block::hash_many(values.clone());
        assert_eq!(blocks.len(), values.len());
        for (block, value) in blocks.iter().zip(values) {
            assert_eq!(*block.leaf_hash(), leaf_hash(&value));
            assert_eq!(block.size(), value.len() as u64);
            assert_eq!(*block, Block::hash(value));
        }
    }
    assert!(Block::hash_many(Vec::new()).is_empty());
}

#[test]
fn parent_hashes() {
    for case in list(&vectors("crypto.json"), "parent") {
        let a = Node::from(get::<JsonNode>(&case, "a"));
        let b = Node::from(get::<JsonNode>(&case, "b"));
        assert_eq!(
            hex::encode(parent_hash(&a, &b)),
            get::<String>(&case, "hash")
        );
        assert_eq!(parent_hash(&a, &b), parent_hash(&b, &a));
    }
}

#[test]
fn every_length_of_a_log() {
    let crypto = vectors("crypto.json");
    let feed = &crypto["feed"];
    let key_pair = KeyPair::from_bytes(&unhex_array(&get::<String>(feed, "secretKey"))).unwrap();
    let verifier = Verifier::new(&key_pair.public_key());
    let mut roots = Roots::new();
    for step in list(feed, "blocks") {
        let value = Bytes::from(unhex(&get::<String>(&step, "data")));
        let changes =
            hypercore_merkle::append::append(&roots, vec![Block::hash(value)], &key_pair).unwrap();
        roots = changes.roots().expect("an append has roots").clone();
        let head = *changes.head().expect("an append has a head");

        assert_eq!(changes.nodes(), nodes(&step, "newNodes"));
        assert_eq!(roots.nodes(), nodes(&step, "roots"));
        assert_eq!(head.length, get::<u64>(&step, "length"));
        assert_eq!(hex::encode(head.hash), get::<String>(&step, "tree"));
        assert_eq!(
            hex::encode(head.signable()),
            get::<String>(&step, "signable")
        );

        let expected = signature(&step, "signature");
        assert_eq!(changes.signature(), Some((head.length, &expected)));
        assert!(verifier.verify(&head, &expected));
        assert!(
            verifier.verify(&head, &signature(&step, "compatSignature")),
            "the old form"
        );

        let again = Roots::from_nodes(head.length, nodes(&step, "roots")).unwrap();
        assert_eq!(again, roots);
    }
}

#[test]
fn the_empty_tree_and_a_huge_one() {
    let crypto = vectors("crypto.json");
    let empty = Roots::new().head();
    assert_eq!(
        hex::encode(empty.signable()),
        get::<String>(&crypto["emptyTree"], "signable")
    );

    let big = &crypto["bigRoots"];
    let hash = tree_hash(&nodes(big, "roots"));
    assert_eq!(hex::encode(hash), get::<String>(big, "tree"));
    let head = head_of(get(big, "length"), hash);
    assert_eq!(hex::encode(head.signable()), get::<String>(big, "signable"));
}

#[test]
fn published_signatures_of_both_forms() {
    let crypto = vectors("crypto.json");
    let test = &crypto["compatTest"];
    let key = PublicKey::from(unhex_array::<32>(&get::<String>(test, "key")));
    let verifier = Verifier::new(&key);
    let key_pair = KeyPair::from_bytes(&unhex_array(&get::<String>(test, "secretKey"))).unwrap();
    let mut roots = Roots::new();
    let values: Vec<String> = get(test, "blocks");
    let compat: Vec<String> = get(test, "compatSignatures");
    for (value, compat) in values.into_iter().zip(compat) {
        let block = Block::hash(Bytes::from(value));
        let changes = hypercore_merkle::append::append(&roots, vec![block], &key_pair).unwrap();
        roots = changes.roots().unwrap().clone();
        let compat = Signature::try_from(&*unhex(&compat)).unwrap();
        assert!(verifier.verify(&roots.head(), &compat));
    }
    let last = signature(test, "currentSignatureOfLast");
    assert!(verifier.verify(&roots.head(), &last));
    assert_eq!(key_pair.sign(&roots.head()), last);
}

#[test]
fn a_signature_is_of_one_head_only() {
    let key_pair = KeyPair::from_seed(&[3; 32]);
    let verifier = Verifier::new(&key_pair.public_key());
    let head = Roots::new().head();
    let signature = key_pair.sign(&head);
    assert!(verifier.verify(&head, &signature));
    assert!(!verifier.verify(&head_of(1, head.hash), &signature));
    assert!(!verifier.verify(&head_of(0, [0; 32]), &signature));
    // What follows from the roots is not compared with their hash.
    let mut rest = head;
    (rest.byte_length, rest.fork) = (1, 1);
    assert!(verifier.verify(&rest, &signature));
    let other = Verifier::new(&KeyPair::from_seed(&[4; 32]).public_key());
    assert!(!other.verify(&head, &signature));
    assert!(matches!(
        Signature::try_from(&signature.as_bytes()[1..]),
        Err(Error::SignatureLength { length: 63 })
    ));
}

/// For a key of small order anybody can sign; libsodium accepts none of them.
#[test]
fn weak_keys_sign_nothing() {
    let mut identity = [0; 32];
    identity[0] = 1;
    let mut not_canonical = [0xff; 32];
    not_canonical[0] = 0xee;
    not_canonical[31] = 0x7f;
    let mut order_two = [0xff; 32];
    order_two[0] = 0xec;
    order_two[31] = 0x7f;
    let mut forged = [0; 64];
    forged[0] = 1;
    let forged = Signature::try_from(&forged[..]).unwrap();
    for key in [identity, not_canonical, order_two, [0; 32]] {
        let verifier = Verifier::new(&PublicKey::from(key));
        for length in 0..16 {
            let head = head_of(length, Roots::new().head().hash);
            assert!(!verifier.verify(&head, &forged), "{key:02x?}");
        }
    }
}

#[test]
fn any_bytes_can_be_a_key() {
    // About half of all byte strings are no point of the curve.
    for byte in 0..=255 {
        let verifier = Verifier::new(&PublicKey::from([byte; 32]));
        let head = head_of(0, [byte; 32]);
        assert!(verifier.is_static_head(&head));
        assert!(!verifier.is_static_head(&Roots::new().head()));
        assert!(!verifier.verify(&head, &Signature::try_from(&[byte; 64][..]).unwrap()));
    }
}

#[test]
fn keys_are_read_as_they_are_shown() {
    let key = KeyPair::from_seed(&[7; 32]).public_key();
    let shown = key.to_string();
    assert_eq!(shown.parse(), Ok(key));
    assert_eq!(shown.to_uppercase().parse(), Ok(key));
    let discovery_key = key.discovery_key();
    assert_eq!(discovery_key.to_string().parse(), Ok(discovery_key));
    let wrong = [
        String::new(),
        shown[1..].to_owned(),
        format!("{shown}0"),
        format!("{shown}00"),
        shown.replace(&shown[..1], "g"),
        shown.replace(&shown[..2], "+1"),
        shown.replace(&shown[..2], "\u{e9}"),
    ];
    for text in wrong {
        assert_eq!(text.parse::<PublicKey>(), Err(ParseKeyError), "{text:?}");
    }
}
