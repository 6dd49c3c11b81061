//! The driver's settings.

use std::collections::BTreeMap;

use serde::Deserialize;
use snaphook_driver::{DriverError, ErrorKind, OpenContext, Result, Store};
use snaphook_driver_peer::{Method, Peer, Timeout};

use crate::template::{Id, Template};

pub(crate) const URL_EXPECTED: &str = "the base address of the API, such as `https://api.example.com/v1`";
pub(crate) const PATHS_EXPECTED: &str = "a table of paths such as `create = '/{model}'`, `update = '/{model}/{id}'`, `delete = '/{model}/{id}'`, `list = '/{model}'`, each with `{model}`";
pub(crate) const METHODS_EXPECTED: &str =
    "a table of methods such as `create = 'POST'`, `update = 'PUT'`, `delete = 'DELETE'`";
pub(crate) const HEADERS_EXPECTED: &str = "a table of headers for every request, such as `Prefer = 'return=minimal'`";
pub(crate) const ID_EXPECTED: &str = "the name of the field that contains the id";
pub(crate) const ID_IN_UPDATES_EXPECTED: &str = "`false` if the peer does not accept the id in the body of an update";
pub(crate) const FIELDS_EXPECTED: &str = "a table of field names such as `revision = 'version'`, for model_version, revision, position, created_at, updated_at, data";
pub(crate) const STATE_EXPECTED: &str = "the path of a folder such as `data/crud`";

/// The settings below `driver = 'crud'`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CrudConfig {
    /// The base address of all paths.
    pub url: String,
    /// Sent as `Authorization: Bearer`.
    pub token: Option<String>,
    /// Sent with every request.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    #[serde(default)]
    pub paths: PathsConfig,
    #[serde(default)]
    pub methods: MethodsConfig,
    /// The field that contains the id.
    #[serde(default = "id")]
    pub id: String,
    /// Whether the body of an update contains the id, in addition to its path.
    #[serde(rename = "id-in-updates", default = "id_in_updates")]
    pub id_in_updates: bool,
    /// Names of the other fields in the peer's records.
    #[serde(default)]
    pub fields: FieldsConfig,
    /// The folder of the journal. It is created, with its parents, if it does not exist.
    #[serde(default = "state")]
    pub state: String,
    /// Timeout of one request in seconds.
    #[serde(default)]
    pub timeout: Timeout,
}

/// Paths with `{model}` and `{id}`. The path of `create` may contain the id; that of `list` must not.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PathsConfig {
    pub create: String,
    pub update: String,
    pub delete: String,
    /// Empty: the peer has no lists.
    pub list: String,
}

/// The methods of the requests.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MethodsConfig {
    pub create: String,
    pub update: String,
    pub delete: String,
    pub list: String,
}

/// Names of the fields of an instance. A field with an empty name is omitted.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FieldsConfig {
    pub model_version: String,
    pub revision: String,
    pub position: String,
    pub created_at: String,
    pub updated_at: String,
    /// `None`: the members of the data are fields of the record.
    pub data: Option<String>,
}

impl Default for PathsConfig {
    fn default() -> Self {
        let (all, one) = ("/{model}".to_owned(), "/{model}/{id}".to_owned());
        PathsConfig { create: all.clone(), update: one.clone(), delete: one, list: all }
    }
}

impl Default for MethodsConfig {
    fn default() -> Self {
        let [create, update, delete, list] = ["POST", "PUT", "DELETE", "GET"].map(str::to_owned);
        MethodsConfig { create, update, delete, list }
    }
}

impl Default for FieldsConfig {
    fn default() -> Self {
        let [model_version, revision, position, created_at, updated_at] =
            ["_model_version", "_revision", "_position", "_created_at", "_updated_at"].map(str::to_owned);
        FieldsConfig { model_version, revision, position, created_at, updated_at, data: None }
    }
}

fn id() -> String {
    "id".into()
}

fn state() -> String {
    "data/crud".into()
}

fn id_in_updates() -> bool {
    true
}

/// One request: its method and its path.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) method: Method,
    pub(crate) path: Template,
}

/// The requests that the peer supports.
#[derive(Debug)]
pub(crate) struct Calls {
    pub(crate) create: Call,
    pub(crate) update: Call,
    pub(crate) delete: Call,
    pub(crate) list: Option<Call>,
}

impl CrudConfig {
    /// Reads the settings, and checks them as a whole.
    pub(crate) fn new(context: &OpenContext) -> Result<CrudConfig> {
        let config: CrudConfig = context.settings()?;
        if config.state.is_empty() {
            return Err(wrong(format!("`state` is empty, expected {STATE_EXPECTED}")));
        }
        Ok(config)
    }

    pub(crate) fn peer(&self) -> Result<Peer> {
        Peer::open(Store::Model, &self.url, self.token.as_deref(), self.timeout)?.with_headers(&self.headers)
    }

    pub(crate) fn calls(&self) -> Result<Calls> {
        let CrudConfig { paths, methods, .. } = self;
        let call = |name: &str, method: &str, path: &str, id: Id| -> Result<Call> {
            let is_word = !method.is_empty() && method.bytes().all(|byte| byte.is_ascii_uppercase());
            let method = Method::from_bytes(method.as_bytes()).ok().filter(|_| is_word);
            let method =
                method.ok_or_else(|| wrong(format!("`methods.{name}` is not an HTTP method such as `POST`")))?;
            let path = Template::parse(path, id).map_err(|reason| wrong(format!("`paths.{name}` {reason}")))?;
            Ok(Call { method, path })
        };
        Ok(Calls {
            create: call("create", &methods.create, &paths.create, Id::May)?,
            update: call("update", &methods.update, &paths.update, Id::Must)?,
            delete: call("delete", &methods.delete, &paths.delete, Id::Must)?,
            list: match paths.list.as_str() {
                "" => None,
                path => Some(call("list", &methods.list, path, Id::Never)?),
            },
        })
    }
}

/// An error in the settings.
pub(crate) fn wrong(message: String) -> DriverError {
    DriverError::new(ErrorKind::Config, "open", message)
}
