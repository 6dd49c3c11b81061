//! Files do not import each other in a cycle, so each can be read after those that it uses.
//!
//! A path in the code (`crate::a::B`, `super::B`, `child::B`) refers to the file of the longest module in it. A name
//! that the root of a crate imports refers to the module that it is imported from. The root itself is ignored, because
//! it is a table of contents of all files. So is code that only tests use.

use std::collections::{BTreeMap, BTreeSet};

use super::code::blank_comments_and_strings;
use super::{File, Finding};

const FOLDERS: [&str; 6] = ["src/", "sdk/", "plugins/", "identity/", "schema/", "modules/"];

/// The folder of a crate, such as `plugins/file/src/`, and the path of a module in it.
type Module = (String, Vec<String>);

/// Reports each cycle once.
pub(crate) fn check(files: &[File]) -> Vec<Finding> {
    let modules: BTreeMap<Module, &str> = files
        .iter()
        .filter(|file| FOLDERS.iter().any(|folder| file.path.starts_with(folder)) && !is_test(&file.path))
        .filter_map(|file| Some((module_of(&file.path)?, file.path.as_str())))
        .collect();
    let codes: BTreeMap<&str, String> = files
        .iter()
        .filter(|file| modules.values().any(|path| *path == file.path))
        .map(|file| (file.path.as_str(), blank_comments_and_strings(&file.text)))
        .collect();
    let tests: BTreeSet<Module> =
        modules.iter().flat_map(|(module, path)| test_modules(&codes[path]).map(|name| child(module, name))).collect();
    let is_of_tests = |module: &Module| {
        (0..=module.1.len()).any(|length| tests.contains(&(module.0.clone(), module.1[..length].to_vec())))
    };
    let roots = roots(&modules, &codes);
    let uses: BTreeMap<&str, BTreeSet<&str>> = modules
        .iter()
        // A root imports names for other files; the files that use these names are checked instead.
        .filter(|(module, _)| !module.1.is_empty() && !is_of_tests(module))
        .map(|(module, path)| {
            let code = without_tests(&codes[path]);
            let paths = paths(&code);
            let used = paths.iter().flat_map(|names| targets(&modules, &roots, module, names));
            (*path, used.map(|used| modules[&used]).filter(|used| used != path).collect())
        })
        .collect();
    let mut search = Search { uses: &uses, way: Vec::new(), done: BTreeSet::new(), findings: Vec::new() };
    uses.keys().for_each(|path| search.visit(path));
    search.findings
}

/// A depth-first search for cycles.
struct Search<'a> {
    uses: &'a BTreeMap<&'a str, BTreeSet<&'a str>>,
    way: Vec<&'a str>,
    done: BTreeSet<&'a str>,
    findings: Vec<Finding>,
}

impl<'a> Search<'a> {
    fn visit(&mut self, path: &'a str) {
        if let Some(start) = self.way.iter().position(|before| *before == path) {
            let circle = [&self.way[start..], &[path]].concat().join(" > ");
            self.findings.push(Finding::new(path, 0, format!("files import each other in a circle: {circle}")));
            return;
        }
        if !self.done.insert(path) {
            return;
        }
        self.way.push(path);
        for used in self.uses.get(path).into_iter().flatten() {
            self.visit(used);
        }
        self.way.pop();
    }
}

/// The module of a file. `None`: the file is not in a crate's `src`.
fn module_of(path: &str) -> Option<Module> {
    let names = path.strip_suffix(".rs")?;
    let start = if names.starts_with("src/") && !names.contains("/src/") { 4 } else { names.rfind("/src/")? + 5 };
    let mut names: Vec<String> = names[start..].split('/').map(str::to_owned).collect();
    names.pop_if(|last| ["mod", "lib", "main"].contains(&last.as_str()));
    Some((path[..start].to_owned(), names))
}

fn is_test(path: &str) -> bool {
    path.ends_with("tests.rs") || path.contains("/tests/")
}

fn child((root, names): &Module, name: &str) -> Module {
    (root.clone(), names.iter().map(String::as_str).chain([name]).map(str::to_owned).collect())
}

/// The modules that the root of each crate imports names from, by the imported names.
type Roots<'a> = BTreeMap<&'a str, BTreeMap<String, Module>>;

