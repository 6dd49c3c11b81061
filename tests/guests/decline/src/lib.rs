//! A sandboxed server module that reads the headers of each request and declines. `cargo xtask bench` measures it.

wit_bindgen::generate!({
    path: ["../../../wit/since_v0_1_0", "../../../wit/module/since_v0_1_0"],
    inline: "
        package test:decline;
        world decline {
            include snaphook:module/imports@0.1.0;
            export snaphook:module/before-request@0.1.0;
        }
    ",
    world: "test:decline/decline",
    generate_all,
});

use exports::snaphook::module::before_request::Guest;
use snaphook::module::types::{Decision, Request, RequestChange};

struct Decline;

export!(Decline);

impl Guest for Decline {
    fn handle(request: Request) -> Result<(Decision, RequestChange), u16> {
        if request.headers.iter().any(|header| header.name == "x-refused") {
            return Err(403);
        }
        Ok((Decision::Declined, RequestChange { method: None, uri: None, headers: Vec::new(), body: None }))
    }
}
