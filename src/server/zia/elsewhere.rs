//! For systems other than Linux, where the bridge does not exist and the configuration rejects `kind = 'zia'`.

use std::sync::Arc;

use axum::Router;
use serde_json::{Map, Value};
use tokio::net::TcpStream;
use tokio::sync::watch;

use super::app::App;
use super::peer::PeerRef;
use crate::config::{Config, ConfigHandle};
use crate::engine::Engine;
use crate::telemetry::exposition::Exposition;

/// No bridge exists.
pub enum Bridge {}

impl Bridge {
    pub async fn open(_config: &Config, _engine: &Engine) -> Result<Option<Arc<Bridge>>, String> {
        Ok(None)
    }

    pub(super) async fn keep(
        self: Arc<Self>,
        _handle: Arc<ConfigHandle>,
        _engine: Arc<Engine>,
        _stop: watch::Receiver<bool>,
    ) {
        match *self {}
    }

    pub(super) async fn serve(&self, _stream: TcpStream, _place: &PeerRef, _app: Arc<App>, _router: Router) {
        match *self {}
    }

    pub(super) fn begin_connection(&self) {
        match *self {}
    }

    pub(super) async fn drained(&self) {
        match *self {}
    }

    pub(super) fn troubles(&self) -> (Map<String, Value>, Map<String, Value>) {
        match *self {}
    }

    pub(super) fn write_metrics(&self, _out: &mut Exposition) {
        match *self {}
    }
}

pub(super) fn find(_program: &std::path::Path) -> Result<std::path::PathBuf, String> {
    Err("modules with `kind = 'zia'` need Linux".to_owned())
}
