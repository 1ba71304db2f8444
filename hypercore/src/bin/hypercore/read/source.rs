//! Where blocks are read from: the disk, and the peers that are called or found.

mod watch;

use std::{
    cell::{Cell, RefCell},
    collections::HashSet,
    convert::Infallible,
    fmt::Display,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use async_channel::{Receiver, Sender};
use async_io::Timer;
use futures_lite::future;
use hypercore::{
    Bytes, Error, GetOptions, Hypercore, OpenOptions, PublicKey, SeekOptions, UpdateOptions,
    wire::StaticKeyPair,
};

use self::watch::Watch;
use crate::{
    alarm,
    args::{Identity, Manners, parse_key},
    calls::{Again, Calls},
    commands::{close, open},
    errors::{Exit, Failure, Result, quoted},
    identity,
    output::{blocks, complain},
    peers::{Gathering, Peers},
    signals::Signals,
};

/// How long connected peers have to tell how long the log is.
const HEAR_TIMEOUT: Duration = Duration::from_secs(20);

/// Once one of the named peers is connected, the others have so long to be, too, before nobody waits
/// for them.
const CALL_TIMEOUT: Duration = Duration::from_secs(1);

/// Once one peer with blocks is found on the local network, the others have so long to be, too,
/// before reading begins: all who heard the same question answer within an eighth of a second
/// (RFC 6762, section 6).
const COMPANY_TIMEOUT: Duration = Duration::from_millis(300);

/// So long after the first was found it is not certain that nobody has a block: one who has answered
/// somebody else just before may answer again only after a second (the same section).
const SEARCH_TIMEOUT: Duration = Duration::from_millis(1500);

/// How often a block that nobody has is asked for again while somebody may still come.
const ASK_AGAIN: Duration = Duration::from_millis(50);

/// The key that a core is named by, unless a directory is called like that.
pub(super) fn parse_name(name: &Path) -> Option<PublicKey> {
    let key = name.to_str().and_then(|text| parse_key(text).ok());
    key.filter(|_| !name.exists())
}

/// As a clone does.
fn again(follow: bool) -> Again {
    if follow {
        Again::Always
    } else {
        Again::WhenLost
    }
}

/// What to do about a block that is not stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wait {
    No,
    /// Until it is certain that nobody who is connected has it.
    ForThoseConnected,
    For(Duration),
    ForEver,
}

/// Where blocks are read from.
pub(super) struct Source {
    pub(super) core: Hypercore,
    /// As it was called on the command line.
    pub(super) name: PathBuf,
    /// It was named by its key, and what was read is dropped.
    pub(super) in_memory: bool,
    /// Only what is stored is read.
    pub(super) offline: bool,
    /// Where its peers are; without any they are looked for on the local network.
    peers: Vec<String>,
    /// Who we are to its peers.
    identity: Option<StaticKeyPair>,
    /// Nothing but errors is said.
    quiet: bool,
    /// Whether a lost peer is hoped to be back.
    has_hope: Cell<bool>,
    /// Since when somebody is found.
    met: Cell<Option<Instant>>,
    /// Why the last peer is gone, after whom nobody comes any more: only what is here is read then.
    gone: RefCell<Option<String>>,
    /// Dropped when the last peer is gone.
    not_gone: RefCell<Option<Sender<Infallible>>>,
    /// Ends when the last peer is gone.
    until_gone: Receiver<Infallible>,
}

impl Source {
    /// Opens the core in a directory, or in memory the one of a key.
    pub(super) async fn open(
        name: &Path,
        peers: &[String],
        identity: &Identity,
        manners: &Manners,
    ) -> Result<Self> {
        let key = parse_name(name);
        let offline = key.is_none() && peers.is_empty();
        let identity = match offline {
            true => None,
            false => identity::load(identity.path.as_deref())?,
        };
        let core = match key {
            None => open(name).await?,
            Some(key) => {
                let core = OpenOptions::new().key(key).sparse(true).open_memory().await;
                core.map_err(|error| Failure::core(error, name))?
            }
        };
        let (not_gone, until_gone) = async_channel::bounded(1);
        Ok(Self {
            core,
            name: name.to_owned(),
            in_memory: key.is_some(),
            offline,
            peers: peers.to_vec(),
            identity,
            quiet: manners.quiet,
            has_hope: Cell::new(false),
            met: Cell::new(None),
            gone: RefCell::default(),
            not_gone: RefCell::new(Some(not_gone)),
            until_gone,
        })
    }

    /// Fails if there is nobody to wait for.
    pub(super) fn check_timeout(&self, timeout: Option<Duration>) -> Result<()> {
        if timeout.is_none() || !self.offline {
            return Ok(());
        }
        Err(Failure::new(
            Exit::Usage,
            "--timeout is for peers; name them with --connect, or the core by its key",
        ))
    }

    pub(super) async fn close(self) -> Result<()> {
        close(&self.core, &self.name).await
    }

