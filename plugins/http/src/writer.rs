//! The thread that writes to the buffer, with one sync for all records that wait at the same time.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use snaphook_driver::{DriverError, ErrorKind, Result};
use tokio::sync::{Notify, oneshot};

use crate::buffer::Buffer;

/// How many records one sync covers at most.
const TOGETHER_MAX: usize = 1000;

type Job = (String, oneshot::Sender<Result<()>>);

/// The thread, which runs until this is closed or dropped.
pub(crate) struct BufferWriter {
    running: Mutex<Option<(Sender<Job>, JoinHandle<()>)>>,
}

impl BufferWriter {
    /// `written` is notified when there are records to send.
    pub(crate) fn start(buffer: Arc<Buffer>, written: Arc<Notify>) -> BufferWriter {
        let (sender, receiver) = channel();
        let thread = std::thread::spawn(move || run(&buffer, &written, &receiver));
        BufferWriter { running: Mutex::new(Some((sender, thread))) }
    }

    /// Returns when the record is on disk.
    pub(crate) async fn write(&self, record: String) -> Result<()> {
        let (answer, written) = oneshot::channel();
        let sender =
            self.running.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map(|(sender, _)| sender.clone());
        let sent = sender.is_some_and(|sender| sender.send((record, answer)).is_ok());
        match sent {
            true => written.await.unwrap_or_else(|_| Err(closed("record"))),
            false => Err(closed("record")),
        }
    }

    /// Waits until all records are written.
    pub(crate) async fn close(&self) {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some((sender, thread)) = running {
            drop(sender);
            let _ = tokio::task::spawn_blocking(move || thread.join()).await;
        }
    }
}

fn run(buffer: &Buffer, written: &Notify, jobs: &Receiver<Job>) {
    while let Ok(first) = jobs.recv() {
        let (records, answers): (Vec<_>, Vec<_>) =
            std::iter::once(first).chain(jobs.try_iter().take(TOGETHER_MAX - 1)).unzip();
        for (answer, result) in answers.into_iter().zip(buffer.append(&records)) {
            // The caller may be gone; the record is stored anyway.
            let _ = answer.send(result);
        }
        written.notify_one();
    }
}

/// The error of a call to a closed store.
fn closed(operation: &'static str) -> DriverError {
    DriverError::new(ErrorKind::Unavailable, operation, "the store is closed").temporary(false)
}
