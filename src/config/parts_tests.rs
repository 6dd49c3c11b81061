//! Custom endpoints and modules, and the grants for them.

use std::path::Path;
use std::time::Duration;

use super::tests::{accept, check, parse};
use super::*;

#[test]
fn endpoints() {
    let one = "[[server.endpoints]]\nname = 'quote'\npath = '/quote/'\ncomponent = 'quote.wasm'\n";
    let config =
        accept(&format!("{one}role = 'anyone'\n[[grants]]\nendpoint = 'quote'\nhttp = ['https://a.example/*']\n"));
    let [endpoint] = &config.server.endpoints[..] else { panic!() };
    let found = (&*endpoint.name, &*endpoint.path, &*endpoint.component, endpoint.role, endpoint.line);
    assert_eq!(found, ("quote", "/quote", Path::new("/srv/quote.wasm"), EndpointRole::Anyone, 5));
    assert_eq!(config.grants[0].target, GrantTarget::Endpoint("quote".to_owned()));
    assert_eq!(accept(one).server.endpoints[0].role, EndpointRole::Reader);
    for (path, expected) in [("/quote", true), ("/quote/a/../b", true), ("/quotes", false), ("/", false), ("", false)] {
        assert_eq!(endpoint.covers(path), expected, "{path}");
    }
    let grant = |lines: &str| format!("{one}[[grants]]\n{lines}\nread = ['a']\n");
    for (text, expected) in [
        (
            "[[server.endpoints]]\npath = '/'\nrole = 'owner'\n",
            &[
                "config.toml:5: `server.endpoints.name` is missing, expected a name such as 'quote'",
                "config.toml:5: `server.endpoints.component` is missing, expected the file of a WebAssembly component, such as \
                 'quote.wasm'",
                "config.toml:6: `server.endpoints.path` is `/`, expected a path such as '/quote', of letters, digits and `-._~`",
                "config.toml:7: `server.endpoints.role` is `owner`, expected 'anyone', 'reader', 'writer' or 'admin'",
            ][..],
        ),
        (&format!("{one}{one}"), &["config.toml:9: `server.endpoints` is called `quote` like the one at line 5"]),
        (
            &format!("{one}{}", one.replace("name = 'quote'", "name = 'b'").replace("/quote/", "/quote/b")),
            &[
                "config.toml:9: `server.endpoints` has the path `/quote/b`, and the one at line 5 has `/quote`: neither may be \
                 under the other",
            ],
        ),
        (
            &grant("endpoint = 'qoute'"),
            &[
                "config.toml:10: `grants.endpoint` is `qoute`, expected one of `[[server.endpoints]]`, did you mean `quote`?",
            ],
        ),
        (
            &grant("endpoint = 'other'"),
            &[
                "config.toml:10: `grants.endpoint` is `other`, expected the name of one of `[[server.endpoints]]` or a glob",
            ],
        ),
        (
            &grant("endpoint = 'quote'\nmodel = 'a'\namend = true"),
            &[
                "config.toml:11: `grants.model` is for grants of hooks, and this one is for an endpoint or a module",
                "config.toml:12: `grants.amend` is for hooks only: endpoints and modules have no data that is about to be stored",
            ],
        ),
        (
            &grant("endpoint = '*'\nmodule = 'a'"),
            &["config.toml:9: `grants` names an endpoint and a module, expected one of them"],
        ),
    ] {
        check(text, expected);
    }
}

