//! Serves a log to anybody who has its key. Lines that you type become blocks.
//!
//! ```text
//! cargo run --release --example tcp_server             # prints the command for the other terminal
//! cargo run --release --example tcp_server -- my-log   # keeps the log in the directory my-log
//! ```

use std::error::Error;

use async_std::{
    io::{self, BufReader, prelude::BufReadExt},
    net::TcpListener,
    task,
};
use futures_lite::{StreamExt, future};
use hypercore::{Hypercore, ReplicateOptions, Role};

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
    loop {
        let (socket, address) = listener.accept().await?;
        let connection = core.replicate(Role::Responder, ReplicateOptions::live())?;
        task::spawn(async move {
            match connection.run(socket).await {
                Ok(ended) => eprintln!("{address}: {ended}"),
                Err(error) => eprintln!("{address}: {error}"),
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
