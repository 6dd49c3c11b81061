//! Which clients are served, and which requests are rejected before they reach a store.

use snaphook_driver::{ErrorKind, PAGE_BYTES_MAX, Store};
use snaphook_driver_testkit::run;
use snaphook_remote::host::{HostLimits, HostOptions};

use crate::support::{open, post, send, serve_secrets};

const PUT: &str = r#"{"name": "a", "bytes": "AA=="}"#;
const HOST: &str = "Host: 127.0.0.1\r\n";

#[test]
fn only_who_has_the_token_is_served() {
    run(async {
        let options = HostOptions { token: Some("hunter2".into()), ..HostOptions::default() };
        let (address, store) = serve_secrets(options, HostLimits::default()).await;
        for authorization in [
            "",
            "Authorization: Bearer\r\n",
            "Authorization: Bearer \r\n",
            "Authorization: Bearer hunter\r\n",
            "Authorization: Bearer hunter22\r\n",
            "Authorization: Bearer HUNTER2\r\n",
            "Authorization: Bearer h\u{fc}nter2\r\n",
            "Authorization: Basic hunter2\r\n",
            "Authorization: hunter2\r\n",
            "X-Authorization: Bearer hunter2\r\n",
        ] {
            for path in ["/secure/put", "/secure/open", "/event/append", "/secure/nothing"] {
                let reply = send(address, &post(path, &format!("{HOST}{authorization}"), PUT)).await;
                assert_eq!(reply.status, 401, "{path} with {authorization:?}: {reply:?}");
                assert!(reply.text.to_ascii_lowercase().contains("www-authenticate: bearer"), "{reply:?}");
            }
        }
        assert_eq!(store.list("").await.unwrap(), Vec::<String>::new(), "nothing was carried out");
        for token in [None, Some("hunter")] {
            let error = open(&format!("http://{address}"), "json", token, Store::Secure).await.err().unwrap();
            assert_eq!(error.kind(), ErrorKind::Config);
            assert!(error.message().contains("token"), "{error}");
        }
        // With a token, neither the name of the host nor an origin matters.
        let headers = "Host: store.example\r\nOrigin: https://a.example\r\nAuthorization: Bearer hunter2\r\n";
        assert_eq!(send(address, &post("/secure/put", headers, PUT)).await.status, 200);
        assert_eq!(store.list("").await.unwrap(), ["a"]);
    });
}

#[test]
fn without_a_token_no_page_is_served() {
    run(async {
        let (address, store) = serve_secrets(HostOptions::default(), HostLimits::default()).await;
        let port = address.port();
        for headers in [
            "Host: evil.example\r\n".to_owned(),
            format!("Host: evil.example:{port}\r\n"),
            "Host: localhost.evil.example\r\n".to_owned(),
            "Host: 10.0.0.1\r\n".to_owned(),
            "Host: \r\n".to_owned(),
            format!("Host: 127.0.0.1:{port}\r\nOrigin: http://evil.example\r\n"),
            format!("Host: 127.0.0.1:{port}\r\nOrigin: http://127.0.0.1:{port}\r\n"),
            format!("Host: 127.0.0.1:{port}\r\nOrigin: null\r\n"),
        ] {
            let reply = send(address, &post("/secure/put", &headers, PUT)).await;
            assert_eq!(reply.status, 403, "{headers:?}: {reply:?}");
            assert!(reply.text.contains("--token"), "{reply:?}");
        }
        assert_eq!(store.list("").await.unwrap(), Vec::<String>::new(), "nothing was carried out");
        for host in [format!("127.0.0.1:{port}"), format!("LOCALHOST:{port}"), "[::1]".to_owned()] {
            let reply = send(address, &post("/secure/put", &format!("Host: {host}\r\n"), PUT)).await;
            assert_eq!(reply.status, 200, "{host}: {reply:?}");
        }
        assert_eq!(store.list("").await.unwrap(), ["a"]);
    });
}

#[test]
fn what_is_no_call_is_refused() {
    run(async {
        let (address, store) = serve_secrets(HostOptions::default(), HostLimits::default()).await;
        let too_long = 4 * PAGE_BYTES_MAX + 1;
        let head = format!("POST /secure/put HTTP/1.1\r\nConnection: close\r\n{HOST}");
        let json = "Content-Type: application/json\r\n";
        for (request, status, text) in [
            (post("/secure/putt", HOST, PUT), 400, "no method `putt`"),
            (post("/event/append", HOST, "{}"), 400, "no event storage is served here"),
            (post("/nothing/get", HOST, "{}"), 400, "no nothing storage is served here"),
            (post("/secure/put/a", HOST, PUT), 404, "expected `POST /{store}/{method}`"),
            (post("/", HOST, PUT), 404, "expected `POST /{store}/{method}`"),
            (format!("GET /secure/list HTTP/1.1\r\nConnection: close\r\n{HOST}\r\n"), 404, "expected `POST"),
            (post("/secure/put", HOST, r#"{"name": "../../x", "bytes": "AA=="}"#), 400, "is not a valid secret name"),
            (post("/secure/put", HOST, "<html>"), 400, "cannot be read"),
            (post("/secure/put", HOST, r#"{"name": 7}"#), 400, "cannot be read"),
            (format!("{head}Content-Length: 2\r\n\r\n{{}}"), 415, "expected `application/json` or"),
            (
                format!("{head}Content-Type: text/html\r\nContent-Length: 2\r\n\r\n{{}}"),
                415,
                "expected `application/json` or",
            ),
            // Rejected because of the head; the body is never sent.
            (format!("{head}{json}Content-Length: {too_long}\r\n\r\n"), 400, "at most 67108864 are allowed"),
            (format!("{head}{json}Transfer-Encoding: chunked\r\n\r\n2\r\n{{}}\r\n0\r\n\r\n"), 400, "`Content-Length`"),
            (format!("{head}{json}X-Long: {}\r\n\r\n", "x".repeat(300_000)), 431, ""),
            (format!("{head}{json}{}\r\n", "X-Many: x\r\n".repeat(100)), 431, ""),
            ("SSH-2.0-OpenSSH_9.6\r\n\r\n".to_owned(), 400, ""),
        ] {
            let reply = send(address, &request).await;
            let shown: String = request.chars().take(200).collect();
            assert_eq!(reply.status, status, "{shown}\n{reply:?}");
            assert!(reply.text.contains(text), "{shown}\n{reply:?}");
        }
        assert_eq!(store.list("").await.unwrap(), Vec::<String>::new(), "nothing was carried out");
    });
}
