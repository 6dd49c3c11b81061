//! Input to exact messages, and what the defaults are.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use super::*;

/// Enough for a configuration without faults.
const LOCAL: &str = "[server]\nmount-address = '127.0.0.1:0'\n[auth]\nmode = 'open'\n";

pub(super) fn parse(text: &str) -> Result<Config, ConfigErrors> {
    Config::parse(text, "config.toml", Path::new("/srv"), None, &|name| match name {
        "PORT_80" => Some("127.0.0.1:80".to_owned()),
        "TOKEN" => Some("hunter2".to_owned()),
        _ => None,
    })
}

/// `text` after [`LOCAL`] (whose four lines come first) has exactly these faults.
#[track_caller]
pub(super) fn check(text: &str, expected: &[&str]) {
    let found: Vec<String> = match parse(&format!("{LOCAL}{text}")) {
        Ok(_) => Vec::new(),
        Err(errors) => errors.lines().collect(),
    };
    assert_eq!(found, expected, "{text}");
}

#[track_caller]
pub(super) fn accept(text: &str) -> Config {
    match parse(&format!("{LOCAL}{text}")) {
        Ok(config) => config,
        Err(errors) => panic!("{errors}\n{text}"),
    }
}

#[test]
fn compiled_code_is_the_users() {
    let cases = [
        (&[("XDG_CACHE_HOME", "/caches"), ("HOME", "/home/me")][..], "", "/caches/snaphook/compiled"),
        (&[("XDG_CACHE_HOME", "relative"), ("HOME", "/home/me")], "", "/home/me/.cache/snaphook/compiled"),
        (&[("HOME", "/home/me")], "[hooks]\ncache = 'cache'\n", "/srv/cache"),
        (&[("HOME", "")], "", "/srv/data/cache"),
        (&[], "", "/srv/data/cache"),
    ];
    for (variables, text, expected) in cases {
        let environment =
            |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, text)| (*text).into());
        let text = format!("{LOCAL}{text}");
        let config = Config::parse(&text, "config.toml", Path::new("/srv"), None, &environment).unwrap();
        assert_eq!(config.hooks.cache, Path::new(expected), "{variables:?}");
    }
}

#[test]
fn defaults() {
    let config = Config::defaults(Path::new("/srv"));
    assert_eq!(config.server.mount_address.to_string(), "127.0.0.1:1337");
    assert_eq!(config.server.mount_path, "/");
    assert_eq!(config.server.max_body_bytes, 8 << 20);
    assert!(config.server.workers >= 1);
    assert_eq!(config.auth.mode, AuthMode::Open);
    assert_eq!(config.plugins.directory, Path::new("/srv/plugins"));
    assert_eq!(config.hooks.directory, Path::new("/srv/hooks"));
    assert!(!config.hooks.apply);
    assert_eq!(config.hooks.limits, Limits { timeout: Duration::from_millis(500), memory_bytes: 64 << 20 });
    assert_eq!((config.hooks.isolation, config.hooks.v8_reset), (Isolation::Call, V8Reset::Auto));
    assert_eq!(config.hooks.concurrency, 64);
    assert_eq!((config.hooks.attempts_max, config.hooks.webhook_attempts_max), (8, 200));
    assert_eq!(config.private_key, "file:data/secret.key");
    let stores = [&config.secure, &config.event, &config.model, &config.error];
    let stores = stores.map(|store| format!("{} {}", store.driver, store.settings["path"].as_str().unwrap()));
    assert_eq!(
        stores,
        ["file data/secrets", "sqlite data/events.db", "sqlite data/models.db", "sqlite data/errors.db"]
    );
    assert_eq!(config.grants, []);
}

/// The file of the repository, whose comments hold every other key: uncommented, they must be read, and say what the defaults
/// are.
pub(super) fn uncommented() -> String {
    let uncomment = |line: &'static str| match line.strip_prefix("# ") {
        Some(rest) if rest.contains(" = ") || rest.starts_with('[') => rest,
        _ => line,
    };
    let lines = include_str!("../../config.toml").lines().map(uncomment);
    lines.filter(|line| !line.starts_with("apply = true")).flat_map(|line| [line, "\n"]).collect()
}

