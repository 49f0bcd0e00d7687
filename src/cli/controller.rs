//! `surefoot controller`.

use std::{convert::Infallible, net::SocketAddr, path::PathBuf, sync::Arc};

use anyhow::Context as _;
use clap::Args;
use jiff::SignedDuration;
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
    sync::watch,
};
use tracing::{error, info};

use super::{ClusterArgs, Outcome, follow::Follow, load};
use crate::{
    cluster,
    config::Rollouts,
    controller::{self, Certificate, Installed},
    telemetry::{self, ControllerMetrics},
};

/// Watch the rollouts of guarded namespaces, and put the last good pod template back when one spends its budget of probe
/// failures.
///
/// Runs in the cluster, or outside of it with --kubeconfig. Of several controllers one acts at a time (Lease
/// surefoot-controller); the others stand by. On SIGTERM it ends the write it is making and hands over.
#[derive(Debug, Args)]
pub(super) struct Controller {
    /// Configuration: budget and bake time of rollouts; read again when it changes
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Address and port for /metrics, /healthz and /readyz, e.g. 0.0.0.0:8080; without it no port is opened
    #[arg(long, value_name = "ADDR:PORT")]
    listen: Option<SocketAddr>,
    /// Look after the webhook configurations of this name: they go when surefoot's namespace goes, so that an uninstall leaves
    /// none behind
    #[arg(long, value_name = "NAME")]
    hooks: Option<String>,
    /// Make the webhook's certificate, keep it in this Secret of surefoot's namespace and the hooks trusting it, and make a
    /// new one when two thirds of its life are over
    #[arg(long, value_name = "SECRET", requires = "hooks")]
    certificate: Option<String>,
    /// How long a certificate is valid, at least 10s
    #[arg(long, value_name = "DURATION", default_value = "8760h", requires = "certificate", value_parser = lifetime)]
    certificate_lifetime: SignedDuration,
    #[command(flatten)]
    cluster: ClusterArgs,
}

impl Controller {
    pub(super) fn run(self) -> anyhow::Result<Outcome> {
        telemetry::init();
        let Self { config: file, listen, hooks, certificate, certificate_lifetime, cluster } = self;
        let ClusterArgs { kubeconfig, context } = cluster;
        let certificate = certificate.map(|secret| Certificate { secret, lifetime: certificate_lifetime });
        let installed = hooks.map(|hooks| Installed { hooks, certificate });
        let follow = Follow::new(file.clone(), None);
        let config = load::config(file.as_deref())?;
        let (sender, rollouts) = watch::channel(config.rollouts);
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        runtime.block_on(async {
            let mut terminate = signal(SignalKind::terminate())?;
            let mut interrupt = signal(SignalKind::interrupt())?;
            let metrics = Arc::new(ControllerMetrics::default());
            let serving = serve(listen, Arc::clone(&metrics)).await?;
            let client = cluster::connect(kubeconfig.as_deref(), context.as_deref()).await?;
            let shutdown = async {
                tokio::select! {
                    _ = terminate.recv() => {}
                    _ = interrupt.recv() => {}
                }
            };
            tokio::select! {
                ended = controller::run(client, rollouts, installed, metrics, shutdown) => ended?,
                ended = serving => ended?,
                never = follow_config(follow, file, &sender) => match never {},
            }
            Ok(Outcome::Fine)
        })
    }
}

/// As long as nobody should have to trust one key.
const LONGEST: SignedDuration = SignedDuration::from_hours(10 * 8760);

/// As `8760h` or `90s`. A shorter life than ten seconds is over before the webhook has the certificate.
fn lifetime(text: &str) -> Result<SignedDuration, String> {
    let lifetime = text.parse::<SignedDuration>().map_err(|error| error.to_string())?;
    match lifetime {
        short if short < SignedDuration::from_secs(10) => Err("it takes at least 10s".to_owned()),
        long if long > LONGEST => Err("it takes at most ten years, 87600h".to_owned()),
        lifetime => Ok(lifetime),
    }
}

/// Binds the port, if one is wanted; what it gives answers there, and never ends but with an error.
async fn serve(
    listen: Option<SocketAddr>,
    metrics: Arc<ControllerMetrics>,
) -> anyhow::Result<impl Future<Output = anyhow::Result<()>>> {
    let listener = match listen {
        Some(address) => {
            let listener = TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address}"))?;
            info!("metrics on http://{}", listener.local_addr()?);
            Some(listener)
        }
        None => None,
    };
    Ok(async {
        match listener {
            Some(listener) => Ok(controller::server::serve(listener, metrics).await?),
            None => std::future::pending().await,
        }
    })
}

/// Budget and bake as the file says by now; one that is wrong changes nothing.
async fn follow_config(mut follow: Follow, file: Option<PathBuf>, rollouts: &watch::Sender<Rollouts>) -> Infallible {
    loop {
        follow.changed().await;
        match load::config(file.as_deref()) {
            Ok(config) => {
                let differs = |now: &mut Rollouts| std::mem::replace(now, config.rollouts.clone()) != config.rollouts;
                match rollouts.send_if_modified(differs) {
                    true => info!("the configuration is reloaded: every rollout is looked at again"),
                    false => info!("the configuration was read again: its rollouts are what they were"),
                }
            }
            Err(wrong) => error!("the configuration is not reloaded, the one before stays in force: {wrong}"),
        }
    }
}
