//! Finds the grants that a webhook needs and lacks. Everything that it will request is known in advance, so one message
//! names all of it.

use snaphook_identity::glob::any_matches;

use crate::catalog::Webhook;
use crate::hooks::capabilities::http::lacks_post;
use crate::hooks::grants::{Capability, Granted, toml_string};

/// The denial for a webhook whose grants do not cover its URL or its secret, with the missing lines; `None` if nothing
/// is missing.
pub fn lacks(granted: &Granted, webhook: &Webhook) -> Option<String> {
    let name = &webhook.secret;
    let url = lacks_post(granted, &webhook.url);
    let secret = (!any_matches(&granted.secret, name)).then(|| format!("[{}]", toml_string(name)));
    // The lines that follow contain the path anyway.
    let asked_url = format!("http POST to `{}`", webhook.url.split('?').next().unwrap_or_default());
    let asked_secret = format!("secret `{name}`");
    let (asked, lines) = match (url, secret) {
        (None, None) => return None,
        (Some(url), None) => (asked_url, granted.lines(Capability::Http, &url)),
        (None, Some(secret)) => (asked_secret, granted.lines(Capability::Secret, &secret)),
        (Some(url), Some(secret)) => {
            let lines = granted.lines(Capability::Http, &url);
            (format!("{asked_url} and {asked_secret}"), format!("{lines}\nsecret = {secret}"))
        }
    };
    Some(format!("{} asked for {asked}, which no grant opens{lines}", granted.grantee()))
}
