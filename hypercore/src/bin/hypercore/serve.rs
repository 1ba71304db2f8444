//! `hypercore serve`: one core, any number of peers.

use std::{
    fmt::Display,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use async_io::Timer;
use futures_lite::{StreamExt, future};
use hypercore::{
    Admission, AdmissionLimits, Error, Event, Hypercore, NotAdmitted, PublicKey, ReplicateOptions,
    Role,
    wire::{Budget, Limits, StaticKeyPair},
};

use crate::{
    alarm,
    args::{Manners, ServeArgs},
    commands::{append_batch, close, open_to_append, require_writable},
    errors::{Failure, NO_REMEDY, Result, end_words, quoted, reason},
    http, identity, input,
    net::{self, Listener},
    output::{Output, blocks, complain, on_one_line},
    peers::{Ended, Gathering, Member, Peers},
    room,
    signals::Signals,
    status,
};

/// At most one refusal is told in this time.
const REFUSAL_PAUSE: Duration = Duration::from_secs(1);

/// How long to wait when the system has no more room for connections.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

pub(crate) async fn serve(args: ServeArgs, manners: &Manners) -> Result<()> {
    let ServeArgs {
        dir,
        listen,
        announce,
        lines,
        http,
        allow,
        more,
        max_peers,
        identity,
        format,
    } = args;
    let anywhere = if announce { "0.0.0.0:0" } else { "127.0.0.1:0" };
    let listen = listen.unwrap_or_else(|| anywhere.to_owned());
    let mut output = Output::new(&format, manners);
    let signals = Signals::catch().map_err(|error| Failure::failed(error.to_string()))?;
    let identity = identity::load(identity.path.as_deref())?;
    let core = open_to_append(&dir).await?;
    if lines {
        require_writable(&core, &dir)?;
    }
    let (listener, address) = listen_on(&listen).await?;
    // Before anything is told: where it cannot listen, nothing is served.
    let page = match http {
        Some(place) => Some(listen_as("--http", &place).await?),
        None => None,
    };
    let announcement = announce.then(|| net::announce(&core, address));
    // Kept until the end.
    let _announcement = announcement.transpose()?;
    let reached_at = reachable(address).unwrap_or(address);
    let connect = if announce {
        format!("\nor, where that finds nobody, with `--connect {reached_at}`")
    } else {
        format!(" --connect {reached_at}")
    };
    let is_alone = address.ip().is_loopback();
    let where_to = where_to(address);
    output.result(
        &[
            ("event", "listening".into()),
            ("address", address.to_string().into()),
            ("key", core.key().to_string().into()),
        ],
        format_args!(
            "Serving {} of `{}` on {address}; stop with Ctrl-C. {where_to}:\n  hypercore clone {} \
             DIR{connect}",
            blocks(core.length()),
            on_one_line(dir.display()),
            core.key(),
        ),
    )?;

    if is_alone && !format.json {
        output.remark("For other machines: --announce, or --listen 0.0.0.0:PORT");
    }
    let page = page.map(|(listener, address)| {
        output.event("http", &[("address", address.to_string().into())])?;
        let address = reachable(address).unwrap_or(address);
        output.remark(format_args!("See http://{address}/"));
        Ok(listener)
    });
    let page = page.transpose()?;
    let browsers = if page.is_some() {
        http::MOST_CONNECTIONS
    } else {
        0
    };
    let service = Service {
        core: core.clone(),
        dir: dir.clone(),
        listener,
        page,
        door: Door::new(max_peers, browsers, allow.iter().chain(&more)),
        identity,
        signals,
    };
    let append = append_lines(&core, &dir, lines);
    service.run(append, &mut output).await
}

/// Where a command is of use that calls `address`.
pub(crate) fn where_to(address: SocketAddr) -> &'static str {
    match address.ip().is_loopback() {
        true => "In another terminal",
        false => "Elsewhere",
    }
}

/// Where others reach us, as far as we can know.
pub(crate) fn reachable(listening: SocketAddr) -> Option<SocketAddr> {
    if !listening.ip().is_unspecified() {
        return Some(listening);
    }
    Some(SocketAddr::new(net::own_address()?, listening.port()))
}

/// Listens for peers where the command line says.
pub(crate) async fn listen_on(listen: &str) -> Result<(Listener, SocketAddr)> {
    listen_as("--listen", listen).await
}

async fn listen_as(option: &str, listen: &str) -> Result<(Listener, SocketAddr)> {
    let cannot_listen = |error| {
        Failure::failed(format!(
            "cannot listen on {listen}: {}; choose another address with {option}",
            reason(&error)
        ))
    };
    let listener = Listener::bind(listen).await.map_err(cannot_listen)?;
    let address = listener.address().map_err(cannot_listen)?;
    Ok((listener, address))
}

