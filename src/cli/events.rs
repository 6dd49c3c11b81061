//! `snaphook events`: the log, one JSON document per line.

use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::Value;
use snaphook_driver::Position;

use super::client::{Client, with_query};
use super::failure::{Failure, Result};
use super::global::Global;
use super::{output, skip};

/// Wait before the first attempt to reach a server again, and the longest wait.
const RECONNECT: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));

/// Print events of a running server, oldest first, one JSON document per line
///
/// With --follow the command prints new events from now (or from --after) on. It reconnects after a restart of the server,
/// and prints every event exactly once. If the log has changed by then (it was restored from a backup), it reports this and
/// starts over with the first event.
#[derive(Args, Debug)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct Events {
    #[command(subcommand)]
    command: Option<One>,
    /// Continue with new events
    #[arg(long, short)]
    follow: bool,
    /// Only events after this position, or after the event of a stream with this id [default: all, or from now with
    /// --follow]
    #[arg(long, value_name = "POSITION", value_parser = place)]
    after: Option<String>,
    /// The maximum number of events
    #[arg(long, short = 'n', value_name = "COUNT")]
    limit: Option<u64>,
    /// Only events of this model
    #[arg(long)]
    model: Option<String>,
    /// Only events of this instance
    #[arg(long, requires = "model")]
    instance: Option<String>,
    /// Only events of these types, such as `instance.created,instance.deleted`
    #[arg(long = "type", value_name = "TYPES")]
    kind: Option<String>,
}

/// Commands about one event. They work on the stores themselves while no server runs.
#[derive(Debug, Subcommand)]
enum One {
    /// Print one event, and whether the model store fails to apply it or skips it
    Inspect {
        #[arg(value_name = "POSITION", value_parser = clap::value_parser!(u64).range(1..))]
        position: Position,
    },
    /// Skip the event that makes a model unavailable
    ///
    /// The skip is itself an event (`model.event-skipped`), so it applies to every later rebuild. The model store is rebuilt
    /// without the skipped event.
    Skip {
        #[arg(value_name = "POSITION", value_parser = clap::value_parser!(u64).range(1..))]
        position: Position,
        /// The reason, which is stored in the log
        #[arg(long, value_name = "TEXT")]
        reason: String,
    },
}

impl Events {
    pub(super) async fn run(&self, global: &Global) -> Result<()> {
        match &self.command {
            Some(One::Inspect { position }) => return skip::inspect(global, *position).await,
            Some(One::Skip { position, reason }) => return skip::skip(global, *position, reason).await,
            None => {}
        }
        let client = global.client()?;
        let mut left = self.limit.unwrap_or(u64::MAX);
        let mut print = |event: &str| {
            output::line(event)?;
            left -= 1;
            Ok(left > 0)
        };
        if self.limit == Some(0) {
            return Ok(());
        }
        match self.follow {
            true => self.follow(&client, &mut print).await,
            false => self.list(&client, &mut print).await,
        }
    }

    fn query(&self) -> Vec<(&'static str, String)> {
        let mut query = Vec::new();
        query.extend(self.model.clone().map(|model| ("model", model)));
        query.extend(self.instance.clone().map(|instance| ("instance", instance)));
        query.extend(self.kind.clone().map(|kind| ("type", kind)));
        query.extend(self.after.clone().map(|after| ("after", after)));
        query
    }

    async fn list(&self, client: &Client, print: &mut impl FnMut(&str) -> Result<bool>) -> Result<()> {
        let mut query = self.query();
        query.push(("limit", self.limit.unwrap_or(1000).min(1000).to_string()));
        let next = |page: &Value, _: &Value| Some(("after", page.get("next")?.as_str()?.to_owned()));
        let mut done = false;
        let each = client.each("/events", &query, next, |event| {
            done = !print(&event.to_string())?;
            // The only way to leave the loop early; `done` distinguishes it from a closed output.
            if done { Err(Failure::OutputClosed) } else { Ok(()) }
        });
        match each.await {
            Err(Failure::OutputClosed) if done => Ok(()),
            result => result,
        }
    }

