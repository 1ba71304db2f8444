//! The same damaged files to our library and to Node's.
//!
//! Logs of both are damaged as disks do it, and opened by both to be read. What we give out must be what was appended, whatever
//! Node does; where we find something else than Node, there must be a [`Reason`], and every reason must come up. A tenth as many
//! cases are made as of other inputs, because each takes longer.

mod damage;
pub(super) mod originals;
mod readers;
mod reason;

use std::collections::BTreeMap;

use super::random::Random;
use damage::damage;
use originals::Files;
use readers::{Found, Node, Ours, Theirs};
use reason::{Case, Reason};

/// How many damaged logs are given to Node at once.
const BATCH: usize = 50;

/// The logs that are to be damaged, with what both find in them.
fn originals(node: &mut Node) -> Vec<(Files, Found)> {
    let originals = originals::all();
    let theirs = node.open(&originals);
    let both = originals.into_iter().zip(theirs).enumerate();
    both.map(|(at, (files, theirs))| {
        let ours = Ours::open(&files)
            .found
            .unwrap_or_else(|error| panic!("log {at}: {error}"));
        let Theirs::Found(theirs) = theirs else {
            panic!("log {at}: {theirs:?}");
        };
        assert_eq!(ours, theirs, "log {at}");
        assert!(
            ours.length > 0 && ours.blocks.values().all(Option::is_some),
            "log {at}"
        );
        (files, ours)
    })
    .collect()
}

#[test]
fn damaged_files_are_opened_alike_or_for_a_reason() {
    let (mut node, mut random) = (Node::new(), Random::new());
    let originals = originals(&mut node);
    let (mut alike, mut differences) = (0, BTreeMap::<_, usize>::new());
    let (mut done, all) = (0, super::cases() / 10);
    while done < all {
        let count = BATCH.min(all - done);
        let (whole, damaged): (Vec<_>, Vec<_>) = (0..count)
            .map(|_| {
                let original = &originals[random.below(originals.len())];
                let mut files = original.0.clone();
                damage(&mut files, &mut random);
                (original, files)
            })
            .unzip();
        for (((original, whole), damaged), theirs) in
            whole.iter().zip(&damaged).zip(node.open(&damaged))
        {
            let case = Case {
                original,
                whole,
                damaged,
            };
            let ours = Ours::open(damaged);
            let checked = ours
                .found
                .as_ref()
                .map_or(Ok(()), |found| case.check(found));
            match checked.and_then(|()| case.reasons(&ours, &theirs)) {
                Ok(reasons) if reasons.is_empty() => alike += 1,
                Ok(reasons) => reasons
                    .into_iter()
                    .for_each(|reason| *differences.entry(reason).or_default() += 1),
                Err(what) => panic!(
                    "case {done}: {what}{}: {ours:?} here, {theirs:?} in Node",
                    case.changes()
                ),
            }
            done += 1;
        }
    }
    println!("{alike} alike; different: {differences:?}");
    for reason in Reason::ALL {
        assert!(
            differences.contains_key(&reason),
            "{reason:?} makes no difference"
        );
    }
}
