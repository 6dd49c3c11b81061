//! Lists of instances as clients and hooks ask for them, checked against the schema.

use std::collections::BTreeSet;

use serde_json::Value;
use snaphook_driver::{Condition, InstanceQuery, Operator, SortKey, json};
use snaphook_schema::{Limits, within};

use super::document::type_name;
use super::model::Model;
use super::schema::Found;

/// Largest page.
pub const LIMIT_MAX: u32 = 1000;
/// Page when the caller does not say.
pub const LIMIT_DEFAULT: u32 = 50;
/// Conditions of one query.
const CONDITIONS_MAX: usize = 64;
/// Sort keys of one query. All of those that no index gives are kept for each row of the page.
const SORT_KEYS_MAX: usize = 16;
/// Values of one `in` or `nin`.
const VALUES_MAX: usize = 1000;
/// Values of all conditions together. Stores have limits of parameters: 32,766 here, 65,535 there.
const ALL_VALUES_MAX: usize = 5000;
/// Bytes of a path, and of a pattern of `like`.
const PATH_BYTES_MAX: usize = 1024;
const PATTERN_BYTES_MAX: usize = 1024;

/// A page of a list, as asked for.
#[derive(Clone, Debug, Default)]
pub struct QueryInput {
    /// Path (dotted), operator, value.
    pub filter: Vec<(String, String, FilterValue)>,
    /// `-total,name`
    pub sort: Option<String>,
    pub limit: Option<u32>,
    pub cursor: Option<String>,
}

/// A value of a filter: text from a URL, read by the type that the schema says; or JSON from a hook.
#[derive(Clone, Debug)]
pub enum FilterValue {
    Text(String),
    Json(Value),
}

/// Steps that looking up the paths of one query in the schema may take: about a millisecond.
const LOOKUP_STEPS_MAX: u64 = 50_000;

/// Checks a query; the error is one sentence.
pub fn check(model: &Model, input: &QueryInput) -> Result<InstanceQuery, String> {
    within(&Limits { steps: LOOKUP_STEPS_MAX, ..Limits::inline() }, || check_all(model, input)).unwrap_or_else(
        |excess| {
            Err(format!("the paths of the query cannot be looked up in the schema of `{}`: {excess}", model.record.id))
        },
    )
}

fn check_all(model: &Model, input: &QueryInput) -> Result<InstanceQuery, String> {
    if input.filter.len() > CONDITIONS_MAX {
        return Err(format!("the filter has {} conditions, at most {CONDITIONS_MAX} are allowed", input.filter.len()));
    }
    let limit = input.limit.unwrap_or(LIMIT_DEFAULT);
    if !(1..=LIMIT_MAX).contains(&limit) {
        return Err(format!("limit is {limit}, expected 1 to {LIMIT_MAX}"));
    }
    let filter: Vec<Condition> =
        input.filter.iter().map(|(path, name, value)| condition(model, path, name, value)).collect::<Result<_, _>>()?;
    let values: usize = filter.iter().map(|condition| count_values(&condition.operator)).sum();
    if values > ALL_VALUES_MAX {
        return Err(format!("the filter has {values} values, at most {ALL_VALUES_MAX} are allowed"));
    }
    let mut sort = Vec::new();
    for key in input.sort.iter().flat_map(|sort| sort.split(',')) {
        if sort.len() == SORT_KEYS_MAX {
            return Err(format!("sort has more than {SORT_KEYS_MAX} keys"));
        }
        check_path("sort", key)?;
        sort.push(sort_key(model, key)?);
    }
    Ok(InstanceQuery { filter, sort, limit, cursor: input.cursor.clone() })
}

/// Reads the query of a hook: `{filter?: {path: {op: value}}, sort?, limit?, cursor?}`.
pub fn from_json(text: &str) -> Result<QueryInput, String> {
    #[derive(serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Raw {
        filter: Option<json::Tree>,
        sort: Option<String>,
        limit: Option<u32>,
        cursor: Option<String>,
    }
    let text = if text.trim().is_empty() { "{}" } else { text };
    let raw: Raw = json::typed(text).map_err(|error| format!("query cannot be read: {error}"))?;
    let mut filter = Vec::new();
    let members = match raw.filter.map(|tree| tree.0) {
        None => serde_json::Map::new(),
        Some(Value::Object(members)) => members,
        Some(other) => {
            return Err(format!("`filter` is {}, expected an object of paths", type_name(&other)));
        }
    };
    for (path, operators) in members {
        let Value::Object(operators) = operators else {
            return Err(format!("filter `{path}` must be an object of operators, such as {{\"eq\": 1}}"));
        };
        for (operator, value) in operators {
            filter.push((path.clone(), operator, FilterValue::Json(value)));
        }
    }
    Ok(QueryInput { filter, sort: raw.sort, limit: raw.limit, cursor: raw.cursor })
}

