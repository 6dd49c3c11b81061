//! The table of routes: what each path answers to which method, who may ask, and which function does it. A new route is one
//! line here.

use std::sync::Arc;

use axum::Router;

use super::app::App;
use super::endpoint::{self, Path};
use super::identify::Needs::{Admin, Anyone, Reader, Writer};
use super::problem::Problem;
use super::query::shorten;
use super::reply::Response;
use super::request::Call;
use super::{
    backup, batch, errors, event, events, health, hooks, import, instances, jobs, models, nodes, plugins, problem,
    rebuild, secrets, tokens,
};

/// An async function of a [`Call`], and of the body where it reads one, as the handler of an operation.
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
            .get(Reader, run!(models::list))
            .post(Admin, run!(models::create, body)),
        Path::large("/models/{model}")
            .get(Reader, run!(models::get))
            .put(Admin, run!(models::update, body))
            .delete(Admin, run!(models::delete)),
        Path::new("/models/{model}/hooks")
            .get(Admin, run!(hooks::all)),
        Path::large("/models/{model}/hooks/{phase}")
            .get(Admin, run!(hooks::get))
            .put(Admin, run!(hooks::put, body))
            .delete(Admin, run!(hooks::delete)),
        Path::new("/models/{model}/hooks/{phase}/log")
            .get(Admin, run!(hooks::log)),
        Path::new("/models/{model}/hooks/{phase}/stats")
            .get(Admin, run!(hooks::stats)),
        Path::new("/hooks/runs")
            .get(Admin, run!(hooks::runs)),
        Path::new("/models/{model}/instances")
            .get(Reader, run!(instances::list))
            .post(Writer, run!(instances::create, body)),
        Path::new("/models/{model}/instances/{id}")
            .get(Reader, run!(instances::get))
            .put(Writer, run!(instances::replace, body))
            .patch(Writer, run!(instances::patch, body))
            .delete(Writer, run!(instances::delete)),
        Path::new("/models/{model}/instances/{id}/events")
            .get(Reader, run!(events::history)),
        Path::new("/models/{model}/instances/{id}/referring/{other}")
            .get(Reader, run!(instances::referring)),
        Path::large("/models/{model}/import")
            .post(Writer, run!(import::import, body)),
        Path::new("/batch")
            .post(Writer, run!(batch::batch, body)),
        Path::new("/events")
            .get(Reader, run!(events::list)),
        Path::new("/events/stream")
            .get(Reader, run!(events::stream)),
        Path::new("/events/{position}")
            .get(Admin, run!(event::get)),
        Path::new("/events/{position}/skip")
            .post(Admin, run!(event::skip, body)),
        Path::new("/errors")
            .get(Admin, run!(errors::list)),
        Path::new("/errors/retry")
            .post(Admin, run!(errors::retry_all)),
        Path::new("/errors/{id}")
            .get(Admin, run!(errors::get))
            .delete(Admin, run!(errors::delete)),
        Path::new("/errors/{id}/retry")
            .post(Admin, run!(errors::retry)),
        Path::new("/jobs/{id}")
            .get(Admin, run!(jobs::get))
            .delete(Admin, run!(jobs::cancel)),
        Path::new("/secrets")
            .get(Admin, run!(secrets::list)),
        Path::new("/secrets/{name}")
            .put(Admin, run!(secrets::put, body))
            .delete(Admin, run!(secrets::delete)),
        Path::new("/backup")
            .post(Admin, run!(backup::backup)),
        Path::new("/tokens")
            .get(Admin, run!(tokens::list))
            .post(Admin, run!(tokens::create, body)),
        Path::new("/tokens/{name}")
            .delete(Admin, run!(tokens::revoke)),
        Path::new("/nodes")
            .get(Admin, run!(nodes::list)),
        Path::new("/plugins")
            .get(Admin, run!(plugins::list)),
        Path::large("/rebuild")
            .get(Admin, run!(rebuild::progress))
            .post(Admin, run!(rebuild::start)),
        Path::vital("/healthz")
            .get(Anyone, run!(health::healthz)),
        Path::vital("/readyz")
            .get(Anyone, run!(health::readyz)),
        Path::vital("/metrics")
            .get(Anyone, run!(health::metrics)),
    ]
}

/// The paths under `mount_path`, which has no `/` at its end.
pub(super) fn router(table: Vec<Path>, mount_path: &str) -> Router<Arc<App>> {
    let mut router = Router::new();
    for path in table {
        router = router.route(&format!("{mount_path}{}", path.template()), path.into_methods());
    }
    router.fallback(endpoint::fallback(run!(unknown)))
}

/// What is no path of the API may be a file.
async fn unknown(call: &Call) -> problem::Result<Response> {
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
