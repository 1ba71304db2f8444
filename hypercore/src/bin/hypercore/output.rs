//! Standard output, for people, for programs or for bytes, and the progress on standard error.

mod remarks;
mod writer;

use std::{
    env,
    ffi::OsStr,
    fmt::Display,
    io::{self, IsTerminal, Write},
    mem,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use async_io::Timer;
use blocking::Task;
use clap::builder::styling::{AnsiColor, Style};
use futures_lite::future;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::Value;

use self::writer::{Ended, Writer};

use crate::{
    args::{Format, Manners},
    errors::{Failure, Result},
};

/// The fields of a JSON object, in the order in which they are written.
pub(crate) type Fields<'a> = &'a [(&'a str, Value)];

/// Where results and events go.
#[derive(Debug)]
pub(crate) struct Output {
    json: bool,
    quiet: bool,
    /// Nobody reads standard output any more.
    unread: bool,
    /// Writes in our place.
    writer: Option<Writer>,
    bar: ProgressBar,
    has_bar: bool,
}

impl Output {
    pub(crate) fn new(format: &Format, manners: &Manners) -> Self {
        Self {
            json: format.json,
            quiet: manners.quiet,
            unread: false,
            writer: None,
            bar: ProgressBar::hidden(),
            has_bar: !manners.quiet && !manners.no_progress && io::stderr().is_terminal(),
        }
    }

    /// What the command was asked for.
    pub(crate) fn result(&mut self, fields: Fields<'_>, people: impl Display) -> Result<()> {
        if self.json {
            self.line(&object(fields))
        } else {
            self.line(&escaped(&people.to_string(), "\n"))
        }
    }

    /// Something that happened, told to programs only.
    pub(crate) fn event(&mut self, name: &str, fields: Fields<'_>) -> Result<()> {
        if self.json {
            self.always(name, fields)
        } else {
            Ok(())
        }
    }

    /// Something that happened, told in JSON whoever reads the rest.
    pub(crate) fn always(&mut self, name: &str, fields: Fields<'_>) -> Result<()> {
        let mut all = vec![("event", Value::from(name))];
        all.extend(fields.iter().cloned());
        self.line(&object(&all))
    }

    /// A word to the person at the terminal, who may have asked for silence.
    pub(crate) fn remark(&self, text: impl Display) {
        if self.quiet {
            return;
        }
        if self.bar.is_hidden() || self.bar.is_finished() {
            return complain(text);
        }
        // At once: the bar is not to be drawn meanwhile.
        let line = line_of("", text);
        let _ = self.bar.suspend(|| io::stderr().write_all(line.as_bytes()));
    }

    /// Whether a person may be told more than was asked for.
    pub(crate) fn is_quiet(&self) -> bool {
        self.quiet
    }

    /// Whether standard output was closed, so that nobody hears of what is still told.
    pub(crate) fn is_unread(&self) -> bool {
        self.unread
    }

    /// Starts to draw progress in `style`, if somebody sees it; an unknown `length` is 0.
    pub(crate) fn draw(&mut self, length: u64, style: &str) -> &ProgressBar {
        if self.has_bar {
            self.bar = ProgressBar::with_draw_target(Some(length), ProgressDrawTarget::stderr());
            if let Ok(style) = ProgressStyle::with_template(style) {
                self.bar.set_style(style);
            }
        }
        &self.bar
    }

    pub(crate) fn bar(&self) -> &ProgressBar {
        &self.bar
    }

    /// Takes the progress off the screen.
    pub(crate) fn done(&self) {
        self.bar.finish_and_clear();
    }

    fn line(&mut self, line: &str) -> Result<()> {
        if self.unread {
            return Ok(());
        }
        if let Some(writer) = &mut self.writer {
            let told = writer.tell(line.to_owned());
            return self.or_ended(told);
        }
        let written = self.bar.suspend(|| writeln!(io::stdout(), "{line}"));
        self.note(written)
    }

    /// Takes note of whether somebody still reads.
    fn note(&mut self, written: io::Result<()>) -> Result<()> {
        match written {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                // The work goes on, and the exit code tells how it ended.
                self.unread = true;
                Ok(())
            }
            written => written.map_err(|error| Failure::output(&error)),
        }
    }

    // ---- beside the program ---------------------------------------------------------------------

    /// From now on nothing waits for the reader; whoever tells much waits for [room](Self::room).
    pub(crate) fn write_beside(&mut self) {
        self.writer = Some(Writer::start(&self.bar));
    }

    /// Whether what was told is on its way to the reader.
    pub(crate) fn has_room(&self) -> bool {
        self.writer.as_ref().is_none_or(Writer::has_room)
    }

    /// Waits until it is.
    pub(crate) async fn room(&mut self) -> Result<()> {
        let Some(writer) = &mut self.writer else {
            return Ok(());
        };
        let sent = writer.room().await;
        self.or_ended(sent)
    }

    /// Ends that: waits until all is written, but not for one who does not read.
    pub(crate) async fn finish(&mut self) -> Result<()> {
        let Some(writer) = self.writer.take() else {
            return Ok(());
        };
        let written = writer.finish().await;
        self.note(written)
    }

    fn or_ended(&mut self, told: Result<(), Ended>) -> Result<()> {
        match told {
            Err(Ended) => match self.writer.take() {
                Some(writer) => self.note(writer.end()),
                None => Ok(()),
            },
            Ok(()) => Ok(()),
        }
    }
}

// ---- standard error -------------------------------------------------------------------------

/// From now on nothing waits for whoever reads standard error, but the end of the program a little.
pub(crate) fn remark_beside() {
    remarks::write_beside();
}

/// Whether nothing but errors is said.
static QUIET: AtomicBool = AtomicBool::new(false);

/// From now on nothing but errors is said.
pub(crate) fn be_quiet() {
    QUIET.store(true, Ordering::Relaxed);
}

/// A line on standard error, unless nothing but errors is said. That nobody takes it is no reason to end, as
/// `eprintln` would.
pub(crate) fn complain(text: impl Display) {
    if !QUIET.load(Ordering::Relaxed) {
        remarks::say(line_of("", text));
    }
}

/// An error that is no reason to end, also to whoever wants to hear of nothing else.
pub(crate) fn alarm(text: impl Display) {
    remarks::say(line_of(&error_prefix(), text));
}

fn error_prefix() -> String {
    let style = error_style();
    format!("{style}error:{style:#} ")
}

/// Says the last words on standard error: why the command failed, if it did.
pub(crate) fn finish_remarks(failure: Option<&Failure>) {
    remarks::finish(failure.map(|failure| line_of(&error_prefix(), failure)));
}

fn line_of(prefix: &str, text: impl Display) -> String {
    format!("{prefix}{}\n", escaped(&text.to_string(), ""))
}

/// Where the log goes, which comes line by line.
pub(crate) struct LogOutput;

impl Write for LogOutput {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        remarks::say(String::from_utf8_lossy(line).into_owned());
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Whether `c` commands a terminal, or makes what is around it look like something else by turning the
/// direction it is read in.
pub(crate) fn is_command(c: char) -> bool {
    let turns = matches!(
        c,
        '\u{61c}' | '\u{200e}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
    );
    c.is_control() || turns
}

/// `text` without what would command a terminal, or begin a line of its own: there may be names and
/// words of others in it.
fn escaped(text: &str, kept: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        if is_command(c) && !kept.contains(c) {
            safe.extend(c.escape_default());
        } else {
            safe.push(c);
        }
    }
    safe
}

/// `text` as a part of a line, whatever a name in it may be.
pub(crate) fn on_one_line(text: impl Display) -> String {
    escaped(&text.to_string(), "")
}

/// How often somebody who has nothing to write looks whether they are read.
const LOOK: Duration = Duration::from_millis(100);

/// Waits until nobody reads standard output any more. Writing tells that, too, but there may be nothing
/// to write for long.
pub(crate) async fn deserted() {
    while !is_deserted() {
        Timer::after(LOOK).await;
    }
}

/// Whether nobody reads standard output any more.
#[cfg(unix)]
pub(crate) fn is_deserted() -> bool {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let stdout = io::stdout();
    let mut looked_at = [PollFd::new(&stdout, PollFlags::empty())];
    let at_once = Timespec::default();
    let gone = PollFlags::ERR | PollFlags::HUP;
    poll(&mut looked_at, Some(&at_once)).is_ok() && looked_at[0].revents().intersects(gone)
}

/// Elsewhere only writing tells that.
#[cfg(not(unix))]
pub(crate) fn is_deserted() -> bool {
    false
}

/// So much is written to standard output at once.
const PIECE: usize = 64 * 1024;

/// At the end, one who takes nothing for so long does not get the rest.
const PATIENCE: Duration = Duration::from_millis(500);

/// Standard output for the bytes of blocks, as far as somebody reads it. They are written beside the
/// program, which is to end also where nobody takes them.
#[derive(Debug, Default)]
pub(crate) struct RawOutput {
    /// What is written next: whole blocks.
    next: Vec<u8>,
    /// What is being written now; gives its memory back.
    writing: Option<Task<io::Result<Vec<u8>>>>,
}

impl RawOutput {
    /// Takes a block and what comes after it. Returns whether somebody still reads: one who has had
    /// enough is no error.
    pub(crate) async fn write(&mut self, block: &[u8], end: &[u8]) -> Result<bool> {
        self.next.extend_from_slice(block);
        self.next.extend_from_slice(end);
        match self.next.len() {
            0..PIECE => Ok(true),
            _ => self.send().await,
        }
    }

    /// Waits until everything is written.
    pub(crate) async fn flush(&mut self) -> Result<bool> {
        let is_read = self.next.is_empty() || self.send().await?;
        Ok(is_read && self.written().await?.is_some())
    }

    /// The same at the end of the program, but not for one who takes nothing.
    pub(crate) async fn finish(mut self) -> Result<()> {
        let late = async {
            Timer::after(PATIENCE).await;
            Ok(false)
        };
        future::or(self.flush(), late).await.map(|_| ())
    }

    async fn send(&mut self) -> Result<bool> {
        let Some(memory) = self.written().await? else {
            return Ok(false);
        };
        let bytes = mem::replace(&mut self.next, memory);
        self.writing = Some(blocking::unblock(move || write_out(bytes)));
        Ok(true)
    }

    /// Waits until nothing is being written; none if nobody reads any more.
    async fn written(&mut self) -> Result<Option<Vec<u8>>> {
        let Some(writing) = &mut self.writing else {
            return Ok(Some(Vec::new()));
        };
        let written = writing.await;
        self.writing = None;
        match written {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(None),
            written => written.map(Some).map_err(|error| Failure::output(&error)),
        }
    }
}

fn write_out(mut bytes: Vec<u8>) -> io::Result<Vec<u8>> {
    let mut stdout = io::stdout();
    stdout.write_all(&bytes)?;
    stdout.flush()?;
    bytes.clear();
    Ok(bytes)
}

fn object(fields: Fields<'_>) -> String {
    let fields: Vec<_> = fields
        .iter()
        .map(|(name, value)| format!("{}:{value}", Value::from(*name)))
        .collect();
    format!("{{{}}}", fields.join(","))
}

/// Whether standard error is shown in colours: on a terminal, unless the person asked for none.
pub(crate) fn has_colours() -> bool {
    are_wanted(
        io::stderr().is_terminal(),
        env::var_os("NO_COLOR").as_deref(),
    )
}

/// As <https://no-color.org> has it: any value but the empty one asks for none.
fn are_wanted(is_terminal: bool, no_color: Option<&OsStr>) -> bool {
    is_terminal && no_color.is_none_or(OsStr::is_empty)
}

/// How the word "error" looks; the same as in the messages about usage.
fn error_style() -> Style {
    if has_colours() {
        AnsiColor::Red.on_default().bold()
    } else {
        Style::new()
    }
}

/// `1 block`, `2 blocks`.
pub(crate) fn blocks(count: u64) -> String {
    match count {
        1 => "1 block".into(),
        count => format!("{count} blocks"),
    }
}

/// `1 byte`, `2 bytes`, `3.5 MiB`.
pub(crate) fn bytes(count: u64) -> String {
    match count {
        1 => "1 byte".into(),
        0..1024 => format!("{count} bytes"),
        count => indicatif::BinaryBytes(count).to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_keep_the_order_of_their_fields() {
        let fields = [("b", Value::from("\"x\n")), ("a", Value::from(1))];
        assert_eq!(object(&fields), r#"{"b":"\"x\n","a":1}"#);
    }

    #[test]
    fn nothing_of_others_commands_a_terminal() {
        let text = "a\x1b[2J\u{9b}1m\r\nb ä\\";
        assert_eq!(escaped(text, ""), r"a\u{1b}[2J\u{9b}1m\r\nb ä\");
        assert_eq!(escaped("a\nb\tc", "\n"), "a\nb\\tc");
        let turned = "a\u{202e}gpj.exe\u{2066}\u{200f}\u{61c}";
        let shown = r"a\u{202e}gpj.exe\u{2066}\u{200f}\u{61c}";
        assert_eq!(escaped(turned, "\n"), shown);
    }

    #[test]
    fn colours_are_for_terminals_whose_owner_wants_them() {
        assert!(are_wanted(true, None) && are_wanted(true, Some("".as_ref())));
        assert!(!are_wanted(true, Some("1".as_ref())));
        assert!(!are_wanted(false, None));
    }

    #[test]
    fn amounts_read_well() {
        assert_eq!(
            (blocks(1), blocks(2)),
            ("1 block".into(), "2 blocks".into())
        );
        assert_eq!(bytes(1), "1 byte");
        assert_eq!(bytes(1023), "1023 bytes");
        assert_eq!(bytes(1536), "1.50 KiB");
    }
}