/// Checks the properties that a part of the data is to keep.
pub fn check_fields(model: &Model, paths: &[String]) -> Result<(), String> {
    let unknown = || paths.iter().map(|path| model.schema.may_have(path).map(|known| (path, known)));
    let checked = within(&Limits { steps: LOOKUP_STEPS_MAX, ..Limits::inline() }, || {
        unknown().find(|known| !matches!(known, Ok((_, true))))
    });
    match checked {
        Ok(None) => Ok(()),
        Ok(Some(Ok((path, _)))) => {
            let shown: String = path.chars().take(100).collect();
            Err(unknown_path(model, "fields", &shown))
        }
        Ok(Some(Err(error))) => Err(error),
        Err(excess) => {
            Err(format!("fields: the schema of `{}` takes too much to look them up: {excess}", model.record.id))
        }
    }
}

/// Values are sorted by, but neither arrays nor objects.
fn sort_key(model: &Model, key: &str) -> Result<SortKey, String> {
    let sort_key = model.sort_key(key).ok_or_else(|| unknown_path(model, "sort", key.trim_start_matches('-')))?;
    let name = if sort_key.descending { &key[1..] } else { key };
    let types = model.schema.find(name)?.map(|found| found.types).unwrap_or_default();
    let named: Vec<&str> = types.into_iter().filter(|name| *name != "null").collect();
    if !named.is_empty() && named.iter().all(|name| matches!(*name, "array" | "object")) {
        return Err(format!(
            "sort: `{name}` is {}, and there is no order of these; sort by a string, number or boolean",
            named.iter().map(|name| format!("an {name}")).collect::<Vec<_>>().join(" or ")
        ));
    }
    Ok(sort_key)
}

fn unknown_path(model: &Model, what: &str, path: &str) -> String {
    format!("{what}: the schema of `{}` has no property `{path}`", model.record.id)
}

fn count_values(operator: &Operator) -> usize {
    match operator {
        Operator::In(values) | Operator::Nin(values) => values.len(),
        _ => 1,
    }
}

fn check_path(what: &str, dotted: &str) -> Result<(), String> {
    match dotted.len() {
        0..=PATH_BYTES_MAX => Ok(()),
        bytes => Err(format!("{what}: a path of {bytes} bytes, at most {PATH_BYTES_MAX} are allowed")),
    }
}

fn condition(model: &Model, dotted: &str, name: &str, value: &FilterValue) -> Result<Condition, String> {
    check_path("filter", dotted)?;
    let Found { path, types } = model.schema.find(dotted)?.ok_or_else(|| unknown_path(model, "filter", dotted))?;
    let place = format!("filter[{dotted}][{name}]");
    let one = || scalar(&types, value, &place);
    let operator = match name {
        "eq" => match one()? {
            Scalar::One(value) => Operator::Eq(value),
            Scalar::Either(values) => Operator::In(values),
        },
        "ne" => match one()? {
            Scalar::One(value) => Operator::Ne(value),
            Scalar::Either(values) => Operator::Nin(values),
        },
        "lt" => Operator::Lt(one()?.first()),
        "lte" => Operator::Lte(one()?.first()),
        "gt" => Operator::Gt(one()?.first()),
        "gte" => Operator::Gte(one()?.first()),
        "in" => Operator::In(list(&types, value, &place)?),
        "nin" => Operator::Nin(list(&types, value, &place)?),
        "like" => match value {
            FilterValue::Text(text) | FilterValue::Json(Value::String(text)) if text.len() > PATTERN_BYTES_MAX => {
                let bytes = text.len();
                return Err(format!("{place}: a pattern of {bytes} bytes, at most {PATTERN_BYTES_MAX} are allowed"));
            }
            FilterValue::Text(text) | FilterValue::Json(Value::String(text)) => Operator::Like(text.clone()),
            FilterValue::Json(_) => return Err(format!("{place}: a string is expected")),
        },
        "exists" => match value {
            FilterValue::Json(Value::Bool(exists)) => Operator::Exists(*exists),
            FilterValue::Text(text) if text == "true" => Operator::Exists(true),
            FilterValue::Text(text) if text == "false" => Operator::Exists(false),
            _ => return Err(format!("{place}: `true` or `false` is expected")),
        },
        other => {
            return Err(format!(
                "filter[{dotted}]: unknown operator `{other}`, expected one of eq ne lt lte gt gte in nin like exists"
            ));
        }
    };
    Ok(Condition { path, operator })
}

/// A value from a URL may be meant as more than one type where the schema allows several.
enum Scalar {
    One(Value),
    Either(Vec<Value>),
}

