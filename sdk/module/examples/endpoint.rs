//! A module that responds to `/hello`, and to `/echo` with the request body; it declines everything else. `/later`
//! responds from another thread, after a moment.
//!
//! `cargo build -p snaphook-module --example module_endpoint`.

use std::time::Duration;

use snaphook_module::{Answer, Config, Exchange, Flags, Hooks, Host, Module, RequestHandler, Side, Text};

struct Endpoint;

impl Module for Endpoint {
    type Connection = ();
    type Request = Answered;
    const HOOKS: Hooks = Hooks::REQUEST;
    const FLAGS: Flags = Flags { whole_request: true, ..Flags::NONE };

    fn activate(_: Host, _: &Config<'_>) -> Result<Self, String> {
        Ok(Endpoint)
    }

    fn request(&self, _: Option<&()>, _: &mut Exchange<'_>) -> Answered {
        Answered { has_waited: false }
    }
}

struct Answered {
    has_waited: bool,
}

impl RequestHandler for Answered {
    fn request(&mut self, exchange: &mut Exchange<'_>) -> Answer {
        let uri = exchange.text(Text::Uri).to_owned();
        let (path, query) = uri.split_once('?').unwrap_or((&uri, "nobody"));
        let body = match path {
            "/hello" => format!("hello {query}\n").into_bytes(),
            "/echo" => exchange.body(Side::Request).unwrap_or_default().to_vec(),
            "/later" if !self.has_waited => {
                self.has_waited = true;
                let resume = exchange.resume();
                std::thread::spawn(move || {
                    std::thread::sleep(Duration::from_millis(20));
                    resume.resume();
                });
                return Answer::Pending;
            }
            "/later" => b"later\n".to_vec(),
            _ => return Answer::Declined,
        };
        let is_made = exchange.set_header(Side::Response, "content-type", "text/plain; charset=utf-8")
            && exchange.set_body(Side::Response, body);
        if is_made { Answer::Ok } else { Answer::Status(500) }
    }
}

snaphook_module::export_module!("endpoint", Endpoint);
