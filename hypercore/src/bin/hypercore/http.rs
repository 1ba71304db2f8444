//! `serve --http`: a page that shows a core as it is served, its bytes, and figures for Prometheus.
//!
//! ```text
//!  GET /           the page, one file
//!  GET /events     a snapshot every second, as server-sent events
//!  GET /metrics    the same figures for Prometheus
//!  GET /data       the bytes of the log; `Range` is understood
//!  GET /tail       the blocks to come, for as long as the connection lasts; `?lines` ends each with
//!                  a newline
//! ```
//!
//! HEAD is answered like GET, without a body. Nothing can be changed from here, and neither the key nor a path is shown. Requests under a name
//! other than `localhost` are refused, so that no page of somebody else can read this one by letting
//! its own name point here.

use std::{convert::Infallible, net::IpAddr, ops::Range, sync::Arc, time::Duration};

use async_io::Timer;
use futures_lite::{
    AsyncReadExt, AsyncWrite, AsyncWriteExt, future,
    io::{self, split},
};
use hypercore::{GetOptions, Hypercore, SeekOptions};
use serde_json::Value;

use crate::{
    net::{self, Listener, Tcp},
    parts::{share_of, split_bytes},
    peers::Peers,
    status,
};

/// Connections at one time. So many more are told that there are too many, and beyond that they are
/// closed at once.
const MAX_CONNECTIONS: usize = 64;

/// With those that are refused, while they hear that.
pub(crate) const MOST_CONNECTIONS: usize = 2 * MAX_CONNECTIONS;

/// A request without its body, which no request here has.
const MAX_HEAD: usize = 8 * 1024;

/// How long a request may take to arrive.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long a reader may take nothing of what it asked for.
const STALL: Duration = Duration::from_secs(30);

/// What is read and dropped of somebody who sends too much, so that they see the answer.
const MAX_REST: u64 = 256 * 1024;

/// How often the page is told what is new.
const INTERVAL: Duration = Duration::from_secs(1);

/// Cells in the picture of what is held.
const CELLS: u64 = 400;

const PAGE: &str = include_str!("page.html");

/// Answers for ever.
pub(crate) async fn answer(listener: Listener, core: Hypercore, peers: Peers) -> Infallible {
    // Held once by each connection, and by each that is refused.
    let (connection, refusal) = (Arc::new(()), Arc::new(()));
    loop {
        let tcp = match listener.accept(&peers.hang_up).await {
            Ok((tcp, _)) => tcp,
            Err(error) => {
                tracing::warn!(%error, "a request was not accepted");
                Timer::after(INTERVAL).await;
                continue;
            }
        };
        if Arc::strong_count(&connection) > MAX_CONNECTIONS {
            if Arc::strong_count(&refusal) <= MAX_CONNECTIONS {
                let refusal = Arc::clone(&refusal);
                net::spawn(async move {
                    let _ = refuse(tcp, NOT_NOW).await;
                    drop(refusal);
                });
            }
            continue;
        }
        let connection = Arc::clone(&connection);
        let (core, peers) = (core.clone(), peers.clone());
        net::spawn(async move {
            if let Err(error) = handle(tcp, &core, &peers).await {
                tracing::debug!(%error, "a request was not answered");
            }
            drop(connection);
        });
    }
}

async fn handle(mut tcp: Tcp, core: &Hypercore, peers: &Peers) -> io::Result<()> {
    let late = async {
        Timer::after(PATIENCE).await;
        Err(io::ErrorKind::TimedOut.into())
    };
    let Some(head) = future::or(read_head(&mut tcp), late).await? else {
        return refuse(tcp, TOO_LONG).await;
    };
    let request = match Request::parse(&head) {
        Ok(request) => request,
        Err(status) => return refuse(tcp, status).await,
    };
    let mut answer = Answer {
        tcp,
        head_only: request.head_only,
    };
    match request.path {
        "/" => {
            let kind = "text/html; charset=utf-8";
            answer.say(OK, kind, PAGE.as_bytes()).await
        }
        "/events" => answer.events(core, peers).await,
        "/metrics" => {
            let figures = metrics(&status::snapshot(core, peers).into());
            let kind = "text/plain; version=0.0.4";
            answer.say(OK, kind, figures.as_bytes()).await
        }
        "/data" => answer.data(core, request.range).await,
        "/tail" => answer.tail(core, request.query == "lines").await,
        _ => answer.say_status(NOT_FOUND).await,
    }
}

