//! TypeScript for the WIT's records, enums and functions, and for the context that a world's handlers receive.

use wit_parser::{Docs, EnumCase, Field, Function, Resolve, Type, TypeDefKind};

use super::WIT;
use super::contract::{self, Contract};
use super::spelled::{LEFT_OUT, MEMBERS, TYPES, WORDS};
use crate::shell::Result;

/// Worlds, and the contexts of their handlers.
const CONTEXTS: [(&str, &str); 2] = [("pre-hook", "PreContext"), ("post-hook", "PostContext")];

/// All generated parts, each after an empty line.
pub(super) fn all(resolve: &Resolve, contract: &mut Contract) -> Result<String> {
    let mut writer = TypeRenderer { resolve, contract };
    let mut parts = vec![writer.words("types", "phase")?];
    for name in ["model-ref", "event-ref", "instance"] {
        parts.push(writer.record("types", name, &[], "")?);
    }
    parts.push(writer.access_error()?);
    parts.push(writer.log()?);
    parts.push(writer.record("read", "page", &[], "")?);
    parts.push(writer.functions("read")?);
    parts.push(writer.functions("write")?);
    parts.push(writer.words("http", "redirect")?);
    // The members of a `Response` in browsers that are plain values.
    parts.push(writer.response_head()?);
    parts.push(writer.record("process", "output", &[], "")?);
    parts.push(writer.command()?);
    parts.extend(writer.contexts()?);
    parts.push(writer.handlers()?);
    Ok(parts.iter().map(|part| format!("\n{part}")).collect())
}

struct TypeRenderer<'a> {
    resolve: &'a Resolve,
    contract: &'a mut Contract,
}

/// The direction of a value: types of values that a hook receives are narrow, types of those it passes may be wide.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    In,
    Out,
}