#[test]
fn the_file_of_the_repository() {
    let text = include_str!("../../config.toml");
    let config = parse(text).unwrap_or_else(|errors| panic!("{errors}"));
    assert!(config.hooks.apply);
    assert_eq!(config.grants.len(), 2);

    let uncommented = uncommented();
    let all = parse(&uncommented).unwrap_or_else(|errors| panic!("{errors}\n{uncommented}"));
    let defaults = Config::defaults(Path::new("/srv"));
    // What the default is depends on the user.
    assert_eq!(all.hooks, HooksConfig { cache: "/srv/data/cache".into(), ..defaults.hooks });
    assert_eq!(all.server.max_body_bytes, defaults.server.max_body_bytes);
    assert_eq!(all.server.mount_path, defaults.server.mount_path);
    assert_eq!((all.server.memory_bytes, defaults.server.memory_bytes), (256 << 20, 256 << 20));
    let traces = all.telemetry.traces.expect("the file says where they go");
    assert_eq!((traces.endpoint.as_str(), traces.sample), ("http://127.0.0.1:4318/", 1.0));
    assert_eq!((traces.service_name.as_str(), all.telemetry.log_format), ("snaphook", LogFormat::Text));
    assert_eq!(defaults.telemetry, TelemetryConfig::default());
    let unplaced = |config: &DriverConfig| DriverConfig { line: None, lines: BTreeMap::new(), ..config.clone() };
    assert_eq!(unplaced(&all.secure), defaults.secure);
    assert_eq!(unplaced(&all.event), defaults.event);
    assert_eq!(unplaced(&all.model), defaults.model);
    assert_eq!(unplaced(&all.error), defaults.error);
    assert_eq!(all.private_key, defaults.private_key);
    assert_eq!(all.grants.len(), 5);
}

#[test]
fn modes() {
    let lines = |text: &str| parse(text).map_err(|errors| errors.lines().collect::<Vec<_>>());
    assert_eq!(
        lines("[auth]\nmode = 'open'\n").unwrap_err(),
        [
            "config.toml:2: `server.mount-address` is `0.0.0.0:1337` (the default) and `auth.mode` is 'open': whoever reaches \
          that address could read and change everything; expected a loopback address, write `mount-address = \
          '127.0.0.1:1337'` under `[server]`"
        ]
    );
    assert_eq!(
        lines("[server]\nmount-address = '192.168.1.7:80'\n[auth]\nmode = 'open'\n").unwrap_err(),
        [
            "config.toml:2: `server.mount-address` is `192.168.1.7:80` and `auth.mode` is 'open': whoever reaches that address \
          could read and change everything; expected a loopback address, write `mount-address = '127.0.0.1:80'` under \
          `[server]`"
        ]
    );
    // With tokens any address will do.
    assert!(lines("").is_ok());
    assert!(lines("[server]\nmount-address = '192.168.1.7:80'\n[auth]\nmode = 'tokens'\n").is_ok());
    for address in ["127.0.0.1:1337", "127.8.9.1:0", "[::1]:1337", "[::ffff:127.0.0.1]:1337"] {
        assert!(parse(&format!("[server]\nmount-address = '{address}'\n[auth]\nmode = 'open'\n")).is_ok(), "{address}");
    }
}

