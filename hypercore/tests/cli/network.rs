//! `serve` and `clone`, over loopback.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::process::{KEY, Process, Scene};

/// An address where nobody listens.
fn dead_address() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().to_string()
}

/// A core of many blocks: `0`, `1`, ... each padded to `size` bytes.
fn many(scene: &Scene, dir: &str, count: usize, size: usize) {
    scene.core(dir, &[]);
    let lines: String = (0..count).map(|i| format!("{i:>size$}\n")).collect();
    scene
        .feed(["append", dir, "--lines"], lines.as_bytes())
        .ok();
}

fn names(events: &[Value]) -> Vec<&str> {
    events
        .iter()
        .filter_map(|event| event["event"].as_str())
        .collect()
}

/// Waits until each of these blocks was told to be stored.
fn await_downloads(process: &Process, blocks: std::ops::Range<u64>) {
    let mut missing: BTreeSet<u64> = blocks.collect();
    while !missing.is_empty() {
        let index = process.event("download")["index"].as_u64().unwrap();
        missing.remove(&index);
    }
}

#[test]
fn everything() {
    let scene = Scene::new();
    scene.core("log", &["one", "", "three"]);
    let (server, address) = scene.serve("log", &[]);
    let key = format!("hyper://{KEY}");
    let done = scene
        .run(["clone", &key, "copy", "--json", "--connect", &address])
        .ok();
    let events = done.events();
    assert_eq!(
        events.last().unwrap(),
        &json!({"event": "synced", "length": 3, "byteLength": 8, "downloaded": 3})
    );
    assert_eq!(
        events[0],
        json!({"event": "peer-open", "peer": address}),
        "{events:?}"
    );
    assert!(!names(&events).contains(&"download"), "only with --live");

    let served = server.stop().ok().events();
    assert_eq!(names(&served), ["peer-open", "peer-close"]);
    assert_eq!(served[0]["peer"], served[1]["peer"]);
    assert!(served[1]["reason"].is_string());

    assert_eq!(scene.run(["cat", "copy"]).ok().stdout, b"onethree");
    let (log, copy) = (scene.files("log"), scene.files("copy"));
    for file in ["key", "data", "tree"] {
        assert_eq!(log[file], copy[file], "{file}");
    }
    assert!(!copy.contains_key("secret_key"));
}

#[test]
fn everything_for_people() {
    let scene = Scene::new();
    scene.core("log", &["one", "two"]);
    let server = scene.start(["serve", "log"]);
    let mut words = String::new();
    // The last word is the address.
    while !words.contains("--connect ") {
        words += &server.text();
    }
    assert!(words.contains("Serving 2 blocks of `log`") && words.contains(KEY));
    let address = words.split_whitespace().next_back().unwrap();
    let done = scene.run(["clone", KEY, "copy", "--connect", address]).ok();
    assert_eq!(done.text(), "`copy` is complete: 2 blocks, 6 bytes.\n");
    server.stop().ok();
}

/// The key in z-base-32, and a copy that is served on.
#[test]
fn a_copy_of_a_copy() {
    let scene = Scene::new();
    scene.core("log", &["a", "b"]);
    let (server, address) = scene.serve("log", &[]);
    scene
        .run(["clone", KEY, "copy", "--connect", &address])
        .ok();
    server.stop().ok();

    let (server, address) = scene.serve("copy", &[]);
    let z_base_32 = "yqooxx9u3aemh8mo5wcqq16yufu6jitouq1o4za751dger1igghy";
    scene
        .run(["clone", z_base_32, "again", "--connect", &address])
        .ok();
    assert_eq!(scene.run(["cat", "again"]).ok().stdout, b"ab");
    server.stop().ok();
}

