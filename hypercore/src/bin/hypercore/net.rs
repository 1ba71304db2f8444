//! Sockets and tasks: the only module that knows which runtime is used.

use std::{
    future::Future,
    io,
    net::{IpAddr, Shutdown, SocketAddr},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};

use async_std::{
    future::timeout,
    net::{TcpListener, TcpStream, ToSocketAddrs},
    task,
};
use futures_lite::{AsyncRead, AsyncReadExt, AsyncWrite};
use hypercore::{
    Hypercore,
    discovery::{Announcement, Discovery, Mdns},
};

use crate::errors::{Failure, Result, reason};

/// How long a peer has to answer a call.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long each address of a name has to answer at least, however many it has.
const MIN_SHARE: Duration = Duration::from_secs(2);

/// Runs the program.
pub(crate) fn run<T>(program: impl Future<Output = T>) -> T {
    task::block_on(program)
}

/// Runs `work` beside the program, on another thread.
pub(crate) fn spawn(work: impl Future<Output = ()> + Send + 'static) {
    task::spawn(work);
}

/// Tells connections to end in good order: to send what they still have to say, and to read no more.
#[derive(Debug, Clone, Default)]
pub(crate) struct HangUp(Arc<AtomicBool>);

impl HangUp {
    pub(crate) fn hang_up(&self) {
        self.0.store(true, Ordering::Release);
    }

    pub(crate) fn is_set(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// Waits for calls.
#[derive(Debug)]
pub(crate) struct Listener(TcpListener);

impl Listener {
    pub(crate) async fn bind(address: &str) -> io::Result<Self> {
        let addresses = resolve(address).await?;
        TcpListener::bind(&addresses[..]).await.map(Self)
    }

    pub(crate) fn address(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }

    pub(crate) async fn accept(&self, hang_up: &HangUp) -> io::Result<(Tcp, SocketAddr)> {
        let (stream, address) = self.0.accept().await?;
        Ok((Tcp::new(stream, hang_up)?, address))
    }
}

/// Lets others on the local network find the core at `address`, until the answer is dropped.
pub(crate) fn announce(core: &Hypercore, address: SocketAddr) -> Result<Announcement> {
    let announced = Mdns::new().and_then(|mdns| mdns.announce(&core.discovery_key(), address));
    announced.map_err(|error| {
        Failure::failed(format!(
            "the core cannot be announced on the local network: {}",
            reason(&error)
        ))
    })
}

/// The address of this machine on a network that leads to others, if there is one.
pub(crate) fn own_address() -> Option<IpAddr> {
    let route = || {
        let socket = std::net::UdpSocket::bind("0.0.0.0:0").ok()?;
        // Nothing is sent: this asks which way it would go to an address of nobody (RFC 5737).
        socket.connect("192.0.2.1:9").ok()?;
        Some(socket.local_addr().ok()?.ip())
    };
    // Without a way to everywhere there may still be neighbours.
    let interfaces = if_addrs::get_if_addrs().unwrap_or_default();
    let interfaces = interfaces.into_iter().map(|interface| interface.ip());
    route().into_iter().chain(interfaces).find(leads_to_others)
}

fn leads_to_others(address: &IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => !v4.is_unspecified() && !v4.is_loopback() && !v4.is_link_local(),
        // Nobody listens there.
        IpAddr::V6(_) => false,
    }
}

/// The addresses of `host`, which may be one itself.
pub(crate) async fn resolve(host: &str) -> io::Result<Vec<SocketAddr>> {
    let found = host.to_socket_addrs().await.map(Iterator::collect);
    // What the system says of a name it does not find is of no help to anybody.
    found.map_err(|_| io::Error::new(io::ErrorKind::NotFound, "no machine of that name is known"))
}

/// Calls `address`, which may be a name; or tells why nobody is reached.
pub(crate) async fn connect(address: &str, hang_up: &HangUp) -> Result<Tcp, String> {
    let found = timeout(CONNECT_TIMEOUT, resolve(address)).await;
    let found = found.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
    let found = found.map_err(|error| reason(&error))?;
    match dial(&found, CONNECT_TIMEOUT, hang_up).await {
        Ok((tcp, _)) => Ok(tcp),
        // The name is that address, or stands for it.
        Err(reasons) if reasons.len() == 1 => Err(reasons.into_iter().map(|it| it.1).collect()),
        Err(reasons) => Err(in_words(&reasons)),
    }
}

/// Why nobody is reached at an address.
type Unreached = (SocketAddr, String);

/// "192.0.2.1:80: no answer; 192.0.2.2:80: nobody listens there".
pub(crate) fn in_words(reasons: &[Unreached]) -> String {
    let words = reasons.iter().map(|(at, reason)| format!("{at}: {reason}"));
    words.collect::<Vec<_>>().join("; ")
}

/// Calls the addresses of one peer, one after the other, until one answers.
pub(crate) async fn dial(
    addresses: &[SocketAddr],
    limit: Duration,
    hang_up: &HangUp,
) -> Result<(Tcp, SocketAddr), Vec<Unreached>> {
    let call = |at| async move { Tcp::new(TcpStream::connect(at).await?, hang_up) };
    first_of(addresses, limit, call).await
}

/// What the first `call` gives that does not fail. They share the time there is, so that one that is
/// silent leaves some for those after it.
async fn first_of<T, F: Future<Output = io::Result<T>>>(
    addresses: &[SocketAddr],
    limit: Duration,
    call: impl Fn(SocketAddr) -> F,
) -> Result<(T, SocketAddr), Vec<Unreached>> {
    let start = Instant::now();
    let mut reasons = Vec::new();
    for (&address, left) in addresses.iter().zip((1..=addresses.len() as u32).rev()) {
        let rest = limit.saturating_sub(start.elapsed());
        let share = rest.checked_div(left).unwrap_or(MIN_SHARE);
        let called = timeout(share.max(MIN_SHARE), call(address)).await;
        match called.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
            Ok(answer) => return Ok((answer, address)),
            Err(error) => reasons.push((address, reason(&error))),
        }
    }
    Err(reasons)
}

