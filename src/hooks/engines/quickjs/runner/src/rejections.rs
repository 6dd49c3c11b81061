//! Promises that are rejected and have no handler.
//!
//! One that gets its handler later is none of them any more: `await` comes after the promise that it awaits.

use alloc::boxed::Box;
use alloc::rc::Rc;
use alloc::vec::Vec;
use core::cell::RefCell;

use rquickjs::{Ctx, Persistent, Runtime, Value};

/// In the order of their rejections.
#[derive(Clone, Default)]
pub(crate) struct Rejections(Rc<RefCell<Vec<Rejection>>>);

struct Rejection {
    promise: Persistent<Value<'static>>,
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
                true => seen.remove(&ctx, &promise),
            }
        })));
        rejections
    }

    fn add<'js>(&self, ctx: &Ctx<'js>, promise: Value<'js>, reason: Value<'js>) {
        let [promise, reason] = [promise, reason].map(|value| Persistent::save(ctx, value));
        self.0.borrow_mut().push(Rejection { promise, reason });
    }

    /// That promise is seen to.
    pub(crate) fn remove<'js>(&self, ctx: &Ctx<'js>, promise: &Value<'js>) {
        let is_it = |rejection: &Rejection| {
            let rejected = rejection.promise.clone().restore(ctx);
            rejected.is_ok_and(|rejected| rejected == *promise)
        };
        // Most of the time it is the last one.
        let index = self.0.borrow().iter().rposition(is_it);
        // Dropped when the list is free again: what a promise holds may be freed with it.
        let _handled = index.map(|index| self.0.borrow_mut().remove(index));
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.borrow().is_empty()
    }

    /// Forgets all; why the first one was rejected.
    pub(crate) fn take<'js>(&self, ctx: &Ctx<'js>) -> Option<Value<'js>> {
        let all = core::mem::take(&mut *self.0.borrow_mut());
        let first = all.into_iter().next()?;
        first.reason.restore(ctx).ok()
    }
}
