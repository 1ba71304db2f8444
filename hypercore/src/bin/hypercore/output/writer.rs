//! Standard output of what runs for long: a thread writes, so that a reader who stops reading holds
//! up nothing but what it is told.

use std::{
    collections::VecDeque,
    convert::Infallible,
    io::{self, IsTerminal, Write},
    thread::{self, JoinHandle},
    time::Duration,
};

use async_channel::{Receiver, Sender, TrySendError};
use async_io::Timer;
use futures_lite::future;
use indicatif::ProgressBar;

/// Lines on their way to the reader.
const QUEUE: usize = 1024;

/// At the end, one who reads nothing for so long does not hear the rest.
const PATIENCE: Duration = Duration::from_secs(2);

#[derive(Debug)]
pub(super) struct Writer {
    queue: Sender<String>,
    /// What there was no room for in the queue. Whoever tells much [waits](Self::room) before that.
    backlog: VecDeque<String>,
    /// Ends with the thread.
    running: Receiver<Infallible>,
    thread: JoinHandle<io::Result<()>>,
}

impl Writer {
    pub(super) fn start(bar: &ProgressBar) -> Self {
        let (queue, lines) = async_channel::bounded(QUEUE);
        let (runs, running) = async_channel::bounded(1);
        // Elsewhere the two do not meet, and a write that is stuck would hold the bar up.
        let bar = io::stdout().is_terminal().then(|| bar.clone());
        let thread = thread::spawn(move || {
            let _runs = runs;
            write_all(&lines, bar.as_ref())
        });
        Self {
            queue,
            backlog: VecDeque::new(),
            running,
            thread,
        }
    }

    /// Takes a line, whether there is room for it or not. Fails if the thread has ended.
    pub(super) fn tell(&mut self, line: String) -> Result<(), Ended> {
        self.backlog.push_back(line);
        while let Some(line) = self.backlog.pop_front() {
            match self.queue.try_send(line) {
                Ok(()) => {}
                Err(TrySendError::Full(line)) => {
                    self.backlog.push_front(line);
                    return Ok(());
                }
                Err(TrySendError::Closed(_)) => return Err(Ended),
            }
        }
        Ok(())
    }

    pub(super) fn has_room(&self) -> bool {
        self.backlog.is_empty()
    }

    /// Waits until there is room.
    pub(super) async fn room(&mut self) -> Result<(), Ended> {
        // It stays where it is while this waits, which may be given up.
        while let Some(line) = self.backlog.front() {
            let sent = self.queue.send(line.clone()).await;
            sent.map_err(|_| Ended)?;
            self.backlog.pop_front();
        }
        Ok(())
    }

    /// Waits until everything is written, or until the reader takes nothing more.
    pub(super) async fn finish(mut self) -> io::Result<()> {
        loop {
            let before = self.unwritten();
            let written = async {
                if self.room().await.is_ok() {
                    self.queue.close();
                    let _ = self.running.recv().await;
                }
                true
            };
            let late = async {
                Timer::after(PATIENCE).await;
                false
            };
            if future::or(written, late).await {
                return self.end();
            }
            if self.unwritten() == before {
                // The thread ends with the process.
                return Ok(());
            }
        }
    }

    fn unwritten(&self) -> usize {
        self.backlog.len().saturating_add(self.queue.len())
    }

    /// What became of the thread, which has ended.
    pub(super) fn end(self) -> io::Result<()> {
        let ended = self.thread.join();
        ended.unwrap_or_else(|_| Err(io::Error::other("the thread that writes broke off")))
    }
}

/// Nothing is written any more.
#[derive(Debug)]
pub(super) struct Ended;

fn write_all(lines: &Receiver<String>, bar: Option<&ProgressBar>) -> io::Result<()> {
    while let Ok(line) = lines.recv_blocking() {
        let write = || writeln!(io::stdout(), "{line}");
        match bar {
            Some(bar) => bar.suspend(write)?,
            None => write()?,
        }
    }
    Ok(())
}
