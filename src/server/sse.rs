//! Server-sent events: frames, heartbeats, the end at shutdown. Each event is serialized once for all listeners.

use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use futures::{Stream, StreamExt, stream};
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderName};
use snaphook_driver::{Event, Position};
use tokio::sync::watch;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at, sleep};

use super::reply::{Reply, ReplyBody, Response};
use super::{json, log_position};
use crate::memory::{Lease, MemoryBudget, Share};

pub(super) const MEDIA_TYPE: &str = "text/event-stream";

/// Interval of comments that show proxies and clients that the stream is alive.
const HEARTBEAT: Duration = Duration::from_secs(15);
const COMMENT: &[u8] = b":\n\n";

/// Cached frames. Live listeners are within a few events of each other.
const FRAMES_KEPT: usize = 256;
/// Longer frames are kept only while a listener has them, so that the cache stays below 4 MiB.
const FRAME_KEPT_BYTES_MAX: usize = 16 * 1024;
/// Delay before asking again for memory for a long frame.
const MEMORY_PAUSE: Duration = Duration::from_millis(100);

/// Responds with a stream of frames that ends with `frames`, or when the server stops.
pub(super) fn respond(frames: impl Stream<Item = Bytes> + Send + 'static, stopping: watch::Receiver<bool>) -> Response {
    respond_with(frames, stopping, HEARTBEAT)
}

fn respond_with(
    frames: impl Stream<Item = Bytes> + Send + 'static,
    stopping: watch::Receiver<bool>,
    heartbeat: Duration,
) -> Response {
    struct StreamState {
        frames: Pin<Box<dyn Stream<Item = Bytes> + Send>>,
        heartbeat: Interval,
        stopping: watch::Receiver<bool>,
    }
    let mut heartbeat = interval_at(Instant::now() + heartbeat, heartbeat);
    heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let state = StreamState { frames: Box::pin(frames), heartbeat, stopping };
    let rest = stream::unfold(state, |mut state| async move {
        let frame = tokio::select! {
            biased;
            _ = state.stopping.wait_for(|stopping| *stopping) => None,
            _ = state.heartbeat.tick() => Some(Bytes::from_static(COMMENT)),
            frame = state.frames.next() => frame,
        };
        frame.map(|frame| (frame, state))
    });
    // The first comment confirms the subscription immediately.
    let all = stream::iter([Bytes::from_static(COMMENT)]).chain(rest);
    Reply::ok()
        .fixed(CONTENT_TYPE, MEDIA_TYPE)
        .fixed(CACHE_CONTROL, "no-store")
        .fixed(HeaderName::from_static("x-accel-buffering"), "no")
        .body(ReplyBody::Stream(Box::pin(all)))
}

/// Only an id: not an event, but the position from which the client resumes.
pub(super) fn place(log: &str, position: Position) -> Bytes {
    let mut out = b"id: ".to_vec();
    log_position::write(&mut out, log, position);
    out.extend_from_slice(b"\n\n");
    Bytes::from(out)
}

/// A frame. `data` has no line breaks.
pub(super) fn frame(id: Option<(&str, Position)>, name: &str, write_data: impl FnOnce(&mut Vec<u8>)) -> Bytes {
    let mut out = Vec::with_capacity(512);
    if let Some((log, position)) = id {
        out.extend_from_slice(b"id: ");
        log_position::write(&mut out, log, position);
        out.push(b'\n');
    }
    out.extend_from_slice(b"event: ");
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\ndata: ");
    write_data(&mut out);
    out.extend_from_slice(b"\n\n");
    Bytes::from(out)
}

/// A bounded cache of frames of events by position; entries may be dropped at any time.
pub(super) struct FrameCache {
    slots: [ArcSwapOption<(Position, Frame)>; FRAMES_KEPT],
}

enum Frame {
    Short(Bytes),
    /// Its listeners own it: a thousand of them share one copy.
    Long(Weak<LongFrame>),
}

struct LongFrame {
    bytes: Bytes,
    _memory: Lease<Share>,
}

struct Owner(Arc<LongFrame>);

impl AsRef<[u8]> for Owner {
    fn as_ref(&self) -> &[u8] {
        &self.0.bytes
    }
}

impl Default for FrameCache {
    fn default() -> Self {
        FrameCache { slots: [const { ArcSwapOption::const_empty() }; FRAMES_KEPT] }
    }
}

