//! Checks where custom endpoints are mounted: only paths that the API does not use are allowed.

use super::routes;
use crate::config::{Config, ConfigError, ConfigErrors};

/// Errors in the endpoints of a configuration: paths that the API uses.
pub fn check(config: &Config) -> std::result::Result<(), ConfigErrors> {
    if config.server.endpoints.is_empty() {
        return Ok(());
    }
    let table = routes::table();
    let first = |path: &str| path.split('/').nth(1).unwrap_or_default().to_owned();
    let own: Vec<String> = table.iter().map(|path| first(path.template())).collect();
    let taken = config.server.endpoints.iter().filter(|endpoint| own.contains(&first(&endpoint.path)));
    let faults: Vec<_> = taken
        .map(|endpoint| {
            let message = format!(
                "`server.endpoints.path` is `{}`, expected a path that does not start with `/{}`, which is the API's own",
                endpoint.path,
                first(&endpoint.path)
            );
            ConfigError::new(endpoint.line, message)
        })
        .collect();
    if faults.is_empty() { Ok(()) } else { Err(ConfigErrors::new(config.name(), faults)) }
}
