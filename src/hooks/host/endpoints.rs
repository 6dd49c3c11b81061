//! Custom endpoints: components from the configuration that handle requests.
//!
//! Changes to a component or to the list of endpoints take effect while the server runs. If something cannot be loaded,
//! the previous version stays in use.

use std::sync::{Arc, OnceLock};

use arc_swap::{ArcSwap, ArcSwapOption};
use sha2::{Digest, Sha256};

use super::exchange::{EndpointResponse, Exchange};
use super::record::{self, Record};
use crate::config::{
    ChangeCause, Changes, Config, ConfigError, ConfigErrors, ConfigHandle, EndpointConfig, EndpointRole, read_regular,
};
use crate::hooks::context::{Failure, FailureCause};
use crate::hooks::engines::{CODE_BYTES_MAX, Proxies, Proxy};
use crate::hooks::grants::{Granted, Grantee};
use crate::hooks::session::Services;
use crate::telemetry::exposition::Exposition;

/// The endpoints of a server.
pub struct Endpoints {
    config: Arc<ArcSwap<Config>>,
    proxies: Proxies,
    services: OnceLock<Arc<Services>>,
    mounted: ArcSwap<Vec<Arc<Endpoint>>>,
    /// Serialises loads.
    loading: tokio::sync::Mutex<()>,
}

/// One prepared endpoint.
pub struct Endpoint {
    config: EndpointConfig,
    /// SHA-256 of the component.
    sha256: String,
    proxy: Arc<Proxy>,
    granted: ArcSwapOption<Granted>,
    pub(super) record: Arc<Record>,
}

impl Endpoints {
    pub(super) fn new(config: Arc<ArcSwap<Config>>) -> Endpoints {
        let proxies = Proxies::new(&config.load().hooks.cache);
        let (services, mounted) = (OnceLock::new(), ArcSwap::default());
        Endpoints { config, proxies, services, mounted, loading: tokio::sync::Mutex::default() }
    }

    /// Only the first call has an effect.
    pub(super) fn attach(&self, services: Arc<Services>) {
        let _ = self.services.set(services);
    }

    /// The endpoint of a path below the mount path.
    pub fn at(&self, path: &str) -> Option<Arc<Endpoint>> {
        self.mounted.load().iter().find(|endpoint| endpoint.config.covers(path)).cloned()
    }

    /// Loads the endpoints of the configuration. A faulty endpoint is skipped, or stays as it was.
    pub async fn load(&self) -> Result<(), ConfigErrors> {
        let _turn = self.loading.lock().await;
        let config = self.config.load_full();
        let before = self.mounted.load_full();
        let (mut mounted, mut faults) = (Vec::new(), Vec::new());
        for endpoint in &config.server.endpoints {
            let old = before.iter().find(|old| old.config.name == endpoint.name);
            match self.load_one(endpoint, old).await {
                Ok(loaded) => mounted.push(loaded),
                Err(message) => {
                    let file = endpoint.component.display();
                    let message = format!("`server.endpoints.component` is `{file}`, which cannot be used: {message}");
                    faults.push(ConfigError::new(endpoint.line, message));
                    mounted.extend(old.cloned());
                }
            }
        }
        self.mounted.store(Arc::new(mounted));
        if faults.is_empty() { Ok(()) } else { Err(ConfigErrors::new(config.name(), faults)) }
    }

    async fn load_one(&self, endpoint: &EndpointConfig, old: Option<&Arc<Endpoint>>) -> Result<Arc<Endpoint>, String> {
        let file = endpoint.component.clone();
        let read = tokio::task::spawn_blocking(move || read_regular(&file, CODE_BYTES_MAX)).await;
        let code = read.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
        let sha256 = format!("{:x}", Sha256::digest(&code));
        let same = old.filter(|old| old.sha256 == sha256);
        if let Some(same) = same.filter(|same| same.config == *endpoint) {
            return Ok(Arc::clone(same));
        }
        let proxy = match same {
            Some(same) => Arc::clone(&same.proxy),
            None => Arc::new(self.proxies.prepare(&code).await.map_err(|error| error.to_string())?),
        };
        if same.is_none() {
            let file = endpoint.component.display();
            tracing::info!("endpoint `{}` at {}: {file}, sha256:{sha256}", endpoint.name, endpoint.path);
        }
        let record = old.map_or_else(|| Record::new(&endpoint.name), |old| Arc::clone(&old.record));
        let config = endpoint.clone();
        Ok(Arc::new(Endpoint { config, sha256, proxy, granted: ArcSwapOption::empty(), record }))
    }

    /// Reloads on changes of the files, changes of the configuration and SIGHUP, until it is dropped.
    pub async fn follow(self: Arc<Self>, config: Arc<ConfigHandle>) {
        let mut reloads = config.subscribe();
        let mut said = String::new();
        loop {
            let files: Vec<_> =
                config.load().server.endpoints.iter().map(|endpoint| endpoint.component.clone()).collect();
            // Start the watcher before reading the files, so that no change is missed in between.
            let mut changes = Changes::of(&files);
            loop {
                self.load_and_tell(&mut said).await;
                tokio::select! {
                    change = changes.next() => if change == ChangeCause::Hangup {
                        said.clear();
                    },
                    // The sender lives as long as the handle.
                    _ = reloads.changed() => break,
                }
            }
        }
    }

    /// `said` is the last error that was logged; it is not repeated for every unrelated change.
    async fn load_and_tell(&self, said: &mut String) {
        match self.load().await {
            Ok(()) => said.clear(),
            Err(faults) => {
                let faults = faults.lines().collect::<Vec<_>>().join("; ");
                if *said != faults {
                    tracing::error!("{faults}; the endpoints mounted before stay in force");
                    *said = faults;
                }
            }
        }
    }

    /// Writes the runs and failures of each endpoint.
    pub fn write_metrics(&self, out: &mut Exposition) {
        let mounted = self.mounted.load();
        let records: Vec<&Record> = mounted.iter().map(|endpoint| &*endpoint.record).collect();
        record::write_metrics(out, &records);
    }

    /// Lets an endpoint handle a request, in a new sandbox.
    pub async fn answer(&self, endpoint: &Endpoint, request: Exchange) -> Result<EndpointResponse, Failure> {
        let services = self.services.get().ok_or_else(|| Failure {
            cause: FailureCause::Internal,
            message: "the server is not ready to run endpoints".to_owned(),
            limit: None,
        })?;
        let granted = endpoint.granted(&self.config);
        let place = endpoint.record.places.take_owned(granted.config().hooks.concurrency).await;
        let place = place.inspect_err(|failure| endpoint.record.count(Some(failure.cause)))?;
        request.run(&endpoint.record, &endpoint.proxy, services, granted, place).await
    }
}

impl Endpoint {
    pub fn name(&self) -> &str {
        &self.config.name
    }

    /// The path below the mount path.
    pub fn path(&self) -> &str {
        &self.config.path
    }

    pub fn role(&self) -> EndpointRole {
        self.config.role
    }

    /// What the current configuration grants it.
    fn granted(&self, config: &ArcSwap<Config>) -> Arc<Granted> {
        let config = config.load();
        if let Some(granted) = &*self.granted.load()
            && granted.is_current(&config)
        {
            return Arc::clone(granted);
        }
        let granted = Arc::new(Granted::resolve(&config, Grantee::Endpoint(Arc::clone(&self.record.name))));
        self.granted.store(Some(Arc::clone(&granted)));
        granted
    }
}