fn roots<'a>(modules: &'a BTreeMap<Module, &str>, codes: &BTreeMap<&str, String>) -> Roots<'a> {
    let roots = modules.iter().filter(|(module, _)| module.1.is_empty());
    let imported = |(root, path): (&'a Module, &&str)| {
        let code = without_tests(&codes[path]);
        let imports = imports(&code);
        let imports = imports.into_iter().filter_map(|(name, path)| match place(modules, root, &path)? {
            Resolved::Module(module) => Some((name.to_owned(), module)),
            Resolved::Root(_) => None,
        });
        (root.0.as_str(), imports.collect())
    };
    roots.map(imported).collect()
}

/// What a path refers to.
enum Resolved<'a> {
    Module(Module),
    /// The root of the crate, and a name in it.
    Root(&'a str),
}

/// The modules that a path in another module refers to: several if the path imports everything from the root.
fn targets(modules: &BTreeMap<Module, &str>, roots: &Roots<'_>, from: &Module, names: &[&str]) -> Vec<Module> {
    match place(modules, from, names) {
        Some(Resolved::Module(module)) => vec![module],
        Some(Resolved::Root(name)) => {
            let root = roots.get(from.0.as_str());
            let imports = root.into_iter().flatten();
            imports.filter(|(known, _)| name == "*" || *known == name).map(|(_, module)| module.clone()).collect()
        }
        None => Vec::new(),
    }
}

fn place<'a>(modules: &BTreeMap<Module, &str>, from: &Module, names: &[&'a str]) -> Option<Resolved<'a>> {
    let (mut base, mut rest) = match names.split_first()? {
        (&"crate", rest) => ((from.0.clone(), Vec::new()), rest),
        (&("self" | "super"), _) => (from.clone(), names),
        (name, _) if modules.contains_key(&child(from, name)) => (from.clone(), names),
        _ => return None,
    };
    while let Some((name @ (&"self" | &"super"), after)) = rest.split_first() {
        if *name == "super" {
            base.1.pop()?;
        }
        rest = after;
    }
    for name in rest {
        let next = child(&base, name);
        if !modules.contains_key(&next) {
            break;
        }
        base = next;
    }
    match base.1.is_empty() {
        true => rest.first().map(|name| Resolved::Root(name)),
        // A folder may have no `mod.rs`.
        false => modules.contains_key(&base).then_some(Resolved::Module(base)),
    }
}

/// The code without the items that have `#[cfg(test)]`.
fn without_tests(code: &str) -> String {
    let mut kept = String::new();
    let mut rest = code;
    while let Some((before, after)) = rest.split_once("#[cfg(test)]") {
        kept.push_str(before);
        rest = &after[item_end(after)..];
    }
    kept + rest
}

/// The end of an item: after its `;`, its `,` or its last bracket.
fn item_end(code: &str) -> usize {
    let mut depth = 0_u32;
    for (at, c) in code.char_indices() {
        match c {
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' => {
                let Some(outer) = depth.checked_sub(1) else { return at };
                depth = outer;
                if depth == 0 && c == '}' {
                    return at + 1;
                }
            }
            ';' | ',' if depth == 0 => return at + 1,
            _ => {}
        }
    }
    code.len()
}

/// Names of modules that exist only in tests.
fn test_modules(code: &str) -> impl Iterator<Item = &str> {
    code.split("#[cfg(test)]").skip(1).filter_map(|after| {
        let item = &after[..item_end(after)];
        item.rsplit_once("mod ").map(|(_, name)| name.trim_end_matches(';').trim())
    })
}

/// All paths in the code with at least two names, and for a group one path for each entry. Paths in a module within the
/// file are converted to paths outside it.
fn paths(code: &str) -> Vec<Vec<&str>> {
    let tokens = tokens(code);
    let mut found = Vec::new();
    let (mut depth, mut modules) = (0_usize, Vec::new());
    let mut at = 0;
    while at < tokens.len() {
        match tokens[at] {
            "{" => depth += 1,
            "}" => {
                depth = depth.saturating_sub(1);
                modules.pop_if(|outer| *outer == depth);
            }
            "mod" if tokens.get(at + 2) == Some(&"{") => modules.push(depth),
            _ => {}
        }
        let follows_path = at > 0 && (tokens[at - 1] == "::" || tokens[at - 1] == ".");
        let is_visibility = at > 0 && tokens[at - 1] == "in";
        if is_name(tokens[at]) && tokens.get(at + 1) == Some(&"::") && !follows_path && !is_visibility {
            let before = found.len();
            at = tree(&tokens, at, &[], &mut found);
            let inside = found.split_off(before);
            found.extend(inside.into_iter().filter_map(|path| outside(path, modules.len())));
        } else {
            at += 1;
        }
    }
    found
}

