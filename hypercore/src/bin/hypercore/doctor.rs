//! `hypercore doctor`: the steps to a peer's first block, one after the other, and how long each takes.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use async_channel::Receiver;
use async_io::Timer;
use clap::Args;
use futures_lite::{StreamExt, future};
use hypercore::{
    Error, Event, GetOptions, Hypercore, OpenOptions, PublicKey, ReplicateOptions, Role,
    discovery::{Discovery, Mdns},
};

use crate::{
    args::{Format, Identity, Manners, parse_address, parse_key, parse_seconds},
    calls::PATIENCE,
    errors::{Failure, Result, end_of, reason},
    identity,
    link::Link,
    net,
    output::{Output, bytes},
    peers::{Ended, Peers},
};

/// What is waited for for longer is named.
const SILENCE: Duration = Duration::from_secs(1);

/// How often a person sees that something is waited for.
const TICK: Duration = Duration::from_millis(100);

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  hypercore doctor KEY --connect 192.168.1.5:4000\n  \
    hypercore doctor 'hyper://KEY@192.168.1.5:4000/holiday.mp4'\n\n\
    The steps: search (find a peer on the local network, if no address is given), name (find the \
    address of the\nhost), dial (reach it), handshake (agree on a secret), capability (both show that \
    they know the key), first\nblock (receive one and check it)."
)]
pub(crate) struct DoctorArgs {
    /// Key of the core: 64 hex digits, hyper://HEX, or z-base-32; or the line that `share` printed
    #[arg(value_name = "KEY|LINE", value_parser = parse_patient)]
    patient: Patient,
    /// The peer to examine [default: that of the line, else one on the local network]
    #[arg(long, value_name = "ADDR:PORT", value_parser = parse_address)]
    connect: Option<String>,
    /// How long each step may take
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = parse_seconds)]
    timeout: Duration,
    #[command(flatten)]
    identity: Identity,
    #[command(flatten)]
    format: Format,
}

/// What somebody does not get.
#[derive(Debug, Clone)]
struct Patient {
    key: PublicKey,
    address: Option<String>,
}

fn parse_patient(text: &str) -> std::result::Result<Patient, String> {
    if let Ok(Link { key, address, .. }) = text.parse() {
        return Ok(Patient { key, address });
    }
    let address = None;
    parse_key(text).map(|key| Patient { key, address })
}

pub(crate) async fn doctor(args: DoctorArgs, manners: &Manners) -> Result<()> {
    let mut report = Report {
        output: Output::new(&args.format, manners),
        limit: args.timeout,
    };
    let key = args.patient.key;
    let core = OpenOptions::new().key(key).sparse(true).open_memory().await;
    let core = core.map_err(|error| Failure::failed(format!("the core {key}: {error}")))?;
    let host = examine(&args, &core, &mut report).await?;
    let core = core.close().await;
    core.map_err(|error| Failure::failed(format!("the core {key}: {error}")))?;
    report.output.result(
        &[("event", "healthy".into())],
        format_args!("{host} has the core and sends it."),
    )
}

/// Returns whom it has examined.
async fn examine(args: &DoctorArgs, core: &Hypercore, report: &mut Report) -> Result<String> {
    let named = args.connect.as_ref().or(args.patient.address.as_ref());
    let host = &match named {
        Some(host) => host.clone(),
        None => report.step("search", search(core)).await?,
    };
    let addresses = report.step("name", find(host)).await?;
    let peers = Peers::new(core, identity::load(args.identity.path.as_deref())?);
    let dial = dial(&addresses, report.limit, &peers);
    let tcp = report.step("dial", dial).await?;

    let (greet, greeted) = async_channel::bounded(1);
    let mut options = ReplicateOptions::live().on_authenticate(move |_| {
        // Once, and there is room for one.
        let _ = greet.try_send(());
        true
    });
    options.download = Some(true);
    let mut events = core.events();
    let link = peers.attach(tcp, host, Role::Initiator, options);
    let link = link.map_err(|error| Failure::failed(error.to_string()))?;
    let (end, ended) = async_channel::bounded(1);
    net::spawn(async move {
        let _ = end.try_send(link.run().await);
    });

    let handshake = or_ended(&ended, async {
        match greeted.recv().await {
            Ok(()) => Ok(((), "the connection is encrypted".to_owned())),
            Err(_) => future::pending().await,
        }
    });
    report.step("handshake", handshake).await?;
    let capability = or_ended(&ended, async {
        while let Some(event) = events.next().await {
            if matches!(event, Event::PeerOpen { .. }) {
                return Ok(((), "both know the key".to_owned()));
            }
        }
        Err("the core was closed".to_owned())
    });
    report.step("capability", capability).await?;
    report
        .step("first block", or_ended(&ended, fetch(core)))
        .await?;
    peers.hang_up.hang_up();
    Ok(host.clone())
}

/// What a step gives, and what there is to say about it; or why it failed.
type Outcome<T> = std::result::Result<(T, String), String>;

/// The first peer on the local network that answers.
async fn search(core: &Hypercore) -> Outcome<String> {
    let found = Mdns::new().and_then(|mdns| mdns.lookup(&core.discovery_key()));
    let mut found = found.map_err(|error| reason(&error))?;
    let first = async {
        match found.next().await.map(|address| address.to_string()) {
            Some(address) => Ok((address.clone(), format!("{address} announces it"))),
            None => future::pending().await,
        }
    };
    let late = async {
        Timer::after(PATIENCE).await;
        Err("nobody on the local network announces it".into())
    };
    future::or(first, late).await
}

