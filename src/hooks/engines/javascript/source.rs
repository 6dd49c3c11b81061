//! Prepares an author's source for the runner: strips TypeScript, rewrites exports, keeps positions.
//!
//! The runner evaluates a function body, so a module's `export`s become plain declarations and a `return` at the end.
//! In JavaScript the word `export` is overwritten with blanks, so every line and column stays the same; in TypeScript
//! the printer's source map gives the original position.

use std::fmt;
use std::path::Path;

use oxc_allocator::Allocator;
use oxc_ast::ast::{
    BindingIdentifier, Declaration, ExportDefaultDeclarationKind, ModuleExportName, Program, Statement,
};
use oxc_ast_visit::Visit;
use oxc_codegen::{Codegen, CodegenOptions};
use oxc_diagnostics::{OxcDiagnostic, Severity};
use oxc_parser::{ParseOptions, Parser};
use oxc_semantic::SemanticBuilder;
use oxc_span::{GetSpan, SourceType, Span};
use oxc_transformer::{TransformOptions, Transformer};

use serde::{Deserialize, Serialize};

use super::changes::changes_after;
use super::foreign::foreign_syntax;
use super::nesting::{BRACKETS_MAX, blown, too_deep};
use crate::catalog::SourceLanguage;
use crate::config::Phase;
use crate::hooks::engines::engine::PrepareError;
use crate::hooks::engines::subprocess::{self, Job};
use crate::hooks::source_map::{self, SourcePlaces};

/// Longest source.
const SOURCE_BYTES_MAX: usize = 1 << 20;

/// Stack of the parser's thread. The parser recurses without a limit, with about 1 KiB per byte in the worst case
/// (`!!!!…`). A source that needs more crashes the subprocess that parses it.
const STACK_BYTES: usize = 64 << 20;

/// The wrapper's text before the author's first line.
const HEAD: &str = "(function () { \"use strict\";\n";
const HEAD_LINES: u32 = 1;

/// A prepared source for the runner.
#[derive(Debug, Serialize, Deserialize)]
pub(in crate::hooks::engines) struct Source {
    /// An expression whose value is a function that returns the exports.
    pub(in crate::hooks::engines) text: String,
    /// For TypeScript, the source map of the printed code: `(line, column)` printed and authored, 0-based, sorted.
    map: Vec<[u32; 4]>,
    /// For a bundle, its original files.
    bundled: SourcePlaces,
    /// Whether it may change `after` in place.
    pub(in crate::hooks::engines) changes_after: bool,
}

/// A place in the bound source, 1-based.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::hooks::engines) struct Position {
    pub(in crate::hooks::engines) line: u32,
    pub(in crate::hooks::engines) column: u32,
}

impl Source {
    /// Checks the source for the phase and rewrites it, in a subprocess, because the parser's work on a hostile source
    /// is unbounded.
    pub(in crate::hooks::engines) async fn of(
        code: &[u8],
        phase: Phase,
        language: Option<SourceLanguage>,
    ) -> Result<Source, PrepareError> {
        check_size(code)?;
        let reply = subprocess::run(Job::Parse { phase, language }, code).await?;
        snaphook_driver::json::typed_bytes(&reply)
            .map_err(|error| plain(format!("the source was parsed, but the result cannot be read: {error}")))
    }

    /// The same in this process. Blocks for about a millisecond per 50 KB.
    pub(in crate::hooks::engines) fn compile(
        code: &[u8],
        phase: Phase,
        language: Option<SourceLanguage>,
    ) -> Result<Source, PrepareError> {
        compile(code, phase, language)
    }

    /// The author's position for one that QuickJS reports in the evaluated text; `None` if it is in the wrapper.
    pub(in crate::hooks::engines) fn position(&self, line: u32, column: u32) -> Option<Position> {
        let line = line.checked_sub(HEAD_LINES).filter(|line| *line > 0)?;
        let column = column.max(1);
        if self.map.is_empty() {
            return Some(Position { line, column });
        }
        let wanted = [line - 1, column - 1];
        let index = self.map.partition_point(|row| [row[0], row[1]] <= wanted).checked_sub(1)?;
        let row = self.map[index];
        (row[0] == wanted[0]).then(|| Position { line: row[2] + 1, column: row[3] + 1 })
    }
}

impl Source {
    /// The author's position for a place that the engine reports, as text: `line 3, column 9`, after the file's name in
    /// a bundle. `None` if it is not in the author's code.
    pub(in crate::hooks::engines) fn place(&self, line: u32, column: u32) -> Option<String> {
        let position = self.position(line, column)?;
        if self.bundled.is_empty() {
            return Some(position.to_string());
        }
        let place = self.bundled.find(position.line, position.column)?;
        let position = Position { line: place.line, column: place.column };
        Some(format!("{}, {position}", place.file))
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, column {}", self.line, self.column)
    }
}