#[test]
fn faults_of_sections() {
    for (text, expected) in [
        ("", &[][..]),
        ("[servr]\n", &["config.toml:5: unknown key `servr`, did you mean `server`?"]),
        (
            "[hooks]\ntimout = '1 s'\nretries = 3\n",
            &[
                "config.toml:6: unknown key `hooks.timout`, did you mean `hooks.timeout`?",
                "config.toml:7: unknown key `hooks.retries`, known are `directory`, `apply`, `cache`, `timeout`, `memory`, \
                 `isolation`, `v8`, `concurrency`, `max-attempts`, `webhook-attempts`",
            ],
        ),
        (
            "[hooks]\ntimeout = '0 s'\nmemory = '64 MB'\nconcurrency = 0\nmax-attempts = -1\napply = 'yes'\n",
            &[
                "config.toml:6: `hooks.timeout` is `0 s`, expected 1 ms to 10 m, such as '500 ms'",
                "config.toml:7: `hooks.memory` is `64 MB`, expected 1 MiB to 4 GiB, such as '8 MiB'",
                "config.toml:8: `hooks.concurrency` is 0, expected 1 to 10000",
                "config.toml:9: `hooks.max-attempts` is -1, expected 1 to 100",
                "config.toml:10: `hooks.apply` is a string, expected true or false",
            ],
        ),
        (
            "[hooks]\ntimeout = 500\nisolation = 'process'\ndirectory = ''\nconcurrency = 1.5\n",
            &[
                "config.toml:6: `hooks.timeout` is a whole number, expected a duration, 1 ms to 10 m, such as '500 ms'",
                "config.toml:7: `hooks.isolation` is `process`, expected 'call' or 'reuse'",
                "config.toml:8: `hooks.directory` is ``, expected a path",
                "config.toml:9: `hooks.concurrency` is a number with a fraction, expected a whole number, 1 to 10000",
            ],
        ),
        (
            "[connections]\nx = 7\n[connections.A]\ndriver = 'remote'\n[connections.main]\nurl = 'x'\n",
            &[
                "config.toml:6: `connections.x` is a whole number, expected a table",
                "config.toml:7: `connections.A` is not a valid connection name, expected 1 to 63 of `a` to `z`, `0` to \
                 `9`, `-` and `_`",
                "config.toml:9: `connections.main.driver` is missing, expected the name of a driver that supports \
                 connections",
            ],
        ),
        ("hooks = 3\n", &["config.toml:5: unknown key `auth.hooks`, known are `mode`, `oidc`"]),
        (
            "[driver-event-storage]\ndriver = 7\n[driver-model-storage]\npath = 'secret:x'\n[driver-secure-storage]\npath = \
             'secret:x'\nprivate-key = 'AGE-SECRET-KEY-1'\n",
            &[
                "config.toml:6: `driver-event-storage.driver` is a whole number, expected a string",
                "config.toml:10: `driver-secure-storage.path` is a `secret:` reference, which cannot work here: the secure \
                 storage itself contains the secrets; use `env:`",
                "config.toml:11: `driver-secure-storage.private-key` does not name the location of an age identity, \
                 expected 'file:PATH' or 'env:NAME'",
            ],
        ),
        (
            "[driver-error-storage]\nurl = 'env:NO_SUCH'\nlist = [1, { a = 'env:NO_SUCH' }]\n",
            &[
                "config.toml:6: `driver-error-storage.url` is `env:NO_SUCH`, but the environment variable `NO_SUCH` is not set",
                "config.toml:7: `driver-error-storage.list.a` is `env:NO_SUCH`, but the environment variable `NO_SUCH` is not \
                 set",
            ],
        ),
        (
            "[hooks]\nisolation = 'env:TOKEN'\ncache = 'secret:cache'\n",
            &[
                "config.toml:6: `hooks.isolation` is the value of the environment variable `TOKEN`, expected 'call' or \
                 'reuse'",
                "config.toml:7: `hooks.cache` is a `secret:` reference, which works only in the settings of the event, model \
                 and error storage and in `server.tls`",
            ],
        ),
    ] {
        check(text, expected);
    }
}

