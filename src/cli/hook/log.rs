//! `snaphook hook log`: what the hooks of a phase logged.

use clap::Args;
use serde_json::Value;

use super::at::{At, at};
use super::shown::text;
use crate::cli::events::Frames;
use crate::cli::failure::{Failure, Result};
use crate::cli::global::Global;
use crate::cli::output;

/// Print the last 200 log lines of the hooks of a phase
///
/// Example: snaphook hook log order.preCreate --follow
#[derive(Args, Debug)]
pub(in crate::cli) struct Log {
    /// Model and phase, such as `order.preCreate`; `order.preCreate/check` for one hook of a chain
    #[arg(value_parser = at, value_name = "MODEL.PHASE")]
    at: At,
    /// Continue with new lines
    #[arg(long, short)]
    follow: bool,
    /// Print one JSON document per line
    #[arg(long)]
    json: bool,
}

impl Log {
    pub(in crate::cli) async fn run(&self, global: &Global) -> Result<()> {
        let client = global.client()?;
        let path = self.at.path(&["log"]);
        if !self.follow {
            let log = client.get(&path).await?;
            let lines = log.get("items").and_then(Value::as_array).into_iter().flatten();
            return lines.into_iter().try_for_each(|line| self.print(line));
        }
        let mut response = client.stream(&path, None).await?;
        let mut frames = Frames::default();
        loop {
            let chunk = response.chunk().await;
            let Ok(Some(chunk)) = chunk else {
                return Err(Failure::Broken("the connection to the server broke".to_owned()));
            };
            for frame in frames.push(&chunk).iter().filter(|frame| frame.event == "log") {
                if let Ok(line) = snaphook_driver::json::parse(&frame.data) {
                    self.print(&line)?;
                }
            }
        }
    }

    fn print(&self, line: &Value) -> Result<()> {
        let hook = text(line, "hook");
        if self.at.hook.as_ref().is_some_and(|wanted| *wanted != hook) {
            return Ok(());
        }
        if self.json {
            return output::line(line);
        }
        let message = text(line, "message").replace('\n', "\n    ");
        let (time, level, instance) = (text(line, "time"), text(line, "level"), text(line, "instance"));
        output::line(format!("{time} {level} {hook} {instance}: {message}"))
    }
}
