//! Failed runs in a sorted map.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Mutex;

use async_trait::async_trait;
use snaphook_driver::{Capabilities, ErrorPage, ErrorQuery, ErrorRecord, ErrorStore, PAGE_BYTES_MAX, Result};

use crate::locked;

/// See the crate's documentation.
#[derive(Default)]
pub struct MemoryErrorStore {
    records: Mutex<BTreeMap<String, ErrorRecord>>,
}

#[async_trait]
impl ErrorStore for MemoryErrorStore {
    fn capabilities(&self) -> Capabilities {
        Capabilities { readable: true, durable: false, ..Capabilities::LEAST }
    }

    async fn health(&self) -> Result<()> {
        Ok(())
    }

    async fn close(&self) -> Result<()> {
        Ok(())
    }

    async fn record(&self, record: &ErrorRecord) -> Result<()> {
        locked(&self.records).insert(record.id.clone(), record.clone());
        Ok(())
    }

    async fn list(&self, query: &ErrorQuery) -> Result<ErrorPage> {
        let after = query.after.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
        let records = locked(&self.records);
        let matching = records
            .range::<String, _>((after, Bound::Unbounded))
            .map(|(_, record)| record)
            .filter(|record| query.model.as_ref().is_none_or(|model| *model == record.model))
            .filter(|record| query.hook.as_ref().is_none_or(|hook| *hook == record.hook));
        let mut page = ErrorPage::default();
        let mut bytes = 0;
        for record in matching {
            bytes += record.event.data.as_ref().map_or(0, |data| data.len());
            page.full =
                page.records.len() >= query.limit as usize || bytes > PAGE_BYTES_MAX && !page.records.is_empty();
            if page.full {
                break;
            }
            page.records.push(record.clone());
        }
        Ok(page)
    }

    async fn count(&self, query: &ErrorQuery) -> Result<u64> {
        let records = locked(&self.records);
        let matching = records
            .values()
            .filter(|record| query.model.as_ref().is_none_or(|model| *model == record.model))
            .filter(|record| query.hook.as_ref().is_none_or(|hook| *hook == record.hook));
        Ok(matching.count() as u64)
    }

    async fn get(&self, id: &str) -> Result<Option<ErrorRecord>> {
        Ok(locked(&self.records).get(id).cloned())
    }

    async fn remove(&self, id: &str) -> Result<bool> {
        Ok(locked(&self.records).remove(id).is_some())
    }
}
