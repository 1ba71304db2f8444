//! The duplex stream of a replication, and the loop that drives one over a transport.

use std::{
    fmt, io,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Waker},
    time::Instant,
};

use futures_lite::{AsyncRead, AsyncWrite, AsyncWriteExt, future};
use hypercore_merkle::DiscoveryKey;

use super::{
    CloseReason, Ended, ReplicateOptions, Role, Wake,
    connection::{CLOSE_TIMEOUT, Connection, not_connected},
};
use crate::{
    Hypercore,
    error::{Error, Result},
    event::PeerId,
    runtime::{self, Alarm},
};

/// How many reads and writes are made before other tasks get their turn.
const FAIR_ROUNDS: usize = 64;

/// How many bytes are sent before other tasks get their turn.
const FAIR_BYTES: usize = 128 * 1024;

/// How many bytes are received before they are looked at, if they are there, and before other tasks
/// get their turn.
const TOGETHER: usize = 512 * 1024;

/// One end of an encrypted connection that carries one core or many.
///
/// It is a duplex byte stream: what is read from it goes to the other end's `Replication` and what
/// comes from there is written to it, over any transport. [`run`](Self::run) does that for a
/// transport that is a duplex stream itself, without the copy in between.
///
/// The stream ends by itself once everything is exchanged, unless
/// [`live`](ReplicateOptions::live) is set. Dropping it ends the connection.
///
/// # Piped
///
/// Time passes only while it is read from or written to. Whoever copies between it and a transport does
/// neither as long as the remote neither sends nor reads: then no
/// [`timeout`](ReplicateOptions::timeout), [`send_stall`](crate::wire::Limits::send_stall) or keep-alive comes
/// about. [`run`](Self::run) and [`replicate_over`](Hypercore::replicate_over) see to them; else give the
/// copying a time limit of its own.
pub struct Replication {
    inner: Arc<Mutex<Connection>>,
    wake: Arc<Wake>,
    alarm: Alarm,
    write_alarm: Alarm,
    /// Whoever waits in `poll_write` for the remote's requests to be answered.
    writer: Option<Waker>,
    /// The transport was given bytes that it may not have passed on.
    unflushed: bool,
    /// The other end takes nothing any more. What it has sent before may still come.
    hung_up: Option<io::Error>,
}

impl fmt::Debug for Replication {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Replication").finish_non_exhaustive()
    }
}

/// Adds cores to a connection that may be running already, takes them off, and tells how it ended.
///
/// Its methods wait while the connection is polled. So the hooks that are called meanwhile must leave them
/// to another task, or they would wait for themselves: [`on_authenticate`](ReplicateOptions::on_authenticate),
/// [`on_core_authenticate`](ReplicateOptions::on_core_authenticate),
/// [`on_remote_open`](ReplicateOptions::on_remote_open), and
/// [`on_write`](crate::OpenOptions::on_write) for what a peer sent.
#[derive(Clone)]
pub struct ReplicationHandle {
    /// Of one that is over, with its buffers, a handle keeps nothing,
    inner: Weak<Mutex<Connection>>,
    /// but this.
    owed_answers: Arc<AtomicBool>,
}

impl fmt::Debug for ReplicationHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReplicationHandle").finish_non_exhaustive()
    }
}

impl ReplicationHandle {
    /// Exchanges `core` on this connection too. Returns what the core calls the peer at the other
    /// end, in its events and in [`peers`](Hypercore::peers).
    ///
    /// If the remote has closed the core again that the hook
    /// [`on_remote_open`](ReplicateOptions::on_remote_open) was told of, this opens it all the same, for a
    /// remote that comes back to it.
    ///
    /// # Errors
    ///
    /// As [`Replication::add`]. After any of them [`reject`](Self::reject) a core that the remote waits
    /// for.
    pub fn add(&self, core: &Hypercore) -> Result<PeerId> {
        let connection = self.inner.upgrade().ok_or_else(not_connected)?;
        lock(&connection).attach(core.shared())
    }

    /// Nobody adds the core with this discovery key, which the hook
    /// [`on_remote_open`](ReplicateOptions::on_remote_open) was told of: the remote hears that it is not
    /// here. Nothing happens if it was added meanwhile, or rejected before.
    pub fn reject(&self, core: DiscoveryKey) {
        if let Some(connection) = self.inner.upgrade() {
            lock(&connection).reject(core.as_bytes());
        }
    }

