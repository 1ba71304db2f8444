//! The wire protocol without a network: two sessions, and a loop that carries bytes between them.
//!
//! ```text
//! cargo run --release --example wire_alone
//! ```

use std::time::Instant;

use hypercore_wire::{
    Error, Event, Message, Request, Role, Session, SessionOptions, discovery_key,
};

fn main() -> Result<(), Error> {
    let key = [7; 32]; // of the log both talk about
    let mut alice = Session::new(SessionOptions::new(Role::Initiator)?, Instant::now())?;
    let mut bob = Session::new(SessionOptions::new(Role::Responder)?, Instant::now())?;

    let channel = alice.open(&key)?;
    pump(&mut alice, &mut bob)?;
    listen(&mut bob, &key)?;

    let request = Request {
        index: 42,
        ..Request::default()
    };
    alice.send(channel, &Message::Request(request))?;
    pump(&mut alice, &mut bob)?;
    listen(&mut bob, &key)?;

    let (sent, received) = (alice.bytes_sent(), alice.bytes_received());
    println!("alice: sent {sent} bytes, received {received}");
    Ok(())
}

/// What Bob makes of what he hears.
fn listen(bob: &mut Session, key: &[u8; 32]) -> Result<(), Error> {
    while let Some(event) = bob.poll_event() {
        match event {
            Event::Handshake { .. } => println!("bob: the line is encrypted"),
            // So far he has only heard a hash of the key.
            Event::RemoteOpened { discovery_key: it } if it == discovery_key(key) => {
                println!("bob: a log that I know, {}", hex::encode(it));
                bob.open(key)?;
            }
            Event::RemoteOpened { discovery_key } => bob.reject(&discovery_key),
            Event::Opened { .. } => println!("bob: alice has shown that she knows the key"),
            Event::Message {
                message: Message::Request(request),
                ..
            } => println!("bob: alice asks for block {}", request.index),
            _ => {}
        }
    }
    Ok(())
}

/// Carries bytes both ways until there are none. A driver does the same with a socket.
fn pump(alice: &mut Session, bob: &mut Session) -> Result<(), Error> {
    while !(alice.outgoing().is_empty() && bob.outgoing().is_empty()) {
        carry(alice, bob)?;
        carry(bob, alice)?;
    }
    Ok(())
}

fn carry(from: &mut Session, to: &mut Session) -> Result<(), Error> {
    let bytes = from.outgoing().to_vec();
    from.sent(Instant::now(), bytes.len());
    to.receive(Instant::now(), &bytes)
}
