//! The columns of a model store: top-level properties with scalar values.

use snaphook_driver::{Column, ColumnKind};

use super::Schema;
use super::paths::Types;

impl Schema {
    /// Top-level scalar properties, in the schema's order.
    pub fn columns(&self) -> Vec<Column> {
        let Some(properties) = self.own(&self.tree, "properties").and_then(|properties| properties.as_object()) else {
            return Vec::new();
        };
        properties
            .iter()
            .filter_map(|(name, node)| {
                let kind = column_kind(self.types(node)?)?;
                Some(Column { name: name.clone(), kind })
            })
            .collect()
    }
}

fn column_kind(types: Types) -> Option<ColumnKind> {
    let scalars: Vec<&str> = types.names().filter(|name| *name != "null").collect();
    if scalars.iter().any(|name| matches!(*name, "object" | "array")) {
        return None;
    }
    Some(match scalars.as_slice() {
        [] => return None,
        ["string"] => ColumnKind::Text,
        ["integer"] => ColumnKind::Integer,
        ["number"] | ["integer", "number"] => ColumnKind::Number,
        ["boolean"] => ColumnKind::Boolean,
        _ => ColumnKind::Any,
    })
}

#[cfg(test)]
mod tests {
    use super::super::tests::schema;
    use super::*;
    use serde_json::json;

    #[test]
    fn columns_are_the_scalars() {
        let columns = |schema: &Schema| -> Vec<_> {
            schema.columns().into_iter().map(|column| (column.name, column.kind)).collect()
        };
        let found = columns(&schema(
            json!({"type": "object", "properties": {"Release Date": {"type": ["string", "null"]}, "n": {"type": "integer"},
            "tags": {"type": "array"}, "e": {"enum": ["a", "b"]}, "m": {"type": ["string", "number"]}, "any": {},
            "r": {"$ref": "#/$defs/r"}, "i": {"$ref": "https://example.com/i"}},
            "$defs": {"r": {"$anchor": "x", "$ref": "#y"}, "y": {"$anchor": "y", "type": "boolean"},
                "i": {"$id": "https://example.com/i", "type": "integer"}}}),
        ));
        assert_eq!(
            found,
            [
                ("Release Date".to_owned(), ColumnKind::Text),
                ("n".to_owned(), ColumnKind::Integer),
                ("e".to_owned(), ColumnKind::Text),
                ("m".to_owned(), ColumnKind::Any),
                ("r".to_owned(), ColumnKind::Boolean),
                ("i".to_owned(), ColumnKind::Integer),
            ]
        );
        // Keywords beside `$ref` apply, or do not, as in validation.
        let siblings = |draft: &str| {
            schema(
                json!({"$schema": draft, "type": "object", "properties": {"a": {"$ref": "#/definitions/s", "type": "integer"}},
                "definitions": {"s": {"type": ["string", "integer"]}}}),
            )
        };
        let old = siblings("http://json-schema.org/draft-07/schema#");
        assert_eq!(columns(&old), [("a".to_owned(), ColumnKind::Any)]);
        let new = siblings("https://json-schema.org/draft/2020-12/schema");
        assert_eq!(columns(&new), [("a".to_owned(), ColumnKind::Integer)]);
    }
}