#[test]
fn faults_of_the_server() {
    let lines = |text: &str| parse(text).map_err(|errors| errors.lines().collect::<Vec<_>>()).unwrap_err();
    let text = "[server]\nmount-address = 'localhost:1337'\nmount-path = 'api'\nmax-body = '0 B'\nworkers = 2000\n\
                [server.tls]\ncertificate = 'cert.pem'\n[server.limits]\nmemory = '1 MiB'\nmemroy = 1\n[[server.modules]]\nname = 'log'\n[auth]\nmode = 'none'\n";
    assert_eq!(
        lines(text),
        [
            "config.toml:2: `server.mount-address` is `localhost:1337`, expected an IP address and a port such as \
             '127.0.0.1:1337', or a Unix socket such as 'unix:data/api.sock'",
            "config.toml:3: `server.mount-path` is `api`, expected a path such as '/' or '/api', of letters, digits and \
             `-._~`",
            "config.toml:4: `server.max-body` is `0 B`, expected 1 KiB to 256 MiB, such as '8 MiB'",
            "config.toml:5: `server.workers` is 2000, expected 0 to 1024",
            "config.toml:6: `server.tls.private-key` is missing, expected a PEM file or 'secret:NAME'",
            "config.toml:9: `server.limits.memory` is `1 MiB`, expected 16 MiB to 1024 GiB, such as '8 MiB'",
            "config.toml:10: unknown key `server.limits.memroy`, did you mean `server.limits.memory`?",
            "config.toml:11: `server.modules.library` is missing, expected the path of a library such as \
             'libsnaphook_module_log.so', or `component`",
            "config.toml:14: `auth.mode` is `none`, expected 'tokens' or 'open'",
        ]
    );
    assert_eq!(lines("server = 3\n")[0], "config.toml:1: `server` is a whole number, expected a table");
    let broken = lines("[server]\nmount-path = '/'\npassword = hunter2\n");
    assert_eq!(broken.len(), 1, "{broken:?}");
    assert!(broken[0].starts_with("config.toml:3: not valid TOML: ") && !broken[0].contains("hunter2"), "{broken:?}");
}

#[test]
fn mount_paths() {
    for (text, expected) in [("/", "/"), ("/api", "/api"), ("/api/", "/api"), ("/a/b.c", "/a/b.c")] {
        let config =
            parse(&format!("[server]\nmount-address = 'env:PORT_80'\nmount-path = '{text}'\n[auth]\nmode = 'open'\n"));
        let config = config.unwrap();
        assert_eq!(config.server.mount_path, expected);
        assert_eq!(config.url(), format!("http://127.0.0.1:80{}", if expected == "/" { "" } else { expected }));
    }
    for text in ["", "api", "//", "/a//b", "/../x", "/a b", "/{x}", "/a?b", "/%41"] {
        let text = format!("[server]\nmount-address = 'env:PORT_80'\nmount-path = '{text}'\n[auth]\nmode = 'open'\n");
        assert!(parse(&text).is_err(), "{text}");
    }
}