#[test]
fn an_empty_core() {
    let scene = Scene::new();
    scene.core("log", &[]);
    let (_server, address) = scene.serve("log", &[]);
    let done = scene.run(["clone", KEY, "copy", "--json", "--connect", &address]);
    assert_eq!(
        done.ok().json(),
        json!({"event": "synced", "length": 0, "byteLength": 0, "downloaded": 0})
    );
}

/// What was missed is fetched by the next run, and a run with nothing to fetch ends, too.
#[test]
fn continued() {
    let scene = Scene::new();
    scene.core("log", &["a", "b"]);
    for expected in ["ab", "abc", "abc"] {
        let (server, address) = scene.serve("log", &[]);
        scene
            .run(["clone", KEY, "copy", "--connect", &address])
            .ok();
        server.stop().ok();
        assert_eq!(scene.run(["cat", "copy"]).ok().text(), expected);
        if expected == "ab" {
            scene.run(["append", "log", "c"]).ok();
        }
    }
}

#[test]
fn sparse() {
    let scene = Scene::new();
    many(&scene, "log", 100, 10);
    let (_server, address) = scene.serve("log", &[]);
    let clone = |dir: &str, flags: &[&str]| {
        let args = [
            "clone",
            KEY,
            dir,
            "--json",
            "--sparse",
            "--connect",
            &address,
        ];
        scene.run(args.iter().chain(flags)).ok().json()
    };
    let synced = |downloaded: u64| json!({"event": "synced", "length": 100, "byteLength": 1000, "downloaded": downloaded});
    assert_eq!(
        clone("copy", &["--range", "3..5", "--range", "50..60"]),
        synced(12)
    );
    let info = scene.run(["info", "copy", "--json"]).ok().json();
    assert_eq!(
        (&info["length"], &info["downloaded"]),
        (&json!(100), &json!(12))
    );
    assert_eq!(scene.run(["get", "copy", "59"]).ok().text().trim(), "59");
    scene
        .run(["get", "copy", "60"])
        .fails(1, &["block 60 is not stored"]);
    scene.run(["seek", "copy", "700"]).fails(1, &["not known"]);

    assert_eq!(clone("copy", &["--range", "98.."]), synced(14));
    assert_eq!(clone("none", &[]), synced(0));
}

/// Whatever was cleared is fetched again.
#[test]
fn cleared_blocks() {
    let scene = Scene::new();
    scene.core("log", &["a", "b", "c"]);
    let (_server, address) = scene.serve("log", &[]);
    for _ in 0..2 {
        scene
            .run(["clone", KEY, "copy", "--connect", &address])
            .ok();
        assert_eq!(scene.run(["cat", "copy"]).ok().stdout, b"abc");
        scene.run(["clear", "copy", "0", "2"]).ok();
    }
}

#[test]
fn from_two_peers_that_have_a_half_each() {
    let scene = Scene::new();
    many(&scene, "log", 400, 50);
    let (server, address) = scene.serve("log", &[]);
    let halves = [("a", "0..200"), ("b", "200..400")].map(|(dir, range)| {
        let args = [
            "clone",
            KEY,
            dir,
            "--connect",
            &address,
            "--sparse",
            "--range",
            range,
        ];
        scene.run(args).ok();
        scene.serve(dir, &[])
    });
    server.stop().ok();
    // Addresses may follow each other, wherever they stand.
    let done = scene.run([
        "clone",
        "--connect",
        &halves[0].1,
        KEY,
        "copy",
        &halves[1].1,
        "--json",
    ]);
    assert_eq!(done.ok().json()["downloaded"], 400);
    assert!(scene.files("copy")["data"] == scene.files("log")["data"]);
    // A served copy is not changed by those who come for it.
    for (server, _) in halves {
        server.stop().ok();
    }
    assert_eq!(
        scene.run(["info", "a", "--json"]).ok().json()["downloaded"],
        200
    );
}