/// Converts a path in a module at that depth within its file to a path outside it. `None` if the path does not leave
/// the module.
fn outside(path: Vec<&str>, depth: usize) -> Option<Vec<&str>> {
    let up = path.iter().take_while(|name| **name == "super").count();
    match (depth, up) {
        (0, _) => Some(path),
        (_, 0) => (path[0] != "self").then_some(path),
        (depth, up) if up < depth => None,
        (depth, _) => Some(["self"].into_iter().chain(path.into_iter().skip(depth)).collect()),
    }
}

/// The paths of all `use` items, each with the name that it imports.
fn imports(code: &str) -> Vec<(&str, Vec<&str>)> {
    let tokens = tokens(code);
    let starts = tokens.iter().enumerate().filter(|(_, token)| **token == "use").map(|(at, _)| at + 1);
    let mut found = Vec::new();
    starts.for_each(|start| {
        tree(&tokens, start, &[], &mut found);
    });
    let named = found.into_iter().filter_map(|path| match path.as_slice() {
        [.., name, "self"] => Some((*name, path)),
        [.., name] => Some((*name, path)),
        [] => None,
    });
    named.collect()
}

/// Reads one path with its groups; returns the index after it. A path with another name (`as`) counts as two paths, one
/// with its original name and one with the other name.
fn tree<'a>(tokens: &[&'a str], start: usize, before: &[&'a str], found: &mut Vec<Vec<&'a str>>) -> usize {
    let mut names = before.to_vec();
    let mut at = start;
    while let Some(name) = tokens.get(at).filter(|token| is_name(token)) {
        names.push(name);
        at += 1;
        match (tokens.get(at), tokens.get(at + 1)) {
            (Some(&"::"), Some(&"{")) => {
                at += 2;
                while tokens.get(at).is_some_and(|token| *token != "}") {
                    at = tree(tokens, at, &names, found).max(at + 1);
                }
                return at + 1;
            }
            (Some(&"::"), Some(&"*")) => {
                names.push("*");
                at += 2;
                break;
            }
            (Some(&"::"), _) => at += 1,
            (Some(&"as"), Some(name)) => {
                found.push([&names[..names.len() - 1], &[name]].concat());
                at += 2;
                break;
            }
            _ => break,
        }
    }
    if at > start && names.len() > 1 {
        found.push(names);
    }
    at
}

