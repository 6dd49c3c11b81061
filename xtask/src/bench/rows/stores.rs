//! Stores that are not linked into the server.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Stdio};

use super::super::Bench;
use super::super::report::{Goal, Row};
use super::{press_creates, with_model};
use crate::repository::root;
use crate::shell::{Result, cargo, read};

/// The call `head` of the driver `memory`, linked and as a library.
pub(crate) fn library(_: &Bench) -> Result<Vec<Row>> {
    let plugins = crate::plugins::build(true)?;
    let (prefix, suffix) = (std::env::consts::DLL_PREFIX, std::env::consts::DLL_SUFFIX);
    let file = plugins.join(format!("memory/{prefix}snaphook_memory{suffix}"));
    let example = ["run", "--quiet", "--release", "--package=snaphook-driver-loader", "--example=overhead", "--"];
    let said = read(cargo().args(example).arg(file).current_dir(root()))?;
    let measured = said.lines().find_map(|line| line.strip_prefix("a library costs ")?.split(' ').next()?.parse().ok());
    let measured = measured.ok_or_else(|| format!("the example `overhead` prints no number: {said}"))?;
    Ok(vec![Row {
        what: "a call of a driver in a library, above one of a linked driver".into(),
        goal: Goal::AtMost(3.0),
        unit: "µs",
        measured,
        detail: said.lines().next().unwrap_or_default().to_owned(),
        memory: None,
    }])
}

/// Creates on 64 connections, with the sqlite drivers in another process, over the loopback interface.
pub(crate) fn remote(bench: &Bench) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for encoding in ["protobuf", "json"] {
        let host = bench.place(&format!("driver-host-{encoding}"), "")?;
        let mut command = host.command(&["driver-host", "--listen", "127.0.0.1:0"]);
        let child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
        let mut host = Host(child.map_err(|error| format!("cannot start a driver host: {error}"))?);
        let output = host.0.stdout.take().ok_or("the driver host has no output")?;
        let url = BufReader::new(output).lines().next().and_then(std::result::Result::ok);
        let url = url.ok_or("the driver host ended before it printed its address")?;
        let store = |store: &str| {
            format!("[driver-{store}-storage]\ndriver = 'remote'\nurl = '{url}'\nencoding = '{encoding}'\n")
        };
        let config = ["event", "model", "error"].map(store).concat();
        let server = bench.server(&format!("remote-{encoding}"), &config)?;
        with_model(&server)?;
        let outcome = press_creates(&server, 64, bench.run)?;
        let what = format!("create, 64 connections, stores in another process, {encoding}");
        rows.push(Row::rate(what, Goal::AtLeast(15_000.0), &outcome, server.memory()?));
        server.stop()?;
    }
    Ok(rows)
}

/// A process that is killed when the row ends.
struct Host(Child);

impl Drop for Host {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