fn compile(code: &[u8], phase: Phase, language: Option<SourceLanguage>) -> Result<Source, PrepareError> {
    let text = std::str::from_utf8(code).map_err(|error| {
        let line = 1 + code[..error.valid_up_to()].iter().filter(|byte| **byte == b'\n').count();
        at("the source is not valid UTF-8".into(), Some(Position { line: line as u32, column: 1 }))
    })?;
    check_size(code)?;
    check_brackets(text, blown(text))?;
    std::thread::scope(|scope| {
        let parser = std::thread::Builder::new().name("hook-source".into()).stack_size(STACK_BYTES);
        let parser = parser.spawn_scoped(scope, || compile_text(text, phase, language));
        let parser = parser.map_err(|error| plain(format!("cannot start a thread to parse the source: {error}")))?;
        parser.join().unwrap_or_else(|_| Err(plain("the source could not be parsed: the parser failed".into())))
    })
}

fn check_size(code: &[u8]) -> Result<(), PrepareError> {
    if code.len() > SOURCE_BYTES_MAX {
        return Err(plain(format!(
            "the source has {} bytes, at most {SOURCE_BYTES_MAX} are possible; import less: `snaphook hook build` names the \
             largest parts of a bundle",
            code.len()
        )));
    }
    Ok(())
}

fn compile_text(text: &str, phase: Phase, language: Option<SourceLanguage>) -> Result<Source, PrepareError> {
    let (text, bundled) = source_map::split(text);
    let source = understood(text, phase, language)?;
    Ok(Source { bundled, ..source })
}

fn understood(text: &str, phase: Phase, language: Option<SourceLanguage>) -> Result<Source, PrepareError> {
    let refused = |refusal| match refusal {
        Refusal::Content(error) | Refusal::Syntax(error) => error,
    };
    match language {
        Some(SourceLanguage::JavaScript) => javascript(text, phase).map_err(|refusal| match refusal {
            Refusal::Syntax(error) if typescript(text, phase).is_ok() => {
                let hint = "it is TypeScript, but was declared as JavaScript: name the file `.ts`, or send it as \
                            `application/typescript`";
                PrepareError { message: format!("{}; {hint}", error.message), ..error }
            }
            refusal => refused(refusal),
        }),
        Some(SourceLanguage::TypeScript) => typescript(text, phase).map_err(refused),
        // Nearly every JavaScript source is also valid TypeScript, but may have another meaning, so JavaScript comes
        // first.
        None => match javascript(text, phase) {
            Ok(source) => Ok(source),
            Err(Refusal::Content(error)) => Err(error),
            Err(Refusal::Syntax(first)) => match typescript(text, phase) {
                Ok(source) => Ok(source),
                Err(Refusal::Content(error)) => Err(error),
                // The parser that got further is the right one.
                Err(Refusal::Syntax(second)) => Err(further(first, second)),
            },
        },
    }
}

fn javascript(text: &str, phase: Phase) -> Result<Source, Refusal> {
    let Rewritten { text, changes_after } = rewrite(text, phase)?;
    Ok(Source { text, map: Vec::new(), bundled: SourcePlaces::default(), changes_after })
}

fn typescript(text: &str, phase: Phase) -> Result<Source, Refusal> {
    let (printed, map) = strip_types(text).map_err(|refusal| match refusal {
        Refusal::Syntax(error) => {
            let message = format!("its TypeScript cannot be stripped: {}", error.message);
            Refusal::Syntax(PrepareError { message, ..error })
        }
        content @ Refusal::Content(_) => content,
    })?;
    let source = Source { text: String::new(), map, bundled: SourcePlaces::default(), changes_after: false };
    match rewrite(&printed, phase) {
        Ok(Rewritten { text, changes_after }) => Ok(Source { text, changes_after, ..source }),
        Err(Refusal::Content(error) | Refusal::Syntax(error)) => Err(Refusal::Content(source.translate(error))),
    }
}

impl Source {
    /// Converts a position in the printed code, without the wrapper, to the author's.
    fn translate(&self, error: PrepareError) -> PrepareError {
        let position = match (error.line, error.column) {
            (Some(line), Some(column)) => self.position(line + HEAD_LINES, column),
            _ => None,
        };
        at(error.message, position)
    }
}

fn further(a: PrepareError, b: PrepareError) -> PrepareError {
    if (b.line, b.column) > (a.line, a.column) { b } else { a }
}

/// Why a source is rejected.
enum Refusal {
    /// It is not valid in this language.
    Syntax(PrepareError),
    /// It is valid, but uses features that hooks do not have.
    Content(PrepareError),
}

