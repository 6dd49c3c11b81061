//! The table of routes: the methods of each path, with required role, description and handler. A new route is one line
//! here.

use std::sync::Arc;

use axum::Router;
use hyper::header::ALLOW;
use hyper::{Method, StatusCode};

use super::app::App;
use super::endpoint::{self, Path};
use super::needs::Needs::{Admin, Anyone, Guest, Reader, Writer};
use super::openapi::Described;
use super::problem::Problem;
use super::query::shorten;
use super::reply::{Reply, Response};
use super::request::Call;
use super::{
    about, backup, batch, describe, docs, errors, event, events, health, hooks, import, instances, jobs, models, nodes,
    openapi, plugins, problem, rebuild, secrets, tokens,
};

/// Turns an async function of a [`Call`], and of the body if it reads one, into the handler of an operation.
macro_rules! run {
    ($function:path) => {
        |call: Call, _| async move {
            let outcome = $function(&call).await;
            (call, outcome)
        }
    };
    ($function:path, body) => {
        |call: Call, body| async move {
            let outcome = $function(&call, body).await;
            (call, outcome)
        }
    };
}

/// Every path of the API.
#[rustfmt::skip]
pub(super) fn table() -> Vec<Path> {
    vec![
        Path::large("/models")
            .get(Reader, describe::models::list, run!(models::list))
            .post(Admin, describe::models::create, run!(models::create, body)),
        Path::large("/models/{model}")
            .get(Reader, describe::models::get, run!(models::get))
            .put(Admin, describe::models::update, run!(models::update, body))
            .delete(Admin, describe::models::delete, run!(models::delete)),
        Path::new("/models/{model}/hooks")
            .get(Admin, describe::hooks::all, run!(hooks::all)),
        Path::large("/models/{model}/hooks/{phase}")
            .get(Admin, describe::hooks::get, run!(hooks::get))
            .put(Admin, describe::hooks::put, run!(hooks::put, body))
            .delete(Admin, describe::hooks::delete, run!(hooks::delete)),
        Path::new("/models/{model}/hooks/{phase}/log")
            .get(Admin, describe::hooks::log, run!(hooks::log)),
        Path::new("/models/{model}/hooks/{phase}/stats")
            .get(Admin, describe::hooks::stats, run!(hooks::stats)),
        Path::new("/models/{model}/hooks/{phase}/history")
            .get(Admin, describe::hooks::history, run!(hooks::history)),
        Path::large("/models/{model}/hooks/{phase}/source")
            .get(Admin, describe::hooks::source, run!(hooks::source)),
        Path::large("/hooks/check/{phase}")
            .post(Admin, describe::hooks::check, run!(hooks::check, body)),
        Path::new("/hooks/runs")
            .get(Admin, describe::hooks::runs, run!(hooks::runs)),
        Path::new("/models/{model}/instances")
            .get(Reader, describe::instances::list, run!(instances::list))
            .post(Writer, describe::instances::create, run!(instances::create, body)),
        Path::new("/models/{model}/instances/{id}")
            .get(Reader, describe::instances::get, run!(instances::get))
            .put(Writer, describe::instances::replace, run!(instances::replace, body))
            .patch(Writer, describe::instances::patch, run!(instances::patch, body))
            .delete(Writer, describe::instances::delete, run!(instances::delete)),
        Path::new("/models/{model}/instances/{id}/events")
            .get(Reader, describe::instances::history, run!(events::history)),
        Path::new("/models/{model}/instances/{id}/referring/{other}")
            .get(Reader, describe::instances::referring, run!(instances::referring)),
        Path::large("/models/{model}/import")
            .post(Writer, describe::instances::import, run!(import::import, body)),
        Path::new("/batch")
            .post(Writer, describe::instances::batch, run!(batch::batch, body)),
        Path::new("/events")
            .get(Reader, describe::events::list, run!(events::list)),
        Path::new("/events/stream")
            .get(Reader, describe::events::stream, run!(events::stream)),
        Path::new("/events/{position}")
            .get(Admin, describe::events::get, run!(event::get)),
        Path::new("/events/{position}/skip")
            .post(Admin, describe::events::skip, run!(event::skip, body)),
        Path::new("/errors")
            .get(Admin, describe::errors::list, run!(errors::list)),
        Path::new("/errors/retry")
            .post(Admin, describe::errors::retry_all, run!(errors::retry_all)),
        Path::new("/errors/{id}")
            .get(Admin, describe::errors::get, run!(errors::get))
            .delete(Admin, describe::errors::delete, run!(errors::delete)),
        Path::new("/errors/{id}/retry")
            .post(Admin, describe::errors::retry, run!(errors::retry)),
        Path::new("/jobs/{id}")
            .get(Admin, describe::errors::job, run!(jobs::get))
            .delete(Admin, describe::errors::cancel_job, run!(jobs::cancel)),
        Path::new("/secrets")
            .get(Admin, describe::access::list_secrets, run!(secrets::list)),
        Path::new("/secrets/{name}")
            .put(Admin, describe::access::put_secret, run!(secrets::put, body))
            .delete(Admin, describe::access::delete_secret, run!(secrets::delete)),
        Path::new("/backup")
            .post(Admin, describe::server::backup, run!(backup::backup)),
        Path::new("/tokens")
            .get(Admin, describe::access::list_tokens, run!(tokens::list))
            .post(Admin, describe::access::create_token, run!(tokens::create, body)),
        Path::new("/tokens/{name}")
            .delete(Admin, describe::access::revoke_token, run!(tokens::revoke)),
        Path::new("/server")
            .get(Admin, describe::server::server, run!(about::get)),
        Path::new("/nodes")
            .get(Admin, describe::server::nodes, run!(nodes::list)),
        Path::new("/plugins")
            .get(Admin, describe::server::plugins, run!(plugins::list)),
        Path::large("/rebuild")
            .get(Admin, describe::server::rebuild_progress, run!(rebuild::progress))
            .post(Admin, describe::server::start_rebuild, run!(rebuild::start)),
        Path::vital("/healthz")
            .get(Anyone, describe::server::healthz, run!(health::healthz)),
        Path::vital("/readyz")
            .get(Anyone, describe::server::readyz, run!(health::readyz)),
        Path::vital("/metrics")
            .get(Anyone, describe::server::metrics, run!(health::metrics)),
        Path::new("/openapi.json")
            .get(Guest, describe::server::openapi, run!(openapi::serve::get)),
        Path::new("/docs")
            .get(Anyone, describe::server::docs, run!(docs::page)),
        Path::new("/docs/{file}")
            .get(Anyone, describe::server::docs_file, run!(docs::file)),
    ]
}

