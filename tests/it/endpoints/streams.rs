//! Bodies of requests and responses: they stream within limits, and end when the client leaves.

use std::io::{Read, Write};
use std::time::Instant;

use super::{begin, read_to_end, read_until, server, with};
use crate::support::{PATIENCE, ServerOptions, eventually};

#[test]
fn requests_are_bounded_by_max_body() {
    let Some(server) = with(ServerOptions { server: "max-body = '1 MiB'".into(), ..ServerOptions::default() }) else {
        return;
    };
    let api = server.client();
    let upload = |size: usize| api.request("POST", "/tool/upload").untyped(vec![b'x'; size]).send();
    assert_eq!(upload(1 << 20).expect(200).text(), "1048576 bytes, whole");
    assert_eq!(upload(0).expect(200).text(), "0 bytes, whole");
    upload((1 << 20) + 1).expect_problem(413, "too-large");

    // Without a length: the component sees the body break off, and the client gets the reason.
    let mut stream = begin(&server, "POST", "/tool/upload", "Transfer-Encoding: chunked\r\n");
    for _ in 0..40 {
        let piece = format!("10000\r\n{}\r\n", "x".repeat(0x10000));
        if stream.write_all(piece.as_bytes()).is_err() {
            break;
        }
    }
    let text = String::from_utf8_lossy(&read_until(&mut stream, b"}")).into_owned();
    assert!(text.starts_with("HTTP/1.1 413 ") && text.contains("/problems/too-large"), "{text}");

    // A component that does not read the body can still respond.
    let answer = api.request("POST", "/tool/status?200").untyped(vec![b'x'; 100_000]).send();
    answer.expect(200);
}

#[test]
fn what_comes_goes_back_while_it_comes() {
    let Some(server) = server("") else { return };
    let mut stream = begin(&server, "POST", "/tool/back", "Transfer-Encoding: chunked\r\n");
    let mut seen = Vec::new();
    for number in 0..5 {
        let piece = format!("piece {number};");
        stream.write_all(format!("{:x}\r\n{piece}\r\n", piece.len()).as_bytes()).expect("a piece");
        seen = read_until(&mut stream, piece.as_bytes());
    }
    stream.write_all(b"0\r\n\r\n").expect("the end");
    if !seen.ends_with(b"0\r\n\r\n") {
        read_until(&mut stream, b"0\r\n\r\n");
    }
}

/// Time spent waiting for a client does not count: this takes three times the guest's limit.
#[test]
fn a_slow_client_does_not_use_up_the_guests_time() {
    let grant = "[[grants]]\nendpoint = 'tool'\ntimeout = '300 ms'\n";
    let Some(server) = server(grant) else { return };
    let mut stream = begin(&server, "POST", "/tool/back", "Transfer-Encoding: chunked\r\n");
    let started = Instant::now();
    while started.elapsed().as_millis() < 900 {
        stream.write_all(b"1\r\nx\r\n").expect("a piece");
        read_until(&mut stream, b"x\r\n");
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    stream.write_all(b"0\r\n\r\n").expect("the end");
    read_until(&mut stream, b"0\r\n\r\n");
}

#[test]
fn a_large_response_streams_within_the_memory_of_a_small_one() {
    let grant = "[[grants]]\nendpoint = 'tool'\ntimeout = '1 m'\nmemory = '4 MiB'\n";
    let Some(server) = server(grant) else { return };
    let mut stream = begin(&server, "GET", "/tool/pour", "Connection: close\r\n");
    let (mut bytes, mut piece, mut last) = (0, vec![0; 1 << 16], Vec::new());
    loop {
        let count = stream.read(&mut piece).expect("more");
        if count == 0 {
            break;
        }
        bytes += count;
        last = piece[..count].to_vec();
    }
    assert!(bytes > 64 << 20, "{bytes}");
    assert!(last.ends_with(b"0\r\n\r\n"), "it ends whole");
}

#[test]
fn a_client_that_leaves_ends_the_sandbox_at_once() {
    // One run at a time, up to ten minutes each: the next request is served only if the previous run has ended.
    let options = ServerOptions {
        hooks: "concurrency = 1".into(),
        tables: "[[grants]]\nendpoint = 'tool'\ntimeout = '10 m'\n".into(),
        ..ServerOptions::default()
    };
    let Some(server) = with(options) else { return };
    let api = server.client();
    for task in ["loop", "sleep", "forever", "hang"] {
        let mut stream = begin(&server, "GET", &format!("/tool/{task}"), "");
        if matches!(task, "forever" | "hang") {
            read_until(&mut stream, b"\r\n\r\n");
        } else {
            // While it runs, no other run can start.
            eventually("the guest runs", || {
                let before = server.ticks();
                std::thread::sleep(std::time::Duration::from_millis(30));
                (task == "sleep" || server.ticks() > before).then_some(())
            });
        }
        let started = Instant::now();
        drop(stream);
        api.get("/tool/echo").expect(200);
        assert!(started.elapsed() < PATIENCE, "{task}");
    }
    let metrics = api.get("/metrics").expect(200).text();
    assert!(!metrics.contains("snaphook_endpoint_failures_total"), "who leaves is no failure: {metrics}");
}

#[test]
fn runs_beyond_the_concurrency_wait_and_then_are_refused() {
    let options = ServerOptions { hooks: "concurrency = 1".into(), ..ServerOptions::default() };
    let Some(server) = with(options) else { return };
    // The first run holds the only permit while its client sends nothing; sixteen wait.
    let mut held = begin(&server, "POST", "/tool/back", "Transfer-Encoding: chunked\r\n");
    held.write_all(b"1\r\nx\r\n").expect("a piece");
    read_until(&mut held, b"x\r\n");
    let (sender, answers) = std::sync::mpsc::channel();
    for _ in 0..20 {
        let (mut stream, sender) = (begin(&server, "GET", "/tool/echo", "Connection: close\r\n"), sender.clone());
        std::thread::spawn(move || {
            // The test may already have failed.
            let _ = sender.send(String::from_utf8_lossy(&read_to_end(&mut stream)).into_owned());
        });
    }
    for _ in 0..4 {
        let text = answers.recv_timeout(PATIENCE).expect("a refusal");
        assert!(text.starts_with("HTTP/1.1 503") && text.contains("/problems/overloaded"), "{text}");
        assert!(text.to_lowercase().contains("retry-after"), "{text}");
    }
    held.write_all(b"0\r\n\r\n").expect("the end");
    read_until(&mut held, b"0\r\n\r\n");
    for _ in 0..16 {
        let text = answers.recv_timeout(PATIENCE).expect("an answer");
        assert!(text.starts_with("HTTP/1.1 200"), "{text}");
    }
}
