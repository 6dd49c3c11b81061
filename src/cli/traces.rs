//! `[telemetry]` at the start of a server: sends its traces to the configured collector.

use reqwest::header::{HeaderMap, HeaderName, HeaderValue};

use super::failure::{Failure, Result};
use crate::config::{Config, HeaderSource, TracesConfig};
use crate::drivers::Stores;
use crate::telemetry::trace::exporter::{ExportSettings, Exporter};

/// Starts the exporter of traces; `None` if tracing is off.
pub(super) async fn start(config: &Config, stores: &Stores) -> Result<Option<Exporter>> {
    let Some(traces) = &config.telemetry.traces else { return Ok(None) };
    let settings = ExportSettings {
        endpoint: traces.endpoint.clone(),
        headers: headers(config, traces, stores).await?,
        sample: traces.sample,
        service_name: traces.service_name.clone(),
        node: stores.node.clone(),
    };
    let host = traces.endpoint.host_str().unwrap_or_default();
    let exporter =
        Exporter::start(settings).map_err(|error| Failure::new(format!("traces cannot be sent: {error}")))?;
    tracing::info!("traces go to `{host}`, {} of all requests", traces.sample);
    Ok(Some(exporter))
}

async fn headers(config: &Config, traces: &TracesConfig, stores: &Stores) -> Result<HeaderMap> {
    let mut headers = HeaderMap::new();
    for (name, source) in &traces.headers {
        let fault = |what: &str| {
            let line = traces.line.map(|line| format!(":{line}")).unwrap_or_default();
            Failure::new(format!("{}{line}: the header `{name}` of `telemetry.headers` {what}", config.name()))
        };
        let value = match source {
            HeaderSource::Value(value) => HeaderValue::from_str(value).ok(),
            HeaderSource::Secret(secret) => match stores.vault.get(secret).await {
                Ok(Some(value)) => HeaderValue::from_bytes(value.expose()).ok(),
                Ok(None) => {
                    let what =
                        format!("is the secret `{secret}`, but there is none; `snaphook secret set` creates one");
                    return Err(fault(&what));
                }
                Err(error) => return Err(fault(&format!("is the secret `{secret}`, which cannot be read: {error}"))),
            },
        };
        let mut value = value.ok_or_else(|| fault("has a value that is not allowed in a header"))?;
        value.set_sensitive(true);
        let name = HeaderName::from_bytes(name.as_bytes())
            .map_err(|_| fault("has a name that is not allowed for a header"))?;
        headers.insert(name, value);
    }
    Ok(headers)
}
