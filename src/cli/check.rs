//! `snaphook check`: checks the configuration, and does nothing else.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::Value;
use sha2::{Digest, Sha256};
use snaphook_identity::glob::matches;

use super::client::{Client, path};
use super::failure::{Failure, Result};
use super::global::Global;
use super::runtime::block_on;
use super::{apply, output};
use crate::catalog::files::{self, CodeFile, ModelFiles};
use crate::catalog::{Webhook, free_hook_name};
use crate::config::{Config, FILE_DEFAULT, Grant, GrantTarget, MountAddress};
use crate::hooks::engines::webhook_lacks;
use crate::hooks::grants::{Granted, Grantee, HookId};

pub(super) fn check(global: &Global) -> Result<()> {
    let config = global.config()?;
    if config.hooks.apply {
        apply::check_folder(&config)?;
        let models = files::read_directory(&config.hooks.directory).map_err(|errors| {
            let lines: Vec<_> = errors.iter().map(ToString::to_string).collect();
            Failure::new(format!("the files that would be applied at start have faults:\n{}", lines.join("\n")))
        })?;
        apply::left_out(&config.hooks.directory, models.len()).iter().for_each(output::warn);
        let count = output::counted(models.len(), "model");
        output::line(format!("{}: {count} applied at start", config.hooks.directory.display()))?;
    }
    let grants = match config.grants.len() {
        0 => "no grants".to_owned(),
        1 => "1 grant".to_owned(),
        count => format!("{count} grants"),
    };
    for warning in warnings(global, &config)? {
        output::line(format!("warning: {warning}"))?;
    }
    let what = match &config.file {
        Some(_) => format!("{} is fine", config.name()),
        None => format!("no {FILE_DEFAULT} here, the defaults are fine"),
    };
    let place = match &config.server.mount_address {
        MountAddress::Tcp(_) => config.url(),
        unix => unix.to_string(),
    };
    output::line(format!("{what}: serves at {place}, {grants}"))
}

/// The things of a server that grants can refer to.
#[derive(Default)]
struct Known {
    models: BTreeSet<String>,
    /// Model and name.
    hooks: BTreeSet<(String, String)>,
    secrets: BTreeSet<String>,
}

/// Grants that have no effect because of a name in them. Only a running server knows all models, hooks and secrets.
fn warnings(global: &Global, config: &Config) -> Result<Vec<String>> {
    let mut warnings = Vec::new();
    for grant in &config.grants {
        for process in grant.process.iter().filter(|process| !process.program.is_file()) {
            let program = process.program.display();
            warnings.push(at(grant, &format!("there is no program `{program}`")));
        }
    }
    // Models in files will exist soon.
    let models = files::read_directory(&config.hooks.directory).unwrap_or_default();
    let webhooks = webhooks(&models);
    let config = Arc::new(config.clone());
    for (hook, webhook) in &webhooks {
        warnings.extend(webhook_lacks(&Granted::resolve(&config, Grantee::Hook(Arc::clone(hook))), webhook));
    }
    let mut known = None;
    if !config.grants.is_empty() || !webhooks.is_empty() {
        block_on(async {
            let client = global.client()?;
            // Without a server nothing is known, so nothing is reported.
            known = ask(&client).await.ok();
            Ok(())
        })?;
    }
    let Some(mut known) = known else { return Ok(warnings) };
    for (hook, Webhook { secret, .. }) in &webhooks {
        known.hooks.insert((hook.model.clone(), hook.name.clone()));
        if !known.secrets.contains(secret) {
            let set = format!("`snaphook secret set {secret}` stores it");
            warnings.push(format!("hook `{hook}` is signed with secret `{secret}`, which does not exist; {set}"));
        }
    }
    known.models.extend(models.into_iter().map(|model| model.id));
    for grant in &config.grants {
        if let GrantTarget::Hooks { model: pattern, hook, .. } = &grant.target {
            let models: Vec<_> = known.models.iter().filter(|model| matches(pattern, model)).collect();
            let is_bound = |model: &&String| known.hooks.iter().any(|(of, name)| of == *model && matches(hook, name));
            if models.is_empty() {
                warnings.push(at(grant, &format!("no model is called `{pattern}`")));
            } else if !hook.starts_with("sha256:") && hook != "*" && !models.iter().any(is_bound) {
                warnings.push(at(grant, &format!("no hook of `{pattern}` is called `{hook}`")));
            }
        }
        for (what, patterns) in [("read", &grant.read), ("write", &grant.write)] {
            for pattern in patterns.iter().filter(|pattern| !known.models.iter().any(|model| matches(pattern, model))) {
                warnings.push(at(grant, &format!("`{what}` names `{pattern}`, but there is no such model")));
            }
        }
        for pattern in grant.secret.iter().filter(|pattern| !known.secrets.iter().any(|name| matches(pattern, name))) {
            warnings.push(at(grant, &format!("`secret` names `{pattern}`, but there is no such secret")));
        }
    }
    Ok(warnings)
}

/// The webhooks of the files.
fn webhooks(models: &[ModelFiles]) -> Vec<(Arc<HookId>, Webhook)> {
    let mut found = Vec::new();
    for model in models {
        for (phase, chain) in &model.phases {
            let mut names = BTreeSet::new();
            for binding in chain {
                let name = binding.name.clone().unwrap_or_else(|| free_hook_name(phase.as_str(), &names));
                names.insert(name.clone());
                let CodeFile::Webhook(webhook) = &binding.code else { continue };
                let artifact = format!("sha256:{:x}", Sha256::digest(webhook.code()));
                let hook = HookId { model: model.id.clone(), phase: *phase, name, artifact };
                found.push((Arc::new(hook), webhook.clone()));
            }
        }
    }
    found
}

fn at(grant: &Grant, what: &str) -> String {
    format!("the grant at line {}: {what}", grant.line)
}

async fn ask(client: &Client) -> Result<Known> {
    let items = |page: &Value| page.get("items").and_then(Value::as_array).cloned().unwrap_or_default();
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let mut known = Known::default();
    for model in items(&client.get("/models").await?) {
        let Some(id) = model.get("id").and_then(text) else { continue };
        let hooks = client.get(&path(&["models", &id, "hooks"])).await?;
        for hook in
            hooks.as_object().into_iter().flat_map(|phases| phases.values()).filter_map(Value::as_array).flatten()
        {
            known.hooks.extend(hook.get("name").and_then(text).map(|name| (id.clone(), name)));
        }
        known.models.insert(id);
    }
    known.secrets.extend(items(&client.get("/secrets").await?).iter().filter_map(text));
    Ok(known)
}
