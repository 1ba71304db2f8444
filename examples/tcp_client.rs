//! Follows a log that `tcp_server`, the command line or Node serves: prints every block, checked.
//!
//! ```text
//! cargo run --release --example tcp_client -- KEY ADDRESS:PORT
//! ```

use std::error::Error;

use async_std::{net::TcpStream, task};
use futures_lite::future;
use hypercore::{Hypercore, PublicKey, ReplicateOptions, Role};

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
        let connected = async {
            println!("The connection is over: {}.", connection.run(socket).await?);
            Ok(())
        };
        future::or(connected, print_blocks(&core)).await
    })
}

/// Never done: there may always be another block.
async fn print_blocks(core: &Hypercore) -> Result<(), Box<dyn Error>> {
    let mut index = 0;
    loop {
        let block = core.get(index).await?; // waits until a peer has sent it
        println!("{index}: {}", String::from_utf8_lossy(&block));
        index += 1;
    }
}