#[test]
fn faults_of_grants() {
    let process = "[[grants]]\nmodel = 'a'\nphase = 'postCreate'\n";
    let such = " ('[METHOD ]URL' such as 'https://api.example.com/v1/*' or 'POST https://hooks.example.com/*')";
    let scheme = format!("a URL that starts with `https://` or `http://`{such}");
    for (text, expected) in [
        (
            "[[grants]]\n",
            &[
                "config.toml:5: `grants.model` is missing, expected a model id or a glob, such as 'invoice' or '*'",
                "config.toml:5: `grants.phase` is missing, expected a phase, a list of phases or '*'",
                "config.toml:5: `grants` opens nothing, expected at least one of `read`, `write`, `http`, `process`, `secret`, \
                 `amend`, `timeout`, `memory`",
            ][..],
        ),
        (
            "[[grants]]\nmodel = 'invoice'\nphase = 'preCreate'\nread = ['x']\nhttp = ['https://a.example/*']\n",
            &["config.toml:9: `grants.http` can never be used by `preCreate`: only post phases have it"],
        ),
        (
            "[[grants]]\nmodel = '*'\nphase = ['preDelete', 'postCreate', 'preCreate']\namend = true\nwrite = []\nprocess = []\n",
            &[
                "config.toml:8: `grants.amend` can never be used by `postCreate`, `preDelete`: only `preCreate` and \
                 `preUpdate` have data to amend",
                "config.toml:9: `grants.write` can never be used by `preCreate`, `preDelete`: only post phases have it",
                "config.toml:10: `grants.process` can never be used by `preCreate`, `preDelete`: only post phases have it",
            ],
        ),
        (
            "[[grants]]\nmodel = 'Invoice'\nphase = ['onCreate', 'postcreate', 7]\nread = ['[a', 'b-*']\nhook = 'sha256:12'\n\
             raed = []\namend = 1\n",
            &[
                "config.toml:6: `grants.model` is `Invoice`, expected a model id (a-z, 0-9, `_` and `-`, at most 63, not \
                 starting with `_` or `-`) or a glob",
                "config.toml:7: `grants.phase` is `onCreate`: not a phase; phases are `preCreate`, `postCreate`, \
                 `preUpdate`, `postUpdate`, `preDelete`, `postDelete`",
                "config.toml:7: `grants.phase` is `postcreate`: not a phase, did you mean `postCreate`?",
                "config.toml:7: `grants.phase` is a whole number, expected a phase",
                "config.toml:8: `grants.read` is `[a`, not a glob: `[` has no meaning, only `*` matches any text",
                "config.toml:9: `grants.hook` is `sha256:12`, expected `sha256:` and 64 lowercase hex digits, as `GET \
                 …/hooks/{phase}` shows them",
                "config.toml:10: unknown key `grants.raed`, did you mean `grants.read`?",
                "config.toml:11: `grants.amend` is a whole number, expected true or false",
            ],
        ),
        (
            "[[grants]]\nmodel = 'a'\nphase = 'postCreate'\nhttp = [\n  'https://a.example/*',\n  'ftp://a.example/',\n  \
             'post https://a.example/',\n  'https://me:hunter2@a.example/',\n  'a.example/*',\n  'https://a.example*/',\n  'https://a.example:*/*',\n  \
             'https://*/',\n  'CONNECT https://a.example/',\n  'HTTPS://a.example/',\n  'https:a.example/*',\n]\n",
            &[
                &format!("config.toml:10: `grants.http` is `ftp://a.example/`, expected {scheme}"),
                &format!(
                    "config.toml:11: `grants.http` is `post https://a.example/`, expected an HTTP method in capitals before \
                     the URL{such}"
                ),
                "config.toml:12: `grants.http` cannot be used, expected a URL without a user name or password; the hook can \
                 send a header with `{{secret:NAME}}`",
                &format!("config.toml:13: `grants.http` is `a.example/*`, expected {scheme}"),
                &format!(
                    "config.toml:14: `grants.http` is `https://a.example*/`, expected a host that does not end with `*`: at the \
                     end of the host it would match hosts of anybody{such}"
                ),
                &format!(
                    "config.toml:17: `grants.http` is `CONNECT https://a.example/`, expected another method than CONNECT, \
                     which no hook may use{such}"
                ),
                &format!("config.toml:18: `grants.http` is `HTTPS://a.example/`, expected {scheme}"),
                &format!("config.toml:19: `grants.http` is `https:a.example/*`, expected {scheme}"),
            ],
        ),
        (
            &format!(
                "{process}process = [{{ program = 'bin/x' }}, {{ args = [] }}, {{ program = '/bin/../x', timeout = '0 s' }}]\n"
            ),
            &[
                "config.toml:8: `grants.process.program` is `bin/x`, expected an absolute path without `..`, such as \
                 '/usr/bin/pdftotext'",
                "config.toml:8: `grants.process.program` is missing, expected an absolute path",
                "config.toml:8: `grants.process.program` is `/bin/../x`, expected an absolute path without `..`, such as \
                 '/usr/bin/pdftotext'",
                "config.toml:8: `grants.process.timeout` is `0 s`, expected 1 ms to 4 m, such as '500 ms'",
            ],
        ),
        (
            &format!("{process}process = [{{ program = '/bin/x', env = {{ 'A B' = 'x', C = 7 }}, shell = true }}]\n"),
            &[
                "config.toml:8: `grants.process.env.A B` is not a valid name of an environment variable, expected \
                 letters, digits and `_`",
                "config.toml:8: `grants.process.env.C` is a whole number, expected its value, or true if the call may set it",
                "config.toml:8: unknown key `grants.process.shell`, known are `program`, `args`, `env`, `timeout`, `memory`, \
                 `output`",
            ],
        ),
        (
            "[grants]\nmodel = 'a'\n",
            &["config.toml:5: `grants` is a table, expected a list of tables, each under `[[grants]]`"],
        ),
    ] {
        check(text, expected);
    }
}

