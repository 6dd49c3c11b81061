//! Hooks that are built: folders with a `hook.toml` inside a model's folder. When one of its files is saved, a project is
//! built to the file of its phase, which is then bound like any other.
//!
//! A compiler takes seconds, so that it runs is said at once, and the command that does it is a process of its own:
//! `snaphook hook build`.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::{Duration, Instant, SystemTime};

use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;

use super::paths::shown;
use crate::cli::failure::Result;
use crate::cli::hook::project::{self, Project};
use crate::cli::output;
use crate::config::read_regular;

/// What a build makes lies there, or what it is made with; hidden files beside.
const NO_SOURCES: [&str; 4] = ["dist", "target", "node_modules", "__pycache__"];

/// The projects of a folder of hooks.
pub(super) struct Projects {
    directory: PathBuf,
    config: Option<PathBuf>,
    known: HashMap<PathBuf, Known>,
    building: FuturesUnordered<BoxFuture<'static, Built>>,
}

#[derive(Default)]
struct Known {
    /// Of the sources that were built last, or tried.
    digest: Option<u64>,
    is_building: bool,
    /// Why it is not built; said already.
    fault: String,
}

/// A build that ended.
struct Built {
    folder: PathBuf,
    /// `order.preCreate`.
    place: String,
    /// `check (python)`.
    what: String,
    took: Duration,
    output: std::io::Result<Output>,
    /// Whether there is something that was built before.
    has_older: bool,
}

impl Projects {
    /// `config`: the file of the command line, if it names one.
    pub(super) fn new(directory: &Path, config: Option<&Path>) -> Self {
        Projects {
            directory: directory.to_owned(),
            config: config.map(Path::to_owned),
            known: HashMap::new(),
            building: FuturesUnordered::new(),
        }
    }

    /// Starts to build what was saved since the last look. An error is one of printing.
    pub(super) fn look(&mut self) -> Result<()> {
        let found = find(&self.directory);
        self.known.retain(|folder, known| known.is_building || found.iter().any(|(_, there)| there == folder));
        let mut targets = HashMap::new();
        for (model, folder) in found {
            let result = self.look_at(&model, &folder, &mut targets);
            let known = self.known.entry(folder.clone()).or_default();
            let fault = result.err().unwrap_or_default();
            if !fault.is_empty() && fault != known.fault {
                output::line(&fault)?;
            }
            known.fault = fault;
        }
        Ok(())
    }

    /// Waits until a build has ended, and says how; for ever if there is none. Nothing is lost if the wait is given up.
    pub(super) async fn built(&mut self) -> Result<()> {
        let Some(built) = self.building.next().await else { return std::future::pending().await };
        if let Some(known) = self.known.get_mut(&built.folder) {
            known.is_building = false;
        }
        output::line(built.text())?;
        // It may have been saved meanwhile.
        self.look()
    }

    /// The error says what is wrong with the project.
    fn look_at(&mut self, model: &str, folder: &Path, targets: &mut HashMap<PathBuf, PathBuf>) -> Result<(), String> {
        let Some(project) = Project::find(folder).map_err(|error| error.to_string())? else { return Ok(()) };
        let out = target(&project)?;
        if let Some(other) = targets.insert(out.clone(), folder.to_owned()) {
            let (here, other) = (shown(folder), shown(&other));
            return Err(format!(
                "{here}: not built: `{other}` is for `{}` too; name both in `{}.toml`",
                project.phase, project.phase
            ));
        }
        let known = self.known.entry(folder.to_owned()).or_default();
        if known.is_building {
            return Ok(());
        }
        let sources = Sources::read(&project);
        if known.digest == Some(sources.digest) {
            return Ok(());
        }
        let is_first = known.digest.is_none();
        known.digest = Some(sources.digest);
        let made = std::fs::metadata(&out).and_then(|found| found.modified()).ok();
        if is_first && made.is_some_and(|made| made > sources.newest) {
            return Ok(());
        }
        known.is_building = true;
        let place = format!("{model}.{}", project.phase);
        let what = format!("{} ({})", project.name, project.language.as_str());
        // Who does not read it does not read the end either, and that is noticed.
        let _ = output::line(format!("{place}: building {what} …"));
        self.building.push(Box::pin(build(folder.to_owned(), out, self.config.clone(), place, what)));
        Ok(())
    }
}

impl Built {
    fn text(&self) -> String {
        let Built { folder, place, what, took, output, has_older } = self;
        let older = if *has_older { "\n    the previous build keeps running" } else { "" };
        let took = format!("{:.0} ms", took.as_secs_f64() * 1e3);
        match output {
            Ok(output) => {
                let said = String::from_utf8_lossy(&output.stderr);
                let said = said.trim_end().lines().map(|line| format!("\n    {line}")).collect::<String>();
                match output.status.success() {
                    true => format!("{place}: built {what}, {took}{said}"),
                    false => format!("{}: {place} is not built, {took}{said}{older}", shown(folder)),
                }
            }
            Err(error) => format!("{}: {place} is not built: {error}{older}", shown(folder)),
        }
    }
}

