//! Custom endpoints and sandboxed modules: their processor time, with a new sandbox for each request.

use std::time::Duration;

use super::super::Bench;
use super::super::http::request;
use super::super::load::Load;
use super::super::report::{Row, percentiles};
use super::super::server::Server;
use crate::shell::Result;
use crate::{guests, needs};

/// Maximum processor time of a response from a new sandbox.
const PER_REQUEST_MAX: Duration = Duration::from_micros(45);

/// Maximum processor time that a module with one hook adds to a request.
const MODULE_MAX: Duration = Duration::from_micros(30);

const TABLE: &str = "[[server.endpoints]]\nname = 'tool'\npath = '/tool'\ncomponent = ";

pub(crate) fn endpoint(bench: &Bench) -> Result<Vec<Row>> {
    let folder = guests::build(&needs::wasm_toolchain()?)?;
    let component = folder.join(format!("{}.wasm", guests::BENCH_ENDPOINT));
    let server = bench.server("endpoint", &format!("{TABLE}'{}'", component.display()))?;
    // A response with only a status, compared with the API's smallest response.
    let (native, _) = time(bench, &server, "/healthz")?;
    let (guest, percentiles) = time(bench, &server, "/tool/status?200")?;
    server.stop()?;
    let detail = format!("{percentiles}; /healthz takes {:.1} µs", native.as_secs_f64() * 1e6);
    let what = "a custom endpoint in Rust, fresh sandbox: processor time per request";
    Ok(vec![Row::time(what, Some(PER_REQUEST_MAX), guest).with_detail(detail)])
}

pub(crate) fn module(bench: &Bench) -> Result<Vec<Row>> {
    let folder = guests::build(&needs::wasm_toolchain()?)?;
    let component = folder.join(format!("{}.wasm", guests::BENCH_MODULE));
    let plain = bench.server("without-module", "")?;
    let (without, _) = time(bench, &plain, "/healthz")?;
    plain.stop()?;
    let table = format!("[[server.modules]]\nname = 'decline'\ncomponent = '{}'", component.display());
    let server = bench.server("sandboxed-module", &table)?;
    let (with, percentiles) = time(bench, &server, "/healthz")?;
    server.stop()?;
    let detail = format!("{percentiles}; /healthz takes {:.1} µs without it", without.as_secs_f64() * 1e6);
    let what = "a sandboxed module in Rust with one hook, fresh sandbox: processor time added to a request";
    Ok(vec![Row::time(what, Some(MODULE_MAX), with.saturating_sub(without)).with_detail(detail)])
}

/// The server's processor time for one request, and the clients' latencies.
fn time(bench: &Bench, server: &Server, path: &str) -> Result<(Duration, String)> {
    let requests = vec![request("GET", path, "application/json", b"")];
    let before = server.processor_time()?;
    let load = Load { address: server.address, connections: 32, requests: &requests, status: 200, run: bench.run };
    let outcome = load.run()?;
    let answers = u32::try_from(outcome.answers()).unwrap_or(u32::MAX).max(1);
    Ok(((server.processor_time()? - before) / answers, percentiles(&outcome)))
}
