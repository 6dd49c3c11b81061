//! Identifies the caller and checks the operation: the only place where roles and models are compared with a request.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use futures::{Stream, StreamExt};
use hyper::header::{AUTHORIZATION, HeaderValue};
use snaphook_driver::time;
use snaphook_identity::DeniedKind;

use super::forwarded;
use super::needs::Needs;
use super::problem::{Problem, ProblemType, Result};
use super::query::shorten;
use super::request::Call;

/// Identifies the caller. 401 without a valid token, 403 if the operation, or the model in its path, is not allowed.
pub(super) async fn admit(call: &mut Call, needs: Needs) -> Result<()> {
    if needs == Needs::Anyone {
        return Ok(());
    }
    let address = counted_address(call);
    let header = header(call)?.map(HeaderValue::as_bytes);
    let identified = call.app.identity.identify(header, address, time::now()).await;
    // Failed attempts count, too.
    let known = identified.as_ref().ok().map(|caller| &**caller);
    if let Err(wait) = call.app.rate.check(known, address) {
        return Err(Problem::rate_limited(wait));
    }
    if needs == Needs::Guest && identified.as_ref().is_err_and(|denied| matches!(denied.kind(), DeniedKind::Missing)) {
        return Ok(());
    }
    let caller = identified.map_err(|denied| {
        tracing::debug!(%address, "a caller is not identified: {denied}");
        match denied.kind() {
            DeniedKind::Missing => Problem::new(
                ProblemType::Unauthorized,
                "no token was sent, expected the header `Authorization: Bearer <token>`",
            ),
            DeniedKind::Malformed => Problem::new(
                ProblemType::Unauthorized,
                "`Authorization` has no token of this server, expected `Bearer <token>`",
            ),
            DeniedKind::Refused => {
                Problem::new(ProblemType::Unauthorized, "the token is not valid: it is unknown, revoked or expired")
            }
            DeniedKind::Unavailable => {
                Problem::new(ProblemType::Unavailable, "the token cannot be checked now: its issuer does not respond")
            }
        }
    })?;
    // Also set for denied callers, because the audit log names them.
    let caller = call.caller.insert(caller);
    if let Some(role) = needs.role().filter(|role| caller.role < *role) {
        let problem = format!("this needs the role `{role}`, and the token has the role `{}`", caller.role);
        return Err(Problem::new(ProblemType::Forbidden, problem));
    }
    let caller = Arc::clone(caller);
    let model = call.param("model");
    match model.is_empty() || caller.may_read(model) {
        true => Ok(()),
        false => Err(of_other_models(model)),
    }
}

/// Counts a request without an identified caller.
pub(super) fn check_rate(call: &Call) -> Result<()> {
    call.app.rate.check(None, counted_address(call)).map_err(Problem::rate_limited)
}

/// The items of a stream as long as its caller is known: a token may be revoked, or expire, meanwhile.
pub(super) fn while_known<T: Send + 'static>(
    call: &Call,
    items: impl Stream<Item = T> + Send + 'static,
) -> Result<impl Stream<Item = T> + Send + 'static> {
    let caller = Arc::new((Arc::clone(&call.app), header(call)?.cloned(), counted_address(call)));
    Ok(items.scan(caller, |caller, item| {
        let caller = Arc::clone(caller);
        async move {
            let (app, header, address) = &*caller;
            let header = header.as_ref().map(HeaderValue::as_bytes);
            app.identity.identify(header, *address, time::now()).await.ok().map(|_| item)
        }
    }))
}

fn header(call: &Call) -> Result<Option<&HeaderValue>> {
    let mut headers = call.head.headers.get_all(AUTHORIZATION).iter();
    let header = headers.next();
    match headers.next() {
        None => Ok(header),
        Some(_) => Err(Problem::bad_request("the header `authorization` is set twice, expected one")),
    }
}

/// The address that identifies a caller without a token: all clients of a Unix socket count as one.
fn counted_address(call: &Call) -> IpAddr {
    address(call).unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST))
}

/// The client's address, behind trusted proxies; a Unix socket has none.
pub(super) fn address(call: &Call) -> Option<IpAddr> {
    let config = call.app.config.load();
    let connection = call.memory.share().0.origin().address;
    forwarded::client_address(connection, &call.head.headers, &config.server.trusted_proxies)
}

/// Whether the caller may read a model that is named outside of the path.
pub(super) fn check_model(call: &Call, model: &str) -> Result<()> {
    match may_read(call, model) {
        true => Ok(()),
        false => Err(of_other_models(model)),
    }
}

/// Whether the caller may read a model; an unidentified caller may not.
pub(super) fn may_read(call: &Call, model: &str) -> bool {
    call.caller.as_ref().is_some_and(|caller| caller.may_read(model))
}

fn of_other_models(model: &str) -> Problem {
    Problem::new(ProblemType::Forbidden, format!("the token is for other models than `{}`", shorten(model)))
}