/// The models and folders of the projects.
fn find(directory: &Path) -> Vec<(String, PathBuf)> {
    let folders = |path: &Path| {
        let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
        let mut folders: Vec<PathBuf> = entries.map(|entry| entry.path()).filter(|path| path.is_dir()).collect();
        folders.sort();
        folders
    };
    let models = folders(directory).into_iter().filter(|model| model.join("model.json").is_file());
    let projects = models.flat_map(|model| {
        let name = model.file_name().unwrap_or_default().to_string_lossy().into_owned();
        folders(&model).into_iter().map(move |project| (name.clone(), project))
    });
    projects.filter(|(_, project)| project.join(project::FILE).is_file()).collect()
}

/// Where the project is built to: the file of its phase, or its own `dist` if the phase is a chain, which names it there.
fn target(project: &Project) -> Result<PathBuf, String> {
    let model = project.directory.parent().unwrap_or(Path::new(""));
    let phase = project.phase;
    if project.native {
        // Libraries are named from the folder of hooks on.
        let file = project.target();
        return Ok(model.parent().unwrap_or(Path::new("")).join(file.file_name().unwrap_or_default()));
    }
    if model.join(format!("{phase}.toml")).is_file() {
        return Ok(project.target());
    }
    let target = model.join(project.target().file_name().unwrap_or_default());
    let other = ["js", "ts", "wasm"].map(|extension| model.join(format!("{phase}.{extension}")));
    match other.iter().find(|file| **file != target && file.is_file()) {
        None => Ok(target),
        Some(other) => Err(format!(
            "{}: not built: `{phase}` has `{}` already; remove one of the two, or name both in `{phase}.toml`",
            shown(&project.directory),
            other.file_name().unwrap_or_default().to_string_lossy()
        )),
    }
}

async fn build(folder: PathBuf, out: PathBuf, config: Option<PathBuf>, place: String, what: String) -> Built {
    let started = Instant::now();
    let run = async {
        let mut command = tokio::process::Command::new(std::env::current_exe()?);
        if let Some(config) = config {
            command.arg("--config").arg(config);
        }
        command.args(["hook", "build"]).arg(&folder).arg("--out").arg(&out);
        command.stdin(Stdio::null()).kill_on_drop(true).output().await
    };
    let output = run.await;
    Built { folder, place, what, took: started.elapsed(), output, has_older: out.is_file() }
}

/// The files that a project is made of.
struct Sources {
    digest: u64,
    newest: SystemTime,
}

impl Sources {
    fn read(project: &Project) -> Sources {
        let mut files = Vec::new();
        let output = project.output.as_ref().map(|output| project.directory.join(output));
        collect(&project.directory, &mut files);
        files.retain(|file| Some(file) != output.as_ref());
        files.sort();
        let mut hasher = DefaultHasher::new();
        let mut newest = SystemTime::UNIX_EPOCH;
        for file in files {
            // By what is in them: a build may write a file anew that stays the same.
            read_regular(&file, usize::MAX >> 1).unwrap_or_default().hash(&mut hasher);
            newest = newest.max(std::fs::metadata(&file).and_then(|found| found.modified()).unwrap_or(newest));
            file.hash(&mut hasher);
        }
        Sources { digest: hasher.finish(), newest }
    }
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with('.') || name.ends_with('~') || NO_SOURCES.contains(&name.as_ref()) {
            continue;
        }
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => collect(&entry.path(), files),
            Ok(_) => files.push(entry.path()),
            Err(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn projects_and_what_they_are_made_of() {
        let root = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        let hook = "name = 'check'\nlanguage = 'c'\nphase = 'preCreate'\nbuild = [['x']]\noutput = 'hook.wasm'\n";
        write("order/model.json", "{}");
        write("order/check/hook.toml", hook);
        write("order/check/src/hook.c", "1");
        write("order/notes/README.md", "no project");
        write("other/check/hook.toml", "no model");
        let folder = root.path().join("order/check");
        assert_eq!(find(root.path()), [("order".to_owned(), folder.clone())]);

        let project = Project::find(&folder).unwrap().unwrap();
        let first = Sources::read(&project).digest;
        for product in ["order/check/hook.wasm", "order/check/dist/preCreate.wasm", "order/check/.hook.c.swp"] {
            write(product, "made");
        }
        write("order/check/src/hook.c", "1");
        assert_eq!(Sources::read(&project).digest, first);
        write("order/check/src/hook.c", "2");
        assert_ne!(Sources::read(&project).digest, first);

        assert_eq!(target(&project).unwrap(), root.path().join("order/preCreate.wasm"));
        write("order/preCreate.ts", "");
        let taken = target(&project).unwrap_err();
        assert!(taken.contains("`preCreate` has `preCreate.ts` already"), "{taken}");
        write("order/preCreate.toml", "");
        assert_eq!(target(&project).unwrap(), folder.join("dist/preCreate.wasm"));
    }
}
