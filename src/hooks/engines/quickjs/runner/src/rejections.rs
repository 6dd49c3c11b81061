//! Promises that are rejected and have no handler.
//!
//! One that gets its handler later is none of them any more: `await` comes after the promise that it awaits.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::rc::Rc;
use core::cell::RefCell;

use rquickjs::{Ctx, Persistent, Runtime, Value};

use crate::quickjs::identity;

#[derive(Clone, Default)]
pub(crate) struct Rejections(Rc<RefCell<All>>);

#[derive(Default)]
struct All {
    /// By the promise.
    rejections: BTreeMap<usize, Rejection>,
    /// How many there were.
    count: u64,
}

struct Rejection {
    number: u64,
    /// While it is kept, no other promise has its identity.
    _promise: Persistent<Value<'static>>,
    reason: Persistent<Value<'static>>,
}

impl Rejections {
    /// Of a runtime, from now on.
    pub(crate) fn of(runtime: &Runtime) -> Rejections {
        let rejections = Rejections::default();
        let seen = rejections.clone();
        runtime.set_host_promise_rejection_tracker(Some(Box::new(move |ctx, promise, reason, is_handled| {
            match is_handled {
                false => seen.add(&ctx, promise, reason),
                true => seen.remove(&promise),
            }
        })));
        rejections
    }

    fn add<'js>(&self, ctx: &Ctx<'js>, promise: Value<'js>, reason: Value<'js>) {
        let key = identity(&promise);
        let [_promise, reason] = [promise, reason].map(|value| Persistent::save(ctx, value));
        let mut all = self.0.borrow_mut();
        all.count += 1;
        let number = all.count;
        all.rejections.insert(key, Rejection { number, _promise, reason });
    }

    /// That promise is seen to.
    pub(crate) fn remove(&self, promise: &Value<'_>) {
        let handled = self.0.borrow_mut().rejections.remove(&identity(promise));
        // When nobody has the list any more: what a promise holds may be freed with it.
        drop(handled);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.borrow().rejections.is_empty()
    }

    /// Forgets all; why the first one was rejected.
    pub(crate) fn take<'js>(&self, ctx: &Ctx<'js>) -> Option<Value<'js>> {
        let all = core::mem::take(&mut *self.0.borrow_mut());
        let first = all.rejections.into_values().min_by_key(|rejection| rejection.number)?;
        first.reason.restore(ctx).ok()
    }
}
