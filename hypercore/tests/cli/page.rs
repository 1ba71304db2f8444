//! `serve --http`: what a browser and Prometheus get.

use std::{
    io::{Read, Write},
    net::TcpStream,
    time::Duration,
};

use serde_json::Value;

use crate::process::{KEY, Process, Scene};

/// Serves `log` with a page; returns where peers and browsers call.
fn serve(scene: &Scene, dir: &str, flags: &[&str]) -> (Process, String, String) {
    let (process, address) = scene.serve(dir, &[&["--http", "127.0.0.1:0"], flags].concat());
    let page = process.event("http")["address"]
        .as_str()
        .unwrap()
        .to_owned();
    (process, address, page)
}

fn call(page: &str, request: &str) -> TcpStream {
    let mut stream = TcpStream::connect(page).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    stream
}

/// The head and the body of the answer.
fn get(page: &str, path: &str, header: &str) -> (String, Vec<u8>) {
    let mut stream = call(
        page,
        &format!("GET {path} HTTP/1.1\r\nHost: {page}\r\n{header}\r\n"),
    );
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let end = answer
        .windows(4)
        .position(|end| end == b"\r\n\r\n")
        .unwrap();
    let body = answer.split_off(end + 4);
    (String::from_utf8(answer).unwrap(), body)
}

/// Reads from a stream that stays open until `word` has come.
fn read_until(stream: &mut TcpStream, word: &str) -> String {
    let mut text = String::new();
    let mut piece = [0; 1024];
    while !text.contains(word) {
        let count = stream.read(&mut piece).expect("it comes in time");
        assert!(count > 0, "{text}");
        text += std::str::from_utf8(&piece[..count]).unwrap();
    }
    text
}

#[test]
fn a_page_and_figures_that_tell_no_secret() {
    let scene = Scene::new();
    scene.core("log", &["one", "two", "three"]);
    let (server, address, page) = serve(&scene, "log", &[]);
    scene
        .run(["clone", KEY, "copy", "--connect", &address])
        .ok();
    let (head, body) = get(&page, "/", "");
    assert!(
        head.starts_with("HTTP/1.1 200 ") && head.contains("text/html"),
        "{head}"
    );
    let page_text = String::from_utf8(body).unwrap();
    assert!(page_text.contains("new EventSource('/events')"));
    let (_, body) = get(&page, "/metrics", "");
    let figures = String::from_utf8(body).unwrap();
    for line in [
        "hypercore_length_blocks 3\n",
        "hypercore_sent_bytes_total 11\n",
    ] {
        assert!(figures.contains(line), "{figures}");
    }
    let mut events = call(
        &page,
        &format!("GET /events HTTP/1.1\r\nHost: {page}\r\n\r\n"),
    );
    let told = read_until(&mut events, "}\n\n");
    let event = told.split("data: ").nth(1).unwrap().trim();
    let event: Value = serde_json::from_str(event).unwrap();
    assert_eq!(event["held"], serde_json::json!([100, 100, 100]));
    assert_eq!(event["downloaded"], 3);
    let here = scene.path("log").display().to_string();
    for text in [&page_text, &figures, &told] {
        assert!(!text.contains(KEY) && !text.contains(&here), "{text}");
    }
    server.stop().ok();
}

#[test]
fn bytes_and_ranges_of_them() {
    let scene = Scene::new();
    scene.core("log", &["one", "", "two", "three"]);
    let (server, _, page) = serve(&scene, "log", &[]);
    let check = |header: &str, status: &str, content: &str| {
        let (head, body) = get(&page, "/data", header);
        assert!(
            head.starts_with(&format!("HTTP/1.1 {status} ")),
            "{header}: {head}"
        );
        assert_eq!(String::from_utf8(body).unwrap(), content, "{header}");
        head
    };
    check("", "200", "onetwothree");
    let head = check("Range: bytes=2-4\r\n", "206", "etw");
    assert!(head.contains("Content-Range: bytes 2-4/11"), "{head}");
    check("Range: bytes=6-\r\n", "206", "three");
    check("Range: bytes=-2\r\n", "206", "ee");
    check("Range: bytes=0-100\r\n", "206", "onetwothree");
    check("Range: bytes=11-\r\n", "416", "416 Range Not Satisfiable");
    check("Range: lines=1-2\r\n", "200", "onetwothree");
    // One that is not valid is ignored.
    check("Range: bytes=5-2\r\n", "200", "onetwothree");
    server.stop().ok();

    scene.run(["clear", "log", "2"]).ok();
    let (_server, _, page) = serve(&scene, "log", &[]);
    assert!(get(&page, "/data", "").0.starts_with("HTTP/1.1 503 "));
    let (head, body) = get(&page, "/data", "Range: bytes=6-\r\n");
    assert_eq!(
        (head.starts_with("HTTP/1.1 206 "), &body[..]),
        (true, &b"three"[..])
    );
}

