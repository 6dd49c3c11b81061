//! The way of a hook: its source is compiled, loaded and prepared when it is bound, and run at each call. And the loop that
//! settles promises.

use alloc::boxed::Box;
use alloc::rc::Rc;
use alloc::vec::Vec;
use core::cell::{Cell, OnceCell};

use rquickjs::context::intrinsic::{
    Date, Eval, Json, MapSet, Promise as Promises, Proxy, RegExp, TypedArrays, WeakRef,
};
use rquickjs::promise::{PromiseHookType, PromiseState};
use rquickjs::{
    Context, Ctx, Error, Exception, Function, Object, Persistent, Promise, Result, Runtime, String as JsString, Value,
};

use crate::heap::{self, QuickJsHeap};
use crate::quickjs::{self, Bytecode, Purpose, Source, Text};
use crate::rejections::Rejections;
use crate::{functions, host};

/// QuickJS's limit of recursion, below the stack that there is (build.rs).
const STACK_LIMIT_BYTES: usize = 400_000;

/// Garbage is collected when so much was allocated since the last time. A call with less never pays for it.
const GARBAGE_BYTES: usize = 4 << 20;

/// QuickJS without what no hook needs.
type Intrinsics = (Date, Eval, RegExp, Json, Proxy, MapSet, TypedArrays, Promises, WeakRef);

pub(crate) struct Runner {
    runtime: Runtime,
    context: Context,
    scripts: OnceCell<Scripts>,
    rejections: Rejections,
}

type Kept = Persistent<Function<'static>>;

/// The functions of parts.js.
struct Scripts {
    run: Kept,
    returned: Kept,
    fulfilled: Kept,
    settle: Kept,
    accept: Kept,
    prepare: Kept,
    failure: Kept,
    explain: Kept,
    arrived: Kept,
    due: Kept,
    wake: Kept,
}

/// What a call ends with.
pub(crate) enum Ending {
    Answer(Text),
    /// Nothing is left that could settle the handler's promise.
    Never,
    /// Not even an error: there was no memory for it.
    Nothing,
}

/// What running a top level left.
#[derive(Clone, Copy)]
pub(crate) enum Prepared {
    Whole = 0,
    Threw = 1,
    /// Jobs, or promises that are not fulfilled.
    Pending = 2,
}

impl Runner {
    pub(crate) fn new() -> Result<Runner> {
        let runtime = Runtime::new_with_alloc(QuickJsHeap)?;
        runtime.set_max_stack_size(STACK_LIMIT_BYTES);
        // What lives at the snapshot lives for good.
        runtime.set_gc_threshold(usize::MAX);
        let context = Context::custom::<Intrinsics>(&runtime)?;
        let rejections = Rejections::of(&runtime);
        Ok(Runner { runtime, context, scripts: OnceCell::new(), rejections })
    }

    /// The bytecode of our scripts, or an error.
    pub(crate) fn compile_scripts(&self, source: Source<'_>) -> core::result::Result<Vec<u8>, Option<Text>> {
        self.context
            .with(|ctx| quickjs::compile(&ctx, source, Purpose::Runner).map_err(|error| thrown(&ctx, error).get().ok()))
    }

