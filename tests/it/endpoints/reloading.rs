//! Components and lists that change while the server runs.

use rustix::process::Signal;

use super::{TOOL, server};
use crate::support::{Server, eventually};

fn says(server: &Server, text: &str) -> usize {
    server.log().iter().filter(|line| line.contains(text)).count()
}

fn write(server: &Server, name: &str, bytes: &[u8]) {
    let path = server.directory().join(name);
    // Replace the file atomically, as deployments do.
    let other = path.with_extension("new");
    std::fs::write(&other, bytes).expect("a file");
    std::fs::rename(other, path).expect("a rename");
}

#[test]
fn a_changed_component_takes_effect_and_a_broken_one_does_not() {
    let Some(server) = server("") else { return };
    let api = server.client();
    api.get("/tool/echo").expect(200);
    assert_eq!(says(&server, "endpoint `tool` at /tool"), 1);
    let component = std::fs::read(server.directory().join("tool.wasm")).expect("the component");

    write(&server, "tool.wasm", b"no component");
    server.signal(Signal::HUP);
    eventually("the broken one is refused", || (says(&server, "which cannot be used") > 0).then_some(()));
    api.get("/tool/echo").expect(200);

    // A custom section makes it a different component with the same behaviour.
    write(&server, "tool.wasm", &[&component[..], b"\x00\x05\x04same"].concat());
    server.signal(Signal::HUP);
    eventually("the new one is there", || (says(&server, "endpoint `tool` at /tool") == 2).then_some(()));
    api.get("/tool/echo").expect(200);
}

#[test]
fn endpoints_and_their_grants_come_and_go_with_the_file() {
    let Some(server) = server("") else { return };
    super::orders(&server);
    let api = server.client();
    let file = server.config_file();
    let before = std::fs::read_to_string(&file).expect("the config");
    let more = "[[server.endpoints]]\nname = 'late'\npath = '/late/one'\ncomponent = 'tool.wasm'\n\
                [[grants]]\nendpoint = 'late'\nread = ['order']\n";
    write(&server, "config.toml", format!("{before}{more}").as_bytes());
    server.signal(Signal::HUP);
    eventually("the new endpoint answers", || (api.get("/late/one/echo").status == 200).then_some(()));
    assert!(api.get("/late/one/capabilities?x").expect(200).text().contains("read: {"));
    api.get("/late/two").expect_problem(404, "not-found");

    write(&server, "config.toml", before.replace(TOOL, &TOOL.replace("/tool", "/moved")).as_bytes());
    server.signal(Signal::HUP);
    eventually("it has moved", || (api.get("/moved/echo").status == 200).then_some(()));
    api.get("/tool/echo").expect_problem(404, "not-found");
    api.get("/late/one/echo").expect_problem(404, "not-found");

    // A path of the API is rejected, and the previous endpoint stays.
    write(&server, "config.toml", before.replace(TOOL, &TOOL.replace("/tool", "/events/x")).as_bytes());
    server.signal(Signal::HUP);
    eventually("it is refused", || (says(&server, "the previous configuration stays in force") > 0).then_some(()));
    api.get("/moved/echo").expect(200);
}
