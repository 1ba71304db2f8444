//! One session with both.

use futures_lite::future::block_on;
use hypercore::Hypercore;
use hypercore::merkle::Proof;
use hypercore::wire::{Data, Message};

use super::case::Case;
use super::logs::Logs;
use super::node::{Node, Over, State};
use super::ours::Ours;
use super::peer::{Peer, Said};
use super::reason::Reason;
use super::script::{Item, Script};
use super::together;

/// In what both differ.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Difference {
    /// Whether the connection goes on, and how it ended.
    Over,
    Length,
    Blocks,
    /// What is known of the tree.
    Tree,
    /// The answers to requests.
    Data,
    /// The answers to Wants, and acknowledgements.
    Haves,
    /// The requests.
    Asked,
    /// What Node says cannot be read.
    Unreadable,
}

/// A difference that no message makes by itself.
pub(super) struct Unexplained {
    pub(super) what: String,
    /// Why it is one, if its messages make none when they come one by one.
    pub(super) reason: Option<Reason>,
}

impl From<String> for Unexplained {
    fn from(what: String) -> Self {
        Self { what, reason: None }
    }
}

/// Goes through a script with both, up to the first difference. Returns the reasons.
pub(super) fn compare(
    script: &Script,
    logs: &Logs,
    node: &mut Node,
) -> Result<Vec<Reason>, Unexplained> {
    let key = *logs.log.key().as_bytes();
    let files = logs.files(script.role);
    let mut theirs = Peer::new();
    let out = node.begin(files, &script.gets, &theirs.flight());
    theirs.hear(&out);
    let mut steps = vec![theirs.flight()];
    steps.extend(script.steps.iter().map(|step| theirs.encode(&key, step)));
    let states = node.go(&steps);
    assert_eq!(states[0].over, None, "nothing was said yet");
    theirs.hear(&states[0].out);

    let mut peer = Peer::new();
    let mut ours = Ours::new(files, &script.gets);
    for _ in 0..2 {
        let out = ours.receive(&peer.flight());
        peer.hear(&out);
    }
    let (mut reasons, mut before) = (Vec::new(), Vec::new());
    for (step, state) in script.steps.iter().zip(&states[1..]) {
        let stored = ours.blocks().len();
        let bytes = peer.encode(&key, step);
        let said = peer.hear(&ours.receive(&bytes));
        let heard = theirs.hear(&state.out);
        let is_first = !before.iter().copied().chain(step).any(says_what_it_knows);
        check(&ours, &said, logs, is_first)
            .map_err(|what| format!("{what} at {step:?} after {before:?}"))?;
        if is_unread_empty(&ours, state) {
            reasons.push(Reason::EmptyBlock);
        }
        if let Some(difference) = difference((&ours, &said), (state, &heard)) {
            let what = || {
                let mine = (&ours.over, ours.core.length(), ours.blocks());
                let (length, blocks) = (state.length, &state.blocks);
                let (mine, theirs) = (
                    format!("{:?}, {}, {:?}", mine.0, mine.1, mine.2.keys()),
                    format!(
                        "{:?}, {:?}, {length}, {:?}",
                        state.over,
                        state.error,
                        blocks.keys()
                    ),
                );
                format!(
                    "{difference:?} differs at {step:?}\nafter {before:?}\nours: {mine}, {said:?}\nNode's: {theirs}, {heard:?}"
                )
            };
            let [item] = &step[..] else {
                let reason = together::reason(step, stored, difference, &ours, state);
                return Err(Unexplained {
                    what: what(),
                    reason,
                });
            };
            let case = Case {
                logs,
                item,
                before: &before,
                difference,
                ours: &ours,
                theirs: state,
                data_said: (&said.data, &heard.data),
            };
            reasons.push(case.reason().ok_or_else(what)?);
            break;
        }
        if state.over.is_some() {
            break;
        }
        before.extend(step);
    }
    reasons.sort();
    reasons.dedup();
    Ok(reasons)
}