    /// Runs our scripts. Out: nothing, or an error.
    pub(crate) fn boot(&self, bytecode: Bytecode<'_>) -> core::result::Result<(), Option<Text>> {
        self.context.with(|ctx| {
            let boot = || {
                let scripts: Function<'_> = quickjs::evaluate(&ctx, bytecode)?.get()?;
                let parts: Object<'_> = scripts.call((functions::object(&ctx)?,))?;
                let part = |name| Ok::<_, Error>(Persistent::save(&ctx, parts.get::<_, Function<'_>>(name)?));
                Ok::<_, Error>(Scripts {
                    run: part("run")?,
                    returned: part("returned")?,
                    fulfilled: part("fulfilled")?,
                    settle: part("settle")?,
                    accept: part("accept")?,
                    prepare: part("prepare")?,
                    failure: part("failure")?,
                    explain: part("explain")?,
                    arrived: part("arrived")?,
                    due: part("due")?,
                    wake: part("wake")?,
                })
            };
            let scripts = boot().map_err(|error| thrown(&ctx, error).get().ok())?;
            let _ = self.scripts.set(scripts);
            Ok(())
        })
    }

    /// Makes the memory ready to be the snapshot.
    pub(crate) fn seal(&self) {
        self.runtime.run_gc();
        let used = usize::try_from(self.runtime.memory_usage().malloc_size).unwrap_or(0);
        self.runtime.set_gc_threshold(used + GARBAGE_BYTES);
        heap::seal();
        self.context.with(|ctx| quickjs::begin_new_pages(&ctx));
    }

    /// A hook's source to bytecode, or why it cannot be compiled.
    pub(crate) fn compile(&self, source: Source<'_>) -> core::result::Result<Vec<u8>, Option<Text>> {
        self.context.with(|ctx| {
            quickjs::compile(&ctx, source, Purpose::Hook)
                .map_err(|error| self.described(&ctx, |scripts| &scripts.explain, thrown(&ctx, error)))
        })
    }

    /// Whether a hook's bytecode was loaded.
    pub(crate) fn load(&self, bytecode: Bytecode<'_>) -> bool {
        self.context.with(|ctx| {
            let program = quickjs::evaluate(&ctx, bytecode);
            program.and_then(|program| self.call::<_, ()>(&ctx, |scripts| &scripts.accept, (program,))).is_ok()
        })
    }

    /// Runs the hook's top level, and says whether what it left is all there is to it.
    pub(crate) fn prepare(&self) -> Prepared {
        // A promise that nobody has any more counts too: then the top level runs at each call, which is never wrong.
        let open = Rc::new(Cell::new(0_i32));
        let count = Rc::clone(&open);
        self.runtime.set_promise_hook(Some(Box::new(move |_, event, _, _| match event {
            PromiseHookType::Init => count.set(count.get() + 1),
            // Only of those that are fulfilled.
            PromiseHookType::Resolve => count.set(count.get() - 1),
            PromiseHookType::Before | PromiseHookType::After => {}
        })));
        let done = self.context.with(|ctx| self.call::<_, Value<'_>>(&ctx, |scripts| &scripts.prepare, ()).map(drop));
        self.runtime.set_promise_hook(None);
        match done {
            Err(_) => Prepared::Threw,
            Ok(()) if self.runtime.is_job_pending() || open.get() != 0 => Prepared::Pending,
            Ok(()) => Prepared::Whole,
        }
    }

    /// Runs the handler. `release` is called when the parts were read.
    pub(crate) fn run(&self, phase: &str, context: Source<'_>, marker: &str, release: impl FnOnce()) -> Ending {
        self.context.with(|ctx| {
            let parts = || {
                let [phase, marker] = [phase, marker].map(|text| JsString::from_str(ctx.clone(), text));
                Ok::<_, Error>((phase?, quickjs::parse_json(&ctx, context)?, marker?))
            };
            let parts = parts();
            release();
            match parts.and_then(|parts| self.answer(&ctx, parts)) {
                Ok(ending) => ending,
                Err(error) => self.failure(&ctx, thrown(&ctx, error)),
            }
        })
    }

    fn answer<'js>(&self, ctx: &Ctx<'js>, parts: (JsString<'js>, Value<'js>, JsString<'js>)) -> Result<Ending> {
        let returned: Option<Text> = self.call(ctx, |scripts| &scripts.run, parts)?;
        let answer = match returned {
            Some(answer) => Some(answer),
            None => self.settled(ctx)?,
        };
        let answer = match answer {
            Some(answer) if self.is_all(ctx, &answer) => return Ok(Ending::Answer(answer)),
            answer => answer,
        };
        self.finish(ctx)?;
        let rejected = self.rejections.take(ctx);
        Ok(match (answer, rejected) {
            (Some(answer), _) if is_failure(&answer) => Ending::Answer(answer),
            (_, Some(reason)) => self.failure(ctx, reason),
            (Some(answer), None) => Ending::Answer(answer),
            (None, None) => Ending::Never,
        })
    }

    /// Whether the handler left nothing behind, as most do.
    fn is_all(&self, ctx: &Ctx<'_>, answer: &Text) -> bool {
        leaves_nothing(answer)
            && !quickjs::has_jobs(ctx)
            && !host::has_outstanding_calls()
            && self.rejections.is_empty()
    }

    /// The answer of an asynchronous handler; none if its promise never settles.
    fn settled(&self, ctx: &Ctx<'_>) -> Result<Option<Text>> {
        let returned: Value<'_> = self.call(ctx, |scripts| &scripts.returned, ())?;
        let Some(promise) = returned.as_promise() else {
            let adopted: Promise<'_> = self.call(ctx, |scripts| &scripts.settle, ())?;
            return self.settle(ctx, &adopted)?.map(|settled| settled?.get()).transpose();
        };
        match self.settle(ctx, promise)? {
            None => Ok(None),
            Some(Ok(value)) => self.call(ctx, |scripts| &scripts.fulfilled, (value,)).map(Some),
            Some(Err(error)) => {
                self.rejections.remove(&returned);
                self.call(ctx, |scripts| &scripts.failure, (thrown(ctx, error),)).map(Some)
            }
        }
    }

    /// What a promise comes to; none if it never settles.
    fn settle<'js>(&self, ctx: &Ctx<'js>, promise: &Promise<'js>) -> Result<Option<Result<Value<'js>>>> {
        while promise.state() == PromiseState::Pending {
            if !ctx.execute_pending_job() && !self.wait_for_next(ctx, false)? {
                return Ok(None);
            }
        }
        Ok(promise.result())
    }

    /// What the handler left behind is done before the call is: promises, host calls and timers.
    fn finish(&self, ctx: &Ctx<'_>) -> Result<()> {
        loop {
            run_jobs(ctx);
            if !self.wait_for_next(ctx, true)? {
                return Ok(());
            }
        }
    }

    /// Waits for the next host call or timer. Whether there was one.
    fn wait_for_next<'js>(&self, ctx: &Ctx<'js>, has_answered: bool) -> Result<bool> {
        let milliseconds: f64 = self.call(ctx, |scripts| &scripts.due, (has_answered,))?;
        if milliseconds < 0.0 && !host::has_outstanding_calls() {
            return Ok(false);
        }
        match host::wait(None, milliseconds) {
            Some(call) => functions::deliver(ctx, &self.function(ctx, |scripts| &scripts.arrived)?, call)?,
            None => self.call(ctx, |scripts| &scripts.wake, ())?,
        }
        Ok(true)
    }

    fn failure<'js>(&self, ctx: &Ctx<'js>, thrown: Value<'js>) -> Ending {
        self.described(ctx, |scripts| &scripts.failure, thrown).map_or(Ending::Nothing, Ending::Answer)
    }

    /// What was thrown, as a function of the scripts says it.
    fn described<'js>(&self, ctx: &Ctx<'js>, part: fn(&Scripts) -> &Kept, thrown: Value<'js>) -> Option<Text> {
        let described = self.call(ctx, part, (thrown,));
        if described.is_err() {
            ctx.catch();
        }
        described.ok()
    }

