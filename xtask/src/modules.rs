//! `cargo xtask modules`: builds the programs and libraries that server modules need.

use std::path::PathBuf;

use crate::repository::target_directory;
use crate::shell::Result;
use crate::{needs, zia};

/// `cargo xtask modules [--release] [--zia-headers DIR] [--boost DIR]`.
pub(crate) fn run(args: &[String]) -> Result {
    let mut options = zia::Options::default();
    let mut profile = "debug";
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        let mut folder = || args.next().map(PathBuf::from).ok_or_else(|| format!("`{arg}` needs a folder"));
        match arg.as_str() {
            "--release" => profile = "release",
            "--zia-headers" => options.headers = Some(folder()?),
            "--boost" => options.boost = Some(folder()?),
            other => return Err(format!("`modules` takes --release, --zia-headers DIR, --boost DIR, found `{other}`")),
        }
    }
    needs::cpp(options.boost.as_deref())?;
    // Next to the server's binary, where the server looks first.
    let program = zia::bridge(&options, &target_directory()?.join(profile))?;
    println!("the bridge for modules of ZiaModuleAPISpec is {}", program.display());
    Ok(())
}