/// The text for the runner, and whether it may change `after` in place.
struct Rewritten {
    text: String,
    changes_after: bool,
}

fn rewrite(text: &str, phase: Phase) -> Result<Rewritten, Refusal> {
    let allocator = Allocator::default();
    let parsed = Parser::new(&allocator, text, SourceType::mjs()).with_options(options()).parse();
    if let Some(error) = parsed.diagnostics.iter().find(|error| error.severity == Severity::Error) {
        return Err(Refusal::Syntax(syntax_error(text, error)));
    }
    check_brackets(text, too_deep(text, &parsed.program)).map_err(Refusal::Content)?;
    if let Some((span, message)) = foreign_syntax(&parsed.program) {
        return Err(Refusal::Content(at(message, Some(position_at(text, span.start)))));
    }
    let mut body = Rewriter::new(text);
    body.program(&parsed.program);
    let Rewriter { text: body, exports, .. } = body;
    check_exports(&exports, phase).map_err(Refusal::Content)?;

    let mut out = String::with_capacity(HEAD.len() + body.len() + 64);
    out.push_str(HEAD);
    out.push_str(&body);
    // On its own line, since the source may end in a comment.
    out.push_str("\n;return { __proto__: null");
    for (name, local) in &exports {
        out.push_str(&format!(", [{}]: {local}", serde_json::Value::from(name.as_str())));
    }
    out.push_str(" };\n})");
    Ok(Rewritten { text: out, changes_after: changes_after(&parsed.program) })
}

fn check_exports(exports: &[(String, String)], phase: Phase) -> Result<(), PrepareError> {
    if exports.iter().any(|(name, _)| name == phase.as_str() || name == "default") {
        return Ok(());
    }
    let names: Vec<_> = exports.iter().map(|(name, _)| format!("`{name}`")).collect();
    let found = if names.is_empty() { "nothing".into() } else { names.join(", ") };
    Err(plain(format!(
        "the source exports no handler for `{phase}`: it exports {found}, expected \
         `export function {phase}({{ after }}) {{ … }}` or `export default`"
    )))
}

/// Overwrites `export` keywords and collects the exports.
struct Rewriter<'s> {
    source: &'s str,
    text: String,
    /// Exported name, local name.
    exports: Vec<(String, String)>,
    default_name: String,
}

impl<'s> Rewriter<'s> {
    fn new(source: &'s str) -> Self {
        // Padded so that `export default` and `var $default =` have the same length.
        let mut default_name = "$default".to_owned();
        for number in 0.. {
            if !source.contains(&default_name) {
                break;
            }
            default_name = format!("$def{number:04}");
        }
        Rewriter { source, text: source.to_owned(), exports: Vec::new(), default_name }
    }

    fn program(&mut self, program: &Program<'_>) {
        // From the end, so that a change of length does not move the remaining statements.
        for statement in program.body.iter().rev() {
            match statement {
                Statement::ExportDeclaration(export) => {
                    self.blank(Span::new(export.span.start, export.declaration.span().start));
                    self.declaration(&export.declaration);
                }
                Statement::ExportNamedDeclaration(export) => {
                    for specifier in &export.specifiers {
                        if let ModuleExportName::IdentifierReference(local) = &specifier.local {
                            self.exports.push((specifier.exported.name().to_string(), local.name.to_string()));
                        }
                    }
                    self.blank(export.span);
                }
                Statement::ExportDefaultDeclaration(export) => {
                    self.default_export(export.span, &export.declaration);
                }
                _ => {}
            }
        }
        if let Some(hashbang) = &program.hashbang {
            self.blank(hashbang.span);
        }
    }

    fn declaration(&mut self, declaration: &Declaration<'_>) {
        let mut names = Names::default();
        match declaration {
            Declaration::FunctionDeclaration(function) => {
                names.0.extend(function.id.iter().map(|id| id.name.to_string()))
            }
            Declaration::ClassDeclaration(class) => names.0.extend(class.id.iter().map(|id| id.name.to_string())),
            Declaration::VariableDeclaration(variables) => {
                for variable in &variables.declarations {
                    names.visit_binding_pattern(&variable.id);
                }
            }
            // Types, which were already stripped.
            _ => {}
        }
        self.exports.extend(names.0.into_iter().map(|name| (name.clone(), name)));
    }

