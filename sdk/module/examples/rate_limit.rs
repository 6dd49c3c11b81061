//! A module that allows each address `requests` requests within `seconds`, and responds with 429 beyond that.
//!
//! `cargo build -p snaphook-module --example module_rate_limit`; settings: `config = { requests = 100, seconds = 60 }`.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use snaphook_module::{Answer, Config, Exchange, Hooks, Host, Module, RequestHandler, Side, Text};

/// Maximum number of stored addresses. When it is reached all are cleared, to limit memory.
const ADDRESSES_MAX: usize = 100_000;

#[derive(Clone, Copy)]
struct Limit {
    requests: u32,
    within: Duration,
}

struct RateLimit {
    limit: Mutex<Limit>,
    /// The start of an address's interval, and its requests since then.
    seen: Arc<Mutex<HashMap<String, (Instant, u32)>>>,
}

fn limit(config: &Config<'_>) -> Result<Limit, String> {
    let number = |key: &str, default: &str| {
        let text = config.get(key).unwrap_or(default);
        text.parse().map_err(|_| format!("`{key}` is `{text}`, expected a whole number"))
    };
    Ok(Limit { requests: number("requests", "100")?, within: Duration::from_secs(number("seconds", "60")?.into()) })
}

impl Module for RateLimit {
    type Connection = ();
    type Request = Counted;
    const HOOKS: Hooks = Hooks::BEFORE_REQUEST.and(Hooks::REQUEST_ERROR);

    fn activate(_: Host, config: &Config<'_>) -> Result<Self, String> {
        Ok(RateLimit { limit: Mutex::new(limit(config)?), seen: Arc::default() })
    }

    fn config_change(&self, config: &Config<'_>) -> Result<(), String> {
        *self.limit.lock().unwrap_or_else(PoisonError::into_inner) = limit(config)?;
        Ok(())
    }

    fn request(&self, _: Option<&()>, _: &mut Exchange<'_>) -> Counted {
        let limit = *self.limit.lock().unwrap_or_else(PoisonError::into_inner);
        Counted { limit, seen: Arc::clone(&self.seen), wait: None }
    }
}

struct Counted {
    limit: Limit,
    seen: Arc<Mutex<HashMap<String, (Instant, u32)>>>,
    /// Time until the address may send requests again.
    wait: Option<Duration>,
}

impl RequestHandler for Counted {
    fn before_request(&mut self, exchange: &mut Exchange<'_>) -> Answer {
        let peer = exchange.text(Text::Peer);
        let address = peer.rsplit_once(':').map_or(peer, |(address, _)| address).to_owned();
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.len() >= ADDRESSES_MAX {
            seen.clear();
        }
        let (since, count) = seen.entry(address).or_insert((Instant::now(), 0));
        if since.elapsed() > self.limit.within {
            (*since, *count) = (Instant::now(), 0);
        }
        *count += 1;
        if *count <= self.limit.requests {
            return Answer::Declined;
        }
        self.wait = Some(self.limit.within.saturating_sub(since.elapsed()));
        Answer::Status(429)
    }

    fn request_error(&mut self, exchange: &mut Exchange<'_>, _: u16) -> Answer {
        if let Some(wait) = self.wait {
            exchange.set_header(Side::Response, "retry-after", (wait.as_secs() + 1).to_string());
        }
        Answer::Declined
    }
}

snaphook_module::export_module!("rate-limit", RateLimit);
