//! Attacks by those who know the key of the log.

use std::{
    thread,
    time::{Duration, Instant},
};

use hypercore::{
    Bytes,
    wire::{
        Body, Cancel, Data, DataNode, Extension, Have, MAX_NUMBER, Message, Options, Request,
        Status, Unhave, Want,
    },
};

use crate::{
    attacker::Attacker,
    scaled,
    victim::{BLOCKS, Victim},
};

/// How many messages of a flood are sent at once.
const AT_ONCE: usize = 500;

/// Sends `count` messages and reads all answers; returns whether the server still listens.
fn flood(attacker: &mut Attacker, count: usize, message: impl Fn(u64) -> Message) -> bool {
    for index in 0..count {
        attacker.queue(1, Body::Message(message(index as u64)));
        if index % AT_ONCE == 0 {
            if !attacker.flush() {
                return false;
            }
            attacker.drain();
        }
    }
    attacker.flush()
}

fn have(start: u64, length: u64, bitfield: &[u8]) -> Message {
    Message::Have(Have {
        start,
        length,
        bitfield: (!bitfield.is_empty()).then(|| Bytes::copy_from_slice(bitfield)),
        ack: false,
    })
}

fn request(index: u64) -> Message {
    Message::Request(Request {
        index,
        ..Request::default()
    })
}

/// Messages that break a rule: each ends the connection it came on.
#[test]
fn messages_that_break_the_rules() {
    // As the bytes of a frame on channel 1: type, then body.
    let frames: [&[u8]; 12] = [
        &[0x1f],                                      // an extension message without a number
        &[0x19, 8, 1],                                // a Data with neither value nor nodes
        &[0x19, 8, 1, 0x22, 2, 1, 1],                 // a signature of two bytes
        &[0x19, 8, 1, 0x1a, 6, 8, 1, 0x12, 0, 24, 1], // a hash of no bytes
        &[0x13],                                      // a Have of nothing
        &[0x13, 8, 1, 16, 8, 0x1a, 1, 3],             // a bitfield that does not start at a byte
        &[0x13, 8, 0, 16, 8, 0x1a, 1, 0x80],          // one that is cut
        &[0x17, 8, 0x80, 0x00],                       // a number longer than needed
        &[0x17, 0x0b],                                // a group
        &[0x10, 0x0a, 1, 1],                          // an Open of a name of one byte
        &[0x13, 8, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x0f], // a Have of block 2^53 - 1
        &[0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x01], // a header beyond 31 bits
    ];
    Victim::new().suffers(|victim| {
        for frame in frames {
            let mut attacker = Attacker::reader(victim.address());
            attacker.frame(frame.len(), frame);
            assert!(attacker.is_closed_at_once(), "{frame:02x?}");
        }
    });
}

/// A few bytes that stand for 2^48 blocks, in a window of 2^20.
#[test]
fn bitfields_that_expand() {
    Victim::new().suffers_within(16 << 20, |victim| {
        let runs: [&[u8]; 3] = [
            &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x03],
            &[0xff, 0xff, 0xff, 0xff, 0x0f],
            &[0x03, 0xff, 0xff, 0xff, 0xff, 0x0f],
        ];
        for run in runs {
            let mut attacker = Attacker::reader(victim.address());
            attacker.send(have(0, 1 << 20, run));
            assert!(attacker.is_closed_at_once(), "{run:02x?}");
        }
    });
}

#[test]
fn ranges_as_long_as_there_are() {
    Victim::new().suffers_within(16 << 20, |victim| {
        let mut attacker = Attacker::reader(victim.address());
        let most = MAX_NUMBER / 4;
        assert!(flood(&mut attacker, scaled(20_000), |index| {
            match index % 3 {
                0 => have(index, most, &[]),
                1 => Message::Unhave(Unhave {
                    start: index,
                    length: most,
                }),
                _ => Message::Want(Want {
                    start: 0,
                    length: most / 8192 * 8192,
                }),
            }
        }));
        assert!(attacker.send(request(1)), "it is still served");
    });
}

/// Blocks far from each other, each of which takes memory of its own.
#[test]
fn single_blocks_here_and_there() {
    Victim::new().suffers_within(24 << 20, |victim| {
        let mut attacker = Attacker::reader(victim.address());
        let open = flood(&mut attacker, scaled(200_000), |index| {
            have(index << 25, 1, &[])
        });
        assert!(open, "only where it ends is remembered");
    });
}

