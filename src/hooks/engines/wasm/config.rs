//! The one wasmtime engine of the process: made when the first hook is prepared, since its pool of sandboxes costs
//! address space and a little memory that a server without hooks need not spend.

use std::sync::{Arc, OnceLock};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use wasmtime::{Config, Enabled, Engine, InstanceAllocationStrategy, PoolingAllocationConfig};

use super::ticker::Ticker;

/// In cache keys, besides wasmtime's own hash of version and settings.
pub(super) const ENGINE_NAME: &str = "wasmtime-48";

/// Sandboxes that may exist at once, running or idle. Beyond it a call waits for one to end.
const SANDBOXES_MAX: u32 = 512;

/// Sandboxes of [`loading_runtime`] at once.
const LOADING_MAX: u32 = 8;

/// Core memories, tables and instances inside one component. There are as
/// many in all as every sandbox may have: a hook that takes the most it can never leaves too few to another.
const MEMORIES_PER_COMPONENT: u32 = 4;
const TABLES_PER_COMPONENT: u32 = 8;
const INSTANCES_PER_COMPONENT: u32 = 32;

/// Elements of one table: QuickJS has 500; a big Go or C# program a few ten thousand.
const TABLE_ELEMENTS: usize = 100_000;

/// Of each memory that stays resident. A sandbox that used much leaves so many pages to be looked at in later resets; 1 MiB is
/// where small calls stay quickest after large ones.
const MEMORY_KEPT_BYTES: usize = 1 << 20;

/// Stack of the guest's code. QuickJS's own limit of recursion lies below it, so that JavaScript gets a RangeError.
const STACK_BYTES: usize = 1 << 20;

/// The engine and what goes with it.
pub(in crate::hooks::engines) struct Runtime {
    pub(in crate::hooks::engines) engine: Engine,
    pub(super) ticker: Ticker,
    /// One permit per sandbox, so that the pool never runs dry in the middle of a call.
    sandboxes: Arc<Semaphore>,
}

impl Runtime {
    /// A place for one more sandbox, kept for as long as the sandbox is. Waits for one.
    pub(super) async fn sandbox(&self) -> Result<OwnedSemaphorePermit, String> {
        // Nobody closes it.
        Arc::clone(&self.sandboxes).acquire_owned().await.map_err(|_| "there are no sandboxes any more".into())
    }
}

/// The process's runtime, made at the first use. The error is a sentence.
pub(in crate::hooks::engines) fn runtime() -> Result<&'static Runtime, String> {
    static RUNTIME: OnceLock<Result<Runtime, String>> = OnceLock::new();
    let start_pooled = || {
        let engine = Engine::new(&config(true)).or_else(|error| {
            // Address space may be limited (`ulimit -v`): then each sandbox is mapped when it is made, which is slower.
            tracing::warn!(error = %error, "no pool of sandboxes, hooks will be slower");
            Engine::new(&config(false))
        });
        start(engine, SANDBOXES_MAX)
    };
    RUNTIME.get_or_init(start_pooled).as_ref().map_err(Clone::clone)
}

/// A second one, without a pool, for what looks at all of a sandbox's memory: in the pool each page that was looked at makes
/// every later reset of its slot slower.
pub(in crate::hooks::engines) fn loading_runtime() -> Result<&'static Runtime, String> {
    static RUNTIME: OnceLock<Result<Runtime, String>> = OnceLock::new();
    let start_plain = || start(Engine::new(&config(false)), LOADING_MAX);
    RUNTIME.get_or_init(start_plain).as_ref().map_err(Clone::clone)
}

fn start(engine: wasmtime::Result<Engine>, sandboxes: u32) -> Result<Runtime, String> {
    let engine = engine.map_err(|error| format!("wasmtime cannot start: {error}"))?;
    let ticker = Ticker::start(engine.clone()).map_err(|error| format!("cannot start the epoch thread: {error}"))?;
    Ok(Runtime { engine, ticker, sandboxes: Arc::new(Semaphore::new(sandboxes as usize)) })
}

/// An engine that compiles for the server's own, in another process. What it makes does not depend on the pool.
pub(in crate::hooks::engines) fn compiler() -> Result<Engine, String> {
    Engine::new(&config(false)).map_err(|error| format!("wasmtime cannot start: {error}"))
}

fn config(pooled: bool) -> Config {
    let mut config = Config::new();
    config
        .wasm_component_model(true)
        .wasm_component_model_async(true)
        .epoch_interruption(true)
        .max_wasm_stack(STACK_BYTES)
        // The host's own frames run on the same stack, below the guest's.
        .async_stack_size(STACK_BYTES + (512 << 10))
        .memory_init_cow(true)
        // Backtraces of a trap cost time and name functions of the guest that authors of JavaScript never see.
        .wasm_backtrace_max_frames(None);
    if pooled {
        config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool()));
    }
    config
}

/// What stays resident is reset by copying instead of by the kernel: that halves the cost of a fresh sandbox
/// (design/facts.md), for at most these bytes per sandbox that was ever in use at once.
fn pool() -> PoolingAllocationConfig {
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(SANDBOXES_MAX)
        .total_core_instances(SANDBOXES_MAX * INSTANCES_PER_COMPONENT)
        .total_memories(SANDBOXES_MAX * MEMORIES_PER_COMPONENT)
        .total_tables(SANDBOXES_MAX * TABLES_PER_COMPONENT)
        // A call that waits inside another (settling after running) has a stack of its own.
        .total_stacks(SANDBOXES_MAX * 2)
        .max_memories_per_component(MEMORIES_PER_COMPONENT)
        .max_tables_per_component(TABLES_PER_COMPONENT)
        .max_core_instances_per_component(INSTANCES_PER_COMPONENT)
        .max_core_instance_size(4 << 20)
        .max_component_instance_size(4 << 20)
        .table_elements(TABLE_ELEMENTS)
        .max_unused_warm_slots(100)
        .linear_memory_keep_resident(MEMORY_KEPT_BYTES)
        .table_keep_resident(1 << 20)
        .async_stack_keep_resident(64 << 10)
        // The kernel's list of touched pages, where it has it (Linux 6.7).
        .pagemap_scan(Enabled::Auto);
    pool
}
