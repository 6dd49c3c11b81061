//! Checks a text without building anything.

use std::borrow::Cow;
use std::collections::HashSet;

use super::reader::Build;

pub(super) struct Checked;

impl Build for Checked {
    type Value = ();
    type List = ();
    /// The names so far.
    type Object = HashSet<String>;

    fn null(&mut self) {}
    fn boolean(&mut self, _: bool) {}
    fn number(&mut self, _: &str) {}
    fn string(&mut self, _: Cow<'_, str>) {}
    fn item(&mut self, (): &mut (), (): ()) {}
    fn list(&mut self, (): ()) {}

    fn member(&mut self, names: &mut HashSet<String>, name: Cow<'_, str>, (): ()) -> bool {
        names.insert(name.into_owned())
    }

    fn object(&mut self, _: HashSet<String>) {}
}