#[test]
fn blocks_to_come() {
    let scene = Scene::new();
    scene.core("log", &["old"]);
    let (mut server, _, page) = serve(&scene, "log", &["--lines"]);
    let mut tail = call(
        &page,
        &format!("GET /tail HTTP/1.1\r\nHost: {page}\r\n\r\n"),
    );
    read_until(&mut tail, "\r\n\r\n");
    server.say("first\n");
    assert_eq!(read_until(&mut tail, "first"), "first");
    server.say("second\n");
    assert_eq!(read_until(&mut tail, "second"), "second");
    server.stop().ok();
}

#[test]
fn lines_to_come() {
    let scene = Scene::new();
    scene.core("log", &[]);
    let (mut server, _, page) = serve(&scene, "log", &["--lines"]);
    let request = format!("GET /tail?lines HTTP/1.1\r\nHost: {page}\r\n\r\n");
    let mut tail = call(&page, &request);
    read_until(&mut tail, "\r\n\r\n");
    server.say("first\nsecond\n");
    assert_eq!(read_until(&mut tail, "second\n"), "first\nsecond\n");
    server.stop().ok();
}

#[test]
fn heads_without_a_body() {
    let scene = Scene::new();
    scene.core("log", &["one", "two"]);
    let (_server, _, page) = serve(&scene, "log", &[]);
    for (path, length) in [
        ("/data", "Content-Length: 6\r\n"),
        ("/tail", ""),
        ("/events", ""),
    ] {
        let request = format!("HEAD {path} HTTP/1.1\r\nHost: {page}\r\n\r\n");
        let mut answer = String::new();
        call(&page, &request).read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        assert!(answer.contains(length), "{answer}");
        assert!(answer.ends_with("\r\n\r\n"), "{answer}");
    }
}

#[test]
fn who_is_refused_is_told_why() {
    let scene = Scene::new();
    scene.core("log", &["one"]);
    let (_server, _, page) = serve(&scene, "log", &[]);
    let long = "x".repeat(9000);
    let (head, _) = get(&page, "/", &format!("X: {long}\r\n"));
    assert!(head.starts_with("HTTP/1.1 431 "), "{head}");

    let request = format!("GET /tail HTTP/1.1\r\nHost: {page}\r\n\r\n");
    let held: Vec<_> = (0..64)
        .map(|_| {
            let mut tail = call(&page, &request);
            read_until(&mut tail, "\r\n\r\n");
            tail
        })
        .collect();
    let (head, body) = get(&page, "/", "");
    assert!(head.starts_with("HTTP/1.1 503 "), "{head}");
    assert_eq!(body, b"503 Too Many Connections");
    drop(held);
}

#[test]
fn other_requests_are_refused() {
    let scene = Scene::new();
    scene.core("log", &["one"]);
    let (_server, _, page) = serve(&scene, "log", &[]);
    let check = |request: &str, status: &str| {
        let answer = read_until(&mut call(&page, request), "\r\n\r\n");
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")),
            "{request}: {answer}"
        );
        answer
    };
    check(
        &format!("GET /secret_key HTTP/1.1\r\nHost: {page}\r\n\r\n"),
        "404",
    );
    check(
        &format!("GET /../log/key HTTP/1.1\r\nHost: {page}\r\n\r\n"),
        "404",
    );
    let answer = check(&format!("POST / HTTP/1.1\r\nHost: {page}\r\n\r\n"), "405");
    assert!(answer.contains("\r\nAllow: GET, HEAD\r\n"), "{answer}");
    let (head, _) = get(&page, "/data", "Range: bytes=3-\r\n");
    assert!(head.starts_with("HTTP/1.1 416 "), "{head}");
    assert!(head.contains("\r\nContent-Range: bytes */3\r\n"), "{head}");
    // A page whose name was made to lead here, and no name at all.
    let request = "GET /data HTTP/1.1\r\nHost: evil.example\r\n\r\n";
    check(request, "403");
    read_until(
        &mut call(&page, request),
        "Use the address of this machine or `localhost`",
    );
    check("GET /data HTTP/1.1\r\n\r\n", "403");
    // Without end.
    let mut stream = call(&page, "GET / HTTP/1.1\r\n");
    let line = format!("X: {}\r\n", "x".repeat(1000));
    while stream.write_all(line.as_bytes()).is_ok() {}
    scene
        .run(["serve", "log", "--http", "8000"])
        .fails(2, &["ADDR:PORT"]);
}
