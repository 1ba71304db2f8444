//! Attacks by those who can connect and know nothing.

use std::{
    io::Write,
    net::{Shutdown, TcpStream},
    thread,
    time::{Duration, Instant},
};

use hypercore::wire::{Body, Close, Open, discovery_key};

use crate::{
    attacker::{Attacker, connect, is_closed, is_closed_at_once, key},
    scaled,
    victim::Victim,
};

/// Says one of these and nothing more on each connection; the server must close all of them at once,
/// without an answer.
fn say(victim: &Victim, openings: &[Vec<u8>]) {
    let connections = openings.iter().map(|bytes| {
        let mut tcp = connect(victim.address());
        // It may have closed already.
        let _ = tcp.write_all(bytes);
        (tcp, bytes)
    });
    for (mut tcp, bytes) in connections.collect::<Vec<_>>() {
        assert!(is_closed_at_once(&mut tcp, 0), "{bytes:02x?}");
    }
}

#[test]
fn first_bytes_that_are_no_handshake() {
    Victim::new().suffers(|victim| {
        // Lengths without an end, of nothing, of more than a handshake has, and of 2^40.
        let mut openings = vec![
            vec![0x80, 0x80, 0x80],
            vec![0],
            vec![0x80, 0x00],
            vec![0x81, 0x04],
            vec![0x80, 0x80, 0x80, 0x80, 0x80, 0x20],
        ];
        // TLS.
        let mut hello = vec![0x16, 0x03, 0x01, 0x02, 0x00, 0x01, 0x00, 0x01];
        hello.resize(0x205, 3);
        openings.push(hello);
        for length in [1, 2, 31] {
            let mut message = vec![length];
            message.resize(1 + usize::from(length), 9);
            openings.push(message);
        }
        let mut browser = connect(victim.address());
        let request = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";
        browser.write_all(request).unwrap();
        say(victim, &openings);
        // That is the beginning of 71 bytes, for which there is time.
        assert!(is_closed(&mut browser, 0));
    });
}

/// The length is believed by nobody, and what follows it is not kept.
#[test]
fn a_long_handshake_message_that_goes_on_and_on() {
    Victim::new().suffers_within(8 << 20, |victim| {
        for _ in 0..scaled(10) {
            let mut tcp = connect(victim.address());
            let _ = tcp.write_all(&[0x80, 0x80, 0x80, 0x80, 0x80, 0x20]);
            while tcp.write_all(&[0; 65_536]).is_ok() {}
            // Or it just takes no more.
            assert!(is_closed_at_once(&mut tcp, 0));
        }
    });
}

#[test]
fn keys_of_low_order() {
    Victim::new().suffers(|victim| {
        let mut zero = vec![0; 59];
        zero[0] = 58;
        let mut one = zero.clone();
        one[1] = 1;
        say(victim, &[zero, one]);
    });
}

#[test]
fn connections_that_come_and_go() {
    Victim::new().suffers(|victim| {
        for round in 0..scaled(500) {
            let mut tcp = TcpStream::connect(victim.address()).unwrap();
            if round % 3 == 0 {
                let _ = tcp.write_all(&[58, 1, 2, 3]);
            }
            if round % 2 == 0 {
                let _ = tcp.shutdown(Shutdown::Write);
            }
        }
    });
}

/// One byte now and then does not put off the end, those beyond the limit are refused, and newcomers find
/// room.
#[test]
fn handshakes_that_never_end() {
    Victim::new().suffers_within(16 << 20, |victim| {
        let slow = (0..1000).map(|_| (connect(victim.address()), Instant::now()));
        let mut slow: Vec<_> = slow.collect();
        let last = Instant::now();
        while last.elapsed() < Duration::from_secs(8) {
            // One that is closed may show it with a delay.
            slow.retain_mut(|(tcp, _)| tcp.write_all(&[58]).is_ok());
            thread::sleep(Duration::from_secs(1));
        }
        assert!((200..=256).contains(&slow.len()), "{}", slow.len());
        Attacker::reader(victim.address());
        for (tcp, since) in &mut slow[1..] {
            assert!(is_closed(tcp, 0));
            let lasted = since.elapsed();
            assert!((9..=12).contains(&lasted.as_secs()), "{lasted:?}");
        }
    });
}

