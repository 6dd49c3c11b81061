//! PgBouncer in front of the server, in the mode in which each transaction may get another connection.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::json;
use snaphook_driver::{EventFilter, EventQuery, Group};
use snaphook_driver_testkit::run;
use snaphook_driver_testkit::sample::{any, append_one, create};
use snaphook_driver_testkit::servers::{free_port, postgres};
use tempfile::TempDir;

use crate::common::{DEADLINE, all, schema, try_open, url};

struct Pooler(Child, #[expect(dead_code, reason = "its folder goes with it")] TempDir);

impl Drop for Pooler {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// `None` if PgBouncer is not installed.
async fn pooler(server: &str) -> Option<(Pooler, String)> {
    let program =
        ["/usr/sbin/pgbouncer", "/usr/bin/pgbouncer"].into_iter().find(|file| std::path::Path::new(file).is_file())?;
    let folder = TempDir::new().unwrap();
    let (port, address) = (free_port(), server.rsplit_once('@').unwrap().1.split_once('/').unwrap().0.to_owned());
    let (host, host_port) = address.split_once(':').unwrap();
    let file = folder.path().join("pgbouncer.ini");
    std::fs::write(folder.path().join("users"), format!("\"{}\" \"\"\n", postgres::USER)).unwrap();
    std::fs::write(
        &file,
        format!(
            "[databases]\npostgres = host={host} port={host_port} dbname=postgres\n[pgbouncer]\nlisten_addr = 127.0.0.1\n\
             listen_port = {port}\nunix_socket_dir =\nauth_type = trust\nauth_file = {}\npool_mode = transaction\n\
             default_pool_size = 4\n",
            folder.path().join("users").display()
        ),
    )
    .unwrap();
    // PgBouncer refuses to run as root.
    std::fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let mut command = Command::new(program);
    command.args(["-q", "-u", "postgres"]).arg(&file).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let pooler = Pooler(command.spawn().unwrap(), folder);
    let started = std::time::Instant::now();
    while tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_err() {
        assert!(started.elapsed() < DEADLINE, "PgBouncer does not answer");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Some((pooler, format!("postgres://{}@127.0.0.1:{port}/postgres", postgres::USER)))
}

#[test]
fn everything_works_behind_a_pooler() {
    run(async {
        let (server, schema) = (url(), schema());
        let Some((_pooler, url)) = pooler(&server).await else {
            eprintln!("skipped: there is no PgBouncer here");
            return;
        };
        let settings = json!({"url": url, "schema": schema, "pool": 6, "pgbouncer": true});
        let store = try_open("pooled", settings.clone()).await.unwrap();
        let other = try_open("pooled other", settings).await.unwrap();
        store.create_group(&Group { name: "g".into(), filter: EventFilter::default() }, 0).await.unwrap();
        let waiting = tokio::spawn({
            let other = std::sync::Arc::clone(&other);
            async move {
                let query = EventQuery { after: 99, limit: 10, filter: EventFilter::default() };
                other.read(&query, Some(DEADLINE)).await.unwrap().events.len()
            }
        });
        let writers: Vec<_> = [&store, &other]
            .into_iter()
            .cloned()
            .enumerate()
            .map(|(node, store)| {
                tokio::spawn(async move {
                    for round in 0..25 {
                        let batch = [create("m", &format!("{node}-{round}"), "{}"), any("m", "i")];
                        assert!(store.append(&batch, true).await.unwrap().iter().all(Result::is_ok));
                    }
                })
            })
            .collect();
        for writer in writers {
            writer.await.unwrap();
        }
        append_one(&*store, any("m", "i")).await;
        assert!(waiting.await.unwrap() > 0);
        assert_eq!(all(&*other).await.len(), 101);
        let mut done = 0;
        while done < 101 {
            let claimed = store.claim("g", 20, DEADLINE).await.unwrap();
            assert!(!claimed.is_empty());
            let acks: Vec<_> = claimed.iter().map(|delivery| (delivery.event.position, delivery.token)).collect();
            other.ack("g", &acks).await.unwrap();
            done += acks.len();
        }
        let mut export = other.export().await.unwrap();
        assert_eq!(export.next().await.unwrap().len(), 101);
        store.close().await.unwrap();
        other.close().await.unwrap();
    });
}
