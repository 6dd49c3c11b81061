//! The program that tests start to inspect a library in a separate process, as the server does with its own program.

use std::path::PathBuf;
use std::process::ExitCode;

fn main() -> ExitCode {
    match std::env::args_os().nth(1).map(PathBuf::from) {
        Some(file) => snaphook_driver_loader::answer_inspection(&file),
        None => ExitCode::from(2),
    }
}
