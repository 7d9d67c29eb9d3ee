//! The TLS side of a connection: which roots are trusted, which versions are spoken.
//!
//! Must not know policies or requests. The operating system's roots are read once, at the first
//! https request, because that reads files and most tests never need it.

use std::sync::Arc;

use tokio::sync::OnceCell;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{ClientConfig, ProtocolVersion, RootCertStore};

use super::target::Host;

/// How to speak TLS; one is enough for all connections.
pub struct Tls {
    config: OnceCell<Arc<ClientConfig>>,
}

impl Tls {
    /// Trusting whom the operating system trusts.
    pub fn with_system_roots() -> Self {
        Self { config: OnceCell::new() }
    }

    /// Trusting these only.
    pub fn with_roots(roots: RootCertStore) -> Result<Self, String> {
        Ok(Self { config: OnceCell::new_with(Some(configure(roots)?)) })
    }

    /// What makes a TLS stream of a socket.
    ///
    /// A failure to read the roots is not remembered: they may be mounted a moment later.
    pub async fn connector(&self) -> Result<TlsConnector, String> {
        self.config.get_or_try_init(load).await.map(|config| TlsConnector::from(Arc::clone(config)))
    }
}

async fn load() -> Result<Arc<ClientConfig>, String> {
    let found = tokio::task::spawn_blocking(rustls_native_certs::load_native_certs)
        .await
        .map_err(|error| format!("reading the trusted roots was interrupted: {error}"))?;
    for error in &found.errors {
        tracing::warn!(%error, "a trusted root certificate could not be read");
    }
    let mut roots = RootCertStore::empty();
    let (added, ignored) = roots.add_parsable_certificates(found.certs);
    tracing::debug!(added, ignored, "trusted root certificates");
    if roots.is_empty() {
        return Err("this system has no trusted root certificates".to_owned());
    }
    configure(roots)
}

fn configure(roots: RootCertStore) -> Result<Arc<ClientConfig>, String> {
    let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

pub(super) fn server_name(host: &Host) -> Result<ServerName<'static>, String> {
    match host {
        Host::Address(address) => Ok(ServerName::IpAddress((*address).into())),
        Host::Name(name) => {
            ServerName::try_from(name.clone()).map_err(|_| "not a name TLS can check".to_owned())
        }
    }
}

pub(super) fn version_name(version: Option<ProtocolVersion>) -> Option<&'static str> {
    match version? {
        ProtocolVersion::TLSv1_2 => Some("TLSv1.2"),
        ProtocolVersion::TLSv1_3 => Some("TLSv1.3"),
        _ => None,
    }
}