/// Says no to somebody who may still be sending.
async fn refuse(tcp: Tcp, status: &str) -> io::Result<()> {
    let mut answer = Answer {
        tcp,
        head_only: false,
    };
    answer.say_status(status).await?;
    // Bytes that nobody has read reset the connection, and the answer with it.
    let rest = async {
        let unread = answer.tcp.take(MAX_REST);
        io::copy(unread, io::sink()).await.map(|_| ())
    };
    let late = async {
        Timer::after(INTERVAL).await;
        Ok(())
    };
    future::or(rest, late).await
}

// ---- requests -------------------------------------------------------------------------------

const OK: &str = "200 OK";
const PARTIAL: &str = "206 Partial Content";
const BAD: &str = "400 Bad Request";
const ELSEWHERE: &str = "403 Forbidden";
const NOT_FOUND: &str = "404 Not Found";
const READ_ONLY: &str = "405 Method Not Allowed";
const TOO_LONG: &str = "431 Request Header Fields Too Large";
const BEYOND: &str = "416 Range Not Satisfiable";
const NOT_HELD: &str = "503 Service Unavailable";
const NOT_NOW: &str = "503 Too Many Connections";

/// The first lines of a request; `None` if they are too long.
async fn read_head(tcp: &mut Tcp) -> io::Result<Option<String>> {
    let mut head = Vec::new();
    let mut piece = [0; 1024];
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        let count = tcp.read(&mut piece).await?;
        let Some(more @ [_, ..]) = piece.get(..count) else {
            return Err(io::ErrorKind::UnexpectedEof.into());
        };
        head.extend_from_slice(more);
        if head.len() > MAX_HEAD {
            return Ok(None);
        }
    }
    String::from_utf8(head).map(Some).map_err(io::Error::other)
}

#[derive(Debug, PartialEq, Eq)]
struct Request<'a> {
    path: &'a str,
    /// What comes after the question mark.
    query: &'a str,
    /// No body is wanted.
    head_only: bool,
    range: Option<Wanted>,
}

/// What a `Range` asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wanted {
    /// From a byte on, to another one, inclusive.
    From(u64, Option<u64>),
    /// So many at the end.
    Last(u64),
}

impl<'a> Request<'a> {
    fn parse(head: &'a str) -> Result<Self, &'static str> {
        let mut lines = head.split("\r\n");
        let mut first = lines.next().unwrap_or_default().split(' ');
        let (method, path) = (first.next(), first.next().ok_or(BAD)?);
        let head_only = match method {
            Some("GET") => false,
            Some("HEAD") => true,
            _ => return Err(READ_ONLY),
        };
        let header = |name: &str| {
            let mut headers = head.split("\r\n").filter_map(|line| line.split_once(':'));
            let found = headers.find(|(found, _)| found.eq_ignore_ascii_case(name));
            found.map(|(_, value)| value.trim())
        };
        if !header("host").is_some_and(is_own_name) {
            return Err(ELSEWHERE);
        }
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        Ok(Self {
            path,
            query,
            head_only,
            // One that is not understood is ignored (RFC 9110, 14.2).
            range: header("range").and_then(Wanted::parse),
        })
    }
}

/// Whether `host` can only mean this machine: `localhost` or an address, with or without a port.
fn is_own_name(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.parse::<u16>().is_ok() => name,
        _ => host,
    };
    let ip = name.trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost") || ip.parse::<IpAddr>().is_ok()
}

