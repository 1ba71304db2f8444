//! Clones a core into memory, over standard input and output, and says on standard error what came.
//! At the other end of the pipes could be `ssh`, or a program that runs this as WebAssembly:
//!
//! ```text
//! cargo build --release --target wasm32-wasip1 -p hypercore-examples --example over_stdio
//! ```

use std::{
    error::Error,
    io::{self, Read, Write},
    pin::Pin,
    task::{Context, Poll},
};

use futures_lite::{AsyncRead, AsyncWrite, future};
use hypercore::{Hypercore, PublicKey, ReplicateOptions, Role};

fn main() -> Result<(), Box<dyn Error>> {
    let key: PublicKey = std::env::args()
        .nth(1)
        .ok_or("usage: over_stdio KEY")?
        .parse()?;
    future::block_on(async {
        let core = Hypercore::options().key(key).open_memory().await?;
        // Not live: it ends when both sides have all that the other has.
        let replication = core.replicate(Role::Initiator, ReplicateOptions::default())?;
        replication.run(Stdio).await?;
        if let Some(last) = core.length().checked_sub(1) {
            let block = core.get(last).await?;
            let block = String::from_utf8_lossy(&block);
            eprintln!("{} bytes, the last block is: {block}", core.byte_length());
        }
        Ok(())
    })
}

/// Standard input and output. Both block, which is no harm: nothing is read before all is written
/// that there is to say.
struct Stdio;

/// Whoever is at the other end may have made a pipe that does not block. Then we look again.
fn again<T>(cx: &Context<'_>, result: io::Result<T>) -> Poll<io::Result<T>> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            cx.waker().wake_by_ref();
            Poll::Pending
        }
        result => Poll::Ready(result),
    }
}

impl AsyncRead for Stdio {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        again(cx, io::stdin().read(buffer))
    }
}

impl AsyncWrite for Stdio {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        again(cx, io::stdout().write(bytes))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        again(cx, io::stdout().flush())
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_flush(cx)
    }
}
