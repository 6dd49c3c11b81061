//! An instance as a record of the peer: JSON that looks natural there.
//!
//! The members of the data are fields of the record, next to the id and the other fields of the instance, whose names
//! begin with `_` unless the settings change them. Members with conflicting names go into a separate object, `_data`,
//! so that no data is lost. If the settings name a field for `data`, all data goes there instead.

use std::collections::HashSet;

use serde_json::{Map, Value};
use snaphook_driver::{Instance, json, time};

use crate::config::FieldsConfig;

/// The object for members with conflicting names.
const OVERFLOW: &str = "_data";

/// Names of the fields.
#[derive(Debug)]
pub(crate) struct Fields {
    id: String,
    model_version: Option<String>,
    revision: Option<String>,
    position: Option<String>,
    created_at: Option<String>,
    updated_at: Option<String>,
    data: Option<String>,
}

impl Fields {
    /// An error says what is wrong with the names.
    pub(crate) fn new(id: &str, config: &FieldsConfig) -> Result<Fields, String> {
        let FieldsConfig { model_version, revision, position, created_at, updated_at, data } = config;
        if id.is_empty() {
            return Err("`id` is empty".into());
        }
        if data.as_deref() == Some("") {
            return Err("`fields.data` is empty; without it, the members of the data are fields of the record".into());
        }
        let mut taken = HashSet::from([id]);
        let others = [model_version, revision, position, created_at, updated_at].into_iter().chain(data);
        for name in others.map(String::as_str).filter(|name| !name.is_empty()) {
            if name == OVERFLOW || !taken.insert(name) {
                return Err(format!("two fields are named `{name}`"));
            }
        }
        let named = |name: &String| Some(name.clone()).filter(|name| !name.is_empty());
        Ok(Fields {
            id: id.to_owned(),
            model_version: named(model_version),
            revision: named(revision),
            position: named(position),
            created_at: named(created_at),
            updated_at: named(updated_at),
            data: data.clone(),
        })
    }

    /// The record of an instance as JSON; `has_id` includes its id.
    pub(crate) fn record(&self, instance: &Instance, data: &Value, has_id: bool) -> String {
        let mut record = Map::new();
        record.insert(self.id.clone(), instance.id.as_str().into());
        let own = [
            (&self.model_version, Value::from(instance.model_version)),
            (&self.revision, instance.revision.into()),
            (&self.position, instance.position.into()),
            (&self.created_at, time::format(instance.created_at).into()),
            (&self.updated_at, time::format(instance.updated_at).into()),
        ];
        record.extend(own.into_iter().filter_map(|(name, value)| Some((name.clone()?, value))));
        match (&self.data, data) {
            (Some(name), data) => drop(record.insert(name.clone(), data.clone())),
            (None, Value::Object(members)) => {
                let (taken, free): (Vec<_>, Vec<_>) =
                    members.iter().partition(|(name, _)| *name == OVERFLOW || record.contains_key(*name));
                record.extend(free.into_iter().map(|(name, value)| (name.clone(), value.clone())));
                if !taken.is_empty() {
                    let taken = taken.into_iter().map(|(name, value)| (name.clone(), value.clone()));
                    record.insert(OVERFLOW.to_owned(), Value::Object(taken.collect()));
                }
            }
            (None, data) => drop(record.insert(OVERFLOW.to_owned(), data.clone())),
        }
        if !has_id {
            record.shift_remove(&self.id);
        }
        Value::Object(record).to_string()
    }

    /// The id of a record as text, even if the peer converted it to a number. A list with one record counts as the
    /// record.
    pub(crate) fn id_of(&self, record: &Value) -> Option<String> {
        let record = match record.as_array().map(Vec::as_slice) {
            Some([record]) => record,
            _ => record,
        };
        match record.get(&self.id)? {
            // An empty id would address the collection.
            Value::String(id) => Some(id.clone()).filter(|id| !id.is_empty()),
            Value::Number(id) => Some(id.to_string()),
            _ => None,
        }
    }

