//! JavaScript and TypeScript hooks: the contract that authors rely on, seen through the API.

mod capabilities;
mod chains;
mod context;
mod fetch;
mod forms;
pub(crate) mod packages;
mod typescript;
mod web;

use crate::support::{Client, Server, ServerOptions};
use crate::workbench::{grant, open_model};

/// A server on which model `js` may do in JavaScript what `lines` grant, besides amend.
fn server(lines: &str) -> (Server, Client) {
    server_with(lines, "")
}

/// The same with keys of `[hooks]`.
fn server_with(lines: &str, hooks: &str) -> (Server, Client) {
    let mut tables = grant("*", "*", "amend = true");
    if !lines.is_empty() {
        tables.push_str(&grant("*", "*", lines));
    }
    let hooks = format!("max-attempts = 1\n{hooks}");
    let server = Server::start_with(ServerOptions { tables, hooks, ..ServerOptions::default() });
    let api = server.client();
    open_model(&api, "js");
    (server, api)
}
