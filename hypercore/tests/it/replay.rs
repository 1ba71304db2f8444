//! The clear text sessions recorded between two Hypercore 9: we take one side, then the other, and
//! say what Node said.
//!
//! The recording has one frame per line, in the order on the wire. A line of the side that is
//! played is written to our stream as it is; a line of the side that we take is waited for. Within
//! that, the order of our messages is free, as that of Node's depends on its caches.

use std::{collections::VecDeque, time::Duration};

use async_std::task;
use futures_lite::{AsyncReadExt, AsyncWriteExt};
use hypercore::{
    Bytes, Hypercore, KeyPair, ReplicateOptions, Replication, Role,
    wire::{Body, Data, Frame, Have, Limits, Message, Options, Request, Unhave},
};
use serde::Deserialize;

use crate::support::{run, soon};

#[derive(Deserialize)]
struct Recording {
    sessions: Vec<Session>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Session {
    name: String,
    secret_key: String,
    #[serde(default)]
    options: SessionOptions,
    clone_length: u64,
    clone_has: Vec<u64>,
    bytes: Vec<(String, String)>,
}

#[derive(Default, Deserialize)]
struct SessionOptions {
    #[serde(default)]
    live: bool,
}

fn sessions() -> Vec<Session> {
    let recording = include_str!("../../../wire/tests/vectors/replication.json");
    let recording: Recording = serde_json::from_str(recording).unwrap();
    assert_eq!(recording.sessions.len(), 12);
    recording.sessions
}

/// A line of a recording.
enum Line {
    Frame(Bytes, Body),
    End,
}

impl Session {
    fn key_pair(&self) -> KeyPair {
        let bytes = hex::decode(&self.secret_key).unwrap();
        KeyPair::from_bytes(&bytes.try_into().unwrap()).unwrap()
    }

    /// The recording, each line with whether the clone said it.
    fn lines(&self) -> impl Iterator<Item = (bool, Line)> {
        self.bytes.iter().map(|(from, bytes)| {
            let line = if bytes == "end" {
                Line::End
            } else {
                let bytes = hex::decode(bytes).unwrap();
                let (frame, rest) = take_frame(&bytes).unwrap();
                assert!(rest.is_empty(), "a line is a frame");
                Line::Frame(bytes.clone().into(), decode(frame))
            };
            (from == "initiator", line)
        })
    }

    fn options(&self) -> ReplicateOptions {
        let mut options = ReplicateOptions::default();
        options.noise = false;
        options.encrypted = false;
        options.timeout = None;
        options.live = self.options.live;
        options
    }

    /// What the feed of the recording had when the clone came.
    async fn feed(&self) -> Hypercore {
        let blocks: Vec<Bytes> = match self.name.as_str() {
            "empty, not live" => Vec::new(),
            "second region" => vec![Bytes::new(); 1_048_577],
            name => {
                let count = match name {
                    "acks and an extension" | "uploading off" | "download off" => 2,
                    "clear announces unhave" => 4,
                    "five blocks, not live" | "five blocks, live, then two more" => 5,
                    "thirty blocks, not live" => 30,
                    _ => 10,
                };
                (0..count)
                    .map(|index| format!("block {index}").into())
                    .collect()
            }
        };
        let feed = Hypercore::options()
            .key_pair(self.key_pair())
            .open_memory()
            .await
            .unwrap();
        feed.append_batch(blocks).await.unwrap();
        feed
    }
}

/// Splits the first frame off, without its length.
fn take_frame(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut length = 0;
    for (position, &byte) in bytes.iter().enumerate() {
        length |= usize::from(byte & 0x7f) << (7 * position);
        if byte < 0x80 {
            return bytes[position + 1..].split_at_checked(length);
        }
    }
    None
}

fn decode(frame: &[u8]) -> Body {
    let frame = Frame::decode(Bytes::copy_from_slice(frame), &Limits::default());
    frame.unwrap().expect("a known type").body
}

/// Our side of a session, and what it has said that was not waited for yet.
struct Stage {
    ours: Replication,
    received: Vec<u8>,
    said: VecDeque<Body>,
}

impl Stage {
    fn new(core: &Hypercore, role: Role, options: ReplicateOptions) -> Self {
        Self {
            ours: core.replicate(role, options).unwrap(),
            received: Vec::new(),
            said: VecDeque::new(),
        }
    }

    /// Says what the other side said in the recording, and lets us react.
    async fn say(&mut self, frame: &[u8]) {
        self.ours.write_all(frame).await.unwrap();
        while let Some(true) = futures_lite::future::poll_once(self.read()).await {}
    }

