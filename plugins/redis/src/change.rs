//! Changes whose outcome is known even if connections break.
//!
//! A script that changes something also records the outcome under the id of the change. If no response arrives, the
//! driver reads that record over another connection. If there is none, the same step marks the change as void, so that
//! it has no effect if it reaches the server later. Then it is safe to retry.

use std::time::Duration;

use redis::{Cmd, Value, cmd, from_redis_value};
use snaphook_driver::{DriverError, ErrorKind, Result};
use tokio::time::{Instant, sleep_until};
use uuid::Uuid;

use crate::deadline::{COMMAND, Deadline};
use crate::failure::Failure;
use crate::pool::Pool;

/// How long the server remembers a change: much longer than a command can be in transit.
pub(crate) const REMEMBERED_SECONDS: u64 = 3600;

/// Pause between two attempts to find out the outcome of a change.
const PAUSE_MIN: Duration = Duration::from_millis(20);
const PAUSE_MAX: Duration = Duration::from_millis(500);

/// The record of a void change, and the result of a script that finds it.
const VOID: &str = "void";

/// `KEYS`: the record. `ARGV`: how long it is kept, in seconds.
const RESOLVE: &str = r"
local done = redis.call('GET', KEYS[1])
if done then return done end
redis.call('SET', KEYS[1], 'void', 'EX', ARGV[1])
return 'void'
";

/// Runs a script that changes something. `script` creates the command for the id of a change. The script returns its
/// record, or a text with another beginning if it changed nothing.
pub(crate) async fn change(
    pool: &Pool,
    operation: &'static str,
    record: impl Fn(&str) -> String,
    script: impl Fn(&str) -> Cmd,
) -> Result<String> {
    let deadline = Deadline::new();
    loop {
        let id = Uuid::now_v7().simple().to_string();
        let mut held = pool.take(operation, deadline).await?;
        pool.refuse_weak(operation, &mut held, deadline).await?;
        let lost = match held.call(&script(&id), deadline.step(COMMAND)).await {
            Ok(value) => {
                let result = text(pool, operation, value);
                held.give_back();
                return result;
            }
            Err(Failure::Lost(reason)) => reason,
            Err(failure) => return Err(held.fail(operation, failure)),
        };
        // Closes the connection and releases its permit before the outcome is queried.
        drop(held);
        match resolve(pool, operation, &record(&id), deadline).await {
            Ok(outcome) if outcome != VOID => return Ok(outcome),
            Ok(_) if deadline.is_over() => {
                let message = format!("nothing was changed: {lost}");
                return Err(pool.error(operation, ErrorKind::Unavailable, message));
            }
            Ok(_) => {}
            Err(error) => {
                let message =
                    format!("it is unknown whether the server made this change: {lost}; read the secret again");
                return Err(pool.error(operation, ErrorKind::Uncertain, message).because(error));
            }
        }
    }
}

/// Queries the outcome of a change until the deadline.
async fn resolve(pool: &Pool, operation: &'static str, record: &str, deadline: Deadline) -> Result<String> {
    let mut command = cmd("EVAL");
    command.arg(RESOLVE).arg(1).arg(record).arg(REMEMBERED_SECONDS);
    let mut pause = PAUSE_MIN;
    loop {
        let error = match resolve_once(pool, operation, &command, deadline).await {
            Ok(outcome) => return Ok(outcome),
            Err(error) => error,
        };
        if Instant::now() + pause >= deadline.end() {
            return Err(error);
        }
        sleep_until(Instant::now() + pause).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

async fn resolve_once(pool: &Pool, operation: &'static str, command: &Cmd, deadline: Deadline) -> Result<String> {
    let mut held = pool.take(operation, deadline).await?;
    match held.call(command, deadline.step(COMMAND)).await {
        Ok(value) => {
            held.give_back();
            text(pool, operation, value)
        }
        Err(failure) => Err(held.fail(operation, failure)),
    }
}

/// The text that a script returned.
fn text(pool: &Pool, operation: &'static str, value: Value) -> Result<String, DriverError> {
    from_redis_value(value).map_err(|_| {
        pool.error(operation, ErrorKind::Unexpected, "the server's response is not what the driver's script returns")
    })
}
