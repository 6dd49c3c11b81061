//! Custom endpoints: what one takes of the processor, with a fresh sandbox for each request.

use std::time::Duration;

use super::super::Bench;
use super::super::http::request;
use super::super::load::Load;
use super::super::report::{Row, percentiles};
use crate::shell::Result;
use crate::{guests, needs};

/// All of a response from a sandbox of its own.
const PER_REQUEST_MAX: Duration = Duration::from_micros(45);

const TABLE: &str = "[[server.endpoints]]\nname = 'tool'\npath = '/tool'\ncomponent = ";

pub(crate) fn endpoint(bench: &Bench) -> Result<Vec<Row>> {
    let folder = guests::build(&needs::wasm_toolchain()?)?;
    let component = folder.join(format!("{}.wasm", guests::BENCH_ENDPOINT));
    let server = bench.server("endpoint", &format!("{TABLE}'{}'", component.display()))?;
    // The status alone; the smallest response that the API itself gives is beside it.
    let time = |path: &str| -> Result<(Duration, String)> {
        let requests = vec![request("GET", path, "application/json", b"")];
        let before = server.processor_time()?;
        let load = Load { address: server.address, connections: 32, requests: &requests, status: 200, run: bench.run };
        let outcome = load.run()?;
        let answers = u32::try_from(outcome.answers()).unwrap_or(u32::MAX).max(1);
        Ok(((server.processor_time()? - before) / answers, percentiles(&outcome)))
    };
    let (native, _) = time("/healthz")?;
    let (guest, percentiles) = time("/tool/status?200")?;
    server.stop()?;
    let detail = format!("{percentiles}; /healthz takes {:.1} µs", native.as_secs_f64() * 1e6);
    let what = "a custom endpoint in Rust, fresh sandbox: processor time per request";
    Ok(vec![Row::time(what, Some(PER_REQUEST_MAX), guest).with_detail(detail)])
}
