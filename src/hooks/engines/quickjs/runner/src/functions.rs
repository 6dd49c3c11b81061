//! The JavaScript functions that host.js makes the way to the server of.

use rquickjs::convert::Coerced;
use rquickjs::{Ctx, Error, Function, Object, Result, String as JsString, TypedArray, Value};

use crate::host::{self, Computation};
use crate::quickjs::{Bytes, Text};

/// An object of them all.
pub(crate) fn object<'js>(ctx: &Ctx<'js>) -> Result<Object<'js>> {
    let functions = Object::new(ctx.clone())?;
    functions
        .set("log", Function::new(ctx.clone(), |level: Coerced<i32>, text: Text| host::log(*level, text.bytes()))?)?;
    functions.set("observe", Function::new(ctx.clone(), |what: Coerced<i32>| host::observe(*what as u32))?)?;
    functions.set("random", Function::new(ctx.clone(), random)?)?;
    functions.set("url", Function::new(ctx.clone(), url)?)?;
    functions.set("digest", Function::new(ctx.clone(), digest)?)?;
    functions.set("encode", Function::new(ctx.clone(), encode)?)?;
    functions.set("decode", Function::new(ctx.clone(), decode)?)?;
    functions.set("ask", Function::new(ctx.clone(), ask)?)?;
    functions.set("start", Function::new(ctx.clone(), start)?)?;
    functions.set("cancel", Function::new(ctx.clone(), |call: Coerced<i32>| host::cancel(*call as u32))?)?;
    functions.set("join", Function::new(ctx.clone(), join)?)?;
    Ok(functions)
}

fn random<'js>(ctx: Ctx<'js>, length: Coerced<i32>) -> Result<TypedArray<'js, u8>> {
    TypedArray::new(ctx, host::random(*length as u32 as usize)?)
}

fn url<'js>(ctx: Ctx<'js>, arguments: Text) -> Result<Value<'js>> {
    host::compute(Computation::Url, arguments.bytes(), &[]);
    text_part(&ctx)
}

fn digest<'js>(ctx: Ctx<'js>, algorithm: Text, data: Bytes<'js>) -> Result<TypedArray<'js, u8>> {
    data.read(|bytes| host::compute(Computation::Digest, algorithm.bytes(), bytes));
    bytes_part(&ctx, 1)
}

fn encode<'js>(ctx: Ctx<'js>, text: Text) -> Result<TypedArray<'js, u8>> {
    TypedArray::new_copy(ctx, text.bytes())
}

/// Undefined if the bytes are malformed and must not be.
fn decode<'js>(ctx: Ctx<'js>, data: Bytes<'js>, fatal: Coerced<bool>) -> Result<Value<'js>> {
    let computation = if *fatal { Computation::DecodeFatal } else { Computation::Decode };
    data.read(|bytes| host::compute(computation, &[], bytes));
    text_part(&ctx)
}

fn ask<'js>(ctx: Ctx<'js>, call: Text) -> Result<Value<'js>> {
    host::ask(call.bytes());
    text_part(&ctx)
}

fn start(operation: Coerced<i32>, text: Text, data: Bytes<'_>) -> u32 {
    data.read(|bytes| host::start(*operation as u32, text.bytes(), bytes))
}

/// Waits for that call alone.
fn join<'js>(ctx: Ctx<'js>, call: Coerced<i32>, arrived: Function<'js>) -> Result<()> {
    match host::wait(Some(*call as u32), -1.0) {
        Some(call) => deliver(&ctx, &arrived, call),
        None => Ok(()),
    }
}

/// Gives `arrived(call, text, bytes, bytes)` what a started call answered.
pub(crate) fn deliver<'js>(ctx: &Ctx<'js>, arrived: &Function<'js>, call: u32) -> Result<()> {
    arrived.call((call, text_part(ctx)?, bytes_part(ctx, 1)?, bytes_part(ctx, 2)?))
}

/// The text of the last answer; undefined if there is none.
fn text_part<'js>(ctx: &Ctx<'js>) -> Result<Value<'js>> {
    let Some(bytes) = host::part(0)? else { return Ok(Value::new_undefined(ctx.clone())) };
    let text = core::str::from_utf8(&bytes).map_err(Error::from)?;
    Ok(JsString::from_str(ctx.clone(), text)?.into_value())
}

/// Bytes of the last answer.
fn bytes_part<'js>(ctx: &Ctx<'js>, part: u32) -> Result<TypedArray<'js, u8>> {
    TypedArray::new(ctx.clone(), host::part(part)?.unwrap_or_default())
}
