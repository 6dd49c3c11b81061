//! `cargo xtask sdk`: the types of the JavaScript SDK, generated from the WIT text.
//!
//! What the WIT says once (names, members, words for what they mean) is taken from it. How JavaScript spells the
//! functions is written here, and each function of the WIT must be in it, so neither falls behind the other.

use std::path::Path;

use wit_parser::{Resolve, Type, TypeDefKind};

use crate::repository::root;
use crate::shell::Result;

/// What is generated, and what from.
pub(crate) const TYPES: &str = "sdk/js/index.d.ts";
pub(crate) const WIT: &str = "wit/since_v0_1_0/hook.wit";

/// The functions of the WIT and how JavaScript calls them.
const FUNCTIONS: [(&str, &str); 10] = [
    ("log.write", "info("),
    ("read.get", "get<"),
    ("read.query", "query<"),
    ("read.event", "event("),
    ("write.create", "create<"),
    ("write.update", "update<"),
    ("write.delete", "delete<"),
    ("http.send", "fetch: Fetch"),
    ("process.run", "run: Run"),
    ("secret.get", "secret(name: string)"),
];

/// Members that JavaScript has as data and WIT as JSON text, and what they are there.
const DATA: [(&str, &str); 1] = [("instance.data", "Data")];

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
    check_functions(&resolve)?;
    let mut out = format!(
        "// The contract of hooks in JavaScript and TypeScript. `cargo xtask sdk` writes this file, from {WIT}.\n"
    );
    for (interface, name) in [
        ("types", "phase"),
        ("types", "model-ref"),
        ("types", "event-ref"),
        ("types", "instance"),
        ("types", "access-error"),
        ("read", "page"),
        ("process", "output"),
    ] {
        out.push('\n');
        out.push_str(&definition(&resolve, interface, name)?);
    }
    out.push_str(SURFACE);
    Ok(out)
}

fn check_functions(resolve: &Resolve) -> Result {
    for (_, interface) in resolve.interfaces.iter() {
        let owner = interface.name.clone().unwrap_or_default();
        for name in interface.functions.keys() {
            let function = format!("{owner}.{name}");
            match FUNCTIONS.iter().find(|(known, _)| *known == function) {
                Some((_, call)) if SURFACE.contains(call) => {}
                _ => {
                    return Err(format!(
                        "{WIT} has the function `{function}`, which xtask/src/sdk.rs does not say in TypeScript"
                    ));
                }
            }
        }
    }
    Ok(())
}

fn definition(resolve: &Resolve, interface: &str, name: &str) -> Result<String> {
    let missing = || format!("{WIT} has no `{interface}.{name}`");
    let owner = resolve.interfaces.iter().map(|(_, interface)| interface);
    let owner = owner.into_iter().find(|owner| owner.name.as_deref() == Some(interface)).ok_or_else(missing)?;
    let definition = &resolve.types[*owner.types.get(name).ok_or_else(missing)?];
    let doc = |docs: &Option<String>, indent: &str| match docs {
        Some(text) => format!("{indent}/** {} */\n", text.split_whitespace().collect::<Vec<_>>().join(" ")),
        None => String::new(),
    };
    let head = doc(&definition.docs.contents, "");
    match &definition.kind {
        TypeDefKind::Enum(cases) => {
            let words: Vec<String> = cases.cases.iter().map(|case| format!("\"{}\"", camel(&case.name))).collect();
            Ok(format!("{head}export type {} = {};\n", pascal(name), words.join(" | ")))
        }
        // An error in JavaScript, which has the rest.
        TypeDefKind::Record(record) if name == "access-error" => {
            let code = record.fields.iter().find(|field| field.name == "code").ok_or_else(missing)?;
            let docs = code.docs.contents.clone().unwrap_or_default();
            let words: Vec<String> = docs.split('`').skip(1).step_by(2).map(|word| format!("\"{word}\"")).collect();
            Ok(format!(
                "/** The `code` of the errors that capabilities throw; more may come. */\nexport type ErrorCode = {} | (string & {{}});\n\n\
                 {head}export interface AccessError extends Error {{\n  code: ErrorCode;\n}}\n",
                words.join(" | ")
            ))
        }
        TypeDefKind::Record(record) => {
            let generic = matches!(name, "instance" | "page");
            let mut out =
                format!("{head}export interface {}{} {{\n", pascal(name), if generic { "<Data = Json>" } else { "" });
            for field in &record.fields {
                let key = format!("{name}.{}", field.name);
                let data = DATA.iter().find(|(known, _)| *known == key);
                let spelled = data.map_or_else(|| type_text(resolve, &field.ty), |(_, data)| Ok((*data).to_owned()))?;
                if data.is_none() {
                    out.push_str(&doc(&field.docs.contents, "  "));
                }
                out.push_str(&format!("  {}: {spelled};\n", field.name.replace('-', "_")));
            }
            Ok(out + "}\n")
        }
        other => Err(format!("`{interface}.{name}` is {}, which has no way into TypeScript yet", other.as_str())),
    }
}

fn type_text(resolve: &Resolve, of: &Type) -> Result<String> {
    Ok(match of {
        Type::String => "string".to_owned(),
        Type::Bool => "boolean".to_owned(),
        Type::U8 | Type::U16 | Type::U32 | Type::U64 | Type::S32 | Type::S64 => "number".to_owned(),
        Type::Id(id) => match &resolve.types[*id].kind {
            // What programs print is text.
            TypeDefKind::List(Type::U8) => "string".to_owned(),
            TypeDefKind::List(item) => format!("{}[]", type_text(resolve, item)?),
            TypeDefKind::Option(some) => format!("{} | null", type_text(resolve, some)?),
            TypeDefKind::Type(same) => type_text(resolve, same)?,
            _ => {
                let name = resolve.types[*id].name.as_deref().unwrap_or_default();
                format!("{}{}", pascal(name), if name == "instance" { "<Data>" } else { "" })
            }
        },
        other => return Err(format!("{other:?} has no way into TypeScript yet")),
    })
}

fn pascal(name: &str) -> String {
    let word = |word: &str| word[..1].to_ascii_uppercase() + &word[1..];
    name.split('-').filter(|part| !part.is_empty()).map(word).collect()
}

fn camel(name: &str) -> String {
    let name = pascal(name);
    name[..1].to_ascii_lowercase() + &name[1..]
}

/// How JavaScript spells it.
const SURFACE: &str = include_str!("sdk/surface.d.ts");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_function_that_is_not_spelled_is_found() {
        let wit = "package snaphook:hook@0.1.0; interface read { other: func(); }";
        assert!(types(wit).unwrap_err().contains("`read.other`"));
    }

    #[test]
    fn names() {
        assert_eq!((pascal("model-ref"), camel("pre-create")), ("ModelRef".to_owned(), "preCreate".to_owned()));
    }
}
