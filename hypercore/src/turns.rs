//! What changes a log, one after the other: appends, and what has to be alone with it.
//!
//! Appends that wait together are made as one, with one signature and one round of syncs.

use std::{collections::VecDeque, ops::Range, sync::Arc};

use async_channel::Sender;
use hypercore_merkle::{Block, MAX_BLOCK_SIZE};

use crate::{
    error::{Error, Result},
    options::OnWrite,
    runtime,
    shared::{Shared, lock},
};

/// What changes the log and waits for its turn.
///
/// Whoever finds nobody at work goes to work, on a thread if it takes long, and stays until nothing
/// waits any more. Those who wait need not be polled for that: a future that nobody looks at holds
/// up no other.
#[derive(Default)]
pub(crate) struct Turns {
    /// Oldest first.
    waiting: VecDeque<Turn>,
    at_work: bool,
}

enum Turn {
    /// Appends that follow each other are made as one.
    Append(Append),
    /// Says what came of it.
    Alone(Box<dyn FnOnce(&Shared) -> Answer + Send>),
}

/// Blocks that wait to be appended.
struct Append {
    blocks: Vec<Block>,
    done: Sender<Result<Range<u64>>>,
}

/// Tells whoever waits what came of it.
type Answer = Box<dyn FnOnce() + Send>;

/// Whoever is at work. A thread takes over what is left when it goes, or when a hook panics.
struct AtWork(Option<Arc<Shared>>);

impl AtWork {
    /// Takes the next turn, if anything waits.
    fn take_turn(&mut self) -> bool {
        let Some(shared) = &self.0 else {
            return false;
        };
        let answers = shared.next_turn();
        if !shared.may_go_on() {
            // Before anybody hears of it: whoever drops the last handle then has closed the core.
            self.0 = None;
        }
        answers.into_iter().for_each(|answer| answer());
        true
    }
}

impl Drop for AtWork {
    fn drop(&mut self) {
        if let Some(shared) = self.0.take()
            && shared.may_go_on()
        {
            let mut other = Self(Some(shared));
            runtime::spawn_blocking(move || while other.take_turn() {});
        }
    }
}

impl Shared {
    /// Appends `blocks` when their turn comes, together with whatever waits then.
    pub(crate) async fn append(self: &Arc<Self>, blocks: Vec<Block>) -> Result<Range<u64>> {
        let may_take_long = {
            let core = self.lock();
            let author = core.log.check_append()?;
            if blocks.is_empty() {
                // There is nothing to sign, to sync or to tell.
                let length = core.log.length();
                return Ok(length..length);
            }
            author.is_elsewhere() || self.has_to_note_loss(&core)
        };
        // One block that is too large must not fail the appends that are grouped with it.
        if let Some(block) = blocks.iter().find(|block| block.size() > MAX_BLOCK_SIZE) {
            let error = hypercore_merkle::Error::BlockTooLarge {
                size: block.size(),
                max: MAX_BLOCK_SIZE,
            };
            return Err(error.into());
        }
        let (done, result) = async_channel::bounded(1);
        let turn = Turn::Append(Append { blocks, done });
        self.take_turn(turn, self.waits || may_take_long);
        result.recv().await.unwrap_or(Err(Error::Closed))
    }

    /// Does `work` when its turn comes, while nothing else changes the log.
    pub(crate) async fn alone<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Self) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (done, result) = async_channel::bounded(1);
        let work = move |shared: &Self| -> Answer {
            // Nobody wants it any more if the future was dropped before.
            let answer = (!done.is_closed()).then(|| work(shared));
            Box::new(move || drop(answer.map(|answer| done.try_send(answer))))
        };
        self.take_turn(Turn::Alone(Box::new(work)), true);
        result.recv().await.unwrap_or(Err(Error::Closed))
    }

    fn take_turn(self: &Arc<Self>, turn: Turn, may_take_long: bool) {
        let mut turns = lock(&self.turns);
        turns.waiting.push_back(turn);
        if std::mem::replace(&mut turns.at_work, true) {
            return;
        }
        drop(turns);
        let mut at_work = AtWork(Some(Arc::clone(self)));
        if !may_take_long {
            at_work.take_turn();
        }
    }

    /// Whether something waits; otherwise nobody is at work any more.
    fn may_go_on(&self) -> bool {
        let mut turns = lock(&self.turns);
        turns.at_work = !turns.waiting.is_empty();
        turns.at_work
    }

    /// Does what waits for longest, with all appends that follow if it is one.
    fn next_turn(self: &Arc<Self>) -> Vec<Answer> {
        let mut turns = lock(&self.turns);
        let mut appends = Vec::new();
        while let Some(turn) = turns.waiting.pop_front() {
            match turn {
                Turn::Append(append) => appends.push(append),
                Turn::Alone(work) if appends.is_empty() => {
                    drop(turns);
                    return vec![work(self)];
                }
                turn @ Turn::Alone(_) => {
                    turns.waiting.push_front(turn);
                    break;
                }
            }
        }
        drop(turns);
        let answers = self.commit_appends(appends);
        self.sync_later();
        answers
    }

    /// Makes these appends, as one.
    fn commit_appends(&self, mut queue: Vec<Append>) -> Vec<Answer> {
        // Those whose future was dropped before their turn came no longer want it.
        queue.retain(|append| !append.done.is_closed());
        if let Some(on_write) = &self.on_write {
            self.ask_for_appends(on_write, &mut queue);
        }
        if queue.is_empty() {
            return Vec::new();
        }
        let mut blocks = Vec::new();
        let mut sizes = Vec::with_capacity(queue.len());
        for append in &mut queue {
            sizes.push(append.blocks.len() as u64);
            blocks.append(&mut append.blocks);
        }
        let mut results: Vec<Result<Range<u64>>> = Vec::with_capacity(queue.len());
        match self.commit(blocks) {
            Ok(mut next) => {
                for size in sizes {
                    let end = next.start.saturating_add(size);
                    results.push(Ok(next.start..end));
                    next.start = end;
                }
            }
            Err(error) if queue.len() == 1 => results.push(Err(error)),
            Err(error) => {
                let error = Arc::new(error);
                results.extend(queue.iter().map(|_| Err(Error::Append(Arc::clone(&error)))));
            }
        }
        // Seldom, and the appends are durable without it.
        if let Err(error) = self.sync_pages_if_due() {
            tracing::warn!(%error, "the bitfield could not be synced");
        }
        let answer = |(Append { done, .. }, result)| -> Answer {
            Box::new(move || drop(done.try_send(result)))
        };
        queue.into_iter().zip(results).map(answer).collect()
    }

    /// Fails the appends that the hook refuses. They are asked for at the indexes they will have.
    fn ask_for_appends(&self, on_write: &OnWrite, queue: &mut Vec<Append>) {
        let mut next = self.lock().log.length();
        queue.retain(|append| {
            let mut indexes = next..;
            let refused = append
                .blocks
                .iter()
                .zip(&mut indexes)
                .find_map(|(block, index)| on_write.ask(index, block.value(), None).err());
            match refused {
                Some(error) => {
                    let _ = append.done.try_send(Err(error));
                    false
                }
                None => {
                    next = next.saturating_add(append.blocks.len() as u64);
                    true
                }
            }
        });
    }
}
