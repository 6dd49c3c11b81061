//! `/docs` in a real browser: under a mount path, with a token, and without requests to other hosts.

use serde_json::json;

use super::{create_models, start_with_tokens};
use crate::support::Server;
use crate::support::browser::Browser;

#[test]
fn the_page_shows_what_a_token_may_read_and_asks_nobody_else() {
    let Some(mut browser) = Browser::start() else { return };
    let (server, token) = start_with_tokens("/api");
    let api = server.client();
    create_models(&api, &token);
    let origin = format!("http://{}", server.address());
    browser.open(&format!("{origin}/api/docs"));
    browser.wait_for("document.querySelector('#state')?.textContent.includes('enter a token')");
    browser.wait_for("document.querySelectorAll('#api .opblock-tag').length > 5");
    assert_eq!(browser.evaluate("document.body.innerText.includes('model order')"), false);

    let enter = |browser: &mut Browser, token: &str| {
        browser.evaluate(&format!("document.querySelector('#token').value = {}", json!(token)));
        browser.evaluate("document.querySelector('#access').requestSubmit()");
    };
    enter(&mut browser, "nonsense");
    browser.wait_for("document.querySelector('#state')?.textContent.includes('`Bearer <token>`')");
    enter(&mut browser, &token);
    browser.wait_for("document.body.innerText.includes('model order')");
    assert_eq!(browser.evaluate("document.querySelector('#state').textContent"), "4 models");

    // A request from the page goes to the API, with the token.
    let tag = "#operations-tag-model_order";
    browser.evaluate(&format!("document.querySelector('{tag}').click()"));
    let operation = "#operations-model_order-createInstance_order";
    browser.wait_for(&format!("document.querySelector('{operation} .opblock-summary-control')"));
    browser.evaluate(&format!("document.querySelector('{operation} .opblock-summary-control').click()"));
    browser.wait_for(&format!("document.querySelector('{operation} .try-out__btn')"));
    browser.evaluate(&format!("document.querySelector('{operation} .try-out__btn').click()"));
    browser.wait_for(&format!("document.querySelector('{operation} .execute')"));
    browser.evaluate(&format!("document.querySelector('{operation} .execute').click()"));
    let items = || {
        let request = api.request("GET", "/models/order/instances").header("Authorization", &format!("Bearer {token}"));
        request.send().expect(200).json()["items"].as_array().map_or(0, Vec::len)
    };
    crate::support::eventually("the browser creates an instance", || (items() == 1).then_some(()));
    browser.wait_for(&format!("document.querySelector('{operation} .responses-table.live-responses-table')"));

    // Text from models is shown as text, not as markup.
    browser.evaluate("document.querySelectorAll('#api .opblock-tag').forEach((tag) => tag.click())");
    assert_eq!(browser.evaluate("document.querySelectorAll('#api img[onerror], #api script').length"), 0);
    let foreign: Vec<&String> =
        browser.requested.iter().filter(|url| !url.starts_with(&origin) && !url.starts_with("data:")).collect();
    assert!(foreign.is_empty(), "{foreign:?}");
    assert!(
        browser.requested.iter().any(|url| *url == format!("{origin}/api/openapi.json")),
        "{:?}",
        browser.requested
    );
    // The only expected error is about the invalid token.
    let unexpected: Vec<&String> = browser.complaints.iter().filter(|text| !text.contains("401")).collect();
    assert!(unexpected.is_empty(), "{unexpected:#?}");
}

#[test]
fn its_files_are_kept_by_browsers_and_its_policy_is_strict() {
    let server = Server::start();
    let api = server.client();
    for (path, media_type) in [
        ("/docs", "text/html; charset=utf-8"),
        ("/docs/page.js", "text/javascript; charset=utf-8"),
        ("/docs/page.css", "text/css; charset=utf-8"),
        ("/docs/swagger-ui-bundle.js", "text/javascript; charset=utf-8"),
        ("/docs/swagger-ui.css", "text/css; charset=utf-8"),
        ("/docs/LICENSE.txt", "text/plain; charset=utf-8"),
        ("/docs/NOTICE.txt", "text/plain; charset=utf-8"),
    ] {
        let answer = api.get(path).expect(200);
        assert_eq!(answer.header("content-type"), Some(media_type), "{path}");
        let policy = answer.header("content-security-policy").expect("a policy");
        assert!(policy.starts_with("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
        assert!(policy.contains("frame-ancestors 'none'"), "{policy}");
        let tag = answer.header("etag").expect("a tag").to_owned();
        assert!(api.request("GET", path).header("If-None-Match", &tag).send().expect(304).body.is_empty());
    }
    for absent in ["/docs/page.html", "/docs/..%2Fmod.rs", "/docs/x"] {
        api.get(absent).expect_problem(404, "not-found");
    }
    api.get("/docs?x=1").expect_problem(400, "bad-request");
    api.get("/docs?model=order-*").expect(200);
    api.get("/docs/page.js?x=1").expect_problem(400, "bad-request");
    api.post("/docs", &json!({})).expect_problem(405, "method-not-allowed");
}
