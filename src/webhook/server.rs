//! Connections: accept, TLS, HTTP/1.1, drain.
//!
//! ```text
//!   listener ── TLS within 5 s ──▶ one task for each connection ── requests ──▶ router
//!   stop asked for ──▶ not ready, connections close with their next answer (at most 5 s)
//!                  ──▶ no new connections, requests in flight end (at most 20 s) ──▶ done
//! ```

use std::{future::Future, sync::Arc, time::Duration};

use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::GracefulShutdown,
    service::TowerToHyperService,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::{sleep, timeout},
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

/// How long a connection has for one more answer, which says that it was the last. Closing an idle one at once would cross
/// with a request on its way: an API server cannot know whether we have read it, does not ask again, and refuses the apply.
/// One that was not used for so long will hardly be used in that moment (Go takes the one that was used last).
const RETIRE: Duration = Duration::from_secs(5);

/// What a connection keeps of what it has read, beside the bodies that are counted. A head must fit into it.
const BUFFER: usize = 64 << 10;

/// Connections at a time. An API server keeps a handful.
const CONNECTIONS: usize = 512;

/// Serves `router` on `listener` until `stop` resolves; `stopping` is called then, and requests in flight are answered
/// before it returns. From `stopping` on, `router` must say `Connection: close` with each answer.
pub async fn serve(
    listener: TcpListener,
    tls: Arc<rustls::ServerConfig>,
    router: axum::Router,
    stop: impl Future<Output = ()>,
    stopping: impl FnOnce(),
) {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD).half_close(false).max_buf_size(BUFFER);
    let server = Server {
        listener,
        tls: TlsAcceptor::from(tls),
        router,
        http,
        slots: Arc::new(Semaphore::new(CONNECTIONS)),
        connections: GracefulShutdown::new(),
    };
    until(stop, &server).await;
    stopping();
    info!(connections = server.connections.count(), "stopping: each connection is closed with its next answer");
    until(server.retired(), &server).await;
    let Server { listener, connections, .. } = server;
    drop(listener);
    if timeout(DRAIN, connections.shutdown()).await.is_err() {
        warn!("some requests were not answered within {DRAIN:?}; leaving them");
    }
}

/// Takes connections until `end` resolves.
async fn until(end: impl Future<Output = ()>, server: &Server) {
    let mut end = std::pin::pin!(end);
    loop {
        tokio::select! {
            () = &mut end => return,
            () = server.accept() => {}
        }
    }
}

struct Server {
    listener: TcpListener,
    tls: TlsAcceptor,
    router: axum::Router,
    http: http1::Builder,
    slots: Arc<Semaphore>,
    connections: GracefulShutdown,
}

impl Server {
    /// Takes one connection and serves it on a task of its own. Nothing is lost where it is dropped half way.
    async fn accept(&self) {
        // The semaphore is never closed, so there is always a permit in the end.
        let slot = Arc::clone(&self.slots).acquire_owned().await.ok();
        let stream = match self.listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => return pause_after(&error).await,
        };
        let (tls, router, http) = (self.tls.clone(), self.router.clone(), self.http.clone());
        let watcher = self.connections.watcher();
        // Not joined: the drain waits for its watcher, which the task drops when it ends.
        tokio::spawn(async move {
            if let Some(stream) = handshake(&tls, stream).await {
                let service = TowerToHyperService::new(router);
                let connection = http.serve_connection(TokioIo::new(stream), service);
                if let Err(error) = watcher.watch(connection).await {
                    debug!("a connection ended early: {error}");
                }
            }
            drop(slot);
        });
    }

    /// Until no connection is left, at most [`RETIRE`].
    async fn retired(&self) {
        let none_left = async {
            while self.connections.count() > 0 {
                sleep(Duration::from_millis(20)).await;
            }
        };
        let _idle_ones_are_left = timeout(RETIRE, none_left).await;
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
        sleep(Duration::from_millis(200)).await;
    }
}
