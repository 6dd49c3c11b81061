//! Who calls, and whether an operation is for them: the one place where roles and models are compared with a request.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use hyper::header::{AUTHORIZATION, HeaderValue};
use snaphook_driver::time;
use snaphook_identity::{Caller, Denied, DeniedKind, Role};

use super::app::App;
use super::forwarded;
use super::problem::{Problem, ProblemType, Result};
use super::query::shorten;
use super::request::Call;

/// What an operation asks of its caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Needs {
    /// Nothing: no token is looked at.
    Anyone,
    Reader,
    Writer,
    Admin,
}

impl Needs {
    fn role(self) -> Option<Role> {
        match self {
            Needs::Anyone => None,
            Needs::Reader => Some(Role::Reader),
            Needs::Writer => Some(Role::Writer),
            Needs::Admin => Some(Role::Admin),
        }
    }
}

/// Notes who calls. 401 for who cannot say, 403 for whom the operation, or the model in its path, is not.
pub(super) async fn admit(call: &mut Call, needs: Needs) -> Result<()> {
    let Some(role) = needs.role() else { return Ok(()) };
    let asker = Asker::of(call)?;
    let address = asker.address;
    let identified = asker.identify().await;
    // Who guesses is counted, too.
    let known = identified.as_ref().ok().map(|caller| &**caller);
    if let Err(wait) = call.app.rate.check(known, address) {
        return Err(Problem::rate_limited(wait));
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
                Problem::new(ProblemType::Unavailable, "the token cannot be checked now: its issuer does not answer")
            }
        }
    })?;
    if caller.role < role {
        tracing::info!(%address, "denied: {} {} for `{}`", call.head.method, shorten(call.head.uri.path()), caller.actor.id);
        return Err(Problem::new(
            ProblemType::Forbidden,
            format!("this needs the role `{role}`, and the token has the role `{}`", caller.role),
        ));
    }
    let model = call.param("model");
    if !model.is_empty() && !caller.may_read(model) {
        return Err(of_other_models(model));
    }
    call.caller = Some(caller);
    Ok(())
}

/// Who asks, for as long as the answer takes: a token may be revoked, or expire, while a stream goes on.
pub(super) struct Asker {
    app: Arc<App>,
    header: Option<HeaderValue>,
    address: IpAddr,
}

impl Asker {
    pub(super) fn of(call: &Call) -> Result<Asker> {
        let address = {
            let config = call.app.config.load();
            let connection = call.memory.share().0.origin().address;
            let client = forwarded::client_address(connection, &call.head.headers, &config.server.trusted_proxies);
            // Of a Unix socket there is none; all its clients count as one.
            client.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST))
        };
        let mut headers = call.head.headers.get_all(AUTHORIZATION).iter();
        let header = headers.next().cloned();
        if headers.next().is_some() {
            return Err(Problem::bad_request("the header `authorization` is there twice, expected one"));
        }
        Ok(Asker { app: Arc::clone(&call.app), header, address })
    }

    pub(super) async fn identify(&self) -> std::result::Result<Arc<Caller>, Denied> {
        let header = self.header.as_ref().map(HeaderValue::as_bytes);
        self.app.identity.identify(header, self.address, time::now()).await
    }
}

/// Whether the caller may read a model that is named elsewhere than in the path.
pub(super) fn check_model(call: &Call, model: &str) -> Result<()> {
    match may_read(call, model) {
        true => Ok(()),
        false => Err(of_other_models(model)),
    }
}

/// Whether the caller may read a model; nobody that is not identified may.
pub(super) fn may_read(call: &Call, model: &str) -> bool {
    call.caller.as_ref().is_some_and(|caller| caller.may_read(model))
}

fn of_other_models(model: &str) -> Problem {
    Problem::new(ProblemType::Forbidden, format!("the token is for other models than `{}`", shorten(model)))
}