    /// Does `work` while the core is exchanged with its peers, as soon as these are there. They are waited
    /// for no longer than `limit`.
    pub(super) async fn read_from_peers(
        &self,
        follow: bool,
        limit: Option<Duration>,
        work: impl Future<Output = Result<()>>,
    ) -> Result<()> {
        let signals = Signals::catch().map_err(|error| Failure::failed(error.to_string()))?;
        let stop = async {
            signals.stopped().await;
            if follow {
                return Ok(());
            }
            let name = self.name.display();
            let words = format!("interrupted before all of `{name}` was read; run it again");
            Err(Failure::new(Exit::Incomplete, words))
        };
        if !self.in_memory {
            alarm::watch_over(&self.name);
        }
        let peers = Peers::new(
            &self.core,
            self.identity.as_ref().map(StaticKeyPair::duplicate),
        );
        let tasks = Gathering::default();
        let mut calls = Calls::new(again(follow));
        if self.peers.is_empty() {
            calls.search(&self.core, follow)?;
        }
        calls.start(&peers, self.peers.clone(), &tasks.member());
        let (ready, is_ready) = async_channel::bounded(1);
        let watch = Watch {
            source: self,
            peers: &peers,
            follow,
            calls,
            member: tasks.member(),
            ready,
            opened: HashSet::new(),
            late: Timer::never(),
            is_late: false,
            limit,
            over: limit.map_or_else(Timer::never, Timer::after),
        };
        let work = async {
            // An error is the end of the watch, which then says more.
            let _ = is_ready.recv().await;
            work.await
        };
        let ended = future::or(stop, future::or(work, watch.run())).await;

        peers.hang_up.hang_up();
        let closed = close(&self.core, &self.name).await;
        tasks.end().await;
        ended.and(closed)
    }

    /// The last peer is gone.
    fn alone(&self, reasons: String, met: bool, follow: bool) -> Result<()> {
        if !met {
            let key = self.core.key();
            return Err(Failure::failed(format!(
                "no peer with the core {key} can be reached: {reasons}"
            )));
        }
        if follow {
            self.remark(format_args!(
                "Nobody is connected ({reasons}); calling again."
            ));
            return Ok(());
        }
        // Whoever reads slowly may have all of it here.
        *self.gone.borrow_mut() = Some(reasons);
        self.not_gone.take();
        Ok(())
    }

    /// Something is not here, and nobody comes who may have it.
    fn left_alone(&self) -> Failure {
        let reasons = self.gone.borrow();
        let reasons = reasons.as_deref().unwrap_or("closed");
        let name = self.name.display();
        let words = format!("the last peer is gone ({reasons}) before all of `{name}` was read");
        Failure::new(Exit::Incomplete, words)
    }

    /// What becomes of `asked`; `None` once nobody comes any more who could answer.
    async fn unless_gone<T>(&self, asked: impl Future<Output = T>) -> Option<T> {
        let gone = async {
            let _ = self.until_gone.recv().await;
            None
        };
        future::or(async { Some(asked.await) }, gone).await
    }

    /// A word to the person at the terminal, who may have asked for silence.
    fn remark(&self, text: impl Display) {
        if !self.quiet {
            complain(text);
        }
    }

    pub(super) async fn block(&self, index: u64, wait: Wait) -> Result<Bytes> {
        let mut options = GetOptions::default();
        match wait {
            Wait::No => options = GetOptions::local(),
            Wait::ForThoseConnected => options.if_available = true,
            Wait::For(limit) => options.timeout = Some(limit),
            Wait::ForEver => {}
        }
        loop {
            match self.unless_gone(self.core.get_with(index, options)).await {
                Some(Err(Error::NotAvailable)) if self.may_come() => {
                    Timer::after(ASK_AGAIN).await;
                }
                Some(Err(Error::NotAvailable)) if self.gone.borrow().is_some() => break,
                Some(read) => return read.map_err(|error| self.unread(index, error)),
                None => break,
            }
        }
        match self.core.get_with(index, GetOptions::local()).await {
            Err(Error::BlockNotStored { .. }) => Err(self.left_alone()),
            read => read.map_err(|error| self.unread(index, error)),
        }
    }

    /// Whether a peer is about to be here who may have what those who are here do not.
    fn may_come(&self) -> bool {
        let is_recent = |since: Instant| since.elapsed() < SEARCH_TIMEOUT;
        let is_searching = self.peers.is_empty() && self.met.get().is_some_and(is_recent);
        if self.gone.borrow().is_some() {
            return false;
        }
        is_searching || self.has_hope.get() || self.is_alone()
    }

    /// Whether nobody is connected, and somebody may still be.
    fn is_alone(&self) -> bool {
        self.gone.borrow().is_none() && !self.core.peers().iter().any(|peer| peer.opened)
    }

