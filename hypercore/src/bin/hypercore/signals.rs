//! SIGINT and SIGTERM: the first asks to stop, the second stops.

use std::{
    io,
    sync::{Arc, atomic::AtomicBool},
};

use signal_hook::{
    consts::{SIGINT, SIGTERM},
    flag,
};

/// Notices the first signal.
#[derive(Debug)]
pub(crate) struct Signals {
    #[cfg(unix)]
    pipe: async_io::Async<std::os::unix::net::UnixStream>,
    #[cfg(not(unix))]
    stopped: Arc<AtomicBool>,
}

impl Signals {
    /// From now on signals do not end the process at once.
    pub(crate) fn catch() -> io::Result<Self> {
        let stopped = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM] {
            // In this order: the second signal finds the flag that the first one has set.
            flag::register_conditional_default(signal, Arc::clone(&stopped))?;
            flag::register(signal, Arc::clone(&stopped))?;
        }
        #[cfg(unix)]
        {
            let (read, write) = std::os::unix::net::UnixStream::pair()?;
            for signal in [SIGINT, SIGTERM] {
                signal_hook::low_level::pipe::register(signal, write.try_clone()?)?;
            }
            let pipe = async_io::Async::new(read)?;
            Ok(Self { pipe })
        }
        #[cfg(not(unix))]
        Ok(Self { stopped })
    }

    /// Waits for a signal.
    #[cfg(unix)]
    pub(crate) async fn stopped(&self) {
        // One byte a signal, which is left there: once stopped, always stopped.
        let _ = self.pipe.readable().await;
    }

    /// Waits for a signal.
    #[cfg(not(unix))]
    pub(crate) async fn stopped(&self) {
        while !self.stopped.load(std::sync::atomic::Ordering::Acquire) {
            async_io::Timer::after(std::time::Duration::from_millis(100)).await;
        }
    }
}
