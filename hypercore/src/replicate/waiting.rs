//! What is waited for, and why it is not here yet.

use std::{collections::BTreeMap, fmt, ops::Range, time::Instant};

use super::{
    Replicator,
    peer::{InFlight, Peer, Wanted},
};
use crate::{event::PeerId, log::Log, span::length_of};

/// Something that is waited for: see [`Hypercore::waiting`](crate::Hypercore::waiting).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Waiting {
    /// What it is.
    pub goal: Goal,
    /// Why it is not here yet.
    pub on: WaitsOn,
}

/// Something that can be waited for.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Goal {
    /// A block: [`Hypercore::get`](crate::Hypercore::get).
    Block {
        /// The block.
        index: u64,
    },
    /// A length: [`Hypercore::update`](crate::Hypercore::update).
    Length {
        /// The least that will do, in blocks.
        min_length: u64,
    },
    /// A position: [`Hypercore::seek`](crate::Hypercore::seek).
    Byte {
        /// The byte of the log.
        offset: u64,
    },
    /// Several blocks: [`Hypercore::download`](crate::Hypercore::download).
    Blocks {
        /// From the first to the last.
        blocks: Range<u64>,
        /// The first that is not stored. What is waited on is told for this one.
        missing: u64,
    },
    /// Proofs of several blocks: [`DownloadOptions::hash`](crate::DownloadOptions::hash).
    Hashes {
        /// From the first to the last.
        blocks: Range<u64>,
        /// The first that is not proven.
        missing: u64,
    },
}

/// On what something waits.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum WaitsOn {
    /// No peer is connected.
    NoPeer,
    /// Peers are connected that have not told yet whether they have it.
    Hearing,
    /// No connected peer has it, or none that has it answers requests, or asking is
    /// [switched off](crate::Hypercore::set_downloading).
    Nobody,
    /// A peer has it, and is asked as soon as it has answered what it was asked before.
    Turn,
    /// The answers of these peers, of which there is at least one.
    Answers(Vec<Asked>),
}

/// A peer that was asked for something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Asked {
    /// The peer.
    pub peer: PeerId,
    /// When it was asked.
    pub since: Instant,
}

impl fmt::Display for WaitsOn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoPeer => "no peer is connected",
            Self::Hearing => "the peers have not told yet what they have",
            Self::Nobody => "no connected peer has it",
            Self::Turn => "peers are busy with what they were asked before",
            Self::Answers(_) => "a peer was asked and has not answered yet",
        })
    }
}

/// How much of some blocks is here: see [`Hypercore::progress`](crate::Hypercore::progress).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Progress {
    /// How many of the blocks are stored here.
    pub downloaded: u64,
    /// How many of the blocks are known to exist.
    pub length: u64,
    /// The first blocks that exist and are not stored here, as at most
    /// [`SHOWN_RUNS`](Self::SHOWN_RUNS) runs.
    pub missing: Vec<Range<u64>>,
}

impl Progress {
    /// How many runs of missing blocks are told.
    pub const SHOWN_RUNS: usize = 4;

    /// How much of `blocks` is here.
    pub(crate) fn of(blocks: Range<u64>, log: &Log) -> Self {
        let end = blocks.end.min(log.length());
        let blocks = blocks.start.min(end)..end;
        let stored = log.bitfield();
        let mut missing = Vec::new();
        let mut next = stored.next_clear(blocks.start);
        while next < end && missing.len() < Self::SHOWN_RUNS {
            let run = next..stored.next_set(next).unwrap_or(end).min(end);
            next = stored.next_clear(run.end);
            missing.push(run);
        }
        Self {
            downloaded: stored.count(blocks.clone()),
            length: length_of(&blocks),
            missing,
        }
    }

    /// Whether nothing is missing of what is known to exist.
    #[must_use]
    pub const fn is_complete(&self) -> bool {
        self.downloaded == self.length
    }
}

/// "3 of 10 blocks are missing: 1..3, 9..10", or that none is.
impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (length, missing) = (self.length, self.length.saturating_sub(self.downloaded));
        match missing {
            0 => return write!(f, "nothing is missing of {length} blocks"),
            1 => write!(f, "1 block of {length} is missing")?,
            missing => write!(f, "{missing} blocks of {length} are missing")?,
        }
        let mut shown = 0u64;
        for (run, separator) in self
            .missing
            .iter()
            .zip([": "].into_iter().chain(std::iter::repeat(", ")))
        {
            write!(f, "{separator}{}..{}", run.start, run.end)?;
            shown = shown.saturating_add(length_of(run));
        }
        if shown < missing {
            f.write_str(", ...")
        } else {
            Ok(())
        }
    }
}

impl Replicator {
    /// What is waited for, and why.
    pub(crate) fn waiting(&self, log: &Log) -> Vec<Waiting> {
        let mut asked = BTreeMap::<_, Vec<_>>::new();
        for peer in self.peers.values() {
            for &InFlight {
                index,
                wanted,
                stamp,
                ..
            } in peer.in_flight()
            {
                let request = Asked {
                    peer: peer.id,
                    since: stamp.sent,
                };
                let block = (wanted == Wanted::Block).then_some(index);
                asked
                    .entry((block, block.is_none().then_some(wanted)))
                    .or_default()
                    .push(request);
            }
        }
        let end = self.end_of_use(log);
        let block = |index| {
            let asked = asked.get(&(Some(index), None));
            self.waits_on(
                asked,
                |peer| index < end && peer.remote.get(index),
                |peer| index < end && peer.may_have(index),
            )
        };
        let beyond = |length, wanted| {
            let asked = asked.get(&(None, Some(wanted)));
            let has = |peer: &Peer| length <= end && peer.remote.bound() >= length;
            self.waits_on(asked, has, |_| false)
        };
        let gets = self.demand.wanted_blocks(0..u64::MAX).map(|index| Waiting {
            goal: Goal::Block { index },
            on: block(index),
        });
        let lengths = self.demand.wanted_lengths().map(|min_length| Waiting {
            goal: Goal::Length { min_length },
            on: beyond(min_length, Wanted::Proof),
        });
        let seeks = self.demand.seeks().iter().map(|seeking| Waiting {
            goal: Goal::Byte {
                offset: seeking.offset,
            },
            on: beyond(log.length().max(1), Wanted::Byte(seeking.offset)),
        });
        let downloads = self.demand.downloads.iter().map(|download| Waiting {
            goal: Goal::Blocks {
                blocks: download.blocks.bounds(),
                missing: download.missing(),
            },
            on: block(download.missing()),
        });
        let hashes = self.demand.hashes.iter().map(|hashes| Waiting {
            goal: Goal::Hashes {
                blocks: hashes.blocks.bounds(),
                missing: hashes.missing,
            },
            on: beyond(hashes.missing.saturating_add(1), Wanted::Hash),
        });
        let blocks = downloads.chain(hashes);
        gets.chain(lengths).chain(seeks).chain(blocks).collect()
    }

    fn waits_on(
        &self,
        asked: Option<&Vec<Asked>>,
        has: impl Fn(&Peer) -> bool,
        may_have: impl Fn(&Peer) -> bool,
    ) -> WaitsOn {
        let mut peers = self.peers.values();
        if let Some(asked) = asked {
            WaitsOn::Answers(asked.clone())
        } else if self.peers.is_empty() {
            WaitsOn::NoPeer
        } else if peers.clone().any(|peer| peer.can_download() && has(peer)) {
            WaitsOn::Turn
        } else if peers.any(|peer| !peer.is_settled() || may_have(peer)) {
            WaitsOn::Hearing
        } else {
            WaitsOn::Nobody
        }
    }
}
