use std::time::Instant;

use hypercore_wire::{Body, Event, Frame, Message, Session, SessionOptions, discovery_key};
use serde_json::{Value, json};

use crate::support::{array, encoded, events, frames, list, plain, text, to_json, vectors};

/// What one side sent: messages as Node decoded them, and bytes.
fn side(session: &Value, who: &str) -> (Vec<Value>, Vec<u8>) {
    let log = list(&session["log"])
        .iter()
        .filter(|entry| entry["from"] == who);
    let bytes = list(&session["bytes"])
        .iter()
        .filter(|entry| entry[0] == who && entry[1] != "end");
    let bytes = bytes.flat_map(|entry| hex::decode(text(&entry[1])).expect("hexadecimal digits"));
    (log.cloned().collect(), bytes.collect())
}

fn name(frame: &Frame) -> String {
    match &frame.body {
        Body::Open(_) => "Open".to_owned(),
        Body::Close(_) => "Close".to_owned(),
        Body::Message(message) => format!("{:?}", message.kind()),
    }
}

#[test]
fn every_frame_is_read_and_written_alike() {
    let vectors = vectors("replication.json");
    let mut count = 0;
    for session in list(&vectors["sessions"]) {
        for who in ["initiator", "responder"] {
            let (log, bytes) = side(session, who);
            let frames = frames(&bytes);
            assert_eq!(frames.len(), log.len(), "{}", session["name"]);
            for (frame, entry) in frames.iter().zip(&log) {
                assert_eq!(json!(frame.channel), entry["channel"]);
                assert_eq!(name(frame), text(&entry["name"]));
                if let Body::Message(Message::Extension(extension)) = &frame.body {
                    assert_eq!(hex::encode(&extension.payload), extension_payload(entry));
                } else {
                    assert_eq!(to_json(&frame.body), entry["message"]);
                }
                count += 1;
            }
            let again = frames
                .into_iter()
                .flat_map(|frame| encoded(frame.channel, frame.body));
            assert_eq!(
                again.collect::<Vec<_>>(),
                bytes,
                "{}: {who}",
                session["name"]
            );
        }
    }
    assert!(count > 200, "only {count} frames");
}

/// The payload of a recorded extension message, which starts with the number of the extension.
fn extension_payload(entry: &Value) -> String {
    let message = text(&entry["message"]["hex"]);
    message
        .strip_prefix("00")
        .expect("the only extension")
        .to_owned()
}

/// The events a session makes of what `who` sent, received in chunks of `size`.
fn replay(recorded: &Value, who: &str, size: usize, declare: bool) -> (Session, Vec<Event>) {
    let now = Instant::now();
    let key = array(&recorded["key"]);
    let mut session = plain(now, |options: &mut SessionOptions| options.timeout = None);
    let channel = session.open(&key).expect("a channel");
    if declare {
        let extensions = vec!["greet".to_owned()];
        let options = hypercore_wire::Options {
            extensions,
            ack: false,
        };
        session
            .send(channel, &Message::Options(options))
            .expect("an open channel");
    }
    let mut all = Vec::new();
    for chunk in side(recorded, who).1.chunks(size) {
        session.receive(now, chunk).expect("an honest remote");
        all.extend(events(&mut session));
    }
    (session, all)
}

#[test]
fn any_chunking_gives_the_same_events() {
    let vectors = vectors("replication.json");
    for recorded in list(&vectors["sessions"]) {
        for who in ["initiator", "responder"] {
            let (session, whole) = replay(recorded, who, usize::MAX, true);
            let channel = whole.iter().find_map(|event| match event {
                Event::Opened { channel } => Some(*channel),
                _ => None,
            });
            let channel = channel.expect("the channel opens");
            // One event for every message, the Open and the Close too.
            assert_eq!(
                whole.len(),
                side(recorded, who).0.len(),
                "{}",
                recorded["name"]
            );
            for (event, entry) in whole.iter().zip(&side(recorded, who).0) {
                match event {
                    Event::Opened { .. } => assert_eq!(entry["name"], "Open"),
                    Event::Closed {
                        discovery_key: closed,
                        ..
                    } => {
                        assert_eq!(entry["name"], "Close");
                        assert_eq!(*closed, discovery_key(&array(&recorded["key"])));
                    }
                    Event::Extension {
                        channel: on,
                        name,
                        payload,
                    } => {
                        assert_eq!((*on, name.as_str()), (Some(channel), "greet"));
                        assert_eq!(hex::encode(payload), extension_payload(entry));
                    }
                    Event::Message {
                        channel: on,
                        message,
                    } => {
                        assert_eq!(*on, channel);
                        let body = Body::Message(message.clone());
                        assert_eq!(to_json(&body), entry["message"]);
                    }
                    other => panic!("{other:?}"),
                }
            }
            for size in [1, 2, 3, 7, 64, 1000] {
                let (again, events) = replay(recorded, who, size, true);
                assert_eq!(events, whole, "{} in chunks of {size}", recorded["name"]);
                assert_eq!(again.outgoing(), session.outgoing());
            }
        }
    }
}

#[test]
fn messages_of_extensions_we_did_not_declare_are_dropped() {
    let vectors = vectors("replication.json");
    let recorded = list(&vectors["sessions"]).iter().find(|session| {
        list(&session["log"])
            .iter()
            .any(|entry| entry["name"] == "Extension")
    });
    let recorded = recorded.expect("a session with an extension");
    let count = |declare| {
        let events = replay(recorded, "responder", usize::MAX, declare).1;
        events
            .iter()
            .filter(|event| matches!(event, Event::Extension { .. }))
            .count()
    };
    assert_eq!((count(true), count(false)), (1, 0));
}