impl Scalar {
    fn first(self) -> Value {
        match self {
            Scalar::One(value) => value,
            Scalar::Either(values) => values.into_iter().next().unwrap_or(Value::Null),
        }
    }
}

fn scalar(types: &BTreeSet<&str>, value: &FilterValue, place: &str) -> Result<Scalar, String> {
    match value {
        FilterValue::Json(value @ (Value::String(_) | Value::Number(_) | Value::Bool(_))) => {
            Ok(Scalar::One(value.clone()))
        }
        FilterValue::Json(_) => Err(format!("{place}: a string, number or boolean is expected")),
        FilterValue::Text(text) => read(types, text, place),
    }
}

/// Reads text as each type that the schema allows, numbers first.
fn read(types: &BTreeSet<&str>, text: &str, place: &str) -> Result<Scalar, String> {
    let any = types.is_empty();
    let mut values = Vec::new();
    if (any || types.contains("number") || types.contains("integer"))
        && let Some(number) = number(text)
    {
        values.push(number);
    }
    if any || types.contains("boolean") {
        match text {
            "true" => values.push(Value::Bool(true)),
            "false" => values.push(Value::Bool(false)),
            _ => {}
        }
    }
    if any || types.contains("string") {
        values.push(Value::String(text.to_owned()));
    }
    match values.len() {
        0 => {
            let wanted: Vec<&str> = types.iter().copied().filter(|name| *name != "null").collect();
            let wanted = wanted.join(" or ");
            if matches!(wanted.as_str(), "object" | "array" | "array or object" | "") {
                return Err(format!("{place}: the property is {wanted}, which can only be asked for with `exists`"));
            }
            Err(format!("{place}: `{text}` is not of type {wanted}"))
        }
        1 => Ok(Scalar::One(values.remove(0))),
        _ => Ok(Scalar::Either(values)),
    }
}

/// Digits stay as they are.
fn number(text: &str) -> Option<Value> {
    match json::parse(text) {
        Ok(value @ Value::Number(_)) if !text.starts_with(char::is_whitespace) => Some(value),
        _ => None,
    }
}