#[test]
fn live() {
    let scene = Scene::new();
    scene.core("log", &["a"]);
    let (mut server, address) = scene.serve("log", &["--lines"]);
    let copy = scene.start([
        "clone",
        KEY,
        "copy",
        "--json",
        "--live",
        "--connect",
        &address,
    ]);
    await_downloads(&copy, 0..1);
    assert_eq!(copy.event("synced")["length"], 1);
    for (length, lines) in [(2, "b\n"), (4, "c\nd\n")] {
        server.say(lines);
        assert_eq!(server.event("append")["length"], length);
        assert_eq!(copy.event("append")["length"], length);
        await_downloads(&copy, length - lines.len() as u64 / 2..length);
    }
    server.hush();
    // The end of its input is not the end of the server.
    let late = scene.run(["clone", KEY, "late", "--connect", &address]);
    late.ok();
    copy.stop().ok();
    server.stop().ok();
    assert_eq!(scene.run(["cat", "copy"]).ok().stdout, b"abcd");
    assert_eq!(scene.run(["cat", "log"]).ok().stdout, b"abcd");
}

/// Nothing but the length is followed.
#[test]
fn live_and_sparse() {
    let scene = Scene::new();
    scene.core("log", &[]);
    let (mut server, address) = scene.serve("log", &["--lines"]);
    let args = [
        "clone",
        KEY,
        "copy",
        "--json",
        "--live",
        "--sparse",
        "--connect",
        &address,
    ];
    let copy = scene.start(args);
    copy.event("peer-open");
    for length in 1..4 {
        server.say("line\n");
        assert_eq!(copy.event("append")["length"], length);
    }
    copy.signal("-INT");
    let done = copy.end().ok();
    assert!(!names(&done.events()).contains(&"download"));
    let info = scene.run(["info", "copy", "--json"]).ok().json();
    assert_eq!(
        (&info["length"], &info["downloaded"]),
        (&json!(3), &json!(0))
    );
}

/// The command that `serve` prints is one that works where it is said to.
#[test]
fn where_a_server_is_reached() {
    let scene = Scene::new();
    scene.core("log", &["a"]);
    let told = |flags: &[&str]| {
        let server = scene.start(["serve", "log"].iter().chain(flags));
        let lines = [server.text(), server.text()].concat();
        (lines + &server.stop().ok().stderr).replace(KEY, "KEY")
    };
    let words = told(&[]);
    for part in [
        " on 127.0.0.1:",
        "In another terminal:\n  hypercore clone KEY DIR --connect 127.0.0.1:",
        "\nFor other machines: --announce, or --listen 0.0.0.0:PORT\n",
    ] {
        assert!(words.contains(part), "no {part:?} in {words}");
    }
    let words = told(&["--listen", "0.0.0.0:0"]);
    let part = "Elsewhere:\n  hypercore clone KEY DIR --connect ";
    assert!(words.contains(part), "{words}");
    assert!(!words.contains("--connect 0.0.0.0"), "{words}");
    assert!(!words.contains("other machines"), "{words}");
    let words = told(&["--announce"]);
    assert!(
        words.ends_with("Elsewhere:\n  hypercore clone KEY DIR\n"),
        "{words}"
    );
}

/// A live clone calls a lost peer again.
#[test]
fn live_through_a_restart() {
    let scene = Scene::new();
    scene.core("log", &["a"]);
    let (server, address) = scene.serve("log", &[]);
    let copy = scene.start([
        "clone",
        KEY,
        "copy",
        "--json",
        "--live",
        "--connect",
        &address,
    ]);
    copy.event("synced");
    server.stop().ok();
    copy.event("peer-close");
    scene.run(["append", "log", "b"]).ok();
    let (_server, _) = scene.serve("log", &["--listen", &address]);
    await_downloads(&copy, 1..2);
    copy.stop().ok();
}

