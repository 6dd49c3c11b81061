//! `snaphook hook build`: from a hook's folder, or one source file, to the single file that is bound.
//!
//! What is built goes through the same checks as a binding, in the real engine, before it takes the place of what was
//! built before.

mod built;
mod javascript;
mod rust;
mod tool;

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;

use super::location::HookLocation;
use super::new::Language;
use super::phase::phase;
use super::prepare::{host, prepare};
use super::project::Project;
use crate::cli::failure::{Failure, Result};
use crate::cli::global::Global;
use crate::cli::output;
use crate::config::Phase;
use crate::hooks::engines::{Candidate, PreparedCode, TopLevel};
use built::{Built, component, native};
use tool::Tool;

/// Build a hook into the single file to bind
///
/// Builds a folder created with `snaphook hook new`, or bundles a JavaScript or TypeScript file with its imports. Needs the
/// language's own tools, and names the missing ones.
///
/// Example: snaphook hook build src/order.ts --phase preCreate --out hooks/order/preCreate.js
#[derive(Args, Debug)]
pub(in crate::cli) struct Build {
    /// The hook's folder, or a `.js` or `.ts` file
    #[arg(default_value = ".")]
    source: PathBuf,
    /// The file to write [default: `dist/<phase>.js` or `.wasm` in the hook's folder]
    #[arg(long, short, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Do not minify a JavaScript bundle
    ///
    /// Errors point into your files either way.
    #[arg(long)]
    no_minify: bool,
    /// The phase of the hook [default: from `hook.toml` or the file name]
    #[arg(long, value_parser = phase)]
    phase: Option<Phase>,
}

/// A top level that takes longer is worth a word.
const TOP_LEVEL_MAX: Duration = Duration::from_millis(5);

impl Build {
    pub(in crate::cli) async fn run(&self, global: &Global) -> Result<()> {
        if self.source.is_dir() {
            let project = Project::find(&self.source)?.ok_or_else(|| no_project(&self.source))?;
            let project = Project { phase: self.phase.unwrap_or(project.phase), ..project };
            return output::line(build_project(global, &project, self.out.clone(), !self.no_minify).await?);
        }
        let folder = self.source.parent().unwrap_or(Path::new("."));
        let place = HookLocation { model: None, phase: self.phase, engine: None };
        let phase = place.phase(self.out.as_deref().unwrap_or(&self.source))?;
        let out = self.out.clone().unwrap_or_else(|| folder.join("dist").join(format!("{phase}.js")));
        let built = javascript::bundle(&self.source, folder, !self.no_minify)?;
        check(global, &built, phase, phase.as_str(), &out).await?;
        write(&out, &built.bytes)?;
        output::line(said(&out, &built, phase))
    }
}

/// Of a folder that is no hook's.
pub(in crate::cli) fn no_project(folder: &Path) -> Failure {
    let folder = folder.display();
    Failure::new(format!(
        "`{folder}` has no `hook.toml`; `snaphook hook new` creates a folder that has one, or name a file"
    ))
}

/// Builds a hook's folder to the file that is bound. Gives a line about it.
pub(in crate::cli) async fn build_project(
    global: &Global,
    project: &Project,
    out: Option<PathBuf>,
    minify: bool,
) -> Result<String> {
    let built = build(project, minify)?;
    let out = out.unwrap_or_else(|| project.target());
    check(global, &built, project.phase, &project.name, &out).await?;
    write(&out, &built.bytes)?;
    Ok(said(&out, &built, project.phase))
}

fn said(out: &Path, built: &Built, phase: Phase) -> String {
    format!("{}: {} for {phase}, {} bytes", out.display(), built.engine, built.bytes.len())
}

fn build(project: &Project, minify: bool) -> Result<Built> {
    if !project.build.is_empty() {
        return own_way(project);
    }
    match project.language {
        Language::Rust if project.native => rust::build_native(&project.directory),
        Language::Js | Language::Ts => {
            let extension = project.language.as_str();
            let entry = project.entry.clone().unwrap_or_else(|| format!("src/index.{extension}").into());
            javascript::bundle(&project.directory.join(entry), &project.directory, minify)
        }
        Language::Rust => rust::build(&project.directory),
        Language::C | Language::Python => {
            let language = project.language.as_str();
            Err(Failure::new(format!(
                "`hook.toml` does not define how `{language}` is built, expected `build` and `output`"
            )))
        }
    }
}

/// The commands of `hook.toml`, in their order.
fn own_way(project: &Project) -> Result<Built> {
    for command in &project.build {
        let Some((program, args)) = command.split_first() else { continue };
        Tool::find(program, &project.directory)?.args(args).run()?;
    }
    let path = project.directory.join(project.output.as_deref().unwrap_or(Path::new("")));
    let bytes = std::fs::read(&path).map_err(|error| {
        Failure::new(format!("the build succeeded, but `{}` cannot be read: {error}", path.display()))
    })?;
    if project.native { Ok(native(bytes)) } else { component(bytes) }
}

/// What a server would say of it.
async fn check(global: &Global, built: &Built, phase: Phase, name: &str, out: &Path) -> Result<()> {
    let config = global.config_without_drivers()?;
    let host = host(&config);
    let prepared =
        prepare(&host, built.engine, Candidate { code: &built.bytes, phase, name, language: built.language })
            .await
            .map_err(|error| {
                let mut message = format!("nothing was written to `{}`: {error}", out.display());
                if !built.largest.is_empty() {
                    message.push_str(&format!("\nthe largest parts of it:\n  {}", built.largest.join("\n  ")));
                }
                Failure::new(message)
            })?;
    warn_of_top_level(&*prepared);
    Ok(())
}

fn warn_of_top_level(hook: &dyn PreparedCode) {
    let (Some(top_level), Some(time)) = (hook.top_level(), hook.top_level_time()) else { return };
    if time <= TOP_LEVEL_MAX {
        return;
    }
    let milliseconds = time.as_secs_f64() * 1e3;
    output::warn(match top_level {
        TopLevel::Captured => format!(
            "its top level, the code outside of functions, took {milliseconds:.1} ms; `quickjs` runs it once, when the hook is \
             bound, and `v8` at each call"
        ),
        TopLevel::EachCall { reason } => format!(
            "its top level, the code outside of functions, took {milliseconds:.1} ms, and runs at each call, since it {reason}"
        ),
    });
}

/// Whole or not at all: `snaphook dev` may be watching.
fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    let failed = |error: std::io::Error| Failure::new(format!("`{}` cannot be written: {error}", path.display()));
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder).map_err(failed)?;
    let mut file = tempfile::Builder::new().prefix(".hook-").tempfile_in(folder).map_err(failed)?;
    std::io::Write::write_all(&mut file, bytes).map_err(failed)?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(file.path(), std::fs::Permissions::from_mode(0o644)).map_err(failed)?;
    }
    file.persist(path).map_err(|error| failed(error.error))?;
    Ok(())
}