    fn default_export(&mut self, span: Span, declaration: &ExportDefaultDeclarationKind<'_>) {
        let name = match declaration {
            ExportDefaultDeclarationKind::FunctionDeclaration(function) => function.id.as_ref(),
            ExportDefaultDeclarationKind::ClassDeclaration(class) => class.id.as_ref(),
            _ => None,
        };
        let head = Span::new(span.start, declaration.span().start);
        if let Some(name) = name {
            self.exports.push(("default".into(), name.name.to_string()));
            self.blank(head);
            return;
        }
        self.exports.push(("default".into(), self.default_name.clone()));
        // A declaration needs no semicolon, but the expression that replaces it does.
        let end = span.end as usize;
        if !self.source[..end].ends_with(';') {
            self.text.insert(end, ';');
        }
        let start = span.start as usize;
        let keywords = format!("var {} =", self.default_name);
        let head = &self.source[start..head.end as usize];
        let rest = blanks(head.get(keywords.len()..).unwrap_or_default());
        self.text.replace_range(start..start + head.len(), &format!("{keywords}{rest}"));
    }

    fn blank(&mut self, span: Span) {
        let range = span.start as usize..span.end as usize;
        let blanks = blanks(&self.source[range.clone()]);
        self.text.replace_range(range, &blanks);
    }
}

/// Blanks with the same columns and lines.
fn blanks(text: &str) -> String {
    text.chars().map(|c| if matches!(c, '\n' | '\r' | '\u{2028}' | '\u{2029}') { c } else { ' ' }).collect()
}

/// The names bound by a pattern.
#[derive(Default)]
struct Names(Vec<String>);

impl<'a> Visit<'a> for Names {
    fn visit_binding_identifier(&mut self, identifier: &BindingIdentifier<'a>) {
        self.0.push(identifier.name.to_string());
    }
}

/// QuickJS reports an invalid regular expression without its place.
fn options() -> ParseOptions {
    ParseOptions { parse_regular_expression: true, ..ParseOptions::default() }
}

/// Converts TypeScript to JavaScript, with a source map. Types are stripped, not checked.
fn strip_types(text: &str) -> Result<(String, Vec<[u32; 4]>), Refusal> {
    let allocator = Allocator::default();
    let parsed = Parser::new(&allocator, text, SourceType::ts().with_module(true)).with_options(options()).parse();
    if let Some(error) = parsed.diagnostics.iter().find(|error| error.severity == Severity::Error) {
        return Err(Refusal::Syntax(syntax_error(text, error)));
    }
    check_brackets(text, too_deep(text, &parsed.program)).map_err(Refusal::Content)?;
    let mut program = parsed.program;
    let semantic = SemanticBuilder::new().with_excess_capacity(2.0).with_enum_eval(true).build(&program);
    let options = TransformOptions::default();
    let transformer = Transformer::new(&allocator, Path::new("hook.ts"), &options);
    let transformed = transformer.build_with_scoping(semantic.semantic.into_scoping(), &mut program);
    if let Some(error) = transformed.diagnostics.iter().find(|error| error.severity == Severity::Error) {
        return Err(Refusal::Content(syntax_error(text, error)));
    }
    let options = CodegenOptions { source_map_path: Some("hook.ts".into()), ..CodegenOptions::default() };
    let printed = Codegen::new().with_options(options).with_source_text(text).build(&program);
    let rows = printed
        .map
        .iter()
        .flat_map(|map| map.get_tokens())
        .map(|token| [token.get_dst_line(), token.get_dst_col(), token.get_src_line(), token.get_src_col()]);
    let mut map: Vec<_> = rows.collect();
    map.sort_unstable();
    Ok((printed.code, map))
}

fn check_brackets(text: &str, place: Option<usize>) -> Result<(), PrepareError> {
    let Some(index) = place else { return Ok(()) };
    let message = format!("more than {BRACKETS_MAX} brackets are open at once");
    Err(at(message, Some(position_at(text, index as u32))))
}

fn syntax_error(text: &str, error: &OxcDiagnostic) -> PrepareError {
    let position = error.labels.first().map(|label| position_at(text, label.offset()));
    let help = error.help.as_deref().map(|help| format!(" ({help})")).unwrap_or_default();
    at(format!("{}{help}", error.message), position)
}

/// Columns count UTF-16 units, as editors and JavaScript do.
fn position_at(text: &str, offset: u32) -> Position {
    let before = text.get(..offset as usize).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |index| index + 1);
    Position {
        line: 1 + before.bytes().filter(|byte| *byte == b'\n').count() as u32,
        column: 1 + before[line_start..].encode_utf16().count() as u32,
    }
}

fn plain(message: String) -> PrepareError {
    at(message, None)
}

fn at(message: String, position: Option<Position>) -> PrepareError {
    PrepareError {
        line: position.map(|position| position.line),
        column: position.map(|position| position.column),
        ..PrepareError::plain(message)
    }
}

#[cfg(test)]
#[path = "source_tests.rs"]
mod tests;
