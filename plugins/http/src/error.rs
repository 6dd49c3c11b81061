//! The store: records go through the buffer to the collector.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use snaphook_driver::{
    Capabilities, DriverError, ErrorKind, ErrorPage, ErrorQuery, ErrorRecord, ErrorStore, OpenContext, Result, Store,
};
use snaphook_driver_peer::Peer;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

use crate::buffer::Buffer;
use crate::config::HttpConfig;
use crate::sender::{Outage, Sender};
use crate::writer::BufferWriter;

/// How long the collector may fail before the store is unhealthy.
const OUTAGE_MAX: Duration = Duration::from_secs(30);

/// How long `close` tries to deliver the waiting records. The rest is delivered after the next start.
const FLUSH_MAX: Duration = Duration::from_secs(5);

/// See the crate's documentation.
pub struct HttpErrorStore {
    buffer: Arc<Buffer>,
    writer: BufferWriter,
    outage: Arc<Outage>,
    closing: watch::Sender<bool>,
    sending: Mutex<Option<JoinHandle<()>>>,
}

impl HttpErrorStore {
    /// Opens the buffer and starts to deliver its records.
    pub(crate) fn open(context: &OpenContext) -> Result<HttpErrorStore> {
        let config = HttpConfig::new(context)?;
        let peer = Peer::open(Store::Error, &config.url, config.token.as_deref(), config.timeout)?;
        let buffer = Arc::new(Buffer::open(&context.path(&config.buffer), config.buffer_bytes)?);
        let (written, outage) = (Arc::<Notify>::default(), Arc::<Outage>::default());
        let (closing, is_closing) = watch::channel(false);
        let writer = BufferWriter::start(Arc::clone(&buffer), Arc::clone(&written));
        let sender =
            Sender { buffer: Arc::clone(&buffer), peer, batch: config.batch, written, outage: Arc::clone(&outage) };
        let sending = Mutex::new(Some(tokio::spawn(sender.run(is_closing))));
        Ok(HttpErrorStore { buffer, writer, outage, closing, sending })
    }

    fn sending(&self) -> Option<JoinHandle<()>> {
        self.sending.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl Drop for HttpErrorStore {
    fn drop(&mut self) {
        if let Some(sending) = self.sending() {
            sending.abort();
        }
    }
}

#[async_trait]
impl ErrorStore for HttpErrorStore {
    fn capabilities(&self) -> Capabilities {
        Capabilities { durable: true, readable: false, ..Capabilities::LEAST }
    }

    /// Unhealthy when the collector has failed for a while, or the buffer is nearly full.
    async fn health(&self) -> Result<()> {
        let unhealthy = |message: String| Err(DriverError::new(ErrorKind::Unavailable, "health", message));
        if let Some((since, reason)) = self.outage.get()
            && since.elapsed() >= OUTAGE_MAX
        {
            return unhealthy(format!("nothing was delivered for {} s: {reason}", since.elapsed().as_secs()));
        }
        let (waiting, max) = (self.buffer.waiting(), self.buffer.bytes_max());
        match waiting > max / 10 * 9 {
            true => unhealthy(format!("the buffer is nearly full: {waiting} of {max} bytes")),
            false => Ok(()),
        }
    }

    async fn close(&self) -> Result<()> {
        self.writer.close().await;
        self.closing.send_replace(true);
        if let Some(mut sending) = self.sending()
            && tokio::time::timeout(FLUSH_MAX, &mut sending).await.is_err()
        {
            sending.abort();
            let _ = sending.await;
        }
        self.buffer.close();
        Ok(())
    }

    async fn record(&self, record: &ErrorRecord) -> Result<()> {
        let text = serde_json::to_string(record).map_err(|error| {
            DriverError::new(ErrorKind::Invalid, "record", "the record cannot be written as JSON").because(error)
        })?;
        // A client's data is kept as it was sent. Line breaks in JSON are always whitespace.
        self.writer.write(text.replace(['\n', '\r'], " ")).await
    }

    async fn list(&self, _query: &ErrorQuery) -> Result<ErrorPage> {
        Ok(ErrorPage::default())
    }

    async fn count(&self, _query: &ErrorQuery) -> Result<u64> {
        Ok(0)
    }

    async fn get(&self, _id: &str) -> Result<Option<ErrorRecord>> {
        Ok(None)
    }

    async fn remove(&self, _id: &str) -> Result<bool> {
        Ok(false)
    }
}