impl TypeRenderer<'_> {
    fn definition(&mut self, interface: &str, name: &str) -> Result<(&Docs, &TypeDefKind)> {
        let item = format!("{interface}.{name}");
        let types = &contract::interface(self.resolve, interface)?.types;
        let id = *types.get(name).ok_or_else(|| format!("{WIT} has no `{item}`"))?;
        self.contract.take(&item)?;
        Ok((&self.resolve.types[id].docs, &self.resolve.types[id].kind))
    }

    /// The documentation and the fields of a record.
    fn fields(&mut self, interface: &str, name: &str) -> Result<(String, Vec<Field>)> {
        match self.definition(interface, name)? {
            (docs, TypeDefKind::Record(record)) => {
                Ok((words(&format!("{interface}.{name}"), docs, ""), record.fields.clone()))
            }
            _ => Err(format!("`{interface}.{name}` of {WIT} is no longer a record")),
        }
    }

    /// The documentation and the cases of an enum.
    fn cases(&mut self, interface: &str, name: &str) -> Result<(String, Vec<EnumCase>)> {
        let (head, cases) = match self.definition(interface, name)? {
            (docs, TypeDefKind::Enum(cases)) => (doc(docs, ""), cases.cases.clone()),
            _ => return Err(format!("`{interface}.{name}` of {WIT} is no longer an enum")),
        };
        cases.iter().try_for_each(|case| self.contract.take(&format!("{interface}.{name}.{}", case.name)))?;
        Ok((head, cases))
    }

    /// An enum as a union of string literals.
    fn words(&mut self, interface: &str, name: &str) -> Result<String> {
        let (head, cases) = self.cases(interface, name)?;
        let words: Vec<String> = cases.iter().map(|case| format!("\"{}\"", camel(&case.name))).collect();
        Ok(format!("{head}export type {} = {};\n", pascal(name), words.join(" | ")))
    }

    /// A record as an interface. `others` are members that are defined elsewhere; `modifier` precedes each member.
    fn record(&mut self, interface: &str, name: &str, others: &[&str], modifier: &str) -> Result<String> {
        let (head, fields) = self.fields(interface, name)?;
        let members = self.members(&format!("{interface}.{name}"), &fields, others, modifier)?;
        Ok(format!("{head}export interface {}{} {{\n{members}}}\n", pascal(name), generic(&members)))
    }

    fn members(&mut self, owner: &str, fields: &[Field], others: &[&str], modifier: &str) -> Result<String> {
        let mut out = String::new();
        for field in fields.iter().filter(|field| !others.contains(&field.name.as_str())) {
            let item = format!("{owner}.{}", field.name);
            self.contract.take(&item)?;
            let spelled = spelled(&item);
            if spelled.is_none() {
                out.push_str(&doc(&field.docs, "  "));
            }
            let text = spelled.map_or_else(|| self.text(&field.ty, Way::In), |text| Ok(text.to_owned()))?;
            // Names are the same as in the REST API.
            out.push_str(&format!("  {modifier}{}: {text};\n", field.name.replace('-', "_")));
        }
        Ok(out)
    }

    /// The error type. JavaScript errors already have a message.
    fn access_error(&mut self) -> Result<String> {
        let (head, fields) = self.fields("types", "access-error")?;
        self.contract.take("types.access-error.code")?;
        let code = fields.iter().find(|field| field.name == "code").ok_or("an error without a code")?;
        let docs = code.docs.contents.clone().unwrap_or_default();
        let words: Vec<String> = docs.split('`').skip(1).step_by(2).map(|word| format!("\"{word}\"")).collect();
        Ok(format!(
            "/** The `code` of the errors that capabilities throw; more may come. */\nexport type ErrorCode = {} | (string & {{}});\n\n\
             {head}export interface AccessError extends Error {{\n  code: ErrorCode;\n}}\n",
            words.join(" | ")
        ))
    }

    /// A function for each level instead of one with the level as a parameter.
    fn log(&mut self) -> Result<String> {
        let head = doc(&contract::interface(self.resolve, "log")?.docs, "");
        let (_, levels) = self.cases("log", "level")?;
        ["log.write", "log.write.level", "log.write.message"].iter().try_for_each(|item| self.contract.take(item))?;
        let lines: String =
            levels.iter().map(|level| format!("  {}(...values: unknown[]): void;\n", camel(&level.name))).collect();
        let head = head.replace(" */", " Values are formatted as by `console.log`. */");
        Ok(format!("{head}export interface Log {{\n{lines}}}\n"))
    }

    /// An interface whose functions have the same form in JavaScript.
    fn functions(&mut self, interface: &str) -> Result<String> {
        let found = contract::interface(self.resolve, interface)?;
        let mut out = format!("{}export interface {} {{\n", words(interface, &found.docs, ""), pascal(interface));
        for function in found.functions.values() {
            let signature = self.signature(interface, function)?;
            let words = words(&format!("{interface}.{}", function.name), &function.docs, "  ");
            out.push_str(&format!("{words}  {}{signature};\n", camel(&function.name)));
        }
        Ok(out + "}\n")
    }

    /// `<Data = Json>(a: string, options?: { b?: number }): Answer`
    fn signature(&mut self, interface: &str, function: &Function) -> Result<String> {
        let owner = format!("{interface}.{}", function.name);
        self.contract.take(&owner)?;
        let (mut params, mut options) = (Vec::new(), Vec::new());
        for param in &function.params {
            let item = format!("{owner}.{}", param.name);
            // Its entry in `LEFT_OUT` marks it as done.
            if LEFT_OUT.iter().any(|(left_out, _)| *left_out == item) {
                continue;
            }
            self.contract.take(&item)?;
            let name = camel(&param.name);
            match (spelled(&item), self.optional(&param.ty)) {
                (Some(text), _) => params.push(match text.strip_prefix('?') {
                    Some(text) => format!("{name}?: {text}"),
                    None => format!("{name}: {text}"),
                }),
                (None, Some(some)) => options.push(format!("{name}?: {}", self.text(&some, Way::Out)?)),
                (None, None) => params.push(format!("{name}: {}", self.text(&param.ty, Way::Out)?)),
            }
        }
        if !options.is_empty() {
            params.push(format!("options?: {{ {} }}", options.join("; ")));
        }
        let answer = match spelled(&format!("{owner}()")) {
            Some(text) => text.to_owned(),
            None => self.answer(&owner, function)?,
        };
        let (params, answer) = (params.join(", "), answer);
        Ok(format!("{}({params}): {answer}", generic(&format!("{params} {answer}"))))
    }

    /// The result of a function; its error is thrown.
    fn answer(&self, owner: &str, function: &Function) -> Result<String> {
        let Some(Type::Id(id)) = &function.result else {
            return Err(format!("`{owner}` of {WIT} cannot fail, which has no TypeScript mapping yet"));
        };
        match &self.resolve.types[*id].kind {
            TypeDefKind::Result(result) => {
                let error = result.err.as_ref().map(|error| self.text(error, Way::In)).transpose()?;
                match (error.as_deref(), &result.ok) {
                    (Some("AccessError"), Some(ok)) => self.text(ok, Way::In),
                    (Some("AccessError"), None) => Ok("void".to_owned()),
                    _ => Err(format!("`{owner}` of {WIT} fails with {error:?}, expected `access-error`")),
                }
            }
            _ => Err(format!("`{owner}` of {WIT} cannot fail, which has no TypeScript mapping yet")),
        }
    }

    fn response_head(&mut self) -> Result<String> {
        let response = contract::interface(self.resolve, "http")?.types.get("response");
        let response = *response.ok_or_else(|| format!("{WIT} has no `http.response`"))?;
        let TypeDefKind::Record(record) = &self.resolve.types[response].kind else {
            return Err(format!("`http.response` of {WIT} is no longer a record"));
        };
        let members = self.members("http.response", &record.fields, &["headers", "body"], "readonly ")?;
        Ok(format!(
            "/** The members of a response except its headers and body. */\nexport interface ResponseHead {{\n{members}}}\n"
        ))
    }

    /// `process.run` takes one record: its required fields become parameters, the others options.
    fn command(&mut self) -> Result<String> {
        let head = doc(&contract::interface(self.resolve, "process")?.docs, "");
        let (_, fields) = self.fields("process", "command")?;
        let (mut params, mut options) = (Vec::new(), String::new());
        for field in &fields {
            let item = format!("process.command.{}", field.name);
            self.contract.take(&item)?;
            if let Some(text) = spelled(&item) {
                let (mark, text) = text.strip_prefix('?').map_or(("", text), |text| ("?", text));
                params.push(format!("{}{mark}: {text}", camel(&field.name)));
                continue;
            }
            let of = self.optional(&field.ty).unwrap_or(field.ty);
            options.push_str(&doc(&field.docs, "  "));
            let name = match field.name.strip_suffix("-ms") {
                Some(name) => {
                    options.push_str("  /** In milliseconds. */\n");
                    name
                }
                None => &field.name,
            };
            options.push_str(&format!("  {}?: {};\n", camel(name), self.text(&of, Way::Out)?));
        }
        ["process.run", "process.run.command"].iter().try_for_each(|item| self.contract.take(item))?;
        let run = contract::interface(self.resolve, "process")?.functions.get("run").ok_or("no `process.run`")?;
        let answer = self.answer("process.run", run)?;
        Ok(format!(
            "export interface RunOptions {{\n{options}}}\n\n\
             {head}export type Run = ({}, options?: RunOptions) => {answer};\n",
            params.join(", ")
        ))
    }

    /// The contexts of handlers: the record of the WIT, and the imports of their world.
    fn contexts(&mut self) -> Result<Vec<String>> {
        let (head, fields) = self.fields("types", "context")?;
        let mut out = format!("{head}export interface Context {{\n");
        // `surface.d.ts` adds the data `before` and `after`; the type of `event` depends on the world.
        for field in fields.iter().filter(|field| !matches!(field.name.as_str(), "before" | "after")) {
            let item = format!("types.context.{}", field.name);
            self.contract.take(&item)?;
            if field.name != "event" {
                let text = spelled(&item).map_or_else(|| self.text(&field.ty, Way::In), |text| Ok(text.to_owned()))?;
                out.push_str(&format!("{}  {}: {text};\n", doc(&field.docs, "  "), camel(&field.name)));
            }
        }
        let mut worlds = Vec::new();
        for (name, context) in CONTEXTS {
            let world = contract::world(self.resolve, name)?;
            worlds.push((context, doc(&world.docs, ""), contract::imports(self.resolve, world)));
            let imports = &worlds[worlds.len() - 1].2;
            imports.iter().try_for_each(|import| self.contract.take(&format!("{name}.{import}")))?;
        }
        let everywhere = |import: &String| worlds.iter().all(|(_, _, imports)| imports.contains(import));
        let data = |import: &&String| import.as_str() != "types";
        let mut parts = Vec::new();
        for import in worlds[0].2.iter().filter(|import| everywhere(import)).filter(data) {
            out.push_str(&self.capability(import)?);
        }
        parts.push(out + "}\n");
        for (context, head, imports) in &worlds {
            let event = if *context == "PreContext" { "null" } else { "EventRef" };
            let mut out = format!("{head}export interface {context} extends Context {{\n  event: {event};\n");
            for import in imports.iter().filter(|import| !everywhere(import)).filter(data) {
                out.push_str(&self.capability(import)?);
            }
            parts.push(out + "}\n");
        }
        self.contract.take("secret.get")?;
        self.contract.take("secret.get.name")?;
        Ok(parts)
    }

    /// The member of a context for an interface.
    fn capability(&self, interface: &str) -> Result<String> {
        let found = contract::interface(self.resolve, interface)?;
        let Some((_, member)) = MEMBERS.iter().find(|(name, _)| *name == interface) else {
            return Ok(format!("  {interface}: {};\n", pascal(interface)));
        };
        match found.functions.len() {
            1 => Ok(format!("{}  {member};\n", doc(&found.docs, "  "))),
            count => Err(format!("`{interface}` of {WIT} has {count} functions, but is one in JavaScript: `{member}`")),
        }
    }

    /// A type for the handler of each phase, named after the phase.
    fn handlers(&self) -> Result<String> {
        let phase = contract::interface(self.resolve, "types")?.types.get("phase").ok_or("no phases")?;
        let TypeDefKind::Enum(phases) = &self.resolve.types[*phase].kind else { return Err("no phases".into()) };
        let mut out = String::new();
        for case in &phases.cases {
            let (when, what) = case.name.split_once('-').unwrap_or((&case.name, ""));
            let data = match what {
                "create" => "After<Data> & NoBefore",
                "delete" => "Before<Data> & NoAfter",
                _ => "Before<Data> & After<Data>",
            };
            // A deletion has no data to return.
            let (context, answer) = match (when, what) {
                ("pre", "delete") => ("PreContext", "Awaitable<void>"),
                ("pre", _) => ("PreContext", "Decision<Data>"),
                _ => ("PostContext", "Awaitable<void>"),
            };
            let name = pascal(&case.name);
            out.push_str(&format!("export type {name}<Data = Json> = (context: {context} & {data}) => {answer};\n"));
        }
        Ok(out)
    }

    /// The type inside an option.
    fn optional(&self, of: &Type) -> Option<Type> {
        let Type::Id(id) = of else { return None };
        match &self.resolve.types[*id].kind {
            TypeDefKind::Option(some) => Some(*some),
            _ => None,
        }
    }

    fn text(&self, of: &Type, way: Way) -> Result<String> {
        Ok(match of {
            Type::String => "string".to_owned(),
            Type::Bool => "boolean".to_owned(),
            Type::U8 | Type::U16 | Type::U32 | Type::U64 | Type::S8 | Type::S16 | Type::S32 | Type::S64 => {
                "number".to_owned()
            }
            Type::Id(id) => match &self.resolve.types[*id].kind {
                // The output of programs is text; their input may be bytes.
                TypeDefKind::List(Type::U8) if way == Way::In => "string".to_owned(),
                TypeDefKind::List(Type::U8) => "string | Uint8Array".to_owned(),
                TypeDefKind::List(Type::Id(item))
                    if matches!(self.resolve.types[*item].kind, TypeDefKind::Tuple(_)) =>
                {
                    "Record<string, string>".to_owned()
                }
                TypeDefKind::List(item) => format!("{}[]", self.text(item, way)?),
                TypeDefKind::Option(some) => format!("{} | null", self.text(some, way)?),
                TypeDefKind::Type(same) => self.text(same, way)?,
                _ => {
                    let name = self.resolve.types[*id].name.as_deref().unwrap_or_default();
                    let data = if matches!(name, "instance" | "page") { "<Data>" } else { "" };
                    format!("{}{data}", pascal(name))
                }
            },
            other => return Err(format!("{other:?} has no TypeScript mapping yet")),
        })
    }
}