impl FrameCache {
    /// The frame of an event, created if it is not cached. A position always identifies the same event. A long frame
    /// waits until there is memory for it.
    pub(super) async fn of(&self, event: &Event, log: &str, budget: &Arc<MemoryBudget>) -> Bytes {
        let slot = &self.slots[(event.position % FRAMES_KEPT as u64) as usize];
        let long_bytes = event.data.as_ref().map_or(0, |data| data.len());
        let memory = Lease::of(budget.whole());
        loop {
            if let Some(kept) = &*slot.load()
                && kept.0 == event.position
            {
                match &kept.1 {
                    Frame::Short(frame) => return frame.clone(),
                    Frame::Long(frame) => {
                        if let Some(frame) = frame.upgrade() {
                            return Bytes::from_owner(Owner(frame));
                        }
                    }
                }
            }
            if long_bytes <= FRAME_KEPT_BYTES_MAX || !memory.grow(long_bytes).is_err_and(|shortage| shortage.can_fit())
            {
                break;
            }
            sleep(MEMORY_PAUSE).await;
        }
        let bytes = frame(Some((log, event.position)), event.kind.as_str(), |out| json::write_event(out, event));
        if bytes.len() <= FRAME_KEPT_BYTES_MAX {
            slot.store(Some(Arc::new((event.position, Frame::Short(bytes.clone())))));
            return bytes;
        }
        let frame = Arc::new(LongFrame { bytes, _memory: memory });
        slot.store(Some(Arc::new((event.position, Frame::Long(Arc::downgrade(&frame))))));
        Bytes::from_owner(Owner(frame))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt;

    fn event(position: Position) -> Event {
        snaphook_driver::json::from_tree(serde_json::json!({
            "position": position, "id": "x", "type": "instance.created", "model": "m", "model_version": 1,
            "instance": "i", "revision": 1, "data": {}, "actor": null, "cause": null, "request_id": null,
            "time": "1970-01-01T00:00:00.000Z",
        }))
        .expect("an event")
    }

    #[tokio::test]
    async fn frames_are_made_once_and_forgotten() {
        let (cache, budget) = (FrameCache::default(), MemoryBudget::new(1 << 20));
        let first = cache.of(&event(7), "log", &budget).await;
        assert!(first.starts_with(b"id: log.7\nevent: instance.created\ndata: {\"position\":7,"), "{first:?}");
        assert!(first.ends_with(b"}\n\n"));
        assert_eq!(cache.of(&event(7), "log", &budget).await.as_ptr(), first.as_ptr());
        assert!(cache.of(&event(7 + FRAMES_KEPT as u64), "log", &budget).await.starts_with(b"id: log.263\n"));
        assert_eq!(cache.of(&event(7), "log", &budget).await, first);
        assert_eq!(budget.used(), 0);
    }

    #[tokio::test]
    async fn a_long_frame_is_held_once_for_all_its_listeners() {
        let (cache, budget) = (FrameCache::default(), MemoryBudget::new(1 << 20));
        let mut long = event(7);
        long.data = Some(snaphook_driver::Json::trusted(format!("\"{}\"", "x".repeat(500_000))));
        let mut listeners = Vec::new();
        for _ in 0..1000 {
            listeners.push(cache.of(&long, "log", &budget).await);
        }
        assert!(listeners.iter().all(|frame| frame.as_ptr() == listeners[0].as_ptr()));
        assert!((500_000..510_000).contains(&budget.used()), "{}", budget.used());
        drop(listeners);
        assert_eq!(budget.used(), 0);
    }

    #[tokio::test]
    async fn beats_and_ends_when_the_server_stops() {
        let (stop, stopping) = watch::channel(false);
        let heartbeat = Duration::from_millis(2);
        let mut body = respond_with(stream::pending(), stopping, heartbeat).into_body();
        let started = Instant::now();
        for beats in 0..3 {
            let piece = body.frame().await.expect("a piece").expect("whole").into_data().expect("data");
            assert_eq!(&piece[..], COMMENT);
            assert!(started.elapsed() >= heartbeat * beats);
        }
        stop.send_replace(true);
        assert!(body.frame().await.is_none());
    }

    #[tokio::test]
    async fn ends_with_its_source() {
        let (_stop, stopping) = watch::channel(false);
        let frames = stream::iter([frame(None, "log", |out| out.extend_from_slice(b"{}"))]);
        let body = respond(frames, stopping).into_body().collect().await.expect("whole").to_bytes();
        assert_eq!(&body[..], b":\n\nevent: log\ndata: {}\n\n");
    }
}
