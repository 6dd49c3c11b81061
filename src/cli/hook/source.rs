//! `snaphook hook source`: the code of a hook, as it is bound or was.

use std::path::PathBuf;

use clap::Args;

use super::at::{At, at};
use crate::cli::client::with_query;
use crate::cli::failure::{Failure, Result};
use crate::cli::global::Global;
use crate::cli::output;

/// Print the code of a hook that is or was bound
///
/// Example: snaphook hook source order.preCreate --artifact sha256:0123abcd
#[derive(Args, Debug)]
pub(in crate::cli) struct Source {
    /// Model and phase, such as `order.preCreate`; `order.preCreate/check` for one hook of a chain
    #[arg(value_parser = at, value_name = "MODEL.PHASE")]
    at: At,
    /// The digest of the artifact, or its first digits, from `hook list` or `hook history` [default: the bound artifact]
    #[arg(long, value_name = "DIGEST")]
    artifact: Option<String>,
    /// The file to write [default: standard output]
    #[arg(long, short, value_name = "FILE")]
    out: Option<PathBuf>,
}

impl Source {
    pub(in crate::cli) async fn run(&self, global: &Global) -> Result<()> {
        let mut query = Vec::new();
        query.extend(self.at.hook.clone().map(|hook| ("hook", hook)));
        query.extend(self.artifact.clone().map(|artifact| ("artifact", artifact)));
        let (_, bytes) = global.client()?.get_bytes(&with_query(&self.at.path(&["source"]), &query)).await?;
        match &self.out {
            None => output::bytes(&bytes, &format!("the code of `{}`", self.at)),
            Some(file) => {
                let shown = file.display();
                std::fs::write(file, &bytes)
                    .map_err(|error| Failure::new(format!("`{shown}` cannot be written: {error}")))?;
                output::line(format!("wrote {shown}, {} bytes", bytes.len()))
            }
        }
    }
}
