//! What rquickjs has no safe form for: bytecode, texts and bytes as QuickJS holds them, sources that are not copied first.

#![expect(unsafe_code, reason = "the C interface of QuickJS")]

use alloc::vec::Vec;
use core::ffi::{CStr, c_int};
use core::ptr::NonNull;

use rquickjs::{Ctx, Error, FromJs, Result, TypedArray, Value, qjs};

use crate::heap;

/// What QuickJS parses in place: it wants a 0 behind the last byte.
#[derive(Clone, Copy)]
pub(crate) struct Source<'a>(&'a [u8]);

impl<'a> Source<'a> {
    /// Of bytes that end with a 0.
    pub(crate) fn new(bytes: &'a [u8]) -> Option<Source<'a>> {
        bytes.split_last().filter(|(last, _)| **last == 0).map(|(_, source)| Source(source))
    }
}

/// What [`compile`] made of a script.
#[derive(Clone, Copy)]
pub(crate) struct Bytecode<'a>(&'a [u8]);

impl<'a> Bytecode<'a> {
    /// # Safety
    ///
    /// QuickJS believes bytecode: it is what [`compile`] gave, in this module or in another instance of it.
    pub(crate) const unsafe fn new(bytes: &'a [u8]) -> Bytecode<'a> {
        Bytecode(bytes)
    }
}

/// What a script is compiled for.
#[derive(Clone, Copy)]
pub(crate) enum Purpose {
    /// Our scripts: strict, and without their source, which nobody asks for.
    Runner,
    /// A hook's source, which says for itself whether it is strict.
    Hook,
}

/// The bytecode of a script.
pub(crate) fn compile(ctx: &Ctx<'_>, source: Source<'_>, purpose: Purpose) -> Result<Vec<u8>> {
    let (name, eval_flags, write_flags): (&CStr, _, _) = match purpose {
        Purpose::Runner => (c"<runner>", qjs::JS_EVAL_FLAG_STRICT, qjs::JS_WRITE_OBJ_STRIP_SOURCE),
        Purpose::Hook => (c"<input>", 0, 0),
    };
    let eval_flags = qjs::JS_EVAL_TYPE_GLOBAL | qjs::JS_EVAL_FLAG_COMPILE_ONLY | eval_flags;
    let raw = ctx.as_raw().as_ptr();
    // SAFETY: a source has a 0 behind it (`Source`); the name is a C string.
    let program = owned(ctx, unsafe {
        qjs::JS_Eval(raw, source.0.as_ptr().cast(), size(source.0), name.as_ptr(), eval_flags as c_int)
    })?;
    let mut length = 0;
    let flags = (qjs::JS_WRITE_OBJ_BYTECODE | write_flags) as c_int;
    // SAFETY: the program is a value of this context.
    let bytes = unsafe { qjs::JS_WriteObject(raw, &mut length, program.as_raw(), flags) };
    if bytes.is_null() {
        return Err(Error::Exception);
    }
    // SAFETY: QuickJS gave so many bytes, which are ours to free.
    Ok(unsafe {
        let copy = core::slice::from_raw_parts(bytes, length as usize).to_vec();
        qjs::js_free(raw, bytes.cast());
        copy
    })
}

/// The value of a script.
pub(crate) fn evaluate<'js>(ctx: &Ctx<'js>, Bytecode(bytes): Bytecode<'_>) -> Result<Value<'js>> {
    let raw = ctx.as_raw().as_ptr();
    // SAFETY: it is bytecode (`Bytecode::new`), and only read.
    let program = unsafe { qjs::JS_ReadObject(raw, bytes.as_ptr(), size(bytes), qjs::JS_READ_OBJ_BYTECODE as c_int) };
    // SAFETY: it only looks at the tag.
    if unsafe { qjs::JS_IsException(program) } {
        return Err(Error::Exception);
    }
    // SAFETY: it takes the program, a value of this context.
    owned(ctx, unsafe { qjs::JS_EvalFunction(raw, program) })
}

pub(crate) fn parse_json<'js>(ctx: &Ctx<'js>, text: Source<'_>) -> Result<Value<'js>> {
    // SAFETY: a source has a 0 behind it (`Source`); the name is a C string.
    owned(ctx, unsafe {
        let raw = ctx.as_raw().as_ptr();
        qjs::JS_ParseJSON(raw, text.0.as_ptr().cast(), size(text.0), c"<context>".as_ptr())
    })
}

/// A value that QuickJS gave to us.
fn owned<'js>(ctx: &Ctx<'js>, value: qjs::JSValue) -> Result<Value<'js>> {
    // SAFETY: only the functions above call this, each with the new value that it got in this context.
    let value = unsafe { Value::from_raw(ctx.clone(), value) };
    if value.is_exception() { Err(Error::Exception) } else { Ok(value) }
}