/// Whether later answers may leave something out because of this.
fn says_what_it_knows(item: &Item) -> bool {
    match item.message() {
        Some(Message::Request(request)) => request.nodes != 0,
        _ => false,
    }
}

/// What must hold of our side, whatever Node does: nothing of what it has or says is false. What it says proves itself to
/// somebody who has nothing, if such a one has asked.
fn check(ours: &Ours, said: &Said, logs: &Logs, is_first: bool) -> Result<(), String> {
    if ours.core.length() > logs.length() {
        return Err("longer than it ever was".to_owned());
    }
    let is_right = |index: u64, block: &[u8]| {
        let right = logs.blocks.get(index as usize);
        right.is_some_and(|right| right == block)
    };
    for (index, block) in ours.blocks() {
        if !block.is_some_and(|block| is_right(index, &block)) {
            return Err(format!("block {index} is another one"));
        }
    }
    for data in &said.data {
        let is_false = data
            .value
            .as_ref()
            .is_some_and(|value| !is_right(data.index, value));
        if is_false || !logs.is_true(data) {
            return Err(format!("a false answer: {data:?}"));
        }
        if is_first {
            take_in(logs, data).map_err(|error| format!("{error}: {data:?}"))?;
        }
    }
    match &said.error {
        Some(error) => Err(format!("what it says cannot be read: {error}")),
        None => Ok(()),
    }
}

/// Gives an answer to a clone that has nothing.
fn take_in(logs: &Logs, data: &Data) -> Result<(), hypercore::Error> {
    let node = |node: &hypercore::wire::DataNode| hypercore::merkle::Node {
        index: hypercore::merkle::NodeIndex::new(node.index).expect("it is true"),
        size: node.size,
        hash: node.hash,
    };
    let proof = Proof {
        nodes: data.nodes.iter().map(node).collect(),
        signature: data.signature.map(Into::into),
    };
    block_on(async {
        let options = Hypercore::options().key(logs.log.key()).sparse(true);
        let reader = options.open_memory().await?;
        reader.put(data.index, data.value.clone(), &proof).await
    })
}

/// Whether there is an empty block that Node has and cannot read.
fn is_unread_empty(ours: &Ours, theirs: &State) -> bool {
    let mut unread = theirs.blocks.iter().filter(|(_, block)| block.is_none());
    unread.any(|(&index, _)| has_empty(ours, index))
}

/// In what both differ first, if they do, but for empty blocks.
fn difference(
    (ours, said): (&Ours, &Said),
    (theirs, heard): (&State, &Said),
) -> Option<Difference> {
    let is_over_alike = match theirs.over {
        None => ours.over.is_none(),
        Some(Over::Closed | Over::Failed) => ours.over.is_some(),
        Some(Over::Crashed | Over::Hung) => false,
    };
    if !is_over_alike {
        return Some(Difference::Over);
    }
    if ours.core.length() != theirs.length {
        return Some(Difference::Length);
    }
    let ours_or_empty = |(index, theirs): (&u64, &Option<Vec<u8>>)| match theirs {
        None if has_empty(ours, *index) => (*index, Some(Vec::new())),
        theirs => (*index, theirs.clone()),
    };
    if ours.blocks() != theirs.blocks.iter().map(ours_or_empty).collect() {
        return Some(Difference::Blocks);
    }
    if ours.over.is_some() {
        return None;
    }
    if ours.digests(theirs.digests.len()) != theirs.digests {
        return Some(Difference::Tree);
    }
    if heard.error.is_some() {
        return Some(Difference::Unreadable);
    }
    if said.data != heard.data {
        return Some(Difference::Data);
    }
    if said.haves != heard.haves {
        return Some(Difference::Haves);
    }
    (said.asked != heard.asked).then_some(Difference::Asked)
}

/// Whether we have this block, and it is empty.
fn has_empty(ours: &Ours, index: u64) -> bool {
    ours.blocks().get(&index) == Some(&Some(Vec::new()))
}
