//! `surefoot webhook`.

use std::{net::SocketAddr, path::PathBuf, sync::Arc};

use anyhow::Context;
use clap::Args;
use tokio::{
    net::TcpListener,
    signal::unix::{Signal, SignalKind, signal},
    sync::{oneshot, watch},
};
use tracing::{info, warn};

use super::{ClusterArgs, Outcome, load};
use crate::{
    cluster::{self, ClusterFacts},
    telemetry,
    webhook::{App, Rules, State, router, server, tls},
};

/// Run the admission webhook
///
/// An HTTPS server that the API server asks about every Deployment in guarded namespaces.
///
/// It opens its port only when the policies are compiled and the cluster's facts are complete, and reads the cluster but never
/// writes to it. SIGTERM or Ctrl-C: it answers what was asked and ends; a second one ends it at once.
#[derive(Debug, Args)]
pub(super) struct Webhook {
    /// Address and port to serve on
    #[arg(long, default_value = "0.0.0.0:8443", value_name = "ADDR:PORT")]
    listen: SocketAddr,
    /// Serving certificate (PEM)
    #[arg(long, value_name = "FILE")]
    tls_cert: PathBuf,
    /// Its key (PEM)
    #[arg(long, value_name = "FILE")]
    tls_key: PathBuf,
    /// Policies to use instead of the built-in set
    #[arg(long, value_name = "DIR")]
    policies: Option<PathBuf>,
    /// Configuration
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    cluster: ClusterArgs,
}

/// Policies may nest deep, and a debug build's frames are large; untouched stack costs nothing.
const STACK: usize = 8 << 20;

impl Webhook {
    pub(super) fn run(self) -> anyhow::Result<Outcome> {
        telemetry::init();
        let Self { listen, tls_cert, tls_key, policies, config, cluster } = self;
        // What needs no cluster comes first: its mistakes are the quickest to mend.
        let tls = tls::load(&tls_cert, &tls_key)?;
        let config = load::config(config.as_deref())?;
        let set = load::policies(policies.as_deref(), &config)?;
        info!(policies = set.policies().len(), digest = set.digest(), "policies are compiled");
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().thread_stack_size(STACK).build()?;
        let ended = runtime.block_on(async {
            let mut signals = Signals::new()?;
            let client = cluster::connect(cluster.kubeconfig.as_deref(), cluster.context.as_deref()).await?;
            let (facts, guarded) = ClusterFacts::new(client, &cluster::own_namespace());
            let synced = guarded.synced();
            let app = Arc::new(App::new(Rules { set, config }, facts));
            tokio::select! {
                served = serve(&app, synced, listen, tls, &mut signals) => served,
                ended = guarded.run() => match ended {
                    Ok(never) => match never {},
                    Err(ended) => Err(ended.into()),
                },
            }
        });
        // Not waited for: an evaluation that is still running belongs to a request whose time is over.
        runtime.shutdown_background();
        ended.map(|()| Outcome::Fine)
    }
}

/// Waits for the facts, then opens the port and serves until a signal.
async fn serve(
    app: &Arc<App>,
    mut synced: watch::Receiver<bool>,
    listen: SocketAddr,
    tls: Arc<rustls::ServerConfig>,
    signals: &mut Signals,
) -> anyhow::Result<()> {
    tokio::select! {
        synced = synced.wait_for(|synced| *synced) => drop(synced.context("the watches ended")?),
        () = signals.next() => return Ok(()),
    }
    let listener = TcpListener::bind(listen).await.with_context(|| format!("cannot listen on {listen}"))?;
    app.enter(State::Ready);
    info!("ready, serving on https://{}", listener.local_addr()?);
    let (stop, stopped) = oneshot::channel::<()>();
    let stopped = async { drop(stopped.await) };
    let serving = server::serve(listener, tls, router(Arc::clone(app)), stopped, || app.enter(State::Stopping));
    tokio::pin!(serving);
    tokio::select! {
        () = &mut serving => return Ok(()),
        () = signals.next() => drop(stop),
    }
    tokio::select! {
        () = &mut serving => info!("stopped"),
        () = signals.next() => warn!("told twice: stopping without waiting for what was asked"),
    }
    Ok(())
}

/// SIGTERM and Ctrl-C.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
