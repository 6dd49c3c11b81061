//! Every run of a server's hooks, printed as it ends.

use std::collections::HashSet;
use std::sync::Arc;

use serde_json::Value;
use tokio::sync::oneshot;

use super::LOOK;
use crate::cli::client::Client;
use crate::cli::events::Frames;
use crate::cli::{Failure, output};

/// What a denial says before the lines of configuration that would grant what was asked.
const GRANT: &str = "; to allow it, add to ";

/// Follows the server, also after it came back, until nobody reads the output. `connected` is told once it listens.
pub(super) async fn print(client: Arc<Client>, connected: oneshot::Sender<()>) {
    let mut connected = Some(connected);
    loop {
        if let Ok(mut response) = client.stream("/hooks/runs", "").await {
            if let Some(connected) = connected.take() {
                // Whoever waited may have gone.
                let _ = connected.send(());
            }
            let mut frames = Frames::default();
            while let Ok(Some(chunk)) = response.chunk().await {
                for frame in frames.push(&chunk) {
                    let Ok(run) = serde_json::from_str::<Value>(&frame.data) else { continue };
                    if let Err(Failure::OutputClosed) = output::line(text(&run)) {
                        return;
                    }
                }
            }
        }
        // An older server has no such stream; what it binds is printed all the same.
        drop(connected.take());
        tokio::time::sleep(LOOK).await;
    }
}

/// One run: a line of what, for whom, how and how long; then its message, its log, and the grants that it lacked.
fn text(run: &Value) -> String {
    let word = |name: &str| run.get(name).and_then(Value::as_str).unwrap_or_default();
    let shadow = if run.get("shadow") == Some(&Value::Bool(true)) { " (shadow)" } else { "" };
    let wall_ms = run.get("wall_ms").and_then(Value::as_f64).unwrap_or(0.0);
    let cause = match word("cause") {
        "" => String::new(),
        cause => format!(" ({cause})"),
    };
    let mut out = format!(
        "{}.{}/{} {} {}{cause}{shadow} {wall_ms:.2} ms",
        word("model"),
        word("phase"),
        word("hook"),
        word("instance"),
        word("verdict"),
    );
    let mut grants: Vec<&str> = Vec::new();
    // A denial stands in the log, and in the failure if the hook did not catch it.
    let mut said: HashSet<&str> = HashSet::new();
    let log = run.get("log").and_then(Value::as_array).into_iter().flatten();
    let lines = log.filter_map(|line| Some((line.get("level")?.as_str()?, line.get("message")?.as_str()?)));
    let message = Some(("", word("message"))).filter(|(_, message)| !message.is_empty());
    for (level, message) in message.into_iter().chain(lines) {
        let (message, grant) = match message.split_once(GRANT) {
            // Of a throw, its place in the source follows.
            Some((message, grant)) => (message, grant.split(" (line ").next()),
            None => (message, None),
        };
        if said.insert(message) || grant.is_none() {
            let level = if level.is_empty() { String::new() } else { format!("{level}: ") };
            out.push_str(&format!("\n    {level}{}", message.replace('\n', "\n    ")));
        }
        grants.extend(grant.filter(|grant| !grants.contains(grant)));
    }
    for row in run.get("fields").and_then(Value::as_array).into_iter().flatten() {
        let part = |name: &str| row.get(name).and_then(Value::as_str).unwrap_or_default();
        out.push_str(&format!("\n    {}: {}", part("pointer"), part("message")));
    }
    for grant in grants {
        // `config.toml:` and the lines, as they can be pasted.
        let (file, lines) = grant.split_once(":\n").unwrap_or(("config.toml", grant));
        out.push_str(&format!("\n    it lacked a grant; in {file}:\n\n{lines}\n"));
    }
    out
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_run_says_what_it_lacked_once() {
        let denial = "asked for x, which no grant opens; to allow it, add to config.toml:\n[[grants]]\nmodel = 'a'";
        let thrown = format!("{denial} (line 2, column 4)");
        let run = json!({"model": "a", "phase": "preCreate", "hook": "h", "instance": "i", "verdict": "failed", "cause": "exception",
            "message": thrown, "wall_ms": 1.256, "log": [{"level": "warn", "message": denial}, {"level": "info", "message": "x"}]});
        assert_eq!(
            text(&run),
            "a.preCreate/h i failed (exception) 1.26 ms\n    asked for x, which no grant opens\n    info: x\n    \
             it lacked a grant; in config.toml:\n\n[[grants]]\nmodel = 'a'\n"
        );
        let run = json!({"model": "a", "phase": "preCreate", "hook": "h", "instance": "i", "verdict": "reject", "shadow": true,
            "message": "no", "fields": [{"pointer": "/a", "message": "bad"}], "wall_ms": 0.2});
        assert_eq!(text(&run), "a.preCreate/h i reject (shadow) 0.20 ms\n    no\n    /a: bad");
    }
}
