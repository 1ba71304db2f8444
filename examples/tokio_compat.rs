//! Under tokio: its sockets, wrapped by `tokio_util::compat`. Nothing else changes.
//!
//! ```text
//! cargo run --release --example tokio_compat
//! ```

use std::error::Error;

use hypercore::{Hypercore, ReplicateOptions, Role};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::compat::TokioAsyncReadCompatExt;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let core = Hypercore::options().open_memory().await?;
    core.append_batch(["hello", "from", "tokio"]).await?;
    let clone = Hypercore::options().key(core.key()).open_memory().await?;

    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let outgoing = TcpStream::connect(listener.local_addr()?).await?;
    let (incoming, _) = listener.accept().await?;

    // Not live: both ends are done when the clone has everything.
    let serving = core.replicate(Role::Responder, ReplicateOptions::default())?;
    let cloning = clone.replicate(Role::Initiator, ReplicateOptions::default())?;
    tokio::try_join!(
        serving.run(incoming.compat()),
        cloning.run(outgoing.compat())
    )?;

    for index in 0..clone.length() {
        println!(
            "{index}: {}",
            String::from_utf8_lossy(&clone.get(index).await?)
        );
    }
    Ok(())
}
