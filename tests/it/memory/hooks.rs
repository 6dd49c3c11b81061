//! The memory that the server uses for a hook counts towards the hook.

use serde_json::json;

use super::process::{MIB, Memory};
use super::{GROWTH_MAX, nothing_is_held, start_with};
use crate::support::{Client, ServerOptions, eventually};

/// Integers that JavaScript cannot represent: the server keeps their digits.
fn integers(start: u64, bytes: u64) -> String {
    let numbers = (0..bytes / 18).map(|number| (9_007_199_254_740_993 + 4 * (start + number)).to_string());
    let numbers: Vec<String> = numbers.collect();
    format!("[{}]", numbers.join(","))
}

fn bind(api: &Client, phase: &str, source: &str) {
    let put = api.request("PUT", &format!("/models/other/hooks/{phase}?engine=quickjs&name=h"));
    put.body("text/javascript", source).send().expect(200);
}

#[test]
fn ten_reads_of_large_integers() {
    let tables = "[[grants]]\nmodel = 'other'\nphase = '*'\nread = ['large']\ntimeout = '60 s'".into();
    let server = start_with(ServerOptions { tables, ..ServerOptions::default() });
    let api = server.client();
    // A few documents with different numbers.
    for number in 0..5 {
        let integers = integers(number * 1_000_000, 4_000_000);
        let body = format!("{{\"id\":\"i{number}\",\"data\":{{\"n\":{integers}}}}}");
        api.request("POST", "/models/large/instances").body("application/json", body).send().expect(201);
    }
    bind(
        &api,
        "preCreate",
        "export default async ({ after, read }) => {
            for (let turn = 0; turn < after.turns; turn += 1) await read.get('large', `i${turn % 5}`)
        }",
    );
    api.post("/models/other/instances", &json!({"data": {"turns": 0}})).expect(201);
    let memory = Memory::of(&server);
    for _ in 0..3 {
        let refused = api.post("/models/other/instances", &json!({"data": {"turns": 10}}));
        let detail = refused.expect_problem(502, "hook-failed")["detail"].to_string();
        assert!(detail.contains("(memory)") && detail.contains("the limit `memory` is 64 MiB"), "{detail}");
    }
    memory.grew_by_at_most(GROWTH_MAX + 64 * MIB);
    api.post("/models/other/instances", &json!({"data": {"turns": 0}})).expect(201);
    nothing_is_held(&server);
}

#[test]
fn a_page_of_errors() {
    let server = start_with(ServerOptions { hooks: "max-attempts = 1".into(), ..ServerOptions::default() });
    let api = server.client();
    bind(&api, "postCreate", "export default () => { throw new Error('no') }");
    for number in 0..12 {
        let body = json!({"id": format!("e{number}"), "data": {"text": "x".repeat(2_500_000)}});
        api.post("/models/other/instances", &body).expect(201);
    }
    let count = || {
        let mut count = 0;
        let mut after = String::new();
        loop {
            let page = api.get(&format!("/errors?limit=1000{after}")).expect(200).json();
            let bytes: usize = page["items"].as_array().expect("items").iter().map(|item| item.to_string().len()).sum();
            assert!(bytes < 17 << 20, "{bytes}");
            count += page["items"].as_array().expect("items").len();
            match page["next"].as_str() {
                Some(next) => after = format!("&after={next}"),
                None => return count,
            }
        }
    };
    eventually("all have failed", || (count() == 12).then_some(()));
    nothing_is_held(&server);
}