async fn find(host: &str) -> Outcome<Vec<SocketAddr>> {
    let found = net::resolve(host).await;
    let found = found.map_err(|error| format!("{host} is not found: {}", reason(&error)))?;
    if found.is_empty() {
        return Err(format!("{host} has no address"));
    }
    let words: Vec<_> = found.iter().map(ToString::to_string).collect();
    Ok((found, words.join(", ")))
}

/// Calls the addresses as everything that calls peers does.
async fn dial(addresses: &[SocketAddr], limit: Duration, peers: &Peers) -> Outcome<net::Tcp> {
    let called = net::dial(addresses, limit, &peers.hang_up).await;
    let called = called.map(|(tcp, address)| (tcp, address.to_string()));
    called.map_err(|reasons| net::in_words(&reasons))
}

/// Receives the first block, or the last one of a peer that has not the first.
async fn fetch(core: &Hypercore) -> Outcome<()> {
    let mut options = hypercore::UpdateOptions::default();
    options.if_available = true;
    match core.update_with(options).await {
        Ok(_) => {}
        Err(Error::NotAvailable) => return Ok(((), "the peer has no blocks".into())),
        Err(error) => return Err(error.to_string()),
    }
    let mut options = GetOptions::default();
    options.if_available = true;
    for index in [0, core.length().saturating_sub(1)] {
        match core.get_with(index, options).await {
            Ok(block) => {
                let size = bytes(block.len() as u64);
                return Ok(((), format!("block {index} of {}, {size}", core.length())));
            }
            Err(Error::NotAvailable) => {}
            Err(error) => return Err(error.to_string()),
        }
    }
    Ok((
        (),
        "the peer has neither the first block nor the last".into(),
    ))
}

/// Does `step`, unless the connection ends first.
async fn or_ended<T>(
    ended: &Receiver<Ended>,
    step: impl Future<Output = Outcome<T>>,
) -> Outcome<T> {
    let end = async {
        Err(match ended.recv().await {
            Ok(Ended::Failed(error)) => end_of(&error),
            Ok(Ended::Closed) => "the peer closed the connection".into(),
            Ok(Ended::Stranger) | Err(_) => "the peer does not show that it knows the key".into(),
        })
    };
    future::or(step, end).await
}

struct Report {
    output: Output,
    /// How long a step may take.
    limit: Duration,
}

impl Report {
    /// Does one step and tells what came of it.
    async fn step<T>(&mut self, name: &str, step: impl Future<Output = Outcome<T>>) -> Result<T> {
        let start = Instant::now();
        let limit = self.limit;
        let seconds = limit.as_secs_f64();
        let waiting = format!("waiting for {}, at most {seconds} s", awaited(name));
        let bar = self.output.draw(0, "{spinner} {msg}");
        bar.set_message(waiting.clone());
        bar.enable_steady_tick(TICK);
        let output = &self.output;
        let late = async {
            if limit > SILENCE {
                Timer::after(SILENCE).await;
                if output.bar().is_hidden() {
                    output.remark(format_args!("{name}: {waiting}"));
                }
            }
            Timer::after(limit.saturating_sub(start.elapsed())).await;
            Err(format!("no answer within {seconds} s"))
        };
        let outcome = future::or(step, late).await;
        self.output.done();
        let seconds = start.elapsed().as_secs_f64();
        let (ok, detail) = match &outcome {
            Ok((_, detail)) => (true, detail),
            Err(detail) => (false, detail),
        };
        let verdict = if ok { "ok" } else { "FAILED" };
        self.output.result(
            &[
                ("event", "step".into()),
                ("step", name.into()),
                ("ok", ok.into()),
                ("seconds", seconds.into()),
                ("detail", detail.as_str().into()),
            ],
            format_args!(
                "{name:<12}  {verdict:<6}  {:>9.1} ms  {detail}",
                seconds * 1e3
            ),
        )?;
        match outcome {
            Ok((value, _)) => Ok(value),
            Err(detail) => Err(Failure::failed(format!(
                "the step `{name}` failed: {detail}; {}",
                advice(name)
            ))),
        }
    }
}

/// Who or what has to come for a step to be done.
fn awaited(step: &str) -> &'static str {
    match step {
        "search" => "somebody on the local network who announces the core",
        "name" => "the address of the host",
        "dial" => "somebody to answer the call",
        "handshake" => "the peer's part of the handshake",
        "capability" => "the peer to show that it knows the key",
        _ => "a block",
    }
}

/// What to look at when a step fails.
fn advice(step: &str) -> &'static str {
    match step {
        "search" => {
            "check that `hypercore share` or `hypercore serve --announce` runs there, on the same \
             network, and that no firewall is in the way of multicast DNS (UDP port 5353); or \
             name the peer with --connect ADDR:PORT"
        }
        "name" => "check the spelling and the network, or give an IP address",
        "dial" => {
            "check that `hypercore serve` or `hypercore share` runs there, listens on an address that others can \
             reach (--listen 0.0.0.0:PORT), and that no firewall is in the way"
        }
        "handshake" => {
            "something else may be listening on that port, or it has as many peers as it takes"
        }
        "capability" => "check the key: the peer has another core, or does not let you in",
        _ => "the connection works; another peer may have the blocks",
    }
}