    /// Reads once; false at the end.
    async fn read(&mut self) -> bool {
        let mut buffer = vec![0; 1 << 16];
        let count = self.ours.read(&mut buffer).await.unwrap();
        self.received.extend_from_slice(&buffer[..count]);
        while let Some((frame, rest)) = take_frame(&self.received) {
            if !frame.is_empty() {
                self.said.extend(as_node(decode(frame)));
            }
            self.received = rest.to_vec();
        }
        count > 0
    }

    /// Waits until we have said something that `wanted` picks, and takes it out.
    async fn hear(&mut self, what: &str, wanted: impl Fn(&Body) -> bool) -> Body {
        let heard = async {
            loop {
                if let Some(found) = self.said.iter().position(&wanted) {
                    return self.said.remove(found);
                }
                if !self.read().await {
                    return None;
                }
            }
        };
        let heard = async_std::future::timeout(Duration::from_secs(10), heard).await;
        let Ok(Some(heard)) = heard else {
            panic!("we never said {what}, but {:?}", self.said);
        };
        heard
    }

    /// Nothing is left that was not waited for, nothing follows, and we end if Node ended. Node
    /// ends when it has said Close, we when we have heard it, too.
    async fn finish(mut self, session: &Session) {
        if session.bytes.iter().any(|(_, bytes)| bytes == "end") {
            while soon("the end", self.read()).await {}
        } else {
            let more = async { while self.read().await {} };
            let ended = futures_lite::future::poll_once(more).await;
            assert!(ended.is_none(), "we ended");
        }
        self.said.retain(|body| !is_probe(body));
        assert!(self.said.is_empty(), "we also said {:?}", self.said);
    }
}

/// Node does not ask whether there are two histories of a log; we do, once.
fn is_probe(body: &Body) -> bool {
    match message(body) {
        Some(Message::Request(request)) => request.hash && request.nodes == 0,
        Some(Message::Want(want)) => want.length == 1 << 20,
        _ => false,
    }
}

fn message(body: &Body) -> Option<&Message> {
    match body {
        Body::Message(message) => Some(message),
        _ => None,
    }
}

/// Our own words, without the extensions that Node does not have.
fn as_node(mut body: Body) -> Option<Body> {
    if let Body::Message(Message::Options(Options { extensions, ack })) = &mut body {
        assert_eq!(
            *extensions,
            ["hypercore/exact-digests", "hypercore/next-block"]
        );
        if !*ack {
            return None;
        }
        extensions.clear();
    }
    Some(body)
}

/// Node's own words, as we say them: we have not the same extensions.
fn ours(mut body: Body) -> Option<Body> {
    match &mut body {
        Body::Message(Message::Extension(_)) => return None,
        Body::Message(Message::Options(Options { extensions, ack })) => {
            if !*ack {
                return None;
            }
            extensions.clear();
        }
        _ => {}
    }
    Some(body)
}

/// We are the feed. What the clone said is played; all that Node's feed answered, we answer, and
/// nothing else: the same Haves, proofs, signatures and values.
#[test]
fn as_the_feed_we_answer_what_node_answered() {
    for session in sessions() {
        println!("{}", session.name);
        run(async {
            let feed = session.feed().await;
            let mut options = session.options();
            options.upload = session.name != "uploading off";
            options.ack = session.name == "acks and an extension";
            let mut stage = Stage::new(&feed, Role::Responder, options);
            for (from_clone, line) in session.lines() {
                match (from_clone, line) {
                    (true, Line::Frame(frame, _)) => stage.say(&frame).await,
                    (false, Line::Frame(_, body)) => {
                        let Some(body) = ours(body) else { continue };
                        act(&session.name, &feed, &body).await;
                        stage.hear(&format!("{body:?}"), |said| *said == body).await;
                    }
                    (_, Line::End) => {}
                }
            }
            stage.finish(&session).await;
        });
    }
}

/// Does what the feed's program did before Node said `body`.
async fn act(name: &str, feed: &Hypercore, body: &Body) {
    match message(body) {
        Some(Message::Have(Have {
            start: 5,
            length: 2,
            ..
        })) if name.contains("two more") => {
            feed.append_batch(["later 0", "later 1"]).await.unwrap();
        }
        Some(Message::Have(Have { start: 10, .. })) if name == "sparse update" => {
            feed.append("eleventh").await.unwrap();
        }
        Some(Message::Unhave(Unhave { start: 1, .. })) => {
            feed.clear(1..2).await.unwrap();
        }
        _ => {}
    }
}

/// We are the clone. What the feed said is played, each answer once we have asked for it; we ask
/// for what Node's clone asked for, believe the answers, and end as it ended.
#[test]
fn as_the_clone_we_ask_what_node_asked() {
    for session in sessions() {
        println!("{}", session.name);
        run(as_clone(&session));
    }
}

async fn as_clone(session: &Session) {
    let name = session.name.as_str();
    let whole = name.contains("not live")
        || name.contains("two more")
        || name.contains("acks")
        || name.contains("off");
    let clone = Hypercore::options()
        .key(session.key_pair().public_key())
        .sparse(!whole)
        .open_memory()
        .await
        .unwrap();
    let mut options = session.options();
    options.download = (name == "download off").then_some(false);
    let mut stage = Stage::new(&clone, Role::Initiator, options);
    // Its program was there before the feed, and so asks about another region than the first.
    let waits = name == "second region";
    let mut running = waits.then(|| task::spawn(program(session, &clone)));

    for (from_clone, line) in session.lines() {
        match (from_clone, line) {
            (false, Line::Frame(_, Body::Message(Message::Data(data)))) if is_seek(name, &data) => {
                break;
            }
            (false, Line::Frame(frame, body)) => {
                if let Some(Message::Data(data)) = message(&body) {
                    ask(&mut stage, session, data).await;
                }
                stage.say(&frame).await;
            }
            // Waited for when its answer comes.
            (true, Line::Frame(_, Body::Message(Message::Request(_)))) => {
                running.get_or_insert_with(|| task::spawn(program(session, &clone)));
            }
            (true, Line::Frame(_, body)) => {
                if let Some(body) = ours(body) {
                    stage.hear(&format!("{body:?}"), |said| *said == body).await;
                }
            }
            (_, Line::End) => {}
        }
    }
    // Node's clone asks two blocks where byte 33 is, and needs only a proof; we ask one for it.
    if name == "sparse gets" {
        let is_byte = |said: &Body| {
            matches!(
                said,
                Body::Message(Message::Request(Request { bytes: 33, .. }))
            )
        };
        stage.hear("a request for byte 33", is_byte).await;
        running.expect("it has asked").cancel().await;
    } else if let Some(program) = running {
        soon("the program", program).await;
    }
    stage.finish(session).await;

    assert_eq!(clone.length(), session.clone_length);
    let has: Vec<_> = (0..clone.length())
        .filter(|&index| clone.has(index))
        .collect();
    assert_eq!(has, session.clone_has);
    if let Some(&last) = has.last() {
        assert_eq!(clone.audit().await.unwrap().valid, has.len() as u64);
        assert!(clone.get(last).await.is_ok());
    }
}

fn is_seek(name: &str, data: &Data) -> bool {
    name == "sparse gets" && data.value.is_none()
}

/// Waits for our request that `data` answers, and compares it with the one that Node made.
async fn ask(stage: &mut Stage, session: &Session, data: &Data) {
    let asks = |body: &Body| matches!(message(body), Some(Message::Request(request)) if request.index == data.index);
    let node = session
        .lines()
        .filter_map(|(from_clone, line)| match line {
            Line::Frame(_, body) if from_clone && asks(&body) => Some(body),
            _ => None,
        })
        .next()
        .expect("Node asked for what it got");
    // We ask for all thirty at once, so before anything was proven; Node for sixteen at a time.
    // Of two appended blocks either may be asked for first.
    let digest_differs = session.name.starts_with("thirty") || session.name.contains("two more");
    if digest_differs {
        stage.hear(&format!("{node:?}"), asks).await;
    } else {
        stage.hear(&format!("{node:?}"), |said| *said == node).await;
    }
}

/// What the clone's program did once it knew what the feed has.
fn program(session: &Session, clone: &Hypercore) -> impl Future<Output = ()> + use<> {
    let (name, clone) = (session.name.clone(), clone.clone());
    async move { ask_for(&name, &clone).await }
}

async fn ask_for(name: &str, clone: &Hypercore) {
    match name {
        "sparse gets" => {
            clone.get(7).await.unwrap();
            clone.get(2).await.unwrap();
            clone.seek(33).await.unwrap();
        }
        "sparse update" => {
            clone.update().await.unwrap();
            clone.update().await.unwrap();
        }
        name if name.starts_with("linear") => {
            clone.download(2..6).await.unwrap();
            let blocks = [clone.download(0..1), clone.download(8..10)];
            for block in blocks {
                block.await.unwrap();
            }
        }
        "clear announces unhave" => {
            clone.get(0).await.unwrap();
        }
        "second region" => {
            clone.get(1_048_576).await.unwrap();
            clone.get(0).await.unwrap();
        }
        _ => {}
    }
}