/// The descriptions of a table's operations.
pub(super) fn described(table: &[Path]) -> Vec<Described> {
    table.iter().flat_map(Path::described).copied().collect()
}

/// The paths under `mount_path`, which has no `/` at its end.
pub(super) fn router(table: Vec<Path>, mount_path: &str) -> Router<Arc<App>> {
    let mut router = Router::new();
    for path in table {
        router = router.route(&format!("{mount_path}{}", path.template()), path.into_methods());
    }
    router.fallback(endpoint::fallback(run!(unknown)))
}

/// The methods of all paths.
const METHODS: &str = "GET, HEAD, POST, PUT, PATCH, DELETE";

/// A path that is not in the API may be a static file.
async fn unknown(call: &Call) -> problem::Result<Response> {
    if call.head.method == Method::OPTIONS && endpoint::is_of_server(&call.head.uri) {
        return Ok(Reply::new(StatusCode::NO_CONTENT).header(ALLOW, METHODS).empty());
    }
    match &call.app.files {
        Some(files) => files.answer(call.head.method.clone(), &call.head.uri, call.headers()).await,
        None => Err(Problem::not_found(format!("no route `{}`", shorten(call.head.uri.path())))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_a_router() {
        for mount_path in ["", "/api", "/a/b"] {
            drop(router(table(), mount_path));
        }
    }
}