    /// Takes `core` off this connection: the remote hears that it is closed, and the other cores go on.
    /// What is stored stays, and what waits for blocks waits for other peers. A connection that is not
    /// live ends with its last core, as [`Ended::Closed`]; a live one stays for those that are
    /// [added](Self::add). To come back the core has to be added on both sides, as the remote's has gone
    /// with it.
    ///
    /// Returns whether the core was on this connection.
    pub fn remove(&self, core: &Hypercore) -> bool {
        let connection = self.inner.upgrade();
        connection.is_some_and(|connection| lock(&connection).remove(core.shared()))
    }

    /// Takes all cores off this connection, and ends it: what was to be sent is sent, and once the remote
    /// has answered [`Replication::run`] returns [`Ended::Closed`] unless a core had ended worse before.
    /// After two seconds it does so whatever the remote has not taken. Nothing can be added any more. The
    /// cores stay open.
    pub fn close(&self) {
        if let Some(connection) = self.inner.upgrade() {
            lock(&connection).close();
        }
    }

    /// Whether the connection is over and the remote had not answered what it was asked for: it was
    /// lost, and has not left. A process that is killed ends its connections like any other.
    #[must_use]
    pub fn owed_answers(&self) -> bool {
        self.owed_answers.load(Ordering::Relaxed)
    }
}

impl Replication {
    /// A connection without cores: [`add`](Self::add) them.
    ///
    /// # Errors
    ///
    /// [`Error::NoHandshake`] when the options ask for the remote's key and leave out the handshake; or
    /// when the operating system gives no randomness.
    pub fn new(role: Role, options: ReplicateOptions) -> Result<Self> {
        let connection = Connection::new(role, options)?;
        let wake = Arc::clone(connection.wake());
        Ok(Self {
            inner: Arc::new(Mutex::new(connection)),
            wake,
            alarm: Alarm::new(),
            write_alarm: Alarm::new(),
            writer: None,
            unflushed: false,
            hung_up: None,
        })
    }

    /// Exchanges `core` on this connection. Returns what the core calls the peer at the other end,
    /// in its events and in [`peers`](Hypercore::peers), also if it is exchanged already.
    ///
    /// One that was opened again takes the place of the one that was closed: the remote hears of both, and
    /// has to add its own again.
    ///
    /// # Errors
    ///
    /// When the core or the connection is closed; [`Error::AlreadyReplicated`] if another core with its key
    /// is exchanged here, and open; [`Error::NotFinalized`]; and as [`Error::Wire`]
    /// [`InvalidCapability`](crate::wire::Error::InvalidCapability) if the remote has opened the core
    /// without knowing its key, which it then hears is not here,
    /// [`TooManyChannels`](crate::wire::Error::TooManyChannels), and
    /// [`SendBufferFull`](crate::wire::Error::SendBufferFull) while the remote takes nothing.
    pub fn add(&self, core: &Hypercore) -> Result<PeerId> {
        lock(&self.inner).attach(core.shared())
    }

    /// A handle to add cores with while the connection runs.
    #[must_use]
    pub fn handle(&self) -> ReplicationHandle {
        ReplicationHandle {
            inner: Arc::downgrade(&self.inner),
            owed_answers: Arc::clone(lock(&self.inner).owed_answers()),
        }
    }

    /// Drives the connection over `transport` to its end, and closes the transport. [`Ended`] tells
    /// when that is.
    ///
    /// # Errors
    ///
    /// When the transport fails, when the remote breaks the protocol or proves something false,
    /// and when our own storage fails.
    pub async fn run(
        mut self,
        mut transport: impl AsyncRead + AsyncWrite + Unpin,
    ) -> Result<Ended> {
        let result = future::poll_fn(|cx| self.poll_run(cx, &mut transport)).await;
        match &result {
            Ok(ended) => lock(&self.inner).end((*ended).into(), "the connection was closed"),
            Err(error) => lock(&self.inner).fail(error),
        }
        if result.is_ok() {
            // Both sides have said all: a transport that cannot say goodbye loses nothing, nor one
            // whose other end does not listen any more.
            runtime::timeout(CLOSE_TIMEOUT, transport.close()).await;
        }
        result
    }

