//! A setup that cannot work is rejected at the start, with one line.

use super::*;

/// The output of `snaphook` with these modules, which must fail.
#[track_caller]
fn fails(command: &str, options: &ServerOptions) -> String {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::create_dir(folder.path().join("hooks")).expect("a folder for hooks");
    let config = format!("[server]\nmount-address = '127.0.0.1:0'\n{}\n[auth]\nmode = 'open'\n", options.server);
    std::fs::write(folder.path().join("config.toml"), config).expect("a config");
    let mut run = Command::new(env!("CARGO_BIN_EXE_snaphook"));
    let output = run.arg(command).current_dir(folder.path()).output().expect("the binary starts");
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(!output.status.success(), "{said}");
    said
}

#[test]
fn libraries_that_cannot_work() {
    if !are_there() {
        return;
    }
    for (library, says) in [
        ("old_strings", "was built with the old std::string (_GLIBCXX_USE_CXX11_ABI=0)"),
        ("debug_containers", "was built with _GLIBCXX_DEBUG"),
        ("hidden", "exports no function `factory`"),
        ("mangled", "exports `factory` as a C++ function"),
        ("missing", "undefined symbol: _Z15defined_nowherev"),
        (
            "other_boost",
            "takes the socket of another Boost (boost::asio::basic_stream_socket<boost::asio::ip::tcp, boost::asio::executor>)",
        ),
        ("none", "cannot be read: No such file or directory"),
    ] {
        let said = fails("serve", &options(&[module("broken", library, "")]));
        assert!(
            said.contains("config.toml:4: module `broken` cannot be used: its library ") && said.contains(says),
            "{said}"
        );
    }
    let text = folder().join("text.so");
    std::fs::write(&text, "no library").expect("a file");
    let said = fails("serve", &options(&[module("broken", "text", "")]));
    assert!(said.contains("is not an ELF library"), "{said}");
}

#[test]
fn modules_that_fail_at_their_start() {
    if !are_there() {
        return;
    }
    for (how, says) in [
        ("throw-exception", "onActivate threw on purpose in two lines"),
        ("throw-class", "onActivate threw a value of the type (anonymous namespace)::Oddity"),
        ("throw-int", "onActivate threw a value of the type int"),
        ("crash", "its onActivate crashed"),
    ] {
        let config = format!("config.activate = '{how}'");
        let said = fails("serve", &options(&[module("faulty", "faulty", &config)]));
        assert!(said.contains("module `faulty` cannot be used") && said.contains(says), "{said}");
    }
    let said = fails("serve", &options(&[module("tls", "tls", "config = { certificate = '/none', key = '/none' }")]));
    assert!(said.contains("module `tls` cannot be used") && said.contains("onActivate threw "), "{said}");
    // An optional module is skipped.
    let optional = "optional = true\nconfig.activate = ";
    for (how, says) in [("'throw-int'", "onActivate threw"), ("'crash'", "3 faults within a minute")] {
        let server = start(&[module("faulty", "faulty", &format!("{optional}{how}")), module("log", "access_log", "")]);
        expect_log(&server, "module `faulty` is deactivated: ");
        expect_log(&server, says);
        assert!(get(&server, "/throw-int").starts_with("HTTP/1.1 404 "));
    }
}

#[test]
fn a_missing_bridge_is_named() {
    let modules = [module("log", "access_log", "")];
    let without = |bridge: &str| ServerOptions {
        server: format!("zia-bridge = '{bridge}'\n{}", modules.concat()),
        ..ServerOptions::default()
    };
    for command in ["check", "serve"] {
        for (bridge, place) in
            [("/none/bridge", "does not exist"), ("no-such-bridge", "is neither beside this binary nor in PATH")]
        {
            let said = fails(command, &without(bridge));
            assert!(
                said.contains(&format!(
                    "config.toml:4: modules with `kind = 'zia'` run in the program `{bridge}`, which {place}"
                )) && said.contains("`cargo xtask modules` builds it"),
                "{said}"
            );
        }
    }
}
