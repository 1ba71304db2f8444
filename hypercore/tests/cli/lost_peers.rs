//! Peers that are not there, that are lost, and that come back.

use crate::process::{KEY, Scene, await_downloads, clone_live, many, names, part};

/// An address where nobody listens.
fn dead_address() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().to_string()
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
    std::fs::create_dir(scene.path("here")).unwrap();
    let deep = ["clone", KEY, "here/a/b", "--connect", &a];
    scene.run(deep).fails(1, &words[..2]);
    assert!(scene.path("here").exists());
    assert!(!scene.path("here/a").exists());
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
    part(&scene, "half", &address, "0..200");
    server.stop().ok();

    let (server, address) = scene.serve("half", &[]);
    let copy = clone_live(&scene, &address);
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
