//! List queries of clients and hooks, checked against the schema.

use snaphook_driver::{InstanceQuery, SortKey};
use snaphook_schema::{Limits, within};

use super::field_error::FieldError;
use super::filter::{self, FilterInput, unknown_path};
use super::members::Part;
use super::model::Model;
use super::path_target::{PathTarget, check_path, place};

/// Largest page.
pub const LIMIT_MAX: u32 = 1000;
/// The default page size.
pub const LIMIT_DEFAULT: u32 = 50;
/// Sort keys of one query. Those that no index provides are kept in memory for each row of the page.
const SORT_KEYS_MAX: usize = 16;
/// A requested page of a list.
#[derive(Clone, Debug, Default)]
pub struct QueryInput {
    pub filter: FilterInput,
    /// `-total,name`
    pub sort: Option<String>,
    pub limit: Option<u32>,
    pub cursor: Option<String>,
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
    let limit = input.limit.unwrap_or(LIMIT_DEFAULT);
    if !(1..=LIMIT_MAX).contains(&limit) {
        return Err(format!("limit is {limit}, expected 1 to {LIMIT_MAX}"));
    }
    let filter = filter::check(model, &input.filter)?;
    let mut sort = Vec::new();
    for key in input.sort.iter().flat_map(|sort| sort.split(',')) {
        if sort.len() == SORT_KEYS_MAX {
            return Err(format!("sort has more than {SORT_KEYS_MAX} keys"));
        }
        sort.push(sort_key(model, key)?);
    }
    Ok(InstanceQuery { filter, sort, limit, cursor: input.cursor.clone() })
}

/// Reads the query of a hook: `{filter?: {path: {op: value}}, sort?, limit?, cursor?}`. Filters are joined by
/// `{"or": [filter, …]}`, `{"and": [filter, …]}` and `{"not": filter}`.
pub fn from_json(text: &str) -> Result<QueryInput, String> {
    let text = if text.trim().is_empty() { "{}" } else { text };
    read(text).map_err(|FieldError { pointer, message }| match pointer.is_empty() {
        true => format!("query cannot be read: it {message}"),
        false => format!("query cannot be read: `{pointer}` {message}"),
    })?
}

fn read(text: &str) -> Result<Result<QueryInput, String>, FieldError> {
    let mut members = Part::whole(text).members(&["filter", "sort", "limit", "cursor"])?;
    let filter = members.set("filter").map(|filter| filter.tree()).transpose()?;
    let sort = members.set("sort").map(|sort| sort.string()).transpose()?;
    let limit = members.set("limit").map(|limit| limit.number()).transpose()?;
    let cursor = members.set("cursor").map(|cursor| cursor.string()).transpose()?;
    let filter = filter.map(filter::from_json).transpose();
    Ok(filter.map(|filter| QueryInput { filter: filter.unwrap_or_default(), sort, limit, cursor }))
}

/// Checks the properties of a projection.
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
            Err(format!("fields: looking them up in the schema of `{}` is too complex: {excess}", model.record.id))
        }
    }
}

/// Only scalar values can be sort keys.
fn sort_key(model: &Model, key: &str) -> Result<SortKey, String> {
    check_path("sort", key)?;
    let (name, sort_key) = match key.strip_prefix('-').unwrap_or(key) {
        bare if bare.starts_with('$') => {
            let descending = bare.len() < key.len();
            match place("sort", bare)? {
                PathTarget::Meta(meta) => return Ok(SortKey { path: meta.into(), descending }),
                PathTarget::Dotted(dotted) => {
                    let found = model.schema.find(dotted)?.ok_or_else(|| unknown_path(model, "sort", dotted))?;
                    (dotted, SortKey { path: found.path.into(), descending })
                }
            }
        }
        bare => {
            let sort_key =
                model.sort_key(key).ok_or_else(|| unknown_path(model, "sort", bare.trim_start_matches('-')))?;
            (if sort_key.descending { bare } else { key }, sort_key)
        }
    };
    let types = model.schema.find(name)?.map(|found| found.types).unwrap_or_default();
    let named: Vec<&str> = types.into_iter().filter(|name| *name != "null").collect();
    if !named.is_empty() && named.iter().all(|name| matches!(*name, "array" | "object")) {
        return Err(format!(
            "sort: `{name}` is {}, which has no order; sort by a string, number or boolean",
            named.iter().map(|name| format!("an {name}")).collect::<Vec<_>>().join(" or ")
        ));
    }
    Ok(sort_key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::filter::FilterValue;
    use crate::catalog::{Definition, ModelInput, ModelRecord};
    use serde_json::{Value, json};
    use snaphook_driver::{Condition, Filter, Json, Meta, Operator, json};

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
            references: vec![],
            referenced: None,
            rules: None,
            hooks: Default::default(),
            hooked_since: Default::default(),
            position: 1,
            created_at: 0,
            updated_at: 0,
        };
        definition.model(record)
    }

    fn term(path: &str, operator: &str, value: String) -> FilterInput {
        let (path, operator) = (path.to_owned(), operator.to_owned());
        FilterInput::Condition { path, operator, value: FilterValue::Text(value) }
    }

    #[track_caller]
    fn text(path: &str, operator: &str, value: &str) -> Result<Operator, String> {
        let filter = term(path, operator, value.to_owned());
        match check(&model(), &QueryInput { filter, ..QueryInput::default() })?.filter {
            Filter::Condition(condition) => Ok(condition.operator),
            other => panic!("{other:?} is no condition"),
        }
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
            ("tags", "eq", "a", "supports only `has` and `exists`"),
            ("map", "eq", "a", "supports only `exists`"),
            ("name", "has", "a", "the property is not an array"),
            ("n", "is", "5", "eq ne lt lte gt gte in nin like ilike has exists"),
            ("$name", "eq", "5", "written `$$name`"),
            ("$$name", "eq", "5", "no property `$name`"),
            ("$created_at", "gt", "yesterday", "is not a time"),
            ("$revision", "gt", "x", "is not of type integer"),
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
        let ask = |filter: Vec<FilterInput>, sort: Option<String>| {
            let filter = FilterInput::And(filter);
            check(&model(), &QueryInput { filter, sort, ..QueryInput::default() }).map(|_| ())
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
        let parts = query.filter.conjuncts();
        assert_eq!(parts.len(), 2);
        let last = Operator::Lt(json::parse("9007199254740993").unwrap());
        assert!(matches!(parts[1], Filter::Condition(condition) if condition.operator == last));
        let meta =
            from_json(r#"{"filter":{"not":{"$created_at":{"lt":"1970-01-01T00:00:01Z"}}},"sort":"-$id"}"#).unwrap();
        let query = check(&model(), &meta).unwrap();
        let condition = Condition { path: Meta::CreatedAt.into(), operator: Operator::Lt(Value::from(1000)) };
        assert_eq!(query.filter, Filter::And(vec![Filter::Not(Box::new(Filter::And(vec![condition.into()])))]));
        assert_eq!(query.sort, [SortKey { path: Meta::Id.into(), descending: true }]);
        assert!(from_json(r#"{"filters":{}}"#).unwrap_err().contains("filters"));
        assert_eq!(check(&model(), &from_json("").unwrap()).unwrap().filter, Filter::default());
    }
}
