//! Listens, with TLS or on this machine only, and shuts down gracefully.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::{Extension, Router};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use hyper_util::service::TowerToHyperService;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::json;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{signal, SignalKind};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_rustls::TlsAcceptor;

use crate::config::{Config, Options};
use crate::http::{router, App};
use crate::log;

/// The most connections at a time.
const CONNECTIONS: usize = 512;

/// How long a caller may take for the TLS handshake and for the head of a request, and how long a connection may be
/// idle.
const HEAD_TIMEOUT: Duration = Duration::from_secs(15);

/// How long running requests may take after the server was told to stop.
const GRACE: Duration = Duration::from_secs(30);

/// Runs the server until it is told to stop.
///
/// # Errors
/// Why it cannot start, in words.
pub async fn run(options: Options) -> Result<(), String> {
    let config = Config::check(options).await?;
    let acceptor = config.tls.as_ref().map(|(certificate, key)| tls(certificate, key)).transpose()?;
    let app = Arc::new(App::new(&config)?);
    let listener =
        TcpListener::bind(&config.addresses[..]).await.map_err(|error| format!("cannot listen: {error}"))?;
    let address = listener.local_addr().map_err(|error| format!("cannot listen: {error}"))?;
    if let Some(file) = &config.port_file {
        let part = file.with_extension("part");
        std::fs::write(&part, address.port().to_string())
            .and_then(|()| std::fs::rename(&part, file))
            .map_err(|error| format!("--port-file: {error}"))?;
    }
    log::line("listening", json!({ "address": address.to_string(), "tls": acceptor.is_some() }));
    serve(listener, acceptor, router(app)).await
}

/// Accepts connections until a signal ends the server, and then waits for the running requests.
async fn serve(listener: TcpListener, acceptor: Option<TlsAcceptor>, router: Router) -> Result<(), String> {
    let on = |kind| signal(kind).map_err(|error| format!("cannot wait for signals: {error}"));
    let (mut terminate, mut interrupt) = (on(SignalKind::terminate())?, on(SignalKind::interrupt())?);
    let graceful = GracefulShutdown::new();
    let permits = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let accepted = tokio::select! {
            accepted = accept(&listener, &permits) => accepted,
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
        };
        let Some((stream, peer, permit)) = accepted else { continue };
        let router = router.clone().layer(Extension(peer));
        let (acceptor, watcher) = (acceptor.clone(), graceful.watcher());
        tokio::spawn(async move {
            let _permit = permit;
            let Some(acceptor) = acceptor else { return connection(stream, router, watcher).await };
            match tokio::time::timeout(HEAD_TIMEOUT, acceptor.accept(stream)).await {
                Ok(Ok(stream)) => connection(stream, router, watcher).await,
                Ok(Err(error)) => {
                    log::line("no TLS", json!({ "from": peer.ip().to_string(), "why": error.to_string() }));
                }
                Err(_) => {}
            }
        });
    }
    log::line("ending", json!({}));
    drop(listener);
    let _ = tokio::time::timeout(GRACE, graceful.shutdown()).await;
    Ok(())
}

/// Accepts one connection, as soon as there is room for it.
async fn accept(
    listener: &TcpListener,
    permits: &Arc<Semaphore>,
) -> Option<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
    let permit = permits.clone().acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok((stream, peer)) => Some((stream, peer, permit)),
        Err(_) => {
            // There may be no descriptors left; some connection will end.
            tokio::time::sleep(Duration::from_millis(100)).await;
            None
        }
    }
}

/// Serves the requests of a connection.
async fn connection<S>(stream: S, router: Router, watcher: Watcher)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    // An error here only means that the caller has broken the connection off.
    let _ = watcher.watch(connection).await;
}

/// Sets up TLS with the certificate and its key.
fn tls(certificate: &Path, key: &Path) -> Result<TlsAcceptor, String> {
    let chain = CertificateDer::pem_file_iter(certificate)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| format!("--tls-cert {}: {error}", certificate.display()))?;
    let key_path = key.display();
    let key = PrivateKeyDer::from_pem_file(key).map_err(|error| format!("--tls-key {key_path}: {error}"))?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| format!("cannot set up TLS: {error}"))?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(|error| format!("--tls-cert and --tls-key: {error}"))?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}
