//! What can be printed shows no secret.

use hypercore::{
    Hypercore, KeyPair, OpenOptions, ReplicateOptions, Role,
    wire::{SecureStream, Session, SessionOptions, Split, StaticKeyPair},
};

use crate::support::run;

const SEED: [u8; 32] = [
    0x9d, 0x61, 0xb1, 0x9d, 0xef, 0xfd, 0x5a, 0x60, 0xba, 0x84, 0x4a, 0xf4, 0x92, 0xec, 0x2c, 0xc4,
    0x44, 0x49, 0xc5, 0x69, 0x7b, 0x32, 0x69, 0x19, 0x70, 0x3b, 0xac, 0x03, 0x1c, 0xae, 0x7f, 0x60,
];

/// Neither as hexadecimal digits nor as a list of numbers do eight bytes of the secret occur.
#[track_caller]
fn shows_nothing(what: &str, shown: &str) {
    assert!(!shown.is_empty());
    let lower = shown.to_lowercase().replace(['\n', ' '], "");
    for window in SEED.windows(8) {
        let digits = hex::encode(window);
        let numbers: Vec<_> = window.iter().map(u8::to_string).collect();
        let spaced: Vec<_> = window.iter().map(|byte| format!("{byte:x}")).collect();
        for secret in [digits, numbers.join(","), spaced.join(",")] {
            assert!(!lower.contains(&secret), "{what} shows {secret}: {shown}");
        }
    }
}

#[test]
fn nothing_that_holds_a_secret_shows_it() {
    run(async {
        let pair = || KeyPair::from_seed(&SEED);
        shows_nothing("KeyPair", &format!("{:?} {:#?}", pair(), pair()));
        let options = OpenOptions::new().key_pair(pair());
        shows_nothing("OpenOptions", &format!("{options:?}"));
        let core = options.open_memory().await.unwrap();
        core.append("a").await.unwrap();
        shows_nothing("Hypercore", &format!("{core:?}"));
        let again = OpenOptions::new().key_pair(pair()).create_new();
        let other = again.key(KeyPair::from_seed(&[1; 32]).public_key());
        let error = other.open_memory().await.map(drop);
        shows_nothing("the result of opening", &format!("{error:?}"));

        let identity = || StaticKeyPair::from_secret(&SEED);
        shows_nothing(
            "StaticKeyPair",
            &format!("{:?} {:#?}", identity(), identity()),
        );
        let mut options = ReplicateOptions::live();
        options.key_pair = Some(identity());
        shows_nothing("ReplicateOptions", &format!("{options:?}"));
        let replication = core.replicate(Role::Initiator, options).unwrap();
        shows_nothing(
            "Replication",
            &format!("{replication:?} {:?}", replication.handle()),
        );

        let options = || SessionOptions::with_keys(Role::Initiator, identity(), [3; 24]);
        shows_nothing("SessionOptions", &format!("{:?}", options()));
        let mut session = Session::new(options(), std::time::Instant::now()).unwrap();
        // The key of a log is what lets others read it.
        session.open(&SEED).unwrap();
        shows_nothing("Session", &format!("{session:?}"));
        let stream = SecureStream::new(&options()).unwrap();
        shows_nothing("SecureStream", &format!("{stream:?}"));
        shows_nothing("Split", &format!("{:?}", Split::new(SEED, SEED)));
        drop::<Hypercore>(core);
    });
}