    /// Moves bytes both ways until nothing moves any more.
    fn poll_run(
        &mut self,
        cx: &mut Context<'_>,
        transport: &mut (impl AsyncRead + AsyncWrite + Unpin),
    ) -> Poll<Result<Ended>> {
        let Self {
            inner,
            wake,
            alarm,
            unflushed,
            hung_up: gone,
            ..
        } = self;
        let mut connection = lock(inner);
        let connection = &mut *connection;
        let (mut all_sent, mut all_received) = (0usize, 0usize);
        for _ in 0..FAIR_ROUNDS {
            wake.register(cx.waker());
            let now = runtime::now();
            wake.take();
            connection.advance(now)?;

            let sent = send_out(cx, transport, connection, now, unflushed, gone)?;
            let all_said = connection.outgoing().is_empty() || gone.is_some();
            if connection.is_finished(now) && all_said || connection.is_overdue(now) {
                return Poll::Ready(Ok(connection.ended()));
            }
            let TakenIn { bytes, ended, left } = read_in(cx, transport, connection, gone)?;
            let all_read = ended || bytes == 0 && !left;
            let may_be_gone = ended && connection.expects_nothing();
            if let Some(error) = gone.take_if(|_| all_read && !may_be_gone) {
                return Poll::Ready(Err(Error::Transport(error)));
            }
            if ended {
                connection.remote_ended()?;
            }
            let moved = sent > 0 || bytes > 0 || ended;
            if !moved && poll_change(wake, alarm, cx, connection, now).is_pending() {
                // Nobody tells that there is memory again, and the alarm may have been set after it was.
                if left && !connection.lacks_memory() {
                    continue;
                }
                return Poll::Pending;
            }
            all_sent = all_sent.saturating_add(sent);
            all_received = all_received.saturating_add(bytes);
            if all_sent >= FAIR_BYTES || all_received >= TOGETHER {
                break;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

/// Gives the transport what it takes of what is to be sent. Returns how many bytes those are.
fn send_out(
    cx: &mut Context<'_>,
    transport: &mut (impl AsyncWrite + Unpin),
    connection: &mut Connection,
    now: Instant,
    unflushed: &mut bool,
    gone: &mut Option<io::Error>,
) -> Result<usize> {
    let mut sent = 0usize;
    while gone.is_none() && !connection.outgoing().is_empty() {
        match Pin::new(&mut *transport).poll_write(cx, connection.outgoing()) {
            Poll::Ready(Ok(0)) => {
                return Err(Error::Transport(io::ErrorKind::WriteZero.into()));
            }
            Poll::Ready(Ok(count)) => {
                connection.sent(count, now);
                *unflushed = true;
                sent = sent.saturating_add(count);
            }
            Poll::Ready(Err(error)) => *gone = Some(hung_up(error)?),
            Poll::Pending => break,
        }
    }
    if *unflushed && gone.is_none() {
        match Pin::new(&mut *transport).poll_flush(cx) {
            Poll::Ready(Ok(())) => *unflushed = false,
            Poll::Ready(Err(error)) => *gone = Some(hung_up(error)?),
            Poll::Pending => {}
        }
    }
    Ok(sent)
}

/// What came from the transport in one round.
struct TakenIn {
    bytes: usize,
    /// Nothing more will come.
    ended: bool,
    /// There was no memory to read more.
    left: bool,
}

/// Reads what is there, as far as it is looked at together, and looks at it.
fn read_in(
    cx: &mut Context<'_>,
    transport: &mut (impl AsyncRead + Unpin),
    connection: &mut Connection,
    gone: &mut Option<io::Error>,
) -> Result<TakenIn> {
    let (mut bytes, mut ended) = (0usize, false);
    let together = TOGETHER.min(connection.longest_frame());
    while bytes < together && connection.may_receive() {
        let buffer = connection.receive_buffer();
        let room = buffer.len();
        match Pin::new(&mut *transport).poll_read(cx, buffer) {
            Poll::Ready(Ok(0)) => ended = true,
            Poll::Ready(Ok(count)) => {
                bytes = bytes.saturating_add(count);
                connection.received(count, runtime::now())?;
                // Most likely there is more, and blocks that come together cost less.
                if count == room {
                    continue;
                }
            }
            Poll::Ready(Err(error)) => {
                ended = true;
                *gone = Some(hung_up(error)?);
            }
            Poll::Pending => {}
        }
        break;
    }
    let left = connection.lacks_memory();
    if bytes > 0 {
        connection.handle_events(runtime::now())?;
    }
    Ok(TakenIn { bytes, ended, left })
}

/// Whether the other end is gone, which it may be without having taken all we said; any other error
/// is one of the transport.
fn hung_up(error: io::Error) -> Result<io::Error> {
    match error.kind() {
        io::ErrorKind::BrokenPipe
        | io::ErrorKind::ConnectionAborted
        | io::ErrorKind::ConnectionReset
        | io::ErrorKind::NotConnected => Ok(error),
        _ => Err(Error::Transport(error)),
    }
}

impl Drop for Replication {
    fn drop(&mut self) {
        lock(&self.inner).end(CloseReason::Dropped, "the connection was dropped");
    }
}

/// What goes to the other end.
impl AsyncRead for Replication {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        loop {
            this.wake.register(cx.waker());
            this.wake.take();
            let now = runtime::now();
            let mut connection = lock(&this.inner);
            let advanced = connection.advance(now);
            if let Err(error) = &advanced {
                connection.fail(error);
            }
            if connection.may_receive() || connection.is_finished(now) {
                this.writer.take().into_iter().for_each(Waker::wake);
            }
            advanced?;
            if connection.has_failed() {
                // Whoever was refused, say, gets nothing of what was to be sent.
                return Poll::Ready(Ok(0));
            }
            let all_said = connection.outgoing().is_empty();
            if connection.is_finished(now) && all_said || connection.is_overdue(now) {
                let ended = connection.ended();
                connection.end(ended.into(), "the connection was closed");
                return Poll::Ready(Ok(0));
            }
            let outgoing = connection.outgoing();
            if !outgoing.is_empty() {
                let count = outgoing.len().min(buffer.len());
                let (Some(source), Some(target)) = (outgoing.get(..count), buffer.get_mut(..count))
                else {
                    return Poll::Ready(Ok(0));
                };
                target.copy_from_slice(source);
                connection.sent(count, now);
                if let Some(writer) = this.writer.take() {
                    writer.wake();
                }
                return Poll::Ready(Ok(count));
            }
            let changed = poll_change(&this.wake, &mut this.alarm, cx, &mut connection, now);
            if changed.is_pending() {
                return Poll::Pending;
            }
        }
    }
}

/// What comes from the other end.
impl AsyncWrite for Replication {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        let mut connection = lock(&this.inner);
        let now = runtime::now();
        if connection.is_finished(now) {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let received = if connection.may_receive() {
            connection.receive(bytes, now)
        } else {
            this.writer = Some(cx.waker().clone());
            // Whoever cannot write what is read here does not read either: time passes all the same.
            let rang = this.write_alarm.poll(cx, connection.deadline(now));
            if rang.is_pending() && !connection.may_receive() {
                return Poll::Pending;
            }
            connection.offer_overdue(now);
            match connection.advance(now) {
                Ok(()) => {
                    // Others get their turn, also if more is due already.
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                Err(error) => Err(error),
            }
        };
        match received {
            Ok(count) => Poll::Ready(Ok(count)),
            Err(error) => {
                connection.fail(&error);
                // The reading half ends, or it would wait for ever.
                this.wake.wake();
                Poll::Ready(Err(error.into()))
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut connection = lock(&self.inner);
        let ended = connection.remote_ended();
        if let Err(error) = &ended {
            connection.fail(error);
        }
        self.wake.wake();
        Poll::Ready(ended.map_err(Error::into))
    }
}

/// Ready once something changed in a core, or once the deadline of the connection, which was looked at
/// `now`, has passed.
fn poll_change(
    wake: &Wake,
    alarm: &mut Alarm,
    cx: &mut Context<'_>,
    connection: &mut Connection,
    now: Instant,
) -> Poll<()> {
    let rang = alarm.poll(cx, connection.deadline(now)).is_ready();
    if rang {
        connection.offer_overdue(runtime::now());
    }
    if wake.take() || rang {
        Poll::Ready(())
    } else {
        Poll::Pending
    }
}

fn lock(connection: &Mutex<Connection>) -> MutexGuard<'_, Connection> {
    connection.lock().unwrap_or_else(PoisonError::into_inner)
}