/// Windows in which every other block is there.
#[test]
fn bitfields_of_noise() {
    Victim::new().suffers_within(24 << 20, |victim| {
        let mut attacker = Attacker::reader(victim.address());
        let noise = [&[0x80, 0x80, 0x08][..], &[0x55; 65_536]].concat();
        let open = flood(&mut attacker, scaled(500), |index| {
            have(index << 20, 1 << 20, &noise)
        });
        assert!(open, "only where it ends is remembered");
    });
}

/// The same of many, each of whom keeps to what one may make us remember.
#[test]
fn bitfields_of_many() {
    Victim::new().suffers(|victim| {
        let noise = [&[0x80, 0x80, 0x08][..], &[0x55; 65_536]].concat();
        let staying: Vec<_> = (0..scaled(30))
            .map(|_| {
                let mut attacker = Attacker::reader(victim.address());
                let open = flood(&mut attacker, 25, |index| {
                    have(index << 20, 1 << 20, &noise)
                });
                assert!(open, "that is no offence");
                attacker
            })
            .collect();
        drop(staying);
    });
}

#[test]
fn requests_of_one_who_reads_nothing() {
    Victim::new().suffers(|victim| {
        let mut attackers: Vec<_> = (0..scaled(10).min(100))
            .map(|_| Attacker::reader(victim.address()))
            .collect();
        for attacker in &mut attackers {
            attacker.tcp.set_nonblocking(true).unwrap();
            for index in 0..20_000 {
                attacker.queue(1, Body::Message(request(index % BLOCKS)));
            }
            attacker.flush();
        }
        thread::sleep(Duration::from_secs(2));
    });
}

/// One after the other asks for much, lets it wait, takes it, and stays.
#[test]
fn readers_who_have_all_and_stay() {
    Victim::new().suffers(|victim| {
        let staying: Vec<_> = (0..scaled(100).min(400))
            .map(|_| {
                let mut attacker = Attacker::reader(victim.address());
                for index in 0..BLOCKS {
                    attacker.queue(1, Body::Message(request(index)));
                }
                attacker.flush();
                thread::sleep(Duration::from_millis(20));
                let mut came = 0;
                while came < BLOCKS {
                    let body = attacker.receive().expect("it answers");
                    came += u64::from(matches!(body, Body::Message(Message::Data(_))));
                }
                attacker
            })
            .collect();
        drop(staying);
    });
}

#[test]
fn requests_for_blocks_that_nobody_has() {
    Victim::new().suffers_within(16 << 20, |victim| {
        let mut attacker = Attacker::reader(victim.address());
        let mut refused = 0;
        for index in 0..scaled(20_000) as u64 {
            attacker.queue(1, Body::Message(request(BLOCKS + index)));
        }
        attacker.queue(1, Body::Message(request(3)));
        assert!(attacker.flush(), "that is no offence");
        loop {
            match attacker.receive().expect("it answers") {
                Body::Message(Message::Unhave(_)) => refused += 1,
                Body::Message(Message::Data(data)) => break assert_eq!(data.index, 3),
                _ => {}
            }
        }
        assert!((64..1000).contains(&refused), "{refused} answers");
    });
}

/// Each answer is a bitfield made for it.
#[test]
fn wants_without_end() {
    Victim::new().suffers_within(16 << 20, |victim| {
        for (step, most) in [(0, 6), (1, 150)] {
            let mut attacker = Attacker::reader(victim.address());
            attacker.tcp.set_nonblocking(true).unwrap();
            for index in 0..scaled(50_000) as u64 {
                let want = Want {
                    start: (index * step) << 20,
                    length: 1 << 20,
                };
                attacker.queue(1, Body::Message(Message::Want(want)));
            }
            attacker.flush();
            let timeout = Some(Duration::from_secs(1));
            attacker.tcp.set_nonblocking(false).unwrap();
            attacker.tcp.set_read_timeout(timeout).unwrap();
            let started = Instant::now();
            let mut answers = 0;
            while started.elapsed() < Duration::from_secs(3) {
                if let Some(Body::Message(Message::Have(_))) = attacker.receive() {
                    answers += 1;
                }
            }
            assert!((1..=most).contains(&answers), "{answers} answers");
        }
    });
}

