use hypercore_wire::{Direction, Split, StaticKeyPair, discovery_key};

use crate::support::{array, list, vectors};

#[test]
fn noise_key_pairs_equal_node() {
    let vectors = vectors("crypto.json");
    for pair in list(&vectors["noiseKeyPairs"]) {
        let from_seed = StaticKeyPair::from_seed(&array(&pair["seed"]));
        assert_eq!(from_seed.public_key(), array(&pair["publicKey"]));
        let from_secret = StaticKeyPair::from_secret(&array(&pair["secretKey"]));
        assert_eq!(from_secret.public_key(), array(&pair["publicKey"]));
        for pair in [from_seed.duplicate(), from_secret] {
            assert_eq!(**from_seed.to_secret(), **pair.to_secret());
        }
        assert_eq!(**from_seed.to_secret(), array(&pair["secretKey"]));
    }
}

#[test]
fn discovery_keys_equal_node() {
    let vectors = vectors("crypto.json");
    for pair in list(&vectors["keyPairs"]) {
        assert_eq!(
            discovery_key(&array(&pair["publicKey"])),
            array(&pair["discoveryKey"])
        );
    }
}

#[test]
fn capabilities_equal_node() {
    let vectors = vectors("crypto.json");
    for case in list(&vectors["capabilities"]) {
        let split = Split::new(array(&case["split"]["tx"]), array(&case["split"]["rx"]));
        let key = array(&case["key"]);
        assert_eq!(
            split.capability(&key, Direction::Send),
            array(&case["capability"])
        );
        assert_eq!(
            split.capability(&key, Direction::Receive),
            array(&case["remoteCapability"])
        );
    }
}

#[test]
fn secrets_are_not_shown() {
    let secret = [0xab; 32];
    let shown = format!(
        "{:?} {:?}",
        StaticKeyPair::from_secret(&secret),
        Split::new(secret, secret)
    );
    assert!(
        !shown.contains("abab") && !shown.contains("171, 171"),
        "{shown}"
    );
}
