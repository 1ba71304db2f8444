//! Standard error of what runs for long: a thread writes, so that a terminal or a supervisor that takes
//! nothing holds up nobody. What there is no room for is dropped, and counted.

use std::{
    convert::Infallible,
    io::{self, Write},
    pin::pin,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use async_channel::{Receiver, Sender, TrySendError};
use async_io::Timer;
use futures_lite::future;

/// Remarks on their way to the reader.
const QUEUE: usize = 1024;

/// At the end, one who takes nothing for so long does not hear the rest.
const PATIENCE: Duration = Duration::from_secs(2);

static REMARKS: OnceLock<Remarks> = OnceLock::new();

/// From now on nothing waits for whoever reads standard error.
pub(super) fn write_beside() {
    REMARKS.get_or_init(|| Remarks::start(QUEUE, io::stderr()));
}

/// Says `text`, which ends its line.
pub(super) fn say(text: String) {
    match REMARKS.get() {
        Some(remarks) => remarks.say(text),
        None => write(&mut io::stderr(), &text),
    }
}

/// Says the last words, and waits until all is written, but not for one who takes nothing.
pub(super) fn finish(last: Option<String>) {
    if last.is_some() {
        write_beside();
    }
    if let Some(remarks) = REMARKS.get() {
        future::block_on(remarks.finish(last));
    }
}

#[derive(Debug)]
struct Remarks {
    lines: Sender<String>,
    dropped: Arc<AtomicU64>,
    /// Ends with the thread.
    running: Receiver<Infallible>,
}

impl Remarks {
    fn start(room: usize, mut to: impl Write + Send + 'static) -> Self {
        let (sender, lines) = async_channel::bounded::<String>(room);
        let (runs, running) = async_channel::bounded(1);
        let dropped = Arc::<AtomicU64>::default();
        let missed = Arc::clone(&dropped);
        thread::spawn(move || {
            let _runs = runs;
            while let Ok(line) = lines.recv_blocking() {
                write(&mut to, &line);
                // What was dropped came after all that is waiting.
                match lines.is_empty().then(|| missed.swap(0, Ordering::AcqRel)) {
                    None | Some(0) => {}
                    Some(1) => write(&mut to, "1 remark was dropped\n"),
                    Some(count) => write(&mut to, &format!("{count} remarks were dropped\n")),
                }
            }
        });
        Self {
            lines: sender,
            dropped,
            running,
        }
    }

    fn say(&self, line: String) {
        if let Err(TrySendError::Full(_)) = self.lines.try_send(line) {
            self.dropped.fetch_add(1, Ordering::AcqRel);
        }
    }

    async fn finish(&self, last: Option<String>) {
        if let Some(line) = last
            && !self.is_soon(self.lines.send(line)).await
        {
            return;
        }
        self.lines.close();
        self.is_soon(self.running.recv()).await;
    }

    /// Waits until `done`, or until the reader takes nothing more.
    async fn is_soon(&self, done: impl Future) -> bool {
        let mut done = pin!(async {
            done.await;
            true
        });
        loop {
            let before = self.lines.len();
            let late = async {
                Timer::after(PATIENCE).await;
                false
            };
            let is_done = future::or(done.as_mut(), late).await;
            if is_done || self.lines.len() == before {
                // The thread ends with the process.
                return is_done;
            }
        }
    }
}

/// That nobody takes it is no reason to end, as `eprint` would.
fn write(to: &mut impl Write, text: &str) {
    let _ = to.write_all(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use std::io::{PipeReader, Read, pipe};

    use super::*;

    /// Writes once somebody lets it.
    struct Held(PipeReader, io::PipeWriter);

    impl Write for Held {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            // Once it is let, it is for ever.
            let _ = self.0.read(&mut [0])?;
            self.1.write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn what_there_is_no_room_for_is_counted() {
        let (gate, opener) = pipe().unwrap();
        let (mut reader, writer) = pipe().unwrap();
        let remarks = Remarks::start(2, Held(gate, writer));
        remarks.say("0\n".into());
        // The thread holds that one.
        while !remarks.lines.is_empty() {
            thread::yield_now();
        }
        for line in 1..6 {
            remarks.say(format!("{line}\n"));
        }
        drop(opener);
        future::block_on(remarks.finish(Some("last\n".into())));
        drop(remarks);
        let mut told = String::new();
        reader.read_to_string(&mut told).unwrap();
        let (before, after) = ("0\n1\n2\n", "last\n3 remarks were dropped\n");
        let late = "3 remarks were dropped\nlast\n";
        assert!(
            told == format!("{before}{after}") || told == format!("{before}{late}"),
            "{told}"
        );
    }

    #[test]
    fn who_takes_nothing_is_not_waited_for() {
        let (gate, _opener) = pipe().unwrap();
        let (_reader, writer) = pipe().unwrap();
        let remarks = Remarks::start(1, Held(gate, writer));
        for line in 0..3 {
            remarks.say(format!("{line}\n"));
        }
        future::block_on(remarks.finish(Some("last\n".into())));
    }
}