/// Another address of the same server is not another peer, and another server is.
#[test]
fn one_peer_at_two_addresses() {
    let scene = Scene::new();
    scene.core("log", &["a"]);
    let (mut server, address) = scene.serve("log", &["--lines"]);
    let same = address.replace("127.0.0.1", "localhost");
    let live = ["--json", "--live", "--connect", &address];
    let first = ["clone", KEY, "other", "--connect", &address];
    scene.run(first).ok();
    let (_other, other) = scene.serve("other", &[]);
    for (index, (second, peers)) in [(&same, 1), (&other, 2)].into_iter().enumerate() {
        let dir = format!("copy{index}");
        let clone = ["clone", KEY, &dir, "--connect", second];
        let copy = scene.start(clone.iter().chain(&live));
        copy.event("peer-open");
        copy.event("peer-open");
        copy.event("synced");
        server.say("more\n");
        assert_eq!(copy.event("progress")["peers"], peers);
        copy.stop().ok();
    }
}

#[test]
fn nobody_listens() {
    let scene = Scene::new();
    let (a, b) = (dead_address(), dead_address());
    let words = ["no peer", KEY, &a, &b, "nobody listens there"];
    for flags in [&[][..], &["--live"]] {
        let args = [
            "clone",
            KEY,
            "copy",
            "--json",
            "--connect",
            &a,
            "--connect",
            &b,
        ];
        scene.run(args.iter().chain(flags)).fails(1, &words);
        // Were the key wrong, it would be in the way of the right one.
        assert!(!scene.path("copy").exists());
    }
}

/// One that is not there does not keep the others from being used.
#[test]
fn one_of_two_is_there() {
    let scene = Scene::new();
    scene.core("log", &["a"]);
    let (_server, address) = scene.serve("log", &[]);
    let args = [
        "clone",
        KEY,
        "copy",
        "--connect",
        &dead_address(),
        "--connect",
        &address,
    ];
    scene.run(args).ok();
}

/// Who has another core says nothing about this one.
#[test]
fn a_wrong_key() {
    let scene = Scene::new();
    scene.run(["create", "log"]).ok();
    let (_server, address) = scene.serve("log", &[]);
    scene
        .run(["clone", KEY, "copy", "--connect", &address])
        .fails(1, &[&address, "does not seem to have this core", KEY]);
}

/// Something that is no peer at all.
#[test]
fn a_stranger() {
    use std::io::Write;
    let scene = Scene::new();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let copy = scene.start(["clone", KEY, "copy", "--connect", &address]);
    let (mut stream, _) = listener.accept().unwrap();
    stream
        .write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        .unwrap();
    copy.end().fails(1, &["no peer", &address]);
}

/// The only peer dies halfway, when nothing is on the way; the next run goes on from there.
#[test]
fn a_peer_that_dies() {
    let scene = Scene::new();
    many(&scene, "log", 300, 100);
    let (server, address) = scene.serve("log", &[]);
    let half = [
        "clone",
        KEY,
        "half",
        "--connect",
        &address,
        "--sparse",
        "--range",
        "0..200",
    ];
    scene.run(half).ok();
    server.stop().ok();

    let (server, address) = scene.serve("half", &[]);
    let copy = scene.start([
        "clone",
        KEY,
        "copy",
        "--json",
        "--live",
        "--connect",
        &address,
    ]);
    await_downloads(&copy, 0..200);
    server.kill();
    let done = copy.end();
    assert!(!names(&done.events()).contains(&"synced"));
    let words = ["100 blocks of 300 are missing: 200..300", &address, "again"];
    done.fails(6, &words);

    let (_server, address) = scene.serve("log", &[]);
    let done = scene
        .run(["clone", KEY, "copy", "--json", "--connect", &address])
        .ok();
    assert_eq!(done.json()["downloaded"], 300);
}

/// Goes between a clone and a server, and cuts the first connection after `count` bytes of the
/// server's.
fn cut_once(server: &str, count: u64) -> String {
    cut(server, vec![count])
}

