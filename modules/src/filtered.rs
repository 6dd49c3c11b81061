//! Bodies that pass through filters of modules in chunks. A task reads the body and calls the filters; it is one chunk
//! ahead of the reader.

use std::sync::Arc;

use axum::body::Body;
use bytes::Bytes;
use futures::stream;
use http_body_util::BodyExt as _;
use tokio::sync::{Mutex, mpsc};

use crate::exchange::Side;
use crate::memory::Memory;
use crate::module::{Filtered, Handler, Module};
use crate::task::{self, Guard};

/// A module and its state of a request.
pub(crate) type SharedHandler = (Arc<Module>, Arc<Mutex<Box<dyn Handler>>>);

/// The error of an incomplete body.
type Broken = Box<dyn std::error::Error + Send + Sync>;

/// The body after all filters, which are called in order.
pub(crate) fn filtered(body: Body, side: Side, filters: Vec<SharedHandler>, memory: Option<Arc<dyn Memory>>) -> Body {
    let (sender, mut pieces) = mpsc::channel(1);
    // Polled together with the chunks, so that a filter that does not return aborts the body, and dropping the body
    // ends the task.
    let mut pump = Box::pin(task::run(memory, move |guard| pump(body, side, filters, sender, guard)));
    let mut is_done = false;
    Body::from_stream(stream::poll_fn(move |cx| {
        use std::task::Poll;
        if let Poll::Ready(next) = pieces.poll_recv(cx) {
            return Poll::Ready(next);
        }
        if is_done {
            return Poll::Pending;
        }
        match pump.as_mut().poll(cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Ok(())) => {
                is_done = true;
                // The channel is closed: the remaining chunks follow, then the end.
                pieces.poll_recv(cx)
            }
            Poll::Ready(Err(_)) => {
                is_done = true;
                pieces.close();
                Poll::Ready(Some(Err("a filter of this body did not return".into())))
            }
        }
    }))
}

async fn pump(
    mut body: Body,
    side: Side,
    filters: Vec<SharedHandler>,
    pieces: mpsc::Sender<Result<Bytes, Broken>>,
    guard: Arc<Guard>,
) {
    loop {
        let (bytes, is_last) = match body.frame().await {
            Some(Ok(frame)) => match frame.into_data() {
                Ok(bytes) => (bytes, false),
                // Trailers end a body.
                Err(_) => (Bytes::new(), true),
            },
            None => (Bytes::new(), true),
            Some(Err(error)) => {
                // The reader of the body may be gone.
                let _ = pieces.send(Err(error.into())).await;
                return;
            }
        };
        match through(&filters, side, bytes, is_last, &guard).await {
            Ok(bytes) if bytes.is_empty() => {}
            Ok(bytes) => {
                if pieces.send(Ok(bytes)).await.is_err() {
                    return;
                }
            }
            Err(message) => {
                let _ = pieces.send(Err(message.into())).await;
                return;
            }
        }
        if is_last {
            return;
        }
    }
}

async fn through(
    filters: &[SharedHandler],
    side: Side,
    bytes: Bytes,
    is_last: bool,
    guard: &Arc<Guard>,
) -> Result<Bytes, String> {
    let mut bytes = bytes;
    for (module, handler) in filters {
        if bytes.is_empty() && !is_last {
            break;
        }
        let filtered = handler.lock().await.filter(side, bytes.clone(), is_last, guard).await;
        match filtered {
            Ok(Filtered::Unchanged) => {}
            Ok(Filtered::Replaced(written)) => bytes = written,
            Err(fault) => {
                module.standing.strike(&fault);
                return Err(format!("a filter of module `{}` failed", module.standing.name));
            }
        }
    }
    Ok(bytes)
}
