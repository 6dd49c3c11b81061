//! `snaphook check`, and what `serve` rejects before anything starts.

use super::{START, folder, run, write};

#[test]
fn a_configuration_that_is_fine() {
    let directory = folder(&format!("{START}[[grants]]\nmodel = '*'\nphase = 'preCreate'\namend = true\n"));
    let said = run(directory.path(), &["check"]).ok();
    assert!(said.contains("config.toml is fine") && said.contains("1 grant"), "{said}");
    // The command wrote nothing.
    assert_eq!(std::fs::read_dir(directory.path()).expect("a folder").count(), 1);
}

#[test]
fn grants_that_name_nothing_are_warned_about() {
    use crate::support::{Server, ServerOptions};

    let tables = "[[grants]]\nmodel = 'order'\nphase = 'postCreate'\nhook = 'mial'\nread = ['order', 'custmer']\n\
                  secret = ['key']\nprocess = [{ program = '/nowhere/x', args = [] }]\n\
                  [[grants]]\nmodel = 'ordr'\nphase = 'preCreate'\namend = true\n";
    let server = Server::start_with(ServerOptions { tables: tables.to_owned(), ..ServerOptions::default() });
    let api = server.client();
    crate::workbench::open_model(&api, "order");
    api.put_javascript("order", "postCreate", "export default () => {}").expect(200);
    let url = format!("http://{}", server.address());
    let said = run(server.directory(), &["--url", &url, "check"]).ok();
    for warning in [
        "there is no program `/nowhere/x`",
        "no hook of `order` is called `mial`",
        "`read` names `custmer`, but there is no such model",
        "`secret` names `key`, but there is no such secret",
        "no model is called `ordr`",
    ] {
        assert!(said.lines().any(|line| line.starts_with("warning: ") && line.contains(warning)), "{warning}: {said}");
    }
    assert_eq!(said.matches("warning: ").count(), 5, "{said}");
    api.request("PUT", "/secrets/key").body("text/plain", "x").send().expect(204);
    assert!(!run(server.directory(), &["--url", &url, "check"]).ok().contains("`key`"));
}

const FAULTY: &str = "[server]
mount-address = 'localhost:1337'
max-body = '8 MB'
[server.tls]
certificate = 'x'
[auth]
mode = 'open'
[hooks]
timeout = '0 s'
isolation = 'process'
concurency = 3
[[grants]]
model = 'invoice'
phase = 'preCreate'
http = ['https://api.example.com/*']
[[grants]]
model = 'Invoice'
phase = ['postCreate', 'onCreate']
read = 7
";

const FAULTS: [(usize, &str); 10] = [
    (2, "`server.mount-address` is `localhost:1337`"),
    (3, "`server.max-body` is `8 MB`"),
    (4, "`server.tls.private-key` is missing"),
    (9, "`hooks.timeout` is `0 s`"),
    (10, "`hooks.isolation` is `process`, expected 'call' or 'reuse'"),
    (11, "unknown key `hooks.concurency`, did you mean `hooks.concurrency`?"),
    (15, "`grants.http` can never be used by `preCreate`"),
    (17, "`grants.model` is `Invoice`"),
    (18, "`grants.phase` is `onCreate`"),
    (19, "`grants.read` is a whole number"),
];

#[test]
fn every_fault_at_once_with_its_line() {
    let directory = folder(FAULTY);
    for args in [&["check"][..], &["serve"], &[], &["rebuild"], &["--config", "config.toml", "check"]] {
        let said = run(directory.path(), args).fails();
        let lines: Vec<&str> = said.lines().filter(|line| line.starts_with("config.toml:")).collect();
        assert_eq!(lines.len(), FAULTS.len(), "{args:?}: {said}");
        for (line, (number, says)) in lines.iter().zip(FAULTS) {
            assert!(line.starts_with(&format!("config.toml:{number}: ")) && line.contains(says), "{args:?}: `{line}`");
        }
    }
    assert_eq!(std::fs::read_dir(directory.path()).expect("a folder").count(), 1, "nothing was started");
    // A driver name is checked once the rest of the file is valid.
    let directory = folder(&format!("{START}[driver-event-storage]\ndriver = 'sqlit'\n"));
    let said = run(directory.path(), &["check"]).fails();
    assert!(said.contains("config.toml:6: ") && said.contains("did you mean `sqlite`"), "{said}");
}

