//! `snaphook token`: who may call a server that asks for tokens.

use std::sync::Arc;

use clap::Subcommand;
use serde_json::{Value, json};
use snaphook_driver::{SecureStore, time};
use snaphook_identity::{TokenRequest, Tokens};

use super::client::{Client, ClientBody, path};
use super::failure::{Failure, Result};
use super::global::Global;
use super::output;
use crate::drivers::Stores;

/// Create, list and revoke tokens, through a running server or directly in its storage
#[derive(Debug, Subcommand)]
pub(super) enum Token {
    /// Create a token and print it, once
    ///
    /// Example: snaphook token create shop --role writer --models order --models 'audit-*'
    Create {
        name: String,
        /// The role: `reader`, `writer` or `admin`
        #[arg(long, value_name = "ROLE")]
        role: String,
        /// Ids or globs of the models that a reader or writer may use [default: all]
        #[arg(long, value_name = "MODEL")]
        models: Option<Vec<String>>,
        /// When the token expires, such as 2027-01-31T12:00:00Z
        #[arg(long, value_name = "TIME")]
        expires_at: Option<String>,
    },
    /// Print names, roles, models and last use; the tokens themselves cannot be read back
    List,
    /// Revoke tokens
    Rm {
        #[arg(required = true, value_name = "NAME")]
        names: Vec<String>,
    },
}

/// Access to the tokens: through a server, or directly in the storage.
enum TokenAccess {
    Server(Client),
    Storage { store: Arc<dyn SecureStore>, tokens: Tokens },
}

impl Token {
    pub(super) async fn run(&self, global: &Global) -> Result<()> {
        let place = TokenAccess::find(global).await?;
        let result = self.run_at(&place).await;
        place.close().await;
        result
    }

    async fn run_at(&self, place: &TokenAccess) -> Result<()> {
        match self {
            Token::Create { name, role, models, expires_at } => {
                let token = place.create(name, role, models.as_deref(), expires_at.as_deref()).await?;
                output::line(token)
            }
            Token::List => {
                for token in place.list().await? {
                    let text = |key: &str| token[key].as_str().unwrap_or("-").to_owned();
                    let models: Vec<&str> =
                        token["models"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
                    output::line(format!(
                        "{:<24} {:<7} models {}, expires {}, last used {}",
                        text("name"),
                        text("role"),
                        models.join(" "),
                        text("expires_at"),
                        text("last_used_at")
                    ))?;
                }
                Ok(())
            }
            Token::Rm { names } => {
                for name in names {
                    place.revoke(name).await?;
                    output::line(format!("token `{name}` is revoked"))?;
                }
                Ok(())
            }
        }
    }
}

impl TokenAccess {
    async fn find(global: &Global) -> Result<Self> {
        let client = global.client()?;
        match client.find("/healthz").await {
            Err(Failure::NoServer(_)) if !client.is_named() => {
                let config = global.config()?;
                let failed = |message: String| Failure::new(message);
                let (store, _) = Stores::open_vault(&config).await.map_err(|error| failed(error.to_string()))?;
                match Tokens::open(Arc::clone(&store)).await {
                    Ok(tokens) => Ok(TokenAccess::Storage { store, tokens }),
                    Err(error) => {
                        // Only the first error is reported.
                        let _ = store.close().await;
                        Err(failed(error.to_string()))
                    }
                }
            }
            Err(Failure::NoServer(message)) => Err(Failure::NoServer(message)),
            // Whatever its health: the server is there.
            _ => Ok(TokenAccess::Server(client)),
        }
    }

    async fn create(
        &self,
        name: &str,
        role: &str,
        models: Option<&[String]>,
        expires_at: Option<&str>,
    ) -> Result<String> {
        match self {
            TokenAccess::Server(client) => {
                let mut body = json!({ "name": name, "role": role });
                if let Some(models) = models {
                    body["models"] = json!(models);
                }
                if let Some(expires_at) = expires_at {
                    body["expires_at"] = json!(expires_at);
                }
                let made = client.post("/tokens", Some(ClientBody::json(&body))).await?;
                made["token"]
                    .as_str()
                    .map(str::to_owned)
                    .ok_or_else(|| Failure::new("the server returned no token".to_owned()))
            }
            TokenAccess::Storage { tokens, .. } => {
                let role = role.parse().map_err(|error| Failure::new(format!("`--role`: {error}")))?;
                let expires_at = match expires_at {
                    None => None,
                    Some(text) => Some(time::parse(text).ok_or_else(|| {
                        Failure::new(format!("`--expires-at` is `{text}`, expected such as `2027-01-31T12:00:00Z`"))
                    })?),
                };
                let request =
                    TokenRequest { name: name.to_owned(), role, models: models.map(<[String]>::to_vec), expires_at };
                let made = tokens.make(request, time::now()).await.map_err(|error| Failure::new(error.to_string()))?;
                Ok(made.token.expose().to_owned())
            }
        }
    }

    async fn list(&self) -> Result<Vec<Value>> {
        match self {
            TokenAccess::Server(client) => {
                let mut page = client.get("/tokens").await?;
                match page.get_mut("items").map(Value::take) {
                    Some(Value::Array(items)) => Ok(items),
                    _ => Ok(Vec::new()),
                }
            }
            TokenAccess::Storage { tokens, .. } => {
                let listed = tokens.list().await.map_err(|error| Failure::new(error.to_string()))?;
                Ok(listed.iter().map(|info| json!(info)).collect())
            }
        }
    }

    async fn revoke(&self, name: &str) -> Result<()> {
        match self {
            TokenAccess::Server(client) => client.delete(&path(&["tokens", name])).await,
            TokenAccess::Storage { tokens, .. } => {
                tokens.revoke(name).await.map_err(|error| Failure::new(error.to_string()))
            }
        }
    }

    async fn close(self) {
        if let TokenAccess::Storage { store, tokens } = self {
            // No token was used, so there is nothing to save.
            let _ = tokens.close().await;
            if let Err(error) = store.close().await {
                tracing::error!("secure storage: {error}");
            }
        }
    }
}