/// A connection.
#[derive(Debug)]
pub(crate) struct Tcp {
    stream: TcpStream,
    hang_up: HangUp,
    closed: bool,
}

impl Tcp {
    fn new(stream: TcpStream, hang_up: &HangUp) -> io::Result<Self> {
        // Requests are small, and the next ones wait for their answers.
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            hang_up: hang_up.clone(),
            closed: false,
        })
    }

    /// Says no more, and takes what still comes until the other end has said all.
    pub(crate) async fn part(&mut self) {
        // Where that fails nothing comes, either.
        let _ = self.stream.shutdown(Shutdown::Write);
        let mut rest = vec![0; 64 * 1024];
        while self
            .stream
            .read(&mut rest)
            .await
            .is_ok_and(|count| count > 0)
        {}
    }
}

impl AsyncRead for Tcp {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        // Once our side is closed the rest is read, so that no reset overtakes our last words.
        if self.hang_up.is_set() && !self.closed {
            return Poll::Ready(Ok(0));
        }
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Tcp {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    /// Tells the peer that nothing more comes; the stream's own `poll_close` does not.
    fn poll_close(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.closed = true;
        Poll::Ready(self.stream.shutdown(Shutdown::Write))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_silent_address_leaves_time_for_the_next_one() {
        let addresses = [1, 2, 3, 4].map(|port| SocketAddr::from(([192, 0, 2, 1], port)));
        let call = |address: SocketAddr| async move {
            match address.port() {
                1 => Err(io::ErrorKind::ConnectionRefused.into()),
                2 | 4 => futures_lite::future::pending().await,
                port => Ok(port),
            }
        };
        let start = Instant::now();
        let answer = run(first_of(&addresses, Duration::from_secs(6), call));
        assert_eq!(answer, Ok((3, addresses[2])));
        assert!((MIN_SHARE..MIN_SHARE * 2).contains(&start.elapsed()));
        let none = run(first_of(&addresses[..2], Duration::ZERO, call));
        let words = "192.0.2.1:1: nobody listens there; 192.0.2.1:2: no answer";
        assert_eq!(in_words(&none.unwrap_err()), words);
    }

    #[test]
    fn addresses_that_only_this_machine_knows_are_told_to_nobody() {
        for (address, expected) in [
            ("192.168.1.5", true),
            ("127.0.0.1", false),
            ("0.0.0.0", false),
            ("169.254.3.4", false),
            ("::1", false),
        ] {
            assert_eq!(leads_to_others(&address.parse().unwrap()), expected);
        }
    }
}
