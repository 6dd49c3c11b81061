//! Components made from a core module in text form: no WebAssembly toolchain is needed.

use std::path::Path;

use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

/// A memory, an allocator that never frees, and the address of the result; zeros there mean success.
const PRELUDE: &str = r#"
  (memory (export "memory") 2)
  (global $free (mut i32) (i32.const 65536))
  (func $allocate (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
    (local $at i32)
    (local.set $at (i32.and (i32.add (global.get $free) (i32.const 7)) (i32.const -8)))
    (global.set $free (i32.add (local.get $at) (local.get 3)))
    (block $enough
      (br_if $enough (i32.le_u (global.get $free) (i32.mul (memory.size) (i32.const 65536))))
      (if (i32.eq (memory.grow (i32.add (i32.div_u (local.get 3) (i32.const 65536)) (i32.const 1))) (i32.const -1))
        (then (unreachable))))
    (local.get $at))
  (global $answer i32 (i32.const 1024))
  (func $amend (param $text i32) (param $bytes i32) (result i32)
    (i32.store8 (i32.const 1028) (i32.const 1))
    (i32.store (i32.const 1032) (local.get $text))
    (i32.store (i32.const 1036) (local.get $bytes))
    (global.get $answer))
"#;

/// The package as text, for worlds that modify it.
pub(super) fn package() -> String {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("wit/since_v0_1_0/hook.wit");
    std::fs::read_to_string(file).expect("the package")
}

/// A component for one world of the package, with these imports and functions in text form.
#[track_caller]
pub(super) fn component(world: &str, imports: &str, functions: &str) -> Vec<u8> {
    foreign(&package(), world, imports, functions)
}

/// The same for a world of another package.
#[track_caller]
pub(super) fn foreign(wit: &str, world: &str, imports: &str, functions: &str) -> Vec<u8> {
    let mut resolve = Resolve::default();
    let package = resolve.push_str("test.wit", wit).expect("a package");
    let text = format!("(module {imports} {PRELUDE} {functions})");
    let mut module = wat::parse_str(&text).unwrap_or_else(|error| panic!("{error}"));
    let world = resolve.select_world(&[package], Some(world)).expect("a world");
    embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8).expect("a module");
    let mut encoder = ComponentEncoder::default();
    encoder.validate(true).module(&module).expect("a module");
    encoder.encode().expect("a component")
}

/// A `check` that runs this code and then accepts.
pub(super) fn check(body: &str) -> String {
    format!("(func (export \"check\") (param $context i32) (result i32) {body} (global.get $answer))")
}

/// A `react` that runs this code and then returns success.
pub(super) fn react(body: &str) -> String {
    format!("(func (export \"react\") (param $context i32) (result i32) {body} (global.get $answer))")
}
