//! The same sessions with our library and with Node's.
//!
//! A peer that knows the key says what a script has, true and false, to a writer or to a clone: the same to Node's as to ours, and
//! after each step all that can be seen from outside is compared. The first difference must have a [`Reason`], and every reason must
//! come up. What comes after it is not compared, as both are not the same any more.
//!
//! Nothing waits and little is left to chance: each side does all that it can before the next step. So a session with the same
//! number is the same again. A failure tells the number, and `HYPERCORE_SESSIONS=7..8` makes that session alone. By default there are a
//! tenth as many as of other inputs.

mod alter;
mod case;
mod compare;
mod logs;
mod messages;
mod node;
mod odd;
mod ours;
mod peer;
mod reason;
mod script;
mod together;
mod writing;

use std::collections::BTreeMap;
use std::ops::Range;

use compare::{Unexplained, compare};
use logs::Logs;
use node::Node;
use reason::Reason;
use script::Script;

#[test]
fn sessions_go_alike_or_differ_for_a_reason() {
    let (logs, mut node) = (Logs::new(), Node::new());
    let chosen = chosen();
    let all = 0..super::cases() as u64 / 10;
    let (mut alike, mut differences) = (0, BTreeMap::<_, usize>::new());
    let mut failures = Vec::new();
    for number in chosen.clone().unwrap_or(all) {
        let script = Script::new(number, &logs);
        match reasons(&script, &logs, &mut node) {
            Ok(reasons) if reasons.is_empty() => alike += 1,
            Ok(reasons) => reasons
                .into_iter()
                .for_each(|reason| *differences.entry(reason).or_default() += 1),
            Err(what) => failures.push(format!("session {number}, {:?}: {what}", script.role)),
        }
    }
    // It has said much, of sessions that did not fail.
    drop(node);
    println!("{alike} alike; different: {differences:?}");
    failures.truncate(10);
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
    for reason in differences.keys() {
        assert!(Reason::ALL.contains(reason), "{reason:?} is not listed");
    }
    for reason in Reason::ALL.into_iter().filter(|_| chosen.is_none()) {
        assert!(
            differences.contains_key(&reason),
            "{reason:?} makes no difference"
        );
    }
}

/// The numbers of the sessions that are to be made.
fn chosen() -> Option<Range<u64>> {
    let chosen = std::env::var("HYPERCORE_SESSIONS").ok()?;
    let (first, end) = chosen.split_once("..").expect("HYPERCORE_SESSIONS is 7..8");
    let [first, end] = [first, end].map(|number| number.parse().expect("a number"));
    Some(first..end)
}

/// Why both differ, if they do; an error if they do for no reason.
fn reasons(script: &Script, logs: &Logs, node: &mut Node) -> Result<Vec<Reason>, String> {
    let together = match compare(script, logs, node) {
        Ok(reasons) => return Ok(reasons),
        Err(Unexplained { what, reason }) => reason.ok_or(what),
    };
    // Which of the messages that came together makes the difference, or if it is that they did.
    match compare(&script.one_by_one(), logs, node) {
        Ok(reasons) if reasons.is_empty() => together.map(|reason| vec![reason]),
        Ok(reasons) => Ok(reasons),
        Err(apart) => Err(apart.what),
    }
}