impl Wanted {
    fn parse(value: &str) -> Option<Self> {
        let (start, end) = value.strip_prefix("bytes=")?.split_once('-')?;
        match (start, end) {
            ("", count) => Some(Self::Last(count.parse().ok()?)),
            (start, "") => Some(Self::From(start.parse().ok()?, None)),
            (start, end) => {
                let (start, end) = (start.parse().ok()?, end.parse().ok()?);
                // One that ends before it starts is not valid, and ignored (RFC 9110, 14.1.1).
                (start <= end).then_some(Self::From(start, Some(end)))
            }
        }
    }

    /// The bytes it means of so many, if there are any.
    fn within(self, length: u64) -> Option<Range<u64>> {
        let range = match self {
            Self::Last(count) => length.saturating_sub(count)..length,
            Self::From(start, None) => start..length,
            Self::From(start, Some(end)) => start..end.saturating_add(1).min(length),
        };
        (range.start < range.end).then_some(range)
    }
}

// ---- answers --------------------------------------------------------------------------------

/// The first lines of an answer, which ends with the connection.
fn head(status: &str, kind: &str) -> String {
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nConnection: close\r\nCache-Control: no-store\r\n\
         X-Content-Type-Options: nosniff\r\nContent-Security-Policy: default-src 'none'; style-src \
         'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'\r\n"
    )
}

/// Who is answered.
struct Answer {
    tcp: Tcp,
    /// No body is wanted.
    head_only: bool,
}

impl Answer {
    async fn say(&mut self, status: &str, kind: &str, body: &[u8]) -> io::Result<()> {
        self.say_with(status, kind, "", body).await
    }

    /// The same, with `more` lines in the head.
    async fn say_with(
        &mut self,
        status: &str,
        kind: &str,
        more: &str,
        body: &[u8],
    ) -> io::Result<()> {
        let head = head(status, kind);
        let head = format!("{head}{more}Content-Length: {}\r\n\r\n", body.len());
        if self.begin(&head).await? {
            send(&mut self.tcp, body, STALL).await?;
        }
        self.tcp.close().await
    }

    async fn say_status(&mut self, status: &str) -> io::Result<()> {
        let body = match status {
            ELSEWHERE => {
                "Use the address of this machine or `localhost`; other names are refused, so that \
                 no foreign page can read this one."
            }
            status => status,
        };
        let more = match status {
            READ_ONLY => "Allow: GET, HEAD\r\n",
            _ => "",
        };
        self.say_with(status, "text/plain", more, body.as_bytes())
            .await
    }

    /// Sends the first lines. Returns whether a body is to follow.
    async fn begin(&mut self, head: &str) -> io::Result<bool> {
        send(&mut self.tcp, head.as_bytes(), STALL).await?;
        Ok(!self.head_only)
    }

    async fn events(&mut self, core: &Hypercore, peers: &Peers) -> io::Result<()> {
        let head = format!("{}\r\n", head(OK, "text/event-stream"));
        if !self.begin(&head).await? {
            return self.tcp.close().await;
        }
        loop {
            let mut now = status::snapshot(core, peers);
            // Whoever sees the page need not be one who may read the log elsewhere.
            now.insert("key".into(), Value::Null);
            let discovery_key = core.discovery_key().to_string();
            now.insert("discoveryKey".into(), discovery_key.into());
            now.insert("held".into(), held(core).into());
            let event = format!("data: {}\n\n", Value::Object(now));
            send(&mut self.tcp, event.as_bytes(), STALL).await?;
            Timer::after(INTERVAL).await;
        }
    }