    /// The id of a record that this driver wrote, which has a position.
    pub(crate) fn id_of_ours(&self, record: &Value) -> Option<String> {
        record.get(self.position.as_ref()?)?.as_u64()?;
        self.id_of(record)
    }

    /// The records in the response to a list: an array, or the array `items`, `data` or `results` of an object. An
    /// error says what the response is instead.
    pub(crate) fn records(&self, body: &[u8]) -> Result<Vec<Value>, String> {
        let list = json::parse_bytes(body).map_err(|error| format!("is not valid JSON: {error}"))?;
        match list {
            Value::Array(records) => Ok(records),
            Value::Object(mut page) => ["items", "data", "results"]
                .into_iter()
                .find_map(|name| match page.remove(name) {
                    Some(Value::Array(records)) => Some(records),
                    _ => None,
                })
                .ok_or_else(|| "is an object without the array `items`, `data` or `results`".to_owned()),
            _ => Err("is not a list".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use snaphook_driver::Json;

    use super::*;

    fn record(id: &str, config: &FieldsConfig, data: &str, has_id: bool) -> String {
        let data = Json::trusted(data);
        let instance = Instance {
            id: "a".into(),
            model: "m".into(),
            model_version: 2,
            revision: 3,
            position: 4,
            created_at: 0,
            updated_at: 1,
            data: data.clone(),
        };
        Fields::new(id, config).unwrap().record(&instance, &data.to_value().unwrap(), has_id)
    }

    #[test]
    fn data_is_spread_and_nothing_of_it_is_lost() {
        let own = r#""id":"a","_model_version":2,"_revision":3,"_position":4,"_created_at":"1970-01-01T00:00:00.000Z","_updated_at":"1970-01-01T00:00:00.001Z""#;
        let check = |data: &str, rest: &str| {
            assert_eq!(record("id", &FieldsConfig::default(), data, true), format!("{{{own}{rest}}}"), "{data}");
        };
        check(r#"{"n":1.50,"t":"x"}"#, r#","n":1.50,"t":"x""#);
        check(r#"{"id":7,"t":1,"_position":2}"#, r#","t":1,"_data":{"id":7,"_position":2}"#);
        check(r#"{"_data":1}"#, r#","_data":{"_data":1}"#);
        check("[1]", r#","_data":[1]"#);
        check("{}", "");
        let without = record("id", &FieldsConfig::default(), r#"{"id":7,"t":1}"#, false);
        assert_eq!(without, format!("{{{}{}}}", &own[r#""id":"a","#.len()..], r#","t":1,"_data":{"id":7}"#));
    }

    #[test]
    fn fields_are_renamed_left_out_and_found_again() {
        let mut config = FieldsConfig { data: Some("data".into()), position: "at".into(), ..FieldsConfig::default() };
        for name in [&mut config.model_version, &mut config.revision, &mut config.created_at, &mut config.updated_at] {
            name.clear();
        }
        let text = record("key", &config, r#"{"key":1,"at":2}"#, true);
        assert_eq!(text, r#"{"key":"a","at":4,"data":{"key":1,"at":2}}"#);
        let fields = Fields::new("key", &config).unwrap();
        for (text, id, is_ours) in [
            (text.as_str(), Some("a"), true),
            (r#"{"key":12}"#, Some("12"), false),
            (r#"[{"key":"b"}]"#, Some("b"), false),
            ("[]", None, false),
            ("7", None, false),
        ] {
            let value = json::parse(text).unwrap();
            assert_eq!(fields.id_of(&value).as_deref(), id);
            assert_eq!(fields.id_of_ours(&value).is_some(), is_ours, "{text}");
        }
        for (list, count) in
            [("[]", Ok(0)), (r#"{"items":[1,2]}"#, Ok(2)), ("{}", Err(())), ("1", Err(())), ("<", Err(()))]
        {
            assert_eq!(fields.records(list.as_bytes()).map(|found| found.len()).map_err(drop), count, "{list}");
        }
        config.revision = "key".into();
        assert!(Fields::new("key", &config).is_err());
    }
}
