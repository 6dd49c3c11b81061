//! Modules that throw, hang, crash or print endlessly: the effects, and when they are deactivated.

use super::*;

#[test]
fn whatever_a_module_throws_costs_its_request_and_the_third_time_the_module() {
    if !are_there() {
        return;
    }
    let server = start(&[module("faulty", "faulty", "")]);
    for (how, said) in [
        ("throw-exception", "onRequest threw on purpose in two lines"),
        ("throw-class", "onRequest threw a value of the type (anonymous namespace)::Oddity"),
    ] {
        let page = get(&server, &format!("/{how}"));
        assert!(page.starts_with("HTTP/1.1 500 ") && page.contains(r#""status":500"#), "{page}");
        expect_log(&server, said);
        assert!(get(&server, "/healthz").starts_with("HTTP/1.1 200 "), "others go on");
    }
    let ready = get(&server, "/readyz");
    assert!(ready.starts_with("HTTP/1.1 200 "), "{ready}");
    assert!(get(&server, "/throw-int").starts_with("HTTP/1.1 500 "));
    expect_log(&server, "onRequest threw a value of the type int");
    expect_log(&server, "module `faulty` is deactivated: 3 faults within a minute");
    // The module is not optional: all requests are rejected, except those for the server's health.
    eventually("requests get 503", || get(&server, "/models").starts_with("HTTP/1.1 503 ").then_some(()));
    let refused = server.client().get("/models").expect(503);
    assert!(refused.header("retry-after").is_some(), "{refused:?}");
    assert_eq!(refused.json()["detail"], "the module `faulty` is deactivated");
    server.client().get("/healthz").expect(200);
    let ready = server.client().get("/readyz").expect(503).json();
    assert!(ready["modules"]["faulty"].as_str().is_some_and(|why| why.contains("threw")), "{ready}");
    let metrics = String::from_utf8(server.client().get("/metrics").expect(200).body).expect("text");
    assert!(metrics.contains("snaphook_zia_module_active{module=\"faulty\"} 0\n"), "{metrics}");
    assert!(metrics.lines().all(|line| line.contains("snaphook_zia_")), "{metrics}");
    // A request with a body gets its response too.
    let large = vec![b'x'; 1 << 20];
    server.client().request("POST", "/models").body("application/json", large).send().expect(503);
}

#[test]
fn an_optional_module_is_left_out() {
    if !are_there() {
        return;
    }
    let server = start(&[module("faulty", "faulty", "optional = true"), module("log", "access_log", "")]);
    for _ in 0..3 {
        get(&server, "/throw-int");
    }
    expect_log(&server, "module `faulty` is deactivated: 3 faults within a minute");
    eventually("it is not asked", || get(&server, "/throw-int").starts_with("HTTP/1.1 404 ").then_some(()));
    let ready = server.client().get("/readyz").expect(200).json();
    assert!(ready["modules"]["faulty"].as_str().is_some_and(|why| why.contains("threw")), "{ready}");
    let metrics = String::from_utf8(server.client().get("/metrics").expect(200).body).expect("text");
    assert!(metrics.contains("snaphook_zia_module_active{module=\"faulty\"} 0\n"), "{metrics}");
    assert!(metrics.contains("snaphook_zia_module_active{module=\"log\"} 1\n"), "{metrics}");
    assert!(metrics.contains("snaphook_zia_module_failures_total{module=\"faulty\"} 3\n"), "{metrics}");
}

#[test]
fn a_module_that_hangs_is_abandoned() {
    if !are_there() {
        return;
    }
    let mut server = start(&[module("faulty", "faulty", "timeout = '200 ms'"), module("log", "access_log", "")]);
    let page = get(&server, "/hang");
    assert!(page.starts_with("HTTP/1.1 500 "), "{page}");
    expect_log(&server, "module `faulty`: onRequest did not return within 200 ms");
    assert!(get(&server, "/healthz").starts_with("HTTP/1.1 200 "));
    assert!(server.stop().success());
    expect_log(&server, "connections are still served");
}

#[test]
fn a_crash_costs_the_connections_and_the_bridge_comes_back() {
    if !are_there() {
        return;
    }
    let server = start(&[module("faulty", "faulty", "optional = true"), module("log", "access_log", "")]);
    let first = bridges(&server);
    for (how, said) in [("crash", "onRequest crashed"), ("overflow", "onRequest crashed")] {
        assert_eq!(get(&server, &format!("/{how}")), "");
        expect_log(&server, &format!("module `faulty`: {said}"));
        eventually("requests are served again", || get(&server, "/models").starts_with("HTTP/1.1 200 ").then_some(()));
    }
    assert!(bridges(&server).len() == 1 && bridges(&server) != first);
    assert_eq!(get(&server, "/abort"), "");
    expect_log(&server, "module `faulty` is deactivated: 3 faults within a minute, the last: onRequest crashed");
    // The next process runs without the module.
    eventually("it is not asked", || get(&server, "/crash").starts_with("HTTP/1.1 404 ").then_some(()));
    expect_log(&server, "GET /crash plain 404");
}

#[test]
fn a_process_that_ends_is_started_again() {
    if !are_there() {
        return;
    }
    let mut server = start(&[module("faulty", "faulty", "")]);
    assert_eq!(get(&server, "/exit"), "");
    expect_log(&server, "the bridge for zia modules ended");
    eventually("requests are served again", || get(&server, "/models").starts_with("HTTP/1.1 200 ").then_some(()));
    let metrics = String::from_utf8(server.client().get("/metrics").expect(200).body).expect("text");
    assert!(metrics.contains("snaphook_zia_bridge_starts_total 2\n"), "{metrics}");
    let [bridge] = bridges(&server)[..] else { panic!("one bridge") };
    assert!(server.stop().success());
    assert!(is_gone(bridge), "it ends before the server");
}

fn is_gone(pid: u32) -> bool {
    let state = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    state.is_empty() || state.contains(") Z ")
}

#[test]
fn a_server_that_is_killed_takes_the_bridge_with_it() {
    if !are_there() {
        return;
    }
    let server = start(&[module("log", "access_log", "")]);
    let [bridge] = bridges(&server)[..] else { panic!("one bridge") };
    server.signal(rustix::process::Signal::KILL);
    eventually("the bridge ends", || is_gone(bridge).then_some(()));
}

#[test]
fn output_without_end_is_bounded() {
    if !are_there() {
        return;
    }
    let server = start(&[module("faulty", "faulty", "")]);
    assert!(get(&server, "/print").starts_with("HTTP/1.1 404 "));
    get(&server, "/healthz");
    expect_log(&server, "line 0");
    expect_log(&server, "modules printed more than 500 lines per second; ");
    assert!(server.log().iter().filter(|line| line.contains(" line ")).count() < 20_000);
    assert!(server.log().iter().all(|line| line.len() < 10_000));
}

#[test]
fn a_handler_that_cannot_be_made_costs_the_request() {
    if !are_there() {
        return;
    }
    for (how, said) in [
        ("null", "newRequestHandler returned a null pointer"),
        ("throw-int", "newRequestHandler threw a value of the type int"),
    ] {
        let server = start(&[module("faulty", "faulty", &format!("config.handler = '{how}'"))]);
        assert!(get(&server, "/healthz").starts_with("HTTP/1.1 500 "));
        expect_log(&server, said);
    }
}
