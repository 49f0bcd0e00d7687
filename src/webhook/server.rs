//! Connections: accept, TLS, HTTP/1.1, drain.
//!
//! ```text
//!   listener ── TLS within 5 s ──▶ one task for each connection ── requests ──▶ router
//!   stop asked for ──▶ not ready, no new connections, requests in flight end (at most 20 s) ──▶ done
//! ```

use std::{future::Future, sync::Arc, time::Duration};

use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::GracefulShutdown,
    service::TowerToHyperService,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::timeout,
};
use tokio_rustls::TlsAcceptor;
use tracing::{debug, info, warn};

/// Three round trips of the slowest network.
const HANDSHAKE: Duration = Duration::from_secs(5);

/// Bounds a head that dribbles in, and, because hyper begins to count when the one before is answered, an idle connection.
/// Longer than the API server keeps an idle one (90 s in Go): the side that sends must be the side that closes.
const HEAD: Duration = Duration::from_secs(100);

/// Longer than any review may take (30 s is Kubernetes' bound, ours are 3 s and less).
const DRAIN: Duration = Duration::from_secs(20);

/// What a connection keeps of what it has read, beside the bodies that are counted. A head must fit into it.
const BUFFER: usize = 64 << 10;

/// Connections at a time. An API server keeps a handful.
const CONNECTIONS: usize = 512;

/// Serves `router` on `listener` until `stop` resolves; `stopping` is called then, and requests in flight are answered
/// before it returns.
pub async fn serve(
    listener: TcpListener,
    tls: Arc<rustls::ServerConfig>,
    router: axum::Router,
    stop: impl Future<Output = ()>,
    stopping: impl FnOnce(),
) {
    let acceptor = TlsAcceptor::from(tls);
    let graceful = GracefulShutdown::new();
    let slots = Arc::new(Semaphore::new(CONNECTIONS));
    let mut http = hyper::server::conn::http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD).half_close(false).max_buf_size(BUFFER);

    let mut stop = std::pin::pin!(stop);
    loop {
        let accepted = async {
            // The semaphore is never closed, so there is always a permit in the end.
            let slot = Arc::clone(&slots).acquire_owned().await.ok();
            (slot, listener.accept().await)
        };
        let (slot, stream) = tokio::select! {
            () = &mut stop => break,
            (slot, accepted) = accepted => match accepted {
                Ok((stream, _)) => (slot, stream),
                Err(error) => {
                    pause_after(&error).await;
                    continue;
                }
            },
        };
        let (acceptor, router, http, watcher) = (acceptor.clone(), router.clone(), http.clone(), graceful.watcher());
        // Not joined: the drain below waits for its watcher, which the task drops when it ends.
        tokio::spawn(async move {
            if let Some(stream) = handshake(&acceptor, stream).await {
                let service = TowerToHyperService::new(router);
                let connection = http.serve_connection(TokioIo::new(stream), service);
                if let Err(error) = watcher.watch(connection).await {
                    debug!("a connection ended early: {error}");
                }
            }
            drop(slot);
        });
    }
    stopping();
    drop(listener);
    info!(connections = graceful.count(), "stopping: no new connections, answering what was asked");
    if timeout(DRAIN, graceful.shutdown()).await.is_err() {
        warn!("some requests were not answered within {DRAIN:?}; leaving them");
    }
}

async fn handshake(acceptor: &TlsAcceptor, stream: TcpStream) -> Option<tokio_rustls::server::TlsStream<TcpStream>> {
    // Answers are one small write each: waiting for more to send only delays them.
    let _ = stream.set_nodelay(true);
    match timeout(HANDSHAKE, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => Some(stream),
        Ok(Err(error)) => {
            // A client that does not trust our CA shows here; so does every port scan.
            info!("TLS handshake failed: {error}");
            None
        }
        Err(_) => {
            info!("TLS handshake not done within {HANDSHAKE:?}");
            None
        }
    }
}

/// A connection that was reset before we came to it is its own affair; out of file descriptors is not, and needs time.
async fn pause_after(error: &std::io::Error) {
    use std::io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    if !matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted) {
        warn!("cannot accept a connection: {error}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}