fn list(types: &BTreeSet<&str>, value: &FilterValue, place: &str) -> Result<Vec<Value>, String> {
    let mut values = Vec::new();
    let mut add = |scalar| match scalar {
        Scalar::One(value) => values.push(value),
        Scalar::Either(all) => values.extend(all),
    };
    match value {
        FilterValue::Text(text) => {
            for part in text.split(',') {
                add(read(types, part, place)?);
            }
        }
        FilterValue::Json(Value::Array(items)) => {
            for item in items {
                add(scalar(types, &FilterValue::Json(item.clone()), place)?);
            }
        }
        FilterValue::Json(_) => return Err(format!("{place}: a list is expected")),
    }
    if values.len() > VALUES_MAX {
        return Err(format!("{place}: {} values, at most {VALUES_MAX} are allowed", values.len()));
    }
    Ok(values)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::{Definition, ModelInput, ModelRecord};
    use serde_json::json;
    use snaphook_driver::Json;

    fn model() -> Model {
        let schema = json!({"type": "object", "properties": {
            "name": {"type": ["string", "null"]}, "n": {"type": "number"}, "ok": {"type": "boolean"},
            "tags": {"type": "array"}, "map": {"type": ["object", "null"]}, "either": {"type": ["object", "array"]},
            "some": {"type": ["array", "string"]}, "mixed": {"type": ["string", "integer"]}, "Release Date": {"type": "string"}}});
        let input = ModelInput { schema: Some(Json::from_value(&schema)), ..ModelInput::default() };
        let definition = Definition::new(&input).unwrap();
        let record = ModelRecord {
            id: "m".to_owned(),
            version: 1,
            schema: definition.schema.text.clone(),
            indexes: vec![],
            unique: vec![],
            unique_ids: vec![],
            hooks: Default::default(),
            hooked_since: Default::default(),
            position: 1,
            created_at: 0,
            updated_at: 0,
        };
        definition.model(record)
    }

    #[track_caller]
    fn text(path: &str, operator: &str, value: &str) -> Result<Operator, String> {
        let filter = vec![(path.to_owned(), operator.to_owned(), FilterValue::Text(value.to_owned()))];
        check(&model(), &QueryInput { filter, ..QueryInput::default() }).map(|query| query.filter[0].operator.clone())
    }

    #[test]
    fn text_is_read_by_the_type_of_the_property() {
        assert_eq!(text("name", "eq", "5").unwrap(), Operator::Eq(json!("5")));
        assert_eq!(text("n", "eq", "5").unwrap(), Operator::Eq(json!(5)));
        assert_eq!(text("ok", "ne", "true").unwrap(), Operator::Ne(json!(true)));
        assert_eq!(text("mixed", "eq", "5").unwrap(), Operator::In(vec![json!(5), json!("5")]));
        assert_eq!(text("name", "in", "a,b").unwrap(), Operator::In(vec![json!("a"), json!("b")]));
        assert_eq!(text("Release Date", "like", "19%").unwrap(), Operator::Like("19%".to_owned()));
        assert_eq!(text("tags", "exists", "false").unwrap(), Operator::Exists(false));
    }

    #[test]
    fn what_cannot_be_asked_is_refused() {
        for (path, operator, value, message) in [
            ("x", "eq", "1", "no property `x`"),
            ("n", "eq", "five", "`five` is not of type number"),
            ("n", "eq", " 5", "is not of type number"),
            ("ok", "eq", "yes", "is not of type boolean"),
            ("n", "is", "5", "unknown operator `is`"),
            ("n", "exists", "maybe", "`true` or `false`"),
            ("tags", "eq", "a", "can only be asked for with `exists`"),
        ] {
            let error = text(path, operator, value).unwrap_err();
            assert!(error.contains(message), "{error}");
        }
        let sort = |sort: &str| check(&model(), &QueryInput { sort: Some(sort.to_owned()), ..QueryInput::default() });
        assert!(sort("-n,name,Release Date").is_ok());
        assert!(sort("n,").is_err());
        assert!(sort("-x").unwrap_err().contains("no property `x`"));
        assert!(sort("n,-tags").unwrap_err().contains("`tags` is an array"));
        assert!(sort("map").unwrap_err().contains("`map` is an object"));
        assert!(sort("either").unwrap_err().contains("is an array or an object"));
        assert!(sort("mixed,some").is_ok());
        assert!(check(&model(), &QueryInput { limit: Some(0), ..QueryInput::default() }).is_err());
    }

    #[test]
    fn fields_are_properties_of_the_schema() {
        let fields =
            |paths: &[&str]| check_fields(&model(), &paths.iter().map(|path| (*path).to_owned()).collect::<Vec<_>>());
        assert!(fields(&["name", "Release Date", "map", "map.anything.below"]).is_ok());
        for unknown in ["nmae", "name.x", "", "Release", "tags.x"] {
            assert!(fields(&["name", unknown]).unwrap_err().contains(&format!("no property `{unknown}`")), "{unknown}");
        }
    }

    #[test]
    fn what_a_query_holds_is_bounded() {
        let many = |count: usize| vec!["a"; count].join(",");
        let ask = |filter: Vec<(String, String, FilterValue)>, sort: Option<String>| {
            check(&model(), &QueryInput { filter, sort, ..QueryInput::default() }).map(|_| ())
        };
        let term = |path: &str, operator: &str, value: String| {
            (path.to_owned(), operator.to_owned(), FilterValue::Text(value))
        };
        ask(vec![term("name", "in", many(1000)); 5], Some("n,name,ok".into())).unwrap();
        ask(vec![term("name", "like", "%".repeat(1024)); 64], None).unwrap();
        for (filter, sort, message) in [
            (vec![term("name", "eq", "a".into()); 65], None, "65 conditions, at most 64"),
            (vec![term("name", "in", many(1001))], None, "1001 values, at most 1000"),
            (vec![term("name", "in", many(1000)); 6], None, "6000 values, at most 5000"),
            (vec![term("mixed", "nin", vec!["5"; 400].join(",")); 7], None, "5600 values, at most 5000"),
            (vec![term("name", "like", "%".repeat(1025))], None, "a pattern of 1025 bytes, at most 1024"),
            (vec![term(&"a.".repeat(600), "eq", "a".into())], None, "a path of 1200 bytes, at most 1024"),
            (vec![], Some(vec!["n"; 17].join(",")), "more than 16 keys"),
            (vec![], Some("a".repeat(2000)), "a path of 2000 bytes, at most 1024"),
        ] {
            let error = ask(filter, sort).unwrap_err();
            assert!(error.contains(message), "{message}: {error}");
        }
    }

    #[test]
    fn hooks_ask_with_json() {
        let input = from_json(r#"{"filter":{"n":{"gte":1,"lt":9007199254740993}},"sort":"-n","limit":3}"#).unwrap();
        let query = check(&model(), &input).unwrap();
        assert_eq!(query.filter.len(), 2);
        assert_eq!(query.filter[1].operator, Operator::Lt(json::parse("9007199254740993").unwrap()));
        assert!(from_json(r#"{"filters":{}}"#).unwrap_err().contains("filters"));
        assert!(from_json("").unwrap().filter.is_empty());
    }
}