#[test]
fn grants() {
    let config = accept(
        "[[grants]]\nmodel = 'invoice'\nphase = 'postCreate'\nread = ['customer', 'audit-*']\nwrite = ['audit-*']\n\
         http = ['https://api.example.com/v1/*', 'POST https://*.example.com/*']\nsecret = ['mail-key']\ntimeout = '2 s'\n\
         memory = '128 MiB'\nprocess = [{ program = '/usr/bin/x', args = ['-l', '*', ''], env = { A = 'env:TOKEN', B = true }, \
         timeout = '3 s' }]\n\n[[grants]]\nmodel = '*'\nphase = '*'\nwrite = ['a']\namend = true\n",
    );
    let [first, second] = &config.grants[..] else { panic!() };
    assert_eq!((first.line, second.line), (5, 16));
    let hooks = |model: &str, phases: &[Phase]| GrantTarget::Hooks {
        model: model.to_owned(),
        phases: phases.to_vec(),
        hook: "*".to_owned(),
    };
    assert_eq!(first.target, hooks("invoice", &[Phase::PostCreate]));
    assert_eq!(first.write, ["audit-*"]);
    assert_eq!(first.http, ["https://api.example.com/v1/*", "POST https://*.example.com/*"]);
    assert_eq!(first.timeout, Some(Duration::from_secs(2)));
    assert_eq!(first.memory_bytes, Some(128 << 20));
    let process = &first.process[0];
    assert_eq!(process.args, ["-l", "*", ""]);
    assert_eq!(process.env.get("A"), Some(&Some("hunter2".to_owned())));
    assert_eq!(process.env.get("B"), Some(&None));
    assert_eq!(process.timeout, Duration::from_secs(3));
    assert_eq!(process.memory_bytes, 256 << 20);
    assert_eq!(second.target, hooks("*", &Phase::ALL));
    assert!(second.amend && !first.amend);
}

#[test]
fn storages() {
    let config = accept(
        "[driver-event-storage]\ndriver = 'postgres'\nurl = 'env:TOKEN'\npool = { size = 4 }\n[driver-model-storage]\n\
         driver = 'memory'\n[driver-error-storage]\npassword = 'secret:db'\n[driver-secure-storage]\nprivate-key = 'env:KEY'\n",
    );
    assert_eq!(config.event.line, Some(6));
    assert_eq!(
        serde_json::Value::Object(config.event.settings),
        serde_json::json!({"url": "hunter2", "pool": {"size": 4}})
    );
    assert!(config.model.settings.is_empty());
    assert_eq!(
        serde_json::Value::Object(config.error.settings),
        serde_json::json!({"password": "secret:db", "path": "data/errors.db"})
    );
    assert_eq!(config.private_key, "env:KEY");
}

#[test]
fn plugins_are_pinned_by_whole_digests() {
    let digest = "0123456789abcdef".repeat(4);
    let config = accept(&format!("[plugins]\nsha256 = ['{digest}']\nreplace = ['sqlite']\n"));
    assert_eq!((config.plugins.sha256, config.plugins.replace), (vec![digest], vec!["sqlite".to_owned()]));
    let error = parse(&format!("{LOCAL}[plugins]\nsha256 = ['0123', 7]\n")).unwrap_err().to_string();
    assert!(error.contains("expected 64 lowercase hex digits, as `snaphook plugin list` shows them"), "{error}");
}

#[test]
fn nothing_of_the_environment_is_shown() {
    for key in ["mount-address", "mount-path", "max-body", "workers"] {
        let errors = parse(&format!("[server]\n{key} = 'env:TOKEN'\n")).unwrap_err().to_string();
        assert!(!errors.contains("hunter2"), "{errors}");
    }
}

