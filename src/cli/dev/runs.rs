//! What a server's hooks do, printed as it happens: every run, every native library that is loaded, and that something
//! was missed if it was.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::sync::oneshot;

use crate::cli::client::Client;
use crate::cli::events::{Frame, Frames};
use crate::cli::failure::Failure;
use crate::cli::output;
use crate::hooks::grant_lines::TO_ALLOW;

/// How often a server that is gone is looked for.
pub(super) const LOOK: Duration = Duration::from_millis(500);

/// Follows the server, also after it came back, until nobody reads the output. `connected` is told once it listens.
pub(super) async fn print(client: Arc<Client>, connected: oneshot::Sender<()>) {
    let mut connected = Some(connected);
    let mut faults = Faults::default();
    // When the connection broke, and whether that was said.
    let mut broken: Option<(Instant, bool)> = None;
    loop {
        let mut lines = Vec::new();
        match client.stream("/hooks/runs", None).await {
            Ok(mut response) => {
                if let Some(connected) = connected.take() {
                    // Whoever waited may have gone.
                    let _ = connected.send(());
                }
                if let Some((since, _)) = broken.take() {
                    lines.push(gap(since.elapsed()));
                }
                let mut frames = Frames::default();
                loop {
                    for line in lines.drain(..) {
                        if let Err(Failure::OutputClosed) = output::line(line) {
                            return;
                        }
                    }
                    let Ok(Some(chunk)) = response.chunk().await else { break };
                    lines.extend(frames.push(&chunk).iter().filter_map(|frame| faults.line(frame)));
                }
                broken = Some((Instant::now(), false));
            }
            Err(_) => {
                if let Some((_, said)) = &mut broken
                    && !std::mem::replace(said, true)
                    && let Err(Failure::OutputClosed) = output::line(BROKEN)
                {
                    return;
                }
            }
        }
        // An older server has no such stream; what it binds is printed all the same.
        drop(connected.take());
        tokio::time::sleep(LOOK).await;
    }
}

/// What is said when the server is not heard any more, and again.
const BROKEN: &str = "the connection to the server broke; runs are missing here until it is back";

fn gap(silence: std::time::Duration) -> String {
    format!("the connection to the server is back; runs of {:.1} s may be missing here", silence.as_secs_f64())
}

/// What is wrong with native libraries, by hook: a server that tries again says it again.
#[derive(Default)]
struct Faults(HashMap<String, String>);

impl Faults {
    fn line(&mut self, frame: &Frame) -> Option<String> {
        let told = snaphook_driver::json::parse(&frame.data).ok()?;
        match frame.event.as_str() {
            "library" => self.library(&told),
            "missed" => {
                let missed = told.get("missed").and_then(Value::as_u64)?;
                Some(format!("{missed} runs are missing here: they came faster than they could be printed"))
            }
            // Streams say `run`; more may come.
            "run" => Some(text(&told)),
            _ => None,
        }
    }

    fn library(&mut self, told: &Value) -> Option<String> {
        let word = |name: &str| told.get(name).and_then(Value::as_str).unwrap_or_default();
        let hook = format!("{}.{}/{}", word("model"), word("phase"), word("hook"));
        let library = word("library");
        match told.get("error").and_then(Value::as_str) {
            Some(error) if self.0.get(&hook).is_some_and(|said| said == error) => None,
            Some(error) => {
                let line = format!("{hook}: library `{library}` is not loaded: {error}");
                self.0.insert(hook, error.to_owned());
                Some(line)
            }
            None => {
                self.0.remove(&hook);
                // Twelve digits tell artifacts apart.
                let artifact: String = word("artifact").chars().take("sha256:".len() + 12).collect();
                Some(format!("{hook}: library `{library}` is loaded, not sandboxed ({artifact})"))
            }
        }
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
        let (message, grant) = match message.split_once(TO_ALLOW) {
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
    fn what_is_told_beside_runs() {
        let mut faults = Faults::default();
        let mut line = |event: &str, data: Value| {
            faults.line(&Frame { id: None, event: event.to_owned(), data: data.to_string() })
        };
        let said = line("missed", json!({"missed": 7}));
        assert_eq!(said.as_deref(), Some("7 runs are missing here: they came faster than they could be printed"));
        let library = |error: Option<&str>| {
            json!({"model": "a", "phase": "preCreate", "hook": "h", "library": "libh.so",
                "artifact": "sha256:0123456789abcdef", "error": error})
        };
        let loaded = "a.preCreate/h: library `libh.so` is loaded, not sandboxed (sha256:0123456789ab)";
        let fails = "a.preCreate/h: library `libh.so` is not loaded: it is none";
        for (error, said) in [
            (None, Some(loaded)),
            (Some("it is none"), Some(fails)),
            // Tried again, said already.
            (Some("it is none"), None),
            (None, Some(loaded)),
            (Some("it is none"), Some(fails)),
        ] {
            assert_eq!(line("library", library(error)).as_deref(), said);
        }
        assert_eq!(line("later", json!({})), None);
    }

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