/// A core, and the peers that come for it.
pub(crate) struct Service {
    pub(crate) core: Hypercore,
    pub(crate) dir: PathBuf,
    pub(crate) listener: Listener,
    /// Where browsers call.
    pub(crate) page: Option<Listener>,
    pub(crate) door: Door,
    pub(crate) identity: Option<StaticKeyPair>,
    pub(crate) signals: Signals,
}

impl Service {
    /// Serves until a signal comes, or until `append`, which goes on beside, fails.
    pub(crate) async fn run(
        self,
        append: impl Future<Output = Result<()>>,
        output: &mut Output,
    ) -> Result<()> {
        let Self {
            core,
            dir,
            listener,
            page,
            door,
            identity,
            signals,
        } = self;
        // The same on every connection, so that those who find us at two addresses see that it is us.
        let identity = match identity {
            Some(identity) => Ok(identity),
            None => StaticKeyPair::generate(),
        };
        let identity = identity.map_err(|error| Failure::failed(error.to_string()))?;
        output.write_beside();
        alarm::watch_over(&dir);
        let peers = Peers::new(&core, Some(identity));
        let refusals = Refusals::new(output.is_quiet());
        let connections = Gathering::default();
        let stop = async {
            signals.stopped().await;
            Ok(())
        };
        let status =
            async { match status::answer(dir.clone(), core.clone(), peers.clone()).await {} };
        let page = async {
            let Some(listener) = page else {
                return future::pending().await;
            };
            match http::answer(listener, core.clone(), peers.clone()).await {}
        };
        let work = future::or(
            accept(&listener, &door, &peers, &refusals, connections.member()),
            future::or(
                append,
                future::or(
                    report(&core, &dir, &peers, output),
                    future::or(status, page),
                ),
            ),
        );
        let ended = future::or(stop, work).await;

        // In this order, so that the peers hear that the core is closed, and do not take us for lost.
        let closed = close(&core, &dir).await;
        peers.hang_up.hang_up();
        connections.end().await;
        let told = output.finish().await;
        ended.and(closed).and(told)
    }
}

/// Who is let in.
pub(crate) struct Door {
    admission: Admission,
    /// The static keys of those who are; if there are none, anybody is.
    allowed: Arc<[[u8; 32]]>,
    /// What each of them may make us hold.
    limits: Limits,
}

/// Limits for those who only ask: they have no reason to send much, and all of them together get by
/// with little memory.
fn limits_of_readers() -> Limits {
    let mut limits = Limits::default();
    limits.received_frame = 256 * 1024;
    limits.extension_names = 64;
    limits.extension_name = 128;
    limits.receive_budget = Budget::new(16 * 1024 * 1024);
    limits.budget = Budget::new(32 * 1024 * 1024);
    limits
}

impl Door {
    /// Room is left for so many `browsers`.
    pub(crate) fn new<'a>(
        max_peers: u32,
        browsers: usize,
        allowed: impl IntoIterator<Item = &'a PublicKey>,
    ) -> Self {
        let mut limits = AdmissionLimits::default();
        let room = room::for_peers(browsers);
        limits.connections = usize::try_from(max_peers).unwrap_or(usize::MAX).min(room);
        // Those who say nothing leave room for those who do.
        limits.handshakes = limits.handshakes.min(room.div_ceil(2));
        Self {
            admission: Admission::new(limits),
            allowed: allowed.into_iter().map(|key| *key.as_bytes()).collect(),
            limits: limits_of_readers(),
        }
    }
}

/// Tells on standard error who is not let in.
#[derive(Debug, Clone)]
struct Refusals {
    quiet: bool,
    last: Arc<Mutex<Option<Instant>>>,
}

impl Refusals {
    fn new(quiet: bool) -> Self {
        Self {
            quiet,
            last: Arc::default(),
        }
    }

    /// Tells of one, unless that was done a moment ago: strangers do not fill a disk.
    fn tell(&self, text: impl Display) {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let is_new = last.is_none_or(|last| last.elapsed() >= REFUSAL_PAUSE);
        if is_new && !self.quiet {
            *last = Some(Instant::now());
            complain(text);
        }
    }
}