/// The same with one connection after the other.
fn cut(server: &str, counts: Vec<u64>) -> String {
    use std::{
        io::{Read, copy},
        net::{TcpListener, TcpStream},
        thread::spawn,
    };
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let server = server.to_owned();
    spawn(move || {
        for &limit in counts.iter().chain(&[u64::MAX]) {
            let (near, _) = listener.accept().unwrap();
            let far = TcpStream::connect(&server).unwrap();
            let (mut from, mut to) = (near.try_clone().unwrap(), far.try_clone().unwrap());
            // The ends of the connections are the ends of these.
            spawn(move || copy(&mut from, &mut to));
            let _ = copy(&mut (&far).take(limit), &mut &near);
            for stream in [near, far] {
                let _ = stream.shutdown(std::net::Shutdown::Both);
            }
        }
    });
    address
}

#[test]
fn a_peer_that_the_network_lost_is_called_again() {
    let scene = Scene::new();
    many(&scene, "log", 300, 1000);
    let (_server, address) = scene.serve("log", &[]);
    let address = cut_once(&address, 100_000);
    let done = scene
        .run(["clone", KEY, "copy", "--json", "--connect", &address])
        .ok();
    assert_eq!(done.json()["downloaded"], 300);
    let words = format!("{address} was lost");
    assert!(done.stderr.contains(&words), "{}", done.stderr);
    assert!(done.stderr.contains("calling again"), "{}", done.stderr);
}

/// Also in the handshake, at first and once it is back.
#[test]
fn a_peer_that_is_lost_again_and_again() {
    let scene = Scene::new();
    many(&scene, "log", 300, 1000);
    let (_server, address) = scene.serve("log", &[]);
    let cut_off = cut(&address, vec![0, 20, 100_000, 0, 150]);
    let line = format!("hyper://{KEY}@{cut_off}/copy");
    let done = scene.run(["receive", &line, "--json"]).ok();
    assert_eq!(done.json()["length"], 300);
    let words = format!("{cut_off} was lost");
    let times = done.stderr.matches(&words).count();
    assert_eq!(times, 5, "{}", done.stderr);
    // A clone does not know that its peer ever was one.
    let cut_off = cut_once(&address, 20);
    let words = format!("{cut_off}: the connection was cut off");
    scene
        .run(["clone", KEY, "other", "--connect", &cut_off])
        .fails(1, &[&words]);
}

/// What reads over the network waits for it, too.
#[test]
fn reading_goes_on_with_a_peer_that_was_lost() {
    let scene = Scene::new();
    many(&scene, "log", 300, 10_000);
    let whole = scene.run(["cat", "log"]).ok().stdout;
    let (_server, address) = scene.serve("log", &[]);
    for arguments in [&["cat", KEY][..], &["cat", KEY, "--bytes", "0.."]] {
        let cut = cut_once(&address, 1_000_000);
        let flags = ["--connect", &cut];
        let done = scene.run(arguments.iter().chain(&flags)).ok();
        assert!(done.stdout == whole, "{arguments:?}");
        // As `clone` says it, and not as a line of a log.
        let words = format!("{cut} was lost (");
        assert!(done.stderr.starts_with(&words), "{}", done.stderr);
        assert!(done.stderr.contains("calling again"), "{}", done.stderr);
    }
    // Before a single block is here.
    let cut = cut_once(&address, 2_000);
    let done = scene.run(["get", KEY, "299", "--connect", &cut]).ok();
    assert_eq!(done.stdout, whole[299 * 10_000..]);
}

/// One that follows a log waits for whoever shares it, and says so.
#[test]
fn nobody_listens_yet() {
    let scene = Scene::new();
    let address = dead_address();
    let line = format!("hyper://{KEY}@{address}/app.log?live");
    let receiver = scene.start(["receive", &line, "copy.log"]);
    let words = format!("{address}: nobody listens there; calling again");
    // After a line of what it is going to do.
    let told = [receiver.complaint(), receiver.complaint()].concat();
    assert!(told.contains(&words), "{told}");
    receiver.stop().ok();
}

