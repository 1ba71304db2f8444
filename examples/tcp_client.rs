//! Follows a log that `tcp_server`, the command line or Node serves: prints every block, checked. All of
//! it stays in memory: for a long log, open a directory.
//!
//! ```text
//! cargo run --release --example tcp_client -- KEY ADDRESS:PORT
//! ```

use std::error::Error;

use async_std::{net::TcpStream, task};
use futures_lite::future;
use hypercore::{Ended, GetOptions, Hypercore, PublicKey, ReplicateOptions, Role};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [key, address] = &arguments[..] else {
        return Err("usage: tcp_client KEY ADDRESS:PORT".into());
    };
    let key: PublicKey = key.parse()?;

    task::block_on(async {
        let core = Hypercore::options().key(key).open_memory().await?;
        let socket = TcpStream::connect(address).await?;
        let connection = core.replicate(Role::Initiator, ReplicateOptions::live())?;
        let mut next = 0;
        let printed = print_blocks(&core, &mut next, GetOptions::default()); // waits for blocks
        let over = future::or(connection.run(socket), printed).await;
        // What came together with the end is stored, and not printed yet.
        let _ = print_blocks(&core, &mut next, GetOptions::local()).await;
        println!("The connection is over: {}.", over?);
        Ok(())
    })
}

/// Ends with an error: there may always be another block.
async fn print_blocks(
    core: &Hypercore,
    next: &mut u64,
    options: GetOptions,
) -> Result<Ended, hypercore::Error> {
    loop {
        let block = core.get_with(*next, options).await?;
        println!("{next}: {}", String::from_utf8_lossy(&block));
        *next += 1;
    }
}
