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
};

use crate::{
    args::{Format, Identity, Manners, parse_address, parse_key, parse_seconds},
    errors::{Failure, Result, reason},
    identity, net,
    output::{Output, bytes},
    peers::{Ended, Peers},
};

#[derive(Debug, Args)]
#[command(
    after_help = "Example: hypercore doctor KEY --connect 192.168.1.5:4000\n\n\
    The steps: name (find the address of the host), dial (reach it), handshake (agree on a secret), \
    capability\n(both show that they know the key), first block (receive one and check it)."
)]
pub(crate) struct DoctorArgs {
    /// Key of the core: 64 hex digits, hyper://HEX, or z-base-32
    #[arg(value_parser = parse_key)]
    key: PublicKey,
    /// The peer to examine
    #[arg(long, value_name = "ADDR:PORT", value_parser = parse_address)]
    connect: String,
    /// How long each step may take
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = parse_seconds)]
    timeout: Duration,
    #[command(flatten)]
    identity: Identity,
    #[command(flatten)]
    format: Format,
}

pub(crate) async fn doctor(args: DoctorArgs, manners: &Manners) -> Result<()> {
    let mut report = Report {
        output: Output::new(&args.format, manners),
        limit: args.timeout,
    };
    let key = args.key;
    let core = OpenOptions::new().key(key).sparse(true).open_memory().await;
    let core = core.map_err(|error| Failure::failed(format!("the core {key}: {error}")))?;
    examine(&args, &core, &mut report).await?;
    let core = core.close().await;
    core.map_err(|error| Failure::failed(format!("the core {key}: {error}")))?;
    report.output.result(
        &[("event", "healthy".into())],
        format_args!("{} has the core and sends it.", args.connect),
    )
}

async fn examine(args: &DoctorArgs, core: &Hypercore, report: &mut Report) -> Result<()> {
    let host = &args.connect;
    let addresses = report.step("name", find(host)).await?;
    let peers = Peers::new(core, identity::load(args.identity.path.as_deref())?);
    let tcp = report.step("dial", dial(&addresses, &peers)).await?;

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
    Ok(())
}

/// What a step gives, and what there is to say about it; or why it failed.
type Outcome<T> = std::result::Result<(T, String), String>;

async fn find(host: &str) -> Outcome<Vec<SocketAddr>> {
    let found = net::resolve(host).await;
    let found = found.map_err(|error| format!("{host} is not found: {}", reason(&error)))?;
    if found.is_empty() {
        return Err(format!("{host} has no address"));
    }
    let words: Vec<_> = found.iter().map(ToString::to_string).collect();
    Ok((found, words.join(", ")))
}

/// Calls the addresses one after the other until one answers.
async fn dial(addresses: &[SocketAddr], peers: &Peers) -> Outcome<net::Tcp> {
    let mut reasons = Vec::new();
    for address in addresses {
        match net::connect(&address.to_string(), &peers.hang_up).await {
            Ok(tcp) => return Ok((tcp, address.to_string())),
            Err(error) => reasons.push(format!("{address}: {}", reason(&error))),
        }
    }
    Err(reasons.join("; "))
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
    for index in [0, core.length() - 1] {
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
            Ok(Ended::Failed(error)) => error.to_string(),
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
        let late = async {
            Timer::after(limit).await;
            Err(format!("no answer within {} s", limit.as_secs_f64()))
        };
        let outcome = future::or(step, late).await;
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

/// What to look at when a step fails.
fn advice(step: &str) -> &'static str {
    match step {
        "name" => "check the spelling and the network, or give an IP address",
        "dial" => {
            "check that `hypercore serve` runs there, listens on an address that others can \
             reach (--listen 0.0.0.0:PORT), and that no firewall is in the way"
        }
        "handshake" => "something else may be listening on that port",
        "capability" => "check the key: the peer has another core, or does not let you in",
        _ => "the connection works; another peer may have the blocks",
    }
}
