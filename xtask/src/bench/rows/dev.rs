//! `snaphook dev`: how long an author waits after a save.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdout, Stdio};
use std::time::{Duration, Instant};

use super::super::Bench;
use super::super::load::LoadOutcome;
use super::super::report::{Row, percentiles};
use crate::shell::Result;

const SAVES: usize = 20;

/// Killed with its server when the row ends, also after a failure.
struct Dev {
    child: Child,
    lines: std::io::Lines<BufReader<ChildStdout>>,
}

impl Dev {
    /// Reads up to the line that begins with `start`.
    fn says(&mut self, start: &str) -> Result {
        for line in self.lines.by_ref() {
            let line = line.map_err(|error| format!("the output of `snaphook dev` cannot be read: {error}"))?;
            if line.starts_with(start) {
                return Ok(());
            }
        }
        Err(format!("`snaphook dev` ended without printing `{start}`"))
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The time from saving a source until a line says that it is bound.
pub(crate) fn save_to_bound(bench: &Bench) -> Result<Vec<Row>> {
    let place = bench.place("dev", "")?;
    let hook = place.folder().join("hooks/order/preCreate.js");
    let source = |index: usize| format!("export function preCreate() {{ throw new Reject(\"save {index}\"); }}\n");
    write(&hook.with_file_name("model.json"), r#"{"schema": {"type": "object"}}"#)?;
    write(&hook, &source(0))?;
    let mut child = place
        .command(&["dev"])
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| format!("`snaphook dev` cannot be started: {error}"))?;
    let lines = BufReader::new(child.stdout.take().ok_or("no pipe")?).lines();
    let mut dev = Dev { child, lines };
    dev.says("watching ")?;
    let mut times = Vec::with_capacity(SAVES);
    for index in 1..=SAVES {
        let start = Instant::now();
        write(&hook, &source(index))?;
        dev.says("change hook `order.preCreate`: ")?;
        times.push(start.elapsed());
    }
    let outcome = LoadOutcome::new(times, Duration::from_secs(1));
    let row = Row::time(
        "snaphook dev: save of a JS hook to bound and said",
        Some(Duration::from_secs(1)),
        outcome.percentile(0.5),
    );
    Ok(vec![row.with_detail(format!("{SAVES} saves: {}", percentiles(&outcome)))])
}

fn write(path: &Path, text: &str) -> Result {
    let folder = path.parent().unwrap_or(Path::new(""));
    let written = std::fs::create_dir_all(folder).and_then(|()| std::fs::write(path, text));
    written.map_err(|error| format!("cannot write {}: {error}", path.display()))
}