#[test]
fn other_files_and_none() {
    let directory = folder(FAULTY);
    write(directory.path(), "other/mine.toml", START);
    assert!(run(directory.path(), &["--config", "other/mine.toml", "check"]).ok().contains("other/mine.toml is fine"));
    let said = run(directory.path(), &["--config", "missing.toml", "check"]).fails();
    assert!(said.starts_with("missing.toml: cannot be read"), "{said}");
    write(directory.path(), "broken.toml", "[server]\nmount-path = '/'\npassword = hunter2\n");
    let said = run(directory.path(), &["--config", "broken.toml", "check"]).fails();
    assert!(said.starts_with("broken.toml:3: not valid TOML") && !said.contains("hunter2"), "{said}");
    let empty = tempfile::tempdir().expect("a folder");
    assert_eq!(
        run(empty.path(), &["check"]).ok(),
        "no config.toml here, the defaults are fine: serves at http://127.0.0.1:1337, no grants\n"
    );
    // An empty file means a server with tokens that other machines may reach.
    let said = run(folder("").path(), &["check"]).ok();
    assert!(said.starts_with("config.toml is fine"), "{said}");
}

#[test]
fn addresses_that_others_reach_are_refused() {
    for address in ["0.0.0.0:1337", "192.168.1.7:80", "[::]:1337", "[::ffff:10.0.0.1]:1"] {
        let directory = folder(&format!("[server]\nmount-address = '{address}'\n[auth]\nmode = 'open'\n"));
        for args in ["check", "serve"] {
            let said = run(directory.path(), &[args]).fails();
            assert!(said.starts_with("config.toml:2: ") && said.contains("expected a loopback address"), "{said}");
        }
    }
}

#[test]
fn files_that_would_be_applied_are_checked() {
    let directory = folder(&format!("{START}[hooks]\napply = true\n"));
    write(directory.path(), "hooks/invoice/model.json", r#"{"schema": {"type": "object"}}"#);
    write(directory.path(), "hooks/invoice/preCreate.js", "export default () => {};");
    let said = run(directory.path(), &["check"]).ok();
    assert!(said.contains("1 model applied at start"), "{said}");
    write(directory.path(), "hooks/Bad/model.json", "{\n  \"schema\": \n}");
    write(directory.path(), "hooks/other/model.json", r#"{"schema": {"type": "object"}, "colour": 1}"#);
    write(directory.path(), "hooks/invoice/precreate.js", "");
    let said = run(directory.path(), &["check"]).fails();
    for says in ["hooks/Bad", "hooks/other/model.json", "hooks/invoice/precreate.js"] {
        assert!(said.contains(says), "`{says}` is missing in: {said}");
    }
    assert!(run(directory.path(), &["serve"]).fails().contains("hooks/other/model.json"));
}

#[test]
fn an_address_that_is_taken() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    let directory = folder(&format!("[server]\nmount-address = '{address}'\n[auth]\nmode = 'open'\n"));
    let said = run(directory.path(), &["serve"]).fails();
    assert!(said.contains(&format!("`server.mount-address` is `{address}`, which cannot be listened on")), "{said}");
}

#[test]
fn a_step_of_the_start_that_fails() {
    let directory = folder(&format!("{START}[driver-model-storage]\ndriver = 'sqlite'\npath = 'file/models.db'\n"));
    write(directory.path(), "file", "not a folder");
    let said = run(directory.path(), &["serve"]).fails();
    assert!(said.contains("model") && said.contains("file"), "{said}");
    assert_eq!(said.lines().filter(|line| line.starts_with("error: ")).count(), 1, "{said}");
}