/// The oldest of them make room for whoever comes.
#[test]
fn more_handshakes_than_the_server_waits_for() {
    Victim::new().suffers_within(16 << 20, |victim| {
        let mut slow = Vec::new();
        for _ in 0..256 {
            slow.push(connect(victim.address()));
        }
        thread::sleep(Duration::from_millis(1500));
        for _ in 0..20 {
            let mut reader = Attacker::reader(victim.address());
            assert!(reader.receive().is_some(), "somebody honest finds room");
        }
    });
}

/// As many connections as there may be, each with a handshake behind it, and some more.
#[test]
fn connections_that_do_nothing() {
    Victim::new().suffers(|victim| {
        let count = scaled(200).min(1100);
        let idle: Vec<_> = (0..count)
            .map_while(|_| std::panic::catch_unwind(|| Attacker::new(victim.address())).ok())
            .collect();
        assert!(idle.len() >= count.min(1000), "{}", idle.len());
        thread::sleep(Duration::from_secs(1));
    });
}

/// Whatever is tried, it is as if the log were not here.
#[test]
fn capabilities_that_prove_nothing() {
    Victim::new().suffers(|victim| {
        let name = discovery_key(&key());
        let other = Attacker::new(victim.address()).capability();
        let mut swapped = Attacker::new(victim.address());
        let expected = swapped.expected_capability();
        swapped.open(1, name, Some(expected));
        let mut attackers = vec![swapped, Attacker::new(victim.address())];
        for (name, capability) in [
            (name, None),
            (name, Some([7; 32])),
            // That of another connection.
            (name, Some(other)),
            // A log that is not here.
            ([7; 32], None),
            ([7; 32], Some([7; 32])),
        ] {
            let mut attacker = Attacker::new(victim.address());
            attacker.open(1, name, capability);
            attackers.push(attacker);
        }
        // Ten thousand of another kind.
        for _ in 0..10 {
            let mut attacker = Attacker::new(victim.address());
            for number in 1..=1000 {
                let capability = Some([number as u8; 32]);
                let discovery_key = name;
                let open = Open {
                    discovery_key,
                    capability,
                };
                attacker.queue(number, Body::Open(open));
                attacker.queue(number, Body::Close(Close::default()));
            }
            attacker.flush();
            attackers.push(attacker);
        }
        for (index, attacker) in attackers.iter_mut().enumerate() {
            assert!(attacker.hears_nothing(), "attacker {index}");
        }
    });
}

#[test]
fn channels_of_logs_that_nobody_has() {
    Victim::new().suffers(|victim| {
        let mut attacker = Attacker::new(victim.address());
        let mut closed = false;
        for number in 1..=scaled(10_000) as u32 {
            let mut name = [0; 32];
            name[..4].copy_from_slice(&number.to_le_bytes());
            let open = Open {
                discovery_key: name,
                capability: None,
            };
            attacker.queue(number, Body::Open(open));
            if number % 256 == 0 {
                attacker.drain();
                closed = !attacker.flush();
            }
            if closed {
                break;
            }
        }
        assert!(attacker.is_closed_at_once(), "4,096 in a minute are enough");
    });
}

#[test]
fn keep_alives_without_end() {
    Victim::new().suffers(|victim| {
        let mut attacker = Attacker::new(victim.address());
        attacker.ping(20_000);
        attacker.flush();
        assert!(attacker.is_closed_at_once());
    });
}

/// Less than a stranger may send, and never all of it.
#[test]
fn frames_that_never_end() {
    Victim::new().suffers(|victim| {
        let holding: Vec<_> = (0..scaled(100).min(900))
            .map(|_| {
                let mut attacker = Attacker::new(victim.address());
                attacker.frame(65_000, &[1; 60_000]);
                attacker
            })
            .collect();
        thread::sleep(Duration::from_millis(500));
        let mut attacker = Attacker::new(victim.address());
        attacker.frame(1 << 20, &[0; 100]);
        let refused = attacker.is_closed_at_once();
        assert!(refused, "a stranger announces a megabyte");
        drop(holding);
    });
}
