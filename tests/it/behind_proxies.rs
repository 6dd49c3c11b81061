//! `X-Forwarded-For`: which address is used for the rate limit and in the audit log. Only trusted proxies are believed.

use crate::support::{Client, Server, ServerOptions, eventually};

/// A server that allows three requests a second per address.
fn start(trusted: &str) -> Server {
    let server = format!("[server.limits]\nrequests-per-second = 3\n{trusted}");
    Server::start_with(ServerOptions { server, ..ServerOptions::default() })
}

fn status(api: &Client, forwarded: &[&str]) -> u16 {
    let request =
        forwarded.iter().fold(api.request("GET", "/models"), |request, line| request.header("X-Forwarded-For", line));
    request.send().status
}

#[test]
fn a_trusted_proxy_says_who_asks() {
    let server = start("trusted-proxies = ['127.0.0.1', '10.0.0.0/8']");
    let api = server.client();
    // Each IPv4 address has its own limit; so does each IPv6 network that one client may own.
    for number in 0..40 {
        assert_eq!(status(&api, &[&format!("192.0.2.{number}")]), 200, "{number}");
        assert_eq!(status(&api, &[&format!("[2001:db8:0:{number:x}::1]:443, 10.0.0.7")]), 200, "{number}");
    }
    // An address has one limit, whatever the client puts in front of it and whichever trusted proxies forward it.
    let mut number = 0;
    eventually("the address is refused", || {
        number += 1;
        (status(&api, &[&format!("198.51.100.{}, 203.0.113.5", number % 250)]) == 429).then_some(())
    });
    eventually("through two proxies too", || {
        number += 1;
        (status(&api, &[&format!("198.51.100.{}", number % 250), "203.0.113.5, 10.1.2.3"]) == 429).then_some(())
    });
    assert_eq!(status(&api, &["203.0.113.6"]), 200);
}

#[test]
fn nobody_else_is_believed() {
    for trusted in ["", "trusted-proxies = ['10.0.0.0/8']"] {
        let server = start(trusted);
        let api = server.client();
        let mut number = 0;
        eventually("it is one address for all it says", || {
            number += 1;
            (status(&api, &[&format!("192.0.2.{}", number % 250)]) == 429).then_some(())
        });
    }
    let server = Server::start_with(ServerOptions { auth: "mode = 'tokens'", ..ServerOptions::default() });
    let api = server.client();
    let denied = api.request("GET", "/models").header("X-Forwarded-For", "192.0.2.9");
    denied.header("X-Request-Id", "forged").send().expect_problem(401, "unauthorized");
    let line = eventually("it is noted", || server.log().into_iter().find(|line| line.contains("forged")));
    assert!(line.contains("address=\"127.0.0.1\"") && !line.contains("192.0.2.9"), "{line}");
}
