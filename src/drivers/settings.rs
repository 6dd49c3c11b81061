//! Checks a driver's table of the configuration against the driver's settings.

use serde_json::Value;
use snaphook_driver::{Setting, SettingKind};

use crate::config::{ConfigError, DriverConfig, closest};

/// Errors in a table: unknown keys, missing settings, wrong types. Values are not shown, because they may be secrets.
pub(super) fn faults(table: &str, driver: &str, settings: &[Setting], config: &DriverConfig) -> Vec<ConfigError> {
    let known = |key: &&String| settings.iter().any(|setting| setting.name == key.as_str());
    let unknown = config.settings.keys().filter(|key| !known(key)).map(|key| {
        let hint = hint(table, driver, settings, key);
        ConfigError::new(config.line_of(key), format!("unknown key `{table}.{key}`, {hint}"))
    });
    let wrong = settings.iter().filter_map(|setting| {
        let found = match config.settings.get(&*setting.name) {
            Some(value) => fault(setting.kind, value)?,
            None if setting.optional => return None,
            None => "is missing",
        };
        let (name, expected) = (&setting.name, &setting.expected);
        Some(ConfigError::new(config.line_of(name), format!("`{table}.{name}` {found}, expected {expected}")))
    });
    unknown.chain(wrong).collect()
}

fn hint(table: &str, driver: &str, settings: &[Setting], key: &str) -> String {
    match closest(key, settings.iter().map(|setting| &*setting.name)) {
        Some(known) => format!("did you mean `{table}.{known}`?"),
        None if settings.is_empty() => format!("the driver `{driver}` has no settings"),
        None => {
            let known: Vec<_> = settings.iter().map(|setting| format!("`{}`", setting.name)).collect();
            format!("the driver `{driver}` supports {}", known.join(", "))
        }
    }
}

/// The actual type of a value with the wrong type.
fn fault(kind: SettingKind, value: &Value) -> Option<&'static str> {
    match (kind, value) {
        (SettingKind::Text | SettingKind::Secret | SettingKind::Connection, Value::String(text)) => {
            text.is_empty().then_some("is empty")
        }
        (SettingKind::Text | SettingKind::Secret | SettingKind::Connection, _) => Some("is not a string"),
        (SettingKind::Number, value) => (!value.is_number()).then_some("is not a number"),
        (SettingKind::Bool, value) => (!value.is_boolean()).then_some("is neither `true` nor `false`"),
        (SettingKind::List, Value::Array(items)) => {
            (!items.iter().all(Value::is_string)).then_some("contains something other than strings")
        }
        (SettingKind::List, _) => Some("is not a list"),
        (SettingKind::Table, Value::Object(members)) => {
            (!members.values().all(Value::is_string)).then_some("contains something other than strings")
        }
        (SettingKind::Table, _) => Some("is not a table"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::config::ConfigErrors;

    #[test]
    fn each_kind_takes_its_values_and_no_others() {
        let values = [json!("x"), json!(7), json!(true), json!(["x"]), json!({"a": "x"}), json!([7]), json!({"a": 7})];
        for (kind, takes) in [
            (SettingKind::Text, 0),
            (SettingKind::Secret, 0),
            (SettingKind::Connection, 0),
            (SettingKind::Number, 1),
            (SettingKind::Bool, 2),
            (SettingKind::List, 3),
            (SettingKind::Table, 4),
        ] {
            for (index, value) in values.iter().enumerate() {
                assert_eq!(fault(kind, value).is_none(), index == takes, "{kind:?}: {value}");
            }
        }
        assert_eq!(fault(SettingKind::Text, &json!("")), Some("is empty"));
    }

    #[test]
    fn optional_settings_may_be_absent_and_others_not() {
        let settings = [
            Setting::required("url", SettingKind::Text, "an address"),
            Setting::optional("token", SettingKind::Secret, "a token"),
            Setting::with_default("encoding", SettingKind::Text, "a word", "\"json\""),
        ];
        let faults = |settings_found: Value| {
            let Value::Object(found) = settings_found else { panic!("a table") };
            let config = DriverConfig { settings: found, ..DriverConfig::default() };
            ConfigErrors::new("c", faults("t", "d", &settings, &config)).lines().collect::<Vec<_>>()
        };
        assert_eq!(faults(json!({"url": "x"})), [""; 0]);
        assert_eq!(
            faults(json!({"token": 7})),
            ["c: `t.url` is missing, expected an address", "c: `t.token` is not a string, expected a token"]
        );
        assert_eq!(faults(json!({"url": "x", "tokn": "x"})), ["c: unknown key `t.tokn`, did you mean `t.token`?"]);
    }
}
