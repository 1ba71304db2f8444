//! Transports that are not like a socket, in ways that are legal.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use async_std::{net::TcpStream, task};
use futures_lite::{AsyncRead, AsyncWrite, future::zip};
use hypercore::{Ended, Error, Hypercore, ReplicateOptions, Role};

use crate::support::{Ends, clone_of, options, run, soon, tcp_pair, writer};

/// A transport of which every way to be odd is legal.
struct Odd {
    inner: TcpStream,
    /// Keeps what it is given until it is flushed, and is not done with that at the first try.
    keeps: Option<Vec<u8>>,
    was_asked: bool,
    /// Never done with closing.
    stays_open: bool,
    /// Ends after so many bytes, as if the network had been cut.
    left: usize,
}

impl Odd {
    fn new(inner: TcpStream) -> Self {
        Self {
            inner,
            keeps: None,
            was_asked: false,
            stays_open: false,
            left: usize::MAX,
        }
    }
}

impl AsyncRead for Odd {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let room = buffer.len().min(self.left);
        let read = Pin::new(&mut self.inner).poll_read(cx, &mut buffer[..room]);
        if let Poll::Ready(Ok(count)) = read {
            self.left -= count;
        }
        read
    }
}

impl AsyncWrite for Odd {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        match &mut this.keeps {
            Some(kept) => {
                kept.extend_from_slice(bytes);
                this.was_asked = false;
                Poll::Ready(Ok(bytes.len()))
            }
            None => Pin::new(&mut this.inner).poll_write(cx, bytes),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if let Some(kept) = &mut this.keeps {
            if !std::mem::replace(&mut this.was_asked, true) {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            while !kept.is_empty() {
                let count = ready!(Pin::new(&mut this.inner).poll_write(cx, kept))?;
                kept.drain(..count);
            }
        }
        Pin::new(&mut this.inner).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.stays_open {
            return Poll::Pending;
        }
        ready!(self.as_mut().poll_flush(cx))?;
        Pin::new(&mut self.inner).poll_close(cx)
    }
}

/// Runs both ends of a connection of `a` and `b`, over transports that `change` makes odd.
async fn oddly(
    a: &Hypercore,
    b: &Hypercore,
    options: impl Fn() -> ReplicateOptions,
    change: impl Fn(&mut Odd),
) -> impl Future<Output = Ends> + Send + 'static {
    let (client, server) = tcp_pair().await;
    let (mut client, mut server) = (Odd::new(client), Odd::new(server));
    change(&mut client);
    change(&mut server);
    zip(
        a.replicate(Role::Initiator, options()).unwrap().run(client),
        b.replicate(Role::Responder, options()).unwrap().run(server),
    )
}

/// What a flush had left behind went out with the next message, for which the remote may wait.
#[test]
fn a_transport_is_flushed_to_the_end() {
    run(async {
        let origin = writer(3).await;
        let clone = clone_of(&origin, true).await;
        let quiet = || options(|options| (options.live, options.timeout) = (true, None));
        let keep = |odd: &mut Odd| odd.keeps = Some(Vec::new());
        let _connection = task::spawn(oddly(&clone, &origin, quiet, keep).await);
        for index in 0..3 {
            let block = soon("a block", clone.get(index)).await.unwrap();
            assert_eq!(block, format!("block {index}"));
        }
    });
}

#[test]
fn a_transport_that_cannot_be_closed_is_given_up() {
    run(async {
        let origin = writer(1).await;
        let clone = clone_of(&origin, false).await;
        let stay = |odd: &mut Odd| odd.stays_open = true;
        let ends = oddly(&clone, &origin, ReplicateOptions::default, stay).await;
        let ends = soon("the end", ends).await;
        assert!(
            matches!(ends, (Ok(Ended::Complete), Ok(Ended::Complete))),
            "{ends:?}"
        );
    });
}

/// It was said to be an end like any other.
#[test]
fn a_connection_that_is_cut_in_a_message_has_failed() {
    run(async {
        let origin = writer(0).await;
        origin.append(vec![7; 100_000]).await.unwrap();
        let clone = clone_of(&origin, false).await;
        let cut = |odd: &mut Odd| odd.left = 50_000;
        let ends = oddly(&clone, &origin, ReplicateOptions::live, cut).await;
        let (ours, _) = soon("the end", ends).await;
        assert!(matches!(ours, Err(Error::Wire(_))), "{ours:?}");
    });
}
