//! One parsed entry of `http` in a grant, `[METHOD ]URL` with `*`. It is only parsed here, so that the check of the
//! configuration and the check of a request agree.

use url::Url;

/// The parts of a pattern; each may contain `*`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpPattern {
    /// `None`: all.
    pub method: Option<String>,
    /// `http` or `https`.
    pub scheme: String,
    /// In the form of URLs: lower case, international names in ASCII.
    pub host: String,
    /// `None`: any port.
    pub port: Option<u16>,
    pub path: String,
    /// `None`: any query.
    pub query: Option<String>,
}

impl HttpPattern {
    /// Parses a pattern. The error continues "is …, expected"; it never contains the pattern, which may contain a
    /// password.
    pub fn parse(text: &str) -> Result<HttpPattern, String> {
        let (method, url) = match text.split_once(' ') {
            Some((method, url)) => (Some(check_method(method)?), url.trim_start()),
            None => (None, text),
        };
        let Some(rest) = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://")) else {
            return Err("a URL that starts with `https://` or `http://`".to_owned());
        };
        let authority_end = url.len() - rest.len() + rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, tail) = url.split_at(authority_end);
        if authority.contains('@') {
            return Err(
                "a URL without a user name or password; the hook can send a header with `{{secret:NAME}}`".into()
            );
        }
        let bare = authority.strip_suffix(":*");
        let parsed = Url::parse(&format!("{}{tail}", bare.unwrap_or(authority)))
            .map_err(|error| format!("another URL, since this is not a valid URL: {error}"))?;
        if parsed.fragment().is_some() {
            return Err("a URL without `#`, which is never sent".to_owned());
        }
        let host = parsed.host_str().unwrap_or_default().to_owned();
        if host.is_empty() {
            return Err("a URL with a host".to_owned());
        }
        if host != "*" && host.rsplit('.').next().is_some_and(|label| label.contains('*')) {
            return Err(
                "a host that does not end with `*`: at the end of the host it would match hosts of anybody".into()
            );
        }
        Ok(HttpPattern {
            method,
            scheme: parsed.scheme().to_owned(),
            host,
            port: if bare.is_some() { None } else { parsed.port_or_known_default() },
            path: parsed.path().to_owned(),
            query: parsed.query().map(str::to_owned),
        })
    }
}

/// Converts a method to upper case, as it is compared with requests; rejects methods that hooks can never use.
fn check_method(method: &str) -> Result<String, String> {
    if method.is_empty() || !method.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'-') {
        return Err("an HTTP method in capitals before the URL".to_owned());
    }
    if matches!(method, "CONNECT" | "TRACE" | "TRACK") {
        return Err(format!("another method than {method}, which no hook may use"));
    }
    Ok(method.to_owned())
}
