//! The error store: failed runs as JSON, with columns for listing them.

use std::sync::Arc;

use async_trait::async_trait;
use snaphook_driver::{
    Capabilities, DriverError, ErrorKind, ErrorPage, ErrorQuery, ErrorRecord, ErrorStore, OpenContext, PAGE_BYTES_MAX,
    Result,
};
use tokio_postgres::types::Type;

use crate::connection::Database;
use crate::fault::corrupt;
use crate::migrate::{Tables, migrate};
use crate::session::{Begin, Parameter};
use crate::sql::Sql;
use crate::text::escape;

const TABLES: Tables = Tables {
    store: "error",
    steps: &["CREATE TABLE @.errors(
        id text COLLATE \"C\" PRIMARY KEY,
        model text COLLATE \"C\" NOT NULL,
        hook text COLLATE \"C\" NOT NULL,
        record text COLLATE \"C\" NOT NULL);
    CREATE INDEX errors_model ON @.errors(model, id);
    CREATE INDEX errors_hook ON @.errors(model, hook, id);"],
};

/// See the crate's documentation.
pub struct PostgresErrorStore {
    database: Arc<Database>,
    put: Sql,
    get: Sql,
    remove: Sql,
}

impl PostgresErrorStore {
    /// Opens the store in the schema of the connection, and creates its tables if they are missing.
    pub async fn open(context: &OpenContext) -> Result<Self> {
        let database = Database::open(context).await?;
        migrate(&database, &TABLES).await?;
        Ok(PostgresErrorStore {
            put: database.sql(
                "INSERT INTO @.errors(id, model, hook, record) VALUES ($1, $2, $3, $4)
                 ON CONFLICT (id) DO UPDATE SET model = $2, hook = $3, record = $4",
                &[Type::TEXT, Type::TEXT, Type::TEXT, Type::TEXT],
            ),
            get: database.sql("SELECT record FROM @.errors WHERE id = $1", &[Type::TEXT]),
            remove: database.sql("DELETE FROM @.errors WHERE id = $1", &[Type::TEXT]),
            database,
        })
    }
}

#[async_trait]
impl ErrorStore for PostgresErrorStore {
    fn capabilities(&self) -> Capabilities {
        Capabilities { readable: true, durable: true, shared: true, ..Capabilities::LEAST }
    }

    async fn health(&self) -> Result<()> {
        let sql = self.database.sql("SELECT count(*) FROM (SELECT 1 FROM @.errors LIMIT 1) one", &[]);
        self.database.session("health").await?.one(&sql, &[]).await.map(drop)
    }

    async fn close(&self) -> Result<()> {
        Ok(())
    }

    async fn record(&self, record: &ErrorRecord) -> Result<()> {
        let text = serde_json::to_string(record).map_err(|error| {
            DriverError::new(ErrorKind::Invalid, "record", "the record cannot be written as JSON").because(error)
        })?;
        let values: [Parameter<'_>; 4] = [&escape(&record.id), &escape(&record.model), &escape(&record.hook), &text];
        let mut session = self.database.session("record").await?;
        session.begin(Begin::DURABLE).await?;
        session.execute(&self.put, &values).await?;
        session.commit().await
    }

    async fn list(&self, query: &ErrorQuery) -> Result<ErrorPage> {
        let Filter { conditions, values, types } = Filter::new(query);
        let after = query.after.as_deref().map(escape).unwrap_or_default();
        // One more than requested, to know whether there are more.
        let limit = i64::from(query.limit) + 1;
        let place = types.len();
        let text = format!(
            "SELECT record, total, nth FROM (
                 SELECT p.*, row_number() OVER w AS nth, sum(octet_length(record)) OVER w AS total
                 FROM (SELECT id, record FROM @.errors WHERE id > ${}{conditions} ORDER BY id LIMIT ${}) p
                 WINDOW w AS (ORDER BY id ROWS UNBOUNDED PRECEDING)) q
             WHERE nth = 1 OR total - octet_length(record) <= {PAGE_BYTES_MAX} ORDER BY id",
            place + 1,
            place + 2
        );
        let sql = self.database.sql(&text, &[&types[..], &[Type::TEXT, Type::INT8]].concat());
        let mut values: Vec<Parameter<'_>> = values.iter().map(|value| value as Parameter<'_>).collect();
        values.extend([&after as Parameter<'_>, &limit]);
        let rows = self.database.session("list").await?.query(&sql, &values).await?;
        let mut page = ErrorPage::default();
        for row in rows {
            let is_too_much = row.get::<_, i64>(1) > PAGE_BYTES_MAX as i64 && !page.records.is_empty();
            page.full = page.records.len() >= query.limit as usize || is_too_much;
            if page.full {
                break;
            }
            page.records.push(parse("list", row.get(0))?);
        }
        Ok(page)
    }

    async fn count(&self, query: &ErrorQuery) -> Result<u64> {
        let Filter { conditions, values, types } = Filter::new(query);
        let sql = self.database.sql(&format!("SELECT count(*) FROM @.errors WHERE true{conditions}"), &types);
        let values: Vec<Parameter<'_>> = values.iter().map(|value| value as Parameter<'_>).collect();
        let row = self.database.session("count").await?.one(&sql, &values).await?;
        Ok(row.get::<_, i64>(0).unsigned_abs())
    }

    async fn get(&self, id: &str) -> Result<Option<ErrorRecord>> {
        let rows = self.database.session("get").await?.query(&self.get, &[&escape(id)]).await?;
        rows.first().map(|row| parse("get", row.get(0))).transpose()
    }

    async fn remove(&self, id: &str) -> Result<bool> {
        let mut session = self.database.session("remove").await?;
        session.begin(Begin::DURABLE).await?;
        let count = session.execute(&self.remove, &[&escape(id)]).await?;
        session.commit().await?;
        Ok(count > 0)
    }
}

/// The conditions of a query without its page, as SQL with the first parameters.
struct Filter {
    conditions: String,
    values: Vec<String>,
    types: Vec<Type>,
}

impl Filter {
    fn new(query: &ErrorQuery) -> Filter {
        let mut filter = Filter { conditions: String::new(), values: Vec::new(), types: Vec::new() };
        for (column, value) in [("model", &query.model), ("hook", &query.hook)] {
            if let Some(value) = value {
                filter.values.push(escape(value).into_owned());
                filter.types.push(Type::TEXT);
                filter.conditions.push_str(&format!(" AND {column} = ${}", filter.values.len()));
            }
        }
        filter
    }
}

fn parse(operation: &'static str, text: &str) -> Result<ErrorRecord> {
    snaphook_driver::json::typed(text)
        .map_err(|error| corrupt(operation, "a record cannot be read back").because(error))
}