fn spelled(item: &str) -> Option<&'static str> {
    TYPES.iter().find(|(known, _)| *known == item).map(|(_, text)| *text)
}

/// The type parameters of a definition that contains `Data`.
fn generic(text: &str) -> &'static str {
    let words = text.split(|char: char| !char.is_alphanumeric());
    if words.into_iter().any(|word| word == "Data") { "<Data = Json>" } else { "" }
}

/// The documentation of an item: that for JavaScript if there is one, otherwise that of the WIT.
fn words(item: &str, docs: &Docs, indent: &str) -> String {
    match WORDS.iter().find(|(known, _)| *known == item) {
        Some((_, words)) => format!("{indent}/** {words} */\n"),
        None => doc(docs, indent),
    }
}

fn doc(docs: &Docs, indent: &str) -> String {
    match &docs.contents {
        Some(text) => format!("{indent}/** {} */\n", text.split_whitespace().collect::<Vec<_>>().join(" ")),
        None => String::new(),
    }
}

fn pascal(name: &str) -> String {
    let word = |word: &str| word[..1].to_ascii_uppercase() + &word[1..];
    name.split('-').filter(|part| !part.is_empty()).map(word).collect()
}

fn camel(name: &str) -> String {
    let name = pascal(name);
    name[..1].to_ascii_lowercase() + &name[1..]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        assert_eq!((pascal("model-ref"), camel("pre-create")), ("ModelRef".to_owned(), "preCreate".to_owned()));
        assert_eq!((generic("a: Data[]"), generic("a: DataView")), ("<Data = Json>", ""));
    }
}
