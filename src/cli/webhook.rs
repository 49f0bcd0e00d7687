//! `surefoot webhook`.

use std::{
    convert::Infallible,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::Context;
use clap::Args;
use jiff::Timestamp;
use tokio::{
    net::TcpListener,
    signal::unix::{Signal, SignalKind, signal},
    sync::{oneshot, watch},
    task::spawn_blocking,
    time::timeout,
};
use tracing::{error, info, warn};

use super::{
    ClusterArgs, Outcome,
    follow::Follow,
    given_up,
    load::{self, Unusable},
};
use crate::{
    cluster::{self, ClusterFacts},
    telemetry,
    webhook::{App, Part, Rules, State, router, server, tls},
};

/// Run the admission webhook
///
/// An HTTPS server that the API server asks about every Deployment in guarded namespaces.
///
/// Policies, configuration and certificate are read again when they change, also as a mounted ConfigMap or Secret. What is
/// wrong then changes nothing: what counted before does, and the log, /readyz?verbose and the metrics say why.
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

/// Longer than any set takes to load, its tests included; those end (see [`load::tested_policies`]), a file system may not.
const LOADING: Duration = Duration::from_secs(180);

impl Webhook {
    pub(super) fn run(self) -> anyhow::Result<Outcome> {
        telemetry::init();
        let Self { listen, tls_cert, tls_key, policies, config, cluster } = self;
        // Before anything is read: what changes from now on is read again.
        let follow_pair = Follow::new([tls_cert.clone(), tls_key.clone()], None);
        let follow_rules = Follow::new(config.clone(), policies.clone());
        // What needs no cluster comes first: its mistakes are the quickest to mend.
        let pair = tls::load(&tls_cert, &tls_key)?;
        let served = tls::Served::new(&pair);
        let tls = served.config()?;
        let rules = load_rules(policies.as_deref(), config.as_deref())?;
        info!(policies = rules.set.policies().len(), digest = rules.set.digest(), "policies are compiled");
        let runtime =
            tokio::runtime::Builder::new_multi_thread().enable_all().thread_stack_size(given_up::STACK).build()?;
        let ended = runtime.block_on(async {
            let mut signals = Signals::new()?;
            let client = cluster::connect(cluster.kubeconfig.as_deref(), cluster.context.as_deref()).await?;
            let (facts, guarded) = ClusterFacts::new(client, &cluster::own_namespace());
            let synced = guarded.synced();
            let app = Arc::new(App::new(rules, facts));
            app.certificate(pair.until);
            tokio::select! {
                served = serve(&app, synced, listen, tls, &mut signals) => served,
                ended = guarded.run() => match ended {
                    Ok(never) => match never {},
                    Err(ended) => Err(ended.into()),
                },
                never = follow_policies(&app, follow_rules, policies, config) => match never {},
                never = follow_certificate(&app, follow_pair, &served, tls_cert, tls_key) => match never {},
            }
        });
        // Not waited for: an evaluation that is still running belongs to a request whose time is over.
        runtime.shutdown_background();
        ended.map(|()| Outcome::Fine)
    }
}

fn load_rules(policies: Option<&Path>, config: Option<&Path>) -> Result<Rules, Unusable> {
    let config = load::config(config)?;
    config.ended(Timestamp::now()).iter().for_each(|ended| warn!("{ended}"));
    Ok(Rules { set: load::tested_policies(policies, &config)?, config })
}

/// Loads policies and configuration again whenever they have changed; a set that does not load changes nothing.
async fn follow_policies(
    app: &App,
    mut follow: Follow,
    policies: Option<PathBuf>,
    config: Option<PathBuf>,
) -> Infallible {
    loop {
        follow.changed().await;
        let (policies, config) = (policies.clone(), config.clone());
        let loading = spawn_blocking(move || load_rules(policies.as_deref(), config.as_deref()));
        let wrong = match timeout(LOADING, loading).await {
            Ok(Ok(Ok(rules))) => {
                if rules.set.digest() == app.rules().set.digest() {
                    info!(digest = rules.set.digest(), "policies were read again: nothing that counts has changed");
                    app.accept(Part::Policies);
                } else {
                    let (policies, digest) = (rules.set.policies().len(), rules.set.digest());
                    info!(policies, digest, before = app.rules().set.digest(), "policies are reloaded");
                    app.swap(rules);
                }
                continue;
            }
            Ok(Ok(Err(wrong))) => wrong.to_string(),
            Ok(Err(panicked)) => format!("an error inside surefoot: {panicked}"),
            // The thread is left to itself; it holds nothing that anybody waits for.
            Err(_) => format!("they did not load within {LOADING:?}"),
        };
        error!(digest = app.rules().set.digest(), "policies are not reloaded, this set stays in force: {wrong}");
        app.refuse(Part::Policies, wrong);
    }
}

/// Shows the new certificate to new connections whenever the files hold a valid pair; open ones go on.
async fn follow_certificate(
    app: &App,
    mut follow: Follow,
    served: &tls::Served,
    cert: PathBuf,
    key: PathBuf,
) -> Infallible {
    loop {
        follow.changed().await;
        match tls::load(&cert, &key) {
            Ok(pair) => {
                info!(until = %pair.until, "the certificate is reloaded");
                served.swap(&pair);
                app.certificate(pair.until);
            }
            Err(wrong) => {
                error!("the certificate is not reloaded, the one before is still shown: {wrong}");
                app.refuse(Part::Certificate, wrong.to_string());
            }
        }
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
