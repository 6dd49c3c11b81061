//! TLS 1.2 and 1.3 by rustls: what the server shows and asks for, replaced while it runs.
//!
//! A handshake begins with what is in force then, and its connection keeps that. What replaces it comes with a session
//! cache of its own, so no session outlives the client authorities that let it in.

mod files;
mod identity;

use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio_rustls::TlsAcceptor;

pub use self::files::check;
use self::identity::Identity;
use crate::config::{ChangeCause, Changes, Config, ConfigErrors, ConfigHandle, TlsConfig};
use crate::engine::Engine;

/// The certificate, key and client authorities in force.
pub struct Tls {
    current: ArcSwap<Identity>,
}

impl Tls {
    /// As the configuration says; `None`: the server speaks plain HTTP.
    pub async fn open(config: &Config, engine: &Engine) -> Result<Option<Arc<Tls>>, ConfigErrors> {
        let Some(tls) = &config.server.tls else { return Ok(None) };
        let identity = files::load(tls, engine).await.map_err(|faults| ConfigErrors::new(config.name(), faults))?;
        Ok(Some(Arc::new(Tls { current: ArcSwap::from_pointee(identity) })))
    }

    /// For the next handshake.
    pub(super) fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(Arc::clone(&self.current.load().config))
    }

    /// Whether the certificate is one for this host.
    pub(super) fn is_for(&self, host: &str) -> bool {
        self.current.load().is_for(host)
    }

    /// Follows the files, the configuration and SIGHUP until it is dropped. What cannot be used leaves all as it was.
    pub(super) async fn follow(self: Arc<Self>, config: Arc<ConfigHandle>, engine: Arc<Engine>) {
        let mut reloads = config.subscribe();
        loop {
            let Some(tls) = config.load().server.tls.clone() else { return };
            // The watcher first, then the look at the files, so that no change falls between the two.
            let mut changes = Changes::of(&tls.files());
            let mut said = String::new();
            loop {
                self.replace(&config.load().name(), &tls, &engine, &mut said).await;
                tokio::select! {
                    change = changes.next() => if change == ChangeCause::Hangup {
                        said.clear();
                    },
                    // Its sender lives as long as the handle.
                    _ = reloads.changed() => if config.load().server.tls.as_ref() != Some(&tls) { break },
                }
            }
        }
    }

    /// `said`: the complaint about what is there already, which is not repeated at each change beside it.
    async fn replace(&self, name: &str, tls: &TlsConfig, engine: &Engine, said: &mut String) {
        match files::load(tls, engine).await {
            Ok(identity) if identity.digest == self.current.load().digest => said.clear(),
            Ok(identity) => {
                said.clear();
                self.current.store(Arc::new(identity));
                tracing::info!("the certificate in {} is in force for new connections", tls.certificate.source);
            }
            Err(faults) => {
                let faults = ConfigErrors::new(name, faults).lines().collect::<Vec<_>>().join("; ");
                if *said != faults {
                    tracing::error!("{faults}; the previous certificate stays in force");
                    *said = faults;
                }
            }
        }
    }
}
