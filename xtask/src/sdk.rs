//! `cargo xtask sdk`: generates the types of the JavaScript SDK from the WIT text.
//!
//! Names, members, kinds, parameters, results, the imports of a world, and the documentation are taken from the WIT.
//! Where JavaScript differs, `sdk/spelled.rs` defines the TypeScript of an item; `sdk/surface.d.ts` contains what
//! exists only in JavaScript. Each item of the WIT must have exactly one TypeScript form, and each line of the tables
//! must match an item, so that WIT and SDK cannot diverge.

mod contract;
mod spelled;
mod types;

use std::path::Path;

use wit_parser::Resolve;

use crate::repository::root;
use crate::shell::Result;
use contract::Contract;

/// The generated file, and its source.
pub(crate) const TYPES: &str = "sdk/js/index.d.ts";
pub(crate) const WIT: &str = "wit/since_v0_1_0/hook.wit";

/// Declarations that exist only in JavaScript.
const SURFACE: &str = include_str!("sdk/surface.d.ts");

pub(crate) fn run(args: &[String]) -> Result {
    if let Some(arg) = args.first() {
        return Err(format!("`sdk` takes no argument, found `{arg}`"));
    }
    let wit = std::fs::read_to_string(root().join(WIT)).map_err(|error| format!("cannot read {WIT}: {error}"))?;
    let types = types(&wit)?;
    std::fs::write(root().join(TYPES), types).map_err(|error| format!("cannot write {TYPES}: {error}"))?;
    println!("wrote {TYPES}");
    Ok(())
}

/// The whole file.
pub(crate) fn types(wit: &str) -> Result<String> {
    let mut resolve = Resolve::default();
    resolve.push_str(Path::new(WIT), wit).map_err(|error| format!("{WIT}: {error:#}"))?;
    let mut contract = Contract::new(&resolve);
    let spelled = spelled::TYPES.iter().chain(&spelled::WORDS).chain(&spelled::MEMBERS);
    spelled.into_iter().try_for_each(|(item, _)| contract.expect(item.trim_end_matches("()")))?;
    let generated = types::all(&resolve, &mut contract)?;
    for (item, text) in spelled::BY_HAND {
        contract.take(item)?;
        if !SURFACE.contains(text) {
            return Err(format!("`{item}` of {WIT} is `{text}` in JavaScript, which xtask/src/sdk/surface.d.ts lacks"));
        }
    }
    for (item, _) in spelled::LEFT_OUT {
        contract.take(item)?;
    }
    contract.finish()?;
    Ok(format!(
        "// The contract of hooks in JavaScript and TypeScript. `cargo xtask sdk` writes this file, from {WIT}.\n\
         {generated}\n{SURFACE}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn released() -> String {
        std::fs::read_to_string(root().join(WIT)).unwrap()
    }

    /// The result for a WIT text in which one part is replaced.
    #[track_caller]
    fn changed(old: &str, new: &str) -> Result<String> {
        let wit = released();
        assert!(wit.contains(old), "{old}");
        types(&wit.replacen(old, new, 1))
    }

    #[test]
    fn what_is_new_in_the_wit_comes_out_or_is_missed() {
        let before = types(&released()).unwrap();
        for (old, new, expected) in [
            ("    revision: u64,\n", "    revision: u64,\n    tag: option<string>,\n", "  tag: string | null;\n"),
            ("    post-delete,\n", "    post-delete,\n    pre-read,\n", "\"postDelete\" | \"preRead\";"),
            ("`too-large`, `failed`", "`too-large`, `busy`, `failed`", "\"too-large\" | \"busy\" | \"failed\""),
            (
                "    actor: option<string>,\n",
                "    actor: option<string>,\n    on-behalf-of: string,\n",
                "  onBehalfOf: string;\n",
            ),
            (
                "get: func(model: string, id: string)",
                "get: func(model: string, id: string, at: option<u64>)",
                "get<Data = Json>(model: string, id: string, options?: { at?: number }): Instance<Data> | null;",
            ),
            (
                "    timeout-ms: option<u64>,\n  }\n\n  record output",
                "    timeout-ms: option<u64>,\n    cwd: option<string>,\n  }\n\n  record output",
                "  cwd?: string;\n",
            ),
            ("  enum redirect {\n", "  enum redirect {\n    ask,\n", "\"ask\" | \"follow\" | \"manual\" | \"error\""),
            (
                "    error,\n  }\n\n  write:",
                "    error,\n    fatal,\n  }\n\n  write:",
                "  fatal(...values: unknown[]): void;\n",
            ),
            (
                "  import secret;\n\n  export check",
                "  import secret;\n  import write;\n\n  export check",
                "  write: Write;\n}\n\n/** Decides",
            ),
        ] {
            let after = changed(old, new).unwrap_or_else(|error| panic!("{new}: {error}"));
            assert!(after.contains(expected) && !before.contains(expected), "{expected} in {after}");
        }
        for (old, new, missed) in [
            (
                "  /// The event at that position",
                "  count: func(model: string) -> u64;\n  /// The event at",
                "`read.count`",
            ),
            (
                "    body: list<u8>,\n    timeout",
                "    body: list<u8>,\n    version: u8,\n    timeout",
                "`http.request.version`",
            ),
            (
                "    message: string,\n    fields",
                "    message: string,\n    code: string,\n    fields",
                "`types.rejection.code`",
            ),
            ("    accept,\n", "    accept,\n    later,\n", "`types.verdict.later`"),
            ("/// Decides on", "interface queue { push: func(text: string); }\n/// Decides on", "`queue.push`"),
            ("  import log;\n", "  import log;\n  import queue: interface { push: func(); }\n", "queue"),
            ("    data: string,\n  }\n\n  /// A pre", "    text: string,\n  }\n\n  /// A pre", "`types.instance.data`"),
            ("-> result<page, access-error>", "-> page", "`read.query`"),
        ] {
            let error = changed(old, new).unwrap_err();
            assert!(error.contains(missed), "{missed} in {error}");
        }
    }
}
