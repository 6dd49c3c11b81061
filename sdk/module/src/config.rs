//! A module's view of the server, of its configuration and of a connection.

/// The server and the module's own `config` table.
#[derive(Debug)]
pub struct Config<'a> {
    /// Such as `Snaphook`.
    pub server_name: &'a str,
    pub server_version: &'a str,
    /// Such as `linux-x86_64`.
    pub platform: &'a str,
    /// The module's name in `[[server.modules]]`.
    pub module_name: &'a str,
    /// Version of the REST API.
    pub api_version: u32,
    /// The module's `config` table as JSON.
    pub json: &'a str,
    pub(crate) settings: Vec<(&'a str, &'a str)>,
}

impl Config<'_> {
    /// A value of the `config` table: `path`, `limits.burst`, `names.0`.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.settings.iter().find(|(name, _)| *name == key).map(|(_, value)| *value)
    }

    /// All values of the `config` table.
    pub fn settings(&self) -> impl Iterator<Item = (&str, &str)> {
        self.settings.iter().copied()
    }
}

/// A connection.
#[derive(Clone, Copy, Debug)]
pub struct ConnectionInfo<'a> {
    /// Address and port.
    pub peer: &'a str,
    pub is_secure: bool,
}
