//! The reason of a difference that comes from what is sent together.

use hypercore::Error;
use hypercore::merkle;
use hypercore::wire::{Body, Message};

use super::compare::Difference;
use super::node::{Over, State};
use super::ours::Ours;
use super::reason::Reason::{self, *};
use super::script::Item;

/// Why both differ after a step, although they do not if what is in it comes one by one.
pub(super) fn reason(
    step: &[Item],
    stored: usize,
    difference: Difference,
    ours: &Ours,
    theirs: &State,
) -> Option<Reason> {
    let frames: Vec<_> = step.iter().filter_map(Item::read).collect();
    let answers = frames.iter().filter_map(|frame| match &frame.body {
        Body::Message(Message::Data(data)) => Some(data.index),
        _ => None,
    });
    let mut answers: Vec<_> = answers.collect();
    let count = answers.len();
    answers.sort_unstable();
    answers.dedup();
    let is_twice = answers.len() < count;
    let has_stored = ours.blocks().len() > stored;
    let is_closed = frames
        .iter()
        .any(|frame| matches!(frame.body, Body::Close(_)));
    match (difference, &ours.over, theirs.over) {
        (Difference::Over, Some(Err(_)), Some(Over::Crashed | Over::Hung)) => Some(BeforeThrown),
        (Difference::Blocks | Difference::Length, Some(Err(_)), Some(Over::Failed)) => {
            let (ours, more) = (ours.blocks(), &theirs.blocks);
            let is_less = ours
                .iter()
                .all(|(index, block)| more.get(index) == Some(block));
            (is_less && count > 0).then_some(if is_twice { Twice } else { BeforeMistake })
        }
        (Difference::Over, Some(Err(Error::Merkle(merkle::Error::NotARoot { .. }))), None) => {
            Some(BelowRoots)
        }
        (Difference::Over, Some(Err(_)), None) if is_closed => Some(ClosedBefore),
        (Difference::Over, None, Some(Over::Failed)) if has_stored => {
            Some(if count > 1 { CountsOn } else { StoredBefore })
        }
        (Difference::Over, ..) => is_twice.then_some(Twice),
        (Difference::Length | Difference::Blocks | Difference::Tree, None, None) => {
            is_twice.then_some(Twice)
        }
        (Difference::Data | Difference::Haves, None, None) if has_stored => Some(StoredBefore),
        (Difference::Data | Difference::Haves | Difference::Unreadable, None, None) => {
            is_closed.then_some(ClosedBefore)
        }
        _ => None,
    }
}
