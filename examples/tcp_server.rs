//! Serves a log to anybody who has its key. Lines that you type become blocks.
//!
//! It listens on this machine alone, and takes calls as a server does that faces the internet: what
//! is wrong with one of them ends none of the others.
//!
//! ```text
//! cargo run --release --example tcp_server             # prints the command for the other terminal
//! cargo run --release --example tcp_server -- my-log   # keeps the log in the directory my-log
//! ```

use std::{
    error::Error,
    time::{Duration, Instant},
};

use async_std::{
    io::{self, BufReader, prelude::BufReadExt},
    net::TcpListener,
    task,
};
use futures_lite::{StreamExt, future};
use hypercore::{Admission, AdmissionLimits, Hypercore, ReplicateOptions, Role};

fn main() -> Result<(), Box<dyn Error>> {
    task::block_on(async {
        let core = match std::env::args().nth(1) {
            Some(directory) => Hypercore::open(directory).await?,
            None => Hypercore::options().open_memory().await?,
        };
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let (key, address) = (core.key(), listener.local_addr()?);
        println!("Read along with: cargo run --release --example tcp_client -- {key} {address}");
        println!("Every line from here on becomes a block; Ctrl-D ends.");

        future::or(accept(&core, &listener), append_lines(&core)).await?;
        core.close().await?;
        Ok(())
    })
}

async fn accept(core: &Hypercore, listener: &TcpListener) -> Result<(), Box<dyn Error>> {
    let admission = Admission::new(AdmissionLimits::default());
    loop {
        let (socket, address) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                // The caller is gone already, or there are too many open files: that passes.
                eprintln!("a call was not taken: {error}");
                task::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let admitted = match admission.admit(address.ip(), Instant::now()) {
            Ok(admitted) => admitted,
            Err(refusal) => {
                eprintln!("{address}: {refusal}");
                continue;
            }
        };
        let handshake = admitted.clone();
        let options = ReplicateOptions::live()
            .discreet(true)
            .on_authenticate(move |_| {
                handshake.handshaken();
                true // whoever it is
            });
        let connection = core.replicate(Role::Responder, options)?;
        task::spawn(async move {
            let run = async { Some(connection.run(socket).await) };
            let evicted = async {
                admitted.evicted().await;
                None
            };
            match future::or(run, evicted).await {
                Some(Ok(ended)) => eprintln!("{address}: {ended}"),
                Some(Err(error)) => {
                    eprintln!("{address}: {error}");
                    if error.is_peer_fault() {
                        admitted.misbehaved(Instant::now());
                    }
                }
                None => eprintln!("{address}: its handshake took too long"),
            }
        });
    }
}

async fn append_lines(core: &Hypercore) -> Result<(), Box<dyn Error>> {
    let mut lines = BufReader::new(io::stdin()).lines();
    while let Some(line) = lines.next().await {
        core.append(line?).await?;
    }
    Ok(())
}
