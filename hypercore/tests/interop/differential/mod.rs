//! The same bytes to our decoders and to Node's.
//!
//! What Node wrote must be read alike. Inputs that nobody wrote are made by changing the seeds of the fuzz targets: every
//! difference there must be an [`Oddity`], and every oddity must come up, so that the list stays true.
//! `HYPERCORE_DIFFERENTIAL_CASES=1000000` makes so many inputs of each kind, and a tenth as many damaged logs and
//! sessions.

mod damaged;
mod inputs;
mod oddity;
mod random;
mod readers;
mod sessions;

use std::collections::BTreeMap;

use inputs::Inputs;
use oddity::Oddity;
use readers::{Node, Ours, Theirs};
use serde_json::Value;

/// How many inputs of a kind are made.
fn cases() -> usize {
    std::env::var("HYPERCORE_DIFFERENTIAL_CASES").map_or(20_000, |cases| {
        let cases = cases.parse();
        cases.expect("HYPERCORE_DIFFERENTIAL_CASES is a number")
    })
}

/// Gives the inputs to Node, and both to `compare`.
fn each(kind: &str, mut inputs: Inputs, mut compare: impl FnMut(&[u8], Value)) {
    let mut node = Node::new();
    let mut left = cases();
    while left > 0 {
        let batch = inputs.batch(left);
        left -= batch.len();
        for (input, theirs) in batch.iter().zip(node.read(kind, &batch)) {
            compare(input, theirs);
        }
    }
}

/// Every frame that Hypercore 9 wrote for the vectors.
#[test]
fn what_node_writes_is_read_alike() {
    let vectors = include_str!("../../../../wire/tests/vectors/messages.json");
    let vectors: Value = serde_json::from_str(vectors).unwrap();
    let lists = ["messages", "extensions"].map(|list| vectors[list].as_array().unwrap());
    let frames = lists
        .into_iter()
        .flatten()
        .map(|vector| vector["frame"].as_str().unwrap());
    let frames: Vec<_> = frames.map(|frame| hex::decode(frame).unwrap()).collect();
    assert!(frames.len() > 100);
    let mut alike = 0;
    for (frame, theirs) in frames.iter().zip(Node::new().read("stream", &frames)) {
        let theirs = Theirs::new(&theirs);
        assert_eq!((theirs.messages.len(), &theirs.error), (1, &None));
        match difference(&Ours::read(frame), &theirs) {
            Ok(None) => alike += 1,
            // The extremes of what its encoders can be made to write.
            Ok(Some(Oddity::TooLarge | Oddity::Empty)) => {}
            other => panic!("{other:?}: {}", hex::encode(frame)),
        }
    }
    println!("{alike} of {} read alike", frames.len());
    assert!(alike > frames.len() * 9 / 10);
}

#[test]
fn what_nobody_writes_is_read_alike_or_for_a_reason() {
    let (mut alike, mut differences) = (0, BTreeMap::<_, usize>::new());
    for inputs in [Inputs::messages(), Inputs::frames()] {
        each("stream", inputs, |input, theirs| {
            match difference(&Ours::read(input), &Theirs::new(&theirs)) {
                Ok(None) => alike += 1,
                Ok(Some(oddity)) => *differences.entry(oddity).or_default() += 1,
                Err(what) => panic!("{what} in {}", hex::encode(input)),
            }
        });
    }
    println!("{alike} alike; different: {differences:?}");
    for oddity in Oddity::ALL {
        assert!(
            differences.contains_key(&oddity),
            "{oddity:?} makes no difference"
        );
    }
}

/// What makes the first message that is not read alike different; an error if nothing does.
fn difference(ours: &Ours, theirs: &Theirs) -> Result<Option<Oddity>, String> {
    let same = |(ours, theirs): &(&Value, &Value)| ours == theirs;
    let at = ours
        .messages
        .iter()
        .zip(&theirs.messages)
        .take_while(same)
        .count();
    let frame = ours.frames.get(at).map(|frame| &frame[..]);
    let oddity = match (ours.messages.get(at), theirs.messages.get(at), &ours.error) {
        (Some(_), _, _) => frame.and_then(Oddity::within),
        // A frame that is not yet whole is none for us. Node has looked at its header.
        (None, None, None) => return Ok(None),
        (None, None, Some(_)) if theirs.error.is_some() => return Ok(None),
        (None, _, Some(error)) => Oddity::refused(frame, error),
        (None, Some(_), None) => None,
    };
    let what = || format!("message {at} is {ours:?} here and {theirs:?} in Node");
    oddity.map(Some).ok_or_else(what)
}

/// An encoding is read alike, but for headers that are longer than they need to be.
#[test]
fn bitfields_are_decoded_alike() {
    let (mut read, mut refused, mut overlong) = (0, 0, 0);
    each("rle", Inputs::bitfields(), |input, theirs| {
        use hypercore::bitfield::Error;
        match (readers::bits(input), theirs["bits"].as_str()) {
            (Ok(ours), Some(theirs)) => {
                assert_eq!(hex::encode(ours), theirs, "{}", hex::encode(input));
                read += 1;
            }
            (Err(_), None) => refused += 1,
            (Err(Error::OverlongHeader { .. }), Some(_)) => overlong += 1,
            (ours, _) => panic!(
                "{ours:?} here and {theirs} in Node of {}",
                hex::encode(input)
            ),
        }
    });
    println!("{read} read alike, {refused} refused by both, {overlong} overlong");
    assert!(read.min(refused) > cases() / 4 && overlong > 0);
}
