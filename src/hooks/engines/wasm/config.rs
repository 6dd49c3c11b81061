//! The process's wasmtime engine. It is created when the first hook is prepared, because its pool of sandboxes needs
//! address space and some memory, which a server without hooks does not have to spend.

use std::sync::{Arc, OnceLock};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use wasmtime::{Config, Enabled, Engine, InstanceAllocationStrategy, PoolingAllocationConfig};

use super::ticker::Ticker;

/// Part of cache keys, in addition to wasmtime's own hash of version and settings.
pub(super) const ENGINE_NAME: &str = "wasmtime-48";

/// How many sandboxes may exist at once, running or idle. Beyond that, a call waits for one to end.
const SANDBOXES_MAX: u32 = 512;

/// How many sandboxes of [`loading_runtime`] may exist at once.
const LOADING_MAX: u32 = 8;

/// Core memories, tables and instances inside one component. The pool has this many for every sandbox, so a hook that
/// uses the maximum never takes them from another.
const MEMORIES_PER_COMPONENT: u32 = 4;
const TABLES_PER_COMPONENT: u32 = 8;
const INSTANCES_PER_COMPONENT: u32 = 32;

/// Elements of one table: QuickJS has 500; a large Go or C# program has some tens of thousands.
const TABLE_ELEMENTS: usize = 100_000;

/// How much of each memory stays resident. After a call that used much memory, every later reset checks this many
/// bytes; with 1 MiB, small calls after large ones are quickest.
const MEMORY_KEPT_BYTES: usize = 1 << 20;

/// Stack of the guest's code. QuickJS's own recursion limit is lower, so that JavaScript gets a RangeError.
const STACK_BYTES: usize = 1 << 20;

/// The engine with its clock and permits.
pub(in crate::hooks::engines) struct Runtime {
    pub(in crate::hooks::engines) engine: Engine,
    pub(super) ticker: Ticker,
    /// One permit per sandbox, so that the pool is never exhausted in the middle of a call.
    sandboxes: Arc<Semaphore>,
}

impl Runtime {
    /// Waits for a permit for one more sandbox, to be kept as long as the sandbox.
    pub(super) async fn sandbox(&self) -> Result<OwnedSemaphorePermit, String> {
        // The semaphore is never closed.
        Arc::clone(&self.sandboxes).acquire_owned().await.map_err(|_| "there are no sandboxes any more".into())
    }
}

/// The process's runtime, created on first use. The error is a sentence.
pub(in crate::hooks::engines) fn runtime() -> Result<&'static Runtime, String> {
    static RUNTIME: OnceLock<Result<Runtime, String>> = OnceLock::new();
    let start_pooled = || {
        let engine = Engine::new(&config(true)).or_else(|error| {
            // Address space may be limited (`ulimit -v`): then each sandbox is mapped when it is created, which is
            // slower.
            tracing::warn!(error = %error, "no pool of sandboxes, hooks will be slower");
            Engine::new(&config(false))
        });
        start(engine, SANDBOXES_MAX)
    };
    RUNTIME.get_or_init(start_pooled).as_ref().map_err(Clone::clone)
}

/// A second runtime without a pool, for code that reads all of a sandbox's memory: in the pool, each page that was read
/// makes every later reset of its slot slower.
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

/// An engine that compiles for the server's engine in another process. Its output does not depend on the pool.
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
        // Backtraces of traps take time and name functions of the guest that authors of JavaScript never see.
        .wasm_backtrace_max_frames(None);
    if pooled {
        config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool()));
    }
    config
}

/// Resident memory is reset by copying instead of by the kernel. This halves the cost of a new sandbox
/// (design/facts.md), and keeps at most this many bytes for each sandbox that was ever in use at once.
fn pool() -> PoolingAllocationConfig {
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(SANDBOXES_MAX)
        .total_core_instances(SANDBOXES_MAX * INSTANCES_PER_COMPONENT)
        .total_memories(SANDBOXES_MAX * MEMORIES_PER_COMPONENT)
        .total_tables(SANDBOXES_MAX * TABLES_PER_COMPONENT)
        // A call that waits inside another (settling after running) has its own stack.
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
        // Uses the kernel's list of touched pages, where supported (Linux 6.7).
        .pagemap_scan(Enabled::Auto);
    pool
}
