//! SIGINT and SIGTERM: the first asks to stop, the second stops.

use std::{
    convert::Infallible,
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use async_channel::Receiver;
use signal_hook::{
    consts::{SIGINT, SIGTERM},
    flag,
};

use crate::output;

/// Whoever sends a signal to a process and to its group, as `timeout` does, means one: what comes
/// within this time after the first is the same.
const ECHO: Duration = Duration::from_millis(500);

/// A write beyond the limit for files (`ulimit -f`) fails, as on a full disk, and does not end the process.
/// Where that is refused, it is no reason not to work.
pub(crate) fn outlive_limits() {
    #[cfg(unix)]
    {
        let nobody_asks = Arc::<AtomicBool>::default();
        let _ = flag::register(signal_hook::consts::SIGXFSZ, nobody_asks);
    }
}

/// Notices the first signal.
#[derive(Debug, Clone)]
pub(crate) struct Signals {
    /// Ends with the first signal.
    running: Receiver<Infallible>,
}

impl Signals {
    /// From now on signals do not end the process at once.
    pub(crate) fn catch() -> io::Result<Self> {
        // Whoever waits for a reader does not look for signals.
        output::remark_beside();
        let is_next_the_last = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM] {
            flag::register_conditional_default(signal, Arc::clone(&is_next_the_last))?;
        }
        let first = First::catch()?;
        let (sender, running) = async_channel::bounded(1);
        // A thread of its own, as the others may have much to do.
        thread::spawn(move || {
            first.wait();
            drop(sender);
            thread::sleep(ECHO);
            is_next_the_last.store(true, Ordering::Release);
        });
        Ok(Self { running })
    }

    /// Waits for a signal. Once stopped, always stopped.
    pub(crate) async fn stopped(&self) {
        let _ = self.running.recv().await;
    }

    /// Whether a signal came.
    pub(crate) fn are_here(&self) -> bool {
        self.running.is_closed()
    }
}

/// Waits for the first signal on a thread.
#[cfg(unix)]
struct First(std::os::unix::net::UnixStream);

#[cfg(unix)]
impl First {
    fn catch() -> io::Result<Self> {
        let (read, write) = std::os::unix::net::UnixStream::pair()?;
        for signal in [SIGINT, SIGTERM] {
            signal_hook::low_level::pipe::register(signal, write.try_clone()?)?;
        }
        Ok(Self(read))
    }

    fn wait(mut self) {
        // One byte a signal. If it cannot be read, better stop than never stop.
        let _ = io::Read::read_exact(&mut self.0, &mut [0]);
    }
}

#[cfg(not(unix))]
struct First(Arc<AtomicBool>);

#[cfg(not(unix))]
impl First {
    fn catch() -> io::Result<Self> {
        let came = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM] {
            flag::register(signal, Arc::clone(&came))?;
        }
        Ok(Self(came))
    }

    fn wait(self) {
        while !self.0.load(Ordering::Acquire) {
            thread::sleep(Duration::from_millis(100));
        }
    }
}