    fn call<'js, A, R>(&self, ctx: &Ctx<'js>, part: fn(&Scripts) -> &Kept, arguments: A) -> Result<R>
    where
        A: rquickjs::function::IntoArgs<'js>,
        R: rquickjs::FromJs<'js>,
    {
        self.function(ctx, part)?.call(arguments)
    }

    fn function<'js>(&self, ctx: &Ctx<'js>, part: fn(&Scripts) -> &Kept) -> Result<Function<'js>> {
        part(self.scripts.get().ok_or(Error::Unknown)?).clone().restore(ctx)
    }
}

/// Runs what promises have brought about.
fn run_jobs(ctx: &Ctx<'_>) {
    while ctx.execute_pending_job() {}
}

/// The exception that an error stands for.
fn thrown<'js>(ctx: &Ctx<'js>, error: Error) -> Value<'js> {
    match error {
        Error::Exception => ctx.catch(),
        Error::Allocation => text_value(ctx, "out of memory"),
        _ => text_value(ctx, "a value is not of the kind that the runner expects"),
    }
}

fn text_value<'js>(ctx: &Ctx<'js>, message: &str) -> Value<'js> {
    Exception::from_message(ctx.clone(), message)
        .map_or_else(|_| Value::new_undefined(ctx.clone()), |exception| exception.into_value())
}

/// Whether the answer of a handler says that no timer is left (main.js).
fn leaves_nothing(answer: &Text) -> bool {
    answer.bytes().get(1) == Some(&b'0')
}

/// Whether the answer of a handler says that it failed, or rejected (main.js).
fn is_failure(answer: &Text) -> bool {
    matches!(answer.bytes().first(), Some(b'e' | b'r'))
}