    async fn follow(&self, client: &Client, print: &mut impl FnMut(&str) -> Result<bool>) -> Result<()> {
        let path = with_query("/events/stream", &self.query());
        // The server names the place that the stream starts at, so that a connection that breaks before the first event
        // loses none.
        let mut last_id = self.after.clone();
        let mut wait = RECONNECT.0;
        let mut reached = false;
        loop {
            let mut response = match client.stream(&path, last_id.as_deref()).await {
                Ok(response) => response,
                // The server was there before and may come back.
                Err(Failure::NoServer(_) | Failure::Broken(_)) if reached => {
                    tokio::time::sleep(wait).await;
                    wait = (wait * 2).min(RECONNECT.1);
                    continue;
                }
                Err(Failure::PositionUnknown(message)) if reached => {
                    output::warn(format!("{message}; starting over with the first event"));
                    last_id = Some("0".to_owned());
                    continue;
                }
                Err(error) => return Err(error),
            };
            reached = true;
            wait = RECONNECT.0;
            let mut frames = Frames::default();
            while let Ok(Some(chunk)) = response.chunk().await {
                for frame in frames.push(&chunk) {
                    last_id = frame.id.or(last_id);
                    if !frame.data.is_empty() && !print(&frame.data)? {
                        return Ok(());
                    }
                }
            }
            tokio::time::sleep(wait).await;
        }
    }
}

/// A position, or the id of an event of a stream: `<log>.<position>`.
fn place(text: &str) -> Result<String, String> {
    let digits = text.rsplit_once('.').map_or(text, |(_, digits)| digits);
    match digits.parse::<u64>() {
        Ok(_) if digits.as_bytes()[0].is_ascii_digit() => Ok(text.to_owned()),
        _ => Err("expected a position such as 12, or the id of an event of a stream".to_owned()),
    }
}

/// Splits a stream into server-sent events.
#[derive(Default)]
pub(super) struct Frames {
    rest: Vec<u8>,
    current: Frame,
}

#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) id: Option<String>,
    pub(super) event: String,
    pub(super) data: String,
}

impl Frames {
    /// The events that `chunk` completes.
    pub(super) fn push(&mut self, chunk: &[u8]) -> Vec<Frame> {
        self.rest.extend_from_slice(chunk);
        let mut frames = Vec::new();
        while let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.rest.drain(..=end).collect();
            let line = String::from_utf8_lossy(&line);
            let line = line.trim_end_matches(['\n', '\r']);
            let (field, value) = line.split_once(':').unwrap_or((line, ""));
            let value = value.strip_prefix(' ').unwrap_or(value);
            match field {
                _ if line.is_empty() => {
                    let frame = std::mem::take(&mut self.current);
                    if frame != Frame::default() {
                        frames.push(frame);
                    }
                }
                "id" => self.current.id = Some(value.to_owned()),
                "event" => value.clone_into(&mut self.current.event),
                "data" => {
                    if !self.current.data.is_empty() {
                        self.current.data.push('\n');
                    }
                    self.current.data.push_str(value);
                }
                _ => {}
            }
        }
        frames
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_in_pieces() {
        let text = ":\n\nid: 7\nevent: instance.created\ndata: {\"a\":\"ä\"}\n\n: beat\n\nid: 8\r\ndata: x\ndata: y\r\n\r\nid: 9\n";
        let frame = |id: &str, event: &str, data: &str| Frame {
            id: Some(id.to_owned()),
            event: event.to_owned(),
            data: data.to_owned(),
        };
        let expected = [frame("7", "instance.created", "{\"a\":\"ä\"}"), frame("8", "", "x\ny")];
        for size in [1, 2, 3, 7, text.len()] {
            let mut frames = Frames::default();
            let found: Vec<_> = text.as_bytes().chunks(size).flat_map(|chunk| frames.push(chunk)).collect();
            assert_eq!(found, expected, "{size}");
        }
    }
}