    async fn data(&mut self, core: &Hypercore, wanted: Option<Wanted>) -> io::Result<()> {
        let length = core.byte_length();
        let (status, range) = match wanted {
            None => (OK, 0..length),
            Some(wanted) => match wanted.within(length) {
                Some(range) => (PARTIAL, range),
                None => {
                    let more = format!("Content-Range: bytes */{length}\r\n");
                    let body = BEYOND.as_bytes();
                    return self.say_with(BEYOND, "text/plain", &more, body).await;
                }
            },
        };
        let mut options = SeekOptions::default();
        options.wait = false;
        let found = core.seek_with(range.start, options).await;
        let Some(position) = found
            .ok()
            .filter(|found| is_held(core, found.index, &range))
        else {
            return self
                .say(NOT_HELD, "text/plain", b"not all of it is stored here")
                .await;
        };
        let mut head = head(status, "application/octet-stream");
        head += "Content-Disposition: attachment\r\nAccept-Ranges: bytes\r\n";
        if status == PARTIAL {
            let (start, last) = (range.start, range.end.saturating_sub(1));
            head += &format!("Content-Range: bytes {start}-{last}/{length}\r\n");
        }
        let mut rest = range.end.saturating_sub(range.start);
        head += &format!("Content-Length: {rest}\r\n\r\n");
        if !self.begin(&head).await? {
            return self.tcp.close().await;
        }
        let (mut index, mut skip) = (position.index, position.offset as usize);
        while rest > 0 {
            let block = core.get_with(index, GetOptions::local()).await;
            let block = block.map_err(io::Error::other)?;
            let part = block.get(skip..).ok_or(io::ErrorKind::InvalidData)?;
            let (part, _) = split_bytes(part, rest);
            send(&mut self.tcp, part, STALL).await?;
            rest = rest.saturating_sub(part.len() as u64);
            (index, skip) = (index.saturating_add(1), 0);
        }
        self.tcp.close().await
    }

    async fn tail(mut self, core: &Hypercore, lines: bool) -> io::Result<()> {
        // Whoever has seen the head counts on what is appended after that.
        let next = core.length();
        let head = format!("{}\r\n", head(OK, "application/octet-stream"));
        if !self.begin(&head).await? {
            return self.tcp.close().await;
        }
        let (mut reader, mut writer) = split(self.tcp);
        let write = async {
            for index in next.. {
                let block = core.get(index).await.map_err(io::Error::other)?;
                send(&mut writer, &block, STALL).await?;
                if lines {
                    send(&mut writer, b"\n", STALL).await?;
                }
            }
            Ok(())
        };
        // Whoever goes away says nothing more.
        let gone = async {
            let mut rest = [0; 64];
            while reader.read(&mut rest).await? > 0 {}
            Ok(())
        };
        future::or(write, gone).await
    }
}

/// Sends all of `bytes` to somebody who takes some of them within each `stall`. Others would hold
/// their place for ever.
async fn send(
    to: &mut (impl AsyncWrite + Unpin),
    mut bytes: &[u8],
    stall: Duration,
) -> io::Result<()> {
    while !bytes.is_empty() {
        let late = async {
            Timer::after(stall).await;
            Err(io::ErrorKind::TimedOut.into())
        };
        let count = future::or(to.write(bytes), late).await?;
        if count == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        bytes = bytes.get(count..).ok_or(io::ErrorKind::InvalidData)?;
    }
    Ok(())
}

/// How much is held, in percent, of each of the parts of equal length.
fn held(core: &Hypercore) -> Vec<u64> {
    let length = core.length();
    let cells = length.min(CELLS);
    let start = |cell| share_of(length, cell, cells);
    let parts = (0..cells).map(|cell| start(cell)..start(cell.saturating_add(1)));
    parts
        .map(|blocks| {
            let count = blocks.end.saturating_sub(blocks.start);
            share_of(100, core.downloaded(blocks), count)
        })
        .collect()
}

fn metrics(now: &Value) -> String {
    let mut text = String::new();
    let peers = now["peers"].as_array().map_or(0, Vec::len);
    for (name, kind, help, value) in [
        (
            "length_blocks",
            "gauge",
            "Blocks of the log.",
            now["length"].clone(),
        ),
        (
            "length_bytes",
            "gauge",
            "Bytes of the log.",
            now["byteLength"].clone(),
        ),
        (
            "stored_blocks",
            "gauge",
            "Blocks that are stored here.",
            now["downloaded"].clone(),
        ),
        ("peers", "gauge", "Connections.", peers.into()),
        (
            "sent_bytes_total",
            "counter",
            "Bytes of blocks sent.",
            now["uploadedBytes"].clone(),
        ),
        (
            "received_bytes_total",
            "counter",
            "Bytes of blocks received.",
            now["downloadedBytes"].clone(),
        ),
    ] {
        text += &format!(
            "# HELP hypercore_{name} {help}\n# TYPE hypercore_{name} {kind}\nhypercore_{name} {value}\n"
        );
    }
    text
}

