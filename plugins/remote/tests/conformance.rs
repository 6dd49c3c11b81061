//! The conformance suites over HTTP: drivers behind a host, in both encodings.

use async_trait::async_trait;
use snaphook_driver::wire::Opened;
use snaphook_driver::{Driver, OpenContext, Result, Store};
use snaphook_driver_testkit::Opener;
use snaphook_driver_testkit::rest::{WithCollector, WithRecords};
use snaphook_driver_testkit::servers::nats::WithNats;
use snaphook_driver_testkit::servers::postgres::WithPostgres;
use snaphook_driver_testkit::servers::redis::WithRedis;
use snaphook_remote::connect;
use snaphook_remote::host::{Host, HostOptions};
use tokio::net::TcpListener;

/// A driver behind its own host. Closing the store also closes it in the host.
struct Remote {
    driver: Driver,
    encoding: &'static str,
}

#[async_trait]
impl Opener for Remote {
    async fn open(&self, store: Store, context: OpenContext) -> Result<Opened> {
        let opened = Opened::open(&self.driver, store, context).await?;
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let options = HostOptions { closes: true, token: Some("hunter2".into()), tls: None };
        let host = Host::new(listener, vec![opened], options).expect("no TLS is asked for");
        // The host ends with the runtime of the case.
        tokio::spawn(host.serve(std::future::pending()));
        let settings = serde_json::json!({"url": url, "encoding": self.encoding, "token": "hunter2"});
        let serde_json::Value::Object(settings) = settings else { unreachable!("it is an object") };
        connect(store, &OpenContext::new(settings, "")).await
    }

    fn tries_transport_only(&self) -> bool {
        true
    }
}

const MEMORY: Remote = Remote { driver: snaphook_memory::DRIVER, encoding: "json" };
const POSTGRES: WithPostgres<Remote> = WithPostgres(Remote { driver: snaphook_postgres::DRIVER, encoding: "protobuf" });
const NATS: WithNats<Remote> = WithNats(Remote { driver: snaphook_nats::DRIVER, encoding: "json" });
const REDIS: WithRedis<Remote> = WithRedis(Remote { driver: snaphook_redis::DRIVER, encoding: "json" });
const SQLITE: Remote = Remote { driver: snaphook_sqlite::DRIVER, encoding: "protobuf" };

mod memory_as_json {
    use super::MEMORY;

    snaphook_driver_testkit::event_suite!(MEMORY, {});
    snaphook_driver_testkit::model_suite!(MEMORY, {});
    snaphook_driver_testkit::error_suite!(MEMORY, {});
    snaphook_driver_testkit::secure_suite!(MEMORY, {});
}

/// Drivers that use another server themselves. The messages are the same, so only the cases for each kind of call run.
mod crud_as_protobuf {
    use super::{Remote, WithRecords};

    const CRUD: WithRecords<Remote> = WithRecords(Remote { driver: snaphook_crud::DRIVER, encoding: "protobuf" });

    mod model {
        use super::*;

        snaphook_driver_testkit::tests! {
            [CRUD, { "state": "state" }]
            model::instances_follow_their_events,
            model::nothing_is_missed,
            model::data_is_carried_over,
            model::a_dropped_model_is_gone,
            model::reset_removes_everything,
            model::survives_reopening,
            prepare::a_replay_survives_reopening,
            query::filters,
            query::pages_do_not_shift,
        }
    }
}

mod http_as_json {
    use super::{Remote, WithCollector};

    const HTTP: WithCollector<Remote> = WithCollector(Remote { driver: snaphook_http::DRIVER, encoding: "json" });

    snaphook_driver_testkit::error_suite!(HTTP, {});
}

mod sqlite_as_protobuf {
    use super::SQLITE;

    snaphook_driver_testkit::event_suite!(SQLITE, { "path": "data/events.db" });
    snaphook_driver_testkit::model_suite!(SQLITE, { "path": "data/models.db" });
    snaphook_driver_testkit::error_suite!(SQLITE, { "path": "data/errors.db" });
}

mod postgres_as_protobuf {
    use super::POSTGRES;

    snaphook_driver_testkit::event_calls!(POSTGRES, {});
    snaphook_driver_testkit::model_calls!(POSTGRES, {});
    snaphook_driver_testkit::error_suite!(POSTGRES, {});
}

mod nats_as_json {
    use super::NATS;

    snaphook_driver_testkit::event_calls!(NATS, { "path": "nats.db" });
    snaphook_driver_testkit::secure_suite!(NATS, {});
}

mod redis_as_json {
    use super::REDIS;

    snaphook_driver_testkit::secure_suite!(REDIS, {});
}
