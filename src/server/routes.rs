//! The table of routes: what each path answers to which method, who may ask, and which function does it. A new route is one
//! line here.

use std::sync::Arc;

use axum::Router;

use super::app::App;
use super::endpoint::{self, Path};
use super::problem::Problem;
use super::query::shorten;
use super::reply::Response;
use super::request::Call;
use super::{
    backup, errors, event, events, health, hooks, import, instances, jobs, models, nodes, plugins, problem, rebuild,
    secrets,
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
            .get(run!(models::list))
            .post(run!(models::create, body)),
        Path::large("/models/{model}")
            .get(run!(models::get))
            .put(run!(models::update, body))
            .delete(run!(models::delete)),
        Path::new("/models/{model}/hooks")
            .get(run!(hooks::all)),
        Path::large("/models/{model}/hooks/{phase}")
            .get(run!(hooks::get))
            .put(run!(hooks::put, body))
            .delete(run!(hooks::delete)),
        Path::new("/models/{model}/hooks/{phase}/log")
            .get(run!(hooks::log)),
        Path::new("/models/{model}/hooks/{phase}/stats")
            .get(run!(hooks::stats)),
        Path::new("/hooks/runs")
            .get(run!(hooks::runs)),
        Path::new("/models/{model}/instances")
            .get(run!(instances::list))
            .post(run!(instances::create, body)),
        Path::new("/models/{model}/instances/{id}")
            .get(run!(instances::get))
            .put(run!(instances::replace, body))
            .patch(run!(instances::patch, body))
            .delete(run!(instances::delete)),
        Path::new("/models/{model}/instances/{id}/events")
            .get(run!(events::history)),
        Path::large("/models/{model}/import")
            .post(run!(import::import, body)),
        Path::new("/events")
            .get(run!(events::list)),
        Path::new("/events/stream")
            .get(run!(events::stream)),
        Path::new("/events/{position}")
            .get(run!(event::get)),
        Path::new("/events/{position}/skip")
            .post(run!(event::skip, body)),
        Path::new("/errors")
            .get(run!(errors::list)),
        Path::new("/errors/retry")
            .post(run!(errors::retry_all)),
        Path::new("/errors/{id}")
            .get(run!(errors::get))
            .delete(run!(errors::delete)),
        Path::new("/errors/{id}/retry")
            .post(run!(errors::retry)),
        Path::new("/jobs/{id}")
            .get(run!(jobs::get))
            .delete(run!(jobs::cancel)),
        Path::new("/secrets")
            .get(run!(secrets::list)),
        Path::new("/secrets/{name}")
            .put(run!(secrets::put, body))
            .delete(run!(secrets::delete)),
        Path::new("/backup")
            .post(run!(backup::backup)),
        Path::new("/nodes")
            .get(run!(nodes::list)),
        Path::new("/plugins")
            .get(run!(plugins::list)),
        Path::large("/rebuild")
            .get(run!(rebuild::progress))
            .post(run!(rebuild::start)),
        Path::vital("/healthz")
            .get(run!(health::healthz)),
        Path::vital("/readyz")
            .get(run!(health::readyz)),
        Path::vital("/metrics")
            .get(run!(health::metrics)),
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

async fn unknown(call: &Call) -> problem::Result<Response> {
    Err(Problem::not_found(format!("no route `{}`", shorten(call.head.uri.path()))))
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
