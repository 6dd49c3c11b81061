//! Calls of an event store, and its running exports.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::request::{foreign, nothing, read, refuse, write};
use crate::append::Holder;
use crate::driver::Store;
use crate::error::{DriverError, ErrorKind, Result};
use crate::event_store::EventStore;
use crate::export::{LogExport, LogRecord};
use crate::wire::events::{each, read_query, stream};
use crate::wire::message::{Malformed, required};
use crate::wire::method::Method;
use crate::wire::proto;

/// Maximum number of concurrent exports. Each makes the store keep old data that others overwrite.
const EXPORTS_MAX: usize = 4;

/// An export without calls for this long is closed.
const EXPORT_IDLE: Duration = Duration::from_secs(600);

/// Running exports, by number.
#[derive(Default)]
pub(super) struct Exports {
    next: AtomicU64,
    open: Mutex<HashMap<u64, Export>>,
}

struct Export {
    export: Arc<tokio::sync::Mutex<Box<dyn LogExport>>>,
    used: Instant,
}

pub(super) async fn call(store: &dyn EventStore, exports: &Exports, method: Method, request: &[u8]) -> Result<Vec<u8>> {
    let refuse = refuse(method);
    exports.close_idle();
    match method {
        Method::EventHealth => store.health().await.map(nothing),
        Method::EventClose => {
            exports.locked().clear();
            store.close().await.map(nothing)
        }
        Method::EventAppend => {
            let request: proto::EventAppendRequest = read(method, request)?;
            let appends: Vec<_> = each(request.appends).map_err(refuse)?;
            let outcomes = store.append(&appends, request.atomic).await?;
            write(&proto::EventAppendResponse { outcomes: outcomes.iter().map(Into::into).collect() })
        }
        Method::EventRead => {
            let (query, wait) = read_query(read(method, request)?).map_err(refuse)?;
            write(&proto::EventReadResponse::from(&store.read(&query, wait).await?))
        }
        Method::EventLast => {
            let request: proto::EventLastRequest = read(method, request)?;
            let stream = stream(request.stream).map_err(refuse)?;
            let event = match request.skip {
                0 => store.last(&stream, request.at_most).await?,
                skip => store.last_but(&stream, request.at_most, skip).await?,
            };
            write(&proto::EventLastResponse { event: event.as_ref().map(Into::into) })
        }
        Method::EventHead => write(&proto::EventHeadResponse { head: store.head().await? }),
        Method::EventReserve => {
            let request: proto::EventReserveRequest = read(method, request)?;
            let key = |key: proto::Reservation| Ok((key.key, stream(key.stream)?));
            let keys: Vec<_> = request.keys.into_iter().map(key).collect::<Result<_, Malformed>>().map_err(refuse)?;
            let refused = store.reserve(&keys).await?;
            let refusal = |(index, holder): &(usize, Holder)| proto::Refusal {
                index: *index as u64,
                holder: Some(holder.into()),
            };
            write(&proto::EventReserveResponse { refused: refused.iter().map(refusal).collect() })
        }
        Method::EventForgetClaims => {
            let request: proto::EventForgetClaimsRequest = read(method, request)?;
            let forgotten = store.forget_claims(&request.prefix, request.limit).await?;
            write(&proto::EventForgetClaimsResponse { forgotten })
        }
        Method::EventNextClaim => {
            let request: proto::EventNextClaimRequest = read(method, request)?;
            write(&proto::EventNextClaimResponse { key: store.next_claim(&request.from).await? })
        }
        Method::EventHolder => {
            let request: proto::EventHolderRequest = read(method, request)?;
            let holder = store.holder(&request.key).await?;
            write(&proto::EventHolderResponse { holder: holder.as_ref().map(Into::into) })
        }
        Method::EventAnnounce => {
            let request: proto::EventAnnounceRequest = read(method, request)?;
            let node = required("node", request.node).map_err(refuse)?;
            store.announce(&node.into(), Duration::from_millis(request.keep_ms)).await.map(nothing)
        }
        Method::EventNodes => {
            let nodes = store.nodes().await?;
            write(&proto::EventNodesResponse { nodes: nodes.iter().map(Into::into).collect() })
        }
        Method::EventPutBlob => {
            let request: proto::EventPutBlobRequest = read(method, request)?;
            store.put_blob(&request.sha256, &request.bytes).await.map(nothing)
        }
        Method::EventGetBlob => {
            let request: proto::EventGetBlobRequest = read(method, request)?;
            write(&proto::EventGetBlobResponse { bytes: store.get_blob(&request.sha256).await? })
        }
        Method::EventExport
        | Method::EventExportNext
        | Method::EventExportClose
        | Method::EventImport
        | Method::EventFinishImport => copy(store, exports, method, request).await,
        _ => groups(store, method, request).await,
    }
}

