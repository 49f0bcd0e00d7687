//! `surefoot controller`.

use std::path::PathBuf;

use anyhow::Context;
use clap::Args;
use tokio::signal::unix::{SignalKind, signal};

use super::{ClusterArgs, Outcome};
use crate::{cluster, config::Config, controller, telemetry};

/// Watch the rollouts of guarded namespaces, and put the last good pod template back when one spends its budget of probe
/// failures.
///
/// Runs in the cluster, or outside of it with --kubeconfig. Of several controllers one acts at a time (Lease
/// surefoot-controller); the others stand by. On SIGTERM it ends the write it is making and hands over.
#[derive(Debug, Args)]
pub(super) struct Controller {
    /// Configuration: budget and bake time of rollouts
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    cluster: ClusterArgs,
}

impl Controller {
    pub(super) fn run(self) -> anyhow::Result<Outcome> {
        let config = match &self.config {
            Some(file) => {
                let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
                Config::parse(&text, &file.display().to_string())?
            }
            None => Config::default(),
        };
        telemetry::init();
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        runtime.block_on(async {
            let mut terminate = signal(SignalKind::terminate())?;
            let mut interrupt = signal(SignalKind::interrupt())?;
            let ClusterArgs { kubeconfig, context } = &self.cluster;
            let client = cluster::connect(kubeconfig.as_deref(), context.as_deref()).await?;
            let shutdown = async {
                tokio::select! {
                    _ = terminate.recv() => {}
                    _ = interrupt.recv() => {}
                }
            };
            controller::run(client, config.rollouts, shutdown).await?;
            Ok(Outcome::Fine)
        })
    }
}