fn size(bytes: &[u8]) -> qjs::size_t {
    bytes.len() as qjs::size_t
}

/// A text of JavaScript as UTF-8; a surrogate without its other half is encoded like any character. QuickJS holds it.
pub(crate) struct Text {
    pointer: NonNull<u8>,
    length: usize,
    /// The runner's one context, which is never freed.
    context: NonNull<qjs::JSContext>,
}

impl Text {
    pub(crate) fn bytes(&self) -> &[u8] {
        // SAFETY: QuickJS gave so many bytes, and frees them when this is dropped.
        unsafe { core::slice::from_raw_parts(self.pointer.as_ptr(), self.length) }
    }
}

impl Drop for Text {
    fn drop(&mut self) {
        // SAFETY: JS_ToCStringLen gave it in this context, which is still there.
        unsafe { qjs::JS_FreeCString(self.context.as_ptr(), self.pointer.as_ptr().cast()) }
    }
}

/// Whatever is no text becomes one, as in JavaScript.
impl<'js> FromJs<'js> for Text {
    fn from_js(ctx: &Ctx<'js>, value: Value<'js>) -> Result<Text> {
        let context = ctx.as_raw();
        let mut length = 0;
        // SAFETY: the value is one of this context.
        let pointer = unsafe { qjs::JS_ToCStringLen(context.as_ptr(), &mut length, value.as_raw()) };
        let pointer = NonNull::new(pointer.cast_mut().cast()).ok_or(Error::Exception)?;
        Ok(Text { pointer, length: length as usize, context })
    }
}

/// The bytes of a `Uint8Array`, and none for anything else.
pub(crate) struct Bytes<'js>(Option<TypedArray<'js, u8>>);

impl<'js> FromJs<'js> for Bytes<'js> {
    fn from_js(_: &Ctx<'js>, value: Value<'js>) -> Result<Bytes<'js>> {
        Ok(Bytes(value.into_object().and_then(|object| TypedArray::from_object(object).ok())))
    }
}

impl Bytes<'_> {
    /// Gives the bytes to `read`.
    pub(crate) fn read<R>(&self, read: impl FnOnce(&[u8]) -> R) -> R {
        let Some(array) = &self.0 else { return read(&[]) };
        // SAFETY: no JavaScript runs meanwhile: what is called with the bytes is a function of host.rs.
        read(unsafe { array.as_bytes() }.unwrap_or_default())
    }
}

/// What tells an object from all others for as long as it lives.
pub(crate) fn identity(object: &Value<'_>) -> usize {
    // SAFETY: where the object is; nobody follows the pointer.
    unsafe { qjs::JS_VALUE_GET_PTR(object.as_raw()) as usize }
}

/// Whether something is left to promises.
pub(crate) fn has_jobs(ctx: &Ctx<'_>) -> bool {
    // SAFETY: a context has a runtime, which is only looked at.
    unsafe { qjs::JS_IsJobPending(qjs::JS_GetRuntime(ctx.as_raw().as_ptr())) }
}

/// Fills what QuickJS's own allocator has begun to fill, and begins anew, so that what a call allocates lies together. That
/// allocator takes small blocks from a page of its own for each size; when it comes to the heap, no page had room.
pub(crate) fn begin_new_pages(ctx: &Ctx<'_>) {
    const SMALL_MAX: qjs::size_t = 504;
    const STEP: usize = 8;
    let raw = ctx.as_raw().as_ptr();
    let sizes = || (STEP as qjs::size_t..=SMALL_MAX).step_by(STEP);
    for size in sizes() {
        loop {
            let before = heap::blocks_handed_out();
            // SAFETY: any size may be asked for. What is not freed fills its page for good.
            let block = unsafe { qjs::js_malloc(raw, size) };
            if block.is_null() || heap::blocks_handed_out() != before {
                // SAFETY: js_malloc gave it. Its page goes too: nothing else is in it.
                unsafe { qjs::js_free(raw, block) };
                break;
            }
        }
    }
    // One block of each size keeps its new page.
    for size in sizes() {
        // SAFETY: any size may be asked for.
        unsafe { qjs::js_malloc(raw, size) };
    }
}
