//! Host calls beside each other, seen from JavaScript. Part of the tests of each engine that runs JavaScript, which say what
//! `case` is. Nothing here measures time: what has to go on at once is what a server waits for.

use std::collections::HashMap;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use super::case;
use crate::config::Phase;
use crate::hooks::context::{FailureCause, Outcome};
use crate::hooks::engines::testing::Called;

/// Gives each request's path and its connection to the test.
async fn server() -> (u16, mpsc::UnboundedReceiver<(String, TcpStream)>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (sender, requests) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let sender = sender.clone();
            tokio::spawn(async move {
                let mut request = Vec::new();
                while !request.ends_with(b"\r\n\r\n") {
                    let mut buffer = [0; 4096];
                    match stream.read(&mut buffer).await {
                        Ok(0) | Err(_) => return,
                        Ok(count) => request.extend_from_slice(&buffer[..count]),
                    }
                }
                let path = String::from_utf8_lossy(&request).split(' ').nth(1).unwrap_or_default().to_owned();
                let _ = sender.send((path, stream));
            });
        }
    });
    (port, requests)
}

async fn answer(mut stream: TcpStream, body: &str) {
    let head = format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", body.len());
    stream.write_all((head + body).as_bytes()).await.unwrap();
}

/// Runs the body of an asynchronous handler that knows the server's `base`.
fn run(port: u16, body: &str) -> tokio::task::JoinHandle<Called> {
    let mut case = case(Phase::PostCreate);
    case.settings.limits.timeout = std::time::Duration::from_secs(20);
    case.grants = Box::leak(format!("http = ['GET http://127.0.0.1:{port}/*']").into_boxed_str());
    let source =
        format!("export default async ({{ fetch, log }}) => {{ const base = 'http://127.0.0.1:{port}'; {body} }}");
    tokio::spawn(async move { case.run(source.as_bytes()).await })
}

#[tokio::test(flavor = "multi_thread")]
async fn fetches_are_under_way_at_once() {
    let (port, mut requests) = server().await;
    let body =
        "const all = await Promise.all(['a', 'b', 'c'].map(async (name) => (await fetch(`${base}/${name}`)).text()));
        log.info(all.join())";
    let call = run(port, body);
    // None is answered before all have come; the last one first.
    let mut come = Vec::new();
    for _ in 0..3 {
        come.push(requests.recv().await.unwrap());
    }
    for (path, stream) in come.into_iter().rev() {
        answer(stream, &path).await;
    }
    assert_eq!(call.await.unwrap().lines(), ["/a,/b,/c"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn timers_go_on_beside_a_fetch_and_may_abort_it() {
    let (port, mut requests) = server().await;
    let body = "const controller = new AbortController();
        const never = fetch(`${base}/never`, { signal: controller.signal }).catch((error) => error);
        setTimeout(() => fetch(`${base}/ticked`), 1);
        await fetch(`${base}/ready`);
        setTimeout(() => controller.abort(), 1);
        const aborted = await never;
        const raced = await Promise.race([fetch(`${base}/late`), new Promise((done) => setTimeout(done, 1, 'timer'))]);
        fetch(`${base}/raced`);
        log.info(aborted.name, controller.signal.aborted, raced);
        throw new Error('the last fetches are awaited all the same')";
    let call = run(port, body);
    // The timer's own request comes while the others wait.
    let mut streams = HashMap::new();
    for _ in 0..3 {
        let (path, stream) = requests.recv().await.unwrap();
        streams.insert(path, stream);
    }
    let mut never = streams.remove("/never").unwrap();
    answer(streams.remove("/ticked").unwrap(), "").await;
    answer(streams.remove("/ready").unwrap(), "").await;
    // An aborted request is dropped, so its connection ends.
    assert_eq!(never.read(&mut [0]).await.unwrap_or(0), 0);
    // The race is over when neither of its last two requests has been answered.
    for expected in ["/late", "/raced"] {
        let (path, stream) = requests.recv().await.unwrap();
        assert_eq!(path, expected);
        streams.insert(path, stream);
    }
    for (path, stream) in streams {
        answer(stream, &path).await;
    }
    let called = call.await.unwrap();
    assert_eq!(called.lines(), ["AbortError true timer"]);
    assert!(called.failure().message.contains("awaited all the same"), "{:?}", called.failure());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_response_that_is_used_without_await_waits_for_its_own_call() {
    let (port, mut requests) = server().await;
    let body = "const slow = fetch(`${base}/slow`), quick = fetch(`${base}/quick`);
        log.info(quick.status, await quick.text());
        log.info((await slow).status, await slow.text())";
    let call = run(port, body);
    let (first, second) = (requests.recv().await.unwrap(), requests.recv().await.unwrap());
    let (slow, quick) = if first.0 == "/slow" { (first, second) } else { (second, first) };
    answer(quick.1, "quick").await;
    answer(slow.1, "slow").await;
    assert_eq!(call.await.unwrap().lines(), ["200 quick", "200 slow"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_awaits_is_done_before_the_hook_is() {
    let (port, mut requests) = server().await;
    let call =
        run(port, "fetch(`${base}/a`).then((response) => log.info('then', response.status)); log.info('returned')");
    let (path, stream) = requests.recv().await.unwrap();
    assert!(!call.is_finished());
    answer(stream, &path).await;
    let called = call.await.unwrap();
    assert_eq!(called.report.outcome, Outcome::Accept);
    assert_eq!(called.lines(), ["returned", "then 200"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn starts_count_as_host_calls_however_many_are_made_at_once() {
    // More than go on at once, and all of them denied.
    let body =
        "for (;;) await Promise.all(Array.from({ length: 200 }, () => fetch('http://10.0.0.1/').catch(() => {})))";
    let called = run(1, body).await.unwrap();
    assert_eq!(called.failure().cause, FailureCause::HostCalls, "{:?}", called.failure());
}
