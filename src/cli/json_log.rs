//! Lines of the log as JSON, one document each, with the request that they belong to.

use std::fmt::{self, Write as _};

use snaphook_driver::time;
use tracing::Event;
use tracing::field::{Field, Visit};
use tracing_subscriber::fmt::format::Writer;

use crate::telemetry::trace::scope;

/// Writes one line. Whatever is in it, JSON escapes it.
pub(super) fn write(mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
    let metadata = event.metadata();
    let mut line = Line::default();
    line.member("time", &time::format(time::now()));
    line.member("level", &metadata.level().as_str().to_ascii_lowercase());
    line.member("target", metadata.target());
    let mut fields = Fields::default();
    event.record(&mut fields);
    line.member("message", &fields.message);
    scope::look(|scope| {
        if let Some(id) = scope.request_id() {
            line.member("request_id", id);
            fields.request_id = None;
        }
        if let Some(trace) = scope.trace() {
            line.member("trace_id", &trace.trace_id().to_string());
        }
    });
    // Said by who works for no request in particular.
    if let Some(id) = &fields.request_id {
        line.member("request_id", id);
    }
    if !fields.others.0.is_empty() {
        line.raw("fields", &format!("{{{}}}", fields.others.0));
    }
    writeln!(writer, "{{{}}}", line.0)
}

/// The members of an object.
#[derive(Default)]
struct Line(String);

impl Line {
    fn member(&mut self, name: &str, text: &str) {
        // A text can always be written.
        self.raw(name, &serde_json::to_string(text).unwrap_or_default());
    }

    fn raw(&mut self, name: &str, json: &str) {
        let comma = if self.0.is_empty() { "" } else { "," };
        let _ = write!(self.0, "{comma}\"{name}\":{json}");
    }
}

/// What an event says; the names of its fields are those of this program's source.
#[derive(Default)]
struct Fields {
    message: String,
    request_id: Option<String>,
    others: Line,
}

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "message" => value.clone_into(&mut self.message),
            "request_id" => self.request_id = Some(value.to_owned()),
            name => self.others.member(name, value),
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let text = format!("{value:?}");
        match field.name() {
            "message" => self.message = text,
            name => self.others.member(name, &text),
        }
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.others.raw(field.name(), &value.to_string());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.others.raw(field.name(), &value.to_string());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.others.raw(field.name(), if value { "true" } else { "false" });
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use serde_json::{Value, json};

    use super::super::log::Lines;
    use crate::telemetry::trace::{Scope, scope};

    #[derive(Clone, Default)]
    struct LogBuffer(Arc<Mutex<Vec<u8>>>);

    impl std::io::Write for LogBuffer {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn logged(log: impl FnOnce()) -> Vec<Value> {
        let kept = LogBuffer::default();
        let writer = kept.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_ansi(true)
            .event_format(Lines::json())
            .with_writer(move || writer.clone())
            .finish();
        tracing::subscriber::with_default(subscriber, log);
        let text = String::from_utf8(kept.0.lock().unwrap().clone()).unwrap();
        text.lines()
            .map(|line| snaphook_driver::json::parse(line).unwrap_or_else(|error| panic!("{error}: {line}")))
            .collect()
    }

    #[test]
    fn a_line_is_a_document_with_its_request() {
        let lines = logged(|| {
            let of_request = Arc::new(Scope::of_request("r-1".into()));
            scope::on_thread(
                Some(of_request),
                || tracing::warn!(target: "t", count = 3, is_so = true, name = "a", "said"),
            );
            tracing::info!("{}", "\"}\n{\"level\":\"error\" \u{1b}[31m\0 ä");
        });
        let [first, second] = &lines[..] else { panic!("{lines:?}") };
        let mut first = first.clone();
        assert!(first["time"].take().as_str().is_some_and(|time| time.ends_with('Z')));
        let expected = json!({
            "time": null, "level": "warn", "target": "t", "message": "said", "request_id": "r-1",
            "fields": {"count": 3, "is_so": true, "name": "a"},
        });
        assert_eq!(first, expected);
        let lines = logged(|| {
            tracing::info!(request_id = "r-2", "of another task");
            let of_request = Arc::new(Scope::of_request("r-3".into()));
            scope::on_thread(Some(of_request), || tracing::info!(request_id = "r-3", status = 200_u16, "asked"));
        });
        assert_eq!((&lines[0]["request_id"], lines[0].get("fields")), (&json!("r-2"), None));
        assert_eq!((&lines[1]["request_id"], &lines[1]["fields"]), (&json!("r-3"), &json!({"status": 200})));
        assert_eq!(second["message"], "\"}\n{\"level\":\"error\" \u{1b}[31m\0 ä");
        assert_eq!((&second["level"], second.get("request_id")), (&json!("info"), None));
    }
}