#[test]
fn transport() {
    let config = accept("");
    assert_eq!((&config.server.tls, &config.server.static_files, config.server.redirect_http), (&None, &None, None));
    assert_eq!((config.server.connections_max, config.server.trusted_proxies.is_empty()), (10_000, true));

    let server = |text: &str| parse(&format!("[server]\n{text}\n[auth]\nmode = 'open'\n"));
    let config = server(
        "mount-address = '127.0.0.1:443'\nredirect-http = '127.0.0.1:80'\n\
         limits = { connections = 7, trusted-proxies = ['::1', 'unix'] }\n\
         tls = { certificate = 'tls/cert.pem', private-key = 'secret:key', client-ca = '/ca.pem' }\n\
         static = { directory = 'public', fallback = 'app/index.html' }",
    )
    .unwrap();
    let tls = config.server.tls.clone().unwrap();
    assert_eq!(tls.certificate.source, PemSource::File("/srv/tls/cert.pem".into()));
    assert_eq!(tls.private_key.source, PemSource::Secret("key".to_owned()));
    assert_eq!(tls.files(), [Path::new("/srv/tls/cert.pem"), Path::new("/ca.pem")]);
    assert!(!tls.has_pair_in_files());
    let files = config.server.static_files.clone().unwrap();
    assert_eq!((&*files.directory, files.fallback.as_deref()), (Path::new("/srv/public"), Some("app/index.html")));
    assert_eq!((config.server.connections_max, config.server.trusted_proxies.trusts(None)), (7, true));
    assert_eq!(config.url(), "https://127.0.0.1:443");

    let config = server("mount-address = 'unix:data/api.sock'").unwrap();
    assert_eq!(config.server.mount_address, MountAddress::Unix("/srv/data/api.sock".into()));
    assert_eq!((config.url(), config.server.mount_address.port()), ("http://localhost".to_owned(), None));

    let long = format!("mount-address = 'unix:{}'", "a".repeat(100));
    let local = |text: &str| format!("mount-address = '127.0.0.1:1'\n{text}");
    for (text, expected) in [
        ("mount-address = 'unix:'".to_owned(), "2: `server.mount-address` is `unix:`, expected an IP address"),
        (long, "2: `server.mount-address` is a Unix socket whose whole path has 105 bytes"),
        (local("redirect-http = '127.0.0.1:80'"), "3: `server.redirect-http` redirects to https"),
        (local("redirect-http = ':80'"), "3: `server.redirect-http` is `:80`, expected an IP address"),
        (
            "mount-address = 'unix:a'\nredirect-http = '127.0.0.1:80'\ntls = { certificate = 'a', private-key = 'b' }"
                .to_owned(),
            "3: `server.redirect-http` redirects to the port",
        ),
        (
            local("tls = { certificate = '', private-key = 'b' }"),
            "3: `server.tls.certificate` is ``, expected a PEM file",
        ),
        (
            local("tls = { certificate = 'a', private-key = 'secret:' }"),
            "3: `server.tls.private-key` is `secret:`, expected a PEM file or 'secret:NAME'",
        ),
        (local("tls = {}"), "3: `server.tls.certificate` is missing"),
        (local("static = {}"), "3: `server.static.directory` is missing"),
        (local("cors = {}"), "3: `server.cors.origins` is missing"),
        (local("cors = { origins = ['*'] }"), "3: `server.cors.origins"),
        (local("cors = { origins = ['https://a.example/'] }"), "3: `server.cors.origins"),
        (local("cors = { origins = ['https://a.example:443'] }"), "3: `server.cors.origins"),
        (local("cors = { origins = ['https://A.example'] }"), "3: `server.cors.origins"),
        (local("cors = { origins = ['null'] }"), "3: `server.cors.origins"),
        (local("static = { directory = 'a', fallback = '../b' }"), "3: `server.static.fallback`"),
        (local("static = { directory = 'a', fallback = '/b' }"), "3: `server.static.fallback`"),
        (local("static = { directory = 'a', fallback = '.b' }"), "3: `server.static.fallback`"),
        (local("limits.connections = 0"), "3: `server.limits.connections` is 0, expected 1 to 32768"),
        (
            local("limits.trusted-proxies = ['10.0.0.0/99']"),
            "3: `server.limits.trusted-proxies` is `10.0.0.0/99`, expected an IP address, a network",
        ),
        (
            local("limits.hosts = ['https://api.example.com']"),
            "3: `server.limits.hosts` is `https://api.example.com`, expected a name such as 'api.example.com'",
        ),
    ] {
        let lines: Vec<_> = server(&text).expect_err(&text).lines().collect();
        assert!(lines[0].starts_with(&format!("config.toml:{expected}")), "{lines:?}");
    }
}
