//! Commands that read and then write, while another client changes the same thing in between.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, channel};
use std::thread;

use serde_json::{Value, json};

use super::{Ended, run};
use crate::support::{Client, Server, create_orders};

/// A proxy that makes an additional change before it forwards the first write request.
struct Meddler {
    address: SocketAddr,
    /// Receives a message after that change.
    meddled: Receiver<()>,
}

impl Meddler {
    fn new(server: &Server, meddle: impl FnOnce() + Send + 'static) -> Meddler {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let (address, to) = (listener.local_addr().expect("an address"), server.address());
        let (sender, meddled) = channel();
        // One connection after another: the command needs only one at a time.
        thread::spawn(move || {
            let mut meddle = Some(meddle);
            for client in listener.incoming() {
                let (mut client, mut server) = (client.expect("a client"), TcpStream::connect(to).expect("the server"));
                let (mut answers, mut back) =
                    (server.try_clone().expect("a copy"), client.try_clone().expect("a copy"));
                let copying = thread::spawn(move || {
                    // Either side's end closes the connection.
                    let _ = std::io::copy(&mut answers, &mut back);
                });
                let mut bytes = vec![0; 64 << 10];
                while let Ok(read @ 1..) = client.read(&mut bytes) {
                    let is_write = bytes.starts_with(b"PUT ") || bytes.starts_with(b"DELETE ");
                    if let Some(meddle) = meddle.take_if(|_| is_write) {
                        meddle();
                        let _ = sender.send(());
                    }
                    server.write_all(&bytes[..read]).expect("passed on");
                }
                let _ = server.shutdown(std::net::Shutdown::Both);
                let _ = copying.join();
            }
        });
        Meddler { address, meddled }
    }

    /// Runs a command through the proxy and checks that the change happened in between.
    #[track_caller]
    fn ask(self, server: &Server, args: &[&str]) -> Ended {
        let url = format!("http://{}", self.address);
        let ended = run(server.directory(), &[&["--url", &url], args].concat());
        assert!(self.meddled.try_recv().is_ok(), "`{}` wrote nothing", args.join(" "));
        ended
    }
}

const CHAIN: &str = "/models/order/hooks/preCreate";

/// A chain of hooks with these names and versions.
fn chain(hooks: &[(&str, u32)]) -> Value {
    let hooks = hooks.iter().map(|(name, version)| {
        json!({"name": name, "engine": "quickjs", "source": format!("export default () => {version}")})
    });
    json!({"chain": hooks.collect::<Vec<_>>()})
}

fn bind(api: &Client, hooks: &[(&str, u32)]) -> Value {
    api.put(CHAIN, &chain(hooks)).expect(200).json()
}

/// A server with these chains, bound in order.
fn start(chains: &[&[(&str, u32)]]) -> Server {
    let server = Server::start();
    let api = server.client();
    create_orders(&api, "order");
    chains.iter().for_each(|hooks| drop(bind(&api, hooks)));
    server
}

/// Another client binds these hooks in between.
fn binding(server: &Server, hooks: &'static [(&'static str, u32)]) -> Meddler {
    let api = server.client();
    Meddler::new(server, move || drop(bind(&api, hooks)))
}

fn names(server: &Server) -> Vec<String> {
    let bound = server.client().get(CHAIN).expect(200).json();
    bound.as_array().expect("hooks").iter().map(|hook| hook["name"].as_str().expect("text").to_owned()).collect()
}

#[track_caller]
fn says_changed(ended: Ended) {
    let said = ended.fails();
    assert!(said.contains("somebody changed the hooks of `order.preCreate` in the meantime"), "{said}");
    assert!(said.contains("`snaphook hook history order.preCreate`"), "{said}");
}

/// The other hooks of the chain belong to another client.
#[test]
fn a_hook_that_is_removed_takes_no_other_with_it() {
    let server = start(&[&[("one", 1), ("two", 2)]]);
    let meddler = binding(&server, &[("one", 1), ("two", 2), ("three", 3)]);
    let said = meddler.ask(&server, &["hook", "remove", "order.preCreate/one"]).ok();
    assert!(said.starts_with("order.preCreate/one is removed"), "{said}");
    assert_eq!(names(&server), ["two", "three"]);
}

#[test]
fn a_hook_that_became_another_is_not_removed() {
    let server = start(&[&[("one", 1), ("two", 2)]]);
    let meddler = binding(&server, &[("one", 7), ("two", 2)]);
    says_changed(meddler.ask(&server, &["hook", "remove", "order.preCreate/one"]));
    assert_eq!(names(&server), ["one", "two"]);
}

#[test]
fn a_chain_that_became_another_is_not_removed() {
    let server = start(&[&[("one", 1)]]);
    let meddler = binding(&server, &[("one", 1), ("two", 2)]);
    says_changed(meddler.ask(&server, &["hook", "remove", "order.preCreate"]));
    assert_eq!(names(&server), ["one", "two"]);
}

#[test]
fn a_rollback_undoes_no_change_that_it_has_not_seen() {
    for to in [&[][..], &["--to", "first"]] {
        let server = start(&[&[("one", 1)], &[("two", 2)]]);
        let history = server.client().get(&format!("{CHAIN}/history")).expect(200).json();
        let first = history["items"][1]["position"].to_string();
        let to: Vec<&str> = to.iter().map(|arg| if *arg == "first" { &*first } else { arg }).collect();
        let meddler = binding(&server, &[("three", 3)]);
        says_changed(meddler.ask(&server, &[&["hook", "rollback", "order.preCreate"], &to[..]].concat()));
        assert_eq!(names(&server), ["three"]);
    }
}

/// The entity tag belongs to the model; its hooks are unchanged.
#[test]
fn a_change_of_the_model_alone_disturbs_neither() {
    let server = start(&[&[("one", 1)], &[("two", 2), ("three", 3)]]);
    let add = |name: &'static str| {
        let api = server.client();
        Meddler::new(&server, move || {
            let mut model = api.get("/models/order").expect(200).json();
            model["schema"]["properties"][name] = json!({"type": "string"});
            api.put("/models/order", &json!({"schema": model["schema"]})).expect(200);
        })
    };
    add("more").ask(&server, &["hook", "remove", "order.preCreate/two"]).ok();
    assert_eq!(names(&server), ["three"]);
    add("most").ask(&server, &["hook", "rollback", "order.preCreate"]).ok();
    assert_eq!(names(&server), ["two", "three"]);
    let schema = &server.client().get("/models/order").expect(200).json()["schema"]["properties"];
    assert!(schema["more"].is_object() && schema["most"].is_object(), "{schema}");
}