/// Takes calls for ever.
async fn accept(
    listener: &Listener,
    door: &Door,
    peers: &Peers,
    refusals: &Refusals,
    member: Member,
) -> Result<()> {
    loop {
        let (tcp, address) = match listener.accept(&peers.hang_up).await {
            Ok(accepted) => accepted,
            Err(error) => {
                let (words, advice) = (reason(&error), room::advice(&error));
                refusals.tell(format_args!(
                    "a connection was not accepted: {words}{advice}"
                ));
                Timer::after(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let admitted = match door.admission.admit(address.ip(), Instant::now()) {
            Ok(admitted) => admitted,
            Err(reason) => {
                let reason = match reason {
                    NotAdmitted::Full { max: 1 } => "1 peer is connected already".to_owned(),
                    reason => reason.to_string(),
                };
                refusals.tell(format_args!("{address} was refused: {reason}"));
                continue;
            }
        };
        let (handshake, allowed) = (admitted.clone(), Arc::clone(&door.allowed));
        let told = refusals.clone();
        let mut options = ReplicateOptions::live().on_authenticate(move |key| {
            handshake.handshaken();
            let is_allowed = allowed.is_empty() || allowed.contains(key);
            if !is_allowed {
                let key = PublicKey::from(*key);
                told.tell(format_args!(
                    "{address} was refused: its identity {key} is not one that --allow names"
                ));
            }
            is_allowed
        });
        // What is served is what is here: nothing is taken from those who come for it.
        options.download = Some(false);
        options.limits = door.limits.clone();
        options.discreet = true;
        let link = match peers.attach(tcp, &address.to_string(), Role::Responder, options) {
            Ok(link) => link,
            Err(error) => {
                tracing::warn!(%error, %address, "a connection could not be started");
                continue;
            }
        };
        let member = member.clone();
        net::spawn(async move {
            let evicted = async {
                admitted.evicted().await;
                None
            };
            match future::or(async { Some(link.run().await) }, evicted).await {
                Some(Ended::Closed) => tracing::debug!(%address, "closed"),
                Some(Ended::Failed(error)) => {
                    tracing::info!(%address, code = %error.close_reason(), "closed: {error}");
                    // Others may call from there who are let in.
                    let is_stranger = matches!(error, Error::NotAuthenticated);
                    if error.is_peer_fault() && !is_stranger {
                        admitted.misbehaved(Instant::now());
                    }
                }
                Some(Ended::Stranger) => {
                    tracing::info!(%address, "closed: the peer does not know the key");
                }
                None => tracing::info!(%address, "closed: the handshake took too long"),
            }
            drop(member);
        });
    }
}

/// Appends the lines of standard input, and goes on waiting after the last one.
async fn append_lines(core: &Hypercore, dir: &Path, wanted: bool) -> Result<()> {
    if wanted {
        let batches = input::lines();
        while let Ok(batch) = batches.recv().await {
            append_batch(core, dir, batch?).await?;
        }
    }
    future::pending().await
}

/// Tells what happens.
async fn report(core: &Hypercore, dir: &Path, peers: &Peers, output: &mut Output) -> Result<()> {
    let mut events = core.events();
    let mut has_missed = false;
    loop {
        let event = match future::poll_once(events.next()).await {
            None if has_missed => {
                has_missed = false;
                peers.forget_gone();
                continue;
            }
            None => events.next().await,
            Some(event) => event,
        };
        let Some(event) = event else { break };
        output.room().await?;
        match event {
            Event::Append { length } => {
                output.event("append", &[("length", length.into())])?;
            }
            Event::Behind { ours, theirs } => {
                output.event(
                    "behind",
                    &[("ours", ours.into()), ("theirs", theirs.into())],
                )?;
                output.remark(format_args!(
                    "A peer has {} of this core, and {ours} are here: either this was restored from \
                     an old copy, or a copy of it was appended to; nothing can be appended before \
                     `hypercore resume {} --from ADDR:PORT` has fetched the rest from a peer",
                    blocks(theirs),
                    quoted(dir)
                ));
            }
            Event::Forked { length } => {
                output.event("forked", &[("length", length.into())])?;
                output.remark(format_args!(
                    "Two histories of this core were signed; the proof is in `fork-proof-{length}`; \
                     {NO_REMEDY}"
                ));
            }
            Event::PeerOpen { peer } => {
                let address = peers.address(peer);
                output.event("peer-open", &[("peer", address.as_str().into())])?;
                output.remark(format_args!("{address} connected"));
            }
            Event::PeerClose { peer, code, reason } => {
                let address = peers.address(peer);
                let reason = end_words(&reason);
                peers.forget(peer);
                output.event(
                    "peer-close",
                    &[
                        ("peer", address.as_str().into()),
                        ("reason", reason.as_str().into()),
                        ("code", code.as_str().into()),
                    ],
                )?;
                output.remark(format_args!("{address} left: {reason}"));
            }
            // What was not told may have been of peers that left. Those of whom more is told come first.
            Event::Lagged { .. } => has_missed = true,
            _ => {}
        }
    }
    future::pending().await
}