/// A disk that is full is not a peer's fault.
#[cfg(target_os = "linux")]
#[test]
fn there_is_no_room_for_a_clone() {
    let scene = Scene::new();
    many(&scene, "log", 300, 1000);
    let (_server, address) = scene.serve("log", &[]);
    // No file may have more than 64 KiB.
    let script = format!(
        "trap '' XFSZ; ulimit -f 128; exec {} clone {KEY} copy --connect {address}",
        env!("CARGO_BIN_EXE_hypercore")
    );
    let done = std::process::Command::new("sh")
        .args(["-c", &script])
        .current_dir(scene.path("."))
        .env("XDG_STATE_HOME", scene.path("state"))
        .env("XDG_CONFIG_HOME", scene.path("no-config"))
        .output()
        .unwrap();
    let told = String::from_utf8(done.stderr).unwrap();
    assert_eq!(done.status.code(), Some(1), "{told}");
    assert!(told.contains("of the core in `copy`"), "{told}");
    assert!(!told.contains("peer"), "{told}");
}

/// An interrupted clone says what is missing, and goes on later.
#[test]
fn interrupted() {
    let scene = Scene::new();
    many(&scene, "log", 300, 100);
    let (server, address) = scene.serve("log", &[]);
    let half = [
        "clone",
        KEY,
        "half",
        "--connect",
        &address,
        "--sparse",
        "--range",
        "100..300",
    ];
    scene.run(half).ok();
    server.stop().ok();

    let (_half, address) = scene.serve("half", &[]);
    for signal in ["-TERM", "-INT"] {
        let copy = scene.start(["clone", KEY, "copy", "--json", "--connect", &address]);
        copy.event("peer-open");
        while copy.event("progress")["downloaded"] != 200 {}
        copy.signal(signal);
        copy.end()
            .fails(6, &["interrupted", "100 blocks of 300 are missing: 0..100"]);
        scene.run(["clear", "copy", "299"]).ok();
    }
    let info = scene.run(["info", "copy", "--json"]).ok().json();
    assert_eq!(info["downloaded"], 199);
}

#[test]
fn signals() {
    let scene = Scene::new();
    scene.core("log", &["a"]);
    for signal in ["-TERM", "-INT"] {
        let (server, _) = scene.serve("log", &[]);
        server.signal(signal);
        server.end().ok();
    }

    // Lines that were acknowledged are kept, the command ends well.
    let mut append = scene.start(["append", "log", "--lines", "--progress-json", "--json"]);
    append.say("b\n");
    append.event("ack");
    append.signal("-TERM");
    assert_eq!(append.end_open().ok().json()["length"], 2);

    // A file that was not read to its end is something else.
    let args = [
        "append",
        "log",
        "--file",
        "-",
        "--block-size",
        "1",
        "--progress-json",
    ];
    let mut append = scene.start(args);
    append.say([b'c'; 64]);
    append.event("ack");
    append.signal("-TERM");
    append.end_open().fails(6, &["interrupted"]);
}

/// Many readers at once, one of which says nonsense.
#[test]
fn many_readers() {
    use std::io::Write;
    let scene = Scene::new();
    many(&scene, "log", 500, 100);
    let (server, address) = scene.serve("log", &[]);
    let mut stranger = std::net::TcpStream::connect(&address).unwrap();
    stranger.write_all(&[0xff; 100]).unwrap();
    let clones = ["a", "b", "c"].map(|dir| scene.start(["clone", KEY, dir, "--connect", &address]));
    for clone in clones {
        clone.end().ok();
    }
    server.stop().ok();
    let data = &scene.files("log")["data"];
    for dir in ["a", "b", "c"] {
        assert!(&scene.files(dir)["data"] == data, "{dir}");
    }
}
