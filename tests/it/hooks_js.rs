//! JavaScript and TypeScript hooks: the contract that authors rely on, tested through the API.

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

/// A server on which JavaScript hooks of the model `js` may amend, and use what `lines` grant.
fn server(lines: &str) -> (Server, Client) {
    server_with(lines, "")
}

/// The same with additional keys of `[hooks]`.
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
