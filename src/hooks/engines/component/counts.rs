//! Counts the contents of a WebAssembly file before it is compiled. Files from compilers stay far below each of these
//! limits; a file above them would only exhaust the budget of its compilation.

use wasmparser::{Parser, Payload};

use crate::hooks::engines::engine::PrepareError;

/// Functions in the file, over all its modules and components. CPython has 12,000 functions, and its largest one has
/// 120 KB.
const FUNCTIONS_MAX: u64 = 200_000;
const TYPES_MAX: u64 = 50_000;
const IMPORTS_AND_EXPORTS_MAX: u64 = 100_000;
const SEGMENTS_MAX: u64 = 100_000;
const GLOBALS_MAX: u64 = 100_000;
/// Modules and components.
const PARTS_MAX: u64 = 200;
/// Nesting depth of components.
const DEPTH_MAX: u64 = 16;
/// Instances, aliases and lifted or lowered functions.
const LINKS_MAX: u64 = 100_000;

/// Size of one function's code, and the number of its locals without the parameters.
const FUNCTION_BYTES_MAX: u64 = 1 << 20;
const LOCALS_MAX: u64 = 20_000;

#[derive(Default)]
struct Counts {
    functions: u64,
    types: u64,
    names: u64,
    segments: u64,
    globals: u64,
    parts: u64,
    links: u64,
}

/// Rejects a file that exceeds a limit. The compiler reports invalid WebAssembly.
pub(super) fn check(code: &[u8]) -> Result<(), PrepareError> {
    let mut counts = Counts::default();
    let mut depth = 0;
    for payload in Parser::new(0).parse_all(code) {
        let Ok(payload) = payload else { return Ok(()) };
        match payload {
            Payload::TypeSection(section) => counts.types += u64::from(section.count()),
            Payload::CoreTypeSection(section) => counts.types += u64::from(section.count()),
            Payload::ComponentTypeSection(section) => counts.types += u64::from(section.count()),
            Payload::ImportSection(section) => counts.names += u64::from(section.count()),
            Payload::ExportSection(section) => counts.names += u64::from(section.count()),
            Payload::ComponentImportSection(section) => counts.names += u64::from(section.count()),
            Payload::ComponentExportSection(section) => counts.names += u64::from(section.count()),
            Payload::FunctionSection(section) => counts.functions += u64::from(section.count()),
            Payload::GlobalSection(section) => counts.globals += u64::from(section.count()),
            Payload::ElementSection(section) => counts.segments += u64::from(section.count()),
            Payload::DataSection(section) => counts.segments += u64::from(section.count()),
            Payload::InstanceSection(section) => counts.links += u64::from(section.count()),
            Payload::ComponentInstanceSection(section) => counts.links += u64::from(section.count()),
            Payload::ComponentAliasSection(section) => counts.links += u64::from(section.count()),
            Payload::ComponentCanonicalSection(section) => counts.links += u64::from(section.count()),
            Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => {
                counts.parts += 1;
                depth += 1;
                within("modules and components in each other", depth, DEPTH_MAX)?;
            }
            Payload::End(_) => depth = depth.saturating_sub(1),
            Payload::CodeSectionEntry(body) => {
                let range = body.range();
                within("bytes of code in one function", range.end - range.start, FUNCTION_BYTES_MAX)?;
                let Ok(groups) = body.get_locals_reader() else { return Ok(()) };
                let mut locals = 0;
                for group in groups {
                    let Ok((count, _)) = group else { return Ok(()) };
                    locals += u64::from(count);
                    within("locals in one function", locals, LOCALS_MAX)?;
                }
            }
            _ => {}
        }
        for (what, count, most) in [
            ("functions", counts.functions, FUNCTIONS_MAX),
            ("types", counts.types, TYPES_MAX),
            ("imports and exports", counts.names, IMPORTS_AND_EXPORTS_MAX),
            ("segments of data and elements", counts.segments, SEGMENTS_MAX),
            ("globals", counts.globals, GLOBALS_MAX),
            ("modules and components", counts.parts, PARTS_MAX),
            ("instances, aliases and canonical functions", counts.links, LINKS_MAX),
        ] {
            within(what, count, most)?;
        }
    }
    Ok(())
}

fn within(what: &str, count: u64, most: u64) -> Result<(), PrepareError> {
    match count > most {
        true => Err(PrepareError::too_complex(format!(
            "the file has {count} {what}, at most {most} are possible; make it smaller or split it into several hooks"
        ))),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hooks::engines::engine::PrepareErrorKind;

    #[track_caller]
    fn refused(text: &str) -> String {
        let error = check(&wat::parse_str(text).unwrap()).unwrap_err();
        assert_eq!(error.kind, PrepareErrorKind::TooComplex);
        error.message
    }

    #[test]
    fn too_much_of_anything_is_refused_before_it_is_compiled() {
        let nested = |depth: usize| format!("(component {} {})", "(component ".repeat(depth), ")".repeat(depth));
        for (text, says) in [
            (format!("(module (func {}))", "(local i32)".repeat(20_001)), "locals in one function"),
            (format!("(module (func {}))", "nop ".repeat(1 << 20)), "bytes of code in one function"),
            (format!("(component (core module {}))", "(type (func)) ".repeat(50_001)), "types"),
            (format!("(module (func) {})", "(export \"\" (func 0))".repeat(0)), ""),
            (format!("(component {})", "(core module)".repeat(201)), "modules and components"),
            (nested(17), "in each other"),
            (format!("(module {})", "(global i32 (i32.const 0))".repeat(100_001)), "globals"),
        ] {
            if says.is_empty() {
                check(&wat::parse_str(&text).unwrap()).unwrap();
            } else {
                assert!(refused(&text).contains(says), "{says}");
            }
        }
        check(&wat::parse_str(nested(15)).unwrap()).unwrap();
    }
}