#[test]
fn modules() {
    let server = |text: &str| parse(&format!("[auth]\nmode = 'open'\n[server]\nmount-address = '127.0.0.1:1'\n{text}"));
    let text = "[[server.modules]]\nname = 'log'\nlibrary = 'a/log.so'\nconfig = { path = 'x.log', key = 'env:TOKEN', \
                password = 'secret:db', limits.burst = 3 }\n[[server.modules]]\nname = 'auth'\nkind = 'native'\n\
                library = '/b.so'\noptional = true\ntimeout = '100 ms'\n";
    let modules = server(text).unwrap().server.modules;
    let native = |library: &str| ModuleKind::Native { library: library.into() };
    let [log, auth] = &modules[..] else { panic!("{modules:?}") };
    assert_eq!((&*log.name, &log.kind, log.optional, log.line), ("log", &native("/srv/a/log.so"), false, 5));
    assert_eq!(log.timeout, Duration::from_secs(5));
    assert_eq!(
        serde_json::Value::Object(log.settings.clone()),
        serde_json::json!({"path": "x.log", "key": "hunter2", "password": "secret:db", "limits": {"burst": 3}})
    );
    assert!(!format!("{modules:?}").contains("hunter2"));
    assert_eq!((&*auth.name, &auth.kind, auth.optional), ("auth", &native("/b.so"), true));
    let sandboxed = server(
        "[[server.modules]]
name = 'guard'
component = 'guard.wasm'
",
    )
    .unwrap()
    .server
    .modules;
    assert_eq!(sandboxed[0].kind, ModuleKind::Sandboxed { component: "/srv/guard.wasm".into() });
    assert!(auth.settings.is_empty() && auth.timeout == Duration::from_millis(100));

    let module = |text: &str| format!("[[server.modules]]\n{text}\n");
    for (text, expected) in [
        (module("library = 'a.so'"), "5: `server.modules.name` is missing, expected a name such as 'log'"),
        (
            module("name = 'Log'\nlibrary = 'a.so'"),
            "6: `server.modules.name` is `Log`, expected 1 to 63 of `a` to `z`, `0` to `9`, `-` and `_`",
        ),
        (
            module("name = 'a'\nlibrary = 'a.so'").repeat(2),
            "9: `server.modules.name` is `a`, which is already the name of another module",
        ),
        (module("name = 'a'\nlibrary = ''"), "7: `server.modules.library` is ``, expected a path"),
        (
            module("name = 'a'\nlibrary = 'a.so'\nkind = 'wasm'"),
            "8: `server.modules.kind` is `wasm`, expected 'native' or 'zia'",
        ),
        (
            module("name = 'a'\nlibrary = 'a.so'\ntimeout = '1 h'"),
            "8: `server.modules.timeout` is `1 h`, expected 10 ms to 5 m, such as '500 ms'",
        ),
        (
            module("name = 'a'\nlibrary = 'a.so'\nconfig = 3"),
            "8: `server.modules.config` is a whole number, expected a table",
        ),
        (
            module(
                "name = 'a'
component = 'a.wasm'
library = 'a.so'",
            ),
            "5: `server.modules` has `component`, so it can have neither `library` nor `kind`",
        ),
        (
            module(
                "name = 'a'
component = 'a.wasm'
timeout = '1 s'",
            ),
            "5: `server.modules` has `timeout`, which is for libraries; a component has that of `[hooks]`, or of a grant with",
        ),
        (
            module(
                "name = 'a'
component = ''",
            ),
            "7: `server.modules.component` is ``, expected a path",
        ),
        ("modules = 3".to_owned(), "5: `server.modules` is a whole number, expected a list of tables"),
    ] {
        let lines: Vec<_> = server(&text).expect_err(&text).lines().collect();
        assert!(lines[0].starts_with(&format!("config.toml:{expected}")), "{lines:?}");
    }
}

#[test]
fn zia_modules() {
    let server = |text: &str| parse(&format!("[auth]\nmode = 'open'\n[server]\nmount-address = '127.0.0.1:1'\n{text}"));
    let module = |name: &str, kind: &str| {
        format!("[[server.modules]]\nname = '{name}'\nlibrary = '{name}.so'\nkind = '{kind}'\n")
    };
    let config = server(&(module("a", "zia") + &module("b", "zia") + &module("c", "native"))).unwrap();
    assert!(config.server.modules[0].kind.is_zia() && !config.server.modules[2].kind.is_zia());
    assert_eq!(config.server.zia_bridge, Path::new("snaphook-zia-bridge"));
    let bridge = |path: &str| server(&format!("zia-bridge = '{path}'\n")).unwrap().server.zia_bridge;
    assert_eq!(bridge("bridge-2"), Path::new("bridge-2"));
    assert_eq!(bridge("bin/bridge"), Path::new("/srv/bin/bridge"));

    let tls = format!("{}[server.tls]\ncertificate = 'c'\nprivate-key = 'k'\n", module("a", "zia"));
    for (text, expected) in [
        ("zia-bridge = ''".to_owned(), "5: `server.zia-bridge` is ``, expected the name or path of a program"),
        (tls, "5: module `a` has `kind = 'zia'`, and gets connections as they come from the network"),
        (
            module("a", "native") + &module("b", "zia"),
            "9: module `b` has `kind = 'zia'`, and gets connections before modules of other kinds do; put it before `a`",
        ),
    ] {
        let lines: Vec<_> = server(&text).expect_err(&text).lines().collect();
        assert!(lines[0].starts_with(&format!("config.toml:{expected}")), "{lines:?}");
    }
    let unix = format!("[auth]\nmode = 'open'\n[server]\nmount-address = 'unix:a.sock'\n{}", module("a", "zia"));
    let lines: Vec<_> = parse(&unix).expect_err("a Unix socket").lines().collect();
    assert!(lines[0].contains("5: module `a` has `kind = 'zia'`, which needs TCP connections"), "{lines:?}");
}