/// Whether the bytes are stored, as far as can be told without reading: all blocks from `first` on,
/// to the one with the last byte, or to the end.
fn is_held(core: &Hypercore, first: u64, range: &Range<u64>) -> bool {
    let mut options = SeekOptions::default();
    options.wait = false;
    let last = future::block_on(core.seek_with(range.end, options));
    let end = match last {
        Ok(last) => last.index.saturating_add(u64::from(last.offset > 0)),
        Err(_) => core.length(),
    };
    core.has_all(first..end)
}

#[cfg(test)]
mod tests {
    use std::{
        pin::Pin,
        task::{Context, Poll},
    };

    use super::*;

    #[test]
    fn requests() {
        let parse = |line: &str, headers: &str| {
            let head = format!("{line}\r\n{headers}\r\n\r\n");
            let request = Request::parse(&head);
            request.map(|request| (request.path.to_owned(), request.range))
        };
        let here = "Host: 127.0.0.1:8000";
        let get = |headers: &str| parse("GET /data?x HTTP/1.1", headers);
        assert_eq!(get(here), Ok(("/data".into(), None)));
        assert_eq!(
            get("hOST: localhost\r\nrange: bytes=1-2"),
            Ok(("/data".into(), Some(Wanted::From(1, Some(2)))))
        );
        assert!(get("Host: [::1]:80").is_ok() && get("Host: [::1]").is_ok());
        assert_eq!(get("Host: evil.example:8000"), Err(ELSEWHERE));
        assert_eq!(get("Accept: x"), Err(ELSEWHERE));
        assert_eq!(parse("POST / HTTP/1.1", here), Err(READ_ONLY));
        let head = format!("HEAD /tail?lines HTTP/1.1\r\n{here}\r\n\r\n");
        let request = Request::parse(&head).unwrap();
        assert_eq!((request.path, request.query), ("/tail", "lines"));
        assert!(request.head_only);
        assert_eq!(parse("GET", here), Err(BAD));
    }

    /// Takes some bytes, and then no more.
    struct Idle(usize);

    impl AsyncWrite for Idle {
        fn poll_write(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            let count = bytes.len().min(self.0).min(3);
            self.0 -= count;
            match count {
                0 => Poll::Pending,
                count => Poll::Ready(Ok(count)),
            }
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[test]
    fn who_takes_nothing_is_let_go() {
        let stall = Duration::from_millis(10);
        let send = |idle: &mut Idle| future::block_on(send(idle, &[0; 10], stall));
        assert!(send(&mut Idle(10)).is_ok());
        let late = send(&mut Idle(9)).unwrap_err();
        assert_eq!(late.kind(), io::ErrorKind::TimedOut);
    }

    #[test]
    fn ranges() {
        let range = |text: &str| Wanted::parse(text).and_then(|wanted| wanted.within(10));
        assert_eq!(range("bytes=0-0"), Some(0..1));
        assert_eq!(range("bytes=2-"), Some(2..10));
        assert_eq!(range("bytes=2-99999999999999999999"), None);
        assert_eq!(range("bytes=2-18446744073709551615"), Some(2..10));
        assert_eq!(range("bytes=-3"), Some(7..10));
        assert_eq!(range("bytes=-30"), Some(0..10));
        for text in [
            "bytes=10-",
            "bytes=3-2",
            "bytes=-0",
            "bytes=a-b",
            "lines=0-1",
            "",
        ] {
            assert_eq!(range(text), None, "{text}");
        }
    }
}
