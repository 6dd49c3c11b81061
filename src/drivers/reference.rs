//! Generates the end of `docs/config.md` from the settings that the linked drivers declare.

use std::fmt::Write as _;
use std::path::Path;

use snaphook_driver::{Driver, Setting, SettingKind};

use super::registry::LINKED;

const PAGE: &str = "docs/config.md";
/// The first line of the generated part.
const START: &str = "## Drivers\n";

fn made() -> String {
    let mut text = format!(
        "{START}\n\
         The other keys of a table with `driver = '…'`. [Drivers](drivers.md) describes each driver.\n"
    );
    LINKED.iter().for_each(|driver| describe(driver, &mut text));
    text
}

fn describe(driver: &Driver, text: &mut String) {
    let stores: Vec<_> = driver.stores().map(|store| store.as_str()).collect();
    let _ = write!(text, "\n### `{}`\n\nStores: {}.\n", driver.name, stores.join(", "));
    if driver.settings.is_empty() {
        text.push_str("It has no settings.\n");
    } else {
        table("setting", driver.settings, text);
    }
    if !driver.connection.is_empty() {
        table("setting of `[connections.NAME]`", driver.connection, text);
    }
}

fn table(heading: &str, settings: &[Setting], text: &mut String) {
    let _ = write!(text, "\n| {heading} | default | |\n| --- | --- | --- |\n");
    for setting in settings {
        let default = match (&setting.default, setting.optional) {
            (Some(default), _) => format!("`{}`", default.replace('"', "'")),
            (None, true) => "none".to_owned(),
            (None, false) => "required".to_owned(),
        };
        let secret = if setting.kind == SettingKind::Secret { "; never shown" } else { "" };
        let _ = writeln!(text, "| `{}` | {default} | {}{secret} |", setting.name, setting.expected.replace('|', "\\|"));
    }
}

#[test]
fn the_pages_of_drivers() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(PAGE);
    let page = std::fs::read_to_string(&file).unwrap();
    let (before, _) = page.split_once(START).unwrap_or((&page, ""));
    let expected = format!("{before}{}", made());
    if std::env::var_os("SNAPHOOK_BLESS").is_some() {
        std::fs::write(&file, &expected).unwrap();
    }
    assert!(
        std::fs::read_to_string(&file).unwrap() == expected,
        "the end of {PAGE} differs from the drivers; `SNAPHOOK_BLESS=1 cargo test --workspace --lib the_pages_of_` writes it"
    );
}
