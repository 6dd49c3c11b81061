//! The host's side of runner/runner.wit: what JavaScript asks for, brought to the session.

use std::time::Duration;

use wasmtime::component::{FutureReader, Linker};
use wasmtime::{Result, StoreContextMut};

use crate::hooks::context::Failure;
use crate::hooks::engines::javascript::{Digits, asks, web};
use crate::hooks::engines::wasm::{State, capability, fatal};
use crate::hooks::session::HostError;

/// What a JavaScript sandbox keeps beside what every sandbox keeps.
#[derive(Default)]
pub(super) struct Extra {
    /// The numbers that JavaScript changed in what it was given in this call.
    pub(super) digits: Digits,
    /// Whether the runner has the hook's source.
    pub(super) loaded: bool,
}

type Store<'a> = StoreContextMut<'a, State<Extra>>;

pub(super) fn link(linker: &mut Linker<State<Extra>>) -> Result<()> {
    let mut host = linker.instance("snaphook:runner/host")?;
    host.func_wrap("log", |store: Store<'_>, (level, message): (u8, String)| {
        store.data().write_log(asks::log_level(level), message)
    })?;
    host.func_wrap_async("ask", |mut store: Store<'_>, (operation, arguments): (String, String)| {
        Box::new(async move { Ok((ask(&mut store, &operation, &arguments).await?,)) })
    })?;
    host.func_wrap_async("send", |store: Store<'_>, (request, body): (String, Vec<u8>)| {
        let sent = ending(&store, async move |session| asks::send(&session, &request, body).await);
        Box::new(async move { Ok((sent.await?,)) })
    })?;
    host.func_wrap_async("execute", |store: Store<'_>, (command, stdin): (String, Vec<u8>)| {
        let ran = ending(&store, async move |session| asks::execute(&session, &command, stdin).await);
        Box::new(async move { Ok((ran.await?,)) })
    })?;
    host.func_wrap("url", |_: Store<'_>, (arguments,): (String,)| Ok((web::url(&arguments).unwrap_or_default(),)))?;
    host.func_wrap("digest", |_: Store<'_>, (algorithm, data): (String, Vec<u8>)| {
        Ok((web::digest(&algorithm, &data),))
    })?;
    host.func_wrap("random", |_: Store<'_>, (count,): (u32,)| {
        let bytes = web::random(count).ok_or_else(|| wasmtime::format_err!("the system gives no random numbers"))?;
        Ok((bytes,))
    })?;
    host.func_wrap("encode", |_: Store<'_>, (text,): (String,)| Ok((text.into_bytes(),)))?;
    host.func_wrap("decode", |_: Store<'_>, (data, fatal): (Vec<u8>, bool)| Ok((web::decode(data, fatal),)))?;
    host.func_wrap("wait", |mut store: Store<'_>, (milliseconds,): (u32,)| {
        let session = store.data().session_for_sleep()?;
        let wait = async move {
            let slept = session.sleep(Duration::from_millis(milliseconds.into())).await;
            slept.map(|()| 0_u32).map_err(fatal)
        };
        Ok((FutureReader::new(&mut store, wait)?,))
    })?;
    Ok(())
}

async fn ask(store: &mut Store<'_>, operation: &str, arguments: &str) -> Result<String> {
    let mut digits = std::mem::take(&mut store.data_mut().extra.digits);
    let asked = ending(store, async |session| asks::ask(&session, &mut digits, operation, arguments).await).await;
    store.data_mut().extra.digits = digits;
    asked
}

/// Runs one call; a failure ends the guest.
fn ending<T, C>(store: &Store<'_>, call: C) -> impl Future<Output = Result<T>> + use<T, C>
where
    C: AsyncFnOnce(std::sync::Arc<crate::hooks::session::Session>) -> std::result::Result<T, Failure>,
{
    let called = capability(store.data(), async move |session| call(session).await.map_err(HostError::Fatal));
    async move { called.await?.map_err(|error| fatal(HostError::Access(error))) }
}
