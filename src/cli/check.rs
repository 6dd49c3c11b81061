//! `snaphook check`: what is wrong with the configuration, and nothing else.

use super::{Failure, Global, Result, apply, output};
use crate::catalog::files;

pub(super) fn check(global: &Global) -> Result<()> {
    let config = global.config()?;
    if let Some(refusal) = config.refusal() {
        return Err(refusal.into());
    }
    if config.hooks.apply {
        apply::check_folder(&config)?;
        let models = files::read_directory(&config.hooks.directory).map_err(|errors| {
            let lines: Vec<_> = errors.iter().map(ToString::to_string).collect();
            Failure::new(format!("the files that would be applied at start have faults:\n{}", lines.join("\n")))
        })?;
        apply::left_out(&config.hooks.directory, models.len()).iter().for_each(output::warn);
        output::line(format!("{}: {} models are applied at start", config.hooks.directory.display(), models.len()))?;
    }
    let grants = match config.grants.len() {
        0 => "no grants".to_owned(),
        1 => "1 grant".to_owned(),
        count => format!("{count} grants"),
    };
    output::line(format!("{} is fine: serves at {}, {grants}", config.name(), config.url()))
}
