//! Removes tables that no model uses any more, and prepared tables of processes that have ended.
//!
//! PostgreSQL drops a table only when nobody reads it, and blocks later readers while it waits. No read of these tables
//! begins any more, and the wait is short; a table that is still in use is dropped by a later attempt.

use std::sync::{Arc, Weak};
use std::time::Duration;

use snaphook_driver::Result;
use tokio_postgres::types::Type;

use super::entries::forget;
use super::open_models::OpenModels;
use super::row::get;
use super::writing::Writing;
use crate::connection::{CALL_TIME, Database};

/// Time without progress after which a table in preparation counts as abandoned, and the same for a complete table that
/// is not used.
const BUILDING_SECONDS: f64 = 60.0;
const COMPLETE_SECONDS: f64 = 30.0 * 60.0;

/// Delay between the last change and the removal of tables, and the number of attempts.
const DELAY: Duration = Duration::from_millis(200);
const TRIES: usize = 20;

/// How often abandoned tables are looked for, while there are prepared ones.
const LOOK: Duration = Duration::from_secs(60);

/// Removes tables in the background.
pub(super) fn start(shared: &OpenModels) {
    let Some(shared) = shared.this() else { return };
    if shared.clears() {
        let weak = Arc::downgrade(&shared);
        shared.spawn(async move { clear(&weak).await });
    }
}

async fn clear(shared: &Weak<OpenModels>) {
    for attempt in 1..=TRIES {
        // Several changes often come together, and reads must end.
        tokio::time::sleep(DELAY * attempt as u32).await;
        let Some(shared) = shared.upgrade() else { return };
        if attempt == 1 {
            shared.cleared();
        }
        if let Ok(0) = drop_all(&shared.database).await {
            return;
        }
    }
}

/// Drops the tables that no model uses; returns how many are left.
async fn drop_all(database: &Database) -> Result<usize> {
    let unused = database.sql(
        "SELECT c.relname::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
         WHERE n.nspname = $1 AND c.relkind = 'r' AND c.relname ~ '^m[0-9]+$' \
         AND NOT EXISTS (SELECT FROM @.model_tables t WHERE c.relname = 'm' || t.number)",
        &[Type::TEXT],
    );
    let rows = database.session("clear").await?.query(&unused, &[&database.schema()]).await?;
    let mut left = 0;
    for row in &rows {
        let name: &str = get(row, 0, "clear")?;
        let drop = database.qualified(&format!("DROP TABLE IF EXISTS @.{name}"));
        let text = format!("BEGIN; SET LOCAL lock_timeout = '100ms'; {drop}; COMMIT");
        let mut session = database.session("clear").await?;
        if session.batch(&text).await.is_err() {
            left += 1;
            let _ = session.batch("ROLLBACK").await;
        }
    }
    Ok(left)
}

/// Looks for abandoned tables from time to time, in the background: applied events are written to them too.
pub(super) fn look(shared: &OpenModels) {
    if let Some(shared) = shared.this().filter(|shared| shared.looks(LOOK)) {
        let work = Arc::downgrade(&shared);
        shared.spawn(async move {
            if let Some(shared) = work.upgrade()
                && forget_abandoned(&shared).await.is_ok()
            {
                start(&shared);
            }
        });
    }
}

/// Removes prepared tables of processes that have ended from the registry.
pub(super) async fn forget_abandoned(shared: &OpenModels) -> Result<()> {
    let registry = shared.reload("open").await?;
    for (model, known) in &registry.models {
        let Some(prepared) = &known.prepared else { continue };
        let most = if prepared.complete { COMPLETE_SECONDS } else { BUILDING_SECONDS };
        if prepared.idle > most {
            let mut writing = Writing::begin(shared, "open", CALL_TIME).await?;
            let now = writing.registry.models.get(model).and_then(|known| known.prepared.as_ref());
            if now.is_some_and(|now| now.table.number == prepared.table.number) {
                forget(&mut writing, model, true).await?;
                writing.changed();
            }
            writing.commit(&[], None).await?;
        }
    }
    Ok(())
}