fn is_name(token: &str) -> bool {
    token.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

/// Splits code into names, `::`, and single other characters.
fn tokens(code: &str) -> Vec<&str> {
    let mut tokens = Vec::new();
    let mut rest = code.trim_start();
    while let Some(first) = rest.chars().next() {
        let is_part = |c: char| c.is_alphanumeric() || c == '_';
        let length = match first {
            c if is_part(c) => rest.find(|c| !is_part(c)).unwrap_or(rest.len()),
            ':' if rest.starts_with("::") => 2,
            c => c.len_utf8(),
        };
        let (token, after) = rest.split_at(length);
        tokens.push(token);
        rest = after.trim_start();
    }
    tokens
}

#[cfg(test)]
mod tests {
    use super::super::file;
    use super::*;

    #[track_caller]
    fn found(files: &[(&str, &str)]) -> Vec<String> {
        let files: Vec<File> = files.iter().map(|(path, text)| file(path, text)).collect();
        check(&files).into_iter().map(|finding| finding.to_string()).collect()
    }

    #[test]
    fn two_files_that_import_each_other() {
        let circles = found(&[
            ("src/lib.rs", "pub mod a; pub mod b;"),
            ("src/a.rs", "use crate::b::B;"),
            ("src/b.rs", "fn f() { super::a::g() }"),
        ]);
        assert_eq!(circles, ["src/a.rs: files import each other in a circle: src/a.rs > src/b.rs > src/a.rs"]);
    }

    #[test]
    fn a_parent_that_uses_a_child_which_uses_the_parent() {
        for used in ["use self::x::X;", "use x::X;", "fn f(x: x::X) {}"] {
            let circles = found(&[("src/a/mod.rs", used), ("src/a/x.rs", "use super::{Y, z::{self, Z}};")]);
            assert_eq!(circles.len(), 1, "{used}");
        }
        assert!(found(&[("src/a/mod.rs", "mod x;"), ("src/a/x.rs", "use super::Y;")]).is_empty());
        let siblings = "use crate::a::{y, z::Z};";
        assert!(
            found(&[("src/a/mod.rs", "use x::X;"), ("src/a/x.rs", siblings), ("src/a/y.rs", ""), ("src/a/z.rs", "")])
                .is_empty()
        );
    }

    #[test]
    fn longer_circles_and_groups() {
        let circles = found(&[
            ("plugins/p/src/a.rs", "use crate::{c, b::{self, B}};"),
            ("plugins/p/src/b/mod.rs", "pub(in crate::a) struct B;"),
            ("plugins/p/src/c.rs", "use super::b::d::D;"),
            ("plugins/p/src/b/d.rs", "use super::super::a::A;"),
            ("src/a.rs", "use crate::b::B;"),
        ]);
        let way = ["a.rs", "c.rs", "b/d.rs", "a.rs"].map(|name| format!("plugins/p/src/{name}")).join(" > ");
        assert_eq!(circles, [format!("plugins/p/src/a.rs: files import each other in a circle: {way}")]);
    }

    #[test]
    fn tests_and_roots_are_left_out() {
        let circles = found(&[
            ("src/lib.rs", "pub use a::A;"),
            ("src/a.rs", "use crate::b::B; #[cfg(test)] mod tests { use crate::c::C; } #[cfg(test)] mod bench;"),
            ("src/b.rs", "use crate::B; // crate::a::A\n #[cfg(test)] use super::a; fn f() {}"),
            ("src/b_tests.rs", "use super::a;"),
            ("src/c.rs", "use crate::a::A;"),
            ("src/a/bench.rs", "use super::Y; use crate::c::C;"),
        ]);
        assert!(circles.is_empty(), "{circles:?}");
    }

    #[test]
    fn what_a_root_imports_is_followed() {
        for (root, used, is_circle) in [
            ("pub use a::A;", "use crate::A;", true),
            ("pub use a::{A, C};", "fn f(c: crate::C) {}", true),
            ("use self::a::A as B;", "use super::B;", true),
            ("pub use a::x::X;", "use crate::X;", true),
            ("pub use a::A;", "use crate::*;", true),
            ("pub use a::A;", "use super::*;", true),
            ("pub use a::A;", "use crate::B;", false),
            ("pub use b::A;", "use crate::A;", false),
            ("pub use other::A; fn f() { a::A }", "use crate::A;", false),
        ] {
            let circles = found(&[
                ("src/lib.rs", root),
                ("src/a.rs", "use crate::b::B; use x::X;"),
                ("src/a/x.rs", "use crate::b::B;"),
                ("src/b.rs", used),
            ]);
            assert_eq!(!circles.is_empty(), is_circle, "{root} {used}: {circles:?}");
        }
    }

    /// Paths in a module within a file are relative to that module.
    #[test]
    fn modules_within_a_file() {
        for (used, is_circle) in [
            ("mod m { use super::Y; } use super::Z;", true),
            ("mod m { struct S; fn f() {} use super::super::Y; }", true),
            ("mod m { use crate::a::Y; }", true),
            ("mod m { use super::Y; }", false),
            ("mod m { mod n { use super::super::Y; } struct S { y: super::Y } }", false),
            ("mod m { mod n {} use super::super::Y; }", true),
            ("mod m { fn f() { if true {} } } use super::Y;", true),
        ] {
            let circles = found(&[("src/a.rs", "use x::X;"), ("src/a/x.rs", used)]);
            assert_eq!(!circles.is_empty(), is_circle, "{used}: {circles:?}");
        }
    }

    #[test]
    fn globs_lead_to_their_module() {
        for used in ["use super::*;", "use crate::a::*;"] {
            assert_eq!(found(&[("src/a.rs", "use x::X;"), ("src/a/x.rs", used)]).len(), 1, "{used}");
        }
    }
}