    /// Why block `index` was not read.
    fn unread(&self, index: u64, error: Error) -> Failure {
        let (name, length) = (self.name.display(), self.core.length());
        let quoted = quoted(&self.name);
        let claims = self.core.peers().into_iter().map(|peer| peer.remote_length);
        let claimed = claims.max().unwrap_or(0).max(length);
        match error {
            Error::BlockNotStored { .. } if index < length && self.core.is_original() => {
                Failure::failed(format!(
                    "block {index} is not stored in `{name}`, which is the original of {}; `hypercore \
                     get {quoted} {index} --connect ADDR:PORT` reads it from a peer that has it",
                    self.core.key()
                ))
            }
            Error::BlockNotStored { .. } if index < length => Failure::failed(format!(
                "block {index} is not stored in `{name}`; {}",
                self.where_it_is()
            )),
            Error::BlockNotStored { .. } => Failure::failed(format!(
                "there is no block {index}: the core in `{name}` has {}, counted from 0",
                blocks(length)
            )),
            Error::NotAvailable if index < claimed => Failure::new(
                Exit::Incomplete,
                format!("no connected peer has block {index} of `{name}`; another one may"),
            ),
            Error::NotAvailable => Failure::new(
                Exit::Incomplete,
                format!(
                    "there is no block {index} of `{name}` yet: it has {}, counted from 0, as far as \
                     the connected peers know; with --timeout it is waited for",
                    blocks(claimed)
                ),
            ),
            Error::TimedOut if index < claimed || claimed == 0 => Failure::new(
                Exit::Incomplete,
                format!(
                    "block {index} of `{name}` did not come in time; wait longer with --timeout, or \
                     name another peer with --connect"
                ),
            ),
            Error::TimedOut => Failure::new(
                Exit::Incomplete,
                format!(
                    "block {index} of `{name}` did not come in time: it has {}, counted from 0, as \
                     far as the connected peers know",
                    blocks(claimed)
                ),
            ),
            error => Failure::core(error, &self.name),
        }
    }

    /// Where what is not stored in a directory can be had.
    fn where_it_is(&self) -> String {
        format!(
            "with --connect ADDR:PORT it is read from a peer, and `hypercore clone {} {} --connect \
             ADDR:PORT` downloads all that is missing",
            self.core.key(),
            quoted(&self.name)
        )
    }

    /// Asks connected peers how long the log is. Nothing is wrong if they do not know more, unless they
    /// leave open whether there is anything at all.
    pub(super) async fn update(&self, wait: Wait) -> Result<()> {
        let mut options = UpdateOptions::default();
        options.if_available = true;
        options.timeout = Some(match wait {
            Wait::For(limit) => limit.min(HEAR_TIMEOUT),
            _ => HEAR_TIMEOUT,
        });
        loop {
            match self.core.update_with(options).await {
                Err(Error::NotAvailable) if self.is_alone() => Timer::after(ASK_AGAIN).await,
                Err(Error::TimedOut) if self.core.length() == 0 && wait != Wait::ForEver => {
                    let name = self.name.display();
                    let words = format!(
                        "no connected peer has told in time how long `{name}` is; wait longer with \
                         --timeout, or name another peer with --connect"
                    );
                    return Err(Failure::new(Exit::Incomplete, words));
                }
                Ok(_) | Err(Error::NotAvailable | Error::TimedOut) => return Ok(()),
                Err(error) => return Err(Failure::core(error, &self.name)),
            };
        }
    }

    /// Where the byte at `offset` is: a block, and how many bytes before it in that block.
    pub(super) async fn seek(&self, offset: u64, wait: Wait) -> Result<(u64, u64)> {
        let options = || {
            let mut options = SeekOptions::default();
            match wait {
                Wait::No => options.wait = false,
                Wait::ForThoseConnected => options.if_available = true,
                Wait::For(limit) => options.timeout = Some(limit),
                Wait::ForEver => {}
            }
            options
        };
        let found = loop {
            match self
                .unless_gone(self.core.seek_with(offset, options()))
                .await
            {
                Some(Err(Error::NotAvailable)) if self.may_come() => {
                    Timer::after(ASK_AGAIN).await;
                }
                Some(found) => break found,
                None => {
                    let mut here = SeekOptions::default();
                    here.wait = false;
                    break self.core.seek_with(offset, here).await;
                }
            }
        };
        let position = found.map_err(|error| match error {
            Error::OutOfBounds { .. } if self.offline => Failure::failed(format!(
                "byte {offset} lies in a part of the core that is not known in `{}`; {}",
                self.name.display(),
                self.where_it_is()
            )),
            Error::OutOfBounds { .. } | Error::NotAvailable | Error::TimedOut => Failure::new(
                Exit::Incomplete,
                format!(
                    "the block with byte {offset} is not known in `{}`, and nobody who is \
                     connected tells",
                    self.name.display()
                ),
            ),
            error => Failure::core(error, &self.name),
        })?;
        Ok((position.index, position.offset))
    }
}