#[test]
fn messages_that_cost_nothing_to_send() {
    Victim::new().suffers_within(16 << 20, |victim| {
        let mut attacker = Attacker::reader(victim.address());
        let open = flood(&mut attacker, scaled(50_000), |index| match index % 5 {
            0 => Message::Status(Status {
                uploading: index % 2 == 0,
                downloading: index % 3 == 0,
            }),
            1 => Message::Options(Options {
                extensions: (0..20).map(|name| format!("{name}-{index}")).collect(),
                ack: index % 2 == 0,
            }),
            2 => Message::Extension(Extension {
                id: index,
                payload: Bytes::from_static(&[7; 100]),
            }),
            3 => Message::Cancel(Cancel {
                index,
                ..Cancel::default()
            }),
            _ => have(index % BLOCKS, 1, &[]),
        });
        assert!(open, "none of that is an offence");
    });
}

/// On the channel and on the connection, each with names of its own.
#[test]
fn names_of_extensions_of_many() {
    Victim::new().suffers(|victim| {
        let declare = |attacker: &mut Attacker, names: usize, length: usize| {
            for channel in [0, 1] {
                let name = |name| format!("{name:0length$}");
                let options = Options {
                    extensions: (0..names).map(name).collect(),
                    ack: false,
                };
                attacker.queue(channel, Body::Message(Message::Options(options)));
            }
            attacker.flush()
        };
        let mut staying: Vec<_> = (0..scaled(60))
            .map(|_| {
                let mut attacker = Attacker::reader(victim.address());
                assert!(declare(&mut attacker, 64, 128), "that is no offence");
                attacker
            })
            .collect();
        for (names, length) in [(65, 20), (1, 129)] {
            let mut attacker = Attacker::reader(victim.address());
            declare(&mut attacker, names, length);
            assert!(attacker.is_closed_at_once(), "{names} names of {length}");
        }
        for attacker in &mut staying {
            attacker.drain();
            assert!(attacker.send(request(0)), "it is still open");
        }
    });
}

#[test]
fn long_messages_of_extensions() {
    Victim::new().suffers(|victim| {
        let mut attacker = Attacker::reader(victim.address());
        let open = flood(&mut attacker, scaled(500), |id| {
            Message::Extension(Extension {
                id,
                payload: Bytes::from_static(&[7; 60_000]),
            })
        });
        assert!(open, "what nobody knows is dropped");
    });
}

/// More than one who only asks has reason to send, and never all of it.
#[test]
fn long_frames_that_never_end() {
    Victim::new().suffers(|victim| {
        let holding: Vec<_> = (0..scaled(100).min(900))
            .map(|_| {
                let mut attacker = Attacker::reader(victim.address());
                attacker.frame(260_000, &[0x19; 250_000]);
                attacker
            })
            .collect();
        let mut attacker = Attacker::reader(victim.address());
        attacker.frame(8 << 20, &[0x19; 100]);
        assert!(
            attacker.is_closed_at_once(),
            "8 MiB are announced to one who asks for nothing"
        );
        drop(holding);
    });
}

#[test]
fn blocks_that_nobody_asked_for() {
    Victim::new().suffers(|victim| {
        let mut attacker = Attacker::reader(victim.address());
        let node = DataNode {
            index: 1,
            hash: [1; 32],
            size: 1,
        };
        let open = flood(&mut attacker, 100, |index| {
            Message::Data(Data {
                index,
                value: Some(Bytes::from_static(&[7; 10_000])),
                nodes: vec![node; 100],
                signature: Some([7; 64]),
            })
        });
        assert!(!open || attacker.is_closed_at_once());
    });
}

/// The same log again and again, under new numbers.
#[test]
fn one_log_opened_many_times() {
    Victim::new().suffers(|victim| {
        let mut attacker = Attacker::reader(victim.address());
        let capability = attacker.capability();
        let name = hypercore::wire::discovery_key(&crate::attacker::key());
        attacker.open(2, name, Some(capability));
        assert!(attacker.is_closed_at_once());

        // Closed and opened, again and again.
        let mut attacker = Attacker::reader(victim.address());
        for number in 1..scaled(1_000) as u32 {
            attacker.queue(number, Body::Close(hypercore::wire::Close::default()));
            let open = hypercore::wire::Open {
                discovery_key: name,
                capability: Some(capability),
            };
            attacker.queue(number + 1, Body::Open(open));
            if !attacker.flush() {
                break;
            }
            attacker.drain();
        }
    });
}