async fn groups(store: &dyn EventStore, method: Method, request: &[u8]) -> Result<Vec<u8>> {
    let refuse = refuse(method);
    match method {
        Method::EventCreateGroup => {
            let request: proto::EventCreateGroupRequest = read(method, request)?;
            let group = required("group", request.group).and_then(TryInto::try_into).map_err(refuse)?;
            store.create_group(&group, request.start).await.map(nothing)
        }
        Method::EventDropGroup => {
            let request: proto::EventDropGroupRequest = read(method, request)?;
            store.drop_group(&request.name).await.map(nothing)
        }
        Method::EventGroups => write(&proto::EventGroupsResponse { names: store.groups().await? }),
        Method::EventClaim => {
            let request: proto::EventClaimRequest = read(method, request)?;
            let lease = Duration::from_millis(request.lease_ms);
            let deliveries = store.claim(&request.group, request.limit, lease).await?;
            write(&proto::EventClaimResponse { deliveries: deliveries.iter().map(Into::into).collect() })
        }
        Method::EventAck => {
            let request: proto::EventAckRequest = read(method, request)?;
            let done: Vec<_> = request.done.iter().map(|done| (done.position, done.token)).collect();
            store.ack(&request.group, &done).await.map(nothing)
        }
        Method::EventRelease => {
            let request: proto::EventReleaseRequest = read(method, request)?;
            let delay = Duration::from_millis(request.delay_ms);
            let note = request.note.as_deref();
            store.release(&request.group, request.position, request.token, delay, note).await.map(nothing)
        }
        Method::EventRenew => {
            let request: proto::EventRenewRequest = read(method, request)?;
            let lease = Duration::from_millis(request.lease_ms);
            let note = request.note.as_deref();
            let renewed = store.renew(&request.group, request.position, request.token, lease, note).await?;
            write(&proto::EventRenewResponse { renewed })
        }
        Method::EventIsDone => {
            let request: proto::EventIsDoneRequest = read(method, request)?;
            let stream = stream(request.stream).map_err(refuse)?;
            let done = store.is_done(&request.group, &stream, request.position).await?;
            write(&proto::EventIsDoneResponse { done })
        }
        Method::EventLag => {
            let request: proto::EventLagRequest = read(method, request)?;
            let (waiting, done_to) = store.lag(&request.group).await?;
            write(&proto::EventLagResponse { waiting, done_to })
        }
        _ => Err(foreign(method, Store::Event)),
    }
}

/// Exports and imports.
async fn copy(store: &dyn EventStore, exports: &Exports, method: Method, request: &[u8]) -> Result<Vec<u8>> {
    match method {
        Method::EventExport => {
            let (export, head) = exports.begin(store).await?;
            write(&proto::EventExportResponse { export, head })
        }
        Method::EventExportNext => {
            let request: proto::EventExportNextRequest = read(method, request)?;
            let export = exports.find(request.export)?;
            let records = export.lock().await.next().await?;
            write(&proto::EventExportNextResponse { records: records.iter().map(Into::into).collect() })
        }
        Method::EventExportClose => {
            let request: proto::EventExportCloseRequest = read(method, request)?;
            exports.locked().remove(&request.export);
            Ok(Vec::new())
        }
        Method::EventImport => {
            let request: proto::EventImportRequest = read(method, request)?;
            let records: Vec<LogRecord> = each(request.records).map_err(refuse(method))?;
            store.import(&records).await.map(nothing)
        }
        _ => store.finish_import().await.map(nothing),
    }
}

impl Exports {
    /// The number of a new export, and the head of its log.
    async fn begin(&self, store: &dyn EventStore) -> Result<(u64, u64)> {
        let check = |open: usize| {
            let message = || format!("{EXPORTS_MAX} exports are already running, which is the maximum");
            if open < EXPORTS_MAX { Ok(()) } else { Err(DriverError::new(ErrorKind::Overloaded, "export", message())) }
        };
        check(self.locked().len())?;
        let export = store.export().await?;
        let head = export.head();
        let mut open = self.locked();
        check(open.len())?;
        let number = self.next.fetch_add(1, Ordering::Relaxed) + 1;
        open.insert(number, Export { export: Arc::new(tokio::sync::Mutex::new(export)), used: Instant::now() });
        Ok((number, head))
    }

    fn find(&self, number: u64) -> Result<Arc<tokio::sync::Mutex<Box<dyn LogExport>>>> {
        let mut open = self.locked();
        let Some(export) = open.get_mut(&number) else {
            let message = format!("there is no export {number}; one that is not used for ten minutes is closed");
            return Err(DriverError::new(ErrorKind::Invalid, "export-next", message));
        };
        export.used = Instant::now();
        Ok(Arc::clone(&export.export))
    }

    /// Called with every call of the store, so that an abandoned export does not keep data for long.
    fn close_idle(&self) {
        self.locked().retain(|_, export| export.used.elapsed() < EXPORT_IDLE);
    }

    fn locked(&self) -> MutexGuard<'_, HashMap<u64, Export>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
